/* Small Hugging Face model folders with random weights, whole or damaged on purpose. */
#ifndef LQT_TESTS_SUPPORT_HF_MODEL_H_
#define LQT_TESTS_SUPPORT_HF_MODEL_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct hf_spec {
  uint32_t hidden, layers, heads, kv_heads, ffn, vocab;
  bool tied, bias;
  uint32_t files;     /* 1: model.safetensors; more: shards with an index */
  const char *dtype;  /* "F32", "F16", "BF16" */
  const char *config; /* further members of config.json (", \"key\": value"), or NULL */
  /* Damage; NULL or 0: none. */
  const char *missing;   /* a tensor left out */
  const char *misshapen; /* a tensor with a row too many */
  const char *retyped;   /* a tensor declared I64 (of half the elements) */
  const char *poisoned;  /* a tensor with a NaN in it */
  const char *surplus;   /* a tensor more */
} hf_spec;

/* Two layers, hidden 64, feed-forward 96, 48 tokens: milliseconds. */
hf_spec hf_default(void);
/* Makes the folder (in a temporary folder that goes when the program ends) and returns its path,
 * which stays valid until the next call. Ends the program with a message when it cannot. */
const char *hf_create(const hf_spec *spec);
/* The weights as float64 of what the file's type holds. */
const double *hf_weights(const char *name, uint64_t *out_count);
/* A path in the temporary folder. */
const char *hf_path(const char *name);
/* Writes `bytes` bytes into the file `name` of the last folder. */
void hf_put(const char *name, const void *data, size_t bytes);
/* Reads a whole file; freed with free. */
char *hf_read(const char *path, size_t *out_bytes);

#endif /* LQT_TESTS_SUPPORT_HF_MODEL_H_ */
