/* 8 bits a weight: scalar codebooks of 256 entries. */
#include "small_kernels.cuh"

ONE_KERNELS(8, 24, 4)
MANY_KERNELS(8)
