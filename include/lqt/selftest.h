/* The conformance suite: every op of a device against the scalar reference ("cpu-oracle") on fresh
 * random inputs. `lqt selftest` and the tests run the same code. */
#ifndef LQT_SELFTEST_H_
#define LQT_SELFTEST_H_

#include "lqt/device.h"
#include "lqt/op.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lqt_selftest_options {
  uint32_t size;      /* sizeof(lqt_selftest_options) */
  const char *device; /* selector; NULL: every device that lqt_device_describe lists */
  const lqt_device_options *device_options; /* for opening it; NULL: defaults */
  const char *filter;                       /* run only cases whose name contains it; NULL: all */
  uint64_t seed;                            /* 0: from the clock */
  bool full; /* every shape; false: a quick selection of the same kinds */
} lqt_selftest_options;

typedef struct lqt_selftest_case {
  const char *device;  /* selector of the device under test */
  const char *name;    /* "matmul/cb4.g64/n4097.k100.t7" */
  const char *variant; /* kernel that ran, "" when the device does not say */
  bool passed;
  bool skipped;       /* the device says LQT_UNSUPPORTED for this kind; `passed` is false */
  double error;       /* relative l2 error against the reference */
  double tolerance;   /* the largest error that passes */
  const char *detail; /* one sentence when it did not pass, else "" */
} lqt_selftest_case;

/* Strings are valid during the call only. Called from the caller's thread. */
typedef void (*lqt_selftest_case_fn)(void *user, const lqt_selftest_case *result);

typedef struct lqt_selftest_summary {
  uint64_t seed; /* repeats the run when given as options.seed */
  uint64_t passed, failed, skipped;
  uint32_t devices;
} lqt_selftest_summary;

/* Runs the suite. `options` NULL: every device, quick, seed from the clock. `report` may be NULL.
 * LQT_OK means that the suite ran to its end: look at out_summary->failed for the verdict.
 * Threads: any. Errors: LQT_DEVICE_NOT_AVAILABLE (the selector), LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_selftest_run(const lqt_selftest_options *options,
                                                  lqt_selftest_case_fn report, void *user,
                                                  lqt_selftest_summary *out_summary,
                                                  lqt_diag *diag);

#ifdef __cplusplus
}
#endif
#endif /* LQT_SELFTEST_H_ */
