/* Two to eight tokens of large weights: below, the fixed cost of these kernels is the larger part.
 */
#include "wide.cuh"

#define FEW_KERNEL(bits, steps)                                                                  \
  extern "C" __global__ __launch_bounds__(                                                       \
      wide_config<bits, steps, 8, 4, 1, 4, 4>::threads,                                          \
      1) void lqt_matmul_cb##bits##s##steps##_f16_m8__sm90a(const __grid_constant__ lqt__cu_wide \
                                                                p) {                             \
    wide<wide_config<bits, steps, 8, 4, 1, 4, 4>>(p);                                            \
  }
FEW_KERNEL(2, 4)
FEW_KERNEL(3, 4)
FEW_KERNEL(4, 4)
FEW_KERNEL(8, 4)
