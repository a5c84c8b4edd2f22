#include <inttypes.h>
#include <string.h>
#include <zstd.h>

#include "base/diag.h"
#include "base/half.h"
#include "base/json.h"
#include "import/source.h"

/* Elements converted at a time: small enough to stay in the first-level cache. */
enum { CHUNK = 1024 };

static void widen(const uint8_t *data, lqt_dtype dtype, size_t count, float *out) {
  uint16_t half[CHUNK];
  if (dtype == LQT_DTYPE_F32) {
    memcpy(out, data, count * sizeof(float));
    return;
  }
  memcpy(half, data, count * sizeof(uint16_t));
  if (dtype == LQT_DTYPE_BF16) {
    for (size_t i = 0; i < count; i++) out[i] = lqt__f32_from_bf16(half[i]);
  } else {
    for (size_t i = 0; i < count; i++) out[i] = lqt__f32_from_f16(half[i]);
  }
}

/* All exponent bits set in any element? */
static bool all_finite(const float *values, size_t count) {
  uint32_t bad = 0;
  for (size_t i = 0; i < count; i++) {
    bad |= (uint32_t)((lqt__f32_bits(values[i]) & 0x7f800000u) == 0x7f800000u);
  }
  return bad == 0;
}

lqt_status lqt__source_read(const lqt__source_view *view, uint64_t first, uint64_t total,
                            float *out, lqt_diag *diag) {
  size_t size = lqt_dtype_size(view->dtype);
  for (uint64_t at = 0; at < total; at += CHUNK) {
    size_t n = total - at < CHUNK ? (size_t)(total - at) : CHUNK;
    widen(view->data + (first + at) * size, view->dtype, n, out + at);
    if (all_finite(out + at, n)) continue;
    size_t bad = 0;
    while (isfinite(out[at + bad])) bad++;
    uint64_t element = first + at + bad;
    return lqt__fail(diag, LQT_NOT_FINITE, view->name,
                     "the weight at row %" PRIu64 ", column %" PRIu64
                     " is not a finite number; repair the source model",
                     element / view->cols, element % view->cols);
  }
  return LQT_OK;
}

void lqt__source_drop(const lqt__source_view *view, uint64_t row, uint64_t count) {
  size_t bytes = lqt_dtype_size(view->dtype) * (size_t)view->cols;
  size_t offset = (size_t)(view->data - view->map->data) + (size_t)row * bytes;
  lqt__map_advise(view->map, offset, (size_t)count * bytes, LQT__ADVICE_DROP);
}

static void put_u32(uint8_t *out, uint32_t value) {
  for (int i = 0; i < 4; i++) out[i] = (uint8_t)(value >> (8 * i));
}

enum { VOCABULARY_HEADER = 24, VOCABULARY_KIND_TOKENIZER_JSON = 1, ZSTD_LEVEL = 19 };

lqt_status lqt__source_vocabulary(const lqt__source *source, uint8_t **out_data, size_t *out_bytes,
                                  lqt_diag *diag) {
  *out_data = NULL;
  *out_bytes = 0;
  json_t *root;
  LQT__TRY(
      lqt__json_parse(source->tokenizer, source->tokenizer_bytes, "tokenizer.json", &root, diag));
  bool model = json_is_object(json_object_get(root, "model"));
  json_decref(root);
  if (!model) {
    return lqt__fail(diag, LQT_BAD_SOURCE, "tokenizer.json", "the object \"model\" is missing");
  }
  size_t bound = ZSTD_compressBound(source->tokenizer_bytes);
  uint8_t *data = lqt__alloc_zero(VOCABULARY_HEADER + bound);
  if (data == NULL) return lqt__fail_memory(diag, "tokenizer.json", bound, "the vocabulary");
  size_t packed = ZSTD_compress(data + VOCABULARY_HEADER, bound, source->tokenizer,
                                source->tokenizer_bytes, ZSTD_LEVEL);
  if (ZSTD_isError(packed) || packed > UINT32_MAX - VOCABULARY_HEADER) {
    lqt__free(data);
    return ZSTD_isError(packed)
               ? lqt__fail_memory(diag, "tokenizer.json", bound, "the compressed vocabulary")
               : lqt__fail(diag, LQT_LIMIT, "tokenizer.json", "the vocabulary is over 4 GiB");
  }
  data[0] = VOCABULARY_KIND_TOKENIZER_JSON;
  put_u32(data + 4, source->llama.vocab);
  put_u32(data + 8, (uint32_t)source->llama.bos);
  put_u32(data + 12, (uint32_t)source->llama.eos);
  put_u32(data + 16, (uint32_t)source->tokenizer_bytes);
  put_u32(data + 20, (uint32_t)((uint64_t)source->tokenizer_bytes >> 32));
  *out_data = data;
  *out_bytes = VOCABULARY_HEADER + packed;
  return LQT_OK;
}
