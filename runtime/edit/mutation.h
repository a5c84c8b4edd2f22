/* The mutations: one function each. Every one checks what it is given against the draft's overlay
 * and turns it into changes. */
#ifndef LQT_RUNTIME_EDIT_MUTATION_H_
#define LQT_RUNTIME_EDIT_MUTATION_H_

#include "edit/draft.h"

/* What an operation is done to, as journals say it. */
typedef enum lqt__target_kind {
  LQT__TARGET_MODEL = 0,
  LQT__TARGET_CODEBOOK = 1,
  LQT__TARGET_DELTA = 2,
  LQT__TARGET_TENSOR = 3,
  LQT__TARGET_MODULE = 4,
} lqt__target_kind;
lqt__target_kind lqt__mutation_target(const lqt_mutation *mutation);

/* Dispatches. Errors: those of lqt_transaction_add. */
LQT_NODISCARD lqt_status lqt__mutation_draft(lqt__draft *draft, const lqt_mutation *mutation);

/* Index of a codebook and of a vector's first value in its section (elements after the head).
 * Errors: LQT_NOT_FOUND, LQT_OUT_OF_RANGE. */
LQT_NODISCARD lqt_status lqt__codebook_locate(const lqt__overlay *overlay, uint16_t id,
                                              uint64_t vector, size_t *out_index,
                                              uint64_t *out_element, lqt_diag *diag);

typedef lqt_status lqt__mutation_fn(lqt__draft *draft, const lqt_mutation *mutation);
/* mutation_codebook.c */
lqt__mutation_fn lqt__mutate_codebook_entries, lqt__mutate_codebook_expand;
/* mutation_delta.c */
lqt__mutation_fn lqt__mutate_delta_values, lqt__mutate_delta_sparse, lqt__mutate_delta_replace,
    lqt__mutate_delta_remove;
/* mutation_mask.c */
lqt__mutation_fn lqt__mutate_mask_update, lqt__mutate_mask_replace, lqt__mutate_mask_remove;
/* mutation_tensor.c */
lqt__mutation_fn lqt__mutate_group_scales, lqt__mutate_zero_points, lqt__mutate_tensor_scale,
    lqt__mutate_residual_scale, lqt__mutate_tensor_replace, lqt__mutate_tensor_multiply,
    lqt__mutate_tensor_clamp, lqt__mutate_tensor_clone, lqt__mutate_tensor_swap;
/* mutation_module.c */
lqt__mutation_fn lqt__mutate_module_bypass, lqt__mutate_module_restore, lqt__mutate_module_swap,
    lqt__mutate_hyperparameter;
/* mutation_raw.c */
lqt__mutation_fn lqt__mutate_raw_write, lqt__mutate_raw_fill, lqt__mutate_raw_copy,
    lqt__mutate_raw_swap;

/* ---- Shared by them ---- */

/* Copies the contents of a tensor, of this file or another, to the tensor `name` of the draft,
 * which is made when it is not there: sections, and codebooks, deltas and masks of its own. */
LQT_NODISCARD lqt_status lqt__copy_tensor(lqt__draft *draft, const lqt__file *from,
                                          const lqt__tensor *tensor, const char *name);
/* A delta at (row, column) pairs that ascend, from values in `dtype` bytes: the section's bytes,
 * allocated. */
LQT_NODISCARD lqt_status lqt__sparse_delta(lqt__draft *draft, uint8_t encoding, lqt_dtype dtype,
                                           const lqt__tensor *tensor, const uint32_t *pairs,
                                           const uint8_t *values, uint64_t count, uint16_t id,
                                           uint8_t flags, uint8_t **out, uint64_t *out_bytes);
/* Sets the delta of tensor `index` at pairs (in any order, the last of equal ones holds). */
LQT_NODISCARD lqt_status lqt__set_delta(lqt__draft *draft, size_t index, lqt_dtype dtype,
                                        const uint32_t *pairs, const float *values, uint64_t count);

#endif /* LQT_RUNTIME_EDIT_MUTATION_H_ */
