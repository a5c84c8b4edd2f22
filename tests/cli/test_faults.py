"""Every allocation and every file operation fails once in turn: there is a status and a sentence,
the old file stays, and nothing half-written is left. Leaks are found when the program is built with
the address sanitizer (its exit code is then none of the documented ones).

LQT_FAULTS=all tries every operation; otherwise the first sixteen, and from there on ever longer
steps (about 60 positions a sweep). Each sweep prints how many positions it tried."""

import os
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor

from harness import BAD_INPUT, Case, DONE, NO_DEVICE, read, without_time, write
from hf_model import write_model

EVERY = os.environ.get("LQT_FAULTS", "") == "all"
# After this many positions in a row at which nothing failed, every operation has had its turn.
QUIET_RUN = 32 if EVERY else 8
KINDS = ("LQT_FAIL_ALLOC", "LQT_FAIL_IO")
WORKERS = os.cpu_count() or 1
OLD = b"the old file"
# One layer and narrow matrices keep the number of operations, and their time, small.
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 1}
FAST = ["-q", "--calibrate", "off", "--codebook-init", "uniform"]


def positions():
    n = 0
    while True:
        yield n
        n += 1 if EVERY or n < 16 else max(1, n // 12)


class Faults(Case):
    """`folder` below is a worker's own; each worker runs one position at a time in it."""

    def sweep(self, name, arguments, check, prepare=lambda folder: None):
        """Runs `arguments(folder)` with the nth operation of each kind failing. `check(result,
        folder, label)` sees every run."""
        for kind in KINDS:
            self.sweep_kind(kind, name, arguments, check, prepare)

    def sweep_kind(self, kind, name, arguments, check, prepare):
        folders = [self.path(f"worker{i}") for i in range(WORKERS)]
        for folder in folders:
            os.makedirs(folder, exist_ok=True)

        def attempt(n):
            folder = folders.pop()
            try:
                prepare(folder)
                command = arguments(folder)
                result = self.run_lqt(*command, env={kind: str(n)})
                label = f"{kind}={n} lqt {' '.join(map(str, command))}\n{result}"
                if result.code != DONE:
                    self.assertIn(result.code, (BAD_INPUT, NO_DEVICE), label)
                    self.assertEqual(len(result.err.splitlines()), 1, label)
                check(result, folder, label)
                return result.code != DONE
            finally:
                folders.append(folder)

        tried = failed = quiet = 0
        source = positions()
        with ThreadPoolExecutor(WORKERS) as pool:
            while quiet < QUIET_RUN:
                some = [next(source) for _ in range(4 * WORKERS)]
                for noticed in pool.map(attempt, some):
                    tried += 1
                    failed += noticed
                    quiet = 0 if noticed else quiet + 1
                self.assertLess(tried, 200000, "it never came to an end")
        print(f"{kind} lqt {name}: {failed} of {tried} runs failed, as they should; "
              f"{'every position' if EVERY else 'a sample of the positions'} up to {some[-1]}",
              file=sys.stderr, flush=True)
        self.assertGreater(failed, 2)


class Reading(Faults):
    def setUp(self):
        super().setUp()
        self.model = self.path("tiny.lqt")
        self.lqt("quantize", write_model(self.path("hf"), config=TINY), self.model, *FAST)
        self.data = read(self.model)

    def same_output(self, name, *arguments):
        good = self.lqt(*arguments).out

        def check(result, folder, label):
            # (What stands in brackets is the time.)
            if result.code == DONE:
                self.assertEqual(result.out.split(b" (")[0], good.split(b" (")[0], label)
        self.sweep(name, lambda folder: arguments, check)
        self.assertEqual(read(self.model), self.data)

    def test_inspect(self):
        self.same_output("inspect", "inspect", self.model, "--json")

    def test_validate(self):
        self.same_output("validate", "validate", self.model, "-q")

    def test_run(self):
        self.same_output("run", "run", self.model, "-p", "the", "-n", 2, "--temp", 0, "-q",
                         "--threads", 2)

    def test_eval(self):
        text = write(self.path("text"), b"the rain in the on")
        self.same_output("eval", "eval", self.model, text, "-q", "--threads", 2)

    def test_edit(self):
        change = ["--id", 0, "--vector", 0, "--value", 0.5]
        old = self.lqt("edit", "codebook", self.model, *change, "--dry-run", "--json").json()["old"]

        def check(result, folder, label):
            # The file stays, and the journal has the edit or does not.
            model = os.path.join(folder, "tiny.lqt")
            self.assertEqual(read(model), self.data, label)
            self.assertLessEqual(set(os.listdir(folder)), {"tiny.lqt", "tiny.lqt.journal"}, label)
            now = self.lqt("edit", "codebook", model, *change, "--dry-run", "--json").json()["old"]
            self.assertIn(now, (old, [0.5]), label)
            if result.code == DONE:
                self.assertEqual(now, [0.5], label)

        self.sweep("edit codebook",
                   lambda folder: ["edit", "codebook", os.path.join(folder, "tiny.lqt"), *change],
                   check, lambda folder: write(os.path.join(folder, "tiny.lqt"), self.data))


class Writing(Faults):
    def check(self, result, folder, label):
        now = read(os.path.join(folder, "out.lqt"))
        if result.code == DONE:
            self.assertNotEqual(now, OLD, label)
        elif now != OLD:
            # The sync of the folder failed, after the whole file had taken its place.
            self.assertIn("sync", result.err, label)
        self.assertEqual(os.listdir(folder), ["out.lqt"], label)

    def sweep_output(self, name, command, *options):
        self.sweep(name, lambda folder: [*command, os.path.join(folder, "out.lqt"), *options],
                   self.check, lambda folder: write(os.path.join(folder, "out.lqt"), OLD))

    def sweep_quantize(self, name, *options, **config):
        source = write_model(self.path("hf"), config=dict(TINY, **config))
        self.sweep_output(name, ["quantize", source], "--threads", 2, *options)

    def test_quantize(self):
        self.sweep_quantize("quantize --outliers", *FAST, "--outliers", 0.01)

    def test_quantize_trained(self):
        self.sweep_quantize("quantize --vector-dim --residual-bits", "-q", "--calibrate", "off",
                            "--vector-dim", 2, "--residual-bits", 2)

    def test_quantize_calibrated(self):
        self.sweep_quantize("quantize --calibrate on", "-q", "--calibrate", "on",
                            "--codebook-init", "uniform")

    def test_quantize_to_a_target(self):
        self.sweep_quantize("quantize --target-bpw", "-q", "--calibrate", "off", "--target-bpw", 14)

    def test_keygen(self):
        """Both keys or none."""
        def check(result, folder, label):
            self.assertEqual(sorted(os.listdir(folder)),
                             ["key", "key.pub"] if result.code == DONE else [], label)

        def clear(folder):
            for name in os.listdir(folder):
                os.remove(os.path.join(folder, name))

        self.sweep("keygen", lambda folder: ["keygen", os.path.join(folder, "key")], check, clear)

    def test_synth(self):
        self.sweep_output("synth", ["synth"], "--hidden", 32, "--layers", 1, "--heads", 2,
                          "--vocab", 64, "-q", "--threads", 2)


if __name__ == "__main__":
    unittest.main()
