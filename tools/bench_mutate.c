/* lqt bench mutate: what edits of a running model cost the steps. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common.h"

enum { KEY_CONTEXT = 0x1000, KEY_SEQUENCES, KEY_SECONDS, KEY_REPEAT, KEY_JSON };

static const struct argp_option options[] = {
    {"context", KEY_CONTEXT, "N", 0, "Tokens of each sequence before decoding (default 512)", 0},
    {"sequences", KEY_SEQUENCES, "N[,N...]", 0, "Sequences that decode together (default 1,32)", 0},
    {"seconds", KEY_SECONDS, "N", 0, "Of decoding without edits, and with streaming (default 2)",
     0},
    {"repeat", KEY_REPEAT, "N", 0, "Times every edit (default 20; the largest 8 at most)", 0},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {0},
};

enum { MAX_BATCHES = 8, MAX_SEQUENCES = 256, MAX_REPEAT = 1000, MAX_STEPS = 1 << 20, ROOM = 256 };

typedef struct bench_args {
  const char *path;
  uint64_t context, seconds, repeat;
  uint64_t batches[MAX_BATCHES];
  size_t batch_count;
  bool json;
  tool_device_args device;
} bench_args;

static void parse_batches(struct argp_state *state, char *text, bench_args *args) {
  args->batch_count = 0;
  char *rest = NULL;
  for (char *word = strtok_r(text, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
    if (args->batch_count == MAX_BATCHES) argp_error(state, "at most %d numbers", MAX_BATCHES);
    args->batches[args->batch_count++] =
        tool_parse_u64(state, "--sequences", word, 1, MAX_SEQUENCES);
  }
}

static error_t parse(int key, char *text, struct argp_state *state) {
  bench_args *args = state->input;
  switch (key) {
    case ARGP_KEY_INIT:
      state->child_inputs[0] = &args->device;
      return 0;
    case KEY_CONTEXT:
      args->context = tool_parse_u64(state, "--context", text, 1, 1u << 20);
      return 0;
    case KEY_SEQUENCES:
      parse_batches(state, text, args);
      return 0;
    case KEY_SECONDS:
      args->seconds = tool_parse_u64(state, "--seconds", text, 1, 3600);
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
        "Decodes on one thread while another edits the weights, and measures what that costs."
        "\vEdits: an entry of a codebook, 1 MB and 100 MB of weights, all weights. They keep the "
        "values, so the text does not matter. Staged: from the call until the bytes are on the "
        "device. Flip: how long no step can run. Visible: from the call until the end of the first "
        "step that saw the edit. Inter-token times while staging stand beside those of the same "
        "run without edits. Nothing is journaled."
        "\n\nExamples:\n"
        "  lqt bench mutate model.lqt --device cuda --sequences 1,32\n"
        "  lqt bench mutate model.lqt --json",
    .children = children};

/* ---- The decoding thread ---- */

typedef struct step_record {
  double begin, end;
  uint64_t revision;
} step_record;

typedef struct decoder {
  lqt_session *session;
  uint32_t sequences[MAX_SEQUENCES];
  size_t count;
  uint64_t context;
  step_record *steps;
  _Atomic size_t step_count;
  _Atomic bool stop;
  lqt_status status;
  lqt_diag diag;
} decoder;

static lqt_status prefill(decoder *d, lqt_diag *diag) {
  int32_t *tokens = calloc(d->context, sizeof *tokens);
  if (tokens == NULL) return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
  lqt_status status = LQT_OK;
  for (size_t i = 0; i < d->count && status == LQT_OK; i++) {
    lqt_step_input input = {d->sequences[i], LQT_LOGITS_NONE, tokens, d->context};
    status = lqt_session_step(d->session, &input, 1, NULL, diag);
  }
  free(tokens);
  return status;
}

static void *decode(void *user) {
  decoder *d = user;
  static const int32_t token = 1;
  lqt_step_input inputs[MAX_SEQUENCES];
  for (size_t i = 0; i < d->count; i++) {
    inputs[i] = (lqt_step_input){d->sequences[i], LQT_LOGITS_LAST, &token, 1};
  }
  while (!atomic_load(&d->stop) && d->status == LQT_OK) {
    size_t at = atomic_load(&d->step_count);
    if (at == MAX_STEPS) break;
    for (size_t i = 0; at % ROOM == 0 && i < d->count && d->status == LQT_OK; i++) {
      d->status = lqt_session_sequence_truncate(d->session, d->sequences[i], (uint32_t)d->context,
                                                &d->diag);
    }
    step_record *record = &d->steps[at];
    lqt_step_result result = {0};
    record->begin = tool_now();
    if (d->status == LQT_OK) {
      d->status = lqt_session_step(d->session, inputs, d->count, &result, &d->diag);
    }
    record->end = tool_now();
    record->revision = result.revision;
    atomic_store(&d->step_count, at + 1);
  }
  return NULL;
}

static void nap(double seconds) {
  struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  nanosleep(&t, NULL);
}

/* The end of the first step at `revision` or later, from step `from` on; 0 when decoding ended. */
static double wait_visible(decoder *d, uint64_t revision, size_t from) {
  for (size_t i = from;;) {
    size_t have = atomic_load(&d->step_count);
    for (; i < have; i++) {
      if (d->steps[i].revision >= revision) return d->steps[i].end;
    }
    if (atomic_load(&d->stop) || d->status != LQT_OK || have == MAX_STEPS) return 0;
    nap(20e-6);
  }
}

/* ---- Edits ---- */

typedef struct edit_case {
  const char *name;
  lqt_engine_change *changes;
  size_t count;
  uint64_t bytes; /* of the new values */
} edit_case;

enum { CASES = 4 };

typedef struct samples {
  double *values;
  size_t count, capacity;
} samples;

static void add_sample(samples *s, double value) {
  if (s->count == s->capacity) {
    size_t capacity = s->capacity * 2 + 256;
    double *grown = realloc(s->values, capacity * sizeof *grown);
    if (grown == NULL) return; /* a sample less */
    s->values = grown;
    s->capacity = capacity;
  }
  s->values[s->count++] = value;
}

static int compare_numbers(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y ? 1 : 0;
}

/* The value that a share of the samples does not exceed; NAN of none. */
static double quantile(samples *s, double share) {
  if (s->count == 0) return (double)NAN;
  qsort(s->values, s->count, sizeof *s->values, compare_numbers);
  size_t at = (size_t)(share * (double)s->count);
  return s->values[at < s->count ? at : s->count - 1];
}

static double mean(const samples *s) {
  double sum = 0;
  for (size_t i = 0; i < s->count; i++) sum += s->values[i];
  return s->count != 0 ? sum / (double)s->count : (double)NAN;
}

typedef struct case_result {
  const edit_case *edit;
  samples stage, flip, wait, visible, undo; /* seconds */
  uint64_t device_bytes;
} case_result;

typedef struct batch_result {
  uint64_t sequences;
  samples quiet, streaming; /* inter-token seconds */
  uint64_t streamed;        /* bytes */
  double stream_seconds;
  case_result cases[CASES];
} batch_result;

/* Bytes of one part of a weight, copied to memory that the device reads fast. */
typedef struct arena {
  uint8_t *memory;
  uint64_t used, size;
} arena;

static void add_change(edit_case *c, arena *a, uint32_t tensor, lqt_weight_part part,
                       const void *from, uint64_t first, uint64_t count, uint64_t size) {
  uint64_t bytes = count * size;
  if (count == 0 || from == NULL || bytes > a->size - a->used) return;
  uint8_t *to = a->memory + a->used;
  memcpy(to, (const uint8_t *)from + first * size, bytes);
  a->used += (bytes + 63) & ~UINT64_C(63);
  c->changes[c->count++] = (lqt_engine_change){tensor, part, first, count, to, to};
  c->bytes += bytes;
}

/* Everything of one tensor, up to `most` bytes. */
static void add_tensor(edit_case *c, arena *a, uint32_t tensor, const lqt_weight_desc *d,
                       uint64_t most) {
  if (d->dtype != LQT_DTYPE_CODEBOOK) {
    uint64_t size = lqt_dtype_size(d->dtype),
             count = (d->rows - 1) * (d->row_stride / size) + d->cols;
    add_change(c, a, tensor, LQT_PART_PLAIN, d->data, 0, count * size < most ? count : most / size,
               size);
    return;
  }
  uint64_t bytes = d->rows * d->indices.row_stride;
  add_change(c, a, tensor, LQT_PART_INDICES, d->indices.data, 0, bytes < most ? bytes : most, 1);
  if (bytes >= most) return;
  if (d->group_scales != NULL) {
    uint64_t groups = (d->cols + d->group_size - 1) / d->group_size;
    add_change(c, a, tensor, LQT_PART_GROUP_SCALES, d->group_scales, 0,
               (d->rows - 1) * d->group_row_stride + groups, 2);
  }
  uint64_t values = (d->codebook.banks - 1) * d->codebook.bank_stride +
                    (uint64_t)d->codebook.entries * d->codebook.vector_dim;
  add_change(c, a, tensor, LQT_PART_CODEBOOK, d->codebook.vectors, 0, values,
             lqt_dtype_size(d->codebook.dtype));
}

/* 1 MB of delta values where there are some, of group scales otherwise. */
static bool add_values(edit_case *c, arena *a, uint32_t tensor, const lqt_weight_desc *d,
                       uint64_t bytes) {
  uint64_t size = d->delta.kind != LQT_DELTA_NONE ? lqt_dtype_size(d->delta.dtype) : 2;
  uint64_t have = d->delta.kind == LQT_DELTA_CSR ? d->delta.count : 0;
  if (have >= bytes / size) {
    c->name = "1 MB of delta values";
    add_change(c, a, tensor, LQT_PART_DELTA_VALUES, d->delta.values, 0, bytes / size, size);
    return true;
  }
  if (d->group_scales == NULL || d->rows * d->group_row_stride * 2 < bytes) return false;
  c->name = "1 MB of group scales";
  add_change(c, a, tensor, LQT_PART_GROUP_SCALES, d->group_scales, 0, bytes / 2, 2);
  return true;
}

static bool matrix(const lqt_model *model, size_t i, lqt_weight_desc *desc) {
  lqt_tensor_info info;
  lqt_diag diag = {0};
  return lqt_model_tensor(model, i, &info) == LQT_OK && info.ndim == 2 &&
         lqt_model_weight(model, i, desc, &diag) == LQT_OK;
}

static lqt_status make_cases(const lqt_model *model, arena *a, edit_case cases[CASES],
                             lqt_diag *diag) {
  size_t tensors = lqt_model_tensor_count(model);
  static const char *const names[CASES] = {"a codebook entry", "1 MB of indices", "100 MB",
                                           "all weights"};
  for (int i = 0; i < CASES; i++) {
    cases[i] =
        (edit_case){.name = names[i], .changes = calloc(3 * tensors + 1, sizeof *cases->changes)};
    if (cases[i].changes == NULL) return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
  }
  bool values = false;
  for (size_t i = 0; i < tensors; i++) {
    lqt_weight_desc d;
    if (!matrix(model, i, &d)) continue;
    if (cases[0].count == 0 && d.dtype == LQT_DTYPE_CODEBOOK) {
      add_change(&cases[0], a, (uint32_t)i, LQT_PART_CODEBOOK, d.codebook.vectors,
                 d.codebook.vector_dim, d.codebook.vector_dim, lqt_dtype_size(d.codebook.dtype));
    }
    if (!values) values = add_values(&cases[1], a, (uint32_t)i, &d, 1000000);
    if (cases[2].bytes < 100000000) {
      add_tensor(&cases[2], a, (uint32_t)i, &d, 100000000 - cases[2].bytes);
    }
    add_tensor(&cases[3], a, (uint32_t)i, &d, UINT64_MAX);
  }
  for (size_t i = 0; i < tensors && cases[1].count == 0; i++) {
    lqt_weight_desc d;
    if (matrix(model, i, &d)) add_tensor(&cases[1], a, (uint32_t)i, &d, 1000000);
  }
  return LQT_OK;
}

/* ---- Measuring ---- */

static lqt_status edit_once(lqt_engine *engine, decoder *d, const edit_case *edit, case_result *out,
                            lqt_diag *diag) {
  lqt_engine_staged *staged = NULL;
  lqt_flip_result flip;
  size_t from = atomic_load(&d->step_count);
  double begin = tool_now();
  lqt_status status = lqt_engine_stage(engine, edit->changes, edit->count, &staged, diag);
  if (status != LQT_OK) return status;
  status = lqt_engine_staged_wait(staged, diag);
  double arrived = tool_now();
  out->device_bytes = lqt_engine_staged_bytes(staged);
  if (status == LQT_OK) {
    status = lqt_engine_flip(engine, staged, &flip, diag);
  } else {
    lqt_engine_staged_destroy(staged);
  }
  if (status != LQT_OK) return status;
  double seen = wait_visible(d, flip.revision, from);
  add_sample(&out->stage, arrived - begin);
  add_sample(&out->wait, flip.waited);
  add_sample(&out->flip, flip.seconds);
  if (seen != 0) add_sample(&out->visible, seen - begin);
  status = lqt_engine_undo(engine, &flip, diag);
  if (status != LQT_OK) return status;
  add_sample(&out->undo, flip.seconds);
  (void)wait_visible(d, flip.revision, from);
  return LQT_OK;
}

static void take_steps(const decoder *d, double begin, double end, samples *out) {
  size_t count = atomic_load(&d->step_count);
  for (size_t i = 1; i < count; i++) {
    if (d->steps[i - 1].end >= begin && d->steps[i].end <= end) {
      add_sample(out, d->steps[i].end - d->steps[i - 1].end);
    }
  }
}

/* Decodes without edits, then while all weights are sent again and again. */
static lqt_status stream(lqt_engine *engine, decoder *d, const edit_case *edit, double seconds,
                         batch_result *out, lqt_diag *diag) {
  double begin = tool_now();
  nap(seconds);
  take_steps(d, begin, tool_now(), &out->quiet);
  begin = tool_now();
  double now = begin;
  while (now < begin + seconds && !tool_cancelled()) {
    lqt_engine_staged *staged = NULL;
    lqt_status status = lqt_engine_stage(engine, edit->changes, edit->count, &staged, diag);
    if (status == LQT_OK) status = lqt_engine_staged_wait(staged, diag);
    lqt_engine_staged_destroy(staged);
    if (status != LQT_OK) return status;
    out->streamed += edit->bytes;
    now = tool_now();
  }
  out->stream_seconds = now - begin;
  take_steps(d, begin, now, &out->streaming);
  begin = tool_now();
  nap(seconds / 2);
  take_steps(d, begin, tool_now(), &out->quiet);
  return LQT_OK;
}

static lqt_status measure_running(const bench_args *args, lqt_engine *engine, decoder *d,
                                  const edit_case *cases, batch_result *out, lqt_diag *diag) {
  nap(0.2); /* warm */
  lqt_status status = LQT_OK;
  for (int i = 0; i < CASES && status == LQT_OK; i++) {
    case_result *result = &out->cases[i];
    result->edit = &cases[i];
    if (cases[i].count == 0) continue;
    uint64_t repeat = i == CASES - 1 && args->repeat > 8 ? 8 : args->repeat;
    for (uint64_t r = 0; r < repeat && status == LQT_OK; r++) {
      if (tool_cancelled()) return tool_diag(diag, LQT_CANCELLED, NULL, "interrupted");
      status = edit_once(engine, d, &cases[i], result, diag);
    }
  }
  if (status == LQT_OK) {
    status = stream(engine, d, &cases[CASES - 1], (double)args->seconds, out, diag);
  }
  return status;
}

static lqt_status measure(const bench_args *args, lqt_engine *engine, const edit_case *cases,
                          uint64_t batch, batch_result *out, lqt_diag *diag) {
  out->sequences = batch;
  decoder d = {.count = batch, .context = args->context};
  d.steps = calloc(MAX_STEPS, sizeof *d.steps);
  if (d.steps == NULL) return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory");
  lqt_session_options wanted = {.size = sizeof wanted,
                                .max_sequences = (uint32_t)batch,
                                .max_tokens = (uint32_t)((args->context + ROOM + 1) * batch)};
  lqt_status status = lqt_session_create(engine, &wanted, &d.session, diag);
  for (size_t i = 0; i < batch && status == LQT_OK; i++) {
    status = lqt_session_sequence_add(d.session, &d.sequences[i], diag);
  }
  if (status == LQT_OK) status = prefill(&d, diag);
  pthread_t thread;
  if (status == LQT_OK && pthread_create(&thread, NULL, decode, &d) != 0) {
    status = tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no thread");
  } else if (status == LQT_OK) {
    status = measure_running(args, engine, &d, cases, out, diag);
    atomic_store(&d.stop, true);
    pthread_join(thread, NULL);
    if (status == LQT_OK && d.status != LQT_OK) {
      status = d.status;
      *diag = d.diag;
    }
  }
  lqt_session_destroy(d.session);
  free(d.steps);
  return status;
}

/* ---- Results ---- */

static void print_batch(batch_result *b) {
  double quiet = mean(&b->quiet), busy = mean(&b->streaming);
  char rate[32];
  printf("%llu sequences: %.1f tokens/s; inter-token p50 %.3f ms, p99 %.3f ms\n",
         (unsigned long long)b->sequences, (double)b->sequences / quiet,
         1e3 * quantile(&b->quiet, 0.5), 1e3 * quantile(&b->quiet, 0.99));
  printf(
      "while weights stream in at %s/s: %.1f tokens/s (%+.1f %%); p50 %.3f ms, p99 %.3f ms "
      "(%+.1f %%)\n",
      tool_size_text((uint64_t)((double)b->streamed / b->stream_seconds), rate),
      (double)b->sequences / busy, 100 * (quiet / busy - 1), 1e3 * quantile(&b->streaming, 0.5),
      1e3 * quantile(&b->streaming, 0.99),
      100 * (quantile(&b->streaming, 0.99) / quantile(&b->quiet, 0.99) - 1));
  printf("  %-22s %10s %10s %10s %10s %10s %10s %12s\n", "edit", "bytes", "staged ms", "flip us",
         "max", "visible ms", "undo us", "device bytes");
  for (int i = 0; i < CASES; i++) {
    case_result *c = &b->cases[i];
    if (c->flip.count == 0) continue;
    char bytes[32], device[32];
    printf("  %-22s %10s %10.3f %10.1f %10.1f %10.3f %10.1f %12s\n", c->edit->name,
           tool_size_text(c->edit->bytes, bytes), 1e3 * quantile(&c->stage, 0.5),
           1e6 * quantile(&c->flip, 0.5), 1e6 * quantile(&c->flip, 1),
           1e3 * quantile(&c->visible, 0.5), 1e6 * quantile(&c->undo, 0.5),
           tool_size_text(c->device_bytes, device));
  }
}

static json_t *spread(samples *s) {
  return json_pack("{s:o, s:o, s:o, s:I}", "p50", tool_json_real(quantile(s, 0.5)), "p99",
                   tool_json_real(quantile(s, 0.99)), "max", tool_json_real(quantile(s, 1)),
                   "count", (json_int_t)s->count);
}

static json_t *batch_json(batch_result *b) {
  json_t *edits = json_array();
  for (int i = 0; i < CASES; i++) {
    case_result *c = &b->cases[i];
    if (c->flip.count == 0) continue;
    json_array_append_new(
        edits, json_pack("{s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "edit", c->edit->name, "bytes",
                         (json_int_t)c->edit->bytes, "device_bytes", (json_int_t)c->device_bytes,
                         "stage_seconds", spread(&c->stage), "wait_seconds", spread(&c->wait),
                         "flip_seconds", spread(&c->flip), "visible_seconds", spread(&c->visible),
                         "undo_seconds", spread(&c->undo)));
  }
  return json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "sequences", (json_int_t)b->sequences,
                   "quiet_inter_token_seconds", spread(&b->quiet), "quiet_mean_seconds",
                   tool_json_real(mean(&b->quiet)), "streaming_inter_token_seconds",
                   spread(&b->streaming), "streaming_mean_seconds",
                   tool_json_real(mean(&b->streaming)), "streaming_bytes_per_second",
                   tool_json_real((double)b->streamed / b->stream_seconds), "edits", edits);
}

static void free_results(batch_result *results, size_t count) {
  for (size_t i = 0; i < count; i++) {
    free(results[i].quiet.values);
    free(results[i].streaming.values);
    for (int k = 0; k < CASES; k++) {
      case_result *c = &results[i].cases[k];
      free(c->stage.values);
      free(c->flip.values);
      free(c->wait.values);
      free(c->visible.values);
      free(c->undo.values);
    }
  }
}

static lqt_status measure_all(const bench_args *args, tool_engine *engine, edit_case *cases,
                              batch_result *results, lqt_diag *diag) {
  arena a = {.size = lqt_engine_weight_bytes(engine->engine) * 2 + (128u << 20)};
  a.memory = lqt_host_alloc(engine->device, a.size);
  lqt_status status = a.memory != NULL
                          ? make_cases(engine->model, &a, cases, diag)
                          : tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory for new weights");
  lqt_engine_set_undo(engine->engine, 1, UINT64_MAX);
  for (size_t i = 0; i < args->batch_count && status == LQT_OK; i++) {
    status = measure(args, engine->engine, cases, args->batches[i], &results[i], diag);
  }
  lqt_engine_set_undo(engine->engine, 0, 0);
  lqt_host_free(engine->device, a.memory);
  return status;
}

static int report(const bench_args *args, const char *command, const lqt_device_info *info,
                  batch_result *results) {
  if (!args->json) {
    printf("%s on %s (%s), context %llu\n", args->path, info->selector, info->name,
           (unsigned long long)args->context);
    for (size_t i = 0; i < args->batch_count; i++) print_batch(&results[i]);
    return TOOL_DONE;
  }
  json_t *batches = json_array();
  for (size_t i = 0; i < args->batch_count; i++) {
    json_array_append_new(batches, batch_json(&results[i]));
  }
  return tool_print_json(
      command, json_pack("{s:o, s:s, s:o, s:I, s:o}", "model",
                         tool_json_text(args->path, strlen(args->path)), "device", info->selector,
                         "name", tool_json_text(info->name, strlen(info->name)), "context",
                         (json_int_t)args->context, "batches", batches));
}

static int run(int argc, char **argv) {
  bench_args args = {
      .context = 512, .seconds = 2, .repeat = 20, .batches = {1, 32}, .batch_count = 2};
  tool_device_defaults(&args.device);
  tool_parse(&argp, argc, argv, &args);
  tool_catch_signals();
  static batch_result results[MAX_BATCHES];
  edit_case cases[CASES] = {0};
  lqt_diag diag = {0};
  tool_engine engine;
  lqt_status status = tool_engine_open(args.path, &args.device, &engine, &diag);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  status = measure_all(&args, &engine, cases, results, &diag);
  lqt_device_info info;
  lqt_device_get_info(engine.device, &info);
  int code =
      status == LQT_OK ? report(&args, argv[0], &info, results) : tool_fail(argv[0], status, &diag);
  tool_engine_close(&engine);
  for (int i = 0; i < CASES; i++) free(cases[i].changes);
  free_results(results, args.batch_count);
  return code;
}

const tool_command tool_bench_mutate = {"bench mutate", "What edits cost a running model", &argp,
                                        run};
