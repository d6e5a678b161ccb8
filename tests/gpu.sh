#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The GPU suite, on a machine with an NVIDIA GPU and nvcc. One mode so far:
#   check   builds the preset `cuda`; serves the random checkpoints and the demo model on the GPU
#           and on the CPU; the same plan must give the same tokens twice, and a sequence alone the
#           tokens it has in company; prints how far GPU and CPU agree, and tokens/s of
#           Qwen3.5-0.8B shapes with dummy weights
set -euo pipefail
cd "$(dirname "$0")/.."
mode="${1:-check}"
bin="${BIN:-build/cuda/bin}"
if [ "$mode" != check ]; then
    echo "usage: tests/gpu.sh check    (BIN=DIR: programs that are built already)" >&2
    exit 1
fi
if [ -z "${BIN:-}" ]; then
    PATH="$PATH:/usr/local/cuda/bin"
    cmake --preset cuda >/dev/null
    cmake --build build/cuda --target deltamesh deltamesh-coordinator deltamesh-worker-cpu \
        deltamesh-worker-cuda
fi
exec python3 tests/gpu/serve_check.py --bin "$bin" --out "${OUT:-/tmp}"
