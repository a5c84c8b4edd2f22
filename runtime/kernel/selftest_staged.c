/* Staged patches: random changes of every part a kind of weight has, small ones, whole parts and
 * overlapping ones, in patches that wait for one another. After each exchange the device's form of
 * the weight is, to the last bit, that of one created with those values, and so are its products.
 * They are taken back in the reverse order. */
#include <stdio.h>
#include <string.h>

#include "base/diag.h"
#include "base/half.h"
#include "kernel/selftest.h"
#include "kernel/weight.h"
#include "lqt/patch.h"

enum { TOKENS = 2, STATES = 4, CHANGES = 14 };

/* One state of the weight: what its digest and product are. */
typedef struct state {
  uint64_t digest;
  uint8_t *product;
} state;

typedef struct staged_case {
  lqt_weight_desc desc;
  lqt_weight *live;
  lqt_patch *patches[STATES];
  lqt_buffer *x, *y;
  state states[STATES];
  uint8_t *got;
  uint64_t product_bytes;
  bool digests; /* the backend shows them */
} staged_case;

static lqt_status product_of(lqt__selftest *t, staged_case *c, lqt_weight *weight, uint8_t *out,
                             lqt_diag *diag) {
  lqt_dtype dtype = t->info.activation;
  uint64_t rows = c->desc.rows, cols = c->desc.cols;
  lqt_op op = {
      .kind = LQT_OP_MATMUL,
      .in[0] = {.buffer = c->x, .rows = TOKENS, .cols = cols, .row_stride = cols, .dtype = dtype},
      .out[0] = {.buffer = c->y, .rows = TOKENS, .cols = rows, .row_stride = rows, .dtype = dtype},
      .weight[0] = weight};
  memset(out, 0xFF, c->product_bytes);
  LQT__TRY(lqt_buffer_write(c->y, 0, out, c->product_bytes, diag));
  LQT__TRY(lqt_device_run(t->device, &op, 1, diag));
  return lqt_buffer_read(c->y, 0, out, c->product_bytes, diag);
}

static lqt_status digest_of(staged_case *c, lqt_weight *weight, uint64_t *out, lqt_diag *diag) {
  *out = 0;
  if (!c->digests) return LQT_OK;
  lqt_status status = lqt_weight_digest(weight, out, diag);
  c->digests = status != LQT_UNSUPPORTED;
  return c->digests ? status : LQT_OK;
}

/* What the values of the description give when they are uploaded. */
static lqt_status note_state(lqt__selftest *t, staged_case *c, state *s, lqt_diag *diag) {
  s->product = lqt__arena_array(&t->arena, c->product_bytes, 1);
  if (s->product == NULL) return LQT_OUT_OF_MEMORY;
  lqt_weight *fresh = NULL;
  LQT__TRY(lqt_weight_create(t->device, &c->desc, &fresh, diag));
  lqt_status status = digest_of(c, fresh, &s->digest, diag);
  if (status == LQT_OK) status = product_of(t, c, fresh, s->product, diag);
  lqt_weight_destroy(fresh);
  return status;
}

/* A range of a part: short, long, whole, or with its ends in the middle of a tile of rows. */
static void choose_range(lqt__selftest *t, uint64_t have, uint64_t *first, uint64_t *count) {
  uint32_t kind = lqt__pick(t, 4);
  *first = 0;
  *count = have;
  if (kind == 0 || have < 4) return;
  *first = lqt__pick(t, (uint32_t)(kind == 1 ? have : have / 4));
  uint64_t left = have - *first;
  *count = 1 + lqt__pick(t, (uint32_t)(kind == 1 && left > 40 ? 40 : left));
  if (kind == 2) *count = left;
}

static lqt_status stage(lqt__selftest *t, staged_case *c, lqt_patch **out, lqt_diag *diag) {
  lqt_patch_change changes[CHANGES];
  uint32_t parts = lqt__weight_parts(&c->desc);
  size_t count = 0;
  for (int i = 0; i < CHANGES; i++) {
    lqt_weight_part part = (lqt_weight_part)(1 + lqt__pick(t, LQT_PART_PLAIN));
    if ((parts >> part & 1u) == 0) continue;
    uint64_t have = lqt__weight_part_count(&c->desc, part), first, size;
    if (have == 0) continue;
    choose_range(t, have, &first, &size);
    lqt_patch_change *change = &changes[count++];
    change->weight = c->live;
    LQT__TRY(lqt__selftest_patch_range(&t->arena, &t->random, &c->desc, part, first, size,
                                       &change->patch, &change->old_data));
  }
  return lqt_patch_create(t->device, changes, count, out, diag);
}

static lqt_status compare(lqt__selftest *t, staged_case *c, int which, char *detail, size_t size,
                          lqt_diag *diag) {
  uint64_t digest;
  const state *s = &c->states[which];
  LQT__TRY(digest_of(c, c->live, &digest, diag));
  LQT__TRY(product_of(t, c, c->live, c->got, diag));
  if (detail[0] != '\0') return LQT_OK;
  if (c->digests && digest != s->digest) {
    snprintf(detail, size, "the device's form of state %d is not that of a fresh upload", which);
  } else if (memcmp(c->got, s->product, c->product_bytes) != 0) {
    snprintf(detail, size, "state %d gives other products than a fresh upload", which);
  }
  return LQT_OK;
}

static lqt_status run(lqt__selftest *t, staged_case *c, char *detail, size_t size, lqt_diag *diag) {
  uint64_t count = TOKENS * c->desc.cols, each = lqt_dtype_size(t->info.activation);
  c->product_bytes = TOKENS * c->desc.rows * each;
  uint8_t *x = lqt__arena_array(&t->arena, count, each);
  c->got = lqt__arena_array(&t->arena, c->product_bytes, 1);
  if (x == NULL || c->got == NULL) return LQT_OUT_OF_MEMORY;
  for (uint64_t i = 0; i < count; i++) {
    float value = lqt__random_normal(&t->random);
    uint16_t half = lqt__f16_from_f32(value);
    memcpy(x + i * each, each == 2 ? (void *)&half : (void *)&value, each);
  }
  LQT__TRY(lqt_buffer_create(t->device, count * each, &c->x, diag));
  LQT__TRY(lqt_buffer_create(t->device, c->product_bytes, &c->y, diag));
  LQT__TRY(lqt_buffer_write(c->x, 0, x, count * each, diag));
  LQT__TRY(lqt_weight_create(t->device, &c->desc, &c->live, diag));
  LQT__TRY(note_state(t, c, &c->states[0], diag));
  for (int i = 1; i < STATES; i++) { /* two wait at a time */
    LQT__TRY(stage(t, c, &c->patches[i], diag));
    LQT__TRY(note_state(t, c, &c->states[i], diag));
    LQT__TRY(compare(t, c, i == 1 ? 0 : i - 2, detail, size, diag));
    if (i == 1) continue;
    LQT__TRY(lqt_patch_flip(c->patches[i - 1], diag));
    LQT__TRY(compare(t, c, i - 1, detail, size, diag));
  }
  LQT__TRY(lqt_patch_wait(c->patches[STATES - 1], diag));
  LQT__TRY(lqt_patch_flip(c->patches[STATES - 1], diag));
  LQT__TRY(compare(t, c, STATES - 1, detail, size, diag));
  for (int i = STATES - 1; i > 0; i--) {
    LQT__TRY(lqt_patch_flip(c->patches[i], diag));
    LQT__TRY(compare(t, c, i - 1, detail, size, diag));
  }
  return LQT_OK;
}

static lqt_status staged(lqt__selftest *t, const lqt__weight_kind *kind, uint64_t rows,
                         uint64_t cols) {
  snprintf(t->name, sizeof t->name, "staged/%s/%llux%llu", kind->name, (unsigned long long)rows,
           (unsigned long long)cols);
  if (!lqt__case_wanted(t)) return LQT_OK;
  lqt__case_seed(t);
  staged_case c = {.digests = true};
  lqt_diag diag = {0};
  char detail[700] = "";
  lqt_status status = lqt__selftest_weight(&t->arena, &t->random, kind, rows, cols, &c.desc);
  if (status == LQT_OK) status = run(t, &c, detail, sizeof detail, &diag);
  if (status != LQT_OK) snprintf(detail, sizeof detail, "%s: %s", diag.where, diag.what);
  for (int i = 0; i < STATES; i++) lqt_patch_destroy(c.patches[i]);
  lqt_weight_destroy(c.live);
  lqt_buffer_destroy(c.x);
  lqt_buffer_destroy(c.y);
  lqt__case_end(t);
  if (status == LQT_OUT_OF_MEMORY) return status;
  lqt__case_report(t, "", 0, 0, detail, status == LQT_UNSUPPORTED);
  return LQT_OK;
}

lqt_status lqt__selftest_staged(lqt__selftest *t) {
  for (size_t k = 0; k < lqt__weight_kind_count; k++) {
    LQT__TRY(staged(t, &lqt__weight_kinds[k], 53, 200));
    LQT__TRY(staged(t, &lqt__weight_kinds[k], 80, 1088));
  }
  return LQT_OK;
}
