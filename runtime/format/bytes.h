/* Reading and writing integers at any alignment and in either byte order. */
#ifndef LQT_RUNTIME_FORMAT_BYTES_H_
#define LQT_RUNTIME_FORMAT_BYTES_H_

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/half.h"

static inline uint16_t lqt__load_u16(const uint8_t *p, bool big) {
  return big ? (uint16_t)(p[0] << 8 | p[1]) : (uint16_t)(p[1] << 8 | p[0]);
}
static inline uint32_t lqt__load_u32(const uint8_t *p, bool big) {
  uint32_t first = lqt__load_u16(p, big), second = lqt__load_u16(p + 2, big);
  return big ? first << 16 | second : second << 16 | first;
}
static inline uint64_t lqt__load_u64(const uint8_t *p, bool big) {
  uint64_t first = lqt__load_u32(p, big), second = lqt__load_u32(p + 4, big);
  return big ? first << 32 | second : second << 32 | first;
}
static inline float lqt__load_f32(const uint8_t *p, bool big) {
  return lqt__f32_from_bits(lqt__load_u32(p, big));
}

static inline void lqt__store_u16(uint8_t *p, uint16_t value) {
  p[0] = (uint8_t)value;
  p[1] = (uint8_t)(value >> 8);
}
static inline void lqt__store_u32(uint8_t *p, uint32_t value) {
  lqt__store_u16(p, (uint16_t)value);
  lqt__store_u16(p + 2, (uint16_t)(value >> 16));
}
static inline void lqt__store_u64(uint8_t *p, uint64_t value) {
  lqt__store_u32(p, (uint32_t)value);
  lqt__store_u32(p + 4, (uint32_t)(value >> 32));
}
static inline void lqt__store_f32(uint8_t *p, float value) {
  lqt__store_u32(p, lqt__f32_bits(value));
}

static inline bool lqt__all_zero(const uint8_t *p, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; i++) {
    if (p[i] != 0) return false;
  }
  return true;
}

/* A reader over a range. After the first read past the end `failed` stays set and all reads give
 * zero, so that a record is read whole and checked once. */
typedef struct lqt__cursor {
  const uint8_t *data;
  uint64_t bytes, at;
  bool big, failed;
} lqt__cursor;

static inline const uint8_t *lqt__take(lqt__cursor *cursor, uint64_t bytes) {
  if (cursor->failed || bytes > cursor->bytes - cursor->at) {
    cursor->failed = true;
    return NULL;
  }
  const uint8_t *p = cursor->data + cursor->at;
  cursor->at += bytes;
  return p;
}
static inline uint8_t lqt__take_u8(lqt__cursor *cursor) {
  const uint8_t *p = lqt__take(cursor, 1);
  return p != NULL ? *p : 0;
}
static inline uint16_t lqt__take_u16(lqt__cursor *cursor) {
  const uint8_t *p = lqt__take(cursor, 2);
  return p != NULL ? lqt__load_u16(p, cursor->big) : 0;
}
static inline uint32_t lqt__take_u32(lqt__cursor *cursor) {
  const uint8_t *p = lqt__take(cursor, 4);
  return p != NULL ? lqt__load_u32(p, cursor->big) : 0;
}
static inline uint64_t lqt__take_u64(lqt__cursor *cursor) {
  const uint8_t *p = lqt__take(cursor, 8);
  return p != NULL ? lqt__load_u64(p, cursor->big) : 0;
}
static inline float lqt__take_f32(lqt__cursor *cursor) {
  const uint8_t *p = lqt__take(cursor, 4);
  return p != NULL ? lqt__load_f32(p, cursor->big) : 0;
}
/* Skips to a multiple of 4 counted from `begin`; the bytes skipped must be zero. */
static inline void lqt__take_padding(lqt__cursor *cursor, uint64_t begin) {
  const uint8_t *p = lqt__take(cursor, (0 - (cursor->at - begin)) & 3);
  if (p != NULL && !lqt__all_zero(p, (uint64_t)(cursor->data + cursor->at - p))) {
    cursor->failed = true;
  }
}

#endif /* LQT_RUNTIME_FORMAT_BYTES_H_ */
