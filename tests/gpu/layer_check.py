#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One layer of full size against plain PyTorch in float32, on the GPU: GDN or attention, then
experts, of Qwen3.5-35B-A3B's shapes, on dummy weights, with a small vocabulary. The engine runs
prompts and decode rows (`engine_check --dump`) and every logit is compared.

Tolerance. The same formulas run here once more with what an op hands on rounded to bf16, as
transformers in bf16 does. The engine sums and keeps its state at least as exactly, so the rms of
its differences from float32 is at most 1.1 times that of these, the largest at most twice as large
(as in tests/worker/model_qwen35_test.c). Picks: of 256 experts the eighth and the ninth are often
nearly tied, and rounding decides. Where their logits are closer than TIE times the rms error of a
router logit, the run with the ninth expert in place of the eighth is as right, and the nearer
counts; where a third expert or the seventh is that close, too, the position is left out. Which
share that may be is printed and bounded."""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).resolve().parents[2]
VOCAB, TIE, LEFT_OUT_MAX = 512, 6, 0.6
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
GAMMA, MASK64 = 0x9E3779B97F4A7C15, 2**64 - 1


def signed(value):
    return value - 2**64 if value >= 2**63 else value


def shifted(z, bits):
    return (z >> bits) & ((1 << (64 - bits)) - 1)


class Weights:
    """parallel/dummy.h in PyTorch."""

    def __init__(self, device):
        self.device = device

    def __call__(self, name, *shape):
        seed = FNV_OFFSET
        for byte in name.encode():
            seed = ((seed ^ byte) * FNV_PRIME) & MASK64
        centre, amplitude = 0.0, math.sqrt(3.0 / shape[-1])
        if name.endswith("linear_attn.norm.weight"):
            centre, amplitude = 1.0, 0.25
        elif name.endswith("norm.weight"):
            amplitude = 0.25
        elif name.endswith("A_log"):
            centre, amplitude = 1.375, 1.375
        elif name.endswith("dt_bias"):
            centre, amplitude = -3.5, 2.5
        step = torch.tensor(amplitude / 8388608.0, dtype=torch.float32).item()
        count, parts = math.prod(shape), []
        for first in range(0, count, 1 << 26):
            index = torch.arange(first, min(count, first + (1 << 26)), device=self.device)
            z = (index + 1) * signed(GAMMA) + signed(seed)
            z = (z ^ shifted(z, 30)) * signed(0xBF58476D1CE4E5B9)
            z = (z ^ shifted(z, 27)) * signed(0x94D049BB133111EB)
            z = z ^ shifted(z, 31)
            n = (shifted(z, 40) - (1 << 23)).float()
            parts.append((n * step + centre).bfloat16())
        return torch.cat(parts).float().reshape(shape)


class Layer:
    """The model of one layer; `rounded`: every op hands on bf16."""

    def __init__(self, text, kind, device):
        self.text, self.kind, self.w, self.rounded = text, kind, {}, False
        weights = Weights(device)
        hidden, dim = text["hidden_size"], text["head_dim"]
        experts, width = text["num_experts"], text["moe_intermediate_size"]
        shared = text["shared_expert_intermediate_size"]
        names = {"embed_tokens.weight": (VOCAB, hidden), "norm.weight": (hidden,),
                 "lm_head.weight": (VOCAB, hidden),
                 "layers.0.input_layernorm.weight": (hidden,),
                 "layers.0.post_attention_layernorm.weight": (hidden,)}
        if kind == "full_attention":
            heads, kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
            mixer = {"q_proj.weight": (heads * 2 * dim, hidden),
                     "k_proj.weight": (kv_heads * dim, hidden),
                     "v_proj.weight": (kv_heads * dim, hidden),
                     "o_proj.weight": (hidden, heads * dim), "q_norm.weight": (dim,),
                     "k_norm.weight": (dim,)}
            names |= {"layers.0.self_attn." + name: shape for name, shape in mixer.items()}
        else:
            keys, values = text["linear_num_key_heads"] * 128, text["linear_num_value_heads"] * 128
            heads = text["linear_num_value_heads"]
            mixer = {"in_proj_qkv.weight": (2 * keys + values, hidden),
                     "in_proj_z.weight": (values, hidden), "in_proj_b.weight": (heads, hidden),
                     "in_proj_a.weight": (heads, hidden),
                     "conv1d.weight": (2 * keys + values, 1, 4), "A_log": (heads,),
                     "dt_bias": (heads,), "norm.weight": (128,),
                     "out_proj.weight": (hidden, values)}
            names |= {"layers.0.linear_attn." + name: shape for name, shape in mixer.items()}
        mlp = {"gate.weight": (experts, hidden),
               "experts.gate_up_proj": (experts, 2 * width, hidden),
               "experts.down_proj": (experts, hidden, width),
               "shared_expert.gate_proj.weight": (shared, hidden),
               "shared_expert.up_proj.weight": (shared, hidden),
               "shared_expert.down_proj.weight": (hidden, shared),
               "shared_expert_gate.weight": (1, hidden)}
        names |= {"layers.0.mlp." + name: shape for name, shape in mlp.items()}
        for name, shape in names.items():
            self.w[name.rpartition("layers.0.")[2]] = weights(name, *shape)

    def r(self, x):
        return x.bfloat16().float() if self.rounded else x

    def norm(self, x, name):
        eps = self.text["rms_norm_eps"]
        return self.r(x * torch.rsqrt(x.square().mean(-1, True) + eps) * (1 + self.w[name]))

    def linear(self, x, name):
        return self.r(F.linear(x, self.w[name]))

    def gdn(self, x):
        w, (batch, tokens, _) = self.w, x.shape
        keys, heads = self.text["linear_num_key_heads"], self.text["linear_num_value_heads"]
        qkv = self.linear(x, "linear_attn.in_proj_qkv.weight")
        conv = w["linear_attn.conv1d.weight"]
        mixed = F.conv1d(F.pad(qkv.transpose(1, 2), (3, 0)), conv, groups=conv.shape[0])
        mixed = self.r(F.silu(mixed)).transpose(1, 2)
        q, k, v = mixed.split([keys * 128, keys * 128, heads * 128], -1)
        q, k = (t.reshape(batch, tokens, keys, 128) for t in (q, k))
        q, k = (t * torch.rsqrt(t.square().sum(-1, True) + 1e-6) for t in (q, k))
        q, k = (t.repeat_interleave(heads // keys, 2) for t in (q / math.sqrt(128), k))
        v = v.reshape(batch, tokens, heads, 128)
        beta = torch.sigmoid(self.linear(x, "linear_attn.in_proj_b.weight"))
        a = self.linear(x, "linear_attn.in_proj_a.weight") + w["linear_attn.dt_bias"]
        alpha = torch.exp(-w["linear_attn.A_log"].exp() * F.softplus(a))
        state = torch.zeros(batch, heads, 128, 128, device=x.device)
        out = []
        for t in range(tokens):
            state = state * alpha[:, t, :, None, None]
            known = torch.einsum("bhkv,bhk->bhv", state, k[:, t])
            delta = (v[:, t] - known) * beta[:, t, :, None]
            state = state + k[:, t, :, :, None] * delta[:, :, None, :]
            out.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]))
        o = self.r(torch.stack(out, 1))
        o = o * torch.rsqrt(o.square().mean(-1, True) + self.text["rms_norm_eps"])
        z = self.linear(x, "linear_attn.in_proj_z.weight").reshape(o.shape)
        o = self.r(o * w["linear_attn.norm.weight"] * F.silu(z))
        return self.linear(o.reshape(batch, tokens, -1), "linear_attn.out_proj.weight")

    def rope(self, x):
        parameters = self.text["rope_parameters"]
        pairs = int(self.text["head_dim"] * parameters["partial_rotary_factor"]) // 2
        theta = float(parameters["rope_theta"])
        inverse = theta ** (-torch.arange(pairs, device=x.device, dtype=torch.float64) / pairs)
        angles = torch.arange(x.shape[1], device=x.device, dtype=torch.float64)[:, None] * inverse
        cos, sin = angles.cos().float()[:, None], angles.sin().float()[:, None]
        low, high, rest = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], -1)
        return self.r(torch.cat([low * cos - high * sin, high * cos + low * sin, rest], -1))

    def attention(self, x):
        batch, tokens, _ = x.shape
        dim, heads = self.text["head_dim"], self.text["num_attention_heads"]
        kv_heads = self.text["num_key_value_heads"]
        q = self.linear(x, "self_attn.q_proj.weight").reshape(batch, tokens, heads, 2 * dim)
        q, gate = q.split(dim, -1)
        k = self.linear(x, "self_attn.k_proj.weight").reshape(batch, tokens, kv_heads, dim)
        v = self.linear(x, "self_attn.v_proj.weight").reshape(batch, tokens, kv_heads, dim)
        q = self.rope(self.norm(q, "self_attn.q_norm.weight"))
        k = self.rope(self.norm(k, "self_attn.k_norm.weight"))
        k, v = (t.repeat_interleave(heads // kv_heads, 2) for t in (k, v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(dim)
        future = torch.ones(tokens, tokens, device=x.device, dtype=torch.bool).triu(1)
        shares = self.r(scores.masked_fill(future, -math.inf).softmax(-1))
        o = self.r(torch.einsum("bhqk,bkhd->bqhd", shares, v))
        o = self.r(o * torch.sigmoid(gate))
        return self.linear(o.reshape(batch, tokens, -1), "self_attn.o_proj.weight")

    def feed_forward(self, x, gate_up, down):
        gate, up = self.r(F.linear(x, gate_up)).chunk(2, -1)
        return F.linear(self.r(F.silu(gate) * up), down)

    def experts(self, x, swap):
        """swap: the expert behind the last that is picked in place of that. And router logits."""
        rows, picked = x.reshape(-1, x.shape[-1]), self.text["num_experts_per_tok"]
        logits = F.linear(rows, self.w["mlp.gate.weight"])
        order = logits.topk(picked + 1, -1).indices
        picks = torch.cat([order[:, :picked - 1], order[:, picked:] if swap
                           else order[:, picked - 1:picked]], 1)
        shares = logits.gather(1, picks).softmax(-1)
        shared = torch.cat([self.w["mlp.shared_expert.gate_proj.weight"],
                            self.w["mlp.shared_expert.up_proj.weight"]])
        out = self.feed_forward(rows, shared, self.w["mlp.shared_expert.down_proj.weight"])
        out = out * torch.sigmoid(F.linear(rows, self.w["mlp.shared_expert_gate.weight"]))
        for expert in picks.unique().tolist():
            row, column = (picks == expert).nonzero(as_tuple=True)
            made = self.feed_forward(rows[row], self.w["mlp.experts.gate_up_proj"][expert],
                                     self.w["mlp.experts.down_proj"][expert])
            out.index_add_(0, row, made * shares[row, column, None])
        return self.r(out).reshape(x.shape), logits.reshape(*x.shape[:-1], -1)

    @torch.no_grad()
    def __call__(self, ids, rounded, swap=False):
        self.rounded = rounded
        residual = self.w["embed_tokens.weight"][ids]
        x = self.norm(residual, "input_layernorm.weight")
        mixed = self.gdn(x) if self.kind == "linear_attention" else self.attention(x)
        residual = self.r(residual + mixed)
        made, router = self.experts(self.norm(residual, "post_attention_layernorm.weight"), swap)
        hidden = self.norm(self.r(residual + made), "norm.weight")
        return F.linear(hidden, self.w["lm_head.weight"]), router


def compared(got, reference, ties, clear):
    """rms and the largest difference; ties: positions where the nearer of two references counts."""
    away = [(got - one).abs() for one in reference]
    nearer = away[1].square().mean(-1) < away[0].square().mean(-1)
    away = torch.where((nearer & ties)[..., None], away[1], away[0])[clear]
    return away.square().mean().sqrt().item(), away.max().item()


def check(arguments, kind, sequences, tokens, steps, directory):
    config = json.loads((ROOT / arguments.model / "config.json").read_text())
    text = config["text_config"]
    text.update(vocab_size=VOCAB, num_hidden_layers=1, layer_types=[kind], mtp_num_hidden_layers=0,
                eos_token_id=VOCAB - 1)
    (directory / "config.json").write_text(json.dumps(config))
    dump = directory / "logits.bin"
    subprocess.run([arguments.program, "--dump", str(directory), str(dump), str(VOCAB),
                    str(sequences), str(tokens), str(steps)], check=True, timeout=300)
    values = torch.frombuffer(bytearray(dump.read_bytes()), dtype=torch.float32)
    prompts = values[:sequences * tokens * VOCAB].reshape(sequences, tokens, VOCAB)
    decoded = values[prompts.numel():].reshape(steps, sequences, VOCAB).transpose(0, 1)
    got = {"prompt": prompts.to(arguments.device), "decode": decoded.to(arguments.device)}
    position, number = torch.arange(tokens + steps), torch.arange(sequences)[:, None]
    ids = (position * 7919 + number * 10477 + position * position % 31) % VOCAB
    layer, ids = Layer(text, kind, arguments.device), ids.to(arguments.device)
    want, router = layer(ids, False)
    other, _ = layer(ids, False, swap=True)
    bf16, bf16_router = layer(ids, True)
    error = (bf16_router - router).square().mean().sqrt().item()
    picked = text["num_experts_per_tok"]
    best = router.topk(picked + 2, -1).values
    near = best[..., picked - 1] - best[..., picked] < TIE * error
    clear = ~(near & ((best[..., picked - 1] - best[..., picked + 1] < TIE * error) |
                      (best[..., picked - 2] - best[..., picked] < TIE * error)))
    failed = 0
    for name, part in (("prompt", slice(0, tokens)), ("decode", slice(tokens, None))):
        cut = [one[:, part] for one in (want, other, near, clear, bf16)]
        rms, most = compared(got[name], cut[:2], cut[2], cut[3])
        bf16_rms, bf16_most = compared(cut[4], cut[:2], cut[2], cut[3])
        left_out = 1 - cut[3].float().mean().item()
        good = rms <= 1.1 * bf16_rms and most <= 2 * bf16_most and left_out <= LEFT_OUT_MAX
        failed += not good
        fields = {"layer": kind, "part": name, "sequences": sequences, "tokens": tokens,
                  "rms": rms, "rms_max": 1.1 * bf16_rms, "largest": most,
                  "largest_max": 2 * bf16_most, "router_error": error, "left_out": left_out,
                  "logits_rms": cut[0].square().mean().sqrt().item(),
                  "near_ties": cut[2].float().mean().item(), "good": good}
        print(json.dumps({key: round(value, 5) if isinstance(value, float) else value
                          for key, value in fields.items()}), flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True, help="engine_check")
    parser.add_argument("--model", default="tests/models/qwen3.5-35b-a3b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", default="1,300,8;8,100,4;64,40,4;256,24,2",
                        help="sequences,tokens,steps;..")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    failed = 0
    for kind in ("linear_attention", "full_attention"):
        for size in arguments.sizes.split(";"):
            with tempfile.TemporaryDirectory() as directory:
                failed += check(arguments, kind, *map(int, size.split(",")),
                                pathlib.Path(directory))
    print(json.dumps({"failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
