/* Operations: what a backend computes, and the calls that run them one by one.
 *
 * An lqt_op is plain data. Programs of ops are what a session submits; `lqt selftest` and the
 * benches use the same calls. Activations of the CPU backend are float32; GPU backends take float16
 * too. */
#ifndef LQT_OP_H_
#define LQT_OP_H_

#include "lqt/device.h"
#include "lqt/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A matrix (or vector, rows = 1) in a device buffer: element (r, c) at
 * offset + (r * row_stride + c) * sizeof(dtype). */
typedef struct lqt_view {
  lqt_buffer *buffer; /* NULL: operand absent */
  uint64_t offset;    /* bytes */
  uint64_t rows, cols;
  uint64_t row_stride; /* elements */
  lqt_dtype dtype;
  uint32_t reserved;
} lqt_view;

/* T = tokens of the step (rows of most operands). Operands by kind; `in`, `out`, `weight` slots:
 *
 * EMBED      out0[T][K] = row in0[t] of weight0[V][K].  in0: ids I32 [1][T].
 * RMSNORM    out0[t] = in0[t] / sqrt(mean(in0[t]^2) + eps) * in1.  in1: gain [1][K].
 * LAYERNORM  out0[t] = (in0[t] - mean) / sqrt(var + eps) * in1 + in2.  in2: bias, may be absent.
 * MATMUL     out0[T][N] = in0[T][K] * weight0[N][K]^T (+ in1 bias [1][N]) (+ out0 if accumulate).
 *            With weight1/weight2 (after weight1) out1/out2 get their products of in0; their
 *            biases are in2/in3.
 * ROPE       rotates the heads of out0[T][heads*D] in place by position in0[t] (I32 [1][T]) with
 *            inverse frequencies in1 [1][rotary_dim/2] F32; pairs (i, i + rotary_dim/2) unless
 *            interleaved, then (2i, 2i + 1). attn_scale multiplies sin and cos.
 * KV_WRITE   writes in0 (K rows) and in1 (V rows), both [T][kv_heads*D], into the pages out0 (K)
 *            and out1 (V): token t goes to position in2[t] of sequence in3[t] (I32 [1][T] both)
 *            through the page table in4 I32 [sequences][max_pages].
 * ATTENTION  out0[T][heads*D]: token t attends to positions 0..in1[t] of sequence in2[t] (I32
 *            [1][T] both) in the pages in3 (K) and in4 (V) through the page table in5. in0:
 *            queries [T][heads*D]. With `window` > 0 only the last `window` positions are seen.
 * GLU        out0 = act(in0) * in1, elementwise.
 * ACT        out0 = act(in0), elementwise.
 * ADD        out0 = in0 + in1, elementwise.
 * GATHER     out0[i] = row in1[i] of in0.  in1: I32 [1][rows of out0].
 * DEQUANT    out0[N][K] F32 = the reconstructed weight0.
 * TOPK       out0[T][k] F32 and out1[T][k] I32: the k largest values of each row of in0[T][N] and
 *            their columns, largest first, the lower column first among equals; a NaN counts as the
 *            largest. k from 1 to N and LQT_TOPK_MOST. Not every device has it: lqt_device_has_op.
 *
 * A page holds `page_tokens` positions: a pages view is [pages * page_tokens][kv_heads*D], F16 or
 * F32; position p of sequence s is its row table[s][p / page_tokens] * page_tokens + p %
 * page_tokens. Activations of one op have one type, F32 or F16; gains, biases and frequencies are
 * F32. T = 0 is allowed and does nothing. Outputs overlap no input, except that out0 may be in0 (or
 * in1) exactly in RMSNORM, LAYERNORM, GLU, ACT and ADD. Ids, positions and page numbers outside
 * their tables are the caller's fault: the CPU backend answers LQT_OUT_OF_RANGE, others may read
 * anything inside their buffers. */
typedef enum lqt_op_kind {
  LQT_OP_EMBED = 1,
  LQT_OP_RMSNORM = 2,
  LQT_OP_LAYERNORM = 3,
  LQT_OP_MATMUL = 4,
  LQT_OP_ROPE = 5,
  LQT_OP_KV_WRITE = 6,
  LQT_OP_ATTENTION = 7,
  LQT_OP_GLU = 8,
  LQT_OP_ACT = 9,
  LQT_OP_ADD = 10,
  LQT_OP_GATHER = 11,
  LQT_OP_DEQUANT = 12,
  LQT_OP_TOPK = 13,
  LQT_OP_COUNT_,
  LQT_OP_MAX_ = 0x7fffffff
} lqt_op_kind;

typedef enum lqt_act {
  LQT_ACT_SILU = 0,
  LQT_ACT_GELU = 1, /* exact, erf */
  LQT_ACT_GELU_TANH = 2,
  LQT_ACT_RELU = 3,
  LQT_ACT_MAX_ = 0x7fffffff
} lqt_act;

#define LQT_TOPK_MOST 1024

#define LQT_OP_MAX_IN 6
#define LQT_OP_MAX_OUT 3

typedef struct lqt_op {
  lqt_op_kind kind;
  uint32_t label; /* caller's number, given back by the profile */
  lqt_view in[LQT_OP_MAX_IN];
  lqt_view out[LQT_OP_MAX_OUT];
  lqt_weight *weight[LQT_OP_MAX_OUT];
  float eps;         /* norms */
  float attn_scale;  /* ATTENTION: of the scores; ROPE: of sin and cos */
  uint32_t heads;    /* ROPE, ATTENTION: query heads */
  uint32_t kv_heads; /* KV_WRITE, ATTENTION */
  uint32_t head_dim;
  uint32_t rotary_dim;  /* ROPE: at most head_dim, even */
  uint32_t page_tokens; /* KV_WRITE, ATTENTION */
  uint32_t window;      /* ATTENTION */
  lqt_act act;          /* GLU, ACT */
  bool interleaved;     /* ROPE */
  bool accumulate;      /* MATMUL */
} lqt_op;

/* "matmul", ... ; "?" for unknown kinds. Threads: any. */
LQT_API const char *lqt_op_name(lqt_op_kind kind);

/* Every device runs every kind but TOPK, which some leave out. Threads: any. */
LQT_API bool lqt_device_has_op(const lqt_device *device, lqt_op_kind kind);

/* Checks an op against its contract: operands present, shapes and dtypes consistent, views inside
 * their buffers. Every backend relies on it. Threads: any. Errors: LQT_INVALID_ARGUMENT. */
LQT_API LQT_NODISCARD lqt_status lqt_op_check(const lqt_op *op, lqt_diag *diag);

/* Uploads a weight: the backend repacks it into its own layout. `desc` and what it points to are
 * not needed afterwards. Owns: the caller releases with lqt_weight_destroy before the device goes.
 * Threads: any. Errors: LQT_INVALID_ARGUMENT, LQT_(DEVICE_)OUT_OF_MEMORY, LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_weight_create(lqt_device *device, const lqt_weight_desc *desc,
                                                   lqt_weight **out_weight, lqt_diag *diag);
LQT_API void lqt_weight_destroy(lqt_weight *weight);
/* Bytes that a product with this weight must read from memory (indices, scales, codebooks, deltas,
 * masks, each once). Threads: any. */
LQT_API uint64_t lqt_weight_bytes(const lqt_weight *weight);
/* Replaces bytes of an uploaded weight in place. All patches or none: they are checked first.
 * Must not run beside ops that read the weight (the engine's gate sees to it).
 * Threads: one-at-a-time. Errors: LQT_OUT_OF_RANGE, LQT_INVALID_ARGUMENT, LQT_UNSUPPORTED. */
LQT_API LQT_NODISCARD lqt_status lqt_weight_patch_apply(lqt_weight *weight,
                                                        const lqt_weight_patch *patches,
                                                        size_t count, lqt_diag *diag);

/* Runs ops in order; returns when they are done and their outputs may be read.
 * Threads: one-at-a-time per device. Errors: LQT_INVALID_ARGUMENT (a contract is broken; nothing
 * ran), LQT_UNSUPPORTED (see lqt_device_has_op), LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_device_run(lqt_device *device, const lqt_op *ops, size_t count,
                                                lqt_diag *diag);

/* Bytes between host memory and a buffer, as part of a program's run. */
typedef struct lqt_transfer {
  lqt_buffer *buffer;
  uint64_t offset, bytes;
  void *data; /* read from on the way in, written to on the way out */
} lqt_transfer;

/* Ops that are checked once and run many times with the same operands: what changes from run to run
 * stands in the buffers. A device may record them (CUDA: a graph, from the second run on). Patches
 * of weights between runs are seen. Owns: the caller; destroy before the buffers and weights.
 * Threads: any. Errors: LQT_INVALID_ARGUMENT, LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_program_create(lqt_device *device, const lqt_op *ops,
                                                    size_t count, lqt_program **out_program,
                                                    lqt_diag *diag);
LQT_API void lqt_program_destroy(lqt_program *program); /* NULL accepted */
/* Writes `in`, runs the ops, reads `out`; returns when all is done.
 * Threads: one-at-a-time per device. Errors: LQT_OUT_OF_RANGE (a transfer leaves its buffer;
 * nothing ran), LQT_INVALID_ARGUMENT, LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_program_run(lqt_program *program, const lqt_transfer *in,
                                                 size_t in_count, const lqt_transfer *out,
                                                 size_t out_count, lqt_diag *diag);

/* The name of the kernel variant that would run the op ("lqt_matmul_cb4g64_f32_m1__avx512").
 * Static storage. Threads: any. */
LQT_API const char *lqt_device_variant(lqt_device *device, const lqt_op *op);

#ifdef __cplusplus
}
#endif
#endif /* LQT_OP_H_ */
