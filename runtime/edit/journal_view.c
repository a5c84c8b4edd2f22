/* The public face of journals: what the model carries of older ones, and the file beside it. */
#include <string.h>
#include <time.h>

#include "base/diag.h"
#include "edit/journal.h"
#include "lqt/journal.h"
#include "model/model.h"

_Static_assert((int)LQT_JOURNAL_TEMPORARY == (int)LQT__ENTRY_TEMPORARY, "flags");
_Static_assert((int)LQT_JOURNAL_ROLLBACK == (int)LQT__ENTRY_ROLLBACK, "flags");
_Static_assert((int)LQT_JOURNAL_EXPIRED == (int)LQT__ENTRY_EXPIRED, "flags");
_Static_assert((int)LQT_JOURNAL_PARTIAL == (int)LQT__ENTRY_PARTIAL, "flags");

struct lqt_journal {
  lqt_model *model;
  char *path;
  uint8_t (*keys)[32]; /* of the policy */
  lqt__journal_policy policy;
  lqt__journal **parts; /* journals in the base's edit log, oldest first, and the file's last */
  size_t part_count;
  lqt__journal *file; /* NULL: there is none; also the last of the parts */
  lqt__journal_entry entry;
  size_t entry_index; /* SIZE_MAX: none is held */
};

void lqt_journal_close(lqt_journal *journal) {
  if (journal == NULL) return;
  lqt__entry_free(&journal->entry);
  for (size_t i = 0; i < journal->part_count; i++) lqt__journal_close(journal->parts[i]);
  lqt__free(journal->parts);
  lqt__free(journal->keys);
  lqt__free(journal->path);
  lqt_model_release(journal->model);
  lqt__free(journal);
}

lqt_status lqt__journal_policy_make(const lqt_journal_options *options, uint8_t (**out_keys)[32],
                                    lqt__journal_policy *out, lqt_diag *diag) {
  *out = (lqt__journal_policy){0};
  *out_keys = NULL;
  if (options == NULL || options->required_count == 0) return LQT_OK;
  uint8_t(*keys)[32] = lqt__alloc_array(options->required_count, sizeof *keys);
  if (keys == NULL) return lqt__fail_memory(diag, "journal", 32 * options->required_count, "keys");
  for (size_t i = 0; i < options->required_count; i++) {
    memcpy(keys[i], lqt__key_public(options->required[i]), 32);
  }
  *out_keys = keys;
  *out =
      (lqt__journal_policy){.keys = (const uint8_t(*)[32])keys, .count = options->required_count};
  return LQT_OK;
}

static lqt_status add_part(lqt_journal *journal, lqt__journal *part, lqt_diag *diag) {
  size_t count = journal->part_count;
  lqt__journal **parts = lqt__realloc(journal->parts, (count + 1) * sizeof *parts);
  if (parts == NULL) {
    lqt__journal_close(part);
    return lqt__fail_memory(diag, journal->path, (count + 1) * sizeof *parts, "journals");
  }
  journal->parts = parts;
  parts[journal->part_count++] = part;
  if (count == 0) return LQT_OK;
  /* Each continues the one before, or (an interrupted compaction) begins with it. */
  uint8_t head[32];
  lqt__journal_head(parts[count - 1], head);
  const lqt__journal_header *header = lqt__journal_get_header(part);
  if (lqt__journal_is_begun(part) && memcmp(header->prior, head, 32) != 0 &&
      header->salt != lqt__journal_get_header(parts[count - 1])->salt) {
    return lqt__fail(diag, LQT_BAD_JOURNAL, journal->path,
                     "the journal does not continue the edit log of the model file");
  }
  return LQT_OK;
}

static lqt_status open_edit_log(lqt_journal *journal, lqt_diag *diag) {
  const lqt__blob *log = &journal->model->file.edit_log;
  if (log->data == NULL || log->bytes < LQT__JOURNAL_HEADER_BYTES ||
      !lqt__journal_magic(log->data)) {
    return LQT_OK;
  }
  uint64_t bytes;
  for (uint64_t at = 0; at < log->bytes; at += bytes) {
    lqt__journal *part;
    LQT__TRY(lqt__journal_open_memory(log->data + at, log->bytes - at, journal->model->path,
                                      &journal->policy, &part, &bytes, diag));
    LQT__TRY(add_part(journal, part, diag));
  }
  return LQT_OK;
}

static lqt_status open_parts(lqt_journal *journal, const lqt_journal_options *options,
                             lqt_diag *diag) {
  const char *path = options != NULL ? options->path : NULL;
  journal->path = path != NULL ? lqt__strdup(path) : lqt__journal_path(journal->model->path);
  if (journal->path == NULL) return lqt__fail_memory(diag, path, 0, "a file name");
  LQT__TRY(open_edit_log(journal, diag));
  lqt__journal_options inner = {.base = &journal->model->file, .policy = journal->policy};
  lqt__journal *file;
  lqt_diag missing = {0};
  lqt_status status = lqt__journal_open(journal->path, &inner, &file, NULL, &missing);
  if (status == LQT_NOT_FOUND) return LQT_OK;
  if (status != LQT_OK) {
    if (diag != NULL) *diag = missing;
    return status;
  }
  LQT__TRY(add_part(journal, file, diag));
  journal->file = file;
  return LQT_OK;
}

static lqt_status open_view(lqt_model *model, const lqt_journal_options *options,
                            bool every_signature, lqt_journal **out, lqt_diag *diag) {
  if (out != NULL) *out = NULL;
  if (model == NULL || out == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "journal",
                     "model and out_journal must not be NULL");
  }
  lqt_journal *journal = lqt__alloc_zero(sizeof *journal);
  if (journal == NULL) return lqt__fail_memory(diag, "journal", sizeof *journal, "a journal");
  journal->model = lqt_model_retain(model);
  journal->entry_index = SIZE_MAX;
  lqt_status status = lqt__journal_policy_make(options, &journal->keys, &journal->policy, diag);
  journal->policy.every_signature = every_signature;
  if (status == LQT_OK) status = open_parts(journal, options, diag);
  if (status != LQT_OK) {
    lqt_journal_close(journal);
    return status;
  }
  *out = journal;
  return LQT_OK;
}

lqt_status lqt_journal_open(lqt_model *model, const lqt_journal_options *options,
                            lqt_journal **out_journal, lqt_diag *diag) {
  return open_view(model, options, false, out_journal, diag);
}

/* ---- Looking ---- */

const char *lqt_journal_path(const lqt_journal *journal) { return journal->path; }

/* Transactions of a part that the part before it does not have. */
static size_t part_first(const lqt_journal *journal, size_t part) {
  return journal->parts[part] == journal->file ? lqt__journal_first(journal->file) : 0;
}

size_t lqt_journal_count(const lqt_journal *journal) {
  size_t count = 0;
  for (size_t i = 0; i < journal->part_count; i++) {
    count += lqt__journal_count(journal->parts[i]) - part_first(journal, i);
  }
  return count;
}

void lqt_journal_head(const lqt_journal *journal, uint8_t out_hash[32]) {
  memset(out_hash, 0, 32);
  for (size_t i = 0; i < journal->part_count; i++) {
    if (lqt__journal_is_begun(journal->parts[i])) lqt__journal_head(journal->parts[i], out_hash);
  }
}

uint64_t lqt_journal_revision(const lqt_journal *journal) {
  uint64_t revision = 0;
  for (size_t i = 0; i < journal->part_count; i++) {
    if (lqt__journal_is_begun(journal->parts[i])) {
      revision = lqt__journal_revision(journal->parts[i]);
    }
  }
  return revision;
}

lqt_status lqt_journal_poll(lqt_journal *journal, size_t *out_new, lqt_diag *diag) {
  *out_new = 0;
  if (journal->file != NULL) return lqt__journal_poll(journal->file, out_new, diag);
  /* One may have been begun since. */
  lqt__journal_options inner = {.base = &journal->model->file, .policy = journal->policy};
  lqt__journal *file;
  lqt_diag failure = {0};
  lqt_status status = lqt__journal_open(journal->path, &inner, &file, NULL, &failure);
  if (status == LQT_NOT_FOUND) return LQT_OK;
  if (status != LQT_OK) {
    if (diag != NULL) *diag = failure;
    return status;
  }
  LQT__TRY(add_part(journal, file, diag));
  journal->file = file;
  *out_new = lqt__journal_count(file) - lqt__journal_first(file);
  return LQT_OK;
}

/* Finds transaction `index` and holds its entry, without the new bytes. */
static lqt_status hold(lqt_journal *journal, size_t index, const lqt__journal **out_part,
                       size_t *out_index, lqt_diag *diag) {
  size_t left = index;
  for (size_t i = 0; i < journal->part_count; i++) {
    size_t first = part_first(journal, i), count = lqt__journal_count(journal->parts[i]) - first;
    if (left >= count) {
      left -= count;
      continue;
    }
    *out_part = journal->parts[i];
    *out_index = first + left;
    if (journal->entry_index == index) return LQT_OK;
    lqt__entry_free(&journal->entry);
    journal->entry_index = SIZE_MAX;
    LQT__TRY(lqt__journal_look(journal->parts[i], first + left, &journal->entry, diag));
    journal->entry_index = index;
    return LQT_OK;
  }
  return lqt__fail(diag, LQT_OUT_OF_RANGE, journal->path, "there is no transaction %zu", index);
}

lqt_status lqt_journal_entry(lqt_journal *journal, size_t index, lqt_journal_entry_info *out_info,
                             lqt_diag *diag) {
  const lqt__journal *part;
  size_t at;
  *out_info = (lqt_journal_entry_info){0};
  LQT__TRY(hold(journal, index, &part, &at, diag));
  const lqt__journal_entry *entry = &journal->entry;
  const lqt__journal_commit *commit = lqt__journal_get_commit(part, at);
  *out_info = (lqt_journal_entry_info){.revision = entry->revision,
                                       .timestamp_ns = entry->timestamp_ns,
                                       .flags = entry->flags,
                                       .reference = entry->reference,
                                       .expires_ns = entry->expires_ns,
                                       .expires_steps = entry->expires_steps,
                                       .actor = entry->actor,
                                       .reason = entry->reason,
                                       .user = entry->user,
                                       .operations = entry->operation_count,
                                       .changes = entry->change_count,
                                       .stored_bytes = commit->end - commit->offset,
                                       .is_signed = commit->is_signed,
                                       .in_base = part != journal->file};
  for (size_t i = 0; i < entry->change_count; i++) {
    out_info->changed_bytes += entry->changes[i].bytes;
  }
  memcpy(out_info->hash, commit->hash, 32);
  memcpy(out_info->key, commit->key, 32);
  return LQT_OK;
}

lqt_status lqt_journal_operation(lqt_journal *journal, size_t index, size_t operation,
                                 lqt_journal_operation_info *out_info, lqt_diag *diag) {
  const lqt__journal *part;
  size_t at;
  *out_info = (lqt_journal_operation_info){0};
  LQT__TRY(hold(journal, index, &part, &at, diag));
  if (operation >= journal->entry.operation_count) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, journal->path, "there is no operation %zu", operation);
  }
  const lqt__operation *from = &journal->entry.operations[operation];
  *out_info =
      (lqt_journal_operation_info){.operation = from->operation,
                                   .target_kind = from->target_kind,
                                   .target_id = from->target_id,
                                   .target = from->target,
                                   .payload = from->payload,
                                   .payload_bytes = (size_t)from->payload_bytes,
                                   .file = from->file,
                                   .file_sha256 = from->file != NULL ? from->file_sha256 : NULL};
  return LQT_OK;
}

static const char *what_name(const lqt__change *change) {
  static const char *const sections[] = {
      "codebook", "tensor", "group scales", "zero points", "residual indices", "delta", "mask"};
  static const char *const records[] = {"?", "tensor record", "chunk", "hyperparameter"};
  if (change->kind == LQT__CHANGE_RECORD) {
    return change->what < sizeof records / sizeof records[0] ? records[change->what] : "?";
  }
  return change->what < sizeof sections / sizeof sections[0] ? sections[change->what] : "?";
}

lqt_status lqt_journal_change(lqt_journal *journal, size_t index, size_t change,
                              lqt_journal_change_info *out_info, lqt_diag *diag) {
  static const char *const kinds[] = {"?", "bytes", "section", "record"};
  const lqt__journal *part;
  size_t at;
  *out_info = (lqt_journal_change_info){0};
  LQT__TRY(hold(journal, index, &part, &at, diag));
  if (change >= journal->entry.change_count) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, journal->path, "there is no change %zu", change);
  }
  const lqt__change *from = &journal->entry.changes[change];
  *out_info = (lqt_journal_change_info){.kind = kinds[from->kind],
                                        .what = what_name(from),
                                        .name = from->name,
                                        .id = from->id,
                                        .offset = from->offset,
                                        .has_old = from->has_old,
                                        .has_new = from->has_new,
                                        .old_bytes = from->old_bytes,
                                        .new_bytes = from->bytes,
                                        .old_sha256 = from->has_old ? from->old_sha256 : NULL};
  return LQT_OK;
}

/* ---- Verifying ---- */

static lqt_status check_contents(lqt_journal *journal, lqt_journal_check *check, lqt_diag *diag) {
  for (size_t i = 0; i < journal->part_count; i++) {
    lqt__journal *part = journal->parts[i];
    for (size_t k = part_first(journal, i); k < lqt__journal_count(part); k++) {
      lqt__journal_entry entry;
      LQT__TRY(lqt__journal_read(part, k, &entry, diag));
      lqt__entry_free(&entry);
      check->transactions++;
      check->signed_transactions += lqt__journal_get_commit(part, k)->is_signed;
    }
  }
  return LQT_OK;
}

static bool has_head(const lqt_journal *journal, const uint8_t noted[32]) {
  for (size_t i = 0; i < journal->part_count; i++) {
    if (lqt__journal_has_head(journal->parts[i], noted)) return true;
  }
  return false;
}

/* What stands behind the last transaction may be one that is just being written. */
static lqt_status check_end(lqt_journal *journal, lqt_journal_check *check, lqt_diag *diag) {
  lqt__journal *file = journal->file;
  check->unfinished_bytes = file != NULL ? lqt__journal_torn_bytes(file) : 0;
  if (check->unfinished_bytes == 0) return LQT_OK;
  LQT__TRY(lqt__journal_has_writer(file, &check->writer, diag));
  if (check->writer) return LQT_OK;
  return lqt__fail(diag, LQT_TRUNCATED, journal->path,
                   "an unfinished transaction of %llu bytes stands behind the last one: a writer "
                   "was interrupted, or the end was damaged; the next writer cuts it off",
                   (unsigned long long)check->unfinished_bytes);
}

lqt_status lqt_journal_verify(lqt_model *model, const lqt_journal_options *options,
                              const uint8_t *noted_head, lqt_journal_check *out_check,
                              lqt_diag *diag) {
  lqt_journal_check check = {0};
  if (out_check != NULL) *out_check = check;
  lqt_journal *journal;
  LQT__TRY(open_view(model, options, true, &journal, diag));
  lqt_journal_head(journal, check.head);
  lqt_status status = check_contents(journal, &check, diag);
  if (status == LQT_OK && noted_head != NULL && !has_head(journal, noted_head)) {
    status = lqt__fail(diag, LQT_BAD_JOURNAL, journal->path,
                       "no transaction has the noted hash: the journal was cut off, or it is not "
                       "the one that the hash was noted of");
  }
  if (status == LQT_OK) status = check_end(journal, &check, diag);
  lqt_journal_close(journal);
  if (out_check != NULL) *out_check = check;
  return status;
}
