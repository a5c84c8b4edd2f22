/* lqt bench session: tokens per second of a whole model, by batch and context. */
#include <stdlib.h>
#include <string.h>

#include "common.h"

enum {
  KEY_PREFILL = 0x1000,
  KEY_DECODE,
  KEY_BATCH,
  KEY_CONTEXT,
  KEY_MIXED,
  KEY_REPEAT,
  KEY_PROFILE,
  KEY_JSON
};

static const struct argp_option options[] = {
    {"prefill", KEY_PREFILL, "LIST", 0, "Tokens of a prompt (default 512; 0: none)", 0},
    {"batch", KEY_BATCH, "LIST", 0, "Sequences that decode together (default 1)", 0},
    {"context", KEY_CONTEXT, "LIST", 0,
     "Tokens they have before them (default 256, or what the model has room for)", 0},
    {"decode", KEY_DECODE, "N", 0, "Tokens each of them writes (default 64)", 0},
    {"mixed", KEY_MIXED, "N", 0,
     "Also steps in which one sequence leaves and one joins with N tokens of prompt", 0},
    {"repeat", KEY_REPEAT, "N", 0, "Runs of each; the median step is reported (default 3)", 0},
    {"profile", KEY_PROFILE, NULL, 0, "Say where the time of a step goes, by kind of op", 0},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {0},
};

enum { MAX_LIST = 16, MAX_SEQUENCES = 1024, MAX_STEPS = 1 << 14 };

typedef struct number_list {
  uint32_t values[MAX_LIST];
  size_t count;
} number_list;

typedef struct bench_args {
  const char *path;
  number_list prefill, batch, context;
  uint64_t decode, mixed, repeat;
  bool profile, json;
  tool_device_args device;
} bench_args;

static void parse_list(struct argp_state *state, const char *option, const char *text, uint32_t low,
                       uint32_t high, number_list *out) {
  out->count = 0;
  for (const char *at = text;;) {
    char *end = NULL;
    unsigned long value = strtoul(at, &end, 10);
    if (end == at || (*end != ',' && *end != '\0') || value < low || value > high ||
        out->count == MAX_LIST) {
      argp_error(state, "%s takes at most %d numbers from %u to %u, separated by commas, not '%s'",
                 option, (int)MAX_LIST, low, high, text);
    }
    out->values[out->count++] = (uint32_t)value;
    if (*end == '\0') return;
    at = end + 1;
  }
}

static error_t parse(int key, char *text, struct argp_state *state) {
  bench_args *args = state->input;
  switch (key) {
    case ARGP_KEY_INIT:
      state->child_inputs[0] = &args->device;
      return 0;
    case KEY_PREFILL:
      parse_list(state, "--prefill", text, 0, 1u << 20, &args->prefill);
      return 0;
    case KEY_BATCH:
      parse_list(state, "--batch", text, 1, MAX_SEQUENCES, &args->batch);
      return 0;
    case KEY_CONTEXT:
      parse_list(state, "--context", text, 1, 1u << 20, &args->context);
      return 0;
    case KEY_DECODE:
      args->decode = tool_parse_u64(state, "--decode", text, 1, 1024);
      return 0;
    case KEY_MIXED:
      args->mixed = tool_parse_u64(state, "--mixed", text, 1, 1u << 16);
      return 0;
    case KEY_REPEAT:
      args->repeat = tool_parse_u64(state, "--repeat", text, 1, 16);
      return 0;
    case KEY_PROFILE:
      args->profile = true;
      return 0;
    case KEY_JSON:
      args->json = true;
      return 0;
    case ARGP_KEY_ARG:
      tool_parse_argument(state, text, &args->path, 1);
      return 0;
    case ARGP_KEY_END:
      if (args->path == NULL) argp_error(state, "give the model file to measure");
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&tool_device_argp, 0, "Device:", 1}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "MODEL.lqt",
    .doc =
        "Measures prefill and decode of a whole model on random tokens (a synthetic model will "
        "do).\v"
        "A decode step takes one token of every sequence and gives each its most likely next one. "
        "Bytes are those of the weights that a step must read, and of the keys and values of its "
        "contexts. Steps are timed on the host, from the call to its return."
        "\n\nExamples:\n"
        "  lqt bench session model.lqt --prefill 512 --batch 1,8,64 --context 512,2048\n"
        "  lqt bench session model.lqt --batch 32 --mixed 256 --profile --json",
    .children = children};

/* One line of the result. */
typedef struct measurement {
  const char *phase;               /* "prefill", "decode", "mixed" */
  uint64_t batch, context, tokens; /* tokens: of a step */
  double seconds;                  /* of the median step */
  double bytes;                    /* a step must read; 0: not counted */
} measurement;

typedef struct bench {
  const bench_args *args;
  tool_engine engine;
  lqt_session *session;
  uint32_t sequences[MAX_SEQUENCES];
  size_t count;
  lqt_sampler *sampler;
  int32_t *tokens; /* random */
  size_t token_count;
  uint64_t most_bytes; /* of device memory: weights and the largest session */
  json_t *rows;
} bench;

static int compare_numbers(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y ? 1 : 0;
}

static double median(double *values, size_t count) {
  qsort(values, count, sizeof *values, compare_numbers);
  return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2.0;
}

static json_t *profile_json(lqt_device *device, bool print) {
  lqt_profile_entry entries[2048], kinds[LQT_OP_COUNT_] = {0};
  size_t count = lqt_device_profile_take(device, entries, 2048);
  for (size_t i = 0; i < count && i < 2048; i++) {
    if (entries[i].kind >= LQT_OP_COUNT_) continue;
    kinds[entries[i].kind].calls += entries[i].calls;
    kinds[entries[i].kind].seconds += entries[i].seconds;
  }
  json_t *list = json_object();
  for (uint32_t k = 0; k < LQT_OP_COUNT_; k++) {
    if (kinds[k].calls == 0) continue;
    const char *name = lqt_op_name((lqt_op_kind)k);
    if (print) {
      printf("  %-12s %6llu calls %10.1f us\n", name, (unsigned long long)kinds[k].calls,
             1e6 * kinds[k].seconds);
    }
    json_object_set_new(list, name,
                        json_pack("{s:I, s:o}", "calls", (json_int_t)kinds[k].calls, "seconds",
                                  tool_json_real(kinds[k].seconds)));
  }
  return list;
}

static void report(bench *b, const measurement *m, json_t *profile) {
  double rate = (double)m->tokens / m->seconds, bandwidth = m->bytes / m->seconds;
  json_array_append_new(
      b->rows,
      json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o*}", "phase", m->phase, "batch",
                (json_int_t)m->batch, "context", (json_int_t)m->context, "tokens",
                (json_int_t)m->tokens, "seconds", tool_json_real(m->seconds), "tokens_per_second",
                tool_json_real(rate), "bytes", tool_json_real(m->bytes), "bytes_per_second",
                tool_json_real(bandwidth), "ops", profile));
  if (b->args->json) return;
  printf("%-8s %6llu %8llu %8llu %11.3f %12.1f", m->phase, (unsigned long long)m->batch,
         (unsigned long long)m->context, (unsigned long long)m->tokens, 1e3 * m->seconds, rate);
  if (m->bytes > 0) printf(" %10.1f", bandwidth / 1e9);
  putchar('\n');
  fflush(stdout);
}

static lqt_status interrupted(lqt_diag *diag) {
  return tool_cancelled() ? tool_diag(diag, LQT_CANCELLED, NULL, "interrupted") : LQT_OK;
}

static const int32_t *some_tokens(const bench *b, size_t seed, size_t count) {
  return b->tokens + (seed * 7919) % (b->token_count - count + 1);
}

static lqt_status add_sequence(bench *b, size_t i, lqt_diag *diag) {
  lqt_status status = lqt_session_sequence_add(b->session, &b->sequences[i], diag);
  if (status != LQT_OK) return status;
  return lqt_session_sequence_sampler(b->session, b->sequences[i], b->sampler, diag);
}

/* A session for `count` sequences of `length` positions each. */
static lqt_status open_session(bench *b, size_t count, uint64_t length, lqt_diag *diag) {
  lqt_session_destroy(b->session);
  b->session = NULL;
  lqt_session_options wanted = {.size = sizeof wanted,
                                .max_sequences = (uint32_t)count,
                                .max_batch = 2048,
                                .max_tokens = (uint32_t)(length * count)};
  lqt_status status = lqt_session_create(b->engine.engine, &wanted, &b->session, diag);
  b->count = count;
  if (status == LQT_OK) {
    uint64_t bytes =
        lqt_engine_weight_bytes(b->engine.engine) + lqt_session_device_bytes(b->session);
    if (bytes > b->most_bytes) b->most_bytes = bytes;
  }
  for (size_t i = 0; i < count && status == LQT_OK; i++) {
    status = add_sequence(b, i, diag);
  }
  return status;
}

static lqt_step_input input_of(const bench *b, size_t sequence, size_t seed, size_t count) {
  return (lqt_step_input){.sequence = b->sequences[sequence],
                          .want = LQT_LOGITS_SAMPLE,
                          .tokens = some_tokens(b, seed, count),
                          .count = count};
}

static lqt_status prefill(bench *b, uint64_t tokens, lqt_diag *diag) {
  double times[16], unused;
  lqt_status status = open_session(b, 1, tokens, diag);
  for (size_t i = 0; i <= b->args->repeat && status == LQT_OK; i++) {
    lqt_step_input input = input_of(b, 0, i, tokens);
    status = lqt_session_sequence_truncate(b->session, b->sequences[0], 0, diag);
    double start = tool_now();
    if (status == LQT_OK) status = lqt_session_step(b->session, &input, 1, NULL, diag);
    *(i == 0 ? &unused : &times[i - 1]) = tool_now() - start; /* the first warms up */
    if (status == LQT_OK) status = interrupted(diag);
  }
  if (status != LQT_OK) return status;
  json_t *profile = NULL;
  measurement m = {"prefill", 1, 0, tokens, median(times, b->args->repeat), 0};
  if (b->args->profile) {
    lqt_step_input input = input_of(b, 0, 99, tokens);
    lqt_device_profile_enable(b->engine.device, true);
    status = lqt_session_sequence_truncate(b->session, b->sequences[0], 0, diag);
    if (status == LQT_OK) status = lqt_session_step(b->session, &input, 1, NULL, diag);
    lqt_device_profile_enable(b->engine.device, false);
    report(b, &m, profile);
    json_object_set_new(json_array_get(b->rows, json_array_size(b->rows) - 1), "ops",
                        profile_json(b->engine.device, !b->args->json));
    return status;
  }
  report(b, &m, profile);
  return LQT_OK;
}

static lqt_status fill_contexts(bench *b, uint64_t context, lqt_diag *diag) {
  lqt_status status = LQT_OK;
  for (size_t i = 0; i < b->count && status == LQT_OK; i++) {
    lqt_step_input input = input_of(b, i, i, context);
    input.want = LQT_LOGITS_NONE;
    status = lqt_session_step(b->session, &input, 1, NULL, diag);
    if (status == LQT_OK) status = interrupted(diag);
  }
  return status;
}

/* One token of every sequence. */
static lqt_status decode_step(bench *b, size_t seed, double *out_seconds, lqt_diag *diag) {
  static lqt_step_input inputs[MAX_SEQUENCES];
  for (size_t i = 0; i < b->count; i++) inputs[i] = input_of(b, i, seed * b->count + i, 1);
  double start = tool_now();
  lqt_status status = lqt_session_step(b->session, inputs, b->count, NULL, diag);
  int32_t token;
  for (size_t i = 0; i < b->count && status == LQT_OK; i++) {
    status = lqt_session_sample(b->session, i, b->sampler, &token, diag);
  }
  *out_seconds = tool_now() - start;
  return status;
}

static lqt_status truncate_all(bench *b, uint64_t context, lqt_diag *diag) {
  lqt_status status = LQT_OK;
  for (size_t i = 0; i < b->count && status == LQT_OK; i++) {
    status = lqt_session_sequence_truncate(b->session, b->sequences[i], (uint32_t)context, diag);
  }
  return status;
}

static lqt_status decode(bench *b, uint64_t context, lqt_diag *diag) {
  static double times[MAX_STEPS];
  const bench_args *args = b->args;
  size_t steps = 0;
  double unused;
  lqt_status status = fill_contexts(b, context, diag);
  for (size_t i = 0; i < 3 && status == LQT_OK; i++) status = decode_step(b, i, &unused, diag);
  for (size_t run = 0; run < args->repeat && status == LQT_OK; run++) {
    status = truncate_all(b, context, diag);
    for (size_t i = 0; i < args->decode && status == LQT_OK; i++) {
      status = decode_step(b, i, &times[steps++], diag);
      if (status == LQT_OK) status = interrupted(diag);
    }
  }
  if (status != LQT_OK) return status;
  double middle = (double)context + (double)args->decode / 2;
  measurement m = {"decode",
                   b->count,
                   context,
                   b->count,
                   median(times, steps),
                   (double)lqt_engine_step_bytes(b->engine.engine) +
                       (double)lqt_session_position_bytes(b->session) * middle * (double)b->count};
  report(b, &m, NULL);
  if (!args->profile) return LQT_OK;
  status = truncate_all(b, context, diag);
  lqt_device_profile_enable(b->engine.device, true);
  if (status == LQT_OK) status = decode_step(b, 1, &unused, diag);
  lqt_device_profile_enable(b->engine.device, false);
  json_object_set_new(json_array_get(b->rows, json_array_size(b->rows) - 1), "ops",
                      profile_json(b->engine.device, !args->json));
  return status;
}

/* In every step the oldest sequence leaves, and one joins with a prompt beside the others' decode.
 */
static lqt_status mixed(bench *b, uint64_t context, lqt_diag *diag) {
  static lqt_step_input inputs[MAX_SEQUENCES];
  double times[64];
  const uint64_t prompt = b->args->mixed;
  size_t steps = 0;
  lqt_status status = truncate_all(b, context, diag);
  for (size_t step = 0; step < 12 && status == LQT_OK; step++) {
    size_t leaves = step % b->count;
    double start = tool_now();
    status = lqt_session_sequence_remove(b->session, b->sequences[leaves], diag);
    if (status == LQT_OK) {
      status = add_sequence(b, leaves, diag);
    }
    for (size_t i = 0; i < b->count; i++) {
      inputs[i] = input_of(b, i, step * b->count + i, i == leaves ? prompt : 1);
    }
    if (status == LQT_OK) status = lqt_session_step(b->session, inputs, b->count, NULL, diag);
    if (step >= 2) times[steps++] = tool_now() - start;
    if (status == LQT_OK) status = interrupted(diag);
  }
  if (status != LQT_OK) return status;
  measurement m = {"mixed", b->count, context, prompt + b->count - 1, median(times, steps), 0};
  report(b, &m, NULL);
  return LQT_OK;
}

static lqt_status make_tokens(bench *b, lqt_diag *diag) {
  b->token_count = 1u << 16;
  for (size_t i = 0; i < b->args->prefill.count; i++) {
    if (b->args->prefill.values[i] > b->token_count) b->token_count = b->args->prefill.values[i];
  }
  for (size_t i = 0; i < b->args->context.count; i++) {
    if (b->args->context.values[i] > b->token_count) b->token_count = b->args->context.values[i];
  }
  b->tokens = malloc(b->token_count * sizeof *b->tokens);
  if (b->tokens == NULL) return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
  uint32_t vocab = lqt_engine_vocab_size(b->engine.engine), state = 12345;
  for (size_t i = 0; i < b->token_count; i++) {
    state = state * 1664525u + 1013904223u;
    b->tokens[i] = (int32_t)((state >> 8) % vocab);
  }
  return LQT_OK;
}

/* Positions that a sequence has beyond its context. */
static uint64_t room_of(const bench_args *args) {
  return (args->decode > args->mixed ? args->decode : args->mixed) + 16;
}

/* Lengths that were not asked for are those that the model has room for. */
static void default_lengths(bench_args *args, uint64_t limit) {
  if (limit == 0) limit = UINT64_MAX;
  if (args->prefill.count == 0) {
    args->prefill = (number_list){{limit < 512 ? (uint32_t)limit : 512}, 1};
  }
  if (args->context.count == 0) {
    uint64_t room = limit > room_of(args) ? limit - room_of(args) : 0;
    args->context = (number_list){{room < 256 ? (uint32_t)room : 256}, 1};
  }
}

static lqt_status check_lengths(const bench *b, lqt_diag *diag) {
  const bench_args *args = b->args;
  uint64_t limit = lqt_engine_context(b->engine.engine), longest = 0;
  for (size_t i = 0; i < args->prefill.count; i++) {
    if (args->prefill.values[i] > longest) longest = args->prefill.values[i];
  }
  for (size_t i = 0; i < args->context.count; i++) {
    uint64_t length = args->context.values[i] + room_of(args);
    if (length > longest) longest = length;
  }
  if (limit == 0 || longest <= limit) return LQT_OK;
  return tool_diag(diag, LQT_CONTEXT_FULL, args->path,
                   "sequences of %llu positions are longer than the model's context of %llu; give "
                   "a smaller --prefill, --context or --decode",
                   (unsigned long long)longest, (unsigned long long)limit);
}

static lqt_status measure(bench *b, lqt_diag *diag) {
  const bench_args *args = b->args;
  lqt_sampler_options greedy = {.size = sizeof greedy, .top_p = 1.0f, .repetition_penalty = 1.0f};
  lqt_status status = lqt_sampler_create(&greedy, &b->sampler, diag);
  if (status == LQT_OK) status = make_tokens(b, diag);
  for (size_t i = 0; i < args->prefill.count && status == LQT_OK; i++) {
    if (args->prefill.values[i] > 0) status = prefill(b, args->prefill.values[i], diag);
  }
  for (size_t c = 0; c < args->context.count && status == LQT_OK; c++) {
    for (size_t i = 0; i < args->batch.count && status == LQT_OK; i++) {
      uint64_t context = args->context.values[c];
      status = open_session(b, args->batch.values[i], context + room_of(args), diag);
      if (status == LQT_OK) status = decode(b, context, diag);
      if (status == LQT_OK && args->mixed > 0 && args->batch.values[i] > 1) {
        status = mixed(b, context, diag);
      }
    }
  }
  return status;
}

static int run(int argc, char **argv) {
  bench_args args = {.decode = 64, .repeat = 3, .batch = {{1}, 1}};
  tool_device_defaults(&args.device);
  tool_parse(&argp, argc, argv, &args);
  static bench b;
  lqt_diag diag = {0};
  b.args = &args;
  lqt_status status = tool_engine_open(args.path, &args.device, &b.engine, &diag);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  default_lengths(&args, lqt_engine_context(b.engine.engine));
  status = check_lengths(&b, &diag);
  if (status != LQT_OK) {
    tool_engine_close(&b.engine);
    return tool_fail(argv[0], status, &diag);
  }
  lqt_device_info info;
  lqt_device_get_info(b.engine.device, &info);
  uint64_t step_bytes = lqt_engine_step_bytes(b.engine.engine);
  uint64_t weight_bytes = lqt_engine_weight_bytes(b.engine.engine);
  char text[32];
  if (!args.json) {
    printf("%s on %s (%s), %s of weights a step\n", args.path, info.selector, info.name,
           tool_size_text(step_bytes, text));
    printf("%-8s %6s %8s %8s %11s %12s %10s\n", "phase", "batch", "context", "tokens", "ms",
           "tokens/s", "GB/s");
  }
  b.rows = json_array();
  status = measure(&b, &diag);
  lqt_session_destroy(b.session);
  tool_engine_close(&b.engine);
  lqt_sampler_destroy(b.sampler);
  free(b.tokens);
  if (status != LQT_OK) {
    json_decref(b.rows);
    return tool_fail(argv[0], status, &diag);
  }
  if (!args.json) {
    printf("device memory: %s of weights", tool_size_text(weight_bytes, text));
    printf(", %s with the largest session\n", tool_size_text(b.most_bytes, text));
    json_decref(b.rows);
    return TOOL_DONE;
  }
  return tool_print_json(
      argv[0],
      json_pack("{s:o, s:s, s:o, s:I, s:I, s:I, s:I, s:o}", "model",
                tool_json_text(args.path, strlen(args.path)), "device", info.selector, "name",
                tool_json_text(info.name, strlen(info.name)), "repeat", (json_int_t)args.repeat,
                "step_bytes", (json_int_t)step_bytes, "weight_bytes", (json_int_t)weight_bytes,
                "device_bytes", (json_int_t)b.most_bytes, "results", b.rows));
}

const tool_command tool_bench_session = {"bench session", "Tokens per second of a whole model",
                                         &argp, run};
