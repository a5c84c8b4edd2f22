/* The .lqt file that the quantizer and the synthetic models write: its tables are laid out from
 * what was chosen for each tensor, before a single weight is encoded. */
#ifndef LQT_RUNTIME_QUANT_OUTPUT_H_
#define LQT_RUNTIME_QUANT_OUTPUT_H_

#include "format/format.h"
#include "import/llama.h"
#include "quant/quant.h"

enum { LQT__PATTERN_MOST = 127 }; /* bytes of a pattern of excluded names */

/* Errors: LQT_INVALID_ARGUMENT. */
LQT_NODISCARD lqt_status lqt__options_check(const lqt_quantize_options *options, lqt_diag *diag);
/* What the options say about matrices, and about embeddings and head. */
lqt__qspec lqt__options_spec(const lqt_quantize_options *options);
lqt__qspec lqt__options_embed_spec(const lqt_quantize_options *options);

/* One tensor on its way into the file. */
typedef struct lqt__qtensor {
  lqt__llama_tensor tensor;
  lqt__qspec spec;                   /* bits 0: kept as it is */
  lqt_dtype dtype;                   /* of a kept tensor */
  uint64_t outliers;                 /* how many, exactly */
  int32_t codebook, residual, delta; /* index in the file's tables; -1: none */
} lqt__qtensor;

typedef struct lqt__qoutput {
  lqt__qtensor *tensors;
  size_t tensor_count;
  bool expandable, empty_deltas;
  lqt__file file;
  lqt__writer *writer;
} lqt__qoutput;

/* Chooses width, group size and outliers of every matrix so that all quantized tensors together
 * stay at or under `target` bits a weight. Errors: LQT_INVALID_ARGUMENT (out of reach). */
LQT_NODISCARD lqt_status lqt__qoutput_plan(lqt__qoutput *output, double target, lqt_diag *diag);

/* Lays out file->tensors, codebooks, deltas, hyperparameters and the module graph from
 * output->tensors. Sizes are final; every blob's data comes later. `file.arena` owns all of it. */
LQT_NODISCARD lqt_status lqt__qoutput_layout(lqt__qoutput *output, const lqt__llama *llama,
                                             lqt_diag *diag);
/* Adds a chunk (its bytes are copied). */
LQT_NODISCARD lqt_status lqt__qoutput_chunk(lqt__qoutput *output, uint16_t type, const void *data,
                                            size_t bytes, lqt_diag *diag);
/* Time stamp: SOURCE_DATE_EPOCH (seconds) when it is set, else now. */
uint64_t lqt__qoutput_timestamp(void);
void lqt__qoutput_free(lqt__qoutput *output); /* aborts an unfinished writer */

/* Bytes of a quantized matrix, everything counted, and of its parts. */
typedef struct lqt__qsize {
  uint64_t indices, scales, codebook, residual_indices, residual_codebook, delta;
} lqt__qsize;
lqt__qsize lqt__qsize_of(const lqt__qspec *spec, uint64_t rows, uint64_t cols, uint64_t outliers,
                         bool expandable, bool empty_delta);
uint64_t lqt__qsize_total(const lqt__qsize *size);

/* Writes a codebook's section. */
LQT_NODISCARD lqt_status lqt__qoutput_put_book(lqt__qoutput *output, const lqt__qtensor *tensor,
                                               const lqt__qbook *book, lqt_diag *diag);
/* Offsets of the parts of a row-compressed delta behind its header. */
typedef struct lqt__csr_layout {
  uint64_t row_ptr, columns, values, end;
  uint32_t column_bytes;
} lqt__csr_layout;
lqt__csr_layout lqt__csr_layout_of(uint64_t rows, uint64_t cols, uint64_t count);

#endif /* LQT_RUNTIME_QUANT_OUTPUT_H_ */
