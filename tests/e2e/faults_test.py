#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""faults_test.py -- ends: drains, signals, and ranks, coordinators and servers that are killed or
stopped while text streams. Every client hears of it, the exit code and the last lines say what it
was, and no process and no shared memory stays."""
import os
import signal
import threading
import time

import harness

LONG = ("--max-model-len", "4096")
# To the end of the context, and without drafts: seconds, also on a machine with nothing else to do.
FOREVER = {"prompt": "Once upon a time", "ignore_eos": True, "temperature": 0,
           "speculative_tokens": 0}
TOKENS = 3000        # of a stream that is to end, but not before a drain
TOLD_S_MAX = 6       # until every client has its error when a process dies
HEARTBEAT_S_MAX = 4  # a rank that is silent for so long is dead
BUSY_S = 4           # what a loaded machine may add to a bound
DRAIN_S_MAX = 40     # 30 until serve gives a drain up, and the rest


class Stream(threading.Thread):
    """A client with one endless request, and what became of it."""

    def __init__(self, server, **fields):
        super().__init__(daemon=True)
        self.server, self.fields = server, {**FOREVER, **fields}
        self.tokens, self.answer, self.error, self.ended = 0, None, None, None
        self.start()

    def run(self):
        try:
            with self.server.client() as client:
                for reply in client.replies(client.submit(**self.fields)):
                    if reply["t"] == "delta":
                        self.tokens += len(reply["ids"])
                    self.answer = reply
        except Exception as error:  # pylint: disable=broad-except
            self.error = error
        self.ended = time.monotonic()


def wait_begun(server, *streams):
    """Waits until all are in mid-stream; one that has ended fails at once, with its reason."""
    def look():
        for stream in streams:
            if stream.ended is not None:
                raise AssertionError(f"a stream has ended: {stream.error or stream.answer}")
        return all(stream.tokens > 5 for stream in streams)
    try:
        harness.wait_until(look, 20, "streaming")
    except AssertionError as problem:
        raise AssertionError(f"{problem}; tokens of the streams: "
                             f"{[stream.tokens for stream in streams]}\n{server.stderr}") from None


class Faults(harness.Case):
    def setUp(self):
        self.segments = set()

    def streaming(self, ranks=2, count=3, options=LONG):
        """A server and `count` clients in mid-stream."""
        server = self.server(harness.DEMO, *options, ranks=ranks)
        for pid in server.workers():
            self.segments |= harness.mapped_segments(pid)
        streams = [Stream(server) for _ in range(count)]
        wait_begun(server, *streams)
        return server, streams

    def end_of(self, streams, since, seconds):
        """Waits for the ends of all streams, each within `seconds` of `since`."""
        for stream in streams:
            stream.join(seconds + BUSY_S)
            self.assertIsNotNone(stream.ended, "a client still waits")
            self.assertLess(stream.ended - since, seconds + BUSY_S)

    def assert_nothing_stays(self, server):
        self.assert_gone(server)
        self.assertTrue(self.segments or server.ranks == 1, "ranks that share nothing")
        self.assertEqual(self.segments & harness.shared_memory(), set())

    def last_words(self, server):
        return server.stderr.splitlines()[-12:]


class Drains(Faults):
    def test_sigterm_finishes_what_runs_and_refuses_the_rest(self):
        server, _ = self.streaming(count=0)
        with server.client() as late:
            running = Stream(server, max_tokens=TOKENS)
            wait_begun(server, running)
            server.signal(signal.SIGTERM)
            # the coordinator's words: serve has its own before the coordinator hears of it
            harness.wait_until(lambda: "draining: no new" in server.stderr, 5, "draining")
            with self.assertRaises(harness.deltamesh.Error) as caught:
                late.generate(prompt="Too late", max_tokens=1)
            self.assertEqual(caught.exception.code, "overloaded",
                             f"{caught.exception.text}\n{server.stderr}")
            self.assertIn("drains", caught.exception.text)
            self.assertEqual(late.status()["state"], "draining")
            self.assertIsNone(running.ended, "the stream ended before the drain")
        self.assertEqual(server.wait(DRAIN_S_MAX), 0, server.stderr)
        running.join(10)
        self.assertIsNone(running.error, f"after {running.tokens} tokens\n{server.stderr}")
        self.assertEqual((running.tokens, running.answer["finish_reason"]), (TOKENS, "length"))
        self.assertNotIn(" error ", server.stderr)
        self.assert_nothing_stays(server)

    def test_drain_over_the_wire(self):
        server, _ = self.streaming(count=0)
        with server.client() as client:
            running = Stream(server, max_tokens=TOKENS)
            wait_begun(server, running)
            client.drain()
            self.assertIsNone(running.ended, "the stream ended before the drain")
        self.assertEqual(server.wait(DRAIN_S_MAX), 0, server.stderr)
        running.join(10)
        self.assertIsNone(running.error, f"after {running.tokens} tokens\n{server.stderr}")
        self.assertEqual((running.tokens, running.answer["finish_reason"]), (TOKENS, "length"))
        self.assertNotIn(" error ", server.stderr)
        self.assert_nothing_stays(server)

    def test_every_rank_hears_of_the_end(self):
        for _ in range(5):
            server, _ = self.streaming(count=0)
            self.assertEqual(server.drain(), 0, server.stderr)
            self.assertNotIn(" error ", server.stderr)
            self.assert_nothing_stays(server)

    def test_second_sigterm_ends_at_once(self):
        server, streams = self.streaming()
        server.signal(signal.SIGTERM)
        harness.wait_until(lambda: "draining" in server.stderr, 5, "draining")
        told = time.monotonic()
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(5 + BUSY_S), 4, server.stderr)
        self.assertIn("everything is ended now", server.stderr)
        self.end_of(streams, told, TOLD_S_MAX)
        self.assertTrue(all(stream.error is not None for stream in streams))
        self.assert_nothing_stays(server)

    def test_drain_that_takes_too_long(self):
        server, streams = self.streaming(options=(*LONG, "--drain-timeout", "1"))
        told = time.monotonic()
        self.assertEqual(server.drain(), 4, server.stderr)
        self.assertIn("the drain took too long", server.stderr)
        self.end_of(streams, told, 1 + TOLD_S_MAX)
        self.assertTrue(all(stream.error is not None for stream in streams))
        self.assert_nothing_stays(server)


class Deaths(Faults):
    def assert_told(self, server, streams, since, *parts):
        """Every client gets `failed` with these parts; serve ends with 4 and says them, too."""
        self.end_of(streams, since, TOLD_S_MAX)
        for stream in streams:
            self.assertIsNotNone(stream.error)
            self.assertEqual(stream.error.code, "failed", stream.error.text)
        self.assertEqual(server.wait(), 4, server.stderr)
        text = "\n".join(self.last_words(server))
        for part in parts:
            self.assertIn(part, text)
        errors = [line for line in server.stderr.splitlines()
                  if "error deltamesh-coordinator" in line]
        self.assertEqual(len(errors), 1, errors)
        self.assert_nothing_stays(server)

    def test_a_killed_rank(self):
        for ranks, victim in ((1, 0), (2, 1)):
            server, streams = self.streaming(ranks=ranks)
            client = self.generating(server, len(streams))
            pid = server.workers()[victim]
            since = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            self.assert_told(server, streams, since, f"pid {pid}", "killed by signal 9")
            self.assertEqual(client.wait(), 4, client.stderr)
            self.assertIn("failed: group 0", client.stderr)

    def test_a_killed_rank_of_an_idle_server(self):
        server, _ = self.streaming(count=0)
        pid = server.workers()[0]
        os.kill(pid, signal.SIGKILL)
        self.assert_told(server, [], time.monotonic(), f"pid {pid}", "killed by signal 9")

    def test_a_killed_rank_seen_behind_the_others(self):
        """What ended because of it is found first; the cause is told all the same."""
        server, _ = self.streaming(count=0)
        others, victim = server.workers()[0], server.workers()[1]
        server.signal(signal.SIGSTOP)
        os.kill(victim, signal.SIGKILL)
        harness.wait_until(lambda: harness.processes()[others][1] == "Z", 20, "rank 0 ended")
        server.signal(signal.SIGCONT)
        self.assertEqual(server.wait(), 4, server.stderr)
        self.assertIn(f"rank 1 (pid {victim}) was killed by signal 9", server.stderr)
        self.assert_nothing_stays(server)

    def test_a_stopped_rank(self):
        server, streams = self.streaming()
        pid = server.workers()[1]
        since = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        self.end_of(streams, since, HEARTBEAT_S_MAX + 1)
        for stream in streams:
            self.assertEqual(stream.error.code, "failed", stream.error.text)
            self.assertIn(f"pid {pid}", stream.error.text)
        self.assertEqual(server.wait(), 4, server.stderr)
        self.assertRegex(server.stderr, rf"rank 1 \([^)]*pid {pid}\) (has been silent|is gone)")
        self.assert_nothing_stays(server)

    def generating(self, server, others):
        """`deltamesh generate` in mid-stream beside the others."""
        with server.client() as watcher:  # kept: on a loaded machine to connect may take seconds
            client = self.own(harness.Process([
                harness.program(), "generate", "--rpc", server.endpoint, "--prompt", "One day",
                "--ignore-eos", "--max-tokens", "4000", "--speculative-tokens", "0"]))
            harness.wait_until(lambda: watcher.status()["running"] == others + 1, 10, "running")
        return client

    def test_a_killed_coordinator(self):
        server, streams = self.streaming()
        client = self.generating(server, len(streams))
        since = time.monotonic()
        os.kill(server.coordinator(), signal.SIGKILL)
        self.end_of(streams, since, TOLD_S_MAX)
        for stream in streams:
            self.assertEqual(stream.error.code, "connection")
        self.assertEqual(client.wait(), 3, client.stderr)
        self.assertIn("connection", client.stderr)
        self.assertEqual(server.wait(), 4, server.stderr)
        self.assertIn("the coordinator", server.stderr)
        self.assertIn("killed by signal 9", server.stderr)
        self.assert_nothing_stays(server)

    def test_a_killed_serve_takes_its_children_along(self):
        server, streams = self.streaming()
        since = time.monotonic()
        server.signal(signal.SIGKILL)
        self.end_of(streams, since, TOLD_S_MAX)
        self.assertEqual(server.wait(), -signal.SIGKILL)
        self.assert_nothing_stays(server)

    def test_a_rank_that_is_told_to_end(self):
        server, streams = self.streaming()
        since = time.monotonic()
        os.kill(server.workers()[0], signal.SIGTERM)
        self.end_of(streams, since, TOLD_S_MAX)
        self.assertTrue(all(stream.error is not None for stream in streams))
        self.assertEqual(server.wait(), 4, server.stderr)
        self.assertIn("SIGTERM", server.stderr)
        self.assert_nothing_stays(server)


class Parts(Faults):
    def test_workers_end_with_their_coordinator(self):
        coordinator = self.own(harness.Process(
            [harness.program("deltamesh-coordinator"), "--model", harness.DEMO, "--tp", "2",
             "--rpc", "tcp://127.0.0.1:0", "--http", "off", *harness.SMALL]))
        endpoint = coordinator.line("workers ").split()[1]
        workers = [self.own(harness.Process(
            [harness.program("deltamesh-worker-cpu"), "--coordinator", endpoint, "--model",
             harness.DEMO])) for _ in range(2)]
        coordinator.line("ready ")
        for worker in workers:
            self.segments |= harness.mapped_segments(worker.pid)
            worker.ranks = 2
        coordinator.signal(signal.SIGKILL)
        for worker in workers:
            self.assertEqual(worker.wait(8 + BUSY_S), 3, worker.stderr)
            self.assert_nothing_stays(worker)


if __name__ == "__main__":
    harness.main()
