/* 4 bits a weight: scalar codebooks of 16 entries, pairs of 256. */
#include "small_kernels.cuh"

ONE_KERNELS(4, 16, 4)
MANY_KERNELS(4)
