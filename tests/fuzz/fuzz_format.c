/* Opens any bytes as a model and reads everything that it offers. The input's digests and checksum
 * are made to fit first: otherwise nothing but the digest check would be reached. */
#include <stdlib.h>
#include <string.h>

#include "format/format.h"
#include "lqt/model.h"
#include "support/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Keeps results from being optimised away. */
static volatile uint64_t sink;

static void inspect(const lqt_model *model) {
  lqt_model_info info;
  lqt_model_get_info(model, &info);
  uint64_t sum = info.parameters + info.quantized_bytes;
  lqt_codebook_info codebook;
  for (size_t i = 0; lqt_model_codebook(model, i, &codebook) == LQT_OK; i++) {
    float vector[8];
    for (uint32_t v = 0; v < codebook.vectors && v < 70000; v += 1 + codebook.vectors / 64) {
      sum += lqt_model_codebook_vector(model, codebook.id, v, vector, NULL) == LQT_OK;
    }
    sum += codebook.users;
  }
  lqt_delta_info delta;
  for (size_t i = 0; lqt_model_delta(model, i, &delta) == LQT_OK; i++) sum += delta.count;
  lqt_mask_info mask;
  for (size_t i = 0; lqt_model_mask(model, i, &mask) == LQT_OK; i++) sum += mask.count;
  const char *key;
  float value;
  for (size_t i = 0; lqt_model_hyperparameter(model, i, &key, &value) == LQT_OK; i++) {
    sum += strlen(key) + (lqt_model_hyperparameter_get(model, key, 0) == value);
  }
  lqt_section_info section;
  for (size_t i = 0; lqt_model_section(model, i, &section) == LQT_OK; i++) {
    sum += strlen(section.name) + section.bytes;
  }
  for (size_t i = 0; lqt_model_missing(model, i, &section) == LQT_OK; i++) sum += section.bytes;
  for (uint16_t type = 0; type < 0x16; type++) {
    const void *chunk;
    size_t bytes;
    if (lqt_model_chunk(model, type, &chunk, &bytes) != LQT_OK) continue;
    for (size_t i = 0; i < bytes; i++) sum += ((const uint8_t *)chunk)[i];
  }
  sink += sum;
}

/* First, middle and last row of every tensor. */
static void read_weights(const lqt_model *model) {
  lqt_tensor_info info;
  for (size_t i = 0; lqt_model_tensor(model, i, &info) == LQT_OK; i++) {
    size_t found;
    if (lqt_model_find_tensor(model, info.name, &found) != LQT_OK || found != i) abort();
    lqt_weight_desc desc;
    if (lqt_model_weight(model, i, &desc, NULL) != LQT_OK) continue;
    uint64_t cols = desc.cols < 4096 ? desc.cols : 4096;
    float row[4096];
    const uint64_t rows[3] = {0, desc.rows / 2, desc.rows - 1};
    for (int k = 0; k < 3; k++) {
      if (lqt_weight_desc_row(&desc, rows[k], desc.cols - cols, cols, row) != LQT_OK) abort();
      sink += row[cols - 1] > 0;
    }
  }
}

static void take_finding(void *user, const lqt_diag *finding) {
  if (finding->status == LQT_OK || finding->what[0] == '\0') abort();
  ++*(size_t *)user;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *copy = malloc(size != 0 ? size : 1);
  if (copy == NULL) return 0;
  memcpy(copy, data, size);
  test_seal(copy, size);
  lqt_model_options options = {.size = sizeof options, .partial = size % 4 == 1};
  lqt_model *model;
  lqt_diag diag = {0};
  lqt_status status = lqt_model_open_memory(copy, size, &options, &model, &diag);
  if (status != LQT_OK) {
    if (model != NULL || diag.status != status || diag.what[0] == '\0') abort();
  } else {
    size_t findings = 0;
    inspect(model);
    read_weights(model);
    status = lqt_model_validate(model, NULL, take_finding, &findings, NULL);
    if ((status == LQT_OK) != (findings == 0)) abort();
    lqt_model_release(model);
  }
  free(copy);
  return 0;
}
