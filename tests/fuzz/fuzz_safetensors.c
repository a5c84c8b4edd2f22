/* The parsers of untrusted model folders: a safetensors file, or (when the input begins with a
 * brace) a config.json. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "import/llama.h"
#include "import/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  lqt_diag diag = {0};
  if (size > 0 && data[0] == '{') {
    lqt__llama llama;
    if (lqt__llama_config((const char *)data, size, "fuzz", &llama, &diag) != LQT_OK) return 0;
    if (llama.layers > 64) return 0;
    char *graph;
    size_t bytes;
    if (lqt__llama_graph(&llama, &graph, &bytes, &diag) == LQT_OK) lqt__free(graph);
    for (size_t i = 0; i < lqt__llama_tensor_count(&llama); i++) {
      lqt__llama_tensor tensor;
      lqt__llama_tensor_at(&llama, i, &tensor);
      if (tensor.rows == 0 || tensor.cols == 0) abort();
    }
    return 0;
  }
  lqt__safetensors file;
  if (lqt__safetensors_parse(data, size, "fuzz", &file, &diag) != LQT_OK) return 0;
  for (size_t i = 0; i < file.count; i++) {
    const lqt__st_tensor *t = &file.tensors[i];
    if (t->offset > size || t->bytes > size - t->offset) abort();
    if (lqt__safetensors_find(&file, t->name) == NULL) abort();
  }
  lqt__safetensors_free(&file);
  return 0;
}
