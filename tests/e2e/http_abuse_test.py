#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""http_abuse_test.py -- the HTTP door and clients that leave, send garbage, too much, or nearly the
right thing. After each test the server is idle and still answers."""
import concurrent.futures
import contextlib
import json
import os
import random
import socket
import time

import harness
from http_test import ABORTED, BODY_BYTES_MAX, CHAT, GREEDY, Http, head, metric

HEADERS_S_MAX = 15
# Without drafts: each token is a step, and nobody is through before the server could notice.
LONG = {**GREEDY, "max_tokens": 4000, "ignore_eos": True, "speculative_tokens": 0}
SEED = int(os.environ.get("DELTAMESH_SEED", "1"))


class Abuse(harness.SharedCase):
    """Bare sockets. After each test the server is idle and still answers."""

    OPTIONS = ("--max-model-len", "4096")

    def setUp(self):
        self.http = Http(self.shared.url)
        self.watcher = self.client()  # kept: on a loaded machine to connect may take seconds
        self.addCleanup(self.still_well)

    def still_well(self):
        self.shared.wait_idle()
        code, _, answer = self.http.post("/v1/completions", {**GREEDY, "max_tokens": 4})
        self.assertEqual((code, answer["usage"]["completion_tokens"]), (200, 4))

    def socket(self):
        return self.own(self.http.raw())

    def begin_stream(self):
        """A stream that has begun: its socket, with the first bytes read."""
        body = json.dumps({**LONG, "stream": True}).encode()
        client = self.socket()
        client.sendall(head("/v1/completions", len(body)) + body)
        self.assertIn(b"200 OK", client.recv(65536))
        return client

    def running(self):
        return self.watcher.status()["running"]

    def figures(self):
        """Requests that ended as aborted, and tokens drawn, so far."""
        page = self.http.get("/metrics")[2]
        return [metric(self.http, name, page) for name in (ABORTED, "vllm:generation_tokens_total")]

    @contextlib.contextmanager
    def work_stops(self, count=1):
        """The server is to notice that `count` clients of LONG leave in here: all of them are
        aborted before their tokens are drawn, and not merely done after a while."""
        before = self.figures()
        yield
        self.shared.wait_idle(10)
        aborted, drawn = (after - so_far for after, so_far in zip(self.figures(), before))
        self.assertEqual(aborted, count)
        self.assertLess(drawn, count * LONG["max_tokens"])

    def test_client_that_leaves_frees_its_slot(self):
        with self.work_stops():
            client = self.begin_stream()
            harness.wait_until(lambda: self.running() == 1, 5, "running")
            client.close()

    def test_client_that_leaves_before_an_answer(self):
        body = json.dumps(LONG).encode()
        with self.work_stops():
            client = self.socket()
            client.sendall(head("/v1/completions", len(body)) + body)
            harness.wait_until(lambda: self.running() == 1, 5, "running")
            client.close()

    def test_half_closed_is_left(self):
        with self.work_stops():
            client = self.begin_stream()
            client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass  # what was under way, then the end

    def test_many_leave_at_once(self):
        with self.work_stops(24):
            clients = [self.begin_stream() for _ in range(24)]
            for client in clients:
                client.close()

    def test_garbage(self):
        for data in (b"\x16\x03\x01\x02\x00" * 40, b"\r\n" * 50, b"GET\r\n\r\n",
                     b"POST /v1/completions HTTP/9.9\r\n\r\n", b"\xff" * 3000,
                     b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
                     b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
                     head("/v1/completions", "-5"), head("/v1/completions", 1 << 70),
                     head("/v1/completions", 10) + b"{}"):
            client = self.socket()
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except OSError as problem:
                self.assertNotIsInstance(problem, TimeoutError, data[:40])
            client.close()

    def test_mutated_requests(self):
        """Right requests with bytes changed, cut, doubled: an answer or an end, in time."""
        dice = random.Random(SEED)
        whole = []
        for path, body in (("/v1/completions", {**GREEDY, "max_tokens": 2, "stream": True}),
                           ("/v1/chat/completions", {**CHAT, "max_tokens": 2, "tools": [
                               {"type": "function", "function": {"name": "f"}}]}),
                           ("/tokenize", {"prompt": "a \u00e9"})):
            data = json.dumps(body).encode()
            whole.append(head(path, len(data), "Connection: close\r\n") + data)
        mutants = [self.mutated(dice, dice.choice(whole)) for _ in range(150)]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for number, problem in enumerate(pool.map(self.send, mutants)):
                self.assertNotIsInstance(problem, TimeoutError, f"seed {SEED}, number {number}")

    @staticmethod
    def mutated(dice, whole):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(data))
            kind = dice.randrange(4)
            if kind == 0:
                data[at] = dice.randrange(256)
            elif kind == 1:
                del data[at:at + dice.randrange(1, 20)]
            elif kind == 2:
                data[at:at] = data[at:at + dice.randrange(1, 40)]
            else:
                data[at:at] = dice.choice((b"\r\n", b"\0", b'"', b"{[", b"\xff", b": 1e999"))
            data = data or bytearray(b"x")
        return bytes(data)

    def send(self, data):
        """Sends it all and reads to the end; the error that came instead."""
        with self.http.raw() as client:
            try:
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except OSError as problem:
                return problem
        return None

    def test_oversized_heads(self):
        for data, code in ((b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b" 414 "),
                           (b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 8000 + b"\r\n", b" 431 "),
                           (b"GET /health HTTP/1.1\r\nX: " + b"y" * 40000 + b"\r\n\r\n", b" 431 "),
                           (b"GET /health HTTP/1.1\r\nX: " + b"y" * 20000 + b"\r\n\r\n", b" 200 ")):
            client = self.socket()
            client.sendall(data)
            self.assertIn(code, client.recv(100))

    def test_oversized_body_is_refused_at_its_head(self):
        client = self.socket()
        client.sendall(head("/v1/completions", BODY_BYTES_MAX + 1, "Expect: 100-continue\r\n"))
        self.assertIn(b" 413 ", client.recv(65536))
        client = self.socket()
        client.sendall(head("/v1/completions", 1 << 40))
        self.assertIn(b" 413 ", client.recv(65536))

    def test_oversized_chunks(self):
        client = self.socket()
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                       b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        for _ in range(17):
            client.sendall(chunk)
        client.sendall(b"0\r\n\r\n")
        self.assertIn(b" 413 ", client.recv(65536))

    def test_slow_headers_end(self):
        client = self.socket()
        client.settimeout(0.2)
        client.sendall(b"POST /v1/completions HTTP/1.1\r\n")
        end = time.monotonic() + HEADERS_S_MAX + 5
        while time.monotonic() < end:
            try:
                client.sendall(b"X: y\r\n")
                if client.recv(100) == b"":
                    return
            except socket.timeout:
                continue
            except ConnectionError:
                return
        self.fail("headers may come for ever")


if __name__ == "__main__":
    harness.main()
