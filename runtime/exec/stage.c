/* Staged edits of an engine: patches of weights, and whole plans with their weights; their flip at
 * a step boundary and the way back. */
#include <string.h>
#include <time.h>

#include "base/diag.h"
#include "exec/engine.h"
#include "lqt/patch.h"

static const char *const where = "engine";

struct lqt_engine_staged {
  lqt_engine *engine;
  lqt_patch *patch; /* NULL: nothing on the device changes, or `next` is set */
  lqt_engine *next; /* a new form of the engine; after the flip, the old one */
  uint64_t plan_version;
  uint64_t bytes;
  uint32_t first_cache;
  uint64_t revision;        /* as which it was flipped */
  lqt__engine_staged *undo; /* flipped before it */
};

/* ---- What an edit reaches ---- */

/* The first pair of caches that is written at or after op `first`. */
static uint32_t cache_after(const lqt__plan *plan, size_t first) {
  for (size_t k = first; k < plan->op_count; k++) {
    if (plan->ops[k].op.kind != LQT_OP_KV_WRITE) continue;
    return (uint32_t)(plan->values[plan->ops[k].out[0]].offset / 2);
  }
  return UINT32_MAX;
}

static uint32_t tensor_reach(const lqt__plan *plan, size_t tensor) {
  for (size_t k = 0; k < plan->op_count; k++) {
    for (size_t i = 0; i < LQT_OP_MAX_OUT; i++) {
      if (plan->ops[k].weight[i] == (ptrdiff_t)tensor) return cache_after(plan, k);
    }
  }
  return UINT32_MAX;
}

static bool same_constant(const lqt__plan *a, const lqt__value *va, const lqt__plan *b,
                          const lqt__value *vb) {
  return va->cols == vb->cols &&
         memcmp((const uint8_t *)a->constants + va->offset,
                (const uint8_t *)b->constants + vb->offset, va->cols * sizeof(float)) == 0;
}

/* Do both ops compute the same of the same? Values before them have the same numbers as long as all
 * ops before were the same. */
static bool same_op(const lqt_engine *a, const lqt__plan_op *x, const lqt_engine *b,
                    const lqt__plan_op *y) {
  const lqt_op *p = &x->op, *q = &y->op;
  if (p->kind != q->kind || p->eps != q->eps || p->attn_scale != q->attn_scale ||
      p->heads != q->heads || p->kv_heads != q->kv_heads || p->head_dim != q->head_dim ||
      p->rotary_dim != q->rotary_dim || p->window != q->window || p->act != q->act ||
      p->interleaved != q->interleaved || p->accumulate != q->accumulate) {
    return false;
  }
  for (size_t i = 0; i < LQT_OP_MAX_IN; i++) {
    const lqt__value *v = &a->plan.values[x->in[i]], *w = &b->plan.values[y->in[i]];
    if (v->kind != w->kind || x->in[i] != y->in[i]) return false;
    if (v->kind == LQT__VALUE_CONSTANT && !same_constant(&a->plan, v, &b->plan, w)) return false;
  }
  for (size_t i = 0; i < LQT_OP_MAX_OUT; i++) {
    lqt_weight *v = x->weight[i] >= 0 ? a->weights[x->weight[i]] : NULL;
    lqt_weight *w = y->weight[i] >= 0 ? b->weights[y->weight[i]] : NULL;
    if (v != w || x->out[i] != y->out[i]) return false;
  }
  return true;
}

static uint32_t plan_reach(const lqt_engine *a, const lqt_engine *b) {
  size_t k = 0;
  while (k < a->plan.op_count && k < b->plan.op_count &&
         same_op(a, &a->plan.ops[k], b, &b->plan.ops[k])) {
    k++;
  }
  uint32_t one = cache_after(&a->plan, k), other = cache_after(&b->plan, k);
  return one < other ? one : other;
}

static void note_reach(lqt_engine *engine, uint64_t revision, uint32_t first_cache) {
  engine->reaches[revision % LQT__ENGINE_REACHES] = (lqt__engine_reach){revision, first_cache};
}

uint32_t lqt__engine_reach_since(const lqt_engine *engine, uint64_t since) {
  uint64_t now = atomic_load(&engine->revision);
  if (since > now || now - since > LQT__ENGINE_REACHES) return 0;
  uint32_t first = UINT32_MAX;
  for (uint64_t r = since + 1; r <= now; r++) {
    const lqt__engine_reach *reach = &engine->reaches[r % LQT__ENGINE_REACHES];
    if (reach->revision != r) return 0;
    if (reach->first_cache < first) first = reach->first_cache;
  }
  return first;
}

/* ---- Staging ---- */

lqt__engine_use lqt__engine_tensor_use(const lqt_engine *engine, size_t tensor) {
  const lqt__plan *plan = &engine->plan;
  for (size_t i = 0; i < plan->constant_tensor_count; i++) {
    if (plan->constant_tensors[i] == tensor) return LQT__ENGINE_CONSTANT;
  }
  bool weight = tensor < engine->weight_count && engine->weights[tensor] != NULL;
  return weight ? LQT__ENGINE_WEIGHT : LQT__ENGINE_UNUSED;
}

static lqt__engine_staged *staged_create(lqt_engine *engine, lqt_diag *diag) {
  lqt__engine_free_retired(engine);
  lqt__engine_staged *staged = lqt__alloc_zero(sizeof *staged);
  if (staged == NULL) {
    (void)lqt__fail_memory(diag, where, sizeof *staged, "a staged edit");
    return NULL;
  }
  staged->engine = engine;
  staged->plan_version = engine->plan_version;
  staged->first_cache = UINT32_MAX;
  return staged;
}

/* The changes that concern weights, and the first cache that any of them reaches. */
static lqt_status translate(lqt_engine *engine, const lqt__engine_change *changes, size_t count,
                            lqt_patch_change *out, size_t *out_count, uint32_t *first_cache,
                            lqt_diag *diag) {
  uint32_t last = UINT32_MAX;
  *out_count = 0;
  for (size_t i = 0; i < count; i++) {
    const lqt__engine_change *change = &changes[i];
    bool again = i > 0 && change->tensor == last; /* runs of changes of one tensor are common */
    lqt__engine_use use =
        again ? LQT__ENGINE_WEIGHT : lqt__engine_tensor_use(engine, change->tensor);
    if (use == LQT__ENGINE_CONSTANT) {
      return lqt__fail(diag, LQT_UNSUPPORTED, engine->current->file.tensors[change->tensor].name,
                       "the plan holds this tensor as a constant: stage the edited model");
    }
    if (use == LQT__ENGINE_UNUSED) continue;
    if (!again) {
      uint32_t reach = tensor_reach(&engine->plan, change->tensor);
      if (reach < *first_cache) *first_cache = reach;
    }
    last = change->tensor;
    out[(*out_count)++] = (lqt_patch_change){.weight = engine->weights[change->tensor],
                                             .patch = {.part = change->part,
                                                       .first = change->first,
                                                       .count = change->count,
                                                       .data = change->data},
                                             .old_data = change->old_data};
  }
  return LQT_OK;
}

lqt_status lqt__engine_stage(lqt_engine *engine, const lqt__engine_change *changes, size_t count,
                             lqt__engine_staged **out, lqt_diag *diag) {
  *out = NULL;
  lqt__engine_staged *staged = staged_create(engine, diag);
  if (staged == NULL) return LQT_OUT_OF_MEMORY;
  lqt_patch_change *list = lqt__alloc_array(count, sizeof *list);
  lqt_status status = LQT_OK;
  size_t used = 0;
  if (list == NULL) {
    status = lqt__fail_memory(diag, where, count * sizeof *list, "a staged edit");
  } else {
    status = translate(engine, changes, count, list, &used, &staged->first_cache, diag);
  }
  if (status == LQT_OK && used != 0) {
    status = lqt_patch_create(engine->device, list, used, &staged->patch, diag);
  }
  lqt__free(list);
  if (status != LQT_OK) {
    lqt__engine_staged_destroy(staged);
    return status;
  }
  if (staged->patch != NULL) staged->bytes = lqt_patch_bytes(staged->patch);
  *out = staged;
  return LQT_OK;
}

static void form_destroy(lqt_engine *form) {
  if (form == NULL) return;
  lqt__engine_unbuild(form);
  lqt_model_release(form->current);
  lqt__free(form);
}

static lqt_status build_form(lqt_engine *engine, lqt_engine *next, const uint32_t *changed,
                             size_t count, lqt__engine_staged *staged, lqt_diag *diag) {
  LQT__TRY(lqt__engine_build(next, engine, changed, count, diag));
  if (next->vocab_size != engine->vocab_size || next->context != engine->context) {
    return lqt__fail(diag, LQT_UNSUPPORTED, where,
                     "the edit changes the vocabulary (%u to %u) or the context (%u to %u) of a "
                     "running engine: create a new one",
                     engine->vocab_size, next->vocab_size, engine->context, next->context);
  }
  staged->first_cache = plan_reach(engine, next);
  for (size_t i = 0; i < next->weight_count; i++) {
    lqt_weight *weight = next->weights[i];
    bool shared = false;
    for (size_t j = 0; weight != NULL && j < engine->weight_count && !shared; j++) {
      shared = engine->weights[j] == weight;
    }
    if (weight != NULL && !shared) staged->bytes += lqt_weight_bytes(weight);
  }
  return LQT_OK;
}

lqt_status lqt__engine_stage_model(lqt_engine *engine, lqt_model *edited, const uint32_t *changed,
                                   size_t count, lqt__engine_staged **out, lqt_diag *diag) {
  *out = NULL;
  lqt__engine_staged *staged = staged_create(engine, diag);
  if (staged == NULL) return LQT_OUT_OF_MEMORY;
  lqt_engine *next = staged->next = lqt__alloc_zero(sizeof *next);
  lqt_status status = LQT_OK;
  if (next == NULL) {
    status = lqt__fail_memory(diag, where, sizeof *next, "a staged edit");
  } else {
    next->device = engine->device;
    next->current = lqt_model_retain(edited);
    status = build_form(engine, next, changed, count, staged, diag);
  }
  if (status != LQT_OK) {
    lqt__engine_staged_destroy(staged);
    return status;
  }
  *out = staged;
  return LQT_OK;
}

uint64_t lqt__engine_staged_bytes(const lqt__engine_staged *staged) { return staged->bytes; }

lqt_status lqt__engine_staged_wait(lqt__engine_staged *staged, lqt_diag *diag) {
  return staged->patch != NULL ? lqt_patch_wait(staged->patch, diag) : LQT_OK;
}

void lqt__engine_staged_destroy(lqt__engine_staged *staged) {
  if (staged == NULL) return;
  lqt_patch_destroy(staged->patch);
  form_destroy(staged->next);
  lqt__free(staged);
}

/* ---- The flip and the way back ---- */

#define SWAP_FIELD(field)                           \
  do {                                              \
    __typeof__(engine->field) kept = engine->field; \
    engine->field = next->field;                    \
    next->field = kept;                             \
  } while (0)

static void exchange_forms(lqt_engine *engine, lqt_engine *next) {
  SWAP_FIELD(current);
  SWAP_FIELD(plan);
  SWAP_FIELD(weights);
  SWAP_FIELD(weight_count);
  SWAP_FIELD(constants);
  SWAP_FIELD(weight_bytes);
  SWAP_FIELD(step_bytes);
  engine->plan_version++;
}

static lqt_status exchange(lqt_engine *engine, lqt__engine_staged *staged, lqt_diag *diag) {
  if (staged->patch != NULL) LQT__TRY(lqt_patch_flip(staged->patch, diag));
  if (staged->next != NULL) exchange_forms(engine, staged->next);
  return LQT_OK;
}

static void retire(lqt_engine *engine, lqt__engine_staged *staged) {
  staged->undo = atomic_load(&engine->retired);
  while (!atomic_compare_exchange_weak(&engine->retired, &staged->undo, staged)) {
  }
}

/* The newest that goes, and with it all before it. */
static void retire_from(lqt_engine *engine, lqt__engine_staged **link) {
  lqt__engine_staged *old = *link;
  *link = NULL;
  while (old != NULL) {
    lqt__engine_staged *before = old->undo;
    retire(engine, old);
    old = before;
  }
}

lqt_status lqt__engine_flip(lqt_engine *engine, lqt__engine_staged *staged, uint64_t revision,
                            lqt_diag *diag) {
  lqt_status status = LQT_OK;
  if (staged->engine != engine || staged->plan_version != engine->plan_version) {
    status = lqt__fail(diag, LQT_CONFLICT, where,
                       "the edit was staged for another engine or before its graph changed: stage "
                       "it again");
  }
  if (status == LQT_OK) status = exchange(engine, staged, diag);
  if (status != LQT_OK) {
    lqt__engine_staged_destroy(staged);
    return status;
  }
  staged->revision = revision;
  staged->undo = engine->undo;
  engine->undo = staged;
  note_reach(engine, revision, staged->first_cache);
  atomic_store(&engine->revision, revision);
  lqt__engine_trim_undo(engine);
  return LQT_OK;
}

bool lqt__engine_can_undo(const lqt_engine *engine, uint64_t revision) {
  return engine->undo != NULL && engine->undo->revision == revision;
}

lqt_status lqt__engine_unflip(lqt_engine *engine, uint64_t undone, uint64_t revision,
                              lqt_diag *diag) {
  if (!lqt__engine_can_undo(engine, undone)) {
    return lqt__fail(diag, LQT_NOT_FOUND, where,
                     "what revision %llu replaced is not on the device any more",
                     (unsigned long long)undone);
  }
  lqt__engine_staged *staged = engine->undo;
  LQT__TRY(exchange(engine, staged, diag));
  engine->undo = staged->undo;
  note_reach(engine, revision, staged->first_cache);
  atomic_store(&engine->revision, revision);
  retire(engine, staged);
  return LQT_OK;
}

void lqt__engine_trim_undo(lqt_engine *engine) {
  uint64_t bytes = 0;
  uint32_t count = 0;
  lqt__engine_staged **link = &engine->undo;
  while (*link != NULL && count < engine->undo_revisions &&
         bytes + (*link)->bytes <= engine->undo_bytes) {
    bytes += (*link)->bytes;
    count++;
    link = &(*link)->undo;
  }
  retire_from(engine, link);
}

void lqt__engine_forget_undo(lqt_engine *engine) { retire_from(engine, &engine->undo); }

void lqt__engine_free_retired(lqt_engine *engine) {
  lqt__engine_staged *staged = atomic_exchange(&engine->retired, NULL);
  while (staged != NULL) {
    lqt__engine_staged *before = staged->undo;
    lqt__engine_staged_destroy(staged);
    staged = before;
  }
}

/* ---- Without an editor ---- */

lqt_status lqt_engine_stage(lqt_engine *engine, const lqt_engine_change *changes, size_t count,
                            lqt_engine_staged **out_staged, lqt_diag *diag) {
  if (out_staged != NULL) *out_staged = NULL;
  if (engine == NULL || out_staged == NULL || (changes == NULL && count != 0)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "no engine, no changes or no out_staged");
  }
  for (size_t i = 0; i < count; i++) {
    if (changes[i].tensor < engine->weight_count) continue;
    return lqt__fail(diag, LQT_OUT_OF_RANGE, where, "change %zu names tensor %u of %zu", i,
                     changes[i].tensor, engine->weight_count);
  }
  return lqt__engine_stage(engine, changes, count, out_staged, diag);
}

lqt_status lqt_engine_staged_wait(lqt_engine_staged *staged, lqt_diag *diag) {
  return lqt__engine_staged_wait(staged, diag);
}

uint64_t lqt_engine_staged_bytes(const lqt_engine_staged *staged) {
  return lqt__engine_staged_bytes(staged);
}

void lqt_engine_staged_destroy(lqt_engine_staged *staged) { lqt__engine_staged_destroy(staged); }

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static lqt_status check_owner(const lqt_engine *engine, lqt_diag *diag) {
  if (engine->owner == NULL) return LQT_OK;
  return lqt__fail(diag, LQT_CONFLICT, where,
                   "an editor is attached to the engine: edit through it, or detach it");
}

/* `staged` NULL: takes the last flip back. */
static lqt_status turn(lqt_engine *engine, lqt_engine_staged *staged, lqt_flip_result *result,
                       lqt_diag *diag) {
  uint64_t revision = lqt_engine_revision(engine) + 1;
  lqt_status status = check_owner(engine, diag);
  if (status == LQT_OK && staged != NULL) {
    status = lqt__engine_flip(engine, staged, revision, diag);
  } else if (status == LQT_OK) {
    uint64_t undone = engine->undo != NULL ? engine->undo->revision : 0;
    status = lqt__engine_unflip(engine, undone, revision, diag);
  } else {
    lqt__engine_staged_destroy(staged);
  }
  if (status == LQT_OK) result->revision = revision;
  return status;
}

static lqt_status turn_gated(lqt_engine *engine, lqt_engine_staged *staged,
                             lqt_flip_result *out_result, lqt_diag *diag) {
  lqt_flip_result result = {0};
  double asked = now();
  lqt__gate_enter(engine->gate);
  double begin = now();
  lqt_status status = turn(engine, staged, &result, diag);
  double end = now();
  lqt__gate_leave(engine->gate);
  result.waited = begin - asked;
  result.seconds = end - begin;
  if (out_result != NULL) *out_result = result;
  return status;
}

lqt_status lqt_engine_flip(lqt_engine *engine, lqt_engine_staged *staged,
                           lqt_flip_result *out_result, lqt_diag *diag) {
  if (engine == NULL || staged == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "no engine or nothing staged");
  }
  /* What is still under way would otherwise hold up the steps. */
  lqt_status status = lqt__engine_staged_wait(staged, diag);
  if (status != LQT_OK) {
    lqt__engine_staged_destroy(staged);
    return status;
  }
  return turn_gated(engine, staged, out_result, diag);
}

lqt_status lqt_engine_undo(lqt_engine *engine, lqt_flip_result *out_result, lqt_diag *diag) {
  if (engine == NULL) return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "no engine");
  return turn_gated(engine, NULL, out_result, diag);
}
