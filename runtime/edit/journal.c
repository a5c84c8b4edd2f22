/* Opening, reading and following a journal. */
#include "edit/journal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/diag.h"
#include "base/hash.h"
#include "edit/journal_internal.h"
#include "format/layout.h"
#include "io/path.h"

typedef unsigned long long ull;

/* Content of one entry; more than any file can have that was not made to exhaust memory. */
static const uint64_t entry_limit = (uint64_t)1 << 44;

char *lqt__journal_path(const char *model_path) {
  static const char ending[] = ".journal";
  char *model = lqt__path_resolve(model_path);
  if (model == NULL) return NULL;
  size_t length = strlen(model);
  char *path = lqt__realloc(model, length + sizeof ending);
  if (path == NULL) {
    lqt__free(model);
    return NULL;
  }
  memcpy(path + length, ending, sizeof ending);
  return path;
}

lqt_status lqt__journal_base_digest(const lqt__file *base, uint8_t out[32], lqt_diag *diag) {
  uint8_t both[LQT__EXTENSION_BYTES + LQT__FOOTER_BYTES];
  memcpy(both, base->data + base->extension_offset, LQT__EXTENSION_BYTES);
  memcpy(both + LQT__EXTENSION_BYTES, base->data + base->footer_offset, LQT__FOOTER_BYTES);
  if (lqt__sha256(both, sizeof both, out) == LQT_OK) return LQT_OK;
  return lqt__fail_memory(diag, "journal", 0, "a digest");
}

/* ---- Life ---- */

static lqt_status create(const char *where, const lqt__journal_policy *policy, lqt__journal **out,
                         lqt_diag *diag) {
  *out = NULL;
  lqt__journal *journal = lqt__alloc_zero(sizeof *journal);
  if (journal == NULL) return lqt__fail_memory(diag, where, sizeof *journal, "a journal");
  journal->where = lqt__strdup(where);
  if (journal->where == NULL) {
    lqt__free(journal);
    return lqt__fail_memory(diag, where, strlen(where), "a file name");
  }
  journal->policy = *policy;
  journal->frame_limit = LQT__FRAME_PAYLOAD_MAX;
  journal->scan.source.where = journal->where;
  lqt_status status = lqt__record_codec_create(&journal->codec, diag);
  if (status != LQT_OK) {
    lqt__journal_close(journal);
    return status;
  }
  *out = journal;
  return LQT_OK;
}

void lqt__journal_close(lqt__journal *journal) {
  if (journal == NULL) return;
  lqt__journal_stop_thread(journal);
  /* Room that was taken ahead is given back; when that fails it is only zeros. */
  if (journal->write && journal->failed == LQT_OK && journal->scan.has_header &&
      journal->allocated > journal->scan.end.offset) {
    (void)!lqt__append_truncate(journal->file, journal->scan.end.offset, NULL);
  }
  if (journal->has_lock) {
    pthread_cond_destroy(&journal->changed);
    pthread_mutex_destroy(&journal->lock);
  }
  lqt__journal_scan_free(&journal->scan);
  lqt__append_close(journal->file);
  lqt__record_codec_destroy(journal->codec);
  lqt__free(journal->frame);
  lqt__free(journal->where);
  lqt__free(journal);
}

lqt_status lqt__journal_open_memory(const uint8_t *data, uint64_t bytes, const char *where,
                                    const lqt__journal_policy *policy, lqt__journal **out,
                                    uint64_t *out_bytes, lqt_diag *diag) {
  *out = NULL;
  *out_bytes = 0;
  lqt__journal *journal;
  LQT__TRY(create(where, policy, &journal, diag));
  journal->scan.source.data = data;
  journal->scan.source.bytes = bytes;
  lqt_status status = lqt__journal_scan_chain(&journal->scan, policy, diag);
  if (status == LQT_OK && !journal->scan.has_header) {
    status = lqt__fail_at(diag, LQT_BAD_JOURNAL, where, 0, "the edit log has no journal there");
  }
  if (status != LQT_OK) {
    lqt__journal_close(journal);
    return status;
  }
  *out_bytes = journal->scan.end.offset;
  *out = journal;
  return LQT_OK;
}

lqt_status lqt__journal_open_last(const lqt__file *base, const char *where,
                                  lqt__journal **out_journal, uint64_t *out_begin, lqt_diag *diag) {
  static const lqt__journal_policy anybody = {0};
  *out_journal = NULL;
  *out_begin = 0;
  const lqt__blob *log = &base->edit_log;
  /* Other programs may have put something else there. */
  if (log->data == NULL || log->bytes < LQT__JOURNAL_HEADER_BYTES ||
      !lqt__journal_magic(log->data)) {
    return LQT_OK;
  }
  uint64_t bytes;
  for (uint64_t at = 0; at < log->bytes; at += bytes) {
    lqt__journal_close(*out_journal);
    *out_begin = at;
    LQT__TRY(lqt__journal_open_memory(log->data + at, log->bytes - at, where, &anybody, out_journal,
                                      &bytes, diag));
  }
  return LQT_OK;
}

lqt_status lqt__journal_kept(const lqt__journal *journal, uint64_t *out_bytes, lqt_diag *diag) {
  const lqt__blob *log = &journal->base->edit_log;
  lqt__journal *last;
  uint64_t begin;
  LQT__TRY(lqt__journal_open_last(journal->base, journal->where, &last, &begin, diag));
  if (last == NULL && log->bytes != 0) {
    return lqt__fail(diag, LQT_UNSUPPORTED, journal->where,
                     "the model's edit log is not a journal; it would be lost");
  }
  bool same = last != NULL && last->scan.header.salt == journal->scan.header.salt;
  *out_bytes = same ? begin : log->bytes;
  lqt__journal_close(last);
  return LQT_OK;
}

/* ---- Opening ---- */

/* How much of the journal the base has absorbed: none of it when it is the journal's base, else all
 * up to the head of the last journal in its edit log, when that is the beginning of this one. */
static lqt_status match_base(lqt__journal *journal, const lqt__journal *last, lqt_diag *diag) {
  uint8_t digest[32];
  LQT__TRY(lqt__journal_base_digest(journal->base, digest, diag));
  if (memcmp(digest, journal->scan.header.base, 32) == 0) return LQT_OK;
  if (journal->has_continues && journal->scan.header.base_revision != 0 &&
      memcmp(journal->continues, journal->scan.header.prior, 32) == 0) {
    return LQT_OK;
  }
  if (last != NULL && last->scan.header.salt == journal->scan.header.salt &&
      memcmp(last->scan.header.base, journal->scan.header.base, 32) == 0) {
    size_t count = last->scan.count;
    if (count == 0) return LQT_OK;
    if (count <= journal->scan.count && memcmp(journal->scan.commits[count - 1].hash,
                                               last->scan.commits[count - 1].hash, 32) == 0) {
      journal->first = count;
      return LQT_OK;
    }
  }
  return lqt__fail(diag, LQT_WRONG_BASE, journal->where,
                   "the journal belongs to another version of the model file; bring that back, or "
                   "move the journal away");
}

static lqt_status recover(lqt__journal *journal, const lqt__journal *last,
                          lqt__journal_recovery *recovery, lqt_diag *diag) {
  static const uint8_t none[32];
  lqt__journal_scan *scan = &journal->scan;
  if (!scan->has_header) {
    recovery->created = true;
    return lqt__journal_start(journal, last != NULL ? last->scan.end.revision : 0,
                              last != NULL ? last->scan.end.hash : none, diag);
  }
  journal->allocated = scan->source.bytes;
  if (scan->tail == LQT__TAIL_TORN) {
    recovery->dropped_at = scan->end.offset;
    recovery->dropped_bytes = scan->used - scan->end.offset;
    LQT__TRY(lqt__append_truncate(journal->file, scan->end.offset, diag));
    LQT__TRY(lqt__append_sync(journal->file, diag));
    journal->allocated = scan->used = scan->end.offset;
    scan->tail = LQT__TAIL_CLEAN;
  }
  if (journal->first > 0 && journal->first == scan->count) {
    recovery->absorbed = true;
    LQT__TRY(lqt__journal_restart(journal, journal->base, diag));
  }
  journal->at = scan->end;
  journal->written = scan->end.offset;
  journal->durable = scan->end.offset;
  return LQT_OK;
}

static lqt_status open_file(lqt__journal *journal, const char *path,
                            const lqt__journal_options *options, lqt__journal_recovery *recovery,
                            lqt_diag *diag) {
  lqt__append_mode mode = !options->write   ? LQT__APPEND_READ
                          : options->create ? LQT__APPEND_CREATE
                                            : LQT__APPEND_WRITE;
  LQT__TRY(lqt__append_open(path, mode, &journal->file, diag));
  journal->scan.source.file = journal->file;
  journal->base = options->base;
  journal->sign = options->sign;
  journal->has_continues = !options->write && options->continues != NULL;
  if (journal->has_continues) memcpy(journal->continues, options->continues, 32);
  lqt__journal *last = NULL;
  uint64_t begin;
  lqt_status status = lqt__journal_source_refresh(&journal->scan.source, diag);
  bool empty = lqt__append_was_created(journal->file) ||
               (status == LQT_OK && journal->scan.source.bytes == 0);
  if (status == LQT_OK) status = lqt__journal_scan_run(&journal->scan, &journal->policy, diag);
  if (status == LQT_OK) {
    status = lqt__journal_open_last(journal->base, journal->where, &last, &begin, diag);
  }
  if (status == LQT_OK && journal->scan.has_header) status = match_base(journal, last, diag);
  if (status == LQT_OK && options->write) {
    journal->has_lock = pthread_mutex_init(&journal->lock, NULL) == 0 &&
                        pthread_cond_init(&journal->changed, NULL) == 0;
    status = journal->has_lock ? recover(journal, last, recovery, diag)
                               : lqt__fail_memory(diag, journal->where, 0, "a lock");
    journal->write = status == LQT_OK;
  }
  /* A journal that could not be begun is not left behind. */
  if (status != LQT_OK && options->write && empty) lqt__append_remove(journal->file);
  lqt__journal_close(last);
  return status;
}

lqt_status lqt__journal_open(const char *path, const lqt__journal_options *options,
                             lqt__journal **out, lqt__journal_recovery *out_recovery,
                             lqt_diag *diag) {
  *out = NULL;
  lqt__journal_recovery recovery = {0};
  if (out_recovery != NULL) *out_recovery = recovery;
  if (options->sign != NULL && !lqt__key_can_sign(options->sign)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, path,
                     "a public key cannot sign; give the private one");
  }
  lqt__journal *journal;
  LQT__TRY(create(path, &options->policy, &journal, diag));
  lqt_status status = open_file(journal, path, options, &recovery, diag);
  if (status != LQT_OK) {
    lqt__journal_close(journal);
    return status;
  }
  if (out_recovery != NULL) *out_recovery = recovery;
  *out = journal;
  return LQT_OK;
}

/* ---- Looking ---- */

const char *lqt__journal_where(const lqt__journal *journal) { return journal->where; }
const lqt__journal_header *lqt__journal_get_header(const lqt__journal *journal) {
  return &journal->scan.header;
}
size_t lqt__journal_count(const lqt__journal *journal) { return journal->scan.count; }
size_t lqt__journal_first(const lqt__journal *journal) { return journal->first; }
const lqt__journal_commit *lqt__journal_get_commit(const lqt__journal *journal, size_t index) {
  return index < journal->scan.count ? &journal->scan.commits[index] : NULL;
}
uint64_t lqt__journal_revision(const lqt__journal *journal) { return journal->scan.end.revision; }
void lqt__journal_head(const lqt__journal *journal, uint8_t out[32]) {
  memcpy(out, journal->scan.end.hash, 32);
}

bool lqt__journal_has_head(const lqt__journal *journal, const uint8_t hash[32]) {
  if (memcmp(journal->scan.start_hash, hash, 32) == 0) return true;
  for (size_t i = journal->scan.count; i-- > 0;) {
    if (memcmp(journal->scan.commits[i].hash, hash, 32) == 0) return true;
  }
  return false;
}

bool lqt__journal_is_begun(const lqt__journal *journal) { return journal->scan.has_header; }

lqt_status lqt__journal_has_writer(lqt__journal *journal, bool *out_has, lqt_diag *diag) {
  return lqt__append_has_writer(journal->file, out_has, diag);
}

uint64_t lqt__journal_torn_bytes(const lqt__journal *journal) {
  const lqt__journal_scan *scan = &journal->scan;
  return scan->tail == LQT__TAIL_TORN ? scan->used - scan->end.offset : 0;
}

/* ---- Reading ---- */

/* The payloads of a transaction's frames, one after the other. */
typedef struct payload {
  lqt__journal *journal;
  uint64_t offset, end; /* the next frame; the end of the last */
  const uint8_t *bytes;
  uint32_t left;
} payload;

static lqt_status bad_end(const payload *p, lqt_diag *diag) {
  return lqt__fail_at(diag, LQT_BAD_JOURNAL, p->journal->where, p->offset,
                      "the content of a transaction does not fit its frames");
}

static lqt_status next_frame(payload *p, lqt_diag *diag) {
  lqt__frame frame;
  const uint8_t *bytes;
  if (p->offset >= p->end) return bad_end(p, diag);
  LQT__TRY(lqt__journal_scan_frame(&p->journal->scan, p->offset, &frame, &bytes, diag));
  if (bytes == NULL) return bad_end(p, diag);
  p->bytes = bytes + LQT__FRAME_HEADER_BYTES;
  p->left = frame.payload_bytes;
  p->offset += lqt__frame_bytes(frame.payload_bytes, frame.flags);
  return LQT_OK;
}

static lqt_status take_payload(void *user, void *out, size_t bytes, lqt_diag *diag) {
  payload *p = user;
  uint8_t *to = out;
  while (bytes > 0) {
    while (p->left == 0) LQT__TRY(next_frame(p, diag));
    size_t part = bytes < p->left ? bytes : p->left;
    if (to != NULL) {
      memcpy(to, p->bytes, part);
      to += part;
    }
    bytes -= part;
    p->bytes += part;
    p->left -= (uint32_t)part;
  }
  return LQT_OK;
}

static lqt_status read_entry(lqt__journal *journal, size_t index, bool content,
                             lqt__journal_entry *out, lqt_diag *diag) {
  *out = (lqt__journal_entry){0};
  const lqt__journal_commit *commit = lqt__journal_get_commit(journal, index);
  if (commit == NULL) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, journal->where, "there is no transaction %zu", index);
  }
  payload p = {.journal = journal, .offset = commit->offset, .end = commit->end};
  LQT__TRY(lqt__record_read(journal->codec, take_payload, &p, entry_limit, content, out, diag));
  lqt_status status = LQT_OK;
  if (p.left != 0 || p.offset != p.end) status = bad_end(&p, diag);
  if (out->revision != commit->revision) {
    status = lqt__fail_at(diag, LQT_BAD_JOURNAL, journal->where, commit->offset,
                          "a transaction of revision %llu is framed as revision %llu",
                          (ull)out->revision, (ull)commit->revision);
  }
  if (status != LQT_OK) lqt__entry_free(out);
  return status;
}

lqt_status lqt__journal_read(lqt__journal *journal, size_t index, lqt__journal_entry *out,
                             lqt_diag *diag) {
  return read_entry(journal, index, true, out, diag);
}

lqt_status lqt__journal_look(lqt__journal *journal, size_t index, lqt__journal_entry *out,
                             lqt_diag *diag) {
  return read_entry(journal, index, false, out, diag);
}

/* ---- Following ---- */

/* The end that was read is still the file's: the last frame's CRC stands where it stood. */
static lqt_status check_end(lqt__journal *journal, const uint8_t before[4], lqt_diag *diag) {
  uint8_t now[4];
  size_t got;
  LQT__TRY(lqt__append_read(journal->file, journal->scan.end.offset - 4, now, 4, &got, diag));
  if (got == 4 && memcmp(now, before, 4) == 0) return LQT_OK;
  return lqt__fail(diag, LQT_STALE_REVISION, journal->where,
                   "the end of the journal was taken back; open it again");
}

lqt_status lqt__journal_poll(lqt__journal *journal, size_t *out_new, lqt_diag *diag) {
  lqt__journal_scan *scan = &journal->scan;
  *out_new = 0;
  size_t before = scan->count;
  if (journal->file == NULL || journal->write) return LQT_OK;
  bool replaced;
  LQT__TRY(lqt__append_was_replaced(journal->file, &replaced, diag));
  scan->source.ahead = 4096; /* there is little to expect */
  lqt_status status;
  if (scan->has_header) {
    LQT__TRY(check_end(journal, scan->end_crc, diag));
    LQT__TRY(lqt__journal_source_refresh(&scan->source, diag));
    status = lqt__journal_scan_more(scan, &journal->policy, diag);
  } else {
    LQT__TRY(lqt__journal_source_refresh(&scan->source, diag));
    status = lqt__journal_scan_run(scan, &journal->policy, diag);
    if (status == LQT_OK && scan->has_header) {
      lqt__journal *last;
      uint64_t begin;
      status = lqt__journal_open_last(journal->base, journal->where, &last, &begin, diag);
      if (status == LQT_OK) status = match_base(journal, last, diag);
      lqt__journal_close(last);
    }
  }
  *out_new = scan->count - before;
  if (status == LQT_OK && *out_new == 0 && replaced) {
    return lqt__fail(diag, LQT_STALE_REVISION, journal->where,
                     "the journal was replaced; open it again");
  }
  return status;
}
