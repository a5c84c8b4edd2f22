/* A small byte-level tokenizer.json for the tests. */
#ifndef LQT_TESTS_UNIT_TEXT_SUPPORT_H_
#define LQT_TESTS_UNIT_TEXT_SUPPORT_H_

#include <jansson.h>

#include "lqt/tokenizer.h"

/* The 256 bytes as ids 0..255 (id = byte), then `merges` ("a b", made of printable ASCII) as ids
 * 256.. in order, ending with NULL; then the added tokens "<|end|>" (special) and "<sep>" (not).
 * The caller drops it. */
json_t *test_tokenizer_json(const char *const *merges);
/* A reference to the object at a dotted path of `root`, borrowed. */
json_t *test_json_at(json_t *root, const char *path);
lqt_status test_tokenizer_load(const json_t *root, lqt_tokenizer **out, lqt_diag *diag);

#endif /* LQT_TESTS_UNIT_TEXT_SUPPORT_H_ */
