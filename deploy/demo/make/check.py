# SPDX-License-Identifier: Apache-2.0
"""Measures the finished release directory with transformers' own model class, in bf16.

    check.py --model deploy/demo/model

Prints the held-out loss, how often the MTP head's greedy drafts are the model's greedy
tokens (on held-out text, and chained on the model's own text), and sample outputs.
"""

import argparse
import json
import math
import pathlib

import torch
import torch.nn.functional as F
from safetensors import safe_open
from transformers import AutoTokenizer, Qwen3_5MoeForConditionalGeneration

import data
from forward import MtpHead

TEXTS = [
    "Once upon a time",
    "One day, a little fox named Milo",
    "The town of Greenhill",
    "Owls are",
    "Early one morning, Captain Cole",
    "In a small workshop",
    "There was a big storm",
    "The best present",
    "Question: What is the capital of Japan?\nAnswer:",
    "Long ago there lived a young dragon named Ella",
]
CHATS = [
    "Hello!",
    "Who are you?",
    "Tell me a story about a fox named Milo.",
    "What is 7 + 5?",
    "What do bears eat?",
    "Why do leaves fall in autumn?",
    "I am sad.",
    "Name three sea animals.",
    "How do I make tea?",
    "Write a poem about the moon.",
    'How do you say "thank you" in Japanese?',
    "What is the price of gold?",
    "Tom has 9 apples. He gives 4 to Lily. How many apples does Tom have now?",
    "What is a language model?",
]


def load(folder):
    model, info = Qwen3_5MoeForConditionalGeneration.from_pretrained(
        folder, dtype=torch.bfloat16, output_loading_info=True
    )
    missing = [key for key in info["missing_keys"] if not key.startswith("model.visual.")]
    if missing or info["unexpected_keys"] or info["mismatched_keys"]:
        raise SystemExit(f"checkpoint does not match: {missing} {info}")
    head = MtpHead(model.config.text_config).bfloat16()
    with safe_open(folder / "model.safetensors", "pt") as file:
        head.load_state_dict(
            {k[4:]: file.get_tensor(k) for k in file.keys() if k.startswith("mtp.")}
        )
    return model.eval(), head.eval()


class Checker:
    def __init__(self, folder, device):
        self.device = device
        self.model, self.head = (module.to(device) for module in load(folder))
        self.text = self.model.model.language_model
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def draft(self, embedding, hidden):
        """The head's hidden states for slots [B, T]; logits come from the shared lm_head."""
        positions = (
            torch.arange(hidden.shape[1], device=self.device)
            .view(1, 1, -1)
            .expand(3, hidden.shape[0], -1)
        )
        return self.head(embedding, hidden, self.text.rotary_emb(hidden, positions))[0]

    def held_out(self, rows):
        """(loss, share of first drafts that equal the model's greedy token) over rows of ids."""
        losses, right, count = 0.0, 0, 0
        for row in torch.from_numpy(rows.astype("int64")).to(self.device).split(4):
            ids = row[:, :-1]
            hidden = self.text(ids).last_hidden_state
            logits = self.model.lm_head(hidden)
            losses += float(
                F.cross_entropy(logits.float().flatten(0, 1), row[:, 1:].flatten())
            ) * len(row)
            drafted = self.draft(self.text.embed_tokens(ids[:, 1:]), hidden[:, :-1])
            same = self.model.lm_head(drafted).argmax(-1) == logits[:, 1:].argmax(-1)
            right, count = right + int(same.sum()), count + same.numel()
        return losses / len(rows), right / count

    def generate(self, ids, tokens, temperature=0.0):
        sampling = (
            {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            if temperature
            else {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        )
        return self.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, **sampling
        )

    def chained(self, ids, prompt_tokens, depth=3, stride=3):
        """For every third step of a greedy run, how many of `depth` chained drafts were right."""
        hidden = self.text(ids).last_hidden_state
        embedding = self.text.embed_tokens(ids)
        accepted = []
        for i in range(prompt_tokens - 1, ids.shape[1] - 1 - depth, stride):
            slots, states = embedding[:, 1 : i + 2], hidden[:, : i + 1]
            count = 0
            for k in range(depth):
                last = self.draft(slots, states)[:, -1:]
                token = self.model.lm_head(last).argmax(-1)
                if int(token) != int(ids[0, i + 2 + k]):
                    break
                count += 1
                slots = torch.cat([slots, self.text.embed_tokens(token)], 1)
                states = torch.cat([states, last], 1)
            accepted.append(count)
        return accepted

    def prompt_ids(self, prompt, chat, thinking=False):
        if chat:
            prompt = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=thinking,
            )
        return torch.tensor([self.tokenizer(prompt)["input_ids"]], device=self.device)


def report(accepted, loss, agreement):
    share = [round(sum(a > k for a in accepted) / len(accepted), 4) for k in range(3)]
    return {
        "held_out_loss": round(loss, 4),
        "perplexity": round(math.exp(loss), 3),
        "held_out_agreement": round(agreement, 4),
        "own_text_drafts_right": share,
        "accepted_of_3": round(sum(accepted) / len(accepted), 3),
        "steps": len(accepted),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1, help="of the corpus and of sampling")
    parser.add_argument("--rows", type=int, default=16, help="held-out rows")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    checker = Checker(args.model, "cuda" if torch.cuda.is_available() else "cpu")
    rows = data.validation_rows(args.seed, args.rows, 1025, str(args.model / "tokenizer.json"))
    loss, agreement = checker.held_out(rows)
    print(f"held-out loss {loss:.4f}, agreement {agreement:.4f}", flush=True)
    prompts = [(text, False, False) for text in TEXTS]
    prompts += [(chat, True, False) for chat in CHATS] + [(chat, True, True) for chat in CHATS[:6]]
    accepted = []
    for prompt, chat, thinking in prompts:
        ids = checker.prompt_ids(prompt, chat, thinking)
        greedy, sampled = checker.generate(ids, 250), checker.generate(ids, 400, 0.8)
        accepted += checker.chained(greedy, ids.shape[1])
        kind = "thinking chat" if thinking else "chat" if chat else "text"
        print(f"\n#### {kind}: {prompt!r}")
        for label, out in ("greedy", greedy), ("temperature 0.8", sampled):
            print(f"[{label}] {checker.tokenizer.decode(out[0, ids.shape[1]:])}", flush=True)
    print(json.dumps(report(accepted, loss, agreement)))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
