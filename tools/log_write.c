/* lqt log: what writes: rollback and compact. */
#include <inttypes.h>
#include <string.h>

#include "log.h"

static void say_recovery(const char *command, const log_args *args,
                         const lqt_journal_report *report) {
  if (report->dropped_bytes > 0) {
    (void)tool_error(command, TOOL_DONE, args->path,
                     "an unfinished transaction of %" PRIu64 " bytes was cut off",
                     report->dropped_bytes);
  }
  if (report->reverted > 0) {
    (void)tool_error(command, TOOL_DONE, args->path,
                     "%zu temporary edits that were interrupted were taken back", report->reverted);
  }
}

/* Transactions that the model's file does not have. */
static lqt_status count_new(lqt_model *model, const lqt_journal_options *options, size_t *out_count,
                            lqt_diag *diag) {
  lqt_journal *journal;
  *out_count = 0;
  lqt_status status = lqt_journal_open(model, options, &journal, diag);
  if (status != LQT_OK) return status;
  for (size_t i = lqt_journal_count(journal); i-- > 0 && status == LQT_OK; ++*out_count) {
    lqt_journal_entry_info info;
    status = lqt_journal_entry(journal, i, &info, diag);
    if (status == LQT_OK && info.in_base) break;
  }
  lqt_journal_close(journal);
  return status;
}

static int print_result(const char *command, const log_args *args, lqt_editor *editor,
                        size_t count) {
  uint8_t head[32];
  char text[65];
  lqt_editor_journal_head(editor, head);
  for (size_t i = 0; i < 32; i++) snprintf(text + 2 * i, 3, "%02x", head[i]);
  uint64_t revision = lqt_editor_revision(editor);
  if (args->action == LOG_ROLLBACK) {
    if (args->json) {
      return tool_print_json(
          command, json_pack("{s:I, s:I, s:s}", "revision", (json_int_t)revision, "reference",
                             (json_int_t)args->revision, "head", text));
    }
    printf("%s: revision %" PRIu64 " has the bytes of revision %" PRIu64 "\n", args->path, revision,
           args->revision);
    return TOOL_DONE;
  }
  if (args->json) {
    return tool_print_json(command, json_pack("{s:I, s:I, s:s}", "revision", (json_int_t)revision,
                                              "transactions", (json_int_t)count, "head", text));
  }
  printf("%s: %zu transactions are part of the model file; it is at revision %" PRIu64 "\n",
         args->path, count, revision);
  return TOOL_DONE;
}

int log_write(const char *command, const log_args *args, lqt_model *model,
              const lqt_journal_options *options) {
  lqt_diag diag = {0};
  lqt_editor *editor = NULL;
  lqt_journal_report report;
  size_t count;
  lqt_status status = count_new(model, options, &count, &diag);
  if (status != LQT_OK) return tool_fail(command, status, &diag);
  if (count == 0) {
    return tool_error(command, TOOL_BAD_INPUT, args->path,
                      args->action == LOG_COMPACT
                          ? "there are no edits to make part of the model file"
                          : "there are no edits that could be rolled back");
  }
  status = lqt_editor_create(model, &editor, &diag);
  if (status == LQT_OK) {
    status = lqt_editor_open_journal(editor, LQT_JOURNAL_WRITE, options, &report, &diag);
  }
  if (status == LQT_OK) say_recovery(command, args, &report);
  if (status == LQT_OK && args->action == LOG_COMPACT) status = lqt_editor_compact(editor, &diag);
  if (status == LQT_OK && args->action == LOG_ROLLBACK) {
    lqt_commit_options commit = {
        .size = sizeof commit, .actor = args->actor, .reason = args->reason};
    uint64_t revision;
    status = lqt_editor_rollback(editor, args->revision, &commit, &revision, &diag);
  }
  int code = status == LQT_OK ? print_result(command, args, editor, count)
                              : tool_fail(command, status, &diag);
  lqt_editor_destroy(editor);
  return code;
}
