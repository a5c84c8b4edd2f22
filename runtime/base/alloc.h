/* Allocation: every allocation of the library goes through here, so that tests can fail the nth
 * one. Also checked size arithmetic and an arena. Threads: any, but an arena is its owner's. */
#ifndef LQT_RUNTIME_BASE_ALLOC_H_
#define LQT_RUNTIME_BASE_ALLOC_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* NULL when there is no memory (or the fault hook says so). Zero bytes give a unique pointer. */
void *lqt__alloc(size_t bytes);
void *lqt__alloc_zero(size_t bytes);
/* count * size, zeroed; NULL on overflow too. */
void *lqt__alloc_array(size_t count, size_t size);
void *lqt__realloc(void *pointer, size_t bytes);
/* Aligned to `alignment` (a power of two, at least 8), not zeroed; large blocks ask for huge pages.
 * Freed by lqt__free. */
void *lqt__alloc_aligned(size_t bytes, size_t alignment);
void lqt__free(void *pointer);
char *lqt__strdup(const char *text);
char *lqt__strndup(const char *text, size_t bytes);

/* Tests: the allocation after `countdown` more fails (0 = the next), once; negative = never. Counts
 * over all threads. LQT_FAIL_ALLOC=n in the environment does the same at start. */
void lqt__alloc_fail_after(int64_t countdown);
/* Allocations of this thread that failed, for code that does not report it (jansson). */
uint64_t lqt__alloc_failures(void);
/* Allocations made since the start. */
uint64_t lqt__alloc_count(void);

static inline bool lqt__mul(uint64_t a, uint64_t b, uint64_t *out) {
  return !__builtin_mul_overflow(a, b, out);
}
static inline bool lqt__add(uint64_t a, uint64_t b, uint64_t *out) {
  return !__builtin_add_overflow(a, b, out);
}
static inline uint64_t lqt__ceil_div(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }
/* `alignment` a power of two; false on overflow. */
static inline bool lqt__align_up(uint64_t value, uint64_t alignment, uint64_t *out) {
  uint64_t sum;
  if (!lqt__add(value, alignment - 1, &sum)) return false;
  *out = sum & ~(alignment - 1);
  return true;
}

typedef struct lqt__arena_block lqt__arena_block;
typedef struct lqt__arena {
  lqt__arena_block *blocks;
} lqt__arena;
/* Zeroed memory that lives until lqt__arena_free; 16-byte aligned; NULL when there is none. */
void *lqt__arena_alloc(lqt__arena *arena, size_t bytes);
void *lqt__arena_array(lqt__arena *arena, size_t count, size_t size);
char *lqt__arena_strndup(lqt__arena *arena, const char *text, size_t bytes);
void lqt__arena_free(lqt__arena *arena);

#endif /* LQT_RUNTIME_BASE_ALLOC_H_ */
