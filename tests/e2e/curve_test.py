#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""curve_test.py -- CURVE with real processes: a server off the loopback for those who have a key,
and for nobody else; workers of another key do not get in."""
import json
import os
import shutil
import tempfile
import time

import harness

TINY = harness.golden("dense_flat_r3")
FAST_S_MAX = 15


class Keys(harness.Case):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="deltamesh-keys-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.keys, self.foreign = (os.path.join(self.folder, name) for name in ("ours", "foreign"))
        for folder in (self.keys, self.foreign):
            result = harness.run("keys", "--curve-dir", folder)
            self.assertEqual((result.returncode, result.stderr), (0, ""))

    def client_folder(self, public_of):
        """What a client on another host has: no secret of the server's."""
        folder = os.path.join(self.folder, "client")
        os.mkdir(folder)
        shutil.copy(os.path.join(self.keys, "server.public"), folder)
        for name in ("client.public", "client.secret"):
            shutil.copy(os.path.join(public_of, name), folder)
        return folder

    def start(self):
        server = self.own(harness.Process([
            harness.program(), "serve", "--model", TINY, "--load-format", "dummy", "--backend",
            "cpu", "--tp", 2, "--rpc", "tcp://0.0.0.0:0", "--http", "off", "--curve-dir",
            self.keys, *harness.SMALL]))
        port = server.line("ready ").split()[1].rsplit(":", 1)[1]
        return server, f"tcp://127.0.0.1:{port}"

    def test_who_has_a_key_is_served_and_nobody_else(self):
        server, endpoint = self.start()
        words = ("generate", "--rpc", endpoint, "--prompt-ids", "1,2,3", "--max-tokens", 4,
                 "--json")
        result = harness.run(*words, "--curve-dir", self.client_folder(self.keys))
        self.assertEqual(result.returncode, 0, result.stderr)
        ids = json.loads(result.stdout)["ids"]
        with harness.deltamesh.Client(endpoint, curve_dir=self.keys) as client:
            self.assertEqual(client.generate(ids=[1, 2, 3], max_tokens=4, temperature=0)["ids"],
                             ids)
        for extra, part in (((), "--curve-dir"), (("--curve-dir", self.foreign), "server.public"),
                            (("--curve-dir", "/nowhere"), "deltamesh keys")):
            begun = time.monotonic()
            result = harness.run("status", "--rpc", endpoint, *extra)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(part, result.stderr)
            self.assertLess(time.monotonic() - begun, FAST_S_MAX)
        with self.assertRaisesRegex(harness.deltamesh.Error, "refuses the handshake"):
            harness.deltamesh.Client(endpoint, connect_s_max=2)
        with self.assertRaises(harness.deltamesh.Error):
            harness.deltamesh.Client(endpoint, connect_s_max=2, curve_dir=self.foreign)
        shutil.rmtree(os.path.join(self.folder, "client"))
        # Another's pair with the right server's key, until it is let in.
        folder = self.client_folder(self.foreign)
        with self.assertRaises(harness.deltamesh.Error):
            harness.deltamesh.Client(endpoint, connect_s_max=2, curve_dir=folder)
        shutil.copy(os.path.join(folder, "client.public"),
                    os.path.join(self.keys, "clients", "new.public"))
        with harness.deltamesh.Client(endpoint, curve_dir=self.keys) as client:
            self.assertGreaterEqual(client.status()["handshakes_failed"], 4)
        server.signal(15)
        self.assertEqual(server.wait(), 0)
        server, endpoint = self.start()
        with harness.deltamesh.Client(endpoint, curve_dir=folder) as client:
            self.assertEqual(client.generate(ids=[1, 2, 3], max_tokens=4, temperature=0)["ids"],
                             ids)

    def test_worker_of_another_key(self):
        coordinator = self.own(harness.Process([
            harness.program("deltamesh-coordinator"), "--model", TINY, "--load-format", "dummy",
            "--rpc", "tcp://127.0.0.1:0", "--http", "off", "--workers", "tcp://0.0.0.0:0",
            "--curve-dir", self.keys, *harness.SMALL]))
        port = coordinator.line("workers ").rsplit(":", 1)[1]
        words = [harness.program("deltamesh-worker-cpu"), "--coordinator",
                 f"tcp://127.0.0.1:{port}", "--model", TINY, "--load-format", "dummy"]
        for extra, part in (((), "--curve-dir"), (("--curve-dir", self.foreign), "server.public")):
            worker = self.own(harness.Process([*words, *extra]))
            self.assertEqual(worker.wait(), 3, worker.stderr)
            self.assertIn("refuses the handshake", worker.stderr)
            self.assertIn(part, worker.stderr)
        self.own(harness.Process([*words, "--curve-dir", self.keys]))
        coordinator.line("ready ")


if __name__ == "__main__":
    harness.main()
