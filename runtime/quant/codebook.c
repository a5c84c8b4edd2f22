/* Training codebooks: entries and group scales are fitted in turns over a sample of the matrix. A
 * tile of the sample is one group of columns of LQT__LANES rows, so that training runs on the
 * encoder's own inner loops. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"
#include "base/random.h"
#include "quant/quant.h"

enum {
  TILE_COLUMNS = 64,       /* of a tile when there are no groups */
  SAMPLE_SCALAR = 1 << 17, /* weights looked at */
  SAMPLE_VECTOR = 1 << 18,
  ROUNDS_SCALAR = 6, /* of entries and scales in turns */
  ROUNDS_VECTOR = 2,
  LLOYD_SCALAR = 50,
  LLOYD_VECTOR = 15,
};

typedef struct tile {
  float *w;                /* [columns][LANES] */
  const float *importance; /* [columns] */
  double *sums;            /* [entries][dim + 1]: weighted products, weights */
} tile;

typedef struct training {
  const lqt__qspec *spec;
  const lqt__qmatrix *matrix;
  const lqt__strip_ops *ops;
  lqt__pool *pool;
  uint32_t entries, dim, columns;
  size_t tiles;
  tile *tile;
  lqt__qlanes *lanes;
  bool residual;    /* training the residual codebook: the primary one is fixed */
  bool keep_scales; /* scales are those of the first round */
  float *scales;    /* [tiles][LANES] */
  float *values;    /* [entries][dim] */
  lqt__arena arena;
} training;

static float round_f16(float value) { return lqt__f32_from_f16(lqt__f16_from_f32(value)); }

void lqt__qbook_free(lqt__qbook *book) {
  lqt__free(book->values);
  lqt__free(book->residual);
  *book = (lqt__qbook){0};
}

/* Loads the sample: tiles spread evenly over the groups of columns, rows drawn at random. */
static lqt_status load_sample(training *t, uint64_t seed, lqt_diag *diag) {
  const lqt__qmatrix *m = t->matrix;
  lqt__random random = lqt__random_seed(seed);
  uint64_t groups = lqt__ceil_div(m->cols, t->columns), strips = lqt__ceil_div(m->rows, LQT__LANES);
  uint64_t limit = t->dim > 1 ? SAMPLE_VECTOR : SAMPLE_SCALAR;
  uint64_t tiles = lqt__ceil_div(limit, (uint64_t)t->columns * LQT__LANES);
  if (tiles > groups * strips) tiles = groups * strips;
  bool all = tiles == groups * strips;
  t->tiles = (size_t)tiles;
  t->tile = lqt__arena_array(&t->arena, t->tiles, sizeof(tile));
  t->scales = lqt__arena_array(&t->arena, t->tiles * LQT__LANES, sizeof(float));
  float *line = lqt__arena_array(&t->arena, t->columns, sizeof(float));
  if (t->tile == NULL || t->scales == NULL || line == NULL) {
    return lqt__fail_memory(diag, m->view->name, tiles * sizeof(tile), "the training sample");
  }
  for (size_t i = 0; i < t->tiles; i++) {
    tile *x = &t->tile[i];
    uint64_t group = all ? i % groups : (i * groups + groups / 2) / t->tiles % groups;
    if (!all && t->tiles > groups) group = i % groups;
    uint64_t col = group * t->columns;
    uint64_t n = m->cols - col < t->columns ? m->cols - col : t->columns;
    x->w = lqt__arena_array(&t->arena, (size_t)t->columns * LQT__LANES, sizeof(float));
    float *importance = lqt__arena_array(&t->arena, t->columns, sizeof(float));
    x->sums = lqt__arena_array(&t->arena, (size_t)t->entries * (t->dim + 1), sizeof(double));
    if (x->w == NULL || importance == NULL || x->sums == NULL) {
      return lqt__fail_memory(diag, m->view->name, t->columns * LQT__LANES * sizeof(float),
                              "a tile of the training sample");
    }
    memcpy(importance, m->importance + col, (size_t)n * sizeof(float));
    x->importance = importance;
    for (uint64_t lane = 0; lane < LQT__LANES; lane++) {
      uint64_t row =
          all ? i / groups * LQT__LANES + lane : lqt__random_below(&random, (uint32_t)m->rows);
      if (row >= m->rows) continue;
      LQT__TRY(lqt__source_read(m->view, row * m->cols + col, n, line, diag));
      for (uint64_t c = 0; c < n; c++) x->w[c * LQT__LANES + lane] = line[c] / m->scale;
    }
  }
  return LQT_OK;
}

/* ---- First entries ---- */

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

/* The largest weight of each lane of the tile, with its sign. */
static void extremes(const training *t, const tile *x, float *out) {
  memset(out, 0, LQT__LANES * sizeof(float));
  for (uint32_t c = 0; c < t->columns; c++) {
    for (int l = 0; l < LQT__LANES; l++) {
      float w = x->w[c * LQT__LANES + (uint32_t)l];
      if (fabsf(w) > fabsf(out[l])) out[l] = w;
    }
  }
}

/* The sample divided by its groups' extremes (when there are groups), zero lanes left out. */
static size_t normalized_sample(const training *t, float *out) {
  size_t count = 0;
  for (size_t i = 0; i < t->tiles; i++) {
    float extreme[LQT__LANES];
    extremes(t, &t->tile[i], extreme);
    for (int l = 0; l < LQT__LANES; l++) {
      if (extreme[l] == 0) continue;
      float inverse = t->spec->group_size > 0 ? 1.0f / extreme[l] : 1;
      for (uint32_t c = 0; c < t->columns; c++) {
        out[count++] = t->tile[i].w[c * LQT__LANES + (uint32_t)l] * inverse;
      }
    }
  }
  return count;
}

/* Lloyd's iterations in one dimension on sorted values, by prefix sums. */
static void lloyd_sorted(const float *sorted, const double *prefix, size_t count, uint32_t entries,
                         float *values) {
  for (uint32_t i = 0; i < entries; i++) {
    values[i] = sorted[(size_t)(((double)i + 0.5) / entries * (double)count)];
  }
  values[0] = sorted[0];
  values[entries - 1] = sorted[count - 1];
  for (int round = 0; round < LLOYD_SCALAR; round++) {
    size_t begin = 0;
    for (uint32_t i = 0; i < entries; i++) {
      size_t low = begin, high = count;
      float bound = i + 1 < entries ? 0.5f * (values[i] + values[i + 1]) : INFINITY;
      while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sorted[middle] <= bound) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      if (low > begin) values[i] = (float)((prefix[low] - prefix[begin]) / (double)(low - begin));
      begin = low;
    }
  }
}

static lqt_status first_scalar(training *t, lqt_diag *diag) {
  size_t limit = t->tiles * t->columns * LQT__LANES;
  float *sorted = lqt__alloc_array(limit, sizeof(float));
  double *prefix = lqt__alloc_array(limit + 1, sizeof(double));
  if (sorted == NULL || prefix == NULL) {
    lqt__free(sorted);
    lqt__free(prefix);
    return lqt__fail_memory(diag, t->matrix->view->name, limit * 12, "the sorted sample");
  }
  size_t count = normalized_sample(t, sorted);
  if (count == 0) count = limit; /* a matrix of zeros */
  qsort(sorted, count, sizeof(float), ascending);
  for (size_t i = 0; i < count; i++) prefix[i + 1] = prefix[i] + sorted[i];
  lloyd_sorted(sorted, prefix, count, t->entries, t->values);
  lqt__free(sorted);
  lqt__free(prefix);
  return LQT_OK;
}

/* Vectors of the sample, drawn at random. */
static void first_vectors(training *t, uint64_t seed) {
  lqt__random random = lqt__random_seed(seed ^ 0x9e3779b97f4a7c15u);
  for (uint32_t i = 0; i < t->entries; i++) {
    const tile *x = &t->tile[lqt__random_below(&random, (uint32_t)t->tiles)];
    uint32_t lane = lqt__random_below(&random, LQT__LANES);
    uint32_t c = lqt__random_below(&random, t->columns / t->dim) * t->dim;
    float extreme[LQT__LANES];
    extremes(t, x, extreme);
    float inverse = t->spec->group_size == 0 ? 1 : extreme[lane] != 0 ? 1.0f / extreme[lane] : 0;
    for (uint32_t j = 0; j < t->dim; j++) {
      t->values[i * t->dim + j] = x->w[(c + j) * LQT__LANES + lane] * inverse;
    }
  }
}

/* ---- Rounds ---- */

static void measure_tile(void *context, size_t index, unsigned worker) {
  (void)worker;
  training *t = context;
  tile *x = &t->tile[index];
  float *scales = t->scales + index * LQT__LANES;
  memset(x->sums, 0, sizeof(double) * t->entries * (t->dim + 1));
  if (t->spec->group_size > 0 && !t->keep_scales) {
    lqt__qlanes_pick_scales(t->lanes, t->spec->bits, x->w, x->importance, t->columns, scales);
  }
  uint8_t codes[LQT__LANES], residuals[LQT__LANES];
  float values[LQT__MAX_DIM * LQT__LANES];
  for (uint32_t c = 0; c < t->columns; c += t->dim) {
    const float *w = x->w + c * LQT__LANES;
    lqt__qlanes_nearest(t->lanes, w, scales, NULL, codes, residuals, values);
    const uint8_t *used = t->residual ? residuals : codes;
    for (int l = 0; l < LQT__LANES; l++) {
      double *sum = x->sums + used[l] * (t->dim + 1);
      double weight = (double)scales[l] * scales[l], all = 0;
      for (uint32_t j = 0; j < t->dim; j++) {
        size_t at = j * LQT__LANES + (size_t)l;
        double target = w[at];
        if (t->residual) {
          /* What the primary entry leaves. */
          uint32_t entry = codes[l] * t->dim + j;
          target -= (double)scales[l] * t->lanes->primary.values[entry * LQT__LANES];
        }
        sum[j] += x->importance[c + j] * scales[l] * target;
        all += x->importance[c + j];
      }
      sum[t->dim] += weight * all / t->dim;
    }
  }
}

/* Entries become the weighted means of what was assigned to them. An entry that nothing uses is set
 * beside the most used one. */
static void update_entries(training *t) {
  size_t width = t->dim + 1;
  double *total = t->tile[0].sums;
  for (size_t i = 1; i < t->tiles; i++) {
    for (size_t k = 0; k < t->entries * width; k++) total[k] += t->tile[i].sums[k];
  }
  uint32_t busiest = 0;
  for (uint32_t i = 1; i < t->entries; i++) {
    if (total[i * width + t->dim] > total[busiest * width + t->dim]) busiest = i;
  }
  for (uint32_t i = 0; i < t->entries; i++) {
    double weight = total[i * width + t->dim];
    for (uint32_t j = 0; weight > 0 && j < t->dim; j++) {
      t->values[i * t->dim + j] = (float)(total[i * width + j] / weight);
    }
  }
  for (uint32_t i = 0; i < t->entries && t->dim > 1; i++) {
    if (total[i * width + t->dim] > 0) continue;
    for (uint32_t j = 0; j < t->dim; j++) {
      float nudge = j == i % t->dim ? 1.01f : 1.0f;
      t->values[i * t->dim + j] = t->values[busiest * t->dim + j] * nudge;
    }
  }
  if (t->dim == 1) qsort(t->values, t->entries, sizeof(float), ascending);
}

static void normalize(training *t) {
  float most = 0;
  for (uint32_t i = 0; i < t->entries * t->dim; i++) most = fmaxf(most, fabsf(t->values[i]));
  if (most == 0) return;
  for (uint32_t i = 0; i < t->entries * t->dim; i++) t->values[i] /= most;
}

static void run_rounds(training *t, int rounds) {
  lqt__lane_book *book = t->residual ? &t->lanes->residual : &t->lanes->primary;
  for (int round = 0; round < rounds; round++) {
    lqt__lane_book_set(book, t->entries, t->dim, t->values, -1);
    lqt__pool_run(t->pool, t->tiles, measure_tile, t);
    update_entries(t);
    if (t->spec->group_size > 0 && !t->residual) normalize(t);
  }
}

/* ---- Fixed codebooks ---- */

/* Inverse of the standard normal distribution function, by bisection: exact enough, used a few
 * times. */
static double normal_quantile(double p) {
  double low = -10, high = 10;
  for (int i = 0; i < 80; i++) {
    double middle = (low + high) / 2;
    if (0.5 * erfc(-middle / sqrt(2.0)) < p) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return (low + high) / 2;
}

/* Quantiles of the normal distribution, zero among them, one more above zero than below.
 * Source: Dettmers et al., "QLoRA" (2023), section 3. */
static void normal_float(uint32_t entries, float *out) {
  double offset = 1 - 0.5 * (1.0 / (2.0 * entries) + 1.0 / (2.0 * entries - 2));
  uint32_t below = entries / 2, above = entries - below;
  for (uint32_t i = 0; i < below; i++) {
    double p = 1 - offset + (offset - 0.5) * (double)i / (double)below;
    out[i] = (float)normal_quantile(p);
  }
  for (uint32_t i = 0; i < above; i++) {
    double p = 0.5 + (offset - 0.5) * (double)i / (double)(above > 1 ? above - 1 : 1);
    out[below + i] = (float)normal_quantile(p);
  }
}

static void uniform(uint32_t entries, float *out) {
  for (uint32_t i = 0; i < entries; i++) out[i] = -1 + 2 * (float)i / (float)(entries - 1);
}

/* ---- Banks ---- */

typedef struct bank_training {
  const lqt__qspec *spec;
  const lqt__qmatrix *matrix;
  lqt__qbook *book;
  const float *first; /* entries of the whole tensor's codebook */
  lqt_status *status; /* [strips] */
} bank_training;

enum { BANK_ROUNDS = 4 };

typedef struct bank_sums {
  float sum[LQT__MAX_ENTRIES * LQT__MAX_DIM * LQT__LANES];
  float weight[LQT__MAX_ENTRIES * LQT__LANES];
} bank_sums;

static void update_bank(const lqt__qbook *book, const bank_sums *sums, int lane, float *values) {
  for (uint32_t i = 0; i < book->entries; i++) {
    float weight = sums->weight[i * LQT__LANES + (uint32_t)lane];
    for (uint32_t j = 0; weight > 0 && j < book->dim; j++) {
      values[i * book->dim + j] =
          sums->sum[(i * book->dim + j) * LQT__LANES + (uint32_t)lane] / weight;
    }
  }
  if (book->dim == 1) qsort(values, book->entries, sizeof(float), ascending);
  for (uint32_t i = 0; i < book->entries * book->dim; i++) values[i] = round_f16(values[i]);
}

/* Adds up what the codes of one vector stand for. */
static void add_vector(const lqt__qbook *book, const lqt__qstrip *strip, const float *importance,
                       const float *scales, uint64_t c, uint64_t limit, bank_sums *sums) {
  const uint8_t *codes = strip->codes + c / book->dim * LQT__LANES;
  for (uint32_t j = 0; j < book->dim && c + j < limit; j++) {
    const float *w = strip->original + (c + j) * LQT__LANES;
    for (uint32_t l = 0; l < LQT__LANES; l++) {
      float a = importance[c + j] * scales[l];
      sums->sum[(codes[l] * book->dim + j) * LQT__LANES + l] += a * w[l];
      if (j == 0) sums->weight[codes[l] * LQT__LANES + l] += a * scales[l];
    }
  }
}

static lqt_status train_strip(bank_training *b, uint64_t row, lqt__qstrip *strip, bank_sums *sums) {
  const lqt__qmatrix *m = b->matrix;
  lqt__qbook *book = b->book;
  lqt__qmatrix plain = *m;
  plain.factor = NULL;
  uint64_t across = lqt__ceil_div(m->cols, book->bank_cols);
  uint64_t block = b->spec->group_size > 0 ? b->spec->group_size : TILE_COLUMNS;
  LQT__TRY(lqt__qstrip_load(b->spec, m, row, strip, NULL));
  for (int round = 0; round < BANK_ROUNDS; round++) {
    lqt__qstrip_encode(b->spec, &plain, book, row, strip);
    for (uint64_t k = 0; k < across; k++) {
      memset(sums, 0, sizeof *sums);
      uint64_t begin = k * book->bank_cols, end = begin + book->bank_cols;
      if (end > m->cols) end = m->cols;
      for (uint64_t c = begin; c < end; c += book->dim) {
        add_vector(book, strip, m->importance, strip->scales + c / block * LQT__LANES, c, end,
                   sums);
      }
      for (uint64_t l = 0; l < LQT__LANES && row + l < m->rows; l++) {
        uint64_t bank = (row + l) / book->bank_rows * across + k;
        update_bank(book, sums, (int)l, book->values + bank * book->entries * book->dim);
      }
    }
  }
  return LQT_OK;
}

static void train_strip_task(void *context, size_t index, unsigned worker) {
  (void)worker;
  bank_training *b = context;
  lqt__qstrip strip;
  lqt_status status = lqt__qstrip_create(b->spec, b->matrix->cols, &strip, NULL);
  bank_sums *sums = lqt__alloc(sizeof *sums);
  if (status == LQT_OK && sums == NULL) status = LQT_OUT_OF_MEMORY;
  if (status == LQT_OK) status = train_strip(b, index * LQT__LANES, &strip, sums);
  lqt__free(sums);
  if (strip.memory != NULL) lqt__qstrip_free(&strip);
  b->status[index] = status;
}

/* Every bank starts from the tensor's codebook and is fitted to its own weights. */
static lqt_status train_banks(const lqt__qspec *spec, const lqt__qmatrix *matrix, lqt__pool *pool,
                              const float *first, lqt__qbook *book, lqt_diag *diag) {
  uint64_t size = (uint64_t)book->entries * book->dim;
  for (uint64_t i = 0; i < book->banks; i++) {
    memcpy(book->values + i * size, first, size * sizeof(float));
  }
  if (book->banks == 1 || spec->init != LQT_INIT_KMEANS) return LQT_OK;
  size_t strips = (size_t)lqt__ceil_div(matrix->rows, LQT__LANES);
  bank_training b = {.spec = spec, .matrix = matrix, .book = book, .first = first};
  b.status = lqt__alloc_array(strips, sizeof(lqt_status));
  if (b.status == NULL) return lqt__fail_memory(diag, matrix->view->name, strips, "bank training");
  lqt__pool_run(pool, strips, train_strip_task, &b);
  lqt_status status = LQT_OK;
  for (size_t i = 0; i < strips && status == LQT_OK; i++) status = b.status[i];
  lqt__free(b.status);
  if (status == LQT_OK) return LQT_OK;
  return lqt__fail(diag, status, matrix->view->name, "the codebooks could not be trained: %s",
                   lqt_status_text(status));
}

/* ---- The whole ---- */

static lqt_status train_primary(training *t, uint64_t seed, lqt_diag *diag) {
  if (t->spec->init == LQT_INIT_NF4) {
    normal_float(t->entries, t->values);
  } else if (t->spec->init == LQT_INIT_UNIFORM) {
    uniform(t->entries, t->values);
  } else if (t->dim == 1) {
    LQT__TRY(first_scalar(t, diag));
  } else {
    first_vectors(t, seed);
  }
  if (t->spec->group_size > 0 || t->spec->init != LQT_INIT_KMEANS) normalize(t);
  t->lanes->residual.entries = 0;
  if (t->spec->init == LQT_INIT_KMEANS) {
    for (size_t i = 0; i < t->tiles * LQT__LANES; i++) t->scales[i] = 1;
    if (t->dim > 1 && t->spec->group_size > 0) {
      /* Cheap rounds first: the scales that a rough codebook asks for are worth little. */
      run_rounds(t, 1);
      t->keep_scales = true;
      run_rounds(t, LLOYD_VECTOR);
      t->keep_scales = false;
    } else if (t->dim > 1) {
      run_rounds(t, LLOYD_VECTOR);
    }
    run_rounds(t, t->dim > 1 || t->spec->bits == 8 ? ROUNDS_VECTOR : ROUNDS_SCALAR);
  }
  for (uint32_t i = 0; i < t->entries * t->dim; i++) t->values[i] = round_f16(t->values[i]);
  return LQT_OK;
}

static lqt_status train_residual(training *t, lqt__qbook *book, lqt_diag *diag) {
  uint32_t entries = 1u << t->spec->residual_bits;
  /* The distance between neighbouring entries: what the residual has to fill in. */
  double spread = 0;
  for (uint32_t i = 0; i < book->entries * book->dim; i++) {
    spread += (double)book->values[i] * book->values[i];
  }
  double step =
      2 * sqrt(spread / (book->entries * book->dim)) / pow(book->entries, 1.0 / (double)book->dim);
  book->residual_entries = entries;
  book->residual = lqt__alloc_array((size_t)entries * book->dim, sizeof(float));
  if (book->residual == NULL) {
    return lqt__fail_memory(diag, t->matrix->view->name, entries, "the residual codebook");
  }
  lqt__random random = lqt__random_seed(entries);
  for (uint32_t i = 0; i < entries; i++) {
    for (uint32_t j = 0; j < book->dim; j++) {
      double at =
          book->dim == 1 ? ((double)i + 0.5) / entries - 0.5 : lqt__random_unit(&random) - 0.5;
      book->residual[i * book->dim + j] = (float)(at * step);
    }
  }
  lqt__lane_book_set(&t->lanes->primary, book->entries, book->dim, book->values, -1);
  t->values = book->residual;
  t->entries = entries;
  t->residual = true;
  for (size_t i = 0; i < t->tiles; i++) {
    t->tile[i].sums = lqt__arena_array(&t->arena, (size_t)entries * (t->dim + 1), sizeof(double));
    if (t->tile[i].sums == NULL) {
      return lqt__fail_memory(diag, t->matrix->view->name, entries, "the residual codebook");
    }
  }
  run_rounds(t, ROUNDS_SCALAR);
  float most = 0;
  for (uint32_t i = 0; i < entries * book->dim; i++) most = fmaxf(most, fabsf(book->residual[i]));
  book->residual_scale = most > 0 ? most : 1;
  for (uint32_t i = 0; i < entries * book->dim; i++) {
    book->residual[i] = round_f16(book->residual[i] / book->residual_scale);
  }
  return LQT_OK;
}

static void set_banks(const lqt__qspec *spec, const lqt__qmatrix *matrix, lqt__qbook *book) {
  book->bank_rows = spec->scope == LQT_SCOPE_TENSOR ? matrix->rows : 1;
  book->bank_cols = matrix->cols;
  if (spec->scope == LQT_SCOPE_GROUP && spec->bank_cols < matrix->cols) {
    book->bank_cols = spec->bank_cols;
  }
  book->banks =
      lqt__ceil_div(matrix->rows, book->bank_rows) * lqt__ceil_div(matrix->cols, book->bank_cols);
}

static lqt_status train(training *t, uint64_t seed, lqt__qbook *out, lqt_diag *diag) {
  out->entries = t->entries;
  out->dim = t->dim;
  set_banks(t->spec, t->matrix, out);
  size_t size = (size_t)t->entries * t->dim;
  t->values = lqt__arena_array(&t->arena, size, sizeof(float));
  t->lanes = lqt__arena_alloc(&t->arena, sizeof(lqt__qlanes));
  out->values = lqt__alloc_array((size_t)out->banks * size, sizeof(float));
  if (t->values == NULL || t->lanes == NULL || out->values == NULL) {
    return lqt__fail_memory(diag, t->matrix->view->name, out->banks * size * 4, "the codebooks");
  }
  LQT__TRY(load_sample(t, seed, diag));
  LQT__TRY(train_primary(t, seed, diag));
  LQT__TRY(train_banks(t->spec, t->matrix, t->pool, t->values, out, diag));
  if (t->spec->residual_bits > 0) LQT__TRY(train_residual(t, out, diag));
  return LQT_OK;
}

lqt_status lqt__qbook_train(const lqt__qspec *spec, const lqt__qmatrix *matrix, uint64_t seed,
                            lqt__pool *pool, lqt__qbook *out, lqt_diag *diag) {
  *out = (lqt__qbook){0};
  training t = {.spec = spec,
                .matrix = matrix,
                .ops = lqt__strip_ops_get(),
                .pool = pool,
                .entries = 1u << spec->bits,
                .dim = spec->dim,
                .columns = spec->group_size > 0 ? spec->group_size : TILE_COLUMNS};
  lqt_status status = train(&t, seed, out, diag);
  lqt__arena_free(&t.arena);
  if (status != LQT_OK) lqt__qbook_free(out);
  return status;
}
