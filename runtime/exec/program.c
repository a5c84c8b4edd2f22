#include "exec/program.h"

#include "base/diag.h"

lqt_status lqt__program_create(const lqt_engine *engine, const lqt__program_buffers *buffers,
                               lqt__program *out, lqt_diag *diag) {
  size_t count = engine->plan.op_count;
  *out = (lqt__program){.engine = engine, .buffers = *buffers};
  out->whole = lqt__alloc_array(count, sizeof *out->whole);
  out->split = lqt__alloc_array(count, sizeof *out->split);
  if (out->whole != NULL && out->split != NULL) return LQT_OK;
  lqt__program_free(out);
  return lqt__fail_memory(diag, "session", 2 * count * sizeof *out->whole, "the program");
}

void lqt__program_free(lqt__program *program) {
  lqt__free(program->whole);
  lqt__free(program->split);
  program->whole = program->split = NULL;
}

static lqt_view step_view(const lqt__program *p, uint32_t index, uint64_t tokens, uint64_t cols) {
  uint64_t offset = index * lqt__step_stride(tokens) * sizeof(int32_t);
  return (lqt_view){.buffer = p->buffers.steps,
                    .offset = offset,
                    .rows = 1,
                    .cols = cols,
                    .row_stride = cols,
                    .dtype = LQT_DTYPE_I32};
}

/* Where a value is. `alias`: gathered values are their sources (every row is wanted). */
static lqt_view view_of(const lqt__program *p, uint32_t id, bool alias, uint64_t tokens,
                        uint64_t rows) {
  const lqt__plan *plan = &p->engine->plan;
  const lqt__value *value = &plan->values[id];
  const lqt__program_buffers *b = &p->buffers;
  switch (value->kind) {
    case LQT__VALUE_NONE:
      break;
    case LQT__VALUE_ACTIVATION:
      return (lqt_view){.buffer = b->activations,
                        .offset = b->offsets[alias && value->source != 0 ? value->source : id],
                        .rows = value->tail ? rows : tokens,
                        .cols = value->cols,
                        .row_stride = value->cols,
                        .dtype = plan->activation};
    case LQT__VALUE_CONSTANT:
      return (lqt_view){.buffer = p->engine->constants,
                        .offset = value->offset,
                        .rows = 1,
                        .cols = value->cols,
                        .row_stride = value->cols,
                        .dtype = LQT_DTYPE_F32};
    case LQT__VALUE_IDS:
      return step_view(p, 0, tokens, tokens);
    case LQT__VALUE_POSITIONS:
      return step_view(p, 1, tokens, tokens);
    case LQT__VALUE_SEQUENCES:
      return step_view(p, 2, tokens, tokens);
    case LQT__VALUE_ROWS:
      return step_view(p, 3, tokens, rows);
    case LQT__VALUE_TABLE:
      return (lqt_view){.buffer = b->table,
                        .rows = b->table_rows,
                        .cols = b->table_cols,
                        .row_stride = b->table_cols,
                        .dtype = LQT_DTYPE_I32};
    case LQT__VALUE_PAGES:
      return (lqt_view){.buffer = b->pages[value->offset],
                        .rows = b->positions,
                        .cols = value->cols,
                        .row_stride = value->cols,
                        .dtype = b->kv_dtype};
  }
  return (lqt_view){0};
}

static void bind(const lqt__program *p, const lqt__plan_op *from, lqt_op *op, bool alias,
                 uint64_t tokens, uint64_t rows) {
  *op = from->op;
  op->page_tokens = p->buffers.page_tokens;
  for (size_t i = 0; i < LQT_OP_MAX_IN; i++) {
    op->in[i] = view_of(p, from->in[i], alias, tokens, rows);
  }
  for (size_t i = 0; i < LQT_OP_MAX_OUT; i++) {
    op->out[i] = view_of(p, from->out[i], alias, tokens, rows);
    if (from->weight[i] >= 0) op->weight[i] = p->engine->weights[from->weight[i]];
  }
}

const lqt_op *lqt__program_whole(lqt__program *p, uint64_t tokens) {
  const lqt__plan *plan = &p->engine->plan;
  if (p->whole_tokens == tokens) return p->whole;
  size_t tail = plan->body_count + plan->gather_count;
  for (size_t i = 0; i < plan->body_count; i++) {
    bind(p, &plan->ops[i], &p->whole[i], true, tokens, tokens);
  }
  for (size_t i = tail; i < plan->op_count; i++) {
    bind(p, &plan->ops[i], &p->whole[i - plan->gather_count], true, tokens, tokens);
  }
  p->whole_tokens = tokens;
  return p->whole;
}

const lqt_op *lqt__program_split(lqt__program *p, uint64_t tokens, uint64_t rows) {
  const lqt__plan *plan = &p->engine->plan;
  if (p->split_tokens == tokens && p->split_rows == rows) return p->split;
  for (size_t i = p->split_tokens == tokens ? plan->body_count : 0; i < plan->op_count; i++) {
    bind(p, &plan->ops[i], &p->split[i], false, tokens, rows);
  }
  p->split_tokens = tokens;
  p->split_rows = rows;
  return p->split;
}

lqt_view lqt__program_logits(const lqt__program *p, bool whole, uint64_t rows) {
  return view_of(p, p->engine->plan.logits, whole, rows, rows);
}
