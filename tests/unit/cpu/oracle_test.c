/* The scalar reference against numbers computed by hand or in closed form, independently of its
 * code: what every other kernel is compared with must itself be right. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "lqt/op.h"

static lqt_device *device;

static void open_device(void) {
  lqt_diag diag = {0};
  cr_assert_eq(lqt_device_open("cpu-oracle", NULL, &device, &diag), LQT_OK, "%s", diag.what);
}

static void close_device(void) { lqt_device_release(device); }

TestSuite(oracle, .init = open_device, .fini = close_device);

static lqt_view upload(const void *data, uint64_t rows, uint64_t cols, lqt_dtype dtype) {
  lqt_view view = {.rows = rows, .cols = cols, .row_stride = cols, .dtype = dtype};
  uint64_t bytes = rows * cols * lqt_dtype_size(dtype);
  cr_assert_eq(lqt_buffer_create(device, bytes, &view.buffer, NULL), LQT_OK);
  cr_assert_eq(lqt_buffer_write(view.buffer, 0, data, bytes, NULL), LQT_OK);
  return view;
}

static lqt_view floats(const float *data, uint64_t rows, uint64_t cols) {
  return upload(data, rows, cols, LQT_DTYPE_F32);
}

static lqt_view ints(const int32_t *data, uint64_t rows, uint64_t cols) {
  return upload(data, rows, cols, LQT_DTYPE_I32);
}

static lqt_view space(uint64_t rows, uint64_t cols) {
  float poison[256];
  cr_assert_leq(rows * cols, 256);
  for (int i = 0; i < 256; i++) poison[i] = NAN;
  return floats(poison, rows, cols);
}

/* Runs, compares out0 with `want`, frees every buffer. */
static void expect(lqt_op *op, const float *want, double tolerance) {
  lqt_diag diag = {0};
  float got[256];
  lqt_view *out = &op->out[0];
  cr_assert_eq(lqt_device_run(device, op, 1, &diag), LQT_OK, "%s: %s", diag.where, diag.what);
  cr_assert_eq(lqt_buffer_read(out->buffer, 0, got, out->rows * out->cols * sizeof(float), NULL),
               LQT_OK);
  for (uint64_t i = 0; i < out->rows * out->cols; i++) {
    cr_assert(fabs((double)got[i] - want[i]) <= tolerance * (1 + fabs(want[i])),
              "element %d is %.9g and should be %.9g", (int)i, (double)got[i], (double)want[i]);
  }
  for (int i = 0; i < LQT_OP_MAX_IN; i++) lqt_buffer_destroy(op->in[i].buffer);
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) lqt_buffer_destroy(op->out[i].buffer);
}

Test(oracle, rmsnorm) {
  /* mean of squares of (1, 2, 3, 4) is 7.5; with eps 1 the root is sqrt(8.5). */
  lqt_op op = {.kind = LQT_OP_RMSNORM, .eps = 1.0f};
  op.in[0] = floats((float[]){1, 2, 3, 4}, 1, 4);
  op.in[1] = floats((float[]){1, 1, 2, -1}, 1, 4);
  op.out[0] = space(1, 4);
  double r = 1.0 / sqrt(8.5);
  expect(&op, (float[]){(float)r, (float)(2 * r), (float)(6 * r), (float)(-4 * r)}, 1e-7);
}

Test(oracle, layernorm) {
  /* mean 2.5, variance 1.25 */
  lqt_op op = {.kind = LQT_OP_LAYERNORM, .eps = 0.0f};
  op.in[0] = floats((float[]){1, 2, 3, 4}, 1, 4);
  op.in[1] = floats((float[]){1, 1, 1, 2}, 1, 4);
  op.in[2] = floats((float[]){0, 10, 0, 0}, 1, 4);
  op.out[0] = space(1, 4);
  double r = 1.0 / sqrt(1.25);
  expect(&op, (float[]){(float)(-1.5 * r), (float)(10 - 0.5 * r), (float)(0.5 * r), (float)(3 * r)},
         1e-6);
}

Test(oracle, activations) {
  /* Values from tables: Phi(1) = 0.8413447460685429, sigmoid(1) = 0.7310585786300049. */
  static const struct {
    lqt_act act;
    float want[3]; /* at 1, -1, 0 */
  } cases[] = {
      {LQT_ACT_SILU, {0.7310585786f, -0.2689414214f, 0}},
      {LQT_ACT_GELU, {0.8413447461f, -0.1586552539f, 0}},
      {LQT_ACT_GELU_TANH, {0.8411919906f, -0.1588080094f, 0}},
      {LQT_ACT_RELU, {1, 0, 0}},
  };
  for (int i = 0; i < 4; i++) {
    lqt_op op = {.kind = LQT_OP_ACT, .act = cases[i].act};
    op.in[0] = floats((float[]){1, -1, 0}, 1, 3);
    op.out[0] = space(1, 3);
    expect(&op, cases[i].want, 1e-7);
    lqt_op glu = {.kind = LQT_OP_GLU, .act = cases[i].act};
    glu.in[0] = floats((float[]){1, -1, 0}, 1, 3);
    glu.in[1] = floats((float[]){2, 4, 8}, 1, 3);
    glu.out[0] = space(1, 3);
    expect(&glu, (float[]){2 * cases[i].want[0], 4 * cases[i].want[1], 0}, 1e-7);
  }
}

Test(oracle, add_gather) {
  lqt_op op = {.kind = LQT_OP_ADD};
  op.in[0] = floats((float[]){1, 2, 3, 4}, 2, 2);
  op.in[1] = floats((float[]){10, 20, 30, 40}, 2, 2);
  op.out[0] = space(2, 2);
  expect(&op, (float[]){11, 22, 33, 44}, 0);
  lqt_op gather = {.kind = LQT_OP_GATHER};
  gather.in[0] = floats((float[]){1, 2, 3, 4, 5, 6}, 3, 2);
  gather.in[1] = ints((int32_t[]){2, 0}, 1, 2);
  gather.out[0] = space(2, 2);
  expect(&gather, (float[]){5, 6, 1, 2}, 0);
}

Test(oracle, rope) {
  /* A quarter turn takes (x, y) to (-y, x); position 3 at frequency pi/6 is one. The second pair
   * stands still, the last two columns are not rotated. */
  const float quarter = 0.52359877559829887f;
  float x[6] = {1, 2, 3, 4, 5, 6};
  lqt_op op = {.kind = LQT_OP_ROPE, .heads = 1, .head_dim = 6, .rotary_dim = 4, .attn_scale = 2.0f};
  op.in[0] = ints((int32_t[]){3}, 1, 1);
  op.in[1] = floats((float[]){quarter, 0}, 1, 2);
  op.out[0] = floats(x, 1, 6);
  expect(&op, (float[]){-6, 4, 2, 8, 5, 6}, 1e-6); /* pairs (0, 2) and (1, 3) */
  lqt_op next = {.kind = LQT_OP_ROPE,
                 .heads = 1,
                 .head_dim = 6,
                 .rotary_dim = 4,
                 .attn_scale = 1.0f,
                 .interleaved = true};
  next.in[0] = ints((int32_t[]){3}, 1, 1);
  next.in[1] = floats((float[]){quarter, 0}, 1, 2);
  next.out[0] = floats(x, 1, 6);
  expect(&next, (float[]){-2, 1, 3, 4, 5, 6}, 1e-6); /* pairs (0, 1) and (2, 3) */
}

Test(oracle, kv_write_then_attention) {
  /* One KV head of 2, pages of 2 positions; sequence 0 has pages 3 and 1. Position 2 is then row
   * 2 of the pages, position 0 row 6. */
  const float zeros[16] = {0};
  const float k[4] = {1, 2, 3, 4}, v[4] = {5, 6, 7, 8};
  lqt_op op = {.kind = LQT_OP_KV_WRITE, .kv_heads = 1, .head_dim = 2, .page_tokens = 2};
  op.in[0] = floats(k, 2, 2);
  op.in[1] = floats(v, 2, 2);
  op.in[2] = ints((int32_t[]){0, 2}, 1, 2);
  op.in[3] = ints((int32_t[]){0, 0}, 1, 2);
  op.in[4] = ints((int32_t[]){3, 1}, 1, 2);
  op.out[0] = floats(zeros, 8, 2);
  op.out[1] = floats(zeros, 8, 2);
  expect(&op, (float[]){0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0}, 0);

  /* Two query heads over the same KV head; scores s = q . k * 0.5; position 1 sees two keys. */
  const float keys[4] = {1, 0, 0, 2}, values[4] = {10, 1, 20, 3}, q[4] = {2, 0, 0, 2};
  double a = exp(1.0), b = exp(2.0);
  lqt_op attention = {.kind = LQT_OP_ATTENTION,
                      .heads = 2,
                      .kv_heads = 1,
                      .head_dim = 2,
                      .page_tokens = 2,
                      .attn_scale = 0.5f};
  attention.in[0] = floats(q, 1, 4);
  attention.in[1] = ints((int32_t[]){1}, 1, 1);
  attention.in[2] = ints((int32_t[]){0}, 1, 1);
  attention.in[3] = floats(keys, 2, 2);
  attention.in[4] = floats(values, 2, 2);
  attention.in[5] = ints((int32_t[]){0}, 1, 1);
  attention.out[0] = space(1, 4);
  /* head 0: scores (1, 0); head 1: scores (0, 2) */
  expect(&attention,
         (float[]){(float)((10 * a + 20) / (a + 1)), (float)((a + 3) / (a + 1)),
                   (float)((10 + 20 * b) / (1 + b)), (float)((1 + 3 * b) / (1 + b))},
         1e-6);
}

Test(oracle, attention_is_causal_and_windowed) {
  /* All keys equal: every visible position weighs the same, so that the result is the mean of the
   * visible values. */
  float keys[4] = {1, 1, 1, 1}, values[4] = {1, 2, 4, 8}, q[4] = {3, 3, 3, 3};
  for (uint32_t window = 0; window < 3; window++) {
    lqt_op op = {.kind = LQT_OP_ATTENTION,
                 .heads = 1,
                 .kv_heads = 1,
                 .head_dim = 1,
                 .page_tokens = 1,
                 .attn_scale = 1.0f,
                 .window = window};
    op.in[0] = floats(q, 4, 1);
    op.in[1] = ints((int32_t[]){0, 1, 2, 3}, 1, 4);
    op.in[2] = ints((int32_t[]){0, 0, 0, 0}, 1, 4);
    op.in[3] = floats(keys, 4, 1);
    op.in[4] = floats(values, 4, 1);
    op.in[5] = ints((int32_t[]){0, 1, 2, 3}, 1, 4);
    op.out[0] = space(4, 1);
    const float all[4] = {1, 1.5f, 7.0f / 3, 3.75f}, one[4] = {1, 2, 4, 8},
                two[4] = {1, 1.5f, 3, 6};
    expect(&op, window == 0 ? all : window == 1 ? one : two, 1e-6);
  }
}

Test(oracle, matmul_and_embed_of_a_plain_weight) {
  const float w[6] = {1, 2, 3, 4, 5, 6};
  lqt_weight_desc desc = {.size = sizeof desc,
                          .dtype = LQT_DTYPE_F32,
                          .rows = 2,
                          .cols = 3,
                          .scale = 2,
                          .data = w,
                          .row_stride = 12};
  lqt_weight *weight;
  cr_assert_eq(lqt_weight_create(device, &desc, &weight, NULL), LQT_OK);
  lqt_op op = {.kind = LQT_OP_MATMUL, .weight[0] = weight, .accumulate = true};
  op.in[0] = floats((float[]){1, 0, -1, 1, 1, 1}, 2, 3);
  op.in[1] = floats((float[]){100, 200}, 1, 2);
  op.out[0] = floats((float[]){1000, 1000, 2000, 2000}, 2, 2);
  expect(&op, (float[]){1096, 1196, 2112, 2230}, 1e-7);
  lqt_op embed = {.kind = LQT_OP_EMBED, .weight[0] = weight};
  embed.in[0] = ints((int32_t[]){1, 0, 1}, 1, 3);
  embed.out[0] = space(3, 3);
  expect(&embed, (float[]){8, 10, 12, 2, 4, 6, 8, 10, 12}, 0);
  lqt_weight_destroy(weight);
}

/* One row of 4 columns with every part: two banks of two 1-wide entries would need 16 columns, so
 * the banks go by rows here. */
Test(oracle, every_part_of_a_codebook_weight) {
  const float book[4] = {1, 2, 10, 20};        /* bank 0: 1 2; bank 1: 10 20 */
  const float residual[4] = {0.5f, 1, 2, 4};   /* vectors (0.5, 1) and (2, 4) */
  uint8_t indices[32] = {0}, second[32] = {0}; /* 2-bit indices, low bits first */
  indices[0] = 0 | 1 << 2 | 1 << 4 | 0 << 6;   /* row 0: 0 1 1 0 */
  indices[16] = 1 | 0 << 2 | 1 << 4 | 0 << 6;  /* row 1: 1 0 1 0 */
  second[0] = 1 | 0 << 2;                      /* row 0: vectors 1, 0 */
  second[16] = 0 | 1 << 2;                     /* row 1: vectors 0, 1 */
  const uint16_t scales[2] = {lqt__f16_from_f32(0.5f), lqt__f16_from_f32(2.0f)};
  const uint16_t zeros[2] = {lqt__f16_from_f32(1.0f), lqt__f16_from_f32(-1.0f)};
  const float delta[2] = {100, 7};
  const uint32_t row_ptr[3] = {0, 1, 2};
  const uint16_t columns[2] = {2, 0};
  const uint8_t mask[16] = {[0] = 0x0d, [8] = 0x0f}; /* row 0 drops column 1 */
  lqt_weight_desc desc = {.size = sizeof desc,
                          .dtype = LQT_DTYPE_CODEBOOK,
                          .rows = 2,
                          .cols = 4,
                          .scale = 3,
                          .indices = {indices, 16, 2, 0},
                          .codebook = {book, LQT_DTYPE_F32, 2, 1, 2, 0, 2},
                          .bank_rows = 1,
                          .bank_cols = 4,
                          .residual_indices = {second, 16, 2, 0},
                          .residual = {residual, LQT_DTYPE_F32, 2, 2, 1, 0, 4},
                          .residual_scale = 10,
                          .group_size = 16,
                          .group_scales = scales,
                          .zero_points = zeros,
                          .group_row_stride = 1,
                          .delta = {.kind = LQT_DELTA_CSR,
                                    .dtype = LQT_DTYPE_F32,
                                    .values = delta,
                                    .row_ptr = row_ptr,
                                    .columns16 = columns,
                                    .count = 2},
                          .mask = {mask, 8}};
  /* Row 0: C = 1 2 2 1, 10 R = 20 40 5 10, minus zero point 1, times 3 * 0.5; + 100 at column 2;
   * column 1 masked. Row 1: C = 20 10 20 10, 10 R = 5 10 20 40, plus 1, times 6; + 7 at 0. */
  const float want[8] = {30, 0, 109, 15, 163, 126, 246, 306};
  lqt_weight *weight;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_weight_create(device, &desc, &weight, &diag), LQT_OK, "%s", diag.what);
  lqt_op op = {.kind = LQT_OP_DEQUANT, .weight[0] = weight};
  op.out[0] = space(2, 4);
  expect(&op, want, 1e-6);
  lqt_op product = {.kind = LQT_OP_MATMUL, .weight[0] = weight};
  product.in[0] = floats((float[]){1, 10, 0, 1}, 1, 4);
  product.out[0] = space(1, 2);
  expect(&product, (float[]){45, 163 + 1260 + 306}, 1e-6);
  /* Every kind of device agrees with these numbers. */
  for (uint64_t r = 0; r < 2; r++) {
    float row[4];
    cr_assert_eq(lqt_weight_desc_row(&desc, r, 0, 4, row), LQT_OK);
    for (int c = 0; c < 4; c++) cr_assert_float_eq(row[c], want[r * 4 + c], 1e-4);
  }
  lqt_weight_destroy(weight);
}
