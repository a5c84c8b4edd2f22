/* lqt edit codebook: replaces one entry of a codebook in a file. */
#include <stdlib.h>
#include <string.h>

#include "common.h"

enum { MAX_DIM = 64 };
enum { KEY_ID = 0x1000, KEY_VECTOR, KEY_VALUE, KEY_JSON, KEY_DRY };

static const struct argp_option options[] = {
    {"id", KEY_ID, "N", 0, "The codebook", 0},
    {"vector", KEY_VECTOR, "I", 0, "The vector, counted over all banks", 0},
    {"value", KEY_VALUE, "V[,V...]", 0, "Its new values, one for each dimension", 0},
    {"output", 'o', "OUT.lqt", 0, "Write here and leave MODEL.lqt as it is", 0},
    {"dry-run", KEY_DRY, NULL, 0, "Say what would change, and write nothing", 0},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {0},
};

typedef struct edit_args {
  const char *path, *output;
  uint64_t id, vector;
  bool has_id, has_vector, json, dry;
  float values[MAX_DIM];
  size_t dim;
} edit_args;

static void parse_values(struct argp_state *state, edit_args *args, const char *text) {
  args->dim = 0;
  for (const char *at = text;;) {
    char *end = NULL;
    double value = strtod(at, &end);
    if (end == at || (*end != ',' && *end != '\0')) {
      argp_error(state, "--value takes numbers separated by commas, not '%s'", text);
    }
    if (args->dim == MAX_DIM) argp_error(state, "--value takes at most %d numbers", MAX_DIM);
    args->values[args->dim++] = (float)value;
    if (*end == '\0') return;
    at = end + 1;
  }
}

static error_t parse(int key, char *text, struct argp_state *state) {
  edit_args *args = state->input;
  switch (key) {
    case KEY_ID:
      args->id = tool_parse_u64(state, "--id", text, 0, 0xfffe);
      args->has_id = true;
      return 0;
    case KEY_VECTOR:
      args->vector = tool_parse_u64(state, "--vector", text, 0, UINT32_MAX);
      args->has_vector = true;
      return 0;
    case KEY_VALUE:
      parse_values(state, args, text);
      return 0;
    case KEY_JSON:
      args->json = true;
      return 0;
    case KEY_DRY:
      args->dry = true;
      return 0;
    case 'o':
      args->output = text;
      return 0;
    case ARGP_KEY_ARG:
      tool_parse_argument(state, text, &args->path, 1);
      return 0;
    case ARGP_KEY_END:
      if (args->path == NULL) argp_error(state, "give the model file to edit");
      if (!args->has_id || !args->has_vector || args->dim == 0) {
        argp_error(state, "--id, --vector and --value are needed");
      }
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
        "Replaces one vector of a codebook. Every weight whose index points to it changes.\v"
        "Values are rounded to the codebook's type. The file is replaced as a whole or stays as "
        "it was. The old values are printed so that they can be put back; putting them back gives "
        "the same bytes as before (the time of writing aside).\n\nExamples:\n"
        "  lqt inspect model.lqt --codebooks\n"
        "  lqt edit codebook model.lqt --id 3 --vector 7 --value 0.25\n"
        "  lqt edit codebook model.lqt --id 3 --vector 7 --value 0.5,-0.5 -o edited.lqt"};

typedef struct edit_outcome {
  float old_values[MAX_DIM], new_values[MAX_DIM];
  uint64_t revision;
} edit_outcome;

static lqt_status edit(const edit_args *args, lqt_model *model, edit_outcome *out, lqt_diag *diag) {
  uint16_t id = (uint16_t)args->id;
  uint32_t vector = (uint32_t)args->vector;
  lqt_editor *editor;
  lqt_status status = lqt_editor_create(model, &editor, diag);
  if (status != LQT_OK) return status;
  status = lqt_editor_codebook_entry(editor, id, vector, out->old_values, args->dim, diag);
  if (status == LQT_OK) {
    status =
        lqt_edit_codebook_entry(editor, id, vector, args->values, args->dim, &out->revision, diag);
  }
  if (status == LQT_OK) {
    status = lqt_editor_codebook_entry(editor, id, vector, out->new_values, args->dim, diag);
  }
  if (status == LQT_OK && !args->dry) {
    status = lqt_editor_save(editor, args->output != NULL ? args->output : args->path, diag);
  }
  lqt_editor_destroy(editor);
  return status;
}

static json_t *value_list(const float *values, size_t dim) {
  json_t *array = json_array();
  for (size_t i = 0; i < dim; i++) json_array_append_new(array, tool_json_real((double)values[i]));
  return array;
}

static void print_values(const char *name, const float *values, size_t dim) {
  printf("%s ", name);
  for (size_t i = 0; i < dim; i++) printf("%s%.9g", i > 0 ? "," : "", (double)values[i]);
}

static int run(int argc, char **argv) {
  edit_args args = {0};
  tool_parse(&argp, argc, argv, &args);
  lqt_diag diag = {0};
  lqt_model *model;
  lqt_status status = lqt_model_open(args.path, NULL, &model, &diag);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  edit_outcome outcome = {0};
  status = edit(&args, model, &outcome, &diag);
  lqt_model_release(model);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  const char *written = args.output != NULL ? args.output : args.path;
  if (args.json) {
    return tool_print_json(
        argv[0], json_pack("{s:o, s:b, s:I, s:I, s:o, s:o}", "path",
                           tool_json_text(written, strlen(written)), "written", !args.dry,
                           "codebook", (json_int_t)args.id, "vector", (json_int_t)args.vector,
                           "old", value_list(outcome.old_values, args.dim), "new",
                           value_list(outcome.new_values, args.dim)));
  }
  printf("%s: codebook %llu, vector %llu: ", written, (unsigned long long)args.id,
         (unsigned long long)args.vector);
  print_values("old", outcome.old_values, args.dim);
  print_values(", new", outcome.new_values, args.dim);
  puts(args.dry ? " (not written)" : "");
  return TOOL_DONE;
}

const tool_command tool_edit_codebook = {"edit codebook", "Replace one codebook entry of a file",
                                         &argp, run};
