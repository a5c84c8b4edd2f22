/* Conformance of programs: a decoder layer as a list of ops, run several times with inputs that
 * change between the runs, against the same ops one by one. A device that records programs or fuses
 * neighbouring ops does so here.
 *
 * The ops one by one run on the reference. But a device with float32 activations may round them
 * inside its products (LQT_OP_MATMUL's tolerance), and a layer can make of that any multiple: such
 * a device is compared with itself, more closely. Its ops are held to the reference one at a time
 * elsewhere, and as a layer when it is exact. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/diag.h"
#include "base/half.h"
#include "kernel/contract.h"
#include "kernel/selftest.h"

enum { LAYER_WEIGHTS = 7, LAYER_OPS = 12, RUNS = 4, PAGE = 16, LONGEST = 320 };

typedef struct layer_shape {
  uint32_t tokens, heads, kv_heads, head_dim, ffn;
} layer_shape;

/* Places of the layer's values in one buffer a side, in elements. */
typedef struct layer_map {
  uint64_t hidden, kv, x, norm, q, k, v, mixed, gate, up, activations;
  uint64_t table_cols, pages;
} layer_map;

/* One side: the device under test or the reference. */
typedef struct side {
  lqt_device *device;
  lqt_dtype dtype; /* of activations */
  lqt_buffer *activations, *steps, *table, *constants, *cache[2];
  lqt_weight *weights[LAYER_WEIGHTS];
  lqt_op ops[LAYER_OPS];
  size_t op_count;
} side;

static layer_map map_of(const layer_shape *s) {
  layer_map m = {.hidden = (uint64_t)s->heads * s->head_dim,
                 .kv = (uint64_t)s->kv_heads * s->head_dim,
                 .table_cols = LONGEST / PAGE};
  uint64_t t = s->tokens;
  m.norm = m.x + t * m.hidden;
  m.q = m.norm + t * m.hidden;
  m.k = m.q + t * m.hidden;
  m.v = m.k + t * m.kv;
  m.mixed = m.v + t * m.kv;
  m.gate = m.mixed + t * m.hidden;
  m.up = m.gate + t * s->ffn;
  m.activations = m.up + t * s->ffn;
  m.pages = m.table_cols * 2;
  return m;
}

static lqt_view part(const side *d, uint64_t at, uint64_t rows, uint64_t cols) {
  return (lqt_view){.buffer = d->activations,
                    .offset = at * lqt_dtype_size(d->dtype),
                    .rows = rows,
                    .cols = cols,
                    .row_stride = cols,
                    .dtype = d->dtype};
}

static lqt_view vector(lqt_buffer *buffer, uint64_t at, uint64_t cols, lqt_dtype dtype) {
  return (lqt_view){.buffer = buffer,
                    .offset = at * 4,
                    .rows = 1,
                    .cols = cols,
                    .row_stride = cols,
                    .dtype = dtype};
}

static lqt_op *add_op(side *d, lqt_op_kind kind) {
  lqt_op *op = &d->ops[d->op_count++];
  *op = (lqt_op){.kind = kind, .label = (uint32_t)d->op_count, .eps = 1e-5f, .page_tokens = PAGE};
  return op;
}

static void multiply(side *d, lqt_view in, size_t first, size_t count, const lqt_view *out,
                     bool accumulate) {
  lqt_op *op = add_op(d, LQT_OP_MATMUL);
  op->in[0] = in;
  op->accumulate = accumulate;
  for (size_t i = 0; i < count; i++) {
    op->weight[i] = d->weights[first + i];
    op->out[i] = out[i];
  }
}

static void build(side *d, const layer_shape *s, const layer_map *m) {
  const uint64_t t = s->tokens;
  lqt_view x = part(d, m->x, t, m->hidden), norm = part(d, m->norm, t, m->hidden);
  lqt_view qkv[3] = {part(d, m->q, t, m->hidden), part(d, m->k, t, m->kv), part(d, m->v, t, m->kv)};
  lqt_view mixed = part(d, m->mixed, t, m->hidden);
  lqt_view both[2] = {part(d, m->gate, t, s->ffn), part(d, m->up, t, s->ffn)};
  lqt_view positions = vector(d->steps, 0, t, LQT_DTYPE_I32);
  lqt_view sequences = vector(d->steps, t, t, LQT_DTYPE_I32);
  lqt_view table = {.buffer = d->table,
                    .rows = 2,
                    .cols = m->table_cols,
                    .row_stride = m->table_cols,
                    .dtype = LQT_DTYPE_I32};
  lqt_view gain = vector(d->constants, 0, m->hidden, LQT_DTYPE_F32);
  lqt_view frequencies = vector(d->constants, m->hidden, s->head_dim / 2, LQT_DTYPE_F32);
  lqt_view pages[2];
  for (int i = 0; i < 2; i++) {
    pages[i] = (lqt_view){.buffer = d->cache[i],
                          .rows = m->pages * PAGE,
                          .cols = m->kv,
                          .row_stride = m->kv,
                          .dtype = LQT_DTYPE_F16};
  }
  d->op_count = 0;
  for (int half = 0; half < 2; half++) {
    lqt_op *op = add_op(d, LQT_OP_RMSNORM);
    op->in[0] = x, op->in[1] = gain, op->out[0] = norm;
    if (half == 1) break;
    multiply(d, norm, 0, 3, qkv, false);
    for (int i = 0; i < 2; i++) {
      op = add_op(d, LQT_OP_ROPE);
      op->heads = i == 0 ? s->heads : s->kv_heads;
      op->head_dim = op->rotary_dim = s->head_dim;
      op->attn_scale = 1.0f;
      op->in[0] = positions, op->in[1] = frequencies, op->out[0] = qkv[i];
    }
    op = add_op(d, LQT_OP_KV_WRITE);
    op->kv_heads = s->kv_heads, op->head_dim = s->head_dim;
    op->in[0] = qkv[1], op->in[1] = qkv[2], op->in[2] = positions, op->in[3] = sequences;
    op->in[4] = table, op->out[0] = pages[0], op->out[1] = pages[1];
    op = add_op(d, LQT_OP_ATTENTION);
    op->heads = s->heads, op->kv_heads = s->kv_heads, op->head_dim = s->head_dim;
    op->attn_scale = 1.0f / sqrtf((float)s->head_dim);
    op->in[0] = qkv[0], op->in[1] = positions, op->in[2] = sequences, op->in[3] = pages[0];
    op->in[4] = pages[1], op->in[5] = table, op->out[0] = mixed;
    multiply(d, mixed, 3, 1, &x, true);
  }
  multiply(d, norm, 4, 2, both, false);
  lqt_op *op = add_op(d, LQT_OP_GLU);
  op->act = LQT_ACT_SILU;
  op->in[0] = op->out[0] = both[0], op->in[1] = both[1];
  multiply(d, both[0], 6, 1, &x, true);
}

static lqt_status fill(lqt_device *device, uint64_t bytes, const void *data, lqt_buffer **out,
                       lqt_diag *diag) {
  LQT__TRY(lqt_buffer_create(device, bytes, out, diag));
  return lqt_buffer_write(*out, 0, data, bytes, diag);
}

/* Everything both sides start from. */
typedef struct layer_data {
  lqt_weight_desc weights[LAYER_WEIGHTS];
  float *constants, *x;
  uint16_t *cache, *halves;
  uint8_t *poison, *got, *want;
  int32_t *table, *steps;
} layer_data;

static lqt_status make_data(lqt__selftest *t, const lqt__weight_kind *kind, const layer_shape *s,
                            const layer_map *m, layer_data *d) {
  const uint64_t rows[LAYER_WEIGHTS] = {m->hidden, m->kv,  m->kv,    m->hidden,
                                        s->ffn,    s->ffn, m->hidden};
  for (size_t i = 0; i < LAYER_WEIGHTS; i++) {
    LQT__TRY(lqt__selftest_weight(&t->arena, &t->random, kind, rows[i], i == 6 ? s->ffn : m->hidden,
                                  &d->weights[i]));
    /* Products about as large as what goes in. */
    d->weights[i].scale *= 1.0f / sqrtf((float)d->weights[i].cols);
  }
  uint64_t constants = m->hidden + s->head_dim / 2, pages = m->pages * PAGE * m->kv;
  uint64_t bytes = (m->activations > pages ? m->activations : pages) * 4;
  d->constants = lqt__arena_array(&t->arena, constants, 4);
  d->x = lqt__arena_array(&t->arena, s->tokens * m->hidden, 4);
  d->halves = lqt__arena_array(&t->arena, s->tokens * m->hidden, 2);
  d->cache = lqt__arena_array(&t->arena, 2 * pages, 2);
  d->poison = lqt__arena_alloc(&t->arena, bytes);
  d->got = lqt__arena_alloc(&t->arena, bytes);
  d->want = lqt__arena_alloc(&t->arena, bytes);
  d->table = lqt__arena_array(&t->arena, m->pages, 4);
  d->steps = lqt__arena_array(&t->arena, 2 * s->tokens, 4);
  if (d->constants == NULL || d->x == NULL || d->halves == NULL || d->cache == NULL ||
      d->poison == NULL || d->got == NULL || d->want == NULL || d->table == NULL ||
      d->steps == NULL) {
    return LQT_OUT_OF_MEMORY;
  }
  memset(d->poison, 0xFF, bytes);
  for (uint64_t i = 0; i < m->hidden; i++)
    d->constants[i] = 1.0f + 0.1f * lqt__random_normal(&t->random);
  for (uint32_t i = 0; i < s->head_dim / 2; i++) {
    d->constants[m->hidden + i] = (float)pow(10000.0, -2.0 * i / s->head_dim);
  }
  for (uint64_t i = 0; i < 2 * pages; i++)
    d->cache[i] = lqt__f16_from_f32(lqt__random_normal(&t->random));
  for (uint64_t i = 0; i < m->pages; i++) d->table[i] = (int32_t)i;
  for (uint64_t i = m->pages - 1; i > 0; i--) {
    uint32_t j = lqt__pick(t, (uint32_t)i + 1);
    int32_t swap = d->table[i];
    d->table[i] = d->table[j];
    d->table[j] = swap;
  }
  return LQT_OK;
}

static lqt_status open_side(side *d, const layer_shape *s, const layer_map *m,
                            const layer_data *data, lqt_diag *diag) {
  for (size_t i = 0; i < LAYER_WEIGHTS; i++) {
    LQT__TRY(lqt_weight_create(d->device, &data->weights[i], &d->weights[i], diag));
  }
  uint64_t pages = m->pages * PAGE * m->kv;
  LQT__TRY(fill(d->device, m->activations * lqt_dtype_size(d->dtype), data->poison, &d->activations,
                diag));
  LQT__TRY(lqt_buffer_create(d->device, 2 * s->tokens * 4, &d->steps, diag));
  LQT__TRY(fill(d->device, m->pages * 4, data->table, &d->table, diag));
  LQT__TRY(
      fill(d->device, (m->hidden + s->head_dim / 2) * 4, data->constants, &d->constants, diag));
  for (int i = 0; i < 2; i++) {
    LQT__TRY(fill(d->device, pages * 2, data->cache + i * pages, &d->cache[i], diag));
  }
  build(d, s, m);
  return LQT_OK;
}

static void close_side(side *d) {
  for (size_t i = 0; i < LAYER_WEIGHTS; i++) lqt_weight_destroy(d->weights[i]);
  lqt_buffer_destroy(d->activations);
  lqt_buffer_destroy(d->steps);
  lqt_buffer_destroy(d->table);
  lqt_buffer_destroy(d->constants);
  for (int i = 0; i < 2; i++) lqt_buffer_destroy(d->cache[i]);
}

static double as_number(const uint8_t *data, uint64_t i, uint64_t size) {
  uint16_t half;
  float value;
  if (size == 2) {
    memcpy(&half, data + 2 * i, sizeof half);
    return lqt__f32_from_f16(half);
  }
  memcpy(&value, data + 4 * i, sizeof value);
  return value;
}

static void add_error(const uint8_t *got, uint64_t got_size, const uint8_t *want,
                      uint64_t want_size, uint64_t count, double *worst) {
  double difference = 0, reference = 0;
  for (uint64_t i = 0; i < count; i++) {
    double a = as_number(got, i, got_size), b = as_number(want, i, want_size);
    difference += (a - b) * (a - b);
    reference += b * b;
  }
  double error = difference == 0 ? 0 : sqrt(difference / reference);
  if (!(error <= *worst)) *worst = error; /* NaN wins */
}

/* New tokens: the sequences grow by the step's tokens from run to run. */
static void next_step(lqt__selftest *t, const layer_shape *s, const layer_map *m, uint32_t *lengths,
                      bool half, layer_data *d) {
  uint32_t share = s->tokens / 2;
  for (uint32_t i = 0; i < s->tokens; i++) {
    uint32_t sequence = i < share ? 0 : 1;
    d->steps[i] = (int32_t)lengths[sequence]++;
    d->steps[s->tokens + i] = (int32_t)sequence;
  }
  for (uint64_t i = 0; i < s->tokens * m->hidden; i++) {
    float value = lqt__random_normal(&t->random);
    d->halves[i] = lqt__f16_from_f32(value);
    d->x[i] = half ? lqt__f32_from_f16(d->halves[i]) : value;
  }
}

static lqt_status run_side(const side *d, lqt_program *program, const layer_shape *s,
                           const layer_map *m, const layer_data *data, uint8_t *out,
                           lqt_diag *diag) {
  uint64_t size = lqt_dtype_size(d->dtype), bytes = s->tokens * m->hidden * size;
  /* What the layer overwrites is poisoned again. */
  lqt_transfer in[3] = {
      {d->activations, 0, m->activations * size, data->poison},
      {d->activations, 0, bytes, size == 2 ? (void *)data->halves : (void *)data->x},
      {d->steps, 0, 2 * s->tokens * 4, data->steps}};
  lqt_transfer back = {d->activations, 0, bytes, out};
  if (program != NULL) return lqt_program_run(program, in, 3, &back, 1, diag);
  for (size_t i = 0; i < 3; i++) {
    LQT__TRY(lqt_buffer_write(in[i].buffer, in[i].offset, in[i].data, in[i].bytes, diag));
  }
  for (size_t i = 0; i < d->op_count; i++) LQT__TRY(lqt_device_run(d->device, &d->ops[i], 1, diag));
  return lqt_buffer_read(back.buffer, back.offset, back.data, back.bytes, diag);
}

/* Halfway the scale of a weight changes: a recorded program has to see it. */
static lqt_status change_scale(side *sides, layer_data *d, lqt_diag *diag) {
  float scale = d->weights[6].scale * 1.5f;
  lqt_weight_patch patch = {.part = LQT_PART_SCALE, .count = 1, .data = &scale};
  for (int i = 0; i < 2; i++) {
    LQT__TRY(lqt_weight_patch_apply(sides[i].weights[6], &patch, 1, diag));
  }
  return LQT_OK;
}

static lqt_status execute(lqt__selftest *t, const lqt__weight_kind *kind, const layer_shape *s,
                          side *sides, lqt_program **program, double *tolerance, double *worst,
                          lqt_diag *diag) {
  const layer_map m = map_of(s);
  layer_data d = {0};
  LQT__TRY(make_data(t, kind, s, &m, &d));
  for (int i = 0; i < 2; i++) LQT__TRY(open_side(&sides[i], s, &m, &d, diag));
  for (size_t i = 0; i < sides[0].op_count; i++) {
    *tolerance += lqt__op_tolerance(&sides[0].ops[i], t->exact || sides[1].device == t->device);
  }
  LQT__TRY(lqt_program_create(t->device, sides[0].ops, sides[0].op_count, program, diag));
  uint64_t size = lqt_dtype_size(sides[0].dtype), pages = m.pages * PAGE * m.kv;
  uint32_t room = LONGEST - RUNS * s->tokens;
  uint32_t lengths[2] = {lqt__pick(t, room), lqt__pick(t, room)};
  for (int run = 0; run < RUNS; run++) {
    next_step(t, s, &m, lengths, size == 2, &d);
    if (run == 2) LQT__TRY(change_scale(sides, &d, diag));
    LQT__TRY(run_side(&sides[0], *program, s, &m, &d, d.got, diag));
    LQT__TRY(run_side(&sides[1], NULL, s, &m, &d, d.want, diag));
    add_error(d.got, size, d.want, lqt_dtype_size(sides[1].dtype), s->tokens * m.hidden, worst);
  }
  for (int i = 0; i < 2; i++) {
    LQT__TRY(lqt_buffer_read(sides[0].cache[i], 0, d.got, pages * 2, diag));
    LQT__TRY(lqt_buffer_read(sides[1].cache[i], 0, d.want, pages * 2, diag));
    add_error(d.got, 2, d.want, 2, pages, worst);
  }
  return LQT_OK;
}

static lqt_status layer_case(lqt__selftest *t, const lqt__weight_kind *kind, const layer_shape *s) {
  snprintf(t->name, sizeof t->name, "program/%s/h%u.kv%u.d%u.f%u.t%u", kind->name, s->heads,
           s->kv_heads, s->head_dim, s->ffn, s->tokens);
  if (!lqt__case_wanted(t)) return LQT_OK;
  lqt__case_seed(t);
  bool itself = !t->exact && t->info.activation == LQT_DTYPE_F32;
  side sides[2] = {{.device = t->device, .dtype = t->info.activation},
                   {.device = itself ? t->device : t->oracle, .dtype = LQT_DTYPE_F32}};
  lqt_program *program = NULL;
  lqt_diag diag = {0};
  double tolerance = 0, worst = 0;
  lqt_status status = execute(t, kind, s, sides, &program, &tolerance, &worst, &diag);
  lqt_program_destroy(program);
  close_side(&sides[0]);
  close_side(&sides[1]);
  lqt__case_end(t);
  if (status == LQT_OUT_OF_MEMORY) return status;
  char detail[600] = "";
  if (status != LQT_OK) {
    snprintf(detail, sizeof detail, "%s: %s", diag.where, diag.what);
  } else if (!(worst <= tolerance)) {
    snprintf(detail, sizeof detail, "error %.3g is more than %.3g", worst, tolerance);
  }
  lqt__case_report(t, "program", worst, tolerance, detail, status == LQT_UNSUPPORTED);
  return LQT_OK;
}

lqt_status lqt__selftest_programs(lqt__selftest *t) {
  static const layer_shape shapes[] = {
      {1, 4, 4, 64, 300}, {1, 8, 2, 128, 512}, {2, 3, 1, 64, 160},
      {7, 4, 2, 16, 100}, {40, 2, 1, 128, 96},
  };
  for (size_t k = 0; k < lqt__weight_kind_count; k++) {
    const lqt__weight_kind *kind = &lqt__weight_kinds[k];
    bool common = strcmp(kind->name, "cb4.g64") == 0 || strcmp(kind->name, "f16") == 0;
    bool plain = kind->dim <= 1 && kind->delta == LQT_DELTA_NONE && !kind->mask &&
                 kind->residual_bits == 0 && !kind->zero_points;
    if (!(t->options->full ? plain : common)) continue;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
      LQT__TRY(layer_case(t, kind, &shapes[i]));
    }
  }
  return LQT_OK;
}
