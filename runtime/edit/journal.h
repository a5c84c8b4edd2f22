/* The journal of a model's edits: MODEL.lqt.journal beside an immutable base file. Each transaction
 * is one run of frames that are chained by hashes; what was committed and synced is there after a
 * crash, what was not is not. docs/journal.md specifies format and recovery.
 *
 * One writer at a time holds the file's lock; any number of readers follow. A journal handle is
 * one-at-a-time. */
#ifndef LQT_RUNTIME_EDIT_JOURNAL_H_
#define LQT_RUNTIME_EDIT_JOURNAL_H_

#include "base/key.h"
#include "edit/change.h"
#include "edit/journal_scan.h"
#include "format/format.h"
#include "lqt/journal.h"

typedef struct lqt__journal lqt__journal;

typedef enum lqt__durability {
  LQT__DURABILITY_SYNCED, /* on the disk when the call returns */
  LQT__DURABILITY_GROUP,  /* soon, with others; lqt__journal_wait waits for it */
} lqt__durability;

typedef struct lqt__journal_options {
  bool write;            /* take the writer's lock, and recover */
  bool create;           /* a writer makes the journal when there is none */
  const lqt__file *base; /* the model file that it belongs to; must outlive the journal */
  const lqt_key *sign;   /* signs each transaction; must outlive the journal; NULL: nobody does */
  const uint8_t *continues;   /* a reader that had followed the journal to this head takes also one
                                 of a newer base that continues from there; NULL: no */
  lqt__journal_policy policy; /* its keys must outlive the journal */
} lqt__journal_options;

/* What opening found. */
typedef struct lqt__journal_recovery {
  bool created;           /* there was none */
  bool absorbed;          /* an interrupted compaction was finished: the base has all of it */
  uint64_t dropped_at;    /* where an unfinished transaction began */
  uint64_t dropped_bytes; /* its bytes; 0: there was none */
} lqt__journal_recovery;

/* MODEL.lqt.journal, for the file that `model_path` names through links; lqt__free. NULL: no
 * memory. */
char *lqt__journal_path(const char *model_path);
/* What binds a journal to its base: the SHA-256 of the base's extension and footer, which hold the
 * digest of the metadata (and with it of every section) and the file's checksum. */
LQT_NODISCARD lqt_status lqt__journal_base_digest(const lqt__file *base, uint8_t out[32],
                                                  lqt_diag *diag);

/* Opens, checks every frame, and (a writer) recovers: an unfinished transaction at the end is cut
 * off. *out_recovery may be NULL. Errors: LQT_NOT_FOUND (none there), LQT_LOCKED, LQT_WRONG_BASE,
 * LQT_BAD_JOURNAL, LQT_BAD_SIGNATURE, LQT_BAD_MAGIC, LQT_BAD_VERSION, LQT_NO_SPACE, LQT_IO,
 * LQT_OUT_OF_MEMORY. The file is as it was then. */
LQT_NODISCARD lqt_status lqt__journal_open(const char *path, const lqt__journal_options *options,
                                           lqt__journal **out, lqt__journal_recovery *out_recovery,
                                           lqt_diag *diag);
/* One journal of an edit log in memory (that of a compacted model holds several in a row).
 * *out_bytes: how far it reaches. */
LQT_NODISCARD lqt_status lqt__journal_open_memory(const uint8_t *data, uint64_t bytes,
                                                  const char *where,
                                                  const lqt__journal_policy *policy,
                                                  lqt__journal **out, uint64_t *out_bytes,
                                                  lqt_diag *diag);
/* Group-synced transactions are synced first; what that says is lost here: lqt__journal_wait
 * before. NULL accepted. */
void lqt__journal_close(lqt__journal *journal);

const char *lqt__journal_where(const lqt__journal *journal);
const lqt__journal_header *lqt__journal_get_header(const lqt__journal *journal);
/* Transactions, and the first of them that the base does not have yet. */
size_t lqt__journal_count(const lqt__journal *journal);
size_t lqt__journal_first(const lqt__journal *journal);
const lqt__journal_commit *lqt__journal_get_commit(const lqt__journal *journal, size_t index);
/* Revision and hash of the last transaction (of the base and the header without one). */
uint64_t lqt__journal_revision(const lqt__journal *journal);
void lqt__journal_head(const lqt__journal *journal, uint8_t out[32]);
/* Is this the hash of a transaction, or of the empty journal? */
bool lqt__journal_has_head(const lqt__journal *journal, const uint8_t hash[32]);
/* False: an interrupted creation, which holds nothing. */
bool lqt__journal_is_begun(const lqt__journal *journal);
/* Does a writer have a reader's file open? */
LQT_NODISCARD lqt_status lqt__journal_has_writer(lqt__journal *journal, bool *out_has,
                                                 lqt_diag *diag);
/* Bytes of an unfinished transaction behind the last commit (readers). */
uint64_t lqt__journal_torn_bytes(const lqt__journal *journal);

/* Decodes transaction `index`; the caller frees it (lqt__entry_free). Old bytes are digests.
 * Errors: LQT_OUT_OF_RANGE, LQT_BAD_JOURNAL, LQT_LIMIT, LQT_IO, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__journal_read(lqt__journal *journal, size_t index,
                                           lqt__journal_entry *out, lqt_diag *diag);
/* The same without the new bytes of changes (their data is NULL). */
LQT_NODISCARD lqt_status lqt__journal_look(lqt__journal *journal, size_t index,
                                           lqt__journal_entry *out, lqt_diag *diag);

/* Writes a transaction. entry->revision must be the journal's revision + 1. *out_hash (may be NULL)
 * is the new head. On failure the journal is as it was; LQT_IO with "open it again": it could not
 * be brought back, and takes no more until it is opened anew. Errors: LQT_NO_SPACE, LQT_IO,
 * LQT_LIMIT, LQT_STALE_REVISION, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__journal_append(lqt__journal *journal, const lqt__journal_entry *entry,
                                             lqt__durability durability, uint8_t *out_hash,
                                             lqt_diag *diag);
/* Returns when all that was appended is on the disk. Threads: any, also beside an append. */
LQT_NODISCARD lqt_status lqt__journal_wait(lqt__journal *journal, lqt_diag *diag);
/* A write or sync failed and could not be taken back: the journal takes no more, and what was not
 * on the disk is not in it when it is opened again. */
bool lqt__journal_must_reopen(lqt__journal *journal);

/* A reader looks for what another process has committed since; *out_new is how many transactions
 * came. Errors: LQT_STALE_REVISION (the journal was replaced or its end taken back: open it again),
 * LQT_BAD_JOURNAL, LQT_BAD_SIGNATURE, LQT_IO, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__journal_poll(lqt__journal *journal, size_t *out_new, lqt_diag *diag);

/* The edit log of a base file that has absorbed this journal: the old base's and then the frames
 * up to the last commit, which is on the disk then. *out is the caller's (lqt__free). */
LQT_NODISCARD lqt_status lqt__journal_image(lqt__journal *journal, uint8_t **out,
                                            uint64_t *out_bytes, lqt_diag *diag);
/* After the new base is durable: the file becomes an empty journal of `base` that continues this
 * one. On failure what follows is recovered when the journal is opened again. */
LQT_NODISCARD lqt_status lqt__journal_restart(lqt__journal *journal, const lqt__file *base,
                                              lqt_diag *diag);
/* The same base, elsewhere in memory. */
void lqt__journal_move_base(lqt__journal *journal, const lqt__file *base);

/* A policy from the options of the public calls. *out_keys belongs to the caller (lqt__free) and
 * must outlive the policy. */
LQT_NODISCARD lqt_status lqt__journal_policy_make(const lqt_journal_options *options,
                                                  uint8_t (**out_keys)[32],
                                                  lqt__journal_policy *out, lqt_diag *diag);

/* Tests: payload bytes of a frame (at most LQT__FRAME_PAYLOAD_MAX), so that small transactions take
 * several; and no thread that syncs, so that calls come in one order: lqt__journal_wait syncs. */
void lqt__journal_set_frame_limit(lqt__journal *journal, uint32_t bytes);
void lqt__journal_hold_sync(lqt__journal *journal);

#endif /* LQT_RUNTIME_EDIT_JOURNAL_H_ */
