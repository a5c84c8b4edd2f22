/* Where tests find models/ and eval/: under LQT_TEST_DATA, which ctest sets (default: ../shared
 * beside the source folder). Tests skip, saying why, when the data is not there. */
#ifndef LQT_TESTS_SUPPORT_DATA_H_
#define LQT_TESTS_SUPPORT_DATA_H_

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Writes the path of `name` ("models/classic-11m"); false when there is no such file, and then the
 * reason to skip stands in `out`. */
static inline bool test_data_path(const char *name, char *out, size_t size) {
  const char *root = getenv("LQT_TEST_DATA");
  snprintf(out, size, "%s/%s", root != NULL ? root : "../shared", name);
  if (access(out, R_OK) == 0) return true;
  snprintf(out, size, "%s/%s is not there; set LQT_TEST_DATA to the folder with models/ and eval/",
           root != NULL ? root : "../shared", name);
  return false;
}

/* The path of `name` inside the source folder (models/classic-11m-q4.lqt). */
static inline bool test_source_path(const char *name, char *out, size_t size) {
  const char *root = getenv("LQT_SOURCE_DIR");
  snprintf(out, size, "%s/%s", root != NULL ? root : ".", name);
  return access(out, R_OK) == 0;
}

/* LQT_TEST_ALL is set: long loops take every step, not a spread of them. */
static inline bool test_exhaustive(void) {
  const char *all = getenv("LQT_TEST_ALL");
  return all != NULL && all[0] != '\0' && strcmp(all, "0") != 0;
}

#endif /* LQT_TESTS_SUPPORT_DATA_H_ */
