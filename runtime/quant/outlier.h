/* Which weights a sparse delta keeps: those that stretch their group's range most. */
#ifndef LQT_RUNTIME_QUANT_OUTLIER_H_
#define LQT_RUNTIME_QUANT_OUTLIER_H_

#include "quant/quant.h"

/* The choice for one matrix: every weight whose key is over `threshold`, and in each row the first
 * `ties[row]` of those whose key equals it. Keys are ordered by their top 16 bits. */
typedef struct lqt__outliers {
  uint32_t threshold;
  uint32_t *row_ptr; /* [rows + 1] */
  uint32_t *ties;    /* [rows] */
} lqt__outliers;

/* Chooses exactly `count` weights of the matrix. Errors: LQT_OUT_OF_MEMORY, LQT_NOT_FINITE. */
LQT_NODISCARD lqt_status lqt__outliers_choose(const lqt__qspec *spec, const lqt__qmatrix *matrix,
                                              uint64_t count, lqt__pool *pool, lqt__outliers *out,
                                              lqt_diag *diag);
/* Marks the choice in the strip that was loaded at `row`. */
void lqt__outliers_mark(const lqt__qspec *spec, const lqt__qmatrix *matrix,
                        const lqt__outliers *outliers, uint64_t row, lqt__qstrip *strip);
void lqt__outliers_free(lqt__outliers *outliers);

#endif /* LQT_RUNTIME_QUANT_OUTLIER_H_ */
