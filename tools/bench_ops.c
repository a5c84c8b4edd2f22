/* lqt bench ops: speed and error of products with each kind of weight, weights rotated out of
 * cache. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_weight.h"

enum {
  KEY_ROWS = 0x1000,
  KEY_COLS,
  KEY_WEIGHTS,
  KEY_TOKENS,
  KEY_GROUP,
  KEY_VECTOR,
  KEY_ROTATE,
  KEY_REPEAT,
  KEY_JSON,
};
enum { MAX_LIST = 16, MAX_REPEAT = 101, MAX_COPIES = 512, ERROR_ROWS = 256 };

static const struct argp_option options[] = {
    {"rows", KEY_ROWS, "N", 0, "Outputs of the product (default 14336)", 0},
    {"cols", KEY_COLS, "K", 0, "Inputs (default 4096)", 0},
    {"weights", KEY_WEIGHTS, "LIST", 0, "Index widths, 16 for plain float16 (default 2,3,4,8,16)",
     0},
    {"tokens", KEY_TOKENS, "LIST", 0, "Tokens of a product (default 1,8,64)", 0},
    {"group-size", KEY_GROUP, "G", 0, "Group scales: 16 to 256, or 0 (default 64)", 0},
    {"vector-dim", KEY_VECTOR, "D", 0, "Components of a codebook vector (default 1)", 0},
    {"rotate", KEY_ROTATE, "MB", 0, "Weights to rotate through at least (default 400)", 0},
    {"repeat", KEY_REPEAT, "N", 0, "Passes over them; the median is reported (default 12)", 0},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {0},
};

typedef struct number_list {
  uint32_t values[MAX_LIST];
  size_t count;
} number_list;

typedef struct bench_args {
  uint64_t rows, cols, rotate, repeat;
  uint32_t group_size, vector_dim;
  number_list weights, tokens;
  bool json;
  tool_device_args device;
} bench_args;

static void parse_list(struct argp_state *state, const char *option, const char *text,
                       uint32_t high, number_list *out) {
  out->count = 0;
  for (const char *at = text;;) {
    char *end = NULL;
    unsigned long value = strtoul(at, &end, 10);
    if (end == at || (*end != ',' && *end != '\0') || value < 1 || value > high ||
        out->count == MAX_LIST) {
      argp_error(state, "%s takes at most %d numbers from 1 to %u, separated by commas, not '%s'",
                 option, (int)MAX_LIST, high, text);
    }
    out->values[out->count++] = (uint32_t)value;
    if (*end == '\0') return;
    at = end + 1;
  }
}

static error_t parse(int key, char *text, struct argp_state *state) {
  bench_args *args = state->input;
  static const char *const groups[] = {"0", "16", "32", "64", "128", "256", NULL};
  static const uint32_t group_sizes[] = {0, 16, 32, 64, 128, 256};
  static const char *const dims[] = {"1", "2", "4", "8", NULL};
  switch (key) {
    case ARGP_KEY_INIT:
      state->child_inputs[0] = &args->device;
      return 0;
    case KEY_ROWS:
      args->rows = tool_parse_u64(state, "--rows", text, 1, 1u << 22);
      return 0;
    case KEY_COLS:
      args->cols = tool_parse_u64(state, "--cols", text, 1, 1u << 22);
      return 0;
    case KEY_WEIGHTS:
      parse_list(state, "--weights", text, 16, &args->weights);
      for (size_t i = 0; i < args->weights.count; i++) {
        uint32_t bits = args->weights.values[i];
        if (bits != 2 && bits != 3 && bits != 4 && bits != 8 && bits != 16) {
          argp_error(state, "--weights takes 2, 3, 4, 8 and 16, not '%s'", text);
        }
      }
      return 0;
    case KEY_TOKENS:
      parse_list(state, "--tokens", text, 65536, &args->tokens);
      return 0;
    case KEY_GROUP:
      args->group_size = group_sizes[tool_parse_word(state, "--group-size", text, groups)];
      return 0;
    case KEY_VECTOR:
      args->vector_dim = 1u << tool_parse_word(state, "--vector-dim", text, dims);
      return 0;
    case KEY_ROTATE:
      args->rotate = tool_parse_u64(state, "--rotate", text, 0, 1u << 20);
      return 0;
    case KEY_REPEAT:
      args->repeat = tool_parse_u64(state, "--repeat", text, 1, MAX_REPEAT);
      return 0;
    case KEY_JSON:
      args->json = true;
      return 0;
    case ARGP_KEY_ARG:
      argp_error(state, "one argument too many: '%s'", text);
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&tool_device_argp, 0, "Device:", 1}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .doc =
        "Measures the product of activations with codebook weights.\v"
        "Each pass runs the product once with each of enough copies of the weight that none stays "
        "in a cache. Bytes are those that a product must read or write, each once. The read "
        "bandwidth of a CPU is that of a plain loop on as many threads, taken in the same run; on "
        "other devices compare with the plain float16 weight (16). The error is the relative l2 "
        "error against double precision over a sample of the outputs.\n\nExamples:\n"
        "  lqt bench ops --device cpu --threads 1 --weights 4 --tokens 1,64\n"
        "  lqt bench ops --device cuda --json",
    .children = children};

typedef struct bench_result {
  uint32_t bits, tokens;
  char variant[96];
  double seconds, error, bytes;
} bench_result;

/* Copies of one weight on the device, and the products with them. */
typedef struct rotation {
  lqt_weight *weights[MAX_COPIES];
  size_t copies;
  lqt_buffer *in, *out;
  lqt_op ops[MAX_COPIES];
} rotation;

static void rotation_close(rotation *turn) {
  for (size_t i = 0; i < turn->copies; i++) lqt_weight_destroy(turn->weights[i]);
  lqt_buffer_destroy(turn->in);
  lqt_buffer_destroy(turn->out);
  turn->copies = 0;
  turn->in = turn->out = NULL;
}

static lqt_status rotation_open(const bench_args *args, lqt_device *device,
                                const bench_weight *weight, rotation *out, lqt_diag *diag) {
  uint64_t total = 0;
  lqt_status status = LQT_OK;
  while (status == LQT_OK && out->copies < MAX_COPIES &&
         (out->copies == 0 || total < args->rotate * 1000000)) {
    status = lqt_weight_create(device, &weight->desc, &out->weights[out->copies], diag);
    if (status == LQT_OK) total += lqt_weight_bytes(out->weights[out->copies++]);
  }
  return status;
}

/* Random activations in the device's type, and the buffers of `tokens` tokens. */
static lqt_status place_operands(const bench_args *args, lqt_device *device, lqt_dtype type,
                                 uint32_t tokens, float *x, rotation *out, lqt_diag *diag) {
  size_t size = lqt_dtype_size(type), count = tokens * args->cols;
  lqt_buffer_destroy(out->in);
  lqt_buffer_destroy(out->out);
  out->in = out->out = NULL;
  lqt_status status = lqt_buffer_create(device, count * size, &out->in, diag);
  if (status == LQT_OK) {
    status = lqt_buffer_create(device, (uint64_t)tokens * args->rows * size, &out->out, diag);
  }
  if (status != LQT_OK) return status;
  uint32_t state = 12345u + tokens;
  for (size_t i = 0; i < count; i++) x[i] = bench_random_normal(&state);
  if (type == LQT_DTYPE_F32) {
    status = lqt_buffer_write(out->in, 0, x, count * size, diag);
  } else {
    uint16_t *halves = malloc(count * sizeof *halves);
    if (halves == NULL) return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
    for (size_t i = 0; i < count; i++) halves[i] = bench_half(x[i]);
    status = lqt_buffer_write(out->in, 0, halves, count * size, diag);
    free(halves);
  }
  for (size_t i = 0; i < out->copies; i++) {
    out->ops[i] = (lqt_op){.kind = LQT_OP_MATMUL,
                           .in = {{.buffer = out->in,
                                   .rows = tokens,
                                   .cols = args->cols,
                                   .row_stride = args->cols,
                                   .dtype = type}},
                           .out = {{.buffer = out->out,
                                    .rows = tokens,
                                    .cols = args->rows,
                                    .row_stride = args->rows,
                                    .dtype = type}},
                           .weight = {out->weights[i]}};
  }
  return status;
}

static float half_value(uint16_t half) {
  float magnitude = ldexpf((float)(half & 0x3ff), -24);
  int exponent = half >> 10 & 0x1f;
  if (exponent == 31) magnitude = NAN;
  if (exponent > 0 && exponent < 31) {
    magnitude = ldexpf((float)((half & 0x3ff) | 0x400), exponent - 25);
  }
  return half & 0x8000 ? -magnitude : magnitude;
}

static lqt_status measure_error(const bench_args *args, const rotation *turn, lqt_dtype type,
                                const bench_weight *weight, const float *x, bench_result *result,
                                lqt_diag *diag) {
  size_t count = result->tokens * args->rows;
  float *y = malloc(count * sizeof *y);
  if (y == NULL) return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
  lqt_status status;
  if (type == LQT_DTYPE_F32) {
    status = lqt_buffer_read(turn->out, 0, y, count * sizeof *y, diag);
  } else {
    /* The halves go into the front of y and are widened from its end. */
    status = lqt_buffer_read(turn->out, 0, y, count * sizeof(uint16_t), diag);
    for (size_t i = count; status == LQT_OK && i-- > 0;) {
      uint16_t half;
      memcpy(&half, (char *)y + i * sizeof half, sizeof half);
      y[i] = half_value(half);
    }
  }
  if (status == LQT_OK) {
    result->error = bench_product_error(&weight->desc, x, y, result->tokens, ERROR_ROWS);
  }
  free(y);
  return status;
}

static int compare_numbers(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y ? 1 : 0;
}

static lqt_status measure(const bench_args *args, lqt_device *device, const bench_weight *weight,
                          rotation *turn, lqt_dtype type, bench_result *result, lqt_diag *diag) {
  float *x = malloc(result->tokens * args->cols * sizeof *x);
  if (x == NULL) return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
  lqt_status status = place_operands(args, device, type, result->tokens, x, turn, diag);
  double times[MAX_REPEAT];
  /* The first pass warms up. */
  if (status == LQT_OK) status = lqt_device_run(device, turn->ops, turn->copies, diag);
  for (uint64_t i = 0; status == LQT_OK && i < args->repeat; i++) {
    if (tool_cancelled()) {
      status = tool_diag(diag, LQT_CANCELLED, NULL, "interrupted");
      break;
    }
    double start = tool_now();
    status = lqt_device_run(device, turn->ops, turn->copies, diag);
    times[i] = (tool_now() - start) / (double)turn->copies;
  }
  if (status == LQT_OK) {
    qsort(times, args->repeat, sizeof times[0], compare_numbers);
    size_t middle = args->repeat / 2;
    result->seconds =
        args->repeat % 2 == 1 ? times[middle] : (times[middle - 1] + times[middle]) / 2.0;
    result->bytes = (double)lqt_weight_bytes(turn->weights[0]) +
                    (double)(result->tokens * (args->cols + args->rows) * lqt_dtype_size(type));
    snprintf(result->variant, sizeof result->variant, "%s",
             lqt_device_variant(device, &turn->ops[0]));
    status = measure_error(args, turn, type, weight, x, result, diag);
  }
  free(x);
  return status;
}

static double flops(const bench_args *args, const bench_result *result) {
  return 2.0 * (double)result->tokens * (double)args->rows * (double)args->cols / result->seconds;
}

static json_t *result_json(const bench_args *args, const bench_result *result, double read) {
  char weights[32];
  snprintf(weights, sizeof weights, result->bits == 16 ? "f16" : "cb%u", result->bits);
  double rate = result->bytes / result->seconds;
  return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "op",
                   "matmul", "weights", weights, "group_size",
                   (json_int_t)(result->bits == 16 ? 0 : args->group_size), "vector_dim",
                   (json_int_t)(result->bits == 16 ? 1 : args->vector_dim), "rows",
                   (json_int_t)args->rows, "cols", (json_int_t)args->cols, "tokens",
                   (json_int_t)result->tokens, "variant", result->variant, "seconds",
                   tool_json_real(result->seconds), "flops", tool_json_real(flops(args, result)),
                   "bytes", tool_json_real(result->bytes), "bytes_per_second", tool_json_real(rate),
                   "read_ratio", read > 0.0 ? tool_json_real(rate / read) : json_null(), "error",
                   tool_json_real(result->error));
}

static void print_result(const bench_args *args, const bench_result *result, double read) {
  char weights[16], ratio[16] = "";
  snprintf(weights, sizeof weights, result->bits == 16 ? "f16" : "cb%u", result->bits);
  double rate = result->bytes / result->seconds;
  if (read > 0.0) snprintf(ratio, sizeof ratio, "%.0f %%", 100.0 * rate / read);
  printf("%-7s %6u %12.1f %10.1f %10.2f %7s  %9.2e  %s\n", weights, result->tokens,
         1e6 * result->seconds, flops(args, result) / 1e9, rate / 1e9, ratio, result->error,
         result->variant);
  fflush(stdout);
}

/* Every weight and number of tokens; results go to `array` or to standard output. */
static lqt_status run_all(const bench_args *args, lqt_device *device, double read, json_t *array,
                          lqt_diag *diag) {
  lqt_device_info info;
  lqt_device_get_info(device, &info);
  static rotation turn; /* large */
  lqt_status status = LQT_OK;
  for (size_t w = 0; w < args->weights.count && status == LQT_OK; w++) {
    bench_weight weight;
    uint32_t bits = args->weights.values[w];
    status = bench_weight_create(args->rows, args->cols, bits, args->vector_dim, args->group_size,
                                 &weight, diag);
    if (status != LQT_OK) return status;
    status = rotation_open(args, device, &weight, &turn, diag);
    for (size_t t = 0; t < args->tokens.count && status == LQT_OK; t++) {
      bench_result result = {.bits = bits, .tokens = args->tokens.values[t]};
      status = measure(args, device, &weight, &turn, info.activation, &result, diag);
      if (status != LQT_OK) break;
      if (array != NULL) {
        json_array_append_new(array, result_json(args, &result, read));
      } else {
        print_result(args, &result, read);
      }
    }
    rotation_close(&turn);
    bench_weight_destroy(&weight);
  }
  return status;
}

static int run(int argc, char **argv) {
  bench_args args = {.rows = 14336,
                     .cols = 4096,
                     .rotate = 400,
                     .repeat = 12,
                     .group_size = 64,
                     .vector_dim = 1,
                     .weights = {{2, 3, 4, 8, 16}, 5},
                     .tokens = {{1, 8, 64}, 3}};
  tool_device_defaults(&args.device);
  tool_parse(&argp, argc, argv, &args);
  lqt_diag diag = {0};
  lqt_device *device;
  lqt_status status = tool_device_open(&args.device, &device, &diag);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  lqt_device_info info;
  lqt_device_get_info(device, &info);
  double read = 0.0;
  if (strcmp(info.backend, "cpu") == 0) {
    read = bench_read_bandwidth(info.threads, (size_t)args.rotate * 1000000 + (1u << 20));
  }
  json_t *array = args.json ? json_array() : NULL;
  if (!args.json) {
    printf("%s (%s), %llu x %llu, group %u", info.selector, info.name,
           (unsigned long long)args.rows, (unsigned long long)args.cols, args.group_size);
    if (info.threads > 0) printf(", %u threads", info.threads);
    if (read > 0.0) printf(", plain read %.2f GB/s", read / 1e9);
    printf("\n%-7s %6s %12s %10s %10s %7s  %9s  %s\n", "weights", "tokens", "us", "GFLOP/s", "GB/s",
           "of read", "error", "kernel");
  }
  status = run_all(&args, device, read, array, &diag);
  lqt_device_release(device);
  if (status != LQT_OK) {
    json_decref(array);
    return tool_fail(argv[0], status, &diag);
  }
  if (!args.json) return TOOL_DONE;
  return tool_print_json(
      argv[0], json_pack("{s:s, s:s, s:i, s:o, s:o}", "device", info.selector, "name", info.name,
                         "threads", (int)info.threads, "read_bytes_per_second",
                         read > 0.0 ? tool_json_real(read) : json_null(), "results", array));
}

const tool_command tool_bench_ops = {"bench ops", "Speed and error of products with each weight",
                                     &argp, run};
