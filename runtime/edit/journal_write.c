/* Appending to a journal: frames, room taken ahead, syncing, and the way back when one fails. */
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "edit/journal_internal.h"

typedef unsigned long long ull;

/* Room is taken ahead in zeros, so that most commits change nothing but the bytes of the file: a
 * sync then has no size and no blocks to write down. */
enum { AHEAD_LEAST = 64 << 10, AHEAD_MOST = 1 << 20, AHEAD_FRAME = 1 << 20 };
/* How long a group may gather. */
enum { GROUP_NS = 2000000 };

static lqt_status make_header(const lqt__file *base, uint64_t base_revision,
                              const uint8_t prior[32], lqt__journal_header *out,
                              uint8_t bytes[LQT__JOURNAL_HEADER_BYTES], lqt_diag *diag) {
  struct timespec now = {0};
  clock_gettime(CLOCK_REALTIME, &now);
  *out = (lqt__journal_header){
      .base_revision = base_revision,
      .created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec};
  LQT__TRY(lqt__random_bytes(&out->salt, sizeof out->salt, diag));
  LQT__TRY(lqt__journal_base_digest(base, out->base, diag));
  memcpy(out->prior, prior, 32);
  lqt__journal_header_store(out, bytes);
  return LQT_OK;
}

/* The file has this header, and nothing behind it but zeros up to `size`. */
static lqt_status begin(lqt__journal *journal, const lqt__journal_header *header,
                        const uint8_t *bytes, uint64_t size, lqt_diag *diag) {
  lqt__journal_scan *scan = &journal->scan;
  scan->header = *header;
  scan->source.bytes = journal->allocated = size;
  scan->source.count = 0;
  LQT__TRY(lqt__journal_scan_begin(scan, bytes, diag));
  journal->at = scan->end;
  pthread_mutex_lock(&journal->lock);
  journal->written = scan->end.offset;
  journal->durable = scan->end.offset;
  pthread_mutex_unlock(&journal->lock);
  return LQT_OK;
}

lqt_status lqt__journal_start(lqt__journal *journal, uint64_t base_revision,
                              const uint8_t prior[32], lqt_diag *diag) {
  lqt__journal_header header;
  uint8_t bytes[LQT__JOURNAL_HEADER_BYTES];
  LQT__TRY(make_header(journal->base, base_revision, prior, &header, bytes, diag));
  LQT__TRY(lqt__append_write(journal->file, 0, bytes, sizeof bytes, diag));
  LQT__TRY(lqt__append_sync(journal->file, diag));
  uint64_t size = journal->scan.source.bytes;
  return begin(journal, &header, bytes, size > sizeof bytes ? size : sizeof bytes, diag);
}

/* ---- Frames ---- */

static lqt_status reserve_frame(lqt__journal *journal, size_t bytes, lqt_diag *diag) {
  if (bytes <= journal->frame_room) return LQT_OK;
  size_t room = journal->frame_room * 2 > bytes ? journal->frame_room * 2 : bytes;
  if (room < 4096) room = 4096;
  uint8_t *frame = lqt__realloc(journal->frame, room);
  if (frame == NULL) return lqt__fail_memory(diag, journal->where, room, "a frame");
  journal->frame = frame;
  journal->frame_room = room;
  return LQT_OK;
}

/* Writes a frame that stands in the buffer; the last of a transaction with room behind it. */
static lqt_status write_frame(lqt__journal *journal, size_t bytes, bool last, lqt_diag *diag) {
  uint64_t end = journal->at.offset + bytes;
  journal->wrote = true;
  if (last && end > journal->allocated && bytes <= AHEAD_FRAME) {
    uint64_t ahead = end / 8 < AHEAD_LEAST ? AHEAD_LEAST : end / 8;
    if (ahead > AHEAD_MOST) ahead = AHEAD_MOST;
    ahead = (end + ahead + 4095) / 4096 * 4096 - end;
    if (reserve_frame(journal, bytes + (size_t)ahead, NULL) == LQT_OK) {
      memset(journal->frame + bytes, 0, (size_t)ahead);
      if (lqt__append_write(journal->file, journal->at.offset, journal->frame,
                            bytes + (size_t)ahead, NULL) == LQT_OK) {
        journal->allocated = end + ahead;
        return LQT_OK;
      }
    }
  }
  LQT__TRY(lqt__append_write(journal->file, journal->at.offset, journal->frame, bytes, diag));
  if (end > journal->allocated) journal->allocated = end;
  return LQT_OK;
}

static lqt_status flush_frame(lqt__journal *journal, bool last, lqt_diag *diag) {
  lqt__journal_position *at = &journal->at;
  const lqt_key *key = last ? journal->sign : NULL;
  lqt__frame frame = {.flags = last ? LQT__FRAME_COMMIT : 0,
                      .salt = journal->scan.header.salt,
                      .number = at->number,
                      .revision = at->revision,
                      .payload_bytes = journal->payload,
                      .part = at->part,
                      .durable = journal->durable,
                      .offset = at->offset};
  memcpy(frame.previous, at->hash, 32);
  size_t bytes = lqt__frame_bytes(frame.payload_bytes, key != NULL ? LQT__FRAME_SIGNED : 0);
  LQT__TRY(reserve_frame(journal, bytes, diag));
  uint8_t hash[32];
  LQT__TRY(lqt__frame_seal(&frame, key, journal->frame, hash, diag));
  LQT__TRY(write_frame(journal, bytes, last, diag));
  if (last) memcpy(journal->last_crc, journal->frame + bytes - 4, 4);
  at->offset += bytes;
  at->number++;
  at->part++;
  memcpy(at->hash, hash, 32);
  journal->payload = 0;
  return LQT_OK;
}

static lqt_status add_payload(void *user, const void *data, size_t bytes, lqt_diag *diag) {
  lqt__journal *journal = user;
  const uint8_t *from = data;
  while (bytes > 0) {
    if (journal->payload >= journal->frame_limit) LQT__TRY(flush_frame(journal, false, diag));
    size_t room = (size_t)journal->frame_limit - journal->payload;
    size_t part = bytes < room ? bytes : room;
    size_t begin = LQT__FRAME_HEADER_BYTES + (size_t)journal->payload;
    LQT__TRY(reserve_frame(journal, begin + part, diag));
    memcpy(journal->frame + begin, from, part);
    journal->payload += (uint32_t)part;
    from += part;
    bytes -= part;
  }
  return LQT_OK;
}

/* ---- Syncing ---- */

/* After a failed sync nobody knows what the disk has of what was written since the last good one:
 * the kernel may call those pages clean. They are cut off, so that nothing is built upon them. */
static void drop_unsynced(lqt__journal *journal, uint64_t durable) {
  if (lqt__append_truncate(journal->file, durable, NULL) == LQT_OK) {
    (void)!lqt__append_sync(journal->file, NULL);
  }
}

/* Lets a group come together, as long as nobody waits for it. Holds the lock. */
static void gather(lqt__journal *journal) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_nsec += GROUP_NS;
  if (until.tv_nsec >= 1000000000) {
    until.tv_nsec -= 1000000000;
    until.tv_sec++;
  }
  pthread_cond_timedwait(&journal->changed, &journal->lock, &until);
}

static void *sync_loop(void *argument) {
  lqt__journal *journal = argument;
  pthread_mutex_lock(&journal->lock);
  for (;;) {
    bool work = journal->written > journal->durable && journal->failed == LQT_OK;
    if (!work && journal->stop) break;
    if (!work) {
      journal->idle = true;
      pthread_cond_wait(&journal->changed, &journal->lock);
      journal->idle = false;
      continue;
    }
    if (journal->waiters == 0 && !journal->stop) gather(journal);
    uint64_t target = journal->written;
    pthread_mutex_unlock(&journal->lock);
    lqt_diag diag = {0};
    lqt_status status = lqt__append_sync(journal->file, &diag);
    pthread_mutex_lock(&journal->lock);
    if (status != LQT_OK) {
      journal->failed = status;
      journal->failure = diag;
      drop_unsynced(journal, journal->durable);
    } else if (journal->durable < target) {
      journal->durable = target;
    }
    pthread_cond_broadcast(&journal->changed);
  }
  pthread_mutex_unlock(&journal->lock);
  return NULL;
}

void lqt__journal_stop_thread(lqt__journal *journal) {
  if (journal->hold && journal->written > journal->durable) {
    (void)!lqt__append_sync(journal->file, NULL);
  }
  if (!journal->has_thread) return;
  pthread_mutex_lock(&journal->lock);
  journal->stop = true;
  pthread_cond_broadcast(&journal->changed);
  pthread_mutex_unlock(&journal->lock);
  pthread_join(journal->thread, NULL);
  journal->has_thread = journal->stop = false;
}

static lqt_status refuse(lqt__journal *journal, lqt_diag *diag) {
  return lqt__fail(diag, (lqt_status)journal->failed, journal->where,
                   "the journal could not be written and synced (%.200s); open it again",
                   journal->failure.what);
}

lqt_status lqt__journal_wait(lqt__journal *journal, lqt_diag *diag) {
  if (!journal->write) return LQT_OK;
  if (journal->hold) {
    LQT__TRY(lqt__append_sync(journal->file, diag));
    journal->durable = journal->written;
  }
  pthread_mutex_lock(&journal->lock);
  journal->waiters++;
  if (journal->durable < journal->written) pthread_cond_broadcast(&journal->changed);
  while (journal->durable < journal->written && journal->failed == LQT_OK) {
    pthread_cond_wait(&journal->changed, &journal->lock);
  }
  journal->waiters--;
  lqt_status status = journal->durable < journal->written ? refuse(journal, diag) : LQT_OK;
  pthread_mutex_unlock(&journal->lock);
  return status;
}

static void give_up(lqt__journal *journal, lqt_status status, const lqt_diag *diag) {
  pthread_mutex_lock(&journal->lock);
  if (journal->failed == LQT_OK) {
    journal->failed = status;
    journal->failure = *diag;
  }
  pthread_cond_broadcast(&journal->changed);
  pthread_mutex_unlock(&journal->lock);
}

/* Takes the frames of a failed transaction back. */
static void withdraw(lqt__journal *journal, bool sync_failed) {
  uint64_t end = journal->scan.end.offset;
  journal->at = journal->scan.end;
  journal->payload = 0;
  if (!journal->wrote) return;
  lqt_diag diag = {0};
  bool unsynced = journal->durable < end;
  lqt_status status = LQT_IO;
  if (sync_failed && unsynced) {
    (void)lqt__fail(&diag, status, journal->where, "cannot sync");
    drop_unsynced(journal, journal->durable);
  } else {
    status = lqt__append_truncate(journal->file, end, &diag);
    if (status == LQT_OK) journal->allocated = end;
    /* Once it is gone for sure, another may stand there. */
    if (status == LQT_OK) status = lqt__append_sync(journal->file, &diag);
  }
  if (status != LQT_OK) give_up(journal, status, &diag);
}

/* The transaction is written: makes it durable as asked. Once there is a thread, it alone syncs:
 * the kernel tells of a failed write once, and whoever hears of it must be the one who acts. */
static lqt_status settle(lqt__journal *journal, lqt__durability durability, lqt_diag *diag) {
  if (durability == LQT__DURABILITY_GROUP && !journal->has_thread && !journal->hold) {
    journal->has_thread = pthread_create(&journal->thread, NULL, sync_loop, journal) == 0;
  }
  bool synced = durability == LQT__DURABILITY_SYNCED || (!journal->has_thread && !journal->hold);
  if (synced && !journal->has_thread) {
    lqt_status status = lqt__append_sync(journal->file, diag);
    if (status != LQT_OK) {
      withdraw(journal, true);
      return status;
    }
    journal->durable = journal->at.offset;
  }
  pthread_mutex_lock(&journal->lock);
  lqt_status status = journal->failed != LQT_OK ? refuse(journal, diag) : LQT_OK;
  if (status == LQT_OK) journal->written = journal->at.offset;
  if (journal->idle) pthread_cond_broadcast(&journal->changed);
  pthread_mutex_unlock(&journal->lock);
  return status == LQT_OK && synced && journal->has_thread ? lqt__journal_wait(journal, diag)
                                                           : status;
}

/* ---- Transactions ---- */

static lqt_status check_append(lqt__journal *journal, const lqt__journal_entry *entry,
                               lqt_diag *diag) {
  if (!journal->write) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, journal->where,
                     "the journal was opened for reading");
  }
  if (journal->failed != LQT_OK) {
    pthread_mutex_lock(&journal->lock);
    lqt_status status = refuse(journal, diag);
    pthread_mutex_unlock(&journal->lock);
    return status;
  }
  uint64_t revision = journal->scan.end.revision;
  if (entry->revision == revision + 1) return LQT_OK;
  return lqt__fail(diag, LQT_STALE_REVISION, journal->where,
                   "revision %llu cannot follow revision %llu", (ull)entry->revision,
                   (ull)revision);
}

lqt_status lqt__journal_append(lqt__journal *journal, const lqt__journal_entry *entry,
                               lqt__durability durability, uint8_t *out_hash, lqt_diag *diag) {
  LQT__TRY(check_append(journal, entry, diag));
  lqt__journal_scan *scan = &journal->scan;
  LQT__TRY(lqt__journal_scan_reserve(scan, diag));
  journal->at = scan->end;
  journal->at.revision = entry->revision;
  journal->payload = 0;
  journal->wrote = false;
  lqt_status status = lqt__record_write(journal->codec, entry, add_payload, journal, diag);
  if (status == LQT_OK) status = flush_frame(journal, true, diag);
  if (status != LQT_OK) {
    withdraw(journal, false);
    return status;
  }
  LQT__TRY(settle(journal, durability, diag));
  lqt__journal_commit commit = {.offset = scan->end.offset,
                                .end = journal->at.offset,
                                .revision = entry->revision,
                                .frames = journal->at.part,
                                .is_signed = journal->sign != NULL};
  memcpy(commit.hash, journal->at.hash, 32);
  if (journal->sign != NULL) memcpy(commit.key, lqt__key_public(journal->sign), 32);
  journal->at.part = 0;
  scan->end = journal->at;
  memcpy(scan->end_crc, journal->last_crc, 4);
  scan->used = scan->end.offset;
  scan->source.bytes = journal->allocated;
  scan->source.count = 0;
  lqt__journal_scan_push(scan, &commit);
  if (out_hash != NULL) memcpy(out_hash, commit.hash, 32);
  return LQT_OK;
}

/* ---- A new base ---- */

lqt_status lqt__journal_image(lqt__journal *journal, uint8_t **out, uint64_t *out_bytes,
                              lqt_diag *diag) {
  *out = NULL;
  *out_bytes = 0;
  const lqt__blob *log = &journal->base->edit_log;
  /* A base must not know more of the journal than the disk has of the journal itself. */
  LQT__TRY(lqt__journal_wait(journal, diag));
  /* What an interrupted compaction put there of this journal, it puts there again. */
  uint64_t kept = 0;
  LQT__TRY(lqt__journal_kept(journal, &kept, diag));
  uint64_t own = journal->scan.end.offset, total;
  if (!lqt__add(kept, own, &total) || total > SIZE_MAX) {
    return lqt__fail(diag, LQT_OVERFLOW, journal->where, "the edit log is too large");
  }
  uint8_t *image = lqt__alloc((size_t)total);
  if (image == NULL) return lqt__fail_memory(diag, journal->where, total, "the edit log");
  if (kept > 0) memcpy(image, log->data, (size_t)kept);
  size_t got = 0;
  lqt_status status = lqt__append_read(journal->file, 0, image + kept, (size_t)own, &got, diag);
  if (status == LQT_OK && got != own) {
    status = lqt__fail(diag, LQT_IO, journal->where, "the journal became shorter");
  }
  if (status != LQT_OK) {
    lqt__free(image);
    return status;
  }
  *out = image;
  *out_bytes = total;
  return LQT_OK;
}

lqt_status lqt__journal_restart(lqt__journal *journal, const lqt__file *base, lqt_diag *diag) {
  lqt__journal_header header;
  uint8_t bytes[LQT__JOURNAL_HEADER_BYTES];
  LQT__TRY(lqt__journal_wait(journal, diag));
  LQT__TRY(
      make_header(base, journal->scan.end.revision, journal->scan.end.hash, &header, bytes, diag));
  lqt__journal_stop_thread(journal);
  lqt_diag failure = {0};
  bool done;
  lqt_status status = lqt__append_replace(journal->file, bytes, sizeof bytes, &done, &failure);
  if (done) {
    journal->first = 0;
    lqt_status begun = begin(journal, &header, bytes, sizeof bytes, &failure);
    if (status == LQT_OK) status = begun;
    /* Without its folder synced, a crash could bring the old journal back under new edits. */
    if (status != LQT_OK) give_up(journal, status, &failure);
  }
  if (status != LQT_OK && diag != NULL) *diag = failure;
  return status;
}

bool lqt__journal_must_reopen(lqt__journal *journal) {
  return journal->write && journal->failed != LQT_OK;
}

void lqt__journal_move_base(lqt__journal *journal, const lqt__file *base) { journal->base = base; }

void lqt__journal_set_frame_limit(lqt__journal *journal, uint32_t bytes) {
  journal->frame_limit = bytes < LQT__FRAME_PAYLOAD_MAX ? bytes : LQT__FRAME_PAYLOAD_MAX;
}

void lqt__journal_hold_sync(lqt__journal *journal) { journal->hold = true; }
