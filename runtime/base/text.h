/* A string that grows. A failure to grow is remembered and reported once, at the end. */
#ifndef LQT_RUNTIME_BASE_TEXT_H_
#define LQT_RUNTIME_BASE_TEXT_H_

#include <stdbool.h>
#include <stddef.h>

#include "lqt/status.h"

typedef struct lqt__text {
  char *data; /* terminated once something was added; freed with lqt__text_free */
  size_t bytes, capacity;
  bool failed; /* there was no memory; what is added from then on is dropped */
} lqt__text;

LQT_PRINTF(2, 3) void lqt__text_add(lqt__text *text, const char *format, ...);
/* Adds `value` as a JSON string, quotes included; `value` is UTF-8. */
void lqt__text_add_json(lqt__text *text, const char *value);
void lqt__text_free(lqt__text *text);

#endif /* LQT_RUNTIME_BASE_TEXT_H_ */
