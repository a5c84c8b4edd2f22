/* The kernels that the build embedded. */
#include "internal.h"

extern const unsigned long long lqt__cu_fatbin_ops[], lqt__cu_fatbin_pack[],
    lqt__cu_fatbin_small2[], lqt__cu_fatbin_small3[], lqt__cu_fatbin_small4[],
    lqt__cu_fatbin_small8[], lqt__cu_fatbin_swap[], lqt__cu_fatbin_wide2[], lqt__cu_fatbin_wide3[],
    lqt__cu_fatbin_wide4[], lqt__cu_fatbin_wide8[], lqt__cu_fatbin_wide_few[];

const void *lqt__cu_fatbin(lqt__cu_module module) {
  const void *const table[LQT__CU_MODULES] = {
      [LQT__CU_OPS] = lqt__cu_fatbin_ops,       [LQT__CU_PACK] = lqt__cu_fatbin_pack,
      [LQT__CU_SMALL2] = lqt__cu_fatbin_small2, [LQT__CU_SMALL3] = lqt__cu_fatbin_small3,
      [LQT__CU_SMALL4] = lqt__cu_fatbin_small4, [LQT__CU_SMALL8] = lqt__cu_fatbin_small8,
      [LQT__CU_SWAP] = lqt__cu_fatbin_swap,     [LQT__CU_WIDE2] = lqt__cu_fatbin_wide2,
      [LQT__CU_WIDE3] = lqt__cu_fatbin_wide3,   [LQT__CU_WIDE4] = lqt__cu_fatbin_wide4,
      [LQT__CU_WIDE8] = lqt__cu_fatbin_wide8,   [LQT__CU_WIDE_FEW] = lqt__cu_fatbin_wide_few,
  };
  return table[module];
}
