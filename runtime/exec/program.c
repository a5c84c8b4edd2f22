#include "exec/program.h"

#include "base/diag.h"

/* Room for the ops of the engine's plan. */
static lqt_status reserve_ops(lqt__program *p, lqt_diag *diag) {
  size_t count = p->engine->plan.op_count + 1; /* and TOPK */
  if (p->ops != NULL) return LQT_OK;
  p->ops = lqt__alloc_array(count, sizeof *p->ops);
  if (p->ops != NULL) return LQT_OK;
  return lqt__fail_memory(diag, "session", count * sizeof *p->ops, "the program");
}

lqt_status lqt__program_create(const lqt_engine *engine, const lqt__program_buffers *buffers,
                               lqt__program *out, lqt_diag *diag) {
  *out = (lqt__program){.engine = engine, .buffers = *buffers};
  return reserve_ops(out, diag);
}

void lqt__program_reset(lqt__program *program) {
  for (size_t i = 0; i < LQT__PROGRAM_ENTRIES; i++) {
    lqt_program_destroy(program->entries[i].program);
    program->entries[i] = (lqt__program_entry){0};
  }
  lqt__free(program->ops);
  program->ops = NULL;
}

void lqt__program_free(lqt__program *program) { lqt__program_reset(program); }

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

const lqt_op *lqt__program_ops(lqt__program *p, lqt__form form, uint64_t tokens, uint64_t rows,
                               uint32_t top, size_t *out_count, lqt_diag *diag) {
  const lqt__plan *plan = &p->engine->plan;
  bool alias = form == LQT__FORM_STATE || form == LQT__FORM_WHOLE;
  size_t begin = form == LQT__FORM_MORE ? plan->body_count : 0;
  size_t end = form == LQT__FORM_STATE ? plan->state_count : plan->op_count, count = 0;
  if (reserve_ops(p, diag) != LQT_OK) return NULL;
  for (size_t i = begin; i < end; i++) {
    bool gather = i >= plan->body_count && i < plan->body_count + plan->gather_count;
    if (alias && gather) continue;
    bind(p, &plan->ops[i], &p->ops[count++], alias, tokens, alias ? tokens : rows);
  }
  if (top > 0) {
    rows = form == LQT__FORM_WHOLE ? tokens : rows;
    lqt_op *op = &p->ops[count++];
    *op = (lqt_op){.kind = LQT_OP_TOPK, .label = UINT32_MAX};
    op->in[0] = lqt__program_logits(p, form == LQT__FORM_WHOLE, rows);
    lqt__program_top(p, rows, top, op->out);
  }
  *out_count = count;
  return p->ops;
}

lqt_status lqt__program_get(lqt__program *p, lqt__form form, uint64_t tokens, uint64_t rows,
                            uint32_t top, lqt_program **out, lqt_diag *diag) {
  if (form == LQT__FORM_STATE || form == LQT__FORM_WHOLE) rows = tokens;
  lqt__program_entry *oldest = &p->entries[0];
  for (size_t i = 0; i < LQT__PROGRAM_ENTRIES; i++) {
    lqt__program_entry *entry = &p->entries[i];
    if (entry->program != NULL && entry->form == form && entry->tokens == tokens &&
        entry->rows == rows && entry->top == top) {
      entry->used = ++p->clock;
      *out = entry->program;
      return LQT_OK;
    }
    if (entry->used < oldest->used) oldest = entry;
  }
  lqt_program_destroy(oldest->program);
  *oldest = (lqt__program_entry){0};
  size_t count;
  const lqt_op *ops = lqt__program_ops(p, form, tokens, rows, top, &count, diag);
  if (ops == NULL) return LQT_OUT_OF_MEMORY;
  LQT__TRY(lqt_program_create(p->engine->device, ops, count, out, diag));
  *oldest = (lqt__program_entry){form, tokens, rows, top, ++p->clock, *out};
  return LQT_OK;
}

void lqt__program_top(const lqt__program *p, uint64_t rows, uint32_t top, lqt_view out[2]) {
  for (int i = 0; i < 2; i++) {
    out[i] = (lqt_view){.buffer = p->buffers.top,
                        .offset = (uint64_t)i * p->buffers.top_rows * LQT_TOPK_MOST * 4,
                        .rows = rows,
                        .cols = top,
                        .row_stride = top,
                        .dtype = i == 0 ? LQT_DTYPE_F32 : LQT_DTYPE_I32};
  }
}

lqt_view lqt__program_logits(const lqt__program *p, bool whole, uint64_t rows) {
  return view_of(p, p->engine->plan.logits, whole, rows, rows);
}
