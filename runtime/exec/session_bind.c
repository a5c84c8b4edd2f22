/* What a session has of its engine's plan, and how it follows when an edit exchanges the plan or
 * changes weights that cached keys and values came from. */
#include <string.h>

#include "base/diag.h"
#include "exec/session.h"

static const char *const where = "session";

enum { LOGIT_BYTES = 64u << 20 }; /* logits on the device at once; more rows run in several goes */

/* ---- Binding ---- */

static lqt_status create_activations(lqt_session *s, lqt_diag *diag) {
  const lqt__plan *plan = &s->engine->plan;
  uint64_t row_bytes = plan->values[plan->logits].cols * lqt_dtype_size(plan->activation);
  uint64_t rows = LOGIT_BYTES / row_bytes;
  s->max_rows = rows < 1 ? 1 : rows > s->max_batch ? s->max_batch : (uint32_t)rows;
  uint64_t bytes;
  s->offsets = lqt__alloc_array(plan->value_count, sizeof *s->offsets);
  if (s->offsets == NULL ||
      !lqt__plan_layout(plan, s->max_batch, s->max_rows, s->offsets, &bytes)) {
    return lqt__fail_memory(diag, where, 0, "the layout of activations");
  }
  LQT__TRY(lqt_buffer_create(s->engine->device, bytes, &s->activations, diag));
  if (!lqt_device_has_op(s->engine->device, LQT_OP_TOPK)) return LQT_OK;
  return lqt_buffer_create(s->engine->device, (uint64_t)s->max_rows * LQT_TOPK_MOST * 8, &s->top,
                           diag);
}

static lqt__session_pages *find_pages(const lqt_session *s, const char *module,
                                      const uint64_t cols[2]) {
  for (size_t i = 0; i < s->page_count; i++) {
    lqt__session_pages *pages = &s->pages[i];
    if (strcmp(pages->module, module) == 0 && memcmp(pages->cols, cols, sizeof pages->cols) == 0) {
      return pages;
    }
  }
  return NULL;
}

/* Pages of one attention module, new or those of the plan before (`old`), which keeps them until
 * the new binding is whole. */
static lqt_status take_pages(lqt_session *s, const lqt_session *old, const lqt__plan_op *write,
                             lqt_diag *diag) {
  const lqt__plan *plan = &s->engine->plan;
  const char *module = s->engine->current->graph.modules[write->op.label].id;
  lqt__session_pages *pages = &s->pages[s->page_count++];
  for (int i = 0; i < 2; i++) pages->cols[i] = plan->values[write->out[i]].cols;
  pages->module = lqt__strdup(module);
  if (pages->module == NULL) return lqt__fail_memory(diag, where, 0, "cache pages");
  const lqt__session_pages *kept = find_pages(old, module, pages->cols);
  uint32_t pair = (uint32_t)(s->page_count - 1);
  if (kept == NULL && pair < s->kv_missing) s->kv_missing = pair;
  uint64_t positions = (uint64_t)s->cache.page_count * LQT__PAGE_TOKENS;
  for (int i = 0; i < 2; i++) {
    uint64_t bytes;
    if (kept != NULL) {
      pages->buffers[i] = kept->buffers[i];
    } else if (!lqt__mul(positions, pages->cols[i], &bytes) ||
               !lqt__mul(bytes, lqt_dtype_size(s->kv_dtype), &bytes)) {
      return lqt__fail(diag, LQT_LIMIT, where, "a cache of %llu positions is too large",
                       (unsigned long long)positions);
    } else {
      LQT__TRY(lqt_buffer_create(s->engine->device, bytes, &pages->buffers[i], diag));
    }
    s->page_buffers[2 * pair + (uint32_t)i] = pages->buffers[i];
  }
  return LQT_OK;
}

static lqt_status create_pages(lqt_session *s, const lqt_session *old, lqt_diag *diag) {
  const lqt__plan *plan = &s->engine->plan;
  s->pages = lqt__alloc_array(plan->cache_count, sizeof *s->pages);
  s->page_buffers = lqt__alloc_array(plan->cache_count, sizeof *s->page_buffers);
  if (s->pages == NULL || s->page_buffers == NULL) {
    return lqt__fail_memory(diag, where, plan->cache_count * sizeof *s->pages, "cache pages");
  }
  /* Attention modules write their caches in the order in which the caches are numbered. */
  for (size_t k = 0; k < plan->op_count; k++) {
    if (plan->ops[k].op.kind == LQT_OP_KV_WRITE) {
      LQT__TRY(take_pages(s, old, &plan->ops[k], diag));
    }
  }
  return LQT_OK;
}

static bool has_buffer(const lqt_session *s, const lqt_buffer *buffer) {
  for (size_t i = 0; i < s->page_count; i++) {
    if (s->pages[i].buffers[0] == buffer || s->pages[i].buffers[1] == buffer) return true;
  }
  return false;
}

/* Frees a binding but the pages that `other` has too. */
static void drop_binding(lqt_session *s, const lqt_session *other) {
  lqt__program_free(&s->program);
  lqt_buffer_destroy(s->activations);
  lqt_buffer_destroy(s->top);
  lqt__free(s->offsets);
  for (size_t i = 0; i < s->page_count; i++) {
    for (int k = 0; k < 2; k++) {
      lqt_buffer *buffer = s->pages[i].buffers[k];
      if (other == NULL || !has_buffer(other, buffer)) lqt_buffer_destroy(buffer);
    }
    lqt__free(s->pages[i].module);
  }
  lqt__free(s->pages);
  lqt__free(s->page_buffers);
  s->activations = s->top = NULL;
  s->offsets = NULL;
  s->pages = NULL;
  s->page_buffers = NULL;
  s->page_count = 0;
}

void lqt__session_unbind(lqt_session *s) { drop_binding(s, NULL); }

lqt_status lqt__session_bind(lqt_session *s, lqt_diag *diag) {
  lqt_session old = *s;
  s->program = (lqt__program){0};
  s->activations = s->top = NULL;
  s->offsets = NULL;
  s->pages = NULL;
  s->page_buffers = NULL;
  s->page_count = 0;
  s->kv_missing = old.kv_missing == UINT32_MAX ? UINT32_MAX : 0; /* pairs get other numbers */
  lqt_status status = create_pages(s, &old, diag);
  if (status == LQT_OK) status = create_activations(s, diag);
  if (status == LQT_OK) {
    lqt__program_buffers buffers = {.activations = s->activations,
                                    .offsets = s->offsets,
                                    .steps = s->steps,
                                    .table = s->table,
                                    .table_rows = s->cache.max_sequences,
                                    .table_cols = s->cache.table_cols,
                                    .pages = s->page_buffers,
                                    .positions = (uint64_t)s->cache.page_count * LQT__PAGE_TOKENS,
                                    .page_tokens = LQT__PAGE_TOKENS,
                                    .kv_dtype = s->kv_dtype,
                                    .top = s->top,
                                    .top_rows = s->max_rows};
    status = lqt__program_create(s->engine, &buffers, &s->program, diag);
  }
  if (status != LQT_OK) {
    drop_binding(s, &old);
    *s = old;
    return status;
  }
  drop_binding(&old, s);
  s->plan_version = s->engine->plan_version;
  return LQT_OK;
}

/* ---- Following an edit ---- */

lqt_status lqt__session_remember(lqt_session *s, const lqt_step_input *input, lqt_diag *diag) {
  lqt__session_history *history = &s->histories[input->sequence];
  size_t length = s->cache.sequences[input->sequence].length, need = length + input->count;
  if (need > history->capacity) {
    size_t capacity = need + need / 2 + 64;
    int32_t *tokens = lqt__realloc(history->tokens, capacity * sizeof *tokens);
    if (tokens == NULL) {
      return lqt__fail_memory(diag, where, capacity * sizeof *tokens, "a sequence's tokens");
    }
    history->tokens = tokens;
    history->capacity = capacity;
  }
  memcpy(history->tokens + length, input->tokens, input->count * sizeof *input->tokens);
  return LQT_OK;
}

/* Runs the ops that fill caches from pair `first` on, and those they need, for `count` tokens. What
 * the pairs before it hold is still right: it stays as it is. */
static lqt_status run_filling(lqt_session *s, uint64_t count, uint32_t first, lqt_op *ops,
                              lqt_diag *diag) {
  const lqt__plan *plan = &s->engine->plan;
  size_t used = 0, all_count;
  const lqt_op *all = lqt__program_ops(&s->program, LQT__FORM_STATE, count, 0, 0, &all_count, diag);
  if (all == NULL) return LQT_OUT_OF_MEMORY;
  for (size_t k = 0; k < plan->state_count; k++) {
    const lqt__plan_op *op = &plan->ops[k];
    bool skip = op->op.kind == LQT_OP_KV_WRITE && plan->values[op->out[0]].offset / 2 < first;
    if (!skip) ops[used++] = all[k];
  }
  return lqt_device_run(s->engine->device, ops, used, diag);
}

static lqt_status recompute_sequence(lqt_session *s, uint32_t sequence, uint32_t first, lqt_op *ops,
                                     lqt_diag *diag) {
  uint32_t length = s->cache.sequences[sequence].length;
  for (uint32_t done = 0; done < length;) {
    uint32_t count = length - done < s->max_batch ? length - done : s->max_batch;
    uint64_t stride = lqt__step_stride(count);
    for (uint32_t i = 0; i < count; i++) {
      s->step[i] = s->histories[sequence].tokens[done + i];
      s->step[stride + i] = (int32_t)(done + i);
      s->step[2 * stride + i] = (int32_t)sequence;
    }
    LQT__TRY(lqt_buffer_write(s->steps, 0, s->step, (2 * stride + count) * sizeof(int32_t), diag));
    LQT__TRY(run_filling(s, count, first, ops, diag));
    done += count;
  }
  return LQT_OK;
}

static lqt_status recompute(lqt_session *s, uint32_t first, lqt_step_result *result,
                            lqt_diag *diag) {
  if (s->cache.positions == 0) return LQT_OK;
  size_t count = s->engine->plan.state_count;
  lqt_op *ops = lqt__alloc_array(count, sizeof *ops);
  if (ops == NULL) return lqt__fail_memory(diag, where, count * sizeof *ops, "a recomputation");
  lqt_status status = lqt__session_write_table(s, diag);
  for (uint32_t i = 0; i < s->cache.max_sequences && status == LQT_OK; i++) {
    if (!s->cache.sequences[i].used) continue;
    status = recompute_sequence(s, i, first, ops, diag);
    result->recomputed += s->cache.sequences[i].length;
  }
  lqt__free(ops);
  return status;
}

lqt_status lqt__session_catch_up(lqt_session *s, lqt_step_result *result, lqt_diag *diag) {
  if (s->plan_version != s->engine->plan_version) LQT__TRY(lqt__session_bind(s, diag));
  uint64_t revision = lqt_engine_revision(s->engine);
  if (revision == s->kv_revision && s->kv_missing == UINT32_MAX) return LQT_OK;
  uint32_t reach = s->kv_missing;
  if (s->kv_policy != LQT_KV_KEEP) {
    uint32_t edits = lqt__engine_reach_since(s->engine, s->kv_revision);
    if (edits < reach) reach = edits;
  }
  if (reach != UINT32_MAX && s->kv_policy == LQT_KV_FLUSH) {
    result->flushed = s->cache.positions;
    for (uint32_t i = 0; i < s->cache.max_sequences; i++) {
      if (s->cache.sequences[i].used) lqt__cache_truncate(&s->cache, i, 0);
    }
  } else if (reach != UINT32_MAX) {
    LQT__TRY(recompute(s, reach, result, diag));
  }
  s->kv_missing = UINT32_MAX;
  s->kv_revision = revision;
  return LQT_OK;
}
