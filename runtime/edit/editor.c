/* The editor: validates mutations, applies changes to engines and to the overlay in one go, and
 * remembers how to take them back. */
#include <string.h>

#include "base/diag.h"
#include "base/half.h"
#include "edit/mutation.h"
#include "lqt/edit.h"

static const char *const where = "editor";

struct lqt_editor {
  lqt_model *model;
  lqt__overlay overlay;
  uint64_t revision;
  lqt__section_change *undo; /* changes that were not undone, oldest first */
  size_t undo_count, undo_capacity;
  lqt_engine **engines; /* attached */
  lqt__gate **gates;    /* theirs, each once, in the order of their addresses */
  size_t engine_count, gate_count, engine_capacity;
};

lqt_status lqt_editor_create(lqt_model *model, lqt_editor **out_editor, lqt_diag *diag) {
  if (out_editor != NULL) *out_editor = NULL;
  if (model == NULL || out_editor == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "model and out_editor must not be NULL");
  }
  lqt_editor *editor = lqt__alloc_zero(sizeof *editor);
  if (editor == NULL) return lqt__fail_memory(diag, where, sizeof *editor, "an editor");
  editor->model = lqt_model_retain(model);
  editor->overlay.model = model;
  *out_editor = editor;
  return LQT_OK;
}

void lqt_editor_destroy(lqt_editor *editor) {
  if (editor == NULL) return;
  while (editor->engine_count > 0) lqt_editor_detach(editor, editor->engines[0]);
  for (size_t i = 0; i < editor->undo_count; i++) lqt__section_change_free(&editor->undo[i]);
  lqt__free(editor->undo);
  lqt__free(editor->engines);
  lqt__free(editor->gates);
  lqt__overlay_free(&editor->overlay);
  lqt_model_release(editor->model);
  lqt__free(editor);
}

uint64_t lqt_editor_revision(const lqt_editor *editor) { return editor->revision; }

/* ---- Engines ---- */

/* Always in the same order, so that two editors cannot wait for each other. */
static void enter_gates(const lqt_editor *editor) {
  for (size_t i = 0; i < editor->gate_count; i++) lqt__gate_enter(editor->gates[i]);
}

static void leave_gates(const lqt_editor *editor) {
  for (size_t i = editor->gate_count; i-- > 0;) lqt__gate_leave(editor->gates[i]);
}

/* The gates of the attached engines, sorted, without repetitions. */
static void list_gates(lqt_editor *editor) {
  editor->gate_count = 0;
  for (size_t e = 0; e < editor->engine_count; e++) {
    lqt__gate *gate = editor->engines[e]->gate;
    size_t at = 0;
    while (at < editor->gate_count && (uintptr_t)editor->gates[at] < (uintptr_t)gate) at++;
    if (at < editor->gate_count && editor->gates[at] == gate) continue;
    memmove(&editor->gates[at + 1], &editor->gates[at],
            (editor->gate_count - at) * sizeof *editor->gates);
    editor->gates[at] = gate;
    editor->gate_count++;
  }
}

/* Brings an engine's codebook to the editor's state. What is on the engine may come from another
 * editor, so that codebooks this one never touched are written too, unless the engine is fresh. */
static lqt_status catch_up_codebook(const lqt_editor *editor, lqt_engine *engine, uint32_t index,
                                    lqt_diag *diag) {
  const lqt__codebook *codebook = &editor->model->file.codebooks[index];
  const uint8_t *now = lqt__overlay_read(&editor->overlay, LQT__SECTION_CODEBOOK, index);
  bool same = now == codebook->blob.data && lqt_engine_revision(engine) == 0;
  if (now == NULL || same || (codebook->flags & LQT__CODEBOOK_MUTABLE) == 0) return LQT_OK;
  size_t size = lqt_dtype_size((lqt_dtype)codebook->dtype);
  uint64_t used = codebook->vectors / codebook->banks, room = codebook->capacity / codebook->banks;
  size_t bytes = ((codebook->banks - 1) * room + used) * codebook->vector_dim * size;
  lqt__section_change change = {.section = LQT__SECTION_CODEBOOK,
                                .index = index,
                                .offset = codebook->header_bytes,
                                .bytes = bytes,
                                .data = lqt__alloc(2 * bytes)};
  if (change.data == NULL) return lqt__fail_memory(diag, where, 2 * bytes, "a codebook");
  memcpy(change.data, now + change.offset, bytes);
  memcpy(change.data + bytes, codebook->blob.data + change.offset, bytes);
  lqt__engine_change *patches = NULL;
  size_t count;
  lqt_status status = lqt__section_change_patches(&change, editor->model, &patches, &count, diag);
  if (status == LQT_OK) status = lqt__engine_apply(engine, patches, count, diag);
  lqt__free(patches);
  lqt__section_change_free(&change);
  return status;
}

static lqt_status take_engine(lqt_editor *editor, lqt_engine *engine, lqt_diag *diag) {
  if (engine->owner != NULL && engine->owner != editor) {
    return lqt__fail(diag, LQT_CONFLICT, where, "the engine is attached to another editor");
  }
  for (uint32_t i = 0; i < editor->model->file.codebook_count; i++) {
    LQT__TRY(catch_up_codebook(editor, engine, i, diag));
  }
  engine->owner = editor;
  atomic_store(&engine->revision, editor->revision);
  return LQT_OK;
}

lqt_status lqt_editor_attach(lqt_editor *editor, lqt_engine *engine, lqt_diag *diag) {
  if (engine == NULL || engine->model != editor->model) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "the engine does not run the model that this editor edits");
  }
  for (size_t i = 0; i < editor->engine_count; i++) {
    if (editor->engines[i] == engine) return LQT_OK;
  }
  if (editor->engine_count == editor->engine_capacity) {
    size_t capacity = editor->engine_capacity * 2 + 4;
    lqt_engine **engines = lqt__realloc(editor->engines, capacity * sizeof *engines);
    if (engines == NULL)
      return lqt__fail_memory(diag, where, capacity * sizeof *engines, "engines");
    editor->engines = engines;
    lqt__gate **gates = lqt__realloc(editor->gates, capacity * sizeof *gates);
    if (gates == NULL) return lqt__fail_memory(diag, where, capacity * sizeof *gates, "gates");
    editor->gates = gates;
    editor->engine_capacity = capacity;
  }
  lqt__gate_enter(engine->gate);
  lqt_status status = take_engine(editor, engine, diag);
  lqt__gate_leave(engine->gate);
  if (status != LQT_OK) return status;
  editor->engines[editor->engine_count++] = engine;
  list_gates(editor);
  return LQT_OK;
}

void lqt_editor_detach(lqt_editor *editor, lqt_engine *engine) {
  for (size_t i = 0; i < editor->engine_count; i++) {
    if (editor->engines[i] != engine) continue;
    lqt__gate_enter(engine->gate);
    engine->owner = NULL;
    lqt__gate_leave(engine->gate);
    editor->engines[i] = editor->engines[--editor->engine_count];
    list_gates(editor);
    return;
  }
}

/* ---- Applying ---- */

/* All engines or none. The gates are held. */
static lqt_status apply_to_engines(lqt_editor *editor, const lqt__engine_change *patches,
                                   size_t count, lqt_diag *diag) {
  for (size_t i = 0; i < editor->engine_count; i++) {
    lqt_status status = lqt__engine_apply(editor->engines[i], patches, count, diag);
    if (status == LQT_OK) continue;
    while (i-- > 0) {
      if (lqt__engine_revert(editor->engines[i], patches, count, NULL) != LQT_OK) {
        status = lqt__fail(diag, LQT_DEVICE_LOST, where,
                           "a failed edit could not be taken back: create the engines again");
      }
    }
    return status;
  }
  return LQT_OK;
}

/* Makes a change visible everywhere as the next revision, or changes nothing. */
static lqt_status commit(lqt_editor *editor, const lqt__section_change *change,
                         uint64_t *out_revision, lqt_diag *diag) {
  uint8_t *section = lqt__overlay_write(&editor->overlay, change->section, change->index);
  if (section == NULL) return lqt__fail_memory(diag, where, change->bytes, "a section");
  lqt__engine_change *patches;
  size_t count;
  LQT__TRY(lqt__section_change_patches(change, editor->model, &patches, &count, diag));
  enter_gates(editor);
  lqt_status status = apply_to_engines(editor, patches, count, diag);
  if (status == LQT_OK) {
    memcpy(section + change->offset, change->data, change->bytes);
    editor->revision++;
    for (size_t i = 0; i < editor->engine_count; i++) {
      atomic_store(&editor->engines[i]->revision, editor->revision);
    }
    if (out_revision != NULL) *out_revision = editor->revision;
  }
  leave_gates(editor);
  lqt__free(patches);
  return status;
}

static lqt_status reserve_undo(lqt_editor *editor, lqt_diag *diag) {
  if (editor->undo_count < editor->undo_capacity) return LQT_OK;
  size_t capacity = editor->undo_capacity * 2 + 16;
  lqt__section_change *undo = lqt__realloc(editor->undo, capacity * sizeof *undo);
  if (undo == NULL) return lqt__fail_memory(diag, where, capacity * sizeof *undo, "the undo list");
  editor->undo = undo;
  editor->undo_capacity = capacity;
  return LQT_OK;
}

static lqt_status perform(lqt_editor *editor, const lqt__mutation *mutation, uint64_t *out_revision,
                          lqt_diag *diag) {
  if (out_revision != NULL) *out_revision = 0;
  LQT__TRY(reserve_undo(editor, diag));
  lqt__section_change change;
  LQT__TRY(lqt__mutation_validate(mutation, &editor->overlay, &change, diag));
  lqt_status status = commit(editor, &change, out_revision, diag);
  if (status == LQT_OK) {
    editor->undo[editor->undo_count++] = change;
  } else {
    lqt__section_change_free(&change);
  }
  return status;
}

lqt_status lqt_edit_codebook_entry(lqt_editor *editor, uint16_t codebook_id, uint32_t vector,
                                   const float *values, size_t dim, uint64_t *out_revision,
                                   lqt_diag *diag) {
  if (values == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "values must not be NULL");
  }
  lqt__mutation mutation = {
      .kind = LQT__MUTATION_CODEBOOK_ENTRY,
      .codebook_entry = {.codebook = codebook_id, .vector = vector, .values = values, .dim = dim}};
  return perform(editor, &mutation, out_revision, diag);
}

lqt_status lqt_edit_undo(lqt_editor *editor, uint64_t *out_revision, lqt_diag *diag) {
  if (out_revision != NULL) *out_revision = 0;
  if (editor->undo_count == 0) {
    return lqt__fail(diag, LQT_NOT_FOUND, where, "there is no edit to take back");
  }
  lqt__section_change *last = &editor->undo[editor->undo_count - 1];
  lqt__section_change_invert(last);
  lqt_status status = commit(editor, last, out_revision, diag);
  if (status != LQT_OK) {
    lqt__section_change_invert(last);
    return status;
  }
  lqt__section_change_free(last);
  editor->undo_count--;
  return LQT_OK;
}

lqt_status lqt_editor_codebook_entry(const lqt_editor *editor, uint16_t codebook_id,
                                     uint32_t vector, float *out, size_t dim, lqt_diag *diag) {
  uint32_t index;
  uint64_t element;
  LQT__TRY(lqt__codebook_locate(editor->model, codebook_id, vector, &index, &element, diag));
  const lqt__codebook *codebook = &editor->model->file.codebooks[index];
  if (out == NULL || dim != codebook->vector_dim) {
    return lqt__fail(diag, LQT_DIMENSION_MISMATCH, where,
                     "vectors of codebook %u have %u values; there is room for %zu", codebook_id,
                     codebook->vector_dim, dim);
  }
  const uint8_t *values =
      lqt__overlay_read(&editor->overlay, LQT__SECTION_CODEBOOK, index) + codebook->header_bytes;
  for (size_t i = 0; i < dim; i++) {
    if (codebook->dtype == LQT_DTYPE_F16) {
      uint16_t half;
      memcpy(&half, values + 2 * (element + i), sizeof half);
      out[i] = lqt__f32_from_f16(half);
    } else {
      memcpy(&out[i], values + 4 * (element + i), sizeof *out);
    }
  }
  return LQT_OK;
}

/* ---- Saving ---- */

lqt_status lqt_editor_save(lqt_editor *editor, const char *path, lqt_diag *diag) {
  lqt__file file = editor->model->file;
  if (path == NULL) return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "path must not be NULL");
  if (file.missing_count != 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, editor->model->path,
                     "the model was opened without %zu damaged sections: it cannot be saved whole",
                     file.missing_count);
  }
  /* The writer reads the same tables with the edited sections in place of the file's. */
  lqt__codebook *codebooks = lqt__alloc_array(file.codebook_count, sizeof *codebooks);
  if (codebooks == NULL) {
    return lqt__fail_memory(diag, where, file.codebook_count * sizeof *codebooks, "codebooks");
  }
  for (uint32_t i = 0; i < file.codebook_count; i++) {
    codebooks[i] = file.codebooks[i];
    codebooks[i].blob.data = lqt__overlay_read(&editor->overlay, LQT__SECTION_CODEBOOK, i);
  }
  file.codebooks = codebooks;
  file.timestamp_ns = 0; /* now */
  lqt__writer *writer;
  lqt_status status = lqt__writer_begin(path, &file, &writer, diag);
  uint64_t bytes;
  if (status == LQT_OK) status = lqt__writer_finish(writer, &bytes, diag);
  lqt__free(codebooks);
  return status;
}
