/* Committing a draft: staged on every engine, durable, visible; or nothing of it. */
#include <string.h>
#include <time.h>

#include "base/diag.h"
#include "edit/editor.h"
#include "edit/temporary.h"

static const char *const where = "editor";

static uint64_t clock_ns(clockid_t clock) {
  struct timespec now;
  if (clock_gettime(clock, &now) != 0) return 0;
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

lqt_status lqt__commit_options_check(const lqt_commit_options *options, lqt_diag *diag) {
  if (options == NULL || options->size == sizeof *options) return LQT_OK;
  return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                   "lqt_commit_options.size is %u, not %zu: set it to sizeof", options->size,
                   sizeof *options);
}

lqt__revision *lqt__editor_find(const lqt_editor *editor, uint64_t revision) {
  if (revision <= editor->first || revision - editor->first > editor->history_count) return NULL;
  return &editor->history[revision - editor->first - 1];
}

uint64_t lqt__editor_same_as(const lqt_editor *editor, uint64_t revision) {
  const lqt__revision *found = lqt__editor_find(editor, revision);
  return found != NULL ? found->same_as : revision;
}

static bool reserve(lqt_editor *editor) {
  if (editor->history_count == editor->history_capacity) {
    size_t capacity = editor->history_capacity * 2 + 16;
    lqt__revision *history = lqt__realloc(editor->history, capacity * sizeof *history);
    if (history == NULL) return false;
    editor->history = history;
    editor->history_capacity = capacity;
  }
  if (editor->pending_count == editor->pending_capacity) {
    size_t capacity = editor->pending_capacity * 2 + 8;
    pthread_mutex_lock(&editor->lock);
    lqt__pending *pending = lqt__realloc(editor->pending, capacity * sizeof *pending);
    if (pending != NULL) {
      editor->pending = pending;
      editor->pending_capacity = capacity;
    }
    pthread_mutex_unlock(&editor->lock);
    if (pending == NULL) return false;
  }
  return true;
}

/* The revision whose bytes the new one has. */
static uint64_t find_same(const lqt_editor *editor, const lqt__journal_entry *entry) {
  if ((entry->flags & LQT__ENTRY_ROLLBACK) != 0) {
    return lqt__editor_same_as(editor, entry->reference);
  }
  /* Taking the newest edit back brings back what was before it. */
  bool newest = (entry->flags & LQT__ENTRY_EXPIRED) != 0 &&
                lqt__editor_same_as(editor, entry->revision - 1) == entry->reference;
  return newest ? lqt__editor_same_as(editor, entry->reference - 1) : entry->revision;
}

/* Takes a temporary edit off the list of those that will expire. */
static void forget_pending(lqt_editor *editor, uint64_t revision) {
  for (size_t i = 0; i < editor->pending_count; i++) {
    if (editor->pending[i].revision != revision) continue;
    memmove(&editor->pending[i], &editor->pending[i + 1],
            (editor->pending_count - i - 1) * sizeof *editor->pending);
    editor->pending_count--;
    return;
  }
}

/* After `reserve`: cannot fail. `lock` is held. */
static void remember(lqt_editor *editor, lqt__journal_entry *entry) {
  editor->history[editor->history_count] =
      (lqt__revision){.entry = *entry, .same_as = find_same(editor, entry)};
  editor->history_count++;
  editor->revision = entry->revision;
  if ((entry->flags & LQT__ENTRY_TEMPORARY) != 0) {
    editor->pending[editor->pending_count++] =
        (lqt__pending){.revision = entry->revision,
                       .expires_ns = entry->expires_ns,
                       .steps_left = entry->expires_steps != 0 ? entry->expires_steps : UINT64_MAX};
  }
  if ((entry->flags & LQT__ENTRY_EXPIRED) != 0) forget_pending(editor, entry->reference);
  if ((entry->flags & LQT__ENTRY_ROLLBACK) != 0) {
    /* What was committed after the revision that is back has no effect left to take back. */
    for (size_t i = editor->pending_count; i-- > 0;) {
      uint64_t revision = editor->pending[i].revision;
      if (revision > entry->reference) forget_pending(editor, revision);
    }
  }
  *entry = (lqt__journal_entry){0};
}

lqt_status lqt__editor_remember(lqt_editor *editor, lqt__journal_entry *entry, lqt_diag *diag) {
  if (!reserve(editor)) return lqt__fail_memory(diag, where, 0, "the history");
  pthread_mutex_lock(&editor->lock);
  remember(editor, entry);
  pthread_mutex_unlock(&editor->lock);
  return LQT_OK;
}

/* What the options say, and who and when. */
static lqt_status fill_entry(const lqt_editor *editor, lqt__draft *draft, lqt__journal_entry *entry,
                             const lqt_commit_options *options, lqt_diag *diag) {
  entry->revision = editor->revision + 1;
  entry->timestamp_ns = clock_ns(CLOCK_REALTIME);
  entry->changes = draft->changes;
  entry->change_count = draft->change_count;
  if (options == NULL) return LQT_OK;
  entry->user = options->user;
  if (options->expires_ms != 0 || options->expires_steps != 0) {
    entry->flags |= LQT__ENTRY_TEMPORARY;
    entry->expires_steps = options->expires_steps;
    if (options->expires_ms != 0) {
      uint64_t most = (UINT64_MAX - entry->timestamp_ns) / 1000000u;
      uint64_t ms = options->expires_ms < most ? options->expires_ms : most;
      entry->expires_ns = entry->timestamp_ns + ms * 1000000u;
    }
  }
  if (options->actor != NULL) entry->actor = lqt__strdup(options->actor);
  if (options->reason != NULL) entry->reason = lqt__strdup(options->reason);
  if ((options->actor != NULL && entry->actor == NULL) ||
      (options->reason != NULL && entry->reason == NULL)) {
    return lqt__fail_memory(diag, where, 0, "an entry");
  }
  return LQT_OK;
}

static void tell(lqt_editor *editor, lqt_event_kind kind, const lqt__journal_entry *entry,
                 uint64_t began) {
  pthread_mutex_lock(&editor->lock);
  lqt_event_fn fn = editor->event;
  void *user = editor->event_user;
  pthread_mutex_unlock(&editor->lock);
  if (fn == NULL) return;
  lqt_event event = {.kind = kind, .revision = entry->revision, .reference = entry->reference};
  if (began != 0) event.seconds = (double)(clock_ns(CLOCK_MONOTONIC) - began) * 1e-9;
  fn(user, &event);
}

/* From here on the edit is a fact: nothing but a lost device can come between. */
static lqt_status make_visible(lqt_editor *editor, lqt__draft *draft, lqt__broadcast *broadcast,
                               lqt__journal_entry *entry, lqt_diag *diag) {
  uint64_t began = clock_ns(CLOCK_MONOTONIC), revision = entry->revision;
  tell(editor, LQT_EVENT_COMMITTED, entry, 0);
  lqt__editor_enter_gates(editor);
  lqt_status status = lqt__broadcast_flip(broadcast, revision, diag);
  pthread_mutex_lock(&editor->lock);
  lqt__overlay *was = editor->state;
  editor->state = draft->work;
  lqt__journal_entry told = {
      .revision = revision, .flags = entry->flags, .reference = entry->reference};
  remember(editor, entry);
  pthread_mutex_unlock(&editor->lock);
  lqt__editor_leave_gates(editor);
  draft->work = NULL;
  draft->changes = NULL;
  draft->change_count = draft->change_capacity = 0;
  lqt__overlay_release(was);
  tell(editor, LQT_EVENT_VISIBLE, &told, began);
  if ((told.flags & (LQT__ENTRY_ROLLBACK | LQT__ENTRY_EXPIRED)) != 0) {
    tell(editor, LQT_EVENT_ROLLED_BACK, &told, began);
  }
  return status;
}

/* Every engine first: what cannot be staged is not committed. */
static lqt_status stage(lqt_editor *editor, lqt__draft *draft, uint64_t undone, lqt__broadcast *out,
                        lqt_diag *diag) {
  if (!reserve(editor)) return lqt__fail_memory(diag, where, 0, "the history");
  return lqt__broadcast_stage(editor->engines, editor->engine_count, editor->state, draft->work,
                              draft->changes, draft->change_count, undone, out, diag);
}

static lqt_status append(lqt_editor *editor, const lqt__journal_entry *entry, bool group,
                         lqt_diag *diag) {
  if (editor->journal_path == NULL) return LQT_OK;
  if (editor->journal_mode != LQT_JOURNAL_WRITE) {
    return lqt__fail(diag, LQT_PERMISSION_DENIED, editor->journal_path,
                     "the journal was opened for reading");
  }
  LQT__TRY(lqt__editor_begin_journal(editor, diag));
  /* A file's module is logged by reference where it is the only thing to be done again. */
  for (size_t i = 0; entry->operation_count != 1 && i < entry->change_count; i++) {
    entry->changes[i].by_reference = false;
  }
  return lqt__journal_append(editor->journal, entry,
                             group ? LQT__DURABILITY_GROUP : LQT__DURABILITY_SYNCED, NULL, diag);
}

lqt_status lqt__editor_commit(lqt_editor *editor, lqt__draft *draft, lqt__journal_entry *entry,
                              const lqt_commit_options *options, uint64_t undone,
                              uint64_t *out_revision, lqt_diag *diag) {
  lqt__broadcast broadcast = {0};
  lqt_status status = fill_entry(editor, draft, entry, options, diag);
  if (status == LQT_OK) status = stage(editor, draft, undone, &broadcast, diag);
  if (status == LQT_OK) {
    status = append(editor, entry, options != NULL && options->group_sync, diag);
  }
  uint64_t revision = entry->revision;
  if (status == LQT_OK) {
    bool temporary = (entry->flags & LQT__ENTRY_TEMPORARY) != 0;
    status = make_visible(editor, draft, &broadcast, entry, diag);
    if (temporary) lqt__temporary_begin(editor);
    if (out_revision != NULL) *out_revision = revision;
  }
  lqt__broadcast_free(&broadcast);
  /* The changes are the draft's until they are in the history. */
  entry->changes = NULL;
  entry->change_count = 0;
  lqt__entry_free(entry);
  return status;
}

lqt_status lqt__editor_install(lqt_editor *editor, lqt__draft *draft, lqt__journal_entry *entry,
                               uint64_t undone, lqt_diag *diag) {
  lqt__broadcast broadcast = {0};
  lqt_status status = stage(editor, draft, undone, &broadcast, diag);
  if (status == LQT_OK) {
    entry->changes = draft->changes;
    entry->change_count = draft->change_count;
    status = make_visible(editor, draft, &broadcast, entry, diag);
  }
  lqt__broadcast_free(&broadcast);
  return status;
}
