/* Journals that somebody changed: each must be found out, against a noted head hash always, and
 * with no more than the writer's public key unless what remains is a beginning of the journal that
 * ends with a transaction.
 *
 * Usage: journal_tamper [COUNT [SEED]] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "format/bytes.h"
#include "support/journal_sample.h"

enum { TRANSACTIONS = 12, MAX_FRAMES = 64, ROOM = 1 << 18, SEED = 11 };

typedef struct image {
  uint8_t bytes[ROOM];
  size_t size;
  size_t at[MAX_FRAMES + 1]; /* frames, and the end */
  size_t frames;
} image;

static char path[64];
static sample_base base;
static lqt_key *owner, *stranger;
static lqt__random random_state;
static image original, other;
static uint8_t noted[32];

#define MUST(call)                                                                        \
  do {                                                                                    \
    lqt_diag diag = {0};                                                                  \
    lqt_status must_status = (call);                                                      \
    if (must_status != LQT_OK) {                                                          \
      fprintf(stderr, "%s:%d: %s %s\n", __FILE__, __LINE__, lqt_status_name(must_status), \
              diag.what);                                                                 \
      exit(1);                                                                            \
    }                                                                                     \
  } while (0)

static uint32_t below(size_t bound) { return lqt__random_below(&random_state, (uint32_t)bound); }

static void find_frames(image *out) {
  out->frames = 0;
  size_t at = LQT__JOURNAL_HEADER_BYTES;
  lqt__frame frame;
  while (at + LQT__FRAME_HEADER_BYTES <= out->size && lqt__frame_load(out->bytes + at, &frame)) {
    out->at[out->frames++] = at;
    at += lqt__frame_bytes(frame.payload_bytes, frame.flags);
  }
  out->at[out->frames] = at;
}

/* A signed journal; some transactions take several frames. */
static void make(image *out, uint64_t seed, uint8_t head[32]) {
  unlink(path);
  lqt__journal_options options = {.write = true, .create = true, .base = &base.file, .sign = owner};
  lqt__journal *journal;
  MUST(lqt__journal_open(path, &options, &journal, NULL, &diag));
  for (uint64_t r = 1; r <= TRANSACTIONS; r++) {
    lqt__journal_entry entry;
    sample_entry(seed, r, r % 4 == 0 ? 2500 : 0, &entry);
    lqt__journal_set_frame_limit(journal, r % 4 == 0 ? 1000 : 1 << 20);
    MUST(lqt__journal_append(journal, &entry, LQT__DURABILITY_SYNCED, NULL, &diag));
    lqt__entry_free(&entry);
  }
  lqt__journal_head(journal, head);
  lqt__journal_close(journal);
  FILE *file = fopen(path, "rb");
  if (file == NULL) exit(1);
  out->size = fread(out->bytes, 1, sizeof out->bytes, file);
  fclose(file);
  find_frames(out);
}

static void fix_crc(image *j, size_t frame) {
  size_t end = j->at[frame + 1];
  lqt__store_u32(j->bytes + end - 4,
                 lqt__crc32(0, j->bytes + j->at[frame], end - 4 - j->at[frame]));
}

/* Frame `frame` goes out of the image. */
static void cut_out(image *j, size_t frame) {
  size_t bytes = j->at[frame + 1] - j->at[frame];
  memmove(j->bytes + j->at[frame], j->bytes + j->at[frame + 1], j->size - j->at[frame + 1]);
  j->size -= bytes;
  find_frames(j);
}

static void put_in(image *j, size_t at, const uint8_t *bytes, size_t count) {
  if (j->size + count > ROOM) return;
  memmove(j->bytes + at + count, j->bytes + at, j->size - at);
  memcpy(j->bytes + at, bytes, count);
  j->size += count;
}

/* Makes numbers, offsets, hashes and CRCs from frame `from` on fit what they follow, signed with
 * `key` (NULL: not at all): what somebody does who knows the format and lacks the key. */
static void forge(image *j, size_t from, const lqt_key *key) {
  static image out;
  uint8_t hash[32];
  lqt__frame frame;
  memcpy(out.bytes, j->bytes, j->at[from]);
  size_t at = j->at[from];
  if (from == 0) {
    (void)!lqt__sha256(j->bytes, LQT__JOURNAL_HEADER_BYTES, hash);
  } else {
    lqt__frame_load(j->bytes + j->at[from - 1], &frame);
    (void)!lqt__frame_hash(&frame, j->bytes + j->at[from - 1], hash);
  }
  for (size_t i = from; i < j->frames; i++) {
    const uint8_t *bytes = j->bytes + j->at[i];
    lqt__frame_load(bytes, &frame);
    frame.flags &= LQT__FRAME_COMMIT;
    frame.number = i;
    frame.offset = at;
    memcpy(frame.previous, hash, 32);
    memcpy(out.bytes + at + LQT__FRAME_HEADER_BYTES, bytes + LQT__FRAME_HEADER_BYTES,
           frame.payload_bytes);
    const lqt_key *signer = (frame.flags & LQT__FRAME_COMMIT) != 0 ? key : NULL;
    MUST(lqt__frame_seal(&frame, signer, out.bytes + at, hash, &diag));
    at += lqt__frame_bytes(frame.payload_bytes, frame.flags);
  }
  out.size = at;
  *j = out;
  find_frames(j);
}

static const char *tamper(image *j) {
  *j = original;
  size_t f = below(j->frames), g = below(j->frames);
  switch (below(12)) {
    case 0:
      cut_out(j, f);
      return "a frame dropped";
    case 1:
      cut_out(j, f);
      if (f < j->frames) forge(j, f, below(2) != 0 ? stranger : NULL);
      return "a frame dropped, the rest made to fit";
    case 2: {
      size_t count = j->at[f + 1] - j->at[f];
      static uint8_t moved[ROOM];
      memcpy(moved, j->bytes + j->at[f], count);
      cut_out(j, f);
      put_in(j, j->at[g < j->frames ? g : 0], moved, count);
      return "a frame moved";
    }
    case 3:
      put_in(j, j->at[g], original.bytes + original.at[f], original.at[f + 1] - original.at[f]);
      return "a frame repeated";
    case 4:
      j->size = below(j->size);
      return "truncated";
    case 5:
      j->size = j->at[f];
      return "truncated between frames";
    case 6:
      j->bytes[below(j->size)] ^= (uint8_t)(1u << below(8));
      return "a bit flipped";
    case 7: {
      size_t at = j->at[f] + below(j->at[f + 1] - j->at[f] - 4);
      j->bytes[at] ^= (uint8_t)(1u << below(8));
      fix_crc(j, f);
      return "a bit flipped, the CRC made to fit";
    }
    case 8: {
      lqt__frame frame;
      lqt__frame_load(j->bytes + j->at[f], &frame);
      j->bytes[j->at[f] + LQT__FRAME_HEADER_BYTES + below(frame.payload_bytes)] ^= 1;
      forge(j, f, stranger);
      return "content changed, signed again with another key";
    }
    case 9:
      forge(j, f, below(2) != 0 ? stranger : NULL);
      return "signed again with another key, or not at all";
    case 10:
      j->bytes[8 + below(116)] ^= (uint8_t)(1u << below(8));
      lqt__store_u32(j->bytes + 124, lqt__crc32(0, j->bytes, 124));
      if (below(2) != 0) forge(j, 0, stranger);
      return "the header changed";
    default:
      j->size = j->at[f];
      put_in(j, j->size, other.bytes + other.at[g], other.at[other.frames] - other.at[g]);
      return "the end of another journal";
  }
}

/* Is it the beginning of the original, up to the end of a transaction (or nothing)? */
static bool is_beginning(const image *j) {
  size_t size = j->size;
  if (size > original.size || memcmp(j->bytes, original.bytes, size) != 0) return false;
  if (size == 0 || size == LQT__JOURNAL_HEADER_BYTES) return true;
  for (size_t i = 0; i < original.frames; i++) {
    lqt__frame frame;
    lqt__frame_load(original.bytes + original.at[i], &frame);
    if ((frame.flags & LQT__FRAME_COMMIT) != 0 && original.at[i + 1] == size) return true;
  }
  return false;
}

/* As `lqt log verify` does, at the level of the file. */
static bool passes(const image *j, bool with_head, bool with_key) {
  FILE *file = fopen(path, "wb");
  if (file == NULL || fwrite(j->bytes, 1, j->size, file) != j->size || fclose(file) != 0) exit(1);
  uint8_t key[1][32];
  memcpy(key[0], lqt__key_public(owner), 32);
  lqt__journal_options options = {.base = &base.file};
  options.policy.every_signature = true;
  if (with_key) {
    options.policy.keys = (const uint8_t(*)[32])key;
    options.policy.count = 1;
  }
  lqt__journal *journal;
  if (lqt__journal_open(path, &options, &journal, NULL, NULL) != LQT_OK) return false;
  bool good = lqt__journal_torn_bytes(journal) == 0;
  for (size_t i = 0; i < lqt__journal_count(journal) && good; i++) {
    lqt__journal_entry entry;
    good = lqt__journal_read(journal, i, &entry, NULL) == LQT_OK;
    lqt__entry_free(&entry);
  }
  if (with_head) good = good && lqt__journal_has_head(journal, noted);
  lqt__journal_close(journal);
  return good;
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 500;
  random_state = lqt__random_seed(argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
  snprintf(path, sizeof path, "%s/lqt-tamper-%ld",
           access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid());
  sample_base_make(&base, 1);
  MUST(lqt__key_generate(&owner, &diag));
  MUST(lqt__key_generate(&stranger, &diag));
  uint8_t head[32];
  make(&other, SEED + 1, head);
  make(&original, SEED, noted);
  int same = 0, beginnings = 0, missed = 0;
  if (!passes(&original, true, true)) {
    fprintf(stderr, "the journal as it was written does not pass\n");
    missed++;
  }
  static image j;
  for (int i = 0; i < count; i++) {
    const char *what = tamper(&j);
    if (j.size == original.size && memcmp(j.bytes, original.bytes, j.size) == 0) {
      same++;
      continue;
    }
    if (passes(&j, true, false)) {
      fprintf(stderr, "%d: %s: not found against the noted head\n", i, what);
      missed++;
    }
    bool beginning = is_beginning(&j);
    beginnings += beginning;
    if (passes(&j, false, true) && !beginning) {
      fprintf(stderr, "%d: %s: not found with the key\n", i, what);
      missed++;
    }
  }
  unlink(path);
  printf(
      "%d tampered journals (%d more came out unchanged): %d missed; %d were beginnings that end "
      "with a transaction\n",
      count - same, same, missed, beginnings);
  lqt__key_destroy(owner);
  lqt__key_destroy(stranger);
  return missed != 0;
}
