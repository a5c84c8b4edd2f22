/* lqt devices: what this machine can run on. */
#include <string.h>

#include "common.h"

enum { KEY_JSON = 0x1000 };

static const struct argp_option options[] = {
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {0},
};

static error_t parse(int key, char *text, struct argp_state *state) {
  bool *json = state->input;
  switch (key) {
    case KEY_JSON:
      *json = true;
      return 0;
    case ARGP_KEY_ARG:
      argp_error(state, "one argument too many: '%s'", text);
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
        "Lists the devices that can be opened now, and why a backend that was built offers none.\v"
        "The first column is what --device takes. 'cpu-oracle' is the scalar reference that "
        "'lqt selftest' compares with."};

static int print_devices_json(const char *command) {
  json_t *devices = json_array(), *backends = json_array();
  for (size_t i = 0; i < lqt_device_count(); i++) {
    lqt_device_info info;
    if (lqt_device_describe(i, &info) != LQT_OK) continue;
    json_array_append_new(
        devices, json_pack("{s:s, s:s, s:o, s:I, s:i, s:s}", "selector", info.selector, "backend",
                           info.backend, "name", tool_json_text(info.name, strlen(info.name)),
                           "memory", (json_int_t)info.memory, "threads", (int)info.threads,
                           "activation", lqt_dtype_name(info.activation)));
  }
  for (size_t i = 0; lqt_backend_name(i) != NULL; i++) {
    json_array_append_new(backends, json_pack("{s:s, s:s}", "name", lqt_backend_name(i), "reason",
                                              lqt_backend_reason(i)));
  }
  return tool_print_json(command,
                         json_pack("{s:o, s:o}", "devices", devices, "backends", backends));
}

static int run(int argc, char **argv) {
  bool json = false;
  tool_parse(&argp, argc, argv, &json);
  if (json) return print_devices_json(argv[0]);
  for (size_t i = 0; i < lqt_device_count(); i++) {
    lqt_device_info info;
    char memory[32];
    if (lqt_device_describe(i, &info) != LQT_OK) continue;
    printf("%-12s %s", info.selector, info.name);
    if (info.memory > 0) printf(", %s", tool_size_text(info.memory, memory));
    if (info.threads > 0) printf(", %u threads", info.threads);
    printf(", activations %s\n", lqt_dtype_name(info.activation));
  }
  for (size_t i = 0; lqt_backend_name(i) != NULL; i++) {
    if (lqt_backend_reason(i)[0] != '\0') {
      printf("%-12s no device: %s\n", lqt_backend_name(i), lqt_backend_reason(i));
    }
  }
  return TOOL_DONE;
}

const tool_command tool_devices = {"devices", "List the devices of this machine", &argp, run};
