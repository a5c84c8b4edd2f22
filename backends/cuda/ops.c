/* Launching the ops other than products. */
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "internal.h"

static bool is_half(const lqt_view *view) { return view->dtype == LQT_DTYPE_F16; }

/* The view that tells the activation type. */
static const lqt_view *activation(const lqt_op *op) {
  return op->kind == LQT_OP_KV_WRITE ? &op->in[0] : &op->out[0];
}

static const char *kernel_name(const lqt_op *op) {
  static const char *const names[LQT_OP_COUNT_][2] = {
      [LQT_OP_EMBED] = {"lqt_embed_f32", "lqt_embed_f16"},
      [LQT_OP_RMSNORM] = {"lqt_rmsnorm_f32", "lqt_rmsnorm_f16"},
      [LQT_OP_LAYERNORM] = {"lqt_layernorm_f32", "lqt_layernorm_f16"},
      [LQT_OP_ROPE] = {"lqt_rope_f32", "lqt_rope_f16"},
      [LQT_OP_GLU] = {"lqt_glu_f32", "lqt_glu_f16"},
      [LQT_OP_ACT] = {"lqt_act_f32", "lqt_act_f16"},
      [LQT_OP_ADD] = {"lqt_add_f32", "lqt_add_f16"},
      [LQT_OP_GATHER] = {"lqt_gather_f32", "lqt_gather_f16"},
      [LQT_OP_DEQUANT] = {"lqt_dequant_any", "lqt_dequant_any"},
      [LQT_OP_TOPK] = {"lqt_topk_f32", "lqt_topk_f16"},
  };
  static const char *const write_names[2][2] = {{"lqt_kv_write_f32_f32", "lqt_kv_write_f32_f16"},
                                                {"lqt_kv_write_f16_f32", "lqt_kv_write_f16_f16"}};
  const bool half = is_half(op->kind == LQT_OP_TOPK ? &op->in[0] : activation(op));
  if (op->kind == LQT_OP_KV_WRITE) return write_names[half][is_half(&op->out[0])];
  if (op->kind == LQT_OP_ATTENTION) return lqt__cu_attention_variant(op);
  return op->kind > 0 && op->kind < LQT_OP_COUNT_ ? names[op->kind][half] : NULL;
}

static lqt__cu_op args_of(const lqt_op *op) {
  const lqt_view *first = &op->in[0];
  lqt__cu_op args = {.rows = (uint32_t)activation(op)->rows,
                     .cols = (uint32_t)activation(op)->cols,
                     .in_rows = (uint32_t)first->rows,
                     .heads = op->heads,
                     .kv_heads = op->kv_heads,
                     .head_dim = op->head_dim,
                     .rotary_dim = op->rotary_dim,
                     .page_tokens = op->page_tokens,
                     .window = op->window,
                     .act = (uint32_t)op->act,
                     .interleaved = op->interleaved,
                     .eps = op->eps,
                     .scale = op->attn_scale};
  for (int i = 0; i < LQT_OP_MAX_IN; i++) {
    args.in[i] = lqt__cu_address(&op->in[i]);
    args.in_stride[i] = op->in[i].row_stride;
  }
  for (int i = 0; i < 2; i++) {
    args.out[i] = lqt__cu_address(&op->out[i]);
    args.out_stride[i] = op->out[i].row_stride;
  }
  if (op->weight[0] != NULL) args.weight = ((const lqt__cu_weight *)op->weight[0])->view;
  return args;
}

/* Moves the operands that advance with the tokens. */
static void advance(const lqt_op *op, lqt__cu_op *args, uint64_t rows) {
  for (int i = 0; i < LQT_OP_MAX_IN; i++) {
    const lqt_view *view = &op->in[i];
    if (view->buffer == NULL) continue;
    if (view->dtype == LQT_DTYPE_I32 && !(op->kind == LQT_OP_KV_WRITE && i == 4)) {
      args->in[i] += rows * 4; /* ids and positions */
    } else if (i < 2 && view->rows == activation(op)->rows && op->kind != LQT_OP_GATHER &&
               !(i == 1 && (op->kind == LQT_OP_RMSNORM || op->kind == LQT_OP_LAYERNORM ||
                            op->kind == LQT_OP_ROPE))) {
      args->in[i] += rows * view->row_stride * lqt_dtype_size(view->dtype);
    }
  }
  if (op->kind != LQT_OP_KV_WRITE) {
    args->out[0] += rows * op->out[0].row_stride * lqt_dtype_size(op->out[0].dtype);
  }
}

static lqt_status by_rows(lqt__cu_device *device, const lqt_op *op, lqt__cu_op *args, uint64_t work,
                          lqt_diag *diag) {
  const bool norm = op->kind == LQT_OP_RMSNORM || op->kind == LQT_OP_LAYERNORM;
  const uint32_t total = args->rows;
  for (uint32_t done = 0; done < total; done += 65535) {
    const uint32_t rows = total - done < 65535 ? total - done : 65535;
    args->rows = rows;
    uint64_t across = lqt__ceil_div(work, 256);
    lqt__cu_launch launch = {.module = LQT__CU_OPS,
                             .name = kernel_name(op),
                             .grid = {across < 1024 ? (uint32_t)across : 1024, rows, 1},
                             .threads = 256,
                             .args = args};
    if (op->kind == LQT_OP_ROPE) launch.grid[0] = (uint32_t)across;
    if (norm) launch.grid[0] = rows, launch.grid[1] = 1;
    LQT__TRY(lqt__cu_run(device, &launch, diag));
    advance(op, args, rows);
  }
  return LQT_OK;
}

#define TOPK_SHARED_BYTES (32 * 256 * 4 + 1024 * 8 + 256) /* of kernels/topk.cu, and some */

static lqt_status topk(lqt__cu_device *device, const lqt_op *op, lqt_diag *diag) {
  lqt__cu_topk args = {.in = lqt__cu_address(&op->in[0]),
                       .values = lqt__cu_address(&op->out[0]),
                       .ids = lqt__cu_address(&op->out[1]),
                       .in_stride = op->in[0].row_stride,
                       .values_stride = op->out[0].row_stride,
                       .ids_stride = op->out[1].row_stride,
                       .cols = (uint32_t)op->in[0].cols,
                       .k = (uint32_t)op->out[0].cols};
  lqt__cu_launch launch = {.module = LQT__CU_TOPK,
                           .name = kernel_name(op),
                           .grid = {(uint32_t)op->in[0].rows, 1, 1},
                           .threads = 1024,
                           .shared = args.k == 1 ? 256 : TOPK_SHARED_BYTES,
                           .args = &args,
                           .overlap = true};
  return lqt__cu_run(device, &launch, diag);
}

lqt_status lqt__cu_op_run(lqt__cu_device *device, const lqt_op *op, lqt_diag *diag) {
  const lqt_view *act = activation(op);
  if (act->rows == 0 || act->cols == 0) return LQT_OK;
  if (act->rows > INT32_MAX || act->cols > INT32_MAX) {
    return lqt__fail(diag, LQT_UNSUPPORTED, lqt_op_name(op->kind),
                     "an operand is larger than the kernels count");
  }
  if (op->kind == LQT_OP_MATMUL) return lqt__cu_matmul(device, op, diag);
  if (op->kind == LQT_OP_TOPK) return topk(device, op, diag);
  lqt__cu_op args = args_of(op);
  uint64_t work = act->cols;
  switch (op->kind) {
    case LQT_OP_ATTENTION:
      return lqt__cu_attention_run(device, op, &args, diag);
    case LQT_OP_ROPE:
      work = (uint64_t)op->heads * (op->rotary_dim / 2);
      break;
    case LQT_OP_KV_WRITE:
      args.in_rows = (uint32_t)op->in[4].rows;
      args.table_cols = (uint32_t)op->in[4].cols;
      args.page_rows = (uint32_t)op->out[0].rows;
      break;
    case LQT_OP_DEQUANT: {
      uint64_t across = lqt__ceil_div(act->cols, 256);
      lqt__cu_launch launch = {.module = LQT__CU_OPS,
                               .name = "lqt_dequant_any",
                               .grid = {across < 1024 ? (uint32_t)across : 1024,
                                        act->rows < 65535 ? (uint32_t)act->rows : 65535, 1},
                               .threads = 256,
                               .args = &args};
      return lqt__cu_run(device, &launch, diag);
    }
    default:
      break;
  }
  return by_rows(device, op, &args, work, diag);
}

const char *lqt__cu_variant(lqt_device *device, const lqt_op *op) {
  if (op->kind == LQT_OP_MATMUL) {
    return lqt__cu_matmul_variant((lqt__cu_device *)device, op);
  }
  const char *fused = lqt__cu_fused_variant(op);
  return fused != NULL ? fused : kernel_name(op);
}
