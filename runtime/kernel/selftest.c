/* The conformance suite: running one case on the device under test and on the reference, and the
 * run over all devices. */
#include "kernel/selftest.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/diag.h"
#include "base/half.h"
#include "kernel/contract.h"

enum { GUARD = 64, GUARD_BYTE = 0xA5, POISON_BYTE = 0xFF /* NaN in f16 and f32 */ };

void lqt__case_begin(lqt__selftest *t, lqt_op_kind kind) {
  memset(&t->op, 0, sizeof t->op);
  memset(t->in, 0, sizeof t->in);
  memset(t->out, 0, sizeof t->out);
  memset(t->has_weight, 0, sizeof t->has_weight);
  t->op.kind = kind;
  t->alias = -1;
  lqt__case_seed(t);
}

void lqt__case_seed(lqt__selftest *t) {
  uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
  for (const char *c = t->name; *c != '\0'; c++) hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
  t->random = lqt__random_seed(t->seed ^ hash);
}

void lqt__case_end(lqt__selftest *t) { lqt__arena_free(&t->arena); }

bool lqt__case_wanted(const lqt__selftest *t) {
  return t->options->filter == NULL || strstr(t->name, t->options->filter) != NULL;
}

static void shape(lqt__selftest *t, lqt__operand *operand, uint64_t rows, uint64_t cols) {
  operand->used = true;
  operand->rows = rows;
  operand->cols = cols;
  operand->stride = cols + (rows > 1 ? lqt__pick(t, 5) : 0);
}

lqt_status lqt__case_values(lqt__selftest *t, lqt__operand *operand, uint64_t rows, uint64_t cols,
                            float spread) {
  shape(t, operand, rows, cols);
  bool half =
      operand->fixed ? operand->dtype == LQT_DTYPE_F16 : t->info.activation == LQT_DTYPE_F16;
  uint64_t count = rows * operand->stride;
  operand->values = lqt__arena_array(&t->arena, count + 1, sizeof(float));
  if (operand->values == NULL) return LQT_OUT_OF_MEMORY;
  for (uint64_t i = 0; i < count; i++) {
    float value = spread * lqt__random_normal(&t->random);
    /* Both sides start from the same bits. */
    operand->values[i] = half ? lqt__f32_from_f16(lqt__f16_from_f32(value)) : value;
  }
  return LQT_OK;
}

lqt_status lqt__case_ints(lqt__selftest *t, lqt__operand *operand, uint64_t rows, uint64_t cols) {
  shape(t, operand, rows, cols);
  operand->dtype = LQT_DTYPE_I32;
  operand->fixed = true;
  operand->ints = lqt__arena_array(&t->arena, rows * operand->stride + 1, sizeof(int32_t));
  return operand->ints != NULL ? LQT_OK : LQT_OUT_OF_MEMORY;
}

void lqt__case_output(lqt__selftest *t, lqt__operand *operand, uint64_t rows, uint64_t cols) {
  shape(t, operand, rows, cols);
  operand->output = true;
}

void lqt__case_report(lqt__selftest *t, const char *variant, double error, double tolerance,
                      const char *detail, bool skipped) {
  bool passed = !skipped && detail[0] == '\0';
  if (skipped)
    t->summary->skipped++;
  else if (passed)
    t->summary->passed++;
  else
    t->summary->failed++;
  if (t->report == NULL) return;
  lqt_selftest_case result = {
      .device = t->info.selector,
      .name = t->name,
      .variant = variant,
      .passed = passed,
      .skipped = skipped,
      .error = error,
      .tolerance = tolerance,
      .detail = detail,
  };
  t->report(t->user, &result);
}

static lqt_dtype device_dtype(const lqt__selftest *t, const lqt__operand *operand) {
  return operand->fixed ? operand->dtype : t->info.activation;
}

/* The bytes of an operand in a type, between guards; *out_offset: where the elements start. */
static uint8_t *make_image(lqt__selftest *t, const lqt__operand *operand, lqt_dtype dtype,
                           uint64_t *out_bytes) {
  uint64_t size = lqt_dtype_size(dtype), count = operand->rows * operand->stride;
  uint64_t bytes = 2 * GUARD + count * size;
  uint8_t *image = lqt__arena_alloc(&t->arena, bytes);
  if (image == NULL) return NULL;
  memset(image, GUARD_BYTE, bytes);
  uint8_t *data = image + GUARD;
  if (operand->ints != NULL) {
    memcpy(data, operand->ints, count * size);
  } else if (operand->values == NULL) {
    memset(data, POISON_BYTE, count * size);
  } else {
    for (uint64_t i = 0; i < count; i++) {
      uint16_t half = lqt__f16_from_f32(operand->values[i]);
      memcpy(data + i * size, size == 2 ? (void *)&half : (void *)&operand->values[i], size);
    }
  }
  *out_bytes = bytes;
  return image;
}

static lqt_status upload(lqt_device *device, const uint8_t *image, uint64_t bytes, lqt_buffer **out,
                         lqt_diag *diag) {
  LQT__TRY(lqt_buffer_create(device, bytes, out, diag));
  return lqt_buffer_write(*out, 0, image, bytes, diag);
}

static lqt_status place(lqt__selftest *t, lqt__operand *operand, lqt_diag *diag) {
  if (!operand->used) return LQT_OK;
  lqt_dtype dtype = device_dtype(t, operand);
  operand->size = lqt_dtype_size(dtype);
  operand->image = make_image(t, operand, dtype, &operand->bytes);
  uint64_t bytes;
  uint8_t *image = make_image(t, operand, operand->fixed ? operand->dtype : LQT_DTYPE_F32, &bytes);
  if (operand->image == NULL || image == NULL) return LQT_OUT_OF_MEMORY;
  LQT__TRY(upload(t->device, operand->image, operand->bytes, &operand->device, diag));
  return upload(t->oracle, image, bytes, &operand->oracle, diag);
}

static lqt_view view_of(const lqt__selftest *t, const lqt__operand *operand, bool oracle) {
  lqt_view view = {0};
  if (!operand->used) return view;
  view.buffer = oracle ? operand->oracle : operand->device;
  view.offset = GUARD;
  view.rows = operand->rows;
  view.cols = operand->cols;
  view.row_stride = operand->stride;
  view.dtype = operand->fixed ? operand->dtype : oracle ? LQT_DTYPE_F32 : t->info.activation;
  return view;
}

static lqt_op op_of(const lqt__selftest *t, bool oracle, lqt_weight *const *weights) {
  lqt_op op = t->op;
  for (int i = 0; i < LQT_OP_MAX_IN; i++) op.in[i] = view_of(t, &t->in[i], oracle);
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    op.out[i] = view_of(t, &t->out[i], oracle);
    op.weight[i] = weights[i];
  }
  if (t->alias >= 0) op.out[0] = op.in[t->alias];
  return op;
}

static double value_of(const lqt__operand *operand, const uint8_t *at, uint64_t size) {
  if (operand->fixed && operand->dtype == LQT_DTYPE_I32) {
    int32_t integer;
    memcpy(&integer, at, sizeof integer);
    return integer;
  }
  uint16_t half;
  float value;
  if (size == 2) {
    memcpy(&half, at, sizeof half);
    return lqt__f32_from_f16(half);
  }
  memcpy(&value, at, sizeof value);
  return value;
}

/* What was not to be written is as it was. */
static bool untouched(const lqt__operand *operand, const uint8_t *now, bool output) {
  if (!output) return memcmp(now, operand->image, operand->bytes) == 0;
  uint64_t row_bytes = operand->stride * operand->size;
  if (memcmp(now, operand->image, GUARD) != 0) return false;
  for (uint64_t r = 0; r < operand->rows; r++) {
    uint64_t gap = GUARD + r * row_bytes + operand->cols * operand->size;
    uint64_t next = GUARD + (r + 1) * row_bytes;
    if (memcmp(now + gap, operand->image + gap, next - gap) != 0) return false;
  }
  uint64_t end = operand->bytes - GUARD;
  return memcmp(now + end, operand->image + end, GUARD) == 0;
}

typedef struct verdict {
  double error;
  char detail[512];
} verdict;

lqt_status lqt__product_square(lqt__arena *arena, const lqt_weight_desc *desc, const float *x,
                               uint64_t stride, uint64_t tokens, double *out) {
  *out = 0;
  lqt_weight_desc main = *desc; /* without what is added to the codebook's values */
  main.residual.vectors = NULL;
  main.delta.kind = LQT_DELTA_NONE;
  float *row = lqt__arena_array(arena, desc->cols, sizeof *row);
  float *part = lqt__arena_array(arena, desc->cols, sizeof *part);
  if (row == NULL || part == NULL) return LQT_OUT_OF_MEMORY;
  for (uint64_t n = 0; n < desc->rows; n++) {
    LQT__TRY(lqt_weight_desc_row(desc, n, 0, desc->cols, row));
    LQT__TRY(lqt_weight_desc_row(&main, n, 0, desc->cols, part));
    for (uint64_t k = 0; k < desc->cols; k++) {
      /* The two parts may cancel too. */
      double weight = fmax(fabs((double)row[k]), fabs((double)part[k]));
      weight = fmax(weight, fabs((double)row[k] - part[k]));
      for (uint64_t r = 0; r < tokens; r++) {
        *out += pow(x[r * stride + k] * weight, 2);
      }
    }
  }
  return LQT_OK;
}

/* Many outputs do not all cancel; for them the search is saved. */
static lqt_status expected_square(lqt__selftest *t, int index, double *out) {
  const lqt__operand *x = &t->in[0];
  const lqt_weight_desc *desc = &t->desc[index];
  *out = 0;
  if (t->op.kind != LQT_OP_MATMUL || x->rows * desc->rows > 4096) return LQT_OK;
  return lqt__product_square(&t->arena, desc, x->values, x->stride, x->rows, out);
}

static lqt_status compare(lqt__selftest *t, const lqt__operand *operand, const char *name,
                          bool output, double expected, verdict *out, lqt_diag *diag) {
  uint8_t *got = lqt__arena_alloc(&t->arena, operand->bytes);
  uint64_t wide = operand->fixed ? operand->size : sizeof(float);
  uint64_t bytes = 2 * GUARD + operand->rows * operand->stride * wide;
  uint8_t *want = lqt__arena_alloc(&t->arena, bytes);
  if (got == NULL || want == NULL) return LQT_OUT_OF_MEMORY;
  LQT__TRY(lqt_buffer_read(operand->device, 0, got, operand->bytes, diag));
  LQT__TRY(lqt_buffer_read(operand->oracle, 0, want, bytes, diag));
  if (!untouched(operand, got, output)) {
    snprintf(out->detail, sizeof out->detail, "%s",
             output ? "wrote outside of an output" : "changed an input");
  }
  if (!output) return LQT_OK;
  double difference = 0, reference = 0;
  for (uint64_t r = 0; r < operand->rows; r++) {
    for (uint64_t c = 0; c < operand->cols; c++) {
      uint64_t at = r * operand->stride + c;
      double a = value_of(operand, got + GUARD + at * operand->size, operand->size);
      double b = value_of(operand, want + GUARD + at * wide, wide);
      if (isnan(a) && !isnan(b) && out->detail[0] == '\0') {
        snprintf(out->detail, sizeof out->detail,
                 "element (%llu, %llu) of %s was not written or is not a number",
                 (unsigned long long)r, (unsigned long long)c, name);
      }
      if (a == b) a = b = isfinite(b) ? b : 1; /* equal infinities are no difference */
      difference += (a - b) * (a - b);
      reference += b * b;
    }
  }
  if (reference < expected) reference = expected;
  double error = difference == 0 ? 0 : sqrt(difference / reference);
  if (!(error <= out->error)) out->error = error; /* NaN wins */
  return LQT_OK;
}

static lqt_status compare_all(lqt__selftest *t, verdict *out, lqt_diag *diag) {
  char name[8];
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    if (!t->out[i].used || (i == 0 && t->alias >= 0)) continue;
    snprintf(name, sizeof name, "out%d", i);
    double expected;
    LQT__TRY(expected_square(t, i, &expected));
    LQT__TRY(compare(t, &t->out[i], name, true, expected, out, diag));
  }
  for (int i = 0; i < LQT_OP_MAX_IN; i++) {
    if (!t->in[i].used) continue;
    snprintf(name, sizeof name, "in%d", i);
    LQT__TRY(compare(t, &t->in[i], name, i == t->alias, 0, out, diag));
  }
  return LQT_OK;
}

typedef struct running {
  lqt_weight *device[LQT_OP_MAX_OUT], *oracle[LQT_OP_MAX_OUT];
  double tolerance;
  const char *variant;
} running;

static lqt_status execute(lqt__selftest *t, running *r, verdict *out, lqt_diag *diag) {
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    if (!t->has_weight[i]) continue;
    LQT__TRY(lqt_weight_create(t->device, &t->desc[i], &r->device[i], diag));
    LQT__TRY(lqt_weight_create(t->oracle, &t->desc[i], &r->oracle[i], diag));
  }
  for (int i = 0; i < LQT_OP_MAX_IN; i++) LQT__TRY(place(t, &t->in[i], diag));
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) LQT__TRY(place(t, &t->out[i], diag));
  lqt_op want = op_of(t, true, r->oracle);
  LQT__TRY(lqt_device_run(t->oracle, &want, 1, diag));
  lqt_op op = op_of(t, false, r->device);
  r->tolerance = lqt__op_tolerance(&op, t->exact);
  LQT__TRY(lqt_device_run(t->device, &op, 1, diag));
  r->variant = lqt_device_variant(t->device, &op);
  return compare_all(t, out, diag);
}

lqt_status lqt__case_run(lqt__selftest *t) {
  running r = {.variant = ""};
  verdict v = {0};
  lqt_diag diag = {0};
  lqt_status status = execute(t, &r, &v, &diag);
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    lqt_weight_destroy(r.device[i]);
    lqt_weight_destroy(r.oracle[i]);
    lqt_buffer_destroy(t->out[i].device);
    lqt_buffer_destroy(t->out[i].oracle);
  }
  for (int i = 0; i < LQT_OP_MAX_IN; i++) {
    lqt_buffer_destroy(t->in[i].device);
    lqt_buffer_destroy(t->in[i].oracle);
  }
  if (status == LQT_OUT_OF_MEMORY) return status;
  if (status != LQT_OK) {
    snprintf(v.detail, sizeof v.detail, "%s: %s", diag.where, diag.what);
    v.error = NAN;
  } else if (v.detail[0] == '\0' && !(v.error <= r.tolerance)) {
    snprintf(v.detail, sizeof v.detail, "error %.3g is more than %.3g", v.error, r.tolerance);
  }
  lqt__case_report(t, r.variant, v.error, r.tolerance, v.detail, status == LQT_UNSUPPORTED);
  return LQT_OK;
}

static lqt_status run_device(lqt__selftest *t, const char *selector, uint64_t seed) {
  LQT__TRY(lqt_device_open(selector, t->options->device_options, &t->device, t->diag));
  lqt_status status = lqt_device_open("cpu-oracle", NULL, &t->oracle, t->diag);
  if (status == LQT_OK) {
    lqt_device_get_info(t->device, &t->info);
    t->seed = seed;
    t->shapes = lqt__random_seed(seed);
    status = lqt__selftest_ops(t);
    lqt__arena_free(&t->arena);
  }
  if (status == LQT_OK) {
    status = lqt__selftest_patches(t);
    if (status == LQT_OK) status = lqt__selftest_staged(t);
    lqt__arena_free(&t->arena);
  }
  if (status == LQT_OK) {
    status = lqt__selftest_programs(t);
    lqt__arena_free(&t->arena);
  }
  lqt_device_release(t->oracle);
  lqt_device_release(t->device);
  t->oracle = t->device = NULL;
  t->summary->devices++;
  if (status == LQT_OUT_OF_MEMORY) return lqt__fail_memory(t->diag, selector, 0, "a test case");
  return status;
}

lqt_status lqt_selftest_run(const lqt_selftest_options *options, lqt_selftest_case_fn report,
                            void *user, lqt_selftest_summary *out_summary, lqt_diag *diag) {
  lqt_selftest_options defaults = {.size = sizeof defaults};
  if (options == NULL) options = &defaults;
  if (options->size != sizeof *options || out_summary == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "selftest",
                     "lqt_selftest_options has the wrong size, or there is no summary to fill");
  }
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  uint64_t seed = options->seed;
  if (seed == 0) seed = (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
  *out_summary = (lqt_selftest_summary){.seed = seed};
  lqt__selftest t = {.options = options,
                     .exact = options->device_options != NULL && options->device_options->exact,
                     .report = report,
                     .user = user,
                     .summary = out_summary,
                     .diag = diag};
  if (options->device != NULL) return run_device(&t, options->device, seed);
  size_t count = lqt_device_count();
  for (size_t i = 0; i < count; i++) {
    lqt_device_info info;
    LQT__TRY(lqt_device_describe(i, &info));
    LQT__TRY(run_device(&t, info.selector, seed));
  }
  return LQT_OK;
}
