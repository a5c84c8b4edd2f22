#include "text/bpe.h"

#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"

enum {
  SHORT_PIECE = 48, /* up to here a scan over all pairs beats a heap */
  NO_RANK = UINT32_MAX,
};

bool lqt__ids_reserve(lqt__ids *ids, size_t more) {
  if (ids->capacity - ids->count >= more) return true;
  uint64_t need, bytes;
  if (!lqt__add(ids->count, more, &need) || !lqt__add(need, need / 2 + 16, &need) ||
      !lqt__mul(need, sizeof *ids->data, &bytes)) {
    return false;
  }
  int32_t *data = lqt__realloc(ids->data, bytes);
  if (data == NULL) return false;
  ids->data = data;
  ids->capacity = need;
  return true;
}

bool lqt__bpe_init(lqt__bpe *bpe, size_t merges) {
  size_t slots = 16;
  while (slots / 2 < merges) slots *= 2;
  bpe->slots = lqt__alloc_array(slots, sizeof *bpe->slots);
  if (bpe->slots == NULL) return false;
  for (size_t i = 0; i < slots; i++) bpe->slots[i].pair = UINT64_MAX;
  bpe->mask = slots - 1;
  return true;
}

void lqt__bpe_free(lqt__bpe *bpe) {
  lqt__free(bpe->slots);
  bpe->slots = NULL;
}

static uint64_t pair_of(int32_t left, int32_t right) {
  return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The slot of the pair, or the free one where it belongs. */
static lqt__merge *find(const lqt__bpe *bpe, uint64_t pair) {
  uint64_t hash = pair * 0x9e3779b97f4a7c15u;
  size_t at = (hash ^ hash >> 32) & bpe->mask;
  while (bpe->slots[at].pair != pair && bpe->slots[at].pair != UINT64_MAX) {
    at = (at + 1) & bpe->mask;
  }
  return &bpe->slots[at];
}

bool lqt__bpe_add(lqt__bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id) {
  lqt__merge *slot = find(bpe, pair_of(left, right));
  if (slot->pair != UINT64_MAX) return false;
  *slot = (lqt__merge){.pair = pair_of(left, right), .rank = rank, .id = id};
  return true;
}

/* NULL when the pair has no merge. */
static const lqt__merge *lookup(const lqt__bpe *bpe, int32_t left, int32_t right) {
  const lqt__merge *slot = find(bpe, pair_of(left, right));
  return slot->pair != UINT64_MAX ? slot : NULL;
}

static uint32_t rank_of(const lqt__bpe *bpe, int32_t left, int32_t right) {
  const lqt__merge *merge = lookup(bpe, left, right);
  return merge != NULL ? merge->rank : NO_RANK;
}

static void encode_short(const lqt__bpe *bpe, const uint8_t *piece, size_t bytes, lqt__ids *ids) {
  int32_t *symbols = ids->data + ids->count; /* reserved by the caller */
  uint32_t ranks[SHORT_PIECE];               /* of the pair that begins at i */
  size_t count = bytes;
  for (size_t i = 0; i < count; i++) symbols[i] = bpe->byte_ids[piece[i]];
  for (size_t i = 0; i + 1 < count; i++) ranks[i] = rank_of(bpe, symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; i++) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == NO_RANK) break;
    symbols[best] = lookup(bpe, symbols[best], symbols[best + 1])->id;
    size_t rest = count - best - 2;
    memmove(symbols + best + 1, symbols + best + 2, rest * sizeof *symbols);
    memmove(ranks + best, ranks + best + 1, rest * sizeof *ranks);
    count--;
    if (best > 0) ranks[best - 1] = rank_of(bpe, symbols[best - 1], symbols[best]);
    if (best + 1 < count) ranks[best] = rank_of(bpe, symbols[best], symbols[best + 1]);
  }
  ids->count += count;
}

/* A long piece: symbols in a linked list, candidate merges in a binary heap keyed by rank, then
 * position. Entries go stale when a neighbour is merged; a stale one has another rank by then. */
typedef struct long_piece {
  int32_t *symbols;
  uint32_t *next; /* position of the following symbol; `bytes` at the end */
  uint32_t *previous;
  uint64_t *heap; /* rank << 32 | position */
  size_t heap_count;
} long_piece;

static void heap_push(long_piece *p, uint64_t key) {
  size_t at = p->heap_count++;
  while (at > 0 && p->heap[(at - 1) / 2] > key) {
    p->heap[at] = p->heap[(at - 1) / 2];
    at = (at - 1) / 2;
  }
  p->heap[at] = key;
}

static uint64_t heap_pop(long_piece *p) {
  uint64_t top = p->heap[0];
  uint64_t key = p->heap[--p->heap_count];
  size_t at = 0;
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= p->heap_count) break;
    if (child + 1 < p->heap_count && p->heap[child + 1] < p->heap[child]) child++;
    if (p->heap[child] >= key) break;
    p->heap[at] = p->heap[child];
    at = child;
  }
  if (p->heap_count > 0) p->heap[at] = key;
  return top;
}

static void push_pair(const lqt__bpe *bpe, long_piece *p, uint32_t left, uint32_t right) {
  uint32_t rank = rank_of(bpe, p->symbols[left], p->symbols[right]);
  if (rank != NO_RANK) heap_push(p, (uint64_t)rank << 32 | left);
}

static void merge_all(const lqt__bpe *bpe, long_piece *p, uint32_t end) {
  while (p->heap_count > 0) {
    uint64_t key = heap_pop(p);
    uint32_t left = (uint32_t)key;
    uint32_t right = p->symbols[left] >= 0 ? p->next[left] : end;
    if (right == end) continue;
    const lqt__merge *merge = lookup(bpe, p->symbols[left], p->symbols[right]);
    if (merge == NULL || merge->rank != key >> 32) continue;
    p->symbols[left] = merge->id;
    p->symbols[right] = -1;
    uint32_t after = p->next[right];
    p->next[left] = after;
    if (after != end) {
      p->previous[after] = left;
      push_pair(bpe, p, left, after);
    }
    if (left != 0) push_pair(bpe, p, p->previous[left], left);
  }
}

static lqt_status encode_long(const lqt__bpe *bpe, const uint8_t *piece, size_t bytes,
                              lqt__ids *ids, lqt_diag *diag) {
  if (bytes >= UINT32_MAX) {
    return lqt__fail(diag, LQT_LIMIT, "tokenizer", "a piece of %zu bytes is too long: split it",
                     bytes);
  }
  /* At most one entry a first pair and two a merge. */
  size_t each = sizeof(int32_t) + 2 * sizeof(uint32_t) + 3 * sizeof(uint64_t);
  uint64_t *block = lqt__alloc_array(bytes, each);
  if (block == NULL) return lqt__fail_memory(diag, "tokenizer", bytes * each, "merges");
  long_piece p = {.heap = block};
  p.symbols = (int32_t *)(block + 3 * bytes);
  p.next = (uint32_t *)(p.symbols + bytes);
  p.previous = p.next + bytes;
  for (size_t i = 0; i < bytes; i++) {
    p.symbols[i] = bpe->byte_ids[piece[i]];
    p.next[i] = (uint32_t)i + 1;
    p.previous[i] = (uint32_t)i - 1;
  }
  for (uint32_t i = 0; i + 1 < bytes; i++) push_pair(bpe, &p, i, i + 1);
  merge_all(bpe, &p, (uint32_t)bytes);
  for (uint32_t at = 0; at < bytes; at = p.next[at]) ids->data[ids->count++] = p.symbols[at];
  lqt__free(block);
  return LQT_OK;
}

lqt_status lqt__bpe_encode(const lqt__bpe *bpe, const uint8_t *piece, size_t bytes, lqt__ids *ids,
                           lqt_diag *diag) {
  if (bytes == 0) return LQT_OK;
  if (!lqt__ids_reserve(ids, bytes)) {
    return lqt__fail_memory(diag, "tokenizer", bytes * sizeof *ids->data, "token ids");
  }
  if (bytes > SHORT_PIECE) return encode_long(bpe, piece, bytes, ids, diag);
  encode_short(bpe, piece, bytes, ids);
  return LQT_OK;
}
