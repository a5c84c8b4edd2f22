/* Inside the conformance suite: operands with guards, random weights, and the run of one case. */
#ifndef LQT_RUNTIME_KERNEL_SELFTEST_H_
#define LQT_RUNTIME_KERNEL_SELFTEST_H_

#include "base/alloc.h"
#include "base/random.h"
#include "lqt/selftest.h"

/* The kinds of weights that the suite makes. Zero fields: absent. */
typedef struct lqt__weight_kind {
  const char *name;
  lqt_dtype dtype;
  uint32_t bits, dim, group;
  uint32_t entries;              /* fewer than 2^bits when set */
  uint32_t bank_rows, bank_cols; /* scope: 0 = all rows or columns */
  uint32_t residual_bits, residual_dim;
  lqt_delta_kind delta;
  bool wide_book, zero_points, mask, wide_columns, wide_delta;
} lqt__weight_kind;

extern const lqt__weight_kind lqt__weight_kinds[];
extern const size_t lqt__weight_kind_count;

/* A random weight of a kind; its arrays live in the arena. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__selftest_weight(lqt__arena *arena, lqt__random *random,
                                              const lqt__weight_kind *kind, uint64_t rows,
                                              uint64_t cols, lqt_weight_desc *out);
/* A random patch of a part that the weight has; also writes it into the description's arrays. */
LQT_NODISCARD lqt_status lqt__selftest_patch(lqt__arena *arena, lqt__random *random,
                                             lqt_weight_desc *desc, lqt_weight_part part,
                                             lqt_weight_patch *out);
/* The same of a given range (of indices: the whole rows it meets); *out_old: what stood there. */
LQT_NODISCARD lqt_status lqt__selftest_patch_range(lqt__arena *arena, lqt__random *random,
                                                   lqt_weight_desc *desc, lqt_weight_part part,
                                                   uint64_t first, uint64_t count,
                                                   lqt_weight_patch *out, const void **out_old);

typedef struct lqt__operand {
  bool used, output;
  lqt_dtype dtype; /* F32 stands for the device's activation type unless `fixed` */
  bool fixed;      /* the type is the contract's, not the activation's */
  uint64_t rows, cols, stride;
  float *values; /* rows * stride, what goes in (outputs: NULL = poison) */
  int32_t *ints;
  lqt_buffer *device, *oracle;
  uint8_t *image; /* bytes written to the device's buffer, guards included */
  uint64_t bytes; /* of the image */
  uint64_t size;  /* bytes of an element on the device */
} lqt__operand;

typedef struct lqt__selftest {
  const lqt_selftest_options *options;
  lqt_device *device, *oracle;
  lqt_device_info info;
  bool exact;
  uint64_t seed;
  lqt__random shapes; /* chooses the cases: the same ones whatever the filter */
  lqt__random random; /* of the case in hand: from the seed and the case's name */
  lqt_selftest_case_fn report;
  void *user;
  lqt_selftest_summary *summary;
  lqt_diag *diag;

  /* The case in hand. */
  lqt__arena arena;
  char name[192];
  lqt_op op; /* scalars; views are filled in by the run */
  lqt__operand in[LQT_OP_MAX_IN], out[LQT_OP_MAX_OUT];
  lqt_weight_desc desc[LQT_OP_MAX_OUT];
  bool has_weight[LQT_OP_MAX_OUT];
  int alias; /* out0 is this input; -1: none */
} lqt__selftest;

/* Starts the case named t->name: clears operands, seeds t->random. */
void lqt__case_begin(lqt__selftest *t, lqt_op_kind kind);
/* Inputs of normal values, of given integers, and outputs. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__case_values(lqt__selftest *t, lqt__operand *operand, uint64_t rows,
                                          uint64_t cols, float spread);
LQT_NODISCARD lqt_status lqt__case_ints(lqt__selftest *t, lqt__operand *operand, uint64_t rows,
                                        uint64_t cols);
void lqt__case_output(lqt__selftest *t, lqt__operand *operand, uint64_t rows, uint64_t cols);
/* Whether the filter wants the case named t->name. */
bool lqt__case_wanted(const lqt__selftest *t);
/* Runs the case on both devices, compares, reports. Only LQT_OUT_OF_MEMORY of the suite itself is
 * returned; everything else is a verdict. Ends the case. */
LQT_NODISCARD lqt_status lqt__case_run(lqt__selftest *t);
/* Reports a verdict on t->name. */
void lqt__case_report(lqt__selftest *t, const char *variant, double error, double tolerance,
                      const char *detail, bool skipped);
void lqt__case_end(lqt__selftest *t);
/* Seeds t->random from the seed and t->name, so that a case repeats alone. */
void lqt__case_seed(lqt__selftest *t);
/* Below `bound`, of the case. */
static inline uint32_t lqt__pick(lqt__selftest *t, uint32_t bound) {
  return lqt__random_below(&t->random, bound);
}
/* Below `bound`, for the choice of cases. */
static inline uint32_t lqt__choose(lqt__selftest *t, uint32_t bound) {
  return lqt__random_below(&t->shapes, bound);
}
/* The square that products of x[tokens][cols] with the weight are expected to have: the sum of x^2
 * w^2. Outputs may be small by chance, because their terms cancel; the error that rounded terms
 * leave does not get smaller with them, so it is measured against this where it is larger. */
LQT_NODISCARD lqt_status lqt__product_square(lqt__arena *arena, const lqt_weight_desc *desc,
                                             const float *x, uint64_t stride, uint64_t tokens,
                                             double *out);

/* Every case of the ops, of patches, and of programs. */
LQT_NODISCARD lqt_status lqt__selftest_ops(lqt__selftest *t);
LQT_NODISCARD lqt_status lqt__selftest_patches(lqt__selftest *t);
LQT_NODISCARD lqt_status lqt__selftest_programs(lqt__selftest *t);
LQT_NODISCARD lqt_status lqt__selftest_staged(lqt__selftest *t);

#endif /* LQT_RUNTIME_KERNEL_SELFTEST_H_ */
