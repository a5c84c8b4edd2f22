/* Device memory: large blocks, each one buffer with a device address, cut into ranges first fit.
 * Ranges beyond half a block get a block of their own. */
#include <stdlib.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/diag.h"

/* Covers every offset and coherence granularity that devices ask of storage and copies. */
#define RANGE_ALIGNMENT 256u
#define BLOCK_BYTES (64ull << 20)
#define STAGING_BYTES (8ull << 20)

struct lqt__vk_node {
  uint64_t offset, bytes;
  bool used;
  lqt__vk_node *previous, *next;
};

struct lqt__vk_block {
  VkDeviceMemory memory;
  VkBuffer buffer;
  VkDeviceAddress address;
  uint8_t *mapped;
  uint64_t bytes;
  lqt__vk_node *first;
  lqt__vk_block *next;
};

static const char *where(const lqt__vk_device *device) { return device->head.info.selector; }

/* The first memory type among `allowed` that has `want` and not `avoid`; -1 without. */
static int find_type(const VkPhysicalDeviceMemoryProperties *memory, uint32_t allowed,
                     VkMemoryPropertyFlags want, VkMemoryPropertyFlags avoid) {
  for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
    VkMemoryPropertyFlags flags = memory->memoryTypes[i].propertyFlags;
    if ((allowed >> i & 1u) != 0 && (flags & want) == want && (flags & avoid) == 0) return (int)i;
  }
  return -1;
}

static VkResult make_buffer(lqt__vk_device *device, uint64_t bytes, bool host, VkBuffer *out) {
  const uint32_t families[] = {device->physical->queue_family, device->physical->transfer_family};
  bool shared = families[0] != families[1];
  VkBufferCreateInfo info = {
      .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
      .size = bytes,
      .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
      .sharingMode = shared ? VK_SHARING_MODE_CONCURRENT : VK_SHARING_MODE_EXCLUSIVE,
      .queueFamilyIndexCount = shared ? 2u : 0u,
      .pQueueFamilyIndices = shared ? families : NULL,
  };
  if (!host) {
    info.usage |= VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT;
  }
  return device->vk.vkCreateBuffer(device->handle, &info, NULL, out);
}

/* Memory for a buffer, bound to it and mapped when `map`. The buffer stays the caller's. */
static VkResult bind_memory(lqt__vk_device *device, VkBuffer buffer, uint32_t type, bool address,
                            bool map, VkDeviceMemory *out_memory, uint8_t **out_mapped) {
  VkMemoryRequirements needs;
  device->vk.vkGetBufferMemoryRequirements(device->handle, buffer, &needs);
  VkMemoryAllocateFlagsInfo flags = {
      .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
      .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
  };
  VkMemoryAllocateInfo info = {
      .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
      .pNext = address ? &flags : NULL,
      .allocationSize = needs.size,
      .memoryTypeIndex = type,
  };
  VkResult result = device->vk.vkAllocateMemory(device->handle, &info, NULL, out_memory);
  if (result != VK_SUCCESS) return result;
  result = device->vk.vkBindBufferMemory(device->handle, buffer, *out_memory, 0);
  if (result == VK_SUCCESS && map) {
    void *pointer = NULL;
    result = device->vk.vkMapMemory(device->handle, *out_memory, 0, VK_WHOLE_SIZE, 0, &pointer);
    *out_mapped = pointer;
  }
  if (result != VK_SUCCESS) {
    device->vk.vkFreeMemory(device->handle, *out_memory, NULL);
    *out_memory = VK_NULL_HANDLE;
  }
  return result;
}

static void destroy_block(lqt__vk_device *device, lqt__vk_block *block) {
  for (lqt__vk_node *node = block->first, *next; node != NULL; node = next) {
    next = node->next;
    lqt__free(node);
  }
  device->vk.vkDestroyBuffer(device->handle, block->buffer, NULL);
  device->vk.vkFreeMemory(device->handle, block->memory, NULL);
  lqt__free(block);
}

static lqt_status create_block(lqt__vk_device *device, uint64_t bytes, lqt__vk_block **out,
                               lqt_diag *diag) {
  lqt__vk_memory *memory = &device->memory;
  if (bytes > device->physical->max_allocation) {
    return lqt__fail(diag, LQT_DEVICE_OUT_OF_MEMORY, where(device),
                     "%llu bytes in one piece are more than the %llu that the driver allows",
                     (unsigned long long)bytes,
                     (unsigned long long)device->physical->max_allocation);
  }
  lqt__vk_block *block = lqt__alloc_zero(sizeof *block);
  lqt__vk_node *node = lqt__alloc_zero(sizeof *node);
  if (block == NULL || node == NULL) {
    lqt__free(block);
    lqt__free(node);
    return lqt__fail_memory(diag, where(device), sizeof *block, "a block of device memory");
  }
  node->bytes = block->bytes = bytes;
  block->first = node;
  VkResult result = make_buffer(device, bytes, false, &block->buffer);
  if (result == VK_SUCCESS) {
    result = bind_memory(device, block->buffer, memory->device_type, true, memory->direct,
                         &block->memory, &block->mapped);
  }
  if (result != VK_SUCCESS) {
    destroy_block(device, block);
    return lqt__vk_device_fail(device, diag, result, "allocating device memory");
  }
  VkBufferDeviceAddressInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                    .buffer = block->buffer};
  block->address = device->vk.vkGetBufferDeviceAddress(device->handle, &info);
  block->next = memory->blocks;
  memory->blocks = block;
  *out = block;
  return LQT_OK;
}

/* Takes `bytes` out of a free node; false when there is no memory for the rest's node. */
static bool take(lqt__vk_node *node, uint64_t bytes) {
  if (node->bytes > bytes) {
    lqt__vk_node *rest = lqt__alloc_zero(sizeof *rest);
    if (rest == NULL) return false;
    rest->offset = node->offset + bytes;
    rest->bytes = node->bytes - bytes;
    rest->previous = node;
    rest->next = node->next;
    if (rest->next != NULL) rest->next->previous = rest;
    node->next = rest;
    node->bytes = bytes;
  }
  node->used = true;
  return true;
}

static lqt__vk_node *find_free(lqt__vk_block *block, uint64_t bytes) {
  for (lqt__vk_node *node = block->first; node != NULL; node = node->next) {
    if (!node->used && node->bytes >= bytes) return node;
  }
  return NULL;
}

static lqt_status allocate_locked(lqt__vk_device *device, uint64_t bytes, lqt__vk_range *out,
                                  lqt_diag *diag) {
  lqt__vk_memory *memory = &device->memory;
  lqt__vk_block *block = NULL;
  lqt__vk_node *node = NULL;
  bool alone = bytes > memory->block_bytes / 2;
  for (block = alone ? NULL : memory->blocks; block != NULL; block = block->next) {
    if ((node = find_free(block, bytes)) != NULL) break;
  }
  if (node == NULL) {
    LQT__TRY(create_block(device, alone ? bytes : memory->block_bytes, &block, diag));
    node = block->first;
  }
  if (!take(node, bytes)) {
    return lqt__fail_memory(diag, where(device), sizeof *node, "a range of device memory");
  }
  *out = (lqt__vk_range){.block = block,
                         .node = node,
                         .buffer = block->buffer,
                         .offset = node->offset,
                         .bytes = bytes,
                         .address = block->address + node->offset,
                         .mapped = block->mapped != NULL ? block->mapped + node->offset : NULL};
  return LQT_OK;
}

lqt_status lqt__vk_allocate(lqt__vk_device *device, uint64_t bytes, lqt__vk_range *out,
                            lqt_diag *diag) {
  *out = (lqt__vk_range){0};
  uint64_t rounded;
  if (!lqt__align_up(bytes != 0 ? bytes : 1, RANGE_ALIGNMENT, &rounded)) {
    return lqt__fail(diag, LQT_DEVICE_OUT_OF_MEMORY, where(device), "%llu bytes are too many",
                     (unsigned long long)bytes);
  }
  pthread_mutex_lock(&device->memory.lock);
  lqt_status status = allocate_locked(device, rounded, out, diag);
  pthread_mutex_unlock(&device->memory.lock);
  return status;
}

/* Joins a free node with the free one after it. */
static void join_next(lqt__vk_node *node) {
  lqt__vk_node *next = node->next;
  if (next == NULL || next->used) return;
  node->bytes += next->bytes;
  node->next = next->next;
  if (node->next != NULL) node->next->previous = node;
  lqt__free(next);
}

void lqt__vk_free(lqt__vk_device *device, lqt__vk_range *range) {
  if (range->block == NULL) return;
  pthread_mutex_lock(&device->memory.lock);
  lqt__vk_block *block = range->block;
  lqt__vk_node *node = range->node;
  node->used = false;
  join_next(node);
  if (node->previous != NULL && !node->previous->used) join_next(node->previous);
  if (!block->first->used && block->first->next == NULL) { /* the whole block is free */
    lqt__vk_block **at = &device->memory.blocks;
    while (*at != block) at = &(*at)->next;
    *at = block->next;
    destroy_block(device, block);
  }
  pthread_mutex_unlock(&device->memory.lock);
  *range = (lqt__vk_range){0};
}

lqt_status lqt__vk_staging_create(lqt__vk_device *device, uint64_t bytes, lqt__vk_staging *out,
                                  lqt_diag *diag) {
  *out = (lqt__vk_staging){.bytes = bytes};
  VkResult result = make_buffer(device, bytes, true, &out->buffer);
  if (result == VK_SUCCESS) {
    result = bind_memory(device, out->buffer, device->memory.host_type, false, true, &out->memory,
                         &out->mapped);
  }
  if (result == VK_SUCCESS) return LQT_OK;
  lqt__vk_staging_destroy(device, out);
  return lqt__vk_device_fail(device, diag, result, "allocating staging memory");
}

void lqt__vk_staging_destroy(lqt__vk_device *device, lqt__vk_staging *staging) {
  device->vk.vkDestroyBuffer(device->handle, staging->buffer, NULL);
  device->vk.vkFreeMemory(device->handle, staging->memory, NULL);
  *staging = (lqt__vk_staging){0};
}

/* Memory types that buffers of our two kinds may use. */
static lqt_status choose_types(lqt__vk_device *device, lqt_diag *diag) {
  lqt__vk_memory *memory = &device->memory;
  VkPhysicalDeviceMemoryProperties types;
  vkGetPhysicalDeviceMemoryProperties(device->physical->handle, &types);
  uint32_t allowed[2];
  for (int host = 0; host < 2; host++) {
    VkBuffer buffer;
    VkResult result = make_buffer(device, RANGE_ALIGNMENT, host == 1, &buffer);
    if (result != VK_SUCCESS) return lqt__vk_device_fail(device, diag, result, "creating a buffer");
    VkMemoryRequirements needs;
    device->vk.vkGetBufferMemoryRequirements(device->handle, buffer, &needs);
    allowed[host] = needs.memoryTypeBits;
    device->vk.vkDestroyBuffer(device->handle, buffer, NULL);
  }
  const VkMemoryPropertyFlags local = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
  const VkMemoryPropertyFlags seen =
      VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
  const VkMemoryPropertyFlags cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;
  /* Integrated devices and processors share the host's memory; copies would only cost. */
  VkPhysicalDeviceType kind = device->physical->properties.deviceType;
  bool unified =
      kind == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU || kind == VK_PHYSICAL_DEVICE_TYPE_CPU;
  const char *staged = getenv("LQT_VK_STAGING"); /* tests: stage even where it is not needed */
  if (staged != NULL && strcmp(staged, "1") == 0) unified = false;
  int type = unified ? find_type(&types, allowed[0], local | seen | cached, 0) : -1;
  memory->direct = type >= 0;
  if (type < 0) type = find_type(&types, allowed[0], local, seen);
  if (type < 0) type = find_type(&types, allowed[0], local, 0);
  if (type < 0) type = find_type(&types, allowed[0], 0, 0);
  int host = find_type(&types, allowed[1], seen | cached, local);
  if (host < 0) host = find_type(&types, allowed[1], seen | cached, 0);
  if (host < 0) host = find_type(&types, allowed[1], seen, 0);
  if (type < 0 || host < 0) {
    return lqt__fail(diag, LQT_DEVICE_UNSUPPORTED, where(device),
                     "the driver offers no memory type for buffers that the host can fill");
  }
  memory->device_type = (uint32_t)type;
  memory->host_type = (uint32_t)host;
  uint64_t heap = types.memoryHeaps[types.memoryTypes[type].heapIndex].size;
  memory->block_bytes = BLOCK_BYTES;
  while (memory->block_bytes > heap / 8 && memory->block_bytes > (1u << 20)) {
    memory->block_bytes /= 2;
  }
  return LQT_OK;
}

lqt_status lqt__vk_memory_create(lqt__vk_device *device, lqt_diag *diag) {
  LQT__TRY(choose_types(device, diag));
  return lqt__vk_staging_create(device, STAGING_BYTES, &device->staging, diag);
}

void lqt__vk_memory_destroy(lqt__vk_device *device) {
  lqt__vk_staging_destroy(device, &device->staging);
  lqt__vk_staging_destroy(device, &device->patch_ring);
  for (lqt__vk_block *block = device->memory.blocks, *next; block != NULL; block = next) {
    next = block->next;
    destroy_block(device, block);
  }
  device->memory.blocks = NULL;
}
