/* The ops around the products: embedding, norms, rotary, elementwise, gather, and the general
 * product and reconstruction for weights that no fused kernel takes. Activations are f16 or f32;
 * arithmetic is float32. Ids and rows from device memory are clamped to their tables. */
#include "value.cuh"

template <typename T>
__device__ __forceinline__ float get(uint64_t base, uint64_t i);
template <>
__device__ __forceinline__ float get<float>(uint64_t base, uint64_t i) {
  return reinterpret_cast<const float *>(base)[i];
}
template <>
__device__ __forceinline__ float get<__half>(uint64_t base, uint64_t i) {
  return __half2float(reinterpret_cast<const __half *>(base)[i]);
}
__device__ __forceinline__ void put(float *p, float v) { *p = v; }
__device__ __forceinline__ void put(__half *p, float v) { *p = __float2half(v); }
template <typename T>
__device__ __forceinline__ void set(uint64_t base, uint64_t i, float v) {
  put(reinterpret_cast<T *>(base) + i, v);
}

__device__ __forceinline__ uint32_t clamp_id(int32_t id, uint32_t count) {
  return id < 0 ? 0 : min((uint32_t)id, count - 1);
}
__device__ __forceinline__ int32_t int_at(uint64_t base, uint64_t i) {
  return reinterpret_cast<const int32_t *>(base)[i];
}

/* Sum over the block, the same in every thread. */
__device__ __forceinline__ float block_sum(float v) {
  __shared__ float part[32];
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  __syncthreads();
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < (int)(blockDim.x >> 5); i++) sum += part[i];
  return sum;
}

template <typename T>
__device__ void embed(const lqt__cu_op &p) {
  const uint32_t t = blockIdx.y, row = clamp_id(int_at(p.in[0], t), p.weight.rows);
  for (uint32_t c = blockIdx.x * blockDim.x + threadIdx.x; c < p.cols; c += gridDim.x * blockDim.x)
    set<T>(p.out[0], t * p.out_stride[0] + c, weight_value(p.weight, row, c));
}

template <typename T, bool LAYER>
__device__ void norm(const lqt__cu_op &p) {
  const uint64_t in = blockIdx.x * p.in_stride[0], out = blockIdx.x * p.out_stride[0];
  float mean = 0;
  if (LAYER) {
    float sum = 0;
    for (uint32_t c = threadIdx.x; c < p.cols; c += blockDim.x) sum += get<T>(p.in[0], in + c);
    mean = block_sum(sum) / p.cols;
  }
  float square = 0;
  for (uint32_t c = threadIdx.x; c < p.cols; c += blockDim.x) {
    float v = get<T>(p.in[0], in + c) - mean;
    square = fmaf(v, v, square);
  }
  const float inverse = rsqrtf(block_sum(square) / p.cols + p.eps);
  for (uint32_t c = threadIdx.x; c < p.cols; c += blockDim.x) {
    float v = (get<T>(p.in[0], in + c) - mean) * inverse * get<float>(p.in[1], c);
    if (LAYER && p.in[2]) v += get<float>(p.in[2], c);
    set<T>(p.out[0], out + c, v);
  }
}

template <typename T>
__device__ void rope(const lqt__cu_op &p) {
  const uint32_t t = blockIdx.y, half = p.rotary_dim / 2;
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= p.heads * half) return;
  const uint32_t head = i / half, pair = i % half;
  const float angle = (float)int_at(p.in[0], t) * get<float>(p.in[1], pair);
  float sine, cosine;
  sincosf(angle, &sine, &cosine);
  sine *= p.scale, cosine *= p.scale;
  const uint64_t base = t * p.out_stride[0] + (uint64_t)head * p.head_dim;
  const uint64_t a = base + (p.interleaved ? 2 * pair : pair);
  const uint64_t b = p.interleaved ? a + 1 : a + half;
  const float x = get<T>(p.out[0], a), y = get<T>(p.out[0], b);
  set<T>(p.out[0], a, x * cosine - y * sine);
  set<T>(p.out[0], b, x * sine + y * cosine);
}

template <typename T, typename P>
__device__ void kv_write(const lqt__cu_op &p) {
  const uint32_t t = blockIdx.y;
  const uint32_t position = max(int_at(p.in[2], t), 0);
  const uint32_t sequence = clamp_id(int_at(p.in[3], t), p.in_rows);
  const uint32_t slot = min(position / p.page_tokens, p.table_cols - 1);
  const int32_t page = int_at(p.in[4], sequence * p.in_stride[4] + slot);
  const uint64_t row = (uint64_t)clamp_id(page, p.page_rows / p.page_tokens) * p.page_tokens +
                       position % p.page_tokens;
  for (uint32_t c = blockIdx.x * blockDim.x + threadIdx.x; c < p.cols;
       c += gridDim.x * blockDim.x) {
    set<P>(p.out[0], row * p.out_stride[0] + c, get<T>(p.in[0], t * p.in_stride[0] + c));
    set<P>(p.out[1], row * p.out_stride[1] + c, get<T>(p.in[1], t * p.in_stride[1] + c));
  }
}

__device__ __forceinline__ float act_of(uint32_t act, float x) {
  switch (act) {
    case 0:
      return x / (1.0f + expf(-x));
    case 1:
      return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case 2:
      return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    default:
      return fmaxf(x, 0.0f);
  }
}

/* KIND 0: act(in0) * in1, 1: act(in0), 2: in0 + in1. */
template <typename T, int KIND>
__device__ void elementwise(const lqt__cu_op &p) {
  const uint32_t t = blockIdx.y;
  for (uint32_t c = blockIdx.x * blockDim.x + threadIdx.x; c < p.cols;
       c += gridDim.x * blockDim.x) {
    float a = get<T>(p.in[0], t * p.in_stride[0] + c);
    float v = KIND == 2 ? a : act_of(p.act, a);
    if (KIND == 0) v *= get<T>(p.in[1], t * p.in_stride[1] + c);
    if (KIND == 2) v += get<T>(p.in[1], t * p.in_stride[1] + c);
    set<T>(p.out[0], t * p.out_stride[0] + c, v);
  }
}

template <typename T>
__device__ void gather(const lqt__cu_op &p) {
  const uint32_t t = blockIdx.y, row = clamp_id(int_at(p.in[1], t), p.in_rows);
  const T *from = reinterpret_cast<const T *>(p.in[0]) + row * p.in_stride[0];
  T *to = reinterpret_cast<T *>(p.out[0]) + t * p.out_stride[0];
  for (uint32_t c = blockIdx.x * blockDim.x + threadIdx.x; c < p.cols; c += gridDim.x * blockDim.x)
    to[c] = from[c];
}

extern "C" __global__ void lqt_dequant_any(const __grid_constant__ lqt__cu_op p) {
  for (uint32_t r = blockIdx.y; r < p.rows; r += gridDim.y)
    for (uint32_t c = blockIdx.x * blockDim.x + threadIdx.x; c < p.cols;
         c += gridDim.x * blockDim.x)
      reinterpret_cast<float *>(p.out[0])[r * p.out_stride[0] + c] = weight_value(p.weight, r, c);
}

template <typename T>
__device__ __forceinline__ void finish(const lqt__cu_op &p, uint32_t t, uint32_t row, float sum) {
  const uint64_t at = t * p.out_stride[0] + row;
  if (p.in[1]) sum += get<float>(p.in[1], row);
  if (p.accumulate) sum += get<T>(p.out[0], at);
  set<T>(p.out[0], at, sum);
}

/* Any weight, up to 8 tokens from token blockIdx.y * 8 on: a warp reconstructs a row. */
template <typename T>
__device__ void matmul_rows(const lqt__cu_op &p) {
  const uint32_t lane = threadIdx.x & 31, row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  const uint32_t t0 = blockIdx.y * 8, count = min(8u, p.rows - t0);
  if (row >= p.weight.rows) return;
  float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (uint32_t c = lane; c < p.cols; c += 32) {
    const float w = weight_value(p.weight, row, c);
#pragma unroll
    for (uint32_t i = 0; i < 8; i++)
      if (i < count) sum[i] = fmaf(w, get<T>(p.in[0], (t0 + i) * p.in_stride[0] + c), sum[i]);
  }
#pragma unroll
  for (uint32_t i = 0; i < 8; i++) {
    for (int o = 16; o; o >>= 1) sum[i] += __shfl_xor_sync(~0u, sum[i], o);
    if (lane == 0 && i < count) finish<T>(p, t0 + i, row, sum[i]);
  }
}

/* Any weight, many tokens: 64 rows x 64 tokens a block of 256 threads, 16 columns at a time. */
template <typename T>
__device__ void matmul_tile(const lqt__cu_op &p) {
  __shared__ float ws[16][65], xs[16][65];
  const uint32_t row0 = blockIdx.x * 64, t0 = blockIdx.y * 64;
  const uint32_t tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
  float acc[4][4] = {};
  for (uint32_t k0 = 0; k0 < p.cols; k0 += 16) {
    for (uint32_t i = threadIdx.x; i < 1024; i += 256) {
      const uint32_t k = i & 15, r = i >> 4;
      const bool in = k0 + k < p.cols;
      ws[k][r] = in && row0 + r < p.weight.rows ? weight_value(p.weight, row0 + r, k0 + k) : 0.0f;
      xs[k][r] = in && t0 + r < p.rows ? get<T>(p.in[0], (t0 + r) * p.in_stride[0] + k0 + k) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < 16; k++) {
      float a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; i++) a[i] = ws[k][tx + 16 * i], b[i] = xs[k][ty + 16 * i];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const uint32_t row = row0 + tx + 16 * i, t = t0 + ty + 16 * j;
      if (row < p.weight.rows && t < p.rows) finish<T>(p, t, row, acc[i][j]);
    }
}

/* out0 += in0 * delta^T for a sparse (row-compressed) delta: a warp a row, 8 tokens at a time. */
template <typename T>
__device__ void delta_rows(const lqt__cu_op &p) {
  const uint32_t lane = threadIdx.x & 31, row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  const uint32_t t0 = blockIdx.y * 8, count = min(8u, p.rows - t0);
  if (row >= p.weight.rows) return;
  const uint32_t *ptr = reinterpret_cast<const uint32_t *>(p.weight.delta_row_ptr);
  const uint32_t first = ptr[row], end = ptr[row + 1];
  if (first == end) return;
  float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  for (uint32_t i = first + lane; i < end; i += 32) {
    const uint32_t c = p.weight.delta_columns16
                           ? reinterpret_cast<const uint16_t *>(p.weight.delta_columns)[i]
                           : reinterpret_cast<const uint32_t *>(p.weight.delta_columns)[i];
    const float w = value_of(p.weight.delta_values, i, p.weight.delta_f32);
#pragma unroll
    for (uint32_t q = 0; q < 8; q++)
      if (q < count) sum[q] = fmaf(w, get<T>(p.in[0], (t0 + q) * p.in_stride[0] + c), sum[q]);
  }
#pragma unroll
  for (uint32_t q = 0; q < 8; q++) {
    for (int o = 16; o; o >>= 1) sum[q] += __shfl_xor_sync(~0u, sum[q], o);
    if (lane == 0 && q < count) {
      const uint64_t at = (t0 + q) * p.out_stride[0] + row;
      set<T>(p.out[0], at, get<T>(p.out[0], at) + sum[q]);
    }
  }
}

#define KERNEL(name, call, suffix)                                                         \
  extern "C" __global__ void lqt_##name##_##suffix(const __grid_constant__ lqt__cu_op p) { \
    call(p);                                                                               \
  }
#define KERNELS(name, fn)       \
  KERNEL(name, fn<__half>, f16) \
  KERNEL(name, fn<float>, f32)
KERNELS(embed, embed)
KERNELS(rope, rope)
KERNELS(gather, gather)
KERNELS(matmul_rows, matmul_rows)
KERNELS(matmul_tile, matmul_tile)
KERNELS(delta_rows, delta_rows)
#define KERNEL2(name, T, arg, fn, suffix)                                                  \
  extern "C" __global__ void lqt_##name##_##suffix(const __grid_constant__ lqt__cu_op p) { \
    fn<T, arg>(p);                                                                         \
  }
#define KERNELS2(name, arg, fn)       \
  KERNEL2(name, __half, arg, fn, f16) \
  KERNEL2(name, float, arg, fn, f32)
KERNELS2(rmsnorm, false, norm)
KERNELS2(layernorm, true, norm)
KERNELS2(glu, 0, elementwise)
KERNELS2(act, 1, elementwise)
KERNELS2(add, 2, elementwise)
KERNEL2(kv_write, __half, __half, kv_write, f16_f16)
KERNEL2(kv_write, __half, float, kv_write, f16_f32)
KERNEL2(kv_write, float, __half, kv_write, f32_f16)
KERNEL2(kv_write, float, float, kv_write, f32_f32)

/* Attention of one token and head over one part of the sequence, 128 threads: a thread scores a
 * position, then a thread sums a component. With several parts each leaves (max, sum, components)
 * in the scratch memory, and lqt_attention_join puts them together. */
#define ATTENTION_THREADS 128
#define ATTENTION_DIMS 8 /* components a thread, so heads of up to 1024 */

template <typename T, typename P>
__device__ void attention(const lqt__cu_op &p) {
  extern __shared__ float sm[]; /* query[head_dim], probabilities[128] */
  float *query = sm, *prob = sm + p.head_dim;
  __shared__ uint32_t rows[ATTENTION_THREADS];
  __shared__ float reduce[8];
  const uint32_t head = blockIdx.x, t = blockIdx.y, part = blockIdx.z, tid = threadIdx.x;
  const uint32_t kv = head / (p.heads / p.kv_heads), D = p.head_dim;
  const uint32_t limit = p.table_cols * p.page_tokens;
  const uint32_t end_all = min((uint32_t)max(int_at(p.in[1], t) + 1, 0), limit);
  const uint32_t begin_all = p.window && end_all > p.window ? end_all - p.window : 0;
  const uint32_t begin = max(begin_all, part * p.chunk), end = min(end_all, (part + 1) * p.chunk);
  const uint32_t sequence = clamp_id(int_at(p.in[2], t), p.in_rows);
  const uint32_t pages = p.page_rows / p.page_tokens;
  for (uint32_t d = tid; d < D; d += ATTENTION_THREADS)
    query[d] = get<T>(p.in[0], t * p.in_stride[0] + (uint64_t)head * D + d) * p.scale;
  float acc[ATTENTION_DIMS] = {};
  float largest = -INFINITY, total = 0;
  for (uint32_t at = begin; at < end; at += ATTENTION_THREADS) {
    const uint32_t position = at + tid, count = min((uint32_t)ATTENTION_THREADS, end - at);
    __syncthreads();
    float score = -INFINITY;
    if (tid < count) {
      const int32_t page = int_at(p.in[5], sequence * p.in_stride[5] + position / p.page_tokens);
      const uint32_t row = clamp_id(page, pages) * p.page_tokens + position % p.page_tokens;
      rows[tid] = row;
      const uint64_t k = row * p.in_stride[3] + (uint64_t)kv * D;
      float a = 0, b = 0, c = 0, e = 0;
      uint32_t d = 0;
      for (; d + 4 <= D; d += 4) {
        a = fmaf(query[d], get<P>(p.in[3], k + d), a);
        b = fmaf(query[d + 1], get<P>(p.in[3], k + d + 1), b);
        c = fmaf(query[d + 2], get<P>(p.in[3], k + d + 2), c);
        e = fmaf(query[d + 3], get<P>(p.in[3], k + d + 3), e);
      }
      for (; d < D; d++) a = fmaf(query[d], get<P>(p.in[3], k + d), a);
      score = (a + b) + (c + e);
    }
    float high = score;
    for (int o = 16; o; o >>= 1) high = fmaxf(high, __shfl_xor_sync(~0u, high, o));
    if ((tid & 31) == 0) reduce[tid >> 5] = high;
    __syncthreads();
    high = fmaxf(fmaxf(reduce[0], reduce[1]), fmaxf(reduce[2], reduce[3]));
    const float next = fmaxf(largest, high);
    const float value = tid < count ? expf(score - next) : 0.0f;
    prob[tid] = value;
    float sum = value;
    for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    if ((tid & 31) == 0) reduce[4 + (tid >> 5)] = sum;
    __syncthreads();
    const float shrink = largest == -INFINITY ? 0.0f : expf(largest - next);
    total = total * shrink + ((reduce[4] + reduce[5]) + (reduce[6] + reduce[7]));
    largest = next;
#pragma unroll
    for (int i = 0; i < ATTENTION_DIMS; i++) acc[i] *= shrink;
    for (uint32_t q = 0; q < count; q++) {
      const uint64_t v = rows[q] * p.in_stride[4] + (uint64_t)kv * D;
      const float weight = prob[q];
#pragma unroll
      for (int i = 0; i < ATTENTION_DIMS; i++) {
        const uint32_t d = tid + i * ATTENTION_THREADS;
        if (d < D) acc[i] = fmaf(weight, get<P>(p.in[4], v + d), acc[i]);
      }
    }
  }
  if (p.splits > 1) {
    float *to = reinterpret_cast<float *>(p.scratch) +
                (((uint64_t)t * p.heads + head) * p.splits + part) * (D + 2);
    if (tid == 0) to[0] = largest, to[1] = total;
    for (int i = 0; i < ATTENTION_DIMS; i++) {
      const uint32_t d = tid + i * ATTENTION_THREADS;
      if (d < D) to[2 + d] = acc[i];
    }
    return;
  }
  for (int i = 0; i < ATTENTION_DIMS; i++) {
    const uint32_t d = tid + i * ATTENTION_THREADS;
    if (d < D)
      set<T>(p.out[0], t * p.out_stride[0] + (uint64_t)head * D + d,
             total > 0 ? acc[i] / total : 0.0f);
  }
}

template <typename T>
__device__ void attention_join(const lqt__cu_op &p) {
  const uint32_t head = blockIdx.x, t = blockIdx.y, D = p.head_dim;
  const float *from = reinterpret_cast<const float *>(p.scratch) +
                      ((uint64_t)t * p.heads + head) * p.splits * (D + 2);
  float largest = -INFINITY, total = 0;
  for (uint32_t s = 0; s < p.splits; s++) largest = fmaxf(largest, from[s * (D + 2)]);
  for (uint32_t s = 0; s < p.splits; s++)
    if (from[s * (D + 2) + 1] > 0)
      total += from[s * (D + 2) + 1] * expf(from[s * (D + 2)] - largest);
  for (uint32_t d = threadIdx.x; d < D; d += blockDim.x) {
    float sum = 0;
    for (uint32_t s = 0; s < p.splits; s++)
      if (from[s * (D + 2) + 1] > 0)
        sum += from[s * (D + 2) + 2 + d] * expf(from[s * (D + 2)] - largest);
    set<T>(p.out[0], t * p.out_stride[0] + (uint64_t)head * D + d, total > 0 ? sum / total : 0.0f);
  }
}

KERNEL2(attention, __half, __half, attention, f16_f16)
KERNEL2(attention, __half, float, attention, f16_f32)
KERNEL2(attention, float, __half, attention, f32_f16)
KERNEL2(attention, float, float, attention, f32_f32)
KERNELS(attention_join, attention_join)
