#include "sample.h"

#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/hash.h"
#include "base/random.h"
#include "format/bytes.h"
#include "format/layout.h"

typedef struct builder {
  sample *s;
  lqt__random random;
  bool failed;
} builder;

static const char graph[] =
    "{\"version\": 1, \"modules\": ["
    "{\"id\": \"embed\", \"type\": \"embedding\", \"inputs\": [\"ids\"], \"outputs\": [\"x\"],"
    " \"tensors\": {\"weight\": \"embed.weight\"}},"
    "{\"id\": \"layers.0.attn_norm\", \"type\": \"rms_norm\", \"inputs\": [\"x\"],"
    " \"outputs\": [\"y\"], \"tensors\": {\"weight\": \"attn_norm.weight\"},"
    " \"hyperparameters\": {\"eps\": 1e-05}},"
    "{\"id\": \"layers.0.attn\", \"type\": \"attention\", \"inputs\": [\"x\"],"
    " \"outputs\": [\"y\"], \"tensors\": {\"q\": \"q.weight\", \"k\": \"k.weight\","
    " \"v\": \"v.weight\", \"o\": \"o.weight\"}, \"hyperparameters\": {\"heads\": 2,"
    " \"kv_heads\": 1, \"head_dim\": 16, \"rope\": {\"type\": \"default\", \"theta\": 10000}},"
    " \"flags\": [\"hot_swappable\"]},"
    "{\"id\": \"layers.0.attn_add\", \"type\": \"add\", \"inputs\": [\"a\", \"b\"],"
    " \"outputs\": [\"y\"]},"
    "{\"id\": \"layers.0.mlp_norm\", \"type\": \"rms_norm\", \"inputs\": [\"x\"],"
    " \"outputs\": [\"y\"], \"tensors\": {\"weight\": \"mlp_norm.weight\"},"
    " \"hyperparameters\": {\"eps\": 1e-05}},"
    "{\"id\": \"layers.0.mlp\", \"type\": \"gated_mlp\", \"inputs\": [\"x\"],"
    " \"outputs\": [\"y\"], \"tensors\": {\"gate\": \"gate.weight\", \"up\": \"up.weight\","
    " \"down\": \"down.weight\"}, \"hyperparameters\": {\"activation\": \"silu\"}},"
    "{\"id\": \"layers.0.mlp_add\", \"type\": \"add\", \"inputs\": [\"a\", \"b\"],"
    " \"outputs\": [\"y\"]},"
    "{\"id\": \"norm\", \"type\": \"rms_norm\", \"inputs\": [\"x\"], \"outputs\": [\"y\"],"
    " \"tensors\": {\"weight\": \"norm.weight\"}, \"hyperparameters\": {\"eps\": 1e-05}},"
    "{\"id\": \"head\", \"type\": \"linear\", \"inputs\": [\"x\"], \"outputs\": [\"y\"],"
    " \"tensors\": {\"weight\": \"embed.weight\"}}],"
    "\"connections\": ["
    "{\"from\": \"embed:0\", \"to\": \"layers.0.attn_norm:0\"},"
    "{\"from\": \"layers.0.attn_norm:0\", \"to\": \"layers.0.attn:0\"},"
    "{\"from\": \"embed:0\", \"to\": \"layers.0.attn_add:0\"},"
    "{\"from\": \"layers.0.attn:0\", \"to\": \"layers.0.attn_add:1\"},"
    "{\"from\": \"layers.0.attn_add:0\", \"to\": \"layers.0.mlp_norm:0\"},"
    "{\"from\": \"layers.0.mlp_norm:0\", \"to\": \"layers.0.mlp:0\"},"
    "{\"from\": \"layers.0.attn_add:0\", \"to\": \"layers.0.mlp_add:0\"},"
    "{\"from\": \"layers.0.mlp:0\", \"to\": \"layers.0.mlp_add:1\"},"
    "{\"from\": \"layers.0.mlp_add:0\", \"to\": \"norm:0\"},"
    "{\"from\": \"norm:0\", \"to\": \"head:0\"}],"
    "\"inputs\": [{\"name\": \"input_ids\", \"to\": \"embed:0\"}],"
    "\"outputs\": [{\"name\": \"logits\", \"from\": \"head:0\"}]}";

static void *take(builder *b, size_t count, size_t size) {
  void *p = lqt__arena_array(&b->s->arena, count, size);
  if (p == NULL) b->failed = true;
  return p;
}

static float small(builder *b) { return lqt__random_normal(&b->random) * 0.1f; }

/* A blob of `count` random values of `dtype` after `head` zero bytes. */
static lqt__blob values(builder *b, size_t head, uint64_t count, uint8_t dtype) {
  size_t size = lqt_dtype_size((lqt_dtype)dtype);
  uint8_t *p = take(b, head + count * size, 1);
  if (p == NULL) return (lqt__blob){0};
  for (uint64_t i = 0; i < count; i++) {
    uint8_t *at = p + head + i * size;
    if (size == 4) {
      lqt__store_f32(at, small(b));
    } else if (dtype == LQT_DTYPE_I8) {
      *at = (uint8_t)lqt__random_u64(&b->random);
    } else {
      float v = small(b);
      lqt__store_u16(at, dtype == LQT_DTYPE_F16 ? lqt__f16_from_f32(v) : lqt__bf16_from_f32(v));
    }
  }
  return (lqt__blob){.data = p, .bytes = head + count * size};
}

static uint16_t add_codebook(builder *b, uint32_t vectors, uint32_t capacity, uint16_t dim,
                             uint8_t flags) {
  lqt__file *file = &b->s->file;
  lqt__codebook *c = &file->codebooks[file->codebook_count++];
  *c = (lqt__codebook){.id = (uint16_t)(10 + file->codebook_count),
                       .dtype = file->codebook_count % 3 == 0 ? LQT_DTYPE_F32 : LQT_DTYPE_F16,
                       .flags = flags,
                       .vector_dim = dim,
                       .vectors = vectors,
                       .capacity = capacity};
  c->blob = values(b, 64, (uint64_t)capacity * dim, c->dtype);
  if (c->blob.data != NULL) (void)lqt__codebook_header(c, (uint8_t *)c->blob.data);
  return c->id;
}

static lqt__blob indices(builder *b, uint64_t rows, uint64_t cols, uint32_t dim, uint32_t bits,
                         uint32_t entries) {
  uint64_t stride = lqt__index_row_bytes(cols, dim, bits);
  uint8_t *p = take(b, rows * stride, 1);
  if (p == NULL) return (lqt__blob){0};
  for (uint64_t r = 0; r < rows; r++) {
    for (uint64_t i = 0; i < lqt__ceil_div(cols, dim); i++) {
      uint32_t index = lqt__random_below(&b->random, entries);
      for (uint32_t k = 0; k < bits; k++) {
        uint64_t bit = i * bits + k;
        p[r * stride + bit / 8] |= (uint8_t)((index >> k & 1) << bit % 8);
      }
    }
  }
  return (lqt__blob){.data = p, .bytes = rows * stride};
}

static lqt__tensor *add_tensor(builder *b, const char *name, uint8_t dtype, uint32_t rows,
                               uint32_t cols) {
  lqt__file *file = &b->s->file;
  lqt__tensor *t = &file->tensors[file->tensor_count++];
  *t = (lqt__tensor){.name = lqt__arena_strndup(&b->s->arena, name, strlen(name)),
                     .dtype = dtype,
                     .ndim = rows == 0 ? 1 : 2,
                     .codebook_id = LQT_ID_NONE,
                     .delta_id = LQT_ID_NONE,
                     .mask_id = LQT_ID_NONE,
                     .residual_codebook_id = LQT_ID_NONE,
                     .outlier_delta_id = LQT_ID_NONE,
                     .scale = 1,
                     .flags = LQT__TENSOR_TRAINABLE | LQT__TENSOR_HOT_SWAPPABLE};
  if (t->name == NULL) b->failed = true;
  t->shape[0] = rows == 0 ? cols : rows;
  t->shape[1] = rows == 0 ? 0 : cols;
  if (dtype != LQT_DTYPE_CODEBOOK) {
    t->payload = values(b, 0, (uint64_t)(rows == 0 ? 1 : rows) * cols, dtype);
  }
  return t;
}

static lqt__tensor *add_quantized(builder *b, const char *name, uint32_t rows, uint32_t cols,
                                  uint8_t bits, uint16_t dim, uint32_t bank_rows,
                                  uint32_t bank_cols, uint32_t entries, uint32_t room) {
  lqt__tensor *t = add_tensor(b, name, LQT_DTYPE_CODEBOOK, rows, cols);
  uint32_t banks = (uint32_t)(lqt__ceil_div(rows, bank_rows) * lqt__ceil_div(cols, bank_cols));
  t->index_bits = bits;
  t->bank_rows = bank_rows;
  t->bank_cols = bank_cols;
  t->bank_count = banks;
  t->scope = bank_cols == cols && bank_rows == rows ? 0
             : bank_rows == 1 && bank_cols == cols  ? 1
                                                    : 2;
  uint8_t flags = LQT__CODEBOOK_MUTABLE | (room > entries ? LQT__CODEBOOK_EXPANDABLE : 0);
  t->codebook_id = add_codebook(b, banks * entries, banks * room, dim, flags);
  t->payload = indices(b, rows, cols, dim, bits, entries);
  t->scale = 0.5f;
  return t;
}

static void add_groups(builder *b, lqt__tensor *t, uint32_t group, bool scales, bool zeros) {
  uint64_t count = t->shape[0] * lqt__ceil_div(t->shape[1], group);
  t->group_size = group;
  if (scales) {
    t->group_scale_type = LQT_DTYPE_F16;
    t->group_scales = values(b, 0, count, LQT_DTYPE_F16);
  }
  if (zeros) t->zero_points = values(b, 0, count, LQT_DTYPE_F16);
}

/* A delta section without its positions. */
static uint8_t *add_delta(builder *b, lqt__tensor *t, uint8_t encoding, uint8_t dtype,
                          uint64_t count, uint32_t parameter, lqt__delta_layout *layout) {
  lqt__file *file = &b->s->file;
  lqt__delta *d = &file->deltas[file->delta_count++];
  *d = (lqt__delta){.id = (uint16_t)(100 + file->delta_count),
                    .dtype = dtype,
                    .encoding = encoding,
                    .flags = LQT__DELTA_MUTABLE};
  if (!lqt__delta_measure(encoding, dtype, t->shape[0], t->shape[1], count, parameter, layout)) {
    b->failed = true;
    return NULL;
  }
  d->count = layout->count;
  uint8_t *p = take(b, layout->bytes, 1);
  if (p == NULL) return NULL;
  d->blob = (lqt__blob){.data = p, .bytes = layout->bytes};
  (void)lqt__delta_header(d, p);
  if (layout->parameter != 0) lqt__store_u32(p + layout->parameter, parameter);
  uint64_t first = layout->values_b != 0 ? (uint64_t)t->shape[0] * parameter : layout->count;
  for (uint64_t i = 0; i < layout->count; i++) {
    uint64_t base = i < first ? layout->values : layout->values_b, k = i < first ? i : i - first;
    if (dtype == LQT_DTYPE_F16) {
      lqt__store_u16(p + base + 2 * k, lqt__f16_from_f32(small(b)));
    } else {
      lqt__store_f32(p + base + 4 * k, small(b));
    }
  }
  t->delta_id = d->id;
  return p;
}

static void add_csr(builder *b, lqt__tensor *t) {
  lqt__delta_layout layout;
  uint32_t rows = t->shape[0];
  uint8_t *p = add_delta(b, t, LQT__DELTA_CSR, LQT_DTYPE_F16, rows, 0, &layout);
  if (p == NULL) return;
  t->outlier_delta_id = t->delta_id;
  for (uint32_t r = 0; r <= rows; r++) lqt__store_u32(p + layout.row_ptr + 4 * r, r);
  for (uint32_t r = 0; r < rows; r++) {
    lqt__store_u16(p + layout.columns + 2 * r, (uint16_t)(r * 7 % t->shape[1]));
  }
}

static void add_coordinates(builder *b, lqt__tensor *t) {
  lqt__delta_layout layout;
  uint8_t *p = add_delta(b, t, LQT__DELTA_COO, LQT_DTYPE_F32, 5, 0, &layout);
  if (p == NULL) return;
  for (uint32_t i = 0; i < 5; i++) {
    lqt__store_u32(p + layout.columns + 8 * i, i * 3);
    lqt__store_u32(p + layout.columns + 8 * i + 4, i * 5);
  }
}

static uint8_t *add_mask(builder *b, lqt__tensor *t, uint8_t encoding, float density,
                         uint64_t data_bytes) {
  lqt__file *file = &b->s->file;
  lqt__mask *m = &file->masks[file->mask_count++];
  *m = (lqt__mask){.id = (uint16_t)(200 + file->mask_count),
                   .encoding = encoding,
                   .density = density,
                   .count = (uint64_t)t->shape[0] * t->shape[1]};
  uint8_t *p = take(b, 64 + data_bytes, 1);
  if (p == NULL) return NULL;
  m->blob = (lqt__blob){.data = p, .bytes = 64 + data_bytes};
  (void)lqt__mask_header(m, p);
  t->mask_id = m->id;
  return p + 64;
}

/* Every second column of k; rows 4.. of v; the diagonal and column 0 of o; half the blocks of gate;
 * 2 of 4 of up. */
static void add_masks(builder *b, lqt__tensor *k, lqt__tensor *v, lqt__tensor *o, lqt__tensor *gate,
                      lqt__tensor *up) {
  uint64_t stride = lqt__mask_row_bytes(k->shape[1]);
  uint8_t *p = add_mask(b, k, LQT__MASK_BITMAP, 50, k->shape[0] * stride);
  for (uint32_t i = 0; p != NULL && i < k->shape[0] * stride; i++) {
    if (i % stride < k->shape[1] / 8) p[i] = 0x55;
  }
  p = add_mask(b, v, LQT__MASK_RUN_LENGTH, 75, 8 + 2 * 4);
  if (p != NULL) {
    lqt__store_u64(p, 2);
    lqt__store_u32(p + 8, 4 * v->shape[1]);
    lqt__store_u32(p + 12, 12 * v->shape[1]);
  }
  uint32_t rows = o->shape[0], count = 2 * rows - 1;
  p = add_mask(b, o, LQT__MASK_COORDINATES, 100.0f * (float)count / (float)(rows * o->shape[1]),
               8 + 8 * count);
  if (p != NULL) {
    lqt__store_u64(p, count);
    uint8_t *at = p + 8;
    for (uint32_t r = 0; r < rows; r++) {
      for (uint32_t part = r == 0 ? 1 : 0; part < 2; part++, at += 8) {
        lqt__store_u32(at, r);
        lqt__store_u32(at + 4, part == 0 ? 0 : r);
      }
    }
  }
  p = add_mask(b, gate, LQT__MASK_BLOCK, 50, 8 + 12 * 8);
  if (p != NULL) {
    lqt__store_u32(p, 4);
    lqt__store_u32(p + 4, 8);
    for (int r = 0; r < 12; r++) p[8 + 8 * r] = 0x5;
  }
  uint64_t line = lqt__mask_row_bytes((uint64_t)up->shape[1] / 4 * 2 * 2);
  p = add_mask(b, up, LQT__MASK_STRUCTURED, 50, 8 + up->shape[0] * line);
  if (p != NULL) {
    lqt__store_u32(p, 2);
    lqt__store_u32(p + 4, 4);
    for (uint64_t i = 0; i < up->shape[0] * line; i++) {
      if (i % line < up->shape[1] / 8) p[8 + i] = 0xC4; /* 0 and 1, then 0 and 3 */
    }
  }
}

static void add_tensors(builder *b) {
  lqt__delta_layout layout;
  (void)add_tensor(b, "embed.weight", LQT_DTYPE_F16, SAMPLE_VOCAB, SAMPLE_WIDTH);
  b->s->file.tensors[0].flags |= LQT__TENSOR_SHARED;
  (void)add_tensor(b, "attn_norm.weight", LQT_DTYPE_F32, 0, SAMPLE_WIDTH);
  lqt__tensor *q = add_quantized(b, "q.weight", 32, 32, 4, 1, 32, 32, 16, 16);
  add_groups(b, q, 16, true, false);
  add_csr(b, q);
  lqt__tensor *k = add_quantized(b, "k.weight", 16, 32, 3, 1, 1, 32, 8, 8);
  add_groups(b, k, 32, true, true);
  lqt__tensor *v = add_quantized(b, "v.weight", 16, 32, 2, 1, 8, 16, 3, 4);
  add_coordinates(b, v);
  lqt__tensor *o = add_quantized(b, "o.weight", 32, 32, 8, 2, 32, 32, 200, 256);
  (void)add_delta(b, o, LQT__DELTA_LOW_RANK, LQT_DTYPE_F16, 0, 3, &layout);
  (void)add_tensor(b, "mlp_norm.weight", LQT_DTYPE_BF16, 0, SAMPLE_WIDTH);
  lqt__tensor *gate = add_quantized(b, "gate.weight", SAMPLE_FFN, 32, 4, 1, SAMPLE_FFN, 32, 16, 16);
  gate->residual_codebook_id =
      add_codebook(b, 4, 4, 1, LQT__CODEBOOK_MUTABLE | LQT__CODEBOOK_RESIDUAL);
  gate->residual_bits = 2;
  gate->residual_scale = 0.25f;
  gate->residual_indices = indices(b, SAMPLE_FFN, 32, 1, 2, 4);
  (void)add_delta(b, gate, LQT__DELTA_GROUPED, LQT_DTYPE_F16, 0, 16, &layout);
  lqt__tensor *up = add_quantized(b, "up.weight", SAMPLE_FFN, 32, 2, 4, SAMPLE_FFN, 32, 4, 4);
  (void)add_delta(b, up, LQT__DELTA_DENSE, LQT_DTYPE_F16, 0, 0, &layout);
  lqt__tensor *down = add_tensor(b, "down.weight", LQT_DTYPE_F32, 32, SAMPLE_FFN);
  (void)add_delta(b, down, LQT__DELTA_DENSE, LQT_DTYPE_F32, 0, 0, &layout);
  (void)add_tensor(b, "norm.weight", LQT_DTYPE_F32, 0, SAMPLE_WIDTH);
  lqt__tensor *bytes = add_tensor(b, "bytes", LQT_DTYPE_I8, 4, 5);
  bytes->zero_point = -3;
  bytes->scale = 0.125f;
  lqt__tensor *recursive = add_tensor(b, "recursive", LQT_DTYPE_F32, 8, 8);
  recursive->type = 1;
  recursive->flags |= LQT__TENSOR_RECURSIVE;
  recursive->recursive.dimension = 8;
  recursive->recursive.sparsity = 0.9f;
  recursive->payload.bytes = 77; /* opaque: any size */
  add_masks(b, k, v, o, gate, up);
}

static void add_chunk(builder *b, uint16_t type, const void *data, size_t bytes) {
  lqt__file *file = &b->s->file;
  uint8_t *copy = take(b, bytes, 1);
  if (copy == NULL) return;
  memcpy(copy, data, bytes);
  file->chunks[file->chunk_count++] =
      (lqt__chunk){.type = type, .data = copy, .bytes = (uint32_t)bytes};
}

static void add_chunks(builder *b) {
  uint8_t vocabulary[LQT__VOCABULARY_HEAD + 5] = {0};
  lqt__store_u16(vocabulary, 1);
  lqt__store_u32(vocabulary + LQT__VOCABULARY_AT_SIZE, SAMPLE_VOCAB);
  lqt__store_u32(vocabulary + LQT__VOCABULARY_AT_BOS, UINT32_MAX);
  lqt__store_u32(vocabulary + LQT__VOCABULARY_AT_EOS, 2);
  lqt__store_u64(vocabulary + LQT__VOCABULARY_AT_RAW, 5);
  static const char rules[] = "{\"min_mask_density\": 1}", provenance[] = "{\"tool\": \"sample\"}";
  add_chunk(b, LQT__CHUNK_MODULES, graph, sizeof graph - 1);
  add_chunk(b, LQT__CHUNK_MUTATION_RULES, rules, sizeof rules - 1);
  add_chunk(b, LQT__CHUNK_VOCABULARY, vocabulary, sizeof vocabulary);
  add_chunk(b, LQT__CHUNK_PROVENANCE, provenance, sizeof provenance - 1);
  add_chunk(b, 0x4242, "unknown", 7);
  add_chunk(b, LQT__CHUNK_EXTENSION, "vendor A", 8);
  add_chunk(b, LQT__CHUNK_EXTENSION, "vendor B", 8);
}

bool sample_make(sample *out, uint64_t seed) {
  *out = (sample){0};
  builder b = {.s = out, .random = lqt__random_seed(seed)};
  lqt__file *file = &out->file;
  file->timestamp_ns = 1700000000000000000u;
  file->flags = LQT__FLAG_SELF_MODIFYING;
  file->edit_count = 2;
  file->tensors = take(&b, SAMPLE_TENSORS, sizeof *file->tensors);
  file->codebooks = take(&b, 16, sizeof *file->codebooks);
  file->deltas = take(&b, 16, sizeof *file->deltas);
  file->masks = take(&b, 16, sizeof *file->masks);
  file->chunks = take(&b, 16, sizeof *file->chunks);
  file->hyperparameters = take(&b, 3, sizeof *file->hyperparameters);
  uint8_t *log = take(&b, 100, 1);
  if (b.failed) {
    sample_free(out);
    return false;
  }
  memcpy(log, "an edit log that nobody reads", 29);
  file->edit_log = (lqt__blob){.data = log, .bytes = 100};
  static const char *const keys[] = {"context", "vocab_size", "norm_eps"};
  static const float numbers[] = {64, SAMPLE_VOCAB, 1e-5f};
  for (size_t i = 0; i < 3; i++) {
    char *key = lqt__arena_strndup(&out->arena, keys[i], strlen(keys[i]));
    if (key == NULL) b.failed = true;
    file->hyperparameters[i] = (lqt__hyperparameter){.key = key, .value = numbers[i]};
  }
  file->hyperparameter_count = 3;
  add_tensors(&b);
  add_chunks(&b);
  if (b.failed) sample_free(out);
  return !b.failed;
}

void sample_free(sample *s) {
  lqt__arena_free(&s->arena);
  *s = (sample){0};
}

uint8_t *sample_write(const lqt__file *file, const char *path, size_t *out_bytes, lqt_diag *diag) {
  lqt__writer *writer;
  uint64_t bytes = 0;
  char *data = NULL;
  *out_bytes = 0;
  if (lqt__writer_begin(path, file, &writer, diag) != LQT_OK) return NULL;
  if (lqt__writer_finish(writer, &bytes, diag) != LQT_OK) return NULL;
  if (lqt__file_read(path, (size_t)1 << 30, &data, out_bytes, diag) != LQT_OK) return NULL;
  return (uint8_t *)data;
}
