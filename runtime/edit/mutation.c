#include "edit/mutation.h"

#include "base/diag.h"

typedef struct operation {
  const char *name;
  lqt__target_kind target;
  lqt__mutation_fn *draft;
} operation;

static const operation operations[] = {
    [LQT_EDIT_CODEBOOK_ENTRIES] = {"codebook_entries", LQT__TARGET_CODEBOOK,
                                   lqt__mutate_codebook_entries},
    [LQT_EDIT_CODEBOOK_EXPAND] = {"codebook_expand", LQT__TARGET_CODEBOOK,
                                  lqt__mutate_codebook_expand},
    [LQT_EDIT_DELTA_VALUES] = {"delta_values", LQT__TARGET_DELTA, lqt__mutate_delta_values},
    [LQT_EDIT_DELTA_SPARSE] = {"delta_sparse", LQT__TARGET_TENSOR, lqt__mutate_delta_sparse},
    [LQT_EDIT_DELTA_REPLACE] = {"delta_replace", LQT__TARGET_TENSOR, lqt__mutate_delta_replace},
    [LQT_EDIT_DELTA_REMOVE] = {"delta_remove", LQT__TARGET_TENSOR, lqt__mutate_delta_remove},
    [LQT_EDIT_MASK_UPDATE] = {"mask_update", LQT__TARGET_TENSOR, lqt__mutate_mask_update},
    [LQT_EDIT_MASK_REPLACE] = {"mask_replace", LQT__TARGET_TENSOR, lqt__mutate_mask_replace},
    [LQT_EDIT_MASK_REMOVE] = {"mask_remove", LQT__TARGET_TENSOR, lqt__mutate_mask_remove},
    [LQT_EDIT_GROUP_SCALES] = {"group_scales", LQT__TARGET_TENSOR, lqt__mutate_group_scales},
    [LQT_EDIT_ZERO_POINTS] = {"zero_points", LQT__TARGET_TENSOR, lqt__mutate_zero_points},
    [LQT_EDIT_TENSOR_SCALE] = {"tensor_scale", LQT__TARGET_TENSOR, lqt__mutate_tensor_scale},
    [LQT_EDIT_RESIDUAL_SCALE] = {"residual_scale", LQT__TARGET_TENSOR, lqt__mutate_residual_scale},
    [LQT_EDIT_TENSOR_REPLACE] = {"tensor_replace", LQT__TARGET_TENSOR, lqt__mutate_tensor_replace},
    [LQT_EDIT_TENSOR_MULTIPLY] = {"tensor_multiply", LQT__TARGET_TENSOR,
                                  lqt__mutate_tensor_multiply},
    [LQT_EDIT_TENSOR_CLAMP] = {"tensor_clamp", LQT__TARGET_TENSOR, lqt__mutate_tensor_clamp},
    [LQT_EDIT_TENSOR_CLONE] = {"tensor_clone", LQT__TARGET_TENSOR, lqt__mutate_tensor_clone},
    [LQT_EDIT_TENSOR_SWAP] = {"tensor_swap", LQT__TARGET_TENSOR, lqt__mutate_tensor_swap},
    [LQT_EDIT_MODULE_BYPASS] = {"module_bypass", LQT__TARGET_MODULE, lqt__mutate_module_bypass},
    [LQT_EDIT_MODULE_RESTORE] = {"module_restore", LQT__TARGET_MODULE, lqt__mutate_module_restore},
    [LQT_EDIT_MODULE_SWAP] = {"module_swap", LQT__TARGET_MODULE, lqt__mutate_module_swap},
    [LQT_EDIT_HYPERPARAMETER] = {"hyperparameter", LQT__TARGET_MODEL, lqt__mutate_hyperparameter},
    [LQT_EDIT_RAW_WRITE] = {"raw_write", LQT__TARGET_TENSOR, lqt__mutate_raw_write},
    [LQT_EDIT_RAW_FILL] = {"raw_fill", LQT__TARGET_TENSOR, lqt__mutate_raw_fill},
    [LQT_EDIT_RAW_COPY] = {"raw_copy", LQT__TARGET_TENSOR, lqt__mutate_raw_copy},
    [LQT_EDIT_RAW_SWAP] = {"raw_swap", LQT__TARGET_TENSOR, lqt__mutate_raw_swap},
};

static const operation *find(lqt_operation number) {
  size_t index = (size_t)number;
  bool known = number > 0 && index < sizeof operations / sizeof *operations;
  return known && operations[index].name != NULL ? &operations[index] : NULL;
}

const char *lqt_operation_name(lqt_operation number) {
  const operation *found = find(number);
  return found != NULL ? found->name : NULL;
}

lqt__target_kind lqt__mutation_target(const lqt_mutation *mutation) {
  const operation *found = find(mutation->operation);
  if (found == NULL) return LQT__TARGET_MODEL;
  bool of_module = mutation->operation == LQT_EDIT_HYPERPARAMETER && mutation->target != NULL;
  return of_module ? LQT__TARGET_MODULE : found->target;
}

lqt_status lqt__mutation_draft(lqt__draft *d, const lqt_mutation *mutation) {
  if (mutation == NULL || mutation->size != sizeof *mutation) {
    return LQT__REFUSE(d, LQT_INVALID_ARGUMENT,
                       "lqt_mutation.size is %u, not %zu: set it to sizeof",
                       mutation != NULL ? mutation->size : 0, sizeof *mutation);
  }
  const operation *found = find(mutation->operation);
  if (found == NULL) {
    return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "there is no operation %d",
                       (int)mutation->operation);
  }
  if ((mutation->value_count != 0 && mutation->values == NULL) ||
      (mutation->coordinate_count != 0 && mutation->coordinates == NULL) ||
      (mutation->bytes != 0 && mutation->data == NULL)) {
    return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "a count without what it counts");
  }
  d->operation = mutation->operation;
  LQT__TRY(lqt__rules_allow(d->rules, mutation->operation, mutation->target, d->diag));
  return found->draft(d, mutation);
}
