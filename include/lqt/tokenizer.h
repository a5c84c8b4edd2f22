/* Tokenizers: text to token ids and back. Byte-level BPE as in Hugging Face's tokenizer.json. */
#ifndef LQT_TOKENIZER_H_
#define LQT_TOKENIZER_H_

#include "lqt/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The tokenizer stored in a model (chunk 0x0008). Immutable; may outlive the model.
 * Owns: the caller. Threads: any. Errors: LQT_NOT_FOUND (the model has none), LQT_BAD_TOKENIZER,
 * LQT_UNSUPPORTED (a kind of tokenizer we do not read), LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_tokenizer_from_model(const lqt_model *model,
                                                          lqt_tokenizer **out_tokenizer,
                                                          lqt_diag *diag);
/* From the text of a tokenizer.json (not terminated). */
LQT_API LQT_NODISCARD lqt_status lqt_tokenizer_from_json(const char *json, size_t bytes,
                                                         lqt_tokenizer **out_tokenizer,
                                                         lqt_diag *diag);
LQT_API void lqt_tokenizer_destroy(lqt_tokenizer *tokenizer); /* NULL accepted */

LQT_API uint32_t lqt_tokenizer_vocab_size(const lqt_tokenizer *tokenizer);
/* Ids of the begin- and end-of-text tokens, or -1. */
LQT_API int32_t lqt_tokenizer_bos(const lqt_tokenizer *tokenizer);
LQT_API int32_t lqt_tokenizer_eos(const lqt_tokenizer *tokenizer);

/* Encodes `bytes` bytes of UTF-8 (invalid bytes are encoded as bytes). Adds no begin-of-text id.
 * `special`: special tokens in the text ("<|endoftext|>") become their ids; otherwise they are
 * plain text. Added tokens that are not special always become their ids. Writes at most `capacity`
 * ids and always the full count to *out_count, so a first call with capacity 0 sizes the buffer.
 * Threads: any. Errors: LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_tokenizer_encode(const lqt_tokenizer *tokenizer,
                                                      const char *text, size_t bytes, bool special,
                                                      int32_t *ids, size_t capacity,
                                                      size_t *out_count, lqt_diag *diag);
/* The bytes of one token (special tokens give their text). Not terminated, valid as long as the
 * tokenizer; one token's bytes may be part of a UTF-8 character. Errors: LQT_OUT_OF_RANGE. */
LQT_API LQT_NODISCARD lqt_status lqt_tokenizer_token(const lqt_tokenizer *tokenizer, int32_t id,
                                                     const char **out_bytes, size_t *out_size,
                                                     bool *out_special);

#ifdef __cplusplus
}
#endif
#endif /* LQT_TOKENIZER_H_ */
