/* The KV cache's bookkeeping: pages of a fixed number of positions, handed to sequences as they
 * grow. Host side only; the bytes are in the session's buffers. */
#ifndef LQT_RUNTIME_EXEC_CACHE_H_
#define LQT_RUNTIME_EXEC_CACHE_H_

#include <stdbool.h>
#include <stdint.h>

#include "lqt/status.h"

typedef struct lqt__sequence {
  bool used;
  uint32_t length; /* positions filled */
  uint32_t pages;  /* pages held */
} lqt__sequence;

typedef struct lqt__cache {
  uint32_t page_tokens;
  uint32_t max_sequences;
  uint32_t max_length;    /* positions of one sequence */
  uint64_t max_positions; /* over all sequences */
  uint64_t positions;     /* filled */
  uint32_t page_count;
  uint32_t table_cols; /* pages that one sequence may hold */
  int32_t *table;      /* [max_sequences][table_cols]: page numbers */
  int32_t *free_pages; /* stack */
  uint32_t free_count;
  lqt__sequence *sequences;
  uint32_t dirty_first, dirty_end; /* rows of the table that the device does not have yet */
} lqt__cache;

/* Errors: LQT_LIMIT, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__cache_create(uint32_t page_tokens, uint32_t max_sequences,
                                           uint32_t max_length, uint64_t max_positions,
                                           lqt__cache *out, lqt_diag *diag);
void lqt__cache_free(lqt__cache *cache);
/* NULL when there is no such sequence. */
lqt__sequence *lqt__cache_find(const lqt__cache *cache, uint32_t sequence);
/* Index of a fresh sequence; false when all are in use. */
bool lqt__cache_add(lqt__cache *cache, uint32_t *out_sequence);
void lqt__cache_remove(lqt__cache *cache, uint32_t sequence);
/* Makes the sequence `length` positions long and gives pages that it no longer needs back. */
void lqt__cache_truncate(lqt__cache *cache, uint32_t sequence, uint32_t length);
/* Gives the sequence pages for `count` more positions, which are not filled yet. There always are
 * enough when the limits on lengths are kept. */
void lqt__cache_reserve(lqt__cache *cache, uint32_t sequence, uint32_t count);
/* Fills positions that were reserved. */
void lqt__cache_fill(lqt__cache *cache, uint32_t sequence, uint32_t count);

#endif /* LQT_RUNTIME_EXEC_CACHE_H_ */
