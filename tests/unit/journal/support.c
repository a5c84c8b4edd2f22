#include "support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char journal_folder[64], journal_path[96];
sample_base journal_base;

void journal_make_folder(void) {
  /* In memory where that is possible: these tests sync thousands of times. */
  const char *parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  snprintf(journal_folder, sizeof journal_folder, "%s/lqt-journal-test-XXXXXX", parent);
  cr_assert_not_null(mkdtemp(journal_folder));
  snprintf(journal_path, sizeof journal_path, "%s/model.lqt.journal", journal_folder);
  sample_base_make(&journal_base, 1);
}

void journal_remove_folder(void) {
  unlink(journal_path);
  rmdir(journal_folder);
}

size_t journal_count_files(void) {
  DIR *stream = opendir(journal_folder);
  cr_assert_not_null(stream);
  size_t count = 0;
  for (struct dirent *entry; (entry = readdir(stream)) != NULL;) count += entry->d_name[0] != '.';
  closedir(stream);
  return count;
}

lqt__journal_options journal_writer(void) {
  return (lqt__journal_options){.write = true, .create = true, .base = &journal_base.file};
}
lqt__journal_options journal_reader(void) {
  return (lqt__journal_options){.base = &journal_base.file};
}

lqt__journal *journal_open(const lqt__journal_options *options, lqt__journal_recovery *recovery) {
  lqt_diag diag = {0};
  lqt__journal *journal;
  cr_assert_eq(lqt__journal_open(journal_path, options, &journal, recovery, &diag), LQT_OK,
               "%s: %s", diag.where, diag.what);
  return journal;
}

void journal_append_to(lqt__journal *journal, uint64_t revision, lqt__durability durability) {
  for (uint64_t r = lqt__journal_revision(journal) + 1; r <= revision; r++) {
    lqt__journal_entry entry;
    lqt_diag diag = {0};
    uint8_t hash[32], head[32];
    sample_entry(SEED, r, 0, &entry);
    cr_assert_eq(lqt__journal_append(journal, &entry, durability, hash, &diag), LQT_OK, "%s",
                 diag.what);
    lqt__journal_head(journal, head);
    cr_assert_arr_eq(head, hash, 32);
    lqt__entry_free(&entry);
  }
}

void journal_check(lqt__journal *journal, size_t count) {
  cr_assert_eq(lqt__journal_count(journal), count, "%zu transactions, not %zu",
               lqt__journal_count(journal), count);
  for (size_t i = 0; i < count; i++) {
    lqt_diag diag = {0};
    cr_assert(sample_check(journal, i, SEED, 0, &diag), "transaction %zu: %s", i, diag.what);
  }
}

uint8_t *journal_bytes(size_t *out_bytes) {
  FILE *file = fopen(journal_path, "rb");
  cr_assert_not_null(file);
  fseek(file, 0, SEEK_END);
  long bytes = ftell(file);
  rewind(file);
  uint8_t *data = malloc((size_t)bytes + 1);
  cr_assert_eq(fread(data, 1, (size_t)bytes, file), (size_t)bytes);
  fclose(file);
  *out_bytes = (size_t)bytes;
  return data;
}

void journal_put(const void *data, size_t bytes) {
  FILE *file = fopen(journal_path, "wb");
  cr_assert_not_null(file);
  cr_assert_eq(fwrite(data, 1, bytes, file), bytes);
  cr_assert_eq(fclose(file), 0);
}
