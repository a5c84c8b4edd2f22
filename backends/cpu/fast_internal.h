/* What the files of the fast product share: the packed weight and the kernels' contracts.
 *
 * Packed layout. Rows are cut into blocks of 16, one row a 32-bit lane of a 64-byte vector, so that
 * no kernel needs a horizontal sum. Along k a block is a run of *spans*: 8 columns of 4-bit
 * indices, 16 of 2-bit ones and so on, such that a span is one vector (three for 3-bit indices). A
 * lane of the vector is 32 consecutive bits of the canonical row. Seen as 16-bit words, shift j of
 * a vector brings the indices of the columns (j, j + span/2) of a row to the low bits of its two
 * words: one word permute of a table then gives a pair of values for a two-term dot product. */
#ifndef LQT_BACKENDS_CPU_FAST_INTERNAL_H_
#define LQT_BACKENDS_CPU_FAST_INTERNAL_H_

#include "fast_matmul.h"

enum {
  LQT__FAST_ROWS = 16,     /* rows of a block */
  LQT__FAST_K_ALIGN = 32,  /* columns are padded to this; a multiple of every span */
  LQT__FAST_CHUNK = 64,    /* tokens that are converted and multiplied at a time */
  LQT__FAST_PANEL = 2,     /* row blocks of an int8 tile; the block count is a multiple of it */
  LQT__FAST_KC = 256,      /* columns of an int8 tile */
  LQT__FAST_MAX_COMPS = 4, /* components of a vector codebook */
};

/* Kinds of packed streams. S: scalar codebook, V2 and V4: vector codebooks; then the index width.
 */
typedef enum lqt__fast_kind {
  LQT__FAST_S2,
  LQT__FAST_S3,
  LQT__FAST_S4,
  LQT__FAST_S8,
  LQT__FAST_V2_4,
  LQT__FAST_V4_4,
  LQT__FAST_V2_8,
  LQT__FAST_V4_8,
  LQT__FAST_F32, /* plain weights: [k][16 rows] */
  LQT__FAST_F16,
  LQT__FAST_BF16,
  LQT__FAST_KINDS
} lqt__fast_kind;

typedef struct lqt__fast_format {
  uint8_t bits;       /* of an index; 0 for plain weights */
  uint8_t comps;      /* columns an index covers */
  uint8_t span;       /* columns of a span */
  uint8_t span_bytes; /* of a block */
} lqt__fast_format;

/* In the header so that kernels see constants. */
static const lqt__fast_format lqt__fast_formats[LQT__FAST_KINDS] = {
    [LQT__FAST_S2] = {2, 1, 16, 64},   [LQT__FAST_S3] = {3, 1, 32, 192},
    [LQT__FAST_S4] = {4, 1, 8, 64},    [LQT__FAST_S8] = {8, 1, 4, 64},
    [LQT__FAST_V2_4] = {4, 2, 16, 64}, [LQT__FAST_V4_4] = {4, 4, 32, 64},
    [LQT__FAST_V2_8] = {8, 2, 8, 64},  [LQT__FAST_V4_8] = {8, 4, 16, 64},
    [LQT__FAST_F32] = {0, 1, 2, 128},  [LQT__FAST_F16] = {0, 1, 2, 64},
    [LQT__FAST_BF16] = {0, 1, 2, 64},
};

/* Lookup forms of one codebook. A value is split into two bfloat16 terms, value = main + rest to 16
 * bits, which holds a float16 exactly. Up to 4-bit indices: 32 words, the entries repeated, so that
 * index bits above the width do not matter. 8-bit indices: 256 low bytes, then 256 high bytes. */
typedef struct lqt__fast_tables {
  _Alignas(64) uint8_t main[LQT__FAST_MAX_COMPS][512];
  uint8_t rest[LQT__FAST_MAX_COMPS][512];
  _Alignas(64) float f32[LQT__FAST_MAX_COMPS][256]; /* values, times the residual scale */
  /* Scalar codebooks to 4 bits: value = s8_scale * (s8 + s8_offset), repeated to 64 entries. */
  int8_t s8[64];
  float s8_scale;
  float s8_offset;
  float s8_error;   /* relative l2 error of that form */
  unsigned s8_part; /* columns of an activation scale that goes with it; 0: int8 is too coarse */
  /* Codebooks to 4 bits: value = s16_scale * s16, low bytes and high ones, repeated to 16. */
  _Alignas(16) uint8_t s16[LQT__FAST_MAX_COMPS][2][16];
  float s16_scale;
  float s16_error; /* relative l2 error of that form */
  float factor;    /* that values were multiplied by before they were split */
  float outer;     /* the residual scale, which split values do not have; else 1 */
} lqt__fast_tables;

typedef struct lqt__fast_plane {
  lqt__fast_kind kind;
  uint32_t source_bits; /* of an index in the canonical weight */
  uint64_t block_bytes;
  uint8_t *stream; /* [blocks][kpad / span][span_bytes] */
  uint32_t *mask;  /* [blocks][kpad / 2]: keep bits of the words of a pair vector; NULL: no mask */
  lqt__fast_tables *tables; /* NULL for plain weights */
  float *values;            /* [entries][comps], what the tables are made of */
  uint32_t entries;
  uint64_t bank_stride;
} lqt__fast_plane;

struct lqt__cpu_fast {
  uint64_t rows, cols;
  uint64_t blocks; /* of 16 rows, a multiple of LQT__FAST_PANEL */
  uint64_t kpad;
  uint64_t group;          /* columns a group scale covers; kpad when there are none */
  uint64_t groups;         /* of the padded row */
  uint64_t source_groups;  /* of a canonical row */
  uint64_t source_gstride; /* elements between canonical rows of group scales */
  uint16_t *scales;        /* fp16 [blocks][groups][16]; NULL: no group scales */
  float scale;
  float residual_scale;
  bool centred; /* tables hold the codebook's values less `centre` */
  float centre;
  unsigned planes; /* 1, or 2 with a residual codebook */
  lqt__fast_plane plane[2];
  uint64_t index_stride[2]; /* canonical bytes a row of indices, or of plain data */
  uint64_t mask_stride;
  /* Sparse delta, canonical order; NULL row_ptr: none. */
  uint32_t *delta_row_ptr;
  uint32_t *delta_columns;
  float *delta_values;
  uint64_t delta_count;
  bool delta_f16;
  lqt_dtype value_dtype[2]; /* of the canonical codebooks */
  bool exact;
  lqt__cpu_isa isa;
};

/* Adds the products of one row block with `cols` prepared activation rows to tile[cols][16],
 * without the tensor scale. `cols` is one of the kernel's widths.
 * bf16: x is [cols][kpad] bfloat16, pairs in span order, two to a uint32_t. f32: x is natural. */
typedef void (*lqt__fast_block_fn)(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                   uint64_t block, const void *x, uint64_t x_stride, unsigned cols,
                                   float *tile);
void lqt__fast_block_bf16_avx512(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                 uint64_t block, const void *x, uint64_t x_stride, unsigned cols,
                                 float *tile);
void lqt__fast_block_f32_avx512(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                uint64_t block, const void *x, uint64_t x_stride, unsigned cols,
                                float *tile);
void lqt__fast_block_f32_avx512vbmi(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                    uint64_t block, const void *x, uint64_t x_stride, unsigned cols,
                                    float *tile);
void lqt__fast_block_f32_avx2(const lqt__cpu_fast *w, const lqt__fast_plane *plane, uint64_t block,
                              const void *x, uint64_t x_stride, unsigned cols, float *tile);

/* Activations as 12-bit integers, pairs in the order of a kind's spans, for LQT__FAST_KC columns
 * and 4 tokens at a time: pairs [ceil(kpad / KC)][groups][KC / 2][4], and scales [..][groups][4].
 */
enum { LQT__FAST_INT16_MOST = 2047, LQT__FAST_INT16_TOKENS = 4 };
typedef struct lqt__fast_x16 {
  uint32_t *pairs;
  float *scales;
  uint64_t groups; /* of tokens */
} lqt__fast_x16;
/* One token's. */
void lqt__fast_x_int16_avx2(const float *x, uint64_t cols, uint64_t kpad, unsigned span,
                            unsigned token, const lqt__fast_x16 *out);
/* Adds the products of one row block with all tokens to out[tokens][16], without the scales of the
 * tensor and the table. */
void lqt__fast_block_int16_avx2(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                uint64_t block, const lqt__fast_x16 *x, unsigned tokens,
                                float *out);

/* Activations as bfloat16 pairs in the order of `span`. out: [kpad / 2]. */
void lqt__fast_x_bf16_avx512(const float *x, uint64_t cols, uint64_t kpad, unsigned span,
                             uint32_t *out);

/* Activations of 8 tokens as magnitudes and signs, for the int8 kernel:
 *   quads: of the columns [t * KC, (t + 1) * KC) at quads + t * stride, [KC / 4][2][8]: four
 *     magnitudes (0..255), then four sign bytes (0 or 0xff);
 *   scales [ceil(kpad / part)][8]; sums [kpad / 16][2][8]: of negative magnitudes, of signed ones.
 */
enum {
  LQT__FAST_INT8_COLS = 8,
  LQT__FAST_INT8_PANELS = 2 /* that share a pass over activations */
};
typedef struct lqt__fast_x8 {
  uint32_t *quads;
  uint64_t stride;
  float *scales;
  int32_t *sums;
} lqt__fast_x8;
void lqt__fast_x_int8_avx512(const float *x, uint64_t x_stride, unsigned tokens, uint64_t cols,
                             uint64_t kpad, lqt__fast_kind kind, unsigned part,
                             const lqt__fast_x8 *out);
/* What an accumulator of `unit` columns starts with: [kpad / unit][8]. */
void lqt__fast_int8_starts(const lqt__fast_x8 *x, uint64_t kpad, uint64_t unit, float offset,
                           int32_t *out);
/* Columns that one integer accumulator covers. */
uint64_t lqt__fast_int8_unit(const lqt__cpu_fast *w);
/* A run of the int8 kernel over panels of 32 rows (2 blocks), with `tiles` times 8 tokens. */
typedef struct lqt__fast_int8_run {
  const lqt__fast_x8 *x;
  const int32_t *const *starts;
  unsigned tiles, tokens;
  /* Where the outputs will be stored: fetched during the products, because a store that misses the
   * caches once a token would stop the processor. */
  const float *y;
  uint64_t y_stride;
  /* Takes the products of a panel, tile[tiles * 8][32], without the scales of the tensor and the
   * int8 table; may overwrite them. */
  void (*finish)(const void *context, uint64_t panel, float *tile);
  const void *context;
} lqt__fast_int8_run;
void lqt__fast_panels_int8_avx512(const lqt__cpu_fast *w, uint64_t first, uint64_t end,
                                  const lqt__fast_int8_run *run);

/* What becomes of a tile of products, rows [row, row + n) (n <= 32) of `tokens` tokens:
 * y = factor * tile + delta x + bias (+ y). The tile is overwritten. */
typedef struct lqt__fast_finish {
  const lqt__cpu_product *product; /* y of the chunk's first token */
  const float *x;                  /* the chunk's activations, for the sparse delta */
  uint64_t x_stride;
  const float *xt; /* the same transposed, [cols][LQT__FAST_CHUNK]; NULL: x is read */
  unsigned tokens;
  float factor;
  bool delta; /* add the sparse delta */
} lqt__fast_finish;
void lqt__fast_store_avx2(const lqt__fast_finish *finish, uint64_t row, unsigned n, float *tile,
                          unsigned tile_stride);
/* out[cols][LQT__FAST_CHUNK] from x[tokens][cols]; absent tokens are zero. */
void lqt__fast_transpose(const float *x, uint64_t x_stride, unsigned tokens, uint64_t cols,
                         float *out);

/* Packing. */
LQT_NODISCARD lqt_status lqt__fast_pack(lqt__cpu_fast *w, const lqt_weight_desc *desc,
                                        lqt__pool *pool, lqt_diag *diag);
/* Makes the lookup forms from `values`, and the centre of the codebook. */
void lqt__fast_build_tables(lqt__cpu_fast *w, lqt__fast_plane *plane, float factor);
uint32_t lqt__fast_get_index(const lqt__fast_plane *plane, uint64_t row, uint64_t i);
bool lqt__fast_mask_bit(const lqt__fast_plane *plane, const lqt__cpu_fast *w, uint64_t row,
                        uint64_t col);

#endif /* LQT_BACKENDS_CPU_FAST_INTERNAL_H_ */
