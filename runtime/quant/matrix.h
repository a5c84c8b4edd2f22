/* One matrix from the source into the file. */
#ifndef LQT_RUNTIME_QUANT_MATRIX_H_
#define LQT_RUNTIME_QUANT_MATRIX_H_

#include "quant/calibrate.h"
#include "quant/outlier.h"
#include "quant/output.h"

typedef struct lqt__quantizer {
  const lqt_quantize_options *options;
  lqt__source source;
  lqt__pool *pool;
  lqt__qoutput output;
  uint64_t done, total; /* weights */
  lqt__moments moments; /* of the matrices' inputs; no sums without calibration */
  /* The factor of the inputs that consecutive matrices share. */
  float *factor;
  uint32_t factor_layer;
  lqt__tap factor_tap;
  /* For the report. */
  lqt_quantize_report report;
  uint64_t bytes;
  double square, square_error;
} lqt__quantizer;

/* Trains, encodes and writes tensor `index` of the output. */
LQT_NODISCARD lqt_status lqt__quantizer_encode(lqt__quantizer *q, size_t index, lqt_diag *diag);
/* Copies a tensor that is kept as it is, and checks that it is finite. */
LQT_NODISCARD lqt_status lqt__quantizer_copy(lqt__quantizer *q, size_t index, lqt_diag *diag);
/* Tells the caller how far it is; LQT_CANCELLED when that is enough. */
LQT_NODISCARD lqt_status lqt__quantizer_progress(lqt__quantizer *q, const char *stage,
                                                 uint64_t done, lqt_diag *diag);

#endif /* LQT_RUNTIME_QUANT_MATRIX_H_ */
