#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/random.h"
#include "support.h"

static void fill(uint8_t *data, uint64_t bytes, uint64_t seed) {
  for (uint64_t i = 0; i < bytes; i++) {
    data[i] = (uint8_t)((i * 2654435761u + seed * 40503u) >> 8 ^ i >> 16);
  }
}

/* Sizes around the halves of the staging ring, at odd offsets, there and back. */
static void copy_round(lqt_device *device) {
  const uint64_t half = 4u << 20;
  const uint64_t sizes[] = {1, 3, 4097, half - 1, half, half + 1, 2 * half + 5, 5 * half + 7};
  const uint64_t capacity = 6 * half;
  uint8_t *in = malloc(capacity), *out = malloc(capacity);
  lqt_buffer *buffer = vulkan_buffer(device, NULL, capacity);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    uint64_t offset = i * 13 + 1;
    fill(in, sizes[i], i);
    memset(out, 0, sizes[i]);
    cr_assert_eq(lqt_buffer_write(buffer, offset, in, sizes[i], NULL), LQT_OK);
    cr_assert_eq(lqt_buffer_read(buffer, offset, out, sizes[i], NULL), LQT_OK);
    cr_assert_eq(memcmp(in, out, sizes[i]), 0, "%llu bytes", (unsigned long long)sizes[i]);
  }
  lqt_diag diag = {0};
  cr_assert_eq(lqt_buffer_write(buffer, capacity, in, 1, &diag), LQT_OUT_OF_RANGE);
  lqt_buffer_destroy(buffer);
  free(in);
  free(out);
}

Test(memory, copies_return_what_was_written) {
  lqt_device *device = vulkan_open();
  copy_round(device);
  vulkan_close(device);
}

Test(memory, staged_copies_return_what_was_written) {
  setenv("LQT_VK_STAGING", "1", 1);
  lqt_device *device = vulkan_open();
  cr_assert_not(((lqt__vk_device *)device)->memory.direct);
  copy_round(device);
  vulkan_close(device);
}

/* Buffers come and go in random order; none touches another, and all memory comes back. */
Test(memory, ranges_do_not_overlap) {
  enum { LIVE = 40, ROUNDS = 1500 };
  lqt_device *device = vulkan_open();
  lqt__random random;
  random = lqt__random_seed(20);
  lqt_buffer *buffers[LIVE] = {NULL};
  uint64_t sizes[LIVE] = {0};
  uint8_t want[4096], have[4096];
  for (int round = 0; round < ROUNDS; round++) {
    uint32_t at = lqt__random_below(&random, LIVE);
    if (buffers[at] != NULL) {
      uint64_t n = sizes[at] < sizeof have ? sizes[at] : sizeof have;
      fill(want, n, at);
      cr_assert_eq(lqt_buffer_read(buffers[at], sizes[at] - n, have, n, NULL), LQT_OK);
      cr_assert_eq(memcmp(want, have, n), 0, "round %d", round);
      lqt_buffer_destroy(buffers[at]);
      buffers[at] = NULL;
      continue;
    }
    sizes[at] = lqt__random_below(&random, 10) == 0 ? 40000000 + lqt__random_below(&random, 999)
                                                    : 1 + lqt__random_below(&random, 300000);
    uint64_t n = sizes[at] < sizeof want ? sizes[at] : sizeof want;
    fill(want, n, at);
    buffers[at] = vulkan_buffer(device, NULL, sizes[at]);
    cr_assert_eq(lqt_buffer_write(buffers[at], sizes[at] - n, want, n, NULL), LQT_OK);
  }
  for (int i = 0; i < LIVE; i++) lqt_buffer_destroy(buffers[i]);
  cr_assert_null(((lqt__vk_device *)device)->memory.blocks, "memory was not given back");
  vulkan_close(device);
}

Test(memory, too_much_is_a_status) {
  lqt_device *device = vulkan_open();
  lqt_buffer *buffer = (lqt_buffer *)1;
  const uint64_t sizes[] = {INT64_MAX, 1ull << 50, 1ull << 42};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    lqt_diag diag = {0};
    cr_assert_eq(lqt_buffer_create(device, sizes[i], &buffer, &diag), LQT_DEVICE_OUT_OF_MEMORY,
                 "%s", diag.what);
    cr_assert_null(buffer);
    cr_assert_gt(strlen(diag.what), 10);
  }
  copy_round(device); /* and the device works on */
  vulkan_close(device);
}
