"""lqt quantize: what it makes, and every bad source."""

import json
import math
import os
import unittest

from harness import BAD_INPUT, Case, SLOW, WRONG_USE, read, write
from hf_model import write_model, write_safetensors

# Calibration takes longer than all else that a tiny model needs.
PLAIN = ["--calibrate", "off"]
QUERY = "model.layers.1.self_attn.q_proj.weight"


class Quantize(Case):
    def setUp(self):
        super().setUp()
        self.source = write_model(self.path("hf"))
        self.out = self.path("out.lqt")

    def tensors(self):
        listing = self.lqt("inspect", self.out, "--json", "--tensors").json()["tensors"]
        return {tensor["name"]: tensor for tensor in listing}

    def test_every_width(self):
        for bits in ("2", "3", "4", "8"):
            report = self.lqt("quantize", self.source, self.out, *PLAIN, "--bits", bits,
                              "--group-size", 16, "--embed-bits", "none", "--json", "-q").json()
            self.assertGreater(report["bits_per_weight"], int(bits))
            self.assertLess(report["bits_per_weight"], int(bits) + 3.5)
            tensors = self.tensors()
            self.assertEqual(tensors[QUERY]["index_bits"], int(bits))
            self.assertEqual(tensors["model.embed_tokens.weight"]["dtype"], "f32")
            self.lqt("validate", self.out, "-q")

    def test_more_bits_are_closer(self):
        errors = [self.lqt("quantize", self.source, self.out, *PLAIN, "--bits", bits, "--json",
                           "-q").json()["relative_error"] for bits in (2, 3, 4, 8)]
        self.assertEqual(errors, sorted(errors, reverse=True))
        self.assertLess(errors[3], 0.02)

    def test_no_quantization_keeps_the_values(self):
        self.lqt("quantize", self.source, self.out, *PLAIN, "--bits", "none", "--embed-bits",
                 "none", "-q")
        summary = self.lqt("inspect", self.out, "--json").json()
        self.assertEqual(summary["quantized_weights"], 0)
        self.assertEqual(summary["bits_per_weight"], 0)
        self.lqt("validate", self.out, "-q")

    @unittest.skipIf(SLOW, "the quantizer's own tests run under the sanitizers")
    def test_options(self):
        for options in (["--scope", "row"], ["--scope", "group"], ["--vector-dim", 2],
                        ["--residual-bits", 2], ["--codebook-init", "nf4"],
                        ["--codebook-init", "uniform"], ["--outliers", 0.02], ["--add-deltas"],
                        ["--expandable-codebooks"], ["--group-size", "none"],
                        ["--calibrate", "off"], ["--calibrate", "on"],
                        ["--exclude", "*q_proj*,*.0.mlp.*"], ["--target-bpw", 5.5]):
            report = self.lqt("quantize", self.source, self.out, *PLAIN, *options, "--json",
                              "-q").json()
            self.lqt("validate", self.out, "-q")
            if options[0] == "--exclude":
                self.assertEqual(self.tensors()[QUERY]["dtype"], "f32")
            if options[0] == "--target-bpw":
                self.assertLessEqual(report["bits_per_weight"], 5.5)

    def test_deterministic(self):
        # The time of writing stands in the header and the provenance; the weights are compared.
        bodies = []
        for threads in (1, 2):
            self.lqt("quantize", self.source, self.out, "--seed", 4, "--threads", threads, "-q")
            sections = self.lqt("inspect", self.out, "--json", "--header").json()["sections"]
            data = read(self.out)
            bodies.append([data[s["offset"]:s["offset"] + s["bytes"]] for s in sections
                           if s["name"].startswith(("tensor", "codebook", "delta"))])
        self.assertGreater(len(bodies[0]), 10)
        self.assertEqual(bodies[0], bodies[1])

    def test_an_old_file_is_replaced(self):
        write(self.out, b"old")
        self.lqt("quantize", self.source, self.out, *PLAIN, "-q")
        self.lqt("validate", self.out, "-q")
        self.assertEqual(self.files(), ["hf", "out.lqt"])


class BadSources(Case):
    """Each leaves the old output file as it was."""

    def setUp(self):
        super().setUp()
        self.source = self.path("hf")
        self.out = write(self.path("out.lqt"), b"the old file")

    def refused(self, words, *options, code=BAD_INPUT):
        self.fails(code, words, "quantize", self.source, self.out, "-q", *options)
        self.assertEqual(read(self.out), b"the old file")
        self.assertEqual([f for f in self.files() if f not in ("hf", "out.lqt")], [])

    def change_config(self, **keys):
        path = os.path.join(self.source, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        config.update(keys)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)

    def test_no_such_folder(self):
        self.refused(["hf", "NOT_FOUND"])

    def test_an_empty_folder(self):
        os.mkdir(self.source)
        self.refused(["config.json"])

    def test_no_weights(self):
        write_model(self.source)
        os.remove(os.path.join(self.source, "model.safetensors"))
        self.refused(["safetensors"])

    def test_unsupported_architecture(self):
        write_model(self.source)
        self.change_config(architectures=["WhisperForConditionalGeneration"], model_type="whisper")
        self.refused(["hisper", "UNSUPPORTED"])

    def test_unsupported_dtype(self):
        write_model(self.source)
        write_safetensors(os.path.join(self.source, "model.safetensors"),
                          {"model.embed_tokens.weight": ((264, 64), [1] * 264 * 64)}, "I64")
        self.refused(["I64", "UNSUPPORTED"])

    def test_config_is_not_json(self):
        write_model(self.source)
        write(os.path.join(self.source, "config.json"), b"{\"hidden_size\": 64,")
        self.refused(["config.json", "BAD_JSON"])

    def test_truncated_weights(self):
        write_model(self.source)
        path = os.path.join(self.source, "model.safetensors")
        data = read(path)
        for length in (0, 4, 8, 100, len(data) // 2, len(data) - 1):
            write(path, data[:length])
            self.refused(["model.safetensors"])

    def test_wrong_shape(self):
        def change(tensors):
            shape, values = tensors[QUERY]
            tensors[QUERY] = ((shape[0], shape[1] - 1), values[:shape[0] * (shape[1] - 1)])
        write_model(self.source, change=change)
        self.refused([QUERY])

    def test_missing_tensor(self):
        write_model(self.source, change=lambda tensors: tensors.pop(QUERY))
        self.refused([QUERY])

    def test_not_finite(self):
        for value in (math.nan, math.inf, -math.inf):
            def change(tensors, value=value):
                tensors[QUERY][1][77] = value
            write_model(self.source, change=change)
            self.refused([QUERY, "NOT_FINITE"])
            self.refused([QUERY, "NOT_FINITE"], "--bits", "none")

    def test_wrong_options(self):
        write_model(self.source)
        for option, value in (("--bits", "5"), ("--bits", "-4"), ("--group-size", "48"),
                              ("--embed-bits", "x"), ("--target-bpw", "0"),
                              ("--target-bpw", "nan"), ("--outliers", "0.9"), ("--scope", "layer"),
                              ("--codebook-init", "magic"), ("--threads", "-1"),
                              ("--vector-dim", "3"), ("--seed", "one"), ("--calibrate", "maybe")):
            self.refused([option, f"'{value}'"], option, value, code=WRONG_USE)

    def test_output_folder_is_missing(self):
        write_model(self.source)
        self.fails(BAD_INPUT, ["none"], "quantize", self.source, self.path("none/out.lqt"), "-q")


if __name__ == "__main__":
    unittest.main()
