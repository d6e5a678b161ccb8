#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Notes when this machine stood still, until it is ended or whoever began it is: standstill.py FILE

A virtual machine whose host is busy can stop for seconds, and every bound on time that tests check
means nothing then. A process that only sleeps sees it: it wakes far too late. Load alone delays it
by fractions of a second."""
import os
import sys
import time

SLEEP_S, STILL_S = 0.05, 2.0


def main():
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        before, parent = time.monotonic(), os.getppid()
        while os.getppid() == parent:
            time.sleep(SLEEP_S)
            now = time.monotonic()
            if now - before > STILL_S:
                file.write(f"{time.strftime('%H:%M:%S')}: {now - before:.1f} s\n")
                file.flush()
            before = now


if __name__ == "__main__":
    main()
