#include "exec/engine.h"

#include <string.h>

#include "base/diag.h"
#include "kernel/weight.h"

static const char *const where = "engine";

enum { DEFAULT_UNDO_REVISIONS = 16, DEFAULT_UNDO_BYTES = 64 << 20 };

static lqt_status upload_weight(lqt_engine *engine, size_t tensor, lqt_diag *diag) {
  lqt_weight_desc desc;
  LQT__TRY(lqt_model_weight(engine->current, tensor, &desc, diag));
  lqt_status status = lqt_weight_create(engine->device, &desc, &engine->weights[tensor], diag);
  if (status != LQT_OK) {
    engine->weights[tensor] = NULL;
    if (diag != NULL) {
      /* The device knows nothing of names. */
      lqt_diag copy = *diag;
      const char *name = engine->current->file.tensors[tensor].name;
      (void)lqt__fail(diag, status, name, "%s", copy.what);
      diag->native = copy.native;
    }
    return status;
  }
  return LQT_OK;
}

/* What a build may take from a live engine. */
typedef struct shared_weights {
  const lqt_engine *live;
  const uint32_t *changed;
  size_t count;
} shared_weights;

static lqt_weight *find_shared(const lqt_engine *engine, const shared_weights *shared,
                               size_t tensor) {
  const lqt_engine *live = shared->live;
  if (live == NULL) return NULL;
  for (size_t i = 0; i < shared->count; i++) {
    if (shared->changed[i] == tensor) return NULL;
  }
  const char *name = engine->current->file.tensors[tensor].name;
  size_t at = tensor; /* mostly it stands where it stood */
  if (at >= live->weight_count || strcmp(live->current->file.tensors[at].name, name) != 0) {
    ptrdiff_t found = lqt__file_find_tensor(&live->current->file, name);
    if (found < 0) return NULL;
    at = (size_t)found;
  }
  return live->weights[at];
}

static lqt_status take_weight(lqt_engine *engine, const shared_weights *shared, size_t tensor,
                              lqt_diag *diag) {
  if (engine->weights[tensor] != NULL) return LQT_OK;
  lqt_weight *weight = find_shared(engine, shared, tensor);
  if (weight != NULL) {
    engine->weights[tensor] = lqt__weight_retain(weight);
  } else {
    LQT__TRY(upload_weight(engine, tensor, diag));
  }
  engine->weight_bytes += lqt_weight_bytes(engine->weights[tensor]);
  return LQT_OK;
}

static lqt_status upload_weights(lqt_engine *engine, const shared_weights *shared, lqt_diag *diag) {
  engine->weight_count = engine->current->file.tensor_count;
  engine->weights = lqt__alloc_array(engine->weight_count, sizeof *engine->weights);
  if (engine->weights == NULL) {
    return lqt__fail_memory(diag, where, engine->weight_count * sizeof *engine->weights,
                            "the table of weights");
  }
  const lqt__plan *plan = &engine->plan;
  for (size_t k = 0; k < plan->op_count; k++) {
    for (size_t i = 0; i < LQT_OP_MAX_OUT; i++) {
      ptrdiff_t tensor = plan->ops[k].weight[i];
      if (tensor < 0) continue;
      LQT__TRY(take_weight(engine, shared, (size_t)tensor, diag));
      if (plan->ops[k].op.kind == LQT_OP_MATMUL) {
        engine->step_bytes += lqt_weight_bytes(engine->weights[tensor]);
      }
    }
  }
  return LQT_OK;
}

static lqt_status upload_constants(lqt_engine *engine, lqt_diag *diag) {
  uint64_t bytes = engine->plan.constant_count * sizeof(float);
  if (bytes == 0) return LQT_OK;
  LQT__TRY(lqt_buffer_create(engine->device, bytes, &engine->constants, diag));
  engine->weight_bytes += bytes;
  return lqt_buffer_write(engine->constants, 0, engine->plan.constants, bytes, diag);
}

static lqt_status find_limits(lqt_engine *engine, lqt_diag *diag) {
  const lqt__plan *plan = &engine->plan;
  uint64_t vocab = plan->values[plan->logits].cols;
  if (vocab == 0 || vocab > INT32_MAX) {
    return lqt__fail(diag, LQT_BAD_GRAPH, where, "the output has %llu columns",
                     (unsigned long long)vocab);
  }
  engine->vocab_size = (uint32_t)vocab;
  lqt_model_info info;
  lqt_model_get_info(engine->current, &info);
  engine->context = info.context;
  if (plan->position_limit < INT32_MAX &&
      (engine->context == 0 || plan->position_limit < engine->context)) {
    engine->context = (uint32_t)plan->position_limit;
  }
  return LQT_OK;
}

lqt_status lqt__engine_build(lqt_engine *engine, const lqt_engine *live, const uint32_t *changed,
                             size_t count, lqt_diag *diag) {
  lqt_device_info info;
  lqt_device_get_info(engine->device, &info);
  LQT__TRY(lqt__plan_create(engine->current, info.activation, &engine->plan, diag));
  LQT__TRY(find_limits(engine, diag));
  LQT__TRY(upload_weights(engine, &(shared_weights){live, changed, count}, diag));
  return upload_constants(engine, diag);
}

void lqt__engine_unbuild(lqt_engine *engine) {
  for (size_t i = 0; engine->weights != NULL && i < engine->weight_count; i++) {
    lqt_weight_destroy(engine->weights[i]);
  }
  lqt__free(engine->weights);
  engine->weights = NULL;
  lqt_buffer_destroy(engine->constants);
  engine->constants = NULL;
  lqt__plan_free(&engine->plan);
}

lqt_status lqt_engine_create(lqt_model *model, lqt_device *device, lqt_engine **out_engine,
                             lqt_diag *diag) {
  if (out_engine != NULL) *out_engine = NULL;
  if (model == NULL || device == NULL || out_engine == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "model, device and out_engine must not be NULL");
  }
  lqt_engine *engine = lqt__alloc_zero(sizeof *engine);
  if (engine == NULL) return lqt__fail_memory(diag, where, sizeof *engine, "an engine");
  pthread_mutex_init(&engine->hook_lock, NULL);
  engine->model = lqt_model_retain(model);
  engine->device = lqt_device_retain(device);
  engine->current = lqt_model_retain(model);
  engine->undo_revisions = DEFAULT_UNDO_REVISIONS;
  engine->undo_bytes = DEFAULT_UNDO_BYTES;
  engine->gate = lqt__gate_get(device);
  lqt_status status = engine->gate != NULL ? lqt__engine_build(engine, NULL, NULL, 0, diag)
                                           : lqt__fail_memory(diag, where, 0, "the gate");
  if (status == LQT_OK) {
    *out_engine = engine;
  } else {
    lqt_engine_destroy(engine);
  }
  return status;
}

void lqt_engine_destroy(lqt_engine *engine) {
  if (engine == NULL) return;
  engine->undo_revisions = 0;
  lqt__engine_trim_undo(engine);
  lqt__engine_free_retired(engine);
  lqt__engine_unbuild(engine);
  lqt__gate_put(engine->gate);
  lqt_device_release(engine->device);
  lqt_model_release(engine->current);
  lqt_model_release(engine->model);
  pthread_mutex_destroy(&engine->hook_lock);
  lqt__free(engine);
}

void lqt__engine_set_hook(lqt_engine *engine, void (*hook)(void *user), void *user) {
  pthread_mutex_lock(&engine->hook_lock);
  engine->hook = hook;
  engine->hook_user = user;
  atomic_store(&engine->hooked, true);
  pthread_mutex_unlock(&engine->hook_lock);
}

void lqt__engine_drop_hook(lqt_engine *engine, const void *user) {
  pthread_mutex_lock(&engine->hook_lock);
  if (engine->hook_user == user) {
    engine->hook = NULL;
    engine->hook_user = NULL;
    atomic_store(&engine->hooked, false);
  }
  pthread_mutex_unlock(&engine->hook_lock);
}

void lqt__engine_run_hook(lqt_engine *engine) {
  if (!atomic_load(&engine->hooked)) return;
  pthread_mutex_lock(&engine->hook_lock);
  if (engine->hook != NULL) engine->hook(engine->hook_user);
  pthread_mutex_unlock(&engine->hook_lock);
}

lqt_model *lqt_engine_model(const lqt_engine *engine) { return engine->model; }
lqt_device *lqt_engine_device(const lqt_engine *engine) { return engine->device; }
uint32_t lqt_engine_vocab_size(const lqt_engine *engine) { return engine->vocab_size; }
uint32_t lqt_engine_context(const lqt_engine *engine) { return engine->context; }
uint64_t lqt_engine_weight_bytes(const lqt_engine *engine) { return engine->weight_bytes; }
uint64_t lqt_engine_step_bytes(const lqt_engine *engine) { return engine->step_bytes; }
uint64_t lqt_engine_revision(const lqt_engine *engine) { return atomic_load(&engine->revision); }

void lqt_engine_set_undo(lqt_engine *engine, uint32_t revisions, uint64_t bytes) {
  lqt__gate_enter(engine->gate);
  engine->undo_revisions = revisions;
  engine->undo_bytes = bytes;
  lqt__engine_trim_undo(engine);
  lqt__gate_leave(engine->gate);
  lqt__engine_free_retired(engine);
}

/* Changes [0, count) in order, or back from the last to the first. */
static lqt_status patch_one(lqt_engine *engine, const lqt__engine_change *change, bool back,
                            lqt_diag *diag) {
  lqt_weight *weight = engine->weights[change->tensor];
  if (weight == NULL) return LQT_OK;
  lqt_weight_patch patch = {.part = change->part,
                            .first = change->first,
                            .count = change->count,
                            .data = back ? change->old_data : change->data};
  return lqt_weight_patch_apply(weight, &patch, 1, diag);
}

lqt_status lqt__engine_revert(lqt_engine *engine, const lqt__engine_change *changes, size_t count,
                              lqt_diag *diag) {
  lqt_status first = LQT_OK;
  while (count-- > 0) {
    lqt_status status = patch_one(engine, &changes[count], true, diag);
    if (first == LQT_OK) first = status;
  }
  return first;
}

lqt_status lqt__engine_apply(lqt_engine *engine, const lqt__engine_change *changes, size_t count,
                             lqt_diag *diag) {
  for (size_t i = 0; i < count; i++) {
    lqt_status status = patch_one(engine, &changes[i], false, diag);
    if (status == LQT_OK) continue;
    if (lqt__engine_revert(engine, changes, i, NULL) != LQT_OK) {
      return lqt__fail(diag, LQT_DEVICE_LOST, where,
                       "a failed edit could not be taken back: create the engine again");
    }
    return status;
  }
  return LQT_OK;
}
