/* A base as a file, of which only what a journal needs exists: 64 bytes that change with its
 * revision in the place of the extension, 64 in that of the footer, and the edit log. */
#ifndef LQT_TESTS_SUPPORT_JOURNAL_BASE_FILE_H_
#define LQT_TESTS_SUPPORT_JOURNAL_BASE_FILE_H_

#include <stdbool.h>

#include "edit/journal.h"

typedef struct base_file {
  lqt__map map;
  lqt__file file;
  uint64_t revision;
} base_file;

LQT_NODISCARD lqt_status base_file_write(const char *path, uint64_t seed, uint64_t revision,
                                         const uint8_t *log, uint64_t log_bytes, lqt_diag *diag);
LQT_NODISCARD lqt_status base_file_read(const char *path, base_file *out, lqt_diag *diag);
void base_file_free(base_file *base);
/* Bytes of its edit log. */
uint64_t base_file_history(const base_file *base);
/* Is transaction `index` sample_entry(seed, revision), whose revisions that `every` divides are
 * `large`? Says on stderr what is not. */
bool base_file_check_entry(lqt__journal *journal, size_t index, uint64_t seed, uint64_t every,
                           uint64_t large, uint64_t revision);
/* The same for all of the edit log, from revision 1 on. */
bool base_file_check(const base_file *base, uint64_t seed, uint64_t every, uint64_t large,
                     uint64_t *out_revision);

#endif /* LQT_TESTS_SUPPORT_JOURNAL_BASE_FILE_H_ */
