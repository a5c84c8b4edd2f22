/* Appending, reading, recovering, following and continuing journals. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "io/file.h"
#include "support.h"

TestSuite(journal, .init = journal_make_folder, .fini = journal_remove_folder);

Test(journal, what_was_appended_is_read) {
  lqt__journal_options writer = journal_writer(), reader = journal_reader();
  lqt__journal_recovery recovery;
  lqt__journal *journal = journal_open(&writer, &recovery);
  cr_assert(recovery.created);
  journal_append_to(journal, 40, LQT__DURABILITY_SYNCED);
  journal_check(journal, 40);
  uint8_t head[32], other[32];
  lqt__journal_head(journal, head);
  lqt__journal_close(journal);
  struct stat info;
  cr_assert_eq(stat(journal_path, &info), 0);
  for (int again = 0; again < 3; again++) {
    journal = journal_open(&reader, NULL);
    cr_assert_eq(lqt__journal_get_commit(journal, 39)->end, (uint64_t)info.st_size,
                 "room taken ahead is given back");
    journal_check(journal, 40);
    lqt__journal_head(journal, other);
    cr_assert_arr_eq(head, other, 32);
    lqt__journal_close(journal);
    journal = journal_open(&writer, &recovery);
    cr_assert(!recovery.created && recovery.dropped_bytes == 0);
    lqt__journal_close(journal);
  }
  journal = journal_open(&writer, NULL);
  journal_append_to(journal, 50, LQT__DURABILITY_SYNCED);
  lqt__journal_close(journal);
  journal = journal_open(&reader, NULL);
  journal_check(journal, 50);
  cr_assert(lqt__journal_has_head(journal, head));
  lqt__journal_close(journal);
}

Test(journal, revisions_follow) {
  lqt__journal_options writer = journal_writer();
  lqt__journal *journal = journal_open(&writer, NULL);
  journal_append_to(journal, 3, LQT__DURABILITY_SYNCED);
  lqt__journal_entry entry;
  for (uint64_t r = 2; r < 7; r++) {
    sample_entry(SEED, r, 0, &entry);
    lqt_status wanted = r == 4 ? LQT_OK : r == 5 ? LQT_OK : LQT_STALE_REVISION;
    if (r != 6) {
      cr_assert_eq(lqt__journal_append(journal, &entry, LQT__DURABILITY_SYNCED, NULL, NULL),
                   wanted);
    }
    lqt__entry_free(&entry);
  }
  lqt__journal_close(journal);
  lqt__journal_options reader = journal_reader();
  journal = journal_open(&reader, NULL);
  sample_entry(SEED, 6, 0, &entry);
  cr_assert_eq(lqt__journal_append(journal, &entry, LQT__DURABILITY_SYNCED, NULL, NULL),
               LQT_INVALID_ARGUMENT);
  lqt__entry_free(&entry);
  lqt__journal_close(journal);
}

/* More than one frame holds. */
Test(journal, large_transactions) {
  lqt__journal_options writer = journal_writer(), reader = journal_reader();
  static const uint64_t sizes[] = {
      1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, (16 << 20) - 300, (40 << 20) + 7};
  const size_t count = sizeof sizes / sizeof sizes[0];
  lqt__journal *journal = journal_open(&writer, NULL);
  for (size_t i = 0; i < count; i++) {
    lqt__journal_entry entry;
    lqt_diag diag = {0};
    sample_entry(SEED, i + 1, sizes[i], &entry);
    cr_assert_eq(lqt__journal_append(journal, &entry, LQT__DURABILITY_SYNCED, NULL, &diag), LQT_OK,
                 "%s", diag.what);
    lqt__entry_free(&entry);
  }
  lqt__journal_close(journal);
  journal = journal_open(&reader, NULL);
  cr_assert_eq(lqt__journal_count(journal), count);
  for (size_t i = 0; i < count; i++) {
    lqt_diag diag = {0};
    cr_assert(sample_check(journal, i, SEED, sizes[i], &diag), "%zu: %s", i, diag.what);
  }
  cr_assert_eq(lqt__journal_get_commit(journal, count - 1)->frames, 3);
  lqt__journal_close(journal);
}

Test(journal, one_writer) {
  lqt__journal_options writer = journal_writer(), reader = journal_reader();
  lqt__journal *journal = journal_open(&writer, NULL), *second;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__journal_open(journal_path, &writer, &second, NULL, &diag), LQT_LOCKED);
  cr_assert_null(second);
  second = journal_open(&reader, NULL);
  lqt__journal_close(second);
  journal_append_to(journal, 2, LQT__DURABILITY_SYNCED);
  lqt__journal_close(journal);
  journal = journal_open(&writer, NULL);
  journal_check(journal, 2);
  lqt__journal_close(journal);
}

Test(journal, a_link_that_leads_nowhere) {
  lqt__journal_options writer = journal_writer();
  lqt__journal *journal;
  cr_assert_eq(symlink("nowhere", journal_path), 0);
  cr_assert_eq(lqt__journal_open(journal_path, &writer, &journal, NULL, NULL), LQT_IO);
}

Test(journal, another_base) {
  lqt__journal_options writer = journal_writer();
  lqt__journal *journal = journal_open(&writer, NULL);
  journal_append_to(journal, 2, LQT__DURABILITY_SYNCED);
  lqt__journal_close(journal);
  sample_base other;
  sample_base_make(&other, 2);
  writer.base = &other.file;
  cr_assert_eq(lqt__journal_open(journal_path, &writer, &journal, NULL, NULL), LQT_WRONG_BASE);
}

Test(journal, group_sync) {
  lqt__journal_options writer = journal_writer();
  lqt__journal *journal = journal_open(&writer, NULL);
  for (uint64_t r = 0; r < 200; r += 20) {
    journal_append_to(journal, r + 15, LQT__DURABILITY_GROUP);
    if (r % 40 == 0) cr_assert_eq(lqt__journal_wait(journal, NULL), LQT_OK);
    journal_append_to(journal, r + 20,
                      r % 60 == 0 ? LQT__DURABILITY_SYNCED : LQT__DURABILITY_GROUP);
  }
  cr_assert_eq(lqt__journal_wait(journal, NULL), LQT_OK);
  journal_check(journal, 200);
  lqt__journal_close(journal);
  journal = journal_open(&writer, NULL);
  journal_check(journal, 200);
  lqt__journal_close(journal);
}

Test(journal, a_reader_follows) {
  lqt__journal_options writer = journal_writer(), reader = journal_reader();
  lqt__journal *journal = journal_open(&writer, NULL);
  lqt__journal *follower = journal_open(&reader, NULL);
  size_t count;
  for (uint64_t r = 1; r <= 300; r += 1 + r % 3) {
    cr_assert_eq(lqt__journal_poll(follower, &count, NULL), LQT_OK);
    cr_assert_eq(count, 0);
    size_t before = lqt__journal_count(journal);
    journal_append_to(journal, r, LQT__DURABILITY_GROUP);
    cr_assert_eq(lqt__journal_poll(follower, &count, NULL), LQT_OK);
    cr_assert_eq(count, lqt__journal_count(journal) - before);
    if (r % 7 == 0) {
      lqt__journal_close(journal); /* gives back the room taken ahead */
      journal = journal_open(&writer, NULL);
    }
  }
  journal_check(follower, lqt__journal_count(journal));
  lqt__journal_close(journal);
  /* An end that is taken back is noticed. */
  cr_assert_eq(truncate(journal_path, (off_t)lqt__journal_get_commit(follower, 200)->offset), 0);
  cr_assert_eq(lqt__journal_poll(follower, &count, NULL), LQT_STALE_REVISION);
  lqt__journal_close(follower);
}

/* The file is cut at every byte of its last transactions: the transactions before it stay. */
Test(journal, every_torn_tail) {
  lqt__journal_options writer = journal_writer(), reader = journal_reader();
  lqt__journal *journal = journal_open(&writer, NULL);
  journal_append_to(journal, 4, LQT__DURABILITY_SYNCED);
  uint64_t ends[5] = {128};
  for (size_t i = 0; i < 4; i++) ends[i + 1] = lqt__journal_get_commit(journal, i)->end;
  lqt__journal_close(journal);
  size_t bytes;
  uint8_t *data = journal_bytes(&bytes), *cut = calloc(1, bytes + 4096);
  for (size_t length = 0; length < bytes; length++) {
    size_t whole = 0;
    while (whole < 4 && ends[whole + 1] <= length) whole++;
    memset(cut, 0, bytes + 4096);
    memcpy(cut, data, length);
    journal_put(cut, length % 2 == 0 ? length : bytes + 4096); /* also with zeros behind */
    journal = journal_open(&reader, NULL);
    cr_assert_eq(lqt__journal_count(journal), whole, "cut at %zu", length);
    lqt__journal_close(journal);
    lqt__journal_recovery recovery;
    journal = journal_open(&writer, &recovery);
    if (length < 128) {
      cr_assert(recovery.created);
    } else if (ends[whole] != length) {
      size_t used = length;
      while (used > ends[whole] && data[used - 1] == 0) used--;
      cr_assert(recovery.dropped_at == ends[whole], "cut at %zu", length);
      cr_assert_geq(recovery.dropped_bytes, used - ends[whole]);
    } else {
      cr_assert_eq(recovery.dropped_bytes, 0);
    }
    journal_append_to(journal, whole + 1, LQT__DURABILITY_SYNCED);
    journal_check(journal, whole + 1);
    lqt__journal_close(journal);
  }
  free(cut);
  free(data);
}

/* A journal that a new base has absorbed: the chain goes on in a new file, also when the process
 * was interrupted between the two, and when it appended after a failed attempt. */
Test(journal, a_new_base) {
  lqt__journal_options writer = journal_writer(), reader = journal_reader();
  lqt__journal *journal = journal_open(&writer, NULL), *follower = journal_open(&reader, NULL);
  journal_append_to(journal, 5, LQT__DURABILITY_SYNCED);
  size_t count;
  cr_assert_eq(lqt__journal_poll(follower, &count, NULL), LQT_OK);
  uint8_t *image, head[32];
  uint64_t image_bytes;
  cr_assert_eq(lqt__journal_image(journal, &image, &image_bytes, NULL), LQT_OK);
  lqt__journal_head(journal, head);
  sample_base next;
  sample_base_make(&next, 2);
  next.file.edit_log = (lqt__blob){.data = image, .bytes = image_bytes};
  lqt__journal_options after = writer;
  after.base = &next.file;
  lqt__journal_recovery recovery;
  /* One more came after the attempt: it is what remains to be replayed. */
  journal_append_to(journal, 6, LQT__DURABILITY_SYNCED);
  lqt__journal_close(journal);
  journal = journal_open(&after, &recovery);
  cr_assert(!recovery.absorbed);
  cr_assert_eq(lqt__journal_first(journal), 5);
  journal_check(journal, 6);
  uint8_t *longer;
  cr_assert_eq(lqt__journal_image(journal, &longer, &image_bytes, NULL), LQT_OK);
  lqt__free(image);
  image = longer;
  lqt__journal_head(journal, head);
  lqt__journal_close(journal);
  /* Interrupted before the restart. */
  next.file.edit_log = (lqt__blob){.data = image, .bytes = image_bytes};
  lqt__journal_options look = {.base = &next.file};
  journal = journal_open(&look, NULL);
  cr_assert_eq(lqt__journal_first(journal), 6);
  lqt__journal_close(journal);
  journal = journal_open(&after, &recovery);
  cr_assert(recovery.absorbed);
  cr_assert_eq(lqt__journal_count(journal), 0);
  cr_assert_eq(lqt__journal_revision(journal), 6);
  cr_assert_arr_eq(lqt__journal_get_header(journal)->prior, head, 32);
  /* Followers are told, and can go on from the head they had. */
  cr_assert_eq(lqt__journal_poll(follower, &count, NULL), LQT_OK);
  cr_assert_eq(count, 1);
  cr_assert_eq(lqt__journal_poll(follower, &count, NULL), LQT_STALE_REVISION);
  lqt__journal_close(follower);
  reader.continues = head;
  follower = journal_open(&reader, NULL);
  lqt__journal_close(follower);
  reader.continues = NULL;
  cr_assert_eq(lqt__journal_open(journal_path, &reader, &follower, NULL, NULL), LQT_WRONG_BASE);
  /* The second generation. */
  journal_append_to(journal, 9, LQT__DURABILITY_GROUP);
  uint8_t *both;
  uint64_t both_bytes;
  cr_assert_eq(lqt__journal_wait(journal, NULL), LQT_OK);
  cr_assert_eq(lqt__journal_image(journal, &both, &both_bytes, NULL), LQT_OK);
  cr_assert_gt(both_bytes, image_bytes);
  cr_assert_arr_eq(both, image, image_bytes);
  sample_base last;
  sample_base_make(&last, 3);
  last.file.edit_log = (lqt__blob){.data = both, .bytes = both_bytes};
  cr_assert_eq(lqt__journal_restart(journal, &last.file, NULL), LQT_OK);
  journal_append_to(journal, 10, LQT__DURABILITY_SYNCED);
  lqt__journal_close(journal);
  after.base = &last.file;
  journal = journal_open(&after, NULL);
  cr_assert_eq(lqt__journal_count(journal), 1);
  cr_assert(sample_check(journal, 0, SEED, 0, NULL));
  lqt__journal_close(journal);
  cr_assert_eq(journal_count_files(), 1);
  /* Without a journal beside it the base knows where the revisions stand. */
  cr_assert_eq(unlink(journal_path), 0);
  journal = journal_open(&after, NULL);
  cr_assert_eq(lqt__journal_revision(journal), 9);
  lqt__journal_close(journal);
  lqt__free(both);
  lqt__free(image);
}

/* Every allocation, write and sync fails once: what was acknowledged stays, what failed is not
 * there, and the journal goes on. */
static void fail_each(void (*fail_after)(int64_t), lqt__durability durability, uint64_t large) {
  lqt__journal_options writer = journal_writer();
  lqt_key *key;
  cr_assert_eq(lqt__key_generate(&key, NULL), LQT_OK);
  writer.sign = key;
  int failures = 0;
  for (int64_t n = 0; n < 400; n++) {
    unlink(journal_path);
    lqt__journal *journal = journal_open(&writer, NULL);
    journal_append_to(journal, 2, LQT__DURABILITY_SYNCED);
    lqt__journal_entry entry;
    lqt_diag diag = {0};
    sample_entry(SEED, 3, large, &entry);
    fail_after(n);
    lqt_status status = lqt__journal_append(journal, &entry, durability, NULL, &diag);
    lqt_status waited = lqt__journal_wait(journal, NULL);
    fail_after(-1);
    size_t count = status == LQT_OK ? 3 : 2;
    cr_assert_eq(lqt__journal_count(journal), count, "n %d", (int)n);
    if (status != LQT_OK) {
      failures++;
      cr_assert_neq(diag.what[0], '\0');
      cr_assert(status == LQT_OUT_OF_MEMORY || status == LQT_NO_SPACE || status == LQT_IO);
      /* The same again, now that there is room; after a sync that failed it must be reopened. */
      status = lqt__journal_append(journal, &entry, durability, NULL, &diag);
    }
    if (waited != LQT_OK) {
      failures++;
      cr_assert(lqt__journal_must_reopen(journal));
    }
    lqt__entry_free(&entry);
    lqt__journal_close(journal);
    journal = journal_open(&writer, NULL);
    if (status == LQT_OK && waited == LQT_OK) {
      cr_assert_eq(lqt__journal_count(journal), 3, "n %d", (int)n);
      cr_assert(sample_check(journal, 2, SEED, large, NULL));
    }
    cr_assert_geq(lqt__journal_count(journal), 2);
    cr_assert(sample_check(journal, 0, SEED, 0, NULL) && sample_check(journal, 1, SEED, 0, NULL));
    journal_append_to(journal, 5, LQT__DURABILITY_SYNCED);
    lqt__journal_close(journal);
    fail_after(1 << 30);
    if (status == LQT_OK && failures > 0 && waited == LQT_OK && n > 60) break;
  }
  fail_after(-1);
  lqt__key_destroy(key);
  cr_assert_geq(failures, 1);
}

Test(journal, every_failure_of_an_append) {
  fail_each(lqt__alloc_fail_after, LQT__DURABILITY_SYNCED, 0);
  fail_each(lqt__io_fail_after, LQT__DURABILITY_SYNCED, 0);
  fail_each(lqt__alloc_fail_after, LQT__DURABILITY_GROUP, 0);
  fail_each(lqt__io_fail_after, LQT__DURABILITY_GROUP, 0);
  fail_each(lqt__io_fail_after, LQT__DURABILITY_SYNCED, 200000);
}

Test(journal, every_failure_of_an_opening) {
  void (*const hooks[])(int64_t) = {lqt__alloc_fail_after, lqt__io_fail_after};
  for (size_t h = 0; h < 4; h++) {
    bool torn = h >= 2;
    int failures = 0;
    for (int64_t n = 0;; n++) {
      unlink(journal_path);
      lqt__journal_options writer = journal_writer();
      lqt__journal *journal;
      if (torn) {
        journal = journal_open(&writer, NULL);
        journal_append_to(journal, 3, LQT__DURABILITY_SYNCED);
        uint64_t end = lqt__journal_get_commit(journal, 2)->end;
        lqt__journal_close(journal);
        cr_assert_eq(truncate(journal_path, (off_t)end - 5), 0);
      }
      lqt_diag diag = {0};
      hooks[h % 2](n);
      lqt_status status = lqt__journal_open(journal_path, &writer, &journal, NULL, &diag);
      hooks[h % 2](-1);
      if (status == LQT_OK) {
        lqt__journal_close(journal);
        break;
      }
      failures++;
      cr_assert_neq(diag.what[0], '\0');
      cr_assert_null(journal);
      cr_assert_eq(journal_count_files(), torn ? 1 : 0, "n %d left a file", (int)n);
      journal = journal_open(&writer, NULL);
      journal_check(journal, torn ? 2 : 0);
      lqt__journal_close(journal);
    }
    cr_assert_geq(failures, 3);
  }
}
