/* The service-provider interface: what a backend implements. Applications never include this.
 *
 * A backend is one `static const lqt_backend` returned by `lqt_backend_<name>()`; the build
 * generates the table of those that were built (runtime/device/registry). The runtime checks
 * arguments (ops by lqt_op_check, ranges, weights by lqt_weight_desc_check) before it calls a slot.
 * Slots never abort; they return a status and fill the diag. */
#ifndef LQT_BACKEND_H_
#define LQT_BACKEND_H_

#include "lqt/device.h"
#include "lqt/op.h"
#include "lqt/patch.h"
#include "lqt/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LQT_BACKEND_ABI 1u

/* What a slot may rely on: devices, buffers and weights of one call belong together; views lie
 * inside their buffers; a weight's description passed the deep check (every index has an entry,
 * every sparse column is inside), and stays so after a patch that passed. */

typedef struct lqt_backend lqt_backend;

/* Heads of the backend's own objects: each backend's struct begins with one. The runtime fills the
 * heads; `struct lqt_device`, `lqt_buffer`, `lqt_weight` ARE these structs. */
struct lqt_device {
  const lqt_backend *backend;
  int refs; /* atomic, runtime's */
  lqt_device_info info;
};
struct lqt_buffer {
  lqt_device *device;
  uint64_t bytes;
};
struct lqt_weight {
  lqt_device *device;
  lqt_weight_desc shape; /* sizes and kinds of the canonical weight; every pointer in it is NULL */
  uint32_t parts;        /* 1u << part for every lqt_weight_part that the weight has */
  uint64_t bytes;        /* see lqt_weight_bytes */
  uint32_t refs;         /* atomic, runtime's: engines and patches that hold it */
};
struct lqt_patch {
  lqt_device *device;
  uint64_t bytes;       /* device memory that it takes; the backend's to fill */
  lqt_weight **weights; /* runtime's: those it changes, kept alive by it */
  size_t weight_count;
};

struct lqt_program {
  lqt_device *device;
  lqt_op *ops; /* checked */
  size_t count;
  void *native; /* the backend's own, NULL at first */
};

struct lqt_backend {
  uint32_t abi;  /* LQT_BACKEND_ABI */
  uint32_t size; /* sizeof(lqt_backend) */
  const char *name;

  /* Devices that can be opened now; *out_reason (static storage) says why there are none. */
  size_t (*device_count)(const char **out_reason);
  lqt_status (*device_describe)(size_t index, lqt_device_info *out_info);
  /* `rest` is the selector after the backend's name: "", ":0", ":part of a name", "-oracle". */
  lqt_status (*device_open)(const char *rest, const lqt_device_options *options,
                            lqt_device **out_device, lqt_diag *diag);
  void (*device_close)(lqt_device *device);

  lqt_status (*buffer_create)(lqt_device *device, uint64_t bytes, lqt_buffer **out, lqt_diag *diag);
  void (*buffer_destroy)(lqt_buffer *buffer);
  lqt_status (*buffer_write)(lqt_buffer *buffer, uint64_t offset, const void *data, uint64_t bytes,
                             lqt_diag *diag);
  lqt_status (*buffer_read)(lqt_buffer *buffer, uint64_t offset, void *data, uint64_t bytes,
                            lqt_diag *diag);

  lqt_status (*weight_create)(lqt_device *device, const lqt_weight_desc *desc, lqt_weight **out,
                              lqt_diag *diag);
  void (*weight_destroy)(lqt_weight *weight);
  /* Parts and ranges are checked before; all patches or none. */
  lqt_status (*weight_patch)(lqt_weight *weight, const lqt_weight_patch *patches, size_t count,
                             lqt_diag *diag);

  /* Runs ops in order, to completion. */
  lqt_status (*run)(lqt_device *device, const lqt_op *ops, size_t count, lqt_diag *diag);
  const char *(*variant)(lqt_device *device, const lqt_op *op);

  void (*profile_enable)(lqt_device *device, bool on);
  size_t (*profile_take)(lqt_device *device, lqt_profile_entry *out, size_t capacity);

  /* ---- Staged patches (lqt/patch.h). The four patch slots are all there or all NULL; without them
   * the runtime keeps patches on the host and applies them by weight_patch. ---- */

  /* Brings changes, which were checked and do not overlap, to memory beside the live weights. Runs
   * beside `run` on another thread and must not hold it up: a copy queue of its own, a ring of
   * pinned halves of which one fills while the other is under way, no call that waits for the
   * compute queue. Returns when the host bytes are not needed any more; they may still be under
   * way. Patches are staged by one thread at a time per device. `old_data` may be ignored. */
  lqt_status (*patch_create)(lqt_device *device, const lqt_patch_change *changes, size_t count,
                             lqt_patch **out, lqt_diag *diag);
  /* Returns when all bytes are on the device. */
  lqt_status (*patch_wait)(lqt_patch *patch, lqt_diag *diag);
  /* Exchanges staged and live bytes in the order of the compute queue; a second call exchanges them
   * back. Addresses stay what they are, so recorded programs stay valid; whatever is derived from
   * the bytes (expanded tables) is made again. Full dependencies on both sides: nothing that later
   * ops read of a weight, prefetches included, may be fetched before the exchange is done. Never
   * called beside `run`. Other patches of the same bytes may have been flipped since this one was
   * created: what is exchanged is what is live now. Fails only when the device does. */
  lqt_status (*patch_flip)(lqt_patch *patch, lqt_diag *diag);
  void (*patch_destroy)(lqt_patch *patch);

  /* A number made from every byte of the weight's device form, the derived ones included: equal for
   * a patched weight and for one created with those values. May be NULL. */
  lqt_status (*weight_digest)(lqt_weight *weight, uint64_t *out_digest, lqt_diag *diag);
  /* Host memory that patch_create and buffer_write read at full speed (page-locked). May be NULL:
   * the runtime then gives plain memory. */
  void *(*host_alloc)(lqt_device *device, uint64_t bytes);
  void (*host_free)(lqt_device *device, void *memory);

  /* ---- Programs. ---- */

  /* Optional, both or none: without them the runtime writes, calls `run`, and reads. */
  lqt_status (*program_run)(lqt_program *program, const lqt_transfer *in, size_t in_count,
                            const lqt_transfer *out, size_t out_count, lqt_diag *diag);
  void (*program_forget)(lqt_program *program); /* frees `native` */

  uint32_t optional_ops; /* 1u << kind of those ops beyond the required ones that `run` takes */
};

#ifdef __cplusplus
}
#endif
#endif /* LQT_BACKEND_H_ */
