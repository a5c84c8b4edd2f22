/* lqt edit tensor, module, hyper: whole parts of a model. */
#include "edit.h"

enum {
  KEY_TENSOR = 0x1000,
  KEY_REPLACE,
  KEY_DTYPE,
  KEY_MULTIPLY,
  KEY_CLAMP,
  KEY_CLONE,
  KEY_SWAP,
  KEY_WRITE,
  KEY_FILL,
  KEY_COUNT,
  KEY_HEX,
  KEY_MODULE,
  KEY_BYPASS,
  KEY_RESTORE,
  KEY_FROM,
  KEY_KEY,
  KEY_VALUE,
};

/* ---- tensor ---- */

static const struct argp_option tensor_options[] = {
    {"tensor", KEY_TENSOR, "NAME", 0, "The tensor", 0},
    {"replace", KEY_REPLACE, "FILE", 0, "Elements from a file of float32 (little-endian)", 0},
    {"dtype", KEY_DTYPE, "TYPE", 0, "Their type in the model: f32 (default), f16 or bf16", 0},
    {"multiply", KEY_MULTIPLY, "F", 0, "Every element times F", 0},
    {"clamp", KEY_CLAMP, "LOW,HIGH", 0, "Bring elements outside to the nearest bound", 0},
    {"clone", KEY_CLONE, "NAME", 0, "Copy it, with all it refers to, to a new tensor", 0},
    {"swap", KEY_SWAP, "NAME", 0, "Exchange it with another tensor of its shape", 0},
    {"write", KEY_WRITE, "OFFSET", 0, "Write the bytes of --hex to its payload", 0},
    {"fill", KEY_FILL, "OFFSET", 0, "Write them over and over, --count bytes", 0},
    {"count", KEY_COUNT, "N", 0, "Bytes to fill", 0},
    {"hex", KEY_HEX, "DIGITS", 0, "The bytes", 0},
    {0},
};

static error_t parse_tensor(int key, char *text, struct argp_state *state) {
  edit_args *args = state->input;
  static const char *const dtypes[] = {"f32", "f16", "bf16", NULL};
  switch (key) {
    case KEY_TENSOR:
      args->mutation.target = text;
      return 0;
    case KEY_REPLACE:
      edit_choose(state, args, LQT_EDIT_TENSOR_REPLACE);
      args->values_file = text;
      return 0;
    case KEY_DTYPE:
      args->mutation.dtype =
          (lqt_dtype)(LQT_DTYPE_F32 + tool_parse_word(state, "--dtype", text, dtypes));
      return 0;
    case KEY_MULTIPLY:
      edit_choose(state, args, LQT_EDIT_TENSOR_MULTIPLY);
      edit_parse_values(state, args, "--multiply", text);
      return 0;
    case KEY_CLAMP:
      edit_choose(state, args, LQT_EDIT_TENSOR_CLAMP);
      edit_parse_values(state, args, "--clamp", text);
      return 0;
    case KEY_CLONE:
      edit_choose(state, args, LQT_EDIT_TENSOR_CLONE);
      args->mutation.other = text;
      return 0;
    case KEY_SWAP:
      edit_choose(state, args, LQT_EDIT_TENSOR_SWAP);
      args->mutation.other = text;
      return 0;
    case KEY_WRITE:
      edit_choose(state, args, LQT_EDIT_RAW_WRITE);
      args->mutation.first = tool_parse_u64(state, "--write", text, 0, UINT64_MAX);
      return 0;
    case KEY_FILL:
      edit_choose(state, args, LQT_EDIT_RAW_FILL);
      args->mutation.first = tool_parse_u64(state, "--fill", text, 0, UINT64_MAX);
      return 0;
    case KEY_COUNT:
      args->mutation.count = tool_parse_u64(state, "--count", text, 1, UINT64_MAX);
      return 0;
    case KEY_HEX:
      edit_parse_bytes(state, args, "--hex", text);
      return 0;
    default:
      return edit_parse_common(key, text, state,
                               "--replace, --multiply, --clamp, --clone, --swap, --write or --fill "
                               "is needed");
  }
}

static const struct argp tensor_argp = {
    .options = tensor_options,
    .parser = parse_tensor,
    .children = edit_children,
    .args_doc = "MODEL.lqt",
    .doc =
        "Changes a tensor as a whole, or bytes of its payload.\vExamples:\n"
        "  lqt edit tensor model.lqt --tensor W --clamp=-0.5,0.5\n"
        "  lqt edit tensor model.lqt --tensor W --replace w.f32 --dtype bf16"};

static int run_tensor(int argc, char **argv) { return edit_run(&tensor_argp, argc, argv); }
const tool_command tool_edit_tensor = {
    "edit tensor", "Replace, multiply, clamp, clone or swap a tensor", &tensor_argp, run_tensor};

/* ---- module ---- */

static const struct argp_option module_options[] = {
    {"module", KEY_MODULE, "ID", 0, "The module, or the layer whose modules begin with \"ID.\"", 0},
    {"bypass", KEY_BYPASS, NULL, 0, "Let what comes in pass by", 0},
    {"restore", KEY_RESTORE, NULL, 0, "Put it back as it was bypassed", 0},
    {"swap", KEY_SWAP, "OTHER.lqt", 0, "Exchange it for a module of this model", 0},
    {"from", KEY_FROM, "ID", 0, "Of this name there (default: the same)", 0},
    {0},
};

static error_t parse_module(int key, char *text, struct argp_state *state) {
  edit_args *args = state->input;
  switch (key) {
    case KEY_MODULE:
      args->mutation.target = text;
      return 0;
    case KEY_BYPASS:
      edit_choose(state, args, LQT_EDIT_MODULE_BYPASS);
      return 0;
    case KEY_RESTORE:
      edit_choose(state, args, LQT_EDIT_MODULE_RESTORE);
      return 0;
    case KEY_SWAP:
      edit_choose(state, args, LQT_EDIT_MODULE_SWAP);
      args->mutation.file = text;
      return 0;
    case KEY_FROM:
      args->mutation.other = text;
      return 0;
    default:
      return edit_parse_common(key, text, state, "--bypass, --restore or --swap is needed");
  }
}

static const struct argp module_argp = {
    .options = module_options,
    .parser = parse_module,
    .children = edit_children,
    .args_doc = "MODEL.lqt",
    .doc =
        "Bypasses a module or layer, puts it back, or exchanges it for another model's.\v"
        "A module that is exchanged has the flag hot_swappable. The journal refers to the other "
        "file by its name and SHA-256: keep it as long as the journal.\n\nExamples:\n"
        "  lqt edit module model.lqt --module layers.5 --bypass\n"
        "  lqt edit module model.lqt --module layers.5.mlp --swap tuned.lqt"};

static int run_module(int argc, char **argv) { return edit_run(&module_argp, argc, argv); }
const tool_command tool_edit_module = {"edit module", "Bypass, restore or exchange a module",
                                       &module_argp, run_module};

/* ---- hyper ---- */

static const struct argp_option hyper_options[] = {
    {"module", KEY_MODULE, "ID", 0, "The module (default: the model)", 0},
    {"key", KEY_KEY, "NAME", 0, "eps, window, scale, rope.theta; of the model: norm_eps, ...", 0},
    {"value", KEY_VALUE, "V", 0, "Its value", 0},
    {0},
};

static error_t parse_hyper(int key, char *text, struct argp_state *state) {
  edit_args *args = state->input;
  switch (key) {
    case KEY_MODULE:
      args->mutation.target = text;
      return 0;
    case KEY_KEY:
      edit_choose(state, args, LQT_EDIT_HYPERPARAMETER);
      args->mutation.other = text;
      return 0;
    case KEY_VALUE:
      edit_parse_values(state, args, "--value", text);
      return 0;
    default:
      return edit_parse_common(key, text, state, "--key and --value are needed");
  }
}

static const struct argp hyper_argp = {
    .options = hyper_options,
    .parser = parse_hyper,
    .children = edit_children,
    .args_doc = "MODEL.lqt",
    .doc =
        "Changes a number of a module, or of the model and every module that has it.\vExample:\n"
        "  lqt edit hyper model.lqt --key norm_eps --value 1e-6"};

static int run_hyper(int argc, char **argv) { return edit_run(&hyper_argp, argc, argv); }
const tool_command tool_edit_hyper = {"edit hyper", "Change a hyperparameter", &hyper_argp,
                                      run_hyper};
