#include "edit/overlay.h"

#include <string.h>

void lqt__overlay_free(lqt__overlay *overlay) {
  for (size_t i = 0; i < overlay->count; i++) lqt__free(overlay->sections[i].bytes);
  lqt__free(overlay->sections);
  *overlay = (lqt__overlay){0};
}

const lqt__blob *lqt__overlay_blob(const lqt__overlay *overlay, lqt__section_kind kind,
                                   uint32_t index) {
  const lqt__file *file = &overlay->model->file;
  switch (kind) {
    case LQT__SECTION_CODEBOOK:
      return &file->codebooks[index].blob;
    case LQT__SECTION_TENSOR:
      return &file->tensors[index].payload;
    case LQT__SECTION_GROUP_SCALES:
      return &file->tensors[index].group_scales;
    case LQT__SECTION_ZERO_POINTS:
      return &file->tensors[index].zero_points;
    case LQT__SECTION_RESIDUAL_INDICES:
      return &file->tensors[index].residual_indices;
    case LQT__SECTION_DELTA:
      return &file->deltas[index].blob;
    case LQT__SECTION_MASK:
      return &file->masks[index].blob;
    case LQT__SECTION_EDIT_LOG:
      break;
  }
  return &file->edit_log;
}

static uint8_t *find(const lqt__overlay *overlay, lqt__section_kind kind, uint32_t index) {
  for (size_t i = 0; i < overlay->count; i++) {
    const lqt__overlay_section *section = &overlay->sections[i];
    if (section->kind == kind && section->index == index) return section->bytes;
  }
  return NULL;
}

const uint8_t *lqt__overlay_read(const lqt__overlay *overlay, lqt__section_kind kind,
                                 uint32_t index) {
  const uint8_t *bytes = find(overlay, kind, index);
  return bytes != NULL ? bytes : lqt__overlay_blob(overlay, kind, index)->data;
}

uint8_t *lqt__overlay_write(lqt__overlay *overlay, lqt__section_kind kind, uint32_t index) {
  uint8_t *bytes = find(overlay, kind, index);
  if (bytes != NULL) return bytes;
  if (overlay->count == overlay->capacity) {
    size_t capacity = overlay->capacity * 2 + 16;
    lqt__overlay_section *grown = lqt__realloc(overlay->sections, capacity * sizeof *grown);
    if (grown == NULL) return NULL;
    overlay->sections = grown;
    overlay->capacity = capacity;
  }
  const lqt__blob *blob = lqt__overlay_blob(overlay, kind, index);
  bytes = lqt__alloc(blob->bytes);
  if (bytes == NULL) return NULL;
  memcpy(bytes, blob->data, blob->bytes);
  overlay->sections[overlay->count++] = (lqt__overlay_section){kind, index, bytes};
  return bytes;
}
