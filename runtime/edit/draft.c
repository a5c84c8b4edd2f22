#include "edit/draft.h"

#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "base/half.h"
#include "edit/descriptor.h"
#include "edit/mutation.h"
#include "exec/plan.h"
#include "format/bytes.h"
#include "format/layout.h"

lqt_status lqt__draft_begin(lqt__draft *d, const lqt__overlay *state, const lqt__rules *rules,
                            lqt_diag *diag) {
  *d = (lqt__draft){.rules = rules, .place = UINT64_MAX, .where = state->model->path};
  d->work = lqt__overlay_clone(state);
  if (d->work == NULL) return lqt__fail_memory(diag, "editor", 0, "a transaction");
  return LQT_OK;
}

void lqt__draft_free(lqt__draft *d) {
  for (size_t i = 0; i < d->change_count; i++) lqt__change_free(&d->changes[i]);
  lqt__free(d->changes);
  lqt__overlay_release(d->work);
  *d = (lqt__draft){0};
}

lqt_status lqt__draft_cut(lqt__draft *d, size_t keep, lqt_diag *diag) {
  lqt_status first = LQT_OK;
  while (d->change_count > keep) {
    lqt__change *last = &d->changes[--d->change_count];
    lqt__change_invert(last);
    lqt_status status = lqt__overlay_apply(d->work, last, diag);
    if (first == LQT_OK) first = status;
    lqt__change_free(last);
  }
  if (first != LQT_OK) return first;
  return lqt__overlay_settle(d->work, diag);
}

/* ---- Changes ---- */

static lqt_status no_memory(lqt__draft *d, uint64_t bytes) {
  return lqt__fail_memory(d->diag, "editor", bytes, "an edit");
}

static bool duplicate(const void *data, uint64_t bytes, uint8_t **out) {
  *out = lqt__alloc(bytes);
  if (*out == NULL) return false;
  if (bytes != 0) memcpy(*out, data, bytes);
  return true;
}

/* Applies and keeps a change, which is the draft's from here on. */
static lqt_status push(lqt__draft *d, lqt__change *change) {
  enum { REFERENCE_FROM = 256 };
  lqt_status status = LQT_OK;
  if (d->change_count == d->change_capacity) {
    size_t capacity = d->change_capacity * 2 + 8;
    lqt__change *changes = lqt__realloc(d->changes, capacity * sizeof *changes);
    if (changes == NULL) {
      status = no_memory(d, capacity * sizeof *changes);
    } else {
      d->changes = changes;
      d->change_capacity = capacity;
    }
  }
  change->by_reference = d->by_reference && change->has_new && change->bytes >= REFERENCE_FROM;
  if (status == LQT_OK) status = lqt__overlay_apply(d->work, change, d->diag);
  if (status != LQT_OK) {
    lqt__change_free(change);
    return status;
  }
  if (change->kind != LQT__CHANGE_BYTES) d->structural = true;
  d->changes[d->change_count++] = *change;
  return LQT_OK;
}

/* Fills in copies of both sides and pushes. old_data and data may be NULL: absent. */
static lqt_status push_copy(lqt__draft *d, lqt__change change, const char *name,
                            const void *old_data, const void *data) {
  change.has_old = old_data != NULL;
  change.has_new = data != NULL;
  bool good = true;
  if (name != NULL) good = (change.name = lqt__strdup(name)) != NULL;
  if (data != NULL) good = duplicate(data, change.bytes, &change.data) && good;
  if (old_data != NULL) good = duplicate(old_data, change.old_bytes, &change.old_data) && good;
  if (good) return push(d, &change);
  lqt__change_free(&change);
  return no_memory(d, change.bytes + change.old_bytes);
}

static bool of_tensor(lqt__section_kind kind) {
  return kind >= LQT__SECTION_TENSOR && kind <= LQT__SECTION_RESIDUAL_INDICES;
}

static uint16_t id_of(const lqt__file *file, lqt__section_kind kind, size_t index) {
  return kind == LQT__SECTION_CODEBOOK ? file->codebooks[index].id
         : kind == LQT__SECTION_DELTA  ? file->deltas[index].id
         : kind == LQT__SECTION_MASK   ? file->masks[index].id
                                       : LQT_ID_NONE;
}

lqt_status lqt__draft_bytes(lqt__draft *d, lqt__section_kind kind, size_t index, uint64_t offset,
                            const void *data, uint64_t bytes) {
  const lqt__blob *blob = lqt__overlay_blob(d->work, kind, index);
  if (blob->data == NULL || offset > blob->bytes || bytes > blob->bytes - offset) {
    return LQT__REFUSE(d, LQT_OUT_OF_RANGE, "bytes %llu to %llu of a section of %llu",
                       (unsigned long long)offset, (unsigned long long)(offset + bytes),
                       (unsigned long long)blob->bytes);
  }
  /* From the first byte that differs to the last. */
  const uint8_t *now = blob->data + offset, *next = data;
  while (bytes != 0 && now[0] == next[0]) {
    now++, next++, offset++, bytes--;
  }
  while (bytes != 0 && now[bytes - 1] == next[bytes - 1]) bytes--;
  if (bytes == 0) return LQT_OK;
  lqt__change change = {.kind = LQT__CHANGE_BYTES,
                        .what = (uint16_t)kind,
                        .id = id_of(&d->work->now, kind, index),
                        .offset = offset,
                        .bytes = bytes,
                        .old_bytes = bytes};
  const char *name = of_tensor(kind) ? d->work->now.tensors[index].name : NULL;
  return push_copy(d, change, name, now, next);
}

lqt_status lqt__draft_section(lqt__draft *d, lqt__section_kind kind, uint16_t id, const char *name,
                              const void *data, uint64_t bytes) {
  ptrdiff_t index = lqt__overlay_find(d->work, kind, id, name);
  const lqt__blob *blob = index >= 0 ? lqt__overlay_blob(d->work, kind, (size_t)index) : NULL;
  const uint8_t *old_data = blob != NULL && blob->bytes != 0 ? blob->data : NULL;
  uint64_t old_bytes = blob != NULL ? blob->bytes : 0;
  if (old_data == NULL && data == NULL) return LQT_OK;
  uint64_t head = of_tensor(kind) ? 0 : LQT__SECTION_HEAD;
  if (old_data != NULL && data != NULL && old_bytes == bytes && bytes >= head &&
      memcmp(old_data, data, head) == 0) {
    return lqt__draft_bytes(d, kind, (size_t)index, head, (const uint8_t *)data + head,
                            bytes - head);
  }
  lqt__change change = {.kind = LQT__CHANGE_SECTION,
                        .what = (uint16_t)kind,
                        .id = of_tensor(kind) ? LQT_ID_NONE : id,
                        .offset = index >= 0 ? (uint64_t)index : d->place,
                        .bytes = data != NULL ? bytes : 0,
                        .old_bytes = old_data != NULL ? old_bytes : 0};
  return push_copy(d, change, of_tensor(kind) ? name : NULL, old_data, data);
}

/* A record against what is there. */
static lqt_status push_record(lqt__draft *d, uint16_t what, uint16_t id, const char *name,
                              const void *data, uint64_t bytes) {
  uint64_t old_bytes, place;
  uint8_t *old_data = lqt__overlay_record(d->work, what, id, name, &old_bytes, &place);
  if (old_data == NULL && old_bytes != 0) return no_memory(d, old_bytes);
  bool same = old_data == NULL
                  ? data == NULL
                  : data != NULL && old_bytes == bytes && memcmp(old_data, data, bytes) == 0;
  lqt_status status = LQT_OK;
  if (!same) {
    lqt__change change = {.kind = LQT__CHANGE_RECORD,
                          .what = what,
                          .id = id,
                          .offset = old_data != NULL ? place : d->place,
                          .bytes = data != NULL ? bytes : 0,
                          .old_bytes = old_bytes};
    status = push_copy(d, change, name, old_data, data);
  }
  lqt__free(old_data);
  return status;
}

lqt_status lqt__draft_tensor(lqt__draft *d, const char *name, const lqt__tensor *tensor) {
  uint8_t record[LQT__DESCRIPTOR_BYTES];
  if (tensor != NULL) lqt__descriptor_encode(tensor, record);
  return push_record(d, LQT__RECORD_TENSOR, LQT_ID_NONE, name, tensor != NULL ? record : NULL,
                     sizeof record);
}

lqt_status lqt__draft_chunk(lqt__draft *d, uint16_t type, const void *data, uint64_t bytes) {
  return push_record(d, LQT__RECORD_CHUNK, type, NULL, data, bytes);
}

lqt_status lqt__draft_key(lqt__draft *d, const char *key, float value) {
  uint8_t bytes[4];
  lqt__store_f32(bytes, value);
  return push_record(d, LQT__RECORD_HYPERPARAMETER, LQT_ID_NONE, key, bytes, sizeof bytes);
}

/* ---- Checks ---- */

lqt_status lqt__draft_permit(lqt__draft *d, const lqt__tensor *tensor) {
  if ((tensor->flags & LQT__TENSOR_PROTECTED) != 0) {
    return LQT__REFUSE(d, LQT_PERMISSION_DENIED, "tensor %s is PROTECTED", tensor->name);
  }
  return lqt__rules_allow(d->rules, d->operation, tensor->name, d->diag);
}

lqt_status lqt__draft_find(lqt__draft *d, const char *name, size_t *out_index) {
  if (name == NULL) return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "the mutation names no tensor");
  ptrdiff_t index = lqt__file_find_tensor(&d->work->now, name);
  if (index < 0) return LQT__REFUSE(d, LQT_NOT_FOUND, "there is no tensor %.200s", name);
  *out_index = (size_t)index;
  const lqt__tensor *tensor = &d->work->now.tensors[index];
  if (tensor->type != 0) {
    return LQT__REFUSE(d, LQT_UNSUPPORTED, "tensor %s is a RecursiveTensor, which is not edited",
                       name);
  }
  return lqt__draft_permit(d, tensor);
}

lqt_status lqt__draft_encode(lqt__draft *d, const char *name, const float *values, uint64_t count,
                             lqt_dtype dtype, uint8_t *out) {
  double low, high;
  lqt__rules_bounds(d->rules, name, &low, &high);
  for (uint64_t i = 0; i < count; i++) {
    uint16_t half = 0;
    float kept = values[i];
    if (dtype == LQT_DTYPE_F16) {
      half = lqt__f16_from_f32(kept);
      kept = lqt__f32_from_f16(half);
    } else if (dtype == LQT_DTYPE_BF16) {
      half = lqt__bf16_from_f32(kept);
      kept = lqt__f32_from_bf16(half);
    }
    if (!isfinite(kept)) {
      return LQT__REFUSE(d, LQT_NOT_FINITE, "value %llu (%g) for %s is not finite as %s",
                         (unsigned long long)i, (double)values[i], name, lqt_dtype_name(dtype));
    }
    if ((double)kept < low || (double)kept > high) {
      return LQT__REFUSE(d, LQT_VALIDATION_FAILED,
                         "value %llu (%g) for %s is outside the rules' bounds %g to %g",
                         (unsigned long long)i, (double)kept, name, low, high);
    }
    if (dtype == LQT_DTYPE_F32) {
      memcpy(out + 4 * i, &kept, 4);
    } else {
      memcpy(out + 2 * i, &half, 2);
    }
  }
  return LQT_OK;
}

lqt_status lqt__draft_fresh_id(lqt__draft *d, lqt__section_kind kind, uint16_t *out_id) {
  for (uint32_t id = 0; id < LQT_ID_NONE; id++) {
    if (lqt__overlay_find(d->work, kind, (uint16_t)id, NULL) >= 0) continue;
    *out_id = (uint16_t)id;
    return LQT_OK;
  }
  return LQT__REFUSE(d, LQT_LIMIT, "all 65535 ids are in use");
}

static bool uses(const lqt__tensor *t, lqt__section_kind kind, uint16_t id) {
  if (kind == LQT__SECTION_DELTA) return t->delta_id == id;
  if (kind == LQT__SECTION_MASK) return t->mask_id == id;
  return t->dtype == LQT_DTYPE_CODEBOOK && (t->codebook_id == id || t->residual_codebook_id == id);
}

size_t lqt__draft_users(const lqt__draft *d, lqt__section_kind kind, uint16_t id) {
  size_t users = 0;
  for (size_t i = 0; i < d->work->now.tensor_count; i++) {
    users += uses(&d->work->now.tensors[i], kind, id);
  }
  return users;
}

lqt_status lqt__draft_drop_unused(lqt__draft *d, lqt__section_kind kind, uint16_t id) {
  if (id == LQT_ID_NONE || lqt__draft_users(d, kind, id) != 0) return LQT_OK;
  return lqt__draft_section(d, kind, id, NULL, NULL, 0);
}

lqt_status lqt__draft_weight(lqt__draft *d, size_t index, lqt__weight_cache *out) {
  *out = (lqt__weight_cache){0};
  return lqt__weight_make(&d->work->now, index, d->where, out, d->diag);
}

void lqt__weight_free(lqt__weight_cache *cache) {
  for (int i = 0; i < 3; i++) lqt__free(cache->owned[i]);
  *cache = (lqt__weight_cache){0};
}

/* ---- Whole mutations ---- */

static bool is_bad(lqt_status status) {
  return (status >= LQT_BAD_MAGIC && status < LQT_DEVICE_NOT_AVAILABLE) ||
         status == LQT_UNSUPPORTED;
}

/* What a mutation left behind must be a model that could be opened. */
static lqt_status settle(lqt__draft *d) {
  if (!d->work->structural) return LQT_OK;
  lqt_status status = lqt__overlay_settle(d->work, d->diag);
  const lqt__chunk *chunk = lqt__file_chunk(&d->work->now, LQT__CHUNK_MODULES);
  if (status == LQT_OK && chunk != NULL) {
    lqt__graph graph;
    status = lqt__graph_parse(&d->work->now, (const char *)chunk->data, chunk->bytes, d->where,
                              &graph, d->diag);
    if (status == LQT_OK) lqt__graph_free(&graph);
  }
  if (!is_bad(status)) return status;
  lqt_status says =
      d->operation == LQT_EDIT_MODULE_SWAP ? LQT_INCOMPATIBLE_INTERFACE : LQT_VALIDATION_FAILED;
  if (d->diag == NULL) return says;
  lqt_diag copy = *d->diag;
  return lqt__fail(d->diag, says, d->where, "the model would not hold together: %s", copy.what);
}

lqt_status lqt__draft_mutate(lqt__draft *d, const lqt_mutation *mutation, bool *out_broken,
                             lqt_diag *diag) {
  size_t keep = d->change_count;
  bool structural = d->structural;
  if (out_broken != NULL) *out_broken = false;
  d->diag = diag;
  d->by_reference = false;
  lqt_status status = lqt__mutation_draft(d, mutation);
  if (status == LQT_OK) status = settle(d);
  d->by_reference = false;
  if (status == LQT_OK) return LQT_OK;
  d->structural = structural;
  d->diag = NULL;
  bool broken = lqt__draft_cut(d, keep, NULL) != LQT_OK;
  if (out_broken != NULL) *out_broken = broken;
  return status;
}

lqt_status lqt__draft_check(lqt__draft *d, lqt_diag *diag) {
  if (!d->structural || lqt__file_chunk(&d->work->now, LQT__CHUNK_MODULES) == NULL) return LQT_OK;
  lqt_model *model;
  LQT__TRY(lqt__overlay_model(d->work, &model, diag));
  lqt__plan plan;
  lqt_diag finding = {0};
  lqt_status status = lqt__plan_create(model, LQT_DTYPE_F32, &plan, &finding);
  if (status == LQT_OK) lqt__plan_free(&plan);
  lqt_model_release(model);
  if (status == LQT_OK || status == LQT_UNSUPPORTED) return LQT_OK; /* kept, not run here */
  if (status == LQT_OUT_OF_MEMORY) return lqt__fail_memory(diag, "editor", 0, "a plan");
  return lqt__fail(diag, LQT_VALIDATION_FAILED, d->where, "the edited graph cannot run: %s",
                   finding.what);
}
