#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a synthetic byte-level BPE tokenizer.json of the family's size, for tokenizer_bench.

make_vocabulary.py DIR [--tokens 248044] [--seed 1] [--text-bytes 8000000]

DIR/tokenizer.json has the shape that Hugging Face tokenizers saves (indented, merges as pairs),
33 added tokens after the vocabulary, and DIR/text.txt is text to encode: words of a skewed
lexicon, numbers, punctuation, Chinese and code. Standard library only; same seed, same bytes.
"""
import argparse
import json
import os
import random

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>",
           *(f"<|reserved_{i}|>" for i in range(24))]
PLAIN = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
         "<think>", "</think>"]


def byte_letters():
    """The 256 letters of GPT-2's byte map, in byte order."""
    printable = set(range(0x21, 0x7F)) | set(range(0xA1, 0xAD)) | set(range(0xAE, 0x100))
    letters, spare = [], 0
    for byte in range(256):
        if byte in printable:
            letters.append(chr(byte))
        else:
            letters.append(chr(256 + spare))
            spare += 1
    return letters


LETTERS = byte_letters()


def spelled(text):
    return "".join(LETTERS[byte] for byte in text.encode())


def make_lexicon(rng, words):
    """Pronounceable words, short ones first, so that low indices are the frequent ones."""
    heads = [*"bcdfghlmnprstw", "st", "th", "ch", ""]
    vowels = ["a", "e", "i", "o", "u", "ea", "io", "ou"]
    tails = ["", "", "n", "r", "s", "t", "l", "nd", "ng", "st"]
    lexicon, seen = [], set()
    while len(lexicon) < words:
        syllables = 1 + min(4, int(rng.expovariate(0.9)) + len(lexicon) // (words // 2))
        word = "".join(rng.choice(heads) + rng.choice(vowels) + rng.choice(tails)
                       for _ in range(syllables))
        if rng.random() < 0.1:
            word = word.capitalize()
        if word not in seen:
            seen.add(word)
            lexicon.append(word)
    return lexicon


class Vocabulary:
    def __init__(self):
        self.ids = {letter: i for i, letter in enumerate(sorted(LETTERS))}
        self.merges = []

    def add(self, left, right):
        if left + right not in self.ids:
            self.ids[left + right] = len(self.ids)
            self.merges.append((left, right))
        return left + right

    def build(self, text, rng):
        """Merges that make text one token: halves of random cut, longest known parts first."""
        if text in self.ids or len(text) < 2:
            return text
        cut = len(text) - 1
        while cut > 1 and text[:cut] not in self.ids:
            cut -= 1
        if cut == 1 and len(text) > 3:
            cut = rng.randrange(1, len(text))
        return self.add(self.build(text[:cut], rng), self.build(text[cut:], rng))


def make_vocabulary(rng, lexicon, tokens):
    vocabulary = Vocabulary()
    for indent in range(2, 33):
        vocabulary.build(spelled(" " * indent), rng)
    for mark in ["()", "):", "==", "->", "//", "\n\n", ".\n", ",\n", "{\n",
                 " (", " =", ' "', " {", " //"]:
        vocabulary.build(spelled(mark), rng)
    chinese = [chr(c) for c in range(0x4E00, 0x4E00 + 8000)]
    for i, word in enumerate(lexicon):
        vocabulary.build(spelled(" " + word), rng)
        vocabulary.build(spelled(word), rng)
        if i % 4 == 0:
            vocabulary.build(spelled(chinese[(i // 4) % len(chinese)]), rng)
        if i % 8 == 0:
            vocabulary.build(spelled(rng.choice(chinese[:2000]) + rng.choice(chinese[:2000])), rng)
        if len(vocabulary.ids) >= tokens:
            break
    assert len(vocabulary.ids) >= tokens, "the lexicon is too small for that many tokens"
    keep = {token: i for token, i in vocabulary.ids.items() if i < tokens}
    return keep, [pair for pair in vocabulary.merges if pair[0] + pair[1] in keep]


def write_tokenizer(path, vocabulary, merges):
    names = [(name, True) for name in SPECIAL] + [(name, False) for name in PLAIN]
    added = [
        {"id": len(vocabulary) + i, "content": name, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": special}
        for i, (name, special) in enumerate(names)
    ]
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated",
             "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                  "use_regex": False}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary,
                  "merges": [list(pair) for pair in merges]},
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(tokenizer, file, ensure_ascii=False, indent=2)


def write_text(path, rng, lexicon, size):
    after_word = [" ", " ", " ", " ", ", ", ". ", ".\n", "\n\n", " (", ") "]
    of_code = ["if (", "return ", "for i in ", "x->", "// "]
    parts, made = [], 0
    while made < size:
        kind = rng.random()
        if kind < 0.80:
            index = int(len(lexicon) ** rng.random())  # Zipf: the n-th word as often as 1 / n
            part = lexicon[index] + rng.choice(after_word)
        elif kind < 0.84:
            part = str(rng.randrange(10 ** rng.randrange(1, 7))) + " "
        elif kind < 0.92:
            part = "\n    " + rng.choice(of_code) + rng.choice(lexicon) + ") {\n"
        else:
            part = "".join(chr(0x4E00 + int(8000 ** rng.random()))
                           for _ in range(rng.randrange(2, 12))) + "\u3002"
        parts.append(part)
        made += len(part.encode())
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write("".join(parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("--tokens", type=int, default=248044)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text-bytes", type=int, default=8_000_000)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    os.makedirs(arguments.directory, exist_ok=True)
    lexicon = make_lexicon(rng, max(1000, arguments.tokens // 2))
    vocabulary, merges = make_vocabulary(rng, lexicon, arguments.tokens)
    write_tokenizer(os.path.join(arguments.directory, "tokenizer.json"), vocabulary, merges)
    write_text(os.path.join(arguments.directory, "text.txt"), rng, lexicon, arguments.text_bytes)
    print(f"{len(vocabulary)} tokens, {len(merges)} merges")


if __name__ == "__main__":
    main()
