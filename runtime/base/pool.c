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

enum { SPINS = 4000 };

typedef struct worker {
  lqt__pool *pool;
  pthread_t thread;
  unsigned index;
} worker;

struct lqt__pool {
  _Alignas(64) _Atomic uint64_t generation; /* one more for each loop */
  _Alignas(64) _Atomic size_t next;
  _Alignas(64) _Atomic unsigned busy; /* workers that have not finished the loop */
  _Alignas(64) lqt__pool_fn fn;
  void *context;
  size_t tasks;
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

static void work(lqt__pool *pool, unsigned index) {
  for (;;) {
    size_t task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (task >= pool->tasks) return;
    pool->fn(pool->context, task, index);
  }
}

static void *worker_main(void *argument) {
  worker *self = argument;
  lqt__pool *pool = self->pool;
  uint64_t seen = 0;
  for (;;) {
    unsigned spins = 0;
    while (atomic_load_explicit(&pool->generation, memory_order_acquire) == seen) {
      if (++spins < SPINS) {
        RELAX();
        continue;
      }
      pthread_mutex_lock(&pool->mutex);
      atomic_fetch_add(&pool->sleepers, 1);
      while (atomic_load(&pool->generation) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->mutex);
    }
    seen = atomic_load_explicit(&pool->generation, memory_order_acquire);
    if (atomic_load(&pool->stop)) return NULL;
    work(pool, self->index);
    atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_release);
  }
}

static void start_loop(lqt__pool *pool) {
  atomic_fetch_add(&pool->generation, 1);
  if (atomic_load(&pool->sleepers) != 0) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
}

static void stop_workers(lqt__pool *pool, unsigned started) {
  atomic_store(&pool->stop, true);
  start_loop(pool);
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

void lqt__pool_run(lqt__pool *pool, size_t tasks, lqt__pool_fn fn, void *context) {
  if (pool == NULL || pool->threads == 1 || tasks <= 1) {
    for (size_t i = 0; i < tasks; i++) fn(context, i, 0);
    return;
  }
  pool->fn = fn;
  pool->context = context;
  pool->tasks = tasks;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->busy, pool->threads - 1, memory_order_relaxed);
  start_loop(pool);
  work(pool, 0);
  unsigned spins = 0;
  while (atomic_load_explicit(&pool->busy, memory_order_acquire) != 0) {
    if (++spins < 1u << 14)
      RELAX();
    else
      sched_yield();
  }
}
