/* lqt eval: how well a model predicts a text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

enum { KEY_IDS = 0x1000, KEY_WINDOW, KEY_WINDOWS, KEY_JSON, KEY_KV };

static const struct argp_option options[] = {
    {"ids", KEY_IDS, NULL, 0, "FILE holds token ids (little-endian uint16), not text", 0},
    {"window", KEY_WINDOW, "N", 0, "Tokens that a window predicts (default 512)", 0},
    {"windows", KEY_WINDOWS, "N", 0, "Windows at most; 0: all that FILE has (default 200)", 0},
    {"kv", KEY_KV, "TYPE", 0, "Type of the KV cache: f16 (default) or f32", 0},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {"quiet", 'q', NULL, 0, "No progress", 0},
    {0},
};

typedef struct eval_args {
  const char *paths[2];
  bool ids, json, quiet;
  uint64_t window, windows;
  lqt_dtype kv;
  tool_device_args device;
} eval_args;

static error_t parse(int key, char *text, struct argp_state *state) {
  eval_args *args = state->input;
  static const char *const kv_names[] = {"f16", "f32", NULL};
  switch (key) {
    case ARGP_KEY_INIT:
      state->child_inputs[0] = &args->device;
      return 0;
    case KEY_IDS:
      args->ids = true;
      return 0;
    case KEY_WINDOW:
      args->window = tool_parse_u64(state, "--window", text, 1, 1u << 20);
      return 0;
    case KEY_WINDOWS:
      args->windows = tool_parse_u64(state, "--windows", text, 0, UINT64_MAX);
      return 0;
    case KEY_KV:
      args->kv =
          tool_parse_word(state, "--kv", text, kv_names) == 0 ? LQT_DTYPE_F16 : LQT_DTYPE_F32;
      return 0;
    case KEY_JSON:
      args->json = true;
      return 0;
    case 'q':
      args->quiet = true;
      return 0;
    case ARGP_KEY_ARG:
      tool_parse_argument(state, text, args->paths, 2);
      return 0;
    case ARGP_KEY_END:
      if (args->paths[1] == NULL) argp_error(state, "give the model and the file to predict");
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&tool_device_argp, 0, "Device:", 1}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "MODEL.lqt FILE",
    .doc =
        "Prints the mean negative log-likelihood of a token (natural logarithm) and the perplexity."
        "\v"
        "Window i of N tokens predicts ids N*i+1 .. N*i+N from ids N*i .. N*i+N-1; nothing is "
        "carried from window to window, and no begin-of-text token is added. A text is encoded "
        "whole first; a file shorter than a window is one shorter window.\n\nExamples:\n"
        "  lqt eval model.lqt text.txt\n"
        "  lqt eval model.lqt heldout.u16 --ids --window 512 --windows 200 --json",
    .children = children};

static lqt_status ids_from_bytes(const char *path, const char *data, size_t bytes,
                                 int32_t **out_ids, size_t *out_count, lqt_diag *diag) {
  if (bytes % 2 != 0) {
    return tool_diag(diag, LQT_BAD_SOURCE, path,
                     "the file has an odd number of bytes (%zu); --ids wants 16-bit token ids",
                     bytes);
  }
  size_t count = bytes / 2;
  int32_t *ids = malloc((count + 1) * sizeof *ids);
  if (ids == NULL) return tool_diag(diag, LQT_OUT_OF_MEMORY, path, "no memory for %zu ids", count);
  for (size_t i = 0; i < count; i++) {
    ids[i] = (unsigned char)data[2 * i] | (unsigned char)data[2 * i + 1] << 8;
  }
  *out_ids = ids;
  *out_count = count;
  return LQT_OK;
}

static lqt_status read_ids(const eval_args *args, const lqt_model *model, int32_t **out_ids,
                           size_t *out_count, lqt_diag *diag) {
  char *data;
  size_t bytes;
  lqt_status status = tool_read_file(args->paths[1], &data, &bytes, diag);
  if (status != LQT_OK) return status;
  if (args->ids) {
    status = ids_from_bytes(args->paths[1], data, bytes, out_ids, out_count, diag);
  } else {
    lqt_tokenizer *tokenizer;
    status = lqt_tokenizer_from_model(model, &tokenizer, diag);
    if (status == LQT_OK) {
      status = tool_encode(tokenizer, data, bytes, false, false, out_ids, out_count, diag);
      lqt_tokenizer_destroy(tokenizer);
    }
  }
  free(data);
  if (status == LQT_OK && *out_count < 2) {
    size_t count = *out_count;
    free(*out_ids);
    *out_ids = NULL;
    return tool_diag(diag, LQT_BAD_SOURCE, args->paths[1],
                     "the file has %zu tokens; at least 2 are needed to predict one", count);
  }
  return status;
}

/* -log softmax(logits)[target]. */
static double negative_log_likelihood(const float *logits, uint32_t vocab, int32_t target) {
  float most = logits[0];
  for (uint32_t i = 1; i < vocab; i++) most = logits[i] > most ? logits[i] : most;
  double sum = 0.0;
  for (uint32_t begin = 0; begin < vocab; begin += 256) {
    uint32_t end = begin + 256 < vocab ? begin + 256 : vocab;
    float part = 0.0f;
    for (uint32_t i = begin; i < end; i++) part += expf(logits[i] - most);
    sum += (double)part;
  }
  return log(sum) + (double)most - (double)logits[target];
}

typedef struct evaluation {
  double nll; /* sum, then mean */
  uint64_t tokens;
  double seconds;
} evaluation;

static lqt_status check_ids(const eval_args *args, const int32_t *ids, size_t count, uint32_t vocab,
                            lqt_diag *diag) {
  for (size_t i = 0; i < count; i++) {
    if (ids[i] < 0 || (uint32_t)ids[i] >= vocab) {
      return tool_diag(diag, LQT_OUT_OF_RANGE, args->paths[1],
                       "token %zu is %d, but the model knows %u tokens; is the file made for this "
                       "model?",
                       i, (int)ids[i], vocab);
    }
  }
  return LQT_OK;
}

/* Predicts ids[1 .. count] from ids[0 .. count - 1]. */
static lqt_status evaluate_window(lqt_session *session, uint32_t sequence, const int32_t *ids,
                                  size_t count, uint32_t vocab, evaluation *out, lqt_diag *diag) {
  lqt_status status = lqt_session_sequence_truncate(session, sequence, 0, diag);
  if (status != LQT_OK) return status;
  lqt_step_input input = {
      .sequence = sequence, .want = LQT_LOGITS_ALL, .tokens = ids, .count = count};
  status = lqt_session_step(session, &input, 1, NULL, diag);
  for (size_t i = 0; status == LQT_OK && i < count; i++) {
    const float *logits = lqt_session_logits(session, 0, i);
    double nll = negative_log_likelihood(logits, vocab, ids[i + 1]);
    if (!isfinite(nll)) {
      return tool_diag(diag, LQT_NOT_FINITE, NULL,
                       "a logit is not finite; the model's weights are damaged or overflow");
    }
    out->nll += nll;
    out->tokens++;
  }
  return status;
}

static lqt_status evaluate(const eval_args *args, lqt_engine *engine, const int32_t *ids,
                           size_t count, evaluation *out, lqt_diag *diag) {
  uint32_t vocab = lqt_engine_vocab_size(engine);
  size_t window = args->window < count - 1 ? args->window : count - 1;
  size_t windows = (count - 1) / window;
  if (args->windows > 0 && args->windows < windows) windows = args->windows;
  const uint32_t context = lqt_engine_context(engine);
  if (context != 0 && window > context) {
    return tool_diag(diag, LQT_CONTEXT_FULL, args->paths[0],
                     "a window of %zu tokens is longer than the model's context; give --window %u "
                     "or less",
                     window, context);
  }
  lqt_status status = check_ids(args, ids, windows * window + 1, vocab, diag);
  if (status != LQT_OK) return status;
  lqt_session_options wanted = {.size = sizeof wanted,
                                .max_sequences = 1,
                                .max_tokens = (uint32_t)window,
                                .kv_dtype = args->kv,
                                .kv_dtype_set = true};
  lqt_session *session;
  uint32_t sequence;
  status = lqt_session_create(engine, &wanted, &session, diag);
  if (status != LQT_OK) return status;
  status = lqt_session_sequence_add(session, &sequence, diag);
  tool_progress progress;
  tool_progress_begin(&progress, args->quiet);
  double start = tool_now();
  for (size_t i = 0; status == LQT_OK && i < windows; i++) {
    if (!tool_progress_update(&progress, "evaluating", "tokens", i * window, windows * window)) {
      status = tool_diag(diag, LQT_CANCELLED, NULL, "interrupted after %zu windows", i);
      break;
    }
    status = evaluate_window(session, sequence, ids + i * window, window, vocab, out, diag);
  }
  out->seconds = tool_now() - start;
  tool_progress_end(&progress);
  lqt_session_destroy(session);
  if (status == LQT_OK) out->nll /= (double)out->tokens;
  return status;
}

static int run(int argc, char **argv) {
  eval_args args = {.window = 512, .windows = 200, .kv = LQT_DTYPE_F16};
  tool_device_defaults(&args.device);
  tool_parse(&argp, argc, argv, &args);
  lqt_diag diag = {0};
  tool_engine engine;
  int32_t *ids = NULL;
  size_t count = 0;
  evaluation result = {0};
  lqt_status status = tool_engine_open(args.paths[0], &args.device, &engine, &diag);
  if (status == LQT_OK) status = read_ids(&args, engine.model, &ids, &count, &diag);
  if (status == LQT_OK) status = evaluate(&args, engine.engine, ids, count, &result, &diag);
  free(ids);
  tool_engine_close(&engine);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  if (args.json) {
    return tool_print_json(
        argv[0], json_pack("{s:o, s:o, s:I, s:o}", "nll", tool_json_real(result.nll), "perplexity",
                           tool_json_real(exp(result.nll)), "tokens", (json_int_t)result.tokens,
                           "seconds", tool_json_real(result.seconds)));
  }
  printf("nll %.5f, perplexity %.4f over %llu tokens (%.1f s, %.0f tokens/s)\n", result.nll,
         exp(result.nll), (unsigned long long)result.tokens, result.seconds,
         result.seconds > 0.0 ? (double)result.tokens / result.seconds : 0.0);
  return TOOL_DONE;
}

const tool_command tool_eval = {"eval", "Mean loss and perplexity of a text", &argp, run};
