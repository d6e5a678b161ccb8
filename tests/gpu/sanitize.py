#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The small suites under compute-sanitizer: every tool over every suite of kernel_check and over a
few steps of an engine, as processes side by side that share one GPU, each with a limit of time. A
line a check, and the same as JSON in OUT/sanitize.jsonl; what the tools said is in OUT/sanitize/.
Exit code 1: something was found that is not known to be untrue, did not end, or was not run."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

TOOLS = ["racecheck", "initcheck", "synccheck", "memcheck"]  # the slowest first
ENGINES = ["moe_e8_r2", "dense_tied_r1"]  # experts and the head for drafts; neither
# Those that take longest begin first; the order is no promise.
HEAVY = ["engine", "gdn_stream", "linear_many", "gdn_scan", "moe_many", "moe_stream", "attention"]
MEMORY_SHARE_MAX = 0.8  # of the GPU's memory in use, then no process is started
CHECK_SECONDS = 200     # of one check
OPTIONS = {
    # Every report is printed, to be judged: without the host's frames less than 8 MB.
    "initcheck": ["--print-limit", "20000", "--show-backtrace", "device"],
    # What it remembers of a step's launches until the stream is waited for can take all memory.
    ("racecheck", "engine"): ["--force-blocking-launches"],
}
# Reports that are known not to be true: every one of such a check has to be of this kind.
FLAG = re.compile(r"=+ Error: Race reported between Write access at void stream_watch<.*"
                  r"(\n=+ +and Read access at ready_wait\(.*)+")
LANE = re.compile(r"=+ Uninitialized __global__ memory read of size \d+ bytes\n.*\n.*\n.*\n"
                  r"=+ +Device Frame: void pull_norm_kernel<.*")
KNOWN = {
    # A flag in shared memory, st.release and ld.acquire: racecheck knows barriers alone.
    ("racecheck", "moe_stream"): FLAG,
    ("racecheck", "moe_stream_bf16"): FLAG,
    ("racecheck", "engine:moe_e8_r2"): FLAG,
    # Lanes that cuBLASLt stores, by bulk copies as it seems, which initcheck does not see. Hidden
    # too: rows of a lane that a kernel of ours left out and this one reader reads.
    ("initcheck", "engine:moe_e8_r2"): LANE,
    ("initcheck", "engine:dense_tied_r1"): LANE,
}
SUMMARY = re.compile(r"(?:ERROR SUMMARY: (\d+) errors?\b(?! were)|"
                     r"RACECHECK SUMMARY: (\d+) hazard)")
NO_REPORT = re.compile(r"=+ (?:COMPUTE-SANITIZER|.*SUMMARY: .*)")
ENDED = re.compile(r"^(?:all checks passed: 0 failed|ok .* small: .*)$", re.M)


class Memory:
    """Whether the GPU has room for one process more."""

    def __init__(self):
        self.lock = threading.Lock()

    def full(self):
        query = ["nvidia-smi", "--query-gpu=memory.used,memory.total",
                 "--format=csv,noheader,nounits",
                 "--id=" + os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]]
        try:
            text = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout
            used, total = (float(x) for x in text.splitlines()[0].split(","))
        except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
            return False  # nobody says
        return used > MEMORY_SHARE_MAX * total

    def wait(self, deadline):
        with self.lock:
            while self.full() and time.monotonic() < deadline:
                time.sleep(0.5)


def command_of(options, tool, suite, log):
    kind, _, name = suite.partition(":")
    if kind == "engine":
        program = [os.path.join(options.bin, "engine_check"), "--small", name]
    else:
        program = [os.path.join(options.bin, "kernel_check"), "small", suite]
    return ["compute-sanitizer", "--tool", tool, "--error-exitcode", "99", "--log-file", log,
            *OPTIONS.get(tool, []), *OPTIONS.get((tool, kind), []), *program]


def run_limited(command, path, seconds):
    """Runs it with its output in a file; the exit code, or None when time was over."""
    with open(path, "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None


def reports_of(text):
    """What the tool reports, one by one: its lines up to an empty one."""
    lines = [line for line in text.splitlines()
             if line.startswith("=========") and not NO_REPORT.fullmatch(line)]
    return [report.strip() for report in re.split(r"^=+ *$", "\n".join(lines), flags=re.M)
            if report.strip()]


def all_known(tool, suite, text, errors):
    """Whether the program came to its end and each error is printed and of the known kind."""
    pattern, reports = KNOWN.get((tool, suite)), reports_of(text)
    return (pattern is not None and ENDED.search(text) is not None and len(reports) == errors and
            all(pattern.fullmatch(report) for report in reports))


def judge(tool, suite, code, text):
    """What became of a check, and how many errors the tool counts (None: it did not say)."""
    counts = [int(a or b) for a, b in SUMMARY.findall(text)]
    errors = sum(counts) if counts else None
    if code is None:
        return "timeout", errors
    if errors is None:
        return "no summary", None
    if errors > 0:
        return ("known" if all_known(tool, suite, text, errors) else "errors"), errors
    return ("ok" if code == 0 else "failed"), errors


def check(options, memory, deadline, tool, suite):
    begun = time.monotonic()
    result = {"tool": tool, "suite": suite, "seconds": 0.0, "errors": None, "state": "not run"}
    memory.wait(deadline)
    left = deadline - time.monotonic()
    if left > 1:
        path = os.path.join(options.out, "sanitize", f"{tool}-{suite.replace(':', '-')}")
        paths = [f"{path}.log", f"{path}.txt"]  # the tool's and the program's lines may not mix
        pathlib.Path(paths[0]).unlink(missing_ok=True)
        begun = time.monotonic()
        code = run_limited(command_of(options, tool, suite, paths[0]), paths[1],
                           min(left, options.check_seconds))
        text = "\n".join(pathlib.Path(one).read_text(errors="replace") for one in paths
                         if os.path.exists(one))
        result["state"], result["errors"] = judge(tool, suite, code, text)
        result["seconds"] = round(time.monotonic() - begun, 1)
    return result


def weight(task):
    tool, suite = task
    heavy = next((i for i, name in enumerate(HEAVY) if suite.startswith(name)), len(HEAVY))
    return (TOOLS.index(tool) > 0, heavy, TOOLS.index(tool))


def suites_of(options):
    listed = subprocess.run([os.path.join(options.bin, "kernel_check"), "suites"],
                            capture_output=True, text=True, check=True).stdout.split()
    suites = sorted(listed) + [f"engine:{name}" for name in ENGINES]
    if options.suites:
        unknown = [name for name in options.suites if name not in suites]
        if unknown:
            sys.exit(f"no such suites: {' '.join(unknown)}; there are {' '.join(suites)}")
        suites = options.suites
    return suites


def show(result):
    errors = "-" if result["errors"] is None else result["errors"]
    print(f"{result['state']:<10} {result['tool']:<9} {result['suite']:<20} "
          f"{result['seconds']:6.1f} s  errors {errors}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default="build/cuda/bin")
    parser.add_argument("--out", default="/tmp")
    parser.add_argument("--jobs", type=int, default=max(2, (os.cpu_count() or 2) - 2))
    parser.add_argument("--seconds", type=float, default=470, help="of all checks together")
    parser.add_argument("--check-seconds", type=float, default=CHECK_SECONDS)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("suites", nargs="*", help="only these")
    options = parser.parse_args()
    if shutil.which("compute-sanitizer") is None:
        sys.exit("compute-sanitizer is not in PATH")
    os.makedirs(os.path.join(options.out, "sanitize"), exist_ok=True)
    begun, memory = time.monotonic(), Memory()
    tasks = [(tool, suite) for suite in suites_of(options) for tool in options.tools]
    states = {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool, \
            open(os.path.join(options.out, "sanitize.jsonl"), "w") as lines:
        runs = [pool.submit(check, options, memory, begun + options.seconds, *task)
                for task in sorted(tasks, key=weight)]
        for run in concurrent.futures.as_completed(runs):
            result = run.result()
            states[result["state"]] = states.get(result["state"], 0) + 1
            show(result)
            lines.write(json.dumps(result) + "\n")
            lines.flush()
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print(f"{len(tasks)} checks in {time.monotonic() - begun:.0f} s: {told}")
    return 0 if set(states) <= {"ok", "known"} else 1


if __name__ == "__main__":
    sys.exit(main())
