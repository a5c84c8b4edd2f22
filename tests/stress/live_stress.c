/* Commits and rollbacks of one thread against the steps of others: every step's logits are, bit for
 * bit, those of exactly the revision that it reports, and after any sequence the device's form of
 * every weight is that of a cold load.
 *
 * An edit chooses one of two versions for each of a few regions of the model's bytes: whole parts,
 * ranges inside rows, single values. Each choice of versions is a state; what weights made from a
 * state's bytes look like on the device and what the model then answers is found out beforehand
 * on engines of their own. Commits go from state to state by the staged path (some of them by the
 * way of a new plan), or back the way they came.
 *
 * live_stress [DEVICE [COMMITS [SESSIONS [SEED]]]] */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "exec/engine.h"
#include "kernel/weight.h"
#include "lqt/patch.h"
#include "support/tiny_model.h"

enum {
  VOCAB = 67,
  TOKENS = 6,
  REGIONS = 7,
  STATES = 1 << REGIONS,
  MAX_SESSIONS = 8,
  MAX_TENSORS = 64
};

/* Bytes of a part of one tensor, in two versions. */
typedef struct region {
  const char *tensor_name;
  lqt_weight_part part;
  double from, to; /* of the part, as fractions */
  uint32_t tensor;
  uint64_t first, count, size;
  uint8_t *versions[2];
} region;

static region regions[REGIONS] = {
    {.tensor_name = "l0.up", .part = LQT_PART_INDICES, .from = 0, .to = 1},
    {.tensor_name = "l0.up", .part = LQT_PART_GROUP_SCALES, .from = 0.3, .to = 0.31},
    {.tensor_name = "l1.down", .part = LQT_PART_INDICES, .from = 0.21, .to = 0.6},
    {.tensor_name = "l1.down", .part = LQT_PART_GROUP_SCALES, .from = 0, .to = 1},
    {.tensor_name = "l1.k", .part = LQT_PART_CODEBOOK, .from = 0.2, .to = 0.7},
    {.tensor_name = "l1.o", .part = LQT_PART_SCALE, .from = 0, .to = 1},
    {.tensor_name = "l0.v", .part = LQT_PART_GROUP_SCALES, .from = 0.9, .to = 0.95},
};

static lqt_model *model;
static lqt_device *device;
static lqt_engine *engine;
static float expected[STATES][VOCAB];
static uint64_t digests[STATES][REGIONS]; /* of the regions' tensors */
static bool has_digests = true;
static uint8_t *state_of; /* by revision */
static _Atomic bool finished;
static _Atomic uint64_t failures, steps, changes_met;

#define MUST(call)                                                                             \
  do {                                                                                         \
    lqt_diag diag = {0};                                                                       \
    lqt_status must_status = (call);                                                           \
    if (must_status != LQT_OK) {                                                               \
      fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, lqt_status_name(must_status), \
              diag.where, diag.what);                                                          \
      exit(1);                                                                                 \
    }                                                                                          \
  } while (0)

/* ---- The regions and the states ---- */

static void **part_slot(lqt_weight_desc *desc, lqt_weight_part part) {
  switch (part) {
    case LQT_PART_CODEBOOK:
      return (void **)&desc->codebook.vectors;
    case LQT_PART_GROUP_SCALES:
      return (void **)&desc->group_scales;
    default:
      return (void **)&desc->indices.data;
  }
}

static void make_versions(region *r, lqt__random *random) {
  ptrdiff_t tensor = lqt__file_find_tensor(&model->file, r->tensor_name);
  lqt_weight_desc desc;
  if (tensor < 0) exit(2);
  r->tensor = (uint32_t)tensor;
  MUST(lqt_model_weight(model, r->tensor, &desc, &diag));
  uint64_t have = lqt__weight_part_count(&desc, r->part);
  r->size = lqt__weight_part_size(&desc, r->part);
  r->first = (uint64_t)(r->from * (double)have);
  r->count = (uint64_t)(r->to * (double)have) - r->first;
  if (r->count == 0) r->count = 1;
  uint64_t bytes = r->count * r->size;
  for (int v = 0; v < 2; v++) r->versions[v] = malloc(bytes);
  const uint8_t *base =
      r->part == LQT_PART_SCALE ? (const uint8_t *)&desc.scale : *part_slot(&desc, r->part);
  memcpy(r->versions[0], base + r->first * r->size, bytes);
  for (uint64_t i = 0; i < r->count; i++) {
    uint8_t byte = (uint8_t)lqt__random_below(random, 256);
    uint16_t half = (uint16_t)(0x2800 + lqt__random_below(random, 0x800));
    float single = 0.5f + (float)lqt__random_unit(random);
    const void *value = r->size == 1   ? (void *)&byte
                        : r->size == 2 ? (void *)&half
                                       : (void *)&single;
    memcpy(r->versions[1] + i * r->size, value, r->size);
  }
}

/* A weight created from the bytes of a state. */
static lqt_weight *cold_weight(uint32_t tensor, unsigned state) {
  lqt_weight_desc desc;
  MUST(lqt_model_weight(model, tensor, &desc, &diag));
  void *copies[REGIONS] = {0};
  for (int i = 0; i < REGIONS; i++) {
    const region *r = &regions[i];
    if (r->tensor != tensor) continue;
    const uint8_t *from = r->versions[state >> i & 1];
    if (r->part == LQT_PART_SCALE) {
      memcpy(&desc.scale, from, sizeof desc.scale);
      continue;
    }
    void **slot = part_slot(&desc, r->part);
    uint64_t bytes = lqt__weight_part_count(&desc, r->part) * r->size;
    copies[i] = memcpy(malloc(bytes), *slot, bytes);
    memcpy((uint8_t *)copies[i] + r->first * r->size, from, r->count * r->size);
    *slot = copies[i];
  }
  lqt_weight *weight;
  MUST(lqt_weight_create(device, &desc, &weight, &diag));
  for (int i = 0; i < REGIONS; i++) free(copies[i]);
  return weight;
}

static uint64_t digest_of(lqt_weight *weight) {
  uint64_t digest = 0;
  if (!has_digests) return 0;
  lqt_diag diag = {0};
  lqt_status status = lqt_weight_digest(weight, &digest, &diag);
  if (status == LQT_UNSUPPORTED) {
    has_digests = false;
  } else if (status != LQT_OK) {
    fprintf(stderr, "%s\n", diag.what);
    exit(1);
  }
  return digest;
}

static lqt_session *open_session(lqt_engine *of) {
  lqt_session *session;
  uint32_t sequence;
  lqt_session_options options = {.size = sizeof options, .max_tokens = 64, .max_batch = 16};
  MUST(lqt_session_create(of, &options, &session, &diag));
  MUST(lqt_session_sequence_add(session, &sequence, &diag));
  return session;
}

static uint64_t step(lqt_session *session) {
  static const int32_t tokens[TOKENS] = {5, 18, 40, 2, 61, 33};
  lqt_step_input input = {0, LQT_LOGITS_LAST, tokens, TOKENS};
  lqt_step_result result;
  MUST(lqt_session_sequence_truncate(session, 0, 0, &diag));
  MUST(lqt_session_step(session, &input, 1, &result, &diag));
  return result.revision;
}

static void precompute(void) {
  for (unsigned state = 0; state < STATES; state++) {
    lqt_engine *cold;
    MUST(lqt_engine_create(model, device, &cold, &diag));
    for (int i = 0; i < REGIONS; i++) {
      uint32_t tensor = regions[i].tensor;
      lqt_weight *weight = cold_weight(tensor, state);
      digests[state][i] = digest_of(weight);
      lqt_weight_destroy(cold->weights[tensor]);
      cold->weights[tensor] = weight;
    }
    lqt_session *session = open_session(cold);
    (void)step(session);
    memcpy(expected[state], lqt_session_logits(session, 0, 0), sizeof expected[state]);
    lqt_session_destroy(session);
    lqt_engine_destroy(cold);
  }
  unsigned same = 0;
  for (unsigned s = 1; s < STATES; s++)
    same += memcmp(expected[s], expected[s - 1], sizeof *expected) == 0;
  if (same != 0) { /* then a step could report the wrong revision unseen */
    fprintf(stderr, "%u states answer alike\n", same);
    exit(2);
  }
}

/* ---- Readers ---- */

static void *reader(void *unused) {
  (void)unused;
  lqt_session *session = open_session(engine);
  uint64_t last = 0;
  while (!atomic_load(&finished)) {
    uint64_t revision = step(session);
    unsigned state = __atomic_load_n(&state_of[revision], __ATOMIC_ACQUIRE);
    if (revision < last ||
        memcmp(lqt_session_logits(session, 0, 0), expected[state], sizeof expected[state]) != 0) {
      fprintf(stderr, "a step of revision %llu (state %u) has other logits\n",
              (unsigned long long)revision, state);
      atomic_fetch_add(&failures, 1);
    }
    atomic_fetch_add(&changes_met, revision != last);
    atomic_fetch_add(&steps, 1);
    last = revision;
  }
  lqt_session_destroy(session);
  return NULL;
}

/* ---- The writer ---- */

typedef struct writer {
  lqt__random random;
  uint64_t revision;
  unsigned state;
  uint64_t *flips; /* revisions that were flipped and not taken back, and the state before each */
  uint8_t *before;
  size_t depth;
  uint64_t undone, rebuilt;
} writer;

static void flip(writer *w, lqt__engine_staged *staged, unsigned to) {
  w->flips[w->depth] = w->revision + 1;
  w->before[w->depth++] = (uint8_t)w->state;
  __atomic_store_n(&state_of[w->revision + 1], (uint8_t)to, __ATOMIC_RELEASE);
  lqt__gate_enter(engine->gate);
  MUST(lqt__engine_flip(engine, staged, w->revision + 1, &diag));
  lqt__gate_leave(engine->gate);
  w->revision++;
  w->state = to;
}

/* To any other state by patches; some regions in two pieces that overlap. */
static void commit_patch(writer *w) {
  unsigned to = (w->state + 1 + lqt__random_below(&w->random, STATES - 1)) % STATES;
  if (lqt__random_below(&w->random, 2) != 0)
    to = w->state ^ 1u << lqt__random_below(&w->random, REGIONS);
  lqt__engine_change changes[3 * REGIONS];
  size_t count = 0;
  for (int i = 0; i < REGIONS; i++) {
    const region *r = &regions[i];
    unsigned version = to >> i & 1, old = w->state >> i & 1;
    if (version == old) continue;
    lqt__engine_change all = {r->tensor,       r->part, r->first, r->count, r->versions[version],
                              r->versions[old]};
    if (r->count > 3 && lqt__random_below(&w->random, 2) != 0) {
      /* The wrong bytes first: the whole region over them holds. */
      uint64_t skip = 1 + lqt__random_below(&w->random, (uint32_t)r->count - 2);
      changes[count] = all;
      changes[count].first += skip;
      changes[count].count -= skip;
      changes[count].data = r->versions[old] + skip * r->size;
      changes[count++].old_data = r->versions[old] + skip * r->size;
    }
    changes[count++] = all;
  }
  lqt__engine_staged *staged;
  MUST(lqt__engine_stage(engine, changes, count, &staged, &diag));
  flip(w, staged, to);
}

/* Back to the file's bytes by a new plan and fresh uploads. */
static void commit_model(writer *w) {
  uint32_t changed[REGIONS];
  for (int i = 0; i < REGIONS; i++) changed[i] = regions[i].tensor;
  lqt__engine_staged *staged;
  MUST(lqt__engine_stage_model(engine, model, changed, REGIONS, &staged, &diag));
  flip(w, staged, 0);
  w->rebuilt++;
}

static bool roll_back(writer *w) {
  if (w->depth == 0) return false;
  __atomic_store_n(&state_of[w->revision + 1], w->before[w->depth - 1], __ATOMIC_RELEASE);
  lqt__gate_enter(engine->gate);
  bool can = lqt__engine_can_undo(engine, w->flips[w->depth - 1]);
  if (can) MUST(lqt__engine_unflip(engine, w->flips[w->depth - 1], w->revision + 1, &diag));
  lqt__gate_leave(engine->gate);
  if (!can) return false;
  w->state = w->before[--w->depth];
  w->revision++;
  w->undone++;
  return true;
}

static void check_digests(const writer *w) {
  lqt__gate_enter(engine->gate);
  for (int i = 0; i < REGIONS; i++) {
    if (digest_of(engine->weights[regions[i].tensor]) == digests[w->state][i]) continue;
    fprintf(stderr, "revision %llu: %s differs from a cold load of state %u\n",
            (unsigned long long)w->revision, regions[i].tensor_name, w->state);
    atomic_fetch_add(&failures, 1);
  }
  lqt__gate_leave(engine->gate);
}

static void write_all(writer *w, uint64_t commits) {
  while (w->revision < commits && atomic_load(&failures) == 0) {
    uint32_t what = lqt__random_below(&w->random, 1000);
    if (what < 330 && roll_back(w)) {
    } else if (what > 995) {
      commit_model(w);
    } else {
      commit_patch(w);
    }
    if (w->revision % 1024 == 0) check_digests(w);
    /* In bursts, so that some steps wait for the gate and some edits do. */
    uint64_t seen = atomic_load(&steps);
    while (what % 4 == 0 && atomic_load(&steps) == seen && atomic_load(&failures) == 0)
      sched_yield();
  }
  check_digests(w);
}

int main(int argc, char **argv) {
  const char *selector = argc > 1 ? argv[1] : "cpu";
  uint64_t commits = argc > 2 ? strtoull(argv[2], NULL, 10) : 1500;
  unsigned sessions = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 2;
  writer w = {.random = lqt__random_seed(argc > 4 ? strtoull(argv[4], NULL, 10) : 20260107)};
  if (sessions < 1 || sessions > MAX_SESSIONS || commits == 0) return 2;
  tiny_model tiny;
  tiny_spec spec = tiny_default();
  spec.quantized = true;
  const char *path = tiny_path("live.lqt");
  tiny_create(&spec, path, &tiny);
  lqt_device_options options = {.size = sizeof options, .threads = 1};
  MUST(lqt_model_open(path, NULL, &model, &diag));
  MUST(lqt_device_open(selector, &options, &device, &diag));
  for (int i = 0; i < REGIONS; i++) make_versions(&regions[i], &w.random);
  precompute();

  state_of = calloc(commits + 2, 1);
  w.flips = calloc(commits + 2, sizeof *w.flips);
  w.before = calloc(commits + 2, 1);
  MUST(lqt_engine_create(model, device, &engine, &diag));
  pthread_t threads[MAX_SESSIONS];
  for (unsigned i = 0; i < sessions; i++) {
    if (pthread_create(&threads[i], NULL, reader, NULL) != 0) return 1;
  }
  write_all(&w, commits);
  atomic_store(&finished, true);
  for (unsigned i = 0; i < sessions; i++) pthread_join(threads[i], NULL);

  printf(
      "%s: %llu commits (%llu of them rollbacks, %llu new plans), %llu steps met %llu changes, "
      "%llu failures%s\n",
      selector, (unsigned long long)w.revision, (unsigned long long)w.undone,
      (unsigned long long)w.rebuilt, (unsigned long long)atomic_load(&steps),
      (unsigned long long)atomic_load(&changes_met), (unsigned long long)atomic_load(&failures),
      has_digests ? "" : ", device bytes not compared");
  bool met = atomic_load(&changes_met) > w.revision / 16;
  lqt_engine_destroy(engine);
  for (int i = 0; i < REGIONS; i++) {
    for (int v = 0; v < 2; v++) free(regions[i].versions[v]);
  }
  free(state_of);
  free(w.flips);
  free(w.before);
  lqt_device_release(device);
  lqt_model_release(model);
  tiny_free(&tiny);
  return atomic_load(&failures) != 0 || !met;
}
