#include "fast_internal.h"

float lqt__cpu_fast_centre(const lqt__cpu_fast *fast) { return fast->centre; }

void lqt__cpu_fast_indices(const lqt__cpu_fast *fast, bool residual, uint64_t row, uint64_t first,
                           uint64_t count, uint8_t *out) {
  const lqt__fast_plane *plane = &fast->plane[residual ? 1 : 0];
  for (uint64_t i = 0; i < count; i++) {
    out[i] = (uint8_t)lqt__fast_get_index(plane, row, first + i);
  }
}
