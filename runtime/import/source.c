#include "import/source.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/diag.h"
#include "base/json.h"

enum { MAX_CONFIG = 1 << 20, MAX_INDEX = 64 << 20, MAX_TOKENIZER = 64 << 20, MAX_FILES = 4096 };

/* `folder`/`name`; freed with lqt__free. */
static char *join(const char *folder, const char *name) {
  size_t a = strlen(folder), b = strlen(name);
  char *path = lqt__alloc(a + b + 2);
  if (path == NULL) return NULL;
  memcpy(path, folder, a);
  path[a] = '/';
  memcpy(path + a + 1, name, b + 1);
  return path;
}

static lqt_status read_text(const char *folder, const char *name, size_t limit, char **out,
                            size_t *out_bytes, lqt_diag *diag) {
  char *path = join(folder, name);
  if (path == NULL) return lqt__fail_memory(diag, folder, strlen(folder), "a path");
  lqt_status status = lqt__file_read(path, limit, out, out_bytes, diag);
  lqt__free(path);
  return status;
}

/* A file of the folder itself: the index is not trusted to name others. */
static bool is_plain_name(const char *name) {
  return name[0] != 0 && name[0] != '.' && strchr(name, '/') == NULL && strlen(name) < 256;
}

static lqt_status add_file(lqt__source *source, const char *folder, const char *name,
                           lqt_diag *diag) {
  for (size_t i = 0; i < source->file_count; i++) {
    if (strcmp(source->files[i].name, name) == 0) return LQT_OK;
  }
  if (!is_plain_name(name)) {
    return lqt__fail(diag, LQT_BAD_SOURCE, folder,
                     "the index names the file \"%.60s\"; only files of the folder itself are read",
                     name);
  }
  if (source->file_count == MAX_FILES) {
    return lqt__fail(diag, LQT_LIMIT, folder, "more than %d weight files", MAX_FILES);
  }
  lqt__source_file *files =
      lqt__realloc(source->files, (source->file_count + 1) * sizeof(lqt__source_file));
  if (files == NULL) return lqt__fail_memory(diag, folder, sizeof *files, "the file table");
  source->files = files;
  lqt__source_file *file = &files[source->file_count];
  *file = (lqt__source_file){.name = lqt__strdup(name)};
  char *path = join(folder, name);
  lqt_status status = LQT_OK;
  if (file->name == NULL || path == NULL) {
    lqt__free(file->name);
    status = lqt__fail_memory(diag, folder, strlen(name), "a file's name");
  } else {
    source->file_count++;
    status = lqt__map_open(path, &file->map, diag);
  }
  if (status == LQT_OK) {
    status = lqt__safetensors_parse(file->map.data, file->map.bytes, path, &file->content, diag);
  }
  lqt__free(path);
  return status;
}

static lqt_status add_indexed_files(lqt__source *source, const char *folder, const char *text,
                                    size_t bytes, lqt_diag *diag) {
  static const char *const where = "model.safetensors.index.json";
  json_t *root;
  LQT__TRY(lqt__json_parse(text, bytes, where, &root, diag));
  json_t *map = json_object_get(root, "weight_map"), *value;
  const char *tensor;
  lqt_status status = LQT_OK;
  if (!json_is_object(map) || json_object_size(map) == 0) {
    status = lqt__fail(diag, LQT_BAD_SOURCE, where, "\"weight_map\" is missing or empty");
  } else {
    json_object_foreach(map, tensor, value) {
      if (status != LQT_OK) break;
      status = json_is_string(value)
                   ? add_file(source, folder, json_string_value(value), diag)
                   : lqt__fail(diag, LQT_BAD_SOURCE, where, "tensor %.100s: no file name", tensor);
    }
  }
  /* What the index says must be so: a tensor that is in another file is damage. */
  if (status == LQT_OK) {
    json_object_foreach(map, tensor, value) {
      for (size_t i = 0; i < source->file_count && status == LQT_OK; i++) {
        const lqt__source_file *file = &source->files[i];
        if (strcmp(file->name, json_string_value(value)) != 0) continue;
        if (lqt__safetensors_find(&file->content, tensor) == NULL) {
          status =
              lqt__fail(diag, LQT_BAD_SOURCE, file->name,
                        "tensor %.100s is not in this file, although the index says so", tensor);
        }
      }
    }
  }
  json_decref(root);
  return status;
}

static lqt_status open_weights(lqt__source *source, const char *folder, lqt_diag *diag) {
  char *text = NULL;
  size_t bytes = 0;
  lqt_diag local = {0};
  lqt_status status =
      read_text(folder, "model.safetensors.index.json", MAX_INDEX, &text, &bytes, &local);
  if (status == LQT_OK) {
    status = add_indexed_files(source, folder, text, bytes, diag);
    lqt__free(text);
    return status;
  }
  if (status != LQT_NOT_FOUND) {
    if (diag != NULL) *diag = local;
    return status;
  }
  status = add_file(source, folder, "model.safetensors", diag);
  if (status == LQT_NOT_FOUND) {
    return lqt__fail(diag, LQT_NOT_FOUND, folder,
                     "neither model.safetensors nor model.safetensors.index.json is there; give a "
                     "folder with safetensors weights");
  }
  return status;
}

static const lqt__st_tensor *find_tensor(const lqt__source *source, const char *name,
                                         const lqt__source_file **out_file) {
  for (size_t i = 0; i < source->file_count; i++) {
    const lqt__st_tensor *found = lqt__safetensors_find(&source->files[i].content, name);
    if (found != NULL) {
      *out_file = &source->files[i];
      return found;
    }
  }
  return NULL;
}

lqt_status lqt__source_find(const lqt__source *source, const lqt__llama_tensor *tensor,
                            lqt__source_view *out, lqt_diag *diag) {
  const lqt__source_file *file = NULL;
  const lqt__st_tensor *found = find_tensor(source, tensor->name, &file);
  *out = (lqt__source_view){0};
  if (found == NULL) {
    return lqt__fail(diag, LQT_BAD_SOURCE, source->folder,
                     "tensor %s is missing; config.json asks for it", tensor->name);
  }
  uint64_t first = tensor->ndim == 2 ? tensor->rows : tensor->cols;
  if (found->ndim != tensor->ndim || found->shape[0] != first ||
      (tensor->ndim == 2 && found->shape[1] != tensor->cols)) {
    return lqt__fail_at(diag, LQT_BAD_SOURCE, file->name, found->offset,
                        "tensor %s has %u dimensions, %" PRIu64 " x %" PRIu64
                        "; config.json asks for %u, %" PRIu64 " x %" PRIu64,
                        tensor->name, found->ndim, found->ndim > 0 ? found->shape[0] : 1,
                        found->ndim > 1 ? found->shape[1] : 1, tensor->ndim, first,
                        tensor->ndim == 2 ? (uint64_t)tensor->cols : 1);
  }
  if (found->dtype != LQT_DTYPE_F32 && found->dtype != LQT_DTYPE_F16 &&
      found->dtype != LQT_DTYPE_BF16) {
    return lqt__fail_at(diag, LQT_UNSUPPORTED, file->name, found->offset,
                        "tensor %s has the type %s; F32, F16 and BF16 are supported", tensor->name,
                        found->dtype_name);
  }
  out->map = &file->map;
  out->data = file->map.data + found->offset;
  out->dtype = found->dtype;
  out->rows = tensor->ndim == 2 ? tensor->rows : 1;
  out->cols = tensor->cols;
  snprintf(out->name, sizeof out->name, "%s", tensor->name);
  return LQT_OK;
}

static bool is_needed(const lqt__llama *llama, const char *name) {
  lqt__llama_tensor tensor;
  size_t count = lqt__llama_tensor_count(llama);
  for (size_t i = 0; i < count; i++) {
    lqt__llama_tensor_at(llama, i, &tensor);
    if (strcmp(tensor.name, name) == 0) return true;
  }
  return false;
}

/* Buffers that older exports keep and that the configuration determines. */
static bool is_harmless(const lqt__llama *llama, const char *name) {
  size_t length = strlen(name);
  static const char suffix[] = ".rotary_emb.inv_freq";
  if (length >= sizeof suffix && strcmp(name + length - (sizeof suffix - 1), suffix) == 0) {
    return true;
  }
  return llama->tied && strcmp(name, "lm_head.weight") == 0;
}

static lqt_status check_tensors(const lqt__source *source, lqt_diag *diag) {
  size_t count = lqt__llama_tensor_count(&source->llama), present = 0;
  for (size_t i = 0; i < count; i++) {
    lqt__llama_tensor tensor;
    lqt__source_view view;
    lqt__llama_tensor_at(&source->llama, i, &tensor);
    LQT__TRY(lqt__source_find(source, &tensor, &view, diag));
  }
  for (size_t f = 0; f < source->file_count; f++) {
    const lqt__safetensors *content = &source->files[f].content;
    for (size_t i = 0; i < content->count; i++) {
      const char *name = content->tensors[i].name;
      const lqt__source_file *first = NULL;
      if (find_tensor(source, name, &first) != &content->tensors[i]) {
        return lqt__fail(diag, LQT_BAD_SOURCE, source->files[f].name,
                         "tensor %.100s is in %.60s too", name, first->name);
      }
      present += !is_harmless(&source->llama, name);
    }
  }
  if (present == count) return LQT_OK;
  for (size_t f = 0; f < source->file_count; f++) {
    const lqt__safetensors *content = &source->files[f].content;
    for (size_t i = 0; i < content->count; i++) {
      const char *name = content->tensors[i].name;
      if (is_harmless(&source->llama, name) || is_needed(&source->llama, name)) continue;
      return lqt__fail(diag, LQT_BAD_SOURCE, source->files[f].name,
                       "tensor %.100s has no place in the model that config.json describes", name);
    }
  }
  return LQT_OK;
}

static const char *base_name(const char *path, size_t *out_length) {
  size_t end = strlen(path);
  while (end > 1 && path[end - 1] == '/') end--;
  size_t begin = end;
  while (begin > 0 && path[begin - 1] != '/') begin--;
  *out_length = end - begin;
  return path + begin;
}

static lqt_status open_folder(lqt__source *source, const char *path, lqt_diag *diag) {
  size_t length;
  const char *name = base_name(path, &length);
  source->folder = lqt__strndup(name, length);
  if (source->folder == NULL) return lqt__fail_memory(diag, path, length, "the folder's name");
  lqt_status status =
      read_text(path, "config.json", MAX_CONFIG, &source->config, &source->config_bytes, diag);
  if (status == LQT_NOT_FOUND) {
    return lqt__fail(diag, LQT_NOT_FOUND, path,
                     "no config.json there; give a Hugging Face model folder");
  }
  LQT__TRY(status);
  LQT__TRY(
      lqt__llama_config(source->config, source->config_bytes, "config.json", &source->llama, diag));
  lqt_diag local = {0};
  status = read_text(path, "tokenizer.json", MAX_TOKENIZER, &source->tokenizer,
                     &source->tokenizer_bytes, &local);
  if (status != LQT_OK && status != LQT_NOT_FOUND) {
    if (diag != NULL) *diag = local;
    return status;
  }
  LQT__TRY(open_weights(source, path, diag));
  return check_tensors(source, diag);
}

lqt_status lqt__source_open(const char *path, lqt__source *out, lqt_diag *diag) {
  *out = (lqt__source){0};
  lqt_status status = open_folder(out, path, diag);
  if (status != LQT_OK) lqt__source_close(out);
  return status;
}

void lqt__source_close(lqt__source *source) {
  for (size_t i = 0; i < source->file_count; i++) {
    lqt__safetensors_free(&source->files[i].content);
    lqt__map_close(&source->files[i].map);
    lqt__free(source->files[i].name);
  }
  lqt__free(source->files);
  lqt__free(source->folder);
  lqt__free(source->config);
  lqt__free(source->tokenizer);
  *source = (lqt__source){0};
}
