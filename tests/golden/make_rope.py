#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes rope_frequencies.json: inverse frequencies and attention factor of rotary embeddings as
Hugging Face transformers computes them, for fields merged into the text_config of
dense_yarn/config.json (without its own rope_parameters). The oracle of config_rope_test.c.

  python tests/golden/make_rope.py         (made with transformers 5.23.0, torch CPU)
"""
import json
import pathlib

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextRotaryEmbedding

HERE = pathlib.Path(__file__).resolve().parent
DEFAULT = {"rope_type": "default", "rope_theta": 10000000, "partial_rotary_factor": 0.25}
YARN = dict(DEFAULT, rope_type="yarn", factor=4.0)


def case(name, rope=None, positions=1010000, **fields):
    """One case: the fields that are merged into text_config."""
    fields["max_position_embeddings"] = positions
    if rope is not None:
        fields["rope_parameters"] = rope
    return name, fields


CASES = [
    case("default", DEFAULT),
    case("yarn, context of 512", dict(YARN, original_max_position_embeddings=512), 2048),
    case("yarn, context of the releases", dict(YARN, original_max_position_embeddings=262144)),
    case("range not rounded", dict(YARN, original_max_position_embeddings=262144, truncate=False,
                                   beta_fast=20, beta_slow=2.5)),
    case("mscale", dict(YARN, original_max_position_embeddings=32768, mscale=0.7,
                        mscale_all_dim=1.2, factor=8.0), 262144),
    case("attention_factor, half of the head", dict(
        YARN, original_max_position_embeddings=4096, attention_factor=1.5, rope_theta=5000000,
        partial_rotary_factor=0.5), 16384),
    case("original context absent", YARN, 16384),
    case("factor null", dict(YARN, factor=None, original_max_position_embeddings=4096), 24576),
    case("context so short that the range is empty",
         dict(YARN, original_max_position_embeddings=4, factor=2.0), 8),
    case("older fields", None, 8192, rope_theta=5000000, partial_rotary_factor=0.25,
         rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}),
    case("rope_scaling wins", DEFAULT, 8192, rope_theta=5000000, rope_scaling={
        "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 4096}),
]


def main():
    base = json.loads((HERE / "dense_yarn" / "config.json").read_text())["text_config"]
    del base["rope_parameters"]
    lines = []
    for name, fields in CASES:
        copy = json.loads(json.dumps(fields))  # the configuration class writes into it
        rotary = Qwen3_5TextRotaryEmbedding(Qwen3_5TextConfig(**dict(base, **copy)))
        lines.append(json.dumps({
            "name": name, "fields": fields, "attention_factor": float(rotary.attention_scaling),
            "inverse_frequencies": [float(x) for x in rotary.inv_freq.float()]}))
    (HERE / "rope_frequencies.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
