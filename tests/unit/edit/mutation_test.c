/* Every mutation: what the running engine computes after it is, bit for bit, what an engine
 * computes that was loaded cold from the saved file; taking it back brings back every byte; and
 * each bad input has its own status and changes nothing. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/half.h"
#include "base/random.h"
#include "format/format.h"
#include "format/layout.h"
#include "io/file.h"
#include "lqt/edit.h"
#include "model/model.h"
#include "unit/exec/fixture.h"

enum { VOCAB = 67, COUNT = 12, MOST = 8192 };

typedef struct bench {
  fixture f;
  lqt_editor *editor;
  lqt_session *session;
  float before[VOCAB];
  char saved[256], again[256];
} bench;

static const int32_t prompt[COUNT] = {5, 18, 40, 2, 61, 33, 7, 7, 12, 50, 3, 66};

static void run(lqt_session *session, float *out) {
  cr_assert_eq(lqt_session_sequence_truncate(session, 0, 0, NULL), LQT_OK);
  lqt_step_input input = {0, LQT_LOGITS_LAST, prompt, COUNT};
  lqt_diag diag = {0};
  cr_assert_eq(lqt_session_step(session, &input, 1, NULL, &diag), LQT_OK, "%s", diag.what);
  memcpy(out, lqt_session_logits(session, 0, 0), VOCAB * sizeof *out);
}

static void open_bench(bench *b) {
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  spec.tied = false;
  fixture_open(&b->f, &spec, "cpu");
  snprintf(b->saved, sizeof b->saved, "%s", tiny_path("saved.lqt"));
  snprintf(b->again, sizeof b->again, "%s", tiny_path("again.lqt"));
  lqt_diag diag = {0};
  cr_assert_eq(lqt_editor_create(b->f.model, &b->editor, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_editor_attach(b->editor, b->f.engine, &diag), LQT_OK, "%s", diag.what);
  b->session = fixture_session(&b->f, 1, 0, 0);
  (void)fixture_sequence(b->session);
  run(b->session, b->before);
}

static void close_bench(bench *b) {
  lqt_editor_destroy(b->editor);
  lqt_session_destroy(b->session);
  fixture_close(&b->f);
}

/* Logits of a model file, loaded cold. */
static void run_cold(const bench *b, const char *path, float *out) {
  lqt_model *model;
  lqt_engine *engine;
  lqt_session *session;
  lqt_diag diag = {0};
  lqt_model_options verify = {.size = sizeof verify, .verify = true};
  cr_assert_eq(lqt_model_open(path, &verify, &model, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_model_validate(model, NULL, NULL, NULL, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_engine_create(model, b->f.device, &engine, &diag), LQT_OK, "%s", diag.what);
  lqt_session_options options = {
      .size = sizeof options, .kv_dtype = LQT_DTYPE_F32, .kv_dtype_set = true};
  cr_assert_eq(lqt_session_create(engine, &options, &session, &diag), LQT_OK, "%s", diag.what);
  (void)fixture_sequence(session);
  run(session, out);
  lqt_session_destroy(session);
  lqt_engine_destroy(engine);
  lqt_model_release(model);
}

static void save(const bench *b, const char *path) {
  lqt_diag diag = {0};
  cr_assert_eq(lqt_editor_save(b->editor, path, &diag), LQT_OK, "%s", diag.what);
}

/* The same file but for the footer, which has the time? */
static bool same_files(const char *a, const char *b) {
  char *x, *y;
  size_t x_bytes, y_bytes;
  cr_assert_eq(lqt__file_read(a, 1 << 24, &x, &x_bytes, NULL), LQT_OK);
  cr_assert_eq(lqt__file_read(b, 1 << 24, &y, &y_bytes, NULL), LQT_OK);
  bool same = x_bytes == y_bytes && memcmp(x, y, x_bytes - LQT__FOOTER_BYTES) == 0;
  lqt__free(x);
  lqt__free(y);
  return same;
}

static void commit(bench *b, const char *what, const lqt_mutation *mutations, size_t count) {
  lqt_diag diag = {0};
  lqt_status status = lqt_edit_batch(b->editor, mutations, count, false, NULL, NULL, NULL, &diag);
  cr_assert_eq(status, LQT_OK, "%s: %s: %s", what, lqt_status_name(status), diag.what);
}

/* Makes an edit, holds the live engine against a cold one, takes it back. `changes`: the logits
 * become others. */
static void there_and_back(bench *b, const char *what, const lqt_mutation *mutations, size_t count,
                           bool changes) {
  float start[VOCAB], now[VOCAB], cold[VOCAB];
  run(b->session, start);
  save(b, b->again);
  commit(b, what, mutations, count);
  run(b->session, now);
  save(b, b->saved);
  run_cold(b, b->saved, cold);
  cr_assert_arr_eq(now, cold, sizeof now, "%s: live and cold differ", what);
  cr_assert_eq(memcmp(start, now, sizeof now) != 0, changes, "%s: logits", what);
  cr_assert_not(same_files(b->saved, b->again), "%s: the file is the same", what);
  lqt_diag diag = {0};
  cr_assert_eq(lqt_edit_undo(b->editor, NULL, &diag), LQT_OK, "%s: %s", what, diag.what);
  run(b->session, now);
  cr_assert_arr_eq(start, now, sizeof now, "%s: undone logits", what);
  save(b, b->saved);
  cr_assert(same_files(b->saved, b->again), "%s: undone bytes", what);
}

#define M(...) ((lqt_mutation){.size = sizeof(lqt_mutation), __VA_ARGS__})
static float values[MOST];

static void fill(uint64_t seed, double scale) {
  lqt__random random = lqt__random_seed(seed);
  for (size_t i = 0; i < MOST; i++) {
    values[i] = (float)(scale * (2 * lqt__random_unit(&random) - 1));
  }
}

/* Rows and columns of a tensor. */
static void shape(const bench *b, const char *name, size_t *rows, size_t *cols) {
  size_t index;
  lqt_tensor_info info;
  cr_assert_eq(lqt_model_find_tensor(b->f.model, name, &index), LQT_OK);
  cr_assert_eq(lqt_model_tensor(b->f.model, index, &info), LQT_OK);
  *rows = info.ndim == 1 ? 1 : info.shape[0];
  *cols = info.ndim == 1 ? info.shape[0] : info.shape[1];
}

Test(mutation, codebooks) {
  bench b;
  open_bench(&b);
  fill(1, 1.5);
  lqt_mutation one = M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = TINY_SHARED, .first = 3,
                       .values = values, .value_count = 1);
  there_and_back(&b, "one entry", &one, 1, true);
  lqt_mutation many = M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = TINY_PLAIN, .first = 2,
                        .values = values, .value_count = 14);
  there_and_back(&b, "entries", &many, 1, true);
  lqt_mutation both[] = {one, many, one};
  both[2].values = values + 20; /* the last of overlapping ones holds */
  there_and_back(&b, "a batch", both, 3, true);
  close_bench(&b);
}

Test(mutation, deltas) {
  bench b;
  open_bench(&b);
  size_t rows, cols;
  fill(2, 0.2);
  for (int f16 = 0; f16 < 2; f16++) {
    lqt_dtype dtype = f16 ? LQT_DTYPE_F16 : LQT_DTYPE_F32;
    shape(&b, "l0.o", &rows, &cols);
    uint32_t pairs[] = {1, 2, 1, 5, 3, 0, 3, 1, 3, 2, (uint32_t)rows - 1, (uint32_t)cols - 1};
    there_and_back(&b, "dense delta",
                   &M(.operation = LQT_EDIT_DELTA_REPLACE, .target = "l0.o", .dtype = dtype,
                      .delta_kind = LQT_DELTA_DENSE, .values = values, .value_count = rows * cols),
                   1, true);
    lqt_mutation low = M(.operation = LQT_EDIT_DELTA_REPLACE, .target = "l0.o", .dtype = dtype,
                         .delta_kind = LQT_DELTA_LOW_RANK, .parameter = 3, .values = values,
                         .value_count = 3 * (rows + cols));
    there_and_back(&b, "low-rank delta", &low, 1, true);
    there_and_back(&b, "grouped delta",
                   &M(.operation = LQT_EDIT_DELTA_REPLACE, .target = "l0.o", .dtype = dtype,
                      .delta_kind = LQT_DELTA_GROUPED, .parameter = 7, .values = values,
                      .value_count = rows * ((cols + 6) / 7)),
                   1, true);
    lqt_mutation sparse = M(.operation = LQT_EDIT_DELTA_REPLACE, .target = "l0.o", .dtype = dtype,
                            .delta_kind = LQT_DELTA_CSR, .coordinates = pairs,
                            .coordinate_count = 6, .values = values, .value_count = 6);
    there_and_back(&b, "sparse delta", &sparse, 1, true);
    /* On top of a delta that is there. */
    commit(&b, "sparse delta", &sparse, 1);
    lqt_mutation update =
        M(.operation = LQT_EDIT_DELTA_SPARSE, .target = "l0.o", .coordinates = pairs + 2,
          .coordinate_count = 3, .values = values + 50, .value_count = 3);
    there_and_back(&b, "stored values", &update, 1, true);
    uint32_t fresh[] = {0, 0, 3, 1, 2, 4, 2, 4};
    update.coordinates = fresh;
    update.coordinate_count = update.value_count = 4;
    there_and_back(&b, "new values", &update, 1, true);
    there_and_back(&b, "numbered values",
                   &M(.operation = LQT_EDIT_DELTA_VALUES, .id = 0, .first = 2, .values = values + 9,
                      .value_count = 3),
                   1, true);
    there_and_back(&b, "no delta", &M(.operation = LQT_EDIT_DELTA_REMOVE, .target = "l0.o"), 1,
                   true);
    commit(&b, "low-rank delta", &low, 1);
    there_and_back(&b, "values of A and B",
                   &M(.operation = LQT_EDIT_DELTA_VALUES, .id = 0, .first = 3 * rows - 2,
                      .values = values + 9, .value_count = 5),
                   1, true);
    commit(&b, "no delta", &M(.operation = LQT_EDIT_DELTA_REMOVE, .target = "l0.o"), 1);
  }
  there_and_back(&b, "a delta of its own",
                 &M(.operation = LQT_EDIT_DELTA_SPARSE, .target = "l1.down", .dtype = LQT_DTYPE_F16,
                    .coordinates = (uint32_t[]){4, 4, 0, 9}, .coordinate_count = 2,
                    .values = values, .value_count = 2),
                 1, true);
  close_bench(&b);
}

Test(mutation, masks) {
  bench b;
  open_bench(&b);
  size_t rows, cols;
  shape(&b, "l1.up", &rows, &cols);
  uint8_t zeros[] = {0, 0, 0}, mixed[] = {1, 0, 1};
  lqt_mutation update = M(.operation = LQT_EDIT_MASK_UPDATE, .target = "l1.up",
                          .coordinates = (uint32_t[]){0, 0, 2, 3, 2, 4}, .coordinate_count = 3,
                          .data = zeros, .bytes = 3);
  there_and_back(&b, "a new mask", &update, 1, true);
  commit(&b, "a new mask", &update, 1);
  update.data = mixed;
  there_and_back(&b, "mask bits", &update, 1, true);
  size_t stride = (cols + 63) / 64 * 8;
  uint8_t *bits = malloc(rows * stride);
  for (size_t i = 0; i < rows * stride; i++) bits[i] = (uint8_t)(i * 37 + 11);
  there_and_back(&b, "a whole mask",
                 &M(.operation = LQT_EDIT_MASK_REPLACE, .target = "l1.up", .data = bits,
                    .bytes = rows * stride),
                 1, true);
  there_and_back(&b, "no mask", &M(.operation = LQT_EDIT_MASK_REMOVE, .target = "l1.up"), 1, true);
  memset(bits, 0, rows * stride);
  bits[0] = 1;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_edit(b.editor,
                        &M(.operation = LQT_EDIT_MASK_REPLACE, .target = "l1.up", .data = bits,
                           .bytes = rows * stride),
                        NULL, NULL, &diag),
               LQT_VALIDATION_FAILED);
  free(bits);
  close_bench(&b);
}

Test(mutation, scales) {
  bench b;
  open_bench(&b);
  fill(3, 0.3);
  there_and_back(&b, "group scales",
                 &M(.operation = LQT_EDIT_GROUP_SCALES, .target = "l0.up", .first = 3,
                    .values = values, .value_count = 5),
                 1, true);
  values[0] = 0.75f;
  there_and_back(&b, "scale",
                 &M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "l0.gate", .values = values,
                    .value_count = 1),
                 1, true);
  there_and_back(
      &b, "scale of a norm",
      &M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "norm", .values = values, .value_count = 1),
      1, true);
  lqt_mutation multiply = M(.operation = LQT_EDIT_TENSOR_MULTIPLY, .target = "l0.down",
                            .values = values, .value_count = 1);
  there_and_back(&b, "multiply", &multiply, 1, true);
  float delta = 0.25f;
  commit(
      &b, "delta",
      &M(.operation = LQT_EDIT_DELTA_SPARSE, .target = "l0.down", .coordinates = (uint32_t[]){1, 1},
         .coordinate_count = 1, .values = &delta, .value_count = 1),
      1);
  there_and_back(&b, "multiply with a delta", &multiply, 1, true);
  close_bench(&b);
}

/* Elements of a tensor as the editor has it. */
static float *elements(bench *b, const char *name, size_t *out_count) {
  lqt_model *model;
  size_t index;
  lqt_weight_desc desc;
  cr_assert_eq(lqt_editor_snapshot(b->editor, &model, NULL), LQT_OK);
  cr_assert_eq(lqt_model_find_tensor(model, name, &index), LQT_OK);
  cr_assert_eq(lqt_model_weight(model, index, &desc, NULL), LQT_OK);
  float *out = malloc(desc.rows * desc.cols * sizeof *out);
  for (size_t r = 0; r < desc.rows; r++) {
    cr_assert_eq(lqt_weight_desc_row(&desc, r, 0, desc.cols, out + r * desc.cols), LQT_OK);
  }
  *out_count = desc.rows * desc.cols;
  lqt_model_release(model);
  return out;
}

Test(mutation, tensors) {
  bench b;
  open_bench(&b);
  size_t rows, cols, count;
  fill(4, 0.3);
  static const lqt_dtype dtypes[] = {LQT_DTYPE_F32, LQT_DTYPE_F16, LQT_DTYPE_BF16};
  for (size_t i = 0; i < 3; i++) {
    shape(&b, "l1.gate", &rows, &cols);
    there_and_back(&b, "replace a codebook tensor",
                   &M(.operation = LQT_EDIT_TENSOR_REPLACE, .target = "l1.gate", .dtype = dtypes[i],
                      .values = values, .value_count = rows * cols),
                   1, true);
    shape(&b, "l0.norm1", &rows, &cols);
    there_and_back(&b, "replace a vector",
                   &M(.operation = LQT_EDIT_TENSOR_REPLACE, .target = "l0.norm1",
                      .dtype = dtypes[i], .values = values, .value_count = cols),
                   1, true);
  }
  shape(&b, "head", &rows, &cols);
  there_and_back(&b, "replace plain by plain",
                 &M(.operation = LQT_EDIT_TENSOR_REPLACE, .target = "head", .values = values,
                    .value_count = rows * cols),
                 1, true);
  /* Clamped elements are inside, the others as they were. */
  static const char *const clamped[] = {"l0.o", "head", "l1.norm0"};
  for (size_t i = 0; i < 3; i++) {
    float bounds[] = {-0.03f, 1.01f};
    lqt_mutation clamp = M(.operation = LQT_EDIT_TENSOR_CLAMP, .target = clamped[i],
                           .values = bounds, .value_count = 2);
    float *was = elements(&b, clamped[i], &count);
    there_and_back(&b, "clamp", &clamp, 1, true);
    commit(&b, "clamp", &clamp, 1);
    float *now = elements(&b, clamped[i], &count);
    size_t touched = 0;
    for (size_t k = 0; k < count; k++) {
      cr_assert(now[k] >= bounds[0] && now[k] <= bounds[1], "%s %zu: %g", clamped[i], k,
                (double)now[k]);
      bool inside = was[k] >= bounds[0] && was[k] <= bounds[1];
      float want = inside ? was[k] : was[k] < 0 ? bounds[0] : bounds[1];
      cr_assert(inside ? now[k] == want : fabsf(now[k] - want) < 1e-4f, "%s %zu", clamped[i], k);
      touched += !inside;
    }
    cr_assert_gt(touched, 0);
    cr_assert_lt(touched, count);
    free(was);
    free(now);
  }
  there_and_back(&b, "clone",
                 &M(.operation = LQT_EDIT_TENSOR_CLONE, .target = "l0.q", .other = "copy of q"), 1,
                 false);
  there_and_back(&b, "swap of codebook tensors",
                 &M(.operation = LQT_EDIT_TENSOR_SWAP, .target = "l0.up", .other = "l1.gate"), 1,
                 true);
  there_and_back(&b, "swap of vectors",
                 &M(.operation = LQT_EDIT_TENSOR_SWAP, .target = "l0.norm0", .other = "norm"), 1,
                 true);
  close_bench(&b);
}

/* A change of the clone leaves the original alone. */
Test(mutation, a_clone_is_its_own) {
  bench b;
  open_bench(&b);
  size_t count;
  float *was = elements(&b, "l0.q", &count), factor = 3;
  lqt_mutation steps[] = {M(.operation = LQT_EDIT_TENSOR_CLONE, .target = "l0.q", .other = "twin"),
                          M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = TINY_SHARED, .first = 0,
                            .values = &factor, .value_count = 1)};
  commit(&b, "clone and edit", steps, 2);
  float *twin = elements(&b, "twin", &count);
  cr_assert_arr_eq(was, twin, count * sizeof *was);
  free(was);
  free(twin);
  close_bench(&b);
}

Test(mutation, modules) {
  bench b;
  open_bench(&b);
  lqt_mutation bypass = M(.operation = LQT_EDIT_MODULE_BYPASS, .target = "mlp1");
  there_and_back(&b, "bypass", &bypass, 1, true);
  commit(&b, "bypass", &bypass, 1);
  lqt_mutation restore = M(.operation = LQT_EDIT_MODULE_RESTORE, .target = "mlp1");
  there_and_back(&b, "restore", &restore, 1, true);
  commit(&b, "restore", &restore, 1);
  float now[VOCAB], value = 0.01f;
  run(b.session, now);
  cr_assert_arr_eq(b.before, now, sizeof now);
  there_and_back(&b, "eps",
                 &M(.operation = LQT_EDIT_HYPERPARAMETER, .target = "norm1_0", .other = "eps",
                    .values = &value, .value_count = 1),
                 1, true);
  there_and_back(&b, "eps of all norms",
                 &M(.operation = LQT_EDIT_HYPERPARAMETER, .other = "norm_eps", .values = &value,
                    .value_count = 1),
                 1, true);
  value = 100;
  there_and_back(&b, "theta",
                 &M(.operation = LQT_EDIT_HYPERPARAMETER, .target = "attn0", .other = "rope.theta",
                    .values = &value, .value_count = 1),
                 1, true);
  value = 3;
  there_and_back(&b, "window",
                 &M(.operation = LQT_EDIT_HYPERPARAMETER, .other = "window", .values = &value,
                    .value_count = 1),
                 1, true);
  close_bench(&b);
}

Test(mutation, raw_regions) {
  bench b;
  open_bench(&b);
  const uint8_t pattern[] = {0x12, 0xf0};
  there_and_back(&b, "write",
                 &M(.operation = LQT_EDIT_RAW_WRITE, .target = "l0.o", .first = 3, .data = pattern,
                    .bytes = 2),
                 1, true);
  there_and_back(&b, "fill",
                 &M(.operation = LQT_EDIT_RAW_FILL, .target = "l0.o", .first = 16, .count = 8,
                    .data = pattern, .bytes = 2),
                 1, true);
  there_and_back(&b, "copy",
                 &M(.operation = LQT_EDIT_RAW_COPY, .target = "l0.up", .other = "l0.gate",
                    .first = 0, .second = 16, .count = 24),
                 1, true);
  there_and_back(&b, "swap",
                 &M(.operation = LQT_EDIT_RAW_SWAP, .target = "head", .other = "embed", .first = 64,
                    .second = 128, .count = 40),
                 1, true);
  /* What is not whole elements. */
  const uint8_t low = 0x80;
  there_and_back(
      &b, "a byte of a float",
      &M(.operation = LQT_EDIT_RAW_WRITE, .target = "head", .first = 5, .data = &low, .bytes = 1),
      1, true);
  uint8_t got[8];
  uint64_t at;
  commit(&b, "fill",
         &M(.operation = LQT_EDIT_RAW_FILL, .target = "l0.o", .first = 16, .count = 8,
            .data = pattern, .bytes = 2),
         1);
  cr_assert_eq(lqt_editor_read(b.editor, "l0.o", 16, 8, got, NULL), LQT_OK);
  cr_assert_arr_eq(got + 6, pattern, 2);
  cr_assert_eq(lqt_editor_search(b.editor, "l0.o", 1, got, 8, 2, &at, NULL), LQT_OK);
  cr_assert_eq(at, 16);
  cr_assert_eq(lqt_editor_compare(b.editor, "l0.o", 16, NULL, 18, 6, &at, NULL), LQT_OK);
  cr_assert_eq(at, 6);
  cr_assert_eq(lqt_editor_compare(b.editor, "l0.o", 16, NULL, 17, 6, &at, NULL), LQT_OK);
  cr_assert_eq(at, 0);
  cr_assert_eq(lqt_editor_search(b.editor, "l0.o", 1 << 20, got, 8, 1, &at, NULL),
               LQT_OUT_OF_RANGE);
  cr_assert_eq(lqt_editor_read(b.editor, "none", 0, 1, got, NULL), LQT_NOT_FOUND);
  close_bench(&b);
}

typedef struct refusal {
  const char *what;
  lqt_status status;
  lqt_mutation mutation;
} refusal;

static void refuse(bench *b, const refusal *cases, size_t count) {
  save(b, b->again);
  uint64_t revision = lqt_editor_revision(b->editor);
  for (size_t i = 0; i < count; i++) {
    lqt_diag diag = {0};
    uint64_t got = 9;
    lqt_status status = lqt_edit(b->editor, &cases[i].mutation, NULL, &got, &diag);
    cr_assert_eq(status, cases[i].status, "%s: %s instead of %s (%s)", cases[i].what,
                 lqt_status_name(status), lqt_status_name(cases[i].status), diag.what);
    cr_assert_eq(diag.status, status);
    cr_assert_gt(strlen(diag.what), 8, "%s", cases[i].what);
    cr_assert_eq(got, 0);
  }
  cr_assert_eq(lqt_editor_revision(b->editor), revision);
  save(b, b->saved);
  cr_assert(same_files(b->saved, b->again));
  float now[VOCAB];
  run(b->session, now);
  cr_assert_arr_eq(b->before, now, sizeof now);
}

Test(mutation, refusals) {
  bench b;
  open_bench(&b);
  static float bad[] = {NAN, 1, 2, 3}, huge[] = {70000, 1}, ok[] = {1, 2, 3, 4}, twisted[] = {2, 1};
  static const uint32_t far[] = {0, 1u << 30}, pair[] = {0, 0};
  static const uint8_t bytes[] = {0xff, 0xff, 0xff, 0x7f}, two[] = {2};
  const refusal cases[] = {
      {"no operation", LQT_INVALID_ARGUMENT, M(.operation = (lqt_operation)99)},
      {"no size", LQT_INVALID_ARGUMENT, {.operation = LQT_EDIT_TENSOR_SCALE}},
      {"no codebook", LQT_NOT_FOUND,
       M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = 900, .values = ok, .value_count = 1)},
      {"past the end", LQT_OUT_OF_RANGE,
       M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = 3, .first = 14, .values = ok,
         .value_count = 3)},
      {"no values", LQT_DIMENSION_MISMATCH, M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = 3)},
      {"not finite", LQT_NOT_FINITE,
       M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = 3, .values = bad, .value_count = 1)},
      {"too large for f16", LQT_NOT_FINITE,
       M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = 3, .values = huge, .value_count = 1)},
      {"immutable", LQT_IMMUTABLE,
       M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = TINY_IMMUTABLE, .values = ok,
         .value_count = 1)},
      {"protected", LQT_PERMISSION_DENIED,
       M(.operation = LQT_EDIT_CODEBOOK_ENTRIES, .id = TINY_PROTECTED, .values = ok,
         .value_count = 1)},
      {"protected tensor", LQT_PERMISSION_DENIED,
       M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "l0.v", .values = ok, .value_count = 1)},
      {"not expandable", LQT_IMMUTABLE,
       M(.operation = LQT_EDIT_CODEBOOK_EXPAND, .id = 3, .values = ok, .value_count = 1)},
      {"no tensor", LQT_NOT_FOUND,
       M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "l9.v", .values = ok, .value_count = 1)},
      {"no target", LQT_INVALID_ARGUMENT,
       M(.operation = LQT_EDIT_TENSOR_SCALE, .values = ok, .value_count = 1)},
      {"two scales", LQT_DIMENSION_MISMATCH,
       M(.operation = LQT_EDIT_TENSOR_SCALE, .target = "l0.o", .values = ok, .value_count = 2)},
      {"no residual", LQT_NOT_FOUND,
       M(.operation = LQT_EDIT_RESIDUAL_SCALE, .target = "l0.o", .values = ok, .value_count = 1)},
      {"no zero points", LQT_NOT_FOUND,
       M(.operation = LQT_EDIT_ZERO_POINTS, .target = "l0.o", .values = ok, .value_count = 1)},
      {"scales past the end", LQT_OUT_OF_RANGE,
       M(.operation = LQT_EDIT_GROUP_SCALES, .target = "l0.o", .first = 1 << 20, .values = ok,
         .value_count = 1)},
      {"no delta", LQT_NOT_FOUND,
       M(.operation = LQT_EDIT_DELTA_VALUES, .id = 0, .values = ok, .value_count = 1)},
      {"no delta to remove", LQT_NOT_FOUND,
       M(.operation = LQT_EDIT_DELTA_REMOVE, .target = "l0.o")},
      {"delta outside", LQT_OUT_OF_RANGE,
       M(.operation = LQT_EDIT_DELTA_SPARSE, .target = "l0.o", .coordinates = far,
         .coordinate_count = 1, .values = ok, .value_count = 1)},
      {"delta of unlike counts", LQT_DIMENSION_MISMATCH,
       M(.operation = LQT_EDIT_DELTA_SPARSE, .target = "l0.o", .coordinates = pair,
         .coordinate_count = 1, .values = ok, .value_count = 2)},
      {"delta of integers", LQT_INVALID_ARGUMENT,
       M(.operation = LQT_EDIT_DELTA_REPLACE, .target = "l0.o", .dtype = LQT_DTYPE_I8,
         .delta_kind = LQT_DELTA_DENSE, .values = ok, .value_count = 4)},
      {"dense delta of another size", LQT_DIMENSION_MISMATCH,
       M(.operation = LQT_EDIT_DELTA_REPLACE, .target = "l0.o", .delta_kind = LQT_DELTA_DENSE,
         .values = ok, .value_count = 4)},
      {"rank 0", LQT_DIMENSION_MISMATCH,
       M(.operation = LQT_EDIT_DELTA_REPLACE, .target = "l0.o", .delta_kind = LQT_DELTA_LOW_RANK,
         .values = ok, .value_count = 4)},
      {"no mask", LQT_NOT_FOUND, M(.operation = LQT_EDIT_MASK_REMOVE, .target = "l0.o")},
      {"mask outside", LQT_OUT_OF_RANGE,
       M(.operation = LQT_EDIT_MASK_UPDATE, .target = "l0.o", .coordinates = far,
         .coordinate_count = 1, .data = bytes, .bytes = 1)},
      {"mask of 2", LQT_INVALID_ARGUMENT,
       M(.operation = LQT_EDIT_MASK_UPDATE, .target = "l0.o", .coordinates = pair,
         .coordinate_count = 1, .data = two, .bytes = 1)},
      {"mask of another size", LQT_DIMENSION_MISMATCH,
       M(.operation = LQT_EDIT_MASK_REPLACE, .target = "l0.o", .data = bytes, .bytes = 4)},
      {"tensor of another size", LQT_DIMENSION_MISMATCH,
       M(.operation = LQT_EDIT_TENSOR_REPLACE, .target = "l0.o", .values = ok, .value_count = 4)},
      {"infinite factor", LQT_NOT_FINITE,
       M(.operation = LQT_EDIT_TENSOR_MULTIPLY, .target = "l0.o", .values = bad, .value_count = 1)},
      {"empty bounds", LQT_VALIDATION_FAILED,
       M(.operation = LQT_EDIT_TENSOR_CLAMP, .target = "l0.o", .values = twisted,
         .value_count = 2)},
      {"clone over another", LQT_CONFLICT,
       M(.operation = LQT_EDIT_TENSOR_CLONE, .target = "l0.o", .other = "l0.q")},
      {"swap of unlike shapes", LQT_DIMENSION_MISMATCH,
       M(.operation = LQT_EDIT_TENSOR_SWAP, .target = "l0.o", .other = "head")},
      {"no module", LQT_NOT_FOUND, M(.operation = LQT_EDIT_MODULE_BYPASS, .target = "mlp7")},
      {"two inputs", LQT_VALIDATION_FAILED,
       M(.operation = LQT_EDIT_MODULE_BYPASS, .target = "mlp_add0")},
      {"ids in, activations out", LQT_VALIDATION_FAILED,
       M(.operation = LQT_EDIT_MODULE_BYPASS, .target = "embed")},
      {"another vocabulary", LQT_UNSUPPORTED,
       M(.operation = LQT_EDIT_MODULE_BYPASS, .target = "head")},
      {"not bypassed", LQT_NOT_FOUND, M(.operation = LQT_EDIT_MODULE_RESTORE, .target = "mlp0")},
      {"not hot-swappable", LQT_NOT_HOT_SWAPPABLE,
       M(.operation = LQT_EDIT_MODULE_SWAP, .target = "mlp0", .file = "x.lqt")},
      {"no hyperparameter", LQT_NOT_FOUND,
       M(.operation = LQT_EDIT_HYPERPARAMETER, .target = "mlp0", .other = "heat", .values = ok,
         .value_count = 1)},
      {"no global hyperparameter", LQT_NOT_FOUND,
       M(.operation = LQT_EDIT_HYPERPARAMETER, .other = "heat", .values = ok, .value_count = 1)},
      {"eps of 2", LQT_VALIDATION_FAILED,
       M(.operation = LQT_EDIT_HYPERPARAMETER, .target = "norm", .other = "eps", .values = ok + 1,
         .value_count = 1)},
      {"heads that do not fit", LQT_VALIDATION_FAILED,
       M(.operation = LQT_EDIT_HYPERPARAMETER, .target = "attn0", .other = "heads",
         .values = ok + 2, .value_count = 1)},
      {"raw past the end", LQT_OUT_OF_RANGE,
       M(.operation = LQT_EDIT_RAW_WRITE, .target = "l0.o", .first = 1 << 20, .data = bytes,
         .bytes = 4)},
      {"raw not finite", LQT_NOT_FINITE,
       M(.operation = LQT_EDIT_RAW_WRITE, .target = "head", .first = 4, .data = bytes, .bytes = 4)},
      {"raw fill in parts", LQT_DIMENSION_MISMATCH,
       M(.operation = LQT_EDIT_RAW_FILL, .target = "l0.o", .count = 5, .data = bytes, .bytes = 4)},
      {"raw swap of itself", LQT_INVALID_ARGUMENT,
       M(.operation = LQT_EDIT_RAW_SWAP, .target = "l0.o", .first = 0, .second = 2, .count = 4)},
  };
  refuse(&b, cases, sizeof cases / sizeof *cases);
  close_bench(&b);
}
