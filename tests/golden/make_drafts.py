#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes drafts/<model>.json: greedy text of a float32 reference, and what the head drafts from
every place of it.

The main model is transformers', the head is that of make_mtp.py, both in float32; nothing of the
engine is used. What is drafted behind token p depends on the text up to p alone: the head's rows of
known tokens are made from the main model's hidden states, only those of drafts from its own. So one
list of drafts per place says what a step must do, whatever number is drafted and accepted: `steps`
replays that for each of K, and the test holds the engine against both.

  python tests/golden/make_drafts.py [--model NAME]
"""
import argparse
import itertools
import json

import numpy as np
import torch

import dummy
import reference
from make_mtp import Equations
from reference import HERE

DEMO = HERE.parent.parent / "deploy" / "demo" / "model"
K, DRAFTS = (1, 3), 3
TEXT_MARGIN_MIN = 0.25    # of the text: where the reference is less sure, it ends
ROUTER_MARGIN_MIN = 0.05  # a row of the head is not clear where its router is less sure
DEMO_TEXTS = [
    "Once upon a time", "One day, a small dog named Freya", "The girl opened the door and",
    "Question: How many legs has a spider?\nAnswer:",
    "<|im_start|>user\nTell me a story about a fox named Milo.<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "<|im_start|>user\nWhat is 7 + 5?<|im_end|>\n<|im_start|>assistant\n<think>\n",
]
DEMO_OUTPUT, DEMO_TEXT_MIN = 96, 4
DUMMY_LENGTHS, DUMMY_PROMPTS = [2, 9, 70], 3
DUMMY_OUTPUT = {"dense_untied_r2": 6, "moe_e8_r2": 4}
# With dummy weights a pick that flips changes all that follows; a router's rms error is 0.016.
PROMPT_ROUTER_MARGIN_MIN, TEXT_ROUTER_MARGIN_MIN = 0.15, 0.06


def demo_tensors():
    """Canonical name -> float32, from the checkpoint's own bytes: bf16 is the upper half."""
    blob = (DEMO / "model.safetensors").read_bytes()
    header_bytes = int.from_bytes(blob[:8], "little")
    header, data = json.loads(blob[8:8 + header_bytes]), blob[8 + header_bytes:]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, end = entry["data_offsets"]
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(data[first:end], "<u2").astype(np.uint32) << np.uint32(16)
            values = bits.view(np.float32)
        else:
            values = np.frombuffer(data[first:end], "<f4").copy()
        tensors[name.removeprefix("model.language_model.")] = values.reshape(entry["shape"])
    return tensors


class Model:
    """A main model and its head, with the number of ids that are real."""

    def __init__(self, config, real_ids, tensor=dummy.tensor):
        self.main = reference.Reference(config, torch.float32, tensor)
        self.head = Equations(config, torch.float32, tensor=tensor)
        self.main_bf16 = reference.Reference(config, torch.bfloat16, tensor)
        self.head_bf16 = Equations(config, torch.bfloat16, tensor=tensor)
        self.real_ids = real_ids

    def best(self, logits):
        """The best real id, and by how much."""
        values, ids = torch.topk(logits[:self.real_ids], 2)
        return int(ids[0]), float(values[0] - values[1])

    def bf16_difference(self, ids):
        """bf16 - float32 of the head's logits behind every token of a text but the first."""
        logits = []
        for main, head in ((self.main, self.head), (self.main_bf16, self.head_bf16)):
            main.run(ids)
            _, rows = head.head(main.final_hidden[:-1].to(head.dtype), ids[1:])
            logits.append(rows[:, :self.real_ids])
        return (logits[1] - logits[0]).flatten()

    def text(self, ids, count, stops=(), clear_from=None):
        """Greedy tokens and margins, until one is not clear, or a router from `clear_from` on."""
        out, margins = [], []
        while len(out) < count:
            token, margin = self.best(self.main.run(ids + out)[-1])
            if margin < TEXT_MARGIN_MIN:
                break
            if (clear_from is not None and self.main.router_logits and
                    self.main.router_margins()[clear_from:].min() < TEXT_ROUTER_MARGIN_MIN):
                break
            out.append(token)
            margins.append(round(margin, 4))
            if token in stops:
                break
        return out, margins

    def drafts_behind(self, hidden, tokens):
        """Drafts after tokens[-1], and by how much each is the best: 0 where a router is not sure.

        hidden: the main model's, of all tokens but the last."""
        tokens, found, margins = list(tokens), [], []
        for _ in range(DRAFTS):
            out, logits = self.head.head(hidden, tokens[1:])
            token, margin = self.best(logits[-1])
            unsure = self.head.margins is not None and self.head.margins[-1] < ROUTER_MARGIN_MIN
            found.append(token)
            margins.append(0.0 if unsure else round(margin, 4))
            tokens.append(token)
            hidden = torch.cat([hidden, out[-1:]])
        return found, margins


def replay(text, drafts, count):
    """The steps of a sequence that drafts `count` at a time: [place, drafts accepted]."""
    steps, place = [], 0
    while place < len(drafts):
        accepted = 0
        while (accepted < count and place + accepted + 2 < len(text) and
               drafts[place][accepted] == text[place + accepted + 1]):
            accepted += 1
        steps.append([place, accepted])
        place += 1 + accepted
    return steps


@torch.no_grad()
def prompt_entry(model, ids, text, margins):
    model.main.run(ids + text)
    hidden = model.main.final_hidden
    places = [model.drafts_behind(hidden[:len(ids) + place], ids + text[:place + 1])
              for place in range(len(text) - 1)]
    drafts = [found for found, _ in places]
    return {"ids": ids, "text": text, "text_margins": margins, "drafts": drafts,
            "draft_margins": [clear for _, clear in places],
            "steps": {str(count): replay(text, drafts, count) for count in K}}


def demo_prompts():
    import transformers
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
    config = json.loads((DEMO / "config.json").read_text())
    tensors = demo_tensors()
    model = Model(config, len(tokenizer), lambda name, shape: tensors[name].reshape(shape))
    stops = json.loads((DEMO / "generation_config.json").read_text())["eos_token_id"]
    for prompt in DEMO_TEXTS:
        ids = tokenizer(prompt)["input_ids"]
        end = len(ids) + DEMO_OUTPUT
        while len(ids) < end and ids[-1] not in stops:
            text, margins = model.text(ids, end - len(ids), stops)
            if len(text) >= DEMO_TEXT_MIN:
                yield model, ids, text, margins
            # The token that was not clear becomes a part of the next prompt.
            ids = ids + text
            if not text or text[-1] not in stops:
                ids = ids + [model.best(model.main.run(ids)[-1])[0]]


def dummy_prompts(name):
    """For every length the first last tokens after which the text is clear for long enough."""
    config = reference.load_config(name)
    model = Model(config, reference.REAL_IDS)
    moe, count = dummy.text_config(config).get("num_experts"), DUMMY_OUTPUT[name]
    for length in DUMMY_LENGTHS:
        found = 0
        for seed in itertools.count(40000 + length, 1000):
            start = (model.main.select_prompt(length - 1, seed, PROMPT_ROUTER_MARGIN_MIN) if moe
                     else reference.prompt_ids(length - 1, seed))
            for token in range(reference.PROMPT_MODULUS):
                text, margins = model.text(start + [token], count, clear_from=length - 1)
                if len(text) == count:
                    yield model, start + [token], text, margins
                    found += 1
                if found == DUMMY_PROMPTS:
                    break
            if found == DUMMY_PROMPTS:
                break


@torch.no_grad()
def write(name):
    prompts, real_ids, away = [], 0, []
    for model, ids, text, margins in demo_prompts() if name == "demo" else dummy_prompts(name):
        prompts.append(prompt_entry(model, ids, text, margins))
        real_ids = model.real_ids
        away.append(model.bf16_difference(ids + text))
        steps = prompts[-1]["steps"]
        print(f"{name}: {len(ids)} ids, {len(text)} tokens, accepted of each K in "
              f"{[(sum(a for _, a in steps[str(k)]), len(steps[str(k)])) for k in K]} steps",
              flush=True)
    away = torch.cat(away).abs()
    difference = {"max": round(away.max().item(), 4),
                  "share_999": round(away.kthvalue(int(0.999 * len(away))).values.item(), 4),
                  "rms": round(away.square().mean().sqrt().item(), 5)}
    print(f"{name}: bf16 - f32 of the head's logits {difference}")
    reference.write_json(HERE / "drafts" / f"{name}.json", {
        "format": 1, "made_with": reference.made_with(), "real_ids": real_ids,
        "bf16_minus_f32": difference, "prompts": prompts})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=("demo", *DUMMY_OUTPUT), action="append")
    torch.set_num_threads(1)
    (HERE / "drafts").mkdir(exist_ok=True)
    for name in parser.parse_args().model or ("demo", *DUMMY_OUTPUT):
        write(name)


if __name__ == "__main__":
    main()
