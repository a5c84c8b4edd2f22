/* The CPU backend's own objects and the kernels that an instruction set provides. */
#ifndef LQT_BACKENDS_CPU_CPU_H_
#define LQT_BACKENDS_CPU_CPU_H_

#include <pthread.h>

#include "base/half.h"
#include "base/pool.h"
#include "device/profile.h"
#include "fast_matmul.h"
#include "lqt/backend.h"

typedef struct lqt__cpu_attention lqt__cpu_attention;

/* Query rows [row, row + rows) of a run of tokens of one sequence that begins at `token`. Row r is
 * query head kv_head * group + r % group of token + r / group. */
typedef struct lqt__cpu_attention_task {
  uint32_t token, row, rows, kv_head;
  int32_t first_key, last_key; /* few rows: the positions to go through */
  uint32_t part;               /* few rows: which partial result this makes */
  bool few, last;              /* last: the last part of these rows */
} lqt__cpu_attention_task;

/* Kernels of one instruction set, single-threaded. */
typedef struct lqt__cpu_kernels {
  const char *name; /* "avx512" */
  unsigned width;   /* floats of a vector */

  /* c[i][0..vectors*width) (+)= sum over k of a[i*row_step + k*k_step] * b[k*ldb + ...], i < rows,
   * vectors 1 or 2. The rows of c are ldc floats apart. */
  void (*tile)(const float *a, size_t row_step, size_t k_step, const float *b, size_t ldb,
               size_t depth, float *c, size_t ldc, size_t rows, unsigned vectors, bool accumulate);
  /* out[4*t + r] = sum over n of w[r*w_stride + i] * x[t*x_stride + i], t < tokens <= 4, r < 4; w
   * of `dtype`. */
  void (*dot)(const void *w, size_t w_stride, lqt_dtype dtype, const float *x, size_t x_stride,
              unsigned tokens, size_t n, float *out);
  void (*widen)(const void *in, lqt_dtype dtype, size_t n, float *out); /* F16, BF16, F32 */
  void (*narrow)(const float *in, size_t n, uint16_t *out);             /* to F16 */
  void (*rmsnorm)(const float *x, const float *gain, size_t n, float eps, float *y);
  /* bias may be NULL. */
  void (*layernorm)(const float *x, const float *gain, const float *bias, size_t n, float eps,
                    float *y);
  void (*add)(const float *a, const float *b, size_t n, float *y);
  void (*act)(lqt_act act, const float *x, size_t n, float *y);
  void (*glu)(lqt_act act, const float *gate, const float *up, size_t n, float *y);
  /* (low, high) turned by the angle whose cosine and sine are c and s. */
  void (*rotate)(float *low, float *high, const float *c, const float *s, size_t n);
  /* Values of a codebook row segment inside one bank: out[i] = table[index(first + i)] for scalar
   * codebooks. `table` holds 2^bits floats, at least 16. bits 2, 3, 4 or 8; first a multiple of
   * 16. */
  void (*lookup)(const uint8_t *row, uint32_t bits, const float *table, size_t first, size_t n,
                 float *out);
  void (*scale)(float *values, float factor, size_t n);
  /* task->rows <= 2 * width. scratch: lqt__cpu_attention_scratch floats, 64-byte aligned. */
  void (*attention)(const lqt__cpu_attention *attention, const lqt__cpu_attention_task *task,
                    float *scratch);
  /* task->rows <= LQT__CPU_FEW_ROWS, keys [first_key, last_key]: results still to be divided, and
   * joined with those of other keys. partial: LQT__CPU_FEW_ROWS * (2 + head_dim) floats. */
  void (*attention_few)(const lqt__cpu_attention *attention, const lqt__cpu_attention_task *task,
                        float *partial);
} lqt__cpu_kernels;

extern const lqt__cpu_kernels lqt__cpu_kernels_scalar;
#if defined(__x86_64__)
extern const lqt__cpu_kernels lqt__cpu_kernels_avx2;
extern const lqt__cpu_kernels lqt__cpu_kernels_avx512;
#endif

enum { LQT__CPU_KEY_BLOCK = 64, LQT__CPU_FEW_ROWS = 4 };

struct lqt__cpu_attention {
  const float *q;
  float *out;
  size_t q_stride, out_stride;
  const int32_t *positions, *sequences, *table;
  size_t table_stride;
  const uint8_t *k, *v;      /* pages */
  size_t k_stride, v_stride; /* elements between positions */
  lqt_dtype page_dtype;
  uint32_t page_tokens, window, head_dim, group; /* group: query heads a KV head serves */
  float scale;
};
size_t lqt__cpu_attention_scratch(uint32_t head_dim, unsigned width);

/* The sines and cosines of the last rope: the layers of a step all ask for the same ones. */
typedef struct lqt__cpu_angles {
  float *values; /* cos then sin, [rows][rotary_dim] */
  int32_t *positions;
  float *frequencies;
  size_t rows, capacity_values, capacity_rows, capacity_frequencies;
  uint32_t rotary_dim;
  float scale;
} lqt__cpu_angles;

typedef struct lqt__cpu_device {
  lqt_device base;
  bool oracle, exact;
  lqt__cpu_isa isa;
  const lqt__cpu_kernels *kernels;
  lqt__pool *pool;       /* NULL: one thread */
  pthread_mutex_t mutex; /* the pool and the scratch have one user at a time */
  float *scratch, *side; /* side: activations of the products with parts of a weight */
  size_t scratch_bytes, side_bytes;
  lqt__cpu_angles angles;
  lqt__profile profile;
} lqt__cpu_device;

typedef struct lqt__cpu_buffer {
  lqt_buffer base;
  uint8_t *data;
} lqt__cpu_buffer;

typedef struct lqt__cpu_weight {
  lqt_weight base;
  /* Our copy; codebooks as float32, each bank padded to 2^bits entries; indices NULL when `fast`
   * holds them. */
  lqt_weight_desc canon;
  uint64_t book_stride; /* bank_stride of the caller's codebook */
  lqt_dtype book_dtype, residual_dtype;
  lqt__cpu_fast *fast; /* NULL: the generic path */
  /* Parts that the fast product leaves out, and that are products of their own (matmul.c). */
  bool side_zero, side_delta;
  void *blocks[16]; /* what canon points to */
  unsigned block_count;
  uint64_t version; /* another number for other contents; staged patches look at it */
} lqt__cpu_weight;

static inline lqt__cpu_device *lqt__cpu_device_of(lqt_device *device) {
  return (lqt__cpu_device *)device;
}
static inline const lqt__cpu_weight *lqt__cpu_weight_of(const lqt_weight *weight) {
  return (const lqt__cpu_weight *)weight;
}
/* Value `index` of F16 or F32 values. */
static inline float lqt__cpu_value(const void *values, lqt_dtype dtype, uint64_t index) {
  return dtype == LQT_DTYPE_F16 ? lqt__f32_from_f16(((const uint16_t *)values)[index])
                                : ((const float *)values)[index];
}
/* First element of a view. */
static inline void *lqt__cpu_data(const lqt_view *view) {
  return ((lqt__cpu_buffer *)view->buffer)->data + view->offset;
}

/* At least `bytes` bytes, 64-byte aligned, valid until the next call; NULL without memory. */
void *lqt__cpu_scratch(lqt__cpu_device *device, size_t bytes);
/* The same of another block. */
void *lqt__cpu_side_scratch(lqt__cpu_device *device, size_t bytes);

LQT_NODISCARD lqt_status lqt__cpu_weight_create(lqt_device *device, const lqt_weight_desc *desc,
                                                lqt_weight **out, lqt_diag *diag);
/* The same on the pool given (NULL: this thread alone), without the device's mutex. */
LQT_NODISCARD lqt_status lqt__cpu_weight_build(lqt__cpu_device *device, const lqt_weight_desc *desc,
                                               lqt__pool *pool, lqt__cpu_weight **out,
                                               lqt_diag *diag);
void lqt__cpu_weight_destroy(lqt_weight *weight);
LQT_NODISCARD lqt_status lqt__cpu_weight_patch(lqt_weight *weight, const lqt_weight_patch *patches,
                                               size_t count, lqt_diag *diag);
/* Bytes of room that exchanging or checking these patches needs. */
uint64_t lqt__cpu_patch_room(const lqt__cpu_weight *weight, const lqt_weight_patch *patches,
                             size_t count);
/* Applies the patches, all or none, and leaves in their data what they replaced. */
LQT_NODISCARD lqt_status lqt__cpu_weight_exchange(lqt__cpu_weight *weight,
                                                  const lqt_weight_patch *patches, size_t count,
                                                  uint8_t *room, lqt_diag *diag);
/* Would every index have an entry? */
LQT_NODISCARD lqt_status lqt__cpu_patch_check(lqt__cpu_weight *weight,
                                              const lqt_weight_patch *patch, uint8_t *room,
                                              lqt_diag *diag);
/* Canonical elements of a part. Indices need a row of them and a byte a column as room. */
void lqt__cpu_part_read(lqt__cpu_weight *weight, lqt_weight_part part, uint64_t first,
                        uint64_t count, uint8_t *room, uint8_t *out);
/* A number that no contents had yet. */
uint64_t lqt__cpu_new_version(void);

LQT_NODISCARD lqt_status lqt__cpu_patch_create(lqt_device *device, const lqt_patch_change *changes,
                                               size_t count, lqt_patch **out, lqt_diag *diag);
LQT_NODISCARD lqt_status lqt__cpu_patch_wait(lqt_patch *patch, lqt_diag *diag);
LQT_NODISCARD lqt_status lqt__cpu_patch_flip(lqt_patch *patch, lqt_diag *diag);
void lqt__cpu_patch_destroy(lqt_patch *patch);
LQT_NODISCARD lqt_status lqt__cpu_weight_digest(lqt_weight *weight, uint64_t *out_digest,
                                                lqt_diag *diag);

/* Columns [col, col + n) of one row in float32 by the vector kernels; col a multiple of 256. */
void lqt__cpu_weight_row(const lqt__cpu_weight *weight, const lqt__cpu_kernels *kernels,
                         uint64_t row, uint64_t col, uint64_t n, float *out);

/* Runs one op whose contract and indices were checked. */
void lqt__cpu_topk(const lqt_op *op);
LQT_NODISCARD lqt_status lqt__cpu_oracle_op(lqt__cpu_device *device, const lqt_op *op,
                                            lqt_diag *diag);
LQT_NODISCARD lqt_status lqt__cpu_vector_op(lqt__cpu_device *device, const lqt_op *op,
                                            lqt_diag *diag);
LQT_NODISCARD lqt_status lqt__cpu_matmul(lqt__cpu_device *device, const lqt_op *op, lqt_diag *diag);
LQT_NODISCARD lqt_status lqt__cpu_attention_op(lqt__cpu_device *device, const lqt_op *op,
                                               lqt_diag *diag);
/* Ids, positions, sequences and pages that an op reads are inside their tables. */
LQT_NODISCARD lqt_status lqt__cpu_check_indices(const lqt_op *op, lqt_diag *diag);

const lqt_backend *lqt_backend_cpu(void);

#endif /* LQT_BACKENDS_CPU_CPU_H_ */
