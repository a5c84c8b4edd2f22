/* A tensor of the file -> the canonical weight. Masks of every encoding become bitmaps and
 * coordinates become compressed rows, once per tensor; the rest points into the file. */
#include <string.h>

#include "base/diag.h"
#include "format/bytes.h"
#include "format/layout.h"
#include "model/model.h"

typedef unsigned long long ull;
enum { OWNED_MASK, OWNED_DELTA, OWNED_DATA };

typedef struct maker {
  const lqt__file *file;
  const lqt__tensor *tensor;
  const char *where;
  lqt__weight_cache *cache;
  lqt_diag *diag;
} maker;

static lqt_status left_out(const maker *m, const char *what) {
  return lqt__fail(m->diag, LQT_NOT_FOUND, m->where,
                   "the %s of tensor %s was damaged and left out; get the file again", what,
                   m->tensor->name);
}

static void *own(const maker *m, int slot, uint64_t bytes) {
  return m->cache->owned[slot] = lqt__alloc_zero(bytes);
}

static lqt_codebook_view codebook_view(const lqt__codebook *c, uint32_t banks) {
  return (lqt_codebook_view){.vectors = c->blob.data + c->header_bytes,
                             .dtype = (lqt_dtype)c->dtype,
                             .entries = c->vectors / banks,
                             .vector_dim = c->vector_dim,
                             .banks = banks,
                             .bank_stride = (uint64_t)(c->capacity / banks) * c->vector_dim};
}

static lqt_status make_quantized(const maker *m, lqt_weight_desc *desc) {
  const lqt__tensor *t = m->tensor;
  ptrdiff_t index = lqt__file_find_codebook(m->file, t->codebook_id);
  const lqt__codebook *codebook = &m->file->codebooks[index];
  if (t->payload.data == NULL) return left_out(m, "index section");
  if (codebook->blob.data == NULL) return left_out(m, "codebook");
  desc->indices =
      (lqt_index_view){.data = t->payload.data, .row_stride = t->row_stride, .bits = t->index_bits};
  desc->codebook = codebook_view(codebook, t->bank_count);
  desc->bank_rows = t->bank_rows;
  desc->bank_cols = t->bank_cols;
  if (t->group_size != 0) {
    if ((t->group_scales.bytes != 0 && t->group_scales.data == NULL) ||
        (t->zero_points.bytes != 0 && t->zero_points.data == NULL)) {
      return left_out(m, "group scales");
    }
    desc->group_size = t->group_size;
    desc->group_row_stride = lqt__ceil_div(desc->cols, t->group_size);
    desc->group_scales = (const uint16_t *)(const void *)t->group_scales.data;
    desc->zero_points = (const uint16_t *)(const void *)t->zero_points.data;
  }
  if (t->residual_codebook_id == LQT_ID_NONE) return LQT_OK;
  codebook = &m->file->codebooks[lqt__file_find_codebook(m->file, t->residual_codebook_id)];
  if (codebook->blob.data == NULL) return left_out(m, "residual codebook");
  if (t->residual_indices.data == NULL) return left_out(m, "residual indices");
  desc->residual_indices = (lqt_index_view){.data = t->residual_indices.data,
                                            .row_stride = t->residual_row_stride,
                                            .bits = t->residual_bits};
  desc->residual = codebook_view(codebook, 1);
  desc->residual_scale = t->residual_scale;
  return LQT_OK;
}

/* Integers are widened with their zero point taken off; the scale stays apart. */
static lqt_status make_plain(const maker *m, lqt_weight_desc *desc) {
  const lqt__tensor *t = m->tensor;
  if (t->payload.data == NULL) return left_out(m, "element section");
  desc->data = t->payload.data;
  desc->row_stride = t->row_stride;
  if (t->dtype == LQT_DTYPE_F32 || t->dtype == LQT_DTYPE_F16 || t->dtype == LQT_DTYPE_BF16) {
    return LQT_OK;
  }
  uint64_t count = desc->rows * desc->cols;
  float *values = own(m, OWNED_DATA, count * sizeof *values);
  if (values == NULL) return lqt__fail_memory(m->diag, m->where, count * 4, "an integer tensor");
  for (uint64_t i = 0; i < count; i++) {
    int64_t value = t->dtype == LQT_DTYPE_I8 ? (int8_t)t->payload.data[i]
                    : t->dtype == LQT_DTYPE_U8
                        ? t->payload.data[i]
                        : (int32_t)lqt__load_u32(t->payload.data + 4 * i, false);
    values[i] = (float)(value - t->zero_point);
  }
  desc->dtype = LQT_DTYPE_F32;
  desc->data = values;
  desc->row_stride = desc->cols * sizeof *values;
  return LQT_OK;
}

/* Coordinates, ascending by row and column, -> compressed rows with 32-bit columns. */
static lqt_status convert_coordinates(const maker *m, const lqt__delta *d, const uint8_t *pairs,
                                      lqt_weight_desc *desc) {
  uint64_t words = desc->rows + 1 + d->count;
  uint32_t *row_ptr = own(m, OWNED_DELTA, words * sizeof *row_ptr);
  if (row_ptr == NULL) return lqt__fail_memory(m->diag, m->where, words * 4, "a sparse delta");
  uint32_t *columns = row_ptr + desc->rows + 1;
  uint64_t last = 0;
  for (uint64_t i = 0; i < d->count; i++) {
    uint32_t row = lqt__load_u32(pairs + 8 * i, false);
    uint32_t column = lqt__load_u32(pairs + 8 * i + 4, false);
    uint64_t place = row * desc->cols + column;
    if (row >= desc->rows || column >= desc->cols || (i > 0 && place <= last)) {
      return lqt__fail(m->diag, LQT_BAD_DELTA, m->where,
                       "value %llu of delta %u is at row %u, column %u: outside the tensor or not "
                       "ascending",
                       (ull)i, d->id, row, column);
    }
    last = place;
    row_ptr[row + 1]++;
    columns[i] = column;
  }
  for (uint64_t r = 0; r < desc->rows; r++) row_ptr[r + 1] += row_ptr[r];
  desc->delta.kind = LQT_DELTA_CSR;
  desc->delta.row_ptr = row_ptr;
  desc->delta.columns = columns;
  return LQT_OK;
}

static lqt_status make_delta(const maker *m, lqt_weight_desc *desc) {
  if (m->tensor->delta_id == LQT_ID_NONE) return LQT_OK;
  const lqt__delta *d = &m->file->deltas[lqt__file_find_delta(m->file, m->tensor->delta_id)];
  if (d->blob.data == NULL) return left_out(m, "delta");
  if ((d->flags & LQT__DELTA_COMPRESSED) != 0) {
    return lqt__fail(m->diag, LQT_UNSUPPORTED, m->where,
                     "delta %u is compressed, which this version cannot read", d->id);
  }
  uint32_t parameter = 0;
  if (d->encoding == LQT__DELTA_LOW_RANK || d->encoding == LQT__DELTA_GROUPED) {
    parameter = lqt__load_u32(d->blob.data + d->header_bytes, false);
  }
  lqt__delta_layout layout;
  if (!lqt__delta_measure(d->encoding, d->dtype, desc->rows, desc->cols, d->count, parameter,
                          &layout) ||
      layout.bytes != d->blob.bytes ||
      d->count > (d->encoding == LQT__DELTA_CSR || d->encoding == LQT__DELTA_COO ? UINT32_MAX
                                                                                 : UINT64_MAX)) {
    return lqt__fail(m->diag, LQT_BAD_DELTA, m->where, "delta %u does not fit tensor %s", d->id,
                     m->tensor->name);
  }
  const uint8_t *bytes = d->blob.data;
  desc->delta = (lqt_delta_view){
      .dtype = (lqt_dtype)d->dtype, .values = bytes + layout.values, .count = d->count};
  switch (d->encoding) {
    case LQT__DELTA_DENSE:
      desc->delta.kind = LQT_DELTA_DENSE;
      return LQT_OK;
    case LQT__DELTA_CSR:
      desc->delta.kind = LQT_DELTA_CSR;
      desc->delta.row_ptr = (const uint32_t *)(const void *)(bytes + layout.row_ptr);
      if (layout.wide_columns) {
        desc->delta.columns = (const uint32_t *)(const void *)(bytes + layout.columns);
      } else {
        desc->delta.columns16 = (const uint16_t *)(const void *)(bytes + layout.columns);
      }
      return LQT_OK;
    case LQT__DELTA_COO:
      return convert_coordinates(m, d, bytes + layout.columns, desc);
    case LQT__DELTA_LOW_RANK:
      desc->delta.kind = LQT_DELTA_LOW_RANK;
      desc->delta.values_b = bytes + layout.values_b;
      desc->delta.rank = parameter;
      return LQT_OK;
    default:
      desc->delta.kind = LQT_DELTA_GROUPED;
      desc->delta.group = parameter;
      return LQT_OK;
  }
}

static void set_bits(uint8_t *bits, uint64_t stride, uint64_t row, uint64_t begin, uint64_t end) {
  uint8_t *line = bits + row * stride;
  for (uint64_t c = begin; c < end;) {
    if (c % 8 == 0 && end - c >= 8) {
      line[c / 8] = 0xFF;
      c += 8;
    } else {
      line[c / 8] |= (uint8_t)(1u << c % 8);
      c++;
    }
  }
}

static bool expand_runs(const uint8_t *data, const lqt_weight_desc *desc, uint8_t *bits,
                        uint64_t stride) {
  uint64_t runs = lqt__load_u64(data, false), at = 0, total = desc->rows * desc->cols;
  for (uint64_t i = 0; i < runs; i++) {
    uint64_t length = lqt__load_u32(data + 8 + 4 * i, false);
    if (length > total - at || (length == 0 && i != 0)) return false;
    uint64_t end = at + length;
    while (i % 2 == 1 && at < end) {
      uint64_t row = at / desc->cols, begin = at % desc->cols;
      uint64_t stop = end - row * desc->cols < desc->cols ? end - row * desc->cols : desc->cols;
      set_bits(bits, stride, row, begin, stop);
      at = row * desc->cols + stop;
    }
    at = end;
  }
  return at == total;
}

static bool expand_coordinates(const uint8_t *data, const lqt_weight_desc *desc, uint8_t *bits,
                               uint64_t stride) {
  uint64_t count = lqt__load_u64(data, false), last = 0;
  for (uint64_t i = 0; i < count; i++) {
    uint64_t row = lqt__load_u32(data + 8 + 8 * i, false);
    uint64_t column = lqt__load_u32(data + 12 + 8 * i, false);
    uint64_t place = row * desc->cols + column;
    if (row >= desc->rows || column >= desc->cols || (i > 0 && place <= last)) return false;
    last = place;
    set_bits(bits, stride, row, column, column + 1);
  }
  return true;
}

static bool expand_blocks(const uint8_t *data, const lqt_weight_desc *desc, uint8_t *bits,
                          uint64_t stride) {
  uint64_t block_rows = lqt__load_u32(data, false), block_cols = lqt__load_u32(data + 4, false);
  uint64_t across = lqt__ceil_div(desc->cols, block_cols), line = lqt__mask_row_bytes(across);
  for (uint64_t r = 0; r < desc->rows; r++) {
    const uint8_t *blocks = data + 8 + r / block_rows * line;
    for (uint64_t b = 0; b < across; b++) {
      if ((blocks[b / 8] >> b % 8 & 1) == 0) continue;
      uint64_t end = (b + 1) * block_cols;
      set_bits(bits, stride, r, b * block_cols, end < desc->cols ? end : desc->cols);
    }
  }
  return true;
}

/* N of M: ascending positions, log2(M) bits each, a bit stream per row. */
static bool expand_structured(const uint8_t *data, const lqt_weight_desc *desc, uint8_t *bits,
                              uint64_t stride) {
  uint64_t kept = lqt__load_u32(data, false), of = lqt__load_u32(data + 4, false);
  uint64_t width = of == 4 ? 2 : of == 8 ? 3 : 4, groups = desc->cols / of;
  uint64_t line = lqt__mask_row_bytes(groups * kept * width);
  for (uint64_t r = 0; r < desc->rows; r++) {
    const uint8_t *row = data + 8 + r * line;
    uint64_t bit = 0;
    for (uint64_t g = 0; g < groups; g++) {
      for (uint64_t k = 0, last = 0; k < kept; k++) {
        uint64_t position = 0;
        for (uint64_t j = 0; j < width; j++, bit++) {
          position |= (uint64_t)(row[bit / 8] >> bit % 8 & 1) << j;
        }
        if (k > 0 && position <= last) return false;
        last = position;
        set_bits(bits, stride, r, g * of + position, g * of + position + 1);
      }
    }
  }
  return true;
}

static lqt_status make_mask(const maker *m, lqt_weight_desc *desc) {
  if (m->tensor->mask_id == LQT_ID_NONE) return LQT_OK;
  const lqt__mask *mask = &m->file->masks[lqt__file_find_mask(m->file, m->tensor->mask_id)];
  if (mask->blob.data == NULL) return left_out(m, "mask");
  const uint8_t *data = mask->blob.data + mask->header_bytes;
  uint64_t stride = lqt__mask_row_bytes(desc->cols);
  desc->mask = (lqt_mask_view){.bits = data, .row_stride = stride};
  if (mask->encoding == LQT__MASK_BITMAP) return LQT_OK;
  uint8_t *bits = own(m, OWNED_MASK, desc->rows * stride);
  if (bits == NULL) return lqt__fail_memory(m->diag, m->where, desc->rows * stride, "a mask");
  desc->mask.bits = bits;
  bool good = mask->encoding == LQT__MASK_RUN_LENGTH ? expand_runs(data, desc, bits, stride)
              : mask->encoding == LQT__MASK_COORDINATES
                  ? expand_coordinates(data, desc, bits, stride)
              : mask->encoding == LQT__MASK_BLOCK ? expand_blocks(data, desc, bits, stride)
                                                  : expand_structured(data, desc, bits, stride);
  if (good) return LQT_OK;
  return lqt__fail_at(m->diag, LQT_BAD_MASK, m->where, mask->blob.offset,
                      "mask %u has lengths or positions outside tensor %s, or not ascending",
                      mask->id, m->tensor->name);
}

lqt_status lqt__weight_make(const lqt__file *file, size_t index, const char *where,
                            lqt__weight_cache *cache, lqt_diag *diag) {
  maker m = {
      .file = file, .tensor = &file->tensors[index], .where = where, .cache = cache, .diag = diag};
  if (m.tensor->type != 0) {
    return lqt__fail(diag, LQT_UNSUPPORTED, where,
                     "tensor %s is a RecursiveTensor, which is kept but not read", m.tensor->name);
  }
  lqt_weight_desc *desc = &cache->desc;
  *desc = (lqt_weight_desc){.size = sizeof *desc,
                            .dtype = (lqt_dtype)m.tensor->dtype,
                            .rows = m.tensor->rows,
                            .cols = m.tensor->cols,
                            .scale = m.tensor->scale};
  bool quantized = m.tensor->dtype == LQT_DTYPE_CODEBOOK;
  lqt_status status = quantized ? make_quantized(&m, desc) : make_plain(&m, desc);
  if (status == LQT_OK) status = make_delta(&m, desc);
  if (status == LQT_OK) status = make_mask(&m, desc);
  /* Backends index with what stands in the file, so every index is checked here, once. */
  lqt_diag finding = {0};
  if (status == LQT_OK) {
    status = lqt_weight_desc_check(desc, true, &finding);
    if (status != LQT_OK) {
      status =
          lqt__fail_at(diag, status == LQT_OUT_OF_RANGE ? LQT_OUT_OF_RANGE : LQT_BAD_TENSOR, where,
                       m.tensor->payload.offset, "tensor %s: %s", m.tensor->name, finding.what);
    }
  }
  for (int i = 0; i < 3 && status != LQT_OK; i++) {
    lqt__free(cache->owned[i]);
    cache->owned[i] = NULL;
  }
  if (status != LQT_OK) *desc = (lqt_weight_desc){0};
  return status;
}
