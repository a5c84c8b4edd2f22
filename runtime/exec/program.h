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
} lqt__program_buffers;

/* Elements between ids, positions, ... of a step of `tokens` tokens. */
static inline uint64_t lqt__step_stride(uint64_t tokens) { return (tokens + 15) & ~(uint64_t)15; }

/* Two forms: `whole` for a step that wants every row (or none, and stops early), `split` with the
 * gathers. Each is cached for the sizes of the last step that ran it. */
typedef struct lqt__program {
  const lqt_engine *engine;
  lqt__program_buffers buffers;
  lqt_op *whole;                                   /* body, tail */
  lqt_op *split;                                   /* body, gathers, tail */
  uint64_t whole_tokens, split_tokens, split_rows; /* sizes they are bound for; 0: none */
} lqt__program;

LQT_NODISCARD lqt_status lqt__program_create(const lqt_engine *engine,
                                             const lqt__program_buffers *buffers, lqt__program *out,
                                             lqt_diag *diag);
void lqt__program_free(lqt__program *program);

/* Binds for a step of `tokens` tokens. The logits of all of them come out. */
const lqt_op *lqt__program_whole(lqt__program *program, uint64_t tokens);
/* The same for `rows` of them (the body's ops do not depend on `rows`). */
const lqt_op *lqt__program_split(lqt__program *program, uint64_t tokens, uint64_t rows);
/* Where the logits are, in either form. */
lqt_view lqt__program_logits(const lqt__program *program, bool whole, uint64_t rows);

#endif /* LQT_RUNTIME_EXEC_PROGRAM_H_ */
