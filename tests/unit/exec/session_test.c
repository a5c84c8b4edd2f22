#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/random.h"
#include "fixture.h"

enum { VOCAB = 67 };
static const double tolerance = 1e-5; /* float32 against float64, relative l2 of a row */

static void check_rows(const lqt_session *session, size_t rows, const double *wanted,
                       uint32_t vocab, double limit, const char *what) {
  for (size_t r = 0; r < rows; r++) {
    const float *logits = lqt_session_logits(session, 0, r);
    cr_assert_not_null(logits);
    double error = fixture_error(logits, wanted + r * vocab, vocab);
    cr_assert_lt(error, limit, "%s: row %zu: relative error %.3g", what, r, error);
  }
  cr_assert_null(lqt_session_logits(session, 0, rows));
  cr_assert_null(lqt_session_logits(session, 1, 0));
}

/* One-shot against the float64 reference. */
static void check_forward(const tiny_spec *spec, const char *device, const char *what) {
  enum { COUNT = 61 };
  fixture f;
  fixture_open(&f, spec, device);
  int32_t tokens[COUNT];
  fixture_tokens(&f, 9, tokens, COUNT);
  double *wanted = malloc(COUNT * spec->vocab * sizeof *wanted);
  tiny_forward(&f.tiny, tokens, COUNT, wanted);
  lqt_session *session = fixture_session(&f, 1, 0, 0);
  uint32_t sequence = fixture_sequence(session);
  fixture_step(session, sequence, tokens, COUNT, LQT_LOGITS_ALL);
  check_rows(session, COUNT, wanted, spec->vocab, tolerance, what);
  cr_assert_eq(lqt_session_sequence_length(session, sequence), COUNT);
  lqt_session_destroy(session);
  free(wanted);
  fixture_close(&f);
}

static double llama3_frequency(uint32_t i, uint32_t dim) {
  double f = pow(10000, -2.0 * i / dim), wavelength = 2 * M_PI / f;
  if (wavelength < 32 / 4.0) return f;
  if (wavelength > 32 / 1.0) return f / 8;
  double smooth = (32 / wavelength - 1) / (4 - 1);
  return (1 - smooth) * f / 8 + smooth * f;
}

Test(session, forward_equals_the_reference) {
  tiny_spec spec = tiny_default();
  check_forward(&spec, "cpu", "llama");
  check_forward(&spec, "cpu-oracle", "llama on the oracle");
  spec.tied = false;
  check_forward(&spec, "cpu", "own head");
  spec.quantized = true;
  check_forward(&spec, "cpu", "quantized");
  spec.window = 7;
  check_forward(&spec, "cpu", "window");
  spec.window = 0;
  spec.interleaved = true;
  check_forward(&spec, "cpu", "interleaved");
  spec.rotary_dim = 4;
  check_forward(&spec, "cpu", "partial rotation");
  spec.rotary_dim = 0;
  spec.rope =
      "\"type\":\"llama3\",\"theta\":10000,\"factor\":8,\"low_freq_factor\":1,"
      "\"high_freq_factor\":4,\"original_context\":32";
  spec.frequency = llama3_frequency;
  check_forward(&spec, "cpu", "llama3 rope");
  spec.rope =
      "\"type\":\"yarn\",\"theta\":10000,\"factor\":1,\"original_context\":32,"
      "\"attention_factor\":1.25";
  spec.frequency = NULL;
  spec.rope_scale = 1.25;
  check_forward(&spec, "cpu", "rotation scale");
}

/* Another architecture from the same modules: nothing in the executor names one. */
Test(session, gpt2_runs_too) {
  tiny_spec spec = tiny_default();
  spec.gpt2 = true;
  spec.kv_heads = spec.heads;
  check_forward(&spec, "cpu", "gpt2");
  spec.quantized = true;
  check_forward(&spec, "cpu", "gpt2, quantized");
}

Test(session, chunks_and_single_tokens_equal_one_shot) {
  enum { COUNT = 90 };
  tiny_spec spec = tiny_default();
  fixture f;
  fixture_open(&f, &spec, "cpu");
  int32_t tokens[COUNT];
  fixture_tokens(&f, 4, tokens, COUNT);
  static double wanted[COUNT * VOCAB];
  tiny_forward(&f.tiny, tokens, COUNT, wanted);
  /* The session splits the prompt by itself. */
  for (uint32_t batch = 1; batch <= COUNT + 10; batch += batch < 8 ? 1 : 17) {
    lqt_session *session = fixture_session(&f, 1, 0, batch);
    uint32_t sequence = fixture_sequence(session);
    fixture_step(session, sequence, tokens, COUNT, LQT_LOGITS_ALL);
    check_rows(session, COUNT, wanted, VOCAB, tolerance, "split prompt");
    cr_assert_eq(lqt_session_sequence_truncate(session, sequence, 0, NULL), LQT_OK);
    fixture_step(session, sequence, tokens, COUNT, LQT_LOGITS_LAST);
    check_rows(session, 1, wanted + (COUNT - 1) * VOCAB, VOCAB, tolerance,
               "last of a split prompt");
    lqt_session_destroy(session);
  }
  /* Several steps of random lengths, with and without logits. */
  lqt__random random = lqt__random_seed(8);
  for (int round = 0; round < 20; round++) {
    lqt_session *session = fixture_session(&f, 1, 0, 16);
    uint32_t sequence = fixture_sequence(session);
    for (size_t at = 0; at < COUNT;) {
      size_t count = round == 0 ? 1 : 1 + lqt__random_below(&random, 30);
      if (count > COUNT - at) count = COUNT - at;
      lqt_logits_want want = (lqt_logits_want)lqt__random_below(&random, 3);
      fixture_step(session, sequence, tokens + at, count, want);
      size_t rows = want == LQT_LOGITS_ALL ? count : want == LQT_LOGITS_LAST;
      at += count;
      check_rows(session, rows, wanted + (at - rows) * VOCAB, VOCAB, tolerance, "steps");
    }
    lqt_session_destroy(session);
  }
  fixture_close(&f);
}

/* Sequences grow, shrink, leave and join in one session; each must always be as if it were alone.
 */
Test(session, sequences_do_not_see_each_other) {
  enum { SEQUENCES = 5, LENGTH = 96 };
  tiny_spec spec = tiny_default();
  fixture f;
  fixture_open(&f, &spec, "cpu");
  static int32_t tokens[SEQUENCES][LENGTH];
  static double wanted[SEQUENCES][LENGTH * VOCAB];
  /* Fewer positions than sequences x context: pages move between sequences. */
  lqt_session *session = fixture_session(&f, SEQUENCES, 300, 24);
  uint32_t ids[SEQUENCES], lengths[SEQUENCES] = {0};
  uint64_t seed = 100;
  for (int s = 0; s < SEQUENCES; s++) {
    ids[s] = fixture_sequence(session);
    fixture_tokens(&f, seed++, tokens[s], LENGTH);
    tiny_forward(&f.tiny, tokens[s], LENGTH, wanted[s]);
  }
  lqt__random random = lqt__random_seed(77);
  for (int round = 0; round < 300; round++) {
    lqt_step_input inputs[SEQUENCES];
    uint32_t picked[SEQUENCES];
    size_t count = 0, total = 0;
    for (uint32_t s = 0; s < SEQUENCES; s++) total += lengths[s];
    for (uint32_t s = 0; s < SEQUENCES; s++) {
      size_t grow = lqt__random_below(&random, 3) != 0 ? 1 : lqt__random_below(&random, 40);
      if (grow == 0 || lengths[s] + grow > LENGTH || total + grow > 300) continue;
      inputs[count] = (lqt_step_input){ids[s], (lqt_logits_want)lqt__random_below(&random, 3),
                                       tokens[s] + lengths[s], grow};
      picked[count++] = s;
      total += grow;
    }
    if (count != 0) {
      lqt_diag diag = {0};
      cr_assert_eq(lqt_session_step(session, inputs, count, NULL, &diag), LQT_OK, "%s", diag.what);
    }
    for (size_t i = 0; i < count; i++) {
      uint32_t s = picked[i];
      lengths[s] += (uint32_t)inputs[i].count;
      size_t rows =
          inputs[i].want == LQT_LOGITS_ALL ? inputs[i].count : inputs[i].want == LQT_LOGITS_LAST;
      for (size_t r = 0; r < rows; r++) {
        double error = fixture_error(lqt_session_logits(session, i, r),
                                     wanted[s] + (lengths[s] - rows + r) * VOCAB, VOCAB);
        cr_assert_lt(error, tolerance, "round %d, sequence %u: %.3g", round, s, error);
      }
      cr_assert_null(lqt_session_logits(session, i, rows));
      cr_assert_eq(lqt_session_sequence_length(session, ids[s]), lengths[s]);
    }
    uint32_t s = lqt__random_below(&random, SEQUENCES);
    if (lqt__random_below(&random, 3) == 0) {
      lengths[s] = lqt__random_below(&random, lengths[s] + 1);
      cr_assert_eq(lqt_session_sequence_truncate(session, ids[s], lengths[s], NULL), LQT_OK);
    } else if (lqt__random_below(&random, 8) == 0) {
      cr_assert_eq(lqt_session_sequence_remove(session, ids[s], NULL), LQT_OK);
      ids[s] = fixture_sequence(session);
      lengths[s] = 0;
      fixture_tokens(&f, seed++, tokens[s], LENGTH);
      tiny_forward(&f.tiny, tokens[s], LENGTH, wanted[s]);
    }
  }
  lqt_session_destroy(session);
  fixture_close(&f);
}

/* More wanted rows than fit the device's logits at once: the tail runs several times. */
Test(session, many_rows_of_a_large_vocabulary) {
  enum { COUNT = 200 };
  tiny_spec spec = tiny_default();
  spec.layers = 1;
  spec.vocab = 260000;
  spec.hidden = 16;
  spec.context = 256;
  fixture f;
  fixture_open(&f, &spec, "cpu");
  int32_t tokens[COUNT];
  fixture_tokens(&f, 6, tokens, COUNT);
  lqt_session *all = fixture_session(&f, 1, 0, 256), *single = fixture_session(&f, 1, 0, 256);
  uint32_t in_all = fixture_sequence(all), in_single = fixture_sequence(single);
  fixture_step(all, in_all, tokens, COUNT, LQT_LOGITS_ALL);
  for (size_t t = 0; t < COUNT; t++) {
    bool look = t % 37 == 0 || t == COUNT - 1 || (t > 60 && t < 68);
    fixture_step(single, in_single, tokens + t, 1, look ? LQT_LOGITS_LAST : LQT_LOGITS_NONE);
    if (!look) continue;
    const float *one = lqt_session_logits(single, 0, 0), *row = lqt_session_logits(all, 0, t);
    double difference = 0, square = 0;
    for (uint32_t i = 0; i < spec.vocab; i++) {
      difference += (one[i] - row[i]) * (double)(one[i] - row[i]);
      square += row[i] * (double)row[i];
    }
    cr_assert_lt(sqrt(difference / square), tolerance, "token %zu", t);
  }
  lqt_session_destroy(all);
  lqt_session_destroy(single);
  fixture_close(&f);
}

Test(session, half_precision_cache) {
  enum { COUNT = 80 };
  tiny_spec spec = tiny_default();
  fixture f;
  fixture_open(&f, &spec, "cpu");
  int32_t tokens[COUNT];
  fixture_tokens(&f, 4, tokens, COUNT);
  static double wanted[COUNT * VOCAB];
  tiny_forward(&f.tiny, tokens, COUNT, wanted);
  lqt_session *session;
  cr_assert_eq(lqt_session_create(f.engine, NULL, &session, NULL), LQT_OK);
  fixture_step(session, fixture_sequence(session), tokens, COUNT, LQT_LOGITS_ALL);
  check_rows(session, COUNT, wanted, VOCAB, 2e-2, "f16 cache");
  lqt_session_destroy(session);
  fixture_close(&f);
}

static void expect_failure(lqt_session *session, const lqt_step_input *inputs, size_t count,
                           lqt_status wanted) {
  lqt_diag diag = {0};
  lqt_step_result result = {.revision = 77, .seconds = 1};
  lqt_status status = lqt_session_step(session, inputs, count, &result, &diag);
  cr_assert_eq(status, wanted, "%s: %s", lqt_status_name(status), diag.what);
  cr_assert_eq(diag.status, wanted);
  cr_assert_gt(strlen(diag.what), 0);
  cr_assert_eq(result.revision, 0);
  cr_assert_null(lqt_session_logits(session, 0, 0));
}

Test(session, bad_input_changes_nothing) {
  tiny_spec spec = tiny_default();
  fixture f;
  fixture_open(&f, &spec, "cpu");
  int32_t tokens[200];
  fixture_tokens(&f, 2, tokens, 200);
  lqt_session *session = fixture_session(&f, 2, 120, 0);
  uint32_t a = fixture_sequence(session), b = fixture_sequence(session), c;
  cr_assert_eq(lqt_session_sequence_add(session, &c, NULL), LQT_LIMIT);
  fixture_step(session, a, tokens, 60, LQT_LOGITS_NONE);
  int32_t bad[2] = {3, VOCAB}, negative[1] = {-1};
  lqt_step_input good = {b, LQT_LOGITS_ALL, tokens, 10};
  struct {
    lqt_step_input input;
    lqt_status status;
  } cases[] = {{{a, LQT_LOGITS_LAST, bad, 2}, LQT_OUT_OF_RANGE},
               {{a, LQT_LOGITS_LAST, negative, 1}, LQT_OUT_OF_RANGE},
               {{9, LQT_LOGITS_LAST, tokens, 1}, LQT_NOT_FOUND},
               {{b, LQT_LOGITS_LAST, tokens, 1}, LQT_INVALID_ARGUMENT},
               {{a, LQT_LOGITS_LAST, tokens, 0}, LQT_INVALID_ARGUMENT},
               {{a, LQT_LOGITS_LAST, NULL, 4}, LQT_INVALID_ARGUMENT},
               {{a, (lqt_logits_want)7, tokens, 1}, LQT_INVALID_ARGUMENT},
               {{a, LQT_LOGITS_LAST, tokens, 37}, LQT_CONTEXT_FULL}, /* of the model: 96 */
               {{a, LQT_LOGITS_LAST, tokens, SIZE_MAX}, LQT_CONTEXT_FULL}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    lqt_step_input inputs[2] = {good, cases[i].input};
    expect_failure(session, inputs, 2, cases[i].status);
  }
  expect_failure(session, NULL, 0, LQT_INVALID_ARGUMENT);
  lqt_step_input full[2] = {{a, LQT_LOGITS_LAST, tokens, 30}, {b, LQT_LOGITS_LAST, tokens, 31}};
  expect_failure(session, full, 2, LQT_CONTEXT_FULL); /* of the session: 120 */
  cr_assert_eq(lqt_session_sequence_length(session, a), 60);
  cr_assert_eq(lqt_session_sequence_length(session, b), 0);
  cr_assert_eq(lqt_session_sequence_length(session, 9), 0);
  cr_assert_eq(lqt_session_sequence_truncate(session, 9, 0, NULL), LQT_NOT_FOUND);
  cr_assert_eq(lqt_session_sequence_remove(session, 9, NULL), LQT_NOT_FOUND);
  /* And it goes on. */
  full[1].count = 30;
  cr_assert_eq(lqt_session_step(session, full, 2, NULL, NULL), LQT_OK);
  static double wanted[30 * VOCAB];
  tiny_forward(&f.tiny, tokens, 30, wanted);
  cr_assert_lt(fixture_error(lqt_session_logits(session, 1, 0), wanted + 29 * VOCAB, VOCAB),
               tolerance);
  lqt_session_destroy(session);
  fixture_close(&f);
}

Test(session, bad_options) {
  tiny_spec spec = tiny_default();
  fixture f;
  fixture_open(&f, &spec, "cpu");
  lqt_session_options cases[] = {
      {.size = 3},
      {.size = sizeof *cases, .kv_dtype = LQT_DTYPE_I8, .kv_dtype_set = true},
      {.size = sizeof *cases, .max_sequences = UINT32_MAX, .max_tokens = 1},
      {.size = sizeof *cases, .max_batch = UINT32_MAX},
      {.size = sizeof *cases, .max_tokens = UINT32_MAX}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    lqt_session *session;
    lqt_status status = lqt_session_create(f.engine, &cases[i], &session, NULL);
    cr_assert_eq(status, i < 2 ? LQT_INVALID_ARGUMENT : LQT_LIMIT, "case %zu", i);
    cr_assert_null(session);
  }
  fixture_close(&f);
}

/* Draws from what the device picked out against draws from all logits. */
static void check_draws(const fixture *f, const lqt_sampler_options *options) {
  enum { STEPS = 40 };
  lqt_diag diag = {0};
  lqt_session *sessions[2];
  lqt_sampler *samplers[2];
  int32_t tokens[2] = {3, 3};
  for (int i = 0; i < 2; i++) {
    sessions[i] = fixture_session(f, 1, 0, 0);
    cr_assert_eq(fixture_sequence(sessions[i]), 0);
    cr_assert_eq(lqt_sampler_create(options, &samplers[i], &diag), LQT_OK, "%s", diag.what);
  }
  cr_assert_eq(lqt_session_sequence_sampler(sessions[1], 0, samplers[1], &diag), LQT_OK);
  for (int step = 0; step < STEPS; step++) {
    fixture_step(sessions[0], 0, &tokens[0], 1, LQT_LOGITS_LAST);
    fixture_step(sessions[1], 0, &tokens[1], 1, LQT_LOGITS_SAMPLE);
    uint32_t vocab = lqt_engine_vocab_size(f->engine);
    cr_assert_eq(lqt_sampler_sample(samplers[0], lqt_session_logits(sessions[0], 0, 0), vocab,
                                    &tokens[0], &diag),
                 LQT_OK);
    cr_assert_eq(lqt_session_sample(sessions[1], 0, samplers[1], &tokens[1], &diag), LQT_OK, "%s",
                 diag.what);
    cr_assert_eq(tokens[0], tokens[1], "step %d", step);
  }
  for (int i = 0; i < 2; i++) {
    lqt_sampler_destroy(samplers[i]);
    lqt_session_destroy(sessions[i]);
  }
}

Test(session, draws_are_the_same_from_candidates_and_from_all_logits) {
  fixture f;
  tiny_spec spec = tiny_default();
  spec.vocab = 300;
  fixture_open(&f, &spec, "cpu");
  lqt_sampler_options o = {.size = sizeof o, .top_p = 1, .repetition_penalty = 1, .seed = 5};
  const float temperatures[] = {0, 0.7f, 20};
  const uint32_t tops[] = {0, 1, 5, 64, 65, 200};
  for (size_t i = 0; i < sizeof temperatures / sizeof *temperatures; i++) {
    for (size_t k = 0; k < sizeof tops / sizeof *tops; k++) {
      o.temperature = temperatures[i], o.top_k = tops[k];
      for (int mode = 0; mode < 4; mode++) {
        o.top_p = mode == 1 ? 0.6f : 1, o.min_p = mode == 2 ? 0.05f : 0;
        o.repetition_penalty = mode == 3 ? 1.4f : 1, o.repetition_window = 10;
        check_draws(&f, &o);
      }
    }
  }
  fixture_close(&f);
}

Test(session, sampling_without_the_logits) {
  fixture f;
  tiny_spec spec = tiny_default();
  fixture_open(&f, &spec, "cpu");
  lqt_session *session = fixture_session(&f, 1, 0, 0);
  uint32_t sequence = fixture_sequence(session);
  lqt_sampler_options o = {.size = sizeof o, .top_p = 1, .repetition_penalty = 1};
  lqt_sampler *greedy, *wide;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_sampler_create(&o, &greedy, &diag), LQT_OK);
  o.temperature = 1;
  cr_assert_eq(lqt_sampler_create(&o, &wide, &diag), LQT_OK);
  int32_t token = 1;
  cr_assert_eq(lqt_session_sequence_sampler(session, 9, greedy, &diag), LQT_NOT_FOUND);
  cr_assert_eq(lqt_session_sequence_sampler(session, sequence, greedy, &diag), LQT_OK);
  cr_assert_eq(lqt_session_sample(session, 0, greedy, &token, &diag), LQT_INVALID_ARGUMENT);
  fixture_step(session, sequence, &token, 1, LQT_LOGITS_SAMPLE);
  cr_assert_null(lqt_session_logits(session, 0, 0));
  cr_assert_eq(lqt_session_sample(session, 0, wide, &token, &diag), LQT_INVALID_ARGUMENT);
  cr_assert_eq(lqt_session_sample(session, 0, greedy, &token, &diag), LQT_OK);
  cr_assert_eq(lqt_session_sequence_sampler(session, sequence, NULL, &diag), LQT_OK);
  fixture_step(session, sequence, &token, 1, LQT_LOGITS_SAMPLE);
  cr_assert_eq(lqt_session_sample(session, 0, wide, &token, &diag), LQT_OK);
  lqt_sampler_destroy(greedy);
  lqt_sampler_destroy(wide);
  lqt_session_destroy(session);
  fixture_close(&f);
}
