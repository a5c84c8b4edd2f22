/* Editing a model while it runs. An editor holds a model's changes over its immutable file. Typed
 * mutations are validated, collected in transactions, written to a journal when one is open, and
 * made visible to every attached engine between two steps, as one revision. Any revision can be
 * brought back. docs/editing.md explains the operations, the rules and what is exact.
 *
 * Threads: an editor's calls may come from any thread, a transaction's from the thread that began
 * it. Commits take turns; readers (lqt_editor_*) and steps never wait for more than the flip. */
#ifndef LQT_EDIT_H_
#define LQT_EDIT_H_

#include "lqt/journal.h"
#include "lqt/model.h"
#include "lqt/session.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Mutations ----
 *
 * Numbers are those of the journal: never reuse one. Beside each: the fields of lqt_mutation that
 * it reads; the others are ignored. "Elements" count in the order of the file. */
typedef enum lqt_operation {
  /* `id`: vectors first, first + 1, ... (over all banks) become values[n * vector_dim]. */
  LQT_EDIT_CODEBOOK_ENTRIES = 1,
  /* `id`: vectors are appended, as many to each bank, bank after bank: values[n * vector_dim]. */
  LQT_EDIT_CODEBOOK_EXPAND = 2,
  /* `id`: the stored values first, first + 1, ... become values[n]. */
  LQT_EDIT_DELTA_VALUES = 3,
  /* `target`: the delta at (row, column) = coordinates[2i], [2i + 1] becomes values[i]. Elements
   * that a sparse delta does not store are added to it; without a delta, one is made. */
  LQT_EDIT_DELTA_SPARSE = 4,
  /* `target`: a whole delta of `delta_kind` and `dtype` (F16, F32): dense values[rows * cols],
   * compressed rows as `coordinates` (ascending) and values, low-rank values A[rows][parameter]
   * then B[parameter][cols], grouped values[rows][ceil(cols / parameter)]. Created or replaced. */
  LQT_EDIT_DELTA_REPLACE = 5,
  LQT_EDIT_DELTA_REMOVE = 6, /* `target` */
  /* `target`: the mask at coordinates[i] becomes data[i] (bytes 0 or 1). Makes a mask of ones where
   * there is none. */
  LQT_EDIT_MASK_UPDATE = 7,
  /* `target`: data holds a bitmap, rows of ceil(cols / 8) bytes rounded up to 8. */
  LQT_EDIT_MASK_REPLACE = 8,
  LQT_EDIT_MASK_REMOVE = 9,     /* `target` */
  LQT_EDIT_GROUP_SCALES = 10,   /* `target`: from element `first` on, values[n] */
  LQT_EDIT_ZERO_POINTS = 11,    /* `target`: likewise */
  LQT_EDIT_TENSOR_SCALE = 12,   /* `target`: the scale becomes values[0] */
  LQT_EDIT_RESIDUAL_SCALE = 13, /* `target`: likewise */
  /* `target`: the elements become values[rows * cols], stored plainly as `dtype` (F32, F16, BF16)
   * with scale 1; codebook, residual, delta and mask no longer apply. */
  LQT_EDIT_TENSOR_REPLACE = 14,
  /* `target`: every element times values[0]. Multiplies the scale and the delta's values. */
  LQT_EDIT_TENSOR_MULTIPLY = 15,
  /* `target`: no element is below values[0] or above values[1]; those inside stay as they are. */
  LQT_EDIT_TENSOR_CLAMP = 16,
  LQT_EDIT_TENSOR_CLONE = 17, /* `target` is copied, with all it refers to, to a new `other` */
  LQT_EDIT_TENSOR_SWAP = 18,  /* `target` and `other`, of one shape, exchange their contents */
  /* `target`: a module, or all whose id begins with "target.": what comes in goes on to whatever
   * read what came out. One value in, one out, of one width. */
  LQT_EDIT_MODULE_BYPASS = 19,
  LQT_EDIT_MODULE_RESTORE = 20, /* `target`: as it was bypassed */
  /* `target` (HOT_SWAPPABLE) takes tensors and hyperparameters of the module `other` (NULL: of the
   * same id) of the model at `file`, or of `model`. Type, ports and widths must agree. */
  LQT_EDIT_MODULE_SWAP = 21,
  /* `other` is the key, values[0] the value. `target` a module: its hyperparameter ("eps",
   * "window", "scale", "rope.theta", ...). No target: the model's; "norm_eps", "rope_theta" and
   * "window" then go to every module that has them. */
  LQT_EDIT_HYPERPARAMETER = 22,
  /* Of the payload of `target` (packed indices or elements): offsets and counts in bytes. */
  LQT_EDIT_RAW_WRITE = 23, /* data[bytes] to `first` */
  LQT_EDIT_RAW_FILL = 24,  /* data[bytes] over and over, `count` bytes from `first` */
  LQT_EDIT_RAW_COPY = 25,  /* `count` bytes from `second` (of `other`, or the same) to `first` */
  LQT_EDIT_RAW_SWAP = 26,  /* `count` bytes at `first` and at `second` (of `other`, or the same) */
  LQT_EDIT_MAX_ = 0x7fffffff
} lqt_operation;

typedef struct lqt_mutation {
  uint32_t size; /* sizeof(lqt_mutation) */
  lqt_operation operation;
  const char *target; /* a tensor, module or hyperparameter */
  const char *other;
  const char *file;
  const lqt_model *model;
  uint16_t id; /* a codebook or delta */
  lqt_dtype dtype;
  lqt_delta_kind delta_kind;
  uint32_t parameter; /* rank or group */
  uint64_t first, second, count;
  const float *values;
  size_t value_count;
  const uint32_t *coordinates; /* pairs */
  size_t coordinate_count;     /* pairs */
  const void *data;
  size_t bytes;
} lqt_mutation;

/* "codebook_entries", "tensor_clamp", ...: as mutation rules name them; NULL for other numbers.
 * Static storage. Threads: any. */
LQT_API const char *lqt_operation_name(lqt_operation operation);

/* ---- The editor ---- */

/* Keeps a reference to the model. Owns: the caller; before the engines attached to it are destroyed
 * they are detached, or the editor is destroyed. Errors: LQT_OUT_OF_MEMORY, LQT_BAD_JSON and
 * LQT_BAD_METADATA (mutation rules). */
LQT_API LQT_NODISCARD lqt_status lqt_editor_create(lqt_model *model, lqt_editor **out_editor,
                                                   lqt_diag *diag);
LQT_API void lqt_editor_destroy(lqt_editor *editor); /* NULL accepted */

/* Edits go to attached engines at their next step boundary. Attaching brings an engine to the
 * editor's revision; a detached one stays as it is. Errors: LQT_INVALID_ARGUMENT (another model's
 * engine), LQT_CONFLICT (attached to another editor), LQT_OUT_OF_MEMORY, LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_attach(lqt_editor *editor, lqt_engine *engine,
                                                   lqt_diag *diag);
LQT_API void lqt_editor_detach(lqt_editor *editor, lqt_engine *engine);
LQT_API uint64_t lqt_editor_revision(const lqt_editor *editor);
/* The model as edited now: immutable, and independent of what the editor does later. Owns: the
 * caller; lqt_model_release. Errors: LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_snapshot(lqt_editor *editor, lqt_model **out_model,
                                                     lqt_diag *diag);
/* Writes the model as edited: unknown chunks and every unchanged section byte for byte, digests and
 * checksum fresh. `path` may be the model's own (temporary file, sync, rename), as long as it has
 * no journal. Errors: LQT_CONFLICT (it has: lqt_editor_compact), LQT_IO; `path` is then as it was.
 */
LQT_API LQT_NODISCARD lqt_status lqt_editor_save(lqt_editor *editor, const char *path,
                                                 lqt_diag *diag);

/* ---- The journal ----
 *
 * With a journal an edit is durable before it is visible, and the model's file stays what it was.
 * model.lqt.journal has the edits; lqt_editor_open_journal replays it, lqt_model_open does not. */
typedef enum lqt_journal_mode {
  LQT_JOURNAL_READ = 0,   /* the edits there are; the editor cannot commit */
  LQT_JOURNAL_FOLLOW = 1, /* and those another process will commit: lqt_editor_follow */
  LQT_JOURNAL_WRITE = 2,  /* one process at a time; the first edit makes the journal */
  LQT_JOURNAL_MODE_MAX_ = 0x7fffffff
} lqt_journal_mode;
typedef struct lqt_journal_report {
  uint64_t transactions;  /* replayed */
  uint64_t dropped_bytes; /* of a transaction that a crash had cut short; it was never committed */
  size_t reverted;        /* temporary edits that nobody was left to take back */
} lqt_journal_report;

/* Opens the model's journal and brings the editor to its last revision. Once, before any edit and
 * engine. Readers and followers are content without a file. options and out_report may be NULL. On
 * failure the editor is of no further use. Errors: those of lqt_journal_open, LQT_LOCKED (another
 * writer), LQT_NO_SPACE, LQT_REPLACEMENT_INVALID and LQT_NOT_FOUND (a file that an edit refers to
 * has changed or gone), LQT_INVALID_ARGUMENT. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_open_journal(lqt_editor *editor, lqt_journal_mode mode,
                                                         const lqt_journal_options *options,
                                                         lqt_journal_report *out_report,
                                                         lqt_diag *diag);
/* Brings in what another process has committed since. *out_applied (may be NULL): revisions.
 * Errors: LQT_STALE_REVISION (the journal was started over or lost its end: open the model again),
 * those of lqt_journal_open and of a commit on the engines. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_follow(lqt_editor *editor, size_t *out_applied,
                                                   lqt_diag *diag);
/* Returns when everything that was committed is on the disk (lqt_commit_options.group_sync). */
LQT_API LQT_NODISCARD lqt_status lqt_editor_sync(lqt_editor *editor, lqt_diag *diag);
/* Hash of the journal's last transaction; zeros without one. */
LQT_API void lqt_editor_journal_head(lqt_editor *editor, uint8_t out_hash[32]);
/* Writes the edited model in place of the model's file, with the journal inside, and begins a new
 * journal. At every moment one of the two is whole. Revisions go on; those before can be brought
 * back as long as this editor lives. Errors: LQT_CONFLICT (a temporary edit is pending), LQT_IO. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_compact(lqt_editor *editor, lqt_diag *diag);

/* ---- Editing ---- */

typedef struct lqt_commit_options {
  uint32_t size;      /* sizeof(lqt_commit_options) */
  const char *actor;  /* who; may be NULL */
  const char *reason; /* may be NULL */
  uint16_t user;
  bool group_sync;        /* the journal may sync it with others; lqt_editor_sync waits */
  uint64_t expires_ms;    /* the edit is taken back after this time; 0: it stays */
  uint64_t expires_steps; /* or after this many steps of the attached engines; 0: it stays */
  /* Before it is committed the edited model runs on these tokens, or this text. NULL: no trial. */
  const int32_t *trial_tokens;
  size_t trial_token_count;
  const char *trial_text;
  double trial_loss_limit; /* most nats a token may cost in the trial; 0: it must be finite */
} lqt_commit_options;

/* Transactions: mutations that become one revision, or none does. */
typedef struct lqt_transaction lqt_transaction;
#define LQT_REVISION_ANY UINT64_MAX

/* `expected`: the revision that the caller's decisions rest on, or LQT_REVISION_ANY. Several
 * threads may have transactions open; one thread has one at a time per editor. Owns: the caller; it
 * ends with lqt_transaction_commit or _rollback. Errors: LQT_STALE_REVISION, LQT_CONFLICT (this
 * thread has one open: no nesting), LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_transaction_begin(lqt_editor *editor, uint64_t expected,
                                                       lqt_transaction **out_transaction,
                                                       lqt_diag *diag);
/* Validates a mutation against the model as it is with the mutations before, and keeps what it
 * comes to; `mutation` and what it points to are not needed after the call. On failure the
 * transaction is as it was. Errors, each with its own sentence: LQT_NOT_FOUND, LQT_OUT_OF_RANGE,
 * LQT_IMMUTABLE, LQT_DIMENSION_MISMATCH, LQT_PERMISSION_DENIED (protected, or denied by the rules),
 * LQT_VALIDATION_FAILED (bounds, density, topology), LQT_NOT_FINITE, LQT_NOT_HOT_SWAPPABLE,
 * LQT_INCOMPATIBLE_INTERFACE, LQT_REPLACEMENT_INVALID, LQT_CONFLICT, LQT_UNSUPPORTED,
 * LQT_INVALID_ARGUMENT, LQT_OUT_OF_MEMORY. Threads: owner. */
LQT_API LQT_NODISCARD lqt_status lqt_transaction_add(lqt_transaction *transaction,
                                                     const lqt_mutation *mutation, lqt_diag *diag);
/* Mutations in it. */
LQT_API size_t lqt_transaction_count(const lqt_transaction *transaction);
/* Runs what lqt_transaction_commit would check, trial included. Threads: owner. */
LQT_API LQT_NODISCARD lqt_status lqt_transaction_validate(lqt_transaction *transaction,
                                                          const lqt_commit_options *options,
                                                          lqt_diag *diag);
/* Makes it visible everywhere as the next revision, durably when a journal is open, or changes
 * nothing. Ends the transaction, whatever it returns. Revisions that were committed meanwhile are
 * fine as long as they touched other bytes. options may be NULL. Errors: LQT_CONFLICT,
 * LQT_VALIDATION_FAILED (the trial), LQT_NOT_FINITE (the trial), LQT_IO and other errors of the
 * journal, LQT_DEVICE_*, LQT_OUT_OF_MEMORY: nothing has changed then. LQT_DEVICE_LOST with
 * *out_revision set: it is committed, and an engine that could not follow has to be created again:
 * its steps answer LQT_DEVICE_LOST, and later edits pass it over. */
LQT_API LQT_NODISCARD lqt_status lqt_transaction_commit(lqt_transaction *transaction,
                                                        const lqt_commit_options *options,
                                                        uint64_t *out_revision, lqt_diag *diag);
LQT_API void lqt_transaction_rollback(lqt_transaction *transaction); /* NULL accepted */

/* One mutation as a transaction of its own. */
LQT_API LQT_NODISCARD lqt_status lqt_edit(lqt_editor *editor, const lqt_mutation *mutation,
                                          const lqt_commit_options *options, uint64_t *out_revision,
                                          lqt_diag *diag);
/* Several in one revision. `partial`: those that fail are left out, with their status in
 * out_results[count] (may be NULL); otherwise the first failure is returned and nothing happens.
 * A partial batch in which nothing is valid makes no revision, and returns the first failure. */
LQT_API LQT_NODISCARD lqt_status lqt_edit_batch(lqt_editor *editor, const lqt_mutation *mutations,
                                                size_t count, bool partial,
                                                const lqt_commit_options *options,
                                                lqt_status *out_results, uint64_t *out_revision,
                                                lqt_diag *diag);
/* LQT_EDIT_CODEBOOK_ENTRIES of one vector. */
LQT_API LQT_NODISCARD lqt_status lqt_edit_codebook_entry(lqt_editor *editor, uint16_t codebook_id,
                                                         uint32_t vector, const float *values,
                                                         size_t dim, uint64_t *out_revision,
                                                         lqt_diag *diag);

/* Takes the last edit that was not undone back (a new revision). Errors: LQT_NOT_FOUND (nothing to
 * undo), LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_edit_undo(lqt_editor *editor, uint64_t *out_revision,
                                               lqt_diag *diag);
/* The last `count` of them, as one revision. */
LQT_API LQT_NODISCARD lqt_status lqt_edit_undo_many(lqt_editor *editor, size_t count,
                                                    const lqt_commit_options *options,
                                                    uint64_t *out_revision, lqt_diag *diag);
/* A new revision whose bytes are those of `revision`. Errors: LQT_OUT_OF_RANGE. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_rollback(lqt_editor *editor, uint64_t revision,
                                                     const lqt_commit_options *options,
                                                     uint64_t *out_revision, lqt_diag *diag);
/* Takes temporary edits back whose time is over; a thread of the editor does the same by itself.
 * *out_reverted may be NULL. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_expire(lqt_editor *editor, size_t *out_reverted,
                                                   lqt_diag *diag);

/* ---- Asking ---- */

/* Reads a vector as edited. Errors: LQT_NOT_FOUND, LQT_OUT_OF_RANGE, LQT_DIMENSION_MISMATCH. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_codebook_entry(const lqt_editor *editor,
                                                           uint16_t codebook_id, uint32_t vector,
                                                           float *out, size_t dim, lqt_diag *diag);
/* Bytes [first, first + count) of a tensor's payload as edited. Errors: LQT_NOT_FOUND,
 * LQT_OUT_OF_RANGE. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_read(const lqt_editor *editor, const char *tensor,
                                                 uint64_t first, uint64_t count, void *out,
                                                 lqt_diag *diag);
/* Where `count` bytes at `first` of one tensor and `second` of another (or the same) first differ;
 * *out_at is `count` when they do not. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_compare(const lqt_editor *editor, const char *tensor,
                                                    uint64_t first, const char *other,
                                                    uint64_t second, uint64_t count,
                                                    uint64_t *out_at, lqt_diag *diag);
/* The first place from `first` on where the bytes stand, at a multiple of `align`; LQT_NOT_FOUND
 * when there is none. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_search(const lqt_editor *editor, const char *tensor,
                                                   uint64_t first, const void *pattern,
                                                   size_t bytes, uint64_t align, uint64_t *out_at,
                                                   lqt_diag *diag);

/* What a mutation would reach. Costs a pass over the indices of the tensors that use a codebook. */
typedef struct lqt_impact {
  uint64_t weights; /* elements of tensors whose value it changes or may change */
  uint32_t tensors;
  uint64_t bytes; /* that it replaces */
} lqt_impact;
LQT_API LQT_NODISCARD lqt_status lqt_editor_impact(lqt_editor *editor, const lqt_mutation *mutation,
                                                   lqt_impact *out_impact, lqt_diag *diag);

/* ---- Events ---- */

typedef enum lqt_event_kind {
  LQT_EVENT_COMMITTED = 1,   /* the journal has it (or there is none) */
  LQT_EVENT_VISIBLE = 2,     /* the next step of every attached engine runs at it */
  LQT_EVENT_ROLLED_BACK = 3, /* `reference` was brought back or, a temporary edit, taken back */
  LQT_EVENT_MAX_ = 0x7fffffff
} lqt_event_kind;
typedef struct lqt_event {
  lqt_event_kind kind;
  uint64_t revision, reference;
  double seconds; /* VISIBLE: from the commit on */
} lqt_event;
/* `fn` is called from the committing thread, while it holds the editor's turn: it may read, and
 * must not edit, attach, sync or ask for the journal's head. NULL: none. */
typedef void (*lqt_event_fn)(void *user, const lqt_event *event);
LQT_API void lqt_editor_set_events(lqt_editor *editor, lqt_event_fn fn, void *user);

#ifdef __cplusplus
}
#endif
#endif /* LQT_EDIT_H_ */
