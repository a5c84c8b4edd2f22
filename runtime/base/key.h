/* Ed25519 keys (libcrypto): signing, checking, and their PEM text (PKCS #8 for the private half,
 * SubjectPublicKeyInfo for the public one), which openssl(1) reads and writes too. */
#ifndef LQT_RUNTIME_BASE_KEY_H_
#define LQT_RUNTIME_BASE_KEY_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lqt/types.h"

enum { LQT__KEY_PUBLIC_BYTES = 32, LQT__KEY_SIGNATURE_BYTES = 64, LQT__KEY_PEM_BYTES = 256 };

/* A fresh pair. Errors: LQT_OUT_OF_MEMORY, LQT_INTERNAL (no randomness). */
LQT_NODISCARD lqt_status lqt__key_generate(lqt_key **out, lqt_diag *diag);
/* From PEM text of either half. Errors: LQT_INVALID_ARGUMENT (`where` has no such key). */
LQT_NODISCARD lqt_status lqt__key_parse(const char *pem, size_t bytes, const char *where,
                                        lqt_key **out, lqt_diag *diag);
/* From the 32 bytes of a public key. */
LQT_NODISCARD lqt_status lqt__key_from_public(const uint8_t public_key[32], lqt_key **out,
                                              lqt_diag *diag);
void lqt__key_destroy(lqt_key *key); /* NULL accepted */

bool lqt__key_can_sign(const lqt_key *key);
const uint8_t *lqt__key_public(const lqt_key *key);
/* PEM text of a half, terminated. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__key_print(const lqt_key *key, bool private_half,
                                        char out[LQT__KEY_PEM_BYTES], lqt_diag *diag);

LQT_NODISCARD lqt_status lqt__key_sign(const lqt_key *key, const void *data, size_t bytes,
                                       uint8_t out_signature[64], lqt_diag *diag);
/* *out_good: the signature is this key's over the bytes. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__key_check(const lqt_key *key, const void *data, size_t bytes,
                                        const uint8_t signature[64], bool *out_good,
                                        lqt_diag *diag);

/* Fills with random bytes that cannot be guessed. */
LQT_NODISCARD lqt_status lqt__random_bytes(void *out, size_t bytes, lqt_diag *diag);

#endif /* LQT_RUNTIME_BASE_KEY_H_ */
