#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Serves on the GPU and on the CPU and compares; see tests/gpu.sh. Fails when the GPU's tokens
depend on the run or on company. How far it agrees with the CPU, and with itself when it drafts and
reuses prefixes, is printed: logits that were summed in another order differ by rounding, so near
ties of random models part ways, and then everything after differs."""
import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
CASES = ["dense_tied_r1", "dense_untied_r2", "dense_flat_r3", "dense_deep_r4", "dense_yarn",
         "moe_e8_r2", "moe_e16_tp8", "next_e8_r2"]
PROMPTS = ["Once upon a time", "One day, a little fox", "There was a small boat", "In the morning"]
# Every answer is computed from its first token, one a step: nothing comes from a run before it,
# and no choice hangs on how fast steps were.
PLAIN = ("--no-prefix-cache", "--speculative-tokens", "0")
SHAPES_08B = {
    "model_type": "qwen3_5_text", "hidden_size": 1024, "intermediate_size": 3584,
    "num_hidden_layers": 24, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256,
    "linear_num_key_heads": 16, "linear_num_value_heads": 16, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "full_attention_interval": 4,
    "vocab_size": 248320, "rms_norm_eps": 1e-6, "max_position_embeddings": 262144,
    "tie_word_embeddings": True, "eos_token_id": 248044, "hidden_act": "silu",
    "attn_output_gate": True, "attention_bias": False, "mtp_num_hidden_layers": 1,
    "dtype": "bfloat16", "mamba_ssm_dtype": "float32",
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000000,
                        "partial_rotary_factor": 0.25, "mrope_section": [11, 11, 10],
                        "mrope_interleaved": True}}


class Server:
    def __init__(self, program, model, backend, *options, ranks=1, errors=False):
        start = time.time()
        self.program = program
        self.process = subprocess.Popen(
            [program, "serve", "--model", str(model), "--backend", backend, "--tp", str(ranks),
             "--rpc", "tcp://127.0.0.1:0", "--http", "off", "--max-num-seqs", "32", *options],
            stdout=subprocess.PIPE, text=True,
            stderr=subprocess.PIPE if errors else subprocess.DEVNULL)
        ready = re.match(r"ready rpc=(\S+)", self.process.stdout.readline())
        if ready is None:
            self.stop()
            raise SystemExit(f"{model} on {backend} did not start")
        self.endpoint, self.ready_s = ready.group(1), time.time() - start
        self.usage = collections.Counter()

    def generate(self, requests):
        """The token ids of each answer, and the rate; usage is summed over the calls."""
        done = subprocess.run(
            [self.program, "generate", "--rpc", self.endpoint, "--requests", "-", "--json"],
            input="\n".join(map(json.dumps, requests)) + "\n", capture_output=True, text=True,
            timeout=120, check=True)
        answers = sorted(map(json.loads, done.stdout.splitlines()), key=lambda a: a["index"])
        for answer in answers:
            self.usage.update(answer["usage"])
        return [a["ids"] for a in answers], done.stderr.strip().splitlines()[-1]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def case_requests(case):
    golden = json.loads((GOLDEN / case / "logits.json").read_text())
    common = {"temperature": 0, "ignore_eos": True}
    requests = [{"ids": e["prompt"], "max_tokens": 32, **common} for e in golden["greedy"]]
    for k, length in enumerate((1, 63, 64, 65, 130, 600)):
        ids = [(i * 7 + k) % 340 for i in range(length)]
        requests.append({"ids": ids, "max_tokens": 24, **common})
    return requests


def demo_requests():
    sampled = {"temperature": 0.8, "seed": 7, "top_k": 20, "top_p": 0.95, "presence_penalty": 0.5}
    return ([{"prompt": p, "max_tokens": 60, "temperature": 0} for p in PROMPTS] +
            [{"prompt": p, "max_tokens": 40, **sampled} for p in PROMPTS])


class Check:
    def __init__(self, program, log):
        self.program, self.log, self.failed = program, log, 0

    def say(self, **fields):
        line = json.dumps(fields)
        print(line, flush=True)
        self.log.write(line + "\n")
        self.log.flush()

    def compare(self, name, model, requests, *options):
        tokens = {}
        for backend in ("cpu", "cuda"):
            server = Server(self.program, model, backend, *options, *PLAIN)
            tokens[backend], rate = server.generate(requests)
            self.say(check=name, backend=backend, ready_s=round(server.ready_s, 2), rate=rate)
            if backend == "cuda":
                again, _ = server.generate(requests)
                alone = [server.generate([request])[0][0] for request in requests]
                same = again == tokens["cuda"], alone == tokens["cuda"]
                plain = server.usage["drafted"] == server.usage["cached_tokens"] == 0
                self.failed += same != (True, True) or not plain
                self.say(check=name, run_equals_run=same[0], alone_equals_together=same[1],
                         plain=plain)
            server.stop()
        self.usual(name, model, requests, tokens["cuda"], *options)
        equal = sum(a == b for a, b in zip(tokens["cpu"], tokens["cuda"]))
        self.say(check=name, sequences_equal_to_cpu=equal, sequences=len(requests))

    def usual(self, name, model, requests, plain, *options):
        """With drafts and prefix reuse as they are chosen, first and again: printed."""
        server = Server(self.program, model, "cuda", *options)
        answers = [server.generate(requests)[0] for _ in range(2)]
        server.stop()
        equal = [sum(a == b for a, b in zip(plain, got)) for got in answers]
        self.say(check=name, sequences_equal_to_plain=equal, sequences=len(requests),
                 usage=dict(server.usage))

    def speed(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        config = {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5",
                  "tie_word_embeddings": True, "text_config": SHAPES_08B}
        (directory / "config.json").write_text(json.dumps(config))
        server = Server(self.program, directory, "cuda", "--load-format", "dummy",
                        "--max-model-len", "8192", "--gpu-memory-utilization", "0.3")
        for count in (1, 8, 32):
            requests = [{"ids": list(range(k, k + 128)), "max_tokens": 128, "temperature": 0,
                         "ignore_eos": True} for k in range(count)]
            _, rate = server.generate(requests)
            self.say(bench="Qwen3.5-0.8B shapes, dummy, 128 in, 128 out", sequences=count,
                     ready_s=round(server.ready_s, 2), rate=rate)
        server.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--out", default="/tmp")
    arguments = parser.parse_args()
    program = str(pathlib.Path(arguments.bin) / "deltamesh")
    with open(pathlib.Path(arguments.out) / "gpu-check.jsonl", "w", encoding="utf-8") as log:
        check = Check(program, log)
        for case in CASES:
            check.compare(case, GOLDEN / case, case_requests(case), "--load-format", "dummy",
                          "--max-model-len", "1024")
        check.compare("demo", ROOT / "deploy" / "demo" / "model", demo_requests())
        check.speed(pathlib.Path(arguments.out) / "shapes-0.8b")
        check.say(failed=check.failed)
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
