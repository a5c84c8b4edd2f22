/* Products with 16-bit integers, AVX2, for codebooks to 4 bits.
 *
 * Without the dot products of VNNI or BF16 the most that AVX2 multiplies in one instruction is 16
 * pairs of 16-bit integers, twice what it does in float32. Entries and activations become integers
 * of 12 bits (a scale for a codebook, one for 256 activations of a token), whose products add up in
 * 32 bits over a unit of up to 256 columns; a byte shuffle looks up the two bytes of 32 entries. */
#include <immintrin.h>
#include <math.h>

#include "fast_internal.h"

#define INLINE static inline __attribute__((always_inline))

enum {
  AHEAD = 4096,
  MOST = LQT__FAST_INT16_MOST,
  KC = LQT__FAST_KC,
  HALVES = 2, /* vectors of 8 rows */
  TOKENS = LQT__FAST_INT16_TOKENS,
};

INLINE __m256i table_of(const uint8_t bytes[16]) {
  return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)bytes));
}

/* Entries of 32 byte indices: of the even bytes and of the odd ones, as words. */
INLINE void lookup_32(__m256i index, __m256i low, __m256i high, __m256i *even, __m256i *odd) {
  const __m256i bytes = _mm256_set1_epi16(0x00ff);
  const __m256i l = _mm256_shuffle_epi8(low, index), h = _mm256_shuffle_epi8(high, index);
  *even = _mm256_or_si256(_mm256_and_si256(l, bytes), _mm256_slli_epi16(h, 8));
  *odd = _mm256_or_si256(_mm256_srli_epi16(l, 8), _mm256_andnot_si256(bytes, h));
}

/* Index p of the 16 pairs in a span of 3-bit ones, alone in the low byte of each word. */
INLINE __m256i index3(const __m256i v[3], int p) {
  if (p < 15) {
    return _mm256_and_si256(_mm256_srli_epi16(v[p / 5], 3 * (p % 5)), _mm256_set1_epi16(7));
  }
  const __m256i one = _mm256_srli_epi16(v[0], 15), two = _mm256_srli_epi16(v[1], 15),
                four = _mm256_srli_epi16(v[2], 15);
  return _mm256_or_si256(one,
                         _mm256_or_si256(_mm256_slli_epi16(two, 1), _mm256_slli_epi16(four, 2)));
}

/* The pairs of a span for 8 rows, to out[p * HALVES]; span points at their half of a vector. */
INLINE void decode_span(lqt__fast_kind kind, const uint8_t *span, const lqt__fast_tables *tables,
                        __m256i *out) {
  const int bits = lqt__fast_formats[kind].bits, comps = lqt__fast_formats[kind].comps;
  if (kind == LQT__FAST_S3) {
    const __m256i low = table_of(tables->s16[0][0]), high = table_of(tables->s16[0][1]);
    __m256i v[3];
#pragma GCC unroll 3
    for (int i = 0; i < 3; i++) v[i] = _mm256_load_si256((const __m256i *)(span + 64 * i));
#pragma GCC unroll 16
    for (int p = 0; p < 16; p += 2) {
      const __m256i second = _mm256_slli_epi16(index3(v, p + 1), 8);
      lookup_32(_mm256_or_si256(index3(v, p), second), low, high, &out[p * HALVES],
                &out[(p + 1) * HALVES]);
    }
    return;
  }
  /* Shifted by j indices, the low byte of a word begins with index j, the high one with index j +
   * per_byte. */
  const int per_byte = 8 / bits;
  const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1));
  const __m256i v = _mm256_load_si256((const __m256i *)span);
#pragma GCC unroll 4
  for (int j = 0; j < per_byte; j++) {
    const __m256i index = _mm256_and_si256(_mm256_srli_epi16(v, bits * j), mask);
#pragma GCC unroll 4
    for (int c = 0; c < comps; c++) {
      lookup_32(index, table_of(tables->s16[c][0]), table_of(tables->s16[c][1]),
                &out[(comps * j + c) * HALVES], &out[(comps * (j + per_byte) + c) * HALVES]);
    }
  }
}

/* Columns [k, k + n) of a block, pairs of 16 rows: [n / 2][HALVES]. */
INLINE void decode_tile(const lqt__cpu_fast *w, const lqt__fast_plane *plane, uint64_t block,
                        uint64_t k, uint64_t n, __m256i *tile, const lqt__fast_kind kind) {
  const uint64_t span = lqt__fast_formats[kind].span, bytes = lqt__fast_formats[kind].span_bytes;
  const uint8_t *src = plane->stream + block * plane->block_bytes + k / span * bytes;
  (void)w;
  for (uint64_t i = 0; i < n; i += span) {
    for (uint64_t b = 0; b < bytes; b += 64) _mm_prefetch((const char *)src + AHEAD + b, 2);
    decode_span(kind, src, plane->tables, tile);
    decode_span(kind, src + 32, plane->tables, tile + 1);
    src += bytes;
    tile += span / 2 * HALVES;
  }
}

/* acc += products of pairs. As assembly, because GCC 12 moves the products apart until sums do not
 * fit into registers, and each goes through the stack. */
INLINE void multiply_add(__m256i *acc, __m256i w, __m256i x) {
  __m256i product;
  __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0" : "+x"(*acc), "=&x"(product) : "x"(w), "x"(x));
}

/* out[t][16] += the products of a unit (columns with common scales) with `tokens` tokens. */
INLINE void unit_product(const __m256i *tile, const uint32_t *x, uint64_t pairs,
                         const __m256 factor[HALVES], const float *x_scale, float *out,
                         const int tokens) {
  __m256i acc[TOKENS][HALVES];
#pragma GCC unroll 4
  for (int t = 0; t < tokens; t++) acc[t][0] = acc[t][1] = _mm256_setzero_si256();
  for (uint64_t p = 0; p < pairs; p++) {
    const __m256i w0 = tile[p * HALVES], w1 = tile[p * HALVES + 1];
#pragma GCC unroll 4
    for (int t = 0; t < tokens; t++) {
      const __m256i pair = _mm256_set1_epi32((int)x[p * TOKENS + (uint64_t)t]);
      multiply_add(&acc[t][0], w0, pair);
      multiply_add(&acc[t][1], w1, pair);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < tokens; t++) {
    const __m256 scale = _mm256_broadcast_ss(x_scale + t);
#pragma GCC unroll 2
    for (int h = 0; h < HALVES; h++) {
      float *to = out + t * LQT__FAST_ROWS + h * 8;
      const __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[t][h]), scale);
      _mm256_storeu_ps(to, _mm256_fmadd_ps(value, factor[h], _mm256_loadu_ps(to)));
    }
  }
}

typedef struct tile_job {
  const __m256i *tile; /* [pairs][HALVES] */
  const uint16_t *scales;
  uint64_t n, unit; /* columns */
} tile_job;

/* The columns of a tile with one group of tokens. */
INLINE void group_product(const tile_job *job, const uint32_t *x, const float *x_scale, float *out,
                          const int tokens) {
  const uint16_t *scale = job->scales;
  for (uint64_t i = 0; i < job->n; i += job->unit) {
    const uint64_t pairs = (job->n - i < job->unit ? job->n - i : job->unit) / 2;
    __m256 factor[HALVES] = {_mm256_set1_ps(1.0f), _mm256_set1_ps(1.0f)};
    if (scale != NULL) {
      factor[0] = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)scale));
      factor[1] = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(scale + 8)));
      scale += LQT__FAST_ROWS;
    }
    unit_product(job->tile + i / 2 * HALVES, x + i / 2 * TOKENS, pairs, factor, x_scale, out,
                 tokens);
  }
}

static void tile_product(const tile_job *job, const lqt__fast_x16 *x, uint64_t part,
                         unsigned tokens, float *out) {
  for (unsigned t = 0; t < tokens; t += TOKENS) {
    const uint64_t group = part * x->groups + t / TOKENS;
    const uint32_t *pairs = x->pairs + group * (KC / 2 * TOKENS);
    const float *scale = x->scales + group * TOKENS;
    float *to = out + t * LQT__FAST_ROWS;
    switch (tokens - t) {
      case 1:
        group_product(job, pairs, scale, to, 1);
        break;
      case 2:
        group_product(job, pairs, scale, to, 2);
        break;
      case 3:
        group_product(job, pairs, scale, to, 3);
        break;
      default:
        group_product(job, pairs, scale, to, 4);
    }
  }
}

void lqt__fast_block_int16_avx2(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                uint64_t block, const lqt__fast_x16 *x, unsigned tokens,
                                float *out) {
  __m256i tile[KC / 2 * HALVES];
  for (uint64_t k = 0; k < w->kpad; k += KC) {
    const uint64_t n = w->kpad - k < KC ? w->kpad - k : KC;
    switch (plane->kind) {
#define CASE(kind)                                              \
  case LQT__FAST_##kind:                                        \
    decode_tile(w, plane, block, k, n, tile, LQT__FAST_##kind); \
    break;
      CASE(S2)
      CASE(S3)
      CASE(S4)
      CASE(V2_4)
      CASE(V4_4)
      default:
        return; /* 8-bit indices and plain weights take the float32 kernel */
    }
    tile_job job = {.tile = tile, .n = n, .unit = w->group < KC ? w->group : KC};
    if (w->scales != NULL) {
      job.scales = w->scales + (block * w->groups + k / w->group) * LQT__FAST_ROWS;
    }
    tile_product(&job, x, k / KC, tokens, out);
  }
}

/* 16 activations, of which `left` are there, as words. */
INLINE __m256i words_16(const float *x, uint64_t left, __m256 inverse) {
  float some[16] = {0};
  for (uint64_t i = 0; left < 16 && i < left; i++) some[i] = x[i];
  const float *from = left < 16 ? some : x;
  const __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from), inverse));
  const __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from + 8), inverse));
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
}

void lqt__fast_x_int16_avx2(const float *x, uint64_t cols, uint64_t kpad, unsigned span,
                            unsigned token, const lqt__fast_x16 *out) {
  for (uint64_t k = 0; k < kpad; k += KC) {
    const uint64_t group = k / KC * out->groups + token / TOKENS;
    uint32_t *pairs = out->pairs + group * (KC / 2 * TOKENS) + token % TOKENS;
    const uint64_t n = kpad - k < KC ? kpad - k : KC, here = cols > k ? cols - k : 0;
    float most = 0, poison = 0;
    for (uint64_t i = 0; i < n && i < here; i++) {
      most = fmaxf(most, fabsf(x[k + i]));
      poison += x[k + i] * 0.0f;
    }
    /* An infinity or a NaN makes the products of these columns NaN. */
    const bool finite = poison == 0.0f;
    float inverse = finite && most > 0 ? MOST / most : 0.0f;
    if (!isfinite(inverse)) inverse = 0.0f;
    out->scales[group * TOKENS + token % TOKENS] = finite ? most / MOST : NAN;
    _Alignas(32) int16_t words[KC];
    for (uint64_t i = 0; i < n; i += 16) {
      const uint64_t left = finite && here > i ? here - i : 0;
      _mm256_store_si256((__m256i *)(words + i),
                         words_16(x + k + i, left, _mm256_set1_ps(inverse)));
    }
    for (uint64_t i = 0; i < n; i += span) {
      for (unsigned p = 0; p < span / 2; p++) {
        pairs[(i / 2 + p) * TOKENS] =
            (uint16_t)words[i + p] | (uint32_t)(uint16_t)words[i + p + span / 2] << 16;
      }
    }
  }
}
