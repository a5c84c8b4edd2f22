/* The kernels that the build embedded. */
#include "internal.h"

extern const unsigned long long lqt__cu_fatbin_ops[], lqt__cu_fatbin_pack[],
    lqt__cu_fatbin_small2[], lqt__cu_fatbin_small3[], lqt__cu_fatbin_small4[],
    lqt__cu_fatbin_small8[], lqt__cu_fatbin_swap[];

const void *lqt__cu_fatbin(lqt__cu_module module) {
  const void *const table[LQT__CU_MODULES] = {
      [LQT__CU_OPS] = lqt__cu_fatbin_ops,       [LQT__CU_PACK] = lqt__cu_fatbin_pack,
      [LQT__CU_SMALL2] = lqt__cu_fatbin_small2, [LQT__CU_SMALL3] = lqt__cu_fatbin_small3,
      [LQT__CU_SMALL4] = lqt__cu_fatbin_small4, [LQT__CU_SMALL8] = lqt__cu_fatbin_small8,
      [LQT__CU_SWAP] = lqt__cu_fatbin_swap,
  };
  return table[module];
}
