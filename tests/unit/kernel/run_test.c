/* Devices, buffers, weights and runs: what they refuse, and what they leave when memory ends. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "kernel/selftest.h"
#include "kernel/weight.h"
#include "support/data.h"

static lqt_device *open_cpu(const lqt_device_options *options) {
  lqt_device *device = NULL;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_device_open("cpu", options, &device, &diag), LQT_OK, "%s", diag.what);
  return device;
}

Test(device, selectors) {
  static const struct {
    const char *selector;
    lqt_status want;
  } cases[] = {{"cpu", LQT_OK},
               {"cpu-oracle", LQT_OK},
               {"cpu:0", LQT_DEVICE_NOT_AVAILABLE},
               {"cpu-", LQT_DEVICE_NOT_AVAILABLE},
               {"cpux", LQT_DEVICE_NOT_AVAILABLE},
               {"", LQT_DEVICE_NOT_AVAILABLE},
               {"abacus", LQT_DEVICE_NOT_AVAILABLE},
               {NULL, LQT_INVALID_ARGUMENT}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    lqt_device *device = (lqt_device *)&device;
    lqt_diag diag = {0};
    cr_expect_eq(lqt_device_open(cases[i].selector, NULL, &device, &diag), cases[i].want, "%s",
                 cases[i].selector);
    cr_expect_eq(device != NULL, cases[i].want == LQT_OK);
    cr_expect_eq(diag.what[0] != '\0', cases[i].want != LQT_OK);
    lqt_device_release(device);
  }
  lqt_device *device;
  lqt_device_options options = {.size = sizeof options, .isa = "mmx"};
  cr_expect_eq(lqt_device_open("cpu", &options, &device, NULL), LQT_INVALID_ARGUMENT);
  options = (lqt_device_options){.size = 3};
  cr_expect_eq(lqt_device_open("cpu", &options, &device, NULL), LQT_INVALID_ARGUMENT);
  options = (lqt_device_options){.size = sizeof options, .threads = 1u << 30};
  cr_expect_eq(lqt_device_open("cpu", &options, &device, NULL), LQT_INVALID_ARGUMENT);
}

Test(device, list_and_references) {
  size_t count = lqt_device_count();
  cr_assert_geq(count, 1);
  bool seen = false;
  for (size_t i = 0; i < count; i++) {
    lqt_device_info info;
    cr_assert_eq(lqt_device_describe(i, &info), LQT_OK);
    cr_expect(info.name[0] != '\0' && info.selector[0] != '\0');
    if (strcmp(info.selector, "cpu") == 0) seen = info.threads >= 1;
  }
  cr_expect(seen);
  lqt_device_info info;
  cr_expect_eq(lqt_device_describe(count, &info), LQT_OUT_OF_RANGE);
  cr_expect_str_eq(lqt_backend_name(0), "cpu");
  cr_expect_str_eq(lqt_backend_reason(0), "");
  size_t backends = 0;
  while (lqt_backend_name(backends) != NULL) backends++;
  cr_expect_null(lqt_backend_name(backends + 5));
  lqt_device *device = open_cpu(NULL);
  cr_expect_eq(lqt_device_retain(device), device);
  lqt_device_release(device);
  lqt_device_get_info(device, &info);
  cr_expect_str_eq(info.backend, "cpu");
  lqt_device_release(device);
  lqt_device_release(NULL);
}

Test(device, isa_option_is_obeyed) {
  static const char *const names[] = {"scalar",     "avx2",       "avx512f",
                                      "avx512vnni", "avx512vbmi", "avx512"};
  for (int i = 0; i < 6; i++) {
    lqt_device_options options = {.size = sizeof options, .isa = names[i]};
    lqt_device *device;
    lqt_status status = lqt_device_open("cpu", &options, &device, NULL);
    if (status == LQT_DEVICE_NOT_AVAILABLE) continue; /* an older processor */
    cr_assert_eq(status, LQT_OK);
    lqt_device_info info;
    lqt_device_get_info(device, &info);
    cr_expect_not_null(strstr(info.name, names[i]));
    lqt_device_release(device);
  }
}

Test(device, buffers) {
  lqt_device *device = open_cpu(NULL);
  lqt_buffer *buffer;
  char bytes[16] = "0123456789abcde", back[16];
  cr_assert_eq(lqt_buffer_create(device, 16, &buffer, NULL), LQT_OK);
  cr_expect_eq(lqt_buffer_size(buffer), 16);
  cr_expect_eq(lqt_buffer_write(buffer, 0, bytes, 16, NULL), LQT_OK);
  cr_expect_eq(lqt_buffer_read(buffer, 4, back, 12, NULL), LQT_OK);
  cr_expect_arr_eq(back, bytes + 4, 12);
  cr_expect_eq(lqt_buffer_write(buffer, 1, bytes, 16, NULL), LQT_OUT_OF_RANGE);
  cr_expect_eq(lqt_buffer_read(buffer, 17, back, 0, NULL), LQT_OUT_OF_RANGE);
  cr_expect_eq(lqt_buffer_read(buffer, 16, back, 0, NULL), LQT_OK);
  cr_expect_eq(lqt_buffer_read(buffer, UINT64_MAX, back, 2, NULL), LQT_OUT_OF_RANGE);
  cr_expect_eq(lqt_buffer_write(buffer, 0, NULL, 1, NULL), LQT_INVALID_ARGUMENT);
  lqt_buffer_destroy(buffer);
  cr_expect_eq(lqt_buffer_create(device, UINT64_MAX, &buffer, NULL), LQT_OUT_OF_MEMORY);
  cr_expect_null(buffer);
  cr_expect_eq(lqt_buffer_create(device, 0, &buffer, NULL), LQT_OK);
  lqt_buffer_destroy(buffer);
  lqt_buffer_destroy(NULL);
  lqt_device_release(device);
}

static const lqt__weight_kind *kind_called(const char *name) {
  for (size_t i = 0; i < lqt__weight_kind_count; i++) {
    if (strcmp(lqt__weight_kinds[i].name, name) == 0) return &lqt__weight_kinds[i];
  }
  cr_assert_fail("no kind %s", name);
  return NULL;
}

static void read_back(lqt_device *device, lqt_weight *weight, uint64_t rows, uint64_t cols,
                      float *out) {
  lqt_view view = {.rows = rows, .cols = cols, .row_stride = cols, .dtype = LQT_DTYPE_F32};
  cr_assert_eq(lqt_buffer_create(device, rows * cols * 4, &view.buffer, NULL), LQT_OK);
  lqt_op op = {.kind = LQT_OP_DEQUANT, .weight[0] = weight, .out[0] = view};
  cr_assert_eq(lqt_device_run(device, &op, 1, NULL), LQT_OK);
  cr_assert_eq(lqt_buffer_read(view.buffer, 0, out, rows * cols * 4, NULL), LQT_OK);
  lqt_buffer_destroy(view.buffer);
}

/* A list with a bad patch changes nothing, whatever stands before it. */
Test(device, patches_are_all_or_none) {
  enum { ROWS = 5, COLS = 40 };
  static const char *const kinds[] = {"cb4.e11.g64", "cb3.everything", "cb8.row",
                                      "cb4.g64.lowrank"};
  for (int k = 0; k < 4; k++) {
    lqt_device *device = open_cpu(NULL);
    lqt__arena arena = {0};
    lqt__random random = lqt__random_seed(3);
    lqt_weight_desc desc;
    lqt_weight *weight;
    cr_assert_eq(lqt__selftest_weight(&arena, &random, kind_called(kinds[k]), ROWS, COLS, &desc),
                 LQT_OK);
    cr_assert_eq(lqt_weight_create(device, &desc, &weight, NULL), LQT_OK);
    cr_expect_eq(lqt_weight_bytes(weight), lqt__weight_bytes(&desc));
    float before[ROWS * COLS], after[ROWS * COLS];
    read_back(device, weight, ROWS, COLS, before);
    const uint8_t bytes[64] = {[0 ... 63] = 0xff};
    const float scale = 17;
    uint64_t all = desc.rows * desc.indices.row_stride;
    const lqt_weight_patch bad[] = {
        {.part = LQT_PART_INDICES, .first = all - 3, .count = 4, .data = bytes},
        {.part = LQT_PART_INDICES, .first = UINT64_MAX, .count = 2, .data = bytes},
        {.part = LQT_PART_PLAIN, .first = 0, .count = 1, .data = bytes},
        {.part = (lqt_weight_part)0, .first = 0, .count = 1, .data = bytes},
        {.part = (lqt_weight_part)40, .first = 0, .count = 1, .data = bytes},
        {.part = LQT_PART_SCALE, .first = 0, .count = 1, .data = NULL},
        {.part = LQT_PART_SCALE, .first = 1, .count = 1, .data = &scale},
        {.part = LQT_PART_INDICES, .first = 0, .count = 8, .data = bytes}, /* entry 15, 7, 255 */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
      /* With 16 entries there is no index without an entry. */
      if (i == 7 && desc.codebook.entries == 1u << desc.indices.bits) continue;
      const uint16_t value = 0x4900;
      lqt_weight_patch list[3] = {{.part = LQT_PART_SCALE, .count = 1, .data = &scale},
                                  {.part = LQT_PART_CODEBOOK,
                                   .first = 1,
                                   .count = desc.codebook.dtype == LQT_DTYPE_F16,
                                   .data = &value},
                                  bad[i]};
      lqt_diag diag = {0};
      cr_expect_neq(lqt_weight_patch_apply(weight, list, 3, &diag), LQT_OK, "%s %d", kinds[k],
                    (int)i);
      cr_expect(diag.what[0] != '\0');
      read_back(device, weight, ROWS, COLS, after);
      cr_expect_arr_eq(before, after, sizeof before, "%s %d", kinds[k], (int)i);
    }
    cr_expect_eq(lqt_weight_patch_apply(weight, NULL, 0, NULL), LQT_OK);
    lqt_weight_destroy(weight);
    lqt__arena_free(&arena);
    lqt_device_release(device);
  }
}

/* Ids and positions that would read outside. */
Test(device, indices_are_checked) {
  static const char *const selectors[] = {"cpu", "cpu-oracle"};
  for (int s = 0; s < 2; s++) {
    lqt_device *device;
    cr_assert_eq(lqt_device_open(selectors[s], NULL, &device, NULL), LQT_OK);
    float data[8] = {0};
    lqt_weight_desc desc = {.size = sizeof desc,
                            .dtype = LQT_DTYPE_F32,
                            .rows = 2,
                            .cols = 4,
                            .scale = 1,
                            .data = data,
                            .row_stride = 16};
    lqt_weight *weight;
    lqt_buffer *b[7];
    cr_assert_eq(lqt_weight_create(device, &desc, &weight, NULL), LQT_OK);
    for (int i = 0; i < 7; i++) {
      cr_assert_eq(lqt_buffer_create(device, 256, &b[i], NULL), LQT_OK);
      char zeros[256] = {0};
      cr_assert_eq(lqt_buffer_write(b[i], 0, zeros, 256, NULL), LQT_OK);
    }
    lqt_op embed = {.kind = LQT_OP_EMBED,
                    .in[0] = {b[0], 0, 1, 1, 1, LQT_DTYPE_I32, 0},
                    .out[0] = {b[1], 0, 1, 4, 4, LQT_DTYPE_F32, 0},
                    .weight[0] = weight};
    lqt_op gather = {
        .kind = LQT_OP_GATHER,
        .in = {{b[2], 0, 2, 4, 4, LQT_DTYPE_F32, 0}, {b[0], 0, 1, 1, 1, LQT_DTYPE_I32, 0}},
        .out[0] = {b[1], 0, 1, 4, 4, LQT_DTYPE_F32, 0}};
    /* Two pages of 2; one sequence with room for 2 pages. b[0]: the number under test. */
    lqt_view pages = {b[3], 0, 4, 2, 2, LQT_DTYPE_F32, 0}, values = pages;
    values.buffer = b[4];
    lqt_view number = {b[0], 0, 1, 1, 1, LQT_DTYPE_I32, 0}, zero = number;
    zero.buffer = b[5];
    lqt_view table = {b[6], 0, 1, 2, 2, LQT_DTYPE_I32, 0},
             row = {b[2], 0, 1, 2, 2, LQT_DTYPE_F32, 0};
    lqt_op write = {.kind = LQT_OP_KV_WRITE,
                    .in = {row, row, number, zero, table},
                    .out = {pages, values},
                    .kv_heads = 1,
                    .head_dim = 2,
                    .page_tokens = 2};
    lqt_op write_sequence = write;
    write_sequence.in[2] = zero;
    write_sequence.in[3] = number;
    lqt_op look = {.kind = LQT_OP_ATTENTION,
                   .in = {row, number, zero, pages, values, table},
                   .out[0] = {b[1], 0, 1, 2, 2, LQT_DTYPE_F32, 0},
                   .heads = 1,
                   .kv_heads = 1,
                   .head_dim = 2,
                   .page_tokens = 2,
                   .attn_scale = 1};
    lqt_op look_sequence = look;
    look_sequence.in[1] = zero;
    look_sequence.in[2] = number;
    const struct {
      const lqt_op *op;
      int32_t good, bad;
    } cases[] = {{&embed, 1, 2}, {&gather, 1, 2},         {&write, 3, 4},
                 {&look, 3, 4},  {&write_sequence, 0, 1}, {&look_sequence, 0, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
      const int32_t numbers[] = {cases[i].good, cases[i].bad, -1, INT32_MIN, INT32_MAX};
      for (int n = 0; n < 5; n++) {
        cr_assert_eq(lqt_buffer_write(b[0], 0, &numbers[n], 4, NULL), LQT_OK);
        lqt_diag diag = {0};
        cr_expect_eq(lqt_device_run(device, cases[i].op, 1, &diag),
                     n == 0 ? LQT_OK : LQT_OUT_OF_RANGE, "%s: %s with %d %s", selectors[s],
                     lqt_op_name(cases[i].op->kind), numbers[n], diag.what);
      }
    }
    const int32_t outside[2] = {0, 2}; /* a page that is not there */
    int32_t last = 3;
    cr_assert_eq(lqt_buffer_write(b[6], 0, outside, 8, NULL), LQT_OK);
    cr_assert_eq(lqt_buffer_write(b[0], 0, &last, 4, NULL), LQT_OK);
    cr_expect_eq(lqt_device_run(device, &write, 1, NULL), LQT_OUT_OF_RANGE);
    cr_expect_eq(lqt_device_run(device, &look, 1, NULL), LQT_OUT_OF_RANGE);
    for (int i = 0; i < 7; i++) lqt_buffer_destroy(b[i]);
    lqt_weight_destroy(weight);
    lqt_device_release(device);
  }
}

Test(device, objects_of_another_device) {
  lqt_device *a = open_cpu(NULL), *b = open_cpu(NULL);
  lqt_buffer *x, *y;
  cr_assert_eq(lqt_buffer_create(a, 64, &x, NULL), LQT_OK);
  cr_assert_eq(lqt_buffer_create(b, 64, &y, NULL), LQT_OK);
  lqt_op op = {.kind = LQT_OP_ACT,
               .in[0] = {x, 0, 1, 4, 4, LQT_DTYPE_F32, 0},
               .out[0] = {y, 0, 1, 4, 4, LQT_DTYPE_F32, 0}};
  cr_expect_eq(lqt_device_run(a, &op, 1, NULL), LQT_INVALID_ARGUMENT);
  lqt_buffer_destroy(x);
  lqt_buffer_destroy(y);
  lqt_device_release(a);
  lqt_device_release(b);
}

Test(device, profile_counts_calls) {
  lqt_device *device = open_cpu(NULL);
  lqt_buffer *x;
  float zeros[4] = {0};
  cr_assert_eq(lqt_buffer_create(device, 16, &x, NULL), LQT_OK);
  cr_assert_eq(lqt_buffer_write(x, 0, zeros, 16, NULL), LQT_OK);
  lqt_view view = {x, 0, 1, 4, 4, LQT_DTYPE_F32, 0};
  lqt_op ops[3] = {{.kind = LQT_OP_ACT, .label = 7, .in[0] = view, .out[0] = view},
                   {.kind = LQT_OP_ACT, .label = 8, .in[0] = view, .out[0] = view},
                   {.kind = LQT_OP_ADD, .label = 7, .in = {view, view}, .out[0] = view}};
  lqt_profile_entry entries[4];
  cr_assert_eq(lqt_device_run(device, ops, 3, NULL), LQT_OK);
  cr_expect_eq(lqt_device_profile_take(device, entries, 4), 0, "off by default");
  lqt_device_profile_enable(device, true);
  cr_assert_eq(lqt_device_run(device, ops, 3, NULL), LQT_OK);
  cr_assert_eq(lqt_device_run(device, ops, 1, NULL), LQT_OK);
  cr_assert_eq(lqt_device_profile_take(device, entries, 4), 3);
  cr_expect(entries[0].kind == LQT_OP_ACT && entries[0].label == 7 && entries[0].calls == 2);
  cr_expect(entries[1].kind == LQT_OP_ACT && entries[1].label == 8 && entries[1].calls == 1);
  cr_expect(entries[2].kind == LQT_OP_ADD && entries[2].seconds >= 0);
  cr_expect_eq(lqt_device_profile_take(device, NULL, 9), 0, "taking resets");
  lqt_buffer_destroy(x);
  lqt_device_release(device);
}

/* The whole suite of a few cases with the nth allocation failing: a status, no crash, no leak
 * (the address sanitizer looks), and no wrong verdict. */
Test(device, every_allocation_fails_once) {
  static const char *const filters[] = {"matmul/cb3.everything", "matmul/bf16.csr",
                                        "attention/f16/s1",      "rope/",
                                        "patch/cb4.g64.csr/",    "embed/cb8.v4.g32"};
  for (size_t f = 0; f < sizeof filters / sizeof filters[0]; f++) {
    lqt_device_options device = {.size = sizeof device, .threads = 2};
    lqt_selftest_options options = {.size = sizeof options,
                                    .device = "cpu",
                                    .seed = 11,
                                    .device_options = &device,
                                    .filter = filters[f]};
    lqt_selftest_summary summary;
    bool failed = true;
    size_t n = 0;
    /* By default every third allocation past the first forty. */
    for (; failed; n += test_exhaustive() || n < 40 ? 1 : 3) {
      lqt_diag diag = {0};
      lqt__alloc_fail_after((int64_t)n);
      lqt_status status = lqt_selftest_run(&options, NULL, NULL, &summary, &diag);
      lqt__alloc_fail_after(-1);
      failed = status != LQT_OK;
      cr_assert(status == LQT_OK || status == LQT_OUT_OF_MEMORY, "%s, allocation %d: %s %s",
                filters[f], (int)n, lqt_status_name(status), diag.what);
      cr_assert(status == LQT_OK || diag.what[0] != '\0');
      cr_assert_eq(summary.failed, 0);
    }
    cr_expect_gt(n, 10, "%s", filters[f]);
    cr_expect_gt(summary.passed, 0, "%s", filters[f]);
  }
}

/* Programs: the same as the ops one by one, and transfers that are refused before anything runs. */
Test(program, runs_with_its_transfers) {
  lqt_device *device = open_cpu(NULL), *other = open_cpu(NULL);
  lqt_buffer *buffers[3], *foreign;
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(lqt_buffer_create(device, 16, &buffers[i], NULL), LQT_OK);
  }
  cr_assert_eq(lqt_buffer_create(other, 16, &foreign, NULL), LQT_OK);
  lqt_op op = {.kind = LQT_OP_ADD};
  for (int i = 0; i < 3; i++) {
    lqt_view view = {.buffer = buffers[i], .rows = 1, .cols = 4, .row_stride = 4};
    *(i < 2 ? &op.in[i] : &op.out[0]) = view;
  }
  lqt_program *program = (lqt_program *)&op;
  lqt_op broken = op;
  broken.in[1].buffer = foreign;
  cr_expect_eq(lqt_program_create(device, &broken, 1, &program, NULL), LQT_INVALID_ARGUMENT);
  cr_expect_null(program);
  cr_assert_eq(lqt_program_create(device, &op, 1, &program, NULL), LQT_OK);
  memset(&op, 0, sizeof op); /* not needed any more */
  float a[4] = {1, 2, 3, 4}, b[4] = {10, 20, 30, 40}, sum[4];
  lqt_transfer in[2] = {{buffers[0], 0, 16, a}, {buffers[1], 0, 16, b}};
  lqt_transfer out = {buffers[2], 4, 12, sum};
  for (int run = 0; run < 3; run++) {
    a[1] = (float)run;
    cr_assert_eq(lqt_program_run(program, in, 2, &out, 1, NULL), LQT_OK);
    cr_expect_eq(sum[0], 20 + run);
    cr_expect_eq(sum[2], 44);
  }
  a[1] = 99;
  lqt_transfer wrong[] = {{buffers[0], 8, 9, a},
                          {buffers[0], 17, 0, a},
                          {foreign, 0, 4, a},
                          {NULL, 0, 4, a},
                          {buffers[0], 0, 4, NULL}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    lqt_status want = i < 2 ? LQT_OUT_OF_RANGE : LQT_INVALID_ARGUMENT;
    cr_expect_eq(lqt_program_run(program, in, 2, &wrong[i], 1, NULL), want, "%zu", i);
    cr_expect_eq(lqt_program_run(program, &wrong[i], 1, &out, 1, NULL), want, "%zu", i);
  }
  cr_assert_eq(lqt_program_run(program, NULL, 0, &out, 1, NULL), LQT_OK);
  cr_expect_eq(sum[0], 22); /* what was refused wrote nothing */
  cr_expect_eq(lqt_program_run(NULL, NULL, 0, NULL, 0, NULL), LQT_INVALID_ARGUMENT);
  lqt_program_destroy(program);
  lqt_program_destroy(NULL);
  for (int i = 0; i < 3; i++) lqt_buffer_destroy(buffers[i]);
  lqt_buffer_destroy(foreign);
  lqt_device_release(device);
  lqt_device_release(other);
}
