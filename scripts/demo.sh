#!/usr/bin/env bash
# The demonstration: a 4-bit model writes, its layout is shown, one codebook entry is edited,
# the text changes, and the edit is taken back; the edits are in a journal beside the file.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/deps.sh build
mkdir -p build
{
  cmake --preset cpu-only -DBUILD_TESTING=OFF && cmake --build build/cpu-only
} >build/demo.log 2>&1 || { tail -40 build/demo.log >&2; exit 1; }

lqt=$PWD/build/cpu-only/tools/lqt
source=models/classic-11m-q4.lqt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$work/model.lqt
cp "$source" "$model"
prompt="Once upon a time"

bold= plain=
if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
write_text() { "$lqt" run "$model" -p "$prompt" -n 48 --temp 0 --echo; }

say "1. A 4-bit model writes (lqt run $source -p '$prompt' -n 48 --temp 0)"
write_text | tee "$work/first"

say "2. Its layout (lqt inspect)"
(cd "$work" && "$lqt" inspect model.lqt)

# The codebook of the first layer's gate matrix, and its entry farthest from zero.
read -r id vector value < <("$lqt" inspect "$model" --json --tensors | python3 -c '
import json, subprocess, sys
lqt, model = sys.argv[1:]
tensor = next(t for t in json.load(sys.stdin)["tensors"] if t["name"].endswith("layers.0.mlp.gate_proj.weight"))
best = (0.0, 0)
for i in range(2 ** tensor["index_bits"]):
    out = subprocess.run([lqt, "edit", "codebook", model, "--id", str(tensor["codebook"]), "--vector", str(i),
                          "--value", "0", "--dry-run", "--json"], capture_output=True, check=True).stdout
    best = max(best, (abs(json.loads(out)["old"][0]), i, json.loads(out)["old"][0]))
print(tensor["codebook"], best[1], -2 * best[2])
' "$lqt" "$model")

say "3. One codebook entry is edited (lqt edit codebook MODEL --id $id --vector $vector --value=$value)"
"$lqt" edit codebook "$model" --id "$id" --vector "$vector" --value="$value" --actor demo --json >"$work/edit.json"
old=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["old"][0])' "$work/edit.json")
echo "was $old, is $value now"
write_text | tee "$work/second"

say "4. What the journal beside the file knows, and back to the file's own revision (lqt log MODEL rollback 0)"
"$lqt" log "$model" rollback 0 --actor demo --reason "the first text was better"
(cd "$work" && "$lqt" log model.lqt)
write_text | tee "$work/third"

say "Verdict"
if cmp -s "$work/first" "$work/second"; then
  echo "the edit did not change the text" >&2
  exit 1
fi
cmp -s "$work/first" "$work/third" || { echo "the text did not come back" >&2; exit 1; }
cmp -s "$source" "$model" || { echo "the file has changed" >&2; exit 1; }
echo "The text changed with the edit and came back with the rollback. The file is what it was: both stand in its journal."
