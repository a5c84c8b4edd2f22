/* Products with few tokens, AVX-512 BF16: values and activations as bfloat16, sums in float32.
 *
 * The instruction is written as assembly: it needs the embedded broadcast of a pair of activations
 * and an accumulator that stays in its register, which the intrinsic does not give reliably. */
#include "fast_decode_avx512.h"

enum { AHEAD = 8192 }; /* bytes; the hardware prefetcher stops at the end of a page */

LQT__FAST_INLINE void dot_pair(__m512 *acc, __m512i w, const uint32_t *x) {
  __asm__("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(*acc) : "v"(w), "m"(*x));
}

/* Adds group `g` (columns [first, first + n)) of the block to total[cols]. */
LQT__FAST_INLINE void group_product(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                    const uint8_t *stream, const uint32_t *mask, const uint32_t *x,
                                    uint64_t x_stride, uint64_t n, const uint16_t *scale,
                                    __m512 *total, const lqt__fast_kind kind, const int cols,
                                    const bool masked) {
  const int span = lqt__fast_formats[kind].span, span_bytes = lqt__fast_formats[kind].span_bytes;
  /* Enough independent sums to cover the latency of the dot product. */
  const int parts = cols == 1 ? 4 : cols <= 4 ? 2 : 1;
  uint8_t(*tables)[512] = plane->tables->main;
  __m512 acc[8];
  (void)w;
#pragma GCC unroll 8
  for (int i = 0; i < cols * parts; i++) acc[i] = _mm512_setzero_ps();
  for (uint64_t k = 0; k < n; k += (uint64_t)span) {
    lqt__fast_open_span open;
    lqt__fast_open(kind, stream, tables, &open);
    for (int i = 0; i < span_bytes; i += 64)
      _mm_prefetch((const char *)stream + AHEAD + i, _MM_HINT_T1);
#pragma GCC unroll 16
    for (int p = 0; p < span / 2; p++) {
      __m512i pair = lqt__fast_pair(kind, &open, tables, p);
      if (masked) pair = _mm512_maskz_mov_epi16(mask[p], pair);
#pragma GCC unroll 8
      for (int c = 0; c < cols; c++) {
        dot_pair(&acc[c * parts + p % parts], pair, x + (uint64_t)c * x_stride + p);
      }
    }
    stream += span_bytes;
    x += span / 2;
    if (masked) mask += span / 2;
  }
  __m512 factor = _mm512_set1_ps(1.0f);
  if (scale != NULL) factor = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)scale));
#pragma GCC unroll 8
  for (int c = 0; c < cols; c++) {
    __m512 sum = acc[c * parts];
    if (parts == 2) sum = _mm512_add_ps(sum, acc[c * parts + 1]);
    if (parts == 4) {
      sum = _mm512_add_ps(_mm512_add_ps(sum, acc[c * parts + 1]),
                          _mm512_add_ps(acc[c * parts + 2], acc[c * parts + 3]));
    }
    total[c] = _mm512_fmadd_ps(sum, factor, total[c]);
  }
}

LQT__FAST_INLINE void block_product(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                    uint64_t block, const uint32_t *x, uint64_t x_stride,
                                    float *tile, const lqt__fast_kind kind, const int cols,
                                    const bool masked) {
  const uint64_t span = lqt__fast_formats[kind].span, bytes = lqt__fast_formats[kind].span_bytes;
  const uint8_t *stream = plane->stream + block * plane->block_bytes;
  const uint32_t *mask = masked ? plane->mask + block * (w->kpad / 2) : NULL;
  const uint16_t *scale = w->scales;
  __m512 total[8];
  if (scale != NULL) scale += block * w->groups * LQT__FAST_ROWS;
#pragma GCC unroll 8
  for (int c = 0; c < cols; c++) total[c] = _mm512_loadu_ps(tile + c * LQT__FAST_ROWS);
  for (uint64_t k = 0; k < w->kpad; k += w->group) {
    uint64_t n = w->kpad - k < w->group ? w->kpad - k : w->group;
    group_product(w, plane, stream, mask, x, x_stride, n, scale, total, kind, cols, masked);
    stream += n / span * bytes;
    x += n / 2;
    if (masked) mask += n / 2;
    if (scale != NULL) {
      _mm_prefetch((const char *)scale + AHEAD / 16, _MM_HINT_T1);
      scale += LQT__FAST_ROWS;
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < cols; c++) _mm512_storeu_ps(tile + c * LQT__FAST_ROWS, total[c]);
}

#define WIDTH(kind, n)                                                       \
  case n:                                                                    \
    if (plane->mask != NULL) {                                               \
      block_product(w, plane, block, x, x_stride / 2, tile, kind, n, true);  \
    } else {                                                                 \
      block_product(w, plane, block, x, x_stride / 2, tile, kind, n, false); \
    }                                                                        \
    return;
#define KIND(kind)                                                                             \
  __attribute__((noinline)) static void block_##kind(                                          \
      const lqt__cpu_fast *w, const lqt__fast_plane *plane, uint64_t block, const uint32_t *x, \
      uint64_t x_stride, unsigned cols, float *tile) {                                         \
    switch (cols) {                                                                            \
      WIDTH(LQT__FAST_##kind, 1)                                                               \
      WIDTH(LQT__FAST_##kind, 2)                                                               \
      WIDTH(LQT__FAST_##kind, 4)                                                               \
      WIDTH(LQT__FAST_##kind, 8)                                                               \
    }                                                                                          \
  }
KIND(S2)
KIND(S3)
KIND(S4)
KIND(S8)
KIND(V2_4)
KIND(V4_4)
KIND(V2_8)
KIND(V4_8)

void lqt__fast_block_bf16_avx512(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                 uint64_t block, const void *x, uint64_t x_stride, unsigned cols,
                                 float *tile) {
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
    default:
      return; /* plain weights take the float32 kernel */
  }
}

void lqt__fast_x_bf16_avx512(const float *x, uint64_t cols, uint64_t kpad, unsigned span,
                             uint32_t *out) {
  /* Word 2 i of 32 converted columns is the first of pair i, the next word its partner. */
  _Alignas(64) uint16_t order[32];
  for (unsigned i = 0; i < 32; i++) {
    const unsigned within = i % span;
    order[i] = (uint16_t)(i - within + within / 2 + (within & 1) * (span / 2));
  }
  const __m512i permutation = _mm512_load_si512(order);
  for (uint64_t k = 0; k < kpad; k += 32) {
    const uint64_t left = k < cols ? cols - k : 0;
    const __mmask32 keep = left >= 32 ? 0xffffffffu : (__mmask32)((1u << left) - 1);
    const __m512 low = _mm512_maskz_loadu_ps((__mmask16)keep, x + k);
    const __m512 high = _mm512_maskz_loadu_ps((__mmask16)(keep >> 16), x + k + 16);
    const __m512i words = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    _mm512_storeu_si512(out + k / 2, _mm512_permutexvar_epi16(permutation, words));
  }
}
