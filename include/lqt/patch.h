/* Staged patches: same-size changes of uploaded weights that wait beside the live bytes and are
 * exchanged with them between two runs of ops. Creating one takes as long as the copy does and
 * disturbs no run; the exchange is short and cannot fail short of a lost device; exchanging again
 * takes it back. Engines use these calls for live edits (lqt/edit.h); selftest and benches use them
 * directly. */
#ifndef LQT_PATCH_H_
#define LQT_PATCH_H_

#include "lqt/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lqt_patch_change {
  lqt_weight *weight;
  lqt_weight_patch patch;
  /* What the patch replaces. NULL where the caller does not know: devices that cannot keep it
   * themselves then refuse. */
  const void *old_data;
} lqt_patch_change;

/* Brings the changes, of any number of weights of one device, to memory beside them. Where changes
 * overlap the last one holds. `changes` and what they point to are not needed after the call.
 * Owns: the caller; lqt_patch_destroy before the device goes. Keeps the weights alive.
 * Threads: one-at-a-time per device; ops may run on the device meanwhile. Errors:
 * LQT_INVALID_ARGUMENT, LQT_OUT_OF_RANGE, LQT_UNSUPPORTED (old_data needed), LQT_*OUT_OF_MEMORY,
 * LQT_DEVICE_*; the weights are untouched then. */
LQT_API LQT_NODISCARD lqt_status lqt_patch_create(lqt_device *device,
                                                  const lqt_patch_change *changes, size_t count,
                                                  lqt_patch **out_patch, lqt_diag *diag);
/* Returns when the bytes have arrived, so that a flip will not wait for them. Threads: any. */
LQT_API LQT_NODISCARD lqt_status lqt_patch_wait(lqt_patch *patch, lqt_diag *diag);
/* Exchanges the patch with what is live; the next run of ops sees it. Again: takes it back. Patches
 * that share bytes are taken back in the reverse order. Must not run beside ops that read the
 * weights. Threads: one-at-a-time per device. Errors: LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_patch_flip(lqt_patch *patch, lqt_diag *diag);
LQT_API void lqt_patch_destroy(lqt_patch *patch); /* NULL accepted; what was flipped stays */
/* Device memory that the patch takes. Threads: any. */
LQT_API uint64_t lqt_patch_bytes(const lqt_patch *patch);

/* A number made from every byte of the weight's form on the device, what is derived from the values
 * included: equal for a weight that was patched and for one that was created with those values.
 * Must not run beside a flip. Threads: one-at-a-time per device.
 * Errors: LQT_UNSUPPORTED, LQT_OUT_OF_MEMORY, LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_weight_digest(lqt_weight *weight, uint64_t *out_digest,
                                                   lqt_diag *diag);

/* Host memory from which the device copies at its full speed (page-locked where that matters), for
 * patches that are made again and again. NULL: no memory. Owns: the caller; lqt_host_free before
 * the device goes. Threads: any. */
LQT_API void *lqt_host_alloc(lqt_device *device, uint64_t bytes);
LQT_API void lqt_host_free(lqt_device *device, void *memory); /* NULL accepted */

#ifdef __cplusplus
}
#endif
#endif /* LQT_PATCH_H_ */
