/* Attention: splits a step into tasks of a few query rows that share their keys and values. */
#include "base/diag.h"
#include "cpu.h"

size_t lqt__cpu_attention_scratch(uint32_t head_dim, unsigned width) {
  size_t lanes = 2 * (size_t)width, dim = head_dim;
  size_t floats =
      2 * dim * lanes + 2 * LQT__CPU_KEY_BLOCK * dim + LQT__CPU_KEY_BLOCK * lanes + 5 * lanes;
  return (floats + 31) & ~(size_t)15;
}

typedef struct attention_job {
  const lqt__cpu_kernels *kernels;
  lqt__cpu_attention attention;
  const lqt__cpu_attention_task *tasks;
  size_t count;
  float *scratch;
  size_t worker_floats;
} attention_job;

static void run_task(void *context, size_t task, unsigned worker) {
  const attention_job *job = context;
  /* The last tasks of a prompt see the most keys: they go first. */
  job->kernels->attention(&job->attention, &job->tasks[job->count - 1 - task],
                          job->scratch + worker * job->worker_floats);
}

/* Cuts the tokens into runs of one sequence and those into tasks; `out` NULL only counts. */
static size_t make_tasks(const lqt_op *op, uint32_t lanes, lqt__cpu_attention_task *out) {
  const int32_t *sequences = lqt__cpu_data(&op->in[2]);
  uint32_t tokens = (uint32_t)op->in[0].rows, group = op->heads / op->kv_heads;
  size_t count = 0;
  for (uint32_t first = 0, end; first < tokens; first = end) {
    for (end = first + 1; end < tokens && sequences[end] == sequences[first];) end++;
    uint64_t rows = (uint64_t)(end - first) * group;
    for (uint64_t row = 0; row < rows; row += lanes) {
      uint32_t take = rows - row < lanes ? (uint32_t)(rows - row) : lanes;
      for (uint32_t h = 0; h < op->kv_heads; h++, count++) {
        if (out != NULL) {
          out[count] = (lqt__cpu_attention_task){
              .token = first, .row = (uint32_t)row, .rows = take, .kv_head = h};
        }
      }
    }
  }
  return count;
}

lqt_status lqt__cpu_attention_op(lqt__cpu_device *device, const lqt_op *op, lqt_diag *diag) {
  if (op->in[0].rows == 0) return LQT_OK;
  if (op->in[0].rows * (op->heads / op->kv_heads) > UINT32_MAX) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "attention", "too many tokens in one step");
  }
  const lqt__cpu_kernels *kernels = device->kernels;
  size_t worker_floats = lqt__cpu_attention_scratch(op->head_dim, kernels->width);
  size_t workers = lqt__pool_threads(device->pool);
  size_t count = make_tasks(op, 2 * kernels->width, NULL);
  size_t bytes = workers * worker_floats * sizeof(float) + count * sizeof(lqt__cpu_attention_task);
  float *scratch = lqt__cpu_scratch(device, bytes);
  if (scratch == NULL) return lqt__fail_memory(diag, "attention", bytes, "scratch");
  lqt__cpu_attention_task *tasks = (void *)(scratch + workers * worker_floats);
  make_tasks(op, 2 * kernels->width, tasks);
  attention_job job = {
      .kernels = kernels,
      .attention = {.q = lqt__cpu_data(&op->in[0]),
                    .out = lqt__cpu_data(&op->out[0]),
                    .q_stride = op->in[0].row_stride,
                    .out_stride = op->out[0].row_stride,
                    .positions = lqt__cpu_data(&op->in[1]),
                    .sequences = lqt__cpu_data(&op->in[2]),
                    .table = lqt__cpu_data(&op->in[5]),
                    .table_stride = op->in[5].row_stride,
                    .k = lqt__cpu_data(&op->in[3]),
                    .v = lqt__cpu_data(&op->in[4]),
                    .k_stride = op->in[3].row_stride,
                    .v_stride = op->in[4].row_stride,
                    .page_dtype = op->in[3].dtype,
                    .page_tokens = op->page_tokens,
                    .window = op->window,
                    .head_dim = op->head_dim,
                    .group = op->heads / op->kv_heads,
                    .scale = op->attn_scale},
      .tasks = tasks,
      .count = count,
      .scratch = scratch,
      .worker_floats = worker_floats,
  };
  lqt__pool_run(device->pool, count, run_task, &job);
  return LQT_OK;
}
