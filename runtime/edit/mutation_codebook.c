/* Codebooks: entries replaced, entries added. */
#include <string.h>

#include "base/diag.h"
#include "edit/mutation.h"
#include "format/layout.h"

static lqt_status locate_codebook(const lqt__overlay *o, uint16_t id, size_t *out_index,
                                  lqt_diag *diag) {
  ptrdiff_t index = lqt__file_find_codebook(&o->now, id);
  if (index < 0) {
    return lqt__fail(diag, LQT_NOT_FOUND, o->model->path, "there is no codebook %u", id);
  }
  if (o->now.codebooks[index].blob.data == NULL) {
    return lqt__fail(diag, LQT_NOT_FOUND, o->model->path, "codebook %u was damaged and left out",
                     id);
  }
  *out_index = (size_t)index;
  return LQT_OK;
}

lqt_status lqt__codebook_locate(const lqt__overlay *o, uint16_t id, uint64_t vector,
                                size_t *out_index, uint64_t *out_element, lqt_diag *diag) {
  LQT__TRY(locate_codebook(o, id, out_index, diag));
  const lqt__codebook *codebook = &o->now.codebooks[*out_index];
  if (vector >= codebook->vectors) {
    return lqt__fail(diag, LQT_OUT_OF_RANGE, o->model->path,
                     "codebook %u has vectors 0 to %u; there is no %llu", id, codebook->vectors - 1,
                     (unsigned long long)vector);
  }
  /* Banks stand capacity / banks vectors apart. */
  uint64_t used = codebook->vectors / codebook->banks, room = codebook->capacity / codebook->banks;
  *out_element = (vector / used * room + vector % used) * codebook->vector_dim;
  return LQT_OK;
}

/* The codebook may change, and so may every tensor that uses it. *out_name is one of them, for the
 * rules' bounds. */
static lqt_status permit(lqt__draft *d, const lqt__codebook *codebook, const char **out_name) {
  if ((codebook->flags & LQT__CODEBOOK_MUTABLE) == 0) {
    return LQT__REFUSE(d, LQT_IMMUTABLE, "codebook %u is not MUTABLE", codebook->id);
  }
  *out_name = "the codebook";
  for (size_t i = 0; i < d->work->now.tensor_count; i++) {
    const lqt__tensor *t = &d->work->now.tensors[i];
    if (t->dtype != LQT_DTYPE_CODEBOOK ||
        (t->codebook_id != codebook->id && t->residual_codebook_id != codebook->id)) {
      continue;
    }
    LQT__TRY(lqt__draft_permit(d, t));
    *out_name = t->name;
  }
  return LQT_OK;
}

static lqt_status check_values(lqt__draft *d, const lqt_mutation *m, const lqt__codebook *codebook,
                               uint64_t multiple) {
  if (m->value_count == 0 || m->value_count % multiple != 0) {
    return LQT__REFUSE(d, LQT_DIMENSION_MISMATCH,
                       "vectors of codebook %u have %u values in %u banks; %zu were given",
                       codebook->id, codebook->vector_dim, codebook->banks, m->value_count);
  }
  return LQT_OK;
}

/* One run of vectors inside a bank. */
static lqt_status write_run(lqt__draft *d, const char *name, size_t index, uint64_t element,
                            const float *values, uint64_t count) {
  const lqt__codebook *codebook = &d->work->now.codebooks[index];
  size_t size = lqt_dtype_size((lqt_dtype)codebook->dtype);
  uint8_t few[64], *bytes = count * size <= sizeof few ? few : lqt__alloc(count * size);
  if (bytes == NULL) return lqt__fail_memory(d->diag, d->where, count * size, "an edit");
  lqt_status status = lqt__draft_encode(d, name, values, count, (lqt_dtype)codebook->dtype, bytes);
  if (status == LQT_OK) {
    status = lqt__draft_bytes(d, LQT__SECTION_CODEBOOK, index,
                              codebook->header_bytes + element * size, bytes, count * size);
  }
  if (bytes != few) lqt__free(bytes);
  return status;
}

lqt_status lqt__mutate_codebook_entries(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  uint64_t element;
  const char *name;
  LQT__TRY(lqt__codebook_locate(d->work, m->id, m->first, &index, &element, d->diag));
  const lqt__codebook codebook = d->work->now.codebooks[index];
  uint32_t dim = codebook.vector_dim;
  LQT__TRY(check_values(d, m, &codebook, dim));
  uint64_t vectors = m->value_count / dim;
  if (vectors > codebook.vectors - m->first) {
    return LQT__REFUSE(d, LQT_OUT_OF_RANGE, "codebook %u has %u vectors; %llu from %llu on pass it",
                       m->id, codebook.vectors, (unsigned long long)vectors,
                       (unsigned long long)m->first);
  }
  LQT__TRY(permit(d, &codebook, &name));
  uint64_t used = codebook.vectors / codebook.banks;
  for (uint64_t done = 0; done < vectors;) {
    uint64_t vector = m->first + done, left = used - vector % used;
    uint64_t run = left < vectors - done ? left : vectors - done;
    LQT__TRY(lqt__codebook_locate(d->work, m->id, vector, &index, &element, d->diag));
    LQT__TRY(write_run(d, name, index, element, m->values + done * dim, run * dim));
    done += run;
  }
  return LQT_OK;
}

/* Every user's indices can name that many vectors of a bank. */
static lqt_status check_width(lqt__draft *d, uint16_t id, uint64_t entries) {
  for (size_t i = 0; i < d->work->now.tensor_count; i++) {
    const lqt__tensor *t = &d->work->now.tensors[i];
    if (t->dtype != LQT_DTYPE_CODEBOOK) continue;
    uint32_t bits = t->codebook_id == id            ? t->index_bits
                    : t->residual_codebook_id == id ? t->residual_bits
                                                    : 64;
    if (bits < 64 && entries > (uint64_t)1 << bits) {
      return LQT__REFUSE(d, LQT_OUT_OF_RANGE,
                         "%llu vectors in a bank of codebook %u are more than the %u-bit indices "
                         "of %s can name",
                         (unsigned long long)entries, id, bits, t->name);
    }
  }
  return LQT_OK;
}

lqt_status lqt__mutate_codebook_expand(lqt__draft *d, const lqt_mutation *m) {
  size_t index;
  const char *name;
  LQT__TRY(locate_codebook(d->work, m->id, &index, d->diag));
  lqt__codebook grown = d->work->now.codebooks[index];
  const lqt__codebook old = grown;
  if ((old.flags & LQT__CODEBOOK_EXPANDABLE) == 0) {
    return LQT__REFUSE(d, LQT_IMMUTABLE, "codebook %u is not EXPANDABLE", m->id);
  }
  LQT__TRY(check_values(d, m, &old, (uint64_t)old.vector_dim * old.banks));
  LQT__TRY(permit(d, &old, &name));
  uint64_t used = old.vectors / old.banks, room = old.capacity / old.banks;
  uint64_t added = m->value_count / old.vector_dim / old.banks, now = used + added;
  LQT__TRY(check_width(d, m->id, now));
  uint64_t new_room = now > room ? now : room, size = lqt_dtype_size((lqt_dtype)old.dtype);
  uint64_t vector = old.vector_dim * size;
  grown.vectors = (uint32_t)(now * old.banks);
  grown.capacity = (uint32_t)(new_room * old.banks);
  uint64_t bytes = LQT__SECTION_HEAD + (uint64_t)grown.capacity * vector;
  uint8_t *section = lqt__alloc_zero(bytes);
  if (section == NULL) return lqt__fail_memory(d->diag, d->where, bytes, "a codebook");
  (void)lqt__codebook_header(&grown, section);
  lqt_status status = LQT_OK;
  for (uint64_t b = 0; b < old.banks && status == LQT_OK; b++) {
    uint8_t *bank = section + LQT__SECTION_HEAD + b * new_room * vector;
    memcpy(bank, old.blob.data + old.header_bytes + b * room * vector, used * vector);
    status = lqt__draft_encode(d, name, m->values + b * added * old.vector_dim,
                               added * old.vector_dim, (lqt_dtype)old.dtype, bank + used * vector);
  }
  if (status == LQT_OK) {
    status = lqt__draft_section(d, LQT__SECTION_CODEBOOK, m->id, NULL, section, bytes);
  }
  lqt__free(section);
  return status;
}
