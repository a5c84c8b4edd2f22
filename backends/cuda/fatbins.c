/* The kernels that the build embedded. */
#include "internal.h"

#define DECLARE(number, name) extern const unsigned long long lqt__cu_fatbin_##name[];
LQT__CU_MODULE_TABLE(DECLARE)
#undef DECLARE

const void *lqt__cu_fatbin(lqt__cu_module module) {
#define PLACE(number, name) [LQT__CU_##number] = lqt__cu_fatbin_##name,
  const void *const table[LQT__CU_MODULES] = {LQT__CU_MODULE_TABLE(PLACE)};
#undef PLACE
  return table[module];
}
