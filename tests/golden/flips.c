/* Flips random bits of the repository's model, one at a time: `validate` must find every one.
 *
 *   flips COUNT [SEED]
 *
 * A plain main that shares the flips over as many processes as there are cores: one whole
 * validation reads the file three times (two digests and the CRC), so this one stops it, by its
 * progress callback, as soon as there is a finding. Every thousandth flip runs to the end and must
 * also be returned as a status. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "lqt/model.h"
#include "support/data.h"

enum { MOST_PROCESSES = 16, WHOLE_EVERY = 1000 };

static void take_finding(void *user, const lqt_diag *finding) {
  (void)finding;
  ++*(size_t *)user;
}

static bool go_on(void *user, const char *stage, const char *unit, uint64_t done, uint64_t total) {
  (void)stage, (void)unit, (void)done, (void)total;
  return *(const size_t *)user == 0;
}

/* Was anything wrong with these bytes? With `whole` the validation is not stopped. */
static bool is_found(const uint8_t *data, size_t bytes, bool whole) {
  lqt_model *model;
  if (lqt_model_open_memory(data, bytes, NULL, &model, NULL) != LQT_OK) return true;
  size_t findings = 0;
  lqt_validate_options options = {.size = sizeof options, .no_consistency = !whole};
  options.progress = whole ? NULL : go_on;
  options.user = &findings;
  lqt_status status = lqt_model_validate(model, &options, take_finding, &findings, NULL);
  lqt_model_release(model);
  return findings > 0 && status != LQT_OK;
}

static int flip(uint8_t *data, size_t bytes, long first, long count, uint64_t seed) {
  lqt__random random = lqt__random_seed(seed + (uint64_t)first);
  int missed = 0;
  for (long i = 0; i < count; i++) {
    uint64_t bit = lqt__random_below(&random, (uint32_t)(bytes * 8));
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    if (!is_found(data, bytes, i % WHOLE_EVERY == 0)) {
      fprintf(stderr, "bit %llu of byte %llu was flipped and nothing was found\n",
              (unsigned long long)bit % 8, (unsigned long long)bit / 8);
      missed++;
    }
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
  if (is_found(data, bytes, true)) {
    fprintf(stderr, "the undamaged model has findings\n");
    missed++;
  }
  return missed;
}

static uint8_t *read_model(size_t *out_bytes) {
  char path[1024];
  if (!test_source_path("models/classic-11m-q4.lqt", path, sizeof path)) return NULL;
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) return NULL;
  long size = ftell(file);
  uint8_t *data = malloc((size_t)size);
  rewind(file);
  if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) return NULL;
  fclose(file);
  *out_bytes = (size_t)size;
  return data;
}

int main(int argc, char **argv) {
  size_t bytes;
  long count = argc > 1 ? strtol(argv[1], NULL, 10) : 2000;
  uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
  uint8_t *data = read_model(&bytes);
  if (data == NULL || count <= 0) {
    fprintf(stderr, "usage: flips COUNT [SEED], with models/classic-11m-q4.lqt in place\n");
    return 2;
  }
  long processes = sysconf(_SC_NPROCESSORS_ONLN), begun = 0;
  if (processes < 1) processes = 1;
  if (processes > MOST_PROCESSES) processes = MOST_PROCESSES;
  for (long p = 0; p < processes; p++) {
    long part = count / processes + (p < count % processes);
    pid_t child = fork();
    if (child < 0) return 2;
    if (child == 0) {
      int missed = flip(data, bytes, begun, part, seed);
      free(data);
      _exit(missed != 0);
    }
    begun += part;
  }
  int failed = 0, state;
  while (wait(&state) > 0) failed += !WIFEXITED(state) || WEXITSTATUS(state) != 0;
  if (failed == 0) printf("%ld flipped bits of %zu bytes, every one found\n", begun, bytes);
  free(data);
  return failed != 0;
}
