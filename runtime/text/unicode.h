/* UTF-8 decoding and the three character classes that pre-tokenizers ask for. */
#ifndef LQT_RUNTIME_TEXT_UNICODE_H_
#define LQT_RUNTIME_TEXT_UNICODE_H_

#include <stddef.h>
#include <stdint.h>

typedef enum lqt__unicode_class {
  LQT__UNICODE_OTHER = 0,
  LQT__UNICODE_LETTER = 1, /* general category L */
  LQT__UNICODE_NUMBER = 2, /* general category N */
  LQT__UNICODE_SPACE = 3,  /* property White_Space */
} lqt__unicode_class;

typedef struct lqt__unicode_range {
  uint32_t first, last;
  uint8_t kind; /* lqt__unicode_class */
} lqt__unicode_range;
extern const lqt__unicode_range lqt__unicode_ranges[]; /* ascending */
extern const size_t lqt__unicode_range_count;

enum { LQT__UNICODE_INVALID = 0xFFFFFFFFu >> 1 };

/* Decodes the character at text[0..bytes), bytes >= 1. Returns its length; a byte that is not part
 * of well-formed UTF-8 (Unicode 14, table 3-7) is one character LQT__UNICODE_INVALID of length 1.
 */
size_t lqt__utf8_decode(const uint8_t *text, size_t bytes, uint32_t *out_code);
/* Writes 1 to 4 bytes and returns how many. `code` must be a scalar value. */
size_t lqt__utf8_encode(uint32_t code, uint8_t out[4]);
lqt__unicode_class lqt__unicode_class_of(uint32_t code);

#endif /* LQT_RUNTIME_TEXT_UNICODE_H_ */
