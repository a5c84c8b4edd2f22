#include "exec/engine.h"

#include <criterion/criterion.h>

#include "base/alloc.h"
#include "fixture.h"

Test(engine, says_what_it_holds) {
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  fixture f;
  fixture_open(&f, &spec, "cpu");
  cr_assert_eq(lqt_engine_vocab_size(f.engine), spec.vocab);
  cr_assert_eq(lqt_engine_context(f.engine), spec.context);
  cr_assert_eq(lqt_engine_revision(f.engine), 0);
  cr_assert_eq(lqt_engine_model(f.engine), f.model);
  cr_assert_eq(lqt_engine_device(f.engine), f.device);
  /* The embedding is the head too: it is uploaded once, and a step reads it once. */
  cr_assert_geq(lqt_engine_weight_bytes(f.engine), lqt_engine_step_bytes(f.engine));
  cr_assert_lt(lqt_engine_weight_bytes(f.engine), lqt_engine_step_bytes(f.engine) + 4096);
  fixture_close(&f);
}

static size_t count_ops(const lqt__plan *plan, lqt_op_kind kind) {
  size_t count = 0;
  for (size_t i = 0; i < plan->op_count; i++) count += plan->ops[i].op.kind == kind;
  return count;
}

Test(engine, fuses_and_cuts) {
  tiny_spec spec = tiny_default();
  fixture f;
  fixture_open(&f, &spec, "cpu");
  const lqt__plan *plan = &f.engine->plan;
  /* q, k, v in one product; gate and up in one; additions inside o and down. */
  cr_assert_eq(count_ops(plan, LQT_OP_MATMUL), 4 * spec.layers + 1);
  cr_assert_eq(count_ops(plan, LQT_OP_ADD), 0);
  /* After the last attention: its output and the residual are gathered. */
  cr_assert_eq(plan->gather_count, 2);
  cr_assert_eq(plan->ops[plan->body_count - 1].op.kind, LQT_OP_ATTENTION);
  cr_assert_eq(plan->ops[plan->state_count - 1].op.kind, LQT_OP_KV_WRITE);
  fixture_close(&f);
}

/* Values that are alive together never share memory, whatever the sizes. */
Test(engine, layout_keeps_live_values_apart) {
  tiny_spec spec = tiny_default();
  spec.layers = 3;
  fixture f;
  fixture_open(&f, &spec, "cpu");
  const lqt__plan *plan = &f.engine->plan;
  uint64_t offsets[512], bytes, sum = 0;
  cr_assert_leq(plan->value_count, 512);
  for (uint64_t tokens = 1; tokens <= 64; tokens += 21) {
    for (uint64_t rows = 1; rows <= 64; rows += 9) {
      cr_assert(lqt__plan_layout(plan, tokens, rows, offsets, &bytes));
      for (size_t a = 1; a < plan->value_count; a++) {
        const lqt__value *x = &plan->values[a];
        if (x->kind != LQT__VALUE_ACTIVATION) continue;
        uint64_t end = offsets[a] + (x->tail ? rows : tokens) * x->cols * sizeof(float);
        cr_assert_leq(end, bytes);
        sum += end - offsets[a];
        for (size_t b = a + 1; b < plan->value_count; b++) {
          const lqt__value *y = &plan->values[b];
          if (y->kind != LQT__VALUE_ACTIVATION) continue;
          if (x->last < y->first || y->last < x->first) continue;
          uint64_t other = offsets[b] + (y->tail ? rows : tokens) * y->cols * sizeof(float);
          cr_assert(end <= offsets[b] || other <= offsets[a], "values %zu and %zu", a, b);
        }
      }
    }
  }
  cr_assert(lqt__plan_layout(plan, 64, 64, offsets, &bytes));
  cr_assert_lt(bytes, 64 * 4 * 500); /* of some 1500 columns in all: memory is used again */
  cr_assert_gt(sum, 0);
  fixture_close(&f);
}

/* Engine, session and a step: each allocation fails once in turn. */
Test(engine, every_allocation_may_fail) {
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  fixture f;
  fixture_open(&f, &spec, "cpu");
  int32_t tokens[5] = {1, 2, 3, 4, 5};
  for (int64_t nth = 0;; nth++) {
    lqt_engine *engine = NULL;
    lqt_session *session = NULL;
    uint32_t sequence = 0;
    lqt_diag diag = {0};
    lqt__alloc_fail_after(nth);
    lqt_status status = lqt_engine_create(f.model, f.device, &engine, &diag);
    if (status == LQT_OK) status = lqt_session_create(engine, NULL, &session, &diag);
    if (status == LQT_OK) status = lqt_session_sequence_add(session, &sequence, &diag);
    if (status == LQT_OK) {
      lqt_step_input input = {sequence, LQT_LOGITS_LAST, tokens, 5};
      status = lqt_session_step(session, &input, 1, NULL, &diag);
      cr_assert_eq(lqt_session_sequence_length(session, sequence), status == LQT_OK ? 5 : 0);
    }
    lqt__alloc_fail_after(-1);
    lqt_session_destroy(session);
    lqt_engine_destroy(engine);
    if (status == LQT_OK) {
      cr_assert_gt(nth, 20);
      break;
    }
    cr_assert(status == LQT_OUT_OF_MEMORY || status == LQT_DEVICE_OUT_OF_MEMORY, "%lld: %s: %s",
              (long long)nth, lqt_status_name(status), diag.what);
    cr_assert_gt(strlen(diag.what), 0);
  }
  fixture_close(&f);
}
