/* The canonical weight: its checks, and its value by the equation. */
#include "lqt/weight.h"

#include <math.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"

typedef unsigned long long ull;

static float load(const void *values, lqt_dtype dtype, uint64_t i) {
  switch (dtype) {
    case LQT_DTYPE_F32:
      return ((const float *)values)[i];
    case LQT_DTYPE_F16:
      return lqt__f32_from_f16(((const uint16_t *)values)[i]);
    default:
      return lqt__f32_from_bf16(((const uint16_t *)values)[i]);
  }
}

/* Index `i` of a row: at most 16 bits that begin in any bit, so up to three bytes. */
static uint32_t index_at(const lqt_index_view *view, uint64_t row, uint64_t i) {
  const uint8_t *bytes = view->data + row * view->row_stride;
  uint64_t bit = i * view->bits, last = (bit + view->bits - 1) / 8;
  uint32_t value = 0;
  for (uint64_t k = bit / 8; k <= last; k++) value |= (uint32_t)bytes[k] << (8 * (k - bit / 8));
  return (value >> bit % 8) & (uint32_t)((1u << view->bits) - 1);
}

static float codebook_at(const lqt_codebook_view *view, uint64_t bank, uint32_t index, uint64_t c) {
  uint64_t at =
      bank * view->bank_stride + (uint64_t)index * view->vector_dim + c % view->vector_dim;
  return load(view->vectors, view->dtype, at);
}

static uint32_t csr_column(const lqt_delta_view *d, uint32_t i) {
  return d->columns16 != NULL ? d->columns16[i] : d->columns[i];
}

static float csr_at(const lqt_delta_view *d, uint64_t r, uint64_t c) {
  uint32_t low = d->row_ptr[r], high = d->row_ptr[r + 1];
  while (low < high) {
    uint32_t middle = low + (high - low) / 2, column = csr_column(d, middle);
    if (column == c) return load(d->values, d->dtype, middle);
    if (column < c) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return 0;
}

static float delta_at(const lqt_weight_desc *desc, uint64_t r, uint64_t c) {
  const lqt_delta_view *d = &desc->delta;
  float sum = 0;
  switch (d->kind) {
    case LQT_DELTA_DENSE:
      return load(d->values, d->dtype, r * desc->cols + c);
    case LQT_DELTA_CSR:
      return csr_at(d, r, c);
    case LQT_DELTA_LOW_RANK:
      for (uint32_t k = 0; k < d->rank; k++) {
        sum += load(d->values, d->dtype, r * d->rank + k) *
               load(d->values_b, d->dtype, k * desc->cols + c);
      }
      return sum;
    case LQT_DELTA_GROUPED:
      return load(d->values, d->dtype, r * lqt__ceil_div(desc->cols, d->group) + c / d->group);
    default:
      return 0;
  }
}

static float codebook_value(const lqt_weight_desc *desc, uint64_t r, uint64_t c) {
  uint64_t banks_across = lqt__ceil_div(desc->cols, desc->bank_cols);
  uint64_t bank = r / desc->bank_rows * banks_across + c / desc->bank_cols;
  uint32_t index = index_at(&desc->indices, r, c / desc->codebook.vector_dim);
  float value = codebook_at(&desc->codebook, bank, index, c);
  if (desc->residual.vectors != NULL) {
    uint32_t second = index_at(&desc->residual_indices, r, c / desc->residual.vector_dim);
    value += desc->residual_scale * codebook_at(&desc->residual, 0, second, c);
  }
  if (desc->group_size == 0) return desc->scale * value;
  uint64_t group = r * desc->group_row_stride + c / desc->group_size;
  if (desc->zero_points != NULL) value -= lqt__f32_from_f16(desc->zero_points[group]);
  float group_scale =
      desc->group_scales != NULL ? lqt__f32_from_f16(desc->group_scales[group]) : 1.0f;
  return desc->scale * group_scale * value;
}

lqt_status lqt_weight_desc_row(const lqt_weight_desc *desc, uint64_t row, uint64_t col, uint64_t n,
                               float *out) {
  if (row >= desc->rows || col > desc->cols || n > desc->cols - col) return LQT_OUT_OF_RANGE;
  for (uint64_t c = col; c < col + n; c++) {
    if (desc->mask.bits != NULL &&
        (desc->mask.bits[row * desc->mask.row_stride + c / 8] >> c % 8 & 1) == 0) {
      out[c - col] = 0;
      continue;
    }
    float value;
    if (desc->dtype == LQT_DTYPE_CODEBOOK) {
      value = codebook_value(desc, row, c);
    } else {
      const uint8_t *data = (const uint8_t *)desc->data + row * desc->row_stride;
      value = desc->scale * load(data, desc->dtype, c);
    }
    if (desc->delta.kind != LQT_DELTA_NONE) value += delta_at(desc, row, c);
    out[c - col] = value;
  }
  return LQT_OK;
}

#define BAD(...) lqt__fail(diag, LQT_INVALID_ARGUMENT, "weight", __VA_ARGS__)

static lqt_status check_codebook(const lqt_weight_desc *desc, const lqt_codebook_view *book,
                                 const lqt_index_view *indices, uint64_t banks, lqt_diag *diag) {
  uint32_t dim = book->vector_dim, bits = indices->bits;
  if (book->vectors == NULL || indices->data == NULL) return BAD("a codebook or its indices miss");
  if (book->dtype != LQT_DTYPE_F16 && book->dtype != LQT_DTYPE_F32) {
    return BAD("codebook values are of type %s", lqt_dtype_name(book->dtype));
  }
  if (dim != 1 && dim != 2 && dim != 4 && dim != 8)
    return BAD("codebook vectors of %u values", dim);
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8 && bits != 16) {
    return BAD("indices of %u bits", bits);
  }
  if (book->entries == 0 || book->entries > 1u << bits || book->banks != banks ||
      book->bank_stride < (uint64_t)book->entries * dim) {
    return BAD("a codebook of %u banks (%llu needed) with %u entries, %llu values apart",
               book->banks, (ull)banks, book->entries, (ull)book->bank_stride);
  }
  uint64_t need = (lqt__ceil_div(desc->cols, dim) * bits + 7) / 8;
  if (indices->row_stride < need || indices->row_stride % 16 != 0) {
    return BAD("index rows are %llu bytes apart; a multiple of 16 from %llu on is needed",
               (ull)indices->row_stride, (ull)need);
  }
  return LQT_OK;
}

static lqt_status check_indices(const lqt_weight_desc *desc, const lqt_codebook_view *book,
                                const lqt_index_view *indices, lqt_diag *diag) {
  if (book->entries == 1u << indices->bits) return LQT_OK;
  uint64_t count = lqt__ceil_div(desc->cols, book->vector_dim);
  for (uint64_t r = 0; r < desc->rows; r++) {
    for (uint64_t i = 0; i < count; i++) {
      uint32_t index = index_at(indices, r, i);
      if (index < book->entries) continue;
      return lqt__fail(diag, LQT_OUT_OF_RANGE, "weight",
                       "index %u at row %llu, vector %llu is not below the codebook's %u entries",
                       index, (ull)r, (ull)i, book->entries);
    }
  }
  return LQT_OK;
}

static lqt_status check_quantized(const lqt_weight_desc *desc, bool deep, lqt_diag *diag) {
  if (desc->bank_rows == 0 || desc->bank_cols == 0 || desc->bank_rows > desc->rows ||
      desc->bank_cols > desc->cols ||
      (desc->bank_cols != desc->cols && desc->bank_cols % 16 != 0)) {
    return BAD("codebook banks of %llu x %llu", (ull)desc->bank_rows, (ull)desc->bank_cols);
  }
  uint64_t banks =
      lqt__ceil_div(desc->rows, desc->bank_rows) * lqt__ceil_div(desc->cols, desc->bank_cols);
  LQT__TRY(check_codebook(desc, &desc->codebook, &desc->indices, banks, diag));
  if (desc->residual.vectors != NULL) {
    LQT__TRY(check_codebook(desc, &desc->residual, &desc->residual_indices, 1, diag));
    if (!isfinite(desc->residual_scale)) return BAD("the residual scale is not finite");
  }
  uint32_t group = desc->group_size;
  if (group != 0) {
    if (group < 16 || group > 256 || (group & (group - 1)) != 0) return BAD("groups of %u", group);
    if (desc->group_row_stride < lqt__ceil_div(desc->cols, group)) {
      return BAD("group rows are %llu apart", (ull)desc->group_row_stride);
    }
  } else if (desc->group_scales != NULL || desc->zero_points != NULL) {
    return BAD("group scales or zero points without a group size");
  }
  if (!deep) return LQT_OK;
  LQT__TRY(check_indices(desc, &desc->codebook, &desc->indices, diag));
  if (desc->residual.vectors == NULL) return LQT_OK;
  return check_indices(desc, &desc->residual, &desc->residual_indices, diag);
}

static lqt_status check_csr(const lqt_weight_desc *desc, const lqt_delta_view *d, bool deep,
                            lqt_diag *diag) {
  if (d->row_ptr == NULL || (d->columns == NULL) == (d->columns16 == NULL)) {
    return BAD("a sparse delta needs row pointers and one array of columns");
  }
  if (!deep) return LQT_OK;
  if (d->row_ptr[0] != 0 || d->row_ptr[desc->rows] != d->count) {
    return BAD("a sparse delta's row pointers go from %u to %u; it has %llu values", d->row_ptr[0],
               d->row_ptr[desc->rows], (ull)d->count);
  }
  for (uint64_t r = 0; r < desc->rows; r++) {
    if (d->row_ptr[r] > d->row_ptr[r + 1] || d->row_ptr[r + 1] > d->count) {
      return BAD("row %llu of a sparse delta has bad pointers", (ull)r);
    }
    for (uint32_t i = d->row_ptr[r]; i < d->row_ptr[r + 1]; i++) {
      uint32_t column = csr_column(d, i);
      if (column < desc->cols && (i == d->row_ptr[r] || column > csr_column(d, i - 1))) continue;
      return lqt__fail(diag, LQT_OUT_OF_RANGE, "weight",
                       "value %u of a sparse delta, in row %llu, has column %u: beyond the row or "
                       "not ascending",
                       i, (ull)r, column);
    }
  }
  return LQT_OK;
}

static lqt_status check_delta(const lqt_weight_desc *desc, bool deep, lqt_diag *diag) {
  const lqt_delta_view *d = &desc->delta;
  if (d->kind == LQT_DELTA_NONE) return LQT_OK;
  if (d->dtype != LQT_DTYPE_F16 && d->dtype != LQT_DTYPE_F32) {
    return BAD("delta values are of type %s", lqt_dtype_name(d->dtype));
  }
  if (d->values == NULL && d->count != 0) return BAD("a delta without values");
  switch (d->kind) {
    case LQT_DELTA_DENSE:
      return d->count == desc->rows * desc->cols ? LQT_OK : BAD("a dense delta of another size");
    case LQT_DELTA_CSR:
      return check_csr(desc, d, deep, diag);
    case LQT_DELTA_LOW_RANK:
      return d->rank != 0 && d->values_b != NULL ? LQT_OK : BAD("a low-rank delta without rank");
    case LQT_DELTA_GROUPED:
      return d->group != 0 ? LQT_OK : BAD("a grouped delta without a group size");
    default:
      return BAD("delta kind %d", (int)d->kind);
  }
}

lqt_status lqt_weight_desc_check(const lqt_weight_desc *desc, bool deep, lqt_diag *diag) {
  uint64_t elements;
  if (desc->size < sizeof *desc) return BAD("the description has %u bytes", desc->size);
  if (desc->rows == 0 || desc->cols == 0 || desc->cols > UINT32_MAX ||
      !lqt__mul(desc->rows, desc->cols, &elements)) {
    return BAD("a matrix of %llu x %llu", (ull)desc->rows, (ull)desc->cols);
  }
  if (!isfinite(desc->scale)) return BAD("the scale is not finite");
  if (desc->dtype == LQT_DTYPE_CODEBOOK) {
    LQT__TRY(check_quantized(desc, deep, diag));
  } else if (desc->dtype == LQT_DTYPE_F32 || desc->dtype == LQT_DTYPE_F16 ||
             desc->dtype == LQT_DTYPE_BF16) {
    if (desc->data == NULL || desc->row_stride < desc->cols * lqt_dtype_size(desc->dtype) ||
        desc->row_stride % lqt_dtype_size(desc->dtype) != 0) {
      return BAD("plain data misses, or its rows are %llu bytes apart", (ull)desc->row_stride);
    }
  } else {
    return BAD("a weight of type %s", lqt_dtype_name(desc->dtype));
  }
  if (desc->mask.bits != NULL && desc->mask.row_stride < lqt__ceil_div(desc->cols, 8)) {
    return BAD("mask rows are %llu bytes apart", (ull)desc->mask.row_stride);
  }
  return check_delta(desc, deep, diag);
}
