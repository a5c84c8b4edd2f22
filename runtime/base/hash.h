/* SHA-256 (libcrypto) and CRC-32 (libdeflate). */
#ifndef LQT_RUNTIME_BASE_HASH_H_
#define LQT_RUNTIME_BASE_HASH_H_

#include <stddef.h>
#include <stdint.h>

#include "lqt/status.h"

/* Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__sha256(const void *data, size_t bytes, uint8_t out[32]);

/* Incremental form; `_end` frees it (out may be NULL to drop it). */
typedef struct lqt__sha256_state lqt__sha256_state;
lqt__sha256_state *lqt__sha256_begin(void); /* NULL: no memory */
LQT_NODISCARD lqt_status lqt__sha256_add(lqt__sha256_state *state, const void *data, size_t bytes);
LQT_NODISCARD lqt_status lqt__sha256_end(lqt__sha256_state *state, uint8_t out[32]);

/* CRC-32/ISO-HDLC; start with 0. */
uint32_t lqt__crc32(uint32_t crc, const void *data, size_t bytes);

/* CRC of A followed by B, from the CRC of each and the length of B. */
uint32_t lqt__crc32_join(uint32_t crc_a, uint32_t crc_b, uint64_t bytes_b);

#endif /* LQT_RUNTIME_BASE_HASH_H_ */
