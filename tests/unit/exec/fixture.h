/* A tiny model, opened and ready to run. */
#ifndef LQT_TESTS_UNIT_EXEC_FIXTURE_H_
#define LQT_TESTS_UNIT_EXEC_FIXTURE_H_

#include "lqt/session.h"
#include "support/tiny_model.h"

typedef struct fixture {
  tiny_model tiny;
  lqt_model *model;
  lqt_device *device;
  lqt_engine *engine;
} fixture;

void fixture_open(fixture *f, const tiny_spec *spec, const char *device);
void fixture_close(fixture *f);

/* A session with float32 cache. */
lqt_session *fixture_session(const fixture *f, uint32_t sequences, uint32_t max_tokens,
                             uint32_t max_batch);
uint32_t fixture_sequence(lqt_session *session);
/* Steps one sequence and checks that it worked. */
void fixture_step(lqt_session *session, uint32_t sequence, const int32_t *tokens, size_t count,
                  lqt_logits_want want);
void fixture_tokens(const fixture *f, uint64_t seed, int32_t *out, size_t count);
/* Compares logits with a float64 row: sqrt(sum of squared differences / sum of squares). */
double fixture_error(const float *got, const double *wanted, size_t count);

#endif /* LQT_TESTS_UNIT_EXEC_FIXTURE_H_ */
