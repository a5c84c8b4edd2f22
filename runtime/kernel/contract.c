#include "kernel/contract.h"

#include "base/alloc.h"
#include "base/diag.h"
#include "lqt/backend.h"

const char *lqt_op_name(lqt_op_kind kind) {
  static const char *const names[LQT_OP_COUNT_] = {
      [LQT_OP_EMBED] = "embed",
      [LQT_OP_RMSNORM] = "rmsnorm",
      [LQT_OP_LAYERNORM] = "layernorm",
      [LQT_OP_MATMUL] = "matmul",
      [LQT_OP_ROPE] = "rope",
      [LQT_OP_KV_WRITE] = "kv_write",
      [LQT_OP_ATTENTION] = "attention",
      [LQT_OP_GLU] = "glu",
      [LQT_OP_ACT] = "act",
      [LQT_OP_ADD] = "add",
      [LQT_OP_GATHER] = "gather",
      [LQT_OP_DEQUANT] = "dequant",
      [LQT_OP_TOPK] = "topk",
  };
  return kind > 0 && kind < LQT_OP_COUNT_ && names[kind] != NULL ? names[kind] : "?";
}

static double matmul_tolerance(const lqt_op *op, bool exact, bool half) {
  const lqt_weight_desc *shape = &op->weight[0]->shape;
  if (shape->dtype != LQT_DTYPE_CODEBOOK) return half ? 1e-3 : 1e-5;
  if (exact) return 1e-3;
  uint64_t tokens = op->in[0].rows, rows = op->weight[0]->shape.rows;
  for (int i = 1; i < LQT_OP_MAX_OUT; i++) {
    if (op->weight[i] != NULL && op->weight[i]->shape.rows < rows) rows = op->weight[i]->shape.rows;
  }
  enum { FEW = 32 };
  return tokens * rows < FEW || rows * shape->cols < FEW ? 1e-2 : 5e-3;
}

/* Float32 sums in any order. A low-rank delta may cancel what it is added to; over many elements
 * that does not count, but a matrix of a few may consist of such elements. */
static double dequant_tolerance(const lqt_weight_desc *shape) {
  enum { FEW = 32 };
  bool cancels = shape->delta.kind == LQT_DELTA_LOW_RANK && shape->rows * shape->cols < FEW;
  return cancels ? 1e-5 : 1e-6;
}

double lqt__op_tolerance(const lqt_op *op, bool exact) {
  bool written = op->kind == LQT_OP_EMBED || op->kind == LQT_OP_ROPE; /* in0 are integers there */
  const lqt_view *activation = written ? &op->out[0] : &op->in[0];
  bool half = op->kind != LQT_OP_DEQUANT && activation->dtype == LQT_DTYPE_F16;
  switch (op->kind) {
    case LQT_OP_MATMUL:
      return matmul_tolerance(op, exact, half);
    case LQT_OP_KV_WRITE: /* both sides round to the page's type: nearly the same bits */
      return 1e-6;
    case LQT_OP_EMBED:
      return half ? 5e-4 : dequant_tolerance(&op->weight[0]->shape);
    case LQT_OP_DEQUANT:
      return dequant_tolerance(&op->weight[0]->shape);
    case LQT_OP_GATHER:
    case LQT_OP_TOPK:
      return 0;
    default:
      return half ? 1e-3 : 1e-5;
  }
}

/* What is being checked, for messages. */
typedef struct check {
  const lqt_op *op;
  lqt_diag *diag;
} check;

static lqt_status fail(const check *c, const char *what) {
  return lqt__fail(c->diag, LQT_INVALID_ARGUMENT, lqt_op_name(c->op->kind), "%s", what);
}

/* One view: present, inside its buffer, of the wanted shape. */
static lqt_status view_ok(const check *c, const lqt_view *view, const char *name, uint64_t rows,
                          uint64_t cols) {
  const char *kind = lqt_op_name(c->op->kind);
  if (view->buffer == NULL) {
    return lqt__fail(c->diag, LQT_INVALID_ARGUMENT, kind, "operand %s is missing", name);
  }
  if (view->rows != rows || view->cols != cols) {
    return lqt__fail(c->diag, LQT_INVALID_ARGUMENT, kind,
                     "operand %s is %llu x %llu and has to be %llu x %llu", name,
                     (unsigned long long)view->rows, (unsigned long long)view->cols,
                     (unsigned long long)rows, (unsigned long long)cols);
  }
  uint64_t size = lqt_dtype_size(view->dtype);
  if (size == 0 || view->offset % size != 0) {
    return lqt__fail(c->diag, LQT_INVALID_ARGUMENT, kind,
                     "operand %s has type %s at byte %llu; types are f32, f16 or i32 at a multiple "
                     "of their size",
                     name, lqt_dtype_name(view->dtype), (unsigned long long)view->offset);
  }
  if (rows == 0 || cols == 0) return LQT_OK;
  uint64_t end;
  bool fits = (rows == 1 || view->row_stride >= cols) &&
              lqt__mul(rows - 1, view->row_stride, &end) && lqt__add(end, cols, &end) &&
              lqt__mul(end, size, &end) && lqt__add(end, view->offset, &end) &&
              end <= view->buffer->bytes;
  if (fits) return LQT_OK;
  return lqt__fail(c->diag, LQT_INVALID_ARGUMENT, kind,
                   "operand %s of %llu x %llu with rows %llu apart does not fit its buffer of %llu "
                   "bytes",
                   name, (unsigned long long)rows, (unsigned long long)cols,
                   (unsigned long long)view->row_stride, (unsigned long long)view->buffer->bytes);
}

static lqt_status activation_ok(const check *c, const lqt_view *view, const char *name,
                                uint64_t rows, uint64_t cols, lqt_dtype dtype) {
  LQT__TRY(view_ok(c, view, name, rows, cols));
  if (dtype != LQT_DTYPE_F32 && dtype != LQT_DTYPE_F16)
    return fail(c, "activations are f32 or f16");
  if (view->dtype == dtype) return LQT_OK;
  return lqt__fail(c->diag, LQT_INVALID_ARGUMENT, lqt_op_name(c->op->kind),
                   "operand %s is %s and has to be %s", name, lqt_dtype_name(view->dtype),
                   lqt_dtype_name(dtype));
}

static lqt_status vector_ok(const check *c, const lqt_view *view, const char *name, uint64_t cols,
                            lqt_dtype dtype) {
  LQT__TRY(view_ok(c, view, name, 1, cols));
  if (view->dtype == dtype) return LQT_OK;
  return lqt__fail(c->diag, LQT_INVALID_ARGUMENT, lqt_op_name(c->op->kind),
                   "operand %s is %s and has to be %s", name, lqt_dtype_name(view->dtype),
                   lqt_dtype_name(dtype));
}

static lqt_status absent(const check *c, const lqt_view *view, const char *name) {
  if (view->buffer == NULL) return LQT_OK;
  return lqt__fail(c->diag, LQT_INVALID_ARGUMENT, lqt_op_name(c->op->kind),
                   "operand %s is not used by this op; leave it out", name);
}

/* First and last byte + 1 that a view touches. */
static void extent(const lqt_view *view, uint64_t *first, uint64_t *end) {
  *first = view->offset;
  *end = view->rows == 0 || view->cols == 0
             ? view->offset
             : view->offset +
                   ((view->rows - 1) * view->row_stride + view->cols) * lqt_dtype_size(view->dtype);
}

/* Two views share an element. Views with the same row distance (column ranges of one matrix) are
 * told apart exactly; others by their extents. */
static bool overlap(const lqt_view *a, const lqt_view *b) {
  if (a->buffer == NULL || a->buffer != b->buffer) return false;
  uint64_t a_first, a_end, b_first, b_end;
  extent(a, &a_first, &a_end);
  extent(b, &b_first, &b_end);
  if (a_end <= b_first || b_end <= a_first || a_first == a_end || b_first == b_end) return false;
  uint64_t size = lqt_dtype_size(a->dtype);
  uint64_t stride = a->row_stride * size;
  if (stride == 0 || stride != b->row_stride * lqt_dtype_size(b->dtype)) return true;
  uint64_t a_col = a_first % stride, b_col = b_first % stride;
  uint64_t a_width = a->cols * size, b_width = b->cols * lqt_dtype_size(b->dtype);
  if (a_col + a_width > stride || b_col + b_width > stride) return true; /* wraps over a row */
  return a_col < b_col + b_width && b_col < a_col + a_width;
}

static bool same_view(const lqt_view *a, const lqt_view *b) {
  return a->buffer == b->buffer && a->offset == b->offset && a->rows == b->rows &&
         a->cols == b->cols && (a->row_stride == b->row_stride || a->rows <= 1) &&
         a->dtype == b->dtype;
}

static lqt_status aliasing_ok(const check *c) {
  const lqt_op *op = c->op;
  bool in_place = op->kind == LQT_OP_RMSNORM || op->kind == LQT_OP_LAYERNORM ||
                  op->kind == LQT_OP_GLU || op->kind == LQT_OP_ACT || op->kind == LQT_OP_ADD;
  for (int o = 0; o < LQT_OP_MAX_OUT; o++) {
    for (int i = 0; i < LQT_OP_MAX_IN; i++) {
      if (!overlap(&op->out[o], &op->in[i])) continue;
      if (in_place && same_view(&op->out[o], &op->in[i])) continue;
      return fail(c, "an output overlaps an input; give it memory of its own");
    }
    for (int p = 0; p < o; p++) {
      if (overlap(&op->out[o], &op->out[p])) return fail(c, "two outputs overlap");
    }
  }
  return LQT_OK;
}

static lqt_status check_embed(const check *c) {
  const lqt_op *op = c->op;
  if (op->weight[0] == NULL) return fail(c, "the table (weight 0) is missing");
  const lqt_view *out = &op->out[0];
  LQT__TRY(activation_ok(c, out, "out0", out->rows, op->weight[0]->shape.cols, out->dtype));
  return vector_ok(c, &op->in[0], "in0 (ids)", out->rows, LQT_DTYPE_I32);
}

static lqt_status check_norm(const check *c) {
  const lqt_op *op = c->op;
  const lqt_view *in = &op->in[0];
  if (in->cols == 0) return fail(c, "rows are empty");
  LQT__TRY(activation_ok(c, in, "in0", in->rows, in->cols, in->dtype));
  LQT__TRY(activation_ok(c, &op->out[0], "out0", in->rows, in->cols, in->dtype));
  LQT__TRY(vector_ok(c, &op->in[1], "in1 (gain)", in->cols, LQT_DTYPE_F32));
  if (op->kind == LQT_OP_RMSNORM) return absent(c, &op->in[2], "in2");
  if (op->in[2].buffer == NULL) return LQT_OK;
  return vector_ok(c, &op->in[2], "in2 (bias)", in->cols, LQT_DTYPE_F32);
}

static lqt_status check_matmul(const check *c) {
  static const char *const out_names[] = {"out0", "out1", "out2"};
  static const char *const bias_names[] = {"in1 (bias)", "in2 (bias)", "in3 (bias)"};
  const lqt_op *op = c->op;
  const lqt_view *in = &op->in[0];
  if (op->weight[0] == NULL) return fail(c, "weight 0 is missing");
  LQT__TRY(activation_ok(c, in, "in0", in->rows, op->weight[0]->shape.cols, in->dtype));
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    const lqt_weight *weight = op->weight[i];
    if (weight == NULL) {
      LQT__TRY(absent(c, &op->out[i], out_names[i]));
      LQT__TRY(absent(c, &op->in[i + 1], bias_names[i]));
      continue;
    }
    if (i > 0 && op->weight[i - 1] == NULL) return fail(c, "a weight before the last is missing");
    if (weight->shape.cols != in->cols) return fail(c, "the weights have different columns");
    LQT__TRY(activation_ok(c, &op->out[i], out_names[i], in->rows, weight->shape.rows, in->dtype));
    if (op->in[i + 1].buffer == NULL) continue;
    LQT__TRY(vector_ok(c, &op->in[i + 1], bias_names[i], weight->shape.rows, LQT_DTYPE_F32));
  }
  return LQT_OK;
}

static lqt_status check_rope(const check *c) {
  const lqt_op *op = c->op;
  const lqt_view *out = &op->out[0];
  if (op->heads == 0 || op->head_dim == 0 || op->rotary_dim == 0 || op->rotary_dim % 2 != 0 ||
      op->rotary_dim > op->head_dim) {
    return fail(c, "heads, head_dim and rotary_dim (even, at most head_dim) have to be given");
  }
  LQT__TRY(
      activation_ok(c, out, "out0", out->rows, (uint64_t)op->heads * op->head_dim, out->dtype));
  LQT__TRY(vector_ok(c, &op->in[0], "in0 (positions)", out->rows, LQT_DTYPE_I32));
  return vector_ok(c, &op->in[1], "in1 (frequencies)", op->rotary_dim / 2, LQT_DTYPE_F32);
}

static lqt_status pages_ok(const check *c, const lqt_view *pages, const char *name,
                           const lqt_view *first) {
  const lqt_op *op = c->op;
  LQT__TRY(view_ok(c, pages, name, first->rows, (uint64_t)op->kv_heads * op->head_dim));
  if (pages->dtype != LQT_DTYPE_F16 && pages->dtype != LQT_DTYPE_F32) {
    return fail(c, "pages are f16 or f32");
  }
  if (pages->dtype != first->dtype) return fail(c, "pages of K and V have different types");
  if (op->page_tokens == 0 || pages->rows % op->page_tokens != 0) {
    return fail(c, "the rows of the pages are not whole pages of page_tokens positions");
  }
  return LQT_OK;
}

static lqt_status table_ok(const check *c, const lqt_view *table, const char *name) {
  LQT__TRY(view_ok(c, table, name, table->rows, table->cols));
  if (table->dtype != LQT_DTYPE_I32) return fail(c, "the page table is not i32");
  return LQT_OK;
}

static lqt_status check_kv_write(const check *c) {
  const lqt_op *op = c->op;
  const lqt_view *k = &op->in[0];
  if (op->kv_heads == 0 || op->head_dim == 0) return fail(c, "kv_heads or head_dim is zero");
  uint64_t cols = (uint64_t)op->kv_heads * op->head_dim;
  LQT__TRY(activation_ok(c, k, "in0 (K)", k->rows, cols, k->dtype));
  LQT__TRY(activation_ok(c, &op->in[1], "in1 (V)", k->rows, cols, k->dtype));
  LQT__TRY(vector_ok(c, &op->in[2], "in2 (positions)", k->rows, LQT_DTYPE_I32));
  LQT__TRY(vector_ok(c, &op->in[3], "in3 (sequences)", k->rows, LQT_DTYPE_I32));
  LQT__TRY(table_ok(c, &op->in[4], "in4 (page table)"));
  LQT__TRY(pages_ok(c, &op->out[0], "out0 (K pages)", &op->out[0]));
  return pages_ok(c, &op->out[1], "out1 (V pages)", &op->out[0]);
}

static lqt_status check_attention(const check *c) {
  const lqt_op *op = c->op;
  const lqt_view *q = &op->in[0];
  if (op->kv_heads == 0 || op->head_dim == 0 || op->heads == 0 || op->heads % op->kv_heads != 0) {
    return fail(c, "heads has to be a multiple of kv_heads, and head_dim not zero");
  }
  uint64_t cols = (uint64_t)op->heads * op->head_dim;
  LQT__TRY(activation_ok(c, q, "in0 (queries)", q->rows, cols, q->dtype));
  LQT__TRY(activation_ok(c, &op->out[0], "out0", q->rows, cols, q->dtype));
  LQT__TRY(vector_ok(c, &op->in[1], "in1 (positions)", q->rows, LQT_DTYPE_I32));
  LQT__TRY(vector_ok(c, &op->in[2], "in2 (sequences)", q->rows, LQT_DTYPE_I32));
  LQT__TRY(pages_ok(c, &op->in[3], "in3 (K pages)", &op->in[3]));
  LQT__TRY(pages_ok(c, &op->in[4], "in4 (V pages)", &op->in[3]));
  return table_ok(c, &op->in[5], "in5 (page table)");
}

static lqt_status check_elementwise(const check *c) {
  const lqt_op *op = c->op;
  const lqt_view *in = &op->in[0];
  if (op->kind != LQT_OP_ADD && (op->act < LQT_ACT_SILU || op->act > LQT_ACT_RELU)) {
    return fail(c, "unknown activation function");
  }
  LQT__TRY(activation_ok(c, in, "in0", in->rows, in->cols, in->dtype));
  LQT__TRY(activation_ok(c, &op->out[0], "out0", in->rows, in->cols, in->dtype));
  if (op->kind == LQT_OP_ACT) return absent(c, &op->in[1], "in1");
  return activation_ok(c, &op->in[1], "in1", in->rows, in->cols, in->dtype);
}

static lqt_status check_gather(const check *c) {
  const lqt_op *op = c->op;
  const lqt_view *in = &op->in[0], *out = &op->out[0];
  LQT__TRY(activation_ok(c, in, "in0", in->rows, in->cols, in->dtype));
  LQT__TRY(activation_ok(c, out, "out0", out->rows, in->cols, in->dtype));
  return vector_ok(c, &op->in[1], "in1 (rows)", out->rows, LQT_DTYPE_I32);
}

static lqt_status check_dequant(const check *c) {
  const lqt_op *op = c->op;
  if (op->weight[0] == NULL) return fail(c, "weight 0 is missing");
  const lqt_weight_desc *shape = &op->weight[0]->shape;
  LQT__TRY(view_ok(c, &op->out[0], "out0", shape->rows, shape->cols));
  return op->out[0].dtype == LQT_DTYPE_F32 ? LQT_OK : fail(c, "out0 has to be f32");
}

static lqt_status check_topk(const check *c) {
  const lqt_op *op = c->op;
  const lqt_view *in = &op->in[0], *out = &op->out[0];
  LQT__TRY(activation_ok(c, in, "in0", in->rows, in->cols, in->dtype));
  LQT__TRY(view_ok(c, out, "out0 (values)", in->rows, out->cols));
  LQT__TRY(view_ok(c, &op->out[1], "out1 (columns)", in->rows, out->cols));
  if (out->dtype != LQT_DTYPE_F32 || op->out[1].dtype != LQT_DTYPE_I32) {
    return fail(c, "out0 has to be f32 and out1 i32");
  }
  if (out->cols >= 1 && out->cols <= in->cols && out->cols <= LQT_TOPK_MOST) return LQT_OK;
  return fail(c, "the outputs have to have from 1 to 1024 columns, and not more than in0");
}

/* Operands beyond those a kind uses. */
static lqt_status no_extras(const check *c) {
  static const struct {
    uint8_t in, out, weights;
  } used[LQT_OP_COUNT_] = {
      [LQT_OP_EMBED] = {1, 1, 1},     [LQT_OP_RMSNORM] = {2, 1, 0}, [LQT_OP_LAYERNORM] = {3, 1, 0},
      [LQT_OP_MATMUL] = {4, 3, 3},    [LQT_OP_ROPE] = {2, 1, 0},    [LQT_OP_KV_WRITE] = {5, 2, 0},
      [LQT_OP_ATTENTION] = {6, 1, 0}, [LQT_OP_GLU] = {2, 1, 0},     [LQT_OP_ACT] = {1, 1, 0},
      [LQT_OP_ADD] = {2, 1, 0},       [LQT_OP_GATHER] = {2, 1, 0},  [LQT_OP_DEQUANT] = {0, 1, 1},
      [LQT_OP_TOPK] = {1, 2, 0},
  };
  const lqt_op *op = c->op;
  for (int i = used[op->kind].in; i < LQT_OP_MAX_IN; i++) {
    if (op->in[i].buffer != NULL) return fail(c, "an input is given that this op does not use");
  }
  for (int i = used[op->kind].out; i < LQT_OP_MAX_OUT; i++) {
    if (op->out[i].buffer != NULL) return fail(c, "an output is given that this op does not use");
  }
  for (int i = used[op->kind].weights; i < LQT_OP_MAX_OUT; i++) {
    if (op->weight[i] != NULL) return fail(c, "a weight is given that this op does not use");
  }
  return LQT_OK;
}

lqt_status lqt_op_check(const lqt_op *op, lqt_diag *diag) {
  typedef lqt_status (*check_fn)(const check *);
  static const check_fn checks[LQT_OP_COUNT_] = {
      [LQT_OP_EMBED] = check_embed,         [LQT_OP_RMSNORM] = check_norm,
      [LQT_OP_LAYERNORM] = check_norm,      [LQT_OP_MATMUL] = check_matmul,
      [LQT_OP_ROPE] = check_rope,           [LQT_OP_KV_WRITE] = check_kv_write,
      [LQT_OP_ATTENTION] = check_attention, [LQT_OP_GLU] = check_elementwise,
      [LQT_OP_ACT] = check_elementwise,     [LQT_OP_ADD] = check_elementwise,
      [LQT_OP_GATHER] = check_gather,       [LQT_OP_DEQUANT] = check_dequant,
      [LQT_OP_TOPK] = check_topk,
  };
  if (op == NULL || op->kind <= 0 || op->kind >= LQT_OP_COUNT_ || checks[op->kind] == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "op", "unknown kind of op %d",
                     op != NULL ? (int)op->kind : 0);
  }
  check c = {op, diag};
  LQT__TRY(no_extras(&c));
  LQT__TRY(checks[op->kind](&c));
  return aliasing_ok(&c);
}
