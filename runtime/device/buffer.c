/* Buffers: ranges are checked here, backends copy. */
#include "base/diag.h"
#include "lqt/backend.h"

lqt_status lqt_buffer_create(lqt_device *device, uint64_t bytes, lqt_buffer **out_buffer,
                             lqt_diag *diag) {
  if (out_buffer != NULL) *out_buffer = NULL;
  if (device == NULL || out_buffer == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "buffer", "no device or no place for a buffer");
  }
  if (bytes > INT64_MAX) {
    return lqt__fail_memory(diag, device->info.selector, bytes, "device memory");
  }
  lqt_buffer *buffer = NULL;
  LQT__TRY(device->backend->buffer_create(device, bytes, &buffer, diag));
  buffer->device = device;
  buffer->bytes = bytes;
  *out_buffer = buffer;
  return LQT_OK;
}

void lqt_buffer_destroy(lqt_buffer *buffer) {
  if (buffer != NULL) buffer->device->backend->buffer_destroy(buffer);
}

uint64_t lqt_buffer_size(const lqt_buffer *buffer) { return buffer->bytes; }

static lqt_status check_range(const lqt_buffer *buffer, uint64_t offset, const void *data,
                              uint64_t bytes, lqt_diag *diag) {
  if (buffer == NULL || (data == NULL && bytes != 0)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "buffer", "no buffer or no data to copy");
  }
  if (offset > buffer->bytes || bytes > buffer->bytes - offset) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, buffer->device->info.selector,
                     "a copy of %llu bytes at %llu leaves the buffer of %llu bytes",
                     (unsigned long long)bytes, (unsigned long long)offset,
                     (unsigned long long)buffer->bytes);
  }
  return LQT_OK;
}

lqt_status lqt_buffer_write(lqt_buffer *buffer, uint64_t offset, const void *data, uint64_t bytes,
                            lqt_diag *diag) {
  LQT__TRY(check_range(buffer, offset, data, bytes, diag));
  if (bytes == 0) return LQT_OK;
  return buffer->device->backend->buffer_write(buffer, offset, data, bytes, diag);
}

lqt_status lqt_buffer_read(lqt_buffer *buffer, uint64_t offset, void *data, uint64_t bytes,
                           lqt_diag *diag) {
  LQT__TRY(check_range(buffer, offset, data, bytes, diag));
  if (bytes == 0) return LQT_OK;
  return buffer->device->backend->buffer_read(buffer, offset, data, bytes, diag);
}
