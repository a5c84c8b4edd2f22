/* The k largest of each row: the definition, and what every instruction set runs. A heap of the k
 * best so far whose worst is on top, sorted at the end. */
#include <math.h>

#include "cpu.h"

typedef struct entry {
  float value;
  int32_t column;
} entry;

/* Does a come before b? Not-a-number counts as the largest; the lower column wins among equals. */
static bool before(entry a, entry b) {
  const bool a_nan = isnan(a.value), b_nan = isnan(b.value);
  if (a_nan != b_nan) return a_nan;
  if (!a_nan && a.value != b.value) return a.value > b.value;
  return a.column < b.column;
}

/* Restores the heap below `at`: no entry comes after its parent. */
static void sift_down(entry *heap, size_t count, size_t at) {
  entry moving = heap[at];
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= count) break;
    if (child + 1 < count && before(heap[child], heap[child + 1])) child++;
    if (!before(moving, heap[child])) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = moving;
}

static void row_topk(const float *row, size_t cols, size_t k, float *values, int32_t *columns) {
  entry heap[LQT_TOPK_MOST];
  for (size_t c = 0; c < k; c++) heap[c] = (entry){row[c], (int32_t)c};
  for (size_t i = k / 2; i-- > 0;) sift_down(heap, k, i);
  for (size_t c = k; c < cols; c++) {
    entry next = {row[c], (int32_t)c};
    if (!before(next, heap[0])) continue;
    heap[0] = next;
    sift_down(heap, k, 0);
  }
  for (size_t left = k; left-- > 0;) { /* the worst goes to the end */
    values[left] = heap[0].value;
    columns[left] = heap[0].column;
    heap[0] = heap[left];
    sift_down(heap, left, 0);
  }
}

void lqt__cpu_topk(const lqt_op *op) {
  const lqt_view *in = &op->in[0], *values = &op->out[0], *columns = &op->out[1];
  for (uint64_t t = 0; t < in->rows; t++) {
    row_topk((const float *)lqt__cpu_data(in) + t * in->row_stride, in->cols, values->cols,
             (float *)lqt__cpu_data(values) + t * values->row_stride,
             (int32_t *)lqt__cpu_data(columns) + t * columns->row_stride);
  }
}
