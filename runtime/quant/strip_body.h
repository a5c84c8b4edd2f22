/* The body of the inner loops, compiled once for each instruction set: the including file names the
 * table. In separate files because the compiler splits vectors for the file's own instruction set
 * before it inlines. */
#include <string.h>

#include "quant/strip.h"

/* 16 lanes at a time in the compiler's vector type: one register with AVX-512, two with AVX2. */
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
enum { W = 16, V = LQT__LANES / W };

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE void store(float *p, vf v) { memcpy(p, &v, sizeof v); }
INLINE vf splat(float x) { return (vf){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
INLINE vf choose(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* ---- Scalar codebooks ---- */

/* Few entries: the code is the number of bounds below the value, the entry a running sum of
 * selects. */
INLINE void scalar_few(const lqt__lane_book *book, const float *w, const float *inverse, int v,
                       vi *code, vf *value) {
  vf y = load(w + v * W) * load(inverse + v * W);
  vf c = load(book->values + v * W);
  vi k = {0};
  for (uint32_t j = 1; j < book->entries; j++) {
    vi above = y > load(book->bounds + (j - 1) * LQT__LANES + v * W);
    c = choose(above, load(book->values + j * LQT__LANES + v * W), c);
    k -= above;
  }
  *code = k;
  *value = c;
}

/* Many entries: a binary search a lane. */
INLINE void scalar_many(const lqt__lane_book *book, const float *w, const float *inverse, int v,
                        vi *code, vf *value) {
  vi k = {0};
  vf c = {0};
  for (int l = 0; l < W; l++) {
    int lane = v * W + l;
    float y = w[lane] * inverse[lane];
    uint32_t low = 0, count = book->entries - 1;
    while (count > 0) {
      uint32_t half = count / 2;
      bool above = y > book->bounds[(low + half) * LQT__LANES + lane];
      low = above ? low + half + 1 : low;
      count = above ? count - half - 1 : half;
    }
    k[l] = (int32_t)low;
    c[l] = book->values[low * LQT__LANES + lane];
  }
  *code = k;
  *value = c;
}

INLINE void scalar_nearest(const lqt__lane_book *book, const float *w, const float *inverse, int v,
                           vi *code, vf *value) {
  if (book->entries <= 16) {
    scalar_few(book, w, inverse, v, code, value);
  } else {
    scalar_many(book, w, inverse, v, code, value);
  }
}

/* ---- Vector codebooks ---- */

/* z = y T for the `dim` components of a vector; T upper triangular, NULL the identity. */
INLINE void transform_vector(const float *transform, uint32_t dim, vf *z) {
  if (transform == NULL) return;
  for (int j = (int)dim - 1; j >= 0; j--) {
    vf sum = z[j] * splat(transform[(uint32_t)j * dim + (uint32_t)j]);
    for (int i = 0; i < j; i++) sum += z[i] * splat(transform[(uint32_t)i * dim + (uint32_t)j]);
    z[j] = sum;
  }
}

INLINE void vector_nearest_dim(const lqt__lane_book *book, const float *w, const float *inverse,
                               const float *table, uint32_t dim, const float *transform, int v,
                               vi *code, vf *value) {
  vf z[LQT__MAX_DIM], best = splat(3.4e38f), scale = load(inverse + v * W);
  for (uint32_t j = 0; j < dim; j++) z[j] = load(w + j * LQT__LANES + (uint32_t)(v * W)) * scale;
  transform_vector(transform, dim, z);
  vi k = {0};
  for (uint32_t i = 0; i < book->entries; i++) {
    vf distance = {0}, c[LQT__MAX_DIM];
    if (table != NULL) {
      for (uint32_t j = 0; j < dim; j++) c[j] = splat(table[i * dim + j]);
    } else {
      for (uint32_t j = 0; j < dim; j++) {
        c[j] = load(book->values + (i * dim + j) * LQT__LANES + (uint32_t)(v * W));
      }
      transform_vector(transform, dim, c);
    }
    for (uint32_t j = 0; j < dim; j++) {
      vf difference = z[j] - c[j];
      distance += difference * difference;
    }
    vi closer = distance < best;
    best = choose(closer, distance, best);
    k = (closer & ((vi){0} + (int32_t)i)) | (~closer & k);
  }
  *code = k;
  for (int l = 0; l < W; l++) {
    for (uint32_t j = 0; j < dim; j++) {
      value[j][l] = book->values[((uint32_t)k[l] * dim + j) * LQT__LANES + (uint32_t)(v * W + l)];
    }
  }
}

INLINE void vector_nearest(const lqt__lane_book *book, const float *w, const float *inverse,
                           const float *table, const float *transform, int v, vi *code, vf *value) {
  if (book->dim == 2) {
    vector_nearest_dim(book, w, inverse, table, 2, transform, v, code, value);
  } else {
    vector_nearest_dim(book, w, inverse, table, 4, transform, v, code, value);
  }
}

/* The transformed table of a shared book: the same for all lanes, so made once. */
INLINE const float *shared_table(const lqt__lane_book *book, const float *transform, float *table) {
  if (!book->shared) return NULL;
  uint32_t dim = book->dim;
  for (uint32_t i = 0; i < book->entries; i++) {
    for (uint32_t j = 0; j < dim; j++) {
      float sum = book->values[(i * dim + j) * LQT__LANES];
      if (transform != NULL) {
        sum *= transform[j * dim + j];
        for (uint32_t k = 0; k < j; k++) {
          sum += book->values[(i * dim + k) * LQT__LANES] * transform[k * dim + j];
        }
      }
      table[i * dim + j] = sum;
    }
  }
  return table;
}

/* ---- The operations ---- */

static void products(const lqt__lane_book *book, const float *w, const float *importance,
                     size_t columns, const float *inverse, float *out_xc, float *out_cc) {
  vf xc[V] = {0}, cc[V] = {0};
  float table[LQT__MAX_ENTRIES * LQT__MAX_DIM];
  uint32_t dim = book->dim;
  const float *shared = dim > 1 ? shared_table(book, NULL, table) : NULL;
  for (size_t c = 0; c < columns; c += dim) {
    for (int v = 0; v < V; v++) {
      vi code;
      vf value[LQT__MAX_DIM];
      const float *x = w + c * LQT__LANES;
      if (dim == 1) {
        scalar_nearest(book, x, inverse, v, &code, value);
      } else {
        vector_nearest(book, x, inverse, shared, NULL, v, &code, value);
      }
      for (uint32_t j = 0; j < dim; j++) {
        vf weighted = value[j] * splat(importance[c + j]);
        xc[v] += weighted * load(x + j * LQT__LANES + (uint32_t)(v * W));
        cc[v] += weighted * value[j];
      }
    }
  }
  for (int v = 0; v < V; v++) {
    store(out_xc + v * W, xc[v]);
    store(out_cc + v * W, cc[v]);
  }
}

static void nearest(const lqt__lane_book *book, const float *w, const float *inverse,
                    const float *transform, uint8_t *out_codes, float *out_values) {
  float table[LQT__MAX_ENTRIES * LQT__MAX_DIM];
  uint32_t dim = book->dim;
  const float *shared = dim > 1 ? shared_table(book, transform, table) : NULL;
  for (int v = 0; v < V; v++) {
    vi code;
    vf value[LQT__MAX_DIM];
    if (dim == 1) {
      scalar_nearest(book, w, inverse, v, &code, value);
    } else {
      vector_nearest(book, w, inverse, shared, transform, v, &code, value);
    }
    for (int l = 0; l < W; l++) out_codes[v * W + l] = (uint8_t)code[l];
    for (uint32_t j = 0; j < dim; j++) {
      store(out_values + j * LQT__LANES + (uint32_t)(v * W), value[j]);
    }
  }
}

static void subtract(float *rest, const float *error, const float *factor, size_t columns) {
  vf e[V];
  for (int v = 0; v < V; v++) e[v] = load(error + v * W);
  for (size_t c = 0; c < columns; c++) {
    vf f = splat(factor[c]);
    for (int v = 0; v < V; v++) {
      float *at = rest + c * LQT__LANES + v * W;
      store(at, load(at) - e[v] * f);
    }
  }
}

/* Four columns at a time, so that each error that is loaded is used four times. */
static void subtract_block(float *rest, const float *errors, size_t count, const float *factor,
                           size_t stride, size_t columns) {
  size_t c = 0;
  for (; c + 4 <= columns; c += 4) {
    vf sum[4][V] = {{{0}}};
    for (size_t k = 0; k < count; k++) {
      for (int v = 0; v < V; v++) {
        vf e = load(errors + k * LQT__LANES + (size_t)(v * W));
        for (size_t i = 0; i < 4; i++) sum[i][v] += e * splat(factor[k * stride + c + i]);
      }
    }
    for (size_t i = 0; i < 4; i++) {
      for (int v = 0; v < V; v++) {
        float *at = rest + (c + i) * LQT__LANES + (size_t)(v * W);
        store(at, load(at) - sum[i][v]);
      }
    }
  }
  for (; c < columns; c++) {
    for (size_t k = 0; k < count; k++) {
      subtract(rest + c * LQT__LANES, errors + k * LQT__LANES, factor + k * stride + c, 1);
    }
  }
}

/* ---- Dense products, for the calibration ---- */

INLINE float lane_sum(vf v) {
  float sum[W];
  store(sum, v);
  for (int width = W / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) sum[i] += sum[i + width];
  }
  return sum[0];
}

/* Dot products of `m` rows of a with `n` rows of b, m and n at most 4 and constant. */
INLINE void dot_tile(const float *a, size_t a_stride, const float *b, size_t b_stride, size_t k,
                     int m, int n, float *out, size_t out_stride) {
  vf sum[4][4] = {{{0}}};
  size_t i = 0;
  for (; i + W <= k; i += W) {
    vf x[4], y[4];
    for (int r = 0; r < m; r++) x[r] = load(a + (size_t)r * a_stride + i);
    for (int c = 0; c < n; c++) y[c] = load(b + (size_t)c * b_stride + i);
    for (int r = 0; r < m; r++) {
      for (int c = 0; c < n; c++) sum[r][c] += x[r] * y[c];
    }
  }
  for (int r = 0; r < m; r++) {
    for (int c = 0; c < n; c++) {
      float total = lane_sum(sum[r][c]);
      for (size_t j = i; j < k; j++) {
        total += a[(size_t)r * a_stride + j] * b[(size_t)c * b_stride + j];
      }
      out[(size_t)r * out_stride + (size_t)c] = total;
    }
  }
}

static void dots(const float *a, size_t a_stride, size_t m, const float *b, size_t b_stride,
                 size_t n, size_t k, float *out, size_t out_stride) {
  size_t c = 0;
  for (; c < n; c += c + 4 <= n ? 4 : 1) {
    const float *y = b + c * b_stride;
    size_t r = 0;
    for (; r < m; r += r + 4 <= m ? 4 : 1) {
      const float *x = a + r * a_stride;
      float *at = out + r * out_stride + c;
      if (r + 4 <= m && c + 4 <= n) {
        dot_tile(x, a_stride, y, b_stride, k, 4, 4, at, out_stride);
      } else if (r + 4 <= m) {
        dot_tile(x, a_stride, y, b_stride, k, 4, 1, at, out_stride);
      } else if (c + 4 <= n) {
        dot_tile(x, a_stride, y, b_stride, k, 1, 4, at, out_stride);
      } else {
        dot_tile(x, a_stride, y, b_stride, k, 1, 1, at, out_stride);
      }
    }
  }
}

static void gram(const float *x, size_t rows, size_t cols, size_t first, size_t last, float *out) {
  enum { I = 4, J = 4 * W };
  for (size_t i = first; i < last; i += i + I <= last ? I : 1) {
    size_t n = i + I <= last ? I : 1, j = i / J * J;
    for (; j + J <= cols && n == I; j += J) {
      vf sum[I][4] = {{{0}}};
      for (size_t t = 0; t < rows; t++) {
        const float *row = x + t * cols;
        vf y[4];
        for (size_t v = 0; v < 4; v++) y[v] = load(row + j + v * W);
        for (size_t r = 0; r < I; r++) {
          vf a = splat(row[i + r]);
          for (size_t v = 0; v < 4; v++) sum[r][v] += a * y[v];
        }
      }
      for (size_t r = 0; r < I; r++) {
        for (size_t v = 0; v < 4; v++) {
          float *at = out + (i + r) * cols + j + v * W;
          store(at, load(at) + sum[r][v]);
        }
      }
    }
    for (; j < cols; j++) {
      for (size_t r = 0; r < n; r++) {
        float sum = 0;
        for (size_t t = 0; t < rows; t++) sum += x[t * cols + i + r] * x[t * cols + j];
        out[(i + r) * cols + j] += sum;
      }
    }
  }
}

const lqt__strip_ops LQT__STRIP_TABLE = {
    .products = products,
    .nearest = nearest,
    .subtract = subtract,
    .subtract_block = subtract_block,
    .dots = dots,
    .gram = gram,
};
