#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""install_test.py -- what `cmake --install` brings is enough: the programs serve from there, and a
stranger's C program builds against the client library by pkg-config, with threads."""
import os
import shlex
import shutil
import subprocess
import tempfile

import harness

SOURCE = os.path.join(harness.ROOT, "tests", "e2e", "client_program.c")
THREADS, REQUESTS, TOKENS = 4, 10, 5


def call(*words, **options):
    return subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120, **options).stdout


class Installed(harness.Case):
    def setUp(self):
        self.prefix = tempfile.mkdtemp(prefix="deltamesh-install-")
        self.addCleanup(shutil.rmtree, self.prefix)
        build = os.path.dirname(os.path.dirname(harness.program()))
        call("cmake", "--install", build, "--prefix", self.prefix)

    def package(self, *words):
        """pkg-config over what was installed, as if its prefix were the real one."""
        folders = [folder for folder, _, names in os.walk(self.prefix)
                   if "deltamesh-client.pc" in names]
        self.assertEqual(len(folders), 1)
        return shlex.split(call("pkg-config", f"--define-variable=prefix={self.prefix}", *words,
                                "deltamesh-client",
                                env={**os.environ, "PKG_CONFIG_PATH": folders[0]}))

    def test_a_strangers_program(self):
        program = os.path.join(self.prefix, "stranger")
        libraries = self.package("--libs")
        folder = next(word[2:] for word in libraries if word.startswith("-L"))
        call("cc", "-std=c17", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE",
             *self.package("--cflags"), SOURCE, "-o", program, *libraries, "-pthread",
             f"-Wl,-rpath,{folder}", cwd="/")
        names = call("nm", "-D", "--defined-only", "--format=posix",
                     os.path.join(folder, "libdeltamesh-client.so"))
        ours = {line.split()[0].split("@")[0] for line in names.splitlines()}
        self.assertIn("client_open", ours)
        foreign = {name for name in ours
                   if not name.startswith(("client_", "generate_request_", "status_", "DELTAMESH"))}
        self.assertEqual(foreign, set())
        server = self.own(harness.Process([
            os.path.join(self.prefix, "bin", "deltamesh"), "serve", "--model", harness.DEMO,
            "--backend", "cpu", "--rpc", "tcp://127.0.0.1:0", "--http", "off", *harness.SMALL]))
        endpoint = server.line("ready ").split()[1].split("=")[1]
        self.assertEqual(call(program, endpoint, str(THREADS), str(REQUESTS)),
                         f"{THREADS * REQUESTS * TOKENS} ids\n")
        self.assertTrue(os.path.exists(os.path.join(self.prefix, "share", "deltamesh",
                                                    "deltamesh.py")))


if __name__ == "__main__":
    harness.main()
