#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"
#include "quant/quant.h"

/* Columns whose scales are chosen together and whose errors are fed on in one go. */
enum { BLOCK = 64 };

static uint64_t block_columns(const lqt__qspec *spec) {
  return spec->group_size > 0 ? spec->group_size : BLOCK;
}

uint64_t lqt__qspec_groups(const lqt__qspec *spec, uint64_t cols) {
  return spec->group_size > 0 ? lqt__ceil_div(cols, spec->group_size) : 0;
}

uint64_t lqt__qspec_vectors(const lqt__qspec *spec, uint64_t cols) {
  return lqt__ceil_div(cols, spec->dim);
}

static uint64_t padded_columns(const lqt__qspec *spec, uint64_t cols) {
  return lqt__ceil_div(cols, block_columns(spec)) * block_columns(spec);
}

lqt_status lqt__qstrip_create(const lqt__qspec *spec, uint64_t cols, lqt__qstrip *out,
                              lqt_diag *diag) {
  uint64_t padded = padded_columns(spec, cols), blocks = padded / block_columns(spec);
  size_t plane = (size_t)padded * LQT__LANES;
  size_t planes = spec->outliers > 0 ? 4 : 3;
  size_t bytes = plane * (planes * sizeof(float) + 3) +
                 ((size_t)blocks + (size_t)block_columns(spec)) * LQT__LANES * sizeof(float) +
                 sizeof(lqt__qlanes);
  *out = (lqt__qstrip){.memory = lqt__alloc_aligned(bytes, 64)};
  if (out->memory == NULL) return lqt__fail_memory(diag, NULL, bytes, "a strip of a matrix");
  float *at = out->memory;
  out->original = at;
  out->work = at + plane;
  out->decoded = at + 2 * plane;
  out->deltas = planes == 4 ? at + 3 * plane : NULL;
  out->scales = at + planes * plane;
  out->errors = out->scales + blocks * LQT__LANES;
  out->book = (lqt__qlanes *)(out->errors + block_columns(spec) * LQT__LANES);
  out->codes = (uint8_t *)(out->book + 1);
  out->residuals = out->codes + plane;
  out->kept = (bool *)(out->residuals + plane);
  memset(out->kept, 0, plane);
  return LQT_OK;
}

void lqt__qstrip_free(lqt__qstrip *strip) {
  lqt__free(strip->memory);
  *strip = (lqt__qstrip){0};
}

lqt_status lqt__qstrip_load(const lqt__qspec *spec, const lqt__qmatrix *matrix, uint64_t row,
                            lqt__qstrip *strip, lqt_diag *diag) {
  enum { CHUNK = 256 };
  float line[CHUNK], inverse = 1.0f / matrix->scale;
  uint64_t padded = padded_columns(spec, matrix->cols);
  memset(strip->original, 0, (size_t)padded * LQT__LANES * sizeof(float));
  for (uint64_t lane = 0; lane < LQT__LANES && row + lane < matrix->rows; lane++) {
    for (uint64_t c = 0; c < matrix->cols; c += CHUNK) {
      uint64_t n = matrix->cols - c < CHUNK ? matrix->cols - c : CHUNK;
      LQT__TRY(lqt__source_read(matrix->view, (row + lane) * matrix->cols + c, n, line, diag));
      float *out = strip->original + c * LQT__LANES + lane;
      for (uint64_t i = 0; i < n; i++) out[i * LQT__LANES] = line[i] * inverse;
    }
  }
  return LQT_OK;
}

/* What a column's error costs: with feedback the part that later columns cannot make up for. */
static void column_costs(const lqt__qmatrix *matrix, uint64_t first, uint64_t count, float *out) {
  for (uint64_t i = 0; i < count; i++) {
    uint64_t c = first + i;
    out[i] = 0;
    if (c >= matrix->cols) continue;
    float u = matrix->factor != NULL ? matrix->factor[c * matrix->cols + c] : 0;
    out[i] = matrix->factor != NULL ? 1.0f / (u * u) : matrix->importance[c];
  }
}

/* Inverse of the dim x dim diagonal block of the factor at column c: the metric in which the
 * nearest vector is the one that costs least. */
static void block_inverse(const lqt__qmatrix *matrix, uint64_t c, uint32_t dim, float *out) {
  float u[LQT__MAX_DIM][LQT__MAX_DIM];
  for (uint32_t i = 0; i < dim; i++) {
    for (uint32_t j = 0; j < dim; j++) {
      bool inside = c + i < matrix->cols && c + j < matrix->cols;
      u[i][j] = j < i ? 0 : inside ? matrix->factor[(c + i) * matrix->cols + c + j] : i == j;
    }
  }
  for (uint32_t j = 0; j < dim; j++) {
    for (uint32_t i = 0; i < dim; i++) out[i * dim + j] = 0;
    out[j * dim + j] = 1.0f / u[j][j];
    for (uint32_t i = j; i-- > 0;) {
      float sum = 0;
      for (uint32_t k = i + 1; k <= j; k++) sum += u[i][k] * out[k * dim + j];
      out[i * dim + j] = -sum / u[i][i];
    }
  }
}

typedef struct encoder {
  const lqt__qspec *spec;
  const lqt__qmatrix *matrix;
  lqt__qstrip *strip;
  const lqt__strip_ops *ops;
  uint64_t begin, end; /* columns of the block */
  float *scales;
} encoder;

/* What is left over is pushed onto the block's later columns, weighted by how the inputs of the
 * columns move together. Source: Frantar et al., "GPTQ" (2022), section 3. */
static void feed_back(const encoder *e, uint64_t c, const float *transform) {
  uint32_t dim = e->spec->dim;
  uint64_t cols = e->matrix->cols;
  for (uint32_t j = 0; j < dim && c + j < cols; j++) {
    float *error = e->strip->errors + (c + j - e->begin) * LQT__LANES;
    memset(error, 0, LQT__LANES * sizeof(float));
    for (uint32_t i = 0; i <= j; i++) {
      const float *w = e->strip->work + (c + i) * LQT__LANES;
      const float *d = e->strip->decoded + (c + i) * LQT__LANES;
      for (int l = 0; l < LQT__LANES; l++) error[l] += (w[l] - d[l]) * transform[i * dim + j];
    }
    uint64_t from = c + dim, to = e->end < cols ? e->end : cols;
    if (from >= to) continue;
    e->ops->subtract(e->strip->work + from * LQT__LANES, error,
                     e->matrix->factor + (c + j) * cols + from, (size_t)(to - from));
  }
}

static void encode_vector(const encoder *e, uint64_t c) {
  uint32_t dim = e->spec->dim;
  float transform[LQT__MAX_DIM * LQT__MAX_DIM] = {0};
  bool feedback = e->matrix->factor != NULL && c < e->matrix->cols;
  if (feedback) {
    block_inverse(e->matrix, c, dim, transform);
  } else {
    for (uint32_t j = 0; j < dim; j++) {
      transform[j * dim + j] = c + j < e->matrix->cols ? sqrtf(e->matrix->importance[c + j]) : 0;
    }
  }
  uint64_t vector = c / dim;
  float *w = e->strip->work + c * LQT__LANES, *decoded = e->strip->decoded + c * LQT__LANES;
  lqt__qlanes_nearest(e->strip->book, w, e->scales, dim > 1 ? transform : NULL,
                      e->strip->codes + vector * LQT__LANES,
                      e->strip->residuals + vector * LQT__LANES, decoded);
  const bool *kept = e->strip->kept + c * LQT__LANES;
  for (uint32_t i = 0; i < dim * LQT__LANES; i++) {
    decoded[i] *= e->scales[i % LQT__LANES];
    if (!kept[i]) continue;
    float delta = (w[i] - decoded[i]) * e->matrix->scale;
    delta = lqt__f32_from_f16(lqt__f16_from_f32(fminf(fmaxf(delta, -65504.0f), 65504.0f)));
    e->strip->deltas[c * LQT__LANES + i] = delta;
    decoded[i] += delta / e->matrix->scale;
  }
  if (feedback) feed_back(e, c, transform);
}

static void pick_block_scales(const encoder *e) {
  uint64_t count = e->end - e->begin;
  float costs[256], *copy = e->strip->errors;
  for (int l = 0; l < LQT__LANES; l++) e->scales[l] = 1;
  if (e->spec->group_size == 0) return;
  column_costs(e->matrix, e->begin, count, costs);
  /* A weight that the delta keeps has no say in the scale. */
  const float *w = e->strip->work + e->begin * LQT__LANES;
  const bool *kept = e->strip->kept + e->begin * LQT__LANES;
  for (uint64_t i = 0; i < count * LQT__LANES; i++) copy[i] = kept[i] ? 0 : w[i];
  lqt__qlanes_pick_scales(e->strip->book, e->spec->bits, copy, costs, (size_t)count, e->scales);
}

void lqt__qstrip_encode(const lqt__qspec *spec, const lqt__qmatrix *matrix, const lqt__qbook *book,
                        uint64_t row, lqt__qstrip *strip) {
  uint64_t cols = matrix->cols, padded = padded_columns(spec, cols), block = block_columns(spec);
  memcpy(strip->work, strip->original, (size_t)padded * LQT__LANES * sizeof(float));
  encoder e = {.spec = spec, .matrix = matrix, .strip = strip, .ops = lqt__strip_ops_get()};
  for (uint64_t begin = 0; begin < padded; begin += block) {
    e.begin = begin;
    e.end = begin + block;
    e.scales = strip->scales + begin / block * LQT__LANES;
    if (begin == 0 || (book->banks > 1 && begin % book->bank_cols == 0)) {
      lqt__qlanes_load(book, matrix->rows, row, begin, strip->book);
    }
    pick_block_scales(&e);
    for (uint64_t c = begin; c < e.end; c += spec->dim) encode_vector(&e, c);
    if (matrix->factor != NULL && e.end < cols) {
      e.ops->subtract_block(strip->work + e.end * LQT__LANES, strip->errors, (size_t)block,
                            matrix->factor + begin * cols + e.end, (size_t)cols,
                            (size_t)(cols - e.end));
    }
  }
}
