/* Entries of a journal, done again. */
#ifndef LQT_RUNTIME_EDIT_REPLAY_H_
#define LQT_RUNTIME_EDIT_REPLAY_H_

#include "edit/editor.h"

/* Applies an entry as read from a journal to an overlay that nobody else sees, and fills in the old
 * bytes of its changes (and the new ones of those by reference). The overlay is of no use after a
 * failure. Errors: LQT_BAD_JOURNAL (what it changes is not what is there),
 * LQT_REPLACEMENT_INVALID, LQT_NOT_FOUND (a file that it refers to), LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__replay_entry(lqt_editor *editor, lqt__overlay *work,
                                           lqt__journal_entry *entry, lqt_diag *diag);

#endif /* LQT_RUNTIME_EDIT_REPLAY_H_ */
