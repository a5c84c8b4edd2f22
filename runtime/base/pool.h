/* A thread pool for data-parallel loops. The caller's thread is worker 0. Workers spin briefly for
 * the next loop before they sleep, so that short loops in a row cost little. */
#ifndef LQT_RUNTIME_BASE_POOL_H_
#define LQT_RUNTIME_BASE_POOL_H_

#include <stddef.h>
#include <stdint.h>

#include "lqt/status.h"

typedef struct lqt__pool lqt__pool;
/* `task` runs 0..tasks-1 once each, on any worker. */
typedef void (*lqt__pool_fn)(void *context, size_t task, unsigned worker);

/* Cores that this process may run on. */
unsigned lqt__core_count(void);
/* threads 0 = lqt__core_count(). NULL: no memory or no thread. */
lqt__pool *lqt__pool_create(unsigned threads);
void lqt__pool_destroy(lqt__pool *pool); /* NULL accepted */
unsigned lqt__pool_threads(const lqt__pool *pool);
/* Runs a loop to its end. One caller at a time per pool; no nesting. `pool` NULL runs it inline. */
void lqt__pool_run(lqt__pool *pool, size_t tasks, lqt__pool_fn fn, void *context);
/* Memory of at least `bytes` bytes that belongs to the pool, 64-byte aligned, contents undefined;
 * the next call may move it. Grows, never shrinks. NULL: no memory. One caller at a time. */
void *lqt__pool_scratch(lqt__pool *pool, size_t bytes);

#endif /* LQT_RUNTIME_BASE_POOL_H_ */
