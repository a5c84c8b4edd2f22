/* Parts of `lqt inspect` that its files share. */
#ifndef LQT_TOOLS_INSPECT_H_
#define LQT_TOOLS_INSPECT_H_

#include "common.h"

enum {
  INSPECT_HEADER = 1 << 0,
  INSPECT_METADATA = 1 << 1,
  INSPECT_MODULES = 1 << 2,
  INSPECT_CODEBOOKS = 1 << 3,
  INSPECT_TENSORS = 1 << 4,
  INSPECT_DELTAS = 1 << 5,
  INSPECT_MASKS = 1 << 6,
  INSPECT_EDIT_LOG = 1 << 7,
};

/* Chunk types that are JSON text (docs/format.md). */
enum { INSPECT_CHUNK_MODULES = 0x0003, INSPECT_CHUNK_PROVENANCE = 0x0014 };

/* The parts asked for (0: all) under the summary; NULL without memory. */
json_t *inspect_json(const lqt_model *model, unsigned parts);
/* The module graph; `layout`: repeated layers once, with their number. False without memory. */
bool inspect_print_modules(const lqt_model *model, bool layout);

const char *inspect_chunk_name(uint16_t type);
void inspect_shape_text(const lqt_tensor_info *tensor, char *out, size_t size);
const char *inspect_scope_name(uint32_t scope);
const char *inspect_delta_encoding(uint8_t encoding);
const char *inspect_mask_encoding(uint8_t encoding);

#endif /* LQT_TOOLS_INSPECT_H_ */
