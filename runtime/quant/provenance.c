#include "quant/provenance.h"

#include <inttypes.h>

#include "base/diag.h"
#include "base/hash.h"
#include "base/text.h"

static void add_digest(lqt__text *text, const char *name, uint64_t bytes,
                       const uint8_t digest[32]) {
  if (text->bytes > 0 && text->data[text->bytes - 1] == '}') lqt__text_add(text, ",");
  lqt__text_add(text, "{\"name\":");
  lqt__text_add_json(text, name);
  lqt__text_add(text, ",\"bytes\":%" PRIu64 ",\"sha256\":\"", bytes);
  for (int i = 0; i < 32; i++) lqt__text_add(text, "%02x", digest[i]);
  lqt__text_add(text, "\"}");
}

/* Large files are read piecewise, and their pages let go. */
static lqt_status digest_map(const lqt__map *map, uint8_t out[32]) {
  enum { PIECE = 64 << 20 };
  lqt__sha256_state *state = lqt__sha256_begin();
  if (state == NULL) return LQT_OUT_OF_MEMORY;
  for (size_t at = 0; at < map->bytes; at += PIECE) {
    size_t n = map->bytes - at < PIECE ? map->bytes - at : PIECE;
    lqt_status status = lqt__sha256_add(state, map->data + at, n);
    lqt__map_advise(map, at, n, LQT__ADVICE_DROP);
    if (status != LQT_OK) {
      (void)!lqt__sha256_end(state, NULL);
      return status;
    }
  }
  return lqt__sha256_end(state, out);
}

static lqt_status add_files(lqt__text *text, const lqt__source *source) {
  uint8_t digest[32];
  LQT__TRY(lqt__sha256(source->config, source->config_bytes, digest));
  add_digest(text, "config.json", source->config_bytes, digest);
  if (source->tokenizer != NULL) {
    LQT__TRY(lqt__sha256(source->tokenizer, source->tokenizer_bytes, digest));
    add_digest(text, "tokenizer.json", source->tokenizer_bytes, digest);
  }
  for (size_t i = 0; i < source->file_count; i++) {
    LQT__TRY(digest_map(&source->files[i].map, digest));
    add_digest(text, source->files[i].name, source->files[i].map.bytes, digest);
  }
  return LQT_OK;
}

static void add_options(lqt__text *text, const lqt_quantize_options *o) {
  static const char *const inits[] = {"kmeans", "nf", "uniform"};
  static const char *const scopes[] = {"tensor", "row", "group"};
  lqt__text_add(text,
                "\"bits\":%u,\"group_size\":%u,\"vector_dim\":%u,\"residual_bits\":%u,"
                "\"embed_bits\":%u,\"codebook_init\":\"%s\",\"scope\":\"%s\",\"scope_cols\":%u,"
                "\"outliers\":%.9g,\"target_bpw\":%.9g,\"expandable\":%s,\"empty_deltas\":%s,"
                "\"seed\":%" PRIu64,
                o->bits, o->group_size, o->vector_dim, o->residual_bits, o->embed_bits,
                inits[o->init], scopes[o->scope], o->scope_cols, o->outliers, o->target_bpw,
                o->expandable ? "true" : "false", o->empty_deltas ? "true" : "false", o->seed);
  if (o->exclude != NULL) {
    lqt__text_add(text, ",\"exclude\":");
    lqt__text_add_json(text, o->exclude);
  }
}

lqt_status lqt__provenance_make(const lqt__source *source, const lqt_quantize_options *options,
                                uint64_t tokens, lqt__text *out, lqt_diag *diag) {
  *out = (lqt__text){0};
  lqt__text_add(out, "{\"tool\":\"lqt\",\"version\":\"%s\",\"options\":{", lqt_version_text());
  add_options(out, options);
  lqt__text_add(out, "},\"calibration\":{\"kind\":\"%s\",\"tokens\":%" PRIu64 "}",
                tokens > 0 ? "self-generated text" : "none", tokens);
  lqt__text_add(out, ",\"source\":{\"name\":");
  lqt__text_add_json(out, source->folder);
  lqt__text_add(out, ",\"files\":[");
  lqt_status status = add_files(out, source);
  lqt__text_add(out, "]}}");
  if (status == LQT_OK && out->failed) status = LQT_OUT_OF_MEMORY;
  if (status == LQT_OK) return LQT_OK;
  lqt__text_free(out);
  return lqt__fail_memory(diag, source->folder, 0, "the provenance");
}
