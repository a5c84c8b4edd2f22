/* Devices: finding, opening and counting references to them. */
#include "lqt/device.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "device/registry.h"

/* Backend `index` in the order of the build; NULL past the last. */
static const lqt_backend *backend_at(size_t index) {
  for (size_t i = 0; i <= index; i++) {
    if (lqt__backend_table[i] == NULL) return NULL;
  }
  return lqt__backend_table[index]();
}

const char *lqt_backend_name(size_t index) {
  const lqt_backend *backend = backend_at(index);
  return backend != NULL ? backend->name : NULL;
}

const char *lqt_backend_reason(size_t index) {
  const lqt_backend *backend = backend_at(index);
  if (backend == NULL) return "no such backend";
  const char *reason = "";
  size_t count = backend->device_count(&reason);
  return count != 0 ? "" : reason;
}

size_t lqt_device_count(void) {
  size_t count = 0;
  const lqt_backend *backend;
  for (size_t i = 0; (backend = backend_at(i)) != NULL; i++) {
    const char *reason;
    count += backend->device_count(&reason);
  }
  return count;
}

lqt_status lqt_device_describe(size_t index, lqt_device_info *out_info) {
  if (out_info == NULL) return LQT_INVALID_ARGUMENT;
  memset(out_info, 0, sizeof *out_info);
  const lqt_backend *backend;
  for (size_t i = 0; (backend = backend_at(i)) != NULL; i++) {
    const char *reason;
    size_t count = backend->device_count(&reason);
    if (index < count) return backend->device_describe(index, out_info);
    index -= count;
  }
  return LQT_OUT_OF_RANGE;
}

/* Names of the built backends, for a message. */
static void list_backends(char *out, size_t capacity) {
  size_t used = 0;
  out[0] = '\0';
  const lqt_backend *backend;
  for (size_t i = 0; (backend = backend_at(i)) != NULL && used < capacity; i++) {
    int n = snprintf(out + used, capacity - used, "%s%s", i != 0 ? ", " : "", backend->name);
    used += n > 0 ? (size_t)n : 0;
  }
}

static const lqt_backend *find_backend(const char *selector, const char **out_rest) {
  const lqt_backend *backend;
  for (size_t i = 0; (backend = backend_at(i)) != NULL; i++) {
    size_t length = strlen(backend->name);
    if (strncmp(selector, backend->name, length) != 0) continue;
    char next = selector[length];
    if (next != '\0' && next != ':' && next != '-') continue;
    *out_rest = selector + length;
    return backend;
  }
  return NULL;
}

lqt_status lqt_device_open(const char *selector, const lqt_device_options *options,
                           lqt_device **out_device, lqt_diag *diag) {
  if (out_device != NULL) *out_device = NULL;
  if (selector == NULL || out_device == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "device", "no selector or no place for a device");
  }
  if (options != NULL && options->size != sizeof *options) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, selector,
                     "lqt_device_options has size %u; set it to sizeof(lqt_device_options)",
                     options->size);
  }
  const char *rest;
  const lqt_backend *backend = find_backend(selector, &rest);
  if (backend == NULL) {
    char names[128];
    list_backends(names, sizeof names);
    return lqt__fail(diag, LQT_DEVICE_NOT_AVAILABLE, selector,
                     "no backend of that name was built; there are: %s", names);
  }
  if (backend->abi != LQT_BACKEND_ABI || backend->size != sizeof *backend) {
    return lqt__fail(diag, LQT_INTERNAL, selector, "the backend was built for another version");
  }
  lqt_device_options defaults = {.size = sizeof defaults};
  lqt_device *device = NULL;
  LQT__TRY(backend->device_open(rest, options != NULL ? options : &defaults, &device, diag));
  device->backend = backend;
  __atomic_store_n(&device->refs, 1, __ATOMIC_RELAXED);
  *out_device = device;
  return LQT_OK;
}

lqt_device *lqt_device_retain(lqt_device *device) {
  __atomic_fetch_add(&device->refs, 1, __ATOMIC_RELAXED);
  return device;
}

void lqt_device_release(lqt_device *device) {
  if (device == NULL) return;
  if (__atomic_sub_fetch(&device->refs, 1, __ATOMIC_ACQ_REL) == 0) {
    device->backend->device_close(device);
  }
}

void lqt_device_get_info(const lqt_device *device, lqt_device_info *out_info) {
  *out_info = device->info;
}

void lqt_device_profile_enable(lqt_device *device, bool on) {
  device->backend->profile_enable(device, on);
}

size_t lqt_device_profile_take(lqt_device *device, lqt_profile_entry *out, size_t capacity) {
  return device->backend->profile_take(device, out, out != NULL ? capacity : 0);
}
