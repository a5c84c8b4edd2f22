/* What the subcommands print: progress, sizes, JSON, UTF-8 streams. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

const char *tool_size_text(uint64_t bytes, char out[32]) {
  static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  double value = (double)bytes;
  size_t unit = 0;
  for (; value >= 999.95 && unit + 1 < sizeof units / sizeof units[0]; unit++) value /= 1000.0;
  snprintf(out, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return out;
}

const char *tool_count_text(double count, char out[32]) {
  static const char *const units[] = {"", " k", " M", " G", " T"};
  size_t unit = 0;
  for (; count >= 999.95 && unit + 1 < sizeof units / sizeof units[0]; unit++) count /= 1000.0;
  snprintf(out, 32, unit == 0 && count == floor(count) ? "%.0f%s" : "%.1f%s", count, units[unit]);
  return out;
}

/* ---- Progress ---- */

void tool_progress_begin(tool_progress *progress, bool quiet) {
  *progress = (tool_progress){.quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1};
}

static void print_progress(tool_progress *progress, const char *unit, uint64_t done, uint64_t total,
                           double now) {
  char count[32], rate_text[32], left[48] = "";
  double seconds = now - progress->started;
  double rate = seconds > 0.0 ? (double)(done - progress->base) / seconds : 0.0;
  if (rate > 0.0 && total > done) {
    double remaining = (double)(total - done) / rate;
    if (remaining >= 90.0) {
      snprintf(left, sizeof left, ", %.0f min left", ceil(remaining / 60.0));
    } else {
      snprintf(left, sizeof left, ", %.0f s left", ceil(remaining));
    }
  }
  int percent = total > 0 ? (int)(100.0 * (double)done / (double)total) : 100;
  fprintf(stderr, "%s%s: %3d %% of %s %s, %s %s/s%s%s", progress->terminal ? "\r" : "",
          progress->stage, percent, tool_count_text((double)total, count), unit,
          tool_count_text(rate, rate_text), unit, left, progress->terminal ? "\033[K" : "\n");
  fflush(stderr);
  progress->open = progress->terminal;
  progress->printed = now;
}

bool tool_progress_update(void *user, const char *stage, const char *unit, uint64_t done,
                          uint64_t total) {
  tool_progress *progress = user;
  if (tool_cancelled()) return false;
  if (progress->quiet) return true;
  double now = tool_now();
  if (strncmp(stage, progress->stage, sizeof progress->stage - 1) != 0) {
    tool_progress_end(progress);
    snprintf(progress->stage, sizeof progress->stage, "%s", stage);
    progress->started = progress->printed = now;
    progress->base = done;
    return true; /* short stages print nothing */
  }
  double pause = progress->terminal ? 0.2 : 5.0;
  if (now - progress->printed >= pause) print_progress(progress, unit, done, total, now);
  return true;
}

void tool_progress_end(tool_progress *progress) {
  if (progress->open) fputs("\r\033[K", stderr);
  progress->open = false;
}

/* ---- UTF-8 ---- */

/* Length of the character that `first` begins, 0 when it begins none. */
static size_t sequence_length(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first < 0xe0) return 2;
  if (first >= 0xe0 && first < 0xf0) return 3;
  if (first >= 0xf0 && first < 0xf5) return 4;
  return 0;
}

/* True when `next` may be byte `index` of the character that begins with `first` (no surrogates,
 * no overlong forms, nothing past U+10FFFF). Source: Unicode 15, table 3-7. */
static bool continues(unsigned char first, size_t index, unsigned char next) {
  unsigned char low = 0x80, high = 0xbf;
  if (index == 1) {
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
  }
  return next >= low && next <= high;
}

static const char replacement[] = "\xef\xbf\xbd";

/* Feeds one byte; returns how many bytes of valid UTF-8 were written to out[8]. */
static size_t utf8_feed(tool_utf8 *utf8, unsigned char byte, char out[8]) {
  size_t written = 0;
  if (utf8->count > 0 && !continues(utf8->pending[0], utf8->count, byte)) {
    memcpy(out, replacement, 3);
    written = 3;
    utf8->count = 0;
  }
  if (utf8->count == 0 && sequence_length(byte) == 0) {
    memcpy(out + written, replacement, 3);
    return written + 3;
  }
  utf8->pending[utf8->count++] = byte;
  if (utf8->count == sequence_length(utf8->pending[0])) {
    memcpy(out + written, utf8->pending, utf8->count);
    written += utf8->count;
    utf8->count = 0;
  }
  return written;
}

void tool_utf8_write(tool_utf8 *utf8, const char *bytes, size_t size, FILE *stream) {
  for (size_t i = 0; i < size; i++) {
    char out[8];
    size_t written = utf8_feed(utf8, (unsigned char)bytes[i], out);
    fwrite(out, 1, written, stream);
  }
}

void tool_utf8_finish(tool_utf8 *utf8, FILE *stream) {
  if (utf8->count > 0) fputs(replacement, stream);
  utf8->count = 0;
}

/* ---- JSON ---- */

static json_malloc_t json_allocate;
static bool json_failed;

static void *json_watched_allocate(size_t bytes) {
  void *pointer = json_allocate(bytes);
  if (pointer == NULL) json_failed = true;
  return pointer;
}

void tool_json_begin(void) {
  json_free_t release;
  json_get_alloc_funcs(&json_allocate, &release);
  json_set_alloc_funcs(json_watched_allocate, release);
}

bool tool_json_failed(void) { return json_failed; }

json_t *tool_json_real(double value) { return isfinite(value) ? json_real(value) : json_null(); }

json_t *tool_json_text(const char *text, size_t bytes) {
  /* One byte becomes at most three. */
  char *valid = malloc(3 * bytes + 8);
  if (valid == NULL) return NULL;
  tool_utf8 utf8 = {0};
  size_t used = 0;
  for (size_t i = 0; i < bytes; i++) used += utf8_feed(&utf8, (unsigned char)text[i], valid + used);
  if (utf8.count > 0) {
    memcpy(valid + used, replacement, 3);
    used += 3;
  }
  json_t *string = json_stringn(valid, used);
  free(valid);
  return string;
}

int tool_print_json(const char *command, json_t *root) {
  if (root == NULL || json_failed ||
      json_dumpf(root, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0) {
    json_decref(root);
    return tool_error(command, TOOL_BAD_INPUT, NULL,
                      "no memory for the JSON, or it cannot be written to standard output");
  }
  json_decref(root);
  fputc('\n', stdout);
  return TOOL_DONE;
}
