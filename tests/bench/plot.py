#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws tests/bench/plots/*.svg from the newest files of tests/bench/results; page.py calls it.
Needs matplotlib.

serve.svg: output tokens a second over requests at once, beside vLLM's, with bars from the least to
the most of several runs. limits.svg: the share of the machine's limit that each case, step and
kernel reaches. A picture names the files it is of, and their digest."""
import pathlib
import sys

import matplotlib
matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402  (the backend comes first)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import figures  # noqa: E402
import page  # noqa: E402

KINDS = (("128-256-", "128 in, 256 out"), ("4096-1024-", "4,096 in, 1,024 out"))
GROUPS = (("plain", "without drafts", "#1f77b4"), ("mtp3", "MTP 3 at 3.39", "#d62728"))


def save(files, figure, name):
    page.PLOTS.mkdir(exist_ok=True)
    figure.tight_layout()
    names = ", ".join(path.name for path in files.drawn())
    source = f"{names}: {figures.digest(files.drawn())}"
    figure.savefig(page.PLOTS / name, metadata={"Date": None, "Creator": None, "Source": source})
    pyplot.close(figure)


def series(rows, group, prefix):
    """At once, median, and how far least and most are below and above it."""
    points = sorted((row["concurrency"], *figures.three(row, "output_tokens_per_s"))
                    for row in rows if row.get("group") == group and
                    row.get("case", "").startswith(prefix) and "output_tokens_per_s" in row)
    return ([c for c, *_ in points], [middle for _, middle, _, _ in points],
            [[middle - least for _, middle, least, _ in points],
             [most - middle for _, middle, _, most in points]])


def serve(files):
    figure, panels = pyplot.subplots(1, len(KINDS), figsize=(10, 4))
    for panel, (prefix, title) in zip(panels, KINDS):
        for group, label, colour in GROUPS:
            at_once, middle, apart = series(files.rows["serve"], group, prefix)
            panel.errorbar(at_once, middle, apart, fmt="o-", color=colour, capsize=3,
                           label=f"deltamesh, {label}")
            at_once, middle, _ = series(files.rows["vllm"], group, prefix)
            panel.plot(at_once, middle, "x--", color=colour, label=f"vLLM 0.26.0, {label}")
        panel.set(title=title, xlabel="requests at once", ylabel="output tokens a second",
                  xscale="log", yscale="log")
        panel.grid(True, which="both", alpha=0.3)
    panels[0].legend(fontsize=8)
    save(files, figure, "serve.svg")


def name_of(row):
    if "group" in row:
        return f"{row['group']} {row['case']}"
    if "sequences" in row:
        return f"{row.get('model', page.BIG)} {row['sequences']} rows at {row['context']}"
    return f"{row['op']} {row.get('shape', '')}"


def limits(files):
    rows = [(name_of(row), row["percent_of_limit"]) for row in
            files.serving() + files.rows["steps"] + files.rows["kernels"]
            if "percent_of_limit" in row]
    figure, panel = pyplot.subplots(figsize=(9, 1 + 0.2 * len(rows)))
    panel.barh(range(len(rows)), [share for _, share in rows], color="#1f77b4")
    panel.set_yticks(range(len(rows)), [name for name, _ in rows])
    panel.axvline(100, color="black", linewidth=0.8)
    panel.set(xlabel="percent of the limit", xlim=(0, 115), ylim=(len(rows), -1))
    panel.tick_params(axis="y", labelsize=7)
    save(files, figure, "limits.svg")


def main():
    matplotlib.rcParams["svg.hashsalt"] = "deltamesh"  # the same bytes from the same lines
    matplotlib.rcParams["svg.fonttype"] = "none"
    files = page.Files()
    serve(files)
    limits(files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
