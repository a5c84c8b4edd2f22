#include "io/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "io/hook.h"

lqt_status lqt__fail_io(lqt_diag *diag, const char *path, const char *doing) {
  int error = errno;
  lqt_status status = error == ENOENT || error == ENOTDIR ? LQT_NOT_FOUND : LQT_IO;
  return lqt__fail_errno(diag, status, path, error, "cannot %s", doing);
}

char *lqt__path_resolve(const char *path) {
  char *real = realpath(path, NULL);
  if (real == NULL) return lqt__strdup(path);
  char *copy = lqt__strdup(real);
  free(real);
  return copy;
}

char *lqt__path_directory(const char *path) {
  const char *slash = strrchr(path, '/');
  if (slash == NULL) return lqt__strdup(".");
  return lqt__strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

lqt_status lqt__path_rename(const char *from, const char *to, lqt_diag *diag) {
  if (lqt__io_fails() || rename(from, to) != 0) {
    return lqt__fail_io(diag, to, "rename the finished file");
  }
  lqt__io_tell((lqt__io_event){.kind = LQT__IO_RENAME, .path = from, .target = to});
  return LQT_OK;
}

void lqt__path_remove(const char *path) {
  if (unlink(path) == 0) lqt__io_tell((lqt__io_event){.kind = LQT__IO_REMOVE, .path = path});
}

lqt_status lqt__path_sync_directory(const char *path, const char *directory, lqt_diag *diag) {
  int fd = lqt__io_fails() ? -1 : open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return lqt__fail_io(diag, path, "open its directory to sync it");
  lqt_status status = LQT_OK;
  if ((lqt__io_fails() || fsync(fd) != 0) && errno != EINVAL) {
    status = lqt__fail_io(diag, path, "sync its directory");
  } else {
    lqt__io_tell((lqt__io_event){.kind = LQT__IO_SYNC_DIRECTORY, .path = directory});
  }
  close(fd);
  return status;
}
