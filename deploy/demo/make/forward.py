# SPDX-License-Identifier: Apache-2.0
"""The training forward pass and the MTP head, over the modules of transformers.

The parameters live in transformers' own classes, and check.py measures the result with
transformers' own forward. What is written here is the same mathematics in a form that
trains fast: the delta rule in chunks of 64, all experts computed and weighted by the router.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as hf

CHUNK = 64
BLOCK = 16  # the size up to which the inverse is a product of powers


def unit_lower_inverse(a):
    """(I + a)^-1 for strictly lower triangular a [.., CHUNK, CHUNK], in f32."""
    size = a.shape[-1]
    if size == BLOCK:
        eye = torch.eye(size, dtype=a.dtype, device=a.device)
        inverse, power = eye - a, a @ a
        for _ in range(3):  # a^16 is zero: (I - a)(I + a^2)(I + a^4)(I + a^8)
            inverse, power = inverse + inverse @ power, power @ power
        return inverse
    half = size // 2
    top = unit_lower_inverse(a[..., :half, :half])
    bottom = unit_lower_inverse(a[..., half:, half:])
    corner = -bottom @ (a[..., half:, :half] @ top)
    return torch.cat(
        [torch.cat([top, torch.zeros_like(corner)], -1), torch.cat([corner, bottom], -1)], -2
    )


def delta_rule(q, k, v, g, beta):
    """The gated delta rule from a zero state. q, k, v [B, heads, T, 128], g, beta [B, heads, T]."""
    batch, heads, tokens, dim = q.shape
    q, k, v = (x.reshape(batch, heads, -1, CHUNK, dim) for x in (q, k, v))
    total = g.reshape(batch, heads, -1, CHUNK).cumsum(-1)
    beta = beta.reshape(batch, heads, -1, CHUNK, 1)
    later = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).triu(1)
    decay = (total[..., :, None] - total[..., None, :]).masked_fill(later, float("-inf")).exp()
    inverse = unit_lower_inverse(((k * beta) @ k.mT * decay).tril(-1))
    u = inverse @ (v * beta)
    w = inverse @ (k * beta * total.exp()[..., None])
    inner = q @ k.mT * decay
    q = q * total.exp()[..., None]
    k = k * (total[..., -1:] - total).exp()[..., None]
    last = total[..., -1].exp()[..., None, None]
    state = q.new_zeros(batch, heads, dim, dim)
    outs = []
    for i in range(q.shape[2]):
        fresh = u[:, :, i] - w[:, :, i] @ state
        outs.append(q[:, :, i] @ state + inner[:, :, i] @ fresh)
        state = state * last[:, :, i] + k[:, :, i].mT @ fresh
    return torch.stack(outs, 2).reshape(batch, heads, tokens, dim)


def unit_length(x):
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def gdn(module, x):
    batch, tokens, _ = x.shape
    mixed = F.pad(module.in_proj_qkv(x), (0, 0, 3, 0)).float()
    taps = module.conv1d.weight.squeeze(1).float()
    mixed = F.silu(sum(mixed[:, i : i + tokens] * taps[:, i] for i in range(4)))
    q, k, v = mixed.split([module.key_dim, module.key_dim, module.value_dim], -1)
    q, k, v = (y.reshape(batch, tokens, -1, 128).transpose(1, 2) for y in (q, k, v))
    repeats = module.num_v_heads // module.num_k_heads
    q, k = (unit_length(y).repeat_interleave(repeats, 1) for y in (q, k))
    beta = module.in_proj_b(x).float().sigmoid().transpose(1, 2)
    g = -module.A_log.exp() * F.softplus(module.in_proj_a(x).float() + module.dt_bias)
    with torch.autocast("cuda", enabled=False):
        out = delta_rule(q * 128**-0.5, k, v, g.transpose(1, 2), beta)
    out = out.transpose(1, 2)
    out = out * torch.rsqrt(out.pow(2).mean(-1, keepdim=True) + 1e-6) * module.norm.weight
    gate = F.silu(module.in_proj_z(x).float()).view_as(out)
    return module.out_proj((out * gate).reshape(batch, tokens, -1).to(x.dtype))


def moe(block, x):
    """Returns the output and the load balance loss, which is 1 when the load is even."""
    experts, count = block.experts, block.gate.num_experts
    probability = F.linear(x, block.gate.weight).float().softmax(-1)
    top, index = probability.topk(block.gate.top_k, -1)
    weight = torch.zeros_like(probability).scatter(-1, index, top / top.sum(-1, keepdim=True))
    load = (weight > 0).float().mean((0, 1)) / block.gate.top_k
    balance = count * (load * probability.mean((0, 1))).sum()
    gate, up = (
        F.linear(x, experts.gate_up_proj.flatten(0, 1)).unflatten(-1, (count, -1)).chunk(2, -1)
    )
    hidden = F.silu(gate) * up * weight[..., None].to(x.dtype)
    routed = F.linear(hidden.flatten(-2), experts.down_proj.permute(1, 0, 2).flatten(1))
    return routed + block.shared_expert_gate(x).sigmoid() * block.shared_expert(x), balance


def decoder_layer(layer, hidden, rope):
    x = layer.input_layernorm(hidden)
    if hasattr(layer, "linear_attn"):
        x = gdn(layer.linear_attn, x)
    else:
        x = layer.self_attn(x, position_embeddings=rope, attention_mask=None)[0]
    hidden = hidden + x
    x, balance = moe(layer.mlp, layer.post_attention_layernorm(hidden))
    return hidden + x, balance


class MtpHead(nn.Module):
    """The multi-token prediction head; its parameter names are the checkpoint's, under mtp."""

    def __init__(self, config):
        super().__init__()
        self.pre_fc_norm_embedding = hf.Qwen3_5MoeRMSNorm(
            config.hidden_size, eps=config.rms_norm_eps
        )
        self.pre_fc_norm_hidden = hf.Qwen3_5MoeRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.fc = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        full = config.layer_types.index("full_attention")
        self.layers = nn.ModuleList([hf.Qwen3_5MoeDecoderLayer(config, full)])
        self.norm = hf.Qwen3_5MoeRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, embedding, hidden, rope, run_layer=decoder_layer):
        """embedding [B, T, H] of the next token, hidden [B, T, H] after the final norm."""
        x = torch.cat([self.pre_fc_norm_embedding(embedding), self.pre_fc_norm_hidden(hidden)], -1)
        x, balance = run_layer(self.layers[0], self.fc(x), rope)
        return self.norm(x), balance


def rope_of(model, ids):
    positions = (
        torch.arange(ids.shape[1], device=ids.device).view(1, 1, -1).expand(3, ids.shape[0], -1)
    )
    return model.model.rotary_emb(model.model.embed_tokens(ids), positions)


def hidden_states(model, ids, rope, run_layer=decoder_layer):
    """The hidden states after the final norm, and the sum of the balance losses."""
    hidden = model.model.embed_tokens(ids)
    if torch.is_autocast_enabled("cuda") or torch.is_autocast_enabled("cpu"):
        hidden = hidden.bfloat16()  # the residual stream is bf16 when the model is served
    balance = 0.0
    for layer in model.model.layers:
        hidden, one = run_layer(layer, hidden, rope)
        balance = balance + one
    return model.model.norm(hidden), balance
