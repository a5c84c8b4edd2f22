#include "edit/mutation.h"

#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "base/half.h"

void lqt__section_change_free(lqt__section_change *change) {
  lqt__free(change->data);
  *change = (lqt__section_change){0};
}

void lqt__section_change_invert(lqt__section_change *change) {
  for (size_t i = 0; i < change->bytes; i++) {
    uint8_t byte = change->data[i];
    change->data[i] = change->data[change->bytes + i];
    change->data[change->bytes + i] = byte;
  }
}

lqt_status lqt__codebook_locate(const lqt_model *model, uint16_t id, uint32_t vector,
                                uint32_t *out_index, uint64_t *out_element, lqt_diag *diag) {
  ptrdiff_t index = lqt__file_find_codebook(&model->file, id);
  if (index < 0) {
    return lqt__fail(diag, LQT_NOT_FOUND, model->path, "there is no codebook %u", id);
  }
  const lqt__codebook *codebook = &model->file.codebooks[index];
  if (codebook->blob.data == NULL) {
    return lqt__fail(diag, LQT_NOT_FOUND, model->path, "codebook %u was damaged and left out", id);
  }
  if (vector >= codebook->vectors) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, model->path,
                     "codebook %u has vectors 0 to %u; there is no %u", id, codebook->vectors - 1,
                     vector);
  }
  /* Banks stand capacity / banks vectors apart. */
  uint32_t used = codebook->vectors / codebook->banks, room = codebook->capacity / codebook->banks;
  *out_index = (uint32_t)index;
  *out_element = ((uint64_t)(vector / used) * room + vector % used) * codebook->vector_dim;
  return LQT_OK;
}

static bool uses(const lqt__tensor *tensor, uint16_t codebook) {
  return tensor->dtype == LQT_DTYPE_CODEBOOK &&
         (tensor->codebook_id == codebook || tensor->residual_codebook_id == codebook);
}

static lqt_status check_permission(const lqt_model *model, const lqt__codebook *codebook,
                                   lqt_diag *diag) {
  if ((codebook->flags & LQT__CODEBOOK_MUTABLE) == 0) {
    return lqt__fail(diag, LQT_IMMUTABLE, model->path, "codebook %u is not MUTABLE", codebook->id);
  }
  for (size_t i = 0; i < model->file.tensor_count; i++) {
    const lqt__tensor *tensor = &model->file.tensors[i];
    if (uses(tensor, codebook->id) && (tensor->flags & LQT__TENSOR_PROTECTED) != 0) {
      return lqt__fail(diag, LQT_PERMISSION_DENIED, tensor->name,
                       "the tensor is PROTECTED, and it uses codebook %u", codebook->id);
    }
  }
  return LQT_OK;
}

static lqt_status encode_values(const lqt_model *model, const lqt__codebook *codebook,
                                const float *values, size_t dim, uint8_t *out, lqt_diag *diag) {
  for (size_t i = 0; i < dim; i++) {
    uint16_t half = lqt__f16_from_f32(values[i]);
    bool is_half = codebook->dtype == LQT_DTYPE_F16;
    float kept = is_half ? lqt__f32_from_f16(half) : values[i];
    if (!isfinite(kept)) {
      return lqt__fail(diag, LQT_NOT_FINITE, model->path,
                       "value %zu (%g) is not finite in codebook %u, whose type is %s", i,
                       (double)values[i], codebook->id, lqt_dtype_name((lqt_dtype)codebook->dtype));
    }
    memcpy(out, is_half ? (const void *)&half : (const void *)&kept, is_half ? 2 : 4);
    out += is_half ? 2 : 4;
  }
  return LQT_OK;
}

static lqt_status validate_codebook_entry(const lqt__mutation *mutation,
                                          const lqt__overlay *overlay, lqt__section_change *out,
                                          lqt_diag *diag) {
  const lqt_model *model = overlay->model;
  uint64_t element;
  LQT__TRY(lqt__codebook_locate(model, mutation->codebook_entry.codebook,
                                mutation->codebook_entry.vector, &out->index, &element, diag));
  const lqt__codebook *codebook = &model->file.codebooks[out->index];
  if (mutation->codebook_entry.dim != codebook->vector_dim) {
    return lqt__fail(diag, LQT_DIMENSION_MISMATCH, model->path,
                     "vectors of codebook %u have %u values; %zu were given", codebook->id,
                     codebook->vector_dim, mutation->codebook_entry.dim);
  }
  LQT__TRY(check_permission(model, codebook, diag));
  size_t size = lqt_dtype_size((lqt_dtype)codebook->dtype);
  out->section = LQT__SECTION_CODEBOOK;
  out->offset = codebook->header_bytes + element * size;
  out->bytes = codebook->vector_dim * size;
  out->data = lqt__alloc(2 * out->bytes);
  if (out->data == NULL) return lqt__fail_memory(diag, model->path, 2 * out->bytes, "an edit");
  const uint8_t *section = lqt__overlay_read(overlay, out->section, out->index);
  memcpy(out->data + out->bytes, section + out->offset, out->bytes);
  return encode_values(model, codebook, mutation->codebook_entry.values,
                       mutation->codebook_entry.dim, out->data, diag);
}

lqt_status lqt__mutation_validate(const lqt__mutation *mutation, const lqt__overlay *overlay,
                                  lqt__section_change *out, lqt_diag *diag) {
  typedef lqt_status (*validator)(const lqt__mutation *, const lqt__overlay *,
                                  lqt__section_change *, lqt_diag *);
  static const validator validators[] = {[LQT__MUTATION_CODEBOOK_ENTRY] = validate_codebook_entry};
  *out = (lqt__section_change){0};
  lqt_status status = validators[mutation->kind](mutation, overlay, out, diag);
  if (status != LQT_OK) lqt__section_change_free(out);
  return status;
}

lqt_status lqt__section_change_patches(const lqt__section_change *change, const lqt_model *model,
                                       lqt__engine_change **out, size_t *out_count,
                                       lqt_diag *diag) {
  const lqt__codebook *codebook = &model->file.codebooks[change->index];
  size_t size = lqt_dtype_size((lqt_dtype)codebook->dtype), most = 0;
  for (size_t i = 0; i < model->file.tensor_count; i++) {
    most += 2 * uses(&model->file.tensors[i], codebook->id);
  }
  *out_count = 0;
  *out = lqt__alloc_array(most, sizeof **out);
  if (*out == NULL) return lqt__fail_memory(diag, model->path, most * sizeof **out, "an edit");
  lqt__engine_change patch = {.first = (change->offset - codebook->header_bytes) / size,
                              .count = change->bytes / size,
                              .data = change->data,
                              .old_data = change->data + change->bytes};
  for (size_t i = 0; i < model->file.tensor_count; i++) {
    const lqt__tensor *tensor = &model->file.tensors[i];
    if (!uses(tensor, codebook->id)) continue;
    patch.tensor = (uint32_t)i;
    patch.part = LQT_PART_CODEBOOK;
    if (tensor->codebook_id == codebook->id) (*out)[(*out_count)++] = patch;
    patch.part = LQT_PART_RESIDUAL;
    if (tensor->residual_codebook_id == codebook->id) (*out)[(*out_count)++] = patch;
  }
  return LQT_OK;
}
