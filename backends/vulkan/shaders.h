/* The shaders that the build compiled and embedded. */
#ifndef LQT_BACKENDS_VULKAN_SHADERS_H_
#define LQT_BACKENDS_VULKAN_SHADERS_H_

#include <stddef.h>
#include <stdint.h>

#include "backends/vulkan/params.h"

typedef struct lqt__vk_spirv_module {
  const uint32_t *words;
  size_t bytes;
} lqt__vk_spirv_module;

extern const lqt__vk_spirv_module lqt__vk_spirv[LQT__VK_SHADER_COUNT];

#endif /* LQT_BACKENDS_VULKAN_SHADERS_H_ */
