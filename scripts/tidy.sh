#!/usr/bin/env bash
# clang-tidy over the C sources. tidy.sh [--changed [BASE]]: only files that differ from BASE
# (default: origin/main, else main) or are not committed. Exit code 1 when there is a finding.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${LQT_TIDY_BUILD:-build/dev}
[ -f "$build/compile_commands.json" ] || cmake --preset dev >/dev/null
sources() { git ls-files -- 'runtime/*.c' 'backends/*.c' 'tools/*.c' 'examples/*.c' 'bench/*.c'; }
if [ "${1:-}" = --changed ]; then
  base=${2:-$(git rev-parse -q --verify origin/main || git rev-parse -q --verify main || echo HEAD)}
  files=$(comm -12 <(sources | sort) \
    <({ git diff --name-only --diff-filter=d "$base"; git ls-files --others --exclude-standard; } | sort -u))
else
  files=$(sources)
fi
# Sources that this machine's build leaves out (a backend that is not there) have no command line.
known=$(python3 -c '
import json, os, sys
for entry in json.load(open(sys.argv[1])):
    print(os.path.relpath(os.path.join(entry["directory"], entry["file"])))' \
  "$build/compile_commands.json" | sort -u)
files=$(comm -12 <(echo "$files" | sort) <(echo "$known"))
[ -n "$files" ] || { echo "tidy: nothing to look at"; exit 0; }
# GCC's own warning options are unknown to clang.
echo "$files" | xargs -P "$(nproc)" -n 4 clang-tidy -p "$build" --quiet \
  --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-error 2>/dev/null |
  grep -E -A4 '(warning|error):' && { echo "tidy: see above" >&2; exit 1; }
echo "tidy: $(echo "$files" | wc -l) files, no finding"
