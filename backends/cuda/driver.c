/* Loading the driver at run time: the library works on machines without one. */
#include <dlfcn.h>
#include <stdio.h>

#include "internal.h"

static lqt__cu_driver driver;
static char failure[256];
static bool loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    snprintf(failure, sizeof failure, "no NVIDIA driver: libcuda.so.1 cannot be loaded");
    return;
  }
  const char *missing = NULL;
  void *symbol;
#define LOAD(name, function)               \
  symbol = dlsym(library, #function);      \
  if (symbol == NULL) missing = #function; \
  *(void **)(&driver.name) = symbol;
  LQT__CU_DRIVER_TABLE(LOAD)
#undef LOAD
  *(void **)(&driver.LaunchKernelEx) = dlsym(library, "cuLaunchKernelEx");
  *(void **)(&driver.TensorMapEncodeTiled) = dlsym(library, "cuTensorMapEncodeTiled");
  if (missing != NULL) {
    snprintf(failure, sizeof failure, "the NVIDIA driver is too old: it has no %s", missing);
    dlclose(library);
    return;
  }
  CUresult result = driver.Init(0);
  if (result != CUDA_SUCCESS) {
    const char *text = NULL;
    driver.GetErrorString(result, &text);
    snprintf(failure, sizeof failure, "the NVIDIA driver does not start: %s (CUresult %d)",
             text != NULL ? text : "unknown error", (int)result);
    return;
  }
  loaded = true;
}

const lqt__cu_driver *lqt__cu_driver_get(const char **out_reason) {
  pthread_once(&once, load);
  *out_reason = failure;
  return loaded ? &driver : NULL;
}
