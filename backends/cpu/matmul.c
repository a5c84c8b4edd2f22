/* Products. Weights with a repacked form go to the fused kernels, and zero points and deltas beside
 * them are smaller products of their own; the other weights are reconstructed a block of rows at a
 * time and multiplied in float32. */
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "cpu.h"
#include "lookup_row.h"

enum {
  FEW_TOKENS = 6, /* up to here: dot products, weights read once from memory */
  ROW_BLOCK = 48, /* rows of a task: a multiple of every register tile's rows */
  DEPTH = 512,    /* columns of a reconstructed block: it and a panel stay in the L2 cache */
  TILE_STRIDE = DEPTH + 16, /* not a power of two: rows fall into different cache sets */
};
static const size_t panel_bytes = (size_t)16 << 20; /* packed activations at a time */

typedef struct product product;
struct product {
  const lqt__cpu_weight *weight;
  /* Rows that can be multiplied as they lie in memory; NULL: `row` makes them. */
  const void *plain;
  lqt_dtype plain_dtype;
  size_t plain_stride; /* elements */
  float plain_scale;
  /* Columns [col, col + n) of a row in float32. */
  void (*row)(const product *p, size_t row, size_t col, size_t n, float *out);
  const float *x, *bias;
  float *y;
  size_t x_stride, y_stride, tokens, rows, depth;
  bool accumulate;
  const lqt__cpu_kernels *kernels;
  float *panels;                /* many tokens: [panel][depth][lanes] */
  float *scratch;               /* a worker's part each */
  size_t worker_floats, padded; /* padded: tokens in whole vectors */
  size_t values_stride;         /* few tokens: between reconstructed rows */
};

static void weight_row(const product *p, size_t row, size_t col, size_t n, float *out) {
  lqt__cpu_weight_row(p->weight, p->kernels, row, col, n, out);
}

static void plain_row(const product *p, size_t row, size_t col, size_t n, float *out) {
  const size_t size = lqt_dtype_size(p->plain_dtype);
  const uint8_t *data = (const uint8_t *)p->plain + (row * p->plain_stride + col) * size;
  p->kernels->widen(data, p->plain_dtype, n, out);
  if (p->plain_scale != 1.0f) p->kernels->scale(out, p->plain_scale, n);
}

/* Minus what the zero points of a row's groups are beyond the centre of the fast product. */
static void zero_row(const product *p, size_t row, size_t col, size_t n, float *out) {
  const lqt_weight_desc *canon = &p->weight->canon;
  const uint64_t first = row * canon->group_row_stride + col;
  const float centre = lqt__cpu_fast_centre(p->weight->fast);
  for (size_t done = 0; done < n; done += 64) {
    float scales[64];
    const size_t take = n - done < 64 ? n - done : 64;
    p->kernels->widen(canon->zero_points + first + done, LQT_DTYPE_F16, take, out + done);
    if (canon->group_scales != NULL) {
      p->kernels->widen(canon->group_scales + first + done, LQT_DTYPE_F16, take, scales);
    }
    for (size_t i = 0; i < take; i++) {
      const float scale = canon->group_scales != NULL ? canon->scale * scales[i] : canon->scale;
      out[done + i] = scale * (centre - out[done + i]);
    }
  }
}

static void put(const product *p, size_t token, size_t row, float value) {
  float *y = p->y + token * p->y_stride + row;
  if (p->bias != NULL) value += p->bias[row];
  *y = p->accumulate ? *y + value : value;
}

/* Four rows at a time; the last ones are done again beside repeated rows. */
static void few_rows(const product *p, size_t row, size_t rows, float *values) {
  const bool plain = p->plain != NULL && rows == 4;
  const void *w = values;
  if (plain) {
    w = (const uint8_t *)p->plain + row * p->plain_stride * lqt_dtype_size(p->plain_dtype);
  } else {
    for (size_t r = 0; r < 4; r++) {
      p->row(p, row + (r < rows ? r : rows - 1), 0, p->depth, values + r * p->values_stride);
    }
  }
  const size_t stride = plain ? p->plain_stride : p->values_stride;
  const float scale = plain ? p->plain_scale : 1.0f;
  for (size_t t = 0; t < p->tokens; t += 4) {
    unsigned take = p->tokens - t < 4 ? (unsigned)(p->tokens - t) : 4;
    float sums[16];
    p->kernels->dot(w, stride, plain ? p->plain_dtype : LQT_DTYPE_F32, p->x + t * p->x_stride,
                    p->x_stride, take, p->depth, sums);
    for (unsigned i = 0; i < take; i++) {
      for (size_t r = 0; r < rows; r++) put(p, t + i, row + r, sums[4 * i + r] * scale);
    }
  }
}

/* The row of the canonical weight as the lookup kernel wants it; false when it has other parts. */
static bool lookup_row(const product *p, lqt__lookup_row *out) {
#if defined(__x86_64__)
  if (p->row != weight_row || p->kernels != &lqt__cpu_kernels_avx512) return false;
  const lqt_weight_desc *canon = &p->weight->canon;
  if (canon->dtype != LQT_DTYPE_CODEBOOK || canon->codebook.vector_dim != 1 ||
      canon->indices.bits > 4 || canon->indices.data == NULL || canon->residual.vectors != NULL ||
      canon->zero_points != NULL || canon->delta.kind != LQT_DELTA_NONE ||
      canon->mask.bits != NULL || (canon->bank_cols % 16 != 0 && canon->bank_cols < canon->cols)) {
    return false;
  }
  *out = (lqt__lookup_row){.bits = canon->indices.bits,
                           .bank_cols = canon->bank_cols,
                           .bank_stride = canon->codebook.bank_stride,
                           .group = canon->group_size,
                           .n = p->depth};
  return true;
#else
  (void)p, (void)out;
  return false;
#endif
}

static void lookup_rows(const product *p, lqt__lookup_row *lookup, size_t row, size_t end) {
#if defined(__x86_64__)
  const lqt_weight_desc *canon = &p->weight->canon;
  const uint64_t banks = lqt__ceil_div(canon->cols, canon->bank_cols);
  for (; row < end; row++) {
    lookup->indices = canon->indices.data + row * canon->indices.row_stride;
    lookup->table = (const float *)canon->codebook.vectors +
                    row / canon->bank_rows * banks * canon->codebook.bank_stride;
    if (canon->group_scales != NULL) {
      lookup->scales = canon->group_scales + row * canon->group_row_stride;
    }
    for (size_t t = 0; t < p->tokens; t += LQT__LOOKUP_TOKENS) {
      float sums[LQT__LOOKUP_TOKENS];
      const size_t left = p->tokens - t;
      const unsigned take = left < LQT__LOOKUP_TOKENS ? (unsigned)left : LQT__LOOKUP_TOKENS;
      lqt__lookup_row_dot_avx512(lookup, p->x + t * p->x_stride, p->x_stride, take, sums);
      for (unsigned i = 0; i < take; i++) put(p, t + i, row, sums[i] * canon->scale);
    }
  }
#else
  (void)p, (void)lookup, (void)row, (void)end;
#endif
}

static void few_task(void *context, size_t task, unsigned worker) {
  const product *p = context;
  float *values = p->scratch + worker * p->worker_floats;
  size_t end = (task + 1) * ROW_BLOCK < p->rows ? (task + 1) * ROW_BLOCK : p->rows;
  lqt__lookup_row lookup;
  if (lookup_row(p, &lookup)) {
    lookup_rows(p, &lookup, task * ROW_BLOCK, end);
    return;
  }
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
      p->row(p, row + r, k, depth, tile + r * TILE_STRIDE);
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

static lqt_status multiply(lqt__cpu_device *device, product *p, lqt_diag *diag) {
  return p->tokens <= FEW_TOKENS ? few_tokens(device, p, diag) : many_tokens(device, p, diag);
}

/* What the products of one output have in common. */
static product product_of(lqt__cpu_device *device, const lqt_op *op, int index) {
  const lqt_view *in = &op->in[0], *out = &op->out[index], *bias = &op->in[index + 1];
  return (product){
      .weight = lqt__cpu_weight_of(op->weight[index]),
      .row = weight_row,
      .plain_scale = 1.0f,
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
}

static void set_plain(product *p, const void *data, lqt_dtype dtype, size_t stride) {
  p->plain = data;
  p->plain_dtype = dtype;
  p->plain_stride = stride;
  p->row = plain_row;
}

static lqt_status generic(lqt__cpu_device *device, const lqt_op *op, int index, lqt_diag *diag) {
  product p = product_of(device, op, index);
  const lqt_weight_desc *canon = &p.weight->canon;
  if (canon->dtype != LQT_DTYPE_CODEBOOK && canon->delta.kind == LQT_DELTA_NONE &&
      canon->mask.bits == NULL) {
    set_plain(&p, canon->data, canon->dtype, canon->row_stride / lqt_dtype_size(canon->dtype));
    p.plain_scale = canon->scale;
  }
  return multiply(device, &p, diag);
}

/* ---- Parts of a weight that are products of their own, added to the fast one. ---- */

/* Sums of `group` columns each take the place of the activations. */
static lqt_status sum_groups(lqt__cpu_device *device, product *p, size_t group, lqt_diag *diag) {
  const size_t groups = lqt__ceil_div(p->depth, group);
  const size_t bytes = p->tokens * groups * sizeof(float);
  float *sums = lqt__cpu_side_scratch(device, bytes);
  if (sums == NULL) return lqt__fail_memory(diag, "matmul", bytes, "sums of activations");
  for (size_t t = 0; t < p->tokens; t++) {
    const float *x = p->x + t * p->x_stride;
    for (size_t g = 0; g < groups; g++) {
      const size_t end = (g + 1) * group < p->depth ? (g + 1) * group : p->depth;
      float part[8] = {0};
      size_t k = g * group;
      for (; k + 8 <= end; k += 8) {
        for (size_t i = 0; i < 8; i++) part[i] += x[k + i];
      }
      for (; k < end; k++) part[k % 8] += x[k];
      sums[t * groups + g] =
          ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7]));
    }
  }
  p->x = sums;
  p->x_stride = p->depth = groups;
  return LQT_OK;
}

/* x B^T, which takes the place of the activations. */
static lqt_status project(lqt__cpu_device *device, product *p, lqt_diag *diag) {
  const lqt_delta_view *delta = &p->weight->canon.delta;
  const size_t bytes = p->tokens * delta->rank * sizeof(float);
  float *out = lqt__cpu_side_scratch(device, bytes);
  if (out == NULL) return lqt__fail_memory(diag, "matmul", bytes, "a low-rank product");
  product low = *p;
  low.y = out;
  low.y_stride = low.rows = delta->rank;
  low.accumulate = false;
  set_plain(&low, delta->values_b, delta->dtype, p->depth);
  LQT__TRY(multiply(device, &low, diag));
  p->x = out;
  p->x_stride = p->depth = delta->rank;
  return LQT_OK;
}

static lqt_status side_products(lqt__cpu_device *device, const lqt_op *op, int index,
                                lqt_diag *diag) {
  product all = product_of(device, op, index);
  const lqt__cpu_weight *weight = all.weight;
  const lqt_delta_view *delta = &weight->canon.delta;
  all.accumulate = true;
  all.bias = NULL;
  if (weight->side_zero) {
    product p = all;
    p.row = zero_row;
    LQT__TRY(sum_groups(device, &p, weight->canon.group_size, diag));
    LQT__TRY(multiply(device, &p, diag));
  }
  if (!weight->side_delta) return LQT_OK;
  switch (delta->kind) {
    case LQT_DELTA_GROUPED:
      LQT__TRY(sum_groups(device, &all, delta->group, diag));
      break;
    case LQT_DELTA_LOW_RANK:
      LQT__TRY(project(device, &all, diag));
      break;
    default:
      break;
  }
  set_plain(&all, delta->values, delta->dtype, all.depth);
  return multiply(device, &all, diag);
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
  LQT__TRY(lqt__cpu_fast_matmul(products, count, lqt__cpu_data(in), in->row_stride, in->rows,
                                device->pool, diag));
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    const lqt__cpu_weight *weight =
        op->weight[i] != NULL ? lqt__cpu_weight_of(op->weight[i]) : NULL;
    if (weight != NULL && weight->fast != NULL && (weight->side_zero || weight->side_delta)) {
      LQT__TRY(side_products(device, op, i, diag));
    }
  }
  return LQT_OK;
}
