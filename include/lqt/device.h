/* Devices and their buffers. */
#ifndef LQT_DEVICE_H_
#define LQT_DEVICE_H_

#include "lqt/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lqt_device_info {
  char backend[16];     /* "cpu", "cuda", "vulkan" */
  char name[128];       /* "AMD EPYC (avx512)" */
  char selector[32];    /* what lqt_device_open takes to get this one: "cpu", "cuda:0" */
  uint64_t memory;      /* bytes of device memory, 0 when unknown */
  uint32_t threads;     /* CPU: worker threads it would use by default; else 0 */
  lqt_dtype activation; /* the activation type that sessions use on it */
} lqt_device_info;

typedef struct lqt_device_options {
  uint32_t size;    /* sizeof(lqt_device_options) */
  uint32_t threads; /* CPU: 0 = one a core */
  const char *isa;  /* CPU: NULL = best; "scalar", "avx2", "avx512", or less of it: "avx512f"
                     * (F, BW, VL, DQ), "avx512vnni" (and VNNI), "avx512vbmi" (and VBMI) */
  bool exact;       /* no rounding of activations or codebooks below float16 inside products */
} lqt_device_options;

/* Number of devices that can be opened now, and their descriptions. Never fails: a backend without
 * a driver has none. The reason a backend has none is in lqt_backend_reason. Threads: any. */
LQT_API size_t lqt_device_count(void);
LQT_API LQT_NODISCARD lqt_status lqt_device_describe(size_t index, lqt_device_info *out_info);

/* Backends that were built, in order; NULL past the last. Threads: any. */
LQT_API const char *lqt_backend_name(size_t index);
/* Why a backend offers no device ("" when it does). Static storage. Threads: any. */
LQT_API const char *lqt_backend_reason(size_t index);

/* Opens a device. selector: "cpu" (best instruction set), "cpu-oracle" (the scalar reference),
 * "cuda", "cuda:N", "vulkan", "vulkan:N" or "vulkan:part of a name". `options` may be NULL.
 * Owns: the caller; lqt_device_release. Threads: any.
 * Errors: LQT_DEVICE_NOT_AVAILABLE, LQT_INVALID_ARGUMENT, LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_device_open(const char *selector,
                                                 const lqt_device_options *options,
                                                 lqt_device **out_device, lqt_diag *diag);
LQT_API lqt_device *lqt_device_retain(lqt_device *device);
LQT_API void lqt_device_release(lqt_device *device); /* NULL accepted */
LQT_API void lqt_device_get_info(const lqt_device *device, lqt_device_info *out_info);

/* Device memory. Contents are undefined at first. Owns: the caller; lqt_buffer_destroy before the
 * device goes. Threads: any. Errors: LQT_DEVICE_OUT_OF_MEMORY, LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_buffer_create(lqt_device *device, uint64_t bytes,
                                                   lqt_buffer **out_buffer, lqt_diag *diag);
LQT_API void lqt_buffer_destroy(lqt_buffer *buffer); /* NULL accepted */
LQT_API uint64_t lqt_buffer_size(const lqt_buffer *buffer);
/* Copies between host and device; returns when done. Threads: one-at-a-time per buffer.
 * Errors: LQT_OUT_OF_RANGE, LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_buffer_write(lqt_buffer *buffer, uint64_t offset,
                                                  const void *data, uint64_t bytes, lqt_diag *diag);
LQT_API LQT_NODISCARD lqt_status lqt_buffer_read(lqt_buffer *buffer, uint64_t offset, void *data,
                                                 uint64_t bytes, lqt_diag *diag);

/* Time spent by op kind since the last reset, when profiling is on (off by default; costs a clock
 * read an op). Threads: one-at-a-time per device. */
typedef struct lqt_profile_entry {
  uint32_t kind;  /* lqt_op_kind */
  uint32_t label; /* lqt_op.label */
  uint64_t calls;
  double seconds;
} lqt_profile_entry;
LQT_API void lqt_device_profile_enable(lqt_device *device, bool on);
/* Writes at most `capacity` entries, returns how many there are; resets the counters. */
LQT_API size_t lqt_device_profile_take(lqt_device *device, lqt_profile_entry *out, size_t capacity);

#ifdef __cplusplus
}
#endif
#endif /* LQT_DEVICE_H_ */
