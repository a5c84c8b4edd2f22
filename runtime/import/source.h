/* A Hugging Face model folder: config.json, one or many safetensors files, tokenizer.json. */
#ifndef LQT_RUNTIME_IMPORT_SOURCE_H_
#define LQT_RUNTIME_IMPORT_SOURCE_H_

#include "import/llama.h"
#include "import/safetensors.h"
#include "io/file.h"

typedef struct lqt__source_file {
  char *name; /* inside the folder */
  lqt__map map;
  lqt__safetensors content;
} lqt__source_file;

typedef struct lqt__source {
  lqt__llama llama;
  char *folder; /* the folder's own name, without the path to it */
  lqt__source_file *files;
  size_t file_count;
  /* Every file that was read, for the provenance: config.json, tokenizer.json, the weights. */
  char *config, *tokenizer; /* texts; tokenizer NULL when the folder has none */
  size_t config_bytes, tokenizer_bytes;
} lqt__source;

/* A matrix (or vector: one row) of the source, checked against what the model needs. */
typedef struct lqt__source_view {
  const lqt__map *map;
  const uint8_t *data;
  lqt_dtype dtype; /* F32, F16 or BF16 */
  uint64_t rows, cols;
  char name[96];
} lqt__source_view;

/* Opens the folder and checks that every tensor of the model is there, with its shape and a type
 * that LQT reads, and that nothing is left over that would change what the model computes.
 * Errors: LQT_NOT_FOUND, LQT_IO, LQT_BAD_SOURCE, LQT_BAD_JSON, LQT_TRUNCATED, LQT_UNSUPPORTED,
 * LQT_LIMIT, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__source_open(const char *path, lqt__source *out, lqt_diag *diag);
void lqt__source_close(lqt__source *source);

LQT_NODISCARD lqt_status lqt__source_find(const lqt__source *source,
                                          const lqt__llama_tensor *tensor, lqt__source_view *out,
                                          lqt_diag *diag);
/* Reads `count` elements from element `first` on (row-major) as float32. Errors: LQT_NOT_FINITE.
 * Threads: any. */
LQT_NODISCARD lqt_status lqt__source_read(const lqt__source_view *view, uint64_t first,
                                          uint64_t count, float *out, lqt_diag *diag);
/* Lets the pages of `count` rows leave memory. */
void lqt__source_drop(const lqt__source_view *view, uint64_t row, uint64_t count);

/* The vocabulary chunk (0x0008) made of the folder's tokenizer.json; freed with lqt__free.
 * Errors: LQT_BAD_SOURCE, LQT_LIMIT, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__source_vocabulary(const lqt__source *source, uint8_t **out_data,
                                                size_t *out_bytes, lqt_diag *diag);

#endif /* LQT_RUNTIME_IMPORT_SOURCE_H_ */
