/* The CUDA backend's own types: the driver's entry points, devices, buffers and weights. */
#ifndef LQT_BACKENDS_CUDA_INTERNAL_H_
#define LQT_BACKENDS_CUDA_INTERNAL_H_

#include <cuda.h>
#include <pthread.h>

#include "device/profile.h"
#include "kernels/params.h"
#include "kernels/step_params.h"
#include "lqt/backend.h"

/* Entry points of the driver, X(name, symbol). The symbols are those that cuda.h maps the names to.
 */
#define LQT__CU_DRIVER_TABLE(X)                             \
  X(Init, cuInit)                                           \
  X(GetErrorName, cuGetErrorName)                           \
  X(GetErrorString, cuGetErrorString)                       \
  X(DeviceGetCount, cuDeviceGetCount)                       \
  X(DeviceGet, cuDeviceGet)                                 \
  X(DeviceGetName, cuDeviceGetName)                         \
  X(DeviceTotalMem, cuDeviceTotalMem_v2)                    \
  X(DeviceGetAttribute, cuDeviceGetAttribute)               \
  X(DevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain)       \
  X(DevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2)  \
  X(CtxPushCurrent, cuCtxPushCurrent_v2)                    \
  X(CtxPopCurrent, cuCtxPopCurrent_v2)                      \
  X(MemGetInfo, cuMemGetInfo_v2)                            \
  X(MemAlloc, cuMemAlloc_v2)                                \
  X(MemFree, cuMemFree_v2)                                  \
  X(MemcpyHtoDAsync, cuMemcpyHtoDAsync_v2)                  \
  X(MemcpyDtoHAsync, cuMemcpyDtoHAsync_v2)                  \
  X(MemsetD8Async, cuMemsetD8Async)                         \
  X(ModuleLoadData, cuModuleLoadData)                       \
  X(ModuleUnload, cuModuleUnload)                           \
  X(ModuleGetFunction, cuModuleGetFunction)                 \
  X(FuncSetAttribute, cuFuncSetAttribute)                   \
  X(LaunchKernel, cuLaunchKernel)                           \
  X(StreamCreate, cuStreamCreate)                           \
  X(StreamDestroy, cuStreamDestroy_v2)                      \
  X(StreamSynchronize, cuStreamSynchronize)                 \
  X(EventCreate, cuEventCreate)                             \
  X(EventDestroy, cuEventDestroy_v2)                        \
  X(EventRecord, cuEventRecord)                             \
  X(EventElapsedTime, cuEventElapsedTime)                   \
  X(EventSynchronize, cuEventSynchronize)                   \
  X(StreamWaitEvent, cuStreamWaitEvent)                     \
  X(StreamCreateWithPriority, cuStreamCreateWithPriority)   \
  X(CtxGetStreamPriorityRange, cuCtxGetStreamPriorityRange) \
  X(MemHostAlloc, cuMemHostAlloc)                           \
  X(MemFreeHost, cuMemFreeHost)                             \
  X(MemPoolCreate, cuMemPoolCreate)                         \
  X(MemPoolDestroy, cuMemPoolDestroy)                       \
  X(MemPoolSetAttribute, cuMemPoolSetAttribute)             \
  X(MemAllocFromPoolAsync, cuMemAllocFromPoolAsync)         \
  X(MemFreeAsync, cuMemFreeAsync)                           \
  X(PointerGetAttribute, cuPointerGetAttribute)             \
  X(StreamBeginCapture, cuStreamBeginCapture_v2)            \
  X(StreamEndCapture, cuStreamEndCapture)                   \
  X(GraphInstantiate, cuGraphInstantiateWithFlags)          \
  X(GraphLaunch, cuGraphLaunch)                             \
  X(GraphExecDestroy, cuGraphExecDestroy)                   \
  X(GraphDestroy, cuGraphDestroy)

typedef struct lqt__cu_driver {
#define LQT__CU_DRIVER_FIELD(name, symbol) __typeof__(symbol) *name;
  LQT__CU_DRIVER_TABLE(LQT__CU_DRIVER_FIELD)
#undef LQT__CU_DRIVER_FIELD
  /* Missing before CUDA 12: launches then do without overlap. */
  __typeof__(cuLaunchKernelEx) *LaunchKernelEx;
  __typeof__(cuTensorMapEncodeTiled)
      *TensorMapEncodeTiled; /* likewise: no products of many tokens */
} lqt__cu_driver;

/* The driver, loaded and initialised once; NULL with the reason when there is none. */
const lqt__cu_driver *lqt__cu_driver_get(const char **out_reason);

/* Embedded fatbins, X(enumerator, kernels/<name>.cu). */
#define LQT__CU_MODULE_TABLE(X) \
  X(OPS, ops)                   \
  X(PACK, pack)                 \
  X(SMALL2, small2)             \
  X(SMALL3, small3)             \
  X(SMALL4, small4)             \
  X(SMALL8, small8)             \
  X(SWAP, swap)                 \
  X(WIDE2, wide2)               \
  X(WIDE3, wide3)               \
  X(WIDE4, wide4)               \
  X(WIDE8, wide8)               \
  X(WIDE_FEW, wide_few)         \
  X(ATTENTION, attention)       \
  X(STEP, step)                 \
  X(TOPK, topk)

typedef enum lqt__cu_module {
#define LQT__CU_MODULE_NUMBER(number, name) LQT__CU_##number,
  LQT__CU_MODULE_TABLE(LQT__CU_MODULE_NUMBER)
#undef LQT__CU_MODULE_NUMBER
      LQT__CU_MODULES
} lqt__cu_module;
const void *lqt__cu_fatbin(lqt__cu_module module);

typedef struct lqt__cu_function {
  char name[64];
  CUfunction handle;
  uint32_t shared_limit; /* dynamic shared memory allowed so far */
} lqt__cu_function;

#define LQT__CU_MAX_FUNCTIONS 256

typedef struct lqt__cu_device {
  lqt_device base;
  const lqt__cu_driver *driver;
  CUdevice device;
  CUcontext context;
  CUstream stream;
  pthread_mutex_t mutex;
  uint32_t multiprocessors, shared_limit, capability; /* capability: 90 for 9.0 */
  CUmodule modules[LQT__CU_MODULES];
  lqt__cu_function functions[LQT__CU_MAX_FUNCTIONS];
  size_t function_count;
  CUdeviceptr scratch;
  uint64_t scratch_bytes;
  CUdeviceptr counters; /* LQT__CU_COUNTERS zeros between launches */
  lqt__profile profile;
  void *staging; /* pinned, of programs' transfers */
  uint64_t staging_bytes;
  /* Goes up when something changes that recorded launches carry by value: whoever writes to an
   * lqt__cu_weight_view or moves the scratch memory raises it. See program.c. Guarded by the mutex.
   */
  uint64_t epoch;
  bool capturing;
  pthread_mutex_t patch_mutex; /* of what follows; never taken while `mutex` is held */
  struct lqt__cu_staging *patches;
} lqt__cu_device;

#define LQT__CU_COUNTERS 4096u

typedef struct lqt__cu_buffer {
  lqt_buffer base;
  CUdeviceptr data;
} lqt__cu_buffer;

#define LQT__CU_WEIGHT_BLOCKS 16

typedef struct lqt__cu_weight {
  lqt_weight base;
  lqt__cu_weight_view view;
  bool fused;          /* the packed kernels take it */
  uint32_t last_units; /* units of the last column block that hold weights */
  uint64_t index_bytes;
  CUdeviceptr blocks[LQT__CU_WEIGHT_BLOCKS];
  uint64_t block_bytes[LQT__CU_WEIGHT_BLOCKS];
  size_t block_count;
} lqt__cu_weight;

/* Fails with the driver's text. CU_SUCCESS gives LQT_OK. `doing` ends "cannot ...". */
lqt_status lqt__cu_check(const lqt__cu_device *device, CUresult result, const char *doing,
                         lqt_diag *diag);
/* Makes the device's context current on this thread; each push needs its pop. */
lqt_status lqt__cu_push(lqt__cu_device *device, lqt_diag *diag);
void lqt__cu_pop(lqt__cu_device *device);

/* Copies and clears in the order of the device's stream. The plain copies of the driver may return
 * before the bytes have arrived, and the stream does not wait for them. The copies return when
 * done.
 */
lqt_status lqt__cu_copy_in(lqt__cu_device *device, CUdeviceptr to, const void *from, uint64_t bytes,
                           lqt_diag *diag);
lqt_status lqt__cu_copy_out(lqt__cu_device *device, void *to, CUdeviceptr from, uint64_t bytes,
                            lqt_diag *diag);
lqt_status lqt__cu_clear(lqt__cu_device *device, CUdeviceptr to, uint64_t bytes, lqt_diag *diag);
lqt_status lqt__cu_memory(lqt__cu_device *device, uint64_t bytes, const char *what,
                          CUdeviceptr *out, lqt_diag *diag);
/* Scratch memory of at least `bytes`; what stood in it is lost. */
lqt_status lqt__cu_scratch(lqt__cu_device *device, uint64_t bytes, CUdeviceptr *out,
                           lqt_diag *diag);

typedef struct lqt__cu_launch {
  lqt__cu_module module;
  const char *name;
  uint32_t grid[3];
  uint32_t threads;
  uint32_t shared;  /* dynamic, bytes */
  const void *args; /* the kernel's single struct parameter */
  bool overlap;     /* may start before the previous kernel ends (it waits by itself) */
} lqt__cu_launch;
lqt_status lqt__cu_run(lqt__cu_device *device, const lqt__cu_launch *launch, lqt_diag *diag);
/* A kernel's handle, loaded when needed. The mutex is held. */
lqt_status lqt__cu_kernel(lqt__cu_device *device, lqt__cu_module module, const char *name,
                          CUfunction *out, lqt_diag *diag);

lqt_status lqt__cu_weight_create(lqt_device *device, const lqt_weight_desc *desc, lqt_weight **out,
                                 lqt_diag *diag);
void lqt__cu_weight_destroy(lqt_weight *weight);
lqt_status lqt__cu_weight_patch(lqt_weight *weight, const lqt_weight_patch *patches, size_t count,
                                lqt_diag *diag);

/* Launches the ops one after the other without waiting; the profiled form waits for each. */
lqt_status lqt__cu_ops_run(lqt__cu_device *device, const lqt_op *ops, size_t count, lqt_diag *diag);
lqt_status lqt__cu_ops_run_profiled(lqt__cu_device *device, const lqt_op *ops, size_t count,
                                    lqt_diag *diag);
lqt_status lqt__cu_program_run(lqt_program *program, const lqt_transfer *in, size_t in_count,
                               const lqt_transfer *out, size_t out_count, lqt_diag *diag);
void lqt__cu_program_forget(lqt_program *program);
lqt_status lqt__cu_patch_create(lqt_device *device, const lqt_patch_change *changes, size_t count,
                                lqt_patch **out, lqt_diag *diag);
lqt_status lqt__cu_patch_wait(lqt_patch *patch, lqt_diag *diag);
lqt_status lqt__cu_patch_flip(lqt_patch *patch, lqt_diag *diag);
void lqt__cu_patch_destroy(lqt_patch *patch);
lqt_status lqt__cu_weight_digest(lqt_weight *weight, uint64_t *out_digest, lqt_diag *diag);
void *lqt__cu_host_alloc(lqt_device *device, uint64_t bytes);
void lqt__cu_host_free(lqt_device *device, void *memory);
/* Every index that lies wholly inside a patch of indices has an entry. */
lqt_status lqt__cu_indices_check(const lqt__cu_stream *stream, uint64_t cols,
                                 const lqt_weight_patch *patch, lqt_diag *diag);
/* The arguments of the packing kernels that a weight and one of its streams determine. */
lqt__cu_pack lqt__cu_pack_args(const lqt__cu_weight *weight, const lqt__cu_stream *stream);

lqt_status lqt__cu_op_run(lqt__cu_device *device, const lqt_op *op, lqt_diag *diag);
lqt_status lqt__cu_matmul(lqt__cu_device *device, const lqt_op *op, lqt_diag *diag);
/* Products of more tokens than the streaming kernels take in one pass, on 9.0 (matmul_wide.c). */
typedef struct lqt__cu_product {
  const lqt__cu_weight *weight;
  const lqt__cu_stream *stream;
  uint64_t x, y; /* device addresses of half [m][k] and [m][n] */
  uint64_t x_stride, y_stride;
  uint64_t bias; /* float [n], or 0 */
  uint32_t m;
  bool accumulate;
  float scale;
} lqt__cu_product;
bool lqt__cu_wide_takes(const lqt__cu_device *device, const lqt__cu_weight *weight,
                        uint64_t tokens);
lqt_status lqt__cu_wide_run(lqt__cu_device *device, const lqt__cu_product *product, lqt_diag *diag);
const char *lqt__cu_wide_name(const lqt__cu_weight *weight, uint32_t weight_bits, uint64_t tokens);

/* What products of one token take: addresses; gain 0: x as it is. */
typedef struct lqt__cu_front {
  uint64_t x;              /* half [k] */
  uint64_t gain, norm_out; /* x / rms(x) * gain, which also goes to norm_out */
  float eps;
} lqt__cu_front;
bool lqt__cu_single_fits(const lqt__cu_device *device, const lqt__cu_weight *weight);
bool lqt__cu_is_single(const lqt__cu_device *device, const lqt_op *op);
lqt_status lqt__cu_single(lqt__cu_device *device, const lqt_op *op, const lqt__cu_front *front,
                          lqt_diag *diag);
/* One stream of indices; `args` but for the kernel's split of the columns. */
lqt_status lqt__cu_single_stream(lqt__cu_device *device, const lqt__cu_weight *weight,
                                 const lqt__cu_stream *stream, const lqt__cu_small *args,
                                 lqt_diag *diag);
const char *lqt__cu_single_variant(const lqt__cu_weight *weight, uint32_t bits);
lqt__cu_small lqt__cu_small_args(const lqt__cu_weight *weight, const lqt__cu_stream *stream);
/* Rows and columns of the tables of kernel names: 2, 3, 4, 8 bits; k-steps a scale covers. */
static inline uint32_t lqt__cu_bits_slot(uint32_t bits) { return bits == 8 ? 3 : bits - 2; }
static inline uint32_t lqt__cu_steps_slot(const lqt__cu_weight_view *view) {
  if (view->scales == 0) return 0;
  return view->group_size == 16 ? 1 : view->group_size == 32 ? 2 : 3;
}
lqt_status lqt__cu_attention_run(lqt__cu_device *device, const lqt_op *op, lqt__cu_op *general,
                                 lqt_diag *diag);
const char *lqt__cu_attention_variant(const lqt_op *op);
/* Launches the first of `ops`, or several of them at once where a kernel does so; returns how many
 * in *out_taken. */
lqt_status lqt__cu_op_run_fused(lqt__cu_device *device, const lqt_op *ops, size_t count,
                                size_t *out_taken, lqt_diag *diag);
const char *lqt__cu_fused_variant(const lqt_op *op); /* NULL: none of those */
/* The kernel that the op would run. */
const char *lqt__cu_variant(lqt_device *device, const lqt_op *op);
const char *lqt__cu_matmul_variant(lqt__cu_device *device, const lqt_op *op);

static inline uint64_t lqt__cu_address(const lqt_view *view) {
  return view->buffer == NULL ? 0 : ((const lqt__cu_buffer *)view->buffer)->data + view->offset;
}

#endif /* LQT_BACKENDS_CUDA_INTERNAL_H_ */
