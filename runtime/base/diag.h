/* Filling diagnostics. */
#ifndef LQT_RUNTIME_BASE_DIAG_H_
#define LQT_RUNTIME_BASE_DIAG_H_

#include "lqt/status.h"

#define LQT__NO_OFFSET UINT64_MAX

/* Fills `diag` (may be NULL) and returns `status`. `where` may be NULL (left as it is). */
LQT_PRINTF(4, 5)
lqt_status lqt__fail(lqt_diag *diag, lqt_status status, const char *where, const char *format, ...);
/* The same with a byte offset in the input. */
LQT_PRINTF(5, 6)
lqt_status lqt__fail_at(lqt_diag *diag, lqt_status status, const char *where, uint64_t offset,
                        const char *format, ...);
/* The same with errno (or another native code); the errno's text is appended. */
LQT_PRINTF(5, 6)
lqt_status lqt__fail_errno(lqt_diag *diag, lqt_status status, const char *where, int error,
                           const char *format, ...);
/* Out of memory for `bytes` bytes of `what`. */
lqt_status lqt__fail_memory(lqt_diag *diag, const char *where, uint64_t bytes, const char *what);

#define LQT__TRY(expression)                               \
  do {                                                     \
    lqt_status lqt__try_status = (expression);             \
    if (lqt__try_status != LQT_OK) return lqt__try_status; \
  } while (0)

#endif /* LQT_RUNTIME_BASE_DIAG_H_ */
