#version 460
// y[T][N] = x[T][K] W[N][K]^T, TOKENS rows of x to a workgroup (gl_WorkGroupID.y says which). A
// subgroup of any size computes ROWS rows
// of W; its invocations take columns in turn, eight at a time, and their sums are added in a fixed
// order. Nothing is assumed of the subgroup but its active invocations, which are counted.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"
#include "weight.glsl"

layout(constant_id = 30) const uint ROWS = 4u;
layout(constant_id = 31) const uint TOKENS = 1u;
layout(constant_id = 32) const uint WIDE = 0u;        // rows of x are 16-byte aligned float32
layout(constant_id = 33) const uint BIAS = 0u;
layout(constant_id = 34) const uint ACCUMULATE = 0u;
layout(constant_id = 35) const uint GROUP_ROWS = 16u;  // rows of a workgroup
// 4-bit scalar codebooks in shared memory, groups of 32 or more (or none), no zero points, masks or
// deltas but sparse ones, WIDE: an invocation takes four words of indices at a time.
layout(constant_id = 36) const uint FAST = 0u;

layout(push_constant, std430) uniform Push {
  WeightBlock weight;
  uint64_t x;
  uint64_t y;
  uint64_t bias;
  uint x_stride;
  uint y_stride;
  uint tokens;
} p;

float sums[ROWS * TOKENS];
// This workgroup's rows of x and y.
uint64_t x_base, y_base;
uint tokens;

void load_x(uint token, uint c, uint cols, out float x[8]) {
  uint64_t row = act_row(x_base, token, p.x_stride);
  if (c + 8u > cols) {
    for (uint j = 0u; j < 8u; j++) x[j] = c + j < cols ? act_load(row, c + j) : 0.0;
  } else if (WIDE == 1u) {
    V4 from = V4(row + (uint64_t(c) << 2));
    vec4 a = from.v[0], b = from.v[1];
    for (uint j = 0u; j < 4u; j++) {
      x[j] = a[j];
      x[j + 4u] = b[j];
    }
  } else {
    for (uint j = 0u; j < 8u; j++) x[j] = act_load(row, c + j);
  }
}

// Columns below `end`, a multiple of lanes * 32. An invocation takes four words of indices at once,
// each next to its neighbours' words, so that indices and x are read in whole lines.
void add_columns_fast(uint row0, uint lane, uint lanes, uint end) {
  uint64_t data[ROWS], scales[ROWS];
  for (uint r = 0u; r < ROWS; r++) {
    uint64_t row = uint64_t(min(row0 + r, p.weight.rows - 1u));
    data[r] = p.weight.data + row * p.weight.data_stride;
    scales[r] = p.weight.group_scales + ((row * uint64_t(p.weight.group_stride)) << 1);
  }
  uint64_t x = x_base;
  uint x_stride = p.x_stride;
  float scale = p.weight.scale;
  for (uint base = lane * 8u; base < end; base += lanes * 32u) {
    uvec4 packed[ROWS];
    vec4 factor[ROWS];
    for (uint r = 0u; r < ROWS; r++) {
      for (uint word = 0u; word < 4u; word++) {
        uint c = base + word * lanes * 8u;
        packed[r][word] = U32(data[r] + uint64_t(c >> 1)).v[0];
        factor[r][word] = scale;
        if (W_SCALES == 1u) {
          factor[r][word] *= float(F16(scales[r] + (uint64_t(c >> W_GROUP_SHIFT) << 1)).v[0]);
        }
      }
    }
    for (uint word = 0u; word < 4u; word++) {
      uint c = base + word * lanes * 8u;
      vec4 low[TOKENS], high[TOKENS];
      for (uint t = 0u; t < TOKENS; t++) {
        uint64_t row = x + ((uint64_t(min(t, tokens - 1u)) * uint64_t(x_stride)) << 2);
        V4 from = V4(row + (uint64_t(c) << 2));
        low[t] = from.v[0];
        high[t] = from.v[1];
      }
      for (uint r = 0u; r < ROWS; r++) {
        uint bits = packed[r][word];
        vec4 a = vec4(book_table[bits & 15u], book_table[(bits >> 4) & 15u],
                      book_table[(bits >> 8) & 15u], book_table[(bits >> 12) & 15u]);
        vec4 b = vec4(book_table[(bits >> 16) & 15u], book_table[(bits >> 20) & 15u],
                      book_table[(bits >> 24) & 15u], book_table[bits >> 28]);
        for (uint t = 0u; t < TOKENS; t++) {
          sums[r * TOKENS + t] += factor[r][word] * (dot(a, low[t]) + dot(b, high[t]));
        }
      }
    }
  }
}

void add_columns(uint row0, uint lane, uint lanes, uint begin) {
  uint rows = p.weight.rows, cols = p.weight.cols;
  for (uint c = begin + lane * 8u; c < cols; c += lanes * 8u) {
    float x[TOKENS * 8u];
    for (uint t = 0u; t < TOKENS; t++) {
      float part[8];
      load_x(min(t, tokens - 1u), c, cols, part);
      for (uint j = 0u; j < 8u; j++) x[t * 8u + j] = part[j];
    }
    for (uint r = 0u; r < ROWS; r++) {
      float w[8];
      weight_chunk(p.weight, min(row0 + r, rows - 1u), c, false, w);
      for (uint t = 0u; t < TOKENS; t++) {
        for (uint j = 0u; j < 8u; j++) sums[r * TOKENS + t] += w[j] * x[t * 8u + j];
      }
    }
  }
}

void add_sparse_rows(uint row0, uint lane, uint lanes) {
  for (uint r = 0u; r < ROWS; r++) {
    uint row = min(row0 + r, p.weight.rows - 1u);
    U32 bounds = U32(p.weight.row_ptr + (uint64_t(row) << 2));
    uint end = bounds.v[1];
    for (uint i = bounds.v[0] + lane; i < end; i += lanes) {
      uint c = csr_column(p.weight, i);
      if (!mask_keeps(p.weight, row, c)) continue;
      float value = csr_at(p.weight, i);
      for (uint t = 0u; t < TOKENS; t++) {
        uint token = min(t, tokens - 1u);
        sums[r * TOKENS + t] += value * act_load(act_row(x_base, token, p.x_stride), c);
      }
    }
  }
}

void store(uint row, uint token, float value) {
  if (BIAS == 1u) value += F32(p.bias).v[row];
  uint64_t y = act_row(y_base, token, p.y_stride);
  if (ACCUMULATE == 1u) value += act_load(y, row);
  act_store(y, row, value);
}

void main() {
  weight_begin(p.weight);
  uint first = gl_WorkGroupID.y * TOKENS;
  tokens = min(p.tokens - first, TOKENS);
  x_base = act_row(p.x, first, p.x_stride);
  y_base = act_row(p.y, first, p.y_stride);
  uint lanes = subgroupAdd(1u);
  uint lane = subgroupExclusiveAdd(1u);
  uint rows = p.weight.rows;
  for (uint block = gl_WorkGroupID.x * GROUP_ROWS; block < rows;
       block += gl_NumWorkGroups.x * GROUP_ROWS) {
    for (uint at = gl_SubgroupID * ROWS; at < GROUP_ROWS; at += gl_NumSubgroups * ROWS) {
      uint row0 = block + at;
      if (row0 >= rows) break;
      for (uint i = 0u; i < ROWS * TOKENS; i++) sums[i] = 0.0;
      uint fast = FAST == 1u ? p.weight.cols / (lanes * 32u) * (lanes * 32u) : 0u;
      if (FAST == 1u) add_columns_fast(row0, lane, lanes, fast);
      add_columns(row0, lane, lanes, fast);
      if (W_DELTA == DELTA_CSR) add_sparse_rows(row0, lane, lanes);
      for (uint r = 0u; r < ROWS; r++) {
        for (uint t = 0u; t < TOKENS; t++) {
          float sum = subgroupAdd(sums[r * TOKENS + t]);
          if (lane == 0u && row0 + r < rows && t < tokens) store(row0 + r, t, sum);
        }
      }
    }
  }
}
