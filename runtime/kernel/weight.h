/* What backends and the device layer share about canonical weights. */
#ifndef LQT_RUNTIME_KERNEL_WEIGHT_H_
#define LQT_RUNTIME_KERNEL_WEIGHT_H_

#include "lqt/weight.h"

/* Index `index` of a packed row. */
uint32_t lqt__index_get(const uint8_t *row, uint32_t bits, uint64_t index);
/* Banks that the matrix needs. */
uint64_t lqt__weight_banks(const lqt_weight_desc *desc);

/* Elements of a part that the weight has, and bytes of one. */
uint64_t lqt__weight_part_count(const lqt_weight_desc *desc, lqt_weight_part part);
size_t lqt__weight_part_size(const lqt_weight_desc *desc, lqt_weight_part part);
/* 1u << part for every part that the weight has. */
uint32_t lqt__weight_parts(const lqt_weight_desc *desc);
/* Bytes of all parts, each once. */
uint64_t lqt__weight_bytes(const lqt_weight_desc *desc);

/* One more owner of an uploaded weight: it goes with its last lqt_weight_destroy. */
lqt_weight *lqt__weight_retain(lqt_weight *weight);
/* Parts and ranges of patches. Errors: LQT_INVALID_ARGUMENT, LQT_OUT_OF_RANGE. */
LQT_NODISCARD lqt_status lqt__weight_patch_check(const lqt_weight *weight,
                                                 const lqt_weight_patch *patches, size_t count,
                                                 lqt_diag *diag);

#endif /* LQT_RUNTIME_KERNEL_WEIGHT_H_ */
