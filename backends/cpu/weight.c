/* Uploaded weights: our copy of the canonical form (codebooks widened to float32), and beside it
 * the repacked form of the fast products, which then holds the only copy of the indices. */
#include "kernel/weight.h"

#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/half.h"
#include "cpu.h"

static uint64_t padded_entries(const lqt_codebook_view *book, uint32_t bits) {
  return bits <= 8 ? 1u << bits : book->entries;
}

static void *keep(lqt__cpu_weight *weight, void *block) {
  if (block != NULL) weight->blocks[weight->block_count++] = block;
  return block;
}

/* Frees a block of the copy before its time. */
static void drop(lqt__cpu_weight *weight, const void *block) {
  for (unsigned i = 0; i < weight->block_count; i++) {
    if (weight->blocks[i] != block || block == NULL) continue;
    lqt__free(weight->blocks[i]);
    weight->blocks[i] = weight->blocks[--weight->block_count];
    return;
  }
}

static void *copy_block(lqt__cpu_weight *weight, const void *data, uint64_t bytes) {
  /* Kernels may load a vector that begins inside and ends past the block. */
  uint8_t *block = keep(weight, lqt__alloc_aligned(bytes + 64, 64));
  if (block == NULL) return NULL;
  if (bytes != 0) memcpy(block, data, bytes);
  memset(block + bytes, 0, 64);
  return block;
}

static bool copy_book(lqt__cpu_weight *weight, const lqt_codebook_view *from, uint32_t bits,
                      lqt_codebook_view *book) {
  uint64_t used = (uint64_t)from->entries * from->vector_dim;
  uint64_t stride = padded_entries(from, bits) * from->vector_dim;
  if (stride < 16) stride = 16;
  uint64_t values;
  if (!lqt__mul(from->banks, stride, &values) || values > SIZE_MAX / 8) return false;
  float *table = keep(weight, lqt__alloc_aligned(values * sizeof(float) + 64, 64));
  if (table == NULL) return false;
  memset(table, 0, values * sizeof(float) + 64);
  for (uint64_t b = 0; b < from->banks; b++) {
    for (uint64_t i = 0; i < used; i++) {
      table[b * stride + i] = lqt__cpu_value(from->vectors, from->dtype, b * from->bank_stride + i);
    }
  }
  book->vectors = table;
  book->dtype = LQT_DTYPE_F32;
  book->bank_stride = stride;
  return true;
}

#define COPY(field, bytes)                               \
  do {                                                   \
    if ((field) == NULL) break;                          \
    void *copied = copy_block(weight, (field), (bytes)); \
    if (copied == NULL) return false;                    \
    (field) = copied;                                    \
  } while (0)

static bool copy_delta(lqt__cpu_weight *weight, const lqt_weight_desc *desc) {
  lqt_delta_view *delta = &weight->canon.delta;
  uint64_t size = lqt_dtype_size(delta->dtype);
  uint64_t a_count = lqt__weight_part_count(desc, LQT_PART_DELTA_VALUES);
  if (delta->kind == LQT_DELTA_LOW_RANK) {
    a_count = desc->rows * delta->rank;
    COPY(delta->values_b, delta->rank * desc->cols * size);
  }
  COPY(delta->values, a_count * size);
  if (delta->kind != LQT_DELTA_CSR) return true;
  COPY(delta->row_ptr, (desc->rows + 1) * sizeof(uint32_t));
  COPY(delta->columns, delta->count * sizeof(uint32_t));
  COPY(delta->columns16, delta->count * sizeof(uint16_t));
  return true;
}

static bool copy_canonical(lqt__cpu_weight *weight, const lqt_weight_desc *desc) {
  lqt_weight_desc *canon = &weight->canon;
  *canon = *desc;
  if (desc->dtype == LQT_DTYPE_CODEBOOK) {
    weight->book_stride = desc->codebook.bank_stride;
    weight->book_dtype = desc->codebook.dtype;
    if (!copy_book(weight, &desc->codebook, desc->indices.bits, &canon->codebook)) return false;
    COPY(canon->indices.data, desc->rows * desc->indices.row_stride);
    if (desc->residual.vectors != NULL) {
      weight->residual_dtype = desc->residual.dtype;
      if (!copy_book(weight, &desc->residual, desc->residual_indices.bits, &canon->residual)) {
        return false;
      }
      COPY(canon->residual_indices.data, desc->rows * desc->residual_indices.row_stride);
    }
    if (desc->group_size != 0) {
      uint64_t bytes = 2 * lqt__weight_part_count(desc, LQT_PART_GROUP_SCALES);
      COPY(canon->group_scales, bytes);
      COPY(canon->zero_points, bytes);
    }
  } else {
    uint64_t size = lqt_dtype_size(desc->dtype);
    COPY(canon->data, size * lqt__weight_part_count(desc, LQT_PART_PLAIN));
  }
  if (desc->delta.kind != LQT_DELTA_NONE && !copy_delta(weight, desc)) return false;
  COPY(canon->mask.bits, desc->rows * desc->mask.row_stride);
  return true;
}

void lqt__cpu_weight_destroy(lqt_weight *base) {
  lqt__cpu_weight *weight = (lqt__cpu_weight *)base;
  lqt__cpu_fast_destroy(weight->fast);
  for (unsigned i = 0; i < weight->block_count; i++) lqt__free(weight->blocks[i]);
  lqt__free(weight);
}

uint64_t lqt__cpu_new_version(void) {
  static _Atomic uint64_t last;
  return atomic_fetch_add(&last, 1) + 1;
}

/* The repacked form, where a kernel takes the kind. */
static lqt_status create_fast(lqt__cpu_device *device, const lqt_weight_desc *desc, lqt__pool *pool,
                              lqt__cpu_weight *weight, lqt_diag *diag) {
  lqt_weight_desc fused = *desc;
  /* A mask would cut the other parts too: then only the generic path has them all. */
  const bool separable = desc->mask.bits == NULL;
  const bool side_delta =
      separable && desc->delta.kind != LQT_DELTA_NONE && desc->delta.kind != LQT_DELTA_CSR;
  if (side_delta) fused.delta = (lqt_delta_view){.kind = LQT_DELTA_NONE};
  if (!separable && desc->zero_points != NULL) return LQT_OK;
  LQT__TRY(lqt__cpu_fast_create(&fused, device->isa, device->exact, pool, &weight->fast, diag));
  weight->side_delta = weight->fast != NULL && side_delta;
  weight->side_zero = weight->fast != NULL && desc->zero_points != NULL;
  return LQT_OK;
}

lqt_status lqt__cpu_weight_build(lqt__cpu_device *device, const lqt_weight_desc *desc,
                                 lqt__pool *pool, lqt__cpu_weight **out, lqt_diag *diag) {
  lqt__cpu_weight *weight = lqt__alloc_zero(sizeof *weight);
  if (weight == NULL) return lqt__fail_memory(diag, "cpu", sizeof *weight, "a weight");
  lqt_status status = LQT_OK;
  if (!copy_canonical(weight, desc)) {
    status = lqt__fail_memory(diag, "cpu", lqt__weight_bytes(desc), "a weight");
  } else if (desc->dtype == LQT_DTYPE_CODEBOOK && !device->oracle) {
    status = create_fast(device, desc, pool, weight, diag);
  }
  if (status != LQT_OK) {
    lqt__cpu_weight_destroy(&weight->base);
    return status;
  }
  if (weight->fast != NULL) { /* the repacked form holds the indices, most of the weight */
    drop(weight, weight->canon.indices.data);
    drop(weight, weight->canon.residual_indices.data);
    weight->canon.indices.data = weight->canon.residual_indices.data = NULL;
  }
  weight->version = lqt__cpu_new_version();
  *out = weight;
  return LQT_OK;
}

lqt_status lqt__cpu_weight_create(lqt_device *base, const lqt_weight_desc *desc, lqt_weight **out,
                                  lqt_diag *diag) {
  lqt__cpu_device *device = lqt__cpu_device_of(base);
  lqt__cpu_weight *weight = NULL;
  pthread_mutex_lock(&device->mutex); /* of the pool */
  lqt_status status = lqt__cpu_weight_build(device, desc, device->pool, &weight, diag);
  pthread_mutex_unlock(&device->mutex);
  if (status == LQT_OK) *out = &weight->base;
  return status;
}

/* ---- One row in float32 by the vector kernels. ---- */

typedef struct span {
  const lqt__cpu_weight *weight;
  const lqt_weight_desc *canon;
  const lqt__cpu_kernels *kernels;
  uint64_t row, col, n;
  float *out;
} span;

enum { CHUNK = 256 }; /* columns at a time: a multiple of every group size and of 16 */

/* The same from the repacked form; n <= CHUNK. */
static void lookup_packed(const span *s, const lqt_codebook_view *book, const float *table,
                          uint64_t col, uint64_t n, float *out) {
  uint8_t codes[CHUNK + 1];
  uint32_t dim = book->vector_dim;
  uint64_t first = col / dim, count = lqt__ceil_div(col + n, dim) - first;
  lqt__cpu_fast_indices(s->weight->fast, book == &s->canon->residual, s->row, first, count, codes);
  for (uint64_t i = 0; i < n; i++) {
    out[i] = table[(uint64_t)codes[(col + i) / dim - first] * dim + (col + i) % dim];
  }
}

/* Values of one codebook over columns [col, col + n) that share a bank. */
static void lookup_segment(const span *s, const lqt_index_view *indices,
                           const lqt_codebook_view *book, const float *table, uint64_t col,
                           uint64_t n, float *out) {
  if (indices->data == NULL) {
    lookup_packed(s, book, table, col, n, out);
    return;
  }
  const uint8_t *row = indices->data + s->row * indices->row_stride;
  if (book->vector_dim == 1 && indices->bits != 16) {
    s->kernels->lookup(row, indices->bits, table, col, n, out);
    return;
  }
  uint32_t dim = book->vector_dim;
  for (uint64_t done = 0; done < n;) {
    uint64_t index = lqt__index_get(row, indices->bits, (col + done) / dim);
    uint64_t skip = (col + done) % dim, take = dim - skip;
    if (take > n - done) take = n - done;
    for (uint64_t i = 0; i < take; i++) out[done + i] = table[index * dim + skip + i];
    done += take;
  }
}

static void codebook_chunk(const span *s, uint64_t col, uint64_t n, float *out) {
  const lqt_weight_desc *canon = s->canon;
  uint64_t bank_row = s->row / canon->bank_rows * lqt__ceil_div(canon->cols, canon->bank_cols);
  for (uint64_t at = col; at < col + n;) {
    uint64_t bank_col = at / canon->bank_cols;
    uint64_t end = (bank_col + 1) * canon->bank_cols;
    if (end > col + n) end = col + n;
    const float *table = (const float *)canon->codebook.vectors +
                         (bank_row + bank_col) * canon->codebook.bank_stride;
    lookup_segment(s, &canon->indices, &canon->codebook, table, at, end - at, out + (at - col));
    at = end;
  }
  if (canon->residual.vectors != NULL) {
    float second[CHUNK];
    lookup_segment(s, &canon->residual_indices, &canon->residual, canon->residual.vectors, col, n,
                   second);
    for (uint64_t i = 0; i < n; i++) out[i] += canon->residual_scale * second[i];
  }
  if (canon->group_size == 0) {
    s->kernels->scale(out, canon->scale, n);
    return;
  }
  for (uint64_t at = 0; at < n; at += canon->group_size) {
    uint64_t group = s->row * canon->group_row_stride + (col + at) / canon->group_size;
    uint64_t take = canon->group_size < n - at ? canon->group_size : n - at;
    float scale = canon->scale;
    if (canon->zero_points != NULL) {
      float zero = lqt__f32_from_f16(canon->zero_points[group]);
      for (uint64_t i = 0; i < take; i++) out[at + i] -= zero;
    }
    if (canon->group_scales != NULL) scale *= lqt__f32_from_f16(canon->group_scales[group]);
    s->kernels->scale(out + at, scale, take);
  }
}

static void add_low_rank(const span *s) {
  const lqt_delta_view *delta = &s->canon->delta;
  uint64_t size = lqt_dtype_size(delta->dtype);
  float row[CHUNK];
  for (uint64_t r = 0; r < delta->rank; r++) {
    float a = lqt__cpu_value(delta->values, delta->dtype, s->row * delta->rank + r);
    const uint8_t *b = (const uint8_t *)delta->values_b + (r * s->canon->cols + s->col) * size;
    for (uint64_t at = 0; at < s->n; at += CHUNK) {
      uint64_t take = s->n - at < CHUNK ? s->n - at : CHUNK;
      s->kernels->widen(b + at * size, delta->dtype, take, row);
      for (uint64_t i = 0; i < take; i++) s->out[at + i] += a * row[i];
    }
  }
}

/* First stored value of the row whose column is not below `col`. */
static uint64_t csr_find(const lqt_delta_view *delta, uint64_t row, uint64_t col) {
  uint64_t low = delta->row_ptr[row], high = delta->row_ptr[row + 1];
  while (low < high) {
    uint64_t middle = low + (high - low) / 2;
    uint32_t column = delta->columns != NULL ? delta->columns[middle] : delta->columns16[middle];
    if (column < col)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static void add_delta(const span *s) {
  const lqt_delta_view *delta = &s->canon->delta;
  uint64_t size = lqt_dtype_size(delta->dtype);
  float values[CHUNK];
  switch (delta->kind) {
    case LQT_DELTA_DENSE:
      for (uint64_t at = 0; at < s->n; at += CHUNK) {
        uint64_t take = s->n - at < CHUNK ? s->n - at : CHUNK;
        uint64_t first = s->row * s->canon->cols + s->col + at;
        s->kernels->widen((const uint8_t *)delta->values + first * size, delta->dtype, take,
                          values);
        s->kernels->add(s->out + at, values, take, s->out + at);
      }
      break;
    case LQT_DELTA_CSR:
      for (uint64_t at = csr_find(delta, s->row, s->col); at < delta->row_ptr[s->row + 1]; at++) {
        uint64_t column = delta->columns != NULL ? delta->columns[at] : delta->columns16[at];
        if (column - s->col >= s->n) break;
        s->out[column - s->col] += lqt__cpu_value(delta->values, delta->dtype, at);
      }
      break;
    case LQT_DELTA_LOW_RANK:
      add_low_rank(s);
      break;
    case LQT_DELTA_GROUPED: {
      uint64_t groups = lqt__ceil_div(s->canon->cols, delta->group);
      for (uint64_t i = 0; i < s->n; i++) {
        uint64_t group = s->row * groups + (s->col + i) / delta->group;
        s->out[i] += lqt__cpu_value(delta->values, delta->dtype, group);
      }
      break;
    }
    default:
      break;
  }
}

void lqt__cpu_weight_row(const lqt__cpu_weight *weight, const lqt__cpu_kernels *kernels,
                         uint64_t row, uint64_t col, uint64_t n, float *out) {
  const lqt_weight_desc *canon = &weight->canon;
  span s = {weight, canon, kernels, row, col, n, out};
  if (canon->dtype == LQT_DTYPE_CODEBOOK) {
    for (uint64_t at = 0; at < n; at += CHUNK) {
      codebook_chunk(&s, col + at, n - at < CHUNK ? n - at : CHUNK, out + at);
    }
  } else {
    const uint8_t *data = (const uint8_t *)canon->data + row * canon->row_stride;
    kernels->widen(data + col * lqt_dtype_size(canon->dtype), canon->dtype, n, out);
    if (canon->scale != 1.0f) kernels->scale(out, canon->scale, n);
  }
  if (canon->delta.kind != LQT_DELTA_NONE) add_delta(&s);
  if (canon->mask.bits == NULL) return;
  const uint8_t *bits = canon->mask.bits + row * canon->mask.row_stride;
  for (uint64_t i = 0; i < n; i++) {
    uint64_t c = col + i;
    if ((bits[c / 8] >> (c % 8) & 1u) == 0) out[i] = 0.0f;
  }
}
