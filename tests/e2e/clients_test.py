#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""clients_test.py -- clients that leave, stall, ask too much or change their minds: their work
stops, nothing of it is kept, and the others notice nothing."""
import collections
import signal
import time

import msgpack
import zmq

import harness

LONG = ("--max-model-len", "4096")  # thousands of tokens: a request is caught in mid-stream
FOREVER = {"prompt": "Once upon a time", "ignore_eos": True, "temperature": 0}
NOTICED_S_MAX = 5
BUSY_S = 3  # what a loaded machine may add to a bound


def started(raw, message):
    """Sends a generate request and waits until its first tokens have come."""
    raw.send(dict(message, t="generate"))
    while True:
        reply = raw.reply(20)
        assert reply is not None and reply["t"] != "error", reply
        if reply["t"] == "delta" and reply["ids"]:
            return


class Leaving(harness.SharedCase):
    OPTIONS = (*LONG, "--max-num-seqs", "1")

    def test_in_mid_stream(self):
        raw = harness.Raw(self.shared.endpoint)
        with raw:
            started(raw, {"id": "x", **FOREVER})
            self.assertEqual(self.shared.status()["running"], 1)
        self.shared.wait_idle(NOTICED_S_MAX)
        self.assertIn("request x: its client went away", self.shared.stderr)

    def test_in_mid_stream_without_a_word(self):
        client = self.own(harness.Process([
            harness.program(), "generate", "--rpc", self.shared.endpoint, "--prompt", "One day",
            "--ignore-eos", "--max-tokens", "4000"]))
        harness.wait_until(lambda: self.shared.status()["running"], 10, "running")
        client.signal(signal.SIGSTOP)  # like a cable that was pulled: no word, no reset
        self.shared.wait_idle(NOTICED_S_MAX + BUSY_S)
        client.signal(signal.SIGCONT)
        self.assertEqual(client.wait(), 3, client.stderr)
        self.assertIn(self.shared.endpoint, client.stderr)

    def test_while_queued(self):
        with harness.Raw(self.shared.endpoint) as raw:
            started(raw, {"id": "first", **FOREVER})
            with harness.Raw(self.shared.endpoint) as other:
                for i in range(3):
                    reply = other.ask({"t": "generate", "id": f"waits{i}", **FOREVER})
                    self.assertEqual(reply["t"], "accepted")
                self.assertEqual(self.shared.status()["queued"], 3)
            harness.wait_until(lambda: self.shared.status()["queued"] == 0, NOTICED_S_MAX,
                               "queue empty")
            self.assertEqual(self.shared.status()["running"], 1)  # the first one goes on
        self.shared.wait_idle(NOTICED_S_MAX)

    def test_abort(self):
        client = self.client()
        running, queued = client.submit(**FOREVER), client.submit(**FOREVER)
        replies = client.replies(running)
        while next(replies)["t"] != "delta":
            pass
        client.abort(queued)
        waited = client.result(queued)
        self.assertEqual((waited["finish_reason"], waited["ids"]), ("abort", []))
        client.abort(running)
        *_, end = replies
        self.assertEqual((end["t"], end["finish_reason"]), ("final", "abort"))
        self.assertLess(end["usage"]["completion_tokens"], 4000)
        self.shared.wait_idle(2)
        self.assertEqual(len(client.generate(prompt="One", max_tokens=3)["ids"]), 3)

    def test_abort_of_another_client_is_refused(self):
        with harness.Raw(self.shared.endpoint) as raw, harness.Raw(self.shared.endpoint) as other:
            started(raw, {"id": "mine", **FOREVER})
            reply = other.ask({"t": "abort", "id": "mine"})
            self.assertEqual((reply["t"], reply["error"]), ("error", "not_found"))
            self.assertEqual(self.shared.status()["running"], 1)
        self.shared.wait_idle(NOTICED_S_MAX)


class Crowds(harness.SharedCase):
    MODEL = harness.golden("dense_tied_r1")
    OPTIONS = ("--load-format", "dummy", "--max-num-seqs", "64", "--max-queued", "4000")

    def test_thousands_of_requests_on_one_connection(self):
        count = 2000
        with harness.Raw(self.shared.endpoint, RCVHWM=0, SNDHWM=0) as raw:
            for i in range(count):
                raw.send({"t": "generate", "id": str(i), "ids": [1 + i % 300, 7], "max_tokens": 4,
                          "temperature": 0, "ignore_eos": True})
            ids, finals = collections.defaultdict(list), collections.Counter()
            end = time.monotonic() + 60
            while len(finals) < count and time.monotonic() < end:
                reply = raw.reply(10)
                self.assertIsNotNone(reply)
                self.assertIn(reply["t"], ("accepted", "delta", "final"), reply)
                if reply["t"] == "delta":
                    self.assertNotIn(reply["id"], finals, "a delta after the end")
                    ids[reply["id"]] += reply["ids"]
                elif reply["t"] == "final":
                    finals[reply["id"]] += 1
            self.assertIsNone(raw.reply(0.3), "a reply after the last end")
        self.assertEqual(set(finals.values()), {1})
        self.assertEqual({len(tokens) for tokens in ids.values()}, {4})
        for i in range(300, count):  # the same prompt, the same answer, whoever was beside it
            self.assertEqual(ids[str(i)], ids[str(i % 300)])
        self.assertEqual(self.shared.wait_idle()["requests_failed"], 0)

    def test_connections_come_and_go(self):
        for i in range(60):
            with harness.Raw(self.shared.endpoint) as raw:
                if i % 2 == 0:
                    self.assertEqual(raw.ask({"t": "generate", "id": "1", "ids": [5]})["t"],
                                     "accepted")
                else:
                    raw.send(msgpack.packb({"t": "generate", "id": "1", "ids": [5]}))
        self.shared.wait_idle()
        harness.wait_until(lambda: self.shared.status()["clients_connected"] <= 2, 5,
                           "connections closed")


class Overload(harness.Case):
    def test_a_full_queue_is_told(self):
        server = self.server(harness.DEMO, *LONG, "--max-num-seqs", "1", "--max-queued", "2")
        with harness.Raw(server.endpoint) as raw:
            started(raw, {"id": "runs", **FOREVER})
            for i in range(6):
                raw.send({"t": "generate", "id": f"w{i}", **FOREVER})
            answers = {}
            while len(answers) < 6:
                reply = raw.reply()
                self.assertIsNotNone(reply)
                if reply["t"] != "delta":
                    answers[reply["id"]] = reply
            self.assertEqual([answers[f"w{i}"]["t"] for i in range(6)],
                             ["accepted"] * 2 + ["error"] * 4)
            for i in range(2, 6):
                self.assertEqual(answers[f"w{i}"]["error"], "overloaded")
                self.assertIn("the limit is 2", answers[f"w{i}"]["text"])
        server.wait_idle()
        # generate waits for its turn: all of these are answered although two may wait
        lines = "".join('{"ids":[%d],"max_tokens":3}\n' % (i + 5) for i in range(12))
        result = harness.run("generate", "--rpc", server.endpoint, "--requests", "-", "--json",
                             stdin=lines)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(len(harness.json_lines(result.stdout)), 12)

    def test_a_client_that_does_not_read(self):
        server = self.server(harness.DEMO, *LONG, "--max-num-seqs", "40")
        slow = self.own(harness.Raw(server.endpoint, RCVHWM=1, RCVBUF=4096))
        for i in range(24):
            slow.send({"t": "generate", "id": f"slow{i}", **FOREVER})
        with server.client() as client:
            answer = client.generate(prompt="The king", temperature=0, ignore_eos=True,
                                     max_tokens=150)
            self.assertEqual(len(answer["ids"]), 150)
            harness.wait_until(lambda: client.status()["running"] == 0, 25, "slow client ended")
        self.assertRegex(server.stderr,
                         "request slow[0-9]+: its client (does not read|went away)")
        server.wait_idle()
        self.assertEqual(server.drain(), 0)


class Pings(harness.Case):
    def test_are_not_shown(self):
        """However slow a server is, and a ping of it comes at any place."""
        context = zmq.Context()
        self.addCleanup(context.destroy, linger=0)
        router = context.socket(zmq.ROUTER)
        port = router.bind_to_random_port("tcp://127.0.0.1")
        with harness.deltamesh.Client(f"tcp://127.0.0.1:{port}") as client:
            request, kinds = client.submit(ids=[1]), ("accepted", "delta", "final")
            client_id, _ = router.recv_multipart()
            for kind in ("ping", kinds[0], "ping", "ping", kinds[1], "ping", kinds[2]):
                router.send_multipart([client_id, msgpack.packb({"t": kind, "id": request})])
            self.assertEqual(tuple(reply["t"] for reply in client.replies(request)), kinds)


if __name__ == "__main__":
    harness.main()
