/* Sessions: sequences, their cache, and the step. */
#include "exec/session.h"

#include <string.h>
#include <time.h>

#include "base/diag.h"
#include "base/half.h"
#include "exec/sampler.h"

enum {
  DEFAULT_BATCH = 512,
  DEFAULT_CONTEXT = 4096, /* of models that do not say */
};

static const char *const where = "session";

static lqt_status resolve_options(const lqt_engine *engine, const lqt_session_options *given,
                                  lqt_session_options *o, lqt_diag *diag) {
  *o = (lqt_session_options){0};
  if (given != NULL) {
    if (given->size != sizeof *given) {
      return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                       "lqt_session_options.size is %u, not %zu: set it to sizeof", given->size,
                       sizeof *given);
    }
    *o = *given;
  }
  if (o->max_sequences == 0) o->max_sequences = 1;
  if (o->max_batch == 0) o->max_batch = DEFAULT_BATCH;
  if (o->kv_policy < LQT_KV_KEEP || o->kv_policy > LQT_KV_RECOMPUTE) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "%d is no policy for the cache",
                     (int)o->kv_policy);
  }
  if (!o->kv_dtype_set) o->kv_dtype = LQT_DTYPE_F16;
  if (o->kv_dtype != LQT_DTYPE_F16 && o->kv_dtype != LQT_DTYPE_F32) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "kv_dtype must be F16 or F32, not %s",
                     lqt_dtype_name(o->kv_dtype));
  }
  uint64_t context = engine->context != 0 ? engine->context : DEFAULT_CONTEXT;
  uint64_t tokens = o->max_tokens != 0 ? o->max_tokens : context * o->max_sequences;
  if (tokens > INT32_MAX || o->max_batch > 1u << 20 || o->max_sequences > 1u << 20) {
    return lqt__fail(diag, LQT_LIMIT, where,
                     "%llu positions, %u sequences or batches of %u tokens are too many",
                     (unsigned long long)tokens, o->max_sequences, o->max_batch);
  }
  o->max_tokens = (uint32_t)tokens;
  if (o->max_batch > tokens) o->max_batch = o->max_tokens;
  return LQT_OK;
}

static lqt_status session_init(lqt_session *s, const lqt_session_options *o, lqt_diag *diag) {
  lqt_device *device = s->engine->device;
  uint32_t context = s->engine->context;
  uint32_t length = context != 0 && context < o->max_tokens ? context : o->max_tokens;
  s->max_batch = o->max_batch;
  s->kv_dtype = o->kv_dtype;
  s->kv_policy = o->kv_policy;
  s->kv_missing = UINT32_MAX;
  s->kv_revision = lqt_engine_revision(s->engine);
  LQT__TRY(lqt__cache_create(LQT__PAGE_TOKENS, o->max_sequences, length, o->max_tokens, &s->cache,
                             diag));
  uint64_t step_bytes = 4 * lqt__step_stride(s->max_batch) * sizeof(int32_t);
  uint64_t table_bytes = (uint64_t)s->cache.max_sequences * s->cache.table_cols * sizeof(int32_t);
  LQT__TRY(lqt_buffer_create(device, step_bytes, &s->steps, diag));
  LQT__TRY(lqt_buffer_create(device, table_bytes, &s->table, diag));
  s->step = lqt__alloc_zero(step_bytes);
  s->wanted = lqt__alloc_array(s->max_batch, sizeof *s->wanted);
  s->named = lqt__alloc_array(o->max_sequences, sizeof *s->named);
  s->histories = lqt__alloc_array(o->max_sequences, sizeof *s->histories);
  s->reaches = lqt__alloc_array(o->max_sequences, sizeof *s->reaches);
  if (s->step == NULL || s->wanted == NULL || s->named == NULL || s->histories == NULL ||
      s->reaches == NULL) {
    return lqt__fail_memory(diag, where, step_bytes, "step inputs");
  }
  return lqt__session_bind(s, diag);
}

lqt_status lqt_session_create(lqt_engine *engine, const lqt_session_options *options,
                              lqt_session **out_session, lqt_diag *diag) {
  if (out_session != NULL) *out_session = NULL;
  if (engine == NULL || out_session == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "engine and out_session must not be NULL");
  }
  lqt_session_options resolved;
  LQT__TRY(resolve_options(engine, options, &resolved, diag));
  lqt_session *session = lqt__alloc_zero(sizeof *session);
  if (session == NULL) return lqt__fail_memory(diag, where, sizeof *session, "a session");
  session->engine = engine;
  lqt__gate_enter(engine->gate); /* an edit may exchange the plan */
  lqt_status status = session_init(session, &resolved, diag);
  lqt__gate_leave(engine->gate);
  if (status == LQT_OK) {
    *out_session = session;
  } else {
    lqt_session_destroy(session);
  }
  return status;
}

void lqt_session_destroy(lqt_session *s) {
  if (s == NULL) return;
  lqt__session_unbind(s);
  lqt_buffer_destroy(s->steps);
  lqt_buffer_destroy(s->table);
  for (uint32_t i = 0; s->histories != NULL && i < s->cache.max_sequences; i++) {
    lqt__free(s->histories[i].tokens);
  }
  lqt__free(s->histories);
  lqt__cache_free(&s->cache);
  lqt__free(s->step);
  lqt__free(s->wanted);
  lqt__free(s->logits);
  lqt__free(s->top_values);
  lqt__free(s->top_tokens);
  lqt__free(s->reaches);
  lqt__free(s->rows);
  lqt__free(s->named);
  lqt__free(s);
}

static uint64_t size_of(const lqt_buffer *buffer) {
  return buffer != NULL ? lqt_buffer_size(buffer) : 0;
}

uint64_t lqt_session_device_bytes(const lqt_session *s) {
  uint64_t total = size_of(s->activations) + size_of(s->steps) + size_of(s->table);
  for (size_t i = 0; i < s->page_count; i++) {
    total += size_of(s->pages[i].buffers[0]) + size_of(s->pages[i].buffers[1]);
  }
  return total;
}

uint64_t lqt_session_position_bytes(const lqt_session *s) {
  uint64_t cols = 0;
  for (size_t i = 0; i < s->page_count; i++) cols += s->pages[i].cols[0] + s->pages[i].cols[1];
  return cols * lqt_dtype_size(s->kv_dtype);
}

/* ---- Sequences ---- */

static lqt_status no_sequence(uint32_t sequence, lqt_diag *diag) {
  return lqt__fail(diag, LQT_NOT_FOUND, where, "there is no sequence %u", sequence);
}

lqt_status lqt_session_sequence_add(lqt_session *s, uint32_t *out_sequence, lqt_diag *diag) {
  if (lqt__cache_add(&s->cache, out_sequence)) {
    s->reaches[*out_sequence] = 0;
    return LQT_OK;
  }
  return lqt__fail(diag, LQT_LIMIT, where,
                   "all %u sequences are in use: remove one, or create the session with more",
                   s->cache.max_sequences);
}

lqt_status lqt_session_sequence_remove(lqt_session *s, uint32_t sequence, lqt_diag *diag) {
  if (lqt__cache_find(&s->cache, sequence) == NULL) return no_sequence(sequence, diag);
  lqt__cache_remove(&s->cache, sequence);
  return LQT_OK;
}

lqt_status lqt_session_sequence_truncate(lqt_session *s, uint32_t sequence, uint32_t position,
                                         lqt_diag *diag) {
  if (lqt__cache_find(&s->cache, sequence) == NULL) return no_sequence(sequence, diag);
  if (position < s->cache.sequences[sequence].length) {
    lqt__cache_truncate(&s->cache, sequence, position);
  }
  return LQT_OK;
}

lqt_status lqt_session_sequence_sampler(lqt_session *s, uint32_t sequence,
                                        const lqt_sampler *sampler, lqt_diag *diag) {
  if (lqt__cache_find(&s->cache, sequence) == NULL) return no_sequence(sequence, diag);
  s->reaches[sequence] = sampler != NULL ? lqt__sampler_reach(sampler) : 0;
  return LQT_OK;
}

uint32_t lqt_session_sequence_length(const lqt_session *s, uint32_t sequence) {
  const lqt__sequence *found = lqt__cache_find(&s->cache, sequence);
  return found != NULL ? found->length : 0;
}

/* ---- Checking a step's inputs ---- */

static lqt_status check_tokens(const lqt_session *s, const lqt_step_input *input, lqt_diag *diag) {
  uint64_t limit = s->engine->plan.token_limit;
  for (size_t i = 0; i < input->count; i++) {
    if (input->tokens[i] < 0 || (uint64_t)input->tokens[i] >= limit) {
      return lqt__fail(diag, LQT_OUT_OF_RANGE, where,
                       "token %zu of sequence %u is id %d; the model has ids 0 to %llu", i,
                       input->sequence, input->tokens[i], (unsigned long long)limit - 1);
    }
  }
  return LQT_OK;
}

static lqt_status check_input(lqt_session *s, const lqt_step_input *input, lqt_diag *diag) {
  const lqt__sequence *sequence = lqt__cache_find(&s->cache, input->sequence);
  if (sequence == NULL) return no_sequence(input->sequence, diag);
  if (s->named[input->sequence]) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "sequence %u is named twice in one step",
                     input->sequence);
  }
  s->named[input->sequence] = true;
  if (input->tokens == NULL || input->count == 0 || input->want < LQT_LOGITS_NONE ||
      input->want > LQT_LOGITS_SAMPLE) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "an input needs at least one token and a known `want`");
  }
  if (input->count > s->cache.max_length - sequence->length) {
    return lqt__fail(diag, LQT_CONTEXT_FULL, where,
                     "sequence %u has %u positions; %zu more pass the limit of %u", input->sequence,
                     sequence->length, input->count, s->cache.max_length);
  }
  return check_tokens(s, input, diag);
}

static size_t rows_of(const lqt_step_input *input) {
  return input->want == LQT_LOGITS_NONE ? 0 : input->want == LQT_LOGITS_ALL ? input->count : 1;
}

static lqt_status check_inputs(lqt_session *s, const lqt_step_input *inputs, size_t count,
                               lqt_diag *diag) {
  if (count == 0 || inputs == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "a step needs at least one input");
  }
  memset(s->named, 0, s->cache.max_sequences * sizeof *s->named);
  uint64_t tokens = 0;
  for (size_t i = 0; i < count; i++) {
    LQT__TRY(check_input(s, &inputs[i], diag));
    tokens += inputs[i].count;
  }
  if (tokens > s->cache.max_positions - s->cache.positions) {
    return lqt__fail(diag, LQT_CONTEXT_FULL, where,
                     "the session's cache holds %llu of %llu positions; %llu more do not fit",
                     (unsigned long long)s->cache.positions,
                     (unsigned long long)s->cache.max_positions, (unsigned long long)tokens);
  }
  return LQT_OK;
}

/* How many of the largest logits are enough for the step; 0: all are needed. A few sizes, so that
 * few programs are recorded. */
static uint32_t choose_top(const lqt_session *s, const lqt_step_input *inputs, size_t count) {
  static const uint32_t sizes[] = {1, 64, 256, LQT_TOPK_MOST};
  uint64_t most = 0;
  for (size_t i = 0; i < count; i++) {
    if (inputs[i].want == LQT_LOGITS_NONE) continue;
    if (inputs[i].want != LQT_LOGITS_SAMPLE) return 0;
    uint64_t reach = s->reaches[inputs[i].sequence];
    if (reach == 0) return 0;
    if (reach > most) most = reach;
  }
  if (s->top == NULL || most == 0) return 0;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    if (most <= sizes[i]) return sizes[i] <= s->engine->vocab_size ? sizes[i] : 0;
  }
  return 0;
}

static lqt_status reserve_top(lqt_session *s, size_t rows, lqt_diag *diag) {
  size_t need = rows * s->top_count;
  if (need <= s->top_capacity) return LQT_OK;
  float *values = lqt__alloc_array(need, sizeof *values);
  int32_t *tokens = lqt__alloc_array(need, sizeof *tokens);
  if (values == NULL || tokens == NULL) {
    lqt__free(values);
    lqt__free(tokens);
    return lqt__fail_memory(diag, where, need * 8, "candidates");
  }
  lqt__free(s->top_values);
  lqt__free(s->top_tokens);
  s->top_values = values;
  s->top_tokens = tokens;
  s->top_capacity = need;
  return LQT_OK;
}

/* Host memory for the step's logits. */
static lqt_status reserve_logits(lqt_session *s, const lqt_step_input *inputs, size_t count,
                                 lqt_diag *diag) {
  if (count > s->row_capacity) {
    lqt__logit_rows *rows = lqt__alloc_array(count, sizeof *rows);
    if (rows == NULL) return lqt__fail_memory(diag, where, count * sizeof *rows, "logit rows");
    lqt__free(s->rows);
    s->rows = rows;
    s->row_capacity = count;
  }
  size_t total = 0;
  for (size_t i = 0; i < count; i++) {
    s->rows[i] = (lqt__logit_rows){total, rows_of(&inputs[i])};
    total += s->rows[i].count;
  }
  s->top_count = choose_top(s, inputs, count);
  if (s->top_count != 0) return reserve_top(s, total, diag);
  uint64_t need, bytes;
  if (!lqt__mul(total, s->engine->vocab_size, &need) || !lqt__mul(need, sizeof(float), &bytes)) {
    return lqt__fail(diag, LQT_OVERFLOW, where, "%zu rows of logits are too many", total);
  }
  if (need <= s->logit_capacity) return LQT_OK;
  float *logits = lqt__alloc_aligned(bytes, 64);
  if (logits == NULL) return lqt__fail_memory(diag, where, bytes, "logits");
  lqt__free(s->logits);
  s->logits = logits;
  s->logit_capacity = need;
  return LQT_OK;
}

/* ---- Running ---- */

/* The tokens of one pass through the model. */
typedef struct pass {
  uint64_t tokens, rows;
} pass;

/* Fills a pass from where the last one stopped (`*input`, `*token`). */
static pass fill_pass(lqt_session *s, const lqt_step_input *inputs, size_t count, size_t *input,
                      size_t *token) {
  pass p = {0};
  uint64_t left = 0;
  for (size_t i = *input; i < count && left < s->max_batch; i++) {
    left += inputs[i].count - (i == *input ? *token : 0);
  }
  uint64_t stride = lqt__step_stride(left < s->max_batch ? left : s->max_batch);
  while (*input < count && p.tokens < s->max_batch) {
    const lqt_step_input *in = &inputs[*input];
    uint32_t start = s->cache.sequences[in->sequence].length;
    for (; *token < in->count && p.tokens < s->max_batch; ++*token) {
      bool last = *token + 1 == in->count;
      s->step[p.tokens] = in->tokens[*token];
      s->step[stride + p.tokens] = (int32_t)(start + *token);
      s->step[2 * stride + p.tokens] = (int32_t)in->sequence;
      if (in->want == LQT_LOGITS_ALL || (in->want != LQT_LOGITS_NONE && last)) {
        s->wanted[p.rows++] = (int32_t)p.tokens;
      }
      p.tokens++;
    }
    if (*token < in->count) break;
    ++*input;
    *token = 0;
  }
  return p;
}

/* Halves that stand in front of `out` become floats, from the end. */
static void widen_logits(float *out, uint64_t count) {
  const uint8_t *halves = (const uint8_t *)out;
  for (uint64_t i = count; i-- > 0;) {
    uint16_t half;
    memcpy(&half, halves + 2 * i, sizeof half);
    out[i] = lqt__f32_from_f16(half);
  }
}

/* What the device is to get before a run: the step's inputs, and rows of the page table that it
 * does not have yet. */
static size_t fill_transfers(lqt_session *s, uint64_t ints, lqt_transfer out[2]) {
  const lqt__cache *cache = &s->cache;
  size_t count = 0;
  out[count++] = (lqt_transfer){s->steps, 0, ints * sizeof(int32_t), s->step};
  if (cache->dirty_first != cache->dirty_end) {
    uint64_t row = (uint64_t)cache->table_cols * sizeof *cache->table;
    out[count++] = (lqt_transfer){s->table, cache->dirty_first * row,
                                  (cache->dirty_end - cache->dirty_first) * row,
                                  cache->table + (size_t)cache->dirty_first * cache->table_cols};
  }
  return count;
}

/* Runs one form of the program and fetches the logits that come out, or the largest of them, to the
 * places of row `row` on. */
static lqt_status run_form(lqt_session *s, lqt__form form, pass p, uint64_t rows, uint64_t ints,
                           size_t row, lqt_diag *diag) {
  lqt_program *program;
  const uint32_t top = form != LQT__FORM_STATE ? s->top_count : 0;
  LQT__TRY(lqt__program_get(&s->program, form, p.tokens, rows, top, &program, diag));
  lqt_transfer in[2], back[2];
  size_t in_count = fill_transfers(s, ints, in), back_count = 0;
  lqt_view view = {0}, tops[2];
  float *out = NULL;
  if (top != 0) {
    lqt__program_top(&s->program, rows, top, tops);
    void *const to[2] = {s->top_values + row * top, s->top_tokens + row * top};
    for (int i = 0; i < 2; i++) {
      back[back_count++] = (lqt_transfer){tops[i].buffer, tops[i].offset, rows * top * 4, to[i]};
    }
  } else if (form != LQT__FORM_STATE) {
    view = lqt__program_logits(&s->program, form == LQT__FORM_WHOLE, rows);
    out = s->logits + row * s->engine->vocab_size;
    back[back_count++] = (lqt_transfer){view.buffer, view.offset,
                                        rows * view.cols * lqt_dtype_size(view.dtype), out};
  }
  LQT__TRY(lqt_program_run(program, in, in_count, back, back_count, diag));
  s->cache.dirty_first = s->cache.dirty_end = 0;
  if (out != NULL && view.dtype == LQT_DTYPE_F16) widen_logits(out, rows * view.cols);
  return LQT_OK;
}

static lqt_status run_pass(lqt_session *s, pass p, size_t row, lqt_diag *diag) {
  uint64_t stride = lqt__step_stride(p.tokens), ints = 2 * stride + p.tokens;
  if (p.rows == 0) return run_form(s, LQT__FORM_STATE, p, 0, ints, row, diag);
  if (p.rows == p.tokens && p.rows <= s->max_rows) {
    return run_form(s, LQT__FORM_WHOLE, p, p.rows, ints, row, diag);
  }
  /* The body once, the tail for as many wanted rows at a time as there is room for. */
  for (uint64_t done = 0; done < p.rows;) {
    uint64_t rows = p.rows - done < s->max_rows ? p.rows - done : s->max_rows;
    memcpy(s->step + 3 * stride, s->wanted + done, rows * sizeof *s->step);
    LQT__TRY(run_form(s, done == 0 ? LQT__FORM_SPLIT : LQT__FORM_MORE, p, rows, 3 * stride + rows,
                      row + done, diag));
    done += rows;
  }
  return LQT_OK;
}

lqt_status lqt__session_write_table(lqt_session *s, lqt_diag *diag) {
  lqt__cache *cache = &s->cache;
  if (cache->dirty_first == cache->dirty_end) return LQT_OK;
  uint64_t row = (uint64_t)cache->table_cols * sizeof *cache->table;
  LQT__TRY(lqt_buffer_write(s->table, cache->dirty_first * row,
                            cache->table + (size_t)cache->dirty_first * cache->table_cols,
                            (cache->dirty_end - cache->dirty_first) * row, diag));
  cache->dirty_first = cache->dirty_end = 0;
  return LQT_OK;
}

static lqt_status run_passes(lqt_session *s, const lqt_step_input *inputs, size_t count,
                             lqt_diag *diag) {
  size_t input = 0, token = 0, row = 0;
  while (input < count) {
    pass p = fill_pass(s, inputs, count, &input, &token);
    LQT__TRY(run_pass(s, p, row, diag));
    row += p.rows;
  }
  return LQT_OK;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The gate is held: plan, weights and revision stay what they are. */
static lqt_status step(lqt_session *s, const lqt_step_input *inputs, size_t count,
                       lqt_step_result *result, lqt_diag *diag) {
  if (atomic_load(&s->engine->lost)) {
    return lqt__fail(diag, LQT_DEVICE_LOST, where,
                     "an edit that is committed did not reach this engine: create it again");
  }
  result->revision = lqt_engine_revision(s->engine);
  LQT__TRY(lqt__session_catch_up(s, result, diag));
  LQT__TRY(check_inputs(s, inputs, count, diag));
  LQT__TRY(reserve_logits(s, inputs, count, diag));
  for (size_t i = 0; i < count; i++) {
    LQT__TRY(lqt__session_remember(s, &inputs[i], diag));
  }
  for (size_t i = 0; i < count; i++) {
    lqt__cache_reserve(&s->cache, inputs[i].sequence, (uint32_t)inputs[i].count);
  }
  lqt_status status = run_passes(s, inputs, count, diag);
  for (size_t i = 0; i < count; i++) {
    uint32_t sequence = inputs[i].sequence;
    if (status == LQT_OK) {
      lqt__cache_fill(&s->cache, sequence, (uint32_t)inputs[i].count);
    } else {
      lqt__cache_truncate(&s->cache, sequence, s->cache.sequences[sequence].length);
    }
  }
  return status;
}

lqt_status lqt_session_step(lqt_session *s, const lqt_step_input *inputs, size_t count,
                            lqt_step_result *out_result, lqt_diag *diag) {
  if (out_result != NULL) *out_result = (lqt_step_result){0};
  s->input_count = 0;
  double start = now();
  lqt_step_result result = {0};
  lqt__engine_run_hook(s->engine);
  lqt__gate_enter(s->engine->gate);
  lqt_status status = step(s, inputs, count, &result, diag);
  lqt__gate_leave(s->engine->gate);
  if (status != LQT_OK) return status;
  s->input_count = count;
  result.seconds = now() - start;
  if (out_result != NULL) *out_result = result;
  return LQT_OK;
}

const float *lqt_session_logits(const lqt_session *s, size_t input, size_t row) {
  if (input >= s->input_count || row >= s->rows[input].count || s->top_count != 0) return NULL;
  return s->logits + (s->rows[input].first + row) * s->engine->vocab_size;
}

lqt_status lqt_session_sample(const lqt_session *s, size_t input, lqt_sampler *sampler,
                              int32_t *out_token, lqt_diag *diag) {
  if (sampler == NULL || out_token == NULL || input >= s->input_count ||
      s->rows[input].count == 0) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "no sampler, no place for a token, or no logits of input %zu", input);
  }
  size_t row = s->rows[input].first + s->rows[input].count - 1;
  if (s->top_count == 0) {
    return lqt_sampler_sample(sampler, s->logits + row * s->engine->vocab_size,
                              s->engine->vocab_size, out_token, diag);
  }
  uint64_t reach = lqt__sampler_reach(sampler);
  if (reach == 0 || reach > s->top_count) {
    return lqt__fail(
        diag, LQT_INVALID_ARGUMENT, where,
        "this sampler draws from more candidates than the one that the sequence was told of");
  }
  return lqt__sampler_sample_top(sampler, s->top_values + row * s->top_count,
                                 s->top_tokens + row * s->top_count, s->top_count, out_token, diag);
}
