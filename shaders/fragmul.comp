#version 460
// y[T][N] = x[T][K] W[N][K]^T for many rows of x, on matrix units. A subgroup takes RT tiles of 16
// rows of W and NT tiles of 8 rows of x; it rebuilds its weights in registers, and the subgroups of a
// workgroup share the activations of a unit of columns in shared memory, filled one unit ahead.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"
#include "weight.glsl"
#include "frag.glsl"

layout(constant_id = 30) const uint RT = 2u;
layout(constant_id = 31) const uint NT = 8u;
layout(constant_id = 33) const uint BIAS = 0u;
layout(constant_id = 34) const uint ACCUMULATE = 0u;

layout(push_constant, std430) uniform Push {
  WeightBlock weight;
  uint64_t x;
  uint64_t y;
  uint64_t bias;
  uint x_stride;
  uint y_stride;
  uint tokens;
} p;

const uint SUBGROUPS = WG / 32u;
const uint X_UNIT = NT * STEPS / 2u * 32u;  // groups of eight values of x in a unit
const uint X_EACH = (X_UNIT + WG - 1u) / WG;
shared uvec4 x_tile[2u * X_UNIT];

uint lane, token0;
// Arrays whose size is specialised cannot be handed over whole.
uvec4 words[2u * RT], next_words[2u * RT], x_next[X_EACH];
uint scales[RT * UNITS], next_scales[RT * UNITS];

// Group i of a unit's activations, in the order that the operands want: [tile of 8][step / 2][lane].
uvec4 load_x(uint unit, uint i) {
  uint of = i & 31u, pair = i / 32u % (STEPS / 2u), n = i / 32u / (STEPS / 2u);
  uint token = token0 + n * 8u + (of >> 2), c = unit * UNIT_COLS + (of & 3u) * CW + pair * 8u;
  if (token >= p.tokens || c >= p.weight.cols) return uvec4(0u);
  return U4(p.x + ((uint64_t(token) * uint64_t(p.x_stride) + uint64_t(c)) << 1)).v[0];
}

void fetch_x(uint unit) {
  [[unroll]] for (uint j = 0u; j < X_EACH; j++) {
    uint i = gl_LocalInvocationIndex + j * WG;
    if (i < X_UNIT) x_next[j] = load_x(unit, i);
  }
}
void keep_x(uint parity) {
  [[unroll]] for (uint j = 0u; j < X_EACH; j++) {
    uint i = gl_LocalInvocationIndex + j * WG;
    if (i < X_UNIT) x_tile[parity * X_UNIT + i] = x_next[j];
  }
}

void fetch_w(uint tile0, uint block, uint tiles) {
  [[unroll]] for (uint r = 0u; r < RT; r++) {
    uint tile = min(tile0 + r, tiles - 1u);
    next_words[2u * r] = load_words(p.weight, tile * p.weight.blocks + block, 0u, lane);
    next_words[2u * r + 1u] = load_words(p.weight, tile * p.weight.blocks + block, 1u, lane);
    if (W_SCALES == 1u) {
      [[unroll]] for (uint u = 0u; u < UNITS; u++) {
        next_scales[r * UNITS + u] = load_scales(p.weight, tile, block, u, lane);
      }
    }
  }
}
void take_w() {
  [[unroll]] for (uint i = 0u; i < 2u * RT; i++) words[i] = next_words[i];
  [[unroll]] for (uint i = 0u; i < RT * UNITS; i++) scales[i] = next_scales[i];
}

void main() {
  lane = FRAG_LANE;
  const uint copy = lane & (COPIES - 1u);
  uint blocks = p.weight.blocks, tiles = (p.weight.rows + 15u) / 16u;
  uint tile0 = (gl_WorkGroupID.x * SUBGROUPS + FRAG_SUBGROUP) * RT;
  token0 = gl_WorkGroupID.y * NT * 8u;
  fetch_w(tile0, 0u, tiles);
  take_w();
  fetch_x(0u);
  fill_table(p.weight);
  keep_x(0u);
  float acc[RT * NT * 4u];
  [[unroll]] for (uint i = 0u; i < RT * NT * 4u; i++) acc[i] = 0.0;
  barrier();
  uint parity = 0u;
  for (uint block = 0u; block < blocks; block++) {
    fetch_w(tile0, min(block + 1u, blocks - 1u), tiles);
    [[unroll]] for (uint u = 0u; u < UNITS; u++) {
      uint unit = block * UNITS + u;
      fetch_x(unit + 1u);
      FRAG_A a[RT * STEPS];
      [[unroll]] for (uint r = 0u; r < RT; r++) {
        [[unroll]] for (uint j = 0u; j < STEPS; j++) {
          uint step = u * STEPS + j;
          a[r * STEPS + j] = frag_a(row_step(words[2u * r], step, copy),
                                    row_step(words[2u * r + 1u], step, copy));
        }
      }
      vec2 scale[RT];
      [[unroll]] for (uint r = 0u; r < RT; r++) {
        scale[r] = W_SCALES == 1u ? unpackHalf2x16(scales[r * UNITS + u]) : vec2(1.0);
      }
      [[unroll]] for (uint n = 0u; n < NT; n++) {
        FRAG_B b[STEPS];
        [[unroll]] for (uint j = 0u; j < STEPS; j += 2u) {
          uvec4 x = x_tile[parity * X_UNIT + (n * (STEPS / 2u) + j / 2u) * 32u + lane];
          b[j] = frag_b(x.xy);
          b[j + 1u] = frag_b(x.zw);
        }
        [[unroll]] for (uint r = 0u; r < RT; r++) {
          FRAG_C c = frag_zero();
          [[unroll]] for (uint j = 0u; j < STEPS; j++) {
            c = frag_multiply(a[r * STEPS + j], b[j], c);
          }
          [[unroll]] for (uint i = 0u; i < 4u; i++) {
            acc[(r * NT + n) * 4u + i] += (c_half(i) == 0u ? scale[r].x : scale[r].y) * FRAG_AT(c, i);
          }
        }
      }
      parity ^= 1u;
      keep_x(parity);
      barrier();
    }
    take_w();
  }
  // No `continue` here: a loop that has one is not unrolled, and the sums leave the registers.
  [[unroll]] for (uint r = 0u; r < RT; r++) {
    [[unroll]] for (uint i = 0u; i < 4u; i++) {
      uint row = (tile0 + r) * 16u + (lane >> 2) + c_half(i) * 8u;
      float bias = BIAS == 1u && row < p.weight.rows ? F32(p.bias).v[row] : 0.0;
      [[unroll]] for (uint n = 0u; n < NT; n++) {
        uint token = token0 + n * 8u + (lane & 3u) * 2u + (i & 1u);
        float sum = acc[(r * NT + n) * 4u + i] * p.weight.scale + bias;
        if (row < p.weight.rows && token < p.tokens) {
          uint64_t y = act_row(p.y, token, p.y_stride);
          if (ACCUMULATE == 1u) sum += act_load(y, row);
          act_store(y, row, sum);
        }
      }
    }
  }
}
