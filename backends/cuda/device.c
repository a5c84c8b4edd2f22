/* The CUDA device: opening, memory, launches, running programs, the profile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "internal.h"
#include "staging.h"

#define MIN_CAPABILITY 80

static lqt__cu_device *device_of(lqt_device *device) { return (lqt__cu_device *)device; }

static lqt_status status_of(CUresult result) {
  switch (result) {
    case CUDA_ERROR_OUT_OF_MEMORY:
      return LQT_DEVICE_OUT_OF_MEMORY;
    case CUDA_ERROR_NO_DEVICE:
    case CUDA_ERROR_INVALID_DEVICE:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
      return LQT_DEVICE_NOT_AVAILABLE;
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
    case CUDA_ERROR_UNSUPPORTED_PTX_VERSION:
      return LQT_DEVICE_UNSUPPORTED;
    /* After these the context takes no more work. */
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_UNKNOWN:
      return LQT_DEVICE_LOST;
    default:
      return LQT_DEVICE_FAILURE;
  }
}

static lqt_status fail_with(const lqt__cu_driver *driver, const char *where, CUresult result,
                            const char *doing, lqt_diag *diag) {
  const char *text = NULL, *name = NULL;
  driver->GetErrorString(result, &text);
  driver->GetErrorName(result, &name);
  lqt_status status = status_of(result);
  lqt__fail(diag, status, where, "cannot %s: %s (%s)%s", doing, text != NULL ? text : "unknown",
            name != NULL ? name : "?",
            status == LQT_DEVICE_LOST ? "; open the device again in a new process" : "");
  if (diag != NULL) diag->native = (int32_t)result;
  return status;
}

lqt_status lqt__cu_check(const lqt__cu_device *device, CUresult result, const char *doing,
                         lqt_diag *diag) {
  if (result == CUDA_SUCCESS) return LQT_OK;
  return fail_with(device->driver, device->base.info.selector, result, doing, diag);
}

lqt_status lqt__cu_push(lqt__cu_device *device, lqt_diag *diag) {
  return lqt__cu_check(device, device->driver->CtxPushCurrent(device->context),
                       "make the context current", diag);
}

void lqt__cu_pop(lqt__cu_device *device) {
  CUcontext old;
  (void)device->driver->CtxPopCurrent(&old);
}

/* Devices of compute capability 8.0 and more; the driver's numbers are kept. */
static int usable(const lqt__cu_driver *driver, int number, CUdevice *out) {
  int major = 0, minor = 0;
  if (driver->DeviceGet(out, number) != CUDA_SUCCESS ||
      driver->DeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, *out) !=
          CUDA_SUCCESS ||
      driver->DeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, *out) !=
          CUDA_SUCCESS) {
    return 0;
  }
  return major * 10 + minor;
}

static int driver_count(const lqt__cu_driver *driver) {
  int count = 0;
  return driver->DeviceGetCount(&count) == CUDA_SUCCESS ? count : 0;
}

static size_t device_count(const char **out_reason) {
  const lqt__cu_driver *driver = lqt__cu_driver_get(out_reason);
  if (driver == NULL) return 0;
  *out_reason = "the NVIDIA driver shows no GPU";
  int count = driver_count(driver);
  size_t found = 0;
  for (int i = 0; i < count; i++) {
    CUdevice device;
    if (usable(driver, i, &device) >= MIN_CAPABILITY) {
      found++;
    } else {
      *out_reason = "the GPU is too old: compute capability 8.0 (Ampere) or newer is needed";
    }
  }
  if (found != 0) *out_reason = "";
  return found;
}

static void fill_info(const lqt__cu_driver *driver, CUdevice device, int number,
                      lqt_device_info *info) {
  memset(info, 0, sizeof *info);
  snprintf(info->backend, sizeof info->backend, "cuda");
  snprintf(info->selector, sizeof info->selector, "cuda:%d", number);
  if (driver->DeviceGetName(info->name, sizeof info->name, device) != CUDA_SUCCESS) {
    snprintf(info->name, sizeof info->name, "NVIDIA GPU");
  }
  size_t bytes = 0;
  if (driver->DeviceTotalMem(&bytes, device) == CUDA_SUCCESS) info->memory = bytes;
  info->activation = LQT_DTYPE_F16;
}

static lqt_status device_describe(size_t index, lqt_device_info *out_info) {
  const char *reason;
  const lqt__cu_driver *driver = lqt__cu_driver_get(&reason);
  if (driver == NULL) return LQT_DEVICE_NOT_AVAILABLE;
  int count = driver_count(driver);
  for (int i = 0; i < count; i++) {
    CUdevice device;
    if (usable(driver, i, &device) < MIN_CAPABILITY) continue;
    if (index-- == 0) {
      fill_info(driver, device, i, out_info);
      return LQT_OK;
    }
  }
  return LQT_OUT_OF_RANGE;
}

/* "" is the first usable device, ":N" number N of the driver. */
static lqt_status choose(const lqt__cu_driver *driver, const char *rest, int *out_number,
                         CUdevice *out, int *out_capability, lqt_diag *diag) {
  int count = driver_count(driver);
  int first = 0, last = count;
  if (rest[0] != '\0') {
    char *end = NULL;
    long number = rest[0] == ':' ? strtol(rest + 1, &end, 10) : -1;
    if (end == NULL || end == rest + 1 || *end != '\0' || number < 0 || number >= count) {
      return lqt__fail(diag, LQT_DEVICE_NOT_AVAILABLE, "cuda",
                       "there is no device 'cuda%s'; the driver shows %d GPU(s), cuda:0 on", rest,
                       count);
    }
    first = (int)number;
    last = first + 1;
  }
  for (int i = first; i < last; i++) {
    *out_capability = usable(driver, i, out);
    if (*out_capability >= MIN_CAPABILITY) {
      *out_number = i;
      return LQT_OK;
    }
  }
  return lqt__fail(diag, LQT_DEVICE_UNSUPPORTED, "cuda",
                   "no GPU of compute capability 8.0 or newer among %d", count);
}

static lqt_status start(lqt__cu_device *device, lqt_diag *diag) {
  const lqt__cu_driver *driver = device->driver;
  int value = 0;
  LQT__TRY(lqt__cu_check(
      device,
      driver->DeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device->device),
      "read the number of multiprocessors", diag));
  device->multiprocessors = (uint32_t)value;
  LQT__TRY(lqt__cu_check(
      device,
      driver->DeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                                 device->device),
      "read the size of shared memory", diag));
  device->shared_limit = (uint32_t)value;
  int least = 0, greatest = 0; /* steps go before the repacking of patches */
  LQT__TRY(lqt__cu_check(device, driver->CtxGetStreamPriorityRange(&least, &greatest),
                         "read the priorities of streams", diag));
  LQT__TRY(lqt__cu_check(
      device, driver->StreamCreateWithPriority(&device->stream, CU_STREAM_NON_BLOCKING, greatest),
      "create a stream", diag));
  LQT__TRY(lqt__cu_memory(device, LQT__CU_COUNTERS * 4, "counters", &device->counters, diag));
  return lqt__cu_clear(device, device->counters, LQT__CU_COUNTERS * 4, diag);
}

static void device_close(lqt_device *base) {
  lqt__cu_device *device = device_of(base);
  const lqt__cu_driver *driver = device->driver;
  if (device->context != NULL) {
    (void)driver->CtxPushCurrent(device->context);
    lqt__cu_staging_close(device);
    if (device->stream != NULL) (void)driver->StreamDestroy(device->stream);
    if (device->scratch != 0) (void)driver->MemFree(device->scratch);
    if (device->staging != NULL) (void)driver->MemFreeHost(device->staging);
    if (device->counters != 0) (void)driver->MemFree(device->counters);
    for (int i = 0; i < LQT__CU_MODULES; i++) {
      if (device->modules[i] != NULL) (void)driver->ModuleUnload(device->modules[i]);
    }
    lqt__cu_pop(device);
    (void)driver->DevicePrimaryCtxRelease(device->device);
  }
  pthread_mutex_destroy(&device->mutex);
  pthread_mutex_destroy(&device->patch_mutex);
  lqt__profile_destroy(&device->profile);
  lqt__free(device);
}

static lqt_status device_open(const char *rest, const lqt_device_options *options,
                              lqt_device **out_device, lqt_diag *diag) {
  (void)options; /* products are exact in float16 in any case */
  const char *reason;
  const lqt__cu_driver *driver = lqt__cu_driver_get(&reason);
  if (driver == NULL) {
    char where[64];
    snprintf(where, sizeof where, "cuda%s", rest);
    return lqt__fail(diag, LQT_DEVICE_NOT_AVAILABLE, where, "%s", reason);
  }
  CUdevice number;
  int index = 0, capability = 0;
  LQT__TRY(choose(driver, rest, &index, &number, &capability, diag));
  lqt__cu_device *device = lqt__alloc_zero(sizeof *device);
  if (device == NULL) return lqt__fail_memory(diag, "cuda", sizeof *device, "device");
  device->driver = driver;
  device->device = number;
  device->capability = (uint32_t)capability;
  pthread_mutex_init(&device->mutex, NULL);
  pthread_mutex_init(&device->patch_mutex, NULL);
  fill_info(driver, number, index, &device->base.info);
  CUresult result = driver->DevicePrimaryCtxRetain(&device->context, number);
  lqt_status status = LQT_OK;
  if (result != CUDA_SUCCESS) {
    device->context = NULL;
    status = lqt__cu_check(device, result, "get the primary context", diag);
  } else {
    status = lqt__cu_push(device, diag);
    if (status == LQT_OK) {
      status = start(device, diag);
      lqt__cu_pop(device);
    }
  }
  if (status != LQT_OK) {
    device_close(&device->base);
    return status;
  }
  *out_device = &device->base;
  return LQT_OK;
}

lqt_status lqt__cu_memory(lqt__cu_device *device, uint64_t bytes, const char *what,
                          CUdeviceptr *out, lqt_diag *diag) {
  *out = 0;
  CUresult result = device->driver->MemAlloc(out, bytes != 0 ? bytes : 16);
  if (result != CUDA_ERROR_OUT_OF_MEMORY) {
    return lqt__cu_check(device, result, "allocate device memory", diag);
  }
  size_t left = 0, total = 0;
  (void)device->driver->MemGetInfo(&left, &total);
  lqt__fail(diag, LQT_DEVICE_OUT_OF_MEMORY, device->base.info.selector,
            "%s needs %llu bytes of device memory, and %llu of %llu are free", what,
            (unsigned long long)bytes, (unsigned long long)left, (unsigned long long)total);
  if (diag != NULL) diag->native = (int32_t)result;
  return LQT_DEVICE_OUT_OF_MEMORY;
}

lqt_status lqt__cu_scratch(lqt__cu_device *device, uint64_t bytes, CUdeviceptr *out,
                           lqt_diag *diag) {
  if (bytes > device->scratch_bytes) {
    if (device->capturing) return LQT_INTERNAL; /* the warm run made it large enough */
    LQT__TRY(lqt__cu_check(device, device->driver->StreamSynchronize(device->stream),
                           "wait for the device", diag));
    device->epoch++; /* also when there is no memory: recorded launches have the old address */
    if (device->scratch != 0) (void)device->driver->MemFree(device->scratch);
    device->scratch = 0;
    device->scratch_bytes = 0;
    LQT__TRY(lqt__cu_memory(device, bytes, "scratch memory", &device->scratch, diag));
    device->scratch_bytes = bytes;
  }
  *out = device->scratch;
  return LQT_OK;
}

static lqt_status find_function(lqt__cu_device *device, const lqt__cu_launch *launch,
                                lqt__cu_function **out, lqt_diag *diag) {
  for (size_t i = 0; i < device->function_count; i++) {
    if (strcmp(device->functions[i].name, launch->name) == 0) {
      *out = &device->functions[i];
      return LQT_OK;
    }
  }
  const lqt__cu_driver *driver = device->driver;
  CUmodule *module = &device->modules[launch->module];
  if (*module == NULL) {
    LQT__TRY(lqt__cu_check(device, driver->ModuleLoadData(module, lqt__cu_fatbin(launch->module)),
                           "load the kernels", diag));
  }
  if (device->function_count == LQT__CU_MAX_FUNCTIONS ||
      strlen(launch->name) >= sizeof device->functions[0].name) {
    return lqt__fail(diag, LQT_INTERNAL, launch->name, "the table of kernels is full");
  }
  lqt__cu_function *function = &device->functions[device->function_count];
  LQT__TRY(lqt__cu_check(device,
                         driver->ModuleGetFunction(&function->handle, *module, launch->name),
                         launch->name, diag));
  snprintf(function->name, sizeof function->name, "%s", launch->name);
  function->shared_limit = 48 * 1024;
  device->function_count++;
  *out = function;
  return LQT_OK;
}

lqt_status lqt__cu_kernel(lqt__cu_device *device, lqt__cu_module module, const char *name,
                          CUfunction *out, lqt_diag *diag) {
  lqt__cu_function *function = NULL;
  LQT__TRY(
      find_function(device, &(lqt__cu_launch){.module = module, .name = name}, &function, diag));
  *out = function->handle;
  return LQT_OK;
}

lqt_status lqt__cu_run(lqt__cu_device *device, const lqt__cu_launch *launch, lqt_diag *diag) {
  const lqt__cu_driver *driver = device->driver;
  lqt__cu_function *function = NULL;
  LQT__TRY(find_function(device, launch, &function, diag));
  if (launch->shared > function->shared_limit) {
    LQT__TRY(lqt__cu_check(
        device,
        driver->FuncSetAttribute(function->handle, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                 (int)launch->shared),
        launch->name, diag));
    function->shared_limit = launch->shared;
  }
  void *params[] = {(void *)launch->args};
  /* Only the machine code for 9.0 waits for the previous kernel by itself. */
  if (launch->overlap && driver->LaunchKernelEx != NULL && device->capability == 90) {
    CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                   .value.programmaticStreamSerializationAllowed = 1};
    CUlaunchConfig config = {.gridDimX = launch->grid[0],
                             .gridDimY = launch->grid[1],
                             .gridDimZ = launch->grid[2],
                             .blockDimX = launch->threads,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .sharedMemBytes = launch->shared,
                             .hStream = device->stream,
                             .attrs = &attribute,
                             .numAttrs = 1};
    return lqt__cu_check(device, driver->LaunchKernelEx(&config, function->handle, params, NULL),
                         launch->name, diag);
  }
  return lqt__cu_check(
      device,
      driver->LaunchKernel(function->handle, launch->grid[0], launch->grid[1], launch->grid[2],
                           launch->threads, 1, 1, launch->shared, device->stream, params, NULL),
      launch->name, diag);
}

static lqt_status wait(lqt__cu_device *device, const char *doing, lqt_diag *diag) {
  return lqt__cu_check(device, device->driver->StreamSynchronize(device->stream), doing, diag);
}

lqt_status lqt__cu_copy_in(lqt__cu_device *device, CUdeviceptr to, const void *from, uint64_t bytes,
                           lqt_diag *diag) {
  if (bytes == 0) return LQT_OK;
  LQT__TRY(lqt__cu_check(device, device->driver->MemcpyHtoDAsync(to, from, bytes, device->stream),
                         "copy to the device", diag));
  return wait(device, "copy to the device", diag);
}

lqt_status lqt__cu_copy_out(lqt__cu_device *device, void *to, CUdeviceptr from, uint64_t bytes,
                            lqt_diag *diag) {
  if (bytes == 0) return LQT_OK;
  LQT__TRY(lqt__cu_check(device, device->driver->MemcpyDtoHAsync(to, from, bytes, device->stream),
                         "copy from the device", diag));
  return wait(device, "copy from the device", diag);
}

lqt_status lqt__cu_clear(lqt__cu_device *device, CUdeviceptr to, uint64_t bytes, lqt_diag *diag) {
  if (bytes == 0) return LQT_OK;
  return lqt__cu_check(device, device->driver->MemsetD8Async(to, 0, bytes, device->stream),
                       "clear device memory", diag);
}

static lqt_status buffer_create(lqt_device *base, uint64_t bytes, lqt_buffer **out,
                                lqt_diag *diag) {
  lqt__cu_device *device = device_of(base);
  lqt__cu_buffer *buffer = lqt__alloc_zero(sizeof *buffer);
  if (buffer == NULL) return lqt__fail_memory(diag, "cuda", sizeof *buffer, "a buffer");
  lqt_status status = lqt__cu_push(device, diag);
  if (status == LQT_OK) {
    status = lqt__cu_memory(device, bytes, "a buffer", &buffer->data, diag);
    lqt__cu_pop(device);
  }
  if (status != LQT_OK) {
    lqt__free(buffer);
    return status;
  }
  *out = &buffer->base;
  return LQT_OK;
}

static void buffer_destroy(lqt_buffer *base) {
  lqt__cu_buffer *buffer = (lqt__cu_buffer *)base;
  lqt__cu_device *device = device_of(base->device);
  if (lqt__cu_push(device, NULL) == LQT_OK) {
    (void)device->driver->MemFree(buffer->data);
    lqt__cu_pop(device);
  }
  lqt__free(buffer);
}

/* Copies hold the mutex: the stream may be recording another thread's program, which would take
 * them in. */
static lqt_status buffer_write(lqt_buffer *base, uint64_t offset, const void *data, uint64_t bytes,
                               lqt_diag *diag) {
  lqt__cu_buffer *buffer = (lqt__cu_buffer *)base;
  lqt__cu_device *device = device_of(base->device);
  pthread_mutex_lock(&device->mutex);
  lqt_status status = lqt__cu_push(device, diag);
  if (status == LQT_OK) {
    status = lqt__cu_copy_in(device, buffer->data + offset, data, bytes, diag);
    lqt__cu_pop(device);
  }
  pthread_mutex_unlock(&device->mutex);
  return status;
}

static lqt_status buffer_read(lqt_buffer *base, uint64_t offset, void *data, uint64_t bytes,
                              lqt_diag *diag) {
  lqt__cu_buffer *buffer = (lqt__cu_buffer *)base;
  lqt__cu_device *device = device_of(base->device);
  pthread_mutex_lock(&device->mutex);
  lqt_status status = lqt__cu_push(device, diag);
  if (status == LQT_OK) {
    status = lqt__cu_copy_out(device, data, buffer->data + offset, bytes, diag);
    lqt__cu_pop(device);
  }
  pthread_mutex_unlock(&device->mutex);
  return status;
}

/* The time between two events is that of ops[i]; several ops that one kernel did count as the last
 * of them. */
static lqt_status run_between(lqt__cu_device *device, const lqt_op *ops, size_t count,
                              CUevent *events, lqt_diag *diag) {
  const lqt__cu_driver *driver = device->driver;
  LQT__TRY(
      lqt__cu_check(device, driver->EventRecord(events[0], device->stream), "time an op", diag));
  for (size_t i = 0, taken; i < count; i += taken) {
    LQT__TRY(lqt__cu_op_run_fused(device, &ops[i], count - i, &taken, diag));
    for (size_t k = 1; k <= taken; k++) {
      LQT__TRY(lqt__cu_check(device, driver->EventRecord(events[i + k], device->stream),
                             "time an op", diag));
    }
  }
  LQT__TRY(
      lqt__cu_check(device, driver->StreamSynchronize(device->stream), "run the program", diag));
  for (size_t i = 0; i < count; i++) {
    float before = 0, after = 0;
    if (driver->EventElapsedTime(&before, events[0], events[i]) == CUDA_SUCCESS &&
        driver->EventElapsedTime(&after, events[0], events[i + 1]) == CUDA_SUCCESS) {
      lqt__profile_add(&device->profile, &ops[i], 1e-3 * (double)(after - before));
    }
  }
  return LQT_OK;
}

lqt_status lqt__cu_ops_run_profiled(lqt__cu_device *device, const lqt_op *ops, size_t count,
                                    lqt_diag *diag) {
  const lqt__cu_driver *driver = device->driver;
  CUevent *events = lqt__alloc_array(count + 1, sizeof *events);
  if (events == NULL) return lqt__fail_memory(diag, "cuda", count * sizeof *events, "events");
  lqt_status status = LQT_OK;
  for (size_t i = 0; i <= count && status == LQT_OK; i++) {
    status = lqt__cu_check(device, driver->EventCreate(&events[i], CU_EVENT_DEFAULT),
                           "create an event", diag);
    if (status != LQT_OK) events[i] = NULL;
  }
  if (status == LQT_OK) status = run_between(device, ops, count, events, diag);
  for (size_t i = 0; i <= count; i++) {
    if (events[i] != NULL) (void)driver->EventDestroy(events[i]);
  }
  lqt__free(events);
  return status;
}

lqt_status lqt__cu_ops_run(lqt__cu_device *device, const lqt_op *ops, size_t count,
                           lqt_diag *diag) {
  for (size_t i = 0, taken; i < count; i += taken) {
    LQT__TRY(lqt__cu_op_run_fused(device, &ops[i], count - i, &taken, diag));
  }
  return LQT_OK;
}

static lqt_status run(lqt_device *base, const lqt_op *ops, size_t count, lqt_diag *diag) {
  lqt__cu_device *device = device_of(base);
  pthread_mutex_lock(&device->mutex);
  lqt_status status = lqt__cu_push(device, diag);
  if (status == LQT_OK) {
    if (device->profile.on) {
      status = lqt__cu_ops_run_profiled(device, ops, count, diag);
    } else {
      status = lqt__cu_ops_run(device, ops, count, diag);
    }
    /* Also after a failure: what was launched must not outlive the caller's buffers. */
    CUresult result = device->driver->StreamSynchronize(device->stream);
    if (status == LQT_OK) status = lqt__cu_check(device, result, "run the program", diag);
    lqt__cu_pop(device);
  }
  pthread_mutex_unlock(&device->mutex);
  return status;
}

static void profile_enable(lqt_device *base, bool on) {
  lqt__cu_device *device = device_of(base);
  pthread_mutex_lock(&device->mutex);
  device->profile.on = on;
  pthread_mutex_unlock(&device->mutex);
}

static size_t profile_take(lqt_device *base, lqt_profile_entry *out, size_t capacity) {
  lqt__cu_device *device = device_of(base);
  pthread_mutex_lock(&device->mutex);
  const size_t count = lqt__profile_take(&device->profile, out, capacity);
  pthread_mutex_unlock(&device->mutex);
  return count;
}

const lqt_backend *lqt_backend_cuda(void);
const lqt_backend *lqt_backend_cuda(void) {
  static const lqt_backend backend = {
      .abi = LQT_BACKEND_ABI,
      .size = sizeof(lqt_backend),
      .name = "cuda",
      .device_count = device_count,
      .device_describe = device_describe,
      .device_open = device_open,
      .device_close = device_close,
      .buffer_create = buffer_create,
      .buffer_destroy = buffer_destroy,
      .buffer_write = buffer_write,
      .buffer_read = buffer_read,
      .weight_create = lqt__cu_weight_create,
      .weight_destroy = lqt__cu_weight_destroy,
      .weight_patch = lqt__cu_weight_patch,
      .run = run,
      .variant = lqt__cu_variant,
      .profile_enable = profile_enable,
      .profile_take = profile_take,
      .program_run = lqt__cu_program_run,
      .program_forget = lqt__cu_program_forget,
      .optional_ops = 1u << LQT_OP_TOPK,
      .patch_create = lqt__cu_patch_create,
      .patch_wait = lqt__cu_patch_wait,
      .patch_flip = lqt__cu_patch_flip,
      .patch_destroy = lqt__cu_patch_destroy,
      .weight_digest = lqt__cu_weight_digest,
      .host_alloc = lqt__cu_host_alloc,
      .host_free = lqt__cu_host_free,
  };
  return &backend;
}
