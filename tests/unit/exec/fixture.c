#include "fixture.h"

#include <criterion/criterion.h>
#include <math.h>

#include "base/random.h"

void fixture_open(fixture *f, const tiny_spec *spec, const char *device) {
  lqt_diag diag = {0};
  const char *path = tiny_path("model.lqt");
  tiny_create(spec, path, &f->tiny);
  cr_assert_eq(lqt_model_open(path, NULL, &f->model, &diag), LQT_OK, "%s", diag.what);
  lqt_device_options options = {.size = sizeof options, .exact = true};
  cr_assert_eq(lqt_device_open(device, &options, &f->device, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_engine_create(f->model, f->device, &f->engine, &diag), LQT_OK, "%s: %s",
               diag.where, diag.what);
}

void fixture_close(fixture *f) {
  lqt_engine_destroy(f->engine);
  lqt_device_release(f->device);
  lqt_model_release(f->model);
  tiny_free(&f->tiny);
}

lqt_session *fixture_session(const fixture *f, uint32_t sequences, uint32_t max_tokens,
                             uint32_t max_batch) {
  lqt_session_options options = {.size = sizeof options,
                                 .max_sequences = sequences,
                                 .max_tokens = max_tokens,
                                 .max_batch = max_batch,
                                 .kv_dtype = LQT_DTYPE_F32,
                                 .kv_dtype_set = true};
  lqt_session *session;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_session_create(f->engine, &options, &session, &diag), LQT_OK, "%s", diag.what);
  return session;
}

uint32_t fixture_sequence(lqt_session *session) {
  uint32_t sequence;
  cr_assert_eq(lqt_session_sequence_add(session, &sequence, NULL), LQT_OK);
  return sequence;
}

void fixture_step(lqt_session *session, uint32_t sequence, const int32_t *tokens, size_t count,
                  lqt_logits_want want) {
  lqt_step_input input = {sequence, want, tokens, count};
  lqt_diag diag = {0};
  cr_assert_eq(lqt_session_step(session, &input, 1, NULL, &diag), LQT_OK, "%s", diag.what);
}

void fixture_tokens(const fixture *f, uint64_t seed, int32_t *out, size_t count) {
  lqt__random random = lqt__random_seed(seed);
  for (size_t i = 0; i < count; i++) {
    out[i] = (int32_t)lqt__random_below(&random, f->tiny.spec.vocab);
  }
}

double fixture_error(const float *got, const double *wanted, size_t count) {
  double difference = 0, square = 0;
  for (size_t i = 0; i < count; i++) {
    difference += (got[i] - wanted[i]) * (got[i] - wanted[i]);
    square += wanted[i] * wanted[i];
  }
  return sqrt(difference / square);
}
