#version 460
// RMSNORM and LAYERNORM: a workgroup a row. Variance is taken around the mean in a second pass.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"
#include "reduce.glsl"

layout(constant_id = 30) const uint LAYER = 0u;
layout(constant_id = 31) const uint BIAS = 0u;

layout(push_constant, std430) uniform Push {
  uint64_t x;
  uint64_t gain;
  uint64_t bias;
  uint64_t out_data;
  uint x_stride;
  uint out_stride;
  uint rows;
  uint cols;
  float eps;
} p;

void main() {
  for (uint r = gl_WorkGroupID.x; r < p.rows; r += gl_NumWorkGroups.x) {
    uint64_t x = act_row(p.x, r, p.x_stride), to = act_row(p.out_data, r, p.out_stride);
    float mean = 0.0;
    if (LAYER == 1u) {
      for (uint c = gl_LocalInvocationIndex; c < p.cols; c += WG) mean += act_load(x, c);
      mean = workgroup_sum(mean) / float(p.cols);
    }
    float squares = 0.0;
    for (uint c = gl_LocalInvocationIndex; c < p.cols; c += WG) {
      float value = act_load(x, c) - mean;
      squares += value * value;
    }
    float inverse = 1.0 / sqrt(workgroup_sum(squares) / float(p.cols) + p.eps);
    for (uint c = gl_LocalInvocationIndex; c < p.cols; c += WG) {
      float value = (act_load(x, c) - mean) * inverse * F32(p.gain).v[c];
      if (BIAS == 1u) value += F32(p.bias).v[c];
      act_store(to, c, value);
    }
  }
}
