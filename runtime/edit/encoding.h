/* A mutation as bytes, for journals: the same for the same mutation. Little-endian:
 *
 *   u8 version (1), u8 zero, u16 operation, u16 id, u8 dtype, u8 delta kind, u32 parameter,
 *   u64 first, u64 second, u64 count,
 *   texts target, other, file: u16 length (0xFFFF: absent), bytes;
 *   arrays values (f32), coordinates (u32 pairs), data (bytes): u64 elements, u8 form, then, form
 * 0, the elements; form 1 (more than 4096 bytes): their SHA-256. The bytes that such a mutation
 * came to stand in the entry's changes. */
#ifndef LQT_RUNTIME_EDIT_ENCODING_H_
#define LQT_RUNTIME_EDIT_ENCODING_H_

#include "base/alloc.h"
#include "edit/change.h"
#include "lqt/edit.h"

typedef struct lqt__decoded {
  lqt_mutation mutation; /* points into the arena; arrays of form 1 are NULL, their counts 0 */
  bool complete;         /* no array was of form 1 */
  lqt__arena arena;
} lqt__decoded;

/* Errors: LQT_OUT_OF_MEMORY, LQT_LIMIT (a text). */
LQT_NODISCARD lqt_status lqt__mutation_encode(const lqt_mutation *mutation, uint8_t **out,
                                              uint64_t *out_bytes, lqt_diag *diag);
/* Untrusted bytes. The caller frees out->arena. Errors: LQT_BAD_JOURNAL, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__mutation_decode(const uint8_t *data, uint64_t bytes,
                                              lqt__decoded *out, lqt_diag *diag);
/* The record of an operation: what it was and to what. Errors: LQT_OUT_OF_MEMORY, those of
 * lqt__reference_digest. */
LQT_NODISCARD lqt_status lqt__operation_make(const lqt_mutation *mutation, lqt__operation *out,
                                             lqt_diag *diag);

#endif /* LQT_RUNTIME_EDIT_ENCODING_H_ */
