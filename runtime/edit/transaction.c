/* Transactions, and single edits as transactions of their own. */
#include <string.h>

#include "base/diag.h"
#include "edit/editor.h"
#include "edit/encoding.h"
#include "edit/mutation.h"
#include "edit/trial.h"

static const char *const where = "transaction";

static void unlink_open(lqt_transaction *t) {
  pthread_mutex_lock(&t->editor->lock);
  lqt_transaction **link = &t->editor->open;
  while (*link != NULL && *link != t) link = &(*link)->next;
  if (*link == t) *link = t->next;
  pthread_mutex_unlock(&t->editor->lock);
}

void lqt_transaction_rollback(lqt_transaction *t) {
  if (t == NULL) return;
  unlink_open(t);
  for (size_t i = 0; i < t->count; i++) lqt__operation_free(&t->operations[i]);
  lqt__free(t->operations);
  lqt__draft_free(&t->draft);
  lqt__free(t);
}

/* `listed`: it counts as the thread's open transaction. */
static lqt_status begin(lqt_editor *editor, uint64_t expected, bool listed, lqt_transaction **out,
                        lqt_diag *diag) {
  *out = NULL;
  lqt_transaction *t = lqt__alloc_zero(sizeof *t);
  if (t == NULL) return lqt__fail_memory(diag, where, sizeof *t, "a transaction");
  t->editor = editor;
  t->owner = pthread_self();
  lqt__overlay *state = lqt__editor_state(editor, &t->revision);
  lqt_status status = LQT_OK;
  if (expected != LQT_REVISION_ANY && expected != t->revision) {
    status = lqt__fail(diag, LQT_STALE_REVISION, where,
                       "revision %llu was expected and it is %llu now: look again",
                       (unsigned long long)expected, (unsigned long long)t->revision);
  }
  if (status == LQT_OK) status = lqt__draft_begin(&t->draft, state, &editor->rules, diag);
  lqt__overlay_release(state);
  if (status == LQT_OK && listed) {
    pthread_mutex_lock(&editor->lock);
    for (lqt_transaction *other = editor->open; other != NULL; other = other->next) {
      if (pthread_equal(other->owner, t->owner)) status = LQT_CONFLICT;
    }
    if (status == LQT_OK) {
      t->next = editor->open;
      editor->open = t;
    }
    pthread_mutex_unlock(&editor->lock);
    if (status != LQT_OK) {
      (void)lqt__fail(diag, status, where,
                      "this thread has a transaction open: commit it or roll it back first "
                      "(transactions do not nest)");
    }
  }
  if (status != LQT_OK) {
    lqt_transaction_rollback(t);
    return status;
  }
  *out = t;
  return LQT_OK;
}

lqt_status lqt_transaction_begin(lqt_editor *editor, uint64_t expected,
                                 lqt_transaction **out_transaction, lqt_diag *diag) {
  if (editor == NULL || out_transaction == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "editor and out_transaction must not be NULL");
  }
  return begin(editor, expected, true, out_transaction, diag);
}

static lqt_status broken(lqt_diag *diag) {
  return lqt__fail(diag, LQT_OUT_OF_MEMORY, where,
                   "there was no memory to take a mutation back: roll the transaction back");
}

lqt_status lqt_transaction_add(lqt_transaction *t, const lqt_mutation *mutation, lqt_diag *diag) {
  if (t->broken) return broken(diag);
  if (t->count == t->capacity) {
    size_t capacity = t->capacity * 2 + 4;
    lqt__operation *operations = lqt__realloc(t->operations, capacity * sizeof *operations);
    if (operations == NULL) {
      return lqt__fail_memory(diag, where, capacity * sizeof *operations, "operations");
    }
    t->operations = operations;
    t->capacity = capacity;
  }
  size_t keep = t->draft.change_count;
  bool structural = t->draft.structural;
  LQT__TRY(lqt__draft_mutate(&t->draft, mutation, &t->broken, diag));
  lqt_status status = lqt__operation_make(mutation, &t->operations[t->count], diag);
  if (status == LQT_OK) {
    t->count++;
    return LQT_OK;
  }
  t->draft.structural = structural;
  t->broken = lqt__draft_cut(&t->draft, keep, NULL) != LQT_OK;
  return status;
}

size_t lqt_transaction_count(const lqt_transaction *t) { return t->count; }

/* ---- Commit ---- */

/* Do changes of revisions after the one that the transaction began at touch the same? `turn` is
 * held. */
static lqt_status check_conflicts(const lqt_transaction *t, lqt_diag *diag) {
  const lqt_editor *editor = t->editor;
  for (uint64_t r = t->revision + 1; r <= editor->revision; r++) {
    const lqt__journal_entry *entry = &lqt__editor_find(editor, r)->entry;
    for (size_t i = 0; i < entry->change_count; i++) {
      const lqt__change *theirs = &entry->changes[i];
      if (theirs->kind != LQT__CHANGE_BYTES && t->draft.structural) {
        return lqt__fail(diag, LQT_CONFLICT, where,
                         "revision %llu changed the model's structure, and so would this "
                         "transaction: begin it again",
                         (unsigned long long)r);
      }
      for (size_t k = 0; k < t->draft.change_count; k++) {
        if (!lqt__change_overlaps(theirs, &t->draft.changes[k])) continue;
        return lqt__fail(diag, LQT_CONFLICT, where,
                         "revision %llu, which was committed after the transaction began, changed "
                         "the same bytes: begin it again",
                         (unsigned long long)r);
      }
    }
  }
  return LQT_OK;
}

/* Puts the transaction's changes on top of what was committed since it began. */
static lqt_status rebase(lqt_transaction *t, lqt_diag *diag) {
  if (t->revision == t->editor->revision) return LQT_OK;
  LQT__TRY(check_conflicts(t, diag));
  lqt__overlay *work = lqt__overlay_clone(t->editor->state);
  if (work == NULL) return lqt__fail_memory(diag, where, 0, "a transaction");
  lqt_status status = LQT_OK;
  for (size_t i = 0; i < t->draft.change_count && status == LQT_OK; i++) {
    status = lqt__overlay_apply(work, &t->draft.changes[i], diag);
  }
  if (status == LQT_OK) status = lqt__overlay_settle(work, diag);
  if (status != LQT_OK) {
    lqt__overlay_release(work);
    return status == LQT_OUT_OF_MEMORY
               ? status
               : lqt__fail(diag, LQT_CONFLICT, where,
                           "the transaction does not fit what was committed since it began: begin "
                           "it again");
  }
  lqt__overlay_release(t->draft.work);
  t->draft.work = work;
  t->revision = t->editor->revision;
  return LQT_OK;
}

static lqt_status check(lqt_transaction *t, const lqt_commit_options *options, lqt_diag *diag) {
  LQT__TRY(lqt__draft_check(&t->draft, diag));
  return lqt__trial_run(t->editor, &t->draft, options, diag);
}

lqt_status lqt_transaction_validate(lqt_transaction *t, const lqt_commit_options *options,
                                    lqt_diag *diag) {
  LQT__TRY(lqt__commit_options_check(options, diag));
  if (t->broken) return broken(diag);
  pthread_mutex_lock(&t->editor->turn);
  lqt_status status = rebase(t, diag);
  if (status == LQT_OK) status = check(t, options, diag);
  pthread_mutex_unlock(&t->editor->turn);
  return status;
}

static lqt_status commit(lqt_transaction *t, const lqt_commit_options *options,
                         uint64_t *out_revision, lqt_diag *diag) {
  LQT__TRY(lqt__commit_options_check(options, diag));
  if (t->broken) return broken(diag);
  if (t->count == 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "there is no mutation to commit");
  }
  LQT__TRY(rebase(t, diag));
  LQT__TRY(check(t, options, diag));
  lqt__journal_entry entry = {.operations = t->operations, .operation_count = t->count};
  if (t->partial) entry.flags |= LQT__ENTRY_PARTIAL;
  t->operations = NULL;
  t->count = 0;
  return lqt__editor_commit(t->editor, &t->draft, &entry, options, 0, out_revision, diag);
}

lqt_status lqt_transaction_commit(lqt_transaction *t, const lqt_commit_options *options,
                                  uint64_t *out_revision, lqt_diag *diag) {
  if (out_revision != NULL) *out_revision = 0;
  pthread_mutex_lock(&t->editor->turn);
  lqt_status status = commit(t, options, out_revision, diag);
  pthread_mutex_unlock(&t->editor->turn);
  lqt_transaction_rollback(t);
  return status;
}

/* ---- Without a transaction of the caller's ---- */

/* Adds what is valid; the first failure ends it unless the batch is partial. */
static lqt_status add_all(lqt_transaction *t, const lqt_mutation *mutations, size_t count,
                          bool partial, lqt_status *results, lqt_diag *diag) {
  lqt_status first = LQT_OK;
  for (size_t i = 0; i < count; i++) {
    lqt_status status = lqt_transaction_add(t, &mutations[i], first == LQT_OK ? diag : NULL);
    if (results != NULL) results[i] = status;
    if (first == LQT_OK) first = status;
    if (status != LQT_OK && (!partial || status == LQT_OUT_OF_MEMORY)) return status;
  }
  t->partial = first != LQT_OK;
  return t->count != 0 ? LQT_OK : first;
}

lqt_status lqt_edit_batch(lqt_editor *editor, const lqt_mutation *mutations, size_t count,
                          bool partial, const lqt_commit_options *options, lqt_status *out_results,
                          uint64_t *out_revision, lqt_diag *diag) {
  if (out_revision != NULL) *out_revision = 0;
  for (size_t i = 0; out_results != NULL && i < count; i++) out_results[i] = LQT_CANCELLED;
  if (editor == NULL || mutations == NULL || count == 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "an editor and a mutation are needed");
  }
  lqt_transaction *t;
  /* Nobody comes between: what is validated is what is committed. */
  pthread_mutex_lock(&editor->turn);
  lqt_status status = begin(editor, LQT_REVISION_ANY, false, &t, diag);
  if (status == LQT_OK) {
    status = add_all(t, mutations, count, partial, out_results, diag);
    if (status == LQT_OK) status = commit(t, options, out_revision, diag);
    lqt_transaction_rollback(t);
  }
  pthread_mutex_unlock(&editor->turn);
  return status;
}

lqt_status lqt_edit(lqt_editor *editor, const lqt_mutation *mutation,
                    const lqt_commit_options *options, uint64_t *out_revision, lqt_diag *diag) {
  return lqt_edit_batch(editor, mutation, 1, false, options, NULL, out_revision, diag);
}

lqt_status lqt_edit_codebook_entry(lqt_editor *editor, uint16_t codebook_id, uint32_t vector,
                                   const float *values, size_t dim, uint64_t *out_revision,
                                   lqt_diag *diag) {
  if (out_revision != NULL) *out_revision = 0;
  size_t index;
  uint64_t element;
  lqt__overlay *state = lqt__editor_state(editor, NULL);
  lqt_status status = LQT_OK;
  if (values == NULL) {
    status = lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "values must not be NULL");
  } else {
    status = lqt__codebook_locate(state, codebook_id, vector, &index, &element, diag);
  }
  if (status == LQT_OK && dim != state->now.codebooks[index].vector_dim) {
    status = lqt__fail(diag, LQT_DIMENSION_MISMATCH, editor->model->path,
                       "vectors of codebook %u have %u values; %zu were given", codebook_id,
                       state->now.codebooks[index].vector_dim, dim);
  }
  lqt__overlay_release(state);
  if (status != LQT_OK) return status;
  lqt_mutation mutation = {.size = sizeof mutation,
                           .operation = LQT_EDIT_CODEBOOK_ENTRIES,
                           .id = codebook_id,
                           .first = vector,
                           .values = values,
                           .value_count = dim};
  return lqt_edit(editor, &mutation, NULL, out_revision, diag);
}
