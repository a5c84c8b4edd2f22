#include "support/seal.h"

#include <stdlib.h>

#include "base/hash.h"
#include "format/bytes.h"
#include "format/format.h"
#include "format/layout.h"

static void digest(const uint8_t *data, uint64_t bytes, uint8_t *out) {
  if (lqt__sha256(data, bytes, out) != LQT_OK) abort();
}

static bool inside(uint64_t offset, uint64_t bytes, uint64_t total) {
  return offset <= total && bytes <= total - offset;
}

/* Digests of the sections and pieces that the chunk at `value` names. */
static void seal_digests(uint8_t *data, size_t bytes, uint8_t *value, uint32_t length, bool big) {
  if (length < LQT__DIGESTS_HEAD) return;
  uint32_t sections = lqt__load_u32(value + LQT__DIGESTS_AT_SECTIONS, big);
  uint64_t begin = lqt__load_u64(value + LQT__DIGESTS_AT_BEGIN, big);
  uint64_t end = lqt__load_u64(value + LQT__DIGESTS_AT_END, big);
  if (sections > (length - LQT__DIGESTS_HEAD) / LQT__DIGESTS_RECORD) return;
  uint8_t *at = value + LQT__DIGESTS_HEAD;
  for (uint32_t i = 0; i < sections; i++, at += LQT__DIGESTS_RECORD) {
    uint64_t offset = lqt__load_u64(at, big), size = lqt__load_u64(at + 8, big);
    if (inside(offset, size, bytes)) digest(data + offset, size, at + 16);
  }
  if (begin > end || end > bytes) return;
  for (; begin < end && (size_t)(value + length - at) >= 32; at += 32) {
    uint64_t part = end - begin, piece = (uint64_t)1 << LQT__PIECE_LOG2;
    if (part > piece) part = piece;
    digest(data + begin, part, at);
    begin += part;
  }
}

void test_seal(uint8_t *data, size_t bytes) {
  if (bytes < LQT__HEADER_BYTES + LQT__FOOTER_BYTES) return;
  bool big = lqt__load_u32(data, true) == LQT__HEADER_MAGIC;
  uint64_t metadata = lqt__load_u64(data + LQT__AT_METADATA, big);
  uint64_t footer = lqt__load_u64(data + LQT__AT_FOOTER, big);
  if (!inside(footer, LQT__FOOTER_BYTES, bytes)) return;
  uint64_t extension = lqt__load_u64(data + footer + LQT__FOOTER_AT_EXTENSION, big);
  if (inside(extension, LQT__EXTENSION_BYTES, bytes)) {
    uint64_t size = lqt__load_u64(data + extension + LQT__EXTENSION_AT_METADATA_SIZE, big);
    if (inside(metadata, size, bytes)) {
      uint64_t at = metadata, end = metadata + size;
      while (end - at >= LQT__ENTRY_HEADER) {
        uint16_t type = lqt__load_u16(data + at, big);
        uint64_t length = lqt__load_u32(data + at + LQT__ENTRY_AT_LENGTH, big);
        if (length > end - at - LQT__ENTRY_HEADER) break;
        if (type == LQT__CHUNK_DIGESTS) {
          seal_digests(data, bytes, data + at + LQT__ENTRY_HEADER, (uint32_t)length, big);
        }
        uint64_t step = (LQT__ENTRY_HEADER + length + 3) & ~(uint64_t)3;
        if (step > end - at) break;
        at += step;
      }
      digest(data + metadata, size, data + extension + LQT__EXTENSION_AT_DIGEST);
    }
  }
  uint8_t *crc = data + footer + LQT__FOOTER_AT_CRC;
  for (int i = 0; i < 4; i++) crc[i] = 0;
  uint32_t value = lqt__crc32(0, data, bytes);
  for (int i = 0; i < 4; i++) crc[i] = (uint8_t)(value >> (big ? 24 - 8 * i : 8 * i));
}
