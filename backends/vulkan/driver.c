/* The Vulkan loader, the instance and the devices that can be used. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/diag.h"

static lqt__vk_driver driver;
static pthread_once_t driver_once = PTHREAD_ONCE_INIT;
static bool validating;
static uint64_t messages; /* atomic */

static const char validation_layer[] = "VK_LAYER_KHRONOS_validation";

bool lqt__vk_validating(void) { return validating; }
uint64_t lqt__vk_validation_messages(void) { return __atomic_load_n(&messages, __ATOMIC_RELAXED); }

const char *lqt__vk_result_name(VkResult result) {
#define NAME(name) \
  case name:       \
    return #name;
  switch (result) {
    NAME(VK_SUCCESS)
    NAME(VK_NOT_READY)
    NAME(VK_TIMEOUT)
    NAME(VK_INCOMPLETE)
    NAME(VK_ERROR_OUT_OF_HOST_MEMORY)
    NAME(VK_ERROR_OUT_OF_DEVICE_MEMORY)
    NAME(VK_ERROR_INITIALIZATION_FAILED)
    NAME(VK_ERROR_DEVICE_LOST)
    NAME(VK_ERROR_MEMORY_MAP_FAILED)
    NAME(VK_ERROR_LAYER_NOT_PRESENT)
    NAME(VK_ERROR_EXTENSION_NOT_PRESENT)
    NAME(VK_ERROR_FEATURE_NOT_PRESENT)
    NAME(VK_ERROR_INCOMPATIBLE_DRIVER)
    NAME(VK_ERROR_TOO_MANY_OBJECTS)
    NAME(VK_ERROR_FRAGMENTED_POOL)
    NAME(VK_ERROR_OUT_OF_POOL_MEMORY)
    NAME(VK_ERROR_INVALID_EXTERNAL_HANDLE)
    NAME(VK_ERROR_FRAGMENTATION)
    NAME(VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS)
    NAME(VK_ERROR_INVALID_SHADER_NV)
    default:
      return "an unknown VkResult";
  }
#undef NAME
}

lqt_status lqt__vk_fail(lqt_diag *diag, const char *where, VkResult result, const char *what) {
  lqt_status status = LQT_DEVICE_FAILURE;
  const char *hint = "";
  switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
      status = LQT_OUT_OF_MEMORY;
      break;
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
    case VK_ERROR_FRAGMENTATION:
    case VK_ERROR_FRAGMENTED_POOL:
    case VK_ERROR_TOO_MANY_OBJECTS:
      status = LQT_DEVICE_OUT_OF_MEMORY;
      break;
    case VK_ERROR_DEVICE_LOST:
      status = LQT_DEVICE_LOST;
      hint = "; close the device and open it again";
      break;
    case VK_ERROR_FEATURE_NOT_PRESENT:
    case VK_ERROR_EXTENSION_NOT_PRESENT:
    case VK_ERROR_LAYER_NOT_PRESENT:
      status = LQT_DEVICE_UNSUPPORTED;
      break;
    case VK_ERROR_INCOMPATIBLE_DRIVER:
      status = LQT_DEVICE_NOT_AVAILABLE;
      break;
    default:
      break;
  }
  lqt__fail(diag, status, where, "%s failed with %s (%d)%s", what, lqt__vk_result_name(result),
            (int)result, hint);
  if (diag != NULL) diag->native = (int32_t)result;
  return status;
}

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT type,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data,
                                                 void *user) {
  (void)severity;
  (void)type;
  (void)user;
  __atomic_fetch_add(&messages, 1, __ATOMIC_RELAXED);
  fprintf(stderr, "LQT_VK_VALIDATE: %s\n", data->pMessage);
  return VK_FALSE;
}

static bool has_layer(void) {
  uint32_t count = 0;
  if (vkEnumerateInstanceLayerProperties(&count, NULL) != VK_SUCCESS) return false;
  VkLayerProperties *layers = calloc(count + 1u, sizeof *layers);
  if (layers == NULL) return false;
  bool found = false;
  if (vkEnumerateInstanceLayerProperties(&count, layers) >= VK_SUCCESS) {
    for (uint32_t i = 0; i < count; i++) {
      found = found || strcmp(layers[i].layerName, validation_layer) == 0;
    }
  }
  free(layers);
  return found;
}

static VkResult create_instance(void) {
  VkApplicationInfo application = {
      .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
      .pApplicationName = "lqt",
      .pEngineName = "lqt",
      .apiVersion = VK_API_VERSION_1_2,
  };
  const char *layers[] = {validation_layer};
  const char *extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
                              VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
  VkDebugUtilsMessengerCreateInfoEXT messenger = {
      .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
      .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                         VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
      .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
      .pfnUserCallback = on_message,
  };
  VkValidationFeatureEnableEXT enables[] = {
      VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
  VkValidationFeaturesEXT features = {
      .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
      .pNext = &messenger,
      .enabledValidationFeatureCount = 1,
      .pEnabledValidationFeatures = enables,
  };
  VkInstanceCreateInfo info = {
      .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
      .pApplicationInfo = &application,
  };
  const char *wish = getenv("LQT_VK_VALIDATE");
  if (wish != NULL && strcmp(wish, "1") == 0) {
    validating = has_layer();
    if (!validating) {
      fprintf(stderr, "LQT_VK_VALIDATE=1, but the layer %s is not installed; going on without\n",
              validation_layer);
    }
  }
  if (validating) {
    info.pNext = &features;
    info.enabledLayerCount = 1;
    info.ppEnabledLayerNames = layers;
    info.enabledExtensionCount = 2;
    info.ppEnabledExtensionNames = extensions;
  }
  VkResult result = vkCreateInstance(&info, NULL, &driver.instance);
  if (result != VK_SUCCESS) {
    driver.instance = VK_NULL_HANDLE;
    return result;
  }
  volkLoadInstanceOnly(driver.instance);
  if (validating) {
    VkDebugUtilsMessengerEXT handle;
    result = vkCreateDebugUtilsMessengerEXT(driver.instance, &messenger, NULL, &handle);
  }
  return result;
}

static const char *missing_feature(VkPhysicalDevice handle, uint32_t api) {
  if (api < VK_API_VERSION_1_2) return "Vulkan 1.2";
  VkPhysicalDeviceVulkan12Features v12 = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
  VkPhysicalDeviceVulkan11Features v11 = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &v12};
  VkPhysicalDeviceFeatures2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                   .pNext = &v11};
  vkGetPhysicalDeviceFeatures2(handle, &all);
  if (!all.features.shaderInt64) return "shaderInt64";
  if (!v11.storageBuffer16BitAccess) return "storageBuffer16BitAccess";
  if (!v12.bufferDeviceAddress) return "bufferDeviceAddress";
  if (!v12.timelineSemaphore) return "timelineSemaphore";
  return NULL;
}

static void find_queues(lqt__vk_physical *physical) {
  VkQueueFamilyProperties families[32];
  uint32_t count = 32;
  vkGetPhysicalDeviceQueueFamilyProperties(physical->handle, &count, families);
  const VkQueueFlags work = VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT;
  bool found = false;
  for (uint32_t i = 0; i < count; i++) { /* any compute queue; one without graphics is better */
    if ((families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) == 0) continue;
    if (found && (families[i].queueFlags & VK_QUEUE_GRAPHICS_BIT) != 0) continue;
    physical->queue_family = i;
    found = true;
  }
  if (!found) physical->lacks = "a compute queue";
  physical->transfer_family = physical->queue_family;
  for (uint32_t i = 0; i < count; i++) {
    if ((families[i].queueFlags & VK_QUEUE_TRANSFER_BIT) != 0 &&
        (families[i].queueFlags & work) == 0) {
      physical->transfer_family = i;
      physical->transfer_queues = families[i].queueCount;
      break;
    }
  }
}

static bool has_extension(VkPhysicalDevice handle, const char *name) {
  uint32_t count = 0;
  if (vkEnumerateDeviceExtensionProperties(handle, NULL, &count, NULL) != VK_SUCCESS) return false;
  VkExtensionProperties *all = calloc(count + 1u, sizeof *all);
  bool found = false;
  if (all != NULL &&
      vkEnumerateDeviceExtensionProperties(handle, NULL, &count, all) >= VK_SUCCESS) {
    for (uint32_t i = 0; i < count; i++) found = found || strcmp(all[i].extensionName, name) == 0;
  }
  free(all);
  return found;
}

/* Matrix units that multiply 16 x 16 by 16 x 8 float16 values into float32 in a subgroup of 32. */
static bool has_matrices(VkPhysicalDevice handle, uint32_t subgroup_size) {
  if (subgroup_size != 32 || !has_extension(handle, LQT__VK_MATRIX_EXTENSION)) return false;
  lqt__vk_matrix_features matrices = {.type = LQT__VK_MATRIX_FEATURES};
  VkPhysicalDeviceVulkan12Features v12 = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &matrices};
  VkPhysicalDeviceFeatures2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                   .pNext = &v12};
  vkGetPhysicalDeviceFeatures2(handle, &all);
  if (!matrices.matrices || !v12.shaderFloat16 || !v12.vulkanMemoryModel) return false;
  typedef VkResult(VKAPI_PTR * list_shapes)(VkPhysicalDevice, uint32_t *, lqt__vk_matrix_shape *);
  list_shapes list = (list_shapes)vkGetInstanceProcAddr(
      driver.instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
  lqt__vk_matrix_shape shapes[128];
  uint32_t count = 128;
  for (uint32_t i = 0; i < count; i++) {
    shapes[i] = (lqt__vk_matrix_shape){.type = LQT__VK_MATRIX_SHAPE};
  }
  if (list == NULL || list(handle, &count, shapes) < VK_SUCCESS) return false;
  for (uint32_t i = 0; i < count; i++) {
    const lqt__vk_matrix_shape *s = &shapes[i];
    if (s->m == 16 && s->n == 8 && s->k == 16 && s->a == 0 && s->b == 0 && s->c == 1 &&
        s->result == 1 && s->scope == 3) {
      return true;
    }
  }
  return false;
}

static uint32_t multiprocessors(VkPhysicalDevice handle) {
  if (!has_extension(handle, VK_NV_SHADER_SM_BUILTINS_EXTENSION_NAME)) return 64;
  VkPhysicalDeviceShaderSMBuiltinsPropertiesNV sm = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_SM_BUILTINS_PROPERTIES_NV};
  VkPhysicalDeviceProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                     .pNext = &sm};
  vkGetPhysicalDeviceProperties2(handle, &all);
  return sm.shaderSMCount != 0 ? sm.shaderSMCount : 64;
}

static void describe(lqt__vk_physical *physical) {
  vkGetPhysicalDeviceProperties(physical->handle, &physical->properties);
  physical->lacks = missing_feature(physical->handle, physical->properties.apiVersion);
  if (physical->properties.apiVersion < VK_API_VERSION_1_2) return;
  VkPhysicalDeviceSubgroupProperties subgroup = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
  VkPhysicalDeviceDriverProperties which = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES, .pNext = &subgroup};
  VkPhysicalDeviceMaintenance3Properties limits = {
      .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES, .pNext = &which};
  VkPhysicalDeviceProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                     .pNext = &limits};
  vkGetPhysicalDeviceProperties2(physical->handle, &all);
  physical->driver = which.driverID;
  physical->subgroup_size = subgroup.subgroupSize;
  physical->max_allocation = limits.maxMemoryAllocationSize;
  const VkSubgroupFeatureFlags needed =
      VK_SUBGROUP_FEATURE_BASIC_BIT | VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
  if (physical->lacks == NULL && ((subgroup.supportedOperations & needed) != needed ||
                                  (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) == 0)) {
    physical->lacks = "subgroup arithmetic in compute shaders";
  }
  VkPhysicalDeviceMemoryProperties memory;
  vkGetPhysicalDeviceMemoryProperties(physical->handle, &memory);
  for (uint32_t i = 0; i < memory.memoryHeapCount; i++) {
    const VkMemoryHeap *heap = &memory.memoryHeaps[i];
    if ((heap->flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) && heap->size > physical->memory) {
      physical->memory = heap->size;
    }
  }
  physical->matrices = has_matrices(physical->handle, physical->subgroup_size);
  physical->multiprocessors = multiprocessors(physical->handle);
  find_queues(physical);
}

static bool is_cpu(const lqt__vk_physical *physical) {
  return physical->properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
}
static bool listed(const lqt__vk_physical *physical) {
  return !is_cpu(physical) && physical->lacks == NULL;
}

static void explain_empty(void) {
  for (size_t i = 0; i < driver.count; i++) {
    const lqt__vk_physical *physical = &driver.devices[i];
    if (listed(physical)) return;
    if (!is_cpu(physical)) {
      snprintf(driver.reason, sizeof driver.reason, "%.120s lacks %s",
               physical->properties.deviceName, physical->lacks);
      return;
    }
    snprintf(driver.reason, sizeof driver.reason,
             "the only Vulkan device is a processor (%.100s), used when asked for by name "
             "(vulkan:llvmpipe)",
             physical->properties.deviceName);
  }
  if (driver.count == 0) {
    snprintf(driver.reason, sizeof driver.reason,
             "the Vulkan loader finds no device (is a driver installed?)");
  }
}

static void start(void) {
  driver.status = LQT_DEVICE_NOT_AVAILABLE;
  if (volkInitialize() != VK_SUCCESS) {
    snprintf(driver.reason, sizeof driver.reason,
             "no Vulkan loader (libvulkan.so.1) on this machine");
    return;
  }
  if (vkEnumerateInstanceVersion == NULL || volkGetInstanceVersion() < VK_API_VERSION_1_2) {
    snprintf(driver.reason, sizeof driver.reason, "the Vulkan loader is older than Vulkan 1.2");
    return;
  }
  VkResult result = create_instance();
  if (result != VK_SUCCESS) {
    driver.native = (int32_t)result;
    snprintf(driver.reason, sizeof driver.reason, "no Vulkan instance: %s",
             lqt__vk_result_name(result));
    return;
  }
  VkPhysicalDevice handles[LQT__VK_MAX_DEVICES];
  uint32_t count = LQT__VK_MAX_DEVICES;
  result = vkEnumeratePhysicalDevices(driver.instance, &count, handles);
  if (result < VK_SUCCESS) {
    driver.native = (int32_t)result;
    snprintf(driver.reason, sizeof driver.reason, "listing Vulkan devices failed with %s",
             lqt__vk_result_name(result));
    return;
  }
  driver.status = LQT_OK;
  driver.count = count;
  for (uint32_t i = 0; i < count; i++) {
    driver.devices[i].handle = handles[i];
    describe(&driver.devices[i]);
  }
  explain_empty();
}

const lqt__vk_driver *lqt__vk_driver_get(void) {
  pthread_once(&driver_once, start);
  return &driver;
}

size_t lqt__vk_device_count(const char **out_reason) {
  const lqt__vk_driver *d = lqt__vk_driver_get();
  if (out_reason != NULL) *out_reason = d->reason;
  size_t count = 0;
  for (size_t i = 0; i < d->count; i++) count += listed(&d->devices[i]);
  return count;
}

static const lqt__vk_physical *listed_at(size_t index) {
  const lqt__vk_driver *d = lqt__vk_driver_get();
  for (size_t i = 0; i < d->count; i++) {
    if (listed(&d->devices[i]) && index-- == 0) return &d->devices[i];
  }
  return NULL;
}

void lqt__vk_physical_info(const lqt__vk_physical *physical, const char *selector,
                           lqt_device_info *out_info) {
  *out_info = (lqt_device_info){.memory = physical->memory, .activation = LQT_DTYPE_F32};
  snprintf(out_info->backend, sizeof out_info->backend, "vulkan");
  snprintf(out_info->name, sizeof out_info->name, "%.127s", physical->properties.deviceName);
  snprintf(out_info->selector, sizeof out_info->selector, "%s", selector);
}

lqt_status lqt__vk_device_describe(size_t index, lqt_device_info *out_info) {
  const lqt__vk_physical *physical = listed_at(index);
  if (physical == NULL) return LQT_OUT_OF_RANGE;
  char selector[32];
  snprintf(selector, sizeof selector, "vulkan:%zu", index);
  lqt__vk_physical_info(physical, selector, out_info);
  return LQT_OK;
}

static bool name_contains(const char *name, const char *part) {
  size_t length = strlen(part);
  for (; *name != '\0'; name++) {
    size_t i = 0;
    while (i < length && tolower((unsigned char)name[i]) == tolower((unsigned char)part[i])) i++;
    if (i == length) return true;
  }
  return false;
}

/* Without a wish: a discrete GPU before an integrated one before any other. */
static const lqt__vk_physical *best(void) {
  const VkPhysicalDeviceType order[] = {VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU,
                                        VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU};
  for (size_t o = 0; o < sizeof order / sizeof *order; o++) {
    const lqt__vk_physical *physical;
    for (size_t i = 0; (physical = listed_at(i)) != NULL; i++) {
      if (physical->properties.deviceType == order[o]) return physical;
    }
  }
  return listed_at(0);
}

lqt_status lqt__vk_driver_find(const char *rest, const lqt__vk_physical **out, lqt_diag *diag) {
  const lqt__vk_driver *d = lqt__vk_driver_get();
  *out = NULL;
  const char *wish = rest[0] == ':' ? rest + 1 : rest;
  if (d->instance == VK_NULL_HANDLE || d->status != LQT_OK) {
    lqt__fail(diag, LQT_DEVICE_NOT_AVAILABLE, "vulkan", "%s", d->reason);
    if (diag != NULL) diag->native = d->native;
    return LQT_DEVICE_NOT_AVAILABLE;
  }
  bool number = wish[0] != '\0' && strspn(wish, "0123456789") == strlen(wish);
  if (wish[0] == '\0') {
    *out = best();
  } else if (number) {
    *out = strlen(wish) < 6 ? listed_at((size_t)strtoul(wish, NULL, 10)) : NULL;
  } else {
    for (size_t i = 0; i < d->count && *out == NULL; i++) {
      if (name_contains(d->devices[i].properties.deviceName, wish)) *out = &d->devices[i];
    }
  }
  if (*out == NULL) {
    const char *reason;
    size_t count = lqt__vk_device_count(&reason);
    if (count == 0 && reason[0] != '\0') {
      return lqt__fail(diag, LQT_DEVICE_NOT_AVAILABLE, "vulkan", "no such device: %s", reason);
    }
    return lqt__fail(diag, LQT_DEVICE_NOT_AVAILABLE, "vulkan",
                     "no device '%s'; %zu can be chosen by number or by part of their name "
                     "(lqt devices lists them)",
                     wish, count);
  }
  if ((*out)->lacks != NULL) {
    const char *lacks = (*out)->lacks, *name = (*out)->properties.deviceName;
    *out = NULL;
    return lqt__fail(diag, LQT_DEVICE_UNSUPPORTED, "vulkan", "%.100s lacks %s", name, lacks);
  }
  return LQT_OK;
}
