/* Products: the fused kernels where they take the weight, otherwise the general ones. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "internal.h"

#define TABLE_BYTES 65536u
#define ONE_UNIT_BYTES 144u
#define MANY_WARPS 16u
#define MANY_ROUND 8u
#define ONE_SUMS_BYTES 40960u /* most shared memory that a block's sums may take */

/* Names of the fused kernels: [bits][k-steps a scale covers]; "r" takes any number of columns. */
#define NAMES(bits, tile)                               \
  {                                                     \
    "lqt_matmul_cb" #bits "s0r_f16_" tile "__sm80",     \
        "lqt_matmul_cb" #bits "s1r_f16_" tile "__sm80", \
        "lqt_matmul_cb" #bits "s2r_f16_" tile "__sm80", \
        "lqt_matmul_cb" #bits "s4r_f16_" tile "__sm80"  \
  }
static const char *const one_names[4][4] = {NAMES(2, "m1"), NAMES(3, "m1"), NAMES(4, "m1"),
                                            NAMES(8, "m1")};
static const char *const many_names[4][4] = {NAMES(2, "m8"), NAMES(3, "m8"), NAMES(4, "m8"),
                                             NAMES(8, "m8")};
/* One token, group size 64 and more, whole blocks of columns. */
static const char *const whole_names[4] = {
    "lqt_matmul_cb2s4_f16_m1__sm80", "lqt_matmul_cb3s4_f16_m1__sm80",
    "lqt_matmul_cb4s4_f16_m1__sm80", "lqt_matmul_cb8s4_f16_m1__sm80"};

static uint32_t bits_slot(uint32_t bits) { return bits == 8 ? 3 : bits - 2; }
static uint32_t steps_slot(const lqt__cu_weight_view *view) {
  if (view->scales == 0) return 0;
  return view->group_size == 16 ? 1 : view->group_size == 32 ? 2 : 3;
}
static const char *one_name(const lqt__cu_weight *weight, uint32_t bits) {
  const uint32_t steps = steps_slot(&weight->view);
  return steps == 3 && weight->last_units == 8 ? whole_names[bits_slot(bits)]
                                               : one_names[bits_slot(bits)][steps];
}
static uint32_t min32(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* How many warps of a block split the columns: the number that keeps the most warps busy. */
static uint32_t split_warps(uint32_t warps, uint32_t blocks) {
  uint32_t best = 1, best_score = 0;
  for (uint32_t w = 1; w <= warps && w <= blocks; w++) {
    uint32_t passes = (blocks + w - 1) / w;
    uint32_t score = blocks * 1000 / (passes * w) * ((warps / w) * w) / warps;
    if (score >= best_score) best = w, best_score = score;
  }
  return best;
}

static lqt__cu_small small_args(const lqt__cu_weight *weight, const lqt__cu_stream *stream) {
  const lqt__cu_weight_view *view = &weight->view;
  return (lqt__cu_small){.units = stream->data,
                         .scales = view->scales,
                         .table = stream->table,
                         .n = view->rows,
                         .k = view->cols,
                         .tiles = view->tiles,
                         .blocks = view->blocks,
                         .last_units = weight->last_units,
                         .group_shift = view->group_shift};
}

static lqt_status launch_one(lqt__cu_device *device, const lqt__cu_weight *weight, uint32_t bits,
                             lqt__cu_small *args, uint32_t shared_base, lqt_diag *diag) {
  const uint32_t warps = bits == 8 ? 24 : 16;
  uint32_t most = ONE_SUMS_BYTES / (args->blocks * 64);
  if (most == 0) most = 1;
  uint32_t grid = min32(device->multiprocessors, args->tiles);
  uint32_t tiles = (args->tiles + grid - 1) / grid;
  if (tiles > most) {
    grid = (args->tiles + most - 1) / most;
    tiles = most;
  }
  args->warps_k = split_warps(warps, args->blocks);
  lqt__cu_launch launch = {.module = (lqt__cu_module)(LQT__CU_SMALL2 + bits_slot(bits)),
                           .name = one_name(weight, bits),
                           .grid = {grid, 1, 1},
                           .threads = warps * 32,
                           .shared = shared_base + tiles * args->blocks * 64,
                           .args = args,
                           .overlap = true};
  return lqt__cu_run(device, &launch, diag);
}

static lqt_status launch_many(lqt__cu_device *device, const lqt__cu_weight *weight, uint32_t bits,
                              lqt__cu_small *args, lqt_diag *diag) {
  const uint32_t units = 4; /* of a warp */
  const uint32_t slices = (args->blocks - 1) * 8 + weight->last_units;
  args->part = (slices + units - 1) / units;
  uint32_t parts = (args->part + MANY_WARPS - 1) / MANY_WARPS;
  args->warps_k = (args->part + parts - 1) / parts;
  parts = (args->part + args->warps_k - 1) / args->warps_k;
  uint32_t grid = device->multiprocessors / parts;
  grid = min32(min32(grid != 0 ? grid : 1, args->tiles), LQT__CU_COUNTERS);
  if (parts > 1) {
    CUdeviceptr scratch;
    LQT__TRY(lqt__cu_scratch(device, (uint64_t)parts * args->m * args->n * 4, &scratch, diag));
    args->partial = scratch;
    args->counter = device->counters;
  }
  uint32_t rows_of_warps = MANY_WARPS / args->warps_k;
  lqt__cu_launch launch = {.module = (lqt__cu_module)(LQT__CU_SMALL2 + bits_slot(bits)),
                           .name = many_names[bits_slot(bits)][steps_slot(&weight->view)],
                           .grid = {grid, parts, 1},
                           .threads = MANY_WARPS * 32,
                           .shared = TABLE_BYTES + MANY_ROUND * rows_of_warps * args->warps_k * 512,
                           .args = args,
                           .overlap = true};
  return lqt__cu_run(device, &launch, diag);
}

/* One stream of indices times the tokens of `in`. */
static lqt_status fused_stream(lqt__cu_device *device, const lqt__cu_weight *weight,
                               const lqt__cu_stream *stream, const lqt_view *in,
                               const lqt_view *out, uint64_t bias, bool accumulate, float scale,
                               lqt_diag *diag) {
  const uint32_t bits = stream->weight_bits;
  lqt__cu_small args = small_args(weight, stream);
  args.x_stride = in->row_stride;
  args.y_stride = out->row_stride;
  args.bias = bias;
  args.accumulate = accumulate;
  args.scale = scale;
  const uint32_t one_base = TABLE_BYTES + args.blocks * 8 * ONE_UNIT_BYTES;
  uint64_t done = 0;
  while (done < in->rows) {
    uint64_t left = in->rows - done;
    if (lqt__cu_wide_takes(device, weight, left)) {
      const lqt__cu_product product = {.weight = weight,
                                       .stream = stream,
                                       .x = lqt__cu_address(in) + done * in->row_stride * 2,
                                       .y = lqt__cu_address(out) + done * out->row_stride * 2,
                                       .x_stride = in->row_stride,
                                       .y_stride = out->row_stride,
                                       .bias = bias,
                                       .m = (uint32_t)left,
                                       .accumulate = accumulate,
                                       .scale = scale};
      return lqt__cu_wide_run(device, &product, diag);
    }
    args.x = lqt__cu_address(in) + done * in->row_stride * 2;
    args.y = lqt__cu_address(out) + done * out->row_stride * 2;
    if (left == 1 && one_base + args.blocks * 64 <= device->shared_limit) {
      args.m = 1;
      LQT__TRY(launch_one(device, weight, bits, &args, one_base, diag));
    } else {
      args.m = left < 8 ? (uint32_t)left : 8;
      LQT__TRY(launch_many(device, weight, bits, &args, diag));
    }
    done += args.m;
  }
  return LQT_OK;
}

static lqt__cu_op general_args(const lqt__cu_weight *weight, const lqt_view *in,
                               const lqt_view *out, uint64_t bias, bool accumulate) {
  lqt__cu_op args = {.rows = (uint32_t)in->rows,
                     .cols = (uint32_t)in->cols,
                     .accumulate = accumulate,
                     .weight = weight->view};
  args.in[0] = lqt__cu_address(in);
  args.in_stride[0] = in->row_stride;
  args.in[1] = bias;
  args.out[0] = lqt__cu_address(out);
  args.out_stride[0] = out->row_stride;
  return args;
}

static lqt_status general(lqt__cu_device *device, const lqt__cu_weight *weight, const lqt_view *in,
                          const lqt_view *out, uint64_t bias, bool accumulate, lqt_diag *diag) {
  const bool half = in->dtype == LQT_DTYPE_F16, rows = in->rows <= 16;
  lqt__cu_op args = general_args(weight, in, out, bias, accumulate);
  lqt__cu_launch launch = {.module = LQT__CU_OPS, .threads = 256, .args = &args};
  const uint32_t n = weight->view.rows;
  if (rows) {
    launch.name = half ? "lqt_matmul_rows_f16" : "lqt_matmul_rows_f32";
    launch.grid[0] = (n + 7) / 8;
    launch.grid[1] = (args.rows + 7) / 8;
  } else {
    launch.name = half ? "lqt_matmul_tile_f16" : "lqt_matmul_tile_f32";
    launch.grid[0] = (n + 63) / 64;
    launch.grid[1] = (args.rows + 63) / 64;
  }
  launch.grid[2] = 1;
  return lqt__cu_run(device, &launch, diag);
}

static lqt_status product(lqt__cu_device *device, const lqt__cu_weight *weight, const lqt_view *in,
                          const lqt_view *out, uint64_t bias, bool accumulate, lqt_diag *diag) {
  const lqt__cu_weight_view *view = &weight->view;
  if (!weight->fused || in->dtype != LQT_DTYPE_F16) {
    return general(device, weight, in, out, bias, accumulate, diag);
  }
  LQT__TRY(fused_stream(device, weight, &view->main, in, out, bias, accumulate, view->scale, diag));
  if (view->has_residual) {
    LQT__TRY(fused_stream(device, weight, &view->residual, in, out, 0, true,
                          view->scale * view->residual_scale, diag));
  }
  if (view->delta_kind != LQT_DELTA_CSR) return LQT_OK;
  lqt__cu_op args = general_args(weight, in, out, 0, true);
  lqt__cu_launch launch = {.module = LQT__CU_OPS,
                           .name = "lqt_delta_rows_f16",
                           .grid = {(view->rows + 7) / 8, (args.rows + 7) / 8, 1},
                           .threads = 256,
                           .args = &args};
  return lqt__cu_run(device, &launch, diag);
}

lqt_status lqt__cu_matmul(lqt__cu_device *device, const lqt_op *op, lqt_diag *diag) {
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    if (op->weight[i] == NULL) continue;
    LQT__TRY(product(device, (const lqt__cu_weight *)op->weight[i], &op->in[0], &op->out[i],
                     lqt__cu_address(&op->in[i + 1]), op->accumulate, diag));
  }
  return LQT_OK;
}

const char *lqt__cu_matmul_variant(lqt__cu_device *device, const lqt_op *op) {
  const lqt__cu_weight *weight = (const lqt__cu_weight *)op->weight[0];
  const bool half = op->in[0].dtype == LQT_DTYPE_F16;
  const uint64_t tokens = op->in[0].rows;
  if (weight == NULL) return "";
  if (!weight->fused || !half) {
    if (tokens <= 16) return half ? "lqt_matmul_rows_f16" : "lqt_matmul_rows_f32";
    return half ? "lqt_matmul_tile_f16" : "lqt_matmul_tile_f32";
  }
  const uint32_t bits = weight->view.main.weight_bits, b = bits_slot(bits);
  const uint32_t one = TABLE_BYTES + weight->view.blocks * (8 * ONE_UNIT_BYTES + 64);
  if (lqt__cu_wide_takes(device, weight, tokens)) return lqt__cu_wide_name(weight, bits, tokens);
  if (tokens == 1 && one <= device->shared_limit) return one_name(weight, bits);
  return many_names[b][steps_slot(&weight->view)];
}
