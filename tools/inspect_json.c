/* The JSON of `lqt inspect`, and the chunks that hold JSON. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "inspect.h"

const char *inspect_chunk_name(uint16_t type) {
  static const char *const names[] = {
      "?",
      "hyperparameters",
      "tensor descriptors",
      "module graph",
      "mutation rules",
      "codebook table",
      "delta table",
      "mask table",
      "vocabulary",
      "KV-cache configuration",
      "self-modification rules",
      "edit log",
      "sharding",
      "compression dictionary",
      "memory-mapping hints",
      "access control list",
      "performance metrics",
      "RecursiveTensor configuration",
      "quantization layout",
      "digests",
      "provenance",
  };
  if (type == 0xffff) return "vendor extension";
  return type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

/* Takes ownership of `value` (NULL: no memory); false when it could not be added. */
static bool put(json_t *object, const char *key, json_t *value) {
  return json_object_set_new(object, key, value) == 0;
}
static bool put_count(json_t *object, const char *key, uint64_t value) {
  return put(object, key, json_integer((json_int_t)value));
}
static json_t *id_or_null(uint16_t id) {
  return id == LQT_ID_NONE ? json_null() : json_integer(id);
}

/* A chunk that is JSON, parsed; null when there is none or it is not JSON, NULL without memory. */
static json_t *chunk_json(const lqt_model *model, uint16_t type) {
  const void *data;
  size_t bytes;
  if (lqt_model_chunk(model, type, &data, &bytes) != LQT_OK) return json_null();
  json_t *value = json_loadb(data, bytes, JSON_DECODE_ANY, NULL);
  if (tool_json_failed()) {
    json_decref(value);
    return NULL;
  }
  return value != NULL ? value : json_null();
}

typedef json_t *(*item_fn)(const lqt_model *model, size_t index);

static json_t *list(const lqt_model *model, size_t count, item_fn item) {
  json_t *array = json_array();
  for (size_t i = 0; array != NULL && i < count; i++) {
    if (json_array_append_new(array, item(model, i)) != 0) {
      json_decref(array);
      return NULL;
    }
  }
  return array;
}

static json_t *section_item(const lqt_model *model, size_t index) {
  lqt_section_info section;
  if (lqt_model_section(model, index, &section) != LQT_OK) return json_null();
  return json_pack("{s:o, s:I, s:I}", "name", tool_json_text(section.name, strlen(section.name)),
                   "offset", (json_int_t)section.offset, "bytes", (json_int_t)section.bytes);
}

static json_t *codebook_item(const lqt_model *model, size_t index) {
  lqt_codebook_info book;
  if (lqt_model_codebook(model, index, &book) != LQT_OK) return json_null();
  return json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "id", book.id,
                   "dtype", lqt_dtype_name(book.dtype), "mutable", book.flags & 1, "expandable",
                   (book.flags & 2) != 0, "shared", (book.flags & 4) != 0, "residual",
                   (book.flags & 8) != 0, "vectors", (json_int_t)book.vectors, "banks",
                   (json_int_t)book.banks, "vector_dim", (json_int_t)book.vector_dim, "capacity",
                   (json_int_t)book.capacity, "users", (json_int_t)book.users, "bytes",
                   (json_int_t)book.bytes);
}

static json_t *tensor_item(const lqt_model *model, size_t index) {
  lqt_tensor_info tensor;
  if (lqt_model_tensor(model, index, &tensor) != LQT_OK) return json_null();
  json_t *shape = json_array();
  for (uint32_t i = 0; i < tensor.ndim && i < 8; i++) {
    json_array_append_new(shape, json_integer(tensor.shape[i]));
  }
  json_t *item = json_pack(
      "{s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:f, s:i, s:i, s:I}", "name",
      tool_json_text(tensor.name, strlen(tensor.name)), "dtype", lqt_dtype_name(tensor.dtype),
      "shape", shape, "codebook", id_or_null(tensor.codebook_id), "delta",
      id_or_null(tensor.delta_id), "mask", id_or_null(tensor.mask_id), "residual",
      id_or_null(tensor.residual_id), "scale", (double)tensor.scale, "zero_point",
      tensor.zero_point, "flags", tensor.flags, "bytes", (json_int_t)tensor.bytes);
  if (item != NULL && tensor.dtype == LQT_DTYPE_CODEBOOK) {
    bool added = put_count(item, "index_bits", tensor.index_bits) &&
                 put_count(item, "vector_dim", tensor.vector_dim) &&
                 put_count(item, "group_size", tensor.group_size) &&
                 put(item, "scope", json_string(inspect_scope_name(tensor.scope)));
    if (!added) {
      json_decref(item);
      return NULL;
    }
  }
  return item;
}

static json_t *delta_item(const lqt_model *model, size_t index) {
  lqt_delta_info delta;
  if (lqt_model_delta(model, index, &delta) != LQT_OK) return json_null();
  return json_pack("{s:i, s:s, s:s, s:i, s:I, s:I}", "id", delta.id, "encoding",
                   inspect_delta_encoding(delta.encoding), "dtype", lqt_dtype_name(delta.dtype),
                   "flags", delta.flags, "values", (json_int_t)delta.count, "bytes",
                   (json_int_t)delta.bytes);
}

static json_t *mask_item(const lqt_model *model, size_t index) {
  lqt_mask_info mask;
  if (lqt_model_mask(model, index, &mask) != LQT_OK) return json_null();
  return json_pack("{s:i, s:s, s:f, s:I, s:I}", "id", mask.id, "encoding",
                   inspect_mask_encoding(mask.encoding), "density", mask.density, "elements",
                   (json_int_t)mask.count, "bytes", (json_int_t)mask.bytes);
}

static json_t *hyperparameters(const lqt_model *model) {
  json_t *object = json_object();
  for (size_t i = 0; object != NULL && i < lqt_model_hyperparameter_count(model); i++) {
    const char *key;
    float value;
    if (lqt_model_hyperparameter(model, i, &key, &value) != LQT_OK) continue;
    if (!put(object, key, tool_json_real((double)value))) {
      json_decref(object);
      return NULL;
    }
  }
  return object;
}

static json_t *chunk_list(const lqt_model *model) {
  json_t *array = json_array();
  for (uint32_t type = 0; array != NULL && type <= 0xffff; type++) {
    const void *data;
    size_t bytes;
    if (lqt_model_chunk(model, (uint16_t)type, &data, &bytes) != LQT_OK) continue;
    json_t *item = json_pack("{s:i, s:s, s:I}", "type", (int)type, "name",
                             inspect_chunk_name((uint16_t)type), "bytes", (json_int_t)bytes);
    if (json_array_append_new(array, item) != 0) {
      json_decref(array);
      return NULL;
    }
  }
  return array;
}

static json_t *summary(const lqt_model_info *info) {
  char version[16];
  snprintf(version, sizeof version, "%u.%u", info->version >> 12, info->version & 0xfffu);
  return json_pack(
      "{s:o, s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "path",
      tool_json_text(info->path, strlen(info->path)), "version", version, "file_bytes",
      (json_int_t)info->file_bytes, "parameters", (json_int_t)info->parameters, "quantized_weights",
      (json_int_t)info->quantized_weights, "quantized_bytes", (json_int_t)info->quantized_bytes,
      "bits_per_weight", tool_json_real(info->bits_per_weight), "tensor_count",
      (json_int_t)info->tensors, "codebook_count", (json_int_t)info->codebooks, "delta_count",
      (json_int_t)info->deltas, "mask_count", (json_int_t)info->masks, "module_count",
      (json_int_t)info->modules, "edit_count", (json_int_t)info->edits, "vocab_size",
      (json_int_t)info->vocab_size, "context", (json_int_t)info->context);
}

static bool put_header(json_t *root, const lqt_model *model, const lqt_model_info *info) {
  return put(root, "header",
             json_pack("{s:i, s:i, s:I}", "version", info->version, "flags", info->flags,
                       "timestamp_ns", (json_int_t)info->timestamp_ns)) &&
         put(root, "sections", list(model, lqt_model_section_count(model), section_item));
}

static bool put_metadata(json_t *root, const lqt_model *model) {
  return put(root, "hyperparameters", hyperparameters(model)) &&
         put(root, "chunks", chunk_list(model)) &&
         put(root, "provenance", chunk_json(model, INSPECT_CHUNK_PROVENANCE));
}

json_t *inspect_json(const lqt_model *model, unsigned parts) {
  if (parts == 0) parts = ~0u;
  lqt_model_info info;
  lqt_model_get_info(model, &info);
  json_t *root = summary(&info);
  bool ok = root != NULL;
  if (ok && (parts & INSPECT_HEADER)) ok = put_header(root, model, &info);
  if (ok && (parts & INSPECT_METADATA)) ok = put_metadata(root, model);
  if (ok && (parts & INSPECT_MODULES)) {
    ok = put(root, "graph", chunk_json(model, INSPECT_CHUNK_MODULES));
  }
  if (ok && (parts & INSPECT_CODEBOOKS)) {
    ok = put(root, "codebooks", list(model, lqt_model_codebook_count(model), codebook_item));
  }
  if (ok && (parts & INSPECT_TENSORS)) {
    ok = put(root, "tensors", list(model, lqt_model_tensor_count(model), tensor_item));
  }
  if (ok && (parts & INSPECT_DELTAS)) {
    ok = put(root, "deltas", list(model, lqt_model_delta_count(model), delta_item));
  }
  if (ok && (parts & INSPECT_MASKS)) {
    ok = put(root, "masks", list(model, lqt_model_mask_count(model), mask_item));
  }
  if (ok && (parts & INSPECT_EDIT_LOG)) {
    ok = put(root, "edit_log", json_pack("{s:I}", "entries", (json_int_t)info.edits));
  }
  if (!ok) {
    json_decref(root);
    return NULL;
  }
  return root;
}

/* ---- The module graph as text ---- */

/* Splits "layers.7.attn" into 7 and "attn"; false when the id has no number. */
static bool layer_of(const char *id, long *out_layer, const char **out_rest) {
  const char *dot = strchr(id, '.');
  if (dot == NULL || dot == id) return false;
  char *end;
  errno = 0;
  *out_layer = strtol(dot + 1, &end, 10);
  if (end == dot + 1 || *end != '.' || errno != 0 || *out_layer >= INT_MAX) return false;
  *out_rest = end + 1;
  return true;
}

static long count_layers(const json_t *modules) {
  long last = -1;
  size_t i;
  json_t *module;
  json_array_foreach(modules, i, module) {
    const char *id = json_string_value(json_object_get(module, "id"));
    const char *rest;
    long layer;
    if (id != NULL && layer_of(id, &layer, &rest) && layer > last) last = layer;
  }
  return last + 1;
}

static void print_module_tensors(const lqt_model *model, const json_t *tensors) {
  const char *role;
  json_t *name;
  json_object_foreach((json_t *)tensors, role, name) {
    const char *text = json_string_value(name);
    size_t index;
    lqt_tensor_info tensor;
    char shape[96];
    if (text == NULL || lqt_model_find_tensor(model, text, &index) != LQT_OK ||
        lqt_model_tensor(model, index, &tensor) != LQT_OK) {
      continue;
    }
    inspect_shape_text(&tensor, shape, sizeof shape);
    printf("  %s %s", role, shape);
    if (tensor.dtype == LQT_DTYPE_CODEBOOK) {
      printf(" cb%u", tensor.index_bits);
    } else {
      printf(" %s", lqt_dtype_name(tensor.dtype));
    }
  }
}

bool inspect_print_modules(const lqt_model *model, bool layout) {
  json_t *graph = chunk_json(model, INSPECT_CHUNK_MODULES);
  json_t *modules = json_object_get(graph, "modules");
  if (graph == NULL) return false;
  if (!json_is_array(modules)) {
    puts("\nModules: none");
    json_decref(graph);
    return true;
  }
  long layers = count_layers(modules);
  puts("\nModules (tensors: role, shape, kind)");
  size_t i;
  json_t *module;
  json_array_foreach(modules, i, module) {
    const char *id = json_string_value(json_object_get(module, "id"));
    const char *type = json_string_value(json_object_get(module, "type"));
    const char *rest;
    long layer;
    if (id == NULL || type == NULL) continue;
    char name[96];
    snprintf(name, sizeof name, "%s", id);
    if (layout && layers > 1 && layer_of(id, &layer, &rest)) {
      if (layer != 0) continue;
      snprintf(name, sizeof name, "%ld x %s", layers, rest);
    }
    printf("  %-24s %-12s", name, type);
    print_module_tensors(model, json_object_get(module, "tensors"));
    putchar('\n');
  }
  json_decref(graph);
  return true;
}
