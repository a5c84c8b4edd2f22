#include "text/pretoken.h"

#include <criterion/criterion.h>
#include <jansson.h>

#include "support/data.h"

static void check(const lqt__split *split, const char *name, const json_t *test) {
  const json_t *text = json_object_get(test, "text"), *pieces = json_object_get(test, name);
  const uint8_t *at = (const uint8_t *)json_string_value(text);
  size_t left = json_string_length(text);
  size_t i;
  json_t *piece;
  json_array_foreach(pieces, i, piece) {
    cr_assert_gt(left, 0, "%s: too few pieces of '%s'", name, json_string_value(text));
    size_t length = lqt__split_next(split, at, left);
    cr_assert_eq(length, (size_t)json_integer_value(piece), "%s: piece %zu of '%s' has %zu bytes",
                 name, i, json_string_value(text), length);
    at += length;
    left -= length;
  }
  cr_assert_eq(left, 0, "%s: too many pieces of '%s'", name, json_string_value(text));
}

Test(pretoken, cuts_like_the_reference) {
  static const struct {
    const char *name;
    lqt__split split;
  } splits[] = {{"gpt2", {LQT__SPLIT_GPT2, 0}},
                {"llama3", {LQT__SPLIT_CL100K, 3}},
                {"qwen2", {LQT__SPLIT_CL100K, 1}},
                {"digits", {LQT__SPLIT_DIGITS, 0}},
                {"digit", {LQT__SPLIT_DIGIT, 0}}};
  char path[1024];
  cr_assert(test_source_path("tests/unit/text/pretoken_cases.json", path, sizeof path));
  json_t *cases = json_load_file(path, JSON_ALLOW_NUL, NULL);
  cr_assert_gt(json_array_size(cases), 400);
  size_t i;
  json_t *test;
  json_array_foreach(cases, i, test) {
    for (size_t s = 0; s < sizeof splits / sizeof *splits; s++) {
      check(&splits[s].split, splits[s].name, test);
    }
  }
  json_decref(cases);
}

Test(pretoken, knows_its_patterns_only) {
  lqt__split split;
  cr_assert(lqt__split_from_pattern(
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+"
      "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      &split));
  cr_assert_eq(split.kind, LQT__SPLIT_CL100K);
  cr_assert_eq(split.digits, 3);
  cr_assert_not(lqt__split_from_pattern("\\w+", &split));
}
