# SPDX-License-Identifier: Apache-2.0
"""figures.py -- runs of measurements, and the lines of tests/bench/results that come of them.

A file of runs begins with a header (which build, which machine, when) and has a line for every run
of a unit, with the rows that it printed. Measuring can so stop at any time and go on later. A file
of results has the same header and, for rows that differ in nothing but what was measured, one row:
how often (`repeats`), and median, least and most. Rows of a file that has no `repeats` are single
runs."""
import datetime
import hashlib
import json
import pathlib
import statistics
import subprocess

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
SPREAD = {"us", "host_us", "s", "seconds", "seconds_worst", "gb_per_s", "limit_gb_per_s",
          "tokens_per_s", "output_tokens_per_s", "total_tokens_per_s", "ttft_ms", "ttft_p99_ms",
          "tpot_ms", "itl_p99_ms", "longest_gap_ms", "duration_s", "min", "us_after_a_late_rank"}
MIDDLE = {"percent_of_limit", "acceptance_length", "tokens_per_row", "share"}  # medians alone
SUMS = {"failed"}


def told_by(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def header_of(program, command):
    """Commit of the build (`program` is its deltamesh), GPU, driver, date."""
    card = told_by("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    name, _, driver = (card.splitlines() or ["no GPU"])[0].partition(", ")
    return {"date": datetime.date.today().isoformat(), "device": name, "driver": driver,
            "commit": told_by(program, "--version").partition("+")[2] or "unknown",
            "command": command}


def merged(rows):
    """One row for all that differ in measures alone, in the order of their first ones."""
    groups = {}
    for row in rows:
        same = {k: v for k, v in row.items() if k not in SPREAD | MIDDLE | SUMS}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(row)
    return [merged_row(group) for group in groups.values()]


def merged_row(group):
    row = {}
    for name, first in group[0].items():
        values = [each[name] for each in group if each.get(name) is not None]
        if name in SUMS:
            row[name] = sum(values)
        elif not values or name not in SPREAD | MIDDLE:
            row[name] = first
        elif name in MIDDLE:
            row[name] = round(statistics.median(values), 3)
        else:
            row[name] = {"median": round(statistics.median(values), 4),
                         "min": round(min(values), 4), "max": round(max(values), 4)}
    row["repeats"] = len(group)
    return row


class Runs:
    """A file of runs that only grows; with `resume` it goes on with what is there."""

    def __init__(self, path, header, resume):
        self.path, self.header, self.units = pathlib.Path(path), header, {}
        lines = self.path.read_text().splitlines() if resume and self.path.exists() else []
        if not lines:
            self.path.write_text(json.dumps(header) + "\n")
            return
        self.header = json.loads(lines[0])
        for field in ("commit", "device", "driver"):
            if self.header[field] != header[field]:
                raise SystemExit(f"{path} is of {field} {self.header[field]!r}, this is "
                                 f"{header[field]!r}: measure into another folder")
        for line in lines[1:]:
            try:
                run = json.loads(line)
            except json.JSONDecodeError:
                continue  # whoever wrote it was killed
            self.units.setdefault(run["unit"], []).append(run)

    def count(self, unit):
        return len(self.units.get(unit, []))

    def seconds(self, unit):
        """Of the longest run so far; None before the first."""
        return max((run["seconds"] for run in self.units.get(unit, [])), default=None)

    def add(self, unit, seconds, rows):
        run = {"unit": unit, "seconds": round(seconds, 2), "rows": rows}
        self.units.setdefault(unit, []).append(run)
        with self.path.open("a", encoding="utf-8") as file:
            if self.path.read_bytes()[-1:] != b"\n":
                file.write("\n")
            file.write(json.dumps(run) + "\n")

    def write(self, path, left_out=()):
        """The file of results; `left_out`: rows of what was to be measured and was not."""
        rows = [row for runs in self.units.values()
                for row in merged([row for run in runs for row in run["rows"]])]
        lines = [self.header, *rows, *left_out]
        pathlib.Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))


# ---------------------------------------------------------------- reading
def newest(kind, folder=RESULTS):
    """By date, and a second one of a day (DATE-GPU-2-KIND) behind the first (DATE-GPU-KIND); None:
    there is none."""
    tail = f"-{kind}.jsonl"
    return max(folder.glob("*" + tail), key=lambda path: path.name.removesuffix(tail),
               default=None)


def place_of(path, folder=RESULTS):
    """Where a new file of results goes: over an older state of itself, beside any other one."""
    stem, _, kind = path.name.removesuffix(".jsonl").rpartition("-")
    number, place, header = 1, folder / path.name, read(path)[0]
    while place.exists() and read(place)[0].get("commit") != header["commit"]:
        number += 1
        place = folder / f"{stem}-{number}-{kind}.jsonl"
    return place


def read(path):
    """Header and rows of a file of results."""
    lines = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines() if line]
    return lines[0], lines[1:]


def three(row, name):
    """Median, least and most; of a single run three times the same. None: not measured."""
    value = row.get(name)
    if name == "longest_gap_ms" and value is None and "itl_ms" in row:
        value = row["itl_ms"]["max"]  # as it was told before there were repeats
    if isinstance(value, dict):
        middle = value["median"]
        return (middle, value["min"], value["max"]) if "min" in value else (middle,) * 3
    return None if value is None else (value,) * 3


def middle(row, name):
    found = three(row, name)
    return None if found is None else found[0]


def where(header):
    """Commit and machine of a file of results, in words."""
    commit = header.get("commit", header.get("tree"))
    driver = f"driver {header['driver']}" if header.get("driver") else None
    known = [f"commit {commit}" if commit else None, header["device"], driver, header["date"]]
    return ", ".join(part for part in known if part)


def digest(paths):
    """Names what a picture was drawn from."""
    together = hashlib.sha256()
    for path in paths:
        together.update(pathlib.Path(path).read_bytes())
    return together.hexdigest()[:16]
