#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""prefix_test.py -- prefix reuse and drafts change no token: conversations of many turns, several
at a time, give the same ids from a server with them and a server without, while its pages and
checkpoints run short; and the cases in which caches of recurrent states fail elsewhere.

The conversations are drawn by a seed that is another every day; a failure says it. `--seed`,
`--conversations` and `--turns` replay any sample, of any size."""
import json
import os
import random
import sys
import time
import urllib.request

import harness

QUESTIONS = ("What is 7 + 5?", "Tell me a story about a fox.", "And then?", "Why?",
             "Who lives in the forest?", "Say it in other words.", "What did the girl do next?",
             "Is it far to the sea?", "How many apples are there now?", "Thank you.")
SYSTEM = "You tell stories to children. Be kind, be brief, and never frighten anybody. " * 4
CONVERSATIONS, TURNS = 8, 0  # 0 turns: as many as each test says
SEED = int(os.environ.get("DELTAMESH_SEED") or time.strftime("%Y%m%d", time.gmtime()))
CONTEXT = 1024  # of the servers; what a turn may add to it:
TURN_TOKENS = 40 + 64


def argument(name, fallback):
    """The number behind an option of ours, which unittest does not get to see."""
    if name not in sys.argv:
        return fallback
    at = sys.argv.index(name)
    value = int(sys.argv[at + 1])
    del sys.argv[at:at + 2]
    return value


def fields_of(dice):
    """Sampling of a turn: greedy or not, with and without penalties on the prompt's tokens."""
    fields = {"max_tokens": dice.choice((1, 8, 24, 64)), "temperature": dice.choice((0, 0.8)),
              "seed": dice.randrange(1 << 30)}
    if dice.random() < 0.4:
        fields["repetition_penalty"] = 1.3
    if dice.random() < 0.3:
        fields["frequency_penalty"] = 0.4
    return fields


class Conversation:
    """Messages that depend on the seed and on the answers so far."""

    def __init__(self, number):
        self.dice = random.Random(f"{SEED} {number}")
        self.messages = [{"role": "system", "content": SYSTEM}] if number % 3 else []
        self.answers = []

    def ask(self, client):
        self.messages.append({"role": "user", "content": self.dice.choice(QUESTIONS)})
        return client.submit(messages=self.messages, enable_thinking=self.dice.random() < 0.3,
                             **fields_of(self.dice))

    def take(self, answer):
        self.answers.append((answer["ids"], answer["finish_reason"]))
        self.messages.append({"role": "assistant", "content": answer["text"]})
        if answer["usage"]["prompt_tokens"] + 2 * TURN_TOKENS > CONTEXT:
            self.messages = self.messages[:1]  # the next question begins anew


def talk(client, turns):
    """All conversations turn by turn, all at once; returns their answers and all usage."""
    talks = [Conversation(number) for number in range(CONVERSATIONS)]
    usages = []
    for _ in range(turns):
        for conversation, request in [(one, one.ask(client)) for one in talks]:
            answer = client.result(request)
            usages.append(answer["usage"])
            conversation.take(answer)
    return [one.answers for one in talks], usages


class Turns(harness.Case):
    def answers_of(self, *options, ranks=1, turns=4):
        begin = time.monotonic()
        server = self.server(harness.DEMO, "--max-model-len", CONTEXT, *options, ranks=ranks)
        with server.client() as client:
            answers, usages = talk(client, TURNS or turns)
        server.wait_idle()
        self.assertEqual(server.drain(), 0, server.stderr)
        sums = {name: sum(usage[name] for usage in usages)
                for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "drafted",
                             "accepted")}
        print(f"{' '.join(map(str, options))}: {len(usages)} turns in "
              f"{time.monotonic() - begin:.0f} s, {sums}", file=sys.stderr, flush=True)
        return answers, sums

    def assert_same(self, answers, expected):
        for number, pair in enumerate(zip(answers, expected)):
            for turn, (one, other) in enumerate(zip(*pair)):
                self.assertEqual(one, other, f"conversation {number}, turn {turn}, --seed {SEED} "
                                             f"--conversations {CONVERSATIONS}")

    def test_no_token_changes(self):
        plain, sums = self.answers_of("--no-prefix-cache", "--speculative-tokens", 0)
        self.assertEqual((sums["cached_tokens"], sums["drafted"]), (0, 0))
        cached, sums = self.answers_of("--speculative-tokens", 0)
        self.assert_same(cached, plain)
        self.assertGreater(sums["cached_tokens"], sums["prompt_tokens"] // 4)
        # Drafts as the server finds them worth it: another number in every run.
        cached, sums = self.answers_of()
        self.assert_same(cached, plain)
        self.assertGreater(sums["cached_tokens"], sums["prompt_tokens"] // 4)
        # Few slots, and steps that cut prompts: checkpoints are evicted all the time.
        cached, sums = self.answers_of("--max-num-seqs", 2, "--max-num-batched-tokens", 64)
        self.assert_same(cached, plain)
        self.assertGreater(sums["cached_tokens"], 0)

    def test_no_token_changes_while_speculating(self):
        """Where others go wrong: drafts that were refused must leave nothing in what is cached."""
        plain, _ = self.answers_of("--no-prefix-cache", "--speculative-tokens", 0, turns=3)
        fresh, sums = self.answers_of("--no-prefix-cache", "--speculative-tokens", 3, turns=3)
        cached, again = self.answers_of("--max-num-seqs", 3, "--speculative-tokens", 3, turns=3)
        self.assert_same(fresh, plain)
        self.assert_same(cached, plain)
        self.assertGreater(again["cached_tokens"], 0)
        self.assertGreater(again["accepted"], 0)
        # The head's own keys are right behind a hit: it guesses as well.
        self.assertEqual([again["drafted"], again["accepted"]],
                         [sums["drafted"], sums["accepted"]])

    def test_no_token_changes_over_two_ranks(self):
        fresh, _ = self.answers_of("--no-prefix-cache", ranks=2, turns=2)
        cached, sums = self.answers_of("--max-num-seqs", 3, ranks=2, turns=2)
        self.assert_same(cached, fresh)
        self.assertGreater(sums["cached_tokens"], 0)


class Cases(harness.SharedCase):
    """One server without prefix reuse beside the one that is tried."""

    OPTIONS = ("--max-model-len", 4096)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.plain = harness.Server(harness.DEMO, "--no-prefix-cache", *cls.OPTIONS)
        cls.addClassCleanup(cls.plain.close)

    def ids(self, seed, count):
        dice = random.Random(seed)
        return [dice.randrange(20, 3000) for _ in range(count)]

    def both(self, ids, client=None, **fields):
        """The same answer from both; returns how many tokens were cached."""
        fields = {"max_tokens": 12, "temperature": 0, "ignore_eos": True, **fields}
        answer = (client or self.client()).generate(ids=ids, **fields)
        plain = self.own(self.plain.client()).generate(ids=ids, **fields)
        self.assertEqual(answer["ids"], plain["ids"])
        self.assertEqual(plain["usage"]["cached_tokens"], 0)
        return answer["usage"]["cached_tokens"]

    def test_short_prompts(self):
        """Others begin at 528 or 2,048 tokens."""
        for count in (1, 63, 64, 65, 128, 129, 200, 527):
            ids = self.ids(f"short {count}", count)
            self.assertEqual(self.both(ids), 0)
            self.assertEqual(self.both(ids), (count - 1) // 64 * 64)

    def test_shared_beginnings(self):
        """Found from the third on: the second leaves a checkpoint where it parts from the first."""
        for alike, rest in ((1600, 100), (1500, 200), (480, 100), (100, 30)):
            common = self.ids(f"alike {alike}", alike)
            cached = [self.both(common + self.ids(f"{alike} {i}", rest), max_tokens=4)
                      for i in range(3)]
            self.assertEqual(cached, [0, 0, alike // 64 * 64])

    def test_shifts(self):
        """100 tokens more in front are another text; 100 more at the end are the same one."""
        ids = self.ids("shift", 640)
        self.assertEqual(self.both(ids), 0)
        self.assertEqual(self.both(self.ids("front", 100) + ids), 0)
        self.assertEqual(self.both(ids + self.ids("end", 100)), 576)
        self.assertEqual(self.both(ids[:540]), 0)  # no checkpoint before 576: one is left at 512
        self.assertEqual(self.both(ids[:541]), 512)

    def test_abort_in_the_middle(self):
        """A prompt given up in mid-prefill: what it left is right, however much that is."""
        step_tokens, count = 64, 1990
        server = self.server(harness.DEMO, "--max-num-batched-tokens", step_tokens, *self.OPTIONS)
        client = self.own(server.client())
        for given in (0, 5):  # steps that are done before the abort is sent
            ids = self.ids(f"abort {given}", count)
            before = server.wait_idle()["steps"]
            request = client.submit(ids=ids, max_tokens=4, temperature=0)
            other = client.submit(ids=self.ids("other", 30), max_tokens=1 + given,
                                  ignore_eos=True)
            self.assertEqual(next(client.replies(request))["t"], "accepted")
            harness.wait_until(lambda: client.status()["steps"] >= before + given, 10, "steps")
            client.abort(request)
            answer = client.result(request)
            self.assertEqual((answer["finish_reason"], answer["ids"]), ("abort", []))
            self.assertEqual(len(client.result(other)["ids"]), 1 + given)
            self.assertLess(server.wait_idle()["steps"] - before, count // step_tokens)
            self.both(ids, client)
        self.both(ids + self.ids("more", 70), client)

    def test_penalties_count_what_was_cached(self):
        ids = self.ids("penalty", 300)
        for _ in range(2):
            self.both(ids, repetition_penalty=1.8, max_tokens=40)
            self.both(ids, repetition_penalty=0.6, frequency_penalty=-0.5, max_tokens=40)

    def test_http_says_how_much(self):
        body = {"prompt": self.ids("http", 200), "max_tokens": 2, "temperature": 0}
        cached = []
        for _ in range(2):
            request = urllib.request.Request(self.shared.url + "/v1/completions",
                                             json.dumps(body).encode(),
                                             {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as reply:
                usage = json.load(reply)["usage"]
            cached.append(usage["prompt_tokens_details"]["cached_tokens"])
        self.assertEqual(cached, [0, 192])


class Answers(harness.Case):
    """What is drawn leaves checkpoints, too: here every 64 tokens, so that answers can be short."""

    OPTIONS = ("--max-model-len", 1024, "--checkpoint-interval", 64)

    def ask(self, client, ids, **fields):
        return client.generate(ids=ids, ignore_eos=True, **fields)

    def conversation(self, client, fields):
        """Three turns, each with all that was said before; answers and cached tokens."""
        dice, text, turns = random.Random(5), [], []
        for _ in range(3):
            text = text + [dice.randrange(20, 3000) for _ in range(70)]
            answer = self.ask(client, text, **fields)
            turns.append((len(text), answer["ids"], answer["usage"]["cached_tokens"]))
            text = text + answer["ids"]
        return turns

    def test_an_answer_that_comes_back(self):
        greedy = {"max_tokens": 100, "temperature": 0}
        drawn = {"max_tokens": 100, "temperature": 0.8, "seed": 4, "repetition_penalty": 1.3,
                 "frequency_penalty": 0.4}
        for drafts in (0, 3):
            options = ("--speculative-tokens", drafts, *self.OPTIONS)
            server = self.server(harness.DEMO, *options)
            plain = self.server(harness.DEMO, "--no-prefix-cache", *options)
            client, plain_client = self.own(server.client()), self.own(plain.client())
            for fields in (greedy, drawn):
                turns = self.conversation(client, fields)
                fresh = self.conversation(plain_client, fields)
                self.assertEqual([turn[:2] for turn in turns], [turn[:2] for turn in fresh])
                for (before, answer, _), (_, _, cached) in zip(turns, turns[1:]):
                    # The last token of an answer is not run, and no step begins at it.
                    self.assertEqual(cached, (before + len(answer) - 2) // 64 * 64)
                self.assertEqual([cached for *_, cached in fresh], [0] * 3)

    def test_a_preempted_request_goes_on_in_its_answer(self):
        """Prompts shorter than a page: whatever is found has been drawn."""
        prompts = [[100 + i] * 40 for i in range(4)]
        fields = {"max_tokens": 500, "temperature": 0, "ignore_eos": True}
        options = ("--speculative-tokens", 3, *self.OPTIONS)
        plain = self.own(self.server(harness.DEMO, "--no-prefix-cache", *options).client())
        expected = [plain.generate(ids=ids, **fields)["ids"] for ids in prompts]
        server = self.server(harness.DEMO, "--kv-pages", 20, *options)
        client = self.own(server.client())
        requests = [client.submit(ids=ids, **fields) for ids in prompts]
        self.assertEqual([client.result(request)["ids"] for request in requests], expected)
        self.assertGreater(server.status()["preemptions"], 0)
        with urllib.request.urlopen(server.url + "/metrics", timeout=30) as reply:
            hits = [line.split()[-1] for line in reply.read().decode().splitlines()
                    if line.startswith("vllm:prefix_cache_hits_total")]
        self.assertGreater(float(hits[0]), 0)


if __name__ == "__main__":
    TURNS = argument("--turns", TURNS)
    CONVERSATIONS = argument("--conversations", CONVERSATIONS)
    SEED = argument("--seed", SEED)
    print(f"--seed {SEED}", file=sys.stderr)
    harness.main()
