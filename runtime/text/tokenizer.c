#include "text/tokenizer.h"

#include <string.h>
#include <zstd.h>

#include "base/diag.h"
#include "base/json.h"
#include "text/unicode.h"

static const char *const where = "tokenizer";

lqt_status lqt_tokenizer_from_json(const char *json, size_t bytes, lqt_tokenizer **out_tokenizer,
                                   lqt_diag *diag) {
  if (out_tokenizer == NULL || json == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "json and out_tokenizer must not be NULL");
  }
  *out_tokenizer = NULL;
  json_t *root;
  lqt_status status = lqt__json_parse(json, bytes, "tokenizer.json", &root, diag);
  if (status == LQT_BAD_JSON && diag != NULL) diag->status = LQT_BAD_TOKENIZER;
  if (status != LQT_OK) return status == LQT_BAD_JSON ? LQT_BAD_TOKENIZER : status;
  lqt_tokenizer *tokenizer = lqt__alloc_zero(sizeof *tokenizer);
  if (tokenizer == NULL) {
    status = lqt__fail_memory(diag, where, sizeof *tokenizer, "a tokenizer");
  } else {
    status = lqt__tokenizer_load(tokenizer, root, diag);
  }
  json_decref(root);
  if (status == LQT_OK) {
    *out_tokenizer = tokenizer;
  } else {
    lqt_tokenizer_destroy(tokenizer);
  }
  return status;
}

void lqt_tokenizer_destroy(lqt_tokenizer *tokenizer) {
  if (tokenizer == NULL) return;
  lqt__bpe_free(&tokenizer->bpe);
  lqt__arena_free(&tokenizer->arena);
  lqt__free(tokenizer);
}

static uint32_t read_u32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

lqt_status lqt__tokenizer_from_chunk(const uint8_t *data, size_t bytes,
                                     lqt_tokenizer **out_tokenizer, lqt_diag *diag) {
  enum { HEADER = 24, MOST = 64 << 20, MOST_RATIO = 200 };
  *out_tokenizer = NULL;
  if (bytes < HEADER) {
    return lqt__fail(diag, LQT_BAD_TOKENIZER, where, "the vocabulary chunk has %zu bytes, not %d",
                     bytes, HEADER);
  }
  uint32_t kind = read_u32(data);
  if (kind != 1) {
    return lqt__fail(diag, LQT_UNSUPPORTED, where,
                     "vocabulary kind %u is not known (1 = tokenizer.json)", kind);
  }
  uint64_t raw = read_u32(data + 16) | (uint64_t)read_u32(data + 20) << 32;
  size_t packed = bytes - HEADER;
  if (raw > MOST || raw > (uint64_t)packed * MOST_RATIO) {
    return lqt__fail(diag, LQT_BAD_TOKENIZER, where,
                     "the vocabulary claims %llu bytes, more than its %zu compressed bytes allow",
                     (unsigned long long)raw, packed);
  }
  char *json = lqt__alloc(raw);
  if (json == NULL) return lqt__fail_memory(diag, where, raw, "the vocabulary");
  size_t got = ZSTD_decompress(json, raw, data + HEADER, packed);
  lqt_status status;
  if (ZSTD_isError(got) || got != raw) {
    status = lqt__fail(diag, LQT_BAD_TOKENIZER, where, "the vocabulary does not decompress: %s",
                       ZSTD_isError(got) ? ZSTD_getErrorName(got) : "wrong length");
  } else {
    status = lqt_tokenizer_from_json(json, raw, out_tokenizer, diag);
  }
  lqt__free(json);
  if (status != LQT_OK) return status;
  lqt_tokenizer *tokenizer = *out_tokenizer;
  int32_t bos = (int32_t)read_u32(data + 8), eos = (int32_t)read_u32(data + 12);
  if (bos < -1 || eos < -1 || bos >= (int64_t)tokenizer->vocab_size ||
      eos >= (int64_t)tokenizer->vocab_size) {
    lqt_tokenizer_destroy(tokenizer);
    *out_tokenizer = NULL;
    return lqt__fail(diag, LQT_BAD_TOKENIZER, where,
                     "begin- or end-of-text id (%d, %d) is not in the vocabulary", bos, eos);
  }
  tokenizer->bos = bos;
  tokenizer->eos = eos;
  return LQT_OK;
}

uint32_t lqt_tokenizer_vocab_size(const lqt_tokenizer *tokenizer) { return tokenizer->vocab_size; }
int32_t lqt_tokenizer_bos(const lqt_tokenizer *tokenizer) { return tokenizer->bos; }
int32_t lqt_tokenizer_eos(const lqt_tokenizer *tokenizer) { return tokenizer->eos; }

lqt_status lqt_tokenizer_token(const lqt_tokenizer *tokenizer, int32_t id, const char **out_bytes,
                               size_t *out_size, bool *out_special) {
  if (out_bytes != NULL) *out_bytes = NULL;
  if (out_size != NULL) *out_size = 0;
  if (out_special != NULL) *out_special = false;
  if (id < 0 || (uint32_t)id >= tokenizer->vocab_size || tokenizer->tokens[id].bytes == NULL) {
    return LQT_OUT_OF_RANGE;
  }
  const lqt__token *token = &tokenizer->tokens[id];
  if (out_bytes != NULL) *out_bytes = (const char *)token->bytes;
  if (out_size != NULL) *out_size = token->size;
  if (out_special != NULL) *out_special = token->special;
  return LQT_OK;
}

uint64_t lqt__tokenizer_hash(const uint8_t *bytes, size_t size) {
  uint64_t hash = size * 0x9e3779b97f4a7c15u;
  while (size > 0) {
    uint64_t block = 0;
    size_t take = size < 8 ? size : 8;
    memcpy(&block, bytes, take);
    hash = (hash ^ block) * 0xd6e8feb86659fd93u;
    hash ^= hash >> 32;
    bytes += take;
    size -= take;
  }
  return hash;
}

int32_t lqt__tokenizer_find(const lqt_tokenizer *tokenizer, const uint8_t *bytes, size_t size) {
  size_t at = lqt__tokenizer_hash(bytes, size) & tokenizer->word_mask;
  for (; tokenizer->words[at] >= 0; at = (at + 1) & tokenizer->word_mask) {
    const lqt__token *token = &tokenizer->tokens[tokenizer->words[at]];
    if (token->size == size && memcmp(token->bytes, bytes, size) == 0) return tokenizer->words[at];
  }
  return -1;
}

/* Where a piece was seen before in this call: its text and the ids it got. */
typedef struct cached_piece {
  const uint8_t *piece;
  size_t bytes;
  size_t first_id, id_count;
} cached_piece;

enum { CACHE_SLOTS = 4096, CACHE_WORTH_IT = 1024, CACHED_MOST = 64 };

typedef struct encoder {
  const lqt_tokenizer *tokenizer;
  const uint8_t *text;
  size_t bytes;
  bool special;
  lqt__ids ids;
  cached_piece *cache; /* NULL for short texts */
  lqt_diag *diag;
} encoder;

static lqt_status encode_piece(encoder *e, const uint8_t *piece, size_t bytes) {
  const lqt_tokenizer *t = e->tokenizer;
  cached_piece *slot = NULL;
  if (e->cache != NULL && bytes <= CACHED_MOST) {
    slot = &e->cache[lqt__tokenizer_hash(piece, bytes) % CACHE_SLOTS];
    if (slot->bytes == bytes && memcmp(slot->piece, piece, bytes) == 0) {
      if (!lqt__ids_reserve(&e->ids, slot->id_count)) {
        return lqt__fail_memory(e->diag, where, slot->id_count * sizeof(int32_t), "token ids");
      }
      memcpy(e->ids.data + e->ids.count, e->ids.data + slot->first_id,
             slot->id_count * sizeof(int32_t));
      e->ids.count += slot->id_count;
      return LQT_OK;
    }
  }
  size_t first = e->ids.count;
  int32_t whole = t->ignore_merges ? lqt__tokenizer_find(t, piece, bytes) : -1;
  if (whole >= 0) {
    if (!lqt__ids_reserve(&e->ids, 1)) {
      return lqt__fail_memory(e->diag, where, sizeof(int32_t), "token ids");
    }
    e->ids.data[e->ids.count++] = whole;
  } else {
    LQT__TRY(lqt__bpe_encode(&t->bpe, piece, bytes, &e->ids, e->diag));
  }
  if (slot != NULL) *slot = (cached_piece){piece, bytes, first, e->ids.count - first};
  return LQT_OK;
}

/* Cuts by split `stage` and the ones after it. */
static lqt_status encode_splits(encoder *e, size_t stage, const uint8_t *text, size_t bytes) {
  if (stage == e->tokenizer->split_count) return encode_piece(e, text, bytes);
  while (bytes > 0) {
    size_t length = lqt__split_next(&e->tokenizer->splits[stage], text, bytes);
    LQT__TRY(encode_splits(e, stage + 1, text, length));
    text += length;
    bytes -= length;
  }
  return LQT_OK;
}

/* Text between added tokens. */
static lqt_status encode_plain(encoder *e, size_t begin, size_t end) {
  size_t bytes = end - begin;
  const uint8_t *text = e->text + begin;
  if (bytes == 0) return LQT_OK;
  if (!e->tokenizer->add_prefix_space || text[0] == ' ') return encode_splits(e, 0, text, bytes);
  uint8_t *spaced = lqt__alloc(bytes + 1);
  if (spaced == NULL) return lqt__fail_memory(e->diag, where, bytes + 1, "text");
  spaced[0] = ' ';
  memcpy(spaced + 1, text, bytes);
  /* The cache keeps pointers into the text, so it sits this out. */
  cached_piece *cache = e->cache;
  e->cache = NULL;
  lqt_status status = encode_splits(e, 0, spaced, bytes + 1);
  e->cache = cache;
  lqt__free(spaced);
  return status;
}

static bool is_word(uint32_t code) {
  lqt__unicode_class kind = lqt__unicode_class_of(code);
  return kind == LQT__UNICODE_LETTER || kind == LQT__UNICODE_NUMBER || code == '_';
}

/* Beginning of the character that ends at `at` (> floor). */
static size_t character_before(const uint8_t *text, size_t floor, size_t at, uint32_t *out_code) {
  for (size_t length = 2; length <= 4 && at - floor >= length; length++) {
    if (lqt__utf8_decode(text + at - length, length, out_code) == length) return at - length;
  }
  lqt__utf8_decode(text + at - 1, 1, out_code);
  return at - 1;
}

static bool stands_alone(const encoder *e, size_t begin, size_t end) {
  uint32_t code;
  if (begin > 0) {
    character_before(e->text, 0, begin, &code);
    if (is_word(code)) return false;
  }
  if (end == e->bytes) return true;
  lqt__utf8_decode(e->text + end, e->bytes - end, &code);
  return !is_word(code);
}

static size_t strip_left(const encoder *e, size_t floor, size_t at) {
  while (at > floor) {
    uint32_t code;
    size_t before = character_before(e->text, floor, at, &code);
    if (lqt__unicode_class_of(code) != LQT__UNICODE_SPACE) break;
    at = before;
  }
  return at;
}

static size_t strip_right(const encoder *e, size_t at) {
  while (at < e->bytes) {
    uint32_t code;
    size_t length = lqt__utf8_decode(e->text + at, e->bytes - at, &code);
    if (lqt__unicode_class_of(code) != LQT__UNICODE_SPACE) break;
    at += length;
  }
  return at;
}

/* The longest added token of this pass at `at`. */
static const lqt__added_token *added_at(const encoder *e, bool normalized, size_t at, size_t end) {
  const lqt_tokenizer *t = e->tokenizer;
  if (!t->added_first[e->text[at]]) return NULL;
  for (size_t i = 0; i < t->added_count; i++) {
    const lqt__added_token *token = &t->added[i];
    if (token->normalized == normalized && token->size <= end - at &&
        memcmp(token->bytes, e->text + at, token->size) == 0) {
      return token;
    }
  }
  return NULL;
}

/* Finds the added tokens of one pass in [begin, end): first those matched in the raw text, then, in
 * what is left, those matched in normalized text. */
static lqt_status encode_added(encoder *e, bool normalized, size_t begin, size_t end) {
  size_t done = begin;
  for (size_t at = begin; at < end;) {
    const lqt__added_token *token = added_at(e, normalized, at, end);
    if (token == NULL) {
      at++;
      continue;
    }
    size_t first = at, stop = at + token->size;
    at = stop;
    if (token->special && !e->special) continue;
    if (token->single_word && !stands_alone(e, first, stop)) continue;
    if (token->lstrip) first = strip_left(e, done, first);
    if (token->rstrip) stop = strip_right(e, stop);
    if (stop > end) stop = end;
    LQT__TRY(normalized ? encode_plain(e, done, first) : encode_added(e, true, done, first));
    if (!lqt__ids_reserve(&e->ids, 1)) {
      return lqt__fail_memory(e->diag, where, sizeof(int32_t), "token ids");
    }
    e->ids.data[e->ids.count++] = token->id;
    done = at = stop;
  }
  return normalized ? encode_plain(e, done, end) : encode_added(e, true, done, end);
}

lqt_status lqt_tokenizer_encode(const lqt_tokenizer *tokenizer, const char *text, size_t bytes,
                                bool special, int32_t *ids, size_t capacity, size_t *out_count,
                                lqt_diag *diag) {
  if (out_count != NULL) *out_count = 0;
  if (tokenizer == NULL || out_count == NULL || (text == NULL && bytes > 0) ||
      (ids == NULL && capacity > 0)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "tokenizer, text, ids (with a capacity) and out_count must not be NULL");
  }
  encoder e = {.tokenizer = tokenizer,
               .text = (const uint8_t *)text,
               .bytes = bytes,
               .special = special,
               .diag = diag};
  if (bytes >= CACHE_WORTH_IT) {
    e.cache = lqt__alloc_array(CACHE_SLOTS, sizeof *e.cache);
    if (e.cache == NULL) {
      return lqt__fail_memory(diag, where, CACHE_SLOTS * sizeof *e.cache, "a cache");
    }
  }
  lqt_status status = encode_added(&e, tokenizer->added_count == 0, 0, bytes);
  if (status == LQT_OK) {
    size_t copied = e.ids.count < capacity ? e.ids.count : capacity;
    if (copied > 0) memcpy(ids, e.ids.data, copied * sizeof *ids);
    *out_count = e.ids.count;
  }
  lqt__free(e.cache);
  lqt__free(e.ids.data);
  return status;
}
