#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tables of tests/bench/README.md, each between its two markers, out of the newest files
of tests/bench/results, and draws the plots where there is matplotlib (plot.py).

  page.py            writes what has changed
  page.py --check    changes nothing; code 1 and the difference if page or plots are not of those
                     files (of plots it looks for the digest that plot.py leaves in them)"""
import difflib
import importlib.util
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gpu")]
import figures  # noqa: E402
import serve_bench  # noqa: E402

PAGE, PLOTS = HERE / "README.md", HERE / "plots"
BIG = "qwen3.5-35b-a3b"
BLOCK = re.compile(r"(<!-- made: (\S+) -->\n).*?(<!-- end -->\n)", re.S)


def shown(row, name, places=0):
    """Median, and (least-most) of more runs than one; "-" for what was not measured."""
    found = figures.three(row, name)
    if found is None:
        return "-"
    middle, least, most = (f"{value:,.{places}f}" for value in found)
    return f"{middle} ({least}-{most})" if row.get("repeats", 1) > 1 else middle


def table(head, rows):
    """`head`: the titles, columns apart by |; all but the first are numbers."""
    columns = head.count("|")
    return [f"| {head} |", "|---|" + "---:|" * columns] + [f"| {' | '.join(row)} |" for row in rows]


class Files:
    """The newest file of each kind: header and rows. Of several GPUs there may be none."""

    DRAWN = ("serve", "steps", "kernels", "vllm")

    def __init__(self, folder=figures.RESULTS):
        self.paths = {kind: figures.newest(kind, folder) for kind in self.DRAWN}
        several = figures.newest("multi", folder)
        if several is not None:
            self.paths["multi"] = several
        self.header, self.rows = {}, {}
        for kind, path in self.paths.items():
            self.header[kind], self.rows[kind] = figures.read(path)

    def drawn(self):
        """Those that the plots are of."""
        return [self.paths[kind] for kind in self.DRAWN]

    def source(self, kind):
        times = {row.get("repeats", 1) for row in self.rows[kind] if "left_out" not in row}
        least, most = min(times), max(times)
        runs = f"medians of {most if least == most else f'{least} to {most}'} runs (least-most)"
        return [f"`results/{self.paths[kind].name}`: {figures.where(self.header[kind])}; "
                f"{'one run of each' if most == 1 else runs}.", ""]

    def serving(self, kind="serve"):
        """Cases that were measured, by group, then length, then how many at once."""
        groups = list(serve_bench.GROUPS)
        rows = [row for row in self.rows[kind] if "output_tokens_per_s" in row]
        return sorted(rows, key=lambda row: (groups.index(row["group"]), row["input"],
                                             row["output"], row["concurrency"]))

    def peers(self):
        return {(row["group"], row["case"]): row for row in self.rows["vllm"]}

    def step(self, op, model=BIG, **fields):
        """The step_bench row with these fields; {} if there is none."""
        for row in self.rows["steps"]:
            plain = "drafts" in fields or not ("drafts" in row or row.get("mtp"))
            if row.get("op") == op and row.get("model", BIG) == model and plain and \
                    all(row.get(name) == value for name, value in fields.items()):
                return row
        return {}

    def steps_of(self, model):
        return sorted({(row["context"], row["sequences"]) for row in self.rows["steps"]
                       if row.get("op") == "decode" and row.get("model", BIG) == model})


# ---------------------------------------------------------------- the blocks, by name
def under_load(files):
    peers, rows, behind = files.peers(), [], []
    for row in files.serving():
        if row["output"] == 1:
            continue
        name = f"{row['group']} {row['case']}" + (" (requests failed)" if row["failed"] else "")
        peer = peers.get((row["group"], row["case"]), {}).get("output_tokens_per_s")
        if peer is not None and figures.middle(row, "output_tokens_per_s") < peer:
            behind.append(name)
        rows.append([name, shown(row, "output_tokens_per_s"), shown(row, "total_tokens_per_s"),
                     shown(row, "ttft_ms", 1), shown(row, "tpot_ms", 2),
                     f"{figures.three(row, 'longest_gap_ms')[2]:,.1f}",
                     shown({**row, "repeats": 1}, "percent_of_limit"), str(row.get("repeats", 1)),
                     "-" if peer is None else f"{peer:,}"])
    seen = {(row["group"], row["case"]) for row in files.serving()}
    missing = [f"{group} {case[0]}" for group in serve_bench.USUAL.split(",")
               for case in serve_bench.GROUPS[group]["cases"] if (group, case[0]) not in seen]
    theirs = files.header["vllm"]
    lines = files.source("serve")[:1] + \
        [f"{theirs['engine']}: `results/{files.paths['vllm'].name}`, {figures.where(theirs)}.", ""]
    lines += table(
        "case (in-out-at once) | output tok/s | total tok/s | TTFT ms | TPOT ms | longest gap ms | "
        "% of limit | runs | vLLM output tok/s", rows)
    lines += ["", f"Behind vLLM: {', '.join(behind) or 'no row'}."]
    return lines + ([f"Not run for want of time: {', '.join(missing)}."] if missing else [])


def first_token(files):
    peers, rows = files.peers(), []
    for row in files.serving():
        if row["output"] != 1:
            continue
        peer = peers.get((row["group"], row["case"]), {})
        beside = f"{peer['ttft_ms']:,}" if "ttft_ms" in peer else "-"
        if peer.get("input", row["input"]) != row["input"]:
            beside += f" (of {peer['input']:,} tokens)"
        rows.append([f"{row['input']:,}", shown(row, "ttft_ms", 1),
                     shown({**row, "repeats": 1}, "percent_of_limit"), beside])
    return table("prompt | TTFT ms | % of limit | vLLM ms", rows)


def gaps(files):
    rows = [[f"{row['prompt']:,}", str(row["streams"]), shown(row, "ttft_ms"),
             shown(row, "tpot_ms", 2), f"{figures.three(row, 'longest_gap_ms')[2]:,.1f}"]
            for row in files.rows["serve"] if row.get("bench") == "gap"]
    return table("prompt | streams beside it | its TTFT ms | usual gap of these, ms | "
                 "longest gap of a stream, ms", rows) if rows else ["0 runs in these results."]


def ready(files):
    """A server may have started in several parts of a measurement: all of them."""
    times = {}
    for row in files.rows["serve"]:
        if row.get("bench") == "ready":
            times.setdefault(row["group"], []).extend(figures.three(row, "s"))
    return table("server | s from start to `ready`, dummy weights",
                 [[group, f"{min(s):.1f} to {max(s):.1f}"] for group, s in times.items()])


def steps(files):
    rows = []
    for context, count in files.steps_of(BIG):
        at = {"sequences": count, "context": context}
        step, prompts = files.step("decode", **at), files.step("prefill", **at)
        ahead = files.step("decode", drafts=3, **at)
        rows.append([f"{count} at {context:,}", shown(step, "us"),
                     shown({**step, "repeats": 1}, "percent_of_limit"), shown(step, "tokens_per_s"),
                     shown(ahead, "us"), shown(ahead, "tokens_per_s"),
                     shown({**ahead, "repeats": 1}, "tokens_per_row", 2),
                     shown(prompts, "tokens_per_s")])
    return files.source("steps") + table(
        "rows at context | step us | % of limit | tok/s | with 3 drafts us | tok/s | "
        "tokens a row | prompts tok/s", rows)


def models(files):
    names = sorted({row["model"] for row in files.rows["steps"] if "model" in row} - {BIG},
                   key=lambda name: float(re.search(r"-([0-9.]+)b", name).group(1)))
    rows = []
    for name in names:
        for context, count in files.steps_of(name):
            at = {"model": name, "sequences": count, "context": context}
            step = files.step("decode", **at)
            rows.append([name, str(count), shown(step, "us"),
                         shown({**step, "repeats": 1}, "percent_of_limit"),
                         shown(step, "tokens_per_s"),
                         shown(files.step("prefill", **at), "tokens_per_s")])
    commits = {row["tree"] for row in files.rows["steps"] if row.get("model") in names and
               "tree" in row}
    return table("model | rows | step us | % of limit | tok/s | prompts tok/s", rows) + \
        [line for commit in sorted(commits) for line in ("", f"Of commit {commit}.")]


def exchanges(files):
    rows = sorted((row for row in files.rows["multi"] if row.get("op") == "exchange"),
                  key=lambda row: (row["tp"], row["bytes"]))
    return table("bytes | GPUs | us | least us | us behind a late rank",
                 [[f"{row['bytes']:,}", str(row["tp"]), shown(row, "us", 1), shown(row, "min", 1),
                   shown(row, "us_after_a_late_rank", 1)] for row in rows])


def times_one(row, one):
    """How many times as fast as one GPU: a first token, or all tokens."""
    name = "ttft_ms" if row["output"] == 1 else "output_tokens_per_s"
    mine, its = figures.middle(row, name), figures.middle(one, name)
    if its is None:
        return "-"
    return f"{its / mine if name == 'ttft_ms' else mine / its:.2f}"


def multi(files):
    if "multi" not in files.paths:
        return ["0 runs on several GPUs: nothing of it was measured yet."]
    served = sorted(files.serving("multi"), key=lambda row: (row["model"] != BIG, row["model"],
                                                             row["tp"]))
    ones = {(BIG, row["group"], row["case"]): row for row in files.serving()}
    ones.update({(row["model"], row["group"], row["case"]): row for row in served
                 if row["tp"] == 1})
    rows = []
    for row in served:
        if row["tp"] == 1:
            continue
        one = ones.get((row["model"], row["group"], row["case"]), {})
        name = f"{row['model']} {row['group']} {row['case']}"
        cells = [name + (" (requests failed)" if row["failed"] else ""), str(row["tp"])]
        for measure, places in (("ttft_ms", 1), ("tpot_ms", 2), ("output_tokens_per_s", 0)):
            told = measure == "ttft_ms" or row["output"] > 1
            cells += [shown({**each, "repeats": times}, measure, places) if told else "-"
                      for each, times in ((one, 1), (row, row.get("repeats", 1)))]
        rows.append([*cells, times_one(row, one), shown({**row, "repeats": 1},
                                                        "percent_of_limit")])
    head = ("case (in-out-at once) | TP | TTFT ms, TP 1 | TTFT ms | TPOT ms, TP 1 | TPOT ms | "
            "output tok/s, TP 1 | output tok/s | times TP 1 | % of limit")
    return [*files.source("multi")[:1], f"TP 1 of {BIG}: {files.source('serve')[0]}", "",
            *exchanges(files), "", *table(head, rows)]


BLOCKS = {"under-load": under_load, "first-token": first_token, "gaps": gaps, "ready": ready,
          "steps": steps, "models": models, "multi": multi}


def made(text, files):
    """The page with every block as the files have it. Every block has to be there once."""
    names = [found.group(2) for found in BLOCK.finditer(text)]
    if sorted(names) != sorted(BLOCKS):
        raise SystemExit(f"{PAGE} has the blocks {names}, not {sorted(BLOCKS)}")

    def fill(found):
        lines = BLOCKS[found.group(2)](files)
        return found.group(1) + "\n" + "\n".join(lines) + "\n\n" + found.group(3)
    return BLOCK.sub(fill, text)


def stale_plots(files):
    digest = figures.digest(files.drawn())
    return [name for name in ("serve.svg", "limits.svg")
            if digest not in (PLOTS / name).read_text(encoding="utf-8")]


def main():
    files, text = Files(), PAGE.read_text(encoding="utf-8")
    wanted, stale = made(text, files), stale_plots(files)
    if sys.argv[1:] == ["--check"]:
        sys.stdout.writelines(difflib.unified_diff(
            text.splitlines(True), wanted.splitlines(True), "README.md", "as results are"))
        for name in stale:
            print(f"{name} was drawn from other files of results")
        return 1 if stale or text != wanted else 0
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    if stale and importlib.util.find_spec("matplotlib") is None:
        print("no matplotlib here: run tests/bench/page.py where it is, the plots are old")
        return 1
    if stale:
        subprocess.run([sys.executable, str(HERE / "plot.py")], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
