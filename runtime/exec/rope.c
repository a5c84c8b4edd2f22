#include "exec/rope.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/diag.h"

static const double two_pi = 6.283185307179586;

typedef struct rope {
  const json_t *object;
  const char *where;
  lqt_diag *diag;
  double theta, factor;
  uint32_t dim;
} rope;

static double number(const rope *r, const char *key, double fallback) {
  const json_t *value = json_object_get(r->object, key);
  return json_is_number(value) ? json_number_value(value) : fallback;
}

/* A number that must be there and above zero. */
static lqt_status positive(const rope *r, const char *key, double fallback, double *out) {
  *out = number(r, key, fallback);
  if (isfinite(*out) && *out > 0.0) return LQT_OK;
  return lqt__fail(r->diag, LQT_BAD_GRAPH, r->where, "rope.%s must be a number above 0", key);
}

static double base_frequency(const rope *r, uint32_t i) { return pow(r->theta, -2.0 * i / r->dim); }

static lqt_status llama3(const rope *r, float *out) {
  double low, high, original;
  LQT__TRY(positive(r, "low_freq_factor", 1.0, &low));
  LQT__TRY(positive(r, "high_freq_factor", 4.0, &high));
  LQT__TRY(positive(r, "original_context", 0.0, &original));
  if (high <= low) {
    return lqt__fail(r->diag, LQT_BAD_GRAPH, r->where,
                     "rope.high_freq_factor must be above rope.low_freq_factor");
  }
  for (uint32_t i = 0; i < r->dim / 2; i++) {
    double frequency = base_frequency(r, i);
    double turns = original * frequency / two_pi; /* over the original context */
    double blend = fmin(fmax((turns - low) / (high - low), 0.0), 1.0);
    out[i] = (float)((1.0 - blend) * frequency / r->factor + blend * frequency);
  }
  return LQT_OK;
}

/* The dimension whose frequency makes `turns` turns over the original context. */
static double yarn_dimension(const rope *r, double turns, double original) {
  return r->dim * log(original / (turns * two_pi)) / (2.0 * log(r->theta));
}

static double yarn_magnitude(double factor, double weight) {
  return factor > 1.0 ? 0.1 * weight * log(factor) + 1.0 : 1.0;
}

static lqt_status yarn(const rope *r, float *out, float *out_scale) {
  double fast, slow, original;
  LQT__TRY(positive(r, "beta_fast", 32.0, &fast));
  LQT__TRY(positive(r, "beta_slow", 1.0, &slow));
  LQT__TRY(positive(r, "original_context", 0.0, &original));
  if (r->theta <= 1.0) {
    return lqt__fail(r->diag, LQT_BAD_GRAPH, r->where, "rope.theta must be above 1 with yarn");
  }
  double low = yarn_dimension(r, fast, original), high = yarn_dimension(r, slow, original);
  if (!json_is_false(json_object_get(r->object, "truncate"))) {
    low = floor(low);
    high = ceil(high);
  }
  low = fmax(low, 0.0);
  high = fmin(high, r->dim - 1.0);
  if (high == low) high += 0.001;
  for (uint32_t i = 0; i < r->dim / 2; i++) {
    double frequency = base_frequency(r, i);
    double interpolated = fmin(fmax((i - low) / (high - low), 0.0), 1.0);
    out[i] = (float)(frequency / r->factor * interpolated + frequency * (1.0 - interpolated));
  }
  double all = number(r, "mscale_all_dim", 0.0), some = number(r, "mscale", 0.0);
  double scale = some != 0.0 && all != 0.0
                     ? yarn_magnitude(r->factor, some) / yarn_magnitude(r->factor, all)
                     : yarn_magnitude(r->factor, 1.0);
  *out_scale = (float)number(r, "attention_factor", scale);
  return LQT_OK;
}

lqt_status lqt__rope_frequencies(const json_t *object, uint32_t dim, const char *where, float *out,
                                 float *out_scale, lqt_diag *diag) {
  rope r = {.object = object, .where = where, .diag = diag, .dim = dim};
  const char *type = json_string_value(json_object_get(object, "type"));
  if (type == NULL) type = "default";
  LQT__TRY(positive(&r, "theta", 10000.0, &r.theta));
  LQT__TRY(positive(&r, "factor", 1.0, &r.factor));
  *out_scale = 1.0f;
  if (strcmp(type, "llama3") == 0) return llama3(&r, out);
  if (strcmp(type, "yarn") == 0) return yarn(&r, out, out_scale);
  bool linear = strcmp(type, "linear") == 0;
  if (!linear && strcmp(type, "default") != 0) {
    return lqt__fail(diag, LQT_UNSUPPORTED, where,
                     "rope type '%.32s' is not supported (default, linear, llama3, yarn are)",
                     type);
  }
  for (uint32_t i = 0; i < dim / 2; i++) {
    out[i] = (float)(base_frequency(&r, i) / (linear ? r.factor : 1.0));
  }
  return LQT_OK;
}
