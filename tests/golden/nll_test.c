/* Mean negative log-likelihood over the held-out books, as lqt eval computes it. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "models.h"
#include "support/data.h"

enum { WINDOW = 512, WINDOWS = 200 };

static uint16_t *read_heldout(const char *name) {
  char item[128], path[1024];
  snprintf(item, sizeof item, "eval/heldout.%s.u16", name);
  cr_assert(test_data_path(item, path, sizeof path), "%s", path);
  FILE *file = fopen(path, "rb");
  cr_assert_not_null(file);
  uint16_t *ids = malloc((WINDOW * WINDOWS + 1) * sizeof *ids);
  cr_assert_eq(fread(ids, sizeof *ids, WINDOW * WINDOWS + 1, file), WINDOW * WINDOWS + 1);
  fclose(file);
  return ids;
}

static double nll_of(const float *logits, uint32_t vocab, uint32_t target) {
  double most = -INFINITY, sum = 0;
  for (uint32_t i = 0; i < vocab; i++) most = fmax(most, logits[i]);
  for (uint32_t i = 0; i < vocab; i++) sum += exp(logits[i] - most);
  return log(sum) + most - logits[target];
}

static void check_nll(const char *name, double wanted) {
  golden_model g;
  golden_open(&g, name);
  uint16_t *heldout = read_heldout(name);
  lqt_session *session = golden_session(&g, LQT_DTYPE_F16, WINDOW);
  uint32_t vocab = lqt_engine_vocab_size(g.engine);
  double total = 0;
  for (size_t w = 0; w < WINDOWS; w++) {
    int32_t ids[WINDOW];
    for (size_t i = 0; i < WINDOW; i++) ids[i] = heldout[w * WINDOW + i];
    lqt_step_input input = {0, LQT_LOGITS_ALL, ids, WINDOW};
    cr_assert_eq(lqt_session_sequence_truncate(session, 0, 0, NULL), LQT_OK);
    cr_assert_eq(lqt_session_step(session, &input, 1, NULL, NULL), LQT_OK);
    for (size_t i = 0; i < WINDOW; i++) {
      total += nll_of(lqt_session_logits(session, 0, i), vocab, heldout[w * WINDOW + i + 1]);
    }
  }
  double nll = total / (WINDOW * WINDOWS);
  cr_assert_lt(fabs(nll - wanted), 0.0005, "%s: NLL %.5f, not %.5f", name, nll, wanted);
  fprintf(stderr, "%s: NLL %.5f\n", name, nll);
  free(heldout);
  lqt_session_destroy(session);
  golden_close(&g);
}

Test(nll, classic_28m) { check_nll("classic-28m", 3.37724); }
Test(nll, classic_11m) { check_nll("classic-11m", 3.23238); }
