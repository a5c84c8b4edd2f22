#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/random.h"
#include "io/file.h"
#include "support.h"

static const char *vulkan_reason(void) {
  for (size_t i = 0; lqt_backend_name(i) != NULL; i++) {
    if (strcmp(lqt_backend_name(i), "vulkan") == 0) return lqt_backend_reason(i);
  }
  return NULL;
}

/* Opening must fail with a sentence and leave the other backends working. */
static void expect_unavailable(const char *selector) {
  lqt_device *device = (lqt_device *)1;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_device_open(selector, NULL, &device, &diag), LQT_DEVICE_NOT_AVAILABLE, "%s: %s",
               selector, diag.what);
  cr_assert_null(device);
  cr_assert_gt(strlen(diag.what), 20, "%s", diag.what);
  cr_assert_eq(lqt_device_open("cpu-oracle", NULL, &device, &diag), LQT_OK);
  lqt_device_release(device);
}

Test(device, without_a_driver_there_is_a_reason) {
  setenv("VK_DRIVER_FILES", "/nonexistent/driver.json", 1);
  setenv("VK_ICD_FILENAMES", "/nonexistent/driver.json", 1);
  const char *reason = vulkan_reason();
  cr_assert_not_null(reason);
  cr_assert_gt(strlen(reason), 20, "%s", reason);
  expect_unavailable("vulkan");
  expect_unavailable("vulkan:0");
  expect_unavailable("vulkan:llvmpipe");
}

Test(device, is_chosen_by_part_of_its_name) {
  lqt_device *device = vulkan_open();
  lqt_device_info info;
  lqt_device_get_info(device, &info);
  cr_assert_str_eq(info.backend, "vulkan");
  cr_assert_gt(info.memory, 0);
  vulkan_close(device);
  expect_unavailable("vulkan:no device has this name");
  expect_unavailable("vulkan:99");
  expect_unavailable("vulkan:123456789012345678901234567890");
  cr_assert_eq(lqt_device_open("vulkan:LLVMpipe", NULL, &device, NULL), LQT_OK);
  vulkan_close(device);
}

Test(device, a_processor_is_never_the_default) {
  vulkan_close(vulkan_open());
  const lqt__vk_driver *driver = lqt__vk_driver_get();
  size_t processors = 0;
  for (size_t i = 0; i < driver->count; i++) {
    processors += driver->devices[i].properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
  }
  size_t listed = lqt__vk_device_count(NULL);
  cr_assert_leq(listed, driver->count - processors);
  if (listed == 0) expect_unavailable("vulkan");
  for (size_t i = 0; i < listed; i++) {
    lqt_device_info info;
    cr_assert_eq(lqt__vk_device_describe(i, &info), LQT_OK);
    cr_assert_null(strstr(info.name, "llvmpipe"));
  }
}

Test(device, a_result_becomes_a_status_and_its_number) {
  static const struct {
    VkResult result;
    lqt_status status;
  } cases[] = {
      {VK_ERROR_OUT_OF_HOST_MEMORY, LQT_OUT_OF_MEMORY},
      {VK_ERROR_OUT_OF_DEVICE_MEMORY, LQT_DEVICE_OUT_OF_MEMORY},
      {VK_ERROR_DEVICE_LOST, LQT_DEVICE_LOST},
      {VK_ERROR_FEATURE_NOT_PRESENT, LQT_DEVICE_UNSUPPORTED},
      {VK_ERROR_INCOMPATIBLE_DRIVER, LQT_DEVICE_NOT_AVAILABLE},
      {VK_ERROR_UNKNOWN, LQT_DEVICE_FAILURE},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    lqt_diag diag = {0};
    cr_assert_eq(lqt__vk_fail(&diag, "here", cases[i].result, "the call"), cases[i].status);
    cr_assert_eq(diag.native, cases[i].result);
    cr_assert_not_null(strstr(diag.what, "the call"));
  }
}

/* Every allocation of opening, filling, running and closing fails once; nothing is left behind
 * (the leak checker of the sanitizer build looks). */
Test(device, survives_failed_allocations) {
  vulkan_close(vulkan_open());
  float data[64] = {1};
  lqt_weight_desc desc = {.size = sizeof desc,
                          .dtype = LQT_DTYPE_F32,
                          .rows = 8,
                          .cols = 8,
                          .scale = 1,
                          .data = data,
                          .row_stride = 32};
  bool passed = false;
  for (int64_t n = 0; !passed; n++) {
    cr_assert_lt(n, 100);
    lqt_device *device = NULL;
    lqt_buffer *buffer = NULL;
    lqt_weight *weight = NULL;
    lqt__alloc_fail_after(n);
    lqt_status status = lqt_device_open(vulkan_selector(), NULL, &device, NULL);
    if (status == LQT_OK) status = lqt_buffer_create(device, 256, &buffer, NULL);
    if (status == LQT_OK) status = lqt_weight_create(device, &desc, &weight, NULL);
    if (status == LQT_OK) {
      lqt_op op = {.kind = LQT_OP_DEQUANT};
      op.weight[0] = weight;
      op.out[0] = vulkan_view(buffer, 8, 8, LQT_DTYPE_F32);
      status = lqt_device_run(device, &op, 1, NULL);
    }
    cr_assert(status == LQT_OK || status == LQT_OUT_OF_MEMORY, "%s", lqt_status_name(status));
    lqt_weight_destroy(weight);
    lqt_buffer_destroy(buffer);
    lqt_device_release(device);
    /* Closing allocates too (the cache's file); a failure there is silent. */
    passed = status == LQT_OK && n > 40;
  }
  lqt__alloc_fail_after(-1);
  cr_assert_eq(lqt__vk_validation_messages(), 0);
}

static void write_cache(const char *path, const char *data, size_t bytes) {
  cr_assert_eq(lqt__file_write(path, data, bytes, NULL), LQT_OK);
}

/* Whatever stands in the cache's file, the device opens and computes. */
Test(device, never_trusts_its_cache_file) {
  char folder[] = "lqt-vulkan-cache-XXXXXX", path[256];
  cr_assert_not_null(mkdtemp(folder));
  setenv("LQT_CACHE_DIR", folder, 1);
  lqt_device *device = vulkan_open();
  const VkPhysicalDeviceProperties *p = &((lqt__vk_device *)device)->physical->properties;
  snprintf(path, sizeof path, "%s/vulkan-%08x-%08x-%08x.bin", folder, p->vendorID, p->deviceID,
           p->driverVersion);
  vulkan_close(device);
  char *good;
  size_t bytes;
  cr_assert_eq(lqt__file_read(path, 1u << 26, &good, &bytes, NULL), LQT_OK, "nothing was saved");
  cr_assert_gt(bytes, 80);

  lqt_device *first = vulkan_open(); /* a good file is taken */
  cr_assert_gt(((lqt__vk_device *)first)->pipelines.loaded, 0);
  vulkan_close(first);

  char *bad = malloc(bytes + 1000);
  for (size_t at = 0; at < bytes + 4; at += at < 112 ? 1 : bytes / 16 + 1) {
    memcpy(bad, good, bytes);
    size_t length = bytes;
    if (at < bytes) {
      bad[at] = (char)(bad[at] ^ 0x10);
    } else {
      memset(bad + bytes, 7, 1000);
      length = at % 2 == 0 ? bytes + 1000 : at % 4 == 1 ? bytes - 1 : 79;
    }
    write_cache(path, bad, length);
    device = vulkan_open();
    cr_assert_eq(((lqt__vk_device *)device)->pipelines.loaded, 0, "byte %zu was changed", at);
    lqt_device_release(device);
  }
  cr_assert_eq(lqt__vk_validation_messages(), 0);
  unlink(path);
  rmdir(folder);
  free(bad);
  lqt__free(good);
}
