/* Raw regions of a tensor's payload: packed indices or elements. Whatever is written must leave a
 * tensor that can be read: indices in range, elements finite. */
#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "edit/mutation.h"
#include "format/bytes.h"
#include "kernel/weight.h"

typedef unsigned long long ull;

static lqt_status check_region(lqt__draft *d, const lqt__tensor *t, uint64_t first,
                               uint64_t count) {
  if (t->payload.data == NULL) {
    return LQT__REFUSE(d, LQT_NOT_FOUND, "tensor %s was damaged and left out", t->name);
  }
  if (count == 0 || first > t->payload.bytes || count > t->payload.bytes - first) {
    return LQT__REFUSE(d, LQT_OUT_OF_RANGE, "bytes %llu to %llu of tensor %s, which has %llu",
                       (ull)first, (ull)(first + count), t->name, (ull)t->payload.bytes);
  }
  return LQT_OK;
}

/* Indices of the rows that the region touches name vectors that there are. */
static lqt_status check_indices(lqt__draft *d, const lqt__tensor *t, uint64_t first,
                                uint64_t count) {
  const lqt__codebook *codebook =
      &d->work->now.codebooks[lqt__file_find_codebook(&d->work->now, t->codebook_id)];
  uint64_t entries = codebook->vectors / codebook->banks;
  uint64_t per_row = lqt__ceil_div(t->cols, codebook->vector_dim);
  if (entries == (uint64_t)1 << t->index_bits) return LQT_OK;
  for (uint64_t r = first / t->row_stride; r <= (first + count - 1) / t->row_stride; r++) {
    const uint8_t *row = t->payload.data + r * t->row_stride;
    for (uint64_t i = 0; i < per_row; i++) {
      uint32_t index = lqt__index_get(row, t->index_bits, i);
      if (index < entries) continue;
      return LQT__REFUSE(d, LQT_OUT_OF_RANGE,
                         "index %llu of row %llu of %s would be %u; the codebook has %llu vectors",
                         (ull)i, (ull)r, t->name, index, (ull)entries);
    }
  }
  return LQT_OK;
}

static lqt_status check_elements(lqt__draft *d, const lqt__tensor *t, uint64_t first,
                                 uint64_t count) {
  uint64_t size = lqt_dtype_size((lqt_dtype)t->dtype);
  double low, high;
  lqt__rules_bounds(d->rules, t->name, &low, &high);
  for (uint64_t i = first / size; i <= (first + count - 1) / size; i++) {
    const uint8_t *p = t->payload.data + i * size;
    float value = t->dtype == LQT_DTYPE_F32   ? lqt__load_f32(p, false)
                  : t->dtype == LQT_DTYPE_F16 ? lqt__f32_from_f16(lqt__load_u16(p, false))
                                              : lqt__f32_from_bf16(lqt__load_u16(p, false));
    if (!isfinite(value)) {
      return LQT__REFUSE(d, LQT_NOT_FINITE, "element %llu of %s would not be finite", (ull)i,
                         t->name);
    }
    if ((double)value < low || (double)value > high) {
      return LQT__REFUSE(d, LQT_VALIDATION_FAILED,
                         "element %llu of %s would be %g, outside the rules' bounds %g to %g",
                         (ull)i, t->name, (double)value, low, high);
    }
  }
  return LQT_OK;
}

/* Writes and looks at what came of it. */
static lqt_status write_region(lqt__draft *d, size_t index, uint64_t first, const void *data,
                               uint64_t count) {
  LQT__TRY(lqt__draft_bytes(d, LQT__SECTION_TENSOR, index, first, data, count));
  const lqt__tensor *t = &d->work->now.tensors[index];
  switch (t->dtype) {
    case LQT_DTYPE_CODEBOOK:
      return check_indices(d, t, first, count);
    case LQT_DTYPE_F32:
    case LQT_DTYPE_F16:
    case LQT_DTYPE_BF16:
      return check_elements(d, t, first, count);
    default:
      return LQT_OK;
  }
}

lqt_status lqt__mutate_raw_write(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  LQT__TRY(check_region(d, &d->work->now.tensors[index], m->first, m->bytes));
  return write_region(d, index, m->first, m->data, m->bytes);
}

lqt_status lqt__mutate_raw_fill(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  LQT__TRY(check_region(d, &d->work->now.tensors[index], m->first, m->count));
  if (m->bytes == 0 || m->count % m->bytes != 0) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "%llu bytes are not whole patterns of %zu",
                       (ull)m->count, m->bytes);
  }
  uint8_t *bytes = lqt__alloc(m->count);
  if (bytes == NULL) return lqt__fail_memory(d->diag, d->where, m->count, "an edit");
  for (uint64_t at = 0; at < m->count; at += m->bytes) memcpy(bytes + at, m->data, m->bytes);
  lqt_status status = write_region(d, index, m->first, bytes, m->count);
  lqt__free(bytes);
  return status;
}

/* The other tensor of a copy or swap; reading needs no permission. */
static lqt_status find_other(lqt__draft *d, const lqt_mutation *m, bool writes, size_t *out) {
  const char *name = m->other != NULL ? m->other : m->target;
  if (writes) {
    LQT__TRY(lqt__draft_find(d, name, out));
  } else {
    ptrdiff_t found = lqt__file_find_tensor(&d->work->now, name);
    if (found < 0) return LQT__REFUSE(d, LQT_NOT_FOUND, "there is no tensor %.200s", name);
    *out = (size_t)found;
  }
  return check_region(d, &d->work->now.tensors[*out], m->second, m->count);
}

lqt_status lqt__mutate_raw_copy(lqt__draft *d, const lqt_mutation *m) {
  size_t index, other;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  LQT__TRY(check_region(d, &d->work->now.tensors[index], m->first, m->count));
  LQT__TRY(find_other(d, m, false, &other));
  uint8_t *bytes = lqt__alloc(m->count);
  if (bytes == NULL) return lqt__fail_memory(d->diag, d->where, m->count, "an edit");
  memcpy(bytes, d->work->now.tensors[other].payload.data + m->second, m->count);
  lqt_status status = write_region(d, index, m->first, bytes, m->count);
  lqt__free(bytes);
  return status;
}

lqt_status lqt__mutate_raw_swap(lqt__draft *d, const lqt_mutation *m) {
  size_t index, other;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  LQT__TRY(check_region(d, &d->work->now.tensors[index], m->first, m->count));
  LQT__TRY(find_other(d, m, true, &other));
  if (index == other && m->first < m->second + m->count && m->second < m->first + m->count) {
    return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "the regions to swap overlap");
  }
  uint8_t *bytes = lqt__alloc_array(m->count, 2);
  if (bytes == NULL) return lqt__fail_memory(d->diag, d->where, 2 * m->count, "an edit");
  memcpy(bytes, d->work->now.tensors[index].payload.data + m->first, m->count);
  memcpy(bytes + m->count, d->work->now.tensors[other].payload.data + m->second, m->count);
  lqt_status status = write_region(d, index, m->first, bytes + m->count, m->count);
  if (status == LQT_OK) status = write_region(d, other, m->second, bytes, m->count);
  lqt__free(bytes);
  return status;
}
