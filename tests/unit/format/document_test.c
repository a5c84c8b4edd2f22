/* The worked example of docs/format.md is a file that opens, and means what the page says. */
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lqt/model.h"
#include "sample.h"
#include "support/data.h"

/* Bytes of the lines "    OFFSET: bytes | text"; every offset must continue the one before. */
static size_t read_example(const char *text, uint8_t *out, size_t room) {
  size_t at = 0;
  const char *line = strstr(text, "## Worked example");
  cr_assert_not_null(line);
  for (; line != NULL; line = strchr(line, '\n'), line = line != NULL ? line + 1 : NULL) {
    if (strncmp(line, "    ", 4) != 0 || strspn(line + 4, "0123456789abcdef") != 4) continue;
    char *end;
    cr_assert_eq(strtoul(line + 4, &end, 16), at, "offsets continue at %zx", at);
    cr_assert_eq(*end, ':');
    for (const char *p = end + 1; *p != '|'; p++) {
      if (*p == ' ') continue;
      cr_assert(isxdigit((unsigned char)p[0]) && isxdigit((unsigned char)p[1]) && at < room);
      char digits[3] = {p[0], p[1], 0};
      out[at++] = (uint8_t)strtoul(digits, NULL, 16);
      p++;
    }
  }
  return at;
}

Test(document, the_worked_example_opens) {
  char path[1024], *text;
  size_t text_bytes;
  cr_assert(test_source_path("docs/format.md", path, sizeof path), "%s", path);
  cr_assert_eq(lqt__file_read(path, 1 << 20, &text, &text_bytes, NULL), LQT_OK);
  static _Alignas(64) uint8_t data[4096];
  size_t bytes = read_example(text, data, sizeof data);
  lqt__free(text);
  cr_assert_eq(bytes, 832);
  lqt_diag diag = {0};
  lqt_model *model;
  cr_assert_eq(lqt_model_open_memory(data, bytes, NULL, &model, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_model_validate(model, NULL, NULL, NULL, &diag), LQT_OK, "%s", diag.what);
  size_t index;
  cr_assert_eq(lqt_model_find_tensor(model, "w", &index), LQT_OK);
  lqt_weight_desc desc;
  cr_assert_eq(lqt_model_weight(model, index, &desc, &diag), LQT_OK, "%s", diag.what);
  static const float expected[2][4] = {{-1, -0.5f, 0.5f, 1}, {1, 0.5f, -0.5f, -1}};
  for (uint64_t r = 0; r < 2; r++) {
    float row[4];
    cr_assert_eq(lqt_weight_desc_row(&desc, r, 0, 4, row), LQT_OK);
    for (int c = 0; c < 4; c++) cr_assert_eq(row[c], expected[r][c]);
  }
  lqt_model_release(model);
  /* It is also exactly what the writer makes. */
  char folder[] = "/tmp/lqt-document-test-XXXXXX", file_path[256];
  cr_assert_not_null(mkdtemp(folder));
  snprintf(file_path, sizeof file_path, "%s/file.lqt", folder);
  lqt__file file;
  cr_assert_eq(lqt__file_parse(data, bytes, "example", false, &file, NULL), LQT_OK);
  size_t again_bytes;
  uint8_t *again = sample_write(&file, file_path, &again_bytes, &diag);
  cr_assert_not_null(again, "%s", diag.what);
  cr_assert_eq(again_bytes, bytes);
  cr_assert_arr_eq(again, data, bytes);
  lqt__free(again);
  lqt__file_free(&file);
  unlink(file_path);
  rmdir(folder);
}
