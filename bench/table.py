#!/usr/bin/env python3
"""Adds machine and commit to the JSON files of a bench folder, and prints a short table.

Usage: table.py FOLDER COMMIT"""

import glob
import json
import os
import sys


def main():
    folder, commit = sys.argv[1:3]
    with open(os.path.join(folder, "machine.txt"), encoding="utf-8") as file:
        machine = file.read().splitlines()
    rows = []
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        data["commit"], data["machine"] = commit, machine
        with open(path, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
        name = os.path.basename(path)
        if name.startswith("selftest-"):
            rows.append((name[9:-5], "selftest", f"{data['passed']} passed, {data['failed']} failed"))
        elif name.startswith("session-"):
            for result in data["results"]:
                rate = result["bytes_per_second"]
                rows.append((data["device"],
                             f"{os.path.basename(data['model'])} {result['phase']} "
                             f"batch {result['batch']} context {result['context']}",
                             f"{result['seconds'] * 1e3:.2f} ms a step, "
                             f"{result['tokens_per_second']:.1f} tokens/s"
                             + (f", {rate / 1e9:.1f} GB/s" if rate else "")))
        elif name.startswith("ops-"):
            for result in data["results"]:
                ratio = result["read_ratio"]
                rows.append((data["device"],
                             f"matmul {result['weights']} {result['rows']}x{result['cols']} "
                             f"M={result['tokens']}",
                             f"{result['seconds'] * 1e6:.1f} us, {result['flops'] / 1e9:.0f} GFLOP/s, "
                             f"{result['bytes_per_second'] / 1e9:.1f} GB/s"
                             + (f" ({100 * ratio:.0f} % of read)" if ratio else "")
                             + f", error {result['error']:.1e}"))
    width = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
    for device, what, figures in rows:
        print(f"{device:{width[0]}}  {what:{width[1]}}  {figures}")


if __name__ == "__main__":
    main()
