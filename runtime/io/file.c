#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "io/hook.h"
#include "io/path.h"

lqt_status lqt__map_open(const char *path, lqt__map *out, lqt_diag *diag) {
  *out = (lqt__map){0};
  int fd = lqt__io_fails() ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return lqt__fail_io(diag, path, "open the file");
  struct stat info;
  lqt_status status = LQT_OK;
  if (lqt__io_fails() || fstat(fd, &info) != 0) {
    status = lqt__fail_io(diag, path, "read the file's size");
  } else if (!S_ISREG(info.st_mode)) {
    status = lqt__fail(diag, LQT_INVALID_ARGUMENT, path, "not a regular file; give a file's path");
  } else if (info.st_size > 0) {
    void *data = lqt__io_fails() ? MAP_FAILED
                                 : mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
      status = lqt__fail_io(diag, path, "map the file");
    } else {
      *out = (lqt__map){.data = data, .bytes = (size_t)info.st_size};
    }
  }
  close(fd);
  return status;
}

void lqt__map_close(lqt__map *map) {
  if (map->data != NULL) munmap((void *)map->data, map->bytes);
  *map = (lqt__map){0};
}

void lqt__map_advise(const lqt__map *map, size_t offset, size_t bytes, lqt__map_advice advice) {
  if (map->data == NULL || offset >= map->bytes) return;
  if (bytes > map->bytes - offset) bytes = map->bytes - offset;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  size_t begin = offset / page * page;
  int flag = advice == LQT__ADVICE_SEQUENTIAL ? MADV_SEQUENTIAL
             : advice == LQT__ADVICE_DROP     ? MADV_DONTNEED
                                              : MADV_NORMAL;
  madvise((void *)(map->data + begin), bytes + (offset - begin), flag);
}

struct lqt__output {
  int fd;
  char *path;      /* where it ends */
  char *temporary; /* where it is written */
  char *directory; /* of both: named at the start, so that nothing can fail after the rename but I/O
                    */
};

static void output_free(lqt__output *output) {
  if (output->fd >= 0) close(output->fd);
  lqt__free(output->path);
  lqt__free(output->temporary);
  lqt__free(output->directory);
  lqt__free(output);
}

lqt_status lqt__output_begin(const char *path, lqt__output **out, lqt_diag *diag) {
  *out = NULL;
  lqt__output *output = lqt__alloc_zero(sizeof *output);
  if (output == NULL) return lqt__fail_memory(diag, path, sizeof *output, "an output file");
  output->fd = -1;
  output->path = lqt__path_resolve(path);
  size_t size = output->path != NULL ? strlen(output->path) + 40 : 0;
  output->temporary = size != 0 ? lqt__alloc(size) : NULL;
  output->directory = size != 0 ? lqt__path_directory(output->path) : NULL;
  if (output->temporary == NULL || output->directory == NULL) {
    output_free(output);
    return lqt__fail_memory(diag, path, size, "a file name");
  }
  struct stat info;
  bool exists = stat(output->path, &info) == 0;
  if (exists && !S_ISREG(info.st_mode)) {
    output_free(output);
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, path, "not a regular file; give a file's path");
  }
  /* The name need only be unused: O_EXCL decides, and the kernel applies the umask. */
  static _Atomic unsigned serial;
  for (int attempt = 0; attempt < 100 && output->fd < 0; attempt++) {
    snprintf(output->temporary, size, "%s.tmp-%ld-%u", output->path, (long)getpid(),
             atomic_fetch_add(&serial, 1));
    output->fd =
        lqt__io_fails() ? -1 : open(output->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (output->fd < 0 && errno != EEXIST) break;
  }
  if (output->fd < 0) {
    lqt_status status = lqt__fail_io(diag, path, "create a temporary file beside it");
    output_free(output);
    return status;
  }
  if (exists && fchmod(output->fd, info.st_mode & 07777) != 0) {
    lqt_status status = lqt__fail_io(diag, path, "give the new file the old one's mode");
    lqt__output_abort(output);
    return status;
  }
  lqt__io_tell((lqt__io_event){.kind = LQT__IO_CREATE, .path = output->temporary});
  *out = output;
  return LQT_OK;
}

lqt_status lqt__output_write(lqt__output *output, uint64_t offset, const void *data, size_t bytes,
                             lqt_diag *diag) {
  const char *from = data;
  while (bytes > 0) {
    size_t part = bytes < (1u << 30) ? bytes : (1u << 30);
    ssize_t done = lqt__io_fails() ? -1 : pwrite(output->fd, from, part, (off_t)offset);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return lqt__fail_io(diag, output->path, "write");
    lqt__io_tell((lqt__io_event){.kind = LQT__IO_WRITE,
                                 .path = output->temporary,
                                 .offset = offset,
                                 .data = from,
                                 .bytes = (size_t)done});
    from += done;
    offset += (uint64_t)done;
    bytes -= (size_t)done;
  }
  return LQT_OK;
}

lqt_status lqt__output_read(lqt__output *output, uint64_t offset, void *data, size_t bytes,
                            lqt_diag *diag) {
  char *to = data;
  while (bytes > 0) {
    ssize_t done = lqt__io_fails() ? -1 : pread(output->fd, to, bytes, (off_t)offset);
    if (done < 0 && errno == EINTR) continue;
    if (done == 0) errno = EIO;
    if (done <= 0) return lqt__fail_io(diag, output->path, "read back what was written");
    to += done;
    offset += (uint64_t)done;
    bytes -= (size_t)done;
  }
  return LQT_OK;
}

lqt_status lqt__output_commit(lqt__output *output, lqt_diag *diag) {
  lqt_status status = LQT_OK;
  if (lqt__io_fails() || fsync(output->fd) != 0) {
    status = lqt__fail_io(diag, output->path, "sync");
  } else {
    lqt__io_tell((lqt__io_event){.kind = LQT__IO_SYNC, .path = output->temporary});
    status = lqt__path_rename(output->temporary, output->path, diag);
  }
  if (status != LQT_OK) {
    lqt__path_remove(output->temporary);
  } else {
    status = lqt__path_sync_directory(output->path, output->directory, diag);
  }
  output_free(output);
  return status;
}

void lqt__output_abort(lqt__output *output) {
  if (output == NULL) return;
  lqt__path_remove(output->temporary);
  output_free(output);
}

lqt_status lqt__output_probe(const char *path, lqt_diag *diag) {
  lqt__output *output;
  LQT__TRY(lqt__output_begin(path, &output, diag));
  lqt__output_abort(output);
  return LQT_OK;
}

lqt_status lqt__file_read(const char *path, size_t limit, char **out_data, size_t *out_bytes,
                          lqt_diag *diag) {
  *out_data = NULL;
  *out_bytes = 0;
  lqt__map map;
  LQT__TRY(lqt__map_open(path, &map, diag));
  lqt_status status = LQT_OK;
  if (map.bytes > limit) {
    status = lqt__fail(diag, LQT_LIMIT, path, "the file has %zu bytes; at most %zu are read",
                       map.bytes, limit);
  } else if ((*out_data = lqt__alloc(map.bytes + 1)) == NULL) {
    status = lqt__fail_memory(diag, path, map.bytes + 1, "the file");
  } else {
    if (map.bytes > 0) memcpy(*out_data, map.data, map.bytes);
    (*out_data)[map.bytes] = '\0';
    *out_bytes = map.bytes;
  }
  lqt__map_close(&map);
  return status;
}

lqt_status lqt__file_write(const char *path, const void *data, size_t bytes, lqt_diag *diag) {
  lqt__output *output;
  LQT__TRY(lqt__output_begin(path, &output, diag));
  lqt_status status = lqt__output_write(output, 0, data, bytes, diag);
  if (status != LQT_OK) {
    lqt__output_abort(output);
    return status;
  }
  return lqt__output_commit(output, diag);
}

lqt_status lqt__file_write_new(const char *path, const void *data, size_t bytes, unsigned mode,
                               lqt_diag *diag) {
  char *directory = lqt__path_directory(path);
  if (directory == NULL) return lqt__fail_memory(diag, path, strlen(path), "a file name");
  struct lqt__output file = {.path = (char *)path, .temporary = (char *)path};
  file.fd = lqt__io_fails()
                ? -1
                : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
  lqt_status status;
  if (file.fd < 0) {
    status = errno == EEXIST
                 ? lqt__fail(diag, LQT_CONFLICT, path, "the file is there; it is not overwritten")
                 : lqt__fail_io(diag, path, "create the file");
  } else {
    lqt__io_tell((lqt__io_event){.kind = LQT__IO_CREATE, .path = path});
    status = lqt__output_write(&file, 0, data, bytes, diag);
    if (status == LQT_OK && (lqt__io_fails() || fsync(file.fd) != 0)) {
      status = lqt__fail_io(diag, path, "sync");
    }
    if (status == LQT_OK) status = lqt__path_sync_directory(path, directory, diag);
    if (status != LQT_OK) lqt__path_remove(path);
    close(file.fd);
  }
  lqt__free(directory);
  return status;
}
