"""Writes small Hugging Face model folders: a Llama of a few ten thousand random weights with a
byte-level BPE tokenizer."""

import json
import os
import random
import struct

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 264,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 10000.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "float32",
}
FORMATS = {"F32": "f", "F16": "e", "I64": "q"}


def byte_symbols():
    """The printable stand-ins of the 256 bytes that byte-level BPE uses."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols, extra = {}, 0
    for byte in range(256):
        if byte in plain:
            symbols[byte] = chr(byte)
        else:
            symbols[byte] = chr(256 + extra)
            extra += 1
    return symbols


def tokenizer():
    symbols = byte_symbols()
    vocab = {"<|endoftext|>": 0}
    for byte in range(256):
        vocab[symbols[byte]] = byte + 1
    space = symbols[32]
    merges = [[space, "t"], ["h", "e"], [space, "a"], ["i", "n"], [space + "t", "he"], ["r", "e"],
              ["o", "n"]]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": False,
                          "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
        "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": merges},
    }


def shapes(config):
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    out = {"model.embed_tokens.weight": (config["vocab_size"], hidden),
           "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        base = f"model.layers.{layer}."
        out[base + "input_layernorm.weight"] = (hidden,)
        out[base + "post_attention_layernorm.weight"] = (hidden,)
        out[base + "self_attn.q_proj.weight"] = (queries, hidden)
        out[base + "self_attn.k_proj.weight"] = (keys, hidden)
        out[base + "self_attn.v_proj.weight"] = (keys, hidden)
        out[base + "self_attn.o_proj.weight"] = (hidden, queries)
        out[base + "mlp.gate_proj.weight"] = (ffn, hidden)
        out[base + "mlp.up_proj.weight"] = (ffn, hidden)
        out[base + "mlp.down_proj.weight"] = (hidden, ffn)
    return out


def values_for(name, count, generator):
    if "norm" in name:
        return [1.0 + generator.gauss(0.0, 0.05) for _ in range(count)]
    return [generator.gauss(0.0, 0.08) for _ in range(count)]


def write_safetensors(path, tensors, dtype="F32"):
    """tensors: name -> (shape, values)."""
    header, blobs, offset = {}, [], 0
    for name, (shape, values) in tensors.items():
        blob = struct.pack(f"<{len(values)}{FORMATS[dtype]}", *values)
        header[name] = {"dtype": dtype, "shape": list(shape),
                        "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def write_model(folder, seed=1, config=None, change=None, dtype="F32"):
    """`config`: keys to change. `change(tensors)`: called before the tensors are written."""
    os.makedirs(folder, exist_ok=True)
    settings = dict(CONFIG, **(config or {}))
    generator = random.Random(seed)
    tensors = {}
    for name, shape in shapes(settings).items():
        count = 1
        for size in shape:
            count *= size
        tensors[name] = (shape, values_for(name, count, generator))
    if change is not None:
        change(tensors)
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors, dtype)
    for name, value in (("config.json", settings), ("tokenizer.json", tokenizer())):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(value, file)
    return folder
