/* The cases of the conformance suite, op by op. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/diag.h"
#include "kernel/selftest.h"
#include "kernel/weight.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const uint32_t tokens_edge[] = {1, 2, 3, 4, 7, 8, 9, 16, 33, 63, 64, 65, 300};
static const uint32_t sizes_edge[] = {1,   5,   16,  17,  31,  48,   64,
                                      100, 255, 256, 257, 512, 1000, 4097};

LQT_PRINTF(2, 3)
static bool named(lqt__selftest *t, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(t->name, sizeof t->name, format, args);
  va_end(args);
  return lqt__case_wanted(t);
}

static uint32_t edge_tokens(lqt__selftest *t) {
  return tokens_edge[lqt__choose(t, COUNT(tokens_edge))];
}
static uint32_t edge_size(lqt__selftest *t) {
  return sizes_edge[lqt__choose(t, COUNT(sizes_edge))];
}

/* ---- Products. ---- */

typedef struct matmul_shape {
  uint32_t tokens, rows, cols, products;
  bool bias, accumulate;
} matmul_shape;

static lqt_status matmul_case(lqt__selftest *t, const lqt__weight_kind *kind,
                              const matmul_shape *s) {
  if (!named(t, "matmul/%s/n%u.k%u.t%u%s%s%s", kind->name, s->rows, s->cols, s->tokens,
             s->products > 1 ? ".fused" : "", s->bias ? ".bias" : "",
             s->accumulate ? ".acc" : "")) {
    return LQT_OK;
  }
  lqt__case_begin(t, LQT_OP_MATMUL);
  LQT__TRY(lqt__case_values(t, &t->in[0], s->tokens, s->cols, 1.0f));
  t->op.accumulate = s->accumulate;
  for (uint32_t i = 0; i < s->products; i++) {
    uint32_t rows = i == 0 ? s->rows : 1 + lqt__pick(t, 2 * s->rows);
    LQT__TRY(lqt__selftest_weight(&t->arena, &t->random, kind, rows, s->cols, &t->desc[i]));
    t->has_weight[i] = true;
    if (s->accumulate) LQT__TRY(lqt__case_values(t, &t->out[i], s->tokens, rows, 10.0f));
    lqt__case_output(t, &t->out[i], s->tokens, rows);
    if (s->accumulate) t->out[i].stride = rows;
    if (!s->bias) continue;
    t->in[i + 1].fixed = true;
    t->in[i + 1].dtype = LQT_DTYPE_F32;
    LQT__TRY(lqt__case_values(t, &t->in[i + 1], 1, rows, 5.0f));
  }
  lqt_status status = lqt__case_run(t);
  lqt__case_end(t);
  return status;
}

/* A fixed selection with every count of tokens that kernels switch at, and random shapes. */
static lqt_status matmul_kind(lqt__selftest *t, const lqt__weight_kind *kind) {
  static const uint16_t quick[][3] = {{1, 64, 512}, {7, 100, 257}, {64, 96, 320}};
  static const uint16_t full[][3] = {{0, 64, 128},  {1, 1, 1},      {2, 5, 17},     {7, 17, 100},
                                     {8, 64, 1024}, {9, 65, 100},   {63, 100, 129}, {64, 128, 512},
                                     {65, 33, 300}, {300, 50, 96},  {1, 4097, 64},  {2, 7, 4097},
                                     {33, 1, 4097}, {300, 4097, 5}, {128, 256, 257}};
  for (size_t i = 0; i < (t->options->full ? COUNT(full) : COUNT(quick)); i++) {
    const uint16_t *s = t->options->full ? full[i] : quick[i];
    matmul_shape plain = {s[0], s[1], s[2], 1, false, false};
    LQT__TRY(matmul_case(t, kind, &plain));
  }
  for (size_t i = 0; i < (t->options->full ? 24u : 2u); i++) {
    matmul_shape s = {.tokens = edge_tokens(t), .rows = edge_size(t), .cols = edge_size(t)};
    s.products = lqt__choose(t, 3) == 0 ? 2 + lqt__choose(t, 2) : 1;
    s.bias = lqt__choose(t, 3) == 0;
    s.accumulate = lqt__choose(t, 3) == 0;
    uint64_t limit = t->options->full ? 20000000 : 3000000;
    while ((uint64_t)s.rows * s.cols > limit / 8) s.rows = edge_size(t);
    while ((uint64_t)s.tokens * s.rows * s.cols > limit) s.tokens = 1 + s.tokens / 2;
    LQT__TRY(matmul_case(t, kind, &s));
  }
  return LQT_OK;
}

static lqt_status embed_case(lqt__selftest *t, const lqt__weight_kind *kind) {
  uint32_t rows = edge_size(t), cols = edge_size(t), tokens = edge_tokens(t);
  while ((uint64_t)rows * cols > 300000) rows = 1 + rows / 2;
  if (!named(t, "embed/%s/n%u.k%u.t%u", kind->name, rows, cols, tokens)) return LQT_OK;
  lqt__case_begin(t, LQT_OP_EMBED);
  LQT__TRY(lqt__selftest_weight(&t->arena, &t->random, kind, rows, cols, &t->desc[0]));
  t->has_weight[0] = true;
  LQT__TRY(lqt__case_ints(t, &t->in[0], 1, tokens));
  for (uint32_t i = 0; i < tokens; i++) t->in[0].ints[i] = (int32_t)lqt__pick(t, rows);
  lqt__case_output(t, &t->out[0], tokens, cols);
  lqt_status status = lqt__case_run(t);
  lqt__case_end(t);
  return status;
}

static lqt_status dequant_case(lqt__selftest *t, const lqt__weight_kind *kind, uint32_t rows,
                               uint32_t cols) {
  if (!named(t, "dequant/%s/n%u.k%u", kind->name, rows, cols)) return LQT_OK;
  lqt__case_begin(t, LQT_OP_DEQUANT);
  LQT__TRY(lqt__selftest_weight(&t->arena, &t->random, kind, rows, cols, &t->desc[0]));
  t->has_weight[0] = true;
  t->out[0].fixed = true;
  t->out[0].dtype = LQT_DTYPE_F32;
  lqt__case_output(t, &t->out[0], rows, cols);
  lqt_status status = lqt__case_run(t);
  lqt__case_end(t);
  return status;
}

static lqt_status weights(lqt__selftest *t) {
  static const uint16_t shapes[][2] = {{1, 1}, {17, 100}, {33, 1000}, {3, 4097}};
  for (size_t k = 0; k < lqt__weight_kind_count; k++) {
    const lqt__weight_kind *kind = &lqt__weight_kinds[k];
    LQT__TRY(matmul_kind(t, kind));
    for (size_t i = t->options->full ? 0 : 2; i < COUNT(shapes); i++) {
      LQT__TRY(dequant_case(t, kind, shapes[i][0], shapes[i][1]));
    }
    for (int i = 0; i < (t->options->full ? 6 : 1); i++) LQT__TRY(embed_case(t, kind));
  }
  return LQT_OK;
}

/* ---- Row by row. ---- */

static lqt_status fixed_vector(lqt__selftest *t, lqt__operand *operand, uint64_t cols) {
  operand->fixed = true;
  operand->dtype = LQT_DTYPE_F32;
  return lqt__case_values(t, operand, 1, cols, 1.0f);
}

static lqt_status norm_case(lqt__selftest *t, lqt_op_kind kind, uint32_t tokens, uint32_t cols) {
  bool bias = kind == LQT_OP_LAYERNORM && lqt__choose(t, 2) == 0;
  bool in_place = lqt__choose(t, 3) == 0;
  float spread = (float[]){1.0f, 0.001f, 30.0f}[lqt__choose(t, 3)];
  if (!named(t, "%s/k%u.t%u%s%s", lqt_op_name(kind), cols, tokens, bias ? ".bias" : "",
             in_place ? ".inplace" : "")) {
    return LQT_OK;
  }
  lqt__case_begin(t, kind);
  t->op.eps = 1e-5f;
  LQT__TRY(lqt__case_values(t, &t->in[0], tokens, cols, spread));
  LQT__TRY(fixed_vector(t, &t->in[1], cols));
  if (bias) LQT__TRY(fixed_vector(t, &t->in[2], cols));
  if (in_place)
    t->alias = 0;
  else
    lqt__case_output(t, &t->out[0], tokens, cols);
  lqt_status status = lqt__case_run(t);
  lqt__case_end(t);
  return status;
}

static lqt_status elementwise_case(lqt__selftest *t, lqt_op_kind kind, lqt_act act, uint32_t tokens,
                                   uint32_t cols) {
  static const char *const acts[] = {"silu", "gelu", "gelu_tanh", "relu"};
  int alias = (int)lqt__choose(t, kind == LQT_OP_ACT ? 2 : 3) - 1;
  if (!named(t, "%s/%s%sk%u.t%u%s", lqt_op_name(kind), kind == LQT_OP_ADD ? "" : acts[act],
             kind == LQT_OP_ADD ? "" : ".", cols, tokens, alias >= 0 ? ".inplace" : "")) {
    return LQT_OK;
  }
  lqt__case_begin(t, kind);
  t->op.act = act;
  /* A lone element far in a tail has no large ones beside it to measure its error by. */
  float spread = (uint64_t)tokens * cols < 8 ? 1.0f : 3.0f;
  LQT__TRY(lqt__case_values(t, &t->in[0], tokens, cols, spread));
  if (kind != LQT_OP_ACT) LQT__TRY(lqt__case_values(t, &t->in[1], tokens, cols, 2.0f));
  /* Values at which exponentials leave the range of float32, and zeros; in cases of their own,
   * since their squares drown the other elements' errors. */
  static const float extremes[] = {0.0f, -0.0f, 90.0f, -90.0f, 200.0f, -200.0f, 3000.0f, -3000.0f};
  if (tokens == 2 && kind != LQT_OP_ADD) {
    for (uint64_t i = 0; i < tokens * t->in[0].stride; i++) {
      t->in[0].values[i] = extremes[lqt__pick(t, COUNT(extremes))];
    }
    t->in[0].values[0] = 1.0f; /* what vanishing results are measured by */
    if (kind == LQT_OP_GLU) t->in[1].values[0] = 1.0f;
  }
  t->alias = alias;
  if (alias < 0) lqt__case_output(t, &t->out[0], tokens, cols);
  lqt_status status = lqt__case_run(t);
  lqt__case_end(t);
  return status;
}

static lqt_status gather_case(lqt__selftest *t, uint32_t rows, uint32_t out_rows, uint32_t cols) {
  if (!named(t, "gather/n%u.k%u.t%u", rows, cols, out_rows)) return LQT_OK;
  lqt__case_begin(t, LQT_OP_GATHER);
  LQT__TRY(lqt__case_values(t, &t->in[0], rows, cols, 1.0f));
  LQT__TRY(lqt__case_ints(t, &t->in[1], 1, out_rows));
  for (uint32_t i = 0; i < out_rows; i++) t->in[1].ints[i] = (int32_t)lqt__pick(t, rows);
  lqt__case_output(t, &t->out[0], out_rows, cols);
  lqt_status status = lqt__case_run(t);
  lqt__case_end(t);
  return status;
}

/* Logits as models have them: many small ones, some alike. */
static lqt_status topk_case(lqt__selftest *t, uint32_t tokens, uint32_t cols, uint32_t k) {
  if (!named(t, "topk/n%u.k%u.t%u", cols, k, tokens)) return LQT_OK;
  if (!lqt_device_has_op(t->device, LQT_OP_TOPK)) {
    lqt__case_report(t, "", 0, 0, "the device does not have this op", true);
    return LQT_OK;
  }
  lqt__case_begin(t, LQT_OP_TOPK);
  LQT__TRY(lqt__case_values(t, &t->in[0], tokens, cols, 3.0f));
  static const float few[] = {2.5f, -1.0f, 0.0f, -0.0f, 0.5f, -INFINITY};
  for (uint64_t i = 0; i < tokens * t->in[0].stride; i++) {
    if (lqt__pick(t, 2) == 0) t->in[0].values[i] = few[lqt__pick(t, COUNT(few) - (tokens == 1))];
  }
  for (int i = 0; i < 2; i++) {
    t->out[i].fixed = true;
    t->out[i].dtype = i == 0 ? LQT_DTYPE_F32 : LQT_DTYPE_I32;
    lqt__case_output(t, &t->out[i], tokens, k);
  }
  lqt_status status = lqt__case_run(t);
  lqt__case_end(t);
  return status;
}

static lqt_status topk(lqt__selftest *t) {
  static const uint32_t fixed[][3] = {{1, 1, 1},        {1, 32000, 1},   {3, 32000, 64},
                                      {2, 1000, 999},   {1, 1024, 1024}, {5, 4097, 50},
                                      {1, 128256, 256}, {2, 7, 7},       {64, 500, 2}};
  for (size_t i = 0; i < COUNT(fixed); i++) {
    LQT__TRY(topk_case(t, fixed[i][0], fixed[i][1], fixed[i][2]));
  }
  for (int i = 0; i < (t->options->full ? 40 : 4); i++) {
    uint32_t cols = 1 + lqt__choose(t, 5000), most = cols < 1024 ? cols : 1024;
    LQT__TRY(topk_case(t, 1 + lqt__choose(t, 4), cols, 1 + lqt__choose(t, most)));
  }
  return LQT_OK;
}

static lqt_status rope_case(lqt__selftest *t, uint32_t tokens) {
  static const uint16_t dims[] = {2, 16, 48, 64, 80, 128};
  uint32_t dim = dims[lqt__choose(t, COUNT(dims))], heads = 1 + lqt__choose(t, 9);
  uint32_t rotary = lqt__choose(t, 2) == 0 ? dim : 2 * (1 + lqt__choose(t, dim / 2));
  bool interleaved = lqt__choose(t, 2) == 0;
  if (!named(t, "rope/h%u.d%u.r%u.t%u%s", heads, dim, rotary, tokens,
             interleaved ? ".interleaved" : "")) {
    return LQT_OK;
  }
  lqt__case_begin(t, LQT_OP_ROPE);
  t->op.heads = heads;
  t->op.head_dim = dim;
  t->op.rotary_dim = rotary;
  t->op.interleaved = interleaved;
  t->op.attn_scale = lqt__pick(t, 2) == 0 ? 1.0f : 1.25f;
  LQT__TRY(lqt__case_ints(t, &t->in[0], 1, tokens));
  for (uint32_t i = 0; i < tokens; i++) t->in[0].ints[i] = (int32_t)lqt__pick(t, 8192);
  LQT__TRY(fixed_vector(t, &t->in[1], rotary / 2));
  for (uint32_t i = 0; i < rotary / 2; i++) {
    t->in[1].values[i] = (float)pow(10000.0, -2.0 * i / rotary);
  }
  LQT__TRY(lqt__case_values(t, &t->out[0], tokens, (uint64_t)heads * dim, 1.0f));
  t->out[0].output = true;
  lqt_status status = lqt__case_run(t);
  lqt__case_end(t);
  return status;
}

/* ---- Key-value pages. ---- */

typedef struct kv_shape {
  uint32_t sequences, kv_heads, group, head_dim, page_tokens, longest, tokens, window;
  lqt_dtype dtype;
} kv_shape;

/* A page table in which every sequence has pages for its longest position, in random order. */
static lqt_status page_table(lqt__selftest *t, const kv_shape *s, lqt__operand *table,
                             uint32_t *out_pages) {
  uint32_t per_sequence = (s->longest + s->page_tokens - 1) / s->page_tokens;
  uint32_t pages = per_sequence * s->sequences + 2;
  LQT__TRY(lqt__case_ints(t, table, s->sequences, per_sequence));
  int32_t *order = lqt__arena_array(&t->arena, pages, sizeof *order);
  if (order == NULL) return LQT_OUT_OF_MEMORY;
  for (uint32_t i = 0; i < pages; i++) order[i] = (int32_t)i;
  for (uint32_t i = pages - 1; i > 0; i--) {
    uint32_t j = lqt__pick(t, i + 1);
    int32_t swap = order[i];
    order[i] = order[j];
    order[j] = swap;
  }
  for (uint32_t q = 0; q < s->sequences; q++) {
    for (uint32_t p = 0; p < per_sequence; p++) {
      table->ints[q * table->stride + p] = order[q * per_sequence + p];
    }
  }
  *out_pages = pages;
  return LQT_OK;
}

static lqt_status pages_of(lqt__selftest *t, const kv_shape *s, lqt__operand *operand,
                           uint32_t pages) {
  operand->fixed = true;
  operand->dtype = s->dtype;
  return lqt__case_values(t, operand, (uint64_t)pages * s->page_tokens,
                          (uint64_t)s->kv_heads * s->head_dim, 1.0f);
}

/* Positions of a step: runs of tokens of one sequence that follow each other, as in prefill and
 * decode; each (sequence, position) at most once. */
static lqt_status step_positions(lqt__selftest *t, const kv_shape *s, lqt__operand *positions,
                                 lqt__operand *sequences) {
  LQT__TRY(lqt__case_ints(t, positions, 1, s->tokens));
  LQT__TRY(lqt__case_ints(t, sequences, 1, s->tokens));
  uint32_t share = s->tokens / s->sequences, done = 0;
  for (uint32_t q = 0; q < s->sequences; q++) {
    uint32_t count = q + 1 == s->sequences ? s->tokens - done : share;
    uint32_t start = count < s->longest ? lqt__pick(t, s->longest - count + 1) : 0;
    for (uint32_t i = 0; i < count; i++, done++) {
      positions->ints[done] = (int32_t)(start + i);
      sequences->ints[done] = (int32_t)q;
    }
  }
  return LQT_OK;
}

static lqt_status kv_write_case(lqt__selftest *t, const kv_shape *s) {
  if (!named(t, "kv_write/%s/h%u.d%u.p%u.t%u", lqt_dtype_name(s->dtype), s->kv_heads, s->head_dim,
             s->page_tokens, s->tokens)) {
    return LQT_OK;
  }
  lqt__case_begin(t, LQT_OP_KV_WRITE);
  t->op.kv_heads = s->kv_heads;
  t->op.head_dim = s->head_dim;
  t->op.page_tokens = s->page_tokens;
  uint64_t cols = (uint64_t)s->kv_heads * s->head_dim;
  uint32_t pages;
  LQT__TRY(lqt__case_values(t, &t->in[0], s->tokens, cols, 1.0f));
  LQT__TRY(lqt__case_values(t, &t->in[1], s->tokens, cols, 1.0f));
  LQT__TRY(step_positions(t, s, &t->in[2], &t->in[3]));
  LQT__TRY(page_table(t, s, &t->in[4], &pages));
  for (int i = 0; i < 2; i++) {
    LQT__TRY(pages_of(t, s, &t->out[i], pages));
    t->out[i].output = true;
  }
  lqt_status status = lqt__case_run(t);
  lqt__case_end(t);
  return status;
}

static lqt_status attention_case(lqt__selftest *t, const kv_shape *s) {
  if (!named(t, "attention/%s/s%u.h%ux%u.d%u.p%u.c%u.t%u%s%.0u", lqt_dtype_name(s->dtype),
             s->sequences, s->kv_heads, s->group, s->head_dim, s->page_tokens, s->longest,
             s->tokens, s->window != 0 ? ".w" : "", s->window)) {
    return LQT_OK;
  }
  lqt__case_begin(t, LQT_OP_ATTENTION);
  t->op.heads = s->kv_heads * s->group;
  t->op.kv_heads = s->kv_heads;
  t->op.head_dim = s->head_dim;
  t->op.page_tokens = s->page_tokens;
  t->op.window = s->window;
  t->op.attn_scale = (float)(1.0 / sqrt(s->head_dim));
  uint64_t cols = (uint64_t)t->op.heads * s->head_dim;
  uint32_t pages;
  LQT__TRY(lqt__case_values(t, &t->in[0], s->tokens, cols, 2.0f));
  LQT__TRY(step_positions(t, s, &t->in[1], &t->in[2]));
  LQT__TRY(page_table(t, s, &t->in[5], &pages));
  LQT__TRY(pages_of(t, s, &t->in[3], pages));
  LQT__TRY(pages_of(t, s, &t->in[4], pages));
  lqt__case_output(t, &t->out[0], s->tokens, cols);
  lqt_status status = lqt__case_run(t);
  lqt__case_end(t);
  return status;
}

static lqt_status caches(lqt__selftest *t) {
  static const kv_shape fixed[] = {
      {1, 1, 1, 1, 1, 1, 1, 0, LQT_DTYPE_F32},
      {1, 2, 2, 64, 16, 200, 1, 0, LQT_DTYPE_F16},
      {3, 2, 4, 128, 16, 100, 3, 0, LQT_DTYPE_F16},
      {1, 2, 2, 64, 32, 150, 150, 0, LQT_DTYPE_F16},
      {2, 1, 7, 80, 7, 90, 100, 0, LQT_DTYPE_F32},
      {1, 1, 40, 64, 16, 65, 9, 0, LQT_DTYPE_F16},
      {1, 2, 1, 64, 16, 300, 130, 33, LQT_DTYPE_F16},
      {2, 3, 3, 5, 64, 128, 77, 1, LQT_DTYPE_F32},
      {1, 2, 2, 16, 16, 64, 0, 0, LQT_DTYPE_F16},
      /* A few tokens of one sequence whose windows begin at different positions. */
      {1, 2, 1, 64, 16, 300, 6, 33, LQT_DTYPE_F16},
      /* Contexts long enough to be cut into parts. */
      {1, 2, 2, 64, 16, 2500, 1, 0, LQT_DTYPE_F16},
      {2, 1, 3, 80, 16, 2100, 4, 1500, LQT_DTYPE_F32},
      /* Single tokens of many sequences beside a long run of one, and long runs side by side. */
      {10, 2, 4, 128, 32, 400, 19, 0, LQT_DTYPE_F16},
      {70, 1, 2, 64, 16, 64, 145, 0, LQT_DTYPE_F16},
      {2, 1, 3, 128, 32, 500, 330, 0, LQT_DTYPE_F16},
      {3, 2, 1, 96, 32, 200, 150, 70, LQT_DTYPE_F16},
      {4, 1, 8, 128, 32, 900, 4, 0, LQT_DTYPE_F16},
      {1, 1, 1, 256, 16, 300, 20, 0, LQT_DTYPE_F16},
  };
  for (size_t i = 0; i < COUNT(fixed); i++) {
    LQT__TRY(attention_case(t, &fixed[i]));
    LQT__TRY(kv_write_case(t, &fixed[i]));
  }
  static const uint8_t dims[] = {1, 5, 16, 32, 64, 80, 96, 128};
  static const uint8_t pages[] = {1, 7, 16, 64};
  for (int i = 0; i < (t->options->full ? 150 : 12); i++) {
    kv_shape s = {.sequences = 1 + lqt__choose(t, 4),
                  .kv_heads = 1 + lqt__choose(t, 4),
                  .group = 1 + lqt__choose(t, 8),
                  .head_dim = dims[lqt__choose(t, COUNT(dims))],
                  .page_tokens = pages[lqt__choose(t, COUNT(pages))],
                  .dtype = lqt__choose(t, 3) == 0 ? LQT_DTYPE_F32 : LQT_DTYPE_F16};
    s.longest = 1 + lqt__choose(t, 300);
    s.tokens = 1 + lqt__choose(t, s.longest);
    if (lqt__choose(t, 3) == 0) s.window = 1 + lqt__choose(t, s.longest);
    LQT__TRY(attention_case(t, &s));
    LQT__TRY(kv_write_case(t, &s));
  }
  return LQT_OK;
}

static lqt_status rows(lqt__selftest *t) {
  static const uint32_t fixed[][2] = {{0, 64}, {1, 1}, {2, 17}, {1, 512}, {65, 100}, {3, 4097}};
  size_t random = t->options->full ? 60 : 6;
  for (size_t i = 0; i < COUNT(fixed) + random; i++) {
    uint32_t tokens = i < COUNT(fixed) ? fixed[i][0] : edge_tokens(t);
    uint32_t cols = i < COUNT(fixed) ? fixed[i][1] : edge_size(t);
    LQT__TRY(norm_case(t, LQT_OP_RMSNORM, tokens, cols));
    LQT__TRY(norm_case(t, LQT_OP_LAYERNORM, tokens, cols));
    LQT__TRY(elementwise_case(t, LQT_OP_ADD, LQT_ACT_SILU, tokens, cols));
    for (int act = LQT_ACT_SILU; act <= (int)LQT_ACT_RELU; act++) {
      LQT__TRY(elementwise_case(t, LQT_OP_ACT, (lqt_act)act, tokens, cols));
      LQT__TRY(elementwise_case(t, LQT_OP_GLU, (lqt_act)act, tokens, cols));
    }
    LQT__TRY(gather_case(t, 1 + lqt__choose(t, 200), tokens, cols));
    LQT__TRY(rope_case(t, tokens));
  }
  return LQT_OK;
}

lqt_status lqt__selftest_ops(lqt__selftest *t) {
  LQT__TRY(rows(t));
  LQT__TRY(caches(t));
  LQT__TRY(topk(t));
  return weights(t);
}
