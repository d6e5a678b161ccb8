#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes <case>/logits.json and <case>/logits.bin: what the forward pass must give.

The reference is transformers in float32 (weights are bf16 values). Beside it the same model runs
in bf16, in three ways; how far those are from the reference is recorded, and is where a test of a
bf16 engine takes its tolerance from. Format and meaning of every field: README.md.

  python tests/golden/make_logits.py [case ...]        no case: all of them; about 20 minutes
"""
import sys
import time

import numpy as np
import torch

import dummy
import reference
from reference import HERE, REAL_IDS, VOCAB

LENGTHS = [1, 2, 3, 63, 64, 65, 130, 600]
NATURAL_LENGTH = 130  # MoE only: a prompt that was not selected for clear router picks
GREEDY_LENGTHS, GREEDY_TOKENS = [5, 70], 32
# Full rows of logits: everything of short prompts, the last, and both sides of chunk borders.
FULL_POSITIONS = [0, 63, 64, 127, 128]
COLUMNS = [0, 1, 23, 47, 48, 95, 96, 143, 144, 191, 192, 240, 287, 288, 336, 363]
# Selected prompts keep every router choice clear by this much: nine times the rms difference of
# a router logit between bf16 and float32. What is left of changed picks is counted and recorded.
ROUTER_MARGIN_MIN = 0.15


def top2(logits):
    """Best two real ids of each row: ids [n, 2] and logits [n, 2]."""
    best = torch.topk(logits[:, :REAL_IDS], 2, dim=-1)
    return best.indices, best.values


def full_positions(length):
    chosen = set(range(length)) if length <= 3 else {p for p in FULL_POSITIONS if p < length}
    return sorted(chosen | {length - 1})


class Difference:
    """Collects bf16 - float32 over prompts and says how large it is."""

    def __init__(self):
        self.logits, self.router, self.prompts = [], [], []
        self.margins_where_best_differs, self.flips, self.flip_margin_max = [], 0, 0.0

    def add(self, name, logits, expected):
        self.logits.append((logits - expected).flatten())
        self.prompts.append({"prompt": name, **self.size(self.logits[-1])})
        ids, values = top2(expected)
        differs = top2(logits)[0][:, 0] != ids[:, 0]
        self.margins_where_best_differs += (values[:, 0] - values[:, 1])[differs].tolist()

    def add_routing(self, model, picks, margins, logits):
        changed = torch.stack([(a.sort().values != b.sort().values).any(dim=1)
                               for a, b in zip(model.router_picks, picks)], dim=1)
        self.flips += int(changed.sum())
        self.flip_margin_max = max([self.flip_margin_max] + margins[changed].tolist())
        self.router.append(torch.stack(model.router_logits).sub(logits).flatten())

    @staticmethod
    def size(values):
        values = values.abs()
        return {"max": round(values.max().item(), 5),
                "rms": round(values.pow(2).mean().sqrt().item(), 6),
                "q999": round(values.quantile(0.999).item() if values.numel() < 1 << 24 else
                              float(np.quantile(values.numpy(), 0.999)), 5)}

    def summary(self):
        out = {"positions": sum(x.numel() for x in self.logits) // VOCAB,
               "logits": self.size(torch.cat(self.logits)),
               "best_id_differs": len(self.margins_where_best_differs),
               "best_id_differs_margin_max": round(max([0.0] + self.margins_where_best_differs), 5)}
        if self.router:
            out |= {"router_logits": self.size(torch.cat(self.router)),
                    "expert_sets_differ": self.flips,
                    "expert_sets_differ_margin_max": round(self.flip_margin_max, 5)}
        return out | {"prompts": self.prompts}


class Case:
    def __init__(self, name):
        self.name, self.config = name, reference.load_config(name)
        self.exact = reference.Reference(self.config, torch.float32)
        self.rounded = reference.Reference(self.config, torch.bfloat16)
        self.moe = hasattr(self.exact.model.model.layers[0].mlp, "gate")
        self.blob = reference.Blob()
        ways = ["hf", "router_f32", "picks_forced"] if self.moe else ["hf"]
        self.selected = {way: Difference() for way in ways[:2]}
        self.natural = {way: Difference() for way in ways}

    def compare(self, ids, prompt, expected, differences):
        """Runs bf16 in every way; call right after the float32 run of the same ids."""
        picks, logits = self.exact.router_picks, self.exact.router_logits
        for way, difference in differences.items():
            router = {"hf": "own", "router_f32": "f32", "picks_forced": picks}[way]
            difference.add(prompt, self.rounded.run(ids, router), expected)
            if self.moe:
                difference.add_routing(self.rounded, picks, self.exact.router_margins(),
                                       torch.stack(logits))

    def prompt(self, length, selected=True):
        seed = 1000 + length if selected else 5000 + length
        margin = ROUTER_MARGIN_MIN if self.moe and selected else 0.0
        ids = (self.exact.select_prompt(length, seed, margin) if margin
               else reference.prompt_ids(length, seed))
        logits = self.exact.run(ids)
        name = f"{length}" if selected else f"{length} natural"
        best_ids, best_logits = top2(logits)
        full = full_positions(length)
        entry = {"name": name, "length": length, "seed": seed, "selected": bool(margin),
                 "full_positions": full,
                 "ids": self.blob.add(ids, "<i4"),
                 "full_logits": self.blob.add(logits[full]),
                 "top2_ids": self.blob.add(best_ids, "<i4"),
                 "top2_logits": self.blob.add(best_logits),
                 "log_sum_exp": self.blob.add(torch.logsumexp(logits[:, :REAL_IDS], dim=-1)),
                 "column_logits": self.blob.add(logits[:, COLUMNS])}
        if length == 3:  # for finding the layer that is wrong
            layers = torch.stack(self.exact.layer_outputs)
            entry["layer_outputs"] = self.blob.add(layers)
            entry["final_hidden"] = self.blob.add(self.exact.final_hidden)
        if self.moe:
            margins = self.exact.router_margins()
            assert margin == 0.0 or margins.min() > margin - 1e-3
            entry["router_margins"] = self.blob.add(margins)
            entry["router_margin_min"] = round(margins.min().item(), 6)
        self.compare(ids, name, logits, self.selected if selected else self.natural)
        if selected and length in (3, 65, 130):  # the recurrent and the chunked form are one model
            cached = self.exact.run_cached(ids, length // 2 + 1)
            assert (cached - logits).abs().max() < 1e-4, (self.name, length)
        return entry

    def greedy(self, length):
        ids = (self.exact.select_prompt(length, 3000 + length, ROUTER_MARGIN_MIN) if self.moe
               else reference.prompt_ids(length, 3000 + length))
        prompt, padding_would_win = list(ids), 0
        for _ in range(GREEDY_TOKENS):
            row = self.exact.run(ids)[-1]
            padding_would_win += int(row.argmax() >= REAL_IDS)
            ids.append(int(top2(row[None])[0][0, 0]))
        rows = slice(length - 1, length - 1 + GREEDY_TOKENS)
        expected = self.exact.run(ids[:-1])
        best_ids, best = top2(expected[rows])
        assert best_ids[:, 0].tolist() == ids[length:]
        entry = {"length": length, "prompt": prompt, "tokens": ids[length:],
                 "second_ids": best_ids[:, 1].tolist(),
                 "margins": [round(x, 5) for x in (best[:, 0] - best[:, 1]).tolist()],
                 "padding_would_win": padding_would_win}
        if self.moe:
            margins = self.exact.router_margins().min(dim=1).values
            entry["router_margins"] = [round(x, 5) for x in margins[rows].tolist()]
        entry["bf16_best_ids"] = top2(self.rounded.run(ids[:-1])[rows])[0][:, 0].tolist()
        return entry

    def check_layout(self):
        """Qwen3-Next's grouped rows must be the same model as Qwen3.5's on canonical rows."""
        text = dummy.text_config(self.config)
        rope = {"rope_type": "default", "rope_theta": text["rope_theta"],
                "partial_rotary_factor": text["partial_rotary_factor"]}
        twin = reference.Reference(
            {**text, "model_type": "qwen3_5_moe_text", "rope_parameters": rope}, torch.float32)
        ids = reference.prompt_ids(65, 9)
        assert (twin.run(ids) - self.exact.run(ids)).abs().max() < 1e-4, self.name

    def write(self):
        text = self.exact.model.config
        if text.model_type == "qwen3_next":
            self.check_layout()
        out = {"format": 1, "case": self.name, "model_class": type(self.exact.model).__name__,
               "made_with": reference.made_with(), "vocab": VOCAB, "real_ids": REAL_IDS,
               "hidden": text.hidden_size, "layers": text.num_hidden_layers,
               "prompt_formula": reference.LCG, "prompt_modulus": reference.PROMPT_MODULUS,
               "columns": COLUMNS}
        if self.moe:
            out["router_margin_selected"] = ROUTER_MARGIN_MIN
        out["prompts"] = [self.prompt(length) for length in LENGTHS]
        if self.moe:
            out["prompts"].append(self.prompt(NATURAL_LENGTH, selected=False))
        out["greedy"] = [self.greedy(length) for length in GREEDY_LENGTHS]
        out["bf16_minus_f32"] = {way: d.summary() for way, d in self.selected.items()}
        if self.moe:
            out["bf16_minus_f32_natural"] = {way: d.summary() for way, d in self.natural.items()}
        out["logits_bin_bytes"] = self.blob.bytes
        self.blob.write(HERE / self.name / "logits.bin")
        reference.write_json(HERE / self.name / "logits.json", out)
        return out


def main():
    torch.set_num_threads(1)
    for name in sys.argv[1:] or reference.cases():
        start = time.time()
        out = Case(name).write()
        for way, size in out["bf16_minus_f32"].items():
            print(f"{name} {way}: " + " ".join(f"{k}={v}" for k, v in size.items()
                                               if k != "prompts"), flush=True)
        print(f"{name}: {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
