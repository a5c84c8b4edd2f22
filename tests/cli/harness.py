"""What the tests of the program share: running it, and looking at how it fails.

LQT_PROGRAM names the program. With LQT_VALGRIND=1 it runs under valgrind, and any finding fails."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

from hf_model import write_model

PROGRAM = os.environ.get("LQT_PROGRAM", "build/lqt")
SOURCE = os.environ.get("LQT_SOURCE_DIR", os.path.join(os.path.dirname(__file__), "..", ".."))
DATA = os.environ.get("LQT_TEST_DATA", os.path.join(SOURCE, "..", "shared"))
VALGRIND = os.environ.get("LQT_VALGRIND", "") not in ("", "0")
SANITIZED = os.environ.get("LQT_SANITIZED", "") not in ("", "0")
# Slow surroundings: tests then try fewer positions of the same kind.
SLOW = VALGRIND or SANITIZED
TINY_MODELS = {}
EMBEDDED = os.path.join(SOURCE, "models", "classic-11m-q4.lqt")

DONE, NO, WRONG_USE, BAD_INPUT, NO_DEVICE, BUG = 0, 1, 2, 3, 4, 70


def data_path(name):
    """A file under LQT_TEST_DATA; skips the test when it is not there."""
    path = os.path.join(DATA, name)
    if not os.path.exists(path):
        raise unittest.SkipTest(f"{path} is not there; set LQT_TEST_DATA")
    return path


def embedded_model():
    if not os.path.exists(EMBEDDED):
        raise unittest.SkipTest(f"{EMBEDDED} is not there")
    return EMBEDDED


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def json(self):
        return json.loads(self.out.decode())

    def __str__(self):
        return f"exit code {self.code}\nstdout: {self.out[-2000:]!r}\nstderr: {self.err[-2000:]}"


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lqt-cli-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def run_lqt(self, *arguments, env=None, stdin=None, stdout=None):
        command = [PROGRAM, *map(str, arguments)]
        if VALGRIND:
            command = ["valgrind", "-q", "--error-exitcode=99", "--leak-check=full",
                       "--errors-for-leak-kinds=definite,indirect,possible",
                       "--suppressions=" + os.path.join(os.path.dirname(__file__), "valgrind.supp"),
                       *command]
        environment = dict(os.environ, **(env or {}))
        done = subprocess.run(command, input=stdin, env=environment, timeout=600, check=False,
                              stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE)
        return Result(done.returncode, done.stdout or b"", done.stderr.decode(errors="replace"))

    def lqt(self, *arguments, **keywords):
        """Runs the program; it must succeed."""
        result = self.run_lqt(*arguments, **keywords)
        self.assertEqual(result.code, DONE, f"lqt {' '.join(map(str, arguments))}\n{result}")
        return result

    def tiny_model(self, name, *options):
        """The path of a new file with the tiny model of hf_model, quantized with `options`, and
        without calibration, which takes longer than everything else. Made once a process."""
        if options not in TINY_MODELS:
            source = write_model(self.path("tiny-source"))
            made = self.path("tiny-made")
            self.lqt("quantize", source, made, "-q", "--calibrate", "off", *options)
            TINY_MODELS[options] = read(made)
            shutil.rmtree(source)
            os.remove(made)
        return write(self.path(name), TINY_MODELS[options])

    def fails(self, code, words, *arguments, **keywords):
        """Runs the program; it must end with `code`, say nothing on stdout, and one sentence with
        all `words` in it on stderr."""
        result = self.run_lqt(*arguments, **keywords)
        label = f"lqt {' '.join(map(str, arguments))}\n{result}"
        self.assertEqual(result.code, code, label)
        self.assertEqual(result.out, b"", label)
        # Wrong options get a second sentence that points to --help.
        lines = result.err.split("\nTry `lqt")[0].splitlines()
        self.assertEqual(len(lines), 1, label)
        self.assertTrue(lines[0].startswith("lqt"), label)
        for word in words:
            self.assertIn(word, lines[0], label)
        return result

    def files(self):
        return sorted(os.listdir(self.folder))


def read(path):
    with open(path, "rb") as file:
        return file.read()


def without_time(data):
    """A model file without the time of writing and the checksum over it (both in the footer)."""
    footer = bytearray(data[-64:])
    footer[4:8], footer[16:24] = bytes(4), bytes(8)
    return data[:-64] + bytes(footer)


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path
