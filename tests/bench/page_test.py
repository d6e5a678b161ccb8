#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The page of benchmarks is what the committed results make, and the check of that can fail; runs
become results: repeats, what a stopped measurement goes on with, where a file goes."""
import json
import pathlib
import re
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import figures  # noqa: E402
import page  # noqa: E402

HEADER = {"date": "2026-01-02", "device": "NVIDIA X", "driver": "1.2", "commit": "abc1234",
          "command": "c"}
FAILED = []


def expect(what, found, wanted):
    if found != wanted:
        FAILED.append(what)
        print(f"{what}: {found!r}, not {wanted!r}")


def exits(what, call):
    try:
        call()
    except SystemExit:
        return
    expect(what, "went on", "an end with a message")


def check_page():
    files, text = page.Files(), page.PAGE.read_text(encoding="utf-8")
    wanted = page.made(text, files)
    expect("the page is as results make it (else run tests/bench/page.py)", text == wanted, True)
    expect("plots of other results", page.stale_plots(files), [])
    for name in page.BLOCKS:  # a digit typed into any block is found
        begin = wanted.index(f"<!-- made: {name} -->")
        digit = re.compile(r"[0-9]").search(wanted, begin)
        changed = f"{wanted[:digit.start()]}{9 - int(digit.group())}{wanted[digit.end():]}"
        expect(f"a digit of {name} is found", page.made(changed, files) == wanted, True)
    exits("a page without a block",
          lambda: page.made(wanted.replace("made: steps", "made: x"), files))
    files.paths["vllm"] = files.paths["steps"]
    expect("plots beside other files", page.stale_plots(files), ["serve.svg", "limits.svg"])


def check_multi(folder):
    for kind in page.Files.DRAWN:
        path = figures.newest(kind)
        (folder / path.name).write_bytes(path.read_bytes())
    files = page.Files(folder)
    drawn, one = files.drawn(), next(row for row in files.serving() if row["output"] > 1)
    expect("nothing of several GPUs", (len(page.multi(files)), "0 runs" in page.multi(files)[0]),
           (1, True))
    twice = {**one, "model": page.BIG, "tp": 4, "repeats": 2, "output_tokens_per_s":
             {"median": 2 * figures.middle(one, "output_tokens_per_s"), "min": 1, "max": 9e9}}
    first = {**one, "case": "ttft-7", "output": 1, "model": "other", "tp": 1, "repeats": 1,
             "ttft_ms": 30.0}
    rows = [{"op": "exchange", "ranks": 4, "bytes": 65536, "us": 7.25, "min": 6.0, "tp": 4,
             "us_after_a_late_rank": 8.5, "model": None}, first,
            {**first, "tp": 4, "ttft_ms": 20.0}, {**first, "tp": 4, "case": "ttft-8"},
            {"bench": "serve", "group": "mtp3", "case": "128-256-1", "left_out": "no time",
             "model": page.BIG, "tp": 4}, twice]
    (folder / "2027-01-01-x-multi.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in (HEADER, *rows)))
    files = page.Files(folder)
    expect("not of the plots", files.drawn(), drawn)
    text = page.multi(files)
    expect("an exchange", "| 65,536 | 4 | 7.2 | 6.0 | 8.5 |" in text, True)
    cells = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in text}
    doubled = cells[f"{page.BIG} {one['group']} {one['case']}"]
    expect("twice as fast", (doubled[0], doubled[5], doubled[7]),
           ("4", page.shown({**one, "repeats": 1}, "output_tokens_per_s"), "2.00"))
    expect("its runs", doubled[6].endswith(" (1-9,000,000,000)"), True)
    expect("a first token", cells[f"other {one['group']} ttft-7"][:8],
           ["4", "30.0", "20.0", "-", "-", "-", "-", "1.50"])
    expect("beside nothing", cells[f"other {one['group']} ttft-8"][:8],
           ["4", "-", "30.0", "-", "-", "-", "-", "-"])
    wanted = page.made(page.PAGE.read_text(encoding="utf-8"), files)
    expect("in the page", "\n".join(text) in wanted, True)
    expect("a digit of it is found", page.made(wanted.replace("| 7.2 |", "| 7.3 |"), files), wanted)


def check_merged():
    runs = [{"op": "a", "us": us, "percent_of_limit": share, "failed": 1, "none": None}
            for us, share in ((3.0, 50), (1.0, 90), (2.0, 60))]
    row = figures.merged([runs[0], {"op": "b", "us": 7.0}, *runs[1:]])
    expect("runs in one row", row[0], {"op": "a", "us": {"median": 2.0, "min": 1.0, "max": 3.0},
                                       "percent_of_limit": 60, "failed": 3, "none": None,
                                       "repeats": 3})
    expect("a single run", (row[1]["op"], row[1]["repeats"], len(row)), ("b", 1, 2))
    expect("as shown", page.shown(row[0], "us", 1), "2.0 (1.0-3.0)")
    expect("one run as shown", page.shown(row[1], "us", 1), "7.0")
    expect("not measured", page.shown(row[1], "tokens_per_s"), "-")
    old = {"ttft_ms": {"mean": 5, "median": 4, "max": 9}, "itl_ms": {"median": 1, "max": 8}}
    expect("a row of before", (figures.three(old, "ttft_ms"), figures.three(old, "longest_gap_ms")),
           ((4, 4, 4), (8, 8, 8)))


def check_runs(folder):
    path, row = folder / "runs.jsonl", {"op": "a", "us": 3.0}
    figures.Runs(path, HEADER, resume=True).add("a", 1.5, [row])
    with path.open("a") as file:
        file.write('{"unit": "a", "sec')  # killed while it wrote
    runs = figures.Runs(path, {**HEADER, "date": "2026-01-03"}, resume=True)
    expect("what is there", (runs.count("a"), runs.seconds("a"), runs.seconds("b")), (1, 1.5, None))
    runs.add("a", 2.5, [{**row, "us": 5.0}])
    runs = figures.Runs(path, HEADER, resume=True)
    expect("behind a broken line", (runs.count("a"), runs.seconds("a")), (2, 2.5))
    for field in ("commit", "device", "driver"):
        other = {**HEADER, field: "other"}
        exits(f"another {field}", lambda: figures.Runs(path, other, resume=True))
    runs.write(folder / "results.jsonl", [{"op": "b", "left_out": "no time"}])
    header, rows = figures.read(folder / "results.jsonl")
    expect("the header", (header, figures.where(header)),
           (HEADER, "commit abc1234, NVIDIA X, driver 1.2, 2026-01-02"))
    expect("results", (rows[0]["us"]["median"], rows[0]["repeats"], rows[1]["left_out"]),
           (4.0, 2, "no time"))
    expect("anew", figures.Runs(path, HEADER, resume=False).count("a"), 0)


def check_places(folder):
    def put(place, commit):
        place.write_text(json.dumps({**HEADER, "commit": commit}) + "\n")
        return place
    first = put(folder / "2026-01-02-x-serve.jsonl", "one")
    (folder / "new").mkdir()
    mine = put(folder / "new" / first.name, "one")
    expect("over itself", figures.place_of(mine, folder), first)
    put(mine, "two")
    second = figures.place_of(mine, folder)
    expect("beside another", second.name, "2026-01-02-x-2-serve.jsonl")
    put(folder / "2026-01-01-y-9-serve.jsonl", "three")
    expect("none", figures.newest("multi", folder), None)
    expect("the first of a day", figures.newest("serve", folder), first)
    put(second, "two")
    expect("the second of a day", figures.newest("serve", folder), second)
    expect("over itself, second", figures.place_of(mine, folder), second)


def main():
    check_page()
    check_merged()
    for check in (check_multi, check_runs, check_places):
        with tempfile.TemporaryDirectory() as folder:
            check(pathlib.Path(folder))
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
