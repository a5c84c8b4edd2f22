/* What the journal's tests share: a folder with one journal in it. */
#ifndef LQT_TESTS_UNIT_JOURNAL_SUPPORT_H_
#define LQT_TESTS_UNIT_JOURNAL_SUPPORT_H_

#include <criterion/criterion.h>

#include "support/journal_sample.h"

enum { SEED = 7 };
extern char journal_folder[64], journal_path[96];
extern sample_base journal_base;
void journal_make_folder(void);
void journal_remove_folder(void);
size_t journal_count_files(void);

/* Options of a writer that creates, and of a reader. */
lqt__journal_options journal_writer(void);
lqt__journal_options journal_reader(void);
lqt__journal *journal_open(const lqt__journal_options *options, lqt__journal_recovery *recovery);
/* Appends sample entries up to `revision`. */
void journal_append_to(lqt__journal *journal, uint64_t revision, lqt__durability durability);
/* Every transaction is the sample's. */
void journal_check(lqt__journal *journal, size_t count);
/* The file; free(). */
uint8_t *journal_bytes(size_t *out_bytes);
void journal_put(const void *data, size_t bytes);

#endif /* LQT_TESTS_UNIT_JOURNAL_SUPPORT_H_ */
