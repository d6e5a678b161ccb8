#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh -- the whole path in one command: installs what is missing, builds, serves the small model
# of deploy/demo/model over two tensor-parallel worker processes on the CPU, sends prompts over
# ZeroMQ, streams the text, prints tokens/s and the acceptance of drafts, drains. Exits 0 if all of
# it worked, and checks that the same requests sent at once give the same text.
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
        cmake --preset cpu &&
            ninja -C build/cpu deltamesh deltamesh-coordinator deltamesh-worker-cpu
    } >"$scratch/build.log" 2>&1 || {
        tail -n 60 "$scratch/build.log" >&2
        fail "the build failed"
    }
    bin="$root/build/cpu/bin"
fi
[ -x "$bin/deltamesh" ] || fail "no program $bin/deltamesh"
[ -f "$model/config.json" ] || fail "no model in $model"

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

prompts=(
    "Once upon a time"
    "The little fox"
    "In the morning"
    "There was a girl who"
)

# One after the other, as a person would see it.
for index in "${!prompts[@]}"; do
    echo
    printf '> %s\n' "${prompts[$index]}"
    "$bin/deltamesh" generate --rpc "$endpoint" --prompt "${prompts[$index]}" \
        --max-tokens "$max_tokens" | tee "$scratch/text.$index" ||
        fail "generate failed for the prompt '${prompts[$index]}'"
    [ -s "$scratch/text.$index" ] || fail "no text came for the prompt '${prompts[$index]}'"
done

# All at once, with the figures.
printf '%s\n' "${prompts[@]}" | python3 -c '
import json, sys
for line in sys.stdin:
    print(json.dumps({"prompt": line.rstrip("\n"), "max_tokens": int(sys.argv[1])}))
' "$max_tokens" >"$scratch/requests.jsonl"
begin_ns="$(date +%s%N)"
"$bin/deltamesh" generate --rpc "$endpoint" --requests "$scratch/requests.jsonl" --json \
    >"$scratch/answers.jsonl" || fail "generate --requests failed"
end_ns="$(date +%s%N)"
echo
python3 - "$scratch" "${#prompts[@]}" $((end_ns - begin_ns)) <<'PYTHON' || fail "the answers differ"
import json
import sys

scratch, count, elapsed_ns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(f"{scratch}/answers.jsonl", encoding="utf-8") as file:
    answers = sorted((json.loads(line) for line in file), key=lambda answer: answer["index"])
if [answer["index"] for answer in answers] != list(range(count)):
    sys.exit(f"asked {count} requests, got the answers {[a['index'] for a in answers]}")
for answer in answers:
    with open(f"{scratch}/text.{answer['index']}", encoding="utf-8") as file:
        streamed = file.read()
    if answer["text"].strip() != streamed.strip():
        sys.exit(f"request {answer['index']}: alone {streamed!r}, together {answer['text']!r}")
tokens = sum(answer["usage"]["completion_tokens"] for answer in answers)
steps = sum(answer["usage"].get("target_steps", 0) for answer in answers)
drafted = sum(answer["usage"].get("drafted", 0) for answer in answers)
accepted = sum(answer["usage"].get("accepted", 0) for answer in answers)
print(f"{count} requests at once: {tokens} tokens in {elapsed_ns / 1e9:.2f} s, "
      f"{tokens * 1e9 / elapsed_ns:.1f} tokens/s, the same text as alone")
if drafted > 0:
    print(f"drafts: {accepted} of {drafted} accepted ({100 * accepted / drafted:.0f} %), "
          f"{tokens / max(steps, 1):.2f} tokens per step")
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
