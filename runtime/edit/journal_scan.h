/* Walking a journal's frames: the chain of hashes, which transactions were committed, and what
 * stands behind the last of them. For the files of the journal. */
#ifndef LQT_RUNTIME_EDIT_JOURNAL_SCAN_H_
#define LQT_RUNTIME_EDIT_JOURNAL_SCAN_H_

#include "edit/journal_frame.h"
#include "io/append.h"

/* Bytes of a journal: a file, or memory (an edit log in a model file). */
typedef struct lqt__journal_source {
  lqt__append_file *file;
  const uint8_t *data; /* without a file */
  uint64_t bytes;
  const char *where;
  size_t ahead;    /* bytes to read ahead; 0: a megabyte */
  uint8_t *window; /* what was read ahead of a file */
  size_t capacity;
  uint64_t begin, count; /* the part of the file in the window */
} lqt__journal_source;
void lqt__journal_source_free(lqt__journal_source *source);
/* *out are `bytes` bytes at `offset`, valid until the next call; NULL beyond the end. */
LQT_NODISCARD lqt_status lqt__journal_source_read(lqt__journal_source *source, uint64_t offset,
                                                  size_t bytes, const uint8_t **out,
                                                  lqt_diag *diag);
/* The file may have changed: forgets what was read ahead, and asks for its size. */
LQT_NODISCARD lqt_status lqt__journal_source_refresh(lqt__journal_source *source, lqt_diag *diag);

typedef struct lqt__journal_commit {
  uint64_t offset, end; /* its frames */
  uint64_t revision;
  uint32_t frames;
  uint8_t hash[32]; /* of its last frame */
  bool is_signed;
  uint8_t key[32]; /* of the signer */
} lqt__journal_commit;

/* Where the chain stands: what the next frame must be. */
typedef struct lqt__journal_position {
  uint64_t offset, number, revision;
  uint32_t part;
  uint8_t hash[32];
} lqt__journal_position;

typedef enum lqt__journal_tail {
  LQT__TAIL_CLEAN, /* nothing but zeros behind the last commit */
  LQT__TAIL_TORN,  /* an unfinished transaction: what an interrupted writer leaves */
} lqt__journal_tail;

typedef struct lqt__journal_scan {
  lqt__journal_source source;
  lqt__journal_header header;
  bool has_header;           /* false: an interrupted creation, which holds nothing */
  uint8_t start_hash[32];    /* of the header */
  lqt__journal_position end; /* behind the last commit */
  uint8_t end_crc[4];        /* the bytes before the end */
  lqt__journal_commit *commits;
  size_t count, capacity;
  uint64_t used; /* end.offset plus what a torn tail occupies; the rest is zeros */
  lqt__journal_tail tail;
} lqt__journal_scan;

/* Who must have signed. */
typedef struct lqt__journal_policy {
  const uint8_t (*keys)[32]; /* public keys, one of which signs each transaction; none: anybody */
  size_t count;
  bool every_signature; /* check all; else the last one, which covers those before it */
} lqt__journal_policy;

/* Walks from the header to the end of source.bytes. Errors: LQT_BAD_MAGIC (another kind of file),
 * LQT_BAD_VERSION, LQT_BAD_JOURNAL (changed after it was written; the diag has frame and byte),
 * LQT_BAD_SIGNATURE, LQT_IO, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__journal_scan_run(lqt__journal_scan *scan,
                                               const lqt__journal_policy *policy, lqt_diag *diag);
/* The same without a look at what stands behind the last commit. */
LQT_NODISCARD lqt_status lqt__journal_scan_chain(lqt__journal_scan *scan,
                                                 const lqt__journal_policy *policy, lqt_diag *diag);
/* From scan->end on, for what was appended since; not what stands behind it. */
LQT_NODISCARD lqt_status lqt__journal_scan_more(lqt__journal_scan *scan,
                                                const lqt__journal_policy *policy, lqt_diag *diag);
/* The frame at `offset`; *out_bytes NULL when no whole one of this journal begins there. */
LQT_NODISCARD lqt_status lqt__journal_scan_frame(lqt__journal_scan *scan, uint64_t offset,
                                                 lqt__frame *out, const uint8_t **out_bytes,
                                                 lqt_diag *diag);
/* Makes room for one more commit; taking it then cannot fail. */
LQT_NODISCARD lqt_status lqt__journal_scan_reserve(lqt__journal_scan *scan, lqt_diag *diag);
void lqt__journal_scan_push(lqt__journal_scan *scan, const lqt__journal_commit *commit);
/* Sets the end to just behind the header. */
LQT_NODISCARD lqt_status lqt__journal_scan_begin(lqt__journal_scan *scan, const uint8_t header[128],
                                                 lqt_diag *diag);
void lqt__journal_scan_free(lqt__journal_scan *scan);

#endif /* LQT_RUNTIME_EDIT_JOURNAL_SCAN_H_ */
