#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws tests/bench/plots/*.svg from the lines that tests/gpu.sh leaves. Needs matplotlib.

  plot.py SERVE.jsonl KERNELS.jsonl [VLLM.jsonl]

serve.svg: output tokens a second over requests at once, beside vLLM's. limits.svg: the share of the
machine's limit that each case and each kernel reaches. Prints the cases as a table, too."""
import json
import pathlib
import sys

import matplotlib
matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402  (the backend comes first)

PLOTS = pathlib.Path(__file__).resolve().parent / "plots"
KINDS = (("128-256-", "128 in, 256 out"), ("4096-1024-", "4,096 in, 1,024 out"))
GROUPS = (("plain", "without drafts", "#1f77b4"), ("mtp3", "MTP 3 at 3.39", "#d62728"))


def lines_of(path):
    rows = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines() if line]
    return [row for row in rows if isinstance(row, dict)]


def save(figure, name):
    PLOTS.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(PLOTS / name, metadata={"Date": None, "Creator": None})


def series(rows, group, prefix):
    points = sorted((row["concurrency"], row["output_tokens_per_s"]) for row in rows
                    if row.get("group") == group and row.get("case", "").startswith(prefix)
                    and "output_tokens_per_s" in row)
    return [c for c, _ in points], [rate for _, rate in points]


def serve(ours, theirs):
    figure, panels = pyplot.subplots(1, len(KINDS), figsize=(10, 4))
    for panel, (prefix, title) in zip(panels, KINDS):
        for group, label, colour in GROUPS:
            panel.plot(*series(ours, group, prefix), "o-", color=colour,
                       label=f"deltamesh, {label}")
            panel.plot(*series(theirs, group, prefix), "x--", color=colour,
                       label=f"vLLM 0.26.0, {label}")
        panel.set(title=title, xlabel="requests at once", ylabel="output tokens a second",
                  xscale="log", yscale="log")
        panel.grid(True, which="both", alpha=0.3)
    panels[0].legend(fontsize=8)
    save(figure, "serve.svg")


def limits(serving, kernels):
    rows = [(f"{row['group']} {row['case']}", row["percent_of_limit"]) for row in serving
            if "percent_of_limit" in row]
    rows += [(f"{row['op']} {row.get('shape', '')}", row["percent_of_limit"]) for row in kernels
             if "percent_of_limit" in row]
    figure, panel = pyplot.subplots(figsize=(9, 1 + 0.2 * len(rows)))
    panel.barh([name for name, _ in rows], [share for _, share in rows], color="#1f77b4")
    panel.axvline(100, color="black", linewidth=0.8)
    panel.set(xlabel="percent of the limit", xlim=(0, 115))
    panel.tick_params(axis="y", labelsize=7)
    panel.invert_yaxis()
    save(figure, "limits.svg")


def table(ours, theirs):
    peers = {(row.get("group"), row.get("case")): row for row in theirs}
    print("| case | output tok/s | total tok/s | TTFT median ms | TPOT median ms | longest gap ms "
          "| % of limit | vLLM |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in ours:
        if "tpot_ms" not in row:
            continue
        peer = peers.get((row["group"], row["case"]), {})
        beside = peer.get("output_tokens_per_s") or peer.get("ttft_ms")
        unit = "" if "output_tokens_per_s" in peer or beside is None else " ms"
        print(f"| {row['group']} {row['case']} | {row['output_tokens_per_s']:,.0f} | "
              f"{row['total_tokens_per_s']:,.0f} | {row['ttft_ms']['median']:,.1f} | "
              f"{row['tpot_ms']['median']:.2f} | {row['itl_ms']['max']:.1f} | "
              f"{row['percent_of_limit']:.0f} | {'-' if beside is None else f'{beside:,}'}{unit} |")


def main():
    if len(sys.argv) not in (3, 4):
        print(__doc__, file=sys.stderr)
        return 1
    matplotlib.rcParams["svg.hashsalt"] = "deltamesh"  # the same bytes from the same lines
    matplotlib.rcParams["svg.fonttype"] = "none"
    serving, kernels = lines_of(sys.argv[1]), lines_of(sys.argv[2])
    peers = lines_of(sys.argv[3]) if len(sys.argv) == 4 else []
    serve(serving, peers)
    table(serving, peers)
    limits(serving, kernels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
