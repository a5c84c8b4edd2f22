#include "common.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Errors ---- */

int tool_exit_code(lqt_status status) {
  switch (status) {
    case LQT_OK:
      return TOOL_DONE;
    case LQT_INVALID_ARGUMENT:
      return TOOL_WRONG_USE;
    case LQT_DEVICE_NOT_AVAILABLE:
    case LQT_DEVICE_LOST:
    case LQT_DEVICE_OUT_OF_MEMORY:
    case LQT_DEVICE_FAILURE:
    case LQT_DEVICE_UNSUPPORTED:
      return TOOL_NO_DEVICE;
    case LQT_INTERNAL:
      return TOOL_BUG;
    case LQT_CANCELLED:
      return TOOL_CANCELLED;
    default:
      return TOOL_BAD_INPUT;
  }
}

int tool_fail(const char *command, lqt_status status, const lqt_diag *diag) {
  fflush(stdout);
  bool detailed = diag != NULL && diag->what[0] != '\0';
  fprintf(stderr, "%s: ", command);
  if (detailed && diag->where[0] != '\0') fprintf(stderr, "%s: ", diag->where);
  fputs(detailed ? diag->what : lqt_status_text(status), stderr);
  fprintf(stderr, " [%s", lqt_status_name(status));
  if (detailed && diag->offset != UINT64_MAX && diag->status >= LQT_BAD_MAGIC &&
      diag->status <= LQT_LIMIT) {
    fprintf(stderr, " at byte %llu", (unsigned long long)diag->offset);
  }
  fputs("]\n", stderr);
  return tool_exit_code(status);
}

int tool_error(const char *command, int exit_code, const char *where, const char *format, ...) {
  fflush(stdout);
  fprintf(stderr, "%s: ", command);
  if (where != NULL) fprintf(stderr, "%s: ", where);
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  return exit_code;
}

lqt_status tool_diag(lqt_diag *diag, lqt_status status, const char *where, const char *format,
                     ...) {
  *diag = (lqt_diag){.status = status, .offset = UINT64_MAX};
  if (where != NULL) snprintf(diag->where, sizeof diag->where, "%s", where);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(diag->what, sizeof diag->what, format, arguments);
  va_end(arguments);
  return status;
}

/* ---- Command lines ---- */

void tool_parse(const struct argp *argp, int argc, char **argv, void *input) {
  argp_err_exit_status = TOOL_WRONG_USE;
  error_t error = argp_parse(argp, argc, argv, 0, NULL, input);
  if (error != 0) {
    exit(tool_error(argv[0], TOOL_BAD_INPUT, NULL, "%s", strerror(error)));
  }
}

uint64_t tool_parse_u64(struct argp_state *state, const char *option, const char *text,
                        uint64_t low, uint64_t high) {
  char *end = NULL;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  bool digits = text[0] >= '0' && text[0] <= '9';
  if (!digits || *end != '\0' || errno != 0 || value < low || value > high) {
    argp_error(state, "%s takes a whole number from %llu to %llu, not '%s'", option,
               (unsigned long long)low, (unsigned long long)high, text);
  }
  return value;
}

double tool_parse_number(struct argp_state *state, const char *option, const char *text, double low,
                         double high) {
  char *end = NULL;
  double value = strtod(text, &end);
  if (end == text || *end != '\0' || !isfinite(value) || value < low || value > high) {
    argp_error(state, "%s takes a number from %g to %g, not '%s'", option, low, high, text);
  }
  return value;
}

int tool_parse_word(struct argp_state *state, const char *option, const char *text,
                    const char *const *words) {
  char list[256] = "";
  for (int i = 0; words[i] != NULL; i++) {
    if (strcmp(text, words[i]) == 0) return i;
    size_t used = strlen(list);
    snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", words[i]);
  }
  argp_error(state, "%s takes one of %s, not '%s'", option, list, text);
  return 0;
}

void tool_parse_argument(struct argp_state *state, char *text, const char **slots, size_t count) {
  if (state->arg_num >= count) argp_error(state, "one argument too many: '%s'", text);
  slots[state->arg_num] = text;
}

/* ---- Interruption ---- */

static volatile sig_atomic_t cancelled;

static void on_signal(int number) {
  (void)number;
  cancelled = 1;
}

bool tool_cancelled(void) { return cancelled != 0; }

void tool_catch_signals(void) {
  /* The first signal asks the command to stop; a second one ends the program at once. */
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

double tool_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- Input ---- */

lqt_status tool_read_file(const char *path, char **out, size_t *out_bytes, lqt_diag *diag) {
  *out = NULL;
  *out_bytes = 0;
  bool standard = strcmp(path, "-") == 0;
  FILE *file = standard ? stdin : fopen(path, "rb");
  if (file == NULL) {
    return tool_diag(diag, errno == ENOENT ? LQT_NOT_FOUND : LQT_IO, path,
                     "cannot open the file: %s", strerror(errno));
  }
  lqt_status status = LQT_OK;
  size_t capacity = 0, used = 0;
  char *data = NULL;
  for (;;) {
    if (used == capacity) {
      capacity = capacity == 0 ? 65536 : capacity * 2;
      char *grown = realloc(data, capacity);
      if (grown == NULL) {
        status = tool_diag(diag, LQT_OUT_OF_MEMORY, path, "no memory for %zu bytes", capacity);
        break;
      }
      data = grown;
    }
    size_t got = fread(data + used, 1, capacity - used, file);
    used += got;
    if (got == 0) break;
  }
  if (status == LQT_OK && ferror(file)) {
    status = tool_diag(diag, LQT_IO, path, "cannot read the file: %s", strerror(errno));
  }
  if (!standard) fclose(file);
  if (status != LQT_OK) {
    free(data);
    return status;
  }
  *out = data;
  *out_bytes = used;
  return LQT_OK;
}
