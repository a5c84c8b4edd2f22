/* Products of many tokens on Hopper: kernels/wide.cuh. */
#include <string.h>

#include "base/diag.h"
#include "internal.h"

/* Below, the streaming kernels of matmul.c are faster: their fixed cost is smaller, so that weights
 * of fewer than FEW_WEIGHTS are theirs with two to eight tokens too. One token is always theirs. */
#define LEAST_TOKENS 9u
#define FEW_WEIGHTS (60u << 20)

/* The kernels of one width; the geometry has to be that of kernels/wide_kernels.cuh. */
typedef struct wide_kernel {
  uint32_t tokens, warpgroups;
  bool fine; /* group scales of 16 and 32 columns */
  const char *name[4];
} wide_kernel;
#define NAMES(steps, tokens)                                 \
  {                                                          \
    "lqt_matmul_cb2s" #steps "_f16_m" #tokens "__sm90a",     \
        "lqt_matmul_cb3s" #steps "_f16_m" #tokens "__sm90a", \
        "lqt_matmul_cb4s" #steps "_f16_m" #tokens "__sm90a", \
        "lqt_matmul_cb8s" #steps "_f16_m" #tokens "__sm90a"  \
  }
static const wide_kernel kernels[] = {
    {8, 4, false, NAMES(4, 8)},   {16, 4, false, NAMES(4, 16)},   {32, 4, false, NAMES(4, 32)},
    {64, 4, false, NAMES(4, 64)}, {128, 3, false, NAMES(4, 128)}, {256, 2, false, NAMES(4, 256)},
    {16, 4, true, NAMES(1, 16)},  {64, 3, true, NAMES(1, 64)},    {256, 2, true, NAMES(1, 256)},
};

/* Shared memory, by the arithmetic of wide_config: stages before and behind the table. */
static uint32_t shared_bytes(uint32_t tokens) {
  const uint32_t stage = (tokens <= 64 ? 4 : tokens == 128 ? 2 : 1) * tokens * 128;
  const uint32_t behind = 98304 / stage < 4 ? 98304 / stage : 4;
  return 2 * 65536 + behind * stage;
}

static bool is_fine(const lqt__cu_weight_view *view) {
  return view->scales != 0 && view->group_size < 64;
}

/* The smallest kernel that takes all tokens, or the largest. */
static const wide_kernel *choose(const lqt__cu_weight *weight, uint64_t tokens) {
  const wide_kernel *best = NULL;
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
    if (kernels[i].fine != is_fine(&weight->view)) continue;
    best = &kernels[i];
    if (tokens <= best->tokens) break;
  }
  return best;
}

bool lqt__cu_wide_takes(const lqt__cu_device *device, const lqt__cu_weight *weight,
                        uint64_t tokens) {
  const lqt__cu_weight_view *view = &weight->view;
  if (device->capability != 90 || device->driver->TensorMapEncodeTiled == NULL) return false;
  return tokens >= LEAST_TOKENS ||
         (tokens >= 2 && !is_fine(view) && (uint64_t)view->rows * view->cols >= FEW_WEIGHTS);
}

const char *lqt__cu_wide_name(const lqt__cu_weight *weight, uint32_t weight_bits, uint64_t tokens) {
  return choose(weight, tokens)->name[weight_bits == 8 ? 3 : weight_bits - 2];
}

/* Tiles that are cut into equal shares: those that do not fill the grid, or so many more that every
 * block has a share. */
static uint32_t cut_tiles(uint32_t total, uint32_t steps, uint32_t grid) {
  uint32_t cut = total % grid;
  if (cut != 0 && (uint64_t)cut * steps < grid && total > cut) cut += grid;
  return cut;
}

static lqt_status tensor_map(lqt__cu_device *device, CUdeviceptr data, uint32_t cols, uint32_t rows,
                             uint64_t stride, uint32_t box_rows, uint64_t *map, lqt_diag *diag) {
  const cuuint64_t size[2] = {cols, rows}, strides[1] = {stride * 2};
  const cuuint32_t box[2] = {64, box_rows}, step[2] = {1, 1};
  return lqt__cu_check(
      device,
      device->driver->TensorMapEncodeTiled(
          (CUtensorMap *)map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, (void *)data, size, strides, box,
          step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
          CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
      "describe a matrix", diag);
}

static lqt_status wide_share(lqt__cu_device *device, lqt__cu_wide *args, uint32_t *grid,
                             lqt_diag *diag) {
  const uint64_t total = (uint64_t)args->row_tiles * args->token_tiles;
  if (total * args->steps > UINT32_MAX) {
    return lqt__fail(diag, LQT_UNSUPPORTED, device->base.info.selector,
                     "a product of %u tokens and %u outputs is larger than the kernels count; give "
                     "fewer tokens at once",
                     args->m, args->n);
  }
  *grid = device->multiprocessors;
  if (total * args->steps < *grid) *grid = (uint32_t)(total * args->steps);
  args->cut_tiles = cut_tiles((uint32_t)total, args->steps, *grid);
  args->share = args->cut_tiles * args->steps / *grid;
  args->longer = args->cut_tiles * args->steps % *grid;
  return LQT_OK;
}

/* One launch: all tokens by one kernel. */
static lqt_status launch(lqt__cu_device *device, const wide_kernel *kernel,
                         const lqt__cu_product *product, CUdeviceptr partial, lqt_diag *diag) {
  const lqt__cu_weight_view *view = &product->weight->view;
  const lqt__cu_stream *stream = product->stream;
  const uint32_t rows = kernel->warpgroups * 64;
  lqt__cu_wide args = {.units = stream->data,
                       .table = stream->table,
                       .y = product->y,
                       .bias = product->bias,
                       .scales = view->scales,
                       .partial = partial,
                       .counter = device->counters,
                       .y_stride = product->y_stride,
                       .n = view->rows,
                       .m = product->m,
                       .tiles = view->tiles,
                       .blocks = view->blocks,
                       .steps = (view->cols + 255) / 256,
                       .row_tiles = (view->rows + rows - 1) / rows,
                       .token_tiles = (product->m + kernel->tokens - 1) / kernel->tokens,
                       .accumulate = product->accumulate,
                       .scale = product->scale};
  if (view->scales == 0) {
    args.scales = stream->table + LQT__CU_TABLE_BYTES;
  } else if (kernel->fine) {
    args.scale_shift = view->group_size == 32 ? 1 : 0;
    args.scale_words = 32u >> args.scale_shift;
  } else {
    args.scale_shift = view->group_shift;
    args.scale_words = 8u >> view->group_shift;
  }
  LQT__TRY(tensor_map(device, product->x, view->cols, product->m, product->x_stride, kernel->tokens,
                      args.map, diag));
  uint32_t grid = 0;
  LQT__TRY(wide_share(device, &args, &grid, diag));
  lqt__cu_launch run = {
      .module = kernel->tokens == 8
                    ? LQT__CU_WIDE_FEW
                    : (lqt__cu_module)(LQT__CU_WIDE2 +
                                       (stream->weight_bits == 8 ? 3 : stream->weight_bits - 2)),
      .name = kernel->name[stream->weight_bits == 8 ? 3 : stream->weight_bits - 2],
      .grid = {grid, 1, 1},
      .threads = kernel->warpgroups * 128 + 128,
      .shared = shared_bytes(kernel->tokens),
      .args = &args,
      /* Large products lose by it: blocks of the next one wait where this one's could run. */
      .overlap = kernel->tokens <= 128};
  return lqt__cu_run(device, &run, diag);
}

static bool is_aligned(const lqt__cu_product *product) {
  return product->x % 16 == 0 && product->x_stride % 8 == 0;
}

static uint64_t aligned_bytes(const lqt__cu_product *product, uint32_t cols) {
  return is_aligned(product) ? 0 : (uint64_t)product->m * ((cols + 7u) & ~7u) * 2;
}

static lqt_status align(lqt__cu_device *device, lqt__cu_product *product, uint32_t cols,
                        CUdeviceptr to, lqt_diag *diag) {
  if (is_aligned(product)) return LQT_OK;
  const lqt__cu_rows args = {.from = product->x,
                             .to = to,
                             .from_stride = product->x_stride,
                             .to_stride = (cols + 7u) & ~7u,
                             .rows = product->m,
                             .cols = cols};
  lqt__cu_launch run = {.module = LQT__CU_PACK,
                        .name = "lqt_align_rows_f16",
                        .grid = {product->m, 1, 1},
                        .threads = 256,
                        .args = &args};
  LQT__TRY(lqt__cu_run(device, &run, diag));
  product->x = to;
  product->x_stride = args.to_stride;
  return LQT_OK;
}

/* Whole tiles of the largest kernel first, what is left by the kernel that fits it. */
static uint32_t wide_tokens(uint32_t left) {
  const uint32_t rest = left % 256;
  return left > 256 && rest != 0 && rest <= 128 ? left - rest : left;
}

lqt_status lqt__cu_wide_run(lqt__cu_device *device, const lqt__cu_product *whole, lqt_diag *diag) {
  lqt__cu_product product = *whole;
  const uint32_t cols = product.weight->view.cols;
  const uint64_t x_room = (aligned_bytes(&product, cols) + 255) & ~UINT64_C(255);
  /* A part a block, of 128 x 256 sums at most (192 x 128, 256 x 64 and fewer are smaller). */
  const uint64_t parts = (uint64_t)device->multiprocessors * 128 * 256 * 4;
  CUdeviceptr scratch;
  LQT__TRY(lqt__cu_scratch(device, x_room + parts, &scratch, diag));
  LQT__TRY(align(device, &product, cols, scratch, diag));
  while (product.m != 0) {
    const uint32_t left = product.m;
    product.m = wide_tokens(left);
    LQT__TRY(launch(device, choose(product.weight, product.m), &product, scratch + x_room, diag));
    product.x += (uint64_t)product.m * product.x_stride * 2;
    product.y += (uint64_t)product.m * product.y_stride * 2;
    product.m = left - product.m;
  }
  return LQT_OK;
}
