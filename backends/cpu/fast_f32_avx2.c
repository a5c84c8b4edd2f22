/* Products in float32 with AVX2 and FMA, for every packed kind; also the sparse delta. */
#include <immintrin.h>
#include <string.h>

#include "fast_internal.h"

#define INLINE static inline __attribute__((always_inline))

enum { AHEAD = 2048, HALF = 8 /* rows of a vector: half a block */ };

/* 16 entries by the low four bits of the index. */
INLINE __m256 lookup16(const float *table, __m256i index) {
  __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), index);
  __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), index);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}

INLINE __m256i load_half(const uint8_t *at) { return _mm256_load_si256((const __m256i *)at); }

/* Index j of the 32 in a span of 3-bit ones. */
INLINE __m256i index3(const uint8_t *span, int j) {
  const int p = j % 16, h = 16 * (j / 16);
  if (p < 15) return _mm256_srli_epi32(load_half(span + 64 * (p / 5)), h + 3 * (p % 5));
  __m256i index = _mm256_setzero_si256();
  for (int i = 0; i < 3; i++) {
    __m256i bit =
        _mm256_and_si256(_mm256_srli_epi32(load_half(span + 64 * i), h + 15), _mm256_set1_epi32(1));
    index = _mm256_or_si256(index, _mm256_slli_epi32(bit, i));
  }
  return index;
}

INLINE __m256 plain_column(lqt__fast_kind kind, const uint8_t *at) {
  if (kind == LQT__FAST_F32) return _mm256_load_ps((const float *)at);
  __m128i half = _mm_load_si128((const __m128i *)at);
  if (kind == LQT__FAST_F16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* Column j of a span for 8 rows; `span` points at their half of the first vector. */
INLINE __m256 column(lqt__fast_kind kind, const uint8_t *span, lqt__fast_tables *tables, int j) {
  const int comps = lqt__fast_formats[kind].comps, bits = lqt__fast_formats[kind].bits;
  if (kind == LQT__FAST_S3) return lookup16(tables->f32[0], index3(span, j));
  if (bits == 0) {
    return plain_column(kind, span + j * (kind == LQT__FAST_F32 ? 64 : 32));
  }
  __m256i index = _mm256_srli_epi32(load_half(span), bits * (j / comps));
  const float *table = tables->f32[j % comps];
  if (bits < 8) return lookup16(table, index);
  return _mm256_i32gather_ps(table, _mm256_and_si256(index, _mm256_set1_epi32(255)), 4);
}

/* Keep bits of column j of a span as a vector mask; rows of the upper half have `shift` 16. */
INLINE __m256 keep(const uint32_t *mask, int j, int span, unsigned shift) {
  const __m256i bit = _mm256_setr_epi32(1, 4, 16, 64, 256, 1024, 4096, 16384);
  uint32_t word = mask[j % (span / 2)] >> (shift + (unsigned)(j / (span / 2)));
  __m256i some = _mm256_and_si256(_mm256_set1_epi32((int)word), bit);
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(some, bit));
}

INLINE void half_product(const lqt__cpu_fast *w, const lqt__fast_plane *plane, uint64_t block,
                         unsigned half, const float *x, uint64_t x_stride, float *tile,
                         const lqt__fast_kind kind, const int cols) {
  const int span = lqt__fast_formats[kind].span, span_bytes = lqt__fast_formats[kind].span_bytes;
  const unsigned half_bytes = kind == LQT__FAST_F16 || kind == LQT__FAST_BF16 ? 16 : 32;
  const uint8_t *stream = plane->stream + block * plane->block_bytes + half * half_bytes;
  const uint32_t *mask = plane->mask;
  const uint16_t *scale = w->scales;
  __m256 total[4];
  if (mask != NULL) mask += block * (w->kpad / 2);
  if (scale != NULL) scale += block * w->groups * LQT__FAST_ROWS + half * HALF;
#pragma GCC unroll 4
  for (int c = 0; c < cols; c++) {
    total[c] = _mm256_loadu_ps(tile + c * LQT__FAST_ROWS + half * HALF);
  }
  for (uint64_t k = 0; k < w->kpad; k += w->group) {
    uint64_t n = w->kpad - k < w->group ? w->kpad - k : w->group;
    __m256 acc[4][2];
#pragma GCC unroll 4
    for (int c = 0; c < cols; c++) acc[c][0] = acc[c][1] = _mm256_setzero_ps();
    for (uint64_t i = 0; i < n; i += (uint64_t)span) {
      for (int b = 0; b < span_bytes; b += 64) _mm_prefetch((const char *)stream + AHEAD + b, 3);
#pragma GCC unroll 32
      for (int j = 0; j < span; j++) {
        __m256 value = column(kind, stream, plane->tables, j);
        if (mask != NULL) value = _mm256_and_ps(value, keep(mask, j, span, 16 * half));
#pragma GCC unroll 4
        for (int c = 0; c < cols; c++) {
          __m256 *sum = &acc[c][j % 2];
          *sum = _mm256_fmadd_ps(value, _mm256_broadcast_ss(x + (uint64_t)c * x_stride + j), *sum);
        }
      }
      stream += span_bytes;
      x += span;
      if (mask != NULL) mask += span / 2;
    }
    __m256 factor = _mm256_set1_ps(1.0f);
    if (scale != NULL) {
      factor = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)scale));
      scale += LQT__FAST_ROWS;
    }
#pragma GCC unroll 4
    for (int c = 0; c < cols; c++) {
      total[c] = _mm256_fmadd_ps(_mm256_add_ps(acc[c][0], acc[c][1]), factor, total[c]);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < cols; c++) {
    _mm256_storeu_ps(tile + c * LQT__FAST_ROWS + half * HALF, total[c]);
  }
}

#define KIND(kind)                                                                          \
  __attribute__((noinline)) static void block_##kind(                                       \
      const lqt__cpu_fast *w, const lqt__fast_plane *plane, uint64_t block, const float *x, \
      uint64_t x_stride, unsigned cols, float *tile) {                                      \
    for (unsigned half = 0; half < 2; half++) {                                             \
      if (cols == 1) {                                                                      \
        half_product(w, plane, block, half, x, x_stride, tile, LQT__FAST_##kind, 1);        \
      } else {                                                                              \
        half_product(w, plane, block, half, x, x_stride, tile, LQT__FAST_##kind, 4);        \
      }                                                                                     \
    }                                                                                       \
  }
KIND(S2)
KIND(S3)
KIND(S4)
KIND(S8)
KIND(V2_4)
KIND(V4_4)
KIND(V2_8)
KIND(V4_8)
KIND(F32)
KIND(F16)
KIND(BF16)

void lqt__fast_block_f32_avx2(const lqt__cpu_fast *w, const lqt__fast_plane *plane, uint64_t block,
                              const void *x, uint64_t x_stride, unsigned cols, float *tile) {
  switch (plane->kind) {
#define CASE(kind)                                          \
  case LQT__FAST_##kind:                                    \
    block_##kind(w, plane, block, x, x_stride, cols, tile); \
    return;
    CASE(S2)
    CASE(S3)
    CASE(S4)
    CASE(S8)
    CASE(V2_4)
    CASE(V4_4)
    CASE(V2_8)
    CASE(V4_8)
    CASE(F32)
    CASE(F16)
    CASE(BF16)
    case LQT__FAST_KINDS:
      return;
  }
}

/* Tokens of one row at a time: x transposed has the tokens of a column side by side. */
static void delta_row_transposed(const lqt__cpu_fast *w, uint64_t row, const float *xt,
                                 unsigned tokens, float *out, unsigned stride) {
  _Alignas(32) float sums[LQT__FAST_CHUNK];
  const lqt__fast_plane *plane = &w->plane[0];
  const unsigned padded = (tokens + 7) & ~7u;
  for (unsigned t = 0; t < padded; t++) sums[t] = 0.0f;
  for (uint32_t i = w->delta_row_ptr[row]; i < w->delta_row_ptr[row + 1]; i++) {
    uint32_t col = w->delta_columns[i];
    if (plane->mask != NULL && !lqt__fast_mask_bit(plane, w, row, col)) continue;
    const __m256 value = _mm256_set1_ps(w->delta_values[i]);
    const float *from = xt + (uint64_t)col * LQT__FAST_CHUNK;
    for (unsigned t = 0; t < padded; t += 8) {
      _mm256_store_ps(sums + t,
                      _mm256_fmadd_ps(value, _mm256_loadu_ps(from + t), _mm256_load_ps(sums + t)));
    }
  }
  for (unsigned t = 0; t < tokens; t++) out[t * stride] += sums[t];
}

/* tile[t * stride + r] += sparse delta of the rows [row, row + n) times x. */
static void add_delta(const lqt__fast_finish *f, uint64_t row, unsigned n, float *tile,
                      unsigned stride) {
  const lqt__cpu_fast *w = f->product->weight;
  const lqt__fast_plane *plane = &w->plane[0];
  for (unsigned r = 0; r < n; r++) {
    if (f->xt != NULL) {
      delta_row_transposed(w, row + r, f->xt, f->tokens, tile + r, stride);
      continue;
    }
    for (uint32_t i = w->delta_row_ptr[row + r]; i < w->delta_row_ptr[row + r + 1]; i++) {
      uint32_t col = w->delta_columns[i];
      if (plane->mask != NULL && !lqt__fast_mask_bit(plane, w, row + r, col)) continue;
      for (unsigned t = 0; t < f->tokens; t++) {
        tile[t * stride + r] += w->delta_values[i] * f->x[t * f->x_stride + col];
      }
    }
  }
}

void lqt__fast_store_avx2(const lqt__fast_finish *f, uint64_t row, unsigned n, float *tile,
                          unsigned stride) {
  const lqt__cpu_product *p = f->product;
  const __m256 factor = _mm256_set1_ps(f->factor);
  if (row + n > p->weight->rows) n = (unsigned)(p->weight->rows - row);
  if (n % 8 == 0 && !f->delta && p->bias == NULL && !p->accumulate) {
    for (unsigned t = 0; t < f->tokens; t++) {
      const float *from = tile + t * stride;
      float *to = p->y + t * p->y_stride + row;
      for (unsigned r = 0; r < n; r += 8) {
        _mm256_storeu_ps(to + r, _mm256_mul_ps(_mm256_loadu_ps(from + r), factor));
      }
    }
    return;
  }
  for (unsigned t = 0; t < f->tokens; t++) {
    for (unsigned r = 0; r < n; r += 8) {
      float *at = tile + t * stride + r;
      _mm256_storeu_ps(at, _mm256_mul_ps(_mm256_loadu_ps(at), factor));
    }
  }
  if (f->delta) add_delta(f, row, n, tile, stride);
  for (unsigned t = 0; t < f->tokens; t++) {
    float *from = tile + t * stride;
    float *to = p->y + t * p->y_stride + row;
    for (unsigned r = 0; p->bias != NULL && r < n; r++) from[r] += p->bias[row + r];
    for (unsigned r = 0; p->accumulate && r < n; r++) from[r] += to[r];
    memcpy(to, from, n * sizeof *to);
  }
}

void lqt__fast_transpose(const float *x, uint64_t x_stride, unsigned tokens, uint64_t cols,
                         float *out) {
  for (uint64_t k = 0; k < cols; k += 16) {
    uint64_t end = cols - k < 16 ? cols : k + 16;
    for (unsigned t = 0; t < LQT__FAST_CHUNK; t++) {
      for (uint64_t i = k; i < end; i++) {
        out[i * LQT__FAST_CHUNK + t] = t < tokens ? x[t * x_stride + i] : 0.0f;
      }
    }
  }
}
