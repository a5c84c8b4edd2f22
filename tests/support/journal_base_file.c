#include "support/journal_base_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "support/journal_sample.h"

enum { HEAD = 128 };

lqt_status base_file_write(const char *path, uint64_t seed, uint64_t revision, const uint8_t *log,
                           uint64_t log_bytes, lqt_diag *diag) {
  uint8_t *bytes = malloc(HEAD + (size_t)log_bytes);
  if (bytes == NULL) exit(1);
  lqt__random random = lqt__random_seed(seed + revision);
  for (size_t i = 0; i < HEAD; i++) bytes[i] = (uint8_t)lqt__random_u64(&random);
  memcpy(bytes, &revision, sizeof revision);
  if (log_bytes > 0) memcpy(bytes + HEAD, log, (size_t)log_bytes);
  lqt_status status = lqt__file_write(path, bytes, HEAD + (size_t)log_bytes, diag);
  free(bytes);
  return status;
}

lqt_status base_file_read(const char *path, base_file *out, lqt_diag *diag) {
  *out = (base_file){0};
  lqt_status status = lqt__map_open(path, &out->map, diag);
  if (status != LQT_OK) return status;
  memcpy(&out->revision, out->map.data, sizeof out->revision);
  out->file = (lqt__file){.data = out->map.data, .bytes = out->map.bytes, .footer_offset = 64};
  if (out->map.bytes > HEAD) {
    out->file.edit_log = (lqt__blob){.data = out->map.data + HEAD, .bytes = out->map.bytes - HEAD};
  }
  return LQT_OK;
}

void base_file_free(base_file *base) { lqt__map_close(&base->map); }

uint64_t base_file_history(const base_file *base) { return base->file.edit_log.bytes; }

bool base_file_check_entry(lqt__journal *journal, size_t index, uint64_t seed, uint64_t every,
                           uint64_t large, uint64_t revision) {
  lqt__journal_entry wanted, got;
  lqt_diag diag = {0};
  if (lqt__journal_read(journal, index, &got, &diag) != LQT_OK) {
    fprintf(stderr, "revision %llu: %s\n", (unsigned long long)revision, diag.what);
    return false;
  }
  sample_entry(seed, revision, revision % every == 0 ? large : 0, &wanted);
  wanted.flags |= got.flags & LQT__ENTRY_ROLLBACK;
  const char *what;
  bool same = sample_same(&wanted, &got, &what);
  if (!same) fprintf(stderr, "revision %llu has other %s\n", (unsigned long long)revision, what);
  lqt__entry_free(&wanted);
  lqt__entry_free(&got);
  return same;
}

bool base_file_check(const base_file *base, uint64_t seed, uint64_t every, uint64_t large,
                     uint64_t *out_revision) {
  static const lqt__journal_policy anybody = {0};
  const lqt__blob *log = &base->file.edit_log;
  *out_revision = 0;
  uint64_t bytes;
  for (uint64_t at = 0; at < log->bytes; at += bytes) {
    lqt__journal *part;
    lqt_diag diag = {0};
    if (lqt__journal_open_memory(log->data + at, log->bytes - at, "base", &anybody, &part, &bytes,
                                 &diag) != LQT_OK) {
      fprintf(stderr, "the edit log: %s\n", diag.what);
      return false;
    }
    bool same = true;
    for (size_t i = 0; i < lqt__journal_count(part) && same; i++) {
      same = base_file_check_entry(part, i, seed, every, large, ++*out_revision);
    }
    lqt__journal_close(part);
    if (!same) return false;
  }
  return true;
}
