/* Keys in files. */
#include "base/key.h"

#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "io/file.h"
#include "lqt/journal.h"

lqt_status lqt_key_generate(lqt_key **out_key, lqt_diag *diag) {
  if (out_key == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "key", "out_key must not be NULL");
  }
  return lqt__key_generate(out_key, diag);
}

lqt_status lqt_key_read(const char *path, lqt_key **out_key, lqt_diag *diag) {
  if (out_key != NULL) *out_key = NULL;
  if (path == NULL || out_key == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "key", "path and out_key must not be NULL");
  }
  char *text;
  size_t bytes;
  LQT__TRY(lqt__file_read(path, 65536, &text, &bytes, diag));
  lqt_status status = lqt__key_parse(text, bytes, path, out_key, diag);
  memset(text, 0, bytes);
  lqt__free(text);
  return status;
}

lqt_status lqt_key_write(const lqt_key *key, bool private_half, const char *path, lqt_diag *diag) {
  if (key == NULL || path == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "key", "key and path must not be NULL");
  }
  if (private_half && !lqt__key_can_sign(key)) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, path, "a public key has no private half");
  }
  char text[LQT__KEY_PEM_BYTES];
  LQT__TRY(lqt__key_print(key, private_half, text, diag));
  lqt_status status =
      lqt__file_write_new(path, text, strlen(text), private_half ? 0600 : 0644, diag);
  memset(text, 0, sizeof text);
  return status;
}

void lqt_key_destroy(lqt_key *key) { lqt__key_destroy(key); }
const uint8_t *lqt_key_public(const lqt_key *key) { return lqt__key_public(key); }
bool lqt_key_can_sign(const lqt_key *key) { return lqt__key_can_sign(key); }
