/* From a model folder to an .lqt file, tensor by tensor. */
#include "lqt/quantize.h"

#include <fnmatch.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/diag.h"
#include "base/half.h"
#include "io/file.h"
#include "quant/matrix.h"
#include "quant/output.h"
#include "quant/provenance.h"

/* A pattern of the comma-separated list matches the tensor's name, or the whole of it with the
 * ending ".weight" left out. */
static bool is_excluded(const char *patterns, const char *name) {
  char pattern[LQT__PATTERN_MOST + 1], stem[96];
  size_t length = strlen(name);
  memcpy(stem, name, length + 1);
  if (length > 7 && strcmp(name + length - 7, ".weight") == 0) stem[length - 7] = 0;
  while (patterns != NULL && *patterns != 0) {
    size_t n = strcspn(patterns, ",");
    if (n > 0 && n < sizeof pattern) {
      memcpy(pattern, patterns, n);
      pattern[n] = 0;
      if (fnmatch(pattern, name, 0) == 0 || fnmatch(pattern, stem, 0) == 0) return true;
    }
    patterns += n + (patterns[n] == ',');
  }
  return false;
}

static lqt_status choose_specs(lqt__quantizer *q, lqt_diag *diag) {
  const lqt_quantize_options *o = q->options;
  lqt__qoutput *output = &q->output;
  output->tensor_count = lqt__llama_tensor_count(&q->source.llama);
  output->tensors = lqt__alloc_array(output->tensor_count, sizeof(lqt__qtensor));
  output->expandable = o->expandable;
  output->empty_deltas = o->empty_deltas;
  if (output->tensors == NULL) {
    return lqt__fail_memory(diag, NULL, output->tensor_count * sizeof(lqt__qtensor), "a plan");
  }
  for (size_t i = 0; i < output->tensor_count; i++) {
    lqt__qtensor *t = &output->tensors[i];
    lqt__source_view view;
    lqt__llama_tensor_at(&q->source.llama, i, &t->tensor);
    LQT__TRY(lqt__source_find(&q->source, &t->tensor, &view, diag));
    t->dtype = view.dtype;
    if (t->tensor.ndim != 2 || is_excluded(o->exclude, t->tensor.name)) continue;
    bool embed = t->tensor.role == LQT__ROLE_EMBEDDING || t->tensor.role == LQT__ROLE_HEAD;
    t->spec = embed ? lqt__options_embed_spec(o) : lqt__options_spec(o);
    if (t->spec.bits == 0) t->spec = (lqt__qspec){0};
    t->outliers = (uint64_t)(t->spec.outliers * (double)(view.rows * view.cols));
    if (t->spec.bits > 0) q->total += view.rows * view.cols;
  }
  return o->target_bpw > 0 ? lqt__qoutput_plan(output, o->target_bpw, diag) : LQT_OK;
}

static lqt_status add_chunks(lqt__quantizer *q, lqt_diag *diag) {
  lqt__text text;
  LQT__TRY(lqt__provenance_make(&q->source, q->options, q->moments.tokens, &text, diag));
  lqt_status status =
      lqt__qoutput_chunk(&q->output, LQT__CHUNK_PROVENANCE, text.data, text.bytes, diag);
  lqt__text_free(&text);
  if (status != LQT_OK || q->source.tokenizer == NULL) return status;
  uint8_t *data;
  size_t bytes;
  LQT__TRY(lqt__source_vocabulary(&q->source, &data, &bytes, diag));
  status = lqt__qoutput_chunk(&q->output, LQT__CHUNK_VOCABULARY, data, bytes, diag);
  lqt__free(data);
  return status;
}

static lqt_status write_tensors(lqt__quantizer *q, lqt_diag *diag) {
  for (size_t i = 0; i < q->output.tensor_count; i++) {
    const lqt__qtensor *t = &q->output.tensors[i];
    LQT__TRY(t->spec.bits > 0 ? lqt__quantizer_encode(q, i, diag)
                              : lqt__quantizer_copy(q, i, diag));
  }
  return LQT_OK;
}

static bool calibration_progress(void *user, uint64_t done, uint64_t total) {
  const lqt__quantizer *q = user;
  return q->options->progress == NULL ||
         q->options->progress(q->options->user, "calibrate", "steps", done, total);
}

/* Beside the largest tensor the quantizer may use 1 GiB. */
enum { CALIBRATION_BYTES = 1 << 30 };

static lqt_status calibrate(lqt__quantizer *q, lqt_diag *diag) {
  lqt_calibration how = q->options->calibration;
  bool wanted = false;
  for (size_t i = 0; i < q->output.tensor_count; i++) {
    lqt__llama_role role = q->output.tensors[i].tensor.role;
    wanted |=
        q->output.tensors[i].spec.bits > 0 && role != LQT__ROLE_EMBEDDING && role != LQT__ROLE_HEAD;
  }
  if (!wanted || how == LQT_CALIBRATE_OFF) return LQT_OK;
  if (how == LQT_CALIBRATE_AUTO &&
      lqt__calibrate_bytes(&q->source.llama) > (uint64_t)CALIBRATION_BYTES) {
    return LQT_OK;
  }
  return lqt__calibrate(&q->source, q->options->seed, q->pool, calibration_progress, q, &q->moments,
                        diag);
}

static lqt_status quantize(lqt__quantizer *q, const char *source, const char *path,
                           lqt_diag *diag) {
  LQT__TRY(lqt__source_open(source, &q->source, diag));
  /* Minutes of calibration come before the first byte is written. */
  LQT__TRY(lqt__output_probe(path, diag));
  q->pool = lqt__pool_create(q->options->threads);
  if (q->pool == NULL) return lqt__fail_memory(diag, NULL, 0, "the threads");
  LQT__TRY(choose_specs(q, diag));
  LQT__TRY(calibrate(q, diag));
  LQT__TRY(lqt__qoutput_layout(&q->output, &q->source.llama, diag));
  LQT__TRY(add_chunks(q, diag));
  LQT__TRY(lqt__writer_begin(path, &q->output.file, &q->output.writer, diag));
  LQT__TRY(write_tensors(q, diag));
  lqt__writer *writer = q->output.writer;
  q->output.writer = NULL;
  return lqt__writer_finish(writer, &q->report.file_bytes, diag);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

lqt_status lqt_quantize(const char *source, const char *path, const lqt_quantize_options *options,
                        lqt_quantize_report *out_report, lqt_diag *diag) {
  if (out_report != NULL) *out_report = (lqt_quantize_report){0};
  if (source == NULL || path == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, NULL, "a source folder and an output path");
  }
  LQT__TRY(lqt__options_check(options, diag));
  double begin = now();
  lqt__quantizer q = {.options = options};
  lqt_status status = quantize(&q, source, path, diag);
  lqt__qoutput_free(&q.output);
  lqt__moments_free(&q.moments);
  lqt__free(q.factor);
  lqt__pool_destroy(q.pool);
  lqt__source_close(&q.source);
  if (status != LQT_OK || out_report == NULL) return status;
  *out_report = q.report;
  out_report->seconds = now() - begin;
  if (q.report.weights > 0) {
    out_report->bits_per_weight = 8.0 * (double)q.bytes / (double)q.report.weights;
    out_report->relative_error = q.square > 0 ? sqrt(q.square_error / q.square) : 0;
  }
  return LQT_OK;
}
