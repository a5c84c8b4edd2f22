/* Attention: the tiled kernels for float16, the general one for the rest. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "internal.h"

/* The constants of kernels/attention.cu. */
#define LONE_RUN 8u
#define FEW_THREADS 128u
#define MANY_TOKENS 64u
#define GENERAL_MAX_HEAD 1024u
#define GENERAL_THREADS 128u
#define MOST_PARTS 32u

static uint32_t min32(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* 16-byte pieces of halves. */
static bool in_pieces(const lqt_view *view) {
  return view->dtype == LQT_DTYPE_F16 && lqt__cu_address(view) % 16 == 0 &&
         view->row_stride % 8 == 0;
}

static bool takes_tiles(const lqt_op *op) {
  return op->head_dim % 8 == 0 && op->head_dim <= 256 && in_pieces(&op->in[0]) &&
         in_pieces(&op->in[3]) && in_pieces(&op->in[4]) && in_pieces(&op->out[0]);
}

/* Query heads a block takes together. */
static uint32_t heads_together(uint32_t group) {
  return group == 1 ? 1 : group == 2 ? 2 : group <= 4 ? 4 : 8;
}

static uint32_t padded_dim(uint32_t dim) { return dim <= 64 ? 64 : dim <= 128 ? 128 : 256; }

static uint32_t page_shift(uint32_t page_tokens) {
  for (uint32_t shift = 0; shift < 32; shift++) {
    if (page_tokens == 1u << shift) return shift;
  }
  return 32;
}

static lqt__cu_attention args_of(const lqt_op *op) {
  const lqt_view *table = &op->in[5];
  return (lqt__cu_attention){.q = lqt__cu_address(&op->in[0]),
                             .out = lqt__cu_address(&op->out[0]),
                             .k = lqt__cu_address(&op->in[3]),
                             .v = lqt__cu_address(&op->in[4]),
                             .positions = lqt__cu_address(&op->in[1]),
                             .sequences = lqt__cu_address(&op->in[2]),
                             .table = lqt__cu_address(table),
                             .q_stride = op->in[0].row_stride,
                             .out_stride = op->out[0].row_stride,
                             .k_stride = op->in[3].row_stride,
                             .v_stride = op->in[4].row_stride,
                             .table_stride = table->row_stride,
                             .tokens = (uint32_t)op->in[0].rows,
                             .heads = op->heads,
                             .group = op->heads / op->kv_heads,
                             .head_dim = op->head_dim,
                             .page_tokens = op->page_tokens,
                             .page_shift = page_shift(op->page_tokens),
                             .window = op->window,
                             .table_rows = (uint32_t)table->rows,
                             .table_cols = (uint32_t)table->cols,
                             .pages = (uint32_t)(op->in[3].rows / op->page_tokens),
                             .scale = op->attn_scale};
}

/* Lone tokens and short runs. */
static lqt_status few(lqt__cu_device *device, const lqt_op *op, lqt__cu_attention *args,
                      lqt_diag *diag) {
  const uint32_t together = heads_together(args->group), dim = padded_dim(op->head_dim);
  const uint32_t columns = op->kv_heads * ((args->group + together - 1) / together);
  /* Positions that a block takes at once. */
  const uint32_t step = 4 * (together >= 4 ? 4 : 8) * (256 / dim);
  const uint64_t pairs = (uint64_t)columns * args->tokens;
  const uint64_t longest = (uint64_t)args->table_cols * args->page_tokens;
  uint64_t parts = lqt__ceil_div(4 * (uint64_t)device->multiprocessors, pairs);
  if (parts > lqt__ceil_div(longest, step)) parts = lqt__ceil_div(longest, step);
  args->splits = parts > MOST_PARTS ? MOST_PARTS : parts > 1 ? (uint32_t)parts : 1;
  if (pairs > LQT__CU_COUNTERS) args->splits = 1;
  if (args->splits > 1) {
    CUdeviceptr scratch;
    uint64_t bytes = (uint64_t)args->tokens * op->heads * args->splits * (op->head_dim + 2) * 4;
    LQT__TRY(lqt__cu_scratch(device, bytes, &scratch, diag));
    args->partial = scratch;
    args->counter = device->counters;
  }
  /* In a long prefill most tokens are the other kernel's: fewer blocks find that out. */
  args->per_block = args->tokens > 64 ? 8 : 1;
  char name[64];
  snprintf(name, sizeof name, "lqt_attention_few_d%ug%u", dim, together);
  const uint32_t rows = 65535 * args->per_block;
  for (uint32_t done = 0; done < args->tokens; done += rows) {
    const uint32_t tokens = min32(args->tokens - done, rows);
    args->first_token = done;
    lqt__cu_launch launch = {
        .module = LQT__CU_ATTENTION,
        .name = name,
        .grid = {columns, (tokens + args->per_block - 1) / args->per_block, args->splits},
        .threads = FEW_THREADS,
        .args = args,
        .overlap = true};
    LQT__TRY(lqt__cu_run(device, &launch, diag));
  }
  return LQT_OK;
}

/* Long runs of tokens of one sequence. */
static lqt_status many(lqt__cu_device *device, const lqt_op *op, const lqt__cu_attention *args,
                       lqt_diag *diag) {
  const uint32_t dim = op->head_dim <= 64 ? 64 : op->head_dim <= 96 ? 96 : 128;
  char name[64];
  snprintf(name, sizeof name, "lqt_attention_many_d%u", dim);
  lqt__cu_launch launch = {.module = LQT__CU_ATTENTION,
                           .name = name,
                           .grid = {op->heads, (args->tokens + MANY_TOKENS - 1) / MANY_TOKENS, 1},
                           .threads = 128,
                           .shared = 4 * MANY_TOKENS * (dim + 8) * 2,
                           .args = args,
                           .overlap = true};
  return lqt__cu_run(device, &launch, diag);
}

static lqt_status general(lqt__cu_device *device, const lqt_op *op, lqt__cu_op *args,
                          lqt_diag *diag) {
  if (op->head_dim > GENERAL_MAX_HEAD) {
    return lqt__fail(diag, LQT_UNSUPPORTED, "attention", "heads of %u are larger than %u",
                     op->head_dim, GENERAL_MAX_HEAD);
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
  args->chunk =
      (uint32_t)(lqt__ceil_div(lqt__ceil_div(longest, parts), GENERAL_THREADS) * GENERAL_THREADS);
  args->splits = (uint32_t)parts;
  if (parts > 1) {
    CUdeviceptr scratch;
    LQT__TRY(lqt__cu_scratch(device, pairs * parts * (op->head_dim + 2) * 4, &scratch, diag));
    args->scratch = scratch;
  }
  const bool half = op->in[0].dtype == LQT_DTYPE_F16;
  for (uint32_t done = 0; done < args->rows; done += 65535) {
    lqt__cu_op some = *args;
    const uint64_t size = half ? 2 : 4;
    some.in[0] += done * some.in_stride[0] * size;
    some.in[1] += (uint64_t)done * 4;
    some.in[2] += (uint64_t)done * 4;
    some.out[0] += done * some.out_stride[0] * size;
    some.scratch += (uint64_t)done * op->heads * parts * (op->head_dim + 2) * 4;
    lqt__cu_launch launch = {.module = LQT__CU_OPS,
                             .name = lqt__cu_attention_variant(op),
                             .grid = {op->heads, min32(args->rows - done, 65535), (uint32_t)parts},
                             .threads = GENERAL_THREADS,
                             .shared = (op->head_dim + GENERAL_THREADS) * 4,
                             .args = &some};
    LQT__TRY(lqt__cu_run(device, &launch, diag));
    if (parts == 1) continue;
    launch.name = half ? "lqt_attention_join_f16" : "lqt_attention_join_f32";
    launch.grid[2] = 1;
    launch.shared = 0;
    LQT__TRY(lqt__cu_run(device, &launch, diag));
  }
  return LQT_OK;
}

lqt_status lqt__cu_attention_run(lqt__cu_device *device, const lqt_op *op, lqt__cu_op *general_args,
                                 lqt_diag *diag) {
  if (!takes_tiles(op)) return general(device, op, general_args, diag);
  lqt__cu_attention args = args_of(op);
  args.skip_long = args.tokens > LONE_RUN && op->head_dim <= 128;
  LQT__TRY(few(device, op, &args, diag));
  return args.skip_long ? many(device, op, &args, diag) : LQT_OK;
}

const char *lqt__cu_attention_variant(const lqt_op *op) {
  static const char *const general_names[2][2] = {
      {"lqt_attention_f32_f32", "lqt_attention_f32_f16"},
      {"lqt_attention_f16_f32", "lqt_attention_f16_f16"}};
  if (takes_tiles(op)) {
    return op->in[0].rows > LONE_RUN && op->head_dim <= 128 ? "lqt_attention_many_f16"
                                                            : "lqt_attention_few_f16";
  }
  return general_names[op->in[0].dtype == LQT_DTYPE_F16][op->in[3].dtype == LQT_DTYPE_F16];
}
