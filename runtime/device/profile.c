#include "profile.h"

#include "base/alloc.h"

static lqt_profile_entry *counter_of(lqt__profile *profile, const lqt_op *op) {
  for (size_t i = 0; i < profile->count; i++) {
    lqt_profile_entry *entry = &profile->entries[i];
    if (entry->kind == (uint32_t)op->kind && entry->label == op->label) return entry;
  }
  if (profile->count == profile->capacity) {
    const size_t capacity = profile->capacity != 0 ? profile->capacity * 2 : 64;
    lqt_profile_entry *grown = lqt__realloc(profile->entries, capacity * sizeof *grown);
    if (grown == NULL) return NULL;
    profile->entries = grown;
    profile->capacity = capacity;
  }
  lqt_profile_entry *entry = &profile->entries[profile->count++];
  *entry = (lqt_profile_entry){.kind = (uint32_t)op->kind, .label = op->label};
  return entry;
}

void lqt__profile_add(lqt__profile *profile, const lqt_op *op, double seconds) {
  lqt_profile_entry *entry = counter_of(profile, op);
  if (entry == NULL) return;
  entry->calls++;
  entry->seconds += seconds;
}

size_t lqt__profile_take(lqt__profile *profile, lqt_profile_entry *out, size_t capacity) {
  const size_t count = profile->count;
  for (size_t i = 0; i < count && i < capacity; i++) out[i] = profile->entries[i];
  profile->count = 0;
  return count;
}

void lqt__profile_destroy(lqt__profile *profile) {
  lqt__free(profile->entries);
  *profile = (lqt__profile){0};
}
