/* The changes between two states: what brings one back is no longer than what differs, however many
 * revisions lie between. */
#include <string.h>

#include "base/diag.h"
#include "edit/draft.h"

static uint16_t id_of(const lqt__file *file, lqt__section_kind kind, size_t index) {
  return kind == LQT__SECTION_CODEBOOK ? file->codebooks[index].id
         : kind == LQT__SECTION_DELTA  ? file->deltas[index].id
                                       : file->masks[index].id;
}

static size_t count_of(const lqt__file *file, lqt__section_kind kind) {
  return kind == LQT__SECTION_CODEBOOK ? file->codebook_count
         : kind == LQT__SECTION_DELTA  ? file->delta_count
                                       : file->mask_count;
}

/* Codebooks, deltas or masks: those that go, the last first, then those that stay or come. */
static lqt_status become_table(lqt__draft *d, lqt__overlay *target, lqt__section_kind kind) {
  for (size_t i = count_of(&d->work->now, kind); i-- > 0;) {
    uint16_t id = id_of(&d->work->now, kind, i);
    if (lqt__overlay_find(target, kind, id, NULL) >= 0) continue;
    LQT__TRY(lqt__draft_section(d, kind, id, NULL, NULL, 0));
  }
  for (size_t i = 0; i < count_of(&target->now, kind); i++) {
    uint16_t id = id_of(&target->now, kind, i);
    const lqt__blob *blob = lqt__overlay_blob(target, kind, i);
    ptrdiff_t at = lqt__overlay_find(d->work, kind, id, NULL);
    const lqt__blob *now = at >= 0 ? lqt__overlay_blob(d->work, kind, (size_t)at) : NULL;
    if (now != NULL && now->data == blob->data) continue;
    /* A bitmap's density changes with its bits, and is not structure. */
    bool mask = kind == LQT__SECTION_MASK && now != NULL && now->bytes == blob->bytes &&
                memcmp(now->data, blob->data, 4) == 0;
    d->place = i;
    lqt_status status = mask ? lqt__draft_bytes(d, kind, (size_t)at, 0, blob->data, blob->bytes)
                             : lqt__draft_section(d, kind, id, NULL, blob->data, blob->bytes);
    d->place = UINT64_MAX;
    if (status != LQT_OK) return status;
  }
  return LQT_OK;
}

static lqt_status become_sections(lqt__draft *d, lqt__overlay *target, const char *name,
                                  ptrdiff_t to) {
  for (int k = 0; k < LQT__TENSOR_SECTIONS; k++) {
    lqt__section_kind kind = (lqt__section_kind)(LQT__SECTION_TENSOR + k);
    ptrdiff_t at = lqt__file_find_tensor(&d->work->now, name);
    const lqt__blob *now = lqt__overlay_blob(d->work, kind, (size_t)at);
    const lqt__blob *blob = to >= 0 ? lqt__overlay_blob(target, kind, (size_t)to) : NULL;
    const uint8_t *data = blob != NULL && blob->bytes != 0 ? blob->data : NULL;
    if (now->data == data) continue;
    LQT__TRY(lqt__draft_section(d, kind, LQT_ID_NONE, name, data, blob != NULL ? blob->bytes : 0));
  }
  return LQT_OK;
}

static lqt_status become_tensors(lqt__draft *d, lqt__overlay *target) {
  for (size_t i = d->work->now.tensor_count; i-- > 0;) {
    const char *name = d->work->now.tensors[i].name;
    if (lqt__file_find_tensor(&target->now, name) >= 0) continue;
    LQT__TRY(become_sections(d, target, name, -1));
    LQT__TRY(lqt__draft_tensor(d, name, NULL));
  }
  for (size_t i = 0; i < target->now.tensor_count; i++) {
    const lqt__tensor *tensor = &target->now.tensors[i];
    d->place = i;
    lqt_status status = lqt__draft_tensor(d, tensor->name, tensor);
    d->place = UINT64_MAX;
    if (status == LQT_OK) status = become_sections(d, target, tensor->name, (ptrdiff_t)i);
    if (status != LQT_OK) return status;
  }
  return LQT_OK;
}

lqt_status lqt__draft_become(lqt__draft *d, lqt__overlay *target, lqt_diag *diag) {
  static const lqt__section_kind tables[] = {LQT__SECTION_CODEBOOK, LQT__SECTION_DELTA,
                                             LQT__SECTION_MASK};
  d->diag = diag;
  for (int i = 0; i < 3; i++) LQT__TRY(become_table(d, target, tables[i]));
  LQT__TRY(become_tensors(d, target));
  for (size_t i = 0; i < target->now.chunk_count; i++) {
    const lqt__chunk *chunk = &target->now.chunks[i];
    if (chunk->type != LQT__CHUNK_MODULES) continue; /* the only one that edits touch */
    LQT__TRY(lqt__draft_chunk(d, chunk->type, chunk->data, chunk->bytes));
  }
  for (size_t i = 0; i < target->now.hyperparameter_count; i++) {
    const lqt__hyperparameter *h = &target->now.hyperparameters[i];
    LQT__TRY(lqt__draft_key(d, h->key, h->value));
  }
  return lqt__overlay_settle(d->work, diag);
}
