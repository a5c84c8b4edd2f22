/* Fused reconstruct-and-multiply for x86-64 vector units: weights repacked at upload into the order
 * the kernels read. What no kernel here takes, the backend runs by the generic path (reconstruct
 * rows in float32, then multiply). */
#ifndef LQT_BACKENDS_CPU_FAST_MATMUL_H_
#define LQT_BACKENDS_CPU_FAST_MATMUL_H_

#include "base/pool.h"
#include "lqt/weight.h"

/* Each level has what the one before has, as processors came: a set that is not listed here counts
 * as the level below it. */
typedef enum lqt__cpu_isa {
  LQT__CPU_SCALAR = 0,
  LQT__CPU_AVX2,        /* AVX2, FMA, F16C, BMI2 */
  LQT__CPU_AVX512F,     /* F, BW, VL, DQ */
  LQT__CPU_AVX512_VNNI, /* and int8 products */
  LQT__CPU_AVX512_VBMI, /* and byte permutes */
  LQT__CPU_AVX512,      /* and bfloat16 products: all that kernels here use */
} lqt__cpu_isa;

/* The best instruction set that this processor and operating system have. */
lqt__cpu_isa lqt__cpu_best_isa(void);

typedef struct lqt__cpu_fast lqt__cpu_fast;

/* Repacks. *out is NULL with LQT_OK when no kernel takes this kind of weight on this ISA. With zero
 * points the product is that of the codebook less lqt__cpu_fast_centre, so that nothing large
 * cancels; the caller subtracts what the zero points are beyond it. Of deltas only the sparse one
 * is taken; the caller may give the others as none and add their products. `exact`: activations and
 * codebooks are not rounded below float16. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__cpu_fast_create(const lqt_weight_desc *desc, lqt__cpu_isa isa,
                                              bool exact, lqt__pool *pool, lqt__cpu_fast **out,
                                              lqt_diag *diag);
void lqt__cpu_fast_destroy(lqt__cpu_fast *fast); /* NULL accepted */
float lqt__cpu_fast_centre(const lqt__cpu_fast *fast);
/* One same-size patch in canonical terms (ranges already checked). */
LQT_NODISCARD lqt_status lqt__cpu_fast_patch(lqt__cpu_fast *fast, const lqt_weight_patch *patch,
                                             lqt_diag *diag);

/* Indices [first, first + count) of a row, a byte each, of the codebook or of the residual one: the
 * backend keeps no second copy of the indices of a weight that has a repacked form. */
void lqt__cpu_fast_indices(const lqt__cpu_fast *fast, bool residual, uint64_t row, uint64_t first,
                           uint64_t count, uint8_t *out);

/* One product y[T][N] = x[T][K] W^T (+ bias[N]) (+ y when accumulate) of several weights with the
 * same x, so that x is converted once. Strides in elements. */
typedef struct lqt__cpu_product {
  const lqt__cpu_fast *weight;
  float *y;
  uint64_t y_stride;
  const float *bias; /* NULL: none */
  bool accumulate;
} lqt__cpu_product;
LQT_NODISCARD lqt_status lqt__cpu_fast_matmul(const lqt__cpu_product *products, size_t count,
                                              const float *x, uint64_t x_stride, uint64_t tokens,
                                              lqt__pool *pool, lqt_diag *diag);
/* Name of the kernel that `tokens` rows would run, static storage. */
const char *lqt__cpu_fast_variant(const lqt__cpu_fast *fast, uint64_t tokens);

#endif /* LQT_BACKENDS_CPU_FAST_MATMUL_H_ */
