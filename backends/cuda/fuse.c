/* Neighbouring ops that one kernel does at once, and the kernels shaped for few tokens. Every
 * output of every op is written all the same: whoever reads it later finds it. */
#include <string.h>

#include "base/alloc.h"
#include "internal.h"

static bool same_view(const lqt_view *a, const lqt_view *b) {
  return a->buffer == b->buffer && a->offset == b->offset && a->rows == b->rows &&
         a->cols == b->cols && a->row_stride == b->row_stride && a->dtype == b->dtype;
}

static bool may_touch(const lqt_view *a, const lqt_view *b) {
  if (a->buffer == NULL || a->buffer != b->buffer || a->rows == 0 || b->rows == 0) return false;
  uint64_t a_end = a->offset + ((a->rows - 1) * a->row_stride + a->cols) * lqt_dtype_size(a->dtype);
  uint64_t b_end = b->offset + ((b->rows - 1) * b->row_stride + b->cols) * lqt_dtype_size(b->dtype);
  return a->offset < b_end && b->offset < a_end;
}

/* Rows of halves in 16-byte pieces. */
static bool in_pieces(const lqt_view *view) {
  return view->dtype == LQT_DTYPE_F16 && lqt__cu_address(view) % 16 == 0 &&
         (view->row_stride % 8 == 0 || view->rows == 1) && view->cols % 8 == 0;
}

/* ROPE of the queries, ROPE of the keys, KV_WRITE. */
static bool is_rope_kv(const lqt_op *ops, size_t count) {
  if (count < 3 || ops[0].kind != LQT_OP_ROPE || ops[1].kind != LQT_OP_ROPE ||
      ops[2].kind != LQT_OP_KV_WRITE) {
    return false;
  }
  const lqt_op *q = &ops[0], *k = &ops[1], *write = &ops[2];
  return same_view(&q->in[0], &k->in[0]) && same_view(&q->in[1], &k->in[1]) &&
         same_view(&q->in[0], &write->in[2]) && same_view(&k->out[0], &write->in[0]) &&
         !same_view(&q->out[0], &k->out[0]) && !may_touch(&q->out[0], &write->in[1]) &&
         !may_touch(&k->out[0], &write->in[1]) && q->head_dim == k->head_dim &&
         k->head_dim == write->head_dim && k->heads == write->kv_heads &&
         q->rotary_dim == k->rotary_dim && q->interleaved == k->interleaved &&
         q->attn_scale == k->attn_scale && q->head_dim % 2 == 0 &&
         q->out[0].dtype == LQT_DTYPE_F16 && k->out[0].dtype == LQT_DTYPE_F16 &&
         write->in[1].dtype == LQT_DTYPE_F16 && write->out[0].dtype == LQT_DTYPE_F16 &&
         q->out[0].rows > 0 && q->out[0].rows <= 65535;
}

static lqt_status rope_kv(lqt__cu_device *device, const lqt_op *ops, lqt_diag *diag) {
  const lqt_op *q = &ops[0], *k = &ops[1], *write = &ops[2];
  const lqt_view *table = &write->in[4];
  lqt__cu_rope_kv args = {.q = lqt__cu_address(&q->out[0]),
                          .k = lqt__cu_address(&k->out[0]),
                          .v = lqt__cu_address(&write->in[1]),
                          .k_pages = lqt__cu_address(&write->out[0]),
                          .v_pages = lqt__cu_address(&write->out[1]),
                          .positions = lqt__cu_address(&q->in[0]),
                          .sequences = lqt__cu_address(&write->in[3]),
                          .table = lqt__cu_address(table),
                          .frequencies = lqt__cu_address(&q->in[1]),
                          .q_stride = q->out[0].row_stride,
                          .k_stride = k->out[0].row_stride,
                          .v_stride = write->in[1].row_stride,
                          .k_pages_stride = write->out[0].row_stride,
                          .v_pages_stride = write->out[1].row_stride,
                          .table_stride = table->row_stride,
                          .heads = q->heads,
                          .kv_heads = k->heads,
                          .head_dim = q->head_dim,
                          .rotary_dim = q->rotary_dim,
                          .interleaved = q->interleaved,
                          .page_tokens = write->page_tokens,
                          .table_rows = (uint32_t)table->rows,
                          .table_cols = (uint32_t)table->cols,
                          .pages = (uint32_t)(write->out[0].rows / write->page_tokens),
                          .scale = q->attn_scale};
  uint64_t pairs = (uint64_t)(args.heads + 2 * args.kv_heads) * (args.head_dim / 2);
  lqt__cu_launch launch = {
      .module = LQT__CU_STEP,
      .name = "lqt_rope_kv_f16",
      .grid = {(uint32_t)lqt__ceil_div(pairs, 128), (uint32_t)q->out[0].rows, 1},
      .threads = 128,
      .args = &args,
      .overlap = true};
  return lqt__cu_run(device, &launch, diag);
}

#define NORM_MOST_COLS 16384u /* of kernels/step.cu */

static bool is_wide_norm(const lqt_op *op) {
  return op->kind == LQT_OP_RMSNORM && in_pieces(&op->in[0]) && in_pieces(&op->out[0]) &&
         op->in[0].cols <= NORM_MOST_COLS && lqt__cu_address(&op->in[1]) % 16 == 0 &&
         op->in[0].rows > 0 && op->in[0].rows <= INT32_MAX;
}

static lqt_status wide_norm(lqt__cu_device *device, const lqt_op *op, lqt_diag *diag) {
  lqt__cu_op args = {.cols = (uint32_t)op->in[0].cols, .eps = op->eps};
  for (int i = 0; i < 2; i++) {
    args.in[i] = lqt__cu_address(&op->in[i]);
    args.in_stride[i] = op->in[i].row_stride;
  }
  args.out[0] = lqt__cu_address(&op->out[0]);
  args.out_stride[0] = op->out[0].row_stride;
  uint32_t threads = (args.cols / 8 + 31) / 32 * 32;
  lqt__cu_launch launch = {.module = LQT__CU_STEP,
                           .name = "lqt_rmsnorm_wide_f16",
                           .grid = {(uint32_t)op->in[0].rows, 1, 1},
                           .threads = threads < 1024 ? threads : 1024,
                           .args = &args,
                           .overlap = true};
  return lqt__cu_run(device, &launch, diag);
}

static bool is_silu(const lqt_op *op) {
  return op->kind == LQT_OP_GLU && op->act == LQT_ACT_SILU && in_pieces(&op->in[0]) &&
         in_pieces(&op->in[1]) && in_pieces(&op->out[0]) && op->in[0].rows > 0 &&
         op->in[0].rows <= 65535 && op->in[0].cols > 0 && op->in[0].cols <= INT32_MAX;
}

static lqt_status silu(lqt__cu_device *device, const lqt_op *op, lqt_diag *diag) {
  lqt__cu_op args = {.cols = (uint32_t)op->in[0].cols};
  for (int i = 0; i < 2; i++) {
    args.in[i] = lqt__cu_address(&op->in[i]);
    args.in_stride[i] = op->in[i].row_stride;
  }
  args.out[0] = lqt__cu_address(&op->out[0]);
  args.out_stride[0] = op->out[0].row_stride;
  lqt__cu_launch launch = {
      .module = LQT__CU_STEP,
      .name = "lqt_glu_silu_f16",
      .grid = {(uint32_t)lqt__ceil_div(args.cols, 1024), (uint32_t)op->in[0].rows, 1},
      .threads = 128,
      .args = &args,
      .overlap = true};
  return lqt__cu_run(device, &launch, diag);
}

/* A block may write what another has yet to read. */
static bool writes_over(const lqt_op *product, const lqt_view *view) {
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    if (may_touch(&product->out[i], view)) return true;
  }
  return false;
}

/* RMSNORM of one token, and the products that take what comes out. */
static bool is_norm_product(const lqt__cu_device *device, const lqt_op *ops, size_t count) {
  if (count < 2 || ops[0].kind != LQT_OP_RMSNORM) return false;
  return lqt__cu_is_single(device, &ops[1]) && same_view(&ops[0].out[0], &ops[1].in[0]) &&
         !may_touch(&ops[0].in[0], &ops[0].out[0]) && !writes_over(&ops[1], &ops[0].in[0]) &&
         !writes_over(&ops[1], &ops[0].out[0]);
}

static lqt_status norm_product(lqt__cu_device *device, const lqt_op *ops, lqt_diag *diag) {
  lqt__cu_front front = {.x = lqt__cu_address(&ops[0].in[0]),
                         .gain = lqt__cu_address(&ops[0].in[1]),
                         .norm_out = lqt__cu_address(&ops[0].out[0]),
                         .eps = ops[0].eps};
  return lqt__cu_single(device, &ops[1], &front, diag);
}

lqt_status lqt__cu_op_run_fused(lqt__cu_device *device, const lqt_op *ops, size_t count,
                                size_t *out_taken, lqt_diag *diag) {
  *out_taken = 1;
  if (is_rope_kv(ops, count)) {
    *out_taken = 3;
    return rope_kv(device, ops, diag);
  }
  if (is_norm_product(device, ops, count)) {
    *out_taken = 2;
    return norm_product(device, ops, diag);
  }
  if (lqt__cu_is_single(device, ops)) {
    lqt__cu_front front = {.x = lqt__cu_address(&ops[0].in[0])};
    return lqt__cu_single(device, ops, &front, diag);
  }
  if (is_wide_norm(ops)) return wide_norm(device, ops, diag);
  if (is_silu(ops)) return silu(device, ops, diag);
  return lqt__cu_op_run(device, ops, diag);
}

const char *lqt__cu_fused_variant(const lqt_op *op) {
  if (is_wide_norm(op)) return "lqt_rmsnorm_wide_f16";
  if (is_silu(op)) return "lqt_glu_silu_f16";
  return NULL;
}
