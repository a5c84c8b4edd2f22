#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "base/json.h"
#include "import/llama.h"

typedef struct reader {
  const json_t *root;
  const char *where;
  lqt_diag *diag;
} reader;

static bool absent(const json_t *value) { return value == NULL || json_is_null(value); }

/* A whole number in 1..max. `fallback` 0: the key must be there. */
static lqt_status read_size(const reader *r, const char *key, uint32_t max, uint32_t fallback,
                            uint32_t *out) {
  const json_t *value = json_object_get(r->root, key);
  if (absent(value) && fallback != 0) {
    *out = fallback;
    return LQT_OK;
  }
  if (absent(value)) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where, "\"%s\" is missing", key);
  }
  if (!json_is_integer(value) || json_integer_value(value) < 1 ||
      json_integer_value(value) > (json_int_t)max) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where, "\"%s\" is not a whole number from 1 to %u",
                     key, max);
  }
  *out = (uint32_t)json_integer_value(value);
  return LQT_OK;
}

/* A finite number in low..high of `object`. */
static lqt_status read_number(const reader *r, const json_t *object, const char *key, double low,
                              double high, double fallback, double *out) {
  const json_t *value = json_object_get(object, key);
  *out = absent(value) ? fallback : json_number_value(value);
  if ((!absent(value) && !json_is_number(value)) || !(*out >= low && *out <= high)) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where, "\"%s\" is not a number from %g to %g", key,
                     low, high);
  }
  return LQT_OK;
}

static lqt_status read_flag(const reader *r, const char *key, bool fallback, bool *out) {
  const json_t *value = json_object_get(r->root, key);
  if (!absent(value) && !json_is_boolean(value)) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where, "\"%s\" is not true or false", key);
  }
  *out = absent(value) ? fallback : json_is_true(value);
  return LQT_OK;
}

/* A token id, or a list of them (the first counts); -1 when there is none. */
static lqt_status read_token(const reader *r, const char *key, uint32_t vocab, int32_t *out) {
  const json_t *value = json_object_get(r->root, key);
  if (json_is_array(value)) value = json_array_get(value, 0);
  *out = -1;
  if (absent(value)) return LQT_OK;
  if (!json_is_integer(value) || json_integer_value(value) < -1 ||
      json_integer_value(value) >= (json_int_t)vocab) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where, "\"%s\" is not a token id below %u", key,
                     vocab);
  }
  *out = (int32_t)json_integer_value(value);
  return LQT_OK;
}

static lqt_status check_architecture(const reader *r, bool *mistral) {
  const json_t *list = json_object_get(r->root, "architectures");
  const json_t *first = json_is_array(list) ? json_array_get(list, 0) : NULL;
  const json_t *type = json_object_get(r->root, "model_type");
  const char *name = json_is_string(first)  ? json_string_value(first)
                     : json_is_string(type) ? json_string_value(type)
                                            : NULL;
  if (name == NULL) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where,
                     "neither \"architectures\" nor \"model_type\" says what the model is");
  }
  *mistral = strcmp(name, "MistralForCausalLM") == 0 || strcmp(name, "mistral") == 0;
  if (*mistral || strcmp(name, "LlamaForCausalLM") == 0 || strcmp(name, "llama") == 0) {
    return LQT_OK;
  }
  return lqt__fail(r->diag, LQT_UNSUPPORTED, r->where,
                   "the architecture %.80s is not supported; LlamaForCausalLM and "
                   "MistralForCausalLM are",
                   name);
}

/* Variants that would load but compute something else. */
static lqt_status check_variant(const reader *r) {
  const json_t *act = json_object_get(r->root, "hidden_act");
  if (!absent(act) && (!json_is_string(act) || (strcmp(json_string_value(act), "silu") != 0 &&
                                                strcmp(json_string_value(act), "swish") != 0))) {
    return lqt__fail(r->diag, LQT_UNSUPPORTED, r->where,
                     "the activation \"%.40s\" is not supported; silu is",
                     json_is_string(act) ? json_string_value(act) : "?");
  }
  bool mlp_bias;
  LQT__TRY(read_flag(r, "mlp_bias", false, &mlp_bias));
  if (mlp_bias) {
    return lqt__fail(r->diag, LQT_UNSUPPORTED, r->where,
                     "biases in the feed-forward block (\"mlp_bias\") are not supported");
  }
  if (!absent(json_object_get(r->root, "quantization_config"))) {
    return lqt__fail(r->diag, LQT_UNSUPPORTED, r->where,
                     "the source is quantized already (\"quantization_config\"); give the model it "
                     "was made from");
  }
  return LQT_OK;
}

/* Source: Peng et al., "YaRN" (2023), section 3.4; the mscale pair is DeepSeek's generalization. */
static lqt_status read_yarn(const reader *r, const json_t *object, lqt__rope *rope) {
  LQT__TRY(read_number(r, object, "beta_fast", 1e-3, 1e6, 32, &rope->beta_fast));
  LQT__TRY(read_number(r, object, "beta_slow", 1e-3, 1e6, 1, &rope->beta_slow));
  double scale = 0.1 * log(rope->factor) + 1, mscale, mscale_all;
  LQT__TRY(read_number(r, object, "mscale", 0, 1e3, 0, &mscale));
  LQT__TRY(read_number(r, object, "mscale_all_dim", 0, 1e3, 0, &mscale_all));
  if (mscale > 0 && mscale_all > 0) {
    scale = (0.1 * mscale * log(rope->factor) + 1) / (0.1 * mscale_all * log(rope->factor) + 1);
  }
  const json_t *truncate = json_object_get(object, "truncate");
  rope->truncate = absent(truncate) || json_is_true(truncate);
  return read_number(r, object, "attention_factor", 1e-3, 1e3, scale, &rope->attention_factor);
}

static lqt_status read_rope_type(const reader *r, const json_t *object, lqt__llama *llama) {
  lqt__rope *rope = &llama->rope;
  const json_t *value = json_object_get(object, "rope_type");
  if (absent(value)) value = json_object_get(object, "type");
  const char *type = json_is_string(value) ? json_string_value(value) : "default";
  if (strcmp(type, "default") == 0) {
    rope->type = LQT__ROPE_DEFAULT;
    return LQT_OK;
  }
  LQT__TRY(read_number(r, object, "factor", 1, 1e6, 1, &rope->factor));
  if (strcmp(type, "linear") == 0) {
    rope->type = LQT__ROPE_LINEAR;
  } else if (strcmp(type, "llama3") == 0) {
    rope->type = LQT__ROPE_LLAMA3;
    LQT__TRY(read_number(r, object, "low_freq_factor", 1e-3, 1e6, 1, &rope->low_freq_factor));
    LQT__TRY(read_number(r, object, "high_freq_factor", 1e-3, 1e6, 4, &rope->high_freq_factor));
    if (rope->high_freq_factor <= rope->low_freq_factor) {
      return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where,
                       "\"high_freq_factor\" is not above \"low_freq_factor\"");
    }
  } else if (strcmp(type, "yarn") == 0) {
    rope->type = LQT__ROPE_YARN;
    LQT__TRY(read_yarn(r, object, rope));
  } else if (strcmp(type, "dynamic") == 0) {
    /* Its frequencies are the plain ones up to the trained context, and change with every longer
     * length, which keys in a cache cannot follow: exact up to there, and refused beyond. */
    rope->type = LQT__ROPE_DEFAULT;
    rope->factor = 1;
    if (rope->original_context < llama->context) {
      llama->context = (uint32_t)rope->original_context;
    }
  } else {
    return lqt__fail(r->diag, LQT_UNSUPPORTED, r->where,
                     "the rotary scaling \"%.40s\" is not supported; default, linear, dynamic, "
                     "llama3 and yarn are",
                     type);
  }
  return LQT_OK;
}

/* "rope_parameters" holds everything since transformers 5; before, "rope_theta" stood in the root
 * and "rope_scaling" beside it. */
static lqt_status read_rope(const reader *r, lqt__llama *llama) {
  const json_t *object = json_object_get(r->root, "rope_parameters");
  if (absent(object)) object = json_object_get(r->root, "rope_scaling");
  if (!absent(object) && !json_is_object(object)) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where, "the rotary parameters are no object");
  }
  lqt__rope *rope = &llama->rope;
  rope->factor = 1;
  double theta, share;
  LQT__TRY(read_number(r, r->root, "rope_theta", 1, 1e12, 10000, &theta));
  LQT__TRY(read_number(r, object, "rope_theta", 1, 1e12, theta, &rope->theta));
  LQT__TRY(read_number(r, r->root, "partial_rotary_factor", 0, 1, 1, &share));
  LQT__TRY(read_number(r, object, "partial_rotary_factor", 0, 1, share, &share));
  rope->rotary_dim = (uint32_t)((double)llama->head_dim * share);
  if (rope->rotary_dim < 2 || rope->rotary_dim % 2 != 0) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where,
                     "%u rotary dimensions of a head: an even number from 2 is needed",
                     rope->rotary_dim);
  }
  if (absent(object)) return LQT_OK;
  LQT__TRY(read_number(r, object, "original_max_position_embeddings", 1, 1e9, llama->context,
                       &rope->original_context));
  return read_rope_type(r, object, llama);
}

static lqt_status read_sizes(const reader *r, lqt__llama *llama) {
  LQT__TRY(read_size(r, "hidden_size", 1u << 20, 0, &llama->hidden));
  LQT__TRY(read_size(r, "num_hidden_layers", 4096, 0, &llama->layers));
  LQT__TRY(read_size(r, "num_attention_heads", 1u << 14, 0, &llama->heads));
  LQT__TRY(read_size(r, "num_key_value_heads", 1u << 14, llama->heads, &llama->kv_heads));
  LQT__TRY(read_size(r, "intermediate_size", 1u << 22, 0, &llama->ffn));
  LQT__TRY(read_size(r, "vocab_size", 1u << 24, 0, &llama->vocab));
  LQT__TRY(read_size(r, "max_position_embeddings", 1u << 28, 2048, &llama->context));
  uint32_t head_dim = llama->hidden / llama->heads;
  LQT__TRY(read_size(r, "head_dim", 1u << 14, head_dim > 0 ? head_dim : 1, &llama->head_dim));
  if (absent(json_object_get(r->root, "head_dim")) && llama->hidden % llama->heads != 0) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where,
                     "%u heads do not divide the hidden size %u and \"head_dim\" is missing",
                     llama->heads, llama->hidden);
  }
  if (llama->heads % llama->kv_heads != 0) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where, "%u key-value heads do not divide %u heads",
                     llama->kv_heads, llama->heads);
  }
  return LQT_OK;
}

static lqt_status read_config(const reader *r, lqt__llama *llama) {
  if (!json_is_object(r->root)) {
    return lqt__fail(r->diag, LQT_BAD_SOURCE, r->where, "the file is not a JSON object");
  }
  bool mistral;
  LQT__TRY(check_architecture(r, &mistral));
  LQT__TRY(check_variant(r));
  LQT__TRY(read_sizes(r, llama));
  LQT__TRY(read_number(r, r->root, "rms_norm_eps", 0, 1, 1e-6, &llama->norm_eps));
  LQT__TRY(read_flag(r, "tie_word_embeddings", false, &llama->tied));
  LQT__TRY(read_flag(r, "attention_bias", false, &llama->attention_bias));
  if (mistral && !absent(json_object_get(r->root, "sliding_window"))) {
    LQT__TRY(read_size(r, "sliding_window", 1u << 28, 0, &llama->window));
  }
  LQT__TRY(read_token(r, "bos_token_id", llama->vocab, &llama->bos));
  LQT__TRY(read_token(r, "eos_token_id", llama->vocab, &llama->eos));
  return read_rope(r, llama);
}

lqt_status lqt__llama_config(const char *json, size_t bytes, const char *where, lqt__llama *out,
                             lqt_diag *diag) {
  *out = (lqt__llama){0};
  json_t *root;
  LQT__TRY(lqt__json_parse(json, bytes, where, &root, diag));
  reader r = {.root = root, .where = where, .diag = diag};
  lqt_status status = read_config(&r, out);
  json_decref(root);
  if (status != LQT_OK) *out = (lqt__llama){0};
  return status;
}
