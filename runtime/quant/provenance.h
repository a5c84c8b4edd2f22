/* Where a quantized model comes from (chunk 0x0014): tool, options, digests of the source's files.
 * Neither paths nor times nor machines: the same input gives the same text. */
#ifndef LQT_RUNTIME_QUANT_PROVENANCE_H_
#define LQT_RUNTIME_QUANT_PROVENANCE_H_

#include "base/text.h"
#include "import/source.h"
#include "lqt/quantize.h"

/* Reads every source file once; `tokens`: of the text that the model wrote for its calibration.
 * Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__provenance_make(const lqt__source *source,
                                              const lqt_quantize_options *options, uint64_t tokens,
                                              lqt__text *out, lqt_diag *diag);

#endif /* LQT_RUNTIME_QUANT_PROVENANCE_H_ */
