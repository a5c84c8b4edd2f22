/* Float32 products of indices to 4 bits and of plain weights: AVX-512 F, BW, VL and DQ. */
#include "fast_f32_avx512.h"

KIND(S2)
KIND(S3)
KIND(S4)
KIND(V2_4)
KIND(V4_4)
KIND(F32)
KIND(F16)
KIND(BF16)

void lqt__fast_block_f32_avx512(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                uint64_t block, const void *x, uint64_t x_stride, unsigned cols,
                                float *tile) {
  switch (plane->kind) {
#define CASE(kind)                                          \
  case LQT__FAST_##kind:                                    \
    block_##kind(w, plane, block, x, x_stride, cols, tile); \
    return;
    CASE(S2)
    CASE(S3)
    CASE(S4)
    CASE(V2_4)
    CASE(V4_4)
    CASE(F32)
    CASE(F16)
    CASE(BF16)
    default:
      lqt__fast_block_f32_avx512vbmi(w, plane, block, x, x_stride, cols, tile);
  }
}
