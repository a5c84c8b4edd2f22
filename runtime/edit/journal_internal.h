/* What the journal's files share. */
#ifndef LQT_RUNTIME_EDIT_JOURNAL_INTERNAL_H_
#define LQT_RUNTIME_EDIT_JOURNAL_INTERNAL_H_

#include <pthread.h>
#include <stdatomic.h>

#include "edit/journal.h"
#include "edit/record.h"

struct lqt__journal {
  lqt__append_file *file; /* NULL: an edit log in memory */
  char *where;
  const lqt__file *base;
  const lqt_key *sign;
  bool has_continues; /* what a reader had followed: `continues` of the options */
  uint8_t continues[32];
  lqt__journal_policy policy;
  bool write;
  lqt__journal_scan scan; /* the chain as far as it is committed */
  size_t first;
  lqt__record_codec *codec;

  /* Writer. */
  uint8_t *frame; /* the one being filled: room for the header, then payload */
  size_t frame_room;
  uint32_t payload, frame_limit;
  uint64_t allocated;       /* bytes of the file; zeros beyond what is used */
  lqt__journal_position at; /* of the next frame */
  uint8_t last_crc[4];
  bool wrote; /* the transaction has put bytes into the file */

  /* Syncing. `lock` guards what is written; `durable` and `failed` may be read without it. */
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool has_lock, has_thread, hold, stop;
  bool idle;        /* the thread waits for something to do */
  unsigned waiters; /* callers of lqt__journal_wait */
  pthread_t thread;
  uint64_t written;         /* end of what is committed */
  _Atomic uint64_t durable; /* end of what is on the disk */
  _Atomic int failed;       /* an lqt_status; not LQT_OK: the journal takes no more */
  lqt_diag failure;
};

/* The base's edit log: the last journal in it and where that begins. *out_journal NULL: there is
 * none. */
LQT_NODISCARD lqt_status lqt__journal_open_last(const lqt__file *base, const char *where,
                                                lqt__journal **out_journal, uint64_t *out_begin,
                                                lqt_diag *diag);
/* Bytes of the base's edit log that do not come from this journal. */
LQT_NODISCARD lqt_status lqt__journal_kept(const lqt__journal *journal, uint64_t *out_bytes,
                                           lqt_diag *diag);
/* Writes a header into an empty file and begins the chain. */
LQT_NODISCARD lqt_status lqt__journal_start(lqt__journal *journal, uint64_t base_revision,
                                            const uint8_t prior[32], lqt_diag *diag);
void lqt__journal_stop_thread(lqt__journal *journal);

#endif /* LQT_RUNTIME_EDIT_JOURNAL_INTERNAL_H_ */
