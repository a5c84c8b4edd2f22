/* Packed indices: a little-endian bit stream a row, low bits first. */
#ifndef LQT_RUNTIME_QUANT_PACK_H_
#define LQT_RUNTIME_QUANT_PACK_H_

#include <stddef.h>
#include <stdint.h>

/* Packs `count` codes of `bits` bits (2, 3, 4, 8), `stride` apart, into `out`, which is zeroed up
 * to out_bytes first. */
void lqt__pack_codes(const uint8_t *codes, size_t stride, size_t count, uint32_t bits, uint8_t *out,
                     size_t out_bytes);

#endif /* LQT_RUNTIME_QUANT_PACK_H_ */
