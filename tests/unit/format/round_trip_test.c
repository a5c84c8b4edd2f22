#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/half.h"
#include "format/layout.h"
#include "lqt/model.h"
#include "sample.h"
#include "turn.h"

static char folder[] = "/tmp/lqt-format-test-XXXXXX";
static char path[256];

static void make_folder(void) {
  cr_assert_not_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/file.lqt", folder);
}

static void remove_folder(void) {
  unlink(path);
  rmdir(folder);
}

TestSuite(round_trip, .init = make_folder, .fini = remove_folder);

static uint8_t *write_file(const lqt__file *file, size_t *out_bytes) {
  lqt_diag diag = {0};
  uint8_t *data = sample_write(file, path, out_bytes, &diag);
  cr_assert_not_null(data, "%s: %s", lqt_status_name(diag.status), diag.what);
  return data;
}

/* Everything that was given comes back: descriptors, blobs, chunks, log. */
Test(round_trip, what_is_written_is_read) {
  sample s;
  cr_assert(sample_make(&s, SAMPLE_SEED));
  size_t bytes;
  uint8_t *data = write_file(&s.file, &bytes);
  lqt__file read;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__file_parse(data, bytes, "sample", false, &read, &diag), LQT_OK, "%s",
               diag.what);
  cr_assert_eq(read.tensor_count, SAMPLE_TENSORS);
  for (size_t i = 0; i < read.tensor_count; i++) {
    const lqt__tensor *a = &s.file.tensors[i], *b = &read.tensors[i];
    cr_assert_str_eq(a->name, b->name);
    cr_assert_eq(a->dtype, b->dtype);
    cr_assert_arr_eq(a->shape, b->shape, sizeof a->shape);
    cr_assert_eq(a->scale, b->scale);
    cr_assert_eq(a->zero_point, b->zero_point);
    cr_assert_eq(a->flags, b->flags);
    cr_assert_eq(a->index_bits, b->index_bits);
    cr_assert_eq(a->scope, b->scope);
    const lqt__blob *blobs[2][4] = {
        {&a->payload, &a->group_scales, &a->zero_points, &a->residual_indices},
        {&b->payload, &b->group_scales, &b->zero_points, &b->residual_indices}};
    for (int k = 0; k < 4; k++) {
      cr_assert_eq(blobs[0][k]->bytes, blobs[1][k]->bytes, "%s blob %d", a->name, k);
      if (blobs[0][k]->bytes == 0) continue;
      cr_assert_eq(blobs[1][k]->offset % 64, 0);
      cr_assert_arr_eq(blobs[0][k]->data, blobs[1][k]->data, blobs[0][k]->bytes);
    }
  }
  cr_assert_eq(read.codebook_count, s.file.codebook_count);
  for (size_t i = 0; i < read.codebook_count; i++) {
    const lqt__codebook *a = &s.file.codebooks[i], *b = &read.codebooks[i];
    cr_assert_eq(a->vectors, b->vectors);
    cr_assert_eq(a->capacity, b->capacity);
    cr_assert_arr_eq(a->blob.data, b->blob.data, a->blob.bytes);
  }
  cr_assert_eq(read.chunk_count, s.file.chunk_count);
  for (size_t i = 0; i < read.chunk_count; i++) {
    cr_assert_eq(read.chunks[i].type, s.file.chunks[i].type);
    cr_assert_eq(read.chunks[i].bytes, s.file.chunks[i].bytes);
    cr_assert_arr_eq(read.chunks[i].data, s.file.chunks[i].data, read.chunks[i].bytes);
  }
  cr_assert_eq(read.edit_log.bytes, s.file.edit_log.bytes);
  cr_assert_arr_eq(read.edit_log.data, s.file.edit_log.data, read.edit_log.bytes);
  cr_assert_eq(read.edit_count, 2);
  cr_assert_eq(lqt__file_verify(&read, "sample", NULL, NULL, NULL, NULL, &diag), LQT_OK, "%s",
               diag.what);
  lqt__file_free(&read);
  lqt__free(data);
  sample_free(&s);
}

/* A parsed file is written back byte for byte, unknown chunks and log included. */
Test(round_trip, a_rewrite_is_identical) {
  sample s;
  cr_assert(sample_make(&s, SAMPLE_SEED));
  size_t bytes, again_bytes;
  uint8_t *data = write_file(&s.file, &bytes);
  lqt__file read;
  cr_assert_eq(lqt__file_parse(data, bytes, "sample", false, &read, NULL), LQT_OK);
  uint8_t *again = write_file(&read, &again_bytes);
  cr_assert_eq(bytes, again_bytes);
  cr_assert_arr_eq(data, again, bytes);
  lqt__free(again);
  lqt__file_free(&read);
  lqt__free(data);
  sample_free(&s);
}

/* What an editor does: one codebook's bytes replaced, everything else from the map. */
Test(round_trip, a_replaced_codebook_is_the_only_change) {
  sample s;
  cr_assert(sample_make(&s, SAMPLE_SEED));
  size_t bytes, edited_bytes;
  uint8_t *data = write_file(&s.file, &bytes);
  lqt__file read;
  cr_assert_eq(lqt__file_parse(data, bytes, "sample", false, &read, NULL), LQT_OK);
  lqt__file edited = read;
  lqt__codebook books[16];
  memcpy(books, read.codebooks, read.codebook_count * sizeof books[0]);
  edited.codebooks = books;
  uint8_t *copy = lqt__alloc(books[1].blob.bytes);
  memcpy(copy, books[1].blob.data, books[1].blob.bytes);
  copy[books[1].header_bytes] ^= 0x01;
  books[1].blob.data = copy;
  uint64_t at = read.codebooks[1].blob.offset + read.codebooks[1].header_bytes;
  uint8_t *after = write_file(&edited, &edited_bytes);
  cr_assert_eq(bytes, edited_bytes);
  for (uint64_t i = read.sections[0].offset; i < read.extension_offset; i++) {
    cr_assert_eq(data[i] ^ after[i], i == at ? 1 : 0, "byte %llu", (unsigned long long)i);
  }
  lqt__file reread;
  cr_assert_eq(lqt__file_parse(after, edited_bytes, "sample", false, &reread, NULL), LQT_OK);
  cr_assert_eq(lqt__file_verify(&reread, "sample", NULL, NULL, NULL, NULL, NULL), LQT_OK);
  lqt__file_free(&reread);
  lqt__free(after);
  lqt__free(copy);
  lqt__file_free(&read);
  lqt__free(data);
  sample_free(&s);
}

/* Blobs that are put in pieces give the same file as blobs in memory. */
Test(round_trip, blobs_that_are_put_later) {
  sample s;
  cr_assert(sample_make(&s, SAMPLE_SEED));
  size_t bytes, put_bytes;
  uint8_t *data = write_file(&s.file, &bytes);
  lqt__tensor *q = &s.file.tensors[SAMPLE_Q];
  lqt__codebook *book = &s.file.codebooks[0];
  const uint8_t *payload = q->payload.data, *section = book->blob.data;
  q->payload.data = NULL;
  book->blob.data = NULL;
  lqt__writer *writer;
  cr_assert_eq(lqt__writer_begin(path, &s.file, &writer, NULL), LQT_OK);
  lqt_diag diag = {0};
  for (uint64_t at = q->payload.bytes; at > 0;) {
    uint64_t part = at < 100 ? at : 100;
    at -= part;
    cr_assert_eq(lqt__writer_put(writer, &q->payload, at, payload + at, part, &diag), LQT_OK);
  }
  cr_assert_eq(lqt__writer_put(writer, &q->payload, q->payload.bytes, payload, 1, &diag),
               LQT_INVALID_ARGUMENT);
  cr_assert_eq(lqt__writer_put(writer, &book->blob, 0, section, book->blob.bytes, &diag), LQT_OK);
  cr_assert_eq(lqt__writer_finish(writer, NULL, &diag), LQT_OK, "%s", diag.what);
  char *put;
  cr_assert_eq(lqt__file_read(path, 1 << 30, &put, &put_bytes, NULL), LQT_OK);
  cr_assert_eq(bytes, put_bytes);
  cr_assert_arr_eq(data, put, bytes);
  lqt__free(put);
  /* A blob that was not put is an error, and the file stays as it was. */
  cr_assert_eq(lqt__writer_begin(path, &s.file, &writer, NULL), LQT_OK);
  cr_assert_eq(lqt__writer_finish(writer, NULL, &diag), LQT_INVALID_ARGUMENT);
  cr_assert_eq(lqt__file_read(path, 1 << 30, &put, &put_bytes, NULL), LQT_OK);
  cr_assert_arr_eq(data, put, bytes);
  lqt__free(put);
  lqt__free(data);
  sample_free(&s);
}

Test(round_trip, the_model_validates) {
  sample s;
  cr_assert(sample_make(&s, SAMPLE_SEED));
  size_t bytes;
  uint8_t *data = write_file(&s.file, &bytes);
  lqt_model *model;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_model_open(path, NULL, &model, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_model_validate(model, NULL, NULL, NULL, &diag), LQT_OK, "%s", diag.what);
  lqt_model_info info;
  lqt_model_get_info(model, &info);
  cr_assert_eq(info.modules, 9);
  cr_assert_eq(info.context, 64);
  cr_assert_eq(info.vocab_size, SAMPLE_VOCAB);
  lqt_model_release(model);
  lqt__free(data);
  sample_free(&s);
}

/* A big-endian file reads as the little-endian one it was made from, and is written as that. */
Test(round_trip, big_endian_files_are_read) {
  sample s;
  cr_assert(sample_make(&s, SAMPLE_SEED));
  size_t bytes, again_bytes;
  uint8_t *little = write_file(&s.file, &bytes);
  uint8_t *big = lqt__alloc(bytes);
  memcpy(big, little, bytes);
  turn_big_endian(big, bytes);
  cr_assert_arr_eq(big, "LQT1", 4);
  lqt__file read;
  lqt_diag diag = {0};
  cr_assert_eq(lqt__file_parse(big, bytes, "big", false, &read, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt__file_verify(&read, "big", NULL, NULL, NULL, NULL, &diag), LQT_OK, "%s",
               diag.what);
  uint8_t *again = write_file(&read, &again_bytes);
  cr_assert_eq(bytes, again_bytes);
  cr_assert_arr_eq(little, again, bytes);
  lqt__free(again);
  lqt__file_free(&read);
  lqt_model *model;
  cr_assert_eq(lqt_model_open_memory(big, bytes, NULL, &model, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(lqt_model_validate(model, NULL, NULL, NULL, &diag), LQT_OK, "%s", diag.what);
  lqt_model_release(model);
  lqt__free(big);
  lqt__free(little);
  sample_free(&s);
}
