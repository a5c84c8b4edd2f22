/* Editors with a journal: opening and replaying it, following another writer's, compacting. */
#include <string.h>

#include "base/diag.h"
#include "edit/editor.h"
#include "edit/replay.h"

static const char *const where = "editor";

/* ---- Opening ---- */

/* Replays the journal's transactions from `from` on into a copy of the state, which becomes the
 * state. No engine is attached. */
static lqt_status replay_all(lqt_editor *editor, size_t from, lqt_diag *diag) {
  size_t count = lqt__journal_count(editor->journal);
  if (from == count) return LQT_OK;
  lqt__overlay *work = lqt__overlay_clone(editor->state);
  if (work == NULL) return lqt__fail_memory(diag, where, 0, "the edits");
  lqt_status status = LQT_OK;
  for (size_t i = from; i < count && status == LQT_OK; i++) {
    lqt__journal_entry entry;
    status = lqt__journal_read(editor->journal, i, &entry, diag);
    if (status != LQT_OK) break;
    status = lqt__replay_entry(editor, work, &entry, diag);
    if (status == LQT_OK) status = lqt__editor_remember(editor, &entry, diag);
    lqt__entry_free(&entry);
  }
  if (status != LQT_OK) {
    lqt__overlay_release(work);
    return status;
  }
  pthread_mutex_lock(&editor->lock);
  lqt__overlay *was = editor->state;
  editor->state = work;
  pthread_mutex_unlock(&editor->lock);
  lqt__overlay_release(was);
  return LQT_OK;
}

/* Opens the file that editor->journal_path names; LQT_NOT_FOUND leaves the diag alone. */
static lqt_status open_file(lqt_editor *editor, bool create, const uint8_t *continues,
                            lqt__journal_recovery *recovery, lqt_diag *diag) {
  bool writes = editor->journal_mode == LQT_JOURNAL_WRITE;
  lqt__journal_options options = {.write = writes,
                                  .create = create,
                                  .base = &editor->base->file,
                                  .sign = editor->sign,
                                  .continues = continues,
                                  .policy = editor->policy};
  lqt_diag finding = {0};
  lqt_status status =
      lqt__journal_open(editor->journal_path, &options, &editor->journal, recovery, &finding);
  if (status != LQT_OK && status != LQT_NOT_FOUND && diag != NULL) *diag = finding;
  if (status == LQT_NOT_FOUND && create && diag != NULL) *diag = finding;
  return status;
}

/* Who requires signatures must not write what it would refuse to read. */
static lqt_status check_signer(const lqt_editor *editor, const lqt_journal_options *options,
                               lqt_diag *diag) {
  if (editor->policy.count == 0) return LQT_OK;
  for (size_t i = 0; options->sign != NULL && i < editor->policy.count; i++) {
    if (memcmp(editor->policy.keys[i], lqt_key_public(options->sign), 32) == 0) return LQT_OK;
  }
  return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                   "edits would not be signed by a key that is required: sign with one of those");
}

static lqt_status prepare(lqt_editor *editor, lqt_journal_mode mode,
                          const lqt_journal_options *options, lqt_diag *diag) {
  if (options != NULL && options->size != sizeof *options) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "lqt_journal_options.size is %u, not %zu: set it to sizeof", options->size,
                     sizeof *options);
  }
  if (mode != LQT_JOURNAL_READ && mode != LQT_JOURNAL_FOLLOW && mode != LQT_JOURNAL_WRITE) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "there is no journal mode %d", (int)mode);
  }
  if (editor->journal_path != NULL || editor->history_count != 0 || editor->engine_count != 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "a journal is opened once, before the first edit and the first engine");
  }
  LQT__TRY(lqt__journal_policy_make(options, &editor->policy_keys, &editor->policy, diag));
  if (mode == LQT_JOURNAL_WRITE) LQT__TRY(check_signer(editor, options, diag));
  const char *path = options != NULL ? options->path : NULL;
  editor->journal_path = path != NULL ? lqt__strdup(path) : lqt__journal_path(editor->model->path);
  if (editor->journal_path == NULL) return lqt__fail_memory(diag, where, 0, "a file name");
  editor->sign = options != NULL ? options->sign : NULL;
  editor->journal_mode = mode;
  return LQT_OK;
}

static void set_first(lqt_editor *editor) {
  size_t first = lqt__journal_first(editor->journal);
  const lqt__journal_header *header = lqt__journal_get_header(editor->journal);
  uint64_t revision = header != NULL ? header->base_revision : 0;
  if (first > 0) revision = lqt__journal_get_commit(editor->journal, first - 1)->revision;
  pthread_mutex_lock(&editor->lock);
  editor->first = editor->revision = revision;
  pthread_mutex_unlock(&editor->lock);
}

static lqt_status open_journal(lqt_editor *editor, lqt_journal_mode mode,
                               const lqt_journal_options *options, lqt_journal_report *report,
                               lqt_diag *diag) {
  LQT__TRY(prepare(editor, mode, options, diag));
  lqt__journal_recovery recovery = {0};
  /* A file that carries a journal's history goes on with its revisions at once; any other one has
   * a journal from its first edit on. */
  bool create = mode == LQT_JOURNAL_WRITE && editor->model->file.edit_log.bytes != 0;
  lqt_status status = open_file(editor, create, NULL, &recovery, diag);
  if (status == LQT_NOT_FOUND && !create) return LQT_OK;
  if (status != LQT_OK) return status;
  report->dropped_bytes = recovery.dropped_bytes;
  set_first(editor);
  size_t first = lqt__journal_first(editor->journal);
  report->transactions = lqt__journal_count(editor->journal) - first;
  LQT__TRY(replay_all(editor, first, diag));
  if (mode == LQT_JOURNAL_FOLLOW) return LQT_OK;
  /* A writer that ended, however it did, is gone, and with it what it would have taken back. */
  bool writer = false;
  if (mode == LQT_JOURNAL_READ) {
    LQT__TRY(lqt__journal_has_writer(editor->journal, &writer, diag));
  }
  if (writer) return LQT_OK;
  return lqt__editor_drop_pending(editor, mode == LQT_JOURNAL_WRITE, &report->reverted, diag);
}

lqt_status lqt__editor_begin_journal(lqt_editor *editor, lqt_diag *diag) {
  if (editor->journal != NULL) return LQT_OK;
  LQT__TRY(open_file(editor, true, NULL, NULL, diag));
  if (lqt__journal_revision(editor->journal) == editor->revision) return LQT_OK;
  lqt__journal_close(editor->journal);
  editor->journal = NULL;
  return lqt__fail(diag, LQT_STALE_REVISION, editor->journal_path,
                   "another writer has made the journal meanwhile: open the model again");
}

lqt_status lqt_editor_open_journal(lqt_editor *editor, lqt_journal_mode mode,
                                   const lqt_journal_options *options,
                                   lqt_journal_report *out_report, lqt_diag *diag) {
  lqt_journal_report report = {0};
  if (editor == NULL) return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "editor is NULL");
  pthread_mutex_lock(&editor->turn);
  lqt_status status = open_journal(editor, mode, options, &report, diag);
  pthread_mutex_unlock(&editor->turn);
  if (out_report != NULL) *out_report = report;
  return status;
}

void lqt_editor_journal_head(lqt_editor *editor, uint8_t out_hash[32]) {
  memset(out_hash, 0, 32);
  pthread_mutex_lock(&editor->turn);
  if (editor->journal != NULL) lqt__journal_head(editor->journal, out_hash);
  pthread_mutex_unlock(&editor->turn);
}

lqt_status lqt_editor_sync(lqt_editor *editor, lqt_diag *diag) {
  pthread_mutex_lock(&editor->turn);
  lqt__journal *journal = editor->journal;
  pthread_mutex_unlock(&editor->turn);
  return journal != NULL ? lqt__journal_wait(journal, diag) : LQT_OK; /* commits go on meanwhile */
}

/* ---- Following ---- */

/* One transaction of another writer, for the engines as well. */
static lqt_status follow_one(lqt_editor *editor, size_t index, lqt_diag *diag) {
  lqt__journal_entry entry;
  LQT__TRY(lqt__journal_read(editor->journal, index, &entry, diag));
  lqt__draft draft = {0};
  lqt_status status = LQT_OK;
  if (entry.revision != editor->revision + 1) {
    status = lqt__fail(diag, LQT_STALE_REVISION, where,
                       "the journal goes on at revision %llu, after %llu: open the model again",
                       (unsigned long long)entry.revision, (unsigned long long)editor->revision);
  }
  if (status == LQT_OK) status = lqt__draft_begin(&draft, editor->state, &editor->rules, diag);
  if (status == LQT_OK) status = lqt__replay_entry(editor, draft.work, &entry, diag);
  if (status == LQT_OK) {
    draft.changes = entry.changes;
    draft.change_count = draft.change_capacity = entry.change_count;
    entry.changes = NULL;
    entry.change_count = 0;
    status = lqt__editor_install(editor, &draft, &entry, 0, diag);
  }
  lqt__draft_free(&draft);
  lqt__entry_free(&entry);
  return status;
}

/* A journal that was replaced by a compaction goes on where it was; one that was started over, or
 * lost its end, does not. The one that was followed is kept until then. */
static lqt_status reopen(lqt_editor *editor, lqt_diag *diag) {
  uint8_t head[32];
  lqt__journal *was = editor->journal;
  bool had = was != NULL && lqt__journal_is_begun(was);
  if (had) lqt__journal_head(was, head);
  editor->journal = NULL;
  lqt_status status = open_file(editor, false, had ? head : NULL, NULL, diag);
  lqt__journal *now = editor->journal;
  if (status == LQT_OK && had && !lqt__journal_has_head(now, head) &&
      memcmp(lqt__journal_get_header(now)->prior, head, sizeof head) != 0) {
    lqt__journal_close(now);
    status = lqt__fail(diag, LQT_STALE_REVISION, editor->journal_path,
                       "the journal does not go on from revision %llu: open the model again",
                       (unsigned long long)editor->revision);
  }
  if (status != LQT_OK) {
    editor->journal = was;
    return status == LQT_NOT_FOUND ? LQT_OK : status;
  }
  lqt__journal_close(was);
  if (!had) set_first(editor);
  return LQT_OK;
}

static lqt_status follow(lqt_editor *editor, size_t *applied, lqt_diag *diag) {
  if (editor->journal_path == NULL || editor->journal_mode != LQT_JOURNAL_FOLLOW) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "the editor follows no journal: open one with LQT_JOURNAL_FOLLOW");
  }
  size_t fresh;
  lqt_diag finding = {0};
  lqt_status status = editor->journal != NULL ? lqt__journal_poll(editor->journal, &fresh, &finding)
                                              : LQT_STALE_REVISION;
  if (status == LQT_STALE_REVISION) {
    LQT__TRY(reopen(editor, diag));
  } else if (status != LQT_OK) {
    if (diag != NULL) *diag = finding;
    return status;
  }
  size_t count = editor->journal != NULL ? lqt__journal_count(editor->journal) : 0;
  for (size_t i = 0; i < count; i++) {
    if (lqt__journal_get_commit(editor->journal, i)->revision <= editor->revision) continue;
    LQT__TRY(follow_one(editor, i, diag));
    ++*applied;
  }
  return LQT_OK;
}

lqt_status lqt_editor_follow(lqt_editor *editor, size_t *out_applied, lqt_diag *diag) {
  size_t applied = 0;
  pthread_mutex_lock(&editor->turn);
  lqt_status status = follow(editor, &applied, diag);
  pthread_mutex_unlock(&editor->turn);
  if (out_applied != NULL) *out_applied = applied;
  return status;
}

/* ---- Compacting ---- */

static lqt_status write_base(lqt_editor *editor, lqt_diag *diag) {
  uint8_t *log;
  uint64_t log_bytes, bytes;
  LQT__TRY(lqt__journal_image(editor->journal, &log, &log_bytes, diag));
  lqt__file file = editor->state->now;
  file.timestamp_ns = 0; /* now */
  file.edit_log = (lqt__blob){.data = log, .bytes = log_bytes};
  uint64_t edits = (uint64_t)editor->base->file.edit_count + lqt__journal_count(editor->journal) -
                   lqt__journal_first(editor->journal);
  file.edit_count = edits < UINT32_MAX ? (uint32_t)edits : UINT32_MAX;
  lqt__writer *writer;
  lqt_status status = lqt__writer_begin(editor->model->path, &file, &writer, diag);
  if (status == LQT_OK) status = lqt__writer_finish(writer, &bytes, diag);
  lqt__free(log);
  return status;
}

static lqt_status compact(lqt_editor *editor, lqt_diag *diag) {
  if (editor->journal_path == NULL || editor->journal_mode != LQT_JOURNAL_WRITE) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "the editor has no journal open for writing");
  }
  if (editor->pending_count != 0) {
    return lqt__fail(diag, LQT_CONFLICT, where,
                     "revision %llu is temporary: compact when it is over",
                     (unsigned long long)editor->pending[0].revision);
  }
  if (editor->model->file.missing_count != 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, editor->model->path,
                     "the model was opened without its damaged sections");
  }
  LQT__TRY(lqt__editor_begin_journal(editor, diag));
  LQT__TRY(lqt__journal_wait(editor->journal, diag));
  LQT__TRY(write_base(editor, diag));
  lqt_model *base;
  LQT__TRY(lqt_model_open(editor->model->path, NULL, &base, diag));
  lqt_status status = lqt__journal_restart(editor->journal, &base->file, diag);
  lqt_model *was = editor->base;
  editor->base = base; /* the journal points to it, whatever came of the restart */
  if (was != editor->model) {
    lqt_model_release(was);
  }
  return status;
}

lqt_status lqt_editor_compact(lqt_editor *editor, lqt_diag *diag) {
  pthread_mutex_lock(&editor->turn);
  lqt_status status = compact(editor, diag);
  pthread_mutex_unlock(&editor->turn);
  return status;
}
