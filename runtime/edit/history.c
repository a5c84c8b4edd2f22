/* Going back: undo, rollback to any revision, temporary edits that are over. Each is a new
 * revision, made of the changes in between turned round. */
#include <time.h>

#include "base/diag.h"
#include "edit/editor.h"

static const char *const where = "editor";

/* Applies a change, turned round, to a draft and keeps it there. */
static lqt_status turn_round(lqt__draft *draft, const lqt__change *change, lqt_diag *diag) {
  if (draft->change_count == draft->change_capacity) {
    size_t capacity = draft->change_capacity * 2 + 8;
    lqt__change *changes = lqt__realloc(draft->changes, capacity * sizeof *changes);
    if (changes == NULL) {
      return lqt__fail_memory(diag, where, capacity * sizeof *changes, "an edit");
    }
    draft->changes = changes;
    draft->change_capacity = capacity;
  }
  lqt__change back;
  LQT__TRY(lqt__change_copy(change, &back, diag));
  lqt__change_invert(&back);
  back.by_reference = false;
  lqt_status status = lqt__overlay_apply(draft->work, &back, diag);
  if (status != LQT_OK) {
    lqt__change_free(&back);
    return status;
  }
  if (back.kind != LQT__CHANGE_BYTES) draft->structural = true;
  draft->changes[draft->change_count++] = back;
  return LQT_OK;
}

/* Does a revision still have a say? Not a temporary edit that was taken back, nor the taking back.
 */
static bool stands(const lqt_editor *editor, const lqt__journal_entry *entry) {
  if ((entry->flags & LQT__ENTRY_EXPIRED) != 0) return false;
  bool pending = (entry->flags & LQT__ENTRY_TEMPORARY) == 0;
  for (size_t i = 0; i < editor->pending_count && !pending; i++) {
    pending = editor->pending[i].revision == entry->revision;
  }
  return pending;
}

static bool entry_touches(const lqt__journal_entry *entry, const lqt__change *change) {
  for (size_t k = 0; k < entry->change_count; k++) {
    if (lqt__change_overlaps(change, &entry->changes[k])) return true;
  }
  return false;
}

/* Do revisions after `revision` that stand (`but` aside) touch it? Stretches that came back to
 * where they began are passed over. */
static bool is_touched(const lqt_editor *editor, const lqt__change *change, uint64_t revision,
                       uint64_t but) {
  for (uint64_t r = editor->revision; r > revision;) {
    const lqt__revision *later = lqt__editor_find(editor, r);
    if (later->same_as < r) {
      r = later->same_as;
      continue;
    }
    if (r != but && stands(editor, &later->entry) && entry_touches(&later->entry, change)) {
      return true;
    }
    r--;
  }
  return false;
}

/* Turns a whole revision round, except for what later revisions have touched. Its structure goes as
 * a whole or stays: half of it would not hold together. */
static lqt_status revert_revision(const lqt_editor *editor, lqt__draft *draft, uint64_t revision,
                                  bool structure, lqt_diag *diag) {
  const lqt__journal_entry *entry = &lqt__editor_find(editor, revision)->entry;
  for (size_t i = 0; i < entry->change_count && structure; i++) {
    const lqt__change *change = &entry->changes[i];
    structure = change->kind == LQT__CHANGE_BYTES || !is_touched(editor, change, revision, 0);
  }
  for (size_t i = entry->change_count; i-- > 0;) {
    const lqt__change *change = &entry->changes[i];
    bool goes =
        change->kind != LQT__CHANGE_BYTES ? structure : !is_touched(editor, change, revision, 0);
    if (goes) LQT__TRY(turn_round(draft, change, diag));
  }
  return LQT_OK;
}

static bool was_taken_back_since(const lqt_editor *editor, uint64_t temporary, uint64_t since) {
  for (uint64_t r = since + 1; r <= editor->revision; r++) {
    const lqt__journal_entry *entry = &lqt__editor_find(editor, r)->entry;
    if ((entry->flags & LQT__ENTRY_EXPIRED) != 0 && entry->reference == temporary) return true;
  }
  return false;
}

/* Earlier temporary edits that were over while `revision` was upon them left to it what it touched:
 * that goes with it. */
static lqt_status revert_covered(const lqt_editor *editor, lqt__draft *draft, uint64_t revision,
                                 lqt_diag *diag) {
  const lqt__journal_entry *entry = &lqt__editor_find(editor, revision)->entry;
  for (uint64_t r = revision - 1; r > editor->first; r--) {
    const lqt__journal_entry *earlier = &lqt__editor_find(editor, r)->entry;
    bool covered = (earlier->flags & LQT__ENTRY_TEMPORARY) != 0 && !stands(editor, earlier) &&
                   was_taken_back_since(editor, r, revision);
    for (size_t i = earlier->change_count; covered && i-- > 0;) {
      const lqt__change *change = &earlier->changes[i];
      if (!entry_touches(entry, change) || is_touched(editor, change, r, revision)) continue;
      LQT__TRY(turn_round(draft, change, diag));
    }
  }
  return LQT_OK;
}

/* A draft of the state without a temporary revision. What cannot be taken out of the model's
 * structure any more stays in it: that must not keep anybody from the rest. */
static lqt_status draft_without(const lqt_editor *editor, uint64_t revision, lqt__draft *draft,
                                lqt_diag *diag) {
  lqt_status status = LQT_OK;
  for (int structure = 1; structure >= 0; structure--) {
    LQT__TRY(lqt__draft_begin(draft, editor->state, &editor->rules, diag));
    status = revert_revision(editor, draft, revision, structure != 0, diag);
    if (status == LQT_OK && structure) status = revert_covered(editor, draft, revision, diag);
    if (status == LQT_OK) status = lqt__overlay_settle(draft->work, diag);
    if (status == LQT_OK) return LQT_OK;
    lqt__draft_free(draft);
    if (status == LQT_OUT_OF_MEMORY) break;
  }
  return status;
}

/* The state of an earlier revision: the changes since, turned round one after the other. Stretches
 * that came back to where they began are passed over. */
static lqt_status walk_back(const lqt_editor *editor, uint64_t revision, lqt__overlay **out,
                            lqt_diag *diag) {
  lqt__overlay *work = lqt__overlay_clone(editor->state);
  *out = NULL;
  if (work == NULL) return lqt__fail_memory(diag, where, 0, "an earlier state");
  lqt_status status = LQT_OK;
  for (uint64_t r = editor->revision; r > revision && status == LQT_OK;) {
    const lqt__revision *step = lqt__editor_find(editor, r);
    if (step->same_as < r && step->same_as >= revision) {
      r = step->same_as;
      continue;
    }
    for (size_t i = step->entry.change_count; i-- > 0 && status == LQT_OK;) {
      lqt__change back = step->entry.changes[i]; /* its bytes stay the entry's */
      lqt__change_invert(&back);
      status = lqt__overlay_apply(work, &back, diag);
    }
    r--;
  }
  if (status == LQT_OK) status = lqt__overlay_settle(work, diag);
  if (status == LQT_OK) {
    *out = work;
  } else {
    lqt__overlay_release(work);
  }
  return status;
}

/* The caller holds `turn`. */
static lqt_status go_back(lqt_editor *editor, uint64_t revision, const lqt_commit_options *options,
                          uint64_t *out_revision, lqt_diag *diag) {
  if (revision < editor->first || revision > editor->revision) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, where, "revisions %llu to %llu are there; %llu is not",
                     (unsigned long long)editor->first, (unsigned long long)editor->revision,
                     (unsigned long long)revision);
  }
  lqt__draft draft;
  lqt__overlay *target;
  LQT__TRY(walk_back(editor, revision, &target, diag));
  lqt_status status = lqt__draft_begin(&draft, editor->state, &editor->rules, diag);
  if (status == LQT_OK) status = lqt__draft_become(&draft, target, diag);
  lqt__overlay_release(target);
  if (status == LQT_OK) {
    lqt__journal_entry entry = {.flags = LQT__ENTRY_ROLLBACK, .reference = revision};
    bool last = revision + 1 == editor->revision;
    status = lqt__editor_commit(editor, &draft, &entry, options, last ? editor->revision : 0,
                                out_revision, diag);
  }
  lqt__draft_free(&draft);
  return status;
}

lqt_status lqt_editor_rollback(lqt_editor *editor, uint64_t revision,
                               const lqt_commit_options *options, uint64_t *out_revision,
                               lqt_diag *diag) {
  if (out_revision != NULL) *out_revision = 0;
  LQT__TRY(lqt__commit_options_check(options, diag));
  pthread_mutex_lock(&editor->turn);
  lqt_status status = go_back(editor, revision, options, out_revision, diag);
  pthread_mutex_unlock(&editor->turn);
  return status;
}

/* What the newest edit that stands would leave when it is taken back: the bytes before the oldest
 * revision with the bytes of now. */
static lqt_status find_undone(const lqt_editor *editor, size_t count, uint64_t *out,
                              lqt_diag *diag) {
  uint64_t revision = lqt__editor_same_as(editor, editor->revision);
  for (size_t i = 0; i < count; i++) {
    if (revision == editor->first) {
      return lqt__fail(diag, LQT_NOT_FOUND, where, "there %s to take back",
                       i == 0 ? "is no edit" : "are not so many edits");
    }
    if ((lqt__editor_find(editor, revision)->entry.flags & LQT__ENTRY_EXPIRED) != 0) {
      return lqt__fail(diag, LQT_CONFLICT, where,
                       "revision %llu took a temporary edit back, which undo would bring again: "
                       "roll back to a revision instead",
                       (unsigned long long)revision);
    }
    revision = lqt__editor_same_as(editor, revision - 1);
  }
  *out = revision;
  return LQT_OK;
}

lqt_status lqt_edit_undo_many(lqt_editor *editor, size_t count, const lqt_commit_options *options,
                              uint64_t *out_revision, lqt_diag *diag) {
  if (out_revision != NULL) *out_revision = 0;
  LQT__TRY(lqt__commit_options_check(options, diag));
  uint64_t revision = 0;
  pthread_mutex_lock(&editor->turn);
  lqt_status status = find_undone(editor, count, &revision, diag);
  if (status == LQT_OK) status = go_back(editor, revision, options, out_revision, diag);
  pthread_mutex_unlock(&editor->turn);
  return status;
}

lqt_status lqt_edit_undo(lqt_editor *editor, uint64_t *out_revision, lqt_diag *diag) {
  return lqt_edit_undo_many(editor, 1, NULL, out_revision, diag);
}

/* ---- Temporary edits ---- */

/* The first pending edit that is over; 0: none. */
static uint64_t find_over(lqt_editor *editor) {
  struct timespec now;
  uint64_t ns = clock_gettime(CLOCK_REALTIME, &now) == 0
                    ? (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec
                    : 0;
  uint64_t revision = 0;
  pthread_mutex_lock(&editor->lock);
  for (size_t i = 0; i < editor->pending_count && revision == 0; i++) {
    const lqt__pending *pending = &editor->pending[i];
    bool over = (pending->expires_ns != 0 && pending->expires_ns <= ns) || pending->steps_left == 0;
    if (over) revision = pending->revision;
  }
  pthread_mutex_unlock(&editor->lock);
  return revision;
}

/* The caller holds `turn`. */
static lqt_status expire(lqt_editor *editor, uint64_t revision, lqt_diag *diag) {
  lqt__draft draft;
  LQT__TRY(draft_without(editor, revision, &draft, diag));
  lqt__journal_entry entry = {.flags = LQT__ENTRY_EXPIRED, .reference = revision};
  lqt_status status = lqt__editor_commit(editor, &draft, &entry, NULL,
                                         revision == editor->revision ? revision : 0, NULL, diag);
  lqt__draft_free(&draft);
  return status;
}

/* Takes a revision back without making one: the state of this editor alone. */
static lqt_status leave_out(lqt_editor *editor, uint64_t revision, lqt_diag *diag) {
  lqt__draft draft;
  LQT__TRY(draft_without(editor, revision, &draft, diag));
  pthread_mutex_lock(&editor->lock);
  lqt__overlay *was = editor->state;
  editor->state = draft.work;
  editor->pending_count--;
  pthread_mutex_unlock(&editor->lock);
  draft.work = was;
  lqt__draft_free(&draft);
  return LQT_OK;
}

lqt_status lqt__editor_drop_pending(lqt_editor *editor, bool commit, size_t *out_reverted,
                                    lqt_diag *diag) {
  while (editor->pending_count != 0) {
    uint64_t revision = editor->pending[editor->pending_count - 1].revision;
    LQT__TRY(commit ? expire(editor, revision, diag) : leave_out(editor, revision, diag));
    ++*out_reverted;
  }
  return LQT_OK;
}

lqt_status lqt_editor_expire(lqt_editor *editor, size_t *out_reverted, lqt_diag *diag) {
  size_t reverted = 0;
  lqt_status status = LQT_OK;
  pthread_mutex_lock(&editor->turn);
  for (uint64_t revision; status == LQT_OK && (revision = find_over(editor)) != 0;) {
    status = expire(editor, revision, diag);
    reverted += status == LQT_OK;
  }
  pthread_mutex_unlock(&editor->turn);
  if (out_reverted != NULL) *out_reverted = reverted;
  return status;
}
