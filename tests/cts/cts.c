/* Runs the conformance suite. Usage: cts [--device SELECTOR] [--isa NAME] [--threads N] [--exact]
 * [--filter TEXT] [--full] [--all]. LQT_TEST_SEED repeats a run. Prints what failed and, with
 * --all, everything. A device that is not there is skipped, unless LQT_REQUIRE names its backend.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lqt/selftest.h"

static void report(void *user, const lqt_selftest_case *result) {
  const bool *all = user;
  if (result->passed && !*all) return;
  printf("%s %s %s error %.3g tolerance %.3g %s %s\n", result->device, result->name,
         result->passed    ? "ok"
         : result->skipped ? "skipped"
                           : "FAILED",
         result->error, result->tolerance, result->variant, result->detail);
}

int main(int argc, char **argv) {
  lqt_device_options device = {.size = sizeof device};
  lqt_selftest_options options = {.size = sizeof options, .device = "cpu"};
  bool all = false;
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    if (strcmp(argv[i], "--full") == 0) {
      options.full = true;
    } else if (strcmp(argv[i], "--all") == 0) {
      all = true;
    } else if (strcmp(argv[i], "--exact") == 0) {
      device.exact = true;
    } else if (strcmp(argv[i], "--device") == 0) {
      options.device = argv[++i];
    } else if (strcmp(argv[i], "--isa") == 0) {
      device.isa = argv[++i];
    } else if (strcmp(argv[i], "--filter") == 0) {
      options.filter = argv[++i];
    } else if (strcmp(argv[i], "--threads") == 0) {
      device.threads = (uint32_t)strtoul(argv[++i], NULL, 10);
    } else {
      fprintf(stderr, "unknown argument %s %s\n", argv[i], value);
      return 2;
    }
  }
  options.device_options = &device;
  const char *seed = getenv("LQT_TEST_SEED");
  options.seed = seed != NULL ? strtoull(seed, NULL, 10) : 0;
  lqt_selftest_summary summary;
  lqt_diag diag = {0};
  lqt_status status = lqt_selftest_run(&options, report, &all, &summary, &diag);
  const char *required = getenv("LQT_REQUIRE");
  char backend[16] = "";
  sscanf(options.device, "%15[a-z]", backend);
  bool wanted = required != NULL && strstr(required, backend) != NULL;
  if (status == LQT_DEVICE_NOT_AVAILABLE && !wanted) {
    printf("skipped: %s: %s\n", diag.where, diag.what);
    return 77;
  }
  if (status != LQT_OK) {
    printf("%s: %s: %s\n", lqt_status_name(status), diag.where, diag.what);
    return 1;
  }
  printf("seed %llu: %llu passed, %llu failed, %llu skipped\n", (unsigned long long)summary.seed,
         (unsigned long long)summary.passed, (unsigned long long)summary.failed,
         (unsigned long long)summary.skipped);
  bool empty = summary.passed == 0;
  bool cpu_skips = strncmp(options.device, "cpu", 3) == 0 && summary.skipped != 0;
  return summary.failed != 0 || empty || cpu_skips ? 1 : 0;
}
