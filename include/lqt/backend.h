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
};

#ifdef __cplusplus
}
#endif
#endif /* LQT_BACKEND_H_ */
