#include "lqt/tokenizer.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/alloc.h"
#include "base/random.h"
#include "support.h"
#include "support/data.h"
#include "text/tokenizer.h"

static const char *const merges[] = {"h e", "l l", "he ll", "hell o", "o o", "oo oo", NULL};
enum { HE = 256, LL, HELL, HELLO, OO, OOOO, END, SEP };

static lqt_tokenizer *load(json_t *root) {
  lqt_tokenizer *tokenizer;
  lqt_diag diag = {0};
  cr_assert_eq(test_tokenizer_load(root, &tokenizer, &diag), LQT_OK, "%s", diag.what);
  json_decref(root);
  return tokenizer;
}

static void expect(const lqt_tokenizer *tokenizer, const char *text, size_t bytes, bool special,
                   const int32_t *wanted, size_t count) {
  int32_t ids[64];
  size_t got;
  cr_assert_eq(lqt_tokenizer_encode(tokenizer, text, bytes, special, ids, 64, &got, NULL), LQT_OK);
  cr_assert_eq(got, count, "'%s': %zu ids", text, got);
  for (size_t i = 0; i < count; i++) cr_assert_eq(ids[i], wanted[i], "'%s': id %zu", text, i);
}
#define EXPECT(tokenizer, text, special, ...)                                    \
  expect(tokenizer, text, strlen(text), special, (const int32_t[]){__VA_ARGS__}, \
         sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

Test(tokenizer, merges_by_rank_and_leftmost) {
  lqt_tokenizer *t = load(test_tokenizer_json(merges));
  EXPECT(t, "hello", false, HELLO);
  EXPECT(t, "hellohe", false, HELLO, HE);
  EXPECT(t, "ooo", false, OO, 'o');
  EXPECT(t, "ooooo", false, OOOO, 'o');
  EXPECT(t, "\xff\x80h", false, 0xff, 0x80, 'h');
  EXPECT(t, "hell o", false, HELL, ' ', 'o');
  size_t count;
  cr_assert_eq(lqt_tokenizer_encode(t, "", 0, true, NULL, 0, &count, NULL), LQT_OK);
  cr_assert_eq(count, 0);
  cr_assert_eq(lqt_tokenizer_encode(t, "hello he", 8, true, NULL, 0, &count, NULL), LQT_OK);
  cr_assert_eq(count, 3);
  lqt_tokenizer_destroy(t);
}

Test(tokenizer, added_tokens) {
  json_t *root = test_tokenizer_json(merges);
  lqt_tokenizer *t = load(json_incref(root));
  EXPECT(t, "he<|end|>he", true, HE, END, HE);
  EXPECT(t, "<|end|>", false, '<', '|', 'e', 'n', 'd', '|', '>');
  EXPECT(t, "a<sep>b", false, 'a', SEP, 'b');
  cr_assert_eq(lqt_tokenizer_vocab_size(t), SEP + 1);
  const char *bytes;
  size_t size;
  bool special;
  cr_assert_eq(lqt_tokenizer_token(t, END, &bytes, &size, &special), LQT_OK);
  cr_assert(special && size == 7 && memcmp(bytes, "<|end|>", 7) == 0);
  cr_assert_eq(lqt_tokenizer_token(t, 0, &bytes, &size, &special), LQT_OK);
  cr_assert(!special && size == 1 && bytes[0] == '\0');
  cr_assert_eq(lqt_tokenizer_token(t, SEP + 1, &bytes, &size, &special), LQT_OUT_OF_RANGE);
  cr_assert_eq(lqt_tokenizer_token(t, -1, &bytes, &size, &special), LQT_OUT_OF_RANGE);
  lqt_tokenizer_destroy(t);

  json_t *sep = test_json_at(root, "added_tokens.1");
  json_object_set_new(sep, "lstrip", json_true());
  json_object_set_new(sep, "rstrip", json_true());
  json_object_set_new(test_json_at(root, "added_tokens.0"), "single_word", json_true());
  t = load(root);
  EXPECT(t, "a \xe3\x80\x80<sep> \n b", false, 'a', SEP, 'b');
  EXPECT(t, ".<|end|>.", true, '.', END, '.');
  EXPECT(t, "\xc3\xa9<|end|>", true, 0xc3, 0xa9, '<', '|', 'e', 'n', 'd', '|', '>');
  lqt_tokenizer_destroy(t);
}

Test(tokenizer, pre_tokenizers) {
  json_t *root = test_tokenizer_json(merges);
  json_object_set_new(root, "pre_tokenizer",
                      json_pack("{s:s,s:b}", "type", "ByteLevel", "add_prefix_space", 1));
  lqt_tokenizer *t = load(json_incref(root));
  EXPECT(t, "he", false, ' ', HE);
  EXPECT(t, " he", false, ' ', HE);
  lqt_tokenizer_destroy(t);
  const char *llama3 =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
      " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  json_object_set_new(root, "pre_tokenizer",
                      json_pack("{s:s,s:[{s:s,s:{s:s},s:s,s:b},{s:s,s:b,s:b}]}", "type", "Sequence",
                                "pretokenizers", "type", "Split", "pattern", "Regex", llama3,
                                "behavior", "Isolated", "invert", 0, "type", "ByteLevel",
                                "add_prefix_space", 0, "use_regex", 0));
  json_array_append_new(test_json_at(root, "model.merges"), json_pack("[s,s]", "1", "2"));
  json_array_append_new(test_json_at(root, "model.merges"), json_pack("[s,s]", "3", "4"));
  json_object_set_new(test_json_at(root, "model.vocab"), "12", json_integer(300));
  json_object_set_new(test_json_at(root, "model.vocab"), "34", json_integer(301));
  json_object_set_new(test_json_at(root, "model.vocab"), "123", json_integer(302));
  t = load(json_incref(root));
  EXPECT(t, "123412", false, 300, '3', '4', 300);
  lqt_tokenizer_destroy(t);
  json_object_set_new(test_json_at(root, "model"), "ignore_merges", json_true());
  t = load(root);
  EXPECT(t, "123412", false, 302, '4', 300);
  lqt_tokenizer_destroy(t);
}

Test(tokenizer, long_pieces_agree_with_short_ones) {
  /* Cutting a long run of o's by hand gives what the heap gives: pairs from the left. */
  lqt_tokenizer *t = load(test_tokenizer_json(merges));
  enum { COUNT = 1000003 };
  char *text = malloc(COUNT);
  memset(text, 'o', COUNT);
  int32_t *ids = malloc(COUNT * sizeof *ids);
  size_t count;
  cr_assert_eq(lqt_tokenizer_encode(t, text, COUNT, false, ids, COUNT, &count, NULL), LQT_OK);
  cr_assert_eq(count, COUNT / 4 + 2);
  for (size_t i = 0; i + 2 < count; i++) cr_assert_eq(ids[i], OOOO);
  cr_assert_eq(ids[count - 2], OO);
  cr_assert_eq(ids[count - 1], 'o');
  /* Random letters: a piece and the same piece behind 60 more letters that merge with nothing. */
  lqt__random random = lqt__random_seed(5);
  for (size_t round = 0; round < 2000; round++) {
    char piece[112];
    size_t length = 1 + lqt__random_below(&random, 40);
    memset(piece, 'z', 60);
    for (size_t i = 0; i < length; i++) piece[60 + i] = "helo"[lqt__random_below(&random, 4)];
    int32_t alone[64], behind[128];
    size_t alone_count, behind_count;
    cr_assert_eq(lqt_tokenizer_encode(t, piece + 60, length, false, alone, 64, &alone_count, NULL),
                 LQT_OK);
    cr_assert_eq(
        lqt_tokenizer_encode(t, piece, 60 + length, false, behind, 128, &behind_count, NULL),
        LQT_OK);
    cr_assert_eq(behind_count, 60 + alone_count);
    cr_assert_arr_eq(behind + 60, alone, alone_count * sizeof *alone);
  }
  free(text);
  free(ids);
  lqt_tokenizer_destroy(t);
}

Test(tokenizer, decoding_gives_the_bytes_back) {
  lqt_tokenizer *t = load(test_tokenizer_json(merges));
  lqt__random random = lqt__random_seed(7);
  for (size_t round = 0; round < 200; round++) {
    uint8_t text[3000];
    size_t length = lqt__random_below(&random, sizeof text);
    for (size_t i = 0; i < length; i++) {
      text[i] = round % 2 ? (uint8_t)lqt__random_u64(&random)
                          : (uint8_t) "hello wo1\n'"[lqt__random_below(&random, 11)];
    }
    int32_t ids[sizeof text];
    size_t count, at = 0;
    cr_assert_eq(
        lqt_tokenizer_encode(t, (const char *)text, length, false, ids, sizeof text, &count, NULL),
        LQT_OK);
    for (size_t i = 0; i < count; i++) {
      const char *bytes;
      size_t size;
      cr_assert_eq(lqt_tokenizer_token(t, ids[i], &bytes, &size, NULL), LQT_OK);
      cr_assert(at + size <= length && memcmp(text + at, bytes, size) == 0);
      at += size;
    }
    cr_assert_eq(at, length);
  }
  lqt_tokenizer_destroy(t);
}

/* Each entry sets the JSON value at `path` and names the status. */
Test(tokenizer, refuses_what_it_cannot_follow) {
  static const struct {
    const char *path, *key, *value;
    lqt_status status;
  } cases[] = {
      {"", "normalizer", "{\"type\":\"NFC\"}", LQT_UNSUPPORTED},
      {"", "pre_tokenizer", "null", LQT_UNSUPPORTED},
      {"", "pre_tokenizer", "{\"type\":\"Metaspace\"}", LQT_UNSUPPORTED},
      {"", "pre_tokenizer", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x\"}}", LQT_UNSUPPORTED},
      {"", "model", "{\"type\":\"Unigram\"}", LQT_UNSUPPORTED},
      {"", "model", "null", LQT_BAD_TOKENIZER},
      {"", "added_tokens", "3", LQT_BAD_TOKENIZER},
      {"", "added_tokens", "[3]", LQT_BAD_TOKENIZER},
      {"", "added_tokens", "[{\"id\":65,\"content\":\"nope\"}]", LQT_BAD_TOKENIZER},
      {"", "added_tokens", "[{\"id\":2000000000,\"content\":\"nope\"}]", LQT_BAD_TOKENIZER},
      {"", "added_tokens", "[{\"id\":400,\"content\":\"\"}]", LQT_BAD_TOKENIZER},
      {"model", "byte_fallback", "true", LQT_UNSUPPORTED},
      {"model", "continuing_subword_prefix", "\"##\"", LQT_UNSUPPORTED},
      {"model", "dropout", "0.1", LQT_UNSUPPORTED},
      {"model", "vocab", "{}", LQT_BAD_TOKENIZER},
      {"model", "vocab", "{\"a\":0}", LQT_BAD_TOKENIZER},
      {"model", "merges", "null", LQT_BAD_TOKENIZER},
      {"model", "merges", "[\"a b c\"]", LQT_BAD_TOKENIZER},
      {"model", "merges", "[\"ab\"]", LQT_BAD_TOKENIZER},
      {"model", "merges", "[\" b\"]", LQT_BAD_TOKENIZER},
      {"model", "merges", "[[\"a\"]]", LQT_BAD_TOKENIZER},
      {"model", "merges", "[\"x y\"]", LQT_BAD_TOKENIZER},
      {"model", "merges", "[\"h e\",\"h e\"]", LQT_BAD_TOKENIZER},
      {"model.vocab", "a", "-1", LQT_BAD_TOKENIZER},
      {"model.vocab", "a", "\"1\"", LQT_BAD_TOKENIZER},
      {"model.vocab", "a", "98", LQT_BAD_TOKENIZER},
      {"model.vocab", "new", "4000000000", LQT_BAD_TOKENIZER},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    json_t *root = test_tokenizer_json(merges);
    json_t *value = json_loads(cases[i].value, JSON_DECODE_ANY, NULL);
    json_object_set_new(test_json_at(root, cases[i].path), cases[i].key, value);
    lqt_tokenizer *tokenizer = (lqt_tokenizer *)1;
    lqt_diag diag = {0};
    lqt_status status = test_tokenizer_load(root, &tokenizer, &diag);
    cr_assert_eq(status, cases[i].status, "%s.%s = %s: %s: %s", cases[i].path, cases[i].key,
                 cases[i].value, lqt_status_name(status), diag.what);
    cr_assert_eq(diag.status, status);
    cr_assert_gt(strlen(diag.what), 0);
    cr_assert_null(tokenizer);
    json_decref(root);
  }
  lqt_tokenizer *tokenizer;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_tokenizer_from_json("{", 1, &tokenizer, &diag), LQT_BAD_TOKENIZER);
  cr_assert_eq(diag.status, LQT_BAD_TOKENIZER);
}

Test(tokenizer, every_allocation_may_fail) {
  json_t *root = test_tokenizer_json(merges);
  char text[2048];
  memset(text, 'o', sizeof text);
  memcpy(text + 100, " hello <|end|>", 14);
  for (int64_t nth = 0;; nth++) {
    lqt_tokenizer *tokenizer = NULL;
    char *json = json_dumps(root, JSON_COMPACT);
    lqt__alloc_fail_after(nth);
    lqt_status status = lqt_tokenizer_from_json(json, strlen(json), &tokenizer, NULL);
    int32_t ids[8];
    size_t count = 0;
    if (status == LQT_OK) {
      status = lqt_tokenizer_encode(tokenizer, text, sizeof text, true, ids, 8, &count, NULL);
    }
    lqt__alloc_fail_after(-1);
    free(json);
    lqt_tokenizer_destroy(tokenizer);
    if (status == LQT_OK) {
      cr_assert_gt(nth, 5);
      break;
    }
    cr_assert_eq(status, LQT_OUT_OF_MEMORY);
    cr_assert_eq(count, 0);
  }
  json_decref(root);
}

static size_t make_chunk(const char *json, size_t bytes, int32_t bos, uint8_t *out,
                         size_t capacity) {
  uint32_t words[6] = {1, 0, (uint32_t)bos, (uint32_t)-1, (uint32_t)bytes, 0};
  memcpy(out, words, sizeof words); /* little-endian hosts run the tests */
  size_t packed = ZSTD_compress(out + 24, capacity - 24, json, bytes, 3);
  cr_assert_not(ZSTD_isError(packed));
  return 24 + packed;
}

Test(tokenizer, vocabulary_chunk) {
  json_t *root = test_tokenizer_json(merges);
  char *json = json_dumps(root, JSON_COMPACT);
  json_decref(root);
  uint8_t chunk[16384];
  size_t bytes = make_chunk(json, strlen(json), END, chunk, sizeof chunk);
  lqt_tokenizer *t;
  cr_assert_eq(lqt__tokenizer_from_chunk(chunk, bytes, &t, NULL), LQT_OK);
  cr_assert_eq(lqt_tokenizer_bos(t), END);
  cr_assert_eq(lqt_tokenizer_eos(t), -1);
  lqt_tokenizer_destroy(t);
  for (size_t cut = 0; cut < bytes; cut++) {
    cr_assert_neq(lqt__tokenizer_from_chunk(chunk, cut, &t, NULL), LQT_OK);
    cr_assert_null(t);
  }
  static const struct {
    size_t at;
    uint8_t value;
    lqt_status status;
  } cases[] = {{0, 2, LQT_UNSUPPORTED},
               {11, 0x7f, LQT_BAD_TOKENIZER},
               {16, 1, LQT_BAD_TOKENIZER},
               {20, 1, LQT_BAD_TOKENIZER},
               {24, 0, LQT_BAD_TOKENIZER}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint8_t kept = chunk[cases[i].at];
    chunk[cases[i].at] = cases[i].value;
    cr_assert_eq(lqt__tokenizer_from_chunk(chunk, bytes, &t, NULL), cases[i].status, "case %zu", i);
    chunk[cases[i].at] = kept;
  }
  free(json);
}

static char *read_file(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  cr_assert_not_null(file, "%s", path);
  fseek(file, 0, SEEK_END);
  *bytes = (size_t)ftell(file);
  rewind(file);
  char *data = malloc(*bytes + 1);
  cr_assert_eq(fread(data, 1, *bytes, file), *bytes);
  fclose(file);
  return data;
}

/* Bytes of the first `characters` characters. */
static size_t prefix(const char *text, size_t bytes, size_t characters) {
  size_t at = 0;
  while (at < bytes) {
    if (((uint8_t)text[at] & 0xC0) != 0x80 && characters-- == 0) break;
    at++;
  }
  return at;
}

static void check_heldout(const char *name, const char *text, size_t bytes) {
  char path[1024], item[128];
  snprintf(item, sizeof item, "models/%s/tokenizer.json", name);
  cr_assert(test_data_path(item, path, sizeof path));
  size_t json_bytes, wanted_bytes, count = 0;
  char *json = read_file(path, &json_bytes);
  lqt_tokenizer *t;
  cr_assert_eq(lqt_tokenizer_from_json(json, json_bytes, &t, NULL), LQT_OK);
  free(json);
  snprintf(item, sizeof item, "eval/heldout.%s.u16", name);
  cr_assert(test_data_path(item, path, sizeof path));
  uint16_t *wanted = (uint16_t *)(void *)read_file(path, &wanted_bytes);
  int32_t *ids = malloc((bytes + 16) * sizeof *ids);
  for (const char *end = text + bytes; text < end;) {
    const char *separator = memmem(text, (size_t)(end - text), "\n\0\n", 3);
    size_t book = separator != NULL ? (size_t)(separator - text) : (size_t)(end - text);
    for (size_t at = 0; at < book;) {
      size_t piece = prefix(text + at, book - at, 200000), got;
      cr_assert_eq(
          lqt_tokenizer_encode(t, text + at, piece, false, ids + count, bytes - count, &got, NULL),
          LQT_OK);
      count += got;
      at += piece;
    }
    ids[count++] = 0;
    text += book + (separator != NULL ? 3 : 0);
  }
  cr_assert_eq(count, wanted_bytes / 2, "%s: %zu ids, not %zu", name, count, wanted_bytes / 2);
  for (size_t i = 0; i < count; i++) cr_assert_eq(ids[i], wanted[i], "%s: id %zu", name, i);
  free(ids);
  free(wanted);
  lqt_tokenizer_destroy(t);
}

Test(tokenizer, held_out_books) {
  char path[1024];
  if (!test_data_path("eval/heldout.txt", path, sizeof path)) cr_skip_test("%s", path);
  size_t bytes;
  char *text = read_file(path, &bytes);
  check_heldout("classic-28m", text, bytes);
  check_heldout("classic-11m", text, bytes);
  free(text);
}
