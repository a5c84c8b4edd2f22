/* Products with rows of a scalar codebook that differs from row to row or from block to block:
 * looked up and multiplied in one go, without a reconstructed row between. */
#ifndef LQT_BACKENDS_CPU_LOOKUP_ROW_H_
#define LQT_BACKENDS_CPU_LOOKUP_ROW_H_

#include <stddef.h>
#include <stdint.h>

enum { LQT__LOOKUP_TOKENS = 4 };

typedef struct lqt__lookup_row {
  const uint8_t *indices; /* packed; readable 8 bytes past the end */
  uint32_t bits;          /* 2, 3 or 4 */
  /* Entries of the first bank, at least 16 floats. Banks change every bank_cols columns, a multiple
   * of 16 or at least n. */
  const float *table;
  size_t bank_cols, bank_stride;
  const uint16_t *scales; /* float16, one for `group` columns, a multiple of 16; NULL: 1 */
  size_t group;
  size_t n;
} lqt__lookup_row;

/* out[t] = the row times x[t], t < tokens <= LQT__LOOKUP_TOKENS. AVX-512 F. */
void lqt__lookup_row_dot_avx512(const lqt__lookup_row *row, const float *x, size_t x_stride,
                                unsigned tokens, float *out);

#endif /* LQT_BACKENDS_CPU_LOOKUP_ROW_H_ */
