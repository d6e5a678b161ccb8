#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The GPU suite, on a machine with an NVIDIA GPU and nvcc. Modes:
#   check     builds the preset `cuda`; every kernel against its twin (tests/gpu/*_check.cu), with
#             programmatic launches and without: the same bytes; the same of a worker's engine on
#             the random checkpoints: its logits against transformers', and the same bits from the
#             same plans, recorded or not; a layer of full size against PyTorch, where there is
#             one; serves the checkpoints and the demo model, alone, in company, with drafts and
#             prefix reuse, and under load, and judges every token
#   sanitize  small suites of every kernel and a few steps of an engine under compute-sanitizer:
#             memcheck, racecheck, initcheck, synccheck; within 8 minutes (tests/gpu/sanitize.py)
#   jitter    every kernel again in a build whose threads pause at random where kernels, warps and
#             copies are waited for (kernels/device/jitter.cuh): the same bytes as without
#   multi     on a machine of several GPUs: groups of 2, 4, 8 (what there is): sums, times, a death;
#             the same models served by all GPUs and by one
#   bench     a JSON line for every benchmark of a kernel, with the fraction of the machine's limit,
#             and for loading weights from files
#   serve     a server with dummy weights of 35B-A3B under load: a JSON line for every case, with
#             the fraction of the limit; behind it, options of tests/gpu/serve_bench.py
#   page      all that tests/bench/README.md shows: steps, kernels, serving, and where there are
#             several GPUs what these do together, each several times; then results, tables and
#             plots. Behind it, options of tests/gpu/measure.py: --seconds 500 stops it in time, and
#             the next call with the same OUT goes on; --parts multi: only several GPUs
# BIN=DIR: programs that are built already; JITTER_BIN=DIR: those of the preset `jitter`.
# OPS="gdn embed": only these kernels; of sanitize only these suites, which `kernel_check suites`
# names. OUT=DIR: results.
set -euo pipefail
cd "$(dirname "$0")/.."
mode="${1:-check}"
bin="${BIN:-build/cuda/bin}"
out="${OUT:-/tmp}"
read -r -a ops <<<"${OPS:-}"
case "$mode" in
check | sanitize | jitter | bench | multi | serve | page) ;;
*)
    echo "usage: tests/gpu.sh check|sanitize|jitter|bench|multi|serve|page" >&2
    exit 1
    ;;
esac
if [ -z "${BIN:-}" ]; then
    PATH="$PATH:/usr/local/cuda/bin"
    cmake --preset cuda >/dev/null
    cmake --build build/cuda --target kernel_check engine_check deltamesh deltamesh-coordinator \
        deltamesh-worker-cpu deltamesh-worker-cuda group_multi load_bench_cuda step_bench
fi
if [ "$mode" = jitter ] && [ -z "${JITTER_BIN:-}" ]; then
    cmake --preset jitter >/dev/null
    cmake --build build/jitter --target kernel_check
fi

# The lines of the checks without their times must not depend on programmatic launches.
kernels() {
    "$bin/kernel_check" check "${ops[@]}" | tee "$out/kernels-pdl.txt"
    DELTAMESH_PDL=0 "$bin/kernel_check" check "${ops[@]}" >"$out/kernels-plain.txt"
    diff "$out/kernels-pdl.txt" "$out/kernels-plain.txt"
    echo "kernels: programmatic launches on = off"
}

engines() {
    "$bin/engine_check" 2>"$out/engine.log" | tee "$out/engine-pdl.txt"
    DELTAMESH_PDL=0 "$bin/engine_check" 2>>"$out/engine.log" >"$out/engine-plain.txt"
    diff "$out/engine-pdl.txt" "$out/engine-plain.txt"
    echo "engine: programmatic launches on = off"
    if python3 -c "import torch" 2>"$out/torch.log"; then
        python3 tests/gpu/layer_check.py --program "$bin/engine_check"
    else
        echo "no PyTorch here: no layer_check.py"
    fi
}

case "$mode" in
check)
    kernels
    engines
    exec python3 tests/gpu/serve_check.py --bin "$bin" --out "$out"
    ;;
sanitize)
    exec python3 tests/gpu/sanitize.py --bin "$bin" --out "$out" "${ops[@]}"
    ;;
jitter)
    "$bin/kernel_check" check "${ops[@]}" | tee "$out/kernels-pdl.txt"
    "${JITTER_BIN:-build/jitter/bin}/kernel_check" check "${ops[@]}" >"$out/kernels-jitter.txt"
    diff "$out/kernels-pdl.txt" "$out/kernels-jitter.txt"
    echo "kernels: random pauses change no byte"
    ;;
bench)
    "$bin/kernel_check" bench "${ops[@]}" | tee "$out/kernels-bench.jsonl"
    TMPDIR=/dev/shm "$bin/load_bench_cuda" tests/models/qwen3.5-0.8b 2 | tee "$out/load.jsonl"
    ;;
serve)
    exec python3 tests/gpu/serve_bench.py --bin "$bin" --out "$out" "${@:2}"
    ;;
page)
    python3 tests/gpu/measure.py --bin "$bin" --out "$out" "${@:2}"
    exec python3 tests/bench/page.py
    ;;
multi)
    gpus=$(nvidia-smi --list-gpus | wc -l)
    for ranks in 2 4 8; do
        [ "$ranks" -le "$gpus" ] || break
        "$bin/group_multi" "$ranks" | tee "$out/group-$ranks.txt"
        most=$ranks
    done
    exec python3 tests/gpu/multi/serve_multi.py --bin "$bin" --out "$out" --ranks "$most"
    ;;
esac
