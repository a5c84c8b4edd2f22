/* What is not finite stays visible: attention must not turn a NaN into a plausible number. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "lqt/op.h"

enum { POSITIONS = 128, DIM = 24, MOST_TOKENS = 12 };

static lqt_view upload(lqt_device *device, const void *data, uint64_t rows, uint64_t cols,
                       lqt_dtype dtype) {
  lqt_view view = {.rows = rows, .cols = cols, .row_stride = cols, .dtype = dtype};
  cr_assert_eq(lqt_buffer_create(device, rows * cols * 4, &view.buffer, NULL), LQT_OK);
  cr_assert_eq(lqt_buffer_write(view.buffer, 0, data, rows * cols * 4, NULL), LQT_OK);
  return view;
}

/* Tokens at the positions from 100 on, all of which see key 5. `bad_query`: of that token. */
static void attend(lqt_device *device, uint64_t tokens, bool bad_key, uint64_t bad_query,
                   const char *isa) {
  float q[MOST_TOKENS * DIM], keys[POSITIONS * DIM], got[MOST_TOKENS * DIM] = {0};
  int32_t positions[MOST_TOKENS], sequences[MOST_TOKENS] = {0}, table[1] = {0};
  for (int i = 0; i < POSITIONS * DIM; i++) keys[i] = (float)(i % 7) / 8.0f;
  for (int i = 0; i < MOST_TOKENS * DIM; i++) q[i] = (float)(i % 5) / 8.0f;
  for (int i = 0; i < MOST_TOKENS; i++) positions[i] = 100 + i;
  lqt_op op = {.kind = LQT_OP_ATTENTION,
               .heads = 1,
               .kv_heads = 1,
               .head_dim = DIM,
               .page_tokens = POSITIONS,
               .attn_scale = 0.25f};
  op.in[4] = upload(device, keys, POSITIONS, DIM, LQT_DTYPE_F32); /* the values: all finite */
  if (bad_key) keys[5 * DIM + 3] = NAN;
  if (bad_query < tokens) q[bad_query * DIM + DIM - 1] = NAN;
  op.in[0] = upload(device, q, tokens, DIM, LQT_DTYPE_F32);
  op.in[1] = upload(device, positions, 1, tokens, LQT_DTYPE_I32);
  op.in[2] = upload(device, sequences, 1, tokens, LQT_DTYPE_I32);
  op.in[3] = upload(device, keys, POSITIONS, DIM, LQT_DTYPE_F32);
  op.in[5] = upload(device, table, 1, 1, LQT_DTYPE_I32);
  op.out[0] = upload(device, got, tokens, DIM, LQT_DTYPE_F32);
  lqt_diag diag = {0};
  cr_assert_eq(lqt_device_run(device, &op, 1, &diag), LQT_OK, "%s: %s", diag.where, diag.what);
  cr_assert_eq(lqt_buffer_read(op.out[0].buffer, 0, got, tokens * DIM * sizeof *got, NULL), LQT_OK);
  for (uint64_t i = 0; i < tokens * DIM; i++) {
    bool bad = bad_key || i / DIM == bad_query;
    cr_assert_eq(isnan(got[i]) != 0, bad, "%s, %d tokens: output %d of token %d is %g", isa,
                 (int)tokens, (int)(i % DIM), (int)(i / DIM), (double)got[i]);
  }
  for (int i = 0; i < 6; i++) lqt_buffer_destroy(op.in[i].buffer);
  lqt_buffer_destroy(op.out[0].buffer);
}

Test(not_finite, attention_shows_a_nan) {
  static const char *const isas[] = {"scalar", "avx2", "avx512"};
  for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
    lqt_device_options options = {.size = sizeof options, .threads = 1, .isa = isas[i]};
    lqt_device *device;
    if (lqt_device_open("cpu", &options, &device, NULL) != LQT_OK) continue;
    for (uint64_t tokens = 1; tokens <= MOST_TOKENS; tokens += MOST_TOKENS - 1) {
      attend(device, tokens, true, tokens, isas[i]);
      attend(device, tokens, false, tokens - 1, isas[i]);
      attend(device, tokens, false, tokens, isas[i]);
    }
    lqt_device_release(device);
  }
}
