/* lqt log: its options, and the model and keys that they name. */
#include "log.h"

#include <string.h>

enum { KEY_JSON = 0x1000, KEY_HEAD, KEY_REQUIRED, KEY_SIGN, KEY_ACTOR, KEY_REASON, KEY_JOURNAL };

static const struct argp_option options[] = {
    {"json", KEY_JSON, NULL, 0, "Print JSON (list: an array of one object a transaction)", 0},
    {"head", KEY_HEAD, "HASH", 0, "verify: the hash that was noted must be in the journal", 0},
    {"required-key", KEY_REQUIRED, "KEY.pub", 0,
     "Each transaction must be signed by this key (or another one given)", 0},
    {"require-signed", KEY_REQUIRED, "KEY", OPTION_ALIAS, NULL, 0},
    {"output", 'o', "FILE", 0, "export: write here", 0},
    {"journal", KEY_JOURNAL, "FILE", 0, "The journal (default: MODEL.lqt.journal)", 0},
    {"sign", KEY_SIGN, "KEY", 0, "rollback: sign it with this private key", 0},
    {"actor", KEY_ACTOR, "NAME", 0, "rollback: who does it", 0},
    {"reason", KEY_REASON, "TEXT", 0, "rollback: why", 0},
    {0},
};

static const char *const actions[] = {"list",     "show",   "head",    "verify",
                                      "rollback", "export", "compact", NULL};

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

static void parse_head(struct argp_state *state, log_args *args, const char *text) {
  size_t digits = 0;
  for (; digits < 64 && hex_digit(text[digits]) >= 0; digits++) {
    int value = hex_digit(text[digits]);
    uint8_t *byte = &args->head[digits / 2];
    *byte = digits % 2 == 0 ? (uint8_t)(value << 4) : (uint8_t)(*byte | value);
  }
  if (digits != 64 || text[64] != '\0') {
    argp_error(state, "--head takes 64 hexadecimal digits, as 'lqt log MODEL head' prints");
  }
  args->has_head = true;
}

static void parse_argument(struct argp_state *state, log_args *args, char *text) {
  if (args->path == NULL) {
    args->path = text;
  } else if (!args->has_action) {
    args->action = (log_action)tool_parse_word(state, "the action", text, actions);
    args->has_action = true;
  } else if (!args->has_revision && (args->action == LOG_SHOW || args->action == LOG_ROLLBACK)) {
    args->revision = tool_parse_u64(state, "the revision", text, 0, UINT64_MAX - 1);
    args->has_revision = true;
  } else {
    argp_error(state, "'%s' is one argument too many", text);
  }
}

static error_t parse(int key, char *text, struct argp_state *state) {
  log_args *args = state->input;
  switch (key) {
    case KEY_JSON:
      args->json = true;
      return 0;
    case KEY_HEAD:
      parse_head(state, args, text);
      return 0;
    case KEY_REQUIRED:
      if (args->required_count == LOG_MAX_KEYS) {
        argp_error(state, "at most %d keys may be required", LOG_MAX_KEYS);
      }
      args->required[args->required_count++] = text;
      return 0;
    case KEY_SIGN:
      args->sign = text;
      return 0;
    case KEY_ACTOR:
      args->actor = text;
      return 0;
    case KEY_REASON:
      args->reason = text;
      return 0;
    case KEY_JOURNAL:
      args->journal = text;
      return 0;
    case 'o':
      args->output = text;
      return 0;
    case ARGP_KEY_ARG:
      parse_argument(state, args, text);
      return 0;
    case ARGP_KEY_END:
      if (args->path == NULL) argp_error(state, "give the model file");
      if ((args->action == LOG_SHOW || args->action == LOG_ROLLBACK) && !args->has_revision) {
        argp_error(state, "%s takes a revision; 'lqt log MODEL' lists them", actions[args->action]);
      }
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "MODEL.lqt [list | show N | head | verify | rollback N | export | compact]",
    .doc =
        "Looks at the journal of a model's edits, brings back an earlier revision, or compacts.\v"
        "list      one line a transaction (the default)\n"
        "show N    all of revision N\n"
        "head      the hash of the last transaction; note it, and verify --head finds a journal "
        "that was cut off\n"
        "verify    every frame, hash and signature; exit code 0: all is right, 1: it is not\n"
        "rollback N\n          a new revision that has the bytes of revision N (0: of the file)\n"
        "export    one line of JSON a transaction, with everything but the new weights\n"
        "compact   writes the edited model with its journal inside, and begins an empty one; an "
        "earlier revision cannot be brought back then\n\n"
        "Examples:\n"
        "  lqt log model.lqt --json\n"
        "  lqt log model.lqt verify --head $(cat noted) --required-key team.key.pub\n"
        "  lqt log model.lqt rollback 3 --actor me --reason 'worse than before'\n"};

static lqt_status read_keys(const log_args *args, lqt_key **required, lqt_key **out_sign,
                            lqt_diag *diag) {
  for (size_t i = 0; i < args->required_count; i++) {
    lqt_status status = lqt_key_read(args->required[i], &required[i], diag);
    if (status != LQT_OK) return status;
  }
  return args->sign != NULL ? lqt_key_read(args->sign, out_sign, diag) : LQT_OK;
}

static int run(int argc, char **argv) {
  log_args args = {0};
  tool_parse(&argp, argc, argv, &args);
  lqt_diag diag = {0};
  lqt_key *required[LOG_MAX_KEYS] = {0}, *sign = NULL;
  lqt_model *model = NULL;
  lqt_status status = read_keys(&args, required, &sign, &diag);
  if (status == LQT_OK) status = lqt_model_open(args.path, NULL, &model, &diag);
  lqt_journal_options journal = {.size = sizeof journal,
                                 .path = args.journal,
                                 .sign = sign,
                                 .required = (const lqt_key *const *)required,
                                 .required_count = args.required_count};
  int code;
  if (status != LQT_OK) {
    code = tool_fail(argv[0], status, &diag);
  } else if (args.action == LOG_ROLLBACK || args.action == LOG_COMPACT) {
    code = log_write(argv[0], &args, model, &journal);
  } else {
    code = log_read(argv[0], &args, model, &journal);
  }
  lqt_model_release(model);
  for (size_t i = 0; i < args.required_count; i++) lqt_key_destroy(required[i]);
  lqt_key_destroy(sign);
  return code;
}

const tool_command tool_log = {"log", "Show, check, roll back or compact a model's journal", &argp,
                               run};
