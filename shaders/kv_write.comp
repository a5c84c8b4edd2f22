#version 460
// KV_WRITE: rows of K and V into their pages.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"

layout(constant_id = 30) const uint PAGES_F16 = 1u;

layout(push_constant, std430) uniform Push {
  uint64_t k;
  uint64_t v;
  uint64_t k_pages;
  uint64_t v_pages;
  uint64_t positions;
  uint64_t sequences;
  uint64_t table;
  uint k_stride;
  uint v_stride;
  uint k_pages_stride;
  uint v_pages_stride;
  uint table_stride;
  uint tokens;
  uint cols;
  uint page_tokens;
  uint page_rows;       // of the pages
  uint max_pages;       // of a sequence
  uint sequence_count;
} p;

void put(uint64_t pages, uint64_t at, float value) {
  if (PAGES_F16 == 1u) {
    F16(pages + (at << 1)).v[0] = float16_t(value);
  } else {
    F32(pages + (at << 2)).v[0] = value;
  }
}

void main() {
  for (uint t = gl_WorkGroupID.y; t < p.tokens; t += gl_NumWorkGroups.y) {
    uint position = uint(I32(p.positions).v[t]), sequence = uint(I32(p.sequences).v[t]);
    uint page = position / p.page_tokens;
    // Whatever the tables hold, nothing outside the pages is written.
    if (sequence >= p.sequence_count || page >= p.max_pages) continue;
    uint64_t entry = uint64_t(sequence) * uint64_t(p.table_stride) + uint64_t(page);
    uint64_t row = uint64_t(uint(I32(p.table + (entry << 2)).v[0])) * uint64_t(p.page_tokens) +
                   uint64_t(position % p.page_tokens);
    if (row >= uint64_t(p.page_rows)) continue;
    uint64_t k = act_row(p.k, t, p.k_stride), v = act_row(p.v, t, p.v_stride);
    for (uint c = gl_GlobalInvocationID.x; c < p.cols; c += gl_NumWorkGroups.x * WG) {
      put(p.k_pages, row * uint64_t(p.k_pages_stride) + uint64_t(c), act_load(k, c));
      put(p.v_pages, row * uint64_t(p.v_pages_stride) + uint64_t(c), act_load(v, c));
    }
  }
}
