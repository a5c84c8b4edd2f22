#!/usr/bin/env python3
"""Checks the shape of the tree: who includes whom (docs/architecture.md, "Layers"), file sizes,
left-over marks, and words that do not belong into a public repository.

Usage: check_layering.py [ROOT] [--quiet]. Exit code 1 when something is wrong."""

import os
import re
import subprocess
import sys

# Layer -> layers that it may include directly; the closure is taken below.
ALLOWED = {
    "base": [],
    "io": ["base"],
    "format": ["io"],
    "model": ["format"],
    "text": ["io"],
    "import": ["model", "text"],
    "quant": ["model", "text"],
    "device": ["io"],
    "kernel": ["device"],
    "exec": ["model", "kernel", "text"],
    "edit": ["exec"],
}
# import and quant work hand in hand: reading a source and quantizing it are one stream.
EXTRA = {"quant": ["import"]}
# Layers that a backend may use beside include/lqt and its own folder.
BACKEND_MAY = {"base", "io", "device", "kernel"}
# What only backends and the layers that call them may include.
SPI = "lqt/backend.h"
SPI_LAYERS = {"device", "kernel", "backends", "generated"}

MAX_SOURCE, MAX_HEADER, MAX_FUNCTION = 800, 400, 80
SOURCE_ENDINGS = (".c", ".h", ".cu", ".cuh", ".comp", ".glsl", ".py")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[>"]')
MARKS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
# Spelled in pieces, so that this file does not find itself.
FORBIDDEN = [
    (re.compile(r"/wo" r"rk/|/fa" r"rm/|/ro" r"ot/|/ho" r"me/\w|\.libr" r"ary/"),
     "a path of the machine it was written on"),
    (re.compile(r"https?://[\w.-]*mir" r"ror", re.I), "a package mirror"),
]


def closure():
    reach = {}

    def visit(layer):
        if layer not in reach:
            reach[layer] = {layer}
            for below in ALLOWED[layer] + EXTRA.get(layer, []):
                reach[layer] |= visit(below)
        return reach[layer]

    for layer in ALLOWED:
        visit(layer)
    return reach


REACH = closure()


def tracked_files(root):
    """Files of the repository: git's list (new files included), or all when there is no git."""
    try:
        out = subprocess.run(
            ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True, capture_output=True).stdout.decode()
        names = [name for name in out.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder, folders, files in os.walk(root):
            folders[:] = [f for f in folders if f not in (".git", "build", "out")]
            names += [os.path.relpath(os.path.join(folder, f), root) for f in files]
    return sorted(n for n in names if os.path.isfile(os.path.join(root, n)))


def layer_of(path):
    """The layer a file belongs to: a runtime layer, 'public', 'backends/x', 'tools', ..."""
    parts = path.split("/")
    if parts[0] == "runtime" and len(parts) > 2:
        return parts[1]
    if parts[0] == "include":
        return "public"
    if parts[0] == "backends" and len(parts) > 2:
        return "backends/" + parts[1]
    return parts[0]


def resolve(root, path, name):
    """The repository file that an include names, or None for a system header."""
    candidates = [os.path.join(os.path.dirname(path), name), os.path.join("runtime", name),
                  os.path.join("include", name), name, os.path.join("tests", name)]
    for candidate in candidates:
        candidate = os.path.normpath(candidate)
        if os.path.isfile(os.path.join(root, candidate)):
            return candidate
    return None


def check_include(path, target, name):
    """Why `path` may not include `target`; None when it may."""
    here, there = layer_of(path), layer_of(target)
    if here == there or here in ("tests", "bench"):
        return None
    if there == "public":
        group = "backends" if here.startswith("backends/") else here
        if name == SPI and group not in SPI_LAYERS and here != "public":
            return "only device, kernel and backends include the backend interface"
        return None
    if here == "public":
        return "public headers include public headers only"
    if here in REACH:
        if there in REACH[here]:
            return None
        if there in REACH:
            return f"{here} may include {', '.join(sorted(REACH[here] - {here})) or 'nothing'}"
        return f"runtime never includes {there}"
    if here.startswith("backends/"):
        if there in BACKEND_MAY:
            return None
        return f"a backend may include {', '.join(sorted(BACKEND_MAY))} of the runtime, not {there}"
    return f"{here} includes include/lqt only"


def includes_of(root, path, lines):
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if match:
            target = resolve(root, path, match.group(2))
            if target is not None:
                yield number, match.group(2), target


def head_comment_has_reason(lines):
    """True when the first comment of the file explains its length ("Long: ...")."""
    head = "\n".join(lines[:30])
    return re.search(r"\bLong(?: file)?:", head) is not None


def functions_too_long(lines):
    """(line, name, length) of C functions over the limit; by braces in column 0 (clang-format)."""
    start = None
    for number, line in enumerate(lines, 1):
        if line.rstrip().endswith("{") and not line.startswith((" ", "}", "#", "/", "typedef",
                                                               "struct", "enum", "union",
                                                               "static const", "const", "extern")):
            start, name = number, line.strip()
        elif line.startswith((" ", "\t")) and line.rstrip().endswith(") {") and start is None:
            start, name = number, line.strip()
        elif line.startswith("}") and start is not None:
            if number - start + 1 > MAX_FUNCTION:
                yield start, name, number - start + 1
            start = None


def check_file(root, path, errors, warnings):
    try:
        with open(os.path.join(root, path), encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError:
        return
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        for pattern, what in FORBIDDEN:
            if pattern.search(line):
                errors.append(f"{path}:{number}: {what}")
    if not path.endswith(SOURCE_ENDINGS):
        return
    for number, line in enumerate(lines, 1):
        if MARKS.search(line):
            errors.append(f"{path}:{number}: a left-over mark; finish it or note it in docs/adr")
    if path.endswith((".c", ".h", ".cu", ".cuh")):
        for number, name, target in includes_of(root, path, lines):
            reason = check_include(path, target, name)
            if reason:
                errors.append(f"{path}:{number}: includes {target}: {reason}")
        for number, name, length in functions_too_long(lines):
            warnings.append(f"{path}:{number}: {length} lines in one function: {name[:60]}")
    limit = MAX_HEADER if path.endswith((".h", ".cuh")) else MAX_SOURCE
    if len(lines) >= limit and not head_comment_has_reason(lines):
        errors.append(f"{path}: {len(lines)} lines; the limit is {limit} (or say why in the head "
                      "comment: 'Long: ...')")


def check_transitively(root, files, errors):
    """A layer must not see a forbidden one through an allowed header either."""
    graph = {}
    for path in files:
        if not path.endswith((".c", ".h", ".cu", ".cuh")):
            continue
        with open(os.path.join(root, path), encoding="utf-8") as file:
            graph[path] = [t for _, _, t in includes_of(root, path, file.read().splitlines())]
    for path in graph:
        here = layer_of(path)
        if here not in REACH and not here.startswith("backends/"):
            continue
        seen, queue = {path}, [path]
        while queue:
            for target in graph.get(queue.pop(), []):
                if target in seen:
                    continue
                seen.add(target)
                queue.append(target)
                there = layer_of(target)
                if here in REACH and there in REACH and there not in REACH[here]:
                    errors.append(f"{path}: reaches {target} through its includes; {here} must "
                                  f"not see {there}")


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    root = os.path.abspath(arguments[0] if arguments else
                           os.path.join(os.path.dirname(__file__), ".."))
    files = tracked_files(root)
    errors, warnings = [], []
    for path in files:
        check_file(root, path, errors, warnings)
    check_transitively(root, files, errors)
    for line in warnings:
        if "--quiet" not in sys.argv:
            print("note:", line)
    for line in errors:
        print("error:", line)
    sources = sum(path.endswith(SOURCE_ENDINGS) for path in files)
    print(f"layering: {sources} source files, {len(errors)} errors, {len(warnings)} notes")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
