/* Changes of weights: where the bytes of a canonical part lie on the device, patches that are
 * written at once, and staged patches that are exchanged with the live bytes (shaders/swap.comp).
 */
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/diag.h"
#include "base/hash.h"
#include "kernel/weight.h"

#define RUN_BYTES 4096u /* most of a run, so that a few workgroups do not get all the work */
#define RING_BYTES (8ull << 20)

/* ---- From canonical places to the device's ---- */

/* Takes a piece of a patch: `bytes` at `data` go to `offset` of a part. */
typedef struct sink sink;
struct sink {
  void (*take)(sink *self, lqt__vk_range *range, uint64_t offset, const uint8_t *data,
               uint64_t bytes);
};

static void locate(lqt__vk_weight *weight, lqt_weight_part part, lqt__vk_range **range,
                   uint64_t *offset) {
  static const lqt__vk_part places[] = {
      [LQT_PART_CODEBOOK] = LQT__VK_PART_BOOK,
      [LQT_PART_RESIDUAL] = LQT__VK_PART_RESIDUAL_BOOK,
      [LQT_PART_GROUP_SCALES] = LQT__VK_PART_SCALES,
      [LQT_PART_ZERO_POINTS] = LQT__VK_PART_ZEROS,
      [LQT_PART_DELTA_VALUES] = LQT__VK_PART_DELTA,
      [LQT_PART_SCALE] = LQT__VK_PART_BLOCK,
      [LQT_PART_RESIDUAL_SCALE] = LQT__VK_PART_BLOCK,
      [LQT_PART_INDICES] = LQT__VK_PART_DATA,
      [LQT_PART_RESIDUAL_INDICES] = LQT__VK_PART_RESIDUAL_DATA,
      [LQT_PART_MASK] = LQT__VK_PART_MASK,
      [LQT_PART_PLAIN] = LQT__VK_PART_DATA,
  };
  *range = &weight->parts[places[part]];
  *offset = part == LQT_PART_SCALE            ? offsetof(lqt__vk_weight_block, scale)
            : part == LQT_PART_RESIDUAL_SCALE ? offsetof(lqt__vk_weight_block, residual_scale)
                                              : 0;
}

/* The pieces of tiled parts come in the order of the device, so that neighbours can be joined. */
static void tiled_indices(lqt__vk_weight *weight, const lqt_weight_patch *patch, sink *out) {
  const lqt__vk_tiling *t = &weight->tiling;
  const uint64_t stride = weight->head.shape.indices.row_stride, end = patch->first + patch->count;
  const uint32_t units = t->lane / t->granule;
  for (uint64_t tile = patch->first / stride / 16; tile * 16 * stride < end; tile++) {
    for (uint64_t i = 0; i < (uint64_t)t->blocks * 64 * units; i++) {
      uint64_t block = i / (64 * units), lane = i / units % 64;
      uint64_t row = tile * 16 + lane / 32 * 8 + lane % 32 / 4;
      uint64_t at = ((block * units + i % units) * 4 + lane % 4) * t->granule;
      if (row >= weight->rows || at >= t->row_bytes) continue;
      uint64_t from = row * stride + at;
      uint64_t to = from + (t->row_bytes - at < t->granule ? t->row_bytes - at : t->granule);
      if (from < patch->first) from = patch->first;
      if (to > end) to = end;
      if (from >= to) continue;
      out->take(out, &weight->parts[LQT__VK_PART_DATA],
                lqt__vk_tiled_byte(t, row, from - row * stride),
                (const uint8_t *)patch->data + (from - patch->first), to - from);
    }
  }
}

static void tiled_scales(lqt__vk_weight *weight, const lqt_weight_patch *patch, sink *out) {
  const lqt__vk_tiling *t = &weight->tiling;
  const uint64_t stride = weight->head.shape.group_row_stride, end = patch->first + patch->count;
  for (uint64_t tile = patch->first / stride / 16; tile * 16 * stride < end; tile++) {
    for (uint64_t i = 0; i < 16ull * t->groups; i++) {
      uint64_t row = tile * 16 + i % 2 * 8 + i % 16 / 2, at = row * stride + i / 16;
      if (row >= weight->rows || at < patch->first || at >= end) continue;
      out->take(out, &weight->parts[LQT__VK_PART_SCALES], (tile * 16 * t->groups + i) * 2,
                (const uint8_t *)patch->data + (at - patch->first) * 2, 2);
    }
  }
}

static void translate(lqt__vk_weight *weight, const lqt_weight_patch *patch, sink *out) {
  if (weight->tiling.lane != 0 && patch->part == LQT_PART_INDICES) {
    tiled_indices(weight, patch, out);
  } else if (weight->tiling.lane != 0 && patch->part == LQT_PART_GROUP_SCALES) {
    tiled_scales(weight, patch, out);
  } else {
    uint64_t size = lqt__weight_part_size(&weight->head.shape, patch->part), base;
    lqt__vk_range *range;
    locate(weight, patch->part, &range, &base);
    out->take(out, range, base + patch->first * size, patch->data, patch->count * size);
  }
}

/* ---- Patches that are written at once ---- */

typedef struct copy_sink {
  sink base;
  lqt__vk_copy *copies; /* NULL: only count */
  size_t count;
} copy_sink;

static void take_copy(sink *self, lqt__vk_range *range, uint64_t offset, const uint8_t *data,
                      uint64_t bytes) {
  copy_sink *out = (copy_sink *)self;
  if (out->copies != NULL) {
    out->copies[out->count] =
        (lqt__vk_copy){.to = range, .offset = offset, .data = data, .bytes = bytes};
  }
  out->count++;
}

lqt_status lqt__vk_weight_patch(lqt_weight *head, const lqt_weight_patch *patches, size_t count,
                                lqt_diag *diag) {
  lqt__vk_weight *weight = (lqt__vk_weight *)head;
  copy_sink out = {.base = {take_copy}};
  for (size_t i = 0; i < count; i++) translate(weight, &patches[i], &out.base);
  size_t pieces = out.count;
  if (pieces == 0) return LQT_OK;
  out.copies = lqt__alloc_array(pieces, sizeof *out.copies);
  if (out.copies == NULL) {
    return lqt__fail_memory(diag, head->device->info.selector, pieces * sizeof *out.copies,
                            "a list of copies");
  }
  out.count = 0;
  for (size_t i = 0; i < count; i++) translate(weight, &patches[i], &out.base);
  lqt_status status = lqt__vk_upload_many((lqt__vk_device *)head->device, out.copies, pieces, diag);
  lqt__free(out.copies);
  return status;
}

/* ---- Staged patches: [staged words][runs] in one range ---- */

typedef struct staged_patch {
  lqt_patch head;
  lqt__vk_range range;
  uint64_t words;
  uint32_t runs;
  uint64_t ready; /* value of the copy timeline when everything has arrived */
} staged_patch;

/* Lays pieces out as words and runs. A piece that continues the one before joins its run. */
typedef struct run_sink {
  sink base;
  lqt__vk_swap_run *runs; /* NULL: only count */
  uint8_t *staged;
  uint64_t words, count;
  uint64_t end; /* device address after the last byte */
  uint32_t run_words;
} run_sink;

static void take_run(sink *self, lqt__vk_range *range, uint64_t offset, const uint8_t *data,
                     uint64_t bytes) {
  run_sink *out = (run_sink *)self;
  uint64_t address = range->address + offset;
  while (bytes != 0) {
    const uint64_t first = address / 4 * 4;
    const bool joins = out->count != 0 && address == out->end && out->run_words < RUN_BYTES / 4;
    if (!joins) {
      /* A word that two runs share has a place in both. */
      if (out->runs != NULL) {
        out->runs[out->count] = (lqt__vk_swap_run){.live = first,
                                                   .staged = (uint32_t)out->words,
                                                   .first_mask = ~0u << (address % 4 * 8),
                                                   .last_mask = ~0u};
      }
      out->count++;
      out->run_words = 0;
    }
    uint64_t n = RUN_BYTES - address % RUN_BYTES;
    if (n > bytes) n = bytes;
    uint64_t stop = address + n;
    uint32_t fresh = (uint32_t)((stop + 3) / 4 - (joins ? (out->end + 3) / 4 : first / 4));
    uint64_t begin_word = joins && address % 4 != 0 ? out->words - 1 : out->words;
    out->words += fresh;
    out->run_words += fresh;
    if (out->runs != NULL) {
      memcpy(out->staged + begin_word * 4 + address % 4, data, n);
      lqt__vk_swap_run *run = &out->runs[out->count - 1];
      run->words = out->run_words;
      run->last_mask = stop % 4 != 0 ? ~0u >> (32 - stop % 4 * 8) : ~0u;
    }
    out->end = address = stop;
    data += n;
    bytes -= n;
  }
}

/* Sends the patch through a ring of two halves: one fills while the other is under way. */
static lqt_status send(lqt__vk_device *device, staged_patch *patch, const uint8_t *data,
                       uint64_t bytes, lqt_diag *diag) {
  if (patch->range.mapped != NULL) {
    memcpy(patch->range.mapped, data, bytes);
    return LQT_OK;
  }
  if (device->patch_ring.buffer == VK_NULL_HANDLE) {
    LQT__TRY(lqt__vk_staging_create(device, RING_BYTES, &device->patch_ring, diag));
  }
  const uint64_t half = RING_BYTES / 2;
  for (uint64_t done = 0; done < bytes; done += half) {
    const uint32_t which = (uint32_t)(device->patch_turn++ & 1);
    uint64_t n = bytes - done < half ? bytes - done : half;
    LQT__TRY(lqt__vk_wait(device, &device->copy, device->patch_values[which], diag));
    memcpy(device->patch_ring.mapped + which * half, data + done, n);
    VkCommandBuffer commands = device->copy.commands[which];
    LQT__TRY(lqt__vk_begin(device, commands, false, diag));
    VkBufferCopy region = {
        .srcOffset = which * half, .dstOffset = patch->range.offset + done, .size = n};
    device->vk.vkCmdCopyBuffer(commands, device->patch_ring.buffer, patch->range.buffer, 1,
                               &region);
    LQT__TRY(lqt__vk_submit(device, &device->copy, commands, true, diag));
    device->patch_values[which] = patch->ready = device->copy.submitted;
  }
  return LQT_OK;
}

lqt_status lqt__vk_patch_create(lqt_device *head, const lqt_patch_change *changes, size_t count,
                                lqt_patch **out_patch, lqt_diag *diag) {
  lqt__vk_device *device = (lqt__vk_device *)head;
  run_sink out = {.base = {take_run}};
  for (size_t i = 0; i < count; i++) {
    translate((lqt__vk_weight *)changes[i].weight, &changes[i].patch, &out.base);
  }
  if (out.words > UINT32_MAX || out.count > UINT32_MAX) {
    return lqt__fail(diag, LQT_UNSUPPORTED, head->info.selector,
                     "a patch of %llu bytes; this device takes 16 GB at a time",
                     (unsigned long long)out.words * 4);
  }
  staged_patch *patch = lqt__alloc_zero(sizeof *patch);
  if (patch == NULL) return lqt__fail_memory(diag, head->info.selector, sizeof *patch, "a patch");
  patch->words = (out.words + 1) / 2 * 2; /* runs are aligned to 8 */
  patch->runs = (uint32_t)out.count;
  const uint64_t bytes = patch->words * 4 + out.count * sizeof(lqt__vk_swap_run);
  uint8_t *data = lqt__alloc_zero(bytes != 0 ? bytes : 1);
  lqt_status status = LQT_OK;
  if (data == NULL) {
    status = lqt__fail_memory(diag, head->info.selector, bytes, "a patch");
  } else {
    out = (run_sink){
        .base = {take_run}, .staged = data, .runs = (lqt__vk_swap_run *)(data + patch->words * 4)};
    for (size_t i = 0; i < count; i++) {
      translate((lqt__vk_weight *)changes[i].weight, &changes[i].patch, &out.base);
    }
    status = lqt__vk_allocate(device, bytes, &patch->range, diag);
  }
  if (status == LQT_OK) status = send(device, patch, data, bytes, diag);
  lqt__free(data);
  if (status != LQT_OK) {
    patch->head.device = head;
    lqt__vk_patch_destroy(&patch->head);
    return status;
  }
  patch->head.bytes = bytes;
  *out_patch = &patch->head;
  return LQT_OK;
}

lqt_status lqt__vk_patch_wait(lqt_patch *head, lqt_diag *diag) {
  lqt__vk_device *device = (lqt__vk_device *)head->device;
  return lqt__vk_wait(device, &device->copy, ((staged_patch *)head)->ready, diag);
}

lqt_status lqt__vk_patch_flip(lqt_patch *head, lqt_diag *diag) {
  lqt__vk_device *device = (lqt__vk_device *)head->device;
  staged_patch *patch = (staged_patch *)head;
  if (patch->runs == 0) return LQT_OK;
  LQT__TRY(lqt__vk_patch_wait(head, diag));
  lqt__vk_dispatch swap = {.spec = {.shader = LQT__VK_SWAP},
                           .x = patch->runs < 65535 ? patch->runs : 65535,
                           .y = 1,
                           .push.swap = {.runs = patch->range.address + patch->words * 4,
                                         .staged = patch->range.address,
                                         .count = patch->runs},
                           .push_bytes = sizeof(lqt__vk_push_swap)};
  lqt__vk_spec_add(&swap.spec, LQT__VK_WG, 64);
  return lqt__vk_run_dispatch(device, &swap, diag);
}

void lqt__vk_patch_destroy(lqt_patch *head) {
  if (head == NULL) return;
  lqt__vk_device *device = (lqt__vk_device *)head->device;
  staged_patch *patch = (staged_patch *)head;
  if (patch->ready != 0) {
    /* The copy must not write memory that somebody else gets. A lost device writes nothing. */
    lqt_status ignored = lqt__vk_patch_wait(head, NULL);
    (void)ignored;
  }
  lqt__vk_free(device, &patch->range);
  lqt__free(patch);
}

/* ---- The bytes of a weight as a number ---- */

lqt_status lqt__vk_weight_digest(lqt_weight *head, uint64_t *out_digest, lqt_diag *diag) {
  lqt__vk_weight *weight = (lqt__vk_weight *)head;
  lqt__vk_device *device = (lqt__vk_device *)head->device;
  uint64_t digest = 0;
  for (int i = 0; i < LQT__VK_PART_COUNT; i++) {
    /* Of the block only what a patch can change: the rest are addresses. */
    bool block = i == LQT__VK_PART_BLOCK;
    uint64_t bytes = block ? 2 * sizeof(float) : weight->part_bytes[i];
    if (bytes == 0) continue;
    uint8_t *data = lqt__alloc(bytes);
    if (data == NULL) return lqt__fail_memory(diag, head->device->info.selector, bytes, "a digest");
    lqt_status status =
        lqt__vk_download(device, &weight->parts[i],
                         block ? offsetof(lqt__vk_weight_block, scale) : 0, data, bytes, diag);
    uint8_t hash[32];
    if (status == LQT_OK) status = lqt__sha256(data, bytes, hash);
    if (status == LQT_OK) {
      uint64_t part;
      memcpy(&part, hash, sizeof part);
      digest = digest * 0x9e3779b97f4a7c15u + part;
    }
    lqt__free(data);
    if (status != LQT_OK) return status;
  }
  *out_digest = digest;
  return LQT_OK;
}
