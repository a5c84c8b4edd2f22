#include "support.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"

const char *vulkan_selector(void) {
  const char *wish = getenv("LQT_VULKAN_DEVICE");
  return wish != NULL ? wish : "vulkan:llvmpipe";
}

lqt_device *vulkan_open(void) {
  lqt_device *device = NULL;
  lqt_diag diag = {0};
  lqt_status status = lqt_device_open(vulkan_selector(), NULL, &device, &diag);
  const char *required = getenv("LQT_REQUIRE");
  if (status == LQT_DEVICE_NOT_AVAILABLE &&
      (required == NULL || strstr(required, "vulkan") == NULL)) {
    cr_skip_test("%s", diag.what);
  }
  cr_assert_eq(status, LQT_OK, "%s: %s", diag.where, diag.what);
  return device;
}

void vulkan_close(lqt_device *device) {
  lqt_device_release(device);
  cr_assert_eq(lqt__vk_validation_messages(), 0);
}

lqt_buffer *vulkan_buffer(lqt_device *device, const void *data, uint64_t bytes) {
  lqt_buffer *buffer = NULL;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_buffer_create(device, bytes, &buffer, &diag), LQT_OK, "%s", diag.what);
  if (data != NULL) {
    cr_assert_eq(lqt_buffer_write(buffer, 0, data, bytes, &diag), LQT_OK, "%s", diag.what);
  }
  return buffer;
}

lqt_view vulkan_view(lqt_buffer *buffer, uint64_t rows, uint64_t cols, lqt_dtype dtype) {
  return (lqt_view){
      .buffer = buffer, .rows = rows, .cols = cols, .row_stride = cols, .dtype = dtype};
}
