/* Weights on the device. Their parts stay in the canonical order, so that a patch is a copy to the
 * same place; a block of addresses and sizes in device memory tells the shaders where they are. */
#include "kernel/weight.h"

#include <stdio.h>
#include <string.h>

#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/diag.h"

/* Shaders read up to eight columns past the end of a row. */
#define OVERREAD_BYTES 64u
/* Shared memory that the tiles of shaders/matmul.comp take, and what a table may take of the rest.
 */
#define TILE_BYTES ((32u * 65u + 32u * 33u) * 4u)

static void add(lqt__vk_weight *weight, uint32_t id, uint32_t value) {
  weight->constants[weight->constant_count++] = (lqt__vk_constant){id, value};
}

/* Values of a codebook that the shaders keep in shared memory; 0 when it is too large. */
static uint32_t table_values(const lqt__vk_device *device, const lqt_index_view *indices,
                             const lqt_codebook_view *book) {
  if (book->banks != 1 || indices->bits > 8) return 0;
  uint32_t limit = device->physical->properties.limits.maxComputeSharedMemorySize;
  uint32_t most = limit > TILE_BYTES ? (limit - TILE_BYTES) / 2 / sizeof(float) : 0;
  uint32_t values = book->vector_dim << indices->bits;
  return values <= most && values <= 2048 ? values : 0;
}

static void specialise(lqt__vk_weight *weight, const lqt__vk_device *device,
                       const lqt_weight_desc *desc) {
  bool coded = desc->dtype == LQT_DTYPE_CODEBOOK;
  uint32_t kind = coded                           ? 3
                  : desc->dtype == LQT_DTYPE_F16  ? 1
                  : desc->dtype == LQT_DTYPE_BF16 ? 2
                                                  : 0;
  add(weight, LQT__VK_W_KIND, kind);
  if (coded) {
    add(weight, LQT__VK_W_BITS, desc->indices.bits);
    add(weight, LQT__VK_W_DIM, desc->codebook.vector_dim);
    add(weight, LQT__VK_W_BOOK_F16, desc->codebook.dtype == LQT_DTYPE_F16);
    add(weight, LQT__VK_W_BANKED, desc->codebook.banks > 1);
    add(weight, LQT__VK_W_TABLE, table_values(device, &desc->indices, &desc->codebook));
    if (desc->residual.vectors != NULL) {
      add(weight, LQT__VK_R_BITS, desc->residual_indices.bits);
      add(weight, LQT__VK_R_DIM, desc->residual.vector_dim);
      add(weight, LQT__VK_R_BOOK_F16, desc->residual.dtype == LQT_DTYPE_F16);
      add(weight, LQT__VK_R_TABLE, table_values(device, &desc->residual_indices, &desc->residual));
    }
    if (desc->group_size != 0) {
      add(weight, LQT__VK_W_GROUP_SHIFT, (uint32_t)__builtin_ctz(desc->group_size));
      add(weight, LQT__VK_W_SCALES, desc->group_scales != NULL);
      add(weight, LQT__VK_W_ZEROS, desc->zero_points != NULL);
    }
  }
  if (desc->delta.kind != LQT_DELTA_NONE) {
    add(weight, LQT__VK_W_DELTA, (uint32_t)desc->delta.kind);
    add(weight, LQT__VK_W_DELTA_F16, desc->delta.dtype == LQT_DTYPE_F16);
    add(weight, LQT__VK_W_COLUMNS16, desc->delta.columns16 != NULL);
  }
  if (desc->mask.bits != NULL) add(weight, LQT__VK_W_MASK, 1);
  if (lqt__vk_tiling_choose(device, desc, &weight->tiling)) {
    add(weight, LQT__VK_W_LANE, weight->tiling.lane);
    add(weight, LQT__VK_W_GRANULE, weight->tiling.granule);
  }
  weight->wide_chunks = coded && weight->tiling.lane == 0 && desc->indices.bits == 4 &&
                        desc->codebook.vector_dim == 1 &&
                        table_values(device, &desc->indices, &desc->codebook) != 0 &&
                        desc->residual.vectors == NULL && desc->zero_points == NULL &&
                        desc->mask.bits == NULL &&
                        (desc->group_scales == NULL || desc->group_size >= 32) &&
                        (desc->delta.kind == LQT_DELTA_NONE || desc->delta.kind == LQT_DELTA_CSR);
}

/* "cb4", "cb2v4r4g64d2m", "f16": what the variant's name says of the weight. */
static void name_kind(lqt__vk_weight *weight, const lqt_weight_desc *desc) {
  char *at = weight->kind, *end = weight->kind + sizeof weight->kind;
#define APPEND(...) at += snprintf(at, (size_t)(end - at), __VA_ARGS__)
  if (desc->dtype == LQT_DTYPE_CODEBOOK) {
    APPEND("cb%u", desc->indices.bits);
    if (desc->codebook.vector_dim > 1) APPEND("v%u", desc->codebook.vector_dim);
    if (desc->codebook.banks > 1) APPEND("b");
    if (desc->residual.vectors != NULL) APPEND("r%u", desc->residual_indices.bits);
    if (desc->group_size != 0) APPEND("g%u", desc->group_size);
    if (desc->zero_points != NULL) APPEND("z");
  } else {
    APPEND("%s", lqt_dtype_name(desc->dtype));
  }
  if (desc->delta.kind != LQT_DELTA_NONE) APPEND("d%d", (int)desc->delta.kind);
  if (desc->mask.bits != NULL) APPEND("m");
#undef APPEND
}

/* What one part holds on the host. */
typedef struct source {
  lqt__vk_part part;
  const void *data;
  uint64_t bytes;
  uint64_t extra; /* bytes kept free after it, for a second piece */
} source;

static size_t list_sources(const lqt_weight_desc *desc, source *out) {
  size_t n = 0;
  const lqt_delta_view *delta = &desc->delta;
#define PART(which, pointer, part)                                                          \
  out[n++] = (source) {                                                                     \
    which, pointer,                                                                         \
        lqt__weight_part_count(desc, part) * (uint64_t)lqt__weight_part_size(desc, part), 0 \
  }
  if (desc->dtype == LQT_DTYPE_CODEBOOK) {
    PART(LQT__VK_PART_DATA, desc->indices.data, LQT_PART_INDICES);
    PART(LQT__VK_PART_BOOK, desc->codebook.vectors, LQT_PART_CODEBOOK);
    if (desc->residual.vectors != NULL) {
      PART(LQT__VK_PART_RESIDUAL_DATA, desc->residual_indices.data, LQT_PART_RESIDUAL_INDICES);
      PART(LQT__VK_PART_RESIDUAL_BOOK, desc->residual.vectors, LQT_PART_RESIDUAL);
    }
    if (desc->group_scales != NULL) {
      PART(LQT__VK_PART_SCALES, desc->group_scales, LQT_PART_GROUP_SCALES);
    }
    if (desc->zero_points != NULL) {
      PART(LQT__VK_PART_ZEROS, desc->zero_points, LQT_PART_ZERO_POINTS);
    }
  } else {
    PART(LQT__VK_PART_DATA, desc->data, LQT_PART_PLAIN);
  }
  if (delta->kind == LQT_DELTA_LOW_RANK) {
    uint64_t value = lqt_dtype_size(delta->dtype);
    out[n++] = (source){LQT__VK_PART_DELTA, delta->values, desc->rows * delta->rank * value,
                        desc->cols * delta->rank * value};
  } else if (delta->kind != LQT_DELTA_NONE) {
    PART(LQT__VK_PART_DELTA, delta->values, LQT_PART_DELTA_VALUES);
  }
  if (delta->kind == LQT_DELTA_CSR) {
    bool wide = delta->columns != NULL;
    out[n++] = (source){LQT__VK_PART_ROW_PTR, delta->row_ptr, (desc->rows + 1) * 4, 0};
    out[n++] = (source){LQT__VK_PART_COLUMNS,
                        wide ? (const void *)delta->columns : (const void *)delta->columns16,
                        delta->count * (wide ? 4u : 2u), 0};
  }
  if (desc->mask.bits != NULL) PART(LQT__VK_PART_MASK, desc->mask.bits, LQT_PART_MASK);
#undef PART
  return n;
}

static void fill_block(const lqt__vk_weight *weight, const lqt_weight_desc *desc,
                       lqt__vk_weight_block *out) {
  const lqt__vk_range *parts = weight->parts;
  bool coded = desc->dtype == LQT_DTYPE_CODEBOOK;
  const lqt_delta_view *delta = &desc->delta;
  *out = (lqt__vk_weight_block){
      .data = parts[LQT__VK_PART_DATA].address,
      .residual_data = parts[LQT__VK_PART_RESIDUAL_DATA].address,
      .book = parts[LQT__VK_PART_BOOK].address,
      .residual_book = parts[LQT__VK_PART_RESIDUAL_BOOK].address,
      .group_scales = parts[LQT__VK_PART_SCALES].address,
      .zero_points = parts[LQT__VK_PART_ZEROS].address,
      .delta = parts[LQT__VK_PART_DELTA].address,
      .row_ptr = parts[LQT__VK_PART_ROW_PTR].address,
      .columns = parts[LQT__VK_PART_COLUMNS].address,
      .mask = parts[LQT__VK_PART_MASK].address,
      .data_stride = coded ? desc->indices.row_stride : desc->row_stride,
      .mask_stride = desc->mask.row_stride,
      .scale = desc->scale,
      .rows = (uint32_t)desc->rows,
      .cols = (uint32_t)desc->cols,
      .rank = delta->rank,
      .delta_group = delta->group,
  };
  if (delta->kind == LQT_DELTA_LOW_RANK) {
    out->delta_b = out->delta + desc->rows * delta->rank * lqt_dtype_size(delta->dtype);
  }
  if (!coded) return;
  out->residual_stride = desc->residual_indices.row_stride;
  out->bank_stride = desc->codebook.bank_stride;
  out->residual_scale = desc->residual_scale;
  out->group_stride = (uint32_t)desc->group_row_stride;
  out->bank_rows = (uint32_t)desc->bank_rows;
  out->bank_cols = (uint32_t)desc->bank_cols;
  out->banks_across = (uint32_t)lqt__ceil_div(desc->cols, desc->bank_cols);
  if (weight->tiling.lane != 0) {
    out->group_stride = weight->tiling.groups;
    out->blocks = weight->tiling.blocks;
  }
  out->entries = desc->codebook.entries;
  out->residual_entries = desc->residual.entries;
}

static lqt_status upload_parts(lqt__vk_device *device, lqt__vk_weight *weight,
                               const lqt_weight_desc *desc, lqt_diag *diag) {
  source sources[LQT__VK_PART_COUNT];
  size_t count = list_sources(desc, sources);
  for (size_t i = 0; i < count; i++) {
    const source *s = &sources[i];
    lqt__vk_range *range = &weight->parts[s->part];
    bool tiled = weight->tiling.lane != 0 &&
                 (s->part == LQT__VK_PART_DATA || s->part == LQT__VK_PART_SCALES);
    if (tiled) {
      sources[i].bytes = s->part == LQT__VK_PART_DATA
                             ? lqt__vk_tiled_bytes(&weight->tiling)
                             : (uint64_t)weight->tiling.tiles * weight->tiling.groups * 32;
    }
    uint64_t bytes;
    weight->part_bytes[s->part] = s->bytes + s->extra;
    if (!lqt__add(s->bytes, s->extra + OVERREAD_BYTES, &bytes)) {
      return lqt__fail(diag, LQT_OVERFLOW, device->head.info.selector, "the weight is too large");
    }
    LQT__TRY(lqt__vk_allocate(device, bytes, range, diag));
    if (!tiled) LQT__TRY(lqt__vk_upload(device, range, 0, s->data, s->bytes, diag));
    if (s->extra != 0) {
      LQT__TRY(lqt__vk_upload(device, range, s->bytes, desc->delta.values_b, s->extra, diag));
    }
  }
  if (weight->tiling.lane != 0) {
    LQT__TRY(lqt__vk_tiled_upload(device, &weight->tiling, desc, &weight->parts[LQT__VK_PART_DATA],
                                  &weight->parts[LQT__VK_PART_SCALES], diag));
  }
  lqt__vk_weight_block block;
  fill_block(weight, desc, &block);
  lqt__vk_range *range = &weight->parts[LQT__VK_PART_BLOCK];
  LQT__TRY(lqt__vk_allocate(device, sizeof block, range, diag));
  return lqt__vk_upload(device, range, 0, &block, sizeof block, diag);
}

lqt_status lqt__vk_weight_create(lqt_device *head, const lqt_weight_desc *desc, lqt_weight **out,
                                 lqt_diag *diag) {
  lqt__vk_device *device = (lqt__vk_device *)head;
  if (desc->rows > INT32_MAX || desc->cols > INT32_MAX - 256 ||
      desc->group_row_stride > UINT32_MAX) {
    return lqt__fail(diag, LQT_UNSUPPORTED, head->info.selector,
                     "a weight of %llu x %llu: the Vulkan backend takes fewer than 2^31 rows and "
                     "columns",
                     (unsigned long long)desc->rows, (unsigned long long)desc->cols);
  }
  lqt__vk_weight *weight = lqt__alloc_zero(sizeof *weight);
  if (weight == NULL) {
    return lqt__fail_memory(diag, head->info.selector, sizeof *weight, "a weight");
  }
  weight->head.device = head;
  weight->rows = (uint32_t)desc->rows;
  weight->cols = (uint32_t)desc->cols;
  specialise(weight, device, desc);
  name_kind(weight, desc);
  lqt_status status = upload_parts(device, weight, desc, diag);
  if (status != LQT_OK) {
    lqt__vk_weight_destroy(&weight->head);
    return status;
  }
  __atomic_fetch_add(&device->generation, 1, __ATOMIC_RELAXED);
  *out = &weight->head;
  return LQT_OK;
}

void lqt__vk_weight_destroy(lqt_weight *head) {
  lqt__vk_weight *weight = (lqt__vk_weight *)head;
  lqt__vk_device *device = (lqt__vk_device *)head->device;
  for (int i = 0; i < LQT__VK_PART_COUNT; i++) lqt__vk_free(device, &weight->parts[i]);
  __atomic_fetch_add(&device->generation, 1, __ATOMIC_RELAXED);
  lqt__free(weight);
}
