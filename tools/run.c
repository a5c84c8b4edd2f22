/* lqt run: a model continues a prompt. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common.h"

enum {
  KEY_TEMP = 0x1000,
  KEY_TOP_K,
  KEY_TOP_P,
  KEY_MIN_P,
  KEY_PENALTY,
  KEY_SEED,
  KEY_IGNORE_EOS,
  KEY_ECHO,
  KEY_PROFILE,
  KEY_JSON,
  KEY_KV,
  KEY_CONTEXT,
  KEY_WATCH,
  KEY_ON_EDIT,
};

static const struct argp_option options[] = {
    {"prompt", 'p', "TEXT", 0, "The prompt", 0},
    {"file", 'f', "FILE", 0, "Read the prompt from FILE (- for standard input)", 0},
    {"tokens", 'n', "N", 0, "Tokens to write at most (default 128)", 0},
    {"echo", KEY_ECHO, NULL, 0, "Print the prompt in front of its continuation", 0},
    {"ignore-eos", KEY_IGNORE_EOS, NULL, 0, "Write on after the end-of-text token", 0},
    {"json", KEY_JSON, NULL, 0, "Print text, token ids and statistics as JSON", 0},
    {"quiet", 'q', NULL, 0, "No statistics", 0},
    {"profile", KEY_PROFILE, NULL, 0, "Say where the time went (standard error)", 0},
    {"temp", KEY_TEMP, "T", 0, "Temperature; 0 takes the most likely token (default 0.8)", 1},
    {"top-k", KEY_TOP_K, "K", 0, "Only the K most likely tokens; 0: all (default 40)", 1},
    {"top-p", KEY_TOP_P, "P", 0, "Only the tokens that make up this probability (default 0.95)", 1},
    {"min-p", KEY_MIN_P, "P", 0, "Only tokens at least P times as likely as the best (default 0)",
     1},
    {"repeat-penalty", KEY_PENALTY, "R", 0, "Penalty of recent tokens; 1: none (default 1)", 1},
    {"seed", KEY_SEED, "N", 0, "Seed of the draws (default: from the clock; it is printed)", 1},
    {"context", KEY_CONTEXT, "N", 0, "Positions of the KV cache (default: what is needed)", 2},
    {"kv", KEY_KV, "TYPE", 0, "Type of the KV cache: f16 (default) or f32", 2},
    {"watch", KEY_WATCH, NULL, 0,
     "Follow the model's journal: edits that another process commits change the text from the next "
     "token on",
     2},
    {"on-edit", KEY_ON_EDIT, "POLICY", 0,
     "With --watch, what an edit does with the KV cache: keep (default) or recompute", 2},
    {0},
};

typedef struct run_args {
  const char *path, *prompt, *file;
  uint64_t tokens, context;
  bool echo, ignore_eos, json, quiet, profile, seeded, watch;
  lqt_kv_policy on_edit;
  lqt_dtype kv;
  lqt_sampler_options sampler;
  tool_device_args device;
} run_args;

static error_t parse_sampling(int key, char *text, struct argp_state *state) {
  run_args *args = state->input;
  lqt_sampler_options *sampler = &args->sampler;
  switch (key) {
    case KEY_TEMP:
      sampler->temperature = (float)tool_parse_number(state, "--temp", text, 0.0, 100.0);
      return 0;
    case KEY_TOP_K:
      sampler->top_k = (uint32_t)tool_parse_u64(state, "--top-k", text, 0, UINT32_MAX);
      return 0;
    case KEY_TOP_P:
      sampler->top_p = (float)tool_parse_number(state, "--top-p", text, 1e-6, 1.0);
      return 0;
    case KEY_MIN_P:
      sampler->min_p = (float)tool_parse_number(state, "--min-p", text, 0.0, 1.0);
      return 0;
    case KEY_PENALTY:
      sampler->repetition_penalty =
          (float)tool_parse_number(state, "--repeat-penalty", text, 0.01, 100.0);
      return 0;
    case KEY_SEED:
      sampler->seed = tool_parse_u64(state, "--seed", text, 0, UINT64_MAX);
      args->seeded = true;
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static error_t parse(int key, char *text, struct argp_state *state) {
  run_args *args = state->input;
  static const char *const kv_names[] = {"f16", "f32", NULL};
  static const char *const policies[] = {"keep", "recompute", NULL};
  switch (key) {
    case ARGP_KEY_INIT:
      state->child_inputs[0] = &args->device;
      return 0;
    case 'p':
      args->prompt = text;
      return 0;
    case 'f':
      args->file = text;
      return 0;
    case 'n':
      args->tokens = tool_parse_u64(state, "-n", text, 0, 1u << 30);
      return 0;
    case KEY_CONTEXT:
      args->context = tool_parse_u64(state, "--context", text, 1, 1u << 30);
      return 0;
    case KEY_KV:
      args->kv =
          tool_parse_word(state, "--kv", text, kv_names) == 0 ? LQT_DTYPE_F16 : LQT_DTYPE_F32;
      return 0;
    case KEY_WATCH:
      args->watch = true;
      return 0;
    case KEY_ON_EDIT:
      args->on_edit =
          tool_parse_word(state, "--on-edit", text, policies) == 0 ? LQT_KV_KEEP : LQT_KV_RECOMPUTE;
      return 0;
    case KEY_ECHO:
      args->echo = true;
      return 0;
    case KEY_IGNORE_EOS:
      args->ignore_eos = true;
      return 0;
    case KEY_JSON:
      args->json = true;
      return 0;
    case KEY_PROFILE:
      args->profile = true;
      return 0;
    case 'q':
      args->quiet = true;
      return 0;
    case ARGP_KEY_ARG:
      tool_parse_argument(state, text, &args->path, 1);
      return 0;
    case ARGP_KEY_END:
      if (args->path == NULL) argp_error(state, "give the model file to run");
      if ((args->prompt == NULL) == (args->file == NULL)) {
        argp_error(state, "give the prompt with -p or with -f");
      }
      return 0;
    default:
      return parse_sampling(key, text, state);
  }
}

static const struct argp_child children[] = {{&tool_device_argp, 0, "Device:", 3}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "MODEL.lqt",
    .doc =
        "Continues a prompt. Standard output gets the text that the model writes and nothing "
        "else; statistics go to standard error.\v"
        "The begin-of-text token is put in front of the prompt when the tokenizer has one. "
        "Writing stops after -n tokens, at the end-of-text token, or when the context is full."
        "\n\nExamples:\n"
        "  lqt run model.lqt -p 'Once upon a time' -n 64 --temp 0\n"
        "  lqt run model.lqt -f prompt.txt --temp 0.7 --top-p 0.9 --seed 1\n"
        "  lqt run model.lqt -p 'Once' --device cuda --profile\n"
        "  lqt run model.lqt -p 'Once' -n 2000 --watch",
    .children = children};

/* Everything that is open while text is written. */
typedef struct generation {
  const run_args *args;
  const char *command;
  tool_engine engine;
  lqt_editor *editor; /* --watch */
  double followed;
  lqt_tokenizer *tokenizer;
  lqt_session *session;
  lqt_sampler *sampler;
  uint32_t sequence;
  char *text; /* the prompt */
  size_t text_bytes;
  int32_t *prompt;
  size_t prompt_count;
  int32_t *written;
  size_t written_count;
  char *output; /* JSON: the bytes written so far */
  size_t output_bytes;
  tool_utf8 utf8;
  double prompt_seconds, write_seconds;
  const char *stop; /* "length", "eos", "context", "cancelled" */
} generation;

static void generation_close(generation *run) {
  free(run->text);
  free(run->prompt);
  free(run->written);
  free(run->output);
  lqt_sampler_destroy(run->sampler);
  lqt_session_destroy(run->session);
  lqt_tokenizer_destroy(run->tokenizer);
  lqt_editor_destroy(run->editor);
  tool_engine_close(&run->engine);
}

static lqt_status read_prompt(generation *run, lqt_diag *diag) {
  const run_args *args = run->args;
  lqt_status status = LQT_OK;
  if (args->file != NULL) {
    status = tool_read_file(args->file, &run->text, &run->text_bytes, diag);
  } else {
    run->text_bytes = strlen(args->prompt);
    run->text = strdup(args->prompt);
    if (run->text == NULL) status = tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
  }
  if (status != LQT_OK) return status;
  status = tool_encode(run->tokenizer, run->text, run->text_bytes, true, true, &run->prompt,
                       &run->prompt_count, diag);
  if (status == LQT_OK && run->prompt_count == 0) {
    status = tool_diag(diag, LQT_INVALID_ARGUMENT, NULL,
                       "the prompt is empty and the tokenizer has no begin-of-text token; give "
                       "some text");
  }
  return status;
}

/* Positions that the KV cache gets; refuses a prompt that leaves no room. */
static lqt_status choose_context(const generation *run, uint32_t *out, lqt_diag *diag) {
  const run_args *args = run->args;
  uint64_t limit = lqt_engine_context(run->engine.engine);
  if (args->context > 0 && (limit == 0 || args->context < limit)) limit = args->context;
  uint64_t wanted = run->prompt_count + args->tokens;
  if (limit > 0 && run->prompt_count > limit) {
    return tool_diag(diag, LQT_CONTEXT_FULL, args->path,
                     "the prompt has %zu tokens, but the context holds %llu; give a shorter prompt",
                     run->prompt_count, (unsigned long long)limit);
  }
  if (limit > 0 && wanted > limit) wanted = limit;
  *out = (uint32_t)(wanted < UINT32_MAX ? wanted : UINT32_MAX);
  return LQT_OK;
}

/* The file's model, and an editor that follows its journal and hands every edit to the engine. */
static lqt_status open_watched(generation *run, lqt_diag *diag) {
  const run_args *args = run->args;
  tool_engine *engine = &run->engine;
  lqt_status status = lqt_model_open(args->path, NULL, &engine->model, diag);
  if (status == LQT_OK) status = lqt_editor_create(engine->model, &run->editor, diag);
  if (status == LQT_OK) {
    status = lqt_editor_open_journal(run->editor, LQT_JOURNAL_FOLLOW, NULL, NULL, diag);
  }
  if (status == LQT_OK) status = tool_device_open(&args->device, &engine->device, diag);
  if (status == LQT_OK) {
    status = lqt_engine_create(engine->model, engine->device, &engine->engine, diag);
  }
  if (status == LQT_OK) status = lqt_editor_attach(run->editor, engine->engine, diag);
  return status;
}

static lqt_status generation_open(generation *run, lqt_diag *diag) {
  const run_args *args = run->args;
  lqt_status status = args->watch ? open_watched(run, diag)
                                  : tool_engine_open(args->path, &args->device, &run->engine, diag);
  if (status == LQT_OK) {
    status = lqt_tokenizer_from_model(run->engine.model, &run->tokenizer, diag);
  }
  if (status == LQT_OK) status = read_prompt(run, diag);
  lqt_session_options session = {.size = sizeof session,
                                 .max_sequences = 1,
                                 .kv_dtype = args->kv,
                                 .kv_dtype_set = true,
                                 .kv_policy = args->on_edit};
  if (status == LQT_OK) status = choose_context(run, &session.max_tokens, diag);
  if (status == LQT_OK) {
    status = lqt_session_create(run->engine.engine, &session, &run->session, diag);
  }
  if (status == LQT_OK) status = lqt_session_sequence_add(run->session, &run->sequence, diag);
  if (status == LQT_OK) status = lqt_sampler_create(&args->sampler, &run->sampler, diag);
  if (status == LQT_OK) {
    status = lqt_session_sequence_sampler(run->session, run->sequence, run->sampler, diag);
  }
  if (status != LQT_OK) return status;
  run->written = malloc((args->tokens + 1) * sizeof *run->written);
  if (run->written == NULL) return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
  for (size_t i = 0; i < run->prompt_count; i++) {
    lqt_sampler_accept(run->sampler, run->prompt[i]);
  }
  return LQT_OK;
}

static lqt_status emit(generation *run, int32_t token, lqt_diag *diag) {
  const char *bytes;
  size_t size;
  bool special;
  lqt_status status = lqt_tokenizer_token(run->tokenizer, token, &bytes, &size, &special);
  if (status != LQT_OK) {
    return tool_diag(diag, status, run->args->path, "the tokenizer does not know token %d",
                     (int)token);
  }
  if (special) return LQT_OK; /* marks, not text */
  if (run->args->json) {
    char *grown = realloc(run->output, run->output_bytes + size + 1);
    if (grown == NULL) return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
    run->output = grown;
    memcpy(run->output + run->output_bytes, bytes, size);
    run->output_bytes += size;
    return LQT_OK;
  }
  tool_utf8_write(&run->utf8, bytes, size, stdout);
  fflush(stdout); /* text shows as it is written */
  return LQT_OK;
}

/* Brings in what was committed since; a look at the file now and then is enough. */
static lqt_status follow(generation *run, lqt_diag *diag) {
  const double interval = 0.005;
  if (run->editor == NULL || tool_now() - run->followed < interval) return LQT_OK;
  size_t applied = 0;
  lqt_status status = lqt_editor_follow(run->editor, &applied, diag);
  run->followed = tool_now();
  if (status == LQT_OK && applied != 0 && !run->args->quiet) {
    fprintf(stderr, "\n%s: revision %llu after %zu tokens\n", run->command,
            (unsigned long long)lqt_editor_revision(run->editor), run->written_count);
  }
  return status;
}

static lqt_status step(generation *run, const int32_t *tokens, size_t count, lqt_diag *diag) {
  lqt_status followed = follow(run, diag);
  if (followed != LQT_OK) return followed;
  lqt_step_input input = {
      .sequence = run->sequence, .want = LQT_LOGITS_SAMPLE, .tokens = tokens, .count = count};
  return lqt_session_step(run->session, &input, 1, NULL, diag);
}

static lqt_status generate(generation *run, lqt_diag *diag) {
  const run_args *args = run->args;
  int32_t eos = args->ignore_eos ? -1 : lqt_tokenizer_eos(run->tokenizer);
  double start = tool_now();
  lqt_status status = step(run, run->prompt, run->prompt_count, diag);
  run->prompt_seconds = tool_now() - start;
  start = tool_now();
  run->stop = "length";
  while (status == LQT_OK && run->written_count < args->tokens) {
    if (tool_cancelled()) {
      run->stop = "cancelled";
      break;
    }
    int32_t token;
    status = lqt_session_sample(run->session, 0, run->sampler, &token, diag);
    if (status != LQT_OK) break;
    if (token == eos) {
      run->stop = "eos";
      break;
    }
    run->written[run->written_count++] = token;
    status = emit(run, token, diag);
    if (status != LQT_OK || run->written_count == args->tokens) break;
    status = step(run, &token, 1, diag);
    if (status == LQT_CONTEXT_FULL) {
      run->stop = "context";
      status = LQT_OK;
      break;
    }
  }
  run->write_seconds = tool_now() - start;
  return status;
}

static double rate(double count, double seconds) { return seconds > 0.0 ? count / seconds : 0.0; }

/* The steps after the prompt: the first token comes out of the prompt's own step. */
static double decode_steps(const generation *run) {
  return run->written_count > 1 ? (double)run->written_count - 1.0 : 0.0;
}

static void print_statistics(const generation *run) {
  fprintf(stderr, "%s: prompt %zu tokens in %.3f s (%.1f tokens/s)", run->command,
          run->prompt_count, run->prompt_seconds,
          rate((double)run->prompt_count, run->prompt_seconds));
  fprintf(stderr, "; wrote %zu tokens in %.3f s (%.1f tokens/s)", run->written_count,
          run->write_seconds, rate(decode_steps(run), run->write_seconds));
  if (run->args->sampler.temperature > 0.0f) {
    fprintf(stderr, "; seed %llu", (unsigned long long)run->args->sampler.seed);
  }
  if (strcmp(run->stop, "context") == 0) fputs("; stopped: the context is full", stderr);
  fputc('\n', stderr);
}

static int compare_entries(const void *a, const void *b) {
  double x = ((const lqt_profile_entry *)a)->seconds, y = ((const lqt_profile_entry *)b)->seconds;
  return x < y ? 1 : x > y ? -1 : 0;
}

/* Time by op kind over all labels, the longest first. */
static void print_profile(const generation *run) {
  lqt_profile_entry entries[512];
  lqt_profile_entry kinds[LQT_OP_COUNT_] = {0};
  size_t count = lqt_device_profile_take(run->engine.device, entries, 512);
  double total = 0.0, wall = run->prompt_seconds + run->write_seconds;
  for (size_t i = 0; i < count && i < 512; i++) {
    if (entries[i].kind >= LQT_OP_COUNT_) continue;
    kinds[entries[i].kind].kind = entries[i].kind;
    kinds[entries[i].kind].calls += entries[i].calls;
    kinds[entries[i].kind].seconds += entries[i].seconds;
    total += entries[i].seconds;
  }
  qsort(kinds, LQT_OP_COUNT_, sizeof kinds[0], compare_entries);
  fprintf(stderr, "%-12s %10s %12s %8s\n", "op", "calls", "seconds", "share");
  for (size_t i = 0; i < LQT_OP_COUNT_ && kinds[i].calls > 0; i++) {
    fprintf(stderr, "%-12s %10llu %12.6f %7.1f%%\n", lqt_op_name((lqt_op_kind)kinds[i].kind),
            (unsigned long long)kinds[i].calls, kinds[i].seconds,
            100.0 * rate(kinds[i].seconds, wall));
  }
  fprintf(stderr, "%-12s %10s %12.6f %7.1f%%\n", "the rest", "", wall - total,
          100.0 * rate(wall - total, wall));
}

static int print_result(const generation *run) {
  const run_args *args = run->args;
  json_t *ids = json_array();
  for (size_t i = 0; i < run->written_count; i++) {
    json_array_append_new(ids, json_integer(run->written[i]));
  }
  return tool_print_json(
      run->command,
      json_pack("{s:o, s:o, s:I, s:o, s:o, s:o, s:I, s:s}", "text",
                tool_json_text(run->output != NULL ? run->output : "", run->output_bytes), "tokens",
                ids, "prompt_tokens", (json_int_t)run->prompt_count, "prompt_seconds",
                tool_json_real(run->prompt_seconds), "seconds", tool_json_real(run->write_seconds),
                "tokens_per_second", tool_json_real(rate(decode_steps(run), run->write_seconds)),
                "seed", (json_int_t)args->sampler.seed, "stop", run->stop));
}

static int run_command(int argc, char **argv) {
  run_args args = {.tokens = 128,
                   .kv = LQT_DTYPE_F16,
                   .sampler = {.size = sizeof args.sampler,
                               .temperature = 0.8f,
                               .top_k = 40,
                               .top_p = 0.95f,
                               .repetition_penalty = 1.0f}};
  tool_device_defaults(&args.device);
  tool_parse(&argp, argc, argv, &args);
  if (!args.seeded) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    args.sampler.seed = ((uint64_t)now.tv_sec << 20 ^ (uint64_t)now.tv_nsec) & INT32_MAX;
  }
  generation run = {.args = &args, .command = argv[0], .stop = "length"};
  lqt_diag diag = {0};
  lqt_status status = generation_open(&run, &diag);
  if (status == LQT_OK) {
    if (args.profile) lqt_device_profile_enable(run.engine.device, true);
    if (args.echo && !args.json) tool_utf8_write(&run.utf8, run.text, run.text_bytes, stdout);
    status = generate(&run, &diag);
    if (!args.json) {
      tool_utf8_finish(&run.utf8, stdout);
      fputc('\n', stdout);
    }
  }
  int code = TOOL_DONE;
  if (status != LQT_OK) {
    code = tool_fail(argv[0], status, &diag);
  } else {
    if (args.json) code = print_result(&run);
    fflush(stdout);
    if (!args.quiet) print_statistics(&run);
    if (args.profile) print_profile(&run);
    if (tool_cancelled()) code = TOOL_CANCELLED;
  }
  generation_close(&run);
  return code;
}

const tool_command tool_run = {"run", "Let a model continue a prompt", &argp, run_command};
