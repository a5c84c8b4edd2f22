/* A small model that has one of everything the format knows, for the tests of format and model. */
#ifndef LQT_TESTS_UNIT_FORMAT_SAMPLE_H_
#define LQT_TESTS_UNIT_FORMAT_SAMPLE_H_

#include "format/format.h"

enum {
  SAMPLE_VOCAB = 24,
  SAMPLE_WIDTH = 32,
  SAMPLE_HEADS = 2,
  SAMPLE_HEAD_DIM = 16,
  SAMPLE_FFN = 48,
  SAMPLE_SEED = 1,
};

/* Tensors of the sample, by index. */
enum {
  SAMPLE_EMBED,     /* f16 24 x 32 */
  SAMPLE_ATTN_NORM, /* f32 32 */
  SAMPLE_Q,         /* 4 bits, tensor scope, groups of 16, CSR delta */
  SAMPLE_K,         /* 3 bits, row scope, zero points, bitmap mask */
  SAMPLE_V,         /* 2 bits, group scope, coordinate delta, run-length mask */
  SAMPLE_O,         /* 8 bits of vectors of 2, expandable, low-rank delta, coordinate mask */
  SAMPLE_MLP_NORM,  /* bf16 32 */
  SAMPLE_GATE,      /* 4 bits, residual of 2 bits, grouped delta, block mask */
  SAMPLE_UP,        /* 2 bits of vectors of 4, dense delta, 2:4 mask */
  SAMPLE_DOWN,      /* f32 32 x 48, f32 dense delta */
  SAMPLE_NORM,      /* f32 32 */
  SAMPLE_BYTES,     /* i8 with zero point, in no module */
  SAMPLE_RECURSIVE, /* RecursiveTensor, opaque */
  SAMPLE_TENSORS,
};

typedef struct sample {
  lqt__file file;
  lqt__arena arena;
} sample;

/* Fills a file that lqt__writer_begin takes; everything is in memory. False without memory. */
bool sample_make(sample *out, uint64_t seed);
void sample_free(sample *s);

/* Writes `file` to `path` and reads the bytes back; the caller frees them with lqt__free. NULL when
 * that fails. */
uint8_t *sample_write(const lqt__file *file, const char *path, size_t *out_bytes, lqt_diag *diag);

#endif /* LQT_TESTS_UNIT_FORMAT_SAMPLE_H_ */
