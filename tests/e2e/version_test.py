#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""version_test.py -- the build's name follows the commits, and only they touch its header."""
import os
import shutil
import subprocess
import tempfile

import harness

SCRIPT = os.path.join(harness.ROOT, "parallel", "base", "version.cmake")


class Name(harness.Case):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="deltamesh-version-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.header = os.path.join(self.folder, "out", "build_name.h")

    def git(self, *words):
        return subprocess.run(["git", "-C", self.folder, "-c", "user.name=n", "-c", "user.email=e",
                               *words], check=True, text=True, stdout=subprocess.PIPE).stdout

    def commit(self):
        """The short name of a new commit."""
        self.git("commit", "-q", "--allow-empty", "-m", "m")
        return self.git("rev-parse", "--short", "HEAD").strip()

    def build(self):
        """What a build finds in the header, and when that was written."""
        subprocess.run(["cmake", f"-DSOURCE={self.folder}", "-DVERSION=1.2.3",
                        f"-DOUT={self.header}", "-P", SCRIPT], check=True,
                       env={**os.environ, "GIT_CEILING_DIRECTORIES": tempfile.gettempdir()})
        with open(self.header, encoding="utf-8") as file:
            return file.read(), os.stat(self.header).st_mtime_ns

    def test_name(self):
        self.assertEqual(self.build()[0], '#define DELTAMESH_BUILD "1.2.3"\n')
        self.git("init", "-q")
        self.assertEqual(self.build()[0], '#define DELTAMESH_BUILD "1.2.3"\n')
        for _ in range(2):
            text = f'#define DELTAMESH_BUILD "1.2.3+{self.commit()}"\n'
            first = self.build()
            self.assertEqual(first[0], text)
            self.assertEqual(self.build(), first)


if __name__ == "__main__":
    harness.main()
