/* lqt validate: is the file whole and consistent? */
#include <string.h>

#include "common.h"

enum { KEY_NO_INTEGRITY = 0x1000, KEY_NO_EDIT_LOG, KEY_NO_CONSISTENCY, KEY_JSON };

static const struct argp_option options[] = {
    {"no-integrity", KEY_NO_INTEGRITY, NULL, 0, "Skip the checksum and the digests", 0},
    {"no-edit-log", KEY_NO_EDIT_LOG, NULL, 0, "Skip the edit log", 0},
    {"no-consistency", KEY_NO_CONSISTENCY, NULL, 0,
     "Skip index ranges, finite values, and the graph against its tensors", 0},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {"quiet", 'q', NULL, 0, "No progress", 0},
    {0},
};

typedef struct validate_args {
  const char *path;
  lqt_validate_options options;
  bool json, quiet;
} validate_args;

static error_t parse(int key, char *text, struct argp_state *state) {
  validate_args *args = state->input;
  switch (key) {
    case KEY_NO_INTEGRITY:
      args->options.no_integrity = true;
      return 0;
    case KEY_NO_EDIT_LOG:
      args->options.no_edit_log = true;
      return 0;
    case KEY_NO_CONSISTENCY:
      args->options.no_consistency = true;
      return 0;
    case KEY_JSON:
      args->json = true;
      return 0;
    case 'q':
      args->quiet = true;
      return 0;
    case ARGP_KEY_ARG:
      tool_parse_argument(state, text, &args->path, 1);
      return 0;
    case ARGP_KEY_END:
      if (args->path == NULL) argp_error(state, "give the model file to check");
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "MODEL.lqt",
    .doc =
        "Checks a model file: its structure, every byte against its checksum and digests, every "
        "index against its codebook, that values are finite, and the module graph. With a journal "
        "beside it, the model as edited too.\v"
        "Each finding is one line on standard output. Exit code 0: nothing was found; 1: the file "
        "is damaged or inconsistent; 3: it could not be read at all.\n\nExamples:\n"
        "  lqt validate model.lqt\n"
        "  lqt validate model.lqt --no-integrity --json"};

typedef struct findings {
  bool json;
  json_t *array;
  size_t count;
  const char *path;
} findings;

static void report(void *user, const lqt_diag *finding) {
  findings *found = user;
  found->count++;
  const char *where = finding->where[0] != '\0' ? finding->where : found->path;
  if (!found->json) {
    printf("%s: %s [%s", where, finding->what, lqt_status_name(finding->status));
    if (finding->offset != UINT64_MAX) {
      printf(" at byte %llu", (unsigned long long)finding->offset);
    }
    puts("]");
    return;
  }
  json_t *item = json_pack(
      "{s:s, s:o, s:o, s:o}", "status", lqt_status_name(finding->status), "where",
      tool_json_text(where, strlen(where)), "what",
      tool_json_text(finding->what, strlen(finding->what)), "offset",
      finding->offset != UINT64_MAX ? json_integer((json_int_t)finding->offset) : json_null());
  if (item != NULL) json_array_append_new(found->array, item);
}

/* What the file itself is to blame for; anything else (no such file, no memory) is not an answer.
 */
static bool is_verdict(lqt_status status) {
  return (status >= LQT_BAD_MAGIC && status <= LQT_LIMIT) || status == LQT_UNSUPPORTED ||
         status == LQT_OUT_OF_RANGE || status == LQT_OVERFLOW || status == LQT_NOT_FINITE ||
         (status >= LQT_BAD_JOURNAL && status <= LQT_WRONG_BASE) ||
         status == LQT_DIMENSION_MISMATCH || status == LQT_VALIDATION_FAILED;
}

/* The same of the model with the edits of its journal, when there are any; their bytes are covered
 * by the journal's hashes. */
static lqt_status validate_edited(const validate_args *args, lqt_model **model, findings *found,
                                  lqt_diag *diag) {
  bool edited;
  lqt_status status = tool_model_replay(args->path, model, &edited, diag);
  if (status != LQT_OK || !edited) return status;
  lqt_validate_options contents = args->options;
  contents.no_integrity = true;
  return lqt_model_validate(*model, &contents, report, found, diag);
}

static int run(int argc, char **argv) {
  validate_args args = {.options = {.size = sizeof args.options}};
  tool_parse(&argp, argc, argv, &args);
  lqt_diag diag = {0};
  lqt_model *model = NULL;
  tool_progress progress;
  tool_progress_begin(&progress, args.quiet);
  args.options.progress = tool_progress_update;
  args.options.user = &progress;
  findings found = {.json = args.json, .path = args.path, .array = json_array()};
  if (found.array == NULL) return tool_fail(argv[0], LQT_OUT_OF_MEMORY, NULL);
  lqt_status status = lqt_model_open(args.path, NULL, &model, &diag);
  if (status == LQT_OK) {
    status = lqt_model_validate(model, &args.options, report, &found, &diag);
  }
  if (status == LQT_OK) status = validate_edited(&args, &model, &found, &diag);
  tool_progress_end(&progress);
  lqt_model_release(model);
  if (status != LQT_OK && !is_verdict(status)) {
    json_decref(found.array);
    return tool_fail(argv[0], status, &diag);
  }
  if (status != LQT_OK && found.count == 0) report(&found, &diag);
  int code = status == LQT_OK ? TOOL_DONE : TOOL_NO;
  if (args.json) {
    int printed = tool_print_json(
        argv[0], json_pack("{s:o, s:b, s:o}", "path", tool_json_text(args.path, strlen(args.path)),
                           "valid", status == LQT_OK, "findings", found.array));
    return printed != TOOL_DONE ? printed : code;
  }
  json_decref(found.array);
  if (status == LQT_OK) {
    printf("%s: valid\n", args.path);
  } else {
    fflush(stdout);
    tool_error(argv[0], code, args.path, "not valid; %zu finding%s", found.count,
               found.count == 1 ? "" : "s");
  }
  return code;
}

const tool_command tool_validate = {"validate", "Check that a file is whole and consistent", &argp,
                                    run};
