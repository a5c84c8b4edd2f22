/* What journaling costs: a durable, signed transaction of one change next to a sync of the disk by
 * itself, taking turns; 1,000 changes in one transaction, and opening a journal of many
 * transactions. Prints JSON.
 *
 * Usage: journal_cost [FOLDER [TRANSACTIONS]] */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "support/journal_sample.h"

enum { REPEATS = 300, BATCH = 1000 };

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

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, size_t count) {
  qsort(values, count, sizeof *values, compare);
  return values[count / 2];
}

/* A codebook entry: two bytes for two. */
static lqt__change small_change(uint64_t i) {
  static uint8_t bytes[4] = {1, 2, 3, 4};
  return (lqt__change){.kind = LQT__CHANGE_BYTES,
                       .id = 3,
                       .offset = 64 + 2 * (i % 16),
                       .has_old = true,
                       .has_new = true,
                       .data = bytes,
                       .old_data = bytes + 2,
                       .bytes = 2,
                       .old_bytes = 2};
}

static void append(lqt__journal *journal, lqt__change *changes, size_t count,
                   lqt__durability durability) {
  static uint8_t payload[12];
  static char actor[] = "bench";
  lqt__operation operation = {.operation = 1,
                              .target_kind = 1,
                              .target_id = 3,
                              .payload = payload,
                              .payload_bytes = sizeof payload};
  lqt__journal_entry entry = {.revision = lqt__journal_revision(journal) + 1,
                              .timestamp_ns = 1,
                              .actor = actor,
                              .operations = &operation,
                              .operation_count = 1,
                              .changes = changes,
                              .change_count = count};
  MUST(lqt__journal_append(journal, &entry, durability, NULL, &diag));
}

/* The disk by itself: 512 bytes written over and synced, in a file whose blocks are there. */
static int open_plain(const char *path) {
  static uint8_t block[1 << 16];
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) exit(1);
  for (int i = 0; i < 16; i++) {
    if (write(fd, block, sizeof block) != (ssize_t)sizeof block) exit(1);
  }
  if (fsync(fd) != 0) exit(1);
  return fd;
}

static double plain_sync(int fd, size_t i) {
  static const uint8_t block[512];
  double begin = now_ms();
  if (pwrite(fd, block, sizeof block, (off_t)(i % 2048) * 512) != (ssize_t)sizeof block ||
      fdatasync(fd) != 0) {
    exit(1);
  }
  return now_ms() - begin;
}

/* Transactions of `count` changes, each next to a sync of the disk by itself: medians. */
static double take_turns(lqt__journal *journal, int fd, lqt__change *changes, size_t count,
                         size_t repeats, double *out_sync_ms) {
  double times[REPEATS], syncs[REPEATS];
  for (size_t i = 0; i < repeats; i++) {
    syncs[i] = plain_sync(fd, i);
    double begin = now_ms();
    append(journal, changes, count, LQT__DURABILITY_SYNCED);
    times[i] = now_ms() - begin;
  }
  *out_sync_ms = median(syncs, repeats);
  return median(times, repeats);
}

int main(int argc, char **argv) {
  const char *folder = argc > 1 ? argv[1] : "/tmp";
  size_t many = argc > 2 ? strtoull(argv[2], NULL, 10) : 100000;
  char path[512];
  snprintf(path, sizeof path, "%s/lqt-journal-cost-%ld", folder, (long)getpid());
  sample_base base;
  sample_base_make(&base, 1);
  lqt_key *key;
  MUST(lqt__key_generate(&key, &diag));
  char other[520];
  snprintf(other, sizeof other, "%s.sync", path);
  int fd = open_plain(other);
  lqt__journal_options options = {.write = true, .create = true, .base = &base.file, .sign = key};
  lqt__journal *journal;
  MUST(lqt__journal_open(path, &options, &journal, NULL, &diag));
  static lqt__change batch[BATCH];
  for (size_t i = 0; i < BATCH; i++) batch[i] = small_change(i);
  double sync_ms, batch_sync_ms;
  double one_ms = take_turns(journal, fd, batch, 1, REPEATS, &sync_ms);
  double batch_ms = take_turns(journal, fd, batch, BATCH, 60, &batch_sync_ms);
  close(fd);
  unlink(other);
  double begin = now_ms();
  for (size_t i = 0; i < many; i++) {
    lqt__change change = small_change(i);
    append(journal, &change, 1, LQT__DURABILITY_GROUP);
  }
  MUST(lqt__journal_wait(journal, &diag));
  double group_us = (now_ms() - begin) * 1e3 / (double)(many > 0 ? many : 1);
  lqt__journal_close(journal);
  double open_ms = 1e30;
  size_t frames = 0;
  for (int i = 0; i < 3; i++) {
    begin = now_ms();
    MUST(lqt__journal_open(path, &options, &journal, NULL, &diag));
    double ms = now_ms() - begin;
    if (ms < open_ms) open_ms = ms;
    frames = lqt__journal_count(journal);
    lqt__journal_close(journal);
  }
  unlink(path);
  lqt__key_destroy(key);
  printf(
      "{\"sync_ms\": %.4f, \"signed_commit_ms\": %.4f, \"sync_beside_batch_ms\": %.4f, "
      "\"batch_of_1000_ms\": %.4f, \"group_commit_us\": %.2f, \"open_ms\": %.1f, "
      "\"open_frames\": %zu}\n",
      sync_ms, one_ms, batch_sync_ms, batch_ms, group_us, open_ms, frames);
  return 0;
}
