/* Every allocation and every system call failed once in turn: a status, nothing leaked, and no
 * half-written file. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lqt/model.h"
#include "sample.h"
#include "turn.h"

static char folder[] = "/tmp/lqt-failure-test-XXXXXX";
static char path[256];

static void make_folder(void) {
  json_set_alloc_funcs(lqt__alloc, lqt__free);
  cr_assert_not_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/file.lqt", folder);
}

static void remove_folder(void) {
  unlink(path);
  rmdir(folder);
}

TestSuite(failure, .init = make_folder, .fini = remove_folder);

static size_t count_files(void) {
  DIR *stream = opendir(folder);
  cr_assert_not_null(stream);
  size_t count = 0;
  for (struct dirent *entry; (entry = readdir(stream)) != NULL;) count += entry->d_name[0] != '.';
  closedir(stream);
  return count;
}

static lqt_status open_and_read(const uint8_t *data, size_t bytes, lqt_diag *diag) {
  lqt_model *model;
  lqt_status status = lqt_model_open_memory(data, bytes, NULL, &model, diag);
  if (status != LQT_OK) {
    cr_assert_null(model);
    return status;
  }
  status = lqt_model_validate(model, NULL, NULL, NULL, diag);
  lqt_model_release(model);
  return status;
}

static int fail_each_allocation(const uint8_t *data, size_t bytes) {
  int failures = 0;
  for (int n = 0;; n++) {
    lqt_diag diag = {0};
    lqt__alloc_fail_after(n);
    lqt_status status = open_and_read(data, bytes, &diag);
    lqt__alloc_fail_after(-1);
    if (status == LQT_OK) {
      /* Either nothing was left to fail, or what failed had a fallback; only the first ends it. */
      lqt__alloc_fail_after(n);
      uint64_t before = lqt__alloc_count();
      (void)open_and_read(data, bytes, NULL);
      uint64_t made = lqt__alloc_count() - before;
      lqt__alloc_fail_after(-1);
      if (made <= (uint64_t)n) return failures;
      continue;
    }
    cr_assert_eq(status, LQT_OUT_OF_MEMORY, "allocation %d: %s", n, lqt_status_name(status));
    cr_assert_neq(diag.what[0], '\0');
    failures++;
  }
}

Test(failure, of_every_allocation_of_a_reader) {
  sample s;
  size_t bytes;
  cr_assert(sample_make(&s, SAMPLE_SEED));
  uint8_t *data = sample_write(&s.file, path, &bytes, NULL);
  cr_assert_not_null(data);
  cr_assert_geq(fail_each_allocation(data, bytes), 50);
  turn_big_endian(data, bytes);
  cr_assert_geq(fail_each_allocation(data, bytes), 50);
  lqt__free(data);
  sample_free(&s);
}

static lqt_status write_sample(const lqt__file *file, lqt_diag *diag) {
  lqt__writer *writer;
  lqt_status status = lqt__writer_begin(path, file, &writer, diag);
  if (status != LQT_OK) {
    cr_assert_null(writer);
    return status;
  }
  return lqt__writer_finish(writer, NULL, diag);
}

static void assert_whole(const uint8_t *old, size_t old_bytes, const uint8_t *new, size_t new_bytes,
                         bool must_be_old) {
  char *text;
  size_t bytes;
  cr_assert_eq(lqt__file_read(path, 1 << 26, &text, &bytes, NULL), LQT_OK);
  bool is_old = bytes == old_bytes && memcmp(text, old, bytes) == 0;
  bool is_new = bytes == new_bytes && memcmp(text, new, bytes) == 0;
  cr_assert(is_old || (is_new && !must_be_old), "a half-written file was left");
  lqt__free(text);
  cr_assert_eq(count_files(), 1);
}

Test(failure, of_every_allocation_and_call_of_a_writer) {
  sample a, b;
  size_t a_bytes, b_bytes;
  cr_assert(sample_make(&a, 1) && sample_make(&b, 2));
  uint8_t *b_data = sample_write(&b.file, path, &b_bytes, NULL);
  uint8_t *a_data = sample_write(&a.file, path, &a_bytes, NULL);
  cr_assert(a_data != NULL && b_data != NULL);
  int failures = 0;
  for (int n = 0;; n++, failures++) {
    lqt_diag diag = {0};
    lqt__alloc_fail_after(n);
    lqt_status status = write_sample(&b.file, &diag);
    lqt__alloc_fail_after(-1);
    if (status == LQT_OK) break;
    cr_assert_eq(status, LQT_OUT_OF_MEMORY, "allocation %d", n);
    cr_assert_neq(diag.what[0], '\0');
    assert_whole(a_data, a_bytes, b_data, b_bytes, false);
  }
  cr_assert_geq(failures, 10);
  lqt__free(sample_write(&a.file, path, &a_bytes, NULL));
  failures = 0;
  for (int n = 0;; n++, failures++) {
    lqt_diag diag = {0};
    lqt__io_fail_after(n);
    lqt_status status = write_sample(&b.file, &diag);
    lqt__io_fail_after(-1);
    if (status == LQT_OK) break;
    cr_assert_eq(status, LQT_IO, "call %d", n);
    cr_assert_neq(diag.what[0], '\0');
    assert_whole(a_data, a_bytes, b_data, b_bytes, false);
  }
  cr_assert_geq(failures, 50);
  assert_whole(b_data, b_bytes, b_data, b_bytes, true);
  lqt__free(a_data);
  lqt__free(b_data);
  sample_free(&a);
  sample_free(&b);
}
