/* lqt log: the journal of a model's edits. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "log.h"

static void hex(const uint8_t *bytes, size_t count, char *out) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < count; i++) {
    out[2 * i] = digits[bytes[i] >> 4];
    out[2 * i + 1] = digits[bytes[i] & 15];
  }
  out[2 * count] = '\0';
}

static void time_text(uint64_t ns, char out[40]) {
  time_t seconds = (time_t)(ns / 1000000000u);
  struct tm parts;
  size_t used = 0;
  if (gmtime_r(&seconds, &parts) != NULL) used = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &parts);
  snprintf(out + used, 40 - used, ".%03uZ", (unsigned)(ns / 1000000u % 1000u));
}

static const struct {
  uint32_t flag;
  const char *name;
} flag_names[] = {{LQT_JOURNAL_TEMPORARY, "temporary"},
                  {LQT_JOURNAL_ROLLBACK, "rollback"},
                  {LQT_JOURNAL_EXPIRED, "expired"},
                  {LQT_JOURNAL_PARTIAL, "partial"}};
enum { FLAG_COUNT = sizeof flag_names / sizeof flag_names[0] };

static const char *operation_name(uint8_t operation) {
  const char *name = lqt_operation_name((lqt_operation)operation);
  return name != NULL ? name : "?";
}

/* ---- JSON ---- */

static json_t *optional_text(const char *text) {
  return text != NULL ? tool_json_text(text, strlen(text)) : json_null();
}

static json_t *hex_json(const uint8_t *bytes, size_t count) {
  char text[65];
  if (bytes == NULL) return json_null();
  hex(bytes, count, text);
  return json_string(text);
}

static json_t *operation_json(const lqt_journal_operation_info *info, bool payload) {
  json_t *item =
      json_pack("{s:s, s:I, s:o, s:o, s:o, s:o}", "operation", operation_name(info->operation),
                "number", (json_int_t)info->operation, "target", optional_text(info->target), "id",
                info->target_id != LQT_ID_NONE ? json_integer(info->target_id) : json_null(),
                "file", optional_text(info->file), "file_sha256", hex_json(info->file_sha256, 32));
  if (item == NULL || !payload) return item;
  char *text = malloc(2 * info->payload_bytes + 1);
  if (text == NULL) {
    json_decref(item);
    return NULL;
  }
  hex(info->payload, info->payload_bytes, text);
  json_object_set_new(item, "payload", json_string(text));
  free(text);
  return item;
}

static json_t *change_json(const lqt_journal_change_info *info) {
  return json_pack("{s:s, s:s, s:o, s:o, s:I, s:o, s:o, s:o}", "kind", info->kind, "what",
                   info->what, "name", optional_text(info->name), "id",
                   info->id != LQT_ID_NONE ? json_integer(info->id) : json_null(), "offset",
                   (json_int_t)info->offset, "old_bytes",
                   info->has_old ? json_integer((json_int_t)info->old_bytes) : json_null(),
                   "new_bytes",
                   info->has_new ? json_integer((json_int_t)info->new_bytes) : json_null(),
                   "old_sha256", hex_json(info->old_sha256, 32));
}

static json_t *info_json(const lqt_journal_entry_info *info) {
  char when[40];
  time_text(info->timestamp_ns, when);
  json_t *flags = json_array();
  for (size_t i = 0; i < FLAG_COUNT; i++) {
    if ((info->flags & flag_names[i].flag) != 0) {
      json_array_append_new(flags, json_string(flag_names[i].name));
    }
  }
  bool refers = (info->flags & (LQT_JOURNAL_ROLLBACK | LQT_JOURNAL_EXPIRED)) != 0;
  return json_pack("{s:I, s:s, s:I, s:o, s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:o, s:b, s:o, s:b}",
                   "revision", (json_int_t)info->revision, "time", when, "timestamp_ns",
                   (json_int_t)info->timestamp_ns, "actor", optional_text(info->actor), "user",
                   (json_int_t)info->user, "reason", optional_text(info->reason), "flags", flags,
                   "reference", refers ? json_integer((json_int_t)info->reference) : json_null(),
                   "changes", (json_int_t)info->changes, "changed_bytes",
                   (json_int_t)info->changed_bytes, "stored_bytes", (json_int_t)info->stored_bytes,
                   "hash", hex_json(info->hash, 32), "signed", info->is_signed, "key",
                   hex_json(info->is_signed ? info->key : NULL, 32), "in_base", info->in_base);
}

/* A transaction; `whole` with payloads and changes. *out NULL: no memory. */
static lqt_status entry_json(lqt_journal *journal, size_t index, bool whole, json_t **out,
                             lqt_diag *diag) {
  lqt_journal_entry_info info;
  *out = NULL;
  lqt_status status = lqt_journal_entry(journal, index, &info, diag);
  if (status != LQT_OK) return status;
  json_t *item = info_json(&info), *operations = json_array();
  for (size_t i = 0; i < info.operations && status == LQT_OK; i++) {
    lqt_journal_operation_info operation;
    status = lqt_journal_operation(journal, index, i, &operation, diag);
    if (status == LQT_OK) {
      json_array_append_new(operations, operation_json(&operation, whole));
    }
  }
  json_object_set_new(item, "operations", operations);
  json_t *changes = whole ? json_array() : NULL;
  for (size_t i = 0; whole && i < info.changes && status == LQT_OK; i++) {
    lqt_journal_change_info change;
    status = lqt_journal_change(journal, index, i, &change, diag);
    if (status == LQT_OK) json_array_append_new(changes, change_json(&change));
  }
  if (whole) json_object_set_new(item, "change_list", changes);
  if (status != LQT_OK) {
    json_decref(item);
    return status;
  }
  *out = item;
  return LQT_OK;
}

static int print_list_json(const char *command, lqt_journal *journal) {
  lqt_diag diag = {0};
  json_t *array = json_array();
  for (size_t i = 0; i < lqt_journal_count(journal); i++) {
    json_t *item;
    lqt_status status = entry_json(journal, i, false, &item, &diag);
    if (status != LQT_OK) {
      json_decref(array);
      return tool_fail(command, status, &diag);
    }
    json_array_append_new(array, item);
  }
  return tool_print_json(command, array);
}

/* ---- Tables ---- */

/* Prints text of a journal, which is anybody's: control characters become '?', so that it can
 * neither forge lines of the table nor talk to the terminal. (JSON escapes them by itself.) */
static void put_text(const char *text) {
  for (const unsigned char *at = (const unsigned char *)text; *at != '\0'; at++) {
    /* C1 controls are 0xC2 0x80 to 0xC2 0x9F in UTF-8. */
    bool high = at[0] == 0xC2 && at[1] >= 0x80 && at[1] < 0xA0;
    putchar(*at < 0x20 || *at == 0x7F || high ? '?' : *at);
    if (high) at++;
  }
}

/* "codebook_entries of codebook 3", the first operation and how many more there are. */
static lqt_status summary(lqt_journal *journal, size_t index, const lqt_journal_entry_info *info,
                          char *out, size_t size, lqt_diag *diag) {
  size_t used = 0;
  out[0] = '\0';
  for (size_t i = 0; i < FLAG_COUNT; i++) {
    if ((info->flags & flag_names[i].flag) == 0) continue;
    bool refers = (flag_names[i].flag & (LQT_JOURNAL_ROLLBACK | LQT_JOURNAL_EXPIRED)) != 0;
    char reference[32] = "";
    if (refers) snprintf(reference, sizeof reference, " of %" PRIu64, info->reference);
    snprintf(out + used, size - used, "%s%s; ", flag_names[i].name, reference);
    used = strlen(out);
  }
  if (info->operations == 0) {
    snprintf(out + used, size - used, "%zu change%s", info->changes, info->changes == 1 ? "" : "s");
    return LQT_OK;
  }
  lqt_journal_operation_info operation;
  lqt_status status = lqt_journal_operation(journal, index, 0, &operation, diag);
  if (status != LQT_OK) return status;
  snprintf(out + used, size - used, "%s", operation_name(operation.operation));
  used = strlen(out);
  if (operation.target != NULL) {
    snprintf(out + used, size - used, " %s", operation.target);
  } else if (operation.target_id != LQT_ID_NONE) {
    snprintf(out + used, size - used, " %u", operation.target_id);
  }
  used = strlen(out);
  if (info->operations > 1) {
    snprintf(out + used, size - used, " and %zu more", info->operations - 1);
  }
  return LQT_OK;
}

static int print_list(const char *command, lqt_journal *journal) {
  lqt_diag diag = {0};
  size_t count = lqt_journal_count(journal);
  if (count == 0) puts("no transactions");
  for (size_t i = 0; i < count; i++) {
    lqt_journal_entry_info info;
    char when[40], what[256], size[32];
    lqt_status status = lqt_journal_entry(journal, i, &info, &diag);
    if (status == LQT_OK) status = summary(journal, i, &info, what, sizeof what, &diag);
    if (status != LQT_OK) return tool_fail(command, status, &diag);
    time_text(info.timestamp_ns, when);
    const char *actor = info.actor != NULL ? info.actor : "-";
    printf("%6" PRIu64 "  %s  ", info.revision, when);
    put_text(actor);
    int padding = strlen(actor) < 12 ? 12 - (int)strlen(actor) : 0;
    printf("%*s %9s  ", padding, "", tool_size_text(info.changed_bytes, size));
    put_text(what);
    if (info.is_signed) fputs("  [signed]", stdout);
    if (info.reason != NULL) {
      fputs("  ", stdout);
      put_text(info.reason);
    }
    putchar('\n');
  }
  return TOOL_DONE;
}

static void print_operation(const lqt_journal_operation_info *info) {
  printf("  operation %s", operation_name(info->operation));
  if (info->target != NULL) {
    putchar(' ');
    put_text(info->target);
  }
  if (info->target_id != LQT_ID_NONE) printf(" %u", info->target_id);
  if (info->file != NULL) {
    char digest[65];
    hex(info->file_sha256, 32, digest);
    fputs(" from ", stdout);
    put_text(info->file);
    printf(" (SHA-256 %s)", digest);
  }
  printf(", %zu bytes\n", info->payload_bytes);
}

static void print_change(const lqt_journal_change_info *info) {
  printf("  change    %s of %s", info->kind, info->what);
  if (info->name != NULL) {
    putchar(' ');
    put_text(info->name);
  }
  if (info->id != LQT_ID_NONE) printf(" %u", info->id);
  if (!info->has_old) {
    printf(": created, %" PRIu64 " bytes\n", info->new_bytes);
  } else if (!info->has_new) {
    printf(": removed, %" PRIu64 " bytes\n", info->old_bytes);
  } else {
    printf(" at %" PRIu64 ": %" PRIu64 " bytes", info->offset, info->new_bytes);
    if (info->old_bytes != info->new_bytes) printf(" for %" PRIu64, info->old_bytes);
    putchar('\n');
  }
}

static int print_entry(const char *command, lqt_journal *journal, size_t index) {
  lqt_diag diag = {0};
  lqt_journal_entry_info info;
  char when[40], text[65];
  lqt_status status = lqt_journal_entry(journal, index, &info, &diag);
  if (status != LQT_OK) return tool_fail(command, status, &diag);
  time_text(info.timestamp_ns, when);
  hex(info.hash, 32, text);
  printf("revision %" PRIu64 "\n  time      %s\n  hash      %s\n", info.revision, when, text);
  hex(info.key, 32, text);
  printf("  signed    %s\n", info.is_signed ? text : "no");
  fputs("  actor     ", stdout);
  put_text(info.actor != NULL ? info.actor : "-");
  printf(" (user %u)\n", info.user);
  if (info.reason != NULL) {
    fputs("  reason    ", stdout);
    put_text(info.reason);
    putchar('\n');
  }
  for (size_t i = 0; i < FLAG_COUNT; i++) {
    if ((info.flags & flag_names[i].flag) != 0) printf("  flag      %s\n", flag_names[i].name);
  }
  if ((info.flags & (LQT_JOURNAL_ROLLBACK | LQT_JOURNAL_EXPIRED)) != 0) {
    printf("  of        revision %" PRIu64 "\n", info.reference);
  }
  for (size_t i = 0; i < info.operations && status == LQT_OK; i++) {
    lqt_journal_operation_info operation;
    status = lqt_journal_operation(journal, index, i, &operation, &diag);
    if (status == LQT_OK) print_operation(&operation);
  }
  for (size_t i = 0; i < info.changes && status == LQT_OK; i++) {
    lqt_journal_change_info change;
    status = lqt_journal_change(journal, index, i, &change, &diag);
    if (status == LQT_OK) print_change(&change);
  }
  return status == LQT_OK ? TOOL_DONE : tool_fail(command, status, &diag);
}

/* ---- Actions ---- */

static int list(const char *command, const log_args *args, lqt_journal *journal) {
  return args->json ? print_list_json(command, journal) : print_list(command, journal);
}

static int show(const char *command, const log_args *args, lqt_journal *journal) {
  lqt_diag diag = {0};
  for (size_t i = 0; i < lqt_journal_count(journal); i++) {
    lqt_journal_entry_info info;
    lqt_status status = lqt_journal_entry(journal, i, &info, &diag);
    if (status != LQT_OK) return tool_fail(command, status, &diag);
    if (info.revision != args->revision) continue;
    if (!args->json) return print_entry(command, journal, i);
    json_t *item;
    status = entry_json(journal, i, true, &item, &diag);
    return status == LQT_OK ? tool_print_json(command, item) : tool_fail(command, status, &diag);
  }
  return tool_error(command, TOOL_BAD_INPUT, lqt_journal_path(journal),
                    "there is no revision %" PRIu64 "; the last is %" PRIu64, args->revision,
                    lqt_journal_revision(journal));
}

static int head(const char *command, const log_args *args, lqt_journal *journal) {
  uint8_t hash[32];
  char text[65];
  lqt_journal_head(journal, hash);
  hex(hash, 32, text);
  if (args->json) {
    return tool_print_json(command, json_pack("{s:s, s:I}", "head", text, "revision",
                                              (json_int_t)lqt_journal_revision(journal)));
  }
  puts(text);
  return TOOL_DONE;
}

/* One line of JSON a transaction. */
static int export(const char *command, const log_args *args, lqt_journal *journal) {
  lqt_diag diag = {0};
  FILE *out = args->output != NULL ? fopen(args->output, "w") : stdout;
  if (out == NULL) {
    return tool_error(command, TOOL_BAD_INPUT, args->output, "cannot be written: %m");
  }
  lqt_status status = LQT_OK;
  bool failed = false;
  for (size_t i = 0; i < lqt_journal_count(journal) && status == LQT_OK && !failed; i++) {
    json_t *item;
    status = entry_json(journal, i, true, &item, &diag);
    if (status != LQT_OK) break;
    failed = item == NULL || tool_json_failed() || json_dumpf(item, out, JSON_COMPACT) != 0 ||
             fputc('\n', out) == EOF;
    json_decref(item);
  }
  if (fflush(out) != 0) failed = true;
  if (out != stdout && fclose(out) != 0) failed = true;
  if (status != LQT_OK) return tool_fail(command, status, &diag);
  if (!failed) return TOOL_DONE;
  return tool_error(command, TOOL_BAD_INPUT, args->output, "the export could not be written");
}

/* Is what verification found the journal's fault? */
static bool is_verdict(lqt_status status) {
  return status == LQT_BAD_JOURNAL || status == LQT_BAD_SIGNATURE || status == LQT_BAD_MAGIC ||
         status == LQT_BAD_VERSION || status == LQT_WRONG_BASE || status == LQT_TRUNCATED;
}

static int verify(const char *command, const log_args *args, lqt_model *model,
                  const lqt_journal_options *options) {
  lqt_diag diag = {0};
  lqt_journal_check check;
  lqt_status status =
      lqt_journal_verify(model, options, args->has_head ? args->head : NULL, &check, &diag);
  if (status != LQT_OK && !is_verdict(status)) return tool_fail(command, status, &diag);
  char text[65];
  hex(check.head, 32, text);
  int code = status == LQT_OK ? TOOL_DONE : TOOL_NO;
  if (args->json) {
    int printed = tool_print_json(
        command,
        json_pack("{s:b, s:I, s:I, s:s, s:o, s:o}", "valid", status == LQT_OK, "transactions",
                  (json_int_t)check.transactions, "signed", (json_int_t)check.signed_transactions,
                  "head", text, "status",
                  status == LQT_OK ? json_null() : json_string(lqt_status_name(status)), "what",
                  status == LQT_OK ? json_null() : tool_json_text(diag.what, strlen(diag.what))));
    return printed != TOOL_DONE ? printed : code;
  }
  if (status != LQT_OK) {
    printf("%s: %s [%s", diag.where, diag.what, lqt_status_name(status));
    if (diag.offset != UINT64_MAX && diag.offset != 0) printf(" at byte %" PRIu64, diag.offset);
    puts("]");
    return code;
  }
  printf("%zu transactions, %zu signed: every frame, hash and signature is right%s\n",
         check.transactions, check.signed_transactions,
         check.writer ? " (a writer has the journal open)" : "");
  printf("head %s\n", text);
  return code;
}

int log_read(const char *command, const log_args *args, lqt_model *model,
             const lqt_journal_options *options) {
  if (args->action == LOG_VERIFY) return verify(command, args, model, options);
  lqt_diag diag = {0};
  lqt_journal *journal;
  lqt_status status = lqt_journal_open(model, options, &journal, &diag);
  if (status != LQT_OK) return tool_fail(command, status, &diag);
  int code = args->action == LOG_LIST   ? list(command, args, journal)
             : args->action == LOG_SHOW ? show(command, args, journal)
             : args->action == LOG_HEAD ? head(command, args, journal)
                                        : export(command, args, journal);
  lqt_journal_close(journal);
  return code;
}
