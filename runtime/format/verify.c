/* Every byte against the checksum and the digests. */
#include <string.h>

#include "base/diag.h"
#include "base/hash.h"
#include "format/bytes.h"
#include "format/check.h"
#include "format/layout.h"

typedef unsigned long long ull;

typedef struct verifier {
  const lqt__file *file;
  const char *where;
  lqt__finding_fn report;
  void *user;
  lqt_progress_fn progress;
  void *progress_user;
  uint64_t done, total;
  lqt_status first;
  lqt_diag *diag;
} verifier;

static const uint8_t *section_digest(const lqt__file *file, size_t index) {
  return file->data + file->digests.offset + LQT__DIGESTS_HEAD + index * LQT__DIGESTS_RECORD + 16;
}

lqt_status lqt__section_verify(const lqt__file *file, size_t index, const char *where,
                               lqt_diag *diag) {
  if (file->digests.bytes == 0) return LQT_OK;
  const lqt__section *section = &file->sections[index];
  uint8_t digest[32];
  lqt_status status = lqt__sha256(file->data + section->offset, section->bytes, digest);
  if (status != LQT_OK) return lqt__fail_memory(diag, where, 0, "a digest");
  if (memcmp(digest, section_digest(file, index), 32) == 0) return LQT_OK;
  char name[256];
  lqt__section_name(file, section, name, sizeof name);
  return lqt__fail_at(diag, LQT_CHECKSUM, where, section->offset,
                      "%s (%llu bytes) does not have its SHA-256: it was damaged; get the file "
                      "again, or open it without this part",
                      name, (ull)section->bytes);
}

/* Takes a finding; the first goes to the caller's diag. */
static void found(verifier *v, const lqt_diag *finding) {
  if (v->first == LQT_OK) {
    v->first = finding->status;
    if (v->diag != NULL) *v->diag = *finding;
  }
  if (v->report != NULL) v->report(v->user, finding);
}

/* False when the caller cancels. */
static bool advance(verifier *v, uint64_t bytes) {
  v->done += bytes;
  return v->progress == NULL || v->progress(v->progress_user, "verify", "bytes", v->done, v->total);
}

static lqt_status verify_crc(verifier *v) {
  const lqt__file *file = v->file;
  const uint64_t field = file->footer_offset + LQT__FOOTER_AT_CRC, step = (uint64_t)16 << 20;
  uint32_t crc = 0;
  for (uint64_t at = 0; at < field; at += step) {
    uint64_t part = field - at < step ? field - at : step;
    crc = lqt__crc32(crc, file->data + at, part);
    if (!advance(v, part)) return LQT_CANCELLED;
  }
  static const uint8_t zeros[4];
  crc = lqt__crc32(crc, zeros, sizeof zeros);
  crc = lqt__crc32(crc, file->data + field + 4, file->bytes - field - 4);
  if (crc == file->crc) return LQT_OK;
  lqt_diag finding = {0};
  (void)lqt__fail_at(&finding, LQT_CHECKSUM, v->where, field,
                     "the file's CRC-32 is %08x and its footer says %08x: it was damaged; get it "
                     "again",
                     crc, file->crc);
  found(v, &finding);
  return LQT_OK;
}

static lqt_status verify_sections(verifier *v) {
  for (size_t i = 0; i < v->file->section_count; i++) {
    lqt_diag finding = {0};
    lqt_status status = lqt__section_verify(v->file, i, v->where, &finding);
    if (status == LQT_OUT_OF_MEMORY) return lqt__fail_memory(v->diag, v->where, 0, "a digest");
    if (status != LQT_OK) found(v, &finding);
    if (!advance(v, v->file->sections[i].bytes)) return LQT_CANCELLED;
  }
  return LQT_OK;
}

static lqt_status verify_pieces(verifier *v) {
  const lqt__file *file = v->file;
  const uint8_t *head = file->data + file->digests.offset;
  uint64_t begin = lqt__load_u64(head + LQT__DIGESTS_AT_BEGIN, file->big_endian);
  const uint8_t *want = head + LQT__DIGESTS_HEAD + file->section_count * LQT__DIGESTS_RECORD;
  for (uint64_t at = begin; at < file->extension_offset; want += 32) {
    uint64_t part = file->extension_offset - at, step = (uint64_t)1 << LQT__PIECE_LOG2;
    if (part > step) part = step;
    uint8_t digest[32];
    if (lqt__sha256(file->data + at, part, digest) != LQT_OK) {
      return lqt__fail_memory(v->diag, v->where, 0, "a digest");
    }
    if (memcmp(digest, want, 32) != 0) {
      lqt_diag finding = {0};
      (void)lqt__fail_at(&finding, LQT_CHECKSUM, v->where, at,
                         "the %llu bytes from %llu on do not have their SHA-256: they were damaged",
                         (ull)part, (ull)at);
      found(v, &finding);
    }
    if (!advance(v, part)) return LQT_CANCELLED;
    at += part;
  }
  return LQT_OK;
}

static void verify_gap(verifier *v, uint64_t begin, uint64_t end) {
  if (lqt__all_zero(v->file->data + begin, end - begin)) return;
  lqt_diag finding = {0};
  (void)lqt__fail_at(&finding, LQT_BAD_LAYOUT, v->where, begin,
                     "the %llu bytes of padding from %llu on are not zero", (ull)(end - begin),
                     (ull)begin);
  found(v, &finding);
}

/* Padding is zero, and every tensor's section begins with the ids that its descriptor has. */
static void verify_framing(verifier *v) {
  const lqt__file *file = v->file;
  uint64_t end = file->metadata_offset + file->metadata_bytes;
  for (size_t i = 0; i < file->section_count; i++) {
    const lqt__section *s = &file->sections[i];
    verify_gap(v, end, s->offset);
    end = s->offset + s->bytes;
    if (s->kind != LQT__SECTION_TENSOR) continue;
    const lqt__tensor *t = &file->tensors[s->index];
    const uint8_t *ids = file->data + s->offset;
    if (lqt__load_u16(ids, file->big_endian) != t->codebook_id ||
        lqt__load_u16(ids + 2, file->big_endian) != t->delta_id ||
        lqt__load_u16(ids + 4, file->big_endian) != t->mask_id ||
        !lqt__all_zero(ids + LQT__TENSOR_IDS, s->bytes - t->payload.bytes - LQT__TENSOR_IDS)) {
      lqt_diag finding = {0};
      (void)lqt__fail_at(&finding, LQT_BAD_TENSOR, v->where, s->offset,
                         "the section of tensor %s does not begin with its ids", t->name);
      found(v, &finding);
    }
  }
  verify_gap(v, end, file->extension_offset);
  verify_gap(v, file->extension_offset + LQT__EXTENSION_BYTES, file->footer_offset);
}

lqt_status lqt__file_verify(const lqt__file *file, const char *where, lqt__finding_fn report,
                            void *user, lqt_progress_fn progress, void *progress_user,
                            lqt_diag *diag) {
  verifier v = {.file = file,
                .where = where,
                .report = report,
                .user = user,
                .progress = progress,
                .progress_user = progress_user,
                .total = file->bytes,
                .diag = diag};
  if (file->digests.bytes != 0) v.total += 2 * (file->extension_offset - file->metadata_offset);
  verify_framing(&v);
  lqt_status status = LQT_OK;
  if (file->digests.bytes != 0) {
    status = verify_sections(&v);
    if (status == LQT_OK) status = verify_pieces(&v);
  }
  if (status == LQT_OK) status = verify_crc(&v);
  if (status == LQT_CANCELLED) return lqt__fail(diag, status, where, "the check was cancelled");
  return status != LQT_OK ? status : v.first;
}
