/* Shapes, sizes and references of a file's contents: the same rules for reader and writer. */
#include "format/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "format/bytes.h"
#include "format/layout.h"

#define BAD(status, ...) lqt__fail(check->diag, status, check->where, __VA_ARGS__)
typedef unsigned long long ull;

bool lqt__text_valid(const uint8_t *text, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes;) {
    uint8_t lead = text[i];
    if (lead == 0) return false;
    if (lead < 0x80) {
      i++;
      continue;
    }
    unsigned more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if (lead < 0xC2 || lead > 0xF4 || bytes - i <= more) return false;
    uint32_t code = lead & (0x3Fu >> more);
    for (unsigned k = 1; k <= more; k++) {
      if ((text[i + k] & 0xC0) != 0x80) return false;
      code = code << 6 | (text[i + k] & 0x3Fu);
    }
    if ((more == 2 && code < 0x800) || (more == 3 && code < 0x10000) || code > 0x10FFFF ||
        (code >= 0xD800 && code <= 0xDFFF)) {
      return false;
    }
    i += more + 1;
  }
  return true;
}

/* A partial open left the section out: nothing is known but its size. */
static bool left_out(const lqt__check *check, const lqt__blob *blob, uint32_t header_bytes) {
  return check->file->data != NULL && blob->data == NULL && header_bytes == 0;
}

static bool group_size_valid(uint32_t size) {
  return size == 0 || (size >= 16 && size <= 256 && (size & (size - 1)) == 0);
}

static bool index_bits_valid(uint32_t bits) {
  return bits == 2 || bits == 3 || bits == 4 || bits == 8 || bits == 16;
}

lqt_status lqt__tensor_geometry(const lqt__check *check, const lqt__tensor *tensor,
                                uint32_t vector_dim, uint32_t residual_dim, lqt__geometry *out) {
  *out = (lqt__geometry){0};
  if (tensor->ndim == 0 || tensor->ndim > LQT__MAX_DIMS) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has %u dimensions; 1 to 8 are possible", tensor->name,
               tensor->ndim);
  }
  uint64_t rows = tensor->ndim == 1 ? 1 : tensor->shape[0], cols = 1, elements;
  for (unsigned i = tensor->ndim == 1 ? 0 : 1; i < tensor->ndim; i++) {
    if (!lqt__mul(cols, tensor->shape[i], &cols)) cols = UINT64_MAX;
  }
  if (rows == 0 || cols == 0) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has a dimension of 0", tensor->name);
  }
  if (cols > UINT32_MAX || !lqt__mul(rows, cols, &elements) || elements > LQT__MAX_ELEMENTS) {
    return BAD(LQT_BAD_TENSOR, "tensor %s is too large", tensor->name);
  }
  out->rows = rows;
  out->cols = cols;
  if (tensor->type != 0) return LQT_OK;
  if (tensor->dtype != LQT_DTYPE_CODEBOOK) {
    out->row_stride = cols * lqt_dtype_size((lqt_dtype)tensor->dtype);
    return LQT_OK;
  }
  out->row_stride = lqt__index_row_bytes(cols, vector_dim, tensor->index_bits);
  if (residual_dim != 0) {
    out->residual_row_stride = lqt__index_row_bytes(cols, residual_dim, tensor->residual_bits);
  }
  return LQT_OK;
}

/* Index of an id in its table, or -1. kind: 0 codebook, 1 delta, 2 mask. */
static ptrdiff_t lookup(const lqt__check *check, int kind, uint16_t id) {
  size_t low = 0, high = check->id_count[kind];
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const lqt__id_entry *entry = &check->by_id[kind][middle];
    if (entry->id == id) return entry->index;
    if (entry->id < id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return -1;
}

static lqt_status check_text(const lqt__check *check, const char *text, const char *what) {
  size_t bytes = text != NULL ? strlen(text) : 0;
  if (bytes == 0 || bytes > LQT__MAX_STRING || !lqt__text_valid((const uint8_t *)text, bytes)) {
    return BAD(LQT_BAD_METADATA, "%s is not 1 to %d bytes of UTF-8", what, LQT__MAX_STRING);
  }
  return LQT_OK;
}

static lqt_status check_descriptor(const lqt__check *check, const lqt__tensor *t) {
  LQT__TRY(check_text(check, t->name, "a tensor's name"));
  if (t->type > 1) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has type %u; 0 and 1 are possible", t->name, t->type);
  }
  if (t->dtype != LQT_DTYPE_CODEBOOK && lqt_dtype_size((lqt_dtype)t->dtype) == 0) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has an unknown data type %u", t->name, t->dtype);
  }
  if ((t->flags & ~0x1FFu) != 0) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has unknown flags 0x%x", t->name, t->flags);
  }
  if (!isfinite(t->scale)) return BAD(LQT_BAD_TENSOR, "tensor %s has no finite scale", t->name);
  if (t->type == 1 && (!(t->recursive.sparsity >= 0 && t->recursive.sparsity <= 1) ||
                       t->recursive.distribution > 3)) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has a bad sparsity or distribution", t->name);
  }
  return LQT_OK;
}

static lqt_status check_blob(const lqt__check *check, const lqt__tensor *t, const char *what,
                             const lqt__blob *blob, uint64_t rows, uint64_t row_bytes) {
  uint64_t want;
  if (!lqt__mul(rows, row_bytes, &want) || blob->bytes != want) {
    return BAD(LQT_BAD_TENSOR, "the %s of tensor %s are %llu bytes; its shape needs %llu", what,
               t->name, (ull)blob->bytes, (ull)rows * row_bytes);
  }
  return LQT_OK;
}

/* Adds a use of codebook `index` by a tensor with `banks` banks and indices of `bits` bits. */
static lqt_status use_codebook(const lqt__check *check, const lqt__tensor *t, size_t index,
                               uint64_t banks, uint32_t bits) {
  const lqt__codebook *codebook = &check->file->codebooks[index];
  if (check->banks[index] != 0 && check->banks[index] != banks) {
    return BAD(LQT_BAD_CODEBOOK, "codebook %u is used with %u banks and, by tensor %s, with %llu",
               codebook->id, check->banks[index], t->name, (ull)banks);
  }
  check->banks[index] = (uint32_t)banks;
  if (left_out(check, &codebook->blob, codebook->header_bytes)) return LQT_OK;
  if (codebook->vectors % banks != 0 || codebook->capacity % banks != 0) {
    return BAD(LQT_BAD_CODEBOOK,
               "codebook %u has %u vectors and room for %u, not equal banks of %llu", codebook->id,
               codebook->vectors, codebook->capacity, (ull)banks);
  }
  if (codebook->vectors / banks > (uint64_t)1 << bits) {
    return BAD(LQT_BAD_CODEBOOK,
               "codebook %u has %llu vectors in a bank; tensor %s has %u-bit indices", codebook->id,
               (ull)(codebook->vectors / banks), t->name, bits);
  }
  return LQT_OK;
}

static lqt_status check_banks(const lqt__check *check, const lqt__tensor *t,
                              const lqt__geometry *g) {
  if (t->scope > 2 || t->bank_rows == 0 || t->bank_cols == 0 || t->bank_rows > g->rows ||
      t->bank_cols > g->cols || (t->bank_cols != g->cols && t->bank_cols % 16 != 0)) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has codebook banks of %u x %u in scope %u", t->name,
               t->bank_rows, t->bank_cols, t->scope);
  }
  uint64_t banks = lqt__ceil_div(g->rows, t->bank_rows) * lqt__ceil_div(g->cols, t->bank_cols);
  bool fits = t->scope == 0   ? t->bank_rows == g->rows && t->bank_cols == g->cols
              : t->scope == 1 ? t->bank_rows == 1 && t->bank_cols == g->cols
                              : true;
  if (!fits || banks != t->bank_count) {
    return BAD(LQT_BAD_TENSOR,
               "tensor %s has %u banks of %u x %u, which is not scope %u of %llu x %llu", t->name,
               t->bank_count, t->bank_rows, t->bank_cols, t->scope, (ull)g->rows, (ull)g->cols);
  }
  return LQT_OK;
}

/* The residual codebook, its indices and scale: all there or none. */
static lqt_status check_residual(const lqt__check *check, const lqt__tensor *t,
                                 const lqt__geometry *g) {
  if (t->residual_codebook_id == LQT_ID_NONE) {
    if (t->residual_bits != 0 || t->residual_indices.bytes != 0) {
      return BAD(LQT_BAD_TENSOR, "tensor %s has residual indices without a codebook", t->name);
    }
    return LQT_OK;
  }
  ptrdiff_t index = lookup(check, 0, t->residual_codebook_id);
  if (index < 0) {
    return BAD(LQT_BAD_REFERENCE, "tensor %s names residual codebook %u, which is not there",
               t->name, t->residual_codebook_id);
  }
  const lqt__codebook *codebook = &check->file->codebooks[index];
  if (!index_bits_valid(t->residual_bits) || !isfinite(t->residual_scale)) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has residual indices of %u bits or a bad residual scale",
               t->name, t->residual_bits);
  }
  LQT__TRY(use_codebook(check, t, (size_t)index, 1, t->residual_bits));
  if (left_out(check, &codebook->blob, codebook->header_bytes)) return LQT_OK;
  if ((codebook->flags & LQT__CODEBOOK_RESIDUAL) == 0) {
    return BAD(LQT_BAD_CODEBOOK, "tensor %s uses codebook %u, not marked residual, as a residual",
               t->name, codebook->id);
  }
  return check_blob(check, t, "residual indices", &t->residual_indices, g->rows,
                    g->residual_row_stride);
}

static lqt_status check_groups(const lqt__check *check, const lqt__tensor *t,
                               const lqt__geometry *g) {
  if (!group_size_valid(t->group_size)) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has groups of %u; 0 or a power of two from 16 to 256",
               t->name, t->group_size);
  }
  if (t->group_size == 0) {
    if (t->group_scales.bytes != 0 || t->zero_points.bytes != 0 || t->group_scale_type != 0) {
      return BAD(LQT_BAD_TENSOR, "tensor %s has group scales but no group size", t->name);
    }
    return LQT_OK;
  }
  uint64_t row_bytes = lqt__ceil_div(g->cols, t->group_size) * 2;
  if (t->group_scales.bytes == 0 && t->zero_points.bytes == 0) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has a group size but neither scales nor zero points",
               t->name);
  }
  if (t->group_scale_type != (t->group_scales.bytes != 0 ? LQT_DTYPE_F16 : 0)) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has group scales of type %u; they are f16", t->name,
               t->group_scale_type);
  }
  if (t->group_scales.bytes != 0) {
    LQT__TRY(check_blob(check, t, "group scales", &t->group_scales, g->rows, row_bytes));
  }
  if (t->zero_points.bytes == 0) return LQT_OK;
  return check_blob(check, t, "zero points", &t->zero_points, g->rows, row_bytes);
}

static lqt_status check_quantized(const lqt__check *check, const lqt__tensor *t, lqt__geometry *g) {
  if (!index_bits_valid(t->index_bits)) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has indices of %u bits; 2, 3, 4, 8 and 16 are possible",
               t->name, t->index_bits);
  }
  ptrdiff_t index = lookup(check, 0, t->codebook_id);
  if (index < 0) {
    return BAD(LQT_BAD_REFERENCE, "tensor %s names codebook %u, which is not there", t->name,
               t->codebook_id);
  }
  if (t->zero_point != 0) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has a codebook and a zero point of %d", t->name,
               (int)t->zero_point);
  }
  const lqt__codebook *codebook = &check->file->codebooks[index];
  ptrdiff_t residual =
      t->residual_codebook_id == LQT_ID_NONE ? -1 : lookup(check, 0, t->residual_codebook_id);
  uint32_t residual_dim = residual >= 0 ? check->file->codebooks[residual].vector_dim : 0;
  bool known = !left_out(check, &codebook->blob, codebook->header_bytes);
  LQT__TRY(lqt__tensor_geometry(check, t, known ? codebook->vector_dim : 1, residual_dim, g));
  LQT__TRY(check_banks(check, t, g));
  LQT__TRY(use_codebook(check, t, (size_t)index, t->bank_count, t->index_bits));
  if (known) {
    LQT__TRY(check_blob(check, t, "indices", &t->payload, g->rows, g->row_stride));
  }
  LQT__TRY(check_groups(check, t, g));
  return check_residual(check, t, g);
}

/* Fields of the quantization layout that a tensor without a codebook leaves neutral. */
static lqt_status check_plain(const lqt__check *check, const lqt__tensor *t, lqt__geometry *g) {
  LQT__TRY(lqt__tensor_geometry(check, t, 0, 0, g));
  if (t->index_bits != 0 || t->residual_bits != 0 || t->scope != 0 || t->group_size != 0 ||
      t->group_scale_type != 0 || t->bank_count != 0 || t->bank_rows != 0 || t->bank_cols != 0 ||
      t->residual_codebook_id != LQT_ID_NONE || t->group_scales.bytes != 0 ||
      t->zero_points.bytes != 0 || t->residual_indices.bytes != 0) {
    return BAD(LQT_BAD_TENSOR, "tensor %s has no codebook but a quantization layout", t->name);
  }
  if (t->type == 1) return LQT_OK;
  if (t->codebook_id != LQT_ID_NONE) {
    return BAD(LQT_BAD_TENSOR, "tensor %s holds %s values and names codebook %u", t->name,
               lqt_dtype_name((lqt_dtype)t->dtype), t->codebook_id);
  }
  if (t->zero_point != 0 && t->dtype != LQT_DTYPE_I8 && t->dtype != LQT_DTYPE_U8) {
    return BAD(LQT_BAD_TENSOR, "tensor %s holds %s values and a zero point of %d", t->name,
               lqt_dtype_name((lqt_dtype)t->dtype), (int)t->zero_point);
  }
  return check_blob(check, t, "elements", &t->payload, g->rows, g->row_stride);
}

static lqt_status check_codebook(const lqt__check *check, const lqt__codebook *c) {
  if (left_out(check, &c->blob, c->header_bytes)) return LQT_OK;
  uint32_t dim = c->vector_dim;
  if (c->id == LQT_ID_NONE || c->dtype > LQT_DTYPE_F16 || (c->flags & ~0xFu) != 0 ||
      (dim != 1 && dim != 2 && dim != 4 && dim != 8)) {
    return BAD(LQT_BAD_CODEBOOK, "codebook %u has a bad id, data type, flags or dimension", c->id);
  }
  if (c->vectors == 0 || c->vectors > c->capacity ||
      (c->vectors < c->capacity && (c->flags & LQT__CODEBOOK_EXPANDABLE) == 0)) {
    return BAD(LQT_BAD_CODEBOOK, "codebook %u has %u vectors and room for %u", c->id, c->vectors,
               c->capacity);
  }
  uint64_t bytes = (uint64_t)c->capacity * dim * (c->dtype == LQT_DTYPE_F16 ? 2 : 4);
  if (c->blob.bytes != bytes + LQT__SECTION_HEAD) {
    return BAD(LQT_BAD_CODEBOOK, "codebook %u has %llu bytes; %llu are needed", c->id,
               (ull)c->blob.bytes, (ull)bytes + LQT__SECTION_HEAD);
  }
  return LQT_OK;
}

static lqt_status check_delta(const lqt__check *check, const lqt__delta *d) {
  if (left_out(check, &d->blob, d->header_bytes)) return LQT_OK;
  if (d->id == LQT_ID_NONE || d->dtype > LQT_DTYPE_F16 || d->encoding > LQT__DELTA_GROUPED ||
      (d->flags & ~3u) != 0) {
    return BAD(LQT_BAD_DELTA, "delta %u has a bad id, data type, encoding or flags", d->id);
  }
  if ((d->flags & LQT__DELTA_COMPRESSED) != 0 && (check->file->flags & LQT__FLAG_COMPRESSED) == 0) {
    return BAD(LQT_BAD_DELTA, "delta %u is compressed; the header's flags say nothing is", d->id);
  }
  return LQT_OK;
}

static lqt_status check_mask(const lqt__check *check, const lqt__mask *m) {
  if (left_out(check, &m->blob, m->header_bytes)) return LQT_OK;
  if (m->id == LQT_ID_NONE || m->encoding > LQT__MASK_STRUCTURED || m->count == 0 ||
      !(m->density >= 0 && m->density <= 100)) {
    return BAD(LQT_BAD_MASK, "mask %u has a bad id, encoding, count or density", m->id);
  }
  return LQT_OK;
}

/* Two u32 at the start of a section's data, when its bytes are here. */
static bool parameters(const lqt__check *check, const lqt__blob *blob, uint32_t *first,
                       uint32_t *second) {
  if (blob->data == NULL || blob->bytes < LQT__SECTION_HEAD + 8) return false;
  *first = lqt__load_u32(blob->data + LQT__SECTION_HEAD, check->big_endian);
  *second = lqt__load_u32(blob->data + LQT__SECTION_HEAD + 4, check->big_endian);
  return true;
}

static lqt_status fit_delta(const lqt__check *check, const lqt__tensor *t, const lqt__geometry *g) {
  if (t->outlier_delta_id != LQT_ID_NONE && t->outlier_delta_id != t->delta_id) {
    return BAD(LQT_BAD_REFERENCE, "tensor %s keeps outliers in delta %u but its delta is %u",
               t->name, t->outlier_delta_id, t->delta_id);
  }
  if (t->delta_id == LQT_ID_NONE) return LQT_OK;
  ptrdiff_t index = lookup(check, 1, t->delta_id);
  if (index < 0) {
    return BAD(LQT_BAD_REFERENCE, "tensor %s names delta %u, which is not there", t->name,
               t->delta_id);
  }
  const lqt__delta *d = &check->file->deltas[index];
  if (t->type == 1 || (d->flags & LQT__DELTA_COMPRESSED) != 0) return LQT_OK;
  if (left_out(check, &d->blob, d->header_bytes)) return LQT_OK;
  uint32_t parameter = 0, zero = 0;
  if (d->encoding == LQT__DELTA_LOW_RANK || d->encoding == LQT__DELTA_GROUPED) {
    if (d->blob.data == NULL) return LQT_OK; /* put later */
    if (!parameters(check, &d->blob, &parameter, &zero) || zero != 0 ||
        (d->encoding == LQT__DELTA_GROUPED && parameter > g->cols)) {
      return BAD(LQT_BAD_DELTA, "delta %u has a bad rank or group", d->id);
    }
  }
  lqt__delta_layout layout;
  if (!lqt__delta_measure(d->encoding, d->dtype, g->rows, g->cols, d->count, parameter, &layout) ||
      layout.count != d->count || layout.bytes != d->blob.bytes) {
    return BAD(LQT_BAD_DELTA,
               "delta %u has %llu values in %llu bytes, which do not fit tensor %s of %llu x %llu",
               d->id, (ull)d->count, (ull)d->blob.bytes, t->name, (ull)g->rows, (ull)g->cols);
  }
  return LQT_OK;
}

/* Bytes that a mask section must have; false when its parameters are bad. */
static bool mask_bytes(const lqt__check *check, const lqt__mask *m, const lqt__geometry *g,
                       uint64_t *out) {
  uint32_t first = 0, second = 0;
  if (m->encoding != LQT__MASK_BITMAP && !parameters(check, &m->blob, &first, &second)) {
    return false;
  }
  uint64_t count =
      check->big_endian ? (uint64_t)first << 32 | second : (uint64_t)second << 32 | first;
  uint64_t rows = g->rows, row_bytes = 0, data;
  unsigned log2 = 0;
  *out = LQT__SECTION_HEAD + 8;
  switch (m->encoding) {
    case LQT__MASK_BITMAP:
      *out = LQT__SECTION_HEAD;
      row_bytes = lqt__mask_row_bytes(g->cols);
      break;
    case LQT__MASK_RUN_LENGTH:
      rows = count;
      row_bytes = 4;
      break;
    case LQT__MASK_COORDINATES:
      rows = count;
      row_bytes = 8;
      break;
    case LQT__MASK_BLOCK:
      if (first == 0 || second == 0 || first > g->rows || second > g->cols) return false;
      rows = lqt__ceil_div(g->rows, first);
      row_bytes = lqt__mask_row_bytes(lqt__ceil_div(g->cols, second));
      break;
    default: /* structured: `first` kept of `second` */
      if (second != 4 && second != 8 && second != 16) return false;
      if (first == 0 || first >= second || g->cols % second != 0) return false;
      log2 = second == 4 ? 2 : second == 8 ? 3 : 4;
      row_bytes = lqt__mask_row_bytes(g->cols / second * first * log2);
  }
  return lqt__mul(rows, row_bytes, &data) && lqt__add(*out, data, out);
}

static lqt_status fit_mask(const lqt__check *check, const lqt__tensor *t, const lqt__geometry *g) {
  if (t->mask_id == LQT_ID_NONE) return LQT_OK;
  ptrdiff_t index = lookup(check, 2, t->mask_id);
  if (index < 0) {
    return BAD(LQT_BAD_REFERENCE, "tensor %s names mask %u, which is not there", t->name,
               t->mask_id);
  }
  const lqt__mask *m = &check->file->masks[index];
  if (t->type == 1) return LQT_OK;
  if (left_out(check, &m->blob, m->header_bytes)) return LQT_OK;
  if (m->count != g->rows * g->cols) {
    return BAD(LQT_BAD_MASK, "mask %u covers %llu elements; tensor %s has %llu", m->id,
               (ull)m->count, t->name, (ull)(g->rows * g->cols));
  }
  uint64_t bytes;
  if (m->blob.data == NULL) return LQT_OK; /* put later */
  /* Runs and coordinates may be odd: the section ends with its last one, every length is exact. */
  if (!mask_bytes(check, m, g, &bytes) || bytes != m->blob.bytes) {
    return BAD(LQT_BAD_MASK, "the %llu bytes of mask %u do not fit tensor %s of %llu x %llu",
               (ull)m->blob.bytes, m->id, t->name, (ull)g->rows, (ull)g->cols);
  }
  return LQT_OK;
}

static int compare_ids(const void *a, const void *b) {
  const lqt__id_entry *x = a, *y = b;
  return (x->id > y->id) - (x->id < y->id);
}

static uint16_t id_of(const lqt__file *file, int kind, size_t index) {
  return kind == 0   ? file->codebooks[index].id
         : kind == 1 ? file->deltas[index].id
                     : file->masks[index].id;
}

static lqt_status index_ids(lqt__check *check) {
  static const char *const names[] = {"codebook", "delta", "mask"};
  const lqt__file *file = check->file;
  const size_t counts[3] = {file->codebook_count, file->delta_count, file->mask_count};
  for (int kind = 0; kind < 3; kind++) {
    size_t count = counts[kind];
    if (count > LQT_ID_NONE) {
      return BAD(LQT_BAD_METADATA, "%zu entries in a table of 16-bit ids", count);
    }
    lqt__id_entry *entries = lqt__alloc_array(count, sizeof *entries);
    check->by_id[kind] = entries;
    if (entries == NULL) return lqt__fail_memory(check->diag, check->where, count * 4, "ids");
    for (size_t i = 0; i < count; i++) {
      entries[i] = (lqt__id_entry){.id = id_of(file, kind, i), .index = (uint16_t)i};
    }
    qsort(entries, count, sizeof *entries, compare_ids);
    for (size_t i = 0; i < count; i++) {
      bool none = entries[i].id == LQT_ID_NONE;
      if (!none && (i == 0 || entries[i].id != entries[i - 1].id)) continue;
      return BAD(LQT_BAD_METADATA, "%s id %u %s", names[kind], entries[i].id,
                 none ? "means none and cannot be used" : "is used twice");
    }
    check->id_count[kind] = count;
  }
  return LQT_OK;
}

static int compare_names(const void *a, const void *b, void *context) {
  const lqt__file *file = context;
  return strcmp(file->tensors[*(const uint32_t *)a].name, file->tensors[*(const uint32_t *)b].name);
}

lqt_status lqt__file_sort_names(const lqt__file *file, const char *where, uint32_t *order,
                                lqt_diag *diag) {
  for (size_t i = 0; i < file->tensor_count; i++) order[i] = (uint32_t)i;
  qsort_r(order, file->tensor_count, sizeof *order, compare_names, (void *)file);
  for (size_t i = 1; i < file->tensor_count; i++) {
    if (compare_names(&order[i - 1], &order[i], (void *)file) == 0) {
      return lqt__fail(diag, LQT_BAD_METADATA, where, "two tensors are called %s",
                       file->tensors[order[i]].name);
    }
  }
  return LQT_OK;
}

static int compare_keys(const void *a, const void *b) {
  const lqt__hyperparameter *const *x = a, *const *y = b;
  return strcmp((*x)->key, (*y)->key);
}

static lqt_status check_hyperparameters(const lqt__check *check) {
  const lqt__file *file = check->file;
  size_t count = file->hyperparameter_count;
  for (size_t i = 0; i < count; i++) {
    LQT__TRY(check_text(check, file->hyperparameters[i].key, "a hyperparameter's key"));
    if (!isfinite(file->hyperparameters[i].value)) {
      return BAD(LQT_BAD_METADATA, "hyperparameter %s is not finite", file->hyperparameters[i].key);
    }
  }
  const lqt__hyperparameter **sorted = lqt__alloc_array(count, sizeof *sorted);
  if (sorted == NULL) return lqt__fail_memory(check->diag, check->where, count * 8, "keys");
  for (size_t i = 0; i < count; i++) sorted[i] = &file->hyperparameters[i];
  qsort(sorted, count, sizeof *sorted, compare_keys);
  lqt_status status = LQT_OK;
  for (size_t i = 1; i < count && status == LQT_OK; i++) {
    if (compare_keys(&sorted[i - 1], &sorted[i]) == 0) {
      status = BAD(LQT_BAD_METADATA, "hyperparameter %s is there twice", sorted[i]->key);
    }
  }
  lqt__free(sorted);
  return status;
}

/* Chunk types that stand once at most, and those that the writer makes from other fields. */
static bool chunk_derived(uint16_t type) {
  return type == LQT__CHUNK_HYPERPARAMETERS || type == LQT__CHUNK_TENSORS ||
         (type >= LQT__CHUNK_CODEBOOKS && type <= LQT__CHUNK_MASKS) ||
         type == LQT__CHUNK_QUANT_LAYOUT || type == LQT__CHUNK_DIGESTS;
}

static lqt_status check_chunks(const lqt__check *check) {
  uint32_t seen = 0;
  for (size_t i = 0; i < check->file->chunk_count; i++) {
    uint16_t type = check->file->chunks[i].type;
    if (type == 0 || chunk_derived(type)) {
      return BAD(LQT_BAD_METADATA, "a chunk of type 0x%04x is not possible here", type);
    }
    if (type > LQT__CHUNK_PROVENANCE) continue;
    if ((seen >> type & 1) != 0) {
      return BAD(LQT_BAD_METADATA, "chunk 0x%04x is there twice", type);
    }
    seen |= 1u << type;
  }
  return LQT_OK;
}

static lqt_status check_all(lqt__check *check, lqt__geometry *out_geometry) {
  const lqt__file *file = check->file;
  LQT__TRY(check_hyperparameters(check));
  LQT__TRY(check_chunks(check));
  LQT__TRY(index_ids(check));
  for (size_t i = 0; i < file->codebook_count; i++) {
    LQT__TRY(check_codebook(check, &file->codebooks[i]));
  }
  for (size_t i = 0; i < file->delta_count; i++) LQT__TRY(check_delta(check, &file->deltas[i]));
  for (size_t i = 0; i < file->mask_count; i++) LQT__TRY(check_mask(check, &file->masks[i]));
  for (size_t i = 0; i < file->tensor_count; i++) {
    const lqt__tensor *t = &file->tensors[i];
    lqt__geometry geometry;
    LQT__TRY(check_descriptor(check, t));
    bool quantized = t->type == 0 && t->dtype == LQT_DTYPE_CODEBOOK;
    LQT__TRY(quantized ? check_quantized(check, t, &geometry) : check_plain(check, t, &geometry));
    LQT__TRY(fit_delta(check, t, &geometry));
    LQT__TRY(fit_mask(check, t, &geometry));
    if (out_geometry != NULL) out_geometry[i] = geometry;
  }
  return LQT_OK;
}

lqt_status lqt__file_check(const lqt__file *file, const char *where, bool big_endian,
                           lqt__geometry *out_geometry, uint32_t *out_banks, lqt_diag *diag) {
  lqt__check check = {.file = file, .where = where, .big_endian = big_endian, .diag = diag};
  check.banks = lqt__alloc_array(file->codebook_count, sizeof *check.banks);
  if (check.banks == NULL) return lqt__fail_memory(diag, where, 0, "bank counts");
  lqt_status status = check_all(&check, out_geometry);
  if (status == LQT_OK && out_banks != NULL) {
    memcpy(out_banks, check.banks, file->codebook_count * sizeof *check.banks);
  }
  for (int kind = 0; kind < 3; kind++) lqt__free(check.by_id[kind]);
  lqt__free(check.banks);
  return status;
}
