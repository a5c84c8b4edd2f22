#include "models.h"

#include <criterion/criterion.h>
#include <unistd.h>

#include "support/data.h"

void golden_open(golden_model *g, const char *name) {
  char item[128], folder[1024], path[1024];
  lqt_diag diag = {0};
  snprintf(item, sizeof item, "models/%s", name);
  if (!test_data_path(item, folder, sizeof folder)) cr_skip_test("%s", folder);
  snprintf(item, sizeof item, "models/%s/reference.json", name);
  cr_assert(test_data_path(item, path, sizeof path), "%s", path);
  g->reference = json_load_file(path, 0, NULL);
  cr_assert_not_null(g->reference);
  snprintf(g->file, sizeof g->file, "/tmp/lqt-golden-%d-%s.lqt", (int)getpid(), name);
  lqt_quantize_options options;
  lqt_quantize_defaults(&options);
  options.bits = 0;
  options.embed_bits = 0;
  cr_assert_eq(lqt_quantize(folder, g->file, &options, NULL, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_model_open(g->file, NULL, &g->model, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_device_open("cpu", NULL, &g->device, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_engine_create(g->model, g->device, &g->engine, &diag), LQT_OK, "%s", diag.what);
}

void golden_close(golden_model *g) {
  lqt_engine_destroy(g->engine);
  lqt_device_release(g->device);
  lqt_model_release(g->model);
  json_decref(g->reference);
  unlink(g->file);
}

lqt_session *golden_session(const golden_model *g, lqt_dtype kv_dtype, uint32_t max_batch) {
  lqt_session_options options = {
      .size = sizeof options, .max_batch = max_batch, .kv_dtype = kv_dtype, .kv_dtype_set = true};
  lqt_session *session;
  uint32_t sequence;
  cr_assert_eq(lqt_session_create(g->engine, &options, &session, NULL), LQT_OK);
  cr_assert_eq(lqt_session_sequence_add(session, &sequence, NULL), LQT_OK);
  return session;
}
