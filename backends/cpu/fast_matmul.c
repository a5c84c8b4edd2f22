/* The fast product: which weights it takes, which kernel runs, and how rows are shared out. */
#include "fast_matmul.h"

#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "fast_internal.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

lqt__cpu_isa lqt__cpu_best_isa(void) {
  lqt__cpu_isa best = LQT__CPU_SCALAR;
#if defined(__x86_64__)
  __builtin_cpu_init();
  unsigned a, b, c = 0, d; /* clang 14's __builtin_cpu_supports does not know f16c */
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  if (!f16c || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("bmi2")) {
    return best;
  }
  best = LQT__CPU_AVX2;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
    return best;
  }
  best = LQT__CPU_AVX512F;
  if (!__builtin_cpu_supports("avx512vnni")) return best;
  best = LQT__CPU_AVX512_VNNI;
  if (!__builtin_cpu_supports("avx512vbmi")) return best;
  best = LQT__CPU_AVX512_VBMI;
  if (__builtin_cpu_supports("avx512bf16")) best = LQT__CPU_AVX512;
#endif
  return best;
}

typedef enum path {
  PATH_F32_AVX2,
  PATH_INT16_AVX2,
  PATH_F32_AVX512,
  PATH_BF16_AVX512,
  PATH_INT8_AVX512,
  PATHS
} path;

#define NAMES(kind)                                                                      \
  {                                                                                      \
    "lqt_matmul_" kind "_f32_16x4__avx2", "lqt_matmul_" kind "_int16_16x4__avx2",        \
        "lqt_matmul_" kind "_f32_16x8__avx512", "lqt_matmul_" kind "_bf16_16x8__avx512", \
        "lqt_matmul_" kind "_int8_32x8__avx512"                                          \
  }
static const char *const names[LQT__FAST_KINDS][PATHS] = {
    [LQT__FAST_S2] = NAMES("cb2"),     [LQT__FAST_S3] = NAMES("cb3"),
    [LQT__FAST_S4] = NAMES("cb4"),     [LQT__FAST_S8] = NAMES("cb8"),
    [LQT__FAST_V2_4] = NAMES("cb4v2"), [LQT__FAST_V4_4] = NAMES("cb4v4"),
    [LQT__FAST_V2_8] = NAMES("cb8v2"), [LQT__FAST_V4_8] = NAMES("cb8v4"),
    [LQT__FAST_F32] = NAMES("f32"),    [LQT__FAST_F16] = NAMES("f16"),
    [LQT__FAST_BF16] = NAMES("bf16"),
};

#if defined(__x86_64__)

static const struct {
  lqt__fast_block_fn block; /* NULL: the int8 panels */
  uint8_t widths[5];        /* tokens at a time, ascending, 0 at the end */
} paths[PATHS] = {
    [PATH_F32_AVX2] = {lqt__fast_block_f32_avx2, {1, 4}},
    [PATH_F32_AVX512] = {lqt__fast_block_f32_avx512, {1, 4, 8}},
    [PATH_BF16_AVX512] = {lqt__fast_block_bf16_avx512, {1, 2, 4, 8}},
    [PATH_INT16_AVX2] = {NULL, {4}},
    [PATH_INT8_AVX512] = {NULL, {8}},
};

/* Tokens from which the int8 kernel is faster than the bfloat16 one (measured; its tile of 8 tokens
 * and the decoding to int8 pay from here on). */
enum {
  INT8_TOKENS = 9,
  INT8_ROWS = 96,      /* fewer do not fill its panels */
  ROUNDED_SIZE = 4096, /* elements of a weight below which there is no time to save by rounding */
};

/* Every plane has a 16-bit form that rounds next to nothing. */
static bool has_int16(const lqt__cpu_fast *w) {
  for (unsigned p = 0; p < w->planes; p++) {
    const lqt__fast_plane *plane = &w->plane[p];
    if (plane->tables == NULL || lqt__fast_formats[plane->kind].bits > 4 || plane->mask != NULL ||
        plane->tables->s16_error > 0.001f) {
      return false;
    }
  }
  return !w->exact && w->rows * w->cols >= ROUNDED_SIZE;
}

static path pick(const lqt__cpu_fast *w, uint64_t tokens) {
  const lqt__fast_kind kind = w->plane[0].kind;
  bool wide = lqt__fast_formats[kind].bits == 8; /* lookups by byte permutes */
  for (unsigned p = 1; p < w->planes; p++) wide |= lqt__fast_formats[w->plane[p].kind].bits == 8;
  if (w->isa < LQT__CPU_AVX512F || (wide && w->isa < LQT__CPU_AVX512_VBMI)) {
    return has_int16(w) ? PATH_INT16_AVX2 : PATH_F32_AVX2;
  }
  if (w->exact || kind >= LQT__FAST_F32 || w->rows * w->cols < ROUNDED_SIZE) {
    return PATH_F32_AVX512;
  }
  bool int8 = w->isa >= LQT__CPU_AVX512_VNNI && kind <= LQT__FAST_S4 && w->planes == 1 &&
              w->plane[0].mask == NULL && w->rows >= INT8_ROWS && w->plane[0].tables->s8_part != 0;
  if (int8 && tokens >= INT8_TOKENS) return PATH_INT8_AVX512;
  return w->isa >= LQT__CPU_AVX512 ? PATH_BF16_AVX512 : PATH_F32_AVX512;
}

/* The kind of a codebook's stream; LQT__FAST_KINDS when there is none. */
static lqt__fast_kind kind_of(uint32_t bits, uint32_t dim, uint32_t group) {
  /* Spans of 32 columns do not fit groups of 16: the next wider index does. */
  const bool narrow = group == 16;
  if (bits > 8 || dim > 4) return LQT__FAST_KINDS;
  if (dim == 1) {
    if (bits == 2) return LQT__FAST_S2;
    if (bits == 3 && !narrow) return LQT__FAST_S3;
    return bits <= 4 ? LQT__FAST_S4 : LQT__FAST_S8;
  }
  if (dim == 2) return bits <= 4 ? LQT__FAST_V2_4 : LQT__FAST_V2_8;
  return bits <= 4 && !narrow ? LQT__FAST_V4_4 : LQT__FAST_V4_8;
}

static bool describe(const lqt_weight_desc *desc, lqt__cpu_fast *w) {
  w->planes = 1;
  if (desc->delta.kind != LQT_DELTA_NONE && desc->delta.kind != LQT_DELTA_CSR) return false;
  switch (desc->dtype) {
    case LQT_DTYPE_F32:
      w->plane[0].kind = LQT__FAST_F32;
      break;
    case LQT_DTYPE_F16:
      w->plane[0].kind = LQT__FAST_F16;
      break;
    case LQT_DTYPE_BF16:
      w->plane[0].kind = LQT__FAST_BF16;
      break;
    case LQT_DTYPE_CODEBOOK:
      if (desc->codebook.banks != 1) return false;
      w->centred = desc->zero_points != NULL;
      w->plane[0].kind = kind_of(desc->indices.bits, desc->codebook.vector_dim, desc->group_size);
      w->plane[0].source_bits = desc->indices.bits;
      if (desc->residual.vectors != NULL) {
        w->planes = 2;
        w->plane[1].kind =
            kind_of(desc->residual_indices.bits, desc->residual.vector_dim, desc->group_size);
        w->plane[1].source_bits = desc->residual_indices.bits;
        if (w->plane[1].kind == LQT__FAST_KINDS) return false;
      }
      break;
    default:
      return false;
  }
  return w->plane[0].kind != LQT__FAST_KINDS;
}

lqt_status lqt__cpu_fast_create(const lqt_weight_desc *desc, lqt__cpu_isa isa, bool exact,
                                lqt__pool *pool, lqt__cpu_fast **out, lqt_diag *diag) {
  *out = NULL;
  lqt__cpu_fast shape = {.rows = desc->rows, .cols = desc->cols};
  if (isa == LQT__CPU_SCALAR || isa > lqt__cpu_best_isa() || !describe(desc, &shape)) return LQT_OK;
  lqt__cpu_fast *w = lqt__alloc_zero(sizeof *w);
  if (w == NULL) return lqt__fail_memory(diag, NULL, sizeof *w, "a weight");
  *w = shape;
  w->isa = isa;
  w->exact = exact;
  w->scale = desc->scale;
  w->residual_scale = desc->residual_scale;
  w->blocks = lqt__ceil_div(desc->rows, LQT__FAST_ROWS * LQT__FAST_PANEL) * LQT__FAST_PANEL;
  w->kpad = lqt__ceil_div(desc->cols, LQT__FAST_K_ALIGN) * LQT__FAST_K_ALIGN;
  const bool grouped = desc->dtype == LQT_DTYPE_CODEBOOK && desc->group_scales != NULL;
  w->group = grouped && desc->group_size < w->kpad ? desc->group_size : w->kpad;
  w->groups = lqt__ceil_div(w->kpad, w->group);
  if (grouped) {
    w->source_groups = lqt__ceil_div(desc->cols, desc->group_size);
    w->source_gstride = desc->group_row_stride;
  }
  w->index_stride[0] =
      desc->dtype == LQT_DTYPE_CODEBOOK ? desc->indices.row_stride : desc->row_stride;
  w->index_stride[1] = desc->residual_indices.row_stride;
  w->value_dtype[0] = desc->codebook.dtype;
  w->value_dtype[1] = desc->residual.dtype;
  w->mask_stride = desc->mask.row_stride;
  lqt_status status = lqt__fast_pack(w, desc, pool, diag);
  if (status != LQT_OK) {
    lqt__cpu_fast_destroy(w);
    return status;
  }
  *out = w;
  return LQT_OK;
}

void lqt__cpu_fast_destroy(lqt__cpu_fast *w) {
  if (w == NULL) return;
  for (unsigned p = 0; p < 2; p++) {
    lqt__free(w->plane[p].stream);
    lqt__free(w->plane[p].mask);
    lqt__free(w->plane[p].tables);
    lqt__free(w->plane[p].values);
  }
  lqt__free(w->scales);
  lqt__free(w->delta_row_ptr);
  lqt__free(w->delta_columns);
  lqt__free(w->delta_values);
  lqt__free(w);
}

const char *lqt__cpu_fast_variant(const lqt__cpu_fast *w, uint64_t tokens) {
  return names[w->plane[0].kind][pick(w, tokens < LQT__FAST_CHUNK ? tokens : LQT__FAST_CHUNK)];
}

/* One chunk of tokens. Prepared activations are kept while products ask for the same form. */
typedef struct chunk {
  const float *x;
  uint64_t x_stride, cols, kpad;
  unsigned tokens, tiles; /* tiles of 8 tokens */
  lqt__pool *pool;
  path form; /* of `prepared`; PATHS: none yet */
  lqt__fast_kind kind;
  unsigned part; /* columns of an int8 scale */
  uint8_t *prepared;
  int32_t *starts;
  float *xt;
  bool have_xt;
  lqt__fast_x8 x8[LQT__FAST_CHUNK / LQT__FAST_INT8_COLS];
} chunk;

/* Words of the quads of 8 tokens and LQT__FAST_KC columns. */
enum { QUAD_WORDS = LQT__FAST_KC / 4 * 2 * LQT__FAST_INT8_COLS };

static uint64_t quads_bytes(uint64_t kpad, uint64_t tiles) {
  return lqt__ceil_div(kpad, LQT__FAST_KC) * tiles * QUAD_WORDS * sizeof(uint32_t);
}

static uint64_t prepared_bytes(uint64_t kpad, uint64_t tiles) {
  /* Float32 (bfloat16 is half of it); or quads, sums and scales; or 16-bit pairs, as large as
   * quads, and scales. */
  const uint64_t f32 = tiles * LQT__FAST_INT8_COLS * kpad * sizeof(float);
  const uint64_t integers = quads_bytes(kpad, tiles) + tiles * (4 * kpad + kpad / 2 + 64);
  return f32 > integers ? f32 : integers;
}

static uint64_t starts_bytes(uint64_t kpad, uint64_t tiles) {
  return tiles * (kpad / 16) * LQT__FAST_INT8_COLS * sizeof(int32_t);
}

static uint64_t transposed_bytes(uint64_t cols) { return cols * LQT__FAST_CHUNK * sizeof(float); }

/* Where the 16-bit form lies: pairs of all tokens, then their scales. */
static lqt__fast_x16 int16_form(const chunk *c) {
  const uint64_t parts = lqt__ceil_div(c->kpad, LQT__FAST_KC);
  const uint64_t groups = c->tiles * LQT__FAST_INT8_COLS / LQT__FAST_INT16_TOKENS;
  const uint64_t words = parts * groups * (LQT__FAST_KC / 2) * LQT__FAST_INT16_TOKENS;
  uint32_t *pairs = (uint32_t *)c->prepared;
  return (lqt__fast_x16){.pairs = pairs, .scales = (float *)(pairs + words), .groups = groups};
}

static void prepare_int16(const chunk *c, unsigned first, unsigned left) {
  const lqt__fast_x16 x = int16_form(c);
  for (unsigned t = 0; t < left && t < LQT__FAST_INT8_COLS; t++) {
    lqt__fast_x_int16_avx2(c->x + (first + t) * c->x_stride, c->cols, c->kpad,
                           lqt__fast_formats[c->kind].span, first + t, &x);
  }
}

static void prepare_tile(void *context, size_t tile, unsigned worker) {
  (void)worker;
  chunk *c = context;
  const unsigned first = (unsigned)tile * LQT__FAST_INT8_COLS;
  const unsigned left = c->tokens - first;
  const float *x = c->x + first * c->x_stride;
  if (c->form == PATH_INT8_AVX512) {
    lqt__fast_x_int8_avx512(x, c->x_stride, left, c->cols, c->kpad, c->kind, c->part, &c->x8[tile]);
    return;
  }
  if (c->form == PATH_INT16_AVX2) {
    prepare_int16(c, first, left);
    return;
  }
  /* Absent tokens that a wider kernel will read are zeros. */
  for (unsigned t = 0; t < left || (t & (t - 1)) != 0; t++) {
    if (t == LQT__FAST_INT8_COLS) return;
    const bool present = t < left;
    if (c->form == PATH_BF16_AVX512) {
      uint32_t *out = (uint32_t *)c->prepared + (first + t) * (c->kpad / 2);
      lqt__fast_x_bf16_avx512(x + t * c->x_stride, present ? c->cols : 0, c->kpad,
                              lqt__fast_formats[c->kind].span, out);
    } else {
      float *out = (float *)c->prepared + (first + t) * c->kpad;
      const uint64_t n = present ? c->cols : 0;
      if (present) memcpy(out, x + t * c->x_stride, n * sizeof *out);
      memset(out + n, 0, (c->kpad - n) * sizeof *out);
    }
  }
}

static void prepare(chunk *c, path form, lqt__fast_kind kind, unsigned part) {
  /* Float32 is in natural order, the others in that of the kind's spans. */
  const bool f32 = form == PATH_F32_AVX2 || form == PATH_F32_AVX512;
  const bool had_f32 = c->form == PATH_F32_AVX2 || c->form == PATH_F32_AVX512;
  if (f32 ? had_f32 : c->form == form && c->kind == kind && c->part == part) return;
  c->form = form;
  c->kind = kind;
  c->part = part;
  uint8_t *at = c->prepared + quads_bytes(c->kpad, c->tiles);
  for (unsigned t = 0; form == PATH_INT8_AVX512 && t < c->tiles; t++) {
    c->x8[t].quads = (uint32_t *)c->prepared + t * QUAD_WORDS;
    c->x8[t].stride = c->tiles * QUAD_WORDS;
    c->x8[t].sums = (int32_t *)at;
    c->x8[t].scales = (float *)(at + 4 * c->kpad);
    at += 4 * c->kpad + c->kpad / 2 + 64;
  }
  lqt__pool_run(c->tokens * c->kpad >= 16384 ? c->pool : NULL, c->tiles, prepare_tile, c);
}

typedef struct rows_job {
  const chunk *c;
  const lqt__cpu_fast *w;
  const lqt__fast_plane *plane;
  path form;
  lqt__fast_finish finish;
  uint64_t units; /* blocks, or panels of the int8 kernel */
  uint64_t tasks;
  const int32_t *starts[LQT__FAST_CHUNK / LQT__FAST_INT8_COLS];
} rows_job;

static unsigned next_width(path form, unsigned left) {
  const uint8_t *widths = paths[form].widths;
  unsigned i = 0;
  while (widths[i] < left && widths[i + 1] != 0) i++;
  return widths[i];
}

static void run_block(const rows_job *job, uint64_t block) {
  _Alignas(64) float tile[LQT__FAST_CHUNK * LQT__FAST_ROWS];
  const chunk *c = job->c;
  const lqt__cpu_fast *w = job->w;
  if (block * LQT__FAST_ROWS >= w->rows) return;
  memset(tile, 0, c->tiles * LQT__FAST_INT8_COLS * LQT__FAST_ROWS * sizeof *tile);
  const size_t size = job->form == PATH_BF16_AVX512 ? 2 : 4;
  if (job->form == PATH_INT16_AVX2) {
    const lqt__fast_x16 x = int16_form(c);
    lqt__fast_block_int16_avx2(w, job->plane, block, &x, c->tokens, tile);
  }
  for (unsigned t = job->form == PATH_INT16_AVX2 ? c->tokens : 0; t < c->tokens;) {
    unsigned width = next_width(job->form, c->tokens - t);
    paths[job->form].block(w, job->plane, block, c->prepared + t * c->kpad * size, c->kpad, width,
                           tile + t * LQT__FAST_ROWS);
    t += width;
  }
  lqt__fast_store_avx2(&job->finish, block * LQT__FAST_ROWS, LQT__FAST_ROWS, tile, LQT__FAST_ROWS);
}

static void finish_panel(const void *context, uint64_t panel, float *tile) {
  enum { ROWS = LQT__FAST_ROWS * LQT__FAST_PANEL };
  const rows_job *job = context;
  lqt__fast_store_avx2(&job->finish, panel * ROWS, ROWS, tile, ROWS);
}

static void run_rows(void *context, size_t task, unsigned worker) {
  (void)worker;
  const rows_job *job = context;
  const uint64_t first = job->units * task / job->tasks, end = job->units * (task + 1) / job->tasks;
  if (job->form != PATH_INT8_AVX512) {
    for (uint64_t block = first; block < end; block++) run_block(job, block);
    return;
  }
  const lqt__fast_int8_run run = {.x = job->c->x8,
                                  .starts = job->starts,
                                  .tiles = job->c->tiles,
                                  .tokens = job->c->tokens,
                                  .y = job->finish.product->y,
                                  .y_stride = job->finish.product->y_stride,
                                  .finish = finish_panel,
                                  .context = job};
  lqt__fast_panels_int8_avx512(job->w, first, end, &run);
}

/* The product with one plane; that of the residual codebook is added to the first one's. */
static void run_plane(chunk *c, const lqt__cpu_product *product, uint64_t first_token, unsigned p) {
  const lqt__cpu_fast *w = product->weight;
  lqt__cpu_product part = *product;
  part.y += first_token * product->y_stride;
  if (p > 0) {
    part.bias = NULL;
    part.accumulate = true;
  }
  rows_job job = {.c = c, .w = w, .plane = &w->plane[p], .form = pick(w, c->tokens)};
  job.finish = (lqt__fast_finish){.product = &part,
                                  .x = c->x,
                                  .x_stride = c->x_stride,
                                  .tokens = c->tokens,
                                  .factor = w->scale,
                                  .delta = p == 0 && w->delta_row_ptr != NULL};
  const bool int8 = job.form == PATH_INT8_AVX512;
  if (job.form == PATH_BF16_AVX512 || (job.form == PATH_F32_AVX512 && job.plane->tables != NULL)) {
    job.finish.factor *= job.plane->tables->outer / job.plane->tables->factor;
  }
  if (job.form == PATH_INT16_AVX2) {
    job.finish.factor *= job.plane->tables->outer * job.plane->tables->s16_scale;
  }
  prepare(c, job.form, w->plane[p].kind, int8 ? w->plane[p].tables->s8_part : 0);
  job.units = w->blocks;
  if (int8) {
    const uint64_t unit = lqt__fast_int8_unit(w);
    const uint64_t count = lqt__ceil_div(c->kpad, unit) * LQT__FAST_INT8_COLS;
    for (unsigned t = 0; t < c->tiles; t++) {
      lqt__fast_int8_starts(&c->x8[t], c->kpad, unit, w->plane[0].tables->s8_offset,
                            c->starts + t * count);
      job.starts[t] = c->starts + t * count;
    }
    job.units = w->blocks / LQT__FAST_PANEL;
    job.finish.factor *= w->plane[0].tables->s8_scale;
  }
  if (job.finish.delta && c->xt != NULL) {
    if (!c->have_xt) lqt__fast_transpose(c->x, c->x_stride, c->tokens, c->cols, c->xt);
    c->have_xt = true;
    job.finish.xt = c->xt;
  }
  /* A few tasks a thread even out interruptions; each is a contiguous stretch of the weight. */
  const unsigned threads = lqt__pool_threads(c->pool);
  job.tasks = threads == 1 ? 1 : 4 * (uint64_t)threads;
  if (job.tasks > job.units) job.tasks = job.units;
  lqt__pool_run(c->pool, job.tasks, run_rows, &job);
}

lqt_status lqt__cpu_fast_matmul(const lqt__cpu_product *products, size_t count, const float *x,
                                uint64_t x_stride, uint64_t tokens, lqt__pool *pool,
                                lqt_diag *diag) {
  enum { TRANSPOSE_TOKENS = 8 };
  if (count == 0 || tokens == 0) return LQT_OK;
  const lqt__cpu_fast *w = products[0].weight;
  const uint64_t most = tokens < LQT__FAST_CHUNK ? tokens : LQT__FAST_CHUNK;
  const uint64_t tiles = lqt__ceil_div(most, LQT__FAST_INT8_COLS);
  bool delta = false;
  for (size_t i = 0; i < count; i++) delta |= products[i].weight->delta_row_ptr != NULL;
  const bool transpose = delta && most >= TRANSPOSE_TOKENS;
  const uint64_t prepared = prepared_bytes(w->kpad, tiles), starts = starts_bytes(w->kpad, tiles);
  const uint64_t bytes = prepared + starts + (transpose ? transposed_bytes(w->cols) : 0);
  uint8_t *own = pool == NULL ? lqt__alloc_aligned(bytes, 64) : NULL;
  uint8_t *scratch = pool == NULL ? own : lqt__pool_scratch(pool, bytes);
  if (scratch == NULL) return lqt__fail_memory(diag, NULL, bytes, "converted activations");
  for (uint64_t first = 0; first < tokens; first += LQT__FAST_CHUNK) {
    const uint64_t left = tokens - first;
    chunk c = {.x = x + first * x_stride,
               .x_stride = x_stride,
               .cols = w->cols,
               .kpad = w->kpad,
               .pool = pool,
               .form = PATHS,
               .prepared = scratch,
               .starts = (int32_t *)(scratch + prepared)};
    c.tokens = (unsigned)(left < LQT__FAST_CHUNK ? left : LQT__FAST_CHUNK);
    c.tiles = (unsigned)lqt__ceil_div(c.tokens, LQT__FAST_INT8_COLS);
    if (transpose && c.tokens >= TRANSPOSE_TOKENS) c.xt = (float *)(scratch + prepared + starts);
    for (size_t i = 0; i < count; i++) {
      for (unsigned p = 0; p < products[i].weight->planes; p++) {
        run_plane(&c, &products[i], first, p);
      }
    }
  }
  lqt__free(own);
  return LQT_OK;
}

#else

lqt_status lqt__cpu_fast_create(const lqt_weight_desc *desc, lqt__cpu_isa isa, bool exact,
                                lqt__pool *pool, lqt__cpu_fast **out, lqt_diag *diag) {
  (void)desc, (void)isa, (void)exact, (void)pool, (void)diag;
  *out = NULL;
  return LQT_OK;
}
void lqt__cpu_fast_destroy(lqt__cpu_fast *w) { lqt__free(w); }
const char *lqt__cpu_fast_variant(const lqt__cpu_fast *w, uint64_t tokens) {
  (void)tokens;
  return names[w->plane[0].kind][0];
}
lqt_status lqt__cpu_fast_matmul(const lqt__cpu_product *products, size_t count, const float *x,
                                uint64_t x_stride, uint64_t tokens, lqt__pool *pool,
                                lqt_diag *diag) {
  (void)products, (void)count, (void)x, (void)x_stride, (void)tokens, (void)pool;
  return lqt__fail(diag, LQT_INTERNAL, NULL, "no fast product on this processor");
}

#endif
