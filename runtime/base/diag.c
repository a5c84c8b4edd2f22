#include "base/diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void fill(lqt_diag *diag, lqt_status status, const char *where, uint64_t offset, int native,
                 const char *format, va_list args) {
  if (diag == NULL) return;
  diag->status = status;
  diag->native = native;
  diag->offset = offset;
  if (where != NULL) snprintf(diag->where, sizeof diag->where, "%s", where);
  vsnprintf(diag->what, sizeof diag->what, format, args);
}

lqt_status lqt__fail(lqt_diag *diag, lqt_status status, const char *where, const char *format,
                     ...) {
  va_list args;
  va_start(args, format);
  fill(diag, status, where, LQT__NO_OFFSET, 0, format, args);
  va_end(args);
  return status;
}

lqt_status lqt__fail_at(lqt_diag *diag, lqt_status status, const char *where, uint64_t offset,
                        const char *format, ...) {
  va_list args;
  va_start(args, format);
  fill(diag, status, where, offset, 0, format, args);
  va_end(args);
  return status;
}

lqt_status lqt__fail_errno(lqt_diag *diag, lqt_status status, const char *where, int error,
                           const char *format, ...) {
  va_list args;
  va_start(args, format);
  fill(diag, status, where, LQT__NO_OFFSET, error, format, args);
  va_end(args);
  if (diag != NULL) {
    size_t used = strlen(diag->what);
    char buffer[96];
    /* The GNU form, which returns the text and may leave the buffer alone. */
    snprintf(diag->what + used, sizeof diag->what - used, ": %s",
             strerror_r(error, buffer, sizeof buffer));
  }
  return status;
}

lqt_status lqt__fail_memory(lqt_diag *diag, const char *where, uint64_t bytes, const char *what) {
  return lqt__fail(diag, LQT_OUT_OF_MEMORY, where, "no memory for %llu bytes of %s",
                   (unsigned long long)bytes, what);
}

const char *lqt_status_text(lqt_status status) {
  switch (status) {
#define CASE(name, number, text) \
  case LQT_##name:               \
    return text;
    LQT_STATUS_TABLE(CASE)
#undef CASE
    default:
      return "unknown status";
  }
}

const char *lqt_status_name(lqt_status status) {
  switch (status) {
#define CASE(name, number, text) \
  case LQT_##name:               \
    return #name;
    LQT_STATUS_TABLE(CASE)
#undef CASE
    default:
      return "?";
  }
}
