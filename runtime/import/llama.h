/* Models of the Llama family: their configuration, the tensors they need, and the module graph that
 * runs them. Both the importer and the synthetic models are made from an lqt__llama. */
#ifndef LQT_RUNTIME_IMPORT_LLAMA_H_
#define LQT_RUNTIME_IMPORT_LLAMA_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lqt/types.h"

typedef enum lqt__rope_type {
  LQT__ROPE_DEFAULT,
  LQT__ROPE_LINEAR,
  LQT__ROPE_LLAMA3,
  LQT__ROPE_YARN,
} lqt__rope_type;

typedef struct lqt__rope {
  lqt__rope_type type;
  double theta;
  uint32_t rotary_dim;
  double factor;                            /* linear, llama3, yarn */
  double low_freq_factor, high_freq_factor; /* llama3 */
  double original_context;                  /* llama3, yarn */
  double beta_fast, beta_slow;              /* yarn */
  double attention_factor;                  /* yarn: what cosines and sines are multiplied by */
  bool truncate;                            /* yarn: correction range rounded to whole dimensions */
} lqt__rope;

typedef struct lqt__llama {
  uint32_t hidden, layers, heads, kv_heads, head_dim, ffn, vocab, context;
  uint32_t window; /* sliding window of the attention; 0: none */
  double norm_eps;
  bool tied;           /* the head is the embedding */
  bool attention_bias; /* q, k, v and o have a bias */
  int32_t bos, eos;    /* -1: none */
  lqt__rope rope;
} lqt__llama;

/* Reads a config.json. `where` names it in diags. Errors: LQT_BAD_JSON, LQT_BAD_SOURCE (a value is
 * missing or makes no sense), LQT_UNSUPPORTED (another architecture, or a variant that LQT does not
 * run), LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__llama_config(const char *json, size_t bytes, const char *where,
                                           lqt__llama *out, lqt_diag *diag);

typedef enum lqt__llama_role {
  LQT__ROLE_EMBEDDING,
  LQT__ROLE_NORM_IN,   /* before the attention */
  LQT__ROLE_NORM_POST, /* before the feed-forward block */
  LQT__ROLE_NORM_OUT,  /* before the head */
  LQT__ROLE_Q,
  LQT__ROLE_K,
  LQT__ROLE_V,
  LQT__ROLE_O,
  LQT__ROLE_GATE,
  LQT__ROLE_UP,
  LQT__ROLE_DOWN,
  LQT__ROLE_BIAS,
  LQT__ROLE_HEAD,
} lqt__llama_role;

typedef struct lqt__llama_tensor {
  char name[96]; /* the Hugging Face name */
  lqt__llama_role role;
  uint32_t layer; /* of the layer's tensors */
  uint32_t ndim;
  uint32_t rows, cols; /* ndim 1: rows = 1 */
} lqt__llama_tensor;

/* How many tensors the model has, and the one at `index`, in the order in which they run. */
size_t lqt__llama_tensor_count(const lqt__llama *llama);
void lqt__llama_tensor_at(const lqt__llama *llama, size_t index, lqt__llama_tensor *out);

/* The module graph (chunk 0x0003) as JSON text; freed with lqt__free. */
LQT_NODISCARD lqt_status lqt__llama_graph(const lqt__llama *llama, char **out_json,
                                          size_t *out_bytes, lqt_diag *diag);

enum { LQT__LLAMA_HYPERPARAMETERS = 10 };
/* Key and value of hyperparameter `index` (chunk 0x0001). */
const char *lqt__llama_hyperparameter(const lqt__llama *llama, size_t index, float *out_value);

#endif /* LQT_RUNTIME_IMPORT_LLAMA_H_ */
