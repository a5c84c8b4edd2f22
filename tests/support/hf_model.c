#include "support/hf_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/half.h"
#include "base/random.h"

enum { MAX_TENSORS = 64, MAX_HEADER = 1 << 16 };

typedef struct hf_tensor {
  char name[96];
  uint32_t ndim, rows, cols;
  double *values;
} hf_tensor;

static hf_tensor tensors[MAX_TENSORS];
static size_t tensor_count;
static char root[64], folder[128], scratch[256];

static void die(const char *what) {
  perror(what);
  exit(2);
}

static void remove_root(void) {
  char command[160];
  snprintf(command, sizeof command, "rm -rf '%s'", root);
  if (system(command) != 0) perror(root);
}

const char *hf_path(const char *name) {
  if (root[0] == 0) {
    snprintf(root, sizeof root, "/tmp/lqt-hf-XXXXXX");
    if (mkdtemp(root) == NULL) die("mkdtemp");
    atexit(remove_root);
  }
  snprintf(scratch, sizeof scratch, "%s/%s", root, name);
  return scratch;
}

void hf_put(const char *name, const void *data, size_t bytes) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  if (file == NULL || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) die(path);
}

char *hf_read(const char *path, size_t *out_bytes) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) die(path);
  fseek(file, 0, SEEK_END);
  long bytes = ftell(file);
  rewind(file);
  char *data = malloc((size_t)bytes + 1);
  if (data == NULL || fread(data, 1, (size_t)bytes, file) != (size_t)bytes) die(path);
  fclose(file);
  *out_bytes = (size_t)bytes;
  return data;
}

hf_spec hf_default(void) {
  return (hf_spec){.hidden = 64,
                   .layers = 2,
                   .heads = 4,
                   .kv_heads = 2,
                   .ffn = 96,
                   .vocab = 48,
                   .tied = true,
                   .files = 1,
                   .dtype = "BF16"};
}

static size_t element_size(const char *dtype) { return strcmp(dtype, "F32") == 0 ? 4 : 2; }

static void put_element(const char *dtype, double value, uint8_t *out) {
  uint32_t bits = lqt__f32_bits((float)value);
  if (strcmp(dtype, "F16") == 0) bits = lqt__f16_from_f32((float)value);
  if (strcmp(dtype, "BF16") == 0) bits = lqt__bf16_from_f32((float)value);
  for (size_t i = 0; i < element_size(dtype); i++) out[i] = (uint8_t)(bits >> (8 * i));
}

static double stored(const char *dtype, double value) {
  if (strcmp(dtype, "F16") == 0) return lqt__f32_from_f16(lqt__f16_from_f32((float)value));
  if (strcmp(dtype, "BF16") == 0) return lqt__f32_from_bf16(lqt__bf16_from_f32((float)value));
  return (float)value;
}

static void add(const hf_spec *spec, const char *name, uint32_t ndim, uint32_t rows,
                uint32_t cols) {
  if (spec->missing != NULL && strcmp(spec->missing, name) == 0) return;
  if (spec->misshapen != NULL && strcmp(spec->misshapen, name) == 0) rows++;
  if (tensor_count == MAX_TENSORS) die("too many tensors");
  hf_tensor *t = &tensors[tensor_count];
  *t = (hf_tensor){.ndim = ndim, .rows = rows, .cols = cols};
  snprintf(t->name, sizeof t->name, "%s", name);
  t->values = malloc((size_t)rows * cols * sizeof(double));
  if (t->values == NULL) die("malloc");
  lqt__random random = lqt__random_seed(tensor_count + 1);
  for (size_t i = 0; i < (size_t)rows * cols; i++) {
    double value = lqt__random_normal(&random) / sqrt(cols);
    /* A few weights far out, so that outliers mean something. */
    if (ndim == 2 && i % 211 == 7) value *= 6;
    t->values[i] = stored(spec->dtype, ndim == 1 ? 1 + 0.1 * value : value);
  }
  if (spec->poisoned != NULL && strcmp(spec->poisoned, name) == 0) t->values[rows * cols / 2] = NAN;
  tensor_count++;
}

static void add_all(const hf_spec *s) {
  char name[96];
  uint32_t dim = s->hidden / s->heads, kv = s->kv_heads * dim;
  const struct {
    const char *name;
    uint32_t ndim, rows, cols;
  } rows[] = {
      {"input_layernorm.weight", 1, 1, s->hidden},
      {"self_attn.q_proj.weight", 2, s->hidden, s->hidden},
      {"self_attn.k_proj.weight", 2, kv, s->hidden},
      {"self_attn.v_proj.weight", 2, kv, s->hidden},
      {"self_attn.o_proj.weight", 2, s->hidden, s->hidden},
      {"post_attention_layernorm.weight", 1, 1, s->hidden},
      {"mlp.gate_proj.weight", 2, s->ffn, s->hidden},
      {"mlp.up_proj.weight", 2, s->ffn, s->hidden},
      {"mlp.down_proj.weight", 2, s->hidden, s->ffn},
      {"self_attn.q_proj.bias", 1, 1, s->hidden},
      {"self_attn.k_proj.bias", 1, 1, kv},
      {"self_attn.v_proj.bias", 1, 1, kv},
      {"self_attn.o_proj.bias", 1, 1, s->hidden},
  };
  for (size_t i = 0; i < tensor_count; i++) free(tensors[i].values);
  tensor_count = 0;
  add(s, "model.embed_tokens.weight", 2, s->vocab, s->hidden);
  for (uint32_t l = 0; l < s->layers; l++) {
    for (size_t i = 0; i < (s->bias ? 13u : 9u); i++) {
      snprintf(name, sizeof name, "model.layers.%u.%s", l, rows[i].name);
      add(s, name, rows[i].ndim, rows[i].rows, rows[i].cols);
    }
  }
  add(s, "model.norm.weight", 1, 1, s->hidden);
  if (!s->tied) add(s, "lm_head.weight", 2, s->vocab, s->hidden);
  if (s->surplus != NULL) add(s, s->surplus, 1, 1, 4);
}

/* One safetensors file with the tensors begin..end. */
static void put_file(const hf_spec *s, const char *name, size_t begin, size_t end) {
  size_t size = element_size(s->dtype), bytes = 0, at = 0;
  for (size_t i = begin; i < end; i++) bytes += (size_t)tensors[i].rows * tensors[i].cols * size;
  char *header = malloc(MAX_HEADER);
  uint8_t *data = malloc(8 + MAX_HEADER + bytes);
  if (header == NULL || data == NULL) die("malloc");
  size_t n = (size_t)snprintf(header, MAX_HEADER, "{\"__metadata__\":{\"format\":\"pt\"}");
  for (size_t i = begin; i < end; i++) {
    const hf_tensor *t = &tensors[i];
    size_t length = (size_t)t->rows * t->cols * size;
    bool retyped = s->retyped != NULL && strcmp(s->retyped, t->name) == 0;
    char shape[48];
    if (retyped) {
      snprintf(shape, sizeof shape, "%zu", length / 8);
    } else if (t->ndim == 2) {
      snprintf(shape, sizeof shape, "%u,%u", t->rows, t->cols);
    } else {
      snprintf(shape, sizeof shape, "%u", t->rows * t->cols);
    }
    n += (size_t)snprintf(header + n, MAX_HEADER - n,
                          ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                          t->name, retyped ? "I64" : s->dtype, shape, at, at + length);
    at += length;
  }
  n += (size_t)snprintf(header + n, MAX_HEADER - n, "}");
  for (size_t i = 0; i < 8; i++) data[i] = (uint8_t)(n >> (8 * i));
  memcpy(data + 8, header, n);
  at = 8 + n;
  for (size_t i = begin; i < end; i++) {
    for (size_t k = 0; k < (size_t)tensors[i].rows * tensors[i].cols; k++, at += size) {
      put_element(s->dtype, tensors[i].values[k], data + at);
    }
  }
  hf_put(name, data, at);
  free(header);
  free(data);
}

static void put_shards(const hf_spec *s) {
  char *index = malloc(MAX_HEADER), name[64];
  if (index == NULL) die("malloc");
  size_t n = (size_t)snprintf(index, MAX_HEADER, "{\"metadata\":{},\"weight_map\":{");
  for (uint32_t f = 0; f < s->files; f++) {
    size_t begin = tensor_count * f / s->files, end = tensor_count * (f + 1) / s->files;
    snprintf(name, sizeof name, "model-%05u-of-%05u.safetensors", f + 1, s->files);
    put_file(s, name, begin, end);
    for (size_t i = begin; i < end; i++) {
      n += (size_t)snprintf(index + n, MAX_HEADER - n, "%s\"%s\":\"%s\"", i > 0 ? "," : "",
                            tensors[i].name, name);
    }
  }
  n += (size_t)snprintf(index + n, MAX_HEADER - n, "}}");
  hf_put("model.safetensors.index.json", index, n);
  free(index);
}

const char *hf_create(const hf_spec *s) {
  static unsigned made;
  char name[32], config[2048];
  snprintf(name, sizeof name, "m%u", made++);
  snprintf(folder, sizeof folder, "%s", hf_path(name));
  if (mkdir(folder, 0700) != 0) die(folder);
  int n = snprintf(config, sizeof config,
                   "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\","
                   "\"hidden_size\":%u,\"num_hidden_layers\":%u,\"num_attention_heads\":%u,"
                   "\"num_key_value_heads\":%u,\"intermediate_size\":%u,\"vocab_size\":%u,"
                   "\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\","
                   "\"tie_word_embeddings\":%s,\"attention_bias\":%s,\"bos_token_id\":0,"
                   "\"eos_token_id\":[1,2]%s}",
                   s->hidden, s->layers, s->heads, s->kv_heads, s->ffn, s->vocab,
                   s->tied ? "true" : "false", s->bias ? "true" : "false",
                   s->config != NULL ? s->config : "");
  hf_put("config.json", config, (size_t)n);
  add_all(s);
  if (s->files > 1) {
    put_shards(s);
  } else {
    put_file(s, "model.safetensors", 0, tensor_count);
  }
  return folder;
}

const double *hf_weights(const char *name, uint64_t *out_count) {
  for (size_t i = 0; i < tensor_count; i++) {
    if (strcmp(tensors[i].name, name) != 0) continue;
    *out_count = (uint64_t)tensors[i].rows * tensors[i].cols;
    return tensors[i].values;
  }
  return NULL;
}
