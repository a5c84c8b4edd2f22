#!/usr/bin/env bash
# Benchmarks of this machine's devices: selftest first (numbers of wrong kernels mean nothing), then
# ops, then whole models. JSON goes to build/bench/ (or $OUT), a short table is printed last.
#
#   bench/run.sh [DEVICE...]     (default: every device that `lqt devices` lists)
#   LQT=path/to/lqt              use this program instead of building one
#   LQT_BENCH_OPTIONS="--threads 1"  more options of lqt bench ops
#   LQT_BENCH_MODEL=model.lqt    measure this model too (repeat with a colon-separated list)
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-build/bench}
mkdir -p "$out"

if [ -z "${LQT:-}" ]; then
  scripts/deps.sh build
  cmake --preset release -DBUILD_TESTING=OFF >"$out/build.log" 2>&1 && cmake --build build/release >>"$out/build.log" 2>&1 ||
    { tail -40 "$out/build.log" >&2; exit 1; }
  LQT=build/release/tools/lqt
fi

if [ $# -gt 0 ]; then
  devices=("$@")
else
  mapfile -t devices < <("$LQT" devices --json | python3 -c 'import json, sys; [print(d["selector"]) for d in json.load(sys.stdin)["devices"]]')
fi

commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || commit=$commit+changes
{
  echo "commit $commit"
  "$LQT" --version
  uname -srm
  grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //' || true
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || true
} | tee "$out/machine.txt"

models=()
IFS=: read -r -a given <<<"${LQT_BENCH_MODEL:-models/classic-11m-q4.lqt}"
for model in "${given[@]}"; do [ -f "$model" ] && models+=("$model"); done

failed=0
for device in "${devices[@]}"; do
  name=${device//[^a-z0-9]/-}
  echo "== $device"
  "$LQT" selftest --device "$device" --json >"$out/selftest-$name.json" || { failed=1; echo "selftest failed; see $out/selftest-$name.json"; continue; }
  "$LQT" bench ops --device "$device" ${LQT_BENCH_OPTIONS:-} --json >"$out/ops-$name.json"
  for model in "${models[@]}"; do
    "$LQT" bench session "$model" --device "$device" --json >"$out/session-$name-$(basename "$model" .lqt).json"
  done
done

python3 bench/table.py "$out" "$commit"
exit $failed
