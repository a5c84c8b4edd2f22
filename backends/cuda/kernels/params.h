/* Kernel parameters, shared by the C host code and the device code: plain data, device addresses as
 * 64-bit numbers. */
#ifndef LQT_BACKENDS_CUDA_KERNELS_PARAMS_H_
#define LQT_BACKENDS_CUDA_KERNELS_PARAMS_H_

#include <stdalign.h>
#include <stdint.h>

/* A packed weight is a sequence of blocks of 16 rows x 512 columns, row tile by row tile. A block
 * is eight units of 64 columns; a lane of a warp holds 32 weights of each unit. */
#define LQT__CU_TILE_ROWS 16u
#define LQT__CU_UNIT_COLS 64u
#define LQT__CU_BLOCK_COLS 512u
/* An expanded table; behind it stand 16 bytes of ones, the scales of a weight without scales. */
#define LQT__CU_TABLE_BYTES 2048u

/* Fused product for up to eight tokens (small.cuh). */
typedef struct lqt__cu_small {
  uint64_t units;   /* packed indices */
  uint64_t scales;  /* half pairs (rows g and g + 8), see scale_at in pack.cuh; 0: none */
  uint64_t table;   /* expanded codebook, 256 entries of 4 or 8 bytes */
  uint64_t x;       /* half [m][k] */
  uint64_t y;       /* half [m][n] */
  uint64_t bias;    /* float [n] or 0 */
  uint64_t partial; /* float [parts][m][n], when the columns are split over gridDim.y parts */
  uint64_t counter; /* uint32 [gridDim.x], zero before and after */
  uint64_t x_stride, y_stride; /* elements */
  uint32_t n, k, m;
  uint32_t tiles;       /* row tiles */
  uint32_t blocks;      /* column blocks */
  uint32_t last_units;  /* units of the last column block that hold weights, 1..8 */
  uint32_t part;        /* pieces of the columns (several tokens) */
  uint32_t warps_k;     /* warps of a block that split the columns; the others take other tiles */
  uint32_t group_shift; /* log2 of the units that share a scale */
  uint32_t accumulate;
  float scale;
  /* What is done to one token's activations on the way in; 0: nothing. */
  uint64_t gain;     /* float [k]: x / rms(x) * gain, which also goes to norm_out, half [k] */
  uint64_t norm_out; /* 0: nowhere */
  float eps;
} lqt__cu_small;

/* Fused product for many tokens (wide.cuh). */
typedef struct lqt__cu_wide {
  /* Tensor map of the activations: boxes of 64 columns x the tokens of a tile. */
  alignas(64) uint64_t map[16];
  uint64_t units, table, y, bias; /* as in lqt__cu_small */
  uint64_t scales;                /* packed; without group scales: 16 bytes of ones */
  uint64_t partial;               /* float, a slot a block, when tiles are cut */
  uint64_t counter;               /* uint32 [grid][warpgroups], zero before and after */
  uint64_t y_stride;              /* elements */
  uint32_t n, m;
  uint32_t tiles;       /* row tiles of 16 */
  uint32_t blocks;      /* column blocks */
  uint32_t steps;       /* of 256 columns */
  uint32_t row_tiles;   /* of the kernel */
  uint32_t token_tiles; /* of the kernel */
  uint32_t cut_tiles;   /* the first so many output tiles are cut into equal shares */
  uint32_t share;       /* steps of a block's share; the first `longer` blocks have one more */
  uint32_t longer;
  uint32_t scale_words; /* pairs of scales of two rows in a block of columns; 0: ones */
  uint32_t scale_shift; /* log2 of the units (or k-steps, for groups of 16 and 32) that share one */
  uint32_t accumulate;
  float scale;
} lqt__cu_wide;

/* One token: up to three weights over the same columns; block b has w[i] when
 * first[i] <= b < first[i + 1]. */
typedef struct lqt__cu_small3 {
  lqt__cu_small w[3];
  uint32_t first[4];
} lqt__cu_small3;

/* Where the values of one element come from, for kernels that take any weight. */
enum {
  LQT__CU_PLAIN_F32 = 0,
  LQT__CU_PLAIN_F16 = 1,
  LQT__CU_PLAIN_BF16 = 2,
  LQT__CU_PACKED = 3, /* in the order of the fused kernels */
  LQT__CU_CANON = 4   /* codebook weight in the order of the file */
};

/* One stream of indices and its codebook. */
typedef struct lqt__cu_stream {
  uint64_t data;
  uint64_t row_stride; /* bytes; canonical only */
  uint64_t book;       /* values in the order of the file */
  uint64_t table;      /* expanded, packed only */
  uint32_t packed;
  uint32_t bits; /* of an index */
  uint32_t vector_dim;
  uint32_t entries;
  uint32_t weight_bits; /* bits / vector_dim, packed only */
  uint32_t book_f32;
} lqt__cu_stream;

typedef struct lqt__cu_weight_view {
  uint32_t kind;
  uint32_t rows, cols;
  float scale;
  lqt__cu_stream main; /* plain weights: data and row_stride */
  lqt__cu_stream residual;
  uint32_t has_residual;
  float residual_scale;
  uint32_t bank_rows, bank_cols, banks_across;
  uint64_t bank_stride;   /* elements */
  uint32_t tiles, blocks; /* packed: row tiles and column blocks */
  uint32_t group_size, group_shift;
  uint64_t scales; /* packed order when main is packed */
  uint64_t zero_points;
  uint64_t group_row_stride;
  uint32_t delta_kind; /* lqt_delta_kind */
  uint32_t delta_f32;
  uint64_t delta_values, delta_values_b, delta_row_ptr, delta_columns;
  uint32_t delta_columns16, delta_rank, delta_group;
  uint64_t mask, mask_stride;
} lqt__cu_weight_view;

/* All other ops. Strides in elements; `half_*` tell f16 from f32. */
typedef struct lqt__cu_op {
  uint64_t in[6], out[2];
  uint64_t in_stride[6], out_stride[2];
  uint64_t scratch;
  uint32_t rows, cols;
  uint32_t in_rows; /* rows of in0 (gather), of the page table (kv_write, attention) */
  uint32_t table_cols, page_rows;
  uint32_t heads, kv_heads, head_dim, rotary_dim, page_tokens, window;
  uint32_t splits, chunk; /* attention: parts of the sequence and positions in one */
  uint32_t act, interleaved, accumulate;
  float eps, scale;
  lqt__cu_weight_view weight;
} lqt__cu_op;

/* Rows of halves, copied to where the tensor memory accelerator can read them (pack.cu). */
typedef struct lqt__cu_rows {
  uint64_t from, to;
  uint64_t from_stride, to_stride; /* elements */
  uint32_t rows, cols;
} lqt__cu_rows;

/* Packing and patching (pack.cu). */
typedef struct lqt__cu_pack {
  uint64_t from, to;
  uint64_t row_stride;   /* canonical indices: bytes; scales: elements */
  uint64_t first, count; /* patches: canonical bytes or elements */
  uint32_t rows, cols, bits, vector_dim, weight_bits, tiles, blocks, units;
  uint32_t group_size, group_shift, entries, groups;
} lqt__cu_pack;

/* Flipping staged patches (swap.cu). */
#define LQT__CU_SWAP_BLOCK 65536u
#define LQT__CU_SWAP_WARP 2048u
typedef struct lqt__cu_swap_range {
  uint64_t live, staged, bytes;
} lqt__cu_swap_range;
enum { LQT__CU_SWAP_INDICES = 1, LQT__CU_SWAP_SCALES = 2, LQT__CU_SWAP_TABLE = 3 };
/* pack.from: the staged values (tables: the codebook); pack.to: the packed form (the table). */
typedef struct lqt__cu_swap_job {
  uint32_t kind, reserved;
  lqt__cu_pack pack;
} lqt__cu_swap_job;
typedef struct lqt__cu_swap {
  uint64_t jobs; /* device memory: lqt__cu_swap_range or lqt__cu_swap_job [count] */
  uint64_t count;
} lqt__cu_swap;
typedef struct lqt__cu_swap_all {
  lqt__cu_swap warps, packed, tables;
} lqt__cu_swap_all;

#endif /* LQT_BACKENDS_CUDA_KERNELS_PARAMS_H_ */
