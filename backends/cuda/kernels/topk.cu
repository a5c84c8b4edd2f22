/* The k largest of each row, largest first, the lower column first among equals: a block a row. One
 * is a plain search; more are found by narrowing the key of the last one that belongs, eight bits
 * at a time, then collected and sorted in shared memory. Not-a-number counts as the largest. */
#include "common.cuh"
#include "step_params.h"

#define TOPK_THREADS 1024
#define TOPK_MOST 1024
#define TOPK_NAN 0xffffffffu

/* Unsigned order is the order of the numbers; the zeros are one. */
__device__ __forceinline__ uint32_t key_of(float v) {
  if (v != v) return TOPK_NAN;
  const uint32_t bits = __float_as_uint(v + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of_key(uint32_t key) {
  if (key == TOPK_NAN) return __uint_as_float(0x7fc00000u);
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ float get(const float *p, uint32_t i) { return p[i]; }
__device__ __forceinline__ float get(const __half *p, uint32_t i) { return __half2float(p[i]); }

__device__ __forceinline__ uint64_t pair_of(uint32_t key, uint32_t column) {
  return (uint64_t)key << 32 | (uint32_t)~column;
}
__device__ __forceinline__ void put_pair(const lqt__cu_topk &p, uint32_t i, uint64_t pair) {
  reinterpret_cast<float *>(p.values)[blockIdx.x * p.values_stride + i] =
      value_of_key((uint32_t)(pair >> 32));
  reinterpret_cast<int32_t *>(p.ids)[blockIdx.x * p.ids_stride + i] = (int32_t) ~(uint32_t)pair;
}

template <typename T>
__device__ __forceinline__ void largest(const lqt__cu_topk &p, const T *row, uint64_t *shared) {
  uint64_t best = 0;
  for (uint32_t c = threadIdx.x; c < p.cols; c += TOPK_THREADS)
    best = max(best, pair_of(key_of(get(row, c)), c));
  for (int o = 16; o; o >>= 1) best = max(best, __shfl_xor_sync(~0u, best, o));
  if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = best;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  best = shared[threadIdx.x];
  for (int o = 16; o; o >>= 1) best = max(best, __shfl_xor_sync(~0u, best, o));
  if (threadIdx.x == 0) put_pair(p, 0, best);
}

struct topk_shared {
  uint32_t counts[32][256]; /* by warp */
  uint64_t pairs[TOPK_MOST];
  uint32_t totals[32];
  uint32_t byte, above, used;
};

/* The k-th largest key: *above keys are larger than it. */
template <typename T>
__device__ __forceinline__ uint32_t narrow(const lqt__cu_topk &p, const T *row, topk_shared &s,
                                           uint32_t *above) {
  uint32_t prefix = 0, known = 0; /* the bits of the key known so far */
  *above = 0;
  const uint32_t warp = threadIdx.x >> 5;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (uint32_t i = threadIdx.x; i < 32 * 256; i += TOPK_THREADS) (&s.counts[0][0])[i] = 0;
    __syncthreads();
    for (uint32_t c = threadIdx.x; c < p.cols; c += TOPK_THREADS) {
      const uint32_t key = key_of(get(row, c));
      if ((key & known) == prefix) atomicAdd(&s.counts[warp][key >> shift & 255], 1u);
    }
    __syncthreads();
    if (threadIdx.x < 256) {
      uint32_t sum = 0;
      for (int w = 0; w < 32; w++) sum += s.counts[w][threadIdx.x];
      s.counts[0][threadIdx.x] = sum;
    }
    __syncthreads();
    if (warp == 0) { /* a lane adds up eight bytes, the largest first */
      const uint32_t top = 255 - 8 * threadIdx.x;
      uint32_t sum = 0;
      for (uint32_t i = 0; i < 8; i++) sum += s.counts[0][top - i];
      uint32_t larger = *above + sum;
      for (uint32_t o = 1; o < 32; o *= 2) {
        const uint32_t other = __shfl_up_sync(~0u, larger - *above, o);
        if (threadIdx.x >= o) larger += other;
      }
      if (larger >= p.k && larger - sum < p.k) {
        larger -= sum;
        uint32_t byte = top;
        while (byte > top - 7 && larger + s.counts[0][byte] < p.k) larger += s.counts[0][byte--];
        s.byte = byte, s.above = larger;
      }
    }
    __syncthreads();
    prefix |= s.byte << shift, known |= 255u << shift;
    *above = s.above;
    __syncthreads();
  }
  return prefix;
}

/* Those above the k-th key, and of its equals the first ones that still have room. */
template <typename T>
__device__ __forceinline__ void collect(const lqt__cu_topk &p, const T *row, topk_shared &s,
                                        uint32_t least, uint32_t above) {
  const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  uint32_t equals = above; /* place of the next equal */
  if (threadIdx.x == 0) s.used = 0;
  __syncthreads();
  for (uint32_t base = 0; base < p.cols; base += TOPK_THREADS) {
    const uint32_t c = base + threadIdx.x;
    const uint32_t key = c < p.cols ? key_of(get(row, c)) : 0;
    if (c < p.cols && key > least) s.pairs[atomicAdd(&s.used, 1u)] = pair_of(key, c);
    const uint32_t same = __ballot_sync(~0u, c < p.cols && key == least);
    if (lane == 0) s.totals[warp] = __popc(same);
    __syncthreads();
    uint32_t before = equals, all = 0;
    for (uint32_t w = 0; w < 32; w++) {
      if (w < warp) before += s.totals[w];
      all += s.totals[w];
    }
    before += __popc(same & ((1u << lane) - 1));
    if ((same >> lane & 1) && before < p.k) s.pairs[before] = pair_of(key, c);
    equals += all;
    __syncthreads();
  }
}

/* Bitonic, largest first; unused places are 0 and end up last. */
__device__ __forceinline__ void sort(topk_shared &s, uint32_t size) {
  for (uint32_t width = 2; width <= size; width *= 2)
    for (uint32_t step = width / 2; step > 0; step /= 2) {
      const uint32_t i = threadIdx.x, j = i ^ step;
      if (i < size && j > i) {
        const uint64_t a = s.pairs[i], b = s.pairs[j];
        if (((i & width) == 0) == (a < b)) s.pairs[i] = b, s.pairs[j] = a;
      }
      __syncthreads();
    }
}

template <typename T>
__device__ __forceinline__ void topk(const lqt__cu_topk &p) {
  extern __shared__ __align__(16) uint8_t shared[];
  launch_dependents();
  wait_previous();
  const T *row = reinterpret_cast<const T *>(p.in) + blockIdx.x * p.in_stride;
  if (p.k == 1) {
    largest(p, row, reinterpret_cast<uint64_t *>(shared));
    return;
  }
  topk_shared &s = *reinterpret_cast<topk_shared *>(shared);
  uint32_t above, size = 2;
  while (size < p.k) size *= 2;
  const uint32_t least = narrow(p, row, s, &above);
  for (uint32_t i = threadIdx.x; i < size; i += TOPK_THREADS) s.pairs[i] = 0;
  __syncthreads();
  collect(p, row, s, least, above);
  sort(s, size);
  for (uint32_t i = threadIdx.x; i < p.k; i += TOPK_THREADS) put_pair(p, i, s.pairs[i]);
}

extern "C" __global__ __launch_bounds__(TOPK_THREADS) void lqt_topk_f16(
    const __grid_constant__ lqt__cu_topk p) {
  topk<__half>(p);
}
extern "C" __global__ __launch_bounds__(TOPK_THREADS) void lqt_topk_f32(
    const __grid_constant__ lqt__cu_topk p) {
  topk<float>(p);
}
