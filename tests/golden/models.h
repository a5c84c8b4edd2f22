/* The reference models as unquantized .lqt files, made on the fly. */
#ifndef LQT_TESTS_GOLDEN_MODELS_H_
#define LQT_TESTS_GOLDEN_MODELS_H_

#include <jansson.h>

#include "lqt/lqt.h"

typedef struct golden_model {
  lqt_model *model;
  lqt_device *device;
  lqt_engine *engine;
  json_t *reference; /* reference.json */
  char file[64];     /* the temporary .lqt */
} golden_model;

/* Skips the test when the data is not there. */
void golden_open(golden_model *g, const char *name);
void golden_close(golden_model *g);
lqt_session *golden_session(const golden_model *g, lqt_dtype kv_dtype, uint32_t max_batch);

#endif /* LQT_TESTS_GOLDEN_MODELS_H_ */
