/* Parameters of the kernels around the products: attention.cu, step.cu, topk.cu. Plain data, shared
 * by host and device; strides in elements. */
#ifndef LQT_BACKENDS_CUDA_KERNELS_STEP_PARAMS_H_
#define LQT_BACKENDS_CUDA_KERNELS_STEP_PARAMS_H_

#include <stdint.h>

/* Attention over float16 pages. */
typedef struct lqt__cu_attention {
  uint64_t q, out, k, v;
  uint64_t positions, sequences, table;
  uint64_t partial; /* float [tokens][heads][splits][2 + head_dim] */
  uint64_t counter; /* zero before and after */
  uint64_t q_stride, out_stride, k_stride, v_stride, table_stride;
  uint32_t tokens, first_token, per_block;
  uint32_t heads, group, head_dim;  /* group: query heads of a key-value head */
  uint32_t page_tokens, page_shift; /* 32: page_tokens is no power of two */
  uint32_t window, table_rows, table_cols, pages;
  uint32_t splits;    /* parts of the sequence at most */
  uint32_t skip_long; /* long runs of tokens are the other kernel's */
  float scale;
} lqt__cu_attention;

/* Rotation of queries and keys, and keys and values to their pages. */
typedef struct lqt__cu_rope_kv {
  uint64_t q, k, v, k_pages, v_pages;
  uint64_t positions, sequences, table, frequencies;
  uint64_t q_stride, k_stride, v_stride, k_pages_stride, v_pages_stride, table_stride;
  uint32_t heads, kv_heads, head_dim, rotary_dim, interleaved;
  uint32_t page_tokens, table_rows, table_cols, pages;
  float scale;
} lqt__cu_rope_kv;

/* The k largest of each row. */
typedef struct lqt__cu_topk {
  uint64_t in, values, ids;
  uint64_t in_stride, values_stride, ids_stride;
  uint32_t cols, k;
} lqt__cu_topk;

#endif /* LQT_BACKENDS_CUDA_KERNELS_STEP_PARAMS_H_ */
