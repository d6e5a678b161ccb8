#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh -- all tests in one command: installs what is missing, builds, runs ctest, tells the sum.
# Exits 0 only if every stage passed. Logs are left in build/log/.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tests/run.sh [--all] [--no-install] [STAGE...]
  stages: cpu    gcc build, every test                                  (always)
          cuda   CUDA sources compiled, where nvcc is                   (always)
          asan   address and undefined-behaviour sanitizers, units      (always)
          clang  clang build with -Werror, unit tests                   (--all)
          tsan   thread sanitizer, units and e2e_light alone of the e2e (--all)
          archs  the kernels compiled for other GPUs, where nvcc is     (--all)
          plants each planted bug of tests/plants.txt must be caught    (--all)
  --all          every stage; under 45 minutes on 2 cores (without: under 15)
  --no-install   do not look for missing packages
With STAGEs only these are run.
TEXT
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
stages=()
all=0
install=1
for argument in "$@"; do
    case "$argument" in
    --all) all=1 ;;
    --no-install) install=0 ;;
    -h | --help)
        usage
        exit 0
        ;;
    cpu | cuda | asan | clang | tsan | archs | plants) stages+=("$argument") ;;
    *)
        echo "run.sh: unknown argument '$argument'" >&2
        usage >&2
        exit 1
        ;;
    esac
done
if [ "${#stages[@]}" = 0 ]; then
    stages=(cpu cuda asan)
    if [ "$all" = 1 ]; then stages+=(clang tsan archs plants); fi
fi

jobs="$(nproc)"
log_folder=build/log
mkdir -p "$log_folder"
passed=0
failed=0
report=()

note() {
    echo
    echo "=== $*"
}

# Runs a command, quiet but for its end when it fails; the whole text goes to the log.
quietly() { # log command...
    local log="$log_folder/$1.log"
    shift
    if ! "$@" >"$log" 2>&1; then
        echo "run.sh: failed: $*" >&2
        tail -n 60 "$log" >&2
        return 1
    fi
}

build() { # name of the build folder, target, cmake arguments...
    local name="$1" target="$2"
    shift 2
    quietly "$name.configure" cmake -B "build/$name" "$@" &&
        quietly "$name.build" cmake --build "build/$name" --target "$target" -j "$jobs"
}

# Runs ctest and shows it: name of the build folder, log, ctest arguments...
show_ctest() {
    local name="$1" log="$2" code=0
    shift 2
    no_aslr ctest --test-dir "build/$name" --output-on-failure --no-tests=error --timeout 600 \
        "$@" 2>&1 | tee "$log" || code=$?
    return "$code"
}

# Runs ctest, shows it, and adds its figures to the sum. What failed runs once more if, and only if,
# the machine stood still meanwhile: bounds on time say nothing then (tests/standstill.py).
run_tests() { # name of the build folder, ctest arguments...
    local name="$1" log="$log_folder/$1.ctest.log" stills="$log_folder/$1.stills"
    local watcher total bad code=0
    shift
    python3 tests/standstill.py "$stills" &
    watcher=$!
    show_ctest "$name" "$log" -j "$jobs" "$@" || code=$?
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" 2>/dev/null || true
    total="$(sed -n 's/.*tests failed out of \([0-9]*\).*/\1/p' "$log" | tail -n 1)"
    if [ "$code" -ne 0 ] && [ -s "$stills" ]; then
        note "$name: this machine stood still ($(paste -sd ';' "$stills")): what failed runs again"
        code=0
        show_ctest "$name" "$log" --rerun-failed -j 1 || code=$?
    fi
    bad="$(sed -n 's/.*tests passed, \([0-9]*\) tests failed.*/\1/p' "$log" | tail -n 1)"
    failed=$((failed + ${bad:-1}))
    passed=$((passed + ${total:-0} - ${bad:-0}))
    return "$code"
}

# The thread sanitizer of gcc 12 knows only the address layout without much randomness.
no_aslr() {
    if setarch "$(uname -m)" -R true 2>/dev/null; then
        setarch "$(uname -m)" -R "$@"
    else
        "$@"
    fi
}

stage_cpu() {
    build cpu all --preset cpu || return 2
    run_tests cpu
}

stage_cuda() {
    PATH="$PATH:/usr/local/cuda/bin"
    if [ ! -f kernels/cuda.cmake ]; then
        echo "no CUDA sources in this tree"
    elif ! command -v nvcc >/dev/null; then
        echo "no nvcc here; the CUDA sources are not compiled"
    else
        build cuda deltamesh-worker-cuda --preset cuda || return 2
        echo "compiled with $(nvcc --version | sed -n 's/.*release/nvcc/p')"
        passed=$((passed + 1))
    fi
}

# Ampere and both of Blackwell's: plain CUDA runs there, and no test here shows that it does.
stage_archs() {
    PATH="$PATH:/usr/local/cuda/bin"
    if ! command -v nvcc >/dev/null; then
        echo "no nvcc here; the kernels are not compiled"
        return 0
    fi
    build archs kernels_cuda --preset cuda \
        -DCMAKE_CUDA_ARCHITECTURES="80-real;100-real;120-real" || return 2
    passed=$((passed + 1))
}

stage_asan() {
    build asan all --preset asan || return 2
    run_tests asan -LE "e2e|tidy"
}

stage_clang() {
    local compiler
    compiler="$(command -v clang-14 || command -v clang)" || {
        echo "no clang here" >&2
        return 2
    }
    build clang all --preset cpu -DCMAKE_C_COMPILER="$compiler" || return 2
    run_tests clang -LE "e2e|tidy"
}

stage_tsan() {
    build tsan all --preset tsan || return 2
    TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp" run_tests tsan -LE tidy
}

# tests/plants.txt: plant, the test that must fail, more targets that the test needs.
stage_plants() {
    local plant test targets bad=0
    build plants all --preset cpu -DDELTAMESH_PLANT= || return 2
    while read -r plant test targets; do
        case "$plant" in '' | '#'*) continue ;; esac
        if catch_plant "$plant" "$test" "$targets"; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            bad=1
        fi
    done <tests/plants.txt
    return "$bad"
}

catch_plant() { # plant test targets
    local plant="$1" test="$2" log="$log_folder/plant.$1.log" targets="$3"
    # A test that is no program of its own needs all programs.
    if [ -z "$targets" ] && [ -e "build/plants/bin/$test" ]; then targets="$test"; fi
    quietly "plant.$plant.configure" cmake -B build/plants -DDELTAMESH_PLANT="$plant" || return 1
    # shellcheck disable=SC2086 # targets is a list of words
    quietly "plant.$plant.build" ninja -C build/plants ${targets:-all} || return 1
    ctest --test-dir build/plants -R "^$test\$" --no-tests=error --timeout 120 \
        --output-on-failure >"$log" 2>&1 </dev/null || true
    if grep -q 'tests passed, [1-9][0-9]* tests failed' "$log" &&
        ! grep -q 'Not Run' "$log"; then
        echo "caught: $plant by $test"
    else
        echo "NOT CAUGHT: $plant; $test does not fail with this bug in it" >&2
        tail -n 5 "$log" >&2
        return 1
    fi
}

if [ "$install" = 1 ]; then
    note "install"
    deploy/install.sh --test
fi

begin=$SECONDS
for stage in "${stages[@]}"; do
    note "$stage"
    stage_begin=$SECONDS
    code=0
    "stage_$stage" || code=$?
    # 2: it could not even be built. Tests that fail have been counted.
    if [ "$code" = 2 ]; then failed=$((failed + 1)); fi
    verdict=ok
    if [ "$code" != 0 ]; then verdict=FAILED; fi
    report+=("$(printf '%-7s %-7s %4d s' "$stage" "$verdict" $((SECONDS - stage_begin)))")
done

note "sum ($((SECONDS - begin)) s on $jobs cores)"
printf '  %s\n' "${report[@]}"
if printf '%s\n' "${report[@]}" | grep -q FAILED && [ "$failed" = 0 ]; then failed=1; fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
