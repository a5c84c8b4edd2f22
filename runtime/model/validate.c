/* The checks of `lqt validate`: what opening leaves out because it reads every byte. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/diag.h"
#include "base/json.h"
#include "format/bytes.h"
#include "format/layout.h"
#include "model/model.h"

typedef unsigned long long ull;

typedef struct validator {
  const lqt_model *model;
  lqt_finding_fn report;
  void *user;
  lqt_status first;
  lqt_diag *diag;
} validator;

static void found(void *user, const lqt_diag *finding) {
  validator *v = user;
  if (v->first == LQT_OK) {
    v->first = finding->status;
    if (v->diag != NULL) *v->diag = *finding;
  }
  if (v->report != NULL) v->report(v->user, finding);
}

LQT_PRINTF(4, 5)
static void find(validator *v, lqt_status status, uint64_t offset, const char *format, ...) {
  lqt_diag finding = {.status = status, .offset = offset};
  snprintf(finding.where, sizeof finding.where, "%s", v->model->path);
  va_list args;
  va_start(args, format);
  vsnprintf(finding.what, sizeof finding.what, format, args);
  va_end(args);
  found(v, &finding);
}

/* First value that is not finite, or `count`. */
static uint64_t first_bad(const void *values, lqt_dtype dtype, uint64_t count) {
  const uint8_t *p = values;
  for (uint64_t i = 0; i < count; i++) {
    bool bad = dtype == LQT_DTYPE_F32
                   ? (lqt__load_u32(p + 4 * i, false) & 0x7f800000u) == 0x7f800000u
               : dtype == LQT_DTYPE_F16 ? (lqt__load_u16(p + 2 * i, false) & 0x7c00u) == 0x7c00u
                                        : (lqt__load_u16(p + 2 * i, false) & 0x7f80u) == 0x7f80u;
    if (bad) return i;
  }
  return count;
}

static void check_values(validator *v, const char *what, const char *name, const void *values,
                         lqt_dtype dtype, uint64_t count, uint64_t offset) {
  if (values == NULL) return;
  uint64_t bad = first_bad(values, dtype, count);
  if (bad == count) return;
  find(v, LQT_NOT_FINITE, offset, "value %llu of the %s of %s is not finite", (ull)bad, what, name);
}

static void check_codebooks(validator *v) {
  const lqt__file *file = &v->model->file;
  for (size_t i = 0; i < file->codebook_count; i++) {
    const lqt__codebook *c = &file->codebooks[i];
    if (c->blob.data == NULL) continue;
    char name[32];
    snprintf(name, sizeof name, "codebook %u", c->id);
    check_values(v, "vectors", name, c->blob.data + c->header_bytes, (lqt_dtype)c->dtype,
                 (uint64_t)c->capacity * c->vector_dim, c->blob.offset);
  }
}

static void check_delta_values(validator *v, const lqt__tensor *t, const lqt_weight_desc *desc) {
  const lqt_delta_view *d = &desc->delta;
  if (d->kind == LQT_DELTA_NONE) return;
  uint64_t first = d->kind == LQT_DELTA_LOW_RANK ? desc->rows * d->rank : d->count;
  check_values(v, "delta", t->name, d->values, d->dtype, first, t->payload.offset);
  if (d->kind == LQT_DELTA_LOW_RANK) {
    check_values(v, "delta", t->name, d->values_b, d->dtype, desc->cols * d->rank,
                 t->payload.offset);
  }
}

/* Least density in percent: 1, unless the mutation rules name another ("min_mask_density"). */
static double least_density(const lqt_model *model) {
  const lqt__chunk *chunk = lqt__file_chunk(&model->file, LQT__CHUNK_MUTATION_RULES);
  json_t *rules = NULL;
  double least = 1;
  if (chunk == NULL || lqt__json_parse((const char *)chunk->data, chunk->bytes, model->path, &rules,
                                       NULL) != LQT_OK) {
    return least;
  }
  const json_t *value = json_object_get(rules, "min_mask_density");
  if (json_is_number(value)) least = json_number_value(value);
  json_decref(rules);
  return least;
}

static void check_mask(validator *v, const lqt__tensor *t, const lqt_weight_desc *desc,
                       double least) {
  if (desc->mask.bits == NULL) return;
  const lqt__mask *mask = &v->model->file.masks[lqt__file_find_mask(&v->model->file, t->mask_id)];
  uint64_t ones = 0;
  for (uint64_t r = 0; r < desc->rows; r++) {
    const uint8_t *row = desc->mask.bits + r * desc->mask.row_stride;
    for (uint64_t c = 0; c < desc->cols; c++) ones += row[c / 8] >> c % 8 & 1;
  }
  double density = 100.0 * (double)ones / ((double)desc->rows * (double)desc->cols);
  if (fabs(density - mask->density) > 0.01) {
    find(v, LQT_BAD_MASK, mask->blob.offset, "mask %u keeps %.3f %% and says %.3f %%", mask->id,
         density, mask->density);
  }
  if (density < least) {
    find(v, LQT_BAD_MASK, mask->blob.offset, "mask %u keeps %.3f %%; at least %.3f %% are allowed",
         mask->id, density, least);
  }
}

static lqt_status check_tensor(validator *v, size_t index, double least) {
  const lqt__tensor *t = &v->model->file.tensors[index];
  lqt_weight_desc desc;
  lqt_diag finding = {0};
  if (t->type != 0) return LQT_OK;
  lqt_status status = lqt_model_weight(v->model, index, &desc, &finding);
  if (status == LQT_OUT_OF_MEMORY) {
    if (v->diag != NULL) *v->diag = finding;
    return status;
  }
  if (status == LQT_UNSUPPORTED) return LQT_OK; /* kept, not interpreted */
  if (status != LQT_OK) {
    found(v, &finding);
    return LQT_OK;
  }
  if (desc.data != NULL) {
    check_values(v, "elements", t->name, desc.data, desc.dtype, desc.rows * desc.cols,
                 t->payload.offset);
  }
  uint64_t groups = desc.rows * desc.group_row_stride;
  check_values(v, "group scales", t->name, desc.group_scales, LQT_DTYPE_F16, groups,
               t->group_scales.offset);
  check_values(v, "zero points", t->name, desc.zero_points, LQT_DTYPE_F16, groups,
               t->zero_points.offset);
  check_delta_values(v, t, &desc);
  check_mask(v, t, &desc, least);
  return LQT_OK;
}

/* JSON chunks parse; the module graph was parsed when the model was opened. */
static lqt_status check_json(validator *v) {
  static const uint16_t types[] = {LQT__CHUNK_MUTATION_RULES, LQT__CHUNK_SELF_MODIFICATION,
                                   LQT__CHUNK_PROVENANCE};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    const lqt__chunk *chunk = lqt__file_chunk(&v->model->file, types[i]);
    if (chunk == NULL) continue;
    json_t *json = NULL;
    lqt_diag finding = {0};
    lqt_status status =
        lqt__json_parse((const char *)chunk->data, chunk->bytes, v->model->path, &json, &finding);
    json_decref(json);
    if (status == LQT_OUT_OF_MEMORY) {
      if (v->diag != NULL) *v->diag = finding;
      return status;
    }
    if (status != LQT_OK) found(v, &finding);
  }
  return LQT_OK;
}

static lqt_status check_consistency(validator *v, const lqt_validate_options *options) {
  const lqt__file *file = &v->model->file;
  check_codebooks(v);
  LQT__TRY(check_json(v));
  double least = least_density(v->model);
  for (size_t i = 0; i < file->tensor_count; i++) {
    LQT__TRY(check_tensor(v, i, least));
    if (options != NULL && options->progress != NULL &&
        !options->progress(options->user, "check", "tensors", i + 1, file->tensor_count)) {
      return lqt__fail(v->diag, LQT_CANCELLED, v->model->path, "the check was cancelled");
    }
  }
  return LQT_OK;
}

/* The embedded log is kept, not interpreted: only its place and count can be checked. */
static void check_edit_log(validator *v) {
  const lqt__file *file = &v->model->file;
  if (file->edit_count != 0 && file->edit_log.bytes == 0 &&
      lqt__file_chunk(file, LQT__CHUNK_EDIT_LOG) == NULL) {
    find(v, LQT_BAD_FOOTER, file->footer_offset + LQT__FOOTER_AT_EDIT_COUNT,
         "the footer counts %u edits and there is no edit log", file->edit_count);
  }
}

lqt_status lqt_model_validate(const lqt_model *model, const lqt_validate_options *options,
                              lqt_finding_fn report, void *user, lqt_diag *diag) {
  if (options != NULL && options->size != sizeof *options) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, model->path,
                     "options.size is %u; set it to sizeof(lqt_validate_options)", options->size);
  }
  validator v = {.model = model, .report = report, .user = user, .diag = diag};
  lqt_status status = LQT_OK;
  if (options == NULL || !options->no_integrity) {
    lqt_diag trouble = {0};
    status = lqt__file_verify(&model->file, model->path, found, &v,
                              options != NULL ? options->progress : NULL,
                              options != NULL ? options->user : NULL, &trouble);
    if (status == LQT_OUT_OF_MEMORY || status == LQT_CANCELLED) {
      if (diag != NULL) *diag = trouble;
      return status;
    }
  }
  if (options == NULL || !options->no_consistency) {
    LQT__TRY(check_consistency(&v, options));
  }
  if (options == NULL || !options->no_edit_log) check_edit_log(&v);
  return v.first;
}
