#!/usr/bin/env bash
# clang-format over the C sources; with --check it only says which files differ (exit code 1).
set -eu
cd "$(dirname "$0")/.."
tool=$(command -v clang-format-14 || command -v clang-format || true)
if [ -z "$tool" ]; then
  echo "clang-format is not installed; nothing was checked (Debian: clang-format-14)"
  exit 0
fi
mapfile -t files < <(git ls-files '*.c' '*.h' '*.cu' '*.cuh')
[ ${#files[@]} -gt 0 ] || exit 0
if [ "${1:-}" = --check ]; then
  exec "$tool" --dry-run -Werror "${files[@]}"
fi
exec "$tool" -i "${files[@]}"
