/* What reader and writer both check: shapes, sizes, references. Internal to runtime/format. */
#ifndef LQT_RUNTIME_FORMAT_CHECK_H_
#define LQT_RUNTIME_FORMAT_CHECK_H_

#include "format/format.h"

typedef struct lqt__geometry {
  uint64_t rows, cols;
  uint64_t row_stride;          /* bytes of one row of the payload */
  uint64_t residual_row_stride; /* 0 without a residual */
} lqt__geometry;

/* One id of a table, for look-ups by id. */
typedef struct lqt__id_entry {
  uint16_t id;
  uint16_t index;
} lqt__id_entry;

typedef struct lqt__check {
  const lqt__file *file;
  const char *where;
  bool big_endian;         /* blobs are as in the file still */
  uint32_t *banks;         /* [codebook_count]: banks by the tensors that use each; 0 = none yet */
  lqt__id_entry *by_id[3]; /* sorted: of codebooks, deltas, masks */
  size_t id_count[3];
  lqt_diag *diag;
} lqt__check;

/* Rows, columns and strides of a tensor. Errors: LQT_BAD_TENSOR. */
LQT_NODISCARD lqt_status lqt__tensor_geometry(const lqt__check *check, const lqt__tensor *tensor,
                                              uint32_t vector_dim, uint32_t residual_dim,
                                              lqt__geometry *out);
/* Checks every tensor, codebook, delta and mask of the file against one another. The reader's
 * fields need not be set. `out_geometry`[tensor_count] and `out_banks`[codebook_count] may be NULL.
 * Errors: LQT_BAD_TENSOR, LQT_BAD_CODEBOOK, LQT_BAD_DELTA, LQT_BAD_MASK, LQT_BAD_REFERENCE,
 * LQT_BAD_METADATA, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__file_check(const lqt__file *file, const char *where, bool big_endian,
                                         lqt__geometry *out_geometry, uint32_t *out_banks,
                                         lqt_diag *diag);

/* Fills order[tensor_count] with the tensors' indices by name. Errors: LQT_BAD_METADATA (a name is
 * there twice). */
LQT_NODISCARD lqt_status lqt__file_sort_names(const lqt__file *file, const char *where,
                                              uint32_t *order, lqt_diag *diag);

/* Section heads. `bytes` is the section's size. Errors: LQT_BAD_CODEBOOK, LQT_BAD_DELTA,
 * LQT_BAD_MASK. */
LQT_NODISCARD lqt_status lqt__codebook_decode(const uint8_t *head, uint64_t bytes, bool big,
                                              const char *where, uint64_t offset,
                                              lqt__codebook *out, lqt_diag *diag);
LQT_NODISCARD lqt_status lqt__delta_decode(const uint8_t *head, uint64_t bytes, bool big,
                                           const char *where, uint64_t offset, lqt__delta *out,
                                           lqt_diag *diag);
LQT_NODISCARD lqt_status lqt__mask_decode(const uint8_t *head, uint64_t bytes, bool big,
                                          const char *where, uint64_t offset, lqt__mask *out,
                                          lqt_diag *diag);
/* True when text is UTF-8 without a zero byte. */
bool lqt__text_valid(const uint8_t *text, uint64_t bytes);

/* Converts the blobs and the known chunks of a big-endian file to little-endian copies in its
 * arena. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__file_swap(lqt__file *file, const char *where, lqt_diag *diag);

/* Hashes one section and compares it with its digest; LQT_OK when there is no digest chunk. */
LQT_NODISCARD lqt_status lqt__section_verify(const lqt__file *file, size_t index, const char *where,
                                             lqt_diag *diag);

#endif /* LQT_RUNTIME_FORMAT_CHECK_H_ */
