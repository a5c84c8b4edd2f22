#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/half.h"
#include "base/random.h"
#include "support.h"

static void run(lqt_device *device, const lqt_op *ops, size_t count) {
  lqt_diag diag = {0};
  cr_assert_eq(lqt_device_run(device, ops, count, &diag), LQT_OK, "%s", diag.what);
}

/* The same ops submitted again must see new inputs, and a buffer that takes another's place must
 * not be mistaken for it. */
Test(run, a_recorded_program_sees_new_inputs) {
  enum { N = 300 };
  lqt_device *device = vulkan_open();
  float a[N], b[N], out[N];
  for (int round = 0; round < 6; round++) {
    lqt_buffer *in0 = vulkan_buffer(device, NULL, sizeof a);
    lqt_buffer *gap = round % 2 != 0 ? vulkan_buffer(device, NULL, 5000) : NULL;
    lqt_buffer *in1 = vulkan_buffer(device, NULL, sizeof b);
    lqt_buffer *sum = vulkan_buffer(device, NULL, sizeof out);
    lqt_op ops[2];
    memset(ops, 0, sizeof ops);
    ops[0].kind = ops[1].kind = LQT_OP_ADD;
    ops[0].in[0] = ops[1].in[0] = vulkan_view(in0, 1, N, LQT_DTYPE_F32);
    ops[0].in[1] = vulkan_view(in1, 1, N, LQT_DTYPE_F32);
    ops[1].in[1] = ops[0].out[0] = ops[1].out[0] = vulkan_view(sum, 1, N, LQT_DTYPE_F32);
    for (int step = 0; step < 4; step++) {
      for (int i = 0; i < N; i++) {
        a[i] = (float)(round * 1000 + step * 10 + i);
        b[i] = (float)(i * 3 - step);
      }
      cr_assert_eq(lqt_buffer_write(in0, 0, a, sizeof a, NULL), LQT_OK);
      cr_assert_eq(lqt_buffer_write(in1, 0, b, sizeof b, NULL), LQT_OK);
      run(device, ops, 2);
      cr_assert_eq(lqt_buffer_read(sum, 0, out, sizeof out, NULL), LQT_OK);
      for (int i = 0; i < N; i++) cr_assert_eq(out[i], 2 * a[i] + b[i]);
    }
    lqt_buffer_destroy(in0);
    lqt_buffer_destroy(gap);
    lqt_buffer_destroy(in1);
    lqt_buffer_destroy(sum);
  }
  vulkan_close(device);
}

Test(run, the_profile_counts_every_op) {
  lqt_device *device = vulkan_open();
  float data[64] = {0};
  lqt_buffer *buffer = vulkan_buffer(device, data, sizeof data);
  lqt_op ops[1500]; /* more than one batch of timestamps */
  memset(ops, 0, sizeof ops);
  for (size_t i = 0; i < 1500; i++) {
    ops[i].kind = i % 3 == 0 ? LQT_OP_ACT : LQT_OP_ADD;
    ops[i].label = (uint32_t)(i % 3);
    ops[i].in[0] = ops[i].out[0] = vulkan_view(buffer, 1, 64, LQT_DTYPE_F32);
    if (i % 3 != 0) ops[i].in[1] = ops[i].in[0];
  }
  lqt_device_profile_enable(device, true);
  run(device, ops, 1500);
  lqt_profile_entry entries[8];
  size_t count = lqt_device_profile_take(device, entries, 8);
  cr_assert_eq(count, 3);
  for (size_t i = 0; i < count; i++) {
    cr_assert_eq(entries[i].calls, 500);
    cr_assert(entries[i].seconds >= 0 && entries[i].seconds < 100);
  }
  cr_assert_eq(lqt_device_profile_take(device, entries, 8), 0);
  lqt_buffer_destroy(buffer);
  vulkan_close(device);
}

/* A matrix larger than maxStorageBufferRange of llvmpipe (128 MiB), whose last rows lie beyond. */
Test(run, a_weight_beyond_the_storage_range) {
  enum { COLS = 8192, ROWS = 4500 };
  lqt_device *device = vulkan_open();
  float *data = malloc(sizeof(float) * COLS * ROWS), *x = malloc(sizeof(float) * COLS);
  float *y = malloc(sizeof(float) * ROWS);
  lqt__random random;
  random = lqt__random_seed(5);
  for (size_t i = 0; i < (size_t)COLS * ROWS; i++) {
    data[i] = (float)(int32_t)lqt__random_below(&random, 2001) * 1e-3f - 1;
  }
  for (size_t i = 0; i < COLS; i++) x[i] = (float)(int32_t)(i % 17) - 8;
  lqt_weight_desc desc = {.size = sizeof desc,
                          .dtype = LQT_DTYPE_F32,
                          .rows = ROWS,
                          .cols = COLS,
                          .scale = 1,
                          .data = data,
                          .row_stride = COLS * sizeof(float)};
  lqt_weight *weight = NULL;
  cr_assert_eq(lqt_weight_create(device, &desc, &weight, NULL), LQT_OK);
  lqt_buffer *in = vulkan_buffer(device, x, sizeof(float) * COLS);
  lqt_buffer *out = vulkan_buffer(device, NULL, sizeof(float) * ROWS);
  lqt_op op = {.kind = LQT_OP_MATMUL};
  op.in[0] = vulkan_view(in, 1, COLS, LQT_DTYPE_F32);
  op.out[0] = vulkan_view(out, 1, ROWS, LQT_DTYPE_F32);
  op.weight[0] = weight;
  run(device, &op, 1);
  cr_assert_eq(lqt_buffer_read(out, 0, y, sizeof(float) * ROWS, NULL), LQT_OK);
  for (size_t r = 0; r < ROWS; r += r < ROWS - 60 ? 50 : 1) {
    double sum = 0, size = 0;
    for (size_t c = 0; c < COLS; c++) {
      sum += (double)data[r * COLS + c] * x[c];
      size += fabs((double)data[r * COLS + c] * x[c]);
    }
    cr_assert_float_eq(y[r], sum, 1e-6 * size, "row %zu", r);
  }
  lqt_weight_destroy(weight);
  lqt_buffer_destroy(in);
  lqt_buffer_destroy(out);
  free(data);
  free(x);
  free(y);
  vulkan_close(device);
}

/* Patches of one call that write the same bytes are applied in order, also beyond the size of the
 * staging ring. */
static void patch_in_order(lqt_device *device) {
  enum { COLS = 1024, ROWS = 3000 };
  float *data = calloc(COLS * ROWS, sizeof *data), *next = malloc(sizeof(float) * COLS * ROWS);
  lqt_weight_desc desc = {.size = sizeof desc,
                          .dtype = LQT_DTYPE_F32,
                          .rows = ROWS,
                          .cols = COLS,
                          .scale = 1,
                          .data = data,
                          .row_stride = COLS * sizeof(float)};
  lqt_weight *weight = NULL;
  cr_assert_eq(lqt_weight_create(device, &desc, &weight, NULL), LQT_OK);
  for (size_t i = 0; i < COLS * ROWS; i++) next[i] = (float)i;
  const float overlay[4] = {-1, -2, -3, -4}, last[2] = {-5, -6}, scale = 2;
  const lqt_weight_patch patches[] = {
      {.part = LQT_PART_PLAIN, .first = 0, .count = COLS * ROWS, .data = next},
      {.part = LQT_PART_PLAIN, .first = 100, .count = 4, .data = overlay},
      {.part = LQT_PART_PLAIN, .first = 102, .count = 2, .data = last},
      {.part = LQT_PART_SCALE, .first = 0, .count = 1, .data = &scale},
      {.part = LQT_PART_PLAIN, .first = 7, .count = 0, .data = NULL},
  };
  for (size_t count = 5; count >= 4; count--) { /* all, then the small ones alone */
    cr_assert_eq(lqt_weight_patch_apply(weight, patches + 5 - count, count, NULL), LQT_OK);
    lqt_buffer *out = vulkan_buffer(device, NULL, sizeof(float) * COLS * ROWS);
    lqt_op op = {.kind = LQT_OP_DEQUANT};
    op.weight[0] = weight;
    op.out[0] = vulkan_view(out, ROWS, COLS, LQT_DTYPE_F32);
    run(device, &op, 1);
    cr_assert_eq(lqt_buffer_read(out, 0, data, sizeof(float) * COLS * ROWS, NULL), LQT_OK);
    for (size_t i = 0; i < COLS * ROWS; i++) {
      float want = i == 100 ? -1 : i == 101 ? -2 : i == 102 ? -5 : i == 103 ? -6 : (float)i;
      cr_assert_eq(data[i], 2 * want, "element %zu", i);
    }
    lqt_buffer_destroy(out);
  }
  lqt_weight_destroy(weight);
  free(data);
  free(next);
}

Test(run, patches_are_applied_in_order) {
  lqt_device *device = vulkan_open();
  patch_in_order(device);
  vulkan_close(device);
}

Test(run, staged_patches_are_applied_in_order) {
  setenv("LQT_VK_STAGING", "1", 1);
  lqt_device *device = vulkan_open();
  patch_in_order(device);
  vulkan_close(device);
}

/* Page tables and ids that name nothing: whatever comes out, the device survives and nothing
 * outside the pages is written. */
Test(run, wrong_ids_stay_inside_the_buffers) {
  enum { T = 4, D = 16, PAGES = 2, PAGE = 4, COLS = 16 };
  lqt_device *device = vulkan_open();
  const int32_t wild[T] = {INT32_MAX, -1, 1 << 20, INT32_MIN};
  float rows[T * COLS] = {0}, guard[PAGES * PAGE * COLS];
  for (size_t i = 0; i < sizeof guard / sizeof *guard; i++) guard[i] = 1234;
  lqt_buffer *ids = vulkan_buffer(device, wild, sizeof wild);
  lqt_buffer *in = vulkan_buffer(device, rows, sizeof rows);
  lqt_buffer *out = vulkan_buffer(device, rows, sizeof rows);
  lqt_buffer *k = vulkan_buffer(device, guard, sizeof guard);
  lqt_buffer *v = vulkan_buffer(device, guard, sizeof guard);
  lqt_op ops[3];
  memset(ops, 0, sizeof ops);
  ops[0].kind = LQT_OP_KV_WRITE;
  ops[0].in[0] = ops[0].in[1] = vulkan_view(in, T, COLS, LQT_DTYPE_F32);
  ops[0].in[2] = ops[0].in[3] = vulkan_view(ids, 1, T, LQT_DTYPE_I32);
  ops[0].in[4] = vulkan_view(ids, 1, T, LQT_DTYPE_I32);
  ops[0].out[0] = vulkan_view(k, PAGES * PAGE, COLS, LQT_DTYPE_F32);
  ops[0].out[1] = vulkan_view(v, PAGES * PAGE, COLS, LQT_DTYPE_F32);
  ops[1].kind = LQT_OP_GATHER;
  ops[1].in[0] = vulkan_view(in, T, COLS, LQT_DTYPE_F32);
  ops[1].in[1] = vulkan_view(ids, 1, T, LQT_DTYPE_I32);
  ops[1].out[0] = vulkan_view(out, T, COLS, LQT_DTYPE_F32);
  ops[2].kind = LQT_OP_ATTENTION;
  ops[2].in[0] = vulkan_view(in, T, COLS, LQT_DTYPE_F32);
  ops[2].in[1] = ops[2].in[2] = vulkan_view(ids, 1, T, LQT_DTYPE_I32);
  ops[2].in[3] = ops[0].out[0];
  ops[2].in[4] = ops[0].out[1];
  ops[2].in[5] = vulkan_view(ids, 1, T, LQT_DTYPE_I32);
  ops[2].out[0] = vulkan_view(out, T, COLS, LQT_DTYPE_F32);
  for (int i = 0; i < 3; i++) {
    ops[i].heads = ops[i].kv_heads = 1;
    ops[i].head_dim = D;
    ops[i].page_tokens = PAGE;
    ops[i].attn_scale = 1;
  }
  run(device, ops, 3);
  float back[PAGES * PAGE * COLS];
  cr_assert_eq(lqt_buffer_read(k, 0, back, sizeof back, NULL), LQT_OK);
  cr_assert_eq(memcmp(back, guard, sizeof guard), 0);
  lqt_buffer_destroy(ids);
  lqt_buffer_destroy(in);
  lqt_buffer_destroy(out);
  lqt_buffer_destroy(k);
  lqt_buffer_destroy(v);
  vulkan_close(device);
}

/* The path that takes 32 columns at a time, with columns left over and every number of tokens that
 * the matrix-vector shader takes. */
Test(run, matvec_in_wide_chunks) {
  enum { N = 37, K = 1000, GROUP = 32, GROUPS = (K + GROUP - 1) / GROUP, STRIDE = 512, MOST = 19 };
  lqt_device *device = vulkan_open();
  lqt__random random = lqt__random_seed(11);
  static uint8_t indices[N * STRIDE];
  static float x[MOST * K], y[MOST * N], row[K];
  uint16_t book[16], scales[N * GROUPS];
  for (size_t i = 0; i < sizeof indices; i++) {
    indices[i] = (uint8_t)lqt__random_below(&random, 256);
  }
  for (int i = 0; i < 16; i++) book[i] = lqt__f16_from_f32((float)i * 0.13f - 1);
  for (int i = 0; i < N * GROUPS; i++) {
    scales[i] = lqt__f16_from_f32(0.5f + (float)lqt__random_below(&random, 100) * 0.01f);
  }
  for (int i = 0; i < MOST * K; i++) x[i] = (float)lqt__random_below(&random, 2001) * 1e-3f - 1;
  lqt_weight_desc desc = {.size = sizeof desc,
                          .dtype = LQT_DTYPE_CODEBOOK,
                          .rows = N,
                          .cols = K,
                          .scale = 0.7f,
                          .indices = {.data = indices, .row_stride = STRIDE, .bits = 4},
                          .codebook = {.vectors = book,
                                       .dtype = LQT_DTYPE_F16,
                                       .entries = 16,
                                       .vector_dim = 1,
                                       .banks = 1,
                                       .bank_stride = 16},
                          .bank_rows = N,
                          .bank_cols = K,
                          .group_size = GROUP,
                          .group_scales = scales,
                          .group_row_stride = GROUPS};
  lqt_weight *weight = NULL;
  cr_assert_eq(lqt_weight_create(device, &desc, &weight, NULL), LQT_OK);
  lqt_buffer *in = vulkan_buffer(device, x, sizeof x);
  for (uint64_t tokens = 1; tokens <= MOST; tokens += tokens < 9 ? 1 : 5) {
    lqt_buffer *out = vulkan_buffer(device, NULL, sizeof y);
    lqt_op op;
    memset(&op, 0, sizeof op);
    op.kind = LQT_OP_MATMUL;
    op.weight[0] = weight;
    op.in[0] = vulkan_view(in, tokens, K, LQT_DTYPE_F32);
    op.out[0] = vulkan_view(out, tokens, N, LQT_DTYPE_F32);
    if (((lqt__vk_device *)device)->physical->subgroup_size <= 16) {
      cr_assert_not_null(strstr(lqt_device_variant(device, &op), "_c32"));
    }
    run(device, &op, 1);
    cr_assert_eq(lqt_buffer_read(out, 0, y, tokens * N * sizeof *y, NULL), LQT_OK);
    for (uint64_t n = 0; n < N; n++) {
      cr_assert_eq(lqt_weight_desc_row(&desc, n, 0, K, row), LQT_OK);
      for (uint64_t t = 0; t < tokens; t++) {
        double sum = 0;
        for (int k = 0; k < K; k++) sum += (double)row[k] * x[t * K + k];
        cr_assert_float_eq(y[t * N + n], sum, 2e-4, "token %d of %d, row %d", (int)t, (int)tokens,
                           (int)n);
      }
    }
    lqt_buffer_destroy(out);
  }
  lqt_weight_destroy(weight);
  lqt_buffer_destroy(in);
  vulkan_close(device);
}
