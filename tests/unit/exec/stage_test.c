#include <criterion/criterion.h>
#include <string.h>

#include "base/alloc.h"
#include "base/random.h"
#include "exec/engine.h"
#include "fixture.h"
#include "kernel/weight.h"
#include "lqt/patch.h"

enum { COUNT = 9, VOCAB = 67, MAX_CHANGES = 24 };

typedef struct edits {
  lqt__engine_change list[MAX_CHANGES];
  void *memory[2 * MAX_CHANGES];
  size_t count;
} edits;

static const void *part_data(const lqt_weight_desc *desc, lqt_weight_part part) {
  switch (part) {
    case LQT_PART_CODEBOOK:
      return desc->codebook.vectors;
    case LQT_PART_GROUP_SCALES:
      return desc->group_scales;
    case LQT_PART_INDICES:
      return desc->indices.data;
    case LQT_PART_SCALE:
      return &desc->scale;
    default:
      return desc->data;
  }
}

/* A random change of a part of one tensor, from what the model's file says. */
static void add_edit(edits *e, const fixture *f, size_t tensor, lqt_weight_part part,
                     lqt__random *random) {
  lqt_weight_desc desc;
  cr_assert_eq(lqt_model_weight(f->model, tensor, &desc, NULL), LQT_OK);
  uint64_t have = lqt__weight_part_count(&desc, part), size = lqt__weight_part_size(&desc, part);
  uint64_t first = lqt__random_below(random, (uint32_t)have);
  uint64_t count = 1 + lqt__random_below(random, (uint32_t)(have - first));
  uint8_t *now = malloc(count * size), *old = malloc(count * size);
  memcpy(old, (const uint8_t *)part_data(&desc, part) + first * size, count * size);
  for (uint64_t i = 0; i < count * size; i++) now[i] = (uint8_t)lqt__random_below(random, 256);
  for (uint64_t i = 0; i < count && part != LQT_PART_INDICES; i++) { /* finite values */
    uint16_t half = (uint16_t)(0x2C00 + lqt__random_below(random, 0x400));
    float single = 0.1f + (float)lqt__random_unit(random);
    memcpy(now + i * size, size == 2 ? (void *)&half : (void *)&single, size);
  }
  e->memory[2 * e->count] = now;
  e->memory[2 * e->count + 1] = old;
  e->list[e->count++] = (lqt__engine_change){(uint32_t)tensor, part, first, count, now, old};
}

static void free_edits(edits *e) {
  for (size_t i = 0; i < 2 * e->count; i++) free(e->memory[i]);
  e->count = 0;
}

static size_t tensor_named(const fixture *f, const char *name) {
  ptrdiff_t index = lqt__file_find_tensor(&f->model->file, name);
  cr_assert_geq(index, 0, "%s", name);
  return (size_t)index;
}

static void logits_of(lqt_engine *engine, float out[VOCAB], uint64_t revision) {
  static const int32_t tokens[COUNT] = {5, 18, 40, 2, 61, 33, 7, 8, 1};
  lqt_session *session;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_session_create(engine, NULL, &session, &diag), LQT_OK, "%s", diag.what);
  lqt_step_input input = {fixture_sequence(session), LQT_LOGITS_LAST, tokens, COUNT};
  lqt_step_result result;
  cr_assert_eq(lqt_session_step(session, &input, 1, &result, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(result.revision, revision);
  memcpy(out, lqt_session_logits(session, 0, 0), VOCAB * sizeof *out);
  lqt_session_destroy(session);
}

static void flip(lqt_engine *engine, lqt__engine_staged *staged, uint64_t revision) {
  lqt_diag diag = {0};
  cr_assert_eq(lqt__engine_staged_wait(staged, &diag), LQT_OK, "%s", diag.what);
  lqt__gate_enter(engine->gate);
  cr_assert_eq(lqt__engine_flip(engine, staged, revision, &diag), LQT_OK, "%s", diag.what);
  lqt__gate_leave(engine->gate);
}

static lqt_status unflip(lqt_engine *engine, uint64_t undone, uint64_t revision) {
  lqt__gate_enter(engine->gate);
  lqt_status status = lqt__engine_unflip(engine, undone, revision, NULL);
  lqt__gate_leave(engine->gate);
  return status;
}

static lqt__engine_staged *stage(lqt_engine *engine, const edits *e) {
  lqt__engine_staged *staged = NULL;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__engine_stage(engine, e->list, e->count, &staged, &diag), LQT_OK, "%s",
               diag.what);
  return staged;
}

static const lqt_weight_part parts[] = {LQT_PART_CODEBOOK, LQT_PART_GROUP_SCALES, LQT_PART_INDICES,
                                        LQT_PART_SCALE};

/* Stages and flips a series of edits, then takes them back one by one: at every revision the
 * weights and the logits are those of an engine that was patched the plain way. */
Test(stage, flips_there_and_back) {
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  fixture f;
  fixture_open(&f, &spec, "cpu");
  lqt_engine *plain;
  cr_assert_eq(lqt_engine_create(f.model, f.device, &plain, NULL), LQT_OK);
  enum { REVISIONS = 12 };
  float wanted[REVISIONS + 1][VOCAB], got[VOCAB];
  logits_of(f.engine, wanted[0], 0);
  lqt__random random = lqt__random_seed(77);
  for (uint64_t r = 1; r <= REVISIONS; r++) {
    edits e = {0};
    char name[64];
    for (int i = 0; i < 6; i++) { /* overlaps among them */
      snprintf(name, sizeof name, "l%d.%s", (int)lqt__random_below(&random, 2),
               i % 2 != 0 ? "up" : "down");
      add_edit(&e, &f, tensor_named(&f, name), parts[lqt__random_below(&random, 4)], &random);
    }
    lqt__engine_staged *staged = stage(f.engine, &e);
    logits_of(f.engine, got, r - 1);
    cr_assert_eq(memcmp(got, wanted[r - 1], sizeof got), 0, "staging %d is seen", (int)r);
    lqt__gate_enter(plain->gate);
    cr_assert_eq(lqt__engine_apply(plain, e.list, e.count, NULL), LQT_OK);
    lqt__gate_leave(plain->gate);
    logits_of(plain, wanted[r], 0);
    flip(f.engine, staged, r);
    /* The old bytes that a change names are those of the file, so it must be undone at once. */
    logits_of(f.engine, got, r);
    cr_assert_eq(memcmp(got, wanted[r], sizeof got), 0, "revision %d", (int)r);
    lqt__gate_enter(plain->gate);
    cr_assert_eq(lqt__engine_revert(plain, e.list, e.count, NULL), LQT_OK);
    lqt__gate_leave(plain->gate);
    cr_assert_eq(unflip(f.engine, r, r), LQT_OK);
    logits_of(f.engine, got, r);
    cr_assert_eq(memcmp(got, wanted[0], sizeof got), 0, "undone %d", (int)r);
    memcpy(wanted[r], got, sizeof got);
    free_edits(&e);
  }
  lqt_engine_destroy(plain);
  fixture_close(&f);
}

Test(stage, keeps_so_much_for_undo) {
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  fixture f;
  fixture_open(&f, &spec, "cpu");
  lqt_engine_set_undo(f.engine, 3, UINT64_MAX);
  size_t tensor = tensor_named(&f, "l0.up");
  lqt__random random = lqt__random_seed(5);
  for (uint64_t r = 1; r <= 5; r++) {
    edits e = {0};
    add_edit(&e, &f, tensor, LQT_PART_INDICES, &random);
    flip(f.engine, stage(f.engine, &e), r);
    free_edits(&e);
  }
  cr_assert_eq(unflip(f.engine, 4, 6), LQT_NOT_FOUND); /* not the newest */
  cr_assert_eq(unflip(f.engine, 5, 6), LQT_OK);
  cr_assert_eq(unflip(f.engine, 4, 7), LQT_OK);
  cr_assert_eq(unflip(f.engine, 3, 8), LQT_OK);
  cr_assert_eq(unflip(f.engine, 2, 9), LQT_NOT_FOUND); /* gone */
  cr_assert_eq(lqt_engine_revision(f.engine), 8);
  lqt_engine_set_undo(f.engine, 0, 0);
  fixture_close(&f);
}

/* An engine that runs one model is given another: other weights, one layer less, and back. */
Test(stage, exchanges_models) {
  tiny_spec spec = tiny_default(), other = tiny_default();
  spec.quantized = other.quantized = true;
  other.layers = 1;
  other.seed = spec.seed + 1;
  fixture f, g;
  fixture_open(&f, &spec, "cpu");
  fixture_open(&g, &other, "cpu");
  uint32_t all[64];
  for (uint32_t i = 0; i < 64; i++) all[i] = i;
  float before[VOCAB], wanted[VOCAB], got[VOCAB];
  logits_of(f.engine, before, 0);
  logits_of(g.engine, wanted, 0);
  lqt__engine_staged *staged = NULL;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__engine_stage_model(f.engine, g.model, all, 64, &staged, &diag), LQT_OK, "%s",
               diag.what);
  cr_assert_gt(lqt__engine_staged_bytes(staged), 0);
  logits_of(f.engine, got, 0);
  cr_assert_eq(memcmp(got, before, sizeof got), 0);
  flip(f.engine, staged, 1);
  logits_of(f.engine, got, 1);
  cr_assert_eq(memcmp(got, wanted, sizeof got), 0);
  cr_assert_eq(unflip(f.engine, 1, 2), LQT_OK);
  logits_of(f.engine, got, 2);
  cr_assert_eq(memcmp(got, before, sizeof got), 0);

  /* What was staged before the graph changed may not be flipped after it. */
  edits e = {0};
  lqt__random random = lqt__random_seed(3);
  add_edit(&e, &f, tensor_named(&f, "l1.up"), LQT_PART_SCALE, &random);
  lqt__engine_staged *early = stage(f.engine, &e);
  cr_assert_eq(lqt__engine_stage_model(f.engine, g.model, all, 64, &staged, &diag), LQT_OK);
  flip(f.engine, staged, 3);
  lqt__gate_enter(f.engine->gate);
  cr_assert_eq(lqt__engine_flip(f.engine, early, 4, &diag), LQT_CONFLICT);
  lqt__gate_leave(f.engine->gate);
  logits_of(f.engine, got, 3);
  cr_assert_eq(memcmp(got, wanted, sizeof got), 0);
  free_edits(&e);
  fixture_close(&f);
  fixture_close(&g);
}

/* A norm's gain is a constant of the plan. */
Test(stage, refuses_bytes_of_constants) {
  tiny_spec spec = tiny_default();
  fixture f;
  fixture_open(&f, &spec, "cpu");
  edits e = {0};
  lqt__random random = lqt__random_seed(3);
  size_t norm = tensor_named(&f, "norm");
  add_edit(&e, &f, norm, LQT_PART_PLAIN, &random);
  cr_assert_eq(lqt__engine_tensor_use(f.engine, norm), LQT__ENGINE_CONSTANT);
  lqt__engine_staged *staged = NULL;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__engine_stage(f.engine, e.list, e.count, &staged, &diag), LQT_UNSUPPORTED);
  cr_assert_null(staged);
  free_edits(&e);
  fixture_close(&f);
}

Test(stage, every_allocation_may_fail) {
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  fixture f;
  fixture_open(&f, &spec, "cpu");
  float before[VOCAB], got[VOCAB];
  logits_of(f.engine, before, 0);
  edits e = {0};
  lqt__random random = lqt__random_seed(9);
  for (int i = 0; i < 4; i++) {
    size_t tensor = tensor_named(&f, "l1.up");
    add_edit(&e, &f, tensor, parts[i], &random);
    add_edit(&e, &f, tensor, parts[i], &random);
  }
  uint32_t changed[1] = {0};
  for (int structural = 0; structural < 2; structural++) {
    for (int64_t nth = 0;; nth++) {
      lqt__engine_staged *staged = NULL;
      lqt_diag diag = {0};
      lqt__alloc_fail_after(nth);
      lqt_status status =
          structural != 0 ? lqt__engine_stage_model(f.engine, f.model, changed, 1, &staged, &diag)
                          : lqt__engine_stage(f.engine, e.list, e.count, &staged, &diag);
      lqt__alloc_fail_after(-1);
      cr_assert_eq(staged != NULL, status == LQT_OK);
      lqt__engine_staged_destroy(staged);
      if (status == LQT_OK) {
        cr_assert_gt(nth, 3);
        break;
      }
      cr_assert(status == LQT_OUT_OF_MEMORY || status == LQT_DEVICE_OUT_OF_MEMORY, "%s",
                lqt_status_name(status));
      cr_assert_gt(strlen(diag.what), 0);
    }
  }
  logits_of(f.engine, got, 0);
  cr_assert_eq(memcmp(got, before, sizeof got), 0);
  free_edits(&e);
  fixture_close(&f);
}

/* ---- The cache ---- */

static lqt_session *policy_session(const fixture *f, lqt_kv_policy policy) {
  lqt_session_options options = {.size = sizeof options, .max_sequences = 2, .kv_policy = policy};
  lqt_session *session;
  cr_assert_eq(lqt_session_create(f->engine, &options, &session, NULL), LQT_OK);
  return session;
}

/* Prefill, an edit of `tensor`, one more token: its logits, and what the step said. */
static lqt_step_result run_edit(const fixture *f, lqt_kv_policy policy, const char *name,
                                uint64_t revision, float out[VOCAB], uint32_t *length) {
  static const int32_t tokens[COUNT] = {5, 18, 40, 2, 61, 33, 7, 8, 1};
  lqt_session *session = policy_session(f, policy);
  uint32_t sequence = fixture_sequence(session);
  fixture_step(session, sequence, tokens, COUNT - 1, LQT_LOGITS_NONE);
  if (name != NULL) {
    edits e = {0};
    lqt__random random = lqt__random_seed(revision);
    add_edit(&e, f, tensor_named(f, name), LQT_PART_SCALE, &random);
    flip(f->engine, stage(f->engine, &e), revision);
    free_edits(&e);
  }
  lqt_step_input input = {sequence, LQT_LOGITS_LAST, tokens + COUNT - 1, 1};
  lqt_step_result result;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_session_step(session, &input, 1, &result, &diag), LQT_OK, "%s", diag.what);
  memcpy(out, lqt_session_logits(session, 0, 0), VOCAB * sizeof *out);
  *length = lqt_session_sequence_length(session, sequence);
  lqt_session_destroy(session);
  return result;
}

Test(stage, cache_policies) {
  tiny_spec spec = tiny_default();
  spec.tied = false;
  fixture f;
  fixture_open(&f, &spec, "cpu");
  static const char *const names[] = {"l0.up", "embed", "head"};
  uint64_t revision = 0;
  for (int n = 0; n < 3; n++) {
    bool reaches = n != 2;
    float got[VOCAB], fresh[VOCAB];
    uint32_t length;
    lqt_step_result result = run_edit(&f, LQT_KV_RECOMPUTE, names[n], ++revision, got, &length);
    cr_assert_eq(result.recomputed, reaches ? COUNT - 1 : 0, "%s", names[n]);
    cr_assert_eq(length, COUNT);
    run_edit(&f, LQT_KV_KEEP, NULL, revision, fresh, &length);
    cr_assert_eq(memcmp(got, fresh, sizeof got), 0, "%s", names[n]);

    result = run_edit(&f, LQT_KV_KEEP, names[n], ++revision, got, &length);
    cr_assert_eq(result.recomputed + result.flushed, 0);
    cr_assert_eq(length, COUNT);
    run_edit(&f, LQT_KV_KEEP, NULL, revision, fresh, &length);
    cr_assert_eq(memcmp(got, fresh, sizeof got) == 0, !reaches, "%s", names[n]);

    result = run_edit(&f, LQT_KV_FLUSH, names[n], ++revision, got, &length);
    cr_assert_eq(result.flushed, reaches ? COUNT - 1 : 0);
    cr_assert_eq(length, reaches ? 1 : COUNT);
  }
  fixture_close(&f);
}

/* A session lives through the loss of a layer and its return: the pages of the layer that stays are
 * kept, those of the one that comes back are filled again. */
Test(stage, sessions_follow_the_graph) {
  tiny_spec spec = tiny_default(), other = tiny_default();
  other.layers = 1;
  fixture f, g;
  fixture_open(&f, &spec, "cpu");
  fixture_open(&g, &other, "cpu");
  static const int32_t tokens[COUNT] = {5, 18, 40, 2, 61, 33, 7, 8, 1};
  uint32_t all[64];
  for (uint32_t i = 0; i < 64; i++) all[i] = i;
  lqt_session *session = policy_session(&f, LQT_KV_RECOMPUTE);
  uint32_t sequence = fixture_sequence(session);
  fixture_step(session, sequence, tokens, 4, LQT_LOGITS_NONE);
  lqt__engine_staged *staged = NULL;
  cr_assert_eq(lqt__engine_stage_model(f.engine, g.model, all, 64, &staged, NULL), LQT_OK);
  flip(f.engine, staged, 1);
  fixture_step(session, sequence, tokens + 4, 1, LQT_LOGITS_LAST);
  lqt_session *fresh = policy_session(&g, LQT_KV_KEEP);
  uint32_t other_sequence = fixture_sequence(fresh);
  fixture_step(fresh, other_sequence, tokens, 4, LQT_LOGITS_NONE);
  fixture_step(fresh, other_sequence, tokens + 4, 1, LQT_LOGITS_LAST);
  cr_assert_eq(memcmp(lqt_session_logits(session, 0, 0), lqt_session_logits(fresh, 0, 0),
                      VOCAB * sizeof(float)),
               0);
  lqt_session_destroy(fresh);
  cr_assert_eq(unflip(f.engine, 1, 2), LQT_OK);
  fixture_step(session, sequence, tokens + 5, 1, LQT_LOGITS_LAST);
  fresh = policy_session(&f, LQT_KV_KEEP);
  other_sequence = fixture_sequence(fresh);
  fixture_step(fresh, other_sequence, tokens, 5, LQT_LOGITS_NONE);
  fixture_step(fresh, other_sequence, tokens + 5, 1, LQT_LOGITS_LAST);
  cr_assert_eq(memcmp(lqt_session_logits(session, 0, 0), lqt_session_logits(fresh, 0, 0),
                      VOCAB * sizeof(float)),
               0);
  lqt_session_destroy(fresh);
  lqt_session_destroy(session);
  fixture_close(&f);
  fixture_close(&g);
}
