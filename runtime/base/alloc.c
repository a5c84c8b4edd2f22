#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Atomic int64_t fail_countdown = INT64_MIN; /* INT64_MIN: the environment was not read yet */
static _Atomic uint64_t allocations;
static _Thread_local uint64_t failures;

static bool should_fail(void) {
  atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
  int64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
  if (left == INT64_MIN) {
    const char *text = getenv("LQT_FAIL_ALLOC");
    int64_t wanted = text != NULL ? strtoll(text, NULL, 10) : -1;
    atomic_compare_exchange_strong(&fail_countdown, &left, wanted < 0 ? -1 : wanted);
    left = atomic_load(&fail_countdown);
  }
  if (left < 0 || atomic_fetch_sub(&fail_countdown, 1) != 0) return false;
  failures++;
  return true;
}

void lqt__alloc_fail_after(int64_t countdown) {
  atomic_store(&fail_countdown, countdown < 0 ? -1 : countdown);
}

uint64_t lqt__alloc_count(void) { return atomic_load(&allocations); }

static void *counted(void *pointer) {
  if (pointer == NULL) failures++;
  return pointer;
}

uint64_t lqt__alloc_failures(void) { return failures; }

void *lqt__alloc(size_t bytes) {
  return should_fail() ? NULL : counted(malloc(bytes != 0 ? bytes : 1));
}

void *lqt__alloc_zero(size_t bytes) {
  return should_fail() ? NULL : counted(calloc(1, bytes != 0 ? bytes : 1));
}

void *lqt__alloc_array(size_t count, size_t size) {
  if (should_fail()) return NULL;
  if (count == 0 || size == 0) return calloc(1, 1);
  return calloc(count, size);
}

void *lqt__realloc(void *pointer, size_t bytes) {
  return should_fail() ? NULL : realloc(pointer, bytes != 0 ? bytes : 1);
}

void *lqt__alloc_aligned(size_t bytes, size_t alignment) {
  if (should_fail()) return NULL;
  const size_t huge = (size_t)2 << 20;
  if (bytes >= 2 * huge && alignment < huge) alignment = huge;
  void *pointer = NULL;
  if (posix_memalign(&pointer, alignment, bytes != 0 ? bytes : 1) != 0) return NULL;
  if (alignment >= huge) madvise(pointer, bytes, MADV_HUGEPAGE);
  return pointer;
}

void lqt__free(void *pointer) { free(pointer); }

char *lqt__strndup(const char *text, size_t bytes) {
  char *copy = lqt__alloc(bytes + 1);
  if (copy == NULL) return NULL;
  memcpy(copy, text, bytes);
  copy[bytes] = '\0';
  return copy;
}

char *lqt__strdup(const char *text) { return lqt__strndup(text, strlen(text)); }

struct lqt__arena_block {
  lqt__arena_block *next;
  size_t used, capacity;
  _Alignas(16) unsigned char bytes[];
};

void *lqt__arena_alloc(lqt__arena *arena, size_t bytes) {
  if (bytes > SIZE_MAX / 2) return NULL;
  size_t need = (bytes + 15) & ~(size_t)15;
  lqt__arena_block *block = arena->blocks;
  if (block == NULL || block->capacity - block->used < need) {
    size_t capacity = need > 16384 ? need : 16384;
    block = lqt__alloc_zero(sizeof *block + capacity);
    if (block == NULL) return NULL;
    block->capacity = capacity;
    block->next = arena->blocks;
    arena->blocks = block;
  }
  void *pointer = block->bytes + block->used;
  block->used += need;
  return pointer;
}

void *lqt__arena_array(lqt__arena *arena, size_t count, size_t size) {
  uint64_t bytes;
  if (!lqt__mul(count, size, &bytes)) return NULL;
  return lqt__arena_alloc(arena, bytes);
}

char *lqt__arena_strndup(lqt__arena *arena, const char *text, size_t bytes) {
  char *copy = lqt__arena_alloc(arena, bytes + 1);
  if (copy != NULL) memcpy(copy, text, bytes);
  return copy;
}

void lqt__arena_free(lqt__arena *arena) {
  while (arena->blocks != NULL) {
    lqt__arena_block *next = arena->blocks->next;
    lqt__free(arena->blocks);
    arena->blocks = next;
  }
}
