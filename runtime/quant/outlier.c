#include "quant/outlier.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"

enum { BINS = 1 << 15 }; /* top 16 bits of a number that is not negative */

/* Reach of a Gaussian group: weights inside it do not stretch the range. */
static const float reach = 2.2f;

typedef struct work {
  const lqt__qspec *spec;
  const lqt__qmatrix *matrix;
  const lqt__outliers *outliers; /* second pass: counts against the threshold */
  uint64_t (*histograms)[BINS];  /* [workers] */
  uint32_t *over, *equal;        /* [rows] */
  lqt__qstrip *strips;           /* [workers] */
  lqt_status *status;            /* [strips] */
} work;

/* Keys of a group of columns, [columns][LANES]. */
static void group_keys(const lqt__qspec *spec, const lqt__qmatrix *m, const lqt__qstrip *strip,
                       uint64_t begin, uint64_t end, uint16_t *out) {
  (void)spec;
  float square[LQT__LANES] = {0}, typical[LQT__LANES];
  for (uint64_t c = begin; c < end; c++) {
    const float *w = strip->original + c * LQT__LANES;
    for (int l = 0; l < LQT__LANES; l++) square[l] += w[l] * w[l];
  }
  for (int l = 0; l < LQT__LANES; l++) typical[l] = sqrtf(square[l] / (float)(end - begin));
  for (uint64_t c = begin; c < end; c++) {
    const float *w = strip->original + c * LQT__LANES;
    float cost = m->importance[c];
    if (m->factor != NULL) {
      float u = m->factor[c * m->cols + c];
      cost = 1.0f / (u * u);
    }
    cost = sqrtf(cost);
    for (int l = 0; l < LQT__LANES; l++) {
      float beyond = fabsf(w[l]) - reach * typical[l];
      float key = beyond > 0 ? beyond * cost : 0;
      out[(c - begin) * LQT__LANES + (uint64_t)l] = (uint16_t)(lqt__f32_bits(key) >> 16);
    }
  }
}

static uint64_t group_columns(const lqt__qspec *spec) {
  return spec->group_size > 0 ? spec->group_size : 64;
}

static void count_strip(void *context, size_t index, unsigned worker) {
  work *k = context;
  const lqt__qmatrix *m = k->matrix;
  uint64_t row = index * LQT__LANES, group = group_columns(k->spec);
  lqt__qstrip *strip = &k->strips[worker];
  uint16_t keys[256 * LQT__LANES];
  k->status[index] = lqt__qstrip_load(k->spec, m, row, strip, NULL);
  if (k->status[index] != LQT_OK) return;
  for (uint64_t begin = 0; begin < m->cols; begin += group) {
    uint64_t end = begin + group < m->cols ? begin + group : m->cols;
    group_keys(k->spec, m, strip, begin, end, keys);
    for (uint64_t i = 0; i < (end - begin) * LQT__LANES; i++) {
      uint64_t r = row + i % LQT__LANES;
      if (r >= m->rows) continue;
      if (k->outliers == NULL) {
        k->histograms[worker][keys[i]]++;
      } else {
        k->over[r] += keys[i] > k->outliers->threshold;
        k->equal[r] += keys[i] == k->outliers->threshold;
      }
    }
  }
}

static lqt_status run_pass(work *k, lqt__pool *pool, lqt_diag *diag) {
  size_t strips = (size_t)lqt__ceil_div(k->matrix->rows, LQT__LANES);
  lqt__pool_run(pool, strips, count_strip, k);
  for (size_t i = 0; i < strips; i++) {
    if (k->status[i] == LQT_OK) continue;
    return lqt__fail(diag, k->status[i], k->matrix->view->name, "the weights cannot be read: %s",
                     lqt_status_text(k->status[i]));
  }
  return LQT_OK;
}

/* The highest key that leaves fewer than `count` weights over it. */
static void set_threshold(const work *k, unsigned workers, uint64_t count, lqt__outliers *out) {
  uint64_t over = 0;
  for (uint32_t bin = BINS; bin-- > 0;) {
    uint64_t here = 0;
    for (unsigned w = 0; w < workers; w++) here += k->histograms[w][bin];
    if (over + here >= count) {
      out->threshold = bin;
      return;
    }
    over += here;
  }
  out->threshold = 0;
}

static void share_ties(const work *k, uint64_t count, lqt__outliers *out) {
  uint64_t rows = k->matrix->rows, over = 0;
  for (uint64_t r = 0; r < rows; r++) over += k->over[r];
  uint64_t left = count > over ? count - over : 0;
  for (uint64_t r = 0; r < rows; r++) {
    uint32_t take = left < k->equal[r] ? (uint32_t)left : k->equal[r];
    left -= take;
    out->ties[r] = take;
    out->row_ptr[r + 1] = out->row_ptr[r] + k->over[r] + take;
  }
}

static lqt_status choose(work *k, uint64_t count, lqt__pool *pool, lqt__outliers *out,
                         lqt_diag *diag) {
  const lqt__qmatrix *m = k->matrix;
  unsigned workers = lqt__pool_threads(pool);
  size_t strips = (size_t)lqt__ceil_div(m->rows, LQT__LANES);
  k->histograms = lqt__alloc_array(workers, sizeof *k->histograms);
  k->over = lqt__alloc_array((size_t)m->rows, sizeof(uint32_t));
  k->equal = lqt__alloc_array((size_t)m->rows, sizeof(uint32_t));
  k->strips = lqt__alloc_array(workers, sizeof(lqt__qstrip));
  k->status = lqt__alloc_array(strips, sizeof(lqt_status));
  out->row_ptr = lqt__alloc_array((size_t)m->rows + 1, sizeof(uint32_t));
  out->ties = lqt__alloc_array((size_t)m->rows, sizeof(uint32_t));
  if (k->histograms == NULL || k->over == NULL || k->equal == NULL || k->strips == NULL ||
      k->status == NULL || out->row_ptr == NULL || out->ties == NULL) {
    return lqt__fail_memory(diag, m->view->name, m->rows * 16, "the choice of outliers");
  }
  for (unsigned w = 0; w < workers; w++) {
    LQT__TRY(lqt__qstrip_create(k->spec, m->cols, &k->strips[w], diag));
  }
  LQT__TRY(run_pass(k, pool, diag));
  set_threshold(k, workers, count, out);
  k->outliers = out;
  LQT__TRY(run_pass(k, pool, diag));
  share_ties(k, count, out);
  return LQT_OK;
}

lqt_status lqt__outliers_choose(const lqt__qspec *spec, const lqt__qmatrix *matrix, uint64_t count,
                                lqt__pool *pool, lqt__outliers *out, lqt_diag *diag) {
  *out = (lqt__outliers){0};
  work k = {.spec = spec, .matrix = matrix};
  lqt_status status = choose(&k, count, pool, out, diag);
  for (unsigned w = 0; k.strips != NULL && w < lqt__pool_threads(pool); w++) {
    lqt__qstrip_free(&k.strips[w]);
  }
  lqt__free(k.strips);
  lqt__free(k.histograms);
  lqt__free(k.over);
  lqt__free(k.equal);
  lqt__free(k.status);
  if (status != LQT_OK) lqt__outliers_free(out);
  return status;
}

void lqt__outliers_mark(const lqt__qspec *spec, const lqt__qmatrix *m,
                        const lqt__outliers *outliers, uint64_t row, lqt__qstrip *strip) {
  uint64_t group = group_columns(spec);
  uint32_t ties[LQT__LANES] = {0};
  uint16_t keys[256 * LQT__LANES];
  for (uint64_t l = 0; l < LQT__LANES && row + l < m->rows; l++) ties[l] = outliers->ties[row + l];
  for (uint64_t begin = 0; begin < m->cols; begin += group) {
    uint64_t end = begin + group < m->cols ? begin + group : m->cols;
    group_keys(spec, m, strip, begin, end, keys);
    bool *kept = strip->kept + begin * LQT__LANES;
    for (uint64_t i = 0; i < (end - begin) * LQT__LANES; i++) {
      uint64_t l = i % LQT__LANES;
      kept[i] = row + l < m->rows && keys[i] > outliers->threshold;
      if (row + l < m->rows && keys[i] == outliers->threshold && ties[l] > 0) {
        kept[i] = true;
        ties[l]--;
      }
    }
  }
}

void lqt__outliers_free(lqt__outliers *outliers) {
  lqt__free(outliers->row_ptr);
  lqt__free(outliers->ties);
  *outliers = (lqt__outliers){0};
}
