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
  };
  static const char *const write_names[2][2] = {{"lqt_kv_write_f32_f32", "lqt_kv_write_f32_f16"},
                                                {"lqt_kv_write_f16_f32", "lqt_kv_write_f16_f16"}};
  static const char *const attention_names[2][2] = {
      {"lqt_attention_f32_f32", "lqt_attention_f32_f16"},
      {"lqt_attention_f16_f32", "lqt_attention_f16_f16"}};
  const bool half = is_half(activation(op));
  if (op->kind == LQT_OP_KV_WRITE) return write_names[half][is_half(&op->out[0])];
  if (op->kind == LQT_OP_ATTENTION) return attention_names[half][is_half(&op->in[3])];
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

#define ATTENTION_MAX_HEAD 1024u
#define ATTENTION_THREADS 128u

static lqt_status attention(lqt__cu_device *device, const lqt_op *op, lqt__cu_op *args,
                            lqt_diag *diag) {
  if (op->head_dim > ATTENTION_MAX_HEAD) {
    return lqt__fail(diag, LQT_UNSUPPORTED, "attention", "heads of %u are larger than %u",
                     op->head_dim, ATTENTION_MAX_HEAD);
  }
  const lqt_view *table = &op->in[5];
  args->in_rows = (uint32_t)table->rows;
  args->table_cols = (uint32_t)table->cols;
  args->page_rows = (uint32_t)op->in[3].rows;
  const uint64_t longest = table->cols * op->page_tokens;
  /* Parts of the sequence until every multiprocessor has some blocks, none under 256 positions. */
  const uint64_t pairs = (uint64_t)op->heads * args->rows;
  uint64_t parts = lqt__ceil_div((uint64_t)device->multiprocessors * 4, pairs);
  const uint64_t most = lqt__ceil_div(longest, 256);
  if (parts > most) parts = most;
  if (parts > 64) parts = 64;
  if (parts == 0) parts = 1;
  args->chunk = (uint32_t)(lqt__ceil_div(lqt__ceil_div(longest, parts), ATTENTION_THREADS) *
                           ATTENTION_THREADS);
  args->splits = (uint32_t)parts;
  if (parts > 1) {
    CUdeviceptr scratch;
    LQT__TRY(lqt__cu_scratch(device, pairs * parts * (op->head_dim + 2) * 4, &scratch, diag));
    args->scratch = scratch;
  }
  for (uint32_t done = 0; done < args->rows; done += 65535) {
    lqt__cu_op some = *args;
    const uint64_t size = is_half(&op->in[0]) ? 2 : 4;
    some.in[0] += done * some.in_stride[0] * size;
    some.in[1] += (uint64_t)done * 4;
    some.in[2] += (uint64_t)done * 4;
    some.out[0] += done * some.out_stride[0] * size;
    some.scratch += (uint64_t)done * op->heads * parts * (op->head_dim + 2) * 4;
    const uint32_t rows = args->rows - done < 65535 ? args->rows - done : 65535;
    lqt__cu_launch launch = {.module = LQT__CU_OPS,
                             .name = kernel_name(op),
                             .grid = {op->heads, rows, (uint32_t)parts},
                             .threads = ATTENTION_THREADS,
                             .shared = (op->head_dim + ATTENTION_THREADS) * 4,
                             .args = &some};
    LQT__TRY(lqt__cu_run(device, &launch, diag));
    if (parts == 1) continue;
    launch.name = is_half(&op->in[0]) ? "lqt_attention_join_f16" : "lqt_attention_join_f32";
    launch.grid[2] = 1;
    launch.shared = 0;
    LQT__TRY(lqt__cu_run(device, &launch, diag));
  }
  return LQT_OK;
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

lqt_status lqt__cu_op_run(lqt__cu_device *device, const lqt_op *op, lqt_diag *diag) {
  const lqt_view *act = activation(op);
  if (act->rows == 0 || act->cols == 0) return LQT_OK;
  if (act->rows > INT32_MAX || act->cols > INT32_MAX) {
    return lqt__fail(diag, LQT_UNSUPPORTED, lqt_op_name(op->kind),
                     "an operand is larger than the kernels count");
  }
  if (op->kind == LQT_OP_MATMUL) return lqt__cu_matmul(device, op, diag);
  lqt__cu_op args = args_of(op);
  uint64_t work = act->cols;
  switch (op->kind) {
    case LQT_OP_ATTENTION:
      return attention(device, op, &args, diag);
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
  return kernel_name(op);
}
