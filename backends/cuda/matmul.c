/* Products: the fused kernels where they take the weight, otherwise the general ones. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "internal.h"

#define TABLE_BYTES 65536u
#define MANY_WARPS 16u
#define MANY_ROUND 8u
#define MANY_SHARED (TABLE_BYTES + MANY_ROUND * MANY_WARPS * 512) /* at most */

/* Names of the fused kernels: [bits][k-steps a scale covers]; "r" takes any number of columns. */
#define NAMES(bits, tile)                               \
  {                                                     \
    "lqt_matmul_cb" #bits "s0r_f16_" tile "__sm80",     \
        "lqt_matmul_cb" #bits "s1r_f16_" tile "__sm80", \
        "lqt_matmul_cb" #bits "s2r_f16_" tile "__sm80", \
        "lqt_matmul_cb" #bits "s4r_f16_" tile "__sm80"  \
  }
static const char *const many_names[4][4] = {NAMES(2, "m8"), NAMES(3, "m8"), NAMES(4, "m8"),
                                             NAMES(8, "m8")};
static uint32_t min32(uint32_t a, uint32_t b) { return a < b ? a : b; }

lqt__cu_small lqt__cu_small_args(const lqt__cu_weight *weight, const lqt__cu_stream *stream) {
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

/* Not on devices of 8.6 and 8.9, which take the tokens one by one. */
static bool many_fits(const lqt__cu_device *device) { return device->shared_limit >= MANY_SHARED; }

static bool fused_takes(const lqt__cu_device *device, const lqt__cu_weight *weight,
                        lqt_dtype activation) {
  return weight->fused && activation == LQT_DTYPE_F16 &&
         (many_fits(device) || lqt__cu_single_fits(device, weight));
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
  lqt__cu_launch launch = {
      .module = (lqt__cu_module)(LQT__CU_SMALL2 + lqt__cu_bits_slot(bits)),
      .name = many_names[lqt__cu_bits_slot(bits)][lqt__cu_steps_slot(&weight->view)],
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
  lqt__cu_small args = lqt__cu_small_args(weight, stream);
  args.x_stride = in->row_stride;
  args.y_stride = out->row_stride;
  args.bias = bias;
  args.accumulate = accumulate;
  args.scale = scale;
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
    if ((left == 1 || !many_fits(device)) && lqt__cu_single_fits(device, weight)) {
      args.m = 1;
      LQT__TRY(lqt__cu_single_stream(device, weight, stream, &args, diag));
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
  if (!fused_takes(device, weight, in->dtype)) {
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
  if (lqt__cu_is_single(device, op)) {
    lqt__cu_front plain = {.x = lqt__cu_address(&op->in[0])};
    return lqt__cu_single(device, op, &plain, diag);
  }
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
  if (!fused_takes(device, weight, op->in[0].dtype)) {
    if (tokens <= 16) return half ? "lqt_matmul_rows_f16" : "lqt_matmul_rows_f32";
    return half ? "lqt_matmul_tile_f16" : "lqt_matmul_tile_f32";
  }
  const uint32_t bits = weight->view.main.weight_bits;
  if (lqt__cu_wide_takes(device, weight, tokens)) return lqt__cu_wide_name(weight, bits, tokens);
  if ((tokens == 1 || !many_fits(device)) && lqt__cu_single_fits(device, weight)) {
    return lqt__cu_single_variant(weight, bits);
  }
  return many_names[lqt__cu_bits_slot(bits)][lqt__cu_steps_slot(&weight->view)];
}
