/* Editors with a journal, transactions, temporary edits, trials, rules, exchanged modules. */
#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "edit/encoding.h"
#include "format/format.h"
#include "format/layout.h"
#include "io/file.h"
#include "lqt/edit.h"
#include "model/model.h"
#include "unit/exec/fixture.h"

enum { VOCAB = 67, COUNT = 12 };
#define M(...) ((lqt_mutation){.size = sizeof(lqt_mutation), __VA_ARGS__})

static char path[256];

static lqt_model *make_model(void) {
  tiny_model tiny;
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  snprintf(path, sizeof path, "%s", tiny_path("model.lqt"));
  tiny_create(&spec, path, &tiny);
  tiny_free(&tiny);
  lqt_model *model;
  cr_assert_eq(lqt_model_open(path, NULL, &model, NULL), LQT_OK);
  return model;
}

static lqt_editor *open_editor(lqt_model *model, lqt_journal_mode mode,
                               lqt_journal_report *report) {
  lqt_editor *editor;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_editor_create(model, &editor, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_editor_open_journal(editor, mode, NULL, report, &diag), LQT_OK, "%s", diag.what);
  return editor;
}

static lqt_mutation entry(const float *value, uint64_t vector) {
  return M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = TINY_PLAIN, .first = vector,
           .values = value, .value_count = 1);
}

static lqt_mutation norm(const float *value) {
  return M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "norm", .values = value, .value_count = 1);
}

static uint64_t commit(lqt_editor *editor, const lqt_mutation *mutation,
                       const lqt_commit_options *options) {
  uint64_t revision;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_edit(editor, mutation, options, &revision, &diag), LQT_OK, "%s", diag.what);
  return revision;
}

static float value_of(lqt_editor *editor, uint32_t vector) {
  float value;
  cr_assert_eq(lqt_editor_codebook_entry(editor, TINY_PLAIN, vector, &value, 1, NULL), LQT_OK);
  return value;
}

/* A file's bytes but for the footer, which has the time. */
static char *bytes_of(lqt_editor *editor, size_t *out_bytes) {
  char saved[280];
  char *data;
  lqt_diag diag = {0};
  snprintf(saved, sizeof saved, "%s.saved", path);
  cr_assert_eq(lqt_editor_save(editor, saved, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt__file_read(saved, 1 << 24, &data, out_bytes, NULL), LQT_OK);
  *out_bytes -= LQT__FOOTER_BYTES;
  return data;
}

static bool same(lqt_editor *editor, const char *data, size_t bytes) {
  size_t now_bytes;
  char *now = bytes_of(editor, &now_bytes);
  bool equal = now_bytes == bytes && memcmp(now, data, bytes) == 0;
  lqt__free(now);
  return equal;
}

/* A random mutation of any size, often a structural one. */
static void random_edit(lqt_editor *editor, lqt__random *random) {
  static const char *const tensors[] = {"l0.o", "l1.up", "l1.gate", "l0.down"};
  const char *tensor = tensors[lqt__random_below(random, 4)];
  float value = (float)(lqt__random_unit(random) - 0.5);
  uint32_t pair[] = {lqt__random_below(random, 8), lqt__random_below(random, 8)};
  uint8_t keep = (uint8_t)lqt__random_below(random, 2);
  lqt_mutation choices[] = {
      entry(&value, lqt__random_below(random, 16)),
      M(.operation = LQT_EDIT_DELTA_SPARSE, .target = tensor, .coordinates = pair,
        .coordinate_count = 1, .values = &value, .value_count = 1),
      M(.operation = LQT_EDIT_MASK_UPDATE, .target = tensor, .coordinates = pair,
        .coordinate_count = 1, .data = &keep, .bytes = 1),
      M(.operation = LQT_EDIT_TENSOR_SCALE, .target = tensor, .values = &value, .value_count = 1),
      M(.operation = LQT_EDIT_DELTA_REMOVE, .target = tensor),
      M(.operation = LQT_EDIT_MASK_REMOVE, .target = tensor),
      M(.operation = LQT_EDIT_MODULE_BYPASS, .target = "mlp1"),
      M(.operation = LQT_EDIT_MODULE_RESTORE, .target = "mlp1")};
  lqt_diag diag = {0};
  lqt_status status = lqt_edit(editor, &choices[lqt__random_below(random, 8)], NULL, NULL, &diag);
  cr_assert(status == LQT_OK || status == LQT_NOT_FOUND, "%s", diag.what);
}

/* Any sequence of edits, undos and rollbacks: a revision that is brought back has its bytes again,
 * and a process that opens model and journal afterwards has those of the last one. */
Test(journaled, random_sequences) {
  enum { STEPS = 60 };
  lqt_model *model = make_model();
  lqt_editor *editor = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  lqt__random random = lqt__random_seed(7);
  char *states[STEPS + 1] = {NULL};
  size_t sizes[STEPS + 1];
  uint64_t last = 0;
  states[0] = bytes_of(editor, &sizes[0]);
  for (int step = 0; step < 3 * STEPS && last < STEPS; step++) {
    lqt_diag diag = {0};
    uint32_t choice = lqt__random_below(&random, 10);
    uint64_t back = UINT64_MAX;
    if (choice < 7) {
      random_edit(editor, &random);
    } else if (choice == 7) {
      lqt_status status = lqt_edit_undo(editor, NULL, &diag);
      cr_assert(status == LQT_OK || status == LQT_NOT_FOUND, "%s", diag.what);
    } else {
      back = lqt__random_below(&random, (uint32_t)last + 1);
      cr_assert_eq(lqt_editor_rollback(editor, back, NULL, NULL, &diag), LQT_OK, "%s", diag.what);
    }
    uint64_t now = lqt_editor_revision(editor);
    if (now == last) continue;
    cr_assert_eq(now, last + 1);
    last = now;
    states[last] = bytes_of(editor, &sizes[last]);
    if (back != UINT64_MAX) cr_assert(same(editor, states[back], sizes[back]), "to %d", (int)back);
  }
  cr_assert_gt(last, 40);
  lqt_editor_destroy(editor);
  /* As another process would. */
  lqt_journal_report report;
  editor = open_editor(model, LQT_JOURNAL_READ, &report);
  cr_assert_eq(report.transactions, last);
  cr_assert_eq(lqt_editor_revision(editor), last);
  cr_assert(same(editor, states[last], sizes[last]));
  float value = 1;
  lqt_mutation more = norm(&value);
  cr_assert_eq(lqt_edit(editor, &more, NULL, NULL, NULL), LQT_PERMISSION_DENIED);
  lqt_editor_destroy(editor);
  /* And every revision is there to go back to. */
  editor = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  for (uint64_t r = 0; r <= last; r += 7) {
    lqt_diag diag = {0};
    cr_assert_eq(lqt_editor_rollback(editor, r, NULL, NULL, &diag), LQT_OK, "%s", diag.what);
    cr_assert(same(editor, states[r], sizes[r]), "revision %d", (int)r);
  }
  lqt_editor_destroy(editor);
  for (size_t i = 0; i <= last; i++) lqt__free(states[i]);
  lqt_model_release(model);
}

Test(journaled, one_writer_and_followers) {
  lqt_model *model = make_model();
  lqt_editor *writer = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  lqt_editor *follower = open_editor(model, LQT_JOURNAL_FOLLOW, NULL), *second;
  size_t applied;
  float values[] = {0.5f, -0.25f, 2};
  lqt_mutation first = entry(&values[0], 1), other = entry(&values[1], 1), scale = norm(&values[2]);
  cr_assert_eq(lqt_editor_follow(follower, &applied, NULL), LQT_OK);
  cr_assert_eq(applied, 0);
  cr_assert_eq(commit(writer, &first, NULL), 1);
  cr_assert_eq(lqt_editor_create(model, &second, NULL), LQT_OK);
  cr_assert_eq(lqt_editor_open_journal(second, LQT_JOURNAL_WRITE, NULL, NULL, NULL), LQT_LOCKED);
  lqt_editor_destroy(second);
  cr_assert_eq(commit(writer, &other, NULL), 2);
  lqt_diag diag = {0};
  cr_assert_eq(lqt_editor_follow(follower, &applied, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(applied, 2);
  cr_assert_eq(value_of(follower, 1), -0.25f);
  /* Through a compaction. */
  cr_assert_eq(lqt_editor_compact(writer, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(commit(writer, &scale, NULL), 3);
  cr_assert_eq(lqt_editor_rollback(writer, 1, NULL, NULL, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_editor_follow(follower, &applied, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_editor_revision(follower), 4);
  cr_assert_eq(value_of(follower, 1), 0.5f);
  lqt_editor_destroy(writer);
  lqt_editor_destroy(follower);
  lqt_model_release(model);
  /* The new base has revision 2, and the journal goes on from there. */
  lqt_journal_report report;
  cr_assert_eq(lqt_model_open(path, NULL, &model, NULL), LQT_OK);
  writer = open_editor(model, LQT_JOURNAL_WRITE, &report);
  cr_assert_eq(report.transactions, 2);
  cr_assert_eq(lqt_editor_revision(writer), 4);
  cr_assert_eq(value_of(writer, 1), 0.5f);
  lqt_editor_destroy(writer);
  lqt_model_release(model);
}

/* A journal that was deleted and begun anew has nothing to do with what a follower has. */
Test(journaled, followers_of_a_journal_that_was_started_over) {
  lqt_model *model = make_model();
  lqt_editor *writer = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  lqt_editor *follower = open_editor(model, LQT_JOURNAL_FOLLOW, NULL);
  float values[] = {0.5f, -0.25f};
  lqt_mutation first = entry(&values[0], 1), other = entry(&values[1], 2);
  char journal[300];
  size_t applied;
  snprintf(journal, sizeof journal, "%s.journal", path);
  cr_assert_eq(commit(writer, &first, NULL), 1);
  cr_assert_eq(lqt_editor_follow(follower, &applied, NULL), LQT_OK);
  cr_assert_eq(applied, 1);
  lqt_editor_destroy(writer);
  cr_assert_eq(unlink(journal), 0);
  cr_assert_eq(lqt_editor_follow(follower, &applied, NULL), LQT_OK); /* for now there is none */
  writer = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  cr_assert_eq(commit(writer, &other, NULL), 1);
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(lqt_editor_follow(follower, &applied, NULL), LQT_STALE_REVISION);
    cr_assert_eq(applied, 0);
  }
  cr_assert_eq(commit(writer, &first, NULL), 2);
  cr_assert_eq(lqt_editor_follow(follower, &applied, NULL), LQT_STALE_REVISION);
  cr_assert_eq(lqt_editor_revision(follower), 1);
  cr_assert_eq(value_of(follower, 1), 0.5f);
  lqt_editor_destroy(writer);
  lqt_editor_destroy(follower);
  lqt_model_release(model);
}

Test(journaled, temporary_edits) {
  lqt_model *model = make_model();
  lqt_editor *editor = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  float was = value_of(editor, 4), value = 0.125f, third = 3;
  lqt_mutation edit = entry(&value, 4), later = norm(&third);
  lqt_commit_options brief = {.size = sizeof brief, .expires_ms = 30};
  size_t reverted = 0;
  cr_assert_eq(commit(editor, &edit, &brief), 1);
  cr_assert_eq(commit(editor, &later, NULL), 2);
  cr_assert_eq(value_of(editor, 4), 0.125f);
  for (int i = 0; i < 500 && value_of(editor, 4) != was; i++) {
    size_t now;
    usleep(2000);
    cr_assert_eq(lqt_editor_expire(editor, &now, NULL), LQT_OK);
    reverted += now;
  }
  cr_assert_eq(value_of(editor, 4), was);
  cr_assert_eq(lqt_editor_revision(editor), 3);
  /* One that its writer does not live to take back. */
  brief.expires_ms = 1000000;
  cr_assert_eq(commit(editor, &edit, &brief), 4);
  cr_assert_eq(lqt_editor_compact(editor, NULL), LQT_CONFLICT);
  lqt_editor_destroy(editor);
  lqt_journal_report report;
  editor = open_editor(model, LQT_JOURNAL_READ, &report);
  cr_assert_eq(report.reverted, 1);
  cr_assert_eq(value_of(editor, 4), was);
  lqt_editor_destroy(editor);
  editor = open_editor(model, LQT_JOURNAL_WRITE, &report);
  cr_assert_eq(report.reverted, 1);
  cr_assert_eq(value_of(editor, 4), was);
  cr_assert_eq(lqt_editor_revision(editor), 5);
  lqt_editor_destroy(editor);
  editor = open_editor(model, LQT_JOURNAL_WRITE, &report);
  cr_assert_eq(report.reverted, 0);
  lqt_editor_destroy(editor);
  lqt_model_release(model);
}

static void wait_for_revision(lqt_editor *editor, uint64_t revision) {
  for (int i = 0; i < 2500 && lqt_editor_revision(editor) < revision; i++) usleep(2000);
  cr_assert_eq(lqt_editor_revision(editor), revision);
}

/* Two of the same bytes, over in either order, and one under an edit that was undone: nothing of
 * them is left. */
Test(journaled, temporary_edits_upon_each_other) {
  lqt_model *model = make_model();
  lqt_editor *editor = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  float was = value_of(editor, 4), values[] = {0.125f, 0.25f};
  lqt_mutation edits[] = {entry(&values[0], 4), entry(&values[1], 4)};
  lqt_commit_options brief = {.size = sizeof brief};
  for (uint64_t order = 0; order < 2; order++) {
    brief.expires_ms = order == 0 ? 30 : 90;
    (void)commit(editor, &edits[0], &brief);
    brief.expires_ms = order == 0 ? 90 : 30;
    (void)commit(editor, &edits[1], &brief);
    wait_for_revision(editor, 4 * order + 4);
    cr_assert_eq(value_of(editor, 4), was, "order %d", (int)order);
  }
  brief.expires_ms = 500;
  cr_assert_eq(commit(editor, &edits[0], &brief), 9);
  cr_assert_eq(commit(editor, &edits[1], NULL), 10);
  cr_assert_eq(lqt_editor_rollback(editor, 9, NULL, NULL, NULL), LQT_OK);
  wait_for_revision(editor, 12);
  cr_assert_eq(value_of(editor, 4), was);
  /* Two that nobody is left to take back. */
  brief.expires_ms = 1000000;
  (void)commit(editor, &edits[0], &brief);
  (void)commit(editor, &edits[1], &brief);
  lqt_editor_destroy(editor);
  for (int mode = LQT_JOURNAL_READ; mode <= LQT_JOURNAL_WRITE; mode += LQT_JOURNAL_WRITE) {
    lqt_journal_report report;
    editor = open_editor(model, (lqt_journal_mode)mode, &report);
    cr_assert_eq(report.reverted, 2);
    cr_assert_eq(value_of(editor, 4), was, "mode %d", mode);
    lqt_editor_destroy(editor);
  }
  lqt_model_release(model);
}

/* A temporary delta of a tensor whose descriptor was changed since: the model can be opened. */
Test(journaled, temporary_structure_under_another_edit) {
  lqt_model *model = make_model();
  lqt_editor *editor = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  float half = 0.5f, two = 2;
  uint32_t pair[] = {1, 2};
  lqt_mutation delta = M(.operation = LQT_EDIT_DELTA_SPARSE, .target = "l1.up", .coordinates = pair,
                         .coordinate_count = 1, .values = &half, .value_count = 1);
  lqt_mutation scale =
      M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "l1.up", .values = &two, .value_count = 1);
  lqt_commit_options brief = {.size = sizeof brief, .expires_ms = 1000000};
  (void)commit(editor, &delta, &brief);
  (void)commit(editor, &scale, NULL);
  lqt_editor_destroy(editor);
  for (int mode = LQT_JOURNAL_READ; mode <= LQT_JOURNAL_WRITE; mode += LQT_JOURNAL_WRITE) {
    lqt_journal_report report;
    editor = open_editor(model, (lqt_journal_mode)mode, &report);
    cr_assert_eq(report.reverted, 1);
    lqt_editor_destroy(editor);
  }
  lqt_model_release(model);
}

Test(journaled, edits_for_some_steps_and_impact) {
  tiny_spec spec = tiny_default();
  fixture f;
  spec.quantized = true;
  fixture_open(&f, &spec, "cpu");
  lqt_editor *editor;
  cr_assert_eq(lqt_editor_create(f.model, &editor, NULL), LQT_OK);
  cr_assert_eq(lqt_editor_attach(editor, f.engine, NULL), LQT_OK);
  lqt_session *session = fixture_session(&f, 1, 0, 0);
  (void)fixture_sequence(session);
  float value = 0.875f;
  lqt_mutation edit = entry(&value, 4);
  lqt_commit_options brief = {.size = sizeof brief, .expires_steps = 2};
  cr_assert_eq(commit(editor, &edit, &brief), 1);
  static const uint64_t revisions[] = {1, 1, 2, 2};
  for (int i = 0; i < 4; i++) {
    int32_t token = 5;
    lqt_step_input input = {0, LQT_LOGITS_LAST, &token, 1};
    lqt_step_result result;
    cr_assert_eq(lqt_session_step(session, &input, 1, &result, NULL), LQT_OK);
    cr_assert_eq(result.revision, revisions[i], "step %d", i);
  }
  /* Codebook 3 is that of l0.o alone: the uses of its vectors are the tensor. */
  uint64_t sum = 0;
  size_t index;
  lqt_tensor_info info;
  for (uint32_t v = 0; v < TINY_CODEBOOK_ENTRIES; v++) {
    lqt_impact impact;
    lqt_mutation one = entry(&value, v);
    cr_assert_eq(lqt_editor_impact(editor, &one, &impact, NULL), LQT_OK);
    cr_assert_eq(impact.tensors, 1);
    cr_assert_gt(impact.bytes, 0);
    sum += impact.weights;
  }
  cr_assert_eq(lqt_model_find_tensor(f.model, "l0.o", &index), LQT_OK);
  cr_assert_eq(lqt_model_tensor(f.model, index, &info), LQT_OK);
  cr_assert_eq(sum, (uint64_t)info.shape[0] * info.shape[1]);
  lqt_editor_destroy(editor);
  lqt_session_destroy(session);
  fixture_close(&f);
}

typedef struct other_thread {
  lqt_editor *editor;
  const lqt_mutation *mutation;
} other_thread;

static void *edit_elsewhere(void *argument) {
  const other_thread *other = argument;
  (void)commit(other->editor, other->mutation, NULL);
  return NULL;
}

static void elsewhere(lqt_editor *editor, const lqt_mutation *mutation) {
  pthread_t thread;
  other_thread other = {editor, mutation};
  cr_assert_eq(pthread_create(&thread, NULL, edit_elsewhere, &other), 0);
  pthread_join(thread, NULL);
}

Test(journaled, transactions) {
  lqt_model *model = make_model();
  lqt_editor *editor = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  lqt_transaction *t, *inner;
  lqt_diag diag = {0};
  float values[] = {0.5f, 0.25f, NAN, 2};
  float was = value_of(editor, 1);
  lqt_mutation a = entry(&values[0], 1), b = entry(&values[1], 2), bad = entry(&values[2], 3);
  lqt_mutation scale = norm(&values[3]);
  uint64_t revision;
  cr_assert_eq(lqt_transaction_begin(editor, 1, &t, &diag), LQT_STALE_REVISION);
  cr_assert_null(t);
  cr_assert_eq(lqt_transaction_begin(editor, 0, &t, &diag), LQT_OK);
  cr_assert_eq(lqt_transaction_begin(editor, LQT_REVISION_ANY, &inner, &diag), LQT_CONFLICT);
  cr_assert_eq(lqt_transaction_add(t, &a, &diag), LQT_OK);
  cr_assert_eq(lqt_transaction_add(t, &bad, &diag), LQT_NOT_FINITE);
  cr_assert_eq(lqt_transaction_add(t, &b, &diag), LQT_OK);
  cr_assert_eq(lqt_transaction_count(t), 2);
  cr_assert_eq(value_of(editor, 1), was); /* nobody sees it yet */
  cr_assert_eq(lqt_transaction_validate(t, NULL, &diag), LQT_OK);
  elsewhere(editor, &scale); /* other bytes: no conflict */
  cr_assert_eq(lqt_transaction_commit(t, NULL, &revision, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(revision, 2);
  cr_assert_eq(value_of(editor, 1), 0.5f);
  cr_assert_eq(value_of(editor, 2), 0.25f);
  /* The same bytes. */
  cr_assert_eq(lqt_transaction_begin(editor, 2, &t, &diag), LQT_OK);
  cr_assert_eq(lqt_transaction_add(t, &a, &diag), LQT_OK);
  values[1] = 0.75f;
  lqt_mutation again = entry(&values[1], 1);
  lqt_mutation other = entry(&values[3], 1);
  cr_assert_eq(lqt_transaction_add(t, &again, &diag), LQT_OK);
  elsewhere(editor, &other);
  cr_assert_eq(lqt_transaction_commit(t, NULL, &revision, &diag), LQT_CONFLICT);
  cr_assert_eq(revision, 0);
  cr_assert_eq(value_of(editor, 1), 2);
  /* All or nothing, and part. */
  lqt_mutation mixed[] = {b, bad, scale};
  lqt_status results[3];
  values[3] = 1.5f;
  cr_assert_eq(lqt_edit_batch(editor, mixed, 3, false, NULL, results, &revision, &diag),
               LQT_NOT_FINITE);
  cr_assert_eq(results[1], LQT_NOT_FINITE);
  cr_assert_eq(lqt_editor_revision(editor), 3);
  cr_assert_eq(lqt_edit_batch(editor, mixed, 3, true, NULL, results, &revision, &diag), LQT_OK);
  cr_assert_eq(revision, 4);
  cr_assert(results[0] == LQT_OK && results[1] == LQT_NOT_FINITE && results[2] == LQT_OK);
  cr_assert_eq(lqt_edit_batch(editor, &bad, 1, true, NULL, results, &revision, &diag),
               LQT_NOT_FINITE);
  cr_assert_eq(lqt_transaction_begin(editor, LQT_REVISION_ANY, &t, &diag), LQT_OK);
  cr_assert_eq(lqt_transaction_commit(t, NULL, &revision, &diag), LQT_INVALID_ARGUMENT);
  cr_assert_eq(lqt_edit_undo_many(editor, 4, NULL, &revision, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(value_of(editor, 1), was);
  cr_assert_eq(lqt_edit_undo(editor, &revision, &diag), LQT_NOT_FOUND);
  cr_assert_eq(lqt_editor_rollback(editor, 99, NULL, NULL, &diag), LQT_OUT_OF_RANGE);
  lqt_editor_destroy(editor);
  lqt_model_release(model);
}

Test(journaled, trials) {
  tiny_spec spec = tiny_default();
  fixture f;
  spec.quantized = true;
  fixture_open(&f, &spec, "cpu");
  lqt_editor *editor;
  cr_assert_eq(lqt_editor_create(f.model, &editor, NULL), LQT_OK);
  static const int32_t tokens[] = {5, 18, 40, 2, 61, 33, 7, 7};
  lqt_commit_options options = {.size = sizeof options,
                                .trial_tokens = tokens,
                                .trial_token_count = 8,
                                .trial_loss_limit = 100};
  for (int attached = 0; attached < 2; attached++) {
    float huge = 3e38f, fine = 1.25f;
    lqt_mutation bad = norm(&huge), good = norm(&fine);
    lqt_diag diag = {0};
    uint64_t revision = lqt_editor_revision(editor);
    if (attached) cr_assert_eq(lqt_editor_attach(editor, f.engine, &diag), LQT_OK);
    cr_assert_eq(lqt_edit(editor, &bad, &options, NULL, &diag), LQT_NOT_FINITE, "%s", diag.what);
    options.trial_loss_limit = 1e-6;
    cr_assert_eq(lqt_edit(editor, &good, &options, NULL, &diag), LQT_VALIDATION_FAILED);
    cr_assert_eq(lqt_editor_revision(editor), revision);
    options.trial_loss_limit = 100;
    cr_assert_eq(lqt_edit(editor, &good, &options, NULL, &diag), LQT_OK, "%s", diag.what);
    cr_assert_eq(lqt_edit_undo(editor, NULL, &diag), LQT_OK);
  }
  lqt_editor_destroy(editor);
  fixture_close(&f);
}

/* Writes the model with another graph flag, rules, and a codebook with room. */
static void rewrite(lqt_model *model, const char *to, const char *rules, bool swappable) {
  lqt__file file = model->file;
  lqt__tensor *tensors = malloc(file.tensor_count * sizeof *tensors);
  lqt__chunk chunks[4];
  memcpy(tensors, file.tensors, file.tensor_count * sizeof *tensors);
  for (size_t i = 0; swappable && i < file.tensor_count; i++) {
    tensors[i].flags |= LQT__TENSOR_HOT_SWAPPABLE;
  }
  memcpy(chunks, file.chunks, file.chunk_count * sizeof *chunks);
  if (rules != NULL) {
    chunks[file.chunk_count++] =
        (lqt__chunk){LQT__CHUNK_MUTATION_RULES, (const uint8_t *)rules, (uint32_t)strlen(rules)};
  }
  file.tensors = tensors;
  file.chunks = chunks;
  lqt__writer *writer;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__writer_begin(to, &file, &writer, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt__writer_finish(writer, NULL, &diag), LQT_OK, "%s", diag.what);
  free(tensors);
}

Test(journaled, exchanged_modules) {
  lqt_model *tiny = make_model(), *model;
  char main_path[300], donor[300], changed[300];
  snprintf(main_path, sizeof main_path, "%s.main", path);
  snprintf(donor, sizeof donor, "%s.donor", path);
  snprintf(changed, sizeof changed, "%s.changed", path);
  rewrite(tiny, main_path, NULL, true);
  lqt_editor *editor;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_editor_create(tiny, &editor, NULL), LQT_OK);
  float half = 0.5f;
  lqt_mutation edit = M(.operation = LQT_EDIT_TENSOR_MULTIPLY, .target = "l1.up", .values = &half,
                        .value_count = 1);
  (void)commit(editor, &edit, NULL);
  cr_assert_eq(lqt_editor_save(editor, donor, NULL), LQT_OK);
  cr_assert_eq(lqt_editor_save(editor, changed, NULL), LQT_OK);
  lqt_editor_destroy(editor);
  lqt_model_release(tiny);

  cr_assert_eq(lqt_model_open(main_path, NULL, &model, NULL), LQT_OK);
  editor = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  struct {
    lqt_status status;
    lqt_mutation mutation;
  } cases[] = {
      {LQT_NOT_FOUND, M(.operation = LQT_EDIT_MODULE_SWAP, .target = "mlp0", .file = "/none")},
      {LQT_REPLACEMENT_INVALID,
       M(.operation = LQT_EDIT_MODULE_SWAP, .target = "mlp0", .file = "/proc/self/exe")},
      {LQT_REPLACEMENT_INVALID,
       M(.operation = LQT_EDIT_MODULE_SWAP, .target = "mlp0", .other = "mlp9", .file = donor)},
      {LQT_INCOMPATIBLE_INTERFACE,
       M(.operation = LQT_EDIT_MODULE_SWAP, .target = "mlp0", .other = "attn0", .file = donor)},
      {LQT_NOT_FOUND, M(.operation = LQT_EDIT_MODULE_SWAP, .target = "mlp9", .file = donor)},
      {LQT_INVALID_ARGUMENT, M(.operation = LQT_EDIT_MODULE_SWAP, .target = "mlp0")}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    lqt_status status = lqt_edit(editor, &cases[i].mutation, NULL, NULL, &diag);
    cr_assert_eq(status, cases[i].status, "%zu: %s %s", i, lqt_status_name(status), diag.what);
  }
  lqt_mutation swap =
      M(.operation = LQT_EDIT_MODULE_SWAP, .target = "mlp0", .other = "mlp1", .file = donor);
  size_t bytes, before_bytes;
  char *before = bytes_of(editor, &before_bytes);
  char *slash = strrchr(donor, '/');
  *slash = '\0';
  cr_assert_eq(chdir(donor), 0);
  *slash = '/';
  swap.file = slash + 1;
  cr_assert_eq(commit(editor, &swap, NULL), 1);
  cr_assert_eq(chdir("/"), 0);
  char *now = bytes_of(editor, &bytes);
  lqt_editor_destroy(editor);
  /* Replayed from the other file, which has to be the same. */
  editor = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  cr_assert(same(editor, now, bytes));
  cr_assert_eq(lqt_edit_undo(editor, NULL, &diag), LQT_OK, "%s", diag.what);
  cr_assert(same(editor, before, before_bytes));
  lqt_editor_destroy(editor);
  lqt_journal *journal;
  lqt_journal_operation_info operation;
  cr_assert_eq(lqt_journal_open(model, NULL, &journal, NULL), LQT_OK);
  cr_assert_eq(lqt_journal_operation(journal, 0, 0, &operation, NULL), LQT_OK);
  cr_assert_eq(operation.file[0], '/'); /* whatever folder it is replayed from */
  lqt_journal_close(journal);
  /* The journal would have no base then. */
  cr_assert_eq(lqt_editor_create(model, &editor, NULL), LQT_OK);
  cr_assert_eq(lqt_editor_open_journal(editor, LQT_JOURNAL_READ, NULL, NULL, NULL), LQT_OK);
  cr_assert_eq(lqt_editor_save(editor, main_path, &diag), LQT_CONFLICT);
  lqt_editor_destroy(editor);
  cr_assert_eq(rename(changed, donor), 0);
  cr_assert_eq(lqt_editor_create(model, &editor, NULL), LQT_OK);
  cr_assert_eq(lqt_editor_open_journal(editor, LQT_JOURNAL_READ, NULL, NULL, &diag),
               LQT_REPLACEMENT_INVALID);
  lqt_editor_destroy(editor);
  lqt__free(before);
  lqt__free(now);
  lqt_model_release(model);
}

/* The list of what is bypassed is the file's word: anything may stand there. */
Test(journaled, strange_list_of_bypassed_modules) {
  static const char *const lists[] = {"[{}, 3, {\"id\": 4}, null]", "7", "[{\"id\": \"mlp1\"}]"};
  lqt_model *tiny = make_model(), *model;
  char strange[300], text[1 << 15];
  snprintf(strange, sizeof strange, "%s.strange", path);
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    lqt__file file = tiny->file;
    lqt__chunk chunks[4];
    lqt__writer *writer;
    lqt_editor *editor;
    lqt_diag diag = {0};
    memcpy(chunks, file.chunks, file.chunk_count * sizeof *chunks);
    for (size_t k = 0; k < file.chunk_count; k++) {
      if (chunks[k].type != LQT__CHUNK_MODULES) continue;
      int bytes = snprintf(text, sizeof text, "{\"bypassed\": %s, %.*s", lists[i],
                           (int)chunks[k].bytes - 1, (const char *)chunks[k].data + 1);
      cr_assert_lt(bytes, (int)sizeof text);
      chunks[k].data = (const uint8_t *)text;
      chunks[k].bytes = (uint32_t)bytes;
    }
    file.chunks = chunks;
    cr_assert_eq(lqt__writer_begin(strange, &file, &writer, &diag), LQT_OK, "%s", diag.what);
    cr_assert_eq(lqt__writer_finish(writer, NULL, &diag), LQT_OK, "%s", diag.what);
    cr_assert_eq(lqt_model_open(strange, NULL, &model, &diag), LQT_OK, "%s", diag.what);
    cr_assert_eq(lqt_editor_create(model, &editor, NULL), LQT_OK);
    lqt_mutation restore = M(.operation = LQT_EDIT_MODULE_RESTORE, .target = "mlp1");
    cr_assert_neq(lqt_edit(editor, &restore, NULL, NULL, &diag), LQT_OK);
    lqt_mutation bypass = M(.operation = LQT_EDIT_MODULE_BYPASS, .target = "mlp1");
    lqt_status status = lqt_edit(editor, &bypass, NULL, NULL, &diag);
    cr_assert(i == 1 ? status != LQT_OK : status == LQT_OK, "%zu: %s", i, diag.what);
    lqt_editor_destroy(editor);
    lqt_model_release(model);
  }
  lqt_model_release(tiny);
}

Test(journaled, rules) {
  lqt_model *tiny = make_model(), *model;
  char ruled[300];
  snprintf(ruled, sizeof ruled, "%s.ruled", path);
  rewrite(tiny, ruled,
          "{\"min_mask_density\": 90, \"value_bounds\": [-2, 2], \"deny\": [\"tensor_clone\"],"
          " \"targets\": [{\"match\": \"l0.*\", \"value_bounds\": [-1, 1]},"
          " {\"match\": \"l1.up\", \"deny\": [\"*\"]}]}",
          false);
  cr_assert_eq(lqt_model_open(ruled, NULL, &model, NULL), LQT_OK);
  lqt_editor *editor = open_editor(model, LQT_JOURNAL_WRITE, NULL);
  float three = 3, one_and_half = 1.5f, half = 0.5f;
  uint8_t bits[4096] = {0xff};
  struct {
    lqt_status status;
    lqt_mutation mutation;
  } cases[] = {{LQT_VALIDATION_FAILED, M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "norm",
                                         .values = &three, .value_count = 1)},
               {LQT_OK, M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "norm",
                          .values = &one_and_half, .value_count = 1)},
               {LQT_VALIDATION_FAILED, M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "l0.o",
                                         .values = &one_and_half, .value_count = 1)},
               {LQT_PERMISSION_DENIED, M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "l1.up",
                                         .values = &half, .value_count = 1)},
               {LQT_PERMISSION_DENIED,
                M(.operation = LQT_EDIT_TENSOR_CLONE, .target = "l0.o", .other = "x")}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    lqt_diag diag = {0};
    lqt_status status = lqt_edit(editor, &cases[i].mutation, NULL, NULL, &diag);
    cr_assert_eq(status, cases[i].status, "%zu: %s %s", i, lqt_status_name(status), diag.what);
  }
  size_t index;
  lqt_tensor_info info;
  cr_assert_eq(lqt_model_find_tensor(model, "l0.o", &index), LQT_OK);
  cr_assert_eq(lqt_model_tensor(model, index, &info), LQT_OK);
  size_t bytes = info.shape[0] * ((info.shape[1] + 63) / 64 * 8);
  cr_assert_leq(bytes, sizeof bits);
  memset(bits, 0x7f, bytes);
  lqt_mutation mask =
      M(.operation = LQT_EDIT_MASK_REPLACE, .target = "l0.o", .data = bits, .bytes = bytes);
  cr_assert_eq(lqt_edit(editor, &mask, NULL, NULL, NULL), LQT_VALIDATION_FAILED);
  lqt_editor_destroy(editor);
  lqt_model_release(model);
  rewrite(tiny, ruled, "{\"deny\": [\"everything\"]}", false);
  cr_assert_eq(lqt_model_open(ruled, NULL, &model, NULL), LQT_OK);
  cr_assert_eq(lqt_editor_create(model, &editor, NULL), LQT_BAD_METADATA);
  lqt_model_release(model);
  lqt_model_release(tiny);
}

/* Makes codebook TINY_PLAIN one of twelve vectors that may grow, with room for `capacity`. */
static void write_expandable(lqt_model *model, const char *to, uint32_t capacity) {
  lqt__file file = model->file;
  lqt__tensor *tensors = malloc(file.tensor_count * sizeof *tensors);
  lqt__codebook *codebooks = malloc(file.codebook_count * sizeof *codebooks);
  memcpy(tensors, file.tensors, file.tensor_count * sizeof *tensors);
  memcpy(codebooks, file.codebooks, file.codebook_count * sizeof *codebooks);
  lqt__codebook *codebook = &codebooks[lqt__file_find_codebook(&file, TINY_PLAIN)];
  uint8_t section[LQT__SECTION_HEAD + 32], *indices = NULL;
  memcpy(section, codebook->blob.data, sizeof section);
  codebook->vectors = 12;
  codebook->capacity = capacity;
  codebook->flags |= LQT__CODEBOOK_EXPANDABLE;
  codebook->blob = (lqt__blob){.data = section, .bytes = LQT__SECTION_HEAD + 2 * capacity};
  (void)lqt__codebook_header(codebook, section);
  for (size_t i = 0; i < file.tensor_count; i++) {
    lqt__blob *payload = &tensors[i].payload;
    if (tensors[i].codebook_id != TINY_PLAIN) continue;
    indices = malloc(payload->bytes);
    for (size_t k = 0; k < payload->bytes; k++) {
      unsigned low = payload->data[k] & 15u, high = payload->data[k] >> 4;
      indices[k] = (uint8_t)((low > 11 ? 11 : low) | (high > 11 ? 11 : high) << 4);
    }
    payload->data = indices;
  }
  file.tensors = tensors;
  file.codebooks = codebooks;
  lqt__writer *writer;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__writer_begin(to, &file, &writer, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt__writer_finish(writer, NULL, &diag), LQT_OK, "%s", diag.what);
  free(indices);
  free(tensors);
  free(codebooks);
}

/* A codebook grows within its room and beyond it; the new vectors can be named then. */
Test(journaled, expanded_codebooks) {
  lqt_model *tiny = make_model(), *model;
  char grown[300];
  snprintf(grown, sizeof grown, "%s.grown", path);
  for (uint32_t capacity = 12; capacity <= 16; capacity += 4) {
    write_expandable(tiny, grown, capacity);
    lqt_diag diag = {0};
    cr_assert_eq(lqt_model_open(grown, NULL, &model, &diag), LQT_OK, "%s", diag.what);
    lqt_editor *editor;
    cr_assert_eq(lqt_editor_create(model, &editor, NULL), LQT_OK);
    size_t bytes;
    char *before = bytes_of(editor, &bytes);
    float values[] = {0.5f, 0.25f, 2, 3, 4};
    uint8_t named = 0xed; /* vectors 13 and 14 */
    lqt_mutation expand = M(.operation = LQT_EDIT_CODEBOOK_EXPAND, .id = TINY_PLAIN,
                            .values = values, .value_count = 3);
    lqt_mutation name =
        M(.operation = LQT_EDIT_RAW_WRITE, .target = "l0.o", .data = &named, .bytes = 1);
    cr_assert_eq(lqt_edit(editor, &name, NULL, NULL, &diag), LQT_OUT_OF_RANGE);
    (void)commit(editor, &expand, NULL);
    cr_assert_eq(value_of(editor, 12), 0.5f);
    cr_assert_eq(value_of(editor, 14), 2);
    (void)commit(editor, &name, NULL);
    cr_assert_eq(lqt_edit(editor, &expand, NULL, NULL, &diag), LQT_OUT_OF_RANGE);
    lqt_model *snapshot;
    size_t index;
    lqt_weight_desc desc;
    cr_assert_eq(lqt_editor_snapshot(editor, &snapshot, &diag), LQT_OK);
    cr_assert_eq(lqt_model_find_tensor(snapshot, "l0.o", &index), LQT_OK);
    cr_assert_eq(lqt_model_weight(snapshot, index, &desc, &diag), LQT_OK, "%s", diag.what);
    cr_assert_eq(desc.codebook.entries, 15);
    lqt_model_release(snapshot);
    cr_assert_eq(lqt_edit_undo_many(editor, 2, NULL, NULL, &diag), LQT_OK, "%s", diag.what);
    cr_assert(same(editor, before, bytes));
    lqt__free(before);
    lqt_editor_destroy(editor);
    lqt_model_release(model);
  }
  lqt_model_release(tiny);
}

Test(journaled, encoding) {
  static const float values[] = {1, -2, 3.5f};
  static const uint32_t pairs[] = {1, 2, 3, 4};
  lqt_mutation mutation =
      M(.operation = LQT_EDIT_DELTA_SPARSE, .target = "a tensor", .id = 7, .dtype = LQT_DTYPE_F16,
        .parameter = 9, .first = 1, .second = 2, .count = 3, .values = values, .value_count = 3,
        .coordinates = pairs, .coordinate_count = 2, .data = "bytes", .bytes = 5);
  uint8_t *bytes, *again;
  uint64_t count, again_count;
  lqt__decoded decoded;
  cr_assert_eq(lqt__mutation_encode(&mutation, &bytes, &count, NULL), LQT_OK);
  cr_assert_eq(lqt__mutation_decode(bytes, count, &decoded, NULL), LQT_OK);
  cr_assert(decoded.complete);
  cr_assert_str_eq(decoded.mutation.target, "a tensor");
  cr_assert_null(decoded.mutation.other);
  cr_assert_arr_eq(decoded.mutation.values, values, sizeof values);
  cr_assert_eq(lqt__mutation_encode(&decoded.mutation, &again, &again_count, NULL), LQT_OK);
  cr_assert(count == again_count && memcmp(bytes, again, count) == 0);
  lqt__free(again);
  lqt__arena_free(&decoded.arena);
  /* Every prefix, and every byte changed, is refused or read, and nothing else. */
  for (uint64_t i = 0; i < count; i++) {
    cr_assert_eq(lqt__mutation_decode(bytes, i, &decoded, NULL), LQT_BAD_JOURNAL);
    for (int bit = 0; bit < 8; bit++) {
      bytes[i] ^= (uint8_t)(1 << bit);
      if (lqt__mutation_decode(bytes, count, &decoded, NULL) == LQT_OK) {
        lqt__arena_free(&decoded.arena);
      }
      bytes[i] ^= (uint8_t)(1 << bit);
    }
  }
  lqt__free(bytes);
}
