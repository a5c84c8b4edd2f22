/* Devices, engines and tokenizers as the subcommands open them. */
#include <stdlib.h>
#include <string.h>

#include "common.h"

enum { KEY_ISA = 0x2001, KEY_EXACT };

static const struct argp_option device_options[] = {
    {"device", 'd', "DEVICE", 0,
     "cpu (default), cpu-oracle, cuda, cuda:N, vulkan, vulkan:N or vulkan:PART-OF-A-NAME", 0},
    {"threads", 't', "N", 0, "Threads of the CPU device (default: one a core)", 0},
    {"isa", KEY_ISA, "NAME", 0,
     "Instruction set of the CPU device: scalar, avx2, avx512, or parts of it: avx512f, "
     "avx512vnni, "
     "avx512vbmi",
     0},
    {"exact", KEY_EXACT, NULL, 0,
     "Round nothing below float16 inside products (slower; for measurements of quality)", 0},
    {0},
};

static error_t device_parse(int key, char *text, struct argp_state *state) {
  tool_device_args *args = state->input;
  static const char *const isas[] = {"scalar",     "avx2",       "avx512", "avx512f",
                                     "avx512vnni", "avx512vbmi", NULL};
  switch (key) {
    case 'd':
      args->selector = text;
      return 0;
    case 't':
      args->options.threads = (uint32_t)tool_parse_u64(state, "--threads", text, 0, 4096);
      return 0;
    case KEY_ISA:
      args->options.isa = isas[tool_parse_word(state, "--isa", text, isas)];
      return 0;
    case KEY_EXACT:
      args->options.exact = true;
      return 0;
    default:
      return ARGP_ERR_UNKNOWN;
  }
}

const struct argp tool_device_argp = {.options = device_options, .parser = device_parse};

void tool_device_defaults(tool_device_args *args) {
  *args = (tool_device_args){.selector = "cpu", .options = {.size = sizeof args->options}};
}

lqt_status tool_device_open(const tool_device_args *args, lqt_device **out_device, lqt_diag *diag) {
  return lqt_device_open(args->selector, &args->options, out_device, diag);
}

lqt_status tool_model_replay(const char *path, lqt_model **model, bool *out_edited,
                             lqt_diag *diag) {
  lqt_editor *editor;
  lqt_journal_report report;
  lqt_model *edited = NULL;
  *out_edited = false;
  lqt_status status = lqt_editor_create(*model, &editor, diag);
  if (status != LQT_OK) return status;
  status = lqt_editor_open_journal(editor, LQT_JOURNAL_READ, NULL, &report, diag);
  if (status == LQT_OK && report.transactions != 0) {
    status = lqt_editor_snapshot(editor, &edited, diag);
  }
  lqt_editor_destroy(editor);
  if (status != LQT_OK || edited == NULL) return status;
  fprintf(stderr, "%s: with %llu edit%s of its journal\n", path,
          (unsigned long long)report.transactions, report.transactions == 1 ? "" : "s");
  lqt_model_release(*model);
  *model = edited;
  *out_edited = true;
  return LQT_OK;
}

lqt_status tool_model_open(const char *path, lqt_model **out_model, lqt_diag *diag) {
  bool edited;
  lqt_status status = lqt_model_open(path, NULL, out_model, diag);
  if (status != LQT_OK) return status;
  status = tool_model_replay(path, out_model, &edited, diag);
  if (status != LQT_OK) {
    lqt_model_release(*out_model);
    *out_model = NULL;
  }
  return status;
}

lqt_status tool_engine_open(const char *path, const tool_device_args *args, tool_engine *out,
                            lqt_diag *diag) {
  *out = (tool_engine){0};
  lqt_status status = tool_model_open(path, &out->model, diag);
  if (status == LQT_OK) status = tool_device_open(args, &out->device, diag);
  if (status == LQT_OK) status = lqt_engine_create(out->model, out->device, &out->engine, diag);
  if (status != LQT_OK) tool_engine_close(out);
  return status;
}

void tool_engine_close(tool_engine *engine) {
  lqt_engine_destroy(engine->engine);
  lqt_device_release(engine->device);
  lqt_model_release(engine->model);
  *engine = (tool_engine){0};
}

lqt_status tool_encode(const lqt_tokenizer *tokenizer, const char *text, size_t bytes, bool bos,
                       bool special, int32_t **out_ids, size_t *out_count, lqt_diag *diag) {
  *out_ids = NULL;
  *out_count = 0;
  size_t first = bos && lqt_tokenizer_bos(tokenizer) >= 0 ? 1 : 0;
  /* Every id stands for at least one byte of text. */
  int32_t *ids = malloc((first + bytes + 1) * sizeof *ids);
  if (ids == NULL) {
    return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory for the ids of %zu bytes", bytes);
  }
  if (first == 1) ids[0] = lqt_tokenizer_bos(tokenizer);
  size_t count = 0;
  lqt_status status =
      lqt_tokenizer_encode(tokenizer, text, bytes, special, ids + first, bytes + 1, &count, diag);
  if (status == LQT_OK && count > bytes + 1) {
    /* A tokenizer that adds ids of its own (a prefix): ask again with the room it wants. */
    int32_t *grown = realloc(ids, (first + count) * sizeof *ids);
    if (grown == NULL) {
      free(ids);
      return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory for %zu ids", count);
    }
    ids = grown;
    status =
        lqt_tokenizer_encode(tokenizer, text, bytes, special, ids + first, count, &count, diag);
  }
  if (status != LQT_OK) {
    free(ids);
    return status;
  }
  *out_ids = ids;
  *out_count = first + count;
  return LQT_OK;
}
