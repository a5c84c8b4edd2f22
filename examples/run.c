/* Writes text with a model: run MODEL.lqt "PROMPT" [TOKENS].
 *
 * The whole way: model, device, engine, session, tokenizer, sampler, and one step after another. */
#include <lqt/lqt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROMPT = 2048 };

/* Everything that is open, so that one place closes it. */
typedef struct app {
  lqt_model *model;
  lqt_device *device;
  lqt_engine *engine;
  lqt_session *session;
  lqt_tokenizer *tokenizer;
  lqt_sampler *sampler;
} app;

static lqt_status open_app(app *a, const char *path, lqt_diag *diag) {
  lqt_sampler_options sampling = {.size = sizeof sampling,
                                  .temperature = 0.7f,
                                  .top_p = 0.9f,
                                  .repetition_penalty = 1.1f,
                                  .seed = 1};
  lqt_status status = lqt_model_open(path, NULL, &a->model, diag);
  if (status == LQT_OK) status = lqt_device_open("cpu", NULL, &a->device, diag);
  if (status == LQT_OK) status = lqt_engine_create(a->model, a->device, &a->engine, diag);
  if (status == LQT_OK) status = lqt_session_create(a->engine, NULL, &a->session, diag);
  if (status == LQT_OK) status = lqt_tokenizer_from_model(a->model, &a->tokenizer, diag);
  if (status == LQT_OK) status = lqt_sampler_create(&sampling, &a->sampler, diag);
  return status;
}

static void close_app(app *a) {
  lqt_sampler_destroy(a->sampler);
  lqt_tokenizer_destroy(a->tokenizer);
  lqt_session_destroy(a->session);
  lqt_engine_destroy(a->engine);
  lqt_device_release(a->device);
  lqt_model_release(a->model);
}

/* Token ids of the prompt behind the begin-of-text id; 0 when there are too many. */
static size_t encode_prompt(const app *a, const char *prompt, int32_t ids[MAX_PROMPT],
                            lqt_diag *diag) {
  size_t count = 0, encoded;
  if (lqt_tokenizer_bos(a->tokenizer) >= 0) ids[count++] = lqt_tokenizer_bos(a->tokenizer);
  lqt_status status = lqt_tokenizer_encode(a->tokenizer, prompt, strlen(prompt), false, ids + count,
                                           MAX_PROMPT - count, &encoded, diag);
  return status == LQT_OK && encoded <= MAX_PROMPT - count ? count + encoded : 0;
}

static lqt_status generate(app *a, const int32_t *ids, size_t count, long tokens, lqt_diag *diag) {
  uint32_t sequence;
  lqt_status status = lqt_session_sequence_add(a->session, &sequence, diag);
  int32_t next;
  for (long i = 0; i < tokens && status == LQT_OK; i++) {
    /* The prompt first, then one token a step. */
    lqt_step_input input = {sequence, LQT_LOGITS_LAST, ids, count};
    status = lqt_session_step(a->session, &input, 1, NULL, diag);
    if (status != LQT_OK) break;
    status = lqt_sampler_sample(a->sampler, lqt_session_logits(a->session, 0, 0),
                                lqt_engine_vocab_size(a->engine), &next, diag);
    if (status != LQT_OK || next == lqt_tokenizer_eos(a->tokenizer)) break;
    const char *text;
    size_t bytes;
    if (lqt_tokenizer_token(a->tokenizer, next, &text, &bytes, NULL) == LQT_OK) {
      fwrite(text, 1, bytes, stdout);
      fflush(stdout);
    }
    ids = &next;
    count = 1;
  }
  return status;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s MODEL.lqt PROMPT [TOKENS]\n", argv[0]);
    return 2;
  }
  app a = {0};
  lqt_diag diag = {0};
  int32_t ids[MAX_PROMPT];
  lqt_status status = open_app(&a, argv[1], &diag);
  if (status == LQT_OK) {
    size_t count = encode_prompt(&a, argv[2], ids, &diag);
    if (count == 0) {
      fprintf(stderr, "the prompt is empty or longer than %d tokens\n", MAX_PROMPT);
      close_app(&a);
      return 2;
    }
    for (size_t i = 0; i < count; i++) lqt_sampler_accept(a.sampler, ids[i]);
    printf("%s", argv[2]);
    status = generate(&a, ids, count, argc > 3 ? strtol(argv[3], NULL, 10) : 64, &diag);
    printf("\n");
  }
  close_app(&a);
  if (status != LQT_OK) {
    fprintf(stderr, "%s: %s: %s\n", diag.where, lqt_status_text(status), diag.what);
    return 1;
  }
  return 0;
}
