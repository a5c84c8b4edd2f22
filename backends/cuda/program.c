/* Programs: the second run of a list of ops is recorded as a graph, later runs replay it. Whatever
 * changes from run to run is read from device memory by the kernels; what the launches themselves
 * carry by value (a weight's scale, the address of the scratch memory) has an epoch, and a graph of
 * an older one is recorded again. */
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "internal.h"

#define STAGING_MOST \
  (16u << 20) /* bytes that go through pinned memory; more are copied as they are */

typedef struct lqt__cu_program {
  CUgraphExec graph; /* NULL: not recorded */
  uint64_t epoch;    /* of the device when it was */
  bool warm;         /* ran once: kernels are loaded, scratch memory is there */
} lqt__cu_program;

static lqt__cu_device *device_of(const lqt_program *program) {
  return (lqt__cu_device *)program->device;
}

/* Pinned host memory of at least `bytes`; NULL: go without. */
static uint8_t *staging(lqt__cu_device *device, uint64_t bytes) {
  if (bytes > STAGING_MOST) return NULL;
  if (bytes > device->staging_bytes) {
    uint64_t size = 1u << 16;
    while (size < bytes) size *= 2;
    if (device->staging != NULL) (void)device->driver->MemFreeHost(device->staging);
    device->staging = NULL;
    device->staging_bytes = 0;
    if (device->driver->MemHostAlloc(&device->staging, size, 0) != CUDA_SUCCESS) return NULL;
    device->staging_bytes = size;
  }
  return device->staging;
}

static uint64_t total_bytes(const lqt_transfer *transfers, size_t count) {
  uint64_t total = 0;
  for (size_t i = 0; i < count; i++) total += (transfers[i].bytes + 15) & ~UINT64_C(15);
  return total;
}

static CUdeviceptr address(const lqt_transfer *t) {
  return ((const lqt__cu_buffer *)t->buffer)->data + t->offset;
}

/* The bytes stay in the staging memory until the stream has been waited for. */
static lqt_status write_all(lqt__cu_device *device, const lqt_transfer *in, size_t count,
                            uint8_t *pinned, lqt_diag *diag) {
  for (size_t i = 0; i < count; i++) {
    if (in[i].bytes == 0) continue;
    if (pinned == NULL) {
      LQT__TRY(lqt__cu_copy_in(device, address(&in[i]), in[i].data, in[i].bytes, diag));
      continue;
    }
    memcpy(pinned, in[i].data, in[i].bytes);
    LQT__TRY(lqt__cu_check(
        device,
        device->driver->MemcpyHtoDAsync(address(&in[i]), pinned, in[i].bytes, device->stream),
        "copy to the device", diag));
    pinned += (in[i].bytes + 15) & ~UINT64_C(15);
  }
  return LQT_OK;
}

static lqt_status read_begin(lqt__cu_device *device, const lqt_transfer *out, size_t count,
                             uint8_t *pinned, lqt_diag *diag) {
  for (size_t i = 0; i < count && pinned != NULL; i++) {
    if (out[i].bytes == 0) continue;
    LQT__TRY(lqt__cu_check(
        device,
        device->driver->MemcpyDtoHAsync(pinned, address(&out[i]), out[i].bytes, device->stream),
        "copy from the device", diag));
    pinned += (out[i].bytes + 15) & ~UINT64_C(15);
  }
  return LQT_OK;
}

/* After the stream has been waited for. */
static lqt_status read_end(lqt__cu_device *device, const lqt_transfer *out, size_t count,
                           const uint8_t *pinned, lqt_diag *diag) {
  for (size_t i = 0; i < count; i++) {
    if (out[i].bytes == 0) continue;
    if (pinned == NULL) {
      LQT__TRY(lqt__cu_copy_out(device, out[i].data, address(&out[i]), out[i].bytes, diag));
      continue;
    }
    memcpy(out[i].data, pinned, out[i].bytes);
    pinned += (out[i].bytes + 15) & ~UINT64_C(15);
  }
  return LQT_OK;
}

/* Records the ops. A failure leaves no graph; the ops then run one by one as before. */
static void record(lqt__cu_device *device, const lqt_program *program, lqt__cu_program *native) {
  const lqt__cu_driver *driver = device->driver;
  if (native->graph != NULL) (void)driver->GraphExecDestroy(native->graph);
  native->graph = NULL;
  native->epoch = device->epoch;
  if (driver->StreamBeginCapture(device->stream, CU_STREAM_CAPTURE_MODE_RELAXED) != CUDA_SUCCESS) {
    return;
  }
  device->capturing = true;
  lqt_status status = lqt__cu_ops_run(device, program->ops, program->count, NULL);
  device->capturing = false;
  CUgraph graph = NULL;
  CUresult result = driver->StreamEndCapture(device->stream, &graph);
  if (status == LQT_OK && result == CUDA_SUCCESS && graph != NULL &&
      native->epoch == device->epoch &&
      driver->GraphInstantiate(&native->graph, graph, 0) != CUDA_SUCCESS) {
    native->graph = NULL;
  }
  if (graph != NULL) (void)driver->GraphDestroy(graph);
}

static lqt_status launch(lqt__cu_device *device, const lqt_program *program, lqt_diag *diag) {
  lqt__cu_program *native = program->native;
  if (device->profile.on) {
    return lqt__cu_ops_run_profiled(device, program->ops, program->count, diag);
  }
  if (native->warm && (native->graph == NULL || native->epoch != device->epoch)) {
    record(device, program, native);
  }
  if (native->graph != NULL) {
    return lqt__cu_check(device, device->driver->GraphLaunch(native->graph, device->stream),
                         "launch a recorded program", diag);
  }
  LQT__TRY(lqt__cu_ops_run(device, program->ops, program->count, diag));
  native->warm = true;
  return LQT_OK;
}

static lqt_status run(lqt__cu_device *device, lqt_program *program, const lqt_transfer *in,
                      size_t in_count, const lqt_transfer *out, size_t out_count, lqt_diag *diag) {
  if (program->native == NULL) {
    program->native = lqt__alloc_zero(sizeof(lqt__cu_program));
    if (program->native == NULL) {
      return lqt__fail_memory(diag, "cuda", sizeof(lqt__cu_program), "a program");
    }
  }
  uint64_t in_bytes = total_bytes(in, in_count), out_bytes = total_bytes(out, out_count);
  uint8_t *pinned = staging(device, in_bytes + out_bytes);
  uint8_t *back = pinned != NULL ? pinned + in_bytes : NULL;
  lqt_status status = write_all(device, in, in_count, pinned, diag);
  if (status == LQT_OK) status = launch(device, program, diag);
  if (status == LQT_OK) status = read_begin(device, out, out_count, back, diag);
  /* Also after a failure: what was launched must not outlive the caller's buffers. */
  CUresult result = device->driver->StreamSynchronize(device->stream);
  if (status == LQT_OK) status = lqt__cu_check(device, result, "run the program", diag);
  if (status == LQT_OK) status = read_end(device, out, out_count, back, diag);
  return status;
}

lqt_status lqt__cu_program_run(lqt_program *program, const lqt_transfer *in, size_t in_count,
                               const lqt_transfer *out, size_t out_count, lqt_diag *diag) {
  lqt__cu_device *device = device_of(program);
  pthread_mutex_lock(&device->mutex);
  lqt_status status = lqt__cu_push(device, diag);
  if (status == LQT_OK) {
    status = run(device, program, in, in_count, out, out_count, diag);
    lqt__cu_pop(device);
  }
  pthread_mutex_unlock(&device->mutex);
  return status;
}

void lqt__cu_program_forget(lqt_program *program) {
  lqt__cu_device *device = device_of(program);
  lqt__cu_program *native = program->native;
  if (native->graph != NULL && lqt__cu_push(device, NULL) == LQT_OK) {
    (void)device->driver->GraphExecDestroy(native->graph);
    lqt__cu_pop(device);
  }
  lqt__free(native);
  program->native = NULL;
}
