"""Every command once, and once with input that it refuses, under valgrind (LQT_VALGRIND=1; without
it the same runs, plainly). The models are the smallest there are and are made outside of it."""

import os
import shutil
import struct
import tempfile
import unittest

import harness
from harness import BAD_INPUT, Case, NO, NO_DEVICE, WRONG_USE, read, write
from hf_model import write_model
from test_faults import TINY


class Memory(Case):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="lqt-cli-")
        cls.addClassCleanup(shutil.rmtree, cls.shared)
        cls.source = write_model(os.path.join(cls.shared, "hf"), config=TINY)
        cls.model = os.path.join(cls.shared, "tiny.lqt")
        under, harness.VALGRIND = harness.VALGRIND, False
        try:
            result = cls().run_lqt("quantize", cls.source, cls.model, "-q", "--calibrate", "off")
            assert result.code == 0, result
        finally:
            harness.VALGRIND = under

    def test_quantize(self):
        out = self.path("out.lqt")
        self.lqt("quantize", self.source, out, "-q", "--calibrate", "off", "--codebook-init",
                 "uniform", "--outliers", 0.02, "--json", "--threads", 2)
        # The calibrated path calls what the plain one does and the model's own writing.
        self.fails(WRONG_USE, ["--bits"], "quantize", self.source, out, "--bits", 5)
        self.fails(BAD_INPUT, ["none"], "quantize", self.path("none"), out)

    def test_synth(self):
        self.lqt("synth", self.path("s.lqt"), "--hidden", 32, "--layers", 1, "--heads", 2,
                 "--vocab", 64, "-q", "--threads", 2)

    def test_inspect_and_validate(self):
        self.lqt("inspect", self.model)
        self.lqt("inspect", self.model, "--json")
        self.lqt("validate", self.model, "-q")
        data = bytearray(read(self.model))
        data[len(data) // 2] ^= 4
        broken = write(self.path("broken.lqt"), data)
        self.assertEqual(self.run_lqt("validate", broken, "-q").code, NO)
        cut = write(self.path("cut.lqt"), data[:len(data) // 2])
        self.fails(BAD_INPUT, ["cut.lqt"], "inspect", cut)

    def test_run(self):
        self.lqt("run", self.model, "-p", "the", "-n", 2, "--temp", 0.7, "--top-k", 5, "--top-p",
                 0.9, "--seed", 3, "--threads", 2, "-q")
        self.fails(BAD_INPUT, ["128"], "run", self.model, "-p", "x" * 500)
        self.fails(NO_DEVICE, ["cuda:99"], "run", self.model, "-p", "x", "--device", "cuda:99")

    def test_eval(self):
        ids = write(self.path("ids"), struct.pack("<20H", *range(20)))
        self.lqt("eval", self.model, ids, "--ids", "--window", 8, "--threads", 2, "--json", "-q")
        self.fails(BAD_INPUT, ["none"], "eval", self.model, self.path("none"), "-q")

    def test_edit(self):
        edit = ["edit", "codebook", self.model, "-o", self.path("out.lqt"), "--id", 0, "--vector"]
        self.lqt(*edit, 3, "--value", 0.625, "--json")
        self.fails(BAD_INPUT, ["NOT_FINITE"], *edit, 3, "--value", "nan")

    def test_devices_and_selftest(self):
        self.lqt("selftest", "--device", "cpu", "--filter", "rmsnorm", "--threads", 2)
        self.fails(WRONG_USE, ["--isa", "'sse9'"], "selftest", "--isa", "sse9")

    def test_bench(self):
        self.lqt("bench", "session", self.model, "--prefill", 4, "--decode", 2, "--repeat", 1,
                 "--json")
        self.lqt("bench", "ops", "--rows", 64, "--cols", 64, "--tokens", 1, "--weights", 4,
                 "--rotate", 1, "--repeat", 3, "--threads", 1)

    def test_keys_and_journals(self):
        self.lqt("keygen", self.path("key"))
        self.fails(BAD_INPUT, ["key"], "keygen", self.path("key"))
        self.lqt("log", self.model, "--json")

    def test_help(self):
        self.lqt("help")
        self.lqt("help", "run")


if __name__ == "__main__":
    unittest.main()
