#!/usr/bin/env bash
# What `make test` does, in order; stops at the first failure: the dev build's tests and the style
# check; with LQT_TEST_ALL=1 also the exhaustive tests, the sanitizers and a short fuzzing of every
# parser. LQT_CI=1 turns warnings into errors.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
jobs=$(nproc)
log=build/test.log

step() { printf '\n== %s (%d s so far)\n' "$1" $((SECONDS - started)); }

# configure PRESET [cmake options]: configure and build quietly; the log is shown on failure.
build() {
  local preset=$1
  shift
  mkdir -p build
  {
    cmake --preset "$preset" -DLQT_WERROR="$([ -n "${LQT_CI:-}" ] && echo ON || echo OFF)" "$@" &&
      cmake --build "build/$preset" -j "$jobs"
  } >"$log" 2>&1 || { tail -60 "$log" >&2; return 1; }
  grep -E '^-- (Backend|Unit tests)' "$log" | sed 's/^-- //' || true
}

run_ctest() {
  local folder=$1
  shift
  ctest --test-dir "$folder" -j "$jobs" --output-on-failure --no-tests=error "$@"
}

scripts/deps.sh test vulkan

# Tests labelled exhaustive (each fault in turn, valgrind, the full suite on llvmpipe) take longer
# than everything else together.
choice=(-LE exhaustive)
[ -z "${LQT_TEST_ALL:-}" ] || choice=()

step "dev build and its tests"
build dev
run_ctest build/dev "${choice[@]}" | tee build/summary.log

step "style"
scripts/format.sh --check

if [ -z "${LQT_TEST_ALL:-}" ]; then
  echo "not run here: exhaustive tests, sanitizers and fuzz smoke (LQT_TEST_ALL=1 make test)"
  grep -E 'tests passed|tests failed' build/summary.log
  exit 0
fi

step "address and undefined-behaviour sanitizers"
build asan-ubsan
run_ctest build/asan-ubsan -LE "slow|install|exhaustive"

step "thread sanitizer (stress tests)"
build tsan
if ctest --test-dir build/tsan -N -L stress | grep -q 'Total Tests: 0'; then
  echo "no stress tests in this build"
else
  run_ctest build/tsan -L stress
fi

step "fuzz smoke"
if command -v clang >/dev/null && echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { (void)d; return n > 9; }' |
  clang -fsanitize=fuzzer -xc - -o /dev/null 2>/dev/null; then
  build fuzz
  if ctest --test-dir build/fuzz -N -L fuzz | grep -q 'Total Tests: 0'; then
    echo "no fuzz targets in this build"
  else
    LQT_FUZZ_RUNS=${LQT_FUZZ_RUNS:-20000} LQT_FUZZ_SECONDS=${LQT_FUZZ_SECONDS:-15} run_ctest build/fuzz -L fuzz
  fi
else
  echo "skipped: clang with libFuzzer is not installed (Debian: clang, libclang-rt-dev)"
fi

step "done"
# The tests of the dev build decide; this is their summary, last.
grep -E 'tests passed|tests failed' build/summary.log
