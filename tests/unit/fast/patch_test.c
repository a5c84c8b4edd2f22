/* A patched weight multiplies like one that was created from the patched description. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/half.h"
#include "random_weight.h"

enum { ROWS = 101, COLS = 328, MOST_TOKENS = 12 };

static void expect_same(const lqt__cpu_fast *patched, const lqt_weight_desc *desc, lqt__cpu_isa isa,
                        bool exact, const float *x, lqt_weight_part part) {
  lqt__cpu_fast *made;
  cr_assert_eq(lqt__cpu_fast_create(desc, isa, exact, NULL, &made, NULL), LQT_OK);
  static const uint64_t token_counts[] = {1, MOST_TOKENS};
  for (unsigned i = 0; i < 2; i++) {
    float a[MOST_TOKENS * ROWS], b[MOST_TOKENS * ROWS];
    lqt__cpu_product pa = {.weight = patched, .y = a, .y_stride = ROWS};
    lqt__cpu_product pb = {.weight = made, .y = b, .y_stride = ROWS};
    const uint64_t tokens = token_counts[i];
    cr_assert_eq(lqt__cpu_fast_matmul(&pa, 1, x, COLS, tokens, NULL, NULL), LQT_OK);
    cr_assert_eq(lqt__cpu_fast_matmul(&pb, 1, x, COLS, tokens, NULL, NULL), LQT_OK);
    cr_assert_arr_eq(a, b, tokens * ROWS * sizeof *a, "part %d, isa %d, exact %d, tokens %zu",
                     (int)part, (int)isa, (int)exact, (size_t)tokens);
  }
  lqt__cpu_fast_destroy(made);
}

static void patch(lqt__cpu_fast *fast, lqt_weight_part part, const void *base, uint64_t first,
                  uint64_t count, size_t size) {
  lqt_weight_patch p = {
      .part = part, .first = first, .count = count, .data = (const uint8_t *)base + first * size};
  cr_assert_eq(lqt__cpu_fast_patch(fast, &p, NULL), LQT_OK);
}

static void check_parts(const weight_kind *kind, lqt__cpu_isa isa, bool exact,
                        lqt__random *random) {
  random_weight w, other;
  random_weight_make(&w, kind, ROWS, COLS, random);
  random_weight_make(&other, kind, ROWS, COLS, random);
  float *x = random_floats(MOST_TOKENS * COLS, true, random);
  lqt__cpu_fast *fast;
  lqt_weight_desc *d = &w.desc, *o = &other.desc;
  cr_assert_eq(lqt__cpu_fast_create(d, isa, exact, NULL, &fast, NULL), LQT_OK);
  cr_assert_not_null(fast);
  /* Each part takes a stretch of the other weight's. */
#define STRETCH(field, part_, total, size)                                    \
  do {                                                                        \
    uint64_t n_ = (total), first_ = lqt__random_below(random, (uint32_t)n_);  \
    uint64_t count_ = 1 + lqt__random_below(random, (uint32_t)(n_ - first_)); \
    memcpy((uint8_t *)(uintptr_t)d->field + first_ * (size),                  \
           (const uint8_t *)o->field + first_ * (size), count_ * (size));     \
    patch(fast, part_, d->field, first_, count_, size);                       \
    expect_same(fast, d, isa, exact, x, part_);                               \
  } while (0)
  if (kind->dtype == LQT_DTYPE_CODEBOOK) {
    STRETCH(codebook.vectors, LQT_PART_CODEBOOK, d->codebook.bank_stride,
            d->codebook.dtype == LQT_DTYPE_F32 ? 4 : 2);
    STRETCH(indices.data, LQT_PART_INDICES, ROWS * d->indices.row_stride, 1);
  } else {
    size_t size = lqt_dtype_size(kind->dtype);
    STRETCH(data, LQT_PART_PLAIN, ROWS * d->row_stride / size, size);
  }
  if (kind->residual_bits != 0) {
    STRETCH(residual.vectors, LQT_PART_RESIDUAL, d->residual.bank_stride, 2);
    STRETCH(residual_indices.data, LQT_PART_RESIDUAL_INDICES, ROWS * d->residual_indices.row_stride,
            1);
    d->residual_scale = 0.125f;
    patch(fast, LQT_PART_RESIDUAL_SCALE, &d->residual_scale, 0, 1, 4);
    expect_same(fast, d, isa, exact, x, LQT_PART_RESIDUAL_SCALE);
  }
  if (kind->group != 0) {
    STRETCH(group_scales, LQT_PART_GROUP_SCALES,
            d->group_row_stride < o->group_row_stride ? ROWS * d->group_row_stride
                                                      : ROWS * o->group_row_stride,
            2);
  }
  if (kind->delta == LQT_DELTA_CSR) {
    uint64_t n = d->delta.count < o->delta.count ? d->delta.count : o->delta.count;
    STRETCH(delta.values, LQT_PART_DELTA_VALUES, n, d->delta.dtype == LQT_DTYPE_F32 ? 4 : 2);
  }
  if (kind->mask) STRETCH(mask.bits, LQT_PART_MASK, ROWS * d->mask.row_stride, 1);
  d->scale *= 1.5f;
  patch(fast, LQT_PART_SCALE, &d->scale, 0, 1, 4);
  expect_same(fast, d, isa, exact, x, LQT_PART_SCALE);
  free(x);
  lqt__cpu_fast_destroy(fast);
  random_weight_free(&w);
  random_weight_free(&other);
}

#define CB LQT_DTYPE_CODEBOOK
static const weight_kind kinds[] = {
    {.dtype = CB,
     .bits = 4,
     .dim = 1,
     .group = 64,
     .delta = LQT_DELTA_CSR,
     .delta_dtype = LQT_DTYPE_F16},
    {.dtype = CB, .bits = 3, .dim = 1, .group = 32, .f32_codebook = true},
    {.dtype = CB, .bits = 3, .dim = 1, .group = 16},
    {.dtype = CB, .bits = 2, .dim = 1, .group = 128},
    {.dtype = CB, .bits = 8, .dim = 1, .mask = true},
    {.dtype = CB,
     .bits = 8,
     .dim = 4,
     .group = 32,
     .delta = LQT_DELTA_CSR,
     .delta_dtype = LQT_DTYPE_F32},
    {.dtype = CB, .bits = 3, .dim = 2, .group = 64, .residual_bits = 4, .residual_dim = 1},
    {.dtype = LQT_DTYPE_F32},
    {.dtype = LQT_DTYPE_BF16, .mask = true},
};

Test(fast_patch, like_a_fresh_weight) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  lqt__random random = lqt__random_seed((uint64_t)now.tv_nsec);
  for (int isa = LQT__CPU_AVX2; isa <= (int)lqt__cpu_best_isa(); isa++) {
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
      for (unsigned round = 0; round < 6; round++) {
        check_parts(&kinds[k], (lqt__cpu_isa)isa, round % 2 != 0, &random);
      }
    }
  }
}

Test(fast_patch, missing_part_is_refused) {
  lqt__random random = lqt__random_seed(1);
  random_weight w;
  random_weight_make(&w, &kinds[3], ROWS, COLS, &random);
  lqt__cpu_fast *fast;
  cr_assert_eq(lqt__cpu_fast_create(&w.desc, lqt__cpu_best_isa(), false, NULL, &fast, NULL),
               LQT_OK);
  if (fast == NULL) cr_skip_test("no fast product on this processor");
  uint32_t zero = 0;
  static const lqt_weight_part missing[] = {LQT_PART_RESIDUAL,    LQT_PART_DELTA_VALUES,
                                            LQT_PART_MASK,        LQT_PART_PLAIN,
                                            LQT_PART_ZERO_POINTS, LQT_PART_RESIDUAL_SCALE};
  for (unsigned i = 0; i < sizeof missing / sizeof *missing; i++) {
    lqt_weight_patch p = {.part = missing[i], .first = 0, .count = 1, .data = &zero};
    lqt_diag diag = {0};
    cr_expect_eq(lqt__cpu_fast_patch(fast, &p, &diag), LQT_INVALID_ARGUMENT);
    cr_expect(diag.what[0] != '\0');
  }
  lqt__cpu_fast_destroy(fast);
  random_weight_free(&w);
}

/* Every allocation of creation and of a product fails once: a status, and nothing leaks. */
Test(fast_patch, no_memory_is_a_status) {
  lqt__random random = lqt__random_seed(2);
  const weight_kind kind = {.dtype = CB,
                            .bits = 4,
                            .dim = 1,
                            .group = 64,
                            .mask = true,
                            .delta = LQT_DELTA_CSR,
                            .delta_dtype = LQT_DTYPE_F16,
                            .residual_bits = 2,
                            .residual_dim = 1};
  if (lqt__cpu_best_isa() == LQT__CPU_SCALAR) cr_skip_test("no fast product on this processor");
  random_weight w;
  random_weight_make(&w, &kind, ROWS, COLS, &random);
  float *x = random_floats(MOST_TOKENS * COLS, true, &random);
  float y[MOST_TOKENS * ROWS];
  bool done = false;
  unsigned failures = 0;
  for (int n = 0; !done; n++) {
    lqt__cpu_fast *fast;
    lqt__alloc_fail_after(n);
    lqt_status status =
        lqt__cpu_fast_create(&w.desc, lqt__cpu_best_isa(), false, NULL, &fast, NULL);
    if (status == LQT_OK) {
      lqt__cpu_product product = {.weight = fast, .y = y, .y_stride = ROWS};
      status = lqt__cpu_fast_matmul(&product, 1, x, COLS, MOST_TOKENS, NULL, NULL);
      done = status == LQT_OK;
    } else {
      cr_assert_null(fast);
    }
    lqt__alloc_fail_after(-1);
    if (!done) {
      cr_assert_eq(status, LQT_OUT_OF_MEMORY);
      failures++;
    }
    lqt__cpu_fast_destroy(fast);
  }
  cr_expect(failures >= 8);
  free(x);
  random_weight_free(&w);
}
