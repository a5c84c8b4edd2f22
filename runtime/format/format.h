/* The .lqt container: parsed structure, reader (untrusted bytes) and writer. docs/format.md is the
 * normative text; runtime/format/layout.h holds the on-disk offsets.
 *
 * lqt__file is both what the reader makes and what the writer takes: the descriptors of tensors,
 * the tables of blobs, the other chunks byte for byte. Blob bytes stay where they are (the map); a
 * writer is told where to get each blob from. */
#ifndef LQT_RUNTIME_FORMAT_FORMAT_H_
#define LQT_RUNTIME_FORMAT_FORMAT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "io/file.h"
#include "lqt/types.h"
#include "lqt/weight.h"

enum {
  LQT__FLAG_HAS_DELTAS = 1 << 0,
  LQT__FLAG_HAS_SPARSE_MASKS = 1 << 1,
  LQT__FLAG_ALIGN_64 = 1 << 2,
  LQT__FLAG_BIG_ENDIAN = 1 << 3,
  LQT__FLAG_SELF_MODIFYING = 1 << 4,
  LQT__FLAG_SIGNED_EDITS = 1 << 5,
  LQT__FLAG_COMPRESSED = 1 << 6,
  LQT__FLAG_SHARDED = 1 << 7,
};

enum {
  LQT__CHUNK_HYPERPARAMETERS = 0x0001,
  LQT__CHUNK_TENSORS = 0x0002,
  LQT__CHUNK_MODULES = 0x0003,
  LQT__CHUNK_MUTATION_RULES = 0x0004,
  LQT__CHUNK_CODEBOOKS = 0x0005,
  LQT__CHUNK_DELTAS = 0x0006,
  LQT__CHUNK_MASKS = 0x0007,
  LQT__CHUNK_VOCABULARY = 0x0008,
  LQT__CHUNK_KV_CACHE = 0x0009,
  LQT__CHUNK_SELF_MODIFICATION = 0x000A,
  LQT__CHUNK_EDIT_LOG = 0x000B,
  LQT__CHUNK_SHARDING = 0x000C,
  LQT__CHUNK_DICTIONARY = 0x000D,
  LQT__CHUNK_MAPPING_HINTS = 0x000E,
  LQT__CHUNK_ACCESS_CONTROL = 0x000F,
  LQT__CHUNK_PERFORMANCE = 0x0010,
  LQT__CHUNK_RECURSIVE = 0x0011,
  LQT__CHUNK_QUANT_LAYOUT = 0x0012,
  LQT__CHUNK_DIGESTS = 0x0013,
  LQT__CHUNK_PROVENANCE = 0x0014,
  LQT__CHUNK_EXTENSION = 0xFFFF,
};

enum {
  LQT__TENSOR_TRAINABLE = 1 << 0,
  LQT__TENSOR_PROTECTED = 1 << 1,
  LQT__TENSOR_SHARED = 1 << 2,
  LQT__TENSOR_HOT_SWAPPABLE = 1 << 3,
  LQT__TENSOR_CACHED = 1 << 4,
  LQT__TENSOR_CHECKPOINT = 1 << 5,
  LQT__TENSOR_RECURSIVE = 1 << 6,
  LQT__TENSOR_FRACTAL = 1 << 7,
  LQT__TENSOR_PATTERN = 1 << 8,
};

enum {
  LQT__CODEBOOK_MUTABLE = 1 << 0,
  LQT__CODEBOOK_EXPANDABLE = 1 << 1,
  LQT__CODEBOOK_SHARED = 1 << 2,
  LQT__CODEBOOK_RESIDUAL = 1 << 3,
};

/* On-disk delta encodings and flags. */
enum {
  LQT__DELTA_DENSE = 0,
  LQT__DELTA_CSR = 1,
  LQT__DELTA_COO = 2,
  LQT__DELTA_LOW_RANK = 3,
  LQT__DELTA_GROUPED = 4,
};
enum { LQT__DELTA_MUTABLE = 1 << 0, LQT__DELTA_COMPRESSED = 1 << 1 };

enum {
  LQT__MASK_BITMAP = 0,
  LQT__MASK_RUN_LENGTH = 1,
  LQT__MASK_COORDINATES = 2,
  LQT__MASK_BLOCK = 3,
  LQT__MASK_STRUCTURED = 4,
};

/* A range of the file. */
typedef struct lqt__range {
  uint64_t offset, bytes;
} lqt__range;

/* Where a blob's bytes are while a file is being written: in memory, or to be produced later by
 * lqt__writer_put (data NULL). The reader sets it to the bytes in the map. */
typedef struct lqt__blob {
  const uint8_t *data; /* NULL: not here (left out by a partial open, or written later) */
  uint64_t bytes;
  uint64_t offset; /* in the file it was read from; the writer does not look at it */
} lqt__blob;

typedef struct lqt__tensor {
  char *name;
  uint8_t type; /* 0 standard, 1 RecursiveTensor */
  uint8_t dtype;
  uint8_t ndim;
  uint32_t shape[8];
  uint16_t codebook_id, delta_id, mask_id;
  float scale;
  int32_t zero_point;
  uint16_t flags;
  struct {
    uint32_t dimension;
    float sparsity;
    uint8_t distribution, flags;
  } recursive;
  /* Quantization layout (chunk 0x0012). */
  uint8_t index_bits; /* 0: not quantized */
  uint8_t residual_bits;
  uint8_t scope;            /* 0 tensor, 1 row, 2 group */
  uint8_t group_scale_type; /* lqt_dtype; F16 today */
  uint32_t group_size;
  uint32_t bank_count;
  uint32_t bank_rows, bank_cols;
  uint16_t residual_codebook_id;
  uint16_t outlier_delta_id; /* the delta that holds outliers; equals delta_id today or NONE */
  float residual_scale;
  /* The tensor's blob: its 6-byte ids, padding, then the packed indices or the plain elements.
   * `payload` begins after the padding. */
  lqt__blob payload;
  lqt__blob group_scales, zero_points, residual_indices;
  /* Of the matrix it is seen as: 1-D is one row, more than 2-D keeps the first dimension. Set by
   * the reader; the writer computes its own. */
  uint64_t rows, cols;
  uint64_t row_stride; /* bytes of one row of the payload */
  uint64_t residual_row_stride;
} lqt__tensor;

typedef struct lqt__codebook {
  uint16_t id;
  uint8_t dtype; /* lqt_dtype F32 or F16 (file codes: 0 f32, 1 f16) */
  uint8_t flags;
  uint16_t vector_dim;
  uint32_t vectors;      /* used, over all banks */
  uint32_t capacity;     /* vectors that fit the blob */
  uint32_t banks;        /* from the tensors that use it, 1 when none does; not the writer's */
  lqt__blob blob;        /* the whole section, header included */
  uint32_t header_bytes; /* vectors begin at blob + header_bytes (64-byte aligned) */
} lqt__codebook;

typedef struct lqt__delta {
  uint16_t id;
  uint8_t dtype, encoding, flags;
  uint64_t count; /* stored values */
  lqt__blob blob;
  uint32_t header_bytes;
} lqt__delta;

typedef struct lqt__mask {
  uint16_t id;
  uint8_t encoding;
  uint64_t count; /* elements of the tensor */
  float density;  /* percent */
  lqt__blob blob;
  uint32_t header_bytes;
} lqt__mask;

typedef struct lqt__chunk {
  uint16_t type;
  const uint8_t *data; /* not terminated */
  uint32_t bytes;
} lqt__chunk;

typedef struct lqt__hyperparameter {
  char *key;
  float value;
} lqt__hyperparameter;

/* The kinds of sections, in the order in which they stand in a file. */
typedef enum lqt__section_kind {
  LQT__SECTION_CODEBOOK,
  LQT__SECTION_TENSOR,
  LQT__SECTION_GROUP_SCALES,
  LQT__SECTION_ZERO_POINTS,
  LQT__SECTION_RESIDUAL_INDICES,
  LQT__SECTION_DELTA,
  LQT__SECTION_MASK,
  LQT__SECTION_EDIT_LOG,
} lqt__section_kind;

typedef struct lqt__section {
  uint64_t offset, bytes; /* of the whole section; a tensor's begins with its ids */
  lqt__section_kind kind;
  uint32_t index; /* of the tensor, codebook, delta or mask */
  bool missing;   /* left out by a partial open */
} lqt__section;

typedef struct lqt__file {
  uint16_t version, flags;
  uint64_t timestamp_ns;
  uint64_t edit_log_offset;
  uint32_t edit_count;
  lqt__hyperparameter *hyperparameters;
  size_t hyperparameter_count;
  lqt__tensor *tensors;
  size_t tensor_count;
  lqt__codebook *codebooks;
  size_t codebook_count;
  lqt__delta *deltas;
  size_t delta_count;
  lqt__mask *masks;
  size_t mask_count;
  /* Every chunk that has no field of its own above, in file order: module graph, vocabulary,
   * provenance, extensions, unknown types. */
  lqt__chunk *chunks;
  size_t chunk_count;
  lqt__blob edit_log; /* bytes between the masks and the footer, kept as they are */
  /* Reader only. */
  const uint8_t *data; /* the whole file */
  uint64_t bytes;
  uint64_t metadata_offset, metadata_bytes, tensor_data_offset, footer_offset;
  uint64_t extension_offset;
  uint32_t crc;           /* as the footer has it */
  bool big_endian;        /* blobs and known chunks were converted into the arena */
  lqt__section *sections; /* in file order */
  size_t section_count;
  size_t missing_count; /* sections left out by a partial open */
  lqt__range digests;   /* value of the digest chunk in the file; bytes 0: there is none */
  uint32_t *by_name;    /* tensor indices in the order of their names */
  lqt__arena arena;     /* owns every array and string above */
} lqt__file;

/* ---- Reader ---- */

/* Parses and checks the structure of `bytes` bytes; O(metadata). Everything in `out` points into
 * `data` (at least 4-byte aligned) or the arena. `where` names the input in diags. `partial` reads
 * every section and leaves out those that are damaged. On failure `out` is zeroed.
 * Threads: any. Errors: LQT_BAD_*, LQT_TRUNCATED, LQT_CHECKSUM (metadata digest), LQT_LIMIT,
 * LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__file_parse(const uint8_t *data, uint64_t bytes, const char *where,
                                         bool partial, lqt__file *out, lqt_diag *diag);
void lqt__file_free(lqt__file *file);
/* First chunk of `type` that is kept in `chunks`; NULL when there is none. */
const lqt__chunk *lqt__file_chunk(const lqt__file *file, uint16_t type);
/* Index of the tensor / codebook / delta / mask, or -1. */
ptrdiff_t lqt__file_find_tensor(const lqt__file *file, const char *name);
ptrdiff_t lqt__file_find_codebook(const lqt__file *file, uint16_t id);
ptrdiff_t lqt__file_find_delta(const lqt__file *file, uint16_t id);
ptrdiff_t lqt__file_find_mask(const lqt__file *file, uint16_t id);

/* "codebook 3", "tensor model.norm.weight", ... */
void lqt__section_name(const lqt__file *file, const lqt__section *section, char *out, size_t size);

/* Checks CRC-32, every digest, that padding is zero, and that each tensor's blob names the ids of
 * its descriptor. Each damaged section is given to `report` (may be NULL) with its
 * offset; the first status is returned. `progress` may be NULL. */
typedef void (*lqt__finding_fn)(void *user, const lqt_diag *finding);
LQT_NODISCARD lqt_status lqt__file_verify(const lqt__file *file, const char *where,
                                          lqt__finding_fn report, void *user,
                                          lqt_progress_fn progress, void *progress_user,
                                          lqt_diag *diag);

/* ---- Sizes, the same for reader, writer and quantizer ---- */

/* Bytes of one row of packed indices: ceil(indices * bits / 8) rounded up to 16. */
uint64_t lqt__index_row_bytes(uint64_t cols, uint32_t vector_dim, uint32_t bits);

/* Where the parts of a delta stand, counted from the section's first byte. */
typedef struct lqt__delta_layout {
  uint64_t parameter; /* low-rank and grouped: u32 rank or group, u32 zero; else 0 */
  uint64_t row_ptr;   /* CSR */
  uint64_t columns;   /* CSR: u16, or u32 when `wide_columns`; coordinates: u32 row, u32 column */
  uint64_t values;    /* A of the low-rank form */
  uint64_t values_b;  /* B of the low-rank form */
  uint64_t count;     /* stored values */
  uint64_t bytes;     /* of the whole section */
  bool wide_columns;
} lqt__delta_layout;
/* `count` matters for CSR and coordinates only, `parameter` (rank or group) for the other two.
 * False when a size overflows or the parameter is 0. */
LQT_NODISCARD bool lqt__delta_measure(uint8_t encoding, uint8_t dtype, uint64_t rows, uint64_t cols,
                                      uint64_t count, uint32_t parameter, lqt__delta_layout *out);
/* Bytes of one row of a bitmap mask: ceil(cols / 8) rounded up to 8. */
uint64_t lqt__mask_row_bytes(uint64_t cols);

/* ---- Writer ----
 *
 * Fill an lqt__file (offsets need not be set; blobs whose `data` is NULL are put later), begin,
 * put, finish. The writer makes the tensor, table, layout and digest chunks itself, sets ALIGN_64
 * and the HAS_ flags, aligns every section to 64 bytes and those of 64 KiB and more to 4096, and
 * writes little-endian. Codebook, delta and mask blobs in memory are whole sections (header
 * included); lqt__codebook_header and friends make the headers. */
typedef struct lqt__writer lqt__writer;

/* Checks and lays out the file and starts writing beside `path`. `file`, which is not changed, must
 * live until finish/abort. It may be a parsed one, with any blob's `data` replaced: blobs that have
 * data are copied, fields of the reader are not looked at, and a big-endian file is written
 * little-endian. timestamp_ns 0: now; otherwise the same file gives the same bytes. Errors: LQT_IO,
 * LQT_LIMIT, LQT_INVALID_ARGUMENT, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__writer_begin(const char *path, const lqt__file *file,
                                           lqt__writer **out, lqt_diag *diag);
/* Writes part of a blob that had no data: `blob` is one of the file's (for instance
 * &file->tensors[i].payload); `at` counts from the blob's first byte. Threads: one-at-a-time. */
LQT_NODISCARD lqt_status lqt__writer_put(lqt__writer *writer, const lqt__blob *blob, uint64_t at,
                                         const void *data, uint64_t bytes, lqt_diag *diag);
/* Digests, metadata, footer, sync, rename. Ends the writer, whatever it returns. */
LQT_NODISCARD lqt_status lqt__writer_finish(lqt__writer *writer, uint64_t *out_bytes,
                                            lqt_diag *diag);
void lqt__writer_abort(lqt__writer *writer); /* NULL accepted */

/* Section headers. Each writes the header and its padding (64 bytes) and returns its length; the
 * section's bytes follow. */
size_t lqt__codebook_header(const lqt__codebook *codebook, uint8_t out[64]);
size_t lqt__delta_header(const lqt__delta *delta, uint8_t out[64]);
size_t lqt__mask_header(const lqt__mask *mask, uint8_t out[64]);

#endif /* LQT_RUNTIME_FORMAT_FORMAT_H_ */
