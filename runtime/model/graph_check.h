/* Module types: their ports, roles and shapes. Internal to runtime/model. */
#ifndef LQT_RUNTIME_MODEL_GRAPH_CHECK_H_
#define LQT_RUNTIME_MODEL_GRAPH_CHECK_H_

#include "model/graph.h"

typedef struct lqt__module_spec {
  const char *name;
  uint32_t inputs;
  const char *required[5]; /* roles; NULL ends */
  const char *optional[7];
} lqt__module_spec;

extern const lqt__module_spec lqt__module_types[LQT__MODULE_TYPE_COUNT];

/* Checks ports, roles, hyperparameters and shapes of the known types, in the sorted graph. */
LQT_NODISCARD lqt_status lqt__graph_check(const lqt__file *file, const lqt__graph *graph,
                                          const char *where, lqt_diag *diag);

#endif /* LQT_RUNTIME_MODEL_GRAPH_CHECK_H_ */
