/* Tokenizers from hostile bytes, and hostile text for good tokenizers. The first byte chooses:
 *   j  the rest is a tokenizer.json
 *   u  the rest is JSON laid over a good tokenizer.json (reaches past the 256 byte tokens that a
 *      fuzzer would never spell out)
 *   c  the rest is a vocabulary chunk
 *   g, l, d  the rest is text for a tokenizer with GPT-2's, Llama 3's, digits + GPT-2's pieces:
 *      the tokens' bytes must be the text again. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "unit/text/support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const merges[] = {"h e",   "l l", "he ll", "hell o", "o o",
                                     "oo oo", "1 2", "' s",   NULL};

/* Every byte is a token at most, so the ids have room. That a call without room counts the same is
 * tried for one text in eight: encoding is what the time goes into. */
static void check_text(const lqt_tokenizer *t, const char *text, size_t size, bool special,
                       bool same) {
  size_t count, again, at = 0;
  int32_t *ids = malloc((size + 1) * sizeof *ids);
  if (lqt_tokenizer_encode(t, text, size, special, ids, size + 1, &count, NULL) != LQT_OK ||
      count > size + 1) {
    abort();
  }
  if (size % 8 == 0 &&
      (lqt_tokenizer_encode(t, text, size, special, NULL, 0, &again, NULL) != LQT_OK ||
       again != count)) {
    abort();
  }
  for (size_t i = 0; i < count; i++) {
    const char *bytes;
    size_t length;
    bool is_special;
    if (lqt_tokenizer_token(t, ids[i], &bytes, &length, &is_special) != LQT_OK) abort();
    if (same && (length > size - at || memcmp(text + at, bytes, length) != 0)) abort();
    at += length;
  }
  if (same && at != size) abort();
  free(ids);
}

static json_t *pre_tokenizer(char kind) {
  static const char llama3[] =
      "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
      "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}|"
      " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
      "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
      "\"use_regex\":false}]}";
  static const char digits[] =
      "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
      "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]}";
  return kind == 'g' ? NULL : json_loads(kind == 'l' ? llama3 : digits, 0, NULL);
}

/* The good tokenizer for a kind of text, made once. */
static const lqt_tokenizer *good(char kind) {
  static lqt_tokenizer *made[3];
  lqt_tokenizer **slot = &made[kind == 'g' ? 0 : kind == 'l' ? 1 : 2];
  if (*slot != NULL) return *slot;
  json_t *root = test_tokenizer_json(merges), *pieces = pre_tokenizer(kind);
  if (pieces != NULL) json_object_set_new(root, "pre_tokenizer", pieces);
  if (test_tokenizer_load(root, slot, NULL) != LQT_OK) abort();
  json_decref(root);
  return *slot;
}

static void try_loaded(lqt_tokenizer *t, lqt_status status) {
  static const char text[] =
      "hello  'Sx 123\xff<|end|><sep> \n oooooooooooooooooooooooooooooooooooo";
  if ((status == LQT_OK) != (t != NULL)) abort();
  if (t != NULL) check_text(t, text, sizeof text - 1, true, false);
  lqt_tokenizer_destroy(t);
}

/* `update` laid over `base`, recursively; what it does not touch is shared, not copied. */
static json_t *overlay(json_t *base, json_t *update) {
  if (!json_is_object(base) || !json_is_object(update)) return json_incref(update);
  json_t *result = json_copy(base);
  const char *key;
  json_t *value;
  json_object_foreach(update, key, value) {
    json_object_set_new(result, key, overlay(json_object_get(base, key), value));
  }
  return result;
}

static void try_update(const char *text, size_t size) {
  static json_t *base;
  if (base == NULL) base = test_tokenizer_json(merges);
  json_t *update = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
  if (update == NULL) return;
  json_t *root = overlay(base, update);
  lqt_tokenizer *t = lqt__alloc_zero(sizeof *t);
  if (lqt__tokenizer_load(t, root, NULL) != LQT_OK) {
    lqt_tokenizer_destroy(t);
  } else {
    try_loaded(t, LQT_OK);
  }
  json_decref(root);
  json_decref(update);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  const char *rest = (const char *)data + 1;
  lqt_tokenizer *t = NULL;
  lqt_status status;
  switch (data[0]) {
    case 'j':
      status = lqt_tokenizer_from_json(rest, size - 1, &t, NULL);
      try_loaded(t, status);
      break;
    case 'u':
      try_update(rest, size - 1);
      break;
    case 'c':
      status = lqt__tokenizer_from_chunk(data + 1, size - 1, &t, NULL);
      try_loaded(t, status);
      break;
    case 'g':
    case 'l':
    case 'd':
      check_text(good((char)data[0]), rest, size - 1, size % 2 == 0, true);
      break;
    default:
      break;
  }
  return 0;
}
