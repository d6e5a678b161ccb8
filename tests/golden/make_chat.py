#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/text/chat.json and chat_tools.json: conversations as transformers'
apply_chat_template renders them.

  python tests/golden/make_chat.py --template FILE --later FILE      with transformers

--template is the chat template published with Qwen3.5, --later the one of Qwen3.6, which writes
the numbers and constants of a tool call as JSON and knows preserve_thinking; neither is in the
repository. Cases with "json_scalars" are of the later one. The demo model's own template, which is,
must agree with the first on every case. Formats: tests/golden/text/README.md. Same seeds, same
bytes.
"""
import argparse
import json
import pathlib
import random
import struct

import jinja2
from transformers import PreTrainedTokenizerFast

from make_text import DEMO, HERE, WORDS

TEXTS = ["Paris", "two words", "a\nb\n", " padded ", "", "null", "None", "true", "12", "[1, 2]",
         "it's <b>&amp;</b> \"quoted\"", "back\\slash\t\x01\x1f\x7f", "na\u00efve \u65e5\u672c",
         "\U0001f600\u2028\u2029\u00a0", "<tool_call>", "</parameter>", "{\"a\": 1}", "50%"]
NUMBERS = [0, 1, -1, 42, 10**15, 2**63 - 1, -2**63, 0.1, 1.0, -0.0, 1e15, 1e16, 1e22, 1e-4, 1e-5,
           123456789.125, 5e-324, 1.7976931348623157e308, 2.5, 1 / 3, 1e100, 9007199254740993.0]
INSTRUCTIONS_MARK = "\x02"
TYPES = ["string", "integer", "number", "boolean", "object", "array", "null"]


# ---------------------------------------------------------------- plain turns
def chat_content(rng):
    blank = ["", "", "", " ", "\n", "\t\n ", "\u00a0", "\u3000", "\x1f", "\u200b", "\u2028"]
    words = " ".join(rng.choice(WORDS[:24]) for _ in range(rng.randrange(0, 6))).replace("\0", "")
    text = rng.choice(blank) + words + rng.choice(blank)
    if rng.random() < 0.15:
        return [{"type": "text", "text": piece} for piece in (text, rng.choice(blank), "b ")]
    return None if rng.random() < 0.03 else text


def chat_answer(rng):
    message = {"role": "assistant", "content": chat_content(rng)}
    kind = rng.randrange(6)
    if kind == 0:
        message["reasoning_content"] = rng.choice(["", " thought \n", "a\n\nb", None])
        if rng.random() < 0.5:
            message["content"] = "<think>in</think>\nout"
    elif kind == 1:
        message["content"] = "<think>\n" + rng.choice(["why", " ", "x</think>y"]) + \
            "\n</think>\n\n  answer"
    elif kind == 2:
        message["content"] = rng.choice(["</think>rest", "a<think>b<think>c</think>\n",
                                         "<think>open"])
    return message


def chat_case(rng):
    messages = []
    if rng.random() < 0.4:
        messages.append({"role": "system", "content": chat_content(rng)})
    for _ in range(rng.randrange(0, 4)):
        messages.append({"role": "user", "content": chat_content(rng)})
        if rng.random() < 0.2:
            messages.append(chat_answer(rng))
            messages.append({"role": "user", "content": " <tool_response>\nx\n</tool_response> "})
        if rng.random() < 0.8:
            messages.append(chat_answer(rng))
    if rng.random() < 0.8:
        messages.append({"role": "user", "content": chat_content(rng)})
    if rng.random() < 0.03:
        messages.append({"role": "system", "content": "late"})
    return {"messages": messages, "add_generation_prompt": rng.random() < 0.7,
            "enable_thinking": rng.random() < 0.6}


# ---------------------------------------------------------------- tools
def number(rng):
    if rng.random() < 0.6:
        return rng.choice(NUMBERS)
    if rng.random() < 0.5:
        return rng.randrange(-2**63, 2**63) >> rng.randrange(64)
    value = struct.unpack("<d", rng.randbytes(8))[0]
    return value if abs(value) < float("inf") else 0.5


def value(rng, depth):
    kind = rng.randrange(7 if depth > 0 else 5)
    if kind < 2:
        return rng.choice(TEXTS)
    if kind == 2:
        return number(rng)
    if kind < 5:
        return rng.choice([True, False, None, 7, 0.25])
    if kind == 5:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(["a", "b c", "\u00e9", "key", "\"", "z"]): value(rng, depth - 1)
            for _ in range(rng.randrange(4))}


def tool(rng):
    properties = {name: {"type": rng.choice(TYPES), "description": rng.choice(TEXTS)}
                  for name in rng.sample(["city", "count", "ratio", "flag", "options", "\u540d"],
                                         rng.choice([0, 1, 1, 2, 4]))}
    for schema in properties.values():
        if rng.random() < 0.3:
            schema[rng.choice(["enum", "default", "minimum", "anyOf"])] = value(rng, 1)
    function = {"name": rng.choice(["get_weather", "run", "max-retries", "ns.tool"]),
                "description": rng.choice(TEXTS),
                "parameters": {"type": "object", "properties": properties,
                               "required": sorted(properties)[:1]}}
    if rng.random() < 0.2:
        return function
    return {"type": "function", "function": function} if rng.random() < 0.8 else \
        {"function": function, "x": value(rng, 2), "type": "function"}


def tool_call(rng):
    function = {"name": rng.choice(["get_weather", "run"])}
    if rng.random() < 0.95:
        function["arguments"] = {name: value(rng, rng.choice([0, 0, 1, 2])) for name in rng.sample(
            ["city", "count", "ratio", "flag", "options"], rng.randrange(4))}
    if rng.random() < 0.2:
        return function
    return {"id": "call_1", "type": "function", "function": function}


def tool_answer(rng):
    message = chat_answer(rng)
    if rng.random() < 0.5:
        message["content"] = rng.choice(["", None, "I look."])
    if rng.random() < 0.2:
        message[rng.choice(["reasoning", "thinking"])] = rng.choice(["by another name", None])
    message["tool_calls"] = [tool_call(rng) for _ in range(rng.choice([1, 1, 1, 2, 3, 0]))]
    return message


def tools_case(rng):
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": chat_content(rng)})
    for _ in range(rng.choice([1, 1, 2])):
        if rng.random() < 0.97:
            messages.append({"role": "user", "content": chat_content(rng)})
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            messages.append(tool_answer(rng))
            for _ in range(rng.choice([0, 1, 1, 2])):
                messages.append({"role": "tool", "tool_call_id": "call_1",
                                 "content": chat_content(rng)})
        if rng.random() < 0.5:
            messages.append(chat_answer(rng))
    if rng.random() < 0.03:
        messages.append({"role": rng.choice(["system", "developer", "function"]), "content": "x"})
    case = {"messages": messages, "add_generation_prompt": rng.random() < 0.7,
            "enable_thinking": rng.random() < 0.6}
    if rng.random() < 0.8:
        case["tools"] = [tool(rng) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    if rng.random() < 0.5:
        case["json_scalars"] = True
        case["preserve_thinking"] = rng.random() < 0.5
    return case


def with_texts(rng, messages):
    """The same messages, the arguments of some calls as the JSON text that OpenAI's clients send,
    which the template does not read."""
    messages = json.loads(json.dumps(messages))
    for message in messages:
        for call in message.get("tool_calls", []):
            function = call.get("function", call)
            if "arguments" in function and rng.random() < 0.4:
                separators = rng.choice([(",", ":"), (", ", ": "), (" ,", " : ")])
                function["arguments"] = json.dumps(
                    function["arguments"], separators=separators,
                    ensure_ascii=rng.random() < 0.5)
    return messages


# ---------------------------------------------------------------- files
def render(tokenizer, template, case):
    options = {key: option for key, option in case.items()
               if key not in ("messages", "json_scalars")}
    try:
        return tokenizer.apply_chat_template(case["messages"], chat_template=template,
                                             tokenize=False, **options)
    except (jinja2.TemplateError, ValueError):
        return None


def take_out_instructions(cases):
    """Replaces what the template tells about every list of tools by a mark, and returns it."""
    start, end = "\n</tools>", "</IMPORTANT>"
    text = next(case["text"] for case in cases if case["text"] and case.get("tools"))
    instructions = text[text.index(start):text.index(end) + len(end)]
    for case in cases:
        if case["text"] and case.get("tools"):
            assert case["text"].count(instructions) == 1
            case["text"] = case["text"].replace(instructions, INSTRUCTIONS_MARK)
    return instructions


def write(name, cases):
    lines = [json.dumps(case, ensure_ascii=False, separators=(",", ":")
                        if "tools" in name else None) for case in cases]
    (HERE / name).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    refused = sum(case["text"] is None for case in cases)
    print(f"{name}: {len(cases)} cases, {refused} refused")


def main():
    parser = argparse.ArgumentParser(description="Writes the golden conversations.")
    parser.add_argument("--template", required=True)
    parser.add_argument("--later", required=True)
    arguments = parser.parse_args()
    first, later, own = (pathlib.Path(path).read_text(encoding="utf-8") for path in (
        arguments.template, arguments.later, DEMO / "chat_template.jinja"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(HERE / "family/tokenizer.json"))
    plain, tools = random.Random(11), random.Random(12)
    cases = [chat_case(plain) for _ in range(260)], [tools_case(tools) for _ in range(220)]
    for case in cases[0] + cases[1]:
        case["text"] = render(tokenizer, later if "json_scalars" in case else first, case)
    for case in cases[0] + cases[1]:
        if "json_scalars" not in case and render(tokenizer, own, case) != case["text"]:
            raise SystemExit(f"the demo's template differs: {json.dumps(case)[:2000]}")
    instructions = take_out_instructions(cases[1])
    for case in cases[1]:
        case["messages"] = with_texts(tools, case["messages"])
    write("chat.json", cases[0])
    write("chat_tools.json", [{"text": instructions}] + cases[1])


if __name__ == "__main__":
    main()
