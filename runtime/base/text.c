#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"

/* Room for `more` bytes and the terminator. */
static bool reserve(lqt__text *text, size_t more) {
  if (text->failed) return false;
  if (text->capacity - text->bytes > more) return true;
  size_t capacity =
      text->capacity * 2 > text->bytes + more + 1 ? text->capacity * 2 : text->bytes + more + 256;
  char *data = lqt__realloc(text->data, capacity);
  if (data == NULL) {
    text->failed = true;
    return false;
  }
  text->data = data;
  text->capacity = capacity;
  return true;
}

void lqt__text_add(lqt__text *text, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int length = vsnprintf(NULL, 0, format, args);
  if (length < 0) text->failed = true;
  if (length >= 0 && reserve(text, (size_t)length)) {
    vsnprintf(text->data + text->bytes, (size_t)length + 1, format, again);
    text->bytes += (size_t)length;
  }
  va_end(again);
  va_end(args);
}

void lqt__text_add_json(lqt__text *text, const char *value) {
  lqt__text_add(text, "\"");
  for (const unsigned char *c = (const unsigned char *)value; *c != 0; c++) {
    if (*c == '"' || *c == '\\') {
      lqt__text_add(text, "\\%c", *c);
    } else if (*c < 0x20) {
      lqt__text_add(text, "\\u%04x", *c);
    } else {
      lqt__text_add(text, "%c", *c);
    }
  }
  lqt__text_add(text, "\"");
}

void lqt__text_free(lqt__text *text) {
  lqt__free(text->data);
  *text = (lqt__text){0};
}
