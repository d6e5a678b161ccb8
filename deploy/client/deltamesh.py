# SPDX-License-Identifier: Apache-2.0
"""deltamesh.py -- the RPC client in Python: pyzmq and msgpack, nothing else.

    from deltamesh import Client

    with Client("tcp://127.0.0.1:5570") as client:
        for delta in client.stream(prompt="Once upon a time", max_tokens=50):
            print(delta["text"], end="", flush=True)
        answer = client.generate(ids=[1, 2, 3], max_tokens=5, temperature=0)
        print(answer["ids"], answer["finish_reason"], answer["usage"])

    with Client("tcp://10.0.0.1:5570", curve_dir="keys") as client: ...

curve_dir has server.public, client.public and client.secret, from `deltamesh keys`.
The messages are described in parallel/wire/README.md. A client belongs to one thread.
"""
import itertools
import json
import os
import time

import msgpack
import zmq
from zmq.utils.monitor import recv_monitor_message

FRAME_BYTES_MAX = 16 << 20
SILENCE_S_MAX = 10  # the server pings every second while something is unfinished


class Error(Exception):
    """The server refused or failed a request: code ("bad_input", "overloaded", ...) and text."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text


class Client:
    def __init__(self, endpoint, connect_s_max=5, curve_dir=None):
        self.endpoint = endpoint
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        # RCVHWM: libzmq 4.3 aborts when a full queue's connection breaks and a heartbeat is due
        for option, value in ((zmq.LINGER, 0), (zmq.RCVHWM, 0), (zmq.HEARTBEAT_IVL, 500),
                              (zmq.HEARTBEAT_TIMEOUT, 3000), (zmq.MAXMSGSIZE, FRAME_BYTES_MAX)):
            self.socket.setsockopt(option, value)
        if curve_dir is not None:
            for option, name in ((zmq.CURVE_SERVERKEY, "server.public"),
                                 (zmq.CURVE_PUBLICKEY, "client.public"),
                                 (zmq.CURVE_SECRETKEY, "client.secret")):
                with open(os.path.join(curve_dir, name), "rb") as file:
                    self.socket.setsockopt(option, file.read().strip())
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED
                                                      | zmq.EVENT_DISCONNECTED)
        self.socket.connect(endpoint)
        self.numbers = itertools.count(1)
        self.waiting = {}  # id -> replies that came while another request was read
        self._connect(connect_s_max)

    def _connect(self, seconds):
        """Waits for the handshake; a server that turns this client away ends the connection."""
        end, refused = time.monotonic() + seconds, ""
        while self.monitor.poll(max(0, int(1000 * (end - time.monotonic())))):
            if recv_monitor_message(self.monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return
            refused = "; it refuses the handshake (CURVE keys? curve_dir=)"
        self.close()
        raise Error("connection",
                    f"no server at {self.endpoint} answered within {seconds} s{refused}")

    def close(self):
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close()
        self.context.term()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def submit(self, **fields):
        """Sends a generate request (prompt=, ids= or messages=, and any sampling field); its id."""
        return self._send("generate", **fields)

    def replies(self, request):
        """The replies to a submitted request, as they come: "accepted", "delta" ..., "final". The
        server's pings, one a second while it has unfinished work, are not shown."""
        while True:
            reply = self._next(request)
            if reply["t"] == "error":
                self.waiting.pop(request, None)
                raise Error(reply["error"], reply["text"])
            if reply["t"] == "final":
                self.waiting.pop(request, None)
            yield reply
            if reply["t"] == "final":
                return

    def stream(self, **fields):
        """Submits and gives the deltas: {"ids": [..], "text": ".."}, "logprobs" if asked for."""
        for reply in self.replies(self.submit(**fields)):
            if reply["t"] == "delta":
                yield reply

    def generate(self, **fields):
        """Submits and gives the whole answer: ids, text, finish_reason, usage, seed, ignored; and
        logprobs, prompt_logprobs if asked for. With n= "choices" has all of them, and the answer
        itself is the first with the usage of all."""
        return self.result(self.submit(**fields))

    def result(self, request):
        """The whole answer to a submitted request."""
        choices, whole = {}, {}
        for reply in self.replies(request):
            choice = choices.setdefault(reply.get("index", 0), {"ids": [], "text": ""})
            if reply["t"] == "delta":
                choice["ids"] += reply["ids"]
                choice["text"] += reply["text"]
                for key in ("logprobs", "prompt_logprobs"):
                    if key in reply:
                        choice.setdefault(key, []).extend(reply[key])
            elif reply["t"] == "choice":
                choice.update(reply)
            else:
                whole.update(reply)
        answer = {**choices[0], **whole}
        if len(choices) > 1:
            answer["choices"] = [choices[index] for index in sorted(choices)]
        return answer

    def abort(self, request):
        """Asks the server to end a request; its "final" still comes, with "abort"."""
        self.socket.send(msgpack.packb({"t": "abort", "id": request}))

    def status(self):
        return json.loads(self._ask("status")["text"])

    def tokenize(self, **fields):
        """text=, ids= or messages=, as in a line of `deltamesh tokenize`."""
        return json.loads(self._ask("tokenize", **fields)["text"])

    def drain(self):
        """Lets the server finish what it has and end."""
        self._ask("drain")

    def _ask(self, kind, **fields):
        request = self._send(kind, **fields)
        reply = self._next(request)
        self.waiting.pop(request, None)
        if reply["t"] == "error":
            raise Error(reply["error"], reply["text"])
        return reply

    def _send(self, kind, **fields):
        request = str(next(self.numbers))
        frame = msgpack.packb({"t": kind, "id": request, **fields})
        if len(frame) > FRAME_BYTES_MAX:
            raise Error("limit", f"a message of {len(frame)} bytes, the limit is {FRAME_BYTES_MAX}")
        self.socket.send(frame)
        self.waiting[request] = []
        return request

    def _next(self, request):
        """The next reply to this request; others are kept for those who ask for them."""
        heard = time.monotonic()
        while not self.waiting[request]:
            if self.socket.poll(200):
                heard = time.monotonic()
                self._sort_in(msgpack.unpackb(self.socket.recv()))
            elif self.monitor.poll(0) and not self.socket.poll(0):  # all that had come is read
                raise Error("connection", f"the connection to {self.endpoint} broke")
            elif time.monotonic() - heard > SILENCE_S_MAX:
                raise Error("connection", f"{self.endpoint} was silent for {SILENCE_S_MAX} s")
        return self.waiting[request].pop(0)

    def _sort_in(self, reply):
        if reply["t"] == "ping":
            return
        if reply.get("id") in self.waiting:
            self.waiting[reply["id"]].append(reply)
        elif reply["t"] == "error" and not reply.get("id"):
            raise Error(reply["error"], reply["text"])
