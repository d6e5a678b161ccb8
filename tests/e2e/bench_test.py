#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench_test.py -- `deltamesh bench` as load: many streams on the demo model over the RPC door and
over HTTP, and servers that answer as other people's do."""
import http.server
import json
import threading
import time

import harness
from harness import run

LENGTHS = ("--input-len", 16, "--output-len", 16)


def bench(*words, timeout=240):
    """Runs it with --json: exit code, the objects, stderr."""
    result = run("bench", *words, "--json", timeout=timeout)
    return result.returncode, harness.json_lines(result.stdout), result.stderr


class Load(harness.SharedCase):
    RANKS = 2
    OPTIONS = ("--max-num-seqs", "64")

    def test_64_streams_300_requests(self):
        code, lines, errors = bench("--rpc", self.shared.endpoint, *LENGTHS, "--concurrency", 64,
                                    "--num-prompts", 300, "--warmup", 8)
        self.assertEqual(code, 0, errors)
        self.assertEqual(len(lines), 1)
        line = lines[0]
        self.assertEqual((line["requests"], line["failed"], line["errors"]), (300, 0, {}))
        self.assertEqual(line["prompt_tokens"], 300 * 16)
        self.assertEqual(line["vocab"], 3833)  # of the demo's tokenizer, as the server tells it
        self.assertGreater(line["completion_tokens"], 300)
        self.assertLessEqual(line["completion_tokens"], 300 * 16)
        # Little's law: what is in flight on average is at most what may be.
        in_flight = line["end_to_end_ms"]["mean"] / 1000 * 300 / line["duration_s"]
        self.assertLessEqual(in_flight, 64.001)
        self.assertGreater(in_flight, 16)
        self.shared.wait_idle()

    def test_every_token_is_counted(self):
        before = self.shared.status()
        code, lines, errors = bench("--rpc", self.shared.endpoint, *LENGTHS, "--concurrency",
                                    "1,7", "--num-prompts", 14, "--ignore-eos")
        self.assertEqual(code, 0, errors)
        self.assertEqual([line["concurrency"] for line in lines], [1, 7])
        self.assertEqual([line["completion_tokens"] for line in lines], [14 * 16] * 2)
        after = self.shared.status()
        self.assertEqual(after["tokens_out"] - before["tokens_out"], 2 * 14 * 16)
        self.assertEqual(after["tokens_in"] - before["tokens_in"], 2 * 14 * 16)

    def test_prompts_that_are_too_long_are_named(self):
        code, lines, errors = bench("--rpc", self.shared.endpoint, "--input-len", 2000,
                                    "--output-len", 1, "--concurrency", 2, "--num-prompts", 3)
        self.assertEqual(code, 2, errors)
        self.assertEqual((lines[0]["requests"], lines[0]["errors"]), (0, {"bad_input": 3}))
        self.assertIn("3 of 3", errors)


class Foreign(http.server.BaseHTTPRequestHandler):
    """Answers as OpenAI's servers do, and as they do when something is wrong."""
    protocol_version = "HTTP/1.1"
    seen = []  # bodies of requests
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def answer(self, code, body, kind="application/json"):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200 if self.path == "/v1/models" else 404, b'{"data":[{"id":"foreign"}]}')

    def chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def event(self, value):
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.seen.append((self.path, self.headers["Authorization"], body))
            number = len(self.seen)
        if body["max_tokens"] == 99:  # the unlucky run: each in its own way
            kind = number % 3
            if kind == 0:
                return self.answer(429, b'{"error":{"message":"slow down"}}')
            if kind == 1:
                self.close_connection = True
                self.begin()
                return self.event({"choices": [{"text": "a"}]})  # and not a word more
            self.begin()
            self.event({"error": {"message": "lost it"}})
            return self.chunk(b"")
        self.begin()
        for _ in range(body["max_tokens"]):
            time.sleep(0.01)
            self.event({"choices": [{"index": 0, "text": "x", "finish_reason": None}]})
        self.event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"],
                 "prompt_tokens_details": {"cached_tokens": 1}}
        self.event({"choices": [], "usage": usage})
        self.chunk(b"data: [DONE]\n\n")
        return self.chunk(b"")

    def begin(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()


class ForeignServer:
    """The handler above on a free port."""

    def __init__(self):
        Foreign.seen = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(harness.END_S_MAX)


class Http(harness.Case):
    def test_another_server(self):
        server = self.own(ForeignServer())
        code, lines, errors = bench("--url", server.url + "/v1", "--input-len", 5, "--output-len",
                                    4, "--concurrency", 8, "--num-prompts", 40, "--api-key",
                                    "secret", "--vocab", 70, "--ignore-eos")
        self.assertEqual(code, 0, errors)
        line = lines[0]
        self.assertEqual((line["requests"], line["failed"]), (40, 0))
        self.assertEqual((line["prompt_tokens"], line["completion_tokens"], line["cached_tokens"]),
                         (200, 160, 40))
        self.assertGreaterEqual(line["ttft_ms"]["median"], 10)
        self.assertGreaterEqual(line["end_to_end_ms"]["median"], 40)
        self.assertGreaterEqual(line["ttft_ms"]["mean"] + 3 * line["itl_ms"]["mean"], 40)
        self.assertEqual(len(Foreign.seen), 40)
        paths, keys, bodies = zip(*Foreign.seen)
        self.assertEqual((set(paths), set(keys)), ({"/v1/completions"}, {"Bearer secret"}))
        self.assertEqual({body["model"] for body in bodies}, {"foreign"})
        self.assertEqual({body["ignore_eos"] for body in bodies}, {True})
        self.assertEqual(len({tuple(body["prompt"]) for body in bodies}), 40)
        self.assertTrue(all(0 <= token < 70 for body in bodies for token in body["prompt"]))

    def test_whatever_goes_wrong_is_counted(self):
        server = self.own(ForeignServer())
        code, lines, errors = bench("--url", server.url, "--input-len", 2, "--output-len", 99,
                                    "--concurrency", 1, "--num-prompts", 9)
        self.assertEqual(code, 3, errors)  # that of the first: the connection broke
        self.assertEqual((lines[0]["requests"], lines[0]["failed"]), (0, 9))
        kinds = lines[0]["errors"]
        self.assertEqual((kinds["http 429"], kinds["error in stream"]), (3, 3))
        self.assertEqual(sum(kinds.values()), 9)

    def test_our_own_door(self):
        server = self.server(harness.DEMO, "--http", "127.0.0.1:0", ready=False)
        url = server.line("ready ").split("http=")[1].split()[0]
        code, lines, errors = bench("--url", url, *LENGTHS, "--concurrency", 16, "--num-prompts",
                                    64, "--ignore-eos", "--vocab", 3800)
        self.assertEqual(code, 0, errors)
        self.assertEqual((lines[0]["requests"], lines[0]["failed"]), (64, 0))
        self.assertEqual(lines[0]["prompt_tokens"], 64 * 16)
        self.assertEqual(lines[0]["completion_tokens"], 64 * 16)


if __name__ == "__main__":
    harness.main()
