#include "io/file.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

static char folder[] = "/tmp/lqt-io-test-XXXXXX";
static char path[256];

static void make_folder(void) {
  cr_assert_not_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/file", folder);
}

static size_t count_files(void) {
  DIR *stream = opendir(folder);
  cr_assert_not_null(stream);
  size_t count = 0;
  for (struct dirent *entry; (entry = readdir(stream)) != NULL;) count += entry->d_name[0] != '.';
  closedir(stream);
  return count;
}

static void remove_folder(void) {
  unlink(path);
  rmdir(folder);
}

TestSuite(io, .init = make_folder, .fini = remove_folder);

static void assert_content(const char *expected) {
  char *text = NULL;
  size_t bytes = 0;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__file_read(path, 1 << 20, &text, &bytes, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(bytes, strlen(expected));
  cr_assert_str_eq(text, expected);
  lqt__free(text);
}

Test(io, write_read_and_replace) {
  cr_assert_eq(lqt__file_write(path, "first", 5, NULL), LQT_OK);
  assert_content("first");
  cr_assert_eq(chmod(path, 0640), 0);
  cr_assert_eq(lqt__file_write(path, "second one", 10, NULL), LQT_OK);
  assert_content("second one");
  struct stat info;
  cr_assert_eq(stat(path, &info), 0);
  cr_assert_eq(info.st_mode & 0777, 0640, "the mode of the old file is kept");
  cr_assert_eq(count_files(), 1);
}

/* Whichever system call fails, the old bytes stay or the new ones are whole, and no temporary file
 * is left. */
Test(io, every_failure_leaves_a_whole_file) {
  cr_assert_eq(lqt__file_write(path, "old", 3, NULL), LQT_OK);
  int failures = 0;
  for (int n = 0; n < 100; n++) {
    lqt__io_fail_after(n);
    lqt_diag diag = {0};
    lqt_status status = lqt__file_write(path, "new bytes", 9, &diag);
    lqt__io_fail_after(-1);
    cr_assert_eq(count_files(), 1, "call %d left a temporary file", n);
    if (status == LQT_OK) {
      assert_content("new bytes");
      break;
    }
    failures++;
    cr_assert_eq(status, LQT_IO, "call %d", n);
    cr_assert_neq(diag.what[0], '\0');
    /* Only the sync of the directory comes after the rename. */
    char *text = NULL;
    size_t bytes = 0;
    cr_assert_eq(lqt__file_read(path, 100, &text, &bytes, NULL), LQT_OK);
    cr_assert(strcmp(text, "old") == 0 || strcmp(text, "new bytes") == 0, "call %d: %s", n, text);
    if (strcmp(text, "new bytes") == 0) {
      cr_assert_eq(lqt__file_write(path, "old", 3, NULL), LQT_OK);
    }
    lqt__free(text);
  }
  cr_assert_geq(failures, 4);
}

Test(io, an_aborted_output_changes_nothing) {
  cr_assert_eq(lqt__file_write(path, "old", 3, NULL), LQT_OK);
  lqt__output *output;
  cr_assert_eq(lqt__output_begin(path, &output, NULL), LQT_OK);
  cr_assert_eq(lqt__output_write(output, 100, "x", 1, NULL), LQT_OK);
  lqt__output_abort(output);
  assert_content("old");
  cr_assert_eq(count_files(), 1);
}

Test(io, bad_paths) {
  lqt__map map;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__map_open(path, &map, &diag), LQT_NOT_FOUND);
  cr_assert_str_eq(diag.where, path);
  cr_assert_eq(lqt__map_open(folder, &map, &diag), LQT_INVALID_ARGUMENT);
  cr_assert_null(map.data);
  char missing[512];
  snprintf(missing, sizeof missing, "%s/none/file", folder);
  cr_assert_eq(lqt__file_write(missing, "x", 1, &diag), LQT_NOT_FOUND);
  cr_assert_eq(lqt__file_write(folder, "x", 1, &diag), LQT_INVALID_ARGUMENT);
  char *text;
  size_t bytes;
  cr_assert_eq(lqt__file_write(path, "12345", 5, NULL), LQT_OK);
  cr_assert_eq(lqt__file_read(path, 4, &text, &bytes, &diag), LQT_LIMIT);
  cr_assert_null(text);
}

Test(io, empty_file) {
  cr_assert_eq(lqt__file_write(path, "", 0, NULL), LQT_OK);
  lqt__map map;
  cr_assert_eq(lqt__map_open(path, &map, NULL), LQT_OK);
  cr_assert_eq(map.bytes, 0);
  lqt__map_close(&map);
  assert_content("");
}
