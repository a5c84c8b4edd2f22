/* Makes corpus/journal: journal_corpus FOLDER. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edit/record.h"
#include "support/journal_sample.h"

static uint8_t bytes[1 << 20];
static size_t count;

static void save(const char *folder, const char *name, char kind) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "wb");
  if (file == NULL || fputc(kind, file) == EOF || fwrite(bytes, 1, count, file) != count ||
      fclose(file) != 0) {
    exit(1);
  }
}

static lqt_status put(void *user, const void *data, size_t size, lqt_diag *diag) {
  (void)user, (void)diag;
  if (size > sizeof bytes - count) exit(1);
  if (size > 0) memcpy(bytes + count, data, size);
  count += size;
  return LQT_OK;
}

static void make_journal(const char *path, const lqt_key *key, const sample_base *base) {
  lqt__journal_options options = {.write = true, .create = true, .base = &base->file, .sign = key};
  lqt__journal *journal;
  if (lqt__journal_open(path, &options, &journal, NULL, NULL) != LQT_OK) exit(1);
  lqt__journal_set_frame_limit(journal, 400);
  for (uint64_t r = 1; r <= 4; r++) {
    lqt__journal_entry entry;
    sample_entry(1, r, 0, &entry);
    if (lqt__journal_append(journal, &entry, LQT__DURABILITY_SYNCED, NULL, NULL) != LQT_OK) exit(1);
    lqt__entry_free(&entry);
  }
  lqt__journal_close(journal);
  FILE *file = fopen(path, "rb");
  if (file == NULL) exit(1);
  count = fread(bytes, 1, sizeof bytes, file);
  fclose(file);
  unlink(path);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  char path[512];
  snprintf(path, sizeof path, "%s/making", argv[1]);
  sample_base base;
  sample_base_make(&base, 1);
  lqt_key *key;
  if (lqt__key_generate(&key, NULL) != LQT_OK) return 1;
  make_journal(path, NULL, &base);
  save(argv[1], "plain", 'f');
  save(argv[1], "log", 'm');
  count -= 20;
  save(argv[1], "torn", 'f');
  make_journal(path, key, &base);
  save(argv[1], "signed", 'f');
  count = 60;
  save(argv[1], "header", 'f');
  lqt__record_codec *codec;
  if (lqt__record_codec_create(&codec, NULL) != LQT_OK) return 1;
  for (uint64_t r = 1; r <= 6; r++) {
    lqt__journal_entry entry;
    char name[32];
    snprintf(name, sizeof name, "entry%d", (int)r);
    sample_entry(2, r, 0, &entry);
    count = 0;
    if (lqt__record_write(codec, &entry, put, NULL, NULL) != LQT_OK) return 1;
    save(argv[1], name, 'e');
    lqt__entry_free(&entry);
  }
  lqt__record_codec_destroy(codec);
  lqt__key_destroy(key);
  static const uint8_t changes[] = {200, 0, 1, 0, 2, 7, 129, 0, 77};
  memcpy(bytes, changes, sizeof changes);
  count = sizeof changes;
  save(argv[1], "changes", 'c');
  return 0;
}
