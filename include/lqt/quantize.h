/* Making .lqt files: from a Hugging Face model folder, or synthetic ones for benchmarks. */
#ifndef LQT_QUANTIZE_H_
#define LQT_QUANTIZE_H_

#include "lqt/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lqt_codebook_init {
  LQT_INIT_KMEANS = 0, /* weighted k-means, refined together with the group scales */
  LQT_INIT_NF4 = 1,    /* normal-float quantiles (any width), scales by error minimisation */
  LQT_INIT_UNIFORM = 2,
  LQT_INIT_MAX_ = 0x7fffffff
} lqt_codebook_init;

typedef enum lqt_codebook_scope {
  LQT_SCOPE_TENSOR = 0,
  LQT_SCOPE_ROW = 1,
  LQT_SCOPE_GROUP = 2,
  LQT_SCOPE_MAX_ = 0x7fffffff
} lqt_codebook_scope;

/* Whether the quantizer lets the model write text of its own first (no data is needed), and uses
 * how its activations vary to round so that errors make up for each other. */
typedef enum lqt_calibration {
  LQT_CALIBRATE_AUTO = 0, /* when it fits in 1 GiB beside the largest tensor */
  LQT_CALIBRATE_OFF = 1,  /* weights alone */
  LQT_CALIBRATE_ON = 2,   /* whatever it takes: the whole model in float32, and more */
  LQT_CALIBRATE_MAX_ = 0x7fffffff
} lqt_calibration;

typedef struct lqt_quantize_options {
  uint32_t size;          /* sizeof(lqt_quantize_options); start from lqt_quantize_defaults */
  uint32_t bits;          /* 2, 3, 4, 8; 0 = none (keep the source's type) */
  uint32_t group_size;    /* 16..256, a power of two; 0 = no group scales */
  uint32_t vector_dim;    /* 1, 2, 4 */
  uint32_t residual_bits; /* 0 = no residual codebook; 2, 3, 4, 8 */
  uint32_t embed_bits;    /* embeddings and head: 0 = none; 8 by default */
  lqt_codebook_init init;
  lqt_codebook_scope scope;
  uint32_t scope_cols; /* scope group: columns a bank covers; 0 = 16 groups' worth */
  double outliers;     /* share of weights kept in a sparse fp16 delta, 0..0.05 */
  double target_bpw;   /* > 0: choose widths, group sizes and outliers a tensor, all bits counted,
                          to end at or under it; overrides bits, group_size, outliers */
  bool expandable;     /* reserve codebook capacity */
  bool empty_deltas;   /* give every quantized tensor an empty sparse delta to grow into */
  const char *exclude; /* comma-separated name patterns (*, ?) kept in higher precision, or NULL */
  uint32_t threads;    /* 0 = one a core */
  uint64_t seed;
  lqt_progress_fn progress;
  void *user;
  lqt_calibration calibration;
} lqt_quantize_options;

/* bits 4, group 64, k-means, tensor scope, embed_bits 8, seed 0, calibration when it is cheap. */
LQT_API void lqt_quantize_defaults(lqt_quantize_options *out_options);

typedef struct lqt_quantize_report {
  uint64_t weights;       /* quantized elements */
  double bits_per_weight; /* over them, everything counted */
  double relative_error;  /* sqrt(sum (w - w')^2 / sum w^2) */
  uint64_t file_bytes;
  double seconds;
} lqt_quantize_report;

/* Quantizes the model folder `source` (config.json, *.safetensors, tokenizer.json) into `path`.
 * Memory: the largest tensor + 1 GiB. Deterministic for a seed, whatever the number of threads.
 * `report` may be NULL. Threads: any.
 * Errors: LQT_NOT_FOUND, LQT_IO, LQT_BAD_SOURCE, LQT_BAD_JSON, LQT_UNSUPPORTED (architecture or
 * dtype), LQT_NOT_FINITE (a NaN or infinity in a weight), LQT_INVALID_ARGUMENT, LQT_CANCELLED,
 * LQT_OUT_OF_MEMORY; `path` is then as it was. */
LQT_API LQT_NODISCARD lqt_status lqt_quantize(const char *source, const char *path,
                                              const lqt_quantize_options *options,
                                              lqt_quantize_report *out_report, lqt_diag *diag);

/* The shape of a synthetic Llama model. */
typedef struct lqt_synth_shape {
  uint32_t hidden, layers, heads, kv_heads, head_dim, ffn, vocab, context;
  bool tied; /* head shares the embedding */
} lqt_synth_shape;
/* Shapes by name: "llama2-7b", "llama3-8b", "llama2-70b", "tiny". Errors: LQT_NOT_FOUND. */
LQT_API LQT_NODISCARD lqt_status lqt_synth_named(const char *name, lqt_synth_shape *out_shape);
/* Name of shape `index`, NULL past the last. */
LQT_API const char *lqt_synth_name(size_t index);

/* Writes a model of that shape with random codes and scales (never zeros), scaled so that its
 * activations stay finite. Uses bits, group_size, vector_dim, residual_bits, embed_bits, scope,
 * outliers, seed, threads, progress of `options`. Same errors as lqt_quantize. */
LQT_API LQT_NODISCARD lqt_status lqt_synth(const lqt_synth_shape *shape, const char *path,
                                           const lqt_quantize_options *options,
                                           lqt_quantize_report *out_report, lqt_diag *diag);

#ifdef __cplusplus
}
#endif
#endif /* LQT_QUANTIZE_H_ */
