/* Which ops of a program have to wait for earlier ones: those whose operands meet what was written,
 * or write what was read, since the last barrier. */
#include <string.h>

#include "backends/vulkan/vulkan.h"

static lqt__vk_span span_of(const lqt_view *view) {
  if (view->buffer == NULL || view->rows == 0 || view->cols == 0) return (lqt__vk_span){0};
  uint64_t base = ((const lqt__vk_buffer *)view->buffer)->range.address + view->offset;
  uint64_t elements = (view->rows - 1) * view->row_stride + view->cols;
  return (lqt__vk_span){base, base + elements * lqt_dtype_size(view->dtype)};
}

static bool meets(const lqt__vk_span *spans, size_t count, const lqt__vk_span *span) {
  for (size_t i = 0; i < count; i++) {
    if (spans[i].begin < span->end && span->begin < spans[i].end) return true;
  }
  return false;
}

bool lqt__vk_hazards_meet(lqt__vk_hazards *hazards, const lqt_op *op) {
  lqt__vk_span reads[LQT_OP_MAX_IN], writes[LQT_OP_MAX_OUT];
  bool wait = hazards->read_count + LQT_OP_MAX_IN > LQT__VK_MAX_SPANS ||
              hazards->write_count + LQT_OP_MAX_OUT > LQT__VK_MAX_SPANS;
  for (int i = 0; i < LQT_OP_MAX_IN; i++) {
    reads[i] = span_of(&op->in[i]);
    wait = wait || meets(hazards->writes, hazards->write_count, &reads[i]);
  }
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) { /* what is written may be read first */
    writes[i] = span_of(&op->out[i]);
    wait = wait || meets(hazards->writes, hazards->write_count, &writes[i]) ||
           meets(hazards->reads, hazards->read_count, &writes[i]);
  }
  if (wait) hazards->read_count = hazards->write_count = 0;
  for (int i = 0; i < LQT_OP_MAX_IN; i++) {
    if (reads[i].end != 0) hazards->reads[hazards->read_count++] = reads[i];
  }
  for (int i = 0; i < LQT_OP_MAX_OUT; i++) {
    if (writes[i].end != 0) hazards->writes[hazards->write_count++] = writes[i];
  }
  return wait;
}
