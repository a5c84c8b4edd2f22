/* 2 bits a weight: scalar codebooks of 4 entries, pairs of 16. */
#include "small_kernels.cuh"

ONE_KERNELS(2, 16, 4)
MANY_KERNELS(2)
