/* lqt edit codebook, delta, mask, scale: values of what a model is quantized into. */
#include <string.h>

#include "edit.h"

enum {
  KEY_ID = 0x1000,
  KEY_VECTOR,
  KEY_VALUE,
  KEY_VALUES,
  KEY_EXPAND,
  KEY_TENSOR,
  KEY_AT,
  KEY_FIRST,
  KEY_KIND,
  KEY_DTYPE,
  KEY_RANK,
  KEY_REMOVE,
  KEY_KEEP,
  KEY_GROUP,
  KEY_ZERO,
  KEY_RESIDUAL,
};

/* Options that several of these commands read alike. */
static error_t parse_shared(int key, char *text, struct argp_state *state, const char *need) {
  edit_args *args = state->input;
  switch (key) {
    case KEY_ID:
      args->mutation.id = (uint16_t)tool_parse_u64(state, "--id", text, 0, 0xfffe);
      return 0;
    case KEY_TENSOR:
      args->mutation.target = text;
      return 0;
    case KEY_VALUE:
      edit_parse_values(state, args, "--value", text);
      return 0;
    case KEY_VALUES:
      args->values_file = text;
      return 0;
    case KEY_AT:
      edit_parse_coordinates(state, args, text);
      return 0;
    default:
      return edit_parse_common(key, text, state, need);
  }
}

static bool has_values(const edit_args *args) {
  return args->mutation.value_count != 0 || args->values_file != NULL;
}

/* ---- codebook ---- */

static const struct argp_option codebook_options[] = {
    {"id", KEY_ID, "N", 0, "The codebook", 0},
    {"vector", KEY_VECTOR, "I", 0, "The vector, counted over all banks", 0},
    {"value", KEY_VALUE, "V[,V...]", 0, "Its new values, one for each dimension", 0},
    {"expand", KEY_EXPAND, NULL, 0, "Append vectors of these values to the codebook", 0},
    {0},
};

static error_t parse_codebook(int key, char *text, struct argp_state *state) {
  edit_args *args = state->input;
  switch (key) {
    case KEY_VECTOR:
      edit_choose(state, args, LQT_EDIT_CODEBOOK_ENTRIES);
      args->mutation.first = tool_parse_u64(state, "--vector", text, 0, UINT32_MAX);
      return 0;
    case KEY_EXPAND:
      edit_choose(state, args, LQT_EDIT_CODEBOOK_EXPAND);
      return 0;
    case ARGP_KEY_END:
      if (args->path != NULL && (args->mutation.id == LQT_ID_NONE || !has_values(args) ||
                                 args->mutation.operation == 0)) {
        argp_error(state, "--id, --value, and --vector or --expand are needed");
      }
      break;
    default:
      break;
  }
  return parse_shared(key, text, state, "--vector or --expand is needed");
}

static const struct argp codebook_argp = {
    .options = codebook_options,
    .parser = parse_codebook,
    .children = edit_children,
    .args_doc = "MODEL.lqt",
    .doc =
        "Replaces one vector of a codebook, so that every weight whose index points to it changes, "
        "or appends vectors.\v"
        "Values are rounded to the codebook's type. The edit goes to the journal beside the model, "
        "MODEL.lqt.journal, which every command that opens the model replays; the model's file "
        "stays as it is. The old values are printed so that they can be put back.\n\nExamples:\n"
        "  lqt inspect model.lqt --codebooks\n"
        "  lqt edit codebook model.lqt --id 3 --vector 7 --value 0.25\n"
        "  lqt edit codebook model.lqt --id 3 --vector 7 --value 0.5,-0.5 -o edited.lqt"};

static int run_codebook(int argc, char **argv) { return edit_run(&codebook_argp, argc, argv); }
const tool_command tool_edit_codebook = {"edit codebook", "Replace or add codebook entries",
                                         &codebook_argp, run_codebook};

/* ---- delta ---- */

static const struct argp_option delta_options[] = {
    {"tensor", KEY_TENSOR, "NAME", 0, "The tensor whose delta it is", 0},
    {"at", KEY_AT, "R:C[,R:C...]", 0, "Elements of the tensor", 0},
    {"value", KEY_VALUE, "V[,V...]", 0, "Their deltas; or the values of --first, of --kind", 0},
    {"values", KEY_VALUES, "FILE", 0, "The same from a file of float32 (little-endian)", 0},
    {"kind", KEY_KIND, "KIND", 0,
     "A whole delta: dense, sparse (with --at, ascending), low-rank (A, then B), grouped", 0},
    {"dtype", KEY_DTYPE, "TYPE", 0, "Type of a new delta's values: f16 or f32 (default)", 0},
    {"rank", KEY_RANK, "N", 0, "Rank of a low-rank delta, columns of a group of a grouped one", 0},
    {"id", KEY_ID, "N", 0, "With --first: the delta by its number", 0},
    {"first", KEY_FIRST, "I", 0, "Replace stored values from number I on", 0},
    {"remove", KEY_REMOVE, NULL, 0, "Take the tensor's delta away", 0},
    {0},
};

static error_t parse_delta(int key, char *text, struct argp_state *state) {
  edit_args *args = state->input;
  static const char *const kinds[] = {"dense", "sparse", "low-rank", "grouped", NULL};
  static const char *const dtypes[] = {"f32", "f16", NULL};
  switch (key) {
    case KEY_KIND:
      edit_choose(state, args, LQT_EDIT_DELTA_REPLACE);
      args->mutation.delta_kind =
          (lqt_delta_kind)(LQT_DELTA_DENSE + tool_parse_word(state, "--kind", text, kinds));
      return 0;
    case KEY_DTYPE:
      args->mutation.dtype =
          tool_parse_word(state, "--dtype", text, dtypes) == 0 ? LQT_DTYPE_F32 : LQT_DTYPE_F16;
      return 0;
    case KEY_RANK:
      args->mutation.parameter = (uint32_t)tool_parse_u64(state, "--rank", text, 1, UINT32_MAX);
      return 0;
    case KEY_FIRST:
      edit_choose(state, args, LQT_EDIT_DELTA_VALUES);
      args->mutation.first = tool_parse_u64(state, "--first", text, 0, UINT64_MAX);
      return 0;
    case KEY_REMOVE:
      edit_choose(state, args, LQT_EDIT_DELTA_REMOVE);
      return 0;
    case ARGP_KEY_END:
      if (args->mutation.operation == 0 && args->mutation.coordinate_count != 0) {
        args->mutation.operation = LQT_EDIT_DELTA_SPARSE;
      }
      break;
    default:
      break;
  }
  return parse_shared(key, text, state, "--at with --value, --kind, --first or --remove is needed");
}

static const struct argp delta_argp = {
    .options = delta_options,
    .parser = parse_delta,
    .children = edit_children,
    .args_doc = "MODEL.lqt",
    .doc =
        "Changes, makes or removes the delta of a tensor: what is added to its weights.\v"
        "Examples:\n"
        "  lqt edit delta model.lqt --tensor W --at 3:17,4:0 --value 0.5,-0.25\n"
        "  lqt edit delta model.lqt --tensor W --kind low-rank --rank 8 --values ab.f32"};

static int run_delta(int argc, char **argv) { return edit_run(&delta_argp, argc, argv); }
const tool_command tool_edit_delta = {"edit delta", "Change, make or remove a tensor's delta",
                                      &delta_argp, run_delta};

/* ---- mask ---- */

static const struct argp_option mask_options[] = {
    {"tensor", KEY_TENSOR, "NAME", 0, "The tensor whose mask it is", 0},
    {"at", KEY_AT, "R:C[,R:C...]", 0, "Elements of the tensor", 0},
    {"keep", KEY_KEEP, "0|1", 0, "Whether these elements are kept", 0},
    {"bits", KEY_VALUES, "FILE", 0, "A whole mask: a bitmap, rows padded to 8 bytes", 0},
    {"remove", KEY_REMOVE, NULL, 0, "Take the tensor's mask away", 0},
    {0},
};

static error_t parse_mask(int key, char *text, struct argp_state *state) {
  edit_args *args = state->input;
  switch (key) {
    case KEY_KEEP:
      edit_choose(state, args, LQT_EDIT_MASK_UPDATE);
      memset(args->bytes, (int)tool_parse_u64(state, "--keep", text, 0, 1), sizeof args->bytes);
      return 0;
    case KEY_VALUES:
      edit_choose(state, args, LQT_EDIT_MASK_REPLACE);
      args->whole_file_is_bits = true;
      break;
    case KEY_REMOVE:
      edit_choose(state, args, LQT_EDIT_MASK_REMOVE);
      return 0;
    case ARGP_KEY_END:
      if (args->mutation.operation == LQT_EDIT_MASK_UPDATE) {
        args->mutation.data = args->bytes;
        args->mutation.bytes = args->mutation.coordinate_count;
      }
      break;
    default:
      break;
  }
  return parse_shared(key, text, state, "--keep with --at, --bits or --remove is needed");
}

static const struct argp mask_argp = {
    .options = mask_options,
    .parser = parse_mask,
    .children = edit_children,
    .args_doc = "MODEL.lqt",
    .doc =
        "Changes, makes or removes the mask of a tensor: which weights are kept, and which are "
        "0.\vExample:\n  lqt edit mask model.lqt --tensor W --at 3:17 --keep 0"};

static int run_mask(int argc, char **argv) { return edit_run(&mask_argp, argc, argv); }
const tool_command tool_edit_mask = {"edit mask", "Change, make or remove a tensor's mask",
                                     &mask_argp, run_mask};

/* ---- scale ---- */

static const struct argp_option scale_options[] = {
    {"tensor", KEY_TENSOR, "NAME", 0, "The tensor", 0},
    {"value", KEY_VALUE, "V[,V...]", 0, "The tensor's scale; or the values of --group", 0},
    {"group", KEY_GROUP, "I", 0, "Group scales from number I on (row by row)", 0},
    {"zero-point", KEY_ZERO, "I", 0, "Zero points from number I on", 0},
    {"residual", KEY_RESIDUAL, NULL, 0, "The scale of the residual codebook", 0},
    {0},
};

static error_t parse_scale(int key, char *text, struct argp_state *state) {
  edit_args *args = state->input;
  switch (key) {
    case KEY_GROUP:
      edit_choose(state, args, LQT_EDIT_GROUP_SCALES);
      args->mutation.first = tool_parse_u64(state, "--group", text, 0, UINT64_MAX);
      return 0;
    case KEY_ZERO:
      edit_choose(state, args, LQT_EDIT_ZERO_POINTS);
      args->mutation.first = tool_parse_u64(state, "--zero-point", text, 0, UINT64_MAX);
      return 0;
    case KEY_RESIDUAL:
      edit_choose(state, args, LQT_EDIT_RESIDUAL_SCALE);
      return 0;
    case ARGP_KEY_END:
      if (args->mutation.operation == 0 && has_values(args)) {
        args->mutation.operation = LQT_EDIT_TENSOR_SCALE;
      }
      break;
    default:
      break;
  }
  return parse_shared(key, text, state, "--value is needed");
}

static const struct argp scale_argp = {
    .options = scale_options,
    .parser = parse_scale,
    .children = edit_children,
    .args_doc = "MODEL.lqt",
    .doc =
        "Changes the scale of a tensor, of its groups, or of its residual codebook.\v"
        "Example:\n  lqt edit scale model.lqt --tensor W --group 12 --value 0.031,0.029"};

static int run_scale(int argc, char **argv) { return edit_run(&scale_argp, argc, argv); }
const tool_command tool_edit_scale = {"edit scale", "Change scales and zero points", &scale_argp,
                                      run_scale};
