#include "support/journal_sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/diag.h"
#include "base/hash.h"

void sample_base_make(sample_base *base, uint64_t seed) {
  lqt__random random = lqt__random_seed(seed);
  for (size_t i = 0; i < sizeof base->bytes; i++)
    base->bytes[i] = (uint8_t)lqt__random_u64(&random);
  base->file = (lqt__file){
      .data = base->bytes, .bytes = sizeof base->bytes, .extension_offset = 0, .footer_offset = 64};
}

/* The tests' own allocations are not the ones to fail: the entry is freed by lqt__free, which is
 * free. */
static void *fresh(size_t bytes) {
  void *pointer = calloc(1, bytes != 0 ? bytes : 1);
  if (pointer == NULL) exit(1);
  return pointer;
}

static uint8_t *fill(lqt__random *random, uint64_t bytes, bool compressible) {
  uint8_t *data = fresh((size_t)bytes);
  for (uint64_t i = 0; i < bytes; i += 8) {
    uint64_t value = compressible ? lqt__random_below(random, 3) : lqt__random_u64(random);
    memcpy(data + i, &value, bytes - i < 8 ? (size_t)(bytes - i) : 8);
  }
  return data;
}

static char *text(lqt__random *random, const char *stem) {
  char *out = fresh(64);
  snprintf(out, 64, "%s %u", stem, lqt__random_below(random, 1000));
  return out;
}

static void make_change(lqt__random *random, uint64_t large, lqt__change *out) {
  uint32_t kind = large != 0 ? LQT__CHANGE_BYTES : 1 + lqt__random_below(random, 3);
  *out = (lqt__change){.kind = (lqt__change_kind)kind,
                       .what = (uint16_t)lqt__random_below(random, 8),
                       .id = (uint16_t)lqt__random_below(random, 65536),
                       .offset = lqt__random_below(random, 1 << 20),
                       .has_old = true,
                       .has_new = true};
  if (lqt__random_below(random, 2) != 0) out->name = text(random, "tensor");
  out->bytes = large != 0 ? large : lqt__random_below(random, 400);
  out->old_bytes = out->bytes;
  if (kind != LQT__CHANGE_BYTES) {
    uint32_t form = lqt__random_below(random, 4);
    out->has_old = form != 0;
    out->has_new = form != 1;
    out->by_reference = form == 2;
    if (out->has_old) out->old_bytes = lqt__random_below(random, 300);
  }
  if (!out->has_old) out->old_bytes = 0;
  if (!out->has_new) out->bytes = 0;
  if (out->has_old) out->old_data = fill(random, out->old_bytes, true);
  if (out->has_new) out->data = fill(random, out->bytes, large == 0);
}

void sample_entry(uint64_t seed, uint64_t revision, uint64_t large, lqt__journal_entry *out) {
  lqt__random random = lqt__random_seed(seed * 1000003 + revision);
  *out = (lqt__journal_entry){.revision = revision,
                              .timestamp_ns = lqt__random_u64(&random),
                              .flags = lqt__random_below(&random, 16),
                              .reference = lqt__random_below(&random, 1000),
                              .expires_ns = lqt__random_u64(&random),
                              .expires_steps = lqt__random_below(&random, 1000),
                              .user = (uint16_t)lqt__random_below(&random, 65536)};
  if (lqt__random_below(&random, 2) != 0) out->actor = text(&random, "actor");
  if (lqt__random_below(&random, 2) != 0) out->reason = text(&random, "");
  out->operation_count = lqt__random_below(&random, 3);
  out->operations = fresh(out->operation_count * sizeof *out->operations);
  for (size_t i = 0; i < out->operation_count; i++) {
    lqt__operation *operation = &out->operations[i];
    *operation = (lqt__operation){.operation = (uint8_t)lqt__random_below(&random, 256),
                                  .target_kind = (uint8_t)lqt__random_below(&random, 8),
                                  .target_id = (uint16_t)lqt__random_below(&random, 65536),
                                  .payload_bytes = lqt__random_below(&random, 100)};
    operation->payload = fill(&random, operation->payload_bytes, false);
    if (lqt__random_below(&random, 2) != 0) operation->target = text(&random, "target");
    if (lqt__random_below(&random, 4) == 0) {
      operation->file = text(&random, "file");
      memset(operation->file_sha256, (int)lqt__random_below(&random, 256), 32);
    }
  }
  out->change_count = 1 + lqt__random_below(&random, 3);
  out->changes = fresh(out->change_count * sizeof *out->changes);
  for (size_t i = 0; i < out->change_count; i++) {
    make_change(&random, i == 0 ? large : 0, &out->changes[i]);
  }
}

static bool same_text(const char *a, const char *b) {
  return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

static bool has_digest(const uint8_t *data, uint64_t bytes, const uint8_t digest[32]) {
  uint8_t own[32];
  return lqt__sha256(data, bytes, own) == LQT_OK && memcmp(own, digest, 32) == 0;
}

static bool same_change(const lqt__change *a, const lqt__change *b) {
  if (a->kind != b->kind || a->what != b->what || a->id != b->id || a->offset != b->offset ||
      a->has_old != b->has_old || a->has_new != b->has_new || a->by_reference != b->by_reference ||
      a->bytes != b->bytes || a->old_bytes != b->old_bytes || !same_text(a->name, b->name)) {
    return false;
  }
  if (a->has_old && !has_digest(a->old_data, a->old_bytes, b->old_sha256)) return false;
  if (!a->has_new) return true;
  return a->by_reference ? has_digest(a->data, a->bytes, b->sha256)
                         : a->bytes == 0 || memcmp(a->data, b->data, (size_t)a->bytes) == 0;
}

bool sample_same(const lqt__journal_entry *a, const lqt__journal_entry *b, const char **out_what) {
  *out_what = "fields";
  if (a->revision != b->revision || a->timestamp_ns != b->timestamp_ns || a->flags != b->flags ||
      a->reference != b->reference || a->expires_ns != b->expires_ns ||
      a->expires_steps != b->expires_steps || a->user != b->user ||
      !same_text(a->actor, b->actor) || !same_text(a->reason, b->reason)) {
    return false;
  }
  *out_what = "operations";
  if (a->operation_count != b->operation_count) return false;
  for (size_t i = 0; i < a->operation_count; i++) {
    const lqt__operation *x = &a->operations[i], *y = &b->operations[i];
    if (x->operation != y->operation || x->target_kind != y->target_kind ||
        x->target_id != y->target_id || x->payload_bytes != y->payload_bytes ||
        !same_text(x->target, y->target) || !same_text(x->file, y->file) ||
        (x->file != NULL && memcmp(x->file_sha256, y->file_sha256, 32) != 0) ||
        (x->payload_bytes != 0 && memcmp(x->payload, y->payload, x->payload_bytes) != 0)) {
      return false;
    }
  }
  *out_what = "changes";
  if (a->change_count != b->change_count) return false;
  for (size_t i = 0; i < a->change_count; i++) {
    if (!same_change(&a->changes[i], &b->changes[i])) return false;
  }
  return true;
}

bool sample_check(lqt__journal *journal, size_t index, uint64_t seed, uint64_t large,
                  lqt_diag *diag) {
  const lqt__journal_commit *commit = lqt__journal_get_commit(journal, index);
  lqt__journal_entry wanted, got;
  if (commit == NULL || lqt__journal_read(journal, index, &got, diag) != LQT_OK) return false;
  sample_entry(seed, commit->revision, large, &wanted);
  const char *what;
  bool same = sample_same(&wanted, &got, &what);
  if (!same) (void)lqt__fail(diag, LQT_INTERNAL, "test", "other %s were read", what);
  lqt__entry_free(&wanted);
  lqt__entry_free(&got);
  return same;
}
