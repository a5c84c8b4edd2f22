/* A build without the fused kernels: every product takes the generic path. */
#include "fast_matmul.h"

lqt__cpu_isa lqt__cpu_best_isa(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("f16c")) {
    return LQT__CPU_SCALAR;
  }
  bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vnni");
  return wide ? LQT__CPU_AVX512 : LQT__CPU_AVX2;
#else
  return LQT__CPU_SCALAR;
#endif
}

lqt_status lqt__cpu_fast_create(const lqt_weight_desc *desc, lqt__cpu_isa isa, bool exact,
                                lqt__pool *pool, lqt__cpu_fast **out, lqt_diag *diag) {
  (void)desc, (void)isa, (void)exact, (void)pool, (void)diag;
  *out = NULL;
  return LQT_OK;
}

void lqt__cpu_fast_destroy(lqt__cpu_fast *fast) { (void)fast; }

lqt_status lqt__cpu_fast_patch(lqt__cpu_fast *fast, const lqt_weight_patch *patch, lqt_diag *diag) {
  (void)fast, (void)patch, (void)diag;
  return LQT_OK;
}

lqt_status lqt__cpu_fast_matmul(const lqt__cpu_product *products, size_t count, const float *x,
                                uint64_t x_stride, uint64_t tokens, lqt__pool *pool,
                                lqt_diag *diag) {
  (void)products, (void)count, (void)x, (void)x_stride, (void)tokens, (void)pool, (void)diag;
  return LQT_OK;
}

const char *lqt__cpu_fast_variant(const lqt__cpu_fast *fast, uint64_t tokens) {
  (void)fast, (void)tokens;
  return "";
}
