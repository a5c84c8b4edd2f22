/* Rotary position embedding: inverse frequencies and their scaling variants. */
#ifndef LQT_RUNTIME_EXEC_ROPE_H_
#define LQT_RUNTIME_EXEC_ROPE_H_

#include <jansson.h>

#include "lqt/status.h"

/* Fills out[dim / 2] and *out_scale (what sin and cos are multiplied by) from the module's "rope"
 * object: type default, linear, llama3 or yarn. `where` names the module in the diag.
 * Errors: LQT_UNSUPPORTED (another type), LQT_BAD_GRAPH (a number that makes no sense).
 * Source: Su et al. 2021 (RoFormer), Chen et al. 2023 (linear), Peng et al. 2023 (YaRN), and
 * Llama 3.1's frequency-dependent interpolation. */
LQT_NODISCARD lqt_status lqt__rope_frequencies(const json_t *rope, uint32_t dim, const char *where,
                                               float *out, float *out_scale, lqt_diag *diag);

#endif /* LQT_RUNTIME_EXEC_ROPE_H_ */
