/* Products. Weights with a repacked form go to the fused kernels; the others are reconstructed a
 * block of rows at a time and multiplied in float32. */
#include <string.h>

#include "base/diag.h"
#include "cpu.h"

enum {
  FEW_TOKENS = 6, /* up to here: dot products, weights read once from memory */
  ROW_BLOCK = 48, /* rows of a task: a multiple of every register tile's rows */
  DEPTH = 512,    /* columns of a reconstructed block: it and a panel stay in the L2 cache */
  TILE_STRIDE = DEPTH + 16, /* not a power of two: rows fall into different cache sets */
};
static const size_t panel_bytes = (size_t)16 << 20; /* packed activations at a time */

typedef struct product {
  const lqt__cpu_weight *weight;
  const float *x, *bias;
  float *y;
  size_t x_stride, y_stride, tokens, rows, depth;
  bool accumulate;
  const lqt__cpu_kernels *kernels;
  float *panels;                /* many tokens: [panel][depth][lanes] */
  float *scratch;               /* a worker's part each */
  size_t worker_floats, padded; /* padded: tokens in whole vectors */
  size_t values_stride;         /* few tokens: between reconstructed rows */
} product;

/* The weight's rows can be multiplied as they lie in memory. */
static bool is_plain(const lqt_weight_desc *canon) {
  return canon->dtype != LQT_DTYPE_CODEBOOK && canon->delta.kind == LQT_DELTA_NONE &&
         canon->mask.bits == NULL;
}

static void put(const product *p, size_t token, size_t row, float value) {
  float *y = p->y + token * p->y_stride + row;
  if (p->bias != NULL) value += p->bias[row];
  *y = p->accumulate ? *y + value : value;
}

/* Four rows at a time; the last ones are done again beside repeated rows. */
static void few_rows(const product *p, size_t row, size_t rows, float *values) {
  const lqt_weight_desc *canon = &p->weight->canon;
  bool plain = is_plain(canon) && rows == 4;
  size_t size = lqt_dtype_size(canon->dtype), stride = p->values_stride;
  const void *w = values;
  if (plain) {
    w = (const uint8_t *)canon->data + row * canon->row_stride;
    stride = canon->row_stride / size;
  } else {
    for (size_t r = 0; r < 4; r++) {
      size_t from = r < rows ? r : rows - 1;
      lqt__cpu_weight_row(p->weight, p->kernels, row + from, 0, p->depth, values + r * stride);
    }
  }
  float scale = plain ? canon->scale : 1.0f;
  for (size_t t = 0; t < p->tokens; t += 4) {
    unsigned take = p->tokens - t < 4 ? (unsigned)(p->tokens - t) : 4;
    float sums[16];
    p->kernels->dot(w, stride, plain ? canon->dtype : LQT_DTYPE_F32, p->x + t * p->x_stride,
                    p->x_stride, take, p->depth, sums);
    for (unsigned i = 0; i < take; i++) {
      for (size_t r = 0; r < rows; r++) put(p, t + i, row + r, sums[4 * i + r] * scale);
    }
  }
}

static void few_task(void *context, size_t task, unsigned worker) {
  const product *p = context;
  float *values = p->scratch + worker * p->worker_floats;
  size_t end = (task + 1) * ROW_BLOCK < p->rows ? (task + 1) * ROW_BLOCK : p->rows;
  for (size_t row = task * ROW_BLOCK; row < end; row += 4) {
    few_rows(p, row, end - row < 4 ? end - row : 4, values);
  }
}

/* Panel q holds tokens [q * lanes, (q + 1) * lanes), one vector a column; the last may be half. */
static void pack_task(void *context, size_t task, unsigned worker) {
  (void)worker;
  const product *p = context;
  size_t lanes = 2 * p->kernels->width, first = task * lanes;
  size_t width = p->padded - first < lanes ? p->padded - first : lanes;
  float *panel = p->panels + first * p->depth;
  enum { BLOCK = 16 };
  for (size_t k = 0; k < p->depth; k += BLOCK) {
    size_t end = k + BLOCK < p->depth ? k + BLOCK : p->depth;
    for (size_t lane = 0; lane < width; lane++) {
      const float *x = p->x + (first + lane) * p->x_stride;
      bool real = first + lane < p->tokens;
      for (size_t i = k; i < end; i++) panel[i * width + lane] = real ? x[i] : 0.0f;
    }
  }
}

static void store_block(const product *p, const float *sums, size_t row, size_t rows) {
  enum { BLOCK = 16 };
  for (size_t t = 0; t < p->tokens; t += BLOCK) {
    size_t end = t + BLOCK < p->tokens ? t + BLOCK : p->tokens;
    for (size_t i = t; i < end; i++) {
      for (size_t r = 0; r < rows; r++) put(p, i, row + r, sums[r * p->padded + i]);
    }
  }
}

static void many_task(void *context, size_t task, unsigned worker) {
  const product *p = context;
  size_t lanes = 2 * p->kernels->width, row = task * ROW_BLOCK;
  size_t rows = p->rows - row < ROW_BLOCK ? p->rows - row : ROW_BLOCK;
  float *tile = p->scratch + worker * p->worker_floats;
  float *sums = tile + ROW_BLOCK * TILE_STRIDE;
  for (size_t k = 0; k < p->depth; k += DEPTH) {
    size_t depth = p->depth - k < DEPTH ? p->depth - k : DEPTH;
    for (size_t r = 0; r < rows; r++) {
      lqt__cpu_weight_row(p->weight, p->kernels, row + r, k, depth, tile + r * TILE_STRIDE);
    }
    for (size_t first = 0; first < p->padded; first += lanes) {
      size_t width = p->padded - first < lanes ? p->padded - first : lanes;
      p->kernels->tile(tile, TILE_STRIDE, 1, p->panels + first * p->depth + k * width, width, depth,
                       sums + first, p->padded, rows, (unsigned)(width / p->kernels->width),
                       k != 0);
    }
  }
  store_block(p, sums, row, rows);
}

static size_t task_count(const product *p) { return (p->rows + ROW_BLOCK - 1) / ROW_BLOCK; }

static lqt_status few_tokens(lqt__cpu_device *device, product *p, lqt_diag *diag) {
  size_t workers = lqt__pool_threads(device->pool);
  p->values_stride = (p->depth + 47) & ~(size_t)15;
  p->worker_floats = 4 * p->values_stride;
  size_t bytes = workers * p->worker_floats * sizeof(float);
  p->scratch = lqt__cpu_scratch(device, bytes);
  if (p->scratch == NULL) return lqt__fail_memory(diag, "matmul", bytes, "scratch");
  lqt__pool_run(device->pool, task_count(p), few_task, p);
  return LQT_OK;
}

static lqt_status many_tokens(lqt__cpu_device *device, product *p, lqt_diag *diag) {
  size_t workers = lqt__pool_threads(device->pool), width = p->kernels->width;
  size_t lanes = 2 * width, all = p->tokens;
  size_t batch = panel_bytes / (p->depth * sizeof(float)) / lanes * lanes;
  if (batch < 2 * lanes) batch = 2 * lanes;
  if (batch > all) batch = all;
  size_t most = (batch + width - 1) / width * width;
  p->worker_floats = ROW_BLOCK * TILE_STRIDE + ROW_BLOCK * most;
  size_t bytes = (workers * p->worker_floats + most * p->depth) * sizeof(float);
  p->scratch = lqt__cpu_scratch(device, bytes);
  if (p->scratch == NULL) return lqt__fail_memory(diag, "matmul", bytes, "scratch");
  p->panels = p->scratch + workers * p->worker_floats;
  for (size_t done = 0; done < all; done += p->tokens) {
    p->tokens = all - done < batch ? all - done : batch;
    p->padded = (p->tokens + width - 1) / width * width;
    lqt__pool_run(device->pool, (p->padded + lanes - 1) / lanes, pack_task, p);
    lqt__pool_run(device->pool, task_count(p), many_task, p);
    p->x += p->tokens * p->x_stride;
    p->y += p->tokens * p->y_stride;
  }
  return LQT_OK;
}

static lqt_status generic(lqt__cpu_device *device, const lqt_op *op, int index, lqt_diag *diag) {
  const lqt_view *in = &op->in[0], *out = &op->out[index], *bias = &op->in[index + 1];
  product p = {
      .weight = lqt__cpu_weight_of(op->weight[index]),
      .x = lqt__cpu_data(in),
      .bias = bias->buffer != NULL ? lqt__cpu_data(bias) : NULL,
      .y = lqt__cpu_data(out),
      .x_stride = in->row_stride,
      .y_stride = out->row_stride,
      .tokens = in->rows,
      .rows = out->cols,
      .depth = in->cols,
      .accumulate = op->accumulate,
      .kernels = device->kernels,
  };
  return p.tokens <= FEW_TOKENS ? few_tokens(device, &p, diag) : many_tokens(device, &p, diag);
}

lqt_status lqt__cpu_matmul(lqt__cpu_device *device, const lqt_op *op, lqt_diag *diag) {
  const lqt_view *in = &op->in[0];
  if (in->rows == 0) return LQT_OK;
  lqt__cpu_product products[LQT_OP_MAX_OUT];
  size_t count = 0;
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    if (op->weight[i] == NULL) continue;
    const lqt__cpu_weight *weight = lqt__cpu_weight_of(op->weight[i]);
    if (weight->fast == NULL) {
      LQT__TRY(generic(device, op, i, diag));
      continue;
    }
    const lqt_view *bias = &op->in[i + 1];
    products[count++] = (lqt__cpu_product){
        .weight = weight->fast,
        .y = lqt__cpu_data(&op->out[i]),
        .y_stride = op->out[i].row_stride,
        .bias = bias->buffer != NULL ? lqt__cpu_data(bias) : NULL,
        .accumulate = op->accumulate,
    };
  }
  if (count == 0) return LQT_OK;
  return lqt__cpu_fast_matmul(products, count, lqt__cpu_data(in), in->row_stride, in->rows,
                              device->pool, diag);
}
