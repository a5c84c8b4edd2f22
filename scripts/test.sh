#!/usr/bin/env bash
# What `make test` does, in order; stops at the first failure: the dev build's tests (with a sample
# of the injected faults and every command under valgrind), the style check, the address and
# undefined-behaviour sanitizers, the thread sanitizer over the stress tests, a short fuzzing of
# every parser. LQT_TEST_ALL=1 adds the exhaustive tests. LQT_CI=1 turns warnings into errors.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
jobs=$(nproc)
log=build/test.log

step() { printf '\n== %s (%d s so far)\n' "$1" $((SECONDS - started)); }

# build PRESET [cmake options]: configure and build quietly; the log is shown on failure.
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
# What the next two install is looked for again below: without it, its part is left out, aloud.
scripts/deps.sh valgrind fuzz || echo "going on without what could not be installed"

# Tests labelled exhaustive (each fault in turn, 100,000 flipped bits, the full suite on llvmpipe,
# models of several GB) take longer than everything else together.
choice=(-LE exhaustive)
[ -z "${LQT_TEST_ALL:-}" ] || choice=()

step "dev build and its tests"
build dev
run_ctest build/dev "${choice[@]}" | tee build/summary.log
command -v valgrind >/dev/null || echo "skipped: valgrind is not installed"
[ -n "${LQT_TEST_ALL:-}" ] || echo "left out: tests labelled exhaustive (LQT_TEST_ALL=1 make test)"

step "style"
scripts/format.sh --check

step "address and undefined-behaviour sanitizers"
build asan-ubsan
# (The stress tests are for the thread sanitizer below.)
leave_out="slow|install|stress|exhaustive"
[ -z "${LQT_TEST_ALL:-}" ] || leave_out="install|stress"
run_ctest build/asan-ubsan -LE "$leave_out"

step "thread sanitizer (stress tests)"
build tsan
run_ctest build/tsan -L stress

step "fuzz smoke"
if command -v clang >/dev/null && echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { (void)d; return n > 9; }' |
  clang -fsanitize=fuzzer -xc - -o /dev/null 2>/dev/null; then
  build fuzz
  LQT_FUZZ_RUNS=${LQT_FUZZ_RUNS:-20000} LQT_FUZZ_SECONDS=${LQT_FUZZ_SECONDS:-15} run_ctest build/fuzz -L fuzz
else
  echo "skipped: clang with libFuzzer is not installed (Debian: clang, libclang-rt-dev)"
fi

step "done"
# The tests of the dev build decide; this is their summary, last.
grep -E 'tests passed|tests failed' build/summary.log
