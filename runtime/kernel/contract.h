/* Op contracts: what lqt_op_check checks, and how close a device must come to the reference. */
#ifndef LQT_RUNTIME_KERNEL_CONTRACT_H_
#define LQT_RUNTIME_KERNEL_CONTRACT_H_

#include "lqt/op.h"

/* Largest relative l2 error against the scalar reference on the same inputs, by op, activation type
 * and weight. `exact`: the device was opened with lqt_device_options.exact. Source: float32 paths
 * differ from the reference by summation order only; float16 activations round each output.
 *
 * A codebook product may round activations and entries to 8 bits. Rounded to bfloat16 a factor is
 * off by 2^-8 at most and by 1.7e-3 in the mean square (2^-14 / 12 times the mean of m^-2 over the
 * mantissas m), a product of two by 2.4e-3; integers of 8 bits with a scale for up to 256 columns
 * are held to 4.5e-3. That is the error of the outputs beside what they would be without
 * cancellation, so 5e-3 holds where there are enough outputs (32) that they do not all cancel by
 * chance. One token's rounded activation is shared by all outputs, at most 2^-8 even with a single
 * column; with fewer than 32 weights the error may be that of a single product, 2 * 2^-8. */
double lqt__op_tolerance(const lqt_op *op, bool exact);

/* Checks ops for a run on `device`: contracts, and whose the operands are. */
LQT_NODISCARD lqt_status lqt__ops_check(const lqt_device *device, const lqt_op *ops, size_t count,
                                        lqt_diag *diag);

#endif /* LQT_RUNTIME_KERNEL_CONTRACT_H_ */
