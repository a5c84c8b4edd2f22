/* Runs a fuzz target once over every file of the folders and files named on the command line, so
 * that corpora are regression tests in builds without libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path, long bytes) {
  FILE *file = fopen(path, "rb");
  uint8_t *data = malloc(bytes > 0 ? (size_t)bytes : 1);
  if (file == NULL || data == NULL || fread(data, 1, (size_t)bytes, file) != (size_t)bytes) {
    fprintf(stderr, "%s: cannot be read\n", path);
    if (file != NULL) fclose(file);
    free(data);
    return -1;
  }
  fclose(file);
  LLVMFuzzerTestOneInput(data, (size_t)bytes);
  free(data);
  return 1;
}

/* Number of inputs run, or -1. */
static int run_path(const char *path) {
  struct stat info;
  if (stat(path, &info) != 0) {
    fprintf(stderr, "%s: no such file or folder\n", path);
    return -1;
  }
  if (!S_ISDIR(info.st_mode)) return run_file(path, (long)info.st_size);
  DIR *folder = opendir(path);
  if (folder == NULL) return -1;
  int count = 0;
  for (struct dirent *entry; count >= 0 && (entry = readdir(folder)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    char name[4096];
    snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
    int runs = run_path(name);
    count = runs < 0 ? -1 : count + runs;
  }
  closedir(folder);
  return count;
}

int main(int argc, char **argv) {
  int total = 0;
  for (int i = 1; i < argc; i++) {
    int runs = run_path(argv[i]);
    if (runs < 0) return 1;
    total += runs;
  }
  printf("%d inputs\n", total);
  return total > 0 ? 0 : 1; /* an empty corpus tests nothing */
}
