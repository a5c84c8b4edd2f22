/* Where every field of an .lqt file stands on disk. docs/format.md is the normative text; the
 * offsets here are its byte tables. Fields are not naturally aligned: they are read and written by
 * the helpers in format/bytes.h, never through a struct pointer. */
#ifndef LQT_RUNTIME_FORMAT_LAYOUT_H_
#define LQT_RUNTIME_FORMAT_LAYOUT_H_

#include <stdint.h>

#define LQT__HEADER_MAGIC \
  0x4C515431u /* "1TQL" in a little-endian file, "LQT1" in a big-endian one */
#define LQT__FOOTER_MAGIC 0x4C515446u

/* Preamble (12 bytes) and header (32 bytes). */
enum {
  LQT__AT_MAGIC = 0x00,
  LQT__AT_VERSION = 0x04,
  LQT__AT_FLAGS = 0x06,
  LQT__AT_HEADER_SIZE = 0x08,
  LQT__AT_METADATA = 0x0C,
  LQT__AT_TENSOR_DATA = 0x14,
  LQT__AT_FOOTER = 0x1C,
  LQT__AT_RESERVED = 0x24,
  LQT__HEADER_BYTES = 0x2C,
  LQT__HEADER_SIZE = 32, /* what the header size field says: the bytes after it */
  LQT__KNOWN_FLAGS = 0xFF,
  LQT__VERSION_1_0 = 0x1000,
};
_Static_assert(LQT__AT_HEADER_SIZE + 4 == LQT__AT_METADATA, "the preamble ends with its size");
_Static_assert(LQT__AT_METADATA + LQT__HEADER_SIZE == LQT__HEADER_BYTES, "32 bytes after it");
_Static_assert(LQT__AT_RESERVED + 8 == LQT__HEADER_BYTES, "8 reserved bytes end the header");

/* Footer: the last 64 bytes. */
enum {
  LQT__FOOTER_AT_MAGIC = 0x00,
  LQT__FOOTER_AT_CRC = 0x04,
  LQT__FOOTER_AT_EDIT_LOG = 0x08,
  LQT__FOOTER_AT_TIMESTAMP = 0x10,
  LQT__FOOTER_AT_EDIT_COUNT = 0x18,
  LQT__FOOTER_AT_ZERO = 0x1C,
  LQT__FOOTER_AT_EXTENSION = 0x20,
  LQT__FOOTER_AT_EXTENSION_SIZE = 0x28,
  LQT__FOOTER_AT_RESERVED = 0x30,
  LQT__FOOTER_BYTES = 0x40,
};
_Static_assert(LQT__FOOTER_AT_EDIT_COUNT + 40 == LQT__FOOTER_BYTES, "40 bytes after the timestamp");
_Static_assert(LQT__FOOTER_AT_RESERVED + 16 == LQT__FOOTER_BYTES, "16 reserved bytes end it");

/* Footer extension. */
enum {
  LQT__EXTENSION_AT_VERSION = 0x00,
  LQT__EXTENSION_AT_ZERO = 0x04,
  LQT__EXTENSION_AT_METADATA_SIZE = 0x08,
  LQT__EXTENSION_AT_DIGEST = 0x10,
  LQT__EXTENSION_AT_EDIT_LOG_SIZE = 0x30,
  LQT__EXTENSION_AT_RESERVED = 0x38,
  LQT__EXTENSION_BYTES = 0x40,
  LQT__EXTENSION_VERSION = 1,
};
_Static_assert(LQT__EXTENSION_AT_DIGEST + 32 == LQT__EXTENSION_AT_EDIT_LOG_SIZE, "a SHA-256");
_Static_assert(LQT__EXTENSION_AT_RESERVED + 8 == LQT__EXTENSION_BYTES, "8 reserved bytes end it");

/* A metadata entry: type u16, length u32, value, zeros to a multiple of 4 of the whole entry. */
enum { LQT__ENTRY_AT_LENGTH = 2, LQT__ENTRY_HEADER = 6 };

/* Tables of codebooks, deltas and masks. */
enum {
  LQT__TABLE_AT_ID = 0,
  LQT__TABLE_AT_OFFSET = 2,
  LQT__TABLE_AT_SIZE = 10,
  LQT__TABLE_RECORD = 18,
};

/* Tensor descriptor, after the name: fixed parts. */
enum {
  LQT__TENSOR_FIXED = 3 + 6 + 4 + 4 + 2, /* type dtype ndim, 3 ids, scale, zero point, flags */
  LQT__TENSOR_RECURSIVE_FIXED = 4 + 4 + 1 + 1,
};

/* Quantization layout (0x0012): one record per tensor, in the order of the descriptors. */
enum {
  LQT__QUANT_AT_INDEX_BITS = 0,
  LQT__QUANT_AT_RESIDUAL_BITS = 1,
  LQT__QUANT_AT_SCOPE = 2,
  LQT__QUANT_AT_SCALE_TYPE = 3,
  LQT__QUANT_AT_GROUP_SIZE = 4,
  LQT__QUANT_AT_BANK_COUNT = 8,
  LQT__QUANT_AT_BANK_ROWS = 12,
  LQT__QUANT_AT_BANK_COLS = 16,
  LQT__QUANT_AT_RESIDUAL_ID = 20,
  LQT__QUANT_AT_OUTLIER_ID = 22,
  LQT__QUANT_AT_RESIDUAL_SCALE = 24,
  LQT__QUANT_AT_ZERO = 28,
  LQT__QUANT_AT_PAYLOAD = 32, /* offset u64, size u64, like the three that follow */
  LQT__QUANT_AT_GROUP_SCALES = 48,
  LQT__QUANT_AT_ZERO_POINTS = 64,
  LQT__QUANT_AT_RESIDUAL_INDICES = 80,
  LQT__QUANT_RECORD = 96,
};
_Static_assert(LQT__QUANT_AT_RESIDUAL_INDICES + 16 == LQT__QUANT_RECORD, "four blobs end it");

/* Digests (0x0013): this head, then a record per section in file order, then a digest per piece. */
enum {
  LQT__DIGESTS_AT_PIECE_LOG2 = 0,
  LQT__DIGESTS_AT_SECTIONS = 4,
  LQT__DIGESTS_AT_BEGIN = 8,
  LQT__DIGESTS_AT_END = 16,
  LQT__DIGESTS_HEAD = 24,
  LQT__DIGESTS_RECORD = 48, /* offset u64, size u64, SHA-256 */
  LQT__PIECE_LOG2 = 20,
};

/* Vocabulary (0x0008): this head, then a zstd frame. */
enum {
  LQT__VOCABULARY_AT_KIND = 0, /* 1: tokenizer.json; u16, and two zero bytes */
  LQT__VOCABULARY_AT_SIZE = 4, /* tokens */
  LQT__VOCABULARY_AT_BOS = 8,  /* -1: none */
  LQT__VOCABULARY_AT_EOS = 12,
  LQT__VOCABULARY_AT_RAW = 16, /* bytes of the frame's content */
  LQT__VOCABULARY_HEAD = 24,
};

/* Section heads. All three are 64 bytes long; what is not named is zero. */
enum { LQT__SECTION_HEAD = 64 };
enum {
  LQT__CODEBOOK_AT_ID = 0,
  LQT__CODEBOOK_AT_VECTORS = 2, /* 0xFFFF: the count is the u32 at LQT__CODEBOOK_AT_LONG */
  LQT__CODEBOOK_AT_DIM = 4,
  LQT__CODEBOOK_AT_DTYPE = 6,
  LQT__CODEBOOK_AT_FLAGS = 7,
  LQT__CODEBOOK_AT_LONG = 8,
  LQT__CODEBOOK_HEAD_USED = 12,
  LQT__CODEBOOK_ESCAPE = 0xFFFF,
};
enum {
  LQT__DELTA_AT_ID = 0,
  LQT__DELTA_AT_DTYPE = 2,
  LQT__DELTA_AT_COUNT = 3, /* u24; 0xFFFFFF: the count is the u64 at LQT__DELTA_AT_LONG */
  LQT__DELTA_AT_ENCODING = 6,
  LQT__DELTA_AT_FLAGS = 7,
  LQT__DELTA_AT_LONG = 8,
  LQT__DELTA_HEAD_USED = 16,
  LQT__DELTA_ESCAPE = 0xFFFFFF,
};
enum {
  LQT__MASK_AT_ID = 0,
  LQT__MASK_AT_ENCODING = 2,
  LQT__MASK_AT_ZERO = 3,
  LQT__MASK_AT_DENSITY = 4,
  LQT__MASK_AT_COUNT = 8,
  LQT__MASK_HEAD_USED = 16,
};
/* Before a tensor's payload: its three ids, then zeros to the file's alignment. */
enum { LQT__TENSOR_IDS = 6 };

/* Limits of this reader; the format allows more. */
enum {
  LQT__MAX_STRING = 1024,
  LQT__MAX_DIMS = 8,
  LQT__MAX_GAP = 4096, /* zeros between two sections are fewer than this */
  LQT__PAGE = 4096,
  LQT__PAGE_FROM = 65536, /* sections of this many bytes start on a page */
};
#define LQT__MAX_METADATA ((uint64_t)1 << 30)
#define LQT__MAX_ELEMENTS ((uint64_t)1 << 48)

#endif /* LQT_RUNTIME_FORMAT_LAYOUT_H_ */
