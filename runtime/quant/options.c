#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "quant/output.h"

void lqt_quantize_defaults(lqt_quantize_options *out_options) {
  *out_options = (lqt_quantize_options){.size = sizeof(lqt_quantize_options),
                                        .bits = 4,
                                        .group_size = 64,
                                        .vector_dim = 1,
                                        .embed_bits = 8,
                                        .init = LQT_INIT_KMEANS,
                                        .scope = LQT_SCOPE_TENSOR};
}

static bool is_width(uint32_t bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

static lqt_status check_sizes(const lqt_quantize_options *o, lqt_diag *diag) {
  if (o->bits != 0 && !is_width(o->bits)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "bits", "%u bits: 2, 3, 4, 8 or none are possible",
                     o->bits);
  }
  if (o->embed_bits != 0 && !is_width(o->embed_bits)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "embed-bits",
                     "%u bits: 2, 3, 4, 8 or none are possible", o->embed_bits);
  }
  if (o->residual_bits != 0 && !is_width(o->residual_bits)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "residual-bits",
                     "%u bits: 2, 3, 4, 8 or none are possible", o->residual_bits);
  }
  if (o->vector_dim != 1 && o->vector_dim != 2 && o->vector_dim != 4) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "vector-dim",
                     "vectors of %u weights: 1, 2 or 4 are possible", o->vector_dim);
  }
  uint32_t group = o->group_size;
  if (group != 0 && (group < 16 || group > 256 || (group & (group - 1)) != 0)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "group-size",
                     "groups of %u: 16, 32, 64, 128, 256 or none are possible", group);
  }
  return LQT_OK;
}

lqt_status lqt__options_check(const lqt_quantize_options *o, lqt_diag *diag) {
  if (o == NULL || o->size != sizeof *o) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "options",
                     "the options' size is wrong; start from lqt_quantize_defaults");
  }
  LQT__TRY(check_sizes(o, diag));
  if ((unsigned)o->calibration > LQT_CALIBRATE_ON) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "calibrate", "auto, off or on are possible");
  }
  if ((unsigned)o->init > LQT_INIT_UNIFORM || (unsigned)o->scope > LQT_SCOPE_GROUP) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "options", "an unknown codebook kind or scope");
  }
  if (o->vector_dim > 1 && o->init != LQT_INIT_KMEANS) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "codebook-init",
                     "vector codebooks are trained by k-means only");
  }
  uint32_t group = o->group_size > 0 ? o->group_size : 64;
  if (o->scope == LQT_SCOPE_GROUP && o->scope_cols % group != 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "scope",
                     "a bank of %u columns is no multiple of %u, the columns of a group",
                     o->scope_cols, group);
  }
  for (const char *at = o->exclude; at != NULL && *at != 0; at += strspn(at, ",")) {
    const size_t length = strcspn(at, ",");
    if (length > LQT__PATTERN_MOST) {
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, "exclude",
                       "the pattern '%.40s...' has %zu bytes; at most %d are possible", at, length,
                       (int)LQT__PATTERN_MOST);
    }
    at += length;
  }
  if (!(o->outliers >= 0 && o->outliers <= 0.05)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "outliers", "a share of %g: 0 to 0.05 is possible",
                     o->outliers);
  }
  if (!(o->target_bpw == 0 || (o->target_bpw >= 2 && o->target_bpw <= 16))) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "target-bpw",
                     "%g bits a weight: 2 to 16 are possible", o->target_bpw);
  }
  if (o->target_bpw > 0 && (o->vector_dim != 1 || o->residual_bits != 0)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "target-bpw",
                     "a target is met by scalar codebooks without residuals; leave out vector-dim "
                     "and residual-bits");
  }
  return LQT_OK;
}

lqt__qspec lqt__options_spec(const lqt_quantize_options *o) {
  uint32_t group = o->group_size > 0 ? o->group_size : 64;
  return (lqt__qspec){.bits = o->target_bpw > 0 ? 4 : o->bits,
                      .dim = o->vector_dim,
                      .group_size = o->group_size,
                      .residual_bits = o->residual_bits,
                      .init = o->init,
                      .scope = o->scope,
                      .bank_cols = o->scope_cols > 0 ? o->scope_cols : 16 * group,
                      .outliers = o->outliers};
}

lqt__qspec lqt__options_embed_spec(const lqt_quantize_options *o) {
  return (lqt__qspec){.bits = o->embed_bits,
                      .dim = 1,
                      .group_size = o->group_size > 0 ? o->group_size : 64,
                      .init = o->init};
}
