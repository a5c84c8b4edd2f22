#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "quant/calibrate.h"

enum { STRIPE = 64 };

/* Share of the mean variance added to each: inputs that never moved in the sample stay usable, and
 * the factor stays well conditioned. */
static const float damping = 0.05f;

typedef struct work {
  float *r, *u;
  size_t n, column;
  const lqt__strip_ops *ops;
} work;

/* R[i][j] for the rows of a stripe, given the columns after j. */
static void column_task(void *context, size_t index, unsigned worker) {
  (void)worker;
  work *k = context;
  size_t n = k->n, j = k->column, begin = index * STRIPE;
  size_t end = begin + STRIPE < j ? begin + STRIPE : j;
  float dot[STRIPE], pivot = k->r[j * n + j];
  k->ops->dots(k->r + j * n + j + 1, n, 1, k->r + begin * n + j + 1, n, end - begin, n - j - 1, dot,
               STRIPE);
  for (size_t i = begin; i < end; i++) {
    k->r[i * n + j] = (k->r[i * n + j] - dot[i - begin]) / pivot;
  }
}

/* H = R R^T with R upper triangular, in place: the columns from the last to the first. */
static bool reverse_cholesky(work *k, lqt__pool *pool) {
  size_t n = k->n;
  for (size_t j = n; j-- > 0;) {
    float square;
    k->ops->dots(k->r + j * n + j + 1, n, 1, k->r + j * n + j + 1, n, 1, n - j - 1, &square, 1);
    float pivot = k->r[j * n + j] - square;
    if (!(pivot > 0) || !isfinite(pivot)) return false;
    k->r[j * n + j] = sqrtf(pivot);
    k->column = j;
    lqt__pool_run(pool, (j + STRIPE - 1) / STRIPE, column_task, k);
  }
  return true;
}

/* Columns of U = R^-1, a stripe at a time, from the last row up. */
static void inverse_task(void *context, size_t index, unsigned worker) {
  (void)worker;
  work *k = context;
  size_t n = k->n, begin = index * STRIPE, end = begin + STRIPE < n ? begin + STRIPE : n;
  for (size_t i = end; i-- > 0;) {
    float row[STRIPE] = {0};
    for (size_t c = end; c-- > i + 1;) {
      float f = k->r[i * n + c];
      const float *u = k->u + c * n + begin;
      for (size_t j = 0; j < end - begin; j++) row[j] -= f * u[j];
    }
    float inverse = 1.0f / k->r[i * n + i];
    for (size_t j = 0; j < end - begin; j++) {
      float unit = begin + j == i ? 1.0f : 0.0f;
      k->u[i * n + begin + j] = (row[j] + unit) * inverse;
    }
  }
}

lqt_status lqt__moments_factor(const lqt__moments *moments, uint32_t layer, lqt__tap tap,
                               lqt__pool *pool, float **out, lqt_diag *diag) {
  size_t n = moments->cols[tap], bytes = n * n * sizeof(float);
  const float *sums = moments->sums[layer * LQT__TAP_COUNT + tap];
  work k = {.n = n, .ops = lqt__strip_ops_get()};
  k.r = lqt__alloc_aligned(bytes, 64);
  k.u = lqt__alloc_aligned(bytes, 64);
  *out = NULL;
  if (k.r == NULL || k.u == NULL) {
    lqt__free(k.r);
    lqt__free(k.u);
    return lqt__fail_memory(diag, NULL, bytes, "an input covariance");
  }
  memset(k.u, 0, bytes);
  double trace = 0;
  for (size_t i = 0; i < n; i++) trace += sums[i * n + i];
  float mean = (float)(trace / (double)n), extra = damping;
  bool good = false;
  /* More damping where rounding made the matrix indefinite; with enough it always ends. */
  for (int attempt = 0; attempt < 6 && !good; attempt++, extra *= 4) {
    float scale = mean > 0 ? 1.0f / mean : 0;
    for (size_t i = 0; i < n; i++) {
      for (size_t j = i; j < n; j++) k.r[i * n + j] = sums[i * n + j] * scale;
      k.r[i * n + i] += extra;
    }
    good = reverse_cholesky(&k, pool);
  }
  if (good) lqt__pool_run(pool, (n + STRIPE - 1) / STRIPE, inverse_task, &k);
  lqt__free(k.r);
  if (!good) {
    lqt__free(k.u);
    k.u = NULL;
  }
  *out = k.u;
  return LQT_OK;
}
