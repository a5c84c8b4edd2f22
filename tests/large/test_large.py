"""Models of a real size: opening reads the metadata alone, and quantizing keeps to the largest
tensor + 1 GiB. Needs about 8 GB of free disk under LQT_LARGE_DIR (default: the temporary folder)
and some minutes. Prints what it measured; times are printed, never judged."""

import array
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = os.environ["LQT_PROGRAM"]
OPENER = os.environ["LQT_OPEN_LARGE"]
MIB, GIB = 1 << 20, 1 << 30
# The shape of a 7 billion parameter Llama, two layers of it.
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 2, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
    "rope_theta": 10000.0, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}


def shapes():
    hidden, ffn, vocab = (CONFIG[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    out = {"model.embed_tokens.weight": (vocab, hidden), "lm_head.weight": (vocab, hidden),
           "model.norm.weight": (hidden,)}
    for layer in range(CONFIG["num_hidden_layers"]):
        base = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            out[f"{base}{name}.weight"] = (hidden,)
        for name in "qkvo":
            out[f"{base}self_attn.{name}_proj.weight"] = (hidden, hidden)
        out[base + "mlp.gate_proj.weight"] = out[base + "mlp.up_proj.weight"] = (ffn, hidden)
        out[base + "mlp.down_proj.weight"] = (hidden, ffn)
    return out


def normal_bfloat16(count, generator):
    """The bytes of `count` normal numbers of the size of a trained model's weights."""
    singles = array.array("f", (generator.gauss(0.0, 0.02) for _ in range(count)))
    words = array.array("H", singles.tobytes())
    return words[1::2].tobytes()  # the upper halves


def write_folder(folder):
    """A Hugging Face folder whose weights repeat one random block from random places on."""
    generator = random.Random(1)
    block = normal_bfloat16(1 << 20, generator)
    header, offset = {}, 0
    for name, shape in shapes().items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": list(shape),
                        "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        left = offset
        while left > 0:
            at = 2 * generator.randrange(len(block) // 2)
            left -= file.write((block[at:] + block[:at])[:left])
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(CONFIG, file)


def run(*command):
    """Returns (stdout, seconds, most resident bytes); the command must succeed."""
    begin = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE)
    out = process.stdout.read()
    _, state, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(state)
    process.stdout.close()
    assert process.returncode == 0, command
    return out, time.monotonic() - begin, usage.ru_maxrss * 1024


def say(text):
    print(text, file=sys.stderr, flush=True)


class Large(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lqt-large-", dir=os.environ.get("LQT_LARGE_DIR"))
        self.addCleanup(shutil.rmtree, self.folder)
        if shutil.disk_usage(self.folder).free < 8e9:
            self.skipTest(f"{self.folder} has less than 8 GB of free space; set LQT_LARGE_DIR")
        self.model = os.path.join(self.folder, "model.lqt")

    def test_open(self):
        _, seconds, peak = run(PROGRAM, "synth", "llama2-7b", self.model, "-q")
        size = os.path.getsize(self.model)
        say(f"lqt synth llama2-7b: {size / 1e9:.3f} GB in {seconds:.0f} s, "
            f"{peak / MIB:.0f} MiB at most")
        self.assertLessEqual(size, 3.9e9)
        self.assertGreater(os.stat(self.model).st_blocks * 512, 0.99 * size, "it is not sparse")
        for _ in range(3):
            report = json.loads(run(OPENER, self.model)[0])
            say(f"lqt_model_open: {report['milliseconds']} ms, "
                f"{report['resident_growth'] / MIB:.1f} MiB more resident, page cache from "
                f"{report['cached_before'] / MIB:.1f} to {report['cached_after'] / MIB:.1f} MiB")
            self.assertLess(report["resident_growth"], 64 * MIB)
            self.assertLess(report["cached_after"] - report["cached_before"], 64 * MIB)
        _, seconds, peak = run(PROGRAM, "inspect", self.model)
        say(f"lqt inspect: {seconds * 1e3:.0f} ms, {peak / MIB:.0f} MiB at most")
        self.assertLess(peak, 64 * MIB)

    def test_quantize(self):
        write_folder(self.folder)
        largest = max(2 * s[0] * (s[1] if len(s) > 1 else 1) for s in shapes().values())
        for options in ([], ["--bits", 3, "--outliers", 0.005, "--group-size", 32]):
            out, seconds, peak = run(PROGRAM, "quantize", self.folder, self.model, "--json", "-q",
                                     *options)
            self.assertLess(peak, largest + GIB)
            weights = json.loads(out)["quantized_weights"]
            say(f"lqt quantize {' '.join(map(str, options))}: {weights / 1e6:.0f} M weights in "
                f"{seconds:.0f} s, {peak / MIB:.0f} MiB at most (largest tensor "
                f"{largest / MIB:.0f} MiB)")


if __name__ == "__main__":
    unittest.main()
