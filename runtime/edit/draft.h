/* A draft: what mutations come to before they are committed. Mutations are turned into changes one
 * after the other, each applied to the draft's own overlay, so that the next one meets the model as
 * it will be. A new kind of mutation is a function in one of the mutation_*.c files and a line in
 * mutation.c; nothing after it knows kinds. */
#ifndef LQT_RUNTIME_EDIT_DRAFT_H_
#define LQT_RUNTIME_EDIT_DRAFT_H_

#include "edit/overlay.h"
#include "edit/rules.h"
#include "lqt/edit.h"

typedef struct lqt__draft {
  lqt__overlay *work; /* owned */
  const lqt__rules *rules;
  lqt__change *changes;
  size_t change_count, change_capacity;
  bool by_reference;       /* changes that are made now can be made again from a file */
  bool structural;         /* some change was not BYTES */
  lqt_operation operation; /* being drafted */
  uint64_t place;          /* in its table, of what is created now; UINT64_MAX: the end */
  const char *where;       /* in diags */
  lqt_diag *diag;
} lqt__draft;

/* Starts from a copy of `state`. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__draft_begin(lqt__draft *draft, const lqt__overlay *state,
                                          const lqt__rules *rules, lqt_diag *diag);
void lqt__draft_free(lqt__draft *draft);
/* Takes changes from `keep` on back. Errors: LQT_OUT_OF_MEMORY (the draft is then of no use). */
LQT_NODISCARD lqt_status lqt__draft_cut(lqt__draft *draft, size_t keep, lqt_diag *diag);

/* Makes a fresh draft's changes those that lead to `target`. Errors: LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__draft_become(lqt__draft *draft, lqt__overlay *target, lqt_diag *diag);
/* Turns one mutation into changes; on failure the draft is as it was. *out_broken (may be NULL) is
 * set when it could not be brought back. Errors: those of lqt_transaction_add. */
LQT_NODISCARD lqt_status lqt__draft_mutate(lqt__draft *draft, const lqt_mutation *mutation,
                                           bool *out_broken, lqt_diag *diag);
/* Checks what only the whole shows: the graph parses, its shapes fit, it can be planned. Errors:
 * LQT_VALIDATION_FAILED, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__draft_check(lqt__draft *draft, lqt_diag *diag);

/* ---- For the mutations: changes, made and applied ---- */

/* Bytes of a section; what is equal to what is there makes no change. */
LQT_NODISCARD lqt_status lqt__draft_bytes(lqt__draft *draft, lqt__section_kind kind, size_t index,
                                          uint64_t offset, const void *data, uint64_t bytes);
/* A whole section; data NULL removes it. As bytes when it has the size that it had (and the same
 * head, for those that have one). `id` or `name` says whose. */
LQT_NODISCARD lqt_status lqt__draft_section(lqt__draft *draft, lqt__section_kind kind, uint16_t id,
                                            const char *name, const void *data, uint64_t bytes);
/* A tensor's descriptor and layout; NULL removes it. */
LQT_NODISCARD lqt_status lqt__draft_tensor(lqt__draft *draft, const char *name,
                                           const lqt__tensor *tensor);
LQT_NODISCARD lqt_status lqt__draft_chunk(lqt__draft *draft, uint16_t type, const void *data,
                                          uint64_t bytes);
LQT_NODISCARD lqt_status lqt__draft_key(lqt__draft *draft, const char *key, float value);

/* ---- For the mutations: what they check ---- */

/* The tensor called `name`, which may be changed by the operation that is being drafted. Errors:
 * LQT_INVALID_ARGUMENT, LQT_NOT_FOUND, LQT_UNSUPPORTED (not a standard tensor),
 * LQT_PERMISSION_DENIED. */
LQT_NODISCARD lqt_status lqt__draft_find(lqt__draft *draft, const char *name, size_t *out_index);
/* May the tensor be changed? */
LQT_NODISCARD lqt_status lqt__draft_permit(lqt__draft *draft, const lqt__tensor *tensor);
/* Values as elements of `dtype` at `out`: finite in it, and within the rules' bounds for `name`.
 * Errors: LQT_NOT_FINITE, LQT_VALIDATION_FAILED. */
LQT_NODISCARD lqt_status lqt__draft_encode(lqt__draft *draft, const char *name, const float *values,
                                           uint64_t count, lqt_dtype dtype, uint8_t *out);
/* The smallest id that no codebook (delta, mask) has. Errors: LQT_LIMIT. */
LQT_NODISCARD lqt_status lqt__draft_fresh_id(lqt__draft *draft, lqt__section_kind kind,
                                             uint16_t *out_id);
/* Tensors that use a codebook (as codebook or residual), delta or mask. */
size_t lqt__draft_users(const lqt__draft *draft, lqt__section_kind kind, uint16_t id);
/* Removes a codebook, delta or mask that no tensor uses any more; LQT_ID_NONE is fine. */
LQT_NODISCARD lqt_status lqt__draft_drop_unused(lqt__draft *draft, lqt__section_kind kind,
                                                uint16_t id);
/* The canonical weight of a tensor as drafted; lqt__weight_free. Errors: those of
 * lqt__weight_make. */
LQT_NODISCARD lqt_status lqt__draft_weight(lqt__draft *draft, size_t index, lqt__weight_cache *out);
void lqt__weight_free(lqt__weight_cache *cache);

#define LQT__REFUSE(draft, status, ...) \
  lqt__fail((draft)->diag, status, (draft)->where, __VA_ARGS__)

#endif /* LQT_RUNTIME_EDIT_DRAFT_H_ */
