/* Pre-tokenizers: cut text into the pieces that BPE sees, one after the other. Each stage cuts the
 * pieces of the stage before it; a stage sees only its piece (a lookahead ends with it). */
#ifndef LQT_RUNTIME_TEXT_PRETOKEN_H_
#define LQT_RUNTIME_TEXT_PRETOKEN_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum lqt__split_kind {
  /* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
  LQT__SPLIT_GPT2,
  /* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,D}| ?[^\s\p{L}\p{N}]+[\r\n]*
   * |\s*[\r\n]+|\s+(?!\S)|\s+  with D = `digits`: 3 in Llama 3, 1 in Qwen 2 */
  LQT__SPLIT_CL100K,
  /* Every number character alone. */
  LQT__SPLIT_DIGIT,
  /* Runs of number characters. */
  LQT__SPLIT_DIGITS,
} lqt__split_kind;

typedef struct lqt__split {
  lqt__split_kind kind;
  uint32_t digits;
} lqt__split;

/* The split that the regular expression `pattern` means; false when it is not one of those above.
 */
bool lqt__split_from_pattern(const char *pattern, lqt__split *out);
/* Length of the first piece of text[0..bytes), bytes >= 1; at least 1. */
size_t lqt__split_next(const lqt__split *split, const uint8_t *text, size_t bytes);

#endif /* LQT_RUNTIME_TEXT_PRETOKEN_H_ */
