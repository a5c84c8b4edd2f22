#version 460
// Rows of a weight as activations: all of them (DEQUANT), or those that ids name (EMBED).
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"
#include "weight.glsl"

layout(constant_id = 30) const uint EMBED = 0u;

layout(push_constant, std430) uniform Push {
  WeightBlock weight;
  uint64_t ids;
  uint64_t out_data;
  uint out_stride;
  uint rows;  // of the output
} p;

void main() {
  weight_begin(p.weight);
  uint cols = p.weight.cols, last = p.weight.rows - 1u;
  uint step = gl_NumWorkGroups.x * WG * 8u;
  for (uint r = gl_WorkGroupID.y; r < p.rows; r += gl_NumWorkGroups.y) {
    uint row = EMBED == 1u ? min(uint(I32(p.ids).v[r]), last) : r;
    uint64_t to = act_row(p.out_data, r, p.out_stride);
    for (uint c = gl_GlobalInvocationID.x * 8u; c < cols; c += step) {
      float w[8];
      weight_chunk(p.weight, row, c, true, w);
      for (uint j = 0u; j < 8u; j++) {
        if (c + j < cols) act_store(to, c + j, w[j]);
      }
    }
  }
}
