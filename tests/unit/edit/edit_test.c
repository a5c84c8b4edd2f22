#include "lqt/edit.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/half.h"
#include "base/random.h"
#include "io/file.h"
#include "lqt/live.h"
#include "unit/exec/fixture.h"

enum { VOCAB = 67, COUNT = 20 };
static const double tolerance = 1e-5;

static void open_quantized(fixture *f) {
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  fixture_open(f, &spec, "cpu");
}

static lqt_editor *edit(const fixture *f) {
  lqt_editor *editor;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_editor_create(f->model, &editor, &diag), LQT_OK, "%s", diag.what);
  return editor;
}

static uint64_t set(lqt_editor *editor, uint16_t codebook, uint32_t vector, float value) {
  uint64_t revision;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_edit_codebook_entry(editor, codebook, vector, &value, 1, &revision, &diag),
               LQT_OK, "%s", diag.what);
  return revision;
}

/* Logits of a fixed prompt, and the revision that the step says. */
static uint64_t run(lqt_session *session, float *out) {
  int32_t tokens[COUNT];
  for (int i = 0; i < COUNT; i++) tokens[i] = i * 7 % VOCAB;
  cr_assert_eq(lqt_session_sequence_truncate(session, 0, 0, NULL), LQT_OK);
  lqt_step_input input = {0, LQT_LOGITS_LAST, tokens, COUNT};
  lqt_step_result result;
  cr_assert_eq(lqt_session_step(session, &input, 1, &result, NULL), LQT_OK);
  memcpy(out, lqt_session_logits(session, 0, 0), VOCAB * sizeof *out);
  return result.revision;
}

static double reference_error(const tiny_model *tiny, const float *logits) {
  int32_t tokens[COUNT];
  double wanted[COUNT * VOCAB];
  for (int i = 0; i < COUNT; i++) tokens[i] = i * 7 % VOCAB;
  tiny_forward(tiny, tokens, COUNT, wanted);
  return fixture_error(logits, wanted + (COUNT - 1) * VOCAB, VOCAB);
}

Test(edit, the_next_step_sees_it_and_undo_takes_it_back) {
  fixture f;
  open_quantized(&f);
  lqt_session *session = fixture_session(&f, 1, 0, 0);
  (void)fixture_sequence(session);
  lqt_editor *editor = edit(&f);
  float before[VOCAB], now[VOCAB], value;
  cr_assert_eq(run(session, before), 0);
  cr_assert_lt(reference_error(&f.tiny, before), tolerance);
  cr_assert_eq(lqt_editor_attach(editor, f.engine, NULL), LQT_OK);
  cr_assert_eq(lqt_editor_attach(editor, f.engine, NULL), LQT_OK); /* twice is once */
  /* One of a codebook that two tensors share, one of a codebook of its own. */
  double old = f.tiny.codebooks[TINY_SHARED][12];
  cr_assert_eq(set(editor, TINY_SHARED, 12, 2.5f), 1);
  tiny_edit(&f.tiny, TINY_SHARED, 12, 2.5);
  cr_assert_eq(run(session, now), 1);
  cr_assert_lt(reference_error(&f.tiny, now), tolerance);
  cr_assert_gt(fixture_error(now, (double[VOCAB]){[0] = 1}, VOCAB), 0);
  cr_assert_eq(set(editor, TINY_PLAIN, 0, -0.123f), 2);
  tiny_edit(&f.tiny, TINY_PLAIN, 0, -0.123);
  cr_assert_eq(lqt_editor_codebook_entry(editor, TINY_PLAIN, 0, &value, 1, NULL), LQT_OK);
  cr_assert_eq(value, lqt__f32_from_f16(lqt__f16_from_f32(-0.123f)));
  cr_assert_eq(run(session, now), 2);
  cr_assert_lt(reference_error(&f.tiny, now), tolerance);
  cr_assert_neq(memcmp(before, now, sizeof now), 0);
  uint64_t revision;
  cr_assert_eq(lqt_edit_undo(editor, &revision, NULL), LQT_OK);
  cr_assert_eq(revision, 3);
  cr_assert_eq(lqt_edit_undo(editor, &revision, NULL), LQT_OK);
  cr_assert_eq(lqt_edit_undo(editor, &revision, NULL), LQT_NOT_FOUND);
  cr_assert_eq(revision, 0);
  cr_assert_eq(run(session, now), 4);
  cr_assert_arr_eq(before, now, sizeof now);
  cr_assert_eq(lqt_editor_codebook_entry(editor, TINY_SHARED, 12, &value, 1, NULL), LQT_OK);
  cr_assert_eq(value, (float)old);
  cr_assert_eq(lqt_editor_revision(editor), 4);
  cr_assert_eq(lqt_engine_revision(f.engine), 4);
  lqt_editor_destroy(editor);
  lqt_session_destroy(session);
  fixture_close(&f);
}

Test(edit, refusals_change_nothing) {
  fixture f;
  open_quantized(&f);
  lqt_editor *editor = edit(&f);
  cr_assert_eq(lqt_editor_attach(editor, f.engine, NULL), LQT_OK);
  static const struct {
    uint16_t codebook;
    uint32_t vector;
    float value;
    size_t dim;
    lqt_status status;
  } cases[] = {{999, 0, 1, 1, LQT_NOT_FOUND},
               {TINY_PLAIN, TINY_CODEBOOK_ENTRIES, 1, 1, LQT_OUT_OF_RANGE},
               {TINY_PLAIN, 0, 1, 2, LQT_DIMENSION_MISMATCH},
               {TINY_IMMUTABLE, 0, 1, 1, LQT_IMMUTABLE},
               {TINY_PROTECTED, 0, 1, 1, LQT_PERMISSION_DENIED},
               {TINY_PLAIN, 0, NAN, 1, LQT_NOT_FINITE},
               {TINY_PLAIN, 0, 70000, 1, LQT_NOT_FINITE}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    uint64_t revision = 9;
    float values[2] = {cases[i].value, 1};
    lqt_diag diag = {0};
    lqt_status status = lqt_edit_codebook_entry(editor, cases[i].codebook, cases[i].vector, values,
                                                cases[i].dim, &revision, &diag);
    cr_assert_eq(status, cases[i].status, "case %zu: %s", i, lqt_status_name(status));
    cr_assert_eq(diag.status, status);
    cr_assert_gt(strlen(diag.what), 0);
    cr_assert_eq(revision, 0);
  }
  cr_assert_eq(lqt_editor_revision(editor), 0);
  cr_assert_eq(lqt_engine_revision(f.engine), 0);
  cr_assert_eq(lqt_edit_undo(editor, NULL, NULL), LQT_NOT_FOUND);
  float value;
  cr_assert_eq(lqt_editor_codebook_entry(editor, 999, 0, &value, 1, NULL), LQT_NOT_FOUND);
  cr_assert_eq(lqt_editor_codebook_entry(editor, 0, 99, &value, 1, NULL), LQT_OUT_OF_RANGE);
  cr_assert_eq(lqt_editor_codebook_entry(editor, 0, 0, &value, 4, NULL), LQT_DIMENSION_MISMATCH);
  lqt_editor_destroy(editor);
  fixture_close(&f);
}

/* Engines come and go; each attached one shows the editor's state, whatever it saw before. */
Test(edit, several_engines_and_editors) {
  fixture f;
  open_quantized(&f);
  lqt_engine *second;
  cr_assert_eq(lqt_engine_create(f.model, f.device, &second, NULL), LQT_OK);
  lqt_session *on_first = fixture_session(&f, 1, 0, 0), *on_second;
  lqt_session_options options = {
      .size = sizeof options, .kv_dtype = LQT_DTYPE_F32, .kv_dtype_set = true};
  cr_assert_eq(lqt_session_create(second, &options, &on_second, NULL), LQT_OK);
  (void)fixture_sequence(on_first);
  (void)fixture_sequence(on_second);
  lqt_editor *a = edit(&f), *b = edit(&f);
  float original[VOCAB], one[VOCAB], two[VOCAB];
  (void)run(on_first, original);
  (void)set(a, TINY_SHARED, 3, 1.75f);
  cr_assert_eq(lqt_editor_attach(a, f.engine, NULL), LQT_OK);
  cr_assert_eq(run(on_first, one), 1);
  cr_assert_neq(memcmp(original, one, sizeof one), 0);
  cr_assert_eq(lqt_editor_attach(b, f.engine, NULL), LQT_CONFLICT);
  cr_assert_eq(lqt_editor_attach(a, second, NULL), LQT_OK);
  cr_assert_eq(run(on_second, two), 1);
  cr_assert_arr_eq(one, two, sizeof one);
  cr_assert_eq(set(a, TINY_PLAIN, 5, 0.5f), 2);
  cr_assert_eq(run(on_first, one), 2);
  cr_assert_eq(run(on_second, two), 2);
  cr_assert_arr_eq(one, two, sizeof one);
  /* A detached engine stays as it is. */
  lqt_editor_detach(a, second);
  cr_assert_eq(set(a, TINY_PLAIN, 6, 0.75f), 3);
  cr_assert_eq(run(on_second, two), 2);
  cr_assert_arr_eq(one, two, sizeof one);
  cr_assert_eq(run(on_first, one), 3);
  /* Another editor brings it to its own state: nothing edited. */
  cr_assert_eq(lqt_editor_attach(b, second, NULL), LQT_OK);
  cr_assert_eq(run(on_second, two), 0);
  cr_assert_arr_eq(original, two, sizeof two);
  lqt_editor_destroy(b);
  cr_assert_eq(lqt_editor_attach(a, second, NULL), LQT_OK);
  cr_assert_eq(run(on_second, two), 3);
  cr_assert_arr_eq(one, two, sizeof one);
  /* What it ran before it was attached is not what undo brings back. */
  cr_assert_eq(lqt_edit_undo(a, NULL, NULL), LQT_OK);
  cr_assert_eq(run(on_first, one), 4);
  cr_assert_eq(run(on_second, two), 4);
  cr_assert_arr_eq(one, two, sizeof one);
  lqt_editor_destroy(a);
  lqt_session_destroy(on_first);
  lqt_session_destroy(on_second);
  lqt_engine_destroy(second);
  fixture_close(&f);
}

Test(edit, another_models_engine) {
  fixture f, g;
  open_quantized(&f);
  open_quantized(&g);
  lqt_editor *editor = edit(&f);
  cr_assert_eq(lqt_editor_attach(editor, g.engine, NULL), LQT_INVALID_ARGUMENT);
  cr_assert_eq(lqt_editor_attach(editor, NULL, NULL), LQT_INVALID_ARGUMENT);
  lqt_editor_destroy(editor);
  fixture_close(&f);
  fixture_close(&g);
}

static void same_tensors(const lqt_model *a, const lqt_model *b) {
  size_t count = lqt_model_tensor_count(a);
  cr_assert_eq(lqt_model_tensor_count(b), count);
  for (size_t i = 0; i < count; i++) {
    lqt_weight_desc x, y;
    cr_assert_eq(lqt_model_weight(a, i, &x, NULL), LQT_OK);
    cr_assert_eq(lqt_model_weight(b, i, &y, NULL), LQT_OK);
    if (x.dtype == LQT_DTYPE_CODEBOOK) {
      cr_assert_arr_eq(x.indices.data, y.indices.data, x.rows * x.indices.row_stride);
    } else {
      cr_assert_arr_eq(x.data, y.data, x.rows * x.row_stride);
    }
  }
}

/* Saving over the model's own file: the edit is in it, everything else as it was. */
Test(edit, save) {
  fixture f;
  open_quantized(&f);
  char path[256];
  snprintf(path, sizeof path, "%s", tiny_path("model.lqt"));
  lqt_editor *editor = edit(&f);
  cr_assert_eq(lqt_editor_attach(editor, f.engine, NULL), LQT_OK);
  (void)set(editor, TINY_SHARED, 3, 1.75f);
  lqt_session *session = fixture_session(&f, 1, 0, 0);
  (void)fixture_sequence(session);
  float edited[VOCAB], again[VOCAB], value;
  (void)run(session, edited);
  lqt_diag diag = {0};
  cr_assert_eq(lqt_editor_save(editor, path, &diag), LQT_OK, "%s", diag.what);
  (void)run(session, again); /* the open model is still there */
  cr_assert_arr_eq(edited, again, sizeof again);

  lqt_model *saved;
  lqt_model_options verify = {.size = sizeof verify, .verify = true};
  cr_assert_eq(lqt_model_open(path, &verify, &saved, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_model_validate(saved, NULL, NULL, NULL, &diag), LQT_OK, "%s", diag.what);
  same_tensors(f.model, saved);
  for (uint16_t id = 0; id < lqt_model_codebook_count(saved); id++) {
    for (uint32_t v = 0; v < TINY_CODEBOOK_ENTRIES; v++) {
      float want;
      cr_assert_eq(lqt_model_codebook_vector(saved, id, v, &value, NULL), LQT_OK);
      cr_assert_eq(lqt_editor_codebook_entry(editor, id, v, &want, 1, NULL), LQT_OK);
      cr_assert_eq(value, want);
    }
  }
  const void *old_chunk, *new_chunk;
  size_t old_bytes, new_bytes;
  cr_assert_eq(lqt_model_chunk(f.model, 0x7abc, &old_chunk, &old_bytes), LQT_OK);
  cr_assert_eq(lqt_model_chunk(saved, 0x7abc, &new_chunk, &new_bytes), LQT_OK);
  cr_assert(old_bytes == new_bytes && memcmp(old_chunk, new_chunk, old_bytes) == 0);
  lqt_engine *engine;
  lqt_session *on_saved;
  cr_assert_eq(lqt_engine_create(saved, f.device, &engine, NULL), LQT_OK);
  lqt_session_options options = {
      .size = sizeof options, .kv_dtype = LQT_DTYPE_F32, .kv_dtype_set = true};
  cr_assert_eq(lqt_session_create(engine, &options, &on_saved, NULL), LQT_OK);
  (void)fixture_sequence(on_saved);
  cr_assert_eq(run(on_saved, again), 0);
  cr_assert_arr_eq(edited, again, sizeof again);
  lqt_session_destroy(on_saved);
  lqt_engine_destroy(engine);
  lqt_model_release(saved);
  cr_assert_eq(lqt_editor_save(editor, "/nonexistent/x.lqt", &diag), LQT_NOT_FOUND);
  lqt_editor_destroy(editor);
  lqt_session_destroy(session);
  fixture_close(&f);
}

/* Every system call of a save fails once in turn: the file at the path stays what it was. */
Test(edit, a_failed_save_leaves_the_file) {
  fixture f;
  open_quantized(&f);
  char path[256], *before, *after;
  size_t before_bytes, after_bytes;
  snprintf(path, sizeof path, "%s", tiny_path("model.lqt"));
  cr_assert_eq(lqt__file_read(path, 1 << 24, &before, &before_bytes, NULL), LQT_OK);
  lqt_editor *editor = edit(&f);
  (void)set(editor, TINY_SHARED, 3, 1.75f);
  for (int64_t nth = 0;; nth++) {
    lqt__io_fail_after(nth);
    lqt_status status = lqt_editor_save(editor, path, NULL);
    lqt__io_fail_after(-1);
    if (status == LQT_OK) {
      cr_assert_gt(nth, 5);
      break;
    }
    cr_assert_eq(lqt__file_read(path, 1 << 24, &after, &after_bytes, NULL), LQT_OK);
    bool same = after_bytes == before_bytes && memcmp(before, after, before_bytes) == 0;
    lqt__free(after);
    if (!same) { /* renamed, and only the folder's sync failed */
      lqt_model *model;
      cr_assert_eq(
          lqt_model_open(path, &(lqt_model_options){sizeof(lqt_model_options), true, false}, &model,
                         NULL),
          LQT_OK);
      lqt_model_release(model);
    }
  }
  lqt__free(before);
  lqt_editor_destroy(editor);
  fixture_close(&f);
}

/* Between the commit and its flip the undo's bytes go: the engine cannot follow. */
static void drop_undo(void *engine, const lqt_event *event) {
  if (event->kind == LQT_EVENT_COMMITTED) lqt_engine_set_undo(engine, 0, 0);
}

Test(edit, an_engine_that_could_not_follow_runs_no_more) {
  fixture f;
  open_quantized(&f);
  lqt_session *session = fixture_session(&f, 1, 0, 0);
  (void)fixture_sequence(session);
  lqt_editor *editor = edit(&f);
  cr_assert_eq(lqt_editor_attach(editor, f.engine, NULL), LQT_OK);
  set(editor, TINY_SHARED, 1, 1.5f);
  lqt_editor_set_events(editor, drop_undo, f.engine);
  cr_assert_eq(lqt_edit_undo(editor, NULL, NULL), LQT_DEVICE_LOST);
  lqt_editor_set_events(editor, NULL, NULL);
  cr_assert_eq(lqt_editor_revision(editor), 2);
  cr_assert_eq(lqt_engine_revision(f.engine), 1);
  int32_t token = 1;
  lqt_step_input input = {0, LQT_LOGITS_LAST, &token, 1};
  lqt_diag diag = {0};
  cr_assert_eq(lqt_session_step(session, &input, 1, NULL, &diag), LQT_DEVICE_LOST);
  cr_assert_not_null(strstr(diag.what, "create it again"));
  /* Later edits pass it over, and it does not come back by them. */
  cr_assert_eq(set(editor, TINY_SHARED, 2, 0.5f), 3);
  cr_assert_eq(lqt_edit_undo(editor, NULL, NULL), LQT_OK);
  cr_assert_eq(lqt_engine_revision(f.engine), 1);
  cr_assert_eq(lqt_session_step(session, &input, 1, NULL, NULL), LQT_DEVICE_LOST);
  lqt_editor_detach(editor, f.engine);
  cr_assert_eq(lqt_editor_attach(editor, f.engine, NULL), LQT_DEVICE_LOST);
  lqt_session_destroy(session);
  lqt_editor_destroy(editor);
  fixture_close(&f);
}

Test(edit, every_allocation_may_fail) {
  fixture f;
  open_quantized(&f);
  lqt_session *session = fixture_session(&f, 1, 0, 0);
  (void)fixture_sequence(session);
  char path[256];
  snprintf(path, sizeof path, "%s", tiny_path("saved.lqt"));
  float original[VOCAB], now[VOCAB], value = 1.5f;
  (void)run(session, original);
  for (int64_t nth = 0;; nth++) {
    lqt_editor *editor = NULL;
    bool edited = false;
    lqt__alloc_fail_after(nth);
    lqt_status status = lqt_editor_create(f.model, &editor, NULL);
    if (status == LQT_OK) status = lqt_editor_attach(editor, f.engine, NULL);
    if (status == LQT_OK) {
      status = lqt_edit_codebook_entry(editor, TINY_SHARED, 1, &value, 1, NULL, NULL);
      edited = status == LQT_OK;
    }
    if (status == LQT_OK) status = lqt_editor_save(editor, path, NULL);
    lqt__alloc_fail_after(-1);
    if (status == LQT_DEVICE_LOST) {
      /* The edit is committed and the device could not follow: the engine is made again. */
      cr_assert_eq(lqt_editor_revision(editor), 1);
      lqt_editor_destroy(editor);
      lqt_session_destroy(session);
      lqt_engine_destroy(f.engine);
      cr_assert_eq(lqt_engine_create(f.model, f.device, &f.engine, NULL), LQT_OK);
      session = fixture_session(&f, 1, 0, 0);
      (void)fixture_sequence(session);
      continue;
    }
    (void)run(session, now);
    if (editor != NULL && edited) {
      cr_assert_neq(memcmp(original, now, sizeof now), 0);
      cr_assert_eq(lqt_edit_undo(editor, NULL, NULL), LQT_OK);
      (void)run(session, now);
    }
    cr_assert_arr_eq(original, now, sizeof now);
    lqt_editor_destroy(editor);
    if (status == LQT_OK) {
      cr_assert_gt(nth, 10);
      break;
    }
    cr_assert_eq(status, LQT_OUT_OF_MEMORY, "%lld: %s", (long long)nth, lqt_status_name(status));
  }
  lqt_session_destroy(session);
  fixture_close(&f);
}
