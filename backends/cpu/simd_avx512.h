/* Sixteen floats: AVX-512 F, BW, VL. */
#include <immintrin.h>

#define W 16
#define TILE_ROWS 12
typedef __m512 vf;

static inline vf v_zero(void) { return _mm512_setzero_ps(); }
static inline vf v_set(float x) { return _mm512_set1_ps(x); }
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline __mmask16 first_lanes(size_t n) { return (__mmask16)((1u << n) - 1u); }
/* The first n < W lanes; the others read as zero and are not written. */
static inline vf v_load_n(const float *p, size_t n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
static inline void v_store_n(float *p, vf x, size_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), x);
}
static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf v_abs(vf a) { return _mm512_abs_ps(a); }
/* x where low <= p <= high, else other. */
static inline vf v_keep_range(vf x, vf p, vf low, vf high, vf other) {
  __mmask16 keep = _mm512_cmp_ps_mask(p, low, _CMP_GE_OQ) & _mm512_cmp_ps_mask(p, high, _CMP_LE_OQ);
  return _mm512_mask_blend_ps(keep, other, x);
}
static inline vf v_round(vf x) { return _mm512_roundscale_ps(x, 8); }
/* x * 2^n for whole n */
static inline vf v_scale2(vf x, vf n) { return _mm512_scalef_ps(x, n); }
static inline float v_sum(vf x) { return _mm512_reduce_add_ps(x); }
/* Sums of four vectors, into out[4]. */
static inline void v_sum4(vf a, vf b, vf c, vf d, float *out) {
  vf ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  vf cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  vf all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
  __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
static inline vf v_load_f16(const uint16_t *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf v_iota(void) {
  return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
static inline vf v_load_f16_n(const uint16_t *p, size_t n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
static inline vf v_load_bf16(const uint16_t *p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline vf v_load_bf16_n(const uint16_t *p, size_t n) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(n), p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline void v_store_f16(uint16_t *p, vf x) {
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
/* Sixteen values of a table of at most 16 entries by the nibbles of 8 bytes, low nibble first. */
#define V_HAS_LOOKUP 1
static inline vf v_lookup(const float *table, const uint8_t codes[16]) {
  __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
  return _mm512_permutexvar_ps(index, _mm512_loadu_ps(table));
}
static inline vf v_gather(const float *table, const uint8_t codes[16]) {
  __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
  return _mm512_i32gather_ps(index, table, 4);
}
