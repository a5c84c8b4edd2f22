/* Edits a model while it runs: edit MODEL.lqt [OUT.lqt].
 *
 * Takes the first codebook that may be edited, changes one entry, and shows how the most likely
 * next tokens change and change back. With OUT.lqt the edited model is saved. */
#include <lqt/lqt.h>
#include <stdio.h>
#include <string.h>

static const char *const prompt = "Once upon a time";

typedef struct app {
  lqt_model *model;
  lqt_device *device;
  lqt_engine *engine;
  lqt_session *session;
  lqt_tokenizer *tokenizer;
  lqt_editor *editor;
} app;

static lqt_status open_app(app *a, const char *path, lqt_diag *diag) {
  lqt_status status = lqt_model_open(path, NULL, &a->model, diag);
  if (status == LQT_OK) status = lqt_device_open("cpu", NULL, &a->device, diag);
  if (status == LQT_OK) status = lqt_engine_create(a->model, a->device, &a->engine, diag);
  if (status == LQT_OK) status = lqt_session_create(a->engine, NULL, &a->session, diag);
  if (status == LQT_OK) status = lqt_tokenizer_from_model(a->model, &a->tokenizer, diag);
  if (status == LQT_OK) status = lqt_editor_create(a->model, &a->editor, diag);
  if (status == LQT_OK) status = lqt_editor_attach(a->editor, a->engine, diag);
  return status;
}

static void close_app(app *a) {
  lqt_editor_destroy(a->editor); /* before the engines that are attached to it */
  lqt_tokenizer_destroy(a->tokenizer);
  lqt_session_destroy(a->session);
  lqt_engine_destroy(a->engine);
  lqt_device_release(a->device);
  lqt_model_release(a->model);
}

/* Prints the likeliest continuation of the prompt at the current revision. */
static lqt_status show(app *a, lqt_diag *diag) {
  int32_t ids[64];
  size_t count;
  uint32_t sequence;
  lqt_step_result result = {0};
  lqt_status status =
      lqt_tokenizer_encode(a->tokenizer, prompt, strlen(prompt), false, ids, 64, &count, diag);
  if (status != LQT_OK) return status;
  status = lqt_session_sequence_add(a->session, &sequence, diag);
  printf("%s", prompt);
  for (int i = 0; i < 12 && status == LQT_OK; i++) {
    lqt_step_input input = {sequence, LQT_LOGITS_LAST, ids, count};
    status = lqt_session_step(a->session, &input, 1, &result, diag);
    if (status != LQT_OK) break;
    const float *logits = lqt_session_logits(a->session, 0, 0);
    ids[0] = 0;
    for (uint32_t t = 1; t < lqt_engine_vocab_size(a->engine); t++) {
      if (logits[t] > logits[ids[0]]) ids[0] = (int32_t)t;
    }
    count = 1;
    const char *text;
    size_t bytes;
    if (lqt_tokenizer_token(a->tokenizer, ids[0], &text, &bytes, NULL) == LQT_OK) {
      fwrite(text, 1, bytes, stdout);
    }
  }
  printf("   [revision %llu]\n", (unsigned long long)result.revision);
  if (status != LQT_OK) return status;
  return lqt_session_sequence_remove(a->session, sequence, diag);
}

/* Replaces vector 0 of the first codebook that takes it. */
static lqt_status change_something(app *a, lqt_diag *diag) {
  lqt_status status = LQT_NOT_FOUND;
  for (size_t i = 0; i < lqt_model_codebook_count(a->model) && status != LQT_OK; i++) {
    lqt_codebook_info info;
    float values[8];
    uint64_t revision;
    status = lqt_model_codebook(a->model, i, &info);
    if (status != LQT_OK || info.vector_dim > 8 || info.users == 0) continue;
    status = lqt_editor_codebook_entry(a->editor, info.id, 0, values, info.vector_dim, diag);
    for (uint32_t k = 0; k < info.vector_dim; k++) values[k] = -4 * values[k];
    if (status == LQT_OK) {
      status =
          lqt_edit_codebook_entry(a->editor, info.id, 0, values, info.vector_dim, &revision, diag);
    }
    if (status == LQT_OK) printf("-- codebook %u, vector 0 times -4\n", info.id);
  }
  return status;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s MODEL.lqt [OUT.lqt]\n", argv[0]);
    return 2;
  }
  app a = {0};
  lqt_diag diag = {0};
  lqt_status status = open_app(&a, argv[1], &diag);
  if (status == LQT_OK) status = show(&a, &diag);
  if (status == LQT_OK) status = change_something(&a, &diag);
  if (status == LQT_OK) status = show(&a, &diag);
  if (status == LQT_OK && argc > 2) status = lqt_editor_save(a.editor, argv[2], &diag);
  if (status == LQT_OK) status = lqt_edit_undo(a.editor, NULL, &diag);
  if (status == LQT_OK) printf("-- taken back\n");
  if (status == LQT_OK) status = show(&a, &diag);
  close_app(&a);
  if (status != LQT_OK) {
    fprintf(stderr, "%s: %s: %s\n", diag.where, lqt_status_text(status), diag.what);
    return 1;
  }
  return 0;
}
