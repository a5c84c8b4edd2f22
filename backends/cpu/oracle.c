/* The scalar reference of every op: float32 values, sums in double, no cleverness. What other
 * kernels compute is right when it agrees with this. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"
#include "cpu.h"

static float *row_of(const lqt_view *view, uint64_t row) {
  return (float *)lqt__cpu_data(view) + row * view->row_stride;
}

static const int32_t *ints(const lqt_view *view) { return lqt__cpu_data(view); }

static void norm(const lqt_op *op) {
  const float *gain = row_of(&op->in[1], 0);
  const float *bias = op->in[2].buffer != NULL ? row_of(&op->in[2], 0) : NULL;
  uint64_t n = op->in[0].cols;
  for (uint64_t t = 0; t < op->in[0].rows; t++) {
    const float *x = row_of(&op->in[0], t);
    float *y = row_of(&op->out[0], t);
    double mean = 0, square = 0;
    if (op->kind == LQT_OP_LAYERNORM) {
      for (uint64_t i = 0; i < n; i++) mean += x[i];
      mean /= (double)n;
    }
    for (uint64_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    double factor = 1.0 / sqrt(square / (double)n + (double)op->eps);
    for (uint64_t i = 0; i < n; i++) {
      y[i] = (float)((x[i] - mean) * factor * gain[i] + (bias != NULL ? bias[i] : 0.0));
    }
  }
}

static lqt_status matmul(lqt__cpu_device *device, const lqt_op *op, lqt_diag *diag) {
  uint64_t k = op->in[0].cols;
  float *weights = lqt__cpu_scratch(device, k * sizeof(float));
  if (weights == NULL) return lqt__fail_memory(diag, "matmul", k * sizeof(float), "a row");
  for (int p = 0; p < LQT_OP_MAX_OUT && op->weight[p] != NULL; p++) {
    const lqt__cpu_weight *weight = lqt__cpu_weight_of(op->weight[p]);
    const float *bias = op->in[p + 1].buffer != NULL ? row_of(&op->in[p + 1], 0) : NULL;
    for (uint64_t n = 0; n < weight->canon.rows; n++) {
      LQT__TRY(lqt_weight_desc_row(&weight->canon, n, 0, k, weights));
      for (uint64_t t = 0; t < op->in[0].rows; t++) {
        const float *x = row_of(&op->in[0], t);
        float *y = row_of(&op->out[p], t) + n;
        double sum = 0;
        for (uint64_t i = 0; i < k; i++) sum += (double)x[i] * weights[i];
        if (bias != NULL) sum += bias[n];
        if (op->accumulate) sum += *y;
        *y = (float)sum;
      }
    }
  }
  return LQT_OK;
}

static void rope(const lqt_op *op) {
  const int32_t *positions = ints(&op->in[0]);
  const float *frequencies = row_of(&op->in[1], 0);
  uint32_t half = op->rotary_dim / 2;
  for (uint64_t t = 0; t < op->out[0].rows; t++) {
    for (uint32_t h = 0; h < op->heads; h++) {
      float *head = row_of(&op->out[0], t) + (uint64_t)h * op->head_dim;
      for (uint32_t i = 0; i < half; i++) {
        /* The angle is a float32 product, as in the models' own code: at large positions its
         * rounding is part of what they were trained with. */
        double angle = (double)((float)positions[t] * frequencies[i]);
        double c = cos(angle) * (double)op->attn_scale, s = sin(angle) * (double)op->attn_scale;
        float *a = &head[op->interleaved ? 2 * i : i];
        float *b = &head[op->interleaved ? 2 * i + 1 : i + half];
        double x = *a, y = *b;
        *a = (float)(x * c - y * s);
        *b = (float)(y * c + x * s);
      }
    }
  }
}

/* Row of the pages that holds a position of a sequence. */
static uint64_t page_row(const lqt_op *op, const lqt_view *table, int32_t sequence,
                         int32_t position) {
  const int32_t *row = ints(table) + (uint64_t)sequence * table->row_stride;
  uint32_t p = (uint32_t)position;
  return (uint64_t)row[p / op->page_tokens] * op->page_tokens + p % op->page_tokens;
}

static float page_value(const lqt_view *pages, uint64_t row, uint64_t col) {
  uint64_t at = row * pages->row_stride + col;
  const void *data = lqt__cpu_data(pages);
  return pages->dtype == LQT_DTYPE_F16 ? lqt__f32_from_f16(((const uint16_t *)data)[at])
                                       : ((const float *)data)[at];
}

static void kv_write(const lqt_op *op) {
  for (uint64_t t = 0; t < op->in[0].rows; t++) {
    uint64_t row = page_row(op, &op->in[4], ints(&op->in[3])[t], ints(&op->in[2])[t]);
    for (int side = 0; side < 2; side++) {
      const lqt_view *pages = &op->out[side];
      const float *x = row_of(&op->in[side], t);
      for (uint64_t c = 0; c < pages->cols; c++) {
        uint64_t at = row * pages->row_stride + c;
        if (pages->dtype == LQT_DTYPE_F16)
          ((uint16_t *)lqt__cpu_data(pages))[at] = lqt__f16_from_f32(x[c]);
        else
          ((float *)lqt__cpu_data(pages))[at] = x[c];
      }
    }
  }
}

/* One query head of one token; scores: a double a position. */
static void attend(const lqt_op *op, uint64_t t, uint32_t head, double *scores) {
  int32_t position = ints(&op->in[1])[t], sequence = ints(&op->in[2])[t];
  int32_t first =
      op->window != 0 && position >= (int64_t)op->window ? position - (int32_t)op->window + 1 : 0;
  uint64_t dim = op->head_dim, column = head / (op->heads / op->kv_heads) * dim;
  const float *q = row_of(&op->in[0], t) + head * dim;
  double largest = -INFINITY, total = 0;
  for (int32_t p = first; p <= position; p++) {
    uint64_t row = page_row(op, &op->in[5], sequence, p);
    double sum = 0;
    for (uint64_t d = 0; d < dim; d++) {
      sum += (double)q[d] * page_value(&op->in[3], row, column + d);
    }
    scores[p - first] = sum * (double)op->attn_scale;
    if (scores[p - first] > largest) largest = scores[p - first];
  }
  for (int32_t p = first; p <= position; p++) {
    scores[p - first] = exp(scores[p - first] - largest);
    total += scores[p - first];
  }
  float *out = row_of(&op->out[0], t) + head * dim;
  for (uint64_t d = 0; d < dim; d++) {
    double sum = 0;
    for (int32_t p = first; p <= position; p++) {
      uint64_t row = page_row(op, &op->in[5], sequence, p);
      sum += scores[p - first] * page_value(&op->in[4], row, column + d);
    }
    out[d] = (float)(sum / total);
  }
}

static lqt_status attention(lqt__cpu_device *device, const lqt_op *op, lqt_diag *diag) {
  int32_t longest = 0;
  for (uint64_t t = 0; t < op->in[0].rows; t++) {
    if (ints(&op->in[1])[t] > longest) longest = ints(&op->in[1])[t];
  }
  size_t bytes = ((size_t)longest + 1) * sizeof(double);
  double *scores = lqt__cpu_scratch(device, bytes);
  if (scores == NULL) return lqt__fail_memory(diag, "attention", bytes, "scores");
  for (uint64_t t = 0; t < op->in[0].rows; t++) {
    for (uint32_t h = 0; h < op->heads; h++) attend(op, t, h, scores);
  }
  return LQT_OK;
}

static double activate(lqt_act act, double x) {
  switch (act) {
    case LQT_ACT_SILU:
      return x / (1.0 + exp(-x));
    case LQT_ACT_GELU:
      return 0.5 * x * (1.0 + erf(x * 0.70710678118654752440));
    case LQT_ACT_GELU_TANH:
      return 0.5 * x * (1.0 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    default:
      return x > 0 ? x : 0;
  }
}

static void elementwise(const lqt_op *op) {
  for (uint64_t t = 0; t < op->in[0].rows; t++) {
    const float *a = row_of(&op->in[0], t);
    const float *b = op->kind != LQT_OP_ACT ? row_of(&op->in[1], t) : NULL;
    float *y = row_of(&op->out[0], t);
    for (uint64_t i = 0; i < op->in[0].cols; i++) {
      if (op->kind == LQT_OP_ADD)
        y[i] = a[i] + b[i];
      else
        y[i] = (float)(activate(op->act, a[i]) * (b != NULL ? b[i] : 1.0));
    }
  }
}

lqt_status lqt__cpu_oracle_op(lqt__cpu_device *device, const lqt_op *op, lqt_diag *diag) {
  const lqt_view *out = &op->out[0];
  switch (op->kind) {
    case LQT_OP_EMBED:
      for (uint64_t t = 0; t < out->rows; t++) {
        const lqt_weight_desc *table = &lqt__cpu_weight_of(op->weight[0])->canon;
        uint64_t id = (uint64_t)ints(&op->in[0])[t];
        LQT__TRY(lqt_weight_desc_row(table, id, 0, out->cols, row_of(out, t)));
      }
      return LQT_OK;
    case LQT_OP_RMSNORM:
    case LQT_OP_LAYERNORM:
      norm(op);
      return LQT_OK;
    case LQT_OP_MATMUL:
      return matmul(device, op, diag);
    case LQT_OP_ROPE:
      rope(op);
      return LQT_OK;
    case LQT_OP_KV_WRITE:
      kv_write(op);
      return LQT_OK;
    case LQT_OP_ATTENTION:
      return attention(device, op, diag);
    case LQT_OP_GLU:
    case LQT_OP_ACT:
    case LQT_OP_ADD:
      elementwise(op);
      return LQT_OK;
    case LQT_OP_GATHER:
      for (uint64_t i = 0; i < out->rows; i++) {
        uint64_t from = (uint64_t)ints(&op->in[1])[i];
        memcpy(row_of(out, i), row_of(&op->in[0], from), out->cols * sizeof(float));
      }
      return LQT_OK;
    case LQT_OP_DEQUANT:
      for (uint64_t r = 0; r < out->rows; r++) {
        const lqt_weight_desc *weight = &lqt__cpu_weight_of(op->weight[0])->canon;
        LQT__TRY(lqt_weight_desc_row(weight, r, 0, out->cols, row_of(out, r)));
      }
      return LQT_OK;
    default:
      return lqt__fail(diag, LQT_UNSUPPORTED, "cpu-oracle", "unknown op %d", (int)op->kind);
  }
}
