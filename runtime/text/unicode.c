#include "text/unicode.h"

#include <stdbool.h>

static bool is_tail(uint8_t byte) { return (byte & 0xC0) == 0x80; }

size_t lqt__utf8_decode(const uint8_t *text, size_t bytes, uint32_t *out_code) {
  uint32_t lead = text[0];
  if (lead < 0x80) {
    *out_code = lead;
    return 1;
  }
  *out_code = LQT__UNICODE_INVALID;
  size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || bytes < length) return 1;
  uint32_t code = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; i++) {
    if (!is_tail(text[i])) return 1;
    code = code << 6 | (text[i] & 0x3Fu);
  }
  static const uint32_t shortest[5] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < shortest[length] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return 1;
  *out_code = code;
  return length;
}

size_t lqt__utf8_encode(uint32_t code, uint8_t out[4]) {
  if (code < 0x80) {
    out[0] = (uint8_t)code;
    return 1;
  }
  size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = length - 1; i > 0; i--) {
    out[i] = (uint8_t)(0x80 | (code & 0x3F));
    code >>= 6;
  }
  out[0] = (uint8_t)(0xF00u >> length | code);
  return length;
}

lqt__unicode_class lqt__unicode_class_of(uint32_t code) {
  if (code < 0x80) {
    uint32_t lower = code | 0x20;
    if (lower >= 'a' && lower <= 'z') return LQT__UNICODE_LETTER;
    if (code >= '0' && code <= '9') return LQT__UNICODE_NUMBER;
    return code == ' ' || (code >= '\t' && code <= '\r') ? LQT__UNICODE_SPACE : LQT__UNICODE_OTHER;
  }
  size_t low = 0, high = lqt__unicode_range_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (lqt__unicode_ranges[middle].last < code)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == lqt__unicode_range_count || code < lqt__unicode_ranges[low].first) {
    return LQT__UNICODE_OTHER;
  }
  return (lqt__unicode_class)lqt__unicode_ranges[low].kind;
}
