#include "edit/reference.h"

#include <string.h>

#include "base/diag.h"
#include "base/hash.h"

static lqt_status hash_file(const char *path, const uint8_t *data, size_t bytes, uint8_t out[32],
                            lqt_diag *diag) {
  lqt_status status = lqt__sha256(data, bytes, out);
  return status == LQT_OK ? LQT_OK : lqt__fail_memory(diag, path, 0, "a digest");
}

lqt_status lqt__reference_digest(const char *path, uint8_t out[32], lqt_diag *diag) {
  lqt__map map;
  LQT__TRY(lqt__map_open(path, &map, diag));
  lqt_status status = hash_file(path, map.data, map.bytes, out, diag);
  lqt__map_close(&map);
  return status;
}

lqt_status lqt__reference_open(const char *path, const uint8_t *digest, lqt_model **out,
                               lqt_diag *diag) {
  lqt_model_options options = {.size = sizeof options, .verify = true};
  lqt_diag finding = {0};
  lqt_status status = lqt_model_open(path, &options, out, &finding);
  if (status == LQT_NOT_FOUND || status == LQT_IO || status == LQT_OUT_OF_MEMORY) {
    if (diag != NULL) *diag = finding;
    return status;
  }
  if (status != LQT_OK) {
    return lqt__fail(diag, LQT_REPLACEMENT_INVALID, path, "not a sound model: %s", finding.what);
  }
  uint8_t found[32];
  if (digest != NULL) {
    status = hash_file(path, (*out)->map.data, (*out)->map.bytes, found, diag);
    if (status == LQT_OK && memcmp(found, digest, sizeof found) != 0) {
      status = lqt__fail(diag, LQT_REPLACEMENT_INVALID, path,
                         "the file is not the one that the edit was made from");
    }
  }
  if (status != LQT_OK) {
    lqt_model_release(*out);
    *out = NULL;
  }
  return status;
}
