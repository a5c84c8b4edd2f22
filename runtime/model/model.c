/* Opening, sharing and closing a model; its weights. */
#include "model/model.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/diag.h"

static void destroy(lqt_model *model) {
  for (size_t i = 0; model->weights != NULL && i < model->file.tensor_count; i++) {
    for (int k = 0; k < 3; k++) lqt__free(model->weights[i].owned[k]);
  }
  lqt__free(model->weights);
  lqt__graph_free(&model->graph);
  lqt__file_free(&model->file);
  lqt__arena_free(&model->names);
  lqt__map_close(&model->map);
  lqt__free(model->copy);
  lqt__free(model->path);
  if (model->owner_free != NULL) model->owner_free(model->owner);
  lqt_model_release(model->base);
  pthread_mutex_destroy(&model->lock);
  lqt__free(model);
}

static lqt_status name_sections(lqt_model *model, lqt_diag *diag) {
  const lqt__file *file = &model->file;
  model->section_names =
      lqt__arena_array(&model->names, file->section_count, sizeof *model->section_names);
  bool good = model->section_names != NULL;
  for (size_t i = 0; good && i < file->section_count; i++) {
    char name[1200];
    lqt__section_name(file, &file->sections[i], name, sizeof name);
    model->section_names[i] = lqt__arena_strndup(&model->names, name, strlen(name));
    good = model->section_names[i] != NULL;
  }
  return good ? LQT_OK : lqt__fail_memory(diag, model->path, 0, "section names");
}

static lqt_status read_model(lqt_model *model, const uint8_t *data, size_t bytes,
                             const lqt_model_options *options, lqt_diag *diag) {
  bool partial = options != NULL && options->partial;
  bool verify = options != NULL && options->verify;
  LQT__TRY(lqt__file_parse(data, bytes, model->path, partial, &model->file, diag));
  /* A partial open has hashed every section by now; without digests only the CRC can tell. */
  if (verify || (partial && model->file.digests.bytes == 0)) {
    if (!partial || model->file.digests.bytes == 0) {
      LQT__TRY(lqt__file_verify(&model->file, model->path, NULL, NULL, NULL, NULL, diag));
    }
  }
  model->weights = lqt__alloc_array(model->file.tensor_count, sizeof *model->weights);
  if (model->weights == NULL) return lqt__fail_memory(diag, model->path, 0, "the weights' table");
  LQT__TRY(name_sections(model, diag));
  const lqt__chunk *graph = lqt__file_chunk(&model->file, LQT__CHUNK_MODULES);
  if (graph == NULL) return LQT_OK;
  return lqt__graph_parse(&model->file, (const char *)graph->data, graph->bytes, model->path,
                          &model->graph, diag);
}

static lqt_status check_options(const lqt_model_options *options, const char *where,
                                lqt_diag *diag) {
  if (options == NULL || options->size == sizeof *options) return LQT_OK;
  return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                   "options.size is %u; set it to sizeof(lqt_model_options)", options->size);
}

static lqt_status create(const char *path, lqt_model **out, lqt_diag *diag) {
  lqt_model *model = lqt__alloc_zero(sizeof *model);
  if (model == NULL) return lqt__fail_memory(diag, path, sizeof *model, "a model");
  atomic_init(&model->refs, 1);
  pthread_mutex_init(&model->lock, NULL);
  model->path = lqt__strdup(path);
  if (model->path == NULL) {
    destroy(model);
    return lqt__fail_memory(diag, path, strlen(path), "a path");
  }
  *out = model;
  return LQT_OK;
}

lqt_status lqt_model_open(const char *path, const lqt_model_options *options, lqt_model **out_model,
                          lqt_diag *diag) {
  *out_model = NULL;
  LQT__TRY(check_options(options, path, diag));
  lqt_model *model;
  LQT__TRY(create(path, &model, diag));
  lqt_status status = lqt__map_open(path, &model->map, diag);
  if (status == LQT_OK) {
    status = read_model(model, model->map.data, model->map.bytes, options, diag);
  }
  if (status != LQT_OK) {
    destroy(model);
    return status;
  }
  *out_model = model;
  return LQT_OK;
}

lqt_status lqt_model_open_memory(const void *data, size_t bytes, const lqt_model_options *options,
                                 lqt_model **out_model, lqt_diag *diag) {
  static const char where[] = "<memory>";
  *out_model = NULL;
  LQT__TRY(check_options(options, where, diag));
  if (data == NULL && bytes != 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "no data was given");
  }
  lqt_model *model;
  LQT__TRY(create(where, &model, diag));
  lqt_status status = LQT_OK;
  if ((uintptr_t)data % 16 != 0) { /* elements are read in place */
    model->copy = lqt__alloc(bytes);
    if (model->copy == NULL) {
      status = lqt__fail_memory(diag, where, bytes, "an aligned copy");
    } else {
      memcpy(model->copy, data, bytes);
      data = model->copy;
    }
  }
  if (status == LQT_OK) status = read_model(model, data, bytes, options, diag);
  if (status != LQT_OK) {
    destroy(model);
    return status;
  }
  *out_model = model;
  return LQT_OK;
}

lqt_status lqt__model_derive(lqt_model *base, const lqt__file *file, void *owner,
                             void (*owner_free)(void *owner), lqt_model **out, lqt_diag *diag) {
  *out = NULL;
  lqt_model *model;
  lqt_status status = create(base->path, &model, diag);
  if (status != LQT_OK) {
    owner_free(owner);
    return status;
  }
  model->base = lqt_model_retain(base);
  model->owner = owner;
  model->owner_free = owner_free;
  model->file = *file;
  model->file.arena = (lqt__arena){0};
  model->weights = lqt__alloc_array(file->tensor_count, sizeof *model->weights);
  if (model->weights == NULL) {
    status = lqt__fail_memory(diag, model->path, 0, "the weights' table");
  }
  const lqt__chunk *graph = lqt__file_chunk(file, LQT__CHUNK_MODULES);
  if (status == LQT_OK && graph != NULL) {
    status = lqt__graph_parse(&model->file, (const char *)graph->data, graph->bytes, model->path,
                              &model->graph, diag);
  }
  if (status != LQT_OK) {
    destroy(model);
    return status;
  }
  *out = model;
  return LQT_OK;
}

lqt_model *lqt_model_retain(lqt_model *model) {
  if (model != NULL) atomic_fetch_add_explicit(&model->refs, 1, memory_order_relaxed);
  return model;
}

void lqt_model_release(lqt_model *model) {
  if (model == NULL) return;
  if (atomic_fetch_sub_explicit(&model->refs, 1, memory_order_acq_rel) == 1) destroy(model);
}

lqt_status lqt_model_weight(const lqt_model *model, size_t index, lqt_weight_desc *out_desc,
                            lqt_diag *diag) {
  *out_desc = (lqt_weight_desc){0};
  if (index >= model->file.tensor_count) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, model->path, "tensor %zu of %zu", index,
                     model->file.tensor_count);
  }
  /* The cache is not part of what is immutable about a model. */
  lqt_model *mutable_model = (lqt_model *)model;
  lqt__weight_cache *cache = &mutable_model->weights[index];
  lqt_status status = LQT_OK;
  pthread_mutex_lock(&mutable_model->lock);
  if (!cache->ready) {
    status = lqt__weight_make(&model->file, index, model->path, cache, diag);
    cache->ready = status == LQT_OK;
  }
  if (status == LQT_OK) *out_desc = cache->desc;
  pthread_mutex_unlock(&mutable_model->lock);
  return status;
}
