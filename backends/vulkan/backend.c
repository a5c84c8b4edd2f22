/* The Vulkan backend's table. */
#include "backends/vulkan/vulkan.h"

const lqt_backend *lqt_backend_vulkan(void);

const lqt_backend *lqt_backend_vulkan(void) {
  static const lqt_backend backend = {
      .abi = LQT_BACKEND_ABI,
      .size = sizeof(lqt_backend),
      .name = "vulkan",
      .device_count = lqt__vk_device_count,
      .device_describe = lqt__vk_device_describe,
      .device_open = lqt__vk_device_open,
      .device_close = lqt__vk_device_close,
      .buffer_create = lqt__vk_buffer_create,
      .buffer_destroy = lqt__vk_buffer_destroy,
      .buffer_write = lqt__vk_buffer_write,
      .buffer_read = lqt__vk_buffer_read,
      .weight_create = lqt__vk_weight_create,
      .weight_destroy = lqt__vk_weight_destroy,
      .weight_patch = lqt__vk_weight_patch,
      .run = lqt__vk_run,
      .variant = lqt__vk_variant,
      .profile_enable = lqt__vk_profile_enable,
      .profile_take = lqt__vk_profile_take,
      .patch_create = lqt__vk_patch_create,
      .patch_wait = lqt__vk_patch_wait,
      .patch_flip = lqt__vk_patch_flip,
      .patch_destroy = lqt__vk_patch_destroy,
      .weight_digest = lqt__vk_weight_digest,
      .program_run = lqt__vk_program_run,
      .program_forget = lqt__vk_program_forget,
  };
  return &backend;
}
