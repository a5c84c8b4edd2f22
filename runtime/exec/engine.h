/* The engine behind lqt_engine: uploaded weights, constants, the plan. */
#ifndef LQT_RUNTIME_EXEC_ENGINE_H_
#define LQT_RUNTIME_EXEC_ENGINE_H_

#include <stdatomic.h>

#include "exec/gate.h"
#include "exec/plan.h"
#include "lqt/session.h"

struct lqt_engine {
  lqt_model *model;
  lqt_device *device;
  lqt__gate *gate;
  lqt__plan plan;
  lqt_weight **weights; /* by tensor; NULL: the graph does not multiply by it */
  size_t weight_count;
  lqt_buffer *constants;
  uint64_t weight_bytes, step_bytes;
  uint32_t vocab_size, context;
  _Atomic uint64_t revision; /* written while holding the gate */
  const void *owner;         /* who may patch the weights; guarded by the gate */
};

/* A same-size change of one tensor's bytes, with the way back. */
typedef struct lqt__engine_change {
  uint32_t tensor;
  lqt_weight_part part;
  uint64_t first, count; /* elements of the part */
  const void *data, *old_data;
} lqt__engine_change;

/* Applies all changes or, on a failure, none. The caller holds the engine's gate. Tensors that the
 * engine does not use are passed over. Errors: those of lqt_weight_patch_apply; LQT_DEVICE_LOST
 * when taking back a half-done change failed too: the engine's weights are then not trustworthy. */
LQT_NODISCARD lqt_status lqt__engine_apply(lqt_engine *engine, const lqt__engine_change *changes,
                                           size_t count, lqt_diag *diag);
/* Takes the changes of a successful lqt__engine_apply back. */
LQT_NODISCARD lqt_status lqt__engine_revert(lqt_engine *engine, const lqt__engine_change *changes,
                                            size_t count, lqt_diag *diag);

#endif /* LQT_RUNTIME_EXEC_ENGINE_H_ */
