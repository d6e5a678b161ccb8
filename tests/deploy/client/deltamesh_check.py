#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deltamesh_check.py ENDPOINT -- the Python client against a server with the demo model. Run by
python_client_test.c, which starts the server; prints "all checks passed" at the end.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../deploy/client"))
from deltamesh import Client, Error  # noqa: E402


def refused(code, part, call):
    try:
        call()
    except Error as error:
        assert error.code == code and part in error.text, f"{error.code}: {error.text}"
        return
    raise AssertionError(f"not refused as {code}: {part}")


def check_generate(client):
    pieces = list(client.stream(prompt="Once upon a time", max_tokens=12, temperature=0))
    assert len(pieces) > 1, "the text came in one piece"
    whole = client.generate(prompt="Once upon a time", max_tokens=12, temperature=0)
    assert whole["text"] == "".join(piece["text"] for piece in pieces)
    assert len(whole["ids"]) == 12 and whole["finish_reason"] == "length", whole
    assert whole["usage"]["completion_tokens"] == 12 and whole["usage"]["prompt_tokens"] > 1
    assert whole["ignored"] == ""
    ids = client.tokenize(text="Once upon a time")["ids"]
    by_ids = client.generate(ids=ids, max_tokens=12, temperature=0)
    assert by_ids["ids"] == whole["ids"], "a prompt as ids gives another text"
    seeded = [client.generate(prompt="The", max_tokens=8, temperature=1, seed=7)["ids"]
              for _ in range(2)]
    assert seeded[0] == seeded[1], "one seed, two texts"
    assert client.generate(prompt="The", max_tokens=2, temprature=9)["ignored"] == "temprature"


def check_chat(client):
    messages = [{"role": "user", "content": "Hi"}]
    answer = client.generate(messages=messages, max_tokens=5, temperature=0, enable_thinking=False)
    assert answer["ids"] and answer["text"], answer


def check_many(client):
    alone = [client.generate(prompt=f"Number {i}", max_tokens=6, temperature=0) for i in range(4)]
    requests = [client.submit(prompt=f"Number {i}", max_tokens=6, temperature=0) for i in range(4)]
    for i in (2, 0, 3, 1):
        assert client.result(requests[i])["ids"] == alone[i]["ids"], f"request {i} differs"


def check_abort(client):
    request = client.submit(prompt="Once", max_tokens=3000, ignore_eos=True)
    replies = client.replies(request)
    kinds = [next(replies)["t"], next(replies)["t"]]
    assert kinds == ["accepted", "delta"], kinds
    client.abort(request)
    last = list(replies)[-1]
    assert last["t"] == "final" and last["finish_reason"] == "abort", last


def check_refusals(client):
    refused("bad_input", "'temperature'", lambda: client.generate(prompt="x", temperature=-1))
    refused("bad_input", "nan", lambda: client.generate(prompt="x", temperature=float("nan")))
    refused("bad_input", "prompt", lambda: client.generate(max_tokens=3))
    refused("bad_input", "ids", lambda: client.generate(ids=[1, 10**6]))
    refused("unsupported", "multi_modal_data",
            lambda: client.generate(prompt="x", multi_modal_data={"image": "x"}))
    refused("unsupported", "structured_outputs",
            lambda: client.generate(prompt="x", structured_outputs={"json": {}}))
    refused("limit", "16777216", lambda: client.generate(prompt="x" * (17 << 20)))
    neutral = {"n": 1, "presence_penalty": 0.0, "repetition_penalty": 1.0, "logprobs": None,
               "stop": [], "max_tokens": 1}
    assert client.generate(prompt="x", **neutral)["usage"]["completion_tokens"] == 1


def main():
    refused("connection", "no server", lambda: Client("tcp://127.0.0.1:9", connect_s_max=0.5))
    with Client(sys.argv[1]) as client:
        assert client.status()["state"] == "ready"
        for check in (check_generate, check_chat, check_many, check_abort, check_refusals):
            check(client)
            print(check.__name__, flush=True)
        client.drain()
    print("all checks passed")


if __name__ == "__main__":
    main()
