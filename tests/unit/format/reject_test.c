/* Files that must be refused, each with the status it must be refused with. A case changes one
 * thing in the sample's bytes; unless it is about checksums, digests and CRC are made to fit again,
 * so that the change itself has to be found. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "format/bytes.h"
#include "format/layout.h"
#include "lqt/model.h"
#include "sample.h"
#include "support/seal.h"

typedef enum place {
  HEADER,
  FOOTER,
  EXTENSION,
  CHUNK,      /* index = type: its value */
  ENTRY,      /* index = type: its type field */
  DESCRIPTOR, /* index = tensor: after its name */
  NAME,       /* index = tensor: its name */
  LAYOUT,     /* index = tensor */
  CODEBOOKS,  /* index = record of the table */
  DELTAS,
  MASKS,
  BOOK, /* index: the section */
  BLOB, /* index = tensor: its section, ids included */
  SCALES,
  ZEROS,
  DELTA,
  MASK,
  GAP, /* index = section: the bytes before it */
  CUT, /* keep `at` bytes (negative: from the end) */
} place;

enum { SET, ADD };
enum { OPEN, OPEN_RAW /* digests not made fresh */, VALIDATE, VALIDATE_RAW };

typedef struct reject {
  const char *name;
  lqt_status status;
  int stage;
  place where;
  int index;
  int64_t at;
  int width, op;
  int64_t value;
} reject;

/* Offsets in the descriptor of a 2-D tensor, after its name. */
enum { D_TYPE = 0, D_DTYPE = 1, D_NDIM = 2, D_ROWS = 3, D_COLS = 7, D_BOOK = 11, D_DELTA = 13 };
enum { D_MASK = 15, D_SCALE = 17, D_ZERO = 21, D_FLAGS = 25, D_SPARSITY = 31, D_DIST = 35 };
#define INF 0x7f800000
#define NAN_ 0x7fc00000

/* clang-format off */
static const reject rejects[] = {
#include "reject_cases.inc"
};
/* clang-format on */

enum { REJECTS = sizeof rejects / sizeof rejects[0] };

static char folder[] = "/tmp/lqt-reject-test-XXXXXX";
static char path[256];

static void make_folder(void) {
  cr_assert_not_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/file.lqt", folder);
}

static void remove_folder(void) {
  unlink(path);
  rmdir(folder);
}

TestSuite(reject, .init = make_folder, .fini = remove_folder);

/* The chunk's type field in the image, or NULL. */
static uint8_t *entry_of(uint8_t *data, const lqt__file *file, uint16_t type) {
  uint8_t *p = data + file->metadata_offset, *end = p + file->metadata_bytes;
  while (p < end) {
    if (lqt__load_u16(p, false) == type) return p;
    p += (LQT__ENTRY_HEADER + lqt__load_u32(p + 2, false) + 3) & ~3u;
  }
  return NULL;
}

static uint8_t *value_of(uint8_t *data, const lqt__file *file, uint16_t type) {
  uint8_t *p = entry_of(data, file, type);
  cr_assert_not_null(p);
  return p + LQT__ENTRY_HEADER;
}

static uint8_t *descriptor_of(uint8_t *data, const lqt__file *file, int index, bool name) {
  uint8_t *p = value_of(data, file, LQT__CHUNK_TENSORS);
  for (int i = 0;; i++) {
    uint8_t *begin = p;
    uint32_t length = lqt__load_u16(p, false);
    p += (2 + length + 3) & ~3u;
    if (i == index) return name ? begin : p;
    p += 19 + 4 * p[2] + (p[0] == 1 ? 10 : 0);
    p += (0 - (p - begin)) & 3;
  }
}

static uint8_t *locate(uint8_t *data, const lqt__file *file, place where, int index) {
  const lqt__tensor *t = &file->tensors[index];
  switch (where) {
    case HEADER:
      return data;
    case FOOTER:
      return data + file->footer_offset;
    case EXTENSION:
      return data + file->extension_offset;
    case CHUNK:
      return value_of(data, file, (uint16_t)index);
    case ENTRY:
      return entry_of(data, file, (uint16_t)index);
    case DESCRIPTOR:
      return descriptor_of(data, file, index, false);
    case NAME:
      return descriptor_of(data, file, index, true);
    case LAYOUT:
      return value_of(data, file, LQT__CHUNK_QUANT_LAYOUT) + 96 * index;
    case CODEBOOKS:
      return value_of(data, file, LQT__CHUNK_CODEBOOKS) + 18 * index;
    case DELTAS:
      return value_of(data, file, LQT__CHUNK_DELTAS) + 18 * index;
    case MASKS:
      return value_of(data, file, LQT__CHUNK_MASKS) + 18 * index;
    case BOOK:
      return data + file->codebooks[index].blob.offset;
    case BLOB:
      return data + t->payload.offset - 64;
    case SCALES:
      return data + t->group_scales.offset;
    case ZEROS:
      return data + t->zero_points.offset;
    case DELTA:
      return data + file->deltas[index].blob.offset;
    case MASK:
      return data + file->masks[index].blob.offset;
    case GAP:
      return data + file->sections[index].offset;
    default:
      return NULL;
  }
}

static void apply(const reject *r, uint8_t *data, const lqt__file *file, size_t *bytes) {
  if (r->where == CUT) {
    *bytes = r->at >= 0 ? (size_t)r->at : *bytes - (size_t)-r->at;
    return;
  }
  uint8_t *p = locate(data, file, r->where, r->index) + r->at;
  cr_assert(p >= data && p + r->width <= data + *bytes, "%s", r->name);
  uint64_t value = 0;
  for (int i = r->width - 1; i >= 0; i--) value = value << 8 | p[i];
  value = r->op == ADD ? value + (uint64_t)r->value : (uint64_t)r->value;
  /* Fields wider than 8 bytes get the value again and again. */
  for (int i = 0; i < r->width; i++) p[i] = (uint8_t)(value >> 8 * (i % 8));
}

static lqt_status open_image(const uint8_t *data, size_t bytes, bool validate, lqt_diag *diag) {
  lqt_model *model;
  lqt_status status = lqt_model_open_memory(data, bytes, NULL, &model, diag);
  if (status != LQT_OK) {
    cr_assert_null(model);
    return status;
  }
  if (validate) status = lqt_model_validate(model, NULL, NULL, NULL, diag);
  lqt_model_release(model);
  return status;
}

/* Writes the sample, maybe with another graph. */
static uint8_t *make_image(const char *graph, size_t *bytes) {
  sample s;
  cr_assert(sample_make(&s, SAMPLE_SEED));
  for (size_t i = 0; graph != NULL && i < s.file.chunk_count; i++) {
    if (s.file.chunks[i].type != LQT__CHUNK_MODULES) continue;
    s.file.chunks[i].data = (const uint8_t *)graph;
    s.file.chunks[i].bytes = (uint32_t)strlen(graph);
  }
  lqt_diag diag = {0};
  uint8_t *data = sample_write(&s.file, path, bytes, &diag);
  cr_assert_not_null(data, "%s", diag.what);
  sample_free(&s);
  return data;
}

Test(reject, every_case_has_its_status) {
  size_t bytes, failures = 0;
  uint8_t *data = make_image(NULL, &bytes);
  uint8_t *copy = lqt__alloc_aligned(bytes, 64);
  lqt__file file;
  cr_assert_eq(lqt__file_parse(data, bytes, "sample", false, &file, NULL), LQT_OK);
  for (size_t i = 0; i < REJECTS; i++) {
    const reject *r = &rejects[i];
    size_t size = bytes;
    memcpy(copy, data, bytes);
    apply(r, copy, &file, &size);
    if (r->stage == OPEN || r->stage == VALIDATE) test_seal(copy, size);
    bool validate = r->stage == VALIDATE || r->stage == VALIDATE_RAW;
    lqt_diag diag = {0};
    lqt_status status = open_image(copy, size, false, &diag);
    if (validate) {
      if (status != LQT_OK) {
        printf("%s: opening gives %s (%s)\n", r->name, lqt_status_name(status), diag.what);
        failures++;
        continue;
      }
      status = open_image(copy, size, true, &diag);
    }
    if (status == r->status && diag.what[0] != '\0' && diag.where[0] != '\0') continue;
    printf("%s: %s instead of %s (%s)\n", r->name, lqt_status_name(status),
           lqt_status_name(r->status), diag.what);
    failures++;
  }
  cr_expect_eq(failures, 0, "%zu of %d cases", failures, (int)REJECTS);
  lqt__file_free(&file);
  lqt__free(copy);
  lqt__free(data);
}

typedef struct graph_reject {
  const char *name;
  lqt_status status;
  const char *json;
} graph_reject;

#define MODULES(text) "{\"version\": 1, \"modules\": [" text "], "
#define EMBED                                                                            \
  "{\"id\": \"e\", \"type\": \"embedding\", \"inputs\": [\"x\"], \"outputs\": [\"y\"], " \
  "\"tensors\": {\"weight\": \"embed.weight\"}}"
#define MODULE(id, type, tensors, hyper)            \
  "{\"id\": \"" id "\", \"type\": \"" type          \
  "\", \"inputs\": [\"x\"], \"outputs\": [\"y\"], " \
  "\"tensors\": {" tensors "}, \"hyperparameters\": {" hyper "}}"
#define ADD_MODULE(id) \
  "{\"id\": \"" id "\", \"type\": \"add\", \"inputs\": [\"a\", \"b\"], \"outputs\": [\"y\"]}"
#define LINK(from, to) "{\"from\": \"" from "\", \"to\": \"" to "\"}"
#define ENDS(connections, to, from)                                                    \
  "\"connections\": [" connections "], \"inputs\": [{\"name\": \"ids\", \"to\": \"" to \
  "\"}], \"outputs\": [{\"name\": \"out\", \"from\": \"" from "\"}]}"
#define TWO(second) MODULES(EMBED ", " second) ENDS(LINK("e:0", "m:0"), "e:0", "m:0")
#define QKVO "\"q\": \"q.weight\", \"k\": \"k.weight\", \"v\": \"v.weight\", \"o\": \"o.weight\""
#define HEADS "\"heads\": 2, \"kv_heads\": 1, \"head_dim\": 16"
#define MLP "\"gate\": \"gate.weight\", \"up\": \"up.weight\", \"down\": \"down.weight\""

/* clang-format off */
static const graph_reject graph_rejects[] = {
#include "reject_graphs.inc"
};
/* clang-format on */

enum { GRAPH_REJECTS = sizeof graph_rejects / sizeof graph_rejects[0] };

Test(reject, every_graph_has_its_status) {
  size_t failures = 0;
  for (size_t i = 0; i < GRAPH_REJECTS; i++) {
    const graph_reject *r = &graph_rejects[i];
    size_t bytes;
    uint8_t *data = make_image(r->json, &bytes);
    lqt_diag diag = {0};
    lqt_status status = open_image(data, bytes, true, &diag);
    if (status != r->status || (status != LQT_OK && diag.what[0] == '\0')) {
      printf("graph %s: %s instead of %s (%s)\n", r->name, lqt_status_name(status),
             lqt_status_name(r->status), diag.what);
      failures++;
    }
    lqt__free(data);
  }
  cr_expect_eq(failures, 0);
}

Test(reject, there_are_at_least_two_hundred) {
  size_t refused = REJECTS;
  for (size_t i = 0; i < GRAPH_REJECTS; i++) refused += graph_rejects[i].status != LQT_OK;
  cr_assert_geq(refused, 200, "%zu", refused);
  for (size_t i = 0; i < REJECTS; i++) {
    for (size_t k = 0; k < i; k++) cr_assert_str_neq(rejects[i].name, rejects[k].name);
  }
}

/* Every prefix of the file is refused. */
Test(reject, every_truncation) {
  size_t bytes;
  uint8_t *data = make_image(NULL, &bytes);
  for (size_t size = 0; size < bytes; size++) {
    lqt_diag diag = {0};
    lqt_status status = open_image(data, size, false, &diag);
    cr_assert(status == LQT_TRUNCATED || status == LQT_BAD_MAGIC, "%zu bytes: %s", size,
              lqt_status_name(status));
  }
  lqt__free(data);
}
