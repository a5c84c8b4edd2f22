/* The pipeline cache on disk. The file is only ever a hint: its own header and digest are checked,
 * then the driver's header inside, and anything that does not fit is dropped. */
#include "io/cache.h"

#include <stdio.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/hash.h"
#include "io/file.h"

#define CACHE_MAX_BYTES (64u << 20)

typedef struct file_header {
  char magic[8];
  uint32_t vendor, device, driver_version, reserved;
  uint8_t uuid[VK_UUID_SIZE];
  uint64_t bytes; /* of what follows */
  uint8_t digest[32];
} file_header;
_Static_assert(sizeof(file_header) == 80, "no padding");

static const char magic[8] = {'L', 'Q', 'T', 'V', 'K', 'P', 'C', '1'};

static void expected_header(const lqt__vk_device *device, file_header *out) {
  const VkPhysicalDeviceProperties *p = &device->physical->properties;
  *out = (file_header){
      .vendor = p->vendorID, .device = p->deviceID, .driver_version = p->driverVersion};
  memcpy(out->magic, magic, sizeof magic);
  memcpy(out->uuid, p->pipelineCacheUUID, VK_UUID_SIZE);
}

static bool file_path(const lqt__vk_device *device, bool create, char *out, size_t capacity) {
  const VkPhysicalDeviceProperties *p = &device->physical->properties;
  char name[64];
  snprintf(name, sizeof name, "vulkan-%08x-%08x-%08x.bin", p->vendorID, p->deviceID,
           p->driverVersion);
  return lqt__cache_path(name, create, out, capacity);
}

/* The driver's own header, as Vulkan lays it down. */
static bool blob_fits(const lqt__vk_device *device, const char *data, size_t bytes) {
  const VkPhysicalDeviceProperties *p = &device->physical->properties;
  VkPipelineCacheHeaderVersionOne head;
  if (bytes < sizeof head) return false;
  memcpy(&head, data, sizeof head);
  return head.headerSize >= sizeof head && head.headerSize <= bytes &&
         head.headerVersion == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
         head.vendorID == p->vendorID && head.deviceID == p->deviceID &&
         memcmp(head.pipelineCacheUUID, p->pipelineCacheUUID, VK_UUID_SIZE) == 0;
}

static bool file_fits(const lqt__vk_device *device, const char *data, size_t bytes) {
  file_header want, head;
  if (bytes < sizeof head) return false;
  expected_header(device, &want);
  memcpy(&head, data, sizeof head);
  want.bytes = bytes - sizeof head;
  memcpy(want.digest, head.digest, sizeof want.digest);
  uint8_t digest[32];
  if (memcmp(&want, &head, sizeof head) != 0 ||
      lqt__sha256(data + sizeof head, bytes - sizeof head, digest) != LQT_OK ||
      memcmp(digest, head.digest, sizeof digest) != 0) {
    return false;
  }
  return blob_fits(device, data + sizeof head, bytes - sizeof head);
}

lqt_status lqt__vk_cache_create(lqt__vk_device *device, lqt_diag *diag) {
  char path[1024];
  char *data = NULL;
  size_t bytes = 0;
  VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
  if (file_path(device, false, path, sizeof path) &&
      lqt__file_read(path, CACHE_MAX_BYTES, &data, &bytes, NULL) == LQT_OK &&
      file_fits(device, data, bytes)) {
    info.initialDataSize = bytes - sizeof(file_header);
    info.pInitialData = data + sizeof(file_header);
  }
  VkPipelineCache *cache = &device->pipelines.cache;
  VkResult result = device->vk.vkCreatePipelineCache(device->handle, &info, NULL, cache);
  if (result != VK_SUCCESS && info.initialDataSize != 0) {
    info.initialDataSize = 0;
    info.pInitialData = NULL;
    result = device->vk.vkCreatePipelineCache(device->handle, &info, NULL, cache);
  }
  lqt__free(data);
  device->pipelines.loaded = info.initialDataSize;
  if (result == VK_SUCCESS) return LQT_OK;
  return lqt__vk_device_fail(device, diag, result, "creating a pipeline cache");
}

/* Without a place to write, or on any failure, the next start compiles again: nothing is lost. */
void lqt__vk_cache_save(lqt__vk_device *device) {
  lqt__vk_pipelines *pipelines = &device->pipelines;
  char path[1024];
  size_t bytes = 0;
  if (pipelines->cache == VK_NULL_HANDLE ||
      device->vk.vkGetPipelineCacheData(device->handle, pipelines->cache, &bytes, NULL) !=
          VK_SUCCESS ||
      bytes <= pipelines->loaded || bytes > CACHE_MAX_BYTES - sizeof(file_header) ||
      !file_path(device, true, path, sizeof path)) {
    return;
  }
  char *data = lqt__alloc(sizeof(file_header) + bytes);
  if (data == NULL) return;
  file_header head;
  expected_header(device, &head);
  if (device->vk.vkGetPipelineCacheData(device->handle, pipelines->cache, &bytes,
                                        data + sizeof head) == VK_SUCCESS &&
      lqt__sha256(data + sizeof head, bytes, head.digest) == LQT_OK) {
    head.bytes = bytes;
    memcpy(data, &head, sizeof head);
    lqt_status ignored = lqt__file_write(path, data, sizeof head + bytes, NULL);
    (void)ignored;
  }
  lqt__free(data);
}
