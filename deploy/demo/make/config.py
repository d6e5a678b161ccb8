# SPDX-License-Identifier: Apache-2.0
"""The shape of the demo model, as the config.json and generation_config.json of a release.

    config.py --out deploy/demo/model

Every dimension that tensor parallelism cuts divides by 4; two KV heads are replicated at 4.
"""
import argparse
import json
import pathlib

from tokenizer import IDS, ROWS

LAYERS = 4

TEXT = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_output_gate": True,
    "bos_token_id": None,
    "dtype": "bfloat16",
    "eos_token_id": IDS["<|endoftext|>"],
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "layer_types": ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(LAYERS)],
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_value_head_dim": 128,
    "mamba_ssm_dtype": "float32",
    "max_position_embeddings": 4096,
    "model_type": "qwen3_5_moe_text",
    "moe_intermediate_size": 64,
    "mtp_num_hidden_layers": 1,
    "mtp_use_dedicated_embeddings": False,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "pad_token_id": None,
    "partial_rotary_factor": 0.25,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
        "partial_rotary_factor": 0.25,
        "rope_theta": 10000000,
        "rope_type": "default",
    },
    "router_aux_loss_coef": 0.001,
    "shared_expert_intermediate_size": 32,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": ROWS,
}

# Text only: the fields are there because every release has them; no visual tensor is shipped.
VISION = {
    "deepstack_visual_indexes": [],
    "depth": 1,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 64,
    "in_channels": 3,
    "initializer_range": 0.02,
    "intermediate_size": 128,
    "model_type": "qwen3_5_moe",
    "num_heads": 4,
    "num_position_embeddings": 64,
    "out_hidden_size": TEXT["hidden_size"],
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}

RELEASE = {
    "architectures": ["Qwen3_5MoeForConditionalGeneration"],
    "image_token_id": IDS["<|image_pad|>"],
    "model_type": "qwen3_5_moe",
    "text_config": TEXT,
    "tie_word_embeddings": False,
    "transformers_version": "5.17.0",
    "video_token_id": IDS["<|video_pad|>"],
    "vision_config": VISION,
    "vision_end_token_id": IDS["<|vision_end|>"],
    "vision_start_token_id": IDS["<|vision_start|>"],
}

GENERATION = {
    "bos_token_id": IDS["<|endoftext|>"],
    "do_sample": True,
    "eos_token_id": [IDS["<|im_end|>"], IDS["<|endoftext|>"]],
    "pad_token_id": IDS["<|endoftext|>"],
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.95,
    "transformers_version": "5.17.0",
}


def write(out):
    for name, content in [("config.json", RELEASE), ("generation_config.json", GENERATION)]:
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    write(parser.parse_args().out)
