/* Attention over paged float16 keys and values.
 *
 * Few tokens (decode): a block takes one token, a key-value head and up to GT of the query heads
 * that share it, and one part of the sequence; its warps take tiles of positions, a row of keys
 * spread over LPR lanes in 16-byte pieces. How the sequence is cut into parts follows from its
 * length, which is read on the device: a recorded launch stays right while sequences grow. The
 * parts of a token meet in the block that finishes last, which adds them up in their own order.
 *
 * Many tokens (prefill): a block takes 64 tokens and one head, tiles of 64 keys and values in
 * shared memory (two of each, filled ahead), products by mma.m16n8k16, probabilities in registers.
 * Source: Dao et al. 2022 and 2023 (FlashAttention, its second version and Flash-Decoding).
 *
 * A step mixes both: runs of more than LONE_RUN tokens of one sequence belong to the second kernel,
 * the others to the first, and each leaves out what is the other's. */
#include "common.cuh"
#include "step_params.h"

#define LOG2E 1.4426950408889634f
#define LONE_RUN 8u /* tokens */

__device__ __forceinline__ uint32_t row_of_position(const lqt__cu_attention &p, uint32_t sequence,
                                                    uint32_t position) {
  const uint32_t slot = p.page_shift < 32 ? position >> p.page_shift : position / p.page_tokens;
  const int32_t page = reinterpret_cast<const int32_t *>(p.table)[sequence * p.table_stride + slot];
  const uint32_t inside = position - slot * p.page_tokens;
  return (page < 0 ? 0 : min((uint32_t)page, p.pages - 1)) * p.page_tokens + inside;
}

struct token_range {
  uint32_t sequence, begin, end; /* positions [begin, end) are seen */
};

__device__ __forceinline__ token_range range_of(const lqt__cu_attention &p, uint32_t t) {
  const int32_t position = reinterpret_cast<const int32_t *>(p.positions)[t];
  const int32_t sequence = reinterpret_cast<const int32_t *>(p.sequences)[t];
  token_range r;
  r.sequence = sequence < 0 ? 0 : min((uint32_t)sequence, p.table_rows - 1);
  r.end = min((uint32_t)max(position + 1, 0), p.table_cols * p.page_tokens);
  r.begin = p.window && r.end > p.window ? r.end - p.window : 0;
  return r;
}

/* Does token t stand in a run of more than LONE_RUN tokens of its sequence? */
__device__ __forceinline__ bool in_long_run(const lqt__cu_attention &p, uint32_t t) {
  const int32_t *sequences = reinterpret_cast<const int32_t *>(p.sequences);
  const int32_t mine = sequences[t];
  uint32_t first = t, last = t;
  while (first > 0 && t - first < LONE_RUN && sequences[first - 1] == mine) first--;
  while (last + 1 < p.tokens && last - first < LONE_RUN && sequences[last + 1] == mine) last++;
  return last - first + 1 > LONE_RUN;
}

__device__ __forceinline__ float dot8(const uint4 &v, const float (&q)[8]) {
  const __half2 *h = reinterpret_cast<const __half2 *>(&v);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 f = __half22float2(h[i]);
    sum = fmaf(f.x, q[2 * i], sum);
    sum = fmaf(f.y, q[2 * i + 1], sum);
  }
  return sum;
}

__device__ __forceinline__ void add8(float (&acc)[8], const uint4 &v, float weight) {
  const __half2 *h = reinterpret_cast<const __half2 *>(&v);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 f = __half22float2(h[i]);
    acc[2 * i] = fmaf(weight, f.x, acc[2 * i]);
    acc[2 * i + 1] = fmaf(weight, f.y, acc[2 * i + 1]);
  }
}

#define FEW_WARPS 4

/* What the warps and the parts leave: the largest score, the sum, the weighted values. */
template <int LPR, int GT>
struct few_shared {
  float most[FEW_WARPS][GT], sum[FEW_WARPS][GT];
  float values[FEW_WARPS][GT][LPR * 8];
  uint32_t is_last;
};

template <int LPR, int GT>
__device__ __forceinline__ void few_tile(const lqt__cu_attention &p, const token_range &range,
                                         uint32_t kv, uint32_t base, uint32_t end,
                                         const float (&q)[GT][8], float (&most)[GT],
                                         float (&sum)[GT], float (&acc)[GT][8]) {
  constexpr int RPW = 32 / LPR, LOADS = GT >= 4 ? 4 : 8, TILE = LOADS * RPW;
  const int lane = threadIdx.x & 31, sub = lane % LPR, r = lane / LPR;
  const bool column = sub * 8 < p.head_dim;
  const uint32_t ask = base + (lane % TILE);
  const uint32_t my_row = row_of_position(p, range.sequence, min(ask, end - 1));
  uint4 k[LOADS], v[LOADS];
  const uint64_t at = (uint64_t)kv * p.head_dim + sub * 8;
#pragma unroll
  for (int i = 0; i < LOADS; i++) {
    const uint32_t row = __shfl_sync(~0u, my_row, i * RPW + r);
    k[i] = v[i] = make_uint4(0, 0, 0, 0);
    if (column && base + i * RPW + r < end) {
      k[i] = *reinterpret_cast<const uint4 *>(p.k + (row * p.k_stride + at) * 2);
      v[i] = *reinterpret_cast<const uint4 *>(p.v + (row * p.v_stride + at) * 2);
    }
  }
#pragma unroll
  for (int g = 0; g < GT; g++) {
    float score[LOADS], high = -INFINITY;
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      float s = dot8(k[i], q[g]);
#pragma unroll
      for (int o = LPR / 2; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
      score[i] = base + i * RPW + r < end ? s : -INFINITY;
      high = fmaxf(high, score[i]);
    }
#pragma unroll
    for (int o = LPR; o < 32; o <<= 1) high = fmaxf(high, __shfl_xor_sync(~0u, high, o));
    const float next = fmaxf(most[g], high), shrink = exp2f(most[g] - next);
    most[g] = next;
    sum[g] *= shrink;
#pragma unroll
    for (int e = 0; e < 8; e++) acc[g][e] *= shrink;
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      const float weight = exp2f(score[i] - next);
      sum[g] += weight;
      add8(acc[g], v[i], weight);
    }
  }
}

template <int LPR, int GT>
__device__ __forceinline__ void few_token(const lqt__cu_attention &p, few_shared<LPR, GT> &s,
                                          uint32_t t) {
  constexpr int RPW = 32 / LPR, LOADS = GT >= 4 ? 4 : 8, TILE = LOADS * RPW;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, sub = lane % LPR;
  const uint32_t part = blockIdx.z;
  const uint32_t groups = (p.group + GT - 1) / GT, kv = blockIdx.x / groups;
  const uint32_t head0 = kv * p.group + blockIdx.x % groups * GT;
  const uint32_t heads = min((uint32_t)GT, (kv + 1) * p.group - head0);
  if (p.skip_long && in_long_run(p, t)) return;
  const token_range range = range_of(p, t);
  const uint32_t span = range.end - range.begin, step = FEW_WARPS * TILE;
  const uint32_t chunk = ((span + p.splits - 1) / p.splits + step - 1) / step * step;
  const uint32_t parts = span == 0 ? 1 : (span + chunk - 1) / chunk;
  if (part >= parts) return;
  const uint32_t begin = range.begin + part * chunk, end = min(range.end, begin + chunk);

  float q[GT][8], most[GT], sum[GT], acc[GT][8];
#pragma unroll
  for (int g = 0; g < GT; g++) {
    most[g] = -INFINITY, sum[g] = 0;
    uint4 word = make_uint4(0, 0, 0, 0);
    if (g < heads && sub * 8 < p.head_dim)
      word = *reinterpret_cast<const uint4 *>(
          p.q + (t * p.q_stride + (uint64_t)(head0 + g) * p.head_dim + sub * 8) * 2);
    const __half2 *h = reinterpret_cast<const __half2 *>(&word);
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const float2 f = __half22float2(h[e]);
      q[g][2 * e] = f.x * (p.scale * LOG2E), q[g][2 * e + 1] = f.y * (p.scale * LOG2E);
      acc[g][2 * e] = acc[g][2 * e + 1] = 0;
    }
  }
  for (uint32_t base = begin + warp * TILE; base < end; base += step)
    few_tile<LPR, GT>(p, range, kv, base, end, q, most, sum, acc);

#pragma unroll
  for (int g = 0; g < GT; g++) {
#pragma unroll
    for (int o = LPR; o < 32; o <<= 1) {
      sum[g] += __shfl_xor_sync(~0u, sum[g], o);
#pragma unroll
      for (int e = 0; e < 8; e++) acc[g][e] += __shfl_xor_sync(~0u, acc[g][e], o);
    }
    if (lane < LPR) {
#pragma unroll
      for (int e = 0; e < 8; e++) s.values[warp][g][sub * 8 + e] = acc[g][e];
      if (lane == 0) s.most[warp][g] = most[g], s.sum[warp][g] = sum[g];
    }
  }
  __syncthreads();
  const uint32_t D = p.head_dim, record = D + 2;
  float *partial = reinterpret_cast<float *>(p.partial);
  for (uint32_t i = threadIdx.x; i < heads * D; i += FEW_WARPS * 32) {
    const uint32_t g = i / D, d = i % D;
    float high = -INFINITY, total = 0, value = 0;
#pragma unroll
    for (int w = 0; w < FEW_WARPS; w++) high = fmaxf(high, s.most[w][g]);
#pragma unroll
    for (int w = 0; w < FEW_WARPS; w++) {
      const float f = s.most[w][g] == -INFINITY ? 0.0f : exp2f(s.most[w][g] - high);
      total = fmaf(f, s.sum[w][g], total);
      value = fmaf(f, s.values[w][g][d], value);
    }
    if (parts == 1) {
      reinterpret_cast<__half *>(p.out)[t * p.out_stride + (uint64_t)(head0 + g) * D + d] =
          __float2half(total > 0 ? value / total : 0.0f);
    } else {
      float *to = partial + ((uint64_t)(t * p.heads + head0 + g) * p.splits + part) * record;
      if (d == 0) to[0] = high, to[1] = total;
      to[2 + d] = value;
    }
  }
  if (parts == 1) return;

  __threadfence();
  __syncthreads();
  uint32_t *counter = reinterpret_cast<uint32_t *>(p.counter) + t * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0) {
    s.is_last = atomicAdd(counter, 1) == parts - 1;
    if (s.is_last) *counter = 0;
  }
  __syncthreads();
  if (!s.is_last) return;
  __threadfence();
  for (uint32_t i = threadIdx.x; i < heads * D; i += FEW_WARPS * 32) {
    const uint32_t g = i / D, d = i % D;
    const float *from = partial + (uint64_t)(t * p.heads + head0 + g) * p.splits * record;
    float high = -INFINITY, total = 0, value = 0;
#pragma unroll 4
    for (uint32_t k = 0; k < parts; k++) high = fmaxf(high, __ldcg(from + k * record));
#pragma unroll 4
    for (uint32_t k = 0; k < parts; k++) {
      const float f = exp2f(__ldcg(from + k * record) - high);
      total = fmaf(f, __ldcg(from + k * record + 1), total);
      value = fmaf(f, __ldcg(from + k * record + 2 + d), value);
    }
    reinterpret_cast<__half *>(p.out)[t * p.out_stride + (uint64_t)(head0 + g) * D + d] =
        __float2half(total > 0 ? value / total : 0.0f);
  }
}

template <int LPR, int GT>
__device__ __forceinline__ void attention_few(const lqt__cu_attention &p) {
  __shared__ few_shared<LPR, GT> s;
  launch_dependents();
  wait_previous();
  const uint32_t t0 = p.first_token + blockIdx.y * p.per_block;
  const uint32_t t1 = min(t0 + p.per_block, p.tokens);
  for (uint32_t t = t0; t < t1; t++) {
    few_token<LPR, GT>(p, s, t);
    if (p.per_block > 1) __syncthreads();
  }
}

#define FEW_KERNEL(dims, lpr, gt)                                                                \
  extern "C" __global__ __launch_bounds__(FEW_WARPS * 32) void lqt_attention_few_d##dims##g##gt( \
      const __grid_constant__ lqt__cu_attention p) {                                             \
    attention_few<lpr, gt>(p);                                                                   \
  }
#define FEW_KERNELS(dims, lpr) \
  FEW_KERNEL(dims, lpr, 1)     \
  FEW_KERNEL(dims, lpr, 2)     \
  FEW_KERNEL(dims, lpr, 4)     \
  FEW_KERNEL(dims, lpr, 8)
FEW_KERNELS(64, 8)
FEW_KERNELS(128, 16)
FEW_KERNELS(256, 32)

/* ---- Many tokens ---- */

#define MANY_TOKENS 64
#define MANY_KEYS 64

__device__ __forceinline__ uint32_t shared_address(const void *p) {
  return (uint32_t)__cvta_generic_to_shared(p);
}
__device__ __forceinline__ void copy_async(uint32_t to, uint64_t from, bool valid) {
  const int bytes = valid ? 16 : 0; /* the rest is filled with zeros */
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
__device__ __forceinline__ void matrices(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
}
__device__ __forceinline__ void matrices_turned(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at));
}
__device__ __forceinline__ uint32_t pack2(float a, float b) {
  const __half2 h = __floats2half2_rn(a, b);
  return *reinterpret_cast<const uint32_t *>(&h);
}

/* Starts the copy of a tile of keys or values to shared memory; rows past `end` become zeros. */
template <int DIM>
__device__ __forceinline__ void load_tile(const lqt__cu_attention &p, uint32_t to, uint64_t pages,
                                          uint64_t stride, uint32_t sequence, uint32_t kv,
                                          uint32_t base, uint32_t end) {
  constexpr int PIECES = DIM / 8, ROW = (DIM + 8) * 2;
  for (uint32_t i = threadIdx.x; i < MANY_KEYS * PIECES; i += 128) {
    const uint32_t r = i / PIECES, c = i % PIECES, position = base + r;
    const bool valid = position < end && c * 8 < p.head_dim;
    const uint32_t row = row_of_position(p, sequence, min(position, end - 1));
    const uint64_t from = pages + (row * stride + (uint64_t)kv * p.head_dim + c * 8) * 2;
    copy_async(to + r * ROW + c * 16, valid ? from : pages, valid);
  }
}

/* What a warp keeps of its 16 tokens; a lane has tokens g and g + 8. */
template <int DIM>
struct many_state {
  float acc[DIM / 8][4], most[2], sum[2];
  int32_t begin[2], end[2]; /* positions that the two tokens see; end 0: not of this run */
};

template <int DIM>
__device__ __forceinline__ void many_tile(many_state<DIM> &st, const uint32_t (&q)[DIM / 16][4],
                                          uint32_t keys, uint32_t values, uint32_t base,
                                          float scale) {
  constexpr int ROW = (DIM + 8) * 2;
  const int lane = threadIdx.x & 31, t = lane & 3;
  float s[MANY_KEYS / 8][4] = {};
#pragma unroll
  for (int n = 0; n < MANY_KEYS / 8; n++) {
#pragma unroll
    for (int kk = 0; kk < DIM / 16; kk += 2) { /* four 8 x 8 matrices: 32 columns of 8 keys */
      uint32_t b[4];
      matrices(b, keys + (n * 8 + (lane & 7)) * ROW + (kk * 16 + (lane >> 3) * 8) * 2);
      mma_16816(s[n], q[kk], b[0], b[1]);
      if (kk + 1 < DIM / 16) mma_16816(s[n], q[kk + 1], b[2], b[3]);
    }
  }
  float high[2] = {st.most[0], st.most[1]};
#pragma unroll
  for (int n = 0; n < MANY_KEYS / 8; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int32_t position = (int32_t)base + n * 8 + t * 2 + (e & 1);
      const bool seen = position >= st.begin[e >> 1] && position < st.end[e >> 1];
      s[n][e] = seen ? s[n][e] * scale : -INFINITY;
      high[e >> 1] = fmaxf(high[e >> 1], s[n][e]);
    }
  float safe[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    high[h] = fmaxf(high[h], __shfl_xor_sync(~0u, high[h], 1));
    high[h] = fmaxf(high[h], __shfl_xor_sync(~0u, high[h], 2));
    safe[h] = high[h] == -INFINITY ? 0.0f : high[h];
    const float shrink = exp2f(st.most[h] - safe[h]);
    st.most[h] = high[h];
    st.sum[h] *= shrink;
#pragma unroll
    for (int d = 0; d < DIM / 8; d++) st.acc[d][2 * h] *= shrink, st.acc[d][2 * h + 1] *= shrink;
  }
#pragma unroll
  for (int n = 0; n < MANY_KEYS / 8; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      s[n][e] = exp2f(s[n][e] - safe[e >> 1]);
      st.sum[e >> 1] += s[n][e];
    }
#pragma unroll
  for (int kk = 0; kk < MANY_KEYS / 16; kk++) {
    const uint32_t a[4] = {pack2(s[2 * kk][0], s[2 * kk][1]), pack2(s[2 * kk][2], s[2 * kk][3]),
                           pack2(s[2 * kk + 1][0], s[2 * kk + 1][1]),
                           pack2(s[2 * kk + 1][2], s[2 * kk + 1][3])};
#pragma unroll
    for (int d = 0; d < DIM / 8; d += 2) { /* 16 keys x 16 columns */
      uint32_t b[4];
      matrices_turned(b, values + (kk * 16 + (lane & 15)) * ROW + (d * 8 + (lane >> 4) * 8) * 2);
      mma_16816(st.acc[d], a, b[0], b[1]);
      mma_16816(st.acc[d + 1], a, b[2], b[3]);
    }
  }
}

/* The run of tokens from `first` on that belong to one sequence, inside [.., tile_end). The lanes
 * look together. */
__device__ __forceinline__ uint32_t run_end(const lqt__cu_attention &p, uint32_t first,
                                            uint32_t tile_end) {
  const int32_t *sequences = reinterpret_cast<const int32_t *>(p.sequences);
  for (uint32_t from = first + 1; from < tile_end; from += 32) {
    const uint32_t t = from + (threadIdx.x & 31);
    const uint32_t other = __ballot_sync(~0u, t >= tile_end || sequences[t] != sequences[first]);
    if (other != 0) return from + __ffs(other) - 1;
  }
  return tile_end;
}

template <int DIM>
__device__ __forceinline__ void many_run(const lqt__cu_attention &p, many_state<DIM> &st,
                                         const uint32_t (&q)[DIM / 16][4], uint32_t keys,
                                         uint32_t values, uint32_t tile0, uint32_t first,
                                         uint32_t last) {
  constexpr uint32_t TILE = MANY_KEYS * (DIM + 8) * 2;
  const uint32_t warp = threadIdx.x >> 5, g = (threadIdx.x & 31) >> 2;
  const uint32_t kv = blockIdx.x / p.group;
  uint32_t low = ~0u, high = 0;
  const uint32_t sequence = range_of(p, first).sequence;
  for (uint32_t t = first + (threadIdx.x & 31); t < last; t += 32) {
    const token_range r = range_of(p, t);
    low = min(low, r.begin), high = max(high, r.end);
  }
  low = __reduce_min_sync(~0u, low), high = __reduce_max_sync(~0u, high);
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const uint32_t t = tile0 + warp * 16 + g + 8 * h;
    st.begin[h] = st.end[h] = 0;
    if (t >= first && t < last) {
      const token_range r = range_of(p, t);
      st.begin[h] = (int32_t)r.begin, st.end[h] = (int32_t)r.end;
    }
  }
  if (low >= high) return;
  low = low / MANY_KEYS * MANY_KEYS;
  load_tile<DIM>(p, keys, p.k, p.k_stride, sequence, kv, low, high);
  load_tile<DIM>(p, values, p.v, p.v_stride, sequence, kv, low, high);
  asm volatile("cp.async.commit_group;");
  uint32_t slot = 0;
  for (uint32_t base = low; base < high; base += MANY_KEYS, slot ^= 1) {
    if (base + MANY_KEYS < high) {
      const uint32_t next = slot ^ 1;
      load_tile<DIM>(p, keys + next * TILE, p.k, p.k_stride, sequence, kv, base + MANY_KEYS, high);
      load_tile<DIM>(p, values + next * TILE, p.v, p.v_stride, sequence, kv, base + MANY_KEYS,
                     high);
    }
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 1;");
    __syncthreads();
    many_tile<DIM>(st, q, keys + slot * TILE, values + slot * TILE, base, p.scale * LOG2E);
    __syncthreads();
  }
}

template <int DIM>
__device__ __forceinline__ void attention_many(const lqt__cu_attention &p) {
  extern __shared__ __align__(128) uint8_t shared[];
  constexpr int ROW = (DIM + 8) * 2;
  const uint32_t keys = shared_address(shared), values = keys + 2 * MANY_KEYS * ROW;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2;
  const uint32_t head = blockIdx.x, tile0 = (gridDim.y - 1 - blockIdx.y) * MANY_TOKENS;
  const uint32_t tile1 = min(tile0 + MANY_TOKENS, p.tokens);

  launch_dependents();
  wait_previous();
  /* Queries through the memory of the first keys, then in registers. */
  for (uint32_t i = threadIdx.x; i < MANY_TOKENS * (DIM / 8); i += 128) {
    const uint32_t r = i / (DIM / 8), c = i % (DIM / 8);
    const bool valid = tile0 + r < tile1 && c * 8 < p.head_dim;
    const uint64_t from =
        p.q + ((tile0 + r) * p.q_stride + (uint64_t)head * p.head_dim + c * 8) * 2;
    copy_async(keys + r * ROW + c * 16, valid ? from : p.q, valid);
  }
  asm volatile("cp.async.commit_group;");
  asm volatile("cp.async.wait_group 0;");
  __syncthreads();
  uint32_t q[DIM / 16][4];
#pragma unroll
  for (int kk = 0; kk < DIM / 16; kk++)
    matrices(q[kk], keys + (warp * 16 + (lane & 15)) * ROW + (kk * 16 + (lane >> 4) * 8) * 2);
  __syncthreads();

  many_state<DIM> st;
#pragma unroll
  for (int d = 0; d < DIM / 8; d++)
#pragma unroll
    for (int e = 0; e < 4; e++) st.acc[d][e] = 0;
  st.most[0] = st.most[1] = -INFINITY, st.sum[0] = st.sum[1] = 0;
  uint32_t mine = 0; /* bit h: token g + 8 h is written here */
  for (uint32_t first = tile0; first < tile1;) {
    const uint32_t last = run_end(p, first, tile1);
    if (in_long_run(p, first)) {
      many_run<DIM>(p, st, q, keys, values, tile0, first, last);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const uint32_t t = tile0 + warp * 16 + g + 8 * h;
        if (t >= first && t < last) mine |= 1u << h;
      }
    }
    first = last;
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    st.sum[h] += __shfl_xor_sync(~0u, st.sum[h], 1);
    st.sum[h] += __shfl_xor_sync(~0u, st.sum[h], 2);
    if (!(mine >> h & 1)) continue;
    const float inverse = st.sum[h] > 0 ? 1.0f / st.sum[h] : 0.0f;
    const uint32_t t = tile0 + warp * 16 + g + 8 * h;
    __half *to = reinterpret_cast<__half *>(p.out) + t * p.out_stride + (uint64_t)head * p.head_dim;
#pragma unroll
    for (int d = 0; d < DIM / 8; d++) {
      const uint32_t column = d * 8 + (lane & 3) * 2;
      if (column < p.head_dim)
        *reinterpret_cast<__half2 *>(to + column) =
            __floats2half2_rn(st.acc[d][2 * h] * inverse, st.acc[d][2 * h + 1] * inverse);
    }
  }
}

#define MANY_KERNEL(dims)                                                       \
  extern "C" __global__ __launch_bounds__(128) void lqt_attention_many_d##dims( \
      const __grid_constant__ lqt__cu_attention p) {                            \
    attention_many<dims>(p);                                                    \
  }
MANY_KERNEL(64)
MANY_KERNEL(96)
MANY_KERNEL(128)
