#include "base/diag.h"
#include "lqt/model.h"
#include "lqt/tokenizer.h"
#include "model/model.h"
#include "text/tokenizer.h"

lqt_status lqt_tokenizer_from_model(const lqt_model *model, lqt_tokenizer **out_tokenizer,
                                    lqt_diag *diag) {
  if (out_tokenizer != NULL) *out_tokenizer = NULL;
  if (model == NULL || out_tokenizer == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "tokenizer",
                     "model and out_tokenizer must not be NULL");
  }
  const void *data;
  size_t bytes;
  if (lqt_model_chunk(model, LQT__CHUNK_VOCABULARY, &data, &bytes) != LQT_OK) {
    return lqt__fail(diag, LQT_NOT_FOUND, model->path,
                     "the model has no tokenizer, so it takes token ids only; quantize it from a "
                     "folder with a tokenizer.json");
  }
  return lqt__tokenizer_from_chunk(data, bytes, out_tokenizer, diag);
}
