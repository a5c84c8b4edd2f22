/* Masks: single elements and whole ones, as bitmaps. A mask of another encoding becomes a bitmap
 * when it is edited. */
#include <string.h>

#include "base/diag.h"
#include "edit/mutation.h"
#include "format/bytes.h"
#include "format/layout.h"

typedef unsigned long long ull;

static lqt_status no_memory(lqt__draft *d, uint64_t bytes) {
  return lqt__fail_memory(d->diag, d->where, bytes, "a mask");
}

static lqt_status choose_id(lqt__draft *d, const lqt__tensor *tensor, uint16_t *out) {
  *out = tensor->mask_id;
  if (*out != LQT_ID_NONE && lqt__draft_users(d, LQT__SECTION_MASK, *out) == 1) return LQT_OK;
  return lqt__draft_fresh_id(d, LQT__SECTION_MASK, out);
}

/* Ones among the columns; what stands behind them in a row is zeroed. */
static uint64_t count_ones(uint8_t *bits, uint64_t rows, uint64_t cols) {
  uint64_t stride = lqt__mask_row_bytes(cols), ones = 0;
  for (uint64_t r = 0; r < rows; r++) {
    uint8_t *row = bits + r * stride;
    for (uint64_t c = cols; c < stride * 8; c++) row[c / 8] &= (uint8_t) ~(1u << c % 8);
    for (uint64_t i = 0; i < stride; i += 8) {
      ones += (uint64_t)__builtin_popcountll(lqt__load_u64(row + i, false));
    }
  }
  return ones;
}

/* Makes the bitmap at section + head the tensor's mask. */
static lqt_status put_mask(lqt__draft *d, size_t index, uint8_t *section) {
  lqt__tensor tensor = d->work->now.tensors[index];
  uint16_t old = tensor.mask_id;
  uint64_t elements = tensor.rows * tensor.cols;
  uint64_t bytes = LQT__SECTION_HEAD + tensor.rows * lqt__mask_row_bytes(tensor.cols);
  uint64_t ones = count_ones(section + LQT__SECTION_HEAD, tensor.rows, tensor.cols);
  double density = 100.0 * (double)ones / (double)elements;
  if (density < d->rules->least_density) {
    return LQT__REFUSE(d, LQT_VALIDATION_FAILED,
                       "the mask of %s would keep %.3f %%; at least %.3f %% must stay", tensor.name,
                       density, d->rules->least_density);
  }
  lqt__mask mask = {.encoding = LQT__MASK_BITMAP, .count = elements, .density = (float)density};
  LQT__TRY(choose_id(d, &tensor, &mask.id));
  (void)lqt__mask_header(&mask, section);
  ptrdiff_t at = lqt__file_find_mask(&d->work->now, mask.id);
  const lqt__blob *blob = at >= 0 ? &d->work->now.masks[at].blob : NULL;
  if (blob != NULL && blob->data != NULL && blob->bytes == bytes &&
      memcmp(blob->data, section, 4) == 0) {
    /* The head differs in the density alone: bytes, which engines take without a new plan. */
    LQT__TRY(lqt__draft_bytes(d, LQT__SECTION_MASK, (size_t)at, 0, section, LQT__SECTION_HEAD));
    LQT__TRY(lqt__draft_bytes(d, LQT__SECTION_MASK, (size_t)at, LQT__SECTION_HEAD,
                              section + LQT__SECTION_HEAD, bytes - LQT__SECTION_HEAD));
  } else {
    LQT__TRY(lqt__draft_section(d, LQT__SECTION_MASK, mask.id, NULL, section, bytes));
  }
  if (old == mask.id) return LQT_OK;
  tensor.mask_id = mask.id;
  LQT__TRY(lqt__draft_tensor(d, tensor.name, &tensor));
  return lqt__draft_drop_unused(d, LQT__SECTION_MASK, old);
}

lqt_status lqt__mutate_mask_replace(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  const lqt__tensor *tensor = &d->work->now.tensors[index];
  uint64_t bytes = tensor->rows * lqt__mask_row_bytes(tensor->cols);
  if (m->bytes != bytes) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH,
                       "the mask of %s takes %llu bytes, rows of %llu; %zu were given",
                       tensor->name, (ull)bytes, (ull)lqt__mask_row_bytes(tensor->cols), m->bytes);
  }
  uint8_t *section = lqt__alloc_zero(LQT__SECTION_HEAD + bytes);
  if (section == NULL) return no_memory(d, bytes);
  memcpy(section + LQT__SECTION_HEAD, m->data, bytes);
  lqt_status status = put_mask(d, index, section);
  lqt__free(section);
  return status;
}

/* The tensor's mask as a bitmap behind room for a head; ones when it has none. */
static lqt_status expand(lqt__draft *d, size_t index, uint8_t **out) {
  const lqt__tensor *tensor = &d->work->now.tensors[index];
  uint64_t bytes = tensor->rows * lqt__mask_row_bytes(tensor->cols);
  lqt__weight_cache weight;
  LQT__TRY(lqt__draft_weight(d, index, &weight));
  *out = lqt__alloc_zero(LQT__SECTION_HEAD + bytes);
  if (*out == NULL) {
    lqt__weight_free(&weight);
    return no_memory(d, bytes);
  }
  if (weight.desc.mask.bits != NULL) {
    memcpy(*out + LQT__SECTION_HEAD, weight.desc.mask.bits, bytes);
  } else {
    memset(*out + LQT__SECTION_HEAD, 0xFF, bytes);
  }
  lqt__weight_free(&weight);
  return LQT_OK;
}

lqt_status lqt__mutate_mask_update(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  const lqt__tensor *tensor = &d->work->now.tensors[index];
  if (m->coordinate_count == 0 || m->coordinate_count != m->bytes) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "%zu coordinates for %zu mask values",
                       m->coordinate_count, m->bytes);
  }
  const uint8_t *keep = m->data;
  for (size_t i = 0; i < m->coordinate_count; i++) {
    if (m->coordinates[2 * i] >= tensor->rows || m->coordinates[2 * i + 1] >= tensor->cols) {
      return LQT__REFUSE(d, LQT_OUT_OF_RANGE,
                         "row %u, column %u is outside tensor %s of %llu x %llu",
                         m->coordinates[2 * i], m->coordinates[2 * i + 1], tensor->name,
                         (ull)tensor->rows, (ull)tensor->cols);
    }
    if (keep[i] > 1) {
      return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "mask value %zu is %u, not 0 or 1", i, keep[i]);
    }
  }
  uint64_t stride = lqt__mask_row_bytes(tensor->cols);
  uint8_t *section = NULL;
  LQT__TRY(expand(d, index, &section));
  for (size_t i = 0; i < m->coordinate_count; i++) {
    uint64_t column = m->coordinates[2 * i + 1];
    uint8_t *byte = section + LQT__SECTION_HEAD + m->coordinates[2 * i] * stride + column / 8;
    uint8_t bit = (uint8_t)(1u << column % 8);
    *byte = keep[i] != 0 ? (uint8_t)(*byte | bit) : (uint8_t)(*byte & ~bit);
  }
  lqt_status status = put_mask(d, index, section);
  lqt__free(section);
  return status;
}

lqt_status lqt__mutate_mask_remove(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  lqt__tensor tensor = d->work->now.tensors[index];
  uint16_t id = tensor.mask_id;
  if (id == LQT_ID_NONE) return LQT__REFUSE(d, LQT_NOT_FOUND, "tensor %s has no mask", tensor.name);
  tensor.mask_id = LQT_ID_NONE;
  LQT__TRY(lqt__draft_tensor(d, tensor.name, &tensor));
  return lqt__draft_drop_unused(d, LQT__SECTION_MASK, id);
}
