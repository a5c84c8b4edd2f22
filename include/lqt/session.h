/* Running a model: an engine is a model's weights and plan on one device; a session is a set of
 * sequences with their KV cache that step together. */
#ifndef LQT_SESSION_H_
#define LQT_SESSION_H_

#include "lqt/device.h"
#include "lqt/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Uploads the model's weights and plans its module graph. Keeps references to both.
 * Owns: the caller; destroy sessions first. Threads: any (the engine itself may be shared by the
 * sessions of many threads; their steps are serialised, together with those of the device's other
 * engines).
 * Errors: LQT_BAD_GRAPH, LQT_UNSUPPORTED (a module type we do not run), LQT_BAD_TENSOR (a shape
 * that does not fit its module), LQT_*OUT_OF_MEMORY, LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_engine_create(lqt_model *model, lqt_device *device,
                                                   lqt_engine **out_engine, lqt_diag *diag);
LQT_API void lqt_engine_destroy(lqt_engine *engine); /* NULL accepted */
LQT_API lqt_model *lqt_engine_model(const lqt_engine *engine);
LQT_API lqt_device *lqt_engine_device(const lqt_engine *engine);
LQT_API uint32_t lqt_engine_vocab_size(const lqt_engine *engine);
LQT_API uint32_t lqt_engine_context(const lqt_engine *engine); /* 0: unlimited */
/* Bytes of device memory the weights take, and bytes that one decode step reads. */
LQT_API uint64_t lqt_engine_weight_bytes(const lqt_engine *engine);
LQT_API uint64_t lqt_engine_step_bytes(const lqt_engine *engine);
/* The revision that the next step runs at: 0 as loaded, then one more an edit. Threads: any. */
LQT_API uint64_t lqt_engine_revision(const lqt_engine *engine);
/* How much of what edits replaced stays on the device, so that taking the last ones back copies
 * nothing: at most `revisions` edits and `bytes` of device memory (16 and 64 MiB at first). Older
 * ones are taken back from the editor's own copy. Threads: any. */
LQT_API void lqt_engine_set_undo(lqt_engine *engine, uint32_t revisions, uint64_t bytes);

/* What becomes of cached keys and values when an edit changes weights that they came from. (When it
 * adds an attention module, whose cache is empty then, KEEP recomputes that one and what follows.)
 */
typedef enum lqt_kv_policy {
  LQT_KV_KEEP = 0,      /* they stay; only new tokens see the edit */
  LQT_KV_FLUSH = 1,     /* the sequences become empty at the next step; see `flushed` */
  LQT_KV_RECOMPUTE = 2, /* the next step first computes them again from the first layer that changed
                           on; an edit behind the last attention costs nothing */
  LQT_KV_MAX_ = 0x7fffffff
} lqt_kv_policy;

typedef struct lqt_session_options {
  uint32_t size;          /* sizeof(lqt_session_options) */
  uint32_t max_sequences; /* 0 = 1 */
  uint32_t max_tokens;    /* KV positions over all sequences; 0 = the model's context x sequences */
  uint32_t max_batch;     /* tokens a step takes at once; longer prompts are split; 0 = 512 */
  lqt_dtype kv_dtype;     /* LQT_DTYPE_F16 or F32; only read when kv_dtype_set */
  bool kv_dtype_set;      /* false: F16 */
  lqt_kv_policy kv_policy;
} lqt_session_options;

/* Owns: the caller. Threads: any. Errors: LQT_INVALID_ARGUMENT, LQT_*OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_session_create(lqt_engine *engine,
                                                    const lqt_session_options *options,
                                                    lqt_session **out_session, lqt_diag *diag);
LQT_API void lqt_session_destroy(lqt_session *session); /* NULL accepted */
/* Bytes of device memory that the session holds, and bytes of keys and values of one position, over
 * all layers. Threads: owner. */
LQT_API uint64_t lqt_session_device_bytes(const lqt_session *session);
LQT_API uint64_t lqt_session_position_bytes(const lqt_session *session);

/* Sequences join and leave between steps. Threads: owner.
 * Errors: LQT_LIMIT (max_sequences are in use), LQT_NOT_FOUND. */
LQT_API LQT_NODISCARD lqt_status lqt_session_sequence_add(lqt_session *session,
                                                          uint32_t *out_sequence, lqt_diag *diag);
LQT_API LQT_NODISCARD lqt_status lqt_session_sequence_remove(lqt_session *session,
                                                             uint32_t sequence, lqt_diag *diag);
/* Forgets all positions from `position` on (0 = everything). */
LQT_API LQT_NODISCARD lqt_status lqt_session_sequence_truncate(lqt_session *session,
                                                               uint32_t sequence, uint32_t position,
                                                               lqt_diag *diag);
LQT_API uint32_t lqt_session_sequence_length(const lqt_session *session, uint32_t sequence);

/* Tells which sampler will draw for the sequence with LQT_LOGITS_SAMPLE; only its options are
 * taken. Where the device can, it then picks out the candidates that such a sampler may draw, and
 * the logits do not leave it; the draws are the same. At first, and with NULL, all logits come out.
 * Errors: LQT_NOT_FOUND. */
LQT_API LQT_NODISCARD lqt_status lqt_session_sequence_sampler(lqt_session *session,
                                                              uint32_t sequence,
                                                              const lqt_sampler *sampler,
                                                              lqt_diag *diag);

typedef enum lqt_logits_want {
  LQT_LOGITS_NONE = 0,
  LQT_LOGITS_LAST = 1,   /* of the last token given */
  LQT_LOGITS_ALL = 2,    /* of every token given */
  LQT_LOGITS_SAMPLE = 3, /* of the last token given, for lqt_session_sample alone */
  LQT_LOGITS_MAX_ = 0x7fffffff
} lqt_logits_want;

typedef struct lqt_step_input {
  uint32_t sequence;
  lqt_logits_want want;
  const int32_t *tokens;
  size_t count;
} lqt_step_input;

typedef struct lqt_step_result {
  uint64_t revision; /* the one revision every token of the step ran at */
  double seconds;
  uint64_t recomputed; /* cached positions that an edit made the step compute again */
  uint64_t flushed;    /* cached positions that an edit made the step forget, before its tokens */
} lqt_step_result;

/* Appends tokens to sequences and runs them through the model: prefill (many tokens) and decode
 * (one) mix freely. The whole step runs at one revision. On failure no sequence has grown. Threads:
 * owner. Errors: LQT_CONTEXT_FULL, LQT_OUT_OF_RANGE (a token id), LQT_NOT_FOUND,
 * LQT_INVALID_ARGUMENT (a sequence named twice), LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_session_step(lqt_session *session,
                                                  const lqt_step_input *inputs, size_t count,
                                                  lqt_step_result *out_result, lqt_diag *diag);
/* Logits of the last step: input `input`, its row `row` (0 with LQT_LOGITS_LAST). float32
 * [vocab_size], valid until the next step. NULL when they were not wanted, or for sampling alone.
 * Threads: owner. */
LQT_API const float *lqt_session_logits(const lqt_session *session, size_t input, size_t row);

/* Draws a token from the logits of the last step's input `input` (the last row when there are
 * several), as lqt_sampler_sample would. With LQT_LOGITS_SAMPLE the sampler has to have the options
 * that lqt_session_sequence_sampler was told. Threads: owner.
 * Errors: LQT_INVALID_ARGUMENT, and those of lqt_sampler_sample. */
LQT_API LQT_NODISCARD lqt_status lqt_session_sample(const lqt_session *session, size_t input,
                                                    lqt_sampler *sampler, int32_t *out_token,
                                                    lqt_diag *diag);

/* Sampling. temperature 0 = greedy (the lowest id wins a tie); top_k 0, top_p 1, min_p 0,
 * repetition_penalty 1 switch those off. Order: penalty, top-k, temperature, top-p, min-p, draw. */
typedef struct lqt_sampler_options {
  uint32_t size; /* sizeof(lqt_sampler_options) */
  float temperature;
  uint32_t top_k;
  float top_p;
  float min_p;
  float repetition_penalty;
  uint32_t repetition_window; /* last tokens that are penalised; 0 = 64 */
  uint64_t seed;
} lqt_sampler_options;
/* Errors: LQT_INVALID_ARGUMENT. */
LQT_API LQT_NODISCARD lqt_status lqt_sampler_create(const lqt_sampler_options *options,
                                                    lqt_sampler **out_sampler, lqt_diag *diag);
LQT_API void lqt_sampler_destroy(lqt_sampler *sampler); /* NULL accepted */
/* Draws a token. Same seed, same logits, same draws on every machine. Threads: owner.
 * Errors: LQT_NOT_FINITE (a NaN or plus infinity, or no finite logit), LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_sampler_sample(lqt_sampler *sampler, const float *logits,
                                                    uint32_t vocab_size, int32_t *out_token,
                                                    lqt_diag *diag);
/* Tells the sampler of a token that it did not draw (a prompt), for the repetition penalty. */
LQT_API void lqt_sampler_accept(lqt_sampler *sampler, int32_t token);

#ifdef __cplusplus
}
#endif
#endif /* LQT_SESSION_H_ */
