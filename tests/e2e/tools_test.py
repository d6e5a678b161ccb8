#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools_test.py -- tool calls and thoughts at the HTTP door, before a core whose answers the test
writes (echo_door): what is streamed, what is whole, what ends how. Where the `openai` package is
installed its client reads the same answers."""
import json
import unittest

import harness
from http_test import Http

try:
    import openai
except ImportError:
    openai = None

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather of a place.",
        "parameters": {"type": "object", "required": ["place"], "properties": {
            "place": {"type": "string"}, "days": {"type": "integer"},
            "exact": {"type": "boolean"}, "box": {"type": "object"}}}}},
    {"type": "function", "function": {"name": "stop_all"}},
]
CHAT = "/v1/chat/completions"
PER_STEP = (1, 2, 5)


def call(name, **values):
    """A call as the model writes it."""
    lines = [f"<parameter={key}>\n{value}\n</parameter>" for key, value in values.items()]
    return "\n".join(["<tool_call>", f"<function={name}>", *lines, "</function>", "</tool_call>"])


def asking_for(answer, thinking=False, **fields):
    """A request whose answer will be this text."""
    return {"messages": [{"role": "user", "content": f"<|fim_prefix|>{answer}<|fim_suffix|>"}],
            "chat_template_kwargs": {"enable_thinking": thinking}, "tools": TOOLS, **fields}


def gathered(events):
    """A stream's deltas as a client puts them together: the message and why it ended."""
    message, reason, calls = {"content": "", "reasoning_content": ""}, None, []
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            for key in message:
                message[key] += delta.get(key) or ""
            for piece in delta.get("tool_calls", ()):
                if piece["index"] == len(calls):
                    assert piece["type"] == "function" and piece["function"]["arguments"] == ""
                    calls.append({"id": piece["id"], "type": "function", "function": {
                        "name": piece["function"]["name"], "arguments": ""}})
                else:
                    assert set(piece) == {"index", "function"}, piece
                    assert set(piece["function"]) == {"arguments"}, piece
                    assert piece["index"] == len(calls) - 1
                    calls[-1]["function"]["arguments"] += piece["function"]["arguments"]
            reason = choice["finish_reason"] or reason
    return message, calls, reason


class Tools(harness.Case):
    @classmethod
    def setUpClass(cls):
        cls.doors = []
        for count in PER_STEP:
            door = harness.Process([harness.program("echo_door"), "--model", harness.DEMO,
                                    "--per-step", count])
            cls.addClassCleanup(door.close)
            cls.doors.append(door.line("ready ").split("http=")[1])

    def each(self, body):
        """Yields what body's answer is, whole and streamed, at every number of tokens a step."""
        for url in self.doors:
            http = Http(url)
            code, _, answer = http.post(CHAT, body)
            self.assertEqual(code, 200, answer)
            choice = answer["choices"][0]
            whole = {"content": "", "reasoning_content": "", **choice["message"]}
            calls = whole.pop("tool_calls", [])
            self.assertEqual(whole.pop("role"), "assistant")
            whole["content"] = whole["content"] or ""
            yield whole, calls, choice["finish_reason"]
            yield gathered(http.events(CHAT, body))

    def check(self, body, calls, reason, content="", thought=""):
        """calls: (name, arguments as an object, or as text where they are cut)."""
        for message, got, why in self.each(body):
            self.assertEqual(message, {"content": content, "reasoning_content": thought})
            self.assertEqual(why, reason)
            self.assertEqual([one["function"]["name"] for one in got], [name for name, _ in calls])
            for one, (_, wanted) in zip(got, calls):
                text = one["function"]["arguments"]
                self.assertEqual(text if isinstance(wanted, str) else json.loads(text), wanted)
                self.assertEqual(one["type"], "function")
            self.assertEqual(len({one["id"] for one in got}), len(got))

    def test_one_call(self):
        self.check(asking_for(call("get_weather", place="Łódź \"a\\b\"\n2nd line", days="3")),
                   [("get_weather", {"place": "Łódź \"a\\b\"\n2nd line", "days": 3})],
                   "tool_calls")

    def test_types_follow_the_schema(self):
        self.check(asking_for(call("get_weather", place="12", days="12", exact="true",
                                   box='{"x": [1, 2.5, null]}')),
                   [("get_weather", {"place": "12", "days": 12, "exact": True,
                                     "box": {"x": [1, 2.5, None]}})], "tool_calls")

    def test_text_and_two_calls(self):
        text = "I look.\n" + call("get_weather", place="Oslo") + "\n" + call("stop_all")
        self.check(asking_for(text), [("get_weather", {"place": "Oslo"}), ("stop_all", {})],
                   "tool_calls", content="I look.\n")

    def test_thought_before_a_call(self):
        text = "They want\nthe weather.\n</think>\n\n" + call("get_weather", place="Bonn")
        self.check(asking_for(text, thinking=True), [("get_weather", {"place": "Bonn"})],
                   "tool_calls", thought="They want\nthe weather.")

    def test_call_within_a_thought_is_thought(self):
        text = call("stop_all") + "\nno.\n</think>\n\nDone."
        self.check(asking_for(text, thinking=True), [], "stop", content="Done.",
                   thought=call("stop_all") + "\nno.")

    def test_call_alone_has_null_content(self):
        answer = Http(self.doors[0]).post(CHAT, asking_for(call("stop_all")))[2]
        self.assertIsNone(answer["choices"][0]["message"]["content"])

    def test_talk_of_calls_is_text(self):
        text = "Write <tool_call> to call, as in <function=f>."
        self.check(asking_for(text), [], "stop", content=text)

    def test_without_tools_nothing_is_parsed(self):
        text = call("stop_all")
        self.check(asking_for(text, tools=None), [], "stop", content=text)
        self.check(asking_for(text, tools=[]), [], "stop", content=text)
        self.check(asking_for(text, tool_choice="none"), [], "stop", content=text)

    def test_none_leaves_tools_out_of_the_prompt(self):
        http = Http(self.doors[0])
        used = [http.post(CHAT, asking_for("x", **fields))[2]["usage"]["prompt_tokens"]
                for fields in ({}, {"tool_choice": "auto"}, {"tool_choice": "none"},
                               {"tools": None})]
        self.assertEqual(used[0], used[1])
        self.assertEqual(used[2], used[3])
        self.assertGreater(used[0], used[2] + 100)

    def test_cut_by_the_limit(self):
        text = call("get_weather", place="a very long name of a place that goes on and on")
        whole = Http(self.doors[0]).post(CHAT, asking_for(text))[2]["usage"]["completion_tokens"]
        message, calls, reason = gathered(Http(self.doors[0]).events(
            CHAT, asking_for(text, max_tokens=whole - 12)))
        self.assertEqual((message["content"], reason, len(calls)), ("", "length", 1))
        cut = calls[0]["function"]["arguments"]
        self.assertTrue(cut.startswith('{"place": "a very long'), cut)
        self.check(asking_for(text, max_tokens=whole - 12), [("get_weather", cut)], "length")

    def test_stop_string_before_and_after_a_call(self):
        text = "Well. " + call("stop_all") + " STOP here"
        self.check(asking_for(text, stop="STOP"), [("stop_all", {})], "tool_calls",
                   content="Well. ")
        self.check(asking_for(text, stop="ell"), [], "stop", content="W")

    def test_one_call_when_not_parallel(self):
        text = call("get_weather", place="Rome") + "\n" + call("stop_all") + " and so on"
        self.check(asking_for(text, parallel_tool_calls=False),
                   [("get_weather", {"place": "Rome"})], "tool_calls")

    def test_usage(self):
        http = Http(self.doors[1])
        body = asking_for(call("stop_all"))
        usage = http.post(CHAT, body)[2]["usage"]
        prompt = usage["prompt_tokens"]
        self.assertEqual(usage["prompt_tokens_details"], {"cached_tokens": prompt // 64 * 64})
        self.assertGreater(prompt, 128)
        events = http.events(CHAT, {**body, "stream_options": {"include_usage": True}})
        self.assertEqual(events[-1]["usage"], usage)

    def test_refused_by_name(self):
        function = {"name": "f"}
        for field, value, part in (
                ("tools", 5, "an array"), ("tools", ["x"], "tools[0]"),
                ("tools", [TOOLS[0], {"type": "function"}], "tools[1].function"),
                ("tools", [{"type": "web", "function": function}], "tools[0].type"),
                ("tools", [{"type": "function", "function": {"name": ""}}], "name"),
                ("tools", [{"type": "function", "function": {"name": "x" * 300}}], "256"),
                ("tools", [TOOLS[0]] * 1025, "1024"),
                ("tool_choice", "required", "required"), ("tool_choice", 5, "tool_choice"),
                ("tool_choice", {"type": "function", "function": function}, "by its name"),
                ("parallel_tool_calls", "no", "parallel_tool_calls"),
                ("separate_reasoning", False, "tools")):
            code, _, answer = Http(self.doors[0]).post(CHAT, asking_for("x", **{field: value}))
            self.assertEqual((code, answer["error"]["param"]), (400, field), answer)
            self.assertIn(part, answer["error"]["message"])

    def test_answers_of_tools_go_back(self):
        http = Http(self.doors[0])
        answer = http.post(CHAT, asking_for(call("get_weather", place="Ulm")))[2]
        turn = answer["choices"][0]["message"]
        body = asking_for("")
        body["messages"] += [turn, {"role": "tool", "tool_call_id": turn["tool_calls"][0]["id"],
                                    "content": "<|fim_prefix|>It rains.<|fim_suffix|>"}]
        answer = http.post(CHAT, body)[2]
        self.assertEqual(answer["choices"][0]["message"]["content"], "It rains.")

    @unittest.skipIf(openai is None, "raw HTTP above reads the same; pip install openai for this")
    def test_openai_client(self):
        client = openai.OpenAI(base_url=self.doors[0] + "/v1", api_key="none", max_retries=0)
        text = "Hm.\n" + call("get_weather", place="Kyiv", days="2")
        fields = asking_for(text)
        template = fields.pop("chat_template_kwargs")
        answer = client.chat.completions.create(
            model="echo", extra_body={"chat_template_kwargs": template}, **fields)
        found = answer.choices[0].message.tool_calls[0].function
        self.assertEqual(json.loads(found.arguments), {"place": "Kyiv", "days": 2})
        self.assertEqual(answer.choices[0].finish_reason, "tool_calls")
        arguments, names = "", []
        for chunk in client.chat.completions.create(
                model="echo", stream=True, extra_body={"chat_template_kwargs": template},
                stream_options={"include_usage": True}, **fields):
            for choice in chunk.choices:
                for piece in choice.delta.tool_calls or ():
                    names += [piece.function.name] if piece.function.name else []
                    arguments += piece.function.arguments or ""
        self.assertEqual((names, json.loads(arguments)),
                         (["get_weather"], {"place": "Kyiv", "days": 2}))
        self.assertEqual(chunk.usage.completion_tokens, answer.usage.completion_tokens)
        with self.assertRaises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="echo", tool_choice="required", **fields)
        self.assertEqual(caught.exception.param, "tool_choice")


if __name__ == "__main__":
    harness.main()
