// Reconstruction of weights from the canonical order, eight columns at a time:
//
//   w = mask * (scale * group_scale * (C[i] + residual_scale * R[j] - zero_point) + delta)
//
// Specialised by constants, so that a weight pays for the parts that it has. Eight aligned columns
// lie in one bank, one group and one byte of the mask (bank columns and groups are multiples of 16).
layout(constant_id = 10) const uint W_KIND = 3u;         // 0 f32, 1 f16, 2 bf16, 3 codebook
layout(constant_id = 11) const uint W_BITS = 4u;         // of an index
layout(constant_id = 12) const uint W_DIM = 1u;          // values of a codebook vector
layout(constant_id = 13) const uint W_BOOK_F16 = 1u;     // codebook entries are float16
layout(constant_id = 14) const uint W_BANKED = 0u;       // more than one bank
layout(constant_id = 15) const uint W_TABLE = 0u;        // values kept in shared memory; 0: none
layout(constant_id = 16) const uint R_BITS = 0u;         // residual codebook; 0: none
layout(constant_id = 17) const uint R_DIM = 1u;
layout(constant_id = 18) const uint R_BOOK_F16 = 1u;
layout(constant_id = 19) const uint R_TABLE = 0u;
layout(constant_id = 20) const uint W_GROUP_SHIFT = 0u;  // log2 of the group size
layout(constant_id = 21) const uint W_SCALES = 0u;       // group scales are there
layout(constant_id = 22) const uint W_ZEROS = 0u;        // group zero points are there
layout(constant_id = 23) const uint W_DELTA = 0u;        // lqt_delta_kind
layout(constant_id = 24) const uint W_DELTA_F16 = 0u;
layout(constant_id = 25) const uint W_COLUMNS16 = 0u;    // columns of the sparse delta are 16-bit
layout(constant_id = 26) const uint W_MASK = 0u;
// The tiled order of indices (0: rows as in the file). Blocks of 16 rows and 4 * W_LANE bytes of
// each are stored as two halves of 32 lanes: lane 4 * (r % 8) + t of half r / 8 has W_LANE bytes, its
// granule of W_GRANULE bytes of every unit in the block. A unit is four granules of a row, t = 0..3.
// Group scales of a tile stand as [group][row % 8][row / 8].
layout(constant_id = 27) const uint W_LANE = 0u;
layout(constant_id = 28) const uint W_GRANULE = 0u;

const uint DELTA_NONE = 0u, DELTA_DENSE = 1u, DELTA_CSR = 2u, DELTA_LOW_RANK = 3u,
           DELTA_GROUPED = 4u;

// Mirrored by lqt__vk_weight_block (backends/vulkan/params.h).
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer WeightBlock {
  uint64_t data;  // packed indices, or the values of a plain weight
  uint64_t residual_data;
  uint64_t book;
  uint64_t residual_book;
  uint64_t group_scales;
  uint64_t zero_points;
  uint64_t delta;
  uint64_t delta_b;
  uint64_t row_ptr;
  uint64_t columns;
  uint64_t mask;
  uint64_t data_stride;  // bytes, like the next two
  uint64_t residual_stride;
  uint64_t mask_stride;
  uint64_t bank_stride;  // values
  float scale;
  float residual_scale;
  uint rows;
  uint cols;
  uint group_stride;  // elements
  uint bank_rows;
  uint bank_cols;
  uint banks_across;
  uint entries;
  uint residual_entries;
  uint rank;
  uint delta_group;
  uint blocks;  // of a row, in the tiled order
};

shared float book_table[W_TABLE > 0u ? W_TABLE : 1u];
shared float residual_table[R_TABLE > 0u ? R_TABLE : 1u];

float half_or_float(uint64_t base, uint64_t at, bool is_half) {
  if (is_half) return float(F16(base + (at << 1)).v[0]);
  return F32(base + (at << 2)).v[0];
}

// Fills the shared tables. Every invocation of the workgroup calls it once, before weight_chunk.
void weight_begin(WeightBlock w) {
  if (W_TABLE > 0u) {
    uint used = w.entries * W_DIM;
    for (uint i = gl_LocalInvocationIndex; i < W_TABLE; i += WG) {
      book_table[i] = i < used ? half_or_float(w.book, uint64_t(i), W_BOOK_F16 == 1u) : 0.0;
    }
  }
  if (R_TABLE > 0u) {
    uint used = w.residual_entries * R_DIM;
    for (uint i = gl_LocalInvocationIndex; i < R_TABLE; i += WG) {
      residual_table[i] =
          i < used ? half_or_float(w.residual_book, uint64_t(i), R_BOOK_F16 == 1u) : 0.0;
    }
  }
  if (W_TABLE > 0u || R_TABLE > 0u) barrier();
}

// Address of byte `at` of a row's indices in the tiled order. What is read of eight columns lies in
// one granule.
uint64_t tiled_byte(WeightBlock w, uint row, uint at) {
  const uint granule = W_GRANULE > 0u ? W_GRANULE : 1u, lane_bytes = W_LANE > 0u ? W_LANE : 1u;
  const uint units = lane_bytes / granule;
  uint unit = at / (4u * granule), t = at / granule % 4u;
  uint64_t block = uint64_t(row >> 4) * uint64_t(w.blocks) + uint64_t(unit / units);
  uint lane = ((row >> 3) & 1u) * 32u + (row & 7u) * 4u + t;
  return w.data + (block * 64ul + uint64_t(lane)) * uint64_t(lane_bytes) +
         uint64_t(unit % units * granule + at % granule);
}
// Index of the group scale of a row.
uint64_t group_at(WeightBlock w, uint row, uint group) {
  if (W_LANE == 0u) return uint64_t(row) * uint64_t(w.group_stride) + uint64_t(group);
  uint64_t at = uint64_t(row >> 4) * uint64_t(w.group_stride) + uint64_t(group);
  return at * 16ul + uint64_t((row & 7u) * 2u + ((row >> 3) & 1u));
}

// The packed indices of eight columns, shifted so that the first stands at bit 0.
uvec4 index_stream(uint64_t row, uint chunk, uint bits, uint dim) {
  uint width = 8u / dim * bits;
  // Bits from a word's start; rows of the tiled order begin at any byte.
  uint64_t start = uint64_t(chunk) * uint64_t(width) + ((row & 3ul) << 3);
  row &= ~3ul;
  U32 words = U32(row + ((start >> 5) << 2));
  if (width == 128u) return uvec4(words.v[0], words.v[1], words.v[2], words.v[3]);
  if (width == 64u) return uvec4(words.v[0], words.v[1], 0u, 0u);
  uint shift = uint(start) & 31u;
  uint low = words.v[0] >> shift;
  // Only widths that do not divide 32 cross a word.
  if ((32u % width) != 0u && shift + width > 32u) low |= words.v[1] << (32u - shift);
  return uvec4(low, 0u, 0u, 0u);
}

uint index_at(uvec4 stream, uint i, uint bits) {
  uint bit = i * bits;
  return (stream[bit >> 5] >> (bit & 31u)) & ((1u << bits) - 1u);
}

float csr_at(WeightBlock w, uint i) {
  return half_or_float(w.delta, uint64_t(i), W_DELTA_F16 == 1u);
}
uint csr_column(WeightBlock w, uint i) {
  if (W_COLUMNS16 == 1u) return uint(U16(w.columns + (uint64_t(i) << 1)).v[0]);
  return U32(w.columns + (uint64_t(i) << 2)).v[0];
}

bool mask_keeps(WeightBlock w, uint row, uint c) {
  if (W_MASK == 0u) return true;
  uint64_t at = w.mask + uint64_t(row) * w.mask_stride + (uint64_t(c >> 5) << 2);
  return ((U32(at).v[0] >> (c & 31u)) & 1u) != 0u;
}

void add_delta(WeightBlock w, uint row, uint c0, inout float o[8]) {
  bool is_half = W_DELTA_F16 == 1u;
  if (W_DELTA == DELTA_DENSE) {
    uint64_t at = uint64_t(row) * uint64_t(w.cols) + uint64_t(c0);
    for (uint j = 0u; j < 8u; j++) o[j] += half_or_float(w.delta, at + j, is_half);
  } else if (W_DELTA == DELTA_LOW_RANK) {
    uint64_t a = uint64_t(row) * uint64_t(w.rank);
    float sum[8] = float[8](0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for (uint r = 0u; r < w.rank; r++) {
      float left = half_or_float(w.delta, a + r, is_half);
      uint64_t b = uint64_t(r) * uint64_t(w.cols) + uint64_t(c0);
      for (uint j = 0u; j < 8u; j++) sum[j] += left * half_or_float(w.delta_b, b + j, is_half);
    }
    for (uint j = 0u; j < 8u; j++) o[j] += sum[j];
  } else if (W_DELTA == DELTA_GROUPED) {
    uint groups = (w.cols - 1u) / w.delta_group + 1u;
    uint64_t at = uint64_t(row) * uint64_t(groups);
    for (uint j = 0u; j < 8u; j++) {
      uint group = min((c0 + j) / w.delta_group, groups - 1u);
      o[j] += half_or_float(w.delta, at + group, is_half);
    }
  }
}

// The sparse delta of eight columns: the first stored column at or after c0 is found by bisection.
void add_sparse(WeightBlock w, uint row, uint c0, inout float o[8]) {
  U32 bounds = U32(w.row_ptr + (uint64_t(row) << 2));
  uint low = bounds.v[0], end = bounds.v[1], high = end;
  while (low < high) {
    uint middle = low + (high - low) / 2u;
    if (csr_column(w, middle) < c0) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  for (; low < end; low++) {
    uint c = csr_column(w, low) - c0;
    if (c >= 8u) break;
    for (uint j = 0u; j < 8u; j++) {
      if (j == c) o[j] += csr_at(w, low);
    }
  }
}

void plain_chunk(WeightBlock w, uint row, uint c0, out float o[8]) {
  uint64_t at = w.data + uint64_t(row) * w.data_stride;
  if (W_KIND == 0u) {
    F32 from = F32(at + (uint64_t(c0) << 2));
    for (uint j = 0u; j < 8u; j++) o[j] = w.scale * from.v[j];
  } else if (W_KIND == 1u) {
    F16 from = F16(at + (uint64_t(c0) << 1));
    for (uint j = 0u; j < 8u; j++) o[j] = w.scale * float(from.v[j]);
  } else {
    U16 from = U16(at + (uint64_t(c0) << 1));
    for (uint j = 0u; j < 8u; j++) o[j] = w.scale * uintBitsToFloat(uint(from.v[j]) << 16);
  }
}

void codebook_chunk(WeightBlock w, uint row, uint c0, out float o[8]) {
  uint chunk = c0 >> 3;
  uvec4 stream;
  if (W_LANE > 0u) {
    stream = index_stream(tiled_byte(w, row, c0 / W_DIM * W_BITS / 8u), 0u, W_BITS, W_DIM);
  } else {
    stream = index_stream(w.data + uint64_t(row) * w.data_stride, chunk, W_BITS, W_DIM);
  }
  uint64_t bank = uint64_t(0);
  if (W_BANKED == 1u) {
    bank = uint64_t(row / w.bank_rows * w.banks_across + c0 / w.bank_cols) * w.bank_stride;
  }
  for (uint j = 0u; j < 8u; j++) {
    uint index = index_at(stream, j / W_DIM, W_BITS);
    if (W_TABLE > 0u) {
      o[j] = book_table[index * W_DIM + j % W_DIM];
    } else {
      // Past the row's end there may be any index.
      index = min(index, w.entries - 1u);
      o[j] = half_or_float(w.book, bank + uint64_t(index * W_DIM + j % W_DIM), W_BOOK_F16 == 1u);
    }
  }
  if (R_BITS > 0u) {
    stream =
        index_stream(w.residual_data + uint64_t(row) * w.residual_stride, chunk, R_BITS, R_DIM);
    for (uint j = 0u; j < 8u; j++) {
      uint index = index_at(stream, j / R_DIM, R_BITS);
      float value;
      if (R_TABLE > 0u) {
        value = residual_table[index * R_DIM + j % R_DIM];
      } else {
        index = min(index, w.residual_entries - 1u);
        value = half_or_float(w.residual_book, uint64_t(index * R_DIM + j % R_DIM),
                              R_BOOK_F16 == 1u);
      }
      o[j] += w.residual_scale * value;
    }
  }
  float scale = w.scale;
  if (W_GROUP_SHIFT > 0u) {
    uint64_t at = group_at(w, row, c0 >> W_GROUP_SHIFT);
    if (W_ZEROS == 1u) {
      float zero = float(F16(w.zero_points + (at << 1)).v[0]);
      for (uint j = 0u; j < 8u; j++) o[j] -= zero;
    }
    if (W_SCALES == 1u) scale *= float(F16(w.group_scales + (at << 1)).v[0]);
  }
  for (uint j = 0u; j < 8u; j++) o[j] *= scale;
}

// Columns c0..c0+7 (c0 a multiple of 8, below cols) of a row. Columns past the last give zero. With
// `sparse` false the row-compressed delta is left out, for callers that add it on their own.
void weight_chunk(WeightBlock w, uint row, uint c0, bool sparse, out float o[8]) {
  if (W_KIND == 3u) {
    codebook_chunk(w, row, c0, o);
  } else {
    plain_chunk(w, row, c0, o);
  }
  if (W_DELTA != DELTA_NONE && W_DELTA != DELTA_CSR) add_delta(w, row, c0, o);
  if (W_DELTA == DELTA_CSR && sparse) add_sparse(w, row, c0, o);
  if (W_MASK == 1u) {
    uint64_t at = w.mask + uint64_t(row) * w.mask_stride + (uint64_t(c0 >> 5) << 2);
    uint keep = U32(at).v[0] >> (c0 & 31u);
    for (uint j = 0u; j < 8u; j++) o[j] = ((keep >> j) & 1u) != 0u ? o[j] : 0.0;
  }
  if (c0 + 8u > w.cols) {
    for (uint j = 0u; j < 8u; j++) o[j] = c0 + j < w.cols ? o[j] : 0.0;
  }
}
