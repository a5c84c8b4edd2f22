/* 2 bits a weight, many tokens. */
#include "wide_kernels.cuh"

WIDE_KERNELS(2)
