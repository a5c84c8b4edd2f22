/* A plan bound to a session's buffers: ops that a device can run. */
#ifndef LQT_RUNTIME_EXEC_PROGRAM_H_
#define LQT_RUNTIME_EXEC_PROGRAM_H_

#include "exec/engine.h"

typedef struct lqt__program_buffers {
  lqt_buffer *activations;
  const uint64_t *offsets; /* of values in `activations` */
  lqt_buffer *steps;       /* I32: ids, positions, sequences, wanted rows, lqt__step_stride apart */
  lqt_buffer *table;
  uint64_t table_rows, table_cols;
  lqt_buffer *const *pages; /* by cache number */
  uint64_t positions;       /* pages x page_tokens */
  uint32_t page_tokens;
  lqt_dtype kv_dtype;
  lqt_buffer *top;   /* F32 [top_rows][k], then I32 [top_rows][k]; NULL: the device has no TOPK */
  uint64_t top_rows; /* k is at most LQT_TOPK_MOST */
} lqt__program_buffers;

/* Elements between ids, positions, ... of a step of `tokens` tokens. */
static inline uint64_t lqt__step_stride(uint64_t tokens) { return (tokens + 15) & ~(uint64_t)15; }

/* The parts of the plan that a run takes. */
typedef enum lqt__form {
  LQT__FORM_STATE, /* what the cache needs: no logits come out */
  LQT__FORM_WHOLE, /* body and tail: every token's logits */
  LQT__FORM_SPLIT, /* body, gathers, tail: logits of the wanted rows */
  LQT__FORM_MORE,  /* gathers and tail: more rows of the tokens that ran last */
} lqt__form;

typedef struct lqt__program_entry {
  lqt__form form;
  uint64_t tokens, rows;
  uint32_t top;
  uint64_t used; /* clock of the last use */
  lqt_program *program;
} lqt__program_entry;

enum { LQT__PROGRAM_ENTRIES = 96 }; /* decode steps of up to this many sizes stay recorded */

/* Programs for the sizes of the last steps. */
typedef struct lqt__program {
  const lqt_engine *engine;
  lqt__program_buffers buffers;
  lqt__program_entry entries[LQT__PROGRAM_ENTRIES];
  uint64_t clock;
  lqt_op *ops; /* room to bind in */
} lqt__program;

LQT_NODISCARD lqt_status lqt__program_create(const lqt_engine *engine,
                                             const lqt__program_buffers *buffers, lqt__program *out,
                                             lqt_diag *diag);
void lqt__program_free(lqt__program *program);
/* Drops what is bound: after the engine's plan, weights or constants were exchanged. */
void lqt__program_reset(lqt__program *program);

/* The program of a form for a step of `tokens` tokens; `rows` only matters to the forms that
 * gather. `top` > 0: the largest logits of each row are picked out at the end. Valid until the next
 * call. Errors: LQT_OUT_OF_MEMORY, LQT_INVALID_ARGUMENT. */
LQT_NODISCARD lqt_status lqt__program_get(lqt__program *program, lqt__form form, uint64_t tokens,
                                          uint64_t rows, uint32_t top, lqt_program **out,
                                          lqt_diag *diag);
/* The ops of that program, `*out_count` of them, without making it. Valid until the next call.
 * NULL: no memory. */
const lqt_op *lqt__program_ops(lqt__program *program, lqt__form form, uint64_t tokens,
                               uint64_t rows, uint32_t top, size_t *out_count, lqt_diag *diag);
/* Where the `top` largest logits and their columns are. */
void lqt__program_top(const lqt__program *program, uint64_t rows, uint32_t top, lqt_view out[2]);
/* Where the logits are, in either form. */
lqt_view lqt__program_logits(const lqt__program *program, bool whole, uint64_t rows);

#endif /* LQT_RUNTIME_EXEC_PROGRAM_H_ */
