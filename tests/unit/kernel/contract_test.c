/* lqt_op_check and lqt_device_run refuse every broken contract before anything runs. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "lqt/op.h"

enum { T = 3, K = 8, N = 6, HEADS = 4, KV = 2, D = 2, PAGES = 4, PAGE = 2, SEQ = 2 };

static lqt_device *device;
static lqt_buffer *buffers[12];
static lqt_weight *weight, *narrow_weight;
static float plain[N * K];

static void setup(void) {
  lqt_diag diag = {0};
  cr_assert_eq(lqt_device_open("cpu", NULL, &device, &diag), LQT_OK, "%s", diag.what);
  for (int i = 0; i < 12; i++) {
    char zeros[1024] = {0};
    cr_assert_eq(lqt_buffer_create(device, 1024, &buffers[i], NULL), LQT_OK);
    cr_assert_eq(lqt_buffer_write(buffers[i], 0, zeros, 1024, NULL), LQT_OK);
  }
  lqt_weight_desc desc = {.size = sizeof desc,
                          .dtype = LQT_DTYPE_F32,
                          .rows = N,
                          .cols = K,
                          .scale = 1,
                          .data = plain,
                          .row_stride = K * 4};
  cr_assert_eq(lqt_weight_create(device, &desc, &weight, NULL), LQT_OK);
  desc.cols = K - 1;
  cr_assert_eq(lqt_weight_create(device, &desc, &narrow_weight, NULL), LQT_OK);
}

static void teardown(void) {
  lqt_weight_destroy(weight);
  lqt_weight_destroy(narrow_weight);
  for (int i = 0; i < 12; i++) lqt_buffer_destroy(buffers[i]);
  lqt_device_release(device);
}

TestSuite(contract, .init = setup, .fini = teardown);

static lqt_view view(int buffer, uint64_t rows, uint64_t cols, lqt_dtype dtype) {
  return (lqt_view){
      .buffer = buffers[buffer], .rows = rows, .cols = cols, .row_stride = cols, .dtype = dtype};
}

/* A right op of every kind. */
static lqt_op good(lqt_op_kind kind) {
  const lqt_dtype f = LQT_DTYPE_F32, i = LQT_DTYPE_I32;
  lqt_op op = {.kind = kind, .eps = 1e-5f, .attn_scale = 1, .head_dim = D, .page_tokens = PAGE};
  op.kv_heads = kind == LQT_OP_ATTENTION || kind == LQT_OP_KV_WRITE ? KV : 0;
  switch (kind) {
    case LQT_OP_EMBED:
      op.in[0] = view(0, 1, T, i);
      op.out[0] = view(6, T, K, f);
      op.weight[0] = weight;
      break;
    case LQT_OP_RMSNORM:
    case LQT_OP_LAYERNORM:
      op.in[0] = view(0, T, K, f);
      op.in[1] = view(1, 1, K, f);
      if (kind == LQT_OP_LAYERNORM) op.in[2] = view(2, 1, K, f);
      op.out[0] = view(6, T, K, f);
      break;
    case LQT_OP_MATMUL:
      op.in[0] = view(0, T, K, f);
      op.in[1] = view(1, 1, N, f);
      op.in[2] = view(2, 1, N, f);
      op.out[0] = view(6, T, N, f);
      op.out[1] = view(7, T, N, f);
      op.weight[0] = op.weight[1] = weight;
      break;
    case LQT_OP_ROPE:
      op.heads = HEADS;
      op.rotary_dim = D;
      op.in[0] = view(0, 1, T, i);
      op.in[1] = view(1, 1, D / 2, f);
      op.out[0] = view(6, T, HEADS * D, f);
      break;
    case LQT_OP_KV_WRITE:
      op.in[0] = view(0, T, KV * D, f);
      op.in[1] = view(1, T, KV * D, f);
      op.in[2] = view(2, 1, T, i);
      op.in[3] = view(3, 1, T, i);
      op.in[4] = view(4, SEQ, PAGES, i);
      op.out[0] = view(6, PAGES * PAGE, KV * D, LQT_DTYPE_F16);
      op.out[1] = view(7, PAGES * PAGE, KV * D, LQT_DTYPE_F16);
      break;
    case LQT_OP_ATTENTION:
      op.heads = HEADS;
      op.in[0] = view(0, T, HEADS * D, f);
      op.in[1] = view(1, 1, T, i);
      op.in[2] = view(2, 1, T, i);
      op.in[3] = view(3, PAGES * PAGE, KV * D, LQT_DTYPE_F16);
      op.in[4] = view(4, PAGES * PAGE, KV * D, LQT_DTYPE_F16);
      op.in[5] = view(5, SEQ, PAGES, i);
      op.out[0] = view(6, T, HEADS * D, f);
      break;
    case LQT_OP_GATHER:
      op.in[0] = view(0, T, K, f);
      op.in[1] = view(1, 1, N, i);
      op.out[0] = view(6, N, K, f);
      break;
    case LQT_OP_DEQUANT:
      op.out[0] = view(6, N, K, f);
      op.weight[0] = weight;
      break;
    case LQT_OP_TOPK:
      op.in[0] = view(0, T, K, f);
      op.out[0] = view(6, T, K, f);
      op.out[1] = view(7, T, K, i);
      break;
    default:
      op.in[0] = view(0, T, K, f);
      if (kind != LQT_OP_ACT) op.in[1] = view(1, T, K, f);
      op.out[0] = view(6, T, K, f);
  }
  return op;
}

static void refused(const lqt_op *op, const char *what) {
  lqt_diag diag = {0};
  cr_expect_eq(lqt_op_check(op, &diag), LQT_INVALID_ARGUMENT, "%s: %s", lqt_op_name(op->kind),
               what);
  cr_expect(diag.what[0] != '\0' && diag.where[0] != '\0', "%s: no sentence", what);
  cr_expect_eq(lqt_device_run(device, op, 1, NULL), LQT_INVALID_ARGUMENT, "%s", what);
}

Test(contract, right_ops_run) {
  for (int kind = LQT_OP_EMBED; kind < LQT_OP_COUNT_; kind++) {
    lqt_op op = good((lqt_op_kind)kind);
    lqt_diag diag = {0};
    cr_expect_eq(lqt_device_run(device, &op, 1, &diag), LQT_OK, "%s: %s", lqt_op_name(op.kind),
                 diag.what);
    cr_expect_str_neq(lqt_op_name(op.kind), "?");
    cr_expect_str_neq(lqt_device_variant(device, &op), "");
  }
  cr_expect_str_eq(lqt_op_name((lqt_op_kind)0), "?");
  cr_expect_str_eq(lqt_op_name((lqt_op_kind)99), "?");
  cr_expect_eq(lqt_device_run(device, NULL, 0, NULL), LQT_OK);
}

/* Every operand of every op in turn: missing, of another type, a row or column short or over, past
 * the end of its buffer, rows that overlap. */
static void spoil_view(lqt_op_kind kind, int slot, bool out) {
  for (int way = 0; way < 9; way++) {
    lqt_op op = good(kind);
    lqt_view *v = out ? &op.out[slot] : &op.in[slot];
    bool optional = (kind == LQT_OP_MATMUL && !out && slot > 0) ||
                    (kind == LQT_OP_LAYERNORM && !out && slot == 2);
    bool table =
        (kind == LQT_OP_KV_WRITE && slot == 4 && !out) || (kind == LQT_OP_ATTENTION && slot == 5);
    char what[64];
    snprintf(what, sizeof what, "%s%d, way %d", out ? "out" : "in", slot, way);
    switch (way) {
      case 0:
        if (optional) continue;
        v->buffer = NULL;
        break;
      case 1:
        v->dtype = LQT_DTYPE_BF16;
        break;
      case 2:
        v->dtype = (lqt_dtype)77;
        break;
      case 3:
        v->offset = 1024;
        break;
      case 4:
        v->offset = 2;
        if (v->dtype == LQT_DTYPE_F16) v->offset = 1;
        break;
      case 5:
        v->offset = UINT64_MAX - 3;
        if (v->dtype == LQT_DTYPE_F16) v->offset = UINT64_MAX - 1;
        break;
      case 6:
        if (v->rows < 2) continue;
        v->row_stride = v->cols - 1;
        break;
      case 7:
        if (v->rows < 2) continue;
        v->row_stride = UINT64_MAX / 2;
        break;
      default:
        if (table) continue;
        v->cols += 1;
        /* With one operand the size is free. */
        if (kind == LQT_OP_GATHER && out) v->cols -= 2;
    }
    refused(&op, what);
  }
}

Test(contract, every_operand) {
  for (int kind = LQT_OP_EMBED; kind < LQT_OP_COUNT_; kind++) {
    lqt_op op = good((lqt_op_kind)kind);
    for (int i = 0; i < LQT_OP_MAX_IN; i++) {
      if (op.in[i].buffer != NULL) {
        spoil_view((lqt_op_kind)kind, i, false);
        continue;
      }
      if (kind == LQT_OP_MATMUL && i == 3) continue; /* bias of an absent product: below */
      lqt_op extra = op;
      extra.in[i] = view(11, 1, 1, LQT_DTYPE_F32);
      refused(&extra, "an input too many");
    }
    for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
      if (op.out[i].buffer != NULL) {
        spoil_view((lqt_op_kind)kind, i, true);
        continue;
      }
      lqt_op extra = op;
      extra.out[i] = view(11, 1, 1, LQT_DTYPE_F32);
      refused(&extra, "an output too many");
    }
    if (op.weight[0] == NULL) {
      op.weight[0] = weight;
      refused(&op, "a weight too many");
    } else {
      op.weight[0] = NULL;
      refused(&op, "no weight");
    }
  }
}

#define SPOIL(kind, change) \
  do {                      \
    lqt_op op = good(kind); \
    change;                 \
    refused(&op, #change);  \
  } while (0)

Test(contract, no_gaps_between_weights) {
  lqt_op op = good(LQT_OP_MATMUL);
  op.weight[2] = op.weight[1], op.out[2] = op.out[1], op.in[3] = op.in[2];
  op.weight[1] = NULL, op.out[1] = op.in[2] = (lqt_view){0};
  refused(&op, "weights 0 and 2");
}

Test(contract, numbers) {
  SPOIL((lqt_op_kind)0, op.kind = (lqt_op_kind)0);
  SPOIL(LQT_OP_ADD, op.kind = (lqt_op_kind)99);
  SPOIL(LQT_OP_GLU, op.act = (lqt_act)4);
  SPOIL(LQT_OP_ACT, op.act = (lqt_act)-1);
  SPOIL(LQT_OP_MATMUL, op.weight[1] = narrow_weight);
  SPOIL(LQT_OP_MATMUL, op.weight[0] = narrow_weight);
  SPOIL(LQT_OP_MATMUL, op.in[3] = view(3, 1, N, LQT_DTYPE_F32));
  SPOIL(LQT_OP_ROPE, op.heads = 0);
  SPOIL(LQT_OP_ROPE, op.rotary_dim = 0);
  SPOIL(LQT_OP_ROPE, op.rotary_dim = 1);
  SPOIL(LQT_OP_ROPE, op.rotary_dim = 4);
  SPOIL(LQT_OP_ROPE, op.head_dim = 0);
  SPOIL(LQT_OP_ROPE, op.heads = UINT32_MAX);
  SPOIL(LQT_OP_KV_WRITE, op.page_tokens = 0);
  SPOIL(LQT_OP_KV_WRITE, op.page_tokens = 3);
  SPOIL(LQT_OP_KV_WRITE, op.kv_heads = 0);
  SPOIL(LQT_OP_KV_WRITE, op.out[1].dtype = LQT_DTYPE_F32);
  SPOIL(LQT_OP_ATTENTION, op.heads = 3);
  SPOIL(LQT_OP_ATTENTION, op.heads = 0);
  SPOIL(LQT_OP_ATTENTION, op.kv_heads = 0);
  SPOIL(LQT_OP_ATTENTION, op.page_tokens = 0);
  SPOIL(LQT_OP_ATTENTION, op.in[4].dtype = LQT_DTYPE_F32);
  cr_expect_eq(lqt_op_check(NULL, NULL), LQT_INVALID_ARGUMENT);
}

Test(contract, overlap) {
  /* Shifted by one element: neither the same nor apart. */
  SPOIL(LQT_OP_ADD, (op.out[0].buffer = op.in[0].buffer, op.out[0].offset = 4));
  SPOIL(LQT_OP_MATMUL, op.out[0].buffer = op.in[0].buffer);
  SPOIL(LQT_OP_MATMUL, op.out[1].buffer = op.out[0].buffer);
  SPOIL(LQT_OP_GATHER, op.out[0].buffer = op.in[0].buffer);
  SPOIL(LQT_OP_ATTENTION, op.out[0].buffer = op.in[0].buffer);
  /* In place where it is allowed, and column ranges of one matrix side by side. */
  lqt_op add = good(LQT_OP_ADD);
  add.out[0] = add.in[1];
  cr_expect_eq(lqt_op_check(&add, NULL), LQT_OK);
  lqt_op pair = good(LQT_OP_MATMUL);
  pair.out[1].buffer = pair.out[0].buffer;
  pair.out[0].row_stride = pair.out[1].row_stride = 2 * N;
  pair.out[1].offset = N * 4;
  cr_expect_eq(lqt_op_check(&pair, NULL), LQT_OK);
  pair.out[1].offset -= 4;
  refused(&pair, "column ranges that share one column");
}
