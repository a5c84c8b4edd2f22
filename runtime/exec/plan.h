/* The plan: a module graph as a list of ops over symbolic values. Made once per engine; a session
 * gives the values places in its buffers and the ops their sizes (program.h).
 *
 * Ops stand in three runs: the body, where every token of a step has a row; the gathers, which pick
 * the rows whose logits are wanted; the tail, where only those have one. Nothing in the tail looks
 * at another token, so a step may run it for some rows, for all, or not at all. */
#ifndef LQT_RUNTIME_EXEC_PLAN_H_
#define LQT_RUNTIME_EXEC_PLAN_H_

#include "lqt/op.h"
#include "model/model.h"

typedef enum lqt__value_kind {
  LQT__VALUE_NONE = 0,   /* value 0: an operand that is absent */
  LQT__VALUE_ACTIVATION, /* [T or rows][cols] */
  LQT__VALUE_CONSTANT,   /* F32 [1][cols], in the engine's constants */
  LQT__VALUE_IDS,        /* I32 [1][T] */
  LQT__VALUE_POSITIONS,  /* I32 [1][T] */
  LQT__VALUE_SEQUENCES,  /* I32 [1][T] */
  LQT__VALUE_ROWS,       /* I32 [1][rows]: the tokens whose logits are wanted */
  LQT__VALUE_TABLE,      /* I32 [sequences][pages] */
  LQT__VALUE_PAGES,      /* [positions][cols] in the session's cache type */
} lqt__value_kind;

typedef struct lqt__value {
  lqt__value_kind kind;
  bool tail;       /* activation: one row a wanted row, not a token */
  uint64_t cols;   /* activations, constants, pages */
  uint64_t offset; /* constants: bytes; pages: number of the cache (keys and values count apart) */
  uint32_t source; /* gathered values: the value they are gathered from */
  size_t first, last; /* activations: ops that write it first and touch it last */
} lqt__value;

typedef struct lqt__plan_op {
  lqt_op op; /* kind, label (the module's index) and parameters; operands are filled in later */
  uint32_t in[LQT_OP_MAX_IN], out[LQT_OP_MAX_OUT]; /* values */
  ptrdiff_t weight[LQT_OP_MAX_OUT];                /* tensors of the model, or -1 */
} lqt__plan_op;

typedef struct lqt__plan {
  lqt__value *values;
  size_t value_count, value_capacity;
  lqt__plan_op *ops;
  size_t op_count, op_capacity;
  size_t body_count;   /* ops before the gathers */
  size_t gather_count; /* then these; the rest is the tail */
  size_t state_count;  /* ops to run when no logits are wanted */
  uint32_t logits;     /* value */
  float *constants;
  size_t constant_count, constant_capacity;
  uint32_t *constant_tensors; /* tensors that constants were made from */
  size_t constant_tensor_count, constant_tensor_capacity;
  uint32_t cache_count;    /* LQT__VALUE_PAGES values */
  uint64_t token_limit;    /* ids must be below; UINT64_MAX: no embedding */
  uint64_t position_limit; /* positions must be below */
  lqt_dtype activation;
} lqt__plan;

/* Plans the model's graph for a device whose activations are of type `activation`.
 * Errors: LQT_BAD_GRAPH, LQT_BAD_TENSOR, LQT_UNSUPPORTED, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__plan_create(const lqt_model *model, lqt_dtype activation,
                                          lqt__plan *out, lqt_diag *diag);
void lqt__plan_free(lqt__plan *plan);

/* Places the activations in one buffer for at most `tokens` tokens and `rows` wanted rows; values
 * that are not alive together share memory. offsets[value_count]; false on overflow or no memory.
 */
LQT_NODISCARD bool lqt__plan_layout(const lqt__plan *plan, uint64_t tokens, uint64_t rows,
                                    uint64_t *offsets, uint64_t *out_bytes);

/* ---- For the planners of module types (module_plan.c) ---- */

typedef struct lqt__builder {
  lqt__plan *plan;
  const lqt_model *model;
  const lqt__module *module; /* being planned */
  uint32_t label;
  lqt_diag *diag;
} lqt__builder;

/* Appends values and ops. The ids and ops are valid until the next append; 0 or NULL: no memory,
 * and the diag is filled. */
uint32_t lqt__builder_value(lqt__builder *builder, lqt__value_kind kind, uint64_t cols);
lqt__plan_op *lqt__builder_op(lqt__builder *builder, lqt_op_kind kind);
/* A constant with room for `count` numbers at *out_data (valid until the next one). */
uint32_t lqt__builder_constant(lqt__builder *builder, size_t count, float **out_data);
/* Notes that a constant is made from this tensor. false: no memory, and the diag is filled. */
LQT_NODISCARD bool lqt__builder_constant_tensor(lqt__builder *builder, size_t tensor);

/* Turns a module into ops: inputs are values, outputs[] are to be set. */
LQT_NODISCARD lqt_status lqt__builder_module(lqt__builder *builder, const uint32_t *inputs,
                                             uint32_t *outputs);

#endif /* LQT_RUNTIME_EXEC_PLAN_H_ */
