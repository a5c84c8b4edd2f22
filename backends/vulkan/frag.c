/* Products on matrix units (shaders/frag.glsl): asking the device what its invocations hold of a
 * matrix, the tiled order of weights, and the choice of tiles. */
#include <stdio.h>
#include <string.h>

#include "backends/vulkan/shaders.h"
#include "backends/vulkan/vulkan.h"
#include "base/alloc.h"
#include "base/diag.h"
#include "kernel/weight.h"

#define LANES 32u
#define PROBE_FLOATS 16u /* of a lane: 8 of A, 4 of B, 4 of C */
#define PACK_BYTES (4u << 20)

/* What lane `lane` would hold as its pair `pair`; (row, column) of the first value. */
static uint32_t a_place(uint32_t lane, uint32_t row_half, uint32_t col_half) {
  return (lane / 4 + 8 * row_half) * 16 + lane % 4 * 2 + 8 * col_half;
}
static uint32_t b_place(uint32_t lane, uint32_t row_half) {
  return (lane % 4 * 2 + 8 * row_half) * 8 + lane / 4;
}
static uint32_t c_place(uint32_t lane, uint32_t row_half) {
  return (lane / 4 + 8 * row_half) * 8 + lane % 4 * 2;
}

/* The orders that explain what was found, if any do. */
static bool read_orders(const float *found, lqt__vk_frag *out) {
  *out = (lqt__vk_frag){0};
  for (uint32_t p = 0; p < 4; p++) {
    uint32_t first = (uint32_t)found[2 * p], half = first >= 128, col_half = first % 16 >= 8;
    out->a_order |= (half | col_half << 1) << (2 * p);
  }
  for (uint32_t p = 0; p < 2; p++) {
    out->b_order |= (uint32_t)(found[8 + 2 * p] >= 64) << p;
    out->c_order |= (uint32_t)(found[12 + 2 * p] >= 64) << p;
  }
  for (uint32_t lane = 0; lane < LANES; lane++) {
    const float *f = found + lane * PROBE_FLOATS;
    for (uint32_t p = 0; p < 4; p++) {
      uint32_t place = a_place(lane, out->a_order >> (2 * p) & 1, out->a_order >> (2 * p + 1) & 1);
      if (f[2 * p] != (float)place || f[2 * p + 1] != (float)(place + 1)) return false;
    }
    for (uint32_t p = 0; p < 2; p++) {
      uint32_t b = b_place(lane, out->b_order >> p & 1), c = c_place(lane, out->c_order >> p & 1);
      if (f[8 + 2 * p] != (float)b || f[9 + 2 * p] != (float)(b + 8)) return false;
      if (f[12 + 2 * p] != (float)c || f[13 + 2 * p] != (float)(c + 1)) return false;
    }
  }
  /* Every part of A exactly once: the loop above found four places, which have to differ. */
  uint32_t seen = 0;
  for (uint32_t p = 0; p < 4; p++) seen |= 1u << (out->a_order >> (2 * p) & 3);
  return seen == 15 && (out->b_order == 1 || out->b_order == 2) &&
         (out->c_order == 1 || out->c_order == 2);
}

lqt_status lqt__vk_frag_probe(lqt__vk_device *device, lqt_diag *diag) {
  device->frag = (lqt__vk_frag){0};
  if (device->emulate_matrices && device->head.info.activation == LQT_DTYPE_F16) {
    device->frag = (lqt__vk_frag){
        .usable = true, .emulated = true, .a_order = 0xe4, .b_order = 2, .c_order = 2};
    return LQT_OK;
  }
  if (!device->physical->matrices || lqt__vk_spirv[LQT__VK_FRAGPROBE].words == NULL ||
      device->head.info.activation != LQT_DTYPE_F16) {
    return LQT_OK;
  }
  lqt__vk_dispatch probe = {.spec = {.shader = LQT__VK_FRAGPROBE},
                            .x = 1,
                            .y = 1,
                            .push_bytes = sizeof(lqt__vk_push_probe)};
  lqt__vk_spec_add(&probe.spec, LQT__VK_WG, LANES);
  float found[LANES * PROBE_FLOATS];
  memset(found, 0xff, sizeof found);
  lqt__vk_range range;
  LQT__TRY(lqt__vk_allocate(device, sizeof found, &range, diag));
  probe.push.probe.found = range.address;
  lqt_status status = lqt__vk_upload(device, &range, 0, found, sizeof found, diag);
  if (status == LQT_OK) status = lqt__vk_run_dispatch(device, &probe, diag);
  if (status == LQT_OK) status = lqt__vk_download(device, &range, 0, found, sizeof found, diag);
  lqt__vk_free(device, &range);
  if (status != LQT_OK) return status;
  lqt__vk_frag frag;
  if (read_orders(found, &frag)) {
    device->frag = frag;
    device->frag.usable = true;
  }
  return LQT_OK;
}

bool lqt__vk_tiling_choose(const lqt__vk_device *device, const lqt_weight_desc *desc,
                           lqt__vk_tiling *out) {
  *out = (lqt__vk_tiling){0};
  if (!device->frag.usable) return false;
  if (desc->dtype != LQT_DTYPE_CODEBOOK || desc->codebook.dtype != LQT_DTYPE_F16 ||
      desc->codebook.banks != 1 || desc->indices.bits > 8 || desc->residual.vectors != NULL ||
      desc->zero_points != NULL || desc->mask.bits != NULL ||
      (desc->delta.kind != LQT_DELTA_NONE && desc->delta.kind != LQT_DELTA_CSR) ||
      (desc->group_size != 0 && desc->group_size < 32) || desc->rows == 0 || desc->cols == 0) {
    return false;
  }
  const uint32_t bits = desc->indices.bits, dim = desc->codebook.vector_dim;
  if (bits % dim != 0 || bits / dim < 2) return false;
  out->lane = bits / dim == 3 ? 12 : 16;
  const uint32_t unit = desc->group_size == 32 ? 32 : 64; /* columns that share a scale */
  out->granule = unit / 4 * bits / dim / 8;
  out->row_bytes = (uint32_t)lqt__ceil_div(lqt__ceil_div(desc->cols, dim) * bits, 8);
  out->blocks = (uint32_t)lqt__ceil_div(out->row_bytes, 4ull * out->lane);
  out->groups = desc->group_size != 0 ? (uint32_t)lqt__ceil_div(desc->cols, desc->group_size) : 0;
  out->tiles = (uint32_t)lqt__ceil_div(desc->rows, 16);
  return true;
}

uint64_t lqt__vk_tiled_bytes(const lqt__vk_tiling *t) {
  return (uint64_t)t->tiles * t->blocks * 64 * t->lane;
}

uint64_t lqt__vk_tiled_byte(const lqt__vk_tiling *t, uint64_t row, uint64_t at) {
  const uint32_t units = t->lane / t->granule;
  uint64_t unit = at / (4u * t->granule), chunk = at / t->granule % 4;
  uint64_t block = row / 16 * t->blocks + unit / units;
  uint64_t lane = (row / 8 & 1) * LANES + row % 8 * 4 + chunk;
  return (block * 64 + lane) * t->lane + unit % units * t->granule + at % t->granule;
}

uint64_t lqt__vk_tiled_scale(const lqt__vk_tiling *t, uint64_t row, uint64_t group) {
  return (row / 16 * t->groups + group) * 16 + row % 8 * 2 + (row / 8 & 1);
}

/* Tiles [first, last) of the indices into `out`, which is zero. */
static void pack_tiles(const lqt__vk_tiling *t, const lqt_weight_desc *desc, uint64_t first,
                       uint64_t last, uint8_t *out) {
  const uint64_t base = first * t->blocks * 64 * t->lane;
  uint64_t end = last * 16 < desc->rows ? last * 16 : desc->rows;
  for (uint64_t row = first * 16; row < end; row++) {
    const uint8_t *from = desc->indices.data + row * desc->indices.row_stride;
    for (uint32_t at = 0; at < t->row_bytes; at += t->granule) {
      uint32_t n = t->row_bytes - at < t->granule ? t->row_bytes - at : t->granule;
      uint8_t *to = out + lqt__vk_tiled_byte(t, row, at) - base;
      if (n == 8) {
        memcpy(to, from + at, 8);
      } else {
        memcpy(to, from + at, n);
      }
    }
  }
}

lqt_status lqt__vk_tiled_upload(lqt__vk_device *device, const lqt__vk_tiling *t,
                                const lqt_weight_desc *desc, const lqt__vk_range *data,
                                const lqt__vk_range *scales, lqt_diag *diag) {
  const uint64_t tile = (uint64_t)t->blocks * 64 * t->lane;
  const uint64_t each = tile < PACK_BYTES ? PACK_BYTES / tile : 1;
  const uint64_t scale_bytes = (uint64_t)t->tiles * t->groups * 32;
  const uint64_t bytes = each * tile > scale_bytes ? each * tile : scale_bytes;
  uint8_t *packed = lqt__alloc(bytes);
  if (packed == NULL) {
    return lqt__fail_memory(diag, device->head.info.selector, bytes, "packing a weight");
  }
  lqt_status status = LQT_OK;
  for (uint64_t first = 0; first < t->tiles && status == LQT_OK; first += each) {
    uint64_t last = t->tiles - first < each ? t->tiles : first + each;
    memset(packed, 0, (last - first) * tile);
    pack_tiles(t, desc, first, last, packed);
    status = lqt__vk_upload(device, data, first * tile, packed, (last - first) * tile, diag);
  }
  if (status == LQT_OK && desc->group_scales != NULL) {
    memset(packed, 0, scale_bytes);
    uint16_t *to = (uint16_t *)packed;
    for (uint64_t row = 0; row < desc->rows; row++) {
      for (uint32_t g = 0; g < t->groups; g++) {
        to[lqt__vk_tiled_scale(t, row, g)] = desc->group_scales[row * desc->group_row_stride + g];
      }
    }
    status = lqt__vk_upload(device, scales, 0, packed, scale_bytes, diag);
  }
  lqt__free(packed);
  return status;
}

/* ---- choice of tiles ---- */

static uint32_t up_to_power(uint32_t n, uint32_t most) {
  uint32_t power = 1;
  while (power < n && power < most) power *= 2;
  return power;
}

bool lqt__vk_frag_takes(const lqt__vk_device *device, const lqt__vk_weight *weight,
                        const lqt_view *x, bool aligned) {
  const uint64_t most = 65535; /* workgroups along a dimension */
  return device->frag.usable && weight->tiling.lane != 0 && x->dtype == LQT_DTYPE_F16 && aligned &&
         weight->cols % 8 == 0 && lqt__ceil_div(weight->rows, 32) <= most &&
         lqt__ceil_div(x->rows, 32) <= most &&
         (x->rows <= 16 || weight->head.shape.delta.kind == LQT_DELTA_NONE);
}

static void orders(const lqt__vk_device *device, lqt__vk_dispatch *d, uint32_t replicas) {
  lqt__vk_spec_add(&d->spec, 40, device->frag.a_order);
  lqt__vk_spec_add(&d->spec, 41, device->frag.b_order);
  lqt__vk_spec_add(&d->spec, 42, device->frag.c_order);
  lqt__vk_spec_add(&d->spec, 43, device->frag.emulated ? 4 : replicas);
}

void lqt__vk_frag_few(const lqt__vk_device *device, const lqt__vk_weight *weight, uint32_t tokens,
                      lqt__vk_dispatch *d) {
  const uint32_t most = up_to_power(tokens, 16);
  const uint32_t units = weight->tiling.lane / weight->tiling.granule;
  /* Emulated products are small: what compiles them is a processor. */
  const uint32_t piece = device->frag.emulated ? 1 : most == 1 ? 8 : most <= 8 ? 4 : 2;
  /* Sums of a round take 512 bytes a tile and token. */
  uint32_t round = most == 1 ? 16 : most == 2 ? 8 : most == 4 ? 6 : 3;
  if (device->frag.emulated) round = most > 8 ? 1 : 2; /* 32 KiB are enough */
  const uint32_t depth = piece > units ? piece / units : 1;
  /* A driver may take 255 registers for an invocation: 256 of them always fit. */
  const uint32_t subgroups = 8;
  uint32_t across = up_to_power((uint32_t)lqt__ceil_div(weight->tiling.blocks, depth), subgroups);
  uint32_t down = subgroups / across;
  d->spec.shader = device->frag.emulated ? LQT__VK_FRAGVEC_EMULATED : LQT__VK_FRAGVEC;
  lqt__vk_spec_add(&d->spec, LQT__VK_WG, subgroups * LANES);
  lqt__vk_spec_add(&d->spec, LQT__VK_OWN, across);
  lqt__vk_spec_add(&d->spec, LQT__VK_OWN + 1, most);
  lqt__vk_spec_add(&d->spec, LQT__VK_OWN + 2, round);
  lqt__vk_spec_add(&d->spec, LQT__VK_OWN + 5, piece);
  orders(device, d, most > 8 ? 16 : 32);
  uint32_t groups = (uint32_t)lqt__ceil_div(weight->tiling.tiles, down);
  uint32_t room = device->physical->multiprocessors * 2;
  d->x = groups < room ? groups : room;
  d->y = 1;
  snprintf(d->name, sizeof d->name, "lqt_matmul_%s_f16_t%u__%s", weight->kind, most,
           device->frag.emulated ? "emulated" : "coopmat");
}

void lqt__vk_frag_many(const lqt__vk_device *device, const lqt__vk_weight *weight, uint32_t tokens,
                       lqt__vk_dispatch *d) {
  /* Many rows of x: more tiles of the weight share what is read of x. */
  uint32_t rt = tokens >= 512 ? 4 : 2, nt = tokens <= 32 ? 4 : 8, subgroups = 4;
  if (device->frag.emulated) rt = 1, nt = 2, subgroups = 2;
  const uint32_t replicas = 16; /* a table that leaves room for x in 48 KiB */
  const uint32_t tiles = weight->tiling.tiles, parts = (uint32_t)lqt__ceil_div(tokens, nt * 8);
  while (lqt__ceil_div(tiles, subgroups * rt) * parts < device->physical->multiprocessors) {
    if (rt > 1) {
      rt /= 2;
    } else if (subgroups > 2) {
      subgroups /= 2;
    } else {
      break;
    }
  }
  d->spec.shader = device->frag.emulated ? LQT__VK_FRAGMUL_EMULATED : LQT__VK_FRAGMUL;
  lqt__vk_spec_add(&d->spec, LQT__VK_WG, subgroups * LANES);
  lqt__vk_spec_add(&d->spec, LQT__VK_OWN, rt);
  lqt__vk_spec_add(&d->spec, LQT__VK_OWN + 1, nt);
  orders(device, d, replicas);
  d->x = (uint32_t)lqt__ceil_div(tiles, subgroups * rt);
  d->y = (uint32_t)lqt__ceil_div(tokens, nt * 8);
  snprintf(d->name, sizeof d->name, "lqt_matmul_%s_f16_%ux%u__%s", weight->kind,
           subgroups * rt * 16, nt * 8, device->frag.emulated ? "emulated" : "coopmat");
}
