/* What a model says of itself. */
#include <stdio.h>
#include <string.h>

#include "base/diag.h"
#include "format/bytes.h"
#include "format/layout.h"
#include "model/model.h"

static uint64_t elements(const lqt__tensor *tensor) { return tensor->rows * tensor->cols; }

/* Bytes of the tensor's own blobs; its ids and their padding are not counted. */
static uint64_t tensor_bytes(const lqt__tensor *t) {
  return t->payload.bytes + t->group_scales.bytes + t->zero_points.bytes +
         t->residual_indices.bytes;
}

static bool quantized_matrix(const lqt__tensor *t) {
  return t->type == 0 && t->dtype == LQT_DTYPE_CODEBOOK && t->ndim >= 2;
}

/* Whether a quantized matrix uses the codebook (kind 0), delta (1) or mask (2) called `id`. */
static bool used_by_matrix(const lqt__file *file, int kind, uint16_t id) {
  for (size_t i = 0; i < file->tensor_count; i++) {
    const lqt__tensor *t = &file->tensors[i];
    if (!quantized_matrix(t)) continue;
    if (kind == 0   ? t->codebook_id == id || t->residual_codebook_id == id
        : kind == 1 ? t->delta_id == id
                    : t->mask_id == id) {
      return true;
    }
  }
  return false;
}

static void count_quantized(const lqt__file *file, lqt_model_info *out) {
  for (size_t i = 0; i < file->tensor_count; i++) {
    const lqt__tensor *t = &file->tensors[i];
    out->parameters += elements(t);
    if (!quantized_matrix(t)) continue;
    out->quantized_weights += elements(t);
    out->quantized_bytes += tensor_bytes(t);
  }
  /* What several tensors share is counted once. */
  for (size_t i = 0; i < file->codebook_count; i++) {
    if (used_by_matrix(file, 0, file->codebooks[i].id)) {
      out->quantized_bytes += file->codebooks[i].blob.bytes;
    }
  }
  for (size_t i = 0; i < file->delta_count; i++) {
    if (used_by_matrix(file, 1, file->deltas[i].id)) {
      out->quantized_bytes += file->deltas[i].blob.bytes;
    }
  }
  for (size_t i = 0; i < file->mask_count; i++) {
    if (used_by_matrix(file, 2, file->masks[i].id)) {
      out->quantized_bytes += file->masks[i].blob.bytes;
    }
  }
  if (out->quantized_weights != 0) {
    out->bits_per_weight = 8.0 * (double)out->quantized_bytes / (double)out->quantized_weights;
  }
}

void lqt_model_get_info(const lqt_model *model, lqt_model_info *out) {
  const lqt__file *file = &model->file;
  *out = (lqt_model_info){.version = file->version,
                          .flags = file->flags,
                          .file_bytes = file->bytes,
                          .timestamp_ns = file->timestamp_ns,
                          .tensors = (uint32_t)file->tensor_count,
                          .codebooks = (uint32_t)file->codebook_count,
                          .deltas = (uint32_t)file->delta_count,
                          .masks = (uint32_t)file->mask_count,
                          .modules = (uint32_t)model->graph.module_count,
                          .edits = file->edit_count};
  snprintf(out->path, sizeof out->path, "%s", model->path);
  count_quantized(file, out);
  const lqt__chunk *vocabulary = lqt__file_chunk(file, LQT__CHUNK_VOCABULARY);
  if (vocabulary != NULL && vocabulary->bytes >= LQT__VOCABULARY_HEAD) {
    out->vocab_size = lqt__load_u32(vocabulary->data + LQT__VOCABULARY_AT_SIZE, false);
  }
  float context = lqt_model_hyperparameter_get(model, "context", 0);
  if (context >= 1 && context <= 4294967040.0f) out->context = (uint32_t)context;
}

size_t lqt_model_tensor_count(const lqt_model *model) { return model->file.tensor_count; }

lqt_status lqt_model_tensor(const lqt_model *model, size_t index, lqt_tensor_info *out) {
  *out = (lqt_tensor_info){0};
  const lqt__file *file = &model->file;
  if (index >= file->tensor_count) return LQT_OUT_OF_RANGE;
  const lqt__tensor *t = &file->tensors[index];
  *out = (lqt_tensor_info){.name = t->name,
                           .dtype = (lqt_dtype)t->dtype,
                           .ndim = t->ndim,
                           .codebook_id = t->codebook_id,
                           .delta_id = t->delta_id,
                           .mask_id = t->mask_id,
                           .residual_id = t->residual_codebook_id,
                           .scale = t->scale,
                           .zero_point = t->zero_point,
                           .flags = t->flags,
                           .index_bits = t->index_bits,
                           .group_size = t->group_size,
                           .scope = t->scope,
                           .bytes = tensor_bytes(t)};
  memcpy(out->shape, t->shape, sizeof out->shape);
  const uint16_t books[2] = {t->codebook_id, t->residual_codebook_id};
  for (int i = 0; i < 2; i++) {
    ptrdiff_t book = books[i] != LQT_ID_NONE ? lqt__file_find_codebook(file, books[i]) : -1;
    if (book < 0) continue;
    if (i == 0) out->vector_dim = file->codebooks[book].vector_dim;
    out->bytes += file->codebooks[book].blob.bytes;
  }
  ptrdiff_t delta = t->delta_id != LQT_ID_NONE ? lqt__file_find_delta(file, t->delta_id) : -1;
  if (delta >= 0) out->bytes += file->deltas[delta].blob.bytes;
  ptrdiff_t mask = t->mask_id != LQT_ID_NONE ? lqt__file_find_mask(file, t->mask_id) : -1;
  if (mask >= 0) out->bytes += file->masks[mask].blob.bytes;
  return LQT_OK;
}

lqt_status lqt_model_find_tensor(const lqt_model *model, const char *name, size_t *out_index) {
  ptrdiff_t index = lqt__file_find_tensor(&model->file, name);
  *out_index = index >= 0 ? (size_t)index : 0;
  return index >= 0 ? LQT_OK : LQT_NOT_FOUND;
}

size_t lqt_model_codebook_count(const lqt_model *model) { return model->file.codebook_count; }

lqt_status lqt_model_codebook(const lqt_model *model, size_t index, lqt_codebook_info *out) {
  *out = (lqt_codebook_info){0};
  if (index >= model->file.codebook_count) return LQT_OUT_OF_RANGE;
  const lqt__codebook *c = &model->file.codebooks[index];
  *out = (lqt_codebook_info){.id = c->id,
                             .flags = c->flags,
                             .dtype = (lqt_dtype)c->dtype,
                             .vectors = c->vectors,
                             .banks = c->banks,
                             .vector_dim = c->vector_dim,
                             .capacity = c->capacity,
                             .bytes = c->blob.bytes};
  for (size_t i = 0; i < model->file.tensor_count; i++) {
    const lqt__tensor *t = &model->file.tensors[i];
    out->users += t->codebook_id == c->id || t->residual_codebook_id == c->id;
  }
  return LQT_OK;
}

lqt_status lqt_model_codebook_vector(const lqt_model *model, uint16_t id, uint32_t vector,
                                     float *out, lqt_diag *diag) {
  ptrdiff_t index = lqt__file_find_codebook(&model->file, id);
  if (index < 0) return lqt__fail(diag, LQT_NOT_FOUND, model->path, "there is no codebook %u", id);
  const lqt__codebook *c = &model->file.codebooks[index];
  if (c->blob.data == NULL) {
    return lqt__fail(diag, LQT_NOT_FOUND, model->path, "codebook %u was damaged and left out", id);
  }
  if (vector >= c->vectors) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, model->path, "codebook %u has %u vectors, not %u", id,
                     c->vectors, vector);
  }
  /* Banks stand capacity / banks vectors apart. */
  uint32_t used = c->vectors / c->banks, room = c->capacity / c->banks;
  uint64_t place = (uint64_t)(vector / used) * room + vector % used;
  const uint8_t *values = c->blob.data + c->header_bytes;
  for (uint32_t i = 0; i < c->vector_dim; i++) {
    uint64_t at = place * c->vector_dim + i;
    out[i] = c->dtype == LQT_DTYPE_F16 ? lqt__f32_from_f16(lqt__load_u16(values + 2 * at, false))
                                       : lqt__load_f32(values + 4 * at, false);
  }
  return LQT_OK;
}

size_t lqt_model_delta_count(const lqt_model *model) { return model->file.delta_count; }

lqt_status lqt_model_delta(const lqt_model *model, size_t index, lqt_delta_info *out) {
  *out = (lqt_delta_info){0};
  if (index >= model->file.delta_count) return LQT_OUT_OF_RANGE;
  const lqt__delta *d = &model->file.deltas[index];
  *out = (lqt_delta_info){.id = d->id,
                          .encoding = d->encoding,
                          .flags = d->flags,
                          .dtype = (lqt_dtype)d->dtype,
                          .count = d->count,
                          .bytes = d->blob.bytes};
  return LQT_OK;
}

size_t lqt_model_mask_count(const lqt_model *model) { return model->file.mask_count; }

lqt_status lqt_model_mask(const lqt_model *model, size_t index, lqt_mask_info *out) {
  *out = (lqt_mask_info){0};
  if (index >= model->file.mask_count) return LQT_OUT_OF_RANGE;
  const lqt__mask *m = &model->file.masks[index];
  *out = (lqt_mask_info){.id = m->id,
                         .encoding = m->encoding,
                         .density = m->density / 100.0,
                         .count = m->count,
                         .bytes = m->blob.bytes};
  return LQT_OK;
}

size_t lqt_model_hyperparameter_count(const lqt_model *model) {
  return model->file.hyperparameter_count;
}

lqt_status lqt_model_hyperparameter(const lqt_model *model, size_t index, const char **out_key,
                                    float *out_value) {
  *out_key = NULL;
  *out_value = 0;
  if (index >= model->file.hyperparameter_count) return LQT_OUT_OF_RANGE;
  *out_key = model->file.hyperparameters[index].key;
  *out_value = model->file.hyperparameters[index].value;
  return LQT_OK;
}

float lqt_model_hyperparameter_get(const lqt_model *model, const char *key, float fallback) {
  for (size_t i = 0; i < model->file.hyperparameter_count; i++) {
    if (strcmp(model->file.hyperparameters[i].key, key) == 0) {
      return model->file.hyperparameters[i].value;
    }
  }
  return fallback;
}

lqt_status lqt_model_chunk(const lqt_model *model, uint16_t type, const void **out_data,
                           size_t *out_bytes) {
  const lqt__chunk *chunk = lqt__file_chunk(&model->file, type);
  *out_data = chunk != NULL ? chunk->data : NULL;
  *out_bytes = chunk != NULL ? chunk->bytes : 0;
  return chunk != NULL ? LQT_OK : LQT_NOT_FOUND;
}

/* Header and metadata before the sections, extension and footer after them. */
size_t lqt_model_section_count(const lqt_model *model) { return model->file.section_count + 4; }

lqt_status lqt_model_section(const lqt_model *model, size_t index, lqt_section_info *out) {
  const lqt__file *file = &model->file;
  *out = (lqt_section_info){0};
  if (index >= lqt_model_section_count(model)) return LQT_OUT_OF_RANGE;
  if (index == 0) {
    *out = (lqt_section_info){"header", 0, LQT__HEADER_BYTES};
  } else if (index == 1) {
    *out = (lqt_section_info){"metadata", file->metadata_offset, file->metadata_bytes};
  } else if (index == file->section_count + 2) {
    *out = (lqt_section_info){"footer extension", file->extension_offset, LQT__EXTENSION_BYTES};
  } else if (index == file->section_count + 3) {
    *out = (lqt_section_info){"footer", file->footer_offset, LQT__FOOTER_BYTES};
  } else {
    const lqt__section *s = &file->sections[index - 2];
    *out = (lqt_section_info){model->section_names[index - 2], s->offset, s->bytes};
  }
  return LQT_OK;
}

size_t lqt_model_missing_count(const lqt_model *model) { return model->file.missing_count; }

lqt_status lqt_model_missing(const lqt_model *model, size_t index, lqt_section_info *out) {
  *out = (lqt_section_info){0};
  for (size_t i = 0; i < model->file.section_count; i++) {
    const lqt__section *s = &model->file.sections[i];
    if (!s->missing || index-- != 0) continue;
    *out = (lqt_section_info){model->section_names[i], s->offset, s->bytes};
    return LQT_OK;
  }
  return LQT_OUT_OF_RANGE;
}
