#include "edit/encoding.h"

#include <string.h>

#include "base/diag.h"
#include "base/hash.h"
#include "edit/mutation.h"
#include "edit/reference.h"
#include "format/bytes.h"
#include "io/path.h"

static const char *const where = "mutation";
enum { VERSION = 1, HEAD = 36, INLINE_BYTES = 4096, NO_TEXT = 0xFFFF };

static uint64_t text_bytes(const char *text) { return 2 + (text != NULL ? strlen(text) : 0); }
static uint64_t array_bytes(uint64_t bytes) { return 9 + (bytes > INLINE_BYTES ? 32 : bytes); }

static uint8_t *put_text(uint8_t *p, const char *text) {
  size_t bytes = text != NULL ? strlen(text) : 0;
  lqt__store_u16(p, text != NULL ? (uint16_t)bytes : NO_TEXT);
  if (bytes != 0) memcpy(p + 2, text, bytes);
  return p + 2 + bytes;
}

/* Elements of 1 or 4 bytes; NULL: no memory. */
static uint8_t *put_array(uint8_t *p, const void *data, uint64_t count, size_t size) {
  uint64_t bytes = count * size;
  lqt__store_u64(p, count);
  p[8] = bytes > INLINE_BYTES;
  p += 9;
  if (bytes > INLINE_BYTES) return lqt__sha256(data, bytes, p) == LQT_OK ? p + 32 : NULL;
  for (uint64_t i = 0; size == 4 && i < count; i++) {
    uint32_t word;
    memcpy(&word, (const uint8_t *)data + 4 * i, sizeof word);
    lqt__store_u32(p + 4 * i, word);
  }
  if (size == 1 && bytes != 0) memcpy(p, data, bytes);
  return p + bytes;
}

lqt_status lqt__mutation_encode(const lqt_mutation *m, uint8_t **out, uint64_t *out_bytes,
                                lqt_diag *diag) {
  const char *texts[] = {m->target, m->other, m->file};
  uint64_t bytes = HEAD + array_bytes(m->value_count * 4) + array_bytes(m->coordinate_count * 8) +
                   array_bytes(m->bytes);
  *out = NULL;
  for (int i = 0; i < 3; i++) {
    bytes += text_bytes(texts[i]);
    if (text_bytes(texts[i]) > NO_TEXT) {
      return lqt__fail(diag, LQT_LIMIT, where, "a name or path is too long");
    }
  }
  uint8_t *data = lqt__alloc_zero(bytes), *p = data;
  if (data == NULL) return lqt__fail_memory(diag, where, bytes, "a record");
  p[0] = VERSION;
  lqt__store_u16(p + 2, (uint16_t)m->operation);
  lqt__store_u16(p + 4, m->id);
  p[6] = (uint8_t)m->dtype;
  p[7] = (uint8_t)m->delta_kind;
  lqt__store_u32(p + 8, m->parameter);
  lqt__store_u64(p + 12, m->first);
  lqt__store_u64(p + 20, m->second);
  lqt__store_u64(p + 28, m->count);
  p += HEAD;
  for (int i = 0; i < 3; i++) p = put_text(p, texts[i]);
  p = put_array(p, m->values, m->value_count, 4);
  if (p != NULL) p = put_array(p, m->coordinates, 2 * m->coordinate_count, 4);
  if (p != NULL) p = put_array(p, m->data, m->bytes, 1);
  if (p == NULL) {
    lqt__free(data);
    return lqt__fail_memory(diag, where, 0, "a digest");
  }
  *out = data;
  *out_bytes = bytes;
  return LQT_OK;
}

static const char *take_text(lqt__cursor *cursor, lqt__arena *arena, bool *memory) {
  uint16_t bytes = lqt__take_u16(cursor);
  if (cursor->failed || bytes == NO_TEXT) return NULL;
  const uint8_t *text = lqt__take(cursor, bytes);
  if (text == NULL || memchr(text, 0, bytes) != NULL) {
    cursor->failed = true;
    return NULL;
  }
  char *copy = lqt__arena_strndup(arena, (const char *)text, bytes);
  if (copy == NULL) *memory = false;
  return copy;
}

static void *take_array(lqt__cursor *cursor, lqt__decoded *out, size_t size, size_t *count,
                        bool *memory) {
  uint64_t elements = lqt__take_u64(cursor), bytes;
  uint8_t form = lqt__take_u8(cursor);
  *count = 0;
  if (cursor->failed || form > 1 || !lqt__mul(elements, size, &bytes) ||
      (bytes > INLINE_BYTES) != (form == 1)) {
    cursor->failed = true;
    return NULL;
  }
  const uint8_t *data = lqt__take(cursor, form == 1 ? 32 : bytes);
  if (form == 1) out->complete = false;
  if (data == NULL || form == 1 || elements == 0) return NULL;
  uint8_t *copy = lqt__arena_alloc(&out->arena, bytes);
  if (copy == NULL) {
    *memory = false;
    return NULL;
  }
  memcpy(copy, data, bytes);
  for (uint64_t i = 0; size == 4 && i < elements; i++) {
    uint32_t word = lqt__load_u32(data + 4 * i, false);
    memcpy(copy + 4 * i, &word, sizeof word);
  }
  *count = elements;
  return copy;
}

lqt_status lqt__mutation_decode(const uint8_t *data, uint64_t bytes, lqt__decoded *out,
                                lqt_diag *diag) {
  *out = (lqt__decoded){.complete = true};
  lqt__cursor cursor = {.data = data, .bytes = bytes};
  lqt_mutation *m = &out->mutation;
  bool memory = true;
  m->size = sizeof *m;
  bool known = lqt__take_u8(&cursor) == VERSION;
  known = lqt__take_u8(&cursor) == 0 && known;
  m->operation = (lqt_operation)lqt__take_u16(&cursor);
  m->id = lqt__take_u16(&cursor);
  m->dtype = (lqt_dtype)lqt__take_u8(&cursor);
  m->delta_kind = (lqt_delta_kind)lqt__take_u8(&cursor);
  m->parameter = lqt__take_u32(&cursor);
  m->first = lqt__take_u64(&cursor);
  m->second = lqt__take_u64(&cursor);
  m->count = lqt__take_u64(&cursor);
  m->target = take_text(&cursor, &out->arena, &memory);
  m->other = take_text(&cursor, &out->arena, &memory);
  m->file = take_text(&cursor, &out->arena, &memory);
  size_t words;
  m->values = take_array(&cursor, out, 4, &m->value_count, &memory);
  m->coordinates = take_array(&cursor, out, 4, &words, &memory);
  m->coordinate_count = words / 2;
  m->data = take_array(&cursor, out, 1, &m->bytes, &memory);
  if (memory && !cursor.failed && known && cursor.at == bytes && words % 2 == 0 &&
      lqt_operation_name(m->operation) != NULL) {
    return LQT_OK;
  }
  lqt__arena_free(&out->arena);
  *out = (lqt__decoded){0};
  if (!memory) return lqt__fail_memory(diag, where, bytes, "a mutation");
  return lqt__fail(diag, LQT_BAD_JOURNAL, where, "the record of a mutation is malformed");
}

lqt_status lqt__operation_make(const lqt_mutation *m, lqt__operation *out, lqt_diag *diag) {
  lqt__target_kind kind = lqt__mutation_target(m);
  bool by_id = kind == LQT__TARGET_CODEBOOK || kind == LQT__TARGET_DELTA;
  const char *name = m->target != NULL ? m->target : kind == LQT__TARGET_MODEL ? m->other : NULL;
  *out = (lqt__operation){.operation = (uint8_t)m->operation,
                          .target_kind = (uint8_t)kind,
                          .target_id = by_id ? m->id : LQT_ID_NONE};
  lqt_status status = LQT_OK;
  if (!by_id && name != NULL && (out->target = lqt__strdup(name)) == NULL) {
    status = lqt__fail_memory(diag, where, strlen(name), "a name");
  }
  if (status == LQT_OK && m->operation == LQT_EDIT_MODULE_SWAP && m->file != NULL) {
    out->file = lqt__path_resolve(m->file); /* replay may come from another folder */
    status = out->file == NULL ? lqt__fail_memory(diag, where, strlen(m->file), "a path")
                               : lqt__reference_digest(m->file, out->file_sha256, diag);
  }
  if (status == LQT_OK) {
    status = lqt__mutation_encode(m, &out->payload, &out->payload_bytes, diag);
  }
  if (status != LQT_OK) lqt__operation_free(out);
  return status;
}
