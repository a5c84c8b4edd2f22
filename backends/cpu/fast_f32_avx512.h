/* Products in float32, AVX-512: exact mode, plain weights, and processors without BF16. A value is
 * the sum of its two bfloat16 terms, which holds a float16 exactly. 8-bit indices need VBMI and are
 * compiled by themselves, so that processors without it can run the rest. */
#ifndef LQT_BACKENDS_CPU_FAST_F32_AVX512_H_
#define LQT_BACKENDS_CPU_FAST_F32_AVX512_H_

#include "fast_decode_avx512.h"

enum { AHEAD = 4096 };

LQT__FAST_INLINE __m512 low_words(__m512i v) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}
LQT__FAST_INLINE __m512 high_words(__m512i v) {
  return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)));
}

LQT__FAST_INLINE __m512 plain_column(lqt__fast_kind kind, const uint8_t *at) {
  if (kind == LQT__FAST_F32) return _mm512_load_ps((const float *)at);
  __m256i half = _mm256_load_si256((const __m256i *)at);
  if (kind == LQT__FAST_F16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* The two columns (p, p + span/2) of a span. */
LQT__FAST_INLINE void columns(lqt__fast_kind kind, const uint8_t *span,
                              const lqt__fast_open_span *main, const lqt__fast_open_span *rest,
                              lqt__fast_tables *tables, int p, __m512 out[2]) {
  if (kind >= LQT__FAST_F32) {
    out[0] = plain_column(kind, span);
    out[1] = plain_column(kind, span + (kind == LQT__FAST_F32 ? 64 : 32));
    return;
  }
  __m512i a = lqt__fast_pair(kind, main, tables->main, p);
  __m512i b = lqt__fast_pair(kind, rest, tables->rest, p);
  out[0] = _mm512_add_ps(low_words(a), low_words(b));
  out[1] = _mm512_add_ps(high_words(a), high_words(b));
}

LQT__FAST_INLINE void group_product(const lqt__fast_plane *plane, const uint8_t *stream,
                                    const uint32_t *mask, const float *x, uint64_t x_stride,
                                    uint64_t n, const uint16_t *scale, __m512 *total,
                                    const lqt__fast_kind kind, const int cols) {
  const int span = lqt__fast_formats[kind].span, span_bytes = lqt__fast_formats[kind].span_bytes;
  const int parts = cols <= 4 ? 2 : 1;
  const bool packed = kind < LQT__FAST_F32;
  __m512 acc[8];
#pragma GCC unroll 8
  for (int i = 0; i < cols * parts; i++) acc[i] = _mm512_setzero_ps();
  for (uint64_t k = 0; k < n; k += (uint64_t)span) {
    lqt__fast_open_span main, rest;
    if (packed) {
      lqt__fast_open(kind, stream, plane->tables->main, &main);
      lqt__fast_open(kind, stream, plane->tables->rest, &rest);
    }
    for (int i = 0; i < span_bytes; i += 64) _mm_prefetch((const char *)stream + AHEAD + i, 3);
#pragma GCC unroll 16
    for (int p = 0; p < span / 2; p++) {
      __m512 value[2];
      columns(kind, stream, &main, &rest, plane->tables, p, value);
      if (mask != NULL) {
        value[0] = _mm512_maskz_mov_ps((__mmask16)_pext_u32(mask[p], 0x55555555), value[0]);
        value[1] = _mm512_maskz_mov_ps((__mmask16)_pext_u32(mask[p], 0xaaaaaaaa), value[1]);
      }
#pragma GCC unroll 8
      for (int c = 0; c < cols; c++) {
        const float *at = x + (uint64_t)c * x_stride + p;
        __m512 *sum = &acc[c * parts];
        sum[0] = _mm512_fmadd_ps(value[0], _mm512_set1_ps(at[0]), sum[0]);
        sum[parts - 1] = _mm512_fmadd_ps(value[1], _mm512_set1_ps(at[span / 2]), sum[parts - 1]);
      }
    }
    stream += span_bytes;
    x += span;
    if (mask != NULL) mask += span / 2;
  }
  __m512 factor = _mm512_set1_ps(1.0f);
  if (scale != NULL) factor = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)scale));
#pragma GCC unroll 8
  for (int c = 0; c < cols; c++) {
    __m512 sum = acc[c * parts];
    if (parts == 2) sum = _mm512_add_ps(sum, acc[c * parts + 1]);
    total[c] = _mm512_fmadd_ps(sum, factor, total[c]);
  }
}

LQT__FAST_INLINE void block_product(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                    uint64_t block, const float *x, uint64_t x_stride, float *tile,
                                    const lqt__fast_kind kind, const int cols) {
  const uint64_t span = lqt__fast_formats[kind].span, bytes = lqt__fast_formats[kind].span_bytes;
  const uint8_t *stream = plane->stream + block * plane->block_bytes;
  const uint32_t *mask = plane->mask;
  const uint16_t *scale = w->scales;
  __m512 total[8];
  if (mask != NULL) mask += block * (w->kpad / 2);
  if (scale != NULL) scale += block * w->groups * LQT__FAST_ROWS;
#pragma GCC unroll 8
  for (int c = 0; c < cols; c++) total[c] = _mm512_loadu_ps(tile + c * LQT__FAST_ROWS);
  for (uint64_t k = 0; k < w->kpad; k += w->group) {
    uint64_t n = w->kpad - k < w->group ? w->kpad - k : w->group;
    group_product(plane, stream, mask, x, x_stride, n, scale, total, kind, cols);
    stream += n / span * bytes;
    x += n;
    if (mask != NULL) mask += n / 2;
    if (scale != NULL) scale += LQT__FAST_ROWS;
  }
#pragma GCC unroll 8
  for (int c = 0; c < cols; c++) _mm512_storeu_ps(tile + c * LQT__FAST_ROWS, total[c]);
}

#define WIDTH(kind, n)                                          \
  case n:                                                       \
    block_product(w, plane, block, x, x_stride, tile, kind, n); \
    return;
#define KIND(kind)                                                                          \
  __attribute__((noinline)) static void block_##kind(                                       \
      const lqt__cpu_fast *w, const lqt__fast_plane *plane, uint64_t block, const float *x, \
      uint64_t x_stride, unsigned cols, float *tile) {                                      \
    switch (cols) {                                                                         \
      WIDTH(LQT__FAST_##kind, 1)                                                            \
      WIDTH(LQT__FAST_##kind, 4)                                                            \
      WIDTH(LQT__FAST_##kind, 8)                                                            \
    }                                                                                       \
  }
#endif /* LQT_BACKENDS_CPU_FAST_F32_AVX512_H_ */
