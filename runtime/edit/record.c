#include "edit/record.h"

#include <string.h>
#include <zstd.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/hash.h"
#include "format/bytes.h"

enum {
  VERSION = 1,
  BLOCK = 4 << 20,  /* bytes of a change that are compressed together */
  WORTH = 128,      /* fewer are not compressed */
  NO_TEXT = 0xFFFF, /* length of a text that is absent */
  GROW = 1 << 20,   /* what a length of the input is trusted with at once */
};
enum { HAS_OLD = 1 << 0, HAS_NEW = 1 << 1, BY_REFERENCE = 1 << 2 };

static const char *const where = "journal";

struct lqt__record_codec {
  ZSTD_CCtx *compressor;
  ZSTD_DCtx *decompressor;
  uint8_t *scratch; /* a compressed block */
  size_t room;
};

lqt_status lqt__record_codec_create(lqt__record_codec **out, lqt_diag *diag) {
  *out = lqt__alloc_zero(sizeof **out);
  return *out != NULL ? LQT_OK : lqt__fail_memory(diag, where, sizeof **out, "a codec");
}

void lqt__record_codec_destroy(lqt__record_codec *codec) {
  if (codec == NULL) return;
  ZSTD_freeCCtx(codec->compressor);
  ZSTD_freeDCtx(codec->decompressor);
  lqt__free(codec->scratch);
  lqt__free(codec);
}

static lqt_status reserve_scratch(lqt__record_codec *codec, size_t bytes, lqt_diag *diag) {
  if (codec->room >= bytes) return LQT_OK;
  uint8_t *scratch = lqt__realloc(codec->scratch, bytes);
  if (scratch == NULL) return lqt__fail_memory(diag, where, bytes, "a compressed block");
  codec->scratch = scratch;
  codec->room = bytes;
  return LQT_OK;
}

/* ---- Writing ---- */

typedef struct writer {
  lqt__record_codec *codec;
  lqt__record_sink sink;
  void *user;
  lqt_diag *diag;
} writer;

static lqt_status put(writer *w, const void *data, size_t bytes) {
  return w->sink(w->user, data, bytes, w->diag);
}

static lqt_status put_text(writer *w, const char *text) {
  size_t length = text != NULL ? strlen(text) : NO_TEXT;
  uint8_t head[2];
  if (text != NULL && length >= NO_TEXT) {
    return lqt__fail(w->diag, LQT_LIMIT, where, "a text of %zu bytes; %d are the most", length,
                     NO_TEXT - 1);
  }
  lqt__store_u16(head, (uint16_t)length);
  LQT__TRY(put(w, head, sizeof head));
  return text != NULL ? put(w, text, length) : LQT_OK;
}

static lqt_status put_count(writer *w, size_t count) {
  uint8_t bytes[4];
  if (count > UINT32_MAX) {
    return lqt__fail(w->diag, LQT_LIMIT, where, "%zu parts in one transaction", count);
  }
  lqt__store_u32(bytes, (uint32_t)count);
  return put(w, bytes, sizeof bytes);
}

static lqt_status put_block(writer *w, const uint8_t *data, uint32_t bytes) {
  lqt__record_codec *codec = w->codec;
  const uint8_t *stored = data;
  size_t count = bytes;
  if (bytes >= WORTH) {
    if (codec->compressor == NULL) codec->compressor = ZSTD_createCCtx();
    size_t bound = ZSTD_compressBound(bytes);
    if (codec->compressor == NULL) return lqt__fail_memory(w->diag, where, 0, "a compressor");
    LQT__TRY(reserve_scratch(codec, bound, w->diag));
    size_t got = ZSTD_compressCCtx(codec->compressor, codec->scratch, bound, data, bytes, 1);
    if (ZSTD_isError(got)) return lqt__fail_memory(w->diag, where, bound, "a compressed block");
    if (got < bytes - bytes / 16) {
      stored = codec->scratch;
      count = got;
    }
  }
  uint8_t head[8];
  lqt__store_u32(head, bytes);
  lqt__store_u32(head + 4, (uint32_t)count);
  LQT__TRY(put(w, head, sizeof head));
  return put(w, stored, count);
}

static lqt_status put_digest(writer *w, const uint8_t *data, uint64_t bytes) {
  uint8_t head[40];
  lqt__store_u64(head, bytes);
  if (lqt__sha256(data, bytes, head + 8) != LQT_OK) {
    return lqt__fail_memory(w->diag, where, 0, "a digest");
  }
  return put(w, head, sizeof head);
}

static lqt_status put_change(writer *w, const lqt__change *change) {
  uint8_t head[8];
  head[0] = (uint8_t)change->kind;
  head[1] = (uint8_t)((change->has_old ? HAS_OLD : 0) | (change->has_new ? HAS_NEW : 0) |
                      (change->by_reference ? BY_REFERENCE : 0));
  lqt__store_u16(head + 2, change->what);
  lqt__store_u16(head + 4, change->id);
  lqt__store_u16(head + 6, 0);
  LQT__TRY(put(w, head, sizeof head));
  LQT__TRY(put_text(w, change->name));
  lqt__store_u64(head, change->offset);
  LQT__TRY(put(w, head, sizeof head));
  if (change->has_old) LQT__TRY(put_digest(w, change->old_data, change->old_bytes));
  if (!change->has_new) return LQT_OK;
  if (change->by_reference) return put_digest(w, change->data, change->bytes);
  lqt__store_u64(head, change->bytes);
  LQT__TRY(put(w, head, sizeof head));
  for (uint64_t at = 0; at < change->bytes; at += BLOCK) {
    uint64_t rest = change->bytes - at;
    LQT__TRY(put_block(w, change->data + at, rest < BLOCK ? (uint32_t)rest : (uint32_t)BLOCK));
  }
  return LQT_OK;
}

static lqt_status put_operation(writer *w, const lqt__operation *operation) {
  uint8_t head[8] = {operation->operation, operation->target_kind};
  lqt__store_u16(head + 2, operation->target_id);
  LQT__TRY(put(w, head, 4));
  LQT__TRY(put_text(w, operation->target));
  lqt__store_u64(head, operation->payload_bytes);
  LQT__TRY(put(w, head, 8));
  LQT__TRY(put(w, operation->payload, operation->payload_bytes));
  LQT__TRY(put_text(w, operation->file));
  return operation->file != NULL ? put(w, operation->file_sha256, 32) : LQT_OK;
}

lqt_status lqt__record_write(lqt__record_codec *codec, const lqt__journal_entry *entry,
                             lqt__record_sink sink, void *user, lqt_diag *diag) {
  writer w = {codec, sink, user, diag};
  uint8_t head[50];
  lqt__store_u32(head, VERSION);
  lqt__store_u32(head + 4, entry->flags);
  lqt__store_u64(head + 8, entry->revision);
  lqt__store_u64(head + 16, entry->timestamp_ns);
  lqt__store_u64(head + 24, entry->reference);
  lqt__store_u64(head + 32, entry->expires_ns);
  lqt__store_u64(head + 40, entry->expires_steps);
  lqt__store_u16(head + 48, entry->user);
  LQT__TRY(put(&w, head, sizeof head));
  LQT__TRY(put_text(&w, entry->actor));
  LQT__TRY(put_text(&w, entry->reason));
  LQT__TRY(put_count(&w, entry->operation_count));
  for (size_t i = 0; i < entry->operation_count; i++) {
    LQT__TRY(put_operation(&w, &entry->operations[i]));
  }
  LQT__TRY(put_count(&w, entry->change_count));
  for (size_t i = 0; i < entry->change_count; i++) LQT__TRY(put_change(&w, &entry->changes[i]));
  return LQT_OK;
}

/* ---- Reading ---- */

typedef struct reader {
  lqt__record_codec *codec;
  lqt__record_source source;
  void *user;
  uint64_t left; /* bytes that may still be asked for */
  bool content;
  lqt_diag *diag;
} reader;

static lqt_status bad(reader *r, const char *what) {
  return lqt__fail(r->diag, LQT_BAD_JOURNAL, where, "an entry has %s", what);
}

static lqt_status take(reader *r, void *out, size_t bytes) {
  return r->source(r->user, out, bytes, r->diag);
}

static lqt_status charge(reader *r, uint64_t bytes) {
  if (bytes > r->left) {
    return lqt__fail(r->diag, LQT_LIMIT, where, "an entry has more than %llu bytes of content",
                     (unsigned long long)r->left);
  }
  r->left -= bytes;
  return LQT_OK;
}

static lqt_status take_text(reader *r, char **out) {
  uint8_t head[2];
  LQT__TRY(take(r, head, sizeof head));
  uint16_t length = lqt__load_u16(head, false);
  if (length == NO_TEXT) return LQT_OK;
  *out = lqt__alloc((size_t)length + 1);
  if (*out == NULL) return lqt__fail_memory(r->diag, where, length, "a text");
  (*out)[length] = '\0';
  LQT__TRY(take(r, *out, length));
  return memchr(*out, '\0', length) == NULL ? LQT_OK : bad(r, "a zero byte in a text");
}

/* Grows *data, which has *room, so that `need` bytes fit: by what is there, not by what a length
 * promises. */
static lqt_status grow(reader *r, uint8_t **data, uint64_t *room, uint64_t need, uint64_t total) {
  if (*room >= need) return LQT_OK;
  uint64_t want = *room * 2 > need ? *room * 2 : need;
  if (want > total) want = total;
  uint8_t *grown = want <= SIZE_MAX ? lqt__realloc(*data, (size_t)want) : NULL;
  if (grown == NULL) return lqt__fail_memory(r->diag, where, want, "an entry");
  *data = grown;
  *room = want;
  return LQT_OK;
}

static lqt_status take_bytes(reader *r, uint64_t bytes, uint8_t **out) {
  uint64_t room = 0;
  LQT__TRY(charge(r, bytes));
  for (uint64_t at = 0; at < bytes;) {
    uint64_t part = bytes - at < GROW ? bytes - at : (uint64_t)GROW;
    LQT__TRY(grow(r, out, &room, at + part, bytes));
    LQT__TRY(take(r, *out + at, (size_t)part));
    at += part;
  }
  return LQT_OK;
}

static lqt_status take_block(reader *r, uint8_t *out, uint32_t bytes, uint32_t stored) {
  lqt__record_codec *codec = r->codec;
  if (stored == bytes) return take(r, out, bytes);
  LQT__TRY(reserve_scratch(codec, stored, r->diag));
  LQT__TRY(take(r, codec->scratch, stored));
  if (codec->decompressor == NULL) codec->decompressor = ZSTD_createDCtx();
  if (codec->decompressor == NULL) return lqt__fail_memory(r->diag, where, 0, "a decompressor");
  size_t got = ZSTD_decompressDCtx(codec->decompressor, out, bytes, codec->scratch, stored);
  return got == bytes ? LQT_OK : bad(r, "a block that does not decompress");
}

static lqt_status take_blocks(reader *r, lqt__change *change) {
  uint64_t room = 0;
  LQT__TRY(charge(r, change->bytes));
  for (uint64_t at = 0; at < change->bytes;) {
    uint8_t head[8];
    LQT__TRY(take(r, head, sizeof head));
    uint32_t bytes = lqt__load_u32(head, false), stored = lqt__load_u32(head + 4, false);
    uint64_t rest = change->bytes - at;
    if (bytes != (rest < BLOCK ? rest : BLOCK) || stored > bytes) {
      return bad(r, "a block of the wrong size");
    }
    at += bytes;
    if (!r->content) {
      LQT__TRY(take(r, NULL, stored));
      continue;
    }
    LQT__TRY(grow(r, &change->data, &room, at, change->bytes));
    LQT__TRY(take_block(r, change->data + (at - bytes), bytes, stored));
  }
  return LQT_OK;
}

static lqt_status take_digest(reader *r, uint64_t *out_bytes, uint8_t out_sha256[32]) {
  uint8_t head[40];
  LQT__TRY(take(r, head, sizeof head));
  *out_bytes = lqt__load_u64(head, false);
  memcpy(out_sha256, head + 8, 32);
  return LQT_OK;
}

static lqt_status take_change(reader *r, lqt__change *change) {
  uint8_t head[8];
  LQT__TRY(take(r, head, sizeof head));
  uint8_t flags = head[1];
  if (head[0] < LQT__CHANGE_BYTES || head[0] > LQT__CHANGE_RECORD ||
      (flags & ~(HAS_OLD | HAS_NEW | BY_REFERENCE)) != 0 || (head[6] | head[7]) != 0) {
    return bad(r, "a change of an unknown kind");
  }
  change->kind = (lqt__change_kind)head[0];
  change->what = lqt__load_u16(head + 2, false);
  change->id = lqt__load_u16(head + 4, false);
  change->has_old = (flags & HAS_OLD) != 0;
  change->has_new = (flags & HAS_NEW) != 0;
  change->by_reference = (flags & BY_REFERENCE) != 0;
  LQT__TRY(take_text(r, &change->name));
  LQT__TRY(take(r, head, sizeof head));
  change->offset = lqt__load_u64(head, false);
  if (change->has_old) LQT__TRY(take_digest(r, &change->old_bytes, change->old_sha256));
  if (change->has_new && change->by_reference) {
    LQT__TRY(take_digest(r, &change->bytes, change->sha256));
  } else if (change->has_new) {
    LQT__TRY(take(r, head, sizeof head));
    change->bytes = lqt__load_u64(head, false);
    LQT__TRY(take_blocks(r, change));
  }
  if (change->kind == LQT__CHANGE_BYTES &&
      (!change->has_old || !change->has_new || change->bytes != change->old_bytes)) {
    return bad(r, "a change in place of another size");
  }
  return change->has_old || change->has_new ? LQT_OK : bad(r, "a change of nothing");
}

static lqt_status take_operation(reader *r, lqt__operation *operation) {
  uint8_t head[8];
  LQT__TRY(take(r, head, 4));
  operation->operation = head[0];
  operation->target_kind = head[1];
  operation->target_id = lqt__load_u16(head + 2, false);
  LQT__TRY(take_text(r, &operation->target));
  LQT__TRY(take(r, head, 8));
  operation->payload_bytes = lqt__load_u64(head, false);
  LQT__TRY(take_bytes(r, operation->payload_bytes, &operation->payload));
  LQT__TRY(take_text(r, &operation->file));
  return operation->file != NULL ? take(r, operation->file_sha256, 32) : LQT_OK;
}

/* The array with room for one more element, zeroed; NULL: no memory, and the array is as it was. */
static void *with_room(void *array, size_t count, size_t *room, size_t size) {
  if (count == *room) {
    size_t more = *room * 2 + 4;
    array = lqt__realloc(array, more * size);
    if (array == NULL) return NULL;
    *room = more;
  }
  memset((char *)array + count * size, 0, size);
  return array;
}

static lqt_status take_operations(reader *r, lqt__journal_entry *entry) {
  uint8_t head[4];
  size_t room = 0;
  LQT__TRY(take(r, head, sizeof head));
  for (uint32_t i = 0, count = lqt__load_u32(head, false); i < count; i++) {
    lqt__operation *array = with_room(entry->operations, i, &room, sizeof *array);
    if (array == NULL) return lqt__fail_memory(r->diag, where, 0, "an entry");
    entry->operations = array;
    entry->operation_count++;
    LQT__TRY(take_operation(r, &array[i]));
  }
  return LQT_OK;
}

static lqt_status take_changes(reader *r, lqt__journal_entry *entry) {
  uint8_t head[4];
  size_t room = 0;
  LQT__TRY(take(r, head, sizeof head));
  for (uint32_t i = 0, count = lqt__load_u32(head, false); i < count; i++) {
    lqt__change *array = with_room(entry->changes, i, &room, sizeof *array);
    if (array == NULL) return lqt__fail_memory(r->diag, where, 0, "an entry");
    entry->changes = array;
    entry->change_count++;
    LQT__TRY(take_change(r, &array[i]));
  }
  return LQT_OK;
}

static lqt_status take_entry(reader *r, lqt__journal_entry *out) {
  uint8_t head[50];
  LQT__TRY(take(r, head, sizeof head));
  if (lqt__load_u32(head, false) != VERSION) return bad(r, "an unknown version");
  out->flags = lqt__load_u32(head + 4, false);
  out->revision = lqt__load_u64(head + 8, false);
  out->timestamp_ns = lqt__load_u64(head + 16, false);
  out->reference = lqt__load_u64(head + 24, false);
  out->expires_ns = lqt__load_u64(head + 32, false);
  out->expires_steps = lqt__load_u64(head + 40, false);
  out->user = lqt__load_u16(head + 48, false);
  LQT__TRY(take_text(r, &out->actor));
  LQT__TRY(take_text(r, &out->reason));
  LQT__TRY(take_operations(r, out));
  return take_changes(r, out);
}

lqt_status lqt__record_read(lqt__record_codec *codec, lqt__record_source source, void *user,
                            uint64_t limit, bool content, lqt__journal_entry *out, lqt_diag *diag) {
  reader r = {codec, source, user, limit, content, diag};
  *out = (lqt__journal_entry){0};
  lqt_status status = take_entry(&r, out);
  if (status != LQT_OK) lqt__entry_free(out);
  return status;
}
