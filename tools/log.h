/* Parts of `lqt log` that its files share. */
#ifndef LQT_TOOLS_LOG_H_
#define LQT_TOOLS_LOG_H_

#include <stdlib.h>

#include "common.h"

typedef enum log_action {
  LOG_LIST,
  LOG_SHOW,
  LOG_HEAD,
  LOG_VERIFY,
  LOG_ROLLBACK,
  LOG_EXPORT,
  LOG_COMPACT,
} log_action;

enum { LOG_MAX_KEYS = 16 };

typedef struct log_args {
  const char *path;
  log_action action;
  bool has_action, has_revision, has_head, json;
  uint64_t revision;
  uint8_t head[32];
  const char *output, *journal, *sign, *actor, *reason;
  const char *required[LOG_MAX_KEYS];
  size_t required_count;
} log_args;

/* list, show, head, verify, export. */
int log_read(const char *command, const log_args *args, lqt_model *model,
             const lqt_journal_options *options);
/* rollback, compact. */
int log_write(const char *command, const log_args *args, lqt_model *model,
              const lqt_journal_options *options);

#endif /* LQT_TOOLS_LOG_H_ */
