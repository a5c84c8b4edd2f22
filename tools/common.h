/* The shared front of the program's subcommands: parsing, errors, exit codes, progress, output. */
#ifndef LQT_TOOLS_COMMON_H_
#define LQT_TOOLS_COMMON_H_

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "lqt/lqt.h"

/* Exit codes; `lqt help` documents them. */
enum {
  TOOL_DONE = 0,
  TOOL_NO = 1,          /* the answer is no: a check failed */
  TOOL_WRONG_USE = 2,   /* options or arguments */
  TOOL_BAD_INPUT = 3,   /* an input that cannot be used, or no memory or disk for it */
  TOOL_NO_DEVICE = 4,   /* the device is not there or cannot do it */
  TOOL_BUG = 70,        /* an internal error */
  TOOL_CANCELLED = 130, /* interrupted */
};

typedef struct tool_command {
  const char *name;    /* "inspect", "edit codebook" */
  const char *summary; /* one line for `lqt help` */
  const struct argp *argp;
  int (*run)(int argc, char **argv); /* argv[0] is "lqt NAME"; returns an exit code */
} tool_command;

extern const tool_command tool_inspect, tool_validate, tool_quantize, tool_synth, tool_run,
    tool_eval, tool_edit_codebook, tool_edit_delta, tool_edit_mask, tool_edit_scale,
    tool_edit_tensor, tool_edit_module, tool_edit_hyper, tool_bench_ops, tool_bench_session,
    tool_bench_mutate, tool_selftest, tool_devices, tool_log, tool_keygen;

/* Parses a command line into `input`; wrong use ends the program with TOOL_WRONG_USE. */
void tool_parse(const struct argp *argp, int argc, char **argv, void *input);

/* Prints "lqt NAME: WHERE: WHAT" on stderr and returns the exit code of the status. */
int tool_fail(const char *command, lqt_status status, const lqt_diag *diag);
/* The same with a sentence of the program's own. `where` may be NULL. */
LQT_PRINTF(4, 5)
int tool_error(const char *command, int exit_code, const char *where, const char *format, ...);
int tool_exit_code(lqt_status status);

/* Numbers of the command line: the whole argument, in [low, high]; otherwise argp_error. */
uint64_t tool_parse_u64(struct argp_state *state, const char *option, const char *text,
                        uint64_t low, uint64_t high);
double tool_parse_number(struct argp_state *state, const char *option, const char *text, double low,
                         double high);
/* One of `words` (ends with NULL); returns its index. */
int tool_parse_word(struct argp_state *state, const char *option, const char *text,
                    const char *const *words);
/* Takes a positional argument into slots[*used]; argp_error past `count`. */
void tool_parse_argument(struct argp_state *state, char *text, const char **slots, size_t count);

/* --device, --threads, --isa, --exact: an argp child. */
typedef struct tool_device_args {
  const char *selector;
  lqt_device_options options;
} tool_device_args;
extern const struct argp tool_device_argp;
void tool_device_defaults(tool_device_args *args);
lqt_status tool_device_open(const tool_device_args *args, lqt_device **out_device, lqt_diag *diag);

/* True once the user has interrupted (SIGINT, SIGTERM). */
bool tool_cancelled(void);
void tool_catch_signals(void);

/* Progress on stderr: one line that is rewritten on a terminal, plain lines otherwise. `update` is
 * an lqt_progress_fn; its user is the tool_progress. */
typedef struct tool_progress {
  bool quiet, terminal, open;
  char stage[64];
  double started, printed;
  uint64_t base; /* `done` when the stage began */
} tool_progress;
void tool_progress_begin(tool_progress *progress, bool quiet);
bool tool_progress_update(void *progress, const char *stage, const char *unit, uint64_t done,
                          uint64_t total);
void tool_progress_end(tool_progress *progress);

/* Seconds of a clock that only goes forward. */
double tool_now(void);
/* "7.1 MB", "1.2 G". */
const char *tool_size_text(uint64_t bytes, char out[32]);
const char *tool_count_text(double count, char out[32]);

/* Once, before any JSON. */
void tool_json_begin(void);
/* True when an allocation of jansson has failed: it then drops bytes of strings in silence. */
bool tool_json_failed(void);
/* A JSON number; null when it is not finite. */
json_t *tool_json_real(double value);
/* A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. */
json_t *tool_json_text(const char *text, size_t bytes);
/* Prints and drops `root` (NULL: no memory); an exit code. */
int tool_print_json(const char *command, json_t *root);

/* A growable byte buffer that is written to a stream as valid UTF-8: bytes of an unfinished
 * character are held back, bytes that are no UTF-8 become U+FFFD. */
typedef struct tool_utf8 {
  unsigned char pending[4];
  size_t count;
} tool_utf8;
void tool_utf8_write(tool_utf8 *utf8, const char *bytes, size_t size, FILE *stream);
void tool_utf8_finish(tool_utf8 *utf8, FILE *stream);

/* Opens MODEL with the edits of its journal. On stderr it says how many there are. */
lqt_status tool_model_open(const char *path, lqt_model **out_model, lqt_diag *diag);
/* The same of a model that is open: *model becomes the edited one, *out_edited says whether. */
lqt_status tool_model_replay(const char *path, lqt_model **model, bool *out_edited, lqt_diag *diag);
/* Opens MODEL, a device and an engine on it in one go; nothing is left open on failure. */
typedef struct tool_engine {
  lqt_model *model;
  lqt_device *device;
  lqt_engine *engine;
} tool_engine;
lqt_status tool_engine_open(const char *path, const tool_device_args *args, tool_engine *out,
                            lqt_diag *diag);
void tool_engine_close(tool_engine *engine);

/* Reads a whole file, "-" for standard input. The caller frees *out. */
lqt_status tool_read_file(const char *path, char **out, size_t *out_bytes, lqt_diag *diag);
/* Encodes text with the model's tokenizer; `bos` puts the begin-of-text id in front when there is
 * one. The caller frees *out_ids. */
lqt_status tool_encode(const lqt_tokenizer *tokenizer, const char *text, size_t bytes, bool bos,
                       bool special, int32_t **out_ids, size_t *out_count, lqt_diag *diag);
/* Fills a diag of the program's own and returns `status`. */
LQT_PRINTF(4, 5)
lqt_status tool_diag(lqt_diag *diag, lqt_status status, const char *where, const char *format, ...);

#endif /* LQT_TOOLS_COMMON_H_ */
