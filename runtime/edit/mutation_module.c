/* Modules: bypass and back, exchange for another file's, hyperparameters. All are edits of the
 * graph's JSON; that the result fits together is checked by parsing it. */
#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "base/hash.h"
#include "base/json.h"
#include "edit/mutation.h"
#include "edit/reference.h"
#include "model/graph.h"

/* The graph as JSON and as parsed. */
typedef struct plan {
  lqt__graph graph;
  json_t *root; /* the graph's own */
  json_t *modules;
} plan;

static lqt_status no_memory(lqt__draft *d) {
  return lqt__fail_memory(d->diag, d->where, 0, "the module graph");
}

static lqt_status open_graph(lqt__draft *d, plan *out) {
  *out = (plan){0};
  const lqt__chunk *chunk = lqt__file_chunk(&d->work->now, LQT__CHUNK_MODULES);
  if (chunk == NULL) return LQT__REFUSE(d, LQT_NOT_FOUND, "the file has no module graph");
  LQT__TRY(lqt__graph_parse(&d->work->now, (const char *)chunk->data, chunk->bytes, d->where,
                            &out->graph, d->diag));
  out->root = out->graph.root;
  out->modules = json_object_get(out->root, "modules");
  return LQT_OK;
}

static void close_graph(plan *p) { lqt__graph_free(&p->graph); }

/* Writes the JSON back as the graph's chunk. */
static lqt_status store_graph(lqt__draft *d, const json_t *root) {
  char *text = json_dumps(root, JSON_COMPACT);
  if (text == NULL) return no_memory(d);
  lqt_status status = lqt__draft_chunk(d, LQT__CHUNK_MODULES, text, strlen(text));
  free(text);
  return status;
}

static ptrdiff_t find_module(const plan *p, const char *id) {
  for (size_t i = 0; i < json_array_size(p->modules); i++) {
    const char *name = json_string_value(json_object_get(json_array_get(p->modules, i), "id"));
    if (strcmp(name, id) == 0) return (ptrdiff_t)i;
  }
  return -1;
}

static const lqt__module *parsed_module(const plan *p, const char *id) {
  for (size_t i = 0; i < p->graph.module_count; i++) {
    if (strcmp(p->graph.modules[i].id, id) == 0) return &p->graph.modules[i];
  }
  return NULL;
}

static lqt_status no_module(lqt__draft *d, const char *id) {
  return LQT__REFUSE(d, LQT_NOT_FOUND, "there is no module %.200s", id != NULL ? id : "(none)");
}

/* ---- Bypass ---- */

static bool inside(const char *id, const char *target) {
  size_t length = strlen(target);
  return strncmp(id, target, length) == 0 && (id[length] == '\0' || id[length] == '.');
}

/* Is "module:port" one of the target's? */
static bool end_inside(const json_t *end, const char *target) {
  const char *text = json_string_value(end), *colon = text != NULL ? strrchr(text, ':') : NULL;
  size_t length = strlen(target);
  return colon != NULL && strncmp(text, target, length) == 0 &&
         (text + length == colon || text[length] == '.');
}

typedef struct seam {
  lqt__port_ref in, out; /* what feeds the target, and what of it is read outside */
  size_t members;
} seam;

static bool same_port(lqt__port_ref a, lqt__port_ref b) {
  return a.module == b.module && a.port == b.port;
}

static lqt_status join(lqt__draft *d, const char *target, lqt__port_ref *known, lqt__port_ref port,
                       const char *what) {
  if (known->module != INT32_MIN && !same_port(*known, port)) {
    return LQT__REFUSE(d, LQT_VALIDATION_FAILED,
                       "%.200s has more than one %s and cannot be bypassed", target, what);
  }
  *known = port;
  return LQT_OK;
}

static lqt_status find_seam(lqt__draft *d, const plan *p, const char *target, seam *out) {
  const lqt__graph *graph = &p->graph;
  *out = (seam){.in = {INT32_MIN, 0}, .out = {INT32_MIN, 0}};
  for (size_t i = 0; i < graph->module_count; i++) {
    const lqt__module *m = &graph->modules[i];
    bool is_inside = inside(m->id, target);
    out->members += is_inside;
    for (uint32_t k = 0; k < m->input_count; k++) {
      lqt__port_ref from = m->inputs[k];
      bool from_inside = from.module >= 0 && inside(graph->modules[from.module].id, target);
      if (is_inside && !from_inside) LQT__TRY(join(d, target, &out->in, from, "input"));
      if (!is_inside && from_inside) LQT__TRY(join(d, target, &out->out, from, "output"));
    }
  }
  for (size_t i = 0; i < graph->output_count; i++) {
    lqt__port_ref from = graph->outputs[i];
    if (from.module >= 0 && inside(graph->modules[from.module].id, target)) {
      LQT__TRY(join(d, target, &out->out, from, "output"));
    }
  }
  if (out->members == 0) return no_module(d, target);
  if (out->in.module < 0 || out->out.module == INT32_MIN) {
    return LQT__REFUSE(d, LQT_VALIDATION_FAILED,
                       "%.200s has no input and output of activations: it cannot be bypassed",
                       target);
  }
  return LQT_OK;
}

/* Takes what belongs to the target out of an array, with its place, into `kept`. */
static bool take_members(json_t *array, const char *target, bool modules, json_t *kept) {
  size_t place = 0;
  for (size_t i = 0; i < json_array_size(array); place++) {
    json_t *item = json_array_get(array, i);
    bool member = modules ? inside(json_string_value(json_object_get(item, "id")), target)
                          : end_inside(json_object_get(item, "from"), target) ||
                                end_inside(json_object_get(item, "to"), target);
    if (!member) {
      i++;
      continue;
    }
    if (json_array_append_new(kept, json_pack("[I, O]", (json_int_t)place, item)) != 0) {
      return false;
    }
    json_array_remove(array, i);
  }
  return true;
}

/* Feeds from `source` whatever read the target's output. */
static bool bridge(json_t *root, const char *target, const char *source, const json_t *taken,
                   json_t *connections, json_t *added) {
  for (size_t i = 0; i < json_array_size(taken); i++) {
    const json_t *was = json_array_get(json_array_get(taken, i), 1);
    if (end_inside(json_object_get(was, "to"), target)) continue;
    json_t *made = json_pack("{s:s, s:O}", "from", source, "to", json_object_get(was, "to"));
    if (made == NULL || json_array_append(added, made) != 0 ||
        json_array_append_new(connections, made) != 0) {
      return false;
    }
  }
  json_t *outputs = json_object_get(root, "outputs");
  for (size_t i = 0; i < json_array_size(outputs); i++) {
    json_t *output = json_array_get(outputs, i);
    if (end_inside(json_object_get(output, "from"), target) &&
        json_object_set_new(output, "from", json_string(source)) != 0) {
      return false;
    }
  }
  return true;
}

/* Does the work on the JSON; false: no memory. */
static bool bypass(json_t *root, const char *target, const char *source) {
  json_t *modules = json_object_get(root, "modules");
  json_t *connections = json_object_get(root, "connections");
  json_t *list = json_object_get(root, "bypassed");
  json_t *outputs = json_deep_copy(json_object_get(root, "outputs"));
  json_t *taken = json_array(), *ends = json_array(), *added = json_array();
  bool good = outputs != NULL && taken != NULL && ends != NULL && added != NULL;
  if (good && list == NULL) {
    list = json_array();
    good = json_object_set_new(root, "bypassed", list) == 0;
  }
  good = good && take_members(modules, target, true, taken) &&
         take_members(connections, target, false, ends) &&
         bridge(root, target, source, ends, connections, added);
  json_t *record = good ? json_pack("{s:s, s:O, s:O, s:O, s:O}", "id", target, "modules", taken,
                                    "connections", ends, "added", added, "outputs", outputs)
                        : NULL;
  good = good && record != NULL && json_array_append_new(list, record) == 0;
  json_decref(outputs);
  json_decref(taken);
  json_decref(ends);
  json_decref(added);
  return good;
}

static lqt_status permit_module(lqt__draft *d, const plan *p, const lqt__module *module) {
  (void)p;
  for (uint32_t i = 0; i < module->tensor_count; i++) {
    LQT__TRY(lqt__draft_permit(d, &d->work->now.tensors[module->tensors[i].tensor]));
  }
  return lqt__rules_allow(d->rules, d->operation, module->id, d->diag);
}

static lqt_status permit_members(lqt__draft *d, const plan *p, const char *target) {
  for (size_t i = 0; i < p->graph.module_count; i++) {
    if (!inside(p->graph.modules[i].id, target)) continue;
    LQT__TRY(permit_module(d, p, &p->graph.modules[i]));
  }
  return LQT_OK;
}

lqt_status lqt__mutate_module_bypass(lqt__draft *d, const lqt_mutation *m) {
  if (m->target == NULL) return no_module(d, NULL);
  plan p;
  seam s;
  LQT__TRY(open_graph(d, &p));
  lqt_status status = find_seam(d, &p, m->target, &s);
  if (status == LQT_OK) status = permit_members(d, &p, m->target);
  if (status == LQT_OK) {
    char source[1100];
    snprintf(source, sizeof source, "%s:%u", p.graph.modules[s.in.module].id, s.in.port);
    status = bypass(p.root, m->target, source) ? store_graph(d, p.root) : no_memory(d);
  }
  close_graph(&p);
  return status;
}

/* Puts what was taken back to its places. */
static bool put_back(json_t *array, const json_t *taken) {
  for (size_t i = 0; i < json_array_size(taken); i++) {
    const json_t *pair = json_array_get(taken, i);
    size_t place = (size_t)json_integer_value(json_array_get(pair, 0));
    if (place > json_array_size(array)) place = json_array_size(array);
    if (json_array_insert(array, place, json_array_get(pair, 1)) != 0) return false;
  }
  return true;
}

/* Removes the connections that the bypass made; false when one is not there any more. */
static bool unbridge(json_t *connections, const json_t *added) {
  for (size_t i = 0; i < json_array_size(added); i++) {
    size_t at = 0;
    while (at < json_array_size(connections) &&
           !json_equal(json_array_get(connections, at), json_array_get(added, i))) {
      at++;
    }
    if (at == json_array_size(connections)) return false;
    json_array_remove(connections, at);
  }
  return true;
}

lqt_status lqt__mutate_module_restore(lqt__draft *d, const lqt_mutation *m) {
  if (m->target == NULL) return no_module(d, NULL);
  plan p;
  LQT__TRY(open_graph(d, &p));
  json_t *list = json_object_get(p.root, "bypassed");
  size_t at = json_array_size(list);
  for (; at > 0; at--) { /* the file's word: nobody has checked the list */
    const char *id = json_string_value(json_object_get(json_array_get(list, at - 1), "id"));
    if (id != NULL && strcmp(id, m->target) == 0) break;
  }
  lqt_status status = LQT_OK;
  if (at == 0) {
    status = LQT__REFUSE(d, LQT_NOT_FOUND, "%.200s is not bypassed", m->target);
  } else {
    json_t *record = json_array_get(list, at - 1);
    json_t *connections = json_object_get(p.root, "connections");
    if (!unbridge(connections, json_object_get(record, "added"))) {
      status =
          LQT__REFUSE(d, LQT_CONFLICT,
                      "the graph around %.200s has changed since it was bypassed; restore what "
                      "was bypassed after it first",
                      m->target);
    } else if (!put_back(connections, json_object_get(record, "connections")) ||
               !put_back(p.modules, json_object_get(record, "modules")) ||
               json_object_set(p.root, "outputs", json_object_get(record, "outputs")) != 0) {
      status = no_memory(d);
    }
  }
  if (status == LQT_OK) {
    json_array_remove(list, at - 1);
    if (json_array_size(list) == 0) json_object_del(p.root, "bypassed");
    status = store_graph(d, p.root);
  }
  close_graph(&p);
  return status;
}

/* ---- Hyperparameters ---- */

static bool known_key(const char *key) {
  static const char *const keys[] = {"eps", "window", "scale", "rope.theta"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    if (strcmp(keys[i], key) == 0) return true;
  }
  return false;
}

/* Sets "key" or "object.key"; *out_done false when the module has no such number. */
static lqt_status set_number(lqt__draft *d, json_t *module, const char *key, float value,
                             bool *out_done) {
  json_t *object = json_object_get(module, "hyperparameters");
  const char *dot = strchr(key, '.'), *last = key;
  *out_done = false;
  if (object == NULL) return LQT_OK;
  if (dot != NULL) {
    char name[64];
    if ((size_t)(dot - key) >= sizeof name) return LQT_OK;
    memcpy(name, key, (size_t)(dot - key));
    name[dot - key] = '\0';
    object = json_object_get(object, name);
    if (!json_is_object(object)) return LQT_OK;
    last = dot + 1;
  }
  const json_t *was = json_object_get(object, last);
  if (was != NULL ? !json_is_number(was) : !known_key(key)) return LQT_OK;
  bool whole = (json_is_integer(was) || strcmp(last, "window") == 0) &&
               (double)value == floor((double)value) && fabs((double)value) < 1e15;
  json_t *number = whole ? json_integer((json_int_t)value) : json_real((double)value);
  if (number == NULL || json_object_set_new(object, last, number) != 0) return no_memory(d);
  *out_done = true;
  return LQT_OK;
}

/* Sets a number of every module of a type ("norm" stands for both norms). */
static lqt_status set_everywhere(lqt__draft *d, const plan *p, bool norms, const char *key,
                                 float value, size_t *changed) {
  for (size_t i = 0; i < p->graph.module_count; i++) {
    const lqt__module *m = &p->graph.modules[i];
    bool norm = m->type == LQT__MODULE_RMS_NORM || m->type == LQT__MODULE_LAYER_NORM;
    if (norms ? !norm : m->type != LQT__MODULE_ATTENTION) continue;
    bool done;
    LQT__TRY(lqt__rules_allow(d->rules, d->operation, m->id, d->diag));
    LQT__TRY(set_number(d, json_array_get(p->modules, (size_t)find_module(p, m->id)), key, value,
                        &done));
    *changed += done;
  }
  return LQT_OK;
}

static lqt_status set_global(lqt__draft *d, const char *key, float value) {
  static const struct {
    const char *key, *module_key;
    bool norms;
  } spread[] = {
      {"norm_eps", "eps", true}, {"rope_theta", "rope.theta", false}, {"window", "window", false}};
  size_t changed = 0;
  for (size_t i = 0; i < d->work->now.hyperparameter_count; i++) {
    changed += strcmp(d->work->now.hyperparameters[i].key, key) == 0;
  }
  if (changed != 0) LQT__TRY(lqt__draft_key(d, key, value));
  for (size_t i = 0; i < sizeof spread / sizeof *spread; i++) {
    if (strcmp(spread[i].key, key) != 0) continue;
    plan p;
    LQT__TRY(open_graph(d, &p));
    lqt_status status =
        set_everywhere(d, &p, spread[i].norms, spread[i].module_key, value, &changed);
    if (status == LQT_OK) status = store_graph(d, p.root);
    close_graph(&p);
    if (status != LQT_OK) return status;
  }
  if (changed != 0) return LQT_OK;
  return LQT__REFUSE(d, LQT_NOT_FOUND, "the model has no hyperparameter %.200s", key);
}

lqt_status lqt__mutate_hyperparameter(lqt__draft *d, const lqt_mutation *m) {
  if (m->other == NULL || m->value_count != 1) {
    return LQT__REFUSE(d, LQT_INVALID_ARGUMENT, "a hyperparameter needs a key and one value");
  }
  float value = m->values[0];
  if (!isfinite(value)) {
    return LQT__REFUSE(d, LQT_NOT_FINITE, "hyperparameter %.200s would not be finite", m->other);
  }
  if (m->target == NULL) return set_global(d, m->other, value);
  plan p;
  LQT__TRY(open_graph(d, &p));
  ptrdiff_t at = find_module(&p, m->target);
  bool done = false;
  lqt_status status = at < 0 ? no_module(d, m->target) : LQT_OK;
  if (status == LQT_OK) {
    status = set_number(d, json_array_get(p.modules, (size_t)at), m->other, value, &done);
  }
  if (status == LQT_OK && !done) {
    status =
        LQT__REFUSE(d, LQT_NOT_FOUND, "module %.200s has no number %.200s", m->target, m->other);
  }
  if (status == LQT_OK) status = store_graph(d, p.root);
  close_graph(&p);
  return status;
}

/* ---- Exchange ---- */

static lqt_status check_swappable(lqt__draft *d, const lqt__module *module) {
  bool flagged = module->tensor_count != 0;
  for (uint32_t i = 0; i < module->tensor_count; i++) {
    const lqt__tensor *t = &d->work->now.tensors[module->tensors[i].tensor];
    flagged = flagged && (t->flags & LQT__TENSOR_HOT_SWAPPABLE) != 0;
    LQT__TRY(lqt__draft_permit(d, t));
  }
  if (module->hot_swappable || flagged) return LQT_OK;
  return LQT__REFUSE(d, LQT_NOT_HOT_SWAPPABLE, "module %s is not hot-swappable", module->id);
}

/* Tensors that other modules use as well stay. */
static lqt_status check_alone(lqt__draft *d, const plan *p, const lqt__module *module) {
  for (size_t i = 0; i < p->graph.module_count; i++) {
    const lqt__module *other = &p->graph.modules[i];
    for (uint32_t k = 0; other != module && k < other->tensor_count; k++) {
      for (uint32_t j = 0; j < module->tensor_count; j++) {
        if (other->tensors[k].tensor != module->tensors[j].tensor) continue;
        return LQT__REFUSE(d, LQT_CONFLICT, "tensor %s belongs to module %s too",
                           d->work->now.tensors[other->tensors[k].tensor].name, other->id);
      }
    }
  }
  return LQT_OK;
}

static lqt_status check_interface(lqt__draft *d, const lqt__module *module,
                                  const lqt__module *source) {
  if (strcmp(module->type_name, source->type_name) == 0 &&
      module->input_count == source->input_count && module->output_count == source->output_count) {
    return LQT_OK;
  }
  return LQT__REFUSE(d, LQT_INCOMPATIBLE_INTERFACE,
                     "module %s is a %s of %u inputs and %u outputs; the replacement is a %s of %u "
                     "and %u",
                     module->id, module->type_name, module->input_count, module->output_count,
                     source->type_name, source->input_count, source->output_count);
}

/* The source's tensors under the target's names; its roles in *out_tensors. */
static lqt_status copy_module(lqt__draft *d, const lqt__module *module, const lqt_model *from,
                              const lqt__module *source, json_t *out_tensors) {
  for (uint32_t i = 0; i < source->tensor_count; i++) {
    const lqt__tensor *tensor = &from->file.tensors[source->tensors[i].tensor];
    const char *role = source->tensors[i].role;
    ptrdiff_t at = lqt__module_find_tensor(module, role);
    char name[2200];
    if (at >= 0) {
      snprintf(name, sizeof name, "%s", d->work->now.tensors[at].name);
    } else {
      snprintf(name, sizeof name, "%s.%s", module->id, role);
      if (lqt__file_find_tensor(&d->work->now, name) >= 0) {
        return LQT__REFUSE(d, LQT_CONFLICT, "there is a tensor %.500s already", name);
      }
    }
    LQT__TRY(lqt__copy_tensor(d, &from->file, tensor, name));
    if (json_object_set_new(out_tensors, role, json_string(name)) != 0) return no_memory(d);
  }
  return LQT_OK;
}

static lqt_status exchange(lqt__draft *d, const lqt_mutation *m, plan *p, const lqt_model *from) {
  const lqt__module *module = parsed_module(p, m->target);
  const char *id = m->other != NULL ? m->other : m->target;
  plan other = {.graph = from->graph};
  const lqt__module *source = parsed_module(&other, id);
  if (source == NULL) {
    return LQT__REFUSE(d, LQT_REPLACEMENT_INVALID, "%.100s has no module %.100s", from->path, id);
  }
  LQT__TRY(check_interface(d, module, source));
  json_t *tensors = json_object();
  if (tensors == NULL) return no_memory(d);
  lqt_status status = copy_module(d, module, from, source, tensors);
  json_t *json = json_array_get(p->modules, (size_t)find_module(p, m->target));
  if (status == LQT_OK && json_object_set(json, "tensors", tensors) != 0) status = no_memory(d);
  if (status == LQT_OK && source->hyperparameters != NULL) {
    json_t *copy = json_deep_copy(source->hyperparameters);
    if (copy == NULL || json_object_set_new(json, "hyperparameters", copy) != 0) {
      status = no_memory(d);
    }
  }
  json_decref(tensors);
  return status == LQT_OK ? store_graph(d, p->root) : status;
}

lqt_status lqt__mutate_module_swap(lqt__draft *d, const lqt_mutation *m) {
  if (m->target == NULL || (m->file == NULL) == (m->model == NULL)) {
    return LQT__REFUSE(d, LQT_INVALID_ARGUMENT,
                       "a module is exchanged for one of a file or of a model");
  }
  plan p;
  LQT__TRY(open_graph(d, &p));
  const lqt__module *module = parsed_module(&p, m->target);
  lqt_status status = module == NULL ? no_module(d, m->target) : check_swappable(d, module);
  if (status == LQT_OK) status = check_alone(d, &p, module);
  lqt_model *opened = NULL;
  const lqt_model *from = m->model;
  if (status == LQT_OK && from == NULL) {
    status = lqt__reference_open(m->file, NULL, &opened, d->diag);
    from = opened;
  }
  if (status == LQT_OK) {
    lqt_diag finding = {0};
    lqt_validate_options options = {.size = sizeof options, .no_integrity = true};
    if (lqt_model_validate(from, &options, NULL, NULL, &finding) != LQT_OK) {
      status = LQT__REFUSE(d, LQT_REPLACEMENT_INVALID, "%.100s: %s", from->path, finding.what);
    }
  }
  d->by_reference = m->file != NULL;
  if (status == LQT_OK) status = exchange(d, m, &p, from);
  lqt_model_release(opened);
  close_graph(&p);
  return status;
}
