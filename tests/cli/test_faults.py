"""Every allocation and every file operation fails once in turn: there is a status and a sentence,
the old file stays, and nothing half-written is left. Leaks are found when the program is built with
the address sanitizer (its exit code is then none of the documented ones)."""

import os
import unittest

from harness import BAD_INPUT, Case, DONE, NO_DEVICE, SLOW, read, without_time, write
from hf_model import write_model

# After this many failures in a row that nothing noticed, every operation has had its turn.
QUIET_RUN = 12


class Faults(Case):
    def each_failure(self, variable, arguments, check, prepare=lambda: None, most=20000):
        """Runs the command with the nth operation failing, for n = 0, 1, ... Returns how many
        failed. `check(result)` sees every run."""
        quiet = failed = n = 0
        # The sanitizers are slow: past the first positions they try every seventh.
        while quiet < QUIET_RUN and n < most:
            prepare()
            result = self.run_lqt(*arguments, env={variable: str(n)})
            label = f"{variable}={n} lqt {' '.join(map(str, arguments))}\n{result}"
            if result.code == DONE:
                quiet += 1
            else:
                quiet = 0
                failed += 1
                self.assertIn(result.code, (BAD_INPUT, NO_DEVICE), label)
                self.assertEqual(len(result.err.splitlines()), 1, label)
            check(result, label)
            n += 7 if SLOW and n > 40 else 1
        self.assertLess(n, most, "it never came to an end")
        return failed


class Reading(Faults):
    def setUp(self):
        super().setUp()
        self.model = self.path("tiny.lqt")
        self.lqt("quantize", write_model(self.path("hf")), self.model, "-q")
        self.data = read(self.model)

    def test_inspect(self):
        good = self.lqt("inspect", self.model, "--json").out

        def check(result, label):
            if result.code == DONE:
                self.assertEqual(result.out, good, label)
        for variable in ("LQT_FAIL_ALLOC", "LQT_FAIL_IO"):
            self.assertGreater(self.each_failure(variable, ["inspect", self.model, "--json"],
                                                 check), 1)
        self.assertEqual(read(self.model), self.data)

    def test_validate(self):
        for variable in ("LQT_FAIL_ALLOC", "LQT_FAIL_IO"):
            self.assertGreater(self.each_failure(variable, ["validate", self.model, "-q"],
                                                 lambda result, label: None), 1)

    def test_run(self):
        arguments = ["run", self.model, "-p", "the", "-n", 2, "--temp", 0, "-q", "--threads", 2]
        good = self.lqt(*arguments).out

        def check(result, label):
            if result.code == DONE:
                self.assertEqual(result.out, good, label)
        self.assertGreater(self.each_failure("LQT_FAIL_ALLOC", arguments, check), 10)
        self.assertGreater(self.each_failure("LQT_FAIL_IO", arguments, check), 1)

    def test_edit(self):
        arguments = ["edit", "codebook", self.model, "--id", 0, "--vector", 0, "--value", 0.5]
        self.lqt(*arguments)
        edited, old = without_time(read(self.model)), without_time(self.data)
        self.assertNotEqual(edited, old)

        def check(result, label):
            # Only the sync of the folder comes after the file has taken its place.
            now = without_time(read(self.model))
            self.assertIn(now, (old, edited), label)
            if result.code == DONE:
                self.assertEqual(now, edited, label)
            self.assertEqual(self.files(), ["hf", "tiny.lqt"], label)
        for variable in ("LQT_FAIL_ALLOC", "LQT_FAIL_IO"):
            self.assertGreater(
                self.each_failure(variable, arguments, check,
                                  prepare=lambda: write(self.model, self.data)), 5)


class Writing(Faults):
    def setUp(self):
        super().setUp()
        # One layer keeps the number of operations small.
        self.source = write_model(self.path("hf"), config={"num_hidden_layers": 1})
        self.out = self.path("out.lqt")

    def check(self, result, label):
        now = read(self.out) if os.path.exists(self.out) else None
        if result.code == DONE:
            self.assertNotEqual(now, b"the old file", label)
        elif now != b"the old file":
            # The sync of the folder failed, after the whole file had taken its place.
            self.assertIn("sync", result.err, label)
        self.assertEqual([f for f in self.files() if f not in ("hf", "out.lqt")], [], label)

    def test_quantize(self):
        arguments = ["quantize", self.source, self.out, "-q", "--threads", 2, "--outliers", 0.01]
        for variable in ("LQT_FAIL_ALLOC", "LQT_FAIL_IO"):
            failed = self.each_failure(variable, arguments, self.check,
                                       prepare=lambda: write(self.out, b"the old file"))
            self.assertGreater(failed, 10)

    def test_synth(self):
        arguments = ["synth", self.out, "--hidden", 64, "--layers", 1, "--heads", 4, "--vocab", 256,
                     "-q", "--threads", 2]
        for variable in ("LQT_FAIL_ALLOC", "LQT_FAIL_IO"):
            failed = self.each_failure(variable, arguments, self.check,
                                       prepare=lambda: write(self.out, b"the old file"))
            self.assertGreater(failed, 5)


if __name__ == "__main__":
    unittest.main()
