/* Strict JSON (jansson): UTF-8, no duplicate keys, bounded depth. */
#ifndef LQT_RUNTIME_BASE_JSON_H_
#define LQT_RUNTIME_BASE_JSON_H_

#include <jansson.h>

#include "lqt/status.h"

/* Parses `bytes` bytes (not terminated). The caller drops it with json_decref. `where` names the
 * input in the diag. Errors: LQT_BAD_JSON (offset = byte position), LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__json_parse(const char *text, size_t bytes, const char *where,
                                         json_t **out, lqt_diag *diag);

#endif /* LQT_RUNTIME_BASE_JSON_H_ */
