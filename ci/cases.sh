#!/usr/bin/env bash
# Runs every test that `tests/cases.md` names, many times: 100 times where one run takes less than 0.2 s, else 10 times; in a debug and
# in a release build; those of worker processes over shared memory and over the socket. A test that fails is not run again; its output is
# printed, and all others are run.
# Usage: ci/cases.sh [filter] (only the tests whose name contains the filter)
# CASES_BUILDS="debug" or "release" restricts the builds; CASES_RUNS=N replaces both numbers of runs.
set -euo pipefail
cd "$(dirname "$0")/.."

filter="${1:-}"
mapfile -t tests < <(grep -oE '`[a-z_0-9]+(::[a-z_0-9]+)+`' tests/cases.md | tr -d '`' | grep -v '^module::' |
    { [ -z "$filter" ] && cat || grep -F -- "$filter"; } | awk '!seen[$0]++')
[ "${#tests[@]}" -gt 0 ] || { echo "no test is named so in tests/cases.md: $filter"; exit 1; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
now() { date +%s%N; }
once() {
    local binary="$1" name="$2"
    RUST_BACKTRACE=0 timeout 300 "$binary" --exact "$name" --include-ignored --nocapture --test-threads=1 >"$log" 2>&1 </dev/null &&
        # A name that matches no test would pass.
        grep -qE "^test result: ok. 1 passed" "$log"
}

total=0
failed=0
for build in ${CASES_BUILDS:-debug release}; do
    options=(--all-features --no-run --test it --message-format=json)
    [ "$build" = debug ] || options+=(--release)
    binary=$(cargo test "${options[@]}" 2>/dev/null | grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
    [ -x "$binary" ] || { echo "the $build build failed"; exit 1; }
    for name in "${tests[@]}"; do
        transports=(-)
        [[ "$name" != process::* ]] || transports=(shared-memory socket)
        for transport in "${transports[@]}"; do
            [ "$transport" = - ] || export CONCURRENT_FUTURES_TRANSPORT=$transport
            runs=1
            slowest=0
            for ((i = 0; i < runs; i++)); do
                start=$(now)
                if ! once "$binary" "$name"; then
                    cat "$log"
                    echo "FAILED in run $((i + 1)): $name, $build, $transport"
                    failed=$((failed + 1))
                    break
                fi
                took=$((($(now) - start) / 1000000))
                [ "$took" -le "$slowest" ] || slowest=$took
                if [ "$i" -eq 0 ]; then
                    runs="${CASES_RUNS:-$([ "$took" -lt 200 ] && echo 100 || echo 10)}"
                fi
            done
            unset CONCURRENT_FUTURES_TRANSPORT
            echo "$name, $build, $transport: $i of $runs, slowest $slowest ms"
            total=$((total + i))
        done
    done
done
echo "${#tests[@]} tests, $total runs as decided, $failed failures (a test counts once for each build and transport)"
[ "$failed" -eq 0 ]
