#include "edit/journal_scan.h"

#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/hash.h"
#include "format/bytes.h"

typedef unsigned long long ull;

enum { WINDOW = 1 << 20 };

/* ---- Bytes ---- */

void lqt__journal_source_free(lqt__journal_source *source) {
  lqt__free(source->window);
  *source = (lqt__journal_source){0};
}

static lqt_status reserve_window(lqt__journal_source *source, size_t bytes, lqt_diag *diag) {
  if (source->capacity >= bytes) return LQT_OK;
  uint8_t *window = lqt__alloc(bytes);
  if (window == NULL) return lqt__fail_memory(diag, source->where, bytes, "a part of the journal");
  lqt__free(source->window);
  source->window = window;
  source->capacity = bytes;
  source->count = 0;
  return LQT_OK;
}

lqt_status lqt__journal_source_read(lqt__journal_source *source, uint64_t offset, size_t bytes,
                                    const uint8_t **out, lqt_diag *diag) {
  *out = NULL;
  if (offset > source->bytes || bytes > source->bytes - offset) return LQT_OK;
  if (source->file == NULL) {
    *out = source->data != NULL ? source->data + offset : NULL;
    return LQT_OK;
  }
  if (offset < source->begin || offset + bytes > source->begin + source->count) {
    uint64_t rest = source->bytes - offset;
    size_t ahead = source->ahead != 0 ? source->ahead : WINDOW;
    size_t want = bytes > ahead ? bytes : rest < ahead ? (size_t)rest : ahead;
    LQT__TRY(reserve_window(source, want, diag));
    size_t got;
    source->begin = offset;
    source->count = 0;
    LQT__TRY(lqt__append_read(source->file, offset, source->window, want, &got, diag));
    source->count = got;
    if (got < bytes) return LQT_OK; /* the file became shorter */
  }
  /* (No bytes of an empty journal: there is no window to point into.) */
  *out = source->window != NULL ? source->window + (offset - source->begin) : NULL;
  return LQT_OK;
}

lqt_status lqt__journal_source_refresh(lqt__journal_source *source, lqt_diag *diag) {
  if (source->file == NULL) return LQT_OK;
  source->count = 0;
  return lqt__append_size(source->file, &source->bytes, diag);
}

/* ---- Frames ---- */

lqt_status lqt__journal_scan_frame(lqt__journal_scan *scan, uint64_t offset, lqt__frame *out,
                                   const uint8_t **out_bytes, lqt_diag *diag) {
  *out_bytes = NULL;
  const uint8_t *bytes;
  LQT__TRY(lqt__journal_source_read(&scan->source, offset, LQT__FRAME_HEADER_BYTES, &bytes, diag));
  if (bytes == NULL || !lqt__frame_load(bytes, out) || out->salt != scan->header.salt)
    return LQT_OK;
  size_t total = lqt__frame_bytes(out->payload_bytes, out->flags);
  LQT__TRY(lqt__journal_source_read(&scan->source, offset, total, &bytes, diag));
  if (bytes != NULL && lqt__frame_whole(out, bytes)) *out_bytes = bytes;
  return LQT_OK;
}

static lqt_status fail_frame(const lqt__journal_scan *scan, lqt_status status,
                             const lqt__journal_position *at, const char *what, lqt_diag *diag) {
  return lqt__fail_at(diag, status, scan->source.where, at->offset,
                      "frame %llu (transaction %zu) %s", (ull)at->number, scan->count, what);
}

static const char *disorder(const lqt__frame *frame, const lqt__journal_position *at) {
  if (frame->offset != at->offset || frame->number != at->number || frame->part != at->part) {
    return "belongs in another place: frames were moved, dropped or copied";
  }
  if (memcmp(frame->previous, at->hash, 32) != 0) {
    return "does not continue the chain of hashes: a frame before it was changed";
  }
  bool follows = at->part == 0 ? frame->revision > at->revision : frame->revision == at->revision;
  return follows ? NULL : "has a revision that does not follow";
}

static bool is_required(const lqt__journal_policy *policy, const uint8_t key[32]) {
  for (size_t i = 0; i < policy->count; i++) {
    if (memcmp(policy->keys[i], key, 32) == 0) return true;
  }
  return false;
}

static lqt_status check_signature(const lqt__journal_scan *scan, const lqt__frame *frame,
                                  const uint8_t *bytes, const lqt__journal_position *at,
                                  const lqt__journal_policy *policy, bool in_full, lqt_diag *diag) {
  if ((frame->flags & LQT__FRAME_SIGNED) == 0) {
    if (policy->count == 0) return LQT_OK;
    return fail_frame(scan, LQT_BAD_SIGNATURE, at, "is not signed, and a key is required", diag);
  }
  if (policy->count != 0 && !is_required(policy, lqt__frame_signature(frame, bytes))) {
    return fail_frame(scan, LQT_BAD_SIGNATURE, at,
                      "is signed with a key that is not the required one", diag);
  }
  if (!in_full) return LQT_OK;
  bool good;
  LQT__TRY(lqt__frame_check_signature(frame, bytes, &good, diag));
  if (good) return LQT_OK;
  return fail_frame(scan, LQT_BAD_SIGNATURE, at, "has a signature that is not its key's", diag);
}

lqt_status lqt__journal_scan_reserve(lqt__journal_scan *scan, lqt_diag *diag) {
  if (scan->count < scan->capacity) return LQT_OK;
  size_t capacity = scan->capacity * 2 + 16;
  lqt__journal_commit *commits = lqt__realloc(scan->commits, capacity * sizeof *commits);
  if (commits == NULL) {
    return lqt__fail_memory(diag, scan->source.where, capacity * sizeof *commits,
                            "the list of transactions");
  }
  scan->commits = commits;
  scan->capacity = capacity;
  return LQT_OK;
}

void lqt__journal_scan_push(lqt__journal_scan *scan, const lqt__journal_commit *commit) {
  scan->commits[scan->count++] = *commit;
}

/* One step along the chain from *at; *out_moved is false where no whole frame stands. Commits move
 * scan->end. */
static lqt_status step(lqt__journal_scan *scan, const lqt__journal_policy *policy,
                       lqt__journal_position *at, bool *out_moved, lqt_diag *diag) {
  lqt__frame frame;
  const uint8_t *bytes;
  *out_moved = false;
  LQT__TRY(lqt__journal_scan_frame(scan, at->offset, &frame, &bytes, diag));
  if (bytes == NULL) return LQT_OK;
  const char *wrong = disorder(&frame, at);
  if (wrong != NULL) return fail_frame(scan, LQT_BAD_JOURNAL, at, wrong, diag);
  bool commit = (frame.flags & LQT__FRAME_COMMIT) != 0;
  if (commit) {
    LQT__TRY(check_signature(scan, &frame, bytes, at, policy, policy->every_signature, diag));
  }
  lqt__journal_position next = {
      .offset = at->offset + lqt__frame_bytes(frame.payload_bytes, frame.flags),
      .number = at->number + 1,
      .revision = frame.revision,
      .part = commit ? 0 : at->part + 1};
  if (lqt__frame_hash(&frame, bytes, next.hash) != LQT_OK) {
    return lqt__fail_memory(diag, scan->source.where, 0, "a digest");
  }
  if (commit) {
    lqt__journal_commit made = {.offset = scan->end.offset,
                                .end = next.offset,
                                .revision = frame.revision,
                                .frames = frame.part + 1,
                                .is_signed = (frame.flags & LQT__FRAME_SIGNED) != 0};
    memcpy(made.hash, next.hash, 32);
    if (made.is_signed) memcpy(made.key, lqt__frame_signature(&frame, bytes), 32);
    LQT__TRY(lqt__journal_scan_reserve(scan, diag));
    lqt__journal_scan_push(scan, &made);
    scan->end = next;
    memcpy(scan->end_crc, bytes + lqt__frame_bytes(frame.payload_bytes, frame.flags) - 4, 4);
  }
  *at = next;
  *out_moved = true;
  return LQT_OK;
}

/* ---- Behind the chain ---- */

/* Looks behind `at`, where no whole frame stands, for frames that say that these bytes were on the
 * disk once: an interrupted write cannot leave that. Also finds the last byte that is not zero. */
static lqt_status look_behind(lqt__journal_scan *scan, uint64_t at, bool *out_damaged,
                              lqt_diag *diag) {
  *out_damaged = false;
  for (uint64_t offset = scan->end.offset; offset < scan->source.bytes; offset += 8) {
    size_t count = scan->source.bytes - offset < 8 ? (size_t)(scan->source.bytes - offset) : 8;
    const uint8_t *bytes;
    LQT__TRY(lqt__journal_source_read(&scan->source, offset, count, &bytes, diag));
    if (bytes == NULL) break;
    if (lqt__all_zero(bytes, count)) continue;
    scan->used = offset + count;
    scan->tail = LQT__TAIL_TORN;
    if (offset <= at || count < 4 || lqt__load_u32(bytes, false) != LQT__FRAME_MAGIC) continue;
    lqt__frame frame;
    LQT__TRY(lqt__journal_scan_frame(scan, offset, &frame, &bytes, diag));
    if (bytes != NULL && frame.offset == offset && frame.durable > at) {
      *out_damaged = true;
      return LQT_OK;
    }
  }
  return LQT_OK;
}

static lqt_status check_last_signature(lqt__journal_scan *scan, const lqt__journal_policy *policy,
                                       lqt_diag *diag) {
  if (scan->count == 0 || policy->every_signature) return LQT_OK;
  const lqt__journal_commit *last = &scan->commits[scan->count - 1];
  /* The last frame of the transaction is the one that is signed; walk to it. */
  uint64_t offset = last->offset;
  for (uint32_t i = 0; i < last->frames; i++) {
    lqt__frame frame;
    const uint8_t *bytes;
    LQT__TRY(lqt__journal_scan_frame(scan, offset, &frame, &bytes, diag));
    if (bytes == NULL) break;
    lqt__journal_position at = {.offset = offset, .number = frame.number};
    if (i + 1 == last->frames) {
      return check_signature(scan, &frame, bytes, &at, policy, true, diag);
    }
    offset += lqt__frame_bytes(frame.payload_bytes, frame.flags);
  }
  return lqt__fail(diag, LQT_BAD_JOURNAL, scan->source.where,
                   "the journal changed while it was read");
}

static lqt_status walk(lqt__journal_scan *scan, const lqt__journal_policy *policy,
                       lqt__journal_position *at, lqt_diag *diag) {
  bool moved;
  do {
    LQT__TRY(step(scan, policy, at, &moved, diag));
  } while (moved);
  scan->used = scan->end.offset;
  scan->tail = LQT__TAIL_CLEAN;
  return LQT_OK;
}

lqt_status lqt__journal_scan_more(lqt__journal_scan *scan, const lqt__journal_policy *policy,
                                  lqt_diag *diag) {
  lqt__journal_position at = scan->end;
  size_t before = scan->count;
  LQT__TRY(walk(scan, policy, &at, diag));
  return scan->count != before ? check_last_signature(scan, policy, diag) : LQT_OK;
}

/* Walks, and looks at what stands behind. */
static lqt_status walk_to_end(lqt__journal_scan *scan, const lqt__journal_policy *policy,
                              lqt_diag *diag) {
  lqt__journal_position at = scan->end;
  for (;;) {
    bool damaged, moved;
    LQT__TRY(walk(scan, policy, &at, diag));
    LQT__TRY(look_behind(scan, at.offset, &damaged, diag));
    if (!damaged) return check_last_signature(scan, policy, diag);
    /* Unless a writer has finished the frame meanwhile. */
    LQT__TRY(lqt__journal_source_refresh(&scan->source, diag));
    lqt__journal_position again = at;
    LQT__TRY(step(scan, policy, &again, &moved, diag));
    if (!moved) {
      return fail_frame(scan, LQT_BAD_JOURNAL, &at,
                        "was changed after it had been written to the disk", diag);
    }
    at = again;
  }
}

lqt_status lqt__journal_scan_begin(lqt__journal_scan *scan, const uint8_t header[128],
                                   lqt_diag *diag) {
  scan->has_header = true;
  scan->count = 0;
  scan->tail = LQT__TAIL_CLEAN;
  scan->used = LQT__JOURNAL_HEADER_BYTES;
  scan->end = (lqt__journal_position){.offset = LQT__JOURNAL_HEADER_BYTES,
                                      .revision = scan->header.base_revision};
  memcpy(scan->end_crc, header + LQT__JOURNAL_HEADER_BYTES - 4, 4);
  if (lqt__sha256(header, LQT__JOURNAL_HEADER_BYTES, scan->start_hash) == LQT_OK) {
    memcpy(scan->end.hash, scan->start_hash, 32);
    return LQT_OK;
  }
  return lqt__fail_memory(diag, scan->source.where, 0, "a digest");
}

/* No whole header: an interrupted creation has nothing behind it. */
static lqt_status without_header(lqt__journal_scan *scan, lqt_diag *diag) {
  const char *where = scan->source.where;
  uint8_t head[LQT__JOURNAL_HEADER_BYTES] = {0};
  uint64_t bytes = scan->source.bytes;
  size_t count = bytes < sizeof head ? (size_t)bytes : sizeof head;
  const uint8_t *data;
  LQT__TRY(lqt__journal_source_read(&scan->source, 0, count, &data, diag));
  if (data != NULL) memcpy(head, data, count);
  if (!lqt__journal_magic_torn(head)) {
    return lqt__fail_at(diag, LQT_BAD_MAGIC, where, 0, "not a journal; move the file away");
  }
  uint32_t version = lqt__load_u32(head + 8, false);
  if (version > LQT__JOURNAL_VERSION &&
      lqt__load_u32(head + 124, false) == lqt__crc32(0, head, 124)) {
    return lqt__fail_at(diag, LQT_BAD_VERSION, where, 8,
                        "a journal of version %u; this library reads version %d", version,
                        LQT__JOURNAL_VERSION);
  }
  for (uint64_t offset = sizeof head; offset < bytes;) {
    uint64_t part = bytes - offset < WINDOW ? bytes - offset : (uint64_t)WINDOW;
    LQT__TRY(lqt__journal_source_read(&scan->source, offset, (size_t)part, &data, diag));
    if (data != NULL && !lqt__all_zero(data, part)) {
      return lqt__fail_at(diag, LQT_BAD_JOURNAL, where, 0,
                          "the header was changed after it had been written to the disk");
    }
    offset += part;
  }
  scan->has_header = false;
  scan->used = count;
  scan->tail = lqt__all_zero(head, sizeof head) ? LQT__TAIL_CLEAN : LQT__TAIL_TORN;
  return LQT_OK;
}

/* *out_found: a whole header, and the chain begins. */
static lqt_status read_header(lqt__journal_scan *scan, bool *out_found, lqt_diag *diag) {
  const uint8_t *bytes;
  LQT__TRY(lqt__journal_source_read(&scan->source, 0, LQT__JOURNAL_HEADER_BYTES, &bytes, diag));
  *out_found = bytes != NULL && lqt__journal_header_load(bytes, &scan->header);
  return *out_found ? lqt__journal_scan_begin(scan, bytes, diag) : without_header(scan, diag);
}

lqt_status lqt__journal_scan_run(lqt__journal_scan *scan, const lqt__journal_policy *policy,
                                 lqt_diag *diag) {
  bool found;
  LQT__TRY(read_header(scan, &found, diag));
  return found ? walk_to_end(scan, policy, diag) : LQT_OK;
}

lqt_status lqt__journal_scan_chain(lqt__journal_scan *scan, const lqt__journal_policy *policy,
                                   lqt_diag *diag) {
  bool found;
  LQT__TRY(read_header(scan, &found, diag));
  return found ? lqt__journal_scan_more(scan, policy, diag) : LQT_OK;
}

void lqt__journal_scan_free(lqt__journal_scan *scan) {
  lqt__journal_source_free(&scan->source);
  lqt__free(scan->commits);
  scan->commits = NULL;
  scan->count = scan->capacity = 0;
}
