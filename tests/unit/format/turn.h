/* Turns a little-endian image of the sample into a big-endian one, apart from the reader's code. */
#ifndef LQT_TESTS_UNIT_FORMAT_TURN_H_
#define LQT_TESTS_UNIT_FORMAT_TURN_H_

#include <stddef.h>
#include <stdint.h>

/* In place; digests and checksum are made fresh. `data` is what the writer wrote. */
void turn_big_endian(uint8_t *data, size_t bytes);

#endif /* LQT_TESTS_UNIT_FORMAT_TURN_H_ */
