#define KERNELS_SIMD "simd_scalar.h"
#define KERNELS_TABLE lqt__cpu_kernels_scalar
#define KERNELS_NAME "scalar"
#include "kernels_body.h"
