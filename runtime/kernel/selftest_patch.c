/* Patches: a weight that was created and then patched gives the same bytes as one that was created
 * from the patched description, and what the reference computes. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/diag.h"
#include "base/half.h"
#include "kernel/contract.h"
#include "kernel/selftest.h"

enum { TOKENS = 3, ROWS = 37, COLS = 200 };

typedef struct patched {
  lqt_weight *patched, *fresh, *reference;
  lqt_buffer *x, *y, *x_reference, *y_reference;
  uint8_t *got, *want;
  float *truth, *input;
  double expected; /* see lqt__product_square */
} patched;

static lqt_op product(lqt_weight *weight, lqt_buffer *x, lqt_buffer *y, lqt_dtype dtype) {
  return (lqt_op){
      .kind = LQT_OP_MATMUL,
      .in[0] = {.buffer = x, .rows = TOKENS, .cols = COLS, .row_stride = COLS, .dtype = dtype},
      .out[0] = {.buffer = y, .rows = TOKENS, .cols = ROWS, .row_stride = ROWS, .dtype = dtype},
      .weight[0] = weight};
}

/* y of the device for one weight, as bytes. */
static lqt_status run_one(lqt__selftest *t, patched *p, lqt_weight *weight, uint8_t *out,
                          lqt_diag *diag) {
  lqt_op op = product(weight, p->x, p->y, t->info.activation);
  uint64_t bytes = (uint64_t)TOKENS * ROWS * lqt_dtype_size(t->info.activation);
  memset(out, 0xFF, bytes);
  LQT__TRY(lqt_buffer_write(p->y, 0, out, bytes, diag));
  LQT__TRY(lqt_device_run(t->device, &op, 1, diag));
  return lqt_buffer_read(p->y, 0, out, bytes, diag);
}

static lqt_status make_inputs(lqt__selftest *t, patched *p, lqt_diag *diag) {
  enum { COUNT = TOKENS * COLS };
  bool half = t->info.activation == LQT_DTYPE_F16;
  uint16_t *narrow = lqt__arena_array(&t->arena, COUNT, sizeof *narrow);
  float *wide = lqt__arena_array(&t->arena, COUNT, sizeof *wide);
  p->got = lqt__arena_array(&t->arena, TOKENS * ROWS, sizeof(float));
  p->want = lqt__arena_array(&t->arena, TOKENS * ROWS, sizeof(float));
  p->truth = lqt__arena_array(&t->arena, TOKENS * ROWS, sizeof(float));
  if (narrow == NULL || wide == NULL || p->got == NULL || p->want == NULL || p->truth == NULL) {
    return LQT_OUT_OF_MEMORY;
  }
  for (int i = 0; i < COUNT; i++) {
    narrow[i] = lqt__f16_from_f32(lqt__random_normal(&t->random));
    wide[i] = lqt__f32_from_f16(narrow[i]);
  }
  p->input = wide;
  uint64_t size = half ? 2 : 4;
  LQT__TRY(lqt_buffer_create(t->device, COUNT * size, &p->x, diag));
  LQT__TRY(lqt_buffer_create(t->device, TOKENS * ROWS * size, &p->y, diag));
  LQT__TRY(lqt_buffer_create(t->oracle, COUNT * sizeof(float), &p->x_reference, diag));
  LQT__TRY(lqt_buffer_create(t->oracle, TOKENS * ROWS * sizeof(float), &p->y_reference, diag));
  LQT__TRY(lqt_buffer_write(p->x, 0, half ? (void *)narrow : (void *)wide, COUNT * size, diag));
  return lqt_buffer_write(p->x_reference, 0, wide, COUNT * sizeof(float), diag);
}

static double error_of(const lqt__selftest *t, const patched *p) {
  double difference = 0, reference = 0;
  for (int i = 0; i < TOKENS * ROWS; i++) {
    float value;
    uint16_t half;
    if (t->info.activation == LQT_DTYPE_F16) {
      memcpy(&half, p->got + (size_t)i * 2, 2);
      value = lqt__f32_from_f16(half);
    } else {
      memcpy(&value, p->got + (size_t)i * 4, 4);
    }
    difference += ((double)value - p->truth[i]) * ((double)value - p->truth[i]);
    reference += (double)p->truth[i] * p->truth[i];
  }
  if (reference < p->expected) reference = p->expected;
  return difference == 0 ? 0 : sqrt(difference / reference);
}

static lqt_status patch_and_run(lqt__selftest *t, const lqt__weight_kind *kind,
                                lqt_weight_part part, patched *p, double *out_tolerance,
                                lqt_diag *diag) {
  lqt_weight_desc desc;
  lqt_weight_patch patches[3];
  LQT__TRY(lqt__selftest_weight(&t->arena, &t->random, kind, ROWS, COLS, &desc));
  LQT__TRY(make_inputs(t, p, diag));
  LQT__TRY(lqt_weight_create(t->device, &desc, &p->patched, diag));
  for (int i = 0; i < 3; i++) { /* several in one call; ranges may overlap: the last one holds */
    LQT__TRY(lqt__selftest_patch(&t->arena, &t->random, &desc, part, &patches[i]));
  }
  LQT__TRY(lqt_weight_patch_apply(p->patched, patches, 3, diag));
  LQT__TRY(lqt_weight_create(t->device, &desc, &p->fresh, diag));
  LQT__TRY(lqt_weight_create(t->oracle, &desc, &p->reference, diag));
  LQT__TRY(lqt__product_square(&t->arena, &desc, p->input, COLS, TOKENS, &p->expected));
  LQT__TRY(run_one(t, p, p->patched, p->got, diag));
  LQT__TRY(run_one(t, p, p->fresh, p->want, diag));
  lqt_op op = product(p->reference, p->x_reference, p->y_reference, LQT_DTYPE_F32);
  LQT__TRY(lqt_device_run(t->oracle, &op, 1, diag));
  op.in[0].dtype = t->info.activation;
  *out_tolerance = lqt__op_tolerance(&op, t->exact);
  return lqt_buffer_read(p->y_reference, 0, p->truth, TOKENS * ROWS * sizeof(float), diag);
}

static lqt_status patch_case(lqt__selftest *t, const lqt__weight_kind *kind, lqt_weight_part part) {
  static const char *const parts[] = {
      "",      "codebook",       "residual", "group_scales",     "zero_points", "delta_values",
      "scale", "residual_scale", "indices",  "residual_indices", "mask",        "plain"};
  snprintf(t->name, sizeof t->name, "patch/%s/%s", kind->name, parts[part]);
  if (!lqt__case_wanted(t)) return LQT_OK;
  lqt__case_seed(t);
  patched p = {0};
  lqt_diag diag = {0};
  double tolerance = 0, error = NAN;
  char detail[700] = "";
  lqt_status status = patch_and_run(t, kind, part, &p, &tolerance, &diag);
  if (status == LQT_OK) {
    error = error_of(t, &p);
    uint64_t bytes = (uint64_t)TOKENS * ROWS * lqt_dtype_size(t->info.activation);
    if (memcmp(p.got, p.want, bytes) != 0) {
      snprintf(detail, sizeof detail, "the patched weight gives other bytes than a fresh upload");
    } else if (!(error <= tolerance)) {
      snprintf(detail, sizeof detail, "error %.3g is more than %.3g", error, tolerance);
    }
  } else {
    snprintf(detail, sizeof detail, "%s: %s", diag.where, diag.what);
  }
  lqt_weight_destroy(p.patched);
  lqt_weight_destroy(p.fresh);
  lqt_weight_destroy(p.reference);
  lqt_buffer_destroy(p.x);
  lqt_buffer_destroy(p.y);
  lqt_buffer_destroy(p.x_reference);
  lqt_buffer_destroy(p.y_reference);
  lqt__case_end(t);
  if (status == LQT_OUT_OF_MEMORY) return status;
  lqt__case_report(t, "", error, tolerance, detail, status == LQT_UNSUPPORTED);
  return LQT_OK;
}

lqt_status lqt__selftest_patches(lqt__selftest *t) {
  for (size_t k = 0; k < lqt__weight_kind_count; k++) {
    const lqt__weight_kind *kind = &lqt__weight_kinds[k];
    bool book = kind->dtype == LQT_DTYPE_CODEBOOK, residual = kind->residual_bits != 0;
    const bool has[] = {[LQT_PART_CODEBOOK] = book,
                        [LQT_PART_RESIDUAL] = residual,
                        [LQT_PART_GROUP_SCALES] = kind->group != 0,
                        [LQT_PART_ZERO_POINTS] = kind->zero_points,
                        [LQT_PART_DELTA_VALUES] = kind->delta != LQT_DELTA_NONE,
                        [LQT_PART_SCALE] = true,
                        [LQT_PART_RESIDUAL_SCALE] = residual,
                        [LQT_PART_INDICES] = book,
                        [LQT_PART_RESIDUAL_INDICES] = residual,
                        [LQT_PART_MASK] = kind->mask,
                        [LQT_PART_PLAIN] = !book};
    for (uint32_t part = LQT_PART_CODEBOOK; part <= LQT_PART_PLAIN; part++) {
      if (has[part]) LQT__TRY(patch_case(t, kind, (lqt_weight_part)part));
    }
  }
  return LQT_OK;
}
