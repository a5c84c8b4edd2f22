#include "edit/journal_frame.h"

#include <string.h>

#include "base/diag.h"
#include "base/hash.h"
#include "format/bytes.h"

static const uint8_t magic[8] = {'L', 'Q', 'T', 'J', 'R', 'N', 'L', '1'};
/* Put before what is signed, so that the signature means nothing elsewhere. */
static const char context[14] = {'L', 'Q', 'T', ' ', 'j', 'o', 'u',
                                 'r', 'n', 'a', 'l', ' ', 'v', '1'};

void lqt__journal_header_store(const lqt__journal_header *header, uint8_t out[128]) {
  memset(out, 0, LQT__JOURNAL_HEADER_BYTES);
  memcpy(out, magic, sizeof magic);
  lqt__store_u32(out + 8, LQT__JOURNAL_VERSION);
  lqt__store_u64(out + 16, header->salt);
  lqt__store_u64(out + 24, header->base_revision);
  lqt__store_u64(out + 32, header->created_ns);
  memcpy(out + 40, header->base, 32);
  memcpy(out + 72, header->prior, 32);
  lqt__store_u32(out + 124, lqt__crc32(0, out, 124));
}

bool lqt__journal_magic(const uint8_t bytes[8]) { return memcmp(bytes, magic, 8) == 0; }

bool lqt__journal_magic_torn(const uint8_t bytes[8]) {
  for (size_t i = 0; i < sizeof magic; i++) {
    if (bytes[i] != magic[i] && bytes[i] != 0) return false;
  }
  return true;
}

bool lqt__journal_header_load(const uint8_t bytes[128], lqt__journal_header *out) {
  *out = (lqt__journal_header){.salt = lqt__load_u64(bytes + 16, false),
                               .base_revision = lqt__load_u64(bytes + 24, false),
                               .created_ns = lqt__load_u64(bytes + 32, false)};
  memcpy(out->base, bytes + 40, 32);
  memcpy(out->prior, bytes + 72, 32);
  return memcmp(bytes, magic, sizeof magic) == 0 &&
         lqt__load_u32(bytes + 124, false) == lqt__crc32(0, bytes, 124) &&
         lqt__load_u32(bytes + 8, false) == LQT__JOURNAL_VERSION &&
         lqt__load_u32(bytes + 12, false) == 0 && lqt__all_zero(bytes + 104, 20);
}

/* Bytes up to the signature's block. */
static size_t body_bytes(uint32_t payload_bytes) {
  return LQT__FRAME_HEADER_BYTES + (size_t)payload_bytes;
}

/* Bytes up to the padding. */
static size_t content_bytes(uint32_t payload_bytes, uint16_t flags) {
  return body_bytes(payload_bytes) +
         ((flags & LQT__FRAME_SIGNED) != 0 ? (size_t)LQT__FRAME_SEAL_BYTES : 0);
}

size_t lqt__frame_bytes(uint32_t payload_bytes, uint16_t flags) {
  return (content_bytes(payload_bytes, flags) + 4 + 7) & ~(size_t)7;
}

static lqt_status body_hash(const lqt__frame *frame, const uint8_t *bytes, uint8_t out[32]) {
  return lqt__sha256(bytes, body_bytes(frame->payload_bytes), out);
}

lqt_status lqt__frame_hash(const lqt__frame *frame, const uint8_t *bytes, uint8_t out_hash[32]) {
  LQT__TRY(body_hash(frame, bytes, out_hash));
  if ((frame->flags & LQT__FRAME_SIGNED) == 0) return LQT_OK;
  uint8_t both[32 + LQT__FRAME_SEAL_BYTES];
  memcpy(both, out_hash, 32);
  memcpy(both + 32, lqt__frame_signature(frame, bytes), LQT__FRAME_SEAL_BYTES);
  return lqt__sha256(both, sizeof both, out_hash);
}

static void signed_text(const uint8_t body[32], uint8_t out[sizeof context + 32]) {
  memcpy(out, context, sizeof context);
  memcpy(out + sizeof context, body, 32);
}

lqt_status lqt__frame_seal(lqt__frame *frame, const lqt_key *key, uint8_t *bytes,
                           uint8_t out_hash[32], lqt_diag *diag) {
  if (key != NULL) frame->flags |= LQT__FRAME_SIGNED;
  lqt__store_u32(bytes, LQT__FRAME_MAGIC);
  lqt__store_u16(bytes + 4, frame->flags);
  lqt__store_u16(bytes + 6, 0);
  lqt__store_u64(bytes + 8, frame->salt);
  lqt__store_u64(bytes + 16, frame->number);
  lqt__store_u64(bytes + 24, frame->revision);
  lqt__store_u32(bytes + 32, frame->payload_bytes);
  lqt__store_u32(bytes + 36, frame->part);
  lqt__store_u64(bytes + 40, frame->durable);
  lqt__store_u64(bytes + 48, frame->offset);
  memcpy(bytes + 56, frame->previous, 32);
  if (key != NULL) {
    uint8_t body[32], text[sizeof context + 32];
    uint8_t *block = bytes + body_bytes(frame->payload_bytes);
    if (body_hash(frame, bytes, body) != LQT_OK) {
      return lqt__fail_memory(diag, "journal", 0, "a digest");
    }
    signed_text(body, text);
    memcpy(block, lqt__key_public(key), LQT__KEY_PUBLIC_BYTES);
    LQT__TRY(lqt__key_sign(key, text, sizeof text, block + LQT__KEY_PUBLIC_BYTES, diag));
  }
  size_t content = content_bytes(frame->payload_bytes, frame->flags);
  size_t total = lqt__frame_bytes(frame->payload_bytes, frame->flags);
  memset(bytes + content, 0, total - content);
  lqt__store_u32(bytes + total - 4, lqt__crc32(0, bytes, total - 4));
  if (lqt__frame_hash(frame, bytes, out_hash) == LQT_OK) return LQT_OK;
  return lqt__fail_memory(diag, "journal", 0, "a digest");
}

bool lqt__frame_load(const uint8_t bytes[LQT__FRAME_HEADER_BYTES], lqt__frame *out) {
  if (lqt__load_u32(bytes, false) != LQT__FRAME_MAGIC) return false;
  *out = (lqt__frame){.flags = lqt__load_u16(bytes + 4, false),
                      .salt = lqt__load_u64(bytes + 8, false),
                      .number = lqt__load_u64(bytes + 16, false),
                      .revision = lqt__load_u64(bytes + 24, false),
                      .payload_bytes = lqt__load_u32(bytes + 32, false),
                      .part = lqt__load_u32(bytes + 36, false),
                      .durable = lqt__load_u64(bytes + 40, false),
                      .offset = lqt__load_u64(bytes + 48, false)};
  memcpy(out->previous, bytes + 56, 32);
  return (out->flags & ~(LQT__FRAME_COMMIT | LQT__FRAME_SIGNED)) == 0 &&
         lqt__load_u16(bytes + 6, false) == 0 && out->payload_bytes <= LQT__FRAME_PAYLOAD_MAX;
}

bool lqt__frame_whole(const lqt__frame *frame, const uint8_t *bytes) {
  size_t content = content_bytes(frame->payload_bytes, frame->flags);
  size_t total = lqt__frame_bytes(frame->payload_bytes, frame->flags);
  return lqt__all_zero(bytes + content, total - 4 - content) &&
         lqt__load_u32(bytes + total - 4, false) == lqt__crc32(0, bytes, total - 4);
}

const uint8_t *lqt__frame_signature(const lqt__frame *frame, const uint8_t *bytes) {
  return bytes + body_bytes(frame->payload_bytes);
}

lqt_status lqt__frame_check_signature(const lqt__frame *frame, const uint8_t *bytes, bool *out_good,
                                      lqt_diag *diag) {
  const uint8_t *block = lqt__frame_signature(frame, bytes);
  uint8_t body[32], text[sizeof context + 32];
  *out_good = false;
  if (body_hash(frame, bytes, body) != LQT_OK) {
    return lqt__fail_memory(diag, "journal", 0, "a digest");
  }
  signed_text(body, text);
  lqt_key *key;
  LQT__TRY(lqt__key_from_public(block, &key, diag));
  lqt_status status =
      lqt__key_check(key, text, sizeof text, block + LQT__KEY_PUBLIC_BYTES, out_good, diag);
  lqt__key_destroy(key);
  return status;
}
