#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures all that tests/bench/README.md shows; see tests/gpu.sh page.

  measure.py --bin DIR [--out DIR] [--seconds S] [--repeats R] [--parts PART,..] [--results DIR]
             [--groups G,..] [--cases REGEX]

Three parts: `steps` (whole steps of several models, step_bench), `kernels` (kernel_check bench, and
loading a file), `serve` (serve_bench.py with its groups and cases). Everything runs once, then once
more, up to R times. It may be stopped at any time: what was measured is in OUT/runs-PART.jsonl, and
the next call with the same OUT goes on behind it, with the same build on the same kind of machine
only. After S seconds nothing is begun. Every call leaves OUT/DATE-GPU-PART.jsonl: a header (commit,
GPU, driver, date, command), then a row with median, least and most of its runs for everything that
was measured. Once nothing is missing these go to DIR (tests/bench/results) and the exit code is 0;
3: something is missing, call again; 1: something failed."""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench"))
import figures  # noqa: E402
import serve_bench  # noqa: E402

PARTS = ("steps", "kernels", "serve")
STEPS, DRAFT_STEPS = "60", "30"


def step(name, seconds, model, context, *rows):
    """A unit: its name, seconds that it may take the first time, its command in DIR of programs."""
    steps = DRAFT_STEPS if "--drafts" in rows else STEPS
    return (name, seconds, ["step_bench", f"tests/models/{model}", context, steps, *rows])


BIG = "qwen3.5-35b-a3b"
UNITS = {
    "steps": [step("rows", 60, BIG, "1024", "1", "2", "4", "8", "16", "32", "64", "128", "256"),
              step("8192", 20, BIG, "8192", "1"), step("32768", 20, BIG, "32768", "1"),
              step("drafts", 70, BIG, "1024", "--drafts", "3", "1", "4", "8", "16", "64", "256")] +
             [step(model, 40, model, "1024", "1", "8", "64")
              for model in ("qwen3.5-0.8b", "qwen3.5-4b", "qwen3.5-9b", "qwen3.5-27b")],
    "kernels": [("kernels", 90, ["kernel_check", "bench"]),
                ("load", 30, ["load_bench_cuda", "tests/models/qwen3.5-0.8b", "2"])],
}
COMMANDS = {"steps": f"step_bench MODEL CONTEXT {STEPS} ROWS..; .. {DRAFT_STEPS} --drafts 3 ROWS..",
            "kernels": "kernel_check bench; load_bench_cuda tests/models/qwen3.5-0.8b 2 in memory",
            "serve": "serve_bench.py --groups GROUPS --cases CASES"}


class Programs:
    """A part whose units are programs that print JSON lines."""

    def __init__(self, part, arguments, runs, until):
        self.part, self.arguments, self.runs, self.until = part, arguments, runs, until
        self.bad = 0

    def once_more(self, repeats):
        for name, first_s, command in UNITS[self.part]:
            known_s = self.runs.seconds(name)
            expected_s = first_s if known_s is None else 1.1 * known_s + 1
            if self.runs.count(name) < repeats and self.until - time.monotonic() > expected_s:
                self.run(name, command)

    def run(self, name, command):
        begun = time.monotonic()
        program = str(pathlib.Path(self.arguments.bin).resolve() / command[0])
        try:
            done = subprocess.run([program, *command[1:]], capture_output=True, text=True,
                                  check=True, cwd=ROOT, timeout=self.until - begun,
                                  env={**os.environ, "TMPDIR": "/dev/shm"})
            rows = [json.loads(line) for line in done.stdout.splitlines()]
        except subprocess.TimeoutExpired:
            return  # it stays missing
        except (OSError, subprocess.CalledProcessError, json.JSONDecodeError) as error:
            said = getattr(error, "stderr", None) or ""
            print(f"{self.part} {name}: {error} {said[-400:]}", file=sys.stderr, flush=True)
            self.bad += 1
            return
        for row in rows:
            if "model" in row:
                row["model"] = pathlib.Path(row["model"]).name
            if "--drafts" in command:
                row["mtp"] = True  # its prompts and steps without drafts have the head there
        seconds = time.monotonic() - begun
        print(f"{self.part} {name}: {len(rows)} rows in {seconds:.1f} s", flush=True)
        self.runs.add(name, seconds, rows)

    def missing(self, repeats):
        return [name for name, _, _ in UNITS[self.part] if self.runs.count(name) < repeats]

    def left_out(self):
        return [{"unit": name, "left_out": "no time"} for name in self.missing(1)]


class Serving:
    """The part of serve_bench.py, by the same three calls."""

    def __init__(self, arguments, runs, until):
        self.groups = arguments.groups.split(",")
        self.cases = serve_bench.Cases(arguments, runs, until)

    @property
    def bad(self):
        return self.cases.bad

    def once_more(self, repeats):
        for group in self.groups:
            self.cases.once_more(group, repeats)

    def missing(self, repeats):
        return [" ".join(case) for case in self.cases.missing(self.groups, repeats)]

    def left_out(self):
        return self.cases.left_out(self.groups)


def part_of(name, arguments, until):
    """The part and its file of runs."""
    serving = serve_bench.parse(["--bin", arguments.bin, "--out", arguments.out, "--groups",
                                 arguments.groups, "--cases", arguments.cases, "--repeats",
                                 str(arguments.repeats)])
    header = figures.header_of(serving.program, f"tests/gpu.sh page: {COMMANDS[name]}")
    if name == "serve":
        header["model"] = serve_bench.model_of(serving)
    path = pathlib.Path(arguments.out) / f"runs-{name}.jsonl"
    runs = figures.Runs(path, header, resume=True)
    part = Serving(serving, runs, until) if name == "serve" else Programs(name, arguments, runs,
                                                                          until)
    return part, runs


def write(arguments, name, part, runs):
    card = re.sub(r"[^a-z0-9]+", "-", runs.header["device"].lower().removeprefix("nvidia "))
    path = pathlib.Path(arguments.out) / f"{runs.header['date']}-{card}-{name}.jsonl"
    runs.write(path, part.left_out())
    return path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--out", default="/tmp")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--groups", default=serve_bench.USUAL)
    parser.add_argument("--cases", default=".*")
    parser.add_argument("--results", default=str(figures.RESULTS))
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    pathlib.Path(arguments.out).mkdir(parents=True, exist_ok=True)
    names = [name for name in PARTS if name in arguments.parts.split(",")]
    parts = {name: part_of(name, arguments, until) for name in names}
    try:
        for repeats in range(1, arguments.repeats + 1):
            for part, _ in parts.values():
                part.once_more(repeats)
    finally:
        paths = [write(arguments, name, *both) for name, both in parts.items()]
    missing = {name: part.missing(arguments.repeats) for name, (part, _) in parts.items()}
    for name, units in missing.items():
        if units:
            print(f"{name}: fewer than {arguments.repeats} runs of {', '.join(units)}")
    if any(part.bad for part, _ in parts.values()):
        return 1
    if any(missing.values()):
        return 3
    for path in paths:
        shutil.copy(path, figures.place_of(path, pathlib.Path(arguments.results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
