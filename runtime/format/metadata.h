/* The metadata's chunks. Internal to runtime/format. */
#ifndef LQT_RUNTIME_FORMAT_METADATA_H_
#define LQT_RUNTIME_FORMAT_METADATA_H_

#include "format/format.h"

/* State of one lqt__file_parse. */
typedef struct lqt__parser {
  const uint8_t *data;
  uint64_t bytes;
  const char *where;
  bool big, partial;
  uint64_t align; /* of sections: 64 or 4 */
  uint8_t digest[32];
  lqt__file *file;
  lqt_diag *diag;
} lqt__parser;

/* Splits the metadata into chunks and reads those that have fields in lqt__file; fills
 * file->sections, unsorted. Errors: LQT_BAD_METADATA, LQT_BAD_TENSOR, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__metadata_parse(lqt__parser *parser);
/* Checks that the digest chunk, if there is one, names exactly the file's sections. */
LQT_NODISCARD lqt_status lqt__digests_check(lqt__parser *parser);

#endif /* LQT_RUNTIME_FORMAT_METADATA_H_ */
