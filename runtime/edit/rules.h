/* Mutation rules: the JSON of chunk 0x0004 (docs/editing.md, "Rules"). */
#ifndef LQT_RUNTIME_EDIT_RULES_H_
#define LQT_RUNTIME_EDIT_RULES_H_

#include <jansson.h>

#include "lqt/edit.h"
#include "model/model.h"

typedef struct lqt__rules {
  json_t *root;         /* NULL: the file has none */
  double least_density; /* percent */
} lqt__rules;

/* Errors: LQT_BAD_JSON, LQT_BAD_METADATA (a member of another type), LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__rules_read(const lqt_model *model, lqt__rules *out, lqt_diag *diag);
void lqt__rules_free(lqt__rules *rules);
/* May `operation` be done to `name` (a tensor or module; NULL: to the model)? Errors:
 * LQT_PERMISSION_DENIED. */
LQT_NODISCARD lqt_status lqt__rules_allow(const lqt__rules *rules, lqt_operation operation,
                                          const char *name, lqt_diag *diag);
/* Bounds of the values that may be written to `name`; infinite when there are none. */
void lqt__rules_bounds(const lqt__rules *rules, const char *name, double *out_low,
                       double *out_high);

#endif /* LQT_RUNTIME_EDIT_RULES_H_ */
