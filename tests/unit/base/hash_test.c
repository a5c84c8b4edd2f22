#include "base/hash.h"

#include <criterion/criterion.h>
#include <string.h>

/* FIPS 180-2, appendix B.1 and B.2. */
Test(hash, sha256_known_answers) {
  static const struct {
    const char *text;
    uint8_t first[4];
  } cases[] = {
      {"abc", {0xba, 0x78, 0x16, 0xbf}},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", {0x24, 0x8d, 0x6a, 0x61}},
      {"", {0xe3, 0xb0, 0xc4, 0x42}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint8_t digest[32];
    cr_assert_eq(lqt__sha256(cases[i].text, strlen(cases[i].text), digest), LQT_OK);
    cr_assert_arr_eq(digest, cases[i].first, 4, "case %zu", i);
  }
}

Test(hash, sha256_in_parts_is_the_same) {
  uint8_t data[1000], whole[32], parts[32];
  for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 7);
  cr_assert_eq(lqt__sha256(data, sizeof data, whole), LQT_OK);
  lqt__sha256_state *state = lqt__sha256_begin();
  cr_assert_not_null(state);
  for (size_t at = 0; at < sizeof data; at += 100) {
    cr_assert_eq(lqt__sha256_add(state, data + at, 100), LQT_OK);
  }
  cr_assert_eq(lqt__sha256_end(state, parts), LQT_OK);
  cr_assert_arr_eq(whole, parts, 32);
}

Test(hash, crc32_check_value) {
  cr_assert_eq(lqt__crc32(0, "123456789", 9), 0xcbf43926u);
  cr_assert_eq(lqt__crc32(lqt__crc32(0, "1234", 4), "56789", 5), 0xcbf43926u);
}
