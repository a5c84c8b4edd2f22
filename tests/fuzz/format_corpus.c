/* Writes the seeds of fuzz_format into a folder: the sample, the same in big-endian order, and a
 * small file for each tensor of the sample with what it refers to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit/format/sample.h"
#include "unit/format/turn.h"

static const char small_graph[] =
    "{\"version\": 1, \"modules\": [{\"id\": \"e\", \"type\": \"embedding\", \"inputs\": [\"x\"],"
    "\"outputs\": [\"y\"], \"tensors\": {\"weight\": \"embed.weight\"}}],"
    "\"connections\": [], \"inputs\": [{\"name\": \"i\", \"to\": \"e:0\"}],"
    "\"outputs\": [{\"name\": \"o\", \"from\": \"e:0\"}]}";

static int put(const char *folder, const char *name, const lqt__file *file, bool big) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s.lqt", folder, name);
  size_t bytes;
  lqt_diag diag = {0};
  uint8_t *data = sample_write(file, path, &bytes, &diag);
  if (data == NULL) {
    fprintf(stderr, "%s: %s\n", path, diag.what);
    return 1;
  }
  lqt_status status = LQT_OK;
  if (big) {
    turn_big_endian(data, bytes);
    status = lqt__file_write(path, data, bytes, &diag);
  }
  lqt__free(data);
  return status == LQT_OK ? 0 : 1;
}

/* The file with tensor `index` alone. */
static int put_tensor(const char *folder, const lqt__file *file, size_t index) {
  lqt__file one = *file;
  const lqt__tensor *t = &file->tensors[index];
  lqt__codebook codebooks[2];
  one.tensors = &file->tensors[index];
  one.tensor_count = 1;
  one.codebooks = codebooks;
  one.codebook_count = one.delta_count = one.mask_count = one.chunk_count = 0;
  one.hyperparameter_count = 0;
  one.edit_log = (lqt__blob){0};
  one.edit_count = 0;
  for (size_t i = 0; i < file->codebook_count; i++) {
    uint16_t id = file->codebooks[i].id;
    if (id == t->codebook_id || id == t->residual_codebook_id) {
      codebooks[one.codebook_count++] = file->codebooks[i];
    }
  }
  if (t->delta_id != LQT_ID_NONE) {
    one.deltas = &file->deltas[lqt__file_find_delta(file, t->delta_id)];
    one.delta_count = 1;
  }
  if (t->mask_id != LQT_ID_NONE) {
    one.masks = &file->masks[lqt__file_find_mask(file, t->mask_id)];
    one.mask_count = 1;
  }
  lqt__chunk chunk = {.type = LQT__CHUNK_MODULES,
                      .data = (const uint8_t *)small_graph,
                      .bytes = sizeof small_graph - 1};
  if (index == SAMPLE_EMBED) {
    one.chunks = &chunk;
    one.chunk_count = 1;
  }
  return put(folder, t->name, &one, false);
}

int main(int argc, char **argv) {
  sample s;
  if (argc != 2 || !sample_make(&s, SAMPLE_SEED)) {
    fprintf(stderr, "usage: format_corpus FOLDER\n");
    return 2;
  }
  int failed = put(argv[1], "sample", &s.file, false) | put(argv[1], "sample_big", &s.file, true);
  for (size_t i = 0; i < s.file.tensor_count; i++) failed |= put_tensor(argv[1], &s.file, i);
  sample_free(&s);
  return failed;
}
