/* The canonical weight: its checks and its definition in float32. */
#include "kernel/weight.h"

#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"

static float value_at(const void *values, lqt_dtype dtype, uint64_t index) {
  switch (dtype) {
    case LQT_DTYPE_F16:
      return lqt__f32_from_f16(((const uint16_t *)values)[index]);
    case LQT_DTYPE_BF16:
      return lqt__f32_from_bf16(((const uint16_t *)values)[index]);
    default:
      return ((const float *)values)[index];
  }
}

uint32_t lqt__index_get(const uint8_t *row, uint32_t bits, uint64_t index) {
  switch (bits) {
    case 8:
      return row[index];
    case 16:
      return (uint32_t)row[index * 2] | (uint32_t)row[index * 2 + 1] << 8;
    case 4:
      return (row[index / 2] >> (index % 2 * 4)) & 15u;
    case 2:
      return (row[index / 4] >> (index % 4 * 2)) & 3u;
    default: {
      uint64_t bit = index * bits;
      uint32_t value = row[bit / 8] >> (bit % 8);
      if (bit % 8 + bits > 8) value |= (uint32_t)row[bit / 8 + 1] << (8 - bit % 8);
      return value & ((1u << bits) - 1u);
    }
  }
}

uint64_t lqt__weight_banks(const lqt_weight_desc *desc) {
  return lqt__ceil_div(desc->rows, desc->bank_rows) * lqt__ceil_div(desc->cols, desc->bank_cols);
}

static float codebook_value(const lqt_weight_desc *desc, uint64_t row, uint64_t col) {
  const lqt_codebook_view *book = &desc->codebook;
  uint64_t bank =
      row / desc->bank_rows * lqt__ceil_div(desc->cols, desc->bank_cols) + col / desc->bank_cols;
  uint32_t index = lqt__index_get(desc->indices.data + row * desc->indices.row_stride,
                                  desc->indices.bits, col / book->vector_dim);
  uint64_t at = bank * book->bank_stride + (uint64_t)index * book->vector_dim;
  float value = value_at(book->vectors, book->dtype, at + col % book->vector_dim);
  if (desc->residual.vectors != NULL) {
    const lqt_codebook_view *residual = &desc->residual;
    uint32_t second =
        lqt__index_get(desc->residual_indices.data + row * desc->residual_indices.row_stride,
                       desc->residual_indices.bits, col / residual->vector_dim);
    at = (uint64_t)second * residual->vector_dim + col % residual->vector_dim;
    value += desc->residual_scale * value_at(residual->vectors, residual->dtype, at);
  }
  float scale = desc->scale;
  if (desc->group_size != 0) {
    uint64_t group = row * desc->group_row_stride + col / desc->group_size;
    if (desc->zero_points != NULL) value -= lqt__f32_from_f16(desc->zero_points[group]);
    if (desc->group_scales != NULL) scale *= lqt__f32_from_f16(desc->group_scales[group]);
  }
  return scale * value;
}

static uint32_t csr_column(const lqt_delta_view *delta, uint64_t at) {
  return delta->columns != NULL ? delta->columns[at] : delta->columns16[at];
}

static void add_delta(const lqt_weight_desc *desc, uint64_t row, uint64_t col, uint64_t n,
                      float *out) {
  const lqt_delta_view *delta = &desc->delta;
  switch (delta->kind) {
    case LQT_DELTA_DENSE:
      for (uint64_t i = 0; i < n; i++) {
        out[i] += value_at(delta->values, delta->dtype, row * desc->cols + col + i);
      }
      break;
    case LQT_DELTA_CSR:
      for (uint64_t at = delta->row_ptr[row]; at < delta->row_ptr[row + 1]; at++) {
        uint64_t column = csr_column(delta, at);
        if (column < col || column - col >= n) continue;
        out[column - col] += value_at(delta->values, delta->dtype, at);
      }
      break;
    case LQT_DELTA_LOW_RANK:
      for (uint64_t i = 0; i < n; i++) {
        float sum = 0;
        for (uint64_t r = 0; r < delta->rank; r++) {
          sum += value_at(delta->values, delta->dtype, row * delta->rank + r) *
                 value_at(delta->values_b, delta->dtype, r * desc->cols + col + i);
        }
        out[i] += sum;
      }
      break;
    case LQT_DELTA_GROUPED: {
      uint64_t groups = lqt__ceil_div(desc->cols, delta->group);
      for (uint64_t i = 0; i < n; i++) {
        out[i] += value_at(delta->values, delta->dtype, row * groups + (col + i) / delta->group);
      }
      break;
    }
    default:
      break;
  }
}

lqt_status lqt_weight_desc_row(const lqt_weight_desc *desc, uint64_t row, uint64_t col, uint64_t n,
                               float *out) {
  if (row >= desc->rows || col > desc->cols || n > desc->cols - col) return LQT_OUT_OF_RANGE;
  for (uint64_t i = 0; i < n; i++) {
    if (desc->dtype == LQT_DTYPE_CODEBOOK) {
      out[i] = codebook_value(desc, row, col + i);
    } else {
      const uint8_t *data = (const uint8_t *)desc->data + row * desc->row_stride;
      out[i] = desc->scale * value_at(data, desc->dtype, col + i);
    }
  }
  add_delta(desc, row, col, n, out);
  if (desc->mask.bits == NULL) return LQT_OK;
  const uint8_t *bits = desc->mask.bits + row * desc->mask.row_stride;
  for (uint64_t i = 0; i < n; i++) {
    uint64_t c = col + i;
    if ((bits[c / 8] >> (c % 8) & 1u) == 0) out[i] = 0.0f;
  }
  return LQT_OK;
}

static lqt_status check_indices(const lqt_weight_desc *desc, const lqt_index_view *indices,
                                const lqt_codebook_view *book, const char *name, bool deep,
                                lqt_diag *diag) {
  uint32_t bits = indices->bits;
  if (indices->data == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "the %s has no indices", name);
  }
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8 && bits != 16) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                     "indices of the %s have %u bits; 2, 3, 4, 8 and 16 are possible", name, bits);
  }
  uint64_t per_row = lqt__ceil_div(desc->cols, book->vector_dim);
  uint64_t bytes = lqt__ceil_div(per_row * bits, 8);
  if (indices->row_stride % 16 != 0 || indices->row_stride < bytes) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                     "index rows of the %s are %llu bytes apart; they need a multiple of 16 of at "
                     "least %llu",
                     name, (unsigned long long)indices->row_stride, (unsigned long long)bytes);
  }
  if (book->entries > 1u << bits) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                     "the %s has %u entries, more than %u-bit indices can name", name,
                     book->entries, bits);
  }
  if (!deep || book->entries == 1u << bits) return LQT_OK;
  for (uint64_t r = 0; r < desc->rows; r++) {
    for (uint64_t i = 0; i < per_row; i++) {
      uint32_t index = lqt__index_get(indices->data + r * indices->row_stride, bits, i);
      if (index < book->entries) continue;
      return lqt__fail(diag, LQT_OUT_OF_RANGE, NULL,
                       "index %llu of row %llu is %u but the %s has %u entries",
                       (unsigned long long)i, (unsigned long long)r, index, name, book->entries);
    }
  }
  return LQT_OK;
}

static lqt_status check_book(const lqt_codebook_view *book, uint64_t banks, const char *name,
                             lqt_diag *diag) {
  uint32_t dim = book->vector_dim;
  if (dim != 1 && dim != 2 && dim != 4 && dim != 8) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                     "the %s has vectors of %u values; 1, 2, 4 and 8 are possible", name, dim);
  }
  if (book->vectors == NULL || book->entries == 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "the %s is empty", name);
  }
  if (book->dtype != LQT_DTYPE_F16 && book->dtype != LQT_DTYPE_F32) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "the %s is neither f16 nor f32", name);
  }
  uint64_t total;
  if (book->banks != banks || book->bank_stride < (uint64_t)book->entries * dim ||
      !lqt__mul(banks, book->bank_stride, &total) || total > UINT64_MAX / 16) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                     "the %s has %u banks %llu values apart; the matrix needs %llu banks of %llu",
                     name, book->banks, (unsigned long long)book->bank_stride,
                     (unsigned long long)banks, (unsigned long long)book->entries * dim);
  }
  return LQT_OK;
}

static lqt_status check_codebook(const lqt_weight_desc *desc, bool deep, lqt_diag *diag) {
  if (desc->bank_rows == 0 || desc->bank_cols == 0 || desc->bank_rows > desc->rows ||
      desc->bank_cols > desc->cols ||
      (desc->bank_cols != desc->cols && desc->bank_cols % 16 != 0)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                     "codebook banks of %llu x %llu do not fit the matrix; columns must be all or "
                     "a multiple of 16",
                     (unsigned long long)desc->bank_rows, (unsigned long long)desc->bank_cols);
  }
  LQT__TRY(check_book(&desc->codebook, lqt__weight_banks(desc), "codebook", diag));
  LQT__TRY(check_indices(desc, &desc->indices, &desc->codebook, "codebook", deep, diag));
  if (desc->residual.vectors != NULL) {
    LQT__TRY(check_book(&desc->residual, 1, "residual codebook", diag));
    LQT__TRY(check_indices(desc, &desc->residual_indices, &desc->residual, "residual codebook",
                           deep, diag));
  }
  uint32_t group = desc->group_size;
  if (group == 0) {
    if (desc->group_scales == NULL && desc->zero_points == NULL) return LQT_OK;
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "group scales without a group size");
  }
  if (group < 16 || group > 256 || (group & (group - 1)) != 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                     "group size %u is not a power of two from 16 to 256", group);
  }
  if (desc->group_row_stride < lqt__ceil_div(desc->cols, group)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "rows of group scales overlap");
  }
  return LQT_OK;
}

static lqt_status check_csr(const lqt_weight_desc *desc, bool deep, lqt_diag *diag) {
  const lqt_delta_view *delta = &desc->delta;
  if (delta->row_ptr == NULL || (delta->columns == NULL) == (delta->columns16 == NULL)) {
    if (delta->row_ptr == NULL || delta->count != 0) {
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                       "a row-compressed delta needs row_ptr and one array of columns");
    }
  }
  if (!deep) return LQT_OK;
  if (delta->row_ptr[0] != 0 || delta->row_ptr[desc->rows] != delta->count) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, NULL, "the delta's row_ptr does not span its values");
  }
  for (uint64_t r = 0; r < desc->rows; r++) {
    if (delta->row_ptr[r + 1] < delta->row_ptr[r] || delta->row_ptr[r + 1] > delta->count) {
      return lqt__fail(diag, LQT_OUT_OF_RANGE, NULL, "the delta's row_ptr falls at row %llu",
                       (unsigned long long)r);
    }
    for (uint64_t at = delta->row_ptr[r]; at < delta->row_ptr[r + 1]; at++) {
      uint32_t column = csr_column(delta, at);
      bool ascends = at == delta->row_ptr[r] || column > csr_column(delta, at - 1);
      if (column < desc->cols && ascends) continue;
      return lqt__fail(diag, LQT_OUT_OF_RANGE, NULL,
                       "the delta names column %u in row %llu out of order or outside", column,
                       (unsigned long long)r);
    }
  }
  return LQT_OK;
}

static lqt_status check_delta(const lqt_weight_desc *desc, bool deep, lqt_diag *diag) {
  const lqt_delta_view *delta = &desc->delta;
  if (delta->kind == LQT_DELTA_NONE) return LQT_OK;
  if (delta->kind > LQT_DELTA_GROUPED || (uint32_t)delta->kind == 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "unknown kind of delta %d",
                     (int)delta->kind);
  }
  if (delta->dtype != LQT_DTYPE_F16 && delta->dtype != LQT_DTYPE_F32) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "delta values are neither f16 nor f32");
  }
  bool empty = delta->kind == LQT_DELTA_CSR && delta->count == 0;
  if (!empty &&
      (delta->values == NULL || (delta->kind == LQT_DELTA_LOW_RANK && delta->values_b == NULL))) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "the delta has no values");
  }
  if ((delta->kind == LQT_DELTA_LOW_RANK && delta->rank == 0) ||
      (delta->kind == LQT_DELTA_GROUPED && delta->group == 0)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "the delta's rank or group is zero");
  }
  return delta->kind == LQT_DELTA_CSR ? check_csr(desc, deep, diag) : LQT_OK;
}

lqt_status lqt_weight_desc_check(const lqt_weight_desc *desc, bool deep, lqt_diag *diag) {
  if (desc == NULL || desc->size != sizeof *desc) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                     "the weight description is missing or of another version");
  }
  uint64_t elements;
  if (desc->rows == 0 || desc->cols == 0 || !lqt__mul(desc->rows, desc->cols, &elements) ||
      elements > UINT64_MAX / 64) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "a weight of %llu x %llu has no size",
                     (unsigned long long)desc->rows, (unsigned long long)desc->cols);
  }
  if (desc->dtype == LQT_DTYPE_CODEBOOK) {
    LQT__TRY(check_codebook(desc, deep, diag));
  } else {
    size_t size = lqt_dtype_size(desc->dtype);
    if (desc->dtype != LQT_DTYPE_F32 && desc->dtype != LQT_DTYPE_F16 &&
        desc->dtype != LQT_DTYPE_BF16) {
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                       "a weight of type %s cannot be multiplied; f32, f16, bf16 and codebook can",
                       lqt_dtype_name(desc->dtype));
    }
    if (desc->data == NULL || desc->row_stride < desc->cols * size ||
        desc->row_stride % size != 0) {
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                       "plain weight without data, or rows of %llu bytes for %llu columns",
                       (unsigned long long)desc->row_stride, (unsigned long long)desc->cols);
    }
  }
  LQT__TRY(check_delta(desc, deep, diag));
  if (desc->mask.bits != NULL &&
      (desc->mask.row_stride % 8 != 0 || desc->mask.row_stride < lqt__ceil_div(desc->cols, 8))) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                     "mask rows are %llu bytes apart; they need a multiple of 8 that holds %llu "
                     "bits",
                     (unsigned long long)desc->mask.row_stride, (unsigned long long)desc->cols);
  }
  return LQT_OK;
}

uint64_t lqt__weight_part_count(const lqt_weight_desc *desc, lqt_weight_part part) {
  uint64_t groups = desc->group_size != 0 ? lqt__ceil_div(desc->cols, desc->group_size) : 0;
  const lqt_codebook_view *book = &desc->codebook;
  const lqt_delta_view *delta = &desc->delta;
  switch (part) {
    case LQT_PART_CODEBOOK:
      return (book->banks - 1) * book->bank_stride + (uint64_t)book->entries * book->vector_dim;
    case LQT_PART_RESIDUAL:
      return (uint64_t)desc->residual.entries * desc->residual.vector_dim;
    case LQT_PART_GROUP_SCALES:
    case LQT_PART_ZERO_POINTS:
      return (desc->rows - 1) * desc->group_row_stride + groups;
    case LQT_PART_DELTA_VALUES:
      if (delta->kind == LQT_DELTA_DENSE) return desc->rows * desc->cols;
      if (delta->kind == LQT_DELTA_CSR) return delta->count;
      if (delta->kind == LQT_DELTA_LOW_RANK) return delta->rank * (desc->rows + desc->cols);
      return desc->rows * lqt__ceil_div(desc->cols, delta->group);
    case LQT_PART_SCALE:
    case LQT_PART_RESIDUAL_SCALE:
      return 1;
    case LQT_PART_INDICES:
      return desc->rows * desc->indices.row_stride;
    case LQT_PART_RESIDUAL_INDICES:
      return desc->rows * desc->residual_indices.row_stride;
    case LQT_PART_MASK:
      return desc->rows * desc->mask.row_stride;
    case LQT_PART_PLAIN:
      return (desc->rows - 1) * (desc->row_stride / lqt_dtype_size(desc->dtype)) + desc->cols;
    default:
      return 0;
  }
}

size_t lqt__weight_part_size(const lqt_weight_desc *desc, lqt_weight_part part) {
  switch (part) {
    case LQT_PART_CODEBOOK:
      return lqt_dtype_size(desc->codebook.dtype);
    case LQT_PART_RESIDUAL:
      return lqt_dtype_size(desc->residual.dtype);
    case LQT_PART_GROUP_SCALES:
    case LQT_PART_ZERO_POINTS:
      return 2;
    case LQT_PART_DELTA_VALUES:
      return lqt_dtype_size(desc->delta.dtype);
    case LQT_PART_SCALE:
    case LQT_PART_RESIDUAL_SCALE:
      return 4;
    case LQT_PART_PLAIN:
      return lqt_dtype_size(desc->dtype);
    default:
      return 1;
  }
}

uint32_t lqt__weight_parts(const lqt_weight_desc *desc) {
  uint32_t parts = 1u << LQT_PART_SCALE;
  if (desc->dtype == LQT_DTYPE_CODEBOOK) {
    parts |= 1u << LQT_PART_CODEBOOK | 1u << LQT_PART_INDICES;
    if (desc->residual.vectors != NULL) {
      parts |=
          1u << LQT_PART_RESIDUAL | 1u << LQT_PART_RESIDUAL_INDICES | 1u << LQT_PART_RESIDUAL_SCALE;
    }
    if (desc->group_scales != NULL) parts |= 1u << LQT_PART_GROUP_SCALES;
    if (desc->zero_points != NULL) parts |= 1u << LQT_PART_ZERO_POINTS;
  } else {
    parts |= 1u << LQT_PART_PLAIN;
  }
  if (desc->delta.kind != LQT_DELTA_NONE) parts |= 1u << LQT_PART_DELTA_VALUES;
  if (desc->mask.bits != NULL) parts |= 1u << LQT_PART_MASK;
  return parts;
}

uint64_t lqt__weight_bytes(const lqt_weight_desc *desc) {
  uint32_t parts = lqt__weight_parts(desc);
  uint64_t bytes = 0;
  for (uint32_t part = LQT_PART_CODEBOOK; part <= LQT_PART_PLAIN; part++) {
    if ((parts >> part & 1u) == 0) continue;
    bytes += lqt__weight_part_count(desc, part) * lqt__weight_part_size(desc, part);
  }
  if (desc->delta.kind == LQT_DELTA_CSR) {
    bytes += (desc->rows + 1) * 4 + desc->delta.count * (desc->delta.columns != NULL ? 4 : 2);
  }
  return bytes;
}
