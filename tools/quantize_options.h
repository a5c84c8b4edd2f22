/* The options that `lqt quantize` and `lqt synth` share. */
#ifndef LQT_TOOLS_QUANTIZE_OPTIONS_H_
#define LQT_TOOLS_QUANTIZE_OPTIONS_H_

#include "common.h"

typedef struct quantize_args {
  lqt_quantize_options options;
  bool json, quiet;
} quantize_args;

/* An argp child; input: a quantize_args. */
extern const struct argp quantize_argp;
void quantize_args_defaults(quantize_args *args);
/* Prints what was written. */
int quantize_print_report(const char *command, const char *path, const quantize_args *args,
                          const lqt_quantize_report *report);

#endif /* LQT_TOOLS_QUANTIZE_OPTIONS_H_ */
