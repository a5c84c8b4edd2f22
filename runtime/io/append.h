/* A file that is written in place at its end, synced there, and has one writer: a journal. A writer
 * holds a lock that other processes and other handles of this one respect; readers take none. */
#ifndef LQT_RUNTIME_IO_APPEND_H_
#define LQT_RUNTIME_IO_APPEND_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lqt/status.h"

typedef struct lqt__append_file lqt__append_file;
typedef enum lqt__append_mode {
  LQT__APPEND_READ,
  LQT__APPEND_WRITE,  /* the file must be there */
  LQT__APPEND_CREATE, /* an empty one is made when there is none */
} lqt__append_mode;

/* A writer syncs the folder: the name may be one that an interrupted process left unsynced.
 * Errors: LQT_NOT_FOUND, LQT_LOCKED (another writer), LQT_IO, LQT_INVALID_ARGUMENT (not a regular
 * file), LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__append_open(const char *path, lqt__append_mode mode,
                                          lqt__append_file **out, lqt_diag *diag);
void lqt__append_close(lqt__append_file *file); /* NULL accepted */
/* True when opening made the file. */
bool lqt__append_was_created(const lqt__append_file *file);
/* The path through symbolic links, as it was opened. */
const char *lqt__append_path(const lqt__append_file *file);

LQT_NODISCARD lqt_status lqt__append_size(lqt__append_file *file, uint64_t *out_bytes,
                                          lqt_diag *diag);
/* Reads up to `bytes` bytes; fewer at the end of the file. */
LQT_NODISCARD lqt_status lqt__append_read(lqt__append_file *file, uint64_t offset, void *data,
                                          size_t bytes, size_t *out_bytes, lqt_diag *diag);
/* Errors: LQT_NO_SPACE (part of the bytes may be written), LQT_IO. */
LQT_NODISCARD lqt_status lqt__append_write(lqt__append_file *file, uint64_t offset,
                                           const void *data, size_t bytes, lqt_diag *diag);
/* What was written before the call is on the disk after it. Threads: any, also beside a write. */
LQT_NODISCARD lqt_status lqt__append_sync(lqt__append_file *file, lqt_diag *diag);
LQT_NODISCARD lqt_status lqt__append_truncate(lqt__append_file *file, uint64_t bytes,
                                              lqt_diag *diag);
/* Does a writer hold the lock of the file that a reader has open? */
LQT_NODISCARD lqt_status lqt__append_has_writer(lqt__append_file *file, bool *out_has,
                                                lqt_diag *diag);
/* True when the path names another file than the open one, or none. */
LQT_NODISCARD lqt_status lqt__append_was_replaced(lqt__append_file *file, bool *out_replaced,
                                                  lqt_diag *diag);
/* A writer's file becomes data[bytes] as a whole: a new file beside it, locked and synced, takes
 * its name. *out_done: it has the name, and the handle is the new file's; when the call failed even
 * so, the folder could not be synced, and a crash may bring the old file back. */
LQT_NODISCARD lqt_status lqt__append_replace(lqt__append_file *file, const void *data, size_t bytes,
                                             bool *out_done, lqt_diag *diag);
/* Takes a writer's file away. */
void lqt__append_remove(lqt__append_file *file);

#endif /* LQT_RUNTIME_IO_APPEND_H_ */
