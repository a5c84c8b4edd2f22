/* Fused reconstruct-and-multiply for 1 to 8 tokens, bound by the reading of the indices.
 *
 * A byte of packed indices selects one entry of a 256-entry table of fp16 pairs (or quadruples),
 * replicated for the 32 lanes in shared memory so that no two lanes meet in a bank. A table row is
 * 256 bytes, so that one byte permute forms the address (entry * 256 + lane). The looked-up pairs
 * are the A operand of mma.m16n8k16 as they come.
 *
 * One token: the eight columns of B hold the activations of eight consecutive units (512 columns of
 * the weight) and stay in registers while the warp goes down the rows; of each product only the
 * column that belongs to the unit is kept. Up to eight tokens: the columns of B are the tokens, in
 * fragment order in shared memory, shared by two row tiles.
 *
 * The sums of the warps meet in shared memory in a fixed order: results do not change from run to
 * run.
 *
 * Long: the two kernels share every piece of the decoding, and each is one pipeline that loses its
 * registers when it is cut into functions. */
#ifndef LQT_BACKENDS_CUDA_KERNELS_SMALL_CUH_
#define LQT_BACKENDS_CUDA_KERNELS_SMALL_CUH_

#include "common.cuh"

#define SMALL_TABLE_BYTES 65536

/* entry * 256 + lane offset, the entry being byte I of `word`. */
template <int I>
__device__ __forceinline__ uint32_t row_of(uint32_t word, uint32_t lane_offset) {
  return __byte_perm(word, lane_offset, 0x5504 | (I << 4));
}
__device__ __forceinline__ uint32_t pair_at(const uint8_t *table, uint32_t at) {
  return *reinterpret_cast<const uint32_t *>(table + at);
}

/* The A operand of k-step J (16 columns) of a unit with words w. */
template <int BITS, int J>
__device__ __forceinline__ void decode_step(uint32_t (&a)[4], const uint32_t (&w)[BITS],
                                            const uint8_t *table, uint32_t lane_offset) {
  if constexpr (BITS == 4 || BITS == 3) {
    uint32_t word;
    if constexpr (J < BITS) {
      word = w[J];
    } else { /* 3 bits: the fourth step is made of the top two bits of the other three's bytes */
      word =
          ((w[0] >> 6) & 0x03030303u) | ((w[1] >> 4) & 0x0c0c0c0cu) | ((w[2] >> 2) & 0x30303030u);
    }
    a[0] = pair_at(table, row_of<0>(word, lane_offset));
    a[1] = pair_at(table, row_of<1>(word, lane_offset));
    a[2] = pair_at(table, row_of<2>(word, lane_offset));
    a[3] = pair_at(table, row_of<3>(word, lane_offset));
  } else if constexpr (BITS == 2) {
    uint2 lo = *reinterpret_cast<const uint2 *>(table + row_of<2 * (J & 1)>(w[J / 2], lane_offset));
    uint2 hi =
        *reinterpret_cast<const uint2 *>(table + row_of<2 * (J & 1) + 1>(w[J / 2], lane_offset));
    a[0] = lo.x, a[2] = lo.y;
    a[1] = hi.x, a[3] = hi.y;
  } else {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      uint32_t v = w[2 * J + h];
      a[2 * h] = __byte_perm(pair_at(table, row_of<0>(v, lane_offset)),
                             pair_at(table, row_of<1>(v, lane_offset)), 0x5410);
      a[2 * h + 1] = __byte_perm(pair_at(table, row_of<2>(v, lane_offset)),
                                 pair_at(table, row_of<3>(v, lane_offset)), 0x5410);
    }
  }
}

/* Group scales of a block that a lane (g, t) needs: rows g and g + 8 of units 2t and 2t + 1.
 * STEPS: k-steps that share a scale: 1, 2 or 4 (group size 16, 32, 64 and more), 0: no scales. */
template <int STEPS>
struct lane_scales {
  static constexpr int per_unit = STEPS == 0 ? 1 : 4 / STEPS;
  uint32_t v[2 * per_unit]; /* [unit parity][step group] */

  __device__ __forceinline__ void load(const uint8_t *scales, uint64_t block, uint32_t shift,
                                       int lane) {
    if constexpr (STEPS == 4) {
      if (shift == 0) {
        uint2 q = __ldg(reinterpret_cast<const uint2 *>(scales) + block * 32 + lane);
        v[0] = q.x, v[1] = q.y;
      } else {
        uint32_t per_row = 8u >> shift; /* 4 or 2 */
        v[0] = v[1] = __ldg(reinterpret_cast<const uint32_t *>(scales) + block * 8 * per_row +
                            (lane >> 2) * per_row + ((lane & 3) >> (shift - 1)));
      }
    } else if constexpr (STEPS == 2) {
      uint4 q = __ldg(reinterpret_cast<const uint4 *>(scales) + block * 32 + lane);
      v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
    } else if constexpr (STEPS == 1) {
      const uint4 *p = reinterpret_cast<const uint4 *>(scales) + (block * 32 + lane) * 2;
      uint4 q = __ldg(p), r = __ldg(p + 1);
      v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
      v[4] = r.x, v[5] = r.y, v[6] = r.z, v[7] = r.w;
    }
  }
};

/* Fills the replicated table; lanes start at different chunks of their rows. */
template <int BITS>
__device__ __forceinline__ void fill_table(uint8_t *shared, uint64_t table, int threads) {
  for (int i = threadIdx.x; i < 256; i += threads) {
    uint4 v;
    if constexpr (BITS == 2) {
      uint2 q = __ldg(reinterpret_cast<const uint2 *>(table) + i);
      v = make_uint4(q.x, q.y, q.x, q.y);
    } else {
      uint32_t q = __ldg(reinterpret_cast<const uint32_t *>(table) + i);
      v = make_uint4(q, q, q, q);
    }
    constexpr int chunks = BITS == 2 ? 16 : 8;
#pragma unroll
    for (int c = 0; c < chunks; c++)
      *reinterpret_cast<uint4 *>(shared + i * 256 + ((c + threadIdx.x) & (chunks - 1)) * 16) = v;
  }
}

/* Eight activations from column `col` on, zero past the end. */
__device__ __forceinline__ uint4 load_8(const lqt__cu_small &p, uint64_t base, uint32_t col) {
  const uint16_t *from = reinterpret_cast<const uint16_t *>(base) + col;
  if ((base & 15) == 0 && col + 8 <= p.k) return *reinterpret_cast<const uint4 *>(from);
  uint32_t q[4] = {0, 0, 0, 0};
#pragma unroll
  for (int e = 0; e < 8; e++)
    if (col + e < p.k) q[e / 2] |= (uint32_t)from[e] << (16 * (e & 1));
  return make_uint4(q[0], q[1], q[2], q[3]);
}

__device__ __forceinline__ void store_y(const lqt__cu_small &p, uint32_t m, uint32_t row,
                                        float sum) {
  __half *y = reinterpret_cast<__half *>(p.y) + m * p.y_stride + row;
  sum *= p.scale;
  if (p.bias) sum += reinterpret_cast<const float *>(p.bias)[row];
  if (p.accumulate) sum += __half2float(*y);
  *y = __float2half(sum);
}

__device__ __forceinline__ void widen_8(float (&out)[8], const uint4 &v) {
  const __half2 *h = reinterpret_cast<const __half2 *>(&v);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float2 f = __half22float2(h[i]);
    out[2 * i] = f.x, out[2 * i + 1] = f.y;
  }
}
__device__ __forceinline__ uint4 narrow_8(const float (&in)[8]) {
  uint4 v;
  __half2 *h = reinterpret_cast<__half2 *>(&v);
#pragma unroll
  for (int i = 0; i < 4; i++) h[i] = __floats2half2_rn(in[2 * i], in[2 * i + 1]);
  return v;
}

/* Gains of eight columns, zero past the end. */
__device__ __forceinline__ void load_gain(float (&g)[8], const lqt__cu_small &p, uint32_t col) {
  const float *from = reinterpret_cast<const float *>(p.gain) + col;
  if ((p.gain & 15) == 0 && col + 8 <= p.k) {
    const float4 a = __ldg(reinterpret_cast<const float4 *>(from));
    const float4 b = __ldg(reinterpret_cast<const float4 *>(from) + 1);
    g[0] = a.x, g[1] = a.y, g[2] = a.z, g[3] = a.w;
    g[4] = b.x, g[5] = b.y, g[6] = b.z, g[7] = b.w;
    return;
  }
#pragma unroll
  for (int e = 0; e < 8; e++) g[e] = col + e < p.k ? __ldg(from + e) : 0.0f;
}

/* The normed activations in `act`, a piece of eight columns every 16 bytes and a unit of eight
 * pieces every UNIT bytes. `g`: the gains of the thread's first piece. `part`: a float a warp. */
template <int THREADS, int UNIT>
__device__ __forceinline__ void norm_in(const lqt__cu_small &p, uint8_t *act, float *part,
                                        float (&g)[8], bool writes) {
  float square = 0;
  for (uint32_t c = threadIdx.x; c < p.blocks * 64; c += THREADS) {
    const uint4 v = load_8(p, p.x, c * 8);
    float x[8];
    widen_8(x, v);
#pragma unroll
    for (int e = 0; e < 8; e++) square = fmaf(x[e], x[e], square);
    *reinterpret_cast<uint4 *>(act + (c >> 3) * UNIT + (c & 7) * 16) = v;
  }
  for (int o = 16; o; o >>= 1) square += __shfl_xor_sync(~0u, square, o);
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = square;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int i = 0; i < THREADS / 32; i++) sum += part[i];
  const float inverse = rsqrtf(sum / p.k + p.eps);
  for (uint32_t c = threadIdx.x; c < p.blocks * 64; c += THREADS) {
    uint4 *at = reinterpret_cast<uint4 *>(act + (c >> 3) * UNIT + (c & 7) * 16);
    float x[8];
    widen_8(x, *at);
    if (c != threadIdx.x) load_gain(g, p, c * 8);
#pragma unroll
    for (int e = 0; e < 8; e++) x[e] *= inverse * g[e];
    *at = narrow_8(x);
    if (!writes) continue;
    __half *out = reinterpret_cast<__half *>(p.norm_out) + c * 8;
    if ((p.norm_out & 15) == 0 && c * 8 + 8 <= p.k)
      *reinterpret_cast<uint4 *>(out) = narrow_8(x);
    else
      for (uint32_t e = 0; e < 8 && c * 8 + e < p.k; e++) out[e] = __float2half(x[e]);
  }
}

/* A ring of DEPTH 16-byte loads in flight over the 2 * BITS loads of a block. */
template <int BITS, int DEPTH>
struct block_ring {
  static constexpr int loads = 2 * BITS;
  static_assert(loads % DEPTH == 0, "the ring has to fit the block");
  uint4 buffer[DEPTH];

  template <bool RAGGED>
  __device__ __forceinline__ void fetch(int slot, const uint4 *block, int l, uint32_t units) {
    if (RAGGED && (l * 4) / BITS >= (int)units) return;
    buffer[slot] = load_stream(block + l * 32);
  }
  __device__ __forceinline__ uint32_t word(int i) const {
    const uint4 &v = buffer[(i / 4) % DEPTH];
    return (i & 3) == 0 ? v.x : (i & 3) == 1 ? v.y : (i & 3) == 2 ? v.z : v.w;
  }
};

/* One token. WARPS a block; RAGGED: the columns do not fill the last block of units. */
#define SMALL_ONE_UNIT_BYTES 144 /* activations of a unit, padded off the banks of the next */

/* Block `block` of the `blocks` that share the weight. */
template <int BITS, int STEPS, int WARPS, int DEPTH, bool RAGGED>
__device__ __forceinline__ void small_one(const lqt__cu_small &p, uint32_t block, uint32_t blocks) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  using ring_t = block_ring<BITS, DEPTH>;
  const uint32_t tile0 = (uint32_t)((uint64_t)p.tiles * block / blocks);
  const uint32_t tile1 = (uint32_t)((uint64_t)p.tiles * (block + 1) / blocks);
  const uint32_t rows_of_warps = WARPS / p.warps_k;
  const uint32_t wk = warp % p.warps_k, wr = warp / p.warps_k;
  const uint8_t *scales = reinterpret_cast<const uint8_t *>(p.scales);
  uint8_t *act = shared + SMALL_TABLE_BYTES;
  float *red = reinterpret_cast<float *>(act + p.blocks * 8 * SMALL_ONE_UNIT_BYTES);

  launch_dependents();
  ring_t ring;
  lane_scales<STEPS> sc, sc_next;
  uint32_t tile = tile0 + wr, kb = wk;
  bool more = wr < rows_of_warps && tile < tile1;
  auto block_at = [&](uint32_t tl, uint32_t b) {
    return reinterpret_cast<const uint4 *>(p.units) +
           (uint64_t)(tl * p.blocks + b) * (ring_t::loads * 32) + lane;
  };
  auto units_of = [&](uint32_t b) { return !RAGGED || b + 1 < p.blocks ? 8u : p.last_units; };
  const uint4 *from = block_at(tile, kb);
  uint32_t units = units_of(kb);
  if (more) {
#pragma unroll
    for (int l = 0; l < DEPTH; l++) ring.template fetch<RAGGED>(l, from, l, units);
    sc.load(scales, (uint64_t)tile * p.blocks + kb, p.group_shift, lane);
  }
  fill_table<BITS>(shared, p.table, WARPS * 32);
  float gain[8];
  if (p.gain != 0) load_gain(gain, p, threadIdx.x * 8);
  wait_previous();
  if (p.gain != 0) {
    norm_in<WARPS * 32, SMALL_ONE_UNIT_BYTES>(p, act, red, gain, block == 0 && p.norm_out != 0);
  } else {
    for (uint32_t c = threadIdx.x; c < p.blocks * 64; c += WARPS * 32)
      *reinterpret_cast<uint4 *>(act + (c >> 3) * SMALL_ONE_UNIT_BYTES + (c & 7) * 16) =
          load_8(p, p.x, c * 8);
  }
  __syncthreads();

  const uint32_t lane_offset = lane * (BITS == 2 ? 8 : 4);
  const bool mine[4] = {t == 0, t == 1, t == 2, t == 3};
  uint32_t b[8];
  auto load_b = [&]() {
    const uint8_t *a = act + (kb * 8 + g) * SMALL_ONE_UNIT_BYTES + t * 4;
#pragma unroll
    for (int i = 0; i < 8; i++) b[i] = *reinterpret_cast<const uint32_t *>(a + i * 16);
  };
  if (more) load_b();
  while (more) {
    uint32_t next_tile = tile + rows_of_warps, next_kb = kb;
    if (next_tile >= tile1) next_tile = tile0 + wr, next_kb = kb + p.warps_k;
    const bool next = next_kb < p.blocks;
    const uint4 *next_from = block_at(next_tile, next_kb);
    const uint32_t next_units = units_of(next_kb);
    if (next) sc_next.load(scales, (uint64_t)next_tile * p.blocks + next_kb, p.group_shift, lane);

    float acc0 = 0, acc1 = 0;
    float run[4] = {0, 0, 0, 0};
#pragma unroll
    for (int j = 0; j < 8; j++) {
      uint32_t w[BITS];
#pragma unroll
      for (int i = 0; i < BITS; i++) w[i] = ring.word(j * BITS + i);
      uint32_t a[4][4];
      decode_step<BITS, 0>(a[0], w, shared, lane_offset);
      decode_step<BITS, 1>(a[1], w, shared, lane_offset);
      decode_step<BITS, 2>(a[2], w, shared, lane_offset);
      decode_step<BITS, 3>(a[3], w, shared, lane_offset);
#pragma unroll
      for (int l = 0; l < ring_t::loads; l++) { /* loads that this unit used up */
        if (l * 4 + 3 < (j + 1) * BITS && l * 4 + 3 >= j * BITS) {
          if (l + DEPTH < ring_t::loads)
            ring.template fetch<RAGGED>(l % DEPTH, from, l + DEPTH, units);
          else if (next)
            ring.template fetch<RAGGED>(l % DEPTH, next_from, l + DEPTH - ring_t::loads,
                                        next_units);
        }
      }
      if constexpr (STEPS == 0) {
#pragma unroll
        for (int i = 0; i < 4; i++) run[i] = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) mma_16816(run, a[i], b[2 * i], b[2 * i + 1]);
        if (mine[j / 2]) acc0 += run[j & 1], acc1 += run[2 + (j & 1)];
      } else {
#pragma unroll
        for (int q = 0; q < 4 / STEPS; q++) {
          float c[4] = {0, 0, 0, 0};
#pragma unroll
          for (int i = 0; i < STEPS; i++)
            mma_16816(c, a[q * STEPS + i], b[2 * (q * STEPS + i)], b[2 * (q * STEPS + i) + 1]);
          if (mine[j / 2]) {
            uint32_t pair = sc.v[(j & 1) * (4 / STEPS) + q];
            float2 f = __half22float2(*reinterpret_cast<const __half2 *>(&pair));
            acc0 = fmaf(f.x, c[j & 1], acc0);
            acc1 = fmaf(f.y, c[2 + (j & 1)], acc1);
          }
        }
      }
    }
    acc0 += __shfl_xor_sync(~0u, acc0, 1);
    acc1 += __shfl_xor_sync(~0u, acc1, 1);
    acc0 += __shfl_xor_sync(~0u, acc0, 2);
    acc1 += __shfl_xor_sync(~0u, acc1, 2);
    if (t == 0) {
      float *to = red + ((tile - tile0) * p.blocks + kb) * 16 + g;
      to[0] = acc0, to[8] = acc1;
    }
    const bool new_b = next_kb != kb;
    tile = next_tile, kb = next_kb, from = next_from, units = next_units, sc = sc_next;
    more = next;
    if (more && new_b) load_b();
  }
  __syncthreads();
  const uint32_t total = (tile1 - tile0) * 16;
  for (uint32_t i = threadIdx.x; i < total; i += WARPS * 32) {
    const float *q = red + (i >> 4) * p.blocks * 16 + (i & 15);
    float sum = 0;
#pragma unroll 8
    for (uint32_t k = 0; k < p.blocks; k++) sum += q[k * 16];
    if (tile0 * 16 + i < p.n) store_y(p, 0, tile0 * 16 + i, sum);
  }
}

/* Two to sixteen tokens: the columns of B are the tokens. A warp keeps the activations of its piece
 * of the columns (4 units for 8 tokens, 2 for 16) in registers and goes down the rows; the pieces
 * are split over the warps of a block and over gridDim.y blocks. */
#define SMALL_MANY_WARPS 16
#define SMALL_MANY_ROUND 8 /* tiles of 8 tokens a row of warps sums before they are added up */

template <int BITS, int STEPS, int NT>
struct piece {
  static constexpr int units = 4 / NT;
  static constexpr int loads = units * BITS / 4;
  static constexpr int ahead = (STEPS == 1 || STEPS == 2 || BITS == 8) ? 1 : 2 * NT; /* tiles */
  static constexpr int per_unit = STEPS == 0 ? 1 : 4 / STEPS;
  static constexpr int scale_words = STEPS == 0 ? 1 : units * per_unit;
  static constexpr int round = SMALL_MANY_ROUND / NT;
  static_assert(loads * 4 == units * BITS, "a piece has to be whole loads");
};

template <int BITS, int STEPS, int NT, bool RAGGED>
__device__ __forceinline__ void small_many(const lqt__cu_small &p) {
  using pc = piece<BITS, STEPS, NT>;
  constexpr int threads = SMALL_MANY_WARPS * 32, ahead = pc::ahead, tokens = NT * 8;
  extern __shared__ __align__(1024) uint8_t shared[];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const uint32_t tile0 = (uint32_t)((uint64_t)p.tiles * blockIdx.x / gridDim.x);
  const uint32_t tile1 = (uint32_t)((uint64_t)p.tiles * (blockIdx.x + 1) / gridDim.x);
  const uint32_t rows_of_warps = SMALL_MANY_WARPS / p.warps_k;
  const uint32_t wk = warp % p.warps_k, wr = warp / p.warps_k;
  const uint32_t at = blockIdx.y * p.warps_k + wk; /* the warp's piece */
  const uint32_t kb = at * pc::units / 8, sub = at % (8 / pc::units);
  const bool active = wr < rows_of_warps && at < p.part;
  const uint32_t last = kb + 1 < p.blocks ? 8 : p.last_units;
  float *red = reinterpret_cast<float *>(shared + SMALL_TABLE_BYTES);

  launch_dependents();
  uint4 buffer[ahead][pc::loads];
  uint32_t sc[ahead][pc::scale_words];
  auto fetch = [&](int slot, uint32_t tile) {
    const uint64_t block = (uint64_t)tile * p.blocks + kb;
    const uint4 *from = reinterpret_cast<const uint4 *>(p.units) +
                        (block * (2 * BITS) + sub * pc::loads) * 32 + lane;
#pragma unroll
    for (int l = 0; l < pc::loads; l++)
      if (!RAGGED || sub * pc::units + l * 4 / BITS < last)
        buffer[slot][l] = load_stream(from + l * 32);
    if constexpr (STEPS != 0) {
      const uint32_t per_row = (8 * pc::per_unit) >> p.group_shift; /* words of a row in a block */
      const uint32_t *s = reinterpret_cast<const uint32_t *>(p.scales) + (block * 8 + g) * per_row;
      if (STEPS != 4 || p.group_shift == 0) {
        s += sub * pc::scale_words;
        if constexpr (pc::scale_words >= 4) {
#pragma unroll
          for (int i = 0; i < pc::scale_words / 4; i++) {
            uint4 v = __ldg(reinterpret_cast<const uint4 *>(s) + i);
            sc[slot][4 * i] = v.x, sc[slot][4 * i + 1] = v.y;
            sc[slot][4 * i + 2] = v.z, sc[slot][4 * i + 3] = v.w;
          }
        } else {
          uint2 v = __ldg(reinterpret_cast<const uint2 *>(s));
          sc[slot][0] = v.x, sc[slot][1] = v.y;
        }
      } else {
#pragma unroll
        for (int i = 0; i < pc::scale_words; i++)
          sc[slot][i] = __ldg(s + ((sub * pc::units + i) >> p.group_shift));
      }
    }
  };
#pragma unroll
  for (int d = 0; d < ahead; d++)
    if (active && tile0 + wr + d * rows_of_warps < tile1) fetch(d, tile0 + wr + d * rows_of_warps);
  fill_table<BITS>(shared, p.table, threads);
  wait_previous();
  uint32_t b[pc::units][NT][8];
  {
    const bool wide = (p.x_stride & 1) == 0 && (p.x & 3) == 0;
#pragma unroll
    for (int n = 0; n < NT; n++) {
      const uint32_t m = n * 8 + g;
      const uint16_t *x = reinterpret_cast<const uint16_t *>(p.x) + m * p.x_stride;
#pragma unroll
      for (int u = 0; u < pc::units; u++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
          const uint32_t col = (kb * 8 + sub * pc::units + u) * 64 + i * 8 + 2 * t;
          uint32_t v = 0;
          if (active && m < p.m) {
            if (wide && col + 2 <= p.k) {
              v = *reinterpret_cast<const uint32_t *>(x + col);
            } else {
              if (col < p.k) v = x[col];
              if (col + 1 < p.k) v |= (uint32_t)x[col + 1] << 16;
            }
          }
          b[u][n][i] = v;
        }
    }
  }
  __syncthreads();

  const uint32_t lane_offset = lane * (BITS == 2 ? 8 : 4);
  for (uint32_t round = tile0; round < tile1; round += pc::round * rows_of_warps) {
    const uint32_t round_end = min(round + pc::round * rows_of_warps, tile1);
    for (uint32_t first = round + wr; active && first < round_end; first += ahead * rows_of_warps) {
#pragma unroll
      for (int d = 0; d < ahead; d++) {
        const uint32_t tile = first + d * rows_of_warps;
        if (tile >= round_end) break;
        float acc[NT][4] = {};
#pragma unroll
        for (int u = 0; u < pc::units; u++) {
          uint32_t w[BITS];
#pragma unroll
          for (int i = 0; i < BITS; i++) {
            const uint4 &v = buffer[d][(u * BITS + i) / 4];
            const int e = (u * BITS + i) & 3;
            w[i] = e == 0 ? v.x : e == 1 ? v.y : e == 2 ? v.z : v.w;
          }
          uint32_t a[4][4];
          decode_step<BITS, 0>(a[0], w, shared, lane_offset);
          decode_step<BITS, 1>(a[1], w, shared, lane_offset);
          decode_step<BITS, 2>(a[2], w, shared, lane_offset);
          decode_step<BITS, 3>(a[3], w, shared, lane_offset);
#pragma unroll
          for (int n = 0; n < NT; n++) {
            if constexpr (STEPS == 0) {
#pragma unroll
              for (int i = 0; i < 4; i++)
                mma_16816(acc[n], a[i], b[u][n][2 * i], b[u][n][2 * i + 1]);
            } else {
#pragma unroll
              for (int q = 0; q < pc::per_unit; q++) {
                float c[4] = {0, 0, 0, 0};
#pragma unroll
                for (int i = q * STEPS; i < (q + 1) * STEPS; i++)
                  mma_16816(c, a[i], b[u][n][2 * i], b[u][n][2 * i + 1]);
                const uint32_t pair = sc[d][u * pc::per_unit + q];
                const float2 f = __half22float2(*reinterpret_cast<const __half2 *>(&pair));
                acc[n][0] = fmaf(f.x, c[0], acc[n][0]);
                acc[n][1] = fmaf(f.x, c[1], acc[n][1]);
                acc[n][2] = fmaf(f.y, c[2], acc[n][2]);
                acc[n][3] = fmaf(f.y, c[3], acc[n][3]);
              }
            }
          }
        }
        if (tile + ahead * rows_of_warps < tile1) fetch(d, tile + ahead * rows_of_warps);
        float *to = red + ((tile - round) * p.warps_k + wk) * (16 * tokens);
#pragma unroll
        for (int n = 0; n < NT; n++) {
          *reinterpret_cast<float2 *>(to + n * 128 + g * 8 + t * 2) =
              make_float2(acc[n][0], acc[n][1]);
          *reinterpret_cast<float2 *>(to + n * 128 + (g + 8) * 8 + t * 2) =
              make_float2(acc[n][2], acc[n][3]);
        }
      }
    }
    __syncthreads();
    const uint32_t used = min(p.warps_k, p.part - blockIdx.y * p.warps_k);
    for (uint32_t i = threadIdx.x; i < (round_end - round) * 16 * tokens; i += threads) {
      const uint32_t q = i / (16 * tokens), e = i % (16 * tokens);
      const uint32_t row = (round + q) * 16 + ((e & 127) >> 3), m = (e >> 7) * 8 + (e & 7);
      const float *f = red + q * p.warps_k * (16 * tokens) + e;
      float sum = 0;
#pragma unroll 4
      for (uint32_t k = 0; k < used; k++) sum += f[k * (16 * tokens)];
      if (row < p.n && m < p.m) {
        if (gridDim.y > 1)
          reinterpret_cast<float *>(p.partial)[((uint64_t)blockIdx.y * p.m + m) * p.n + row] = sum;
        else
          store_y(p, m, row, sum);
      }
    }
    __syncthreads();
  }

  if (gridDim.y > 1) { /* the last block of these rows to finish adds the parts up */
    __shared__ uint32_t is_last;
    __threadfence();
    __syncthreads();
    uint32_t *counter = reinterpret_cast<uint32_t *>(p.counter) + blockIdx.x;
    if (threadIdx.x == 0) {
      is_last = atomicAdd(counter, 1) == gridDim.y - 1;
      if (is_last) *counter = 0;
    }
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    const float *partial = reinterpret_cast<const float *>(p.partial);
    const uint32_t r0 = tile0 * 16, r1 = min(tile1 * 16, p.n), rows = r1 > r0 ? r1 - r0 : 0;
    for (uint32_t i = threadIdx.x; i < rows * p.m; i += threads) {
      const uint32_t m = i / rows, r = r0 + i % rows;
      float sum = 0;
#pragma unroll 4
      for (uint32_t q = 0; q < gridDim.y; q++)
        sum += __ldcg(partial + ((uint64_t)q * p.m + m) * p.n + r);
      store_y(p, m, r, sum);
    }
  }
}

#endif /* LQT_BACKENDS_CUDA_KERNELS_SMALL_CUH_ */
