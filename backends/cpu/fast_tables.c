/* Lookup tables of a codebook: bfloat16 pairs, float32 and int8. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "fast_internal.h"

/* How often each index occurs in a spread sample of the packed blocks. It steers only which
 * rounding of the table is best, so a sample is enough. */
static void sample_counts(const lqt__cpu_fast *w, const lqt__fast_plane *plane, double counts[16]) {
  enum { SAMPLES = 8192 };
  uint64_t total = w->rows * w->cols;
  uint64_t step = total / SAMPLES | 1;
  for (unsigned i = 0; i < 16; i++) counts[i] = 0.01;
  for (uint64_t n = 0; n < total; n += step) {
    uint32_t index = lqt__fast_get_index(plane, n / w->cols, n % w->cols);
    if (index < plane->entries) counts[index] += 1;
  }
}

/* Squared error of value ~ scale * (s8 + offset) over the entries; INFINITY outside int8. */
static double rounding_error(const float *values, const double *counts, unsigned entries,
                             double scale, double offset, int8_t *out) {
  double error = 0;
  for (unsigned i = 0; i < entries; i++) {
    double t = rint(values[i] / scale - offset);
    if (t < -128 || t > 127) return INFINITY;
    if (out != NULL) out[i] = (int8_t)t;
    double e = values[i] - scale * (t + offset);
    error += counts[i] * e * e;
  }
  return error;
}

/* Columns of an activation scale such that activations of N(0, 1) and this table together stay well
 * under a relative error of 0.005. Activations alone: 0.0035 with 256 columns, 0.0030 with 64. */
static unsigned part_for(float error) {
  if (error <= 0.0027f) return 256;
  return error <= 0.0033f ? 64 : 0;
}

/* The int8 form with the least error: the grid of 255 steps may be a little wider than the range of
 * the entries and shifted by any offset (an offset costs the kernel nothing), so a search over both
 * puts it where most entries fall close to a step. */
static void build_s8(const lqt__cpu_fast *w, const lqt__fast_plane *plane, const float *values,
                     lqt__fast_tables *t) {
  enum { STEPS = 280, OFFSETS = 16 };
  double counts[16], size = 0;
  sample_counts(w, plane, counts);
  for (unsigned i = 0; i < plane->entries; i++) size += counts[i] * values[i] * values[i];
  if (!isfinite(size)) { /* what is not finite must show: other kernels keep it */
    t->s8_part = 0;
    return;
  }
  double low = values[0], high = values[0];
  for (unsigned i = 1; i < plane->entries; i++) {
    low = fmin(low, values[i]);
    high = fmax(high, values[i]);
  }
  /* A grid much finer than the values would make the offset's share of a product large. */
  double finest = fmax(fabs(low), fabs(high)) / 1000;
  int8_t s8[16] = {0};
  double best_scale = 1, best_offset = 0, error = 0;
  if (finest > 0 && isfinite(finest)) {
    double best = INFINITY;
    for (unsigned s = 0; s < STEPS; s++) {
      double scale = fmax((high - low) / (255.0 - 0.25 * s), finest);
      double centre = floor((low + high) / 2 / scale);
      for (unsigned o = 0; o < OFFSETS; o++) {
        double offset = centre + (double)o / OFFSETS;
        double this = rounding_error(values, counts, plane->entries, scale, offset, NULL);
        if (this < best) {
          best = this;
          best_scale = scale;
          best_offset = offset;
        }
      }
    }
    error = rounding_error(values, counts, plane->entries, best_scale, best_offset, s8);
  }
  unsigned period = 1u << lqt__fast_formats[plane->kind].bits;
  for (unsigned i = 0; i < 64; i++) t->s8[i] = s8[i % period];
  t->s8_scale = (float)best_scale;
  t->s8_offset = (float)best_offset;
  t->s8_error = size > 0 ? (float)sqrt(error / size) : 0.0f;
  t->s8_part = part_for(t->s8_error);
}

/* 12-bit integers: the largest entry is LQT__FAST_INT16_MOST. */
static void build_s16(const lqt__fast_plane *plane, const float *values, lqt__fast_tables *t) {
  const lqt__fast_format *format = &lqt__fast_formats[plane->kind];
  float most = 0;
  for (unsigned i = 0; i < plane->entries * format->comps; i++)
    most = fmaxf(most, fabsf(values[i]));
  t->s16_scale = most > 0 && isfinite(most) ? most / LQT__FAST_INT16_MOST : 1.0f;
  double error = 0, size = 0;
  for (unsigned i = 0; i < plane->entries; i++) {
    for (unsigned c = 0; c < format->comps; c++) {
      const float value = values[i * format->comps + c], steps = rintf(value / t->s16_scale);
      const int16_t word = (int16_t)(fabsf(steps) <= LQT__FAST_INT16_MOST ? steps : 0);
      const double e = value - t->s16_scale * word;
      error += e * e;
      size += (double)value * value;
      for (unsigned at = i; at < 16; at += 1u << format->bits) {
        t->s16[c][0][at] = (uint8_t)((uint16_t)word & 0xff);
        t->s16[c][1][at] = (uint8_t)((uint16_t)word >> 8);
      }
    }
  }
  t->s16_error = size > 0 ? (float)sqrt(error / size) : 0.0f;
  if (!isfinite(size)) t->s16_error = INFINITY; /* other kernels keep what is not finite */
}

static void put_words(const lqt__fast_format *format, uint8_t *table, unsigned i, uint16_t word) {
  if (format->bits == 8) {
    table[i] = (uint8_t)word;
    table[256 + i] = (uint8_t)(word >> 8);
    return;
  }
  for (unsigned at = i; at < 32; at += 1u << format->bits) memcpy(table + 2 * at, &word, 2);
}

/* The factor with which the values lose least by rounding to bfloat16: how much a value loses
 * depends on where it stands between two powers of two. With many values all factors are alike. */
static float best_factor(const float *values, unsigned count) {
  enum { FACTORS = 64, MANY = 64 };
  float best_factor_yet = 1.0f;
  double best = INFINITY;
  for (unsigned f = 0; f < FACTORS && count <= MANY; f++) {
    const float factor = 1.0f + (float)f / FACTORS;
    double error = 0;
    for (unsigned i = 0; i < count; i++) {
      const float value = factor * values[i];
      const double e = value - lqt__f32_from_bf16(lqt__bf16_from_f32(value));
      error += e * e;
    }
    error /= factor * factor;
    if (error < best) {
      best = error;
      best_factor_yet = factor;
    }
  }
  return best_factor_yet;
}

/* The mean of the entries: less it, the values are about as small as a constant can make them, and
 * so is the error of rounding the activations that they are multiplied with. */
static float centre_of(const float *values, unsigned count) {
  double sum = 0;
  for (unsigned i = 0; i < count; i++) sum += values[i];
  return isfinite(sum) ? (float)(sum / count) : 0.0f;
}

void lqt__fast_build_tables(lqt__cpu_fast *w, lqt__fast_plane *plane, float factor) {
  lqt__fast_tables *t = plane->tables;
  const lqt__fast_format *format = &lqt__fast_formats[plane->kind];
  const unsigned count = plane->entries * format->comps;
  float values[256 * LQT__FAST_MAX_COMPS];
  memcpy(values, plane->values, count * sizeof *values);
  if (w->centred && plane == &w->plane[0]) {
    w->centre = centre_of(values, count);
    for (unsigned i = 0; i < count; i++) values[i] -= w->centre;
  }
  memset(t, 0, sizeof *t);
  t->outer = factor;
  t->factor = w->exact ? 1.0f : best_factor(values, count);
  for (unsigned i = 0; i < plane->entries; i++) {
    for (unsigned c = 0; c < format->comps; c++) {
      const float value = factor * values[i * format->comps + c];
      /* The residual's own factor comes with the product, so that it does not spoil the choice. */
      const float scaled = t->factor * values[i * format->comps + c];
      uint16_t main = lqt__bf16_from_f32(scaled);
      float rest = scaled - lqt__f32_from_bf16(main);
      put_words(format, t->main[c], i, main);
      put_words(format, t->rest[c], i, isfinite(rest) ? lqt__bf16_from_f32(rest) : 0);
      if (format->bits == 8) {
        t->f32[c][i] = value;
      } else {
        for (unsigned at = i; at < 16; at += 1u << format->bits) t->f32[c][at] = value;
      }
    }
  }
  if (format->bits <= 4) build_s16(plane, values, t);
  if (format->comps == 1 && format->bits <= 4 && w->planes == 1) build_s8(w, plane, values, t);
}
