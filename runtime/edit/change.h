/* Changes: what a valid mutation comes to, as bytes with the way back; and entries: what a commit
 * hands to the journal and gets back from it. Whoever applies, stages, logs or takes back an edit
 * deals in changes and knows no kinds of mutations. */
#ifndef LQT_RUNTIME_EDIT_CHANGE_H_
#define LQT_RUNTIME_EDIT_CHANGE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lqt/types.h"

typedef enum lqt__change_kind {
  LQT__CHANGE_BYTES = 1,   /* bytes inside a section, as many as before */
  LQT__CHANGE_SECTION = 2, /* a whole section: of another size, created or removed */
  LQT__CHANGE_RECORD = 3,  /* a metadata record: replaced, created or removed */
} lqt__change_kind;

/* Records. Tensors are named; chunks and the rest have ids. */
typedef enum lqt__record_kind {
  LQT__RECORD_TENSOR = 1,         /* descriptor and layout (edit/descriptor.h), by name */
  LQT__RECORD_CHUNK = 2,          /* a metadata chunk's value, by type (the module graph: 3) */
  LQT__RECORD_HYPERPARAMETER = 3, /* f32, by key */
} lqt__record_kind;

/* Codebooks, deltas and masks are found by id; their sections are whole, heads included. Tensors
 * and what belongs to them are found by name; a tensor's section is its payload without the ids
 * before it. Absent bytes are NULL and has_* false; a section of no bytes does not exist.
 *
 * In memory both sides are there. A change read back from a journal has the new bytes, and of the
 * old ones the number and the digest; by_reference, it has of both only number and digest, because
 * the operation can be done again from the file that it names. */
typedef struct lqt__change {
  lqt__change_kind kind;
  uint16_t what;   /* lqt__section_kind or, of a record, lqt__record_kind */
  uint16_t id;     /* codebook, delta, mask, chunk type; else LQT_ID_NONE */
  char *name;      /* tensor or hyperparameter; else NULL. Owned */
  uint64_t offset; /* BYTES: in the section. Else: the place in its table when it is created */
  bool has_old, has_new, by_reference;
  uint8_t *data, *old_data; /* owned */
  uint64_t bytes, old_bytes;
  uint8_t sha256[32], old_sha256[32]; /* of the bytes; only in changes read from a journal */
} lqt__change;

/* What was asked for: one typed mutation. */
typedef struct lqt__operation {
  uint8_t operation;   /* lqt_operation */
  uint8_t target_kind; /* lqt_target_kind */
  uint16_t target_id;  /* codebook, delta or mask; else LQT_ID_NONE */
  char *target;        /* tensor, module or hyperparameter; or NULL */
  uint8_t *payload;    /* the mutation, encoded (edit/encoding.h) */
  uint64_t payload_bytes;
  char *file; /* another file that it reads, and that file's SHA-256; or NULL */
  uint8_t file_sha256[32];
} lqt__operation;

enum {
  LQT__ENTRY_TEMPORARY = 1 << 0, /* reverts by itself: expires_* */
  LQT__ENTRY_ROLLBACK = 1 << 1,  /* brings back the bytes of revision `reference` */
  LQT__ENTRY_EXPIRED = 1 << 2,   /* takes the temporary revision `reference` back */
  LQT__ENTRY_PARTIAL = 1 << 3,   /* mutations that failed were left out */
};

typedef struct lqt__journal_entry {
  uint64_t revision; /* from 1 on, without gaps */
  uint64_t timestamp_ns;
  uint32_t flags;
  uint64_t reference;
  uint64_t expires_ns;    /* of CLOCK_REALTIME; 0: never */
  uint64_t expires_steps; /* steps after which it reverts; 0: never */
  char *actor;            /* who; NULL: nobody said */
  uint16_t user;
  char *reason; /* NULL: none was given */
  lqt__operation *operations;
  size_t operation_count;
  lqt__change *changes; /* in the order in which they are applied */
  size_t change_count;
} lqt__journal_entry;

void lqt__change_free(lqt__change *change);
/* Swaps new and old. */
void lqt__change_invert(lqt__change *change);
/* A copy with bytes of its own. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__change_copy(const lqt__change *change, lqt__change *out,
                                          lqt_diag *diag);
/* Do they touch the same bytes, or one a whole that the other is part of? */
bool lqt__change_overlaps(const lqt__change *a, const lqt__change *b);

void lqt__operation_free(lqt__operation *operation);
/* Frees what the entry owns and zeroes it. */
void lqt__entry_free(lqt__journal_entry *entry);

#endif /* LQT_RUNTIME_EDIT_CHANGE_H_ */
