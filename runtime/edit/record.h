/* Entries of the journal as bytes: the payload of a transaction's frames. Bytes flow through a sink
 * or a source piece by piece, so that gigabytes of new weights are never held twice.
 * docs/journal.md, "Entry", is the normative text. */
#ifndef LQT_RUNTIME_EDIT_RECORD_H_
#define LQT_RUNTIME_EDIT_RECORD_H_

#include "edit/change.h"

/* Compression state, reused from entry to entry. */
typedef struct lqt__record_codec lqt__record_codec;
LQT_NODISCARD lqt_status lqt__record_codec_create(lqt__record_codec **out, lqt_diag *diag);
void lqt__record_codec_destroy(lqt__record_codec *codec); /* NULL accepted */

typedef lqt_status (*lqt__record_sink)(void *user, const void *data, size_t bytes, lqt_diag *diag);
/* Gives exactly `bytes` bytes (out NULL: passes over them), or fails. */
typedef lqt_status (*lqt__record_source)(void *user, void *out, size_t bytes, lqt_diag *diag);

/* Errors: LQT_LIMIT (a text over 65534 bytes), LQT_OUT_OF_MEMORY, the sink's. */
LQT_NODISCARD lqt_status lqt__record_write(lqt__record_codec *codec,
                                           const lqt__journal_entry *entry, lqt__record_sink sink,
                                           void *user, lqt_diag *diag);
/* *out is the caller's (lqt__entry_free); zeroed on failure. `limit`: bytes of changes and payloads
 * together, against hostile input. Without `content` the
 * new bytes of changes are passed over. Errors: LQT_BAD_JOURNAL, LQT_LIMIT, LQT_OUT_OF_MEMORY, the
 * source's. */
LQT_NODISCARD lqt_status lqt__record_read(lqt__record_codec *codec, lqt__record_source source,
                                          void *user, uint64_t limit, bool content,
                                          lqt__journal_entry *out, lqt_diag *diag);

#endif /* LQT_RUNTIME_EDIT_RECORD_H_ */
