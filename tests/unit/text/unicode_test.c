#include "text/unicode.h"

#include <criterion/criterion.h>

Test(unicode, every_scalar_value_survives_utf8) {
  for (uint32_t code = 0; code <= 0x10FFFF; code++) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    uint8_t bytes[4];
    size_t length = lqt__utf8_encode(code, bytes);
    uint32_t back;
    cr_assert_eq(lqt__utf8_decode(bytes, length, &back), length);
    cr_assert_eq(back, code);
    if (length > 1) {
      cr_assert_eq(lqt__utf8_decode(bytes, length - 1, &back), 1);
      cr_assert_eq(back, (uint32_t)LQT__UNICODE_INVALID);
    }
  }
}

Test(unicode, malformed_bytes_stand_alone) {
  static const char *const bad[] = {"\x80",         "\xC0\x80",         "\xC1\xBF",
                                    "\xE0\x80\x80", "\xED\xA0\x80",     "\xF0\x80\x80\x80",
                                    "\xFF",         "\xF4\x90\x80\x80", "\xE2\x28\xA1"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    uint32_t code;
    cr_assert_eq(lqt__utf8_decode((const uint8_t *)bad[i], strlen(bad[i]), &code), 1);
    cr_assert_eq(code, (uint32_t)LQT__UNICODE_INVALID);
  }
}

Test(unicode, classes) {
  static const struct {
    uint32_t code;
    lqt__unicode_class kind;
  } known[] = {{'a', LQT__UNICODE_LETTER},
               {'Z', LQT__UNICODE_LETTER},
               {'[', LQT__UNICODE_OTHER},
               {'@', LQT__UNICODE_OTHER},
               {'`', LQT__UNICODE_OTHER},
               {'{', LQT__UNICODE_OTHER},
               {'9', LQT__UNICODE_NUMBER},
               {0x0B, LQT__UNICODE_SPACE},
               {0x1C, LQT__UNICODE_OTHER},
               {0x85, LQT__UNICODE_SPACE},
               {0xA0, LQT__UNICODE_SPACE},
               {0xB2, LQT__UNICODE_NUMBER},
               {0xAA, LQT__UNICODE_LETTER},
               {0x301, LQT__UNICODE_OTHER},
               {0x2003, LQT__UNICODE_SPACE},
               {0x200B, LQT__UNICODE_OTHER},
               {0x2167, LQT__UNICODE_NUMBER},
               {0x4E2D, LQT__UNICODE_LETTER},
               {0x3000, LQT__UNICODE_SPACE},
               {0x1F600, LQT__UNICODE_OTHER},
               {0x1D400, LQT__UNICODE_LETTER},
               {0x10FFFF, LQT__UNICODE_OTHER},
               {LQT__UNICODE_INVALID, LQT__UNICODE_OTHER}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    cr_assert_eq(lqt__unicode_class_of(known[i].code), known[i].kind, "U+%04X", known[i].code);
  }
  for (size_t i = 0; i < lqt__unicode_range_count; i++) {
    const lqt__unicode_range *range = &lqt__unicode_ranges[i];
    cr_assert_leq(range->first, range->last);
    if (i > 0) cr_assert_lt(range[-1].last, range->first);
    cr_assert_eq((int)lqt__unicode_class_of(range->first), range->kind);
    cr_assert_eq((int)lqt__unicode_class_of(range->last), range->kind);
  }
}
