/* What the `lqt edit` commands share: one mutation, and what is done with it. */
#ifndef LQT_TOOLS_EDIT_H_
#define LQT_TOOLS_EDIT_H_

#include "common.h"

enum { EDIT_MOST = 4096 };

typedef struct edit_args {
  const char *path, *output, *sign, *values_file;
  bool save, json, dry, whole_file_is_bits;
  lqt_mutation mutation;
  lqt_commit_options options;
  float values[EDIT_MOST];
  uint32_t coordinates[2 * EDIT_MOST];
  uint8_t bytes[EDIT_MOST];
} edit_args;

/* Options that every command takes; its input is the edit_args. */
extern const struct argp edit_common_argp;
extern const struct argp_child edit_children[];

/* For the commands' parsers. Each ends the program when the text is wrong. */
void edit_parse_values(struct argp_state *state, edit_args *args, const char *option,
                       const char *text);
void edit_parse_coordinates(struct argp_state *state, edit_args *args, const char *text);
void edit_parse_bytes(struct argp_state *state, edit_args *args, const char *option,
                      const char *text);
/* Sets the operation; argp_error when another one was asked for. */
void edit_choose(struct argp_state *state, edit_args *args, lqt_operation operation);
/* ARGP_KEY_INIT, _ARG and _END as every command handles them; `need` says what the end misses when
 * no operation was chosen. ARGP_ERR_UNKNOWN for other keys. */
error_t edit_parse_common(int key, char *text, struct argp_state *state, const char *need);

/* Runs a command: opens model and journal, makes the edit, prints what came of it. */
int edit_run(const struct argp *argp, int argc, char **argv);

#endif /* LQT_TOOLS_EDIT_H_ */
