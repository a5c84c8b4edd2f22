/* The parts of the quantizer: what is chosen for a tensor, its codebooks, its encoded rows. */
#ifndef LQT_RUNTIME_QUANT_QUANT_H_
#define LQT_RUNTIME_QUANT_QUANT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "import/source.h"
#include "lqt/quantize.h"
#include "quant/strip.h"

/* How one matrix is quantized. */
typedef struct lqt__qspec {
  uint32_t bits;          /* of an index; 0: the matrix is kept as it is */
  uint32_t dim;           /* weights an index stands for */
  uint32_t group_size;    /* 0: no group scales */
  uint32_t residual_bits; /* 0: no residual codebook */
  lqt_codebook_init init;
  lqt_codebook_scope scope;
  uint32_t bank_cols; /* scope group: columns of a bank */
  double outliers;    /* share of the weights in the sparse delta */
} lqt__qspec;

/* Codebooks of a matrix: values that fp16 holds exactly. */
typedef struct lqt__qbook {
  uint32_t entries, dim;
  uint64_t banks, bank_rows, bank_cols;
  float *values;             /* [banks][entries][dim] */
  uint32_t residual_entries; /* 0: none */
  float residual_scale;
  float *residual; /* [residual_entries][dim] */
} lqt__qbook;
void lqt__qbook_free(lqt__qbook *book);

/* A matrix as the encoder sees it: where its rows come from and what its columns weigh. */
typedef struct lqt__qmatrix {
  const lqt__source_view *view;
  uint64_t rows, cols;
  float scale;             /* of the whole tensor: a power of two */
  const float *importance; /* [cols]; mean 1 */
  const float *factor;     /* upper Cholesky factor of the inverse input covariance, [cols][cols];
                              NULL: no error feedback */
} lqt__qmatrix;

/* The codebooks of LQT__LANES rows at one bank of columns, as the inner loops want them. */
typedef struct lqt__qlanes {
  lqt__lane_book primary, residual; /* residual.entries 0: none; its values are scaled */
} lqt__qlanes;
/* Loads the banks of rows [row, row + LANES) at column `col`. */
void lqt__qlanes_load(const lqt__qbook *book, uint64_t rows, uint64_t row, uint64_t col,
                      lqt__qlanes *out);
/* The best fp16 scale a lane for w[columns][lane] (found by trying scales around the largest
 * weight, both signs, then by least squares), 0 for a lane of zeros. */
void lqt__qlanes_pick_scales(const lqt__qlanes *book, uint32_t bits, const float *w,
                             const float *importance, size_t columns, float *out_scales);
/* Codes of one vector: w[dim][lane]; `scales` as picked. */
void lqt__qlanes_nearest(const lqt__qlanes *book, const float *w, const float *scales,
                         const float *transform, uint8_t *out_codes, uint8_t *out_residuals,
                         float *out_values);

/* One encoded strip. */
typedef struct lqt__qstrip {
  float *original; /* [cols][LANES]: the weights / matrix scale; the columns are padded with zeros
                      to a multiple of the group or of the dim */
  float *work;     /* the same, changed by the feedback */
  float *decoded;  /* what the codes say */
  float *scales;   /* [groups][LANES], values of fp16; 1 without groups */
  uint8_t *codes;  /* [vectors][LANES] */
  uint8_t *residuals; /* [vectors][LANES] */
  float *errors;      /* a block's errors for the feedback */
  bool *kept;         /* [cols][LANES]: outliers */
  float *deltas;      /* [cols][LANES]: what the delta holds, where kept; NULL without outliers */
  lqt__qlanes *book;
  void *memory;
} lqt__qstrip;

/* Columns and groups of a strip of this matrix. */
uint64_t lqt__qspec_groups(const lqt__qspec *spec, uint64_t cols);
uint64_t lqt__qspec_vectors(const lqt__qspec *spec, uint64_t cols);

LQT_NODISCARD lqt_status lqt__qstrip_create(const lqt__qspec *spec, uint64_t cols, lqt__qstrip *out,
                                            lqt_diag *diag);
void lqt__qstrip_free(lqt__qstrip *strip);
/* Reads rows [row, row + LANES) of the matrix into `original`; rows past the end are zero. */
LQT_NODISCARD lqt_status lqt__qstrip_load(const lqt__qspec *spec, const lqt__qmatrix *matrix,
                                          uint64_t row, lqt__qstrip *strip, lqt_diag *diag);
/* Encodes the strip that was loaded at `row`. */
void lqt__qstrip_encode(const lqt__qspec *spec, const lqt__qmatrix *matrix, const lqt__qbook *book,
                        uint64_t row, lqt__qstrip *strip);

/* Trains the codebooks of a matrix. */
LQT_NODISCARD lqt_status lqt__qbook_train(const lqt__qspec *spec, const lqt__qmatrix *matrix,
                                          uint64_t seed, lqt__pool *pool, lqt__qbook *out,
                                          lqt_diag *diag);

#endif /* LQT_RUNTIME_QUANT_QUANT_H_ */
