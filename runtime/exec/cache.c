#include "exec/cache.h"

#include "base/alloc.h"
#include "base/diag.h"

lqt_status lqt__cache_create(uint32_t page_tokens, uint32_t max_sequences, uint32_t max_length,
                             uint64_t max_positions, lqt__cache *out, lqt_diag *diag) {
  *out = (lqt__cache){.page_tokens = page_tokens,
                      .max_sequences = max_sequences,
                      .max_length = max_length,
                      .max_positions = max_positions};
  /* The last page of every sequence may be nearly empty. */
  uint64_t slack = (uint64_t)max_sequences * (page_tokens - 1);
  uint64_t pages = (max_positions + slack) / page_tokens;
  uint64_t cols = lqt__ceil_div(max_length, page_tokens);
  uint64_t entries;
  if (pages > INT32_MAX / page_tokens || !lqt__mul(max_sequences, cols, &entries)) {
    return lqt__fail(diag, LQT_LIMIT, "session",
                     "a cache of %llu positions for %u sequences is too large",
                     (unsigned long long)max_positions, max_sequences);
  }
  out->page_count = out->free_count = (uint32_t)pages;
  out->table_cols = (uint32_t)cols;
  out->table = lqt__alloc_array(entries, sizeof *out->table);
  out->free_pages = lqt__alloc_array(pages, sizeof *out->free_pages);
  out->sequences = lqt__alloc_array(max_sequences, sizeof *out->sequences);
  if (out->table == NULL || out->free_pages == NULL || out->sequences == NULL) {
    lqt__cache_free(out);
    return lqt__fail_memory(diag, "session", entries * sizeof *out->table, "the page table");
  }
  for (uint32_t i = 0; i < out->page_count; i++) {
    out->free_pages[i] = (int32_t)(out->page_count - 1 - i);
  }
  out->dirty_end = max_sequences;
  return LQT_OK;
}

void lqt__cache_free(lqt__cache *cache) {
  lqt__free(cache->table);
  lqt__free(cache->free_pages);
  lqt__free(cache->sequences);
  *cache = (lqt__cache){0};
}

lqt__sequence *lqt__cache_find(const lqt__cache *cache, uint32_t sequence) {
  bool found = sequence < cache->max_sequences && cache->sequences[sequence].used;
  return found ? &cache->sequences[sequence] : NULL;
}

bool lqt__cache_add(lqt__cache *cache, uint32_t *out_sequence) {
  for (uint32_t i = 0; i < cache->max_sequences; i++) {
    if (cache->sequences[i].used) continue;
    cache->sequences[i] = (lqt__sequence){.used = true};
    *out_sequence = i;
    return true;
  }
  return false;
}

void lqt__cache_remove(lqt__cache *cache, uint32_t sequence) {
  lqt__cache_truncate(cache, sequence, 0);
  cache->sequences[sequence].used = false;
}

void lqt__cache_truncate(lqt__cache *cache, uint32_t sequence, uint32_t length) {
  lqt__sequence *s = &cache->sequences[sequence];
  uint32_t pages = (uint32_t)lqt__ceil_div(length, cache->page_tokens);
  const int32_t *row = cache->table + (size_t)sequence * cache->table_cols;
  while (s->pages > pages) cache->free_pages[cache->free_count++] = row[--s->pages];
  if (length < s->length) {
    cache->positions -= s->length - length;
    s->length = length;
  }
}

void lqt__cache_reserve(lqt__cache *cache, uint32_t sequence, uint32_t count) {
  lqt__sequence *s = &cache->sequences[sequence];
  uint32_t pages = (uint32_t)lqt__ceil_div((uint64_t)s->length + count, cache->page_tokens);
  int32_t *row = cache->table + (size_t)sequence * cache->table_cols;
  if (pages == s->pages) return;
  while (s->pages < pages) row[s->pages++] = cache->free_pages[--cache->free_count];
  if (cache->dirty_first == cache->dirty_end) {
    cache->dirty_first = sequence;
    cache->dirty_end = sequence + 1;
  }
  if (sequence < cache->dirty_first) cache->dirty_first = sequence;
  if (sequence >= cache->dirty_end) cache->dirty_end = sequence + 1;
}

void lqt__cache_fill(lqt__cache *cache, uint32_t sequence, uint32_t count) {
  cache->sequences[sequence].length += count;
  cache->positions += count;
}
