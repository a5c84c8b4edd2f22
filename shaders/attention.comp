#version 460
// ATTENTION over paged keys and values: a workgroup a (head, token), positions in blocks of WG with
// a running maximum and sum. In a block each invocation scores one position; then the invocations
// split into teams, each of which adds its share of the positions' values.
// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"
#include "reduce.glsl"

layout(constant_id = 30) const uint PAGES_F16 = 1u;
layout(constant_id = 31) const uint WIDE = 0u;  // page rows and heads are 16-byte aligned
layout(constant_id = 32) const uint DIM = 64u;  // head_dim

layout(push_constant, std430) uniform Push {
  uint64_t q;
  uint64_t k_pages;
  uint64_t v_pages;
  uint64_t table;
  uint64_t positions;
  uint64_t sequences;
  uint64_t out_data;
  uint q_stride;
  uint k_stride;
  uint v_stride;
  uint table_stride;
  uint out_stride;
  uint tokens;
  uint heads;
  uint kv_heads;
  uint page_tokens;
  uint page_rows;
  uint max_pages;
  uint sequence_count;
  uint window;
  float scale;
} p;

const uint TEAMS = WG >= DIM ? WG / DIM : 1u;
const uint PER_LANE = (DIM + WG - 1u) / WG;  // values of an output that an invocation adds up
shared float query[DIM];
shared float weights[WG];
shared uint rows[WG];
shared float team_sums[WG];

float page_value(uint64_t row, uint c) {
  if (PAGES_F16 == 1u) return float(F16(row).v[c]);
  return F32(row).v[c];
}
uint64_t page_row(uint64_t pages, uint row, uint stride, uint first) {
  return pages + ((uint64_t(row) * uint64_t(stride) + uint64_t(first)) << (2u - PAGES_F16));
}

float score(uint row, uint first) {
  uint64_t k = page_row(p.k_pages, row, p.k_stride, first);
  float sum = 0.0;
  if (WIDE == 1u && PAGES_F16 == 1u) {
    for (uint d = 0u; d < DIM; d += 8u) {
      uvec4 packed = U4(k + (uint64_t(d) << 1)).v[0];
      for (uint i = 0u; i < 4u; i++) {
        vec2 two = unpackHalf2x16(packed[i]);
        sum += two.x * query[d + 2u * i] + two.y * query[d + 2u * i + 1u];
      }
    }
  } else {
    for (uint d = 0u; d < DIM; d++) sum += page_value(k, d) * query[d];
  }
  return sum * p.scale;
}

// Row of the pages that holds a position; always inside them.
uint row_of(uint sequence, uint position) {
  uint page = min(position / p.page_tokens, p.max_pages - 1u);
  uint64_t entry = uint64_t(sequence) * uint64_t(p.table_stride) + uint64_t(page);
  uint first = uint(I32(p.table + (entry << 2)).v[0]) * p.page_tokens;
  return min(first + position % p.page_tokens, p.page_rows - 1u);
}

void attend(uint t, uint head) {
  uint local = gl_LocalInvocationIndex;
  uint sequence = min(uint(I32(p.sequences).v[t]), p.sequence_count - 1u);
  uint last = min(uint(I32(p.positions).v[t]), p.max_pages * p.page_tokens - 1u);
  uint start = p.window > 0u && last + 1u > p.window ? last + 1u - p.window : 0u;
  uint first = head / (p.heads / p.kv_heads) * DIM;  // the head's columns in a page row
  uint team = local / DIM, dim = TEAMS > 1u ? local % DIM : local;
  barrier();  // the previous token's query has been read
  uint64_t q = act_row(p.q, t, p.q_stride);
  for (uint d = local; d < DIM; d += WG) query[d] = act_load(q, head * DIM + d);

  float most = -3.0e38, total = 0.0;
  float sums[PER_LANE];
  for (uint i = 0u; i < PER_LANE; i++) sums[i] = 0.0;
  for (uint block = start; block <= last; block += WG) {
    uint count = min(WG, last - block + 1u);
    barrier();
    float own = -3.0e38;
    if (local < count) {
      rows[local] = row_of(sequence, block + local);
      own = score(rows[local], first);
    }
    float now = max(most, workgroup_max(own));
    float weight = local < count ? exp(own - now) : 0.0;
    weights[local] = weight;
    float correction = exp(most - now);
    total = total * correction + workgroup_sum(weight);
    most = now;
    for (uint i = 0u; i < PER_LANE; i++) {
      sums[i] *= correction;
      uint d = dim + i * WG;
      if (d >= DIM || team >= TEAMS) continue;
      for (uint j = team; j < count; j += TEAMS) {
        sums[i] += weights[j] * page_value(page_row(p.v_pages, rows[j], p.v_stride, first), d);
      }
    }
  }
  uint64_t to = act_row(p.out_data, t, p.out_stride);
  if (TEAMS > 1u) {
    barrier();
    team_sums[local] = sums[0];
    barrier();
    if (local < DIM) {
      float sum = 0.0;
      for (uint i = 0u; i < TEAMS; i++) sum += team_sums[i * DIM + local];
      act_store(to, head * DIM + local, sum / total);
    }
  } else {
    for (uint i = 0u; i < PER_LANE; i++) {
      uint d = dim + i * WG;
      if (d < DIM) act_store(to, head * DIM + d, sums[i] / total);
    }
  }
}

void main() {
  for (uint t = gl_WorkGroupID.y; t < p.tokens; t += gl_NumWorkGroups.y) {
    for (uint head = gl_WorkGroupID.x; head < p.heads; head += gl_NumWorkGroups.x) attend(t, head);
  }
}
