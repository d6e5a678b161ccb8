# SPDX-License-Identifier: Apache-2.0
"""harness.py -- real processes for the end-to-end tests: starts `deltamesh serve` and its parts on
free ports, watches them, and ends whatever a test leaves behind. Every wait here is bounded."""
import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import msgpack
import zmq

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "deploy", "client"))
import deltamesh  # noqa: E402  (the client that users get, found beside the server)

DEMO = os.path.join(ROOT, "deploy", "demo", "model")
GOLDEN = os.path.join(ROOT, "tests", "golden")
SMALL = ("--max-model-len", "1024", "--max-num-seqs", "32", "--max-num-batched-tokens", "1024")
READY_S_MAX = 60
END_S_MAX = 20
_bin = os.path.join(ROOT, "build", "cpu", "bin")
_libc = ctypes.CDLL(None)


def main():
    """The whole test file as a program: --bin DIR, then unittest's own arguments."""
    global _bin
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bin", default=_bin)
    options, rest = parser.parse_known_args()
    _bin = os.path.abspath(options.bin)
    unittest.main(module="__main__", argv=[sys.argv[0]] + rest, verbosity=2)


def program(name="deltamesh"):
    return os.path.join(_bin, name)


def golden(case):
    return os.path.join(GOLDEN, case)


def wait_until(condition, seconds, what):
    """Polls until condition() is true and gives its value; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def run(*words, stdin=None, timeout=60, env=None):
    """Runs `deltamesh WORDS`; its CompletedProcess with text (stdin may be bytes)."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    result = subprocess.run([program(), *[as_word(word) for word in words]], input=data,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                            env=env, check=False, preexec_fn=_die_with_parent)
    result.stdout = result.stdout.decode("utf-8", "replace")
    result.stderr = result.stderr.decode("utf-8", "replace")
    return result


def as_word(word):
    return word if isinstance(word, (bytes, str)) else str(word)


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line]


def _die_with_parent():
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives a test that was killed


def processes():
    """{pid: (name, state, parent, session)} of every process here."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue  # it has just ended
        name = text[text.index("(") + 1:text.rindex(")")]
        fields = text[text.rindex(")") + 2:].split()
        found[int(entry)] = (name, fields[0], int(fields[1]), int(fields[3]))
    return found


def shared_memory():
    """Names of our segments in /dev/shm, of any test that runs now."""
    return {name for name in os.listdir("/dev/shm") if name.startswith("deltamesh-")}


def mapped_segments(pid):
    """Our segments in /dev/shm that a process has mapped, deleted ones included."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            return {line.split("/dev/shm/")[1].split()[0] for line in file if "/dev/shm/" in line}
    except OSError:
        return set()


class Process:
    """A child in a session of its own; its stdout lines and its stderr text are kept."""

    def __init__(self, words):
        self.words = [as_word(word) for word in words]
        self.lines = []
        self.folder = tempfile.mkdtemp(prefix="deltamesh-e2e-")
        self.error_path = os.path.join(self.folder, "stderr")
        with open(self.error_path, "wb") as errors:
            self.child = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True, preexec_fn=_die_with_parent)
        self.pid = self.child.pid
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    @property
    def stderr(self):
        with open(self.error_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def line(self, head, seconds=READY_S_MAX):
        """The first line of stdout that begins with head; the child must not end before it."""
        def look():
            for line in self.lines:
                if line.startswith(head):
                    return line
            if self.child.poll() is not None:
                raise AssertionError(f"ended with {self.child.returncode} before '{head}':\n"
                                     f"{self.stderr}")
            return None
        try:
            return wait_until(look, seconds, f"'{head}' on stdout")
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{self.stderr}") from None

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self, seconds=END_S_MAX):
        """Its exit code; AssertionError when it has not ended in time."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {seconds} s: {' '.join(self.words)}\n"
                                 f"{self.stderr}") from None

    def session(self):
        """{pid: name} of the living processes of its session, itself included."""
        return {pid: name for pid, (name, state, _, session) in processes().items()
                if session == self.pid and state != "Z"}

    def close(self):
        """Ends it and everything it started, however it is."""
        for pid in [self.pid, *self.session()]:
            try:
                if pid != self.pid or self.child.poll() is None:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.child.wait(END_S_MAX)
        self.reader.join(END_S_MAX)
        self.child.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Server(Process):
    """`deltamesh serve` on a free port, ready."""

    def __init__(self, model=DEMO, *options, ranks=1, ready=True):
        super().__init__([program(), "serve", "--model", model, "--tp", ranks, "--backend", "cpu",
                          "--rpc", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", *SMALL,
                          *options])
        self.ranks = ranks
        if ready:
            try:
                words = self.line("ready ").split()
                self.endpoint, self.url = [word.split("=", 1)[1] for word in words[1:3]]
            except BaseException:
                self.close()
                raise

    def client(self, **options):
        return deltamesh.Client(self.endpoint, **options)

    def status(self):
        with self.client() as client:
            return client.status()

    def pids(self, name):
        """Pids of its living children of this program name (the kernel keeps 15 bytes of it)."""
        return sorted(pid for pid, its in self.session().items() if its == name[:15])

    def workers(self):
        return self.pids("deltamesh-worker-cpu")

    def coordinator(self):
        return self.pids("deltamesh-coordinator")[0]

    def wait_idle(self, seconds=5):
        """Waits until nothing runs or waits and every slot and page is free; the status."""
        last = {}

        def look():
            last.update(self.status())
            return is_idle(last)
        try:
            wait_until(look, seconds, "idle")
        except AssertionError as problem:
            raise AssertionError(f"{problem}: {last}\n{self.stderr}") from None
        return last

    def drain(self, seconds=END_S_MAX):
        """SIGTERM and the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)


def is_idle(status):
    """Nothing runs, nothing waits, nothing is held."""
    return (status["running"] == 0 and status["queued"] == 0
            and status["slots_free"] == status["slots"]
            and status["pages_free"] == status["pages"]
            and status["pool_tokens_free"] == status["pool_tokens"])


class Raw:
    """A foreign client: a bare ZeroMQ socket that sends what it is told to."""

    def __init__(self, endpoint, **options):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.socket.connect(endpoint)

    def send(self, message):
        self.socket.send(message if isinstance(message, bytes) else msgpack.packb(message))

    def receive(self, seconds=10):
        """The next reply; None when none came."""
        if not self.socket.poll(int(1000 * seconds)):
            return None
        return msgpack.unpackb(self.socket.recv())

    def ask(self, message, seconds=10):
        """Sends, and gives the first reply that is no ping."""
        self.send(message)
        return self.reply(seconds)

    def reply(self, seconds=10):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            reply = self.receive(max(0.01, end - time.monotonic()))
            if reply is not None and reply["t"] != "ping":
                return reply
        return None

    def close(self):
        self.socket.close()
        self.context.term()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Case(unittest.TestCase):
    """A test that owns processes; all of them are ended with it, and none may be left behind."""

    def own(self, thing):
        """Has it closed when the test ends."""
        self.addCleanup(thing.close)
        return thing

    def server(self, *arguments, **options):
        return self.own(Server(*arguments, **options))

    def assert_gone(self, process, seconds=5):
        """Nothing of its session lives."""
        try:
            wait_until(lambda: not process.session(), seconds, "all processes gone")
        except AssertionError:
            self.fail(f"left behind: {process.session()}\n{process.stderr}")

    def assert_refused(self, code, *parts, client, **fields):
        """The request is refused with this code, and the text has all these parts in it."""
        with self.assertRaises(deltamesh.Error) as caught:
            client.generate(**fields)
        self.assertEqual(caught.exception.code, code, caught.exception.text)
        for part in parts:
            self.assertIn(str(part), caught.exception.text)


class SharedCase(Case):
    """Tests that share one server, started by the first of them."""

    MODEL, OPTIONS, RANKS = DEMO, (), 1

    @classmethod
    def setUpClass(cls):
        cls.shared = Server(cls.MODEL, *cls.OPTIONS, ranks=cls.RANKS)
        cls.addClassCleanup(cls.shared.close)

    def client(self):
        return self.own(self.shared.client())
