#version 460
// GLU, ACT and ADD.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"

layout(constant_id = 30) const uint OP = 0u;    // 0 act(a), 1 act(a) * b, 2 a + b
layout(constant_id = 31) const uint KIND = 0u;  // lqt_act

layout(push_constant, std430) uniform Push {
  uint64_t a;
  uint64_t b;
  uint64_t out_data;
  uint a_stride;
  uint b_stride;
  uint out_stride;
  uint rows;
  uint cols;
} p;

// 1 - erf(z) for z >= 0 by Chebyshev approximation, relative error under 1.2e-7.
// Source: Press et al., Numerical Recipes, 2nd edition, section 6.2.
float erfc_positive(float z) {
  float t = 1.0 / (1.0 + 0.5 * z);
  float poly =
      -1.26551223 +
      t * (1.00002368 +
           t * (0.37409196 +
                t * (0.09678418 +
                     t * (-0.18628806 +
                          t * (0.27886807 +
                               t * (-1.13520398 +
                                    t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
  return t * exp(-z * z + poly);
}

float activate(float x) {
  if (KIND == 0u) return x / (1.0 + exp(-x));
  if (KIND == 1u) {
    float tail = 0.5 * erfc_positive(abs(x) * 0.70710678);
    return x * (x < 0.0 ? tail : 1.0 - tail);
  }
  if (KIND == 2u) {
    float u = 0.79788456 * (x + 0.044715 * x * x * x);
    return x - x / (exp(2.0 * u) + 1.0);
  }
  return max(x, 0.0);
}

void main() {
  for (uint r = gl_WorkGroupID.y; r < p.rows; r += gl_NumWorkGroups.y) {
    uint64_t a = act_row(p.a, r, p.a_stride), b = act_row(p.b, r, p.b_stride);
    uint64_t to = act_row(p.out_data, r, p.out_stride);
    for (uint c = gl_GlobalInvocationID.x; c < p.cols; c += gl_NumWorkGroups.x * WG) {
      float value = act_load(a, c);
      if (OP != 2u) value = activate(value);
      if (OP == 1u) value *= act_load(b, c);
      if (OP == 2u) value += act_load(b, c);
      act_store(to, c, value);
    }
  }
}
