#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures all that tests/bench/README.md shows; see tests/gpu.sh page.

  measure.py --bin DIR [--out DIR] [--seconds S] [--repeats R] [--parts PART,..] [--results DIR]
             [--groups G,..] [--cases REGEX]

Parts: `steps` (whole steps of several models, step_bench), `kernels` (kernel_check bench, and
loading a file), `serve` (serve_bench.py with its groups and cases), and where there are several
GPUs `multi` (group_multi, and serving with --tp, on as many as make a group; with the same OUT,
machines of 2, 4 and 8 come into one file). Everything runs once, then once more, up to R times. It
may be stopped at any time: what was measured is in OUT/runs-PART.jsonl, and the next call with the
same OUT goes on behind it, with the same build on the same kind of machine only. After S seconds
nothing is begun. Every call leaves OUT/DATE-GPU-PART.jsonl: a header (commit, GPU, driver, date,
command), then a row with median, least and most of its runs for everything that was measured. Once
nothing is missing these go to DIR (tests/bench/results) and the exit code is 0;
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

PARTS = ("steps", "kernels", "serve", "multi")
STEPS, DRAFT_STEPS = "60", "30"


def step(name, seconds, model, context, *rows):
    """A unit: its name, seconds that it may take the first time, its command in DIR of programs."""
    steps = DRAFT_STEPS if "--drafts" in rows else STEPS
    return (name, seconds, ["step_bench", f"tests/models/{model}", context, steps, *rows])


BIG, DENSE = "qwen3.5-35b-a3b", "qwen3.5-27b"
UNITS = {
    "steps": [step("rows", 60, BIG, "1024", "1", "2", "4", "8", "16", "32", "64", "128", "256"),
              step("8192", 20, BIG, "8192", "1"), step("32768", 20, BIG, "32768", "1"),
              step("drafts", 70, BIG, "1024", "--drafts", "3", "1", "4", "8", "16", "64", "256")] +
             [step(model, 40, model, "1024", "1", "8", "64")
              for model in ("qwen3.5-0.8b", "qwen3.5-4b", "qwen3.5-9b", DENSE)],
    "kernels": [("kernels", 90, ["kernel_check", "bench"]),
                ("load", 30, ["load_bench_cuda", "tests/models/qwen3.5-0.8b", "2"])],
}
# Served by several GPUs: model, group, cases, and by one as well (BIG by one is part `serve`).
SERVED = ((BIG, "plain", "ttft-.*|128-256-.*|4096-1024-(8|64)", False),
          (BIG, "mtp3", "128-256-(1|8|64|256)", False),
          (DENSE, "plain", "ttft-(128|1024)|128-256-(1|8|64)", True))
COMMANDS = {"steps": f"step_bench MODEL CONTEXT {STEPS} ROWS..; .. {DRAFT_STEPS} --drafts 3 ROWS..",
            "kernels": "kernel_check bench; load_bench_cuda tests/models/qwen3.5-0.8b 2 in memory",
            "serve": "serve_bench.py --groups GROUPS --cases CASES",
            "multi": "group_multi GPUS; serve_bench.py --model MODEL --tp GPUS --groups GROUP "
                     "--cases CASES"}


def gpus_there():
    """As many as a group may have."""
    lines = figures.told_by("nvidia-smi", "--list-gpus").splitlines()
    count = sum(line.startswith("GPU ") for line in lines)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        count = min(count, sum(one.strip() != "" for one in visible.split(",")))
    return max(ranks for ranks in (1, 2, 4, 8) if ranks <= max(count, 1))


def rows_of(printed):
    """JSON lines; those of group_multi stand between lines of what it checked."""
    lines = printed.splitlines()
    for line in lines:
        if line.startswith("FAIL"):
            raise ValueError(line)
    return [json.loads(line) for line in lines if line.startswith("{")]


class Programs:
    """A part whose units are programs that print JSON lines."""

    def __init__(self, part, units, arguments, runs, until):
        self.part, self.units, self.arguments = part, units, arguments
        self.runs, self.until, self.bad = runs, until, 0

    def once_more(self, repeats):
        for name, first_s, command in self.units:
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
            rows = rows_of(done.stdout)
        except subprocess.TimeoutExpired:
            return  # it stays missing
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            said = (getattr(error, "stdout", None) or "") + (getattr(error, "stderr", None) or "")
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
        return [name for name, _, _ in self.units if self.runs.count(name) < repeats]

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


class Told:
    """Runs of which every unit and row says the model (None: of no model) and how many GPUs."""

    def __init__(self, runs, model, tp):
        self.runs, self.says = runs, {"model": model, "tp": tp}

    def unit(self, name):
        return f"{self.says['model'] or 'group'} tp{self.says['tp']} {name}"

    def count(self, name):
        return self.runs.count(self.unit(name))

    def seconds(self, name):
        return self.runs.seconds(self.unit(name))

    def add(self, name, seconds, rows):
        self.runs.add(self.unit(name), seconds, [{**row, **self.says} for row in rows])


class Multi:
    """The part of several GPUs, by the same three calls: parts, each with its Told."""

    def __init__(self, arguments, runs, until):
        count = gpus_there()
        if count == 1:
            raise SystemExit("the part multi needs several GPUs")
        group, units = Told(runs, None, count), [("exchange", 60, ["group_multi", str(count)])]
        self.parts = [(group, Programs("multi", units, arguments, group, until))]
        for model, name, cases, by_one in SERVED:
            for tp in (1, count) if by_one else (count,):
                told, words = Told(runs, model, tp), serving_of(arguments, name, cases, model, tp)
                self.parts.append((told, Serving(words, told, until)))

    @property
    def bad(self):
        return sum(part.bad for _, part in self.parts)

    def once_more(self, repeats):
        for _, part in self.parts:
            part.once_more(repeats)

    def missing(self, repeats):
        return [told.unit(name) for told, part in self.parts for name in part.missing(repeats)]

    def left_out(self):
        return [{**row, **told.says} for told, part in self.parts for row in part.left_out()]


def serving_of(arguments, groups, cases, model=BIG, tp=1):
    """serve_bench.py's arguments."""
    return serve_bench.parse(["--bin", arguments.bin, "--out", arguments.out, "--groups", groups,
                              "--cases", cases, "--repeats", str(arguments.repeats), "--model",
                              str(ROOT / "tests" / "models" / model), "--tp", str(tp)])


def part_of(name, arguments, until):
    """The part and its file of runs."""
    serving = serving_of(arguments, arguments.groups, arguments.cases)
    header = figures.header_of(serving.program, f"tests/gpu.sh page: {COMMANDS[name]}")
    if name == "serve":
        header["model"] = serve_bench.model_of(serving)
    path = pathlib.Path(arguments.out) / f"runs-{name}.jsonl"
    runs = figures.Runs(path, header, resume=True)
    if name == "serve":
        return Serving(serving, runs, until), runs
    if name == "multi":
        return Multi(arguments, runs, until), runs
    return Programs(name, UNITS[name], arguments, runs, until), runs


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
    parser.add_argument("--parts", default=",".join(PARTS if gpus_there() > 1 else PARTS[:-1]))
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
