/* The kernels of one instruction set, written once over the vector type `vf` of W floats that the
 * including file's simd_*.h defines. Included once by each kernels_*.c. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/half.h"
#include "cpu.h"
#include KERNELS_SIMD

#define INLINE static inline __attribute__((always_inline))

/* e^x to 2 units in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial for e^r.
 * Arguments are clamped to where the result is finite and not denormal. A NaN stays one: minimum
 * and maximum give their second operand then. */
INLINE vf v_exp(vf x) {
  x = v_min(v_set(88.3f), v_max(v_set(-87.0f), x));
  vf n = v_round(v_mul(x, v_set(1.44269504088896341f)));
  vf r = v_fma(n, v_set(-0.693359375f), x); /* ln 2 in two parts, the first exact in products */
  r = v_fma(n, v_set(2.12194440e-4f), r);
  vf p = v_set(1.0f / 5040.0f);
  p = v_fma(p, r, v_set(1.0f / 720.0f));
  p = v_fma(p, r, v_set(1.0f / 120.0f));
  p = v_fma(p, r, v_set(1.0f / 24.0f));
  p = v_fma(p, r, v_set(1.0f / 6.0f));
  p = v_fma(p, r, v_set(0.5f));
  p = v_fma(v_mul(r, r), p, r);
  return v_scale2(v_add(p, v_set(1.0f)), n);
}

/* erfc(a) for a >= 0, to about 1e-6 relative, so that the left tail of GELU keeps its digits: an
 * exponential of -a^2 plus a polynomial in 1 / (1 + a / 2). Source: Press et al., Numerical
 * Recipes, 2nd edition (1992), section 6.2. */
INLINE vf v_erfc(vf a) {
  static const float c[] = {0.17087277f,  -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
                            -0.18628806f, 0.09678418f,  0.37409196f, 1.00002368f,  -1.26551223f};
  vf t = v_div(v_set(1.0f), v_fma(a, v_set(0.5f), v_set(1.0f)));
  vf p = v_set(c[0]);
#pragma GCC unroll 16
  for (size_t i = 1; i < sizeof c / sizeof c[0]; i++) p = v_fma(p, t, v_set(c[i]));
  vf square = v_mul(a, a);
  /* What the square lost to rounding; zero where products are not fused. */
  vf rest = v_fma(a, a, v_sub(v_zero(), square));
  return v_mul(v_mul(t, v_exp(v_sub(v_zero(), square))), v_exp(v_sub(p, rest)));
}

INLINE vf v_sigmoid(vf x) {
  return v_div(v_set(1.0f), v_add(v_set(1.0f), v_exp(v_sub(v_zero(), x))));
}

INLINE vf v_act(lqt_act act, vf x) {
  switch (act) {
    case LQT_ACT_SILU:
      return v_mul(x, v_sigmoid(x));
    case LQT_ACT_GELU: {
      /* x (1 + erf(x / sqrt 2)) / 2 = max(x, 0) - |x| erfc(|x| / sqrt 2) / 2 */
      vf a = v_abs(x);
      vf tail = v_mul(v_mul(v_set(0.5f), a), v_erfc(v_mul(a, v_set(0.70710678118654752f))));
      return v_sub(v_max(x, v_zero()), tail);
    }
    case LQT_ACT_GELU_TANH: {
      /* (1 + tanh u) / 2 = sigmoid(2u) */
      vf cube = v_mul(v_mul(x, x), x);
      vf u = v_mul(v_set(1.59576912160573071f), v_fma(cube, v_set(0.044715f), x));
      return v_mul(x, v_sigmoid(u));
    }
    default:
      return v_max(x, v_zero());
  }
}

INLINE void act_rows(lqt_act act, const float *gate, const float *up, size_t n, float *y) {
  size_t i = 0;
  for (; i + W <= n; i += W) {
    vf v = v_act(act, v_load(gate + i));
    v_store(y + i, up != NULL ? v_mul(v, v_load(up + i)) : v);
  }
  if (i == n) return;
  vf v = v_act(act, v_load_n(gate + i, n - i));
  v_store_n(y + i, up != NULL ? v_mul(v, v_load_n(up + i, n - i)) : v, n - i);
}

static void glu(lqt_act act, const float *gate, const float *up, size_t n, float *y) {
  switch (act) {
    case LQT_ACT_SILU:
      act_rows(LQT_ACT_SILU, gate, up, n, y);
      break;
    case LQT_ACT_GELU:
      act_rows(LQT_ACT_GELU, gate, up, n, y);
      break;
    case LQT_ACT_GELU_TANH:
      act_rows(LQT_ACT_GELU_TANH, gate, up, n, y);
      break;
    default:
      act_rows(LQT_ACT_RELU, gate, up, n, y);
  }
}

static void act_only(lqt_act act, const float *x, size_t n, float *y) { glu(act, x, NULL, n, y); }

static void add(const float *a, const float *b, size_t n, float *y) {
  size_t i = 0;
  for (; i + W <= n; i += W) v_store(y + i, v_add(v_load(a + i), v_load(b + i)));
  if (i < n) v_store_n(y + i, v_add(v_load_n(a + i, n - i), v_load_n(b + i, n - i)), n - i);
}

static void scale(float *values, float factor, size_t n) {
  vf f = v_set(factor);
  size_t i = 0;
  for (; i + W <= n; i += W) v_store(values + i, v_mul(v_load(values + i), f));
  if (i < n) v_store_n(values + i, v_mul(v_load_n(values + i, n - i), f), n - i);
}

static void rotate(float *low, float *high, const float *c, const float *s, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) {
    vf x = v_load(low + i), y = v_load(high + i), a = v_load(c + i), b = v_load(s + i);
    v_store(low + i, v_sub(v_mul(x, a), v_mul(y, b)));
    v_store(high + i, v_fma(y, a, v_mul(x, b)));
  }
  for (; i < n; i++) {
    float x = low[i], y = high[i];
    low[i] = x * c[i] - y * s[i];
    high[i] = y * c[i] + x * s[i];
  }
}

/* Sum of (x - mean)^2, or of x when `square` is false. */
INLINE float moment(const float *x, size_t n, float mean, bool square) {
  vf sums[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
  vf m = v_set(mean);
  size_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) {
    for (size_t j = 0; j < 4; j++) {
      vf v = v_sub(v_load(x + i + j * W), m);
      sums[j] = square ? v_fma(v, v, sums[j]) : v_add(sums[j], v);
    }
  }
  float tail = 0;
  for (; i < n; i++) {
    float v = x[i] - mean;
    tail += square ? v * v : v;
  }
  return v_sum(v_add(v_add(sums[0], sums[1]), v_add(sums[2], sums[3]))) + tail;
}

static void layernorm(const float *x, const float *gain, const float *bias, size_t n, float eps,
                      float *y) {
  float mean = moment(x, n, 0.0f, false) / (float)n;
  float variance = moment(x, n, mean, true) / (float)n;
  vf f = v_set(1.0f / sqrtf(variance + eps)), m = v_set(mean);
  size_t i = 0;
  for (; i + W <= n; i += W) {
    vf v = v_mul(v_mul(v_sub(v_load(x + i), m), f), v_load(gain + i));
    v_store(y + i, bias != NULL ? v_add(v, v_load(bias + i)) : v);
  }
  if (i == n) return;
  vf v = v_mul(v_mul(v_sub(v_load_n(x + i, n - i), m), f), v_load_n(gain + i, n - i));
  v_store_n(y + i, bias != NULL ? v_add(v, v_load_n(bias + i, n - i)) : v, n - i);
}

static void rmsnorm(const float *x, const float *gain, size_t n, float eps, float *y) {
  float square = moment(x, n, 0.0f, true) / (float)n;
  vf f = v_set(1.0f / sqrtf(square + eps));
  size_t i = 0;
  for (; i + W <= n; i += W) v_store(y + i, v_mul(v_mul(v_load(x + i), f), v_load(gain + i)));
  if (i == n) return;
  v_store_n(y + i, v_mul(v_mul(v_load_n(x + i, n - i), f), v_load_n(gain + i, n - i)), n - i);
}

static void widen(const void *in, lqt_dtype dtype, size_t n, float *out) {
  const uint16_t *half = in;
  size_t i = 0;
  switch (dtype) {
    case LQT_DTYPE_F16:
      for (; i + W <= n; i += W) v_store(out + i, v_load_f16(half + i));
      if (i < n) v_store_n(out + i, v_load_f16_n(half + i, n - i), n - i);
      break;
    case LQT_DTYPE_BF16:
      for (; i + W <= n; i += W) v_store(out + i, v_load_bf16(half + i));
      if (i < n) v_store_n(out + i, v_load_bf16_n(half + i, n - i), n - i);
      break;
    default:
      memcpy(out, in, n * sizeof(float));
  }
}

static void narrow(const float *in, size_t n, uint16_t *out) {
  size_t i = 0;
  for (; i + W <= n; i += W) v_store_f16(out + i, v_load(in + i));
  for (; i < n; i++) out[i] = lqt__f16_from_f32(in[i]);
}

INLINE vf load_as(const void *p, lqt_dtype dtype, size_t at) {
  if (dtype == LQT_DTYPE_F16) return v_load_f16((const uint16_t *)p + at);
  if (dtype == LQT_DTYPE_BF16) return v_load_bf16((const uint16_t *)p + at);
  return v_load((const float *)p + at);
}

INLINE vf load_as_n(const void *p, lqt_dtype dtype, size_t at, size_t n) {
  if (dtype == LQT_DTYPE_F16) return v_load_f16_n((const uint16_t *)p + at, n);
  if (dtype == LQT_DTYPE_BF16) return v_load_bf16_n((const uint16_t *)p + at, n);
  return v_load_n((const float *)p + at, n);
}

/* Four rows of w, `w_stride` elements apart, by `tokens` rows of x. */
INLINE void dot_tile(const void *w, size_t w_stride, lqt_dtype dtype, const float *x,
                     size_t x_stride, unsigned tokens, size_t n, float *out) {
  vf sum[4][4];
#pragma GCC unroll 4
  for (unsigned t = 0; t < tokens; t++) {
#pragma GCC unroll 4
    for (unsigned r = 0; r < 4; r++) sum[t][r] = v_zero();
  }
  size_t i = 0;
  for (; i + W <= n; i += W) {
    vf row[4];
#pragma GCC unroll 4
    for (unsigned r = 0; r < 4; r++) row[r] = load_as(w, dtype, r * w_stride + i);
#pragma GCC unroll 4
    for (unsigned t = 0; t < tokens; t++) {
      vf v = v_load(x + t * x_stride + i);
#pragma GCC unroll 4
      for (unsigned r = 0; r < 4; r++) sum[t][r] = v_fma(row[r], v, sum[t][r]);
    }
  }
  if (i < n) {
    for (unsigned t = 0; t < tokens; t++) {
      vf v = v_load_n(x + t * x_stride + i, n - i);
      for (unsigned r = 0; r < 4; r++) {
        sum[t][r] = v_fma(load_as_n(w, dtype, r * w_stride + i, n - i), v, sum[t][r]);
      }
    }
  }
#pragma GCC unroll 4
  for (unsigned t = 0; t < tokens; t++) {
    v_sum4(sum[t][0], sum[t][1], sum[t][2], sum[t][3], out + 4 * t);
  }
}

INLINE void dot_typed(const void *w, size_t w_stride, lqt_dtype dtype, const float *x,
                      size_t x_stride, unsigned tokens, size_t n, float *out) {
  if (tokens == 1) dot_tile(w, w_stride, dtype, x, x_stride, 1, n, out);
  if (tokens == 2) dot_tile(w, w_stride, dtype, x, x_stride, 2, n, out);
  if (tokens == 3) dot_tile(w, w_stride, dtype, x, x_stride, 3, n, out);
  if (tokens == 4) dot_tile(w, w_stride, dtype, x, x_stride, 4, n, out);
}

static void dot(const void *w, size_t w_stride, lqt_dtype dtype, const float *x, size_t x_stride,
                unsigned tokens, size_t n, float *out) {
  if (dtype == LQT_DTYPE_F16)
    dot_typed(w, w_stride, LQT_DTYPE_F16, x, x_stride, tokens, n, out);
  else if (dtype == LQT_DTYPE_BF16)
    dot_typed(w, w_stride, LQT_DTYPE_BF16, x, x_stride, tokens, n, out);
  else
    dot_typed(w, w_stride, LQT_DTYPE_F32, x, x_stride, tokens, n, out);
}

/* ---- The register tile: `rows` values of a, each times `vectors` vectors of b, a step. ---- */

INLINE void tile_fixed(const float *a, size_t row_step, size_t k_step, const float *b, size_t ldb,
                       size_t depth, float *c, size_t ldc, unsigned rows, unsigned vectors,
                       bool accumulate) {
  vf sum[TILE_ROWS][2];
#pragma GCC unroll 16
  for (unsigned i = 0; i < rows; i++) {
#pragma GCC unroll 2
    for (unsigned j = 0; j < vectors; j++) {
      sum[i][j] = accumulate ? v_load(c + i * ldc + j * W) : v_zero();
    }
  }
  for (size_t k = 0; k < depth; k++) {
    vf right[2];
#pragma GCC unroll 2
    for (unsigned j = 0; j < vectors; j++) right[j] = v_load(b + j * W);
#pragma GCC unroll 16
    for (unsigned i = 0; i < rows; i++) {
      vf left = v_set(a[i * row_step]);
#pragma GCC unroll 2
      for (unsigned j = 0; j < vectors; j++) sum[i][j] = v_fma(left, right[j], sum[i][j]);
    }
    a += k_step;
    b += ldb;
  }
#pragma GCC unroll 16
  for (unsigned i = 0; i < rows; i++) {
#pragma GCC unroll 2
    for (unsigned j = 0; j < vectors; j++) v_store(c + i * ldc + j * W, sum[i][j]);
  }
}

INLINE void tile_vectors(const float *a, size_t row_step, size_t k_step, const float *b, size_t ldb,
                         size_t depth, float *c, size_t ldc, size_t rows, unsigned vectors,
                         bool accumulate) {
#define TILE(n)                                                                       \
  for (; rows >= (n); rows -= (n), a += (n)*row_step, c += (n)*ldc) {                 \
    tile_fixed(a, row_step, k_step, b, ldb, depth, c, ldc, (n), vectors, accumulate); \
  }
  TILE(TILE_ROWS)
#if TILE_ROWS > 8
  TILE(8)
#endif
#if TILE_ROWS > 4
  TILE(4)
#endif
  TILE(2)
  TILE(1)
#undef TILE
}

static void tile(const float *a, size_t row_step, size_t k_step, const float *b, size_t ldb,
                 size_t depth, float *c, size_t ldc, size_t rows, unsigned vectors,
                 bool accumulate) {
  /* A step of 1 on one side is what every caller has; the compiler folds the address into it. */
  if (vectors == 2)
    tile_vectors(a, row_step, k_step, b, ldb, depth, c, ldc, rows, 2, accumulate);
  else
    tile_vectors(a, row_step, k_step, b, ldb, depth, c, ldc, rows, 1, accumulate);
}

#include "kernels_attention.h"
#include "kernels_attention_few.h"
#include "kernels_lookup.h"

const lqt__cpu_kernels KERNELS_TABLE = {
    .name = KERNELS_NAME,
    .width = W,
    .tile = tile,
    .dot = dot,
    .widen = widen,
    .narrow = narrow,
    .rmsnorm = rmsnorm,
    .layernorm = layernorm,
    .add = add,
    .rotate = rotate,
    .act = act_only,
    .glu = glu,
    .lookup = lookup,
    .scale = scale,
    .attention = attention,
    .attention_few = attention_few,
};
