/* lqt synth: models of a given shape with random weights, for measurements. */
#include <string.h>

#include "quantize_options.h"

enum {
  KEY_HIDDEN = 0x1000,
  KEY_LAYERS,
  KEY_HEADS,
  KEY_KV_HEADS,
  KEY_HEAD_DIM,
  KEY_FFN,
  KEY_VOCAB,
  KEY_CONTEXT,
  KEY_TIED,
  KEY_LIST,
};

static const struct argp_option options[] = {
    {"hidden", KEY_HIDDEN, "N", 0, "Width of the residual stream", 0},
    {"layers", KEY_LAYERS, "N", 0, "Layers", 0},
    {"heads", KEY_HEADS, "N", 0, "Query heads", 0},
    {"kv-heads", KEY_KV_HEADS, "N", 0, "Key and value heads (default: as many as query heads)", 0},
    {"head-dim", KEY_HEAD_DIM, "N", 0, "Width of a head (default: hidden / heads)", 0},
    {"ffn", KEY_FFN, "N", 0, "Width of the MLP (default: 8/3 hidden, in steps of 256)", 0},
    {"vocab", KEY_VOCAB, "N", 0, "Vocabulary (default 32000)", 0},
    {"context", KEY_CONTEXT, "N", 0, "Context (default 4096)", 0},
    {"tied", KEY_TIED, NULL, 0, "The head shares the embedding", 0},
    {"list", KEY_LIST, NULL, 0, "List the named shapes and end", 0},
    {0},
};

typedef struct synth_args {
  const char *words[2];
  lqt_synth_shape given; /* 0: not given */
  bool list;
  quantize_args quantize;
} synth_args;

/* The number that an option sets; NULL for other keys. */
static uint32_t *field_of(lqt_synth_shape *shape, int key, const char **out_name) {
  switch (key) {
    case KEY_HIDDEN:
      *out_name = "--hidden";
      return &shape->hidden;
    case KEY_LAYERS:
      *out_name = "--layers";
      return &shape->layers;
    case KEY_HEADS:
      *out_name = "--heads";
      return &shape->heads;
    case KEY_KV_HEADS:
      *out_name = "--kv-heads";
      return &shape->kv_heads;
    case KEY_HEAD_DIM:
      *out_name = "--head-dim";
      return &shape->head_dim;
    case KEY_FFN:
      *out_name = "--ffn";
      return &shape->ffn;
    case KEY_VOCAB:
      *out_name = "--vocab";
      return &shape->vocab;
    case KEY_CONTEXT:
      *out_name = "--context";
      return &shape->context;
    default:
      return NULL;
  }
}

static error_t parse(int key, char *text, struct argp_state *state) {
  synth_args *args = state->input;
  switch (key) {
    case ARGP_KEY_INIT:
      state->child_inputs[0] = &args->quantize;
      return 0;
    case KEY_TIED:
      args->given.tied = true;
      return 0;
    case KEY_LIST:
      args->list = true;
      return 0;
    case ARGP_KEY_ARG:
      tool_parse_argument(state, text, args->words, 2);
      return 0;
    case ARGP_KEY_END:
      if (args->words[0] == NULL && !args->list) {
        argp_error(state, "give a shape and the file to write, or --list");
      }
      return 0;
    default: {
      const char *name = NULL;
      uint32_t *field = field_of(&args->given, key, &name);
      if (field == NULL) return ARGP_ERR_UNKNOWN;
      *field = (uint32_t)tool_parse_u64(state, name, text, 1, 1u << 24);
      return 0;
    }
  }
}

static const struct argp_child children[] = {{&quantize_argp, 0, "Weights:", 1}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "[SHAPE] OUT.lqt",
    .doc =
        "Writes a Llama model with random weights: a named shape, or one given by numbers "
        "(--hidden, --layers and --heads at least). Numbers change a named shape too.\v"
        "Speed does not depend on the values of weights; such a model measures it without the "
        "real one. It has no tokenizer.\n\nExamples:\n"
        "  lqt synth --list\n"
        "  lqt synth llama3-8b model.lqt --bits 4 --group-size 64\n"
        "  lqt synth llama2-70b slice.lqt --layers 2\n"
        "  lqt synth small.lqt --hidden 1024 --layers 8 --heads 16 --kv-heads 4",
    .children = children};

static int print_list(const char *command, bool json) {
  json_t *array = json ? json_array() : NULL;
  for (size_t i = 0; lqt_synth_name(i) != NULL; i++) {
    lqt_synth_shape shape;
    if (lqt_synth_named(lqt_synth_name(i), &shape) != LQT_OK) continue;
    if (json) {
      json_array_append_new(
          array,
          json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b}", "name", lqt_synth_name(i),
                    "hidden", (int)shape.hidden, "layers", (int)shape.layers, "heads",
                    (int)shape.heads, "kv_heads", (int)shape.kv_heads, "head_dim",
                    (int)shape.head_dim, "ffn", (int)shape.ffn, "vocab", (int)shape.vocab,
                    "context", (int)shape.context, "tied", shape.tied));
      continue;
    }
    printf("%-12s hidden %u, layers %u, heads %u, kv-heads %u, head-dim %u, ffn %u, vocab %u%s\n",
           lqt_synth_name(i), shape.hidden, shape.layers, shape.heads, shape.kv_heads,
           shape.head_dim, shape.ffn, shape.vocab, shape.tied ? ", tied" : "");
  }
  return json ? tool_print_json(command, array) : TOOL_DONE;
}

/* The named shape with the numbers given, or the numbers alone; false when they do not suffice. */
static bool complete_shape(const synth_args *args, const char *name, lqt_synth_shape *out) {
  const lqt_synth_shape *given = &args->given;
  *out = (lqt_synth_shape){0};
  if (name != NULL) {
    if (lqt_synth_named(name, out) != LQT_OK) return false;
  } else if (given->hidden == 0 || given->layers == 0 || given->heads == 0) {
    return false;
  }
  for (int key = KEY_HIDDEN; key <= KEY_CONTEXT; key++) {
    const char *option;
    uint32_t value = *field_of((lqt_synth_shape *)given, key, &option);
    if (value != 0) *field_of(out, key, &option) = value;
  }
  if (given->tied) out->tied = true;
  if (name == NULL) {
    if (out->kv_heads == 0) out->kv_heads = out->heads;
    if (out->head_dim == 0) out->head_dim = out->hidden / out->heads;
    if (out->ffn == 0) out->ffn = (uint32_t)(((uint64_t)out->hidden * 8 / 3 + 255) / 256 * 256);
    if (out->vocab == 0) out->vocab = 32000;
    if (out->context == 0) out->context = 4096;
  }
  return true;
}

static int run(int argc, char **argv) {
  synth_args args = {0};
  quantize_args_defaults(&args.quantize);
  tool_parse(&argp, argc, argv, &args);
  if (args.list) return print_list(argv[0], args.quantize.json);
  const char *name = args.words[1] != NULL ? args.words[0] : NULL;
  const char *path = args.words[1] != NULL ? args.words[1] : args.words[0];
  lqt_synth_shape shape;
  if (!complete_shape(&args, name, &shape)) {
    if (name != NULL) {
      return tool_error(argv[0], TOOL_WRONG_USE, NULL,
                        "there is no shape '%s'; 'lqt synth --list' names them", name);
    }
    return tool_error(argv[0], TOOL_WRONG_USE, NULL,
                      "a shape of one's own needs --hidden, --layers and --heads");
  }
  tool_progress progress;
  tool_progress_begin(&progress, args.quantize.quiet);
  args.quantize.options.progress = tool_progress_update;
  args.quantize.options.user = &progress;
  lqt_diag diag = {0};
  lqt_quantize_report report;
  lqt_status status = lqt_synth(&shape, path, &args.quantize.options, &report, &diag);
  tool_progress_end(&progress);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  return quantize_print_report(argv[0], path, &args.quantize, &report);
}

const tool_command tool_synth = {"synth", "Make a model of a given shape with random weights",
                                 &argp, run};
