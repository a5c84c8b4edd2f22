/* Random operands for `lqt bench ops`. */
#ifndef LQT_TOOLS_BENCH_WEIGHT_H_
#define LQT_TOOLS_BENCH_WEIGHT_H_

#include "common.h"

/* A weight of the bench: codebook indices of `bits` bits, or (bits 16) plain float16. */
typedef struct bench_weight {
  lqt_weight_desc desc;
  uint8_t *indices; /* or the plain values */
  uint16_t *book;   /* float16 */
  uint16_t *scales; /* float16, NULL without groups */
} bench_weight;

/* `vector_dim` and `group_size` (0: none) are for codebook weights only. */
lqt_status bench_weight_create(uint64_t rows, uint64_t cols, uint32_t bits, uint32_t vector_dim,
                               uint32_t group_size, bench_weight *out, lqt_diag *diag);
void bench_weight_destroy(bench_weight *weight);

/* The same numbers on every machine. */
uint32_t bench_random(uint32_t *state);
/* Multiples of 1/256 in (-2, 2), which float16 holds exactly. */
float bench_random_value(uint32_t *state);
/* Standard normal. */
float bench_random_normal(uint32_t *state);
/* Rounds toward zero; for finite values of float16's normal range and zero. */
uint16_t bench_half(float value);

/* Relative l2 error of y[tokens][rows] = x[tokens][cols] * weight^T over `sample` of the rows,
 * against double precision. Negative: no memory. */
double bench_product_error(const lqt_weight_desc *desc, const float *x, const float *y,
                           uint64_t tokens, uint64_t sample);

/* Bytes a second that `threads` threads read from memory: the best of a few passes over
 * `bytes` bytes each. 0: no memory. */
double bench_read_bandwidth(unsigned threads, size_t bytes);

#endif /* LQT_TOOLS_BENCH_WEIGHT_H_ */
