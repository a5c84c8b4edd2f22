/* What stands in a journal: its header and its frames, as bytes. docs/journal.md is the normative
 * text. */
#ifndef LQT_RUNTIME_EDIT_JOURNAL_FRAME_H_
#define LQT_RUNTIME_EDIT_JOURNAL_FRAME_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/key.h"
#include "lqt/status.h"

enum {
  LQT__JOURNAL_HEADER_BYTES = 128,
  LQT__JOURNAL_VERSION = 1,
  LQT__FRAME_MAGIC = 0x4D52464C, /* "LFRM" */
  LQT__FRAME_HEADER_BYTES = 88,
  LQT__FRAME_SEAL_BYTES = 96, /* public key and signature */
  LQT__FRAME_PAYLOAD_MAX = 16 << 20,
  LQT__FRAME_ROOM_MAX =
      LQT__FRAME_HEADER_BYTES + LQT__FRAME_PAYLOAD_MAX + LQT__FRAME_SEAL_BYTES + 16,
};
enum { LQT__FRAME_COMMIT = 1 << 0, LQT__FRAME_SIGNED = 1 << 1 };

typedef struct lqt__journal_header {
  uint64_t salt; /* every frame of the file repeats it */
  uint64_t base_revision;
  uint64_t created_ns;
  uint8_t base[32];  /* lqt__journal_base_digest of the model file */
  uint8_t prior[32]; /* head of the journal that this one continues; zeros: none */
} lqt__journal_header;

void lqt__journal_header_store(const lqt__journal_header *header, uint8_t out[128]);
/* False: not a whole header. */
bool lqt__journal_header_load(const uint8_t bytes[128], lqt__journal_header *out);
/* True when the bytes begin as a journal does. */
bool lqt__journal_magic(const uint8_t bytes[8]);
/* The same when some of these bytes may not have come to the disk. */
bool lqt__journal_magic_torn(const uint8_t bytes[8]);

typedef struct lqt__frame {
  uint16_t flags;
  uint64_t salt;
  uint64_t number;   /* in the file, from 0 */
  uint64_t revision; /* of the transaction */
  uint32_t payload_bytes;
  uint32_t part;    /* number of the frame within its transaction, from 0 */
  uint64_t durable; /* bytes of the file that were known to be on the disk */
  uint64_t offset;  /* of the frame in the file */
  uint8_t previous[32];
} lqt__frame;

/* Bytes of a whole frame, a multiple of 8. */
size_t lqt__frame_bytes(uint32_t payload_bytes, uint16_t flags);
/* Makes a frame whole: `bytes` has room for lqt__frame_bytes, and the payload stands in it already,
 * behind the header. Signs when `key` is not NULL (and sets SIGNED). Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__frame_seal(lqt__frame *frame, const lqt_key *key, uint8_t *bytes,
                                         uint8_t out_hash[32], lqt_diag *diag);
/* The header of a frame that may stand at `bytes`. False: none begins here. */
bool lqt__frame_load(const uint8_t bytes[LQT__FRAME_HEADER_BYTES], lqt__frame *out);
/* True when the frame's CRC fits; `bytes` are all of it. */
bool lqt__frame_whole(const lqt__frame *frame, const uint8_t *bytes);
LQT_NODISCARD lqt_status lqt__frame_hash(const lqt__frame *frame, const uint8_t *bytes,
                                         uint8_t out_hash[32]);
/* Public key (32) and signature (64) of a signed frame. */
const uint8_t *lqt__frame_signature(const lqt__frame *frame, const uint8_t *bytes);
/* Checks the signature against the key it names. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__frame_check_signature(const lqt__frame *frame, const uint8_t *bytes,
                                                    bool *out_good, lqt_diag *diag);

#endif /* LQT_RUNTIME_EDIT_JOURNAL_FRAME_H_ */
