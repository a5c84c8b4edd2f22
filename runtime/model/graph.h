/* The module graph: parsed from JSON (chunk 0x0003), checked, in an order that can be executed.
 *
 * {"version": 1,
 *  "modules": [{"id": "layers.0.attn", "type": "attention", "inputs": ["x"], "outputs": ["y"],
 *               "tensors": {"q": "model.layers.0.self_attn.q_proj.weight", ...},
 *               "hyperparameters": {"heads": 8, "kv_heads": 4, "head_dim": 64, "rope": {...}},
 *               "mutation_hooks": {}, "flags": ["hot_swappable"]}, ...],
 *  "connections": [{"from": "layers.0.attn_norm:0", "to": "layers.0.attn:0"}, ...],
 *  "inputs": [{"name": "input_ids", "to": "embed:0"}],
 *  "outputs": [{"name": "logits", "from": "head:0"}]}
 *
 * Module types (docs/format.md, "Module types"): embedding{weight}; rms_norm{weight}; layer_norm
 * {weight, bias?}; linear{weight, bias?}; attention{q, k, v, o, q_bias?, k_bias?, v_bias?,
 * o_bias?}; gated_mlp{gate, up, down}; mlp{up, down, up_bias?, down_bias?}; add (two inputs). */
#ifndef LQT_RUNTIME_MODEL_GRAPH_H_
#define LQT_RUNTIME_MODEL_GRAPH_H_

#include <jansson.h>

#include "base/alloc.h"
#include "format/format.h"
#include "lqt/status.h"

typedef enum lqt__module_type {
  LQT__MODULE_EMBEDDING,
  LQT__MODULE_RMS_NORM,
  LQT__MODULE_LAYER_NORM,
  LQT__MODULE_LINEAR,
  LQT__MODULE_ATTENTION,
  LQT__MODULE_GATED_MLP,
  LQT__MODULE_MLP,
  LQT__MODULE_ADD,
  LQT__MODULE_TYPE_COUNT, /* also: a type that this version does not know */
} lqt__module_type;

enum { LQT__MODULE_MAX_PORTS = 4, LQT__MODULE_MAX_TENSORS = 16 };

/* Where an input port gets its value: a module's output, or a graph input. */
typedef struct lqt__port_ref {
  int32_t module; /* index in `modules`; -1: graph input `port` */
  uint32_t port;
} lqt__port_ref;

typedef struct lqt__module_tensor {
  char *role;      /* "q", "weight", ... */
  uint32_t tensor; /* index in the file's tensors */
} lqt__module_tensor;

typedef struct lqt__module {
  char *id;
  char *type_name;
  lqt__module_type type;
  uint32_t input_count, output_count;
  lqt__port_ref inputs[LQT__MODULE_MAX_PORTS];
  lqt__module_tensor tensors[LQT__MODULE_MAX_TENSORS];
  uint32_t tensor_count;
  json_t *hyperparameters; /* an object, borrowed from `root` */
  bool hot_swappable;
} lqt__module;

typedef struct lqt__graph {
  lqt__module *modules; /* in topological order: inputs come from earlier modules */
  size_t module_count;
  char **inputs; /* names */
  size_t input_count;
  char **output_names;
  lqt__port_ref *outputs;
  size_t output_count;
  json_t *root;
  lqt__arena arena;
} lqt__graph;

/* Parses and checks: unique ids, every reference resolves, every input port connected once,
 * acyclic, tensors named by a role exist with shapes that fit the module (for the types above;
 * unknown types are kept and left to the executor to refuse). Errors: LQT_BAD_JSON, LQT_BAD_GRAPH,
 * LQT_BAD_REFERENCE, LQT_BAD_TENSOR, LQT_LIMIT, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__graph_parse(const lqt__file *file, const char *json, size_t bytes,
                                          const char *where, lqt__graph *out, lqt_diag *diag);
void lqt__graph_free(lqt__graph *graph);
/* File tensor index of a role, or -1. */
ptrdiff_t lqt__module_find_tensor(const lqt__module *module, const char *role);
/* A number hyperparameter, or `fallback`. */
double lqt__module_number(const lqt__module *module, const char *key, double fallback);

#endif /* LQT_RUNTIME_MODEL_GRAPH_H_ */
