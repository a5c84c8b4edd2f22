"""lqt synth: shapes by name and by number."""

import unittest

from harness import BAD_INPUT, Case, WRONG_USE, read

SMALL = ["--hidden", 64, "--layers", 2, "--heads", 4, "--kv-heads", 2, "--ffn", 128, "--vocab", 256]


class Synth(Case):
    def test_shape_by_numbers(self):
        path = self.path("small.lqt")
        report = self.lqt("synth", path, *SMALL, "--json").json()
        self.assertGreater(report["bits_per_weight"], 4.0)
        self.assertLess(report["bits_per_weight"], 6.5)
        summary = self.lqt("inspect", path, "--json").json()
        self.assertEqual(summary["vocab_size"], 0, "there is no tokenizer")
        self.assertEqual(summary["hyperparameters"]["layers"], 2)
        self.assertEqual(summary["file_bytes"], len(read(path)))
        self.lqt("validate", path)

    def test_the_same_seed_gives_the_same_weights(self):
        bodies = []
        for seed in (7, 7, 8):
            path = self.path("a.lqt")
            self.lqt("synth", path, *SMALL, "--seed", seed, "--threads", 1 + len(bodies))
            tensors = self.lqt("inspect", path, "--json", "--header").json()["sections"]
            data = read(path)
            bodies.append([data[s["offset"]:s["offset"] + s["bytes"]] for s in tensors
                           if s["name"].startswith(("tensor", "codebook"))])
        self.assertEqual(bodies[0], bodies[1])
        self.assertNotEqual(bodies[0], bodies[2])

    def test_there_is_no_tokenizer_but_speed_can_be_measured(self):
        path = self.path("small.lqt")
        self.lqt("synth", path, *SMALL, "-q")
        self.fails(BAD_INPUT, ["NOT_FOUND"], "run", path, "-p", "x")
        self.lqt("bench", "session", path, "--prefill", 4, "--decode", 2, "--repeat", 1)

    def test_list(self):
        names = [shape["name"] for shape in self.lqt("synth", "--list", "--json").json()]
        for name in ("llama2-7b", "llama3-8b", "llama2-70b"):
            self.assertIn(name, names)
            self.assertIn(name, self.lqt("synth", "--list").out.decode())

    def test_wrong_use(self):
        path = self.path("x.lqt")
        self.fails(WRONG_USE, ["no shape 'gpt9'"], "synth", "gpt9", path)
        self.fails(WRONG_USE, ["--hidden"], "synth", path)
        self.fails(WRONG_USE, ["--bits", "'5'"], "synth", path, *SMALL, "--bits", 5)
        self.fails(WRONG_USE, ["--layers", "'0'"], "synth", path, *SMALL, "--layers", 0)
        self.fails(BAD_INPUT, ["/none/"], "synth", self.path("none/x.lqt"), *SMALL)
        self.assertEqual(self.files(), [])


if __name__ == "__main__":
    unittest.main()
