#version 460
// Which parts of the matrix operands does an invocation hold? Every element of a matrix is its own
// place in it; each invocation writes down what it finds. One subgroup of 32.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

layout(push_constant, std430) uniform Push { uint64_t found; } p;  // [32 lanes][16]: A, B, C

shared float16_t halves[256];
shared float floats[128];

void main() {
  uint lane = gl_SubgroupInvocationID;
  for (uint i = lane; i < 256u; i += 32u) halves[i] = float16_t(float(i));
  for (uint i = lane; i < 128u; i += 32u) floats[i] = float(i);
  barrier();
  coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA> a;
  coopmat<float16_t, gl_ScopeSubgroup, 16, 8, gl_MatrixUseB> b;
  coopmat<float, gl_ScopeSubgroup, 16, 8, gl_MatrixUseAccumulator> c;
  coopMatLoad(a, halves, 0, 16, gl_CooperativeMatrixLayoutRowMajor);
  coopMatLoad(b, halves, 0, 8, gl_CooperativeMatrixLayoutRowMajor);
  coopMatLoad(c, floats, 0, 8, gl_CooperativeMatrixLayoutRowMajor);
  F32 to = F32(p.found + uint64_t(lane * 64u));
  for (int i = 0; i < 8; i++) to.v[i] = i < a.length() ? float(a[i]) : -1.0;
  for (int i = 0; i < 4; i++) to.v[8 + i] = b.length() == 4 ? float(b[i]) : -1.0;
  for (int i = 0; i < 4; i++) to.v[12 + i] = c.length() == 4 ? c[i] : -1.0;
}
