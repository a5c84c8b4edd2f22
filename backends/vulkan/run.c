/* Programs of ops as command buffers. The last program is kept: a decode step that comes again
 * with the same operands is submitted as it stands. */
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/diag.h"

#define PROFILE_OPS 1024u /* ops between two reads of the clock */

static lqt_status record_dispatch(lqt__vk_device *device, VkCommandBuffer commands,
                                  const lqt__vk_dispatch *d, lqt_diag *diag) {
  if (d->x == 0 || d->y == 0) return LQT_OK;
  VkPipeline pipeline;
  LQT__TRY(lqt__vk_pipeline_get(device, &d->spec, &pipeline, diag));
  device->vk.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
  device->vk.vkCmdPushConstants(commands, device->pipelines.layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                                d->push_bytes, &d->push);
  device->vk.vkCmdDispatch(commands, d->x, d->y, 1);
  return LQT_OK;
}

static lqt_status record_op(lqt__vk_device *device, VkCommandBuffer commands, const lqt_op *op,
                            lqt_diag *diag) {
  lqt__vk_dispatch dispatches[LQT__VK_MAX_DISPATCHES];
  size_t count = 0;
  LQT__TRY(lqt__vk_op_plan(device, op, dispatches, &count, diag));
  for (size_t i = 0; i < count; i++) {
    LQT__TRY(record_dispatch(device, commands, &dispatches[i], diag));
  }
  return LQT_OK;
}

/* Makes the pipelines that the ops lack, all at once: compiling is what a first step waits for. */
static lqt_status prepare(lqt__vk_device *device, const lqt_op *ops, size_t count, lqt_diag *diag) {
  lqt__vk_spec *specs = NULL;
  size_t used = 0, capacity = 0;
  lqt_status status = LQT_OK;
  for (size_t i = 0; i < count && status == LQT_OK; i++) {
    lqt__vk_dispatch dispatches[LQT__VK_MAX_DISPATCHES];
    size_t n = 0;
    status = lqt__vk_op_plan(device, &ops[i], dispatches, &n, diag);
    for (size_t k = 0; k < n && status == LQT_OK; k++) {
      const lqt__vk_dispatch *d = &dispatches[k];
      if (d->x == 0 || d->y == 0 || lqt__vk_pipeline_known(device, &d->spec)) continue;
      if (used == capacity) {
        capacity = capacity != 0 ? capacity * 2 : 32;
        lqt__vk_spec *grown = lqt__realloc(specs, capacity * sizeof *grown);
        if (grown == NULL) {
          status = lqt__fail_memory(diag, device->head.info.selector, capacity * sizeof *grown,
                                    "a list of pipelines");
          break;
        }
        specs = grown;
      }
      specs[used++] = d->spec;
    }
  }
  if (status == LQT_OK && used > 1) status = lqt__vk_pipelines_add(device, specs, used, diag);
  lqt__free(specs);
  return status;
}

lqt_status lqt__vk_record_ops(lqt__vk_device *device, VkCommandBuffer commands, const lqt_op *ops,
                              size_t count, lqt_diag *diag) {
  LQT__TRY(prepare(device, ops, count, diag));
  lqt__vk_hazards hazards = {0};
  for (size_t i = 0; i < count; i++) {
    if (lqt__vk_hazards_meet(&hazards, &ops[i])) {
      lqt__vk_barrier(device, commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                      VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT);
    }
    LQT__TRY(record_op(device, commands, &ops[i], diag));
  }
  return LQT_OK;
}

static lqt_status record(lqt__vk_device *device, VkCommandBuffer commands, const lqt_op *ops,
                         size_t count, VkQueryPool queries, lqt_diag *diag) {
  LQT__TRY(lqt__vk_begin(device, commands, true, diag));
  const struct VolkDeviceTable *vk = &device->vk;
  const VkPipelineStageFlags work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT;
  if (queries == VK_NULL_HANDLE) {
    LQT__TRY(lqt__vk_record_ops(device, commands, ops, count, diag));
  } else { /* one after the other, so that each can be timed */
    vk->vkCmdResetQueryPool(commands, queries, 0, (uint32_t)count + 1);
    vk->vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries, 0);
    for (size_t i = 0; i < count; i++) {
      LQT__TRY(record_op(device, commands, &ops[i], diag));
      lqt__vk_barrier(device, commands, work, work);
      vk->vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, queries,
                              (uint32_t)i + 1);
    }
  }
  lqt__vk_barrier(device, commands, work,
                  VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT);
  VkResult result = vk->vkEndCommandBuffer(commands);
  if (result == VK_SUCCESS) return LQT_OK;
  return lqt__vk_device_fail(device, diag, result, "recording commands");
}

static lqt_status submit_and_wait(lqt__vk_device *device, VkCommandBuffer commands,
                                  lqt_diag *diag) {
  LQT__TRY(lqt__vk_submit(device, &device->compute, commands, false, diag));
  return lqt__vk_wait(device, &device->compute, device->compute.submitted, diag);
}

lqt_status lqt__vk_run_dispatch(lqt__vk_device *device, const lqt__vk_dispatch *dispatch,
                                lqt_diag *diag) {
  VkCommandBuffer commands = device->compute.commands[1];
  LQT__TRY(lqt__vk_begin(device, commands, false, diag));
  LQT__TRY(record_dispatch(device, commands, dispatch, diag));
  lqt__vk_barrier(device, commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                  VK_PIPELINE_STAGE_ALL_COMMANDS_BIT | VK_PIPELINE_STAGE_HOST_BIT);
  VkResult result = device->vk.vkEndCommandBuffer(commands);
  if (result != VK_SUCCESS) return lqt__vk_device_fail(device, diag, result, "recording commands");
  return submit_and_wait(device, commands, diag);
}

static bool same_program(const lqt__vk_device *device, const lqt_op *ops, size_t count) {
  return count != 0 && count == device->recorded_count &&
         device->recorded_generation == __atomic_load_n(&device->generation, __ATOMIC_RELAXED) &&
         memcmp(ops, device->recorded, count * sizeof *ops) == 0;
}

static lqt_status remember(lqt__vk_device *device, const lqt_op *ops, size_t count,
                           lqt_diag *diag) {
  device->recorded_count = 0;
  if (count > device->recorded_capacity) {
    lqt_op *grown = lqt__realloc(device->recorded, count * sizeof *grown);
    if (grown == NULL) {
      return lqt__fail_memory(diag, device->head.info.selector, count * sizeof *grown,
                              "the recorded ops");
    }
    device->recorded = grown;
    device->recorded_capacity = count;
  }
  memcpy(device->recorded, ops, count * sizeof *ops);
  return LQT_OK;
}

static lqt_status run_profiled(lqt__vk_device *device, const lqt_op *ops, size_t count,
                               lqt_diag *diag) {
  lqt__vk_profile *profile = &device->profile;
  VkCommandBuffer commands = device->compute.commands[1];
  if (profile->queries == VK_NULL_HANDLE) {
    VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                  .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                  .queryCount = PROFILE_OPS + 1};
    VkResult result = device->vk.vkCreateQueryPool(device->handle, &info, NULL, &profile->queries);
    if (result != VK_SUCCESS) {
      return lqt__vk_device_fail(device, diag, result, "creating timestamps");
    }
  }
  uint64_t *times = lqt__alloc_array(PROFILE_OPS + 1, sizeof *times);
  if (times == NULL) {
    return lqt__fail_memory(diag, device->head.info.selector, 8 * (PROFILE_OPS + 1), "timestamps");
  }
  const double seconds = 1e-9 * device->physical->properties.limits.timestampPeriod;
  lqt_status status = LQT_OK;
  for (size_t first = 0; first < count && status == LQT_OK; first += PROFILE_OPS) {
    size_t n = count - first < PROFILE_OPS ? count - first : PROFILE_OPS;
    status = record(device, commands, ops + first, n, profile->queries, diag);
    if (status == LQT_OK) status = submit_and_wait(device, commands, diag);
    if (status != LQT_OK) break;
    VkResult result = device->vk.vkGetQueryPoolResults(
        device->handle, profile->queries, 0, (uint32_t)n + 1, (n + 1) * sizeof *times, times,
        sizeof *times, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
    if (result != VK_SUCCESS) {
      status = lqt__vk_device_fail(device, diag, result, "reading timestamps");
      break;
    }
    for (size_t i = 0; i < n; i++) {
      lqt__profile_add(&profile->counters, &ops[first + i],
                       (double)(times[i + 1] - times[i]) * seconds);
    }
  }
  lqt__free(times);
  return status;
}

lqt_status lqt__vk_run(lqt_device *head, const lqt_op *ops, size_t count, lqt_diag *diag) {
  lqt__vk_device *device = (lqt__vk_device *)head;
  if (device->profile.counters.on &&
      device->physical->properties.limits.timestampComputeAndGraphics) {
    return run_profiled(device, ops, count, diag);
  }
  VkCommandBuffer commands = device->compute.commands[0];
  if (!same_program(device, ops, count)) {
    uint64_t generation = __atomic_load_n(&device->generation, __ATOMIC_RELAXED);
    LQT__TRY(remember(device, ops, count, diag));
    LQT__TRY(record(device, commands, ops, count, VK_NULL_HANDLE, diag));
    device->recorded_count = count;
    device->recorded_generation = generation;
  }
  return submit_and_wait(device, commands, diag);
}

void lqt__vk_profile_enable(lqt_device *head, bool on) {
  ((lqt__vk_device *)head)->profile.counters.on = on;
}

size_t lqt__vk_profile_take(lqt_device *head, lqt_profile_entry *out, size_t capacity) {
  return lqt__profile_take(&((lqt__vk_device *)head)->profile.counters, out, capacity);
}
