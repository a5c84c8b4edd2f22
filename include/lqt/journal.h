/* Journals of edits, and keys that sign them. A model's journal stands beside it, as
 * MODEL.lqt.journal; an editor writes it (lqt/edit.h), and this is how to look at it. What
 * compacted models carry of older journals belongs to it. docs/journal.md says what is guaranteed.
 */
#ifndef LQT_JOURNAL_H_
#define LQT_JOURNAL_H_

#include "lqt/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Keys (Ed25519) ---- */

/* A fresh pair. Owns: the caller; lqt_key_destroy. Threads: any. Errors: LQT_OUT_OF_MEMORY,
 * LQT_INTERNAL (no random numbers). */
LQT_API LQT_NODISCARD lqt_status lqt_key_generate(lqt_key **out_key, lqt_diag *diag);
/* From a PEM file with the private key (it can sign) or the public one. Threads: any. Errors:
 * LQT_NOT_FOUND, LQT_IO, LQT_INVALID_ARGUMENT (no such key in it), LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_key_read(const char *path, lqt_key **out_key, lqt_diag *diag);
/* Writes one half as a new PEM file, the private one readable by its owner alone. Errors:
 * LQT_CONFLICT (the file is there), LQT_IO, LQT_INVALID_ARGUMENT (a public key has no private
 * half). */
LQT_API LQT_NODISCARD lqt_status lqt_key_write(const lqt_key *key, bool private_half,
                                               const char *path, lqt_diag *diag);
LQT_API void lqt_key_destroy(lqt_key *key); /* NULL accepted */
/* The 32 bytes of the public key; valid as long as the key. */
LQT_API const uint8_t *lqt_key_public(const lqt_key *key);
LQT_API bool lqt_key_can_sign(const lqt_key *key);

/* ---- Journals ---- */

typedef struct lqt_journal_options {
  uint32_t size;    /* sizeof(lqt_journal_options) */
  const char *path; /* of the journal; NULL: the model's path and ".journal" */
  const lqt_key
      *sign; /* signs what is written; NULL: nothing is signed. Must outlive the journal */
  const lqt_key *const *required; /* each transaction is signed by one of these, or the journal is
                                     refused; copied */
  size_t required_count;          /* 0: anybody may write */
} lqt_journal_options;

/* Opens a model's journal for reading and checks all frames. A model that was never edited has one
 * of no transactions. options may be NULL. Owns: the caller; lqt_journal_close; keeps a reference
 * to the model. Threads: one-at-a-time for the calls on one journal. Errors: LQT_WRONG_BASE,
 * LQT_BAD_JOURNAL, LQT_BAD_SIGNATURE, LQT_BAD_MAGIC, LQT_BAD_VERSION, LQT_IO, LQT_OUT_OF_MEMORY.
 * Source: docs/journal.md. */
LQT_API LQT_NODISCARD lqt_status lqt_journal_open(lqt_model *model,
                                                  const lqt_journal_options *options,
                                                  lqt_journal **out_journal, lqt_diag *diag);
LQT_API void lqt_journal_close(lqt_journal *journal); /* NULL accepted */

/* The file, whether or not it is there. */
LQT_API const char *lqt_journal_path(const lqt_journal *journal);
/* Transactions, the oldest first. */
LQT_API size_t lqt_journal_count(const lqt_journal *journal);
/* Hash of the last transaction, which covers all before it: noted elsewhere, it shows later that
 * nothing was changed or cut off (lqt_journal_verify). Zeros when there is no journal at all. */
LQT_API void lqt_journal_head(const lqt_journal *journal, uint8_t out_hash[32]);
/* Revision of the last transaction; 0 without one. */
LQT_API uint64_t lqt_journal_revision(const lqt_journal *journal);
/* Looks for transactions that were committed since; *out_new is how many came. Errors:
 * LQT_STALE_REVISION (the journal was replaced or its end taken back: open it again), and those of
 * lqt_journal_open. */
LQT_API LQT_NODISCARD lqt_status lqt_journal_poll(lqt_journal *journal, size_t *out_new,
                                                  lqt_diag *diag);

enum {
  LQT_JOURNAL_TEMPORARY = 1 << 0, /* reverts by itself */
  LQT_JOURNAL_ROLLBACK = 1 << 1,  /* brings back the bytes of revision `reference` */
  LQT_JOURNAL_EXPIRED = 1 << 2,   /* takes the temporary revision `reference` back */
  LQT_JOURNAL_PARTIAL = 1 << 3,   /* mutations that failed were left out */
};

/* Pointers are valid until another transaction of the journal is asked for. */
typedef struct lqt_journal_entry_info {
  uint64_t revision;
  uint64_t timestamp_ns; /* since 1970-01-01 00:00 UTC */
  uint32_t flags;        /* LQT_JOURNAL_* */
  uint64_t reference;
  uint64_t expires_ns, expires_steps; /* 0: never */
  const char *actor, *reason;         /* NULL: nobody said */
  uint16_t user;
  size_t operations, changes;
  uint64_t changed_bytes; /* new bytes of all changes */
  uint64_t stored_bytes;  /* in the journal */
  uint8_t hash[32];
  bool is_signed;
  uint8_t key[32]; /* public key of the signer */
  bool in_base;    /* it is part of the model file, which was compacted since */
} lqt_journal_entry_info;
/* Errors: LQT_OUT_OF_RANGE, LQT_BAD_JOURNAL, LQT_IO, LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_journal_entry(lqt_journal *journal, size_t index,
                                                   lqt_journal_entry_info *out_info,
                                                   lqt_diag *diag);

typedef struct lqt_journal_operation_info {
  uint8_t operation;   /* lqt_operation */
  uint8_t target_kind; /* of what it is done to */
  uint16_t target_id;  /* codebook, delta or mask; LQT_ID_NONE */
  const char *target;  /* tensor, module or hyperparameter; NULL */
  const void *payload; /* the mutation as the journal encodes it */
  size_t payload_bytes;
  const char *file;           /* another file that it reads; NULL */
  const uint8_t *file_sha256; /* of that file; NULL */
} lqt_journal_operation_info;
LQT_API LQT_NODISCARD lqt_status lqt_journal_operation(lqt_journal *journal, size_t index,
                                                       size_t operation,
                                                       lqt_journal_operation_info *out_info,
                                                       lqt_diag *diag);

typedef struct lqt_journal_change_info {
  const char *kind; /* "bytes", "section", "record" */
  const char *what; /* "codebook", "tensor", "group scales", "hyperparameter", ... */
  const char *name; /* tensor or hyperparameter; NULL */
  uint16_t id;      /* codebook, delta, mask, type of a chunk; LQT_ID_NONE */
  uint64_t offset;
  bool has_old, has_new; /* false: created, removed */
  uint64_t old_bytes, new_bytes;
  const uint8_t *old_sha256; /* NULL without old bytes */
} lqt_journal_change_info;
LQT_API LQT_NODISCARD lqt_status lqt_journal_change(lqt_journal *journal, size_t index,
                                                    size_t change,
                                                    lqt_journal_change_info *out_info,
                                                    lqt_diag *diag);

typedef struct lqt_journal_check {
  size_t transactions, signed_transactions;
  uint64_t unfinished_bytes; /* behind the last transaction */
  bool writer;               /* a writer has the journal open */
  uint8_t head[32];
} lqt_journal_check;
/* Checks a journal in full: every frame, hash and signature, the content of every transaction, and
 * that `noted_head` (32 bytes; NULL: none was noted) is the hash of one of them. *out_check may be
 * NULL. Errors: those of lqt_journal_open; LQT_BAD_JOURNAL for a head that is not there;
 * LQT_TRUNCATED for an unfinished transaction at the end, which a writer that was interrupted
 * leaves and the next writer cuts off. */
LQT_API LQT_NODISCARD lqt_status lqt_journal_verify(lqt_model *model,
                                                    const lqt_journal_options *options,
                                                    const uint8_t *noted_head,
                                                    lqt_journal_check *out_check, lqt_diag *diag);

#ifdef __cplusplus
}
#endif
#endif /* LQT_JOURNAL_H_ */
