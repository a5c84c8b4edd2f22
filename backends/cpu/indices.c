/* Ids, positions and pages come from device memory, where the contract check cannot look. Reading
 * past a table must not be possible, so they are checked here before each op. */
#include "base/diag.h"
#include "cpu.h"

static lqt_status check_ids(const lqt_op *op, const lqt_view *ids, uint64_t bound, lqt_diag *diag) {
  const int32_t *values = lqt__cpu_data(ids);
  for (uint64_t i = 0; i < ids->cols; i++) {
    if (values[i] >= 0 && (uint64_t)values[i] < bound) continue;
    return lqt__fail(diag, LQT_OUT_OF_RANGE, lqt_op_name(op->kind),
                     "number %llu is %d; it has to be from 0 to below %llu", (unsigned long long)i,
                     values[i], (unsigned long long)bound);
  }
  return LQT_OK;
}

/* Pages of positions [first, last] of a sequence exist. */
static lqt_status check_pages(const lqt_op *op, const lqt_view *table, uint64_t pages,
                              int32_t sequence, int32_t first, int32_t last, lqt_diag *diag) {
  const char *name = lqt_op_name(op->kind);
  if (sequence < 0 || (uint64_t)sequence >= table->rows || first < 0) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, name,
                     "position %d of sequence %d is not in the page table of %llu sequences", first,
                     sequence, (unsigned long long)table->rows);
  }
  const int32_t *row =
      (const int32_t *)lqt__cpu_data(table) + (uint64_t)sequence * table->row_stride;
  for (uint32_t p = (uint32_t)first / op->page_tokens; p <= (uint32_t)last / op->page_tokens; p++) {
    if (p < table->cols && row[p] >= 0 && (uint64_t)row[p] < pages) continue;
    return lqt__fail(diag, LQT_OUT_OF_RANGE, name,
                     "position %d of sequence %d has no page; there are %llu pages", last, sequence,
                     (unsigned long long)pages);
  }
  return LQT_OK;
}

static lqt_status check_attention(const lqt_op *op, lqt_diag *diag) {
  const int32_t *positions = lqt__cpu_data(&op->in[1]), *sequences = lqt__cpu_data(&op->in[2]);
  uint64_t tokens = op->in[0].rows, pages = op->in[3].rows / op->page_tokens;
  for (uint64_t t = 0, end; t < tokens; t = end) {
    int32_t low = INT32_MAX, high = -1;
    for (end = t; end < tokens && sequences[end] == sequences[t]; end++) {
      int32_t position = positions[end];
      if (position < 0) low = high = -1;
      if (position < 0) break;
      int32_t first = op->window != 0 && (uint32_t)position >= op->window
                          ? position - (int32_t)op->window + 1
                          : 0;
      if (first < low) low = first;
      if (position > high) high = position;
    }
    LQT__TRY(check_pages(op, &op->in[5], pages, sequences[t], low, high, diag));
  }
  return LQT_OK;
}

lqt_status lqt__cpu_check_indices(const lqt_op *op, lqt_diag *diag) {
  switch (op->kind) {
    case LQT_OP_EMBED:
      return check_ids(op, &op->in[0], op->weight[0]->shape.rows, diag);
    case LQT_OP_GATHER:
      return check_ids(op, &op->in[1], op->in[0].rows, diag);
    case LQT_OP_KV_WRITE:
      for (uint64_t t = 0; t < op->in[0].rows; t++) {
        int32_t position = ((const int32_t *)lqt__cpu_data(&op->in[2]))[t];
        int32_t sequence = ((const int32_t *)lqt__cpu_data(&op->in[3]))[t];
        LQT__TRY(check_pages(op, &op->in[4], op->out[0].rows / op->page_tokens, sequence, position,
                             position, diag));
      }
      return LQT_OK;
    case LQT_OP_ATTENTION:
      return check_attention(op, diag);
    default:
      return LQT_OK;
  }
}
