#version 460
// y[T][N] = x[T][K] W[N][K]^T for up to 16 rows of x, on matrix units.
//
// K is cut into slices, and a slice into pieces of PIECE units, one for each of WK subgroups. A
// subgroup holds the activations of its piece in registers and goes down the tiles of a round (16
// rows of W each); then comes the next slice. Each subgroup adds to sums of its own in shared
// memory; at the end of a round they are added in a fixed order and stored. The indices of the next
// tile are on their way while those of this one are used.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"
#include "weight.glsl"
#include "frag.glsl"

layout(constant_id = 30) const uint WK = 8u;      // subgroups over the columns of a slice
layout(constant_id = 31) const uint TOKENS = 1u;  // rows of x at most; a power of two
layout(constant_id = 32) const uint ROUND = 2u;   // tiles of a subgroup in a round
layout(constant_id = 33) const uint BIAS = 0u;
layout(constant_id = 34) const uint ACCUMULATE = 0u;
layout(constant_id = 35) const uint PIECE = 4u;  // units of a piece at least; at most 8 for one row

layout(push_constant, std430) uniform Push {
  WeightBlock weight;
  uint64_t x;
  uint64_t y;
  uint64_t bias;
  uint x_stride;
  uint y_stride;
  uint tokens;
} p;

const uint SUBGROUPS = WG / 32u, WR = SUBGROUPS / WK;
const uint NT = TOKENS > 8u ? 2u : 1u;
const uint DEPTH = PIECE > UNITS ? PIECE / UNITS : 1u;  // blocks of a piece
const uint STEP_UNITS = DEPTH * UNITS;
const uint X4 = CW / 8u;  // groups of eight values of x of a lane in a unit
// One row of x: the columns of B are the units of the piece, and of the product of unit u only
// column u is taken. More: the columns are the rows of x.
const uint HELD = TOKENS == 1u ? X4 : STEP_UNITS * NT * X4;
const uint TILE = 16u * TOKENS;
shared float sums[ROUND * SUBGROUPS * TILE];  // [tile of the round][subgroup][token][row]

uvec4 words[DEPTH * 2u];
uint scales[DEPTH * UNITS];
uvec4 held[HELD];
float acc[NT * 4u];
uint lane, blocks, tiles;

void fetch(uint slot, uint tile, uint block) {
  tile = min(tile, tiles - 1u);
  block = min(block, blocks - 1u);
  uint chunk = tile * blocks + block;
  words[2u * slot] = load_words(p.weight, chunk, 0u, lane);
  words[2u * slot + 1u] = load_words(p.weight, chunk, 1u, lane);
  if (W_SCALES == 1u) {
    [[unroll]] for (uint u = 0u; u < UNITS; u++) {
      scales[slot * UNITS + u] = load_scales(p.weight, tile, block, u, lane);
    }
  }
}

uvec4 load_x(uint token, uint c) {
  if (token >= p.tokens || c >= p.weight.cols) return uvec4(0u);
  return U4(p.x + ((uint64_t(token) * uint64_t(p.x_stride) + uint64_t(c)) << 1)).v[0];
}

// The activations of the piece that begins with block `first`; zero past the end, where the blocks
// that are read instead must not count.
void hold_x(uint first) {
  uint g = lane >> 2, c = first * BLOCK_COLS + (lane & 3u) * CW;
  if (TOKENS == 1u) {
    [[unroll]] for (uint i = 0u; i < X4; i++) {
      held[i] = g < STEP_UNITS ? load_x(0u, c + g * UNIT_COLS + i * 8u) : uvec4(0u);
    }
    return;
  }
  [[unroll]] for (uint u = 0u; u < STEP_UNITS; u++) {
    [[unroll]] for (uint n = 0u; n < NT; n++) {
      [[unroll]] for (uint i = 0u; i < X4; i++) {
        held[(u * NT + n) * X4 + i] = load_x(n * 8u + g, c + u * UNIT_COLS + i * 8u);
      }
    }
  }
}

void multiply(uint d) {
  const uint copy = lane & (COPIES - 1u);
  [[unroll]] for (uint v = 0u; v < UNITS; v++) {
    uint u = d * UNITS + v;
    FRAG_C c[NT];
    [[unroll]] for (uint n = 0u; n < NT; n++) c[n] = frag_zero();
    [[unroll]] for (uint j = 0u; j < STEPS; j++) {
      FRAG_A a = frag_a(row_step(words[2u * d], v * STEPS + j, copy),
                        row_step(words[2u * d + 1u], v * STEPS + j, copy));
      [[unroll]] for (uint n = 0u; n < NT; n++) {
        uvec4 x = held[TOKENS == 1u ? j / 2u : (u * NT + n) * X4 + j / 2u];
        c[n] = frag_multiply(a, frag_b((j & 1u) == 0u ? x.xy : x.zw), c[n]);
      }
    }
    vec2 scale = vec2(1.0);
    if (W_SCALES == 1u) scale = unpackHalf2x16(scales[d * UNITS + v]);
    if (TOKENS == 1u) {
      bool mine = (lane & 3u) == u / 2u;
      [[unroll]] for (uint q = 0u; q < 2u; q++) {
        float part = (c_half(2u * q) == 0u ? scale.x : scale.y) * FRAG_AT(c[0], 2u * q + (u & 1u));
        acc[q] += mine ? part : 0.0;
      }
    } else {
      [[unroll]] for (uint n = 0u; n < NT; n++) {
        [[unroll]] for (uint i = 0u; i < 4u; i++) {
          acc[n * 4u + i] += (c_half(i) == 0u ? scale.x : scale.y) * FRAG_AT(c[n], i);
        }
      }
    }
  }
}

void add_sum(uint at, float value, bool fresh) {
  value *= p.weight.scale;
  sums[at] = fresh ? value : sums[at] + value;
}

// What the subgroup has summed of a tile, to its place in shared memory.
void give_sums(uint tile, bool fresh) {
  uint g = lane >> 2, t = lane & 3u, to = (tile * SUBGROUPS + FRAG_SUBGROUP) * TILE;
  if (TOKENS == 1u) {
    [[unroll]] for (uint q = 0u; q < 2u; q++) {
      float sum = acc[q];
      sum += frag_xor(sum, 1u);
      sum += frag_xor(sum, 2u);
      if (t == 0u) add_sum(to + g + c_half(2u * q) * 8u, sum, fresh);
    }
  } else {
    [[unroll]] for (uint n = 0u; n < NT; n++) {
      [[unroll]] for (uint i = 0u; i < 4u; i++) {
        uint token = n * 8u + t * 2u + (i & 1u);
        if (token < TOKENS) add_sum(to + token * 16u + g + c_half(i) * 8u, acc[n * 4u + i], fresh);
      }
    }
  }
}

// The row-compressed delta of a row, by one subgroup.
float sparse_sum(uint row, uint token) {
  U32 bounds = U32(p.weight.row_ptr + (uint64_t(row) << 2));
  uint end = bounds.v[1];
  float sum = 0.0;
#ifdef FRAG_EMULATE
  const uint first = 0u, step = 1u;  // each invocation alone
#else
  uint first = lane;
  const uint step = 32u;
#endif
  for (uint i = bounds.v[0] + first; i < end; i += step) {
    sum += csr_at(p.weight, i) *
           act_load(act_row(p.x, token, p.x_stride), csr_column(p.weight, i));
  }
#ifdef FRAG_EMULATE
  return sum;
#else
  return subgroupAdd(sum);
#endif
}

// Adds the delta to the sums of the first of the subgroups that share a tile.
void add_sparse(uint base, uint count) {
  for (uint r = FRAG_SUBGROUP; r < count * WR * 16u; r += SUBGROUPS) {
    uint tile = r / 16u, row = (base + tile) * 16u + r % 16u;
    if (row >= p.weight.rows) continue;
    uint at = (tile / WR * SUBGROUPS + tile % WR * WK) * TILE + r % 16u;
    for (uint t = 0u; t < p.tokens; t++) {
      float sum = sparse_sum(row, t);
      if (lane == 0u) sums[at + t * 16u] += sum;
    }
  }
}

void store_round(uint base, uint count) {
  for (uint i = gl_LocalInvocationIndex; i < count * WR * TILE; i += WG) {
    uint tile = i / TILE, at = i % TILE, row = (base + tile) * 16u + at % 16u, token = at / 16u;
    if (row >= p.weight.rows || token >= p.tokens) continue;
    uint from = (tile / WR * SUBGROUPS + tile % WR * WK) * TILE + at;
    float sum = 0.0;
    [[unroll]] for (uint k = 0u; k < WK; k++) sum += sums[from + k * TILE];
    if (BIAS == 1u) sum += F32(p.bias).v[row];
    uint64_t y = act_row(p.y, token, p.y_stride);
    if (ACCUMULATE == 1u) sum += act_load(y, row);
    act_store(y, row, sum);
  }
}

void main() {
  lane = FRAG_LANE;
  blocks = p.weight.blocks;
  tiles = (p.weight.rows + 15u) / 16u;
  const uint slice = WK * DEPTH;  // blocks
  uint piece = FRAG_SUBGROUP % WK * DEPTH, wr = FRAG_SUBGROUP / WK;
  // The workgroup's tiles, in groups of WR.
  uint groups = (tiles + WR - 1u) / WR;
  uint begin = uint(uint64_t(groups) * gl_WorkGroupID.x / gl_NumWorkGroups.x);
  uint end = uint(uint64_t(groups) * (gl_WorkGroupID.x + 1u) / gl_NumWorkGroups.x);
  [[unroll]] for (uint d = 0u; d < DEPTH; d++) fetch(d, begin * WR + wr, piece + d);
  fill_table(p.weight);
  barrier();
  for (uint top = begin; top < end; top += ROUND) {
    uint count = min(ROUND, end - top);
    for (uint first = 0u; first < blocks; first += slice) {
      hold_x(first + piece);
      for (uint i = 0u; i < count; i++) {
        // What comes next: the tile below, else the next slice, else the next round.
        uint next = top + i + 1u, next_first = first;
        if (i + 1u == count) {
          next_first = first + slice < blocks ? first + slice : 0u;
          next = next_first != 0u ? top : min(top + ROUND, end - 1u);
        }
        [[unroll]] for (uint q = 0u; q < NT * 4u; q++) acc[q] = 0.0;
        [[unroll]] for (uint d = 0u; d < DEPTH; d++) {
          multiply(d);
          fetch(d, next * WR + wr, next_first + piece + d);
        }
        give_sums(i, first == 0u);
      }
    }
    barrier();
    if (W_DELTA == DELTA_CSR) {
      add_sparse(top * WR, count);
      barrier();
    }
    store_round(top * WR, count);
    barrier();
  }
}
