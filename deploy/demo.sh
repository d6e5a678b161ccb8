#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh -- the whole path in one command: installs what is missing, builds, serves the small model
# of deploy/demo/model over two tensor-parallel worker processes on the CPU, sends prompts over
# ZeroMQ, streams the text, prints tokens/s with and without drafts and how many of these were
# accepted, asks once over HTTP and drains. Exits 0 if all of it worked and requests gave the same
# text alone, at once, and without drafts.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: deploy/demo.sh [--bin DIR] [--tp N] [--max-tokens N]
  --bin DIR         use the programs in DIR; install and build nothing
  --tp N            worker processes (default 2; the demo model divides by 1, 2 and 4)
  --max-tokens N    tokens per answer (default 64)
TEXT
}

bin=""
tp=2
max_tokens=64
while [ $# -gt 0 ]; do
    case "$1" in
    --bin | --tp | --max-tokens)
        if [ $# -lt 2 ]; then
            echo "demo.sh: $1 needs a value" >&2
            exit 1
        fi
        case "$1" in
        --bin) bin="$2" ;;
        --tp) tp="$2" ;;
        --max-tokens) max_tokens="$2" ;;
        esac
        shift 2
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "demo.sh: unknown option '$1'" >&2
        usage >&2
        exit 1
        ;;
    esac
done

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
model="$root/deploy/demo/model"
scratch="$(mktemp -d)"
server_log="$scratch/serve.log"
server=""
READY_SECONDS_MAX=120
DRAIN_SECONDS_MAX=60

fail() {
    echo "demo.sh: $*" >&2
    if [ -s "$server_log" ]; then
        echo "demo.sh: the end of the server's log:" >&2
        tail -n 40 "$server_log" >&2
    fi
    exit 1
}

# The server leads a process group of its own, so its children can be ended with it in any case.
server_group_lives() { kill -0 -- "-$server" 2>/dev/null; }

cleanup() {
    if [ -n "$server" ] && server_group_lives; then
        kill -TERM -- "-$server" 2>/dev/null || true
        for _ in $(seq 50); do
            server_group_lives || break
            sleep 0.1
        done
        kill -KILL -- "-$server" 2>/dev/null || true
    fi
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "$bin" ]; then
    "$root/deploy/install.sh" --build
    echo "demo.sh: building"
    cd "$root"
    {
        # Warnings of a compiler that we do not know are no reason to fail here.
        cmake --preset cpu -B build/demo -DDELTAMESH_WERROR=OFF &&
            ninja -C build/demo deltamesh deltamesh-coordinator deltamesh-worker-cpu
    } >"$scratch/build.log" 2>&1 || {
        tail -n 60 "$scratch/build.log" >&2
        fail "the build failed"
    }
    bin="$root/build/demo/bin"
fi
[ -x "$bin/deltamesh" ] || fail "no program $bin/deltamesh"
[ -f "$model/config.json" ] || fail "no model in $model"

: >"$scratch/serve.out"
echo "demo.sh: serving $model over $tp processes"
setsid "$bin/deltamesh" serve --model "$model" --tp "$tp" --backend cpu \
    --rpc tcp://127.0.0.1:0 --http 127.0.0.1:0 >"$scratch/serve.out" 2>"$server_log" </dev/null &
server=$!

endpoint=""
deadline=$((SECONDS + READY_SECONDS_MAX))
while [ -z "$endpoint" ]; do
    endpoint="$(sed -n 's/^ready rpc=\([^ ]*\).*/\1/p' "$scratch/serve.out" | head -n 1)"
    [ -n "$endpoint" ] && break
    kill -0 "$server" 2>/dev/null || fail "the server ended before it was ready"
    [ "$SECONDS" -lt "$deadline" ] || fail "the server was not ready within $READY_SECONDS_MAX s"
    sleep 0.1
done
cat "$scratch/serve.out"
url="$(sed -n 's/^ready .*http=\([^ ]*\).*/\1/p' "$scratch/serve.out" | head -n 1)"

prompts=(
    "Once upon a time"
    "One day, a small dog named Freya"
    $'Question: How many legs has a spider?\nAnswer:'
)
question="Where do foxes live?"

# One after the other, streamed, as a person would see it.
for index in "${!prompts[@]}"; do
    printf '\n%s' "${prompts[$index]}"
    "$bin/deltamesh" generate --rpc "$endpoint" --prompt "${prompts[$index]}" \
        --max-tokens "$max_tokens" | tee "$scratch/text.$index" ||
        fail "generate failed for the prompt '${prompts[$index]}'"
    grep -q '[^[:space:]]' "$scratch/text.$index" ||
        fail "no text came for the prompt '${prompts[$index]}'"
done

# All at once, and a question in the chat format; with the figures.
python3 - "$max_tokens" "$question" "${prompts[@]}" >"$scratch/requests.jsonl" <<'PYTHON'
import json
import sys

max_tokens, question, prompts = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
for prompt in prompts:
    print(json.dumps({"prompt": prompt, "max_tokens": max_tokens}))
print(json.dumps({"messages": [{"role": "user", "content": question}],
                  "enable_thinking": False, "max_tokens": max_tokens}))
PYTHON

# One request, then all of them, with drafts as the server finds them worth it and without.
ask() { # NAME OPTIONS..: text or answers go to NAME, figures to NAME.figures
    "$bin/deltamesh" generate --rpc "$endpoint" "${@:2}" \
        >"$scratch/$1" 2>"$scratch/$1.figures" || fail "generate ${*:2} failed"
}
for drafts in with without; do
    most=()
    [ $drafts = with ] || most=(--speculative-tokens 0)
    ask "alone.$drafts" --prompt "${prompts[0]}" --max-tokens "$max_tokens" "${most[@]}"
    ask "together.$drafts" --requests "$scratch/requests.jsonl" --json "${most[@]}"
done
echo
python3 - "$scratch" "${#prompts[@]}" "$question" "$url" <<'PYTHON' || fail "an answer is not right"
import json
import sys
import urllib.request

scratch, prompts, question, url = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def read(name):
    with open(f"{scratch}/{name}", encoding="utf-8") as file:
        return file.read()


def answers_of(name):
    answers = [json.loads(line) for line in read(name).splitlines()]
    return sorted(answers, key=lambda answer: answer["index"])


answers = answers_of("together.with")
if [answer["index"] for answer in answers] != list(range(prompts + 1)):
    sys.exit(f"asked {prompts + 1} requests, got the answers {[a['index'] for a in answers]}")
for answer in answers[:prompts]:
    alone = read(f"text.{answer['index']}")
    if answer["text"].strip() != alone.strip():
        sys.exit(f"request {answer['index']}: alone {alone!r}, together {answer['text']!r}")
if not answers[prompts]["text"].strip():
    sys.exit("the question got no answer")
print(f"user: {question}\nassistant: {answers[prompts]['text'].strip()}\n")
body = {"model": "model", "messages": [{"role": "user", "content": question}], "temperature": 0,
        "chat_template_kwargs": {"enable_thinking": False}}
request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(),
                                 {"Content-Type": "application/json"})
with urllib.request.urlopen(request, timeout=60) as response:
    over_http = json.load(response)["choices"][0]["message"]["content"]
if over_http.strip() != answers[prompts]["text"].strip():
    sys.exit(f"over RPC {answers[prompts]['text']!r}, over HTTP {over_http!r}")
print(f"the same over HTTP, POST {url}/v1/chat/completions: {over_http.strip()}\n")
if [answer["text"] for answer in answers_of("together.without")] != [
        answer["text"] for answer in answers] or read("alone.without") != read("alone.with"):
    sys.exit("without drafts the text is another")
print("speed, always with the same text:")
for name, what in (("alone", "one request"), ("together", f"{len(answers)} requests at once")):
    print(f"  {what}\n    with drafts    {read(f'{name}.with.figures').strip()}\n"
          f"    without        {read(f'{name}.without.figures').strip()}")
PYTHON

kill -TERM "$server"
deadline=$((SECONDS + DRAIN_SECONDS_MAX))
while kill -0 "$server" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || fail "the server did not drain within $DRAIN_SECONDS_MAX s"
    sleep 0.1
done
code=0
wait "$server" || code=$?
[ "$code" = 0 ] || fail "the server ended with exit code $code"
server_group_lives && fail "processes of the server are left behind"
echo "demo.sh: drained, exit 0"
