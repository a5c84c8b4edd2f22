/* 3 bits a weight: scalar codebooks of 8 entries. */
#include "small_kernels.cuh"

ONE_KERNELS(3, 16, 6)
MANY_KERNELS(3)
