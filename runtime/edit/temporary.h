/* Temporary edits. */
#ifndef LQT_RUNTIME_EDIT_TEMPORARY_H_
#define LQT_RUNTIME_EDIT_TEMPORARY_H_

#include "edit/editor.h"

/* After a temporary edit was committed: sees to it that it ends. */
void lqt__temporary_begin(lqt_editor *editor);
/* Before an editor goes: its thread ends. */
void lqt__temporary_end(lqt_editor *editor);
/* Before each step of an attached engine (lqt__engine_set_hook): counts it, and takes back what has
 * had its steps. */
void lqt__temporary_before_step(void *editor);

#endif /* LQT_RUNTIME_EDIT_TEMPORARY_H_ */
