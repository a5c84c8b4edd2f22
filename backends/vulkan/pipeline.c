/* Pipelines: one for each shader and set of constants, made when first needed. */
#include <string.h>

#include "backends/vulkan/shaders.h"
#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/diag.h"
#include "base/hash.h"
#include "base/pool.h"

lqt_status lqt__vk_pipelines_create(lqt__vk_device *device, lqt_diag *diag) {
  VkPushConstantRange range = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
                               .size = LQT__VK_PUSH_BYTES};
  VkPipelineLayoutCreateInfo info = {
      .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
      .pushConstantRangeCount = 1,
      .pPushConstantRanges = &range,
  };
  VkResult result =
      device->vk.vkCreatePipelineLayout(device->handle, &info, NULL, &device->pipelines.layout);
  if (result != VK_SUCCESS) {
    return lqt__vk_device_fail(device, diag, result, "creating a pipeline layout");
  }
  return lqt__vk_cache_create(device, diag);
}

void lqt__vk_pipelines_destroy(lqt__vk_device *device) {
  lqt__vk_pipelines *pipelines = &device->pipelines;
  lqt__vk_cache_save(device);
  for (size_t i = 0; i < pipelines->capacity; i++) {
    device->vk.vkDestroyPipeline(device->handle, pipelines->slots[i].handle, NULL);
  }
  lqt__free(pipelines->slots);
  for (int i = 0; i < LQT__VK_SHADER_COUNT; i++) {
    device->vk.vkDestroyShaderModule(device->handle, pipelines->modules[i], NULL);
  }
  device->vk.vkDestroyPipelineCache(device->handle, pipelines->cache, NULL);
  device->vk.vkDestroyPipelineLayout(device->handle, pipelines->layout, NULL);
}

void lqt__vk_spec_add(lqt__vk_spec *spec, uint32_t id, uint32_t value) {
  spec->constants[spec->count++] = (lqt__vk_constant){id, value};
}

static bool same_spec(const lqt__vk_spec *a, const lqt__vk_spec *b) {
  return a->shader == b->shader && a->count == b->count &&
         memcmp(a->constants, b->constants, a->count * sizeof a->constants[0]) == 0;
}

static lqt__vk_pipeline *find_slot(const lqt__vk_pipelines *pipelines, const lqt__vk_spec *spec) {
  uint32_t hash =
      lqt__crc32((uint32_t)spec->shader, spec->constants, spec->count * sizeof spec->constants[0]);
  size_t mask = pipelines->capacity - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    lqt__vk_pipeline *slot = &pipelines->slots[i];
    if (slot->handle == VK_NULL_HANDLE || same_spec(&slot->spec, spec)) return slot;
  }
}

/* Keeps a third of the slots free. */
static bool reserve(lqt__vk_pipelines *pipelines) {
  if ((pipelines->used + 1) * 3 <= pipelines->capacity * 2) return true;
  lqt__vk_pipelines grown = *pipelines;
  grown.capacity = pipelines->capacity != 0 ? pipelines->capacity * 2 : 64;
  grown.slots = lqt__alloc_array(grown.capacity, sizeof *grown.slots);
  if (grown.slots == NULL) return false;
  for (size_t i = 0; i < pipelines->capacity; i++) {
    const lqt__vk_pipeline *old = &pipelines->slots[i];
    if (old->handle != VK_NULL_HANDLE) *find_slot(&grown, &old->spec) = *old;
  }
  lqt__free(pipelines->slots);
  *pipelines = grown;
  return true;
}

static VkResult get_module(lqt__vk_device *device, lqt__vk_shader shader, VkShaderModule *out) {
  VkShaderModule *module = &device->pipelines.modules[shader];
  VkResult result = VK_SUCCESS;
  if (*module == VK_NULL_HANDLE) {
    VkShaderModuleCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = lqt__vk_spirv[shader].bytes,
        .pCode = lqt__vk_spirv[shader].words,
    };
    result = device->vk.vkCreateShaderModule(device->handle, &info, NULL, module);
  }
  *out = *module;
  return result;
}

static VkResult create_pipeline(lqt__vk_device *device, const lqt__vk_spec *spec, VkPipeline *out) {
  VkShaderModule module;
  VkResult result = get_module(device, spec->shader, &module);
  if (result != VK_SUCCESS) return result;
  VkSpecializationMapEntry entries[LQT__VK_MAX_CONSTANTS];
  for (uint32_t i = 0; i < spec->count; i++) {
    entries[i] = (VkSpecializationMapEntry){
        .constantID = spec->constants[i].id,
        .offset = (uint32_t)(i * sizeof spec->constants[0] + offsetof(lqt__vk_constant, value)),
        .size = sizeof(uint32_t)};
  }
  VkSpecializationInfo constants = {
      .mapEntryCount = spec->count,
      .pMapEntries = entries,
      .dataSize = spec->count * sizeof spec->constants[0],
      .pData = spec->constants,
  };
  VkComputePipelineCreateInfo info = {
      .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
      .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                .module = module,
                .pName = "main",
                .pSpecializationInfo = &constants},
      .layout = device->pipelines.layout,
      .basePipelineIndex = -1,
  };
  return device->vk.vkCreateComputePipelines(device->handle, device->pipelines.cache, 1, &info,
                                             NULL, out);
}

lqt_status lqt__vk_pipeline_get(lqt__vk_device *device, const lqt__vk_spec *spec, VkPipeline *out,
                                lqt_diag *diag) {
  lqt__vk_pipelines *pipelines = &device->pipelines;
  if (!reserve(pipelines)) {
    return lqt__fail_memory(diag, device->head.info.selector, sizeof(lqt__vk_pipeline),
                            "the table of pipelines");
  }
  lqt__vk_pipeline *slot = find_slot(pipelines, spec);
  if (slot->handle == VK_NULL_HANDLE) {
    VkPipeline handle = VK_NULL_HANDLE;
    VkResult result = create_pipeline(device, spec, &handle);
    if (result != VK_SUCCESS) {
      return lqt__vk_device_fail(device, diag, result, "compiling a shader");
    }
    slot->spec = *spec;
    slot->handle = handle;
    pipelines->used++;
  }
  *out = slot->handle;
  return LQT_OK;
}

bool lqt__vk_pipeline_known(const lqt__vk_device *device, const lqt__vk_spec *spec) {
  const lqt__vk_pipelines *pipelines = &device->pipelines;
  return pipelines->capacity != 0 && find_slot(pipelines, spec)->handle != VK_NULL_HANDLE;
}

/* Pipelines that several threads make; Vulkan's cache object takes care of itself. */
typedef struct batch {
  lqt__vk_device *device;
  const lqt__vk_spec *specs;
  VkPipeline *handles;
  VkResult *results;
} batch;

static void make_one(void *context, size_t i, unsigned worker) {
  batch *b = context;
  (void)worker;
  for (size_t k = 0; k < i; k++) {
    if (same_spec(&b->specs[k], &b->specs[i])) return; /* another task makes it */
  }
  b->results[i] = create_pipeline(b->device, &b->specs[i], &b->handles[i]);
}

#define MOST_THREADS 16u

lqt_status lqt__vk_pipelines_add(lqt__vk_device *device, const lqt__vk_spec *specs, size_t count,
                                 lqt_diag *diag) {
  lqt__vk_pipelines *pipelines = &device->pipelines;
  batch b = {.device = device, .specs = specs};
  b.handles = lqt__alloc_zero(count * sizeof *b.handles);
  b.results = lqt__alloc_zero(count * sizeof *b.results); /* VK_SUCCESS is 0 */
  if (b.handles == NULL || b.results == NULL) {
    lqt__free(b.handles);
    lqt__free(b.results);
    return lqt__fail_memory(diag, device->head.info.selector, count * sizeof *b.handles,
                            "a list of pipelines");
  }
  VkResult result = VK_SUCCESS;
  VkShaderModule module; /* modules are made here: the threads only read them */
  for (size_t i = 0; i < count && result == VK_SUCCESS; i++) {
    result = get_module(device, specs[i].shader, &module);
  }
  if (result == VK_SUCCESS) {
    unsigned threads = lqt__core_count();
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads > count) threads = (unsigned)count;
    lqt__pool *pool = lqt__pool_create(threads);
    lqt__pool_run(pool, count, make_one, &b); /* without a pool one by one */
    lqt__pool_destroy(pool);
  }
  bool memory = true;
  for (size_t i = 0; i < count; i++) {
    if (b.results[i] != VK_SUCCESS && result == VK_SUCCESS) result = b.results[i];
    if (b.handles[i] == VK_NULL_HANDLE) continue;
    lqt__vk_pipeline *slot = NULL;
    memory = memory && reserve(pipelines);
    if (memory) slot = find_slot(pipelines, &specs[i]);
    if (slot == NULL || slot->handle != VK_NULL_HANDLE) {
      device->vk.vkDestroyPipeline(device->handle, b.handles[i], NULL);
      continue;
    }
    slot->spec = specs[i];
    slot->handle = b.handles[i];
    pipelines->used++;
  }
  lqt__free(b.handles);
  lqt__free(b.results);
  if (result != VK_SUCCESS) return lqt__vk_device_fail(device, diag, result, "compiling a shader");
  if (memory) return LQT_OK;
  return lqt__fail_memory(diag, device->head.info.selector, sizeof(lqt__vk_pipeline),
                          "the table of pipelines");
}

/* Names of variants: few, and asked for again and again. */
typedef struct interned {
  struct interned *next;
  char *text;
} interned;

const char *lqt__vk_intern(const char *text) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static interned *first;
  pthread_mutex_lock(&lock);
  interned *item = first;
  while (item != NULL && strcmp(item->text, text) != 0) item = item->next;
  if (item == NULL && (item = lqt__alloc_zero(sizeof *item)) != NULL) {
    item->text = lqt__strdup(text);
    if (item->text == NULL) {
      lqt__free(item);
      item = NULL;
    } else {
      item->next = first;
      first = item;
    }
  }
  pthread_mutex_unlock(&lock);
  return item != NULL ? item->text : "";
}
