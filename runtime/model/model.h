/* The parsed, immutable model behind lqt_model. */
#ifndef LQT_RUNTIME_MODEL_MODEL_H_
#define LQT_RUNTIME_MODEL_MODEL_H_

#include <pthread.h>

#include "format/format.h"
#include "lqt/model.h"
#include "model/graph.h"

/* What lqt_model_weight made of one tensor. */
typedef struct lqt__weight_cache {
  bool ready;
  lqt_weight_desc desc;
  void *owned[3]; /* expanded mask, converted delta, converted elements */
} lqt__weight_cache;

struct lqt_model {
  _Atomic int refs;
  char *path; /* "<memory>" when opened from memory */
  lqt__map map;
  void *copy; /* of memory that was not aligned */
  lqt__file file;
  lqt__graph graph; /* module_count 0 when the file has none */
  char **section_names;
  lqt__arena names;
  pthread_mutex_t lock; /* of `weights` */
  lqt__weight_cache *weights;
  lqt_model *base; /* of an edited one: where unchanged bytes are */
  void *owner;     /* of an edited one's tables, freed by owner_free */
  void (*owner_free)(void *owner);
};

/* A model of edited tables: `file`, whose arrays, strings and bytes belong to `owner` or to the
 * model `base`. Takes `owner` over and frees it with the model, also on a failure. Errors: those of
 * lqt__graph_parse, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__model_derive(lqt_model *base, const lqt__file *file, void *owner,
                                           void (*owner_free)(void *owner), lqt_model **out,
                                           lqt_diag *diag);

/* Makes the canonical weight of a tensor; buffers it needs go to cache->owned. */
LQT_NODISCARD lqt_status lqt__weight_make(const lqt__file *file, size_t index, const char *where,
                                          lqt__weight_cache *cache, lqt_diag *diag);

#endif /* LQT_RUNTIME_MODEL_MODEL_H_ */
