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
