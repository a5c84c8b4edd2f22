/* Journals from hostile bytes. The first byte chooses:
 *   f  the rest is a file: opened by a reader, then by a writer that recovers and appends
 *   m  the rest is an edit log in memory
 *   e  the rest is the content of one transaction, framed and chained as a writer would, so that
 *      what is wrong with it must be found by the checks of the entry
 *   c  the rest changes a good journal: pairs of a position (u16) and a byte */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "edit/record.h"
#include "support/journal_sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];
static sample_base base;

static void prepare(void) {
  if (path[0] != '\0') return;
  snprintf(path, sizeof path, "%s/lqt-fuzz-journal-%ld",
           access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid());
  sample_base_make(&base, 1);
}

static void put(const uint8_t *data, size_t size) {
  FILE *file = fopen(path, "wb");
  if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0) abort();
}

static void read_all(lqt__journal *journal) {
  for (size_t i = 0; i < lqt__journal_count(journal); i++) {
    lqt__journal_entry entry;
    if (lqt__journal_read(journal, i, &entry, NULL) == LQT_OK) lqt__entry_free(&entry);
    if (lqt__journal_look(journal, i, &entry, NULL) == LQT_OK) lqt__entry_free(&entry);
  }
}

/* What a reader finds good a writer takes, with the same transactions, and adds to. */
static void try_file(const uint8_t *data, size_t size) {
  put(data, size);
  lqt__journal *journal;
  lqt__journal_options options = {.base = &base.file};
  lqt_status read = lqt__journal_open(path, &options, &journal, NULL, NULL);
  size_t count = 0;
  if (read == LQT_OK) {
    count = lqt__journal_count(journal);
    read_all(journal);
    lqt__journal_close(journal);
  }
  options.write = true;
  lqt_status write = lqt__journal_open(path, &options, &journal, NULL, NULL);
  if (write != read) abort();
  if (write == LQT_OK) {
    if (lqt__journal_count(journal) != count) abort();
    lqt__journal_entry entry;
    uint64_t revision = lqt__journal_revision(journal) + 1;
    sample_entry(1, revision, 0, &entry);
    if (revision != 0 &&
        lqt__journal_append(journal, &entry, LQT__DURABILITY_SYNCED, NULL, NULL) != LQT_OK) {
      abort();
    }
    lqt__entry_free(&entry);
    lqt__journal_close(journal);
    options.write = false;
    if (lqt__journal_open(path, &options, &journal, NULL, NULL) != LQT_OK) abort();
    if (revision != 0 && lqt__journal_count(journal) != count + 1) abort();
    lqt__journal_close(journal);
  }
  unlink(path);
}

static void try_memory(const uint8_t *data, size_t size) {
  static const lqt__journal_policy anybody = {.every_signature = true};
  lqt__journal *journal;
  uint64_t used;
  if (lqt__journal_open_memory(data, size, "fuzz", &anybody, &journal, &used, NULL) != LQT_OK)
    return;
  if (used > size) abort();
  read_all(journal);
  lqt__journal_close(journal);
}

static void try_entry(const uint8_t *data, size_t size) {
  uint8_t *bytes = calloc(1, size + 512);
  if (bytes == NULL) abort();
  lqt__journal_header header = {.salt = 1};
  if (lqt__journal_base_digest(&base.file, header.base, NULL) != LQT_OK) abort();
  lqt__journal_header_store(&header, bytes);
  uint64_t revision = 1;
  if (size >= 16) memcpy(&revision, data + 8, sizeof revision);
  lqt__frame frame = {.flags = LQT__FRAME_COMMIT,
                      .salt = 1,
                      .revision = revision,
                      .payload_bytes = (uint32_t)size,
                      .offset = 128,
                      .durable = 128};
  uint8_t hash[32];
  if (lqt__sha256(bytes, 128, frame.previous) != LQT_OK) abort();
  if (size > 0) memcpy(bytes + 128 + LQT__FRAME_HEADER_BYTES, data, size);
  if (lqt__frame_seal(&frame, NULL, bytes + 128, hash, NULL) != LQT_OK) abort();
  try_memory(bytes, 128 + lqt__frame_bytes(frame.payload_bytes, frame.flags));
  free(bytes);
}

static void try_changed(const uint8_t *data, size_t size) {
  static uint8_t good[65536], bytes[65536];
  static size_t count;
  if (count == 0) {
    unlink(path);
    lqt__journal *journal;
    lqt__journal_options options = {.write = true, .create = true, .base = &base.file};
    if (lqt__journal_open(path, &options, &journal, NULL, NULL) != LQT_OK) abort();
    lqt__journal_set_frame_limit(journal, 300);
    for (uint64_t r = 1; r <= 6; r++) {
      lqt__journal_entry entry;
      sample_entry(1, r, 0, &entry);
      if (lqt__journal_append(journal, &entry, LQT__DURABILITY_SYNCED, NULL, NULL) != LQT_OK)
        abort();
      lqt__entry_free(&entry);
    }
    lqt__journal_close(journal);
    FILE *file = fopen(path, "rb");
    if (file == NULL) abort();
    count = fread(good, 1, sizeof good, file);
    fclose(file);
  }
  memcpy(bytes, good, count);
  for (size_t i = 0; i + 3 <= size; i += 3) {
    bytes[(size_t)(data[i] | data[i + 1] << 8) % count] = data[i + 2];
  }
  try_file(bytes, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  prepare();
  if (size == 0) return 0;
  if (data[0] == 'f') try_file(data + 1, size - 1);
  if (data[0] == 'm') try_memory(data + 1, size - 1);
  if (data[0] == 'e') try_entry(data + 1, size - 1);
  if (data[0] == 'c') try_changed(data + 1, size - 1);
  return 0;
}
