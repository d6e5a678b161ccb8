#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What --draft-vocab costs in drafts: the same requests to a server for every N.

  draft_vocab.py --bin DIR [--model DIR] [--backend B] [--drafts K] N [N..]

Prints a JSON line per N and temperature: tokens that a step gave, and the share of the drafts that
were accepted. The answers are held against those of the first N: they have to be the same."""
import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = ("Milo", "Lily", "Kofi", "Anna", "Tom", "Mrs. Gray")
STORIES = ("Once upon a time there lived a little {}", "One rainy afternoon, {} went to the market")
QUESTIONS = ("Tell me a story about {}.", "{} has 9 apples and gives 4 away. How many are left?",
             "Why do leaves fall in autumn, asks {}?", "Hello! I am {}.")


def requests(temperature):
    for seed, name in enumerate(NAMES):
        common = {"max_tokens": 200, "temperature": temperature, "seed": seed}
        for text in STORIES:
            yield {"prompt": text.format(name), **common}
        for text in QUESTIONS:
            yield {"messages": [{"role": "user", "content": text.format(name)}],
                   "enable_thinking": False, **common}


def ask(arguments, draft_vocab):
    """Answers by temperature, of a server of their own."""
    program = str(pathlib.Path(arguments.bin) / "deltamesh")
    server = subprocess.Popen(
        [program, "serve", "--model", arguments.model, "--backend", arguments.backend, "--http",
         "off", "--rpc", "tcp://127.0.0.1:0", "--speculative-tokens", str(arguments.drafts),
         "--draft-vocab", str(draft_vocab)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = server.stdout.readline()
        if not line.startswith("ready rpc="):
            raise SystemExit(f"the server for --draft-vocab {draft_vocab} did not start")
        endpoint = line.split()[1].removeprefix("rpc=")
        answers = {}
        for temperature in (0, 0.8):
            lines = "".join(json.dumps(request) + "\n" for request in requests(temperature))
            done = subprocess.run([program, "generate", "--rpc", endpoint, "--requests", "-",
                                   "--json"], input=lines, capture_output=True, text=True,
                                  timeout=600, check=True)
            answers[temperature] = [json.loads(answer) for answer in done.stdout.splitlines()]
        return answers
    finally:
        server.terminate()
        server.wait(60)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", default=str(ROOT / "deploy" / "demo" / "model"))
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--drafts", type=int, default=3)
    parser.add_argument("draft_vocabs", type=int, nargs="+", metavar="N")
    arguments = parser.parse_args()
    first = None
    for draft_vocab in arguments.draft_vocabs:
        answers = ask(arguments, draft_vocab)
        texts = {t: sorted((a["index"], a["ids"]) for a in answers[t]) for t in answers}
        first = first or texts
        for temperature, of_one in answers.items():
            sums = {name: sum(answer["usage"][name] for answer in of_one)
                    for name in ("completion_tokens", "target_steps", "drafted", "accepted")}
            print(json.dumps({
                "draft_vocab": draft_vocab, "temperature": temperature, **sums,
                "tokens_per_step": round(sums["completion_tokens"] / sums["target_steps"], 3),
                "accepted_share": round(sums["accepted"] / max(sums["drafted"], 1), 3),
                "same_answers": texts[temperature] == first[temperature]}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
