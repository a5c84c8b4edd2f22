/* Packed spans to pairs of values in 16-bit words, 16 rows a vector: AVX-512 BW, and VBMI for 8-bit
 * indices. */
#ifndef LQT_BACKENDS_CPU_FAST_DECODE_AVX512_H_
#define LQT_BACKENDS_CPU_FAST_DECODE_AVX512_H_

#include <immintrin.h>

#include "fast_internal.h"

#define LQT__FAST_INLINE static inline __attribute__((always_inline))

/* The vector of pair p is made from `v`, what lqt__fast_open left of a span, by lqt__fast_pair.
 * Both are inlined with a constant kind and p. */
typedef struct lqt__fast_open_span {
  __m512i v[2 * LQT__FAST_MAX_COMPS];
} lqt__fast_open_span;

/* Words shifted right. (The high half of a product with a power of two would use another pipe of
 * Zen 4, but measures slower.) */
LQT__FAST_INLINE __m512i lqt__fast_shift(__m512i v, int bits) {
  return bits == 0 ? v : _mm512_srli_epi16(v, (unsigned)bits);
}

#ifdef __AVX512VBMI__
LQT__FAST_INLINE __m512i lqt__fast_lut256(__m512i index, const uint8_t *table) {
  __m512i low =
      _mm512_permutex2var_epi8(_mm512_load_si512(table), index, _mm512_load_si512(table + 64));
  __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), index,
                                          _mm512_load_si512(table + 192));
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
}
#endif

LQT__FAST_INLINE void lqt__fast_open(lqt__fast_kind kind, const uint8_t *span,
                                     uint8_t (*tables)[512], lqt__fast_open_span *out) {
  const __m512i w = _mm512_load_si512(span);
  out->v[0] = w;
  (void)tables;
  if (kind == LQT__FAST_S3) {
    out->v[1] = _mm512_load_si512(span + 64);
    out->v[2] = _mm512_load_si512(span + 128);
  }
#ifdef __AVX512VBMI__
  const int comps = kind == LQT__FAST_V2_8 ? 2 : kind == LQT__FAST_V4_8 ? 4 : 1;
  if (kind == LQT__FAST_S8 || kind == LQT__FAST_V2_8 || kind == LQT__FAST_V4_8) {
    /* Low and high bytes are looked up for all 64 indices; words of the even and of the odd ones.
     */
    const __m512i even = _mm512_set1_epi16(0x00ff);
#pragma GCC unroll 4
    for (int c = 0; c < comps; c++) {
      __m512i low = lqt__fast_lut256(w, tables[c]);
      __m512i high = lqt__fast_lut256(w, tables[c] + 256);
      out->v[c] = _mm512_ternarylogic_epi32(even, low, _mm512_slli_epi16(high, 8), 0xca);
      out->v[comps + c] = _mm512_ternarylogic_epi32(even, _mm512_srli_epi16(low, 8), high, 0xca);
    }
  }
#endif
}

LQT__FAST_INLINE __m512i lqt__fast_index3(const lqt__fast_open_span *span, int p) {
  const __m512i *v = span->v;
  if (p < 15) return lqt__fast_shift(v[p / 5], 3 * (p % 5));
  __m512i index = _mm512_srli_epi16(v[0], 15);
  index = _mm512_ternarylogic_epi32(index, _mm512_srli_epi16(v[1], 14), _mm512_set1_epi16(2), 0xf8);
  return _mm512_ternarylogic_epi32(index, _mm512_srli_epi16(v[2], 13), _mm512_set1_epi16(4), 0xf8);
}

LQT__FAST_INLINE __m512i lqt__fast_pair(lqt__fast_kind kind, const lqt__fast_open_span *span,
                                        uint8_t (*tables)[512], int p) {
  const __m512i *v = span->v;
  switch (kind) {
    case LQT__FAST_S2:
      return _mm512_permutexvar_epi16(lqt__fast_shift(v[0], 2 * p), _mm512_load_si512(tables[0]));
    case LQT__FAST_S3:
      return _mm512_permutexvar_epi16(lqt__fast_index3(span, p), _mm512_load_si512(tables[0]));
    case LQT__FAST_S4:
      return _mm512_permutexvar_epi16(lqt__fast_shift(v[0], 4 * p), _mm512_load_si512(tables[0]));
    case LQT__FAST_V2_4:
      return _mm512_permutexvar_epi16(lqt__fast_shift(v[0], 4 * (p / 2)),
                                      _mm512_load_si512(tables[p % 2]));
    case LQT__FAST_V4_4:
      return _mm512_permutexvar_epi16(lqt__fast_shift(v[0], 4 * (p / 4)),
                                      _mm512_load_si512(tables[p % 4]));
    default:
      return v[p];
  }
}

#endif /* LQT_BACKENDS_CPU_FAST_DECODE_AVX512_H_ */
