#!/usr/bin/env python3
"""Writes pretoken_cases.json: texts and how the `tokenizers` package cuts them (pip install
tokenizers; made with 0.23.3). Characters that later Unicode versions added are avoided."""
import json
import random
import unicodedata

from tokenizers import Regex, pre_tokenizers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL,
    "qwen2": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL,
}
FIXED = ["", " ", "  ", " \n", "\n ", "don't DON'T we'll we'Ll 'Sx '\u017fx", "a  b   c\t d\n\ne",
         "x\r\n\r\n  y", "  \n \n  z", "12345 1234567 1a2", "...!!!\n\n\nfoo", "it''s ''s '",
         "\u3000\u4f60\u597d\uff0c\u4e16\u754c 123", "caf\u00e9 na\u00efve \u0301x", "\u2028a\u00a0b",
         "\u00bd\u00b2\u2167 \u0663\u0664", "\U0001F600\U0001F600 ok", "\x1ca\x1fb", "\t\tif (x) {\n"]


def random_text(rng):
    pools = [" \t\n\r", "abzAZ'", "0129", ".,!?'\"-", "\u00e9\u00df\u0416\u4e2d\u0e01", "\u00a0\u3000\u2003\u0085",
             "\u0301\u200d\u2028", "\u00b2\u0661\u2160", "\U0001F600\U0001D400", "'s't'RE'lL"]
    text = "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 40)))
    while rng.random() < 0.3:
        code = rng.randrange(0x20, 0x3FFFF)
        if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co"):
            text += chr(code)
    return text


def main():
    rng = random.Random(20)
    splits = {name: pre_tokenizers.Split(Regex(p), "isolated") for name, p in PATTERNS.items()}
    splits["digits"] = pre_tokenizers.Digits(False)
    splits["digit"] = pre_tokenizers.Digits(True)
    cases = []
    for text in FIXED + [random_text(rng) for _ in range(400)]:
        case = {"text": text}
        for name, split in splits.items():
            case[name] = [len(piece.encode()) for piece, _ in split.pre_tokenize_str(text)]
        cases.append(case)
    print("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]")


main()
