// What every shader shares: memory is reached by 64-bit device addresses that arrive in the push
// constants (no descriptors), and views are rows of `stride` elements. The push blocks of the
// shaders are mirrored in backends/vulkan/params.h.
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#extension GL_EXT_shader_16bit_storage : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require

layout(local_size_x_id = 0) in;                // invocations of a workgroup
layout(constant_id = 0) const uint WG = 128u;  // the same number
layout(constant_id = 1) const uint ACT = 0u;   // activations: 0 float32, 1 float16

layout(buffer_reference, std430, buffer_reference_align = 4) buffer F32 { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 2) buffer F16 { float16_t v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer U32 { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer I32 { int v[]; };
layout(buffer_reference, std430, buffer_reference_align = 2) buffer U16 { uint16_t v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer V4 { vec4 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer U4 { uvec4 v[]; };

// Address of row r of activations, and their elements.
uint64_t act_row(uint64_t base, uint r, uint stride) {
  return base + ((uint64_t(r) * uint64_t(stride)) << (2u - ACT));
}
float act_load(uint64_t row, uint c) {
  if (ACT == 1u) return float(F16(row).v[c]);
  return F32(row).v[c];
}
void act_store(uint64_t row, uint c, float value) {
  if (ACT == 1u) {
    F16(row).v[c] = float16_t(value);
  } else {
    F32(row).v[c] = value;
  }
}
