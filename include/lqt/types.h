/* Plain types that the whole API shares. */
#ifndef LQT_TYPES_H_
#define LQT_TYPES_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lqt/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LQT_VERSION_MAJOR 0
#define LQT_VERSION_MINOR 1
#define LQT_VERSION_PATCH 0

/* "MAJOR.MINOR.PATCH" of the library that is running. Threads: any. */
LQT_API const char *lqt_version_text(void);

/* Element types. The numbers are those of the file format (docs/format.md, "dtype"). */
typedef enum lqt_dtype {
  LQT_DTYPE_F32 = 0,
  LQT_DTYPE_F16 = 1,
  LQT_DTYPE_BF16 = 2,
  LQT_DTYPE_I8 = 3,
  LQT_DTYPE_U8 = 4,
  LQT_DTYPE_I32 = 5,
  LQT_DTYPE_CODEBOOK = 16, /* packed indices into a codebook */
  LQT_DTYPE_MAX_ = 0x7fffffff
} lqt_dtype;

/* Bytes of one element; 0 for LQT_DTYPE_CODEBOOK and unknown numbers. Threads: any. */
LQT_API size_t lqt_dtype_size(lqt_dtype dtype);
/* "f32", "bf16", "codebook", ...; "?" for unknown numbers. Threads: any. */
LQT_API const char *lqt_dtype_name(lqt_dtype dtype);

/* An id that refers to nothing (codebook, delta and mask ids are 16 bits in the file). */
#define LQT_ID_NONE 0xFFFFu

/* Progress of a long call. Return false to cancel (the call then returns LQT_CANCELLED and leaves
 * no output behind). `done` and `total` are in `unit`s ("weights", "bytes", "tokens"). Called from
 * one thread at a time. */
typedef bool (*lqt_progress_fn)(void *user, const char *stage, const char *unit, uint64_t done,
                                uint64_t total);

typedef struct lqt_model lqt_model;
typedef struct lqt_tokenizer lqt_tokenizer;
typedef struct lqt_device lqt_device;
typedef struct lqt_buffer lqt_buffer;
typedef struct lqt_weight lqt_weight;
typedef struct lqt_patch lqt_patch;
typedef struct lqt_program lqt_program;
typedef struct lqt_engine lqt_engine;
typedef struct lqt_session lqt_session;
typedef struct lqt_sampler lqt_sampler;
typedef struct lqt_editor lqt_editor;
typedef struct lqt_journal lqt_journal;
typedef struct lqt_key lqt_key;

#ifdef __cplusplus
}
#endif
#endif /* LQT_TYPES_H_ */
