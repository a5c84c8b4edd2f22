/* Copies between host and device, and buffers. Where the device's memory is mapped they are plain
 * copies; else bytes pass through a staging ring of two halves, one filled while the other is in
 * flight. */
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/diag.h"

/* One half of the ring, on its way. */
typedef struct half {
  uint64_t value; /* of the timeline, when its copy is done; 0: none */
  uint64_t offset, bytes;
} half;

static lqt_status submit_copy(lqt__vk_device *device, int which, VkBuffer from, VkBuffer to,
                              const VkBufferCopy *region, bool read, lqt_diag *diag) {
  VkCommandBuffer commands = device->transfer.commands[which];
  LQT__TRY(lqt__vk_begin(device, commands, false, diag));
  device->vk.vkCmdCopyBuffer(commands, from, to, 1, region);
  if (read) {
    lqt__vk_barrier(device, commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT);
  }
  return lqt__vk_submit(device, &device->transfer, commands, true, diag);
}

static lqt_status upload_staged(lqt__vk_device *device, const lqt__vk_range *to, uint64_t offset,
                                const uint8_t *data, uint64_t bytes, lqt_diag *diag) {
  const uint64_t half_bytes = device->staging.bytes / 2;
  uint64_t values[2] = {0, 0};
  lqt_status status = LQT_OK;
  for (uint64_t done = 0, i = 0; done < bytes && status == LQT_OK; i++) {
    int which = (int)(i & 1);
    uint64_t n = bytes - done < half_bytes ? bytes - done : half_bytes;
    if (values[which] != 0) {
      status = lqt__vk_wait(device, &device->transfer, values[which], diag);
      if (status != LQT_OK) break;
    }
    memcpy(device->staging.mapped + which * half_bytes, data + done, n);
    VkBufferCopy region = {.srcOffset = (uint64_t)which * half_bytes,
                           .dstOffset = to->offset + offset + done,
                           .size = n};
    status = submit_copy(device, which, device->staging.buffer, to->buffer, &region, false, diag);
    values[which] = device->transfer.submitted;
    done += n;
  }
  lqt_status waited = lqt__vk_wait(device, &device->transfer, device->transfer.submitted,
                                   status == LQT_OK ? diag : NULL);
  return status != LQT_OK ? status : waited;
}

static lqt_status download_staged(lqt__vk_device *device, const lqt__vk_range *from,
                                  uint64_t offset, uint8_t *data, uint64_t bytes, lqt_diag *diag) {
  const uint64_t half_bytes = device->staging.bytes / 2;
  half halves[2] = {{0}};
  lqt_status status = LQT_OK;
  uint64_t sent = 0;
  for (uint64_t i = 0; status == LQT_OK; i++) {
    int which = (int)(i & 1);
    half *h = &halves[which];
    if (h->value != 0) {
      status = lqt__vk_wait(device, &device->transfer, h->value, diag);
      if (status != LQT_OK) break;
      memcpy(data + h->offset, device->staging.mapped + which * half_bytes, h->bytes);
      h->value = 0;
    }
    if (sent == bytes) {
      if (halves[!which].value == 0) break;
      continue;
    }
    uint64_t n = bytes - sent < half_bytes ? bytes - sent : half_bytes;
    VkBufferCopy region = {.srcOffset = from->offset + offset + sent,
                           .dstOffset = (uint64_t)which * half_bytes,
                           .size = n};
    status = submit_copy(device, which, from->buffer, device->staging.buffer, &region, true, diag);
    *h = (half){.value = device->transfer.submitted, .offset = sent, .bytes = n};
    sent += n;
  }
  if (status != LQT_OK) {
    lqt_status ignored = lqt__vk_wait(device, &device->transfer, device->transfer.submitted, NULL);
    (void)ignored;
  }
  return status;
}

lqt_status lqt__vk_upload(lqt__vk_device *device, const lqt__vk_range *to, uint64_t offset,
                          const void *data, uint64_t bytes, lqt_diag *diag) {
  if (bytes == 0) return LQT_OK;
  if (to->mapped != NULL) {
    memcpy(to->mapped + offset, data, bytes);
    return LQT_OK;
  }
  pthread_mutex_lock(&device->transfer_lock);
  lqt_status status = upload_staged(device, to, offset, data, bytes, diag);
  pthread_mutex_unlock(&device->transfer_lock);
  return status;
}

lqt_status lqt__vk_download(lqt__vk_device *device, const lqt__vk_range *from, uint64_t offset,
                            void *data, uint64_t bytes, lqt_diag *diag) {
  if (bytes == 0) return LQT_OK;
  if (from->mapped != NULL) {
    memcpy(data, from->mapped + offset, bytes);
    return LQT_OK;
  }
  pthread_mutex_lock(&device->transfer_lock);
  lqt_status status = download_staged(device, from, offset, data, bytes, diag);
  pthread_mutex_unlock(&device->transfer_lock);
  return status;
}

/* Copies that write the same bytes have to stay in order. */
static bool meets_earlier(const lqt__vk_copy *copies, size_t first, size_t index) {
  const lqt__vk_copy *late = &copies[index];
  for (size_t i = first; i < index; i++) {
    const lqt__vk_copy *early = &copies[i];
    if (early->to == late->to && early->offset < late->offset + late->bytes &&
        late->offset < early->offset + early->bytes) {
      return true;
    }
  }
  return false;
}

static lqt_status upload_many_staged(lqt__vk_device *device, const lqt__vk_staging *staging,
                                     const lqt__vk_copy *copies, size_t count, lqt_diag *diag) {
  VkCommandBuffer commands = device->transfer.commands[0];
  LQT__TRY(lqt__vk_begin(device, commands, false, diag));
  uint64_t used = 0;
  size_t unordered = 0; /* first copy since the last barrier */
  for (size_t i = 0; i < count; i++) {
    const lqt__vk_copy *copy = &copies[i];
    if (copy->bytes == 0) continue;
    if (meets_earlier(copies, unordered, i) || i - unordered >= 64) {
      lqt__vk_barrier(device, commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                      VK_PIPELINE_STAGE_TRANSFER_BIT);
      unordered = i;
    }
    memcpy(staging->mapped + used, copy->data, copy->bytes);
    VkBufferCopy region = {
        .srcOffset = used, .dstOffset = copy->to->offset + copy->offset, .size = copy->bytes};
    device->vk.vkCmdCopyBuffer(commands, staging->buffer, copy->to->buffer, 1, &region);
    used += copy->bytes;
  }
  LQT__TRY(lqt__vk_submit(device, &device->transfer, commands, true, diag));
  return lqt__vk_wait(device, &device->transfer, device->transfer.submitted, diag);
}

lqt_status lqt__vk_upload_many(lqt__vk_device *device, const lqt__vk_copy *copies, size_t count,
                               lqt_diag *diag) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < count; i++) bytes += copies[i].bytes;
  if (bytes == 0) return LQT_OK;
  if (device->memory.direct) {
    for (size_t i = 0; i < count; i++) {
      if (copies[i].bytes == 0) continue; /* its data may be NULL */
      memcpy(copies[i].to->mapped + copies[i].offset, copies[i].data, copies[i].bytes);
    }
    return LQT_OK;
  }
  pthread_mutex_lock(&device->transfer_lock);
  lqt_status status;
  if (bytes <= device->staging.bytes) {
    status = upload_many_staged(device, &device->staging, copies, count, diag);
  } else {
    lqt__vk_staging own;
    status = lqt__vk_staging_create(device, bytes, &own, diag);
    if (status == LQT_OK) {
      status = upload_many_staged(device, &own, copies, count, diag);
      lqt__vk_staging_destroy(device, &own);
    }
  }
  pthread_mutex_unlock(&device->transfer_lock);
  return status;
}

lqt_status lqt__vk_buffer_create(lqt_device *head, uint64_t bytes, lqt_buffer **out,
                                 lqt_diag *diag) {
  lqt__vk_device *device = (lqt__vk_device *)head;
  lqt__vk_buffer *buffer = lqt__alloc_zero(sizeof *buffer);
  if (buffer == NULL) {
    return lqt__fail_memory(diag, head->info.selector, sizeof *buffer, "a buffer");
  }
  lqt_status status = lqt__vk_allocate(device, bytes, &buffer->range, diag);
  if (status != LQT_OK) {
    lqt__free(buffer);
    return status;
  }
  __atomic_fetch_add(&device->generation, 1, __ATOMIC_RELAXED);
  *out = &buffer->head;
  return LQT_OK;
}

void lqt__vk_buffer_destroy(lqt_buffer *head) {
  lqt__vk_buffer *buffer = (lqt__vk_buffer *)head;
  lqt__vk_device *device = (lqt__vk_device *)head->device;
  lqt__vk_free(device, &buffer->range);
  __atomic_fetch_add(&device->generation, 1, __ATOMIC_RELAXED);
  lqt__free(buffer);
}

lqt_status lqt__vk_buffer_write(lqt_buffer *head, uint64_t offset, const void *data, uint64_t bytes,
                                lqt_diag *diag) {
  lqt__vk_buffer *buffer = (lqt__vk_buffer *)head;
  return lqt__vk_upload((lqt__vk_device *)head->device, &buffer->range, offset, data, bytes, diag);
}

lqt_status lqt__vk_buffer_read(lqt_buffer *head, uint64_t offset, void *data, uint64_t bytes,
                               lqt_diag *diag) {
  lqt__vk_buffer *buffer = (lqt__vk_buffer *)head;
  return lqt__vk_download((lqt__vk_device *)head->device, &buffer->range, offset, data, bytes,
                          diag);
}
