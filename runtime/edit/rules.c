#include "edit/rules.h"

#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "base/json.h"

#define BAD(...) lqt__fail(diag, LQT_BAD_METADATA, where, __VA_ARGS__)

static lqt_status check_bounds(const json_t *bounds, const char *where, lqt_diag *diag) {
  if (bounds == NULL) return LQT_OK;
  const json_t *low = json_array_get(bounds, 0), *high = json_array_get(bounds, 1);
  if (json_array_size(bounds) != 2 || !json_is_number(low) || !json_is_number(high) ||
      json_number_value(low) > json_number_value(high)) {
    return BAD("\"value_bounds\" of the mutation rules are not [low, high]");
  }
  return LQT_OK;
}

static lqt_status check_deny(const json_t *deny, const char *where, lqt_diag *diag) {
  if (deny == NULL) return LQT_OK;
  if (!json_is_array(deny)) return BAD("\"deny\" of the mutation rules is not an array of names");
  for (size_t i = 0; i < json_array_size(deny); i++) {
    const char *name = json_string_value(json_array_get(deny, i));
    bool known = name != NULL && strcmp(name, "*") == 0;
    for (int op = 1; name != NULL && !known && lqt_operation_name((lqt_operation)op) != NULL;
         op++) {
      known = strcmp(lqt_operation_name((lqt_operation)op), name) == 0;
    }
    if (!known) {
      return BAD("\"deny\" of the mutation rules names no operation: %.64s",
                 name != NULL ? name : "not a string");
    }
  }
  return LQT_OK;
}

static lqt_status check_rules(const json_t *root, const char *where, lqt_diag *diag) {
  if (!json_is_object(root)) return BAD("the mutation rules are not an object");
  const json_t *density = json_object_get(root, "min_mask_density");
  if (density != NULL && !json_is_number(density)) {
    return BAD("\"min_mask_density\" of the mutation rules is not a number");
  }
  LQT__TRY(check_bounds(json_object_get(root, "value_bounds"), where, diag));
  LQT__TRY(check_deny(json_object_get(root, "deny"), where, diag));
  const json_t *targets = json_object_get(root, "targets");
  if (targets != NULL && !json_is_array(targets)) {
    return BAD("\"targets\" of the mutation rules is not an array");
  }
  for (size_t i = 0; i < json_array_size(targets); i++) {
    const json_t *target = json_array_get(targets, i);
    if (!json_is_string(json_object_get(target, "match"))) {
      return BAD("target %zu of the mutation rules has no \"match\"", i);
    }
    LQT__TRY(check_bounds(json_object_get(target, "value_bounds"), where, diag));
    LQT__TRY(check_deny(json_object_get(target, "deny"), where, diag));
  }
  return LQT_OK;
}

lqt_status lqt__rules_read(const lqt_model *model, lqt__rules *out, lqt_diag *diag) {
  *out = (lqt__rules){.least_density = 1};
  const lqt__chunk *chunk = lqt__file_chunk(&model->file, LQT__CHUNK_MUTATION_RULES);
  if (chunk == NULL) return LQT_OK;
  LQT__TRY(lqt__json_parse((const char *)chunk->data, chunk->bytes, model->path, &out->root, diag));
  lqt_status status = check_rules(out->root, model->path, diag);
  if (status != LQT_OK) {
    lqt__rules_free(out);
    return status;
  }
  const json_t *density = json_object_get(out->root, "min_mask_density");
  if (density != NULL) out->least_density = json_number_value(density);
  return LQT_OK;
}

void lqt__rules_free(lqt__rules *rules) {
  json_decref(rules->root);
  *rules = (lqt__rules){0};
}

static bool denies(const json_t *object, lqt_operation operation) {
  const json_t *deny = json_object_get(object, "deny");
  const char *wanted = lqt_operation_name(operation);
  for (size_t i = 0; i < json_array_size(deny); i++) {
    const char *name = json_string_value(json_array_get(deny, i));
    if (strcmp(name, "*") == 0 || strcmp(name, wanted) == 0) return true;
  }
  return false;
}

static bool matches(const json_t *target, const char *name) {
  return name != NULL &&
         fnmatch(json_string_value(json_object_get(target, "match")), name, FNM_NOESCAPE) == 0;
}

lqt_status lqt__rules_allow(const lqt__rules *rules, lqt_operation operation, const char *name,
                            lqt_diag *diag) {
  bool denied = denies(rules->root, operation);
  const json_t *targets = json_object_get(rules->root, "targets");
  for (size_t i = 0; i < json_array_size(targets) && !denied; i++) {
    const json_t *target = json_array_get(targets, i);
    denied = matches(target, name) && denies(target, operation);
  }
  if (!denied) return LQT_OK;
  return lqt__fail(diag, LQT_PERMISSION_DENIED, name != NULL ? name : "mutation rules",
                   "the file's mutation rules deny %s", lqt_operation_name(operation));
}

static void narrow(const json_t *object, double *low, double *high) {
  const json_t *bounds = json_object_get(object, "value_bounds");
  if (bounds == NULL) return;
  *low = fmax(*low, json_number_value(json_array_get(bounds, 0)));
  *high = fmin(*high, json_number_value(json_array_get(bounds, 1)));
}

void lqt__rules_bounds(const lqt__rules *rules, const char *name, double *out_low,
                       double *out_high) {
  *out_low = -INFINITY;
  *out_high = INFINITY;
  narrow(rules->root, out_low, out_high);
  const json_t *targets = json_object_get(rules->root, "targets");
  for (size_t i = 0; i < json_array_size(targets); i++) {
    const json_t *target = json_array_get(targets, i);
    if (matches(target, name)) narrow(target, out_low, out_high);
  }
}
