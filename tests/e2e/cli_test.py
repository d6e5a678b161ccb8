#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""cli_test.py -- every form of generate, tokenize and status, and the exit codes: 0 ok, 1 usage,
2 bad input, 3 no connection, 4 the server refused or failed."""
import json
import os
import shutil
import subprocess
import tempfile

import harness
from harness import run

NOBODY = "tcp://127.0.0.1:1"
PROMPT = "Once upon a time"


def answers_of(result):
    """The JSON lines of `generate --json`, by index."""
    return {line["index"]: line for line in harness.json_lines(result.stdout)}



def said(answer):
    """An answer without how it was come by: how many drafts pay is measured, and may differ."""
    usage = {key: count for key, count in answer["usage"].items()
             if key not in ("drafted", "accepted", "target_steps")}
    return {**answer, "usage": usage}


class Generate(harness.SharedCase):
    def generate(self, *words, **options):
        return run("generate", "--rpc", self.shared.endpoint, *words, **options)

    def test_a_prompt_is_streamed_as_text(self):
        result = self.generate("--prompt", PROMPT, "--max-tokens", 24)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout.startswith(" there lived a little boy"), result.stdout)
        self.assertIn("24 tokens in", result.stderr)
        one = self.generate("--prompt", PROMPT, "--max-tokens", 24, "--json")
        self.assertEqual(json.loads(one.stdout)["text"] + "\n", result.stdout)

    def test_prompt_ids_are_the_prompt(self):
        ids = json.loads(run("tokenize", "--model", harness.DEMO,
                             stdin=json.dumps({"text": PROMPT})).stdout)["ids"]
        text = self.generate("--prompt", PROMPT, "--max-tokens", 9, "--json")
        same = self.generate("--prompt-ids", ",".join(map(str, ids)), "--max-tokens", 9, "--json")
        self.assertEqual(same.returncode, 0, same.stderr)
        line = json.loads(text.stdout)
        self.assertEqual(said(json.loads(same.stdout)), said(line))
        self.assertEqual(sorted(line), ["finish_reason", "ids", "index", "text", "usage"])
        self.assertEqual(sorted(line["usage"]), ["accepted", "cached_tokens", "completion_tokens",
                                                 "drafted", "prompt_tokens", "target_steps"])

    def test_requests_from_a_file_and_from_stdin(self):
        lines = [{"prompt": PROMPT, "max_tokens": 6}, {"ids": [5, 6, 7], "max_tokens": 4},
                 {"messages": [{"role": "user", "content": "Hello!"}], "enable_thinking": False},
                 {"prompt": "The king", "temperature": 1.0, "seed": 5, "max_tokens": 5}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.write(text)
            file.flush()
            one = self.generate("--requests", file.name, "--json", "--max-tokens", 12)
        two = self.generate("--requests", "-", "--json", "--max-tokens", 12, stdin=text)
        self.assertEqual((one.returncode, two.returncode), (0, 0), one.stderr + two.stderr)
        answers = answers_of(one)
        self.assertEqual({i: said(answer) for i, answer in answers.items()},
                         {i: said(answer) for i, answer in answers_of(two).items()})
        self.assertEqual(sorted(answers), [0, 1, 2, 3])
        counts = [answers[i]["usage"]["completion_tokens"] for i in range(4)]
        self.assertEqual((counts[0], counts[1], counts[3]), (6, 4, 5))
        self.assertTrue(answers[2]["text"].startswith("Hello!"), answers[2])
        plain = self.generate("--requests", "-", "--max-tokens", 12, stdin=text)
        self.assertIn("# 0 length, 6 tokens\n there lived", plain.stdout)

    def test_a_bad_line_is_named_and_the_rest_goes_on(self):
        lines = ['{"prompt":"One","max_tokens":2}', "{not json}", '{"prompt":"a","max_tokens":0}',
                 '{"ids":[99999]}', '{"prompt":"One","max_tokens":2}']
        result = self.generate("--requests", "-", "--json", stdin="\n".join(lines) + "\n")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("3 of 5 requests failed", result.stderr)
        answers = answers_of(result)
        self.assertEqual(sorted(answers), [0, 1, 2, 3, 4])
        self.assertEqual(answers[0]["ids"], answers[4]["ids"])
        for index, code, part in ((1, "bad_input", "line 2"), (2, "bad_input", "max_tokens"),
                                  (3, "bad_input", "99999")):
            self.assertEqual(answers[index]["error"]["code"], code)
            self.assertIn(part, answers[index]["error"]["message"])

    def test_sampling_options_arrive(self):
        def ids(*words):
            result = self.generate("--prompt", "One day", "--max-tokens", 20, "--json", *words)
            self.assertEqual(result.returncode, 0, result.stderr)
            return json.loads(result.stdout)["ids"]
        greedy = ids()
        self.assertEqual(ids("--temperature", 0), greedy)
        drawn = ids("--temperature", 1.5, "--seed", 3)
        self.assertEqual(ids("--temperature=1.5", "--seed=3"), drawn)
        self.assertNotEqual(ids("--temperature", 1.5, "--seed", 4), drawn)
        self.assertEqual(len(ids("--ignore-eos", "--max-tokens", 60)), 60)

    def test_ignored_fields_are_named(self):
        result = self.generate("--requests", "-",
                               stdin='{"prompt":"One","max_tokens":1,"temprature":1}\n')
        self.assertEqual(result.returncode, 0)
        self.assertIn("temprature", result.stderr)

    def test_exit_code_2_for_bad_input(self):
        for words, parts in (((b"--prompt", b"abc\xff\xfe"), ("UTF-8", "byte 3")),
                             (("--prompt-ids", "1,2,70000"), ("70000", "3832")),
                             (("--prompt", ""), ("empty",)),
                             (("--requests", "/nonexistent.jsonl"), ("/nonexistent.jsonl",))):
            result = self.generate(*words)
            self.assertEqual(result.returncode, 2, result.stderr)
            for part in parts:
                self.assertIn(part, result.stderr)

    def test_exit_code_1_for_ids_that_are_no_numbers(self):
        result = self.generate("--prompt-ids", "1,x")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("'x'", result.stderr)

    def test_exit_code_4_when_stdout_takes_nothing(self):
        rpc = ("--rpc", self.shared.endpoint)
        keys = tempfile.mkdtemp(prefix="deltamesh-e2e-")
        self.addCleanup(shutil.rmtree, keys)
        lines = b'{"prompt":"One","max_tokens":2}\n' * 400
        for words, stdin in ((("generate", *rpc, "--prompt", PROMPT, "--max-tokens", 500), b""),
                             (("generate", *rpc, "--requests", "-"), lines),
                             (("generate", *rpc, "--requests", "-", "--json"), b"{no json}\n"),
                             (("tokenize", "--model", harness.DEMO), b'{"text":"a"}\n'),
                             (("status", *rpc), b""), (("status", *rpc, "--watch"), b""),
                             (("bench", *rpc, "--num-prompts", 2, "--input-len", 2,
                               "--output-len", 2, "--concurrency", "1,2,4"), b""),
                             (("keys", "--curve-dir", keys), b""), (("serve", "--help"), b""),
                             (("serve", "--model", harness.DEMO, "--dry-run"), b"")):
            with open("/dev/full", "wb") as full:
                result = subprocess.run([harness.program(), *map(str, words)], input=stdin,
                                        stdout=full, stderr=subprocess.PIPE, timeout=30,
                                        check=False)
            self.assertEqual(result.returncode, 4, f"{words}: {result.stderr}")
            self.assertEqual(result.stderr.count(b"stdout: No space left on device"), 1,
                             f"{words}: {result.stderr}")
            self.assertNotIn(b"tokens/s", result.stderr)  # it stopped

    def test_status(self):
        result = run("status", "--rpc", self.shared.endpoint, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        status = json.loads(result.stdout)
        self.assertEqual((status["state"], status["groups_ready"]), ("ready", 1))
        self.assertEqual(status["slots"], 32)
        table = run("status", "--rpc", self.shared.endpoint)
        self.assertIn("slots_free", table.stdout)


class OwnServer(harness.Case):
    def test_generate_with_its_own_server(self):
        result = run("generate", "--model", harness.DEMO, "--tp", 2, "--backend", "cpu",
                     "--prompt", PROMPT, "--max-tokens", 8)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout.startswith(" there lived"), result.stdout)

    def test_generate_without_a_tokenizer(self):
        words = ("generate", "--model", harness.golden("dense_tied_r1"), "--load-format", "dummy")
        result = run(*words, "--prompt-ids", "1,2,3", "--max-tokens", 5)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(len(result.stdout.strip().split(",")), 5)
        result = run(*words, "--prompt", "hi")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("tokenizer", result.stderr)

    def test_generate_of_a_model_that_is_not_there(self):
        result = run("generate", "--model", "/nonexistent", "--prompt", "hi")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("/nonexistent", result.stderr)


class NoServer(harness.Case):
    def test_exit_code_1_for_usage(self):
        model = ("--model", harness.DEMO)
        for words, part in ((("bogus",), "bogus"), ((), "usage"), (("serve",), "--model"),
                            (("serve", *model, "--tp", "0"), "--tp"),
                            (("serve", *model, "--no-such"), "--no-such"),
                            (("serve", *model, "--max-num-seqs", "many"), "many"),
                            (("generate", "--prompt", "a"), "--rpc"),
                            (("generate", "--rpc", NOBODY), "--prompt"),
                            (("generate", "--rpc", NOBODY, "--prompt", "a", "--prompt-ids", "1"),
                             "--prompt"),
                            (("generate", "--rpc", "nonsense", "--prompt", "a"), "nonsense"),
                            (("generate", "--rpc", NOBODY, "--prompt", "a", "--temperature",
                              "nan"), "--temperature"),
                            (("tokenize",), "--model"), (("status",), "--rpc")):
            result = run(*words)
            self.assertEqual(result.returncode, 1, f"{words}: {result.stderr}")
            self.assertIn(part, result.stderr)
            self.assertEqual(result.stdout, "")

    def test_exit_code_3_without_a_server(self):
        for words in (("status",), ("generate", "--prompt", "hi")):
            result = run(words[0], "--rpc", NOBODY, *words[1:])
            self.assertEqual(result.returncode, 3, result.stderr)
            self.assertIn(NOBODY, result.stderr)

    def test_version_and_help(self):
        programs = ("deltamesh", "deltamesh-coordinator", "deltamesh-worker-cpu")
        for name in programs:
            for word, part in (("--version", "0.1.0"), ("--help", "usage: " + name)):
                result = subprocess.run([harness.program(name), word], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, timeout=20, check=False)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn(part, result.stdout.decode())
        for command in ("serve", "generate", "tokenize", "status"):
            result = run(command, "--help")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn(f"usage: deltamesh {command}", result.stdout)

    def test_dry_run_prints_the_memory_plan_and_starts_nothing(self):
        result = run("serve", "--model", harness.DEMO, "--tp", 2, "--dry-run")
        self.assertEqual(result.returncode, 0, result.stderr)
        for part in ("weights", "KV pages", "states", "total", "tensor parallel 2"):
            self.assertIn(part, result.stdout)
        self.assertNotIn("ready", result.stdout)

    def test_tokenize(self):
        lines = [{"text": "Hello, little fox"}, {"text": ""}, {"nonsense": 1},
                 {"messages": [{"role": "user", "content": "Hi"}], "enable_thinking": False},
                 {"text": "Grüße, 世界"}]
        text = "\n".join(json.dumps(line) for line in lines) + "\nno json\n"
        result = run("tokenize", "--model", harness.DEMO, stdin=text)
        self.assertEqual(result.returncode, 0, result.stderr)
        answers = harness.json_lines(result.stdout)
        self.assertEqual(len(answers), 6)
        self.assertEqual(answers[1]["ids"], [])
        self.assertIn("error", answers[2])
        self.assertIn("error", answers[5])
        self.assertIn("Hi", answers[3]["text"])
        back = run("tokenize", "--model", harness.DEMO,
                   stdin="".join(json.dumps({"ids": answers[i]["ids"]}) + "\n" for i in (0, 3, 4)))
        texts = [line["text"] for line in harness.json_lines(back.stdout)]
        self.assertEqual(texts, [lines[0]["text"], answers[3]["text"], lines[4]["text"]])

    def test_tokenize_without_a_tokenizer(self):
        result = run("tokenize", "--model", harness.golden("dense_tied_r1"), stdin="")
        self.assertEqual(result.returncode, 2)
        self.assertIn("tokenizer.json", result.stderr)


class Demo(harness.Case):
    def test_the_demo_runs(self):
        script = os.path.join(harness.ROOT, "deploy", "demo.sh")
        result = subprocess.run([script, "--bin", os.path.dirname(harness.program()),
                                 "--max-tokens", "24"], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=120, check=False)
        text = result.stdout.decode()
        self.assertEqual(result.returncode, 0, text)
        for part in ("ready rpc=", " there lived", "tokens/s", "drained, exit 0"):
            self.assertIn(part, text)


if __name__ == "__main__":
    harness.main()
