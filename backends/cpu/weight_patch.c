/* Patches of uploaded weights: into our copy and into the repacked form, all of them or none. */
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"
#include "cpu.h"
#include "kernel/weight.h"

/* Where a range of a part lies in our copy, when it lies there unchanged; NULL when the part is
 * stored otherwise. */
static uint8_t *part_bytes(lqt__cpu_weight *weight, lqt_weight_part part) {
  lqt_weight_desc *canon = &weight->canon;
  switch (part) {
    case LQT_PART_GROUP_SCALES:
      return (uint8_t *)canon->group_scales;
    case LQT_PART_ZERO_POINTS:
      return (uint8_t *)canon->zero_points;
    case LQT_PART_SCALE:
      return (uint8_t *)&canon->scale;
    case LQT_PART_RESIDUAL_SCALE:
      return (uint8_t *)&canon->residual_scale;
    case LQT_PART_MASK:
      return (uint8_t *)canon->mask.bits;
    case LQT_PART_PLAIN:
      return (uint8_t *)canon->data;
    case LQT_PART_DELTA_VALUES:
      return canon->delta.kind == LQT_DELTA_LOW_RANK ? NULL : (uint8_t *)canon->delta.values;
    default:
      return NULL;
  }
}

/* Element `at` of a codebook in the caller's numbering, NULL in the gap between two banks. */
static float *book_slot(const lqt_codebook_view *book, uint64_t from_stride, uint64_t at) {
  uint64_t bank = at / from_stride, inside = at % from_stride;
  if (inside >= (uint64_t)book->entries * book->vector_dim) return NULL;
  return (float *)book->vectors + bank * book->bank_stride + inside;
}

typedef struct book_part {
  lqt_codebook_view *book;
  uint64_t stride;
  lqt_dtype dtype;
} book_part;

static book_part book_of(lqt__cpu_weight *weight, lqt_weight_part part) {
  lqt_weight_desc *canon = &weight->canon;
  if (part == LQT_PART_CODEBOOK) {
    return (book_part){&canon->codebook, weight->book_stride, weight->book_dtype};
  }
  uint64_t all = (uint64_t)canon->residual.entries * canon->residual.vector_dim;
  return (book_part){&canon->residual, all, weight->residual_dtype};
}

/* Bytes of the low-rank values at element `at`: A first, then B. */
static uint8_t *low_rank_slot(lqt__cpu_weight *weight, uint64_t at) {
  lqt_delta_view *delta = &weight->canon.delta;
  uint64_t size = lqt_dtype_size(delta->dtype), a_count = weight->canon.rows * delta->rank;
  if (at < a_count) return (uint8_t *)delta->values + at * size;
  return (uint8_t *)delta->values_b + (at - a_count) * size;
}

/* Copies a range of a part out of our copy (`out` set) or into it (`in` set), in the part's type.
 */
static void move_range(lqt__cpu_weight *weight, lqt_weight_part part, uint64_t first,
                       uint64_t count, const uint8_t *in, uint8_t *out) {
  uint64_t size = lqt__weight_part_size(&weight->base.shape, part);
  if (part == LQT_PART_CODEBOOK || part == LQT_PART_RESIDUAL) {
    book_part book = book_of(weight, part);
    for (uint64_t i = 0; i < count; i++) {
      float *slot = book_slot(book.book, book.stride, first + i);
      if (in != NULL && slot != NULL) *slot = lqt__cpu_value(in, book.dtype, i);
      if (out == NULL) continue;
      float old = slot != NULL ? *slot : 0.0f;
      uint16_t half = lqt__f16_from_f32(old);
      memcpy(out + i * size, size == 2 ? (void *)&half : (void *)&old, size);
    }
    return;
  }
  uint8_t *bytes = part_bytes(weight, part);
  for (uint64_t i = 0; bytes == NULL && i < count; i++) {
    uint8_t *slot = low_rank_slot(weight, first + i);
    if (in != NULL) memcpy(slot, in + i * size, size);
    if (out != NULL) memcpy(out + i * size, slot, size);
  }
  if (bytes == NULL) return;
  if (in != NULL) memcpy(bytes + first * size, in, count * size);
  if (out != NULL) memcpy(out, bytes + first * size, count * size);
}

/* ---- Packed indices, which only the repacked form may hold. ---- */

typedef struct patch_work {
  lqt__cpu_weight *weight;
  uint8_t *old;   /* what the patches replaced, one behind the other */
  uint8_t *row;   /* one packed row */
  uint8_t *codes; /* its indices, a byte each */
} patch_work;

typedef struct index_part {
  lqt_index_view *indices;
  const lqt_codebook_view *book;
  bool residual;
  uint64_t per_row;
} index_part;

static bool is_index_part(lqt_weight_part part) {
  return part == LQT_PART_INDICES || part == LQT_PART_RESIDUAL_INDICES;
}

static index_part index_part_of(lqt__cpu_weight *weight, lqt_weight_part part) {
  lqt_weight_desc *canon = &weight->canon;
  index_part out = {&canon->indices, &canon->codebook, false, 0};
  if (part == LQT_PART_RESIDUAL_INDICES) {
    out = (index_part){&canon->residual_indices, &canon->residual, true, 0};
  }
  out.per_row = lqt__ceil_div(canon->cols, out.book->vector_dim);
  return out;
}

/* The packed bytes of a row, in work->row. */
static void read_index_row(patch_work *work, const index_part *part, uint64_t row) {
  uint64_t stride = part->indices->row_stride;
  if (part->indices->data != NULL) {
    memcpy(work->row, part->indices->data + row * stride, stride);
    return;
  }
  memset(work->row, 0, stride);
  lqt__cpu_fast_indices(work->weight->fast, part->residual, row, 0, part->per_row, work->codes);
  uint32_t bits = part->indices->bits;
  for (uint64_t i = 0; i < part->per_row; i++) {
    uint64_t bit = i * bits;
    uint32_t value = (uint32_t)work->codes[i] << (bit % 8);
    work->row[bit / 8] |= (uint8_t)value;
    if (bit % 8 + bits > 8) work->row[bit / 8 + 1] |= (uint8_t)(value >> 8);
  }
}

/* Saves the bytes that a patch of indices will replace, and checks that every index it makes has
 * an entry. */
static lqt_status prepare_indices(patch_work *work, const lqt_weight_patch *patch, uint8_t *old,
                                  lqt_diag *diag) {
  index_part part = index_part_of(work->weight, patch->part);
  uint64_t stride = part.indices->row_stride, end = patch->first + patch->count;
  uint32_t bits = part.indices->bits;
  bool any = part.book->entries >= 1u << bits;
  for (uint64_t at = patch->first; at < end;) {
    uint64_t row = at / stride, inside = at % stride;
    uint64_t take = stride - inside < end - at ? stride - inside : end - at;
    read_index_row(work, &part, row);
    memcpy(old + (at - patch->first), work->row + inside, take);
    memcpy(work->row + inside, (const uint8_t *)patch->data + (at - patch->first), take);
    uint64_t last = lqt__ceil_div((inside + take) * 8, bits);
    if (last > part.per_row) last = part.per_row;
    for (uint64_t i = inside * 8 / bits; !any && i < last; i++) {
      uint32_t index = lqt__index_get(work->row, bits, i);
      if (index < part.book->entries) continue;
      return lqt__fail(diag, LQT_OUT_OF_RANGE, "patch",
                       "index %llu of row %llu would be %u; the codebook has %u entries",
                       (unsigned long long)i, (unsigned long long)row, index, part.book->entries);
    }
    at += take;
  }
  return LQT_OK;
}

/* ---- Applying. ---- */

static uint64_t patch_bytes(const lqt__cpu_weight *weight, const lqt_weight_patch *patch) {
  return patch->count * lqt__weight_part_size(&weight->base.shape, patch->part);
}

static lqt_status prepare(patch_work *work, const lqt_weight_patch *patch, uint8_t *old,
                          lqt_diag *diag) {
  if (is_index_part(patch->part)) return prepare_indices(work, patch, old, diag);
  move_range(work->weight, patch->part, patch->first, patch->count, NULL, old);
  return LQT_OK;
}

static lqt_status apply(patch_work *work, const lqt_weight_patch *patch, lqt_diag *diag) {
  lqt__cpu_weight *weight = work->weight;
  const bool side = (weight->side_zero && patch->part == LQT_PART_ZERO_POINTS) ||
                    (weight->side_delta && patch->part == LQT_PART_DELTA_VALUES);
  if (weight->fast != NULL && !side) LQT__TRY(lqt__cpu_fast_patch(weight->fast, patch, diag));
  if (!is_index_part(patch->part)) {
    move_range(weight, patch->part, patch->first, patch->count, patch->data, NULL);
    return LQT_OK;
  }
  uint8_t *data = (uint8_t *)index_part_of(weight, patch->part).indices->data;
  if (data != NULL) memcpy(data + patch->first, patch->data, patch->count);
  return LQT_OK;
}

static lqt_status apply_all(patch_work *work, const lqt_weight_patch *patches, size_t count,
                            lqt_diag *diag) {
  lqt_status status = LQT_OK;
  uint64_t used = 0;
  size_t done = 0;
  while (done < count) {
    status = prepare(work, &patches[done], work->old + used, diag);
    if (status == LQT_OK) status = apply(work, &patches[done], diag);
    if (status != LQT_OK) break;
    used += patch_bytes(work->weight, &patches[done++]);
  }
  while (status != LQT_OK && done > 0) { /* back, the last one first */
    lqt_weight_patch undo = patches[--done];
    used -= patch_bytes(work->weight, &undo);
    undo.data = work->old + used;
    if (apply(work, &undo, NULL) != LQT_OK) status = LQT_INTERNAL;
  }
  return status;
}

uint64_t lqt__cpu_patch_room(const lqt__cpu_weight *weight, const lqt_weight_patch *patches,
                             size_t count) {
  const lqt_weight_desc *shape = &weight->base.shape;
  uint64_t bytes = 0, row = 0;
  for (size_t i = 0; i < count; i++) {
    bytes += patch_bytes(weight, &patches[i]);
    uint64_t stride = shape->indices.row_stride;
    if (patches[i].part == LQT_PART_RESIDUAL_INDICES) stride = shape->residual_indices.row_stride;
    if (is_index_part(patches[i].part) && stride > row) row = stride;
  }
  return bytes + row + (row != 0 ? shape->cols : 0);
}

/* Cuts the room into what the patches replace, a packed row and its indices. */
static patch_work cut_room(lqt__cpu_weight *weight, const lqt_weight_patch *patches, size_t count,
                           uint8_t *room) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < count; i++) bytes += patch_bytes(weight, &patches[i]);
  uint64_t codes = lqt__cpu_patch_room(weight, patches, count) - bytes;
  uint64_t row = codes != 0 ? codes - weight->base.shape.cols : 0;
  return (patch_work){weight, room, room + bytes, room + bytes + row};
}

lqt_status lqt__cpu_weight_exchange(lqt__cpu_weight *weight, const lqt_weight_patch *patches,
                                    size_t count, uint8_t *room, lqt_diag *diag) {
  patch_work work = cut_room(weight, patches, count, room);
  LQT__TRY(apply_all(&work, patches, count, diag));
  const uint8_t *old = work.old;
  for (size_t i = 0; i < count; i++) {
    uint64_t bytes = patch_bytes(weight, &patches[i]);
    memcpy((void *)patches[i].data, old, bytes);
    old += bytes;
  }
  return LQT_OK;
}

lqt_status lqt__cpu_patch_check(lqt__cpu_weight *weight, const lqt_weight_patch *patch,
                                uint8_t *room, lqt_diag *diag) {
  if (!is_index_part(patch->part)) return LQT_OK;
  patch_work work = cut_room(weight, patch, 1, room);
  return prepare_indices(&work, patch, work.old, diag);
}

void lqt__cpu_part_read(lqt__cpu_weight *weight, lqt_weight_part part, uint64_t first,
                        uint64_t count, uint8_t *room, uint8_t *out) {
  if (!is_index_part(part)) {
    move_range(weight, part, first, count, NULL, out);
    return;
  }
  index_part view = index_part_of(weight, part);
  uint64_t stride = view.indices->row_stride, end = first + count;
  patch_work work = {weight, NULL, room, room + stride};
  while (first < end) {
    uint64_t inside = first % stride;
    uint64_t take = stride - inside < end - first ? stride - inside : end - first;
    read_index_row(&work, &view, first / stride);
    memcpy(out, work.row + inside, take);
    out += take;
    first += take;
  }
}

lqt_status lqt__cpu_weight_patch(lqt_weight *base, const lqt_weight_patch *patches, size_t count,
                                 lqt_diag *diag) {
  lqt__cpu_weight *weight = (lqt__cpu_weight *)base;
  uint64_t bytes = lqt__cpu_patch_room(weight, patches, count);
  uint8_t *room = lqt__alloc(bytes);
  if (room == NULL) return lqt__fail_memory(diag, "patch", bytes, "bytes to put back");
  patch_work work = cut_room(weight, patches, count, room);
  lqt_status status = apply_all(&work, patches, count, diag);
  lqt__free(room);
  weight->version = lqt__cpu_new_version();
  return status;
}
