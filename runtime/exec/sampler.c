/* Sampling. Only IEEE-754 basic operations in a fixed order, so that a seed gives the same tokens
 * on every machine. */
#include "exec/sampler.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/diag.h"
#include "base/random.h"

enum { DEFAULT_WINDOW = 64, MOST_WINDOW = 1 << 20 };

static const char *const where = "sampler";

typedef struct candidate {
  double score; /* the logit, penalised */
  double weight;
  int32_t id;
} candidate;

struct lqt_sampler {
  lqt_sampler_options options;
  lqt__random random;
  int32_t *window; /* ring of the last tokens */
  uint32_t window_count, window_next;
  candidate *candidates;
  size_t capacity;
};

static lqt_status check_options(const lqt_sampler_options *o, lqt_diag *diag) {
  const char *wrong = NULL;
  if (o->size != sizeof *o)
    wrong = "size must be sizeof(lqt_sampler_options)";
  else if (!(o->temperature >= 0.0f) || !isfinite(o->temperature))
    wrong = "temperature must be 0 or more";
  else if (!(o->top_p > 0.0f && o->top_p <= 1.0f))
    wrong = "top_p must be above 0 and at most 1 (off)";
  else if (!(o->min_p >= 0.0f && o->min_p < 1.0f))
    wrong = "min_p must be at least 0 (off) and below 1";
  else if (!(o->repetition_penalty > 0.0f) || !isfinite(o->repetition_penalty))
    wrong = "repetition_penalty must be above 0 (1 is off)";
  else if (o->repetition_window > MOST_WINDOW)
    wrong = "repetition_window must be at most 2^20";
  return wrong == NULL ? LQT_OK : lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "%s", wrong);
}

lqt_status lqt_sampler_create(const lqt_sampler_options *options, lqt_sampler **out_sampler,
                              lqt_diag *diag) {
  if (out_sampler != NULL) *out_sampler = NULL;
  if (options == NULL || out_sampler == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where, "options and out_sampler must not be NULL");
  }
  LQT__TRY(check_options(options, diag));
  lqt_sampler *sampler = lqt__alloc_zero(sizeof *sampler);
  if (sampler == NULL) return lqt__fail_memory(diag, where, sizeof *sampler, "a sampler");
  sampler->options = *options;
  if (sampler->options.repetition_window == 0) sampler->options.repetition_window = DEFAULT_WINDOW;
  sampler->random = lqt__random_seed(options->seed);
  size_t window = sampler->options.repetition_window;
  sampler->window = lqt__alloc_array(window, sizeof *sampler->window);
  if (sampler->window == NULL) {
    lqt_sampler_destroy(sampler);
    return lqt__fail_memory(diag, where, window * sizeof(int32_t), "the repetition window");
  }
  *out_sampler = sampler;
  return LQT_OK;
}

void lqt_sampler_destroy(lqt_sampler *sampler) {
  if (sampler == NULL) return;
  lqt__free(sampler->window);
  lqt__free(sampler->candidates);
  lqt__free(sampler);
}

void lqt_sampler_accept(lqt_sampler *sampler, int32_t token) {
  sampler->window[sampler->window_next] = token;
  sampler->window_next = (sampler->window_next + 1) % sampler->options.repetition_window;
  if (sampler->window_count < sampler->options.repetition_window) sampler->window_count++;
}

/* e^x for x <= 0: Cody-Waite reduction, Taylor series to degree 13 on |r| <= ln(2) / 2 (below 1e-16
 * relative). libm's differs from machine to machine. */
static double exp_below_zero(double x) {
  if (!(x > -700.0)) return 0.0;
  double k = floor(x * 1.4426950408889634 + 0.5);
  double r = (x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
  double sum = 1.0;
  for (int n = 13; n > 0; n--) sum = 1.0 + sum * r / n;
  return ldexp(sum, (int)k);
}

/* Does a come before b? Higher scores first, then lower ids: a total order. */
static bool before(const candidate *a, const candidate *b) {
  return a->score > b->score || (a->score == b->score && a->id < b->id);
}

static void sift_down(candidate *heap, size_t count, size_t at) {
  candidate moving = heap[at];
  for (;;) {
    size_t child = 2 * at + 1;
    if (child >= count) break;
    if (child + 1 < count && before(&heap[child + 1], &heap[child])) child++;
    if (!before(&heap[child], &moving)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = moving;
}

/* Takes the first of the heap's `count` candidates and puts it at [count - 1]. */
static candidate *heap_pop(candidate *heap, size_t count) {
  candidate first = heap[0];
  heap[0] = heap[count - 1];
  if (count > 1) sift_down(heap, count - 1, 0);
  heap[count - 1] = first;
  return &heap[count - 1];
}

static void reverse(candidate *c, size_t count) {
  for (size_t i = 0; i < count / 2; i++) {
    candidate swap = c[i];
    c[i] = c[count - 1 - i];
    c[count - 1 - i] = swap;
  }
}

/* The candidates of `count` logits; `tokens` NULL: token i has logit i. */
static lqt_status fill_candidates(lqt_sampler *s, const float *logits, const int32_t *tokens,
                                  uint32_t count, lqt_diag *diag) {
  if (count > s->capacity) {
    candidate *grown = lqt__alloc_array(count, sizeof *grown);
    if (grown == NULL) return lqt__fail_memory(diag, where, count * sizeof *grown, "candidates");
    lqt__free(s->candidates);
    s->candidates = grown;
    s->capacity = count;
  }
  bool any = false;
  for (uint32_t i = 0; i < count; i++) {
    int32_t token = tokens != NULL ? tokens[i] : (int32_t)i;
    if (isnan(logits[i]) || logits[i] == INFINITY) {
      return lqt__fail(diag, LQT_NOT_FINITE, where, "the logit of token %d is %s", token,
                       isnan(logits[i]) ? "not a number" : "infinite");
    }
    any = any || isfinite(logits[i]);
    s->candidates[i] = (candidate){.score = logits[i], .id = token};
  }
  if (!any) return lqt__fail(diag, LQT_NOT_FINITE, where, "no token has a finite logit");
  return LQT_OK;
}

static candidate *find_candidate(const lqt_sampler *s, const int32_t *tokens, uint32_t count,
                                 int32_t id) {
  if (tokens == NULL) return id >= 0 && (uint32_t)id < count ? &s->candidates[id] : NULL;
  for (uint32_t i = 0; i < count; i++) {
    if (tokens[i] == id) return &s->candidates[i];
  }
  return NULL;
}

static void penalise(lqt_sampler *s, const float *logits, const int32_t *tokens, uint32_t count) {
  double penalty = s->options.repetition_penalty;
  if (penalty == 1.0) return;
  for (uint32_t i = 0; i < s->window_count; i++) {
    candidate *c = find_candidate(s, tokens, count, s->window[i]);
    if (c == NULL) continue;
    double logit = logits[c - s->candidates]; /* not the score: a token is penalised once */
    c->score = logit > 0.0 ? logit / penalty : logit * penalty;
  }
}

static const candidate *greedy(const candidate *c, uint32_t count) {
  const candidate *best = c;
  for (uint32_t i = 1; i < count; i++) {
    if (before(&c[i], best)) best = &c[i];
  }
  return best;
}

static double weigh(const lqt_sampler *s, candidate *c, size_t count, double most) {
  double total = 0.0;
  for (size_t i = 0; i < count; i++) {
    c[i].weight = exp_below_zero((c[i].score - most) / (double)s->options.temperature);
    total += c[i].weight;
  }
  return total;
}

/* Keeps the candidates that top-k and top-p leave, and their weights; returns how many, from *c. */
static size_t truncate(const lqt_sampler *s, candidate **c, size_t count) {
  uint32_t top_k = s->options.top_k;
  double most = greedy(*c, (uint32_t)count)->score;
  bool cut_k = top_k > 0 && top_k < count, cut_p = s->options.top_p < 1.0f;
  double total = cut_k ? 0.0 : weigh(s, *c, count, most);
  if (!cut_k && !cut_p) return count;
  candidate *heap = *c;
  for (size_t i = count / 2; i-- > 0;) sift_down(heap, count, i);
  size_t left = count;
  if (cut_k) {
    while (count - left < top_k) heap_pop(heap, left--);
    total = 0.0;
    for (size_t i = count; i-- > left;) total += weigh(s, &heap[i], 1, most);
  }
  if (cut_p) {
    double enough = (double)s->options.top_p * total, sum = 0.0;
    size_t end = cut_k ? left : 0, at = count;
    while (at > end && sum < enough) {
      if (!cut_k) heap_pop(heap, at);
      sum += heap[--at].weight;
    }
    left = at;
  }
  *c = heap + left;
  reverse(*c, count - left);
  return count - left;
}

static const candidate *draw(lqt_sampler *s, candidate *c, size_t count) {
  count = truncate(s, &c, count);
  /* The likeliest candidate has weight 1. */
  double least = s->options.min_p, total = 0.0;
  for (size_t i = 0; i < count; i++) {
    if (c[i].weight < least) c[i].weight = 0.0;
    total += c[i].weight;
  }
  double target = lqt__random_unit(&s->random) * total;
  const candidate *last = NULL;
  for (size_t i = 0; i < count; i++) {
    if (c[i].weight == 0.0) continue;
    last = &c[i];
    target -= c[i].weight;
    if (target < 0.0) break;
  }
  return last;
}

static lqt_status sample(lqt_sampler *s, const float *logits, const int32_t *tokens, uint32_t count,
                         int32_t *out_token, lqt_diag *diag) {
  LQT__TRY(fill_candidates(s, logits, tokens, count, diag));
  penalise(s, logits, tokens, count);
  const candidate *chosen =
      s->options.temperature == 0.0f ? greedy(s->candidates, count) : draw(s, s->candidates, count);
  *out_token = chosen->id;
  lqt_sampler_accept(s, chosen->id);
  return LQT_OK;
}

lqt_status lqt_sampler_sample(lqt_sampler *sampler, const float *logits, uint32_t vocab_size,
                              int32_t *out_token, lqt_diag *diag) {
  if (sampler == NULL || logits == NULL || vocab_size == 0 || out_token == NULL) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, where,
                     "sampler, logits, vocab_size and out_token must not be NULL or 0");
  }
  return sample(sampler, logits, NULL, vocab_size, out_token, diag);
}

uint64_t lqt__sampler_reach(const lqt_sampler *s) {
  const lqt_sampler_options *o = &s->options;
  uint64_t reach = o->temperature == 0.0f ? 1 : o->top_k;
  if (reach == 0 || o->repetition_penalty == 1.0f) return reach;
  /* A penalty above 1 only moves tokens of the window down, past others that come after the reach.
   */
  return o->repetition_penalty > 1.0f ? reach + o->repetition_window : 0;
}

lqt_status lqt__sampler_sample_top(lqt_sampler *sampler, const float *values, const int32_t *tokens,
                                   uint32_t count, int32_t *out_token, lqt_diag *diag) {
  return sample(sampler, values, tokens, count, out_token, diag);
}
