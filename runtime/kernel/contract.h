/* Op contracts: what lqt_op_check checks, and how close a device must come to the reference. */
#ifndef LQT_RUNTIME_KERNEL_CONTRACT_H_
#define LQT_RUNTIME_KERNEL_CONTRACT_H_

#include "lqt/op.h"

/* Largest relative l2 error against the scalar reference on the same inputs, by op, activation type
 * and weight. `exact`: the device was opened with lqt_device_options.exact. Source: float32 paths
 * differ from the reference by summation order only; a codebook product may round activations and
 * codebooks to 8 bits, whose errors average to less than 5e-3 over many terms; with fewer than
 * 256 activations, weights or outputs it can be that of single terms, twice 2^-8 with bfloat16;
 * float16 activations round each output. */
double lqt__op_tolerance(const lqt_op *op, bool exact);

/* Checks ops for a run on `device`: contracts, and whose the operands are. */
LQT_NODISCARD lqt_status lqt__ops_check(const lqt_device *device, const lqt_op *ops, size_t count,
                                        lqt_diag *diag);

#endif /* LQT_RUNTIME_KERNEL_CONTRACT_H_ */
