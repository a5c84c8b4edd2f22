/* Chunks of the metadata -> fields of lqt__file. */
#include "format/metadata.h"

#include "base/diag.h"
#include "format/bytes.h"
#include "format/check.h"
#include "format/layout.h"

typedef unsigned long long ull;
#define BAD_AT(status, offset, ...) lqt__fail_at(p->diag, status, p->where, offset, __VA_ARGS__)

enum { KNOWN_CHUNKS = LQT__CHUNK_PROVENANCE + 1 };

/* A cursor over bytes of the file; offsets in diags count from the file's first byte. */
static lqt__cursor cursor_at(const lqt__parser *p, lqt__range range) {
  return (lqt__cursor){.data = p->data + range.offset, .bytes = range.bytes, .big = p->big};
}

static lqt_status no_memory(const lqt__parser *p, const char *what) {
  return lqt__fail_memory(p->diag, p->where, 0, what);
}

/* A `str`: u16 length, bytes, zeros to a multiple of 4. NULL with cursor->failed when it is bad. */
static const uint8_t *take_text(lqt__cursor *cursor, uint32_t *out_bytes) {
  uint64_t begin = cursor->at;
  uint16_t bytes = lqt__take_u16(cursor);
  const uint8_t *text = lqt__take(cursor, bytes);
  lqt__take_padding(cursor, begin);
  if (bytes == 0 || bytes > LQT__MAX_STRING || text == NULL || !lqt__text_valid(text, bytes)) {
    cursor->failed = true;
  }
  *out_bytes = bytes;
  return cursor->failed ? NULL : text;
}

static lqt_status read_hyperparameters(lqt__parser *p, lqt__range range) {
  lqt__file *file = p->file;
  for (int pass = 0; pass < 2; pass++) {
    lqt__cursor cursor = cursor_at(p, range);
    size_t count = 0;
    while (cursor.at < cursor.bytes) {
      uint64_t begin = cursor.at;
      uint32_t bytes;
      const uint8_t *key = take_text(&cursor, &bytes);
      float value = lqt__take_f32(&cursor);
      if (cursor.failed) {
        return BAD_AT(LQT_BAD_METADATA, range.offset + begin, "hyperparameter %zu is malformed",
                      count);
      }
      if (pass == 1) {
        char *copy = lqt__arena_strndup(&file->arena, (const char *)key, bytes);
        if (copy == NULL) return no_memory(p, "a hyperparameter");
        file->hyperparameters[count] = (lqt__hyperparameter){.key = copy, .value = value};
      }
      count++;
    }
    if (pass == 1) break;
    file->hyperparameters = lqt__arena_array(&file->arena, count, sizeof *file->hyperparameters);
    if (file->hyperparameters == NULL) return no_memory(p, "hyperparameters");
    file->hyperparameter_count = count;
  }
  return LQT_OK;
}

/* One descriptor; `name` is left in the file's bytes. */
static lqt_status take_tensor(lqt__parser *p, lqt__cursor *cursor, uint64_t base, lqt__tensor *t,
                              const uint8_t **out_name, uint32_t *out_name_bytes) {
  uint64_t begin = cursor->at;
  *t = (lqt__tensor){0};
  *out_name = take_text(cursor, out_name_bytes);
  t->type = lqt__take_u8(cursor);
  t->dtype = lqt__take_u8(cursor);
  t->ndim = lqt__take_u8(cursor);
  if (!cursor->failed && (t->type > 1 || t->ndim == 0 || t->ndim > LQT__MAX_DIMS)) {
    return BAD_AT(LQT_BAD_TENSOR, base + begin,
                  "tensor %.*s has type %u and %u dimensions; type 0 or 1 and 1 to 8 dimensions "
                  "are possible",
                  (int)*out_name_bytes, *out_name, t->type, t->ndim);
  }
  for (unsigned i = 0; i < t->ndim && !cursor->failed; i++) t->shape[i] = lqt__take_u32(cursor);
  t->codebook_id = lqt__take_u16(cursor);
  t->delta_id = lqt__take_u16(cursor);
  t->mask_id = lqt__take_u16(cursor);
  t->scale = lqt__take_f32(cursor);
  t->zero_point = (int32_t)lqt__take_u32(cursor);
  t->flags = lqt__take_u16(cursor);
  if (t->type == 1) {
    t->recursive.dimension = lqt__take_u32(cursor);
    t->recursive.sparsity = lqt__take_f32(cursor);
    t->recursive.distribution = lqt__take_u8(cursor);
    t->recursive.flags = lqt__take_u8(cursor);
  }
  lqt__take_padding(cursor, begin);
  if (cursor->failed) {
    return BAD_AT(LQT_BAD_METADATA, base + begin, "a tensor descriptor is malformed");
  }
  return LQT_OK;
}

static lqt_status read_tensors(lqt__parser *p, lqt__range range) {
  lqt__file *file = p->file;
  for (int pass = 0; pass < 2; pass++) {
    lqt__cursor cursor = cursor_at(p, range);
    size_t count = 0;
    while (cursor.at < cursor.bytes) {
      lqt__tensor tensor;
      const uint8_t *name;
      uint32_t bytes;
      LQT__TRY(take_tensor(p, &cursor, range.offset, &tensor, &name, &bytes));
      if (pass == 1) {
        tensor.name = lqt__arena_strndup(&file->arena, (const char *)name, bytes);
        if (tensor.name == NULL) return no_memory(p, "a tensor's name");
        file->tensors[count] = tensor;
      }
      count++;
    }
    if (pass == 1) break;
    file->tensors = lqt__arena_array(&file->arena, count, sizeof *file->tensors);
    if (file->tensors == NULL) return no_memory(p, "tensor descriptors");
    file->tensor_count = count;
  }
  return LQT_OK;
}

static void take_blob(lqt__cursor *cursor, lqt__blob *blob) {
  blob->offset = lqt__take_u64(cursor);
  blob->bytes = lqt__take_u64(cursor);
  if ((blob->bytes == 0) != (blob->offset == 0)) cursor->failed = true;
}

static lqt_status read_layout(lqt__parser *p, lqt__range range) {
  lqt__file *file = p->file;
  if (range.bytes % LQT__QUANT_RECORD != 0 ||
      range.bytes / LQT__QUANT_RECORD != file->tensor_count) {
    return BAD_AT(LQT_BAD_METADATA, range.offset,
                  "the quantization layout has %llu bytes; %zu tensors need %llu", (ull)range.bytes,
                  file->tensor_count, (ull)file->tensor_count * LQT__QUANT_RECORD);
  }
  const uint64_t prefix = p->align == 64 ? 64 : 8;
  lqt__cursor cursor = cursor_at(p, range);
  for (size_t i = 0; i < file->tensor_count; i++) {
    lqt__tensor *t = &file->tensors[i];
    uint64_t begin = cursor.at;
    t->index_bits = lqt__take_u8(&cursor);
    t->residual_bits = lqt__take_u8(&cursor);
    t->scope = lqt__take_u8(&cursor);
    t->group_scale_type = lqt__take_u8(&cursor);
    t->group_size = lqt__take_u32(&cursor);
    t->bank_count = lqt__take_u32(&cursor);
    t->bank_rows = lqt__take_u32(&cursor);
    t->bank_cols = lqt__take_u32(&cursor);
    t->residual_codebook_id = lqt__take_u16(&cursor);
    t->outlier_delta_id = lqt__take_u16(&cursor);
    t->residual_scale = lqt__take_f32(&cursor);
    if (lqt__take_u32(&cursor) != 0) cursor.failed = true;
    take_blob(&cursor, &t->payload);
    take_blob(&cursor, &t->group_scales);
    take_blob(&cursor, &t->zero_points);
    take_blob(&cursor, &t->residual_indices);
    if (cursor.failed || t->payload.bytes < prefix) {
      return BAD_AT(LQT_BAD_METADATA, range.offset + begin,
                    "the quantization layout of tensor %s is malformed", t->name);
    }
  }
  return LQT_OK;
}

/* One of the three tables; counts first, so that one array is made of the right size. */
static lqt_status read_table(lqt__parser *p, uint16_t type, lqt__range range) {
  lqt__file *file = p->file;
  size_t count = range.bytes / LQT__TABLE_RECORD;
  if (range.bytes % LQT__TABLE_RECORD != 0 || count > LQT_ID_NONE) {
    return BAD_AT(LQT_BAD_METADATA, range.offset, "table 0x%04x has %llu bytes, not whole records",
                  type, (ull)range.bytes);
  }
  size_t size = type == LQT__CHUNK_CODEBOOKS ? sizeof(lqt__codebook)
                : type == LQT__CHUNK_DELTAS  ? sizeof(lqt__delta)
                                             : sizeof(lqt__mask);
  void *array = lqt__arena_array(&file->arena, count, size);
  if (array == NULL) return no_memory(p, "a table");
  lqt__cursor cursor = cursor_at(p, range);
  for (size_t i = 0; i < count; i++) {
    uint16_t id = lqt__take_u16(&cursor);
    lqt__blob blob = {0};
    take_blob(&cursor, &blob);
    if (cursor.failed || blob.bytes == 0) {
      return BAD_AT(LQT_BAD_METADATA, range.offset + i * LQT__TABLE_RECORD,
                    "record %zu of table 0x%04x has no place", i, type);
    }
    if (type == LQT__CHUNK_CODEBOOKS) {
      ((lqt__codebook *)array)[i] = (lqt__codebook){.id = id, .blob = blob};
    } else if (type == LQT__CHUNK_DELTAS) {
      ((lqt__delta *)array)[i] = (lqt__delta){.id = id, .blob = blob};
    } else {
      ((lqt__mask *)array)[i] = (lqt__mask){.id = id, .blob = blob};
    }
  }
  if (type == LQT__CHUNK_CODEBOOKS) {
    file->codebooks = array;
    file->codebook_count = count;
  } else if (type == LQT__CHUNK_DELTAS) {
    file->deltas = array;
    file->delta_count = count;
  } else {
    file->masks = array;
    file->mask_count = count;
  }
  return LQT_OK;
}

static void add_section(lqt__file *file, lqt__section_kind kind, size_t index, lqt__blob *blob,
                        uint64_t prefix) {
  if (blob->bytes == 0) return;
  file->sections[file->section_count++] = (lqt__section){
      .offset = blob->offset, .bytes = blob->bytes, .kind = kind, .index = (uint32_t)index};
  blob->bytes -= prefix;
  /* An offset near 2^64 wraps here and is refused when the sections are checked. */
  blob->offset += prefix;
}

static lqt_status list_sections(lqt__parser *p) {
  lqt__file *file = p->file;
  size_t most =
      4 * file->tensor_count + file->codebook_count + file->delta_count + file->mask_count + 1;
  file->sections = lqt__arena_array(&file->arena, most, sizeof *file->sections);
  if (file->sections == NULL) return no_memory(p, "the sections");
  for (size_t i = 0; i < file->codebook_count; i++) {
    add_section(file, LQT__SECTION_CODEBOOK, i, &file->codebooks[i].blob, 0);
  }
  for (size_t i = 0; i < file->tensor_count; i++) {
    lqt__tensor *t = &file->tensors[i];
    add_section(file, LQT__SECTION_TENSOR, i, &t->payload, p->align == 64 ? 64 : 8);
    add_section(file, LQT__SECTION_GROUP_SCALES, i, &t->group_scales, 0);
    add_section(file, LQT__SECTION_ZERO_POINTS, i, &t->zero_points, 0);
    add_section(file, LQT__SECTION_RESIDUAL_INDICES, i, &t->residual_indices, 0);
  }
  for (size_t i = 0; i < file->delta_count; i++) {
    add_section(file, LQT__SECTION_DELTA, i, &file->deltas[i].blob, 0);
  }
  for (size_t i = 0; i < file->mask_count; i++) {
    add_section(file, LQT__SECTION_MASK, i, &file->masks[i].blob, 0);
  }
  add_section(file, LQT__SECTION_EDIT_LOG, 0, &file->edit_log, 0);
  return LQT_OK;
}

/* Finds the chunks: known ones that have fields into known[], the others into file->chunks. */
static lqt_status split_chunks(lqt__parser *p, lqt__range known[KNOWN_CHUNKS]) {
  lqt__file *file = p->file;
  const lqt__range all = {.offset = file->metadata_offset, .bytes = file->metadata_bytes};
  for (int pass = 0; pass < 2; pass++) {
    lqt__cursor cursor = cursor_at(p, all);
    size_t kept = 0;
    while (cursor.at < cursor.bytes) {
      uint64_t begin = cursor.at;
      uint16_t type = lqt__take_u16(&cursor);
      uint32_t length = lqt__take_u32(&cursor);
      lqt__range value = {.offset = all.offset + cursor.at, .bytes = length};
      const uint8_t *bytes = lqt__take(&cursor, length);
      lqt__take_padding(&cursor, begin);
      if (cursor.failed || type == 0) {
        return BAD_AT(LQT_BAD_METADATA, all.offset + begin,
                      "the metadata entry of type 0x%04x and %u bytes does not fit", type, length);
      }
      bool field = type == LQT__CHUNK_HYPERPARAMETERS || type == LQT__CHUNK_TENSORS ||
                   (type >= LQT__CHUNK_CODEBOOKS && type <= LQT__CHUNK_MASKS) ||
                   type == LQT__CHUNK_QUANT_LAYOUT || type == LQT__CHUNK_DIGESTS;
      if (field && pass == 0) {
        if (known[type].offset != 0 || length == 0) {
          return BAD_AT(LQT_BAD_METADATA, all.offset + begin, "chunk 0x%04x is %s", type,
                        length == 0 ? "empty" : "there twice");
        }
        known[type] = value;
      } else if (!field && pass == 1) {
        file->chunks[kept] = (lqt__chunk){.type = type, .data = bytes, .bytes = length};
      }
      kept += !field;
    }
    if (pass == 1) break;
    file->chunks = lqt__arena_array(&file->arena, kept, sizeof *file->chunks);
    if (file->chunks == NULL) return no_memory(p, "the metadata's chunks");
    file->chunk_count = kept;
  }
  return LQT_OK;
}

lqt_status lqt__metadata_parse(lqt__parser *p) {
  lqt__range known[KNOWN_CHUNKS] = {{0}};
  LQT__TRY(split_chunks(p, known));
  LQT__TRY(read_hyperparameters(p, known[LQT__CHUNK_HYPERPARAMETERS]));
  LQT__TRY(read_tensors(p, known[LQT__CHUNK_TENSORS]));
  LQT__TRY(read_layout(p, known[LQT__CHUNK_QUANT_LAYOUT]));
  for (int type = LQT__CHUNK_CODEBOOKS; type <= LQT__CHUNK_MASKS; type++) {
    LQT__TRY(read_table(p, (uint16_t)type, known[type]));
  }
  p->file->digests = known[LQT__CHUNK_DIGESTS];
  return list_sections(p);
}

lqt_status lqt__digests_check(lqt__parser *p) {
  const lqt__file *file = p->file;
  lqt__range range = file->digests;
  if (range.bytes == 0) return LQT_OK;
  lqt__cursor cursor = cursor_at(p, range);
  uint32_t piece_log2 = lqt__take_u32(&cursor);
  uint32_t sections = lqt__take_u32(&cursor);
  uint64_t begin = lqt__take_u64(&cursor);
  uint64_t end = lqt__take_u64(&cursor);
  if (cursor.failed || piece_log2 != LQT__PIECE_LOG2 || sections != file->section_count ||
      begin != (sections != 0 ? file->sections[0].offset : file->extension_offset) ||
      end != file->extension_offset) {
    return BAD_AT(LQT_BAD_METADATA, range.offset, "the digests are not of this file's sections");
  }
  uint64_t pieces = lqt__ceil_div(end - begin, (uint64_t)1 << LQT__PIECE_LOG2);
  if (range.bytes != LQT__DIGESTS_HEAD + (uint64_t)sections * LQT__DIGESTS_RECORD + pieces * 32) {
    return BAD_AT(LQT_BAD_METADATA, range.offset,
                  "the digest chunk has %llu bytes for %u sections "
                  "and %llu pieces",
                  (ull)range.bytes, sections, (ull)pieces);
  }
  for (uint32_t i = 0; i < sections; i++) {
    uint64_t at = cursor.at, offset = lqt__take_u64(&cursor), bytes = lqt__take_u64(&cursor);
    (void)lqt__take(&cursor, 32);
    if (offset != file->sections[i].offset || bytes != file->sections[i].bytes) {
      return BAD_AT(LQT_BAD_METADATA, range.offset + at,
                    "digest %u is of %llu bytes at %llu, where "
                    "no section is",
                    i, (ull)bytes, (ull)offset);
    }
  }
  return LQT_OK;
}
