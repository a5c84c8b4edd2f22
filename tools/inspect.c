/* lqt inspect: what stands in a file. Tables here, JSON in inspect_json.c. */
#include "inspect.h"

#include <string.h>

enum { KEY_JSON = 0x1000, KEY_SWITCH };

static const struct argp_option options[] = {
    {"json", KEY_JSON, NULL, 0, "Print JSON", 0},
    {"header", KEY_SWITCH + 0, NULL, 0, "Header and sections", 0},
    {"metadata", KEY_SWITCH + 1, NULL, 0, "Hyperparameters, provenance and other chunks", 0},
    {"modules", KEY_SWITCH + 2, NULL, 0, "The module graph", 0},
    {"codebooks", KEY_SWITCH + 3, NULL, 0, "Codebooks", 0},
    {"tensors", KEY_SWITCH + 4, NULL, 0, "Tensors", 0},
    {"deltas", KEY_SWITCH + 5, NULL, 0, "Deltas", 0},
    {"masks", KEY_SWITCH + 6, NULL, 0, "Sparse masks", 0},
    {"edit-log", KEY_SWITCH + 7, NULL, 0, "The embedded edit log", 0},
    {0},
};

typedef struct inspect_args {
  const char *path;
  bool json;
  unsigned parts;
} inspect_args;

static error_t parse(int key, char *text, struct argp_state *state) {
  inspect_args *args = state->input;
  switch (key) {
    case KEY_JSON:
      args->json = true;
      return 0;
    case ARGP_KEY_ARG:
      tool_parse_argument(state, text, &args->path, 1);
      return 0;
    case ARGP_KEY_END:
      if (args->path == NULL) argp_error(state, "give the model file to inspect");
      return 0;
    default:
      if (key < KEY_SWITCH || key > KEY_SWITCH + 7) return ARGP_ERR_UNKNOWN;
      args->parts |= 1u << (key - KEY_SWITCH);
      return 0;
  }
}

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "MODEL.lqt",
    .doc =
        "Prints what stands in a model file, with the edits of its journal. Without a section "
        "switch: a summary and the layout of the modules (with --json: everything).\v"
        "bits_per_weight counts every bit of the quantized matrices (indices, scales, codebooks, "
        "residuals, deltas, masks) over their elements. Only the metadata is read and checked; "
        "'lqt validate' checks every byte.\n\nExamples:\n"
        "  lqt inspect model.lqt\n"
        "  lqt inspect model.lqt --tensors\n"
        "  lqt inspect model.lqt --json | jq .bits_per_weight"};

void inspect_shape_text(const lqt_tensor_info *tensor, char *out, size_t size) {
  out[0] = '\0';
  for (uint32_t i = 0; i < tensor->ndim && i < 8; i++) {
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%s%u", i > 0 ? "x" : "", tensor->shape[i]);
  }
}

const char *inspect_scope_name(uint32_t scope) {
  static const char *const names[] = {"tensor", "row", "group"};
  return scope < 3 ? names[scope] : "?";
}

const char *inspect_delta_encoding(uint8_t encoding) {
  static const char *const names[] = {"dense", "csr", "coordinates", "low_rank", "grouped"};
  return encoding < 5 ? names[encoding] : "?";
}

const char *inspect_mask_encoding(uint8_t encoding) {
  static const char *const names[] = {"bitmap", "run_length", "coordinates", "block", "structured"};
  return encoding < 5 ? names[encoding] : "?";
}

/* "4-bit codebook, dim 1, group 64, per tensor" or the plain type. */
static void kind_text(const lqt_tensor_info *tensor, char *out, size_t size) {
  if (tensor->dtype != LQT_DTYPE_CODEBOOK) {
    snprintf(out, size, "%s", lqt_dtype_name(tensor->dtype));
    return;
  }
  char dim[24] = "", group[24] = "";
  if (tensor->vector_dim > 1) snprintf(dim, sizeof dim, " x%u", tensor->vector_dim);
  if (tensor->group_size > 0) snprintf(group, sizeof group, " g%u", tensor->group_size);
  snprintf(out, size, "cb%u%s%s %s%s%s%s", tensor->index_bits, dim, group,
           inspect_scope_name(tensor->scope),
           tensor->residual_id != LQT_ID_NONE ? " +residual" : "",
           tensor->delta_id != LQT_ID_NONE ? " +delta" : "",
           tensor->mask_id != LQT_ID_NONE ? " +mask" : "");
}

static void print_summary(const lqt_model *model, const lqt_model_info *info) {
  char size[32], count[32], quantized[32], bytes[32];
  printf("%s: LQT %u.%u, %s\n", info->path, info->version >> 12, info->version & 0xfffu,
         tool_size_text(info->file_bytes, size));
  printf("  parameters  %s", tool_count_text((double)info->parameters, count));
  if (info->quantized_weights > 0) {
    printf("; %s quantized to %.3f bits/weight (%s, everything counted)",
           tool_count_text((double)info->quantized_weights, quantized), info->bits_per_weight,
           tool_size_text(info->quantized_bytes, bytes));
  }
  printf("\n  holds       %u tensors, %u codebooks, %u deltas, %u masks, %u modules, %u edits\n",
         info->tensors, info->codebooks, info->deltas, info->masks, info->modules, info->edits);
  if (info->vocab_size > 0) printf("  tokenizer   %u ids\n", info->vocab_size);
  if (info->context > 0) printf("  context     %u tokens\n", info->context);
  size_t missing = lqt_model_missing_count(model);
  if (missing > 0) printf("  missing     %zu sections\n", missing);
}

static void print_header(const lqt_model *model, const lqt_model_info *info) {
  printf("\nHeader: version 0x%04x, flags 0x%04x, %llu ns\n", info->version, info->flags,
         (unsigned long long)info->timestamp_ns);
  printf("%14s %14s  section\n", "offset", "bytes");
  for (size_t i = 0; i < lqt_model_section_count(model); i++) {
    lqt_section_info section;
    if (lqt_model_section(model, i, &section) != LQT_OK) continue;
    printf("%14llu %14llu  %s\n", (unsigned long long)section.offset,
           (unsigned long long)section.bytes, section.name);
  }
}

static void print_metadata(const lqt_model *model) {
  puts("\nHyperparameters");
  for (size_t i = 0; i < lqt_model_hyperparameter_count(model); i++) {
    const char *key;
    float value;
    if (lqt_model_hyperparameter(model, i, &key, &value) == LQT_OK) {
      printf("  %-24s %.9g\n", key, (double)value);
    }
  }
  puts("Chunks");
  for (uint32_t type = 0; type <= 0xffff; type++) {
    const void *data;
    size_t bytes;
    if (lqt_model_chunk(model, (uint16_t)type, &data, &bytes) == LQT_OK) {
      printf("  0x%04x %12zu bytes  %s\n", type, bytes, inspect_chunk_name((uint16_t)type));
    }
  }
  const void *data;
  size_t bytes;
  if (lqt_model_chunk(model, INSPECT_CHUNK_PROVENANCE, &data, &bytes) == LQT_OK) {
    puts("Provenance");
    tool_utf8 utf8 = {0};
    tool_utf8_write(&utf8, data, bytes, stdout);
    tool_utf8_finish(&utf8, stdout);
    putchar('\n');
  }
}

static void print_tensors(const lqt_model *model) {
  printf("\n%-44s %-14s %-26s %8s %10s\n", "tensor", "shape", "kind", "codebook", "bytes");
  for (size_t i = 0; i < lqt_model_tensor_count(model); i++) {
    lqt_tensor_info tensor;
    char shape[96], kind[64], codebook[16] = "-", size[32];
    if (lqt_model_tensor(model, i, &tensor) != LQT_OK) continue;
    inspect_shape_text(&tensor, shape, sizeof shape);
    kind_text(&tensor, kind, sizeof kind);
    if (tensor.codebook_id != LQT_ID_NONE) {
      snprintf(codebook, sizeof codebook, "%u", tensor.codebook_id);
    }
    printf("%-44s %-14s %-26s %8s %10s\n", tensor.name, shape, kind, codebook,
           tool_size_text(tensor.bytes, size));
  }
}

static void print_codebooks(const lqt_model *model) {
  printf("\n%8s %8s %6s %4s %9s %6s %10s  %s\n", "codebook", "vectors", "banks", "dim", "capacity",
         "users", "bytes", "flags");
  for (size_t i = 0; i < lqt_model_codebook_count(model); i++) {
    lqt_codebook_info book;
    if (lqt_model_codebook(model, i, &book) != LQT_OK) continue;
    printf("%8u %8u %6u %4u %9u %6u %10llu  %s%s%s%s%s\n", book.id, book.vectors, book.banks,
           book.vector_dim, book.capacity, book.users, (unsigned long long)book.bytes,
           lqt_dtype_name(book.dtype), book.flags & 1 ? " mutable" : "",
           book.flags & 2 ? " expandable" : "", book.flags & 4 ? " shared" : "",
           book.flags & 8 ? " residual" : "");
  }
}

static void print_deltas(const lqt_model *model) {
  printf("\n%8s %-12s %-6s %14s %14s\n", "delta", "encoding", "type", "values", "bytes");
  for (size_t i = 0; i < lqt_model_delta_count(model); i++) {
    lqt_delta_info delta;
    if (lqt_model_delta(model, i, &delta) != LQT_OK) continue;
    printf("%8u %-12s %-6s %14llu %14llu\n", delta.id, inspect_delta_encoding(delta.encoding),
           lqt_dtype_name(delta.dtype), (unsigned long long)delta.count,
           (unsigned long long)delta.bytes);
  }
}

static void print_masks(const lqt_model *model) {
  printf("\n%8s %-12s %10s %14s %14s\n", "mask", "encoding", "density", "elements", "bytes");
  for (size_t i = 0; i < lqt_model_mask_count(model); i++) {
    lqt_mask_info mask;
    if (lqt_model_mask(model, i, &mask) != LQT_OK) continue;
    printf("%8u %-12s %9.2f%% %14llu %14llu\n", mask.id, inspect_mask_encoding(mask.encoding),
           100.0 * mask.density, (unsigned long long)mask.count, (unsigned long long)mask.bytes);
  }
}

static void print_edit_log(const lqt_model_info *info) {
  if (info->edits == 0) {
    puts("\nEdit log: empty");
  } else {
    printf("\nEdit log: %u entries\n", info->edits);
  }
}

static bool print_text(const lqt_model *model, unsigned parts) {
  lqt_model_info info;
  lqt_model_get_info(model, &info);
  print_summary(model, &info);
  if ((parts == 0 || (parts & INSPECT_MODULES)) && !inspect_print_modules(model, parts == 0)) {
    return false;
  }
  if (parts & INSPECT_HEADER) print_header(model, &info);
  if (parts & INSPECT_METADATA) print_metadata(model);
  if (parts & INSPECT_CODEBOOKS) print_codebooks(model);
  if (parts & INSPECT_TENSORS) print_tensors(model);
  if (parts & INSPECT_DELTAS) print_deltas(model);
  if (parts & INSPECT_MASKS) print_masks(model);
  if (parts & INSPECT_EDIT_LOG) print_edit_log(&info);
  return true;
}

static int run(int argc, char **argv) {
  inspect_args args = {0};
  tool_parse(&argp, argc, argv, &args);
  lqt_diag diag = {0};
  lqt_model *model;
  lqt_status status = tool_model_open(args.path, &model, &diag);
  if (status != LQT_OK) return tool_fail(argv[0], status, &diag);
  int code = TOOL_DONE;
  if (args.json) {
    code = tool_print_json(argv[0], inspect_json(model, args.parts));
  } else if (!print_text(model, args.parts)) {
    code = tool_fail(argv[0], LQT_OUT_OF_MEMORY, NULL);
  }
  lqt_model_release(model);
  return code;
}

const tool_command tool_inspect = {"inspect", "What stands in a model file", &argp, run};
