/* Tensors: scales, elements as a whole, copies. */
#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "base/half.h"
#include "edit/mutation.h"
#include "format/bytes.h"
#include "format/check.h"
#include "format/layout.h"

typedef unsigned long long ull;

static lqt_status no_memory(lqt__draft *d, uint64_t bytes) {
  return lqt__fail_memory(d->diag, d->where, bytes, "a tensor");
}

/* ---- Scales ---- */

static lqt_status write_halves(lqt__draft *d, const lqt_mutation *m, lqt__section_kind kind,
                               const char *what) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  const char *name = d->work->now.tensors[index].name;
  const lqt__blob *blob = lqt__overlay_blob(d->work, kind, index);
  if (blob->data == NULL) return LQT__REFUSE(d, LQT_NOT_FOUND, "tensor %s has no %s", name, what);
  uint64_t count = blob->bytes / 2;
  if (m->value_count == 0) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "no %s for %s were given", what, name);
  }
  if (m->first > count || m->value_count > count - m->first) {
    return LQT__REFUSE(d, LQT_OUT_OF_RANGE, "tensor %s has %llu %s; %llu to %llu pass them", name,
                       (ull)count, what, (ull)m->first, (ull)(m->first + m->value_count));
  }
  uint8_t *bytes = lqt__alloc_array(m->value_count, 2);
  if (bytes == NULL) return no_memory(d, m->value_count * 2);
  lqt_status status = lqt__draft_encode(d, name, m->values, m->value_count, LQT_DTYPE_F16, bytes);
  if (status == LQT_OK) {
    status = lqt__draft_bytes(d, kind, index, m->first * 2, bytes, m->value_count * 2);
  }
  lqt__free(bytes);
  return status;
}

lqt_status lqt__mutate_group_scales(lqt__draft *d, const lqt_mutation *m) {
  return write_halves(d, m, LQT__SECTION_GROUP_SCALES, "group scales");
}

lqt_status lqt__mutate_zero_points(lqt__draft *d, const lqt_mutation *m) {
  return write_halves(d, m, LQT__SECTION_ZERO_POINTS, "zero points");
}

static lqt_status one_value(lqt__draft *d, const lqt_mutation *m, const char *name, float *out) {
  if (m->value_count != 1) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "one value is needed; %zu were given",
                       m->value_count);
  }
  uint8_t bytes[4];
  *out = m->values[0];
  return lqt__draft_encode(d, name, out, 1, LQT_DTYPE_F32, bytes);
}

lqt_status lqt__mutate_tensor_scale(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  lqt__tensor tensor = d->work->now.tensors[index];
  LQT__TRY(one_value(d, m, tensor.name, &tensor.scale));
  return lqt__draft_tensor(d, tensor.name, &tensor);
}

lqt_status lqt__mutate_residual_scale(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  lqt__tensor tensor = d->work->now.tensors[index];
  if (tensor.residual_codebook_id == LQT_ID_NONE) {
    return LQT__REFUSE(d, LQT_NOT_FOUND, "tensor %s has no residual codebook", tensor.name);
  }
  LQT__TRY(one_value(d, m, tensor.name, &tensor.residual_scale));
  return lqt__draft_tensor(d, tensor.name, &tensor);
}

/* ---- Replace ---- */

/* A tensor of plain elements and nothing else, in the shape of `from`. */
static lqt__tensor plain_tensor(const lqt__tensor *from, lqt_dtype dtype) {
  lqt__tensor tensor = *from;
  tensor.dtype = (uint8_t)dtype;
  tensor.codebook_id = tensor.delta_id = tensor.mask_id = LQT_ID_NONE;
  tensor.residual_codebook_id = tensor.outlier_delta_id = LQT_ID_NONE;
  tensor.scale = 1;
  tensor.zero_point = 0;
  tensor.index_bits = tensor.residual_bits = tensor.scope = tensor.group_scale_type = 0;
  tensor.group_size = tensor.bank_count = tensor.bank_rows = tensor.bank_cols = 0;
  tensor.residual_scale = 0;
  return tensor;
}

static lqt_status drop_parts(lqt__draft *d, const lqt__tensor *was) {
  LQT__TRY(lqt__draft_drop_unused(d, LQT__SECTION_CODEBOOK, was->codebook_id));
  LQT__TRY(lqt__draft_drop_unused(d, LQT__SECTION_CODEBOOK, was->residual_codebook_id));
  LQT__TRY(lqt__draft_drop_unused(d, LQT__SECTION_DELTA, was->delta_id));
  return lqt__draft_drop_unused(d, LQT__SECTION_MASK, was->mask_id);
}

lqt_status lqt__mutate_tensor_replace(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  const lqt__tensor was = d->work->now.tensors[index];
  if (m->dtype != LQT_DTYPE_F32 && m->dtype != LQT_DTYPE_F16 && m->dtype != LQT_DTYPE_BF16) {
    return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "elements are stored as f32, f16 or bf16, not %s",
                       lqt_dtype_name(m->dtype));
  }
  uint64_t count = was.rows * was.cols, bytes = count * lqt_dtype_size(m->dtype);
  if (m->value_count != count) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH,
                       "tensor %s has %llu elements of %llu x %llu; %zu were given", was.name,
                       (ull)count, (ull)was.rows, (ull)was.cols, m->value_count);
  }
  uint8_t *elements = lqt__alloc(bytes);
  if (elements == NULL) return no_memory(d, bytes);
  lqt__tensor now = plain_tensor(&was, m->dtype);
  lqt_status status = lqt__draft_encode(d, was.name, m->values, count, m->dtype, elements);
  static const lqt__section_kind gone[] = {LQT__SECTION_GROUP_SCALES, LQT__SECTION_ZERO_POINTS,
                                           LQT__SECTION_RESIDUAL_INDICES};
  for (size_t i = 0; i < 3 && status == LQT_OK; i++) {
    status = lqt__draft_section(d, gone[i], LQT_ID_NONE, was.name, NULL, 0);
  }
  if (status == LQT_OK) {
    status = lqt__draft_section(d, LQT__SECTION_TENSOR, LQT_ID_NONE, was.name, elements, bytes);
  }
  lqt__free(elements);
  if (status == LQT_OK) status = lqt__draft_tensor(d, was.name, &now);
  return status == LQT_OK ? drop_parts(d, &was) : status;
}

/* ---- Multiply ---- */

static float element_of(const uint8_t *data, lqt_dtype dtype, uint64_t at) {
  return dtype == LQT_DTYPE_F32   ? lqt__load_f32(data + 4 * at, false)
         : dtype == LQT_DTYPE_F16 ? lqt__f32_from_f16(lqt__load_u16(data + 2 * at, false))
                                  : lqt__f32_from_bf16(lqt__load_u16(data + 2 * at, false));
}

/* The values of a delta times `factor`: all of them, or of a low-rank one those of A. */
static lqt_status multiply_delta(lqt__draft *d, size_t index, float factor) {
  const lqt__tensor *tensor = &d->work->now.tensors[index];
  ptrdiff_t at = lqt__file_find_delta(&d->work->now, tensor->delta_id);
  const lqt__delta *delta = &d->work->now.deltas[at];
  if (delta->blob.data == NULL || (delta->flags & LQT__DELTA_COMPRESSED) != 0) {
    return LQT__REFUSE(d, LQT_UNSUPPORTED, "delta %u is compressed or was left out", delta->id);
  }
  if ((delta->flags & LQT__DELTA_MUTABLE) == 0) {
    return LQT__REFUSE(d, LQT_IMMUTABLE, "delta %u is not MUTABLE", delta->id);
  }
  if (lqt__draft_users(d, LQT__SECTION_DELTA, delta->id) > 1) {
    return LQT__REFUSE(d, LQT_CONFLICT,
                       "delta %u belongs to other tensors too; replace that of %s first", delta->id,
                       tensor->name);
  }
  lqt__delta_layout layout;
  bool parametric = delta->encoding == LQT__DELTA_LOW_RANK || delta->encoding == LQT__DELTA_GROUPED;
  uint32_t parameter =
      parametric ? lqt__load_u32(delta->blob.data + delta->header_bytes, false) : 0;
  if (!lqt__delta_measure(delta->encoding, delta->dtype, tensor->rows, tensor->cols, delta->count,
                          parameter, &layout)) {
    return LQT__REFUSE(d, LQT_BAD_DELTA, "delta %u does not fit %s", delta->id, tensor->name);
  }
  uint64_t count = layout.values_b != 0 ? tensor->rows * parameter : delta->count;
  uint64_t size = lqt_dtype_size((lqt_dtype)delta->dtype);
  float *values = lqt__alloc_array(count, sizeof *values);
  uint8_t *bytes = lqt__alloc_array(count, size);
  lqt_status status = values == NULL || bytes == NULL ? no_memory(d, count * 8) : LQT_OK;
  for (uint64_t i = 0; i < count && status == LQT_OK; i++) {
    values[i] = factor * element_of(delta->blob.data + layout.values, (lqt_dtype)delta->dtype, i);
  }
  if (status == LQT_OK) {
    status = lqt__draft_encode(d, tensor->name, values, count, (lqt_dtype)delta->dtype, bytes);
  }
  if (status == LQT_OK) {
    status =
        lqt__draft_bytes(d, LQT__SECTION_DELTA, (size_t)at, layout.values, bytes, count * size);
  }
  lqt__free(values);
  lqt__free(bytes);
  return status;
}

lqt_status lqt__mutate_tensor_multiply(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  float factor;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  lqt__tensor tensor = d->work->now.tensors[index];
  if (m->value_count != 1 || !isfinite(m->values[0])) {
    return LQT__REFUSE(d, m->value_count == 1 ? LQT_NOT_FINITE : LQT_DIMENSION_MISMATCH,
                       "one finite factor is needed");
  }
  factor = m->values[0];
  tensor.scale *= factor;
  if (!isfinite(tensor.scale)) {
    return LQT__REFUSE(d, LQT_NOT_FINITE, "the scale of %s would not be finite", tensor.name);
  }
  LQT__TRY(lqt__draft_tensor(d, tensor.name, &tensor));
  return tensor.delta_id != LQT_ID_NONE ? multiply_delta(d, index, factor) : LQT_OK;
}

/* ---- Clamp ---- */

/* The representable number next to `value` in the direction of `to`. */
static float step_towards(float value, float to, lqt_dtype dtype) {
  if (dtype == LQT_DTYPE_F32) return nextafterf(value, to);
  bool half = dtype == LQT_DTYPE_F16;
  uint16_t bits = half ? lqt__f16_from_f32(value) : lqt__bf16_from_f32(value);
  bool up = to > value;
  if ((bits & 0x7fffu) == 0) {
    bits = up ? 0x0001u : 0x8001u;
  } else {
    bits = (uint16_t)(((bits & 0x8000u) == 0) == up ? bits + 1 : bits - 1);
  }
  return half ? lqt__f32_from_f16(bits) : lqt__f32_from_bf16(bits);
}

static float rounded(float value, lqt_dtype dtype) {
  return dtype == LQT_DTYPE_F32   ? value
         : dtype == LQT_DTYPE_F16 ? lqt__f32_from_f16(lqt__f16_from_f32(value))
                                  : lqt__f32_from_bf16(lqt__bf16_from_f32(value));
}

/* Plain elements: the nearest representable one whose product with the scale is inside. */
static lqt_status clamp_plain(lqt__draft *d, size_t index, float low, float high) {
  const lqt__tensor *t = &d->work->now.tensors[index];
  lqt_dtype dtype = (lqt_dtype)t->dtype;
  uint64_t count = t->rows * t->cols, size = lqt_dtype_size(dtype);
  if (dtype != LQT_DTYPE_F32 && dtype != LQT_DTYPE_F16 && dtype != LQT_DTYPE_BF16) {
    return LQT__REFUSE(d, LQT_UNSUPPORTED, "%s holds %s values, which are not clamped", t->name,
                       lqt_dtype_name(dtype));
  }
  uint8_t *elements = lqt__alloc(count * size);
  if (elements == NULL) return no_memory(d, count * size);
  memcpy(elements, t->payload.data, count * size);
  lqt_status status = LQT_OK;
  for (uint64_t i = 0; i < count && status == LQT_OK; i++) {
    float value = element_of(elements, dtype, i), product = t->scale * value;
    if (product >= low && product <= high) continue;
    float bound = product < low ? low : high;
    value = t->scale != 0 ? rounded(bound / t->scale, dtype) : value;
    for (int k = 0; k < 4 && (t->scale * value < low || t->scale * value > high); k++) {
      bool up = (t->scale * value < low) == (t->scale > 0);
      value = step_towards(value, up ? INFINITY : -INFINITY, dtype);
    }
    if (t->scale * value < low || t->scale * value > high) {
      status = LQT__REFUSE(
          d, LQT_VALIDATION_FAILED, "no %s value times the scale %g of %s is from %g to %g",
          lqt_dtype_name(dtype), (double)t->scale, t->name, (double)low, (double)high);
      break;
    }
    status = lqt__draft_encode(d, t->name, &value, 1, dtype, elements + i * size);
  }
  if (status == LQT_OK) {
    status = lqt__draft_bytes(d, LQT__SECTION_TENSOR, index, 0, elements, count * size);
  }
  lqt__free(elements);
  return status;
}

/* The delta with which `base` comes to stand inside the bounds, as near to the crossed one as the
 * type allows. */
static float correction(float base, float low, float high, lqt_dtype dtype) {
  float bound = base < low ? low : base > high ? high : base;
  float delta = rounded(bound - base, dtype);
  for (int k = 0; k < 8 && (base + delta < low || base + delta > high); k++) {
    delta = step_towards(delta, base + delta < low ? INFINITY : -INFINITY, dtype);
  }
  return delta;
}

typedef struct outside {
  uint32_t *pairs;
  float *values;
  size_t count, capacity;
} outside;

static bool note(outside *list, uint64_t row, uint64_t col, float value) {
  if (list->count == list->capacity) {
    size_t capacity = list->capacity * 2 + 256;
    uint32_t *pairs = lqt__realloc(list->pairs, capacity * 2 * sizeof *pairs);
    if (pairs != NULL) list->pairs = pairs;
    float *values = lqt__realloc(list->values, capacity * sizeof *values);
    if (values != NULL) list->values = values;
    if (pairs == NULL || values == NULL) return false;
    list->capacity = capacity;
  }
  list->pairs[2 * list->count] = (uint32_t)row;
  list->pairs[2 * list->count + 1] = (uint32_t)col;
  list->values[list->count++] = value;
  return true;
}

/* Elements outside, with the delta values that bring them in. */
static lqt_status find_outside(lqt__draft *d, size_t index, float low, float high, outside *out) {
  const lqt__tensor *t = &d->work->now.tensors[index];
  lqt__weight_cache weight;
  LQT__TRY(lqt__draft_weight(d, index, &weight));
  lqt_weight_desc bare = weight.desc;
  lqt_dtype dtype = bare.delta.kind != LQT_DELTA_NONE ? bare.delta.dtype : LQT_DTYPE_F32;
  bare.delta = (lqt_delta_view){0};
  float *rows = lqt__alloc_array(t->cols, 2 * sizeof *rows);
  lqt_status status = rows != NULL ? LQT_OK : no_memory(d, t->cols * 8);
  for (uint64_t r = 0; r < t->rows && status == LQT_OK; r++) {
    float *now = rows, *base = rows + t->cols;
    status = lqt_weight_desc_row(&weight.desc, r, 0, t->cols, now);
    if (status == LQT_OK) status = lqt_weight_desc_row(&bare, r, 0, t->cols, base);
    for (uint64_t c = 0; c < t->cols && status == LQT_OK; c++) {
      if (now[c] >= low && now[c] <= high) continue;
      float delta = correction(base[c], low, high, dtype);
      if (base[c] + delta < low || base[c] + delta > high) {
        status = LQT__REFUSE(d, LQT_VALIDATION_FAILED,
                             "no %s delta brings element %llu, %llu of %s from %g inside",
                             lqt_dtype_name(dtype), (ull)r, (ull)c, t->name, (double)now[c]);
      } else if (!note(out, r, c, delta)) {
        status = no_memory(d, out->capacity * 24);
      }
    }
  }
  lqt__free(rows);
  lqt__weight_free(&weight);
  return status;
}

lqt_status lqt__mutate_tensor_clamp(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  LQT__TRY(lqt__draft_find(d, m->target, &index));
  const lqt__tensor *t = &d->work->now.tensors[index];
  if (m->value_count != 2) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "a low and a high bound are needed");
  }
  float low = m->values[0], high = m->values[1];
  if (!isfinite(low) || !isfinite(high)) {
    return LQT__REFUSE(d, LQT_NOT_FINITE, "the bounds %g and %g are not finite", (double)low,
                       (double)high);
  }
  if (low > high || (t->mask_id != LQT_ID_NONE && (low > 0 || high < 0))) {
    return LQT__REFUSE(d, LQT_VALIDATION_FAILED,
                       low > high ? "the bounds %g and %g are empty"
                                  : "masked elements are 0, which %g to %g leaves out",
                       (double)low, (double)high);
  }
  if (t->dtype != LQT_DTYPE_CODEBOOK && t->delta_id == LQT_ID_NONE) {
    return clamp_plain(d, index, low, high);
  }
  outside list = {0};
  lqt_status status = find_outside(d, index, low, high, &list);
  if (status == LQT_OK && list.count != 0) {
    status = lqt__set_delta(d, index, LQT_DTYPE_F32, list.pairs, list.values, list.count);
  }
  lqt__free(list.pairs);
  lqt__free(list.values);
  return status;
}

/* ---- Clone and swap ---- */

/* A copy of a section with a head, under another id. Keeps `id` where it is the tensor's own. */
static lqt_status copy_headed(lqt__draft *d, lqt__section_kind kind, const lqt__blob *blob,
                              uint16_t current, uint16_t *out_id) {
  if (blob->data == NULL) {
    return LQT__REFUSE(d, LQT_NOT_FOUND, "a section to copy was damaged and left out");
  }
  *out_id = current;
  if (current == LQT_ID_NONE || lqt__draft_users(d, kind, current) != 1) {
    LQT__TRY(lqt__draft_fresh_id(d, kind, out_id));
  }
  uint8_t *copy = lqt__alloc(blob->bytes);
  if (copy == NULL) return no_memory(d, blob->bytes);
  memcpy(copy, blob->data, blob->bytes);
  lqt__store_u16(copy, *out_id); /* every head begins with the id */
  lqt_status status = lqt__draft_section(d, kind, *out_id, NULL, copy, blob->bytes);
  lqt__free(copy);
  return status;
}

lqt_status lqt__copy_tensor(lqt__draft *d, const lqt__file *from, const lqt__tensor *source,
                            const char *name) {
  _Static_assert(LQT__CODEBOOK_AT_ID == 0 && LQT__DELTA_AT_ID == 0 && LQT__MASK_AT_ID == 0,
                 "every head begins with the id");
  ptrdiff_t at = lqt__file_find_tensor(&d->work->now, name);
  const lqt__tensor t = *source;
  lqt__tensor was = {0}, now = t;
  was.codebook_id = was.residual_codebook_id = was.delta_id = was.mask_id = LQT_ID_NONE;
  if (at >= 0) was = d->work->now.tensors[at];
  now.flags = at >= 0 ? was.flags : t.flags;
  bool quantized = t.dtype == LQT_DTYPE_CODEBOOK;
  bool residual = quantized && t.residual_codebook_id != LQT_ID_NONE;
  /* A codebook that the tensor has for both its codebooks is not its own. */
  bool twice = was.codebook_id == was.residual_codebook_id;
  if (quantized) {
    const lqt__blob *blob = &from->codebooks[lqt__file_find_codebook(from, t.codebook_id)].blob;
    LQT__TRY(copy_headed(d, LQT__SECTION_CODEBOOK, blob, twice ? LQT_ID_NONE : was.codebook_id,
                         &now.codebook_id));
  }
  if (residual) {
    const lqt__blob *blob =
        &from->codebooks[lqt__file_find_codebook(from, t.residual_codebook_id)].blob;
    LQT__TRY(copy_headed(d, LQT__SECTION_CODEBOOK, blob,
                         twice ? LQT_ID_NONE : was.residual_codebook_id,
                         &now.residual_codebook_id));
  }
  if (t.delta_id != LQT_ID_NONE) {
    const lqt__blob *blob = &from->deltas[lqt__file_find_delta(from, t.delta_id)].blob;
    LQT__TRY(copy_headed(d, LQT__SECTION_DELTA, blob, was.delta_id, &now.delta_id));
    if (t.outlier_delta_id != LQT_ID_NONE) now.outlier_delta_id = now.delta_id;
  }
  if (t.mask_id != LQT_ID_NONE) {
    const lqt__blob *blob = &from->masks[lqt__file_find_mask(from, t.mask_id)].blob;
    LQT__TRY(copy_headed(d, LQT__SECTION_MASK, blob, was.mask_id, &now.mask_id));
  }
  LQT__TRY(lqt__draft_tensor(d, name, &now));
  const lqt__blob *blobs[] = {&t.payload, &t.group_scales, &t.zero_points, &t.residual_indices};
  for (int i = 0; i < LQT__TENSOR_SECTIONS; i++) {
    if (blobs[i]->bytes != 0 && blobs[i]->data == NULL) {
      return LQT__REFUSE(d, LQT_NOT_FOUND, "a part of %s was damaged and left out", t.name);
    }
    LQT__TRY(lqt__draft_section(d, (lqt__section_kind)(LQT__SECTION_TENSOR + i), LQT_ID_NONE, name,
                                blobs[i]->bytes != 0 ? blobs[i]->data : NULL, blobs[i]->bytes));
  }
  return at >= 0 ? drop_parts(d, &was) : LQT_OK;
}

lqt_status lqt__mutate_tensor_clone(lqt__draft *d, const lqt_mutation *m) {
  if (m->target == NULL || m->other == NULL) {
    return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "a clone needs a tensor and a new name");
  }
  ptrdiff_t index = lqt__file_find_tensor(&d->work->now, m->target);
  if (index < 0) return LQT__REFUSE(d, LQT_NOT_FOUND, "there is no tensor %.200s", m->target);
  size_t bytes = strlen(m->other);
  if (bytes == 0 || bytes > LQT__MAX_STRING || !lqt__text_valid((const uint8_t *)m->other, bytes)) {
    return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "a name has 1 to %d bytes of UTF-8",
                       LQT__MAX_STRING);
  }
  if (lqt__file_find_tensor(&d->work->now, m->other) >= 0) {
    return LQT__REFUSE(d, LQT_CONFLICT, "there is a tensor %.200s already", m->other);
  }
  if (d->work->now.tensors[index].type != 0) {
    return LQT__REFUSE(d, LQT_UNSUPPORTED, "tensor %s is a RecursiveTensor", m->target);
  }
  LQT__TRY(lqt__rules_allow(d->rules, d->operation, m->other, d->diag));
  /* The tables may move while they grow; the bytes do not. */
  lqt__overlay *hold = lqt__overlay_clone(d->work);
  if (hold == NULL) return no_memory(d, 0);
  lqt_status status = lqt__copy_tensor(d, &hold->now, &hold->now.tensors[index], m->other);
  lqt__overlay_release(hold);
  return status;
}

lqt_status lqt__mutate_tensor_swap(lqt__draft *d, const lqt_mutation *m) {
  size_t a, b;
  LQT__TRY(lqt__draft_find(d, m->target, &a));
  LQT__TRY(lqt__draft_find(d, m->other, &b));
  lqt__overlay *hold = lqt__overlay_clone(d->work); /* both as they were */
  if (hold == NULL) return no_memory(d, 0);
  lqt_status status = LQT_OK;
  const lqt__tensor *x = &hold->now.tensors[a], *y = &hold->now.tensors[b];
  if (x->ndim != y->ndim || memcmp(x->shape, y->shape, sizeof x->shape) != 0) {
    status = LQT__REFUSE(d, LQT_DIMENSION_MISMATCH, "tensors %s and %s have different shapes",
                         x->name, y->name);
  }
  for (int i = 0; i < 2 && status == LQT_OK && a != b; i++) {
    const lqt__tensor *from = i == 0 ? x : y, *to = i == 0 ? y : x;
    lqt__tensor now = *from;
    now.flags = to->flags;
    status = lqt__draft_tensor(d, to->name, &now);
    for (int k = 0; k < LQT__TENSOR_SECTIONS && status == LQT_OK; k++) {
      lqt__section_kind kind = (lqt__section_kind)(LQT__SECTION_TENSOR + k);
      const lqt__blob *blob = lqt__overlay_blob(hold, kind, i == 0 ? a : b);
      if (blob->bytes != 0 && blob->data == NULL) {
        status = LQT__REFUSE(d, LQT_NOT_FOUND, "a part of %s was damaged and left out", from->name);
        break;
      }
      status = lqt__draft_section(d, kind, LQT_ID_NONE, to->name,
                                  blob->bytes != 0 ? blob->data : NULL, blob->bytes);
    }
  }
  lqt__overlay_release(hold);
  return status;
}
