/* The record of a tensor in changes and journals: its descriptor and quantization layout, without
 * name and places. Little-endian, of one size:
 *
 * | Offset | Size | Field |
 * |   0 |  3 | type, dtype, dimensions |
 * |   3 |  1 | zero |
 * |   4 | 32 | shape, eight u32, those unused 0 |
 * |  36 |  6 | ids of codebook, delta, mask |
 * |  42 |  2 | flags |
 * |  44 |  8 | scale f32, zero point i32 |
 * |  52 | 10 | RecursiveTensor: dimension u32, sparsity f32, distribution, flags |
 * |  62 |  4 | index bits, residual bits, scope, group scale type |
 * |  66 | 16 | group size, bank count, bank rows, bank columns, u32 each |
 * |  82 |  4 | ids of the residual codebook and the outlier delta |
 * |  86 |  4 | residual scale f32 | */
#ifndef LQT_RUNTIME_EDIT_DESCRIPTOR_H_
#define LQT_RUNTIME_EDIT_DESCRIPTOR_H_

#include "format/format.h"

enum { LQT__DESCRIPTOR_BYTES = 90 };

void lqt__descriptor_encode(const lqt__tensor *tensor, uint8_t out[LQT__DESCRIPTOR_BYTES]);
/* Sets the fields that the record has, and zeroes the others. Errors: LQT_BAD_TENSOR. */
LQT_NODISCARD lqt_status lqt__descriptor_decode(const uint8_t *record, uint64_t bytes,
                                                const char *where, lqt__tensor *out,
                                                lqt_diag *diag);
/* Copies the fields that a record has. */
void lqt__descriptor_assign(lqt__tensor *tensor, const lqt__tensor *from);

#endif /* LQT_RUNTIME_EDIT_DESCRIPTOR_H_ */
