/* lookup_row.h with AVX-512 F: 16 entries are a register, and a permute of it 16 lookups. */
#include <immintrin.h>
#include <string.h>

#include "lookup_row.h"

enum { AHEAD = 4096 }; /* bytes; the next rows */

#define INLINE static inline __attribute__((always_inline))

/* 16 indices that begin at `at`, in the low bits of each lane; what is above them is not cleared,
 * since the permute reads four bits. */
INLINE __m512i indices_16(const uint8_t *at, const uint32_t bits) {
  const __m512i steps = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  if (bits == 2) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    const __m512i all =
        _mm512_srlv_epi32(_mm512_set1_epi32((int)word), _mm512_slli_epi32(steps, 1));
    return _mm512_and_si512(all, _mm512_set1_epi32(3));
  }
  uint64_t words;
  memcpy(&words, at, sizeof words);
  if (bits == 4) {
    const __m512i halves = _mm512_permutexvar_epi32(
        _mm512_srli_epi32(steps, 3), _mm512_castsi128_si512(_mm_cvtsi64_si128((long long)words)));
    return _mm512_srlv_epi32(halves,
                             _mm512_slli_epi32(_mm512_and_si512(steps, _mm512_set1_epi32(7)), 2));
  }
  /* Index i begins at bit 3 i: of pairs, the first in the low half of a 64-bit lane. */
  const __m512i pairs = _mm512_setr_epi64(0, 6, 12, 18, 24, 30, 36, 42);
  const __m512i even = _mm512_srlv_epi64(_mm512_set1_epi64((long long)words), pairs);
  const __m512i odd = _mm512_slli_epi64(_mm512_srli_epi64(even, 3), 32);
  return _mm512_and_si512(_mm512_mask_blend_epi32(0xaaaa, even, odd), _mm512_set1_epi32(7));
}

/* sum[t] += columns [k, k + 16) of the row, or the first `left` of them, times x. */
INLINE void add_16(const lqt__lookup_row *row, size_t k, size_t left, __m512 entries,
                   const float *x, size_t x_stride, __m512 *sum, const uint32_t bits,
                   const unsigned tokens) {
  const __mmask16 keep = left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
  const __m512i index = indices_16(row->indices + k * bits / 8, bits);
  const __m512 value = _mm512_maskz_permutexvar_ps(keep, index, entries);
#pragma GCC unroll 4
  for (unsigned t = 0; t < tokens; t++) {
    sum[t] = _mm512_fmadd_ps(value, _mm512_maskz_loadu_ps(keep, x + t * x_stride + k), sum[t]);
  }
}

/* The columns [k, end), which share a bank and a scale: in several sums, so that one does not wait
 * for the other. */
INLINE void add_segment(const lqt__lookup_row *row, size_t k, size_t end, __m512 entries,
                        const float *x, size_t x_stride, __m512 factor, __m512 *total,
                        const uint32_t bits, const unsigned tokens) {
  enum { PARTS = 4 };
  __m512 sum[PARTS][LQT__LOOKUP_TOKENS];
#pragma GCC unroll 16
  for (unsigned i = 0; i < PARTS * tokens; i++) sum[i / tokens][i % tokens] = _mm512_setzero_ps();
  for (; k + 16 * PARTS <= end; k += 16 * PARTS) {
    _mm_prefetch((const char *)row->indices + k * bits / 8 + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 4
    for (unsigned i = 0; i < PARTS; i++) {
      add_16(row, k + 16 * i, 16, entries, x, x_stride, sum[i], bits, tokens);
    }
  }
  for (; k < end; k += 16) add_16(row, k, end - k, entries, x, x_stride, sum[0], bits, tokens);
#pragma GCC unroll 4
  for (unsigned t = 0; t < tokens; t++) {
    const __m512 all =
        _mm512_add_ps(_mm512_add_ps(sum[0][t], sum[1][t]), _mm512_add_ps(sum[2][t], sum[3][t]));
    total[t] = _mm512_fmadd_ps(all, factor, total[t]);
  }
}

INLINE void dot(const lqt__lookup_row *row, const float *x, size_t x_stride, float *out,
                const uint32_t bits, const unsigned tokens) {
  __m512 total[LQT__LOOKUP_TOKENS];
#pragma GCC unroll 4
  for (unsigned t = 0; t < tokens; t++) total[t] = _mm512_setzero_ps();
  const float *table = row->table;
  size_t bank_end = row->bank_cols, group_end = row->scales != NULL ? row->group : row->n;
  __m512 entries = _mm512_loadu_ps(table), factor = _mm512_set1_ps(1.0f);
  for (size_t k = 0, group = 0; k < row->n;) {
    size_t end = row->n < bank_end ? row->n : bank_end;
    if (group_end < end) end = group_end;
    if (row->scales != NULL) factor = _mm512_set1_ps(_cvtsh_ss(row->scales[group]));
    add_segment(row, k, end, entries, x, x_stride, factor, total, bits, tokens);
    k = end;
    if (k == group_end) {
      group_end += row->group;
      group++;
    }
    if (k == bank_end && k < row->n) {
      bank_end += row->bank_cols;
      table += row->bank_stride;
      entries = _mm512_loadu_ps(table);
    }
  }
#pragma GCC unroll 4
  for (unsigned t = 0; t < tokens; t++) out[t] = _mm512_reduce_add_ps(total[t]);
}

INLINE void dot_bits(const lqt__lookup_row *row, const float *x, size_t x_stride, unsigned tokens,
                     float *out, const uint32_t bits) {
  if (tokens == 1) dot(row, x, x_stride, out, bits, 1);
  if (tokens == 2) dot(row, x, x_stride, out, bits, 2);
  if (tokens == 3) dot(row, x, x_stride, out, bits, 3);
  if (tokens == 4) dot(row, x, x_stride, out, bits, 4);
}

void lqt__lookup_row_dot_avx512(const lqt__lookup_row *row, const float *x, size_t x_stride,
                                unsigned tokens, float *out) {
  if (row->bits == 2) dot_bits(row, x, x_stride, tokens, out, 2);
  if (row->bits == 3) dot_bits(row, x, x_stride, tokens, out, 3);
  if (row->bits == 4) dot_bits(row, x, x_stride, tokens, out, 4);
}
