#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whole serving under load, as `deltamesh bench` sees it over RPC; see tests/gpu.sh serve.

  serve_bench.py --bin DIR [--out DIR] [--model DIR] [--tp N] [--groups G,..] [--cases REGEX]
                 [--seconds S] [--draft-vocab N]

A server per group of cases, with dummy weights; every case is one run of distinct random prompts,
all of them at once. Prints a JSON line per case, with the time that the machine's limits leave as
the least and the share of the measured time that it is. A case that does not fit into the seconds
that are left is named and left out."""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
READ_BYTES_PER_S, FLOPS_PER_S = 4.6e12, 660e12  # one H200: a chain of reads; sustained products
# Tokens a step that `--synthetic-acceptance` draws for k drafts: acceptance lengths of vLLM's and
# TensorRT-LLM's published runs of this family.
ACCEPTANCE = {1: 1.93, 2: 2.73, 3: 3.39}
TTFT = [(f"ttft-{n}", n, 1, 1, count) for n, count in
        ((128, 4), (512, 4), (1024, 4), (8192, 3), (32768, 2))]
DECODE = [(f"128-256-{c}", 128, 256, c, c) for c in (1, 4, 8, 16, 64, 256)]
LONG = [(f"4096-1024-{c}", 4096, 1024, c, c) for c in (1, 8, 64, 128, 256)]
ANSWERS = [("1000-2000-200", 1000, 2000, 200, 200)]
# Group: options of the server, drafts, cases (name, input, output, at once, requests).
GROUPS = {
    "plain": (256, 0, TTFT + DECODE + ANSWERS + LONG),
    "mtp3": (256, 3, DECODE + ANSWERS + LONG),
    "wide": (512, 0, [("1024-128-512", 1024, 128, 512, 512)]),
    "mtp1": (256, 1, DECODE),
    "mtp2": (256, 2, DECODE),
}


class Floor:
    """What the limits leave as the least time of a case, from the shapes in config.json."""

    def __init__(self, config, ranks, draft_vocab):
        c, self.ranks = config.get("text_config", config), ranks
        self.c, hidden = c, c["hidden_size"]
        heads, kv, dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        keys, values = c["linear_num_key_heads"] * 128, c["linear_num_value_heads"] * 128
        interval = c.get("full_attention_interval", 4)
        self.layers = c["num_hidden_layers"]
        self.attention = self.layers // interval
        self.gdn = self.layers - self.attention
        self.experts, self.picks = c.get("num_experts", 0), c.get("num_experts_per_tok", 0)
        self.expert = 3 * hidden * c.get("moe_intermediate_size", 0)
        dense = 3 * hidden * c.get("intermediate_size", 0)
        shared = 3 * hidden * c.get("shared_expert_intermediate_size", 0)
        attention = hidden * dim * (3 * heads + 2 * kv)
        self.always = (self.attention * attention +
                       self.gdn * hidden * (2 * keys + 3 * values + 2 * values // 128) +
                       self.layers * ((shared + self.experts * hidden) if self.experts else dense))
        self.layer = attention + (shared + self.experts * hidden if self.experts else dense)
        self.head = c["vocab_size"] * hidden
        self.draft_head = (draft_vocab or c["vocab_size"]) * hidden
        # Read in every step, and written in one of eight (kernels/gdn.h).
        self.state_bytes = self.gdn * values * 128 * 4 * (1 + 1 / 8)
        self.kv_bytes = self.attention * 4 * kv * dim
        self.score_flops = self.attention * 4 * heads * dim

    def expert_values(self, tokens):
        if not self.experts:
            return 0
        return self.expert * self.experts * (1 - (1 - self.picks / self.experts) ** tokens)

    def step_s(self, rows, context, drafts):
        """A step that verifies `drafts` and drafts anew: bytes or products, what takes longer."""
        tokens = rows * (1 + drafts)
        read = self.always + self.head + self.layers * self.expert_values(tokens)
        read += drafts * (self.layer + self.draft_head + self.expert_values(rows))
        moved = 2 * read + rows * (self.state_bytes + self.kv_bytes * context)
        active = self.always + self.layers * self.expert * self.picks + self.head
        return max(moved / READ_BYTES_PER_S, 2 * active * tokens / FLOPS_PER_S) / self.ranks

    def prompt_s(self, prompts, length):
        active = self.always + self.layers * self.expert * self.picks
        flops = prompts * (2 * active * length + self.score_flops * length * length / 2)
        read = 2 * (self.always + self.layers * self.expert_values(prompts * length))
        return max(flops / FLOPS_PER_S, read / READ_BYTES_PER_S) / self.ranks

    def case_s(self, length, output, rows, requests, drafts):
        steps = (output - 1) / ACCEPTANCE.get(drafts, 1)
        return requests / rows * (self.prompt_s(rows, length) +
                                  steps * self.step_s(rows, length + output / 2, drafts))


class Server:
    def __init__(self, arguments, name, sequences, drafts):
        options = ["--speculative-tokens", str(drafts), "--max-num-seqs", str(sequences),
                   "--max-model-len", "33792", "--tp", str(arguments.tp)]
        if drafts:
            options += ["--synthetic-acceptance", str(ACCEPTANCE[drafts]),
                        "--draft-vocab", str(arguments.draft_vocab)]
        self.log = open(pathlib.Path(arguments.out) / f"serve-{name}.log", "w", encoding="utf-8")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [arguments.program, "serve", "--model", arguments.model, "--backend", "cuda",
             "--load-format", "dummy", "--rpc", "tcp://127.0.0.1:0", "--http", "off", *options],
            stdout=subprocess.PIPE, text=True, stderr=self.log)
        line = self.process.stdout.readline()
        if not line.startswith("ready rpc="):
            self.stop()
            raise SystemExit(f"the server of {name} did not start: see {self.log.name}")
        self.endpoint = line.split()[1].removeprefix("rpc=")
        self.ready_s = time.monotonic() - begun

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


def bench(arguments, server, case, limit_s):
    _, length, output, at_once, requests = case
    done = subprocess.run(
        [arguments.program, "bench", "--rpc", server.endpoint, "--input-len", str(length),
         "--output-len", str(output), "--concurrency", str(at_once), "--num-prompts",
         str(requests), "--ignore-eos", "--json"],
        capture_output=True, text=True, timeout=limit_s, check=True)
    return json.loads(done.stdout)


def row_of(group, case, figures, least_s):
    name, length, output, at_once, _ = case
    return {"bench": "serve", "group": group, "case": name, "input": length, "output": output,
            "concurrency": at_once, "requests": figures["requests"], "failed": figures["failed"],
            "output_tokens_per_s": round(figures["output_tokens_per_s"], 1),
            "total_tokens_per_s": round(figures["total_tokens_per_s"], 1),
            "ttft_ms": figures["ttft_ms"], "tpot_ms": figures["tpot_ms"],
            "itl_ms": figures["itl_ms"], "duration_s": round(figures["duration_s"], 4),
            "acceptance_length": figures.get("acceptance_length"),
            "floor_s": round(least_s, 4),
            "percent_of_limit": round(100 * least_s / figures["duration_s"], 1)}


def run_group(arguments, name, say, until):
    sequences, drafts, cases = GROUPS[name]
    floor = Floor(json.loads((pathlib.Path(arguments.model) / "config.json").read_text()),
                  arguments.tp, arguments.draft_vocab)
    server = Server(arguments, name, sequences, drafts)
    say({"bench": "ready", "group": name, "s": round(server.ready_s, 3)})
    for case in cases:
        if not re.fullmatch(arguments.cases, case[0]):
            continue
        least_s = floor.case_s(*case[1:], drafts)
        left_s = until - time.monotonic()
        if left_s < 1.5 * least_s + 2:
            say({"bench": "serve", "group": name, "case": case[0], "left_out": "no time"})
            continue
        try:
            figures = bench(arguments, server, case, left_s)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            say({"bench": "serve", "group": name, "case": case[0], "failed": str(error)[:200]})
            break
        say(row_of(name, case, figures, least_s))
    server.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--out", default="/tmp")
    parser.add_argument("--model", default=str(ROOT / "tests" / "models" / "qwen3.5-35b-a3b"))
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--draft-vocab", type=int, default=0)
    parser.add_argument("--groups", default="plain,mtp3,wide")
    parser.add_argument("--cases", default=".*")
    parser.add_argument("--seconds", type=float, default=450)
    arguments = parser.parse_args()
    arguments.program = str(pathlib.Path(arguments.bin) / "deltamesh")
    until = time.monotonic() + arguments.seconds
    with open(pathlib.Path(arguments.out) / "serve-bench.jsonl", "w", encoding="utf-8") as log:
        def say(fields):
            line = json.dumps(fields)
            print(line, flush=True)
            print(line, file=log, flush=True)
        for name in arguments.groups.split(","):
            run_group(arguments, name, say, until)
    return 0


if __name__ == "__main__":
    sys.exit(main())
