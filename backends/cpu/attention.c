/* Attention: splits a step into tasks of a few query rows that share their keys and values. */
#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "cpu.h"

size_t lqt__cpu_attention_scratch(uint32_t head_dim, unsigned width) {
  size_t lanes = 2 * (size_t)width, dim = head_dim;
  size_t floats =
      2 * dim * lanes + 2 * LQT__CPU_KEY_BLOCK * dim + LQT__CPU_KEY_BLOCK * lanes + 5 * lanes;
  return (floats + 31) & ~(size_t)15;
}

/* Rows of a run up to which decode's kernel is the faster one, in vectors of query rows; and the
 * keys of one of its tasks: long contexts are cut, so that all cores have work. */
enum { FEW_LIMIT = 8, FEW_KEYS = 1024 };

typedef struct attention_job {
  const lqt__cpu_kernels *kernels;
  lqt__cpu_attention attention;
  const lqt__cpu_attention_task *tasks;
  size_t count;
  float *scratch, *parts;
  size_t worker_floats, part_floats;
} attention_job;

static void run_task(void *context, size_t task, unsigned worker) {
  const attention_job *job = context;
  /* The last tasks of a prompt see the most keys: they go first. */
  const lqt__cpu_attention_task *t = &job->tasks[job->count - 1 - task];
  if (t->few)
    job->kernels->attention_few(&job->attention, t, job->parts + t->part * job->part_floats);
  else
    job->kernels->attention(&job->attention, t, job->scratch + worker * job->worker_floats);
}

/* Joins the parts of one row and divides. `parts`: of the first part; `count` parts follow each
 * other. */
static void join_row(const attention_job *job, const lqt__cpu_attention_task *task, uint32_t r,
                     size_t count) {
  const lqt__cpu_attention *a = &job->attention;
  const float *parts = job->parts + (task->part - (count - 1)) * job->part_floats;
  size_t dim = a->head_dim, row = (size_t)task->row + r;
  float *out = a->out + (task->token + row / a->group) * a->out_stride +
               ((size_t)task->kv_head * a->group + row % a->group) * dim;
  float largest = parts[r], sum = 0;
  for (size_t i = 1; i < count; i++) {
    float other = parts[i * job->part_floats + r];
    if (other > largest) largest = other;
  }
  memset(out, 0, dim * sizeof(float));
  for (size_t i = 0; i < count; i++) {
    const float *part = parts + i * job->part_floats;
    float factor = expf(part[r] - largest);
    sum += factor * part[LQT__CPU_FEW_ROWS + r];
    const float *values = part + 2 * LQT__CPU_FEW_ROWS + r * dim;
    for (size_t d = 0; d < dim; d++) out[d] += factor * values[d];
  }
  for (size_t d = 0; d < dim; d++) out[d] /= sum;
}

static void join_parts(const attention_job *job) {
  size_t parts = 0;
  for (size_t i = 0; i < job->count; i++) {
    const lqt__cpu_attention_task *task = &job->tasks[i];
    if (!task->few) continue;
    parts++;
    if (!task->last) continue;
    for (uint32_t r = 0; r < task->rows; r++) join_row(job, task, r, parts);
    parts = 0;
  }
}

typedef struct task_list {
  lqt__cpu_attention_task *tasks; /* NULL: only count */
  size_t count;
  uint32_t parts;
} task_list;

static void add_task(task_list *list, lqt__cpu_attention_task task) {
  if (task.few) task.part = list->parts++;
  if (list->tasks != NULL) list->tasks[list->count] = task;
  list->count++;
}

/* Tasks of `rows` rows of a run: one for prefill, or one for every FEW_KEYS keys. */
static void add_rows(task_list *list, const lqt_op *op, lqt__cpu_attention_task task) {
  if (!task.few) {
    add_task(list, task);
    return;
  }
  const int32_t *positions = lqt__cpu_data(&op->in[1]);
  uint32_t group = op->heads / op->kv_heads;
  int32_t low = INT32_MAX, high = 0;
  for (uint32_t r = task.row; r < task.row + task.rows; r++) {
    int32_t position = positions[task.token + r / group];
    bool cut = op->window != 0 && (uint32_t)position >= op->window;
    int32_t first = cut ? position - (int32_t)op->window + 1 : 0;
    if (first < low) low = first;
    if (position > high) high = position;
  }
  for (int64_t at = low; at <= high; at += FEW_KEYS) {
    task.first_key = (int32_t)at;
    task.last = high - at < FEW_KEYS;
    task.last_key = task.last ? high : (int32_t)at + FEW_KEYS - 1;
    add_task(list, task);
  }
}

/* Cuts the tokens into runs of one sequence and those into tasks. */
static void make_tasks(const lqt_op *op, unsigned width, task_list *list) {
  const int32_t *sequences = lqt__cpu_data(&op->in[2]);
  uint32_t tokens = (uint32_t)op->in[0].rows, group = op->heads / op->kv_heads;
  for (uint32_t first = 0, end; first < tokens; first = end) {
    for (end = first + 1; end < tokens && sequences[end] == sequences[first];) end++;
    uint64_t rows = (uint64_t)(end - first) * group;
    bool few = width > 1 ? rows <= FEW_LIMIT : rows <= 2;
    uint32_t lanes = few ? LQT__CPU_FEW_ROWS : 2 * width;
    for (uint64_t row = 0; row < rows; row += lanes) {
      uint32_t take = rows - row < lanes ? (uint32_t)(rows - row) : lanes;
      for (uint32_t h = 0; h < op->kv_heads; h++) {
        add_rows(list, op,
                 (lqt__cpu_attention_task){
                     .token = first, .row = (uint32_t)row, .rows = take, .kv_head = h, .few = few});
      }
    }
  }
}

static lqt__cpu_attention attention_of(const lqt_op *op) {
  return (lqt__cpu_attention){
      .q = lqt__cpu_data(&op->in[0]),
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
      .scale = op->attn_scale,
  };
}

lqt_status lqt__cpu_attention_op(lqt__cpu_device *device, const lqt_op *op, lqt_diag *diag) {
  if (op->in[0].rows == 0) return LQT_OK;
  if (op->in[0].rows * (op->heads / op->kv_heads) > UINT32_MAX) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "attention", "too many tokens in one step");
  }
  unsigned width = device->kernels->width;
  size_t workers = lqt__pool_threads(device->pool);
  task_list list = {0};
  make_tasks(op, width, &list);
  attention_job job = {.kernels = device->kernels, .attention = attention_of(op)};
  job.worker_floats = lqt__cpu_attention_scratch(op->head_dim, width);
  job.part_floats = LQT__CPU_FEW_ROWS * (2 + (size_t)op->head_dim);
  size_t floats = workers * job.worker_floats + list.parts * job.part_floats;
  size_t bytes = floats * sizeof(float) + list.count * sizeof *list.tasks + sizeof(void *);
  job.scratch = lqt__cpu_scratch(device, bytes);
  if (job.scratch == NULL) return lqt__fail_memory(diag, "attention", bytes, "scratch");
  job.parts = job.scratch + workers * job.worker_floats;
  list = (task_list){.tasks = (void *)(job.scratch + (floats + 1) / 2 * 2)};
  make_tasks(op, width, &list);
  job.tasks = list.tasks;
  job.count = list.count;
  lqt__pool_run(device->pool, job.count, run_task, &job);
  join_parts(&job);
  return LQT_OK;
}
