/* Repacking at upload, the expanded tables, and patches of the packed form. */
#include "pack.cuh"

#define GRID_LOOP(i, n)                                                       \
  for (uint64_t i = blockIdx.x * (uint64_t)blockDim.x + threadIdx.x; i < (n); \
       i += (uint64_t)gridDim.x * blockDim.x)

extern "C" __global__ void lqt_pack_indices(const __grid_constant__ lqt__cu_pack p) {
  canonical_indices c = {reinterpret_cast<const uint8_t *>(p.from),
                         p.row_stride,
                         p.bits,
                         p.vector_dim,
                         p.rows,
                         p.cols};
  uint32_t *out = reinterpret_cast<uint32_t *>(p.to);
  const uint64_t total = (uint64_t)p.tiles * p.blocks * 8 * 32 * p.weight_bits;
  GRID_LOOP(i, total) {
    uint32_t word = i % p.weight_bits, lane = (i / p.weight_bits) & 31;
    uint64_t unit = i / p.weight_bits >> 5;
    uint32_t tile = unit / (p.blocks * 8), slice = unit % (p.blocks * 8);
    out[packed_at(p.weight_bits, p.blocks, tile, slice, lane, word)] =
        packed_word(c, p.weight_bits, tile, slice, lane, word);
  }
}

/* Canonical scales [first, first + count) into their places; `to` was cleared at upload. */
extern "C" __global__ void lqt_pack_scales(const __grid_constant__ lqt__cu_pack p) {
  const uint16_t *from = reinterpret_cast<const uint16_t *>(p.from);
  uint16_t *to = reinterpret_cast<uint16_t *>(p.to);
  GRID_LOOP(i, p.count) {
    uint64_t at = p.first + i;
    uint32_t row = at / p.row_stride, group = at % p.row_stride;
    if (row < p.rows && group < p.groups)
      to[scale_spot(p.group_size, p.group_shift, p.blocks, row, group)] = from[i];
  }
}

extern "C" __global__ void lqt_pack_table(const __grid_constant__ lqt__cu_pack p) {
  uint64_t entry = table_entry(reinterpret_cast<const uint16_t *>(p.from), p.entries, p.vector_dim,
                               p.bits, p.weight_bits, threadIdx.x);
  if (p.weight_bits == 2)
    reinterpret_cast<uint64_t *>(p.to)[threadIdx.x] = entry;
  else
    reinterpret_cast<uint32_t *>(p.to)[threadIdx.x] = (uint32_t)entry;
}

/* Canonical index bytes [first, first + count), bit by bit: an index may straddle the patch. */
extern "C" __global__ void lqt_patch_indices(const __grid_constant__ lqt__cu_pack p) {
  const uint8_t *from = reinterpret_cast<const uint8_t *>(p.from);
  uint32_t *to = reinterpret_cast<uint32_t *>(p.to);
  GRID_LOOP(i, p.count) {
    uint64_t at = p.first + i;
    uint32_t row = at / p.row_stride;
    uint64_t bit0 = (at % p.row_stride) * 8;
    for (uint32_t b = 0; b < 8; b++) {
      uint64_t index = (bit0 + b) / p.bits, col = index * p.vector_dim;
      if (row >= p.rows || col >= p.cols) break;
      uint32_t bit;
      uint64_t word =
          packed_bit(p.weight_bits, p.vector_dim, p.blocks, row, col, (bit0 + b) % p.bits, &bit);
      if ((from[i] >> b) & 1)
        atomicOr(to + word, 1u << bit);
      else
        atomicAnd(to + word, ~(1u << bit));
    }
  }
}

/* A block a row; zeros to the end of the row. */
extern "C" __global__ void lqt_align_rows_f16(const __grid_constant__ lqt__cu_rows p) {
  const uint16_t *from = reinterpret_cast<const uint16_t *>(p.from) + blockIdx.x * p.from_stride;
  uint16_t *to = reinterpret_cast<uint16_t *>(p.to) + blockIdx.x * p.to_stride;
  for (uint32_t i = threadIdx.x; i < p.to_stride; i += blockDim.x)
    to[i] = i < p.cols ? from[i] : (uint16_t)0;
}
