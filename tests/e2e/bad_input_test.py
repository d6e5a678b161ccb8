#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bad_input_test.py -- what is refused: models that cannot be served, requests with wrong fields,
frames that are no messages, workers that do not belong. Each time the text names what, where and
the limit, and the server goes on."""
import json
import math
import os
import shutil
import subprocess
import tempfile

import msgpack

import harness
from harness import run

FRAME_BYTES_MAX = 16 << 20
WORKER_FRAME_BYTES_MAX = 4 << 20
TINY = "dense_tied_r1"


class Models(harness.Case):
    def copy(self, source, leave_out=()):
        folder = tempfile.mkdtemp(prefix="deltamesh-e2e-")
        self.addCleanup(shutil.rmtree, folder)
        for name in os.listdir(source):
            if name not in leave_out:
                os.symlink(os.path.join(source, name), os.path.join(folder, name))
        return folder

    def write(self, folder, name, value):
        path = os.path.join(folder, name)
        if os.path.islink(path):
            os.unlink(path)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(value, file)

    def read(self, folder, name):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return json.load(file)

    def assert_not_served(self, model, *parts, options=(), code=2):
        result = run("serve", "--model", model, "--backend", "cpu", "--http", "off",
                     "--rpc", "tcp://127.0.0.1:0", *options, timeout=30)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertNotIn("ready", result.stdout)
        for part in parts:
            self.assertIn(part, result.stderr)

    def test_no_such_directory(self):
        self.assert_not_served("/nonexistent/model", "/nonexistent/model", "No such file")

    def test_draft_vocabularies_that_are_none(self):
        for value in ("4097", "-1", "2147483647"):
            for more in ((), ("--dry-run",)):
                self.assert_not_served(harness.DEMO, f"--draft-vocab is {value}", "1 to 4096", "0",
                                       options=(f"--draft-vocab={value}", *more), code=1)
        self.assert_not_served(harness.DEMO, "--draft-vocab", "many",
                               options=("--draft-vocab", "many"), code=1)
        for value in ("0", "1", "4096"):
            result = run("serve", "--model", harness.DEMO, "--draft-vocab", value, "--dry-run")
            self.assertEqual(result.returncode, 0, result.stderr)

    def test_types_of_states(self):
        for option in ("--state-dtype", "--mamba-ssm-cache-dtype"):
            for value in ("float16", "fp8", ""):
                self.assert_not_served(harness.DEMO, "--state-dtype", f"'{value}'",
                                       "auto|float32|bfloat16",
                                       options=(option, value), code=1)
            for value, kind in (("auto", "f32"), ("float32", "f32"), ("bfloat16", "bf16")):
                result = run("serve", "--model", harness.DEMO, option, value, "--dry-run")
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn(f"sequences at once, {kind}\n", result.stdout)

    def test_config_without_a_field(self):
        folder = self.copy(harness.DEMO)
        config = self.read(folder, "config.json")
        del config["text_config"]["num_attention_heads"]
        self.write(folder, "config.json", config)
        self.assert_not_served(folder, "num_attention_heads", "config.json")

    def test_generation_config(self):
        folder = self.copy(harness.DEMO)
        for value in ({"temperature": "hot"}, {"temperature": -1}, {"top_k": 2.5}):
            self.write(folder, "generation_config.json", value)
            field, = value
            self.assert_not_served(folder, f"{folder}/generation_config.json: {field} is "
                                   f"{json.dumps(value[field])}; ", "is expected")

    def test_config_of_another_model(self):
        folder = self.copy(harness.DEMO)
        for name in ("qwen4_exp", "llama"):
            config = self.read(folder, "config.json")
            config["model_type"] = config["text_config"]["model_type"] = name
            self.write(folder, "config.json", config)
            self.assert_not_served(folder, name)

    def test_config_that_is_no_json(self):
        folder = self.copy(harness.DEMO, leave_out=("config.json",))
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            file.write('{"model_type": ')
        self.assert_not_served(folder, "config.json")

    def test_tokenizer_of_another_type(self):
        folder = self.copy(harness.DEMO)
        tokenizer = self.read(folder, "tokenizer.json")
        tokenizer["model"]["type"] = "WordPiece"
        self.write(folder, "tokenizer.json", tokenizer)
        self.assert_not_served(folder, "tokenizer.json", "WordPiece")

    def test_degree_that_does_not_divide(self):
        self.assert_not_served(harness.DEMO, "3", "num_attention_heads = 4", "1, 2, 4",
                               options=("--tp", "3"))

    def test_tensor_that_is_missing(self):
        folder = self.copy(harness.DEMO, leave_out=("model.safetensors",))
        self.assert_not_served(folder, "safetensors")

    def test_weights_that_are_cut_short(self):
        folder = self.copy(harness.DEMO, leave_out=("model.safetensors",))
        with open(os.path.join(harness.DEMO, "model.safetensors"), "rb") as file:
            head = file.read(1 << 20)
        with open(os.path.join(folder, "model.safetensors"), "wb") as file:
            file.write(head)
        self.assert_not_served(folder, "model.safetensors")

    def test_weights_that_are_not_numbers(self):
        folder = self.copy(harness.DEMO, leave_out=("model.safetensors",))
        with open(os.path.join(harness.DEMO, "model.safetensors"), "rb") as file:
            data = bytearray(file.read())
        size = int.from_bytes(data[:8], "little")
        first, last = json.loads(data[8:8 + size])["model.language_model.norm.weight"][
            "data_offsets"]
        data[8 + size + first:8 + size + last] = b"\xff\x7f" * ((last - first) // 2)
        with open(os.path.join(folder, "model.safetensors"), "wb") as file:
            file.write(data)
        server = self.server(folder, ranks=2)
        with server.client() as client:
            with self.assertRaises(harness.deltamesh.Error) as caught:
                client.generate(prompt="The king", max_tokens=4, temperature=0)
            self.assertIn("finite", caught.exception.text)
            self.assertEqual(client.status()["groups_ready"], 1)

    def test_lists_that_leave_no_token(self):
        server = self.server()  # with drafts: what follows a row that drew nothing is theirs
        with server.client() as client:
            for token in range(300, 2000):
                text = client.tokenize(ids=[token])["text"]
                if client.tokenize(text=text * 2)["ids"] == [token, token]:
                    break
            for fields in ({}, {"temperature": 0}, {"temperature": 1, "top_k": 0, "top_p": 0.5},
                           {"min_p": 0.1}, {"logprobs": 3}, {"n": 2}, {"repetition_penalty": 1.5},
                           {"speculative_tokens": 0}):
                with self.assertRaises(harness.deltamesh.Error) as caught:
                    client.generate(prompt="The king", max_tokens=8, allowed_token_ids=[token],
                                    bad_words=[text * 2], **fields)
                self.assertIn("no token could be drawn", caught.exception.text, fields)
            answer = client.generate(prompt="The king", max_tokens=4, temperature=0)
            self.assertGreater(answer["usage"]["completion_tokens"], 0)

    def test_port_in_use(self):
        server = self.server(harness.golden(TINY), "--load-format", "dummy")
        port = server.endpoint
        result = run("serve", "--model", harness.golden(TINY), "--load-format", "dummy",
                     "--backend", "cpu", "--http", "off", "--rpc", port, timeout=30)
        self.assertEqual(result.returncode, 4, result.stderr)
        self.assertIn(port, result.stderr)
        self.assertIn("in use", result.stderr)

    def test_options_about_drafts_that_do_nothing(self):
        """A warning each, and only one; not where something is drafted."""
        headless, none = "no multi-token-prediction head", "--speculative-tokens is 0"
        dummy = ("--load-format", "dummy")
        for model, why, options, named in (
                (TINY, headless, ("--draft-vocab", "30"), ("--draft-vocab 30",)),
                (TINY, headless, ("--draft-vocab", "30", "--speculative-tokens", "2"),
                 ("--draft-vocab 30", "--speculative-tokens 2")),
                ("dense_untied_r2", none, ("--draft-vocab", "30", "--speculative-tokens", "0"),
                 ("--draft-vocab 30",)),
                ("dense_untied_r2", "", ("--draft-vocab", "30"), ()), (TINY, "", (), ())):
            server = self.server(harness.golden(model), *dummy, *options)
            warnings = [line for line in server.stderr.splitlines() if " does nothing: " in line]
            self.assertEqual(len(warnings), len(named), warnings)
            for option in named:
                self.assertEqual(sum(option in line and why in line for line in warnings), 1,
                                 (option, warnings))
            server.close()

    def test_endpoint_off_the_loopback(self):
        result = run("serve", "--model", harness.golden(TINY), "--load-format", "dummy",
                     "--backend", "cpu", "--http", "off", "--rpc", "tcp://0.0.0.0:0", timeout=30)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("--insecure", result.stderr)


class Requests(harness.SharedCase):
    def test_prompts(self):
        client = self.client()
        refused = self.assert_refused
        refused("bad_input", "prompt", "empty", client=client, prompt="")
        refused("bad_input", "ids", "empty", client=client, ids=[])
        refused("bad_input", "prompt", "ids", "messages", client=client)
        refused("bad_input", "prompt", "ids", client=client, prompt="a", ids=[1])
        refused("bad_input", "ids", "[1]", "3832", client=client, ids=[1, 3833])
        refused("bad_input", "ids", "-1", client=client, ids=[-1])
        refused("bad_input", "1024 tokens", "1023", client=client, ids=[5] * 1024)
        refused("bad_input", "messages", client=client, messages=[])
        refused("bad_input", "role", client=client, messages=[{"content": "x"}])
        refused("bad_input", "messages", client=client, messages="hello")
        self.assertEqual(len(client.generate(ids=[5] * 1023, ignore_eos=True)["ids"]), 1)

    def test_fields(self):
        client = self.client()
        for field, value, parts in (
                ("temperature", math.nan, ("nan",)), ("temperature", math.inf, ("inf",)),
                ("temperature", -0.5, ("-0.5",)), ("temperature", "hot", ()),
                ("temperature", 1001.0, ("1001", "1000")), ("max_tokens", 0, ("0",)),
                ("max_tokens", 1.5, ()), ("max_tokens", "all", ()),
                ("seed", "lucky", ()), ("ignore_eos", 1, ()), ("stop_token_ids", [3833], ("3833",)),
                ("stop_token_ids", "x", ()),
                ("top_p", 1.5, ("1.5",)), ("min_p", -1.0, ("-1",)), ("top_k", -5, ("-5",)),
                ("speculative_tokens", 6, ("6", "5")), ("enable_thinking", "no", ())):
            self.assert_refused("bad_input", field, *parts, client=client, prompt="a",
                                **{field: value})
        self.assert_refused("limit", "stop_token_ids", "9", "8", client=client, prompt="a",
                            stop_token_ids=list(range(9)))

    def test_fields_that_are_not_served_are_refused_by_name(self):
        client = self.client()
        for field, value in (("structured_outputs", {"json": {}}), ("use_beam_search", True),
                             ("guided_json", "{}"), ("best_of", 2)):
            with self.assertRaises(harness.deltamesh.Error) as caught:
                client.generate(prompt="a", max_tokens=1, **{field: value})
            self.assertEqual(caught.exception.code, "unsupported")
            self.assertIn(field, caught.exception.text)

    def test_misspelt_field_is_named_in_the_first_reply(self):
        client = self.client()
        request = client.submit(prompt="One day", max_tokens=2, temprature=0.5, max_token=7)
        first = next(client.replies(request))
        self.assertEqual(first["t"], "accepted")
        self.assertEqual(set(first["ignored"].split(",")), {"temprature", "max_token"})
        self.assertEqual(len(client.result(request)["ids"]), 2)

    def test_text_that_is_no_utf8(self):
        with harness.Raw(self.shared.endpoint) as raw:
            bad = "t", "generate", "id", "1", "prompt"
            frame = b"\x83" + b"".join(map(msgpack.packb, bad)) + b"\xa4ab\xc3\x28"
            reply = raw.ask(frame)
            self.assertEqual((reply["t"], reply["error"]), ("error", "bad_input"), reply)
            self.assertIn("prompt", reply["text"])
            self.assertIn("UTF-8", reply["text"])

    def test_frames_that_are_no_requests(self):
        good = msgpack.packb({"t": "generate", "id": "x", "prompt": "a", "max_tokens": 1})
        frames = [b"", b"\xc1", b"\x00", b"hello", b"\xff" * 100, msgpack.packb([1, 2]),
                  msgpack.packb({}), msgpack.packb({"t": "nonsense", "id": "7"}),
                  msgpack.packb({"t": 5}), msgpack.packb({"t": "generate"}), good[:-3],
                  good + b"\x01", b"\xdf\xff\xff\xff\xff", b"\x91" * 5000,
                  msgpack.packb({"t": "generate", "id": "y" * 65, "prompt": "a"}),
                  msgpack.packb({"t": "generate", "id": "", "prompt": "a"}),
                  msgpack.packb({"t": "status"}), msgpack.packb({"t": "abort", "id": "none"})]
        with harness.Raw(self.shared.endpoint) as raw:
            for frame in frames:
                reply = raw.ask(frame)
                self.assertIsNotNone(reply, frame[:40])
                self.assertEqual(reply["t"], "error", frame[:40])
                self.assertTrue(reply["text"], frame[:40])
            self.assertEqual(raw.ask(msgpack.packb({"t": "nonsense", "id": "7"}))["id"], "7")
            self.assertIn("error", raw.ask({"t": "tokenize", "id": "z"})["text"])
            self.assertEqual(raw.ask(good)["t"], "accepted")  # and the connection still serves

    def test_taken_id(self):
        client = self.client()
        with harness.Raw(self.shared.endpoint) as raw:
            message = {"t": "generate", "id": "same", "prompt": "a", "ignore_eos": True}
            raw.send(message)
            raw.send(message)
            replies = [raw.reply(), raw.reply()]
            errors = [reply for reply in replies if reply["t"] == "error"]
            self.assertEqual([error["error"] for error in errors], ["bad_input"])
            self.assertIn("'same'", errors[0]["text"])
            self.assertTrue(client.generate(prompt="b", max_tokens=1)["ids"])

    def test_oversized_frame(self):
        client = self.client()
        with self.assertRaises(harness.deltamesh.Error) as caught:
            client.generate(prompt="a" * (FRAME_BYTES_MAX + 1))
        self.assertIn(str(FRAME_BYTES_MAX), caught.exception.text)
        result = run("generate", "--rpc", self.shared.endpoint, "--requests", "-",
                     stdin='{"prompt":"' + "a" * (FRAME_BYTES_MAX + 1) + '"}\n')
        self.assertEqual(result.returncode, 2, result.stderr[:300])
        self.assertIn(str(FRAME_BYTES_MAX), result.stderr)
        before = client.status()["frames_oversized"]
        with harness.Raw(self.shared.endpoint) as raw:
            reply = raw.ask(b"\xc6" + b"\x00" * (FRAME_BYTES_MAX + 100))
            self.assertEqual((reply["t"], reply["error"]), ("error", "limit"))
            self.assertIn(str(FRAME_BYTES_MAX), reply["text"])
            raw.socket.send_multipart([b"\x80", b"\x80"])
            self.assertEqual(raw.reply()["text"],
                             "the message was dropped: its frames are above the limit of 1")
        self.assertEqual(client.status()["frames_oversized"], before + 1)
        with harness.Raw(self.shared.endpoint) as raw:  # far too large: the connection is closed
            raw.send(b"\xc6" + b"\x00" * (2 * FRAME_BYTES_MAX + 100))
            self.assertIsNone(raw.reply(1))
        self.assertEqual(len(client.generate(prompt="a", max_tokens=1)["ids"]), 1)

    def test_long_text_is_refused_by_its_tokens(self):
        self.assert_refused("bad_input", "tokens", "1023", client=self.client(),
                            prompt="word " * 100000)

    def test_a_stranger_at_the_door_of_workers(self):
        coordinator = self.own(harness.Process(
            [harness.program("deltamesh-coordinator"), "--model", harness.DEMO, "--rpc",
             "tcp://127.0.0.1:0", "--http", "off", *harness.SMALL]))
        with harness.Raw(coordinator.line("workers ").split()[1]) as raw:
            for count in (1, 2):
                raw.send(bytes(WORKER_FRAME_BYTES_MAX + 1))
                text = f"dropped a message above the limit of {WORKER_FRAME_BYTES_MAX} bytes; " \
                       f"{count} so far"
                harness.wait_until(lambda: "a stranger: " + text in coordinator.stderr, 10, text)
            raw.socket.send_multipart([b"\x80", b"\x80"])
            text = "a stranger: dropped a message of several frames; 1 so far"
            harness.wait_until(lambda: text in coordinator.stderr, 10, text)


class NoTokenizer(harness.SharedCase):
    MODEL = harness.golden(TINY)
    OPTIONS = ("--load-format", "dummy")

    def test_text_is_refused_and_ids_are_served(self):
        client = self.client()
        self.assert_refused("unsupported", "prompt", "tokenizer", client=client, prompt="Hello")
        self.assert_refused("unsupported", "messages", "tokenizer", client=client,
                            messages=[{"role": "user", "content": "Hello"}])
        with self.assertRaises(harness.deltamesh.Error) as caught:
            client.tokenize(text="Hello")
        self.assertEqual(caught.exception.code, "unsupported")
        answer = client.generate(ids=[1, 2, 3], max_tokens=4, temperature=0)
        self.assertEqual((len(answer["ids"]), answer["text"]), (4, ""))

    def test_a_worker_that_does_not_belong_is_refused(self):
        coordinator = self.own(harness.Process(
            [harness.program("deltamesh-coordinator"), "--model", self.MODEL, "--rpc",
             "tcp://127.0.0.1:0", "--http", "off", *harness.SMALL]))
        endpoint = coordinator.line("workers ").split()[1]

        def worker(model):
            return subprocess.run(
                [harness.program("deltamesh-worker-cpu"), "--coordinator", endpoint, "--model",
                 model, "--load-format", "dummy"], stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, timeout=30, check=False)
        other = worker(harness.golden("dense_untied_r2"))
        self.assertEqual(other.returncode, 2, other.stderr)
        self.assertIn(b"refused this worker: model config", other.stderr)
        own = self.own(harness.Process(
            [harness.program("deltamesh-worker-cpu"), "--coordinator", endpoint, "--model",
             self.MODEL, "--load-format", "dummy"]))
        coordinator.line("ready ")
        third = worker(self.MODEL)
        self.assertNotEqual(third.returncode, 0)
        self.assertIn(b"every group has its workers", third.stderr)
        coordinator.signal(harness.signal.SIGTERM)
        self.assertEqual(coordinator.wait(), 0, coordinator.stderr)
        self.assertEqual(own.wait(), 0, own.stderr)


if __name__ == "__main__":
    harness.main()
