#include "random_weight.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"

static void *block(random_weight *w, size_t bytes) {
  void *p = calloc(1, bytes + 64);
  if (p == NULL) abort();
  return w->blocks[w->count++] = p;
}

static float uniform(lqt__random *r) { return (float)lqt__random_unit(r); }

static lqt_index_view make_indices(random_weight *w, unsigned bits, unsigned dim, unsigned entries,
                                   lqt__random *random) {
  const lqt_weight_desc *d = &w->desc;
  uint64_t count = (d->cols + dim - 1) / dim;
  lqt_index_view view = {.row_stride = (count * bits + 127) / 128 * 16, .bits = bits};
  uint8_t *data = block(w, d->rows * view.row_stride);
  for (uint64_t r = 0; r < d->rows; r++) {
    for (uint64_t i = 0; i < count; i++) {
      uint32_t value = lqt__random_below(random, entries);
      for (unsigned b = 0; b < bits; b++) {
        uint64_t bit = i * bits + b;
        data[r * view.row_stride + bit / 8] |= (uint8_t)((value >> b & 1u) << (bit % 8));
      }
    }
  }
  view.data = data;
  return view;
}

static void put_value(void *values, lqt_dtype dtype, uint64_t i, float value) {
  if (dtype == LQT_DTYPE_F32) {
    ((float *)values)[i] = value;
  } else {
    ((uint16_t *)values)[i] =
        dtype == LQT_DTYPE_F16 ? lqt__f16_from_f32(value) : lqt__bf16_from_f32(value);
  }
}

static lqt_codebook_view make_codebook(random_weight *w, unsigned entries, unsigned dim, bool f32,
                                       unsigned banks, float mean, lqt__random *random) {
  lqt_codebook_view view = {.dtype = f32 ? LQT_DTYPE_F32 : LQT_DTYPE_F16,
                            .entries = entries,
                            .vector_dim = dim,
                            .banks = banks,
                            .bank_stride = (uint64_t)entries * dim};
  void *values = block(w, banks * view.bank_stride * 4);
  for (uint64_t i = 0; i < banks * view.bank_stride; i++) {
    put_value(values, view.dtype, i, mean + lqt__random_normal(random));
  }
  view.vectors = values;
  return view;
}

static void make_csr(random_weight *w, const weight_kind *kind, lqt__random *random) {
  lqt_weight_desc *d = &w->desc;
  uint32_t *row_ptr = block(w, (d->rows + 1) * 4);
  uint64_t most = d->rows * d->cols;
  uint32_t *columns = block(w, most * 4);
  uint16_t *columns16 = block(w, most * 2);
  uint64_t n = 0;
  for (uint64_t r = 0; r < d->rows; r++) {
    for (uint64_t c = 0; c < d->cols; c++) {
      if (lqt__random_below(random, 20) != 0) continue;
      columns[n] = (uint32_t)c;
      columns16[n++] = (uint16_t)c;
    }
    row_ptr[r + 1] = (uint32_t)n;
  }
  void *values = block(w, n * 4);
  for (uint64_t i = 0; i < n; i++) {
    put_value(values, kind->delta_dtype, i, 3 * lqt__random_normal(random));
  }
  d->delta = (lqt_delta_view){.kind = LQT_DELTA_CSR,
                              .dtype = kind->delta_dtype,
                              .values = values,
                              .row_ptr = row_ptr,
                              .count = n};
  if (kind->wide_columns) {
    d->delta.columns = columns;
  } else {
    d->delta.columns16 = columns16;
  }
}

static void make_groups(random_weight *w, const weight_kind *kind, lqt__random *random) {
  lqt_weight_desc *d = &w->desc;
  d->group_size = kind->group;
  d->group_row_stride = (d->cols + kind->group - 1) / kind->group + lqt__random_below(random, 3);
  uint16_t *scales = block(w, d->rows * d->group_row_stride * 2);
  uint16_t *zeros = block(w, d->rows * d->group_row_stride * 2);
  for (uint64_t i = 0; i < d->rows * d->group_row_stride; i++) {
    scales[i] = lqt__f16_from_f32(0.01f + 0.02f * uniform(random));
    zeros[i] = lqt__f16_from_f32(uniform(random));
  }
  d->group_scales = scales;
  if (kind->zero_points) d->zero_points = zeros;
}

void random_weight_make(random_weight *out, const weight_kind *kind, uint64_t rows, uint64_t cols,
                        lqt__random *random) {
  memset(out, 0, sizeof *out);
  lqt_weight_desc *d = &out->desc;
  *d = (lqt_weight_desc){.size = sizeof *d,
                         .dtype = kind->dtype,
                         .rows = rows,
                         .cols = cols,
                         .scale = 0.5f + uniform(random)};
  if (kind->dtype == LQT_DTYPE_CODEBOOK) {
    unsigned entries = kind->entries != 0 ? kind->entries : 1u << kind->bits;
    unsigned banks = kind->row_scope ? (unsigned)rows : 1;
    d->bank_rows = kind->row_scope ? 1 : rows;
    d->bank_cols = cols;
    d->codebook =
        make_codebook(out, entries, kind->dim, kind->f32_codebook, banks, kind->mean, random);
    d->indices = make_indices(out, kind->bits, kind->dim, entries, random);
    if (kind->residual_bits != 0) {
      unsigned more = 1u << kind->residual_bits;
      d->residual = make_codebook(out, more, kind->residual_dim, false, 1, 0.0f, random);
      d->residual_indices =
          make_indices(out, kind->residual_bits, kind->residual_dim, more, random);
      d->residual_scale = 0.25f;
    }
    if (kind->group != 0) make_groups(out, kind, random);
  } else {
    size_t size = lqt_dtype_size(kind->dtype);
    d->row_stride = (cols * size + 15) / 16 * 16;
    uint8_t *data = block(out, rows * d->row_stride);
    for (uint64_t r = 0; r < rows; r++) {
      for (uint64_t c = 0; c < cols; c++) {
        put_value(data + r * d->row_stride, kind->dtype, c, lqt__random_normal(random));
      }
    }
    d->data = data;
  }
  if (kind->delta == LQT_DELTA_CSR) make_csr(out, kind, random);
  if (kind->mask) {
    d->mask.row_stride = (cols + 63) / 64 * 8;
    uint8_t *bits = block(out, rows * d->mask.row_stride);
    for (uint64_t i = 0; i < rows * d->mask.row_stride; i++) {
      bits[i] = (uint8_t)lqt__random_u64(random);
    }
    d->mask.bits = bits;
  }
}

void random_weight_free(random_weight *weight) {
  for (unsigned i = 0; i < weight->count; i++) free(weight->blocks[i]);
}

static double value_at(const void *values, lqt_dtype dtype, uint64_t i) {
  if (dtype == LQT_DTYPE_F32) return ((const float *)values)[i];
  uint16_t half = ((const uint16_t *)values)[i];
  return dtype == LQT_DTYPE_F16 ? lqt__f32_from_f16(half) : lqt__f32_from_bf16(half);
}

static double entry(const lqt_codebook_view *book, const lqt_index_view *view, uint64_t bank,
                    uint64_t row, uint64_t col) {
  uint64_t i = col / book->vector_dim;
  uint32_t index = 0;
  for (unsigned b = 0; b < view->bits; b++) {
    uint64_t bit = i * view->bits + b;
    index |= (uint32_t)(view->data[row * view->row_stride + bit / 8] >> (bit % 8) & 1u) << b;
  }
  return value_at(book->vectors, book->dtype,
                  bank * book->bank_stride + index * book->vector_dim + col % book->vector_dim);
}

double random_weight_at(const lqt_weight_desc *d, uint64_t row, uint64_t col) {
  double value;
  if (d->dtype == LQT_DTYPE_CODEBOOK) {
    uint64_t bank =
        row / d->bank_rows * ((d->cols + d->bank_cols - 1) / d->bank_cols) + col / d->bank_cols;
    value = entry(&d->codebook, &d->indices, bank, row, col);
    if (d->residual.vectors != NULL) {
      value += d->residual_scale * entry(&d->residual, &d->residual_indices, 0, row, col);
    }
    if (d->group_size != 0) {
      uint64_t g = row * d->group_row_stride + col / d->group_size;
      if (d->zero_points != NULL) value -= lqt__f32_from_f16(d->zero_points[g]);
      if (d->group_scales != NULL) value *= lqt__f32_from_f16(d->group_scales[g]);
    }
  } else {
    const uint8_t *data = d->data;
    value = value_at(data + row * d->row_stride, d->dtype, col);
  }
  value *= d->scale;
  if (d->delta.kind == LQT_DELTA_CSR) {
    for (uint32_t i = d->delta.row_ptr[row]; i < d->delta.row_ptr[row + 1]; i++) {
      uint32_t at = d->delta.columns != NULL ? d->delta.columns[i] : d->delta.columns16[i];
      if (at == col) value += value_at(d->delta.values, d->delta.dtype, i);
    }
  }
  if (d->mask.bits != NULL) {
    value *= d->mask.bits[row * d->mask.row_stride + col / 8] >> (col % 8) & 1;
  }
  return value;
}

double *random_weight_product(const lqt_weight_desc *d, const float *x, uint64_t x_stride,
                              uint64_t tokens) {
  double *y = calloc(tokens * d->rows, sizeof *y);
  if (y == NULL) abort();
  for (uint64_t r = 0; r < d->rows; r++) {
    for (uint64_t c = 0; c < d->cols; c++) {
      double value = random_weight_at(d, r, c);
      for (uint64_t t = 0; t < tokens; t++) y[t * d->rows + r] += value * x[t * x_stride + c];
    }
  }
  return y;
}

float *random_floats(uint64_t count, bool normal, lqt__random *random) {
  float *out = malloc(count * sizeof *out);
  if (out == NULL) abort();
  for (uint64_t i = 0; i < count; i++) {
    out[i] = normal ? lqt__random_normal(random) : 2 * uniform(random) - 1;
  }
  return out;
}

double relative_error(const float *a, uint64_t a_stride, const double *b, uint64_t tokens,
                      uint64_t rows) {
  double error = 0, size = 0;
  for (uint64_t t = 0; t < tokens; t++) {
    for (uint64_t r = 0; r < rows; r++) {
      double d = a[t * a_stride + r] - b[t * rows + r];
      error += d * d;
      size += b[t * rows + r] * b[t * rows + r];
    }
  }
  return size > 0 ? sqrt(error / size) : sqrt(error); /* all masked: must be exactly zero */
}
