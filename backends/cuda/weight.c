/* Uploaded weights: repacked for the fused kernels where they take the kind, otherwise in the order
 * of the file; patches in canonical terms. */
#include "kernel/weight.h"

#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "internal.h"

static lqt__cu_device *owner(const lqt__cu_weight *weight) {
  return (lqt__cu_device *)weight->base.device;
}

/* Bits of a weight in the packed order: 2, 3, 4 or 8; 0 when no fused kernel reads such a stream.
 */
static uint32_t packed_bits(const lqt_index_view *indices, const lqt_codebook_view *book) {
  if (book->dtype != LQT_DTYPE_F16 || book->banks != 1) return 0;
  if (book->vector_dim == 1) {
    return indices->bits == 2 || indices->bits == 3 || indices->bits == 4 || indices->bits == 8
               ? indices->bits
               : 0;
  }
  if (book->vector_dim == 2 && (indices->bits == 4 || indices->bits == 8)) return indices->bits / 2;
  return 0;
}

/* The fused kernels take it: packed streams, group scales without zero points, and no other parts
 * than a sparse delta, which a pass of its own adds. */
static bool takes_fused(const lqt_weight_desc *desc) {
  if (desc->dtype != LQT_DTYPE_CODEBOOK || packed_bits(&desc->indices, &desc->codebook) == 0) {
    return false;
  }
  if (desc->residual.vectors != NULL &&
      packed_bits(&desc->residual_indices, &desc->residual) == 0) {
    return false;
  }
  if (desc->zero_points != NULL || desc->mask.bits != NULL) return false;
  return desc->delta.kind == LQT_DELTA_NONE || desc->delta.kind == LQT_DELTA_CSR;
}

static lqt_status block(lqt__cu_weight *weight, uint64_t bytes, uint64_t *out, lqt_diag *diag) {
  CUdeviceptr data;
  LQT__TRY(lqt__cu_memory(owner(weight), bytes, "a weight", &data, diag));
  weight->block_bytes[weight->block_count] = bytes;
  weight->blocks[weight->block_count++] = data;
  *out = data;
  /* Also bytes that nothing fills have a value: see lqt__cu_weight_digest. */
  return lqt__cu_clear(owner(weight), data, bytes, diag);
}

/* A block with a copy of `bytes` host bytes and `pad` zero bytes behind them. */
static lqt_status upload(lqt__cu_weight *weight, const void *from, uint64_t bytes, uint64_t pad,
                         uint64_t *out, lqt_diag *diag) {
  lqt__cu_device *device = owner(weight);
  LQT__TRY(block(weight, bytes + pad, out, diag));
  if (pad != 0) {
    LQT__TRY(lqt__cu_clear(device, *out + bytes, pad, diag));
  }
  return lqt__cu_copy_in(device, *out, from, bytes, diag);
}

static lqt_status wait(lqt__cu_device *device, lqt_diag *diag) {
  return lqt__cu_check(device, device->driver->StreamSynchronize(device->stream), "repack a weight",
                       diag);
}

static lqt_status pack(lqt__cu_device *device, const char *kernel, uint64_t items,
                       const lqt__cu_pack *args, lqt_diag *diag) {
  uint64_t blocks = lqt__ceil_div(items, 256);
  lqt__cu_launch launch = {.module = LQT__CU_PACK,
                           .name = kernel,
                           .grid = {blocks < 65535 ? (uint32_t)blocks : 65535, 1, 1},
                           .threads = 256,
                           .args = args};
  if (items == 0) return LQT_OK;
  LQT__TRY(lqt__cu_run(device, &launch, diag));
  return wait(device, diag);
}

lqt__cu_pack lqt__cu_pack_args(const lqt__cu_weight *weight, const lqt__cu_stream *stream) {
  const lqt__cu_weight_view *view = &weight->view;
  return (lqt__cu_pack){.rows = view->rows,
                        .cols = view->cols,
                        .bits = stream->bits,
                        .vector_dim = stream->vector_dim,
                        .weight_bits = stream->weight_bits,
                        .tiles = view->tiles,
                        .blocks = view->blocks,
                        .entries = stream->entries,
                        .group_size = view->group_size,
                        .group_shift = view->group_shift,
                        .row_stride = stream->row_stride};
}

static lqt_status expand_table(lqt__cu_weight *weight, lqt__cu_stream *stream, lqt_diag *diag) {
  lqt__cu_pack args = lqt__cu_pack_args(weight, stream);
  args.from = stream->book;
  args.to = stream->table;
  return pack(owner(weight), "lqt_pack_table", 256, &args, diag);
}

/* The stream of indices and its codebook. Codebooks are followed by zeros, so that no index, not
 * even one that a patch made of two halves, reads past them. */
static lqt_status upload_stream(lqt__cu_weight *weight, const lqt_index_view *indices,
                                const lqt_codebook_view *book, uint64_t book_values,
                                lqt__cu_stream *stream, lqt_diag *diag) {
  static const uint16_t ones[8] = {0x3c00, 0x3c00, 0x3c00, 0x3c00, 0x3c00, 0x3c00, 0x3c00, 0x3c00};
  lqt__cu_device *device = owner(weight);
  const lqt__cu_weight_view *view = &weight->view;
  *stream = (lqt__cu_stream){.row_stride = indices->row_stride,
                             .packed = weight->fused,
                             .bits = indices->bits,
                             .vector_dim = book->vector_dim,
                             .entries = book->entries,
                             .book_f32 = book->dtype == LQT_DTYPE_F32};
  uint64_t size = lqt_dtype_size(book->dtype);
  uint64_t pad = (UINT64_C(1) << indices->bits) * book->vector_dim * size;
  LQT__TRY(upload(weight, book->vectors, book_values * size, pad, &stream->book, diag));
  uint64_t bytes = view->rows * indices->row_stride;
  if (!weight->fused) {
    return upload(weight, indices->data, bytes, 16, &stream->data, diag);
  }
  stream->weight_bits = packed_bits(indices, book);
  uint64_t packed = (uint64_t)view->tiles * view->blocks * stream->weight_bits * 1024;
  LQT__TRY(block(weight, packed, &stream->data, diag));
  LQT__TRY(block(weight, LQT__CU_TABLE_BYTES + sizeof ones, &stream->table, diag));
  LQT__TRY(lqt__cu_copy_in(device, stream->table + LQT__CU_TABLE_BYTES, ones, sizeof ones, diag));
  CUdeviceptr staging;
  LQT__TRY(lqt__cu_memory(device, bytes + 16, "the upload of a weight", &staging, diag));
  lqt__cu_pack args = lqt__cu_pack_args(weight, stream);
  args.from = staging;
  args.to = stream->data;
  lqt_status status = lqt__cu_copy_in(device, staging, indices->data, bytes, diag);
  if (status == LQT_OK) status = pack(device, "lqt_pack_indices", packed / 4, &args, diag);
  (void)device->driver->MemFree(staging);
  if (status != LQT_OK) return status;
  return expand_table(weight, stream, diag);
}

/* Scatters canonical scales that stand in device memory. */
static lqt_status scatter_scales(lqt__cu_weight *weight, CUdeviceptr from, uint64_t first,
                                 uint64_t count, lqt_diag *diag) {
  const lqt__cu_weight_view *view = &weight->view;
  lqt__cu_pack args = lqt__cu_pack_args(weight, &view->main);
  args.from = from;
  args.to = view->scales;
  args.row_stride = view->group_row_stride;
  args.groups = (uint32_t)lqt__ceil_div(view->cols, view->group_size);
  args.first = first;
  args.count = count;
  return pack(owner(weight), "lqt_pack_scales", count, &args, diag);
}

static lqt_status upload_scales(lqt__cu_weight *weight, const lqt_weight_desc *desc,
                                lqt_diag *diag) {
  lqt__cu_device *device = owner(weight);
  lqt__cu_weight_view *view = &weight->view;
  view->group_size = desc->group_size;
  view->group_row_stride = desc->group_row_stride;
  uint64_t count = lqt__weight_part_count(desc, LQT_PART_GROUP_SCALES);
  if (desc->zero_points != NULL) {
    LQT__TRY(upload(weight, desc->zero_points, count * 2, 0, &view->zero_points, diag));
  }
  if (desc->group_scales == NULL) return LQT_OK;
  if (!weight->fused) return upload(weight, desc->group_scales, count * 2, 0, &view->scales, diag);
  view->group_shift = desc->group_size == 128 ? 1 : desc->group_size == 256 ? 2 : 0;
  uint64_t per_row = desc->group_size < 64 ? 512 / desc->group_size : 8u >> view->group_shift;
  uint64_t bytes = (uint64_t)view->tiles * view->blocks * 16 * per_row * 2;
  LQT__TRY(block(weight, bytes, &view->scales, diag));
  LQT__TRY(lqt__cu_clear(device, view->scales, bytes, diag));
  CUdeviceptr staging;
  LQT__TRY(lqt__cu_memory(device, count * 2, "the upload of a weight", &staging, diag));
  lqt_status status = lqt__cu_copy_in(device, staging, desc->group_scales, count * 2, diag);
  if (status == LQT_OK) status = scatter_scales(weight, staging, 0, count, diag);
  (void)device->driver->MemFree(staging);
  return status;
}

static lqt_status upload_delta(lqt__cu_weight *weight, const lqt_weight_desc *desc,
                               lqt_diag *diag) {
  const lqt_delta_view *delta = &desc->delta;
  lqt__cu_weight_view *view = &weight->view;
  view->delta_kind = (uint32_t)delta->kind;
  view->delta_f32 = delta->dtype == LQT_DTYPE_F32;
  view->delta_rank = delta->rank;
  view->delta_group = delta->group;
  uint64_t size = lqt_dtype_size(delta->dtype);
  uint64_t count = lqt__weight_part_count(desc, LQT_PART_DELTA_VALUES);
  if (delta->kind == LQT_DELTA_LOW_RANK) {
    count = desc->rows * delta->rank;
    LQT__TRY(upload(weight, delta->values_b, delta->rank * desc->cols * size, 0,
                    &view->delta_values_b, diag));
  }
  LQT__TRY(upload(weight, delta->values, count * size, 0, &view->delta_values, diag));
  if (delta->kind != LQT_DELTA_CSR) return LQT_OK;
  LQT__TRY(upload(weight, delta->row_ptr, (desc->rows + 1) * 4, 0, &view->delta_row_ptr, diag));
  view->delta_columns16 = delta->columns == NULL;
  return upload(weight, delta->columns != NULL ? (const void *)delta->columns : delta->columns16,
                delta->count * (delta->columns != NULL ? 4 : 2), 0, &view->delta_columns, diag);
}

static lqt_status upload_all(lqt__cu_weight *weight, const lqt_weight_desc *desc, lqt_diag *diag) {
  lqt__cu_weight_view *view = &weight->view;
  view->rows = (uint32_t)desc->rows;
  view->cols = (uint32_t)desc->cols;
  view->scale = desc->scale;
  if (desc->dtype == LQT_DTYPE_CODEBOOK) {
    weight->fused = takes_fused(desc);
    view->kind = weight->fused ? LQT__CU_PACKED : LQT__CU_CANON;
    view->tiles = (uint32_t)lqt__ceil_div(desc->rows, LQT__CU_TILE_ROWS);
    view->blocks = (uint32_t)lqt__ceil_div(desc->cols, LQT__CU_BLOCK_COLS);
    weight->last_units =
        (uint32_t)lqt__ceil_div(desc->cols, LQT__CU_UNIT_COLS) - (view->blocks - 1) * 8;
    view->bank_rows = (uint32_t)desc->bank_rows;
    view->bank_cols = (uint32_t)desc->bank_cols;
    view->banks_across = (uint32_t)lqt__ceil_div(desc->cols, desc->bank_cols);
    view->bank_stride = desc->codebook.bank_stride;
    LQT__TRY(upload_stream(weight, &desc->indices, &desc->codebook,
                           lqt__weight_part_count(desc, LQT_PART_CODEBOOK), &view->main, diag));
    if (desc->residual.vectors != NULL) {
      view->has_residual = 1;
      view->residual_scale = desc->residual_scale;
      LQT__TRY(upload_stream(weight, &desc->residual_indices, &desc->residual,
                             lqt__weight_part_count(desc, LQT_PART_RESIDUAL), &view->residual,
                             diag));
    }
    if (desc->group_size != 0) LQT__TRY(upload_scales(weight, desc, diag));
  } else {
    view->kind = desc->dtype == LQT_DTYPE_F32   ? LQT__CU_PLAIN_F32
                 : desc->dtype == LQT_DTYPE_F16 ? LQT__CU_PLAIN_F16
                                                : LQT__CU_PLAIN_BF16;
    view->main.row_stride = desc->row_stride;
    LQT__TRY(upload(weight, desc->data,
                    lqt__weight_part_count(desc, LQT_PART_PLAIN) * lqt_dtype_size(desc->dtype), 0,
                    &view->main.data, diag));
  }
  if (desc->delta.kind != LQT_DELTA_NONE) LQT__TRY(upload_delta(weight, desc, diag));
  if (desc->mask.bits != NULL) {
    view->mask_stride = desc->mask.row_stride;
    LQT__TRY(
        upload(weight, desc->mask.bits, desc->rows * desc->mask.row_stride, 0, &view->mask, diag));
  }
  return LQT_OK;
}

void lqt__cu_weight_destroy(lqt_weight *base) {
  lqt__cu_weight *weight = (lqt__cu_weight *)base;
  lqt__cu_device *device = owner(weight);
  if (lqt__cu_push(device, NULL) == LQT_OK) {
    for (size_t i = 0; i < weight->block_count; i++) {
      (void)device->driver->MemFree(weight->blocks[i]);
    }
    lqt__cu_pop(device);
  }
  lqt__free(weight);
}

lqt_status lqt__cu_weight_create(lqt_device *base, const lqt_weight_desc *desc, lqt_weight **out,
                                 lqt_diag *diag) {
  lqt__cu_device *device = (lqt__cu_device *)base;
  if (desc->rows > INT32_MAX || desc->cols > INT32_MAX) {
    return lqt__fail(diag, LQT_UNSUPPORTED, base->info.selector,
                     "a weight of %llu x %llu is larger than the kernels count",
                     (unsigned long long)desc->rows, (unsigned long long)desc->cols);
  }
  lqt__cu_weight *weight = lqt__alloc_zero(sizeof *weight);
  if (weight == NULL) return lqt__fail_memory(diag, "cuda", sizeof *weight, "a weight");
  weight->base.device = base;
  pthread_mutex_lock(&device->mutex);
  lqt_status status = lqt__cu_push(device, diag);
  if (status == LQT_OK) {
    status = upload_all(weight, desc, diag);
    lqt__cu_pop(device);
  }
  pthread_mutex_unlock(&device->mutex);
  if (status != LQT_OK) {
    lqt__cu_weight_destroy(&weight->base);
    return status;
  }
  *out = &weight->base;
  return LQT_OK;
}

lqt_status lqt__cu_indices_check(const lqt__cu_stream *stream, uint64_t cols,
                                 const lqt_weight_patch *patch, lqt_diag *diag) {
  if (stream->entries >= 1u << stream->bits) return LQT_OK;
  uint64_t per_row = lqt__ceil_div(cols, stream->vector_dim), stride = stream->row_stride;
  uint64_t end = patch->first + patch->count;
  for (uint64_t row = patch->first / stride; row * stride < end; row++) {
    uint64_t start = row * stride, from = 0, to = per_row;
    if (patch->first > start) from = lqt__ceil_div((patch->first - start) * 8, stream->bits);
    if ((end - start) * 8 / stream->bits < to) to = (end - start) * 8 / stream->bits;
    for (uint64_t i = from; i < to; i++) {
      const uint8_t *bytes = patch->data;
      uint64_t bit = (start * 8 + i * stream->bits) - patch->first * 8;
      uint32_t value = 0;
      for (uint32_t b = 0; b < stream->bits; b++, bit++) {
        value |= (uint32_t)(bytes[bit >> 3] >> (bit & 7) & 1) << b;
      }
      if (value >= stream->entries) {
        return lqt__fail(diag, LQT_OUT_OF_RANGE, "patch",
                         "row %llu, index %llu becomes %u, but the codebook has %u entries",
                         (unsigned long long)row, (unsigned long long)i, value, stream->entries);
      }
    }
  }
  return LQT_OK;
}

/* Parts that the packed form keeps elsewhere go through staging memory and a kernel. */
static lqt_status patch_packed(lqt__cu_weight *weight, const lqt_weight_patch *patch,
                               lqt_diag *diag) {
  lqt__cu_device *device = owner(weight);
  lqt__cu_weight_view *view = &weight->view;
  uint64_t bytes = patch->count * lqt__weight_part_size(&weight->base.shape, patch->part);
  CUdeviceptr staging;
  LQT__TRY(lqt__cu_memory(device, bytes, "a patch", &staging, diag));
  lqt_status status = lqt__cu_copy_in(device, staging, patch->data, bytes, diag);
  if (status == LQT_OK && patch->part == LQT_PART_GROUP_SCALES) {
    status = scatter_scales(weight, staging, patch->first, patch->count, diag);
  } else if (status == LQT_OK) {
    const lqt__cu_stream *stream = patch->part == LQT_PART_INDICES ? &view->main : &view->residual;
    lqt__cu_pack args = lqt__cu_pack_args(weight, stream);
    args.from = staging;
    args.to = stream->data;
    args.first = patch->first;
    args.count = patch->count;
    status = pack(device, "lqt_patch_indices", patch->count, &args, diag);
  }
  (void)device->driver->MemFree(staging);
  return status;
}

static lqt_status patch_delta(lqt__cu_weight *weight, const lqt_weight_patch *patch,
                              lqt_diag *diag) {
  lqt__cu_device *device = owner(weight);
  const lqt__cu_weight_view *view = &weight->view;
  uint64_t size = view->delta_f32 ? 4 : 2, first = patch->first, count = patch->count;
  const uint8_t *from = patch->data;
  if (view->delta_kind == LQT_DELTA_LOW_RANK) { /* A, then B */
    uint64_t a = (uint64_t)view->rows * view->delta_rank;
    uint64_t in_a = first < a ? (count < a - first ? count : a - first) : 0;
    LQT__TRY(lqt__cu_copy_in(device, view->delta_values + first * size, from, in_a * size, diag));
    if (in_a == count) return LQT_OK;
    uint64_t b = first + in_a - a;
    return lqt__cu_copy_in(device, view->delta_values_b + b * size, from + in_a * size,
                           (count - in_a) * size, diag);
  }
  return lqt__cu_copy_in(device, view->delta_values + first * size, from, count * size, diag);
}

static lqt_status patch_one(lqt__cu_weight *weight, const lqt_weight_patch *patch, lqt_diag *diag) {
  lqt__cu_device *device = owner(weight);
  lqt__cu_weight_view *view = &weight->view;
  uint64_t size = lqt__weight_part_size(&weight->base.shape, patch->part);
  uint64_t at = patch->first * size, bytes = patch->count * size;
  if (patch->count == 0) return LQT_OK;
  switch (patch->part) {
    case LQT_PART_CODEBOOK:
    case LQT_PART_RESIDUAL: {
      lqt__cu_stream *stream = patch->part == LQT_PART_CODEBOOK ? &view->main : &view->residual;
      LQT__TRY(lqt__cu_copy_in(device, stream->book + at, patch->data, bytes, diag));
      return weight->fused ? expand_table(weight, stream, diag) : LQT_OK;
    }
    case LQT_PART_GROUP_SCALES:
      if (weight->fused) return patch_packed(weight, patch, diag);
      return lqt__cu_copy_in(device, view->scales + at, patch->data, bytes, diag);
    case LQT_PART_ZERO_POINTS:
      return lqt__cu_copy_in(device, view->zero_points + at, patch->data, bytes, diag);
    case LQT_PART_DELTA_VALUES:
      return patch_delta(weight, patch, diag);
    case LQT_PART_SCALE:
      memcpy(&view->scale, patch->data, 4);
      device->epoch++;
      return LQT_OK;
    case LQT_PART_RESIDUAL_SCALE:
      memcpy(&view->residual_scale, patch->data, 4);
      device->epoch++;
      return LQT_OK;
    case LQT_PART_INDICES:
      if (weight->fused) return patch_packed(weight, patch, diag);
      return lqt__cu_copy_in(device, view->main.data + at, patch->data, bytes, diag);
    case LQT_PART_RESIDUAL_INDICES:
      if (weight->fused) return patch_packed(weight, patch, diag);
      return lqt__cu_copy_in(device, view->residual.data + at, patch->data, bytes, diag);
    case LQT_PART_MASK:
      return lqt__cu_copy_in(device, view->mask + at, patch->data, bytes, diag);
    case LQT_PART_PLAIN:
      return lqt__cu_copy_in(device, view->main.data + at, patch->data, bytes, diag);
    default:
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, "patch", "unknown part %d", (int)patch->part);
  }
}

lqt_status lqt__cu_weight_patch(lqt_weight *base, const lqt_weight_patch *patches, size_t count,
                                lqt_diag *diag) {
  lqt__cu_weight *weight = (lqt__cu_weight *)base;
  lqt__cu_device *device = owner(weight);
  for (size_t i = 0; i < count; i++) {
    if (patches[i].part == LQT_PART_INDICES) {
      LQT__TRY(lqt__cu_indices_check(&weight->view.main, weight->view.cols, &patches[i], diag));
    } else if (patches[i].part == LQT_PART_RESIDUAL_INDICES) {
      LQT__TRY(lqt__cu_indices_check(&weight->view.residual, weight->view.cols, &patches[i], diag));
    }
  }
  pthread_mutex_lock(&device->mutex);
  lqt_status status = lqt__cu_push(device, diag);
  if (status == LQT_OK) {
    for (size_t i = 0; i < count && status == LQT_OK; i++) {
      status = patch_one(weight, &patches[i], diag);
    }
    lqt__cu_pop(device);
  }
  pthread_mutex_unlock(&device->mutex);
  return status;
}
