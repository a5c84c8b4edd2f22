/* One element of any weight, by the definition in lqt/weight.h: the slow and general way. */
#ifndef LQT_BACKENDS_CUDA_KERNELS_VALUE_CUH_
#define LQT_BACKENDS_CUDA_KERNELS_VALUE_CUH_

#include "pack.cuh"

__device__ __forceinline__ float value_of(uint64_t base, uint64_t i, bool f32) {
  return f32 ? reinterpret_cast<const float *>(base)[i]
             : __half2float(reinterpret_cast<const __half *>(base)[i]);
}

__device__ __forceinline__ uint32_t stream_index(const lqt__cu_stream &s, uint32_t blocks,
                                                 uint32_t row, uint32_t col) {
  if (s.packed)
    return packed_index(reinterpret_cast<const uint32_t *>(s.data), s.bits, s.weight_bits,
                        s.vector_dim, blocks, row, col);
  const uint8_t *at = reinterpret_cast<const uint8_t *>(s.data) + row * s.row_stride;
  const uint32_t i = col / s.vector_dim;
  if (s.bits == 16) return at[2 * (uint64_t)i] | (uint32_t)at[2 * (uint64_t)i + 1] << 8;
  return bits_at(at, i, s.bits);
}

__device__ __forceinline__ float delta_value(const lqt__cu_weight_view &w, uint32_t row,
                                             uint32_t col) {
  switch (w.delta_kind) {
    case 1:
      return value_of(w.delta_values, (uint64_t)row * w.cols + col, w.delta_f32);
    case 2: {
      const uint32_t *ptr = reinterpret_cast<const uint32_t *>(w.delta_row_ptr);
      uint32_t lo = ptr[row], end = ptr[row + 1], hi = end;
      auto column = [&](uint32_t i) -> uint32_t {
        return w.delta_columns16 ? reinterpret_cast<const uint16_t *>(w.delta_columns)[i]
                                 : reinterpret_cast<const uint32_t *>(w.delta_columns)[i];
      };
      while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (column(mid) < col)
          lo = mid + 1;
        else
          hi = mid;
      }
      return lo < end && column(lo) == col ? value_of(w.delta_values, lo, w.delta_f32) : 0.0f;
    }
    case 3: {
      float sum = 0;
      for (uint32_t r = 0; r < w.delta_rank; r++)
        sum += value_of(w.delta_values, (uint64_t)row * w.delta_rank + r, w.delta_f32) *
               value_of(w.delta_values_b, (uint64_t)r * w.cols + col, w.delta_f32);
      return sum;
    }
    case 4: {
      uint32_t across = (w.cols + w.delta_group - 1) / w.delta_group;
      return value_of(w.delta_values, (uint64_t)row * across + col / w.delta_group, w.delta_f32);
    }
    default:
      return 0.0f;
  }
}

__device__ __forceinline__ float weight_value(const lqt__cu_weight_view &w, uint32_t row,
                                              uint32_t col) {
  if (w.mask) {
    const uint8_t *bits = reinterpret_cast<const uint8_t *>(w.mask) + row * w.mask_stride;
    if (!((bits[col >> 3] >> (col & 7)) & 1)) return 0.0f;
  }
  float v;
  if (w.kind <= LQT__CU_PLAIN_BF16) {
    const uint8_t *at = reinterpret_cast<const uint8_t *>(w.main.data) + row * w.main.row_stride;
    if (w.kind == LQT__CU_PLAIN_F32)
      v = reinterpret_cast<const float *>(at)[col];
    else if (w.kind == LQT__CU_PLAIN_F16)
      v = __half2float(reinterpret_cast<const __half *>(at)[col]);
    else
      v = __uint_as_float((uint32_t) reinterpret_cast<const uint16_t *>(at)[col] << 16);
    v *= w.scale;
  } else {
    const uint64_t bank = (uint64_t)(row / w.bank_rows) * w.banks_across + (col / w.bank_cols);
    const uint64_t entry = bank * w.bank_stride +
                           (uint64_t)stream_index(w.main, w.blocks, row, col) * w.main.vector_dim +
                           col % w.main.vector_dim;
    v = value_of(w.main.book, entry, w.main.book_f32);
    if (w.has_residual) {
      const uint64_t at =
          (uint64_t)stream_index(w.residual, w.blocks, row, col) * w.residual.vector_dim +
          col % w.residual.vector_dim;
      v += w.residual_scale * value_of(w.residual.book, at, w.residual.book_f32);
    }
    const uint32_t group = w.group_size ? col / w.group_size : 0;
    if (w.zero_points) v -= value_of(w.zero_points, row * w.group_row_stride + group, false);
    float s = w.scale;
    if (w.scales)
      s *= value_of(w.scales,
                    w.main.packed ? scale_spot(w.group_size, w.group_shift, w.blocks, row, group)
                                  : row * w.group_row_stride + group,
                    false);
    v *= s;
  }
  return w.delta_kind ? v + delta_value(w, row, col) : v;
}

#endif /* LQT_BACKENDS_CUDA_KERNELS_VALUE_CUH_ */
