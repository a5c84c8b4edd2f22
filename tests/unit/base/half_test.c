#include "base/half.h"

#include <criterion/criterion.h>

/* Every float16 pattern widens and narrows to itself; a NaN stays one. */
Test(half, f16_round_trip) {
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    uint16_t back = lqt__f16_from_f32(lqt__f32_from_f16((uint16_t)bits));
    bool is_nan = (bits & 0x7fff) > 0x7c00;
    if (is_nan) {
      cr_assert((back & 0x7fff) > 0x7c00, "%04x gave %04x", bits, back);
    } else {
      cr_assert_eq(back, bits, "%04x gave %04x", bits, back);
    }
  }
}

/* Widening against the definition: a round trip alone would not see an error that narrowing undoes.
 */
Test(half, f16_widens_to_its_value) {
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    int exponent = (int)(bits >> 10 & 31);
    float fraction = (float)(bits & 0x3ff);
    float value = exponent == 0    ? ldexpf(fraction, -24)
                  : exponent == 31 ? (fraction == 0 ? INFINITY : NAN)
                                   : ldexpf(1024.0f + fraction, exponent - 25);
    if (bits & 0x8000) value = -value;
    float wide = lqt__f32_from_f16((uint16_t)bits);
    cr_assert(isnan(value) ? isnan(wide) : wide == value, "%04x gave %g", bits, (double)wide);
  }
}

/* Between two neighbours the nearer one wins, and the even one at the middle. */
Test(half, f16_rounds_to_nearest_even) {
  for (uint32_t bits = 0; bits < 0x7bff; bits++) {
    double low = lqt__f32_from_f16((uint16_t)bits);
    double high = lqt__f32_from_f16((uint16_t)(bits + 1));
    double middle = (low + high) / 2;
    uint16_t even = (uint16_t)(bits % 2 == 0 ? bits : bits + 1);
    cr_assert_eq(lqt__f16_from_f32((float)middle), even, "middle above %04x", bits);
    cr_assert_eq(lqt__f16_from_f32(nextafterf((float)middle, -1.0f)), bits, "below %04x", bits);
    cr_assert_eq(lqt__f16_from_f32(nextafterf((float)middle, INFINITY)), bits + 1);
    cr_assert_eq(lqt__f16_from_f32(-(float)middle), even | 0x8000);
  }
  cr_assert_eq(lqt__f16_from_f32(65519.996f), 0x7bff);
  cr_assert_eq(lqt__f16_from_f32(65520.0f), 0x7c00);
  cr_assert_eq(lqt__f16_from_f32(1e30f), 0x7c00);
}

Test(half, bf16) {
  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    uint16_t back = lqt__bf16_from_f32(lqt__f32_from_bf16((uint16_t)bits));
    if ((bits & 0x7fff) > 0x7f80) {
      cr_assert((back & 0x7fff) > 0x7f80);
    } else {
      cr_assert_eq(back, bits);
    }
  }
  cr_assert_eq(lqt__bf16_from_f32(lqt__f32_from_bits(0x3f808000)), 0x3f80); /* tie to even */
  cr_assert_eq(lqt__bf16_from_f32(lqt__f32_from_bits(0x3f818000)), 0x3f82);
  cr_assert_eq(lqt__bf16_from_f32(lqt__f32_from_bits(0x3f808001)), 0x3f81);
}
