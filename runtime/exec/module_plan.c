/* Planners: how each module type becomes ops. A new type is a new function and a line in the table
 * at the end. */
#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "exec/plan.h"
#include "exec/rope.h"

#define FAIL(status, ...) return lqt__fail(b->diag, (status), b->module->id, __VA_ARGS__)

static const lqt__tensor *tensor_of(const lqt__builder *b, ptrdiff_t index) {
  return &b->model->file.tensors[index];
}

/* The tensor of a role that must be there. */
static lqt_status need_tensor(lqt__builder *b, const char *role, ptrdiff_t *out) {
  *out = lqt__module_find_tensor(b->module, role);
  if (*out < 0) FAIL(LQT_BAD_GRAPH, "the module names no tensor for '%s'", role);
  return LQT_OK;
}

/* A tensor as a constant of `count` numbers. */
static lqt_status load_vector(lqt__builder *b, ptrdiff_t tensor, uint64_t count, uint32_t *out) {
  const char *name = tensor_of(b, tensor)->name;
  lqt_weight_desc desc;
  LQT__TRY(lqt_model_weight(b->model, (size_t)tensor, &desc, b->diag));
  if (desc.rows != 1 || desc.cols != count) {
    return lqt__fail(b->diag, LQT_BAD_TENSOR, name, "%s needs a vector of %llu, not %llu x %llu",
                     b->module->id, (unsigned long long)count, (unsigned long long)desc.rows,
                     (unsigned long long)desc.cols);
  }
  if (desc.dtype == LQT_DTYPE_CODEBOOK) {
    return lqt__fail(b->diag, LQT_UNSUPPORTED, name,
                     "norms and biases in codebook form are not run: keep them in f32 or f16");
  }
  float *data;
  if (!lqt__builder_constant_tensor(b, (size_t)tensor)) return LQT_OUT_OF_MEMORY;
  *out = lqt__builder_constant(b, count, &data);
  if (*out == 0) return LQT_OUT_OF_MEMORY;
  return lqt_weight_desc_row(&desc, 0, 0, count, data);
}

/* The constant of a role, or value 0 when the module has none. */
static lqt_status optional_vector(lqt__builder *b, const char *role, uint64_t count,
                                  uint32_t *out) {
  ptrdiff_t tensor = lqt__module_find_tensor(b->module, role);
  *out = 0;
  return tensor < 0 ? LQT_OK : load_vector(b, tensor, count, out);
}

/* One product of `x` by up to three matrices, each with its bias. */
static lqt_status multiply(lqt__builder *b, uint32_t x, size_t count, const char *const *roles,
                           const char *const *bias_roles, uint32_t *out) {
  ptrdiff_t tensors[LQT_OP_MAX_OUT];
  uint32_t biases[LQT_OP_MAX_OUT];
  uint64_t cols = b->plan->values[x].cols;
  for (size_t i = 0; i < count; i++) {
    LQT__TRY(need_tensor(b, roles[i], &tensors[i]));
    const lqt__tensor *tensor = tensor_of(b, tensors[i]);
    if (tensor->ndim != 2 || tensor->cols != cols) {
      return lqt__fail(b->diag, LQT_BAD_TENSOR, tensor->name,
                       "%s needs a matrix with %llu columns; this has %llu", b->module->id,
                       (unsigned long long)cols, (unsigned long long)tensor->cols);
    }
    LQT__TRY(optional_vector(b, bias_roles[i], tensor->rows, &biases[i]));
    out[i] = lqt__builder_value(b, LQT__VALUE_ACTIVATION, tensor->rows);
    if (out[i] == 0) return LQT_OUT_OF_MEMORY;
  }
  lqt__plan_op *op = lqt__builder_op(b, LQT_OP_MATMUL);
  if (op == NULL) return LQT_OUT_OF_MEMORY;
  op->in[0] = x;
  for (size_t i = 0; i < count; i++) {
    op->weight[i] = tensors[i];
    op->in[1 + i] = biases[i];
    op->out[i] = out[i];
  }
  return LQT_OK;
}

static lqt_status multiply_one(lqt__builder *b, uint32_t x, const char *role, const char *bias_role,
                               uint32_t *out) {
  return multiply(b, x, 1, &role, &bias_role, out);
}

static lqt_status plan_embedding(lqt__builder *b, const uint32_t *inputs, uint32_t *outputs) {
  ptrdiff_t tensor;
  LQT__TRY(need_tensor(b, "weight", &tensor));
  lqt__value_kind kind = b->plan->values[inputs[0]].kind;
  if (tensor_of(b, tensor)->ndim != 2) FAIL(LQT_BAD_TENSOR, "the embedding is not a matrix");
  uint64_t rows = tensor_of(b, tensor)->rows;
  uint64_t *limit = kind == LQT__VALUE_IDS ? &b->plan->token_limit : &b->plan->position_limit;
  if (rows < *limit) *limit = rows;
  outputs[0] = lqt__builder_value(b, LQT__VALUE_ACTIVATION, tensor_of(b, tensor)->cols);
  lqt__plan_op *op = lqt__builder_op(b, LQT_OP_EMBED);
  if (outputs[0] == 0 || op == NULL) return LQT_OUT_OF_MEMORY;
  op->in[0] = inputs[0];
  op->out[0] = outputs[0];
  op->weight[0] = tensor;
  return LQT_OK;
}

static lqt_status plan_norm(lqt__builder *b, const uint32_t *inputs, uint32_t *outputs) {
  bool layer = b->module->type == LQT__MODULE_LAYER_NORM;
  uint64_t cols = b->plan->values[inputs[0]].cols;
  ptrdiff_t tensor;
  uint32_t gain, bias = 0;
  LQT__TRY(need_tensor(b, "weight", &tensor));
  LQT__TRY(load_vector(b, tensor, cols, &gain));
  if (layer) LQT__TRY(optional_vector(b, "bias", cols, &bias));
  double eps = lqt__module_number(b->module, "eps", 1e-5);
  if (!(eps >= 0.0) || !isfinite(eps)) FAIL(LQT_BAD_GRAPH, "eps must be a number of 0 or more");
  outputs[0] = lqt__builder_value(b, LQT__VALUE_ACTIVATION, cols);
  lqt__plan_op *op = lqt__builder_op(b, layer ? LQT_OP_LAYERNORM : LQT_OP_RMSNORM);
  if (outputs[0] == 0 || op == NULL) return LQT_OUT_OF_MEMORY;
  op->op.eps = (float)eps;
  op->in[0] = inputs[0];
  op->in[1] = gain;
  op->in[2] = bias;
  op->out[0] = outputs[0];
  return LQT_OK;
}

static lqt_status plan_linear(lqt__builder *b, const uint32_t *inputs, uint32_t *outputs) {
  return multiply_one(b, inputs[0], "weight", "bias", &outputs[0]);
}

static lqt_status plan_add(lqt__builder *b, const uint32_t *inputs, uint32_t *outputs) {
  uint64_t cols = b->plan->values[inputs[0]].cols;
  if (b->module->input_count != 2 || b->plan->values[inputs[1]].cols != cols) {
    FAIL(LQT_BAD_GRAPH, "add needs two inputs of the same width");
  }
  outputs[0] = lqt__builder_value(b, LQT__VALUE_ACTIVATION, cols);
  lqt__plan_op *op = lqt__builder_op(b, LQT_OP_ADD);
  if (outputs[0] == 0 || op == NULL) return LQT_OUT_OF_MEMORY;
  op->in[0] = inputs[0];
  op->in[1] = inputs[1];
  op->out[0] = outputs[0];
  return LQT_OK;
}

/* A whole number from 1 to `most`, or `fallback` (0: it must be there). */
static lqt_status whole(lqt__builder *b, const char *key, double fallback, double most,
                        uint32_t *out) {
  double value = lqt__module_number(b->module, key, fallback);
  if (!(value >= 1.0 && value <= most) || value != floor(value)) {
    FAIL(LQT_BAD_GRAPH, "hyperparameter '%s' must be a whole number from 1 to %.0f", key, most);
  }
  *out = (uint32_t)value;
  return LQT_OK;
}

typedef struct attention {
  uint32_t heads, kv_heads, head_dim, rotary_dim, window;
  float score_scale, rope_scale;
  bool rotates, interleaved;
  uint32_t frequencies; /* constant */
} attention;

static lqt_status read_rope(lqt__builder *b, attention *a) {
  const json_t *rope = json_object_get(b->module->hyperparameters, "rope");
  a->rotates = json_is_object(rope);
  if (!a->rotates) return LQT_OK;
  const json_t *dim = json_object_get(rope, "rotary_dim");
  json_int_t rotary = json_is_integer(dim) ? json_integer_value(dim) : a->head_dim;
  if (rotary < 2 || rotary > a->head_dim || rotary % 2 != 0) {
    FAIL(LQT_BAD_GRAPH, "rope.rotary_dim must be even and from 2 to %u", a->head_dim);
  }
  a->rotary_dim = (uint32_t)rotary;
  a->interleaved = json_is_true(json_object_get(rope, "interleaved"));
  float *data;
  a->frequencies = lqt__builder_constant(b, a->rotary_dim / 2, &data);
  if (a->frequencies == 0) return LQT_OUT_OF_MEMORY;
  return lqt__rope_frequencies(rope, a->rotary_dim, b->module->id, data, &a->rope_scale, b->diag);
}

static lqt_status read_attention(lqt__builder *b, attention *a) {
  LQT__TRY(whole(b, "heads", 0, 65536, &a->heads));
  LQT__TRY(whole(b, "kv_heads", a->heads, 65536, &a->kv_heads));
  LQT__TRY(whole(b, "head_dim", 0, 65536, &a->head_dim));
  if (a->heads % a->kv_heads != 0) {
    FAIL(LQT_BAD_GRAPH, "%u heads cannot share %u key-value heads evenly", a->heads, a->kv_heads);
  }
  if (lqt__module_number(b->module, "window", 0) != 0) {
    LQT__TRY(whole(b, "window", 0, INT32_MAX, &a->window));
  }
  double scale = lqt__module_number(b->module, "scale", 1.0 / sqrt(a->head_dim));
  if (!isfinite(scale)) FAIL(LQT_BAD_GRAPH, "hyperparameter 'scale' is not finite");
  a->score_scale = (float)scale;
  return read_rope(b, a);
}

static lqt_status rotate(lqt__builder *b, const attention *a, uint32_t value, uint32_t heads,
                         uint32_t positions) {
  lqt__plan_op *op = lqt__builder_op(b, LQT_OP_ROPE);
  if (op == NULL) return LQT_OUT_OF_MEMORY;
  op->op.heads = heads;
  op->op.head_dim = a->head_dim;
  op->op.rotary_dim = a->rotary_dim;
  op->op.interleaved = a->interleaved;
  op->op.attn_scale = a->rope_scale;
  op->in[0] = positions;
  op->in[1] = a->frequencies;
  op->out[0] = value;
  return LQT_OK;
}

static lqt_status attend(lqt__builder *b, const attention *a, const uint32_t qkv[3],
                         uint32_t positions, uint32_t *out) {
  uint32_t sequences = lqt__builder_value(b, LQT__VALUE_SEQUENCES, 0);
  uint32_t table = lqt__builder_value(b, LQT__VALUE_TABLE, 0);
  uint64_t kv_cols = (uint64_t)a->kv_heads * a->head_dim;
  uint32_t keys = lqt__builder_value(b, LQT__VALUE_PAGES, kv_cols);
  uint32_t values = lqt__builder_value(b, LQT__VALUE_PAGES, kv_cols);
  *out = lqt__builder_value(b, LQT__VALUE_ACTIVATION, (uint64_t)a->heads * a->head_dim);
  if (sequences == 0 || table == 0 || keys == 0 || values == 0 || *out == 0) {
    return LQT_OUT_OF_MEMORY;
  }
  b->plan->values[keys].offset = b->plan->cache_count++;
  b->plan->values[values].offset = b->plan->cache_count++;
  lqt__plan_op *write = lqt__builder_op(b, LQT_OP_KV_WRITE);
  if (write == NULL) return LQT_OUT_OF_MEMORY;
  write->op.kv_heads = a->kv_heads;
  write->op.head_dim = a->head_dim;
  memcpy(write->in, (uint32_t[]){qkv[1], qkv[2], positions, sequences, table},
         5 * sizeof(uint32_t));
  write->out[0] = keys;
  write->out[1] = values;
  lqt__plan_op *read = lqt__builder_op(b, LQT_OP_ATTENTION);
  if (read == NULL) return LQT_OUT_OF_MEMORY;
  read->op.heads = a->heads;
  read->op.kv_heads = a->kv_heads;
  read->op.head_dim = a->head_dim;
  read->op.window = a->window;
  read->op.attn_scale = a->score_scale;
  memcpy(read->in, (uint32_t[]){qkv[0], positions, sequences, keys, values, table},
         6 * sizeof(uint32_t));
  read->out[0] = *out;
  return LQT_OK;
}

static lqt_status plan_attention(lqt__builder *b, const uint32_t *inputs, uint32_t *outputs) {
  static const char *const roles[] = {"q", "k", "v"};
  static const char *const biases[] = {"q_bias", "k_bias", "v_bias"};
  attention a = {0};
  uint32_t qkv[3], mixed;
  LQT__TRY(read_attention(b, &a));
  LQT__TRY(multiply(b, inputs[0], 3, roles, biases, qkv));
  for (size_t i = 0; i < 3; i++) {
    uint64_t need = (uint64_t)(i == 0 ? a.heads : a.kv_heads) * a.head_dim;
    if (b->plan->values[qkv[i]].cols != need) {
      FAIL(LQT_BAD_TENSOR, "tensor '%s' has %llu rows; the heads need %llu", roles[i],
           (unsigned long long)b->plan->values[qkv[i]].cols, (unsigned long long)need);
    }
  }
  uint32_t positions = lqt__builder_value(b, LQT__VALUE_POSITIONS, 0);
  if (positions == 0) return LQT_OUT_OF_MEMORY;
  if (a.rotates) {
    LQT__TRY(rotate(b, &a, qkv[0], a.heads, positions));
    LQT__TRY(rotate(b, &a, qkv[1], a.kv_heads, positions));
  }
  LQT__TRY(attend(b, &a, qkv, positions, &mixed));
  return multiply_one(b, mixed, "o", "o_bias", &outputs[0]);
}

static lqt_status read_activation(lqt__builder *b, const char *fallback, lqt_act *out) {
  static const struct {
    const char *name;
    lqt_act act;
  } known[] = {{"silu", LQT_ACT_SILU},
               {"swish", LQT_ACT_SILU},
               {"gelu", LQT_ACT_GELU},
               {"gelu_new", LQT_ACT_GELU_TANH},
               {"gelu_tanh", LQT_ACT_GELU_TANH},
               {"gelu_pytorch_tanh", LQT_ACT_GELU_TANH},
               {"relu", LQT_ACT_RELU}};
  const char *name = json_string_value(json_object_get(b->module->hyperparameters, "activation"));
  if (name == NULL) name = fallback;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(name, known[i].name) == 0) {
      *out = known[i].act;
      return LQT_OK;
    }
  }
  FAIL(LQT_UNSUPPORTED, "activation '%.64s' is not supported (silu, gelu, gelu_tanh, relu are)",
       name);
}

static lqt_status plan_gated_mlp(lqt__builder *b, const uint32_t *inputs, uint32_t *outputs) {
  static const char *const roles[] = {"gate", "up"};
  static const char *const biases[] = {"gate_bias", "up_bias"};
  lqt_act act;
  uint32_t both[2];
  LQT__TRY(read_activation(b, "silu", &act));
  LQT__TRY(multiply(b, inputs[0], 2, roles, biases, both));
  if (b->plan->values[both[0]].cols != b->plan->values[both[1]].cols) {
    FAIL(LQT_BAD_TENSOR, "'gate' and 'up' have different numbers of rows");
  }
  lqt__plan_op *op = lqt__builder_op(b, LQT_OP_GLU);
  if (op == NULL) return LQT_OUT_OF_MEMORY;
  op->op.act = act;
  op->in[0] = op->out[0] = both[0];
  op->in[1] = both[1];
  return multiply_one(b, both[0], "down", "down_bias", &outputs[0]);
}

static lqt_status plan_mlp(lqt__builder *b, const uint32_t *inputs, uint32_t *outputs) {
  lqt_act act;
  uint32_t wide;
  LQT__TRY(read_activation(b, "gelu", &act));
  LQT__TRY(multiply_one(b, inputs[0], "up", "up_bias", &wide));
  lqt__plan_op *op = lqt__builder_op(b, LQT_OP_ACT);
  if (op == NULL) return LQT_OUT_OF_MEMORY;
  op->op.act = act;
  op->in[0] = op->out[0] = wide;
  return multiply_one(b, wide, "down", "down_bias", &outputs[0]);
}

typedef lqt_status (*planner_fn)(lqt__builder *b, const uint32_t *inputs, uint32_t *outputs);
static const planner_fn planners[LQT__MODULE_TYPE_COUNT] = {
    [LQT__MODULE_EMBEDDING] = plan_embedding,
    [LQT__MODULE_RMS_NORM] = plan_norm,
    [LQT__MODULE_LAYER_NORM] = plan_norm,
    [LQT__MODULE_LINEAR] = plan_linear,
    [LQT__MODULE_ATTENTION] = plan_attention,
    [LQT__MODULE_GATED_MLP] = plan_gated_mlp,
    [LQT__MODULE_MLP] = plan_mlp,
    [LQT__MODULE_ADD] = plan_add,
};

lqt_status lqt__builder_module(lqt__builder *b, const uint32_t *inputs, uint32_t *outputs) {
  const lqt__module *module = b->module;
  if (module->type >= LQT__MODULE_TYPE_COUNT || planners[module->type] == NULL) {
    FAIL(LQT_UNSUPPORTED, "module type '%.64s' is not run by this version", module->type_name);
  }
  if (module->input_count < 1 || module->output_count != 1) {
    FAIL(LQT_BAD_GRAPH, "a module of this type has one output and at least one input");
  }
  bool takes_ids = module->type == LQT__MODULE_EMBEDDING;
  for (uint32_t i = 0; i < module->input_count; i++) {
    if ((b->plan->values[inputs[i]].kind == LQT__VALUE_ACTIVATION) == takes_ids) {
      FAIL(LQT_BAD_GRAPH, takes_ids ? "an embedding takes ids or positions, not activations"
                                    : "the module takes activations, not ids or positions");
    }
  }
  return planners[module->type](b, inputs, outputs);
}
