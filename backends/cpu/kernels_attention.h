/* Attention of one instruction set; part of kernels_body.h. Lanes are query rows (tokens x the
 * query heads of one KV head), so that keys and values are broadcast as they lie in their pages and
 * the softmax needs no sum across lanes. Running maximum and sum over blocks of keys as in Milakov
 * and Gimelshein, "Online normalizer calculation for softmax" (2018). */

/* Masked scores: far below any real score, yet finite, so that differences stay finite. */
#define MASKED (-1e30f)

typedef struct attention_state {
  const lqt__cpu_attention *a;
  const lqt__cpu_attention_task *task;
  unsigned rows, vectors, lanes; /* lanes = vectors * W */
  int32_t low, high;             /* positions that any row sees */
  bool masked;                   /* rows see different ranges */
  float *q, *k, *v, *scores, *out, *max, *sum, *from, *to, *factor;
} attention_state;

INLINE void attention_layout(attention_state *s, float *scratch) {
  size_t dim = s->a->head_dim, lanes = s->lanes;
  s->q = scratch;
  s->k = s->q + dim * lanes;
  s->v = s->k + LQT__CPU_KEY_BLOCK * dim;
  s->scores = s->v + LQT__CPU_KEY_BLOCK * dim;
  s->out = s->scores + LQT__CPU_KEY_BLOCK * lanes;
  s->max = s->out + dim * lanes;
  s->sum = s->max + lanes;
  s->from = s->sum + lanes;
  s->to = s->from + lanes;
  s->factor = s->to + lanes;
}

INLINE void attention_begin(attention_state *s) {
  const lqt__cpu_attention *a = s->a;
  size_t dim = a->head_dim;
  s->low = INT32_MAX;
  s->high = 0;
  int32_t lowest_end = INT32_MAX, highest_start = 0;
  for (unsigned lane = 0; lane < s->lanes; lane++) {
    /* Spare lanes repeat the last row. */
    size_t row = s->task->row + (lane < s->rows ? lane : s->rows - 1);
    size_t t = s->task->token + row / a->group;
    int32_t position = a->positions[t];
    int32_t start =
        a->window != 0 && (uint32_t)position >= a->window ? position - (int32_t)a->window + 1 : 0;
    s->from[lane] = (float)start;
    s->to[lane] = (float)position;
    if (start < s->low) s->low = start;
    if (start > highest_start) highest_start = start;
    if (position > s->high) s->high = position;
    if (position < lowest_end) lowest_end = position;
    s->max[lane] = MASKED;
    s->sum[lane] = 0;
    const float *q =
        a->q + t * a->q_stride + ((size_t)s->task->kv_head * a->group + row % a->group) * dim;
    for (size_t d = 0; d < dim; d++) s->q[d * s->lanes + lane] = q[d] * a->scale;
  }
  s->masked = s->low != highest_start || s->high != lowest_end;
  memset(s->out, 0, dim * s->lanes * sizeof(float));
}

/* Widens the keys or values of `n` positions from `position` on. */
INLINE void attention_gather(const attention_state *s, const uint8_t *pages, size_t stride,
                             int32_t position, size_t n, float *out) {
  const lqt__cpu_attention *a = s->a;
  const int32_t *table = a->table + (size_t)a->sequences[s->task->token] * a->table_stride;
  size_t dim = a->head_dim, size = a->page_dtype == LQT_DTYPE_F16 ? 2 : 4;
  for (size_t i = 0; i < n; i++) {
    uint32_t p = (uint32_t)position + (uint32_t)i;
    size_t row = (size_t)table[p / a->page_tokens] * a->page_tokens + p % a->page_tokens;
    widen(pages + (row * stride + (size_t)s->task->kv_head * dim) * size, a->page_dtype, dim,
          out + i * dim);
  }
}

INLINE void attention_softmax(attention_state *s, int32_t position, size_t n) {
  for (unsigned j = 0; j < s->vectors; j++) {
    float *scores = s->scores + j * W;
    vf from = v_load(s->from + j * W), to = v_load(s->to + j * W);
    vf old = v_load(s->max + j * W), largest = old;
    for (size_t i = 0; i < n; i++) {
      vf x = v_load(scores + i * s->lanes);
      if (s->masked) {
        x = v_keep_range(x, v_set((float)(position + (int32_t)i)), from, to, v_set(MASKED));
        v_store(scores + i * s->lanes, x);
      }
      largest = v_max(largest, x);
    }
    vf factor = v_exp(v_sub(old, largest));
    vf sum = v_mul(v_load(s->sum + j * W), factor);
    for (size_t i = 0; i < n; i++) {
      vf x = v_exp(v_sub(v_load(scores + i * s->lanes), largest));
      v_store(scores + i * s->lanes, x);
      sum = v_add(sum, x);
    }
    v_store(s->max + j * W, largest);
    v_store(s->sum + j * W, sum);
    v_store(s->factor + j * W, factor);
  }
}

INLINE void attention_end(const attention_state *s) {
  const lqt__cpu_attention *a = s->a;
  size_t dim = a->head_dim;
  for (unsigned lane = 0; lane < s->rows; lane++) {
    size_t row = s->task->row + lane;
    float *out = a->out + (s->task->token + row / a->group) * a->out_stride +
                 ((size_t)s->task->kv_head * a->group + row % a->group) * dim;
    float inverse = 1.0f / s->sum[lane];
    for (size_t d = 0; d < dim; d++) out[d] = s->out[d * s->lanes + lane] * inverse;
  }
}

static void attention(const lqt__cpu_attention *a, const lqt__cpu_attention_task *task,
                      float *scratch) {
  attention_state s = {.a = a, .task = task, .rows = task->rows};
  s.vectors = s.rows > W ? 2 : 1;
  s.lanes = s.vectors * W;
  attention_layout(&s, scratch);
  attention_begin(&s);
  size_t dim = a->head_dim;
  for (int32_t position = s.low; position <= s.high; position += LQT__CPU_KEY_BLOCK) {
    size_t n = (size_t)(s.high - position) + 1;
    if (n > LQT__CPU_KEY_BLOCK) n = LQT__CPU_KEY_BLOCK;
    attention_gather(&s, a->k, a->k_stride, position, n, s.k);
    tile(s.k, dim, 1, s.q, s.lanes, dim, s.scores, s.lanes, n, s.vectors, false);
    attention_softmax(&s, position, n);
    for (size_t d = 0; d < dim; d++) {
      for (unsigned j = 0; j < s.vectors; j++) {
        float *out = s.out + d * s.lanes + j * W;
        v_store(out, v_mul(v_load(out), v_load(s.factor + j * W)));
      }
    }
    attention_gather(&s, a->v, a->v_stride, position, n, s.v);
    tile(s.v, 1, dim, s.scores, s.lanes, n, s.out, s.lanes, dim, s.vectors, true);
  }
  attention_end(&s);
}
