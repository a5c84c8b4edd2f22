/* The fast product against the equation in double, over kinds, shapes and instruction sets. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "random_weight.h"

/* Relative l2 bounds: float32 sums of a few thousand terms; bfloat16 and int8 kernels are held to
 * the project's bound for activations of N(0, 1). */
#define EXACT_BOUND 2e-5
#define INT16_BOUND 2e-3 /* 12-bit integers */
#define FAST_BOUND 5e-3

static lqt__random fresh(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  uint64_t seed = (uint64_t)now.tv_nsec * 1000003u + (uint64_t)now.tv_sec;
  const char *fixed = getenv("LQT_TEST_SEED");
  if (fixed != NULL) seed = strtoull(fixed, NULL, 10);
  cr_log_info("LQT_TEST_SEED=%llu", (unsigned long long)seed);
  return lqt__random_seed(seed);
}

enum { TOKENS = 70 };

typedef struct fixture {
  const weight_kind *kind;
  lqt__cpu_fast *fast;
  lqt__pool *pool;
  uint64_t rows, x_stride, y_stride;
  float *x, *y, *bias;
} fixture;

static void multiply(const fixture *f, float *y, uint64_t y_stride, const float *bias,
                     bool accumulate, uint64_t first, uint64_t tokens) {
  lqt__cpu_product product = {f->fast, y, y_stride, bias, accumulate};
  const float *x = f->x + first * f->x_stride;
  cr_assert_eq(lqt__cpu_fast_matmul(&product, 1, x, f->x_stride, tokens, f->pool, NULL), LQT_OK);
}

/* All tokens, `step` at a time, so that each kernel is judged by many outputs; nothing is written
 * beside them. */
static void check_product(const fixture *f, uint64_t step, const double *expected, double bound) {
  for (uint64_t n = 0; n < TOKENS * f->y_stride; n++) f->y[n] = NAN;
  for (uint64_t t = 0; t < TOKENS; t += step) {
    uint64_t tokens = TOKENS - t < step ? TOKENS - t : step;
    multiply(f, f->y + t * f->y_stride, f->y_stride, NULL, false, t, tokens);
    for (uint64_t n = (t + tokens) * f->y_stride; n < TOKENS * f->y_stride; n++) {
      cr_assert(isnan(f->y[n]), "wrote past the tokens");
    }
  }
  for (uint64_t n = 0; n < TOKENS * f->y_stride; n++) {
    cr_assert(n % f->y_stride < f->rows || isnan(f->y[n]), "wrote past a row");
  }
  double error = relative_error(f->y, f->y_stride, expected, TOKENS, f->rows);
  cr_expect(error <= bound, "%s: %zu rows, stride %zu, %zu tokens, bits %u, group %u: %g > %g",
            lqt__cpu_fast_variant(f->fast, step), (size_t)f->rows, (size_t)f->x_stride,
            (size_t)step, f->kind->bits, f->kind->group, error, bound);
}

/* Bias and accumulation, against the plain product of the same kernel. */
static void check_epilogue(const fixture *f, uint64_t tokens, lqt__random *random) {
  const uint64_t rows = f->rows;
  float *before = random_floats(tokens * rows, true, random);
  float *y = malloc(tokens * rows * sizeof *y);
  memcpy(y, before, tokens * rows * sizeof *y);
  multiply(f, f->y, f->y_stride, NULL, false, 0, tokens);
  multiply(f, y, rows, f->bias, true, 0, tokens);
  for (uint64_t n = 0; n < tokens * rows; n++) {
    float plain = f->y[n / rows * f->y_stride + n % rows];
    float sum = plain + f->bias[n % rows] + before[n];
    cr_assert(fabsf(y[n] - sum) <= 1e-5f * (1 + fabsf(plain)), "bias or accumulation");
  }
  free(before);
  free(y);
}

static void check_kind(const weight_kind *kind, uint64_t rows, uint64_t cols, lqt__cpu_isa isa,
                       bool exact, double bound, lqt__pool *pool, lqt__random *random) {
  static const uint64_t steps[] = {1, 2, 3, 5, 8, 9, 17, 70};
  random_weight w;
  random_weight_make(&w, kind, rows, cols, random);
  fixture f = {
      .kind = kind, .pool = pool, .rows = rows, .x_stride = cols + 3, .y_stride = rows + 5};
  cr_assert_eq(lqt__cpu_fast_create(&w.desc, isa, exact, pool, &f.fast, NULL), LQT_OK);
  cr_assert_not_null(f.fast);
  f.x = random_floats(TOKENS * f.x_stride, true, random);
  f.bias = random_floats(rows, true, random);
  f.y = malloc(TOKENS * f.y_stride * sizeof *f.y);
  double *expected = random_weight_product(&w.desc, f.x, f.x_stride, TOKENS);
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    check_product(&f, steps[i], expected, bound);
    check_epilogue(&f, steps[i], random);
  }
  free(f.x);
  free(f.y);
  free(f.bias);
  free(expected);
  lqt__cpu_fast_destroy(f.fast);
  random_weight_free(&w);
}

#define CB LQT_DTYPE_CODEBOOK
static const weight_kind kinds[] = {
    {.dtype = CB, .bits = 4, .dim = 1, .group = 64},
    {.dtype = CB, .bits = 4, .dim = 1, .group = 64, .entries = 13, .mean = 3.0f},
    {.dtype = CB, .bits = 4, .dim = 1, .group = 16},
    {.dtype = CB, .bits = 4, .dim = 1, .group = 256},
    {.dtype = CB, .bits = 4, .dim = 1, .f32_codebook = true},
    {.dtype = CB, .bits = 3, .dim = 1, .group = 32},
    {.dtype = CB, .bits = 3, .dim = 1, .group = 16},
    {.dtype = CB, .bits = 3, .dim = 1},
    {.dtype = CB, .bits = 2, .dim = 1, .group = 128},
    {.dtype = CB, .bits = 2, .dim = 1, .group = 16},
    {.dtype = CB, .bits = 8, .dim = 1, .group = 64},
    {.dtype = CB, .bits = 8, .dim = 1, .entries = 200},
    {.dtype = CB, .bits = 2, .dim = 2, .group = 64},
    {.dtype = CB, .bits = 3, .dim = 2, .group = 32},
    {.dtype = CB, .bits = 4, .dim = 2, .group = 16},
    {.dtype = CB, .bits = 4, .dim = 4, .group = 64},
    {.dtype = CB, .bits = 4, .dim = 4, .group = 16},
    {.dtype = CB, .bits = 8, .dim = 2, .group = 64},
    {.dtype = CB, .bits = 8, .dim = 4, .group = 32},
    {.dtype = CB, .bits = 4, .dim = 1, .group = 64, .residual_bits = 4, .residual_dim = 1},
    {.dtype = CB, .bits = 3, .dim = 1, .group = 32, .residual_bits = 8, .residual_dim = 2},
    {.dtype = CB,
     .bits = 4,
     .dim = 1,
     .group = 64,
     .delta = LQT_DELTA_CSR,
     .delta_dtype = LQT_DTYPE_F16},
    {.dtype = CB,
     .bits = 8,
     .dim = 2,
     .group = 64,
     .delta = LQT_DELTA_CSR,
     .delta_dtype = LQT_DTYPE_F32,
     .wide_columns = true,
     .mask = true},
    {.dtype = CB, .bits = 4, .dim = 1, .group = 64, .mask = true},
    {.dtype = CB, .bits = 3, .dim = 1, .mask = true, .residual_bits = 2, .residual_dim = 1},
};
static const weight_kind plain_kinds[] = {
    {.dtype = LQT_DTYPE_F32},
    {.dtype = LQT_DTYPE_F16, .mask = true},
    {.dtype = LQT_DTYPE_BF16, .delta = LQT_DELTA_CSR, .delta_dtype = LQT_DTYPE_F32},
};
static const uint64_t shapes[][2] = {{1, 1},    {16, 64},   {17, 33},  {33, 100},
                                     {40, 257}, {150, 520}, {7, 1120}, {97, 150}};

static void check_all(lqt__cpu_isa isa, bool exact, double bound) {
  if (isa > lqt__cpu_best_isa()) cr_skip_test("this processor lacks the instructions");
  lqt__random random = fresh();
  lqt__pool *pool = lqt__pool_create(2);
  const size_t shape_count = sizeof shapes / sizeof *shapes;
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    for (size_t s = 0; s < shape_count; s++) {
      /* The bound is for many weights: a few may all be small beside their rounding steps, and a
       * codebook and its residual may cancel. */
      const uint64_t count = shapes[s][0] * shapes[s][1];
      const double slack = bound <= EXACT_BOUND || count >= 4096 ? 1 : count >= 512 ? 2 : 40;
      check_kind(&kinds[k], shapes[s][0], shapes[s][1], isa, exact, slack * bound,
                 (s + k) % 2 != 0 ? pool : NULL, &random);
    }
  }
  for (size_t k = 0; k < sizeof plain_kinds / sizeof *plain_kinds; k++) {
    for (size_t s = 0; s < shape_count; s++) {
      check_kind(&plain_kinds[k], shapes[s][0], shapes[s][1], isa, exact, EXACT_BOUND, pool,
                 &random);
    }
  }
  lqt__pool_destroy(pool);
}

Test(fast, avx512_fast) { check_all(LQT__CPU_AVX512, false, FAST_BOUND); }
Test(fast, avx512_exact) { check_all(LQT__CPU_AVX512, true, EXACT_BOUND); }
Test(fast, avx512f_fast) { check_all(LQT__CPU_AVX512F, false, FAST_BOUND); }
Test(fast, avx512vnni_fast) { check_all(LQT__CPU_AVX512_VNNI, false, FAST_BOUND); }
Test(fast, avx512vbmi_fast) { check_all(LQT__CPU_AVX512_VBMI, false, FAST_BOUND); }
Test(fast, avx2_fast) { check_all(LQT__CPU_AVX2, false, INT16_BOUND); }
Test(fast, avx2_exact) { check_all(LQT__CPU_AVX2, true, EXACT_BOUND); }

Test(fast, several_products_share_activations) {
  lqt__random random = fresh();
  enum { COUNT = 3, MANY = 40, COLS = 320 };
  const weight_kind some[COUNT] = {
      {.dtype = CB, .bits = 4, .dim = 1, .group = 64},
      {.dtype = CB, .bits = 3, .dim = 1, .group = 32},
      {.dtype = CB, .bits = 8, .dim = 2, .group = 64},
  };
  lqt__pool *pool = lqt__pool_create(2);
  float *x = random_floats(MANY * COLS, true, &random);
  random_weight w[COUNT];
  lqt__cpu_product products[COUNT] = {0};
  for (unsigned i = 0; i < COUNT; i++) {
    random_weight_make(&w[i], &some[i], 140 + i, COLS, &random);
    lqt__cpu_fast *fast;
    cr_assert_eq(lqt__cpu_fast_create(&w[i].desc, lqt__cpu_best_isa(), false, pool, &fast, NULL),
                 LQT_OK);
    if (fast == NULL) cr_skip_test("no fast product on this processor");
    products[i] = (lqt__cpu_product){.weight = fast, .y_stride = 140 + i};
    products[i].y = random_floats(MANY * (140 + i), true, &random);
  }
  cr_assert_eq(lqt__cpu_fast_matmul(products, COUNT, x, COLS, MANY, pool, NULL), LQT_OK);
  for (unsigned i = 0; i < COUNT; i++) {
    double *expected = random_weight_product(&w[i].desc, x, COLS, MANY);
    double error = relative_error(products[i].y, 140 + i, expected, MANY, 140 + i);
    cr_expect(error <= FAST_BOUND, "product %u: %g", i, error);
    free(expected);
    free(products[i].y);
    lqt__cpu_fast_destroy((lqt__cpu_fast *)products[i].weight);
    random_weight_free(&w[i]);
  }
  free(x);
  lqt__pool_destroy(pool);
}

/* A NaN or an infinity in one token's activations reaches that token's outputs and no other's. */
Test(fast, not_finite_activations_show) {
  lqt__random random = fresh();
  const weight_kind kind = {.dtype = CB, .bits = 4, .dim = 1, .group = 64};
  enum { ROWS = 128, COLS = 512, MANY = 16 };
  for (unsigned i = 0; i < 4; i++) {
    uint64_t tokens = i < 2 ? 2 : MANY;
    random_weight w;
    random_weight_make(&w, &kind, ROWS, COLS, &random);
    lqt__cpu_fast *fast;
    cr_assert_eq(lqt__cpu_fast_create(&w.desc, lqt__cpu_best_isa(), false, NULL, &fast, NULL),
                 LQT_OK);
    if (fast == NULL) cr_skip_test("no fast product on this processor");
    float *x = random_floats(MANY * COLS, true, &random);
    float y[MANY * ROWS];
    x[COLS + 77] = i % 2 != 0 ? INFINITY : NAN;
    lqt__cpu_product product = {.weight = fast, .y = y, .y_stride = ROWS};
    cr_assert_eq(lqt__cpu_fast_matmul(&product, 1, x, COLS, tokens, NULL, NULL), LQT_OK);
    for (uint64_t n = 0; n < tokens * ROWS; n++) {
      cr_assert_eq(isfinite(y[n]) != 0, n / ROWS != 1, "token %zu", (size_t)(n / ROWS));
    }
    free(x);
    lqt__cpu_fast_destroy(fast);
    random_weight_free(&w);
  }
}

/* So does an entry of the codebook: a kernel whose integers cannot hold it leaves it to others. */
Test(fast, not_finite_codebooks_show) {
  lqt__random random = fresh();
  const weight_kind kind = {.dtype = CB, .bits = 4, .dim = 1, .group = 64, .f32_codebook = true};
  enum { ROWS = 128, COLS = 512, MANY = 16 };
  float *x = random_floats(MANY * COLS, true, &random);
  for (lqt__cpu_isa isa = LQT__CPU_AVX2; isa <= lqt__cpu_best_isa(); isa++) {
    for (unsigned i = 0; i < 2; i++) {
      random_weight w;
      random_weight_make(&w, &kind, ROWS, COLS, &random);
      ((float *)w.desc.codebook.vectors)[3] = i == 0 ? NAN : INFINITY;
      lqt__cpu_fast *fast;
      cr_assert_eq(lqt__cpu_fast_create(&w.desc, isa, false, NULL, &fast, NULL), LQT_OK);
      for (uint64_t tokens = 2; tokens <= MANY; tokens += MANY - 2) {
        float y[MANY * ROWS] = {0};
        lqt__cpu_product product = {.weight = fast, .y = y, .y_stride = ROWS};
        cr_assert_eq(lqt__cpu_fast_matmul(&product, 1, x, COLS, tokens, NULL, NULL), LQT_OK);
        for (uint64_t n = 0; n < tokens * ROWS; n++) {
          cr_assert_not(isfinite(y[n]), "%s: output %d", lqt__cpu_fast_variant(fast, tokens),
                        (int)n);
        }
      }
      lqt__cpu_fast_destroy(fast);
      random_weight_free(&w);
    }
  }
  free(x);
}

/* Each level runs the kernels that its instructions allow, and no others. */
Test(fast, levels_choose_their_kernels) {
  static const struct {
    lqt__cpu_isa isa;
    const char *few4, *many4, *many8;
  } levels[] = {
      {LQT__CPU_AVX2, "int16_16x4__avx2", "int16_16x4__avx2", "f32_16x4__avx2"},
      {LQT__CPU_AVX512F, "f32_16x8__avx512", "f32_16x8__avx512", "avx2"},
      {LQT__CPU_AVX512_VNNI, "f32_16x8__avx512", "int8_32x8__avx512", "avx2"},
      {LQT__CPU_AVX512_VBMI, "f32_16x8__avx512", "int8_32x8__avx512", "f32_16x8__avx512"},
      {LQT__CPU_AVX512, "bf16_16x8__avx512", "int8_32x8__avx512", "bf16_16x8__avx512"},
  };
  lqt__random random = fresh();
  const weight_kind kinds4[] = {{.dtype = CB, .bits = 4, .dim = 1, .group = 64},
                                {.dtype = CB, .bits = 8, .dim = 1, .group = 64}};
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
    if (levels[i].isa > lqt__cpu_best_isa()) continue;
    for (unsigned k = 0; k < 2; k++) {
      random_weight w;
      random_weight_make(&w, &kinds4[k], 128, 512, &random);
      lqt__cpu_fast *fast;
      cr_assert_eq(lqt__cpu_fast_create(&w.desc, levels[i].isa, false, NULL, &fast, NULL), LQT_OK);
      const char *few = lqt__cpu_fast_variant(fast, 1), *many = lqt__cpu_fast_variant(fast, 64);
      const char *want = k == 0 ? levels[i].many4 : levels[i].many8;
      if (k == 0) cr_expect_not_null(strstr(few, levels[i].few4), "%zu: %s", i, few);
      /* The int8 table of a random codebook may be too coarse. */
      cr_expect(strstr(many, want) != NULL || (k == 0 && strstr(many, levels[i].few4) != NULL),
                "%zu: %s", i, many);
      lqt__cpu_fast_destroy(fast);
      random_weight_free(&w);
    }
  }
}

/* What no kernel takes is left to the generic path. */
Test(fast, other_kinds_are_left_alone) {
  lqt__random random = fresh();
  const weight_kind others[] = {
      {.dtype = CB, .bits = 4, .dim = 8},
  };
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    random_weight w;
    random_weight_make(&w, &others[i], 20, 64, &random);
    lqt__cpu_fast *fast = (lqt__cpu_fast *)&w;
    cr_assert_eq(lqt__cpu_fast_create(&w.desc, lqt__cpu_best_isa(), false, NULL, &fast, NULL),
                 LQT_OK);
    cr_assert_null(fast);
    random_weight_free(&w);
  }
}
