#include "edit/trial.h"

#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "lqt/tokenizer.h"

static const char *const where = "trial";

typedef struct tokens {
  const int32_t *ids;
  int32_t *made; /* from a text */
  size_t count;
} tokens;

static lqt_status encode(const lqt_model *model, const char *text, tokens *out, lqt_diag *diag) {
  lqt_tokenizer *tokenizer;
  LQT__TRY(lqt_tokenizer_from_model(model, &tokenizer, diag));
  size_t bytes = strlen(text);
  lqt_status status =
      lqt_tokenizer_encode(tokenizer, text, bytes, false, NULL, 0, &out->count, diag);
  if (status == LQT_OK) {
    out->made = lqt__alloc_array(out->count, sizeof *out->made);
    if (out->made == NULL) status = lqt__fail_memory(diag, where, out->count * 4, "tokens");
  }
  if (status == LQT_OK) {
    status = lqt_tokenizer_encode(tokenizer, text, bytes, false, out->made, out->count, &out->count,
                                  diag);
  }
  lqt_tokenizer_destroy(tokenizer);
  out->ids = out->made;
  return status;
}

/* Nats of token `next` by a row of logits; NaN when a logit is not finite. */
static double loss_of(const float *logits, uint32_t vocab, int32_t next) {
  double most = -INFINITY, sum = 0;
  for (uint32_t i = 0; i < vocab; i++) {
    if (!isfinite(logits[i])) return NAN;
    if ((double)logits[i] > most) most = (double)logits[i];
  }
  for (uint32_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - most);
  return log(sum) + most - (double)logits[next];
}

static lqt_status run(lqt_engine *engine, const tokens *text, double limit, lqt_diag *diag) {
  lqt_session_options options = {.size = sizeof options, .max_tokens = (uint32_t)text->count};
  lqt_session *session;
  uint32_t sequence;
  LQT__TRY(lqt_session_create(engine, &options, &session, diag));
  lqt_status status = lqt_session_sequence_add(session, &sequence, diag);
  lqt_step_input input = {sequence, LQT_LOGITS_ALL, text->ids, text->count};
  if (status == LQT_OK) status = lqt_session_step(session, &input, 1, NULL, diag);
  double sum = 0;
  for (size_t i = 0; i < text->count && status == LQT_OK; i++) {
    bool last = i + 1 == text->count;
    if (!last && (uint32_t)text->ids[i + 1] >= lqt_engine_vocab_size(engine)) {
      status =
          lqt__fail(diag, LQT_OUT_OF_RANGE, where, "token %zu of the trial has no logit", i + 1);
      break;
    }
    double loss = loss_of(lqt_session_logits(session, 0, i), lqt_engine_vocab_size(engine),
                          last ? 0 : text->ids[i + 1]);
    if (isnan(loss)) {
      status = lqt__fail(diag, LQT_NOT_FINITE, where,
                         "a logit after token %zu of the trial is not finite", i);
    }
    if (!last) sum += loss;
  }
  double mean = text->count > 1 ? sum / (double)(text->count - 1) : 0;
  if (status == LQT_OK && limit > 0 && mean > limit) {
    status = lqt__fail(diag, LQT_VALIDATION_FAILED, where,
                       "the trial costs %.4f nats a token; at most %.4f are allowed", mean, limit);
  }
  lqt_session_destroy(session);
  return status;
}

/* On a live engine's device: a form of it with copies of the changed tensors alone. */
static lqt_status run_shadow(lqt_engine *live, lqt_model *model, const lqt__draft *draft,
                             const tokens *text, double limit, lqt_diag *diag) {
  lqt_engine *shadow = lqt__alloc_zero(sizeof *shadow);
  size_t count;
  uint32_t *changed =
      lqt__broadcast_changed(draft->work, draft->changes, draft->change_count, &count);
  lqt_status status = LQT_OK;
  if (shadow == NULL || changed == NULL) {
    status = lqt__fail_memory(diag, where, sizeof *shadow, "a trial");
  } else {
    shadow->model = shadow->current = model;
    shadow->device = live->device;
    shadow->gate = live->gate;
    status = lqt__engine_build(shadow, live, changed, count, diag);
    if (status == LQT_OK) status = run(shadow, text, limit, diag);
    lqt__engine_unbuild(shadow);
  }
  lqt__free(changed);
  lqt__free(shadow);
  return status;
}

static lqt_status run_alone(lqt_model *model, const tokens *text, double limit, lqt_diag *diag) {
  lqt_device *device;
  lqt_engine *engine = NULL;
  LQT__TRY(lqt_device_open("cpu", NULL, &device, diag));
  lqt_status status = lqt_engine_create(model, device, &engine, diag);
  if (status == LQT_OK) status = run(engine, text, limit, diag);
  lqt_engine_destroy(engine);
  lqt_device_release(device);
  return status;
}

lqt_status lqt__trial_run(lqt_editor *editor, lqt__draft *draft, const lqt_commit_options *options,
                          lqt_diag *diag) {
  if (options == NULL || (options->trial_text == NULL && options->trial_token_count == 0)) {
    return LQT_OK;
  }
  tokens text = {.ids = options->trial_tokens, .count = options->trial_token_count};
  lqt_model *model;
  LQT__TRY(lqt__overlay_model(draft->work, &model, diag));
  lqt_status status = LQT_OK;
  if (text.count == 0) status = encode(model, options->trial_text, &text, diag);
  if (status == LQT_OK && text.count == 0) {
    status = lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "the trial has no tokens");
  }
  double limit = options->trial_loss_limit;
  if (status == LQT_OK) {
    status = editor->engine_count != 0
                 ? run_shadow(editor->engines[0], model, draft, &text, limit, diag)
                 : run_alone(model, &text, limit, diag);
  }
  lqt__free(text.made);
  lqt_model_release(model);
  return status;
}
