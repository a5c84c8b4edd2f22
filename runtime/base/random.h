/* A small seeded generator (xoshiro256** seeded by splitmix64): the same numbers on every machine.
 * Source: Blackman and Vigna, "Scrambled linear pseudorandom number generators" (2018). */
#ifndef LQT_RUNTIME_BASE_RANDOM_H_
#define LQT_RUNTIME_BASE_RANDOM_H_

#include <math.h>
#include <stdint.h>

typedef struct lqt__random {
  uint64_t state[4];
} lqt__random;

static inline uint64_t lqt__splitmix64(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static inline lqt__random lqt__random_seed(uint64_t seed) {
  lqt__random random;
  for (int i = 0; i < 4; i++) random.state[i] = lqt__splitmix64(&seed);
  return random;
}

static inline uint64_t lqt__random_u64(lqt__random *random) {
  uint64_t *s = random->state;
  uint64_t x = s[1] * 5;
  uint64_t result = ((x << 7) | (x >> 57)) * 9;
  uint64_t t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = (s[3] << 45) | (s[3] >> 19);
  return result;
}

/* 0 <= result < bound, without bias worth noticing (bound < 2^32). */
static inline uint32_t lqt__random_below(lqt__random *random, uint32_t bound) {
  return (uint32_t)(((lqt__random_u64(random) >> 32) * bound) >> 32);
}

/* 0 <= result < 1, 53 bits. */
static inline double lqt__random_unit(lqt__random *random) {
  return (double)(lqt__random_u64(random) >> 11) * 0x1p-53;
}

/* Standard normal (Box-Muller; one of the pair is dropped for statelessness). */
static inline float lqt__random_normal(lqt__random *random) {
  double u = 1.0 - lqt__random_unit(random);
  double v = lqt__random_unit(random);
  return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

#endif /* LQT_RUNTIME_BASE_RANDOM_H_ */
