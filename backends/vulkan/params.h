/* What the shaders read: their push constants, their specialisation constants and the block that
 * describes a weight. Mirrors shaders/; a change here is a change there. */
#ifndef LQT_BACKENDS_VULKAN_PARAMS_H_
#define LQT_BACKENDS_VULKAN_PARAMS_H_

#include <stddef.h>
#include <stdint.h>

typedef enum lqt__vk_shader {
  LQT__VK_MATVEC,
  LQT__VK_MATMUL,
  LQT__VK_DEQUANT,
  LQT__VK_ELEMENTWISE,
  LQT__VK_NORM,
  LQT__VK_ROPE,
  LQT__VK_KV_WRITE,
  LQT__VK_ATTENTION,
  LQT__VK_GATHER,
  LQT__VK_SWAP,
  LQT__VK_FRAGVEC_EMULATED,
  LQT__VK_FRAGMUL_EMULATED,
  /* Only with a glslc that knows cooperative matrices; else their words are NULL. */
  LQT__VK_FRAGPROBE,
  LQT__VK_FRAGVEC,
  LQT__VK_FRAGMUL,
  LQT__VK_SHADER_COUNT
} lqt__vk_shader;

/* constant_id of shaders/lqt.glsl and shaders/weight.glsl. */
enum {
  LQT__VK_WG = 0,
  LQT__VK_ACT = 1,
  LQT__VK_W_KIND = 10,
  LQT__VK_W_BITS = 11,
  LQT__VK_W_DIM = 12,
  LQT__VK_W_BOOK_F16 = 13,
  LQT__VK_W_BANKED = 14,
  LQT__VK_W_TABLE = 15,
  LQT__VK_R_BITS = 16,
  LQT__VK_R_DIM = 17,
  LQT__VK_R_BOOK_F16 = 18,
  LQT__VK_R_TABLE = 19,
  LQT__VK_W_GROUP_SHIFT = 20,
  LQT__VK_W_SCALES = 21,
  LQT__VK_W_ZEROS = 22,
  LQT__VK_W_DELTA = 23,
  LQT__VK_W_DELTA_F16 = 24,
  LQT__VK_W_COLUMNS16 = 25,
  LQT__VK_W_MASK = 26,
  LQT__VK_W_LANE = 27,
  LQT__VK_W_GRANULE = 28,
  /* The shader's own constants begin here; their meaning stands in the shader. */
  LQT__VK_OWN = 30,
};

typedef struct lqt__vk_weight_block {
  uint64_t data, residual_data, book, residual_book, group_scales, zero_points;
  uint64_t delta, delta_b, row_ptr, columns, mask;
  uint64_t data_stride, residual_stride, mask_stride, bank_stride;
  float scale, residual_scale;
  uint32_t rows, cols, group_stride, bank_rows, bank_cols, banks_across;
  uint32_t entries, residual_entries, rank, delta_group, blocks;
} lqt__vk_weight_block;
_Static_assert(offsetof(lqt__vk_weight_block, scale) == 120, "mirrors weight.glsl");
_Static_assert(offsetof(lqt__vk_weight_block, delta_group) == 164, "mirrors weight.glsl");

#define LQT__VK_PUSH_BYTES 128 /* what every device offers */

typedef struct lqt__vk_push_matmul {
  uint64_t weight, x, y, bias;
  uint32_t x_stride, y_stride, tokens;
} lqt__vk_push_matmul;

typedef struct lqt__vk_push_dequant {
  uint64_t weight, ids, out;
  uint32_t out_stride, rows;
} lqt__vk_push_dequant;

typedef struct lqt__vk_push_elementwise {
  uint64_t a, b, out;
  uint32_t a_stride, b_stride, out_stride, rows, cols;
} lqt__vk_push_elementwise;

typedef struct lqt__vk_push_norm {
  uint64_t x, gain, bias, out;
  uint32_t x_stride, out_stride, rows, cols;
  float eps;
} lqt__vk_push_norm;

typedef struct lqt__vk_push_rope {
  uint64_t x, positions, frequencies;
  uint32_t x_stride, tokens, heads, head_dim, half_dim;
  float scale;
} lqt__vk_push_rope;

typedef struct lqt__vk_push_kv_write {
  uint64_t k, v, k_pages, v_pages, positions, sequences, table;
  uint32_t k_stride, v_stride, k_pages_stride, v_pages_stride, table_stride;
  uint32_t tokens, cols, page_tokens, page_rows, max_pages, sequence_count;
} lqt__vk_push_kv_write;

typedef struct lqt__vk_push_attention {
  uint64_t q, k_pages, v_pages, table, positions, sequences, out;
  uint32_t q_stride, k_stride, v_stride, table_stride, out_stride;
  uint32_t tokens, heads, kv_heads, page_tokens, page_rows, max_pages, sequence_count, window;
  float scale;
} lqt__vk_push_attention;
_Static_assert(sizeof(lqt__vk_push_attention) <= LQT__VK_PUSH_BYTES, "push constants are small");

typedef struct lqt__vk_push_gather {
  uint64_t x, ids, out;
  uint32_t x_stride, out_stride, rows, x_rows, cols;
} lqt__vk_push_gather;

/* A piece of live memory that a patch exchanges (shaders/swap.comp). */
typedef struct lqt__vk_swap_run {
  uint64_t live;
  uint32_t words, staged, first_mask, last_mask;
} lqt__vk_swap_run;
_Static_assert(sizeof(lqt__vk_swap_run) == 24, "mirrors swap.comp");

typedef struct lqt__vk_push_swap {
  uint64_t runs, staged;
  uint32_t count;
} lqt__vk_push_swap;

typedef struct lqt__vk_push_probe {
  uint64_t found;
} lqt__vk_push_probe;

#endif /* LQT_BACKENDS_VULKAN_PARAMS_H_ */
