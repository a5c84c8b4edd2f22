/* Random journal entries, and a base that exists in memory alone. */
#ifndef LQT_TESTS_SUPPORT_JOURNAL_SAMPLE_H_
#define LQT_TESTS_SUPPORT_JOURNAL_SAMPLE_H_

#include <stdbool.h>

#include "base/random.h"
#include "edit/journal.h"

/* A base of which only what binds a journal to it exists. */
typedef struct sample_base {
  uint8_t bytes[128];
  lqt__file file;
} sample_base;
void sample_base_make(sample_base *base, uint64_t seed);

/* Entry of `revision`: the same for the same seed and revision. `large`: about so many bytes of new
 * data, not compressible; 0: a few small changes. */
void sample_entry(uint64_t seed, uint64_t revision, uint64_t large, lqt__journal_entry *out);
/* A copy of everything, old bytes as digests, is what reading must give. Says what differs. */
bool sample_same(const lqt__journal_entry *written, const lqt__journal_entry *read,
                 const char **out_what);
/* Checks transaction `index` against sample_entry(seed, its revision, large). */
bool sample_check(lqt__journal *journal, size_t index, uint64_t seed, uint64_t large,
                  lqt_diag *diag);

#endif /* LQT_TESTS_SUPPORT_JOURNAL_SAMPLE_H_ */
