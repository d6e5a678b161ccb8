#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""measure.py's part of several GPUs against programs that only print: what is run on how many GPUs,
that every row says so, and that it fails, stops and goes on as the other parts do."""
import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import measure  # noqa: E402

SEEN = {"requests": 1, "failed": 0, "output_tokens_per_s": 9.0, "total_tokens_per_s": 18.0,
        "duration_s": 1.0, **{name: {"median": 1.0, "p99": 2.0, "max": 3.0}
                              for name in ("ttft_ms", "tpot_ms", "itl_ms")}}
EXCHANGE = {"op": "exchange", "ranks": 4, "bytes": 4096, "us": 5.5, "min": 5.0,
            "us_after_a_late_rank": 6.0}
SERVER = f"""case "$1" in
--version) echo deltamesh 0+abc1234 ;;
serve) echo "$@" >>"$0.served"; echo ready rpc=tcp://127.0.0.1:1; exec sleep 100 ;;
bench) echo '{json.dumps(SEEN)}' ;;
esac"""
GROUP = f"""[ "$1" = 4 ] || exit 1
echo "ok   sum of 8 bytes, rank 0 of 4"; echo '{json.dumps(EXCHANGE)}'; echo "ok: 0 of 4 failed" """
CASES = {("qwen3.5-35b-a3b", 4, "plain"): 13, ("qwen3.5-35b-a3b", 4, "mtp3"): 4,
         ("qwen3.5-27b", 1, "plain"): 5, ("qwen3.5-27b", 4, "plain"): 5}
FAILED = []


def expect(what, found, wanted):
    if found != wanted:
        FAILED.append(what)
        print(f"{what}: {found!r}, not {wanted!r}")


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def gpus(folder, count):
    lines = "".join(f"echo 'GPU {i}: NVIDIA H200 (UUID: x)'\n" for i in range(count))
    program(folder, "nvidia-smi", f"""if [ "$1" != --list-gpus ]; then echo "NVIDIA H200, 1.2"; exit
fi
{lines}""")


def call(folder, *words):
    """measure.py's exit code, or the message it ends with."""
    sys.argv = ["measure.py", "--bin", str(folder), "--out", str(folder / "out"), "--results",
                str(folder / "results"), "--parts", "multi", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return measure.main()
        except SystemExit as end:
            return end.code


def rows_in(folder):
    paths = list(folder.glob("*-h200-multi.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()[1:]]


def check_counts(folder):
    for there, wanted in ((0, 1), (1, 1), (2, 2), (3, 2), (8, 8), (9, 8)):
        gpus(folder, there)
        expect(f"a group of {there} GPUs", measure.gpus_there(), wanted)
    os.environ["CUDA_VISIBLE_DEVICES"] = "GPU-0c5e, GPU-77aa"
    expect("two of nine", measure.gpus_there(), 2)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    expect("none of nine", measure.gpus_there(), 1)
    del os.environ["CUDA_VISIBLE_DEVICES"]
    gpus(folder, 1)
    expect("one GPU", call(folder), "the part multi needs several GPUs")


def check_stops(folder):
    gpus(folder, 4)
    program(folder, "group_multi", GROUP)
    expect("no time", call(folder, "--seconds", "0"), 3)
    left = rows_in(folder / "out")
    expect("all is left out", [("tp" in row, "model" in row, row["left_out"]) for row in left],
           [(True, True, "no time")] * (1 + sum(CASES.values())))
    for text in (f"{GROUP}; echo 'FAIL gather of 8 bytes, rank 1 of 4'", f"{GROUP}; exit 1"):
        program(folder, "group_multi", text)
        expect("a group that fails", call(folder, "--repeats", "1"), 1)
        expect("of it", [row for row in rows_in(folder / "out") if row.get("op")], [])
    expect("no results of failures", rows_in(folder / "results"), [])


def check_goes_on(folder):
    program(folder, "group_multi", GROUP)
    expect("all there", call(folder, "--repeats", "1"), 0)
    expect("twice", call(folder, "--repeats", "2"), 0)
    rows = rows_in(folder / "results")
    exchange = [row for row in rows if row.get("op") == "exchange"]
    expect("exchanges", [(row["tp"], row["model"], row["us"]["median"], row["min"]["median"],
                          row["us_after_a_late_rank"]["median"]) for row in exchange],
           [(4, None, 5.5, 5.0, 6.0)])
    counts = {}
    for row in rows:
        expect("runs of each", row["repeats"], 2)
        if row.get("bench") == "serve":
            key = (row["model"], row["tp"], row["group"])
            counts[key] = counts.get(key, 0) + 1
    expect("cases", counts, CASES)
    served = [line.split() for line in (folder / "deltamesh.served").read_text().splitlines()]
    started = sorted((pathlib.Path(words[words.index("--model") + 1]).name,
                      int(words[words.index("--tp") + 1]),
                      "plain" if words[words.index("--speculative-tokens") + 1] == "0" else "mtp3")
                     for words in served)
    expect("a server a group and run", started, sorted(2 * list(CASES)))


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "results").mkdir()
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
        program(folder, "deltamesh", SERVER)
        for check in (check_counts, check_stops, check_goes_on):
            check(folder)
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
