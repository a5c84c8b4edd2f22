/* Uploaded weights and running ops: everything is checked here, then the backend's slot is called.
 */
#include <string.h>

#include "base/diag.h"
#include "kernel/contract.h"
#include "kernel/weight.h"
#include "lqt/backend.h"

lqt_status lqt_weight_create(lqt_device *device, const lqt_weight_desc *desc,
                             lqt_weight **out_weight, lqt_diag *diag) {
  if (out_weight != NULL) *out_weight = NULL;
  if (device == NULL || out_weight == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "weight", "no device or no place for a weight");
  }
  LQT__TRY(lqt_weight_desc_check(desc, true, diag));
  lqt_weight *weight = NULL;
  LQT__TRY(device->backend->weight_create(device, desc, &weight, diag));
  weight->device = device;
  __atomic_store_n(&weight->refs, 1, __ATOMIC_RELAXED);
  weight->parts = lqt__weight_parts(desc);
  weight->bytes = lqt__weight_bytes(desc);
  lqt_weight_desc *shape = &weight->shape;
  *shape = *desc;
  shape->data = NULL;
  shape->indices.data = shape->residual_indices.data = NULL;
  shape->codebook.vectors = shape->residual.vectors = NULL;
  shape->group_scales = shape->zero_points = NULL;
  shape->delta.values = shape->delta.values_b = NULL;
  shape->delta.row_ptr = shape->delta.columns = NULL;
  shape->delta.columns16 = NULL;
  shape->mask.bits = NULL;
  *out_weight = weight;
  return LQT_OK;
}

lqt_weight *lqt__weight_retain(lqt_weight *weight) {
  __atomic_fetch_add(&weight->refs, 1, __ATOMIC_RELAXED);
  return weight;
}

void lqt_weight_destroy(lqt_weight *weight) {
  if (weight == NULL || __atomic_sub_fetch(&weight->refs, 1, __ATOMIC_ACQ_REL) != 0) return;
  weight->device->backend->weight_destroy(weight);
}

uint64_t lqt_weight_bytes(const lqt_weight *weight) { return weight->bytes; }

lqt_status lqt__weight_patch_check(const lqt_weight *weight, const lqt_weight_patch *patches,
                                   size_t count, lqt_diag *diag) {
  for (size_t i = 0; i < count; i++) {
    const lqt_weight_patch *patch = &patches[i];
    if (patch->part < LQT_PART_CODEBOOK || patch->part > LQT_PART_PLAIN ||
        (weight->parts >> patch->part & 1u) == 0) {
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, "patch",
                       "patch %zu is for part %d, which the weight does not have", i,
                       (int)patch->part);
    }
    uint64_t have = lqt__weight_part_count(&weight->shape, patch->part);
    if (patch->first > have || patch->count > have - patch->first) {
      return lqt__fail(diag, LQT_OUT_OF_RANGE, "patch",
                       "patch %zu covers elements %llu to %llu of a part that has %llu", i,
                       (unsigned long long)patch->first,
                       (unsigned long long)(patch->first + patch->count), (unsigned long long)have);
    }
    if (patch->data == NULL && patch->count != 0) {
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, "patch", "patch %zu has no data", i);
    }
  }
  return LQT_OK;
}

lqt_status lqt_weight_patch_apply(lqt_weight *weight, const lqt_weight_patch *patches, size_t count,
                                  lqt_diag *diag) {
  if (weight == NULL || (patches == NULL && count != 0)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "patch", "no weight or no patches");
  }
  LQT__TRY(lqt__weight_patch_check(weight, patches, count, diag));
  if (count == 0) return LQT_OK;
  return weight->device->backend->weight_patch(weight, patches, count, diag);
}

/* Every object of an op belongs to the device it runs on. */
static lqt_status check_owner(const lqt_device *device, const lqt_op *op, lqt_diag *diag) {
  bool mine = true;
  for (int i = 0; i < LQT_OP_MAX_IN; i++) {
    if (op->in[i].buffer != NULL) mine &= op->in[i].buffer->device == device;
  }
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    if (op->out[i].buffer != NULL) mine &= op->out[i].buffer->device == device;
    if (op->weight[i] != NULL) mine &= op->weight[i]->device == device;
  }
  if (mine) return LQT_OK;
  return lqt__fail(diag, LQT_INVALID_ARGUMENT, lqt_op_name(op->kind),
                   "a buffer or weight belongs to another device than %s", device->info.selector);
}

lqt_status lqt__ops_check(const lqt_device *device, const lqt_op *ops, size_t count,
                          lqt_diag *diag) {
  if (device == NULL || (ops == NULL && count != 0)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "run", "no device or no ops");
  }
  for (size_t i = 0; i < count; i++) {
    LQT__TRY(lqt_op_check(&ops[i], diag));
    if (!lqt_device_has_op(device, ops[i].kind)) {
      return lqt__fail(diag, LQT_UNSUPPORTED, lqt_op_name(ops[i].kind), "%s does not have this op",
                       device->info.selector);
    }
    LQT__TRY(check_owner(device, &ops[i], diag));
  }
  return LQT_OK;
}

bool lqt_device_has_op(const lqt_device *device, lqt_op_kind kind) {
  if (device == NULL || kind <= 0 || kind >= LQT_OP_COUNT_) return false;
  return kind != LQT_OP_TOPK || (device->backend->optional_ops >> kind & 1u) != 0;
}

lqt_status lqt_device_run(lqt_device *device, const lqt_op *ops, size_t count, lqt_diag *diag) {
  LQT__TRY(lqt__ops_check(device, ops, count, diag));
  if (count == 0) return LQT_OK;
  return device->backend->run(device, ops, count, diag);
}

const char *lqt_device_variant(lqt_device *device, const lqt_op *op) {
  if (device == NULL || op == NULL) return "";
  const char *name = device->backend->variant(device, op);
  return name != NULL ? name : "";
}
