/* From the canonical order of the file to the order of the kernels. */
#ifndef LQT_BACKENDS_CUDA_KERNELS_PACK_CUH_
#define LQT_BACKENDS_CUDA_KERNELS_PACK_CUH_

#include "common.cuh"

/* Index i of a row in a little-endian bit stream. */
__device__ __forceinline__ uint32_t bits_at(const uint8_t *row, uint64_t i, uint32_t bits) {
  uint64_t bit = i * bits;
  const uint8_t *p = row + (bit >> 3);
  uint32_t v = p[0];
  if ((bit & 7) + bits > 8) v |= (uint32_t)p[1] << 8;
  return (v >> (bit & 7)) & ((1u << bits) - 1);
}

typedef struct canonical_indices {
  const uint8_t *data;
  uint64_t row_stride;
  uint32_t bits, vector_dim, rows, cols;
} canonical_indices;

__device__ __forceinline__ uint32_t index_at(const canonical_indices &c, uint32_t row,
                                             uint32_t col) {
  if (row >= c.rows || col >= c.cols) return 0;
  return bits_at(c.data + row * c.row_stride, col / c.vector_dim, c.bits);
}

/* The byte that decodes to the pair of columns (col, col + 1) of a row; where a byte holds four
 * weights, also to (col + 8, col + 9). `lane_bits` = bits of an index byte per pair. */
__device__ __forceinline__ uint32_t pair_index(const canonical_indices &c, uint32_t row,
                                               uint32_t col) {
  if (c.vector_dim == 2) return index_at(c, row, col);
  return index_at(c, row, col) | index_at(c, row, col + 1) << c.bits;
}

/* One packed word: word `word` of lane `lane` in unit (tile, slice). PAIR bits of a pair of
 * weights: 8 (4 bits a weight), 6, 4 or 16. */
__device__ uint32_t packed_word(const canonical_indices &c, uint32_t weight_bits, uint32_t tile,
                                uint32_t slice, uint32_t lane, uint32_t word) {
  const uint32_t row = tile * 16 + (lane >> 2), col = slice * 64 + 2 * (lane & 3);
  uint32_t out = 0;
  for (uint32_t b = 0; b < 4; b++) {
    uint32_t v;
    if (weight_bits == 4) {
      v = pair_index(c, row + (b & 1) * 8, col + word * 16 + (b >> 1) * 8);
    } else if (weight_bits == 3) {
      v = pair_index(c, row + (b & 1) * 8, col + word * 16 + (b >> 1) * 8);
      uint32_t rest = pair_index(c, row + (b & 1) * 8, col + 3 * 16 + (b >> 1) * 8);
      v |= ((rest >> (2 * word)) & 3u) << 6;
    } else if (weight_bits == 2) {
      uint32_t r = row + (b & 1) * 8, k = col + (2 * word + (b >> 1)) * 16;
      v = pair_index(c, r, k) | pair_index(c, r, k + 8) << 4;
    } else {
      v = index_at(c, row + (b >> 1) * 8, col + (word >> 1) * 16 + (word & 1) * 8 + (b & 1));
    }
    out |= v << (8 * b);
  }
  return out;
}

/* Where that word stands in the packed array: a block holds 2 * weight_bits loads of 32 lanes x 16
 * bytes; a lane's words go through its loads in unit order. `blocks`: column blocks of a tile. */
__device__ __forceinline__ uint64_t packed_at(uint32_t weight_bits, uint32_t blocks, uint32_t tile,
                                              uint32_t slice, uint32_t lane, uint32_t word) {
  uint64_t block = (uint64_t)tile * blocks + (slice >> 3);
  uint32_t i = (slice & 7) * weight_bits + word;
  return (block * (2 * weight_bits) + (i >> 2)) * 128 + lane * 4 + (i & 3);
}

/* The place of an index in the packed array: a word and the bit in it where the index begins. With
 * 3 bits the pairs of the fourth k-step lie scattered: see packed_bit. */
__device__ __forceinline__ uint64_t packed_spot(uint32_t weight_bits, uint32_t vector_dim,
                                                uint32_t blocks, uint32_t row, uint32_t col,
                                                uint32_t *bit, uint32_t *step) {
  const uint32_t r = row & 15, c = col & 63, j = c >> 4, hi_row = r >> 3, hi_col = (c >> 3) & 1;
  const uint32_t lane = (r & 7) * 4 + ((c & 7) >> 1), odd = c & 1;
  uint32_t word, byte, in_byte = 0;
  if (weight_bits == 4 || weight_bits == 3) {
    word = weight_bits == 3 && j == 3 ? 0 : j;
    byte = hi_row + 2 * hi_col;
    if (vector_dim == 1) in_byte = odd * weight_bits;
  } else if (weight_bits == 2) {
    word = j >> 1;
    byte = 2 * (j & 1) + hi_row;
    in_byte = hi_col * 4 + (vector_dim == 1 ? odd * 2 : 0);
  } else {
    word = 2 * j + hi_col;
    byte = hi_row * 2 + odd;
  }
  *bit = byte * 8 + in_byte;
  *step = j;
  return packed_at(weight_bits, blocks, row >> 4, col >> 6, lane, word);
}

/* Word and bit of bit `b` of an index. */
__device__ __forceinline__ uint64_t packed_bit(uint32_t weight_bits, uint32_t vector_dim,
                                               uint32_t blocks, uint32_t row, uint32_t col,
                                               uint32_t b, uint32_t *bit) {
  uint32_t step;
  uint64_t word = packed_spot(weight_bits, vector_dim, blocks, row, col, bit, &step);
  if (weight_bits == 3 && step == 3) {
    uint32_t q = (*bit & 7) + b; /* bit of the pair: two in the top of each word's byte */
    *bit = (*bit & ~7u) + 6 + (q & 1);
    const uint32_t r = row & 15, c = col & 63, lane = (r & 7) * 4 + ((c & 7) >> 1);
    return packed_at(3, blocks, row >> 4, col >> 6, lane, q >> 1);
  }
  *bit += b;
  return word;
}

__device__ __forceinline__ uint32_t packed_index(const uint32_t *packed, uint32_t index_bits,
                                                 uint32_t weight_bits, uint32_t vector_dim,
                                                 uint32_t blocks, uint32_t row, uint32_t col) {
  uint32_t bit, step;
  uint64_t word = packed_spot(weight_bits, vector_dim, blocks, row, col, &bit, &step);
  if (weight_bits == 3 && step == 3) {
    uint32_t v = 0;
    for (uint32_t b = 0; b < 3; b++) {
      word = packed_bit(3, vector_dim, blocks, row, col, b, &bit);
      v |= ((packed[word] >> bit) & 1u) << b;
    }
    return v;
  }
  return (packed[word] >> bit) & ((1u << index_bits) - 1);
}

/* Half of the packed scales that belongs to (row, group): [block][g][units][step group][2], a unit
 * standing for 1 << shift of them when several share a scale. */
__device__ __forceinline__ uint64_t scale_spot(uint32_t group_size, uint32_t shift, uint32_t blocks,
                                               uint32_t row, uint32_t group) {
  const uint32_t per_unit = group_size < 64 ? 64 / group_size : 1, units = 8u >> shift;
  const uint32_t col = group * group_size, unit = ((col & 511) >> 6) >> shift;
  const uint32_t step = group_size < 64 ? (col & 63) / group_size : 0;
  const uint64_t block = (uint64_t)(row >> 4) * blocks + (col >> 9);
  return (((block * 8 + (row & 7)) * units + unit) * per_unit + step) * 2 + ((row >> 3) & 1);
}

/* One table entry: the pair (or quadruple) of codebook values that a byte selects. */
__device__ uint64_t table_entry(const uint16_t *codebook, uint32_t entries, uint32_t vector_dim,
                                uint32_t index_bits, uint32_t weight_bits, uint32_t byte) {
  auto value = [&](uint32_t index, uint32_t component) -> uint64_t {
    return index < entries ? codebook[index * vector_dim + component] : 0;
  };
  if (weight_bits == 8) {
    uint64_t v = value(byte, 0);
    return v | v << 16;
  }
  const uint32_t pair_bits = weight_bits * 2, mask = (1u << index_bits) - 1;
  uint64_t out = 0;
  for (uint32_t h = 0; h < (weight_bits == 2 ? 2u : 1u); h++) {
    uint32_t field = (byte >> (h * pair_bits)) & ((1u << pair_bits) - 1);
    uint64_t lo, hi;
    if (vector_dim == 2) {
      lo = value(field, 0), hi = value(field, 1);
    } else {
      lo = value(field & mask, 0), hi = value((field >> index_bits) & mask, 0);
    }
    out |= (lo | hi << 16) << (32 * h);
  }
  return out;
}

#endif /* LQT_BACKENDS_CUDA_KERNELS_PACK_CUH_ */
