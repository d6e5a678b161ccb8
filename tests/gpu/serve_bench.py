#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whole serving under load, as `deltamesh bench` sees it over RPC; see tests/gpu.sh serve.

  serve_bench.py --bin DIR [--out DIR] [--model DIR] [--tp N] [--groups G,..] [--cases REGEX]
                 [--seconds S] [--repeats R] [--resume]

A server per group of cases, with dummy weights; a run of a case is of distinct random prompts, all
of them at once. First every case runs once, then, while there is time, once more up to R times,
each time on a new server. Group `gap` is another thing: how long streams wait for their next token
while one long prompt comes. OUT/serve-bench.jsonl has a header (commit, GPU, driver, date) and a
row per case: median, least and most of its runs, the time that the machine's limits leave as the
least, and the share of the measured time that it is. A case that does not fit into the seconds that
are left is named as left out. With --resume what is in OUT/serve-runs.jsonl is not run again."""
import argparse
import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench"))
import figures  # noqa: E402

READ_BYTES_PER_S, FLOPS_PER_S = 4.6e12, 660e12  # one H200: a chain of reads; sustained products
# Tokens a step that `--synthetic-acceptance` draws for k drafts: acceptance lengths of vLLM's and
# TensorRT-LLM's published runs of this family.
ACCEPTANCE = {1: 1.93, 2: 2.73, 3: 3.39}
START_S = 6  # a server and its end, at most
TTFT = [(f"ttft-{n}", n, 1, 1, count) for n, count in
        ((128, 4), (512, 4), (1024, 4), (8192, 3), (32768, 2))]
DECODE = [(f"128-256-{c}", 128, 256, c, c) for c in (1, 4, 8, 16, 64, 256)]
LONG = [(f"4096-1024-{c}", 4096, 1024, c, c) for c in (1, 8, 64, 128, 256)]
ANSWERS = [("1000-2000-200", 1000, 2000, 200, 200)]
# `auto` beside every fixed number of drafts, where the text allows many and where it allows few.
# One answer alone would be what `auto` takes to find out.
MANY, FEW = 3.39, 1.4
AUTO = [(f"128-512-{c}", 128, 512, c, max(c, 8)) for c in (1, 16, 64, 256)]
WIDE = [("1024-128-512", 1024, 128, 512, 512)]


# Of these, one request is the long prompt; the others are the streams that it comes beside.
GAP = [(f"131072 beside {n}", 131072, 1, n + 1, n + 1) for n in (1, 32)]
STREAM = {1: 2000, 32: 500}  # tokens: enough to begin a second before it and to end after it


def serving(drafts, cases, sequences=256, model_len=33792, accepted=None, draft_vocab=0,
            options=()):
    """A server's drafts (or "auto") and cases (name, input, output, at once, requests); `accepted`:
    tokens a step that the drafts may make, ACCEPTANCE's where it is None."""
    usual = ACCEPTANCE.get(drafts, 1)
    return {"drafts": drafts, "cases": cases, "sequences": sequences, "model_len": model_len,
            "options": list(options), "accepted": usual if accepted is None else accepted,
            "draft_vocab": draft_vocab}


GROUPS = {
    "plain": serving(0, TTFT + DECODE + ANSWERS + LONG),
    "mtp3": serving(3, DECODE + ANSWERS + LONG),
    "wide": serving(0, WIDE, sequences=512),
    "wide-any-gap": serving(0, WIDE, sequences=512, options=["--max-prefill-gap-ms", "0"]),
    "mtp1": serving(1, DECODE),
    "mtp2": serving(2, DECODE),
    "mtp3-short": serving(3, DECODE + LONG[:2], draft_vocab=32768),
    "gap": serving(0, GAP, sequences=40, model_len=135168),
    "auto": serving("auto", AUTO, accepted=MANY),
    **{f"auto-{k}": serving(k, AUTO, accepted=MANY) for k in range(6)},
    "few": serving("auto", AUTO, accepted=FEW),
    **{f"few-{k}": serving(k, AUTO, accepted=FEW) for k in range(3)},
}
USUAL = "plain,mtp3,wide"


class Floor:
    """What the limits leave as the least time of a case, from the shapes in config.json."""

    def __init__(self, config, ranks, draft_vocab, accepted):
        c, self.ranks, self.accepted = config.get("text_config", config), ranks, accepted
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
        def steps_s(count):
            steps = (output - 1) / min(1 + count, self.accepted)
            return steps * self.step_s(rows, length + output / 2, count)
        counts = range(6) if drafts == "auto" else (drafts,)
        return requests / rows * (self.prompt_s(rows, length) + min(map(steps_s, counts)))


class Server:
    def __init__(self, arguments, name):
        wanted = GROUPS[name]
        options = ["--speculative-tokens", str(wanted["drafts"]), "--max-num-seqs",
                   str(wanted["sequences"]), "--max-model-len", str(wanted["model_len"]), "--tp",
                   str(arguments.tp), *wanted["options"]]
        if wanted["drafts"]:
            options += ["--synthetic-acceptance", str(wanted["accepted"]), "--draft-vocab",
                        str(wanted["draft_vocab"])]
        self.log = open(pathlib.Path(arguments.out) / f"serve-{name}.log", "w", encoding="utf-8")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [arguments.program, "serve", "--model", arguments.model, "--backend",
             arguments.backend,
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


def gap(arguments, server, case, limit_s):
    """The row of a prompt that comes a second after at_once - 1 streams have begun."""
    name, length, output, at_once, _ = case
    count = at_once - 1
    with concurrent.futures.ThreadPoolExecutor() as pool:
        streams = pool.submit(bench, arguments, server, ("", 16, STREAM[count], count, count),
                              limit_s)
        time.sleep(1)
        prompt = bench(arguments, server, (name, length, output, 1, 1), limit_s)
        if streams.done():
            raise subprocess.CalledProcessError(1, "the streams ended before the prompt")
        seen = streams.result()
    return {"bench": "gap", "case": name, "prompt": length, "streams": count,
            "failed": seen["failed"] + prompt["failed"], "ttft_ms": prompt["ttft_ms"]["median"],
            "tpot_ms": seen["itl_ms"]["median"], "longest_gap_ms": seen["itl_ms"]["max"]}


def row_of(group, case, seen, least_s):
    name, length, output, at_once, _ = case
    return {"bench": "serve", "group": group, "case": name, "input": length, "output": output,
            "concurrency": at_once, "requests": seen["requests"], "failed": seen["failed"],
            "output_tokens_per_s": round(seen["output_tokens_per_s"], 1),
            "total_tokens_per_s": round(seen["total_tokens_per_s"], 1),
            "ttft_ms": seen["ttft_ms"]["median"], "ttft_p99_ms": seen["ttft_ms"]["p99"],
            "tpot_ms": seen["tpot_ms"]["median"], "itl_p99_ms": seen["itl_ms"]["p99"],
            "longest_gap_ms": seen["itl_ms"]["max"], "duration_s": round(seen["duration_s"], 4),
            "acceptance_length": seen.get("acceptance_length"), "floor_s": round(least_s, 4),
            "percent_of_limit": round(100 * least_s / seen["duration_s"], 1)}


class Cases:
    """The cases that were asked for, and which of them have runs."""

    def __init__(self, arguments, runs, until):
        self.arguments, self.runs, self.until, self.bad = arguments, runs, until, 0
        config = json.loads((pathlib.Path(arguments.model) / "config.json").read_text())
        self.floors = {name: Floor(config, arguments.tp, one["draft_vocab"], one["accepted"])
                       for name, one in GROUPS.items()}

    def of(self, group):
        return [case for case in GROUPS[group]["cases"]
                if re.fullmatch(self.arguments.cases, case[0])]

    def least_s(self, group, case):
        if group == "gap":  # one prompt, and streams that go on beside it
            return 2 * self.floors[group].prompt_s(1, case[1])
        return self.floors[group].case_s(*case[1:], GROUPS[group]["drafts"])

    def fits(self, group, case):
        known_s = self.runs.seconds(f"{group} {case[0]}")
        expected_s = 2.2 * self.least_s(group, case) + 2 if known_s is None else 1.1 * known_s + 1
        return self.until - time.monotonic() > expected_s

    def once_more(self, group, repeats):
        """Runs those of a group that have fewer than `repeats` runs, on one server."""
        left = [case for case in self.of(group) if self.runs.count(f"{group} {case[0]}") < repeats]
        if not left or self.until - time.monotonic() < START_S or \
                not any(self.fits(group, case) for case in left):
            return
        server = Server(self.arguments, group)
        try:
            self.add(f"{group} ready", server.ready_s,
                     {"bench": "ready", "group": group, "s": round(server.ready_s, 3)})
            for case in left:
                if self.fits(group, case) and not self.run(server, group, case):
                    break
        finally:
            server.stop()

    def run(self, server, group, case):
        begun, least_s = time.monotonic(), self.least_s(group, case)
        try:
            if group == "gap":
                row = gap(self.arguments, server, case, self.until - begun)
            else:
                row = row_of(group, case, bench(self.arguments, server, case, self.until - begun),
                             least_s)
        except subprocess.TimeoutExpired:
            return False  # it stays left out, or at fewer repeats
        except subprocess.CalledProcessError as error:
            print(json.dumps({"group": group, "case": case[0], "failed": str(error)[:200]}),
                  flush=True)
            self.bad += 1
            return False
        self.add(f"{group} {case[0]}", time.monotonic() - begun, row)
        return True

    def add(self, unit, seconds, row):
        print(json.dumps(row), flush=True)
        self.runs.add(unit, seconds, [row])

    def missing(self, groups, repeats):
        """(group, case) of which there are fewer runs."""
        return [(group, case[0]) for group in groups for case in self.of(group)
                if self.runs.count(f"{group} {case[0]}") < repeats]

    def left_out(self, groups):
        return [{"bench": "serve", "group": group, "case": case, "left_out": "no time"}
                for group, case in self.missing(groups, 1)]


def parse(words, **defaults):
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--out", default="/tmp")
    parser.add_argument("--model", default=str(ROOT / "tests" / "models" / "qwen3.5-35b-a3b"))
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--groups", default=USUAL)
    parser.add_argument("--cases", default=".*")
    parser.add_argument("--seconds", type=float, default=450)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    parser.set_defaults(**defaults)
    arguments = parser.parse_args(words)
    arguments.program = str(pathlib.Path(arguments.bin) / "deltamesh")
    return arguments


def model_of(arguments):
    return f"{pathlib.Path(arguments.model).name}, dummy weights, {arguments.tp} GPU"


def main():
    arguments = parse(sys.argv[1:])
    out, groups = pathlib.Path(arguments.out), arguments.groups.split(",")
    command = (f"serve_bench.py --groups {arguments.groups} --cases '{arguments.cases}' "
               f"--repeats {arguments.repeats}")
    header = {**figures.header_of(arguments.program, command), "model": model_of(arguments)}
    runs = figures.Runs(out / "serve-runs.jsonl", header, arguments.resume)
    cases = Cases(arguments, runs, time.monotonic() + arguments.seconds)
    for repeats in range(1, arguments.repeats + 1):
        for group in groups:
            cases.once_more(group, repeats)
    runs.write(out / "serve-bench.jsonl", cases.left_out(groups))
    return 1 if cases.bad else 0


if __name__ == "__main__":
    sys.exit(main())
