/* Codebook lookup of one instruction set; part of kernels_body.h. */

/* `first` is a multiple of 16, so that it begins a byte at every width. */
INLINE void unpack(const uint8_t *row, uint32_t bits, size_t first, size_t n, uint8_t *codes) {
  const uint8_t *in = row + first * bits / 8;
  size_t whole = n / 8 * 8;
  if (bits == 8) memcpy(codes, in, n);
  if (bits == 4) {
    for (size_t i = 0; i < n / 2; i++) {
      codes[2 * i] = in[i] & 15;
      codes[2 * i + 1] = in[i] >> 4;
    }
    if (n % 2 != 0) codes[n - 1] = in[n / 2] & 15;
  }
  if (bits == 2) {
    for (size_t i = 0; i < n; i += 4) {
      for (size_t j = 0; j < 4; j++) codes[i + j] = in[i / 4] >> (2 * j) & 3;
    }
  }
  if (bits != 3) return;
  for (size_t i = 0; i < whole; i += 8) {
    uint32_t three = in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16;
    for (size_t j = 0; j < 8; j++) codes[i + j] = three >> (3 * j) & 7;
    in += 3;
  }
  for (size_t i = whole; i < n; i++) {
    size_t bit = (i - whole) * 3;
    uint32_t value = in[bit / 8] >> (bit % 8);
    if (bit % 8 > 5) value |= (uint32_t)in[bit / 8 + 1] << (8 - bit % 8);
    codes[i] = value & 7;
  }
}

static void lookup(const uint8_t *row, uint32_t bits, const float *table, size_t first, size_t n,
                   float *out) {
  enum { BATCH = 64 };
  uint8_t codes[BATCH + 16] = {0};
  for (size_t done = 0; done < n; done += BATCH) {
    size_t take = n - done < BATCH ? n - done : BATCH;
    if (bits == 8)
      unpack(row, 8, first + done, take, codes);
    else if (bits == 4)
      unpack(row, 4, first + done, take, codes);
    else if (bits == 2)
      unpack(row, 2, first + done, take, codes);
    else
      unpack(row, 3, first + done, take, codes);
#ifdef V_HAS_LOOKUP
    size_t i = 0;
    if (bits == 8) {
      for (; i + W <= take; i += W) v_store(out + done + i, v_gather(table, codes + i));
    } else {
      for (; i + W <= take; i += W) v_store(out + done + i, v_lookup(table, codes + i));
    }
    for (; i < take; i++) out[done + i] = table[codes[i]];
#else
    for (size_t i = 0; i < take; i++) out[done + i] = table[codes[i]];
#endif
  }
}
