#include "base/json.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/diag.h"

/* jansson's allocator is the whole process's, the application's too: it is ours only while
 * allocation faults are being injected. */
static void count_json_allocations(void) __attribute__((constructor));
static void count_json_allocations(void) {
  if (getenv("LQT_FAIL_ALLOC") != NULL) json_set_alloc_funcs(lqt__alloc, lqt__free);
}

lqt_status lqt__json_parse(const char *text, size_t bytes, const char *where, json_t **out,
                           lqt_diag *diag) {
  json_error_t error;
  uint64_t failures = lqt__alloc_failures();
  *out = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
  /* A failed allocation makes jansson drop bytes of a string in silence, or call the rest bad
   * syntax. */
  bool no_memory = lqt__alloc_failures() != failures;
  if (*out != NULL && !no_memory) return LQT_OK;
  json_decref(*out);
  *out = NULL;
  if (no_memory || json_error_code(&error) == json_error_out_of_memory) {
    return lqt__fail_memory(diag, where, bytes, "JSON");
  }
  uint64_t offset = error.position >= 0 ? (uint64_t)error.position : LQT__NO_OFFSET;
  return lqt__fail_at(diag, LQT_BAD_JSON, where, offset, "bad JSON at line %d, column %d: %s",
                      error.line, error.column, error.text);
}
