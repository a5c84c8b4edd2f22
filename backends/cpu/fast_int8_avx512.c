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

#include "base/alloc.h"
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
    index = _mm512_and_si512(index, _mm512_set1_epi8(15)); /* the table repeats within 16 */
    _mm512_store_si512(out + q * PANEL * 64, _mm512_shuffle_epi8(table, index));
  }
}

/* Column within its span of byte b of quad q. */
static unsigned quad_column(lqt__fast_kind kind, unsigned q, unsigned b) {
  if (kind == LQT__FAST_S2) return q + 4 * b;
  if (kind == LQT__FAST_S3) return 2 * q + (b & 1) + 16 * (b >> 1);
  return q + 2 * b;
}

/* What the products of a tile share. */
typedef struct tile_job {
  /* [quad][PANEL][64]: one stream, whatever the number of rows. */
  _Alignas(64) int8_t tile[PANEL * KC * LQT__FAST_ROWS];
  _Alignas(64) float scales[KC / 16][PANEL][LQT__FAST_ROWS]; /* group scales of the units */
  uint64_t n;                                                /* columns */
  uint64_t unit, part;
} tile_job;

/* The tile after the present one is decoded between the present one's products, a share with each
 * unit: the processor does both at once. What follows it is fetched from memory meanwhile. */
typedef struct decoder {
  const uint8_t *src[PANEL];
  ptrdiff_t ahead; /* from a span to the same one of the tile after it */
  int8_t *out;
  uint64_t left, share; /* spans; share: with each unit */
} decoder;

LQT__FAST_INLINE void decode_some(decoder *d, uint64_t spans, __m512i table,
                                  const lqt__fast_kind kind) {
  const uint64_t span = lqt__fast_formats[kind].span, bytes = lqt__fast_formats[kind].span_bytes;
  const uint64_t n = spans < d->left ? spans : d->left;
  d->left -= n;
  for (uint64_t i = 0; i < n; i++) {
#pragma GCC unroll 2
    for (int r = 0; r < PANEL; r++) {
      for (uint64_t b = 0; b < bytes; b += 64) {
        _mm_prefetch((const char *)d->src[r] + d->ahead + b, _MM_HINT_T1);
      }
      decode_span(kind, d->src[r], table, d->out + r * 64);
      d->src[r] += bytes;
    }
    d->out += span * PANEL * LQT__FAST_ROWS;
  }
}

/* One unit (columns with a common group scale) of a tile: acc = start + sum of products. */
LQT__FAST_INLINE void unit_product(const int8_t *tile, const uint32_t *x, const int32_t *start,
                                   uint64_t quads, __m512i acc[PANEL][COLS]) {
#pragma GCC unroll 8
  for (int c = 0; c < COLS; c++) {
    acc[0][c] = _mm512_set1_epi32(start[c]);
    acc[1][c] = acc[0][c];
  }
  const uint32_t *const end = x + quads * 2 * COLS;
#pragma GCC unroll 1
  do {
    const __m512i w0 = _mm512_load_si512(tile), w1 = _mm512_load_si512(tile + 64);
#pragma GCC unroll 8
    for (int c = 0; c < COLS; c++) {
      const __m512i magnitude = _mm512_set1_epi32((int)x[c]);
      const __m512i sign = _mm512_set1_epi32((int)x[COLS + c]);
      dot_quads(&acc[0][c], magnitude, _mm512_xor_si512(w0, sign));
      dot_quads(&acc[1][c], magnitude, _mm512_xor_si512(w1, sign));
    }
    tile += PANEL * 64;
    x += 2 * COLS;
  } while (x != end);
}

/* One tile of weights with 8 tokens: for each part (columns with a common activation scale) the
 * sums of its units by group scale, then out += activation scale * sums. */
LQT__FAST_INLINE void tile_product(const tile_job *job, const uint32_t *x, const int32_t *start,
                                   const float *x_scale, float *out, decoder *next, __m512i table,
                                   const lqt__fast_kind kind) {
  const int8_t *tile = job->tile;
  const float *scale = job->scales[0][0];
  const uint64_t unit = job->unit, part = job->part;
  for (uint64_t left = job->n; left != 0;) {
    uint64_t in_part = left < part ? left : part;
    __m512 sums[PANEL][COLS];
#pragma GCC unroll 8
    for (int c = 0; c < COLS; c++) sums[0][c] = sums[1][c] = _mm512_setzero_ps();
    left -= in_part;
    while (in_part != 0) {
      const uint64_t n = in_part < unit ? in_part : unit;
      __m512i acc[PANEL][COLS];
      unit_product(tile, x, start, n / 4, acc);
#pragma GCC unroll 2
      for (int r = 0; r < PANEL; r++) {
        const __m512 factor = _mm512_load_ps(scale + r * LQT__FAST_ROWS);
#pragma GCC unroll 8
        for (int c = 0; c < COLS; c++) {
          sums[r][c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][c]), factor, sums[r][c]);
        }
      }
      if (next->left != 0) decode_some(next, next->share, table, kind);
      tile += n * PANEL * LQT__FAST_ROWS;
      x += n / 4 * 2 * COLS;
      start += COLS;
      scale += PANEL * LQT__FAST_ROWS;
      in_part -= n;
    }
#pragma GCC unroll 8
    for (int c = 0; c < COLS; c++) {
      const __m512 factor = _mm512_set1_ps(x_scale[c]);
#pragma GCC unroll 2
      for (int r = 0; r < PANEL; r++) {
        float *to = out + (c * PANEL + r) * LQT__FAST_ROWS;
        _mm512_store_ps(to, _mm512_fmadd_ps(sums[r][c], factor, _mm512_load_ps(to)));
      }
    }
    x_scale += COLS;
  }
}

#define TILE_PRODUCT(kind)                                                                \
  __attribute__((noinline)) static void tile_product_##kind(                              \
      const tile_job *job, const uint32_t *x, const int32_t *start, const float *x_scale, \
      float *out, decoder *next, __m512i table) {                                         \
    tile_product(job, x, start, x_scale, out, next, table, LQT__FAST_##kind);             \
  }                                                                                       \
  __attribute__((noinline)) static void decode_rest_##kind(decoder *d, __m512i table) {   \
    decode_some(d, d->left, table, LQT__FAST_##kind);                                     \
  }
TILE_PRODUCT(S2)
TILE_PRODUCT(S3)
TILE_PRODUCT(S4)
static const struct {
  void (*product)(const tile_job *job, const uint32_t *x, const int32_t *start,
                  const float *x_scale, float *out, decoder *next, __m512i table);
  void (*decode_rest)(decoder *d, __m512i table);
} of_kind[] = {
    [LQT__FAST_S2] = {tile_product_S2, decode_rest_S2},
    [LQT__FAST_S3] = {tile_product_S3, decode_rest_S3},
    [LQT__FAST_S4] = {tile_product_S4, decode_rest_S4},
};

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

/* A tile of weights: 32 rows, LQT__FAST_KC columns from k on. */
typedef struct place {
  uint64_t panel, k;
} place;

static place after(const lqt__cpu_fast *w, place at) {
  const uint64_t k = at.k + KC;
  return k < w->kpad ? (place){at.panel, k} : (place){at.panel + 1, 0};
}

static const uint8_t *stream_at(const lqt__cpu_fast *w, place at, uint64_t block) {
  const lqt__fast_plane *plane = &w->plane[0];
  const lqt__fast_format *format = &lqt__fast_formats[plane->kind];
  return plane->stream + (at.panel * PANEL + block) * plane->block_bytes +
         at.k / format->span * format->span_bytes;
}

/* Group scales of the tile after this one, into the second-level cache. Inlined because GCC drops
 * calls of a function that only prefetches. */
LQT__FAST_INLINE void fetch_scales(const lqt__cpu_fast *w, place at, uint64_t n) {
  if (w->scales == NULL) return;
  const int shift = group_shift(w);
  for (uint64_t r = 0; r < PANEL; r++) {
    const uint64_t first = (at.panel * PANEL + r) * w->groups + (at.k >> shift);
    const char *scales = (const char *)(w->scales + first * LQT__FAST_ROWS);
    for (uint64_t i = 0; i < ((n >> shift) + 2) / 2; i++) {
      _mm_prefetch(scales + i * 64, _MM_HINT_T1);
    }
  }
}

/* Makes `job` the tile at `at`, but for the indices, which `d` will decode in `shares` goes. */
static void begin_tile(const lqt__cpu_fast *w, place at, uint64_t shares, tile_job *job,
                       decoder *d) {
  const lqt__fast_format *format = &lqt__fast_formats[w->plane[0].kind];
  const place then = after(w, at);
  job->part = w->plane[0].tables->s8_part;
  job->unit = lqt__fast_int8_unit(w);
  job->n = w->kpad - at.k < KC ? w->kpad - at.k : KC;
  unit_scales(w, at.panel, at.k, job);
  fetch_scales(w, then, job->n);
  for (uint64_t r = 0; r < PANEL; r++) d->src[r] = stream_at(w, at, r);
  d->ahead = stream_at(w, then, 0) - d->src[0];
  d->out = job->tile;
  d->left = lqt__ceil_div(job->n, format->span);
  d->share = lqt__ceil_div(d->left, shares);
}

/* The products of one tile with all tokens, and the decoding of the next one. */
static void run_tile(const lqt__cpu_fast *w, place at, const lqt__fast_int8_run *run,
                     const tile_job *job, float *out, decoder *next) {
  enum { ROWS = PANEL * LQT__FAST_ROWS };
  const lqt__fast_kind kind = w->plane[0].kind;
  const __m512i table = _mm512_load_si512(w->plane[0].tables->s8);
  const unsigned step = (unsigned)(at.k / KC) % COLS;
  /* Divisions once a tile of weights: they are slow enough to show. */
  const uint64_t quad = at.k / KC * run->x->stride, start = at.k / job->unit * COLS,
                 scale = at.k / job->part * COLS;
  for (unsigned t = 0; t < run->tiles; t++) {
    /* Outputs of a token, one of the tile's eight with each step along k. */
    const unsigned token = t * COLS + step;
    if (token < run->tokens) {
      const float *y = run->y + at.panel * ROWS + token * run->y_stride;
      __builtin_prefetch(y, 1);
      __builtin_prefetch(y + LQT__FAST_ROWS, 1);
    }
    of_kind[kind].product(job, run->x[t].quads + quad, run->starts[t] + start,
                          run->x[t].scales + scale, out + t * COLS * ROWS, next, table);
  }
  of_kind[kind].decode_rest(next, table);
}

void lqt__fast_panels_int8_avx512(const lqt__cpu_fast *w, uint64_t first, uint64_t end,
                                  const lqt__fast_int8_run *run) {
  _Alignas(64) float out[LQT__FAST_CHUNK * PANEL * LQT__FAST_ROWS];
  tile_job jobs[2];
  unsigned turn = 0;
  decoder next;
  if (first == end) return;
  const uint64_t shares = run->tiles * lqt__ceil_div(KC, lqt__fast_int8_unit(w));
  begin_tile(w, (place){first, 0}, 1, &jobs[0], &next);
  of_kind[w->plane[0].kind].decode_rest(&next, _mm512_load_si512(w->plane[0].tables->s8));
  for (uint64_t panel = first; panel < end; panel++) {
    memset(out, 0, (size_t)run->tiles * COLS * PANEL * LQT__FAST_ROWS * sizeof *out);
    for (place at = {panel, 0}; at.panel == panel; at = after(w, at)) {
      const place then = after(w, at);
      if (then.panel < end) begin_tile(w, then, shares, &jobs[turn ^ 1], &next);
      run_tile(w, at, run, &jobs[turn], out, &next);
      turn ^= 1;
    }
    run->finish(run->context, panel, out);
  }
}

/* What 64 activations of one token become: bytes in the order of the quads, and the sums of the
 * int8 contract over 16 of them each. */
typedef struct levels {
  _Alignas(64) uint32_t quads[2][16]; /* magnitudes, signs */
  int32_t negative[4], sum[4];
} levels;

/* How 64 packed bytes become quads: words into the order of the columns, or what comes closest when
 * a quad has columns from two 16-byte lanes; then bytes within a lane. */
typedef struct quad_order {
  __m512i words, bytes;
} quad_order;

/* Packing four vectors of 16 leaves byte d of lane l of vector j at 16 * l + 4 * j + d. */
static quad_order order_of(lqt__fast_kind kind) {
  const unsigned span = lqt__fast_formats[kind].span;
  _Alignas(64) uint16_t words[32];
  _Alignas(64) uint8_t bytes[64];
  for (unsigned i = 0; i < 64; i++) {
    const unsigned first = i / span * span;
    unsigned from = first + i % span; /* the column whose word is brought here */
    bytes[i] = (uint8_t)(i % 16);
    if (kind == LQT__FAST_S3) {
      from = first + quad_column(kind, i % span / 4, i % 4);
    } else {
      bytes[i] = (uint8_t)((first + quad_column(kind, i % span / 4, i % 4)) % 16);
    }
    if (i % 2 == 0) words[i / 2] = (uint16_t)((from / 4 % 4 * 16 + from / 16 * 4 + from % 4) / 2);
  }
  return (quad_order){_mm512_load_si512(words), _mm512_load_si512(bytes)};
}

LQT__FAST_INLINE __m512i ordered(__m512i packed, const quad_order *order) {
  return _mm512_shuffle_epi8(_mm512_permutexvar_epi16(order->words, packed), order->bytes);
}

/* Sums of 16 bytes. */
static void sum_16(__m512i bytes, int32_t out[4]) {
  const __m512i halves = _mm512_sad_epu8(bytes, _mm512_setzero_si512());
  const __m512i sums = _mm512_add_epi64(halves, _mm512_shuffle_epi32(halves, _MM_PERM_BADC));
  _Alignas(64) uint64_t all[8];
  _mm512_store_si512(all, sums);
  for (unsigned i = 0; i < 4; i++) out[i] = (int32_t)all[2 * i];
}

LQT__FAST_INLINE __m512 load_some(const float *x, uint64_t left) {
  if (left >= 16) return _mm512_loadu_ps(x);
  return _mm512_maskz_loadu_ps((__mmask16)((1u << left) - 1), x);
}

/* 64 activations at x, of which `left` are there. */
LQT__FAST_INLINE void quantize_64(const float *x, uint64_t left, __m512 inverse,
                                  const quad_order *order, levels *out) {
  __m512i words[2], level[4];
#pragma GCC unroll 4
  for (unsigned i = 0; i < 4; i++) {
    const __m512 v = load_some(x + 16 * i, left > 16 * i ? left - 16 * i : 0);
    level[i] = _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
  }
  words[0] = _mm512_packs_epi32(level[0], level[1]);
  words[1] = _mm512_packs_epi32(level[2], level[3]);
  __m512i sizes = _mm512_packus_epi16(_mm512_abs_epi16(words[0]), _mm512_abs_epi16(words[1]));
  __m512i signs =
      _mm512_packs_epi16(_mm512_srai_epi16(words[0], 15), _mm512_srai_epi16(words[1], 15));
  sizes = ordered(sizes, order);
  signs = ordered(signs, order);
  _mm512_store_si512(out->quads[0], sizes);
  _mm512_store_si512(out->quads[1], signs);
  sum_16(_mm512_and_si512(sizes, signs), out->negative);
  sum_16(sizes, out->sum);
  for (unsigned i = 0; i < 4; i++) out->sum[i] -= 2 * out->negative[i];
}

/* One scale's columns [k, k + n) of one token, of which `left` are there. An infinity or a NaN
 * among them makes the products of this part NaN. */
static void quantize_part(const float *x, uint64_t left, uint64_t k, uint64_t n,
                          const quad_order *order, unsigned token, float *scale,
                          const lqt__fast_x8 *out) {
  __m512 top = _mm512_setzero_ps(), poison = _mm512_setzero_ps();
  for (uint64_t i = 0; i < n && i < left; i += 16) {
    const __m512 v = load_some(x + i, left - i);
    top = _mm512_max_ps(_mm512_abs_ps(v), top);
    poison = _mm512_fmadd_ps(v, _mm512_setzero_ps(), poison);
  }
  const bool finite = _mm512_reduce_add_ps(poison) == 0.0f;
  const float most = _mm512_reduce_max_ps(top);
  float inverse = finite && most > 0.0f ? 255.0f / most : 0.0f;
  if (!isfinite(inverse)) inverse = 0.0f;
  if (!finite) left = 0;
  *scale = finite ? most / 255.0f : NAN;
  for (uint64_t i = 0; i < n; i += 64) {
    levels l;
    quantize_64(x + i, left > i ? left - i : 0, _mm512_set1_ps(inverse), order, &l);
    const uint64_t part = n - i < 64 ? n - i : 64;
    uint32_t *to = out->quads + (k + i) / KC * out->stride + (k + i) % KC / 4 * 2 * COLS + token;
    for (uint64_t q = 0; q < part / 4; q++) {
      to[q * 2 * COLS] = l.quads[0][q];
      to[q * 2 * COLS + COLS] = l.quads[1][q];
    }
    for (uint64_t j = 0; j < part / 16; j++) {
      int32_t *sums = out->sums + ((k + i) / 16 + j) * 2 * COLS + token;
      sums[0] = l.negative[j];
      sums[COLS] = l.sum[j];
    }
  }
}

void lqt__fast_x_int8_avx512(const float *x, uint64_t x_stride, unsigned tokens, uint64_t cols,
                             uint64_t kpad, lqt__fast_kind kind, unsigned part,
                             const lqt__fast_x8 *out) {
  const quad_order order = order_of(kind);
  for (unsigned token = 0; token < COLS; token++) {
    const uint64_t present = token < tokens ? cols : 0;
    for (uint64_t k = 0; k < kpad; k += part) {
      const uint64_t n = kpad - k < part ? kpad - k : part;
      quantize_part(x + (present != 0 ? token * x_stride + k : 0), present > k ? present - k : 0, k,
                    n, &order, token, out->scales + k / part * COLS + token, out);
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
