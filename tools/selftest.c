/* lqt selftest: every op of a device against the scalar reference. */
#include "lqt/selftest.h"

#include <string.h>

#include "common.h"

enum { KEY_JSON = 0x1000, KEY_FILTER, KEY_SEED, KEY_FULL };

static const struct argp_option options[] = {
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {"filter", KEY_FILTER, "TEXT", 0, "Only cases whose name contains TEXT", 0},
    {"seed", KEY_SEED, "N", 0, "Seed of the inputs (default: from the clock; it is printed)", 0},
    {"full", KEY_FULL, NULL, 0, "Every shape, not a quick selection", 0},
    {"verbose", 'v', NULL, 0, "Print the cases that passed too", 0},
    {0},
};

typedef struct selftest_args {
  tool_device_args device;
  lqt_selftest_options options;
  bool json, verbose;
} selftest_args;

static error_t parse(int key, char *text, struct argp_state *state) {
  selftest_args *args = state->input;
  switch (key) {
    case ARGP_KEY_INIT:
      state->child_inputs[0] = &args->device;
      return 0;
    case KEY_JSON:
      args->json = true;
      return 0;
    case KEY_FILTER:
      args->options.filter = text;
      return 0;
    case KEY_SEED:
      args->options.seed = tool_parse_u64(state, "--seed", text, 1, UINT64_MAX);
      return 0;
    case KEY_FULL:
      args->options.full = true;
      return 0;
    case 'v':
      args->verbose = true;
      return 0;
    case ARGP_KEY_ARG:
      argp_error(state, "one argument too many: '%s'", text);
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&tool_device_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
        "Runs every op of a device against the scalar reference on fresh random inputs.\v"
        "The last line is 'N passed, N failed'. Exit code 1 when a case failed; --seed with the "
        "seed that a run printed repeats it.\n\nExamples:\n"
        "  lqt selftest --device cpu\n"
        "  lqt selftest --device cuda --full --json",
    .children = children};

typedef struct printer {
  bool json, verbose;
  json_t *cases;
} printer;

static void report(void *user, const lqt_selftest_case *result) {
  printer *out = user;
  const char *verdict = result->passed ? "pass" : result->skipped ? "skip" : "FAIL";
  if (out->json) {
    json_array_append_new(out->cases,
                          json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:s}", "device", result->device,
                                    "name", result->name, "variant", result->variant, "result",
                                    result->passed    ? "passed"
                                    : result->skipped ? "skipped"
                                                      : "failed",
                                    "error", tool_json_real(result->error), "tolerance",
                                    tool_json_real(result->tolerance), "detail", result->detail));
    return;
  }
  if (result->passed && !out->verbose) return;
  printf("%s  %-8s %-40s error %.2e (at most %.2e) %s%s%s\n", verdict, result->device, result->name,
         result->error, result->tolerance, result->variant, result->detail[0] != '\0' ? ": " : "",
         result->detail);
}

static int run(int argc, char **argv) {
  selftest_args args = {.options = {.size = sizeof args.options}};
  tool_device_defaults(&args.device);
  args.device.selector = NULL; /* every device of the machine */
  tool_parse(&argp, argc, argv, &args);
  args.options.device = args.device.selector;
  args.options.device_options = &args.device.options;
  printer out = {.json = args.json, .verbose = args.verbose};
  if (args.json && (out.cases = json_array()) == NULL) {
    return tool_fail(argv[0], LQT_OUT_OF_MEMORY, NULL);
  }
  lqt_diag diag = {0};
  lqt_selftest_summary summary = {0};
  lqt_status status = lqt_selftest_run(&args.options, report, &out, &summary, &diag);
  if (status != LQT_OK) {
    json_decref(out.cases);
    return tool_fail(argv[0], status, &diag);
  }
  int code = summary.failed == 0 ? TOOL_DONE : TOOL_NO;
  if (args.json) {
    int printed = tool_print_json(
        argv[0], json_pack("{s:o, s:I, s:I, s:I, s:I, s:I}", "cases", out.cases, "seed",
                           (json_int_t)summary.seed, "devices", (json_int_t)summary.devices,
                           "passed", (json_int_t)summary.passed, "failed",
                           (json_int_t)summary.failed, "skipped", (json_int_t)summary.skipped));
    return printed != TOOL_DONE ? printed : code;
  }
  printf("seed %llu, %u devices", (unsigned long long)summary.seed, summary.devices);
  if (summary.skipped > 0) {
    printf(", %llu skipped (not supported by the device)", (unsigned long long)summary.skipped);
  }
  printf("\n%llu passed, %llu failed\n", (unsigned long long)summary.passed,
         (unsigned long long)summary.failed);
  return code;
}

const tool_command tool_selftest = {
    "selftest", "Check every op of a device against the scalar reference", &argp, run};
