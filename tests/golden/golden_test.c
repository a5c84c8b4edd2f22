#include <criterion/criterion.h>
#include <math.h>

#include "models.h"

enum { MAX_TOKENS = 128 };
static const double logit_tolerance = 0.02, decisive_gap = 0.05;

static size_t read_ids(const json_t *array, int32_t *out) {
  size_t count = json_array_size(array);
  cr_assert(count > 0 && count <= MAX_TOKENS);
  for (size_t i = 0; i < count; i++) {
    out[i] = (int32_t)json_integer_value(json_array_get(array, i));
  }
  return count;
}

/* The likeliest token, and how far the second is behind. */
static int32_t best(const float *logits, uint32_t count, double *out_gap) {
  int32_t first = 0;
  for (uint32_t i = 1; i < count; i++) {
    if (logits[i] > logits[first]) first = (int32_t)i;
  }
  double second = -INFINITY;
  for (uint32_t i = 0; i < count; i++) {
    if ((int32_t)i != first) second = fmax(second, logits[i]);
  }
  *out_gap = logits[first] - second;
  return first;
}

static void check_logits(const json_t *golden, const float *logits, uint32_t vocab) {
  const char *prompt = json_string_value(json_object_get(golden, "prompt"));
  const json_t *first = json_object_get(golden, "logits_first64");
  const json_t *top = json_object_get(golden, "top10");
  const json_t *top_logits = json_object_get(golden, "top10_logits");
  cr_assert_eq(json_array_size(first), 64);
  cr_assert_eq(json_array_size(top), 10);
  double worst = 0;
  for (size_t i = 0; i < 64; i++) {
    worst = fmax(worst, fabs(logits[i] - json_number_value(json_array_get(first, i))));
  }
  for (size_t rank = 0; rank < 10; rank++) {
    int32_t id = (int32_t)json_integer_value(json_array_get(top, rank));
    worst = fmax(worst, fabs(logits[id] - json_number_value(json_array_get(top_logits, rank))));
    /* Its rank is the number of tokens above it. */
    size_t above = 0;
    for (uint32_t i = 0; i < vocab; i++) above += logits[i] > logits[id];
    cr_assert_eq(above, rank, "'%s': token %d has rank %zu, not %zu", prompt, id, above, rank);
  }
  cr_assert_lt(worst, logit_tolerance, "'%s': a logit is off by %.4f", prompt, worst);
}

static void check_tokens(const lqt_tokenizer *tokenizer, const json_t *golden, const int32_t *ids,
                         size_t count) {
  const char *prompt = json_string_value(json_object_get(golden, "prompt"));
  int32_t got[MAX_TOKENS];
  size_t got_count;
  cr_assert_eq(ids[0], lqt_tokenizer_bos(tokenizer));
  cr_assert_eq(lqt_tokenizer_encode(tokenizer, prompt, strlen(prompt), false, got, MAX_TOKENS,
                                    &got_count, NULL),
               LQT_OK);
  cr_assert_eq(got_count, count - 1, "'%s'", prompt);
  cr_assert_arr_eq(got, ids + 1, got_count * sizeof *got, "'%s'", prompt);
}

/* Returns how many greedy tokens were compared. */
static size_t check_prompt(lqt_session *session, const json_t *golden, uint32_t vocab) {
  int32_t ids[MAX_TOKENS], greedy[MAX_TOKENS];
  const char *prompt = json_string_value(json_object_get(golden, "prompt"));
  lqt_step_input input = {0, LQT_LOGITS_LAST, ids, read_ids(json_object_get(golden, "ids"), ids)};
  size_t count = read_ids(json_object_get(golden, "greedy64"), greedy), same = 0;
  cr_assert_eq(lqt_session_sequence_truncate(session, 0, 0, NULL), LQT_OK);
  for (size_t i = 0; i < count; i++) {
    cr_assert_eq(lqt_session_step(session, &input, 1, NULL, NULL), LQT_OK);
    const float *logits = lqt_session_logits(session, 0, 0);
    if (i == 0) check_logits(golden, logits, vocab);
    double gap;
    int32_t token = best(logits, vocab, &gap);
    if (gap < decisive_gap) break;
    cr_assert_eq(token, greedy[i], "'%s': token %zu is %d, not %d (gap %.3f)", prompt, i, token,
                 greedy[i], gap);
    same++;
    ids[0] = token;
    input.count = 1;
  }
  return same;
}

static void check_model(const char *name, lqt_dtype kv_dtype) {
  golden_model g;
  golden_open(&g, name);
  lqt_tokenizer *tokenizer;
  cr_assert_eq(lqt_tokenizer_from_model(g.model, &tokenizer, NULL), LQT_OK);
  const json_t *prompts = json_object_get(g.reference, "golden");
  cr_assert_eq(json_array_size(prompts), 5);
  lqt_session *session = golden_session(&g, kv_dtype, 0);
  size_t i, compared = 0;
  json_t *golden;
  json_array_foreach(prompts, i, golden) {
    int32_t ids[MAX_TOKENS];
    size_t count = read_ids(json_object_get(golden, "ids"), ids);
    check_tokens(tokenizer, golden, ids, count);
    compared += check_prompt(session, golden, lqt_engine_vocab_size(g.engine));
  }
  cr_assert_gt(compared, 20, "only %zu greedy tokens were decisive", compared);
  lqt_session_destroy(session);
  lqt_tokenizer_destroy(tokenizer);
  golden_close(&g);
}

Test(golden, classic_28m) { check_model("classic-28m", LQT_DTYPE_F16); }
Test(golden, classic_28m_float32_cache) { check_model("classic-28m", LQT_DTYPE_F32); }
Test(golden, classic_11m) { check_model("classic-11m", LQT_DTYPE_F16); }
