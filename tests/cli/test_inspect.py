"""lqt inspect and validate, on good and on damaged files."""

import random
import struct
import unittest

from harness import BAD_INPUT, Case, NO, SLOW, embedded_model, read, write

SWITCHES = {"--header": "sections", "--metadata": "hyperparameters", "--modules": "graph",
            "--codebooks": "codebooks", "--tensors": "tensors", "--deltas": "deltas",
            "--masks": "masks", "--edit-log": "edit_log"}


class Inspect(Case):
    def setUp(self):
        super().setUp()
        self.model = self.tiny_model("tiny.lqt", "--group-size", 32, "--outliers", 0.01)

    def test_json_has_everything(self):
        whole = self.lqt("inspect", self.model, "--json").json()
        self.assertEqual(whole["file_bytes"], len(read(self.model)))
        self.assertEqual(whole["context"], 128)
        self.assertEqual(whole["vocab_size"], 264)
        for key in SWITCHES.values():
            self.assertIn(key, whole)
        self.assertEqual(len(whole["tensors"]), whole["tensor_count"])
        self.assertEqual(len(whole["codebooks"]), whole["codebook_count"])
        self.assertEqual(len(whole["deltas"]), whole["delta_count"])
        self.assertEqual(len(whole["graph"]["modules"]), whole["module_count"])

    def test_bits_per_weight_counts_every_bit(self):
        whole = self.lqt("inspect", self.model, "--json").json()
        matrices = [t for t in whole["tensors"] if t["dtype"] == "codebook"]
        elements = sum(t["shape"][0] * t["shape"][1] for t in matrices)
        self.assertEqual(elements, whole["quantized_weights"])
        self.assertAlmostEqual(whole["bits_per_weight"], 8 * whole["quantized_bytes"] / elements,
                               places=6)
        # 4-bit indices and fp16 scales per 32 weights alone are 4.5 bits.
        self.assertGreater(whole["bits_per_weight"], 4.5)

    def test_each_switch(self):
        for switch, key in SWITCHES.items():
            one = self.lqt("inspect", self.model, "--json", switch).json()
            others = set(SWITCHES.values()) - {key}
            self.assertIn(key, one)
            self.assertIn("bits_per_weight", one)
            self.assertFalse(others & set(one), switch)
            text = self.lqt("inspect", self.model, switch).out.decode()
            self.assertIn("tiny.lqt", text)
            self.assertGreater(len(text.splitlines()), 4, switch)

    def test_text(self):
        text = self.lqt("inspect", self.model).out.decode()
        self.assertIn("2 x attn", text)
        self.assertIn("bits/weight", text)
        tensors = self.lqt("inspect", self.model, "--tensors").out.decode()
        self.assertIn("model.layers.1.mlp.down_proj.weight", tensors)

    def test_provenance_is_json(self):
        provenance = self.lqt("inspect", self.model, "--json", "--metadata").json()["provenance"]
        self.assertIsInstance(provenance, dict)

    def test_the_embedded_model(self):
        whole = self.lqt("inspect", embedded_model(), "--json").json()
        self.assertLess(whole["file_bytes"], 7_000_000)
        self.assertGreater(whole["bits_per_weight"], 4.0)
        self.assertLess(whole["bits_per_weight"], 5.0)
        self.assertEqual(self.lqt("validate", embedded_model(), "-q").out.decode().split(": ")[-1],
                         "valid\n")


class BadFiles(Case):
    def setUp(self):
        super().setUp()
        self.model = self.tiny_model("tiny.lqt")
        self.data = read(self.model)

    def test_wrong_paths(self):
        for command in ("inspect", "validate"):
            self.fails(BAD_INPUT, ["none.lqt", "NOT_FOUND"], command, self.path("none.lqt"))
            result = self.run_lqt(command, self.folder)
            self.assertIn(result.code, (2, 3), "a folder is no model")
            self.assertEqual(len(result.err.splitlines()), 1)

    def test_other_files(self):
        empty = write(self.path("empty"), b"")
        text = write(self.path("text"), b"not a model\n" * 100)
        self.fails(BAD_INPUT, [empty], "inspect", empty)
        self.fails(BAD_INPUT, [text, "BAD_MAGIC"], "inspect", text)
        result = self.run_lqt("validate", text)
        self.assertEqual(result.code, NO, result)
        self.assertIn(b"BAD_MAGIC", result.out)

    def test_truncated(self):
        path = self.path("cut.lqt")
        size = len(self.data)
        for length in (3, 11, 43, 44, 100, size // 4, size // 2, size - 4096, size - 1):
            write(path, self.data[:length])
            self.fails(BAD_INPUT, [path], "inspect", path)
            result = self.run_lqt("validate", path, "-q")
            self.assertEqual(result.code, NO, f"{length} bytes: {result}")
            self.assertIn(b"[", result.out)

    def test_longer(self):
        path = write(self.path("long.lqt"), self.data + b"\0" * 64)
        self.assertEqual(self.run_lqt("validate", path, "-q").code, NO)

    def test_every_kind_of_bit_flip_is_found(self):
        path = self.path("flip.lqt")
        generator = random.Random(5)
        for _ in range(4 if SLOW else 60):
            at = generator.randrange(len(self.data))
            bad = bytearray(self.data)
            bad[at] ^= 1 << generator.randrange(8)
            write(path, bad)
            result = self.run_lqt("validate", path, "-q", "--json")
            self.assertEqual(result.code, NO, f"byte {at}: {result}")
            report = result.json()
            self.assertFalse(report["valid"])
            self.assertGreater(len(report["findings"]), 0)

    def test_integrity_can_be_skipped(self):
        sections = self.lqt("inspect", self.model, "--json", "--header").json()["sections"]
        scales = [s for s in sections if "codebook" in s["name"]][0]
        bad = bytearray(self.data)
        # The last fp16 of the codebook, one unit in the last place: consistent, but damaged.
        at = scales["offset"] + 64
        value = struct.unpack_from("<H", bad, at)[0]
        struct.pack_into("<H", bad, at, value ^ 1)
        path = write(self.path("bad.lqt"), bad)
        self.assertEqual(self.run_lqt("validate", path, "-q").code, NO)
        self.lqt("validate", path, "-q", "--no-integrity")

    def test_valid_json(self):
        report = self.lqt("validate", self.model, "--json").json()
        self.assertEqual(report, {"path": self.model, "valid": True, "findings": []})
        self.lqt("validate", self.model, "--no-edit-log", "--no-consistency", "--no-integrity")


if __name__ == "__main__":
    unittest.main()
