#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/alloc.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define RELAX() _mm_pause()
#else
#define RELAX() ((void)0)
#endif

enum { SPINS = 4000, MOST_TASKS = 1 << 30 };

typedef struct worker {
  lqt__pool *pool;
  pthread_t thread;
  unsigned index;
} worker;

/* A loop is over when its tasks are done, not when every worker has looked at it: a worker that the
 * system has not scheduled yet costs nothing, and one that comes late finds no task left. */
struct lqt__pool {
  _Alignas(64) _Atomic uint64_t state; /* number of the loop << 32 | tasks that nobody has taken */
  _Alignas(64) _Atomic size_t done;
  /* Of the loop that runs; steady as long as one of its tasks is not done. */
  _Alignas(64) lqt__pool_fn fn;
  void *context;
  size_t first; /* task that `tasks` left means */
  uint32_t tasks;
  _Atomic bool stop;
  _Atomic unsigned sleepers;
  unsigned threads; /* worker 0 is the caller */
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  worker *workers;
  void *scratch;
  size_t scratch_bytes;
};

unsigned lqt__core_count(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  int count = CPU_COUNT(&set);
  return count > 0 ? (unsigned)count : 1;
}

static bool has_tasks(const lqt__pool *pool) {
  return (uint32_t)atomic_load(&pool->state) != 0 || atomic_load(&pool->stop);
}

static void work(lqt__pool *pool, unsigned index) {
  uint64_t state = atomic_load_explicit(&pool->state, memory_order_relaxed);
  while ((uint32_t)state != 0) {
    /* A task taken belongs to the loop of `state`, which cannot end before the task does. */
    if (!atomic_compare_exchange_weak_explicit(&pool->state, &state, state - 1,
                                               memory_order_acquire, memory_order_relaxed)) {
      continue;
    }
    pool->fn(pool->context, pool->first + (pool->tasks - (uint32_t)state), index);
    atomic_fetch_add_explicit(&pool->done, 1, memory_order_release);
    state = atomic_load_explicit(&pool->state, memory_order_relaxed);
  }
}

static void *worker_main(void *argument) {
  worker *self = argument;
  lqt__pool *pool = self->pool;
  for (unsigned spins = 0;;) {
    if (atomic_load(&pool->stop)) return NULL;
    if (has_tasks(pool)) {
      work(pool, self->index);
      spins = 0;
    } else if (++spins < SPINS) {
      RELAX();
    } else {
      pthread_mutex_lock(&pool->mutex);
      atomic_fetch_add(&pool->sleepers, 1);
      while (!has_tasks(pool)) pthread_cond_wait(&pool->wake, &pool->mutex);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->mutex);
      spins = 0;
    }
  }
}

static void wake_sleepers(lqt__pool *pool) {
  if (atomic_load(&pool->sleepers) != 0) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
}

static void stop_workers(lqt__pool *pool, unsigned started) {
  atomic_store(&pool->stop, true);
  wake_sleepers(pool);
  for (unsigned i = 1; i < started; i++) pthread_join(pool->workers[i].thread, NULL);
  pthread_mutex_destroy(&pool->mutex);
  pthread_cond_destroy(&pool->wake);
  lqt__free(pool->scratch);
  lqt__free(pool->workers);
  lqt__free(pool);
}

lqt__pool *lqt__pool_create(unsigned threads) {
  if (threads == 0) threads = lqt__core_count();
  lqt__pool *pool = lqt__alloc_aligned(sizeof *pool, 64);
  worker *workers = lqt__alloc_array(threads, sizeof *workers);
  if (pool == NULL || workers == NULL) {
    lqt__free(pool);
    lqt__free(workers);
    return NULL;
  }
  *pool = (lqt__pool){.threads = threads, .workers = workers};
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->wake, NULL);
  for (unsigned i = 1; i < threads; i++) {
    workers[i] = (worker){.pool = pool, .index = i};
    if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0) {
      stop_workers(pool, i);
      return NULL;
    }
  }
  return pool;
}

void lqt__pool_destroy(lqt__pool *pool) {
  if (pool != NULL) stop_workers(pool, pool->threads);
}

void *lqt__pool_scratch(lqt__pool *pool, size_t bytes) {
  if (bytes <= pool->scratch_bytes) return pool->scratch;
  void *grown = lqt__alloc_aligned(bytes + bytes / 4, 64);
  if (grown == NULL) return NULL;
  lqt__free(pool->scratch);
  pool->scratch = grown;
  pool->scratch_bytes = bytes + bytes / 4;
  return grown;
}

unsigned lqt__pool_threads(const lqt__pool *pool) { return pool != NULL ? pool->threads : 1; }

static void run_some(lqt__pool *pool, size_t first, uint32_t tasks) {
  pool->first = first;
  pool->tasks = tasks;
  atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
  uint64_t number = (atomic_load_explicit(&pool->state, memory_order_relaxed) >> 32) + 1;
  atomic_store(&pool->state, number << 32 | tasks);
  wake_sleepers(pool);
  work(pool, 0);
  unsigned spins = 0;
  while (atomic_load_explicit(&pool->done, memory_order_acquire) != tasks) {
    if (++spins < 1u << 14)
      RELAX();
    else
      sched_yield();
  }
}

void lqt__pool_run(lqt__pool *pool, size_t tasks, lqt__pool_fn fn, void *context) {
  if (pool == NULL || pool->threads == 1 || tasks <= 1) {
    for (size_t i = 0; i < tasks; i++) fn(context, i, 0);
    return;
  }
  pool->fn = fn;
  pool->context = context;
  for (size_t first = 0; first < tasks;) {
    size_t left = tasks - first;
    run_some(pool, first, left < MOST_TASKS ? (uint32_t)left : MOST_TASKS);
    first += pool->tasks;
  }
}
