/* Every tensor's shape against its module, and widths along the connections. */
#include "model/graph_check.h"

#include <math.h>
#include <string.h>

#include "base/diag.h"

typedef unsigned long long ull;
#define BAD(status, ...) lqt__fail(c->diag, status, c->where, __VA_ARGS__)

const lqt__module_spec lqt__module_types[LQT__MODULE_TYPE_COUNT] = {
    [LQT__MODULE_EMBEDDING] = {"embedding", 1, {"weight"}, {NULL}},
    [LQT__MODULE_RMS_NORM] = {"rms_norm", 1, {"weight"}, {NULL}},
    [LQT__MODULE_LAYER_NORM] = {"layer_norm", 1, {"weight"}, {"bias"}},
    [LQT__MODULE_LINEAR] = {"linear", 1, {"weight"}, {"bias"}},
    [LQT__MODULE_ATTENTION] = {"attention",
                               1,
                               {"q", "k", "v", "o"},
                               {"q_bias", "k_bias", "v_bias", "o_bias"}},
    [LQT__MODULE_GATED_MLP] = {"gated_mlp", 1, {"gate", "up", "down"}, {NULL}},
    [LQT__MODULE_MLP] = {"mlp", 1, {"up", "down"}, {"up_bias", "down_bias"}},
    [LQT__MODULE_ADD] = {"add", 2, {NULL}, {NULL}},
};

typedef struct checker {
  const lqt__file *file;
  const lqt__graph *graph;
  const char *where;
  uint64_t *width; /* of each module's output, 0 unknown */
  lqt_diag *diag;
} checker;

static bool listed(const char *const *roles, size_t most, const char *role) {
  for (size_t i = 0; i < most && roles[i] != NULL; i++) {
    if (strcmp(roles[i], role) == 0) return true;
  }
  return false;
}

static lqt_status check_roles(const checker *c, const lqt__module *m) {
  const lqt__module_spec *spec = &lqt__module_types[m->type];
  if (m->input_count != spec->inputs || m->output_count != 1) {
    return BAD(LQT_BAD_GRAPH, "module %s has %u inputs and %u outputs; %s has %u and 1", m->id,
               m->input_count, m->output_count, spec->name, spec->inputs);
  }
  for (size_t i = 0; i < 5 && spec->required[i] != NULL; i++) {
    if (lqt__module_find_tensor(m, spec->required[i]) < 0) {
      return BAD(LQT_BAD_GRAPH, "module %s (%s) names no tensor \"%s\"", m->id, spec->name,
                 spec->required[i]);
    }
  }
  for (uint32_t i = 0; i < m->tensor_count; i++) {
    const char *role = m->tensors[i].role;
    if (!listed(spec->required, 5, role) && !listed(spec->optional, 7, role)) {
      return BAD(LQT_BAD_GRAPH, "module %s (%s) has no use for a tensor \"%s\"", m->id, spec->name,
                 role);
    }
  }
  return LQT_OK;
}

/* The tensor of a role is [rows][cols]; rows 0 wants a vector of `cols`. An absent one is fine. */
static lqt_status want(const checker *c, const lqt__module *m, const char *role, uint64_t rows,
                       uint64_t cols) {
  ptrdiff_t index = lqt__module_find_tensor(m, role);
  if (index < 0) return LQT_OK;
  const lqt__tensor *t = &c->file->tensors[index];
  if (t->type != 0 || t->ndim != (rows == 0 ? 1 : 2)) {
    return BAD(LQT_BAD_TENSOR, "tensor %s of module %s is not a standard tensor of %d dimension(s)",
               t->name, m->id, rows == 0 ? 1 : 2);
  }
  if ((rows != 0 && t->rows != rows) || t->cols != cols) {
    return BAD(LQT_BAD_TENSOR, "tensor %s (\"%s\" of module %s) is %llu x %llu; %llu x %llu fits",
               t->name, role, m->id, (ull)t->rows, (ull)t->cols, (ull)(rows != 0 ? rows : 1),
               (ull)cols);
  }
  return LQT_OK;
}

static const lqt__tensor *tensor_of(const checker *c, const lqt__module *m, const char *role) {
  return &c->file->tensors[lqt__module_find_tensor(m, role)];
}

/* Width of an input, or `otherwise` when what feeds it does not say. */
static uint64_t input_width(const checker *c, const lqt__module *m, uint32_t port,
                            uint64_t otherwise) {
  int32_t from = m->inputs[port].module;
  return from >= 0 && c->width[from] != 0 ? c->width[from] : otherwise;
}

/* A whole number from 1 on, or 0. */
static uint64_t count_of(const lqt__module *m, const char *key) {
  double value = lqt__module_number(m, key, 0);
  return value >= 1 && value <= 1048576 && value == floor(value) ? (uint64_t)value : 0;
}

static lqt_status check_eps(const checker *c, const lqt__module *m) {
  double eps = lqt__module_number(m, "eps", -1);
  if (eps >= 0 && eps < 1) return LQT_OK;
  return BAD(LQT_BAD_GRAPH, "module %s has no \"eps\" from 0 to 1", m->id);
}

static lqt_status check_attention(const checker *c, const lqt__module *m, uint64_t *out_width) {
  uint64_t heads = count_of(m, "heads"), kv_heads = count_of(m, "kv_heads");
  uint64_t head_dim = count_of(m, "head_dim");
  if (heads == 0 || kv_heads == 0 || head_dim == 0 || heads % kv_heads != 0) {
    return BAD(LQT_BAD_GRAPH,
               "module %s needs whole \"heads\", \"kv_heads\" and \"head_dim\", the first a "
               "multiple of the second",
               m->id);
  }
  const json_t *rope = json_object_get(m->hyperparameters, "rope");
  if (rope != NULL && !json_is_object(rope)) {
    return BAD(LQT_BAD_GRAPH, "\"rope\" of module %s is not an object", m->id);
  }
  uint64_t width = input_width(c, m, 0, tensor_of(c, m, "q")->cols);
  uint64_t out = tensor_of(c, m, "o")->rows;
  LQT__TRY(want(c, m, "q", heads * head_dim, width));
  LQT__TRY(want(c, m, "k", kv_heads * head_dim, width));
  LQT__TRY(want(c, m, "v", kv_heads * head_dim, width));
  LQT__TRY(want(c, m, "o", out, heads * head_dim));
  LQT__TRY(want(c, m, "q_bias", 0, heads * head_dim));
  LQT__TRY(want(c, m, "k_bias", 0, kv_heads * head_dim));
  LQT__TRY(want(c, m, "v_bias", 0, kv_heads * head_dim));
  *out_width = out;
  return want(c, m, "o_bias", 0, out);
}

static lqt_status check_mlp(const checker *c, const lqt__module *m, uint64_t *out_width) {
  const lqt__tensor *up = tensor_of(c, m, "up"), *down = tensor_of(c, m, "down");
  uint64_t width = input_width(c, m, 0, up->cols);
  const json_t *activation = json_object_get(m->hyperparameters, "activation");
  if (!json_is_string(activation)) {
    return BAD(LQT_BAD_GRAPH, "module %s names no \"activation\"", m->id);
  }
  LQT__TRY(want(c, m, "gate", up->rows, width));
  LQT__TRY(want(c, m, "up", up->rows, width));
  LQT__TRY(want(c, m, "down", down->rows, up->rows));
  LQT__TRY(want(c, m, "up_bias", 0, up->rows));
  *out_width = down->rows;
  return want(c, m, "down_bias", 0, down->rows);
}

static lqt_status check_add(const checker *c, const lqt__module *m, uint64_t *out_width) {
  uint64_t first = input_width(c, m, 0, 0), second = input_width(c, m, 1, first);
  if (first != 0 && first != second) {
    return BAD(LQT_BAD_GRAPH, "module %s adds values of width %llu and %llu", m->id, (ull)first,
               (ull)second);
  }
  *out_width = second;
  return LQT_OK;
}

static lqt_status check_module(const checker *c, const lqt__module *m, uint64_t *out_width) {
  LQT__TRY(check_roles(c, m));
  switch (m->type) {
    case LQT__MODULE_EMBEDDING:
      *out_width = tensor_of(c, m, "weight")->cols;
      return want(c, m, "weight", tensor_of(c, m, "weight")->rows, *out_width);
    case LQT__MODULE_RMS_NORM:
    case LQT__MODULE_LAYER_NORM:
      *out_width = input_width(c, m, 0, tensor_of(c, m, "weight")->cols);
      LQT__TRY(want(c, m, "weight", 0, *out_width));
      LQT__TRY(want(c, m, "bias", 0, *out_width));
      return check_eps(c, m);
    case LQT__MODULE_LINEAR: {
      const lqt__tensor *weight = tensor_of(c, m, "weight");
      *out_width = weight->rows;
      LQT__TRY(want(c, m, "weight", weight->rows, input_width(c, m, 0, weight->cols)));
      return want(c, m, "bias", 0, weight->rows);
    }
    case LQT__MODULE_ATTENTION:
      return check_attention(c, m, out_width);
    case LQT__MODULE_GATED_MLP:
    case LQT__MODULE_MLP:
      return check_mlp(c, m, out_width);
    default:
      return check_add(c, m, out_width);
  }
}

lqt_status lqt__graph_check(const lqt__file *file, const lqt__graph *graph, const char *where,
                            lqt_diag *diag) {
  checker c = {.file = file, .graph = graph, .where = where, .diag = diag};
  c.width = lqt__alloc_array(graph->module_count, sizeof *c.width);
  if (c.width == NULL) return lqt__fail_memory(diag, where, graph->module_count * 8, "widths");
  lqt_status status = LQT_OK;
  for (size_t i = 0; i < graph->module_count && status == LQT_OK; i++) {
    /* A type that this version does not know is left to the executor; its width is unknown. */
    if (graph->modules[i].type == LQT__MODULE_TYPE_COUNT) continue;
    status = check_module(&c, &graph->modules[i], &c.width[i]);
  }
  lqt__free(c.width);
  return status;
}
