/* The canonical weight: one matrix of a model as plain pointers, in the order of the file.
 *
 * Backends repack it at upload (lqt_weight_create); nothing keeps pointers into it afterwards
 * unless a backend says so. The element at row r, column c of a codebook weight is
 *
 *   w = mask * (scale * group_scale * (C[i] + residual_scale * R[j] - zero_point) + delta)
 *
 * with C[i] the component of codebook vector i that column c selects (c % vector_dim), likewise
 * R[j]. A missing part is neutral (mask 1, group_scale 1, R 0, zero_point 0, delta 0). For a plain
 * weight w = mask * (scale * data + delta). Source: docs/format.md, "Reconstruction". */
#ifndef LQT_WEIGHT_H_
#define LQT_WEIGHT_H_

#include "lqt/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A codebook of one or many banks. Bank b starts at vectors + b * bank_stride elements. */
typedef struct lqt_codebook_view {
  const void *vectors; /* [banks][capacity][vector_dim], `dtype` F16 or F32 */
  lqt_dtype dtype;
  uint32_t entries;    /* used vectors of a bank, 1..2^index bits */
  uint32_t vector_dim; /* 1, 2, 4 or 8 */
  uint32_t banks;      /* at least 1 */
  uint32_t reserved;
  uint64_t bank_stride; /* elements; at least entries * vector_dim */
} lqt_codebook_view;

/* Packed indices: a little-endian bit stream per row, low bits first; index i of a row stands in
 * bits [i*bits, (i+1)*bits). A row holds ceil(cols / vector_dim) indices; the unused components of
 * the last vector are ignored. Every index is below the codebook's `entries`. */
typedef struct lqt_index_view {
  const uint8_t *data;
  uint64_t row_stride; /* bytes, a multiple of 16 */
  uint32_t bits;       /* 2, 3, 4, 8 or 16 */
  uint32_t reserved;
} lqt_index_view;

typedef enum lqt_delta_kind {
  LQT_DELTA_NONE = 0,
  LQT_DELTA_DENSE = 1,    /* values[rows][cols] */
  LQT_DELTA_CSR = 2,      /* row_ptr[rows+1], columns ascending within a row */
  LQT_DELTA_LOW_RANK = 3, /* A[rows][rank] * B[rank][cols] */
  LQT_DELTA_GROUPED = 4,  /* values[rows][ceil(cols / group)] added to every element of a group */
  LQT_DELTA_MAX_ = 0x7fffffff
} lqt_delta_kind;

typedef struct lqt_delta_view {
  lqt_delta_kind kind;
  lqt_dtype dtype;           /* of the values: F16 or F32 */
  const void *values;        /* dense, CSR or grouped values; A of the low-rank form */
  const void *values_b;      /* B of the low-rank form, else NULL */
  const uint32_t *row_ptr;   /* CSR only; row_ptr[rows] = count */
  const uint32_t *columns;   /* CSR with 32-bit columns, else NULL */
  const uint16_t *columns16; /* CSR with 16-bit columns, else NULL */
  uint64_t count;            /* stored values */
  uint32_t rank;             /* low-rank */
  uint32_t group;            /* grouped: columns a value covers */
} lqt_delta_view;

/* Mask bits, 1 = keep; bit c of row r is bit (c % 8) of bits[r * row_stride + c / 8]. */
typedef struct lqt_mask_view {
  const uint8_t *bits; /* NULL: no mask */
  uint64_t row_stride; /* bytes, a multiple of 8 */
} lqt_mask_view;

typedef struct lqt_weight_desc {
  uint32_t size;   /* sizeof(lqt_weight_desc), set by the caller */
  lqt_dtype dtype; /* LQT_DTYPE_CODEBOOK, or F32, F16, BF16 for a plain weight */
  uint64_t rows;   /* N: outputs */
  uint64_t cols;   /* K: inputs */
  float scale;     /* of the whole tensor */
  /* Plain weights. */
  const void *data;    /* [rows][cols] of `dtype` */
  uint64_t row_stride; /* bytes */
  /* Codebook weights. Bank of (r, c): (r / bank_rows) * ceil(cols / bank_cols) + c / bank_cols.
   * Scope tensor: bank_rows = rows, bank_cols = cols; scope row: bank_rows = 1, bank_cols = cols;
   * scope group: any other block. bank_cols is `cols` or a multiple of 16. */
  lqt_index_view indices;
  lqt_codebook_view codebook;
  uint64_t bank_rows;
  uint64_t bank_cols;
  /* Residual codebook (hierarchical); residual.vectors NULL when there is none. Always tensor
   * scope. */
  lqt_index_view residual_indices;
  lqt_codebook_view residual;
  float residual_scale;
  /* Group scales and zero points, [rows][ceil(cols / group_size)]; NULL when there are none. */
  uint32_t group_size;          /* 16..256, a power of two; 0: no groups */
  const uint16_t *group_scales; /* fp16 bit patterns */
  const uint16_t *zero_points;  /* fp16 bit patterns, in codebook units */
  uint64_t group_row_stride; /* elements between rows of both, at least ceil(cols / group_size) */
  lqt_delta_view delta;
  lqt_mask_view mask;
} lqt_weight_desc;

/* The part of a weight that a patch replaces; same-size edits only. Offsets and counts are in the
 * elements of the part, in the order of the canonical weight. */
typedef enum lqt_weight_part {
  LQT_PART_CODEBOOK = 1, /* element = one value of the vectors array (bank_stride counted) */
  LQT_PART_RESIDUAL = 2,
  LQT_PART_GROUP_SCALES = 3,
  LQT_PART_ZERO_POINTS = 4,
  LQT_PART_DELTA_VALUES = 5,
  LQT_PART_SCALE = 6, /* one f32 */
  LQT_PART_RESIDUAL_SCALE = 7,
  LQT_PART_INDICES = 8, /* element = one byte of the packed indices */
  LQT_PART_RESIDUAL_INDICES = 9,
  LQT_PART_MASK = 10,  /* element = one byte */
  LQT_PART_PLAIN = 11, /* element = one value of data */
  LQT_PART_MAX_ = 0x7fffffff
} lqt_weight_part;

typedef struct lqt_weight_patch {
  lqt_weight_part part;
  uint32_t reserved;
  uint64_t first;   /* first element replaced */
  uint64_t count;   /* elements replaced */
  const void *data; /* `count` elements in the part's own type */
} lqt_weight_patch;

/* Reconstructs columns [col, col + n) of one row into out[n] as float32, exactly by the equation
 * above with float32 arithmetic. Slow and clear; the definition the kernels are held to.
 * Threads: any. Errors: LQT_OUT_OF_RANGE outside the matrix. */
LQT_API LQT_NODISCARD lqt_status lqt_weight_desc_row(const lqt_weight_desc *desc, uint64_t row,
                                                     uint64_t col, uint64_t n, float *out);

/* Checks pointers, sizes and enum values of a description, and every index when `deep`.
 * Threads: any. Errors: LQT_INVALID_ARGUMENT, LQT_OUT_OF_RANGE (an index without an entry). */
LQT_API LQT_NODISCARD lqt_status lqt_weight_desc_check(const lqt_weight_desc *desc, bool deep,
                                                       lqt_diag *diag);

#ifdef __cplusplus
}
#endif
#endif /* LQT_WEIGHT_H_ */
