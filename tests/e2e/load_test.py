#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""load_test.py -- both doors under mixed load at once: streams, whole answers, batches, chats,
aborts, clients that leave, a client that is stopped. Who asks in order gets the right tokens,
whatever the others do; afterwards nothing is held. And more connections than may be open."""
import json
import os
import random
import signal
import subprocess
import threading
import time

import harness
from http_test import ABORTED, CHAT, GREEDY, Http, head, joined, metric

LOAD_S = 6
SEED = int(os.environ.get("DELTAMESH_SEED", "1"))
PROMPTS = ("Once upon a time", "The little fox", "There was a girl who", "One rainy day")
TOKENS = 24
# Of those who do not stay: without drafts, they are not through before the server could notice.
SLOW = {"ignore_eos": True, "speculative_tokens": 0}
STOPPED = 6  # requests of the client that is stopped, and killed at the end


class Mixed(harness.Case):
    def setUp(self):
        self.server_ = self.server(harness.DEMO, "--max-num-seqs", "16", ranks=2)
        self.end = float("inf")
        self.counts, self.problems, self.lock = {}, [], threading.Lock()
        self.aborted = 0  # as their clients were told
        with self.server_.client() as client:
            self.wanted = {prompt: client.generate(prompt=prompt, max_tokens=TOKENS, temperature=0)
                           ["text"] for prompt in PROMPTS}

    def repeat(self, number, what):
        """Runs what(dice) until the end; what goes wrong is kept for the test's thread."""
        dice = random.Random(SEED * 1000 + number)
        try:
            while time.monotonic() < self.end:
                what(dice)
                with self.lock:
                    self.counts[what.__name__] = self.counts.get(what.__name__, 0) + 1
        except Exception as problem:  # pylint: disable=broad-except
            self.problems.append(f"{what.__name__}: {problem!r}")

    def rpc_stream(self, dice):
        with self.server_.client() as client:
            prompts = [dice.choice(PROMPTS) for _ in range(dice.randrange(1, 9))]
            asked = [client.submit(prompt=prompt, max_tokens=TOKENS, temperature=0)
                     for prompt in prompts]
            for request, prompt in zip(asked, prompts):
                self.assertEqual(client.result(request)["text"], self.wanted[prompt])

    def rpc_abort(self, dice):
        with self.server_.client() as client:
            request = client.submit(prompt=dice.choice(PROMPTS), **SLOW)
            replies = client.replies(request)
            for _ in range(dice.randrange(1, 6)):
                next(replies)
            client.abort(request)
            last = None
            for last in replies:
                pass
            self.assertIn(last["finish_reason"], ("abort", "length"))  # it may have been quicker
            with self.lock:
                self.aborted += last["finish_reason"] == "abort"

    def rpc_leave(self, dice):
        with self.server_.client() as client:
            for _ in range(4):
                client.submit(prompt=dice.choice(PROMPTS), **SLOW)
            time.sleep(dice.random() / 10)

    def http_stream(self, dice):
        prompt = dice.choice(PROMPTS)
        events = Http(self.server_.url).events("/v1/completions", {
            **GREEDY, "prompt": prompt, "max_tokens": TOKENS})
        self.assertEqual(joined(events, lambda choice: choice["text"]), self.wanted[prompt])

    def http_batch(self, dice):
        prompts = [dice.choice(PROMPTS) for _ in range(dice.randrange(1, 7))]
        code, _, answer = Http(self.server_.url).post("/v1/completions", {
            **GREEDY, "prompt": prompts, "max_tokens": TOKENS})
        self.assertEqual(code, 200, answer)
        self.assertEqual([choice["text"] for choice in answer["choices"]],
                         [self.wanted[prompt] for prompt in prompts])

    def http_chat(self, _):
        code, _, answer = Http(self.server_.url).post("/v1/chat/completions", CHAT)
        self.assertEqual(code, 200, answer)
        self.assertIn("12", answer["choices"][0]["message"]["content"])

    def http_leave(self, dice):
        client = Http(self.server_.url).raw()
        body = json.dumps({**GREEDY, **SLOW, "stream": True, "max_tokens": 800}).encode()
        client.sendall(head("/v1/completions", len(body)) + body)
        if dice.random() < 0.5:
            client.recv(1000)
        client.close()

    def assert_ended_early(self):
        """Of each kind that does not stay, at least one was noticed while its work went on."""
        self.assertGreater(self.aborted, 0, "no abort came before its request's end")
        for words in ("its client went away", "its client left"):  # the RPC door's, the HTTP door's
            self.assertIn(words + "; its work stops", self.server_.stderr)
        self.assertGreater(metric(Http(self.server_.url), ABORTED), self.aborted + STOPPED,
                           "who left was not aborted")

    def test_all_at_once(self):
        # seconds of work: a loaded machine may need one to see that it runs
        stopped = subprocess.Popen(
            [harness.program(), "generate", "--rpc", self.server_.endpoint, "--requests", "-",
             "--ignore-eos", "--max-tokens", "900", "--speculative-tokens", "0"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with stopped.stdin as lines:
            lines.write(b'{"prompt":"A"}\n' * STOPPED)
        self.addCleanup(stopped.wait)
        self.addCleanup(stopped.kill)
        harness.wait_until(lambda: self.server_.status()["running"] > 0, 10, "it runs")
        stopped.send_signal(signal.SIGSTOP)
        self.end = time.monotonic() + LOAD_S
        kinds = (self.rpc_stream, self.rpc_abort, self.rpc_leave, self.http_stream,
                 self.http_batch, self.http_chat, self.http_leave)
        threads = [threading.Thread(target=self.repeat, args=(number, kinds[number % len(kinds)]))
                   for number in range(2 * len(kinds))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LOAD_S + 60)
            self.assertFalse(thread.is_alive(), "somebody waits for ever")
        self.assertEqual(self.problems, [], f"seed {SEED}: {self.counts}")
        self.assertEqual(set(self.counts), {kind.__name__ for kind in kinds}, self.counts)
        stopped.kill()
        status = self.server_.wait_idle(15)
        self.assertEqual(status["requests_failed"], 0)
        self.assert_ended_early()
        self.assertEqual(self.server_.drain(), 0)
        self.assert_gone(self.server_)


class Connections(harness.Case):
    def test_more_than_may_be_open(self):
        files = 120
        server = self.own(harness.Process([
            "prlimit", f"--nofile={files}:{files}", harness.program(), "serve", "--model",
            harness.DEMO, "--backend", "cpu", "--rpc", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0",
            *harness.SMALL]))
        url = server.line("ready ").split("http=")[1]
        held = [Http(url).raw() for _ in range(2 * files)]  # the later ones wait to be accepted
        for connection in held:
            self.addCleanup(connection.close)
        held[0].sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertIn(b"200 OK", held[0].recv(1000))
        for connection in held:
            connection.close()
        answer = Http(url, timeout=20).post("/v1/completions", {**GREEDY, "max_tokens": 3})
        self.assertEqual((answer[0], answer[2]["usage"]["completion_tokens"]), (200, 3))
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(), 0)


if __name__ == "__main__":
    harness.main()
