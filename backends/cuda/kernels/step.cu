/* The small ops of a decoder step in float16, shaped for few tokens: 16-byte accesses, one pass,
 * and a start that overlaps the end of the kernel before. */
#include "common.cuh"
#include "step_params.h"

__device__ __forceinline__ void widen(float (&out)[8], const uint4 &v) {
  const __half2 *h = reinterpret_cast<const __half2 *>(&v);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 f = __half22float2(h[i]);
    out[2 * i] = f.x, out[2 * i + 1] = f.y;
  }
}
__device__ __forceinline__ uint4 narrow(const float (&in)[8]) {
  uint4 v;
  __half2 *h = reinterpret_cast<__half2 *>(&v);
#pragma unroll
  for (int i = 0; i < 4; i++) h[i] = __floats2half2_rn(in[2 * i], in[2 * i + 1]);
  return v;
}

/* ---- out = in / rms(in) * gain, rows of up to 8 * STEP_NORM_PIECES * 1024 columns ---- */

#define STEP_NORM_PIECES 2

extern "C" __global__ __launch_bounds__(1024) void lqt_rmsnorm_wide_f16(
    const __grid_constant__ lqt__cu_op p) {
  __shared__ float part[32];
  const uint32_t t = blockIdx.x, pieces = p.cols / 8, lane = threadIdx.x & 31;
  const uint4 *in = reinterpret_cast<const uint4 *>(p.in[0] + t * p.in_stride[0] * 2);
  const float4 *gains = reinterpret_cast<const float4 *>(p.in[1]);
  uint4 *out = reinterpret_cast<uint4 *>(p.out[0] + t * p.out_stride[0] * 2);
  launch_dependents();
  float gain[STEP_NORM_PIECES][8], x[STEP_NORM_PIECES][8];
#pragma unroll
  for (int i = 0; i < STEP_NORM_PIECES; i++) {
    const uint32_t c = threadIdx.x + i * blockDim.x;
    if (c >= pieces) continue;
    const float4 a = __ldg(gains + 2 * c), b = __ldg(gains + 2 * c + 1);
    gain[i][0] = a.x, gain[i][1] = a.y, gain[i][2] = a.z, gain[i][3] = a.w;
    gain[i][4] = b.x, gain[i][5] = b.y, gain[i][6] = b.z, gain[i][7] = b.w;
  }
  wait_previous();
  float square = 0;
#pragma unroll
  for (int i = 0; i < STEP_NORM_PIECES; i++) {
    const uint32_t c = threadIdx.x + i * blockDim.x;
    if (c >= pieces) continue;
    widen(x[i], in[c]);
#pragma unroll
    for (int e = 0; e < 8; e++) square = fmaf(x[i][e], x[i][e], square);
  }
  for (int o = 16; o; o >>= 1) square += __shfl_xor_sync(~0u, square, o);
  if (lane == 0) part[threadIdx.x >> 5] = square;
  __syncthreads();
  float sum = lane < blockDim.x >> 5 ? part[lane] : 0.0f;
  for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
  const float inverse = rsqrtf(sum / p.cols + p.eps);
#pragma unroll
  for (int i = 0; i < STEP_NORM_PIECES; i++) {
    const uint32_t c = threadIdx.x + i * blockDim.x;
    if (c >= pieces) continue;
#pragma unroll
    for (int e = 0; e < 8; e++) x[i][e] = x[i][e] * inverse * gain[i][e];
    out[c] = narrow(x[i]);
  }
}

/* ---- out = silu(in0) * in1 ---- */

extern "C" __global__ __launch_bounds__(128) void lqt_glu_silu_f16(
    const __grid_constant__ lqt__cu_op p) {
  const uint32_t t = blockIdx.y, c = blockIdx.x * 128 + threadIdx.x;
  launch_dependents();
  wait_previous();
  if (c >= p.cols / 8) return;
  float gate[8], up[8];
  widen(gate, reinterpret_cast<const uint4 *>(p.in[0] + t * p.in_stride[0] * 2)[c]);
  widen(up, reinterpret_cast<const uint4 *>(p.in[1] + t * p.in_stride[1] * 2)[c]);
#pragma unroll
  for (int e = 0; e < 8; e++) gate[e] = gate[e] / (1.0f + expf(-gate[e])) * up[e];
  reinterpret_cast<uint4 *>(p.out[0] + t * p.out_stride[0] * 2)[c] = narrow(gate);
}

/* ---- Rotation of queries and keys in place, and keys and values to their pages ---- */

__device__ __forceinline__ __half *half_at(uint64_t base, uint64_t i) {
  return reinterpret_cast<__half *>(base) + i;
}

/* A thread has one pair of elements of a head: of the queries, then the keys, then the values. */
extern "C" __global__ __launch_bounds__(128) void lqt_rope_kv_f16(
    const __grid_constant__ lqt__cu_rope_kv p) {
  const uint32_t t = blockIdx.y, i = blockIdx.x * 128 + threadIdx.x, pairs = p.head_dim / 2;
  const uint32_t head = i / pairs, pair = i % pairs, half = p.rotary_dim / 2;
  launch_dependents();
  const bool turns = pair < half && head < p.heads + p.kv_heads;
  const float frequency = turns ? reinterpret_cast<const float *>(p.frequencies)[pair] : 0.0f;
  const int32_t position = reinterpret_cast<const int32_t *>(p.positions)[t];
  wait_previous();
  if (head >= p.heads + 2 * p.kv_heads) return;
  const bool query = head < p.heads, key = !query && head < p.heads + p.kv_heads;
  const uint32_t mine = query ? head : key ? head - p.heads : head - p.heads - p.kv_heads;
  const uint32_t first = pair >= half    ? p.rotary_dim + 2 * (pair - half)
                         : p.interleaved ? 2 * pair
                                         : pair;
  const uint32_t second = pair >= half || p.interleaved ? first + 1 : first + half;
  const uint64_t row = t * (query ? p.q_stride
                            : key ? p.k_stride
                                  : p.v_stride) +
                       (uint64_t)mine * p.head_dim;
  const uint64_t base = query ? p.q : key ? p.k : p.v;
  __half a = *half_at(base, row + first), b = *half_at(base, row + second);
  if (turns) {
    float sine, cosine;
    sincosf((float)position * frequency, &sine, &cosine);
    sine *= p.scale, cosine *= p.scale;
    const float x = __half2float(a), y = __half2float(b);
    a = __float2half(x * cosine - y * sine), b = __float2half(x * sine + y * cosine);
    *half_at(base, row + first) = a, *half_at(base, row + second) = b;
  }
  if (query) return;
  const int32_t sequence = reinterpret_cast<const int32_t *>(p.sequences)[t];
  const uint32_t s = sequence < 0 ? 0 : min((uint32_t)sequence, p.table_rows - 1);
  const uint32_t at = position < 0 ? 0 : (uint32_t)position;
  const uint32_t slot = min(at / p.page_tokens, p.table_cols - 1);
  const int32_t page = reinterpret_cast<const int32_t *>(p.table)[s * p.table_stride + slot];
  const uint64_t place =
      (uint64_t)(page < 0 ? 0 : min((uint32_t)page, p.pages - 1)) * p.page_tokens +
      at % p.page_tokens;
  const uint64_t to =
      place * (key ? p.k_pages_stride : p.v_pages_stride) + (uint64_t)mine * p.head_dim;
  *half_at(key ? p.k_pages : p.v_pages, to + first) = a;
  *half_at(key ? p.k_pages : p.v_pages, to + second) = b;
}
