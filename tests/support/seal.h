/* Gives a changed .lqt image digests and a checksum that fit again, so that what is wrong with it
 * must be found by the checks of the structure. */
#ifndef LQT_TESTS_SUPPORT_SEAL_H_
#define LQT_TESTS_SUPPORT_SEAL_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Either byte order. Section and piece digests are made where their records still make sense, then
 * the metadata's digest, then the CRC. Does what can be done in any image, and reads nothing beyond
 * it. */
void test_seal(uint8_t *data, size_t bytes);

#endif /* LQT_TESTS_SUPPORT_SEAL_H_ */
