#include "bench_weight.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

uint32_t bench_random(uint32_t *state) {
  /* Marsaglia, "Xorshift RNGs" (2003). */
  uint32_t x = *state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return *state = x;
}

float bench_random_value(uint32_t *state) {
  return ((float)(int)(bench_random(state) >> 22) - 511.5f + 0.5f) / 256.0f;
}

float bench_random_normal(uint32_t *state) {
  /* Box and Muller (1958). */
  double u = ((double)bench_random(state) + 1.0) / 4294967297.0;
  double v = (double)bench_random(state) / 4294967296.0;
  return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

uint16_t bench_half(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  uint32_t sign = bits >> 16 & 0x8000u;
  uint32_t rest = bits & 0x7fffffffu;
  if (rest < 0x38800000u) return (uint16_t)sign; /* under the smallest normal: zero */
  return (uint16_t)(sign | ((rest - 0x38000000u) >> 13));
}

static uint64_t ceil_div(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

/* Random 32-bit words; `bytes` is a multiple of 4. */
static void fill_random(uint8_t *data, size_t bytes, uint32_t *state) {
  for (size_t at = 0; at < bytes; at += 4) {
    uint32_t word = bench_random(state);
    memcpy(data + at, &word, 4);
  }
}

static lqt_status no_memory(bench_weight *out, lqt_diag *diag) {
  bench_weight_destroy(out);
  return tool_diag(diag, LQT_OUT_OF_MEMORY, NULL, "no memory for a weight of the bench");
}

static lqt_status create_plain(bench_weight *out, uint32_t *state, lqt_diag *diag) {
  lqt_weight_desc *desc = &out->desc;
  size_t count = desc->rows * desc->cols;
  uint16_t *values = malloc(count * sizeof *values);
  if (values == NULL) return no_memory(out, diag);
  for (size_t i = 0; i < count; i++) values[i] = bench_half(bench_random_value(state) / 64.0f);
  out->indices = (uint8_t *)values;
  desc->dtype = LQT_DTYPE_F16;
  desc->data = values;
  desc->row_stride = desc->cols * sizeof *values;
  return LQT_OK;
}

lqt_status bench_weight_create(uint64_t rows, uint64_t cols, uint32_t bits, uint32_t vector_dim,
                               uint32_t group_size, bench_weight *out, lqt_diag *diag) {
  *out = (bench_weight){.desc = {.size = sizeof out->desc,
                                 .dtype = LQT_DTYPE_CODEBOOK,
                                 .rows = rows,
                                 .cols = cols,
                                 .scale = 1.0f,
                                 .bank_rows = rows,
                                 .bank_cols = cols}};
  lqt_weight_desc *desc = &out->desc;
  uint32_t state = 0x9e3779b9u;
  if (bits == 16) return create_plain(out, &state, diag);
  uint64_t stride = ceil_div(ceil_div(cols, vector_dim) * bits, 128) * 16;
  uint32_t entries = 1u << bits;
  uint64_t groups = group_size > 0 ? ceil_div(cols, group_size) : 0;
  out->indices = malloc(rows * stride);
  out->book = malloc((size_t)entries * vector_dim * sizeof *out->book);
  if (groups > 0) out->scales = malloc(rows * groups * sizeof *out->scales);
  if (out->indices == NULL || out->book == NULL || (groups > 0 && out->scales == NULL)) {
    return no_memory(out, diag);
  }
  fill_random(out->indices, rows * stride, &state);
  for (size_t i = 0; i < (size_t)entries * vector_dim; i++) {
    out->book[i] = bench_half(bench_random_value(&state));
  }
  /* Scales between 2^-6 and 2^-5. */
  for (size_t i = 0; i < rows * groups; i++) {
    out->scales[i] = (uint16_t)(0x2400u + (bench_random(&state) & 0x3ffu));
  }
  desc->indices = (lqt_index_view){.data = out->indices, .row_stride = stride, .bits = bits};
  desc->codebook = (lqt_codebook_view){.vectors = out->book,
                                       .dtype = LQT_DTYPE_F16,
                                       .entries = entries,
                                       .vector_dim = vector_dim,
                                       .banks = 1,
                                       .bank_stride = (uint64_t)entries * vector_dim};
  desc->group_size = group_size;
  desc->group_scales = out->scales;
  desc->group_row_stride = groups;
  return LQT_OK;
}

void bench_weight_destroy(bench_weight *weight) {
  free(weight->indices);
  free(weight->book);
  free(weight->scales);
  *weight = (bench_weight){0};
}

double bench_product_error(const lqt_weight_desc *desc, const float *x, const float *y,
                           uint64_t tokens, uint64_t sample) {
  float *row = malloc(desc->cols * sizeof *row);
  if (row == NULL) return -1.0;
  double wrong = 0.0, whole = 0.0;
  uint64_t step = desc->rows > sample ? desc->rows / sample : 1;
  for (uint64_t r = 0; r < desc->rows; r += step) {
    if (lqt_weight_desc_row(desc, r, 0, desc->cols, row) != LQT_OK) {
      free(row);
      return -1.0;
    }
    for (uint64_t t = 0; t < tokens; t++) {
      double sum = 0.0;
      const float *in = x + t * desc->cols;
      for (uint64_t c = 0; c < desc->cols; c++) sum += (double)row[c] * (double)in[c];
      double difference = (double)y[t * desc->rows + r] - sum;
      wrong += difference * difference;
      whole += sum * sum;
    }
  }
  free(row);
  return whole > 0.0 ? sqrt(wrong / whole) : 0.0;
}

/* ---- Reading: the best of three loops over huge pages, as the kernels have them ---- */

typedef struct reader {
  const uint64_t *data;
  size_t count;
  unsigned kind;
  uint64_t sum;
} reader;

/* Inlined with a constant kind: 0 leaves fetching to the hardware, which stops at the ends of
 * pages; 1 fetches 4 KiB ahead into the first-level cache, 2 fetches 8 KiB ahead into the second.
 */
static inline __attribute__((always_inline)) uint64_t sum_words(const uint64_t *data, size_t count,
                                                                int kind) {
  uint64_t sums[8] = {0};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    if (kind == 1) __builtin_prefetch((const char *)(data + i) + 4096, 0, 3);
    if (kind == 2) __builtin_prefetch((const char *)(data + i) + 8192, 0, 2);
    for (size_t j = 0; j < 8; j++) sums[j] += data[i + j];
  }
  uint64_t sum = 0;
  for (size_t j = 0; j < 8; j++) sum += sums[j];
  return sum;
}

static void *read_all(void *argument) {
  reader *self = argument;
  if (self->kind == 0) self->sum += sum_words(self->data, self->count, 0);
  if (self->kind == 1) self->sum += sum_words(self->data, self->count, 1);
  if (self->kind == 2) self->sum += sum_words(self->data, self->count, 2);
  return NULL;
}

static double read_once(reader *readers, unsigned threads) {
  pthread_t ids[256];
  unsigned started = 1;
  double start = tool_now();
  while (started < threads &&
         pthread_create(&ids[started], NULL, read_all, &readers[started]) == 0) {
    started++;
  }
  read_all(&readers[0]);
  for (unsigned i = 1; i < started; i++) pthread_join(ids[i], NULL);
  size_t bytes = 0;
  for (unsigned i = 0; i < started; i++) bytes += readers[i].count * sizeof(uint64_t);
  return (double)bytes / (tool_now() - start);
}

double bench_read_bandwidth(unsigned threads, size_t bytes) {
  if (threads == 0) threads = 1;
  if (threads > 256) threads = 256;
  size_t count = bytes / sizeof(uint64_t) / threads;
  enum { HUGE_PAGE = 2 << 20, KINDS = 3, PASSES = 5 };
  size_t size = (count * threads * sizeof(uint64_t) / HUGE_PAGE + 1) * HUGE_PAGE;
  uint64_t *data = aligned_alloc(HUGE_PAGE, size);
  if (data == NULL) return 0.0;
  madvise(data, size, MADV_HUGEPAGE); /* no harm where it is refused */
  for (size_t i = 0; i < count * threads; i++) data[i] = i;
  reader readers[256] = {0};
  for (unsigned i = 0; i < threads; i++) {
    readers[i] = (reader){.data = data + i * count, .count = count};
  }
  double best = 0.0;
  for (unsigned pass = 0; pass < PASSES * KINDS; pass++) {
    for (unsigned i = 0; i < threads; i++) readers[i].kind = pass % KINDS;
    double rate = read_once(readers, threads);
    if (rate > best) best = rate;
  }
  /* The sums are used, so that the reads are not optimised away. */
  volatile uint64_t used = 0;
  for (unsigned i = 0; i < threads; i++) used += readers[i].sum;
  free(data);
  return best;
}
