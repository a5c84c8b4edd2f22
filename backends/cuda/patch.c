/* Staged patches. The staged memory of a patch holds, one behind the other: ranges that lie in the
 * live form as they do in the canonical one; whole row tiles of packed indices and scales, repacked
 * by the device while steps go on; the canonical bytes of what is left of a packed part, exchanged
 * bit by bit; and the lists of all these for the kernels of the flip. */
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "kernel/weight.h"
#include "staging.h"

typedef struct lqt__cu_patch {
  lqt_patch base;
  CUdeviceptr memory;
  CUevent ready;
  lqt__cu_swap blocks, warps, packed, tables; /* arguments of the flip's kernels */
  struct scalar {
    float *live;
    float staged;
  } * scalars; /* factors, which kernels take by value */
  size_t scalar_count;
} lqt__cu_patch;

/* A piece of a patch: where it lies in the live form and in the staged memory. */
typedef enum piece_kind { LINEAR, TILES, EXCHANGED } piece_kind;
typedef struct piece {
  piece_kind kind;
  bool scales;              /* packed pieces: of group scales, else of indices */
  uint64_t live, bytes;     /* in the live form; EXCHANGED: bytes staged */
  uint64_t staged;          /* offset */
  const uint8_t *from;      /* host bytes; TILES: of the first row */
  lqt__cu_pack pack;        /* packed pieces: arguments, `first` and `count` set */
  uint64_t row_bytes, used; /* TILES: between rows and in a row of the host's form */
  uint32_t rows;            /* TILES */
} piece;

/* What is being put together. */
typedef struct draft {
  lqt__cu_device *device;
  lqt__cu_patch *patch;
  piece *pieces;
  size_t piece_count, piece_capacity;
  lqt__cu_swap_range *blocks, *warps;
  size_t block_count, warp_count, block_capacity, warp_capacity;
  lqt__cu_swap_job *jobs, *tables;
  size_t job_count, job_capacity, table_count;
  uint64_t bytes;
  lqt_diag *diag;
} draft;

static lqt_status no_memory(draft *d, uint64_t bytes) {
  return lqt__fail_memory(d->diag, "cuda", bytes, "a patch");
}

/* Makes room for one more element. */
static lqt_status reserve(draft *d, void **data, size_t *capacity, size_t count, size_t size) {
  if (count < *capacity) return LQT_OK;
  size_t more = *capacity * 2 + 16;
  void *grown = lqt__realloc(*data, more * size);
  if (grown == NULL) return no_memory(d, more * size);
  *data = grown;
  *capacity = more;
  return LQT_OK;
}

/* Adds a piece behind the others; ranges that are exchanged by lines of 16 bytes get the same place
 * in a line as their live bytes. */
static lqt_status add_piece(draft *d, piece p) {
  if (p.bytes == 0) return LQT_OK;
  void *data = d->pieces;
  LQT__TRY(reserve(d, &data, &d->piece_capacity, d->piece_count, sizeof p));
  d->pieces = data;
  p.staged = d->bytes + ((p.live - d->bytes) & 15);
  if (p.kind == EXCHANGED) p.staged = (d->bytes + 15) & ~UINT64_C(15);
  d->pieces[d->piece_count++] = p;
  d->bytes = p.staged + p.bytes;
  return LQT_OK;
}

static lqt_status add_linear(draft *d, uint64_t live, const void *from, uint64_t bytes) {
  return add_piece(d, (piece){.kind = LINEAR, .live = live, .from = from, .bytes = bytes});
}

/* ---- Packed parts: whole tiles of 16 rows, and what is left before and behind them ---- */

typedef struct packed_part {
  const lqt_weight_patch *patch;
  bool scales;
  lqt__cu_pack pack;
  uint64_t live;       /* the part's packed form */
  uint64_t tile_bytes; /* of a row tile there */
  uint64_t stride;     /* elements between rows, canonical */
  uint64_t used;       /* elements of a row that mean something */
  uint64_t size;       /* of an element */
} packed_part;

static lqt_status add_exchanged(draft *d, const packed_part *part, uint64_t first, uint64_t end) {
  if (first >= end) return LQT_OK;
  piece p = {.kind = EXCHANGED,
             .scales = part->scales,
             .live = part->live,
             .bytes = (end - first) * part->size,
             .from = (const uint8_t *)part->patch->data + (first - part->patch->first) * part->size,
             .pack = part->pack};
  p.pack.first = first;
  p.pack.count = end - first;
  return add_piece(d, p);
}

static lqt_status add_packed(draft *d, const packed_part *part) {
  const uint64_t tile = LQT__CU_TILE_ROWS, first = part->patch->first,
                 end = first + part->patch->count, rows = part->pack.rows;
  /* Rows whose meaningful elements are all inside the patch. */
  uint64_t row0 = lqt__ceil_div(first, part->stride);
  uint64_t row1 = (end + part->stride - part->used) / part->stride;
  uint64_t tile0 = lqt__ceil_div(row0, tile), tile1 = row1 >= rows ? part->pack.tiles : row1 / tile;
  if (tile1 <= tile0 || tile * part->stride * part->size > LQT__CU_HALF_BYTES) {
    return add_exchanged(d, part, first, end);
  }
  uint64_t begin_row = tile0 * tile, end_row = tile1 * tile < rows ? tile1 * tile : rows;
  LQT__TRY(add_exchanged(d, part, first, begin_row * part->stride));
  piece p = {
      .kind = TILES,
      .scales = part->scales,
      .live = part->live + tile0 * part->tile_bytes,
      .bytes = (tile1 - tile0) * part->tile_bytes,
      .from = (const uint8_t *)part->patch->data + (begin_row * part->stride - first) * part->size,
      .pack = part->pack,
      .row_bytes = part->stride * part->size,
      .used = part->used * part->size,
      .rows = (uint32_t)(end_row - begin_row)};
  LQT__TRY(add_piece(d, p));
  return add_exchanged(d, part, end_row * part->stride, end);
}

static lqt_status add_packed_indices(draft *d, lqt__cu_weight *weight,
                                     const lqt_weight_patch *patch) {
  const lqt__cu_stream *stream =
      patch->part == LQT_PART_INDICES ? &weight->view.main : &weight->view.residual;
  uint64_t per_row = lqt__ceil_div(weight->view.cols, stream->vector_dim);
  packed_part part = {.patch = patch,
                      .pack = lqt__cu_pack_args(weight, stream),
                      .live = stream->data,
                      .tile_bytes = (uint64_t)weight->view.blocks * stream->weight_bits * 1024,
                      .stride = stream->row_stride,
                      .used = lqt__ceil_div(per_row * stream->bits, 8),
                      .size = 1};
  part.pack.to = stream->data;
  return add_packed(d, &part);
}

static lqt_status add_packed_scales(draft *d, lqt__cu_weight *weight,
                                    const lqt_weight_patch *patch) {
  const lqt__cu_weight_view *view = &weight->view;
  uint64_t per_row = view->group_size < 64 ? 512 / view->group_size : 8u >> view->group_shift;
  packed_part part = {.patch = patch,
                      .scales = true,
                      .pack = lqt__cu_pack_args(weight, &view->main),
                      .live = view->scales,
                      .tile_bytes = (uint64_t)view->blocks * 16 * per_row * 2,
                      .stride = view->group_row_stride,
                      .used = lqt__ceil_div(view->cols, view->group_size),
                      .size = 2};
  part.pack.to = view->scales;
  part.pack.row_stride = view->group_row_stride;
  part.pack.groups = (uint32_t)part.used;
  part.pack.units = (uint32_t)per_row;
  return add_packed(d, &part);
}

/* ---- From changes to pieces ---- */

static lqt_status add_table(draft *d, const lqt__cu_weight *weight, const lqt__cu_stream *stream) {
  lqt__cu_pack pack = lqt__cu_pack_args(weight, stream);
  pack.from = stream->book;
  pack.to = stream->table;
  if (d->table_count != 0 && d->tables[d->table_count - 1].pack.to == pack.to) return LQT_OK;
  d->tables[d->table_count++] = (lqt__cu_swap_job){.kind = LQT__CU_SWAP_TABLE, .pack = pack};
  return LQT_OK;
}

static void add_scalar(draft *d, float *live, const void *from) {
  struct scalar *scalar = &d->patch->scalars[d->patch->scalar_count++];
  scalar->live = live;
  memcpy(&scalar->staged, from, sizeof scalar->staged);
}

static lqt_status add_delta(draft *d, const lqt__cu_weight_view *view,
                            const lqt_weight_patch *patch) {
  const uint64_t size = view->delta_f32 ? 4 : 2, first = patch->first, count = patch->count;
  const uint8_t *from = patch->data;
  if (view->delta_kind != LQT_DELTA_LOW_RANK) {
    return add_linear(d, view->delta_values + first * size, from, count * size);
  }
  uint64_t a = (uint64_t)view->rows * view->delta_rank; /* A, then B */
  uint64_t in_a = first < a ? (count < a - first ? count : a - first) : 0;
  LQT__TRY(add_linear(d, view->delta_values + first * size, from, in_a * size));
  return add_linear(d, view->delta_values_b + (first + in_a - a) * size, from + in_a * size,
                    (count - in_a) * size);
}

static lqt_status add_change(draft *d, const lqt_patch_change *change) {
  lqt__cu_weight *weight = (lqt__cu_weight *)change->weight;
  const lqt_weight_patch *patch = &change->patch;
  lqt__cu_weight_view *view = &weight->view;
  uint64_t size = lqt__weight_part_size(&weight->base.shape, patch->part);
  uint64_t at = patch->first * size, bytes = patch->count * size;
  switch (patch->part) {
    case LQT_PART_CODEBOOK:
    case LQT_PART_RESIDUAL: {
      lqt__cu_stream *stream = patch->part == LQT_PART_CODEBOOK ? &view->main : &view->residual;
      if (weight->fused) LQT__TRY(add_table(d, weight, stream));
      return add_linear(d, stream->book + at, patch->data, bytes);
    }
    case LQT_PART_INDICES:
    case LQT_PART_RESIDUAL_INDICES: {
      lqt__cu_stream *stream = patch->part == LQT_PART_INDICES ? &view->main : &view->residual;
      LQT__TRY(lqt__cu_indices_check(stream, view->cols, patch, d->diag));
      if (weight->fused) return add_packed_indices(d, weight, patch);
      return add_linear(d, stream->data + at, patch->data, bytes);
    }
    case LQT_PART_GROUP_SCALES:
      if (weight->fused) return add_packed_scales(d, weight, patch);
      return add_linear(d, view->scales + at, patch->data, bytes);
    case LQT_PART_ZERO_POINTS:
      return add_linear(d, view->zero_points + at, patch->data, bytes);
    case LQT_PART_DELTA_VALUES:
      return add_delta(d, view, patch);
    case LQT_PART_SCALE:
      add_scalar(d, &view->scale, patch->data);
      return LQT_OK;
    case LQT_PART_RESIDUAL_SCALE:
      add_scalar(d, &view->residual_scale, patch->data);
      return LQT_OK;
    case LQT_PART_MASK:
      return add_linear(d, view->mask + at, patch->data, bytes);
    case LQT_PART_PLAIN:
      return add_linear(d, view->main.data + at, patch->data, bytes);
    default:
      return lqt__fail(d->diag, LQT_INVALID_ARGUMENT, "patch", "unknown part %d", (int)patch->part);
  }
}

/* ---- The lists of the flip ---- */

static lqt_status add_range(draft *d, uint64_t live, uint64_t staged, uint64_t bytes) {
  bool small = bytes <= LQT__CU_SWAP_WARP;
  for (uint64_t done = 0; done < bytes;) {
    void *data = small ? d->warps : d->blocks;
    size_t *count = small ? &d->warp_count : &d->block_count;
    size_t *capacity = small ? &d->warp_capacity : &d->block_capacity;
    LQT__TRY(reserve(d, &data, capacity, *count, sizeof(lqt__cu_swap_range)));
    if (small) {
      d->warps = data;
    } else {
      d->blocks = data;
    }
    uint64_t take = bytes - done < LQT__CU_SWAP_BLOCK ? bytes - done : LQT__CU_SWAP_BLOCK;
    ((lqt__cu_swap_range *)data)[(*count)++] =
        (lqt__cu_swap_range){live + done, staged + done, take};
    done += take;
  }
  return LQT_OK;
}

static lqt_status add_jobs(draft *d, const piece *p, uint64_t staged) {
  const uint64_t each = 4096, size = p->scales ? 2 : 1; /* elements a block exchanges */
  for (uint64_t done = 0; done < p->pack.count; done += each) {
    void *data = d->jobs;
    LQT__TRY(reserve(d, &data, &d->job_capacity, d->job_count, sizeof *d->jobs));
    d->jobs = data;
    lqt__cu_swap_job job = {.kind = p->scales ? LQT__CU_SWAP_SCALES : LQT__CU_SWAP_INDICES,
                            .pack = p->pack};
    job.pack.from = staged + done * size;
    job.pack.first = p->pack.first + done;
    job.pack.count = p->pack.count - done < each ? p->pack.count - done : each;
    d->jobs[d->job_count++] = job;
  }
  return LQT_OK;
}

/* The staged memory's place must be known. */
static lqt_status list_pieces(draft *d) {
  for (size_t i = 0; i < d->piece_count; i++) {
    const piece *p = &d->pieces[i];
    uint64_t staged = d->patch->memory + p->staged;
    if (p->kind == EXCHANGED) {
      LQT__TRY(add_jobs(d, p, staged));
    } else {
      LQT__TRY(add_range(d, p->live, staged, p->bytes));
    }
  }
  return LQT_OK;
}

/* ---- Sending ---- */

static lqt_status launch_pack(draft *d, CUfunction function, const lqt__cu_pack *args,
                              uint32_t across, uint32_t down) {
  lqt__cu_device *device = d->device;
  void *params[] = {(void *)args};
  return lqt__cu_check(device,
                       device->driver->LaunchKernel(function, across, down, 1, 256, 1, 1, 0,
                                                    device->patches->pack, params, NULL),
                       "repack a patch", d->diag);
}

/* Few blocks: the steps that run meanwhile keep most of the device. */
static lqt_status pack_rows(draft *d, const piece *p, const lqt__cu_pack *args,
                            uint64_t tile_bytes) {
  const lqt__cu_staging *staging = d->device->patches;
  if (p->scales) {
    uint32_t pairs = args->tiles * 8;
    return launch_pack(d, staging->pack_scales, args, pairs < 64 ? pairs : 64, 1);
  }
  if (args->weight_bits == 4) {
    uint32_t across = args->blocks < 4 ? args->blocks : 4;
    uint32_t down = args->tiles < 16 ? args->tiles : 16;
    return launch_pack(d, staging->pack_indices4, args, across, down);
  }
  uint64_t blocks = lqt__ceil_div(args->tiles * tile_bytes / 4, 256);
  return launch_pack(d, staging->pack_indices, args, blocks < 64 ? (uint32_t)blocks : 64, 1);
}

static lqt_status send_tiles(draft *d, const piece *p) {
  lqt__cu_device *device = d->device;
  const uint64_t tile = LQT__CU_TILE_ROWS, tile_bytes = p->bytes / lqt__ceil_div(p->rows, tile);
  const uint64_t to = d->patch->memory + p->staged;
  const uint64_t step = LQT__CU_HALF_BYTES / (tile * p->row_bytes) * tile;
  for (uint64_t row = 0; row < p->rows; row += step) {
    uint64_t rows = p->rows - row < step ? p->rows - row : step;
    lqt__cu_half *half = NULL;
    LQT__TRY(lqt__cu_staging_bounce(device, p->from + row * p->row_bytes,
                                    (rows - 1) * p->row_bytes + p->used, &half, d->diag));
    lqt__cu_pack args = p->pack;
    args.rows = (uint32_t)rows;
    args.tiles = (uint32_t)lqt__ceil_div(rows, tile);
    args.from = half->bounce;
    args.to = to + row / tile * tile_bytes;
    LQT__TRY(pack_rows(d, p, &args, tile_bytes));
    LQT__TRY(lqt__cu_staging_packed(device, half, d->diag));
  }
  return LQT_OK;
}

/* A list behind everything else; its place goes into the kernel's arguments. */
static lqt_status send_list(draft *d, uint64_t *offset, const void *list, size_t count, size_t size,
                            lqt__cu_swap *out) {
  *out = (lqt__cu_swap){.jobs = d->patch->memory + *offset, .count = count};
  LQT__TRY(lqt__cu_staging_put(d->device, out->jobs, list, count * size, d->diag));
  *offset += (count * size + 15) & ~UINT64_C(15);
  return LQT_OK;
}

/* Most bytes that the lists can take. */
static uint64_t list_bytes(const draft *d) {
  uint64_t bytes = (d->table_count + 1) * sizeof(lqt__cu_swap_job) + 64;
  for (size_t i = 0; i < d->piece_count; i++) {
    const piece *p = &d->pieces[i];
    bytes += p->kind == EXCHANGED
                 ? (p->pack.count / 4096 + 1) * sizeof(lqt__cu_swap_job)
                 : (p->bytes / LQT__CU_SWAP_BLOCK + 1) * sizeof(lqt__cu_swap_range);
  }
  return bytes;
}

static lqt_status allocate(draft *d) {
  lqt__cu_device *device = d->device;
  lqt__cu_patch *patch = d->patch;
  uint64_t bytes = ((d->bytes + 15) & ~UINT64_C(15)) + list_bytes(d);
  CUresult result = device->driver->MemAllocFromPoolAsync(
      &patch->memory, bytes, device->patches->pool, device->patches->copy);
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    return lqt__fail(d->diag, LQT_DEVICE_OUT_OF_MEMORY, device->base.info.selector,
                     "a patch needs %llu bytes of device memory beside the weights",
                     (unsigned long long)bytes);
  }
  LQT__TRY(lqt__cu_check(device, result, "allocate staging memory", d->diag));
  patch->base.bytes = bytes;
  /* The pack stream writes there too. */
  LQT__TRY(lqt__cu_check(
      device, device->driver->EventRecord(device->patches->joined, device->patches->copy),
      "order the streams", d->diag));
  return lqt__cu_check(
      device, device->driver->StreamWaitEvent(device->patches->pack, device->patches->joined, 0),
      "order the streams", d->diag);
}

static lqt_status send(draft *d) {
  lqt__cu_device *device = d->device;
  LQT__TRY(allocate(d));
  LQT__TRY(list_pieces(d));
  for (size_t i = 0; i < d->piece_count; i++) {
    const piece *p = &d->pieces[i];
    if (p->kind == TILES) {
      LQT__TRY(lqt__cu_staging_flush(device, d->diag));
      LQT__TRY(send_tiles(d, p));
    } else {
      LQT__TRY(
          lqt__cu_staging_put(device, d->patch->memory + p->staged, p->from, p->bytes, d->diag));
    }
  }
  lqt__cu_patch *patch = d->patch;
  uint64_t end = (d->bytes + 15) & ~UINT64_C(15);
  LQT__TRY(send_list(d, &end, d->blocks, d->block_count, sizeof *d->blocks, &patch->blocks));
  LQT__TRY(send_list(d, &end, d->warps, d->warp_count, sizeof *d->warps, &patch->warps));
  LQT__TRY(send_list(d, &end, d->jobs, d->job_count, sizeof *d->jobs, &patch->packed));
  LQT__TRY(send_list(d, &end, d->tables, d->table_count, sizeof *d->tables, &patch->tables));
  return lqt__cu_staging_seal(device, patch->ready, d->diag);
}

static lqt_status create(draft *d, const lqt_patch_change *changes, size_t count) {
  lqt__cu_device *device = d->device;
  d->tables = lqt__alloc_array(count, sizeof *d->tables);
  d->patch->scalars = lqt__alloc_array(count, sizeof *d->patch->scalars);
  if (d->tables == NULL || d->patch->scalars == NULL) {
    return no_memory(d, count * sizeof *d->tables);
  }
  LQT__TRY(lqt__cu_check(device,
                         device->driver->EventCreate(&d->patch->ready, CU_EVENT_DISABLE_TIMING),
                         "create an event", d->diag));
  for (size_t i = 0; i < count; i++) LQT__TRY(add_change(d, &changes[i]));
  if (d->piece_count == 0) return LQT_OK; /* only scalars */
  lqt_status status = send(d);
  if (status != LQT_OK) { /* what is under way must not outlive the memory */
    (void)device->driver->StreamSynchronize(device->patches->copy);
    (void)device->driver->StreamSynchronize(device->patches->pack);
  }
  return status;
}

lqt_status lqt__cu_patch_create(lqt_device *base, const lqt_patch_change *changes, size_t count,
                                lqt_patch **out, lqt_diag *diag) {
  lqt__cu_device *device = (lqt__cu_device *)base;
  draft d = {.device = device, .diag = diag};
  d.patch = lqt__alloc_zero(sizeof *d.patch);
  if (d.patch == NULL) return lqt__fail_memory(diag, "cuda", sizeof *d.patch, "a patch");
  d.patch->base.device = base;
  lqt__cu_staging *staging = NULL;
  lqt_status status = lqt__cu_staging_begin(device, &staging, diag);
  if (status == LQT_OK) {
    status = create(&d, changes, count);
    lqt__cu_staging_end(device);
  }
  lqt__free(d.pieces);
  lqt__free(d.blocks);
  lqt__free(d.warps);
  lqt__free(d.jobs);
  lqt__free(d.tables);
  if (status != LQT_OK) {
    lqt__cu_patch_destroy(&d.patch->base);
    return status;
  }
  *out = &d.patch->base;
  return LQT_OK;
}

/* ---- Waiting, flipping, destroying ---- */

lqt_status lqt__cu_patch_wait(lqt_patch *base, lqt_diag *diag) {
  lqt__cu_patch *patch = (lqt__cu_patch *)base;
  lqt__cu_device *device = (lqt__cu_device *)base->device;
  LQT__TRY(lqt__cu_push(device, diag));
  lqt_status status = lqt__cu_check(device, device->driver->EventSynchronize(patch->ready),
                                    "copy a patch to the device", diag);
  lqt__cu_pop(device);
  return status;
}

static lqt_status launch(lqt__cu_device *device, const char *name, const lqt__cu_swap *args,
                         uint64_t blocks, lqt_diag *diag) {
  if (args->count == 0) return LQT_OK;
  uint64_t most = (uint64_t)device->multiprocessors * 8;
  lqt__cu_launch l = {.module = LQT__CU_SWAP,
                      .name = name,
                      .grid = {(uint32_t)(blocks < most ? blocks : most), 1, 1},
                      .threads = 256,
                      .args = args};
  return lqt__cu_run(device, &l, diag);
}

static lqt_status flip(lqt__cu_device *device, lqt__cu_patch *patch, lqt_diag *diag) {
  const lqt__cu_driver *driver = device->driver;
  LQT__TRY(lqt__cu_check(device, driver->StreamWaitEvent(device->stream, patch->ready, 0),
                         "order the streams", diag));
  const bool small = patch->blocks.count == 0 && patch->warps.count <= 64 &&
                     patch->packed.count <= 2 && patch->tables.count <= 8;
  if (small) {
    lqt__cu_swap_all all = {patch->warps, patch->packed, patch->tables};
    lqt__cu_launch l = {.module = LQT__CU_SWAP,
                        .name = "lqt_swap_small",
                        .grid = {1, 1, 1},
                        .threads = 256,
                        .args = &all};
    LQT__TRY(lqt__cu_run(device, &l, diag));
  } else {
    LQT__TRY(launch(device, "lqt_swap_blocks", &patch->blocks, patch->blocks.count, diag));
    LQT__TRY(launch(device, "lqt_swap_warps", &patch->warps, (patch->warps.count + 7) / 8, diag));
    LQT__TRY(launch(device, "lqt_swap_packed", &patch->packed, patch->packed.count, diag));
    LQT__TRY(launch(device, "lqt_swap_tables", &patch->tables, patch->tables.count, diag));
  }
  /* To the end: kernels of the next step may begin, and fetch weights, before the one that the
   * stream has in front of them is done. */
  return lqt__cu_check(device, driver->StreamSynchronize(device->stream), "flip a patch", diag);
}

lqt_status lqt__cu_patch_flip(lqt_patch *base, lqt_diag *diag) {
  lqt__cu_patch *patch = (lqt__cu_patch *)base;
  lqt__cu_device *device = (lqt__cu_device *)base->device;
  pthread_mutex_lock(&device->mutex);
  lqt_status status = lqt__cu_push(device, diag);
  if (status == LQT_OK) {
    status = flip(device, patch, diag);
    lqt__cu_pop(device);
  }
  if (patch->scalar_count != 0) device->epoch++; /* recorded launches carry them */
  for (size_t i = 0; i < patch->scalar_count && status == LQT_OK; i++) {
    float kept = *patch->scalars[i].live;
    *patch->scalars[i].live = patch->scalars[i].staged;
    patch->scalars[i].staged = kept;
  }
  pthread_mutex_unlock(&device->mutex);
  return status;
}

void lqt__cu_patch_destroy(lqt_patch *base) {
  lqt__cu_patch *patch = (lqt__cu_patch *)base;
  lqt__cu_device *device = (lqt__cu_device *)base->device;
  const lqt__cu_driver *driver = device->driver;
  if (patch->ready != NULL && lqt__cu_push(device, NULL) == LQT_OK) {
    if (patch->memory != 0) {
      /* Flips waited for their end; what is still being sent ends before the memory is free. */
      (void)driver->StreamWaitEvent(device->patches->copy, patch->ready, 0);
      (void)driver->MemFreeAsync(patch->memory, device->patches->copy);
    }
    (void)driver->EventDestroy(patch->ready);
    lqt__cu_pop(device);
  }
  lqt__free(patch->scalars);
  lqt__free(patch);
}

/* ---- For tests and callers ---- */

static uint64_t mix(uint64_t digest, const uint8_t *bytes, uint64_t count) {
  for (uint64_t i = 0; i < count; i += 8) {
    uint64_t word = 0;
    memcpy(&word, bytes + i, count - i < 8 ? count - i : 8);
    digest = (digest ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    digest ^= digest >> 29;
  }
  return digest;
}

lqt_status lqt__cu_weight_digest(lqt_weight *base, uint64_t *out_digest, lqt_diag *diag) {
  lqt__cu_weight *weight = (lqt__cu_weight *)base;
  lqt__cu_device *device = (lqt__cu_device *)base->device;
  const float factors[2] = {weight->view.scale, weight->view.residual_scale};
  uint64_t digest = mix(1, (const uint8_t *)factors, sizeof factors);
  lqt_status status = LQT_OK;
  for (size_t i = 0; i < weight->block_count && status == LQT_OK; i++) {
    uint64_t bytes = weight->block_bytes[i];
    uint8_t *copy = lqt__alloc(bytes);
    if (copy == NULL) return lqt__fail_memory(diag, "cuda", bytes, "a copy of a weight");
    pthread_mutex_lock(&device->mutex);
    status = lqt__cu_push(device, diag);
    if (status == LQT_OK) {
      status = lqt__cu_copy_out(device, copy, weight->blocks[i], bytes, diag);
      lqt__cu_pop(device);
    }
    pthread_mutex_unlock(&device->mutex);
    if (status == LQT_OK) digest = mix(digest, copy, bytes);
    lqt__free(copy);
  }
  if (status == LQT_OK) *out_digest = digest;
  return status;
}

void *lqt__cu_host_alloc(lqt_device *base, uint64_t bytes) {
  lqt__cu_device *device = (lqt__cu_device *)base;
  void *memory = NULL;
  if (lqt__cu_push(device, NULL) != LQT_OK) return NULL;
  if (device->driver->MemHostAlloc(&memory, bytes != 0 ? bytes : 16, CU_MEMHOSTALLOC_PORTABLE) !=
      CUDA_SUCCESS) {
    memory = NULL;
  }
  lqt__cu_pop(device);
  return memory;
}

void lqt__cu_host_free(lqt_device *base, void *memory) {
  lqt__cu_device *device = (lqt__cu_device *)base;
  if (lqt__cu_push(device, NULL) != LQT_OK) return;
  (void)device->driver->MemFreeHost(memory);
  lqt__cu_pop(device);
}
