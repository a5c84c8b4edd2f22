/* lqt edit: the model's journal, the edit, and what is said about it. */
#include "edit.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { KEY_JSON = 0x2100, KEY_DRY, KEY_SAVE, KEY_ACTOR, KEY_REASON, KEY_USER, KEY_SIGN };

static const struct argp_option options[] = {
    {"output", 'o', "OUT.lqt", 0, "Write the edited model here; MODEL and its journal stay", 1},
    {"save", KEY_SAVE, NULL, 0, "Then write MODEL.lqt anew with all edits in it (compact)", 1},
    {"dry-run", KEY_DRY, NULL, 0, "Say what would change, and write nothing", 1},
    {"json", KEY_JSON, NULL, 0, "Print JSON", 1},
    {"actor", KEY_ACTOR, "WHO", 0, "Who makes the edit, for the journal", 1},
    {"user", KEY_USER, "N", 0, "A user's number, 0 to 65535, for the journal", 1},
    {"reason", KEY_REASON, "TEXT", 0, "Why, for the journal", 1},
    {"sign", KEY_SIGN, "KEY", 0, "Sign the edit with this private key (lqt keygen)", 1},
    {0},
};

static error_t parse(int key, char *text, struct argp_state *state) {
  edit_args *args = state->input;
  switch (key) {
    case 'o':
      args->output = text;
      return 0;
    case KEY_SAVE:
      args->save = true;
      return 0;
    case KEY_DRY:
      args->dry = true;
      return 0;
    case KEY_JSON:
      args->json = true;
      return 0;
    case KEY_ACTOR:
      args->options.actor = text;
      return 0;
    case KEY_USER:
      args->options.user = (uint16_t)tool_parse_u64(state, "--user", text, 0, UINT16_MAX);
      return 0;
    case KEY_REASON:
      args->options.reason = text;
      return 0;
    case KEY_SIGN:
      args->sign = text;
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

const struct argp edit_common_argp = {.options = options, .parser = parse};
const struct argp_child edit_children[] = {{&edit_common_argp, 0, "Every edit:", 1}, {0}};

/* ---- Parsing ---- */

void edit_parse_values(struct argp_state *state, edit_args *args, const char *option,
                       const char *text) {
  size_t count = 0;
  for (const char *at = text;;) {
    char *end = NULL;
    double value = strtod(at, &end);
    if (end == at || (*end != ',' && *end != '\0')) {
      argp_error(state, "%s takes numbers separated by commas, not '%s'", option, text);
    }
    if (count == EDIT_MOST) argp_error(state, "%s takes at most %d numbers", option, EDIT_MOST);
    args->values[count++] = (float)value;
    if (*end == '\0') break;
    at = end + 1;
  }
  args->mutation.values = args->values;
  args->mutation.value_count = count;
}

void edit_parse_coordinates(struct argp_state *state, edit_args *args, const char *text) {
  size_t count = 0;
  for (const char *at = text;;) {
    char *end = NULL;
    unsigned long long number = strtoull(at, &end, 10);
    bool ends = *end == '\0' || *end == ',';
    bool row = count % 2 == 0;
    if (end == at || *at == '-' || number > UINT32_MAX || (row ? *end != ':' : !ends)) {
      argp_error(state, "--at takes ROW:COLUMN[,ROW:COLUMN...], not '%s'", text);
    }
    if (count == 2 * EDIT_MOST) argp_error(state, "--at takes at most %d elements", EDIT_MOST);
    args->coordinates[count++] = (uint32_t)number;
    if (*end == '\0') break;
    at = end + 1;
  }
  args->mutation.coordinates = args->coordinates;
  args->mutation.coordinate_count = count / 2;
}

void edit_parse_bytes(struct argp_state *state, edit_args *args, const char *option,
                      const char *text) {
  size_t digits = strlen(text);
  if (digits == 0 || digits % 2 != 0 || digits / 2 > EDIT_MOST ||
      strspn(text, "0123456789abcdefABCDEF") != digits) {
    argp_error(state, "%s takes pairs of hexadecimal digits, at most %d, not '%s'", option,
               EDIT_MOST, text);
  }
  for (size_t i = 0; i < digits / 2; i++) {
    char pair[3] = {text[2 * i], text[2 * i + 1], '\0'};
    args->bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
  }
  args->mutation.data = args->bytes;
  args->mutation.bytes = digits / 2;
}

void edit_choose(struct argp_state *state, edit_args *args, lqt_operation operation) {
  if (args->mutation.operation != 0 && args->mutation.operation != operation) {
    argp_error(state, "%s and %s are two edits; make them one after the other",
               lqt_operation_name(args->mutation.operation), lqt_operation_name(operation));
  }
  args->mutation.operation = operation;
}

error_t edit_parse_common(int key, char *text, struct argp_state *state, const char *need) {
  edit_args *args = state->input;
  switch (key) {
    case ARGP_KEY_INIT:
      state->child_inputs[0] = args;
      return 0;
    case ARGP_KEY_ARG:
      tool_parse_argument(state, text, &args->path, 1);
      return 0;
    case ARGP_KEY_END:
      if (args->path == NULL) argp_error(state, "give the model file to edit");
      if (args->mutation.operation == 0) argp_error(state, "%s", need);
      if (args->output != NULL && args->save) argp_error(state, "--output or --save, not both");
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

/* ---- Values from a file ---- */

static lqt_status read_values(edit_args *args, char **out_text, lqt_diag *diag) {
  *out_text = NULL;
  if (args->values_file == NULL) return LQT_OK;
  size_t bytes;
  lqt_status status = tool_read_file(args->values_file, out_text, &bytes, diag);
  if (status != LQT_OK) return status;
  if (args->whole_file_is_bits) {
    args->mutation.data = *out_text;
    args->mutation.bytes = bytes;
    return LQT_OK;
  }
  if (bytes % sizeof(float) != 0) {
    return tool_diag(diag, LQT_DIMENSION_MISMATCH, args->values_file,
                     "%zu bytes are not whole float32 values", bytes);
  }
  args->mutation.values = (const float *)(const void *)*out_text;
  args->mutation.value_count = bytes / sizeof(float);
  return LQT_OK;
}

/* ---- The edit ---- */

typedef struct outcome {
  uint64_t revision;
  lqt_journal_report report;
  float old_values[EDIT_MOST], new_values[EDIT_MOST];
  size_t dim; /* of them; 0: the edit is not of one codebook vector */
} outcome;

/* The vector of a codebook edit before and after; of others nothing is said. */
static lqt_status look(const lqt_editor *editor, const edit_args *args, float *out, size_t *dim,
                       lqt_diag *diag) {
  const lqt_mutation *m = &args->mutation;
  *dim = 0;
  if (m->operation != LQT_EDIT_CODEBOOK_ENTRIES) return LQT_OK;
  lqt_status status =
      lqt_editor_codebook_entry(editor, m->id, (uint32_t)m->first, out, m->value_count, diag);
  if (status == LQT_OK) *dim = m->value_count;
  return status;
}

static lqt_status try_it(lqt_editor *editor, const edit_args *args, outcome *out, lqt_diag *diag) {
  lqt_transaction *transaction;
  lqt_status status = lqt_transaction_begin(editor, LQT_REVISION_ANY, &transaction, diag);
  if (status != LQT_OK) return status;
  status = lqt_transaction_add(transaction, &args->mutation, diag);
  if (status == LQT_OK) status = lqt_transaction_validate(transaction, &args->options, diag);
  lqt_transaction_rollback(transaction);
  if (out->dim != 0) memcpy(out->new_values, args->mutation.values, out->dim * sizeof(float));
  return status;
}

static lqt_status make_it(lqt_editor *editor, const edit_args *args, outcome *out, lqt_diag *diag) {
  lqt_status status = lqt_edit(editor, &args->mutation, &args->options, &out->revision, diag);
  if (status == LQT_OK) status = look(editor, args, out->new_values, &out->dim, diag);
  if (status == LQT_OK && args->output != NULL) {
    status = lqt_editor_save(editor, args->output, diag);
  }
  if (status == LQT_OK && args->save) status = lqt_editor_compact(editor, diag);
  return status;
}

static lqt_status edit(const edit_args *args, lqt_model *model, const lqt_key *key, outcome *out,
                       lqt_diag *diag) {
  lqt_journal_options journal = {.size = sizeof journal, .sign = key};
  bool writes = !args->dry && args->output == NULL;
  lqt_editor *editor;
  lqt_model *snapshot = NULL;
  lqt_status status = lqt_editor_create(model, &editor, diag);
  if (status != LQT_OK) return status;
  status = lqt_editor_open_journal(editor, writes ? LQT_JOURNAL_WRITE : LQT_JOURNAL_READ, &journal,
                                   &out->report, diag);
  if (status == LQT_OK && !args->dry && args->output != NULL) {
    /* On a copy that has no journal: nothing but the output is written. */
    status = lqt_editor_snapshot(editor, &snapshot, diag);
    if (status == LQT_OK) {
      lqt_editor_destroy(editor);
      status = lqt_editor_create(snapshot, &editor, diag);
    }
  }
  if (status == LQT_OK) status = look(editor, args, out->old_values, &out->dim, diag);
  if (status == LQT_OK) {
    status = args->dry ? try_it(editor, args, out, diag) : make_it(editor, args, out, diag);
  }
  lqt_editor_destroy(editor);
  lqt_model_release(snapshot);
  return status;
}

/* ---- What is said ---- */

static json_t *value_list(const float *values, size_t dim) {
  json_t *array = json_array();
  for (size_t i = 0; i < dim; i++) json_array_append_new(array, tool_json_real((double)values[i]));
  return array;
}

static json_t *text_or_null(const char *text) {
  return text != NULL ? tool_json_text(text, strlen(text)) : json_null();
}

static int print_json(const char *command, const edit_args *args, const char *written,
                      const outcome *out) {
  const lqt_mutation *m = &args->mutation;
  json_t *root = json_pack(
      "{s:o, s:b, s:s, s:o, s:o, s:I}", "path", tool_json_text(written, strlen(written)), "written",
      !args->dry, "operation", lqt_operation_name(m->operation), "target", text_or_null(m->target),
      "other", text_or_null(m->other), "revision", (json_int_t)out->revision);
  if (root != NULL && out->dim != 0) {
    json_object_set_new(root, "codebook", json_integer(m->id));
    json_object_set_new(root, "vector", json_integer((json_int_t)m->first));
    json_object_set_new(root, "old", value_list(out->old_values, out->dim));
    json_object_set_new(root, "new", value_list(out->new_values, out->dim));
  }
  return tool_print_json(command, root);
}

static void print_values(const char *name, const float *values, size_t dim) {
  printf("%s ", name);
  for (size_t i = 0; i < dim; i++) printf("%s%.9g", i > 0 ? "," : "", (double)values[i]);
}

static void print_text(const edit_args *args, const char *written, const outcome *out) {
  const lqt_mutation *m = &args->mutation;
  printf("%s: ", written);
  if (out->dim != 0) {
    printf("codebook %u, vector %llu: ", m->id, (unsigned long long)m->first);
    print_values("old", out->old_values, out->dim);
    print_values(", new", out->new_values, out->dim);
  } else {
    printf("%s", lqt_operation_name(m->operation));
    if (m->target != NULL) printf(" of %s", m->target);
    if (m->other != NULL) printf(" (%s)", m->other);
  }
  if (args->dry) {
    puts(" (not written)");
  } else if (args->output == NULL) {
    printf(", revision %llu\n", (unsigned long long)out->revision);
  } else {
    puts("");
  }
}

static bool is_model(const edit_args *args) {
  struct stat model, output;
  return args->output != NULL && stat(args->path, &model) == 0 &&
         stat(args->output, &output) == 0 && model.st_dev == output.st_dev &&
         model.st_ino == output.st_ino;
}

int edit_run(const struct argp *argp, int argc, char **argv) {
  static edit_args args;
  static outcome out;
  args = (edit_args){.mutation = {.size = sizeof args.mutation, .id = LQT_ID_NONE},
                     .options = {.size = sizeof args.options}};
  tool_parse(argp, argc, argv, &args);
  lqt_diag diag = {0};
  lqt_model *model = NULL;
  lqt_key *key = NULL;
  char *text = NULL;
  lqt_status status = read_values(&args, &text, &diag);
  if (status == LQT_OK && args.sign != NULL) status = lqt_key_read(args.sign, &key, &diag);
  if (status == LQT_OK) status = lqt_model_open(args.path, NULL, &model, &diag);
  if (status == LQT_OK && is_model(&args)) {
    status = tool_diag(&diag, LQT_INVALID_ARGUMENT, args.output,
                       "--output names the model itself, whose journal would not fit it any more; "
                       "use --save");
  }
  if (status == LQT_OK) status = edit(&args, model, key, &out, &diag);
  lqt_model_release(model);
  lqt_key_destroy(key);
  free(text);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  if (out.report.dropped_bytes != 0) {
    fprintf(stderr, "%s: an unfinished edit of %llu bytes was cut off the journal\n", argv[0],
            (unsigned long long)out.report.dropped_bytes);
  }
  const char *written = args.output != NULL ? args.output : args.path;
  if (args.json) return print_json(argv[0], &args, written, &out);
  print_text(&args, written, &out);
  return TOOL_DONE;
}
