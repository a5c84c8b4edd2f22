#version 460
// Exchanges staged words with live ones. A run is a piece of live memory; its first and last words
// may belong to it in part, and their other bytes to a run that another workgroup exchanges: those
// are taken and put by atomics, which touch only their own bits.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"

// Mirrored by lqt__vk_swap_run (backends/vulkan/params.h).
struct Run {
  uint64_t live;
  uint words;
  uint staged;  // its first word among the staged ones
  uint first_mask;
  uint last_mask;
};
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer Runs { Run v[]; };

layout(push_constant, std430) uniform Push {
  Runs runs;
  U32 staged;
  uint count;
} p;

void main() {
  for (uint r = gl_WorkGroupID.x; r < p.count; r += gl_NumWorkGroups.x) {
    Run run = p.runs.v[r];
    U32 live = U32(run.live);
    for (uint i = gl_LocalInvocationIndex; i < run.words; i += WG) {
      uint mask = 0xffffffffu;
      if (i == 0u) mask &= run.first_mask;
      if (i + 1u == run.words) mask &= run.last_mask;
      uint value = p.staged.v[run.staged + i];
      if (mask == 0xffffffffu) {
        p.staged.v[run.staged + i] = live.v[i];
        live.v[i] = value;
      } else {
        p.staged.v[run.staged + i] = atomicAnd(live.v[i], ~mask) & mask;
        atomicOr(live.v[i], value & mask);
      }
    }
  }
}
