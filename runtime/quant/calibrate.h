/* What the inputs of each matrix look like, without any data: the model writes text of its own,
 * starting from its beginning-of-text token, and the second moments of the activations are added up
 * on the way. Source: Liu et al., "LLM-QAT: Data-Free Quantization Aware Training" (2023), for text
 * that a model generates as calibration; Frantar et al., "GPTQ" (2022), for what it is used for. */
#ifndef LQT_RUNTIME_QUANT_CALIBRATE_H_
#define LQT_RUNTIME_QUANT_CALIBRATE_H_

#include "quant/quant.h"

/* The distinct inputs of a layer's matrices. */
typedef enum lqt__tap {
  LQT__TAP_ATTENTION, /* q, k, v */
  LQT__TAP_OUTPUT,    /* o */
  LQT__TAP_MLP,       /* gate, up */
  LQT__TAP_DOWN,
  LQT__TAP_COUNT,
} lqt__tap;

typedef struct lqt__moments {
  uint32_t layers;
  uint32_t cols[LQT__TAP_COUNT];
  float **sums; /* [layers * LQT__TAP_COUNT]: sum of x x^T over the tokens; upper triangle */
  uint64_t tokens;
} lqt__moments;

/* Bytes that a calibration of this model takes at its peak. */
uint64_t lqt__calibrate_bytes(const lqt__llama *llama);

/* Called between steps; false cancels. */
typedef bool (*lqt__calibrate_step)(void *user, uint64_t done, uint64_t total);

/* Errors: LQT_OUT_OF_MEMORY, LQT_NOT_FINITE, LQT_CANCELLED. Deterministic for a seed. */
LQT_NODISCARD lqt_status lqt__calibrate(const lqt__source *source, uint64_t seed, lqt__pool *pool,
                                        lqt__calibrate_step step, void *user, lqt__moments *out,
                                        lqt_diag *diag);
void lqt__moments_free(lqt__moments *moments);

/* The upper factor U with U^T U = (moments / tokens + damping)^-1, [cols][cols]; freed with
 * lqt__free. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__moments_factor(const lqt__moments *moments, uint32_t layer,
                                             lqt__tap tap, lqt__pool *pool, float **out,
                                             lqt_diag *diag);

#endif /* LQT_RUNTIME_QUANT_CALIBRATE_H_ */
