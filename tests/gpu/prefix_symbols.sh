#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# prefix_symbols.sh PREFIX IN.a OUT.a -- copies a library; each symbol that it defines gets PREFIX,
# where it is used, too. What it only uses (libc, parallel/base) keeps its name.
set -euo pipefail
prefix="$1" from="$2" to="$3"
nm --extern-only --defined-only "$from" |
    awk -v prefix="$prefix" 'NF == 3 && $3 !~ /^__(asan|odr_asan|tsan)/ {print $3, prefix $3}' |
    sort -u >"$to.names"
objcopy --redefine-syms="$to.names" "$from" "$to.new"
mv "$to.new" "$to"
