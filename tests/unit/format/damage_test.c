/* Damage that happens to a file: every flipped bit is found, and what is whole can still be used.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "format/bytes.h"
#include "format/layout.h"
#include "lqt/model.h"
#include "sample.h"
#include "support/seal.h"

static char folder[] = "/tmp/lqt-damage-test-XXXXXX";
static char path[256];
static uint8_t *data;
static size_t bytes;

static void write_sample(void) {
  sample s;
  cr_assert_not_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/file.lqt", folder);
  cr_assert(sample_make(&s, SAMPLE_SEED));
  data = sample_write(&s.file, path, &bytes, NULL);
  cr_assert_not_null(data);
  sample_free(&s);
}

static void remove_sample(void) {
  lqt__free(data);
  unlink(path);
  rmdir(folder);
}

TestSuite(damage, .init = write_sample, .fini = remove_sample);

static lqt_status validate(void) {
  lqt_model *model;
  lqt_status status = lqt_model_open_memory(data, bytes, NULL, &model, NULL);
  if (status != LQT_OK) return status;
  const lqt_validate_options options = {.size = sizeof options, .no_consistency = true};
  status = lqt_model_validate(model, &options, NULL, NULL, NULL);
  lqt_model_release(model);
  return status;
}

Test(damage, a_hundred_thousand_flipped_bits) {
  lqt__random random = lqt__random_seed(7);
  cr_assert_eq(validate(), LQT_OK);
  for (int i = 0; i < 100000; i++) {
    uint64_t bit = lqt__random_below(&random, (uint32_t)bytes * 8);
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    cr_assert_neq(validate(), LQT_OK, "bit %llu", (unsigned long long)bit);
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
  cr_assert_eq(validate(), LQT_OK);
}

/* Each section damaged in turn: a partial open names it, and all other tensors are readable. */
Test(damage, a_partial_open_leaves_out_what_is_damaged) {
  lqt__file file;
  cr_assert_eq(lqt__file_parse(data, bytes, "sample", false, &file, NULL), LQT_OK);
  const lqt_model_options partial = {.size = sizeof partial, .partial = true};
  const lqt_model_options verify = {.size = sizeof verify, .verify = true};
  for (size_t i = 0; i < file.section_count; i++) {
    const lqt__section *section = &file.sections[i];
    data[section->offset + section->bytes - 1] ^= 0x80;
    lqt_model *model;
    lqt_diag diag = {0};
    cr_assert_eq(lqt_model_open_memory(data, bytes, &verify, &model, &diag), LQT_CHECKSUM);
    cr_assert_null(model);
    cr_assert_eq(lqt_model_open_memory(data, bytes, &partial, &model, &diag), LQT_OK, "%s",
                 diag.what);
    cr_assert_eq(lqt_model_missing_count(model), 1);
    lqt_section_info info;
    cr_assert_eq(lqt_model_missing(model, 0, &info), LQT_OK);
    cr_assert_eq(info.offset, section->offset);
    int lost = 0;
    for (size_t t = 0; t < SAMPLE_RECURSIVE; t++) {
      lqt_weight_desc desc;
      lqt_status status = lqt_model_weight(model, t, &desc, &diag);
      cr_assert(status == LQT_OK || status == LQT_NOT_FOUND, "%s", diag.what);
      lost += status == LQT_NOT_FOUND;
    }
    bool in_use = section->kind != LQT__SECTION_EDIT_LOG &&
                  !(section->kind == LQT__SECTION_TENSOR && section->index == SAMPLE_RECURSIVE);
    cr_assert_eq(lost, in_use ? 1 : 0, "section %s", info.name);
    lqt_model_release(model);
    data[section->offset + section->bytes - 1] ^= 0x80;
  }
  lqt__file_free(&file);
}

static long resident_kib(void) {
  long pages = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  cr_assert_not_null(file);
  cr_assert_eq(fscanf(file, "%ld %ld", &pages, &resident), 2);
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* A file of 4 GiB (a hole where its elements are) opens without being read. */
Test(damage, a_large_file_opens_by_its_metadata) {
  float four[4] = {1, 2, 3, 4};
  lqt__tensor tensor = {.name = (char[]){"big"},
                        .ndim = 2,
                        .shape = {1, 4},
                        .codebook_id = LQT_ID_NONE,
                        .delta_id = LQT_ID_NONE,
                        .mask_id = LQT_ID_NONE,
                        .residual_codebook_id = LQT_ID_NONE,
                        .outlier_delta_id = LQT_ID_NONE,
                        .scale = 1,
                        .payload = {.data = (const uint8_t *)four, .bytes = sizeof four}};
  lqt__file small = {.timestamp_ns = 1, .tensors = &tensor, .tensor_count = 1};
  size_t size;
  uint8_t *image = sample_write(&small, path, &size, NULL);
  cr_assert_not_null(image);
  /* 32768 x 32768 of f32 in the place of 1 x 4; the digests, which are not of this, renamed. */
  uint64_t extra = ((uint64_t)4 << 30) - 64, tail = 128, front = size - tail;
  uint8_t *chunk = image + 64;
  lqt__store_u32(chunk + 6 + 8 + 3, 32768);
  lqt__store_u32(chunk + 6 + 8 + 7, 32768);
  uint8_t *layout = chunk + 6 + ((lqt__load_u32(chunk + 2, false) + 6 + 3) & ~3u);
  lqt__store_u64(layout + LQT__QUANT_AT_PAYLOAD + 8, 64 + ((uint64_t)4 << 30));
  uint8_t *digests = layout + 96 + 2;
  cr_assert_eq(lqt__load_u16(digests, false), LQT__CHUNK_DIGESTS);
  lqt__store_u16(digests, 0x4242);
  test_seal(image, size);
  lqt__store_u64(image + LQT__AT_FOOTER, size - 64 + extra);
  lqt__store_u64(image + size - 64 + LQT__FOOTER_AT_EXTENSION, front + extra);
  FILE *out = fopen(path, "wb");
  cr_assert_not_null(out);
  cr_assert_eq(fwrite(image, 1, front, out), front);
  cr_assert_eq(fseek(out, (long)(front + extra), SEEK_SET), 0);
  cr_assert_eq(fwrite(image + front, 1, tail, out), tail);
  fclose(out);
  long before = resident_kib();
  lqt_model *model;
  lqt_diag diag = {0};
  cr_assert_eq(lqt_model_open(path, NULL, &model, &diag), LQT_OK, "%s", diag.what);
  lqt_weight_desc desc;
  cr_assert_eq(lqt_model_weight(model, 0, &desc, &diag), LQT_OK, "%s", diag.what);
  cr_assert_eq(desc.rows, 32768);
  cr_assert_lt(resident_kib() - before, 8 * 1024);
  lqt_model_release(model);
  lqt__free(image);
}
