#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Notes when a processor of this machine stood still, until it is ended or whoever began it is:
standstill.py FILE

A virtual machine whose host is busy can stop for seconds, one processor or all of them, and every
bound on time that tests check means nothing then. A thread that only sleeps sees it: it wakes far
too late. Load alone delays it by fractions of a second."""
import os
import sys
import threading
import time

SLEEP_S, STILL_S = 0.05, 2.0


def watch(processor, file):
    os.sched_setaffinity(0, {processor})  # of this thread
    before = time.monotonic()
    while True:
        time.sleep(SLEEP_S)
        now = time.monotonic()
        if now - before > STILL_S:
            file.write(f"{time.strftime('%H:%M:%S')}: processor {processor} {now - before:.1f} s\n")
            file.flush()
        before = now


def main():
    parent = os.getppid()
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        for processor in os.sched_getaffinity(0):
            threading.Thread(target=watch, args=(processor, file), daemon=True).start()
        while os.getppid() == parent:
            time.sleep(1)


if __name__ == "__main__":
    main()
