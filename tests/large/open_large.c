/* How long opening a model file takes when nothing of it is in memory, and how much of it that
 * reads.
 *
 *   open_large MODEL.lqt
 *
 * Prints JSON: milliseconds of lqt_model_open, bytes of the file that the system has read for it
 * (page cache, read-ahead included), growth of this process's resident memory. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lqt/model.h"

static long resident_bytes(void) {
  long pages = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL) return -1;
  if (fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = -1;
  fclose(file);
  return resident * sysconf(_SC_PAGESIZE);
}

/* Bytes of the open file that are in the page cache; -1 when that cannot be told. */
static long cached_bytes(int fd, size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (bytes + page - 1) / page, cached = 0;
  unsigned char *state = malloc(pages);
  void *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
  bool known = state != NULL && data != MAP_FAILED && mincore(data, bytes, state) == 0;
  for (size_t i = 0; known && i < pages; i++) cached += state[i] & 1;
  if (data != MAP_FAILED) munmap(data, bytes);
  free(state);
  return known ? (long)(cached * page) : -1;
}

int main(int argc, char **argv) {
  struct stat info;
  int fd = argc == 2 ? open(argv[1], O_RDONLY) : -1;
  if (fd < 0 || fstat(fd, &info) != 0) {
    fprintf(stderr, "usage: open_large MODEL.lqt\n");
    return 2;
  }
  /* Only pages that are on the disk can be dropped. */
  if (fsync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0) return 2;
  long before = resident_bytes(), warm = cached_bytes(fd, (size_t)info.st_size);
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  lqt_model *model;
  lqt_diag diag = {0};
  lqt_status status = lqt_model_open(argv[1], NULL, &model, &diag);
  clock_gettime(CLOCK_MONOTONIC, &end);
  if (status != LQT_OK) {
    fprintf(stderr, "%s: %s\n", argv[1], diag.what);
    close(fd);
    return 1;
  }
  printf(
      "{\"file_bytes\": %lld, \"milliseconds\": %.2f, \"cached_before\": %ld, "
      "\"cached_after\": %ld, \"resident_growth\": %ld}\n",
      (long long)info.st_size,
      1e3 * (double)(end.tv_sec - begin.tv_sec) + 1e-6 * (double)(end.tv_nsec - begin.tv_nsec),
      warm, cached_bytes(fd, (size_t)info.st_size), resident_bytes() - before);
  lqt_model_release(model);
  close(fd);
  return 0;
}
