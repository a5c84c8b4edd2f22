/* `lqt`: finds the subcommand and runs it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const tool_command *const commands[] = {
    &tool_quantize,      &tool_inspect,    &tool_validate,  &tool_run,           &tool_eval,
    &tool_edit_codebook, &tool_edit_delta, &tool_edit_mask, &tool_edit_scale,    &tool_edit_tensor,
    &tool_edit_module,   &tool_edit_hyper, &tool_bench_ops, &tool_bench_session, &tool_bench_mutate,
    &tool_selftest,      &tool_devices,    &tool_synth,     &tool_log,           &tool_keygen,
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_overview(FILE *stream) {
  fputs(
      "lqt: editable, codebook-quantized models.\n\n"
      "Usage: lqt COMMAND [OPTION...] [ARGUMENT...]\n\nCommands:\n",
      stream);
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    fprintf(stream, "  %-14s %s\n", commands[i]->name, commands[i]->summary);
  }
  fputs(
      "  help           What a command does and takes: lqt help COMMAND\n\n"
      "Results go to standard output, everything else to standard error.\n\n"
      "Exit codes:\n"
      "  0    done\n"
      "  1    the answer is no: a check failed\n"
      "  2    wrong use: an option or argument\n"
      "  3    bad input: a file that cannot be read, written or used, a value out of range, or "
      "too\n"
      "       little memory for it\n"
      "  4    the device is not there, or cannot do it\n"
      "  70   a bug of the program\n"
      "  130  interrupted; no output file is left behind\n",
      stream);
}

/* The command that the words begin with; *out_words is how many words its name has. */
static const tool_command *find_command(int count, char **words, int *out_words) {
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    const char *name = commands[i]->name;
    const char *space = strchr(name, ' ');
    size_t first = space != NULL ? (size_t)(space - name) : strlen(name);
    if (strlen(words[0]) != first || strncmp(words[0], name, first) != 0) continue;
    *out_words = space != NULL ? 2 : 1;
    if (space == NULL || (count > 1 && strcmp(words[1], space + 1) == 0)) return commands[i];
  }
  return NULL;
}

static int unknown_command(int count, char **words) {
  size_t length = strlen(words[0]);
  char names[512] = "";
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    const char *name = commands[i]->name;
    if (strncmp(name, words[0], length) != 0 || name[length] != ' ') continue;
    size_t used = strlen(names);
    snprintf(names + used, sizeof names - used, "%s'lqt %s'", used > 0 ? " or " : "", name);
  }
  if (names[0] != '\0') {
    return tool_error("lqt", TOOL_WRONG_USE, NULL, "'%s%s%s' is not a command; use %s", words[0],
                      count > 1 ? " " : "", count > 1 ? words[1] : "", names);
  }
  return tool_error("lqt", TOOL_WRONG_USE, NULL, "there is no command '%s'; 'lqt help' lists them",
                    words[0]);
}

static int help(int count, char **words) {
  if (count == 0) {
    print_overview(stdout);
    return TOOL_DONE;
  }
  int used = 0;
  const tool_command *command = find_command(count, words, &used);
  if (command == NULL) return unknown_command(count, words);
  char name[64];
  snprintf(name, sizeof name, "lqt %s", command->name);
  char option[] = "--help";
  char *arguments[] = {name, option, NULL};
  return command->run(2, arguments); /* argp prints and ends the program */
}

static int run(int argc, char **argv) {
  if (argc < 2) {
    print_overview(stderr);
    return TOOL_WRONG_USE;
  }
  const char *word = argv[1];
  if (strcmp(word, "help") == 0) return help(argc - 2, argv + 2);
  if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return help(0, NULL);
  if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
    printf("lqt %s\n", lqt_version_text());
    return TOOL_DONE;
  }
  int used = 0;
  const tool_command *command = find_command(argc - 1, argv + 1, &used);
  if (command == NULL) return unknown_command(argc - 1, argv + 1);
  char name[64];
  snprintf(name, sizeof name, "lqt %s", command->name);
  argv[used] = name; /* argp and our own messages begin with it */
  tool_catch_signals();
  return command->run(argc - used, argv + used);
}

int main(int argc, char **argv) {
  tool_json_begin();
  int code = run(argc, argv);
  if (fflush(stdout) != 0 || ferror(stdout)) {
    int lost = tool_error("lqt", TOOL_BAD_INPUT, NULL, "standard output cannot be written: %s",
                          strerror(errno));
    if (code == TOOL_DONE) code = lost;
  }
  return code;
}
