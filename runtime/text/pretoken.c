#include "text/pretoken.h"

#include <string.h>

#include "text/unicode.h"

typedef struct character {
  uint32_t code;
  size_t length; /* 0 past the end */
  lqt__unicode_class kind;
} character;

static character character_at(const uint8_t *text, size_t bytes, size_t at) {
  character c = {0};
  if (at >= bytes) return c;
  c.length = lqt__utf8_decode(text + at, bytes - at, &c.code);
  c.kind = lqt__unicode_class_of(c.code);
  return c;
}

/* End of the run of `kind` characters that begins at `at`, at most `most` of them. */
static size_t run_end(const uint8_t *text, size_t bytes, size_t at, lqt__unicode_class kind,
                      size_t most) {
  for (size_t n = 0; n < most; n++) {
    character c = character_at(text, bytes, at);
    if (c.length == 0 || c.kind != kind) break;
    at += c.length;
  }
  return at;
}

static bool is_newline(uint32_t code) { return code == '\r' || code == '\n'; }

/* Length of 's 't 're 've 'm 'll 'd at the start of text, or 0. */
static size_t contraction(const uint8_t *text, size_t bytes, bool fold_case) {
  if (bytes < 2 || text[0] != '\'') return 0;
  uint8_t fold = fold_case ? 0x20 : 0;
  uint8_t first = text[1] | fold;
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  /* U+017F, the long s, folds to s. */
  if (fold_case && bytes >= 3 && text[1] == 0xC5 && text[2] == 0xBF) return 3;
  if (bytes < 3) return 0;
  uint8_t second = text[2] | fold;
  bool found = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
               (first == 'l' && second == 'l');
  return found ? 3 : 0;
}

/* \s+(?!\S)|\s+ : a run of white space leaves its last character to what follows it. */
static size_t space_run(const uint8_t *text, size_t bytes) {
  size_t at = 0, last = 0;
  for (;;) {
    character c = character_at(text, bytes, at);
    if (c.length == 0) return at;
    if (c.kind != LQT__UNICODE_SPACE) return last > 0 ? last : at;
    last = at;
    at += c.length;
  }
}

static size_t next_gpt2(const uint8_t *text, size_t bytes) {
  size_t length = contraction(text, bytes, false);
  if (length != 0) return length;
  size_t start = text[0] == ' ' ? 1 : 0;
  character c = character_at(text, bytes, start);
  if (c.length == 0 || c.kind == LQT__UNICODE_SPACE) return space_run(text, bytes);
  return run_end(text, bytes, start, c.kind, SIZE_MAX);
}

/* \s*[\r\n]+ : up to the last line break of the run of white space; 0 when it has none. */
static size_t line_breaks(const uint8_t *text, size_t bytes) {
  size_t end = 0;
  for (size_t at = 0;;) {
    character c = character_at(text, bytes, at);
    if (c.length == 0 || c.kind != LQT__UNICODE_SPACE) return end;
    at += c.length;
    if (is_newline(c.code)) end = at;
  }
}

static size_t next_cl100k(const uint8_t *text, size_t bytes, size_t digits) {
  size_t length = contraction(text, bytes, true);
  if (length != 0) return length;
  character first = character_at(text, bytes, 0);
  if (first.kind == LQT__UNICODE_LETTER) return run_end(text, bytes, 0, first.kind, SIZE_MAX);
  if (first.kind == LQT__UNICODE_NUMBER) return run_end(text, bytes, 0, first.kind, digits);
  if (!is_newline(first.code)) {
    size_t end = run_end(text, bytes, first.length, LQT__UNICODE_LETTER, SIZE_MAX);
    if (end > first.length) return end;
  }
  size_t start = first.code == ' ' ? 1 : 0;
  size_t end = run_end(text, bytes, start, LQT__UNICODE_OTHER, SIZE_MAX);
  if (end > start) {
    while (end < bytes && is_newline(text[end])) end++;
    return end;
  }
  end = line_breaks(text, bytes);
  return end != 0 ? end : space_run(text, bytes);
}

/* What is not a number is one piece up to the next number. */
static size_t next_digits(const uint8_t *text, size_t bytes, size_t digits) {
  size_t end = run_end(text, bytes, 0, LQT__UNICODE_NUMBER, digits);
  if (end != 0) return end;
  for (;;) {
    character c = character_at(text, bytes, end);
    if (c.length == 0 || c.kind == LQT__UNICODE_NUMBER) return end;
    end += c.length;
  }
}

size_t lqt__split_next(const lqt__split *split, const uint8_t *text, size_t bytes) {
  switch (split->kind) {
    case LQT__SPLIT_GPT2:
      return next_gpt2(text, bytes);
    case LQT__SPLIT_CL100K:
      return next_cl100k(text, bytes, split->digits);
    case LQT__SPLIT_DIGIT:
      return next_digits(text, bytes, 1);
    case LQT__SPLIT_DIGITS:
      return next_digits(text, bytes, SIZE_MAX);
  }
  return bytes;
}

bool lqt__split_from_pattern(const char *pattern, lqt__split *out) {
  static const struct {
    const char *pattern;
    lqt__split split;
  } known[] = {
      {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
       {LQT__SPLIT_GPT2, 0}},
      {"'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
       {LQT__SPLIT_GPT2, 0}},
      {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
       " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
       {LQT__SPLIT_CL100K, 3}},
      {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
       " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
       {LQT__SPLIT_CL100K, 1}},
  };
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(pattern, known[i].pattern) == 0) {
      *out = known[i].split;
      return true;
    }
  }
  return false;
}
