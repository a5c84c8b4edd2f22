/* The canonical weights of the sample: every delta and mask encoding against its plain meaning. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/half.h"
#include "format/bytes.h"
#include "lqt/model.h"
#include "sample.h"

static sample s;
static lqt_model *model;
static uint8_t *data;

static void open_sample(void) {
  char folder[] = "/tmp/lqt-weight-test-XXXXXX", path[256];
  size_t bytes;
  cr_assert(sample_make(&s, SAMPLE_SEED));
  cr_assert_not_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/file.lqt", folder);
  data = sample_write(&s.file, path, &bytes, NULL);
  cr_assert_not_null(data);
  unlink(path);
  rmdir(folder);
  cr_assert_eq(lqt_model_open_memory(data, bytes, NULL, &model, NULL), LQT_OK);
}

static void close_sample(void) {
  lqt_model_release(model);
  lqt__free(data);
  sample_free(&s);
}

TestSuite(weight, .init = open_sample, .fini = close_sample);

static lqt_weight_desc weight_of(size_t index) {
  lqt_weight_desc desc;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_model_weight(model, index, &desc, &diag), LQT_OK, "%s", diag.what);
  return desc;
}

static bool kept(size_t tensor, uint32_t r, uint32_t c) {
  switch (tensor) {
    case SAMPLE_K:
      return c % 2 == 0;
    case SAMPLE_V:
      return r >= 4;
    case SAMPLE_O:
      return c == 0 || c == r;
    case SAMPLE_GATE:
      return c / 8 % 2 == 0;
    case SAMPLE_UP: /* positions 0 and 1 of the even groups, 0 and 3 of the odd ones */
      return c % 4 == 0 || c % 4 == (c / 4 % 2 == 0 ? 1u : 3u);
    default:
      return true;
  }
}

Test(weight, masks_of_every_encoding) {
  for (size_t i = 0; i < SAMPLE_RECURSIVE; i++) {
    lqt_weight_desc desc = weight_of(i);
    cr_assert_eq(desc.mask.bits != NULL, s.file.tensors[i].mask_id != LQT_ID_NONE);
    if (desc.mask.bits == NULL) continue;
    for (uint32_t r = 0; r < desc.rows; r++) {
      for (uint32_t c = 0; c < desc.cols; c++) {
        bool bit = (desc.mask.bits[r * desc.mask.row_stride + c / 8] >> c % 8 & 1) != 0;
        cr_assert_eq(bit, kept(i, r, c), "%s [%u, %u]", s.file.tensors[i].name, r, c);
      }
    }
  }
}

static float value_at(const uint8_t *p, uint8_t dtype, uint64_t i) {
  return dtype == LQT_DTYPE_F16 ? lqt__f32_from_f16(lqt__load_u16(p + 2 * i, false))
                                : lqt__load_f32(p + 4 * i, false);
}

/* The delta of an element, straight from the section's bytes. */
static double delta_at(const lqt__delta *d, uint64_t rows, uint64_t cols, uint64_t r, uint64_t c) {
  const uint8_t *p = d->blob.data + 64;
  uint64_t n = d->count;
  double sum = 0;
  switch (d->encoding) {
    case LQT__DELTA_DENSE:
      return value_at(p, d->dtype, r * cols + c);
    case LQT__DELTA_CSR: /* one value a row, in column 7 r mod cols */
      return c == r * 7 % cols ? value_at(p + 4 * (rows + 1) + 2 * n, d->dtype, r) : 0;
    case LQT__DELTA_COO:
      for (uint64_t i = 0; i < n; i++) {
        if (r == 3 * i && c == 5 * i) sum = value_at(p + 8 * n, d->dtype, i);
      }
      return sum;
    case LQT__DELTA_LOW_RANK:
      for (uint64_t k = 0; k < 3; k++) {
        sum += (double)value_at(p + 8, d->dtype, r * 3 + k) *
               value_at(p + 8 + 2 * 3 * rows, d->dtype, k * cols + c);
      }
      return sum;
    default:
      return value_at(p + 8, d->dtype, r * (cols / 16) + c / 16);
  }
}

/* A row with its delta and mask, minus the same row without them, is the delta where it is kept. */
Test(weight, deltas_of_every_encoding) {
  unsigned seen = 0;
  for (size_t i = 0; i < SAMPLE_RECURSIVE; i++) {
    uint16_t id = s.file.tensors[i].delta_id;
    if (id == LQT_ID_NONE) continue;
    const lqt__delta *d = &s.file.deltas[lqt__file_find_delta(&s.file, id)];
    seen |= 1u << d->encoding;
    lqt_weight_desc desc = weight_of(i), plain = desc;
    plain.delta = (lqt_delta_view){0};
    plain.mask = (lqt_mask_view){0};
    for (uint64_t r = 0; r < desc.rows; r++) {
      float with[64], without[64];
      cr_assert_eq(lqt_weight_desc_row(&desc, r, 0, desc.cols, with), LQT_OK);
      cr_assert_eq(lqt_weight_desc_row(&plain, r, 0, desc.cols, without), LQT_OK);
      for (uint64_t c = 0; c < desc.cols; c++) {
        double expected = kept(i, (uint32_t)r, (uint32_t)c)
                              ? without[c] + delta_at(d, desc.rows, desc.cols, r, c)
                              : 0;
        cr_assert_float_eq(with[c], expected, 1e-6, "%s [%u, %u]", s.file.tensors[i].name,
                           (unsigned)r, (unsigned)c);
      }
    }
  }
  cr_assert_eq(seen, 0x1Fu, "encodings %x", seen);
}

Test(weight, integers_are_widened) {
  lqt_weight_desc desc = weight_of(SAMPLE_BYTES);
  const lqt__tensor *t = &s.file.tensors[SAMPLE_BYTES];
  for (uint64_t i = 0; i < 20; i++) {
    float value;
    cr_assert_eq(lqt_weight_desc_row(&desc, i / 5, i % 5, 1, &value), LQT_OK);
    cr_assert_eq(value, 0.125f * (float)((int8_t)t->payload.data[i] + 3));
  }
}

Test(weight, what_is_kept_but_not_read) {
  lqt_weight_desc desc;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_model_weight(model, SAMPLE_RECURSIVE, &desc, &diag), LQT_UNSUPPORTED);
  cr_assert_neq(diag.what[0], '\0');
  cr_assert_eq(lqt_model_weight(model, SAMPLE_TENSORS, &desc, &diag), LQT_OUT_OF_RANGE);
}

/* Vector v of a codebook with banks that have room to grow. */
Test(weight, codebook_vectors_skip_the_room_of_a_bank) {
  uint16_t id = s.file.tensors[SAMPLE_V].codebook_id;
  const lqt__codebook *c = &s.file.codebooks[lqt__file_find_codebook(&s.file, id)];
  for (uint32_t v = 0; v < c->vectors; v++) {
    float value;
    cr_assert_eq(lqt_model_codebook_vector(model, id, v, &value, NULL), LQT_OK);
    cr_assert_eq(value, value_at(c->blob.data + 64, c->dtype, v / 3 * 4 + v % 3));
  }
  float value;
  cr_assert_eq(lqt_model_codebook_vector(model, id, c->vectors, &value, NULL), LQT_OUT_OF_RANGE);
  cr_assert_eq(lqt_model_codebook_vector(model, 9, 0, &value, NULL), LQT_NOT_FOUND);
}
