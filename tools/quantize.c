/* lqt quantize: a Hugging Face model folder becomes an .lqt file. */
#include "quantize_options.h"

enum {
  KEY_TARGET = 0x1000,
  KEY_INIT,
  KEY_EXPANDABLE,
  KEY_DELTAS,
  KEY_EXCLUDE,
  KEY_CALIBRATE,
};

static const struct argp_option options[] = {
    {"target-bpw", KEY_TARGET, "X", 0,
     "Choose widths, group sizes and outliers for each tensor to end at or under X bits per "
     "weight, everything counted (replaces --bits, --group-size, --outliers)",
     0},
    {"codebook-init", KEY_INIT, "HOW", 0,
     "kmeans (default: weighted k-means refined with the scales), nf4, uniform", 0},
    {"calibrate", KEY_CALIBRATE, "WHEN", 0,
     "Let the model write text of its own first, and round so that errors make up for each other: "
     "auto (default: when it is cheap in memory), off, on",
     0},
    {"expandable-codebooks", KEY_EXPANDABLE, NULL, 0, "Reserve room for codebooks to grow", 0},
    {"add-deltas", KEY_DELTAS, NULL, 0, "Give every quantized tensor an empty sparse delta", 0},
    {"exclude", KEY_EXCLUDE, "PATTERNS", 0,
     "Tensors to leave in their own precision: names with * and ?, separated by commas", 0},
    {0},
};

typedef struct args_type {
  const char *paths[2];
  quantize_args quantize;
} args_type;

static error_t parse(int key, char *text, struct argp_state *state) {
  args_type *args = state->input;
  lqt_quantize_options *out = &args->quantize.options;
  static const char *const calibrations[] = {"auto", "off", "on", NULL};
  static const char *const inits[] = {"kmeans", "nf4", "uniform", NULL};
  switch (key) {
    case ARGP_KEY_INIT:
      state->child_inputs[0] = &args->quantize;
      return 0;
    case KEY_TARGET:
      out->target_bpw = tool_parse_number(state, "--target-bpw", text, 2.0, 16.0);
      return 0;
    case KEY_INIT:
      out->init = (lqt_codebook_init)tool_parse_word(state, "--codebook-init", text, inits);
      return 0;
    case KEY_CALIBRATE:
      out->calibration = (lqt_calibration)tool_parse_word(state, "--calibrate", text, calibrations);
      return 0;
    case KEY_EXPANDABLE:
      out->expandable = true;
      return 0;
    case KEY_DELTAS:
      out->empty_deltas = true;
      return 0;
    case KEY_EXCLUDE:
      out->exclude = text;
      return 0;
    case ARGP_KEY_ARG:
      tool_parse_argument(state, text, args->paths, 2);
      return 0;
    case ARGP_KEY_END:
      if (args->paths[1] == NULL) {
        argp_error(state, "give the folder of the source model and the file to write");
      }
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

static const struct argp_child children[] = {{&quantize_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "HF_DIR OUT.lqt",
    .doc =
        "Quantizes a Hugging Face model folder (config.json, *.safetensors in f32, f16 or bf16, "
        "tokenizer.json) into an LQT file.\v"
        "OUT.lqt appears whole or not at all; a file that was there is replaced only on success. "
        "Architectures: Llama and Mistral (LlamaForCausalLM, MistralForCausalLM).\n\nExamples:\n"
        "  lqt quantize Llama-dir model.lqt\n"
        "  lqt quantize Llama-dir model.lqt --bits 3 --group-size 32 --embed-bits none\n"
        "  lqt quantize Llama-dir model.lqt --target-bpw 4.3\n"
        "  lqt quantize Llama-dir model.lqt --exclude '*.0.*,*down_proj*'",
    .children = children};

static int run(int argc, char **argv) {
  args_type args = {0};
  quantize_args_defaults(&args.quantize);
  tool_parse(&argp, argc, argv, &args);
  tool_progress progress;
  tool_progress_begin(&progress, args.quantize.quiet);
  args.quantize.options.progress = tool_progress_update;
  args.quantize.options.user = &progress;
  lqt_diag diag = {0};
  lqt_quantize_report report;
  lqt_status status =
      lqt_quantize(args.paths[0], args.paths[1], &args.quantize.options, &report, &diag);
  tool_progress_end(&progress);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  return quantize_print_report(argv[0], args.paths[1], &args.quantize, &report);
}

const tool_command tool_quantize = {"quantize", "Make a model file from a Hugging Face folder",
                                    &argp, run};
