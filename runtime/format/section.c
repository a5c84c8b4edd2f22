/* Heads and sizes of codebook, delta and mask sections. */
#include <math.h>
#include <stdio.h>

#include "base/diag.h"
#include "format/bytes.h"
#include "format/check.h"
#include "format/layout.h"

uint64_t lqt__index_row_bytes(uint64_t cols, uint32_t vector_dim, uint32_t bits) {
  uint64_t indices = lqt__ceil_div(cols, vector_dim);
  return ((indices * bits + 7) / 8 + 15) & ~(uint64_t)15;
}

uint64_t lqt__mask_row_bytes(uint64_t cols) { return (lqt__ceil_div(cols, 8) + 7) & ~(uint64_t)7; }

static bool scaled(uint64_t *at, uint64_t count, uint64_t size) {
  uint64_t bytes;
  return lqt__mul(count, size, &bytes) && lqt__add(*at, bytes, at) && lqt__align_up(*at, 4, at);
}

bool lqt__delta_measure(uint8_t encoding, uint8_t dtype, uint64_t rows, uint64_t cols,
                        uint64_t count, uint32_t parameter, lqt__delta_layout *out) {
  uint64_t size = dtype == LQT_DTYPE_F16 ? 2 : 4;
  uint64_t at = LQT__SECTION_HEAD, more;
  bool good = true;
  *out = (lqt__delta_layout){.count = count, .wide_columns = cols > 65536};
  switch (encoding) {
    case LQT__DELTA_DENSE:
      out->values = at;
      good = lqt__mul(rows, cols, &out->count) && scaled(&at, out->count, size);
      break;
    case LQT__DELTA_CSR:
      out->row_ptr = at;
      good = lqt__add(rows, 1, &more) && scaled(&at, more, 4);
      out->columns = at;
      good = good && scaled(&at, count, out->wide_columns ? 4 : 2);
      out->values = at;
      good = good && scaled(&at, count, size);
      break;
    case LQT__DELTA_COO:
      out->columns = at;
      good = scaled(&at, count, 8);
      out->values = at;
      good = good && scaled(&at, count, size);
      break;
    case LQT__DELTA_LOW_RANK:
      out->parameter = at;
      out->values = at += 8;
      good =
          parameter != 0 && lqt__mul(rows, parameter, &out->count) && scaled(&at, out->count, size);
      out->values_b = at;
      good = good && lqt__mul(cols, parameter, &more) && lqt__add(out->count, more, &out->count) &&
             scaled(&at, more, size);
      break;
    case LQT__DELTA_GROUPED:
      out->parameter = at;
      out->values = at += 8;
      good = parameter != 0 &&
             lqt__mul(rows, parameter != 0 ? lqt__ceil_div(cols, parameter) : 0, &out->count) &&
             scaled(&at, out->count, size);
      break;
    default:
      good = false;
  }
  out->bytes = at;
  return good;
}

size_t lqt__codebook_header(const lqt__codebook *codebook, uint8_t out[64]) {
  memset(out, 0, LQT__SECTION_HEAD);
  bool is_long = codebook->vectors >= LQT__CODEBOOK_ESCAPE;
  lqt__store_u16(out + LQT__CODEBOOK_AT_ID, codebook->id);
  lqt__store_u16(out + LQT__CODEBOOK_AT_VECTORS,
                 is_long ? LQT__CODEBOOK_ESCAPE : (uint16_t)codebook->vectors);
  lqt__store_u16(out + LQT__CODEBOOK_AT_DIM, codebook->vector_dim);
  out[LQT__CODEBOOK_AT_DTYPE] = codebook->dtype;
  out[LQT__CODEBOOK_AT_FLAGS] = codebook->flags;
  if (is_long) lqt__store_u32(out + LQT__CODEBOOK_AT_LONG, codebook->vectors);
  return LQT__SECTION_HEAD;
}

size_t lqt__delta_header(const lqt__delta *delta, uint8_t out[64]) {
  memset(out, 0, LQT__SECTION_HEAD);
  bool is_long = delta->count >= LQT__DELTA_ESCAPE;
  uint32_t count = is_long ? LQT__DELTA_ESCAPE : (uint32_t)delta->count;
  lqt__store_u16(out + LQT__DELTA_AT_ID, delta->id);
  out[LQT__DELTA_AT_DTYPE] = delta->dtype;
  lqt__store_u16(out + LQT__DELTA_AT_COUNT, (uint16_t)count);
  out[LQT__DELTA_AT_COUNT + 2] = (uint8_t)(count >> 16);
  out[LQT__DELTA_AT_ENCODING] = delta->encoding;
  out[LQT__DELTA_AT_FLAGS] = delta->flags;
  if (is_long) lqt__store_u64(out + LQT__DELTA_AT_LONG, delta->count);
  return LQT__SECTION_HEAD;
}

size_t lqt__mask_header(const lqt__mask *mask, uint8_t out[64]) {
  memset(out, 0, LQT__SECTION_HEAD);
  lqt__store_u16(out + LQT__MASK_AT_ID, mask->id);
  out[LQT__MASK_AT_ENCODING] = mask->encoding;
  lqt__store_f32(out + LQT__MASK_AT_DENSITY, mask->density);
  lqt__store_u64(out + LQT__MASK_AT_COUNT, mask->count);
  return LQT__SECTION_HEAD;
}

/* A head's bytes from `used` on are zero. */
static bool head_padded(const uint8_t *head, uint64_t used) {
  return lqt__all_zero(head + used, LQT__SECTION_HEAD - used);
}

lqt_status lqt__codebook_decode(const uint8_t *head, uint64_t bytes, bool big, const char *where,
                                uint64_t offset, lqt__codebook *out, lqt_diag *diag) {
  const lqt_status bad = LQT_BAD_CODEBOOK;
  if (bytes < LQT__SECTION_HEAD) {
    return lqt__fail_at(diag, bad, where, offset, "a codebook section of %llu bytes has no head",
                        (unsigned long long)bytes);
  }
  uint16_t id = lqt__load_u16(head + LQT__CODEBOOK_AT_ID, big);
  if (id != out->id) {
    return lqt__fail_at(diag, bad, where, offset, "the section of codebook %u says it is %u",
                        out->id, id);
  }
  uint32_t vectors = lqt__load_u16(head + LQT__CODEBOOK_AT_VECTORS, big);
  bool is_long = vectors == LQT__CODEBOOK_ESCAPE;
  if (is_long) vectors = lqt__load_u32(head + LQT__CODEBOOK_AT_LONG, big);
  if ((is_long && vectors < LQT__CODEBOOK_ESCAPE) ||
      !head_padded(head, is_long ? LQT__CODEBOOK_HEAD_USED : LQT__CODEBOOK_AT_LONG)) {
    return lqt__fail_at(diag, bad, where, offset, "the head of codebook %u is malformed", id);
  }
  out->vectors = vectors;
  out->vector_dim = lqt__load_u16(head + LQT__CODEBOOK_AT_DIM, big);
  out->dtype = head[LQT__CODEBOOK_AT_DTYPE];
  out->flags = head[LQT__CODEBOOK_AT_FLAGS];
  out->header_bytes = LQT__SECTION_HEAD;
  if (out->dtype > LQT_DTYPE_F16) {
    return lqt__fail_at(diag, bad, where, offset, "codebook %u has data type %u; it is 0 or 1", id,
                        out->dtype);
  }
  uint32_t dim = out->vector_dim;
  if (dim != 1 && dim != 2 && dim != 4 && dim != 8) {
    return lqt__fail_at(diag, bad, where, offset,
                        "codebook %u has vectors of %u values; 1, 2, 4 and 8 are possible", id,
                        dim);
  }
  uint64_t vector_bytes = (uint64_t)dim * (out->dtype == LQT_DTYPE_F16 ? 2 : 4);
  uint64_t capacity = (bytes - LQT__SECTION_HEAD) / vector_bytes;
  if ((bytes - LQT__SECTION_HEAD) % vector_bytes != 0 || capacity > UINT32_MAX) {
    return lqt__fail_at(diag, bad, where, offset,
                        "codebook %u has %llu bytes, not a whole number of vectors", id,
                        (unsigned long long)(bytes - LQT__SECTION_HEAD));
  }
  out->capacity = (uint32_t)capacity;
  return LQT_OK;
}

lqt_status lqt__delta_decode(const uint8_t *head, uint64_t bytes, bool big, const char *where,
                             uint64_t offset, lqt__delta *out, lqt_diag *diag) {
  const lqt_status bad = LQT_BAD_DELTA;
  if (bytes < LQT__SECTION_HEAD) {
    return lqt__fail_at(diag, bad, where, offset, "a delta section of %llu bytes has no head",
                        (unsigned long long)bytes);
  }
  uint16_t id = lqt__load_u16(head + LQT__DELTA_AT_ID, big);
  if (id != out->id) {
    return lqt__fail_at(diag, bad, where, offset, "the section of delta %u says it is %u", out->id,
                        id);
  }
  const uint8_t *p = head + LQT__DELTA_AT_COUNT;
  uint64_t count =
      big ? (uint64_t)p[0] << 16 | p[1] << 8 | p[2] : (uint64_t)p[2] << 16 | p[1] << 8 | p[0];
  bool is_long = count == LQT__DELTA_ESCAPE;
  if (is_long) count = lqt__load_u64(head + LQT__DELTA_AT_LONG, big);
  if ((is_long && count < LQT__DELTA_ESCAPE) ||
      !head_padded(head, is_long ? LQT__DELTA_HEAD_USED : LQT__DELTA_AT_LONG)) {
    return lqt__fail_at(diag, bad, where, offset, "the head of delta %u is malformed", id);
  }
  out->count = count;
  out->dtype = head[LQT__DELTA_AT_DTYPE];
  out->encoding = head[LQT__DELTA_AT_ENCODING];
  out->flags = head[LQT__DELTA_AT_FLAGS];
  out->header_bytes = LQT__SECTION_HEAD;
  return LQT_OK;
}

lqt_status lqt__mask_decode(const uint8_t *head, uint64_t bytes, bool big, const char *where,
                            uint64_t offset, lqt__mask *out, lqt_diag *diag) {
  const lqt_status bad = LQT_BAD_MASK;
  if (bytes < LQT__SECTION_HEAD) {
    return lqt__fail_at(diag, bad, where, offset, "a mask section of %llu bytes has no head",
                        (unsigned long long)bytes);
  }
  uint16_t id = lqt__load_u16(head + LQT__MASK_AT_ID, big);
  if (id != out->id) {
    return lqt__fail_at(diag, bad, where, offset, "the section of mask %u says it is %u", out->id,
                        id);
  }
  if (head[LQT__MASK_AT_ZERO] != 0 || !head_padded(head, LQT__MASK_HEAD_USED)) {
    return lqt__fail_at(diag, bad, where, offset, "the head of mask %u is malformed", id);
  }
  out->encoding = head[LQT__MASK_AT_ENCODING];
  out->density = lqt__load_f32(head + LQT__MASK_AT_DENSITY, big);
  out->count = lqt__load_u64(head + LQT__MASK_AT_COUNT, big);
  out->header_bytes = LQT__SECTION_HEAD;
  return LQT_OK;
}

void lqt__section_name(const lqt__file *file, const lqt__section *section, char *out, size_t size) {
  static const char *const prefixes[] = {
      [LQT__SECTION_CODEBOOK] = "codebook",
      [LQT__SECTION_TENSOR] = "tensor",
      [LQT__SECTION_GROUP_SCALES] = "group scales",
      [LQT__SECTION_ZERO_POINTS] = "zero points",
      [LQT__SECTION_RESIDUAL_INDICES] = "residual indices",
      [LQT__SECTION_DELTA] = "delta",
      [LQT__SECTION_MASK] = "mask",
      [LQT__SECTION_EDIT_LOG] = "edit log",
  };
  const char *prefix = prefixes[section->kind];
  switch (section->kind) {
    case LQT__SECTION_CODEBOOK:
      snprintf(out, size, "%s %u", prefix, file->codebooks[section->index].id);
      break;
    case LQT__SECTION_DELTA:
      snprintf(out, size, "%s %u", prefix, file->deltas[section->index].id);
      break;
    case LQT__SECTION_MASK:
      snprintf(out, size, "%s %u", prefix, file->masks[section->index].id);
      break;
    case LQT__SECTION_EDIT_LOG:
      snprintf(out, size, "%s", prefix);
      break;
    default:
      snprintf(out, size, "%s %s", prefix, file->tensors[section->index].name);
  }
}
