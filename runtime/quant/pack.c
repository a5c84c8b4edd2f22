#include "quant/pack.h"

#include <string.h>

void lqt__pack_codes(const uint8_t *codes, size_t stride, size_t count, uint32_t bits, uint8_t *out,
                     size_t out_bytes) {
  uint32_t pending = 0, filled = 0;
  size_t at = 0;
  for (size_t i = 0; i < count; i++) {
    pending |= (uint32_t)codes[i * stride] << filled;
    filled += bits;
    while (filled >= 8) {
      out[at++] = (uint8_t)pending;
      pending >>= 8;
      filled -= 8;
    }
  }
  if (filled > 0) out[at++] = (uint8_t)pending;
  memset(out + at, 0, out_bytes - at);
}
