// Products on matrix units, for weights in the tiled order (shaders/weight.glsl). What an
// invocation of a subgroup of 32 holds of an operand is known (the host has asked the device,
// shaders/fragprobe.comp): with g = lane / 4 and t = lane % 4,
//   A 16 x 16: rows g and g + 8, columns 2t, 2t + 1, 2t + 8, 2t + 9
//   B 16 x 8:  column g, rows as A's columns
//   C 16 x 8:  rows g and g + 8, columns 2t and 2t + 1
// so operands are built in registers. The order of columns inside a product is free as long as both
// operands agree: in step s of a unit, lane t takes the four weights t * CW + 4s of its rows, which
// stand beside each other in its packed indices, and the four values of x at the same place.
//
// With FRAG_EMULATE the same products are made by plain arithmetic over shared memory, on any device
// and with any compiler: slow, and there to test everything around them.
#extension GL_EXT_control_flow_attributes : require
#ifdef FRAG_EMULATE
#define FRAG_LANE (gl_LocalInvocationIndex & 31u)
#define FRAG_SUBGROUP (gl_LocalInvocationIndex >> 5)
#else
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_shuffle : require
#define FRAG_LANE gl_SubgroupInvocationID
#define FRAG_SUBGROUP gl_SubgroupID
#endif

// Orders in which an invocation holds those parts; see lqt__vk_frag_probe.
layout(constant_id = 40) const uint A_ORDER = 0xe4u;  // pair p: bit 2p its row's half, 2p + 1 its
                                                      // column's
layout(constant_id = 41) const uint B_ORDER = 2u;     // pair p: bit p its row's half
layout(constant_id = 42) const uint C_ORDER = 2u;     // pair p: bit p its row's half
layout(constant_id = 43) const uint REPLICAS = 32u;   // of the table of pairs; a power of two

const uint LANE_COLS = W_LANE * 8u * W_DIM / W_BITS;   // columns of a lane in a block
const uint CW = W_GRANULE * 8u * W_DIM / W_BITS;       // in a unit
const uint UNITS = W_LANE / (W_GRANULE > 0u ? W_GRANULE : 1u);
const uint STEPS = CW / 4u;                            // of 16 columns, in a unit
const uint UNIT_COLS = CW * 4u, BLOCK_COLS = LANE_COLS * 4u;

// A field of FIELD_BITS indexes a table of FIELD_COLS float16 values.
const uint STEP_BITS = 4u * W_BITS / W_DIM;  // of a row's four weights in a step
const uint FIELD_COLS = STEP_BITS <= 8u ? 4u : STEP_BITS <= 16u ? 2u : 1u;
const uint FIELD_BITS = STEP_BITS * FIELD_COLS / 4u;
const uint FIELDS = 1u << FIELD_BITS;
const uint FIELD_WORDS = FIELD_COLS == 4u ? 2u : 1u;
// Rows of the table are spread over the banks, a copy for each lane (for each two when an entry has
// two words), so that no two lanes meet.
const uint COPIES = REPLICAS / FIELD_WORDS;
shared uint pairs[FIELD_WORDS == 1u ? FIELDS * COPIES : 1u];
shared uvec2 quads[FIELD_WORDS == 2u ? FIELDS * COPIES : 1u];

uint field_value(WeightBlock w, uint field, uint column) {
  uint index = (field >> (column / W_DIM * W_BITS)) & ((1u << W_BITS) - 1u);
  if (index >= w.entries) return 0u;
  return uint(U16(w.book + (uint64_t(index * W_DIM + column % W_DIM) << 1)).v[0]);
}

// Every invocation of the workgroup calls it once; a barrier has to follow.
void fill_table(WeightBlock w) {
  const uint parts = WG > FIELDS ? WG / FIELDS : 1u;
  const uint each = COPIES > parts ? COPIES / parts : 1u;
  for (uint i = gl_LocalInvocationIndex; i < FIELDS * parts; i += WG) {
    uint field = i % FIELDS, part = i / FIELDS;
    uvec2 value = uvec2(field_value(w, field, 0u), 0u);
    if (FIELD_COLS >= 2u) value.x |= field_value(w, field, 1u) << 16;
    if (FIELD_COLS == 4u) {
      value.y = field_value(w, field, 2u) | (field_value(w, field, 3u) << 16);
    }
    if (part * each >= COPIES) continue;
    for (uint j = 0u; j < each; j++) {
      uint at = field * COPIES + part * each + ((j + i) & (each - 1u));
      if (FIELD_WORDS == 1u) {
        pairs[at] = value.x;
      } else {
        quads[at] = value;
      }
    }
  }
}

// Place in the table of the field that stands at bit `at` of a lane's words. The field is shifted to
// where the number of a row of the table stands, so that masking it and joining the copy is all.
uint field_place(uvec4 words, uint at, uint copy) {
  const uint to = COPIES == 32u ? 5u : COPIES == 16u ? 4u : COPIES == 8u ? 3u : COPIES == 4u ? 2u : 1u;
  const uint mask = (FIELDS - 1u) << to;
  uint word = at >> 5, from = at & 31u;
  uint value = words[word];
  if (from + FIELD_BITS > 32u) {  // crosses into the next word
    value = (value >> from) | (words[(word + 1u) & 3u] << (32u - from));
    from = 0u;
  }
  value = from >= to ? value >> (from - to) : value << (to - from);
  return (value & mask) | copy;
}
uint look_up(uvec4 words, uint at, uint copy) { return pairs[field_place(words, at, copy)]; }

// Four weights of a row, as they stand in step `step` of a lane's block.
uvec2 row_step(uvec4 words, uint step, uint copy) {
  uint at = step * STEP_BITS;
  if (FIELD_COLS == 4u) return quads[field_place(words, at, copy)];
  if (FIELD_COLS == 2u) {
    return uvec2(look_up(words, at, copy), look_up(words, at + FIELD_BITS, copy));
  }
  uint a = look_up(words, at, copy), b = look_up(words, at + FIELD_BITS, copy);
  uint c = look_up(words, at + 2u * FIELD_BITS, copy);
  uint d = look_up(words, at + 3u * FIELD_BITS, copy);
  return uvec2(a | (b << 16), c | (d << 16));
}

// Half (0: row g, 1: row g + 8) of element i of C, and its column's low bit.
uint c_half(uint i) { return (C_ORDER >> (i >> 1)) & 1u; }
// The word of pair p of A: of the upper row or the lower one, of the first columns or the last.
uint a_word(uvec2 top, uvec2 bottom, uint p) {
  uint place = (A_ORDER >> (2u * p)) & 3u;
  return place == 0u ? top.x : place == 1u ? bottom.x : place == 2u ? top.y : bottom.y;
}
uint b_word(uvec2 x, uint p) { return ((B_ORDER >> p) & 1u) == 0u ? x.x : x.y; }

#ifdef FRAG_EMULATE
struct FragA {
  vec2 v[4];
};
struct FragB {
  vec2 v[2];
};
struct FragC {
  float v[4];
};
#define FRAG_A FragA
#define FRAG_B FragB
#define FRAG_C FragC
#define FRAG_AT(c, i) (c).v[i]
FragC frag_zero() { return FragC(float[4](0.0, 0.0, 0.0, 0.0)); }

shared float frag_shared[WG / 32u * 384u];

FragA frag_a(uvec2 top, uvec2 bottom) {
  FragA a;
  for (uint p = 0u; p < 4u; p++) a.v[p] = unpackHalf2x16(a_word(top, bottom, p));
  return a;
}
FragB frag_b(uvec2 x) {
  FragB b;
  for (uint p = 0u; p < 2u; p++) b.v[p] = unpackHalf2x16(b_word(x, p));
  return b;
}
// All invocations of the workgroup call it together.
FragC frag_multiply(FragA a, FragB b, FragC c) {
  uint g = FRAG_LANE >> 2, t = FRAG_LANE & 3u, base = FRAG_SUBGROUP * 384u;
  barrier();
  for (uint p = 0u; p < 4u; p++) {
    uint place = (A_ORDER >> (2u * p)) & 3u;
    uint at = base + (g + (place & 1u) * 8u) * 16u + t * 2u + (place >> 1) * 8u;
    frag_shared[at] = a.v[p].x;
    frag_shared[at + 1u] = a.v[p].y;
  }
  for (uint p = 0u; p < 2u; p++) {
    uint at = base + 256u + (t * 2u + ((B_ORDER >> p) & 1u) * 8u) * 8u + g;
    frag_shared[at] = b.v[p].x;
    frag_shared[at + 8u] = b.v[p].y;
  }
  barrier();
  for (uint i = 0u; i < 4u; i++) {
    uint row = g + c_half(i) * 8u, column = t * 2u + (i & 1u);
    for (uint k = 0u; k < 16u; k++) {
      c.v[i] += frag_shared[base + row * 16u + k] * frag_shared[base + 256u + k * 8u + column];
    }
  }
  return c;
}
float frag_xor(float value, uint mask) {
  barrier();
  frag_shared[gl_LocalInvocationIndex] = value;
  barrier();
  return frag_shared[gl_LocalInvocationIndex ^ mask];
}
#else
#define FRAG_A coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA>
#define FRAG_B coopmat<float16_t, gl_ScopeSubgroup, 16, 8, gl_MatrixUseB>
#define FRAG_C coopmat<float, gl_ScopeSubgroup, 16, 8, gl_MatrixUseAccumulator>
#define FRAG_AT(c, i) (c)[i]
#define frag_zero() FRAG_C(0.0)
#define frag_multiply(a, b, c) coopMatMulAdd(a, b, c)
#define frag_xor(value, mask) subgroupShuffleXor(value, mask)

FRAG_A frag_a(uvec2 top, uvec2 bottom) {
  FRAG_A a;
  [[unroll]] for (uint p = 0u; p < 4u; p++) {
    f16vec2 v = unpackFloat2x16(a_word(top, bottom, p));
    a[2u * p] = v.x;
    a[2u * p + 1u] = v.y;
  }
  return a;
}
FRAG_B frag_b(uvec2 x) {
  FRAG_B b;
  [[unroll]] for (uint p = 0u; p < 2u; p++) {
    f16vec2 v = unpackFloat2x16(b_word(x, p));
    b[2u * p] = v.x;
    b[2u * p + 1u] = v.y;
  }
  return b;
}
#endif

// The packed indices of a lane: half 0 for row g of the tile, 1 for row g + 8. `chunk` counts blocks
// from the first of the weight; 32 bits hold what 64 GiB of indices need.
uvec4 load_words(WeightBlock w, uint chunk, uint rows_half, uint lane) {
  uint at = chunk * 64u + rows_half * 32u + lane;
  if (W_LANE == 16u) return U4(w.data).v[at];
  U32 words = U32(w.data + uint64_t(at) * 12ul);
  return uvec4(words.v[0], words.v[1], words.v[2], 0u);
}
// Group scales of rows g (low half) and g + 8 in unit `unit` of a block.
uint load_scales(WeightBlock w, uint tile, uint block, uint unit, uint lane) {
  uint group = min((block * BLOCK_COLS + unit * UNIT_COLS) >> W_GROUP_SHIFT, w.group_stride - 1u);
  return U32(w.group_scales).v[(tile * w.group_stride + group) * 8u + (lane >> 2)];
}
