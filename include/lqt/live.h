/* Changing an engine's weights while its sessions step, without an editor: for programs that make
 * new values themselves (training beside serving) and keep no journal. Edits that are to be
 * checked, recorded and taken back by anyone go through lqt/edit.h, which uses the same path.
 *
 * lqt_engine_stage takes as long as the copy to the device does and holds up no step.
 * lqt_engine_flip waits for the step under way, exchanges the staged bytes with the live ones, and
 * the next step sees them, whole. */
#ifndef LQT_LIVE_H_
#define LQT_LIVE_H_

#include "lqt/session.h"
#include "lqt/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A same-size change of one tensor of the engine's model. */
typedef struct lqt_engine_change {
  uint32_t tensor;
  lqt_weight_part part;
  uint64_t first, count; /* elements of the part */
  const void *data;
  const void *old_data; /* what it replaces; devices that keep that themselves need none */
} lqt_engine_change;

typedef struct lqt_engine_staged lqt_engine_staged;

/* Brings changes to the device, beside the live weights. Where they overlap the last one holds;
 * tensors that the graph does not use are passed over. Nothing that is passed is needed afterwards.
 * Owns: the caller, until the flip. Threads: one-at-a-time per engine; steps may run meanwhile.
 * Errors: LQT_OUT_OF_RANGE, LQT_INVALID_ARGUMENT, LQT_UNSUPPORTED (a norm's or bias's tensor; or
 * old_data is needed), LQT_*OUT_OF_MEMORY, LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_engine_stage(lqt_engine *engine,
                                                  const lqt_engine_change *changes, size_t count,
                                                  lqt_engine_staged **out_staged, lqt_diag *diag);
/* Returns when the bytes have arrived. */
LQT_API LQT_NODISCARD lqt_status lqt_engine_staged_wait(lqt_engine_staged *staged, lqt_diag *diag);
/* Device memory that it takes. */
LQT_API uint64_t lqt_engine_staged_bytes(const lqt_engine_staged *staged);
/* Discards what was not flipped; NULL accepted. */
LQT_API void lqt_engine_staged_destroy(lqt_engine_staged *staged);

typedef struct lqt_flip_result {
  uint64_t revision; /* the new one */
  double waited;     /* seconds for the step under way */
  double seconds;    /* of the exchange, while no step can run */
} lqt_flip_result;

/* Makes it visible as the next revision; owns `staged` from then on, also on a failure. out_result
 * may be NULL. Threads: one-at-a-time per engine; steps may run meanwhile. Errors: LQT_CONFLICT (an
 * editor is attached), LQT_DEVICE_* (the engine is lost). */
LQT_API LQT_NODISCARD lqt_status lqt_engine_flip(lqt_engine *engine, lqt_engine_staged *staged,
                                                 lqt_flip_result *out_result, lqt_diag *diag);
/* Takes the last flip that was not taken back, back, as a new revision; nothing is copied. Errors:
 * LQT_NOT_FOUND (lqt_engine_set_undo kept nothing), LQT_CONFLICT, LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_engine_undo(lqt_engine *engine, lqt_flip_result *out_result,
                                                 lqt_diag *diag);

#ifdef __cplusplus
}
#endif
#endif /* LQT_LIVE_H_ */
