/* Programs: one command buffer holds the copies in, the ops and the copies out, is recorded once
 * and submitted again and again, so that a step costs one submission and one wait. */
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/diag.h"

/* What a transfer was recorded with. */
typedef struct place {
  lqt_buffer *buffer;
  uint64_t offset, bytes;
  uint64_t staged; /* offset in the staging memory */
} place;

typedef struct native {
  VkCommandBuffer commands;
  lqt__vk_staging staging;
  place *places; /* in first, then out */
  size_t in_count, out_count, capacity;
  bool recorded;
} native;

static bool same_places(const native *n, const lqt_transfer *in, size_t in_count,
                        const lqt_transfer *out, size_t out_count) {
  if (!n->recorded || n->in_count != in_count || n->out_count != out_count) return false;
  for (size_t i = 0; i < in_count + out_count; i++) {
    const lqt_transfer *t = i < in_count ? &in[i] : &out[i - in_count];
    const place *p = &n->places[i];
    if (p->buffer != t->buffer || p->offset != t->offset || p->bytes != t->bytes) return false;
  }
  return true;
}

static const lqt__vk_range *range_of(const place *p) {
  return &((const lqt__vk_buffer *)p->buffer)->range;
}

/* Lays out staging memory for the transfers, with room for longer ones. */
static lqt_status place_transfers(lqt__vk_device *device, native *n, const lqt_transfer *in,
                                  size_t in_count, const lqt_transfer *out, size_t out_count,
                                  lqt_diag *diag) {
  const size_t count = in_count + out_count;
  if (count > n->capacity) {
    place *grown = lqt__realloc(n->places, count * sizeof *grown);
    if (grown == NULL) {
      return lqt__fail_memory(diag, device->head.info.selector, count * sizeof *grown,
                              "the transfers of a program");
    }
    n->places = grown;
    n->capacity = count;
  }
  uint64_t bytes = 0;
  for (size_t i = 0; i < count; i++) {
    const lqt_transfer *t = i < in_count ? &in[i] : &out[i - in_count];
    n->places[i] = (place){t->buffer, t->offset, t->bytes, bytes};
    bytes += (t->bytes + 63) / 64 * 64;
  }
  n->in_count = in_count;
  n->out_count = out_count;
  if (device->memory.direct || bytes <= n->staging.bytes) return LQT_OK;
  lqt__vk_staging_destroy(device, &n->staging);
  return lqt__vk_staging_create(device, bytes + bytes / 4, &n->staging, diag);
}

/* Transfers take effect in their order, also where they overlap. */
static bool overlaps_earlier(const native *n, size_t at) {
  const place *p = &n->places[at];
  for (size_t i = 0; i < at; i++) {
    const place *q = &n->places[i];
    if (q->buffer == p->buffer && q->offset < p->offset + p->bytes &&
        p->offset < q->offset + q->bytes) {
      return true;
    }
  }
  return false;
}

static void record_copies(lqt__vk_device *device, const native *n, bool in) {
  const size_t first = in ? 0 : n->in_count, last = in ? n->in_count : n->in_count + n->out_count;
  for (size_t i = first; i < last; i++) {
    const place *p = &n->places[i];
    const lqt__vk_range *range = range_of(p);
    VkBufferCopy region = {.srcOffset = in ? p->staged : range->offset + p->offset,
                           .dstOffset = in ? range->offset + p->offset : p->staged,
                           .size = p->bytes};
    if (p->bytes == 0) continue;
    if (in && overlaps_earlier(n, i)) {
      lqt__vk_barrier(device, n->commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                      VK_PIPELINE_STAGE_TRANSFER_BIT);
    }
    device->vk.vkCmdCopyBuffer(n->commands, in ? n->staging.buffer : range->buffer,
                               in ? range->buffer : n->staging.buffer, 1, &region);
  }
}

static lqt_status record_program(lqt__vk_device *device, native *n, const lqt_program *program,
                                 lqt_diag *diag) {
  LQT__TRY(lqt__vk_begin(device, n->commands, true, diag));
  const bool staged = !device->memory.direct;
  const VkPipelineStageFlags copy = VK_PIPELINE_STAGE_TRANSFER_BIT,
                             work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT;
  if (staged && n->in_count != 0) {
    record_copies(device, n, true);
    lqt__vk_barrier(device, n->commands, copy, work | copy);
  }
  LQT__TRY(lqt__vk_record_ops(device, n->commands, program->ops, program->count, diag));
  lqt__vk_barrier(device, n->commands, work | copy,
                  VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT);
  if (staged && n->out_count != 0) {
    record_copies(device, n, false);
    lqt__vk_barrier(device, n->commands, copy,
                    VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT);
  }
  VkResult result = device->vk.vkEndCommandBuffer(n->commands);
  if (result != VK_SUCCESS) return lqt__vk_device_fail(device, diag, result, "recording commands");
  n->recorded = true;
  return LQT_OK;
}

static lqt_status create_native(lqt__vk_device *device, lqt_program *program, lqt_diag *diag) {
  native *n = lqt__alloc_zero(sizeof *n);
  if (n == NULL) {
    return lqt__fail_memory(diag, device->head.info.selector, sizeof *n, "a program");
  }
  VkCommandBufferAllocateInfo info = {
      .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
      .commandPool = device->compute.pool,
      .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
      .commandBufferCount = 1,
  };
  VkResult result = device->vk.vkAllocateCommandBuffers(device->handle, &info, &n->commands);
  if (result != VK_SUCCESS) {
    lqt__free(n);
    return lqt__vk_device_fail(device, diag, result, "allocating a command buffer");
  }
  program->native = n;
  return LQT_OK;
}

/* Bytes of the transfers between the caller's memory and where the device finds them. */
static void move_bytes(const lqt__vk_device *device, const native *n, const lqt_transfer *transfers,
                       size_t count, size_t first) {
  for (size_t i = 0; i < count; i++) {
    const place *p = &n->places[first + i];
    if (p->bytes == 0) continue;
    uint8_t *at =
        device->memory.direct ? range_of(p)->mapped + p->offset : n->staging.mapped + p->staged;
    if (first == 0) {
      memcpy(at, transfers[i].data, p->bytes);
    } else {
      memcpy(transfers[i].data, at, p->bytes);
    }
  }
}

/* Op by op, for the profile. */
static lqt_status run_plainly(lqt_program *program, const lqt_transfer *in, size_t in_count,
                              const lqt_transfer *out, size_t out_count, lqt_diag *diag) {
  for (size_t i = 0; i < in_count; i++) {
    LQT__TRY(lqt__vk_buffer_write(in[i].buffer, in[i].offset, in[i].data, in[i].bytes, diag));
  }
  if (program->count != 0) {
    LQT__TRY(lqt__vk_run(program->device, program->ops, program->count, diag));
  }
  for (size_t i = 0; i < out_count; i++) {
    LQT__TRY(lqt__vk_buffer_read(out[i].buffer, out[i].offset, out[i].data, out[i].bytes, diag));
  }
  return LQT_OK;
}

lqt_status lqt__vk_program_run(lqt_program *program, const lqt_transfer *in, size_t in_count,
                               const lqt_transfer *out, size_t out_count, lqt_diag *diag) {
  lqt__vk_device *device = (lqt__vk_device *)program->device;
  if (device->profile.counters.on) {
    return run_plainly(program, in, in_count, out, out_count, diag);
  }
  if (program->native == NULL) LQT__TRY(create_native(device, program, diag));
  native *n = program->native;
  if (!same_places(n, in, in_count, out, out_count)) {
    n->recorded = false;
    LQT__TRY(place_transfers(device, n, in, in_count, out, out_count, diag));
    LQT__TRY(record_program(device, n, program, diag));
  }
  if (in_count != 0) move_bytes(device, n, in, in_count, 0);
  LQT__TRY(lqt__vk_submit(device, &device->compute, n->commands, false, diag));
  LQT__TRY(lqt__vk_wait(device, &device->compute, device->compute.submitted, diag));
  if (out_count != 0) move_bytes(device, n, out, out_count, in_count);
  return LQT_OK;
}

void lqt__vk_program_forget(lqt_program *program) {
  lqt__vk_device *device = (lqt__vk_device *)program->device;
  native *n = program->native;
  program->native = NULL;
  if (n == NULL) return;
  /* Every run was waited for; after a lost device nothing is under way either. */
  device->vk.vkFreeCommandBuffers(device->handle, device->compute.pool, 1, &n->commands);
  lqt__vk_staging_destroy(device, &n->staging);
  lqt__free(n->places);
  lqt__free(n);
}
