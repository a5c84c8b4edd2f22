/* lqt bench session: tokens per second of a whole model. */
#include <stdlib.h>
#include <string.h>

#include "common.h"

enum { KEY_PREFILL = 0x1000, KEY_DECODE, KEY_SEQUENCES, KEY_REPEAT, KEY_JSON };

static const struct argp_option options[] = {
    {"prefill", KEY_PREFILL, "N", 0, "Tokens of the prompt (default 512)", 0},
    {"decode", KEY_DECODE, "N", 0, "Tokens written after it (default 64)", 0},
    {"sequences", KEY_SEQUENCES, "N", 0, "Sequences that step together (default 1)", 0},
    {"repeat", KEY_REPEAT, "N", 0, "Runs; the median is reported (default 5)", 0},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {0},
};

enum { MAX_REPEAT = 101, MAX_SEQUENCES = 1024 };

typedef struct bench_args {
  const char *path;
  uint64_t prefill, decode, sequences, repeat;
  bool json;
  tool_device_args device;
} bench_args;

static error_t parse(int key, char *text, struct argp_state *state) {
  bench_args *args = state->input;
  switch (key) {
    case ARGP_KEY_INIT:
      state->child_inputs[0] = &args->device;
      return 0;
    case KEY_PREFILL:
      args->prefill = tool_parse_u64(state, "--prefill", text, 1, 1u << 20);
      return 0;
    case KEY_DECODE:
      args->decode = tool_parse_u64(state, "--decode", text, 1, 1u << 20);
      return 0;
    case KEY_SEQUENCES:
      args->sequences = tool_parse_u64(state, "--sequences", text, 1, MAX_SEQUENCES);
      return 0;
    case KEY_REPEAT:
      args->repeat = tool_parse_u64(state, "--repeat", text, 1, MAX_REPEAT);
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
        "The bandwidth is the bytes of weights that a decode step must read, over its time."
        "\n\nExamples:\n"
        "  lqt bench session model.lqt --prefill 512 --decode 64\n"
        "  lqt bench session model.lqt --sequences 8 --json",
    .children = children};

typedef struct measurement {
  double prefill[MAX_REPEAT], decode[MAX_REPEAT]; /* seconds of a run */
} measurement;

static int compare_numbers(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y ? 1 : 0;
}

static double median(double *values, size_t count) {
  qsort(values, count, sizeof *values, compare_numbers);
  return count % 2 == 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2.0;
}

/* One run: every sequence starts empty, takes the prompt, then writes token by token. The tokens
 * are random: speed does not depend on them. */
static lqt_status run_once(lqt_session *session, const bench_args *args, const uint32_t *sequences,
                           const int32_t *tokens, double *out_prefill, double *out_decode,
                           lqt_diag *diag) {
  lqt_step_input inputs[MAX_SEQUENCES];
  size_t count = args->sequences;
  lqt_status status = LQT_OK;
  for (size_t i = 0; i < count && status == LQT_OK; i++) {
    status = lqt_session_sequence_truncate(session, sequences[i], 0, diag);
    inputs[i] = (lqt_step_input){.sequence = sequences[i],
                                 .want = LQT_LOGITS_LAST,
                                 .tokens = tokens,
                                 .count = args->prefill};
  }
  double start = tool_now();
  if (status == LQT_OK) status = lqt_session_step(session, inputs, count, NULL, diag);
  *out_prefill = tool_now() - start;
  start = tool_now();
  for (uint64_t step = 0; status == LQT_OK && step < args->decode; step++) {
    if (tool_cancelled()) return tool_diag(diag, LQT_CANCELLED, NULL, "interrupted");
    for (size_t i = 0; i < count; i++) {
      inputs[i].tokens = tokens + (step * count + i) % args->prefill;
      inputs[i].count = 1;
    }
    status = lqt_session_step(session, inputs, count, NULL, diag);
  }
  *out_decode = tool_now() - start;
  return status;
}

static lqt_status measure(const bench_args *args, lqt_engine *engine, measurement *out,
                          lqt_diag *diag) {
  lqt_session_options wanted = {
      .size = sizeof wanted,
      .max_sequences = (uint32_t)args->sequences,
      .max_tokens = (uint32_t)((args->prefill + args->decode) * args->sequences)};
  uint32_t sequences[MAX_SEQUENCES];
  lqt_session *session;
  lqt_status status = lqt_session_create(engine, &wanted, &session, diag);
  if (status != LQT_OK) return status;
  for (size_t i = 0; i < args->sequences && status == LQT_OK; i++) {
    status = lqt_session_sequence_add(session, &sequences[i], diag);
  }
  int32_t *tokens = malloc(args->prefill * sizeof *tokens);
  if (status == LQT_OK && tokens == NULL) {
    status = tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
  }
  uint32_t vocab = lqt_engine_vocab_size(engine), state = 12345;
  for (size_t i = 0; status == LQT_OK && i < args->prefill; i++) {
    state = state * 1664525u + 1013904223u;
    tokens[i] = (int32_t)((state >> 8) % vocab);
  }
  double unused[2]; /* the first run warms up */
  if (status == LQT_OK) {
    status = run_once(session, args, sequences, tokens, &unused[0], &unused[1], diag);
  }
  for (size_t i = 0; status == LQT_OK && i < args->repeat; i++) {
    status = run_once(session, args, sequences, tokens, &out->prefill[i], &out->decode[i], diag);
  }
  free(tokens);
  lqt_session_destroy(session);
  return status;
}

static int run(int argc, char **argv) {
  bench_args args = {.prefill = 512, .decode = 64, .sequences = 1, .repeat = 5};
  tool_device_defaults(&args.device);
  tool_parse(&argp, argc, argv, &args);
  static measurement result;
  lqt_diag diag = {0};
  tool_engine engine;
  lqt_status status = tool_engine_open(args.path, &args.device, &engine, &diag);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  status = measure(&args, engine.engine, &result, &diag);
  uint64_t step_bytes = lqt_engine_step_bytes(engine.engine);
  lqt_device_info info;
  lqt_device_get_info(engine.device, &info);
  tool_engine_close(&engine);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  double prefill = median(result.prefill, args.repeat), decode = median(result.decode, args.repeat);
  double prefill_rate = (double)(args.prefill * args.sequences) / prefill;
  double decode_rate = (double)(args.decode * args.sequences) / decode;
  double bandwidth = (double)(step_bytes * args.decode) / decode;
  if (args.json) {
    return tool_print_json(
        argv[0],
        json_pack("{s:o, s:s, s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:I, s:o}", "model",
                  tool_json_text(args.path, strlen(args.path)), "device", info.selector, "name",
                  tool_json_text(info.name, strlen(info.name)), "prefill", (json_int_t)args.prefill,
                  "decode", (json_int_t)args.decode, "sequences", (json_int_t)args.sequences,
                  "repeat", (json_int_t)args.repeat, "prefill_tokens_per_second",
                  tool_json_real(prefill_rate), "decode_tokens_per_second",
                  tool_json_real(decode_rate), "step_bytes", (json_int_t)step_bytes,
                  "decode_bytes_per_second", tool_json_real(bandwidth)));
  }
  char bytes[32], rate[32];
  printf("%s on %s (%s), %llu sequences, median of %llu runs\n", args.path, info.selector,
         info.name, (unsigned long long)args.sequences, (unsigned long long)args.repeat);
  printf("prefill %llu tokens: %10.1f tokens/s\n", (unsigned long long)args.prefill, prefill_rate);
  printf("decode  %llu tokens: %10.1f tokens/s; %s of weights a step, %s/s\n",
         (unsigned long long)args.decode, decode_rate, tool_size_text(step_bytes, bytes),
         tool_size_text((uint64_t)bandwidth, rate));
  return TOOL_DONE;
}

const tool_command tool_bench_session = {"bench session", "Tokens per second of a whole model",
                                         &argp, run};
