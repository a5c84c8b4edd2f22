/* Fused reconstruct-and-multiply for many tokens on sm_90a: y^T = W x^T, so that the weights are
 * the register operand of wgmma and the tokens its columns.
 *
 * A warpgroup owns RT row tiles of 64 rows: each of its warps decodes one packed tile of 16 rows
 * (the packed order is the order of the A fragments), scales the pairs and hands them to wgmma. One
 * warp of the block brings the activations into a ring in shared memory. While the tensor cores
 * work on one unit of 64 columns, the warps decode the next.
 *
 * Work is cut into steps of 256 columns of an output tile. What fills the grid a whole number of
 * times goes tile by tile; the rest is cut into equal runs of steps (stream-K), and the parts of a
 * tile that was cut are added in the order of the columns: results do not change from run to run.
 *
 * Pairs are scaled in half precision, as weights of a plain half product are; the table is first
 * scaled by a power of two so that its largest value lies in [1/2, 1): no product overflows. */
#ifndef LQT_BACKENDS_CUDA_KERNELS_WIDE_CUH_
#define LQT_BACKENDS_CUDA_KERNELS_WIDE_CUH_

#include "wgmma.cuh"
#include "wide_schedule.cuh"
#include "wide_weights.cuh"

#define WIDE_TABLE_BYTES 65536

/* NT: tokens of a tile; WGS: warpgroups that multiply; RT: row tiles of each; UPS: units of 64
 * columns in a stage of the ring; KB: k-steps that are decoded and multiplied together; STEPS:
 * k-steps that a scale covers, 4 or 1 (other group sizes, and none, read the same words again). The
 * table stands at a multiple of 64 KiB, so that a byte permute makes the whole address of an entry;
 * the ring takes the room before and behind it. */
template <int BITS_, int STEPS_, int NT_, int WGS_, int RT_, int UPS_, int KB_>
struct wide_config {
  static constexpr int BITS = BITS_, STEPS = STEPS_, NT = NT_, WGS = WGS_, RT = RT_, UPS = UPS_,
                       KB = KB_;
  static constexpr int rows = 64 * WGS * RT, threads = WGS * 128 + 128;
  /* Registers after the producer gave most of its own away. */
  static constexpr int registers = WGS == 2 ? 232 : WGS == 3 ? 152 : 112;
  static constexpr int producer_registers = WGS == 4 ? 32 : 40;
  static constexpr int unit_bytes = NT * 128, stage_bytes = UPS * unit_bytes;
  static constexpr int most_before = (WIDE_TABLE_BYTES - 2048) / stage_bytes,
                       most_behind = 98304 / stage_bytes;
  static constexpr int before = most_before < 4 ? most_before : 4,
                       behind = most_behind < 4 ? most_behind : 4, STAGES = before + behind;
  static constexpr int shared_bytes = 2 * WIDE_TABLE_BYTES + behind * stage_bytes;
  static constexpr int per_unit = 4 / STEPS, scale_words = 4 * per_unit; /* of a unit, of a step */
  static_assert(4 % UPS == 0 && STAGES >= 3, "stages have to divide a step");
};

/* Shared addresses. Dynamic shared memory begins 1024 bytes into the block's memory, which begins
 * at zero; the barriers stand there, then the first stages. */
template <typename C>
struct wide_layout {
  uint32_t base;
  static constexpr uint32_t table = WIDE_TABLE_BYTES;
  __device__ __forceinline__ uint32_t full(uint32_t stage) const { return base + stage * 8; }
  __device__ __forceinline__ uint32_t empty(uint32_t stage) const { return base + 64 + stage * 8; }
  __device__ __forceinline__ uint32_t stage(uint32_t s) const {
    return s * C::stage_bytes +
           (s < C::before ? 2048 : 2 * WIDE_TABLE_BYTES - C::before * C::stage_bytes);
  }
};

template <int VALUE>
struct wide_number {
  static constexpr int value = VALUE;
};

/* The warp that brings the activations. */
template <typename C>
__device__ __forceinline__ void wide_produce(const lqt__cu_wide &p, wide_layout<C> at) {
  wide_schedule work(p);
  wide_run run;
  uint32_t stage = 0, phase = 1;
  while (work.next(run)) {
    const int32_t token = wide_token_tile(p, run.tile) * C::NT;
    for (uint32_t unit = run.k0 * 4; unit < run.k1 * 4; unit += C::UPS) {
      barrier_wait(at.empty(stage), phase);
      barrier_expect(at.full(stage), C::stage_bytes);
#pragma unroll
      for (int u = 0; u < C::UPS; u++)
        copy_box(at.stage(stage) + u * C::unit_bytes, p.map, at.full(stage),
                 (int32_t)((unit + u) * 64), token);
      if (++stage == C::STAGES) stage = 0, phase ^= 1;
    }
  }
}

/* The packed row tile of 16 of this warp. Past the end: the last one, whose sums are not stored. */
template <typename C>
__device__ __forceinline__ uint32_t wide_packed_tile(const lqt__cu_wide &p, uint32_t tile, int r) {
  const uint32_t wg = threadIdx.x >> 7, warp = (threadIdx.x >> 5) & 3;
  return min((wide_row_tile(p, tile) * C::WGS + wg) * (C::RT * 4) + r * 4 + warp, p.tiles - 1);
}

template <typename C>
__device__ __forceinline__ void wide_multiply(const lqt__cu_wide &p, wide_layout<C> at, float undo,
                                              wide_weights<C> (&w)[C::RT], wide_schedule &work,
                                              wide_run run, bool more) {
  const int wg = threadIdx.x >> 7, warp = (threadIdx.x >> 5) & 3;
  uint32_t lane = threadIdx.x & 31;
  const uint32_t row = warp * 16 + (lane >> 2);
  const bool releases = lane == 0;
  lane = wide_layout<C>::table + lane * (C::BITS == 2 ? 8 : 4);
  asm volatile("" : "+r"(lane)::"memory");
  uint32_t stage = 0, phase = 0, held = ~0u;
  auto release = [&]() {
    if (held != ~0u && releases) barrier_arrive(at.empty(held));
    held = ~0u;
  };
  while (more) {
    float acc[C::RT][C::NT / 2];
#pragma unroll
    for (int r = 0; r < C::RT; r++)
#pragma unroll
      for (int i = 0; i < C::NT / 2; i++) acc[r][i] = 0;
    wide_run following = run;
    more = work.next(following);
    for (uint32_t k = run.k0; k < run.k1; k++) {
      if (k + 1 == run.k1) { /* the last run reads its last step twice */
#pragma unroll
        for (int r = 0; r < C::RT; r++)
          w[r].seek(p, wide_packed_tile<C>(p, following.tile, r), more ? following.k0 : k);
      } else {
#pragma unroll
        for (int r = 0; r < C::RT; r++) w[r].advance(p, k);
      }
#pragma unroll
      for (int r = 0; r < C::RT; r++) {
        w[r].take_scales();
        w[r].load_scales(p);
      }
      uint32_t a[2][C::KB][4];
      auto unit = [&](auto number) {
        constexpr int U = decltype(number)::value;
        if (U % C::UPS == 0) barrier_wait(at.full(stage), phase);
        const uint64_t b = wgmma_rows(at.stage(stage) + (U % C::UPS) * C::unit_bytes);
        auto batch = [&](auto r_number, auto j_number) {
          constexpr int r = decltype(r_number)::value, J = decltype(j_number)::value;
          constexpr bool first = r == 0 && J == 0, last_of_unit = J + C::KB == 4;
          uint32_t(&f)[C::KB][4] = a[((U * C::RT + r) * (4 / C::KB) + J / C::KB) & 1];
          w[r].template decode<U, J>(f, lane);
          if (last_of_unit) w[r].template refill<U>();
          wgmma_fence();
#pragma unroll
          for (int j = 0; j < C::KB; j++) wgmma<C::NT>::step(acc[r], f[j], b + 2 * (J + j));
          wgmma_commit();
          wgmma_wait<1>();
          if (first && U % C::UPS == 0) release();
        };
        batch(wide_number<0>(), wide_number<0>());
        if constexpr (C::KB == 2) batch(wide_number<0>(), wide_number<2>());
        if constexpr (C::RT == 2) {
          batch(wide_number<1>(), wide_number<0>());
          if constexpr (C::KB == 2) batch(wide_number<1>(), wide_number<2>());
        }
        if (U % C::UPS == C::UPS - 1) {
          held = stage;
          if (++stage == C::STAGES) stage = 0, phase ^= 1;
        }
      };
      unit(wide_number<0>());
      unit(wide_number<1>());
      unit(wide_number<2>());
      unit(wide_number<3>());
    }
    wgmma_wait<0>();
    release();
    const bool whole = run.k0 == 0 && run.k1 == p.steps;
    if (whole || wide_join<C>(p, acc, run, wg)) {
#pragma unroll
      for (int r = 0; r < C::RT; r++)
        wide_store<C>(p, acc[r],
                      ((wide_row_tile(p, run.tile) * C::WGS + wg) * C::RT + r) * 64 + row,
                      wide_token_tile(p, run.tile) * C::NT, undo);
    }
    run = following;
  }
}

template <typename C>
__device__ __forceinline__ void wide(const lqt__cu_wide &p) {
  extern __shared__ __align__(1024) uint8_t shared[];
  const wide_layout<C> at = {(uint32_t)__cvta_generic_to_shared(shared)};
  uint32_t *maxima = reinterpret_cast<uint32_t *>(shared + 128);
  const bool producer = threadIdx.x >= C::WGS * 128;
  const uint2 entry = wide_entry<C::BITS>(p);
  launch_dependents();
  if (threadIdx.x == C::WGS * 128) {
    prefetch_map(p.map);
    for (int i = 0; i < C::STAGES; i++) {
      barrier_init(at.full(i), 1);
      barrier_init(at.empty(i), C::WGS * 4);
    }
    barrier_init_done();
  }
  wide_schedule work(p);
  wide_run run = {0, 0, 0};
  const bool more = work.next(run);
  wide_weights<C> w[C::RT];
  if (!producer && more) {
#pragma unroll
    for (int r = 0; r < C::RT; r++) {
      w[r].seek(p, wide_packed_tile<C>(p, run.tile, r), run.k0);
      w[r].fill();
      w[r].load_scales(p);
    }
  }
  const float undo =
      wide_fill_table<C::BITS>(shared + (wide_layout<C>::table - at.base), entry, maxima);
  __syncthreads();
  if (producer) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(C::producer_registers));
    wait_previous();
    if (threadIdx.x == C::WGS * 128) wide_produce<C>(p, at);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(C::registers));
    wait_previous();
    wide_multiply<C>(p, at, undo, w, work, run, more);
  }
}

#endif /* LQT_BACKENDS_CUDA_KERNELS_WIDE_CUH_ */
