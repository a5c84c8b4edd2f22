#include "quant/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/diag.h"
#include "base/half.h"

enum { SECTION_HEADER = 64 };

lqt__csr_layout lqt__csr_layout_of(uint64_t rows, uint64_t cols, uint64_t count) {
  lqt__csr_layout out = {.row_ptr = SECTION_HEADER, .column_bytes = cols <= 65536 ? 2 : 4};
  out.columns = out.row_ptr + (rows + 1) * 4;
  out.values = out.columns + (count * out.column_bytes + 3) / 4 * 4;
  out.end = out.values + (count * 2 + 3) / 4 * 4;
  return out;
}

static uint64_t bank_count(const lqt__qspec *spec, uint64_t rows, uint64_t cols) {
  if (spec->scope == LQT_SCOPE_TENSOR) return 1;
  if (spec->scope == LQT_SCOPE_ROW || spec->bank_cols >= cols) return rows;
  return rows * lqt__ceil_div(cols, spec->bank_cols);
}

lqt__qsize lqt__qsize_of(const lqt__qspec *spec, uint64_t rows, uint64_t cols, uint64_t outliers,
                         bool expandable, bool empty_delta) {
  lqt__qsize out = {0};
  uint64_t capacity = (UINT64_C(1) << spec->bits) * (expandable ? 2 : 1);
  out.indices = rows * lqt__index_row_bytes(cols, spec->dim, spec->bits);
  out.scales = rows * lqt__qspec_groups(spec, cols) * 2;
  out.codebook = SECTION_HEADER + bank_count(spec, rows, cols) * capacity * spec->dim * 2;
  if (spec->residual_bits > 0) {
    out.residual_indices = rows * lqt__index_row_bytes(cols, spec->dim, spec->residual_bits);
    out.residual_codebook =
        SECTION_HEADER + (UINT64_C(2) << spec->residual_bits) * spec->dim * (expandable ? 2 : 1);
  }
  if (outliers > 0 || empty_delta) out.delta = lqt__csr_layout_of(rows, cols, outliers).end;
  return out;
}

uint64_t lqt__qsize_total(const lqt__qsize *size) {
  return size->indices + size->scales + size->codebook + size->residual_indices +
         size->residual_codebook + size->delta;
}

static void add_codebook(lqt__qoutput *output, uint32_t entries, const lqt__qspec *spec,
                         uint64_t banks, uint64_t bytes, uint8_t flags) {
  lqt__file *file = &output->file;
  lqt__codebook *book = &file->codebooks[file->codebook_count];
  uint32_t capacity = entries * (output->expandable ? 2 : 1);
  *book = (lqt__codebook){.id = (uint16_t)file->codebook_count,
                          .dtype = LQT_DTYPE_F16,
                          .flags = flags,
                          .vector_dim = (uint16_t)spec->dim,
                          .vectors = (uint32_t)(banks * entries),
                          .capacity = (uint32_t)(banks * capacity),
                          .banks = (uint32_t)banks,
                          .header_bytes = SECTION_HEADER,
                          .blob = {.bytes = bytes}};
  file->codebook_count++;
}

static void add_delta(lqt__qoutput *output, const lqt__qtensor *t, uint64_t bytes) {
  lqt__file *file = &output->file;
  file->deltas[file->delta_count] = (lqt__delta){.id = (uint16_t)file->delta_count,
                                                 .dtype = LQT_DTYPE_F16,
                                                 .encoding = LQT__DELTA_CSR,
                                                 .flags = LQT__DELTA_MUTABLE,
                                                 .count = t->outliers,
                                                 .header_bytes = SECTION_HEADER,
                                                 .blob = {.bytes = bytes}};
  file->delta_count++;
}

static void layout_quantized(lqt__qoutput *output, lqt__qtensor *t, lqt__tensor *out) {
  const lqt__qspec *spec = &t->spec;
  lqt__file *file = &output->file;
  lqt__qsize size = lqt__qsize_of(spec, out->rows, out->cols, t->outliers, output->expandable,
                                  output->empty_deltas);
  uint8_t flags = LQT__CODEBOOK_MUTABLE | (output->expandable ? LQT__CODEBOOK_EXPANDABLE : 0);
  uint64_t banks = bank_count(spec, out->rows, out->cols);
  out->dtype = LQT_DTYPE_CODEBOOK;
  out->index_bits = (uint8_t)spec->bits;
  out->scope = (uint8_t)spec->scope;
  out->group_size = spec->group_size;
  if (spec->group_size > 0) out->group_scale_type = LQT_DTYPE_F16;
  out->bank_count = (uint32_t)banks;
  out->bank_rows = spec->scope == LQT_SCOPE_TENSOR ? (uint32_t)out->rows : 1;
  out->bank_cols = spec->scope == LQT_SCOPE_GROUP && spec->bank_cols < out->cols
                       ? spec->bank_cols
                       : (uint32_t)out->cols;
  out->row_stride = lqt__index_row_bytes(out->cols, spec->dim, spec->bits);
  out->payload.bytes = size.indices;
  out->group_scales.bytes = size.scales;
  t->codebook = (int32_t)file->codebook_count;
  out->codebook_id = (uint16_t)t->codebook;
  add_codebook(output, 1u << spec->bits, spec, banks, size.codebook, flags);
  if (spec->residual_bits > 0) {
    t->residual = (int32_t)file->codebook_count;
    out->residual_bits = (uint8_t)spec->residual_bits;
    out->residual_codebook_id = (uint16_t)t->residual;
    out->residual_scale = 1;
    out->residual_row_stride = lqt__index_row_bytes(out->cols, spec->dim, spec->residual_bits);
    out->residual_indices.bytes = size.residual_indices;
    add_codebook(output, 1u << spec->residual_bits, spec, 1, size.residual_codebook,
                 flags | LQT__CODEBOOK_RESIDUAL);
  }
  if (size.delta > 0) {
    t->delta = (int32_t)file->delta_count;
    out->delta_id = (uint16_t)t->delta;
    if (t->outliers > 0) out->outlier_delta_id = out->delta_id;
    add_delta(output, t, size.delta);
  }
}

static lqt_status layout_tensor(lqt__qoutput *output, const lqt__llama *llama, lqt__qtensor *t,
                                lqt_diag *diag) {
  lqt__file *file = &output->file;
  lqt__tensor *out = &file->tensors[file->tensor_count++];
  *out = (lqt__tensor){
      .name = lqt__arena_strndup(&file->arena, t->tensor.name, strlen(t->tensor.name)),
      .ndim = (uint8_t)t->tensor.ndim,
      .codebook_id = LQT_ID_NONE,
      .delta_id = LQT_ID_NONE,
      .mask_id = LQT_ID_NONE,
      .residual_codebook_id = LQT_ID_NONE,
      .outlier_delta_id = LQT_ID_NONE,
      .scale = 1,
      .flags = LQT__TENSOR_HOT_SWAPPABLE,
      .rows = t->tensor.rows,
      .cols = t->tensor.cols};
  if (out->name == NULL) return lqt__fail_memory(diag, NULL, 96, "a tensor's name");
  if (t->tensor.ndim == 2) {
    out->shape[0] = t->tensor.rows;
    out->shape[1] = t->tensor.cols;
  } else {
    out->shape[0] = t->tensor.cols;
  }
  if (llama->tied && t->tensor.role == LQT__ROLE_EMBEDDING) out->flags |= LQT__TENSOR_SHARED;
  t->codebook = t->residual = t->delta = -1;
  if (t->spec.bits > 0) {
    layout_quantized(output, t, out);
  } else {
    out->dtype = (uint8_t)t->dtype;
    out->row_stride = out->cols * lqt_dtype_size(t->dtype);
    out->payload.bytes = out->rows * out->row_stride;
  }
  return LQT_OK;
}

static lqt_status layout_model(lqt__qoutput *output, const lqt__llama *llama, lqt_diag *diag) {
  lqt__file *file = &output->file;
  char *json;
  size_t bytes;
  for (size_t i = 0; i < LQT__LLAMA_HYPERPARAMETERS; i++) {
    lqt__hyperparameter *row = &file->hyperparameters[i];
    const char *key = lqt__llama_hyperparameter(llama, i, &row->value);
    row->key = lqt__arena_strndup(&file->arena, key, strlen(key));
    if (row->key == NULL) return lqt__fail_memory(diag, NULL, 32, "a hyperparameter's name");
  }
  file->hyperparameter_count = LQT__LLAMA_HYPERPARAMETERS;
  LQT__TRY(lqt__llama_graph(llama, &json, &bytes, diag));
  lqt_status status = lqt__qoutput_chunk(output, LQT__CHUNK_MODULES, json, bytes, diag);
  lqt__free(json);
  return status;
}

enum { MAX_CHUNKS = 4, VERSION_1_0 = 0x1000 };

lqt_status lqt__qoutput_layout(lqt__qoutput *output, const lqt__llama *llama, lqt_diag *diag) {
  lqt__file *file = &output->file;
  size_t n = output->tensor_count;
  *file = (lqt__file){.version = VERSION_1_0, .timestamp_ns = lqt__qoutput_timestamp()};
  file->tensors = lqt__arena_array(&file->arena, n, sizeof(lqt__tensor));
  file->codebooks = lqt__arena_array(&file->arena, 2 * n, sizeof(lqt__codebook));
  file->deltas = lqt__arena_array(&file->arena, n, sizeof(lqt__delta));
  file->chunks = lqt__arena_array(&file->arena, MAX_CHUNKS, sizeof(lqt__chunk));
  file->hyperparameters =
      lqt__arena_array(&file->arena, LQT__LLAMA_HYPERPARAMETERS, sizeof(lqt__hyperparameter));
  if (file->tensors == NULL || file->codebooks == NULL || file->deltas == NULL ||
      file->chunks == NULL || file->hyperparameters == NULL) {
    return lqt__fail_memory(diag, NULL, n * sizeof(lqt__tensor), "the file's tables");
  }
  if (2 * n >= LQT_ID_NONE) {
    return lqt__fail(diag, LQT_LIMIT, NULL, "%zu tensors are more than ids can name", n);
  }
  for (size_t i = 0; i < n; i++) {
    LQT__TRY(layout_tensor(output, llama, &output->tensors[i], diag));
  }
  return layout_model(output, llama, diag);
}

lqt_status lqt__qoutput_chunk(lqt__qoutput *output, uint16_t type, const void *data, size_t bytes,
                              lqt_diag *diag) {
  lqt__file *file = &output->file;
  uint8_t *copy = lqt__arena_alloc(&file->arena, bytes > 0 ? bytes : 1);
  if (copy == NULL) return lqt__fail_memory(diag, NULL, bytes, "a metadata chunk");
  memcpy(copy, data, bytes);
  file->chunks[file->chunk_count++] =
      (lqt__chunk){.type = type, .data = copy, .bytes = (uint32_t)bytes};
  return LQT_OK;
}

uint64_t lqt__qoutput_timestamp(void) {
  const char *epoch = getenv("SOURCE_DATE_EPOCH");
  if (epoch != NULL && epoch[0] >= '0' && epoch[0] <= '9') {
    char *end;
    errno = 0;
    unsigned long long seconds = strtoull(epoch, &end, 10);
    if (errno == 0 && *end == 0 && seconds < UINT64_MAX / 1000000000u) {
      return seconds * 1000000000u;
    }
  }
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void lqt__qoutput_free(lqt__qoutput *output) {
  lqt__writer_abort(output->writer);
  lqt__arena_free(&output->file.arena);
  lqt__free(output->tensors);
  *output = (lqt__qoutput){0};
}

static lqt_status put_codebook(lqt__qoutput *output, int32_t index, const float *values,
                               uint64_t banks, uint64_t bank_size, lqt_diag *diag) {
  lqt__codebook *book = &output->file.codebooks[index];
  uint64_t room = (uint64_t)book->capacity / book->banks * book->vector_dim;
  uint64_t bytes = book->blob.bytes;
  uint8_t *data = lqt__alloc_zero((size_t)bytes);
  if (data == NULL) return lqt__fail_memory(diag, NULL, bytes, "a codebook");
  lqt__codebook_header(book, data);
  for (uint64_t b = 0; b < banks; b++) {
    uint8_t *at = data + SECTION_HEADER + b * room * 2;
    for (uint64_t i = 0; i < bank_size; i++) {
      uint16_t half = lqt__f16_from_f32(values[b * bank_size + i]);
      at[2 * i] = (uint8_t)half;
      at[2 * i + 1] = (uint8_t)(half >> 8);
    }
  }
  lqt_status status = lqt__writer_put(output->writer, &book->blob, 0, data, bytes, diag);
  lqt__free(data);
  return status;
}

lqt_status lqt__qoutput_put_book(lqt__qoutput *output, const lqt__qtensor *tensor,
                                 const lqt__qbook *book, lqt_diag *diag) {
  LQT__TRY(put_codebook(output, tensor->codebook, book->values, book->banks,
                        (uint64_t)book->entries * book->dim, diag));
  if (tensor->residual < 0) return LQT_OK;
  return put_codebook(output, tensor->residual, book->residual, 1,
                      (uint64_t)book->residual_entries * book->dim, diag);
}
