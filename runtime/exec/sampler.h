/* What a session needs of a sampler: which logits it can draw at all. */
#ifndef LQT_RUNTIME_EXEC_SAMPLER_H_
#define LQT_RUNTIME_EXEC_SAMPLER_H_

#include "lqt/session.h"

/* The sampler never draws outside this many of the largest logits; 0: it may draw any. */
uint64_t lqt__sampler_reach(const lqt_sampler *sampler);
/* As lqt_sampler_sample, given only the `count` largest logits and their tokens, largest first, the
 * lower token first among equals; `count` is at least the reach. */
LQT_NODISCARD lqt_status lqt__sampler_sample_top(lqt_sampler *sampler, const float *values,
                                                 const int32_t *tokens, uint32_t count,
                                                 int32_t *out_token, lqt_diag *diag);

#endif /* LQT_RUNTIME_EXEC_SAMPLER_H_ */
