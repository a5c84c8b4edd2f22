#include "io/hook.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "io/file.h"

static _Atomic int64_t fail_countdown = INT64_MIN; /* INT64_MIN: the environment was not read yet */
static _Atomic uint64_t calls;

bool lqt__io_fails(void) {
  atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
  int64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
  if (left == INT64_MIN) {
    const char *text = getenv("LQT_FAIL_IO");
    int64_t wanted = text != NULL ? strtoll(text, NULL, 10) : -1;
    atomic_compare_exchange_strong(&fail_countdown, &left, wanted < 0 ? -1 : wanted);
    left = atomic_load(&fail_countdown);
  }
  if (left < 0 || atomic_fetch_sub(&fail_countdown, 1) != 0) return false;
  errno = ENOSPC;
  return true;
}

void lqt__io_fail_after(int64_t countdown) {
  atomic_store(&fail_countdown, countdown < 0 ? -1 : countdown);
}

uint64_t lqt__io_call_count(void) { return atomic_load(&calls); }

static lqt__io_record_fn recorder;
static void *recorder_user;

void lqt__io_record(lqt__io_record_fn record, void *user) {
  recorder = record;
  recorder_user = user;
}

void lqt__io_tell(lqt__io_event event) {
  if (recorder != NULL) recorder(recorder_user, &event);
}
