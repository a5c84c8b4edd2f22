/* From the canonical weight to the packed one, and patches of it. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"
#include "fast_internal.h"

/* The 32-bit word that holds bits [32 * word, +32) of a row's packed stream. */
static uint8_t *lane(const lqt__fast_plane *plane, uint64_t row, uint64_t word) {
  return plane->stream + row / LQT__FAST_ROWS * plane->block_bytes + word * 64 +
         row % LQT__FAST_ROWS * 4;
}

/* 3-bit indices, 32 to three words: index j < 32 is number p = j % 16 of half h = j / 16. The first
 * 15 of a half stand five to a word, the bits of the last one are the top bits of the three. */
static void put3(uint32_t words[3], unsigned j, uint32_t value) {
  unsigned p = j % 16, h = 16 * (j / 16);
  if (p < 15) {
    unsigned shift = h + 3 * (p % 5);
    words[p / 5] = (words[p / 5] & ~(7u << shift)) | value << shift;
    return;
  }
  for (unsigned i = 0; i < 3; i++) {
    words[i] = (words[i] & ~(1u << (h + 15))) | (value >> i & 1u) << (h + 15);
  }
}

static uint32_t get3(const uint32_t words[3], unsigned j) {
  unsigned p = j % 16, h = 16 * (j / 16);
  if (p < 15) return words[p / 5] >> (h + 3 * (p % 5)) & 7u;
  return (words[0] >> (h + 15) & 1u) | (words[1] >> (h + 15) & 1u) << 1 |
         (words[2] >> (h + 15) & 1u) << 2;
}

static void load3(const lqt__fast_plane *plane, uint64_t row, uint64_t span, uint32_t words[3]) {
  for (unsigned i = 0; i < 3; i++) memcpy(&words[i], lane(plane, row, 3 * span + i), 4);
}

uint32_t lqt__fast_get_index(const lqt__fast_plane *plane, uint64_t row, uint64_t i) {
  if (plane->kind == LQT__FAST_S3) {
    uint32_t words[3];
    load3(plane, row, i / 32, words);
    return get3(words, i % 32);
  }
  unsigned bits = lqt__fast_formats[plane->kind].bits;
  uint32_t word;
  memcpy(&word, lane(plane, row, i * bits / 32), 4);
  return word >> (i * bits % 32) & ((1u << bits) - 1);
}

static void set_index(lqt__fast_plane *plane, uint64_t row, uint64_t i, uint32_t value) {
  if (plane->kind == LQT__FAST_S3) {
    uint32_t words[3];
    load3(plane, row, i / 32, words);
    put3(words, i % 32, value);
    for (unsigned k = 0; k < 3; k++) memcpy(lane(plane, row, i / 32 * 3 + k), &words[k], 4);
    return;
  }
  unsigned bits = lqt__fast_formats[plane->kind].bits;
  unsigned shift = i * bits % 32;
  uint32_t word;
  memcpy(&word, lane(plane, row, i * bits / 32), 4);
  word = (word & ~(((1u << bits) - 1) << shift)) | value << shift;
  memcpy(lane(plane, row, i * bits / 32), &word, 4);
}

static uint32_t source_index(const uint8_t *row, uint64_t i, unsigned bits) {
  uint64_t bit = i * bits;
  uint32_t value = row[bit / 8];
  if (bit % 8 + bits > 8) value |= (uint32_t)row[bit / 8 + 1] << 8;
  return value >> (bit % 8) & ((1u << bits) - 1);
}

/* One row whose packed stream is the canonical one, a word at a time. */
static void pack_row_words(lqt__fast_plane *plane, const uint8_t *source, uint64_t row,
                           uint64_t count) {
  unsigned bits = lqt__fast_formats[plane->kind].bits;
  uint64_t total = count * bits;
  uint64_t words = total / 32;
  uint8_t *out = lane(plane, row, 0);
  for (uint64_t i = 0; i < words; i++) memcpy(out + i * 64, source + i * 4, 4);
  for (uint64_t i = words * 32 / bits; i < count; i++) {
    set_index(plane, row, i, source_index(source, i, bits));
  }
}

static void pack_row_3(lqt__fast_plane *plane, const uint8_t *source, uint64_t row,
                       uint64_t count) {
  uint64_t spans = count / 32;
  for (uint64_t s = 0; s < spans; s++) {
    uint64_t low;
    uint32_t high, words[3] = {0};
    memcpy(&low, source + s * 12, 8);
    memcpy(&high, source + s * 12 + 8, 4);
    for (unsigned j = 0; j < 21; j++) put3(words, j, low >> (3 * j) & 7u);
    put3(words, 21, (low >> 63 | (uint64_t)high << 1) & 7u);
    for (unsigned j = 22; j < 32; j++) put3(words, j, high >> (3 * j - 64) & 7u);
    for (unsigned i = 0; i < 3; i++) memcpy(lane(plane, row, 3 * s + i), &words[i], 4);
  }
  for (uint64_t i = spans * 32; i < count; i++)
    set_index(plane, row, i, source_index(source, i, 3));
}

static void pack_plain_row(lqt__cpu_fast *w, lqt__fast_plane *plane, const lqt_weight_desc *desc,
                           uint64_t row) {
  size_t size = plane->kind == LQT__FAST_F32 ? 4 : 2;
  const uint8_t *source = (const uint8_t *)desc->data + row * desc->row_stride;
  uint8_t *out =
      plane->stream + row / LQT__FAST_ROWS * plane->block_bytes + row % LQT__FAST_ROWS * size;
  for (uint64_t k = 0; k < w->cols; k++) {
    memcpy(out + k * LQT__FAST_ROWS * size, source + k * size, size);
  }
}

/* Where the keep bit of (row, col) stands: word col / span * span/2 + j of the block, bit
 * 2 * (row % 16) + half. */
static uint32_t *mask_word(const lqt__cpu_fast *w, const lqt__fast_plane *plane, uint64_t row,
                           uint64_t col, unsigned *bit) {
  unsigned span = lqt__fast_formats[plane->kind].span;
  uint64_t j = col % span;
  *bit = (unsigned)(2 * (row % LQT__FAST_ROWS) + j / (span / 2));
  return plane->mask + row / LQT__FAST_ROWS * (w->kpad / 2) + col / span * (span / 2) +
         j % (span / 2);
}

bool lqt__fast_mask_bit(const lqt__fast_plane *plane, const lqt__cpu_fast *w, uint64_t row,
                        uint64_t col) {
  unsigned bit;
  uint32_t word = *mask_word(w, plane, row, col, &bit);
  return word >> bit & 1u;
}

static void set_mask_byte(lqt__cpu_fast *w, uint64_t row, uint64_t byte, uint8_t bits) {
  for (uint64_t col = byte * 8; col < byte * 8 + 8 && col < w->cols; col++) {
    for (unsigned p = 0; p < w->planes; p++) {
      unsigned bit;
      uint32_t *word = mask_word(w, &w->plane[p], row, col, &bit);
      *word = (*word & ~(1u << bit)) | (uint32_t)(bits >> (col % 8) & 1u) << bit;
    }
  }
}

typedef struct pack_job {
  lqt__cpu_fast *w;
  const lqt_weight_desc *desc;
} pack_job;

static void pack_block(void *context, size_t block, unsigned worker) {
  (void)worker;
  pack_job *job = context;
  lqt__cpu_fast *w = job->w;
  const lqt_weight_desc *desc = job->desc;
  for (unsigned p = 0; p < w->planes; p++) {
    lqt__fast_plane *plane = &w->plane[p];
    memset(plane->stream + block * plane->block_bytes, 0, plane->block_bytes);
  }
  for (uint64_t row = block * LQT__FAST_ROWS; row < (block + 1) * LQT__FAST_ROWS; row++) {
    if (row >= w->rows) break;
    for (unsigned p = 0; p < w->planes; p++) {
      lqt__fast_plane *plane = &w->plane[p];
      const lqt__fast_format *format = &lqt__fast_formats[plane->kind];
      if (format->bits == 0) {
        pack_plain_row(w, plane, desc, row);
        continue;
      }
      const lqt_index_view *view = p == 0 ? &desc->indices : &desc->residual_indices;
      const uint8_t *source = view->data + row * view->row_stride;
      uint64_t count = lqt__ceil_div(w->cols, format->comps);
      if (plane->kind == LQT__FAST_S3) {
        pack_row_3(plane, source, row, count);
      } else if (format->bits == view->bits) {
        pack_row_words(plane, source, row, count);
      } else {
        for (uint64_t i = 0; i < count; i++) {
          set_index(plane, row, i, source_index(source, i, view->bits));
        }
      }
    }
    for (uint64_t g = 0; w->scales != NULL && g < w->source_groups; g++) {
      w->scales[(block * w->groups + g) * LQT__FAST_ROWS + row % LQT__FAST_ROWS] =
          desc->group_scales[row * desc->group_row_stride + g];
    }
    for (uint64_t i = 0; desc->mask.bits != NULL && i < lqt__ceil_div(w->cols, 8); i++) {
      set_mask_byte(w, row, i, desc->mask.bits[row * desc->mask.row_stride + i]);
    }
  }
}

static float half_or_float(const void *values, lqt_dtype dtype, uint64_t i) {
  if (dtype == LQT_DTYPE_F32) return ((const float *)values)[i];
  return lqt__f32_from_f16(((const uint16_t *)values)[i]);
}

static lqt_status pack_delta(lqt__cpu_fast *w, const lqt_weight_desc *desc, lqt_diag *diag) {
  const lqt_delta_view *delta = &desc->delta;
  uint64_t count = delta->count;
  w->delta_count = count;
  w->delta_f16 = delta->dtype != LQT_DTYPE_F32;
  w->delta_row_ptr = lqt__alloc_array(w->rows + 1, sizeof *w->delta_row_ptr);
  w->delta_columns = lqt__alloc_array(count, sizeof *w->delta_columns);
  w->delta_values = lqt__alloc_array(count, sizeof *w->delta_values);
  if (w->delta_row_ptr == NULL || w->delta_columns == NULL || w->delta_values == NULL) {
    return lqt__fail_memory(diag, NULL, count * 8, "a sparse delta");
  }
  memcpy(w->delta_row_ptr, delta->row_ptr, (w->rows + 1) * sizeof *w->delta_row_ptr);
  for (uint64_t i = 0; i < count; i++) {
    w->delta_columns[i] = delta->columns != NULL ? delta->columns[i] : delta->columns16[i];
    w->delta_values[i] = half_or_float(delta->values, delta->dtype, i);
  }
  return LQT_OK;
}

static lqt_status pack_codebook(lqt__fast_plane *plane, const lqt_codebook_view *codebook,
                                lqt_diag *diag) {
  uint64_t count = (uint64_t)codebook->entries * codebook->vector_dim;
  plane->entries = codebook->entries;
  plane->bank_stride = codebook->bank_stride;
  plane->values = lqt__alloc_array(count, sizeof *plane->values);
  plane->tables = lqt__alloc_aligned(sizeof *plane->tables, 64);
  if (plane->values == NULL || plane->tables == NULL) {
    return lqt__fail_memory(diag, NULL, sizeof *plane->tables, "the lookup tables of a codebook");
  }
  for (uint64_t i = 0; i < count; i++) {
    plane->values[i] = half_or_float(codebook->vectors, codebook->dtype, i);
  }
  return LQT_OK;
}

lqt_status lqt__fast_pack(lqt__cpu_fast *w, const lqt_weight_desc *desc, lqt__pool *pool,
                          lqt_diag *diag) {
  for (unsigned p = 0; p < w->planes; p++) {
    lqt__fast_plane *plane = &w->plane[p];
    const lqt__fast_format *format = &lqt__fast_formats[plane->kind];
    plane->block_bytes = w->kpad / format->span * format->span_bytes;
    uint64_t bytes = w->blocks * plane->block_bytes;
    plane->stream = lqt__alloc_aligned(bytes, 64);
    if (plane->stream == NULL) return lqt__fail_memory(diag, NULL, bytes, "a repacked weight");
    if (desc->mask.bits != NULL) {
      plane->mask = lqt__alloc_array(w->blocks * (w->kpad / 2), sizeof *plane->mask);
      if (plane->mask == NULL) {
        return lqt__fail_memory(diag, NULL, w->blocks * w->kpad * 2, "a repacked mask");
      }
    }
    if (format->bits != 0) {
      LQT__TRY(pack_codebook(plane, p == 0 ? &desc->codebook : &desc->residual, diag));
    }
  }
  if (desc->group_scales != NULL) {
    uint64_t bytes = w->blocks * w->groups * LQT__FAST_ROWS * sizeof *w->scales;
    w->scales = lqt__alloc_aligned(bytes, 64);
    if (w->scales == NULL) return lqt__fail_memory(diag, NULL, bytes, "repacked group scales");
    memset(w->scales, 0, bytes);
  }
  if (desc->delta.kind == LQT_DELTA_CSR) LQT__TRY(pack_delta(w, desc, diag));
  lqt__pool_run(pool, w->blocks, pack_block, &(pack_job){w, desc});
  for (unsigned p = 0; p < w->planes; p++) {
    if (w->plane[p].tables != NULL) {
      lqt__fast_build_tables(w, &w->plane[p], p == 0 ? 1.0f : w->residual_scale);
    }
  }
  return LQT_OK;
}

static void patch_indices(lqt__cpu_fast *w, unsigned p, const lqt_weight_patch *patch) {
  lqt__fast_plane *plane = &w->plane[p];
  const uint8_t *data = patch->data;
  const unsigned bits = plane->source_bits;
  uint64_t count = lqt__ceil_div(w->cols, lqt__fast_formats[plane->kind].comps);
  for (uint64_t n = 0; n < patch->count; n++) {
    uint64_t row = (patch->first + n) / w->index_stride[p];
    uint64_t byte = (patch->first + n) % w->index_stride[p];
    if (row >= w->rows) return;
    /* Every index with a bit in this byte keeps its other bits. */
    for (uint64_t i = byte * 8 / bits; i < count && i * bits < byte * 8 + 8; i++) {
      uint32_t value = lqt__fast_get_index(plane, row, i);
      for (unsigned b = 0; b < bits; b++) {
        uint64_t bit = i * bits + b;
        if (bit / 8 != byte) continue;
        value = (value & ~(1u << b)) | (uint32_t)(data[n] >> (bit % 8) & 1u) << b;
      }
      set_index(plane, row, i, value);
    }
  }
}

static void patch_values(lqt__fast_plane *plane, lqt_dtype dtype, const lqt_weight_patch *patch) {
  uint64_t count = (uint64_t)plane->entries * lqt__fast_formats[plane->kind].comps;
  for (uint64_t n = 0; n < patch->count; n++) {
    if (patch->first + n < count) {
      plane->values[patch->first + n] = half_or_float(patch->data, dtype, n);
    }
  }
}

static void patch_scales(lqt__cpu_fast *w, const lqt_weight_patch *patch) {
  const uint16_t *data = patch->data;
  for (uint64_t n = 0; n < patch->count; n++) {
    uint64_t row = (patch->first + n) / w->source_gstride;
    uint64_t g = (patch->first + n) % w->source_gstride;
    if (row >= w->rows || g >= w->source_groups) continue;
    w->scales[(row / LQT__FAST_ROWS * w->groups + g) * LQT__FAST_ROWS + row % LQT__FAST_ROWS] =
        data[n];
  }
}

static void patch_plain(lqt__cpu_fast *w, const lqt_weight_patch *patch) {
  lqt__fast_plane *plane = &w->plane[0];
  size_t size = plane->kind == LQT__FAST_F32 ? 4 : 2;
  uint64_t stride = w->index_stride[0] / size;
  for (uint64_t n = 0; n < patch->count; n++) {
    uint64_t row = (patch->first + n) / stride, k = (patch->first + n) % stride;
    if (row >= w->rows || k >= w->cols) continue;
    memcpy(plane->stream + row / LQT__FAST_ROWS * plane->block_bytes +
               (k * LQT__FAST_ROWS + row % LQT__FAST_ROWS) * size,
           (const uint8_t *)patch->data + n * size, size);
  }
}

static void patch_mask(lqt__cpu_fast *w, const lqt_weight_patch *patch) {
  const uint8_t *data = patch->data;
  for (uint64_t n = 0; n < patch->count; n++) {
    uint64_t row = (patch->first + n) / w->mask_stride;
    if (row >= w->rows) return;
    set_mask_byte(w, row, (patch->first + n) % w->mask_stride, data[n]);
  }
}

lqt_status lqt__cpu_fast_patch(lqt__cpu_fast *w, const lqt_weight_patch *patch, lqt_diag *diag) {
  bool residual = w->planes == 2;
  bool rebuild[2] = {false, false};
  bool known = true;
  switch (patch->part) {
    case LQT_PART_CODEBOOK:
    case LQT_PART_RESIDUAL: {
      unsigned p = patch->part == LQT_PART_RESIDUAL;
      known = p < w->planes && w->plane[p].values != NULL;
      if (known) patch_values(&w->plane[p], w->value_dtype[p], patch);
      rebuild[p] = known;
      break;
    }
    case LQT_PART_INDICES:
    case LQT_PART_RESIDUAL_INDICES: {
      unsigned p = patch->part == LQT_PART_RESIDUAL_INDICES;
      known = p < w->planes && w->plane[p].values != NULL;
      if (known) patch_indices(w, p, patch);
      rebuild[p] = known; /* the int8 table depends on how often an index occurs */
      break;
    }
    case LQT_PART_GROUP_SCALES:
      known = w->scales != NULL;
      if (known) patch_scales(w, patch);
      break;
    case LQT_PART_DELTA_VALUES:
      known = w->delta_row_ptr != NULL;
      for (uint64_t n = 0; known && n < patch->count && patch->first + n < w->delta_count; n++) {
        w->delta_values[patch->first + n] =
            half_or_float(patch->data, w->delta_f16 ? LQT_DTYPE_F16 : LQT_DTYPE_F32, n);
      }
      break;
    case LQT_PART_SCALE:
      memcpy(&w->scale, patch->data, sizeof w->scale);
      break;
    case LQT_PART_RESIDUAL_SCALE:
      known = residual;
      if (known) memcpy(&w->residual_scale, patch->data, sizeof w->residual_scale);
      rebuild[1] = known;
      break;
    case LQT_PART_MASK:
      known = w->plane[0].mask != NULL;
      if (known) patch_mask(w, patch);
      break;
    case LQT_PART_PLAIN:
      known = w->plane[0].tables == NULL;
      if (known) patch_plain(w, patch);
      break;
    default:
      known = false;
  }
  if (!known) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL,
                     "the weight has no part %d to patch: only parts it was created with change in "
                     "place",
                     (int)patch->part);
  }
  for (unsigned p = 0; p < w->planes; p++) {
    if (rebuild[p]) {
      lqt__fast_build_tables(w, &w->plane[p], p == 0 ? 1.0f : w->residual_scale);
    }
  }
  return LQT_OK;
}
