#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""serve_test.py -- the demo model over 1, 2 and 4 processes: the same text, the right figures,
whoever else is served at the same time."""
import json
import os
import signal

import harness

PROMPTS = ("Once upon a time", "The little fox", "There was a girl who", "One rainy day")
CHATS = ("What is 7 + 5?", "Hello!", "Why do leaves fall in autumn?")


def ask_all(client):
    """Greedy answers to every prompt and chat, one after the other."""
    answers = [client.generate(prompt=prompt, max_tokens=48, temperature=0) for prompt in PROMPTS]
    for text in CHATS:
        answers.append(client.generate(messages=[{"role": "user", "content": text}],
                                       enable_thinking=False, max_tokens=48, temperature=0))
    return answers


class Degrees(harness.Case):
    def answers_of(self, ranks):
        server = self.server(ranks=ranks)
        self.assertEqual(len(server.workers()), ranks)
        with server.client() as client:
            answers = ask_all(client)
        self.assertEqual(server.drain(), 0)
        self.assert_gone(server)
        return [(answer["text"], answer["ids"], answer["finish_reason"]) for answer in answers]

    def test_text_is_the_same_at_1_2_and_4(self):
        one = self.answers_of(1)
        self.assertIn("12", one[len(PROMPTS)][0])  # 7 + 5
        self.assertTrue(one[0][0].startswith(" there lived a little boy named Kofi"), one[0])
        self.assertEqual(one, self.answers_of(2))
        self.assertEqual(one, self.answers_of(4))


class Answers(harness.SharedCase):
    RANKS = 2

    def test_stream_is_the_answer(self):
        client = self.client()
        for prompt in PROMPTS:
            replies = list(client.replies(client.submit(prompt=prompt, max_tokens=40,
                                                        temperature=0)))
            kinds = [reply["t"] for reply in replies]
            self.assertEqual((kinds[0], kinds[-1]), ("accepted", "final"))
            self.assertEqual(set(kinds[1:-1]), {"delta"})
            self.assertGreater(len(kinds), 10, "not streamed")
            ids = [token for reply in replies if reply["t"] == "delta" for token in reply["ids"]]
            text = "".join(reply["text"] for reply in replies if reply["t"] == "delta")
            whole = harness.run("tokenize", "--model", harness.DEMO,
                                stdin=json.dumps({"ids": ids}) + "\n")
            self.assertEqual(json.loads(whole.stdout)["text"], text)

    def test_usage(self):
        # A server that drafts always: one that has the choice may take none for itself.
        client = self.own(self.server(harness.DEMO, "--speculative-tokens", "3", ranks=2).client())
        for prompt, count in (("Once upon a time", 7), ("The little fox", 1)):
            prompt_tokens = len(client.tokenize(text=prompt)["ids"])
            answer = client.generate(prompt=prompt, max_tokens=count, temperature=0)
            self.assertEqual(len(answer["ids"]), count)
            self.assertEqual(answer["finish_reason"], "length")
            self.assertEqual(answer["prompt_tokens"], prompt_tokens)
            usage = answer["usage"]
            self.assertEqual((usage["prompt_tokens"], usage["completion_tokens"]),
                             (prompt_tokens, count))
            self.assertEqual(usage["cached_tokens"], 0)
            self.assertLessEqual(usage["accepted"], usage["drafted"])
            self.assertEqual(usage["drafted"] > 0, count > 1)  # the first token has no drafts
            self.assertEqual(usage["target_steps"] + usage["accepted"], count)
            plain = client.generate(prompt=prompt, max_tokens=count, temperature=0,
                                    speculative_tokens=0)
            self.assertEqual(plain["ids"], answer["ids"])
            self.assertEqual((plain["usage"]["drafted"], plain["usage"]["target_steps"]),
                             (0, count))

    def test_states_of_bf16(self):
        """Within their type drafts and checkpoints, made in the answer too, change no token."""
        options = ("--state-dtype", "bfloat16", "--max-model-len", "1024")
        used = self.own(self.server(harness.DEMO, *options, "--speculative-tokens", "3",
                                    "--checkpoint-interval", "64").client())
        plain = self.own(self.server(harness.DEMO, *options, "--speculative-tokens", "0",
                                     "--no-prefix-cache").client())
        ids, cached = plain.tokenize(text="Once upon a time")["ids"], 0
        for turn in range(3):
            request = {"ids": ids, "max_tokens": 150, "temperature": 0.8, "seed": turn,
                       "ignore_eos": True}
            answer = used.generate(**request)
            self.assertEqual(answer["ids"], plain.generate(**request)["ids"], turn)
            cached += answer["usage"]["cached_tokens"]
            ids = ids + answer["ids"] + [17, 18, 19]
        self.assertGreaterEqual(cached, 128 + 256)

    def test_drafts_of_few_ids(self):
        options = ("--speculative-tokens", "3")
        few = self.own(self.server(harness.DEMO, *options, "--draft-vocab", "300", ranks=2)
                       .client())
        whole = self.own(self.server(harness.DEMO, *options, ranks=2).client())
        self.assertEqual((few.status()["draft_vocab"], whole.status()["draft_vocab"]), (300, 0))
        for rules in ({"temperature": 0}, {"temperature": 0.8, "seed": 3},
                      {"temperature": 0.8, "seed": 4, "repetition_penalty": 1.2, "top_p": 0.9},
                      {"temperature": 0, "logit_bias": {2000: 100}},
                      {"temperature": 1, "seed": 5, "allowed_token_ids": [400, 2500, 3000]}):
            request = {"prompt": "Once upon a time", "max_tokens": 60, "ignore_eos": True, **rules}
            plain = few.generate(**request, speculative_tokens=0)["ids"]
            used = {}
            for name, client in (("few", few), ("whole", whole)):
                answer = client.generate(**request)
                self.assertEqual(answer["ids"], plain, (name, rules))
                used[name] = answer["usage"]
                self.assertGreater(used[name]["drafted"], 0)
            self.assertLessEqual(used["few"]["accepted"], used["whole"]["accepted"], rules)
            if min(plain) >= 300:  # no draft can be right
                self.assertEqual(used["few"]["accepted"], 0, rules)
            elif "logit_bias" not in rules:
                self.assertGreater(used["few"]["accepted"], 0, rules)

    def test_stop_id_ends_and_can_be_ignored(self):
        client = self.client()
        question = {"messages": [{"role": "user", "content": "What is 7 + 5?"}],
                    "enable_thinking": False, "temperature": 0}
        answer = client.generate(max_tokens=200, **question)
        self.assertEqual(answer["finish_reason"], "stop")
        longer = client.generate(max_tokens=len(answer["ids"]) + 5, ignore_eos=True, **question)
        self.assertEqual(longer["finish_reason"], "length")
        self.assertEqual(longer["ids"][:len(answer["ids"])], answer["ids"])
        stop = answer["ids"][2]
        first = answer["ids"].index(stop)
        shorter = client.generate(max_tokens=200, stop_token_ids=[stop], **question)
        self.assertEqual(shorter["finish_reason"], "stop")
        self.assertEqual(shorter["ids"], answer["ids"][:first + 1])

    def test_seed_decides_the_draw(self):
        client = self.client()
        draw = {"prompt": "One day", "max_tokens": 40, "temperature": 1.5}
        first = client.generate(seed=7, **draw)
        self.assertEqual(first["seed"], 7)
        self.assertEqual(client.generate(seed=7, **draw)["ids"], first["ids"])
        self.assertNotEqual(client.generate(seed=8, **draw)["ids"], first["ids"])
        free = client.generate(**draw)  # draws its own seed and tells it
        self.assertEqual(client.generate(seed=free["seed"], **draw)["ids"], free["ids"])
        self.assertNotEqual(client.generate(**draw)["seed"], free["seed"])

    def test_company_changes_no_token(self):
        client = self.client()
        mine = {"prompt": "The little fox", "max_tokens": 40, "temperature": 0.9, "seed": 3}
        alone = client.generate(**mine)
        others = [client.submit(prompt=f"{PROMPTS[i % 4]} {'and then ' * (9 * i)}", seed=i,
                                max_tokens=30 + 3 * i, temperature=i % 3 * 0.5, ignore_eos=True)
                  for i in range(16)]
        together = client.generate(**mine)
        ends = [client.result(other) for other in others]
        self.assertEqual(together["ids"], alone["ids"])
        self.assertEqual([len(end["ids"]) for end in ends], [30 + 3 * i for i in range(16)])

    def test_run_to_run(self):
        draw = {"prompt": "One day", "max_tokens": 24, "temperature": 1.2, "seed": 11}
        with self.shared.client() as client:
            here = client.generate(**draw)
        other = self.server(ranks=2)
        with other.client() as client:
            self.assertEqual(client.generate(**draw)["ids"], here["ids"])

    def test_long_prompt_fills_the_context(self):
        client = self.client()
        ids = [5 + i % 900 for i in range(1000)]
        answer = client.generate(ids=ids, temperature=0, ignore_eos=True)
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(len(answer["ids"]), 24)  # 1024 is the longest sequence

    def test_few_pages_change_no_token(self):
        """Eight streams in pages for three: they preempt one another, and nobody notices."""
        asked = [{"prompt": PROMPTS[i % 4], "seed": i, "max_tokens": 150 + 10 * i,
                  "temperature": i % 2 * 0.8, "frequency_penalty": 0.2 * i, "ignore_eos": True}
                 for i in range(8)]
        client = self.client()
        expected = [client.generate(**one)["ids"] for one in asked]
        few = self.server(harness.DEMO, "--max-model-len", "512", "--kv-pages", "9", ranks=2)
        with few.client() as other:
            got = [other.result(one)["ids"] for one in [other.submit(**one) for one in asked]]
            status = other.status()
        self.assertEqual(got, expected)
        self.assertGreater(status["preemptions"], 0)
        self.assertEqual(status["pages"], 9)  # some may be kept for prefixes

    def test_time_and_urgency(self):
        server = self.server(harness.DEMO, "--max-model-len", "4096", "--max-num-seqs", "1",
                             ranks=2)
        # Seconds of work without drafts, on a machine with nothing else to do.
        long = {"prompt": "One day", "max_tokens": 4000, "ignore_eos": True,
                "speculative_tokens": 0}
        with server.client() as client:
            late = client.generate(timeout_ms=1500, **long)
            self.assertEqual(late["finish_reason"], "timeout")
            self.assertTrue(1 < len(late["ids"]) == late["usage"]["completion_tokens"] < 4000)
            with self.assertRaisesRegex(harness.deltamesh.Error, "timeout_ms"):
                client.generate(prompt="a", timeout_ms=-1)
        few = {"t": "generate", "prompt": "One day", "max_tokens": 3}
        with harness.Raw(server.endpoint) as client, server.client() as other:
            ranks = server.workers()
            server.wait_idle()  # the slot of the late one is free again
            for pid in ranks:  # until all have come: they may be silent so long
                os.kill(pid, signal.SIGSTOP)
            client.send({**few, "id": "runs"})  # it has the slot, and keeps it
            harness.wait_until(lambda: other.status()["running"] == 1, 10, "the first runs")
            for name, priority in (("patient", 5), ("urgent", -5)):
                client.send({**few, "id": name, "priority": priority})
            harness.wait_until(lambda: other.status()["queued"] == 2, 10, "both wait")
            for pid in ranks:
                os.kill(pid, signal.SIGCONT)
            ends = []
            while len(ends) < 3:
                reply = client.reply(60)
                self.assertIn(reply["t"], ("accepted", "delta", "final"))
                if reply["t"] == "final":
                    ends.append((reply["id"], reply["finish_reason"]))
        self.assertEqual(ends, [("runs", "length"), ("urgent", "length"), ("patient", "length")])

    def test_status_and_tokenize_over_the_wire(self):
        client = self.client()
        status = client.status()
        self.assertEqual((status["model"], status["state"]), ("model", "ready"))
        self.assertTrue(harness.is_idle(self.shared.wait_idle()))
        self.assertEqual(client.tokenize(ids=client.tokenize(text="Hello, fox")["ids"])["text"],
                         "Hello, fox")
        chat = client.tokenize(messages=[{"role": "user", "content": "Hello!"}])
        self.assertIn("Hello!", chat["text"])
        self.assertEqual(client.tokenize(text=chat["text"])["ids"], chat["ids"])


class Logs(harness.Case):
    def test_json_lines(self):
        server = self.server(harness.golden("dense_flat_r3"), "--load-format", "dummy",
                             "--log-format", "json", ranks=2)
        with server.client() as client:
            # Its client leaves; so many that they are not done before that is noticed.
            requests = [client.submit(ids=[1, 2, 3], ignore_eos=True) for _ in range(60)]
            next(client.replies(requests[0]))
        harness.wait_until(lambda: '"request":"' in server.stderr, 10, "a line about the request")
        self.assertEqual(server.drain(), 0)
        lines = [json.loads(line) for line in server.stderr.splitlines()]
        self.assertGreater(len(lines), 5)
        for line in lines:
            self.assertLessEqual({"time", "level", "program", "text"}, set(line))
        self.assertIn("1", [line.get("request") for line in lines])
        self.assertEqual({line["rank"] for line in lines if "rank" in line}, {0, 1})


if __name__ == "__main__":
    harness.main()
