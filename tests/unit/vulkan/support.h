/* The device that the tests of the Vulkan backend use. */
#ifndef LQT_TESTS_UNIT_VULKAN_SUPPORT_H_
#define LQT_TESTS_UNIT_VULKAN_SUPPORT_H_

#include "lqt/backend.h"

/* LQT_VULKAN_DEVICE, or llvmpipe. */
const char *vulkan_selector(void);
/* Opens it. Without one the test is skipped, saying why; with LQT_REQUIRE=vulkan it fails. */
lqt_device *vulkan_open(void);
/* Closes it; the validation layer must have said nothing. */
void vulkan_close(lqt_device *device);

lqt_buffer *vulkan_buffer(lqt_device *device, const void *data, uint64_t bytes);
lqt_view vulkan_view(lqt_buffer *buffer, uint64_t rows, uint64_t cols, lqt_dtype dtype);

#endif /* LQT_TESTS_UNIT_VULKAN_SUPPORT_H_ */
