/* The thread pool under load: every task of every loop runs exactly once, on a worker number below
 * the pool's size, and what a loop wrote is visible after it. Runs under the thread sanitizer. */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/pool.h"

enum { MAX_TASKS = 300 };

typedef struct loop {
  unsigned threads;
  unsigned char runs[MAX_TASKS]; /* plain memory: a second run would be a race */
  uint32_t values[MAX_TASKS];
  const uint32_t *before; /* what the last loop wrote */
  _Atomic unsigned bad_worker;
} loop;

static void task(void *context, size_t index, unsigned worker) {
  loop *self = context;
  if (worker >= self->threads) atomic_fetch_add(&self->bad_worker, 1);
  self->runs[index]++;
  self->values[index] = self->before[index] * 3u + (uint32_t)index;
}

static int run_pool(unsigned threads, unsigned loops) {
  lqt__pool *pool = lqt__pool_create(threads);
  if (pool == NULL) {
    fprintf(stderr, "no pool of %u threads\n", threads);
    return 1;
  }
  uint32_t expected[MAX_TASKS] = {0}, last[MAX_TASKS] = {0};
  int bad = 0;
  for (unsigned i = 0; i < loops && bad == 0; i++) {
    size_t tasks = (i * 37u) % (MAX_TASKS + 1);
    loop self = {.threads = threads, .before = last};
    lqt__pool_run(pool, tasks, task, &self);
    for (size_t t = 0; t < tasks; t++) {
      expected[t] = expected[t] * 3u + (uint32_t)t;
      if (self.runs[t] != 1 || self.values[t] != expected[t]) bad++;
    }
    for (size_t t = tasks; t < MAX_TASKS; t++) bad += self.runs[t] != 0;
    bad += atomic_load(&self.bad_worker) != 0;
    memcpy(last, self.values, tasks * sizeof last[0]);
    /* Now and then long enough for the workers to fall asleep. */
    if (i % 50 == 49) {
      struct timespec pause = {.tv_nsec = 3000000};
      nanosleep(&pause, NULL);
    }
  }
  lqt__pool_destroy(pool);
  if (bad != 0) fprintf(stderr, "%u threads: %d tasks ran wrongly\n", threads, bad);
  return bad != 0;
}

int main(void) {
  static const unsigned sizes[] = {1, 2, 3, 4, 8, 17};
  int bad = 0;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) bad += run_pool(sizes[i], 600);
  /* Pools that come and go, busy or never used. */
  for (unsigned i = 0; i < 100; i++) bad += run_pool(1 + i % 6, i % 4);
  return bad != 0;
}
