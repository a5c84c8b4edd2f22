#include "quantize_options.h"

#include <stdlib.h>
#include <string.h>

enum {
  KEY_GROUP = 0x3001,
  KEY_EMBED,
  KEY_VECTOR,
  KEY_RESIDUAL,
  KEY_SCOPE,
  KEY_SCOPE_COLS,
  KEY_OUTLIERS,
  KEY_SEED,
  KEY_JSON,
};

static const struct argp_option options[] = {
    {"bits", 'b', "B", 0, "Index width of the matrices: 2, 3, 4, 8, or none (default 4)", 0},
    {"group-size", KEY_GROUP, "G", 0,
     "Weights that share a scale: 16, 32, 64, 128, 256, or none (default 64)", 0},
    {"embed-bits", KEY_EMBED, "B", 0,
     "Index width of embeddings and head: 2, 3, 4, 8, or none (default 8)", 0},
    {"vector-dim", KEY_VECTOR, "D", 0, "Weights that an index stands for: 1, 2, 4 (default 1)", 0},
    {"residual-bits", KEY_RESIDUAL, "B", 0,
     "Index width of a second, residual codebook: 2, 3, 4, 8, or none (default none)", 0},
    {"scope", KEY_SCOPE, "SCOPE", 0, "A codebook for each tensor (default), row or group", 0},
    {"scope-cols", KEY_SCOPE_COLS, "N", 0,
     "Scope group: columns that a codebook covers (default 16 groups' worth)", 0},
    {"outliers", KEY_OUTLIERS, "SHARE", 0,
     "Share of weights kept exactly in a sparse fp16 delta, 0 to 0.05 (default 0)", 0},
    {"threads", 't', "N", 0, "Threads (default: one a core)", 0},
    {"seed", KEY_SEED, "N", 0, "Seed; the same seed gives the same file (default 0)", 0},
    {"json", KEY_JSON, NULL, 0, "Print the result as JSON", 0},
    {"quiet", 'q', NULL, 0, "No progress", 0},
    {0},
};

/* A width, with 0 for "none". */
static uint32_t parse_width(struct argp_state *state, const char *option, const char *text) {
  static const char *const words[] = {"none", "2", "3", "4", "8", NULL};
  static const uint32_t widths[] = {0, 2, 3, 4, 8};
  return widths[tool_parse_word(state, option, text, words)];
}

static error_t parse(int key, char *text, struct argp_state *state) {
  quantize_args *args = state->input;
  static const char *const groups[] = {"none", "16", "32", "64", "128", "256", NULL};
  static const uint32_t group_sizes[] = {0, 16, 32, 64, 128, 256};
  static const char *const dims[] = {"1", "2", "4", NULL};
  static const uint32_t dim_values[] = {1, 2, 4};
  static const char *const scopes[] = {"tensor", "row", "group", NULL};
  lqt_quantize_options *out = &args->options;
  switch (key) {
    case 'b':
      out->bits = parse_width(state, "--bits", text);
      return 0;
    case KEY_GROUP:
      out->group_size = group_sizes[tool_parse_word(state, "--group-size", text, groups)];
      return 0;
    case KEY_EMBED:
      out->embed_bits = parse_width(state, "--embed-bits", text);
      return 0;
    case KEY_VECTOR:
      out->vector_dim = dim_values[tool_parse_word(state, "--vector-dim", text, dims)];
      return 0;
    case KEY_RESIDUAL:
      out->residual_bits = parse_width(state, "--residual-bits", text);
      return 0;
    case KEY_SCOPE:
      out->scope = (lqt_codebook_scope)tool_parse_word(state, "--scope", text, scopes);
      return 0;
    case KEY_SCOPE_COLS:
      out->scope_cols = (uint32_t)tool_parse_u64(state, "--scope-cols", text, 16, UINT32_MAX);
      return 0;
    case KEY_OUTLIERS:
      out->outliers = tool_parse_number(state, "--outliers", text, 0.0, 0.05);
      return 0;
    case 't':
      out->threads = (uint32_t)tool_parse_u64(state, "--threads", text, 0, 4096);
      return 0;
    case KEY_SEED:
      out->seed = tool_parse_u64(state, "--seed", text, 0, UINT64_MAX);
      return 0;
    case KEY_JSON:
      args->json = true;
      return 0;
    case 'q':
      args->quiet = true;
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

const struct argp quantize_argp = {.options = options, .parser = parse};

void quantize_args_defaults(quantize_args *args) {
  *args = (quantize_args){0};
  lqt_quantize_defaults(&args->options);
}

int quantize_print_report(const char *command, const char *path, const quantize_args *args,
                          const lqt_quantize_report *report) {
  if (args->json) {
    return tool_print_json(
        command,
        json_pack("{s:o, s:I, s:I, s:o, s:o, s:o}", "path", tool_json_text(path, strlen(path)),
                  "file_bytes", (json_int_t)report->file_bytes, "quantized_weights",
                  (json_int_t)report->weights, "bits_per_weight",
                  tool_json_real(report->bits_per_weight), "relative_error",
                  tool_json_real(report->relative_error), "seconds",
                  tool_json_real(report->seconds)));
  }
  char size[32], count[32];
  printf("%s: %s", path, tool_size_text(report->file_bytes, size));
  if (report->weights > 0) {
    printf("; %s weights at %.3f bits each", tool_count_text((double)report->weights, count),
           report->bits_per_weight);
    if (report->relative_error > 0.0) printf(", relative error %.4f", report->relative_error);
  }
  printf("; %.1f s\n", report->seconds);
  return TOOL_DONE;
}
