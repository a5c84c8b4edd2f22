/* Byte-pair encoding of one piece of text: merges by rank, leftmost first. */
#ifndef LQT_RUNTIME_TEXT_BPE_H_
#define LQT_RUNTIME_TEXT_BPE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lqt/status.h"

/* A growing array of token ids. */
typedef struct lqt__ids {
  int32_t *data;
  size_t count, capacity;
} lqt__ids;
/* Room for `more` ids beyond `count`; false: no memory. */
bool lqt__ids_reserve(lqt__ids *ids, size_t more);

typedef struct lqt__merge {
  uint64_t pair; /* left id << 32 | right id; UINT64_MAX: free slot */
  uint32_t rank;
  int32_t id; /* of the merged token */
} lqt__merge;

typedef struct lqt__bpe {
  int32_t byte_ids[256];
  lqt__merge *slots; /* open addressing, a power of two of them, at most half full */
  size_t mask;
} lqt__bpe;

/* Room for `merges` merges; false: no memory. */
bool lqt__bpe_init(lqt__bpe *bpe, size_t merges);
void lqt__bpe_free(lqt__bpe *bpe);
/* False when the pair has a merge already. */
bool lqt__bpe_add(lqt__bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id);
/* Appends the ids of a piece. O(n log n) in its length. Errors: LQT_OUT_OF_MEMORY, LQT_LIMIT (a
 * piece of 4 GiB). */
LQT_NODISCARD lqt_status lqt__bpe_encode(const lqt__bpe *bpe, const uint8_t *piece, size_t bytes,
                                         lqt__ids *ids, lqt_diag *diag);

#endif /* LQT_RUNTIME_TEXT_BPE_H_ */
