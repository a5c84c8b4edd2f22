/* Packed weights as A fragments of wgmma, for wide.cuh: the table in shared memory, and what a warp
 * holds of the stream. The configuration C of a kernel is wide_config. */
#ifndef LQT_BACKENDS_CUDA_KERNELS_WIDE_WEIGHTS_CUH_
#define LQT_BACKENDS_CUDA_KERNELS_WIDE_WEIGHTS_CUH_

#include "common.cuh"

/* The replicated table, times a power of two; returns what undoes it. A thread an entry: the first
 * eight warps load them (`entry`) before they wait for anything. */
template <int BITS>
__device__ __forceinline__ float wide_fill_table(uint8_t *table, uint2 entry, uint32_t *maxima) {
  if (threadIdx.x < 256) {
    auto most = [](uint32_t v) { return max(v & 0x7fffu, (v >> 16) & 0x7fffu); };
    const uint32_t warp_most = __reduce_max_sync(~0u, max(most(entry.x), most(entry.y)));
    if ((threadIdx.x & 31) == 0) maxima[threadIdx.x >> 5] = warp_most;
  }
  __syncthreads();
  uint32_t most = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) most = max(most, maxima[i]);
  const int exponent = (int)(most >> 10);
  float factor = 1.0f, undo = 1.0f;
  if (exponent < 31) {
    factor = __int_as_float((127 + 14 - exponent) << 23);
    undo = __int_as_float((127 - 14 + exponent) << 23);
  }
  if (threadIdx.x < 256) {
    auto scaled = [&](uint32_t v) {
      const float2 f = __half22float2(*reinterpret_cast<__half2 *>(&v));
      __half2 h = __floats2half2_rn(f.x * factor, f.y * factor);
      return *reinterpret_cast<uint32_t *>(&h);
    };
    const uint32_t x = scaled(entry.x), y = BITS == 2 ? scaled(entry.y) : x;
    constexpr int chunks = BITS == 2 ? 16 : 8;
#pragma unroll
    for (int c = 0; c < chunks; c++)
      *reinterpret_cast<uint4 *>(table + threadIdx.x * 256 +
                                 ((c + threadIdx.x) & (chunks - 1)) * 16) = make_uint4(x, y, x, y);
  }
  return undo;
}

/* A thread's entry of the table. */
template <int BITS>
__device__ __forceinline__ uint2 wide_entry(const lqt__cu_wide &p) {
  if (threadIdx.x >= 256) return make_uint2(0, 0);
  if constexpr (BITS == 2) return __ldg(reinterpret_cast<const uint2 *>(p.table) + threadIdx.x);
  return make_uint2(__ldg(reinterpret_cast<const uint32_t *>(p.table) + threadIdx.x), 0);
}

/* Entry I of `word` in the table: `lane` holds the table's address and the lane's offset in a row.
 * Not volatile, so that look-ups move freely; `lane` orders them behind the filling of the table.
 */
template <int I>
__device__ __forceinline__ uint32_t wide_pair(uint32_t word, uint32_t lane) {
  uint32_t v;
  asm("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(__byte_perm(word, lane, 0x7604 | (I << 4))));
  return v;
}
template <int I>
__device__ __forceinline__ uint2 wide_quad(uint32_t word, uint32_t lane) {
  uint2 v;
  asm("ld.shared.v2.u32 {%0, %1}, [%2];"
      : "=r"(v.x), "=r"(v.y)
      : "r"(__byte_perm(word, lane, 0x7604 | (I << 4))));
  return v;
}

/* As decode_step of small.cuh: the A operand of k-step J of a unit with words w. */
template <int BITS, int J>
__device__ __forceinline__ void wide_step(uint32_t (&a)[4], const uint32_t (&w)[BITS],
                                          uint32_t lane) {
  if constexpr (BITS == 4 || BITS == 3) {
    uint32_t word;
    if constexpr (J < BITS) {
      word = w[J];
    } else {
      word =
          ((w[0] >> 6) & 0x03030303u) | ((w[1] >> 4) & 0x0c0c0c0cu) | ((w[2] >> 2) & 0x30303030u);
    }
    a[0] = wide_pair<0>(word, lane), a[1] = wide_pair<1>(word, lane);
    a[2] = wide_pair<2>(word, lane), a[3] = wide_pair<3>(word, lane);
  } else if constexpr (BITS == 2) {
    const uint2 lo = wide_quad<2 * (J & 1)>(w[J / 2], lane);
    const uint2 hi = wide_quad<2 * (J & 1) + 1>(w[J / 2], lane);
    a[0] = lo.x, a[2] = lo.y;
    a[1] = hi.x, a[3] = hi.y;
  } else {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const uint32_t v = w[2 * J + h];
      a[2 * h] = __byte_perm(wide_pair<0>(v, lane), wide_pair<1>(v, lane), 0x5410);
      a[2 * h + 1] = __byte_perm(wide_pair<2>(v, lane), wide_pair<3>(v, lane), 0x5410);
    }
  }
}

/* What a warp holds of the packed weights: the loads and the scales of one step of one row tile,
 * and where the next ones are. */
template <typename C>
struct wide_weights {
  const uint4 *from;
  const uint32_t *scale_from;
  uint4 ring[C::BITS];
  uint32_t scale[C::scale_words], scale_next[C::scale_words];

  /* Points at step k of a row tile of 16. */
  __device__ __forceinline__ void seek(const lqt__cu_wide &p, uint32_t tile, uint32_t k) {
    from = reinterpret_cast<const uint4 *>(p.units) +
           ((uint64_t)tile * p.blocks * 2 + k) * (C::BITS * 32) + (threadIdx.x & 31);
    scale_from =
        reinterpret_cast<const uint32_t *>(p.scales) +
        (((uint64_t)tile * p.blocks + (k >> 1)) * 8 + ((threadIdx.x & 31) >> 2)) * p.scale_words +
        (k & 1) * (p.scale_words / 2);
  }
  /* From step k to the next. */
  __device__ __forceinline__ void advance(const lqt__cu_wide &p, uint32_t k) {
    from += C::BITS * 32;
    scale_from += k & 1 ? 15 * (p.scale_words / 2) : p.scale_words / 2;
  }
  __device__ __forceinline__ void load_scales(const lqt__cu_wide &p) {
    if (p.scale_shift == 0) {
#pragma unroll
      for (int i = 0; i < C::scale_words / 4; i++) {
        const uint4 v = __ldg(reinterpret_cast<const uint4 *>(scale_from) + i);
        scale_next[4 * i] = v.x, scale_next[4 * i + 1] = v.y;
        scale_next[4 * i + 2] = v.z, scale_next[4 * i + 3] = v.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < C::scale_words; i++)
        scale_next[i] = __ldg(scale_from + (i >> p.scale_shift));
    }
  }
  __device__ __forceinline__ void take_scales() {
#pragma unroll
    for (int i = 0; i < C::scale_words; i++) scale[i] = scale_next[i];
  }
  __device__ __forceinline__ uint32_t word(int i) const {
    const uint4 &v = ring[i / 4];
    return (i & 3) == 0 ? v.x : (i & 3) == 1 ? v.y : (i & 3) == 2 ? v.z : v.w;
  }
  /* K-steps [J, J + KB) of unit U of the step as A fragments, scaled. */
  template <int U, int J>
  __device__ __forceinline__ void decode(uint32_t (&a)[C::KB][4], uint32_t lane) const {
    uint32_t w[C::BITS];
#pragma unroll
    for (int i = 0; i < C::BITS; i++) w[i] = word(U * C::BITS + i);
    wide_step<C::BITS, J>(a[0], w, lane);
    wide_step<C::BITS, J + 1>(a[1], w, lane);
    if constexpr (C::KB == 4) {
      wide_step<C::BITS, 2>(a[2], w, lane);
      wide_step<C::BITS, 3>(a[3], w, lane);
    }
#pragma unroll
    for (int j = 0; j < C::KB; j++) {
      const __half2 s =
          *reinterpret_cast<const __half2 *>(&scale[U * C::per_unit + (J + j) / C::STEPS]);
      const __half2 lo = __low2half2(s), hi = __high2half2(s);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        __half2 v = __hmul2(*reinterpret_cast<__half2 *>(&a[j][i]), (i & 1) ? hi : lo);
        a[j][i] = *reinterpret_cast<uint32_t *>(&v);
      }
    }
  }
  __device__ __forceinline__ void fill() {
#pragma unroll
    for (int l = 0; l < C::BITS; l++) ring[l] = load_stream(from + l * 32);
  }
  /* Loads again, from the next place, what unit U was the last to use. */
  template <int U>
  __device__ __forceinline__ void refill() {
#pragma unroll
    for (int l = 0; l < C::BITS; l++)
      if ((l * 4 + 3) / C::BITS == U) ring[l] = load_stream(from + l * 32);
  }
};

#endif /* LQT_BACKENDS_CUDA_KERNELS_WIDE_WEIGHTS_CUH_ */
