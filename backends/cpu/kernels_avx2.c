#define KERNELS_SIMD "simd_avx2.h"
#define KERNELS_TABLE lqt__cpu_kernels_avx2
#define KERNELS_NAME "avx2"
#include "kernels_body.h"
