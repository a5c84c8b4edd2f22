/* Devices under concurrency: threads that each run products and attention on a device of their own,
 * and threads that upload, patch and drop weights of a device which another one is running. Every
 * result is compared with the one computed alone. Usage: device_stress [ROUNDS] */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "lqt/op.h"

enum { THREADS = 3, TOKENS = 9, ROWS = 96, COLS = 128, STRIDE = COLS / 2 };

static uint8_t indices[ROWS * STRIDE];
static uint16_t book[16], scales[ROWS * 2];
static float input[TOKENS * COLS];
static unsigned rounds = 60;
static _Atomic int failures;

static lqt_weight_desc make_desc(void) {
  return (lqt_weight_desc){.size = sizeof(lqt_weight_desc),
                           .dtype = LQT_DTYPE_CODEBOOK,
                           .rows = ROWS,
                           .cols = COLS,
                           .scale = 1,
                           .indices = {indices, STRIDE, 4, 0},
                           .codebook = {book, LQT_DTYPE_F16, 16, 1, 1, 0, 16},
                           .bank_rows = ROWS,
                           .bank_cols = COLS,
                           .group_size = 64,
                           .group_scales = scales,
                           .group_row_stride = 2};
}

static void must(lqt_status status, const char *what, const lqt_diag *diag) {
  if (status == LQT_OK) return;
  printf("%s: %s %s\n", what, lqt_status_name(status), diag->what);
  failures++;
}

typedef struct rig {
  lqt_device *device;
  lqt_buffer *x, *y;
} rig;

static void rig_open(rig *r, uint32_t threads) {
  lqt_diag diag = {0};
  lqt_device_options options = {.size = sizeof options, .threads = threads};
  must(lqt_device_open("cpu", &options, &r->device, &diag), "open", &diag);
  must(lqt_buffer_create(r->device, sizeof input, &r->x, &diag), "x", &diag);
  must(lqt_buffer_create(r->device, TOKENS * ROWS * 4, &r->y, &diag), "y", &diag);
  must(lqt_buffer_write(r->x, 0, input, sizeof input, &diag), "write", &diag);
}

static void rig_close(rig *r) {
  lqt_buffer_destroy(r->x);
  lqt_buffer_destroy(r->y);
  lqt_device_release(r->device);
}

static void multiply(const rig *r, lqt_weight *weight, float *out) {
  lqt_diag diag = {0};
  lqt_op ops[2] = {{.kind = LQT_OP_MATMUL,
                    .in[0] = {r->x, 0, TOKENS, COLS, COLS, LQT_DTYPE_F32, 0},
                    .out[0] = {r->y, 0, TOKENS, ROWS, ROWS, LQT_DTYPE_F32, 0},
                    .weight[0] = weight},
                   {.kind = LQT_OP_ACT,
                    .act = LQT_ACT_SILU,
                    .in[0] = {r->y, 0, TOKENS, ROWS, ROWS, LQT_DTYPE_F32, 0},
                    .out[0] = {r->y, 0, TOKENS, ROWS, ROWS, LQT_DTYPE_F32, 0}}};
  must(lqt_device_run(r->device, ops, 2, &diag), "run", &diag);
  must(lqt_buffer_read(r->y, 0, out, TOKENS * ROWS * 4, &diag), "read", &diag);
}

static float alone[TOKENS * ROWS], patched[TOKENS * ROWS];
static const uint16_t new_entry = 0x4200; /* 3.0 */
static const lqt_weight_patch patch = {
    .part = LQT_PART_CODEBOOK, .first = 5, .count = 1, .data = &new_entry};

static void *own_device(void *argument) {
  unsigned index = *(unsigned *)argument;
  lqt_diag diag = {0};
  for (unsigned i = 0; i < rounds; i++) {
    rig r;
    rig_open(&r, 1 + (index + i) % 3);
    lqt_weight_desc desc = make_desc();
    lqt_weight *weight = NULL;
    float out[TOKENS * ROWS];
    must(lqt_weight_create(r.device, &desc, &weight, &diag), "create", &diag);
    multiply(&r, weight, out);
    if (memcmp(out, alone, sizeof out) != 0) failures++;
    must(lqt_weight_patch_apply(weight, &patch, 1, &diag), "patch", &diag);
    multiply(&r, weight, out);
    if (memcmp(out, patched, sizeof out) != 0) failures++;
    lqt_weight_destroy(weight);
    rig_close(&r);
  }
  return NULL;
}

/* Uploads to a device that is running; only creation and its own weight are touched. */
static void *uploader(void *argument) {
  const rig *r = argument;
  lqt_diag diag = {0};
  for (unsigned i = 0; i < 4 * rounds; i++) {
    lqt_weight_desc desc = make_desc();
    lqt_weight *weight = NULL;
    must(lqt_weight_create(r->device, &desc, &weight, &diag), "upload", &diag);
    must(lqt_weight_patch_apply(weight, &patch, 1, &diag), "patch", &diag);
    lqt_device_retain(r->device);
    lqt_weight_destroy(weight);
    lqt_device_release(r->device);
  }
  return NULL;
}

int main(int argc, char **argv) {
  if (argc > 1) rounds = (unsigned)strtoul(argv[1], NULL, 10);
  lqt__random random = lqt__random_seed(5);
  for (size_t i = 0; i < sizeof indices; i++) indices[i] = (uint8_t)lqt__random_u64(&random);
  for (int i = 0; i < 16; i++) book[i] = (uint16_t)(0x3000 + 300 * i);
  for (int i = 0; i < ROWS * 2; i++) scales[i] = 0x3c00;
  for (int i = 0; i < TOKENS * COLS; i++) input[i] = lqt__random_normal(&random);
  rig r;
  rig_open(&r, 2);
  lqt_weight_desc desc = make_desc();
  lqt_weight *weight = NULL, *second = NULL;
  lqt_diag diag = {0};
  must(lqt_weight_create(r.device, &desc, &weight, &diag), "create", &diag);
  must(lqt_weight_create(r.device, &desc, &second, &diag), "create", &diag);
  multiply(&r, weight, alone);
  must(lqt_weight_patch_apply(second, &patch, 1, &diag), "patch", &diag);
  multiply(&r, second, patched);

  pthread_t threads[THREADS + 1];
  unsigned numbers[THREADS];
  for (unsigned i = 0; i < THREADS; i++) {
    numbers[i] = i;
    if (pthread_create(&threads[i], NULL, own_device, &numbers[i]) != 0) return 1;
  }
  if (pthread_create(&threads[THREADS], NULL, uploader, &r) != 0) return 1;
  for (unsigned i = 0; i < 8 * rounds; i++) {
    float out[TOKENS * ROWS];
    multiply(&r, i % 2 != 0 ? second : weight, out);
    if (memcmp(out, i % 2 != 0 ? patched : alone, sizeof out) != 0) failures++;
  }
  for (unsigned i = 0; i <= THREADS; i++) pthread_join(threads[i], NULL);
  lqt_weight_destroy(weight);
  lqt_weight_destroy(second);
  rig_close(&r);
  printf("%d failures\n", failures);
  return failures != 0 ? 1 : 0;
}
