#include "edit/descriptor.h"

#include "base/diag.h"
#include "format/bytes.h"
#include "format/layout.h"

void lqt__descriptor_encode(const lqt__tensor *t, uint8_t out[LQT__DESCRIPTOR_BYTES]) {
  memset(out, 0, LQT__DESCRIPTOR_BYTES);
  out[0] = t->type;
  out[1] = t->dtype;
  out[2] = t->ndim;
  for (unsigned i = 0; i < t->ndim && i < 8; i++) lqt__store_u32(out + 4 + 4 * i, t->shape[i]);
  lqt__store_u16(out + 36, t->codebook_id);
  lqt__store_u16(out + 38, t->delta_id);
  lqt__store_u16(out + 40, t->mask_id);
  lqt__store_u16(out + 42, t->flags);
  lqt__store_f32(out + 44, t->scale);
  lqt__store_u32(out + 48, (uint32_t)t->zero_point);
  lqt__store_u32(out + 52, t->recursive.dimension);
  lqt__store_f32(out + 56, t->recursive.sparsity);
  out[60] = t->recursive.distribution;
  out[61] = t->recursive.flags;
  out[62] = t->index_bits;
  out[63] = t->residual_bits;
  out[64] = t->scope;
  out[65] = t->group_scale_type;
  lqt__store_u32(out + 66, t->group_size);
  lqt__store_u32(out + 70, t->bank_count);
  lqt__store_u32(out + 74, t->bank_rows);
  lqt__store_u32(out + 78, t->bank_cols);
  lqt__store_u16(out + 82, t->residual_codebook_id);
  lqt__store_u16(out + 84, t->outlier_delta_id);
  lqt__store_f32(out + 86, t->residual_scale);
}

lqt_status lqt__descriptor_decode(const uint8_t *record, uint64_t bytes, const char *where,
                                  lqt__tensor *out, lqt_diag *diag) {
  *out = (lqt__tensor){0};
  if (bytes != LQT__DESCRIPTOR_BYTES || record[2] == 0 || record[2] > LQT__MAX_DIMS ||
      record[3] != 0) {
    return lqt__fail(diag, LQT_BAD_TENSOR, where, "a tensor's record is malformed");
  }
  out->type = record[0];
  out->dtype = record[1];
  out->ndim = record[2];
  for (unsigned i = 0; i < 8; i++) out->shape[i] = lqt__load_u32(record + 4 + 4 * i, false);
  out->codebook_id = lqt__load_u16(record + 36, false);
  out->delta_id = lqt__load_u16(record + 38, false);
  out->mask_id = lqt__load_u16(record + 40, false);
  out->flags = lqt__load_u16(record + 42, false);
  out->scale = lqt__load_f32(record + 44, false);
  out->zero_point = (int32_t)lqt__load_u32(record + 48, false);
  out->recursive.dimension = lqt__load_u32(record + 52, false);
  out->recursive.sparsity = lqt__load_f32(record + 56, false);
  out->recursive.distribution = record[60];
  out->recursive.flags = record[61];
  out->index_bits = record[62];
  out->residual_bits = record[63];
  out->scope = record[64];
  out->group_scale_type = record[65];
  out->group_size = lqt__load_u32(record + 66, false);
  out->bank_count = lqt__load_u32(record + 70, false);
  out->bank_rows = lqt__load_u32(record + 74, false);
  out->bank_cols = lqt__load_u32(record + 78, false);
  out->residual_codebook_id = lqt__load_u16(record + 82, false);
  out->outlier_delta_id = lqt__load_u16(record + 84, false);
  out->residual_scale = lqt__load_f32(record + 86, false);
  return LQT_OK;
}

void lqt__descriptor_assign(lqt__tensor *tensor, const lqt__tensor *from) {
  lqt__tensor was = *tensor;
  *tensor = *from;
  tensor->name = was.name;
  tensor->payload = was.payload;
  tensor->group_scales = was.group_scales;
  tensor->zero_points = was.zero_points;
  tensor->residual_indices = was.residual_indices;
  tensor->rows = was.rows;
  tensor->cols = was.cols;
  tensor->row_stride = was.row_stride;
  tensor->residual_row_stride = was.residual_row_stride;
}
