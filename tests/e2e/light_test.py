#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""light_test.py -- one of everything with a tiny model of dummy weights over two ranks: light
enough for a build with the thread sanitizer, whose reports would show in the programs' stderr and
in their exit codes."""
import os
import signal

import harness

TINY = harness.golden("dense_tied_r1")
OPTIONS = ("--load-format", "dummy", "--max-num-batched-tokens", "128")


class Light(harness.Case):
    def start(self, *more):
        return self.server(TINY, *OPTIONS, *more, ranks=2)

    def assert_clean(self, server):
        self.assertNotIn("Sanitizer", server.stderr)
        self.assert_gone(server)

    def test_requests_come_together_leave_and_drain(self):
        server = self.start()
        with server.client() as client:
            alone = client.generate(ids=[3] * 200, max_tokens=12, temperature=0, ignore_eos=True)
            asked = [client.submit(ids=[3 + i] * (200 if i == 0 else 5 + 9 * i), max_tokens=12,
                                   temperature=i % 2, ignore_eos=True, seed=i) for i in range(10)]
            with harness.Raw(server.endpoint) as raw:
                raw.ask({"t": "generate", "id": "leaves", "ids": [5], "ignore_eos": True})
                reply = raw.ask(b"\xc1")
                while reply["t"] in ("accepted", "delta", "final"):  # of the one that leaves
                    reply = raw.reply()
                self.assertEqual(reply["t"], "error")
            answers = [client.result(request) for request in asked]
            self.assertEqual(answers[0]["ids"], alone["ids"])
            self.assertEqual([len(answer["ids"]) for answer in answers], [12] * 10)
            server.wait_idle(20)
            last = client.submit(ids=[1, 2], max_tokens=20, ignore_eos=True)
            self.assertEqual(next(client.replies(last))["t"], "accepted")
            server.signal(signal.SIGTERM)
            self.assertEqual(len(client.result(last)["ids"]), 20)
        self.assertEqual(server.wait(), 0, server.stderr)
        self.assert_clean(server)

    def test_aborts_of_what_waits_and_what_runs(self):
        server = self.start("--max-num-seqs", "4", "--max-model-len", "4096")
        with server.client() as client:
            held = [client.submit(ids=[3 + i], max_tokens=4000, ignore_eos=True,
                                  speculative_tokens=0) for i in range(4)]
            while next(client.replies(held[-1]))["t"] != "delta":
                pass  # it has the last slot
            waits = client.submit(ids=[9], ignore_eos=True)
            client.abort(waits)
            for request in held:
                client.abort(request)
            answer = client.result(waits)
            self.assertEqual((answer["finish_reason"], answer["ids"]), ("abort", []))
            ends = [client.result(request)["finish_reason"] for request in held]
            self.assertEqual(ends, ["abort"] * 4)
            server.wait_idle(20)
            self.assertEqual(len(client.generate(ids=[9], max_tokens=12, ignore_eos=True)["ids"]),
                             12)
        self.assertEqual(server.drain(), 0, server.stderr)
        self.assert_clean(server)

    def test_a_rank_dies(self):
        server = self.start("--max-num-seqs", "2")
        worker = server.workers()[0]
        with server.client() as client:
            # So many that the last still waits when the rank dies.
            requests = [client.submit(ids=[5 + i], ignore_eos=True) for i in range(40)]
            while next(client.replies(requests[0]))["t"] != "delta":
                pass
            self.assertEqual(next(client.replies(requests[-1]))["t"], "accepted")
            os.kill(worker, signal.SIGKILL)
            with self.assertRaises(harness.deltamesh.Error) as caught:
                client.result(requests[-1])
            self.assertEqual(caught.exception.code, "failed")
        self.assertEqual(server.wait(), 4, server.stderr)
        self.assert_clean(server)


if __name__ == "__main__":
    harness.main()
