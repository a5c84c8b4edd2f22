#include "edit/replay.h"

#include <string.h>

#include "base/diag.h"
#include "base/hash.h"
#include "edit/encoding.h"
#include "edit/reference.h"

typedef unsigned long long ull;

static lqt_status bad(const lqt__journal_entry *entry, const char *what, lqt_diag *diag) {
  return lqt__fail(diag, LQT_BAD_JOURNAL, "journal", "revision %llu does not fit the model: %s",
                   (ull)entry->revision, what);
}

static lqt_status copy_bytes(const uint8_t *data, uint64_t bytes, uint8_t **out, lqt_diag *diag) {
  *out = lqt__alloc(bytes);
  if (*out == NULL) return lqt__fail_memory(diag, "journal", bytes, "an edit");
  if (bytes != 0) memcpy(*out, data, bytes);
  return LQT_OK;
}

/* Old bytes from the overlay, which must be those that the entry was made from. */
static lqt_status fill_old(lqt__overlay *work, const lqt__journal_entry *entry, lqt__change *change,
                           lqt_diag *diag) {
  if (change->kind == LQT__CHANGE_RECORD) {
    uint64_t bytes;
    uint8_t *record =
        lqt__overlay_record(work, change->what, change->id, change->name, &bytes, NULL);
    if (record == NULL && bytes != 0) return lqt__fail_memory(diag, "journal", bytes, "an edit");
    change->old_data = record;
    if ((record != NULL) != change->has_old || bytes != change->old_bytes) {
      return bad(entry, "a record is another one", diag);
    }
  } else {
    lqt__section_kind kind = (lqt__section_kind)change->what;
    if (kind > LQT__SECTION_MASK) return bad(entry, "an unknown section", diag);
    ptrdiff_t index = lqt__overlay_find(work, kind, change->id, change->name);
    const lqt__blob *blob = index >= 0 ? lqt__overlay_blob(work, kind, (size_t)index) : NULL;
    bool is_there = blob != NULL && blob->data != NULL && blob->bytes != 0;
    uint64_t from = change->kind == LQT__CHANGE_BYTES ? change->offset : 0;
    if (is_there != change->has_old) return bad(entry, "a section is there or is not", diag);
    if (!is_there) return LQT_OK;
    if (from > blob->bytes || change->old_bytes > blob->bytes - from ||
        (change->kind == LQT__CHANGE_SECTION && change->old_bytes != blob->bytes)) {
      return bad(entry, "a section has another size", diag);
    }
    LQT__TRY(copy_bytes(blob->data + from, change->old_bytes, &change->old_data, diag));
  }
  if (!change->has_old) return LQT_OK;
  uint8_t digest[32];
  if (lqt__sha256(change->old_data, change->old_bytes, digest) != LQT_OK) {
    return lqt__fail_memory(diag, "journal", 0, "a digest");
  }
  if (memcmp(digest, change->old_sha256, sizeof digest) == 0) return LQT_OK;
  return bad(entry, "the bytes that it replaces are others", diag);
}

/* The same change but for its bytes? */
static bool same_place(const lqt__change *a, const lqt__change *b) {
  return a->kind == b->kind && a->what == b->what && a->id == b->id && a->offset == b->offset &&
         a->bytes == b->bytes && a->has_new == b->has_new &&
         (a->name == NULL) == (b->name == NULL) &&
         (a->name == NULL || strcmp(a->name, b->name) == 0);
}

/* New bytes of changes that the journal holds by reference: the operation is done again. Such an
 * entry has one operation. */
static lqt_status fill_referenced(lqt_editor *editor, const lqt__overlay *work,
                                  lqt__journal_entry *entry, lqt_diag *diag) {
  if (entry->operation_count != 1 || entry->operations[0].file == NULL) {
    return bad(entry, "it refers to no file", diag);
  }
  const lqt__operation *operation = &entry->operations[0];
  lqt__decoded decoded;
  LQT__TRY(lqt__mutation_decode(operation->payload, operation->payload_bytes, &decoded, diag));
  lqt_model *source = NULL;
  lqt__draft draft = {0};
  lqt_status status = lqt__reference_open(operation->file, operation->file_sha256, &source, diag);
  lqt_model_release(source);
  if (status == LQT_OK) status = lqt__draft_begin(&draft, work, &editor->rules, diag);
  if (status == LQT_OK) {
    decoded.mutation.file = operation->file;
    status = lqt__draft_mutate(&draft, &decoded.mutation, NULL, diag);
  }
  if (status == LQT_OK && draft.change_count != entry->change_count) {
    status = bad(entry, "the file that it refers to gives other changes", diag);
  }
  for (size_t i = 0; i < entry->change_count && status == LQT_OK; i++) {
    lqt__change *change = &entry->changes[i];
    if (!change->by_reference) continue;
    uint8_t digest[32];
    const lqt__change *made = &draft.changes[i];
    if (!same_place(made, change)) {
      status = bad(entry, "the file that it refers to gives other changes", diag);
    } else if (lqt__sha256(made->data, made->bytes, digest) != LQT_OK) {
      status = lqt__fail_memory(diag, "journal", 0, "a digest");
    } else if (memcmp(digest, change->sha256, sizeof digest) != 0) {
      status = bad(entry, "the file that it refers to gives other bytes", diag);
    } else {
      status = copy_bytes(made->data, made->bytes, &change->data, diag);
    }
  }
  lqt__draft_free(&draft);
  lqt__arena_free(&decoded.arena);
  return status;
}

lqt_status lqt__replay_entry(lqt_editor *editor, lqt__overlay *work, lqt__journal_entry *entry,
                             lqt_diag *diag) {
  bool referenced = false;
  for (size_t i = 0; i < entry->change_count; i++) referenced |= entry->changes[i].by_reference;
  if (referenced) LQT__TRY(fill_referenced(editor, work, entry, diag));
  for (size_t i = 0; i < entry->change_count; i++) {
    lqt__change *change = &entry->changes[i];
    LQT__TRY(fill_old(work, entry, change, diag));
    if (lqt__overlay_apply(work, change, diag) == LQT_OK) continue;
    return bad(entry, "a change cannot be made", diag);
  }
  lqt_diag finding = {0};
  lqt_status status = lqt__overlay_settle(work, &finding);
  if (status == LQT_OK) return LQT_OK;
  if (status == LQT_OUT_OF_MEMORY) return lqt__fail_memory(diag, "journal", 0, "an edit");
  return bad(entry, finding.what, diag);
}
