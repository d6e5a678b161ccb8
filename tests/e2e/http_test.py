#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""http_test.py -- the HTTP door with real processes: what OpenAI's clients send and read, bad
requests, many at once. Clients that misbehave or leave: http_abuse_test.py."""
import concurrent.futures
import http.client
import json
import socket
import urllib.parse

import harness

PROMPT = "Once upon a time"
GREEDY = {"prompt": PROMPT, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "What is 7 + 5?"}], "temperature": 0,
        "max_tokens": 60}
BODY_BYTES_MAX = 16 << 20
ABORTED = 'vllm:request_success_total{model_name="model",finished_reason="abort"}'


class Http:
    """One request at a time to a server's HTTP door."""

    def __init__(self, url, key=None, timeout=30):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.timeout = timeout

    def open(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, body=data, headers=self.headers)
        return connection, connection.getresponse()

    def ask(self, method, path, body=None):
        """(code, headers, body as JSON where it is JSON, else text)."""
        connection, response = self.open(method, path, body)
        text = response.read().decode()
        connection.close()
        is_json = response.getheader("Content-Type") == "application/json"
        return response.status, response.headers, json.loads(text) if is_json else text

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, body):
        return self.ask("POST", path, body)

    def events(self, path, body):
        """The JSON of every event of a stream, which must end in [DONE]."""
        connection, response = self.open("POST", path, {**body, "stream": True})
        assert response.status == 200, response.read()
        assert response.getheader("Content-Type").startswith("text/event-stream")
        found = [line[6:] for line in response.read().decode().split("\n\n") if line]
        connection.close()
        assert found[-1] == "[DONE]", found[-1]
        return [json.loads(event) for event in found[:-1]]

    def raw(self):
        return socket.create_connection((self.host, self.port), timeout=self.timeout)


def head(path, length, extra=""):
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{extra}\r\n").encode()


def metric(client, name, page=None):
    """The first value of that name on the page of metrics, a new one unless it is given."""
    lines = (page or client.get("/metrics")[2]).splitlines()
    values = [line.split()[-1] for line in lines if line.startswith((name + "{", name + " "))]
    assert values, f"{name} is not among the metrics"
    return float(values[0])


def joined(events, pick):
    return "".join(pick(event["choices"][0]) for event in events if event["choices"])


class Completions(harness.SharedCase):
    def setUp(self):
        self.http = Http(self.shared.url)

    def complete(self, **fields):
        code, _, answer = self.http.post("/v1/completions", {**GREEDY, **fields})
        self.assertEqual(code, 200, answer)
        return answer

    def text(self, **fields):
        return self.complete(**fields)["choices"][0]["text"]

    def test_same_text_as_the_other_door(self):
        with self.shared.client() as client:
            other = client.generate(prompt=PROMPT, max_tokens=40, temperature=0)
        answer = self.complete(max_tokens=40, speculative_tokens=0)
        choice = answer["choices"][0]
        self.assertEqual(choice["text"], other["text"])
        self.assertEqual((choice["index"], choice["finish_reason"]), (0, "length"))
        self.assertEqual(answer["usage"], {
            "prompt_tokens": other["prompt_tokens"], "completion_tokens": 40,
            "total_tokens": other["prompt_tokens"] + 40,
            "prompt_tokens_details": {"cached_tokens": 0}, "target_steps": 40, "drafted": 0,
            "accepted": 0})

    def test_default_of_16_tokens(self):
        self.assertEqual(self.complete()["usage"]["completion_tokens"], 16)

    def test_stream_is_the_answer(self):
        events = self.http.events("/v1/completions", {
            **GREEDY, "max_tokens": 30, "stream_options": {"include_usage": True}})
        self.assertGreater(len(events), 30 // 6, "not streamed")  # a step draws up to 6 tokens
        self.assertEqual(joined(events, lambda choice: choice["text"]), self.text(max_tokens=30))
        self.assertEqual(events[-1]["choices"], [])
        self.assertEqual(events[-1]["usage"]["completion_tokens"], 30)
        reasons = [event["choices"][0]["finish_reason"] for event in events[:-1]]
        self.assertEqual(set(reasons[:-1]), {None})
        self.assertEqual(reasons[-1], "length")
        self.assertEqual(len({event["id"] for event in events}), 1)

    def test_usage_in_every_chunk(self):
        events = self.http.events("/v1/completions", {
            **GREEDY, "max_tokens": 8, "stream_options": {
                "include_usage": True, "continuous_usage_stats": True}})
        counts = [event["usage"]["completion_tokens"] for event in events]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual((counts[0], counts[-1]), (1, 8))

    def test_prompts_of_every_kind(self):
        ids = self.http.post("/tokenize", {"prompt": PROMPT})[2]["tokens"]
        alone = self.text()
        self.assertEqual(self.text(prompt=ids), alone)
        other = self.text(prompt="The little fox")
        answer = self.complete(prompt=[PROMPT, "The little fox", PROMPT])
        self.assertEqual([choice["text"] for choice in answer["choices"]], [alone, other, alone])
        self.assertEqual([choice["index"] for choice in answer["choices"]], [0, 1, 2])
        answer = self.complete(prompt=[ids, ids])
        self.assertEqual([choice["text"] for choice in answer["choices"]], [alone, alone])
        self.assertEqual(answer["usage"]["prompt_tokens"], 2 * len(ids))
        self.assertEqual(answer["usage"]["completion_tokens"], 32)

    def test_stream_of_several_prompts(self):
        events = self.http.events("/v1/completions",
                                  {**GREEDY, "prompt": [PROMPT, "The little fox"]})
        texts = ["", ""]
        for event in events:
            texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
        self.assertEqual(texts, [self.text(), self.text(prompt="The little fox")])

    def test_stop_strings_cut_exactly(self):
        whole = self.text(max_tokens=40)
        for begin, end in ((3, 4), (5, 12), (11, 13), (20, 38)):
            stop = whole[begin:end]
            cut = whole[:whole.index(stop)]
            for stream in (False, True):
                if stream:
                    events = self.http.events("/v1/completions",
                                              {**GREEDY, "max_tokens": 40, "stop": ["@@", stop]})
                    text = joined(events, lambda choice: choice["text"])
                    last = events[-1]["choices"][0]
                else:
                    last = self.complete(max_tokens=40, stop=["@@", stop])["choices"][0]
                    text = last["text"]
                self.assertEqual(text, cut, stop)
                self.assertEqual((last["finish_reason"], last["stop_reason"]), ("stop", stop))
        kept = self.text(max_tokens=40, stop=whole[5:12], include_stop_str_in_output=True)
        self.assertEqual(kept, whole[:12])
        self.shared.wait_idle()

    def test_stop_string_ends_the_work(self):
        before = metric(self.http, "vllm:generation_tokens_total")
        answer = self.complete(max_tokens=900, ignore_eos=True, stop=self.text()[8:14])
        self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
        self.assertLess(answer["usage"]["completion_tokens"], 16)
        drawn = metric(self.http, "vllm:generation_tokens_total") - before
        self.assertLess(drawn, 450)  # 16 for the stop string, and what was late

    def test_min_tokens_put_stops_off(self):
        whole = self.complete(max_tokens=30)
        text = whole["choices"][0]["text"]
        early = self.complete(max_tokens=30, stop=text[3:6])
        late = self.complete(max_tokens=30, stop=text[3:6], min_tokens=20)
        self.assertLess(early["usage"]["completion_tokens"], 20)
        self.assertGreaterEqual(late["usage"]["completion_tokens"], 20)
        self.assertTrue(text.startswith(late["choices"][0]["text"]))

    def test_no_drafts_when_none_are_wanted(self):
        # A server that drafts always: one that has the choice may take none for itself.
        server = self.server(harness.DEMO, "--speculative-tokens", "3")
        self.http = Http(server.url)

        def drafted():
            server.wait_idle()
            return metric(self.http, "vllm:spec_decode_num_draft_tokens_total")
        before = drafted()
        plain = self.text(max_tokens=40, speculative_tokens=0)
        self.assertEqual(drafted(), before)
        self.assertEqual(self.text(max_tokens=40), plain)
        self.assertGreater(drafted(), before)

    def test_stop_ids_and_token_ids(self):
        choice = self.complete(max_tokens=20, return_token_ids=True)["choices"][0]
        self.assertEqual(len(choice["token_ids"]), 20)
        stop = choice["token_ids"][7]
        first = choice["token_ids"].index(stop)
        cut = self.complete(max_tokens=20, return_token_ids=True, stop_token_ids=[stop])
        self.assertEqual(cut["choices"][0]["token_ids"], choice["token_ids"][:first + 1])
        self.assertEqual(cut["choices"][0]["finish_reason"], "stop")
        text = self.http.post("/detokenize", {"tokens": choice["token_ids"][:first]})[2]["prompt"]
        self.assertEqual(cut["choices"][0]["text"], text)
        events = self.http.events("/v1/completions",
                                  {**GREEDY, "max_tokens": 20, "return_token_ids": True})
        ids = [token for event in events for token in event["choices"][0].get("token_ids", [])]
        self.assertEqual(ids, choice["token_ids"])

    def test_seed_draws_the_same_again(self):
        fields = {"temperature": 1, "max_tokens": 24}
        texts = [self.text(seed=seed, **fields) for seed in (1, 1, 2, -7)]
        self.assertEqual(texts[0], texts[1])
        self.assertEqual(len(set(texts)), 3)

    def test_fields_that_ask_for_nothing(self):
        silent = {"n": 1, "best_of": 1, "logprobs": None, "echo": False, "suffix": "", "user": "me",
                  "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0, "top_p": 1,
                  "top_k": -1, "min_p": 0, "response_format": {"type": "text"}, "model": "model"}
        self.assertEqual(self.text(**silent), self.text())
        connection, response = self.http.open("POST", "/v1/completions",
                                              {**GREEDY, "frob": 1, "a\r\nb": 2})
        self.assertEqual(response.getheader("X-Ignored-Fields"), "frob,a??b")
        connection.close()


class Chat(harness.SharedCase):
    def setUp(self):
        self.http = Http(self.shared.url)

    def test_thought_and_answer(self):
        code, _, answer = self.http.post("/v1/chat/completions", CHAT)
        self.assertEqual(code, 200, answer)
        message = answer["choices"][0]["message"]
        self.assertIn("12", message["content"])
        self.assertNotIn("</think>", json.dumps(message))
        self.assertGreater(len(message["reasoning_content"]), 5)
        self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
        events = self.http.events("/v1/chat/completions", CHAT)
        self.assertEqual(events[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        for name in ("content", "reasoning_content"):
            text = joined(events, lambda choice, name=name: choice["delta"].get(name, ""))
            self.assertEqual(text, message[name])
        self.assertEqual(events[-1]["choices"][0]["finish_reason"], "stop")

    def test_without_thinking(self):
        fields = {**CHAT, "chat_template_kwargs": {"enable_thinking": False}}
        message = self.http.post("/v1/chat/completions", fields)[2]["choices"][0]["message"]
        self.assertIn("12", message["content"])
        self.assertNotIn("reasoning_content", message)

    def test_unseparated(self):
        fields = {**CHAT, "separate_reasoning": False}
        message = self.http.post("/v1/chat/completions", fields)[2]["choices"][0]["message"]
        self.assertIn("</think>", message["content"])

    def test_limit_by_its_newer_name(self):
        fields = {key: value for key, value in CHAT.items() if key != "max_tokens"}
        answer = self.http.post("/v1/chat/completions", {**fields, "max_completion_tokens": 5})[2]
        self.assertEqual(answer["usage"]["completion_tokens"], 5)
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")


class Server(harness.SharedCase):
    def setUp(self):
        self.http = Http(self.shared.url)

    def test_models_and_health(self):
        self.assertEqual([model["id"] for model in self.http.get("/v1/models")[2]["data"]],
                         ["model"])
        for path in ("/health", "/health/ready", "/health/live", "/version"):
            code, headers, _ = self.http.get(path)
            self.assertEqual(code, 200, path)
            self.assertEqual(len(headers["X-Request-Id"]), 32)

    def test_the_client_names_its_request(self):
        for given, taken in (("load-test/7:a.b_c", True), ("x" * 128, True), ("x" * 129, False),
                             ("a b", False), ("a\"b", False)):
            self.http.headers["X-Request-Id"] = given
            code, headers, answer = self.http.post("/v1/completions", {"prompt": 5})
            self.assertEqual(code, 400)
            self.assertEqual(headers["X-Request-Id"] == given, taken, given)
            self.assertEqual(answer["error"]["request_id"], headers["X-Request-Id"])
        self.http.headers["X-Request-Id"] = "same"
        ids = [self.http.post("/v1/completions", {**GREEDY, "max_tokens": 1})[2]["id"]
               for _ in range(2)]
        self.assertNotEqual(*ids)

    def test_tokens_there_and_back(self):
        text = "The fox said \"żółć\" 你好 🦊\n"
        _, _, answer = self.http.post("/tokenize", {"prompt": text})
        self.assertEqual(answer["count"], len(answer["tokens"]))
        with self.shared.client() as client:
            self.assertEqual(answer["tokens"], client.tokenize(text=text)["ids"])
        back = self.http.post("/detokenize", {"tokens": answer["tokens"]})[2]["prompt"]
        self.assertEqual(back, text)
        chat = self.http.post("/tokenize", {"messages": CHAT["messages"]})[2]
        self.assertGreater(chat["count"], 8)
        messages = [*CHAT["messages"], {"role": "assistant", "content": "12",
                                        "reasoning_content": "Seven and five."},
                    *CHAT["messages"]]
        dropped, kept = (self.http.post("/tokenize", {
            "messages": messages, "chat_template_kwargs": {"preserve_thinking": keep}})[2]["count"]
                         for keep in (False, True))
        self.assertGreater(kept, dropped)

    def test_metrics_move(self):
        counts = ("time_to_first_token_seconds", "e2e_request_latency_seconds",
                  "request_queue_time_seconds", "request_prefill_time_seconds",
                  "request_decode_time_seconds", "request_prompt_tokens",
                  "request_generation_tokens")
        names = ["prompt_tokens_total", "generation_tokens_total",
                 "inter_token_latency_seconds_count", "request_prompt_tokens_sum",
                 "request_generation_tokens_sum", "prefix_cache_queries_total",
                 'request_success_total{model_name="model",finished_reason="length"}',
                 'request_success_total{model_name="model",finished_reason="stop"}',
                 *[name + "_count" for name in counts]]
        ours = ["steps_total", "step_seconds_count", "rank_skew_seconds_count",
                "http_requests_total"]
        names = ["vllm:" + name for name in names] + ["deltamesh:" + name for name in ours]

        def look():
            self.shared.wait_idle()  # steps that ran ahead have been reported, too
            page = self.http.get("/metrics")[2]
            return {name: metric(self.http, name, page) for name in names}
        before = look()
        answer = self.http.post("/v1/completions", {**GREEDY, "max_tokens": 9})[2]
        with self.shared.client() as client:  # the other door's requests count as well
            client.generate(prompt=PROMPT, max_tokens=9, temperature=0)
        after = look()
        moved = [after[name] - before[name] for name in names]
        prompt = 2 * answer["usage"]["prompt_tokens"]
        self.assertEqual(moved[:8], [prompt, 18, 16, prompt, 18, prompt, 2, 0])
        self.assertEqual(moved[8:8 + len(counts)], [2] * len(counts))
        steps, device, skew, asked = moved[8 + len(counts):]
        self.assertGreaterEqual(steps, 6)  # drafts may have been taken
        self.assertLess(steps, 30)
        self.assertEqual((device, skew), (steps, steps))
        self.assertEqual(asked, 2)
        # The parts of the time are the whole, and no more than what the clock says.
        parts = [metric(self.http, f"vllm:request_{part}_time_seconds_sum")
                 for part in ("queue", "prefill", "decode")]
        whole = metric(self.http, "vllm:e2e_request_latency_seconds_sum")
        self.assertAlmostEqual(sum(parts), whole, delta=0.001)
        self.assertEqual(metric(self.http, "vllm:num_requests_running"), 0)
        self.assertEqual(metric(self.http, "deltamesh:state_slots_free"), 32)

    def assert_error(self, code, param, *parts, path="/v1/completions", body=None, method="POST"):
        got, headers, answer = self.http.ask(method, path, body)
        self.assertEqual(got, code, (body if len(str(body)) < 200 else path, answer))
        error = answer["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code", "request_id"})
        self.assertEqual(error["param"], param, answer)
        self.assertEqual(error["request_id"], headers["X-Request-Id"])
        for part in parts:
            self.assertIn(part, error["message"])
        return headers

    def test_bad_requests(self):
        for field, value, part in (
                ("prompt", 5, "prompt"), ("prompt", [], "prompt"), ("prompt", [1, "a"], "prompt"),
                ("prompt", [[1], ["a"]], "prompt"), ("prompt", [999999], "999999"),
                ("prompt", [-1], "-1"), ("prompt", ["a"] * 257, "256"),
                ("max_tokens", 0, "max_tokens is 0"), ("max_tokens", "5", "a string"),
                ("max_tokens", 1.5, "1.5"), ("temperature", -1, "temperature is -1"),
                ("temperature", "hot", "temperature"), ("top_p", 1.5, "top_p"),
                ("top_k", -2, "top_k"), ("min_p", 2, "min_p"), ("seed", 1.5, "seed"),
                ("stop", 5, "stop"), ("stop", "", "empty"), ("stop", ["a"] * 17, "16"),
                ("stop", "a" * 513, "512"), ("stop_token_ids", [1.5], "stop_token_ids"),
                ("stop_token_ids", [1 << 30], "stop_token_ids"), ("stream", "yes", "stream"),
                ("stream_options", 5, "stream_options"), ("presence_penalty", 3, "presence"),
                ("model", 5, "model"), ("n", 129, "from 1 to 128"), ("echo", 1, "echo"),
                ("logprobs", 21, "from 0 to 20"), ("top_logprobs", 2, "not served"),
                ("logit_bias", {"5": 101}, "-100 to 100"), ("logit_bias", {"x": 1}, "token ids"),
                ("logit_bias", {"999999": 1}, "999999"), ("allowed_token_ids", [-1], "allowed"),
                ("allowed_token_ids", [999999], "999999"), ("bad_words", [""], "1 to 256"),
                ("bad_words", ["a b c d e f g h i j k"], "1 to 8"),
                ("suffix", "x", "not served"), ("best_of", 2, "not served"),
                ("response_format", {"type": "json_object"}, "not served")):
            self.assert_error(400, field, part, body={**GREEDY, field: value})
        self.assert_error(404, "model", "nobody", body={**GREEDY, "model": "nobody"})
        self.assert_error(400, "prompt", "absent", body={})
        self.assert_error(400, "prompt", "accepted is 1 to", body={"prompt": [5] * 2000})
        chat = "/v1/chat/completions"
        for messages in (5, [], [{"role": "nobody", "content": "x"}], ["x"], [{}]):
            self.assert_error(400, "messages", path=chat, body={**CHAT, "messages": messages})
        self.assert_error(400, "tools", "tools[0].function", path=chat,
                          body={**CHAT, "tools": [{"type": "function"}]})
        self.assert_error(400, "tokens", path="/detokenize", body={"tokens": [-1]})
        self.assert_error(400, "prompt", path="/tokenize", body={})
        self.shared.wait_idle()

    def test_bad_bodies(self):
        for body, part in ((b"", "no JSON"), (b"{", "no JSON"), (b"[]", "no object"),
                           (b'{"prompt": "a", "prompt": "b"}', "no JSON"),
                           (b'{"prompt": "\xff"}', "no JSON"), (b"\x00\x01", "no JSON"),
                           (b"[" * 100, "deeper"), (b"[" + b"0," * (3 << 20) + b"0]", "values")):
            self.assert_error(400, None, part, body=body)
        self.assert_error(413, None, str(BODY_BYTES_MAX), body=b" " * (BODY_BYTES_MAX + 1))

    def test_bad_paths_and_methods(self):
        self.assert_error(404, None, "/nowhere", path="/nowhere", method="GET")
        headers = self.assert_error(405, None, "POST", method="GET")
        self.assertEqual(headers["Allow"], "POST")
        self.assert_error(405, None, "GET", path="/v1/models", body={})
        self.assert_error(405, None, "GET", path="/health", method="DELETE")


class Load(harness.Case):
    def test_100_streams_at_once(self):
        server = self.server()
        client = Http(server.url, timeout=120)
        wanted = client.post("/v1/completions", {**GREEDY, "max_tokens": 24})[2]

        def one(_):
            events = client.events("/v1/completions", {**GREEDY, "max_tokens": 24})
            return joined(events, lambda choice: choice["text"])
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            texts = list(pool.map(one, range(100)))
        self.assertEqual(set(texts), {wanted["choices"][0]["text"]})
        server.wait_idle()
        self.assertEqual(server.drain(), 0)
        self.assert_gone(server)

    def test_reader_that_stops_is_cut_off(self):
        # Every event repeats the model's name: 32 x 150 of them are 20 MB, more than what the
        # kernel's buffers (up to 4 MB here and 6 MB there) and the door's (1 MB) hold. Without
        # drafts, of which a step's tokens share an event.
        server = self.server(harness.DEMO, "--served-model-name", "m" * 4000)
        client = Http(server.url)
        body = json.dumps({**GREEDY, "prompt": [PROMPT] * 32, "max_tokens": 150, "stream": True,
                           "ignore_eos": True, "speculative_tokens": 0}).encode()
        slow = self.own(client.raw())
        slow.sendall(head("/v1/completions", len(body)) + body)

        def cut_off():
            code, _, answer = client.post("/v1/completions", {**GREEDY, "max_tokens": 2})
            self.assertEqual((code, answer["usage"]["completion_tokens"]), (200, 2))
            return metric(client, "deltamesh:http_clients_slow_total") == 1
        harness.wait_until(cut_off, 60, "cut off")
        server.wait_idle()
        text = b""
        while part := slow.recv(1 << 20):
            text = text[-100:] + part
        self.assertNotIn(b"[DONE]", text)

    def test_full_queue_is_429(self):
        server = self.server(harness.DEMO, "--max-num-seqs", "1", "--max-queued", "1",
                             "--max-model-len", "4096")
        client = Http(server.url, timeout=60)
        long = {**GREEDY, "max_tokens": 4000, "speculative_tokens": 0, "ignore_eos": True,
                "stream": True}
        watcher = self.own(server.client())
        first = client.open("POST", "/v1/completions", long)
        harness.wait_until(lambda: watcher.status()["running"] == 1, 5, "running")
        body = json.dumps({**long, "stream": False}).encode()
        second = self.own(client.raw())
        second.sendall(head("/v1/completions", len(body)) + body)
        harness.wait_until(lambda: watcher.status()["queued"] == 1, 5, "queued")
        code, headers, answer = client.post("/v1/completions", GREEDY)
        self.assertEqual(code, 429, answer)
        self.assertEqual(headers["Retry-After"], "1")
        self.assertEqual(answer["error"]["code"], "overloaded")
        first[0].close()
        second.close()

    def test_key(self):
        server = self.server(harness.DEMO, "--api-key", "secret")
        code, headers, answer = Http(server.url).post("/v1/completions", GREEDY)
        self.assertEqual(code, 401, answer)
        self.assertEqual(headers["WWW-Authenticate"], "Bearer")
        for key in ("secre", "secret2", "Secret", ""):
            self.assertEqual(Http(server.url, key).post("/tokenize", {"prompt": "a"})[0], 401)
        self.assertEqual(Http(server.url, "secret").post("/tokenize", {"prompt": "a"})[0], 200)
        self.assertEqual(Http(server.url).get("/health")[0], 200)

    def test_off_and_refused(self):
        server = self.server(harness.DEMO, "--http", "off")
        self.assertEqual(server.url, "off")
        model = ("serve", "--model", harness.DEMO, "--backend", "cpu", "--rpc", "tcp://127.0.0.1:0")
        for address, code, part in (("0.0.0.0:0", 2, "--api-key"), ("8000", 1, "HOST:PORT"),
                                    ("127.0.0.1:99999", 1, "99999")):
            result = harness.run(*model, "--http", address)
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertIn(part, result.stderr)

    def test_drain_ends_streams_in_order(self):
        server = self.server(harness.DEMO, "--max-model-len", "4096")
        client = Http(server.url, timeout=60)
        watcher = self.own(server.client())
        self.own(client.raw())  # who is connected and says nothing holds nothing up
        connection, response = client.open("POST", "/v1/completions", {
            **GREEDY, "max_tokens": 3000, "speculative_tokens": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True}})
        response.read(100)
        server.signal(harness.signal.SIGTERM)
        harness.wait_until(lambda: client.post("/v1/completions", GREEDY)[0] == 503, 10, "refused")
        # a request that came before the signal was noticed may be counted, too
        self.assertGreaterEqual(watcher.status()["running"], 1, "the stream ended before the drain")
        text = response.read().decode()
        self.assertTrue(text.endswith("data: [DONE]\n\n"), text[-300:])
        self.assertIn('"completion_tokens":3000', text[-1000:])
        connection.close()
        self.assertEqual(server.wait(), 0)


if __name__ == "__main__":
    harness.main()
