/* Module graph: JSON -> modules in an order that can be executed. Shapes are checked in
 * graph_check.c. */
#include "model/graph.h"

#include <stdlib.h>
#include <string.h>

#include "base/diag.h"
#include "base/json.h"
#include "model/graph_check.h"

#define BAD(status, ...) lqt__fail(p->diag, status, p->where, __VA_ARGS__)

enum { MAX_MODULES = 1 << 20, NO_MODULE = -2 /* an input port that nothing feeds yet */ };

typedef struct named {
  const char *id;
  uint32_t index;
} named;

typedef struct parser {
  const lqt__file *file;
  const char *where;
  lqt__graph *graph;
  named *by_id; /* sorted; indices in the order of the JSON */
  lqt_diag *diag;
} parser;

static lqt_status no_memory(const parser *p) {
  return lqt__fail_memory(p->diag, p->where, 0, "the module graph");
}

static int compare_named(const void *a, const void *b) {
  return strcmp(((const named *)a)->id, ((const named *)b)->id);
}

/* A member that is a string, or NULL. Strings of jansson hold no zero bytes. */
static const char *text_of(const json_t *object, const char *key) {
  return json_string_value(json_object_get(object, key));
}

static char *copy_text(parser *p, const char *text) {
  return lqt__arena_strndup(&p->graph->arena, text, strlen(text));
}

/* A member that is an array; an absent one counts as empty. NULL when it is something else. */
static json_t *array_of(const json_t *object, const char *key, json_t *empty) {
  json_t *value = json_object_get(object, key);
  if (value == NULL) return empty;
  return json_is_array(value) ? value : NULL;
}

static lqt__module_type type_of(const char *name) {
  for (int type = 0; type < LQT__MODULE_TYPE_COUNT; type++) {
    if (strcmp(lqt__module_types[type].name, name) == 0) return (lqt__module_type)type;
  }
  return LQT__MODULE_TYPE_COUNT;
}

static lqt_status read_tensors(parser *p, const json_t *json, lqt__module *module) {
  json_t *tensors = json_object_get(json, "tensors");
  if (tensors == NULL) return LQT_OK;
  if (!json_is_object(tensors) || json_object_size(tensors) > LQT__MODULE_MAX_TENSORS) {
    return BAD(LQT_BAD_GRAPH, "\"tensors\" of module %s is not an object of at most %d names",
               module->id, LQT__MODULE_MAX_TENSORS);
  }
  const char *role;
  json_t *name;
  json_object_foreach(tensors, role, name) {
    if (!json_is_string(name)) {
      return BAD(LQT_BAD_GRAPH, "tensor \"%s\" of module %s is not a name", role, module->id);
    }
    ptrdiff_t tensor = lqt__file_find_tensor(p->file, json_string_value(name));
    if (tensor < 0) {
      return BAD(LQT_BAD_REFERENCE, "module %s names tensor %s, which is not there", module->id,
                 json_string_value(name));
    }
    char *copy = copy_text(p, role);
    if (copy == NULL) return no_memory(p);
    module->tensors[module->tensor_count++] =
        (lqt__module_tensor){.role = copy, .tensor = (uint32_t)tensor};
  }
  return LQT_OK;
}

static bool all_strings(const json_t *array) {
  for (size_t i = 0; i < json_array_size(array); i++) {
    if (!json_is_string(json_array_get(array, i))) return false;
  }
  return true;
}

static lqt_status read_ports(parser *p, const json_t *json, lqt__module *module) {
  const json_t *inputs = json_object_get(json, "inputs");
  const json_t *outputs = json_object_get(json, "outputs");
  if (!json_is_array(inputs) || !json_is_array(outputs) ||
      json_array_size(inputs) > LQT__MODULE_MAX_PORTS ||
      json_array_size(outputs) > LQT__MODULE_MAX_PORTS || json_array_size(outputs) == 0 ||
      !all_strings(inputs) || !all_strings(outputs)) {
    return BAD(LQT_BAD_GRAPH, "\"inputs\" and \"outputs\" of module %s are not 1 to %d port names",
               module->id, LQT__MODULE_MAX_PORTS);
  }
  module->input_count = (uint32_t)json_array_size(inputs);
  module->output_count = (uint32_t)json_array_size(outputs);
  for (uint32_t i = 0; i < module->input_count; i++) module->inputs[i].module = NO_MODULE;
  return LQT_OK;
}

static lqt_status read_flags(parser *p, const json_t *json, lqt__module *module) {
  const json_t *flags = json_object_get(json, "flags");
  if (flags == NULL) return LQT_OK;
  if (!json_is_array(flags) || !all_strings(flags)) {
    return BAD(LQT_BAD_GRAPH, "\"flags\" of module %s is not an array of names", module->id);
  }
  for (size_t i = 0; i < json_array_size(flags); i++) {
    if (strcmp(json_string_value(json_array_get(flags, i)), "hot_swappable") == 0) {
      module->hot_swappable = true;
    }
  }
  return LQT_OK;
}

static lqt_status read_module(parser *p, json_t *json, size_t index, lqt__module *module) {
  const char *id = text_of(json, "id"), *type = text_of(json, "type");
  if (id == NULL || id[0] == '\0' || strlen(id) > 1024 || strchr(id, ':') != NULL) {
    return BAD(LQT_BAD_GRAPH, "module %zu has no \"id\" of 1 to 1024 characters without ':'",
               index);
  }
  if (type == NULL || type[0] == '\0') return BAD(LQT_BAD_GRAPH, "module %s has no \"type\"", id);
  module->id = copy_text(p, id);
  module->type_name = copy_text(p, type);
  if (module->id == NULL || module->type_name == NULL) return no_memory(p);
  module->type = type_of(type);
  json_t *hyperparameters = json_object_get(json, "hyperparameters");
  json_t *hooks = json_object_get(json, "mutation_hooks");
  if ((hyperparameters != NULL && !json_is_object(hyperparameters)) ||
      (hooks != NULL && !json_is_object(hooks))) {
    return BAD(LQT_BAD_GRAPH, "\"hyperparameters\" or \"mutation_hooks\" of module %s is no object",
               id);
  }
  module->hyperparameters = hyperparameters;
  LQT__TRY(read_ports(p, json, module));
  LQT__TRY(read_tensors(p, json, module));
  return read_flags(p, json, module);
}

static lqt_status read_modules(parser *p) {
  lqt__graph *graph = p->graph;
  json_t *modules = json_object_get(graph->root, "modules");
  size_t count = json_array_size(modules);
  if (!json_is_array(modules) || count == 0 || count > MAX_MODULES) {
    return BAD(LQT_BAD_GRAPH, "\"modules\" is not an array of 1 to %d modules", MAX_MODULES);
  }
  graph->modules = lqt__arena_array(&graph->arena, count, sizeof *graph->modules);
  p->by_id = lqt__arena_array(&graph->arena, count, sizeof *p->by_id);
  if (graph->modules == NULL || p->by_id == NULL) return no_memory(p);
  for (size_t i = 0; i < count; i++) {
    LQT__TRY(read_module(p, json_array_get(modules, i), i, &graph->modules[i]));
    p->by_id[i] = (named){.id = graph->modules[i].id, .index = (uint32_t)i};
  }
  graph->module_count = count;
  qsort(p->by_id, count, sizeof *p->by_id, compare_named);
  for (size_t i = 1; i < count; i++) {
    if (strcmp(p->by_id[i - 1].id, p->by_id[i].id) == 0) {
      return BAD(LQT_BAD_GRAPH, "two modules are called %s", p->by_id[i].id);
    }
  }
  return LQT_OK;
}

/* "id:port" -> module and port. */
static lqt_status resolve(parser *p, const char *text, bool output, lqt__port_ref *out) {
  const char *colon = text != NULL ? strrchr(text, ':') : NULL;
  size_t digits = colon != NULL ? strlen(colon + 1) : 0;
  if (digits == 0 || digits > 2 || strspn(colon + 1, "0123456789") != digits) {
    return BAD(LQT_BAD_GRAPH, "\"%.200s\" is not \"module:port\"", text != NULL ? text : "");
  }
  size_t length = (size_t)(colon - text);
  size_t low = 0, high = p->graph->module_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const char *id = p->by_id[middle].id;
    int order = strncmp(id, text, length);
    if (order == 0) order = id[length] != '\0';
    if (order == 0) {
      uint32_t port = (uint32_t)strtoul(colon + 1, NULL, 10);
      const lqt__module *module = &p->graph->modules[p->by_id[middle].index];
      if (port >= (output ? module->output_count : module->input_count)) {
        return BAD(LQT_BAD_REFERENCE, "module %s has no %s port %u", module->id,
                   output ? "output" : "input", port);
      }
      *out = (lqt__port_ref){.module = (int32_t)p->by_id[middle].index, .port = port};
      return LQT_OK;
    }
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return BAD(LQT_BAD_REFERENCE, "\"%.200s\" names a module that is not there", text);
}

/* Feeds the input port `to` from `source`; a port is fed once. */
static lqt_status feed(parser *p, const char *to, lqt__port_ref source) {
  lqt__port_ref target;
  LQT__TRY(resolve(p, to, false, &target));
  lqt__port_ref *port = &p->graph->modules[target.module].inputs[target.port];
  if (port->module != NO_MODULE) {
    return BAD(LQT_BAD_GRAPH, "input port \"%.200s\" is fed twice", to);
  }
  *port = source;
  return LQT_OK;
}

static lqt_status read_connections(parser *p, json_t *empty) {
  const json_t *connections = array_of(p->graph->root, "connections", empty);
  if (connections == NULL) return BAD(LQT_BAD_GRAPH, "\"connections\" is not an array");
  for (size_t i = 0; i < json_array_size(connections); i++) {
    const json_t *connection = json_array_get(connections, i);
    lqt__port_ref source;
    LQT__TRY(resolve(p, text_of(connection, "from"), true, &source));
    LQT__TRY(feed(p, text_of(connection, "to"), source));
  }
  return LQT_OK;
}

static lqt_status check_name(parser *p, char **names, size_t count, const char *name,
                             const char *what) {
  if (name == NULL || name[0] == '\0')
    return BAD(LQT_BAD_GRAPH, "a graph %s has no \"name\"", what);
  for (size_t i = 0; i < count; i++) {
    if (strcmp(names[i], name) == 0) return BAD(LQT_BAD_GRAPH, "two %ss are called %s", what, name);
  }
  return LQT_OK;
}

/* Graph inputs: {"name", "to": one port or an array of ports}. */
static lqt_status read_inputs(parser *p, json_t *empty) {
  lqt__graph *graph = p->graph;
  const json_t *inputs = array_of(graph->root, "inputs", empty);
  size_t count = json_array_size(inputs);
  if (inputs == NULL || count == 0 || count > 64) {
    return BAD(LQT_BAD_GRAPH, "\"inputs\" is not an array of 1 to 64 inputs");
  }
  graph->inputs = lqt__arena_array(&graph->arena, count, sizeof *graph->inputs);
  if (graph->inputs == NULL) return no_memory(p);
  for (size_t i = 0; i < count; i++) {
    const json_t *input = json_array_get(inputs, i), *to = json_object_get(input, "to");
    const char *name = text_of(input, "name");
    LQT__TRY(check_name(p, graph->inputs, i, name, "input"));
    graph->inputs[i] = copy_text(p, name);
    if (graph->inputs[i] == NULL) return no_memory(p);
    graph->input_count = i + 1;
    lqt__port_ref source = {.module = -1, .port = (uint32_t)i};
    if (!json_is_array(to)) {
      LQT__TRY(feed(p, json_string_value(to), source));
      continue;
    }
    for (size_t k = 0; k < json_array_size(to); k++) {
      LQT__TRY(feed(p, json_string_value(json_array_get(to, k)), source));
    }
  }
  return LQT_OK;
}

static lqt_status read_outputs(parser *p, json_t *empty) {
  lqt__graph *graph = p->graph;
  const json_t *outputs = array_of(graph->root, "outputs", empty);
  size_t count = json_array_size(outputs);
  if (outputs == NULL || count == 0 || count > 64) {
    return BAD(LQT_BAD_GRAPH, "\"outputs\" is not an array of 1 to 64 outputs");
  }
  graph->output_names = lqt__arena_array(&graph->arena, count, sizeof *graph->output_names);
  graph->outputs = lqt__arena_array(&graph->arena, count, sizeof *graph->outputs);
  if (graph->output_names == NULL || graph->outputs == NULL) return no_memory(p);
  for (size_t i = 0; i < count; i++) {
    const json_t *output = json_array_get(outputs, i);
    const char *name = text_of(output, "name");
    LQT__TRY(check_name(p, graph->output_names, i, name, "output"));
    graph->output_names[i] = copy_text(p, name);
    if (graph->output_names[i] == NULL) return no_memory(p);
    LQT__TRY(resolve(p, text_of(output, "from"), true, &graph->outputs[i]));
    graph->output_count = i + 1;
  }
  return LQT_OK;
}

static lqt_status check_fed(parser *p) {
  for (size_t i = 0; i < p->graph->module_count; i++) {
    const lqt__module *module = &p->graph->modules[i];
    for (uint32_t k = 0; k < module->input_count; k++) {
      if (module->inputs[k].module == NO_MODULE) {
        return BAD(LQT_BAD_GRAPH, "nothing feeds input port %u of module %s", k, module->id);
      }
    }
  }
  return LQT_OK;
}

/* Depth first from the first module on: a list that is in order already stays as it is. The stack
 * is in memory, so that a long chain cannot exhaust the thread's. */
static lqt_status sort_modules(parser *p) {
  lqt__graph *graph = p->graph;
  size_t count = graph->module_count, done = 0;
  uint32_t *place = lqt__arena_array(&graph->arena, count, sizeof *place); /* new index + 1 */
  uint32_t *stack = lqt__arena_array(&graph->arena, count, sizeof *stack);
  uint8_t *next = lqt__arena_array(&graph->arena, count, sizeof *next); /* port + 1; 0 unseen */
  lqt__module *sorted = lqt__arena_array(&graph->arena, count, sizeof *sorted);
  if (place == NULL || stack == NULL || next == NULL || sorted == NULL) return no_memory(p);
  for (size_t start = 0; start < count; start++) {
    size_t depth = 0;
    if (next[start] == 0) {
      stack[depth++] = (uint32_t)start;
      next[start] = 1;
    }
    while (depth > 0) {
      uint32_t at = stack[depth - 1];
      const lqt__module *module = &graph->modules[at];
      if (next[at] > module->input_count) {
        sorted[done++] = *module;
        place[at] = (uint32_t)done;
        depth--;
        continue;
      }
      int32_t from = module->inputs[next[at]++ - 1].module;
      if (from < 0 || place[from] != 0) continue;
      if (next[from] != 0) {
        return BAD(LQT_BAD_GRAPH, "modules %s and %s are part of a cycle", graph->modules[from].id,
                   module->id);
      }
      stack[depth++] = (uint32_t)from;
      next[from] = 1;
    }
  }
  for (size_t i = 0; i < count; i++) {
    for (uint32_t k = 0; k < sorted[i].input_count; k++) {
      int32_t from = sorted[i].inputs[k].module;
      if (from >= 0) sorted[i].inputs[k].module = (int32_t)place[from] - 1;
    }
  }
  for (size_t i = 0; i < graph->output_count; i++) {
    graph->outputs[i].module = (int32_t)place[graph->outputs[i].module] - 1;
  }
  graph->modules = sorted;
  return LQT_OK;
}

static lqt_status parse(parser *p, const char *json, size_t bytes) {
  lqt__graph *graph = p->graph;
  LQT__TRY(lqt__json_parse(json, bytes, p->where, &graph->root, p->diag));
  const json_t *version = json_object_get(graph->root, "version");
  if (!json_is_integer(version) || json_integer_value(version) != 1) {
    return BAD(LQT_BAD_GRAPH, "the module graph has no \"version\": 1");
  }
  LQT__TRY(read_modules(p));
  json_t *empty = json_array();
  if (empty == NULL) return no_memory(p);
  lqt_status status = read_connections(p, empty);
  if (status == LQT_OK) status = read_inputs(p, empty);
  if (status == LQT_OK) status = read_outputs(p, empty);
  json_decref(empty);
  if (status == LQT_OK) status = check_fed(p);
  if (status == LQT_OK) status = sort_modules(p);
  if (status == LQT_OK) status = lqt__graph_check(p->file, graph, p->where, p->diag);
  return status;
}

lqt_status lqt__graph_parse(const lqt__file *file, const char *json, size_t bytes,
                            const char *where, lqt__graph *out, lqt_diag *diag) {
  *out = (lqt__graph){0};
  parser p = {.file = file, .where = where, .graph = out, .diag = diag};
  lqt_status status = parse(&p, json, bytes);
  if (status != LQT_OK) lqt__graph_free(out);
  return status;
}

void lqt__graph_free(lqt__graph *graph) {
  json_decref(graph->root);
  lqt__arena_free(&graph->arena);
  *graph = (lqt__graph){0};
}

ptrdiff_t lqt__module_find_tensor(const lqt__module *module, const char *role) {
  for (uint32_t i = 0; i < module->tensor_count; i++) {
    if (strcmp(module->tensors[i].role, role) == 0) return (ptrdiff_t)module->tensors[i].tensor;
  }
  return -1;
}

double lqt__module_number(const lqt__module *module, const char *key, double fallback) {
  const json_t *value = json_object_get(module->hyperparameters, key);
  return json_is_number(value) ? json_number_value(value) : fallback;
}
