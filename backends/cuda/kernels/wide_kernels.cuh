/* The kernels of wide.cuh for one width, by macros. A multiply by BITS of weights: what is best for
 * each number of tokens was measured, see docs/adr. */
#include "wide.cuh"

#define WIDE_KERNEL(bits, steps, tokens, wgs, ups, kb)                    \
  extern "C" __global__ __launch_bounds__(                                \
      wide_config<bits, steps, tokens, wgs, 1, ups, kb>::threads, 1) void \
      lqt_matmul_cb##bits##s##steps##_f16_m##tokens##__sm90a(             \
          const __grid_constant__ lqt__cu_wide p) {                       \
    wide<wide_config<bits, steps, tokens, wgs, 1, ups, kb>>(p);           \
  }
#define WIDE_KERNELS(bits)           \
  WIDE_KERNEL(bits, 4, 16, 4, 4, 4)  \
  WIDE_KERNEL(bits, 4, 32, 4, 4, 4)  \
  WIDE_KERNEL(bits, 4, 64, 4, 4, 2)  \
  WIDE_KERNEL(bits, 4, 128, 3, 2, 2) \
  WIDE_KERNEL(bits, 4, 256, 2, 1, 4) \
  WIDE_KERNEL(bits, 1, 16, 4, 4, 2)  \
  WIDE_KERNEL(bits, 1, 64, 3, 4, 2)  \
  WIDE_KERNEL(bits, 1, 256, 2, 1, 2)
