/* Other model files that a mutation reads. */
#ifndef LQT_RUNTIME_EDIT_REFERENCE_H_
#define LQT_RUNTIME_EDIT_REFERENCE_H_

#include "model/model.h"

/* SHA-256 of a whole model file. Errors: those of lqt__map_open, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__reference_digest(const char *path, uint8_t out[32], lqt_diag *diag);
/* Opens a model whose every byte is checked; `digest` (may be NULL) is what the file must have.
 * Errors: LQT_NOT_FOUND, LQT_IO, LQT_OUT_OF_MEMORY, LQT_REPLACEMENT_INVALID (not a sound model, or
 * another file than the digest's). */
LQT_NODISCARD lqt_status lqt__reference_open(const char *path, const uint8_t *digest,
                                             lqt_model **out, lqt_diag *diag);

#endif /* LQT_RUNTIME_EDIT_REFERENCE_H_ */
