/* The flip of a staged patch: staged and live bytes change places. Every kernel here leaves in the
 * staged memory what it found in the live one, so that a second run takes the first back. */
#include "pack.cuh"

/* `lanes` threads exchange a range; both addresses have the same offset in 16 bytes. */
__device__ __forceinline__ void swap_range(const lqt__cu_swap_range &r, uint32_t lane,
                                           uint32_t lanes) {
  uint8_t *live = reinterpret_cast<uint8_t *>(r.live);
  uint8_t *staged = reinterpret_cast<uint8_t *>(r.staged);
  const uint64_t to_line = (16 - (r.live & 15)) & 15;
  const uint64_t head = to_line < r.bytes ? to_line : r.bytes;
  const uint64_t lines = (r.bytes - head) / 16;
  for (uint64_t i = lane; i < head; i += lanes) {
    uint8_t kept = live[i];
    live[i] = staged[i];
    staged[i] = kept;
  }
  uint4 *a = reinterpret_cast<uint4 *>(live + head), *b = reinterpret_cast<uint4 *>(staged + head);
  uint64_t i = lane;
  for (; i + 3 * (uint64_t)lanes < lines; i += 4 * (uint64_t)lanes) {
    uint4 x[4], y[4];
#pragma unroll
    for (int k = 0; k < 4; k++) x[k] = a[i + k * lanes], y[k] = b[i + k * lanes];
#pragma unroll
    for (int k = 0; k < 4; k++) a[i + k * lanes] = y[k], b[i + k * lanes] = x[k];
  }
  for (; i < lines; i += lanes) {
    uint4 x = a[i], y = b[i];
    a[i] = y;
    b[i] = x;
  }
  for (uint64_t t = head + 16 * lines + lane; t < r.bytes; t += lanes) {
    uint8_t kept = live[t];
    live[t] = staged[t];
    staged[t] = kept;
  }
}

/* A block takes a range of LQT__CU_SWAP_BLOCK bytes at most, or a warp one of LQT__CU_SWAP_WARP. */
extern "C" __global__ void __launch_bounds__(256)
    lqt_swap_blocks(const __grid_constant__ lqt__cu_swap p) {
  const lqt__cu_swap_range *ranges = reinterpret_cast<const lqt__cu_swap_range *>(p.jobs);
  for (uint32_t i = blockIdx.x; i < p.count; i += gridDim.x)
    swap_range(ranges[i], threadIdx.x, blockDim.x);
}

extern "C" __global__ void __launch_bounds__(256)
    lqt_swap_warps(const __grid_constant__ lqt__cu_swap p) {
  const lqt__cu_swap_range *ranges = reinterpret_cast<const lqt__cu_swap_range *>(p.jobs);
  for (uint64_t i = (blockIdx.x * (uint64_t)blockDim.x + threadIdx.x) >> 5; i < p.count;
       i += (uint64_t)gridDim.x * blockDim.x >> 5)
    swap_range(ranges[i], threadIdx.x & 31, 32);
}

/* Canonical bytes of indices against the bits that the packed form has of them. Other threads
 * change other bits of the same word, so what changes goes in by exclusive or. Bits beyond the
 * matrix have no place in the packed form and stay. */
__device__ void swap_indices(const lqt__cu_swap_job &job) {
  const lqt__cu_pack &p = job.pack;
  uint32_t *live = reinterpret_cast<uint32_t *>(p.to);
  uint8_t *staged = reinterpret_cast<uint8_t *>(p.from);
  for (uint64_t i = threadIdx.x; i < p.count; i += blockDim.x) {
    uint64_t at = p.first + i;
    uint32_t row = at / p.row_stride;
    uint64_t bit0 = (at % p.row_stride) * 8;
    uint32_t byte = staged[i];
    for (uint32_t b = 0; b < 8; b++) {
      uint64_t index = (bit0 + b) / p.bits, col = index * p.vector_dim;
      if (row >= p.rows || col >= p.cols) break;
      uint32_t bit;
      uint64_t word =
          packed_bit(p.weight_bits, p.vector_dim, p.blocks, row, col, (bit0 + b) % p.bits, &bit);
      uint32_t was = (live[word] >> bit) & 1, is = (byte >> b) & 1;
      if (was == is) continue;
      atomicXor(live + word, 1u << bit);
      byte ^= 1u << b;
    }
    staged[i] = (uint8_t)byte;
  }
}

__device__ void swap_scales(const lqt__cu_swap_job &job) {
  const lqt__cu_pack &p = job.pack;
  uint16_t *live = reinterpret_cast<uint16_t *>(p.to);
  uint16_t *staged = reinterpret_cast<uint16_t *>(p.from);
  for (uint64_t i = threadIdx.x; i < p.count; i += blockDim.x) {
    uint64_t at = p.first + i;
    uint32_t row = at / p.row_stride, group = at % p.row_stride;
    if (row >= p.rows || group >= p.groups) continue;
    uint64_t spot = scale_spot(p.group_size, p.group_shift, p.blocks, row, group);
    uint16_t kept = live[spot];
    live[spot] = staged[i];
    staged[i] = kept;
  }
}

extern "C" __global__ void __launch_bounds__(256)
    lqt_swap_packed(const __grid_constant__ lqt__cu_swap p) {
  const lqt__cu_swap_job *jobs = reinterpret_cast<const lqt__cu_swap_job *>(p.jobs);
  for (uint32_t i = blockIdx.x; i < p.count; i += gridDim.x) {
    if (jobs[i].kind == LQT__CU_SWAP_INDICES)
      swap_indices(jobs[i]);
    else
      swap_scales(jobs[i]);
  }
}

/* The expanded tables of codebooks that changed, one a block of 256 threads. */
extern "C" __global__ void __launch_bounds__(256)
    lqt_swap_tables(const __grid_constant__ lqt__cu_swap p) {
  const lqt__cu_swap_job *jobs = reinterpret_cast<const lqt__cu_swap_job *>(p.jobs);
  for (uint32_t i = blockIdx.x; i < p.count; i += gridDim.x) {
    const lqt__cu_pack &job = jobs[i].pack;
    uint64_t entry = table_entry(reinterpret_cast<const uint16_t *>(job.from), job.entries,
                                 job.vector_dim, job.bits, job.weight_bits, threadIdx.x);
    if (job.weight_bits == 2)
      reinterpret_cast<uint64_t *>(job.to)[threadIdx.x] = entry;
    else
      reinterpret_cast<uint32_t *>(job.to)[threadIdx.x] = (uint32_t)entry;
  }
}
