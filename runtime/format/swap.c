/* A big-endian file's blobs and known chunks -> little-endian copies in the file's arena. */
#include "base/diag.h"
#include "format/bytes.h"
#include "format/check.h"
#include "format/layout.h"

static void swap_elements(uint8_t *bytes, uint64_t count, unsigned size) {
  for (uint64_t i = 0; i < count; i++, bytes += size) {
    for (unsigned k = 0; k < size / 2; k++) {
      uint8_t held = bytes[k];
      bytes[k] = bytes[size - 1 - k];
      bytes[size - 1 - k] = held;
    }
  }
}

/* Replaces the blob by a copy; false without memory. Blobs that were left out stay so. */
static bool own(lqt__file *file, lqt__blob *blob) {
  if (blob->data == NULL || blob->bytes == 0) return true;
  uint8_t *copy = lqt__arena_alloc(&file->arena, blob->bytes);
  if (copy == NULL) return false;
  memcpy(copy, blob->data, blob->bytes);
  blob->data = copy;
  return true;
}

static uint8_t *writable(const lqt__blob *blob) { return (uint8_t *)blob->data; }

static bool swap_blob(lqt__file *file, lqt__blob *blob, unsigned size) {
  if (size <= 1) return true;
  if (!own(file, blob)) return false;
  if (blob->data != NULL) swap_elements(writable(blob), blob->bytes / size, size);
  return true;
}

static bool swap_codebook(lqt__file *file, lqt__codebook *codebook) {
  if (codebook->blob.data == NULL) return true;
  unsigned size = codebook->dtype == LQT_DTYPE_F16 ? 2 : 4;
  if (!own(file, &codebook->blob)) return false;
  uint8_t *bytes = writable(&codebook->blob);
  (void)lqt__codebook_header(codebook, bytes);
  swap_elements(bytes + LQT__SECTION_HEAD, (codebook->blob.bytes - LQT__SECTION_HEAD) / size, size);
  return true;
}

/* The tensor that uses a delta (its shape says where the parts are), or NULL. */
static const lqt__tensor *delta_user(const lqt__file *file, uint16_t id) {
  for (size_t i = 0; i < file->tensor_count; i++) {
    if (file->tensors[i].type == 0 && file->tensors[i].delta_id == id) return &file->tensors[i];
  }
  return NULL;
}

static lqt_status swap_delta(lqt__file *file, lqt__delta *delta, const char *where,
                             lqt_diag *diag) {
  if (delta->blob.data == NULL) return LQT_OK;
  const lqt__tensor *user = delta_user(file, delta->id);
  if (user == NULL || (delta->flags & LQT__DELTA_COMPRESSED) != 0) {
    return lqt__fail_at(diag, LQT_UNSUPPORTED, where, delta->blob.offset,
                        "delta %u of a big-endian file is compressed or used by no tensor",
                        delta->id);
  }
  uint32_t parameter = 0;
  if (delta->encoding == LQT__DELTA_LOW_RANK || delta->encoding == LQT__DELTA_GROUPED) {
    parameter = lqt__load_u32(delta->blob.data + LQT__SECTION_HEAD, true);
  }
  lqt__delta_layout layout;
  if (!lqt__delta_measure(delta->encoding, delta->dtype, user->rows, user->cols, delta->count,
                          parameter, &layout)) {
    return lqt__fail(diag, LQT_INTERNAL, where, "delta %u has no size", delta->id);
  }
  if (!own(file, &delta->blob)) {
    return lqt__fail_memory(diag, where, delta->blob.bytes, "a converted delta");
  }
  unsigned size = delta->dtype == LQT_DTYPE_F16 ? 2 : 4;
  uint8_t *bytes = writable(&delta->blob);
  (void)lqt__delta_header(delta, bytes);
  if (layout.parameter != 0) swap_elements(bytes + layout.parameter, 2, 4);
  if (layout.row_ptr != 0) swap_elements(bytes + layout.row_ptr, user->rows + 1, 4);
  if (delta->encoding == LQT__DELTA_CSR) {
    swap_elements(bytes + layout.columns, delta->count, layout.wide_columns ? 4 : 2);
  } else if (delta->encoding == LQT__DELTA_COO) {
    swap_elements(bytes + layout.columns, 2 * delta->count, 4);
  }
  if (layout.values_b != 0) {
    swap_elements(bytes + layout.values, user->rows * parameter, size);
    swap_elements(bytes + layout.values_b, user->cols * parameter, size);
  } else {
    swap_elements(bytes + layout.values, delta->count, size);
  }
  return LQT_OK;
}

static bool swap_mask(lqt__file *file, lqt__mask *mask) {
  if (mask->blob.data == NULL) return true;
  if (!own(file, &mask->blob)) return false;
  uint8_t *bytes = writable(&mask->blob), *data = bytes + LQT__SECTION_HEAD;
  uint64_t rest = mask->blob.bytes - LQT__SECTION_HEAD;
  (void)lqt__mask_header(mask, bytes);
  if (mask->encoding == LQT__MASK_BITMAP || rest < 8) return true;
  if (mask->encoding == LQT__MASK_RUN_LENGTH || mask->encoding == LQT__MASK_COORDINATES) {
    swap_elements(data, 1, 8);
    swap_elements(data + 8, (rest - 8) / 4, 4);
  } else {
    swap_elements(data, 2, 4);
  }
  return true;
}

static bool swap_tensor(lqt__file *file, lqt__tensor *tensor) {
  if (tensor->type != 0) return true; /* opaque: kept as it is */
  return swap_blob(file, &tensor->payload, (unsigned)lqt_dtype_size((lqt_dtype)tensor->dtype)) &&
         swap_blob(file, &tensor->group_scales, 2) && swap_blob(file, &tensor->zero_points, 2);
}

static bool swap_vocabulary(lqt__file *file, lqt__chunk *chunk) {
  if (chunk->type != LQT__CHUNK_VOCABULARY || chunk->bytes < LQT__VOCABULARY_HEAD) return true;
  uint8_t *copy = lqt__arena_alloc(&file->arena, chunk->bytes);
  if (copy == NULL) return false;
  memcpy(copy, chunk->data, chunk->bytes);
  swap_elements(copy + LQT__VOCABULARY_AT_KIND, 2, 2);
  swap_elements(copy + LQT__VOCABULARY_AT_SIZE, 3, 4);
  swap_elements(copy + LQT__VOCABULARY_AT_RAW, 1, 8);
  chunk->data = copy;
  return true;
}

lqt_status lqt__file_swap(lqt__file *file, const char *where, lqt_diag *diag) {
  bool good = true;
  for (size_t i = 0; i < file->codebook_count; i++) {
    good = good && swap_codebook(file, &file->codebooks[i]);
  }
  for (size_t i = 0; i < file->tensor_count; i++) {
    good = good && swap_tensor(file, &file->tensors[i]);
  }
  for (size_t i = 0; i < file->mask_count; i++) good = good && swap_mask(file, &file->masks[i]);
  for (size_t i = 0; i < file->chunk_count; i++) {
    good = good && swap_vocabulary(file, &file->chunks[i]);
  }
  if (!good) return lqt__fail_memory(diag, where, file->bytes, "a converted big-endian file");
  for (size_t i = 0; i < file->delta_count; i++) {
    LQT__TRY(swap_delta(file, &file->deltas[i], where, diag));
  }
  return LQT_OK;
}
