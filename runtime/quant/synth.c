/* Models with random weights: codes, scales and entries are drawn, not trained, and stream to the
 * file as fast as they are drawn. Equally likely codes of a normal-float codebook give normally
 * distributed weights, scaled by the inputs of a row so that activations keep their size. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"
#include "base/random.h"
#include "base/text.h"
#include "lqt/quantize.h"
#include "quant/output.h"

enum {
  PIECE = 1 << 20, /* bytes drawn by one task */
  TABLE = 1 << 12, /* values that 16-bit elements are drawn from */
  PIECES_A_THREAD = 4,
};

typedef struct synth {
  const lqt_quantize_options *options;
  lqt__llama llama;
  lqt__pool *pool;
  lqt__qoutput output;
  uint64_t done, total; /* bytes */
  uint64_t weights, bytes;
  uint8_t *pieces; /* [threads * PIECES_A_THREAD][piece bytes] */
  uint64_t piece_bytes;
} synth;

/* A blob that is drawn: rows of `row_bytes`, of which `used_bytes` are random, the rest zero. */
typedef struct stream {
  const lqt__blob *blob;
  uint64_t at, rows, row_bytes, used_bytes;
  uint32_t last_mask;    /* of the last used byte */
  const uint16_t *table; /* 16-bit elements drawn from [TABLE]; NULL: raw bits */
  uint64_t seed;
} stream;

typedef struct batch {
  const stream *s;
  uint8_t *pieces;
  uint64_t piece_bytes, rows_a_piece, first_row;
} batch;

static void fill_bits(lqt__random *random, uint8_t *out, uint64_t bytes) {
  uint64_t at = 0;
  for (; at + 8 <= bytes; at += 8) {
    uint64_t bits = lqt__random_u64(random);
    memcpy(out + at, &bits, 8);
  }
  uint64_t bits = lqt__random_u64(random);
  memcpy(out + at, &bits, (size_t)(bytes - at));
}

static void fill_halves(lqt__random *random, const uint16_t *table, uint8_t *out, uint64_t bytes) {
  for (uint64_t at = 0; at < bytes; at += 8) {
    uint64_t bits = lqt__random_u64(random);
    for (uint64_t i = 0; i < 8 && at + i < bytes; i += 2, bits >>= 16) {
      uint16_t value = table[bits % TABLE];
      out[at + i] = (uint8_t)value;
      out[at + i + 1] = (uint8_t)(value >> 8);
    }
  }
}

static void draw_piece(void *context, size_t index, unsigned worker) {
  (void)worker;
  const batch *b = context;
  const stream *s = b->s;
  uint64_t row = b->first_row + index * b->rows_a_piece;
  uint8_t *out = b->pieces + index * b->piece_bytes;
  /* A piece's numbers depend on where it is, not on who draws it. */
  lqt__random random = lqt__random_seed(s->seed ^ (row * 0x9e3779b97f4a7c15u));
  for (uint64_t r = 0; r < b->rows_a_piece && row + r < s->rows; r++, out += s->row_bytes) {
    if (s->table != NULL) {
      fill_halves(&random, s->table, out, s->used_bytes);
    } else {
      fill_bits(&random, out, s->used_bytes);
      out[s->used_bytes - 1] &= (uint8_t)s->last_mask;
    }
    memset(out + s->used_bytes, 0, (size_t)(s->row_bytes - s->used_bytes));
  }
}

static lqt_status draw(synth *y, const stream *s, lqt_diag *diag) {
  if (s->rows == 0 || s->row_bytes == 0) return LQT_OK;
  batch b = {.s = s, .pieces = y->pieces, .piece_bytes = y->piece_bytes};
  b.rows_a_piece = y->piece_bytes / s->row_bytes;
  size_t most = (size_t)lqt__pool_threads(y->pool) * PIECES_A_THREAD;
  for (uint64_t row = 0; row < s->rows; row += most * b.rows_a_piece) {
    b.first_row = row;
    size_t n = (size_t)lqt__ceil_div(s->rows - row, b.rows_a_piece);
    if (n > most) n = most;
    lqt__pool_run(y->pool, n, draw_piece, &b);
    for (size_t i = 0; i < n; i++) {
      uint64_t first = row + i * b.rows_a_piece, rows = b.rows_a_piece;
      if (rows > s->rows - first) rows = s->rows - first;
      LQT__TRY(lqt__writer_put(y->output.writer, s->blob, s->at + first * s->row_bytes,
                               y->pieces + i * y->piece_bytes, rows * s->row_bytes, diag));
      y->done += rows * s->row_bytes;
    }
    if (y->options->progress != NULL &&
        !y->options->progress(y->options->user, "synth", "bytes", y->done, y->total)) {
      return lqt__fail(diag, LQT_CANCELLED, NULL, "cancelled; the output file is as it was");
    }
  }
  return LQT_OK;
}

/* ---- Values ---- */

/* Normal deviates times `spread`, as fp16 or bf16; none of them zero. */
static void normal_table(lqt_dtype dtype, float center, float spread, uint64_t seed,
                         uint16_t *out) {
  lqt__random random = lqt__random_seed(seed);
  for (int i = 0; i < TABLE; i++) {
    float value = center + spread * lqt__random_normal(&random);
    if (fabsf(value) < 1e-3f * spread) value = spread;
    out[i] = dtype == LQT_DTYPE_BF16 ? lqt__bf16_from_f32(value) : lqt__f16_from_f32(value);
  }
}

/* Group scales: three quarters to five quarters of one. */
static void scale_table(uint64_t seed, uint16_t *out) {
  lqt__random random = lqt__random_seed(seed);
  for (int i = 0; i < TABLE; i++) {
    out[i] = lqt__f16_from_f32(0.75f + 0.5f * (float)lqt__random_unit(&random));
  }
}

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

/* Normally distributed entries, the largest one 1; a scalar codebook ascends. */
static void draw_bank(lqt__random *random, uint32_t entries, uint32_t dim, float *out) {
  float most = 0;
  for (uint32_t i = 0; i < entries * dim; i++) {
    out[i] = lqt__random_normal(random);
    most = fmaxf(most, fabsf(out[i]));
  }
  for (uint32_t i = 0; i < entries * dim; i++) {
    out[i] = lqt__f32_from_f16(lqt__f16_from_f32(out[i] / most));
    if (out[i] == 0) out[i] = 0x1p-10f;
  }
  if (dim == 1) qsort(out, entries, sizeof(float), ascending);
}

static float root_mean_square(const float *values, uint64_t count) {
  double sum = 0;
  for (uint64_t i = 0; i < count; i++) sum += (double)values[i] * values[i];
  return (float)sqrt(sum / (double)count);
}

static lqt_status draw_books(synth *y, const lqt__qtensor *t, uint64_t seed, lqt__tensor *out,
                             lqt_diag *diag) {
  uint32_t dim = t->spec.dim;
  lqt__random random = lqt__random_seed(seed);
  lqt__qbook book = {.entries = 1u << t->spec.bits, .dim = dim, .banks = out->bank_count};
  uint64_t size = (uint64_t)book.entries * dim;
  float residual[LQT__MAX_ENTRIES * LQT__MAX_DIM];
  book.values = lqt__alloc_array((size_t)book.banks * size, sizeof(float));
  if (book.values == NULL) {
    return lqt__fail_memory(diag, t->tensor.name, book.banks * size * 4, "codebooks");
  }
  for (uint64_t b = 0; b < book.banks; b++) {
    draw_bank(&random, book.entries, dim, book.values + b * size);
  }
  if (t->spec.residual_bits > 0) {
    book.residual_entries = 1u << t->spec.residual_bits;
    book.residual = residual;
    draw_bank(&random, book.residual_entries, dim, residual);
    out->residual_scale = 0.125f;
  }
  /* Rows that write to the residual stream share its size between the layers. */
  bool adds = t->tensor.role == LQT__ROLE_O || t->tensor.role == LQT__ROLE_DOWN;
  float spread = 1.0f / sqrtf((float)out->cols * (adds ? 2.0f * (float)y->llama.layers : 1.0f));
  out->scale = spread / root_mean_square(book.values, book.banks * size);
  lqt_status status = lqt__qoutput_put_book(&y->output, t, &book, diag);
  lqt__free(book.values);
  return status;
}

/* Columns of the outliers ascend: one is drawn from each of `count` equal parts of the row. */
static void draw_outlier_columns(lqt__random *random, uint64_t cols, uint64_t count,
                                 uint32_t column_bytes, uint8_t *out) {
  for (uint64_t i = 0; i < count; i++) {
    uint64_t begin = i * cols / count, end = (i + 1) * cols / count;
    uint32_t c = (uint32_t)begin + lqt__random_below(random, (uint32_t)(end - begin));
    for (uint32_t k = 0; k < column_bytes; k++) out[i * column_bytes + k] = (uint8_t)(c >> (8 * k));
  }
}

static lqt_status draw_delta(synth *y, const lqt__qtensor *t, uint64_t seed,
                             const lqt__tensor *tensor, lqt_diag *diag) {
  if (t->delta < 0) return LQT_OK;
  const lqt__delta *delta = &y->output.file.deltas[t->delta];
  uint64_t rows = tensor->rows, a_row = t->outliers / rows, bytes = delta->blob.bytes;
  lqt__csr_layout csr = lqt__csr_layout_of(rows, tensor->cols, t->outliers);
  lqt__random random = lqt__random_seed(seed);
  uint16_t *table = lqt__alloc(TABLE * sizeof(uint16_t));
  uint8_t *data = lqt__alloc_zero((size_t)bytes);
  lqt_status status = LQT_OK;
  if (table == NULL || data == NULL) {
    status = lqt__fail_memory(diag, t->tensor.name, bytes, "a delta");
  } else {
    normal_table(LQT_DTYPE_F16, 0, 3.0f / sqrtf((float)tensor->cols), seed, table);
    lqt__delta_header(delta, data);
    for (uint64_t r = 0; r <= rows; r++) {
      uint32_t first = (uint32_t)(r * a_row);
      for (int k = 0; k < 4; k++)
        data[csr.row_ptr + r * 4 + (uint64_t)k] = (uint8_t)(first >> (8 * k));
    }
    for (uint64_t r = 0; r < rows; r++) {
      draw_outlier_columns(&random, tensor->cols, a_row, csr.column_bytes,
                           data + csr.columns + r * a_row * csr.column_bytes);
    }
    fill_halves(&random, table, data + csr.values, t->outliers * 2);
    status = lqt__writer_put(y->output.writer, &delta->blob, 0, data, bytes, diag);
  }
  lqt__free(data);
  lqt__free(table);
  return status;
}

/* ---- Tensors ---- */

static stream index_stream(const lqt__blob *blob, const lqt__tensor *t, uint64_t row_bytes,
                           uint32_t dim, uint32_t bits, uint64_t seed) {
  uint64_t used = lqt__ceil_div(t->cols, dim) * bits;
  return (stream){.blob = blob,
                  .rows = t->rows,
                  .row_bytes = row_bytes,
                  .used_bytes = lqt__ceil_div(used, 8),
                  .last_mask = used % 8 != 0 ? (1u << used % 8) - 1 : 255,
                  .seed = seed};
}

static lqt_status draw_quantized(synth *y, const lqt__qtensor *t, uint64_t seed, lqt__tensor *out,
                                 lqt_diag *diag) {
  uint16_t table[TABLE];
  LQT__TRY(draw_books(y, t, seed, out, diag));
  LQT__TRY(draw_delta(y, t, seed + 1, out, diag));
  stream s = index_stream(&out->payload, out, out->row_stride, t->spec.dim, t->spec.bits, seed + 2);
  LQT__TRY(draw(y, &s, diag));
  if (t->spec.residual_bits > 0) {
    s = index_stream(&out->residual_indices, out, out->residual_row_stride, t->spec.dim,
                     t->spec.residual_bits, seed + 3);
    LQT__TRY(draw(y, &s, diag));
  }
  scale_table(seed + 4, table);
  uint64_t bytes = lqt__qspec_groups(&t->spec, out->cols) * 2;
  s = (stream){.blob = &out->group_scales,
               .rows = out->rows,
               .row_bytes = bytes,
               .used_bytes = bytes,
               .table = table,
               .seed = seed + 4};
  return draw(y, &s, diag);
}

static lqt_status draw_plain(synth *y, const lqt__qtensor *t, uint64_t seed, const lqt__tensor *out,
                             lqt_diag *diag) {
  uint16_t table[TABLE];
  bool norm = t->tensor.ndim == 1 && t->tensor.role != LQT__ROLE_BIAS;
  normal_table(t->dtype, norm ? 1 : 0, norm ? 0.02f : 1.0f / sqrtf((float)out->cols), seed, table);
  stream s = {.blob = &out->payload,
              .rows = out->rows,
              .row_bytes = out->row_stride,
              .used_bytes = out->row_stride,
              .table = table,
              .seed = seed};
  return draw(y, &s, diag);
}

static lqt_status draw_tensors(synth *y, lqt_diag *diag) {
  for (size_t i = 0; i < y->output.tensor_count; i++) {
    const lqt__qtensor *t = &y->output.tensors[i];
    lqt__tensor *out = &y->output.file.tensors[i];
    uint64_t seed = y->options->seed * 0x9e3779b97f4a7c15u + 8 * (i + 1);
    if (t->spec.bits == 0) {
      LQT__TRY(draw_plain(y, t, seed, out, diag));
      continue;
    }
    LQT__TRY(draw_quantized(y, t, seed, out, diag));
    lqt__qsize size = lqt__qsize_of(&t->spec, out->rows, out->cols, t->outliers,
                                    y->output.expandable, y->output.empty_deltas);
    y->weights += out->rows * out->cols;
    y->bytes += lqt__qsize_total(&size);
  }
  return LQT_OK;
}

/* ---- The whole ---- */

static lqt_status check_shape(const lqt_synth_shape *s, lqt_diag *diag) {
  const struct {
    const char *name;
    uint32_t value, most;
  } rows[] = {
      {"hidden", s->hidden, 1u << 20},     {"layers", s->layers, 1u << 12},
      {"heads", s->heads, 1u << 14},       {"kv_heads", s->kv_heads, 1u << 14},
      {"head_dim", s->head_dim, 1u << 14}, {"ffn", s->ffn, 1u << 22},
      {"vocab", s->vocab, 1u << 24},       {"context", s->context, 1u << 28},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (rows[i].value >= 1 && rows[i].value <= rows[i].most) continue;
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, rows[i].name, "%u: 1 to %u is possible",
                     rows[i].value, rows[i].most);
  }
  if (s->heads % s->kv_heads != 0 || s->head_dim % 2 != 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "shape",
                     "%u key-value heads must divide %u heads, and the head dimension %u be even",
                     s->kv_heads, s->heads, s->head_dim);
  }
  return LQT_OK;
}

static lqt__llama llama_of(const lqt_synth_shape *s) {
  return (lqt__llama){.hidden = s->hidden,
                      .layers = s->layers,
                      .heads = s->heads,
                      .kv_heads = s->kv_heads,
                      .head_dim = s->head_dim,
                      .ffn = s->ffn,
                      .vocab = s->vocab,
                      .context = s->context,
                      .tied = s->tied,
                      .norm_eps = 1e-5,
                      .bos = -1,
                      .eos = -1,
                      .rope = {.theta = 10000, .rotary_dim = s->head_dim, .factor = 1}};
}

static lqt_status choose_specs(synth *y, lqt_diag *diag) {
  lqt__qoutput *output = &y->output;
  output->tensor_count = lqt__llama_tensor_count(&y->llama);
  output->expandable = y->options->expandable;
  output->empty_deltas = y->options->empty_deltas;
  output->tensors = lqt__alloc_array(output->tensor_count, sizeof(lqt__qtensor));
  if (output->tensors == NULL) {
    return lqt__fail_memory(diag, NULL, output->tensor_count * sizeof(lqt__qtensor), "a plan");
  }
  for (size_t i = 0; i < output->tensor_count; i++) {
    lqt__qtensor *t = &output->tensors[i];
    lqt__llama_tensor_at(&y->llama, i, &t->tensor);
    t->dtype = LQT_DTYPE_BF16;
    if (t->tensor.ndim != 2) continue;
    bool embed = t->tensor.role == LQT__ROLE_EMBEDDING || t->tensor.role == LQT__ROLE_HEAD;
    t->spec = embed ? lqt__options_embed_spec(y->options) : lqt__options_spec(y->options);
    if (t->spec.bits == 0) t->spec = (lqt__qspec){0};
    t->outliers = (uint64_t)(t->spec.outliers * (double)t->tensor.cols) * (uint64_t)t->tensor.rows;
  }
  return LQT_OK;
}

static lqt_status add_provenance(synth *y, lqt_diag *diag) {
  lqt__text text = {0};
  const lqt__llama *l = &y->llama;
  lqt__text_add(&text,
                "{\"tool\":\"lqt\",\"version\":\"%s\",\"synthetic\":{\"hidden\":%u,\"layers\":%u,"
                "\"heads\":%u,\"kv_heads\":%u,\"head_dim\":%u,\"ffn\":%u,\"vocab\":%u,"
                "\"context\":%u,\"tied\":%s,\"bits\":%u,\"group_size\":%u,\"seed\":%" PRIu64 "}}",
                lqt_version_text(), l->hidden, l->layers, l->heads, l->kv_heads, l->head_dim,
                l->ffn, l->vocab, l->context, l->tied ? "true" : "false", y->options->bits,
                y->options->group_size, y->options->seed);
  lqt_status status = text.failed ? lqt__fail_memory(diag, NULL, 512, "the provenance")
                                  : lqt__qoutput_chunk(&y->output, LQT__CHUNK_PROVENANCE, text.data,
                                                       text.bytes, diag);
  lqt__text_free(&text);
  return status;
}

static lqt_status make_pieces(synth *y, lqt_diag *diag) {
  y->piece_bytes = PIECE;
  for (size_t i = 0; i < y->output.tensor_count; i++) {
    const lqt__tensor *t = &y->output.file.tensors[i];
    y->total += t->payload.bytes + t->group_scales.bytes + t->residual_indices.bytes;
    if (t->row_stride > y->piece_bytes) y->piece_bytes = t->row_stride;
  }
  uint64_t bytes = y->piece_bytes * lqt__pool_threads(y->pool) * PIECES_A_THREAD;
  y->pieces = lqt__alloc_aligned((size_t)bytes, 64);
  return y->pieces != NULL ? LQT_OK : lqt__fail_memory(diag, NULL, bytes, "random bytes");
}

static lqt_status write_model(synth *y, const char *path, lqt_quantize_report *report,
                              lqt_diag *diag) {
  y->pool = lqt__pool_create(y->options->threads);
  if (y->pool == NULL) return lqt__fail_memory(diag, NULL, 0, "the threads");
  LQT__TRY(choose_specs(y, diag));
  LQT__TRY(lqt__qoutput_layout(&y->output, &y->llama, diag));
  LQT__TRY(add_provenance(y, diag));
  LQT__TRY(make_pieces(y, diag));
  LQT__TRY(lqt__writer_begin(path, &y->output.file, &y->output.writer, diag));
  LQT__TRY(draw_tensors(y, diag));
  lqt__writer *writer = y->output.writer;
  y->output.writer = NULL;
  return lqt__writer_finish(writer, &report->file_bytes, diag);
}

lqt_status lqt_synth(const lqt_synth_shape *shape, const char *path,
                     const lqt_quantize_options *options, lqt_quantize_report *out_report,
                     lqt_diag *diag) {
  if (out_report != NULL) *out_report = (lqt_quantize_report){0};
  if (shape == NULL || path == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "a shape and an output path are needed");
  }
  LQT__TRY(lqt__options_check(options, diag));
  LQT__TRY(check_shape(shape, diag));
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  synth y = {.options = options, .llama = llama_of(shape)};
  lqt_quantize_report report = {0};
  lqt_status status = write_model(&y, path, &report, diag);
  lqt__qoutput_free(&y.output);
  lqt__pool_destroy(y.pool);
  lqt__free(y.pieces);
  if (status != LQT_OK || out_report == NULL) return status;
  clock_gettime(CLOCK_MONOTONIC, &end);
  report.weights = y.weights;
  report.bits_per_weight = y.weights > 0 ? 8.0 * (double)y.bytes / (double)y.weights : 0;
  report.seconds =
      (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
  *out_report = report;
  return LQT_OK;
}
