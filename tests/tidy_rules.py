# SPDX-License-Identifier: Apache-2.0
"""tidy_rules.py -- the figures, lists and arrows that tidy.py holds the tree to. No code."""
import re

# ---------------------------------------------------------------- the limits of STYLE.md
LINE_COLUMNS_MAX = 100
FILE_LINES_MAX = {".c": 600, ".cu": 600, ".cuh": 600, ".h": 250, ".py": 600, ".sh": 600}
FUNCTION_LINES_MAX = 70
KERNEL_LINES_MAX = 150
PARAMETERS_MAX = 6
LAUNCHER_PARAMETERS_MAX = 8
CONTRACT_GROUP_MAX = 6  # declarations without a blank line between them that share one contract

C_KINDS = (".c", ".h", ".cu", ".cuh")
DATA_FOLDERS = ("deploy/demo/model/", "tests/golden/data/", "tests/fuzz/corpus/", "build/", ".git/")

# ---------------------------------------------------------------- the one list of exceptions
# (rule, path) -> reason. It may only shrink: an entry that is no longer needed is itself a finding.
CORPUS = "sentences of the demo's corpus, each on a line of its own"
EXCEPTIONS = {
    ("size", "coordinator/door_http.c"): "a callback with the parameters of libmicrohttpd",
    ("columns", "deploy/demo/make/corpus.py"): CORPUS,
    ("columns", "deploy/demo/make/facts.py"): CORPUS,
    ("columns", "deploy/demo/make/plots.py"): CORPUS,
    ("columns", "deploy/demo/make/stories.py"): CORPUS,
    ("columns", "deploy/demo/make/talk.py"): CORPUS,
    ("columns", "deploy/demo/make/words.py"): CORPUS,
}

# A .c file without tests/<path>_test.c -> the test that covers it. The test has to exist.
COVERED_BY = {
    # Needs a GPU.
    "parallel/group_nccl.c": "tests/gpu.sh",
    "parallel/exchange_cuda.c": "tests/gpu.sh",
    # Programs and their outermost loops: real processes, end to end.
    "coordinator/main.c": "tests/e2e/serve_test.py",
    "coordinator/shell.c": "tests/e2e/serve_test.py",
    "coordinator/door_http_generate.c": "tests/e2e/http_test.py",
    "coordinator/door_http_submit.c": "tests/e2e/http_test.py",
    "coordinator/door_http_routes.c": "tests/e2e/http_test.py",
    "worker/main.c": "tests/e2e/serve_test.py",
    "worker/loop.c": "tests/e2e/serve_test.py",
    "coordinator/scheduler_admit.c": "tests/coordinator/scheduler_test.c",
    "coordinator/scheduler_apply.c": "tests/coordinator/scheduler_test.c",
    "worker/step_stage.c": "tests/worker/step_test.c",
    "worker/step_sampling.c": "tests/worker/step_test.c",
    "worker/step_graphs.c": "tests/worker/step_test.c",
    "worker/loader.c": "tests/e2e/serve_test.py",
    "parallel/base/version.c": "tests/e2e/serve_test.py",
    # The ways to a server and what is printed: the program against a server that the test plays.
    "deploy/cli/bench_rpc.c": "tests/deploy/cli/bench_test.c",
    "deploy/cli/bench_print.c": "tests/deploy/cli/bench_test.c",
    "deploy/cli/bench_http.c": "tests/e2e/bench_test.py",
}

# ---------------------------------------------------------------- include arrows
# zone -> zones it may include (itself is understood). The first pattern that matches decides.
ZONES = [
    ("tests", r"tests/"),
    ("base", r"parallel/base/"),
    ("wire", r"parallel/wire/"),
    ("group", r"parallel/(group|exchange)(_\w+)?\.\w+$"),
    ("memory_plan", r"parallel/memory_plan(_\w+)?\.\w+$"),
    ("config", r"parallel/config(_\w+)?\.\w+$"),
    ("plan", r"parallel/plan(_\w+)?\.\w+$"),
    ("shard", r"parallel/shard(_\w+)?\.\w+$"),
    ("dummy", r"parallel/dummy(_\w+)?\.\w+$"),
    ("kernels", r"kernels/"),
    ("worker", r"worker/"),
    ("text", r"coordinator/text/"),
    ("coordinator", r"coordinator/"),
    ("client", r"deploy/client/"),
    ("cli", r"deploy/cli/"),
]
MODEL = {"config", "plan", "shard", "memory_plan", "dummy"}  # one library, no arrows out but base
ARROWS = {
    "base": set(),
    "kernels": {"base"},
    "wire": {"base"},
    **{zone: {"base"} | MODEL for zone in MODEL},
    "group": {"base", "plan", "kernels"},
    "worker": {"base", "wire", "group", "kernels"} | MODEL,
    "text": {"base"},
    "coordinator": {"base", "wire", "config", "plan", "memory_plan", "text"},
    "client": {"base", "wire"},
    "cli": {"client", "text", "base", "wire", "config"},
    "tests": {zone for zone, _ in ZONES},
}
# Outside headers that only some files may see: (header, who may include it).
OUTSIDE = [
    (r"(cuda|cublas|cooperative_groups|mma\.h|nvtx|nvrtc)",
     r"kernels/.*\.(cu|cuh)$|parallel/(exchange_cuda|group_nccl)\.\w+$|tests/.*\.cu$"),
    (r"nccl",
     r"parallel/(exchange_cuda|group_nccl)\.\w+$|kernels/exchange\w*\.(cu|cuh)$|tests/.*\.cu$"),
    (r"(zmq|msgpack)", r"parallel/wire/|tests/"),
    (r"(pcre2|utf8proc)", r"coordinator/text/|tests/"),
    (r"microhttpd", r"coordinator/door_http\w*\.c$|tests/"),
]

# ---------------------------------------------------------------- purity
PURE = re.compile(
    r"coordinator/(core|scheduler|speculation|kv_pages|state_slots|prefix_cache|requests|members"
    r"|router|token_pool|invariants)(_\w+)?\.c$|parallel/(plan|shard|memory_plan|dummy)(_\w+)?\.c$")
IMPURE_SYSTEM = re.compile(
    r"^(time|errno|pthread|threads|unistd|fcntl|poll|signal|stdatomic|semaphore|dlfcn|spawn|wait"
    r"|zmq|msgpack|jansson|pcre2|utf8proc|microhttpd|cuda|cublas|nccl)|^(sys|netinet|arpa|net)/")
IMPURE_OURS = re.compile(r"parallel/base/(clock|log)\.h$|parallel/wire/socket\w*\.h$")
IMPURE_CALLS = re.compile(
    r"\b(malloc|calloc|realloc|free|aligned_alloc|strdup|strndup|asprintf|alloca|printf|fprintf"
    r"|vprintf|vfprintf|dprintf|puts|fputs|putchar|fputc|putc|perror|fwrite|fread|fopen|fclose"
    r"|open|close|read|write|send|recv|socket|time|clock|clock_gettime|gettimeofday|nanosleep"
    r"|usleep|sleep|rand|srand|random|getenv|exit|abort|system|pthread_\w+|thrd_\w+|mtx_\w+"
    r"|clock_\w+|log_\w+)\s*\(")
