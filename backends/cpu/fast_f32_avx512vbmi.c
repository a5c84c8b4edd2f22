/* Float32 products of 8-bit indices: AVX-512 with VBMI. */
#include "fast_f32_avx512.h"

KIND(S8)
KIND(V2_8)
KIND(V4_8)

void lqt__fast_block_f32_avx512vbmi(const lqt__cpu_fast *w, const lqt__fast_plane *plane,
                                    uint64_t block, const void *x, uint64_t x_stride, unsigned cols,
                                    float *tile) {
  switch (plane->kind) {
#define CASE(kind)                                          \
  case LQT__FAST_##kind:                                    \
    block_##kind(w, plane, block, x, x_stride, cols, tile); \
    return;
    CASE(S8)
    CASE(V2_8)
    CASE(V4_8)
    default:
      return; /* fast_f32_avx512.c */
  }
}
