/* Staged patches: checked and freed of overlaps here, then the backend's slots are called. Backends
 * without them get the plain form: both versions of the bytes on the host, written by weight_patch.
 */
#include "lqt/patch.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "kernel/weight.h"
#include "lqt/backend.h"

static const char *const where = "patch";

/* ---- Overlaps ---- */

typedef struct sortable {
  const lqt_patch_change *change;
  size_t order;
} sortable;

static int by_place(const void *a, const void *b) {
  const sortable *left = a, *right = b;
  const lqt_patch_change *l = left->change, *r = right->change;
  if (l->weight != r->weight) return (uintptr_t)l->weight < (uintptr_t)r->weight ? -1 : 1;
  if (l->patch.part != r->patch.part) return l->patch.part < r->patch.part ? -1 : 1;
  if (l->patch.first != r->patch.first) return l->patch.first < r->patch.first ? -1 : 1;
  return left->order < right->order ? -1 : left->order > right->order;
}

static int by_order(const void *a, const void *b) {
  const sortable *left = a, *right = b;
  return left->order < right->order ? -1 : left->order > right->order;
}

/* The changes without overlaps, in an arena. */
typedef struct merged {
  lqt__arena arena;
  lqt_patch_change *changes;
  size_t count;
} merged;

/* One change that does what `members` do one after the other. */
static lqt_status join(merged *m, sortable *members, size_t count, uint64_t end, lqt_diag *diag) {
  lqt_patch_change *out = &m->changes[m->count++];
  *out = *members[0].change;
  if (count == 1) return LQT_OK;
  uint64_t first = out->patch.first,
           size = lqt__weight_part_size(&out->weight->shape, out->patch.part);
  out->patch.count = end - first;
  bool keeps = true;
  for (size_t i = 0; i < count; i++) keeps = keeps && members[i].change->old_data != NULL;
  uint8_t *data = lqt__arena_array(&m->arena, out->patch.count, size);
  uint8_t *old = keeps ? lqt__arena_array(&m->arena, out->patch.count, size) : NULL;
  if (data == NULL || (keeps && old == NULL)) {
    return lqt__fail_memory(diag, where, out->patch.count * size, "changes that overlap");
  }
  qsort(members, count, sizeof *members, by_order);
  for (size_t i = 0; i < count; i++) {
    const lqt_weight_patch *patch = &members[i].change->patch;
    memcpy(data + (patch->first - first) * size, patch->data, patch->count * size);
    /* What was there before the first of them. */
    const lqt_patch_change *back = members[count - 1 - i].change;
    if (!keeps) continue;
    memcpy(old + (back->patch.first - first) * size, back->old_data, back->patch.count * size);
  }
  out->patch.data = data;
  out->old_data = old;
  return LQT_OK;
}

static lqt_status merge(const lqt_patch_change *changes, size_t count, merged *m, lqt_diag *diag) {
  sortable *sorted = lqt__arena_array(&m->arena, count, sizeof *sorted);
  m->changes = lqt__arena_array(&m->arena, count, sizeof *m->changes);
  if (sorted == NULL || m->changes == NULL) {
    return lqt__fail_memory(diag, where, count * sizeof *m->changes, "a list of changes");
  }
  size_t used = 0;
  for (size_t i = 0; i < count; i++) {
    if (changes[i].patch.count != 0) sorted[used++] = (sortable){&changes[i], i};
  }
  qsort(sorted, used, sizeof *sorted, by_place);
  for (size_t i = 0; i < used;) {
    const lqt_patch_change *first = sorted[i].change;
    uint64_t end = first->patch.first + first->patch.count;
    size_t next = i + 1;
    for (; next < used; next++) {
      const lqt_patch_change *c = sorted[next].change;
      bool meets =
          c->weight == first->weight && c->patch.part == first->patch.part && c->patch.first < end;
      if (!meets) break;
      if (c->patch.first + c->patch.count > end) end = c->patch.first + c->patch.count;
    }
    LQT__TRY(join(m, sorted + i, next - i, end, diag));
    i = next;
  }
  return LQT_OK;
}

/* ---- Backends without slots: the patch on the host ---- */

typedef struct host_patch {
  lqt_patch base;
  lqt_patch_change *changes; /* data and old_data are ours, behind the array */
  size_t count;
} host_patch;

static uint64_t change_bytes(const lqt_patch_change *change) {
  return change->patch.count * lqt__weight_part_size(&change->weight->shape, change->patch.part);
}

static lqt_status host_create(const lqt_patch_change *changes, size_t count, lqt_patch **out,
                              lqt_diag *diag) {
  uint64_t bytes = count * sizeof *changes;
  for (size_t i = 0; i < count; i++) {
    if (changes[i].old_data == NULL) {
      return lqt__fail(diag, LQT_UNSUPPORTED, where,
                       "this device cannot keep what a patch replaces: change %zu needs its old "
                       "bytes",
                       i);
    }
    bytes += 2 * change_bytes(&changes[i]);
  }
  host_patch *patch = lqt__alloc_zero(sizeof *patch);
  if (patch == NULL) return lqt__fail_memory(diag, where, sizeof *patch, "a patch");
  patch->changes = lqt__alloc(bytes);
  if (patch->changes == NULL) {
    lqt__free(patch);
    return lqt__fail_memory(diag, where, bytes, "a patch");
  }
  uint8_t *at = (uint8_t *)(patch->changes + count);
  for (size_t i = 0; i < count; i++) {
    lqt_patch_change *change = &patch->changes[i];
    uint64_t size = change_bytes(&changes[i]);
    *change = changes[i];
    change->patch.data = memcpy(at, changes[i].patch.data, size);
    change->old_data = memcpy(at + size, changes[i].old_data, size);
    at += 2 * size;
  }
  patch->count = count;
  *out = &patch->base;
  return LQT_OK;
}

static lqt_status host_flip(host_patch *patch, lqt_diag *diag) {
  lqt_status status = LQT_OK;
  size_t done = 0;
  for (; done < patch->count && status == LQT_OK; done++) {
    lqt_patch_change *change = &patch->changes[done];
    lqt_weight *weight = change->weight;
    status = weight->device->backend->weight_patch(weight, &change->patch, 1, diag);
    if (status != LQT_OK) break;
    const void *now = change->patch.data;
    change->patch.data = change->old_data;
    change->old_data = now;
  }
  for (size_t i = 0; status != LQT_OK && i < done; i++) { /* back to what it was */
    lqt_patch_change *change = &patch->changes[i];
    lqt_weight *weight = change->weight;
    if (weight->device->backend->weight_patch(weight, &change->patch, 1, NULL) != LQT_OK) {
      status = LQT_DEVICE_LOST;
    }
    const void *now = change->patch.data;
    change->patch.data = change->old_data;
    change->old_data = now;
  }
  return status;
}

/* ---- The calls ---- */

static lqt_status check(lqt_device *device, const lqt_patch_change *changes, size_t count,
                        lqt_diag *diag) {
  if (device == NULL || (changes == NULL && count != 0)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "no device or no changes");
  }
  for (size_t i = 0; i < count; i++) {
    if (changes[i].weight == NULL || changes[i].weight->device != device) {
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                       "change %zu has no weight, or one of another device than %s", i,
                       device->info.selector);
    }
    LQT__TRY(lqt__weight_patch_check(changes[i].weight, &changes[i].patch, 1, diag));
  }
  return LQT_OK;
}

/* The weights of the changes, each once (changes are sorted by weight). */
static lqt_status hold_weights(lqt_patch *patch, const merged *m, lqt_diag *diag) {
  patch->weights = lqt__alloc_array(m->count, sizeof *patch->weights);
  if (patch->weights == NULL) {
    return lqt__fail_memory(diag, where, m->count * sizeof *patch->weights, "a patch");
  }
  for (size_t i = 0; i < m->count; i++) {
    lqt_weight *weight = m->changes[i].weight;
    if (i > 0 && m->changes[i - 1].weight == weight) continue;
    patch->weights[patch->weight_count++] = lqt__weight_retain(weight);
  }
  return LQT_OK;
}

lqt_status lqt_patch_create(lqt_device *device, const lqt_patch_change *changes, size_t count,
                            lqt_patch **out_patch, lqt_diag *diag) {
  if (out_patch == NULL) return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "no out_patch");
  *out_patch = NULL;
  LQT__TRY(check(device, changes, count, diag));
  merged m = {0};
  lqt_patch *patch = NULL;
  lqt_status status = merge(changes, count, &m, diag);
  if (status == LQT_OK) {
    status = device->backend->patch_create != NULL
                 ? device->backend->patch_create(device, m.changes, m.count, &patch, diag)
                 : host_create(m.changes, m.count, &patch, diag);
  }
  if (status == LQT_OK) {
    patch->device = device;
    status = hold_weights(patch, &m, diag);
    if (status == LQT_OK) {
      *out_patch = patch;
    } else {
      lqt_patch_destroy(patch);
    }
  }
  lqt__arena_free(&m.arena);
  return status;
}

lqt_status lqt_patch_wait(lqt_patch *patch, lqt_diag *diag) {
  if (patch == NULL) return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "no patch");
  if (patch->device->backend->patch_wait == NULL) return LQT_OK;
  return patch->device->backend->patch_wait(patch, diag);
}

lqt_status lqt_patch_flip(lqt_patch *patch, lqt_diag *diag) {
  if (patch == NULL) return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "no patch");
  if (patch->device->backend->patch_flip == NULL) return host_flip((host_patch *)patch, diag);
  return patch->device->backend->patch_flip(patch, diag);
}

void lqt_patch_destroy(lqt_patch *patch) {
  if (patch == NULL) return;
  lqt_weight **weights = patch->weights;
  size_t count = patch->weight_count;
  if (patch->device->backend->patch_destroy != NULL) {
    patch->device->backend->patch_destroy(patch);
  } else {
    lqt__free(((host_patch *)patch)->changes);
    lqt__free(patch);
  }
  for (size_t i = 0; i < count; i++) lqt_weight_destroy(weights[i]);
  lqt__free(weights);
}

uint64_t lqt_patch_bytes(const lqt_patch *patch) { return patch->bytes; }

lqt_status lqt_weight_digest(lqt_weight *weight, uint64_t *out_digest, lqt_diag *diag) {
  if (weight == NULL || out_digest == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "no weight or no place for a digest");
  }
  *out_digest = 0;
  const lqt_backend *backend = weight->device->backend;
  if (backend->weight_digest == NULL) {
    return lqt__fail(diag, LQT_UNSUPPORTED, weight->device->info.selector,
                     "this backend does not show its form of a weight");
  }
  return backend->weight_digest(weight, out_digest, diag);
}

void *lqt_host_alloc(lqt_device *device, uint64_t bytes) {
  if (device->backend->host_alloc != NULL) return device->backend->host_alloc(device, bytes);
  return lqt__alloc_aligned(bytes, 64);
}

void lqt_host_free(lqt_device *device, void *memory) {
  if (memory == NULL) return;
  if (device->backend->host_free != NULL) {
    device->backend->host_free(device, memory);
  } else {
    lqt__free(memory);
  }
}
