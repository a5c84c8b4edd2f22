#version 460
// GATHER: chosen rows.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"

layout(push_constant, std430) uniform Push {
  uint64_t x;
  uint64_t ids;
  uint64_t out_data;
  uint x_stride;
  uint out_stride;
  uint rows;    // of the output
  uint x_rows;
  uint cols;
} p;

void main() {
  for (uint r = gl_WorkGroupID.y; r < p.rows; r += gl_NumWorkGroups.y) {
    uint64_t x = act_row(p.x, min(uint(I32(p.ids).v[r]), p.x_rows - 1u), p.x_stride);
    uint64_t to = act_row(p.out_data, r, p.out_stride);
    for (uint c = gl_GlobalInvocationID.x; c < p.cols; c += gl_NumWorkGroups.x * WG) {
      act_store(to, c, act_load(x, c));
    }
  }
}
