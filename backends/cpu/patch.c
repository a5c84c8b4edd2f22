/* Staged patches. A weight with little to change is patched where it is when the patch is flipped:
 * that takes microseconds. One with much to change is built anew beside the live one while steps go
 * on, as at upload, and the flip exchanges the two. */
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "cpu.h"
#include "fast_internal.h"
#include "kernel/weight.h"

enum {
  PACKED_MOST = 8 << 10, /* bytes of packed parts that are exchanged in place: some 10 MB/s */
  PLAIN_MOST = 4 << 20,  /* of parts that lie as they are: at the speed of memory */
};

/* The changes of one weight. */
typedef struct weight_item {
  lqt__cpu_weight *weight;
  lqt__cpu_weight *beside;   /* the other contents; NULL: exchanged in place */
  lqt_weight_patch *patches; /* with data of our own: after the flip, what they replaced */
  size_t count;
  uint8_t *room;
  uint64_t before, after; /* versions that `beside` was built from and stands for */
  bool flipped;
} weight_item;

typedef struct cpu_patch {
  lqt_patch base;
  lqt__arena arena;
  weight_item *items;
  size_t item_count;
} cpu_patch;

static bool is_packed(const lqt__cpu_weight *weight, lqt_weight_part part) {
  if (weight->fast == NULL) return false;
  return part == LQT_PART_INDICES || part == LQT_PART_RESIDUAL_INDICES || part == LQT_PART_MASK ||
         part == LQT_PART_GROUP_SCALES;
}

static bool is_much(const weight_item *item) {
  uint64_t packed = 0, plain = 0;
  for (size_t i = 0; i < item->count; i++) {
    const lqt_weight_patch *patch = &item->patches[i];
    uint64_t bytes = patch->count * lqt__weight_part_size(&item->weight->base.shape, patch->part);
    *(is_packed(item->weight, patch->part) ? &packed : &plain) += bytes;
  }
  return packed > PACKED_MOST || plain > PLAIN_MOST;
}

/* ---- Building a weight beside the live one ---- */

static lqt_status no_memory(uint64_t bytes, lqt_diag *diag) {
  return lqt__fail_memory(diag, "cpu", bytes, "a weight beside the live one");
}

/* All of one part, in the caller's form; NULL without memory. */
static uint8_t *read_part(lqt__arena *arena, lqt__cpu_weight *weight, lqt_weight_part part,
                          uint8_t *room) {
  uint64_t count = lqt__weight_part_count(&weight->base.shape, part);
  uint8_t *bytes = lqt__arena_array(arena, count, lqt__weight_part_size(&weight->base.shape, part));
  if (bytes != NULL) lqt__cpu_part_read(weight, part, 0, count, room, bytes);
  return bytes;
}

/* Puts the bytes of a part into the description. */
static void set_part(lqt_weight_desc *desc, lqt_weight_part part, const uint8_t *bytes) {
  const void *any = bytes;
  switch (part) {
    case LQT_PART_CODEBOOK:
      desc->codebook.vectors = any;
      break;
    case LQT_PART_RESIDUAL:
      desc->residual.vectors = any;
      break;
    case LQT_PART_GROUP_SCALES:
      desc->group_scales = any;
      break;
    case LQT_PART_ZERO_POINTS:
      desc->zero_points = any;
      break;
    case LQT_PART_DELTA_VALUES:
      desc->delta.values = any;
      if (desc->delta.kind == LQT_DELTA_LOW_RANK) {
        desc->delta.values_b =
            bytes + desc->rows * desc->delta.rank * lqt_dtype_size(desc->delta.dtype);
      }
      break;
    case LQT_PART_SCALE:
      memcpy(&desc->scale, any, sizeof desc->scale);
      break;
    case LQT_PART_RESIDUAL_SCALE:
      memcpy(&desc->residual_scale, any, sizeof desc->residual_scale);
      break;
    case LQT_PART_INDICES:
      desc->indices.data = any;
      break;
    case LQT_PART_RESIDUAL_INDICES:
      desc->residual_indices.data = any;
      break;
    case LQT_PART_MASK:
      desc->mask.bits = any;
      break;
    default:
      desc->data = any;
  }
}

/* The weight as the changes make it, in the order of the file. */
static lqt_status describe(lqt__arena *arena, const weight_item *item, lqt_weight_desc *desc,
                           lqt_diag *diag) {
  lqt__cpu_weight *weight = item->weight;
  const lqt_delta_view *delta = &weight->canon.delta;
  *desc = weight->base.shape;
  desc->delta.row_ptr = delta->row_ptr;
  desc->delta.columns = delta->columns;
  desc->delta.columns16 = delta->columns16;
  uint64_t stride = desc->indices.row_stride;
  if (desc->residual_indices.row_stride > stride) stride = desc->residual_indices.row_stride;
  uint8_t *room = lqt__arena_array(arena, stride + desc->cols, 1);
  if (room == NULL) return no_memory(stride, diag);
  for (uint32_t part = LQT_PART_CODEBOOK; part <= LQT_PART_PLAIN; part++) {
    if ((weight->base.parts >> part & 1u) == 0) continue;
    uint8_t *bytes = read_part(arena, weight, (lqt_weight_part)part, room);
    if (bytes == NULL) return no_memory(lqt_weight_bytes(&weight->base), diag);
    for (size_t i = 0; i < item->count; i++) {
      const lqt_weight_patch *patch = &item->patches[i];
      uint64_t size = lqt__weight_part_size(&weight->base.shape, patch->part);
      if (patch->part == (lqt_weight_part)part) {
        memcpy(bytes + patch->first * size, patch->data, patch->count * size);
      }
    }
    set_part(desc, (lqt_weight_part)part, bytes);
  }
  return lqt_weight_desc_check(desc, true, diag);
}

static lqt_status build_beside(weight_item *item, lqt_diag *diag) {
  lqt__arena arena = {0};
  lqt_weight_desc desc;
  lqt_status status = describe(&arena, item, &desc, diag);
  if (status == LQT_OK) {
    lqt__cpu_device *device = lqt__cpu_device_of(item->weight->base.device);
    status = lqt__cpu_weight_build(device, &desc, NULL, &item->beside, diag);
    if (status == LQT_OK) item->beside->base = item->weight->base;
  }
  lqt__arena_free(&arena);
  return status;
}

/* ---- Creating ---- */

static lqt_status prepare_item(cpu_patch *patch, weight_item *item, lqt_diag *diag) {
  uint64_t bytes = lqt__cpu_patch_room(item->weight, item->patches, item->count);
  item->room = lqt__arena_array(&patch->arena, bytes, 1);
  if (item->room == NULL) return no_memory(bytes, diag);
  item->before = item->weight->version;
  item->after = lqt__cpu_new_version();
  if (is_much(item)) {
    patch->base.bytes += lqt_weight_bytes(&item->weight->base);
    return build_beside(item, diag);
  }
  for (size_t i = 0; i < item->count; i++) {
    LQT__TRY(lqt__cpu_patch_check(item->weight, &item->patches[i], item->room, diag));
  }
  patch->base.bytes += bytes;
  return LQT_OK;
}

static lqt_status prepare(cpu_patch *patch, const lqt_patch_change *changes, size_t count,
                          lqt_diag *diag) {
  patch->items = lqt__arena_array(&patch->arena, count, sizeof *patch->items);
  lqt_weight_patch *patches = lqt__arena_array(&patch->arena, count, sizeof *patches);
  if (patch->items == NULL || patches == NULL) return no_memory(count * sizeof *patches, diag);
  for (size_t i = 0; i < count; i++) { /* changes of a weight stand together */
    const lqt_weight *weight = changes[i].weight;
    if (i == 0 || changes[i - 1].weight != weight) {
      patch->items[patch->item_count++] =
          (weight_item){.weight = (lqt__cpu_weight *)changes[i].weight, .patches = &patches[i]};
    }
    uint64_t size = lqt__weight_part_size(&weight->shape, changes[i].patch.part);
    uint8_t *data = lqt__arena_array(&patch->arena, changes[i].patch.count, size);
    if (data == NULL) return no_memory(changes[i].patch.count * size, diag);
    patches[i] = changes[i].patch;
    patches[i].data = memcpy(data, changes[i].patch.data, changes[i].patch.count * size);
    patch->items[patch->item_count - 1].count++;
  }
  for (size_t i = 0; i < patch->item_count; i++) {
    LQT__TRY(prepare_item(patch, &patch->items[i], diag));
  }
  return LQT_OK;
}

lqt_status lqt__cpu_patch_create(lqt_device *device, const lqt_patch_change *changes, size_t count,
                                 lqt_patch **out, lqt_diag *diag) {
  cpu_patch *patch = lqt__alloc_zero(sizeof *patch);
  if (patch == NULL) return lqt__fail_memory(diag, "cpu", sizeof *patch, "a patch");
  patch->base.device = device;
  lqt_status status = prepare(patch, changes, count, diag);
  if (status == LQT_OK) {
    *out = &patch->base;
  } else {
    lqt__cpu_patch_destroy(&patch->base);
  }
  return status;
}

lqt_status lqt__cpu_patch_wait(lqt_patch *patch, lqt_diag *diag) {
  (void)patch, (void)diag;
  return LQT_OK;
}

void lqt__cpu_patch_destroy(lqt_patch *base) {
  cpu_patch *patch = (cpu_patch *)base;
  for (size_t i = 0; i < patch->item_count; i++) {
    if (patch->items[i].beside != NULL) lqt__cpu_weight_destroy(&patch->items[i].beside->base);
  }
  lqt__arena_free(&patch->arena);
  lqt__free(patch);
}

/* ---- Flipping ---- */

static void exchange_contents(lqt__cpu_weight *a, lqt__cpu_weight *b) {
  lqt__cpu_weight kept = *a;
  *a = *b;
  *b = kept;
  b->base = a->base; /* the heads stay where they were */
  a->base = kept.base;
}

/* Others changed the weight since: what is beside is no longer what the flip should give. The
 * changes themselves, or what they replaced, are exchanged in place. */
static void leave_beside(weight_item *item) {
  for (size_t i = 0; i < item->count && item->flipped; i++) {
    const lqt_weight_patch *patch = &item->patches[i];
    lqt__cpu_part_read(item->beside, patch->part, patch->first, patch->count, item->room,
                       (uint8_t *)patch->data);
  }
  lqt__cpu_weight_destroy(&item->beside->base);
  item->beside = NULL;
}

static lqt_status flip_item(weight_item *item, lqt_diag *diag) {
  lqt__cpu_weight *weight = item->weight;
  uint64_t *expected = item->flipped ? &item->after : &item->before;
  uint64_t *next = item->flipped ? &item->before : &item->after;
  if (weight->version != *expected) {
    if (item->beside != NULL) leave_beside(item);
    *expected = weight->version; /* where the way back leads */
    *next = lqt__cpu_new_version();
  }
  if (item->beside != NULL) {
    exchange_contents(weight, item->beside);
  } else {
    LQT__TRY(lqt__cpu_weight_exchange(weight, item->patches, item->count, item->room, diag));
  }
  weight->version = *next;
  item->flipped = !item->flipped;
  return LQT_OK;
}

lqt_status lqt__cpu_patch_flip(lqt_patch *base, lqt_diag *diag) {
  cpu_patch *patch = (cpu_patch *)base;
  lqt__cpu_device *device = lqt__cpu_device_of(base->device);
  pthread_mutex_lock(&device->mutex);
  lqt_status status = LQT_OK;
  size_t done = 0;
  while (done < patch->item_count && status == LQT_OK) {
    status = flip_item(&patch->items[done], diag);
    if (status == LQT_OK) done++;
  }
  while (status != LQT_OK && done > 0) { /* only an index that others' changes made invalid */
    if (flip_item(&patch->items[--done], NULL) != LQT_OK) status = LQT_DEVICE_LOST;
  }
  pthread_mutex_unlock(&device->mutex);
  return status;
}

/* ---- The digest ---- */

static uint64_t mix(uint64_t digest, const void *bytes, uint64_t count) {
  const uint8_t *at = bytes;
  for (uint64_t i = 0; at != NULL && i < count; i += 8) {
    uint64_t word = 0;
    memcpy(&word, at + i, count - i < 8 ? count - i : 8);
    digest = (digest ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    digest ^= digest >> 29;
  }
  return digest;
}

static uint64_t mix_fast(uint64_t digest, const lqt__cpu_fast *w) {
  for (unsigned p = 0; p < w->planes; p++) {
    const lqt__fast_plane *plane = &w->plane[p];
    digest = mix(digest, plane->stream, w->blocks * plane->block_bytes);
    digest = mix(digest, plane->mask, w->blocks * w->kpad * 2);
    digest = mix(digest, plane->tables, sizeof *plane->tables);
  }
  digest = mix(digest, w->scales, w->blocks * w->groups * LQT__FAST_ROWS * sizeof *w->scales);
  digest = mix(digest, w->delta_values, w->delta_count * sizeof *w->delta_values);
  const float factors[2] = {w->scale, w->residual_scale};
  return mix(digest, factors, sizeof factors);
}

lqt_status lqt__cpu_weight_digest(lqt_weight *base, uint64_t *out_digest, lqt_diag *diag) {
  lqt__cpu_weight *weight = (lqt__cpu_weight *)base;
  lqt__cpu_device *device = lqt__cpu_device_of(base->device);
  lqt__arena arena = {0};
  const lqt_weight_desc *shape = &base->shape;
  uint64_t stride = shape->indices.row_stride, digest = 1;
  if (shape->residual_indices.row_stride > stride) stride = shape->residual_indices.row_stride;
  uint8_t *room = lqt__arena_array(&arena, stride + shape->cols, 1);
  lqt_status status = room != NULL ? LQT_OK : no_memory(stride, diag);
  pthread_mutex_lock(&device->mutex);
  for (uint32_t part = LQT_PART_CODEBOOK; part <= LQT_PART_PLAIN && status == LQT_OK; part++) {
    if ((base->parts >> part & 1u) == 0) continue;
    const uint8_t *bytes = read_part(&arena, weight, (lqt_weight_part)part, room);
    if (bytes == NULL) status = no_memory(lqt_weight_bytes(base), diag);
    digest = mix(digest, bytes,
                 lqt__weight_part_count(shape, (lqt_weight_part)part) *
                     lqt__weight_part_size(shape, (lqt_weight_part)part));
  }
  if (status == LQT_OK && weight->fast != NULL) digest = mix_fast(digest, weight->fast);
  pthread_mutex_unlock(&device->mutex);
  lqt__arena_free(&arena);
  if (status == LQT_OK) *out_digest = digest;
  return status;
}
