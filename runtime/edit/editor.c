/* The editor: its life, its engines, what it can be asked, saving. */
#include "edit/editor.h"

#include <string.h>
#include <unistd.h>

#include "base/diag.h"
#include "base/half.h"
#include "edit/mutation.h"
#include "edit/temporary.h"
#include "io/path.h"

static const char *const where = "editor";

lqt_status lqt_editor_create(lqt_model *model, lqt_editor **out_editor, lqt_diag *diag) {
  if (out_editor != NULL) *out_editor = NULL;
  if (model == NULL || out_editor == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "model and out_editor must not be NULL");
  }
  lqt_editor *editor = lqt__alloc_zero(sizeof *editor);
  if (editor == NULL) return lqt__fail_memory(diag, where, sizeof *editor, "an editor");
  pthread_mutex_init(&editor->turn, NULL);
  pthread_mutex_init(&editor->lock, NULL);
  pthread_cond_init(&editor->timer_wakes, NULL);
  editor->model = editor->base = lqt_model_retain(model);
  lqt_status status = lqt__rules_read(model, &editor->rules, diag);
  if (status == LQT_OK) {
    editor->state = lqt__overlay_create(model);
    if (editor->state == NULL) status = lqt__fail_memory(diag, where, 0, "an editor");
  }
  if (status == LQT_OK) {
    *out_editor = editor;
  } else {
    lqt_editor_destroy(editor);
  }
  return status;
}

void lqt_editor_destroy(lqt_editor *editor) {
  if (editor == NULL) return;
  lqt__temporary_end(editor);
  while (editor->engine_count > 0) lqt_editor_detach(editor, editor->engines[0]);
  lqt__journal_close(editor->journal);
  lqt__free(editor->journal_path);
  lqt__free(editor->policy_keys);
  if (editor->base != editor->model) lqt_model_release(editor->base);
  for (size_t i = 0; i < editor->history_count; i++) {
    lqt__entry_free(&editor->history[i].entry);
  }
  lqt__free(editor->history);
  lqt__free(editor->pending);
  lqt__free(editor->engines);
  lqt__free(editor->gates);
  lqt__overlay_release(editor->state);
  lqt__rules_free(&editor->rules);
  lqt_model_release(editor->model);
  pthread_mutex_destroy(&editor->turn);
  pthread_mutex_destroy(&editor->lock);
  pthread_cond_destroy(&editor->timer_wakes);
  lqt__free(editor);
}

lqt__overlay *lqt__editor_state(const lqt_editor *editor, uint64_t *out_revision) {
  lqt_editor *e = (lqt_editor *)editor;
  pthread_mutex_lock(&e->lock);
  lqt__overlay *state = lqt__overlay_retain(e->state);
  if (out_revision != NULL) *out_revision = e->revision;
  pthread_mutex_unlock(&e->lock);
  return state;
}

uint64_t lqt_editor_revision(const lqt_editor *editor) {
  lqt_editor *e = (lqt_editor *)editor;
  pthread_mutex_lock(&e->lock);
  uint64_t revision = e->revision;
  pthread_mutex_unlock(&e->lock);
  return revision;
}

void lqt_editor_set_events(lqt_editor *editor, lqt_event_fn fn, void *user) {
  pthread_mutex_lock(&editor->lock);
  editor->event = fn;
  editor->event_user = user;
  pthread_mutex_unlock(&editor->lock);
}

lqt_status lqt_editor_snapshot(lqt_editor *editor, lqt_model **out_model, lqt_diag *diag) {
  *out_model = NULL;
  lqt__overlay *state = lqt__editor_state(editor, NULL);
  lqt_status status = lqt__overlay_model(state, out_model, diag);
  lqt__overlay_release(state);
  return status;
}

/* ---- Engines ---- */

/* Always in the same order, so that two editors cannot wait for each other. */
void lqt__editor_enter_gates(const lqt_editor *editor) {
  for (size_t i = 0; i < editor->gate_count; i++) lqt__gate_enter(editor->gates[i]);
}

void lqt__editor_leave_gates(const lqt_editor *editor) {
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

static bool reserve_engine(lqt_editor *editor) {
  if (editor->engine_count < editor->engine_capacity) return true;
  size_t capacity = editor->engine_capacity * 2 + 4;
  lqt_engine **engines = lqt__realloc(editor->engines, capacity * sizeof *engines);
  if (engines != NULL) editor->engines = engines;
  lqt__gate **gates = lqt__realloc(editor->gates, capacity * sizeof *gates);
  if (gates != NULL) editor->gates = gates;
  if (engines == NULL || gates == NULL) return false;
  editor->engine_capacity = capacity;
  return true;
}

/* All tensors: what is on an engine that has seen another editor is not known. */
static uint32_t *all_tensors(const lqt__overlay *state, size_t *out_count) {
  *out_count = state->now.tensor_count;
  uint32_t *list = lqt__alloc_array(*out_count, sizeof *list);
  for (size_t i = 0; list != NULL && i < *out_count; i++) list[i] = (uint32_t)i;
  return list;
}

/* Stages the editor's state on an engine; *out NULL when that is what the engine has. */
static lqt_status stage_state(lqt_editor *editor, lqt_engine *engine, lqt__engine_staged **out,
                              lqt_diag *diag) {
  bool fresh = lqt_engine_revision(engine) == 0 && engine->current == engine->model &&
               engine->plan_version == 0 && engine->undo == NULL;
  *out = NULL;
  size_t count;
  uint32_t *changed =
      fresh ? lqt__broadcast_edited(editor->state, &count) : all_tensors(editor->state, &count);
  if (changed == NULL) return lqt__fail_memory(diag, where, 0, "a list of tensors");
  lqt_status status = LQT_OK;
  if (!fresh || editor->revision != editor->first || count != 0) {
    lqt_model *model;
    status = lqt__overlay_model(editor->state, &model, diag);
    if (status == LQT_OK) {
      status = lqt__engine_stage_model(engine, model, changed, count, out, diag);
      lqt_model_release(model);
    }
  }
  lqt__free(changed);
  if (status == LQT_OK && *out != NULL) status = lqt__engine_staged_wait(*out, diag);
  return status;
}

/* Takes the engine, unless another editor has it, so that nobody else edits it meanwhile. */
static lqt_status claim(lqt_editor *editor, lqt_engine *engine, lqt_diag *diag) {
  if (atomic_load(&engine->lost)) {
    return lqt__fail(diag, LQT_DEVICE_LOST, where,
                     "an edit did not reach the engine before: create it again");
  }
  lqt__gate_enter(engine->gate);
  bool taken = engine->owner != NULL;
  if (!taken) engine->owner = editor;
  lqt__gate_leave(engine->gate);
  if (!taken) return LQT_OK;
  return lqt__fail(diag, LQT_CONFLICT, where, "the engine is attached to another editor");
}

static lqt_status attach(lqt_editor *editor, lqt_engine *engine, lqt_diag *diag) {
  for (size_t i = 0; i < editor->engine_count; i++) {
    if (editor->engines[i] == engine) return LQT_OK;
  }
  if (!reserve_engine(editor)) return lqt__fail_memory(diag, where, 0, "engines");
  LQT__TRY(claim(editor, engine, diag));
  lqt__engine_staged *staged = NULL;
  lqt_status status = stage_state(editor, engine, &staged, diag);
  lqt__gate_enter(engine->gate);
  if (status == LQT_OK && staged != NULL) {
    status = lqt__engine_flip(engine, staged, editor->revision, diag);
    staged = NULL;
  }
  if (status == LQT_OK) {
    /* What it had before is not the revision before this one. */
    lqt__engine_forget_undo(engine);
    atomic_store(&engine->revision, editor->revision);
  } else {
    engine->owner = NULL;
  }
  lqt__gate_leave(engine->gate);
  lqt__engine_staged_destroy(staged);
  if (status != LQT_OK) return status;
  editor->engines[editor->engine_count++] = engine;
  list_gates(editor);
  return LQT_OK;
}

lqt_status lqt_editor_attach(lqt_editor *editor, lqt_engine *engine, lqt_diag *diag) {
  if (engine == NULL || engine->model != editor->model) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "the engine does not run the model that this editor edits");
  }
  pthread_mutex_lock(&editor->turn);
  lqt_status status = attach(editor, engine, diag);
  pthread_mutex_unlock(&editor->turn);
  if (status == LQT_OK) lqt__engine_set_hook(engine, lqt__temporary_before_step, editor);
  return status;
}

void lqt_editor_detach(lqt_editor *editor, lqt_engine *engine) {
  lqt__engine_drop_hook(engine, editor); /* before `turn`, which a hook may be waiting for */
  pthread_mutex_lock(&editor->turn);
  for (size_t i = 0; i < editor->engine_count; i++) {
    if (editor->engines[i] != engine) continue;
    lqt__gate_enter(engine->gate);
    engine->owner = NULL;
    lqt__gate_leave(engine->gate);
    editor->engines[i] = editor->engines[--editor->engine_count];
    list_gates(editor);
    break;
  }
  pthread_mutex_unlock(&editor->turn);
}

/* ---- Asking ---- */

lqt_status lqt_editor_codebook_entry(const lqt_editor *editor, uint16_t codebook_id,
                                     uint32_t vector, float *out, size_t dim, lqt_diag *diag) {
  size_t index;
  uint64_t element;
  lqt__overlay *state = lqt__editor_state(editor, NULL);
  lqt_status status = lqt__codebook_locate(state, codebook_id, vector, &index, &element, diag);
  const lqt__codebook *codebook = status == LQT_OK ? &state->now.codebooks[index] : NULL;
  if (status == LQT_OK && (out == NULL || dim != codebook->vector_dim)) {
    status = lqt__fail(diag, LQT_DIMENSION_MISMATCH, where,
                       "vectors of codebook %u have %u values; there is room for %zu", codebook_id,
                       codebook->vector_dim, dim);
  }
  for (size_t i = 0; status == LQT_OK && i < dim; i++) {
    const uint8_t *values = codebook->blob.data + codebook->header_bytes;
    if (codebook->dtype == LQT_DTYPE_F16) {
      uint16_t half;
      memcpy(&half, values + 2 * (element + i), sizeof half);
      out[i] = lqt__f32_from_f16(half);
    } else {
      memcpy(&out[i], values + 4 * (element + i), sizeof *out);
    }
  }
  lqt__overlay_release(state);
  return status;
}

/* The payload of a tensor from `first` on, at least `count` bytes. */
static lqt_status region(const lqt__overlay *state, const char *name, uint64_t first,
                         uint64_t count, const lqt__blob **out, lqt_diag *diag) {
  ptrdiff_t index = name != NULL ? lqt__file_find_tensor(&state->now, name) : -1;
  *out = index >= 0 ? &state->now.tensors[index].payload : NULL;
  if (*out == NULL || (*out)->data == NULL) {
    return lqt__fail(diag, LQT_NOT_FOUND, where, "there is no tensor %.200s",
                     name != NULL ? name : "(none)");
  }
  if (first <= (*out)->bytes && count <= (*out)->bytes - first) return LQT_OK;
  return lqt__fail(diag, LQT_OUT_OF_RANGE, name, "bytes %llu to %llu of a tensor of %llu",
                   (unsigned long long)first, (unsigned long long)(first + count),
                   (unsigned long long)(*out)->bytes);
}

lqt_status lqt_editor_read(const lqt_editor *editor, const char *tensor, uint64_t first,
                           uint64_t count, void *out, lqt_diag *diag) {
  lqt__overlay *state = lqt__editor_state(editor, NULL);
  const lqt__blob *blob;
  lqt_status status = region(state, tensor, first, count, &blob, diag);
  if (status == LQT_OK && count != 0) memcpy(out, blob->data + first, count);
  lqt__overlay_release(state);
  return status;
}

lqt_status lqt_editor_compare(const lqt_editor *editor, const char *tensor, uint64_t first,
                              const char *other, uint64_t second, uint64_t count, uint64_t *out_at,
                              lqt_diag *diag) {
  *out_at = 0;
  lqt__overlay *state = lqt__editor_state(editor, NULL);
  const lqt__blob *a, *b;
  lqt_status status = region(state, tensor, first, count, &a, diag);
  if (status == LQT_OK) {
    status = region(state, other != NULL ? other : tensor, second, count, &b, diag);
  }
  while (status == LQT_OK && *out_at < count &&
         a->data[first + *out_at] == b->data[second + *out_at]) {
    ++*out_at;
  }
  lqt__overlay_release(state);
  return status;
}

lqt_status lqt_editor_search(const lqt_editor *editor, const char *tensor, uint64_t first,
                             const void *pattern, size_t bytes, uint64_t align, uint64_t *out_at,
                             lqt_diag *diag) {
  *out_at = 0;
  if (pattern == NULL || bytes == 0 || align == 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "a pattern and an alignment are needed");
  }
  lqt__overlay *state = lqt__editor_state(editor, NULL);
  const lqt__blob *blob;
  lqt_status status = region(state, tensor, first, 0, &blob, diag);
  if (status == LQT_OK) {
    uint64_t at = first + (align - first % align) % align;
    while (at <= blob->bytes && bytes <= blob->bytes - at &&
           memcmp(blob->data + at, pattern, bytes) != 0) {
      at += align;
    }
    bool found = at <= blob->bytes && bytes <= blob->bytes - at;
    if (found) *out_at = at;
    if (!found) status = lqt__fail(diag, LQT_NOT_FOUND, tensor, "the bytes are not there");
  }
  lqt__overlay_release(state);
  return status;
}

/* ---- Saving ---- */

/* In place of a file that has a journal, the saved one would leave it without its base. */
static lqt_status check_base(const lqt_editor *editor, const char *path, lqt_diag *diag) {
  if (editor->journal_path == NULL || access(editor->journal_path, F_OK) != 0) return LQT_OK;
  char *to = lqt__path_resolve(path), *own = lqt__path_resolve(editor->model->path);
  lqt_status status = LQT_OK;
  if (to == NULL || own == NULL) {
    status = lqt__fail_memory(diag, where, 0, "a file name");
  } else if (strcmp(to, own) == 0) {
    status = lqt__fail(diag, LQT_CONFLICT, path,
                       "the model has a journal, which would not fit the file any more: compact "
                       "instead");
  }
  lqt__free(to);
  lqt__free(own);
  return status;
}

lqt_status lqt_editor_save(lqt_editor *editor, const char *path, lqt_diag *diag) {
  if (path == NULL) return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "path must not be NULL");
  LQT__TRY(check_base(editor, path, diag));
  if (editor->model->file.missing_count != 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, editor->model->path,
                     "the model was opened without %zu damaged sections: it cannot be saved whole",
                     editor->model->file.missing_count);
  }
  lqt__overlay *state = lqt__editor_state(editor, NULL);
  lqt__file file = state->now;
  file.timestamp_ns = 0; /* now */
  lqt__writer *writer;
  lqt_status status = lqt__writer_begin(path, &file, &writer, diag);
  uint64_t bytes;
  if (status == LQT_OK) status = lqt__writer_finish(writer, &bytes, diag);
  lqt__overlay_release(state);
  return status;
}
