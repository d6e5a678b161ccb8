#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A table of a step's kernels from ncu's CSV: step_table.py FILE.csv [STEP]. It comes from
  DELTAMESH_GRAPHS=0 ncu --csv --metrics gpu__time_duration.sum \\
      --kernel-name-base function -k regex:'^(?!fill_kernel)' step_bench MODEL CONTEXT STEPS ROWS
A step begins at begin_kernel; STEP counts from the end (-1, the last whole one). Times are of
kernels alone, one after the other: their sum is a chain without gaps and without overlap."""
import collections
import csv
import sys


def main():
    lines = [line for line in open(sys.argv[1], encoding="utf-8") if line.startswith('"')]
    steps = []
    for row in csv.DictReader(lines):
        name = row["Kernel Name"].split("(")[0].split("<")[0]
        if name == "begin_kernel":
            steps.append([])
        if steps:
            scale = {"us": 1.0, "usecond": 1.0, "ns": 1e-3, "nsecond": 1e-3, "ms": 1e3,
                     "msecond": 1e3}[row["Metric Unit"]]
            grid = row["Grid Size"].replace(" ", "")
            steps[-1].append((name, grid, float(row["Metric Value"].replace(",", "")) * scale))
    step = steps[int(sys.argv[2]) if len(sys.argv) > 2 else -1]
    groups = collections.OrderedDict()
    for name, grid, us in step:
        groups.setdefault((name, grid), []).append(us)
    total = sum(us for _, _, us in step)
    print(f"{len(step)} kernels, {total:.1f} us alone; {len(steps)} steps seen")
    for (name, grid), times in sorted(groups.items(), key=lambda item: -sum(item[1])):
        print(f"{sum(times):9.1f} us {100 * sum(times) / total:5.1f} %  {len(times):4d} x "
              f"{sum(times) / len(times):8.2f}  {name} {grid}")


if __name__ == "__main__":
    main()
