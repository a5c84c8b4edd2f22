#include "base/hash.h"

#include <libdeflate.h>
#include <openssl/evp.h>

lqt_status lqt__sha256(const void *data, size_t bytes, uint8_t out[32]) {
  return EVP_Digest(data, bytes, out, NULL, EVP_sha256(), NULL) == 1 ? LQT_OK : LQT_OUT_OF_MEMORY;
}

lqt__sha256_state *lqt__sha256_begin(void) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  if (context == NULL) return NULL;
  if (EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1) {
    EVP_MD_CTX_free(context);
    return NULL;
  }
  return (lqt__sha256_state *)context;
}

lqt_status lqt__sha256_add(lqt__sha256_state *state, const void *data, size_t bytes) {
  return EVP_DigestUpdate((EVP_MD_CTX *)state, data, bytes) == 1 ? LQT_OK : LQT_INTERNAL;
}

lqt_status lqt__sha256_end(lqt__sha256_state *state, uint8_t out[32]) {
  EVP_MD_CTX *context = (EVP_MD_CTX *)state;
  lqt_status status = LQT_OK;
  if (out != NULL && EVP_DigestFinal_ex(context, out, NULL) != 1) status = LQT_INTERNAL;
  EVP_MD_CTX_free(context);
  return status;
}

uint32_t lqt__crc32(uint32_t crc, const void *data, size_t bytes) {
  return libdeflate_crc32(crc, data, bytes);
}

/* Product of two polynomials over GF(2) modulo the CRC's, bit 31 the constant term. */
static uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (int bit = 31; bit >= 0; bit--) {
    if ((a >> bit & 1) != 0) product ^= b;
    b = (b >> 1) ^ ((b & 1) != 0 ? 0xEDB88320u : 0);
  }
  return product;
}

uint32_t lqt__crc32_join(uint32_t crc_a, uint32_t crc_b, uint64_t bytes_b) {
  uint32_t power = 0x00800000u; /* x^8: what one more byte multiplies by */
  for (; bytes_b != 0; bytes_b >>= 1) {
    if ((bytes_b & 1) != 0) crc_a = multiply(power, crc_a);
    power = multiply(power, power);
  }
  return crc_a ^ crc_b;
}
