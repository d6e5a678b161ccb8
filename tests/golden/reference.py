# SPDX-License-Identifier: Apache-2.0
"""The reference model of the goldens: Hugging Face transformers on dummy weights.

Owns: prompts, building a model of a config.json, permuting canonical weights into its layout,
running it with its router picks and layer outputs recorded, and the file format of expected
numbers. Decides nothing about which numbers are kept: make_logits.py and make_mtp.py do.
"""
import copy
import datetime
import itertools
import json
import pathlib
import platform

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from transformers.models import qwen3_5, qwen3_5_moe, qwen3_next

import dummy

HERE = pathlib.Path(__file__).resolve().parent
VOCAB, REAL_IDS = 384, 364  # rows 364..383 are padding: computed, never chosen
PROMPT_MODULUS = 340        # prompt ids stay below the special ids of the configs (347..363)
LCG = "x = seed; per id: x = (x * 6364136223846793005 + 1442695040888963407) mod 2^64, " \
      "id = (x >> 33) mod modulus"


def id_stream(seed):
    """Endless prompt ids by the formula LCG."""
    x = seed
    while True:
        x = (x * 6364136223846793005 + 1442695040888963407) & dummy.MASK64
        yield (x >> 33) % PROMPT_MODULUS


def prompt_ids(length, seed):
    return list(itertools.islice(id_stream(seed), length))


def made_with():
    return {"date": datetime.date.today().isoformat(), "python": platform.python_version(),
            "torch": torch.__version__, "transformers": transformers.__version__,
            "numpy": np.__version__, "machine": platform.machine()}


class Blob:
    """A file of little-endian arrays; add() returns what the JSON needs to find one again."""

    def __init__(self):
        self.parts, self.bytes = [], 0

    def add(self, values, dtype="<f4"):
        array = np.ascontiguousarray(np.asarray(values), dtype=dtype)
        where = {"dtype": {"<f4": "f32", "<i4": "i32"}[dtype], "shape": list(array.shape),
                 "offset_bytes": self.bytes}
        self.parts.append(array.tobytes())
        self.bytes += array.nbytes
        return where

    def write(self, path):
        path.write_bytes(b"".join(self.parts))


def write_json(path, value):
    """Indented, but with arrays of scalars and small objects on one line each."""
    def dump(v, indent):
        flat = json.dumps(v)
        if not isinstance(v, (dict, list)) or len(flat) + indent <= 98 or (
                isinstance(v, list) and not any(isinstance(x, (dict, list)) for x in v)):
            return flat
        pad = " " * (indent + 1)
        if isinstance(v, dict):
            body = [f"{pad}{json.dumps(k)}: {dump(x, indent + 1)}" for k, x in v.items()]
            return "{\n" + ",\n".join(body) + "\n" + " " * indent + "}"
        body = [pad + dump(x, indent + 1) for x in v]
        return "[\n" + ",\n".join(body) + "\n" + " " * indent + "]"
    path.write_text(dump(value, 0) + "\n")


def load_config(case):
    return json.loads((HERE / case / "config.json").read_text())


def hf_weights(config, tensor=dummy.tensor):
    """Canonical weights under the names and in the row order of the transformers class."""
    text = dummy.text_config(config)
    weights = {}
    for name, shape in dummy.canonical_tensors(config).items():
        if not name.startswith("mtp."):
            prefix = "" if name == "lm_head.weight" else "model."
            weights[prefix + name] = torch.from_numpy(tensor(name, shape))
    if text["tie_word_embeddings"]:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    if text["model_type"] == "qwen3_next":
        for i, kind in enumerate(dummy.layer_kinds(text)):
            if kind == "linear_attention":
                group_rows(weights, f"model.layers.{i}.linear_attn.", text)
    return weights


def group_rows(weights, prefix, text):
    """Qwen3-Next: rows per key head, [q | k | v of its value heads | z of them] and [b | a]."""
    keys, hidden = text["linear_num_key_heads"], text["hidden_size"]
    qkv = weights.pop(prefix + "in_proj_qkv.weight")
    key_rows = keys * text["linear_key_head_dim"]
    q, k, v = qkv.split([key_rows, key_rows, qkv.shape[0] - 2 * key_rows])
    parts = [q, k, v, weights.pop(prefix + "in_proj_z.weight")]
    weights[prefix + "in_proj_qkvz.weight"] = torch.cat(
        [part.reshape(keys, -1, hidden) for part in parts], dim=1).reshape(-1, hidden)
    parts = [weights.pop(prefix + f"in_proj_{x}.weight") for x in "ba"]
    weights[prefix + "in_proj_ba.weight"] = torch.cat(
        [part.reshape(keys, -1, hidden) for part in parts], dim=1).reshape(-1, hidden)


CLASSES = {
    "qwen3_5_text": (qwen3_5.Qwen3_5TextConfig, qwen3_5.Qwen3_5ForCausalLM),
    "qwen3_5_moe_text": (qwen3_5_moe.Qwen3_5MoeTextConfig, qwen3_5_moe.Qwen3_5MoeForCausalLM),
    "qwen3_next": (qwen3_next.Qwen3NextConfig, qwen3_next.Qwen3NextForCausalLM),
}


class Reference:
    """A transformers model of one config, in one dtype; records router picks and layer outputs.

    router: "own" = the class's router as it is; "f32" = its matrix product and weights in float32;
    a list of [tokens, top-k] index tensors = those experts, weights from the float32 logits.
    """

    def __init__(self, config, dtype, tensor=dummy.tensor):
        text = dummy.text_config(config)
        config_class, model_class = CLASSES[text["model_type"]]
        hf_config = config_class(**{k: v for k, v in text.items() if k != "architectures"})
        hf_config._attn_implementation = "eager"
        hf_config._experts_implementation = "eager"
        self.model = model_class(hf_config).eval()
        missing, unexpected = self.model.load_state_dict(hf_weights(config, tensor),
                                                          strict=False)
        assert not missing and not unexpected, (missing, unexpected)
        self.model.to(dtype)
        self.dtype = dtype
        self.router = "own"
        self.router_logits, self.router_picks, self.layer_outputs = [], [], []
        for layer in self.model.model.layers:
            layer.register_forward_hook(lambda m, i, out: self.layer_outputs.append(out[0]))
            if hasattr(layer.mlp, "gate"):
                self.wrap_router(layer.mlp.gate)

    def wrap_router(self, gate):
        own_forward, number = gate.forward, len(self.model.model.layers)

        def forward(hidden):
            logits, weights, picks = own_forward(hidden)
            if self.router != "own":
                rows = hidden.reshape(-1, gate.hidden_dim).float()
                logits = F.linear(rows, gate.weight.float())
                picks = (torch.topk(logits, gate.top_k, dim=-1).indices if self.router == "f32"
                         else self.router[len(self.router_picks)])
                weights = F.softmax(torch.gather(logits, 1, picks), dim=-1)
            assert len(self.router_picks) < number
            self.router_logits.append(logits.float())
            self.router_picks.append(picks)
            return logits, weights, picks
        gate.forward = forward

    @torch.no_grad()
    def run(self, ids, router="own"):
        """Fresh run of a whole prompt; logits [tokens, vocab] and final_hidden in float32."""
        self.router = router
        self.router_logits, self.router_picks, self.layer_outputs = [], [], []
        hidden = self.model.model(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state
        self.final_hidden = hidden[0].float()
        return self.model.lm_head(hidden)[0].float()

    @torch.no_grad()
    def run_cached(self, ids, first):
        """Prefill of ids[:first], then one token at a time; the logits of all positions."""
        self.router, cache, rows = "own", None, []
        for chunk in [ids[:first]] + [[i] for i in ids[first:]]:
            self.router_logits, self.router_picks = [], []
            out = self.model(input_ids=torch.tensor([chunk]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            rows.append(out.logits[0].float())
        return torch.cat(rows)

    @torch.no_grad()
    def select_prompt(self, length, seed, margin_min):
        """The ids of id_stream, less those at which, after the ids kept so far, some layer's
        router comes closer than margin_min to choosing another expert."""
        stream, ids, kept = id_stream(seed), [], None
        self.router = "own"
        while len(ids) < length:
            token, cache = next(stream), copy.deepcopy(kept)
            self.router_logits, self.router_picks = [], []
            out = self.model.model(input_ids=torch.tensor([[token]]), past_key_values=cache,
                                   use_cache=True)
            if not self.router_picks or self.router_margins().min() >= margin_min:
                ids.append(token)
                kept = out.past_key_values
        return ids

    def router_margins(self):
        """[tokens, layers]: logit of the last expert chosen less that of the first not chosen."""
        top_k = self.router_picks[0].shape[1]
        margins = []
        for logits in self.router_logits:
            best = torch.sort(logits, dim=-1, descending=True).values
            margins.append(best[:, top_k - 1] - best[:, top_k])
        return torch.stack(margins, dim=1)


def cases():
    return sorted(path.parent.name for path in HERE.glob("*/config.json"))
