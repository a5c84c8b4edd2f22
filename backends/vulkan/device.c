/* Opening a device, and submitting to its queues. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/diag.h"

lqt_status lqt__vk_device_fail(lqt__vk_device *device, lqt_diag *diag, VkResult result,
                               const char *what) {
  if (result == VK_ERROR_DEVICE_LOST) __atomic_store_n(&device->lost, true, __ATOMIC_RELAXED);
  return lqt__vk_fail(diag, device->head.info.selector, result, what);
}

static VkResult create_device(lqt__vk_device *device) {
  const lqt__vk_physical *physical = device->physical;
  const float priorities[2] = {1.0f, 1.0f};
  VkDeviceQueueCreateInfo queues[2] = {
      {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
       .queueFamilyIndex = physical->queue_family,
       .queueCount = 1,
       .pQueuePriorities = priorities},
      {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
       .queueFamilyIndex = physical->transfer_family,
       .queueCount = physical->transfer_queues > 1 ? 2 : 1,
       .pQueuePriorities = priorities},
  };
  lqt__vk_matrix_features matrices = {.type = LQT__VK_MATRIX_FEATURES, .matrices = VK_TRUE};
  VkPhysicalDeviceVulkan12Features v12 = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
      .pNext = physical->matrices ? &matrices : NULL,
      .shaderFloat16 = physical->matrices,
      .vulkanMemoryModel = physical->matrices,
      .bufferDeviceAddress = VK_TRUE,
      .timelineSemaphore = VK_TRUE,
  };
  VkPhysicalDeviceVulkan11Features v11 = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
      .pNext = &v12,
      .storageBuffer16BitAccess = VK_TRUE,
  };
  VkPhysicalDeviceFeatures2 features = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
      .pNext = &v11,
      .features = {.shaderInt64 = VK_TRUE},
  };
  const char *extensions[] = {LQT__VK_MATRIX_EXTENSION};
  VkDeviceCreateInfo info = {
      .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
      .pNext = &features,
      .queueCreateInfoCount = physical->queue_family != physical->transfer_family ? 2 : 1,
      .pQueueCreateInfos = queues,
      .enabledExtensionCount = physical->matrices ? 1 : 0,
      .ppEnabledExtensionNames = extensions,
  };
  VkResult result = vkCreateDevice(physical->handle, &info, NULL, &device->handle);
  if (result != VK_SUCCESS) device->handle = VK_NULL_HANDLE;
  return result;
}

static VkResult create_context(lqt__vk_device *device, lqt__vk_context *context, uint32_t family,
                               uint32_t index) {
  const struct VolkDeviceTable *vk = &device->vk;
  vk->vkGetDeviceQueue(device->handle, family, index, &context->queue);
  VkCommandPoolCreateInfo pool = {
      .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
      .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
      .queueFamilyIndex = family,
  };
  VkResult result = vk->vkCreateCommandPool(device->handle, &pool, NULL, &context->pool);
  if (result != VK_SUCCESS) return result;
  VkCommandBufferAllocateInfo buffers = {
      .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
      .commandPool = context->pool,
      .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
      .commandBufferCount = 2,
  };
  result = vk->vkAllocateCommandBuffers(device->handle, &buffers, context->commands);
  if (result != VK_SUCCESS) return result;
  VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                    .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
  VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                     .pNext = &type};
  return vk->vkCreateSemaphore(device->handle, &semaphore, NULL, &context->timeline);
}

static void destroy_context(lqt__vk_device *device, lqt__vk_context *context) {
  device->vk.vkDestroySemaphore(device->handle, context->timeline, NULL);
  device->vk.vkDestroyCommandPool(device->handle, context->pool, NULL);
}

static lqt_status set_up(lqt__vk_device *device, lqt_diag *diag) {
  VkResult result = create_device(device);
  if (result != VK_SUCCESS) {
    return lqt__vk_fail(diag, device->head.info.selector, result, "opening the device");
  }
  volkLoadDeviceTable(&device->vk, device->handle);
  result = create_context(device, &device->compute, device->physical->queue_family, 0);
  if (result == VK_SUCCESS) {
    result = create_context(device, &device->transfer, device->physical->transfer_family, 0);
  }
  if (result == VK_SUCCESS) {
    uint32_t index = device->physical->transfer_queues > 1 ? 1 : 0;
    result = create_context(device, &device->copy, device->physical->transfer_family, index);
  }
  if (result != VK_SUCCESS) return lqt__vk_device_fail(device, diag, result, "creating a queue");
  LQT__TRY(lqt__vk_memory_create(device, diag));
  LQT__TRY(lqt__vk_pipelines_create(device, diag));
  return lqt__vk_frag_probe(device, diag);
}

lqt_status lqt__vk_device_open(const char *rest, const lqt_device_options *options,
                               lqt_device **out_device, lqt_diag *diag) {
  (void)options; /* products are exact in the sense of `exact`: nothing is rounded below float16 */
  *out_device = NULL;
  const lqt__vk_physical *physical;
  LQT__TRY(lqt__vk_driver_find(rest, &physical, diag));
  lqt__vk_device *device = lqt__alloc_zero(sizeof *device);
  if (device == NULL) {
    return lqt__fail_memory(diag, "vulkan", sizeof *device, "a device");
  }
  device->physical = physical;
  char selector[32];
  snprintf(selector, sizeof selector, "vulkan%.24s", rest);
  lqt__vk_physical_info(physical, selector, &device->head.info);
  const char *activation = getenv("LQT_VK_ACTIVATION"), *matrices = getenv("LQT_VK_MATRICES");
  device->emulate_matrices = matrices != NULL && strcmp(matrices, "emulate") == 0;
  bool half = physical->matrices || device->emulate_matrices;
  if (activation != NULL) half = strcmp(activation, "f16") == 0;
  device->head.info.activation = half ? LQT_DTYPE_F16 : LQT_DTYPE_F32;
  pthread_mutex_init(&device->memory.lock, NULL);
  pthread_mutex_init(&device->queue_lock, NULL);
  pthread_mutex_init(&device->transfer_lock, NULL);
  lqt_status status = set_up(device, diag);
  if (status != LQT_OK) {
    lqt__vk_device_close(&device->head);
    return status;
  }
  *out_device = &device->head;
  return LQT_OK;
}

void lqt__vk_device_close(lqt_device *head) {
  lqt__vk_device *device = (lqt__vk_device *)head;
  if (device->handle != VK_NULL_HANDLE) {
    device->vk.vkDeviceWaitIdle(device->handle);
    device->vk.vkDestroyQueryPool(device->handle, device->profile.queries, NULL);
    lqt__vk_pipelines_destroy(device);
    lqt__vk_memory_destroy(device);
    destroy_context(device, &device->copy);
    destroy_context(device, &device->transfer);
    destroy_context(device, &device->compute);
    device->vk.vkDestroyDevice(device->handle, NULL);
  }
  pthread_mutex_destroy(&device->transfer_lock);
  pthread_mutex_destroy(&device->queue_lock);
  pthread_mutex_destroy(&device->memory.lock);
  lqt__profile_destroy(&device->profile.counters);
  lqt__free(device->recorded);
  lqt__free(device);
}

void lqt__vk_barrier(lqt__vk_device *device, VkCommandBuffer commands, VkPipelineStageFlags from,
                     VkPipelineStageFlags to) {
  VkMemoryBarrier barrier = {
      .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
      .srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT,
      .dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT,
  };
  device->vk.vkCmdPipelineBarrier(commands, from, to, 0, 1, &barrier, 0, NULL, 0, NULL);
}

lqt_status lqt__vk_begin(lqt__vk_device *device, VkCommandBuffer commands, bool again,
                         lqt_diag *diag) {
  VkCommandBufferBeginInfo info = {
      .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
      .flags = again ? 0 : VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
  };
  VkResult result = device->vk.vkBeginCommandBuffer(commands, &info);
  if (result == VK_SUCCESS) return LQT_OK;
  return lqt__vk_device_fail(device, diag, result, "starting to record commands");
}

lqt_status lqt__vk_submit(lqt__vk_device *device, lqt__vk_context *context,
                          VkCommandBuffer commands, bool end, lqt_diag *diag) {
  VkResult result = end ? device->vk.vkEndCommandBuffer(commands) : VK_SUCCESS;
  if (result != VK_SUCCESS) {
    return lqt__vk_device_fail(device, diag, result, "recording commands");
  }
  if (__atomic_load_n(&device->lost, __ATOMIC_RELAXED)) {
    return lqt__vk_device_fail(device, diag, VK_ERROR_DEVICE_LOST, "using the device");
  }
  pthread_mutex_lock(&device->queue_lock);
  /* What either context wrote before becomes visible: its signal is waited for, at no cost when it
   * was given long ago. Copies of patches write memory that nothing else uses; flips wait for them
   * on the host. */
  const VkSemaphore waits[] = {device->compute.timeline, device->transfer.timeline};
  const uint64_t values[] = {device->compute.submitted, device->transfer.submitted};
  const VkPipelineStageFlags stages[] = {VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                                         VK_PIPELINE_STAGE_ALL_COMMANDS_BIT};
  uint64_t signal = context->submitted + 1;
  VkTimelineSemaphoreSubmitInfo timeline = {
      .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
      .waitSemaphoreValueCount = context != &device->copy ? 2 : 0,
      .pWaitSemaphoreValues = values,
      .signalSemaphoreValueCount = 1,
      .pSignalSemaphoreValues = &signal,
  };
  VkSubmitInfo submit = {
      .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
      .pNext = &timeline,
      .waitSemaphoreCount = context != &device->copy ? 2 : 0,
      .pWaitSemaphores = waits,
      .pWaitDstStageMask = stages,
      .commandBufferCount = 1,
      .pCommandBuffers = &commands,
      .signalSemaphoreCount = 1,
      .pSignalSemaphores = &context->timeline,
  };
  result = device->vk.vkQueueSubmit(context->queue, 1, &submit, VK_NULL_HANDLE);
  if (result == VK_SUCCESS) context->submitted = signal;
  pthread_mutex_unlock(&device->queue_lock);
  if (result == VK_SUCCESS) return LQT_OK;
  return lqt__vk_device_fail(device, diag, result, "submitting work");
}

lqt_status lqt__vk_wait(lqt__vk_device *device, lqt__vk_context *context, uint64_t value,
                        lqt_diag *diag) {
  VkSemaphoreWaitInfo info = {
      .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
      .semaphoreCount = 1,
      .pSemaphores = &context->timeline,
      .pValues = &value,
  };
  VkResult result = device->vk.vkWaitSemaphores(device->handle, &info, UINT64_MAX);
  if (result == VK_SUCCESS) return LQT_OK;
  return lqt__vk_device_fail(device, diag, result, "waiting for the device");
}
