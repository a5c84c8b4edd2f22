#include "quant/strip.h"

void lqt__lane_book_set(lqt__lane_book *book, uint32_t entries, uint32_t dim, const float *values,
                        int lane) {
  int first = lane < 0 ? 0 : lane, last = lane < 0 ? LQT__LANES - 1 : lane;
  float high = values[0], low = values[0];
  for (uint32_t i = 1; i < entries * dim; i++) {
    high = values[i] > high ? values[i] : high;
    low = values[i] < low ? values[i] : low;
  }
  book->entries = entries;
  book->dim = dim;
  book->shared = lane < 0;
  for (int l = first; l <= last; l++) {
    book->high[l] = high;
    book->low[l] = low;
    for (uint32_t i = 0; i < entries * dim; i++) book->values[i * LQT__LANES + l] = values[i];
    for (uint32_t i = 0; dim == 1 && i + 1 < entries; i++) {
      book->bounds[i * LQT__LANES + l] = 0.5f * (values[i] + values[i + 1]);
    }
  }
}

const lqt__strip_ops *lqt__strip_ops_get(void) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return &lqt__strip_avx512;
  }
  if (__builtin_cpu_supports("avx2")) return &lqt__strip_avx2;
#endif
  return &lqt__strip_generic;
}
