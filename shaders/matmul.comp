#version 460
// y[T][N] = x[T][K] W[N][K]^T, tiled: a workgroup of 128 computes 32 tokens x 64 rows, rebuilding
// 64 x 32 weights at a time in shared memory. Float32 throughout; each sum is added in column order.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"
#include "weight.glsl"

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

const uint TILE_T = 32u, TILE_N = 64u, TILE_K = 32u;
// Column-major with a column of padding, so that neighbours read neighbouring banks.
shared float w_tile[TILE_K * (TILE_N + 1u)];
shared float x_tile[TILE_K * (TILE_T + 1u)];

void load_tiles(uint n0, uint t0, uint k0) {
  uint rows = p.weight.rows, cols = p.weight.cols;
  const uint chunks = TILE_K / 8u;
  for (uint i = gl_LocalInvocationIndex; i < TILE_N * chunks; i += WG) {
    uint n = i / chunks, k = i % chunks * 8u;
    float w[8] = float[8](0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    if (n0 + n < rows && k0 + k < cols) weight_chunk(p.weight, n0 + n, k0 + k, true, w);
    for (uint j = 0u; j < 8u; j++) w_tile[(k + j) * (TILE_N + 1u) + n] = w[j];
  }
  for (uint i = gl_LocalInvocationIndex; i < TILE_T * TILE_K; i += WG) {
    uint t = i / TILE_K, k = i % TILE_K;
    float value = 0.0;
    if (t0 + t < p.tokens && k0 + k < cols) {
      value = act_load(act_row(p.x, t0 + t, p.x_stride), k0 + k);
    }
    x_tile[k * (TILE_T + 1u) + t] = value;
  }
}

void main() {
  weight_begin(p.weight);
  uint rows = p.weight.rows, cols = p.weight.cols;
  uint tn = gl_LocalInvocationIndex % 16u;  // four rows tn, tn + 16, ...
  uint tt = gl_LocalInvocationIndex / 16u;  // four tokens tt, tt + 8, ...
  for (uint n0 = gl_WorkGroupID.x * TILE_N; n0 < rows; n0 += gl_NumWorkGroups.x * TILE_N) {
    for (uint t0 = gl_WorkGroupID.y * TILE_T; t0 < p.tokens; t0 += gl_NumWorkGroups.y * TILE_T) {
      vec4 sums[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
      for (uint k0 = 0u; k0 < cols; k0 += TILE_K) {
        barrier();
        load_tiles(n0, t0, k0);
        barrier();
        for (uint k = 0u; k < TILE_K; k++) {
          uint wa = k * (TILE_N + 1u) + tn, xa = k * (TILE_T + 1u) + tt;
          vec4 w = vec4(w_tile[wa], w_tile[wa + 16u], w_tile[wa + 32u], w_tile[wa + 48u]);
          sums[0] += w * x_tile[xa];
          sums[1] += w * x_tile[xa + 8u];
          sums[2] += w * x_tile[xa + 16u];
          sums[3] += w * x_tile[xa + 24u];
        }
      }
      for (uint i = 0u; i < 4u; i++) {
        uint t = t0 + tt + i * 8u;
        if (t >= p.tokens) continue;
        uint64_t y = act_row(p.y, t, p.y_stride);
        for (uint j = 0u; j < 4u; j++) {
          uint n = n0 + tn + j * 16u;
          if (n >= rows) continue;
          float value = sums[i][j];
          if (BIAS == 1u) value += F32(p.bias).v[n];
          if (ACCUMULATE == 1u) value += act_load(y, n);
          act_store(y, n, value);
        }
      }
    }
  }
}
