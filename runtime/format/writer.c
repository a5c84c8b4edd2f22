/* The writer: lqt__file -> a file on disk, deterministic, under a temporary name until it is whole.
 *
 * Sections are laid out first, from offset 0; metadata stands before them and its size does not
 * depend on where they stand, so that the final offsets follow at once. Digests are taken from the
 * finished temporary file in one pass; the CRC of the whole is joined from its parts. */
#include <stdlib.h>
#include <time.h>

#include "base/diag.h"
#include "base/hash.h"
#include "format/bytes.h"
#include "format/check.h"
#include "format/layout.h"

typedef unsigned long long ull;
enum { METADATA_AT = 64, ALIGN = 64, PIECE = 1 << LQT__PIECE_LOG2 };

typedef struct placed {
  const lqt__blob *blob;
  uint64_t offset, bytes; /* of the whole section */
  uint64_t prefix;        /* bytes before the blob: a tensor's ids */
  uint64_t put;           /* bytes of the blob written so far */
  uint8_t digest[32];
} placed;

struct lqt__writer {
  const lqt__file *file;
  lqt__output *output;
  char *path;
  placed *sections; /* in file order */
  size_t section_count;
  placed **by_blob;           /* in the order of their blobs' addresses */
  uint64_t region, extension; /* sections stand in [region, extension) */
  uint64_t metadata_bytes, tensor_data, edit_log;
  uint64_t timestamp_ns;
  uint8_t *pieces; /* SHA-256 of each piece */
  uint64_t piece_count;
};

/* ---- Metadata ---- */

typedef struct buffer {
  uint8_t *data;
  uint64_t bytes, capacity;
  bool failed;
} buffer;

static uint8_t *extend(buffer *b, uint64_t bytes) {
  if (b->failed) return NULL;
  if (b->capacity - b->bytes < bytes) {
    uint64_t capacity = b->capacity * 2 + bytes + 4096;
    uint8_t *data = lqt__realloc(b->data, capacity);
    if (data == NULL) {
      b->failed = true;
      return NULL;
    }
    b->data = data;
    b->capacity = capacity;
  }
  uint8_t *p = b->data + b->bytes;
  memset(p, 0, bytes);
  b->bytes += bytes;
  return p;
}

static void add_u8(buffer *b, uint8_t value) {
  uint8_t *p = extend(b, 1);
  if (p != NULL) *p = value;
}
static void add_u16(buffer *b, uint16_t value) {
  uint8_t *p = extend(b, 2);
  if (p != NULL) lqt__store_u16(p, value);
}
static void add_u32(buffer *b, uint32_t value) {
  uint8_t *p = extend(b, 4);
  if (p != NULL) lqt__store_u32(p, value);
}
static void add_u64(buffer *b, uint64_t value) {
  uint8_t *p = extend(b, 8);
  if (p != NULL) lqt__store_u64(p, value);
}
static void add_bytes(buffer *b, const void *data, uint64_t bytes) {
  uint8_t *p = extend(b, bytes);
  if (p != NULL && bytes != 0) memcpy(p, data, bytes);
}
static void pad4(buffer *b, uint64_t begin) { (void)extend(b, (0 - (b->bytes - begin)) & 3); }

static void add_text(buffer *b, const char *text) {
  uint64_t begin = b->bytes, bytes = strlen(text);
  add_u16(b, (uint16_t)bytes);
  add_bytes(b, text, bytes);
  pad4(b, begin);
}

static uint64_t begin_chunk(buffer *b, uint16_t type) {
  uint64_t begin = b->bytes;
  add_u16(b, type);
  add_u32(b, 0);
  return begin;
}

static void end_chunk(buffer *b, uint64_t begin) {
  if (b->failed) return;
  uint64_t bytes = b->bytes - begin - LQT__ENTRY_HEADER;
  if (bytes == 0) {
    b->bytes = begin; /* a chunk that would be empty is left out */
    return;
  }
  if (bytes > UINT32_MAX) {
    b->failed = true;
    return;
  }
  lqt__store_u32(b->data + begin + LQT__ENTRY_AT_LENGTH, (uint32_t)bytes);
  pad4(b, begin);
}

static placed *find(const lqt__writer *w, const lqt__blob *blob) {
  size_t low = 0, high = w->section_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (w->by_blob[middle]->blob == blob) return w->by_blob[middle];
    if ((uintptr_t)w->by_blob[middle]->blob < (uintptr_t)blob) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NULL;
}

static void add_place(buffer *b, const lqt__writer *w, const lqt__blob *blob) {
  const placed *p = find(w, blob);
  add_u64(b, p != NULL ? p->offset : 0);
  add_u64(b, p != NULL ? p->bytes : 0);
}

static void add_tensor(buffer *b, const lqt__tensor *t) {
  uint64_t begin = b->bytes;
  add_text(b, t->name);
  add_u8(b, t->type);
  add_u8(b, t->dtype);
  add_u8(b, t->ndim);
  for (unsigned i = 0; i < t->ndim; i++) add_u32(b, t->shape[i]);
  add_u16(b, t->codebook_id);
  add_u16(b, t->delta_id);
  add_u16(b, t->mask_id);
  add_u32(b, lqt__f32_bits(t->scale));
  add_u32(b, (uint32_t)t->zero_point);
  add_u16(b, t->flags);
  if (t->type == 1) {
    add_u32(b, t->recursive.dimension);
    add_u32(b, lqt__f32_bits(t->recursive.sparsity));
    add_u8(b, t->recursive.distribution);
    add_u8(b, t->recursive.flags);
  }
  pad4(b, begin);
}

static void add_layout(buffer *b, const lqt__writer *w, const lqt__tensor *t) {
  add_u8(b, t->index_bits);
  add_u8(b, t->residual_bits);
  add_u8(b, t->scope);
  add_u8(b, t->group_scale_type);
  add_u32(b, t->group_size);
  add_u32(b, t->bank_count);
  add_u32(b, t->bank_rows);
  add_u32(b, t->bank_cols);
  add_u16(b, t->residual_codebook_id);
  add_u16(b, t->outlier_delta_id);
  add_u32(b, lqt__f32_bits(t->residual_scale));
  add_u32(b, 0);
  add_place(b, w, &t->payload);
  add_place(b, w, &t->group_scales);
  add_place(b, w, &t->zero_points);
  add_place(b, w, &t->residual_indices);
}

static void add_tables(buffer *b, const lqt__writer *w) {
  const lqt__file *file = w->file;
  uint64_t begin = begin_chunk(b, LQT__CHUNK_CODEBOOKS);
  for (size_t i = 0; i < file->codebook_count; i++) {
    add_u16(b, file->codebooks[i].id);
    add_place(b, w, &file->codebooks[i].blob);
  }
  end_chunk(b, begin);
  begin = begin_chunk(b, LQT__CHUNK_DELTAS);
  for (size_t i = 0; i < file->delta_count; i++) {
    add_u16(b, file->deltas[i].id);
    add_place(b, w, &file->deltas[i].blob);
  }
  end_chunk(b, begin);
  begin = begin_chunk(b, LQT__CHUNK_MASKS);
  for (size_t i = 0; i < file->mask_count; i++) {
    add_u16(b, file->masks[i].id);
    add_place(b, w, &file->masks[i].blob);
  }
  end_chunk(b, begin);
}

/* The whole metadata with the offsets and digests that the writer has at the time. */
static lqt_status make_metadata(const lqt__writer *w, buffer *out, lqt_diag *diag) {
  const lqt__file *file = w->file;
  buffer b = {0};
  uint64_t begin = begin_chunk(&b, LQT__CHUNK_HYPERPARAMETERS);
  for (size_t i = 0; i < file->hyperparameter_count; i++) {
    add_text(&b, file->hyperparameters[i].key);
    add_u32(&b, lqt__f32_bits(file->hyperparameters[i].value));
  }
  end_chunk(&b, begin);
  begin = begin_chunk(&b, LQT__CHUNK_TENSORS);
  for (size_t i = 0; i < file->tensor_count; i++) add_tensor(&b, &file->tensors[i]);
  end_chunk(&b, begin);
  begin = begin_chunk(&b, LQT__CHUNK_QUANT_LAYOUT);
  for (size_t i = 0; i < file->tensor_count; i++) add_layout(&b, w, &file->tensors[i]);
  end_chunk(&b, begin);
  add_tables(&b, w);
  for (size_t i = 0; i < file->chunk_count; i++) {
    const lqt__chunk *chunk = &file->chunks[i];
    begin = b.bytes;
    add_u16(&b, chunk->type);
    add_u32(&b, chunk->bytes);
    add_bytes(&b, chunk->data, chunk->bytes);
    pad4(&b, begin);
  }
  begin = begin_chunk(&b, LQT__CHUNK_DIGESTS);
  add_u32(&b, LQT__PIECE_LOG2);
  add_u32(&b, (uint32_t)w->section_count);
  add_u64(&b, w->region);
  add_u64(&b, w->extension);
  for (size_t i = 0; i < w->section_count; i++) {
    add_u64(&b, w->sections[i].offset);
    add_u64(&b, w->sections[i].bytes);
    add_bytes(&b, w->sections[i].digest, 32);
  }
  add_bytes(&b, w->pieces, w->piece_count * 32);
  end_chunk(&b, begin);
  if (!b.failed && b.bytes <= LQT__MAX_METADATA) {
    *out = b;
    return LQT_OK;
  }
  lqt__free(b.data);
  if (b.failed) return lqt__fail_memory(diag, w->path, b.bytes, "metadata");
  return lqt__fail(diag, LQT_LIMIT, w->path, "the metadata would have %llu bytes; at most %llu",
                   (ull)b.bytes, (ull)LQT__MAX_METADATA);
}

/* ---- Layout ---- */

static bool place(lqt__writer *w, const lqt__blob *blob, uint64_t prefix, uint64_t *at,
                  uint64_t *most) {
  uint64_t bytes;
  if (blob->bytes == 0 && prefix == 0) return true;
  if (!lqt__add(blob->bytes, prefix, &bytes)) return false;
  uint64_t align = bytes >= LQT__PAGE_FROM ? LQT__PAGE : ALIGN;
  if (align > *most) *most = align;
  if (!lqt__align_up(*at, align, at)) return false;
  w->sections[w->section_count++] =
      (placed){.blob = blob, .offset = *at, .bytes = bytes, .prefix = prefix};
  return lqt__add(*at, bytes, at) && *at < (uint64_t)1 << 62;
}

static int compare_blobs(const void *a, const void *b) {
  const placed *const *x = a, *const *y = b;
  return (uintptr_t)(*x)->blob < (uintptr_t)(*y)->blob
             ? -1
             : (uintptr_t)(*x)->blob != (uintptr_t)(*y)->blob;
}

/* Places every section from offset 0 on. */
static lqt_status place_sections(lqt__writer *w, uint64_t *out_end, uint64_t *out_align,
                                 lqt_diag *diag) {
  const lqt__file *file = w->file;
  size_t most =
      4 * file->tensor_count + file->codebook_count + file->delta_count + file->mask_count + 1;
  w->sections = lqt__alloc_array(most, sizeof *w->sections);
  w->by_blob = lqt__alloc_array(most, sizeof *w->by_blob);
  if (w->sections == NULL || w->by_blob == NULL) {
    return lqt__fail_memory(diag, w->path, most * sizeof *w->sections, "a file's layout");
  }
  uint64_t at = 0, align = ALIGN;
  bool good = true;
  for (size_t i = 0; i < file->codebook_count; i++) {
    good = good && place(w, &file->codebooks[i].blob, 0, &at, &align);
  }
  for (size_t i = 0; i < file->tensor_count; i++) {
    const lqt__tensor *t = &file->tensors[i];
    good = good && place(w, &t->payload, ALIGN, &at, &align) &&
           place(w, &t->group_scales, 0, &at, &align) &&
           place(w, &t->zero_points, 0, &at, &align) &&
           place(w, &t->residual_indices, 0, &at, &align);
  }
  for (size_t i = 0; i < file->delta_count; i++) {
    good = good && place(w, &file->deltas[i].blob, 0, &at, &align);
  }
  for (size_t i = 0; i < file->mask_count; i++) {
    good = good && place(w, &file->masks[i].blob, 0, &at, &align);
  }
  good = good && place(w, &file->edit_log, 0, &at, &align);
  if (!good) return lqt__fail(diag, LQT_OVERFLOW, w->path, "the file would be too large");
  for (size_t i = 0; i < w->section_count; i++) w->by_blob[i] = &w->sections[i];
  qsort(w->by_blob, w->section_count, sizeof *w->by_blob, compare_blobs);
  *out_end = (at + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
  *out_align = align;
  return LQT_OK;
}

static lqt_status lay_out(lqt__writer *w, lqt_diag *diag) {
  uint64_t end = 0, align = ALIGN;
  LQT__TRY(place_sections(w, &end, &align, diag));
  w->piece_count = lqt__ceil_div(end, PIECE);
  w->pieces = lqt__alloc_array(w->piece_count, 32);
  if (w->pieces == NULL) return lqt__fail_memory(diag, w->path, w->piece_count * 32, "digests");
  buffer metadata;
  LQT__TRY(make_metadata(w, &metadata, diag));
  w->metadata_bytes = metadata.bytes;
  lqt__free(metadata.data);
  w->region = (METADATA_AT + w->metadata_bytes + align - 1) & ~(align - 1);
  w->extension = w->region + end;
  for (size_t i = 0; i < w->section_count; i++) w->sections[i].offset += w->region;
  const placed *first = w->file->tensor_count != 0 ? find(w, &w->file->tensors[0].payload) : NULL;
  w->tensor_data = first != NULL ? first->offset : 0;
  const placed *log = find(w, &w->file->edit_log);
  w->edit_log = log != NULL ? log->offset : 0;
  return LQT_OK;
}

/* ---- Checks ---- */

/* The head in a section's bytes says what the fields say. */
static lqt_status check_head(const lqt__writer *w, const lqt__blob *blob, const uint8_t want[64],
                             const char *what, uint16_t id, lqt_diag *diag) {
  if (blob->bytes >= LQT__SECTION_HEAD &&
      (blob->data == NULL || memcmp(blob->data, want, LQT__SECTION_HEAD) == 0)) {
    return LQT_OK;
  }
  return lqt__fail(diag, LQT_INVALID_ARGUMENT, w->path,
                   "the section of %s %u does not begin with the head of its description", what,
                   id);
}

static lqt_status check_file(const lqt__writer *w, lqt_diag *diag) {
  const lqt__file *file = w->file;
  LQT__TRY(lqt__file_check(file, w->path, false, NULL, NULL, diag));
  uint32_t *order = lqt__alloc_array(file->tensor_count, sizeof *order);
  if (order == NULL) return lqt__fail_memory(diag, w->path, file->tensor_count * 4, "names");
  lqt_status status = lqt__file_sort_names(file, w->path, order, diag);
  lqt__free(order);
  if (status != LQT_OK) return status;
  uint8_t head[64];
  for (size_t i = 0; i < file->codebook_count; i++) {
    const lqt__codebook *c = &file->codebooks[i];
    (void)lqt__codebook_header(c, head);
    LQT__TRY(check_head(w, &c->blob, head, "codebook", c->id, diag));
  }
  for (size_t i = 0; i < file->delta_count; i++) {
    const lqt__delta *d = &file->deltas[i];
    (void)lqt__delta_header(d, head);
    LQT__TRY(check_head(w, &d->blob, head, "delta", d->id, diag));
  }
  for (size_t i = 0; i < file->mask_count; i++) {
    const lqt__mask *m = &file->masks[i];
    (void)lqt__mask_header(m, head);
    LQT__TRY(check_head(w, &m->blob, head, "mask", m->id, diag));
  }
  return LQT_OK;
}

/* ---- Writing ---- */

static lqt_status write_known(lqt__writer *w, lqt_diag *diag) {
  size_t tensor = 0;
  for (size_t i = 0; i < w->section_count; i++) {
    placed *p = &w->sections[i];
    if (p->prefix != 0) {
      const lqt__tensor *t = &w->file->tensors[tensor++];
      uint8_t ids[LQT__TENSOR_IDS];
      lqt__store_u16(ids, t->codebook_id);
      lqt__store_u16(ids + 2, t->delta_id);
      lqt__store_u16(ids + 4, t->mask_id);
      LQT__TRY(lqt__output_write(w->output, p->offset, ids, sizeof ids, diag));
    }
    if (p->blob->data == NULL) continue;
    LQT__TRY(
        lqt__output_write(w->output, p->offset + p->prefix, p->blob->data, p->blob->bytes, diag));
    p->put = p->blob->bytes;
  }
  return LQT_OK;
}

static void writer_free(lqt__writer *w) {
  lqt__free(w->sections);
  lqt__free(w->by_blob);
  lqt__free(w->pieces);
  lqt__free(w->path);
  lqt__free(w);
}

lqt_status lqt__writer_begin(const char *path, const lqt__file *file, lqt__writer **out,
                             lqt_diag *diag) {
  *out = NULL;
  lqt__writer *w = lqt__alloc_zero(sizeof *w);
  if (w == NULL) return lqt__fail_memory(diag, path, sizeof *w, "a writer");
  w->file = file;
  w->timestamp_ns = file->timestamp_ns;
  if (w->timestamp_ns == 0) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) == 0) {
      w->timestamp_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
  }
  w->path = lqt__strdup(path);
  lqt_status status =
      w->path != NULL ? LQT_OK : lqt__fail_memory(diag, path, strlen(path), "a path");
  if (status == LQT_OK) status = check_file(w, diag);
  if (status == LQT_OK) status = lay_out(w, diag);
  if (status == LQT_OK) status = lqt__output_begin(path, &w->output, diag);
  if (status == LQT_OK) status = write_known(w, diag);
  if (status != LQT_OK) {
    lqt__writer_abort(w);
    return status;
  }
  *out = w;
  return LQT_OK;
}

lqt_status lqt__writer_put(lqt__writer *w, const lqt__blob *blob, uint64_t at, const void *data,
                           uint64_t bytes, lqt_diag *diag) {
  placed *p = find(w, blob);
  if (p == NULL || at > blob->bytes || bytes > blob->bytes - at) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, w->path,
                     "bytes %llu to %llu were given for a blob of %llu", (ull)at,
                     (ull)at + (ull)bytes, p != NULL ? (ull)blob->bytes : 0);
  }
  LQT__TRY(lqt__output_write(w->output, p->offset + p->prefix + at, data, bytes, diag));
  p->put += bytes;
  return LQT_OK;
}

/* A digest that is fed piecewise; `state` NULL: none is open. */
typedef struct hasher {
  lqt__sha256_state *state;
} hasher;

static lqt_status hasher_begin(hasher *h) {
  h->state = lqt__sha256_begin();
  return h->state != NULL ? LQT_OK : LQT_OUT_OF_MEMORY;
}
static lqt_status hasher_end(hasher *h, uint8_t *out) {
  if (h->state == NULL) return LQT_OK;
  lqt_status status = lqt__sha256_end(h->state, out);
  h->state = NULL;
  return status;
}

/* Feeds [at, at + bytes) to the digests of the sections it touches; `next` is the first section
 * that is not finished. */
static lqt_status feed_sections(lqt__writer *w, hasher *section, size_t *next, uint64_t at,
                                const uint8_t *data, uint64_t bytes) {
  while (*next < w->section_count && w->sections[*next].offset < at + bytes) {
    placed *p = &w->sections[*next];
    uint64_t from = p->offset > at ? p->offset : at, end = p->offset + p->bytes;
    uint64_t to = end < at + bytes ? end : at + bytes;
    if (section->state == NULL) LQT__TRY(hasher_begin(section));
    LQT__TRY(lqt__sha256_add(section->state, data + (from - at), to - from));
    if (end > at + bytes) break;
    LQT__TRY(hasher_end(section, p->digest));
    ++*next;
  }
  return LQT_OK;
}

/* One pass over the sections' region: digests of sections and pieces, and the region's CRC. */
static lqt_status digest_region(lqt__writer *w, uint8_t *piece, uint32_t *out_crc, lqt_diag *diag) {
  hasher section = {0};
  size_t next = 0;
  uint32_t crc = 0;
  lqt_status status = LQT_OK;
  uint8_t *digest = w->pieces;
  for (uint64_t at = w->region; at < w->extension && status == LQT_OK; at += PIECE, digest += 32) {
    uint64_t bytes = w->extension - at < PIECE ? w->extension - at : PIECE;
    status = lqt__output_read(w->output, at, piece, bytes, diag);
    if (status != LQT_OK) break;
    crc = lqt__crc32(crc, piece, bytes);
    status = lqt__sha256(piece, bytes, digest);
    if (status == LQT_OK) status = feed_sections(w, &section, &next, at, piece, bytes);
    if (status != LQT_OK) (void)lqt__fail_memory(diag, w->path, 0, "a digest");
  }
  (void)hasher_end(&section, NULL);
  *out_crc = crc;
  return status;
}

static void make_header(const lqt__writer *w, uint8_t out[METADATA_AT]) {
  const lqt__file *file = w->file;
  uint16_t flags = (uint16_t)((file->flags & (LQT__FLAG_SELF_MODIFYING | LQT__FLAG_SIGNED_EDITS |
                                              LQT__FLAG_COMPRESSED)) |
                              LQT__FLAG_ALIGN_64);
  if (file->delta_count != 0) flags |= LQT__FLAG_HAS_DELTAS;
  if (file->mask_count != 0) flags |= LQT__FLAG_HAS_SPARSE_MASKS;
  memset(out, 0, METADATA_AT);
  lqt__store_u32(out + LQT__AT_MAGIC, LQT__HEADER_MAGIC);
  lqt__store_u16(out + LQT__AT_VERSION, file->version != 0 ? file->version : LQT__VERSION_1_0);
  lqt__store_u16(out + LQT__AT_FLAGS, flags);
  lqt__store_u32(out + LQT__AT_HEADER_SIZE, LQT__HEADER_SIZE);
  lqt__store_u64(out + LQT__AT_METADATA, METADATA_AT);
  lqt__store_u64(out + LQT__AT_TENSOR_DATA, w->tensor_data);
  lqt__store_u64(out + LQT__AT_FOOTER, w->extension + LQT__EXTENSION_BYTES);
}

/* Extension and footer, the CRC still zero. */
static lqt_status make_tail(const lqt__writer *w, const buffer *metadata,
                            uint8_t out[LQT__EXTENSION_BYTES + LQT__FOOTER_BYTES]) {
  memset(out, 0, LQT__EXTENSION_BYTES + LQT__FOOTER_BYTES);
  lqt__store_u32(out + LQT__EXTENSION_AT_VERSION, LQT__EXTENSION_VERSION);
  lqt__store_u64(out + LQT__EXTENSION_AT_METADATA_SIZE, metadata->bytes);
  LQT__TRY(lqt__sha256(metadata->data, metadata->bytes, out + LQT__EXTENSION_AT_DIGEST));
  lqt__store_u64(out + LQT__EXTENSION_AT_EDIT_LOG_SIZE, w->file->edit_log.bytes);
  uint8_t *footer = out + LQT__EXTENSION_BYTES;
  lqt__store_u32(footer + LQT__FOOTER_AT_MAGIC, LQT__FOOTER_MAGIC);
  lqt__store_u64(footer + LQT__FOOTER_AT_EDIT_LOG, w->edit_log);
  lqt__store_u64(footer + LQT__FOOTER_AT_TIMESTAMP, w->timestamp_ns);
  lqt__store_u32(footer + LQT__FOOTER_AT_EDIT_COUNT, w->file->edit_count);
  lqt__store_u64(footer + LQT__FOOTER_AT_EXTENSION, w->extension);
  lqt__store_u64(footer + LQT__FOOTER_AT_EXTENSION_SIZE, LQT__EXTENSION_BYTES);
  return LQT_OK;
}

/* Writes what frames the sections, once their digests are known. */
static lqt_status write_frame(lqt__writer *w, uint32_t region_crc, lqt_diag *diag) {
  buffer metadata;
  LQT__TRY(make_metadata(w, &metadata, diag));
  uint8_t header[METADATA_AT], tail[LQT__EXTENSION_BYTES + LQT__FOOTER_BYTES];
  make_header(w, header);
  lqt_status status = make_tail(w, &metadata, tail);
  if (status != LQT_OK) (void)lqt__fail_memory(diag, w->path, 0, "a digest");
  static const uint8_t zeros[LQT__PAGE];
  uint32_t crc = lqt__crc32(0, header, sizeof header);
  crc = lqt__crc32(crc, metadata.data, metadata.bytes);
  crc = lqt__crc32(crc, zeros, w->region - METADATA_AT - metadata.bytes);
  crc = lqt__crc32_join(crc, region_crc, w->extension - w->region);
  crc = lqt__crc32(crc, tail, sizeof tail);
  lqt__store_u32(tail + LQT__EXTENSION_BYTES + LQT__FOOTER_AT_CRC, crc);
  if (status == LQT_OK) status = lqt__output_write(w->output, 0, header, sizeof header, diag);
  if (status == LQT_OK) {
    status = lqt__output_write(w->output, METADATA_AT, metadata.data, metadata.bytes, diag);
  }
  if (status == LQT_OK) {
    status = lqt__output_write(w->output, w->extension, tail, sizeof tail, diag);
  }
  lqt__free(metadata.data);
  return status;
}

static lqt_status finish(lqt__writer *w, lqt_diag *diag) {
  for (size_t i = 0; i < w->section_count; i++) {
    const placed *p = &w->sections[i];
    if (p->put == p->blob->bytes) continue;
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, w->path,
                     "section %zu has %llu bytes and %llu were given", i, (ull)p->blob->bytes,
                     (ull)p->put);
  }
  /* The region may end in zeros that nothing has written yet. */
  static const uint8_t zero[1];
  LQT__TRY(lqt__output_write(w->output, w->extension, zero, 1, diag));
  uint8_t *piece = lqt__alloc(PIECE);
  if (piece == NULL) return lqt__fail_memory(diag, w->path, PIECE, "a buffer");
  uint32_t crc = 0;
  lqt_status status = digest_region(w, piece, &crc, diag);
  lqt__free(piece);
  return status != LQT_OK ? status : write_frame(w, crc, diag);
}

lqt_status lqt__writer_finish(lqt__writer *w, uint64_t *out_bytes, lqt_diag *diag) {
  lqt_status status = finish(w, diag);
  uint64_t bytes = w->extension + LQT__EXTENSION_BYTES + LQT__FOOTER_BYTES;
  if (status == LQT_OK) {
    status = lqt__output_commit(w->output, diag);
  } else {
    lqt__output_abort(w->output);
  }
  if (out_bytes != NULL) *out_bytes = status == LQT_OK ? bytes : 0;
  writer_free(w);
  return status;
}

void lqt__writer_abort(lqt__writer *w) {
  if (w == NULL) return;
  lqt__output_abort(w->output);
  writer_free(w);
}
