"""lqt edit codebook: there and back, and every refusal."""

import unittest

from harness import (BAD_INPUT, Case, VALGRIND, WRONG_USE, embedded_model, read, without_time,
                     write)


class Edit(Case):
    def setUp(self):
        super().setUp()
        self.model = self.tiny_model("tiny.lqt")
        self.data = read(self.model)

    def test_there_and_back(self):
        arguments = ["edit", "codebook", self.model, "--id", 0, "--vector", 3]
        there = self.lqt(*arguments, "--value", 0.625, "--json").json()
        self.assertEqual(there["new"], [0.625])
        self.assertTrue(there["written"])
        self.assertEqual(there["revision"], 1)
        self.assertEqual(read(self.model), self.data, "the file stays; the journal has the edit")
        result = self.lqt("validate", self.model, "-q")
        self.assertIn("1 edit of its journal", result.err)
        edited, base = self.path("edited.lqt"), self.path("base.lqt")
        self.lqt(*arguments, "--value", 0.5, "-o", edited)
        self.lqt("edit", "scale", self.model, "--tensor", "model.norm.weight", "--value", 1, "-o",
                 base)
        self.assertNotEqual(without_time(read(base)), without_time(self.data), "with the edit")
        back = self.lqt(*arguments, "--value", there["old"][0], "--json").json()
        self.assertEqual(back["old"], [0.625])
        self.assertEqual(back["new"], there["old"])
        self.assertEqual(back["revision"], 2)
        self.lqt("edit", "scale", self.model, "--tensor", "model.norm.weight", "--value", 1, "-o",
                 base)
        self.assertEqual(without_time(read(base)), without_time(self.data),
                         "the same bytes as before")

    def test_save_puts_the_edits_into_the_file(self):
        self.lqt("edit", "codebook", self.model, "--id", 0, "--vector", 3, "--value", 0.625,
                 "--save")
        self.assertNotEqual(read(self.model), self.data)
        self.lqt("validate", self.model, "-q")
        report = self.lqt("edit", "codebook", self.model, "--id", 0, "--vector", 3, "--value", 0.5,
                          "--json").json()
        self.assertEqual(report["old"], [0.625])
        self.assertEqual(report["revision"], 2)

    def test_every_command(self):
        tensor = "model.layers.0.mlp.gate_proj.weight"
        for words in (["delta", "--tensor", tensor, "--at", "1:2,3:4", "--value", "0.5,-0.25"],
                      ["mask", "--tensor", tensor, "--at", "0:0,0:1", "--keep", 0],
                      ["scale", "--tensor", tensor, "--group", 1, "--value", 0.125],
                      ["scale", "--tensor", tensor, "--value", 1.5],
                      ["tensor", "--tensor", tensor, "--multiply", 0.5],
                      ["tensor", "--tensor", tensor, "--clamp=-0.01,0.01"],
                      ["tensor", "--tensor", tensor, "--clone", "twin"],
                      ["hyper", "--key", "norm_eps", "--value", 0.001]):
            self.lqt("edit", words[0], self.model, *words[1:], "--actor", "test", "--reason",
                     " ".join(map(str, words)))
            self.lqt("validate", self.model, "-q")
        self.assertEqual(read(self.model), self.data)
        log = self.lqt("log", self.model, "--json").json()
        self.assertEqual(len(log), 8)
        self.assertEqual(log[0]["actor"], "test")
        out = self.path("out.lqt")
        self.lqt("edit", "delta", self.model, "--tensor", tensor, "--remove", "-o", out)
        self.lqt("validate", out, "-q")
        self.fails(BAD_INPUT, ["NOT_FOUND"], "edit", "delta", out, "--tensor", tensor, "--remove")

    def test_every_vector_of_a_codebook(self):
        old = []
        for vector in range(16):
            report = self.lqt("edit", "codebook", self.model, "--id", 1, "--vector", vector,
                              "--value", vector / 16, "--dry-run", "--json").json()
            self.assertFalse(report["written"])
            old.append(report["old"][0])
        self.assertEqual(read(self.model), self.data)
        self.assertGreater(len(set(old)), 8)

    def test_output_elsewhere(self):
        out = self.path("out.lqt")
        result = self.lqt("edit", "codebook", self.model, "--id", 0, "--vector", 0, "--value", 0.5,
                          "-o", out)
        self.assertIn("new 0.5", result.out.decode())
        self.assertEqual(read(self.model), self.data)
        self.assertEqual(len(read(out)), len(self.data))
        self.lqt("validate", out, "-q")

    def test_vector_codebooks(self):
        self.tiny_model("tiny.lqt", "--vector-dim", 2, "--bits", 8)
        report = self.lqt("edit", "codebook", self.model, "--id", 1, "--vector", 9, "--value",
                          "0.5,-0.25", "--json").json()
        self.assertEqual(report["new"], [0.5, -0.25])
        self.assertEqual(len(report["old"]), 2)
        self.fails(BAD_INPUT, ["DIMENSION_MISMATCH"], "edit", "codebook", self.model, "--id", 1,
                   "--vector", 9, "--value", "0.5")

    def test_refusals(self):
        edit = ["edit", "codebook", self.model]
        for code, words, options in (
                (BAD_INPUT, ["NOT_FOUND"], ["--id", 999, "--vector", 0, "--value", 1]),
                (BAD_INPUT, ["OUT_OF_RANGE"], ["--id", 1, "--vector", 16, "--value", 1]),
                (BAD_INPUT, ["DIMENSION_MISMATCH"], ["--id", 0, "--vector", 0, "--value", "1,2"]),
                (BAD_INPUT, ["NOT_FINITE"], ["--id", 0, "--vector", 0, "--value", "nan"]),
                (BAD_INPUT, ["NOT_FINITE"], ["--id", 0, "--vector", 0, "--value", "1e9"]),
                (WRONG_USE, ["--value", "'x'"], ["--id", 0, "--vector", 0, "--value", "x"]),
                (WRONG_USE, ["--value", "'1,'"], ["--id", 0, "--vector", 0, "--value", "1,"]),
                (WRONG_USE, ["--id", "'-1'"], ["--id", -1, "--vector", 0, "--value", 1]),
                (WRONG_USE, ["--value"], ["--id", 0, "--vector", 0])):
            self.fails(code, words, *edit, *options)
            self.assertEqual(read(self.model), self.data)
        self.fails(BAD_INPUT, ["none"], "edit", "codebook", self.path("none"), "--id", 0,
                   "--vector", 0, "--value", 1)
        self.fails(BAD_INPUT, ["none"], *edit, "--id", 0, "--vector", 0, "--value", 1, "-o",
                   self.path("none/out.lqt"))
        self.fails(WRONG_USE, ["--save"], *edit, "--id", 0, "--vector", 0, "--value", 1, "-o",
                   self.model)
        self.assertEqual(self.files(), ["tiny.lqt"])

    @unittest.skipIf(VALGRIND, "too slow under valgrind")
    def test_the_text_changes_and_changes_back(self):
        model = write(self.path("model.lqt"), read(embedded_model()))
        run = ["run", model, "-p", "Once upon a time", "-n", 24, "--temp", 0, "-q"]
        first = self.lqt(*run).out
        edit = ["edit", "codebook", model, "--id", 1, "--vector"]
        # The largest entry of a codebook weighs most.
        vectors = [self.lqt(*edit, i, "--value", 0, "--dry-run", "--json").json()["old"][0]
                   for i in range(16)]
        largest = max(range(16), key=lambda i: abs(vectors[i]))
        self.lqt(*edit, largest, "--value", -4 * vectors[largest])
        self.assertNotEqual(self.lqt(*run).out, first)
        self.lqt(*edit, largest, "--value", vectors[largest])
        self.assertEqual(self.lqt(*run).out, first)
        self.assertEqual(without_time(read(model)), without_time(read(embedded_model())))


if __name__ == "__main__":
    unittest.main()
