/* The kernels of small.cuh for one width, by macros. */
#include "small.cuh"

#define ONE_KERNEL(bits, steps, ragged, suffix, warps, depth)                     \
  extern "C" __global__ __launch_bounds__((warps)*32, 1) void                     \
      lqt_matmul_cb##bits##s##steps##suffix##_f16_m1__sm80(                       \
          const __grid_constant__ lqt__cu_small3 p) {                             \
    const uint32_t w = (blockIdx.x >= p.first[1]) + (blockIdx.x >= p.first[2]);   \
    small_one<bits, steps, warps, depth, ragged>(p.w[w], blockIdx.x - p.first[w], \
                                                 p.first[w + 1] - p.first[w]);    \
  }
#define MANY_KERNEL(bits, steps, ragged, suffix, tokens, name)           \
  extern "C" __global__ __launch_bounds__(SMALL_MANY_WARPS * 32, 1) void \
      lqt_matmul_cb##bits##s##steps##suffix##_f16_##name##__sm80(        \
          const __grid_constant__ lqt__cu_small p) {                     \
    small_many<bits, steps, tokens, ragged>(p);                          \
  }
/* Only the commonest kind has a kernel of its own for whole blocks; "r" takes any columns. */
#define ONE_KERNELS(bits, warps, depth)      \
  ONE_KERNEL(bits, 0, true, r, warps, depth) \
  ONE_KERNEL(bits, 1, true, r, warps, depth) \
  ONE_KERNEL(bits, 2, true, r, warps, depth) \
  ONE_KERNEL(bits, 4, true, r, warps, depth) \
  ONE_KERNEL(bits, 4, false, , warps, depth)
#define MANY_KERNELS(bits)             \
  MANY_KERNEL(bits, 0, true, r, 1, m8) \
  MANY_KERNEL(bits, 1, true, r, 1, m8) \
  MANY_KERNEL(bits, 2, true, r, 1, m8) \
  MANY_KERNEL(bits, 4, true, r, 1, m8)
