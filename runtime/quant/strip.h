/* The inner loops of the quantizer. A strip is LQT__LANES rows of a matrix, transposed, so that one
 * vector operation serves as many rows: value (column c, row r) stands at w[c * LQT__LANES + r].
 * The same sums in the same order on every machine: no fused multiply-add, no reassociation. */
#ifndef LQT_RUNTIME_QUANT_STRIP_H_
#define LQT_RUNTIME_QUANT_STRIP_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LQT__LANES = 32, LQT__MAX_ENTRIES = 256, LQT__MAX_DIM = 4 };

/* The codebook that each lane uses, one table a lane. Scalar entries ascend, and `bounds` holds the
 * midpoints between neighbours. */
typedef struct lqt__lane_book {
  uint32_t entries, dim;
  bool shared;                                                /* every lane has the same table */
  float values[LQT__MAX_ENTRIES * LQT__MAX_DIM * LQT__LANES]; /* [entry][component][lane] */
  float bounds[LQT__MAX_ENTRIES * LQT__LANES];                /* scalar books only */
  float high[LQT__LANES], low[LQT__LANES];                    /* extreme components */
} lqt__lane_book;

/* Fills lane `lane` (or all of them) from values[entries][dim]. */
void lqt__lane_book_set(lqt__lane_book *book, uint32_t entries, uint32_t dim, const float *values,
                        int lane);

typedef struct lqt__strip_ops {
  /* Weighted products of `count` vectors (book->dim columns each) with their nearest codes at
   * 1/scale = inverse: out_xc = sum a x c, out_cc = sum a c c. */
  void (*products)(const lqt__lane_book *book, const float *w, const float *importance,
                   size_t columns, const float *inverse, float *out_xc, float *out_cc);
  /* Codes nearest to w[dim][lane] * inverse, by the metric |(x - c) T|^2 with T upper triangular
   * [dim][dim] (NULL: the identity); out_values[dim][lane] are their entries. */
  void (*nearest)(const lqt__lane_book *book, const float *w, const float *inverse,
                  const float *transform, uint8_t *out_codes, float *out_values);
  /* rest[columns][lane] -= error[lane] * factor[column] */
  void (*subtract)(float *rest, const float *error, const float *factor, size_t columns);
  /* rest[c][lane] -= sum over k of errors[k][lane] * factor[k * stride + c] */
  void (*subtract_block)(float *rest, const float *errors, size_t count, const float *factor,
                         size_t stride, size_t columns);
  /* out[r * out_stride + c] = sum over k of a[r * a_stride + k] * b[c * b_stride + k]; r < m, c < n
   */
  void (*dots)(const float *a, size_t a_stride, size_t m, const float *b, size_t b_stride, size_t n,
               size_t k, float *out, size_t out_stride);
  /* out[i][j] += sum over t of x[t][i] * x[t][j] for first <= i < last and j >= i (what lies below
   * the diagonal is of no use); x[rows][cols], out[cols][cols] */
  void (*gram)(const float *x, size_t rows, size_t cols, size_t first, size_t last, float *out);
} lqt__strip_ops;

extern const lqt__strip_ops lqt__strip_generic, lqt__strip_avx2, lqt__strip_avx512;
/* The fastest variant of this machine. */
const lqt__strip_ops *lqt__strip_ops_get(void);

#endif /* LQT_RUNTIME_QUANT_STRIP_H_ */
