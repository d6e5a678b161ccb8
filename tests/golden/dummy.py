#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Dummy weights: the Python twin of parallel/dummy.h, and the tensors a config.json asks for.

A weight is a function of (canonical tensor name, flat index in the whole tensor) alone, so goldens
need no weight files. Canonical means the Qwen3.5 bf16 layout with packed experts, names without
`model.language_model.`; the permutations that other layouts need are in reference.py.

  python tests/golden/dummy.py             self-check against pure-Python integers, prints values
  python tests/golden/dummy.py --write     also rewrites dummy_values.json, the C test's oracle
"""
import json
import math
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
MASK64 = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15  # the increment of splitmix64
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


def seed_of(name):
    """FNV-1a, 64 bits, over the bytes of the canonical name."""
    seed = FNV_OFFSET
    for byte in name.encode():
        seed = ((seed ^ byte) * FNV_PRIME) & MASK64
    return seed


def centre_and_amplitude(name, fan_in):
    """Values are uniform in [centre - amplitude, centre + amplitude); fan_in is the last dim."""
    if name.endswith("linear_attn.norm.weight"):
        return 1.0, 0.25
    if name.endswith("norm.weight") or ".pre_fc_norm_" in name:  # zero-centred RMSNorm kinds
        return 0.0, 0.25
    if name.endswith("linear_attn.A_log"):
        return 1.375, 1.375
    if name.endswith("linear_attn.dt_bias"):
        return -3.5, 2.5
    return 0.0, math.sqrt(3.0 / fan_in)  # conv1d.weight too: its last dimension is the 4 taps


def bf16_bits(values):
    """float32 -> bf16 bits, round to nearest, ties to even. No NaN or infinity comes in."""
    bits = np.asarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            ).astype(np.uint16)


def bits_at(name, fan_in, indices):
    """bf16 bits at flat indices (uint64 array) of the tensor."""
    centre, amplitude = centre_and_amplitude(name, fan_in)
    step = np.float32(amplitude / 8388608.0)
    z = np.uint64(seed_of(name)) + (indices + np.uint64(1)) * np.uint64(GOLDEN_GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    n = (z >> np.uint64(40)).astype(np.int32) - np.int32(1 << 23)  # 24 bits, signed
    return bf16_bits(np.float32(centre) + n.astype(np.float32) * step)


def tensor(name, shape):
    """The whole tensor as float32 (each value is exactly a bf16)."""
    count = math.prod(shape)
    bits = bits_at(name, shape[-1], np.arange(count, dtype=np.uint64))
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(shape)


def text_config(config):
    """The text model's fields of a nested or flat config.json; the outer tie flag wins."""
    text = dict(config.get("text_config", config))
    text["tie_word_embeddings"] = config.get(
        "tie_word_embeddings", text.get("tie_word_embeddings", False))
    return text


def feed_forward_tensors(prefix, text):
    hidden = text["hidden_size"]
    if not text.get("num_experts"):
        width = text["intermediate_size"]
        return {prefix + "gate_proj.weight": (width, hidden),
                prefix + "up_proj.weight": (width, hidden),
                prefix + "down_proj.weight": (hidden, width)}
    experts, width = text["num_experts"], text["moe_intermediate_size"]
    shared = text["shared_expert_intermediate_size"]
    return {prefix + "gate.weight": (experts, hidden),
            prefix + "experts.gate_up_proj": (experts, 2 * width, hidden),
            prefix + "experts.down_proj": (experts, hidden, width),
            prefix + "shared_expert.gate_proj.weight": (shared, hidden),
            prefix + "shared_expert.up_proj.weight": (shared, hidden),
            prefix + "shared_expert.down_proj.weight": (hidden, shared),
            prefix + "shared_expert_gate.weight": (1, hidden)}


def attention_tensors(prefix, text):
    hidden, dim = text["hidden_size"], text["head_dim"]
    heads, kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
    return {prefix + "q_proj.weight": (heads * 2 * dim, hidden),
            prefix + "k_proj.weight": (kv_heads * dim, hidden),
            prefix + "v_proj.weight": (kv_heads * dim, hidden),
            prefix + "o_proj.weight": (hidden, heads * dim),
            prefix + "q_norm.weight": (dim,),
            prefix + "k_norm.weight": (dim,)}


def gdn_tensors(prefix, text):
    hidden, taps = text["hidden_size"], text["linear_conv_kernel_dim"]
    keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
    heads, value_dim = text["linear_num_value_heads"], text["linear_value_head_dim"]
    values = heads * value_dim
    return {prefix + "in_proj_qkv.weight": (2 * keys + values, hidden),
            prefix + "in_proj_z.weight": (values, hidden),
            prefix + "in_proj_b.weight": (heads, hidden),
            prefix + "in_proj_a.weight": (heads, hidden),
            prefix + "conv1d.weight": (2 * keys + values, 1, taps),
            prefix + "A_log": (heads,),
            prefix + "dt_bias": (heads,),
            prefix + "norm.weight": (value_dim,),
            prefix + "out_proj.weight": (hidden, values)}


def layer_tensors(prefix, text, kind):
    mixer = (attention_tensors(prefix + "self_attn.", text) if kind == "full_attention"
             else gdn_tensors(prefix + "linear_attn.", text))
    hidden = text["hidden_size"]
    return {prefix + "input_layernorm.weight": (hidden,), **mixer,
            prefix + "post_attention_layernorm.weight": (hidden,),
            **feed_forward_tensors(prefix + "mlp.", text)}


def layer_kinds(text):
    interval = text.get("full_attention_interval", 4)
    return text.get("layer_types") or [
        "linear_attention" if (i + 1) % interval else "full_attention"
        for i in range(text["num_hidden_layers"])]


def canonical_tensors(config):
    """{canonical name: shape} of every tensor of the text model, the head (mtp.*) included."""
    text = text_config(config)
    hidden, vocab = text["hidden_size"], text["vocab_size"]
    tensors = {"embed_tokens.weight": (vocab, hidden), "norm.weight": (hidden,)}
    if not text["tie_word_embeddings"]:
        tensors["lm_head.weight"] = (vocab, hidden)
    for i, kind in enumerate(layer_kinds(text)):
        tensors |= layer_tensors(f"layers.{i}.", text, kind)
    if text.get("mtp_num_hidden_layers"):
        tensors |= {"mtp.fc.weight": (hidden, 2 * hidden),
                    "mtp.pre_fc_norm_embedding.weight": (hidden,),
                    "mtp.pre_fc_norm_hidden.weight": (hidden,),
                    "mtp.norm.weight": (hidden,)}
        tensors |= layer_tensors("mtp.layers.0.", text, "full_attention")
    return tensors


# One name per kind of range, and shapes of real models so that strides and 64-bit indices count.
SAMPLES = {
    "embed_tokens.weight": (248320, 4096),
    "lm_head.weight": (248320, 5120),
    "norm.weight": (2048,),
    "layers.0.input_layernorm.weight": (1024,),
    "layers.7.post_attention_layernorm.weight": (128,),
    "layers.3.self_attn.q_proj.weight": (8192, 2048),
    "layers.3.self_attn.q_norm.weight": (256,),
    "layers.0.linear_attn.in_proj_qkv.weight": (10240, 5120),
    "layers.0.linear_attn.conv1d.weight": (8192, 1, 4),
    "layers.0.linear_attn.A_log": (64,),
    "layers.0.linear_attn.dt_bias": (64,),
    "layers.0.linear_attn.norm.weight": (128,),
    "layers.59.mlp.experts.gate_up_proj": (1024, 2048, 4096),  # 2^33 values: indices above 2^32
    "layers.0.mlp.experts.down_proj": (512, 4096, 1024),
    "mtp.fc.weight": (2048, 4096),
    "mtp.pre_fc_norm_embedding.weight": (2048,),
    "mtp.layers.0.mlp.shared_expert_gate.weight": (1, 2048),
}


def sample_indices(count):
    """16 indices: both ends, around 2^32 where the tensor is that large, and a spread between."""
    edges = [0, 1, 2, 3, count // 2, count - 2, count - 1]
    edges += [i for i in ((1 << 32) - 1, 1 << 32, (1 << 32) + 1, 5_000_000_007) if i < count]
    spread = [(count * k) // 17 + k for k in range(1, 17)]
    unique = dict.fromkeys(i for i in edges + spread if 0 <= i < count)
    return sorted(list(unique)[:16])


def splitmix64(seed, index):
    """Output number index of splitmix64 started at seed, in Python integers."""
    z = (seed + (index + 1) * GOLDEN_GAMMA) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def bits_by_integers(name, fan_in, index):
    """The same value one at a time: a check of the vectorised form."""
    n = (splitmix64(seed_of(name), index) >> 40) - (1 << 23)
    centre, amplitude = centre_and_amplitude(name, fan_in)
    product = np.float32(n) * np.float32(amplitude / 8388608.0)
    bits = int((np.float32(centre) + np.float32(product)).view(np.uint32))
    low, high = bits & 0xFFFF, bits >> 16
    return high + (1 if low > 0x8000 or (low == 0x8000 and high & 1) else 0)


def main():
    assert seed_of("a") == 0xAF63DC4C8601EC8C  # FNV-1a's published test vector
    assert splitmix64(0, 0) == 0xE220A8397B1DCDAF  # splitmix64's published first output for seed 0
    samples = []
    for name, shape in SAMPLES.items():
        indices = sample_indices(math.prod(shape))
        bits = [int(b) for b in bits_at(name, shape[-1], np.array(indices, dtype=np.uint64))]
        assert bits == [bits_by_integers(name, shape[-1], i) for i in indices], name
        samples.append({"name": name, "shape": list(shape), "seed": f"{seed_of(name):016x}",
                        "indices": indices, "bits": bits})
        first = np.array(bits[:4], dtype=np.uint32) << np.uint32(16)
        print(f"{name:48} seed {seed_of(name):016x} first {first.view(np.float32)}")
    conv = tensor("layers.0.linear_attn.conv1d.weight", (8192, 1, 4))
    print(f"conv1d mean {conv.mean():+.4f} std {conv.std():.4f} (expected 0 and 0.5)")
    if "--write" in sys.argv[1:]:
        body = ",\n".join("  " + json.dumps(s) for s in samples)
        (HERE / "dummy_values.json").write_text(f"[\n{body}\n]\n")


if __name__ == "__main__":
    main()
