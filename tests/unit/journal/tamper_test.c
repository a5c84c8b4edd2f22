/* Signatures, and journals that were changed by others. */
#include <stdlib.h>
#include <string.h>

#include "format/bytes.h"
#include "support.h"

TestSuite(tamper, .init = journal_make_folder, .fini = journal_remove_folder);

Test(tamper, signatures) {
  lqt_key *keys[2];
  uint8_t public_keys[2][32];
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(lqt__key_generate(&keys[i], NULL), LQT_OK);
    memcpy(public_keys[i], lqt__key_public(keys[i]), 32);
  }
  lqt__journal_options writer = journal_writer(), reader = journal_reader();
  writer.sign = keys[0];
  lqt__journal *journal = journal_open(&writer, NULL);
  journal_append_to(journal, 3, LQT__DURABILITY_SYNCED);
  lqt__journal_close(journal);
  reader.policy = (lqt__journal_policy){.keys = &public_keys[0], .count = 1};
  journal = journal_open(&reader, NULL);
  cr_assert(lqt__journal_get_commit(journal, 1)->is_signed);
  cr_assert_arr_eq(lqt__journal_get_commit(journal, 1)->key, public_keys[0], 32);
  lqt__journal_close(journal);
  reader.policy.keys = &public_keys[1];
  lqt_diag diag = {0};
  cr_assert_eq(lqt__journal_open(journal_path, &reader, &journal, NULL, &diag), LQT_BAD_SIGNATURE);
  /* Two keys that may sign; then somebody without one. */
  writer.sign = keys[1];
  journal = journal_open(&writer, NULL);
  journal_append_to(journal, 5, LQT__DURABILITY_SYNCED);
  lqt__journal_close(journal);
  reader.policy = (lqt__journal_policy){.keys = public_keys, .count = 2, .every_signature = true};
  journal = journal_open(&reader, NULL);
  journal_check(journal, 5);
  lqt__journal_close(journal);
  writer.sign = NULL;
  journal = journal_open(&writer, NULL);
  journal_append_to(journal, 6, LQT__DURABILITY_SYNCED);
  lqt__journal_close(journal);
  cr_assert_eq(lqt__journal_open(journal_path, &reader, &journal, NULL, &diag), LQT_BAD_SIGNATURE);
  cr_assert_not_null(strstr(diag.what, "transaction 5"), "%s", diag.what);
  /* A writer that requires a key does not add to a journal that breaks the rule. */
  writer.policy = reader.policy;
  cr_assert_eq(lqt__journal_open(journal_path, &writer, &journal, NULL, &diag), LQT_BAD_SIGNATURE);
  for (int i = 0; i < 2; i++) lqt__key_destroy(keys[i]);
}

/* Each byte of a journal changed by itself: never taken for what was written, never a crash. Only
 * the last transaction may look like one that a crash interrupted. */
Test(tamper, every_byte) {
  lqt__journal_options writer = journal_writer(), reader = journal_reader();
  lqt__journal *journal = journal_open(&writer, NULL);
  journal_append_to(journal, 3, LQT__DURABILITY_SYNCED);
  uint64_t last = lqt__journal_get_commit(journal, 2)->offset;
  uint8_t head[32], now[32];
  lqt__journal_head(journal, head);
  lqt__journal_close(journal);
  size_t bytes;
  uint8_t *data = journal_bytes(&bytes);
  for (size_t i = 0; i < bytes; i++) {
    data[i] ^= (uint8_t)(1u << i % 8);
    journal_put(data, bytes);
    lqt_diag diag = {0};
    lqt_status status = lqt__journal_open(journal_path, &reader, &journal, NULL, &diag);
    if (i < last) {
      cr_assert(status == LQT_BAD_JOURNAL || (i < 8 && status == LQT_BAD_MAGIC), "byte %zu: %s", i,
                lqt_status_name(status));
    } else {
      cr_assert_eq(status, LQT_OK, "byte %zu: %s", i, diag.what);
      cr_assert_eq(lqt__journal_count(journal), 2);
      cr_assert_gt(lqt__journal_torn_bytes(journal), 0);
      lqt__journal_head(journal, now);
      cr_assert(memcmp(now, head, 32) != 0 && !lqt__journal_has_head(journal, head));
    }
    lqt__journal_close(journal);
    data[i] ^= (uint8_t)(1u << i % 8);
  }
  free(data);
}

Test(tamper, other_files) {
  lqt__journal_options writer = journal_writer();
  lqt__journal *journal;
  lqt_diag diag = {0};
  char text[600];
  memset(text, 'x', sizeof text);
  for (size_t bytes = 1; bytes <= sizeof text; bytes += 37) {
    journal_put(text, bytes);
    cr_assert_eq(lqt__journal_open(journal_path, &writer, &journal, NULL, &diag), LQT_BAD_MAGIC);
    size_t now;
    uint8_t *data = journal_bytes(&now);
    cr_assert(now == bytes && memcmp(data, text, bytes) == 0, "the file is as it was");
    free(data);
  }
}
