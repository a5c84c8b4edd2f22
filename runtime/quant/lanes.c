#include <math.h>
#include <string.h>

#include "base/half.h"
#include "quant/quant.h"

enum { RESIDUAL_SEARCH = 16 }; /* up to so many residual entries every pair is tried */

void lqt__qlanes_load(const lqt__qbook *book, uint64_t rows, uint64_t row, uint64_t col,
                      lqt__qlanes *out) {
  uint64_t size = (uint64_t)book->entries * book->dim;
  if (book->banks == 1) {
    lqt__lane_book_set(&out->primary, book->entries, book->dim, book->values, -1);
  } else {
    uint64_t across = book->banks / lqt__ceil_div(rows, book->bank_rows);
    for (int lane = 0; lane < LQT__LANES; lane++) {
      uint64_t r = row + (uint64_t)lane < rows ? row + (uint64_t)lane : rows - 1;
      uint64_t bank = r / book->bank_rows * across + col / book->bank_cols;
      lqt__lane_book_set(&out->primary, book->entries, book->dim, book->values + bank * size, lane);
    }
  }
  out->residual.entries = 0;
  if (book->residual_entries == 0) return;
  float scaled[LQT__MAX_ENTRIES * LQT__MAX_DIM];
  for (uint32_t i = 0; i < book->residual_entries * book->dim; i++) {
    scaled[i] = book->residual_scale * book->residual[i];
  }
  lqt__lane_book_set(&out->residual, book->residual_entries, book->dim, scaled, -1);
}

static float round_f16(float value) { return lqt__f32_from_f16(lqt__f16_from_f32(value)); }

/* 1/scale; 0 where there is no scale, which makes every weight a zero. */
static void invert(const float *scales, float *out) {
  for (int l = 0; l < LQT__LANES; l++) out[l] = scales[l] != 0 ? 1.0f / scales[l] : 0;
}

typedef struct search {
  const lqt__qlanes *book;
  const lqt__strip_ops *ops;
  const float *w, *importance;
  size_t columns;
  float best[LQT__LANES], scale[LQT__LANES];
} search;

/* Scores the codes that `scales` lead to by their least-squares scale, which is kept when it is the
 * best so far. The error is sum a x x - (sum a x c)^2 / sum a c c. */
static void try_scales(search *s, const float *scales) {
  float inverse[LQT__LANES], xc[LQT__LANES], cc[LQT__LANES];
  invert(scales, inverse);
  s->ops->products(&s->book->primary, s->w, s->importance, s->columns, inverse, xc, cc);
  for (int l = 0; l < LQT__LANES; l++) {
    if (!(cc[l] > 0) || scales[l] == 0) continue;
    float score = xc[l] * xc[l] / cc[l];
    if (score <= s->best[l] || !isfinite(score)) continue;
    s->best[l] = score;
    s->scale[l] = xc[l] / cc[l];
  }
}

/* With a residual codebook the scale is fitted once more, to the sums of both entries. */
static void refit_residual(search *s) {
  float xc[LQT__LANES] = {0}, cc[LQT__LANES] = {0}, scales[LQT__LANES];
  for (int l = 0; l < LQT__LANES; l++) scales[l] = round_f16(s->scale[l]);
  for (size_t c = 0; c < s->columns; c += s->book->primary.dim) {
    uint8_t codes[LQT__LANES], residuals[LQT__LANES];
    float values[LQT__MAX_DIM * LQT__LANES];
    const float *x = s->w + c * LQT__LANES;
    lqt__qlanes_nearest(s->book, x, scales, NULL, codes, residuals, values);
    for (uint32_t j = 0; j < s->book->primary.dim; j++) {
      for (int l = 0; l < LQT__LANES; l++) {
        float v = values[j * LQT__LANES + (uint32_t)l] * s->importance[c + j];
        xc[l] += v * x[j * LQT__LANES + (uint32_t)l];
        cc[l] += v * values[j * LQT__LANES + (uint32_t)l];
      }
    }
  }
  for (int l = 0; l < LQT__LANES; l++) {
    if (cc[l] > 0 && isfinite(xc[l] / cc[l])) s->scale[l] = xc[l] / cc[l];
  }
}

void lqt__qlanes_pick_scales(const lqt__qlanes *book, uint32_t bits, const float *w,
                             const float *importance, size_t columns, float *out_scales) {
  search s = {.book = book,
              .ops = lqt__strip_ops_get(),
              .w = w,
              .importance = importance,
              .columns = columns};
  float extreme[LQT__LANES] = {0}, scales[LQT__LANES];
  for (size_t c = 0; c < columns; c++) {
    for (int l = 0; l < LQT__LANES; l++) {
      float x = w[c * LQT__LANES + (size_t)l];
      if (fabsf(x) > fabsf(extreme[l])) extreme[l] = x;
    }
  }
  /* The fewer the bits of a weight, the more clipping pays. */
  uint32_t rate = bits / book->primary.dim;
  float low = rate >= 8 ? 0.9f : rate >= 4 ? 0.62f : rate == 3 ? 0.5f : 0.4f;
  int candidates = rate >= 8 ? 4 : 16;
  for (int sign = 0; sign < 2; sign++) {
    const float *reach = sign != 0 ? book->primary.low : book->primary.high;
    for (int i = 0; i < candidates; i++) {
      float factor = low + (1.1f - low) * (float)i / (float)(candidates - 1);
      for (int l = 0; l < LQT__LANES; l++) {
        scales[l] = reach[l] != 0 ? extreme[l] / reach[l] * factor : 0;
      }
      try_scales(&s, scales);
    }
  }
  for (int i = 0; i < 2; i++) {
    for (int l = 0; l < LQT__LANES; l++) scales[l] = round_f16(s.scale[l]);
    try_scales(&s, scales);
  }
  if (book->residual.entries > 0) refit_residual(&s);
  for (int l = 0; l < LQT__LANES; l++) out_scales[l] = round_f16(s.scale[l]);
}

/* The codes that the residual `j` alone would leave for the primary codebook; kept where their sum
 * is nearer. */
static void try_residual(const lqt__qlanes *book, const float *w, const float *scales,
                         const float *inverse, const float *transform, uint32_t j, float *best,
                         uint8_t *out_codes, uint8_t *out_residuals, float *out_values) {
  uint32_t dim = book->primary.dim;
  float shifted[LQT__MAX_DIM * LQT__LANES], values[LQT__MAX_DIM * LQT__LANES];
  uint8_t codes[LQT__LANES];
  const float *r = book->residual.values + (size_t)j * dim * LQT__LANES;
  for (uint32_t i = 0; i < dim * LQT__LANES; i++) {
    shifted[i] = w[i] - r[i] * scales[i % LQT__LANES];
  }
  lqt__strip_ops_get()->nearest(&book->primary, shifted, inverse, transform, codes, values);
  for (int l = 0; l < LQT__LANES; l++) {
    float distance = 0;
    for (uint32_t i = 0; i < dim; i++) {
      size_t at = i * LQT__LANES + (size_t)l;
      float d = w[at] * inverse[l] - (values[at] + r[at]);
      distance += d * d;
    }
    if (distance >= best[l]) continue;
    best[l] = distance;
    out_codes[l] = codes[l];
    out_residuals[l] = (uint8_t)j;
    for (uint32_t i = 0; i < dim; i++) {
      size_t at = i * LQT__LANES + (size_t)l;
      out_values[at] = values[at] + r[at];
    }
  }
}

void lqt__qlanes_nearest(const lqt__qlanes *book, const float *w, const float *scales,
                         const float *transform, uint8_t *out_codes, uint8_t *out_residuals,
                         float *out_values) {
  const lqt__strip_ops *ops = lqt__strip_ops_get();
  uint32_t dim = book->primary.dim;
  float inverse[LQT__LANES];
  invert(scales, inverse);
  if (book->residual.entries > 0 && book->residual.entries <= RESIDUAL_SEARCH && dim == 1) {
    float best[LQT__LANES];
    for (int l = 0; l < LQT__LANES; l++) best[l] = INFINITY;
    for (uint32_t j = 0; j < book->residual.entries; j++) {
      try_residual(book, w, scales, inverse, transform, j, best, out_codes, out_residuals,
                   out_values);
    }
    return;
  }
  ops->nearest(&book->primary, w, inverse, transform, out_codes, out_values);
  if (book->residual.entries == 0) return;
  float left[LQT__MAX_DIM * LQT__LANES], values[LQT__MAX_DIM * LQT__LANES];
  for (uint32_t i = 0; i < dim * LQT__LANES; i++) {
    left[i] = w[i] - out_values[i] * scales[i % LQT__LANES];
  }
  ops->nearest(&book->residual, left, inverse, transform, out_residuals, values);
  for (uint32_t i = 0; i < dim * LQT__LANES; i++) out_values[i] += values[i];
}
