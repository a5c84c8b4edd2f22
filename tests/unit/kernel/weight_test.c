/* lqt_weight_desc_check refuses what would read out of bounds; lqt_weight_desc_row unpacks every
 * index width and every kind of delta. */
#include "kernel/weight.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/half.h"
#include "kernel/selftest.h"

static const lqt__weight_kind *kind_called(const char *name) {
  for (size_t i = 0; i < lqt__weight_kind_count; i++) {
    if (strcmp(lqt__weight_kinds[i].name, name) == 0) return &lqt__weight_kinds[i];
  }
  cr_assert_fail("no kind %s", name);
  return NULL;
}

/* A good weight of a kind, to be spoilt. */
static lqt_weight_desc good(lqt__arena *arena, const char *name) {
  lqt__random random = lqt__random_seed(7);
  lqt_weight_desc desc;
  cr_assert_eq(lqt__selftest_weight(arena, &random, kind_called(name), 9, 70, &desc), LQT_OK);
  lqt_diag diag = {0};
  cr_assert_eq(lqt_weight_desc_check(&desc, true, &diag), LQT_OK, "%s: %s", name, diag.what);
  return desc;
}

#define REFUSED(kind, status, change)                                                           \
  do {                                                                                          \
    lqt__arena arena = {0};                                                                     \
    lqt_weight_desc d = good(&arena, kind);                                                     \
    lqt_diag diag = {0};                                                                        \
    change;                                                                                     \
    cr_expect_eq(lqt_weight_desc_check(&d, true, &diag), status, "%s after %s", kind, #change); \
    cr_expect(diag.what[0] != '\0');                                                            \
    lqt__arena_free(&arena);                                                                    \
  } while (0)

Test(weight, refuses_bad_descriptions) {
  const lqt_status bad = LQT_INVALID_ARGUMENT;
  REFUSED("f32", bad, d.size = 8);
  REFUSED("f32", bad, d.rows = 0);
  REFUSED("f32", bad, d.cols = 0);
  REFUSED("f32", bad, d.rows = UINT64_MAX);
  REFUSED("f32", bad, d.data = NULL);
  REFUSED("f32", bad, d.row_stride = 4 * 69);
  REFUSED("f32", bad, d.row_stride += 2);
  REFUSED("f32", bad, d.dtype = LQT_DTYPE_I8);
  REFUSED("f32", bad, d.dtype = (lqt_dtype)99);
  REFUSED("f32.mask", bad, d.mask.row_stride = 8);
  REFUSED("f32.mask", bad, d.mask.row_stride = 17);
  REFUSED("cb4.g64", bad, d.indices.data = NULL);
  REFUSED("cb4.g64", bad, d.indices.bits = 5);
  REFUSED("cb4.g64", bad, d.indices.bits = 0);
  REFUSED("cb4.g64", bad, d.indices.row_stride = 32);
  REFUSED("cb4.g64", bad, d.indices.row_stride = 49);
  REFUSED("cb4.g64", bad, d.codebook.vectors = NULL);
  REFUSED("cb4.g64", bad, d.codebook.dtype = LQT_DTYPE_BF16);
  REFUSED("cb4.g64", bad, d.codebook.entries = 0);
  REFUSED("cb4.g64", bad, d.codebook.entries = 17);
  REFUSED("cb4.g64", bad, d.codebook.vector_dim = 3);
  REFUSED("cb4.g64", bad, d.codebook.bank_stride = 15);
  REFUSED("cb4.g64", bad, d.codebook.banks = 2);
  REFUSED("cb4.g64", bad, d.bank_rows = 0);
  REFUSED("cb4.g64", bad, d.bank_rows = 10);
  REFUSED("cb4.g64", bad, d.bank_cols = 71);
  REFUSED("cb4.g64", bad, d.bank_cols = 24);
  REFUSED("cb4.g64", bad, d.group_size = 0);
  REFUSED("cb4.g64", bad, d.group_size = 48);
  REFUSED("cb4.g64", bad, d.group_size = 512);
  REFUSED("cb4.g64", bad, d.group_row_stride = 1);
  REFUSED("cb4.row", bad, d.codebook.banks = 8);
  REFUSED("cb2.res2", bad, d.residual_indices.data = NULL);
  REFUSED("cb2.res2", bad, d.residual.banks = 2);
  REFUSED("cb4.g64.csr", bad, d.delta.row_ptr = NULL);
  REFUSED("cb4.g64.csr", bad, d.delta.columns16 = NULL);
  REFUSED("cb4.g64.csr", bad, d.delta.values = NULL);
  REFUSED("cb4.g64.csr", bad, d.delta.dtype = LQT_DTYPE_BF16);
  REFUSED("cb4.g64.csr", bad, d.delta.kind = (lqt_delta_kind)9);
  REFUSED("cb4.g64.lowrank", bad, d.delta.rank = 0);
  REFUSED("cb4.g64.lowrank", bad, d.delta.values_b = NULL);
  REFUSED("cb4.g64.grouped", bad, d.delta.group = 0);
}

Test(weight, refuses_numbers_out_of_range) {
  const lqt_status range = LQT_OUT_OF_RANGE;
  REFUSED("cb4.e11.g64", range, ((uint8_t *)d.indices.data)[8 * d.indices.row_stride + 34] = 0x0b);
  REFUSED("cb8.row", range, ((uint8_t *)d.indices.data)[3] = 200);
  REFUSED("cb16", range, ((uint8_t *)d.indices.data)[1] = 0xff);
  REFUSED("cb4.g64.csr", range, ((uint32_t *)d.delta.row_ptr)[0] = 1);
  REFUSED("cb4.g64.csr", range, ((uint32_t *)d.delta.row_ptr)[9] += 1);
  REFUSED("cb4.g64.csr", range, ((uint32_t *)d.delta.row_ptr)[4] = 1u << 31);
  REFUSED("cb4.g64.csr", range, ((uint16_t *)d.delta.columns16)[0] = 70);
  REFUSED("cb4.g64.csr32", range, ((uint32_t *)d.delta.columns)[0] = UINT32_MAX);
  cr_expect_eq(lqt_weight_desc_check(NULL, true, NULL), LQT_INVALID_ARGUMENT);
}

Test(weight, rows_outside) {
  lqt__arena arena = {0};
  lqt_weight_desc d = good(&arena, "cb4.g64");
  float out[70];
  cr_expect_eq(lqt_weight_desc_row(&d, 9, 0, 1, out), LQT_OUT_OF_RANGE);
  cr_expect_eq(lqt_weight_desc_row(&d, 0, 71, 0, out), LQT_OUT_OF_RANGE);
  cr_expect_eq(lqt_weight_desc_row(&d, 0, 1, 70, out), LQT_OUT_OF_RANGE);
  cr_expect_eq(lqt_weight_desc_row(&d, 0, 70, UINT64_MAX, out), LQT_OUT_OF_RANGE);
  cr_expect_eq(lqt_weight_desc_row(&d, 8, 1, 69, out), LQT_OK);
  lqt__arena_free(&arena);
}

/* Packs numbers bit by bit, the plainest way, and reads them back at every width. */
Test(weight, index_widths) {
  static const uint32_t widths[] = {2, 3, 4, 8, 16};
  for (size_t w = 0; w < 5; w++) {
    uint32_t bits = widths[w], want[100];
    uint8_t row[208] = {0};
    lqt__random random = lqt__random_seed(bits);
    for (uint64_t i = 0; i < 100; i++) {
      want[i] = lqt__random_below(&random, 1u << bits);
      for (uint32_t b = 0; b < bits; b++) {
        uint64_t at = i * bits + b;
        row[at / 8] |= (uint8_t)((want[i] >> b & 1u) << at % 8);
      }
    }
    for (uint64_t i = 0; i < 100; i++) {
      cr_assert_eq(lqt__index_get(row, bits, i), want[i], "%u bits, index %d", bits, (int)i);
    }
  }
}

Test(weight, deltas) {
  const float data[6] = {1, 2, 3, 4, 5, 6};
  const float dense[6] = {10, 20, 30, 40, 50, 60}, a[2] = {2, 3}, b[3] = {100, 200, 300};
  const float grouped[4] = {1000, 2000, 3000, 4000};
  lqt_weight_desc base = {.size = sizeof base,
                          .dtype = LQT_DTYPE_F32,
                          .rows = 2,
                          .cols = 3,
                          .scale = 1,
                          .data = data,
                          .row_stride = 12};
  const lqt_delta_view deltas[] = {
      {.kind = LQT_DELTA_DENSE, .dtype = LQT_DTYPE_F32, .values = dense},
      {.kind = LQT_DELTA_LOW_RANK, .dtype = LQT_DTYPE_F32, .values = a, .values_b = b, .rank = 1},
      {.kind = LQT_DELTA_GROUPED, .dtype = LQT_DTYPE_F32, .values = grouped, .group = 2}};
  const float want[3][3] = {{44, 55, 66}, {304, 605, 906}, {3004, 3005, 4006}};
  for (int i = 0; i < 3; i++) {
    float row[3];
    base.delta = deltas[i];
    cr_assert_eq(lqt_weight_desc_check(&base, true, NULL), LQT_OK);
    cr_assert_eq(lqt_weight_desc_row(&base, 1, 0, 3, row), LQT_OK);
    for (int c = 0; c < 3; c++) cr_expect_float_eq(row[c], want[i][c], 1e-3);
  }
}
