/* The way of patches to the device: two streams beside the compute stream and a ring of pinned
 * halves, of which one fills while others are under way. */
#ifndef LQT_BACKENDS_CUDA_STAGING_H_
#define LQT_BACKENDS_CUDA_STAGING_H_

#include "base/pool.h"
#include "internal.h"

enum { LQT__CU_HALVES = 3, LQT__CU_HALF_BYTES = 8 << 20 };

typedef struct lqt__cu_half {
  uint8_t *pinned;
  CUdeviceptr bounce; /* canonical bytes on their way into the packed order */
  CUevent copied, done;
  bool used;
} lqt__cu_half;

typedef struct lqt__cu_staging {
  CUstream copy, pack; /* copies; kernels that repack what was copied */
  CUmemoryPool pool;   /* staged memory; frees do not wait for the device */
  CUevent joined;
  CUfunction pack_indices, pack_indices4, pack_scales;
  lqt__pool *threads; /* fill large halves */
  lqt__cu_half halves[LQT__CU_HALVES];
  unsigned next;
  /* Bytes gathered in a half for consecutive addresses. */
  lqt__cu_half *open;
  CUdeviceptr open_at;
  uint64_t open_bytes;
  bool direct; /* copies read the caller's memory: they must end before it may go */
} lqt__cu_staging;

/* The device's staging, made by the first who asks; held by this thread until _end. The context is
 * current in between. */
lqt_status lqt__cu_staging_begin(lqt__cu_device *device, lqt__cu_staging **out, lqt_diag *diag);
void lqt__cu_staging_end(lqt__cu_device *device);
void lqt__cu_staging_close(lqt__cu_device *device); /* at the device's end */

/* Copies host bytes to `to`; small ones for consecutive addresses go together. */
lqt_status lqt__cu_staging_put(lqt__cu_device *device, CUdeviceptr to, const void *from,
                               uint64_t bytes, lqt_diag *diag);
/* Sends what is gathered. */
lqt_status lqt__cu_staging_flush(lqt__cu_device *device, lqt_diag *diag);
/* Copies host bytes (a half at most) into the bounce memory of a half; the pack stream then waits
 * for them. lqt__cu_staging_packed when what uses the half has been launched there. */
lqt_status lqt__cu_staging_bounce(lqt__cu_device *device, const void *from, uint64_t bytes,
                                  lqt__cu_half **out, lqt_diag *diag);
lqt_status lqt__cu_staging_packed(lqt__cu_device *device, lqt__cu_half *half, lqt_diag *diag);
/* Records `ready` behind everything sent so far. Waits when `direct` copies are under way. */
lqt_status lqt__cu_staging_seal(lqt__cu_device *device, CUevent ready, lqt_diag *diag);

#endif /* LQT_BACKENDS_CUDA_STAGING_H_ */
