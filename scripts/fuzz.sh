#!/usr/bin/env bash
# Runs one libFuzzer executable: LQT_FUZZ_RUNS inputs (default 20000) or LQT_FUZZ_SECONDS seconds,
# whichever ends first. Findings are left in the folder it is run from.
set -eu
target=$1
shift
exec "$target" -runs="${LQT_FUZZ_RUNS:-20000}" -max_total_time="${LQT_FUZZ_SECONDS:-30}" \
  -artifact_prefix="$(basename "$target")-" "$@"
