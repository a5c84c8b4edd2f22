#include "edit/broadcast.h"

#include <string.h>

#include "base/diag.h"
#include "edit/descriptor.h"
#include "format/bytes.h"
#include "format/layout.h"

static const char *const where = "editor";

/* Patches of one commit, as long as every change can be one. */
typedef struct patches {
  lqt__overlay *before, *after;
  lqt__engine_change *list;
  size_t count, capacity;
  bool structural, memory;
} patches;

static void add(patches *p, size_t tensor, lqt_weight_part part, uint64_t first, uint64_t count,
                const void *data, const void *old_data) {
  if (p->count == p->capacity) {
    size_t capacity = p->capacity * 2 + 16;
    lqt__engine_change *list = lqt__realloc(p->list, capacity * sizeof *list);
    if (list == NULL) {
      p->memory = false;
      return;
    }
    p->list = list;
    p->capacity = capacity;
  }
  p->list[p->count++] = (lqt__engine_change){.tensor = (uint32_t)tensor,
                                             .part = part,
                                             .first = first,
                                             .count = count,
                                             .data = data,
                                             .old_data = old_data};
}

/* Elements of `size` bytes that the bytes [offset, offset + bytes) touch, counted from `base` in
 * the section. Data comes from the overlays, so that changes of single bytes become whole elements
 * and what overlaps agrees. */
static void add_range(patches *p, size_t tensor, lqt_weight_part part, const lqt__blob *old,
                      const lqt__blob *now, uint64_t base, uint64_t size, uint64_t offset,
                      uint64_t bytes, uint64_t numbered_from) {
  uint64_t first = (offset - base) / size, end = (offset + bytes - base + size - 1) / size;
  uint64_t at = base + first * size;
  if (old->data == NULL || now->data == NULL || old->bytes != now->bytes) {
    p->structural = true;
    return;
  }
  add(p, tensor, part, numbered_from + first, end - first, now->data + at, old->data + at);
}

/* A delta's values: one array, or A and B. Anything else of it is structure. */
static void add_delta(patches *p, size_t tensor, size_t old_index, size_t index, uint64_t offset,
                      uint64_t bytes) {
  const lqt__tensor *t = &p->after->now.tensors[tensor];
  const lqt__delta *delta = &p->after->now.deltas[index];
  const lqt__blob *old = &p->before->now.deltas[old_index].blob;
  bool parametric = delta->encoding == LQT__DELTA_LOW_RANK || delta->encoding == LQT__DELTA_GROUPED;
  uint32_t parameter =
      parametric ? lqt__load_u32(delta->blob.data + delta->header_bytes, false) : 0;
  lqt__delta_layout layout;
  if (!lqt__delta_measure(delta->encoding, delta->dtype, t->rows, t->cols, delta->count, parameter,
                          &layout) ||
      offset < layout.values) {
    p->structural = true;
    return;
  }
  uint64_t size = lqt_dtype_size((lqt_dtype)delta->dtype);
  uint64_t split = layout.values_b != 0 ? t->rows * parameter : delta->count;
  uint64_t end = layout.values + split * size, last = offset + bytes;
  if (offset < end) {
    uint64_t stop = last < end ? last : end;
    add_range(p, tensor, LQT_PART_DELTA_VALUES, old, &delta->blob, layout.values, size, offset,
              stop - offset, 0);
  }
  if (layout.values_b != 0 && last > layout.values_b) {
    uint64_t start = offset > layout.values_b ? offset : layout.values_b;
    add_range(p, tensor, LQT_PART_DELTA_VALUES, old, &delta->blob, layout.values_b, size, start,
              last - start, split);
  }
}

/* A section with a head, for every tensor that uses it. */
static void add_headed(patches *p, const lqt__change *change) {
  lqt__section_kind kind = (lqt__section_kind)change->what;
  ptrdiff_t index = lqt__overlay_find(p->after, kind, change->id, NULL);
  ptrdiff_t old_index = lqt__overlay_find(p->before, kind, change->id, NULL);
  if (index < 0 || old_index < 0) {
    p->structural = true;
    return;
  }
  const lqt__blob *now = lqt__overlay_blob(p->after, kind, (size_t)index);
  const lqt__blob *old = lqt__overlay_blob(p->before, kind, (size_t)old_index);
  uint64_t offset = change->offset, bytes = change->bytes;
  if (offset < LQT__SECTION_HEAD) {
    /* Of a mask's head the density may change, which no engine looks at. */
    if (kind != LQT__SECTION_MASK) p->structural = true;
    if (offset + bytes <= LQT__SECTION_HEAD) return;
    bytes -= LQT__SECTION_HEAD - offset;
    offset = LQT__SECTION_HEAD;
  }
  for (size_t i = 0; i < p->after->now.tensor_count; i++) {
    const lqt__tensor *t = &p->after->now.tensors[i];
    if (kind == LQT__SECTION_DELTA) {
      if (t->delta_id == change->id) {
        add_delta(p, i, (size_t)old_index, (size_t)index, offset, bytes);
      }
    } else if (kind == LQT__SECTION_MASK) {
      if (t->mask_id != change->id) continue;
      if (p->after->now.masks[index].encoding != LQT__MASK_BITMAP) p->structural = true;
      add_range(p, i, LQT_PART_MASK, old, now, LQT__SECTION_HEAD, 1, offset, bytes, 0);
    } else if (t->dtype == LQT_DTYPE_CODEBOOK) {
      const lqt__codebook *codebook = &p->after->now.codebooks[index];
      size_t size = lqt_dtype_size((lqt_dtype)codebook->dtype);
      if (t->codebook_id == change->id) {
        add_range(p, i, LQT_PART_CODEBOOK, old, now, LQT__SECTION_HEAD, size, offset, bytes, 0);
      }
      if (t->residual_codebook_id == change->id) {
        add_range(p, i, LQT_PART_RESIDUAL, old, now, LQT__SECTION_HEAD, size, offset, bytes, 0);
      }
    }
  }
}

/* A tensor's own section. */
static void add_plain(patches *p, const lqt__change *change) {
  lqt__section_kind kind = (lqt__section_kind)change->what;
  ptrdiff_t index = lqt__file_find_tensor(&p->after->now, change->name);
  ptrdiff_t old_index = lqt__file_find_tensor(&p->before->now, change->name);
  if (index < 0 || old_index < 0) {
    p->structural = true;
    return;
  }
  const lqt__blob *now = lqt__overlay_blob(p->after, kind, (size_t)index);
  const lqt__blob *old = lqt__overlay_blob(p->before, kind, (size_t)old_index);
  lqt_dtype dtype = (lqt_dtype)p->after->now.tensors[index].dtype;
  lqt_weight_part part = LQT_PART_INDICES;
  uint64_t size = 1;
  if (kind == LQT__SECTION_GROUP_SCALES || kind == LQT__SECTION_ZERO_POINTS) {
    part = kind == LQT__SECTION_GROUP_SCALES ? LQT_PART_GROUP_SCALES : LQT_PART_ZERO_POINTS;
    size = 2;
  } else if (kind == LQT__SECTION_RESIDUAL_INDICES) {
    part = LQT_PART_RESIDUAL_INDICES;
  } else if (dtype != LQT_DTYPE_CODEBOOK) {
    part = LQT_PART_PLAIN;
    size = lqt_dtype_size(dtype);
    if (dtype != LQT_DTYPE_F32 && dtype != LQT_DTYPE_F16 && dtype != LQT_DTYPE_BF16) {
      p->structural = true; /* integers are widened when they are uploaded */
      return;
    }
  }
  add_range(p, (size_t)index, part, old, now, 0, size, change->offset, change->bytes, 0);
}

/* A descriptor of which at most scales and flags differ. */
static void add_record(patches *p, const lqt__change *change) {
  if (change->what == LQT__RECORD_HYPERPARAMETER) {
    if (strcmp(change->name, "context") == 0) p->structural = true;
    return;
  }
  if (change->what == LQT__RECORD_CHUNK) {
    if (change->id == LQT__CHUNK_MODULES) p->structural = true;
    return;
  }
  ptrdiff_t index = lqt__file_find_tensor(&p->after->now, change->name);
  ptrdiff_t old_index = lqt__file_find_tensor(&p->before->now, change->name);
  if (index < 0 || old_index != index) {
    p->structural = true;
    return;
  }
  const lqt__tensor *now = &p->after->now.tensors[index], *old = &p->before->now.tensors[index];
  lqt__tensor same = *old;
  uint8_t a[LQT__DESCRIPTOR_BYTES], b[LQT__DESCRIPTOR_BYTES];
  same.scale = now->scale;
  same.residual_scale = now->residual_scale;
  same.flags = now->flags;
  lqt__descriptor_encode(&same, a);
  lqt__descriptor_encode(now, b);
  if (memcmp(a, b, sizeof a) != 0) {
    p->structural = true;
    return;
  }
  if (now->scale != old->scale) {
    add(p, (size_t)index, LQT_PART_SCALE, 0, 1, &now->scale, &old->scale);
  }
  if (now->residual_scale != old->residual_scale) {
    add(p, (size_t)index, LQT_PART_RESIDUAL_SCALE, 0, 1, &now->residual_scale,
        &old->residual_scale);
  }
}

static void translate(patches *p, const lqt__change *changes, size_t count) {
  for (size_t i = 0; i < count && p->memory && !p->structural; i++) {
    const lqt__change *change = &changes[i];
    if (change->kind == LQT__CHANGE_SECTION) {
      p->structural = true;
    } else if (change->kind == LQT__CHANGE_RECORD) {
      add_record(p, change);
    } else if (change->what == LQT__SECTION_CODEBOOK || change->what == LQT__SECTION_DELTA ||
               change->what == LQT__SECTION_MASK) {
      add_headed(p, change);
    } else {
      add_plain(p, change);
    }
  }
}

/* ---- Structural edits ---- */

static bool concerns(const lqt__change *change, const lqt__tensor *t) {
  if (change->name != NULL) {
    return !(change->kind == LQT__CHANGE_RECORD && change->what == LQT__RECORD_HYPERPARAMETER) &&
           strcmp(change->name, t->name) == 0;
  }
  if (change->kind == LQT__CHANGE_RECORD) return false;
  switch (change->what) {
    case LQT__SECTION_CODEBOOK:
      return t->dtype == LQT_DTYPE_CODEBOOK &&
             (t->codebook_id == change->id || t->residual_codebook_id == change->id);
    case LQT__SECTION_DELTA:
      return t->delta_id == change->id;
    default:
      return t->mask_id == change->id;
  }
}

uint32_t *lqt__broadcast_changed(const lqt__overlay *after, const lqt__change *changes,
                                 size_t count, size_t *out_count) {
  uint32_t *list = lqt__alloc_array(after->now.tensor_count, sizeof *list);
  *out_count = 0;
  for (size_t i = 0; list != NULL && i < after->now.tensor_count; i++) {
    bool changed = false;
    for (size_t k = 0; k < count && !changed; k++) {
      changed = concerns(&changes[k], &after->now.tensors[i]);
    }
    if (changed) list[(*out_count)++] = (uint32_t)i;
  }
  return list;
}

static bool from_file(const lqt__overlay *o, const lqt__tensor *t) {
  const lqt__file *base = &o->model->file;
  ptrdiff_t at = lqt__file_find_tensor(base, t->name);
  if (at < 0) return false;
  const lqt__tensor *was = &base->tensors[at];
  uint8_t a[LQT__DESCRIPTOR_BYTES], b[LQT__DESCRIPTOR_BYTES];
  lqt__descriptor_encode(was, a);
  lqt__descriptor_encode(t, b);
  if (memcmp(a, b, sizeof a) != 0 || was->payload.data != t->payload.data ||
      was->group_scales.data != t->group_scales.data ||
      was->zero_points.data != t->zero_points.data ||
      was->residual_indices.data != t->residual_indices.data) {
    return false;
  }
  const uint16_t books[] = {t->codebook_id, t->residual_codebook_id};
  for (int i = 0; i < 2 && t->dtype == LQT_DTYPE_CODEBOOK; i++) {
    if (books[i] == LQT_ID_NONE) continue;
    if (o->now.codebooks[lqt__file_find_codebook(&o->now, books[i])].blob.data !=
        base->codebooks[lqt__file_find_codebook(base, books[i])].blob.data) {
      return false;
    }
  }
  if (t->delta_id != LQT_ID_NONE &&
      o->now.deltas[lqt__file_find_delta(&o->now, t->delta_id)].blob.data !=
          base->deltas[lqt__file_find_delta(base, t->delta_id)].blob.data) {
    return false;
  }
  return t->mask_id == LQT_ID_NONE ||
         o->now.masks[lqt__file_find_mask(&o->now, t->mask_id)].blob.data ==
             base->masks[lqt__file_find_mask(base, t->mask_id)].blob.data;
}

uint32_t *lqt__broadcast_edited(const lqt__overlay *after, size_t *out_count) {
  uint32_t *list = lqt__alloc_array(after->now.tensor_count, sizeof *list);
  *out_count = 0;
  for (size_t i = 0; list != NULL && i < after->now.tensor_count; i++) {
    if (!from_file(after, &after->now.tensors[i])) list[(*out_count)++] = (uint32_t)i;
  }
  return list;
}

/* ---- Staging ---- */

static bool needs_plan(const lqt_engine *engine, const patches *p) {
  if (p->structural) return true;
  for (size_t i = 0; i < p->count; i++) {
    if (i > 0 && p->list[i].tensor == p->list[i - 1].tensor) continue;
    if (lqt__engine_tensor_use(engine, p->list[i].tensor) == LQT__ENGINE_CONSTANT) return true;
  }
  return false;
}

static bool can_undo(lqt_engine *engine, uint64_t revision) {
  if (revision == 0) return false;
  lqt__gate_enter(engine->gate);
  bool can = lqt__engine_can_undo(engine, revision);
  lqt__gate_leave(engine->gate);
  return can;
}

static lqt_status stage_engine(lqt__broadcast *b, size_t at, const patches *p,
                               const lqt__change *changes, size_t count, lqt_diag *diag) {
  lqt_engine *engine = b->engines[at];
  if (atomic_load(&engine->lost)) return LQT_OK; /* it stays where it is, and runs no more */
  if (can_undo(engine, b->undone)) {
    b->undo[at] = true;
    return LQT_OK;
  }
  if (!needs_plan(engine, p)) {
    LQT__TRY(lqt__engine_stage(engine, p->list, p->count, &b->staged[at], diag));
  } else {
    if (b->model == NULL) LQT__TRY(lqt__overlay_model(p->after, &b->model, diag));
    size_t changed_count;
    uint32_t *changed = lqt__broadcast_changed(p->after, changes, count, &changed_count);
    if (changed == NULL) return lqt__fail_memory(diag, where, 0, "a list of tensors");
    lqt_status status =
        lqt__engine_stage_model(engine, b->model, changed, changed_count, &b->staged[at], diag);
    lqt__free(changed);
    if (status != LQT_OK) return status;
  }
  return lqt__engine_staged_wait(b->staged[at], diag);
}

lqt_status lqt__broadcast_stage(lqt_engine **engines, size_t count, lqt__overlay *before,
                                lqt__overlay *after, const lqt__change *changes,
                                size_t change_count, uint64_t undone, lqt__broadcast *out,
                                lqt_diag *diag) {
  *out = (lqt__broadcast){.engines = engines, .count = count, .undone = undone};
  if (count == 0) return LQT_OK;
  out->staged = lqt__alloc_array(count, sizeof *out->staged);
  out->undo = lqt__alloc_array(count, sizeof *out->undo);
  patches p = {.before = before, .after = after, .memory = true};
  lqt_status status = LQT_OK;
  if (out->staged == NULL || out->undo == NULL) {
    status = lqt__fail_memory(diag, where, count * sizeof *out->staged, "staged edits");
  }
  if (status == LQT_OK) translate(&p, changes, change_count);
  if (status == LQT_OK && !p.memory) status = lqt__fail_memory(diag, where, 0, "patches");
  for (size_t i = 0; i < count && status == LQT_OK; i++) {
    status = stage_engine(out, i, &p, changes, change_count, diag);
  }
  lqt__free(p.list);
  return status;
}

lqt_status lqt__broadcast_flip(lqt__broadcast *b, uint64_t revision, lqt_diag *diag) {
  lqt_status first = LQT_OK;
  for (size_t i = 0; i < b->count; i++) {
    if (b->staged[i] == NULL && !b->undo[i]) continue; /* lost before */
    lqt_diag finding = {0};
    lqt_status status = b->undo[i]
                            ? lqt__engine_unflip(b->engines[i], b->undone, revision, &finding)
                            : lqt__engine_flip(b->engines[i], b->staged[i], revision, &finding);
    b->staged[i] = NULL;
    if (status != LQT_OK) atomic_store(&b->engines[i]->lost, true);
    if (status == LQT_OK || first != LQT_OK) continue;
    first = lqt__fail(diag, LQT_DEVICE_LOST, where,
                      "the edit is committed, and an engine could not follow: %s; create it again",
                      finding.what);
  }
  return first;
}

void lqt__broadcast_free(lqt__broadcast *b) {
  for (size_t i = 0; b->staged != NULL && i < b->count; i++) {
    lqt__engine_staged_destroy(b->staged[i]);
  }
  lqt__free(b->staged);
  lqt__free(b->undo);
  lqt_model_release(b->model);
  *b = (lqt__broadcast){0};
}
