# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model and its MTP head together, and writes model.safetensors.

    train.py --model deploy/demo/model --out deploy/demo/model --steps 6000

Wants one GPU; --steps 3 --rows 4 --tokens 128 --shards 1 tries it on a CPU. The text and
the initial weights follow from --seed; sums on a GPU do not have a fixed order, so two runs
differ in their last bits and then in their weights.
"""

import argparse
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoConfig, Qwen3_5MoeForCausalLM

import data
import forward

MTP_WEIGHTS = (0.3, 0.15)  # of the first and the second chained draft
BALANCE_WEIGHT = 0.01


def build(folder, seed):
    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(folder).text_config
    config._attn_implementation = "sdpa"
    model = Qwen3_5MoeForCausalLM(config)
    mtp = forward.MtpHead(config)
    for name, parameter in mtp.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=config.initializer_range)
    for module in (model, mtp):  # the ends of the residual branches start small
        for name, parameter in module.named_parameters():
            if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj", "down_proj.weight")):
                parameter.data /= math.sqrt(2 * config.num_hidden_layers)
    return model.float(), mtp.float()


def soft_cross_entropy(logits, target):
    """Cross entropy against another distribution, both as logits [.., vocab]."""
    return -(target.float().softmax(-1) * logits.float().log_softmax(-1)).sum(-1).mean()


def hard_cross_entropy(logits, target):
    return F.cross_entropy(logits.float().flatten(0, 1), target.flatten())


class Objective:
    """The loss; the head learns the model's own distribution, since drafts must match that."""

    def __init__(self, model, mtp, compiled):
        wrap = torch.compile if compiled else lambda function: function
        self.model, self.mtp = model, mtp
        self.run_layer = wrap(forward.decoder_layer)
        self.hard, self.soft = wrap(hard_cross_entropy), wrap(soft_cross_entropy)

    def __call__(self, ids):
        """ids [B, T + 1]. Returns (loss, language model loss, draft losses, balance)."""
        inputs = ids[:, :-1]
        rope = forward.rope_of(self.model, inputs)
        hidden, balance = forward.hidden_states(self.model, inputs, rope, self.run_layer)
        logits = self.model.lm_head(hidden)
        language = self.hard(logits, ids[:, 1:])
        total, drafts = language, []
        for depth, weight in enumerate(MTP_WEIGHTS, start=1):
            # Slot i sees token i + depth; the chained head is one slot shorter each time.
            tokens = inputs.shape[1] - depth
            embedding = self.model.model.embed_tokens(ids[:, depth : depth + tokens])
            hidden, one = self.mtp(
                embedding.to(hidden.dtype),
                hidden[:, :tokens],
                [r[:, :tokens] for r in rope],
                self.run_layer,
            )
            draft = self.soft(self.model.lm_head(hidden), logits[:, depth:].detach())
            drafts.append(draft.detach())
            total, balance = total + weight * draft, balance + one
        return total + BALANCE_WEIGHT * balance, language.detach(), drafts, balance.detach()


def optimizer_for(modules, peak):
    decay, keep = [], []
    for module in modules:
        for name, parameter in module.named_parameters():
            matrix = parameter.dim() > 1 and "conv1d" not in name and "embed" not in name
            (decay if matrix else keep).append(parameter)
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": keep, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95), fused=torch.cuda.is_available())


def rate(peak, progress, warmup=0.02):
    if progress < warmup:
        return peak * (progress + 1e-4) / warmup
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))))


@torch.no_grad()
def evaluate(objective, rows, device):
    sums, batches = np.zeros(3), 0
    for start in range(0, len(rows) - 3, 4):
        with torch.autocast(device, torch.bfloat16):
            _, language, drafts, _ = objective(batch_of(rows, range(start, start + 4), device))
        sums += [float(language)] + [float(d) for d in drafts]
        batches += 1
    return (sums / batches).round(4).tolist()


def batch_of(rows, chosen, device):
    return torch.from_numpy(rows[np.asarray(chosen)].astype(np.int64)).to(device)


def save(model, mtp, out):
    """Names, packing and types of a release: bf16, with A_log and the GDN norm as f32."""
    tensors = {
        name.replace("model.", "model.language_model.", 1): value
        for name, value in model.state_dict().items()
    }
    tensors |= {"mtp." + name: value for name, value in mtp.state_dict().items()}
    for name, value in tensors.items():
        value = value.detach().bfloat16()
        wide = name.endswith(("A_log", "linear_attn.norm.weight"))
        tensors[name] = (value.float() if wide else value).contiguous().cpu()
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rows", type=int, default=32, help="rows of a step")
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of a row")
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--shard-rows", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seconds", type=float, default=1e9, help="end early, rate and all")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def train(args, objective, optimizer, rows, device):
    order, history, started = np.random.default_rng(args.seed), [], time.monotonic()
    for step in range(args.steps):
        if step % (len(rows) // args.rows) == 0:
            queue = order.permutation(len(rows))
        progress = max(step / args.steps, (time.monotonic() - started) / args.seconds)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(args.rate, progress)
        first = step * args.rows % (len(rows) // args.rows * args.rows)
        with torch.autocast(device, torch.bfloat16):
            loss, language, drafts, balance = objective(
                batch_of(rows, queue[first : first + args.rows], device)
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(
            [p for g in optimizer.param_groups for p in g["params"]], 1.0
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == args.steps - 1:
            history.append(
                [
                    step,
                    *(round(float(x), 4) for x in (language, *drafts, balance)),
                    round(time.monotonic() - started, 1),
                ]
            )
            print("step, loss, draft 1, draft 2, balance, seconds:", *history[-1], flush=True)
    return history, step + 1


def main():
    args = arguments()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer_path = str(args.model / "tokenizer.json")
    started = time.monotonic()
    rows = data.training_rows(
        args.seed, args.shards, args.shard_rows, args.tokens + 1, tokenizer_path
    )
    held_out = data.validation_rows(args.seed, 64, args.tokens + 1, tokenizer_path)
    print(f"{rows.size / 1e6:.1f} M tokens in {time.monotonic() - started:.1f} s", flush=True)
    model, mtp = (module.to(device) for module in build(args.model, args.seed))
    print(sum(p.numel() for m in (model, mtp) for p in m.parameters()), "parameters")
    objective = Objective(model, mtp, args.compile)
    optimizer = optimizer_for((model, mtp), args.rate)
    history, steps = train(args, objective, optimizer, rows, device)
    save(model, mtp, args.out)
    result = {
        "seed": args.seed,
        "steps": steps,
        "step_tokens": args.rows * args.tokens,
        "corpus_tokens": int(rows.size),
        "held_out_loss_and_drafts": evaluate(objective, held_out, device),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "history": history,
    }
    (args.out / "training.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    print({k: v for k, v in result.items() if k != "history"})


if __name__ == "__main__":
    main()
