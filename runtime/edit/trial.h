/* Trials: the edited weights run on a text before they are committed. */
#ifndef LQT_RUNTIME_EDIT_TRIAL_H_
#define LQT_RUNTIME_EDIT_TRIAL_H_

#include "edit/editor.h"

/* Runs options->trial_text, if there is one, on the draft: on the first attached engine's device,
 * with copies of only the changed tensors, or on the CPU. The caller holds `turn`. Errors:
 * LQT_NOT_FINITE (a logit), LQT_VALIDATION_FAILED (the loss is above the limit), LQT_NOT_FOUND (the
 * model has no tokenizer), those of lqt_engine_create. */
LQT_NODISCARD lqt_status lqt__trial_run(lqt_editor *editor, lqt__draft *draft,
                                        const lqt_commit_options *options, lqt_diag *diag);

#endif /* LQT_RUNTIME_EDIT_TRIAL_H_ */
