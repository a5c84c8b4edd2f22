/* Random weights of every kind for the conformance suite. */
#include <string.h>

#include "base/diag.h"
#include "base/half.h"
#include "kernel/selftest.h"
#include "kernel/weight.h"

#define CB .dtype = LQT_DTYPE_CODEBOOK
const lqt__weight_kind lqt__weight_kinds[] = {
    {.name = "f32", .dtype = LQT_DTYPE_F32},
    {.name = "f16", .dtype = LQT_DTYPE_F16},
    {.name = "bf16", .dtype = LQT_DTYPE_BF16},
    {.name = "f32.mask", .dtype = LQT_DTYPE_F32, .mask = true},
    {.name = "bf16.csr", .dtype = LQT_DTYPE_BF16, .delta = LQT_DELTA_CSR},
    {.name = "f16.lowrank", .dtype = LQT_DTYPE_F16, .delta = LQT_DELTA_LOW_RANK},
    {.name = "cb2", CB, .bits = 2, .dim = 1},
    {.name = "cb2.g16", CB, .bits = 2, .dim = 1, .group = 16},
    {.name = "cb2.g64", CB, .bits = 2, .dim = 1, .group = 64},
    {.name = "cb3", CB, .bits = 3, .dim = 1},
    {.name = "cb3.g64", CB, .bits = 3, .dim = 1, .group = 64},
    {.name = "cb3.g128.zp", CB, .bits = 3, .dim = 1, .group = 128, .zero_points = true},
    {.name = "cb4", CB, .bits = 4, .dim = 1},
    {.name = "cb4.g16", CB, .bits = 4, .dim = 1, .group = 16},
    {.name = "cb4.g32", CB, .bits = 4, .dim = 1, .group = 32},
    {.name = "cb4.g64", CB, .bits = 4, .dim = 1, .group = 64},
    {.name = "cb4.g256", CB, .bits = 4, .dim = 1, .group = 256},
    {.name = "cb4.e11.g64", CB, .bits = 4, .dim = 1, .group = 64, .entries = 11},
    {.name = "cb4.g64.f32book", CB, .bits = 4, .dim = 1, .group = 64, .wide_book = true},
    {.name = "cb4.g64.zp", CB, .bits = 4, .dim = 1, .group = 64, .zero_points = true},
    {.name = "cb4.row", CB, .bits = 4, .dim = 1, .bank_rows = 1},
    {.name = "cb4.row.g64", CB, .bits = 4, .dim = 1, .bank_rows = 1, .group = 64},
    {.name = "cb4.block", CB, .bits = 4, .dim = 1, .bank_rows = 8, .bank_cols = 48},
    {.name = "cb4.block.g32", CB, .bits = 4, .dim = 1, .bank_cols = 16, .group = 32},
    {.name = "cb2.block.g64",
     CB,
     .bits = 2,
     .dim = 1,
     .bank_rows = 3,
     .bank_cols = 1024,
     .group = 64},
    {.name = "cb4.g64.csr", CB, .bits = 4, .dim = 1, .group = 64, .delta = LQT_DELTA_CSR},
    {.name = "cb4.g64.csr32",
     CB,
     .bits = 4,
     .dim = 1,
     .group = 64,
     .delta = LQT_DELTA_CSR,
     .wide_columns = true,
     .wide_delta = true},
    {.name = "cb4.g64.dense", CB, .bits = 4, .dim = 1, .group = 64, .delta = LQT_DELTA_DENSE},
    {.name = "cb4.g64.lowrank",
     CB,
     .bits = 4,
     .dim = 1,
     .group = 64,
     .delta = LQT_DELTA_LOW_RANK,
     .wide_delta = true},
    {.name = "cb4.g64.grouped", CB, .bits = 4, .dim = 1, .group = 64, .delta = LQT_DELTA_GROUPED},
    {.name = "cb4.g64.mask", CB, .bits = 4, .dim = 1, .group = 64, .mask = true},
    {.name = "cb4.g64.res3",
     CB,
     .bits = 4,
     .dim = 1,
     .group = 64,
     .residual_bits = 3,
     .residual_dim = 1},
    {.name = "cb2.res2", CB, .bits = 2, .dim = 1, .residual_bits = 2, .residual_dim = 1},
    {.name = "cb8", CB, .bits = 8, .dim = 1},
    {.name = "cb8.g64", CB, .bits = 8, .dim = 1, .group = 64},
    {.name = "cb8.g128.mask.csr",
     CB,
     .bits = 8,
     .dim = 1,
     .group = 128,
     .mask = true,
     .delta = LQT_DELTA_CSR},
    {.name = "cb8.row", CB, .bits = 8, .dim = 1, .bank_rows = 1, .entries = 200},
    {.name = "cb4.v2", CB, .bits = 4, .dim = 2},
    {.name = "cb8.v2.g64", CB, .bits = 8, .dim = 2, .group = 64},
    {.name = "cb8.v4", CB, .bits = 8, .dim = 4},
    {.name = "cb8.v4.g32", CB, .bits = 8, .dim = 4, .group = 32},
    {.name = "cb8.v8.g128", CB, .bits = 8, .dim = 8, .group = 128},
    {.name = "cb3.v2.row", CB, .bits = 3, .dim = 2, .bank_rows = 1},
    {.name = "cb8.v2.res4.v1", CB, .bits = 8, .dim = 2, .residual_bits = 4, .residual_dim = 1},
    {.name = "cb8.v4.res8.v4.g64",
     CB,
     .bits = 8,
     .dim = 4,
     .residual_bits = 8,
     .residual_dim = 4,
     .group = 64},
    {.name = "cb16", CB, .bits = 16, .dim = 1, .entries = 1000},
    {.name = "cb16.v4.g64", CB, .bits = 16, .dim = 4, .entries = 3000, .group = 64},
    {.name = "cb3.everything",
     CB,
     .bits = 3,
     .dim = 1,
     .entries = 7,
     .bank_rows = 5,
     .bank_cols = 32,
     .group = 16,
     .zero_points = true,
     .residual_bits = 8,
     .residual_dim = 2,
     .delta = LQT_DELTA_CSR,
     .mask = true,
     .wide_book = true,
     .wide_delta = true},
};
#undef CB
const size_t lqt__weight_kind_count = sizeof lqt__weight_kinds / sizeof lqt__weight_kinds[0];

static void *random_values(lqt__arena *arena, lqt__random *random, lqt_dtype dtype, uint64_t count,
                           float spread) {
  uint64_t size = lqt_dtype_size(dtype);
  uint8_t *values = lqt__arena_array(arena, count, size);
  if (values == NULL) return NULL;
  for (uint64_t i = 0; i < count; i++) {
    float value = spread * lqt__random_normal(random);
    uint16_t half = dtype == LQT_DTYPE_BF16 ? lqt__bf16_from_f32(value) : lqt__f16_from_f32(value);
    memcpy(values + i * size, size == 2 ? (void *)&half : (void *)&value, size);
  }
  return values;
}

static void *random_bytes(lqt__arena *arena, lqt__random *random, uint64_t count) {
  uint8_t *bytes = lqt__arena_alloc(arena, count);
  for (uint64_t i = 0; bytes != NULL && i < count; i++) bytes[i] = (uint8_t)lqt__random_u64(random);
  return bytes;
}

/* Random indices below `entries` into one packed row; the rest of the row gets random bits, which
 * must not matter. */
static void random_index_row(lqt__random *random, const lqt_weight_desc *desc,
                             const lqt_index_view *indices, const lqt_codebook_view *book,
                             uint8_t *row) {
  uint64_t per_row = lqt__ceil_div(desc->cols, book->vector_dim);
  for (uint64_t i = 0; i < indices->row_stride; i++) row[i] = (uint8_t)lqt__random_u64(random);
  if (book->entries == 1u << indices->bits) return;
  for (uint64_t i = 0; i < per_row; i++) {
    uint32_t index = lqt__random_below(random, book->entries);
    for (uint32_t b = 0; b < indices->bits; b++) {
      uint64_t bit = i * indices->bits + b;
      row[bit / 8] = (uint8_t)((row[bit / 8] & ~(1u << bit % 8)) | (index >> b & 1u) << bit % 8);
    }
  }
}

static bool make_book(lqt__arena *arena, lqt__random *random, lqt_weight_desc *desc,
                      lqt_index_view *indices, lqt_codebook_view *book, float spread) {
  uint64_t used = (uint64_t)book->entries * book->vector_dim;
  book->bank_stride = used + 3; /* banks need not touch */
  book->vectors =
      random_values(arena, random, book->dtype, book->banks * book->bank_stride, spread);
  uint64_t per_row = lqt__ceil_div(desc->cols, book->vector_dim);
  indices->row_stride = lqt__ceil_div(per_row * indices->bits, 128) * 16;
  uint8_t *data = lqt__arena_array(arena, desc->rows, indices->row_stride);
  indices->data = data;
  if (book->vectors == NULL || data == NULL) return false;
  for (uint64_t r = 0; r < desc->rows; r++) {
    random_index_row(random, desc, indices, book, data + r * indices->row_stride);
  }
  return true;
}

static bool make_csr(lqt__arena *arena, lqt__random *random, bool wide, lqt_weight_desc *desc) {
  lqt_delta_view *delta = &desc->delta;
  uint32_t *row_ptr = lqt__arena_array(arena, desc->rows + 1, sizeof *row_ptr);
  uint32_t *columns = lqt__arena_array(arena, desc->rows * desc->cols, sizeof *columns);
  if (row_ptr == NULL || columns == NULL) return false;
  uint32_t count = 0;
  for (uint64_t r = 0; r < desc->rows; r++) {
    uint32_t share = lqt__random_below(random, 4) == 0 ? 0 : 20; /* some rows stay empty */
    for (uint64_t c = 0; c < desc->cols; c++) {
      if (share != 0 && lqt__random_below(random, share) == 0) columns[count++] = (uint32_t)c;
    }
    row_ptr[r + 1] = count;
  }
  delta->row_ptr = row_ptr;
  delta->count = count;
  delta->values = random_values(arena, random, delta->dtype, count, 0.5f);
  if (wide) {
    delta->columns = columns;
    return delta->values != NULL;
  }
  uint16_t *narrow = lqt__arena_array(arena, (size_t)count + 1, sizeof *narrow);
  for (uint32_t i = 0; narrow != NULL && i < count; i++) narrow[i] = (uint16_t)columns[i];
  delta->columns16 = narrow;
  return delta->values != NULL && narrow != NULL;
}

static bool make_delta(lqt__arena *arena, lqt__random *random, const lqt__weight_kind *kind,
                       lqt_weight_desc *desc) {
  lqt_delta_view *delta = &desc->delta;
  delta->kind = kind->delta;
  delta->dtype = kind->wide_delta ? LQT_DTYPE_F32 : LQT_DTYPE_F16;
  switch (kind->delta) {
    case LQT_DELTA_DENSE:
      delta->count = desc->rows * desc->cols;
      break;
    case LQT_DELTA_CSR:
      return make_csr(arena, random, kind->wide_columns, desc);
    case LQT_DELTA_LOW_RANK:
      delta->rank = 1 + lqt__random_below(random, 9);
      delta->values_b = random_values(arena, random, delta->dtype, delta->rank * desc->cols, 0.1f);
      if (delta->values_b == NULL) return false;
      delta->count = (desc->rows + desc->cols) * delta->rank;
      delta->values = random_values(arena, random, delta->dtype, desc->rows * delta->rank, 0.5f);
      return delta->values != NULL;
    case LQT_DELTA_GROUPED:
      delta->group = 40;
      delta->count = desc->rows * lqt__ceil_div(desc->cols, delta->group);
      break;
    default:
      return true;
  }
  delta->values = random_values(arena, random, delta->dtype, delta->count, 0.1f);
  return delta->values != NULL;
}

static bool make_groups(lqt__arena *arena, lqt__random *random, const lqt__weight_kind *kind,
                        lqt_weight_desc *desc) {
  desc->group_size = kind->group;
  desc->group_row_stride = lqt__ceil_div(desc->cols, kind->group) + lqt__random_below(random, 3);
  uint64_t count = desc->rows * desc->group_row_stride;
  uint16_t *scales = lqt__arena_array(arena, count, sizeof *scales);
  if (scales == NULL) return false;
  for (uint64_t i = 0; i < count; i++) {
    scales[i] = lqt__f16_from_f32((float)(0.25 + lqt__random_unit(random)));
  }
  desc->group_scales = scales;
  if (!kind->zero_points) return true;
  desc->zero_points = random_values(arena, random, LQT_DTYPE_F16, count, 0.3f);
  return desc->zero_points != NULL;
}

static bool make_codebook(lqt__arena *arena, lqt__random *random, const lqt__weight_kind *kind,
                          lqt_weight_desc *desc) {
  desc->bank_rows =
      kind->bank_rows != 0 && kind->bank_rows < desc->rows ? kind->bank_rows : desc->rows;
  desc->bank_cols =
      kind->bank_cols != 0 && kind->bank_cols < desc->cols ? kind->bank_cols : desc->cols;
  desc->indices.bits = kind->bits;
  desc->codebook = (lqt_codebook_view){
      .dtype = kind->wide_book ? LQT_DTYPE_F32 : LQT_DTYPE_F16,
      .entries = kind->entries != 0 ? kind->entries : 1u << kind->bits,
      .vector_dim = kind->dim,
      .banks = (uint32_t)lqt__weight_banks(desc),
  };
  if (!make_book(arena, random, desc, &desc->indices, &desc->codebook, 1.0f)) return false;
  if (kind->residual_bits != 0) {
    desc->residual_indices.bits = kind->residual_bits;
    desc->residual = (lqt_codebook_view){.dtype = LQT_DTYPE_F16,
                                         .entries = 1u << kind->residual_bits,
                                         .vector_dim = kind->residual_dim,
                                         .banks = 1};
    desc->residual_scale = 0.25f;
    if (!make_book(arena, random, desc, &desc->residual_indices, &desc->residual, 1.0f)) {
      return false;
    }
  }
  return kind->group == 0 || make_groups(arena, random, kind, desc);
}

lqt_status lqt__selftest_weight(lqt__arena *arena, lqt__random *random,
                                const lqt__weight_kind *kind, uint64_t rows, uint64_t cols,
                                lqt_weight_desc *out) {
  lqt_weight_desc desc = {.size = sizeof desc,
                          .dtype = kind->dtype,
                          .rows = rows,
                          .cols = cols,
                          .scale = (float)(0.5 + lqt__random_unit(random))};
  bool made = true;
  if (kind->dtype == LQT_DTYPE_CODEBOOK) {
    made = make_codebook(arena, random, kind, &desc);
  } else {
    uint64_t stride = cols + lqt__random_below(random, 3);
    desc.row_stride = stride * lqt_dtype_size(kind->dtype);
    desc.data = random_values(arena, random, kind->dtype, rows * stride, 1.0f);
    made = desc.data != NULL;
  }
  if (made && kind->delta != LQT_DELTA_NONE) made = make_delta(arena, random, kind, &desc);
  if (made && kind->mask) {
    desc.mask.row_stride = lqt__ceil_div(cols, 64) * 8;
    desc.mask.bits = random_bytes(arena, random, rows * desc.mask.row_stride);
    made = desc.mask.bits != NULL;
  }
  *out = desc;
  return made ? LQT_OK : LQT_OUT_OF_MEMORY;
}

/* Where element `at` of a part stands in the description; ranges of the low-rank values do not
 * cross from A to B. */
static uint8_t *part_slot(lqt_weight_desc *desc, lqt_weight_part part, uint64_t at) {
  uint64_t size = lqt__weight_part_size(desc, part);
  const void *base = NULL;
  switch (part) {
    case LQT_PART_CODEBOOK:
      base = desc->codebook.vectors;
      break;
    case LQT_PART_RESIDUAL:
      base = desc->residual.vectors;
      break;
    case LQT_PART_GROUP_SCALES:
      base = desc->group_scales;
      break;
    case LQT_PART_ZERO_POINTS:
      base = desc->zero_points;
      break;
    case LQT_PART_DELTA_VALUES:
      base = desc->delta.values;
      if (desc->delta.kind == LQT_DELTA_LOW_RANK && at >= desc->rows * desc->delta.rank) {
        at -= desc->rows * desc->delta.rank;
        base = desc->delta.values_b;
      }
      break;
    case LQT_PART_SCALE:
      base = &desc->scale;
      break;
    case LQT_PART_RESIDUAL_SCALE:
      base = &desc->residual_scale;
      break;
    case LQT_PART_INDICES:
      base = desc->indices.data;
      break;
    case LQT_PART_RESIDUAL_INDICES:
      base = desc->residual_indices.data;
      break;
    case LQT_PART_MASK:
      base = desc->mask.bits;
      break;
    default:
      base = desc->data;
  }
  return (uint8_t *)base + at * size;
}

/* New contents of a range of a part. */
static bool patch_data(lqt__arena *arena, lqt__random *random, lqt_weight_desc *desc,
                       lqt_weight_patch *patch) {
  const lqt_index_view *indices = NULL;
  const lqt_codebook_view *book = NULL;
  switch (patch->part) {
    case LQT_PART_INDICES:
      indices = &desc->indices;
      book = &desc->codebook;
      break;
    case LQT_PART_RESIDUAL_INDICES:
      indices = &desc->residual_indices;
      book = &desc->residual;
      break;
    case LQT_PART_MASK:
      patch->data = random_bytes(arena, random, patch->count);
      return patch->data != NULL;
    default: {
      size_t size = lqt__weight_part_size(desc, patch->part);
      lqt_dtype dtype = size == 4 ? LQT_DTYPE_F32 : LQT_DTYPE_F16;
      if (patch->part == LQT_PART_PLAIN) dtype = desc->dtype;
      patch->data = random_values(arena, random, dtype, patch->count, 0.7f);
      return patch->data != NULL;
    }
  }
  if (book->entries == 1u << indices->bits) {
    patch->data = random_bytes(arena, random, patch->count);
    return patch->data != NULL;
  }
  /* Whole rows, so that no index is half old and half new. */
  uint64_t first = patch->first / indices->row_stride;
  uint64_t end = lqt__ceil_div(patch->first + patch->count, indices->row_stride);
  uint8_t *rows = lqt__arena_array(arena, end - first, indices->row_stride);
  if (rows == NULL) return false;
  for (uint64_t r = 0; r < end - first; r++) {
    random_index_row(random, desc, indices, book, rows + r * indices->row_stride);
  }
  patch->first = first * indices->row_stride;
  patch->count = (end - first) * indices->row_stride;
  patch->data = rows;
  return true;
}

/* Between a patch's data and its place in the description; low-rank values may go on in B. */
static void move_part(lqt_weight_desc *desc, const lqt_weight_patch *patch, bool in,
                      uint8_t *data) {
  uint64_t a_count = desc->rows * desc->delta.rank;
  uint64_t size = lqt__weight_part_size(desc, patch->part), split = patch->count;
  bool low_rank = patch->part == LQT_PART_DELTA_VALUES && desc->delta.kind == LQT_DELTA_LOW_RANK;
  if (low_rank && patch->first < a_count && a_count - patch->first < split) {
    split = a_count - patch->first;
  }
  for (uint64_t done = 0; done < patch->count; done = split, split = patch->count) {
    uint8_t *slot = part_slot(desc, patch->part, patch->first + done);
    uint64_t bytes = (split - done) * size;
    memcpy(in ? slot : data + done * size, in ? data + done * size : slot, bytes);
  }
}

lqt_status lqt__selftest_patch_range(lqt__arena *arena, lqt__random *random, lqt_weight_desc *desc,
                                     lqt_weight_part part, uint64_t first, uint64_t count,
                                     lqt_weight_patch *out, const void **out_old) {
  lqt_weight_patch patch = {.part = part, .first = first, .count = count};
  if (!patch_data(arena, random, desc, &patch)) return LQT_OUT_OF_MEMORY;
  uint8_t *old = lqt__arena_array(arena, patch.count, lqt__weight_part_size(desc, part));
  if (old == NULL) return LQT_OUT_OF_MEMORY;
  move_part(desc, &patch, false, old);
  move_part(desc, &patch, true, (uint8_t *)patch.data);
  *out = patch;
  if (out_old != NULL) *out_old = old;
  return LQT_OK;
}

lqt_status lqt__selftest_patch(lqt__arena *arena, lqt__random *random, lqt_weight_desc *desc,
                               lqt_weight_part part, lqt_weight_patch *out) {
  uint64_t have = lqt__weight_part_count(desc, part);
  uint64_t most = have < 1000 ? have : 1000;
  uint64_t count = have == 0 ? 0 : 1 + lqt__random_below(random, (uint32_t)most);
  uint64_t first = have == 0 ? 0 : lqt__random_below(random, (uint32_t)(have - count + 1));
  return lqt__selftest_patch_range(arena, random, desc, part, first, count, out, NULL);
}
