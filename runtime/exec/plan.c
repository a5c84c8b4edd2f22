#include "exec/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/diag.h"

static const char *const where = "module graph";

/* Makes room for `more` elements; false: no memory. */
static bool reserve(void **data, size_t *capacity, size_t count, size_t more, size_t size) {
  uint64_t need, bytes;
  if (!lqt__add(count, more, &need)) return false;
  if (need <= *capacity) return true;
  need += need / 2 + 16;
  if (!lqt__mul(need, size, &bytes)) return false;
  void *grown = lqt__realloc(*data, bytes);
  if (grown == NULL) return false;
  *data = grown;
  *capacity = need;
  return true;
}

static void no_memory(lqt__builder *b, uint64_t bytes) {
  (void)lqt__fail_memory(b->diag, where, bytes, "the plan");
}

uint32_t lqt__builder_value(lqt__builder *b, lqt__value_kind kind, uint64_t cols) {
  lqt__plan *plan = b->plan;
  void *data = plan->values;
  bool room = reserve(&data, &plan->value_capacity, plan->value_count, 1, sizeof *plan->values);
  plan->values = data;
  if (!room) {
    no_memory(b, sizeof *plan->values);
    return 0;
  }
  plan->values[plan->value_count] = (lqt__value){.kind = kind, .cols = cols};
  return (uint32_t)plan->value_count++;
}

lqt__plan_op *lqt__builder_op(lqt__builder *b, lqt_op_kind kind) {
  lqt__plan *plan = b->plan;
  void *data = plan->ops;
  bool room = reserve(&data, &plan->op_capacity, plan->op_count, 1, sizeof *plan->ops);
  plan->ops = data;
  if (!room) {
    no_memory(b, sizeof *plan->ops);
    return NULL;
  }
  lqt__plan_op *op = &plan->ops[plan->op_count++];
  *op = (lqt__plan_op){.op = {.kind = kind, .label = b->label}, .weight = {-1, -1, -1}};
  return op;
}

uint32_t lqt__builder_constant(lqt__builder *b, size_t count, float **out_data) {
  lqt__plan *plan = b->plan;
  size_t begin = (plan->constant_count + 63) & ~(size_t)63;
  void *data = plan->constants;
  bool room = reserve(&data, &plan->constant_capacity, begin, count, sizeof *plan->constants);
  plan->constants = data;
  uint32_t value = room ? lqt__builder_value(b, LQT__VALUE_CONSTANT, count) : 0;
  if (value == 0) {
    no_memory(b, count * sizeof *plan->constants);
    return 0;
  }
  size_t added = begin + count - plan->constant_count;
  memset(plan->constants + plan->constant_count, 0, added * sizeof *plan->constants);
  plan->constant_count = begin + count;
  plan->values[value].offset = begin * sizeof *plan->constants;
  *out_data = plan->constants + begin;
  return value;
}

bool lqt__builder_constant_tensor(lqt__builder *b, size_t tensor) {
  lqt__plan *plan = b->plan;
  void *data = plan->constant_tensors;
  bool room = reserve(&data, &plan->constant_tensor_capacity, plan->constant_tensor_count, 1,
                      sizeof *plan->constant_tensors);
  plan->constant_tensors = data;
  if (room) {
    plan->constant_tensors[plan->constant_tensor_count++] = (uint32_t)tensor;
  } else {
    no_memory(b, sizeof *plan->constant_tensors);
  }
  return room;
}

/* ---- From modules to ops ---- */

static lqt_status graph_inputs(lqt__builder *b, uint32_t *values) {
  const lqt__graph *graph = &b->model->graph;
  for (size_t i = 0; i < graph->input_count; i++) {
    lqt__value_kind kind;
    if (strcmp(graph->inputs[i], "input_ids") == 0) {
      kind = LQT__VALUE_IDS;
    } else if (strcmp(graph->inputs[i], "position_ids") == 0) {
      kind = LQT__VALUE_POSITIONS;
    } else {
      return lqt__fail(b->diag, LQT_UNSUPPORTED, where,
                       "graph input '%.64s' is not known (input_ids, position_ids are)",
                       graph->inputs[i]);
    }
    values[i] = lqt__builder_value(b, kind, 0);
    if (values[i] == 0) return LQT_OUT_OF_MEMORY;
  }
  return LQT_OK;
}

/* Plans all modules; *out_logits is the value behind the graph's one output. `results` holds each
 * module's outputs, `inputs` the graph's inputs. */
static lqt_status plan_modules(lqt__builder *b, uint32_t (*results)[LQT__MODULE_MAX_PORTS],
                               uint32_t *inputs) {
  const lqt__graph *graph = &b->model->graph;
  LQT__TRY(graph_inputs(b, inputs));
  for (size_t m = 0; m < graph->module_count; m++) {
    const lqt__module *module = &graph->modules[m];
    uint32_t in[LQT__MODULE_MAX_PORTS] = {0};
    for (uint32_t i = 0; i < module->input_count; i++) {
      lqt__port_ref from = module->inputs[i];
      in[i] = from.module < 0 ? inputs[from.port] : results[from.module][from.port];
    }
    b->module = module;
    b->label = (uint32_t)m;
    LQT__TRY(lqt__builder_module(b, in, results[m]));
  }
  const lqt__port_ref *output = &graph->outputs[0];
  if (output->module < 0) {
    return lqt__fail(b->diag, LQT_BAD_GRAPH, where, "the output is an input: nothing to run");
  }
  b->plan->logits = results[output->module][output->port];
  return LQT_OK;
}

static lqt_status plan_graph(lqt__builder *b) {
  const lqt__graph *graph = &b->model->graph;
  if (graph->module_count == 0) {
    return lqt__fail(b->diag, LQT_UNSUPPORTED, b->model->path,
                     "the file has no module graph: it can be inspected, not run");
  }
  if (graph->output_count != 1) {
    return lqt__fail(b->diag, LQT_UNSUPPORTED, where, "the graph has %zu outputs; one is run",
                     graph->output_count);
  }
  uint32_t(*results)[LQT__MODULE_MAX_PORTS] =
      lqt__alloc_array(graph->module_count, sizeof *results);
  uint32_t *inputs = lqt__alloc_array(graph->input_count, sizeof *inputs);
  lqt_status status = LQT_OUT_OF_MEMORY;
  if (results == NULL || inputs == NULL) {
    no_memory(b, graph->module_count * sizeof *results);
  } else {
    status = plan_modules(b, results, inputs);
  }
  lqt__free(results);
  lqt__free(inputs);
  return status;
}

/* ---- Fusing residual additions into products ---- */

enum { OPERANDS = LQT_OP_MAX_IN + LQT_OP_MAX_OUT };

static void list_operands(const lqt__plan_op *op, uint32_t out[OPERANDS]) {
  memcpy(out, op->in, sizeof op->in);
  memcpy(out + LQT_OP_MAX_IN, op->out, sizeof op->out);
}

static bool touches(const lqt__plan_op *op, uint32_t value) {
  uint32_t operands[OPERANDS];
  list_operands(op, operands);
  for (size_t i = 0; i < OPERANDS; i++) {
    if (operands[i] == value) return true;
  }
  return false;
}

/* Is `value` touched by an op in [first, end)? */
static bool touched_between(const lqt__plan *plan, size_t first, size_t end, uint32_t value) {
  for (size_t i = first; i < end; i++) {
    if (touches(&plan->ops[i], value)) return true;
  }
  return false;
}

static void rename_value(lqt__plan *plan, size_t first, uint32_t from, uint32_t to) {
  for (size_t k = first; k < plan->op_count; k++) {
    lqt__plan_op *op = &plan->ops[k];
    for (size_t i = 0; i < LQT_OP_MAX_IN; i++) {
      if (op->in[i] == from) op->in[i] = to;
    }
    for (size_t i = 0; i < LQT_OP_MAX_OUT; i++) {
      if (op->out[i] == from) op->out[i] = to;
    }
  }
  if (plan->logits == from) plan->logits = to;
}

/* sum = kept + product: the product is accumulated into `kept` where nothing else looks at either
 * from then on. */
static bool fuse_add(lqt__plan *plan, size_t add, uint32_t kept, uint32_t product) {
  const lqt__plan_op *sum = &plan->ops[add];
  if (kept == product || plan->logits == kept || plan->logits == product) return false;
  size_t at = add;
  while (at > 0 && !touches(&plan->ops[at - 1], product)) at--;
  if (at == 0) return false;
  lqt__plan_op *op = &plan->ops[at - 1];
  if (op->op.kind != LQT_OP_MATMUL || op->out[0] != product || op->weight[1] >= 0 ||
      op->op.accumulate || touches(op, kept)) {
    return false;
  }
  if (!touched_between(plan, 0, at - 1, kept) || touched_between(plan, at, add, kept) ||
      touched_between(plan, add + 1, plan->op_count, kept) ||
      touched_between(plan, add + 1, plan->op_count, product)) {
    return false;
  }
  uint32_t result = sum->out[0];
  op->op.accumulate = true;
  op->out[0] = kept;
  memmove(&plan->ops[add], &plan->ops[add + 1], (plan->op_count - add - 1) * sizeof *plan->ops);
  plan->op_count--;
  rename_value(plan, add, result, kept);
  return true;
}

static void fuse_adds(lqt__plan *plan) {
  for (size_t i = 0; i < plan->op_count;) {
    const lqt__plan_op *op = &plan->ops[i];
    bool fused = op->op.kind == LQT_OP_ADD && (fuse_add(plan, i, op->in[0], op->in[1]) ||
                                               fuse_add(plan, i, op->in[1], op->in[0]));
    if (!fused) i++;
  }
}

/* ---- Cutting off the part that only wanted rows need ---- */

/* An op that needs every token's row: it reads ids, positions or sequences. */
static bool needs_all_rows(const lqt__plan *plan, const lqt__plan_op *op) {
  for (size_t i = 0; i < LQT_OP_MAX_IN; i++) {
    lqt__value_kind kind = plan->values[op->in[i]].kind;
    if (kind == LQT__VALUE_IDS || kind == LQT__VALUE_POSITIONS || kind == LQT__VALUE_SEQUENCES) {
      return true;
    }
  }
  return false;
}

/* First activation from before `cut` that an op after it touches and that has no gather yet; 0 when
 * there is none. */
static uint32_t crossing_value(const lqt__plan *plan, size_t cut, size_t tail) {
  for (size_t k = tail; k < plan->op_count; k++) {
    uint32_t operands[OPERANDS];
    list_operands(&plan->ops[k], operands);
    for (size_t i = 0; i < OPERANDS; i++) {
      if (plan->values[operands[i]].kind == LQT__VALUE_ACTIVATION &&
          touched_between(plan, 0, cut, operands[i])) {
        return operands[i];
      }
    }
  }
  bool defined = plan->logits != 0 && touched_between(plan, 0, cut, plan->logits);
  return defined ? plan->logits : 0;
}

static lqt_status cut_tail(lqt__builder *b) {
  lqt__plan *plan = b->plan;
  size_t cut = 0;
  for (size_t i = 0; i < plan->op_count; i++) {
    if (needs_all_rows(plan, &plan->ops[i])) cut = i + 1;
    if (plan->ops[i].op.kind == LQT_OP_KV_WRITE) plan->state_count = i + 1;
  }
  plan->body_count = cut;
  uint32_t rows = lqt__builder_value(b, LQT__VALUE_ROWS, 0);
  if (rows == 0) return LQT_OUT_OF_MEMORY;
  uint32_t source;
  while ((source = crossing_value(plan, cut, cut + plan->gather_count)) != 0) {
    uint32_t gathered = lqt__builder_value(b, LQT__VALUE_ACTIVATION, plan->values[source].cols);
    if (gathered == 0 || lqt__builder_op(b, LQT_OP_GATHER) == NULL) return LQT_OUT_OF_MEMORY;
    lqt__plan_op gather = plan->ops[plan->op_count - 1];
    size_t at = cut + plan->gather_count++;
    memmove(&plan->ops[at + 1], &plan->ops[at], (plan->op_count - 1 - at) * sizeof *plan->ops);
    gather.in[0] = source;
    gather.in[1] = rows;
    gather.out[0] = gathered;
    plan->values[gathered].source = source;
    plan->ops[at] = gather;
    rename_value(plan, at + 1, source, gathered);
  }
  return LQT_OK;
}

static void find_lifetimes(lqt__plan *plan) {
  for (size_t v = 0; v < plan->value_count; v++) plan->values[v].first = SIZE_MAX;
  for (size_t k = 0; k < plan->op_count; k++) {
    uint32_t operands[OPERANDS];
    list_operands(&plan->ops[k], operands);
    for (size_t i = 0; i < OPERANDS; i++) {
      lqt__value *value = &plan->values[operands[i]];
      if (value->first == SIZE_MAX) {
        value->first = k;
        value->tail = k >= plan->body_count;
      }
      value->last = k;
    }
  }
  plan->values[plan->logits].last = plan->op_count;
  /* The gathers may run again for more rows: what they read must outlive the tail. */
  for (size_t k = plan->body_count; k < plan->body_count + plan->gather_count; k++) {
    plan->values[plan->ops[k].in[0]].last = plan->op_count;
  }
}

lqt_status lqt__plan_create(const lqt_model *model, lqt_dtype activation, lqt__plan *out,
                            lqt_diag *diag) {
  *out = (lqt__plan){
      .activation = activation, .token_limit = UINT64_MAX, .position_limit = UINT64_MAX};
  lqt__builder b = {.plan = out, .model = model, .diag = diag};
  (void)lqt__builder_value(&b, LQT__VALUE_NONE, 0); /* value 0 */
  lqt_status status = out->value_count == 1 ? plan_graph(&b) : LQT_OUT_OF_MEMORY;
  if (status == LQT_OK) {
    fuse_adds(out);
    status = cut_tail(&b);
  }
  if (status == LQT_OK) {
    find_lifetimes(out);
  } else {
    lqt__plan_free(out);
  }
  return status;
}

void lqt__plan_free(lqt__plan *plan) {
  lqt__free(plan->values);
  lqt__free(plan->ops);
  lqt__free(plan->constants);
  lqt__free(plan->constant_tensors);
  *plan = (lqt__plan){0};
}

/* ---- Placing activations ---- */

typedef struct place {
  uint32_t value;
  uint64_t offset, bytes;
} place;

static int largest_first(const void *a, const void *b) {
  const place *left = a, *right = b;
  if (left->bytes != right->bytes) return left->bytes < right->bytes ? 1 : -1;
  return left->value < right->value ? -1 : 1;
}

/* Lowest offset where `p` meets none of the `count` places before it while both are alive. */
static bool find_offset(const lqt__plan *plan, const place *placed, size_t count, place *p) {
  const lqt__value *value = &plan->values[p->value];
  p->offset = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t i = 0; i < count; i++) {
      const lqt__value *other = &plan->values[placed[i].value];
      bool together = value->first <= other->last && other->first <= value->last;
      uint64_t end, other_end;
      if (!lqt__add(p->offset, p->bytes, &end) ||
          !lqt__add(placed[i].offset, placed[i].bytes, &other_end)) {
        return false;
      }
      if (together && p->offset < other_end && placed[i].offset < end) {
        p->offset = other_end;
        moved = true;
      }
    }
  }
  return true;
}

bool lqt__plan_layout(const lqt__plan *plan, uint64_t tokens, uint64_t rows, uint64_t *offsets,
                      uint64_t *out_bytes) {
  place *places = lqt__alloc_array(plan->value_count, sizeof *places);
  if (places == NULL) return false;
  size_t count = 0;
  bool fits = true;
  for (size_t v = 1; v < plan->value_count; v++) {
    const lqt__value *value = &plan->values[v];
    if (value->kind != LQT__VALUE_ACTIVATION || value->first == SIZE_MAX) continue;
    uint64_t bytes;
    fits = fits && lqt__mul(value->tail ? rows : tokens, value->cols, &bytes) &&
           lqt__mul(bytes, lqt_dtype_size(plan->activation), &bytes) &&
           lqt__align_up(bytes, 256, &bytes);
    if (!fits) break;
    places[count++] = (place){(uint32_t)v, 0, bytes};
  }
  qsort(places, count, sizeof *places, largest_first);
  *out_bytes = 0;
  for (size_t i = 0; i < count && fits; i++) {
    fits = find_offset(plan, places, i, &places[i]);
    offsets[places[i].value] = places[i].offset;
    if (places[i].offset + places[i].bytes > *out_bytes) {
      *out_bytes = places[i].offset + places[i].bytes;
    }
  }
  lqt__free(places);
  return fits;
}
