#include "turn.h"

#include <stdlib.h>
#include <string.h>

#include "format/bytes.h"
#include "format/format.h"
#include "format/layout.h"
#include "support/seal.h"

static void turn(uint8_t *p, size_t size, uint64_t count) {
  for (uint64_t i = 0; i < count; i++, p += size) {
    for (size_t a = 0, b = size - 1; a < b; a++, b--) {
      uint8_t held = p[a];
      p[a] = p[b];
      p[b] = held;
    }
  }
}

/* A `str`; returns what follows it. */
static uint8_t *turn_text(uint8_t *p) {
  uint32_t length = lqt__load_u16(p, false);
  turn(p, 2, 1);
  return p + ((2 + length + 3) & ~3u);
}

static void turn_hyperparameters(uint8_t *p, const uint8_t *end) {
  while (p < end) {
    p = turn_text(p);
    turn(p, 4, 1);
    p += 4;
  }
}

static void turn_tensors(uint8_t *p, const uint8_t *end) {
  while (p < end) {
    uint8_t *begin = p;
    p = turn_text(p);
    uint8_t type = p[0], ndim = p[2];
    turn(p + 3, 4, ndim);
    p += 3 + 4 * ndim;
    turn(p, 2, 3);
    turn(p + 6, 4, 2);
    turn(p + 14, 2, 1);
    p += 16;
    if (type == 1) {
      turn(p, 4, 2);
      p += 10;
    }
    p += (0 - (p - begin)) & 3;
  }
}

static void turn_layout(uint8_t *p, const uint8_t *end) {
  for (; p < end; p += LQT__QUANT_RECORD) {
    turn(p + 4, 4, 4);
    turn(p + 20, 2, 2);
    turn(p + 24, 4, 2);
    turn(p + 32, 8, 8);
  }
}

static void turn_chunk(uint16_t type, uint8_t *p, uint32_t bytes) {
  const uint8_t *end = p + bytes;
  switch (type) {
    case LQT__CHUNK_HYPERPARAMETERS:
      turn_hyperparameters(p, end);
      break;
    case LQT__CHUNK_TENSORS:
      turn_tensors(p, end);
      break;
    case LQT__CHUNK_QUANT_LAYOUT:
      turn_layout(p, end);
      break;
    case LQT__CHUNK_CODEBOOKS:
    case LQT__CHUNK_DELTAS:
    case LQT__CHUNK_MASKS:
      for (; p < end; p += 18) {
        turn(p, 2, 1);
        turn(p + 2, 8, 2);
      }
      break;
    case LQT__CHUNK_VOCABULARY:
      turn(p, 2, 2);
      turn(p + 4, 4, 3);
      turn(p + 16, 8, 1);
      break;
    case LQT__CHUNK_DIGESTS: {
      uint32_t sections = lqt__load_u32(p + 4, false);
      turn(p, 4, 2);
      turn(p + 8, 8, 2);
      for (uint32_t i = 0; i < sections; i++) turn(p + 24 + 48 * i, 8, 2);
      break;
    }
    default:
      break;
  }
}

/* The head of a delta: id, u24 count, long count. */
static void turn_delta_head(uint8_t *p) {
  turn(p, 2, 1);
  turn(p + 3, 3, 1);
  turn(p + 8, 8, 1);
}

static void turn_delta(uint8_t *p, const lqt__delta *d, uint64_t rows, uint64_t cols) {
  size_t size = d->dtype == LQT_DTYPE_F16 ? 2 : 4;
  uint8_t *data = p + 64;
  uint64_t rest = d->blob.bytes - 64;
  turn_delta_head(p);
  switch (d->encoding) {
    case LQT__DELTA_CSR:
      turn(data, 4, rows + 1);
      data += 4 * (rows + 1);
      turn(data, cols > 65536 ? 4 : 2, d->count);
      data += ((cols > 65536 ? 4 : 2) * d->count + 3) & ~(uint64_t)3;
      turn(data, size, d->count);
      break;
    case LQT__DELTA_COO:
      turn(data, 4, 2 * d->count);
      turn(data + 8 * d->count, size, d->count);
      break;
    case LQT__DELTA_DENSE:
      turn(data, size, rest / size);
      break;
    default: /* the sample's parts have no padding between them */
      turn(data, 4, 2);
      turn(data + 8, size, (rest - 8) / size);
  }
}

static void turn_mask(uint8_t *p, const lqt__mask *m) {
  uint8_t *data = p + 64;
  turn(p, 2, 1);
  turn(p + 4, 4, 1);
  turn(p + 8, 8, 1);
  if (m->encoding == LQT__MASK_RUN_LENGTH || m->encoding == LQT__MASK_COORDINATES) {
    turn(data, 8, 1);
    turn(data + 8, 4, (m->blob.bytes - 72) / 4);
  } else if (m->encoding != LQT__MASK_BITMAP) {
    turn(data, 4, 2);
  }
}

static void turn_section(uint8_t *data, const lqt__file *file, const lqt__section *s) {
  uint8_t *p = data + s->offset;
  const lqt__tensor *t = &file->tensors[s->index];
  switch (s->kind) {
    case LQT__SECTION_CODEBOOK: {
      const lqt__codebook *c = &file->codebooks[s->index];
      size_t size = c->dtype == LQT_DTYPE_F16 ? 2 : 4;
      turn(p, 2, 3);
      turn(p + 8, 4, 1);
      turn(p + 64, size, (s->bytes - 64) / size);
      break;
    }
    case LQT__SECTION_TENSOR:
      turn(p, 2, 3);
      if (t->type == 0 && t->dtype != LQT_DTYPE_CODEBOOK) {
        size_t size = lqt_dtype_size((lqt_dtype)t->dtype);
        turn(p + 64, size, (s->bytes - 64) / size);
      }
      break;
    case LQT__SECTION_GROUP_SCALES:
    case LQT__SECTION_ZERO_POINTS:
      turn(p, 2, s->bytes / 2);
      break;
    case LQT__SECTION_DELTA:
      for (size_t i = 0; i < file->tensor_count; i++) {
        const lqt__delta *d = &file->deltas[s->index];
        if (file->tensors[i].delta_id != d->id) continue;
        turn_delta(p, d, file->tensors[i].rows, file->tensors[i].cols);
        break;
      }
      break;
    case LQT__SECTION_MASK:
      turn_mask(p, &file->masks[s->index]);
      break;
    default:
      break;
  }
}

void turn_big_endian(uint8_t *data, size_t bytes) {
  lqt__file file;
  if (lqt__file_parse(data, bytes, "turn", false, &file, NULL) != LQT_OK) abort();
  for (size_t i = 0; i < file.section_count; i++) turn_section(data, &file, &file.sections[i]);
  uint8_t *p = data + file.metadata_offset, *end = p + file.metadata_bytes;
  while (p < end) {
    uint16_t type = lqt__load_u16(p, false);
    uint32_t length = lqt__load_u32(p + 2, false);
    turn(p, 2, 1);
    turn(p + 2, 4, 1);
    turn_chunk(type, p + 6, length);
    p += (6 + length + 3) & ~3u;
  }
  uint8_t *extension = data + file.extension_offset, *footer = data + file.footer_offset;
  turn(extension, 4, 2);
  turn(extension + 8, 8, 1);
  turn(extension + 48, 8, 2);
  turn(footer, 4, 2);
  turn(footer + 8, 8, 2);
  turn(footer + 24, 4, 2);
  turn(footer + 32, 8, 2);
  data[LQT__AT_FLAGS] |= LQT__FLAG_BIG_ENDIAN;
  turn(data, 4, 1);
  turn(data + 4, 2, 2);
  turn(data + 8, 4, 1);
  turn(data + 12, 8, 4);
  lqt__file_free(&file);
  test_seal(data, bytes);
}
