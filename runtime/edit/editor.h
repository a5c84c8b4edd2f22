/* The editor behind lqt_editor.
 *
 * Two locks. `turn` is the writer's: whoever commits, rolls back, attaches or detaches holds it.
 * `lock` guards the pointers that readers take a copy of, and is held for moments only. An overlay
 * that is the state is never written to: a commit puts another in its place. */
#ifndef LQT_RUNTIME_EDIT_EDITOR_H_
#define LQT_RUNTIME_EDIT_EDITOR_H_

#include <pthread.h>
#include <stdatomic.h>

#include "edit/broadcast.h"
#include "edit/draft.h"
#include "edit/journal.h"
#include "edit/rules.h"
#include "lqt/edit.h"

/* A revision as committed. `same_as` is the oldest revision with the same bytes. */
typedef struct lqt__revision {
  lqt__journal_entry entry; /* with both sides of every change */
  uint64_t same_as;
} lqt__revision;

/* A temporary edit that has not been taken back. */
typedef struct lqt__pending {
  uint64_t revision, expires_ns;
  uint64_t steps_left; /* UINT64_MAX: it does not count steps */
} lqt__pending;

struct lqt_editor {
  lqt_model *model;
  lqt__rules rules;
  pthread_mutex_t turn, lock;
  /* Guarded by `lock`; written while holding `turn` too. */
  lqt__overlay *state;
  uint64_t revision;
  lqt_transaction *open; /* list */
  lqt__pending *pending;
  size_t pending_count, pending_capacity;
  lqt_event_fn event;
  void *event_user;
  pthread_t timer; /* of temporary edits */
  pthread_cond_t timer_wakes;
  bool timer_runs, timer_stops;
  _Atomic bool counts_steps; /* some pending edit does */
  /* Guarded by `turn`. history[i] is revision first + i + 1. */
  lqt__revision *history;
  size_t history_count, history_capacity;
  uint64_t first;       /* the revision that the model's file has */
  lqt_engine **engines; /* attached */
  lqt__gate **gates;    /* theirs, each once, in the order of their addresses */
  size_t engine_count, gate_count, engine_capacity;
  lqt_model *base;       /* the file that the journal belongs to: `model` until it is compacted */
  char *journal_path;    /* NULL: no journal was opened */
  lqt__journal *journal; /* NULL: there is none yet (readers) */
  lqt_journal_mode journal_mode;
  const lqt_key *sign;
  lqt__journal_policy policy;
  uint8_t (*policy_keys)[32];
};

struct lqt_transaction {
  lqt_editor *editor;
  pthread_t owner;
  lqt__draft draft;
  uint64_t revision; /* that it began at */
  lqt__operation *operations;
  size_t count, capacity;
  bool partial, broken;
  lqt_transaction *next; /* open ones */
};

/* The state now; lqt__overlay_release. Threads: any. */
lqt__overlay *lqt__editor_state(const lqt_editor *editor, uint64_t *out_revision);

/* Makes the draft the next revision. Takes entry->operations over, and entry's flags and reference;
 * the rest of it is filled in. `undone` as in lqt__broadcast_stage. The caller holds `turn`. The
 * draft's changes are taken over on success. */
LQT_NODISCARD lqt_status lqt__editor_commit(lqt_editor *editor, lqt__draft *draft,
                                            lqt__journal_entry *entry,
                                            const lqt_commit_options *options, uint64_t undone,
                                            uint64_t *out_revision, lqt_diag *diag);
/* Makes the journal of an editor that may write one, unless it is open. Holds `turn`. */
LQT_NODISCARD lqt_status lqt__editor_begin_journal(lqt_editor *editor, lqt_diag *diag);
/* The same as lqt__editor_commit for an entry that the journal has already: staged, made visible,
 * remembered. */
LQT_NODISCARD lqt_status lqt__editor_install(lqt_editor *editor, lqt__draft *draft,
                                             lqt__journal_entry *entry, uint64_t undone,
                                             lqt_diag *diag);
/* Takes all temporary edits back: as new revisions (`commit`), or for this editor alone. The caller
 * holds `turn`. */
LQT_NODISCARD lqt_status lqt__editor_drop_pending(lqt_editor *editor, bool commit,
                                                  size_t *out_reverted, lqt_diag *diag);
/* Appends a revision to the history without engines or journal (replay). Takes entry over. */
LQT_NODISCARD lqt_status lqt__editor_remember(lqt_editor *editor, lqt__journal_entry *entry,
                                              lqt_diag *diag);
/* Where a revision stands in the history. Holds `turn`. */
lqt__revision *lqt__editor_find(const lqt_editor *editor, uint64_t revision);
/* The oldest revision with the bytes of this one. Holds `turn`. */
uint64_t lqt__editor_same_as(const lqt_editor *editor, uint64_t revision);

void lqt__editor_enter_gates(const lqt_editor *editor);
void lqt__editor_leave_gates(const lqt_editor *editor);
LQT_NODISCARD lqt_status lqt__commit_options_check(const lqt_commit_options *options,
                                                   lqt_diag *diag);

#endif /* LQT_RUNTIME_EDIT_EDITOR_H_ */
