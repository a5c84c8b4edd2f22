/* Model folders: what is read, and what is refused with which status. */
#include "import/source.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "io/file.h"
#include "support/hf_model.h"

static lqt_status open_spec(const hf_spec *spec, lqt__source *source, lqt_diag *diag) {
  memset(diag, 0, sizeof *diag);
  return lqt__source_open(hf_create(spec), source, diag);
}

static void check_values(const lqt__source *source) {
  size_t count = lqt__llama_tensor_count(&source->llama);
  for (size_t i = 0; i < count; i++) {
    lqt__llama_tensor tensor;
    lqt__source_view view;
    lqt__llama_tensor_at(&source->llama, i, &tensor);
    cr_assert(lqt__source_find(source, &tensor, &view, NULL) == LQT_OK);
    uint64_t n;
    const double *want = hf_weights(tensor.name, &n);
    cr_assert(want != NULL && n == view.rows * view.cols, "%s", tensor.name);
    float *got = malloc(n * sizeof(float));
    cr_assert(lqt__source_read(&view, 0, n, got, NULL) == LQT_OK);
    for (uint64_t k = 0; k < n; k++) cr_assert(got[k] == (float)want[k], "%s", tensor.name);
    free(got);
  }
}

Test(source, reads_every_type_and_layout) {
  static const char *const types[] = {"F32", "F16", "BF16"};
  for (unsigned i = 0; i < 3; i++) {
    for (uint32_t files = 1; files <= 3; files += 2) {
      hf_spec spec = hf_default();
      spec.dtype = types[i];
      spec.files = files;
      spec.tied = i != 1;
      spec.bias = i == 2;
      lqt__source source;
      lqt_diag diag;
      cr_assert(open_spec(&spec, &source, &diag) == LQT_OK, "%s: %s", diag.where, diag.what);
      cr_assert(source.file_count == files);
      cr_assert(source.llama.eos == 1 && source.llama.bos == 0);
      check_values(&source);
      lqt__source_close(&source);
    }
  }
}

static void refuse(const hf_spec *spec, lqt_status status, const char *says) {
  lqt__source source;
  lqt_diag diag;
  lqt_status got = open_spec(spec, &source, &diag);
  cr_assert(got == status, "%s: %s, not %s (%s)", says, lqt_status_name(got),
            lqt_status_name(status), diag.what);
  cr_assert(diag.status == status);
  cr_assert(strstr(diag.what, says) != NULL || strstr(diag.where, says) != NULL, "%s: %s: %s", says,
            diag.where, diag.what);
}

Test(source, refuses_damaged_weights) {
  hf_spec spec = hf_default();
  spec.missing = "model.layers.1.mlp.up_proj.weight";
  refuse(&spec, LQT_BAD_SOURCE, "model.layers.1.mlp.up_proj.weight");
  spec = hf_default();
  spec.misshapen = "model.layers.0.self_attn.k_proj.weight";
  refuse(&spec, LQT_BAD_SOURCE, "model.layers.0.self_attn.k_proj.weight");
  spec = hf_default();
  spec.retyped = "model.layers.0.self_attn.q_proj.weight";
  refuse(&spec, LQT_BAD_SOURCE, "model.layers.0.self_attn.q_proj.weight");
  spec = hf_default();
  spec.surplus = "model.layers.0.self_attn.q_norm.weight";
  refuse(&spec, LQT_BAD_SOURCE, "q_norm");
  spec = hf_default();
  spec.tied = false;
  spec.missing = "lm_head.weight";
  refuse(&spec, LQT_BAD_SOURCE, "lm_head.weight");
}

Test(source, refuses_other_configurations) {
  static const struct {
    const char *config;
    lqt_status status;
    const char *says;
  } rows[] = {
      {",\"mlp_bias\":true", LQT_UNSUPPORTED, "mlp_bias"},
      {",\"quantization_config\":{}", LQT_UNSUPPORTED, "quantized already"},
      {",\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}", LQT_UNSUPPORTED, "longrope"},
      {",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":0}", LQT_BAD_SOURCE, "factor"},
      {",\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}", LQT_BAD_SOURCE, "factor"},
      {",\"rope_theta\":\"x\"", LQT_BAD_SOURCE, "rope_theta"},
      {",\"head_dim\":0", LQT_BAD_SOURCE, "head_dim"},
      {",\"head_dim\":-3", LQT_BAD_SOURCE, "head_dim"},
      {",\"hidden_size\":64", LQT_BAD_JSON, "duplicate"},
      {",\"partial_rotary_factor\":0.01", LQT_BAD_SOURCE, "rotary"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    hf_spec spec = hf_default();
    spec.config = rows[i].config;
    refuse(&spec, rows[i].status, rows[i].says);
  }
  hf_spec spec = hf_default();
  spec.kv_heads = 3;
  refuse(&spec, LQT_BAD_SOURCE, "key-value heads");
}

Test(source, reads_rotary_spellings) {
  static const struct {
    const char *config;
    lqt__rope_type type;
    double theta, factor, original;
    uint32_t context; /* 0: as configured */
  } rows[] = {
      {"", LQT__ROPE_DEFAULT, 10000, 1, 0, 0},
      {",\"rope_theta\":500000.0", LQT__ROPE_DEFAULT, 500000, 1, 0, 0},
      {",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":20000}", LQT__ROPE_DEFAULT,
       20000, 1, 256, 0},
      {",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}", LQT__ROPE_LINEAR, 10000, 4, 256,
       0},
      {",\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,"
       "\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}",
       LQT__ROPE_LLAMA3, 500000, 8, 8192, 0},
      {",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,"
       "\"original_max_position_embeddings\":128}",
       LQT__ROPE_YARN, 10000, 4, 128, 0},
      {",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}", LQT__ROPE_DEFAULT, 10000, 1, 256,
       0},
      {",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2,"
       "\"original_max_position_embeddings\":128}",
       LQT__ROPE_DEFAULT, 10000, 1, 128, 128},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    hf_spec spec = hf_default();
    spec.config = rows[i].config;
    lqt__source source;
    lqt_diag diag;
    cr_assert(open_spec(&spec, &source, &diag) == LQT_OK, "%s: %s", diag.where, diag.what);
    const lqt__rope *rope = &source.llama.rope;
    cr_assert(rope->type == rows[i].type && rope->theta == rows[i].theta &&
                  rope->factor == rows[i].factor && rope->original_context == rows[i].original,
              "row %zu", i);
    uint32_t context = rows[i].context != 0 ? rows[i].context : 256;
    cr_assert(source.llama.context == context, "row %zu: context %u", i, source.llama.context);
    if (rope->type == LQT__ROPE_YARN) {
      cr_assert(fabs(rope->attention_factor - (0.1 * log(4) + 1)) < 1e-12);
    }
    lqt__source_close(&source);
  }
}

/* Headers of safetensors files that must be refused; %s stands for nothing. */
Test(source, refuses_bad_safetensors) {
  static const struct {
    const char *header;
    size_t data;
    lqt_status status;
  } rows[] = {
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, LQT_TRUNCATED},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 12, LQT_BAD_SOURCE},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, LQT_BAD_SOURCE},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
       "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
       6, LQT_BAD_SOURCE},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
       "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
       12, LQT_BAD_SOURCE},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
       "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
       8, LQT_BAD_JSON},
      {"{\"a\":{\"dtype\":\"F99\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, LQT_BAD_SOURCE},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, LQT_BAD_SOURCE},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, LQT_BAD_SOURCE},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,0]}}", 0,
       LQT_BAD_SOURCE},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, LQT_BAD_SOURCE},
      {"{\"a\":3}", 0, LQT_BAD_SOURCE},
      {"[1,2]", 0, LQT_BAD_SOURCE},
      {"{\"a\":", 0, LQT_BAD_JSON},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    uint8_t data[512] = {0};
    size_t n = strlen(rows[i].header);
    data[0] = (uint8_t)n;
    data[1] = (uint8_t)(n >> 8);
    memcpy(data + 8, rows[i].header, n);
    lqt__safetensors file;
    lqt_diag diag = {0};
    lqt_status got = lqt__safetensors_parse(data, 8 + n + rows[i].data, "test", &file, &diag);
    cr_assert(got == rows[i].status, "row %zu: %s: %s", i, lqt_status_name(got), diag.what);
    cr_assert(file.tensors == NULL && file.count == 0);
  }
  uint8_t huge[16] = {255, 255, 255, 255, 255, 255, 255, 127};
  lqt__safetensors file;
  cr_assert(lqt__safetensors_parse(huge, 16, "test", &file, NULL) == LQT_BAD_SOURCE);
  huge[3] = huge[4] = huge[5] = huge[6] = huge[7] = 0;
  cr_assert(lqt__safetensors_parse(huge, 16, "test", &file, NULL) == LQT_TRUNCATED);
  cr_assert(lqt__safetensors_parse(huge, 5, "test", &file, NULL) == LQT_TRUNCATED);
}

Test(source, refuses_other_folders) {
  lqt__source source;
  lqt_diag diag = {0};
  cr_assert(lqt__source_open("/nonexistent/folder", &source, &diag) == LQT_NOT_FOUND);
  hf_spec spec = hf_default();
  const char *folder = hf_create(&spec);
  hf_put("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"../x\"}}", 27);
  cr_assert(lqt__source_open(folder, &source, &diag) == LQT_BAD_SOURCE, "%s", diag.what);
  hf_put("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"gone.bin\"}}", 31);
  cr_assert(lqt__source_open(folder, &source, &diag) == LQT_NOT_FOUND, "%s", diag.what);
  hf_put("model.safetensors.index.json", "{\"weight_map\":{\"a\":\"model.safetensors\"}}", 40);
  cr_assert(lqt__source_open(folder, &source, &diag) == LQT_BAD_SOURCE, "%s", diag.what);
  hf_put("config.json", "{\"architectures\":[\"GPT2LMHeadModel\"]}", 37);
  cr_assert(lqt__source_open(folder, &source, &diag) == LQT_UNSUPPORTED, "%s", diag.what);
}

/* Every allocation and every system call failed once: a status, nothing left behind. */
Test(source, survives_faults) {
  hf_spec spec = hf_default();
  spec.files = 2;
  const char *folder = hf_create(&spec);
  for (int kind = 0; kind < 2; kind++) {
    bool ended = false;
    for (int64_t n = 0; n < 10000 && !ended; n++) {
      lqt__source source;
      if (kind == 0) lqt__alloc_fail_after(n);
      if (kind == 1) lqt__io_fail_after(n);
      lqt_status status = lqt__source_open(folder, &source, NULL);
      lqt__alloc_fail_after(-1);
      lqt__io_fail_after(-1);
      if (status == LQT_OK) {
        ended = true;
        lqt__source_close(&source);
      } else {
        cr_assert(status == (kind == 0 ? LQT_OUT_OF_MEMORY : LQT_IO), "%s at %d",
                  lqt_status_name(status), (int)n);
      }
    }
    cr_assert(ended);
  }
}
