#include "base/key.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"

static const char *const where = "key";

struct lqt_key {
  EVP_PKEY *pair;
  bool can_sign;
  uint8_t public_key[LQT__KEY_PUBLIC_BYTES];
};

/* Takes `pair`, also when it fails. */
static lqt_status wrap(EVP_PKEY *pair, bool can_sign, lqt_key **out, lqt_diag *diag) {
  lqt_key *key = lqt__alloc_zero(sizeof *key);
  size_t bytes = key != NULL ? sizeof key->public_key : 0;
  if (key == NULL || EVP_PKEY_get_raw_public_key(pair, key->public_key, &bytes) != 1) {
    EVP_PKEY_free(pair);
    lqt__free(key);
    return lqt__fail_memory(diag, where, sizeof *key, "a key");
  }
  key->pair = pair;
  key->can_sign = can_sign;
  *out = key;
  return LQT_OK;
}

lqt_status lqt__key_generate(lqt_key **out, lqt_diag *diag) {
  *out = NULL;
  EVP_PKEY *pair = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
  if (pair == NULL) {
    return lqt__fail(diag, LQT_INTERNAL, where, "libcrypto cannot make an Ed25519 key");
  }
  return wrap(pair, true, out, diag);
}

/* A file that asks for a password is refused: nobody is there to type it. */
static int no_password(char *buffer, int size, int writing, void *user) {
  (void)buffer, (void)size, (void)writing, (void)user;
  return -1;
}

lqt_status lqt__key_parse(const char *pem, size_t bytes, const char *name, lqt_key **out,
                          lqt_diag *diag) {
  *out = NULL;
  EVP_PKEY *pair = NULL;
  bool can_sign = false;
  for (int half = 0; half < 2 && pair == NULL && bytes <= 65536; half++) {
    BIO *bio = BIO_new_mem_buf(pem, (int)bytes);
    if (bio == NULL) return lqt__fail_memory(diag, name, bytes, "a key");
    can_sign = half == 0;
    pair = can_sign ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL)
                    : PEM_read_bio_PUBKEY(bio, NULL, no_password, NULL);
    BIO_free(bio);
  }
  ERR_clear_error();
  if (pair != NULL && EVP_PKEY_get_id(pair) != EVP_PKEY_ED25519) {
    EVP_PKEY_free(pair);
    pair = NULL;
  }
  if (pair == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, name,
                     "not the PEM text of an Ed25519 key without a password; 'lqt keygen' makes "
                     "one");
  }
  return wrap(pair, can_sign, out, diag);
}

lqt_status lqt__key_from_public(const uint8_t public_key[32], lqt_key **out, lqt_diag *diag) {
  *out = NULL;
  EVP_PKEY *pair =
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, LQT__KEY_PUBLIC_BYTES);
  if (pair == NULL) return lqt__fail_memory(diag, where, LQT__KEY_PUBLIC_BYTES, "a key");
  return wrap(pair, false, out, diag);
}

void lqt__key_destroy(lqt_key *key) {
  if (key == NULL) return;
  EVP_PKEY_free(key->pair);
  lqt__free(key);
}

bool lqt__key_can_sign(const lqt_key *key) { return key->can_sign; }

const uint8_t *lqt__key_public(const lqt_key *key) { return key->public_key; }

lqt_status lqt__key_print(const lqt_key *key, bool private_half, char out[LQT__KEY_PEM_BYTES],
                          lqt_diag *diag) {
  BIO *bio = BIO_new(BIO_s_mem());
  int done = 0, bytes = 0;
  if (bio != NULL) {
    done = private_half ? PEM_write_bio_PKCS8PrivateKey(bio, key->pair, NULL, NULL, 0, NULL, NULL)
                        : PEM_write_bio_PUBKEY(bio, key->pair);
    if (done == 1) bytes = BIO_read(bio, out, LQT__KEY_PEM_BYTES - 1);
  }
  BIO_free(bio);
  if (bytes <= 0) return lqt__fail_memory(diag, where, LQT__KEY_PEM_BYTES, "the text of a key");
  out[bytes] = '\0';
  return LQT_OK;
}

lqt_status lqt__key_sign(const lqt_key *key, const void *data, size_t bytes,
                         uint8_t out_signature[64], lqt_diag *diag) {
  if (!key->can_sign) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "a public key cannot sign; give the private one");
  }
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  size_t length = LQT__KEY_SIGNATURE_BYTES;
  bool done = context != NULL && EVP_DigestSignInit(context, NULL, NULL, NULL, key->pair) == 1 &&
              EVP_DigestSign(context, out_signature, &length, data, bytes) == 1;
  EVP_MD_CTX_free(context);
  return done ? LQT_OK : lqt__fail_memory(diag, where, 0, "a signature");
}

lqt_status lqt__key_check(const lqt_key *key, const void *data, size_t bytes,
                          const uint8_t signature[64], bool *out_good, lqt_diag *diag) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  *out_good = false;
  if (context == NULL || EVP_DigestVerifyInit(context, NULL, NULL, NULL, key->pair) != 1) {
    EVP_MD_CTX_free(context);
    return lqt__fail_memory(diag, where, 0, "the check of a signature");
  }
  *out_good = EVP_DigestVerify(context, signature, LQT__KEY_SIGNATURE_BYTES, data, bytes) == 1;
  EVP_MD_CTX_free(context);
  ERR_clear_error();
  return LQT_OK;
}

lqt_status lqt__random_bytes(void *out, size_t bytes, lqt_diag *diag) {
  if (RAND_bytes(out, (int)bytes) == 1) return LQT_OK;
  return lqt__fail(diag, LQT_INTERNAL, where, "libcrypto has no random numbers");
}
