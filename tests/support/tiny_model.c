#include "tiny_model.h"

#include <ftw.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/half.h"
#include "base/random.h"
#include "format/format.h"

static void fatal(const char *what) {
  fprintf(stderr, "tiny model: %s\n", what);
  exit(2);
}

tiny_spec tiny_default(void) {
  return (tiny_spec){.layers = 2,
                     .hidden = 32,
                     .heads = 4,
                     .kv_heads = 2,
                     .head_dim = 8,
                     .ffn = 48,
                     .vocab = 67,
                     .context = 96,
                     .tied = true,
                     .seed = 1};
}

/* ---- Making ---- */

static void dequantize(const tiny_model *m, tiny_tensor *t) {
  for (size_t i = 0; i < (size_t)t->rows * t->cols; i++) {
    t->w[i] = t->scales[i] * m->codebooks[t->codebook][t->indices[i]];
  }
}

static tiny_tensor *add_tensor(tiny_model *m, lqt__random *random, uint32_t rows, uint32_t cols,
                               bool vector, const char *format, ...) {
  tiny_tensor *t = &m->tensors[m->tensor_count++];
  va_list args;
  va_start(args, format);
  vsnprintf(t->name, sizeof t->name, format, args);
  va_end(args);
  t->rows = rows;
  t->cols = cols;
  t->vector = vector;
  t->codebook = -1;
  t->w = malloc((size_t)rows * cols * sizeof *t->w);
  for (size_t i = 0; i < (size_t)rows * cols; i++) {
    double normal = lqt__random_normal(random);
    t->w[i] = (float)(vector ? 1.0 + 0.2 * normal : 1.5 * normal / sqrt(cols));
  }
  return t;
}

static double half(double value) { return lqt__f32_from_f16(lqt__f16_from_f32((float)value)); }

static int new_codebook(tiny_model *m, lqt__random *random) {
  for (size_t i = 0; i < TINY_CODEBOOK_ENTRIES; i++) {
    m->codebooks[m->codebook_count][i] =
        half(((double)i - 7.5) / 5 + 0.1 * lqt__random_unit(random));
  }
  return (int)m->codebook_count++;
}

static void quantize(tiny_model *m, lqt__random *random, tiny_tensor *t, int codebook) {
  size_t count = (size_t)t->rows * t->cols;
  t->codebook = codebook;
  t->indices = malloc(count);
  t->scales = malloc(count * sizeof *t->scales);
  double scale = 0;
  for (size_t i = 0; i < count; i++) {
    if (i % t->cols % 16 == 0) scale = half((0.7 + 0.6 * lqt__random_unit(random)) / sqrt(t->cols));
    t->scales[i] = scale;
    t->indices[i] = (uint8_t)lqt__random_below(random, TINY_CODEBOOK_ENTRIES);
  }
  dequantize(m, t);
}

static void add_layer(tiny_model *m, lqt__random *random, uint32_t layer) {
  const tiny_spec *s = &m->spec;
  uint32_t wide = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
  struct {
    const char *name;
    uint32_t rows, cols;
    bool llama_only;
  } matrices[] = {{"q", wide, s->hidden, false},     {"k", kv, s->hidden, false},
                  {"v", kv, s->hidden, false},       {"o", s->hidden, wide, false},
                  {"gate", s->ffn, s->hidden, true}, {"up", s->ffn, s->hidden, false},
                  {"down", s->hidden, s->ffn, false}};
  for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
    if (matrices[i].llama_only && s->gpt2) continue;
    tiny_tensor *t = add_tensor(m, random, matrices[i].rows, matrices[i].cols, false, "l%u.%s",
                                layer, matrices[i].name);
    if (s->quantized) {
      bool shared = i == 0 && layer > 0;
      quantize(m, random, t, shared ? TINY_SHARED : new_codebook(m, random));
    }
    if (s->gpt2) {
      tiny_tensor *bias =
          add_tensor(m, random, 1, matrices[i].rows, true, "l%u.%s_bias", layer, matrices[i].name);
      for (uint32_t c = 0; c < bias->cols; c++) bias->w[c] = (float)(bias->w[c] - 1.0);
    }
  }
  for (int norm = 0; norm < 2; norm++) {
    add_tensor(m, random, 1, s->hidden, true, "l%u.norm%d", layer, norm);
    if (s->gpt2) add_tensor(m, random, 1, s->hidden, true, "l%u.norm%d_bias", layer, norm);
  }
}

/* ---- The module graph ---- */

static void put(char *out, size_t size, const char *format, ...) {
  size_t used = strlen(out);
  va_list args;
  va_start(args, format);
  int wrote = vsnprintf(out + used, size - used, format, args);
  va_end(args);
  if (wrote < 0 || (size_t)wrote >= size - used) fatal("the graph is too long");
}
#define MODULE(...) put(modules, sizeof_modules, __VA_ARGS__)
#define CONNECT(from, to, port)                                              \
  put(connections, sizeof_modules, "%s{\"from\":\"%s:0\",\"to\":\"%s:%d\"}", \
      connections[0] != '\0' ? "," : "", from, to, port)

static void norm_module(const tiny_spec *s, char *modules, size_t sizeof_modules, const char *id,
                        const char *tensor) {
  char bias[128] = "";
  if (s->gpt2) snprintf(bias, sizeof bias, ",\"bias\":\"%s_bias\"", tensor);
  MODULE(
      ",{\"id\":\"%s\",\"type\":\"%s\",\"inputs\":[\"x\"],\"outputs\":[\"y\"],\"tensors\":"
      "{\"weight\":\"%s\"%s},\"hyperparameters\":{\"eps\":1e-5}}",
      id, s->gpt2 ? "layer_norm" : "rms_norm", tensor, bias);
}

static void attention_module(const tiny_spec *s, char *modules, size_t sizeof_modules,
                             uint32_t layer) {
  MODULE(
      ",{\"id\":\"attn%u\",\"type\":\"attention\",\"inputs\":[\"x\"],\"outputs\":[\"y\"],"
      "\"tensors\":{",
      layer);
  for (const char *role = "qkvo"; *role != '\0'; role++) {
    MODULE("%s\"%c\":\"l%u.%c\"", *role == 'q' ? "" : ",", *role, layer, *role);
    if (s->gpt2) MODULE(",\"%c_bias\":\"l%u.%c_bias\"", *role, layer, *role);
  }
  MODULE("},\"hyperparameters\":{\"heads\":%u,\"kv_heads\":%u,\"head_dim\":%u", s->heads,
         s->kv_heads, s->head_dim);
  if (s->window != 0) MODULE(",\"window\":%u", s->window);
  if (!s->gpt2) {
    MODULE(",\"rope\":{\"rotary_dim\":%u,\"interleaved\":%s,%s}",
           s->rotary_dim != 0 ? s->rotary_dim : s->head_dim, s->interleaved ? "true" : "false",
           s->rope != NULL ? s->rope : "\"type\":\"default\",\"theta\":10000.0");
  }
  MODULE("}}");
}

static void mlp_module(const tiny_spec *s, char *modules, size_t sizeof_modules, uint32_t layer) {
  MODULE(",{\"id\":\"mlp%u\",\"type\":\"%s\",\"inputs\":[\"x\"],\"outputs\":[\"y\"],\"tensors\":{",
         layer, s->gpt2 ? "mlp" : "gated_mlp");
  if (!s->gpt2) MODULE("\"gate\":\"l%u.gate\",", layer);
  MODULE("\"up\":\"l%u.up\",\"down\":\"l%u.down\"", layer, layer);
  if (s->gpt2) MODULE(",\"up_bias\":\"l%u.up_bias\",\"down_bias\":\"l%u.down_bias\"", layer, layer);
  MODULE("},\"hyperparameters\":{\"activation\":\"%s\"}}", s->gpt2 ? "gelu" : "silu");
}

static char *make_graph(const tiny_spec *s) {
  const size_t sizeof_modules = 32768;
  char *modules = calloc(1, sizeof_modules), *connections = calloc(1, sizeof_modules);
  char last[32] = "embed", id[3][32];
  MODULE(
      "{\"id\":\"embed\",\"type\":\"embedding\",\"inputs\":[\"ids\"],\"outputs\":[\"y\"],"
      "\"tensors\":{\"weight\":\"embed\"}}");
  if (s->gpt2) {
    MODULE(
        ",{\"id\":\"places\",\"type\":\"embedding\",\"inputs\":[\"ids\"],\"outputs\":[\"y\"],"
        "\"tensors\":{\"weight\":\"places\"}},{\"id\":\"embed_add\",\"type\":\"add\","
        "\"inputs\":[\"a\",\"b\"],\"outputs\":[\"y\"]}");
    CONNECT("embed", "embed_add", 0);
    CONNECT("places", "embed_add", 1);
    strcpy(last, "embed_add");
  }
  for (uint32_t l = 0; l < s->layers; l++) {
    for (int half_layer = 0; half_layer < 2; half_layer++) {
      char tensor[32];
      const char *main_id = half_layer == 0 ? "attn" : "mlp";
      snprintf(id[0], 32, "norm%u_%d", l, half_layer);
      snprintf(id[1], 32, "%s%u", main_id, l);
      snprintf(id[2], 32, "%s_add%u", main_id, l);
      snprintf(tensor, sizeof tensor, "l%u.norm%d", l, half_layer);
      norm_module(s, modules, sizeof_modules, id[0], tensor);
      if (half_layer == 0) {
        attention_module(s, modules, sizeof_modules, l);
      } else {
        mlp_module(s, modules, sizeof_modules, l);
      }
      MODULE(",{\"id\":\"%s\",\"type\":\"add\",\"inputs\":[\"a\",\"b\"],\"outputs\":[\"y\"]}",
             id[2]);
      CONNECT(last, id[0], 0);
      CONNECT(id[0], id[1], 0);
      CONNECT(last, id[2], 0);
      CONNECT(id[1], id[2], 1);
      strcpy(last, id[2]);
    }
  }
  norm_module(s, modules, sizeof_modules, "norm", "norm");
  MODULE(
      ",{\"id\":\"head\",\"type\":\"linear\",\"inputs\":[\"x\"],\"outputs\":[\"y\"],\"tensors\":"
      "{\"weight\":\"%s\"}}",
      s->tied ? "embed" : "head");
  CONNECT(last, "norm", 0);
  CONNECT("norm", "head", 0);
  char *graph = calloc(1, 2 * sizeof_modules);
  put(graph, 2 * sizeof_modules,
      "{\"version\":1,\"modules\":[%s],\"connections\":[%s],\"inputs\":[{\"name\":\"input_ids\","
      "\"to\":\"embed:0\"}%s],\"outputs\":[{\"name\":\"logits\",\"from\":\"head:0\"}]}",
      modules, connections, s->gpt2 ? ",{\"name\":\"position_ids\",\"to\":\"places:0\"}" : "");
  free(modules);
  free(connections);
  return graph;
}

/* ---- Writing ---- */

static void describe_plain(const tiny_tensor *t, lqt__tensor *out) {
  size_t count = (size_t)t->rows * t->cols;
  float *data = malloc(count * sizeof *data);
  for (size_t i = 0; i < count; i++) data[i] = (float)t->w[i];
  out->dtype = LQT_DTYPE_F32;
  out->codebook_id = LQT_ID_NONE;
  out->payload = (lqt__blob){.data = (const uint8_t *)data, .bytes = count * sizeof *data};
}

static void describe_quantized(const tiny_tensor *t, lqt__tensor *out) {
  uint64_t stride = lqt__index_row_bytes(t->cols, 1, 4), groups = t->cols / 16;
  uint8_t *packed = calloc(t->rows, stride);
  uint16_t *scales = calloc(t->rows * groups, sizeof *scales);
  for (uint32_t r = 0; r < t->rows; r++) {
    for (uint32_t c = 0; c < t->cols; c++) {
      size_t i = (size_t)r * t->cols + c;
      packed[r * stride + c / 2] |= (uint8_t)(t->indices[i] << (c % 2 * 4));
      scales[r * groups + c / 16] = lqt__f16_from_f32((float)t->scales[i]);
    }
  }
  out->dtype = LQT_DTYPE_CODEBOOK;
  out->codebook_id = (uint16_t)t->codebook;
  out->index_bits = 4;
  out->group_scale_type = LQT_DTYPE_F16;
  out->group_size = 16;
  out->bank_count = 1;
  out->bank_rows = t->rows;
  out->bank_cols = t->cols;
  out->payload = (lqt__blob){.data = packed, .bytes = t->rows * stride};
  out->group_scales =
      (lqt__blob){.data = (const uint8_t *)scales, .bytes = t->rows * groups * sizeof *scales};
}

static void describe_codebook(const tiny_model *m, size_t index, lqt__codebook *out) {
  *out = (lqt__codebook){.id = (uint16_t)index,
                         .dtype = LQT_DTYPE_F16,
                         .flags = index == TINY_IMMUTABLE ? 0 : LQT__CODEBOOK_MUTABLE,
                         .vector_dim = 1,
                         .vectors = TINY_CODEBOOK_ENTRIES,
                         .capacity = TINY_CODEBOOK_ENTRIES,
                         .banks = 1};
  if (index == TINY_SHARED) out->flags |= LQT__CODEBOOK_SHARED;
  uint8_t *blob = calloc(1, 64 + 2 * TINY_CODEBOOK_ENTRIES);
  out->header_bytes = (uint32_t)lqt__codebook_header(out, blob);
  for (size_t i = 0; i < TINY_CODEBOOK_ENTRIES; i++) {
    uint16_t bits = lqt__f16_from_f32((float)m->codebooks[index][i]);
    memcpy(blob + out->header_bytes + 2 * i, &bits, sizeof bits);
  }
  out->blob = (lqt__blob){.data = blob, .bytes = out->header_bytes + 2 * TINY_CODEBOOK_ENTRIES};
}

static void write_file(const tiny_model *m, const char *path) {
  lqt__tensor tensors[64] = {0};
  lqt__codebook codebooks[64] = {0};
  for (size_t i = 0; i < m->tensor_count; i++) {
    const tiny_tensor *t = &m->tensors[i];
    lqt__tensor *out = &tensors[i];
    *out = (lqt__tensor){.name = (char *)t->name,
                         .ndim = t->vector ? 1 : 2,
                         .delta_id = LQT_ID_NONE,
                         .mask_id = LQT_ID_NONE,
                         .residual_codebook_id = LQT_ID_NONE,
                         .outlier_delta_id = LQT_ID_NONE,
                         .scale = 1.0f,
                         .flags = t->codebook == TINY_PROTECTED ? LQT__TENSOR_PROTECTED : 0};
    out->shape[0] = t->vector ? t->cols : t->rows;
    out->shape[1] = t->vector ? 0 : t->cols;
    if (t->codebook >= 0) {
      describe_quantized(t, out);
    } else {
      describe_plain(t, out);
    }
  }
  for (size_t i = 0; i < m->codebook_count; i++) describe_codebook(m, i, &codebooks[i]);
  char *graph = make_graph(&m->spec);
  static uint8_t extension[] = "kept as it is";
  lqt__chunk chunks[] = {{LQT__CHUNK_MODULES, (const uint8_t *)graph, (uint32_t)strlen(graph)},
                         {0x7abc, extension, sizeof extension}};
  lqt__hyperparameter context = {.key = (char *)"context", .value = (float)m->spec.context};
  lqt__file file = {.version = 0x1000,
                    .timestamp_ns = 1,
                    .hyperparameters = &context,
                    .hyperparameter_count = 1,
                    .tensors = tensors,
                    .tensor_count = m->tensor_count,
                    .codebooks = codebooks,
                    .codebook_count = m->codebook_count,
                    .chunks = chunks,
                    .chunk_count = 2};
  lqt__writer *writer;
  lqt_diag diag = {0};
  if (lqt__writer_begin(path, &file, &writer, &diag) != LQT_OK ||
      lqt__writer_finish(writer, NULL, &diag) != LQT_OK) {
    fatal(diag.what);
  }
  free(graph);
  for (size_t i = 0; i < m->tensor_count; i++) {
    free((void *)tensors[i].payload.data);
    free((void *)tensors[i].group_scales.data);
  }
  for (size_t i = 0; i < m->codebook_count; i++) free((void *)codebooks[i].blob.data);
}

void tiny_create(const tiny_spec *spec, const char *path, tiny_model *m) {
  memset(m, 0, sizeof *m);
  m->spec = *spec;
  lqt__random random = lqt__random_seed(spec->seed);
  add_tensor(m, &random, spec->vocab, spec->hidden, false, "embed");
  if (spec->gpt2) add_tensor(m, &random, spec->context, spec->hidden, false, "places");
  for (uint32_t l = 0; l < spec->layers; l++) add_layer(m, &random, l);
  add_tensor(m, &random, 1, spec->hidden, true, "norm");
  if (spec->gpt2) add_tensor(m, &random, 1, spec->hidden, true, "norm_bias");
  if (!spec->tied) add_tensor(m, &random, spec->vocab, spec->hidden, false, "head");
  write_file(m, path);
}

void tiny_free(tiny_model *m) {
  for (size_t i = 0; i < m->tensor_count; i++) {
    free(m->tensors[i].w);
    free(m->tensors[i].indices);
    free(m->tensors[i].scales);
  }
}

void tiny_edit(tiny_model *m, size_t codebook, uint32_t entry, double value) {
  m->codebooks[codebook][entry] = half(value);
  for (size_t i = 0; i < m->tensor_count; i++) {
    if (m->tensors[i].codebook == (int)codebook) dequantize(m, &m->tensors[i]);
  }
}

/* ---- Forward ---- */

static const tiny_tensor *find(const tiny_model *m, const char *format, ...) {
  char name[64];
  va_list args;
  va_start(args, format);
  vsnprintf(name, sizeof name, format, args);
  va_end(args);
  for (size_t i = 0; i < m->tensor_count; i++) {
    if (strcmp(m->tensors[i].name, name) == 0) return &m->tensors[i];
  }
  return NULL;
}

static void multiply(const tiny_tensor *t, const tiny_tensor *bias, const double *x, size_t rows,
                     double *y) {
  for (size_t r = 0; r < rows; r++) {
    for (size_t n = 0; n < t->rows; n++) {
      double sum = bias != NULL ? bias->w[n] : 0;
      for (size_t k = 0; k < t->cols; k++) sum += x[r * t->cols + k] * t->w[n * t->cols + k];
      y[r * t->rows + n] = sum;
    }
  }
}

static void normalize(const tiny_model *m, const char *name, const double *x, size_t rows,
                      double *y) {
  const tiny_tensor *gain = find(m, "%s", name), *bias = find(m, "%s_bias", name);
  size_t n = m->spec.hidden;
  for (size_t r = 0; r < rows; r++, x += n, y += n) {
    double mean = 0, square = 0;
    for (size_t i = 0; i < n && m->spec.gpt2; i++) mean += x[i] / n;
    for (size_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean) / n;
    for (size_t i = 0; i < n; i++) {
      y[i] = (x[i] - mean) / sqrt(square + 1e-5) * gain->w[i] + (bias != NULL ? bias->w[i] : 0);
    }
  }
}

static void rotate(const tiny_spec *s, double *x, size_t position, uint32_t heads) {
  uint32_t dim = s->rotary_dim != 0 ? s->rotary_dim : s->head_dim;
  double scale = s->rope_scale != 0 ? s->rope_scale : 1;
  for (uint32_t h = 0; h < heads; h++, x += s->head_dim) {
    for (uint32_t i = 0; i < dim / 2; i++) {
      double f = s->frequency != NULL ? s->frequency(i, dim) : pow(10000, -2.0 * i / dim);
      uint32_t a = s->interleaved ? 2 * i : i, b = s->interleaved ? 2 * i + 1 : i + dim / 2;
      double c = cos(position * f) * scale, d = sin(position * f) * scale, p = x[a], q = x[b];
      x[a] = p * c - q * d;
      x[b] = q * c + p * d;
    }
  }
}

static void attend(const tiny_spec *s, const double *q, const double *k, const double *v,
                   size_t count, double *out) {
  size_t d = s->head_dim, wide = s->heads * d, kv = s->kv_heads * d;
  double *p = malloc(count * sizeof *p);
  for (size_t t = 0; t < count; t++) {
    size_t from = s->window != 0 && t + 1 > s->window ? t + 1 - s->window : 0;
    for (size_t h = 0; h < s->heads; h++) {
      size_t g = h / (s->heads / s->kv_heads) * d;
      double most = -INFINITY, sum = 0;
      for (size_t u = from; u <= t; u++) {
        p[u] = 0;
        for (size_t i = 0; i < d; i++) p[u] += q[t * wide + h * d + i] * k[u * kv + g + i];
        p[u] /= sqrt((double)d);
        most = fmax(most, p[u]);
      }
      for (size_t u = from; u <= t; u++) sum += p[u] = exp(p[u] - most);
      for (size_t i = 0; i < d; i++) {
        double value = 0;
        for (size_t u = from; u <= t; u++) value += p[u] / sum * v[u * kv + g + i];
        out[t * wide + h * d + i] = value;
      }
    }
  }
  free(p);
}

static void run_layer(const tiny_model *m, uint32_t l, size_t count, double *x) {
  const tiny_spec *s = &m->spec;
  size_t wide = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
  size_t most = s->hidden + wide + kv + s->ffn;
  char name[32];
  double *block = malloc(6 * count * most * sizeof *block);
  double *n = block, *q = n + count * most, *k = q + count * most, *v = k + count * most;
  double *mixed = v + count * most, *y = mixed + count * most;
  snprintf(name, sizeof name, "l%u.norm0", l);
  normalize(m, name, x, count, n);
  multiply(find(m, "l%u.q", l), find(m, "l%u.q_bias", l), n, count, q);
  multiply(find(m, "l%u.k", l), find(m, "l%u.k_bias", l), n, count, k);
  multiply(find(m, "l%u.v", l), find(m, "l%u.v_bias", l), n, count, v);
  for (size_t t = 0; t < count && !s->gpt2; t++) {
    rotate(s, q + t * wide, t, s->heads);
    rotate(s, k + t * kv, t, s->kv_heads);
  }
  attend(s, q, k, v, count, mixed);
  multiply(find(m, "l%u.o", l), find(m, "l%u.o_bias", l), mixed, count, y);
  for (size_t i = 0; i < count * s->hidden; i++) x[i] += y[i];
  snprintf(name, sizeof name, "l%u.norm1", l);
  normalize(m, name, x, count, n);
  multiply(find(m, "l%u.up", l), find(m, "l%u.up_bias", l), n, count, q);
  if (!s->gpt2) multiply(find(m, "l%u.gate", l), NULL, n, count, k);
  for (size_t i = 0; i < count * s->ffn; i++) {
    q[i] = s->gpt2 ? 0.5 * q[i] * (1 + erf(q[i] / sqrt(2))) : q[i] * k[i] / (1 + exp(-k[i]));
  }
  multiply(find(m, "l%u.down", l), find(m, "l%u.down_bias", l), q, count, y);
  for (size_t i = 0; i < count * s->hidden; i++) x[i] += y[i];
  free(block);
}

void tiny_forward(const tiny_model *m, const int32_t *tokens, size_t count, double *logits) {
  const tiny_spec *s = &m->spec;
  const tiny_tensor *embed = find(m, "embed"), *places = find(m, "places");
  double *x = malloc(2 * count * s->hidden * sizeof *x), *n = x + count * s->hidden;
  for (size_t t = 0; t < count; t++) {
    for (size_t i = 0; i < s->hidden; i++) {
      x[t * s->hidden + i] = embed->w[(size_t)tokens[t] * s->hidden + i] +
                             (places != NULL ? places->w[t * s->hidden + i] : 0);
    }
  }
  for (uint32_t l = 0; l < s->layers; l++) run_layer(m, l, count, x);
  normalize(m, "norm", x, count, n);
  multiply(s->tied ? embed : find(m, "head"), NULL, n, count, logits);
  free(x);
}

/* ---- Temporary files ---- */

static char folder[64];

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk) {
  (void)info, (void)kind, (void)walk;
  return remove(path);
}

static pid_t folder_owner;
static void remove_folder(void) {
  if (getpid() == folder_owner) nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *tiny_path(const char *name) {
  static char path[256];
  if (folder[0] == '\0') {
    strcpy(folder, "/tmp/lqt-tiny-XXXXXX");
    if (mkdtemp(folder) == NULL) fatal("no temporary folder");
    folder_owner = getpid();
    atexit(remove_folder);
  }
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}
