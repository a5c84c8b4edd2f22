/* From ops to dispatches: which shader, with which constants, over how many workgroups. */
#include <stdio.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/diag.h"

#define WORKGROUP 128u
#define MATVEC_TOKENS 8u /* rows of x that a workgroup of the matrix-vector shader takes */
#define MAX_GROUPS 65535u

static uint64_t address(const lqt_view *view) {
  if (view->buffer == NULL) return 0;
  return ((const lqt__vk_buffer *)view->buffer)->range.address + view->offset;
}

static uint32_t stride(const lqt_view *view) {
  return view->rows > 1 ? (uint32_t)view->row_stride : (uint32_t)view->cols;
}

static uint32_t groups(uint64_t items, uint64_t per_group) {
  uint64_t n = lqt__ceil_div(items, per_group);
  return n < MAX_GROUPS ? (uint32_t)n : MAX_GROUPS; /* shaders loop over the rest */
}

/* Rows start at multiples of 16 bytes. */
static bool aligned16(const lqt_view *view) {
  uint64_t size = lqt_dtype_size(view->dtype);
  return address(view) % 16 == 0 && (view->rows <= 1 || view->row_stride * size % 16 == 0);
}

static void begin(lqt__vk_dispatch *d, lqt__vk_shader shader, lqt_dtype activation) {
  memset(d, 0, sizeof *d);
  d->spec.shader = shader;
  lqt__vk_spec_add(&d->spec, LQT__VK_WG, WORKGROUP);
  if (activation == LQT_DTYPE_F16) lqt__vk_spec_add(&d->spec, LQT__VK_ACT, 1);
}

static void own(lqt__vk_dispatch *d, uint32_t index, uint32_t value) {
  if (value != 0) lqt__vk_spec_add(&d->spec, LQT__VK_OWN + index, value);
}

static void weight_constants(lqt__vk_dispatch *d, const lqt__vk_weight *weight) {
  for (uint32_t i = 0; i < weight->constant_count; i++) {
    lqt__vk_spec_add(&d->spec, weight->constants[i].id, weight->constants[i].value);
  }
}

/* Rows that a subgroup takes at once. More share what is read of x; fewer keep the device full. */
static uint32_t rows_at_once(const lqt__vk_device *device, const lqt__vk_weight *weight,
                             uint32_t tokens, bool fast) {
  uint32_t rows = tokens <= 2 ? 4 : 8 / tokens;
  if (fast) rows = weight->rows < 8192 ? 2 : tokens == 1 && weight->rows >= 16384 ? 8 : 4;
  /* A processor compiles longer than it runs. */
  bool processor = device->physical->properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
  return processor && rows > 2 ? 2 : rows;
}

/* Short rows leave invocations idle when each takes 32 columns. */
static bool takes_wide_chunks(const lqt__vk_device *device, const lqt_op *op, int slot) {
  const lqt__vk_weight *weight = (const lqt__vk_weight *)op->weight[slot];
  return op->in[0].dtype == LQT_DTYPE_F32 && aligned16(&op->in[0]) && weight->wide_chunks &&
         weight->cols >= 32 * device->physical->subgroup_size;
}

/* Rows of x up to which the matrix-vector shader, over several workgroups, beats the tiled one. */
static uint64_t matvec_tokens(const lqt__vk_device *device, const lqt_op *op, int slot) {
  if (!takes_wide_chunks(device, op, slot)) return MATVEC_TOKENS;
  return op->weight[slot]->shape.rows < 8192 ? 4 * MATVEC_TOKENS : 2 * MATVEC_TOKENS;
}

static void plan_matvec(const lqt__vk_device *device, const lqt_op *op, int slot,
                        lqt__vk_dispatch *d) {
  const lqt__vk_weight *weight = (const lqt__vk_weight *)op->weight[slot];
  const lqt_view *x = &op->in[0];
  uint32_t tokens = (uint32_t)x->rows, most = 1;
  while (most < tokens && most < MATVEC_TOKENS) most *= 2;
  uint32_t subgroup = device->physical->subgroup_size;
  uint32_t subgroups = subgroup > 0 && subgroup < WORKGROUP ? WORKGROUP / subgroup : 1;
  bool wide = x->dtype == LQT_DTYPE_F32 && aligned16(x), fast = takes_wide_chunks(device, op, slot);
  uint32_t rows = rows_at_once(device, weight, most, fast), group_rows = rows * subgroups;
  begin(d, LQT__VK_MATVEC, x->dtype);
  weight_constants(d, weight);
  own(d, 0, rows);
  own(d, 1, most);
  own(d, 2, wide);
  own(d, 3, op->in[slot + 1].buffer != NULL);
  own(d, 4, op->accumulate);
  own(d, 5, group_rows);
  own(d, 6, fast);
  d->x = groups(weight->rows, group_rows);
  d->y = groups(tokens, most);
  snprintf(d->name, sizeof d->name, "lqt_matvec_%s_%s_t%u%s__vulkan", weight->kind,
           lqt_dtype_name(x->dtype), most, fast ? "_c32" : "");
}

static void plan_tiled(const lqt_op *op, int slot, lqt__vk_dispatch *d) {
  const lqt__vk_weight *weight = (const lqt__vk_weight *)op->weight[slot];
  const lqt_view *x = &op->in[0];
  begin(d, LQT__VK_MATMUL, x->dtype);
  weight_constants(d, weight);
  own(d, 3, op->in[slot + 1].buffer != NULL);
  own(d, 4, op->accumulate);
  d->x = groups(weight->rows, 64);
  d->y = groups(x->rows, 32);
  snprintf(d->name, sizeof d->name, "lqt_matmul_%s_%s_32x64__vulkan", weight->kind,
           lqt_dtype_name(x->dtype));
}

static void plan_frag(const lqt__vk_device *device, const lqt_op *op, int slot,
                      lqt__vk_dispatch *d) {
  const lqt__vk_weight *weight = (const lqt__vk_weight *)op->weight[slot];
  uint32_t tokens = (uint32_t)op->in[0].rows;
  memset(d, 0, sizeof *d);
  lqt__vk_spec_add(&d->spec, LQT__VK_ACT, 1);
  weight_constants(d, weight);
  own(d, 3, op->in[slot + 1].buffer != NULL);
  own(d, 4, op->accumulate);
  /* Rows with a sparse delta are the few's alone. */
  if (tokens <= 8 || weight->head.shape.delta.kind == LQT_DELTA_CSR) {
    lqt__vk_frag_few(device, weight, tokens, d);
  } else {
    lqt__vk_frag_many(device, weight, tokens, d);
  }
}

static size_t plan_matmul(const lqt__vk_device *device, const lqt_op *op, lqt__vk_dispatch *out) {
  size_t count = 0;
  for (int slot = 0; slot < LQT_OP_MAX_OUT; slot++) {
    if (op->weight[slot] == NULL) continue;
    const lqt__vk_weight *weight = (const lqt__vk_weight *)op->weight[slot];
    lqt__vk_dispatch *d = &out[count++];
    if (lqt__vk_frag_takes(device, weight, &op->in[0], aligned16(&op->in[0]))) {
      plan_frag(device, op, slot, d);
    } else if (op->in[0].rows <= matvec_tokens(device, op, slot)) {
      plan_matvec(device, op, slot, d);
    } else {
      plan_tiled(op, slot, d);
    }
    d->push.matmul = (lqt__vk_push_matmul){
        .weight = weight->parts[LQT__VK_PART_BLOCK].address,
        .x = address(&op->in[0]),
        .y = address(&op->out[slot]),
        .bias = address(&op->in[slot + 1]),
        .x_stride = stride(&op->in[0]),
        .y_stride = stride(&op->out[slot]),
        .tokens = (uint32_t)op->in[0].rows,
    };
    d->push_bytes = sizeof d->push.matmul;
  }
  return count;
}

static void plan_dequant(const lqt_op *op, lqt__vk_dispatch *d) {
  const lqt__vk_weight *weight = (const lqt__vk_weight *)op->weight[0];
  const lqt_view *out = &op->out[0];
  bool embed = op->kind == LQT_OP_EMBED;
  begin(d, LQT__VK_DEQUANT, out->dtype);
  weight_constants(d, weight);
  own(d, 0, embed);
  d->x = groups(weight->cols, 8u * WORKGROUP);
  d->y = groups(out->rows, 1);
  d->push.dequant = (lqt__vk_push_dequant){
      .weight = weight->parts[LQT__VK_PART_BLOCK].address,
      .ids = embed ? address(&op->in[0]) : 0,
      .out = address(out),
      .out_stride = stride(out),
      .rows = (uint32_t)out->rows,
  };
  d->push_bytes = sizeof d->push.dequant;
  snprintf(d->name, sizeof d->name, "lqt_%s_%s_%s__vulkan", embed ? "embed" : "dequant",
           weight->kind, lqt_dtype_name(out->dtype));
}

static void plan_elementwise(const lqt_op *op, lqt__vk_dispatch *d) {
  const lqt_view *a = &op->in[0];
  bool add = op->kind == LQT_OP_ADD, two = op->kind != LQT_OP_ACT;
  begin(d, LQT__VK_ELEMENTWISE, a->dtype);
  own(d, 0, add ? 2 : two ? 1 : 0);
  own(d, 1, add ? 0 : (uint32_t)op->act);
  d->x = groups(a->cols, WORKGROUP);
  d->y = groups(a->rows, 1);
  d->push.elementwise = (lqt__vk_push_elementwise){
      .a = address(a),
      .b = two ? address(&op->in[1]) : address(a),
      .out = address(&op->out[0]),
      .a_stride = stride(a),
      .b_stride = two ? stride(&op->in[1]) : stride(a),
      .out_stride = stride(&op->out[0]),
      .rows = (uint32_t)a->rows,
      .cols = (uint32_t)a->cols,
  };
  d->push_bytes = sizeof d->push.elementwise;
}

static void plan_norm(const lqt_op *op, lqt__vk_dispatch *d) {
  const lqt_view *x = &op->in[0];
  begin(d, LQT__VK_NORM, x->dtype);
  own(d, 0, op->kind == LQT_OP_LAYERNORM);
  own(d, 1, op->in[2].buffer != NULL);
  d->x = groups(x->rows, 1);
  d->y = 1;
  d->push.norm = (lqt__vk_push_norm){
      .x = address(x),
      .gain = address(&op->in[1]),
      .bias = address(&op->in[2]),
      .out = address(&op->out[0]),
      .x_stride = stride(x),
      .out_stride = stride(&op->out[0]),
      .rows = (uint32_t)x->rows,
      .cols = (uint32_t)x->cols,
      .eps = op->eps,
  };
  d->push_bytes = sizeof d->push.norm;
}

static void plan_rope(const lqt_op *op, lqt__vk_dispatch *d) {
  const lqt_view *x = &op->out[0];
  begin(d, LQT__VK_ROPE, x->dtype);
  own(d, 0, op->interleaved);
  d->x = groups((uint64_t)op->heads * (op->rotary_dim / 2), WORKGROUP);
  d->y = groups(x->rows, 1);
  d->push.rope = (lqt__vk_push_rope){
      .x = address(x),
      .positions = address(&op->in[0]),
      .frequencies = address(&op->in[1]),
      .x_stride = stride(x),
      .tokens = (uint32_t)x->rows,
      .heads = op->heads,
      .head_dim = op->head_dim,
      .half_dim = op->rotary_dim / 2,
      .scale = op->attn_scale,
  };
  d->push_bytes = sizeof d->push.rope;
}

static void plan_kv_write(const lqt_op *op, lqt__vk_dispatch *d) {
  const lqt_view *k = &op->in[0], *table = &op->in[4];
  begin(d, LQT__VK_KV_WRITE, k->dtype);
  lqt__vk_spec_add(&d->spec, LQT__VK_OWN, op->out[0].dtype == LQT_DTYPE_F16);
  d->x = groups(k->cols, WORKGROUP);
  d->y = groups(k->rows, 1);
  d->push.kv_write = (lqt__vk_push_kv_write){
      .k = address(k),
      .v = address(&op->in[1]),
      .k_pages = address(&op->out[0]),
      .v_pages = address(&op->out[1]),
      .positions = address(&op->in[2]),
      .sequences = address(&op->in[3]),
      .table = address(table),
      .k_stride = stride(k),
      .v_stride = stride(&op->in[1]),
      .k_pages_stride = stride(&op->out[0]),
      .v_pages_stride = stride(&op->out[1]),
      .table_stride = stride(table),
      .tokens = (uint32_t)k->rows,
      .cols = (uint32_t)k->cols,
      .page_tokens = op->page_tokens,
      .page_rows = (uint32_t)op->out[0].rows,
      .max_pages = (uint32_t)table->cols,
      .sequence_count = (uint32_t)table->rows,
  };
  d->push_bytes = sizeof d->push.kv_write;
}

static lqt_status plan_attention(const lqt__vk_device *device, const lqt_op *op,
                                 lqt__vk_dispatch *d, lqt_diag *diag) {
  const lqt_view *q = &op->in[0], *k = &op->in[3], *v = &op->in[4], *table = &op->in[5];
  uint32_t shared = device->physical->properties.limits.maxComputeSharedMemorySize;
  if (op->head_dim > shared / 4 - 4 * WORKGROUP || op->head_dim > 2048) {
    return lqt__fail(diag, LQT_UNSUPPORTED, device->head.info.selector,
                     "heads of %u values are more than the shared memory of this device holds",
                     op->head_dim);
  }
  begin(d, LQT__VK_ATTENTION, q->dtype);
  bool wide = aligned16(k) && aligned16(v) && op->head_dim % 8 == 0;
  lqt__vk_spec_add(&d->spec, LQT__VK_OWN, k->dtype == LQT_DTYPE_F16);
  own(d, 1, wide);
  own(d, 2, op->head_dim);
  d->x = groups(op->heads, 1);
  d->y = groups(q->rows, 1);
  d->push.attention = (lqt__vk_push_attention){
      .q = address(q),
      .k_pages = address(k),
      .v_pages = address(v),
      .table = address(table),
      .positions = address(&op->in[1]),
      .sequences = address(&op->in[2]),
      .out = address(&op->out[0]),
      .q_stride = stride(q),
      .k_stride = stride(k),
      .v_stride = stride(v),
      .table_stride = stride(table),
      .out_stride = stride(&op->out[0]),
      .tokens = (uint32_t)q->rows,
      .heads = op->heads,
      .kv_heads = op->kv_heads,
      .page_tokens = op->page_tokens,
      .page_rows = (uint32_t)k->rows,
      .max_pages = (uint32_t)table->cols,
      .sequence_count = (uint32_t)table->rows,
      .window = op->window,
      .scale = op->attn_scale,
  };
  d->push_bytes = sizeof d->push.attention;
  return LQT_OK;
}

static void plan_gather(const lqt_op *op, lqt__vk_dispatch *d) {
  const lqt_view *x = &op->in[0], *out = &op->out[0];
  begin(d, LQT__VK_GATHER, x->dtype);
  d->x = groups(x->cols, WORKGROUP);
  d->y = groups(out->rows, 1);
  d->push.gather = (lqt__vk_push_gather){
      .x = address(x),
      .ids = address(&op->in[1]),
      .out = address(out),
      .x_stride = stride(x),
      .out_stride = stride(out),
      .rows = (uint32_t)out->rows,
      .x_rows = (uint32_t)x->rows,
      .cols = (uint32_t)x->cols,
  };
  d->push_bytes = sizeof d->push.gather;
}

/* Sizes that shaders hold in 32 bits. */
static lqt_status check_sizes(const lqt__vk_device *device, const lqt_op *op, lqt_diag *diag) {
  for (int i = 0; i < LQT_OP_MAX_IN + LQT_OP_MAX_OUT; i++) {
    const lqt_view *view = i < LQT_OP_MAX_IN ? &op->in[i] : &op->out[i - LQT_OP_MAX_IN];
    if (view->buffer == NULL) continue;
    if (view->rows > INT32_MAX || view->cols > INT32_MAX || view->row_stride > UINT32_MAX) {
      return lqt__fail(diag, LQT_UNSUPPORTED, device->head.info.selector,
                       "an operand of %llu x %llu is larger than the Vulkan backend takes",
                       (unsigned long long)view->rows, (unsigned long long)view->cols);
    }
  }
  return LQT_OK;
}

lqt_status lqt__vk_op_plan(const lqt__vk_device *device, const lqt_op *op,
                           lqt__vk_dispatch out[LQT__VK_MAX_DISPATCHES], size_t *out_count,
                           lqt_diag *diag) {
  *out_count = 1;
  LQT__TRY(check_sizes(device, op, diag));
  switch (op->kind) {
    case LQT_OP_EMBED:
    case LQT_OP_DEQUANT:
      plan_dequant(op, out);
      break;
    case LQT_OP_RMSNORM:
    case LQT_OP_LAYERNORM:
      plan_norm(op, out);
      break;
    case LQT_OP_MATMUL:
      *out_count = op->in[0].rows != 0 ? plan_matmul(device, op, out) : 0;
      break;
    case LQT_OP_ROPE:
      plan_rope(op, out);
      break;
    case LQT_OP_KV_WRITE:
      plan_kv_write(op, out);
      break;
    case LQT_OP_ATTENTION:
      LQT__TRY(plan_attention(device, op, out, diag));
      break;
    case LQT_OP_GATHER:
      plan_gather(op, out);
      break;
    case LQT_OP_GLU:
    case LQT_OP_ACT:
    case LQT_OP_ADD:
      plan_elementwise(op, out);
      break;
    default:
      return lqt__fail(diag, LQT_UNSUPPORTED, device->head.info.selector,
                       "the Vulkan backend has no op %d", (int)op->kind);
  }
  for (size_t i = 0; i < *out_count; i++) {
    if (out[i].name[0] != '\0') continue;
    snprintf(out[i].name, sizeof out[i].name, "lqt_%s_%s__vulkan", lqt_op_name(op->kind),
             lqt_dtype_name(op->kind == LQT_OP_ROPE ? op->out[0].dtype : op->in[0].dtype));
  }
  return LQT_OK;
}

const char *lqt__vk_variant(lqt_device *head, const lqt_op *op) {
  lqt__vk_dispatch dispatches[LQT__VK_MAX_DISPATCHES];
  size_t count = 0;
  if (lqt__vk_op_plan((lqt__vk_device *)head, op, dispatches, &count, NULL) != LQT_OK ||
      count == 0) {
    return "";
  }
  return lqt__vk_intern(dispatches[0].name);
}
