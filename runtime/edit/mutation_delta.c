/* Deltas: values, single elements, whole ones. */
#include <stdlib.h>
#include <string.h>

#include "base/diag.h"
#include "edit/mutation.h"
#include "format/bytes.h"
#include "format/layout.h"

typedef unsigned long long ull;

static lqt_status no_memory(lqt__draft *d, uint64_t bytes) {
  return lqt__fail_memory(d->diag, d->where, bytes, "a delta");
}

static lqt_status check_mutable(lqt__draft *d, const lqt__delta *delta) {
  if (delta->blob.data == NULL) {
    return LQT__REFUSE(d, LQT_NOT_FOUND, "delta %u was damaged and left out", delta->id);
  }
  if ((delta->flags & LQT__DELTA_MUTABLE) == 0) {
    return LQT__REFUSE(d, LQT_IMMUTABLE, "delta %u is not MUTABLE", delta->id);
  }
  if ((delta->flags & LQT__DELTA_COMPRESSED) != 0) {
    return LQT__REFUSE(d, LQT_UNSUPPORTED, "delta %u is compressed, which is kept and not edited",
                       delta->id);
  }
  return LQT_OK;
}

/* The delta of a tensor, NULL when it has none. */
static lqt_status delta_of(lqt__draft *d, const lqt__tensor *tensor, const lqt__delta **out) {
  *out = NULL;
  if (tensor->delta_id == LQT_ID_NONE) return LQT_OK;
  *out = &d->work->now.deltas[lqt__file_find_delta(&d->work->now, tensor->delta_id)];
  return check_mutable(d, *out);
}

/* The layout of a delta that fits a tensor. */
static lqt_status measure(lqt__draft *d, const lqt__delta *delta, const lqt__tensor *tensor,
                          lqt__delta_layout *out) {
  bool has_parameter =
      delta->encoding == LQT__DELTA_LOW_RANK || delta->encoding == LQT__DELTA_GROUPED;
  uint32_t parameter =
      has_parameter ? lqt__load_u32(delta->blob.data + delta->header_bytes, false) : 0;
  if (lqt__delta_measure(delta->encoding, delta->dtype, tensor->rows, tensor->cols, delta->count,
                         parameter, out) &&
      out->bytes == delta->blob.bytes) {
    return LQT_OK;
  }
  return LQT__REFUSE(d, LQT_BAD_DELTA, "delta %u does not fit tensor %s", delta->id, tensor->name);
}

/* ---- Values by their number ---- */

/* The tensors that use the delta may be changed; *out is the last of them. */
static lqt_status permit_users(lqt__draft *d, uint16_t id, const lqt__tensor **out) {
  *out = NULL;
  for (size_t i = 0; i < d->work->now.tensor_count; i++) {
    const lqt__tensor *t = &d->work->now.tensors[i];
    if (t->delta_id != id) continue;
    LQT__TRY(lqt__draft_permit(d, t));
    *out = t;
  }
  if (*out != NULL) return LQT_OK;
  return LQT__REFUSE(d, LQT_NOT_FOUND, "no tensor uses delta %u", id);
}

lqt_status lqt__mutate_delta_values(lqt__draft *d, const lqt_mutation *m) {
  ptrdiff_t index = lqt__file_find_delta(&d->work->now, m->id);
  if (index < 0) return LQT__REFUSE(d, LQT_NOT_FOUND, "there is no delta %u", m->id);
  const lqt__delta *delta = &d->work->now.deltas[index];
  const lqt__tensor *user;
  LQT__TRY(check_mutable(d, delta));
  LQT__TRY(permit_users(d, m->id, &user));
  lqt__delta_layout layout;
  LQT__TRY(measure(d, delta, user, &layout));
  if (m->value_count == 0) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "no values for delta %u were given", m->id);
  }
  if (m->first > delta->count || m->value_count > delta->count - m->first) {
    return LQT__REFUSE(d, LQT_OUT_OF_RANGE, "delta %u has %llu values; %llu to %llu pass them",
                       m->id, (ull)delta->count, (ull)m->first, (ull)(m->first + m->value_count));
  }
  uint64_t size = lqt_dtype_size((lqt_dtype)delta->dtype);
  uint8_t *bytes = lqt__alloc(m->value_count * size);
  if (bytes == NULL) return no_memory(d, m->value_count * size);
  lqt_status status =
      lqt__draft_encode(d, user->name, m->values, m->value_count, (lqt_dtype)delta->dtype, bytes);
  /* A and B of a low-rank delta may have padding between them. */
  uint64_t rank =
      layout.values_b != 0 ? lqt__load_u32(delta->blob.data + delta->header_bytes, false) : 0;
  uint64_t split = layout.values_b != 0 ? user->rows * rank : delta->count;
  uint64_t before = m->first < split ? split - m->first : 0;
  if (before > m->value_count) before = m->value_count;
  if (status == LQT_OK && before != 0) {
    status = lqt__draft_bytes(d, LQT__SECTION_DELTA, (size_t)index, layout.values + m->first * size,
                              bytes, before * size);
  }
  if (status == LQT_OK && before < m->value_count) {
    uint64_t first = m->first + before - split;
    status = lqt__draft_bytes(d, LQT__SECTION_DELTA, (size_t)index, layout.values_b + first * size,
                              bytes + before * size, (m->value_count - before) * size);
  }
  lqt__free(bytes);
  return status;
}

/* ---- Whole deltas ---- */

/* Puts a section in place of the tensor's delta, or beside it when others use that one. */
static lqt_status put_delta(lqt__draft *d, size_t index, uint16_t id, const uint8_t *section,
                            uint64_t bytes) {
  lqt__tensor tensor = d->work->now.tensors[index];
  uint16_t old = tensor.delta_id;
  LQT__TRY(lqt__draft_section(d, LQT__SECTION_DELTA, id, NULL, section, bytes));
  if (old == id) return LQT_OK;
  tensor.delta_id = id;
  if (tensor.outlier_delta_id == old) tensor.outlier_delta_id = LQT_ID_NONE;
  LQT__TRY(lqt__draft_tensor(d, tensor.name, &tensor));
  return lqt__draft_drop_unused(d, LQT__SECTION_DELTA, old);
}

/* The id that a new delta of the tensor takes. */
static lqt_status choose_id(lqt__draft *d, const lqt__tensor *tensor, uint16_t *out) {
  *out = tensor->delta_id;
  if (*out != LQT_ID_NONE && lqt__draft_users(d, LQT__SECTION_DELTA, *out) == 1) return LQT_OK;
  return lqt__draft_fresh_id(d, LQT__SECTION_DELTA, out);
}

/* Room for a section with its head. */
static lqt_status begin_section(lqt__draft *d, const lqt__delta *delta, const lqt__tensor *tensor,
                                uint32_t parameter, lqt__delta_layout *layout, uint8_t **out) {
  if (!lqt__delta_measure(delta->encoding, delta->dtype, tensor->rows, tensor->cols, delta->count,
                          parameter, layout)) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "a rank or group of %u is not possible",
                       parameter);
  }
  *out = lqt__alloc_zero(layout->bytes);
  if (*out == NULL) return no_memory(d, layout->bytes);
  lqt__delta head = *delta;
  head.count = layout->count;
  (void)lqt__delta_header(&head, *out);
  return LQT_OK;
}

lqt_status lqt__sparse_delta(lqt__draft *d, uint8_t encoding, lqt_dtype dtype,
                             const lqt__tensor *tensor, const uint32_t *pairs,
                             const uint8_t *values, uint64_t count, uint16_t id, uint8_t flags,
                             uint8_t **out, uint64_t *out_bytes) {
  lqt__delta delta = {
      .id = id, .dtype = (uint8_t)dtype, .encoding = encoding, .flags = flags, .count = count};
  lqt__delta_layout layout;
  if (count > UINT32_MAX) {
    return LQT__REFUSE(d, LQT_LIMIT, "a sparse delta of %llu values; store it dense", (ull)count);
  }
  LQT__TRY(begin_section(d, &delta, tensor, 0, &layout, out));
  uint8_t *section = *out;
  *out_bytes = layout.bytes;
  memcpy(section + layout.values, values, count * lqt_dtype_size(dtype));
  for (uint64_t i = 0; i < count; i++) {
    uint32_t row = pairs[2 * i], column = pairs[2 * i + 1];
    if (encoding == LQT__DELTA_COO) {
      lqt__store_u32(section + layout.columns + 8 * i, row);
      lqt__store_u32(section + layout.columns + 8 * i + 4, column);
      continue;
    }
    uint8_t *next = section + layout.row_ptr + 4 * ((uint64_t)row + 1);
    lqt__store_u32(next, lqt__load_u32(next, false) + 1);
    if (layout.wide_columns) {
      lqt__store_u32(section + layout.columns + 4 * i, column);
    } else {
      lqt__store_u16(section + layout.columns + 2 * i, (uint16_t)column);
    }
  }
  for (uint64_t r = 0; encoding == LQT__DELTA_CSR && r < tensor->rows; r++) {
    uint8_t *next = section + layout.row_ptr + 4 * (r + 1);
    lqt__store_u32(next, lqt__load_u32(next, false) + lqt__load_u32(next - 4, false));
  }
  return LQT_OK;
}

static lqt_status check_pairs(lqt__draft *d, const lqt__tensor *tensor, const uint32_t *pairs,
                              uint64_t count, bool ascending) {
  uint64_t last = 0;
  for (uint64_t i = 0; i < count; i++) {
    uint64_t place = pairs[2 * i] * tensor->cols + pairs[2 * i + 1];
    if (pairs[2 * i] >= tensor->rows || pairs[2 * i + 1] >= tensor->cols) {
      return LQT__REFUSE(d, LQT_OUT_OF_RANGE,
                         "row %u, column %u is outside tensor %s of %llu x "
                         "%llu",
                         pairs[2 * i], pairs[2 * i + 1], tensor->name, (ull)tensor->rows,
                         (ull)tensor->cols);
    }
    if (ascending && i > 0 && place <= last) {
      return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "coordinates %llu does not ascend", (ull)i);
    }
    last = place;
  }
  return LQT_OK;
}

static lqt_status make_whole(lqt__draft *d, const lqt_mutation *m, const lqt__tensor *tensor,
                             uint16_t id, uint8_t **out, uint64_t *out_bytes) {
  static const uint8_t encodings[] = {[LQT_DELTA_DENSE] = LQT__DELTA_DENSE,
                                      [LQT_DELTA_CSR] = LQT__DELTA_CSR,
                                      [LQT_DELTA_LOW_RANK] = LQT__DELTA_LOW_RANK,
                                      [LQT_DELTA_GROUPED] = LQT__DELTA_GROUPED};
  bool sparse = m->delta_kind == LQT_DELTA_CSR;
  lqt__delta delta = {.id = id,
                      .dtype = (uint8_t)m->dtype,
                      .encoding = encodings[m->delta_kind],
                      .flags = LQT__DELTA_MUTABLE,
                      .count = m->value_count};
  lqt__delta_layout layout;
  if (sparse && m->coordinate_count != m->value_count) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "%zu coordinates for %zu values",
                       m->coordinate_count, m->value_count);
  }
  if (sparse) LQT__TRY(check_pairs(d, tensor, m->coordinates, m->value_count, true));
  if (m->delta_kind == LQT_DELTA_GROUPED && m->parameter > tensor->cols) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "groups of %u in %llu columns", m->parameter,
                       (ull)tensor->cols);
  }
  uint64_t size = lqt_dtype_size(m->dtype);
  uint8_t *values = lqt__alloc(m->value_count * size);
  if (values == NULL) return no_memory(d, m->value_count * size);
  lqt_status status =
      lqt__draft_encode(d, tensor->name, m->values, m->value_count, m->dtype, values);
  if (status == LQT_OK && sparse) {
    status = lqt__sparse_delta(d, LQT__DELTA_CSR, m->dtype, tensor, m->coordinates, values,
                               m->value_count, id, LQT__DELTA_MUTABLE, out, out_bytes);
  } else if (status == LQT_OK) {
    status = begin_section(d, &delta, tensor, m->parameter, &layout, out);
    if (status == LQT_OK && layout.count != m->value_count) {
      status = LQT__REFUSE(d, LQT_DIMENSION_MISMATCH,
                           "this delta of %s has %llu values; %zu were "
                           "given",
                           tensor->name, (ull)layout.count, m->value_count);
      lqt__free(*out);
      *out = NULL;
    }
    if (status == LQT_OK) {
      uint64_t first = layout.values_b != 0 ? tensor->rows * m->parameter : layout.count;
      if (layout.parameter != 0) lqt__store_u32(*out + layout.parameter, m->parameter);
      memcpy(*out + layout.values, values, first * size);
      if (layout.values_b != 0) {
        memcpy(*out + layout.values_b, values + first * size, (layout.count - first) * size);
      }
      *out_bytes = layout.bytes;
    }
  }
  lqt__free(values);
  return status;
}

static lqt_status check_dtype(lqt__draft *d, lqt_dtype dtype) {
  if (dtype == LQT_DTYPE_F32 || dtype == LQT_DTYPE_F16) return LQT_OK;
  return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "delta values are f32 or f16, not %s",
                     lqt_dtype_name(dtype));
}

lqt_status lqt__mutate_delta_replace(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  const lqt__tensor *tensor = &d->work->now.tensors[index];
  const lqt__delta *old;
  LQT__TRY(delta_of(d, tensor, &old));
  LQT__TRY(check_dtype(d, m->dtype));
  if (m->delta_kind < LQT_DELTA_DENSE || m->delta_kind > LQT_DELTA_GROUPED) {
    return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "delta_kind %d is none that can be made",
                       (int)m->delta_kind);
  }
  uint16_t id;
  uint8_t *section = NULL;
  uint64_t bytes = 0;
  LQT__TRY(choose_id(d, tensor, &id));
  LQT__TRY(make_whole(d, m, tensor, id, &section, &bytes));
  lqt_status status = put_delta(d, index, id, section, bytes);
  lqt__free(section);
  return status;
}

lqt_status lqt__mutate_delta_remove(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  lqt__tensor tensor = d->work->now.tensors[index];
  const lqt__delta *old;
  LQT__TRY(delta_of(d, &tensor, &old));
  if (old == NULL) return LQT__REFUSE(d, LQT_NOT_FOUND, "tensor %s has no delta", tensor.name);
  uint16_t id = tensor.delta_id;
  tensor.delta_id = tensor.outlier_delta_id = LQT_ID_NONE;
  LQT__TRY(lqt__draft_tensor(d, tensor.name, &tensor));
  return lqt__draft_drop_unused(d, LQT__SECTION_DELTA, id);
}

/* ---- Single elements ---- */

typedef struct update {
  uint64_t place; /* row * cols + column */
  uint64_t order; /* in which they were given */
} update;

static int compare_updates(const void *a, const void *b) {
  const update *x = a, *y = b;
  if (x->place != y->place) return x->place < y->place ? -1 : 1;
  return (x->order > y->order) - (x->order < y->order);
}

/* Updates by place, the last of equal ones. */
static update *sort_updates(const lqt__tensor *tensor, const uint32_t *pairs, uint64_t count,
                            uint64_t *out_count) {
  update *updates = lqt__alloc_array(count, sizeof *updates);
  if (updates == NULL) return NULL;
  for (uint64_t i = 0; i < count; i++) {
    updates[i] = (update){pairs[2 * i] * tensor->cols + pairs[2 * i + 1], i};
  }
  qsort(updates, count, sizeof *updates, compare_updates);
  uint64_t kept = 0;
  for (uint64_t i = 0; i < count; i++) {
    if (i + 1 < count && updates[i + 1].place == updates[i].place) continue;
    updates[kept++] = updates[i];
  }
  *out_count = kept;
  return updates;
}

/* Place of stored value `at` of a sparse delta; the row of compressed ones only goes up. */
static uint64_t place_of(const lqt__delta *delta, const lqt__delta_layout *layout,
                         const lqt__tensor *tensor, uint64_t at, uint64_t *row) {
  const uint8_t *data = delta->blob.data;
  if (delta->encoding == LQT__DELTA_COO) {
    const uint8_t *pair = data + layout->columns + 8 * at;
    return lqt__load_u32(pair, false) * tensor->cols + lqt__load_u32(pair + 4, false);
  }
  while (*row + 1 < tensor->rows &&
         lqt__load_u32(data + layout->row_ptr + 4 * (*row + 1), false) <= at) {
    ++*row;
  }
  uint64_t column = layout->wide_columns ? lqt__load_u32(data + layout->columns + 4 * at, false)
                                         : lqt__load_u16(data + layout->columns + 2 * at, false);
  return *row * tensor->cols + column;
}

/* Writes updates to values that are there already: runs of neighbours in one go. at[i]: the number
 * of the stored value. */
static lqt_status write_values(lqt__draft *d, uint16_t id, uint64_t values, uint64_t size,
                               const uint64_t *at, const uint8_t *bytes, uint64_t count) {
  for (uint64_t i = 0, run; i < count; i += run) {
    for (run = 1; i + run < count && at[i + run] == at[i] + run;) run++;
    size_t index = (size_t)lqt__file_find_delta(&d->work->now, id);
    LQT__TRY(lqt__draft_bytes(d, LQT__SECTION_DELTA, index, values + at[i] * size, bytes + i * size,
                              run * size));
  }
  return LQT_OK;
}

/* Merges sorted updates into a sparse delta (`old` NULL: an empty one). When all of them are stored
 * already only their bytes change. */
static lqt_status merge(lqt__draft *d, size_t index, const lqt__delta *old, lqt_dtype dtype,
                        const update *updates, const uint8_t *fresh, uint64_t count) {
  const lqt__tensor *tensor = &d->work->now.tensors[index];
  uint64_t size = lqt_dtype_size(dtype), stored = old != NULL ? old->count : 0;
  lqt__delta_layout layout = {0};
  if (old != NULL) LQT__TRY(measure(d, old, tensor, &layout));
  uint64_t most = stored + count, i = 0, u = 0, kept = 0, found = 0, row = 0;
  uint32_t *pairs = lqt__alloc_array(most, 2 * sizeof *pairs);
  uint8_t *values = lqt__alloc_array(most, size);
  uint64_t *at = lqt__alloc_array(count, sizeof *at);
  lqt_status status = LQT_OK;
  if (pairs == NULL || values == NULL || at == NULL) status = no_memory(d, most * (8 + size));
  while (status == LQT_OK && (i < stored || u < count)) {
    uint64_t place = i < stored ? place_of(old, &layout, tensor, i, &row) : UINT64_MAX;
    uint64_t wanted = u < count ? updates[u].place : UINT64_MAX;
    uint64_t next = place < wanted ? place : wanted;
    const uint8_t *from = fresh + u * size;
    if (next != wanted) from = old->blob.data + layout.values + i * size;
    if (next == wanted && next == place) at[found++] = i;
    memcpy(values + kept * size, from, size);
    pairs[2 * kept] = (uint32_t)(next / tensor->cols);
    pairs[2 * kept + 1] = (uint32_t)(next % tensor->cols);
    kept++;
    i += next == place;
    u += next == wanted;
  }
  bool shared = old != NULL && lqt__draft_users(d, LQT__SECTION_DELTA, old->id) > 1;
  if (status == LQT_OK && old != NULL && !shared && found == count) {
    status = write_values(d, old->id, layout.values, size, at, fresh, count);
  } else if (status == LQT_OK) {
    uint16_t id;
    uint8_t *section = NULL;
    uint64_t bytes = 0;
    status = choose_id(d, tensor, &id);
    if (status == LQT_OK) {
      status = lqt__sparse_delta(d, old != NULL ? old->encoding : LQT__DELTA_CSR, dtype, tensor,
                                 pairs, values, kept, id,
                                 old != NULL ? old->flags : LQT__DELTA_MUTABLE, &section, &bytes);
    }
    if (status == LQT_OK) status = put_delta(d, index, id, section, bytes);
    lqt__free(section);
  }
  lqt__free(pairs);
  lqt__free(values);
  lqt__free(at);
  return status;
}

/* Dense deltas have every element; one that others use too is copied first. */
static lqt_status set_dense(lqt__draft *d, size_t index, const lqt__delta *old,
                            const update *updates, const uint8_t *fresh, uint64_t count) {
  const lqt__tensor *tensor = &d->work->now.tensors[index];
  lqt__delta_layout layout;
  LQT__TRY(measure(d, old, tensor, &layout));
  uint16_t id;
  LQT__TRY(choose_id(d, tensor, &id));
  lqt__delta copy = *old;
  copy.id = id;
  if (id != old->id) {
    uint8_t *section = lqt__alloc(old->blob.bytes);
    if (section == NULL) return no_memory(d, old->blob.bytes);
    memcpy(section, old->blob.data, old->blob.bytes);
    (void)lqt__delta_header(&copy, section);
    lqt_status status = put_delta(d, index, id, section, copy.blob.bytes);
    lqt__free(section);
    if (status != LQT_OK) return status;
  }
  uint64_t *at = lqt__alloc_array(count, sizeof *at);
  if (at == NULL) return no_memory(d, count * sizeof *at);
  for (uint64_t i = 0; i < count; i++) at[i] = updates[i].place;
  lqt_status status =
      write_values(d, id, layout.values, lqt_dtype_size((lqt_dtype)copy.dtype), at, fresh, count);
  lqt__free(at);
  return status;
}

lqt_status lqt__set_delta(lqt__draft *d, size_t index, lqt_dtype dtype, const uint32_t *pairs,
                          const float *values, uint64_t count) {
  const lqt__tensor *tensor = &d->work->now.tensors[index];
  const lqt__delta *old;
  LQT__TRY(delta_of(d, tensor, &old));
  if (old != NULL) dtype = (lqt_dtype)old->dtype;
  if (old != NULL &&
      (old->encoding == LQT__DELTA_LOW_RANK || old->encoding == LQT__DELTA_GROUPED)) {
    return LQT__REFUSE(d, LQT_UNSUPPORTED,
                       "the delta of %s has no values of single elements; replace it whole",
                       tensor->name);
  }
  LQT__TRY(check_pairs(d, tensor, pairs, count, false));
  uint64_t kept = 0, size = lqt_dtype_size(dtype);
  update *updates = sort_updates(tensor, pairs, count, &kept);
  float *sorted = lqt__alloc_array(count, sizeof *sorted);
  uint8_t *fresh = lqt__alloc_array(count, size);
  lqt_status status = LQT_OK;
  if (updates == NULL || sorted == NULL || fresh == NULL) {
    status = no_memory(d, count * (sizeof *updates + 4 + size));
  }
  for (uint64_t i = 0; status == LQT_OK && i < kept; i++) sorted[i] = values[updates[i].order];
  if (status == LQT_OK) status = lqt__draft_encode(d, tensor->name, sorted, kept, dtype, fresh);
  if (status == LQT_OK) {
    status = old != NULL && old->encoding == LQT__DELTA_DENSE
                 ? set_dense(d, index, old, updates, fresh, kept)
                 : merge(d, index, old, dtype, updates, fresh, kept);
  }
  lqt__free(updates);
  lqt__free(sorted);
  lqt__free(fresh);
  return status;
}

lqt_status lqt__mutate_delta_sparse(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  LQT__TRY(check_dtype(d, m->dtype));
  if (m->value_count == 0 || m->value_count != m->coordinate_count) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "%zu coordinates for %zu values",
                       m->coordinate_count, m->value_count);
  }
  return lqt__set_delta(d, index, m->dtype, m->coordinates, m->values, m->value_count);
}
