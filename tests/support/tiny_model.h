/* Small random models, written as .lqt files, and their forward pass in float64: written from the
 * definition of the architectures, sharing nothing with the library but the file writer. */
#ifndef LQT_TESTS_SUPPORT_TINY_MODEL_H_
#define LQT_TESTS_SUPPORT_TINY_MODEL_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tiny_spec {
  uint32_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab, context;
  bool gpt2;           /* layer norms, biases, learned positions, GELU; else Llama */
  bool tied;           /* the head is the embedding */
  bool quantized;      /* 4-bit codebooks, groups of 16, for the layers' matrices */
  bool interleaved;    /* rotary pairs (2i, 2i + 1) */
  uint32_t rotary_dim; /* 0: head_dim */
  uint32_t window;     /* 0: none */
  const char *rope;    /* further members of the rope object, or NULL for the default type */
  double (*frequency)(uint32_t i,
                      uint32_t dim); /* inverse frequency of pair i; NULL: theta 10000 */
  double rope_scale;                 /* of sin and cos; 0: 1 */
  uint64_t seed;
} tiny_spec;

/* A Llama of two layers that takes milliseconds. */
tiny_spec tiny_default(void);

enum { TINY_CODEBOOK_ENTRIES = 16 };

typedef struct tiny_tensor {
  char name[64];
  uint32_t rows, cols;
  bool vector;      /* one dimension */
  double *w;        /* what the file's bytes mean */
  int codebook;     /* -1: plain f32 */
  uint8_t *indices; /* one a weight */
  double *scales;   /* one a weight */
} tiny_tensor;

typedef struct tiny_model {
  tiny_spec spec;
  tiny_tensor tensors[64];
  size_t tensor_count;
  double codebooks[64][TINY_CODEBOOK_ENTRIES]; /* as float16 values */
  size_t codebook_count;
} tiny_model;

/* Codebook 0 is shared by q of layer 0 and q of layer 1; 1 is not MUTABLE; 2 belongs to a PROTECTED
 * tensor; the others to one tensor each. */
enum { TINY_SHARED = 0, TINY_IMMUTABLE = 1, TINY_PROTECTED = 2, TINY_PLAIN = 3 };

/* Makes the model and writes it to `path`. Ends the program with a message when it cannot. */
void tiny_create(const tiny_spec *spec, const char *path, tiny_model *out);
void tiny_free(tiny_model *model);
/* Changes an entry, rounded to float16, and the weights made of it. */
void tiny_edit(tiny_model *model, size_t codebook, uint32_t entry, double value);
/* logits[count][vocab] of every position. */
void tiny_forward(const tiny_model *model, const int32_t *tokens, size_t count, double *logits);
/* A path in a fresh temporary folder; the folder goes when the program ends. */
const char *tiny_path(const char *name);

#endif /* LQT_TESTS_SUPPORT_TINY_MODEL_H_ */
