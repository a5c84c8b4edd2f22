/* Attention of a few query rows over many keys (decode); part of kernels_body.h. Scores are dot
 * products along the head, keys and values are read once, as they lie in their pages. */

enum { FEW_ROWS = LQT__CPU_FEW_ROWS };

typedef struct few_state {
  const lqt__cpu_attention *a;
  const float *q[FEW_ROWS];
  float from[FEW_ROWS], to[FEW_ROWS];
  float max[FEW_ROWS], sum[FEW_ROWS];
  float *out; /* [FEW_ROWS][head_dim] */
  _Alignas(64) float scores[FEW_ROWS][LQT__CPU_KEY_BLOCK];
  const uint8_t *k[LQT__CPU_KEY_BLOCK], *v[LQT__CPU_KEY_BLOCK];
} few_state;

INLINE void few_scores(few_state *s, size_t n, unsigned rows, lqt_dtype dtype) {
  size_t dim = s->a->head_dim, whole = dim / W * W;
  for (size_t key = 0; key < n; key += 4) {
    const uint8_t *k[4];
    for (size_t j = 0; j < 4; j++) k[j] = s->k[key + j < n ? key + j : n - 1];
    vf sum[FEW_ROWS][4];
#pragma GCC unroll 4
    for (unsigned r = 0; r < rows; r++) sum[r][0] = sum[r][1] = sum[r][2] = sum[r][3] = v_zero();
    for (size_t d = 0; d < whole; d += W) {
      vf right[4];
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; j++) right[j] = load_as(k[j], dtype, d);
#pragma GCC unroll 4
      for (unsigned r = 0; r < rows; r++) {
        vf left = v_load(s->q[r] + d);
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++) sum[r][j] = v_fma(left, right[j], sum[r][j]);
      }
    }
    for (unsigned r = 0; whole < dim && r < rows; r++) {
      vf left = v_load_n(s->q[r] + whole, dim - whole);
      for (size_t j = 0; j < 4; j++) {
        sum[r][j] = v_fma(left, load_as_n(k[j], dtype, whole, dim - whole), sum[r][j]);
      }
    }
#pragma GCC unroll 4
    for (unsigned r = 0; r < rows; r++) {
      v_sum4(sum[r][0], sum[r][1], sum[r][2], sum[r][3], &s->scores[r][key]);
    }
  }
}

INLINE float largest_of(vf x) {
  float lanes[W], most;
  v_store(lanes, x);
  most = lanes[0];
  for (size_t i = 1; i < W; i++) most = lanes[i] > most ? lanes[i] : most;
  return most;
}

/* Turns scores into weights; what was summed before shrinks by the returned factor. Keys from `n`
 * to the end of the block get weight zero. */
INLINE float few_softmax(few_state *s, unsigned r, int32_t position, size_t n) {
  float *scores = s->scores[r];
  vf from = v_set(s->from[r]), to = v_set(s->to[r]), most = v_set(s->max[r]);
  float last = (float)(position + (int32_t)n - 1);
  if (s->to[r] > last) to = v_set(last);
  vf scale = v_set(s->a->scale);
  for (size_t i = 0; i < LQT__CPU_KEY_BLOCK; i += W) {
    vf p = v_add(v_set((float)(position + (int32_t)i)), v_iota());
    vf x = v_keep_range(v_mul(v_load(scores + i), scale), p, from, to, v_set(MASKED));
    v_store(scores + i, x);
    most = v_max(most, x);
  }
  float high = largest_of(most);
  vf shift = v_set(high), sum = v_zero();
  for (size_t i = 0; i < LQT__CPU_KEY_BLOCK; i += W) {
    vf p = v_add(v_set((float)(position + (int32_t)i)), v_iota());
    vf x = v_exp(v_sub(v_load(scores + i), shift));
    x = v_keep_range(x, p, from, to, v_zero());
    v_store(scores + i, x);
    sum = v_add(sum, x);
  }
  float before[W];
  v_store(before, v_exp(v_set(s->max[r] - high)));
  s->sum[r] = s->sum[r] * before[0] + v_sum(sum);
  s->max[r] = high;
  return before[0];
}

/* out = out * factor + weights * values over `vectors` vectors of the head from `d` on. */
INLINE void few_values(few_state *s, size_t n, const float *factor, unsigned rows, size_t d,
                       unsigned vectors, lqt_dtype dtype) {
  size_t dim = s->a->head_dim;
  vf sum[FEW_ROWS][4];
#pragma GCC unroll 4
  for (unsigned r = 0; r < rows; r++) {
#pragma GCC unroll 4
    for (unsigned j = 0; j < vectors; j++) {
      sum[r][j] = v_mul(v_load(s->out + r * dim + d + j * W), v_set(factor[r]));
    }
  }
  for (size_t key = 0; key < n; key++) {
    vf value[4];
#pragma GCC unroll 4
    for (unsigned j = 0; j < vectors; j++) value[j] = load_as(s->v[key], dtype, d + j * W);
#pragma GCC unroll 4
    for (unsigned r = 0; r < rows; r++) {
      vf weight = v_set(s->scores[r][key]);
#pragma GCC unroll 4
      for (unsigned j = 0; j < vectors; j++) sum[r][j] = v_fma(weight, value[j], sum[r][j]);
    }
  }
#pragma GCC unroll 4
  for (unsigned r = 0; r < rows; r++) {
#pragma GCC unroll 4
    for (unsigned j = 0; j < vectors; j++) v_store(s->out + r * dim + d + j * W, sum[r][j]);
  }
}

/* The part of a head behind its last whole vector. */
INLINE void few_values_tail(few_state *s, size_t n, const float *factor, unsigned rows, size_t d,
                            lqt_dtype dtype) {
  size_t dim = s->a->head_dim;
  for (unsigned r = 0; r < rows; r++) {
    float *out = s->out + r * dim + d;
    vf sum = v_mul(v_load_n(out, dim - d), v_set(factor[r]));
    for (size_t key = 0; key < n; key++) {
      sum = v_fma(v_set(s->scores[r][key]), load_as_n(s->v[key], dtype, d, dim - d), sum);
    }
    v_store_n(out, sum, dim - d);
  }
}

INLINE void few_block(few_state *s, int32_t position, size_t n, unsigned rows, lqt_dtype dtype) {
  size_t dim = s->a->head_dim, d = 0;
  float factor[FEW_ROWS];
  few_scores(s, n, rows, dtype);
  for (unsigned r = 0; r < rows; r++) factor[r] = few_softmax(s, r, position, n);
  for (; d + 4 * W <= dim; d += 4 * W) few_values(s, n, factor, rows, d, 4, dtype);
  for (; d + W <= dim; d += W) few_values(s, n, factor, rows, d, 1, dtype);
  if (d < dim) few_values_tail(s, n, factor, rows, d, dtype);
}

static void few_block_of(few_state *s, int32_t position, size_t n, unsigned rows) {
  lqt_dtype dtype = s->a->page_dtype;
#define ROWS(count)                                  \
  if (rows == (count) && dtype == LQT_DTYPE_F16)     \
    few_block(s, position, n, count, LQT_DTYPE_F16); \
  else if (rows == (count))                          \
  few_block(s, position, n, count, LQT_DTYPE_F32)
  ROWS(1);
  ROWS(2);
  ROWS(3);
  ROWS(4);
#undef ROWS
}

INLINE void few_find(few_state *s, const lqt__cpu_attention_task *task, int32_t position,
                     size_t n) {
  const lqt__cpu_attention *a = s->a;
  const int32_t *table = a->table + (size_t)a->sequences[task->token] * a->table_stride;
  size_t size = a->page_dtype == LQT_DTYPE_F16 ? 2 : 4, head = (size_t)task->kv_head * a->head_dim;
  for (size_t i = 0; i < n; i++) {
    uint32_t p = (uint32_t)position + (uint32_t)i;
    size_t row = (size_t)table[p / a->page_tokens] * a->page_tokens + p % a->page_tokens;
    s->k[i] = a->k + (row * a->k_stride + head) * size;
    s->v[i] = a->v + (row * a->v_stride + head) * size;
  }
}

/* partial: per row the maximum, the sum, then head_dim sums of values. */
static void attention_few(const lqt__cpu_attention *a, const lqt__cpu_attention_task *task,
                          float *partial) {
  few_state s = {.a = a};
  size_t dim = a->head_dim;
  s.out = partial + 2 * (size_t)FEW_ROWS;
  memset(s.out, 0, FEW_ROWS * dim * sizeof(float));
  for (unsigned r = 0; r < task->rows; r++) {
    size_t row = (size_t)task->row + r, t = task->token + row / a->group;
    int32_t position = a->positions[t];
    bool cut = a->window != 0 && (uint32_t)position >= a->window;
    s.from[r] = cut ? (float)(position - (int32_t)a->window + 1) : 0.0f;
    s.to[r] = (float)position;
    s.max[r] = MASKED;
    s.q[r] = a->q + t * a->q_stride + ((size_t)task->kv_head * a->group + row % a->group) * dim;
  }
  for (int32_t at = task->first_key; at <= task->last_key; at += LQT__CPU_KEY_BLOCK) {
    size_t n = (size_t)(task->last_key - at) + 1;
    if (n > LQT__CPU_KEY_BLOCK) n = LQT__CPU_KEY_BLOCK;
    few_find(&s, task, at, n);
    few_block_of(&s, at, n, task->rows);
  }
  memcpy(partial, s.max, sizeof s.max);
  memcpy(partial + FEW_ROWS, s.sum, sizeof s.sum);
}
