/* The session behind lqt_session. */
#ifndef LQT_RUNTIME_EXEC_SESSION_H_
#define LQT_RUNTIME_EXEC_SESSION_H_

#include "exec/cache.h"
#include "exec/program.h"

enum { LQT__PAGE_TOKENS = 32 };

/* Rows of logits that an input of the last step got. */
typedef struct lqt__logit_rows {
  size_t first, count;
} lqt__logit_rows;

/* Keys and values of one attention module. A module keeps its pages when the plan is exchanged. */
typedef struct lqt__session_pages {
  char *module; /* its id */
  uint64_t cols[2];
  lqt_buffer *buffers[2]; /* keys, values */
} lqt__session_pages;

/* The tokens of a sequence, as many as its length in the cache: what a recomputation runs again. */
typedef struct lqt__session_history {
  int32_t *tokens;
  size_t capacity;
} lqt__session_history;

struct lqt_session {
  lqt_engine *engine;
  uint32_t max_batch, max_rows;
  lqt__cache cache;
  /* Bound to the engine's plan of version `plan_version`. */
  uint64_t plan_version;
  lqt__program program;
  uint64_t *offsets; /* of activations */
  lqt_buffer *activations, *top;
  lqt__session_pages *pages; /* by pair of caches */
  size_t page_count;
  lqt_buffer **page_buffers; /* by cache */

  lqt_dtype kv_dtype;
  lqt_kv_policy kv_policy;
  uint64_t kv_revision; /* what is cached was last brought up to it */
  uint32_t kv_missing;  /* first pair whose pages a new plan left empty; UINT32_MAX: none */
  lqt__session_history *histories;

  lqt_buffer *steps, *table;
  int32_t *step;   /* ids, positions, sequences, wanted rows of the run being made */
  int32_t *wanted; /* its wanted rows, all of them */
  float *logits;   /* of the last step */
  size_t logit_capacity;
  uint32_t top_count; /* the last step left this many largest logits of each row instead */
  uint64_t *reaches;  /* by sequence: largest logits that its sampler may draw; 0: any */
  float *top_values;  /* [rows][top_count] */
  int32_t *top_tokens;
  size_t top_capacity;
  lqt__logit_rows *rows; /* by input */
  size_t row_capacity, input_count;
  bool *named; /* by sequence: while inputs are checked */
};

/* Makes what depends on the engine's plan: activations, pages, the program. Pages of modules that
 * were bound before stay. On a failure the session is as it was. Gate held. */
LQT_NODISCARD lqt_status lqt__session_bind(lqt_session *session, lqt_diag *diag);
void lqt__session_unbind(lqt_session *session);
/* Follows the engine to its plan and revision: binds again, and does with the cache what its policy
 * says. Gate held. */
LQT_NODISCARD lqt_status lqt__session_catch_up(lqt_session *session, lqt_step_result *result,
                                               lqt_diag *diag);
/* Writes an input's tokens behind those that its sequence has. */
LQT_NODISCARD lqt_status lqt__session_remember(lqt_session *session, const lqt_step_input *input,
                                               lqt_diag *diag);
/* Brings the page table on the device up to date. */
LQT_NODISCARD lqt_status lqt__session_write_table(lqt_session *session, lqt_diag *diag);

#endif /* LQT_RUNTIME_EXEC_SESSION_H_ */
