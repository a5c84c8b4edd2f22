/* What tests hang on the layer's system calls: a failure of the nth one, and a record of everything
 * that changes a file. For the files of this layer. */
#ifndef LQT_RUNTIME_IO_HOOK_H_
#define LQT_RUNTIME_IO_HOOK_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True when the system call about to be made is to fail; errno is then ENOSPC, what a full disk
 * says. Counts the call. Threads: any. */
bool lqt__io_fails(void);

typedef enum lqt__io_event_kind {
  LQT__IO_CREATE,         /* an empty file of that name */
  LQT__IO_WRITE,          /* data[bytes] at offset */
  LQT__IO_TRUNCATE,       /* the file has `offset` bytes now */
  LQT__IO_SYNC,           /* what was written to the file so far is on the disk */
  LQT__IO_RENAME,         /* path became target */
  LQT__IO_REMOVE,         /* the name is gone */
  LQT__IO_SYNC_DIRECTORY, /* names created, renamed and removed in the folder are on the disk */
} lqt__io_event_kind;

typedef struct lqt__io_event {
  lqt__io_event_kind kind;
  const char *path, *target;
  uint64_t offset;
  const void *data;
  size_t bytes;
} lqt__io_event;

/* Tests: `record` is called after each call that succeeded, in their order; NULL ends it. */
typedef void (*lqt__io_record_fn)(void *user, const lqt__io_event *event);
void lqt__io_record(lqt__io_record_fn record, void *user);
void lqt__io_tell(lqt__io_event event);

#endif /* LQT_RUNTIME_IO_HOOK_H_ */
