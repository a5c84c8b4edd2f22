/* Editing a model. An editor holds a model's changed bytes over its immutable file, applies them to
 * engines between two steps, and can write the result to a new file.
 *
 * Today: codebook entries, with undo. Every edit is one revision. Transactions, journal and the
 * other mutations build on this object (docs/architecture.md, "Edits"). */
#ifndef LQT_EDIT_H_
#define LQT_EDIT_H_

#include "lqt/model.h"
#include "lqt/session.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Keeps a reference to the model. Owns: the caller; before the engines attached to it are destroyed
 * they are detached, or the editor is destroyed. Threads: any. Errors: LQT_OUT_OF_MEMORY. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_create(lqt_model *model, lqt_editor **out_editor,
                                                   lqt_diag *diag);
LQT_API void lqt_editor_destroy(lqt_editor *editor); /* NULL accepted */

/* Edits go to attached engines at their next step boundary. Attaching brings an engine to the
 * editor's revision; a detached one stays as it is. Threads: one-at-a-time; steps may run meanwhile
 * on other threads. Errors: LQT_INVALID_ARGUMENT (another model's engine), LQT_CONFLICT (attached
 * to another editor), LQT_OUT_OF_MEMORY, LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_attach(lqt_editor *editor, lqt_engine *engine,
                                                   lqt_diag *diag);
LQT_API void lqt_editor_detach(lqt_editor *editor, lqt_engine *engine);
LQT_API uint64_t lqt_editor_revision(const lqt_editor *editor);

/* Replaces codebook vector `vector` of codebook `codebook_id` (over all banks) by values[dim].
 * Values are rounded to the codebook's type. Every engine sees it from its next step on. Threads:
 * one-at-a-time; steps may run meanwhile on other threads. Errors: LQT_NOT_FOUND, LQT_OUT_OF_RANGE,
 * LQT_DIMENSION_MISMATCH, LQT_IMMUTABLE (the codebook is not MUTABLE), LQT_PERMISSION_DENIED (a
 * tensor that uses it is PROTECTED), LQT_NOT_FINITE (in the codebook's type), LQT_OUT_OF_MEMORY,
 * LQT_DEVICE_*: nothing has changed then. LQT_DEVICE_LOST: an engine could not be brought back to
 * what it was; create it again. */
LQT_API LQT_NODISCARD lqt_status lqt_edit_codebook_entry(lqt_editor *editor, uint16_t codebook_id,
                                                         uint32_t vector, const float *values,
                                                         size_t dim, uint64_t *out_revision,
                                                         lqt_diag *diag);
/* Reads a vector as edited. Errors: LQT_NOT_FOUND, LQT_OUT_OF_RANGE, LQT_DIMENSION_MISMATCH. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_codebook_entry(const lqt_editor *editor,
                                                           uint16_t codebook_id, uint32_t vector,
                                                           float *out, size_t dim, lqt_diag *diag);
/* Takes the last edit that was not undone back (a new revision). Errors: LQT_NOT_FOUND (nothing to
 * undo), LQT_DEVICE_*. */
LQT_API LQT_NODISCARD lqt_status lqt_edit_undo(lqt_editor *editor, uint64_t *out_revision,
                                               lqt_diag *diag);

/* Writes the model as edited: unknown chunks and every unchanged section byte for byte, digests and
 * checksum fresh. `path` may be the model's own (temporary file, sync, rename).
 * Threads: one-at-a-time. Errors: LQT_IO; `path` is then as it was. */
LQT_API LQT_NODISCARD lqt_status lqt_editor_save(lqt_editor *editor, const char *path,
                                                 lqt_diag *diag);

#ifdef __cplusplus
}
#endif
#endif /* LQT_EDIT_H_ */
