/* Temporary edits end by themselves: a thread looks after those with a time, and the steps of the
 * attached engines count for those with a number of steps. */
#include "edit/temporary.h"

#include <errno.h>
#include <time.h>

static uint64_t now_ns(void) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return 0;
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* When the next edit is over; 0: none has a time. `lock` is held. */
static uint64_t next_end(const lqt_editor *editor) {
  uint64_t next = 0;
  for (size_t i = 0; i < editor->pending_count; i++) {
    uint64_t end = editor->pending[i].expires_ns;
    if (end != 0 && (next == 0 || end < next)) next = end;
  }
  return next;
}

static void *look_after(void *user) {
  enum { RETRY_NS = 100000000 };
  lqt_editor *editor = user;
  pthread_mutex_lock(&editor->lock);
  while (!editor->timer_stops) {
    uint64_t end = next_end(editor);
    if (end == 0) {
      pthread_cond_wait(&editor->timer_wakes, &editor->lock);
      continue;
    }
    if (end <= now_ns()) {
      pthread_mutex_unlock(&editor->lock);
      bool failed = lqt_editor_expire(editor, NULL, NULL) != LQT_OK;
      pthread_mutex_lock(&editor->lock);
      if (!failed) continue;
      end = now_ns() + RETRY_NS; /* a full disk, say */
    }
    struct timespec until = {.tv_sec = (time_t)(end / 1000000000u),
                             .tv_nsec = (long)(end % 1000000000u)};
    (void)pthread_cond_timedwait(&editor->timer_wakes, &editor->lock, &until);
  }
  pthread_mutex_unlock(&editor->lock);
  return NULL;
}

void lqt__temporary_begin(lqt_editor *editor) {
  pthread_mutex_lock(&editor->lock);
  bool steps = false;
  for (size_t i = 0; i < editor->pending_count; i++) {
    steps |= editor->pending[i].steps_left != UINT64_MAX;
  }
  atomic_store(&editor->counts_steps, steps);
  if (next_end(editor) != 0) {
    /* Without a thread lqt_editor_expire is left, which the caller may use anyway. */
    if (!editor->timer_runs) {
      editor->timer_runs = pthread_create(&editor->timer, NULL, look_after, editor) == 0;
    }
    pthread_cond_signal(&editor->timer_wakes);
  }
  pthread_mutex_unlock(&editor->lock);
}

void lqt__temporary_end(lqt_editor *editor) {
  pthread_mutex_lock(&editor->lock);
  bool runs = editor->timer_runs;
  editor->timer_stops = true;
  pthread_cond_signal(&editor->timer_wakes);
  pthread_mutex_unlock(&editor->lock);
  if (runs) pthread_join(editor->timer, NULL);
}

void lqt__temporary_before_step(void *user) {
  lqt_editor *editor = user;
  if (!atomic_load(&editor->counts_steps)) return;
  bool over = false, counts = false;
  pthread_mutex_lock(&editor->lock);
  for (size_t i = 0; i < editor->pending_count; i++) {
    lqt__pending *pending = &editor->pending[i];
    if (pending->steps_left == UINT64_MAX) continue;
    counts = true;
    if (pending->steps_left == 0) {
      over = true;
    } else {
      pending->steps_left--;
    }
  }
  atomic_store(&editor->counts_steps, counts);
  pthread_mutex_unlock(&editor->lock);
  /* What could not be taken back now is tried again before the next step. */
  if (over && lqt_editor_expire(editor, NULL, NULL) != LQT_OK) {
    atomic_store(&editor->counts_steps, true);
  }
}
