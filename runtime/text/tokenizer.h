/* The tokenizer behind lqt_tokenizer: tables built once from a tokenizer.json, then read only. */
#ifndef LQT_RUNTIME_TEXT_TOKENIZER_H_
#define LQT_RUNTIME_TEXT_TOKENIZER_H_

#include <jansson.h>

#include "base/alloc.h"
#include "lqt/tokenizer.h"
#include "text/bpe.h"
#include "text/pretoken.h"

enum { LQT__TOKENIZER_MAX_SPLITS = 4 };

typedef struct lqt__token {
  const uint8_t *bytes; /* NULL: an id that no token has */
  uint32_t size;
  bool special;
} lqt__token;

/* A token that is found in the text before pre-tokenization. */
typedef struct lqt__added_token {
  const uint8_t *bytes;
  uint32_t size;
  int32_t id;
  bool special, single_word, lstrip, rstrip;
  bool normalized; /* found after the others */
} lqt__added_token;

struct lqt_tokenizer {
  lqt__arena arena;
  lqt__token *tokens; /* by id */
  uint32_t vocab_size;
  int32_t bos, eos;
  lqt__bpe bpe;
  int32_t *words; /* hash table of the vocabulary's ids by their bytes; -1: free */
  size_t word_mask;
  bool ignore_merges;
  bool add_prefix_space;
  lqt__split splits[LQT__TOKENIZER_MAX_SPLITS];
  size_t split_count;
  lqt__added_token *added; /* longest first */
  size_t added_count;
  bool added_first[256]; /* bytes that an added token begins with */
};

uint64_t lqt__tokenizer_hash(const uint8_t *bytes, size_t size);
/* Id of the vocabulary's token with these bytes, or -1. */
int32_t lqt__tokenizer_find(const lqt_tokenizer *tokenizer, const uint8_t *bytes, size_t size);
/* Fills a zeroed tokenizer. Errors: LQT_BAD_TOKENIZER, LQT_UNSUPPORTED, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__tokenizer_load(lqt_tokenizer *tokenizer, const json_t *root,
                                             lqt_diag *diag);
/* From the vocabulary chunk of a file (docs/format.md, "Vocabulary"). */
LQT_NODISCARD lqt_status lqt__tokenizer_from_chunk(const uint8_t *data, size_t bytes,
                                                   lqt_tokenizer **out_tokenizer, lqt_diag *diag);

#endif /* LQT_RUNTIME_TEXT_TOKENIZER_H_ */
