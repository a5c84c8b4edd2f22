/* The only place that touches files: read-only maps, and output files that appear whole or not at
 * all. Tests make the nth system call fail (LQT_FAIL_IO=n in the environment, or
 * lqt__io_fail_after). */
#ifndef LQT_RUNTIME_IO_FILE_H_
#define LQT_RUNTIME_IO_FILE_H_

#include <stddef.h>
#include <stdint.h>

#include "lqt/status.h"

/* A read-only mapping of a whole file. Empty files map to data = NULL, bytes = 0. */
typedef struct lqt__map {
  const uint8_t *data;
  size_t bytes;
} lqt__map;
/* Errors: LQT_NOT_FOUND, LQT_IO (native = errno), LQT_INVALID_ARGUMENT (not a regular file). */
LQT_NODISCARD lqt_status lqt__map_open(const char *path, lqt__map *out, lqt_diag *diag);
void lqt__map_close(lqt__map *map);
typedef enum lqt__map_advice {
  LQT__ADVICE_NORMAL,
  LQT__ADVICE_SEQUENTIAL, /* will be read once in order */
  LQT__ADVICE_DROP,       /* pages of the range may leave memory */
} lqt__map_advice;
void lqt__map_advise(const lqt__map *map, size_t offset, size_t bytes, lqt__map_advice advice);

/* A file that is written beside `path` under a temporary name and takes its place on commit, after
 * its bytes and then the directory are synced. Until then `path` is as it was. */
typedef struct lqt__output lqt__output;
/* Errors: LQT_IO, LQT_NOT_FOUND (no such directory), LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__output_begin(const char *path, lqt__output **out, lqt_diag *diag);
/* Writes all bytes at `offset`; any order; gaps read as zeros. */
LQT_NODISCARD lqt_status lqt__output_write(lqt__output *output, uint64_t offset, const void *data,
                                           size_t bytes, lqt_diag *diag);
/* Reads bytes back that were written (all of them: a short read is an error). */
LQT_NODISCARD lqt_status lqt__output_read(lqt__output *output, uint64_t offset, void *data,
                                          size_t bytes, lqt_diag *diag);
/* Ends the output, whatever it returns: on failure the temporary file is gone. */
LQT_NODISCARD lqt_status lqt__output_commit(lqt__output *output, lqt_diag *diag);
void lqt__output_abort(lqt__output *output); /* NULL accepted */
/* Could an output to `path` begin? For a word before long work; leaves nothing behind. */
LQT_NODISCARD lqt_status lqt__output_probe(const char *path, lqt_diag *diag);

/* Reads a small file whole (at most `limit` bytes; LQT_LIMIT beyond); *out_data is terminated with
 * a zero byte that is not counted and freed with lqt__free. */
LQT_NODISCARD lqt_status lqt__file_read(const char *path, size_t limit, char **out_data,
                                        size_t *out_bytes, lqt_diag *diag);
/* Writes a small file atomically. */
LQT_NODISCARD lqt_status lqt__file_write(const char *path, const void *data, size_t bytes,
                                         lqt_diag *diag);

/* Writes a small file that must not be there yet, with `mode` (less the umask). Errors:
 * LQT_CONFLICT (it is there), LQT_IO. */
LQT_NODISCARD lqt_status lqt__file_write_new(const char *path, const void *data, size_t bytes,
                                             unsigned mode, lqt_diag *diag);

/* Tests: the system call after `countdown` more fails once; negative = never. */
void lqt__io_fail_after(int64_t countdown);
uint64_t lqt__io_call_count(void);

#endif /* LQT_RUNTIME_IO_FILE_H_ */
