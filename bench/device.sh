#!/usr/bin/env bash
# Measures on a machine that may lack everything but the program: builds the `device` preset where a
# compiler and the libraries are there, or takes LQT=path. Makes synthetic models of real shapes on
# the spot (speed does not depend on the values of weights), runs bench/run.sh over them, and removes
# them.
#
#   bench/device.sh [DEVICE...]
#   SHAPES="llama3-8b"           named shapes to make and measure (lqt synth --list); empty: none
#   OUT=folder                   where JSON goes
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${LQT:-}" ]; then
  cmake --preset device >/dev/null && cmake --build build/device >/dev/null
  LQT=$PWD/build/device/tools/lqt
fi
export LQT
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
models=models/classic-11m-q4.lqt
for shape in ${SHAPES-llama3-8b}; do
  "$LQT" synth "$shape" "$work/$shape-q4.lqt" --bits 4 --group-size 64
  models=$models:$work/$shape-q4.lqt
done
LQT_BENCH_MODEL=$models bench/run.sh "$@"
