/* The safetensors container: a u64 header length, a JSON header that names the tensors, their
 * bytes. Nothing in the file is trusted. Source: the format's description in
 * huggingface/safetensors, "Format". */
#ifndef LQT_RUNTIME_IMPORT_SAFETENSORS_H_
#define LQT_RUNTIME_IMPORT_SAFETENSORS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "lqt/types.h"

enum { LQT__ST_MAX_DIMS = 8 };

typedef struct lqt__st_tensor {
  const char *name;
  lqt_dtype dtype;        /* LQT_DTYPE_MAX_: a type that LQT has none for */
  const char *dtype_name; /* as the file spells it */
  uint32_t ndim;
  uint64_t shape[LQT__ST_MAX_DIMS];
  uint64_t elements;
  uint64_t offset, bytes; /* in the file */
} lqt__st_tensor;

typedef struct lqt__safetensors {
  lqt__st_tensor *tensors; /* in the order of their bytes */
  size_t count;
  lqt__arena arena;
} lqt__safetensors;

/* Parses the header of `bytes` bytes and checks every tensor: inside the file, as long as its shape
 * and type say, no overlap, no gap, no byte left over. `where` names the file in diags.
 * Errors: LQT_BAD_SOURCE, LQT_TRUNCATED, LQT_BAD_JSON, LQT_LIMIT, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__safetensors_parse(const uint8_t *data, uint64_t bytes,
                                                const char *where, lqt__safetensors *out,
                                                lqt_diag *diag);
void lqt__safetensors_free(lqt__safetensors *file);
/* NULL when there is none. */
const lqt__st_tensor *lqt__safetensors_find(const lqt__safetensors *file, const char *name);

#endif /* LQT_RUNTIME_IMPORT_SAFETENSORS_H_ */
