#include "edit/overlay.h"

#include <stdatomic.h>
#include <string.h>

#include "base/diag.h"
#include "edit/descriptor.h"
#include "format/bytes.h"
#include "format/check.h"
#include "format/layout.h"

/* Counted bytes; 64 bytes of head, so that data is aligned as in a file. */
struct lqt__shared {
  _Alignas(64) _Atomic int refs;
  uint64_t bytes;
  _Alignas(64) uint8_t data[];
};

static lqt__shared *shared_make(const void *data, uint64_t bytes) {
  lqt__shared *shared = NULL;
  if (bytes < SIZE_MAX - 256) shared = lqt__alloc_aligned(sizeof *shared + bytes, 64);
  if (shared == NULL) return NULL;
  atomic_init(&shared->refs, 1);
  shared->bytes = bytes;
  if (bytes != 0) memcpy(shared->data, data, bytes);
  return shared;
}

static lqt__shared *shared_retain(lqt__shared *shared) {
  if (shared != NULL) atomic_fetch_add_explicit(&shared->refs, 1, memory_order_relaxed);
  return shared;
}

static void shared_release(lqt__shared *shared) {
  if (shared == NULL) return;
  if (atomic_fetch_sub_explicit(&shared->refs, 1, memory_order_acq_rel) == 1) lqt__free(shared);
}

/* ---- Life ---- */

/* The tables of an overlay: an array of the file and the owners beside it. */
typedef struct table {
  void **array;
  size_t *count, size;
  lqt__shared ***owners;
  size_t owners_each;
} table;

enum { CODEBOOKS, DELTAS, MASKS, CHUNKS, TENSORS, KEYS, TABLES };

static table table_of(lqt__overlay *o, int which) {
  lqt__file *f = &o->now;
  switch (which) {
    case CODEBOOKS:
      return (table){(void **)&f->codebooks, &f->codebook_count, sizeof *f->codebooks,
                     &o->codebooks, 1};
    case DELTAS:
      return (table){(void **)&f->deltas, &f->delta_count, sizeof *f->deltas, &o->deltas, 1};
    case MASKS:
      return (table){(void **)&f->masks, &f->mask_count, sizeof *f->masks, &o->masks, 1};
    case CHUNKS:
      return (table){(void **)&f->chunks, &f->chunk_count, sizeof *f->chunks, &o->chunks, 1};
    case TENSORS:
      return (table){(void **)&f->tensors, &f->tensor_count, sizeof *f->tensors, &o->tensors,
                     LQT__TENSOR_SECTIONS};
    default:
      return (table){(void **)&f->hyperparameters, &f->hyperparameter_count,
                     sizeof *f->hyperparameters, &o->keys, 1};
  }
}

static bool copy_array(void **array, size_t count, size_t size) {
  void *copy = lqt__alloc_array(count, size);
  if (copy == NULL) return false;
  if (count != 0) memcpy(copy, *array, count * size);
  *array = copy;
  return true;
}

/* `source` NULL: nothing is owned yet. */
static bool copy_owners(lqt__shared ***owners, size_t count) {
  lqt__shared **source = *owners;
  *owners = lqt__alloc_array(count, sizeof **owners);
  if (*owners == NULL) return false;
  for (size_t i = 0; source != NULL && i < count; i++) (*owners)[i] = shared_retain(source[i]);
  return true;
}

/* Gives `o`, whose pointers are those of what it is a copy of, tables of its own. */
static bool own_tables(lqt__overlay *o) {
  bool good = true;
  for (int which = 0; which < TABLES; which++) {
    table t = table_of(o, which);
    if (!good) *t.array = NULL;
    good = good && copy_array(t.array, *t.count, t.size);
    if (!good) *t.array = NULL;
    if (!good) *t.owners = NULL;
    good = good && copy_owners(t.owners, *t.count * t.owners_each);
  }
  if (!good) o->tensor_names = NULL;
  good = good && copy_owners(&o->tensor_names, o->now.tensor_count);
  void *order = o->now.by_name;
  good = good && copy_array(&order, o->now.tensor_count, sizeof *o->now.by_name);
  o->now.by_name = good ? order : NULL;
  return good;
}

static lqt__overlay *derive(lqt__overlay draft) {
  lqt__overlay *o = lqt__alloc_zero(sizeof *o);
  if (o == NULL) return NULL;
  *o = draft;
  atomic_init(&o->refs, 1);
  o->model = lqt_model_retain(draft.model);
  o->now.arena = (lqt__arena){0};
  if (own_tables(o)) return o;
  lqt__overlay_release(o);
  return NULL;
}

lqt__overlay *lqt__overlay_create(lqt_model *model) {
  lqt__overlay draft = {.model = model, .now = model->file};
  return derive(draft);
}

lqt__overlay *lqt__overlay_clone(const lqt__overlay *overlay) {
  lqt__overlay draft = {.model = overlay->model,
                        .now = overlay->now,
                        .codebooks = overlay->codebooks,
                        .deltas = overlay->deltas,
                        .masks = overlay->masks,
                        .chunks = overlay->chunks,
                        .tensors = overlay->tensors,
                        .tensor_names = overlay->tensor_names,
                        .keys = overlay->keys,
                        .structural = overlay->structural};
  return derive(draft);
}

lqt__overlay *lqt__overlay_retain(lqt__overlay *overlay) {
  atomic_fetch_add_explicit(&overlay->refs, 1, memory_order_relaxed);
  return overlay;
}

static void free_owners(lqt__shared **owners, size_t count) {
  for (size_t i = 0; owners != NULL && i < count; i++) shared_release(owners[i]);
  lqt__free(owners);
}

void lqt__overlay_release(lqt__overlay *o) {
  if (o == NULL) return;
  if (atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) != 1) return;
  free_owners(o->tensor_names, o->now.tensor_count);
  for (int which = 0; which < TABLES; which++) {
    table t = table_of(o, which);
    free_owners(*t.owners, *t.count * t.owners_each);
    lqt__free(*t.array);
  }
  lqt__free(o->now.by_name);
  lqt_model_release(o->model);
  lqt__free(o);
}

/* Makes room for an element at `at`, zeroed. Owners first: a table that has grown alone is the
 * only trace of a failure, and its count says that nothing happened. */
static bool insert(table t, size_t at) {
  size_t count = *t.count, each = t.owners_each;
  lqt__shared **owners = lqt__realloc(*t.owners, (count + 1) * each * sizeof *owners);
  if (owners == NULL) return false;
  *t.owners = owners;
  char *array = lqt__realloc(*t.array, (count + 1) * t.size);
  if (array == NULL) return false;
  *t.array = array;
  memmove(owners + (at + 1) * each, owners + at * each, (count - at) * each * sizeof *owners);
  memset(owners + at * each, 0, each * sizeof *owners);
  memmove(array + (at + 1) * t.size, array + at * t.size, (count - at) * t.size);
  memset(array + at * t.size, 0, t.size);
  ++*t.count;
  return true;
}

static void take_out(table t, size_t at) {
  size_t each = t.owners_each, after = *t.count - at - 1;
  lqt__shared **owners = *t.owners;
  char *array = *t.array;
  for (size_t i = 0; i < each; i++) shared_release(owners[at * each + i]);
  memmove(owners + at * each, owners + (at + 1) * each, after * each * sizeof *owners);
  memmove(array + at * t.size, array + (at + 1) * t.size, after * t.size);
  --*t.count;
}

/* ---- Sections ---- */

lqt__blob *lqt__overlay_blob(lqt__overlay *overlay, lqt__section_kind kind, size_t index) {
  lqt__file *file = &overlay->now;
  switch (kind) {
    case LQT__SECTION_CODEBOOK:
      return &file->codebooks[index].blob;
    case LQT__SECTION_TENSOR:
      return &file->tensors[index].payload;
    case LQT__SECTION_GROUP_SCALES:
      return &file->tensors[index].group_scales;
    case LQT__SECTION_ZERO_POINTS:
      return &file->tensors[index].zero_points;
    case LQT__SECTION_RESIDUAL_INDICES:
      return &file->tensors[index].residual_indices;
    case LQT__SECTION_DELTA:
      return &file->deltas[index].blob;
    case LQT__SECTION_MASK:
      return &file->masks[index].blob;
    case LQT__SECTION_EDIT_LOG:
      break;
  }
  return &file->edit_log;
}

static lqt__shared **owner_of(lqt__overlay *o, lqt__section_kind kind, size_t index) {
  switch (kind) {
    case LQT__SECTION_CODEBOOK:
      return &o->codebooks[index];
    case LQT__SECTION_DELTA:
      return &o->deltas[index];
    case LQT__SECTION_MASK:
      return &o->masks[index];
    default:
      return &o->tensors[index * LQT__TENSOR_SECTIONS + (kind - LQT__SECTION_TENSOR)];
  }
}

ptrdiff_t lqt__overlay_find(const lqt__overlay *overlay, lqt__section_kind kind, uint16_t id,
                            const char *name) {
  switch (kind) {
    case LQT__SECTION_CODEBOOK:
      return lqt__file_find_codebook(&overlay->now, id);
    case LQT__SECTION_DELTA:
      return lqt__file_find_delta(&overlay->now, id);
    case LQT__SECTION_MASK:
      return lqt__file_find_mask(&overlay->now, id);
    case LQT__SECTION_EDIT_LOG:
      return -1;
    default:
      return name != NULL ? lqt__file_find_tensor(&overlay->now, name) : -1;
  }
}

static lqt_status no_memory(uint64_t bytes, lqt_diag *diag) {
  return lqt__fail_memory(diag, "editor", bytes, "an edit");
}

static lqt_status no_target(const lqt__overlay *o, const lqt__change *change, lqt_diag *diag) {
  return lqt__fail(diag, LQT_NOT_FOUND, o->model->path, "there is no %s %s%u to change",
                   change->name != NULL ? change->name : "section", change->name != NULL ? "" : "#",
                   change->id);
}

static lqt_status apply_bytes(lqt__overlay *o, const lqt__change *change, lqt_diag *diag) {
  lqt__section_kind kind = (lqt__section_kind)change->what;
  ptrdiff_t index = lqt__overlay_find(o, kind, change->id, change->name);
  if (index < 0) return no_target(o, change, diag);
  lqt__blob *blob = lqt__overlay_blob(o, kind, (size_t)index);
  if (blob->data == NULL || change->offset > blob->bytes ||
      change->bytes > blob->bytes - change->offset) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, o->model->path,
                     "bytes %llu to %llu of a section of %llu", (unsigned long long)change->offset,
                     (unsigned long long)(change->offset + change->bytes),
                     (unsigned long long)blob->bytes);
  }
  /* Of the heads, that of a mask alone has something that changes by itself: the density. */
  bool headed = kind == LQT__SECTION_CODEBOOK || kind == LQT__SECTION_DELTA;
  bool in_head = kind == LQT__SECTION_MASK && change->offset < LQT__SECTION_HEAD;
  if (headed && change->offset < LQT__SECTION_HEAD) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, o->model->path, "the head of a section is no value");
  }
  lqt__shared **owner = owner_of(o, kind, (size_t)index);
  if (*owner == NULL || atomic_load_explicit(&(*owner)->refs, memory_order_acquire) != 1) {
    lqt__shared *copy = shared_make(blob->data, blob->bytes);
    if (copy == NULL) return no_memory(blob->bytes, diag);
    shared_release(*owner);
    *owner = copy;
    blob->data = copy->data;
  }
  memcpy((*owner)->data + change->offset, change->data, change->bytes);
  if (!in_head) return LQT_OK;
  return lqt__mask_decode(blob->data, blob->bytes, false, o->model->path, 0, &o->now.masks[index],
                          diag);
}

/* A codebook, delta or mask of its own table: replaced, created or removed. */
static lqt_status apply_table(lqt__overlay *o, int which, const lqt__change *change,
                              ptrdiff_t index, lqt__shared *bytes, lqt_diag *diag) {
  table t = table_of(o, which);
  if (bytes == NULL) {
    if (index >= 0) take_out(t, (size_t)index);
    return LQT_OK;
  }
  const char *where = o->model->path;
  union {
    lqt__codebook codebook;
    lqt__delta delta;
    lqt__mask mask;
  } made;
  memset(&made, 0, sizeof made);
  lqt__blob blob = {.data = bytes->data, .bytes = bytes->bytes};
  lqt_status status;
  if (which == CODEBOOKS) {
    made.codebook = (lqt__codebook){.id = change->id, .blob = blob, .banks = 1};
    if (index >= 0) made.codebook.banks = o->now.codebooks[index].banks;
    status = lqt__codebook_decode(bytes->data, bytes->bytes, false, where, 0, &made.codebook, diag);
  } else if (which == DELTAS) {
    made.delta = (lqt__delta){.id = change->id, .blob = blob};
    status = lqt__delta_decode(bytes->data, bytes->bytes, false, where, 0, &made.delta, diag);
  } else {
    made.mask = (lqt__mask){.id = change->id, .blob = blob};
    status = lqt__mask_decode(bytes->data, bytes->bytes, false, where, 0, &made.mask, diag);
  }
  if (status != LQT_OK) return status;
  if (index < 0) {
    index = (ptrdiff_t)(change->offset < *t.count ? change->offset : *t.count);
    if (*t.count >= LQT_ID_NONE) {
      return lqt__fail(diag, LQT_LIMIT, where, "the table of 16-bit ids is full");
    }
    if (!insert(t, (size_t)index)) return no_memory(bytes->bytes, diag);
    t = table_of(o, which);
  }
  memcpy((char *)*t.array + (size_t)index * t.size, &made, t.size);
  shared_release((*t.owners)[index]);
  (*t.owners)[index] = shared_retain(bytes);
  return LQT_OK;
}

static lqt_status apply_section(lqt__overlay *o, const lqt__change *change, lqt_diag *diag) {
  lqt__section_kind kind = (lqt__section_kind)change->what;
  ptrdiff_t index = lqt__overlay_find(o, kind, change->id, change->name);
  bool of_tensor = kind >= LQT__SECTION_TENSOR && kind <= LQT__SECTION_RESIDUAL_INDICES;
  if (kind >= LQT__SECTION_EDIT_LOG || (of_tensor && index < 0)) return no_target(o, change, diag);
  lqt__shared *bytes = NULL;
  if (change->has_new) {
    bytes = shared_make(change->data, change->bytes);
    if (bytes == NULL) return no_memory(change->bytes, diag);
  }
  lqt_status status = LQT_OK;
  if (of_tensor) {
    lqt__shared **owner = owner_of(o, kind, (size_t)index);
    lqt__blob *blob = lqt__overlay_blob(o, kind, (size_t)index);
    shared_release(*owner);
    *owner = shared_retain(bytes);
    *blob =
        bytes != NULL ? (lqt__blob){.data = bytes->data, .bytes = bytes->bytes} : (lqt__blob){0};
  } else {
    int which = kind == LQT__SECTION_CODEBOOK ? CODEBOOKS
                : kind == LQT__SECTION_DELTA  ? DELTAS
                                              : MASKS;
    if (change->has_new && change->bytes < LQT__SECTION_HEAD) {
      status = lqt__fail(diag, LQT_BAD_LAYOUT, o->model->path, "a section without a head");
    } else {
      status = apply_table(o, which, change, index, bytes, diag);
    }
  }
  shared_release(bytes);
  return status;
}

/* ---- Records ---- */

static uint8_t *copy_of(const void *data, uint64_t bytes, uint64_t *out_bytes) {
  *out_bytes = bytes;
  uint8_t *copy = lqt__alloc(bytes);
  if (copy == NULL && bytes == 0) *out_bytes = 1;
  if (copy != NULL && bytes != 0) memcpy(copy, data, bytes);
  return copy;
}

static ptrdiff_t find_chunk(const lqt__file *file, uint16_t type) {
  for (size_t i = 0; i < file->chunk_count; i++) {
    if (file->chunks[i].type == type) return (ptrdiff_t)i;
  }
  return -1;
}

static ptrdiff_t find_key(const lqt__file *file, const char *key) {
  for (size_t i = 0; i < file->hyperparameter_count; i++) {
    if (strcmp(file->hyperparameters[i].key, key) == 0) return (ptrdiff_t)i;
  }
  return -1;
}

static ptrdiff_t find_record(const lqt__overlay *o, uint16_t what, uint16_t id, const char *name) {
  if (what == LQT__RECORD_CHUNK) return find_chunk(&o->now, id);
  if (name == NULL) return -1;
  return what == LQT__RECORD_TENSOR ? lqt__file_find_tensor(&o->now, name)
                                    : find_key(&o->now, name);
}

uint8_t *lqt__overlay_record(const lqt__overlay *o, uint16_t what, uint16_t id, const char *name,
                             uint64_t *out_bytes, uint64_t *place) {
  ptrdiff_t index = find_record(o, what, id, name);
  *out_bytes = 0;
  if (place != NULL) *place = index >= 0 ? (uint64_t)index : UINT64_MAX;
  if (index < 0) return NULL;
  if (what == LQT__RECORD_CHUNK) {
    const lqt__chunk *chunk = &o->now.chunks[index];
    return copy_of(chunk->data, chunk->bytes, out_bytes);
  }
  if (what == LQT__RECORD_TENSOR) {
    uint8_t record[LQT__DESCRIPTOR_BYTES];
    lqt__descriptor_encode(&o->now.tensors[index], record);
    return copy_of(record, sizeof record, out_bytes);
  }
  uint8_t value[4];
  lqt__store_f32(value, o->now.hyperparameters[index].value);
  return copy_of(value, sizeof value, out_bytes);
}

static bool sort_names(lqt__overlay *o) {
  size_t count = o->now.tensor_count;
  uint32_t *order = lqt__realloc(o->now.by_name, (count + 1) * sizeof *order);
  if (order == NULL) return false;
  o->now.by_name = order;
  /* Names differ: tensors are looked up before they are created. */
  return lqt__file_sort_names(&o->now, "editor", order, NULL) == LQT_OK;
}

static lqt_status apply_tensor(lqt__overlay *o, const lqt__change *change, ptrdiff_t index,
                               lqt_diag *diag) {
  table t = table_of(o, TENSORS);
  if (!change->has_new) {
    if (index < 0) return LQT_OK;
    shared_release(o->tensor_names[index]);
    memmove(o->tensor_names + index, o->tensor_names + index + 1,
            (o->now.tensor_count - (size_t)index - 1) * sizeof *o->tensor_names);
    take_out(t, (size_t)index);
    return sort_names(o) ? LQT_OK : no_memory(0, diag);
  }
  lqt__tensor made;
  LQT__TRY(lqt__descriptor_decode(change->data, change->bytes, o->model->path, &made, diag));
  if (index >= 0) {
    lqt__tensor *tensor = &o->now.tensors[index];
    lqt__descriptor_assign(tensor, &made);
    return LQT_OK;
  }
  size_t at = change->offset < *t.count ? (size_t)change->offset : *t.count;
  lqt__shared *name = shared_make(change->name, strlen(change->name) + 1);
  lqt__shared **names =
      lqt__realloc(o->tensor_names, (o->now.tensor_count + 1) * sizeof *o->tensor_names);
  if (names != NULL) o->tensor_names = names;
  uint32_t *order = lqt__realloc(o->now.by_name, (o->now.tensor_count + 1) * sizeof *order);
  if (order != NULL) o->now.by_name = order;
  if (name == NULL || names == NULL || order == NULL || !insert(t, at)) {
    shared_release(name);
    return no_memory(change->bytes, diag);
  }
  memmove(names + at + 1, names + at, (o->now.tensor_count - at - 1) * sizeof *names);
  names[at] = name;
  lqt__tensor *tensor = &o->now.tensors[at];
  tensor->name = (char *)name->data;
  lqt__descriptor_assign(tensor, &made);
  return lqt__file_sort_names(&o->now, o->model->path, o->now.by_name, diag);
}

static lqt_status apply_chunk(lqt__overlay *o, const lqt__change *change, ptrdiff_t index,
                              lqt_diag *diag) {
  table t = table_of(o, CHUNKS);
  if (!change->has_new) {
    if (index >= 0) take_out(t, (size_t)index);
    return LQT_OK;
  }
  if (change->bytes > UINT32_MAX) {
    return lqt__fail(diag, LQT_LIMIT, o->model->path, "a metadata entry would be too large");
  }
  lqt__shared *bytes = shared_make(change->data, change->bytes);
  if (bytes == NULL) return no_memory(change->bytes, diag);
  if (index < 0) {
    index = (ptrdiff_t)(change->offset < *t.count ? change->offset : *t.count);
    if (!insert(t, (size_t)index)) {
      shared_release(bytes);
      return no_memory(change->bytes, diag);
    }
  }
  o->now.chunks[index] =
      (lqt__chunk){.type = change->id, .data = bytes->data, .bytes = (uint32_t)change->bytes};
  shared_release(o->chunks[index]);
  o->chunks[index] = bytes;
  return LQT_OK;
}

static lqt_status apply_key(lqt__overlay *o, const lqt__change *change, ptrdiff_t index,
                            lqt_diag *diag) {
  table t = table_of(o, KEYS);
  if (!change->has_new) {
    if (index >= 0) take_out(t, (size_t)index);
    return LQT_OK;
  }
  if (change->bytes != 4) {
    return lqt__fail(diag, LQT_BAD_METADATA, o->model->path, "a hyperparameter has 4 bytes");
  }
  if (index < 0) {
    lqt__shared *key = shared_make(change->name, strlen(change->name) + 1);
    index = (ptrdiff_t)(change->offset < *t.count ? change->offset : *t.count);
    if (key == NULL || !insert(t, (size_t)index)) {
      shared_release(key);
      return no_memory(4, diag);
    }
    o->keys[index] = key;
    o->now.hyperparameters[index].key = (char *)key->data;
  }
  o->now.hyperparameters[index].value = lqt__load_f32(change->data, false);
  return LQT_OK;
}

lqt_status lqt__overlay_apply(lqt__overlay *o, const lqt__change *change, lqt_diag *diag) {
  if (change->kind == LQT__CHANGE_BYTES) return apply_bytes(o, change, diag);
  o->structural = true;
  if (change->kind == LQT__CHANGE_SECTION) return apply_section(o, change, diag);
  if (change->what != LQT__RECORD_CHUNK && change->name == NULL) return no_target(o, change, diag);
  ptrdiff_t index = find_record(o, change->what, change->id, change->name);
  switch (change->what) {
    case LQT__RECORD_TENSOR:
      return apply_tensor(o, change, index, diag);
    case LQT__RECORD_CHUNK:
      return apply_chunk(o, change, index, diag);
    case LQT__RECORD_HYPERPARAMETER:
      return apply_key(o, change, index, diag);
    default:
      return lqt__fail(diag, LQT_BAD_METADATA, o->model->path, "unknown record %u", change->what);
  }
}

/* ---- Derived ---- */

lqt_status lqt__overlay_settle(lqt__overlay *o, lqt_diag *diag) {
  if (!o->structural) return LQT_OK;
  lqt__file *file = &o->now;
  lqt__geometry *geometry = lqt__alloc_array(file->tensor_count, sizeof *geometry);
  uint32_t *banks = lqt__alloc_array(file->codebook_count, sizeof *banks);
  lqt_status status = LQT_OUT_OF_MEMORY;
  if (geometry == NULL || banks == NULL) {
    status = no_memory(file->tensor_count * sizeof *geometry, diag);
  } else {
    status = lqt__file_check(file, o->model->path, false, geometry, banks, diag);
  }
  for (size_t i = 0; status == LQT_OK && i < file->tensor_count; i++) {
    file->tensors[i].rows = geometry[i].rows;
    file->tensors[i].cols = geometry[i].cols;
    file->tensors[i].row_stride = geometry[i].row_stride;
    file->tensors[i].residual_row_stride = geometry[i].residual_row_stride;
  }
  for (size_t i = 0; status == LQT_OK && i < file->codebook_count; i++) {
    file->codebooks[i].banks = banks[i] != 0 ? banks[i] : 1;
  }
  if (status == LQT_OK) {
    file->flags &= (uint16_t) ~(LQT__FLAG_HAS_DELTAS | LQT__FLAG_HAS_SPARSE_MASKS);
    if (file->delta_count != 0) file->flags |= LQT__FLAG_HAS_DELTAS;
    if (file->mask_count != 0) file->flags |= LQT__FLAG_HAS_SPARSE_MASKS;
    o->structural = false;
  }
  lqt__free(geometry);
  lqt__free(banks);
  return status;
}

static void drop_overlay(void *overlay) { lqt__overlay_release(overlay); }

lqt_status lqt__overlay_model(lqt__overlay *overlay, lqt_model **out, lqt_diag *diag) {
  lqt__file file = overlay->now;
  file.section_count = file.missing_count = 0; /* they say where bytes stand in a file */
  file.sections = NULL;
  return lqt__model_derive(overlay->model, &file, lqt__overlay_retain(overlay), drop_overlay, out,
                           diag);
}
