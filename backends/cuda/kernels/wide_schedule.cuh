/* Who computes which part of a product of many tokens (wide.cuh, dense.cuh), how the parts of a
 * tile that was cut meet, and how sums are stored. The configuration C of a kernel has NT tokens a
 * tile, WGS warpgroups and RT row tiles of 64 rows for each. */
#ifndef LQT_BACKENDS_CUDA_KERNELS_WIDE_SCHEDULE_CUH_
#define LQT_BACKENDS_CUDA_KERNELS_WIDE_SCHEDULE_CUH_

#include "common.cuh"

/* A run of steps [k0, k1) of one output tile. */
struct wide_run {
  uint32_t tile, k0, k1;
};

/* The runs of one block, the same in every warp: its share of the cut tiles, then whole tiles. */
struct wide_schedule {
  uint32_t at, end, next_tile, tiles, steps;

  /* The first blocks have a step more than the others. */
  __device__ __forceinline__ static uint32_t start(const lqt__cu_wide &p, uint32_t block) {
    return block * p.share + min(block, p.longer);
  }
  __device__ __forceinline__ static uint32_t owner(const lqt__cu_wide &p, uint32_t step) {
    const uint32_t bound = p.longer * (p.share + 1);
    return step < bound ? step / (p.share + 1) : p.longer + (step - bound) / p.share;
  }
  __device__ __forceinline__ wide_schedule(const lqt__cu_wide &p)
      : at(start(p, blockIdx.x)),
        end(start(p, blockIdx.x + 1)),
        next_tile(p.cut_tiles + blockIdx.x),
        tiles(p.row_tiles * p.token_tiles),
        steps(p.steps) {}
  __device__ __forceinline__ bool next(wide_run &run) {
    if (at < end) {
      run.tile = at / steps;
      run.k0 = at - run.tile * steps;
      run.k1 = min(steps, run.k0 + end - at);
      at += run.k1 - run.k0;
      return true;
    }
    if (next_tile >= tiles) return false;
    run.tile = next_tile, run.k0 = 0, run.k1 = steps;
    next_tile += gridDim.x;
    return true;
  }
};

/* Which rows and tokens an output tile stands for: tokens run fastest within a band of rows. */
__device__ __forceinline__ uint32_t wide_row_tile(const lqt__cu_wide &p, uint32_t tile) {
  return tile / p.token_tiles;
}
__device__ __forceinline__ uint32_t wide_token_tile(const lqt__cu_wide &p, uint32_t tile) {
  return tile % p.token_tiles;
}

template <typename C>
__device__ __forceinline__ void wide_store(const lqt__cu_wide &p, const float (&acc)[C::NT / 2],
                                           uint32_t row, uint32_t token0, float undo) {
  const float scale = p.scale * undo;
  const uint32_t t = threadIdx.x & 3;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const uint32_t r = row + 8 * h;
    if (r >= p.n) continue;
    const float bias = p.bias ? reinterpret_cast<const float *>(p.bias)[r] : 0.0f;
#pragma unroll
    for (int j = 0; j < C::NT / 8; j++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const uint32_t m = token0 + j * 8 + t * 2 + e;
        if (m >= p.m) continue;
        __half *y = reinterpret_cast<__half *>(p.y) + m * p.y_stride + r;
        float sum = acc[j * 4 + h * 2 + e] * scale + bias;
        if (p.accumulate) sum += __half2float(*y);
        *y = __float2half(sum);
      }
  }
}

/* A part of a cut tile. The block that has the tile's first columns has them at the end of its
 * share; the others have theirs at the beginning of their shares, leave the sums in memory and
 * raise a flag. So the first hardly waits, whatever the order in which blocks run, and adds the
 * parts in the order of the columns. True when the sums are complete. */
template <typename C>
__device__ __forceinline__ bool wide_join(const lqt__cu_wide &p, float (&acc)[C::RT][C::NT / 2],
                                          const wide_run &run, uint32_t wg) {
  constexpr uint32_t values = C::RT * C::NT / 2;
  const uint32_t thread = threadIdx.x & 127;
  float *part = reinterpret_cast<float *>(p.partial) + thread;
  uint32_t *flag = reinterpret_cast<uint32_t *>(p.counter);
  auto slot = [&](uint32_t block) { return block * C::WGS + wg; };
  if (run.k0 != 0) {
    float *to = part + (uint64_t)slot(blockIdx.x) * values * 128;
#pragma unroll
    for (int r = 0; r < C::RT; r++)
#pragma unroll
      for (int i = 0; i < C::NT / 2; i++) __stcg(to + (r * (C::NT / 2) + i) * 128, acc[r][i]);
    asm volatile("bar.sync %0, 128;" ::"r"(wg + 1) : "memory");
    if (thread == 0) {
      __threadfence();
      asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(flag + slot(blockIdx.x)) : "memory");
    }
    return false;
  }
  const uint32_t end = wide_schedule::owner(p, (run.tile + 1) * p.steps - 1);
  for (uint32_t b = blockIdx.x + 1; b <= end; b++) {
    uint32_t raised;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                   : "=r"(raised)
                   : "l"(flag + slot(b))
                   : "memory");
    } while (raised == 0);
  }
  /* Small tiles: the loads of several parts at once. */
#pragma unroll(values <= 16 ? 4 : 1)
  for (uint32_t b = blockIdx.x + 1; b <= end; b++) {
    const float *from = part + (uint64_t)slot(b) * values * 128;
#pragma unroll
    for (int r = 0; r < C::RT; r++)
#pragma unroll
      for (int i = 0; i < C::NT / 2; i++) acc[r][i] += __ldcg(from + (r * (C::NT / 2) + i) * 128);
  }
  asm volatile("bar.sync %0, 128;" ::"r"(wg + 1) : "memory");
  for (uint32_t b = blockIdx.x + 1 + thread; b <= end; b += 128) flag[slot(b)] = 0;
  return true;
}

#endif /* LQT_BACKENDS_CUDA_KERNELS_WIDE_SCHEDULE_CUH_ */
