#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How far plausible mistakes move the numbers: a golden that no mistake moves would prove nothing.

Each mistake is planted in the float32 reference; printed is the rms difference of the logits of a
prompt of 130 tokens, beside that of bf16 rounding alone. The table in README.md is this output.

  python tests/golden/sensitivity.py
"""
import sys

import torch
import torch.nn.functional as F

import make_mtp
import reference

LENGTH = 130


def layers(model, attribute):
    return [getattr(x, attribute) for x in model.model.model.layers if hasattr(x, attribute)]


def gate_rows_as_second_half(model):
    for m in layers(model, "self_attn"):
        w = m.q_proj.weight
        w.copy_(w.view(2, -1, m.head_dim, w.shape[1]).transpose(0, 1).reshape(w.shape))


def kv_head_by_modulo(model):
    for m in layers(model, "self_attn"):
        w, groups = m.q_proj.weight, m.num_key_value_groups
        parts = w.view(groups, -1, 2 * m.head_dim, w.shape[1])
        w.copy_(parts.transpose(0, 1).reshape(w.shape))
        o = m.o_proj.weight
        o.copy_(o.view(o.shape[0], groups, -1, m.head_dim).transpose(1, 2).reshape(o.shape))


def key_head_by_modulo(model):
    for m in layers(model, "linear_attn"):
        heads, keys = m.num_v_heads, m.num_k_heads
        order = torch.arange(heads).view(-1, keys).T.reshape(-1)
        rows = (order[:, None] * m.head_v_dim + torch.arange(m.head_v_dim)).reshape(-1)
        channels = torch.cat([torch.arange(2 * m.key_dim), 2 * m.key_dim + rows])
        for tensor, index in ((m.in_proj_qkv.weight, channels), (m.conv1d.weight, channels),
                              (m.in_proj_z.weight, rows), (m.in_proj_b.weight, order),
                              (m.in_proj_a.weight, order), (m.A_log, order), (m.dt_bias, order)):
            tensor.copy_(tensor[index].clone())
        m.out_proj.weight.copy_(m.out_proj.weight[:, rows].clone())


def conv_taps_reversed(model):
    for m in layers(model, "linear_attn"):
        m.conv1d.weight.copy_(m.conv1d.weight.flip(-1))


def gdn_norm_plus_one(model):
    for m in layers(model, "linear_attn"):
        m.norm.weight += 1


def dt_bias_forgotten(model):
    for m in layers(model, "linear_attn"):
        m.dt_bias.zero_()


def state_lost_at_64(model):
    module = sys.modules[type(model.model).__module__]
    whole = module.torch_chunk_gated_delta_rule

    def forgetful(query, key, value, **rest):
        cut = {k: rest.pop(k) for k in ("g", "beta")}
        parts = [whole(query[:, i:i + 64], key[:, i:i + 64], value[:, i:i + 64],
                       **{k: v[:, i:i + 64] for k, v in cut.items()}, **rest)
                 for i in range(0, query.shape[1], 64)]
        return torch.cat([p[0] for p in parts], dim=1), parts[-1][1]
    for m in layers(model, "linear_attn"):
        m.torch_chunk_gated_delta_rule = forgetful
    module.torch_chunk_gated_delta_rule = forgetful
    return lambda: setattr(module, "torch_chunk_gated_delta_rule", whole)


def no_rope(model):
    model.model.model.rotary_emb.inv_freq.zero_()


def rope_theta_1e6(model):
    model.model.model.rotary_emb.inv_freq.copy_(1e6 ** (-torch.arange(32) / 32))


def yarn_ignored(model):
    model.model.model.rotary_emb.inv_freq.copy_(1e7 ** (-torch.arange(32) / 32))
    model.model.model.rotary_emb.attention_scaling = 1.0


def yarn_factor_forgotten(model):
    model.model.model.rotary_emb.attention_scaling = 1.0


def q_norm_not_zero_centred(model):
    for m in layers(model, "self_attn"):
        m.q_norm.weight -= 1


def no_renormalisation(model):
    for m in layers(model, "mlp"):
        forward = m.gate.forward

        def scaled(hidden, forward=forward):
            logits, weights, picks = forward(hidden)
            return logits, torch.gather(F.softmax(logits, dim=-1), 1, picks), picks
        m.gate.forward = scaled


def shared_gate_forgotten(model):
    for m in layers(model, "mlp"):
        m.shared_expert_gate.weight.zero_()  # one half of what ungated would be off by


def expert_gate_up_swapped(model):
    for m in layers(model, "mlp"):
        w = m.experts.gate_up_proj
        w.copy_(w.roll(w.shape[1] // 2, dims=1))


ATTENTION = [gate_rows_as_second_half, q_norm_not_zero_centred, no_rope, rope_theta_1e6]
GDN = [key_head_by_modulo, conv_taps_reversed, gdn_norm_plus_one, dt_bias_forgotten,
       state_lost_at_64]
MISTAKES = {"dense_untied_r2": GDN + ATTENTION + [kv_head_by_modulo],
            "dense_flat_r3": GDN + ATTENTION,
            "dense_yarn": [yarn_ignored, yarn_factor_forgotten, no_rope, kv_head_by_modulo],
            "moe_e8_r2": [no_renormalisation, shared_gate_forgotten, expert_gate_up_swapped]}


def rms(values):
    return values.square().mean().sqrt().item()


@torch.no_grad()
def main_model(case, mistakes):
    config, ids = reference.load_config(case), reference.prompt_ids(LENGTH, 1000 + LENGTH)
    exact = reference.Reference(config, torch.float32)
    expected = exact.run(ids)
    picks = exact.router_picks or "own"
    rounded = reference.Reference(config, torch.bfloat16).run(ids, picks)
    print(f"| {case} | bf16 rounding | {rms(rounded - expected):.4f} |")
    for mistake in mistakes:
        model = reference.Reference(config, torch.float32)
        undo = mistake(model)
        print(f"| {case} | {mistake.__name__} | {rms(model.run(ids) - expected):.4f} |", flush=True)
        if undo:
            undo()


@torch.no_grad()
def head(case):
    config, ids = reference.load_config(case), reference.prompt_ids(17, 1017)
    model = reference.Reference(config, torch.float32)
    model.run(ids)
    hidden, pre_norm, tokens = model.final_hidden, model.layer_outputs[-1], ids[1:] + [5]
    equations = make_mtp.Equations(config, torch.float32)
    expected = equations.draft(hidden, tokens, 2)
    fc = equations.weights["mtp.fc.weight"]
    swapped = make_mtp.Equations(config, torch.float32)
    swapped.weights["mtp.fc.weight"] = fc.roll(fc.shape[0], dims=1)
    second = tokens + [int(expected[0]["logits"][:reference.REAL_IDS].argmax())]
    stale = torch.cat([hidden, hidden[-1:]])
    rows = {"halves of fc swapped": (swapped.head(hidden, tokens)[1][-1], 0),
            "hidden before the final norm": (equations.head(pre_norm, tokens)[1][-1], 0),
            "hidden one position late": (equations.head(hidden.roll(-1, 0), tokens)[1][-1], 0),
            "prompt pairs not run": (equations.head(hidden[-1:], tokens[-1:])[1][-1], 0),
            "draft 2 from the main model's hidden": (equations.head(stale, second)[1][-1], 1)}
    for name, (logits, draft) in rows.items():
        print(f"| {case} head | {name} | {rms(logits - expected[draft]['logits']):.4f} |")


def main():
    torch.set_num_threads(1)
    print("| case | mistake | rms difference of logits |\n|---|---|---|")
    for case, mistakes in MISTAKES.items():
        main_model(case, mistakes)
    head("dense_untied_r2")


if __name__ == "__main__":
    main()
