/* The overlay: a model as edited, over its immutable file. The tables are the overlay's own; of the
 * sections it holds those that were changed, and the rest stays in the file. Section bytes are
 * counted and shared between overlays: a copy is cheap, and a section is copied when it is first
 * written to while another overlay holds it. An overlay that others can see is never written to. */
#ifndef LQT_RUNTIME_EDIT_OVERLAY_H_
#define LQT_RUNTIME_EDIT_OVERLAY_H_

#include "edit/change.h"
#include "model/model.h"

typedef struct lqt__shared lqt__shared;

enum { LQT__TENSOR_SECTIONS = 4 }; /* payload, group scales, zero points, residual indices */

typedef struct lqt__overlay {
  _Atomic int refs;
  lqt_model *model;
  lqt__file now; /* the tables as edited; blobs point to the file or to what is below */
  /* Who owns the bytes, by the tables' indices; NULL: the file (or its arena). */
  lqt__shared **codebooks, **deltas, **masks, **chunks;
  lqt__shared **tensors; /* four for each */
  lqt__shared **tensor_names, **keys;
  bool structural; /* since the last lqt__overlay_settle something but bytes changed */
} lqt__overlay;

/* The model's file, unedited. Keeps a reference to the model. NULL: no memory. */
lqt__overlay *lqt__overlay_create(lqt_model *model);
/* NULL: no memory. */
lqt__overlay *lqt__overlay_clone(const lqt__overlay *overlay);
lqt__overlay *lqt__overlay_retain(lqt__overlay *overlay);
void lqt__overlay_release(lqt__overlay *overlay); /* NULL accepted */

lqt__blob *lqt__overlay_blob(lqt__overlay *overlay, lqt__section_kind kind, size_t index);
/* Index of the section that a change names, or -1. */
ptrdiff_t lqt__overlay_find(const lqt__overlay *overlay, lqt__section_kind kind, uint16_t id,
                            const char *name);
/* What a record is now: allocated bytes that the caller frees, or NULL when there is none (with
 * *out_bytes 0) or no memory (with *out_bytes not 0). `place` may be NULL. */
uint8_t *lqt__overlay_record(const lqt__overlay *overlay, uint16_t what, uint16_t id,
                             const char *name, uint64_t *out_bytes, uint64_t *place);

/* Makes a change, whose old bytes are not looked at. Nothing has changed when it fails. Changes of
 * shapes and references leave derived fields behind: lqt__overlay_settle follows. Errors:
 * LQT_NOT_FOUND, LQT_OUT_OF_RANGE, LQT_BAD_*, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__overlay_apply(lqt__overlay *overlay, const lqt__change *change,
                                            lqt_diag *diag);
/* Checks shapes and references as the reader does, and brings derived fields up to date. Does
 * nothing when only bytes have changed. Errors: LQT_BAD_*, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__overlay_settle(lqt__overlay *overlay, lqt_diag *diag);
/* An immutable model of the overlay, which keeps it. Errors: those of lqt__graph_parse. */
LQT_NODISCARD lqt_status lqt__overlay_model(lqt__overlay *overlay, lqt_model **out, lqt_diag *diag);

#endif /* LQT_RUNTIME_EDIT_OVERLAY_H_ */
