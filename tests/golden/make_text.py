#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/text: what Hugging Face tokenizers answers. Chats are make_chat.py's.

  python tests/golden/make_text.py                       with tokenizers

Formats are told in tests/golden/text/README.md. Same seeds, same bytes.
"""
import json
import pathlib
import random
import struct

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "tests/golden/text"
DEMO = ROOT / "deploy/demo/model"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
REGEX = {
    "family": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
              r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + SPACES,
    "odd": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES,
}
PHRASES = """the quick brown fox jumps over a lazy dog and runs home again before it rains
she said it's fine, we'll see what they've done and I'm sure you'd agree that he isn't here
if (count == 0) { return NULL; } else { for (int i = 0; i < count; i++) total += items[i]; }
def function(self, value): return self.value + value # comment
naïve café façade über straße señor piñata crème brûlée Ångström
Привет, как дела? Это простой пример текста на русском языке
日本語のテキストです。今日は良い天気ですね。 中文文本示例，今天天气很好。 한국어 텍스트 예시입니다
नमस्ते दुनिया यह एक उदाहरण है สวัสดีชาวโลก שלום עולם مرحبا بالعالم
1234567890 3.14159 2026-11-21 0x1f %d\t\n""".split("\n")
MARKS = [chr(c) for c in (*range(0x300, 0x370), *range(0x591, 0x5BE), 0x610, 0x64B, 0x651, 0x654,
                          0x93C, 0x94D, 0x9BE, 0xBBE, 0xE38, 0xF71, 0xF72, 0x1DC0, 0x20D0, 0x3099,
                          0x309A, 0xFE20, 0x11930, 0x1D165, 0x1D16E, 0x1E08F, 0x897, 0x1ACF)]
BASES = list("aAeEoOuUnsSdDzqx") + [chr(c) for c in (
    0xE9, 0xC5, 0x1E0D, 0x1100, 0x1161, 0x11A8, 0xAC00, 0xAC01, 0x304B, 0x30CF, 0x915, 0x9C7,
    0x1025, 0x1B05, 0x212B, 0x2126, 0xF900, 0xFB1D, 0x1D15E, 0x2F800, 0x1FBE, 0x1F80, 0x3A9,
    0x11935, 0x105D2)]
WORDS = ["the", "return", " import", "don't", "I'M", "we'LL", "'\u017f", "x'D", "it's", "'Re",
         "'vE", "na\u00efve", "\u65e5\u672c\u8a9e", "\ud55c\uad6d\uc5b4", "123", "3.14",
         "\u0663\u0664", "\u2167", "\u00bd", "___", "->", "!=", "...", "\u201cq\u201d",
         "\u2019s", "\u2014", "\u20ac", "<|im_", "|>", "<|", "im_end", "<think", "think>",
         "\u180e", "\u200b", "\u200d", "\ufeff",
         "\0", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\u1680", "\U0001f600",
         "\U0001f468\u200d\U0001f469"]
ENDS = ["\r\n", "\n", "\n\n", "\r", "\t", " \n", "\n ", "\r\n\r\n", " \t ", "\n\r"]
# Blocks of 256 code points: planes 0 to 3 and the tags whole, of the empty rest every 16th.
CODE_POINT_BLOCKS = [b for b in range(0x1100) if b < 0x400 or b == 0xE01 or b % 16 == 0]
# Compositions of Unicode 13 and 16, which the normalizer does not know: they must stay apart.
LATE_PAIRS = [(0x11935, 0x11930), (0x105D2, 0x307), (0x105DA, 0x307), (0x11382, 0x113C9),
              (0x113C2, 0x113C2), (0x113C2, 0x113B8), (0x1611E, 0x1611F), (0x1611E, 0x16129),
              (0x16D67, 0x16D67), (0x16D63, 0x16D67)]


# ---------------------------------------------------------------- the two small tokenizers
def train(name, tokens):
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(REGEX[name]), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(PHRASES * 3, trainers.BpeTrainer(
        vocab_size=tokens, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return made


def write_tokenizer(name, made, spaced_merges):
    """The saved file, compact; merges as "a b" where asked, the spelling of older files."""
    content = json.loads(made.to_str())
    if spaced_merges:
        content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(
        json.dumps(content, ensure_ascii=spaced_merges, separators=(",", ":")), encoding="utf-8")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def make_family():
    made = train("family", 1400)
    for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        made.add_special_tokens([AddedToken(text, special=True, normalized=False)])
    for text in ("<tool_call>", "</tool_call>", "<think>", "</think>"):
        made.add_tokens([AddedToken(text, special=False, normalized=False)])
    return write_tokenizer("family", made, False)


def make_odd():
    """Every property of added tokens that is supported, and contents that overlap."""
    made = train("odd", 900)
    for text, options in (
            ("<a>", {}), ("<a><b>", {}), ("<a><", {"special": True}), ("<left>", {"lstrip": True}),
            ("<right>", {"rstrip": True}), ("<both>", {"lstrip": True, "rstrip": True}),
            (" spaced", {}), ("two words", {"special": True}), ("\u00e9\u00e8", {}),
            ("\u65e5\u672c", {}), ("the", {}), ("<norm>", {"normalized": True}),
            ("\u212b", {}), ("\u00c5\u00c5", {"normalized": True, "rstrip": True})):
        made.add_tokens([AddedToken(text, **{"normalized": False, "special": False, **options})])
    return write_tokenizer("odd", made, True)


# ---------------------------------------------------------------- strings
def any_code_point(rng):
    limit = rng.choice([0x80, 0x800, 0x10000, 0x110000])
    point = rng.randrange(limit)
    return "?" if 0xD800 <= point < 0xE000 else chr(point)


def part(rng, added):
    kind = rng.randrange(12)
    if kind == 0:
        return rng.choice(added)
    if kind == 1:
        return " " * rng.randrange(1, 12)
    if kind == 2:
        return rng.choice(ENDS) * rng.randrange(1, 4)
    if kind == 3:
        return "".join(any_code_point(rng) for _ in range(rng.randrange(1, 8)))
    if kind == 4:
        return rng.choice(BASES) + "".join(rng.choice(MARKS) for _ in range(rng.randrange(6)))
    if kind == 5:
        return "".join(chr(rng.randrange(33, 127)) for _ in range(rng.randrange(1, 9)))
    if kind == 6:
        return "".join(rng.choice("etaoinshrdlu") for _ in range(rng.randrange(1, 14)))
    if kind == 7:
        return rng.choice(MARKS) * rng.randrange(1, 3)
    if kind == 8:
        return rng.choice(rng.choice(PHRASES).split(" ")) + rng.choice(["", " "])
    return rng.choice(WORDS) + rng.choice(["", " ", " "])


def long_strings():
    """Pieces longer than the short-piece path, runs of marks, long runs of one class."""
    rng = random.Random(7)
    yield "a" * 1000
    yield " " * 333 + "x" + "\n" * 257 + " " * 64
    yield "a" + "\u0301\u0316" * 200 + "\u0345\u0334" * 40 + "b"
    yield "".join(rng.choice("etaoinshrdlu") for _ in range(3000))
    yield "".join(rng.choice("thequickbrown") for _ in range(700)) * 2
    yield "=" * 100 + "-" * 49 + "\r\n" * 50
    yield "the" * 400
    yield "\u65e5\u672c\u8a9e" * 100
    for length in range(40, 60):
        yield "".join(rng.choice("etaoinshrdlu") for _ in range(length))


def compositions():
    """Every canonical decomposition below Hangul and a sample of Hangul, to be composed again."""
    nfd = normalizers.NFD()
    decomposed = [nfd.normalize_str(chr(c)) for c in (
        *range(0xA0, 0xAC00), *range(0xAC00, 0xD7A4, 97), *range(0xF900, 0x30000))
        if nfd.normalize_str(chr(c)) != chr(c)]
    decomposed += [chr(a) + chr(b) for a, b in LATE_PAIRS]
    for i in range(0, len(decomposed), 40):
        yield "".join(text + "." for text in decomposed[i:i + 40])


def strings(seed, count, added):
    rng = random.Random(seed)
    yield ""
    yield from long_strings()
    yield from compositions()
    for _ in range(count):
        yield "".join(part(rng, added) for _ in range(rng.randrange(1, 12)))


def id_lists(seed, count, id_count, added_ids):
    """Random ids, half of the lists from single bytes, which seldom make whole code points."""
    rng = random.Random(seed)
    yield []
    for index in range(count):
        top = 256 if index % 2 else id_count
        yield [rng.choice(added_ids) if rng.random() < 0.1 else rng.randrange(top)
               for _ in range(rng.randrange(1, 16))]


# ---------------------------------------------------------------- files
def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack_ids(ids):
    return varint(len(ids)) + b"".join(varint(i) for i in ids)


def pack_text(text):
    data = text.encode()
    return varint(len(data)) + data


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


def write_cases(name, tokenizer, path, seed, counts):
    decoder = tokenizer.get_added_tokens_decoder()
    added = [token.content for token in decoder.values()]
    texts = list(strings(seed, counts[0], added))
    lists = list(id_lists(seed, counts[1], tokenizer.get_vocab_size(), sorted(decoder)))
    out = struct.pack("<Q", fnv1a((path / "tokenizer.json").read_bytes())) + varint(len(texts))
    for text in texts:
        out += pack_text(text) + pack_ids(tokenizer.encode(text, add_special_tokens=False).ids)
    out += varint(len(lists))
    for ids in lists:
        out += pack_ids(ids)
        out += pack_text(tokenizer.decode(ids, skip_special_tokens=False))
        out += pack_text(tokenizer.decode(ids, skip_special_tokens=True))
    (HERE / f"{name}.bin").write_bytes(out)
    print(f"{name}.bin: {len(texts)} texts, {len(lists)} id lists, {len(out)} bytes")


def write_code_points(name, tokenizer):
    """A hash of the ids of every 256 code points, each among letters, digits, spaces and marks."""
    out = b""
    for block in CODE_POINT_BLOCKS:
        text = "".join(f"x{c}1 {c}\n{c}'s a\u0301{c}\u0316{c}\u0334q " for c in map(chr, range(
            block * 256, block * 256 + 256)) if not 0xD800 <= ord(c) < 0xE000)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        out += struct.pack("<Q", fnv1a(struct.pack(f"<{len(ids)}I", *ids)))
    (HERE / f"{name}_code_points.bin").write_bytes(out)


def main():
    family, odd = make_family(), make_odd()
    write_cases("family", family, HERE / "family", 1, (2500, 800))
    write_cases("odd", odd, HERE / "odd", 2, (1200, 400))
    write_cases("demo", Tokenizer.from_file(str(DEMO / "tokenizer.json")), DEMO, 3, (1200, 400))
    write_code_points("family", family)
    write_code_points("odd", odd)


if __name__ == "__main__":
    main()
