#include "io/append.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "io/hook.h"
#include "io/path.h"

struct lqt__append_file {
  int fd;
  bool created;
  char *path, *directory;
};

/* A full disk is a status of its own: nothing is wrong with what the caller asked for. */
static lqt_status fail_write(lqt_diag *diag, const char *path, const char *doing) {
  int error = errno;
  if (error != ENOSPC && error != EDQUOT) return lqt__fail_io(diag, path, doing);
  return lqt__fail_errno(diag, LQT_NO_SPACE, path, error, "cannot %s; make room and try again",
                         doing);
}

/* True when `fd` is what `path` names. */
static bool names(const char *path, int fd) {
  struct stat named, opened;
  return stat(path, &named) == 0 && fstat(fd, &opened) == 0 && named.st_dev == opened.st_dev &&
         named.st_ino == opened.st_ino;
}

/* Somebody who only looks whether there is a writer holds the lock for a moment. */
static bool take_lock(int fd) {
  for (int attempt = 0; attempt < 10; attempt++) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
    if (errno != EWOULDBLOCK) return false;
    struct timespec pause = {.tv_nsec = 1000000};
    nanosleep(&pause, NULL);
  }
  errno = EWOULDBLOCK;
  return false;
}

/* Opens and, for a writer, locks. A journal may be replaced between the two: the lock that counts
 * is the one on the file that has the name. */
static lqt_status open_locked(lqt__append_file *file, lqt__append_mode mode, lqt_diag *diag) {
  const int access = mode == LQT__APPEND_READ ? O_RDONLY : O_RDWR;
  for (int attempt = 0; attempt < 100; attempt++) {
    file->created = false;
    file->fd = lqt__io_fails() ? -1 : open(file->path, access | O_CLOEXEC);
    if (file->fd < 0 && errno == ENOENT && mode == LQT__APPEND_CREATE) {
      file->fd =
          lqt__io_fails() ? -1 : open(file->path, access | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (file->fd < 0 && errno == EEXIST) continue; /* another writer was faster */
      if (file->fd < 0) return fail_write(diag, file->path, "create the file");
      file->created = true;
    }
    if (file->fd < 0) return lqt__fail_io(diag, file->path, "open the file");
    struct stat info;
    if (fstat(file->fd, &info) != 0 || !S_ISREG(info.st_mode)) {
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, file->path,
                       "not a regular file; give a file's path");
    }
    if (mode == LQT__APPEND_READ) return LQT_OK;
    if (lqt__io_fails() || !take_lock(file->fd)) {
      if (errno != EWOULDBLOCK) return lqt__fail_io(diag, file->path, "lock the file");
      return lqt__fail(diag, LQT_LOCKED, file->path,
                       "another writer has the journal open; wait until it is done");
    }
    if (names(file->path, file->fd)) return LQT_OK;
    close(file->fd);
    file->fd = -1;
  }
  return lqt__fail(
      diag, LQT_IO, file->path,
      "the file cannot be opened and cannot be created: a link that leads nowhere, or a "
      "name that others keep changing");
}

lqt_status lqt__append_open(const char *path, lqt__append_mode mode, lqt__append_file **out,
                            lqt_diag *diag) {
  *out = NULL;
  lqt__append_file *file = lqt__alloc_zero(sizeof *file);
  if (file == NULL) return lqt__fail_memory(diag, path, sizeof *file, "an open file");
  file->fd = -1;
  file->path = lqt__path_resolve(path);
  file->directory = file->path != NULL ? lqt__path_directory(file->path) : NULL;
  if (file->directory == NULL) {
    lqt__append_close(file);
    return lqt__fail_memory(diag, path, strlen(path), "a file name");
  }
  lqt_status status = open_locked(file, mode, diag);
  if (status == LQT_OK && file->created) {
    lqt__io_tell((lqt__io_event){.kind = LQT__IO_CREATE, .path = file->path});
  }
  if (status == LQT_OK && mode != LQT__APPEND_READ) {
    status = lqt__path_sync_directory(file->path, file->directory, diag);
  }
  if (status != LQT_OK && file->created) lqt__path_remove(file->path);
  if (status != LQT_OK) {
    lqt__append_close(file);
    return status;
  }
  *out = file;
  return LQT_OK;
}

void lqt__append_close(lqt__append_file *file) {
  if (file == NULL) return;
  if (file->fd >= 0) close(file->fd); /* and with it goes the lock */
  lqt__free(file->path);
  lqt__free(file->directory);
  lqt__free(file);
}

bool lqt__append_was_created(const lqt__append_file *file) { return file->created; }

const char *lqt__append_path(const lqt__append_file *file) { return file->path; }

lqt_status lqt__append_size(lqt__append_file *file, uint64_t *out_bytes, lqt_diag *diag) {
  struct stat info;
  *out_bytes = 0;
  if (lqt__io_fails() || fstat(file->fd, &info) != 0) {
    return lqt__fail_io(diag, file->path, "read the file's size");
  }
  *out_bytes = (uint64_t)info.st_size;
  return LQT_OK;
}

lqt_status lqt__append_read(lqt__append_file *file, uint64_t offset, void *data, size_t bytes,
                            size_t *out_bytes, lqt_diag *diag) {
  char *to = data;
  *out_bytes = 0;
  while (*out_bytes < bytes) {
    ssize_t done = lqt__io_fails() ? -1
                                   : pread(file->fd, to + *out_bytes, bytes - *out_bytes,
                                           (off_t)(offset + *out_bytes));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return lqt__fail_io(diag, file->path, "read");
    if (done == 0) break;
    *out_bytes += (size_t)done;
  }
  return LQT_OK;
}

lqt_status lqt__append_write(lqt__append_file *file, uint64_t offset, const void *data,
                             size_t bytes, lqt_diag *diag) {
  const char *from = data;
  while (bytes > 0) {
    ssize_t done = lqt__io_fails() ? -1 : pwrite(file->fd, from, bytes, (off_t)offset);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return fail_write(diag, file->path, "write");
    lqt__io_tell((lqt__io_event){.kind = LQT__IO_WRITE,
                                 .path = file->path,
                                 .offset = offset,
                                 .data = from,
                                 .bytes = (size_t)done});
    from += done;
    offset += (uint64_t)done;
    bytes -= (size_t)done;
  }
  return LQT_OK;
}

lqt_status lqt__append_sync(lqt__append_file *file, lqt_diag *diag) {
  if (lqt__io_fails() || fdatasync(file->fd) != 0) return fail_write(diag, file->path, "sync");
  lqt__io_tell((lqt__io_event){.kind = LQT__IO_SYNC, .path = file->path});
  return LQT_OK;
}

lqt_status lqt__append_truncate(lqt__append_file *file, uint64_t bytes, lqt_diag *diag) {
  if (lqt__io_fails() || ftruncate(file->fd, (off_t)bytes) != 0) {
    return fail_write(diag, file->path, "shorten the file");
  }
  lqt__io_tell((lqt__io_event){.kind = LQT__IO_TRUNCATE, .path = file->path, .offset = bytes});
  return LQT_OK;
}

lqt_status lqt__append_has_writer(lqt__append_file *file, bool *out_has, lqt_diag *diag) {
  *out_has = false;
  /* A shared lock is refused while there is an exclusive one. */
  if (lqt__io_fails() || flock(file->fd, LOCK_SH | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return lqt__fail_io(diag, file->path, "look at the file's lock");
    *out_has = true;
    return LQT_OK;
  }
  flock(file->fd, LOCK_UN);
  return LQT_OK;
}

lqt_status lqt__append_was_replaced(lqt__append_file *file, bool *out_replaced, lqt_diag *diag) {
  *out_replaced = false;
  if (lqt__io_fails()) return lqt__fail_io(diag, file->path, "look the file up");
  *out_replaced = !names(file->path, file->fd);
  return LQT_OK;
}

/* Writes and syncs the new file under a temporary name, locked from its first moment. */
static lqt_status write_replacement(int fd, const char *name, const void *data, size_t bytes,
                                    lqt_diag *diag) {
  struct lqt__append_file file = {.fd = fd, .path = (char *)name};
  if (lqt__io_fails() || flock(fd, LOCK_EX | LOCK_NB) != 0) {
    return lqt__fail_io(diag, name, "lock the new file");
  }
  LQT__TRY(lqt__append_write(&file, 0, data, bytes, diag));
  return lqt__append_sync(&file, diag);
}

lqt_status lqt__append_replace(lqt__append_file *file, const void *data, size_t bytes,
                               bool *out_done, lqt_diag *diag) {
  *out_done = false;
  static _Atomic unsigned serial;
  size_t size = strlen(file->path) + 40;
  char *name = lqt__alloc(size);
  if (name == NULL) return lqt__fail_memory(diag, file->path, size, "a file name");
  snprintf(name, size, "%s.tmp-%ld-%u", file->path, (long)getpid(), atomic_fetch_add(&serial, 1));
  struct stat info;
  int mode = fstat(file->fd, &info) == 0 ? (int)(info.st_mode & 0777) : 0600;
  int fd = lqt__io_fails() ? -1 : open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) {
    lqt_status status = fail_write(diag, file->path, "create a temporary file beside it");
    lqt__free(name);
    return status;
  }
  lqt__io_tell((lqt__io_event){.kind = LQT__IO_CREATE, .path = name});
  lqt_status status = write_replacement(fd, name, data, bytes, diag);
  if (status == LQT_OK) status = lqt__path_rename(name, file->path, diag);
  if (status != LQT_OK) {
    lqt__path_remove(name);
    close(fd);
  } else {
    close(file->fd);
    file->fd = fd;
    *out_done = true;
    status = lqt__path_sync_directory(file->path, file->directory, diag);
  }
  lqt__free(name);
  return status;
}

void lqt__append_remove(lqt__append_file *file) { lqt__path_remove(file->path); }
