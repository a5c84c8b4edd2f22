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

__device__ __forceinline__ void swap_job(const lqt__cu_swap_job &job) {
  if (job.kind == LQT__CU_SWAP_INDICES)
    swap_indices(job);
  else
    swap_scales(job);
}

extern "C" __global__ void __launch_bounds__(256)
    lqt_swap_packed(const __grid_constant__ lqt__cu_swap p) {
  const lqt__cu_swap_job *jobs = reinterpret_cast<const lqt__cu_swap_job *>(p.jobs);
  for (uint32_t i = blockIdx.x; i < p.count; i += gridDim.x) swap_job(jobs[i]);
}

/* The expanded table of a codebook, by 256 threads. */
__device__ void make_table(const lqt__cu_pack &job) {
  uint64_t entry = table_entry(reinterpret_cast<const uint16_t *>(job.from), job.entries,
                               job.vector_dim, job.bits, job.weight_bits, threadIdx.x);
  if (job.weight_bits == 2)
    reinterpret_cast<uint64_t *>(job.to)[threadIdx.x] = entry;
  else
    reinterpret_cast<uint32_t *>(job.to)[threadIdx.x] = (uint32_t)entry;
}

extern "C" __global__ void __launch_bounds__(256)
    lqt_swap_tables(const __grid_constant__ lqt__cu_swap p) {
  const lqt__cu_swap_job *jobs = reinterpret_cast<const lqt__cu_swap_job *>(p.jobs);
  for (uint32_t i = blockIdx.x; i < p.count; i += gridDim.x) make_table(jobs[i].pack);
}

/* A small patch in one launch: one block of 256 threads does what the others do one after the
 * other. */
extern "C" __global__ void __launch_bounds__(256)
    lqt_swap_small(const __grid_constant__ lqt__cu_swap_all p) {
  const lqt__cu_swap_range *ranges = reinterpret_cast<const lqt__cu_swap_range *>(p.warps.jobs);
  const lqt__cu_swap_job *jobs = reinterpret_cast<const lqt__cu_swap_job *>(p.packed.jobs);
  const lqt__cu_swap_job *tables = reinterpret_cast<const lqt__cu_swap_job *>(p.tables.jobs);
  for (uint64_t i = threadIdx.x >> 5; i < p.warps.count; i += 8)
    swap_range(ranges[i], threadIdx.x & 31, 32);
  for (uint64_t i = 0; i < p.packed.count; i++) swap_job(jobs[i]);
  __syncthreads();
  for (uint64_t i = 0; i < p.tables.count; i++) make_table(tables[i].pack);
}

/* ---- Repacking whole tiles of rows while steps go on: cheap, so that they hardly notice ---- */

/* Four bits a weight: a byte of the packed form is a byte of the canonical one. A warp takes a unit
 * of 16 rows and 64 columns; a lane finds byte `q` of every word of two rows. */
extern "C" __global__ void __launch_bounds__(256)
    lqt_stage_indices4(const __grid_constant__ lqt__cu_pack p) {
  const canonical_indices c = {reinterpret_cast<const uint8_t *>(p.from),
                               p.row_stride,
                               p.bits,
                               p.vector_dim,
                               p.rows,
                               p.cols};
  uint4 *out = reinterpret_cast<uint4 *>(p.to);
  const uint32_t lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
  const uint32_t slices = p.blocks * 8, pick = q | (4 + q) << 4;
  for (uint32_t tile = blockIdx.y; tile < p.tiles; tile += gridDim.y) {
    for (uint32_t slice = blockIdx.x * 8 + (threadIdx.x >> 5); slice < slices;
         slice += gridDim.x * 8) {
      const uint32_t low = tile * 16 + g, high = low + 8;
      uint32_t w[4];
      if (slice * 64 + 64 <= p.cols) {
        uint4 a[2] = {}, b[2] = {};
        const uint8_t *at = c.data + slice * 32;
        if (low < p.rows) {
          a[0] = *reinterpret_cast<const uint4 *>(at + low * p.row_stride);
          a[1] = *reinterpret_cast<const uint4 *>(at + low * p.row_stride + 16);
        }
        if (high < p.rows) {
          b[0] = *reinterpret_cast<const uint4 *>(at + high * p.row_stride);
          b[1] = *reinterpret_cast<const uint4 *>(at + high * p.row_stride + 16);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
          w[2 * half] = __byte_perm(__byte_perm(a[half].x, b[half].x, pick),
                                    __byte_perm(a[half].y, b[half].y, pick), 0x5410);
          w[2 * half + 1] = __byte_perm(__byte_perm(a[half].z, b[half].z, pick),
                                        __byte_perm(a[half].w, b[half].w, pick), 0x5410);
        }
      } else { /* the end of the rows */
        for (uint32_t i = 0; i < 4; i++) w[i] = packed_word(c, 4, tile, slice, lane, i);
      }
      out[((uint64_t)tile * p.blocks * 8 + slice) * 32 + lane] = make_uint4(w[0], w[1], w[2], w[3]);
    }
  }
}

/* Group scales: consecutive groups of a pair of rows lie side by side. `units`: groups of a
 * block. */
extern "C" __global__ void __launch_bounds__(256)
    lqt_stage_scales(const __grid_constant__ lqt__cu_pack p) {
  const uint16_t *from = reinterpret_cast<const uint16_t *>(p.from);
  uint32_t *to = reinterpret_cast<uint32_t *>(p.to);
  const uint32_t padded = p.blocks * p.units;
  for (uint32_t pair = blockIdx.x; pair < p.tiles * 8; pair += gridDim.x) {
    const uint32_t tile = pair >> 3, g = pair & 7, low = tile * 16 + g, high = low + 8;
    for (uint32_t group = threadIdx.x; group < padded; group += blockDim.x) {
      uint32_t v = 0;
      if (group < p.groups && low < p.rows) v = from[low * p.row_stride + group];
      if (group < p.groups && high < p.rows) v |= (uint32_t)from[high * p.row_stride + group] << 16;
      const uint64_t block = (uint64_t)tile * p.blocks + group / p.units;
      to[(block * 8 + g) * p.units + group % p.units] = v;
    }
  }
}
