#version 460
// ROPE in place. The angle position * frequency is rounded to float32 once; its sine and cosine are
// computed here because the hardware's are only good near zero.
#extension GL_GOOGLE_include_directive : require
#include "lqt.glsl"

layout(constant_id = 30) const uint INTERLEAVED = 0u;

layout(push_constant, std430) uniform Push {
  uint64_t x;
  uint64_t positions;
  uint64_t frequencies;
  uint x_stride;
  uint tokens;
  uint heads;
  uint head_dim;
  uint half_dim;  // pairs of a head that turn
  float scale;
} p;

// Quarter turns (mod 4) nearest to a non-negative angle, and the rest in radians. Above 1 the angle
// is an integer times a power of two, so that its product with 1/(2 pi) is exact in fixed point.
uint quarter_turns(float angle, out float rest) {
  uint bits = floatBitsToUint(angle);
  uint exponent = bits >> 23;
  if (exponent < 127u) {
    uint turns = angle > 0.78539816 ? 1u : 0u;
    // pi/2 in two parts, the first exact in float32.
    rest = turns == 1u ? (angle - 1.5707963) + 4.3711388e-8 : angle;
    return turns;
  }
  exponent = min(exponent, 150u);  // beyond 2^24 an angle has no fraction of a turn to speak of
  uint64_t mantissa = uint64_t((bits & 0x7fffffu) | 0x800000u);
  // 1/(2 pi) in units of 2^-64, by halves; the product below is in units of 2^-32 * 2^-shift.
  uint64_t product = mantissa * uint64_t(0x28be60dbu) + ((mantissa * uint64_t(0x9391054au)) >> 32);
  uint shift = 150u - exponent;
  uint64_t unit = uint64_t(1) << (30u + shift);
  uint64_t turns = (product + (unit >> 1)) >> (30u + shift);
  int64_t left = int64_t(product - (turns << (30u + shift)));
  rest = float(int(left >> shift)) * 1.4629180792671596e-9;  // 2 pi / 2^32
  return uint(turns) & 3u;
}

// Source: Cephes mathematical library, sinf and cosf on [-pi/4, pi/4].
vec2 cos_sin(float angle) {
  float r;
  uint turns = quarter_turns(abs(angle), r);
  float z = r * r;
  float s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r;
  float c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z -
            0.5 * z + 1.0;
  vec2 result = (turns & 1u) == 1u ? vec2(-s, c) : vec2(c, s);
  if ((turns & 2u) == 2u) result = -result;
  if (angle < 0.0) result.y = -result.y;
  return result;
}

void main() {
  uint pairs = p.heads * p.half_dim;
  for (uint t = gl_WorkGroupID.y; t < p.tokens; t += gl_NumWorkGroups.y) {
    uint64_t x = act_row(p.x, t, p.x_stride);
    float position = float(I32(p.positions).v[t]);
    for (uint i = gl_GlobalInvocationID.x; i < pairs; i += gl_NumWorkGroups.x * WG) {
      uint pair = i % p.half_dim;
      uint a = i / p.half_dim * p.head_dim + (INTERLEAVED == 1u ? 2u * pair : pair);
      uint b = a + (INTERLEAVED == 1u ? 1u : p.half_dim);
      vec2 turn = cos_sin(position * F32(p.frequencies).v[pair]) * p.scale;
      float u = act_load(x, a), v = act_load(x, b);
      act_store(x, a, u * turn.x - v * turn.y);
      act_store(x, b, u * turn.y + v * turn.x);
    }
  }
}
