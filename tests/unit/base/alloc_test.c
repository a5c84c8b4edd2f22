#include "base/alloc.h"

#include <criterion/criterion.h>
#include <string.h>

Test(alloc, the_nth_allocation_fails_once) {
  lqt__alloc_fail_after(2);
  for (int i = 0; i < 5; i++) {
    void *pointer = lqt__alloc(8);
    cr_assert_eq(pointer == NULL, i == 2, "allocation %d", i);
    lqt__free(pointer);
  }
}

Test(alloc, array_refuses_an_overflow) {
  cr_assert_null(lqt__alloc_array(SIZE_MAX / 4, 8));
  lqt__arena arena = {0};
  cr_assert_null(lqt__arena_array(&arena, SIZE_MAX / 4, 8));
  lqt__arena_free(&arena);
}

Test(alloc, align_up_refuses_an_overflow) {
  uint64_t out;
  cr_assert(lqt__align_up(1, 64, &out));
  cr_assert_eq(out, 64);
  cr_assert(lqt__align_up(64, 64, &out));
  cr_assert_eq(out, 64);
  cr_assert_not(lqt__align_up(UINT64_MAX - 1, 64, &out));
}

/* Blocks do not overlap, are zeroed and 16-byte aligned, whatever the sizes. */
Test(alloc, arena) {
  lqt__arena arena = {0};
  unsigned char *blocks[200];
  for (size_t i = 0; i < 200; i++) {
    size_t bytes = 1 + (i * 977) % 3000;
    blocks[i] = lqt__arena_alloc(&arena, bytes);
    cr_assert_not_null(blocks[i]);
    cr_assert_eq((uintptr_t)blocks[i] % 16, 0);
    for (size_t j = 0; j < bytes; j++) cr_assert_eq(blocks[i][j], 0);
    memset(blocks[i], (int)i + 1, bytes);
  }
  for (size_t i = 0; i < 200; i++) {
    size_t bytes = 1 + (i * 977) % 3000;
    for (size_t j = 0; j < bytes; j++) cr_assert_eq(blocks[i][j], (unsigned char)(i + 1));
  }
  lqt__arena_free(&arena);
  cr_assert_null(arena.blocks);
}

Test(alloc, aligned) {
  for (size_t alignment = 8; alignment <= 4096; alignment *= 2) {
    void *pointer = lqt__alloc_aligned(100, alignment);
    cr_assert_not_null(pointer);
    cr_assert_eq((uintptr_t)pointer % alignment, 0);
    lqt__free(pointer);
  }
}
