/* The overlay: a model's sections as edited, over the immutable file. A section is copied when it
 * is first changed; what was never changed stays in the file. */
#ifndef LQT_RUNTIME_EDIT_OVERLAY_H_
#define LQT_RUNTIME_EDIT_OVERLAY_H_

#include "model/model.h"

typedef struct lqt__overlay_section {
  lqt__section_kind kind;
  uint32_t index; /* of the codebook (tensor, delta, mask) in the file's table */
  uint8_t *bytes; /* the whole section */
} lqt__overlay_section;

typedef struct lqt__overlay {
  const lqt_model *model;
  lqt__overlay_section *sections;
  size_t count, capacity;
} lqt__overlay;

void lqt__overlay_free(lqt__overlay *overlay);
/* The section's blob in the file. */
const lqt__blob *lqt__overlay_blob(const lqt__overlay *overlay, lqt__section_kind kind,
                                   uint32_t index);
/* The section's bytes as edited. NULL when a partial open left it out. */
const uint8_t *lqt__overlay_read(const lqt__overlay *overlay, lqt__section_kind kind,
                                 uint32_t index);
/* The section's own copy, to be written to. NULL: no memory. */
uint8_t *lqt__overlay_write(lqt__overlay *overlay, lqt__section_kind kind, uint32_t index);

#endif /* LQT_RUNTIME_EDIT_OVERLAY_H_ */
