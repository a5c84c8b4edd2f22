#include <string.h>

#include "base/diag.h"
#include "lqt/quantize.h"

typedef struct named_shape {
  const char *name;
  lqt_synth_shape shape;
} named_shape;

static const named_shape shapes[] = {
    {"tiny",
     {.hidden = 128,
      .layers = 2,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 32,
      .ffn = 384,
      .vocab = 512,
      .context = 512,
      .tied = true}},
    {"llama2-7b",
     {.hidden = 4096,
      .layers = 32,
      .heads = 32,
      .kv_heads = 32,
      .head_dim = 128,
      .ffn = 11008,
      .vocab = 32000,
      .context = 4096}},
    {"llama3-8b",
     {.hidden = 4096,
      .layers = 32,
      .heads = 32,
      .kv_heads = 8,
      .head_dim = 128,
      .ffn = 14336,
      .vocab = 128256,
      .context = 8192}},
    {"llama2-70b",
     {.hidden = 8192,
      .layers = 80,
      .heads = 64,
      .kv_heads = 8,
      .head_dim = 128,
      .ffn = 28672,
      .vocab = 32000,
      .context = 4096}},
};
enum { SHAPE_COUNT = sizeof shapes / sizeof shapes[0] };

lqt_status lqt_synth_named(const char *name, lqt_synth_shape *out_shape) {
  *out_shape = (lqt_synth_shape){0};
  for (size_t i = 0; name != NULL && i < SHAPE_COUNT; i++) {
    if (strcmp(shapes[i].name, name) != 0) continue;
    *out_shape = shapes[i].shape;
    return LQT_OK;
  }
  return LQT_NOT_FOUND;
}

const char *lqt_synth_name(size_t index) { return index < SHAPE_COUNT ? shapes[index].name : NULL; }
