#include "quant/calibrate.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/random.h"

/* Texts written side by side, their length, and how many such batches. */
enum { SEQUENCES = 32, LENGTH = 256, BATCHES = 2, FLUSH = 8 * SEQUENCES };

typedef struct layer {
  float *norm_in, *norm_post;
  float *q, *k, *v, *o, *gate, *up, *down;
  float *bias[4];                /* q, k, v, o; NULL: none */
  float *keys, *values;          /* [SEQUENCES][LENGTH][kv] */
  float *inputs[LQT__TAP_COUNT]; /* [FLUSH][cols]: not added up yet */
} layer;

typedef struct writer {
  const lqt__llama *llama;
  const lqt__strip_ops *ops;
  lqt__pool *pool;
  layer *layers;
  float *embedding, *head, *norm_out;
  float *x, *h, *a, *b, *c, *y; /* [SEQUENCES][width] */
  float *logits;                /* [SEQUENCES][vocab] */
  float *cosine, *sine;         /* [LENGTH][rotary_dim / 2] */
  uint32_t tokens[SEQUENCES];
  uint32_t q_dim, kv_dim, position;
  size_t pending; /* rows of `inputs` */
  lqt__random random[SEQUENCES];
  lqt__moments *moments;
  lqt__arena arena;
} writer;

/* ---- Products over the pool ---- */

enum { ROWS_A_TASK = 64 };

typedef struct product {
  const writer *w;
  const float *x, *weights, *bias;
  float *out;
  size_t inputs, outputs;
} product;

static void product_task(void *context, size_t index, unsigned worker) {
  (void)worker;
  const product *p = context;
  size_t begin = index * ROWS_A_TASK, n = p->outputs - begin;
  if (n > ROWS_A_TASK) n = ROWS_A_TASK;
  p->w->ops->dots(p->x, p->inputs, SEQUENCES, p->weights + begin * p->inputs, p->inputs, n,
                  p->inputs, p->out + begin, p->outputs);
  for (size_t r = 0; p->bias != NULL && r < SEQUENCES; r++) {
    for (size_t i = 0; i < n; i++) p->out[r * p->outputs + begin + i] += p->bias[begin + i];
  }
}

static void multiply(const writer *w, const float *x, const float *weights, const float *bias,
                     size_t inputs, size_t outputs, float *out) {
  product p = {w, x, weights, bias, out, inputs, outputs};
  lqt__pool_run(w->pool, (outputs + ROWS_A_TASK - 1) / ROWS_A_TASK, product_task, &p);
}

/* ---- Moments ---- */

typedef struct gram_work {
  const writer *w;
  const float *x;
  float *out;
  size_t cols;
} gram_work;

static void gram_task(void *context, size_t index, unsigned worker) {
  (void)worker;
  const gram_work *g = context;
  size_t begin = index * ROWS_A_TASK, end = begin + ROWS_A_TASK;
  if (end > g->cols) end = g->cols;
  g->w->ops->gram(g->x, g->w->pending, g->cols, begin, end, g->out);
}

static void flush(writer *w) {
  for (uint32_t l = 0; l < w->llama->layers && w->pending > 0; l++) {
    for (int tap = 0; tap < LQT__TAP_COUNT; tap++) {
      gram_work g = {w, w->layers[l].inputs[tap],
                     w->moments->sums[l * LQT__TAP_COUNT + (uint32_t)tap], w->moments->cols[tap]};
      lqt__pool_run(w->pool, (g.cols + ROWS_A_TASK - 1) / ROWS_A_TASK, gram_task, &g);
    }
  }
  w->moments->tokens += w->pending;
  w->pending = 0;
}

static void keep_inputs(const writer *w, layer *l, lqt__tap tap, const float *x) {
  size_t cols = w->moments->cols[tap];
  memcpy(l->inputs[tap] + w->pending * cols, x, SEQUENCES * cols * sizeof(float));
}

/* ---- One step ---- */

static void normalize(const writer *w, const float *x, const float *gain, float *out) {
  size_t n = w->llama->hidden;
  for (size_t r = 0; r < SEQUENCES; r++) {
    double square = 0;
    for (size_t i = 0; i < n; i++) square += (double)x[r * n + i] * x[r * n + i];
    float scale = (float)(1.0 / sqrt(square / (double)n + w->llama->norm_eps));
    for (size_t i = 0; i < n; i++) out[r * n + i] = x[r * n + i] * scale * gain[i];
  }
}

/* The halves of a head's rotary part are the pairs (the Hugging Face order). */
static void rotate(const writer *w, float *x, uint32_t heads, size_t width) {
  size_t half = w->llama->rope.rotary_dim / 2;
  const float *c = w->cosine + w->position * half, *s = w->sine + w->position * half;
  for (size_t r = 0; r < SEQUENCES; r++) {
    for (uint32_t h = 0; h < heads; h++) {
      float *a = x + r * width + (size_t)h * w->llama->head_dim, *b = a + half;
      for (size_t i = 0; i < half; i++) {
        float first = a[i], second = b[i];
        a[i] = first * c[i] - second * s[i];
        b[i] = second * c[i] + first * s[i];
      }
    }
  }
}

typedef struct attend_work {
  const writer *w;
  const layer *l;
} attend_work;

/* One text's attention: every head over the positions so far. */
static void attend_task(void *context, size_t r, unsigned worker) {
  (void)worker;
  const attend_work *k = context;
  const writer *w = k->w;
  size_t dim = w->llama->head_dim, count = w->position + 1, kv = w->kv_dim;
  const float *keys = k->l->keys + r * LENGTH * kv, *values = k->l->values + r * LENGTH * kv;
  float scale = 1.0f / sqrtf((float)dim), weights[LENGTH];
  for (uint32_t h = 0; h < w->llama->heads; h++) {
    const float *q = w->a + r * w->q_dim + h * dim;
    size_t at = (size_t)(h * w->llama->kv_heads / w->llama->heads) * dim;
    w->ops->dots(q, dim, 1, keys + at, kv, count, dim, weights, LENGTH);
    float most = -INFINITY;
    double sum = 0;
    for (size_t t = 0; t < count; t++) most = fmaxf(most, weights[t] * scale);
    for (size_t t = 0; t < count; t++) {
      weights[t] = expf(weights[t] * scale - most);
      sum += weights[t];
    }
    float *out = w->y + r * w->q_dim + h * dim;
    memset(out, 0, dim * sizeof(float));
    for (size_t t = 0; t < count; t++) {
      float p = (float)(weights[t] / sum);
      for (size_t i = 0; i < dim; i++) out[i] += p * values[t * kv + at + i];
    }
  }
}

static void add(float *x, const float *y, size_t count) {
  for (size_t i = 0; i < count; i++) x[i] += y[i];
}

static void attention(writer *w, layer *l) {
  const lqt__llama *m = w->llama;
  normalize(w, w->x, l->norm_in, w->h);
  keep_inputs(w, l, LQT__TAP_ATTENTION, w->h);
  multiply(w, w->h, l->q, l->bias[0], m->hidden, w->q_dim, w->a);
  multiply(w, w->h, l->k, l->bias[1], m->hidden, w->kv_dim, w->b);
  multiply(w, w->h, l->v, l->bias[2], m->hidden, w->kv_dim, w->c);
  rotate(w, w->a, m->heads, w->q_dim);
  rotate(w, w->b, m->kv_heads, w->kv_dim);
  for (size_t r = 0; r < SEQUENCES; r++) {
    size_t at = (r * LENGTH + w->position) * w->kv_dim;
    memcpy(l->keys + at, w->b + r * w->kv_dim, w->kv_dim * sizeof(float));
    memcpy(l->values + at, w->c + r * w->kv_dim, w->kv_dim * sizeof(float));
  }
  attend_work k = {w, l};
  lqt__pool_run(w->pool, SEQUENCES, attend_task, &k);
  keep_inputs(w, l, LQT__TAP_OUTPUT, w->y);
  multiply(w, w->y, l->o, l->bias[3], w->q_dim, m->hidden, w->h);
  add(w->x, w->h, (size_t)SEQUENCES * m->hidden);
}

static void gate_task(void *context, size_t r, unsigned worker) {
  (void)worker;
  const writer *w = context;
  size_t n = w->llama->ffn;
  float *gate = w->a + r * n;
  const float *up = w->b + r * n;
  for (size_t i = 0; i < n; i++) gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void feed_forward(writer *w, layer *l) {
  const lqt__llama *m = w->llama;
  normalize(w, w->x, l->norm_post, w->h);
  keep_inputs(w, l, LQT__TAP_MLP, w->h);
  multiply(w, w->h, l->gate, NULL, m->hidden, m->ffn, w->a);
  multiply(w, w->h, l->up, NULL, m->hidden, m->ffn, w->b);
  lqt__pool_run(w->pool, SEQUENCES, gate_task, w);
  keep_inputs(w, l, LQT__TAP_DOWN, w->a);
  multiply(w, w->a, l->down, NULL, m->ffn, m->hidden, w->h);
  add(w->x, w->h, (size_t)SEQUENCES * m->hidden);
}

/* Draws each text's next token from the model's own distribution. */
static void draw_task(void *context, size_t r, unsigned worker) {
  (void)worker;
  writer *w = context;
  size_t vocab = w->llama->vocab;
  float *logits = w->logits + r * vocab, most = -INFINITY;
  double sum = 0;
  for (size_t i = 0; i < vocab; i++) most = fmaxf(most, logits[i]);
  for (size_t i = 0; i < vocab; i++) {
    logits[i] = expf(logits[i] - most);
    sum += logits[i];
  }
  double left = lqt__random_unit(&w->random[r]) * sum;
  size_t token = 0;
  while (token + 1 < vocab && left >= logits[token]) left -= logits[token++];
  w->tokens[r] = (uint32_t)token;
}

static void step(writer *w) {
  const lqt__llama *m = w->llama;
  for (size_t r = 0; r < SEQUENCES; r++) {
    memcpy(w->x + r * m->hidden, w->embedding + (size_t)w->tokens[r] * m->hidden,
           m->hidden * sizeof(float));
  }
  for (uint32_t l = 0; l < m->layers; l++) {
    attention(w, &w->layers[l]);
    feed_forward(w, &w->layers[l]);
  }
  w->pending += SEQUENCES;
  if (w->pending == FLUSH) flush(w);
  if (w->position + 1 == LENGTH) return;
  normalize(w, w->x, w->norm_out, w->h);
  multiply(w, w->h, w->head, NULL, m->hidden, m->vocab, w->logits);
  lqt__pool_run(w->pool, SEQUENCES, draw_task, w);
}

/* ---- Setting up ---- */

static lqt_status load(writer *w, const lqt__source *source, const char *name, uint32_t layer_index,
                       lqt__llama_role role, float **out, lqt_diag *diag) {
  size_t count = lqt__llama_tensor_count(w->llama);
  for (size_t i = 0; i < count; i++) {
    lqt__llama_tensor t;
    lqt__source_view view;
    lqt__llama_tensor_at(w->llama, i, &t);
    if (t.role != role || t.layer != layer_index) continue;
    if (name != NULL && strstr(t.name, name) == NULL) continue;
    LQT__TRY(lqt__source_find(source, &t, &view, diag));
    *out = lqt__arena_array(&w->arena, (size_t)(view.rows * view.cols), sizeof(float));
    if (*out == NULL) return lqt__fail_memory(diag, t.name, view.rows * view.cols * 4, "weights");
    return lqt__source_read(&view, 0, view.rows * view.cols, *out, diag);
  }
  *out = NULL;
  return LQT_OK;
}

static lqt_status load_layer(writer *w, const lqt__source *source, uint32_t index, lqt_diag *diag) {
  static const char *const biases[] = {"q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias"};
  layer *l = &w->layers[index];
  const struct {
    lqt__llama_role role;
    float **out;
  } rows[] = {
      {LQT__ROLE_NORM_IN, &l->norm_in},
      {LQT__ROLE_Q, &l->q},
      {LQT__ROLE_K, &l->k},
      {LQT__ROLE_V, &l->v},
      {LQT__ROLE_O, &l->o},
      {LQT__ROLE_NORM_POST, &l->norm_post},
      {LQT__ROLE_GATE, &l->gate},
      {LQT__ROLE_UP, &l->up},
      {LQT__ROLE_DOWN, &l->down},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    LQT__TRY(load(w, source, NULL, index, rows[i].role, rows[i].out, diag));
  }
  for (int i = 0; i < 4 && w->llama->attention_bias; i++) {
    LQT__TRY(load(w, source, biases[i], index, LQT__ROLE_BIAS, &l->bias[i], diag));
  }
  size_t cache = (size_t)SEQUENCES * LENGTH * w->kv_dim;
  l->keys = lqt__arena_array(&w->arena, cache, sizeof(float));
  l->values = lqt__arena_array(&w->arena, cache, sizeof(float));
  bool good = l->keys != NULL && l->values != NULL;
  for (int tap = 0; tap < LQT__TAP_COUNT; tap++) {
    l->inputs[tap] =
        lqt__arena_array(&w->arena, (size_t)FLUSH * w->moments->cols[tap], sizeof(float));
    good = good && l->inputs[tap] != NULL;
  }
  return good ? LQT_OK : lqt__fail_memory(diag, NULL, cache * 8, "the calibration's caches");
}

/* Frequency scaling for long contexts hardly turns the few positions of a sample: of the variants
 * only what acts at every position is honoured. */
static void fill_rotary(writer *w) {
  const lqt__rope *rope = &w->llama->rope;
  size_t half = rope->rotary_dim / 2;
  double slow = rope->type == LQT__ROPE_LINEAR ? rope->factor : 1;
  double size = rope->type == LQT__ROPE_YARN ? rope->attention_factor : 1;
  for (size_t t = 0; t < LENGTH; t++) {
    for (size_t i = 0; i < half; i++) {
      double angle = (double)t / slow * pow(rope->theta, -2.0 * (double)i / rope->rotary_dim);
      w->cosine[t * half + i] = (float)(size * cos(angle));
      w->sine[t * half + i] = (float)(size * sin(angle));
    }
  }
}

static lqt_status make_buffers(writer *w, lqt_diag *diag) {
  const lqt__llama *m = w->llama;
  size_t wide = m->ffn > w->q_dim ? m->ffn : w->q_dim, half = m->rope.rotary_dim / 2;
  const struct {
    float **out;
    size_t count;
  } rows[] = {
      {&w->x, (size_t)SEQUENCES * m->hidden},
      {&w->h, (size_t)SEQUENCES * m->hidden},
      {&w->a, SEQUENCES * wide},
      {&w->b, SEQUENCES * wide},
      {&w->c, SEQUENCES * wide},
      {&w->y, SEQUENCES * wide},
      {&w->logits, (size_t)SEQUENCES * m->vocab},
      {&w->cosine, LENGTH * half},
      {&w->sine, LENGTH * half},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    *rows[i].out = lqt__arena_array(&w->arena, rows[i].count, sizeof(float));
    if (*rows[i].out == NULL) {
      return lqt__fail_memory(diag, NULL, rows[i].count * 4, "the calibration's activations");
    }
  }
  fill_rotary(w);
  return LQT_OK;
}

static lqt_status make_moments(const lqt__llama *m, lqt__moments *out, lqt_diag *diag) {
  *out = (lqt__moments){.layers = m->layers,
                        .cols = {m->hidden, m->heads * m->head_dim, m->hidden, m->ffn}};
  size_t count = (size_t)m->layers * LQT__TAP_COUNT;
  out->sums = lqt__alloc_array(count, sizeof(float *));
  for (size_t i = 0; out->sums != NULL && i < count; i++) {
    size_t cols = out->cols[i % LQT__TAP_COUNT];
    out->sums[i] = lqt__alloc_aligned(cols * cols * sizeof(float), 64);
    if (out->sums[i] == NULL) return lqt__fail_memory(diag, NULL, cols * cols * 4, "moments");
    memset(out->sums[i], 0, cols * cols * sizeof(float));
  }
  return out->sums != NULL ? LQT_OK : lqt__fail_memory(diag, NULL, count * 8, "moments");
}

void lqt__moments_free(lqt__moments *moments) {
  for (size_t i = 0; moments->sums != NULL && i < (size_t)moments->layers * LQT__TAP_COUNT; i++) {
    lqt__free(moments->sums[i]);
  }
  lqt__free(moments->sums);
  *moments = (lqt__moments){0};
}

uint64_t lqt__calibrate_bytes(const lqt__llama *m) {
  uint64_t taps[] = {m->hidden, (uint64_t)m->heads * m->head_dim, m->hidden, m->ffn};
  uint64_t floats = (uint64_t)m->vocab * m->hidden * (m->tied ? 1 : 2), layer_floats = 0;
  size_t count = lqt__llama_tensor_count(m);
  for (size_t i = 0; i < count; i++) {
    lqt__llama_tensor t;
    lqt__llama_tensor_at(m, i, &t);
    if (t.layer == 0 && t.role != LQT__ROLE_EMBEDDING && t.role != LQT__ROLE_HEAD) {
      layer_floats += (uint64_t)t.rows * t.cols;
    }
  }
  for (int tap = 0; tap < LQT__TAP_COUNT; tap++) layer_floats += taps[tap] * (taps[tap] + FLUSH);
  layer_floats += 2ull * SEQUENCES * LENGTH * m->kv_heads * m->head_dim;
  return 4 * (floats + layer_floats * m->layers + (uint64_t)SEQUENCES * m->vocab);
}

static lqt_status write_texts(writer *w, uint64_t seed, lqt__calibrate_step report, void *user,
                              lqt_diag *diag) {
  for (uint64_t batch = 0; batch < BATCHES; batch++) {
    for (uint32_t r = 0; r < SEQUENCES; r++) {
      w->random[r] = lqt__random_seed(seed * 0x9e3779b97f4a7c15u + batch * SEQUENCES + r);
      w->tokens[r] = w->llama->bos >= 0 ? (uint32_t)w->llama->bos
                                        : lqt__random_below(&w->random[r], w->llama->vocab);
    }
    for (w->position = 0; w->position < LENGTH; w->position++) {
      step(w);
      if (report == NULL || report(user, batch * LENGTH + w->position + 1, BATCHES * LENGTH))
        continue;
      return lqt__fail(diag, LQT_CANCELLED, NULL, "cancelled; the output file is as it was");
    }
  }
  flush(w);
  return LQT_OK;
}

static lqt_status calibrate(writer *w, const lqt__source *source, uint64_t seed,
                            lqt__calibrate_step report, void *user, lqt_diag *diag) {
  const lqt__llama *m = w->llama;
  LQT__TRY(make_moments(m, w->moments, diag));
  w->layers = lqt__arena_array(&w->arena, m->layers, sizeof(layer));
  if (w->layers == NULL) return lqt__fail_memory(diag, NULL, m->layers * sizeof(layer), "layers");
  LQT__TRY(make_buffers(w, diag));
  LQT__TRY(load(w, source, NULL, 0, LQT__ROLE_EMBEDDING, &w->embedding, diag));
  LQT__TRY(load(w, source, NULL, 0, LQT__ROLE_NORM_OUT, &w->norm_out, diag));
  w->head = w->embedding;
  if (!m->tied) LQT__TRY(load(w, source, NULL, 0, LQT__ROLE_HEAD, &w->head, diag));
  for (uint32_t l = 0; l < m->layers; l++) LQT__TRY(load_layer(w, source, l, diag));
  return write_texts(w, seed, report, user, diag);
}

lqt_status lqt__calibrate(const lqt__source *source, uint64_t seed, lqt__pool *pool,
                          lqt__calibrate_step report, void *user, lqt__moments *out,
                          lqt_diag *diag) {
  const lqt__llama *m = &source->llama;
  *out = (lqt__moments){0};
  writer *w = lqt__alloc_zero(sizeof *w);
  if (w == NULL) return lqt__fail_memory(diag, NULL, sizeof *w, "the calibration");
  w->llama = m;
  w->ops = lqt__strip_ops_get();
  w->pool = pool;
  w->moments = out;
  w->q_dim = m->heads * m->head_dim;
  w->kv_dim = m->kv_heads * m->head_dim;
  lqt_status status = calibrate(w, source, seed, report, user, diag);
  lqt__arena_free(&w->arena);
  lqt__free(w);
  if (status != LQT_OK) lqt__moments_free(out);
  return status;
}
