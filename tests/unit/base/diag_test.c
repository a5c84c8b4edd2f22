#include "base/diag.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(diag, says_what_where_and_why) {
  lqt_diag diag = {0};
  cr_assert_eq(lqt__fail_errno(&diag, LQT_IO, "a.lqt", ENOENT, "cannot open %s", "it"), LQT_IO);
  cr_assert_str_eq(diag.where, "a.lqt");
  cr_assert_str_eq(diag.what, "cannot open it: No such file or directory");
  cr_assert_eq(diag.native, ENOENT);
  cr_assert_eq(diag.offset, UINT64_MAX);
  cr_assert_eq(lqt__fail_at(&diag, LQT_BAD_HEADER, "b.lqt", 12, "bad"), LQT_BAD_HEADER);
  cr_assert_eq(diag.offset, 12);
  cr_assert_eq(diag.status, LQT_BAD_HEADER);
  cr_assert_eq(diag.native, 0);
}

/* Texts that are too long are cut, and always terminated. */
Test(diag, long_texts_are_cut) {
  static char text[2000];
  memset(text, 'x', sizeof text - 1);
  lqt_diag diag;
  memset(&diag, 0xff, sizeof diag);
  cr_assert_eq(lqt__fail_errno(&diag, LQT_IO, text, EIO, "%s", text), LQT_IO);
  cr_assert_eq(strnlen(diag.where, sizeof diag.where), sizeof diag.where - 1);
  cr_assert_eq(strnlen(diag.what, sizeof diag.what), sizeof diag.what - 1);
  cr_assert_eq(lqt__fail(NULL, LQT_LIMIT, "x", "y"), LQT_LIMIT);
}

/* Numbers are ABI: each has one name and one text. */
Test(diag, every_status_has_a_name_and_a_text) {
#define CHECK(name, number, sentence)                   \
  cr_assert_eq((int)LQT_##name, number);                \
  cr_assert_str_eq(lqt_status_name(LQT_##name), #name); \
  cr_assert_str_eq(lqt_status_text(LQT_##name), sentence);
  LQT_STATUS_TABLE(CHECK)
#undef CHECK
  cr_assert_str_eq(lqt_status_text((lqt_status)77), "unknown status");
  cr_assert_str_eq(lqt_status_name((lqt_status)77), "?");
}
