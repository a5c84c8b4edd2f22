/* Spending a budget of bits: which matrix gets which width and group size. */
#include <math.h>

#include "base/diag.h"
#include "quant/output.h"

/* What can be chosen, and the error it leaves relative to 4 bits in groups of 64. Measured as the
 * divergence of classic-28m's predictions with error feedback, where all matrices use one choice;
 * near enough for any weights that are roughly normal inside a group. */
typedef struct choice {
  uint8_t bits;
  uint16_t group_size;
  float error;
} choice;

static const choice choices[] = {
    {2, 256, 27.0f}, {2, 128, 24.5f}, {2, 64, 22.2f}, {2, 32, 19.0f},   {3, 256, 5.7f},
    {3, 128, 5.06f}, {3, 64, 4.42f},  {3, 32, 3.65f}, {4, 256, 1.27f},  {4, 128, 1.13f},
    {4, 64, 1.0f},   {4, 32, 0.815f}, {4, 16, 0.64f}, {8, 256, 0.008f}, {8, 128, 0.006f},
    {8, 64, 0.005f}, {8, 32, 0.004f},
};
enum { CHOICES = sizeof choices / sizeof choices[0] };

/* How much an error of a weight disturbs the predictions, by what the matrix does: measured in the
 * same way, one kind of matrix at a time, relative to the query's. */
static float sensitivity(lqt__llama_role role) {
  switch (role) {
    case LQT__ROLE_Q:
      return 1.0f;
    case LQT__ROLE_K:
      return 2.9f;
    case LQT__ROLE_V:
      return 12.0f;
    case LQT__ROLE_O:
      return 4.0f;
    case LQT__ROLE_GATE:
      return 3.5f;
    case LQT__ROLE_UP:
      return 2.5f;
    default:
      return 5.0f;
  }
}

/* From this budget on a few weights are worth a sparse delta. */
static const double outliers_from = 4.5, outlier_share = 0.001;

typedef struct planner {
  lqt__qoutput *output;
  uint64_t fixed, budget; /* bits: of what is not planned, of everything */
} planner;

static bool is_planned(const lqt__qtensor *t) {
  return t->spec.bits > 0 && t->tensor.role >= LQT__ROLE_Q && t->tensor.role <= LQT__ROLE_DOWN;
}

static uint64_t weights_of(const lqt__qtensor *t) {
  return (uint64_t)t->tensor.rows * t->tensor.cols;
}

static uint64_t bits_of(const planner *p, const lqt__qtensor *t, int c) {
  lqt__qspec spec = t->spec;
  spec.bits = choices[c].bits;
  spec.group_size = choices[c].group_size;
  lqt__qsize size = lqt__qsize_of(&spec, t->tensor.rows, t->tensor.cols, t->outliers,
                                  p->output->expandable, p->output->empty_deltas);
  return 8 * lqt__qsize_total(&size);
}

static double harm_of(const lqt__qtensor *t, int c) {
  return (double)sensitivity(t->tensor.role) * (double)weights_of(t) * choices[c].error;
}

/* The choice of each matrix that weighs harm against bits at this price; all bits together. */
static uint64_t choose_at(const planner *p, double price, uint8_t *out) {
  uint64_t total = p->fixed;
  for (size_t i = 0; i < p->output->tensor_count; i++) {
    const lqt__qtensor *t = &p->output->tensors[i];
    if (!is_planned(t)) continue;
    double best = INFINITY;
    uint64_t bits = 0;
    for (int c = 0; c < CHOICES; c++) {
      uint64_t b = bits_of(p, t, c);
      double cost = harm_of(t, c) + price * (double)b;
      if (cost >= best) continue;
      best = cost;
      bits = b;
      out[i] = (uint8_t)c;
    }
    total += bits;
  }
  return total;
}

/* Matrices of a kind change their choice at the same price: what is left of the budget goes to
 * single ones, the best bargain first. */
static void spend_rest(const planner *p, uint64_t total, uint8_t *chosen) {
  for (;;) {
    double best = 0;
    size_t where = 0;
    int what = -1;
    uint64_t cost = 0;
    for (size_t i = 0; i < p->output->tensor_count; i++) {
      const lqt__qtensor *t = &p->output->tensors[i];
      if (!is_planned(t)) continue;
      uint64_t now = bits_of(p, t, chosen[i]);
      for (int c = 0; c < CHOICES; c++) {
        uint64_t bits = bits_of(p, t, c);
        double gain = harm_of(t, chosen[i]) - harm_of(t, c);
        if (bits <= now || gain <= 0 || total + (bits - now) > p->budget) continue;
        if (gain / (double)(bits - now) <= best) continue;
        best = gain / (double)(bits - now);
        where = i;
        what = c;
        cost = bits - now;
      }
    }
    if (what < 0) return;
    chosen[where] = (uint8_t)what;
    total += cost;
  }
}

static lqt_status plan(planner *p, double target, uint64_t weights, uint8_t *chosen,
                       lqt_diag *diag) {
  /* The price is found by halving, on a logarithmic scale; the highest one buys the least. */
  double low = -60, high = 60;
  uint64_t least = choose_at(p, exp(high), chosen);
  if (least > p->budget) {
    return lqt__fail(diag, LQT_INVALID_ARGUMENT, "target-bpw",
                     "%g bits a weight cannot be reached, the least is %.3f; fewer embed-bits, or "
                     "none, leave more to the matrices",
                     target, (double)least / (double)weights + 0.0005);
  }
  for (int i = 0; i < 100; i++) {
    double middle = (low + high) / 2;
    if (choose_at(p, exp(middle), chosen) > p->budget) {
      low = middle;
    } else {
      high = middle;
    }
  }
  spend_rest(p, choose_at(p, exp(high), chosen), chosen);
  for (size_t i = 0; i < p->output->tensor_count; i++) {
    lqt__qtensor *t = &p->output->tensors[i];
    if (!is_planned(t)) continue;
    t->spec.bits = choices[chosen[i]].bits;
    t->spec.group_size = choices[chosen[i]].group_size;
  }
  return LQT_OK;
}

lqt_status lqt__qoutput_plan(lqt__qoutput *output, double target, lqt_diag *diag) {
  planner p = {.output = output};
  uint64_t weights = 0;
  for (size_t i = 0; i < output->tensor_count; i++) {
    lqt__qtensor *t = &output->tensors[i];
    if (t->spec.bits == 0) continue;
    weights += weights_of(t);
    if (is_planned(t)) {
      t->spec.outliers = target >= outliers_from ? outlier_share : 0;
      t->outliers = (uint64_t)(t->spec.outliers * (double)weights_of(t));
      continue;
    }
    lqt__qsize size = lqt__qsize_of(&t->spec, t->tensor.rows, t->tensor.cols, t->outliers,
                                    output->expandable, output->empty_deltas);
    p.fixed += 8 * lqt__qsize_total(&size);
  }
  p.budget = (uint64_t)(target * (double)weights);
  uint8_t *chosen = lqt__alloc_array(output->tensor_count, 1);
  if (chosen == NULL) return lqt__fail_memory(diag, NULL, output->tensor_count, "a plan");
  lqt_status status = plan(&p, target, weights, chosen, diag);
  lqt__free(chosen);
  return status;
}
