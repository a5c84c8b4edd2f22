/* Products of one token with packed weights (kernels/small.cuh): up to three weights in a launch,
 * the norm before them done on the way in. */
#include "base/alloc.h"
#include "base/diag.h"
#include "internal.h"

#define TABLE_BYTES 65536u
#define UNIT_BYTES 144u
#define SUMS_BYTES 40960u /* most shared memory that a block's sums may take */

/* Names by [bits][k-steps a scale covers]; "r" takes any number of columns. */
#define NAMES(bits)                                                                        \
  {                                                                                        \
    "lqt_matmul_cb" #bits "s0r_f16_m1__sm80", "lqt_matmul_cb" #bits "s1r_f16_m1__sm80",    \
        "lqt_matmul_cb" #bits "s2r_f16_m1__sm80", "lqt_matmul_cb" #bits "s4r_f16_m1__sm80" \
  }
static const char *const names[4][4] = {NAMES(2), NAMES(3), NAMES(4), NAMES(8)};
/* Group size 64 and more, whole blocks of columns. */
static const char *const whole_names[4] = {
    "lqt_matmul_cb2s4_f16_m1__sm80", "lqt_matmul_cb3s4_f16_m1__sm80",
    "lqt_matmul_cb4s4_f16_m1__sm80", "lqt_matmul_cb8s4_f16_m1__sm80"};

static uint32_t min32(uint32_t a, uint32_t b) { return a < b ? a : b; }
static uint32_t warps_of(uint32_t bits) { return bits == 8 ? 24 : 16; }

static const char *name_of(const lqt__cu_weight *weight, uint32_t bits) {
  const uint32_t steps = lqt__cu_steps_slot(&weight->view);
  return steps == 3 && weight->last_units == 8 ? whole_names[lqt__cu_bits_slot(bits)]
                                               : names[lqt__cu_bits_slot(bits)][steps];
}

/* Shared memory: the table, the activations, and the sums, whose first floats also serve the norm.
 */
static uint32_t base_bytes(uint32_t blocks) { return TABLE_BYTES + blocks * 8 * UNIT_BYTES; }
static uint32_t sums_bytes(uint32_t tiles, uint32_t blocks) {
  const uint32_t bytes = tiles * blocks * 64;
  return bytes > 128 ? bytes : 128;
}

bool lqt__cu_single_fits(const lqt__cu_device *device, const lqt__cu_weight *weight) {
  const uint32_t blocks = weight->view.blocks;
  return base_bytes(blocks) + sums_bytes(1, blocks) <= device->shared_limit;
}

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

/* Gives each of `count` weights blocks so that the most tiles of a block are few. */
static void share_blocks(lqt__cu_small3 *args, size_t count, uint32_t blocks) {
  uint32_t share[3] = {1, 1, 1};
  for (uint32_t left = blocks - (uint32_t)count; left > 0; left--) {
    size_t worst = 0;
    for (size_t i = 1; i < count; i++) {
      if ((uint64_t)args->w[i].tiles * share[worst] > (uint64_t)args->w[worst].tiles * share[i]) {
        worst = i;
      }
    }
    share[worst]++;
  }
  args->first[0] = 0;
  for (size_t i = 0; i < 3; i++) args->first[i + 1] = args->first[i] + (i < count ? share[i] : 0);
}

static uint32_t most_tiles(const lqt__cu_small3 *args, size_t count) {
  uint32_t most = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t blocks = args->first[i + 1] - args->first[i];
    uint32_t tiles = (args->w[i].tiles + blocks - 1) / blocks;
    if (tiles > most) most = tiles;
  }
  return most;
}

/* Chooses the grid for `count` weights of one kind that fit; false: the sums of a block take too
 * much. Devices of 8.6 and 8.9 have hardly more shared memory than the table takes. */
static bool place_blocks(const lqt__cu_device *device, lqt__cu_small3 *args, size_t count) {
  const uint32_t blocks = args->w[0].blocks;
  const uint32_t room = device->shared_limit - base_bytes(blocks);
  uint32_t tiles = 0, most = min32(SUMS_BYTES, room) / (blocks * 64);
  for (size_t i = 0; i < count; i++) tiles += args->w[i].tiles;
  uint32_t grid = min32(device->multiprocessors, tiles);
  if (grid < count) return false;
  share_blocks(args, count, grid);
  if (most_tiles(args, count) <= most) return true;
  if (count > 1) return false;
  if (most == 0) most = 1;
  args->first[1] = args->first[2] = args->first[3] = (tiles + most - 1) / most;
  return true;
}

static lqt_status launch(lqt__cu_device *device, const lqt__cu_weight *weight, uint32_t bits,
                         lqt__cu_small3 *args, size_t count, lqt_diag *diag) {
  const uint32_t warps = warps_of(bits);
  for (size_t i = 0; i < 3; i++) {
    if (i >= count) args->w[i] = args->w[0];
    args->w[i].warps_k = split_warps(warps, args->w[i].blocks);
  }
  lqt__cu_launch launch = {.module = (lqt__cu_module)(LQT__CU_SMALL2 + lqt__cu_bits_slot(bits)),
                           .name = name_of(weight, bits),
                           .grid = {args->first[count], 1, 1},
                           .threads = warps * 32,
                           .shared = base_bytes(args->w[0].blocks) +
                                     sums_bytes(most_tiles(args, count), args->w[0].blocks),
                           .args = args,
                           .overlap = true};
  return lqt__cu_run(device, &launch, diag);
}

lqt_status lqt__cu_single_stream(lqt__cu_device *device, const lqt__cu_weight *weight,
                                 const lqt__cu_stream *stream, const lqt__cu_small *args,
                                 lqt_diag *diag) {
  lqt__cu_small3 all = {.w = {*args}};
  (void)place_blocks(device, &all, 1);
  return launch(device, weight, stream->weight_bits, &all, 1, diag);
}

const char *lqt__cu_single_variant(const lqt__cu_weight *weight, uint32_t bits) {
  return name_of(weight, bits);
}

bool lqt__cu_is_single(const lqt__cu_device *device, const lqt_op *op) {
  if (op->kind != LQT_OP_MATMUL || op->in[0].rows != 1 || op->in[0].dtype != LQT_DTYPE_F16) {
    return false;
  }
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    const lqt__cu_weight *weight = (const lqt__cu_weight *)op->weight[i];
    if (weight == NULL) continue;
    if (!weight->fused || weight->view.has_residual || weight->view.delta_kind != LQT_DELTA_NONE ||
        !lqt__cu_single_fits(device, weight)) {
      return false;
    }
  }
  return true;
}

/* Do all weights of the op go through the same kernel? */
static bool one_kind(const lqt_op *op, size_t count) {
  const lqt__cu_weight *first = (const lqt__cu_weight *)op->weight[0];
  for (size_t i = 1; i < count; i++) {
    const lqt__cu_weight *weight = (const lqt__cu_weight *)op->weight[i];
    if (weight->view.main.weight_bits != first->view.main.weight_bits ||
        lqt__cu_steps_slot(&weight->view) != lqt__cu_steps_slot(&first->view)) {
      return false;
    }
  }
  return true;
}

lqt_status lqt__cu_single(lqt__cu_device *device, const lqt_op *op, const lqt__cu_front *front,
                          lqt_diag *diag) {
  lqt__cu_small3 args = {0};
  size_t count = 0;
  while (count < LQT_OP_MAX_OUT && op->weight[count] != NULL) {
    const lqt__cu_weight *weight = (const lqt__cu_weight *)op->weight[count];
    lqt__cu_small *w = &args.w[count];
    *w = lqt__cu_small_args(weight, &weight->view.main);
    w->m = 1;
    w->x = front->x;
    w->gain = front->gain;
    w->norm_out = count == 0 ? front->norm_out : 0;
    w->eps = front->eps;
    w->y = lqt__cu_address(&op->out[count]);
    w->bias = lqt__cu_address(&op->in[count + 1]);
    w->accumulate = op->accumulate;
    w->scale = weight->view.scale;
    count++;
  }
  const lqt__cu_weight *first = (const lqt__cu_weight *)op->weight[0];
  if (one_kind(op, count) && place_blocks(device, &args, count)) {
    return launch(device, first, first->view.main.weight_bits, &args, count, diag);
  }
  for (size_t i = 0; i < count; i++) {
    const lqt__cu_weight *weight = (const lqt__cu_weight *)op->weight[i];
    LQT__TRY(lqt__cu_single_stream(device, weight, &weight->view.main, &args.w[i], diag));
  }
  return LQT_OK;
}
