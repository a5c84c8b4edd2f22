/* Status codes and diagnostics shared by every LQT call.
 *
 * A function that can fail returns `lqt_status` and takes a nullable `lqt_diag *` as its last
 * argument before the outputs are documented. Outputs are NULL/zero on failure. */
#ifndef LQT_STATUS_H_
#define LQT_STATUS_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define LQT_API
#elif defined(__GNUC__)
#define LQT_API __attribute__((visibility("default")))
#else
#define LQT_API
#endif

#if defined(__GNUC__)
#define LQT_NODISCARD __attribute__((warn_unused_result))
#define LQT_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define LQT_NODISCARD
#define LQT_PRINTF(f, a)
#endif

/* X(NAME, number, text). Numbers are part of the ABI: never reuse or renumber one. */
#define LQT_STATUS_TABLE(X)                                      \
  X(OK, 0, "ok")                                                 \
  X(INVALID_ARGUMENT, 1, "invalid argument")                     \
  X(OUT_OF_MEMORY, 2, "out of memory")                           \
  X(IO, 3, "input/output error")                                 \
  X(NOT_FOUND, 4, "not found")                                   \
  X(UNSUPPORTED, 5, "not supported")                             \
  X(OUT_OF_RANGE, 6, "out of range")                             \
  X(OVERFLOW, 7, "size overflows")                               \
  X(CANCELLED, 8, "cancelled")                                   \
  X(INTERNAL, 9, "internal error")                               \
  X(NO_SPACE, 10, "the disk is full")                            \
  /* Files that were not written by us or were damaged since. */ \
  X(BAD_MAGIC, 100, "not an LQT file")                           \
  X(BAD_VERSION, 101, "unsupported format version")              \
  X(TRUNCATED, 102, "file is truncated")                         \
  X(BAD_HEADER, 103, "bad header")                               \
  X(BAD_METADATA, 104, "bad metadata")                           \
  X(BAD_TENSOR, 105, "bad tensor")                               \
  X(BAD_CODEBOOK, 106, "bad codebook")                           \
  X(BAD_DELTA, 107, "bad delta")                                 \
  X(BAD_MASK, 108, "bad sparse mask")                            \
  X(BAD_LAYOUT, 109, "bad section layout")                       \
  X(BAD_REFERENCE, 110, "reference does not resolve")            \
  X(BAD_JSON, 111, "bad JSON")                                   \
  X(BAD_GRAPH, 112, "bad module graph")                          \
  X(BAD_FOOTER, 113, "bad footer")                               \
  X(CHECKSUM, 114, "checksum mismatch")                          \
  X(BAD_TOKENIZER, 115, "bad tokenizer")                         \
  X(BAD_SOURCE, 116, "bad source model")                         \
  X(LIMIT, 117, "a limit was exceeded")                          \
  X(BAD_JOURNAL, 118, "bad journal")                             \
  X(BAD_SIGNATURE, 119, "signature is missing or wrong")         \
  X(WRONG_BASE, 120, "journal of another model file")            \
  /* Devices. */                                                 \
  X(DEVICE_NOT_AVAILABLE, 200, "device not available")           \
  X(DEVICE_LOST, 201, "device lost")                             \
  X(DEVICE_OUT_OF_MEMORY, 202, "device out of memory")           \
  X(DEVICE_FAILURE, 203, "device operation failed")              \
  X(DEVICE_UNSUPPORTED, 204, "device lacks a needed feature")    \
  /* Edits. */                                                   \
  X(IMMUTABLE, 300, "immutable")                                 \
  X(DIMENSION_MISMATCH, 301, "dimension mismatch")               \
  X(PERMISSION_DENIED, 302, "permission denied")                 \
  X(VALIDATION_FAILED, 303, "validation failed")                 \
  X(NOT_HOT_SWAPPABLE, 304, "not hot-swappable")                 \
  X(INCOMPATIBLE_INTERFACE, 305, "interfaces incompatible")      \
  X(REPLACEMENT_INVALID, 306, "replacement invalid")             \
  X(CONFLICT, 307, "conflict")                                   \
  X(STALE_REVISION, 308, "stale revision")                       \
  X(LOCKED, 309, "another writer has it open")                   \
  /* Sessions. */                                                \
  X(CONTEXT_FULL, 400, "context is full")                        \
  X(NOT_FINITE, 401, "a value is not finite")

#define LQT_STATUS_ENUM_(name, number, text) LQT_##name = (number),
typedef enum lqt_status {
  LQT_STATUS_TABLE(LQT_STATUS_ENUM_) LQT_STATUS_MAX_ = 0x7fffffff /* pins the enum to 32 bits */
} lqt_status;
#undef LQT_STATUS_ENUM_

/* Details of a failure. Fill with zeros (`lqt_diag d = {0};`) before the first use; a call writes
 * it only when it fails. All strings are always terminated. */
typedef struct lqt_diag {
  lqt_status status;
  int32_t native;  /* errno, CUresult or VkResult; 0 when there is none */
  uint64_t offset; /* byte offset in the input, or UINT64_MAX when it has none */
  char where[192]; /* file, tensor, module or device */
  char what[448];  /* one sentence: what is wrong and what to do */
} lqt_diag;

/* The text of a status ("unknown status" for a number that is none). Static storage.
 * Threads: any. */
LQT_API const char *lqt_status_text(lqt_status status);
/* The name of a status as it stands in the table, "BAD_MAGIC" for instance. Static storage.
 * Threads: any. */
LQT_API const char *lqt_status_name(lqt_status status);

#ifdef __cplusplus
}
#endif
#endif /* LQT_STATUS_H_ */
