/* The engine behind lqt_engine: uploaded weights, constants, the plan. */
#ifndef LQT_RUNTIME_EXEC_ENGINE_H_
#define LQT_RUNTIME_EXEC_ENGINE_H_

#include <pthread.h>
#include <stdatomic.h>

#include "exec/gate.h"
#include "exec/plan.h"
#include "lqt/live.h"
#include "lqt/session.h"

typedef lqt_engine_staged lqt__engine_staged;

/* What the last revisions changed: how far down a cache of keys and values it reaches. */
typedef struct lqt__engine_reach {
  uint64_t revision;
  uint32_t first_cache; /* pairs of caches from this one on depend on it; UINT32_MAX: none does */
} lqt__engine_reach;
enum { LQT__ENGINE_REACHES = 64 };

struct lqt_engine {
  lqt_model *model;   /* as created */
  lqt_model *current; /* whose graph is planned: `model`, or a snapshot of an edited one */
  lqt_device *device;
  lqt__gate *gate;
  lqt__plan plan;
  lqt_weight **weights; /* by tensor of `current`; NULL: the graph does not multiply by it */
  size_t weight_count;
  lqt_buffer *constants;
  uint64_t weight_bytes, step_bytes;
  uint32_t vocab_size, context;
  _Atomic uint64_t revision; /* written while holding the gate */
  const void *owner;         /* who may patch the weights; guarded by the gate */
  _Atomic bool
      lost; /* a committed edit did not reach it: no step runs any more; set holding the gate */
  /* Guarded by the gate. */
  uint64_t plan_version;    /* one more whenever plan and weights were exchanged */
  lqt__engine_staged *undo; /* what was flipped and can be flipped back, newest first */
  _Atomic(lqt__engine_staged *) retired;          /* to be freed by the writer, outside the gate */
  uint32_t undo_revisions;                        /* at most so many */
  uint64_t undo_bytes;                            /* of device memory, in all */
  lqt__engine_reach reaches[LQT__ENGINE_REACHES]; /* by revision modulo their number */
  /* Called before each step, outside of the gate; guarded by hook_lock. */
  _Atomic bool hooked;
  pthread_mutex_t hook_lock;
  void (*hook)(void *user);
  void *hook_user;
};

/* What an editor wants called before each step of the engine, one at a time. */
void lqt__engine_set_hook(lqt_engine *engine, void (*hook)(void *user), void *user);
/* Removes the hook of this user; it does not run any more when the call returns. */
void lqt__engine_drop_hook(lqt_engine *engine, const void *user);
void lqt__engine_run_hook(lqt_engine *engine);

/* A same-size change of one tensor's bytes, with the way back. */
typedef lqt_engine_change lqt__engine_change;

/* Applies all changes or, on a failure, none. The caller holds the engine's gate. Tensors that the
 * engine does not use are passed over. Errors: those of lqt_weight_patch_apply; LQT_DEVICE_LOST
 * when taking back a half-done change failed too: the engine's weights are then not trustworthy. */
LQT_NODISCARD lqt_status lqt__engine_apply(lqt_engine *engine, const lqt__engine_change *changes,
                                           size_t count, lqt_diag *diag);
/* Takes the changes of a successful lqt__engine_apply back. */
LQT_NODISCARD lqt_status lqt__engine_revert(lqt_engine *engine, const lqt__engine_change *changes,
                                            size_t count, lqt_diag *diag);

/* ---- Staged edits ----
 *
 * stage (as long as the copy takes; steps go on) -> flip at a step boundary (short) -> undo without
 * a copy, last in first out, or another staged edit. One writer an engine calls these; sessions
 * step meanwhile. "Holds the gate": between lqt__gate_enter and lqt__gate_leave of engine->gate,
 * which no step is inside of then. */

/* Can changes of this tensor of engine->current be staged as bytes? Not those of norms and biases,
 * which are constants of the plan, nor those of tensors that the graph does not use at all (their
 * changes need nothing done on the device). */
typedef enum lqt__engine_use {
  LQT__ENGINE_UNUSED = 0,
  LQT__ENGINE_WEIGHT = 1,  /* lqt__engine_stage */
  LQT__ENGINE_CONSTANT = 2 /* lqt__engine_stage_model, and the tensor need not be named */
} lqt__engine_use;
lqt__engine_use lqt__engine_tensor_use(const lqt_engine *engine, size_t tensor);

/* Same-size changes. They may overlap: the last one holds. Changes of tensors that the engine does
 * not use are passed over. Errors: LQT_UNSUPPORTED (a constant's tensor), those of
 * lqt_patch_create. */
LQT_NODISCARD lqt_status lqt__engine_stage(lqt_engine *engine, const lqt__engine_change *changes,
                                           size_t count, lqt__engine_staged **out, lqt_diag *diag);
/* A new graph, tensors of other sizes or parts, or changed constants: plans `edited`, uploads the
 * tensors changed[] (indices in edited) and those that the engine has no weight of the same name
 * for, and shares the rest with the live ones. Keeps a reference to `edited`. Errors:
 * LQT_UNSUPPORTED (another vocabulary or context, which callers of a running session rely on),
 * those of lqt_engine_create. */
LQT_NODISCARD lqt_status lqt__engine_stage_model(lqt_engine *engine, lqt_model *edited,
                                                 const uint32_t *changed, size_t count,
                                                 lqt__engine_staged **out, lqt_diag *diag);
/* Device memory that it takes. */
uint64_t lqt__engine_staged_bytes(const lqt__engine_staged *staged);
/* Returns when the bytes have arrived. Errors: LQT_DEVICE_*. */
LQT_NODISCARD lqt_status lqt__engine_staged_wait(lqt__engine_staged *staged, lqt_diag *diag);
/* Discards what was not flipped. NULL accepted. */
void lqt__engine_staged_destroy(lqt__engine_staged *staged);

/* Makes a staged edit visible as `revision`; the engine owns it from then on, also on a failure.
 * The caller holds the gate. Nothing that was staged before a flip of lqt__engine_stage_model may
 * be flipped after it. Errors: LQT_DEVICE_* (the engine is lost), LQT_CONFLICT (that rule). */
LQT_NODISCARD lqt_status lqt__engine_flip(lqt_engine *engine, lqt__engine_staged *staged,
                                          uint64_t revision, lqt_diag *diag);
/* Is `revision` the newest flip, and are the bytes that it replaced still there? Gate held. */
bool lqt__engine_can_undo(const lqt_engine *engine, uint64_t revision);
/* Takes the flip of `undone` back as `revision`. Gate held. Errors: LQT_NOT_FOUND (see
 * lqt__engine_can_undo: stage the old bytes instead), LQT_DEVICE_*. */
LQT_NODISCARD lqt_status lqt__engine_unflip(lqt_engine *engine, uint64_t undone, uint64_t revision,
                                            lqt_diag *diag);
/* Drops what undo keeps until the engine's limits hold; called by flip. Gate held. */
void lqt__engine_trim_undo(lqt_engine *engine);
/* Drops all that undo keeps: what the last flip replaced is no revision's any more. Gate held. */
void lqt__engine_forget_undo(lqt_engine *engine);
/* Frees what was dropped: it takes longer than a flip. Called when something is staged. */
void lqt__engine_free_retired(lqt_engine *engine);

/* The first pair of caches that the revisions (since, now] reach; UINT32_MAX: none; 0 when that is
 * not known any more. Gate held. */
uint32_t lqt__engine_reach_since(const lqt_engine *engine, uint64_t since);

/* ---- Parts of lqt_engine_create that staging a model shares ---- */

/* Plans engine->current and uploads what it needs; weights that `live` has under the same name are
 * shared unless they are in changed[]. live may be NULL. */
LQT_NODISCARD lqt_status lqt__engine_build(lqt_engine *engine, const lqt_engine *live,
                                           const uint32_t *changed, size_t count, lqt_diag *diag);
/* Frees what lqt__engine_build made. */
void lqt__engine_unbuild(lqt_engine *engine);

#endif /* LQT_RUNTIME_EXEC_ENGINE_H_ */
