#include "exec/rope.h"

#include <criterion/criterion.h>
#include <math.h>

static lqt_status frequencies(const char *text, uint32_t dim, float *out, float *scale) {
  json_t *rope = json_loads(text, 0, NULL);
  cr_assert_not_null(rope);
  lqt_status status = lqt__rope_frequencies(rope, dim, "test", out, scale, NULL);
  json_decref(rope);
  return status;
}

static void expect(const char *text, uint32_t dim, const double *wanted, double wanted_scale) {
  float out[64], scale;
  cr_assert_eq(frequencies(text, dim, out, &scale), LQT_OK, "%s", text);
  for (uint32_t i = 0; i < dim / 2; i++) {
    cr_assert_lt(fabs(out[i] - wanted[i]), 2e-6 * wanted[i], "%s: %u: %.9g, not %.9g", text, i,
                 out[i], wanted[i]);
  }
  cr_assert_lt(fabs(scale - wanted_scale), 1e-6);
}

/* Figures of transformers' ROPE_INIT_FUNCTIONS (4.5x), dim 8. */
Test(rope, known_frequencies) {
  expect("{\"type\":\"default\",\"theta\":10000}", 8, (double[]){1, 0.1, 0.01, 0.001}, 1);
  expect("{\"type\":\"linear\",\"theta\":10000,\"factor\":4}", 8,
         (double[]){0.25, 0.025, 0.0025, 0.00025}, 1);
  /* theta 500000, factor 8, original 64: wavelengths 6.3, 167, 4443, 118144 against 16 and 64. */
  expect(
      "{\"type\":\"llama3\",\"theta\":500000,\"factor\":8,\"low_freq_factor\":1,"
      "\"high_freq_factor\":4,\"original_context\":64}",
      8, (double[]){1, 0.0376060309 / 8, 0.0014142136 / 8, 5.3182959e-5 / 8}, 1);
  /* Original 1024: wavelength 167 is between 256 and 1024 or below: 1024/167.08 = 6.13 turns. */
  expect(
      "{\"type\":\"llama3\",\"theta\":500000,\"factor\":8,\"low_freq_factor\":1,"
      "\"high_freq_factor\":16,\"original_context\":1024}",
      8,
      (double[]){1, (1 - 0.3419220) * 0.0376060309 / 8 + 0.3419220 * 0.0376060309, 0.0014142136 / 8,
                 5.3182959e-5 / 8},
      1);
  /* YaRN, factor 4, original 2048: floor(dim(32)) = 1, ceil(dim(1)) = 3. */
  expect("{\"type\":\"yarn\",\"theta\":10000,\"factor\":4,\"original_context\":2048}", 8,
         (double[]){1, 0.1, 0.5 * 0.01 + 0.5 * 0.0025, 0.00025}, 0.1 * log(4) + 1);
  expect(
      "{\"type\":\"yarn\",\"theta\":10000,\"factor\":4,\"original_context\":2048,"
      "\"attention_factor\":1.5}",
      8, (double[]){1, 0.1, 0.00625, 0.00025}, 1.5);
}

Test(rope, refuses) {
  float out[4], scale;
  cr_assert_eq(frequencies("{\"type\":\"dynamic\"}", 8, out, &scale), LQT_UNSUPPORTED);
  cr_assert_eq(frequencies("{\"type\":\"linear\",\"factor\":0}", 8, out, &scale), LQT_BAD_GRAPH);
  cr_assert_eq(frequencies("{\"theta\":-1}", 8, out, &scale), LQT_BAD_GRAPH);
  cr_assert_eq(frequencies("{\"type\":\"llama3\",\"factor\":8}", 8, out, &scale), LQT_BAD_GRAPH);
}
