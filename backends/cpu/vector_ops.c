/* The ops that go row by row. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "cpu.h"

typedef struct row_job {
  lqt__cpu_device *device;
  const lqt_op *op;
  size_t rows, rows_a_task;
  void (*row)(const struct row_job *job, size_t row);
} row_job;

static float *row_of(const lqt_view *view, size_t row) {
  return (float *)lqt__cpu_data(view) + row * view->row_stride;
}

static void embed_row(const row_job *job, size_t t) {
  const lqt_op *op = job->op;
  int32_t id = ((const int32_t *)lqt__cpu_data(&op->in[0]))[t];
  lqt__cpu_weight_row(lqt__cpu_weight_of(op->weight[0]), job->device->kernels, (uint64_t)id, 0,
                      op->out[0].cols, row_of(&op->out[0], t));
}

static void dequant_row(const row_job *job, size_t r) {
  const lqt_op *op = job->op;
  lqt__cpu_weight_row(lqt__cpu_weight_of(op->weight[0]), job->device->kernels, r, 0,
                      op->out[0].cols, row_of(&op->out[0], r));
}

static void gather_row(const row_job *job, size_t i) {
  const lqt_op *op = job->op;
  int32_t from = ((const int32_t *)lqt__cpu_data(&op->in[1]))[i];
  memcpy(row_of(&op->out[0], i), row_of(&op->in[0], (size_t)from), op->out[0].cols * sizeof(float));
}

static void rmsnorm_row(const row_job *job, size_t t) {
  const lqt_op *op = job->op;
  job->device->kernels->rmsnorm(row_of(&op->in[0], t), row_of(&op->in[1], 0), op->in[0].cols,
                                op->eps, row_of(&op->out[0], t));
}

static void layernorm_row(const row_job *job, size_t t) {
  const lqt_op *op = job->op;
  const float *bias = op->in[2].buffer != NULL ? row_of(&op->in[2], 0) : NULL;
  job->device->kernels->layernorm(row_of(&op->in[0], t), row_of(&op->in[1], 0), bias,
                                  op->in[0].cols, op->eps, row_of(&op->out[0], t));
}

static void glu_row(const row_job *job, size_t t) {
  const lqt_op *op = job->op;
  job->device->kernels->glu(op->act, row_of(&op->in[0], t), row_of(&op->in[1], t), op->in[0].cols,
                            row_of(&op->out[0], t));
}

static void act_row(const row_job *job, size_t t) {
  const lqt_op *op = job->op;
  job->device->kernels->act(op->act, row_of(&op->in[0], t), op->in[0].cols, row_of(&op->out[0], t));
}

static void add_row(const row_job *job, size_t t) {
  const lqt_op *op = job->op;
  job->device->kernels->add(row_of(&op->in[0], t), row_of(&op->in[1], t), op->in[0].cols,
                            row_of(&op->out[0], t));
}

static void kv_row(const row_job *job, size_t t) {
  const lqt_op *op = job->op;
  uint32_t position = ((const uint32_t *)lqt__cpu_data(&op->in[2]))[t];
  uint32_t sequence = ((const uint32_t *)lqt__cpu_data(&op->in[3]))[t];
  const int32_t *table = lqt__cpu_data(&op->in[4]);
  size_t page = (size_t)table[sequence * op->in[4].row_stride + position / op->page_tokens];
  size_t row = page * op->page_tokens + position % op->page_tokens;
  for (int side = 0; side < 2; side++) {
    const lqt_view *pages = &op->out[side];
    size_t at = row * pages->row_stride;
    const float *x = row_of(&op->in[side], t);
    if (pages->dtype == LQT_DTYPE_F16)
      job->device->kernels->narrow(x, pages->cols, (uint16_t *)lqt__cpu_data(pages) + at);
    else
      memcpy((float *)lqt__cpu_data(pages) + at, x, pages->cols * sizeof(float));
  }
}

static void rope_row(const row_job *job, size_t t) {
  const lqt_op *op = job->op;
  size_t half = op->rotary_dim / 2;
  const float *c = job->device->angles.values + t * op->rotary_dim, *s = c + half;
  for (uint32_t h = 0; h < op->heads; h++) {
    float *head = row_of(&op->out[0], t) + (size_t)h * op->head_dim;
    if (op->interleaved) {
      for (size_t i = 0; i < half; i++) {
        float x = head[2 * i], y = head[2 * i + 1];
        head[2 * i] = x * c[i] - y * s[i];
        head[2 * i + 1] = y * c[i] + x * s[i];
      }
      continue;
    }
    job->device->kernels->rotate(head, head + half, c, s, half);
  }
}

static void run_rows(void *context, size_t task, unsigned worker) {
  (void)worker;
  const row_job *job = context;
  size_t end = (task + 1) * job->rows_a_task;
  if (end > job->rows) end = job->rows;
  for (size_t row = task * job->rows_a_task; row < end; row++) job->row(job, row);
}

/* A task should be worth waking a thread for. */
enum { TASK_ELEMENTS = 16384 };

static void run_job(row_job *job, size_t cols) {
  job->rows_a_task = cols >= TASK_ELEMENTS || cols == 0 ? 1 : TASK_ELEMENTS / cols;
  size_t tasks = (job->rows + job->rows_a_task - 1) / job->rows_a_task;
  lqt__pool_run(job->device->pool, tasks, run_rows, job);
}

static void angle_row(const row_job *job, size_t t) {
  const lqt_op *op = job->op;
  size_t half = op->rotary_dim / 2;
  float position = (float)((const int32_t *)lqt__cpu_data(&op->in[0]))[t];
  const float *frequencies = row_of(&op->in[1], 0);
  float *c = job->device->angles.values + t * op->rotary_dim, *s = c + half;
  for (size_t i = 0; i < half; i++) {
    float angle = position * frequencies[i];
    c[i] = cosf(angle) * op->attn_scale;
    s[i] = sinf(angle) * op->attn_scale;
  }
}

/* Room for `count` numbers of 4 bytes; the old contents are dropped. NULL without memory. */
static void *reserve(void *block, size_t *capacity, size_t count) {
  if (count <= *capacity) return block;
  lqt__free(block);
  block = lqt__alloc_array(count, 4);
  *capacity = block != NULL ? count : 0;
  return block;
}

static bool same_angles(const lqt__cpu_angles *angles, const lqt_op *op, size_t rows) {
  return angles->rows == rows && angles->rotary_dim == op->rotary_dim &&
         angles->scale == op->attn_scale &&
         memcmp(angles->positions, lqt__cpu_data(&op->in[0]), rows * sizeof(int32_t)) == 0 &&
         memcmp(angles->frequencies, lqt__cpu_data(&op->in[1]),
                op->rotary_dim / 2 * sizeof(float)) == 0;
}

static lqt_status make_angles(row_job *job, lqt_diag *diag) {
  const lqt_op *op = job->op;
  lqt__cpu_angles *angles = &job->device->angles;
  size_t rows = job->rows, half = op->rotary_dim / 2;
  if (angles->rows != 0 && same_angles(angles, op, rows)) return LQT_OK;
  angles->rows = 0;
  angles->values = reserve(angles->values, &angles->capacity_values, rows * op->rotary_dim);
  angles->positions = reserve(angles->positions, &angles->capacity_rows, rows);
  angles->frequencies = reserve(angles->frequencies, &angles->capacity_frequencies, half);
  if (angles->values == NULL || angles->positions == NULL || angles->frequencies == NULL) {
    return lqt__fail_memory(diag, "rope", rows * op->rotary_dim * sizeof(float), "angles");
  }
  memcpy(angles->positions, lqt__cpu_data(&op->in[0]), rows * sizeof(int32_t));
  memcpy(angles->frequencies, lqt__cpu_data(&op->in[1]), half * sizeof(float));
  angles->rotary_dim = op->rotary_dim;
  angles->scale = op->attn_scale;
  job->row = angle_row;
  run_job(job, (size_t)op->rotary_dim * 16);
  angles->rows = rows;
  return LQT_OK;
}

static lqt_status rope(row_job *job, lqt_diag *diag) {
  LQT__TRY(make_angles(job, diag));
  job->row = rope_row;
  run_job(job, job->op->out[0].cols);
  return LQT_OK;
}

lqt_status lqt__cpu_vector_op(lqt__cpu_device *device, const lqt_op *op, lqt_diag *diag) {
  static void (*const rows[LQT_OP_COUNT_])(const row_job *, size_t) = {
      [LQT_OP_EMBED] = embed_row,
      [LQT_OP_RMSNORM] = rmsnorm_row,
      [LQT_OP_LAYERNORM] = layernorm_row,
      [LQT_OP_ROPE] = rope_row,
      [LQT_OP_KV_WRITE] = kv_row,
      [LQT_OP_GLU] = glu_row,
      [LQT_OP_ACT] = act_row,
      [LQT_OP_ADD] = add_row,
      [LQT_OP_GATHER] = gather_row,
      [LQT_OP_DEQUANT] = dequant_row,
  };
  const lqt_view *main = op->kind == LQT_OP_KV_WRITE ? &op->in[0] : &op->out[0];
  row_job job = {.device = device, .op = op, .rows = main->rows, .row = rows[op->kind]};
  if (job.row == NULL) {
    return lqt__fail(diag, LQT_UNSUPPORTED, "cpu", "unknown op %d", (int)op->kind);
  }
  if (job.rows == 0) return LQT_OK;
  if (op->kind == LQT_OP_ROPE) return rope(&job, diag);
  run_job(&job, main->cols);
  return LQT_OK;
}
