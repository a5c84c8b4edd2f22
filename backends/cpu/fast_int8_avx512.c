/* Products with many tokens, AVX-512 VNNI, for scalar codebooks to 4 bits.
 *
 * A tile of 32 rows by 256 columns is decoded once to int8 (in the first-level
 * cache) and multiplied with all tokens of a chunk. Plain int8 activations
 * would miss the accuracy that the codebook deserves, so the unsigned operand
 * of the instruction carries the *magnitude* of an activation, 255 levels of
 * it, and the sign goes to the weights: w ^ 0xff = -w - 1 where the activation
 * is negative, whose -1 is repaired by starting the accumulator at the sum of
 * the negative magnitudes. The codebook's int8 form has an offset too
 * (fast_tables.c): its product with the sum of the activations starts the
 * accumulator likewise. Neither costs an instruction per product.
 *
 * vpdpbusd is written as assembly: from the intrinsic, GCC 12 copies
 * accumulators between registers and to the stack, which halves the speed.
 * docs/adr/0008 has the measurements. */
#include <math.h>
#include <string.h>

#include "fast_decode_avx512.h"

enum { COLS = LQT__FAST_INT8_COLS, PANEL = LQT__FAST_PANEL, KC = LQT__FAST_KC };

LQT__FAST_INLINE void dot_quads(__m512i *acc, __m512i x, __m512i w) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(*acc) : "v"(x), "v"(w));
}

/* One span of one block to int8: span/4 vectors, each dword the columns of a
 * quad (quad_column). */
LQT__FAST_INLINE void decode_span(lqt__fast_kind kind, const uint8_t *src, __m512i table,
                                  int8_t *out) {
  lqt__fast_open_span open;
  lqt__fast_open(kind, src, NULL, &open);
  const int quads = lqt__fast_formats[kind].span / 4;
#pragma GCC unroll 8
  for (int q = 0; q < quads; q++) {
    __m512i index;
    if (kind == LQT__FAST_S3) {
      index =
          _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x00ff), lqt__fast_index3(&open, 2 * q),
                                    _mm512_slli_epi16(lqt__fast_index3(&open, 2 * q + 1), 8), 0xca);
    } else {
      index = _mm512_srli_epi16(open.v[0], (unsigned)(lqt__fast_formats[kind].bits * q));
    }
    /* Of an index byte the permute reads 6 bits, and the table repeats within
     * them. */
    _mm512_store_si512(out + q * 64, _mm512_permutexvar_epi8(index, table));
  }
}

/* Column within its span of byte b of quad q. */
static unsigned quad_column(lqt__fast_kind kind, unsigned q, unsigned b) {
  if (kind == LQT__FAST_S2) return q + 4 * b;
  if (kind == LQT__FAST_S3) return 2 * q + (b & 1) + 16 * (b >> 1);
  return q + 2 * b;
}

LQT__FAST_INLINE void decode_tile(const lqt__cpu_fast *w, uint64_t panel, uint64_t k, uint64_t n,
                                  int8_t *out, const lqt__fast_kind kind) {
  const lqt__fast_plane *plane = &w->plane[0];
  const uint64_t span = lqt__fast_formats[kind].span, bytes = lqt__fast_formats[kind].span_bytes;
  const __m512i table = _mm512_load_si512(plane->tables->s8);
  for (uint64_t r = 0; r < PANEL; r++) {
    const uint8_t *src =
        plane->stream + (panel * PANEL + r) * plane->block_bytes + k / span * bytes;
    int8_t *to = out + r * KC * LQT__FAST_ROWS;
    for (uint64_t i = 0; i < n; i += span) {
      decode_span(kind, src, table, to);
      src += bytes;
      to += span * LQT__FAST_ROWS;
    }
  }
}

/* One unit (columns with a common group scale) of a tile: acc = starts + sum of
 * products. */
LQT__FAST_INLINE void unit_product(const int8_t *tile, const uint32_t *x, const int32_t *start,
                                   uint64_t quads, __m512i acc[PANEL][COLS]) {
#pragma GCC unroll 8
  for (int c = 0; c < COLS; c++) {
    acc[0][c] = _mm512_set1_epi32(start[c]);
    acc[1][c] = acc[0][c];
  }
  for (uint64_t q = 0; q < quads; q++) {
    __m512i w0 = _mm512_load_si512(tile + q * 64);
    __m512i w1 = _mm512_load_si512(tile + KC * LQT__FAST_ROWS + q * 64);
#pragma GCC unroll 8
    for (int c = 0; c < COLS; c++) {
      __m512i magnitude = _mm512_set1_epi32((int)x[c]);
      __m512i sign = _mm512_set1_epi32((int)x[COLS + c]);
      dot_quads(&acc[0][c], magnitude, _mm512_xor_si512(w0, sign));
      dot_quads(&acc[1][c], magnitude, _mm512_xor_si512(w1, sign));
    }
    x += 2 * COLS;
  }
}

/* What the products of a tile share. */
typedef struct tile_job {
  _Alignas(64) int8_t tile[PANEL * KC * LQT__FAST_ROWS];
  _Alignas(64) float scales[KC / 16][PANEL][LQT__FAST_ROWS]; /* group scales of the units */
  uint64_t n;                                                /* columns */
  uint64_t unit, part;
} tile_job;

typedef float tile_sums[PANEL][COLS][LQT__FAST_ROWS];

/* sums += scale * acc; the first unit of a part begins the sums, the last one
 * adds them, times the scale of the activations, to the output. */
LQT__FAST_INLINE void finish_unit(__m512i acc[PANEL][COLS], const float *scale, tile_sums sums,
                                  const float *x_scale, float *out, const bool first,
                                  const bool last) {
#pragma GCC unroll 2
  for (int r = 0; r < PANEL; r++) {
    const __m512 factor = _mm512_load_ps(scale + r * LQT__FAST_ROWS);
#pragma GCC unroll 8
    for (int c = 0; c < COLS; c++) {
      float *sum = sums[r][c], *to = out + (c * PANEL + r) * LQT__FAST_ROWS;
      __m512 value = _mm512_cvtepi32_ps(acc[r][c]);
      value = first ? _mm512_mul_ps(value, factor)
                    : _mm512_fmadd_ps(value, factor, _mm512_load_ps(sum));
      if (last) {
        value = _mm512_fmadd_ps(value, _mm512_set1_ps(x_scale[c]), _mm512_load_ps(to));
        _mm512_store_ps(to, value);
      } else {
        _mm512_store_ps(sum, value);
      }
    }
  }
}

/* One tile of weights with 8 tokens: for each part (columns with a common
 * activation scale) the sums of its units by group scale, then out +=
 * activation scale * sums. */
LQT__FAST_INLINE void tile_product(const tile_job *job, const uint32_t *x, const int32_t *start,
                                   const float *x_scale, float *out, const uint64_t n,
                                   const uint64_t part, const uint64_t unit) {
  _Alignas(64) tile_sums sums;
  __m512i acc[PANEL][COLS];
  const int8_t *tile = job->tile;
  const float *scale = job->scales[0][0];
  for (uint64_t k = 0; k < n; k += part) {
    const uint64_t end = n - k < part ? n : k + part;
    for (uint64_t i = k; i < end; i += unit) {
      const uint64_t m = end - i < unit ? end - i : unit;
      const bool first = i == k, last = i + m == end;
      unit_product(tile, x, start, m / 4, acc);
      if (first && last) {
        finish_unit(acc, scale, sums, x_scale, out, true, true);
      } else if (first) {
        finish_unit(acc, scale, sums, x_scale, out, true, false);
      } else if (last) {
        finish_unit(acc, scale, sums, x_scale, out, false, true);
      } else {
        finish_unit(acc, scale, sums, x_scale, out, false, false);
      }
      tile += m * LQT__FAST_ROWS;
      x += m / 4 * 2 * COLS;
      start += COLS;
      scale += PANEL * LQT__FAST_ROWS;
    }
    x_scale += COLS;
  }
}

/* With constant loop counts it is a tenth faster, so the common group sizes
 * have their own. */
static void run_tile(const tile_job *job, const uint32_t *x, const int32_t *start,
                     const float *x_scale, float *out) {
  if (job->n == KC && job->part == KC && job->unit == 64) {
    tile_product(job, x, start, x_scale, out, KC, KC, 64);
  } else if (job->n == KC && job->part == KC && job->unit == 32) {
    tile_product(job, x, start, x_scale, out, KC, KC, 32);
  } else if (job->n == KC && job->part == KC && job->unit == 128) {
    tile_product(job, x, start, x_scale, out, KC, KC, 128);
  } else if (job->n == KC && job->part == KC && job->unit == KC) {
    tile_product(job, x, start, x_scale, out, KC, KC, KC);
  } else if (job->n == KC && job->part == 64 && job->unit == 64) {
    tile_product(job, x, start, x_scale, out, KC, 64, 64);
  } else {
    tile_product(job, x, start, x_scale, out, job->n, job->part, job->unit);
  }
}

/* Groups are powers of two, but for one that is the whole padded row. */
static int group_shift(const lqt__cpu_fast *w) {
  return w->groups == 1 ? 63 : __builtin_ctzll(w->group);
}

static void unit_scales(const lqt__cpu_fast *w, uint64_t panel, uint64_t k, tile_job *job) {
  const int shift = group_shift(w);
  for (uint64_t u = 0; u * job->unit < job->n; u++) {
    for (uint64_t r = 0; r < PANEL; r++) {
      __m512 factor = _mm512_set1_ps(1.0f);
      if (w->scales != NULL) {
        const uint64_t group = (k + u * job->unit) >> shift;
        const uint16_t *at = w->scales + ((panel * PANEL + r) * w->groups + group) * LQT__FAST_ROWS;
        factor = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)at));
      }
      _mm512_store_ps(job->scales[u][r], factor);
    }
  }
}

/* What is read after a tile: the packed columns of the next one and their group
 * scales. It is fetched from memory during the products, a part with each tile
 * of tokens. */
typedef struct ahead {
  const char *stream, *scales;
  uint64_t block_bytes, block_scales; /* between the rows of blocks */
  uint64_t lines, share;              /* cache lines of a block, and with a tile of tokens */
  uint64_t scale_lines;
} ahead;

static ahead after(const lqt__cpu_fast *w, uint64_t panel, uint64_t k, uint64_t n, unsigned tiles) {
  const lqt__fast_plane *plane = &w->plane[0];
  const lqt__fast_format *format = &lqt__fast_formats[plane->kind];
  const bool turn = k + n == w->kpad;
  const uint64_t block = (panel + turn) * PANEL, next = turn ? 0 : k + n;
  ahead a = {.block_bytes = plane->block_bytes, .block_scales = w->groups * LQT__FAST_ROWS * 2};
  a.stream = (const char *)plane->stream + block * plane->block_bytes +
             next / format->span * format->span_bytes;
  a.lines = n / format->span * format->span_bytes / 64;
  a.share = (a.lines + tiles - 1) / tiles;
  if (w->scales != NULL) {
    const int shift = group_shift(w);
    a.scales = (const char *)(w->scales + (block * w->groups + (next >> shift)) * LQT__FAST_ROWS);
    a.scale_lines = ((n >> shift) + 2) / 2;
  }
  return a;
}

/* Inlined because GCC drops calls of a function that only prefetches. */
LQT__FAST_INLINE void fetch(const ahead *a, unsigned tile) {
  const uint64_t first = tile * a->share;
  for (uint64_t r = 0; r < PANEL; r++) {
    for (uint64_t i = first; i < first + a->share && i < a->lines; i++) {
      _mm_prefetch(a->stream + r * a->block_bytes + i * 64, _MM_HINT_T1);
    }
    for (uint64_t i = 0; tile == 0 && i < a->scale_lines; i++) {
      _mm_prefetch(a->scales + r * a->block_scales + i * 64, _MM_HINT_T1);
    }
  }
}

void lqt__fast_panel_int8_avx512(const lqt__cpu_fast *w, uint64_t panel, const lqt__fast_x8 *x,
                                 const int32_t *const *starts, unsigned tiles, float *out,
                                 const lqt__fast_later *later) {
  tile_job job;
  const unsigned out_stride = COLS * PANEL * LQT__FAST_ROWS;
  job.part = w->plane[0].tables->s8_part;
  job.unit = lqt__fast_int8_unit(w);
  memset(out, 0, (size_t)tiles * out_stride * sizeof *out);
  for (uint64_t k = 0; k < w->kpad; k += KC) {
    job.n = w->kpad - k < KC ? w->kpad - k : KC;
    unit_scales(w, panel, k, &job);
    switch (w->plane[0].kind) {
      case LQT__FAST_S2:
        decode_tile(w, panel, k, job.n, job.tile, LQT__FAST_S2);
        break;
      case LQT__FAST_S3:
        decode_tile(w, panel, k, job.n, job.tile, LQT__FAST_S3);
        break;
      default:
        decode_tile(w, panel, k, job.n, job.tile, LQT__FAST_S4);
    }
    const ahead next = after(w, panel, k, job.n, tiles);
    const unsigned step = (unsigned)(k / KC) % COLS;
    /* Divisions once a tile of weights: they are slow enough to show. */
    const uint64_t quad = k / 4 * 2 * COLS, start = k / job.unit * COLS,
                   scale = k / job.part * COLS;
    for (unsigned t = 0; t < tiles; t++) {
      fetch(&next, t);
      /* Outputs of a token, one of the tile's eight with each step along k. */
      const unsigned token = t * COLS + step;
      if (token < later->tokens) {
        const float *y = later->y + token * later->y_stride;
        __builtin_prefetch(y, 1);
        __builtin_prefetch(y + LQT__FAST_ROWS, 1);
      }
      run_tile(&job, x[t].quads + quad, starts[t] + start, x[t].scales + scale,
               out + t * out_stride);
    }
  }
}

/* Levels of 16 activations: magnitudes and sign bits; adds up the sums of the
 * int8 contract. */
static void quantize_16(const float *x, float inverse, uint8_t *magnitude, uint8_t *sign,
                        int32_t *sums) {
  __m512i level = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)));
  __mmask16 negative = _mm512_movepi32_mask(level);
  __m512i size = _mm512_abs_epi32(level);
  _mm_storeu_si128((__m128i *)magnitude, _mm512_cvtepi32_epi8(size));
  _mm_storeu_si128((__m128i *)sign, _mm_movm_epi8(negative));
  sums[0] = _mm512_mask_reduce_add_epi32(negative, size);
  sums[COLS] = _mm512_reduce_add_epi32(level);
}

/* One scale's columns [k, k + n) of one token; `order` brings 64 columns into
 * quads. */
static void quantize_part(const float *x, uint64_t cols, uint64_t k, uint64_t n, __m512i order,
                          unsigned token, float *scale, const lqt__fast_x8 *out) {
  _Alignas(64) float values[KC] = {0};
  _Alignas(64) uint8_t bytes[2][64];
  _Alignas(64) uint32_t quads[2][16];
  if (k < cols) memcpy(values, x + k, (n < cols - k ? n : cols - k) * sizeof *values);
  __m512 top = _mm512_setzero_ps(), poison = _mm512_setzero_ps();
  for (uint64_t i = 0; i < n; i += 16) {
    __m512 v = _mm512_load_ps(values + i);
    top = _mm512_max_ps(_mm512_abs_ps(v), top);
    poison = _mm512_fmadd_ps(v, _mm512_setzero_ps(), poison);
  }
  /* An infinity or a NaN among the activations makes the products of this part
   * NaN. */
  const bool finite = _mm512_reduce_add_ps(poison) == 0.0f;
  const float most = _mm512_reduce_max_ps(top);
  float inverse = finite && most > 0.0f ? 255.0f / most : 0.0f;
  if (!isfinite(inverse)) inverse = 0.0f;
  if (!finite) memset(values, 0, sizeof values);
  *scale = finite ? most / 255.0f : NAN;
  for (uint64_t i = 0; i < n; i += 64) {
    const uint64_t part = n - i < 64 ? n - i : 64;
    for (uint64_t j = 0; j < part; j += 16) {
      quantize_16(values + i + j, inverse, bytes[0] + j, bytes[1] + j,
                  out->sums + (k + i + j) / 16 * 2 * COLS + token);
    }
    for (unsigned b = 0; b < 2; b++) {
      _mm512_store_si512(quads[b], _mm512_permutexvar_epi8(order, _mm512_load_si512(bytes[b])));
    }
    uint32_t *to = out->quads + (k + i) / 4 * 2 * COLS + token;
    for (uint64_t q = 0; q < part / 4; q++) {
      to[q * 2 * COLS] = quads[0][q];
      to[q * 2 * COLS + COLS] = quads[1][q];
    }
  }
}

void lqt__fast_x_int8_avx512(const float *x, uint64_t x_stride, unsigned tokens, uint64_t cols,
                             uint64_t kpad, lqt__fast_kind kind, unsigned part,
                             const lqt__fast_x8 *out) {
  const unsigned span = lqt__fast_formats[kind].span;
  _Alignas(64) uint8_t order[64];
  for (unsigned i = 0; i < 64; i++) {
    order[i] = (uint8_t)(i / span * span + quad_column(kind, i % span / 4, i % 4));
  }
  for (unsigned token = 0; token < COLS; token++) {
    const bool present = token < tokens;
    for (uint64_t k = 0; k < kpad; k += part) {
      uint64_t n = kpad - k < part ? kpad - k : part;
      quantize_part(present ? x + token * x_stride : NULL, present ? cols : 0, k, n,
                    _mm512_load_si512(order), token, out->scales + k / part * COLS + token, out);
    }
  }
}

uint64_t lqt__fast_int8_unit(const lqt__cpu_fast *w) {
  const uint64_t part = w->plane[0].tables->s8_part;
  return w->group < part ? w->group : part;
}

void lqt__fast_int8_starts(const lqt__fast_x8 *x, uint64_t kpad, uint64_t unit, float offset,
                           int32_t *out) {
  for (uint64_t k = 0; k < kpad; k += unit) {
    uint64_t n = kpad - k < unit ? kpad - k : unit;
    for (unsigned c = 0; c < COLS; c++) {
      int32_t negative = 0, sum = 0;
      for (uint64_t i = k / 16; i < (k + n) / 16; i++) {
        negative += x->sums[i * 2 * COLS + c];
        sum += x->sums[i * 2 * COLS + COLS + c];
      }
      out[k / unit * COLS + c] = negative + (int32_t)rintf(offset * (float)sum);
    }
  }
}
