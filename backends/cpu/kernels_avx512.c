#define KERNELS_SIMD "simd_avx512.h"
#define KERNELS_TABLE lqt__cpu_kernels_avx512
#define KERNELS_NAME "avx512"
#include "kernels_body.h"
