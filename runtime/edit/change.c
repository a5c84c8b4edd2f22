#include "edit/change.h"

#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"

void lqt__change_free(lqt__change *change) {
  lqt__free(change->name);
  lqt__free(change->data);
  lqt__free(change->old_data);
  *change = (lqt__change){0};
}

void lqt__change_invert(lqt__change *change) {
  lqt__change was = *change;
  change->has_new = was.has_old;
  change->has_old = was.has_new;
  change->data = was.old_data;
  change->old_data = was.data;
  change->bytes = was.old_bytes;
  change->old_bytes = was.bytes;
  memcpy(change->sha256, was.old_sha256, sizeof change->sha256);
  memcpy(change->old_sha256, was.sha256, sizeof change->old_sha256);
}

static bool copy_bytes(const uint8_t *data, uint64_t bytes, uint8_t **out) {
  *out = NULL;
  if (data == NULL) return true;
  *out = lqt__alloc(bytes);
  if (*out == NULL) return false;
  memcpy(*out, data, bytes);
  return true;
}

lqt_status lqt__change_copy(const lqt__change *change, lqt__change *out, lqt_diag *diag) {
  *out = *change;
  out->name = NULL;
  out->data = out->old_data = NULL;
  bool good = copy_bytes(change->data, change->bytes, &out->data) &&
              copy_bytes(change->old_data, change->old_bytes, &out->old_data);
  if (good && change->name != NULL) {
    out->name = lqt__strdup(change->name);
    good = out->name != NULL;
  }
  if (good) return LQT_OK;
  lqt__change_free(out);
  return lqt__fail_memory(diag, "editor", change->bytes + change->old_bytes, "a change");
}

bool lqt__change_overlaps(const lqt__change *a, const lqt__change *b) {
  bool records = a->kind == LQT__CHANGE_RECORD;
  if (records != (b->kind == LQT__CHANGE_RECORD) || a->what != b->what || a->id != b->id) {
    return false;
  }
  if ((a->name == NULL) != (b->name == NULL) ||
      (a->name != NULL && strcmp(a->name, b->name) != 0)) {
    return false;
  }
  if (a->kind != LQT__CHANGE_BYTES || b->kind != LQT__CHANGE_BYTES) return true;
  return a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

void lqt__operation_free(lqt__operation *operation) {
  lqt__free(operation->target);
  lqt__free(operation->payload);
  lqt__free(operation->file);
  *operation = (lqt__operation){0};
}

void lqt__entry_free(lqt__journal_entry *entry) {
  for (size_t i = 0; i < entry->operation_count; i++) lqt__operation_free(&entry->operations[i]);
  for (size_t i = 0; i < entry->change_count; i++) lqt__change_free(&entry->changes[i]);
  lqt__free(entry->operations);
  lqt__free(entry->changes);
  lqt__free(entry->actor);
  lqt__free(entry->reason);
  *entry = (lqt__journal_entry){0};
}
