/* Random canonical weights for the tests of the fast product, and their meaning in double. */
#ifndef LQT_TESTS_FAST_RANDOM_WEIGHT_H_
#define LQT_TESTS_FAST_RANDOM_WEIGHT_H_

#include "backends/cpu/fast_matmul.h"
#include "base/random.h"

typedef struct weight_kind {
  lqt_dtype dtype; /* CODEBOOK or a plain one */
  unsigned bits, dim;
  unsigned entries; /* 0: all of 2^bits */
  unsigned group;   /* 0: none */
  bool f32_codebook;
  unsigned residual_bits, residual_dim; /* 0: none */
  lqt_delta_kind delta;
  lqt_dtype delta_dtype;
  bool wide_columns; /* of the sparse delta */
  bool mask;
  bool zero_points;
  bool row_scope;
  float mean; /* of the codebook */
} weight_kind;

typedef struct random_weight {
  lqt_weight_desc desc;
  void *blocks[16];
  unsigned count;
} random_weight;

void random_weight_make(random_weight *out, const weight_kind *kind, uint64_t rows, uint64_t cols,
                        lqt__random *random);
void random_weight_free(random_weight *weight);
/* The element by the equation of lqt/weight.h, in double. */
double random_weight_at(const lqt_weight_desc *desc, uint64_t row, uint64_t col);
/* y[T][N] = x W^T in double. */
double *random_weight_product(const lqt_weight_desc *desc, const float *x, uint64_t x_stride,
                              uint64_t tokens);
float *random_floats(uint64_t count, bool normal, lqt__random *random);
/* ||a - b|| / ||b|| of [T][N], a with stride a_stride. */
double relative_error(const float *a, uint64_t a_stride, const double *b, uint64_t tokens,
                      uint64_t rows);

#endif /* LQT_TESTS_FAST_RANDOM_WEIGHT_H_ */
