/* Opening and inspecting .lqt files. A model is immutable: any number of threads may read one. */
#ifndef LQT_MODEL_H_
#define LQT_MODEL_H_

#include "lqt/types.h"
#include "lqt/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lqt_model_options {
  uint32_t size; /* sizeof(lqt_model_options) */
  bool verify;   /* check every byte against CRC and digests (reads the whole file) */
  bool partial;  /* leave damaged sections out instead of failing (implies verify); see
                    lqt_model_missing_count */
} lqt_model_options;

/* Opens a model: maps the file, checks its structure and the digest of its metadata. `options` may
 * be NULL. Cost: the size of the metadata, not of the file. Owns: the caller; lqt_model_release.
 * Threads: any. Errors: LQT_IO, LQT_NOT_FOUND (no such file), LQT_BAD_*, LQT_TRUNCATED,
 * LQT_CHECKSUM, LQT_UNSUPPORTED, LQT_OUT_OF_MEMORY. Source: docs/format.md. */
LQT_API LQT_NODISCARD lqt_status lqt_model_open(const char *path, const lqt_model_options *options,
                                                lqt_model **out_model, lqt_diag *diag);
/* The same from memory; `data` must stay valid until the last release. */
LQT_API LQT_NODISCARD lqt_status lqt_model_open_memory(const void *data, size_t bytes,
                                                       const lqt_model_options *options,
                                                       lqt_model **out_model, lqt_diag *diag);
LQT_API lqt_model *lqt_model_retain(lqt_model *model);
LQT_API void lqt_model_release(lqt_model *model); /* NULL accepted */

typedef struct lqt_model_info {
  char path[512];
  uint16_t version; /* as in the header: major << 12 | minor */
  uint16_t flags;   /* header flags */
  uint64_t file_bytes;
  uint64_t timestamp_ns;
  uint64_t parameters;        /* elements of all tensors */
  uint64_t quantized_weights; /* elements of codebook tensors that are matrices */
  uint64_t
      quantized_bytes; /* their indices, scales, codebooks, residuals, deltas, masks, zero points */
  double bits_per_weight; /* 8 * quantized_bytes / quantized_weights; 0 when nothing is quantized */
  uint32_t tensors, codebooks, deltas, masks, modules, edits;
  uint32_t vocab_size; /* 0 without a tokenizer */
  uint32_t context;    /* longest context the model was made for; 0 unknown */
} lqt_model_info;
LQT_API void lqt_model_get_info(const lqt_model *model, lqt_model_info *out_info);

typedef struct lqt_tensor_info {
  const char *name; /* valid as long as the model */
  lqt_dtype dtype;
  uint32_t ndim;
  uint32_t shape[8];
  uint16_t codebook_id, delta_id, mask_id, residual_id; /* LQT_ID_NONE when absent */
  float scale;
  int32_t zero_point;
  uint16_t flags;
  uint32_t index_bits, vector_dim, group_size;
  uint32_t scope; /* 0 tensor, 1 row, 2 group */
  uint64_t bytes; /* stored bytes of this tensor, its own codebook, delta and mask included */
} lqt_tensor_info;
LQT_API size_t lqt_model_tensor_count(const lqt_model *model);
LQT_API LQT_NODISCARD lqt_status lqt_model_tensor(const lqt_model *model, size_t index,
                                                  lqt_tensor_info *out_info);
/* Index of the tensor called `name`, or LQT_NOT_FOUND. */
LQT_API LQT_NODISCARD lqt_status lqt_model_find_tensor(const lqt_model *model, const char *name,
                                                       size_t *out_index);
/* The canonical weight of a 1-D or 2-D tensor (1-D: one row). Pointers live as long as the model.
 * Errors: LQT_OUT_OF_RANGE, LQT_UNSUPPORTED (RecursiveTensor), LQT_NOT_FOUND (left out, partial).
 */
LQT_API LQT_NODISCARD lqt_status lqt_model_weight(const lqt_model *model, size_t index,
                                                  lqt_weight_desc *out_desc, lqt_diag *diag);

typedef struct lqt_codebook_info {
  uint16_t id;
  uint8_t flags; /* file flags: MUTABLE 1, EXPANDABLE 2, SHARED 4, RESIDUAL 8 */
  lqt_dtype dtype;
  uint32_t vectors; /* used, over all banks */
  uint32_t banks;
  uint32_t vector_dim;
  uint32_t capacity; /* vectors there is room for */
  uint32_t users;    /* tensors that refer to it */
  uint64_t bytes;
} lqt_codebook_info;
LQT_API size_t lqt_model_codebook_count(const lqt_model *model);
LQT_API LQT_NODISCARD lqt_status lqt_model_codebook(const lqt_model *model, size_t index,
                                                    lqt_codebook_info *out_info);
/* Reads vector `vector` of codebook `id` as float32 into out[vector_dim].
 * Errors: LQT_NOT_FOUND, LQT_OUT_OF_RANGE. */
LQT_API LQT_NODISCARD lqt_status lqt_model_codebook_vector(const lqt_model *model, uint16_t id,
                                                           uint32_t vector, float *out,
                                                           lqt_diag *diag);

typedef struct lqt_delta_info {
  uint16_t id;
  uint8_t encoding, flags;
  lqt_dtype dtype;
  uint64_t count, bytes;
} lqt_delta_info;
LQT_API size_t lqt_model_delta_count(const lqt_model *model);
LQT_API LQT_NODISCARD lqt_status lqt_model_delta(const lqt_model *model, size_t index,
                                                 lqt_delta_info *out_info);
typedef struct lqt_mask_info {
  uint16_t id;
  uint8_t encoding;
  double density; /* share of ones, 0..1 */
  uint64_t count, bytes;
} lqt_mask_info;
LQT_API size_t lqt_model_mask_count(const lqt_model *model);
LQT_API LQT_NODISCARD lqt_status lqt_model_mask(const lqt_model *model, size_t index,
                                                lqt_mask_info *out_info);

/* Hyperparameters (chunk 0x0001). key valid as long as the model. */
LQT_API size_t lqt_model_hyperparameter_count(const lqt_model *model);
LQT_API LQT_NODISCARD lqt_status lqt_model_hyperparameter(const lqt_model *model, size_t index,
                                                          const char **out_key, float *out_value);
/* Value of `key`, or `fallback`. */
LQT_API float lqt_model_hyperparameter_get(const lqt_model *model, const char *key, float fallback);

/* A metadata chunk as stored (module graph 0x0003 and provenance 0x0014 are JSON text, not
 * terminated). Errors: LQT_NOT_FOUND. */
LQT_API LQT_NODISCARD lqt_status lqt_model_chunk(const lqt_model *model, uint16_t type,
                                                 const void **out_data, size_t *out_bytes);
typedef struct lqt_section_info {
  const char *name; /* "metadata", "codebook 3", "tensor model.norm.weight", ... */
  uint64_t offset, bytes;
} lqt_section_info;
LQT_API size_t lqt_model_section_count(const lqt_model *model);
LQT_API LQT_NODISCARD lqt_status lqt_model_section(const lqt_model *model, size_t index,
                                                   lqt_section_info *out_info);
/* Sections that a partial open left out, and why. */
LQT_API size_t lqt_model_missing_count(const lqt_model *model);
LQT_API LQT_NODISCARD lqt_status lqt_model_missing(const lqt_model *model, size_t index,
                                                   lqt_section_info *out_info);

/* Checks of `lqt validate`. Each finding is given to `report` (may be NULL); the first one's status
 * is returned. Threads: any. */
typedef struct lqt_validate_options {
  uint32_t size;       /* sizeof(lqt_validate_options) */
  bool no_integrity;   /* skip CRC and digests */
  bool no_consistency; /* skip indices in range, finite values, graph against tensors */
  bool no_edit_log;
  lqt_progress_fn progress;
  void *user;
} lqt_validate_options;
typedef void (*lqt_finding_fn)(void *user, const lqt_diag *finding);
LQT_API LQT_NODISCARD lqt_status lqt_model_validate(const lqt_model *model,
                                                    const lqt_validate_options *options,
                                                    lqt_finding_fn report, void *user,
                                                    lqt_diag *diag);

#ifdef __cplusplus
}
#endif
#endif /* LQT_MODEL_H_ */
