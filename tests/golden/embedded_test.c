/* The model in the repository, 4-bit: needs no other data. */
#include <criterion/criterion.h>
#include <math.h>

#include "lqt/lqt.h"
#include "support/data.h"

static const char prompt[] =
    "It was a dark night, and the old captain looked out over the sea from the window of the inn.";
enum { MAX_TOKENS = 128 };

typedef struct embedded {
  lqt_model *model;
  lqt_device *device;
  lqt_engine *engine;
  lqt_session *session;
  uint32_t vocab;
  int32_t ids[MAX_TOKENS];
  size_t count;
} embedded;

static void open_embedded(embedded *e, uint32_t max_batch) {
  char path[1024];
  if (!test_source_path("models/classic-11m-q4.lqt", path, sizeof path)) {
    cr_skip_test("models/classic-11m-q4.lqt is not there");
  }
  lqt_diag diag = {0};
  lqt_device_options exact = {.size = sizeof exact, .exact = true};
  cr_assert_eq(lqt_model_open(path, NULL, &e->model, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_device_open("cpu", &exact, &e->device, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_engine_create(e->model, e->device, &e->engine, &diag), LQT_OK, "%s", diag.what);
  lqt_session_options options = {.size = sizeof options, .max_batch = max_batch};
  cr_assert_eq(lqt_session_create(e->engine, &options, &e->session, &diag), LQT_OK);
  uint32_t sequence;
  cr_assert_eq(lqt_session_sequence_add(e->session, &sequence, NULL), LQT_OK);
  e->vocab = lqt_engine_vocab_size(e->engine);
  lqt_tokenizer *tokenizer;
  cr_assert_eq(lqt_tokenizer_from_model(e->model, &tokenizer, &diag), LQT_OK, "%s", diag.what);
  e->ids[0] = lqt_tokenizer_bos(tokenizer);
  cr_assert_eq(lqt_tokenizer_encode(tokenizer, prompt, strlen(prompt), false, e->ids + 1,
                                    MAX_TOKENS - 1, &e->count, NULL),
               LQT_OK);
  e->count++;
  cr_assert(e->count > 16 && e->count <= MAX_TOKENS);
  lqt_tokenizer_destroy(tokenizer);
}

static void close_embedded(embedded *e) {
  lqt_session_destroy(e->session);
  lqt_engine_destroy(e->engine);
  lqt_device_release(e->device);
  lqt_model_release(e->model);
}

static uint64_t step(embedded *e, const int32_t *ids, size_t count, float *out) {
  lqt_step_input input = {0, LQT_LOGITS_LAST, ids, count};
  lqt_step_result result;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_session_step(e->session, &input, 1, &result, &diag), LQT_OK, "%s", diag.what);
  if (out != NULL) memcpy(out, lqt_session_logits(e->session, 0, 0), e->vocab * sizeof *out);
  return result.revision;
}

static double difference(const float *a, const float *b, uint32_t count) {
  double apart = 0, square = 0;
  for (uint32_t i = 0; i < count; i++) {
    apart += (a[i] - b[i]) * (double)(a[i] - b[i]);
    square += a[i] * (double)a[i];
  }
  return sqrt(apart / square);
}

Test(embedded, one_shot_chunks_and_single_tokens_agree) {
  static float whole[1 << 17], other[1 << 17];
  static const uint32_t batches[] = {0, 7, 16};
  for (size_t b = 0; b < 3; b++) {
    embedded e;
    open_embedded(&e, batches[b]);
    cr_assert_leq(e.vocab, 1 << 17);
    (void)step(&e, e.ids, e.count, b == 0 ? whole : other);
    if (b > 0) cr_assert_lt(difference(whole, other, e.vocab), 2e-3, "batches of %u", batches[b]);
    cr_assert_eq(lqt_session_sequence_truncate(e.session, 0, 0, NULL), LQT_OK);
    for (size_t i = 0; i < e.count; i++) (void)step(&e, e.ids + i, 1, other);
    cr_assert_lt(difference(whole, other, e.vocab), 2e-3, "token by token");
    close_embedded(&e);
  }
}

Test(embedded, an_edit_shows_and_goes) {
  static float before[1 << 17], during[1 << 17], after[1 << 17];
  embedded e;
  open_embedded(&e, 0);
  lqt_editor *editor;
  cr_assert_eq(lqt_editor_create(e.model, &editor, NULL), LQT_OK);
  cr_assert_eq(lqt_editor_attach(editor, e.engine, NULL), LQT_OK);
  cr_assert_eq(step(&e, e.ids, e.count, before), 0);
  lqt_codebook_info info;
  cr_assert_eq(lqt_model_codebook(e.model, 0, &info), LQT_OK);
  float values[8];
  cr_assert_eq(lqt_editor_codebook_entry(editor, info.id, 0, values, info.vector_dim, NULL),
               LQT_OK);
  for (uint32_t i = 0; i < info.vector_dim; i++) values[i] *= -3;
  cr_assert_eq(lqt_edit_codebook_entry(editor, info.id, 0, values, info.vector_dim, NULL, NULL),
               LQT_OK);
  cr_assert_eq(lqt_session_sequence_truncate(e.session, 0, 0, NULL), LQT_OK);
  cr_assert_eq(step(&e, e.ids, e.count, during), 1);
  cr_assert_gt(difference(before, during, e.vocab), 1e-3);
  cr_assert_eq(lqt_edit_undo(editor, NULL, NULL), LQT_OK);
  cr_assert_eq(lqt_session_sequence_truncate(e.session, 0, 0, NULL), LQT_OK);
  cr_assert_eq(step(&e, e.ids, e.count, after), 2);
  cr_assert_arr_eq(before, after, e.vocab * sizeof *before);
  lqt_editor_destroy(editor);
  close_embedded(&e);
}
