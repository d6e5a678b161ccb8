#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# install.sh -- installs by apt what a build (or the tests) needs and this machine lacks. Debian 12
# and Ubuntu 24.04. Looks for the thing itself (a program, a library, a Python module), not for
# package names, so nothing is touched and no network is needed where all is there.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: install.sh [--build | --test] [--dry-run]
  --build    what the programs need: compiler, cmake, ninja, libraries (default)
  --test     --build, and what the tests need: cmocka, clang, clang-format 14, Python modules
  --dry-run  print what is missing, install nothing; exit 1 if anything is
TEXT
}

want_test=0
dry_run=0
for argument in "$@"; do
    case "$argument" in
    --build) want_test=0 ;;
    --test) want_test=1 ;;
    --dry-run) dry_run=1 ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "install.sh: unknown option '$argument'" >&2
        usage >&2
        exit 1
        ;;
    esac
done

# Each need is one line: kind, what to look for (any of a|b|c), packages that bring it (first one
# that this release has). Kinds: program, header, module (pkg-config), python (a module of the
# system's Python, which is the one that apt feeds and the tests use); a leading ? means that we can
# do without where a release lacks it.
build_needs='
program gcc|cc gcc
header stdio.h libc6-dev
program cmake cmake
program ninja ninja-build
program pkg-config pkg-config|pkgconf
program python3 python3
?program ccache ccache
module libzmq libzmq3-dev
module msgpack-c|msgpack libmsgpack-c-dev|libmsgpack-dev
module jansson libjansson-dev
module libpcre2-8 libpcre2-dev
module libutf8proc libutf8proc-dev
module libmicrohttpd libmicrohttpd-dev
module libcurl libcurl4-openssl-dev
'
test_needs='
module cmocka libcmocka-dev
python zmq python3-zmq
python msgpack python3-msgpack
program clang-14|clang clang-14|clang
?program clang-format-14 clang-format-14
program git git
'

has_one() { # kind name
    case "$1" in
    program) command -v "$2" >/dev/null 2>&1 ;;
    header) echo "#include <$2>" | gcc -E -x c - >/dev/null 2>&1 ;;
    module) pkg-config --exists "$2" 2>/dev/null ;;
    python) PATH="/usr/bin:$PATH" python3 -c "import $2" >/dev/null 2>&1 ;;
    *)
        echo "install.sh: unknown kind of need '$1'" >&2
        exit 1
        ;;
    esac
}

has() { # kind a|b|c
    local name
    for name in ${2//|/ }; do
        has_one "$1" "$name" && return 0
    done
    return 1
}

missing_needs() { # prints the lines of stdin whose thing is not there
    local kind names packages
    while read -r kind names packages; do
        [ -z "$kind" ] && continue
        has "${kind#\?}" "$names" || echo "$kind $names $packages"
    done
}

needs() {
    echo "$build_needs"
    if [ "$want_test" = 1 ]; then echo "$test_needs"; fi
}

# Runs as root what follows; apt never asks questions.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        echo "install.sh: must be root to install packages, and there is no sudo." >&2
        echo "install.sh: missing, for somebody who is root:$(printf ' %s' "$@")" >&2
        exit 1
    fi
}

retry() { # three tries, for mirrors that hiccup
    local try
    for try in 1 2 3; do
        "$@" && return 0
        echo "install.sh: try $try of 3 failed: $*" >&2
        if [ "$try" -lt 3 ]; then sleep $((try * 5)); fi
    done
    return 1
}

apt_quiet() {
    as_root apt-get -q -o Acquire::Retries=3 -o Acquire::http::Timeout=60 "$@"
}

package_of() { # a|b|c -> the first package that this release has, or nothing
    local package
    for package in ${1//|/ }; do
        if apt-cache show --no-all-versions "$package" >/dev/null 2>&1; then
            echo "$package"
            return 0
        fi
    done
}

missing="$(needs | missing_needs)"
if [ -z "$missing" ]; then
    echo "install.sh: everything is there"
    exit 0
fi
echo "install.sh: missing here:"
echo "$missing" | while read -r kind names packages; do
    echo "  ${kind#\?} ${names//|/ or } (package ${packages//|/ or })"
done
[ "$dry_run" = 1 ] && exit 1
if ! command -v apt-get >/dev/null 2>&1; then
    echo "install.sh: no apt-get here; this script knows Debian and Ubuntu only." >&2
    exit 1
fi

retry apt_quiet update ||
    echo "install.sh: apt-get update failed; trying with the lists at hand" >&2
packages=()
while read -r kind names candidates; do
    package="$(package_of "$candidates")"
    if [ -n "$package" ]; then
        packages+=("$package")
    elif [ "${kind#\?}" = "$kind" ]; then
        echo "install.sh: this release has no package for '$names' (looked for $candidates)" >&2
        exit 1
    else
        echo "install.sh: this release has no $candidates; going on without"
    fi
done <<<"$missing"
if [ "${#packages[@]}" -gt 0 ]; then
    echo "install.sh: installing ${packages[*]}"
    retry apt_quiet install -y --no-install-recommends "${packages[@]}"
fi

# Did it help? A need that is still open is told by name, except for those we can do without.
still="$(needs | missing_needs | grep -v '^?' || true)"
if [ -n "$still" ]; then
    echo "install.sh: still missing after the installation:" >&2
    echo "$still" >&2
    exit 1
fi
echo "install.sh: everything is there now"
