/* One editor, many threads: two commit (single edits and transactions that may conflict), temporary
 * edits end by time and by steps, and others step, read and take snapshots meanwhile. What is held
 * is that nothing is lost or torn: every status is one that may come, and in the end the engine
 * computes what a cold one computes of a snapshot. For ThreadSanitizer. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/random.h"
#include "lqt/edit.h"
#include "support/tiny_model.h"

enum { VOCAB = 67, COUNT = 4, EDITS = 150 };

static lqt_editor *editor;
static lqt_engine *engine;
static _Atomic bool finished;
static _Atomic unsigned conflicts, commits, steps;

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

static lqt_mutation some_edit(lqt__random *random, const float *value) {
  if (lqt__random_below(random, 8) == 0) {
    return (lqt_mutation){.size = sizeof(lqt_mutation),
                          .operation = LQT_EDIT_TENSOR_SCALE,
                          .target = "norm",
                          .values = value,
                          .value_count = 1};
  }
  return (lqt_mutation){.size = sizeof(lqt_mutation),
                        .operation = LQT_EDIT_CODEBOOK_ENTRIES,
                        .id = TINY_PLAIN,
                        .first = lqt__random_below(random, 16),
                        .values = value,
                        .value_count = 1};
}

static void *writer(void *seed) {
  lqt__random random = lqt__random_seed((uint64_t)(uintptr_t)seed);
  for (int i = 0; i < EDITS; i++) {
    float value = (float)(0.5 + lqt__random_unit(&random));
    lqt_mutation mutation = some_edit(&random, &value);
    lqt_commit_options options = {.size = sizeof options};
    if (i % 5 == 0) options.expires_ms = 1 + lqt__random_below(&random, 5);
    if (i % 7 == 0) options.expires_steps = 1 + lqt__random_below(&random, 3);
    if (i % 3 != 0) {
      MUST(lqt_edit(editor, &mutation, &options, NULL, &diag));
      atomic_fetch_add(&commits, 1);
      continue;
    }
    lqt_transaction *transaction;
    MUST(lqt_transaction_begin(editor, LQT_REVISION_ANY, &transaction, &diag));
    MUST(lqt_transaction_add(transaction, &mutation, &diag));
    lqt_status status = lqt_transaction_commit(transaction, &options, NULL, NULL);
    if (status != LQT_OK && status != LQT_CONFLICT) MUST(status);
    atomic_fetch_add(status == LQT_OK ? &commits : &conflicts, 1);
  }
  return NULL;
}

static lqt_session *open_session(lqt_engine *of) {
  lqt_session *session;
  uint32_t sequence;
  MUST(lqt_session_create(of, NULL, &session, &diag));
  MUST(lqt_session_sequence_add(session, &sequence, &diag));
  return session;
}

static void run(lqt_session *session) {
  static const int32_t tokens[COUNT] = {5, 18, 40, 2};
  lqt_step_input input = {0, LQT_LOGITS_LAST, tokens, COUNT};
  MUST(lqt_session_sequence_truncate(session, 0, 0, &diag));
  MUST(lqt_session_step(session, &input, 1, NULL, &diag));
}

static void *stepper(void *unused) {
  (void)unused;
  lqt_session *session = open_session(engine);
  while (!atomic_load(&finished)) {
    run(session);
    atomic_fetch_add(&steps, 1);
  }
  lqt_session_destroy(session);
  return NULL;
}

static void *reader(void *unused) {
  (void)unused;
  while (!atomic_load(&finished)) {
    float value;
    uint8_t bytes[8];
    lqt_model *snapshot;
    MUST(lqt_editor_codebook_entry(editor, TINY_PLAIN, 3, &value, 1, &diag));
    MUST(lqt_editor_read(editor, "l0.o", 0, sizeof bytes, bytes, &diag));
    MUST(lqt_editor_snapshot(editor, &snapshot, &diag));
    lqt_model_release(snapshot);
    (void)lqt_editor_revision(editor);
  }
  return NULL;
}

int main(void) {
  tiny_model tiny;
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  const char *path = tiny_path("stress.lqt");
  tiny_create(&spec, path, &tiny);
  lqt_model *model, *last;
  lqt_device *device;
  lqt_device_options options = {.size = sizeof options, .threads = 1};
  MUST(lqt_model_open(path, NULL, &model, &diag));
  MUST(lqt_device_open("cpu", &options, &device, &diag));
  MUST(lqt_engine_create(model, device, &engine, &diag));
  MUST(lqt_editor_create(model, &editor, &diag));
  MUST(lqt_editor_open_journal(editor, LQT_JOURNAL_WRITE, NULL, NULL, &diag));
  MUST(lqt_editor_attach(editor, engine, &diag));
  pthread_t threads[5];
  void *(*const work[5])(void *) = {writer, writer, stepper, stepper, reader};
  for (uintptr_t i = 0; i < 5; i++) {
    if (pthread_create(&threads[i], NULL, work[i], (void *)(i + 1)) != 0) return 1;
  }
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  atomic_store(&finished, true);
  for (int i = 2; i < 5; i++) pthread_join(threads[i], NULL);

  lqt_session *live = open_session(engine), *cold;
  lqt_engine *fresh;
  usleep(50000); /* what has a time is over then, and what has steps after some more */
  for (int i = 0; i < 5; i++) run(live);
  MUST(lqt_editor_snapshot(editor, &last, &diag));
  MUST(lqt_engine_create(last, device, &fresh, &diag));
  cold = open_session(fresh);
  run(cold);
  bool same = memcmp(lqt_session_logits(live, 0, 0), lqt_session_logits(cold, 0, 0),
                     VOCAB * sizeof(float)) == 0;
  printf("%u commits, %u conflicts, %u steps; the engine %s the editor\n", atomic_load(&commits),
         atomic_load(&conflicts), atomic_load(&steps), same ? "has what" : "differs from");
  lqt_session_destroy(live);
  lqt_session_destroy(cold);
  lqt_engine_destroy(fresh);
  lqt_editor_destroy(editor);
  lqt_engine_destroy(engine);
  lqt_device_release(device);
  lqt_model_release(last);
  lqt_model_release(model);
  tiny_free(&tiny);
  return same && atomic_load(&steps) > 10 ? 0 : 1;
}
