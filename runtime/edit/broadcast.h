/* Bringing changes to engines: staged beside the live weights, then made visible on all of them at
 * once, at a step boundary. */
#ifndef LQT_RUNTIME_EDIT_BROADCAST_H_
#define LQT_RUNTIME_EDIT_BROADCAST_H_

#include "edit/overlay.h"
#include "exec/engine.h"

typedef struct lqt__broadcast {
  lqt_engine **engines;
  lqt__engine_staged **staged; /* by engine; NULL: nothing, or `undo` */
  bool *undo;                  /* by engine: the last flip is taken back */
  size_t count;
  uint64_t undone;  /* the revision that it is */
  lqt_model *model; /* the edited one, made when an engine needs it */
} lqt__broadcast;

/* Stages what the changes from `before` to `after` mean on every engine. `undone` not 0: `after` is
 * what was before that revision, and engines that still have its bytes take them. *out is freed
 * whatever comes. Errors: those of lqt__engine_stage and lqt__engine_stage_model. */
LQT_NODISCARD lqt_status lqt__broadcast_stage(lqt_engine **engines, size_t count,
                                              lqt__overlay *before, lqt__overlay *after,
                                              const lqt__change *changes, size_t change_count,
                                              uint64_t undone, lqt__broadcast *out, lqt_diag *diag);
/* The caller holds the gates of all engines. Every engine is tried; the first failure is returned.
 */
LQT_NODISCARD lqt_status lqt__broadcast_flip(lqt__broadcast *broadcast, uint64_t revision,
                                             lqt_diag *diag);
/* Discards what was not flipped. */
void lqt__broadcast_free(lqt__broadcast *broadcast);

/* Tensors of `after` that any of the changes concerns, by index; *out is the caller's. NULL: no
 * memory. */
uint32_t *lqt__broadcast_changed(const lqt__overlay *after, const lqt__change *changes,
                                 size_t count, size_t *out_count);
/* Tensors of `after` that differ from its model's file, by index; *out is the caller's. NULL: no
 * memory. */
uint32_t *lqt__broadcast_edited(const lqt__overlay *after, size_t *out_count);

#endif /* LQT_RUNTIME_EDIT_BROADCAST_H_ */
