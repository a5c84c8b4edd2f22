/* Time spent by kind and label of op: the counters that every backend keeps for
 * lqt_device_profile_take. The backend says when a counter may be touched. */
#ifndef LQT_RUNTIME_DEVICE_PROFILE_H_
#define LQT_RUNTIME_DEVICE_PROFILE_H_

#include "lqt/device.h"
#include "lqt/op.h"

/* All zero: off and empty. */
typedef struct lqt__profile {
  lqt_profile_entry *entries;
  size_t count, capacity;
  bool on;
} lqt__profile;

/* Adds a call to the counter of the op's kind and label. Without memory for a new counter the time
 * is not counted: a profile must not fail a step. Threads: one-at-a-time. */
void lqt__profile_add(lqt__profile *profile, const lqt_op *op, double seconds);
/* As lqt_device_profile_take. Threads: one-at-a-time. */
size_t lqt__profile_take(lqt__profile *profile, lqt_profile_entry *out, size_t capacity);
void lqt__profile_destroy(lqt__profile *profile);

#endif /* LQT_RUNTIME_DEVICE_PROFILE_H_ */
