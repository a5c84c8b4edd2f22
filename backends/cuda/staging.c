#include "staging.h"

#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"

enum {
  COPY_THREADS = 4,
  COPY_PIECE = 1 << 20,     /* of a half that one thread fills at a time */
  DIRECT_BYTES = 256 << 10, /* page-locked memory from this size on is copied from where it is */
  POOL_KEEPS = 16 << 20,    /* freed staging memory that the pool does not give back */
};

#define CHECK(call, doing) LQT__TRY(lqt__cu_check(device, device->driver->call, (doing), diag))

static lqt_status create_halves(lqt__cu_device *device, lqt__cu_staging *staging, lqt_diag *diag) {
  for (int i = 0; i < LQT__CU_HALVES; i++) {
    lqt__cu_half *half = &staging->halves[i];
    void *pinned = NULL;
    CHECK(MemHostAlloc(&pinned, LQT__CU_HALF_BYTES, CU_MEMHOSTALLOC_PORTABLE),
          "lock pages of host memory for staging");
    half->pinned = pinned;
    LQT__TRY(lqt__cu_memory(device, LQT__CU_HALF_BYTES, "staging", &half->bounce, diag));
    const unsigned flags = CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC;
    CHECK(EventCreate(&half->copied, flags), "create an event");
    CHECK(EventCreate(&half->done, flags), "create an event");
  }
  return LQT_OK;
}

/* Kernels of this file's streams and of the flip are looked up now: loading them later would hold
 * up the step that happens to run then. */
static lqt_status load_kernels(lqt__cu_device *device, lqt__cu_staging *staging, lqt_diag *diag) {
  static const char *const flips[] = {"lqt_swap_blocks", "lqt_swap_warps", "lqt_swap_packed",
                                      "lqt_swap_tables", "lqt_swap_small"};
  const struct {
    lqt__cu_module module;
    const char *name;
    CUfunction *to;
  } packs[] = {{LQT__CU_PACK, "lqt_pack_indices", &staging->pack_indices},
               {LQT__CU_SWAP, "lqt_stage_indices4", &staging->pack_indices4},
               {LQT__CU_SWAP, "lqt_stage_scales", &staging->pack_scales}};
  CUfunction ignored;
  lqt_status status = LQT_OK;
  pthread_mutex_lock(&device->mutex);
  for (size_t i = 0; i < sizeof packs / sizeof *packs && status == LQT_OK; i++) {
    status = lqt__cu_kernel(device, packs[i].module, packs[i].name, packs[i].to, diag);
  }
  for (size_t i = 0; i < sizeof flips / sizeof *flips && status == LQT_OK; i++) {
    status = lqt__cu_kernel(device, LQT__CU_SWAP, flips[i], &ignored, diag);
  }
  pthread_mutex_unlock(&device->mutex);
  return status;
}

static lqt_status create(lqt__cu_device *device, lqt__cu_staging *staging, lqt_diag *diag) {
  int least = 0, greatest = 0;
  CHECK(CtxGetStreamPriorityRange(&least, &greatest), "read the priorities of streams");
  CHECK(StreamCreateWithPriority(&staging->copy, CU_STREAM_NON_BLOCKING, least), "create a stream");
  CHECK(StreamCreateWithPriority(&staging->pack, CU_STREAM_NON_BLOCKING, least), "create a stream");
  CHECK(EventCreate(&staging->joined, CU_EVENT_DISABLE_TIMING), "create an event");
  CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                          .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device->device}};
  CHECK(MemPoolCreate(&staging->pool, &props), "create a memory pool");
  cuuint64_t keeps = POOL_KEEPS;
  CHECK(MemPoolSetAttribute(staging->pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keeps),
        "set up a memory pool");
  LQT__TRY(create_halves(device, staging, diag));
  LQT__TRY(load_kernels(device, staging, diag));
  unsigned cores = lqt__core_count();
  staging->threads = lqt__pool_create(cores < COPY_THREADS ? cores : COPY_THREADS);
  if (staging->threads == NULL) return lqt__fail_memory(diag, "cuda", 0, "threads that copy");
  return LQT_OK;
}

static void destroy(lqt__cu_device *device, lqt__cu_staging *staging) {
  const lqt__cu_driver *driver = device->driver;
  if (staging->copy != NULL) (void)driver->StreamSynchronize(staging->copy);
  if (staging->pack != NULL) (void)driver->StreamSynchronize(staging->pack);
  for (int i = 0; i < LQT__CU_HALVES; i++) {
    lqt__cu_half *half = &staging->halves[i];
    if (half->copied != NULL) (void)driver->EventDestroy(half->copied);
    if (half->done != NULL) (void)driver->EventDestroy(half->done);
    if (half->bounce != 0) (void)driver->MemFree(half->bounce);
    if (half->pinned != NULL) (void)driver->MemFreeHost(half->pinned);
  }
  if (staging->pool != NULL) (void)driver->MemPoolDestroy(staging->pool);
  if (staging->joined != NULL) (void)driver->EventDestroy(staging->joined);
  if (staging->copy != NULL) (void)driver->StreamDestroy(staging->copy);
  if (staging->pack != NULL) (void)driver->StreamDestroy(staging->pack);
  lqt__pool_destroy(staging->threads);
  lqt__free(staging);
}

lqt_status lqt__cu_staging_begin(lqt__cu_device *device, lqt__cu_staging **out, lqt_diag *diag) {
  pthread_mutex_lock(&device->patch_mutex);
  lqt_status status = lqt__cu_push(device, diag);
  if (status == LQT_OK && device->patches == NULL) {
    lqt__cu_staging *staging = lqt__alloc_zero(sizeof *staging);
    status = staging != NULL ? create(device, staging, diag)
                             : lqt__fail_memory(diag, "cuda", sizeof *staging, "staging");
    if (status == LQT_OK) {
      device->patches = staging;
    } else {
      if (staging != NULL) destroy(device, staging);
      lqt__cu_pop(device);
    }
  }
  if (status != LQT_OK) {
    pthread_mutex_unlock(&device->patch_mutex);
    return status;
  }
  *out = device->patches;
  device->patches->direct = false;
  return LQT_OK;
}

void lqt__cu_staging_end(lqt__cu_device *device) {
  device->patches->open = NULL;
  lqt__cu_pop(device);
  pthread_mutex_unlock(&device->patch_mutex);
}

void lqt__cu_staging_close(lqt__cu_device *device) {
  if (device->patches != NULL) destroy(device, device->patches);
  device->patches = NULL;
}

/* The next half of the ring, when what was sent from it has arrived. */
static lqt_status take_half(lqt__cu_device *device, lqt__cu_half **out, lqt_diag *diag) {
  lqt__cu_staging *staging = device->patches;
  lqt__cu_half *half = &staging->halves[staging->next];
  staging->next = (staging->next + 1) % LQT__CU_HALVES;
  if (half->used) CHECK(EventSynchronize(half->done), "wait for a copy");
  half->used = false;
  *out = half;
  return LQT_OK;
}

typedef struct piecewise {
  uint8_t *to;
  const uint8_t *from;
  uint64_t bytes;
} piecewise;

static void copy_piece(void *context, size_t task, unsigned worker) {
  (void)worker;
  const piecewise *p = context;
  uint64_t at = (uint64_t)task * COPY_PIECE, left = p->bytes - at;
  memcpy(p->to + at, p->from + at, left < COPY_PIECE ? left : COPY_PIECE);
}

static void fill(lqt__cu_staging *staging, uint8_t *to, const void *from, uint64_t bytes) {
  if (bytes < 2 * COPY_PIECE) {
    memcpy(to, from, bytes);
    return;
  }
  piecewise p = {to, from, bytes};
  lqt__pool_run(staging->threads, lqt__ceil_div(bytes, COPY_PIECE), copy_piece, &p);
}

static bool page_locked(const lqt__cu_device *device, const void *from, uint64_t bytes) {
  if (bytes < DIRECT_BYTES) return false;
  CUmemorytype type = 0;
  CUresult result = device->driver->PointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                                        (CUdeviceptr)(uintptr_t)from);
  return result == CUDA_SUCCESS && type == CU_MEMORYTYPE_HOST;
}

lqt_status lqt__cu_staging_flush(lqt__cu_device *device, lqt_diag *diag) {
  lqt__cu_staging *staging = device->patches;
  lqt__cu_half *half = staging->open;
  if (half == NULL) return LQT_OK;
  staging->open = NULL;
  CHECK(MemcpyHtoDAsync(staging->open_at, half->pinned, staging->open_bytes, staging->copy),
        "copy a patch to the device");
  half->used = true;
  CHECK(EventRecord(half->done, staging->copy), "copy a patch to the device");
  return LQT_OK;
}

lqt_status lqt__cu_staging_put(lqt__cu_device *device, CUdeviceptr to, const void *from,
                               uint64_t bytes, lqt_diag *diag) {
  lqt__cu_staging *staging = device->patches;
  if (page_locked(device, from, bytes)) {
    LQT__TRY(lqt__cu_staging_flush(device, diag));
    staging->direct = true;
    CHECK(MemcpyHtoDAsync(to, from, bytes, staging->copy), "copy a patch to the device");
    return LQT_OK;
  }
  const uint8_t *source = from;
  while (bytes != 0) {
    /* A gap of a few bytes, for alignment, is sent along. */
    CUdeviceptr end = staging->open_at + staging->open_bytes;
    bool follows = staging->open != NULL && to >= end && to - end < 256 &&
                   to - staging->open_at < LQT__CU_HALF_BYTES;
    if (!follows) {
      LQT__TRY(lqt__cu_staging_flush(device, diag));
      LQT__TRY(take_half(device, &staging->open, diag));
      staging->open_at = to;
    }
    uint64_t inside = to - staging->open_at, room = LQT__CU_HALF_BYTES - inside;
    uint64_t take = bytes < room ? bytes : room;
    fill(staging, staging->open->pinned + inside, source, take);
    staging->open_bytes = inside + take;
    to += take;
    source += take;
    bytes -= take;
  }
  return LQT_OK;
}

lqt_status lqt__cu_staging_bounce(lqt__cu_device *device, const void *from, uint64_t bytes,
                                  lqt__cu_half **out, lqt_diag *diag) {
  lqt__cu_staging *staging = device->patches;
  lqt__cu_half *half = NULL;
  LQT__TRY(take_half(device, &half, diag));
  const void *source = from;
  if (page_locked(device, from, bytes)) {
    staging->direct = true;
  } else {
    fill(staging, half->pinned, from, bytes);
    source = half->pinned;
  }
  half->used = true;
  CHECK(MemcpyHtoDAsync(half->bounce, source, bytes, staging->copy), "copy a patch to the device");
  CHECK(EventRecord(half->copied, staging->copy), "copy a patch to the device");
  CHECK(StreamWaitEvent(staging->pack, half->copied, 0), "order the streams");
  *out = half;
  return LQT_OK;
}

lqt_status lqt__cu_staging_packed(lqt__cu_device *device, lqt__cu_half *half, lqt_diag *diag) {
  CHECK(EventRecord(half->done, device->patches->pack), "repack a patch");
  return LQT_OK;
}

lqt_status lqt__cu_staging_seal(lqt__cu_device *device, CUevent ready, lqt_diag *diag) {
  lqt__cu_staging *staging = device->patches;
  LQT__TRY(lqt__cu_staging_flush(device, diag));
  CHECK(EventRecord(staging->joined, staging->copy), "order the streams");
  CHECK(StreamWaitEvent(staging->pack, staging->joined, 0), "order the streams");
  CHECK(EventRecord(ready, staging->pack), "order the streams");
  if (staging->direct) CHECK(EventSynchronize(ready), "copy a patch to the device");
  return LQT_OK;
}
