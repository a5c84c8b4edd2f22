/* The reader: bytes that nobody vouches for -> lqt__file. Header, footer and the metadata's digest
 * here; the metadata's chunks in metadata.c; what the parts must be to one another in check.c. */
#include <stdlib.h>

#include "base/diag.h"
#include "base/hash.h"
#include "format/bytes.h"
#include "format/check.h"
#include "format/layout.h"
#include "format/metadata.h"

typedef unsigned long long ull;
#define BAD_AT(status, offset, ...) lqt__fail_at(p->diag, status, p->where, offset, __VA_ARGS__)

static lqt_status read_header(lqt__parser *p) {
  const uint8_t *data = p->data;
  lqt__file *file = p->file;
  if (p->bytes < 4) return BAD_AT(LQT_TRUNCATED, 0, "the file has %llu bytes", (ull)p->bytes);
  bool little = lqt__load_u32(data, false) == LQT__HEADER_MAGIC;
  p->big = lqt__load_u32(data, true) == LQT__HEADER_MAGIC;
  if (!little && !p->big) {
    return BAD_AT(LQT_BAD_MAGIC, 0, "the file does not begin as an LQT file does");
  }
  if (p->bytes < LQT__HEADER_BYTES + LQT__FOOTER_BYTES) {
    return BAD_AT(LQT_TRUNCATED, p->bytes, "the file has %llu bytes and cannot hold a footer",
                  (ull)p->bytes);
  }
  file->version = lqt__load_u16(data + LQT__AT_VERSION, p->big);
  if (file->version >> 12 != LQT__VERSION_1_0 >> 12) {
    return BAD_AT(LQT_BAD_VERSION, LQT__AT_VERSION, "version %u.%u is not 1.x; use a newer library",
                  file->version >> 12, file->version & 0xFFFu);
  }
  file->flags = lqt__load_u16(data + LQT__AT_FLAGS, p->big);
  if ((file->flags & ~LQT__KNOWN_FLAGS) != 0 ||
      ((file->flags & LQT__FLAG_BIG_ENDIAN) != 0) != p->big) {
    return BAD_AT(LQT_BAD_HEADER, LQT__AT_FLAGS, "flags 0x%04x are unknown or contradict the magic",
                  file->flags);
  }
  uint32_t size = lqt__load_u32(data + LQT__AT_HEADER_SIZE, p->big);
  if (size != LQT__HEADER_SIZE || !lqt__all_zero(data + LQT__AT_RESERVED, 8)) {
    return BAD_AT(LQT_BAD_HEADER, LQT__AT_HEADER_SIZE,
                  "the header size is %u, or reserved bytes "
                  "are set",
                  size);
  }
  if ((file->flags & LQT__FLAG_SHARDED) != 0) {
    return BAD_AT(LQT_UNSUPPORTED, LQT__AT_FLAGS, "the model is split over many files; merge them");
  }
  file->metadata_offset = lqt__load_u64(data + LQT__AT_METADATA, p->big);
  file->tensor_data_offset = lqt__load_u64(data + LQT__AT_TENSOR_DATA, p->big);
  file->footer_offset = lqt__load_u64(data + LQT__AT_FOOTER, p->big);
  p->align = (file->flags & LQT__FLAG_ALIGN_64) != 0 ? 64 : 4;
  file->big_endian = p->big;
  return LQT_OK;
}

/* Footer and its extension: what lies after the sections. */
static lqt_status read_footer(lqt__parser *p) {
  lqt__file *file = p->file;
  uint64_t at = file->footer_offset;
  if (at > p->bytes || p->bytes - at < LQT__FOOTER_BYTES) {
    return BAD_AT(LQT_TRUNCATED, p->bytes, "the footer begins at %llu and the file ends at %llu",
                  (ull)at, (ull)p->bytes);
  }
  if (p->bytes - at != LQT__FOOTER_BYTES || at % p->align != 0 || at < LQT__HEADER_BYTES) {
    return BAD_AT(LQT_BAD_FOOTER, LQT__AT_FOOTER,
                  "the footer at %llu is not the file's last 64 "
                  "bytes, aligned",
                  (ull)at);
  }
  const uint8_t *footer = p->data + at;
  if (lqt__load_u32(footer, p->big) != LQT__FOOTER_MAGIC) {
    return BAD_AT(LQT_BAD_FOOTER, at, "there is no footer where the header says");
  }
  file->crc = lqt__load_u32(footer + LQT__FOOTER_AT_CRC, p->big);
  file->edit_log_offset = lqt__load_u64(footer + LQT__FOOTER_AT_EDIT_LOG, p->big);
  file->timestamp_ns = lqt__load_u64(footer + LQT__FOOTER_AT_TIMESTAMP, p->big);
  file->edit_count = lqt__load_u32(footer + LQT__FOOTER_AT_EDIT_COUNT, p->big);
  uint64_t extension = lqt__load_u64(footer + LQT__FOOTER_AT_EXTENSION, p->big);
  uint64_t size = lqt__load_u64(footer + LQT__FOOTER_AT_EXTENSION_SIZE, p->big);
  if (lqt__load_u32(footer + LQT__FOOTER_AT_ZERO, p->big) != 0 ||
      !lqt__all_zero(footer + LQT__FOOTER_AT_RESERVED, 16)) {
    return BAD_AT(LQT_BAD_FOOTER, at + LQT__FOOTER_AT_ZERO, "reserved bytes of the footer are set");
  }
  if (size != LQT__EXTENSION_BYTES || extension % p->align != 0 || extension > at ||
      at - extension < size || at - extension - size >= LQT__MAX_GAP) {
    return BAD_AT(LQT_BAD_FOOTER, at + LQT__FOOTER_AT_EXTENSION,
                  "the footer's extension (%llu bytes at %llu) does not stand before the footer",
                  (ull)size, (ull)extension);
  }
  file->extension_offset = extension;
  const uint8_t *e = p->data + extension;
  if (lqt__load_u32(e + LQT__EXTENSION_AT_VERSION, p->big) != LQT__EXTENSION_VERSION ||
      lqt__load_u32(e + LQT__EXTENSION_AT_ZERO, p->big) != 0 ||
      lqt__load_u64(e + LQT__EXTENSION_AT_RESERVED, p->big) != 0) {
    return BAD_AT(LQT_BAD_FOOTER, extension, "the footer's extension is not one of version 1");
  }
  file->metadata_bytes = lqt__load_u64(e + LQT__EXTENSION_AT_METADATA_SIZE, p->big);
  file->edit_log.bytes = lqt__load_u64(e + LQT__EXTENSION_AT_EDIT_LOG_SIZE, p->big);
  file->edit_log.offset = file->edit_log_offset;
  if ((file->edit_log.bytes == 0) != (file->edit_log_offset == 0)) {
    return BAD_AT(LQT_BAD_FOOTER, at + LQT__FOOTER_AT_EDIT_LOG,
                  "the edit log has an offset without a size or a size without an offset");
  }
  memcpy(p->digest, e + LQT__EXTENSION_AT_DIGEST, 32);
  return LQT_OK;
}

static lqt_status check_metadata_digest(lqt__parser *p) {
  const lqt__file *file = p->file;
  uint64_t at = file->metadata_offset, bytes = file->metadata_bytes;
  if (at < LQT__HEADER_BYTES || at - LQT__HEADER_BYTES >= LQT__MAX_GAP || at % p->align != 0 ||
      at > file->extension_offset) {
    return BAD_AT(LQT_BAD_HEADER, LQT__AT_METADATA, "the metadata cannot begin at %llu", (ull)at);
  }
  if (bytes > file->extension_offset - at || bytes % 4 != 0) {
    return BAD_AT(LQT_BAD_FOOTER, file->extension_offset + LQT__EXTENSION_AT_METADATA_SIZE,
                  "the metadata cannot have %llu bytes", (ull)bytes);
  }
  if (bytes > LQT__MAX_METADATA) {
    return BAD_AT(LQT_LIMIT, at, "the metadata has %llu bytes; at most %llu are read", (ull)bytes,
                  (ull)LQT__MAX_METADATA);
  }
  if (!lqt__all_zero(p->data + LQT__HEADER_BYTES, at - LQT__HEADER_BYTES)) {
    return BAD_AT(LQT_BAD_LAYOUT, LQT__HEADER_BYTES, "the bytes after the header are not zero");
  }
  uint8_t digest[32];
  lqt_status status = lqt__sha256(p->data + at, bytes, digest);
  if (status != LQT_OK) return lqt__fail_memory(p->diag, p->where, 0, "a digest");
  if (memcmp(digest, p->digest, 32) != 0) {
    return BAD_AT(LQT_CHECKSUM, at,
                  "the metadata does not have the SHA-256 that the footer names: "
                  "the file was damaged; get it again");
  }
  return LQT_OK;
}

static int section_class(lqt__section_kind kind) {
  return kind <= LQT__SECTION_TENSOR             ? (int)kind
         : kind <= LQT__SECTION_RESIDUAL_INDICES ? (int)LQT__SECTION_TENSOR
                                                 : (int)kind;
}

static int compare_sections(const void *a, const void *b) {
  const lqt__section *x = a, *y = b;
  if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
  if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
  return x->index < y->index ? -1 : x->index > y->index;
}

/* Sections stand in order, inside the file, aligned, with less than a page between them. */
static lqt_status check_sections(lqt__parser *p) {
  lqt__file *file = p->file;
  uint64_t end = file->metadata_offset + file->metadata_bytes, first_tensor = 0;
  qsort(file->sections, file->section_count, sizeof *file->sections, compare_sections);
  for (size_t i = 0; i < file->section_count; i++) {
    const lqt__section *s = &file->sections[i];
    char name[256];
    if (s->offset % p->align != 0 || s->offset < end || s->offset - end >= LQT__MAX_GAP) {
      lqt__section_name(file, s, name, sizeof name);
      const char *wrong = s->offset % p->align != 0 ? "not aligned"
                          : s->offset < end         ? "inside the part before it"
                                                    : "after a gap";
      return BAD_AT(LQT_BAD_LAYOUT, s->offset,
                    "%s begins at %llu, %s (the part before ends at "
                    "%llu)",
                    name, (ull)s->offset, wrong, (ull)end);
    }
    if (s->offset > file->extension_offset || s->bytes > file->extension_offset - s->offset) {
      lqt__section_name(file, s, name, sizeof name);
      return BAD_AT(LQT_BAD_LAYOUT, s->offset, "%s of %llu bytes does not end before the footer",
                    name, (ull)s->bytes);
    }
    if (i > 0 && section_class(s->kind) < section_class(s[-1].kind)) {
      lqt__section_name(file, s, name, sizeof name);
      return BAD_AT(LQT_BAD_LAYOUT, s->offset, "%s stands after a part that belongs behind it",
                    name);
    }
    if (first_tensor == 0 && s->kind == LQT__SECTION_TENSOR) first_tensor = s->offset;
    end = s->offset + s->bytes;
  }
  if (file->extension_offset - end >= LQT__MAX_GAP) {
    return BAD_AT(LQT_BAD_LAYOUT, end, "%llu bytes before the footer belong to nothing",
                  (ull)(file->extension_offset - end));
  }
  if (first_tensor != file->tensor_data_offset) {
    return BAD_AT(LQT_BAD_HEADER, LQT__AT_TENSOR_DATA,
                  "the header says that tensors begin at %llu; the first begins at %llu",
                  (ull)file->tensor_data_offset, (ull)first_tensor);
  }
  return LQT_OK;
}

static lqt__blob *section_blob(lqt__file *file, const lqt__section *s) {
  switch (s->kind) {
    case LQT__SECTION_CODEBOOK:
      return &file->codebooks[s->index].blob;
    case LQT__SECTION_TENSOR:
      return &file->tensors[s->index].payload;
    case LQT__SECTION_GROUP_SCALES:
      return &file->tensors[s->index].group_scales;
    case LQT__SECTION_ZERO_POINTS:
      return &file->tensors[s->index].zero_points;
    case LQT__SECTION_RESIDUAL_INDICES:
      return &file->tensors[s->index].residual_indices;
    case LQT__SECTION_DELTA:
      return &file->deltas[s->index].blob;
    case LQT__SECTION_MASK:
      return &file->masks[s->index].blob;
    default:
      return &file->edit_log;
  }
}

static lqt_status read_head(lqt__parser *p, const lqt__section *s, lqt_diag *diag) {
  lqt__file *file = p->file;
  const uint8_t *head = p->data + s->offset;
  switch (s->kind) {
    case LQT__SECTION_CODEBOOK:
      return lqt__codebook_decode(head, s->bytes, p->big, p->where, s->offset,
                                  &file->codebooks[s->index], diag);
    case LQT__SECTION_DELTA:
      return lqt__delta_decode(head, s->bytes, p->big, p->where, s->offset, &file->deltas[s->index],
                               diag);
    case LQT__SECTION_MASK:
      return lqt__mask_decode(head, s->bytes, p->big, p->where, s->offset, &file->masks[s->index],
                              diag);
    default:
      return LQT_OK;
  }
}

/* Points every blob at its bytes and reads the heads of codebooks, deltas and masks. */
static lqt_status attach_sections(lqt__parser *p) {
  lqt__file *file = p->file;
  for (size_t i = 0; i < file->section_count; i++) {
    lqt__section *s = &file->sections[i];
    lqt__blob *blob = section_blob(file, s);
    lqt_status status = LQT_OK;
    if (p->partial) status = lqt__section_verify(file, i, p->where, NULL);
    if (status == LQT_OK) status = read_head(p, s, p->partial ? NULL : p->diag);
    if (status == LQT_OUT_OF_MEMORY) return lqt__fail_memory(p->diag, p->where, 0, "a digest");
    if (status == LQT_OK) {
      blob->data = p->data + blob->offset;
    } else if (p->partial) {
      s->missing = true;
      file->missing_count++;
    } else {
      return status;
    }
  }
  return LQT_OK;
}

static lqt_status check_content(lqt__parser *p) {
  lqt__file *file = p->file;
  lqt__geometry *geometry =
      lqt__arena_array(&file->arena, file->tensor_count, sizeof(lqt__geometry));
  uint32_t *banks = lqt__arena_array(&file->arena, file->codebook_count, sizeof(uint32_t));
  file->by_name = lqt__arena_array(&file->arena, file->tensor_count, sizeof(uint32_t));
  if (geometry == NULL || banks == NULL || file->by_name == NULL) {
    return lqt__fail_memory(p->diag, p->where, 0, "the tensors' shapes");
  }
  LQT__TRY(lqt__file_check(file, p->where, p->big, geometry, banks, p->diag));
  LQT__TRY(lqt__file_sort_names(file, p->where, file->by_name, p->diag));
  for (size_t i = 0; i < file->tensor_count; i++) {
    file->tensors[i].rows = geometry[i].rows;
    file->tensors[i].cols = geometry[i].cols;
    file->tensors[i].row_stride = geometry[i].row_stride;
    file->tensors[i].residual_row_stride = geometry[i].residual_row_stride;
  }
  for (size_t i = 0; i < file->codebook_count; i++) {
    file->codebooks[i].banks = banks[i] != 0 ? banks[i] : 1;
  }
  if (((file->flags & LQT__FLAG_HAS_DELTAS) != 0) != (file->delta_count != 0) ||
      ((file->flags & LQT__FLAG_HAS_SPARSE_MASKS) != 0) != (file->mask_count != 0)) {
    return BAD_AT(LQT_BAD_HEADER, LQT__AT_FLAGS,
                  "flags 0x%04x contradict the file's %zu deltas and %zu masks", file->flags,
                  file->delta_count, file->mask_count);
  }
  return LQT_OK;
}

lqt_status lqt__file_parse(const uint8_t *data, uint64_t bytes, const char *where, bool partial,
                           lqt__file *out, lqt_diag *diag) {
  *out = (lqt__file){.data = data, .bytes = bytes};
  lqt__parser parser = {
      .data = data, .bytes = bytes, .where = where, .partial = partial, .file = out, .diag = diag};
  lqt_status status = read_header(&parser);
  if (status == LQT_OK) status = read_footer(&parser);
  if (status == LQT_OK) status = check_metadata_digest(&parser);
  if (status == LQT_OK) status = lqt__metadata_parse(&parser);
  if (status == LQT_OK) status = check_sections(&parser);
  if (status == LQT_OK) status = lqt__digests_check(&parser);
  if (status == LQT_OK) status = attach_sections(&parser);
  if (status == LQT_OK) status = check_content(&parser);
  if (status == LQT_OK && parser.big) status = lqt__file_swap(out, where, diag);
  if (status != LQT_OK) lqt__file_free(out);
  return status;
}

void lqt__file_free(lqt__file *file) {
  lqt__arena_free(&file->arena);
  *file = (lqt__file){0};
}

const lqt__chunk *lqt__file_chunk(const lqt__file *file, uint16_t type) {
  for (size_t i = 0; i < file->chunk_count; i++) {
    if (file->chunks[i].type == type) return &file->chunks[i];
  }
  return NULL;
}

ptrdiff_t lqt__file_find_tensor(const lqt__file *file, const char *name) {
  if (file->by_name == NULL) {
    for (size_t i = 0; i < file->tensor_count; i++) {
      if (strcmp(file->tensors[i].name, name) == 0) return (ptrdiff_t)i;
    }
    return -1;
  }
  size_t low = 0, high = file->tensor_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = strcmp(file->tensors[file->by_name[middle]].name, name);
    if (order == 0) return (ptrdiff_t)file->by_name[middle];
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return -1;
}

ptrdiff_t lqt__file_find_codebook(const lqt__file *file, uint16_t id) {
  for (size_t i = 0; i < file->codebook_count; i++) {
    if (file->codebooks[i].id == id) return (ptrdiff_t)i;
  }
  return -1;
}

ptrdiff_t lqt__file_find_delta(const lqt__file *file, uint16_t id) {
  for (size_t i = 0; i < file->delta_count; i++) {
    if (file->deltas[i].id == id) return (ptrdiff_t)i;
  }
  return -1;
}

ptrdiff_t lqt__file_find_mask(const lqt__file *file, uint16_t id) {
  for (size_t i = 0; i < file->mask_count; i++) {
    if (file->masks[i].id == id) return (ptrdiff_t)i;
  }
  return -1;
}
