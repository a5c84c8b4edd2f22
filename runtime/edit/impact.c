/* What a mutation would reach. */
#include "base/diag.h"
#include "edit/editor.h"
#include "format/layout.h"
#include "kernel/weight.h"

/* Elements of a tensor whose codebook index names a vector whose values begin in [first, end) of
 * the codebook's section. */
static uint64_t count_uses(const lqt_weight_desc *desc, const lqt_index_view *indices,
                           const lqt_codebook_view *book, bool banked, uint64_t first,
                           uint64_t end) {
  uint64_t dim = book->vector_dim, per_row = lqt__ceil_div(desc->cols, dim), uses = 0;
  uint64_t across = banked ? lqt__ceil_div(desc->cols, desc->bank_cols) : 1;
  for (uint64_t r = 0; r < desc->rows; r++) {
    for (uint64_t i = 0; i < per_row; i++) {
      uint64_t bank = banked ? r / desc->bank_rows * across + i * dim / desc->bank_cols : 0;
      uint32_t index = lqt__index_get(indices->data + r * indices->row_stride, indices->bits, i);
      uint64_t at = bank * book->bank_stride + index * dim;
      if (at + dim <= first || at >= end) continue;
      uses += desc->cols - i * dim < dim ? desc->cols - i * dim : dim;
    }
  }
  return uses;
}

/* Of a change of codebook values: those weights of the tensor that use them. */
static uint64_t codebook_reach(const lqt__tensor *tensor, const lqt_weight_desc *desc,
                               const lqt__change *change) {
  bool residual = tensor->residual_codebook_id == change->id;
  const lqt_codebook_view *book = residual ? &desc->residual : &desc->codebook;
  const lqt_index_view *indices = residual ? &desc->residual_indices : &desc->indices;
  uint64_t size = lqt_dtype_size(book->dtype), from = change->offset - LQT__SECTION_HEAD;
  return count_uses(desc, indices, book, !residual, from / size,
                    lqt__ceil_div(from + change->bytes, size));
}

static lqt_status measure(lqt__draft *draft, size_t index, uint64_t *out) {
  const lqt__tensor *tensor = &draft->work->now.tensors[index];
  uint64_t all = tensor->rows * tensor->cols;
  *out = 0;
  lqt__weight_cache weight = {0};
  for (size_t i = 0; i < draft->change_count && *out < all; i++) {
    const lqt__change *change = &draft->changes[i];
    size_t count;
    uint32_t *concerned = lqt__broadcast_changed(draft->work, change, 1, &count);
    bool concerns = false;
    for (size_t k = 0; concerned != NULL && k < count; k++) concerns |= concerned[k] == index;
    lqt__free(concerned);
    if (concerned == NULL) return lqt__fail_memory(draft->diag, "editor", 0, "the impact");
    if (!concerns) continue;
    bool values =
        change->kind == LQT__CHANGE_BYTES && change->what == (uint16_t)LQT__SECTION_CODEBOOK;
    if (values && weight.desc.size == 0) LQT__TRY(lqt__draft_weight(draft, index, &weight));
    *out += values ? codebook_reach(tensor, &weight.desc, change) : all;
  }
  if (*out > all) *out = all;
  lqt__weight_free(&weight);
  return LQT_OK;
}

lqt_status lqt_editor_impact(lqt_editor *editor, const lqt_mutation *mutation,
                             lqt_impact *out_impact, lqt_diag *diag) {
  *out_impact = (lqt_impact){0};
  lqt__overlay *state = lqt__editor_state(editor, NULL);
  lqt__draft draft;
  lqt_status status = lqt__draft_begin(&draft, state, &editor->rules, diag);
  lqt__overlay_release(state);
  if (status != LQT_OK) return status;
  status = lqt__draft_mutate(&draft, mutation, NULL, diag);
  size_t count = 0;
  uint32_t *changed = NULL;
  if (status == LQT_OK) {
    changed = lqt__broadcast_changed(draft.work, draft.changes, draft.change_count, &count);
    if (changed == NULL) status = lqt__fail_memory(diag, "editor", 0, "the impact");
  }
  draft.diag = diag;
  for (size_t i = 0; i < count && status == LQT_OK; i++) {
    uint64_t weights;
    status = measure(&draft, changed[i], &weights);
    out_impact->weights += weights;
  }
  for (size_t i = 0; i < draft.change_count; i++) out_impact->bytes += draft.changes[i].bytes;
  out_impact->tensors = (uint32_t)count;
  lqt__free(changed);
  lqt__draft_free(&draft);
  if (status != LQT_OK) *out_impact = (lqt_impact){0};
  return status;
}
