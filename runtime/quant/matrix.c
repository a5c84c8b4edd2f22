#include "quant/matrix.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"
#include "quant/pack.h"

lqt_status lqt__quantizer_progress(lqt__quantizer *q, const char *stage, uint64_t done,
                                   lqt_diag *diag) {
  q->done += done;
  if (q->options->progress == NULL) return LQT_OK;
  if (q->options->progress(q->options->user, stage, "weights", q->done, q->total)) return LQT_OK;
  return lqt__fail(diag, LQT_CANCELLED, NULL, "cancelled; the output file is as it was");
}

lqt_status lqt__quantizer_copy(lqt__quantizer *q, size_t index, lqt_diag *diag) {
  enum { CHUNK = 1 << 18 };
  const lqt__qtensor *t = &q->output.tensors[index];
  const lqt__blob *blob = &q->output.file.tensors[index].payload;
  lqt__source_view view;
  LQT__TRY(lqt__source_find(&q->source, &t->tensor, &view, diag));
  size_t size = lqt_dtype_size(view.dtype);
  float *line = lqt__alloc(CHUNK * sizeof(float));
  if (line == NULL) return lqt__fail_memory(diag, view.name, CHUNK * sizeof(float), "a tensor");
  lqt_status status = LQT_OK;
  uint64_t total = view.rows * view.cols;
  for (uint64_t at = 0; at < total && status == LQT_OK; at += CHUNK) {
    uint64_t n = total - at < CHUNK ? total - at : CHUNK;
    status = lqt__source_read(&view, at, n, line, diag);
    if (status == LQT_OK) {
      status =
          lqt__writer_put(q->output.writer, blob, at * size, view.data + at * size, n * size, diag);
    }
  }
  lqt__free(line);
  lqt__source_drop(&view, 0, view.rows);
  return status;
}

/* ---- Encoding ---- */

/* Where the encoded rows of one strip go until they are written. */
typedef struct encoded {
  uint8_t *indices, *residuals; /* [LANES][row bytes] */
  uint8_t *scales;              /* [LANES][groups] fp16 */
  uint8_t *columns, *values;    /* outliers of the strip's rows */
  double square, square_error;
  lqt_status status;
} encoded;

typedef struct work {
  const lqt__qspec *spec;
  const lqt__qmatrix *matrix;
  const lqt__qbook *book;
  const lqt__outliers *outliers; /* NULL: none */
  const lqt__csr_layout *csr;
  uint64_t index_bytes, residual_bytes, groups;
  uint64_t first_strip; /* of the batch */
  encoded *slots;
  lqt__qstrip *strips; /* [workers] */
} work;

static void store_u16(uint8_t *out, uint16_t value) {
  out[0] = (uint8_t)value;
  out[1] = (uint8_t)(value >> 8);
}

static void store_u32(uint8_t *out, uint32_t value) {
  store_u16(out, (uint16_t)value);
  store_u16(out + 2, (uint16_t)(value >> 16));
}

static void pack_rows(const work *k, const lqt__qstrip *strip, uint64_t rows, encoded *out) {
  size_t vectors = (size_t)lqt__qspec_vectors(k->spec, k->matrix->cols);
  for (uint64_t l = 0; l < rows; l++) {
    lqt__pack_codes(strip->codes + l, LQT__LANES, vectors, k->spec->bits,
                    out->indices + l * k->index_bytes, (size_t)k->index_bytes);
    if (k->spec->residual_bits > 0) {
      lqt__pack_codes(strip->residuals + l, LQT__LANES, vectors, k->spec->residual_bits,
                      out->residuals + l * k->residual_bytes, (size_t)k->residual_bytes);
    }
    for (uint64_t g = 0; g < k->groups; g++) {
      store_u16(out->scales + (l * k->groups + g) * 2,
                lqt__f16_from_f32(strip->scales[g * LQT__LANES + l]));
    }
  }
}

/* The delta is what is missing to the weight that the encoder was aiming at. */
static void pack_outliers(const work *k, const lqt__qstrip *strip, uint64_t row, uint64_t rows,
                          encoded *out) {
  uint32_t wide = k->csr->column_bytes;
  size_t at = 0;
  for (uint64_t l = 0; l < rows; l++) {
    for (uint64_t c = 0; c < k->matrix->cols; c++) {
      size_t i = (size_t)(c * LQT__LANES + l);
      if (!strip->kept[i]) continue;
      if (wide == 2) {
        store_u16(out->columns + at * 2, (uint16_t)c);
      } else {
        store_u32(out->columns + at * 4, (uint32_t)c);
      }
      store_u16(out->values + at * 2, lqt__f16_from_f32(strip->deltas[i]));
      at++;
    }
  }
  (void)row;
}

static void measure_error(const work *k, const lqt__qstrip *strip, uint64_t rows, encoded *out) {
  out->square = out->square_error = 0;
  for (uint64_t c = 0; c < k->matrix->cols; c++) {
    for (uint64_t l = 0; l < rows; l++) {
      double x = strip->original[c * LQT__LANES + l];
      double d = x - strip->decoded[c * LQT__LANES + l];
      out->square += x * x;
      out->square_error += d * d;
    }
  }
  double scale = (double)k->matrix->scale * k->matrix->scale;
  out->square *= scale;
  out->square_error *= scale;
}

static void encode_strip(void *context, size_t index, unsigned worker) {
  work *k = context;
  encoded *out = &k->slots[index];
  lqt__qstrip *strip = &k->strips[worker];
  uint64_t row = (k->first_strip + index) * LQT__LANES;
  uint64_t rows = k->matrix->rows - row < LQT__LANES ? k->matrix->rows - row : LQT__LANES;
  out->status = lqt__qstrip_load(k->spec, k->matrix, row, strip, NULL);
  if (out->status != LQT_OK) return;
  if (k->outliers != NULL) lqt__outliers_mark(k->spec, k->matrix, k->outliers, row, strip);
  lqt__qstrip_encode(k->spec, k->matrix, k->book, row, strip);
  pack_rows(k, strip, rows, out);
  if (k->outliers != NULL) pack_outliers(k, strip, row, rows, out);
  measure_error(k, strip, rows, out);
}

static lqt_status write_strip(lqt__quantizer *q, size_t index, const work *k, uint64_t strip,
                              const encoded *e, lqt_diag *diag) {
  const lqt__tensor *t = &q->output.file.tensors[index];
  lqt__writer *w = q->output.writer;
  uint64_t row = strip * LQT__LANES;
  uint64_t rows = k->matrix->rows - row < LQT__LANES ? k->matrix->rows - row : LQT__LANES;
  LQT__TRY(lqt__writer_put(w, &t->payload, row * k->index_bytes, e->indices, rows * k->index_bytes,
                           diag));
  if (k->spec->residual_bits > 0) {
    LQT__TRY(lqt__writer_put(w, &t->residual_indices, row * k->residual_bytes, e->residuals,
                             rows * k->residual_bytes, diag));
  }
  if (k->groups > 0) {
    LQT__TRY(lqt__writer_put(w, &t->group_scales, row * k->groups * 2, e->scales,
                             rows * k->groups * 2, diag));
  }
  if (k->outliers == NULL) return LQT_OK;
  const lqt__blob *delta = &q->output.file.deltas[q->output.tensors[index].delta].blob;
  uint64_t first = k->outliers->row_ptr[row], count = k->outliers->row_ptr[row + rows] - first;
  uint64_t wide = k->csr->column_bytes;
  LQT__TRY(
      lqt__writer_put(w, delta, k->csr->columns + first * wide, e->columns, count * wide, diag));
  return lqt__writer_put(w, delta, k->csr->values + first * 2, e->values, count * 2, diag);
}

/* The head, the row table and the padding of a delta. */
static lqt_status write_delta_frame(lqt__quantizer *q, size_t index, const lqt__csr_layout *csr,
                                    const lqt__outliers *outliers, uint64_t rows, lqt_diag *diag) {
  static const uint8_t zeros[4];
  const lqt__qtensor *t = &q->output.tensors[index];
  if (t->delta < 0) return LQT_OK;
  const lqt__delta *delta = &q->output.file.deltas[t->delta];
  uint8_t head[64];
  size_t bytes = ((size_t)rows + 1) * 4;
  uint8_t *table = lqt__alloc_zero(bytes);
  if (table == NULL) return lqt__fail_memory(diag, t->tensor.name, bytes, "a delta's row table");
  for (uint64_t r = 0; outliers != NULL && r <= rows; r++) {
    store_u32(table + r * 4, outliers->row_ptr[r]);
  }
  lqt__writer *w = q->output.writer;
  lqt_status status =
      lqt__writer_put(w, &delta->blob, 0, head, lqt__delta_header(delta, head), diag);
  if (status == LQT_OK) {
    status = lqt__writer_put(w, &delta->blob, csr->row_ptr, table, bytes, diag);
  }
  lqt__free(table);
  uint64_t columns_end = csr->columns + t->outliers * csr->column_bytes;
  if (status == LQT_OK && columns_end < csr->values) {
    status = lqt__writer_put(w, &delta->blob, columns_end, zeros, csr->values - columns_end, diag);
  }
  uint64_t values_end = csr->values + t->outliers * 2;
  if (status == LQT_OK && values_end < csr->end) {
    status = lqt__writer_put(w, &delta->blob, values_end, zeros, csr->end - values_end, diag);
  }
  return status;
}

enum { STRIPS_PER_THREAD = 4 };

static lqt_status make_slots(const work *k, size_t slots, lqt__arena *arena, lqt_diag *diag) {
  for (size_t i = 0; i < slots; i++) {
    encoded *e = &k->slots[i];
    e->indices = lqt__arena_alloc(arena, (size_t)k->index_bytes * LQT__LANES);
    e->residuals = lqt__arena_alloc(arena, (size_t)k->residual_bytes * LQT__LANES);
    e->scales = lqt__arena_alloc(arena, (size_t)k->groups * LQT__LANES * 2);
    if (e->indices == NULL || e->residuals == NULL || e->scales == NULL) {
      return lqt__fail_memory(diag, k->matrix->view->name, k->index_bytes * LQT__LANES,
                              "encoded rows");
    }
    if (k->outliers == NULL) continue;
    size_t most = (size_t)k->matrix->cols * LQT__LANES;
    e->columns = lqt__arena_alloc(arena, most * k->csr->column_bytes);
    e->values = lqt__arena_alloc(arena, most * 2);
    if (e->columns == NULL || e->values == NULL) {
      return lqt__fail_memory(diag, k->matrix->view->name, most * 4, "outliers");
    }
  }
  return LQT_OK;
}

static lqt_status fail_strip(const work *k, uint64_t strip, lqt_status status, lqt_diag *diag) {
  /* Once more on this thread, for the sentence that says which weight it is. */
  lqt__qstrip again;
  LQT__TRY(lqt__qstrip_create(k->spec, k->matrix->cols, &again, diag));
  lqt_status second = lqt__qstrip_load(k->spec, k->matrix, strip * LQT__LANES, &again, diag);
  lqt__qstrip_free(&again);
  return second != LQT_OK ? second : status;
}

static lqt_status encode_batches(lqt__quantizer *q, size_t index, work *k, size_t slots,
                                 lqt_diag *diag) {
  uint64_t strips = lqt__ceil_div(k->matrix->rows, LQT__LANES);
  for (uint64_t first = 0; first < strips; first += slots) {
    size_t n = strips - first < slots ? (size_t)(strips - first) : slots;
    k->first_strip = first;
    lqt__pool_run(q->pool, n, encode_strip, k);
    for (size_t i = 0; i < n; i++) {
      const encoded *e = &k->slots[i];
      if (e->status != LQT_OK) return fail_strip(k, first + i, e->status, diag);
      LQT__TRY(write_strip(q, index, k, first + i, e, diag));
      q->square += e->square;
      q->square_error += e->square_error;
    }
    uint64_t end = (first + n) * LQT__LANES;
    if (end > k->matrix->rows) end = k->matrix->rows;
    LQT__TRY(
        lqt__quantizer_progress(q, "quantize", (end - first * LQT__LANES) * k->matrix->cols, diag));
  }
  return LQT_OK;
}

static lqt_status encode_matrix(lqt__quantizer *q, size_t index, const lqt__qmatrix *matrix,
                                const lqt__qbook *book, const lqt__outliers *outliers,
                                lqt_diag *diag) {
  const lqt__qtensor *t = &q->output.tensors[index];
  const lqt__qspec *spec = &t->spec;
  lqt__csr_layout csr = lqt__csr_layout_of(matrix->rows, matrix->cols, t->outliers);
  unsigned workers = lqt__pool_threads(q->pool);
  size_t slots = (size_t)workers * STRIPS_PER_THREAD;
  lqt__arena arena = {0};
  work k = {
      .spec = spec,
      .matrix = matrix,
      .book = book,
      .outliers = outliers,
      .csr = &csr,
      .index_bytes = lqt__index_row_bytes(matrix->cols, spec->dim, spec->bits),
      .residual_bytes = spec->residual_bits > 0
                            ? lqt__index_row_bytes(matrix->cols, spec->dim, spec->residual_bits)
                            : 0,
      .groups = lqt__qspec_groups(spec, matrix->cols)};
  k.slots = lqt__arena_array(&arena, slots, sizeof(encoded));
  k.strips = lqt__arena_array(&arena, workers, sizeof(lqt__qstrip));
  lqt_status status = LQT_OK;
  if (k.slots == NULL || k.strips == NULL) {
    status = lqt__fail_memory(diag, t->tensor.name, slots * sizeof(encoded), "encoded rows");
  }
  if (status == LQT_OK) status = make_slots(&k, slots, &arena, diag);
  for (unsigned w = 0; w < workers && status == LQT_OK; w++) {
    status = lqt__qstrip_create(spec, matrix->cols, &k.strips[w], diag);
  }
  if (status == LQT_OK) {
    status = write_delta_frame(q, index, &csr, outliers, matrix->rows, diag);
  }
  if (status == LQT_OK) status = encode_batches(q, index, &k, slots, diag);
  for (unsigned w = 0; k.strips != NULL && w < workers; w++) lqt__qstrip_free(&k.strips[w]);
  lqt__arena_free(&arena);
  return status;
}

/* The power of two at or over the largest weight: divided by it, weights fit fp16 well. */
static lqt_status matrix_scale(const lqt__source_view *view, float *out, lqt_diag *diag) {
  enum { CHUNK = 4096 };
  float line[CHUNK], most = 0;
  uint64_t total = view->rows * view->cols;
  for (uint64_t at = 0; at < total; at += CHUNK) {
    uint64_t n = total - at < CHUNK ? total - at : CHUNK;
    LQT__TRY(lqt__source_read(view, at, n, line, diag));
    for (uint64_t i = 0; i < n; i++) most = fabsf(line[i]) > most ? fabsf(line[i]) : most;
  }
  int exponent = 0;
  if (most > 0) (void)frexpf(most, &exponent);
  if (exponent < -100) exponent = -100;
  if (exponent > 100) exponent = 100;
  *out = ldexpf(1.0f, exponent);
  return LQT_OK;
}

static lqt_status quantize_matrix(lqt__quantizer *q, size_t index, lqt__qmatrix *matrix,
                                  lqt_diag *diag) {
  const lqt__qtensor *t = &q->output.tensors[index];
  lqt__tensor *out = &q->output.file.tensors[index];
  lqt__qbook book;
  lqt__outliers outliers = {0};
  LQT__TRY(lqt__qbook_train(&t->spec, matrix, q->options->seed + index, q->pool, &book, diag));
  out->scale = matrix->scale;
  if (book.residual_entries > 0) out->residual_scale = book.residual_scale;
  lqt_status status = lqt__qoutput_put_book(&q->output, t, &book, diag);
  if (status == LQT_OK && t->outliers > 0) {
    status = lqt__outliers_choose(&t->spec, matrix, t->outliers, q->pool, &outliers, diag);
  }
  if (status == LQT_OK) {
    status = encode_matrix(q, index, matrix, &book, t->outliers > 0 ? &outliers : NULL, diag);
  }
  lqt__outliers_free(&outliers);
  lqt__qbook_free(&book);
  return status;
}

/* The factor of a matrix's inputs; NULL for one that is no layer's or without calibration. */
static lqt_status find_factor(lqt__quantizer *q, const lqt__llama_tensor *t, lqt_diag *diag) {
  lqt__tap tap = LQT__TAP_COUNT;
  switch (t->role) {
    case LQT__ROLE_Q:
    case LQT__ROLE_K:
    case LQT__ROLE_V:
      tap = LQT__TAP_ATTENTION;
      break;
    case LQT__ROLE_O:
      tap = LQT__TAP_OUTPUT;
      break;
    case LQT__ROLE_GATE:
    case LQT__ROLE_UP:
      tap = LQT__TAP_MLP;
      break;
    case LQT__ROLE_DOWN:
      tap = LQT__TAP_DOWN;
      break;
    default:
      break;
  }
  if (q->factor != NULL && q->factor_layer == t->layer && q->factor_tap == tap) return LQT_OK;
  lqt__free(q->factor);
  q->factor = NULL;
  if (q->moments.sums == NULL || tap == LQT__TAP_COUNT) return LQT_OK;
  q->factor_layer = t->layer;
  q->factor_tap = tap;
  return lqt__moments_factor(&q->moments, t->layer, tap, q->pool, &q->factor, diag);
}

lqt_status lqt__quantizer_encode(lqt__quantizer *q, size_t index, lqt_diag *diag) {
  const lqt__qtensor *t = &q->output.tensors[index];
  lqt__source_view view;
  LQT__TRY(lqt__source_find(&q->source, &t->tensor, &view, diag));
  float *importance = lqt__alloc_array((size_t)view.cols, sizeof(float));
  if (importance == NULL) return lqt__fail_memory(diag, view.name, view.cols * 4, "weights");
  for (uint64_t c = 0; c < view.cols; c++) importance[c] = 1;
  lqt__qmatrix matrix = {
      .view = &view, .rows = view.rows, .cols = view.cols, .importance = importance};
  lqt_status status = matrix_scale(&view, &matrix.scale, diag);
  if (status == LQT_OK) status = find_factor(q, &t->tensor, diag);
  matrix.factor = q->factor;
  if (status == LQT_OK) status = quantize_matrix(q, index, &matrix, diag);
  lqt__free(importance);
  lqt__source_drop(&view, 0, view.rows);
  if (status != LQT_OK) return status;
  lqt__qsize size = lqt__qsize_of(&t->spec, view.rows, view.cols, t->outliers,
                                  q->options->expandable, q->options->empty_deltas);
  q->bytes += lqt__qsize_total(&size);
  q->report.weights += view.rows * view.cols;
  return LQT_OK;
}
