/* Conversions between float32 and the 16-bit types: exact widening, round-to-nearest-even narrowing
 * (overflow gives infinity, NaN stays NaN). Source: IEEE 754-2019. */
#ifndef LQT_RUNTIME_BASE_HALF_H_
#define LQT_RUNTIME_BASE_HALF_H_

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t lqt__f32_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float lqt__f32_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float lqt__f32_from_bf16(uint16_t half) {
  return lqt__f32_from_bits((uint32_t)half << 16);
}

static inline uint16_t lqt__bf16_from_f32(float value) {
  uint32_t bits = lqt__f32_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float lqt__f32_from_f16(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  uint32_t rest = half & 0x7fffu;
  if (rest >= 0x7c00u) return lqt__f32_from_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  if (rest >= 0x0400u) return lqt__f32_from_bits(sign | ((rest << 13) + 0x38000000u));
  return lqt__f32_from_bits(sign | lqt__f32_bits((float)rest * 0x1p-24f));
}

static inline uint16_t lqt__f16_from_f32(float value) {
  uint32_t bits = lqt__f32_bits(value);
  uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
  uint32_t rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more round to infinity */
  if (rest >= 0x38800000u) {
    uint32_t rounded = rest - 0x38000000u;
    rounded += 0xfffu + ((rounded >> 13) & 1u);
    return (uint16_t)(sign | (rounded >> 13));
  }
  /* Subnormal or zero: adding 0.5 puts the rounding at the last kept bit. */
  float magic = lqt__f32_from_bits(rest) + 0.5f;
  return (uint16_t)(sign | (uint16_t)(lqt__f32_bits(magic) - 0x3f000000u));
}

#endif /* LQT_RUNTIME_BASE_HALF_H_ */
