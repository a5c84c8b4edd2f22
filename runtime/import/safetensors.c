#include "import/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/diag.h"
#include "base/json.h"

/* The reference implementation's bound on the header. */
enum { MAX_HEADER = 100000000 };

typedef struct type_row {
  const char *name;
  lqt_dtype dtype;
  unsigned bits; /* 0: unknown */
} type_row;

static const type_row types[] = {
    {"F32", LQT_DTYPE_F32, 32},       {"F16", LQT_DTYPE_F16, 16},
    {"BF16", LQT_DTYPE_BF16, 16},     {"I8", LQT_DTYPE_I8, 8},
    {"U8", LQT_DTYPE_U8, 8},          {"I32", LQT_DTYPE_I32, 32},
    {"F64", LQT_DTYPE_MAX_, 64},      {"I64", LQT_DTYPE_MAX_, 64},
    {"U64", LQT_DTYPE_MAX_, 64},      {"U32", LQT_DTYPE_MAX_, 32},
    {"I16", LQT_DTYPE_MAX_, 16},      {"U16", LQT_DTYPE_MAX_, 16},
    {"BOOL", LQT_DTYPE_MAX_, 8},      {"F8_E4M3", LQT_DTYPE_MAX_, 8},
    {"F8_E5M2", LQT_DTYPE_MAX_, 8},   {"F8_E8M0", LQT_DTYPE_MAX_, 8},
    {"F6_E2M3", LQT_DTYPE_MAX_, 6},   {"F6_E3M2", LQT_DTYPE_MAX_, 6},
    {"F4", LQT_DTYPE_MAX_, 4},        {"C64", LQT_DTYPE_MAX_, 64},
    {"F8_E4M3FN", LQT_DTYPE_MAX_, 8},
};

static const type_row *find_type(const char *name) {
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    if (strcmp(types[i].name, name) == 0) return &types[i];
  }
  return NULL;
}

/* A JSON number that is a count; false when it is none. */
static bool read_count(const json_t *value, uint64_t *out) {
  if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
  *out = (uint64_t)json_integer_value(value);
  return true;
}

static lqt_status read_shape(const json_t *shape, const char *where, lqt__st_tensor *out,
                             lqt_diag *diag) {
  if (!json_is_array(shape) || json_array_size(shape) > LQT__ST_MAX_DIMS) {
    return lqt__fail(diag, LQT_BAD_SOURCE, where,
                     "tensor %.100s: the shape is not a list of at most %d numbers", out->name,
                     LQT__ST_MAX_DIMS);
  }
  out->ndim = (uint32_t)json_array_size(shape);
  out->elements = 1;
  for (uint32_t i = 0; i < out->ndim; i++) {
    if (!read_count(json_array_get(shape, i), &out->shape[i])) {
      return lqt__fail(diag, LQT_BAD_SOURCE, where, "tensor %.100s: dimension %u is not a count",
                       out->name, i);
    }
    if (!lqt__mul(out->elements, out->shape[i], &out->elements)) {
      return lqt__fail(diag, LQT_BAD_SOURCE, where, "tensor %.100s: the shape overflows",
                       out->name);
    }
  }
  return LQT_OK;
}

static lqt_status read_range(const json_t *offsets, const type_row *type, uint64_t base,
                             uint64_t limit, const char *where, lqt__st_tensor *out,
                             lqt_diag *diag) {
  uint64_t begin, end, bits;
  if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
      !read_count(json_array_get(offsets, 0), &begin) ||
      !read_count(json_array_get(offsets, 1), &end) || end < begin) {
    return lqt__fail(diag, LQT_BAD_SOURCE, where,
                     "tensor %.100s: data_offsets is not a pair of ascending counts", out->name);
  }
  if (end > limit) {
    return lqt__fail_at(diag, LQT_TRUNCATED, where, base,
                        "tensor %.100s: its bytes %" PRIu64 "..%" PRIu64
                        " end after the file's %" PRIu64 " data bytes; download the file again",
                        out->name, begin, end, limit);
  }
  out->offset = base + begin;
  out->bytes = end - begin;
  if (!lqt__mul(out->elements, type->bits, &bits) || bits % 8 != 0 || bits / 8 != out->bytes) {
    return lqt__fail_at(diag, LQT_BAD_SOURCE, where, out->offset,
                        "tensor %.100s: %" PRIu64 " bytes do not hold %" PRIu64 " elements of %s",
                        out->name, out->bytes, out->elements, type->name);
  }
  return LQT_OK;
}

static lqt_status read_tensor(const char *name, const json_t *entry, uint64_t base, uint64_t limit,
                              const char *where, lqt__safetensors *file, lqt__st_tensor *out,
                              lqt_diag *diag) {
  out->name = lqt__arena_strndup(&file->arena, name, strlen(name));
  if (out->name == NULL) return lqt__fail_memory(diag, where, strlen(name), "a tensor's name");
  const json_t *dtype = json_object_get(entry, "dtype");
  const type_row *type = json_is_string(dtype) ? find_type(json_string_value(dtype)) : NULL;
  if (type == NULL) {
    return lqt__fail(diag, LQT_BAD_SOURCE, where, "tensor %.100s: no known dtype", out->name);
  }
  out->dtype = type->dtype;
  out->dtype_name = type->name;
  LQT__TRY(read_shape(json_object_get(entry, "shape"), where, out, diag));
  return read_range(json_object_get(entry, "data_offsets"), type, base, limit, where, out, diag);
}

static int by_offset(const void *a, const void *b) {
  const lqt__st_tensor *x = a, *y = b;
  if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1; /* empty tensors come first */
  return strcmp(x->name, y->name);
}

/* The tensors must tile the data: the format has no holes, so a hole or an overlap is damage. */
static lqt_status check_tiling(const lqt__safetensors *file, uint64_t base, uint64_t bytes,
                               const char *where, lqt_diag *diag) {
  uint64_t at = base;
  for (size_t i = 0; i < file->count; i++) {
    const lqt__st_tensor *tensor = &file->tensors[i];
    if (tensor->offset != at) {
      return lqt__fail_at(diag, LQT_BAD_SOURCE, where, tensor->offset,
                          "tensor %.100s: its bytes %s those of the tensor before it", tensor->name,
                          tensor->offset < at ? "overlap" : "leave a hole after");
    }
    at += tensor->bytes;
  }
  if (at != bytes) {
    return lqt__fail_at(diag, LQT_BAD_SOURCE, where, at,
                        "%" PRIu64 " bytes after the last tensor belong to none", bytes - at);
  }
  return LQT_OK;
}

static lqt_status read_tensors(const json_t *root, uint64_t base, uint64_t bytes, const char *where,
                               lqt__safetensors *file, lqt_diag *diag) {
  if (!json_is_object(root)) {
    return lqt__fail_at(diag, LQT_BAD_SOURCE, where, 8, "the header is not a JSON object");
  }
  size_t limit = json_object_size(root);
  file->tensors = lqt__arena_array(&file->arena, limit > 0 ? limit : 1, sizeof(lqt__st_tensor));
  if (file->tensors == NULL) {
    return lqt__fail_memory(diag, where, limit * sizeof(lqt__st_tensor), "the tensor table");
  }
  const char *name;
  json_t *entry;
  json_object_foreach((json_t *)root, name, entry) {
    if (strcmp(name, "__metadata__") == 0) continue;
    LQT__TRY(read_tensor(name, entry, base, bytes - base, where, file, &file->tensors[file->count],
                         diag));
    file->count++;
  }
  qsort(file->tensors, file->count, sizeof(lqt__st_tensor), by_offset);
  return check_tiling(file, base, bytes, where, diag);
}

lqt_status lqt__safetensors_parse(const uint8_t *data, uint64_t bytes, const char *where,
                                  lqt__safetensors *out, lqt_diag *diag) {
  *out = (lqt__safetensors){0};
  uint64_t header = 0;
  if (bytes < 8) {
    return lqt__fail_at(diag, LQT_TRUNCATED, where, 0,
                        "%" PRIu64 " bytes are too few for a safetensors file", bytes);
  }
  for (int i = 7; i >= 0; i--) header = header << 8 | data[i];
  if (header > MAX_HEADER) {
    return lqt__fail_at(diag, LQT_BAD_SOURCE, where, 0,
                        "a header of %" PRIu64 " bytes is not a safetensors file's (at most %d)",
                        header, MAX_HEADER);
  }
  if (header > bytes - 8) {
    return lqt__fail_at(diag, LQT_TRUNCATED, where, 0,
                        "the header's %" PRIu64 " bytes end after the file; download it again",
                        header);
  }
  json_t *root;
  LQT__TRY(lqt__json_parse((const char *)data + 8, (size_t)header, where, &root, diag));
  lqt_status status = read_tensors(root, 8 + header, bytes, where, out, diag);
  json_decref(root);
  if (status != LQT_OK) lqt__safetensors_free(out);
  return status;
}

void lqt__safetensors_free(lqt__safetensors *file) {
  lqt__arena_free(&file->arena);
  *file = (lqt__safetensors){0};
}

const lqt__st_tensor *lqt__safetensors_find(const lqt__safetensors *file, const char *name) {
  for (size_t i = 0; i < file->count; i++) {
    if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
  }
  return NULL;
}
