/* Programs: ops that are checked once and run many times. */
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "kernel/contract.h"
#include "lqt/backend.h"

lqt_status lqt_program_create(lqt_device *device, const lqt_op *ops, size_t count,
                              lqt_program **out_program, lqt_diag *diag) {
  if (out_program != NULL) *out_program = NULL;
  if (out_program == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "program", "no place for a program");
  }
  LQT__TRY(lqt__ops_check(device, ops, count, diag));
  lqt_program *program = lqt__alloc_zero(sizeof *program);
  if (program != NULL) program->ops = lqt__alloc_array(count != 0 ? count : 1, sizeof *ops);
  if (program == NULL || program->ops == NULL) {
    lqt__free(program);
    return lqt__fail_memory(diag, "program", count * sizeof *ops, "ops");
  }
  program->device = device;
  program->count = count;
  if (count != 0) memcpy(program->ops, ops, count * sizeof *ops);
  *out_program = program;
  return LQT_OK;
}

void lqt_program_destroy(lqt_program *program) {
  if (program == NULL) return;
  const lqt_backend *backend = program->device->backend;
  if (program->native != NULL) backend->program_forget(program);
  lqt__free(program->ops);
  lqt__free(program);
}

static lqt_status check_transfers(const lqt_program *program, const lqt_transfer *transfers,
                                  size_t count, lqt_diag *diag) {
  if (transfers == NULL && count != 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "program", "no transfers");
  }
  for (size_t i = 0; i < count; i++) {
    const lqt_transfer *t = &transfers[i];
    if (t->buffer == NULL || t->buffer->device != program->device ||
        (t->data == NULL && t->bytes != 0)) {
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, "program",
                       "transfer %zu has no data, or no buffer of the program's device", i);
    }
    if (t->offset > t->buffer->bytes || t->bytes > t->buffer->bytes - t->offset) {
      return lqt__fail(diag, LQT_OUT_OF_RANGE, "program",
                       "transfer %zu of %llu bytes at %llu leaves its buffer of %llu bytes", i,
                       (unsigned long long)t->bytes, (unsigned long long)t->offset,
                       (unsigned long long)t->buffer->bytes);
    }
  }
  return LQT_OK;
}

lqt_status lqt_program_run(lqt_program *program, const lqt_transfer *in, size_t in_count,
                           const lqt_transfer *out, size_t out_count, lqt_diag *diag) {
  if (program == NULL) return lqt__fail(diag, LQT_INVALID_ARGUMENT, "program", "no program");
  LQT__TRY(check_transfers(program, in, in_count, diag));
  LQT__TRY(check_transfers(program, out, out_count, diag));
  const lqt_backend *backend = program->device->backend;
  if (backend->program_run != NULL) {
    return backend->program_run(program, in, in_count, out, out_count, diag);
  }
  for (size_t i = 0; i < in_count; i++) {
    LQT__TRY(lqt_buffer_write(in[i].buffer, in[i].offset, in[i].data, in[i].bytes, diag));
  }
  if (program->count != 0) {
    LQT__TRY(backend->run(program->device, program->ops, program->count, diag));
  }
  for (size_t i = 0; i < out_count; i++) {
    LQT__TRY(lqt_buffer_read(out[i].buffer, out[i].offset, out[i].data, out[i].bytes, diag));
  }
  return LQT_OK;
}
