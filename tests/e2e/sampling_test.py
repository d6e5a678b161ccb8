#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sampling_test.py -- sampling as clients see it, with real processes: log-probabilities, echo,
stop strings, several answers; over RPC, HTTP and `generate`."""
import json
import math
import subprocess
import urllib.error
import urllib.request

import harness

GREEDY = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 24}


def run_generate(endpoint, *arguments):
    done = subprocess.run([harness.program(), "generate", "--rpc", endpoint, "--json", *arguments],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Sampling(harness.SharedCase):
    RANKS = 2

    def post(self, path, server=None, **body):
        request = urllib.request.Request((server or self.shared).url + path,
                                         json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def events(self, path, server=None, **body):
        request = urllib.request.Request((server or self.shared).url + path,
                                         json.dumps({**body, "stream": True}).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            lines = response.read().decode().split("\n\n")
        self.assertEqual(lines[-2:], ["data: [DONE]", ""])
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    def assert_close(self, found, wanted):
        """Both are floats of 32 bits, written with nine digits or as they are."""
        self.assertEqual(len(found), len(wanted))
        for one, other in zip(found, wanted):
            self.assertAlmostEqual(one, other, delta=1e-6 * max(1, abs(other)))

    def test_logprobs(self):
        client = self.client()
        plain = client.generate(**GREEDY)
        told = client.generate(**GREEDY, logprobs=5)
        self.assertEqual(told["ids"], plain["ids"])  # asking changes nothing
        self.assertNotIn("logprobs", plain)
        self.assertEqual([entry["id"] for entry in told["logprobs"]], told["ids"])
        for entry in told["logprobs"]:
            values = [logprob for _, logprob in entry["top"]]
            self.assertEqual(len(values), 5)
            self.assertEqual(values, sorted(values, reverse=True))
            self.assertEqual(entry["top"][0], [entry["id"], entry["logprob"]])  # greedy
            self.assertLessEqual(sum(map(math.exp, values)), 1 + 1e-5)
        none = client.generate(**GREEDY, logprobs=0)
        self.assertEqual([entry["logprob"] for entry in none["logprobs"]],
                         [entry["logprob"] for entry in told["logprobs"]])
        self.assertEqual(none["logprobs"][0]["top"], [])

    def test_prompt_logprobs_are_those_of_drawing_the_same(self):
        client = self.client()
        drawn = client.generate(**GREEDY, ignore_eos=True, logprobs=2)
        ids = client.tokenize(text=GREEDY["prompt"])["ids"]
        told = client.generate(ids=ids + drawn["ids"], max_tokens=1, prompt_logprobs=2)
        self.assertIsNone(told["prompt_logprobs"][0])
        self.assertEqual([entry["id"] for entry in told["prompt_logprobs"][1:]],
                         (ids + drawn["ids"])[1:])
        self.assertEqual(told["prompt_logprobs"][len(ids):], drawn["logprobs"])
        long = client.generate(ids=[5 + i % 90 for i in range(700)], max_tokens=1,
                               prompt_logprobs=0)  # several chunks
        self.assertEqual([entry["id"] for entry in long["prompt_logprobs"][1:]],
                         [5 + i % 90 for i in range(1, 700)])
        again = client.generate(ids=[5 + i % 90 for i in range(700)], max_tokens=1,
                                prompt_logprobs=0)  # the whole prompt runs, cached or not
        self.assertEqual(again["prompt_logprobs"], long["prompt_logprobs"])
        self.assertEqual(again["usage"]["cached_tokens"], 0)
        one = client.generate(ids=[5], max_tokens=1, prompt_logprobs=3)
        self.assertEqual(one["prompt_logprobs"], [None])

    def test_generate_tells_them(self):
        words = ("--prompt", GREEDY["prompt"], "--max-tokens", "5")
        told = run_generate(self.shared.endpoint, *words, "--logprobs", "2", "--prompt-logprobs",
                            "1")
        with self.shared.client() as client:
            want = client.generate(**{**GREEDY, "max_tokens": 5}, logprobs=2, prompt_logprobs=1)
        self.assertEqual(told["ids"], want["ids"])
        self.assertEqual(told["logprobs"], want["logprobs"])
        self.assertEqual(told["prompt_logprobs"], want["prompt_logprobs"])
        self.assertNotIn("logprobs", run_generate(self.shared.endpoint, *words))

    def test_stop_strings_over_rpc(self):
        client = self.client()
        whole = client.generate(**GREEDY, ignore_eos=True)
        stop = whole["text"][10:13]
        cut = whole["text"].index(stop)
        for spelled in (stop, [stop], ["\x7fnever", stop]):
            answer = client.generate(**GREEDY, ignore_eos=True, stop=spelled)
            self.assertEqual(answer["text"], whole["text"][:cut])
            self.assertEqual(answer["finish_reason"], "stop")
            self.assertEqual(answer["ids"], whole["ids"][:len(answer["ids"])])
            self.assertEqual(answer["usage"]["completion_tokens"], len(answer["ids"]))
            self.assertLess(len(answer["ids"]), len(whole["ids"]))
        kept = client.generate(**GREEDY, ignore_eos=True, stop=stop,
                               include_stop_str_in_output=True)
        self.assertEqual(kept["text"], whole["text"][:cut] + stop)
        ids_only = client.generate(**GREEDY, ignore_eos=True, stop=stop, text=False)
        self.assertEqual((ids_only["text"], ids_only["ids"]), ("", answer["ids"]))
        self.shared.wait_idle(10)

    def test_logprobs_over_http(self):
        client = self.client()
        rpc = client.generate(**GREEDY, logprobs=2)
        whole = self.post("/v1/completions", **GREEDY, logprobs=2)["choices"][0]
        told = whole["logprobs"]
        self.assert_close(told["token_logprobs"], [entry["logprob"] for entry in rpc["logprobs"]])
        self.assertEqual("".join(told["tokens"]), whole["text"])
        self.assertEqual([whole["text"][offset:][:len(token)] for token, offset in
                          zip(told["tokens"], told["text_offset"])], told["tokens"])
        self.assertEqual([len(top) for top in told["top_logprobs"]], [2] * len(rpc["ids"]))
        events = self.events("/v1/completions", **GREEDY, logprobs=2)
        for name, values in told.items():
            parts = [event["choices"][0]["logprobs"] for event in events if event["choices"]]
            self.assertEqual([value for part in parts if part for value in part[name]], values)
        chat = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 5,
                "enable_thinking": False, "ignore_eos": True}
        told = self.post("/v1/chat/completions", **chat, logprobs=True, top_logprobs=3)
        content = told["choices"][0]["logprobs"]["content"]
        text = bytes(sum((entry["bytes"] for entry in content), [])).decode()
        self.assertTrue(text.startswith(told["choices"][0]["message"]["content"]))
        self.assertEqual([len(entry["top_logprobs"]) for entry in content], [3] * 5)
        self.assertIsNone(self.post("/v1/chat/completions", **chat)["choices"][0]["logprobs"])

    def test_echo(self):
        client = self.client()
        ids = client.tokenize(text=GREEDY["prompt"])["ids"]
        rpc = client.generate(**GREEDY, logprobs=1, prompt_logprobs=1)
        plain = self.post("/v1/completions", **GREEDY)["choices"][0]["text"]
        for prompt in (GREEDY["prompt"], ids):
            echoed = self.post("/v1/completions", **{**GREEDY, "prompt": prompt}, echo=True,
                               logprobs=1)["choices"][0]
            self.assertEqual(echoed["text"], GREEDY["prompt"] + plain)
            told = echoed["logprobs"]
            self.assertEqual("".join(told["tokens"]), echoed["text"])
            self.assertIsNone(told["token_logprobs"][0])
            self.assertIsNone(told["top_logprobs"][0])
            self.assert_close(told["token_logprobs"][1:],
                              [entry["logprob"] for entry in
                               rpc["prompt_logprobs"][1:] + rpc["logprobs"]])
        scores = self.post("/v1/completions", **{**GREEDY, "max_tokens": 0}, echo=True, logprobs=0)
        self.assertEqual(scores["choices"][0]["text"], GREEDY["prompt"])
        self.assertEqual(len(scores["choices"][0]["logprobs"]["tokens"]), len(ids))
        self.assertEqual(scores["usage"]["completion_tokens"], 0)
        events = self.events("/v1/completions", **GREEDY, echo=True, logprobs=1)
        text = "".join(event["choices"][0]["text"] for event in events if event["choices"])
        self.assertEqual(text, GREEDY["prompt"] + plain)
        self.assertEqual(self.post("/v1/completions", **GREEDY, echo=True)["choices"][0]["text"],
                         GREEDY["prompt"] + plain)

    def test_n_over_http(self):
        hot = {"prompt": "Once upon a time", "temperature": 1, "max_tokens": 12, "seed": 5,
               "ignore_eos": True}
        alone = self.post("/v1/completions", **hot)
        four = self.post("/v1/completions", **hot, n=4)
        self.assertEqual([choice["index"] for choice in four["choices"]], [0, 1, 2, 3])
        texts = [choice["text"] for choice in four["choices"]]
        self.assertEqual(texts[0], alone["choices"][0]["text"])
        self.assertEqual(len(set(texts)), 4)
        self.assertEqual(texts, [choice["text"] for choice in
                                 self.post("/v1/completions", **hot, n=4)["choices"]])
        self.assertEqual(four["usage"]["prompt_tokens"], alone["usage"]["prompt_tokens"])
        self.assertEqual(four["usage"]["completion_tokens"], 48)
        streamed = [""] * 6
        for event in self.events("/v1/completions", **{**hot, "prompt": ["One", "Two"]}, n=3):
            for choice in event["choices"]:
                streamed[choice["index"]] += choice["text"]
        whole = self.post("/v1/completions", **{**hot, "prompt": ["One", "Two"]}, n=3)
        self.assertEqual(streamed, [choice["text"] for choice in whole["choices"]])
        self.assertNotEqual(streamed[:3], streamed[3:])

    def test_usage_of_n_over_http(self):
        """A prompt is counted once for all its answers, and so is what of it was cached."""
        prompts = [[100 + k] + [5 + i % 900 for i in range(count - 1)]
                   for k, count in enumerate((200, 131))]
        asked = {"prompt": prompts, "max_tokens": 6, "n": 5, "ignore_eos": True}
        for _ in range(2):
            usage = self.post("/v1/completions", **asked)["usage"]
            self.assertEqual((usage["prompt_tokens"], usage["completion_tokens"],
                              usage["total_tokens"]), (331, 2 * 5 * 6, 331 + 2 * 5 * 6))
            self.assertLessEqual(usage["prompt_tokens_details"]["cached_tokens"], 331)
        self.assertEqual(usage["prompt_tokens_details"]["cached_tokens"], 192 + 128)
        told = self.events("/v1/completions", **asked,
                           stream_options={"include_usage": True})[-1]["usage"]
        for name in ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details"):
            self.assertEqual(told[name], usage[name])
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "seed": 2,
                "enable_thinking": False, "ignore_eos": True}
        alone = self.post("/v1/chat/completions", **chat)["usage"]
        three = self.post("/v1/chat/completions", **chat, n=3)["usage"]
        self.assertEqual((three["prompt_tokens"], three["completion_tokens"]),
                         (alone["prompt_tokens"], 15))

    def test_too_long_prompt_with_n_over_http(self):
        """One error for all answers, and none of them begins."""
        before = self.shared.wait_idle()
        for prompt in ([5] * 2000, "Once " * 2000, ["Once " * 2000, "Once"]):
            for stream in (False, True):
                with self.assertRaises(urllib.error.HTTPError) as caught:
                    self.post("/v1/completions", prompt=prompt, n=128, stream=stream, max_tokens=5)
                error = json.load(caught.exception)["error"]
                self.assertEqual((caught.exception.code, error["param"]), (400, "prompt"), error)
                self.assertIn("accepted is 1 to", error["message"])
        after = self.shared.wait_idle()
        for name in ("requests_done", "requests_failed", "tokens_out"):
            self.assertEqual(after[name], before[name], name)
        with self.assertRaises(urllib.error.HTTPError) as caught:  # the first prompt has begun
            self.post("/v1/completions", prompt=["Once", "Once " * 2000], n=8, max_tokens=900)
        self.assertEqual(json.load(caught.exception)["error"]["param"], "prompt")
        self.assertEqual(self.shared.wait_idle()["requests_failed"], before["requests_failed"])

    def test_usage_of_drafts_over_http(self):
        # A server that drafts always: one that has the choice may take none for itself.
        server = self.server(harness.DEMO, "--speculative-tokens", "3")
        for n in (1, 3):
            usage = self.post("/v1/completions", server, **GREEDY, ignore_eos=True, n=n)["usage"]
            self.assertEqual(usage["completion_tokens"], 24 * n)
            self.assertGreater(usage["accepted"], 0)
            self.assertLessEqual(usage["accepted"], usage["drafted"])
            self.assertEqual(usage["target_steps"] + usage["accepted"], 24 * n)
            told = self.events("/v1/completions", server, **GREEDY, ignore_eos=True, n=n,
                               stream_options={"include_usage": True})[-1]["usage"]
            self.assertEqual(told["target_steps"] + told["accepted"], 24 * n)
            self.assertGreater(told["accepted"], 0)
            plain = self.post("/v1/completions", server, **GREEDY, ignore_eos=True, n=n,
                              speculative_tokens=0)["usage"]
            self.assertEqual([plain[name] for name in ("target_steps", "drafted", "accepted")],
                             [24 * n, 0, 0])

    def test_lists(self):
        client = self.client()
        hot = {**GREEDY, "temperature": 1.5, "seed": 3, "ignore_eos": True}
        plain = client.generate(**hot)
        allowed = sorted(set(plain["ids"]))[:5]
        only = client.generate(**hot, allowed_token_ids=allowed)
        self.assertLessEqual(set(only["ids"]), set(allowed))
        first = client.generate(**GREEDY)["ids"][0]
        self.assertNotIn(first, client.generate(**GREEDY, logit_bias={first: -100})["ids"])
        self.assertEqual(client.generate(**GREEDY, ignore_eos=True, logit_bias={7: 100})["ids"],
                         [7] * 24)
        greedy = client.generate(**GREEDY, ignore_eos=True)
        pair = greedy["ids"][4:6]
        answer = client.generate(**GREEDY, ignore_eos=True, bad_words=[pair])
        self.assertEqual(answer["ids"][:5], greedy["ids"][:5])
        self.assertNotIn(pair, [answer["ids"][i:i + 2] for i in range(23)])
        word = max(filter(str.isalpha, greedy["text"].split()), key=len)
        banned = client.generate(**GREEDY, ignore_eos=True, bad_words=[word])
        self.assertNotIn(" " + word, banned["text"])
        http = self.post("/v1/completions", **GREEDY, ignore_eos=True, bad_words=[word],
                         logit_bias={str(first): 0})
        self.assertEqual(http["choices"][0]["text"], banned["text"])
        http = self.post("/v1/completions", **hot, n=2, allowed_token_ids=allowed)
        self.assertEqual(http["choices"][0]["text"], only["text"])
        told = client.generate(**GREEDY, logit_bias={7: 100}, logprobs=1)  # of the model's own
        self.assertNotEqual(told["logprobs"][0]["top"][0][0], 7)

    def test_n_over_rpc(self):
        client = self.client()
        hot = {**GREEDY, "temperature": 1, "seed": 5, "ignore_eos": True, "logprobs": 1}
        alone = client.generate(**hot)
        three = client.generate(**hot, n=3)
        self.assertEqual([choice["index"] for choice in three["choices"]], [0, 1, 2])
        self.assertEqual(three["ids"], alone["ids"])
        self.assertEqual(len(set(choice["text"] for choice in three["choices"])), 3)
        for choice in three["choices"]:
            self.assertEqual(choice["finish_reason"], "length")
            self.assertEqual(choice["usage"]["completion_tokens"], 24)
            self.assertEqual([entry["id"] for entry in choice["logprobs"]], choice["ids"])
        self.assertEqual(three["usage"]["completion_tokens"], 72)
        self.assertEqual(three["usage"]["prompt_tokens"], alone["usage"]["prompt_tokens"])
        http = self.post("/v1/completions", **{**hot, "logprobs": None}, n=3)
        self.assertEqual([choice["text"] for choice in http["choices"]],
                         [choice["text"] for choice in three["choices"]])
        done = subprocess.run(
            [harness.program(), "generate", "--rpc", self.shared.endpoint, "--json", "--requests",
             "-"], input=json.dumps({**hot, "n": 3}), capture_output=True, text=True, timeout=60,
            check=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([line["index"] for line in lines], [0] * 3)
        for line in lines:
            self.assertEqual(line["ids"], three["choices"][line["choice"]]["ids"])
            self.assertEqual(line["logprobs"], three["choices"][line["choice"]]["logprobs"])
        stop = three["choices"][1]["text"][8:12]  # each ends for itself
        cut = client.generate(**hot, n=3, stop=stop)
        for whole, choice in zip(three["choices"], cut["choices"]):
            self.assertEqual(choice["text"], whole["text"].split(stop)[0])
        aborted = client.submit(**{**hot, "max_tokens": 900}, n=4)
        client.abort(aborted)
        answer = client.result(aborted)
        self.assertEqual([choice["finish_reason"] for choice in answer["choices"]], ["abort"] * 4)
        self.shared.wait_idle(10)

    def test_refusals_name_field_value_and_limit(self):
        client = self.client()
        for field, value, code, part in (
                ("logprobs", 21, "bad_input", "'logprobs': 21 is outside 0 .. 20"),
                ("prompt_logprobs", -1, "bad_input", "'prompt_logprobs': -1 is outside 0 .. 20"),
                ("logit_bias", {5: 101}, "bad_input", "'logit_bias'[0]: 101 is outside"),
                ("logit_bias", {1 << 30: 1}, "bad_input", "'logit_bias'[0]: 1073741824"),
                ("allowed_token_ids", [1 << 30], "bad_input", "'allowed_token_ids'[0]"),
                ("bad_words", ["a b c d e f g h i j"], "limit", "accepted is 1 to 8"),
                ("stop", [""], "bad_input", "'stop'[0]: an empty string"),
                ("stop", ["x"] * 17, "limit", "'stop': 17 elements, the limit is 16"),
                ("stop", "x" * 513, "limit", "'stop': 513 bytes, the limit is 512")):
            self.assert_refused(code, part, client=client, prompt="x", **{field: value})


if __name__ == "__main__":
    harness.main()
