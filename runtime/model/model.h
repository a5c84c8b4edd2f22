/* The parsed, immutable model behind lqt_model. */
#ifndef LQT_RUNTIME_MODEL_MODEL_H_
#define LQT_RUNTIME_MODEL_MODEL_H_

#include "format/format.h"
#include "lqt/model.h"
#include "model/graph.h"

struct lqt_model {
  _Atomic int refs;
  char *path; /* "<memory>" when opened from memory */
  lqt__map map;
  lqt__file file;
  lqt__graph graph; /* module_count 0 when the file has none */
};

#endif /* LQT_RUNTIME_MODEL_MODEL_H_ */
