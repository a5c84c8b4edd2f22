#include <criterion/criterion.h>
#include <math.h>

#include "base/alloc.h"
#include "base/random.h"
#include "lqt/session.h"

static lqt_sampler_options plain(void) {
  return (lqt_sampler_options){.size = sizeof(lqt_sampler_options),
                               .temperature = 1,
                               .top_p = 1,
                               .repetition_penalty = 1,
                               .seed = 11};
}

static lqt_sampler *create(const lqt_sampler_options *options) {
  lqt_sampler *sampler;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_sampler_create(options, &sampler, &diag), LQT_OK, "%s", diag.what);
  return sampler;
}

static int32_t sample(lqt_sampler *sampler, const float *logits, uint32_t count) {
  int32_t token;
  cr_assert_eq(lqt_sampler_sample(sampler, logits, count, &token, NULL), LQT_OK);
  return token;
}

/* Counts of many draws. */
static void tally(const lqt_sampler_options *options, const float *logits, uint32_t count,
                  uint32_t draws, uint32_t *out) {
  lqt_sampler *sampler = create(options);
  memset(out, 0, count * sizeof *out);
  for (uint32_t i = 0; i < draws; i++) out[sample(sampler, logits, count)]++;
  lqt_sampler_destroy(sampler);
}

Test(sampler, greedy_takes_the_lowest_of_equals) {
  lqt_sampler_options options = plain();
  options.temperature = 0;
  lqt_sampler *sampler = create(&options);
  cr_assert_eq(sample(sampler, (float[]){1, 3, 3, 2}, 4), 1);
  cr_assert_eq(sample(sampler, (float[]){-INFINITY, -5, -INFINITY}, 3), 1);
  lqt_sampler_destroy(sampler);
}

Test(sampler, draws_follow_the_distribution) {
  enum { DRAWS = 200000 };
  float logits[5] = {logf(0.1f), logf(0.4f), -INFINITY, logf(0.3f), logf(0.2f)};
  uint32_t counts[5];
  lqt_sampler_options options = plain();
  tally(&options, logits, 5, DRAWS, counts);
  double wanted[5] = {0.1, 0.4, 0, 0.3, 0.2};
  for (int i = 0; i < 5; i++) {
    cr_assert_lt(fabs(counts[i] / (double)DRAWS - wanted[i]), 0.005, "%d: %u", i, counts[i]);
  }
  options.temperature = 0.5f;
  tally(&options, logits, 5, DRAWS, counts);
  for (int i = 0; i < 5; i++) {
    cr_assert_lt(fabs(counts[i] / (double)DRAWS - wanted[i] * wanted[i] / 0.3), 0.005);
  }
}

static void expect_support(const lqt_sampler_options *options, const float *logits, uint32_t count,
                           uint32_t wanted) {
  uint32_t counts[32];
  tally(options, logits, count, 20000, counts);
  for (uint32_t i = 0; i < count; i++) {
    cr_assert_eq(counts[i] != 0, (wanted >> i & 1) != 0, "token %u was drawn %u times", i,
                 counts[i]);
  }
}

Test(sampler, truncation) {
  float logits[5] = {logf(0.1f), logf(0.4f), logf(0.05f), logf(0.3f), logf(0.15f)};
  lqt_sampler_options options = plain();
  expect_support(&options, logits, 5, 0x1f);
  options.top_k = 2;
  expect_support(&options, logits, 5, 0x0a);
  options.top_k = 0;
  options.top_p = 0.6f;
  expect_support(&options, logits, 5, 0x0a);
  options.top_p = 0.75f;
  expect_support(&options, logits, 5, 0x1a);
  options.top_p = 1e-9f;
  expect_support(&options, logits, 5, 0x02);
  options.top_p = 0.7f; /* of the top 3: 0.4 + 0.3 of 0.85 */
  options.top_k = 3;
  expect_support(&options, logits, 5, 0x0a);
  options.top_p = 1;
  options.top_k = 0;
  options.min_p = 0.3f;
  expect_support(&options, logits, 5, 0x1a);
  float equal[8] = {0};
  options.min_p = 0;
  options.top_k = 3;
  expect_support(&options, equal, 8, 0x07);
}

Test(sampler, repetition_penalty) {
  lqt_sampler_options options = plain();
  options.temperature = 0;
  options.repetition_penalty = 2;
  options.repetition_window = 2;
  lqt_sampler *sampler = create(&options);
  float logits[3] = {4, 3, -1};
  lqt_sampler_accept(sampler, 7); /* not a token of these logits: no harm */
  cr_assert_eq(sample(sampler, logits, 3), 0);
  cr_assert_eq(sample(sampler, logits, 3), 1); /* 0 is at 2 now */
  cr_assert_eq(sample(sampler, logits, 3), 0); /* 2 against 1.5 */
  cr_assert_eq(sample(sampler, (float[]){-1, -5, -1.5f}, 3), 2);
  lqt_sampler_destroy(sampler);
}

/* The tokens come from an independent computation (generator, exponentials, order) in Python: every
 * machine must draw them. */
Test(sampler, same_seed_same_tokens) {
  lqt_sampler_options options = plain();
  options.temperature = 0.8f;
  options.top_p = 0.95f;
  options.seed = 42;
  float logits[1000];
  lqt__random random = lqt__random_seed(3);
  for (int i = 0; i < 1000; i++) logits[i] = (float)(lqt__random_unit(&random) * 16 - 8);
  static const int32_t known[8] = {656, 303, 325, 411, 54, 222, 786, 549};
  lqt_sampler *first = create(&options), *second = create(&options);
  for (int i = 0; i < 8; i++) {
    int32_t token = sample(first, logits, 1000);
    cr_assert_eq(token, sample(second, logits, 1000));
    cr_assert_eq(token, known[i], "draw %d is %d", i, token);
  }
  lqt_sampler_destroy(first);
  lqt_sampler_destroy(second);
}

Test(sampler, refuses) {
  lqt_sampler_options options = plain();
  lqt_sampler *sampler = create(&options);
  int32_t token;
  cr_assert_eq(lqt_sampler_sample(sampler, (float[]){1, NAN}, 2, &token, NULL), LQT_NOT_FINITE);
  cr_assert_eq(lqt_sampler_sample(sampler, (float[]){1, INFINITY}, 2, &token, NULL),
               LQT_NOT_FINITE);
  cr_assert_eq(lqt_sampler_sample(sampler, (float[]){-INFINITY}, 1, &token, NULL), LQT_NOT_FINITE);
  cr_assert_eq(lqt_sampler_sample(sampler, NULL, 1, &token, NULL), LQT_INVALID_ARGUMENT);
  lqt_sampler_destroy(sampler);
  lqt_sampler_options bad[7];
  for (int i = 0; i < 7; i++) bad[i] = options;
  bad[0].size = 3;
  bad[1].temperature = -1;
  bad[2].top_p = 0;
  bad[3].min_p = 1;
  bad[4].repetition_penalty = 0;
  bad[5].temperature = NAN;
  bad[6].repetition_window = 1u << 30;
  for (int i = 0; i < 7; i++) {
    lqt_diag diag = {0};
    cr_assert_eq(lqt_sampler_create(&bad[i], &sampler, &diag), LQT_INVALID_ARGUMENT, "%d", i);
    cr_assert_null(sampler);
    cr_assert_gt(strlen(diag.what), 0);
  }
}

Test(sampler, every_allocation_may_fail) {
  lqt_sampler_options options = plain();
  for (int64_t nth = 0;; nth++) {
    lqt_sampler *sampler = NULL;
    int32_t token;
    lqt__alloc_fail_after(nth);
    lqt_status status = lqt_sampler_create(&options, &sampler, NULL);
    if (status == LQT_OK) status = lqt_sampler_sample(sampler, (float[]){1, 2}, 2, &token, NULL);
    lqt__alloc_fail_after(-1);
    lqt_sampler_destroy(sampler);
    if (status == LQT_OK) {
      cr_assert_eq(nth, 3);
      break;
    }
    cr_assert_eq(status, LQT_OUT_OF_MEMORY);
  }
}
