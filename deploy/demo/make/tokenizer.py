# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model's byte-level BPE and writes its tokenizer files.

    tokenizer.py --corpus /tmp/corpus --out deploy/demo/model

The pipeline is the family's: NFC, its split regex, bytes; then its 33 added tokens in its
order. Only the vocabulary is small, and learned from the demo corpus.
"""

import argparse
import json
import pathlib
import re
import shutil

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

BASE_VOCAB = 3800
ROWS = 4096  # embedding rows; those past the last token are padding, in no text
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PLAIN = [
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]
ADDED = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    *PLAIN,
    "<|audio_start|>",
    "<|audio_end|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
    "<tts_text_bos_single>",
    "<|audio_pad|>",
]
IDS = {token: BASE_VOCAB + i for i, token in enumerate(ADDED)}
MARKUP = re.compile("|".join(re.escape(token) for token in ADDED))


def blank_tokenizer():
    made = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix=""))
    made.normalizer = normalizers.NFC()
    byte_level = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(**byte_level),
        ]
    )
    made.decoder = decoders.ByteLevel(**byte_level)
    made.post_processor = processors.ByteLevel(**byte_level)
    return made


def pieces(folder):
    """The corpus without added tokens, which the BPE must never see."""
    for path in sorted(folder.glob("*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for line in file:
                yield from (piece for piece in MARKUP.split(json.loads(line)) if piece)


def train(folder):
    made = blank_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCAB,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    made.train_from_iterator(pieces(folder), trainer)
    if made.get_vocab_size() != BASE_VOCAB:
        raise SystemExit(f"the corpus gave {made.get_vocab_size()} tokens, wanted {BASE_VOCAB}")
    for token in ADDED:
        add = made.add_tokens if token in PLAIN else made.add_special_tokens
        add([AddedToken(token, normalized=False, special=token not in PLAIN)])
    return made


def write_config(out):
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": t, **flags, "special": t not in PLAIN} for t, i in IDS.items()
        },
        "additional_special_tokens": ADDED[1 : ADDED.index("<tool_call>")],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 4096,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (out / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    made = train(args.corpus)
    made.save(str(args.out / "tokenizer.json"))
    write_config(args.out)
    template = pathlib.Path(__file__).with_name("chat_template.jinja")
    shutil.copy(template, args.out / "chat_template.jinja")
    size = (args.out / "tokenizer.json").stat().st_size
    print(f"{made.get_vocab_size()} tokens, {ROWS} rows, {size} bytes")


if __name__ == "__main__":
    main()
