/* Steps of several threads against edits of another: the logits of every step must be, bit for bit,
 * those of exactly the revision that the step reports.
 *
 * The editor walks through a fixed list of edits and undoes, so that revision r always means the
 * same weights; the logits of each are computed beforehand on an engine of their own. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "lqt/edit.h"
#include "support/tiny_model.h"

enum { VOCAB = 67, COUNT = 6, THREADS = 3, REVISIONS = 400 };

static lqt_model *model;
static lqt_device *device;
static float expected[REVISIONS + 1][VOCAB];
static _Atomic bool finished;
static _Atomic unsigned failures, steps, mixed;

#define MUST(call)                                                                        \
  do {                                                                                    \
    lqt_diag diag = {0};                                                                  \
    lqt_status must_status = (call);                                                      \
    if (must_status != LQT_OK) {                                                          \
      fprintf(stderr, "%s:%d: %s %s\n", __FILE__, __LINE__, lqt_status_name(must_status), \
              diag.what);                                                                 \
      exit(1);                                                                            \
    }                                                                                     \
  } while (0)

/* Edit number `revision` of the list: every third one takes the last edit back. */
static void next_edit(lqt_editor *editor, uint64_t revision) {
  lqt__random random = lqt__random_seed(revision);
  uint64_t got;
  if (revision % 3 == 0) {
    MUST(lqt_edit_undo(editor, &got, &diag));
  } else {
    uint16_t codebook = lqt__random_below(&random, 2) != 0 ? TINY_SHARED : TINY_PLAIN;
    float value = (float)(lqt__random_unit(&random) * 2 - 1);
    uint32_t vector = lqt__random_below(&random, TINY_CODEBOOK_ENTRIES);
    MUST(lqt_edit_codebook_entry(editor, codebook, vector, &value, 1, &got, &diag));
  }
  if (got != revision) {
    fprintf(stderr, "edit %llu became revision %llu\n", (unsigned long long)revision,
            (unsigned long long)got);
    exit(1);
  }
}

static uint64_t run(lqt_session *session) {
  static const int32_t tokens[COUNT] = {5, 18, 40, 2, 61, 33};
  lqt_step_input input = {0, LQT_LOGITS_LAST, tokens, COUNT};
  lqt_step_result result;
  MUST(lqt_session_sequence_truncate(session, 0, 0, &diag));
  MUST(lqt_session_step(session, &input, 1, &result, &diag));
  return result.revision;
}

static lqt_session *open_session(lqt_engine *engine) {
  lqt_session *session;
  uint32_t sequence;
  MUST(lqt_session_create(engine, NULL, &session, &diag));
  MUST(lqt_session_sequence_add(session, &sequence, &diag));
  return session;
}

static void *reader(void *engine) {
  lqt_session *session = open_session(engine);
  uint64_t last = 0;
  while (!atomic_load(&finished)) {
    uint64_t revision = run(session);
    const float *logits = lqt_session_logits(session, 0, 0);
    if (revision < last || revision > REVISIONS ||
        memcmp(logits, expected[revision], sizeof expected[revision]) != 0) {
      fprintf(stderr, "a step of revision %llu has other logits\n", (unsigned long long)revision);
      atomic_fetch_add(&failures, 1);
    }
    atomic_fetch_add(&mixed, revision != last);
    atomic_fetch_add(&steps, 1);
    last = revision;
  }
  lqt_session_destroy(session);
  return NULL;
}

static void precompute(void) {
  lqt_engine *engine;
  lqt_editor *editor;
  MUST(lqt_engine_create(model, device, &engine, &diag));
  MUST(lqt_editor_create(model, &editor, &diag));
  MUST(lqt_editor_attach(editor, engine, &diag));
  lqt_session *session = open_session(engine);
  for (uint64_t r = 0; r <= REVISIONS; r++) {
    if (r > 0) next_edit(editor, r);
    (void)run(session);
    memcpy(expected[r], lqt_session_logits(session, 0, 0), sizeof expected[r]);
  }
  lqt_session_destroy(session);
  lqt_editor_destroy(editor);
  lqt_engine_destroy(engine);
}

int main(void) {
  tiny_model tiny;
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  const char *path = tiny_path("stress.lqt");
  tiny_create(&spec, path, &tiny);
  lqt_device_options options = {.size = sizeof options, .threads = 1};
  MUST(lqt_model_open(path, NULL, &model, &diag));
  MUST(lqt_device_open("cpu", &options, &device, &diag));
  precompute();

  lqt_engine *engines[2];
  lqt_editor *editor;
  pthread_t threads[THREADS];
  MUST(lqt_editor_create(model, &editor, &diag));
  for (int i = 0; i < 2; i++) {
    MUST(lqt_engine_create(model, device, &engines[i], &diag));
    MUST(lqt_editor_attach(editor, engines[i], &diag));
  }
  for (int i = 0; i < THREADS; i++) {
    if (pthread_create(&threads[i], NULL, reader, engines[i % 2]) != 0) return 1;
  }
  for (uint64_t r = 1; r <= REVISIONS; r++) {
    next_edit(editor, r);
    /* In bursts, so that some steps wait for the gate and some edits do. */
    unsigned seen = atomic_load(&steps);
    while (r % 4 == 0 && atomic_load(&steps) == seen) sched_yield();
  }
  atomic_store(&finished, true);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);

  printf("%u steps met %u of %d revisions, %u failures\n", atomic_load(&steps), atomic_load(&mixed),
         REVISIONS, atomic_load(&failures));
  bool met_edits = atomic_load(&mixed) > REVISIONS / 16;
  lqt_editor_destroy(editor);
  for (int i = 0; i < 2; i++) lqt_engine_destroy(engines[i]);
  lqt_device_release(device);
  lqt_model_release(model);
  tiny_free(&tiny);
  return atomic_load(&failures) != 0 || !met_edits;
}
