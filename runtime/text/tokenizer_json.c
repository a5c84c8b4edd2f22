/* Reads tokenizer.json (Hugging Face tokenizers): byte-level BPE models. Anything else that would
 * change the ids is refused, never ignored. */
#include <stdlib.h>
#include <string.h>

#include "base/diag.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

static const char *const where = "tokenizer.json";

#define BAD(...) return lqt__fail(diag, LQT_BAD_TOKENIZER, where, __VA_ARGS__)
#define UNSUPPORTED(...) return lqt__fail(diag, LQT_UNSUPPORTED, where, __VA_ARGS__)
#define NO_MEMORY(bytes) return lqt__fail_memory(diag, where, (bytes), "a tokenizer")

static const char *type_of(const json_t *object) {
  const char *type = json_string_value(json_object_get(object, "type"));
  return type != NULL ? type : "?";
}

static bool is_type(const json_t *object, const char *type) {
  return strcmp(type_of(object), type) == 0;
}

/* GPT-2's printable stand-ins for bytes: code point of each byte. */
static uint32_t stand_in(unsigned byte) {
  static const struct { uint8_t first, last; } plain[] = {{33, 126}, {161, 172}, {174, 255}};
  uint32_t skipped = 0;
  unsigned next = 0;
  for (size_t i = 0; i < 3; i++) {
    if (byte < plain[i].first) break;
    if (byte <= plain[i].last) return byte;
    skipped += plain[i].first - next;
    next = plain[i].last + 1u;
  }
  return 256 + skipped + (byte - next);
}

typedef struct alphabet {
  int16_t byte_of[512]; /* by code point; -1: stands for no byte */
} alphabet;

static void fill_alphabet(alphabet *a) {
  for (size_t i = 0; i < 512; i++) a->byte_of[i] = -1;
  for (unsigned byte = 0; byte < 256; byte++) a->byte_of[stand_in(byte)] = (int16_t)byte;
}

/* Turns stand-ins into bytes; false when a character is none. out has room for `size`. */
static bool to_bytes(const alphabet *a, const char *text, size_t size, uint8_t *out,
                     size_t *out_size) {
  size_t count = 0;
  for (size_t at = 0; at < size;) {
    uint32_t code;
    at += lqt__utf8_decode((const uint8_t *)text + at, size - at, &code);
    if (code >= 512 || a->byte_of[code] < 0) return false;
    out[count++] = (uint8_t)a->byte_of[code];
  }
  *out_size = count;
  return true;
}

static bool insert_word(lqt_tokenizer *t, int32_t id) {
  const lqt__token *token = &t->tokens[id];
  if (lqt__tokenizer_find(t, token->bytes, token->size) >= 0) return false;
  size_t at = lqt__tokenizer_hash(token->bytes, token->size) & t->word_mask;
  while (t->words[at] >= 0) at = (at + 1) & t->word_mask;
  t->words[at] = id;
  return true;
}

/* Ids may have holes, but not so many that a small file asks for a large table. */
static lqt_status read_id(const json_t *value, size_t tokens, const char *name, int32_t *out,
                          lqt_diag *diag) {
  json_int_t id = json_integer_value(value);
  json_int_t bound = (json_int_t)(8 * tokens + 65536);
  if (!json_is_integer(value) || id < 0 || id >= bound) {
    BAD("the id of token '%.64s' is not an integer from 0 to %lld", name, (long long)bound - 1);
  }
  *out = (int32_t)id;
  return LQT_OK;
}

static lqt_status allocate_tables(lqt_tokenizer *t, const json_t *vocab, const json_t *added,
                                  lqt_diag *diag) {
  size_t tokens = json_object_size(vocab) + json_array_size(added);
  if (json_object_size(vocab) == 0) BAD("model.vocab is missing or empty");
  if (tokens > 1u << 24) BAD("the vocabulary has %zu tokens; at most 2^24 are read", tokens);
  int32_t id, most = 0;
  const char *name;
  json_t *value;
  json_object_foreach((json_t *)vocab, name, value) {
    LQT__TRY(read_id(value, tokens, name, &id, diag));
    if (id > most) most = id;
  }
  size_t i;
  json_array_foreach(added, i, value) {
    LQT__TRY(read_id(json_object_get(value, "id"), tokens, "(added)", &id, diag));
    if (id > most) most = id;
  }
  t->vocab_size = (uint32_t)most + 1;
  size_t slots = 16;
  while (slots / 2 < json_object_size(vocab)) slots *= 2;
  t->word_mask = slots - 1;
  t->tokens = lqt__arena_array(&t->arena, t->vocab_size, sizeof *t->tokens);
  t->words = lqt__arena_array(&t->arena, slots, sizeof *t->words);
  if (t->tokens == NULL || t->words == NULL) NO_MEMORY(t->vocab_size * sizeof *t->tokens);
  for (size_t s = 0; s < slots; s++) t->words[s] = -1;
  return LQT_OK;
}

static lqt_status load_vocab(lqt_tokenizer *t, const json_t *vocab, const alphabet *a,
                             lqt_diag *diag) {
  const char *name;
  json_t *value;
  json_object_foreach((json_t *)vocab, name, value) {
    lqt__token *token = &t->tokens[json_integer_value(value)];
    if (token->bytes != NULL) {
      BAD("token '%.64s' has id %lld, which another token has", name,
          (long long)json_integer_value(value));
    }
    size_t length = strlen(name), size = length;
    if (length == 0 || length > 65535) BAD("a token has %zu bytes", length);
    uint8_t *bytes = lqt__arena_alloc(&t->arena, length);
    if (bytes == NULL) NO_MEMORY(length);
    bool is_word = to_bytes(a, name, length, bytes, &size);
    if (!is_word) memcpy(bytes, name, length); /* a token that BPE never makes */
    token->bytes = bytes;
    token->size = (uint32_t)size;
    if (is_word && !insert_word(t, (int32_t)json_integer_value(value))) {
      BAD("two tokens have the bytes of '%.64s'", name);
    }
  }
  for (unsigned byte = 0; byte < 256; byte++) {
    uint8_t one = (uint8_t)byte;
    t->bpe.byte_ids[byte] = lqt__tokenizer_find(t, &one, 1);
    if (t->bpe.byte_ids[byte] < 0)
      BAD("no token for byte 0x%02x: not a byte-level vocabulary", byte);
  }
  return LQT_OK;
}

/* A merge is "left right" or ["left", "right"]. */
static bool split_merge(const json_t *merge, const char **left, size_t *left_size,
                        const char **right, size_t *right_size) {
  if (json_is_string(merge)) {
    *left = json_string_value(merge);
    const char *space = strchr(*left, ' ');
    if (space == NULL || strchr(space + 1, ' ') != NULL) return false;
    *left_size = (size_t)(space - *left);
    *right = space + 1;
  } else {
    *left = json_string_value(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    if (json_array_size(merge) != 2 || *left == NULL || *right == NULL) return false;
    *left_size = strlen(*left);
  }
  *right_size = strlen(*right);
  return *left_size > 0 && *right_size > 0;
}

static lqt_status load_merges(lqt_tokenizer *t, const json_t *merges, const alphabet *a,
                              lqt_diag *diag) {
  size_t count = json_array_size(merges);
  if (!json_is_array(merges) || count > 1u << 24) BAD("model.merges is not an array of merges");
  if (!lqt__bpe_init(&t->bpe, count)) NO_MEMORY(count * sizeof(lqt__merge));
  size_t i;
  json_t *merge;
  json_array_foreach(merges, i, merge) {
    const char *left, *right;
    size_t left_size, right_size;
    uint8_t joined[2 * 1024];
    if (!split_merge(merge, &left, &left_size, &right, &right_size)) {
      BAD("merge %zu is neither \"a b\" nor [\"a\", \"b\"]", i);
    }
    if (left_size > 1024 || right_size > 1024) BAD("merge %zu is longer than 1024 bytes", i);
    size_t first = 0, second = 0;
    if (!to_bytes(a, left, left_size, joined, &first) ||
        !to_bytes(a, right, right_size, joined + first, &second)) {
      BAD("merge %zu has a character that stands for no byte", i);
    }
    int32_t left_id = lqt__tokenizer_find(t, joined, first);
    int32_t right_id = lqt__tokenizer_find(t, joined + first, second);
    int32_t id = lqt__tokenizer_find(t, joined, first + second);
    if (left_id < 0 || right_id < 0 || id < 0) {
      BAD("merge %zu names or makes a token that is not in the vocabulary", i);
    }
    if (!lqt__bpe_add(&t->bpe, left_id, right_id, (uint32_t)i, id)) {
      BAD("merge %zu is there twice", i);
    }
  }
  return LQT_OK;
}

static bool is_empty_text(const json_t *value) {
  return value == NULL || json_is_null(value) ||
         (json_is_string(value) && json_string_length(value) == 0);
}

static lqt_status load_model(lqt_tokenizer *t, const json_t *model, const json_t *added,
                             lqt_diag *diag) {
  if (!json_is_object(model)) BAD("there is no model object");
  const json_t *type = json_object_get(model, "type");
  if (type != NULL && !is_type(model, "BPE")) {
    UNSUPPORTED("the tokenizer model is %.64s; only byte-level BPE is read", type_of(model));
  }
  if (json_is_true(json_object_get(model, "byte_fallback"))) {
    UNSUPPORTED("byte_fallback (a SentencePiece vocabulary) is not supported");
  }
  if (!is_empty_text(json_object_get(model, "continuing_subword_prefix")) ||
      !is_empty_text(json_object_get(model, "end_of_word_suffix"))) {
    UNSUPPORTED("BPE with a subword prefix or a word suffix is not supported");
  }
  if (json_number_value(json_object_get(model, "dropout")) != 0.0) {
    UNSUPPORTED("BPE dropout is not supported");
  }
  t->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
  alphabet a;
  fill_alphabet(&a);
  const json_t *vocab = json_object_get(model, "vocab");
  LQT__TRY(allocate_tables(t, vocab, added, diag));
  LQT__TRY(load_vocab(t, vocab, &a, diag));
  return load_merges(t, json_object_get(model, "merges"), &a, diag);
}

static int longest_first(const void *a, const void *b) {
  const lqt__added_token *left = a, *right = b;
  if (left->size != right->size) return left->size < right->size ? 1 : -1;
  return left->id < right->id ? -1 : left->id > right->id;
}

static lqt_status load_added(lqt_tokenizer *t, const json_t *added, lqt_diag *diag) {
  size_t count = json_array_size(added);
  t->added = lqt__arena_array(&t->arena, count, sizeof *t->added);
  if (t->added == NULL) NO_MEMORY(count * sizeof *t->added);
  size_t i;
  json_t *value;
  json_array_foreach(added, i, value) {
    const char *content = json_string_value(json_object_get(value, "content"));
    size_t size = json_string_length(json_object_get(value, "content"));
    if (content == NULL || size == 0 || size > 65535) BAD("added token %zu has no content", i);
    lqt__added_token *token = &t->added[i];
    token->id = (int32_t)json_integer_value(json_object_get(value, "id"));
    token->size = (uint32_t)size;
    token->bytes = (const uint8_t *)lqt__arena_strndup(&t->arena, content, size);
    if (token->bytes == NULL) NO_MEMORY(size);
    token->special = json_is_true(json_object_get(value, "special"));
    token->single_word = json_is_true(json_object_get(value, "single_word"));
    token->lstrip = json_is_true(json_object_get(value, "lstrip"));
    token->rstrip = json_is_true(json_object_get(value, "rstrip"));
    token->normalized = json_is_true(json_object_get(value, "normalized"));
    lqt__token *entry = &t->tokens[token->id];
    if (entry->bytes != NULL && (entry->size != size || memcmp(entry->bytes, content, size) != 0)) {
      BAD("added token '%.64s' has id %d, which another token has", content, token->id);
    }
    entry->bytes = token->bytes;
    entry->size = token->size;
    entry->special = token->special;
    t->added_first[token->bytes[0]] = true;
  }
  if (count > 1) qsort(t->added, count, sizeof *t->added, longest_first);
  t->added_count = count;
  return LQT_OK;
}

static lqt_status add_split(lqt_tokenizer *t, lqt__split split, lqt_diag *diag) {
  if (t->split_count == LQT__TOKENIZER_MAX_SPLITS) {
    UNSUPPORTED("more than %d pre-tokenizers in a row are not supported",
                LQT__TOKENIZER_MAX_SPLITS);
  }
  t->splits[t->split_count++] = split;
  return LQT_OK;
}

static lqt_status load_split(lqt_tokenizer *t, const json_t *node, lqt_diag *diag) {
  const char *pattern =
      json_string_value(json_object_get(json_object_get(node, "pattern"), "Regex"));
  const char *behavior = json_string_value(json_object_get(node, "behavior"));
  lqt__split split;
  if (pattern == NULL || !lqt__split_from_pattern(pattern, &split)) {
    UNSUPPORTED("the Split pre-tokenizer's pattern is not one of GPT-2, Llama 3 and Qwen 2: %.200s",
                pattern != NULL ? pattern : "(no Regex)");
  }
  /* The patterns match everything, so "removed" with "invert" is the same as "isolated". */
  bool inverted = json_is_true(json_object_get(node, "invert"));
  bool isolated = behavior != NULL && (strcmp(behavior, inverted ? "Removed" : "Isolated") == 0);
  if (!isolated) UNSUPPORTED("the Split pre-tokenizer's behavior is not Isolated");
  return add_split(t, split, diag);
}

/* `*byte_level` tells whether the ByteLevel pre-tokenizer was seen; it must be the last. */
static lqt_status load_pre_tokenizer(lqt_tokenizer *t, const json_t *node, bool *byte_level,
                                     lqt_diag *diag) {
  if (*byte_level) UNSUPPORTED("a pre-tokenizer after ByteLevel is not supported");
  if (is_type(node, "Split")) return load_split(t, node, diag);
  if (is_type(node, "Digits")) {
    bool each = json_is_true(json_object_get(node, "individual_digits"));
    return add_split(t, (lqt__split){each ? LQT__SPLIT_DIGIT : LQT__SPLIT_DIGITS, 0}, diag);
  }
  if (!is_type(node, "ByteLevel")) {
    UNSUPPORTED("pre-tokenizer %.64s is not supported (ByteLevel, Split, Digits are)",
                type_of(node));
  }
  *byte_level = true;
  const json_t *prefix = json_object_get(node, "add_prefix_space");
  t->add_prefix_space = prefix == NULL || json_is_true(prefix);
  if (t->add_prefix_space && t->split_count > 0) {
    UNSUPPORTED("add_prefix_space after another pre-tokenizer is not supported");
  }
  const json_t *use_regex = json_object_get(node, "use_regex");
  if (use_regex != NULL && !json_is_true(use_regex)) return LQT_OK;
  return add_split(t, (lqt__split){LQT__SPLIT_GPT2, 0}, diag);
}

static lqt_status load_pre_tokenizers(lqt_tokenizer *t, const json_t *node, lqt_diag *diag) {
  bool byte_level = false;
  if (is_type(node, "Sequence")) {
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(node, "pretokenizers"), i, part) {
      LQT__TRY(load_pre_tokenizer(t, part, &byte_level, diag));
    }
  } else if (json_is_object(node)) {
    LQT__TRY(load_pre_tokenizer(t, node, &byte_level, diag));
  }
  if (!byte_level) UNSUPPORTED("there is no ByteLevel pre-tokenizer: not a byte-level vocabulary");
  return LQT_OK;
}

/* The id that the post-processor puts before a text, or -1. */
static int32_t template_bos(const lqt_tokenizer *t, const json_t *node) {
  if (is_type(node, "Sequence")) {
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(node, "processors"), i, part) {
      int32_t id = is_type(part, "Sequence") ? -1 : template_bos(t, part);
      if (id >= 0) return id;
    }
  }
  if (!is_type(node, "TemplateProcessing")) return -1;
  const json_t *first = json_array_get(json_object_get(node, "single"), 0);
  const char *name =
      json_string_value(json_object_get(json_object_get(first, "SpecialToken"), "id"));
  const json_t *ids =
      name != NULL
          ? json_object_get(json_object_get(json_object_get(node, "special_tokens"), name), "ids")
          : NULL;
  const json_t *id = json_array_get(ids, 0);
  if (json_array_size(ids) != 1 || !json_is_integer(id)) return -1;
  json_int_t value = json_integer_value(id);
  bool known = value >= 0 && value < t->vocab_size && t->tokens[value].bytes != NULL;
  return known ? (int32_t)value : -1;
}

/* Id of the special token that goes by one of the customary names. */
static int32_t special_named(const lqt_tokenizer *t, const char *const *names) {
  for (; *names != NULL; names++) {
    for (size_t i = 0; i < t->added_count; i++) {
      const lqt__added_token *token = &t->added[i];
      if (token->special && token->size == strlen(*names) &&
          memcmp(token->bytes, *names, token->size) == 0) {
        return token->id;
      }
    }
  }
  return -1;
}

lqt_status lqt__tokenizer_load(lqt_tokenizer *t, const json_t *root, lqt_diag *diag) {
  static const char *const bos_names[] = {"<|begin_of_text|>", "<|startoftext|>", "<s>",
                                          "<|endoftext|>", NULL};
  static const char *const eos_names[] = {"<|end_of_text|>", "<|endoftext|>", "</s>", NULL};
  if (!json_is_object(root)) BAD("not a JSON object");
  const json_t *normalizer = json_object_get(root, "normalizer");
  if (normalizer != NULL && !json_is_null(normalizer) &&
      !(is_type(normalizer, "Sequence") &&
        json_array_size(json_object_get(normalizer, "normalizers")) == 0)) {
    UNSUPPORTED("normalizer %.64s is not supported", type_of(normalizer));
  }
  const json_t *added = json_object_get(root, "added_tokens");
  if (added != NULL && !json_is_null(added) && !json_is_array(added)) {
    BAD("added_tokens is not an array");
  }
  LQT__TRY(load_model(t, json_object_get(root, "model"), added, diag));
  LQT__TRY(load_added(t, added, diag));
  LQT__TRY(load_pre_tokenizers(t, json_object_get(root, "pre_tokenizer"), diag));
  t->bos = template_bos(t, json_object_get(root, "post_processor"));
  if (t->bos < 0) t->bos = special_named(t, bos_names);
  t->eos = special_named(t, eos_names);
  return LQT_OK;
}
