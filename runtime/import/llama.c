#include "import/llama.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/text.h"

/* A layer's tensors in the order in which they run. The biases follow their matrices. */
typedef struct layer_row {
  const char *name;
  lqt__llama_role role;
} layer_row;

static const layer_row layer_rows[] = {
    {"input_layernorm.weight", LQT__ROLE_NORM_IN},
    {"self_attn.q_proj.weight", LQT__ROLE_Q},
    {"self_attn.k_proj.weight", LQT__ROLE_K},
    {"self_attn.v_proj.weight", LQT__ROLE_V},
    {"self_attn.o_proj.weight", LQT__ROLE_O},
    {"post_attention_layernorm.weight", LQT__ROLE_NORM_POST},
    {"mlp.gate_proj.weight", LQT__ROLE_GATE},
    {"mlp.up_proj.weight", LQT__ROLE_UP},
    {"mlp.down_proj.weight", LQT__ROLE_DOWN},
    {"self_attn.q_proj.bias", LQT__ROLE_BIAS},
    {"self_attn.k_proj.bias", LQT__ROLE_BIAS},
    {"self_attn.v_proj.bias", LQT__ROLE_BIAS},
    {"self_attn.o_proj.bias", LQT__ROLE_BIAS},
};
enum { MATRICES_AND_NORMS = 9, WITH_BIASES = 13 };

static size_t tensors_per_layer(const lqt__llama *llama) {
  return llama->attention_bias ? WITH_BIASES : MATRICES_AND_NORMS;
}

size_t lqt__llama_tensor_count(const lqt__llama *llama) {
  return 2 + tensors_per_layer(llama) * llama->layers + (llama->tied ? 0 : 1);
}

static void set_shape(lqt__llama_tensor *tensor, uint32_t ndim, uint32_t rows, uint32_t cols) {
  tensor->ndim = ndim;
  tensor->rows = rows;
  tensor->cols = cols;
}

static void layer_shape(const lqt__llama *llama, size_t row, lqt__llama_tensor *out) {
  uint32_t q = llama->heads * llama->head_dim, kv = llama->kv_heads * llama->head_dim;
  switch (out->role) {
    case LQT__ROLE_Q:
      set_shape(out, 2, q, llama->hidden);
      break;
    case LQT__ROLE_K:
    case LQT__ROLE_V:
      set_shape(out, 2, kv, llama->hidden);
      break;
    case LQT__ROLE_O:
      set_shape(out, 2, llama->hidden, q);
      break;
    case LQT__ROLE_GATE:
    case LQT__ROLE_UP:
      set_shape(out, 2, llama->ffn, llama->hidden);
      break;
    case LQT__ROLE_DOWN:
      set_shape(out, 2, llama->hidden, llama->ffn);
      break;
    case LQT__ROLE_BIAS:
      set_shape(out, 1, 1, row == 9 ? q : row == 12 ? llama->hidden : kv);
      break;
    default:
      set_shape(out, 1, 1, llama->hidden);
      break;
  }
}

void lqt__llama_tensor_at(const lqt__llama *llama, size_t index, lqt__llama_tensor *out) {
  size_t each = tensors_per_layer(llama), in_layers = each * llama->layers;
  *out = (lqt__llama_tensor){0};
  if (index == 0) {
    snprintf(out->name, sizeof out->name, "model.embed_tokens.weight");
    out->role = LQT__ROLE_EMBEDDING;
    set_shape(out, 2, llama->vocab, llama->hidden);
  } else if (index <= in_layers) {
    const layer_row *row = &layer_rows[(index - 1) % each];
    out->layer = (uint32_t)((index - 1) / each);
    out->role = row->role;
    snprintf(out->name, sizeof out->name, "model.layers.%u.%s", out->layer, row->name);
    layer_shape(llama, (index - 1) % each, out);
  } else if (index == in_layers + 1) {
    snprintf(out->name, sizeof out->name, "model.norm.weight");
    out->role = LQT__ROLE_NORM_OUT;
    set_shape(out, 1, 1, llama->hidden);
  } else {
    snprintf(out->name, sizeof out->name, "lm_head.weight");
    out->role = LQT__ROLE_HEAD;
    set_shape(out, 2, llama->vocab, llama->hidden);
  }
}

static void add_rope(lqt__text *text, const lqt__rope *rope) {
  static const char *const names[] = {"default", "linear", "llama3", "yarn"};
  lqt__text_add(text,
                "\"rope\":{\"type\":\"%s\",\"theta\":%.17g,\"rotary_dim\":%u,"
                "\"interleaved\":false",
                names[rope->type], rope->theta, rope->rotary_dim);
  if (rope->type != LQT__ROPE_DEFAULT) lqt__text_add(text, ",\"factor\":%.17g", rope->factor);
  if (rope->type == LQT__ROPE_LLAMA3) {
    lqt__text_add(text, ",\"low_freq_factor\":%.17g,\"high_freq_factor\":%.17g",
                  rope->low_freq_factor, rope->high_freq_factor);
  }
  if (rope->type == LQT__ROPE_YARN) {
    lqt__text_add(text,
                  ",\"beta_fast\":%.17g,\"beta_slow\":%.17g,\"attention_factor\":%.17g,"
                  "\"truncate\":%s",
                  rope->beta_fast, rope->beta_slow, rope->attention_factor,
                  rope->truncate ? "true" : "false");
  }
  if (rope->type == LQT__ROPE_LLAMA3 || rope->type == LQT__ROPE_YARN) {
    lqt__text_add(text, ",\"original_context\":%.17g", rope->original_context);
  }
  lqt__text_add(text, "}");
}

/* One module with its output port "y"; `tensors` and `hyperparameters` are JSON objects' insides.
 */
static void begin_module(lqt__text *text, const char *prefix, const char *id, const char *type,
                         const char *inputs) {
  lqt__text_add(text,
                "%s{\"id\":\"%s%s\",\"type\":\"%s\",\"inputs\":[%s],\"outputs\":[\"y\"],"
                "\"tensors\":{",
                text->data != NULL && text->data[text->bytes - 1] == '}' ? "," : "", prefix, id,
                type, inputs);
}

static void end_module(lqt__text *text) {
  lqt__text_add(text, "},\"mutation_hooks\":{},\"flags\":[\"hot_swappable\"]}");
}

static void add_norm(lqt__text *text, const lqt__llama *llama, const char *prefix, const char *id,
                     const char *tensor) {
  begin_module(text, prefix, id, "rms_norm", "\"x\"");
  lqt__text_add(text, "\"weight\":\"%s\"},\"hyperparameters\":{\"eps\":%.9g", tensor,
                llama->norm_eps);
  end_module(text);
}

static void add_sum(lqt__text *text, const char *prefix, const char *id) {
  begin_module(text, prefix, id, "add", "\"a\",\"b\"");
  lqt__text_add(text, "},\"hyperparameters\":{");
  end_module(text);
}

static void add_attention(lqt__text *text, const lqt__llama *llama, const char *prefix,
                          uint32_t layer) {
  static const char roles[] = {'q', 'k', 'v', 'o'};
  begin_module(text, prefix, "attn", "attention", "\"x\"");
  for (int i = 0; i < 4; i++) {
    lqt__text_add(text, "%s\"%c\":\"model.layers.%u.self_attn.%c_proj.weight\"", i > 0 ? "," : "",
                  roles[i], layer, roles[i]);
    if (llama->attention_bias) {
      lqt__text_add(text, ",\"%c_bias\":\"model.layers.%u.self_attn.%c_proj.bias\"", roles[i],
                    layer, roles[i]);
    }
  }
  lqt__text_add(text, "},\"hyperparameters\":{\"heads\":%u,\"kv_heads\":%u,\"head_dim\":%u,",
                llama->heads, llama->kv_heads, llama->head_dim);
  if (llama->window > 0) lqt__text_add(text, "\"window\":%u,", llama->window);
  add_rope(text, &llama->rope);
  end_module(text);
}

static void add_layer(lqt__text *text, const lqt__llama *llama, uint32_t layer) {
  char prefix[32], tensor[96];
  snprintf(prefix, sizeof prefix, "layers.%u.", layer);
  snprintf(tensor, sizeof tensor, "model.layers.%u.input_layernorm.weight", layer);
  add_norm(text, llama, prefix, "attn_norm", tensor);
  add_attention(text, llama, prefix, layer);
  add_sum(text, prefix, "attn_add");
  snprintf(tensor, sizeof tensor, "model.layers.%u.post_attention_layernorm.weight", layer);
  add_norm(text, llama, prefix, "mlp_norm", tensor);
  begin_module(text, prefix, "mlp", "gated_mlp", "\"x\"");
  lqt__text_add(text,
                "\"gate\":\"model.layers.%u.mlp.gate_proj.weight\","
                "\"up\":\"model.layers.%u.mlp.up_proj.weight\","
                "\"down\":\"model.layers.%u.mlp.down_proj.weight\"},"
                "\"hyperparameters\":{\"activation\":\"silu\"",
                layer, layer, layer);
  end_module(text);
  add_sum(text, prefix, "mlp_add");
}

static void add_connections(lqt__text *text, const lqt__llama *llama) {
  char from[48] = "embed";
  for (uint32_t i = 0; i < llama->layers; i++) {
    lqt__text_add(text,
                  "{\"from\":\"%s:0\",\"to\":\"layers.%u.attn_norm:0\"},"
                  "{\"from\":\"layers.%u.attn_norm:0\",\"to\":\"layers.%u.attn:0\"},"
                  "{\"from\":\"%s:0\",\"to\":\"layers.%u.attn_add:0\"},"
                  "{\"from\":\"layers.%u.attn:0\",\"to\":\"layers.%u.attn_add:1\"},",
                  from, i, i, i, from, i, i, i);
    lqt__text_add(text,
                  "{\"from\":\"layers.%u.attn_add:0\",\"to\":\"layers.%u.mlp_norm:0\"},"
                  "{\"from\":\"layers.%u.mlp_norm:0\",\"to\":\"layers.%u.mlp:0\"},"
                  "{\"from\":\"layers.%u.attn_add:0\",\"to\":\"layers.%u.mlp_add:0\"},"
                  "{\"from\":\"layers.%u.mlp:0\",\"to\":\"layers.%u.mlp_add:1\"},",
                  i, i, i, i, i, i, i, i);
    snprintf(from, sizeof from, "layers.%u.mlp_add", i);
  }
  lqt__text_add(
      text, "{\"from\":\"%s:0\",\"to\":\"norm:0\"},{\"from\":\"norm:0\",\"to\":\"head:0\"}", from);
}

lqt_status lqt__llama_graph(const lqt__llama *llama, char **out_json, size_t *out_bytes,
                            lqt_diag *diag) {
  lqt__text text = {0};
  lqt__text_add(&text, "{\"version\":1,\"modules\":[");
  begin_module(&text, "", "embed", "embedding", "\"ids\"");
  lqt__text_add(&text, "\"weight\":\"model.embed_tokens.weight\"},\"hyperparameters\":{");
  end_module(&text);
  for (uint32_t i = 0; i < llama->layers; i++) add_layer(&text, llama, i);
  add_norm(&text, llama, "", "norm", "model.norm.weight");
  begin_module(&text, "", "head", "linear", "\"x\"");
  lqt__text_add(&text, "\"weight\":\"%s\"},\"hyperparameters\":{",
                llama->tied ? "model.embed_tokens.weight" : "lm_head.weight");
  end_module(&text);
  lqt__text_add(&text, "],\"connections\":[");
  add_connections(&text, llama);
  lqt__text_add(&text,
                "],\"inputs\":[{\"name\":\"input_ids\",\"to\":\"embed:0\"}],"
                "\"outputs\":[{\"name\":\"logits\",\"from\":\"head:0\"}]}");
  if (text.failed) {
    lqt__text_free(&text);
    return lqt__fail_memory(diag, NULL, 4096 * (uint64_t)llama->layers, "the module graph");
  }
  *out_json = text.data;
  *out_bytes = text.bytes;
  return LQT_OK;
}

const char *lqt__llama_hyperparameter(const lqt__llama *llama, size_t index, float *out_value) {
  const struct {
    const char *key;
    double value;
  } rows[LQT__LLAMA_HYPERPARAMETERS] = {
      {"context", llama->context},       {"vocab_size", llama->vocab},
      {"hidden_size", llama->hidden},    {"layers", llama->layers},
      {"heads", llama->heads},           {"kv_heads", llama->kv_heads},
      {"head_dim", llama->head_dim},     {"ffn_size", llama->ffn},
      {"rope_theta", llama->rope.theta}, {"norm_eps", llama->norm_eps},
  };
  *out_value = (float)rows[index].value;
  return rows[index].key;
}
