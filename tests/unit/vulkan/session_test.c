#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../exec/fixture.h"
#include "support.h"
#include "support/data.h"

/* One-shot logits of a small model against its float64 forward pass. */
static void check_forward(const tiny_spec *spec, const char *what) {
  enum { COUNT = 37 };
  fixture f;
  fixture_open(&f, spec, vulkan_selector());
  int32_t tokens[COUNT];
  fixture_tokens(&f, 9, tokens, COUNT);
  double *wanted = malloc(COUNT * spec->vocab * sizeof *wanted);
  tiny_forward(&f.tiny, tokens, COUNT, wanted);
  lqt_session *session = fixture_session(&f, 1, 0, 0);
  uint32_t sequence = fixture_sequence(session);
  fixture_step(session, sequence, tokens, COUNT, LQT_LOGITS_ALL);
  for (size_t r = 0; r < COUNT; r++) {
    double error =
        fixture_error(lqt_session_logits(session, 0, r), wanted + r * spec->vocab, spec->vocab);
    cr_assert_lt(error, 2e-5, "%s: row %zu: relative error %.3g", what, r, error);
  }
  lqt_session_destroy(session);
  free(wanted);
  fixture_close(&f);
}

Test(session, forward_equals_the_reference) {
  vulkan_close(vulkan_open());
  tiny_spec spec = tiny_default();
  check_forward(&spec, "llama");
  spec.tied = false;
  spec.quantized = true;
  spec.window = 7;
  check_forward(&spec, "quantized, window");
  spec = tiny_default();
  spec.gpt2 = true;
  check_forward(&spec, "gpt2");
}

/* A model on one device, stepping through one sequence. */
typedef struct stepper {
  lqt_device *device;
  lqt_engine *engine;
  lqt_session *session;
  uint32_t sequence;
} stepper;

static void stepper_open(stepper *s, lqt_model *model, const char *selector) {
  lqt_diag diag = {0};
  cr_assert_eq(lqt_device_open(selector, NULL, &s->device, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_engine_create(model, s->device, &s->engine, &diag), LQT_OK, "%s", diag.what);
  lqt_session_options options = {.size = sizeof options, .max_tokens = 256};
  cr_assert_eq(lqt_session_create(s->engine, &options, &s->session, &diag), LQT_OK);
  cr_assert_eq(lqt_session_sequence_add(s->session, &s->sequence, &diag), LQT_OK);
}

static const float *stepper_step(stepper *s, const int32_t *tokens, size_t count) {
  lqt_step_input input = {
      .sequence = s->sequence, .want = LQT_LOGITS_LAST, .tokens = tokens, .count = count};
  lqt_diag diag = {0};
  cr_assert_eq(lqt_session_step(s->session, &input, 1, NULL, &diag), LQT_OK, "%s", diag.what);
  return lqt_session_logits(s->session, 0, 0);
}

static void stepper_close(stepper *s) {
  lqt_session_destroy(s->session);
  lqt_engine_destroy(s->engine);
  lqt_device_release(s->device);
}

/* Highest logit and its lead over the second. */
static int32_t top(const float *logits, uint32_t vocab, float *out_gap) {
  uint32_t best = 0;
  float second = -INFINITY;
  for (uint32_t i = 1; i < vocab; i++) {
    if (logits[i] > logits[best]) {
      second = logits[best];
      best = i;
    } else if (logits[i] > second) {
      second = logits[i];
    }
  }
  *out_gap = logits[best] - second;
  return (int32_t)best;
}

/* The embedded model writes on Vulkan what it writes on the CPU, until two tokens are as good as
 * equal. */
Test(session, greedy_text_equals_the_cpus) {
  char path[512];
  vulkan_close(vulkan_open());
  if (!test_source_path("models/classic-11m-q4.lqt", path, sizeof path)) {
    cr_skip_test("%s is not there", path);
  }
  lqt_model *model = NULL;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_model_open(path, NULL, &model, &diag), LQT_OK, "%s", diag.what);
  stepper cpu, vulkan;
  stepper_open(&cpu, model, "cpu");
  stepper_open(&vulkan, model, vulkan_selector());
  uint32_t vocab = lqt_engine_vocab_size(cpu.engine), compared = 0;
  static const int32_t prompt[] = {464, 1, 40, 257, 30, 12, 99, 7, 13, 311, 5, 20, 88};
  const size_t length = sizeof prompt / sizeof *prompt;
  const float *a = stepper_step(&cpu, prompt, length);
  const float *b = stepper_step(&vulkan, prompt, length);
  for (int i = 0; i < 60; i++) {
    float gap, other;
    int32_t token = top(a, vocab, &gap);
    if (gap < 0.05f) break;
    cr_assert_eq(top(b, vocab, &other), token, "token %d, gap %.3f", i, gap);
    compared++;
    a = stepper_step(&cpu, &token, 1);
    b = stepper_step(&vulkan, &token, 1);
  }
  cr_assert_gt(compared, 0, "the first token is a tie: choose another prompt");
  stepper_close(&cpu);
  stepper_close(&vulkan);
  lqt_model_release(model);
}
