#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes <case>/mtp.json and <case>/mtp.bin: what the multi-token-prediction head must give.

transformers has no such head, so its equations are written out here and share no code with the
layers of transformers; --check (also run before anything is written) holds the attention and
feed-forward equations against a layer of transformers. Only the main model's hidden states after
the final norm come from transformers. Row i of the head takes (hidden of position i - 1, token i),
keeps its keys and values at slot i, rotates by position i, and predicts token i + 1.

  python tests/golden/make_mtp.py [--check]
"""
import itertools
import math
import sys

import torch
import torch.nn.functional as F

import dummy
import reference
from make_logits import ROUTER_MARGIN_MIN, top2
from reference import HERE

LENGTHS, DRAFTS = [2, 17, 70], 5
# Prompts are chosen so that no draft, and not the token before them, is a near tie.
DRAFT_MARGIN_MIN = 0.1


def zero_centred_norm(x, weight, eps):
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * (1.0 + weight.float())).to(x.dtype)


class Equations:
    """One gated-attention decoder layer, and the head around it, in the dtype of its weights."""

    def __init__(self, config, dtype, layer="mtp.layers.0.", tensor=dummy.tensor):
        self.text, self.layer, self.dtype = dummy.text_config(config), layer, dtype
        self.weights = {name: torch.from_numpy(tensor(name, shape)).to(dtype)
                        for name, shape in dummy.canonical_tensors(config).items()}
        self.eps, self.dim = self.text["rms_norm_eps"], self.text["head_dim"]
        self.margins = None  # of the last layer run, [rows], MoE only

    def w(self, name):
        return self.weights[self.layer + name]

    def norm(self, x, name):
        return zero_centred_norm(x, self.weights[name], self.eps)

    def rotate(self, x, positions):
        """x [rows, heads, dim]: the first rotary_dim dims turn in pairs (j, j + half)."""
        rope = self.text["rope_parameters"]
        half = int(self.dim * rope["partial_rotary_factor"]) // 2
        frequencies = torch.tensor([rope["rope_theta"] ** (-j / half) for j in range(half)])
        angles = positions[:, None, None].float() * frequencies
        cos, sin = angles.cos(), angles.sin()
        a, b, rest = x[..., :half].float(), x[..., half:2 * half].float(), x[..., 2 * half:]
        return torch.cat([(a * cos - b * sin).to(x.dtype), (b * cos + a * sin).to(x.dtype), rest],
                         dim=-1)

    def attention(self, x, positions):
        heads, kv_heads = self.text["num_attention_heads"], self.text["num_key_value_heads"]
        rows, dim = x.shape[0], self.dim
        query_gate = (x @ self.w("self_attn.q_proj.weight").T).view(rows, heads, 2 * dim)
        q, gate = query_gate[..., :dim], query_gate[..., dim:]
        k = (x @ self.w("self_attn.k_proj.weight").T).view(rows, kv_heads, dim)
        v = (x @ self.w("self_attn.v_proj.weight").T).view(rows, kv_heads, dim)
        q = self.rotate(self.norm(q, self.layer + "self_attn.q_norm.weight"), positions)
        k = self.rotate(self.norm(k, self.layer + "self_attn.k_norm.weight"), positions)
        out = torch.empty_like(q)
        causal = torch.ones(rows, rows).tril().bool()
        for head in range(heads):
            kv_head = head // (heads // kv_heads)
            scores = (q[:, head] @ k[:, kv_head].T).float() / math.sqrt(dim)
            share = scores.masked_fill(~causal, -math.inf).softmax(-1).to(x.dtype)
            out[:, head] = (share @ v[:, kv_head]) * gate[:, head].sigmoid()
        return out.reshape(rows, -1) @ self.w("self_attn.o_proj.weight").T

    @staticmethod
    def gated(x, gate, up, down):
        return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T

    def feed_forward(self, x):
        if not self.text.get("num_experts"):
            return self.gated(x, *(self.w(f"mlp.{n}_proj.weight") for n in ("gate", "up", "down")))
        top_k, width = self.text["num_experts_per_tok"], self.text["moe_intermediate_size"]
        shared = self.gated(x, *(self.w(f"mlp.shared_expert.{n}_proj.weight")
                                 for n in ("gate", "up", "down")))
        shared_gate = (x @ self.w("mlp.shared_expert_gate.weight").T).sigmoid()
        logits = x.float() @ self.w("mlp.gate.weight").float().T
        order = logits.sort(dim=-1, descending=True)
        self.margins = order.values[:, top_k - 1] - order.values[:, top_k]
        rows = []
        for row in range(x.shape[0]):
            chosen = order.indices[row, :top_k]
            share = logits[row, chosen].softmax(-1)
            total = torch.zeros(x.shape[1])
            for weight, expert in zip(share, chosen):
                gate, up = self.w("mlp.experts.gate_up_proj")[expert].split([width, width])
                down = self.w("mlp.experts.down_proj")[expert]
                total += weight * self.gated(x[row], gate, up, down).float()
            rows.append(total.to(x.dtype))
        return torch.stack(rows) + shared_gate * shared

    def decoder_layer(self, x, positions):
        x = x + self.attention(self.norm(x, self.layer + "input_layernorm.weight"), positions)
        return x + self.feed_forward(self.norm(x, self.layer + "post_attention_layernorm.weight"))

    def head(self, hidden, tokens):
        """Rows for slots 1, 2, ...: post-norm hidden [rows, hidden] and logits [rows, vocab]."""
        embedded = self.weights["embed_tokens.weight"][torch.tensor(tokens)]
        x = torch.cat([self.norm(embedded, "mtp.pre_fc_norm_embedding.weight"),
                       self.norm(hidden.to(self.dtype), "mtp.pre_fc_norm_hidden.weight")], dim=-1)
        x = x @ self.weights["mtp.fc.weight"].T
        out = self.norm(self.decoder_layer(x, torch.arange(1, len(tokens) + 1)), "mtp.norm.weight")
        table = self.weights.get("lm_head.weight", self.weights["embed_tokens.weight"])
        return out, (out @ table.T).float()

    def draft(self, hidden, tokens, count):
        """The head over all pairs, then count drafts, each fed back with the head's own hidden.

        Returns per draft: hidden and logits of the row it came from, and its router margin."""
        tokens, steps = list(tokens), []
        for _ in range(count):
            out, logits = self.head(hidden, tokens)
            margin = None if self.margins is None else self.margins[-1].item()
            steps.append({"hidden": out[-1].float(), "logits": logits[-1], "router_margin": margin})
            tokens.append(int(top2(logits[-1:])[0][0, 0]))
            hidden = torch.cat([hidden.to(self.dtype), out[-1:]])
        return steps


@torch.no_grad()
def check(config, model):
    """The equations with the weights of a main attention layer, against transformers' layer."""
    number = dummy.layer_kinds(dummy.text_config(config)).index("full_attention")
    ids = reference.prompt_ids(40, 7)
    model.run(ids)
    before, expected = model.layer_outputs[number - 1], model.layer_outputs[number]
    mine = Equations(config, torch.float32, f"layers.{number}.").decoder_layer(
        before, torch.arange(len(ids)))
    difference = (mine - expected).abs().max().item()
    print(f"layer {number} by these equations and by transformers: max difference {difference:.2e}")
    assert difference < 1e-5
    return difference


def margin(logits):
    best = top2(logits[None])[1][0]
    return (best[0] - best[1]).item()


@torch.no_grad()
def try_prompt(model, equations, ids):
    """None when the next token, a draft or (MoE) a router choice is a near tie."""
    moe = bool(equations.text.get("num_experts"))
    last = model.run(ids)[-1]
    hidden = model.final_hidden
    if margin(last) < DRAFT_MARGIN_MIN:
        return None
    if moe and model.router_margins().min() < ROUTER_MARGIN_MIN:
        return None
    next_token = int(top2(last[None])[0][0, 0])
    steps = equations.draft(hidden[:-1], ids[1:], 1)  # the last pair inside the prompt
    steps += equations.draft(hidden, ids[1:] + [next_token], DRAFTS)
    if moe and min(s["router_margin"] for s in steps) < ROUTER_MARGIN_MIN:
        return None
    if min(margin(s["logits"]) for s in steps[1:]) < DRAFT_MARGIN_MIN:
        return None
    return ids, next_token, margin(last), steps[0], steps[1:]


def clear_prompt(model, equations, length):
    """The first clear prompt: all last tokens after one start, then another start."""
    for seed in itertools.count(7000 + length, 1000):
        start = (model.select_prompt(length - 1, seed, ROUTER_MARGIN_MIN)
                 if equations.text.get("num_experts") else reference.prompt_ids(length - 1, seed))
        for token in range(reference.PROMPT_MODULUS):
            found = try_prompt(model, equations, start + [token])
            if found:
                return found


@torch.no_grad()
def write_case(name):
    config = reference.load_config(name)
    model = reference.Reference(config, torch.float32)
    difference = check(config, model)
    if "--check" in sys.argv[1:]:
        return
    exact, rounded = Equations(config, torch.float32), Equations(config, torch.bfloat16)
    rounded_model = reference.Reference(config, torch.bfloat16)
    blob, prompts, differences = reference.Blob(), [], []
    for length in LENGTHS:
        ids, next_token, next_margin, within, steps = clear_prompt(model, exact, length)
        drafts = [int(top2(s["logits"][None])[0][0, 0]) for s in steps]
        entry = {"length": length, "ids": ids, "next_token": next_token,
                 "next_token_margin": round(next_margin, 5), "drafts": drafts,
                 "draft_margins": [round(margin(s["logits"]), 5) for s in steps],
                 "prompt_pair_hidden": blob.add(within["hidden"]),
                 "prompt_pair_logits": blob.add(within["logits"]),
                 "hidden": blob.add(torch.stack([s["hidden"] for s in steps])),
                 "logits": blob.add(torch.stack([s["logits"] for s in steps]))}
        if within["router_margin"] is not None:
            entry["prompt_pair_router_margin"] = round(within["router_margin"], 5)
            entry["draft_router_margins"] = [round(s["router_margin"], 5) for s in steps]
        rounded_model.run(ids, "own" if within["router_margin"] is None else "f32")
        again = rounded.draft(rounded_model.final_hidden, ids[1:] + [next_token], DRAFTS)
        entry["bf16_drafts"] = [int(top2(s["logits"][None])[0][0, 0]) for s in again]
        differences.append(torch.stack([a["logits"] - s["logits"] for a, s in zip(again, steps)]))
        prompts.append(entry)
    away = torch.cat(differences)
    out = {"format": 1, "case": name, "made_with": reference.made_with(),
           "vocab": reference.VOCAB, "real_ids": reference.REAL_IDS,
           "equations_minus_transformers_max": difference, "prompts": prompts,
           "bf16_minus_f32": {"max": round(away.abs().max().item(), 5),
                              "rms": round(away.square().mean().sqrt().item(), 6)},
           "mtp_bin_bytes": blob.bytes}
    blob.write(HERE / name / "mtp.bin")
    reference.write_json(HERE / name / "mtp.json", out)
    print(f"{name}: bf16 - f32 of the head's logits {out['bf16_minus_f32']}")


def main():
    torch.set_num_threads(1)
    for name in reference.cases():
        if dummy.text_config(reference.load_config(name)).get("mtp_num_hidden_layers"):
            write_case(name)


if __name__ == "__main__":
    main()
