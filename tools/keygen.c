/* lqt keygen: a key pair that signs edits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

enum { KEY_JSON = 0x1000 };

static const struct argp_option options[] = {
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {0},
};

typedef struct keygen_args {
  const char *path;
  bool json;
} keygen_args;

static error_t parse(int key, char *text, struct argp_state *state) {
  keygen_args *args = state->input;
  switch (key) {
    case KEY_JSON:
      args->json = true;
      return 0;
    case ARGP_KEY_ARG:
      tool_parse_argument(state, text, &args->path, 1);
      return 0;
    case ARGP_KEY_END:
      if (args->path == NULL) argp_error(state, "give the file for the private key");
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "KEY",
    .doc =
        "Makes an Ed25519 key pair: KEY, which signs and which only you can read, and KEY.pub, "
        "which "
        "checks.\vFiles that are there are not overwritten. Both are PEM, as openssl pkey reads "
        "them.\n\nExamples:\n"
        "  lqt keygen team.key\n"
        "  lqt edit codebook model.lqt --id 3 --vector 7 --value 0.25 --sign team.key\n"
        "  lqt log model.lqt verify --required-key team.key.pub"};

static lqt_status make(const char *path, const char *public_path, uint8_t public_key[32],
                       lqt_diag *diag) {
  lqt_key *key;
  lqt_status status = lqt_key_generate(&key, diag);
  if (status != LQT_OK) return status;
  memcpy(public_key, lqt_key_public(key), 32);
  status = lqt_key_write(key, true, path, diag);
  if (status == LQT_OK) {
    status = lqt_key_write(key, false, public_path, diag);
    if (status != LQT_OK) unlink(path);
  }
  lqt_key_destroy(key);
  return status;
}

static int run(int argc, char **argv) {
  keygen_args args = {0};
  tool_parse(&argp, argc, argv, &args);
  lqt_diag diag = {0};
  size_t size = strlen(args.path) + 5;
  char *public_path = malloc(size);
  if (public_path == NULL) return tool_fail(argv[0], LQT_OUT_OF_MEMORY, NULL);
  snprintf(public_path, size, "%s.pub", args.path);
  uint8_t public_key[32];
  char text[65];
  int code = TOOL_DONE;
  lqt_status status = make(args.path, public_path, public_key, &diag);
  for (size_t i = 0; i < 32; i++) snprintf(text + 2 * i, 3, "%02x", public_key[i]);
  if (status != LQT_OK) {
    code = tool_fail(argv[0], status, &diag);
  } else if (args.json) {
    code = tool_print_json(
        argv[0],
        json_pack("{s:o, s:o, s:s}", "private", tool_json_text(args.path, strlen(args.path)),
                  "public", tool_json_text(public_path, strlen(public_path)), "key", text));
  } else {
    printf("%s: private key; %s: public key %s\n", args.path, public_path, text);
  }
  free(public_path);
  return code;
}

const tool_command tool_keygen = {"keygen", "Make a key pair that signs edits", &argp, run};
