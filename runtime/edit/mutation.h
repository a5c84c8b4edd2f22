/* Mutations: what a caller asks for, typed; and changes: what a valid mutation comes to, as bytes
 * of a section with the way back. A mutation is validated into a change, changes are applied, and a
 * change turned round is its inverse. A new kind of mutation is a validator in mutation.c; nothing
 * after it knows kinds. */
#ifndef LQT_RUNTIME_EDIT_MUTATION_H_
#define LQT_RUNTIME_EDIT_MUTATION_H_

#include "edit/overlay.h"
#include "exec/engine.h"

typedef enum lqt__mutation_kind {
  LQT__MUTATION_CODEBOOK_ENTRY,
} lqt__mutation_kind;

typedef struct lqt__mutation {
  lqt__mutation_kind kind;
  union {
    struct {
      uint16_t codebook; /* id */
      uint32_t vector;   /* over all banks */
      const float *values;
      size_t dim;
    } codebook_entry;
  };
} lqt__mutation;

typedef struct lqt__section_change {
  lqt__section_kind section;
  uint32_t index;
  uint64_t offset; /* in the section */
  size_t bytes;
  uint8_t *data; /* the new bytes, then the old ones */
} lqt__section_change;

/* Checks a mutation against the model as edited so far and writes down what it changes. The caller
 * frees *out. Errors: the statuses of lqt/edit.h, LQT_OUT_OF_MEMORY. */
LQT_NODISCARD lqt_status lqt__mutation_validate(const lqt__mutation *mutation,
                                                const lqt__overlay *overlay,
                                                lqt__section_change *out, lqt_diag *diag);
void lqt__section_change_free(lqt__section_change *change);
/* Swaps new and old. */
void lqt__section_change_invert(lqt__section_change *change);

/* A change in the terms of an engine: one patch for each tensor that uses the section. *out is an
 * array of *out_count that the caller frees (lqt__free) and that points into the change. */
LQT_NODISCARD lqt_status lqt__section_change_patches(const lqt__section_change *change,
                                                     const lqt_model *model,
                                                     lqt__engine_change **out, size_t *out_count,
                                                     lqt_diag *diag);

/* Index of the codebook and of the vector's first value in its section (elements after the header).
 * Errors: LQT_NOT_FOUND, LQT_OUT_OF_RANGE. */
LQT_NODISCARD lqt_status lqt__codebook_locate(const lqt_model *model, uint16_t id, uint32_t vector,
                                              uint32_t *out_index, uint64_t *out_element,
                                              lqt_diag *diag);

#endif /* LQT_RUNTIME_EDIT_MUTATION_H_ */
